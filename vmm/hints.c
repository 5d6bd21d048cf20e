// SPDX-License-Identifier: MIT
/*
 * Pages that the guest does not need; see hints.h.
 *
 * A bit a page, and a bit for each stretch of 64 words in which some are set,
 * so that finding a few in a big guest costs little.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vmm/hints.h"

#define STRETCH 64 /* words */

struct hints {
	const struct memory *mem;
	uint64_t nwords;
	_Atomic bool any; /* that nobody has taken */
	pthread_mutex_t lock;
	bool open;
	uint64_t *pages;     /* a bit a page index */
	uint64_t *stretches; /* a bit a stretch of them */
};

int hints_create(const struct memory *mem, struct hints **ret,
		 struct error *err)
{
	struct hints *hints = calloc(1, sizeof(*hints));

	if (!hints)
		goto no_memory;
	hints->mem = mem;
	hints->nwords = mem->npages / 64;
	pthread_mutex_init(&hints->lock, NULL);
	hints->pages = calloc(hints->nwords, sizeof(uint64_t));
	hints->stretches = calloc(div_round_up(hints->nwords, STRETCH * 64ULL),
				  sizeof(uint64_t));
	if (!hints->pages || !hints->stretches)
		goto no_memory;
	*ret = hints;
	return 0;

no_memory:
	hints_free(hints);
	return error_set(err, -ENOMEM, "hints of free pages: out of memory");
}

void hints_free(struct hints *hints)
{
	if (!hints)
		return;
	pthread_mutex_destroy(&hints->lock);
	free(hints->pages);
	free(hints->stretches);
	free(hints);
}

static void set_page(struct hints *hints, uint64_t index)
{
	uint64_t stretch = index / 64 / STRETCH;

	hints->pages[index / 64] |= 1ULL << (index % 64);
	hints->stretches[stretch / 64] |= 1ULL << (stretch % 64);
}

/* All that is set, cleared; with the lock held. */
static void take_all(struct hints *hints, memory_pages_fn *fn, void *opaque)
{
	uint64_t nstretches = div_round_up(hints->nwords, STRETCH);

	for (uint64_t i = 0; i < nstretches; i++) {
		uint64_t *bits = &hints->stretches[i / 64];
		uint64_t end = MIN((i + 1) * STRETCH, hints->nwords);

		if (!(*bits & 1ULL << (i % 64)))
			continue;
		*bits &= ~(1ULL << (i % 64));
		for (uint64_t word = i * STRETCH; word < end; word++) {
			if (hints->pages[word] && fn)
				fn(opaque, word, hints->pages[word]);
			hints->pages[word] = 0;
		}
	}
	hints->any = false;
}

void hints_open(struct hints *hints)
{
	pthread_mutex_lock(&hints->lock);
	hints->open = true;
	pthread_mutex_unlock(&hints->lock);
}

void hints_close(struct hints *hints)
{
	pthread_mutex_lock(&hints->lock);
	hints->open = false;
	if (hints->any)
		take_all(hints, NULL, NULL);
	pthread_mutex_unlock(&hints->lock);
}

void hints_add(struct hints *hints, uint64_t gpa, uint64_t len)
{
	uint64_t first = align_up(gpa, GUEST_PAGE_SIZE);
	uint64_t end = (gpa + len) & ~(GUEST_PAGE_SIZE - 1);
	uint64_t index;

	if (!memory_hva(hints->mem, gpa, len) || first >= end ||
	    memory_page_index(hints->mem, first, &index))
		return;
	pthread_mutex_lock(&hints->lock);
	if (hints->open) {
		for (; first < end; first += GUEST_PAGE_SIZE)
			set_page(hints, index++);
		hints->any = true;
	}
	pthread_mutex_unlock(&hints->lock);
}

void hints_take(struct hints *hints, memory_pages_fn *fn, void *opaque)
{
	if (!hints->any)
		return;
	pthread_mutex_lock(&hints->lock);
	take_all(hints, fn, opaque);
	pthread_mutex_unlock(&hints->lock);
}
