// SPDX-License-Identifier: MIT
/*
 * Pages that were touched; see pagemap.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/pagemap.h"

_Static_assert(sizeof(struct pagemap_run) == 24, "struct page_region");
_Static_assert(sizeof(struct pagemap_scan) == 96, "struct pm_scan_arg");

/* Bits of a category, and of a page's word. */
#define CATEGORY_PRESENT (1ULL << 3)
#define CATEGORY_SWAPPED (1ULL << 4)
#define WORD_PRESENT	 (1ULL << 63)
#define WORD_SWAPPED	 (1ULL << 62)

#define RUNS  512  /* at a time */
#define WORDS 4096 /* at a time; a multiple of 64 */

static void set_bits(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	for (; first < end && first % 64; first++)
		bitmap[first / 64] |= 1ULL << (first % 64);
	for (; first + 64 <= end; first += 64)
		bitmap[first / 64] = UINT64_MAX;
	for (; first < end; first++)
		bitmap[first / 64] |= 1ULL << (first % 64);
}

/* By the list of runs. */
static int scan(int fd, uint64_t base, uint64_t npages, uint64_t *touched,
		struct pagemap_run *runs)
{
	uint64_t end = base + (npages << GUEST_PAGE_SHIFT);
	struct pagemap_scan order = {
		.size = sizeof(order),
		.start = base,
		.end = end,
		.vec = (uintptr_t)runs,
		.vec_len = RUNS,
		.category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
		.return_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
	};

	memset(touched, 0, npages / 8);
	while (order.start < end) {
		int n = ioctl(fd, PAGEMAP_SCAN_TOUCHED, &order);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++)
			set_bits(touched,
				 (runs[i].start - base) >> GUEST_PAGE_SHIFT,
				 (runs[i].end - base) >> GUEST_PAGE_SHIFT);
		if (order.walk_end <= order.start)
			return -EIO;
		order.start = order.walk_end;
	}
	return 0;
}

static uint64_t touched_word(const uint64_t *words)
{
	uint64_t bits = 0;

	for (unsigned int i = 0; i < 64; i++) {
		if (words[i] & (WORD_PRESENT | WORD_SWAPPED))
			bits |= 1ULL << i;
	}
	return bits;
}

/* By the word of each page. */
static int read_words(int fd, uint64_t base, uint64_t npages, uint64_t *touched,
		      uint64_t *words)
{
	uint64_t first = base >> GUEST_PAGE_SHIFT;

	for (uint64_t done = 0; done < npages; done += WORDS) {
		uint64_t n = MIN(npages - done, WORDS);
		int rc = pread_full(fd, words, n * sizeof(*words),
				    (first + done) * sizeof(*words));

		if (rc)
			return rc;
		for (uint64_t i = 0; i < n; i += 64)
			touched[(done + i) / 64] = touched_word(words + i);
	}
	return 0;
}

int pagemap_find_touched(int fd, const void *hva, uint64_t npages,
			 uint64_t *touched)
{
	void *room = malloc(MAX(RUNS * sizeof(struct pagemap_run),
				WORDS * sizeof(uint64_t)));
	uint64_t base = (uintptr_t)hva;
	int rc;

	if (!room)
		return -ENOMEM;
	rc = scan(fd, base, npages, touched, room);
	if (rc)
		rc = read_words(fd, base, npages, touched, room);
	free(room);
	return rc;
}
