// SPDX-License-Identifier: MIT
/*
 * Who is slowed down when a guest dirties too fast: blame.h.
 */
#include "migration/blame.h"
#include "tests/unit/unit.h"

#define VCPUS 8

/* One round in which each vCPU had @now faults, and so many pages were dirty.
 */
static void note(struct blame *b, uint64_t *faults, const uint64_t *now,
		 uint64_t dirty)
{
	for (uint32_t i = 0; i < b->nvcpus; i++)
		faults[i] += now[i];
	blame_note(b, faults, dirty);
}

static unsigned int slowed(const struct blame *b)
{
	unsigned int mask = 0;

	for (uint32_t i = 0; i < b->nvcpus; i++)
		mask |= (unsigned int)b->slow[i] << i;
	return mask;
}

START_TEST(without_any_sign_all_are_slowed_alike)
{
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_choose(&b, 20);
	ck_assert_uint_eq(slowed(&b), 0xff);
	/* One look says nothing yet. */
	blame_note(&b, faults, 1000);
	blame_choose(&b, 20);
	ck_assert_uint_eq(slowed(&b), 0xff);
	blame_note(&b, NULL, 1000);
	blame_choose(&b, 20);
	ck_assert_uint_eq(slowed(&b), 0xff);
	blame_choose(&b, 0);
	ck_assert_uint_eq(slowed(&b), 0);
}
END_TEST

START_TEST(far_fewer_faults_than_dirty_pages_are_no_sign)
{
	static const uint64_t few[VCPUS] = { 10 };
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	note(&b, faults, few, 0);
	note(&b, faults, few, 5000);
	blame_choose(&b, 40);
	ck_assert_uint_eq(slowed(&b), 0xff);
}
END_TEST

START_TEST(only_those_that_dirty_are_slowed)
{
	static const uint64_t now[VCPUS] = { 0, 1000, 0, 3, 900, 0, 0, 0 };
	uint64_t faults[VCPUS] = { 7, 7, 7, 7, 7, 7, 7, 1000000 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_note(&b, faults, 0);
	note(&b, faults, now, 1900);
	blame_choose(&b, 60);
	ck_assert_uint_eq(slowed(&b), 1 << 1 | 1 << 4);
	blame_choose(&b, 0);
	ck_assert_uint_eq(slowed(&b), 0);
}
END_TEST

START_TEST(equals_are_slowed_alike)
{
	static const uint64_t now[VCPUS] = { 500, 500, 500, 500,
					     500, 500, 500, 500 };
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_note(&b, faults, 0);
	note(&b, faults, now, 4000);
	blame_choose(&b, 95);
	ck_assert_uint_eq(slowed(&b), 0xff);
}
END_TEST

/* 3 % matter once the others are held for 99 % of the time. */
START_TEST(small_ones_join_when_the_big_ones_are_held_hard)
{
	static const uint64_t now[VCPUS] = { 970, 30 };
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_note(&b, faults, 0);
	note(&b, faults, now, 1000);
	blame_choose(&b, 20);
	ck_assert_uint_eq(slowed(&b), 1);
	blame_choose(&b, 99);
	ck_assert_uint_eq(slowed(&b), 3);
}
END_TEST

/* It faults at a hundredth of its pace, and has not changed. */
START_TEST(who_is_held_is_not_taken_for_innocent)
{
	static const uint64_t free[VCPUS] = { 5000, 10 };
	static const uint64_t held[VCPUS] = { 50, 10 };
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_note(&b, faults, 0);
	note(&b, faults, free, 5010);
	for (int i = 0; i < 20; i++) {
		blame_choose(&b, 99);
		ck_assert_uint_eq(slowed(&b), 1);
		note(&b, faults, held, 60);
	}
}
END_TEST

START_TEST(who_begins_to_dirty_is_found_and_who_ends_is_let_go)
{
	static const uint64_t first[VCPUS] = { 1000 };
	static const uint64_t then[VCPUS] = { 0, 1000 };
	uint64_t faults[VCPUS] = { 0 };
	struct blame b;

	blame_init(&b, VCPUS);
	blame_note(&b, faults, 0);
	note(&b, faults, first, 1000);
	blame_choose(&b, 40);
	ck_assert_uint_eq(slowed(&b), 1);
	for (int i = 0; i < 8; i++) {
		note(&b, faults, then, 1000);
		blame_choose(&b, 40);
	}
	ck_assert_uint_eq(slowed(&b), 2);
}
END_TEST

UNIT_SUITE("blame", without_any_sign_all_are_slowed_alike,
	   far_fewer_faults_than_dirty_pages_are_no_sign,
	   only_those_that_dirty_are_slowed, equals_are_slowed_alike,
	   small_ones_join_when_the_big_ones_are_held_hard,
	   who_is_held_is_not_taken_for_innocent,
	   who_begins_to_dirty_is_found_and_who_ends_is_let_go)
