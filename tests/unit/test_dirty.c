// SPDX-License-Identifier: MIT
/*
 * Which pages are pending: whatever KVM and the VMM say was written, no page
 * of it is missed, none is made up, and they come in order. KVM is played.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "migration/dirty.h"
#include "tests/unit/unit.h"

#define ROUNDS 200
#define MARKS  20000

/* What the played KVM says at the next KVM_GET_DIRTY_LOG. */
static struct {
	struct memory *mem;
	uint64_t *log;
} played;

int __wrap_ioctl(int fd, unsigned long command, void *arg);

int __wrap_ioctl(int fd, unsigned long command, void *arg)
{
	const struct kvm_dirty_log *get = arg;
	const struct memory_region *region;

	(void)fd;
	if (command != KVM_GET_DIRTY_LOG)
		return 0;
	region = &played.mem->regions[get->slot];
	memcpy(get->dirty_bitmap, played.log + region->first_page / 64,
	       region->size / GUEST_PAGE_SIZE / 8);
	memset(played.log + region->first_page / 64, 0,
	       region->size / GUEST_PAGE_SIZE / 8);
	return 0;
}

struct scene {
	struct memory *mem;
	struct dirty *dirty;
	bool *expected; /* of each page */
};

static uint64_t random_below(uint64_t end)
{
	return (uint64_t)random() % end;
}

/* Not one assertion a page: each of them leaves a message behind. */
static void pass_over(struct scene *s, uint64_t page, uint64_t end, bool pends)
{
	for (; page < end; page++) {
		if (s->expected[page] != pends)
			ck_abort_msg("page %lu is %spending", page,
				     pends ? "" : "not ");
		s->expected[page] = false;
	}
}

/* Takes everything that is pending, and finds what was expected, in order. */
static void take_expected(struct scene *s)
{
	uint64_t index = 0, before = 0, n;
	struct error err;

	while ((n = dirty_next(s->dirty, &index, 1 + random_below(200)))) {
		pass_over(s, before, index, false);
		if (dirty_take(s->dirty, index, n, &err))
			ck_abort_msg("%s", err.text);
		pass_over(s, index, index + n, true);
		before = index += n;
	}
	pass_over(s, before, s->mem->npages, false);
	ck_assert_uint_eq(dirty_pending(s->dirty), 0);
}

static void open_scene(struct scene *s, uint64_t size)
{
	struct error err;

	ck_assert_msg(!memory_create(size, false, &s->mem, &err), "%s",
		      err.text);
	played.mem = s->mem;
	played.log = calloc(s->mem->npages / 64, sizeof(uint64_t));
	s->expected = calloc(s->mem->npages, sizeof(bool));
	ck_assert(!dirty_create(s->mem, -1, &s->dirty, &err));
	ck_assert(!dirty_start(s->dirty, -1, &err));
	memset(s->expected, true, s->mem->npages);
	take_expected(s);
}

static void close_scene(struct scene *s)
{
	dirty_stop(s->dirty);
	dirty_free(s->dirty);
	memory_free(s->mem);
	free(s->expected);
	free(played.log);
}

/* Some runs of pages, by KVM's word or by ours. */
static void write_some(struct scene *s)
{
	for (uint64_t runs = random_below(20); runs; runs--) {
		uint64_t page = random_below(s->mem->npages);
		uint64_t len = random_below(4) ? 1 : random_below(300);
		bool guest = random_below(2);

		for (; len && page < s->mem->npages; len--, page++) {
			if (guest)
				played.log[page / 64] |= 1ULL << page % 64;
			else
				memory_mark_dirty(s->mem,
						  memory_page_gpa(s->mem, page),
						  GUEST_PAGE_SIZE);
			s->expected[page] = true;
		}
	}
}

START_TEST(what_is_written_is_pending_and_nothing_else)
{
	/* No whole number of steps; more than one part; two regions. */
	static const uint64_t sizes[] = { 17 * MIB, 99 * MIB,
					  ARCH_HOLE_START + 35 * MIB };
	struct scene s;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		open_scene(&s, sizes[i]);
		for (int round = 0; round < ROUNDS / (1 << 2 * i); round++) {
			write_some(&s);
			ck_assert(!dirty_sync(s.dirty, round % 2, &err));
			/* Sometimes two rounds' worth at once. */
			if (random_below(3))
				take_expected(&s);
		}
		close_scene(&s);
	}
}
END_TEST

START_TEST(the_ends_of_memory_are_not_forgotten)
{
	struct scene s;
	struct error err;

	open_scene(&s, ARCH_HOLE_START + 17 * MIB);
	for (unsigned int i = 0; i < s.mem->nregions; i++) {
		const struct memory_region *region = &s.mem->regions[i];
		uint64_t last =
			region->first_page + region->size / GUEST_PAGE_SIZE - 1;

		s.expected[region->first_page] = s.expected[last] = true;
		memory_mark_dirty(s.mem, region->gpa, 1);
		played.log[last / 64] |= 1ULL << last % 64;
	}
	ck_assert(!dirty_sync(s.dirty, false, &err));
	ck_assert_uint_eq(dirty_pending(s.dirty), 4);
	take_expected(&s);
	close_scene(&s);
}
END_TEST

/* ---- marks while somebody takes them ---- */

static struct {
	struct memory *mem;
	atomic_uint wanted; /* marks */
	atomic_uint made;
} writer;

static void *mark_when_wanted(void *opaque)
{
	(void)opaque;
	for (unsigned int n = 1; n <= MARKS; n++) {
		while (writer.wanted < n)
			sched_yield();
		memory_mark_dirty(writer.mem, n % 64 * GUEST_PAGE_SIZE, 1);
		writer.made = n;
	}
	return NULL;
}

static void note_taken(void *opaque, uint64_t word, uint64_t bits)
{
	uint64_t *taken = opaque;

	*taken |= word ? 0 : bits;
}

START_TEST(no_mark_is_lost_to_who_takes_them_meanwhile)
{
	pthread_t thread;
	struct error err;

	ck_assert(!memory_create(MEMORY_MIN, false, &writer.mem, &err));
	ck_assert(!pthread_create(&thread, NULL, mark_when_wanted, NULL));
	for (unsigned int n = 1; n <= MARKS; n++) {
		uint64_t taken = 0;

		writer.wanted = n;
		while (writer.made < n)
			memory_take_dirty(writer.mem, note_taken, &taken);
		memory_take_dirty(writer.mem, note_taken, &taken);
		if (taken != 1ULL << n % 64)
			ck_abort_msg("mark %u: taken 0x%lx", n, taken);
	}
	pthread_join(thread, NULL);
	memory_free(writer.mem);
}
END_TEST

UNIT_SUITE("dirty", what_is_written_is_pending_and_nothing_else,
	   the_ends_of_memory_are_not_forgotten,
	   no_mark_is_lost_to_who_takes_them_meanwhile)
