/* SPDX-License-Identifier: MIT */
/*
 * The host's pool of huge pages, of which a guest's memory can be made: how
 * many there are to be had, for an error that says what to do. The pool is
 * looked at by files that are opened before the process is confined.
 *
 * Linux, Documentation/admin-guide/mm/hugetlbpage.rst.
 */
#ifndef GODWIT_HUGEPAGES_H
#define GODWIT_HUGEPAGES_H

#include "vmm/error.h"

#define HUGE_PAGE_SIZE (2 * MIB)
/* The kernel's account of it, a file each. */
#define HUGE_PAGE_POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

struct hugepages {
	int free_fd;	 /* pages that are in no use */
	int reserved_fd; /* those of them that are promised to somebody */
};

/**
 * hugepages_init() - nothing is open; hugepages_close() may follow.
 */
void hugepages_init(struct hugepages *pool);

/**
 * hugepages_open() - as it says.
 *
 * Return: 0 or -errno with @err: this host has no huge pages of 2 MiB.
 */
int __must_check hugepages_open(struct hugepages *pool, struct error *err);

/**
 * hugepages_close() - close what is open.
 */
void hugepages_close(struct hugepages *pool);

/**
 * hugepages_available() - how many can be had now; 0 also when that can't be
 * known.
 */
uint64_t hugepages_available(const struct hugepages *pool);

#endif
