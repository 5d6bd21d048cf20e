// SPDX-License-Identifier: MIT
/*
 * Hints of free pages: none is heard that nobody wants, each is handed on once.
 */
#include <string.h>

#include "arch/arch.h"
#include "tests/unit/unit.h"
#include "vmm/hints.h"

#define PAGES (512 * MIB / GUEST_PAGE_SIZE)

struct heard {
	uint64_t count;
	uint64_t words[PAGES / 64];
};

static void hear(void *opaque, uint64_t word, uint64_t bits)
{
	struct heard *heard = opaque;

	ck_assert_uint_lt(word, ARRAY_SIZE(heard->words));
	ck_assert_uint_eq(heard->words[word] & bits, 0);
	heard->words[word] |= bits;
	heard->count += (uint64_t)__builtin_popcountll(bits);
}

struct rig {
	struct memory *mem;
	struct hints *hints;
	struct heard heard;
};

static struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;

	ck_assert_ptr_nonnull(rig);
	ck_assert(!memory_create(PAGES * GUEST_PAGE_SIZE, false, &rig->mem,
				 &err));
	ck_assert(!hints_create(rig->mem, &rig->hints, &err));
	return rig;
}

static void rig_free(struct rig *rig)
{
	hints_free(rig->hints);
	memory_free(rig->mem);
	free(rig);
}

static uint64_t take(struct rig *rig)
{
	memset(&rig->heard, 0, sizeof(rig->heard));
	hints_take(rig->hints, hear, &rig->heard);
	return rig->heard.count;
}

START_TEST(a_hint_is_handed_on_once)
{
	struct rig *rig = rig_new();

	hints_open(rig->hints);
	ck_assert_uint_eq(take(rig), 0);
	hints_add(rig->hints, 4 * MIB, 4 * MIB);
	hints_add(rig->hints, (PAGES - 1) * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
	hints_add(rig->hints, 4 * MIB, GUEST_PAGE_SIZE);
	ck_assert_uint_eq(take(rig), 1025);
	ck_assert_uint_eq(rig->heard.words[15], 0);
	ck_assert_uint_eq(rig->heard.words[16], UINT64_MAX);
	ck_assert_uint_eq(rig->heard.words[31], UINT64_MAX);
	ck_assert_uint_eq(rig->heard.words[32], 0);
	ck_assert_uint_eq(rig->heard.words[PAGES / 64 - 1], 1ULL << 63);
	ck_assert_uint_eq(take(rig), 0);
	hints_add(rig->hints, 0, GUEST_PAGE_SIZE);
	ck_assert_uint_eq(take(rig), 1);
	rig_free(rig);
}
END_TEST

START_TEST(only_whole_pages_of_ram_are_free)
{
	struct rig *rig = rig_new();

	hints_open(rig->hints);
	hints_add(rig->hints, GUEST_PAGE_SIZE - 1, 2 * GUEST_PAGE_SIZE);
	ck_assert_uint_eq(take(rig), 1);
	ck_assert_uint_eq(rig->heard.words[0], 2);
	hints_add(rig->hints, 1, GUEST_PAGE_SIZE);
	hints_add(rig->hints, 0, 0);
	hints_add(rig->hints, PAGES * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
	hints_add(rig->hints, (PAGES - 1) * GUEST_PAGE_SIZE,
		  2 * GUEST_PAGE_SIZE);
	hints_add(rig->hints, UINT64_MAX, 2 * GUEST_PAGE_SIZE);
	hints_add(rig->hints, GUEST_PAGE_SIZE, UINT64_MAX);
	ck_assert_uint_eq(take(rig), 0);
	rig_free(rig);
}
END_TEST

START_TEST(hints_are_heard_only_while_they_are_wanted)
{
	struct rig *rig = rig_new();

	hints_add(rig->hints, 0, GUEST_PAGE_SIZE);
	ck_assert_uint_eq(take(rig), 0);
	hints_open(rig->hints);
	ck_assert_uint_eq(take(rig), 0);
	hints_add(rig->hints, 0, GUEST_PAGE_SIZE);
	hints_close(rig->hints);
	ck_assert_uint_eq(take(rig), 0);
	hints_open(rig->hints);
	ck_assert_uint_eq(take(rig), 0);
	rig_free(rig);
}
END_TEST

UNIT_SUITE("hints", a_hint_is_handed_on_once, only_whole_pages_of_ram_are_free,
	   hints_are_heard_only_while_they_are_wanted)
