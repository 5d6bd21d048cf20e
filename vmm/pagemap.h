/* SPDX-License-Identifier: MIT */
/*
 * Which pages of this process were ever touched, by the kernel's own account:
 * Linux, Documentation/admin-guide/mm/pagemap.rst.
 *
 * Since Linux 6.7 one call lists them, and passes over what was never touched
 * for next to nothing. Before, and wherever that call is refused, there is a
 * word to be read for every page, touched or not.
 */
#ifndef GODWIT_PAGEMAP_H
#define GODWIT_PAGEMAP_H

#include <sys/ioctl.h>

#include "vmm/util.h"

/*
 * struct page_region and struct pm_scan_arg of a kernel that may be newer than
 * the headers here.
 */
struct pagemap_run {
	uint64_t start; /* addresses */
	uint64_t end;
	uint64_t categories;
};

struct pagemap_scan {
	uint64_t size; /* of this */
	uint64_t flags;
	uint64_t start; /* addresses */
	uint64_t end;
	uint64_t walk_end; /* set: looked at up to here */
	uint64_t vec;	   /* struct pagemap_run * … */
	uint64_t vec_len;  /* … and how many */
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define PAGEMAP_SCAN_TOUCHED _IOWR('f', 16, struct pagemap_scan)

/**
 * pagemap_find_touched() - which of @npages pages from @hva on are here, or
 * swapped out; others were never touched, or were given back.
 * @fd: /proc/self/pagemap.
 * @npages: a multiple of 64.
 * @touched: a bit a page; written whole.
 *
 * Return: 0 or -errno.
 */
int __must_check pagemap_find_touched(int fd, const void *hva, uint64_t npages,
				      uint64_t *touched);

#endif
