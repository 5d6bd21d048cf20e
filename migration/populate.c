// SPDX-License-Identifier: MIT
/*
 * Memory made ahead; see populate.h.
 *
 * What is expected waits in a ring of stretches. Workers take it in pieces of
 * a huge page, under the lock; the work itself is done without.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "migration/populate.h"
#include "vmm/log.h"

/* Twice what one record may hold. */
#define STRETCHES 1024
#define PIECE	  (2 * MIB / GUEST_PAGE_SIZE)

struct stretch {
	uint64_t index;
	uint64_t npages;
};

struct populate {
	const struct memory *mem;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int first; /* of the ring */
	unsigned int count;
	struct stretch ring[STRETCHES];
	uint64_t passed;
	bool ending;
};

int populate_create(const struct memory *mem, struct populate **ret,
		    struct error *err)
{
	struct populate *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, -ENOMEM, "populating: out of memory");
	p->mem = mem;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	*ret = p;
	return 0;
}

void populate_free(struct populate *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void populate_expect(struct populate *p, uint64_t index, uint64_t npages)
{
	pthread_mutex_lock(&p->lock);
	if (p->count < STRETCHES) {
		unsigned int at = (p->first + p->count++) % STRETCHES;

		p->ring[at] = (struct stretch){ index, npages };
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
}

void populate_passed(struct populate *p, uint64_t index)
{
	pthread_mutex_lock(&p->lock);
	p->passed = MAX(p->passed, index);
	pthread_mutex_unlock(&p->lock);
}

/* What to do next; false when there is nothing. With the lock held. */
static bool next_piece(struct populate *p, struct stretch *ret)
{
	while (p->count) {
		struct stretch *s = &p->ring[p->first];
		uint64_t skip = p->passed > s->index
					? MIN(p->passed - s->index, s->npages)
					: 0;

		s->index += skip;
		s->npages -= skip;
		*ret = (struct stretch){ s->index, MIN(s->npages, PIECE) };
		s->index += ret->npages;
		s->npages -= ret->npages;
		if (!s->npages) {
			p->first = (p->first + 1) % STRETCHES;
			p->count--;
		}
		if (ret->npages)
			return true;
	}
	return false;
}

static void make(const struct populate *p, const struct stretch *piece)
{
	if (madvise(memory_page_hva(p->mem, piece->index),
		    piece->npages << GUEST_PAGE_SHIFT, MADV_POPULATE_WRITE))
		log_debug("populating 2 MiB ahead: %s", strerror(errno));
}

void populate_work(struct populate *p)
{
	struct stretch piece;

	pthread_mutex_lock(&p->lock);
	while (!p->ending) {
		if (!next_piece(p, &piece)) {
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		pthread_mutex_unlock(&p->lock);
		make(p, &piece);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
}

void populate_end(struct populate *p)
{
	pthread_mutex_lock(&p->lock);
	p->ending = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}
