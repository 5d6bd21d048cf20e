// SPDX-License-Identifier: MIT
/*
 * Digests of memory: what a chunk's digest is, whatever of it was ever touched.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/codec.h"
#include "migration/digest.h"
#include "tests/unit/unit.h"

#define CHUNK_PAGES (DIGEST_CHUNK / GUEST_PAGE_SIZE)

struct rig {
	struct memory *mem;
	struct digest *digest;
	int pagemap_fd;
};

static void rig_init(struct rig *rig, uint64_t size, bool pagemap)
{
	struct error err;

	rig->pagemap_fd = -1;
	if (pagemap)
		rig->pagemap_fd = open("/proc/self/pagemap", O_RDONLY);
	ck_assert_int_eq(rig->pagemap_fd >= 0, pagemap);
	ck_assert(!memory_create(size, true, &rig->mem, &err));
	ck_assert(!digest_create(rig->mem, rig->pagemap_fd, NULL, &rig->digest,
				 &err));
}

static void rig_fini(struct rig *rig)
{
	digest_free(rig->digest);
	memory_free(rig->mem);
	close_fd(&rig->pagemap_fd);
}

static void fill_page(struct rig *rig, uint64_t index)
{
	uint8_t *page = memory_page_hva(rig->mem, index);

	for (size_t i = 0; i < GUEST_PAGE_SIZE; i++)
		page[i] = (uint8_t)(rand() >> 7);
}

/* As FORMAT.md has it. */
static uint32_t plain_digest(const struct rig *rig, uint32_t chunk)
{
	uint64_t first = (uint64_t)chunk * CHUNK_PAGES;
	uint64_t n = MIN(rig->mem->npages - first, CHUNK_PAGES);

	return crc32c(0, memory_page_hva(rig->mem, first),
		      n << GUEST_PAGE_SHIFT);
}

static void expect_plain(struct rig *rig)
{
	uint32_t n = digest_chunks(rig->digest);
	uint32_t *got = calloc(n, sizeof(*got));

	digest_begin(rig->digest);
	digest_take(rig->digest, 0, n, got);
	for (uint32_t i = 0; i < n; i++)
		ck_assert_msg(got[i] == plain_digest(rig, i),
			      "chunk %u of %u: %08x instead of %08x", i, n,
			      got[i], plain_digest(rig, i));
	free(got);
}

static uint64_t touched_pages(const struct rig *rig)
{
	uint64_t *touched = calloc(rig->mem->npages / 64, sizeof(*touched));
	uint64_t n = 0;

	ck_assert(!memory_find_touched(rig->mem, rig->pagemap_fd, touched));
	for (uint64_t i = 0; i < rig->mem->npages / 64; i++)
		n += (uint64_t)__builtin_popcountll(touched[i]);
	free(touched);
	return n;
}

/* The last chunk is half a one. */
static void digest_some(bool pagemap)
{
	struct rig rig;

	rig_init(&rig, 33 * MIB, pagemap);
	ck_assert_uint_eq(digest_chunks(rig.digest), 17);
	for (int i = 0; i < 40; i++)
		fill_page(&rig, (uint64_t)rand() % rig.mem->npages);
	for (uint64_t i = 0; i < CHUNK_PAGES; i++)
		fill_page(&rig, 3 * CHUNK_PAGES + i);
	fill_page(&rig, rig.mem->npages - 1);
	expect_plain(&rig);
	rig_fini(&rig);
}

START_TEST(a_digest_is_the_crc_of_a_chunks_bytes)
{
	digest_some(true);
	digest_some(false);
}
END_TEST

START_TEST(memory_that_was_never_touched_stays_so)
{
	uint32_t got[17];
	uint64_t before;
	struct rig rig;

	rig_init(&rig, 33 * MIB, true);
	fill_page(&rig, 5 * CHUNK_PAGES);
	before = touched_pages(&rig);
	digest_begin(rig.digest);
	digest_take(rig.digest, 0, ARRAY_SIZE(got), got);
	ck_assert_uint_eq(touched_pages(&rig), before);
	ck_assert_uint_ge(before, 1);
	ck_assert_uint_le(before, CHUNK_PAGES);
	/* What is not there is zero: reading it now proves it. */
	for (uint32_t i = 0; i < ARRAY_SIZE(got); i++)
		ck_assert_uint_eq(got[i], plain_digest(&rig, i));
	rig_fini(&rig);
}
END_TEST

START_TEST(no_flipped_bit_goes_unseen)
{
	uint32_t before[8], after[8];
	struct rig rig;

	rig_init(&rig, 16 * MIB, true);
	for (uint64_t i = 0; i < rig.mem->npages; i += 3)
		fill_page(&rig, i);
	digest_begin(rig.digest);
	digest_take(rig.digest, 0, 8, before);
	for (int i = 0; i < 200; i++) {
		uint64_t at = (uint64_t)rand() % rig.mem->size;
		uint8_t *byte = memory_hva(rig.mem, at, 1);

		*byte ^= (uint8_t)(1U << (i % 8));
		digest_begin(rig.digest);
		digest_take(rig.digest, 0, 8, after);
		for (uint64_t k = 0; k < 8; k++)
			ck_assert_msg((before[k] != after[k]) ==
					      (k == at / DIGEST_CHUNK),
				      "bit of byte 0x%llx, chunk %llu",
				      (unsigned long long)at,
				      (unsigned long long)k);
		*byte ^= (uint8_t)(1U << (i % 8));
	}
	rig_fini(&rig);
}
END_TEST

START_TEST(chunks_go_on_behind_the_hole)
{
	uint64_t gpa, last;
	struct rig rig;
	uint32_t got;

	rig_init(&rig, 3 * GIB + 5 * MIB, true);
	ck_assert_uint_eq(digest_chunks(rig.digest), 1536 + 3);
	fill_page(&rig, 1536 * CHUNK_PAGES + 7);
	digest_begin(rig.digest);
	digest_take(rig.digest, 1536, 1, &got);
	ck_assert_uint_eq(got, plain_digest(&rig, 1536));
	digest_range(rig.digest, 1535, &gpa, &last);
	ck_assert_uint_eq(gpa, 3 * GIB - 2 * MIB);
	ck_assert_uint_eq(last, 3 * GIB - 1);
	digest_range(rig.digest, 1536, &gpa, &last);
	ck_assert_uint_eq(gpa, 4 * GIB);
	ck_assert_uint_eq(last, 4 * GIB + 2 * MIB - 1);
	digest_range(rig.digest, 1538, &gpa, &last);
	ck_assert_uint_eq(gpa, 4 * GIB + 4 * MIB);
	ck_assert_uint_eq(last, 4 * GIB + 5 * MIB - 1);
	rig_fini(&rig);
}
END_TEST

UNIT_SUITE("digest", a_digest_is_the_crc_of_a_chunks_bytes,
	   memory_that_was_never_touched_stays_so, no_flipped_bit_goes_unseen,
	   chunks_go_on_behind_the_hole)
