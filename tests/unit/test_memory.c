// SPDX-License-Identifier: MIT
/*
 * Guest memory: where pages are, what the VMM's own writes leave behind, and
 * which pages were ever touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/arch.h"
#include "tests/unit/unit.h"
#include "vmm/memory.h"

static struct memory *make(uint64_t size)
{
	struct memory *mem;
	struct error err;

	ck_assert_msg(!memory_create(size, true, &mem, &err), "%s", err.text);
	return mem;
}

static bool is_set(const uint64_t *bitmap, uint64_t page)
{
	return bitmap[page / 64] & 1ULL << (page % 64);
}

START_TEST(sizes_that_cannot_be_are_refused)
{
	static const uint64_t bad[] = { 0, MEMORY_MIN - MEMORY_GRANULE,
					MEMORY_MIN + 4096,
					MEMORY_MAX + MEMORY_GRANULE };
	struct memory *mem;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(memory_create(bad[i], true, &mem, &err),
				 -EINVAL);
}
END_TEST

START_TEST(memory_beyond_the_hole_continues_at_4_gib)
{
	struct memory *mem = make(ARCH_HOLE_START + 16 * MIB);
	uint64_t index;

	ck_assert_uint_eq(mem->nregions, 2);
	ck_assert_ptr_nonnull(memory_hva(mem, ARCH_HOLE_START - 1, 1));
	ck_assert_ptr_null(memory_hva(mem, ARCH_HOLE_START - 1, 2));
	ck_assert_ptr_null(memory_hva(mem, ARCH_HOLE_START, 1));
	ck_assert_ptr_null(memory_hva(mem, ARCH_HOLE_END - 1, 1));
	ck_assert_ptr_nonnull(memory_hva(mem, ARCH_HOLE_END, 16 * MIB));
	ck_assert_ptr_null(memory_hva(mem, ARCH_HOLE_END, 16 * MIB + 1));
	ck_assert_ptr_null(memory_hva(mem, UINT64_MAX, 2));
	ck_assert(!memory_page_index(mem, ARCH_HOLE_END, &index));
	ck_assert_uint_eq(index, ARCH_HOLE_START / GUEST_PAGE_SIZE);
	ck_assert_uint_eq(memory_page_gpa(mem, index), ARCH_HOLE_END);
	ck_assert_uint_eq(memory_run_length(mem, index - 2, 8), 2);
	memory_free(mem);
}
END_TEST

START_TEST(a_write_marks_exactly_the_pages_it_reaches)
{
	struct memory *mem = make(MEMORY_MIN);
	uint8_t bytes[3 * GUEST_PAGE_SIZE];

	memset(bytes, 7, sizeof(bytes));
	ck_assert(!memory_write(mem, 5 * GUEST_PAGE_SIZE - 1, bytes,
				GUEST_PAGE_SIZE + 2));
	ck_assert_uint_eq(mem->dirty[0], 0x7ULL << 4);
	/* Into the next word, and one byte only. */
	ck_assert(!memory_write(mem, 64 * GUEST_PAGE_SIZE, bytes, 1));
	ck_assert_uint_eq(mem->dirty[1], 1);
	ck_assert_int_eq(memory_write(mem, MEMORY_MIN - 1, bytes, 2), -EFAULT);
	ck_assert_uint_eq(mem->dirty[mem->npages / 64 - 1], 0);
	memory_free(mem);
}
END_TEST

/* Linux before 6.7 has no list of them. */
static bool old_kernel;

int __real_ioctl(int fd, unsigned long command, void *arg);
int __wrap_ioctl(int fd, unsigned long command, void *arg);

int __wrap_ioctl(int fd, unsigned long command, void *arg)
{
	if (!old_kernel)
		return __real_ioctl(fd, command, arg);
	errno = ENOTTY;
	return -1;
}

static void expect_touched(bool old)
{
	struct memory *mem = make(64 * MIB);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t *touched = malloc(mem->npages / 8);
	uint64_t inside = 40 * MIB / GUEST_PAGE_SIZE;
	uint64_t far = 20 * MIB / GUEST_PAGE_SIZE;

	ck_assert_int_ge(pagemap, 0);
	ck_assert_ptr_nonnull(touched);
	old_kernel = old;
	memset(touched, 0xff, mem->npages / 8);
	*(uint8_t *)memory_page_hva(mem, inside) = 1;
	ck_assert(!memory_find_touched(mem, pagemap, touched));
	ck_assert(is_set(touched, inside));
	/* One write may bring a huge page, but not what is 20 MiB away. */
	ck_assert(!is_set(touched, far));
	ck_assert(!is_set(touched, 0));
	ck_assert(!is_set(touched, mem->npages - 1));

	memory_zero(mem);
	ck_assert(!memory_find_touched(mem, pagemap, touched));
	ck_assert(!is_set(touched, inside));
	free(touched);
	close(pagemap);
	memory_free(mem);
}

START_TEST(what_was_never_touched_is_known)
{
	expect_touched(false);
	expect_touched(true);
}
END_TEST

/* More stretches than one call tells of, and bits at all places of a word. */
START_TEST(both_ways_find_the_same_pages)
{
	struct memory *mem = make(64 * MIB);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t *one = malloc(mem->npages / 8);
	uint64_t *other = malloc(mem->npages / 8);

	/* Pages, not huge ones. */
	ck_assert(!madvise(mem->regions[0].hva, mem->size, MADV_NOHUGEPAGE));
	for (uint64_t page = 3; page < mem->npages; page += 2 + page % 16)
		*(uint8_t *)memory_page_hva(mem, page) = 1;
	for (uint64_t page = 1000; page < 1300; page++)
		*(uint8_t *)memory_page_hva(mem, page) = 1;
	ck_assert(!memory_find_touched(mem, pagemap, one));
	old_kernel = true;
	ck_assert(!memory_find_touched(mem, pagemap, other));
	ck_assert_mem_eq(one, other, mem->npages / 8);
	ck_assert(is_set(one, 3) && is_set(one, 1299) && !is_set(one, 2));
	free(one);
	free(other);
	close(pagemap);
	memory_free(mem);
}
END_TEST

START_TEST(what_is_discarded_is_zero_marked_and_takes_no_memory)
{
	struct memory *mem = make(64 * MIB);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t *touched = malloc(mem->npages / 8);
	uint8_t *at = memory_hva(mem, 0, 16 * GUEST_PAGE_SIZE);

	memset(at, 7, 16 * GUEST_PAGE_SIZE);
	memory_discard(mem, 4 * GUEST_PAGE_SIZE - 1, 3 * GUEST_PAGE_SIZE + 1);
	ck_assert_uint_eq(mem->dirty[0], 0x7ULL << 4);
	ck_assert(!memory_find_touched(mem, pagemap, touched));
	ck_assert_uint_eq(touched[0] & 0xffff, 0xff8f);
	ck_assert_uint_eq(at[4 * GUEST_PAGE_SIZE - 1], 7);
	ck_assert_uint_eq(at[4 * GUEST_PAGE_SIZE], 0);
	ck_assert_uint_eq(at[7 * GUEST_PAGE_SIZE], 7);
	/* Less than a page, and what is no memory, or only in part. */
	memory_discard(mem, 8 * GUEST_PAGE_SIZE + 1, GUEST_PAGE_SIZE);
	memory_discard(mem, 64 * MIB, GUEST_PAGE_SIZE);
	memory_discard(mem, 0, 64 * MIB + 1);
	memory_discard(mem, 0, UINT64_MAX);
	memory_discard(mem, UINT64_MAX - 1, 3 * GUEST_PAGE_SIZE);
	ck_assert_uint_eq(mem->dirty[0], 0x7ULL << 4);
	ck_assert_uint_eq(at[0], 7);
	ck_assert_uint_eq(at[8 * GUEST_PAGE_SIZE], 7);
	free(touched);
	close(pagemap);
	memory_free(mem);
}
END_TEST

START_TEST(not_knowing_what_was_touched_is_an_error)
{
	struct memory *mem = make(MEMORY_MIN);
	uint64_t *touched = malloc(mem->npages / 8);

	ck_assert_int_eq(memory_find_touched(mem, -1, touched), -EBADF);
	free(touched);
	memory_free(mem);
}
END_TEST

static uint64_t huge_pages_here(struct hugepages *pool)
{
	struct error err;

	return hugepages_open(pool, &err) ? 0 : hugepages_available(pool);
}

START_TEST(huge_pages_are_promised_and_given_back_whole)
{
	const uint64_t need = MEMORY_MIN / HUGE_PAGE_SIZE;
	struct hugepages pool;
	struct memory *mem;
	struct error err;
	uint64_t before = huge_pages_here(&pool);

	if (before < need) {
		printf("SKIPPED: this host has %llu of %llu huge pages free\n",
		       (unsigned long long)before, (unsigned long long)need);
		return;
	}
	ck_assert(!memory_create_huge(MEMORY_MIN, &pool, &mem, &err));
	ck_assert_uint_eq(hugepages_available(&pool), before - need);
	memset(memory_hva(mem, 0, MEMORY_MIN), 7, MEMORY_MIN);
	memory_discard(mem, HUGE_PAGE_SIZE - 1, HUGE_PAGE_SIZE + 1);
	/* Of a huge page there is no part to be given back. */
	memory_discard(mem, 3 * HUGE_PAGE_SIZE, HUGE_PAGE_SIZE - 1);
	ck_assert_uint_eq(*(uint8_t *)memory_hva(mem, HUGE_PAGE_SIZE, 1), 0);
	ck_assert_uint_eq(*(uint8_t *)memory_hva(mem, HUGE_PAGE_SIZE - 1, 1),
			  7);
	ck_assert_uint_eq(*(uint8_t *)memory_hva(mem, 3 * HUGE_PAGE_SIZE, 1),
			  7);
	ck_assert_uint_eq(mem->dirty[3 * HUGE_PAGE_SIZE / GUEST_PAGE_SIZE / 64],
			  0);
	memory_free(mem);
	ck_assert_uint_eq(hugepages_available(&pool), before);
	hugepages_close(&pool);
}
END_TEST

START_TEST(huge_pages_that_are_not_there_are_counted)
{
	struct hugepages pool;
	struct memory *mem;
	struct error err;
	uint64_t have = huge_pages_here(&pool);
	char text[64];

	/* More than any host can have. */
	ck_assert_int_eq(memory_create_huge(MEMORY_MAX, &pool, &mem, &err),
			 -ENOMEM);
	snprintf(text, sizeof(text), "the host has %llu free",
		 (unsigned long long)have);
	ck_assert_ptr_nonnull(strstr(err.text, text));
	snprintf(text, sizeof(text), "add %llu to",
		 (unsigned long long)(MEMORY_MAX / HUGE_PAGE_SIZE - have));
	ck_assert_ptr_nonnull(strstr(err.text, text));
	ck_assert_int_eq(
		memory_create_huge(MEMORY_MIN + MIB, &pool, &mem, &err),
		-EINVAL);
	hugepages_close(&pool);
}
END_TEST

UNIT_SUITE("memory", sizes_that_cannot_be_are_refused,
	   memory_beyond_the_hole_continues_at_4_gib,
	   a_write_marks_exactly_the_pages_it_reaches,
	   what_was_never_touched_is_known, both_ways_find_the_same_pages,
	   what_is_discarded_is_zero_marked_and_takes_no_memory,
	   huge_pages_are_promised_and_given_back_whole,
	   huge_pages_that_are_not_there_are_counted,
	   not_knowing_what_was_touched_is_an_error)
