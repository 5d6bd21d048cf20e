/* SPDX-License-Identifier: MIT */
/*
 * A guest's balloon as others see it: how much memory the guest has, should
 * have, and what it says of itself. Plain data, in bytes and counts, and the
 * names that QEMU gives to it.
 */
#ifndef GODWIT_BALLOON_H
#define GODWIT_BALLOON_H

#include "vmm/util.h"

/* VIRTIO 1.2, 5.5.6.4: in the order of their tags. */
enum balloon_stat {
	BALLOON_SWAP_IN,
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,
	BALLOON_TOTAL,
	BALLOON_AVAILABLE,
	BALLOON_CACHES,
	BALLOON_HTLB_PGALLOC,
	BALLOON_HTLB_PGFAIL,
	BALLOON_STATS,
};

/* What the guest has not said. */
#define BALLOON_UNKNOWN UINT64_MAX

struct balloon_info {
	uint64_t actual; /* bytes that the guest has */
	uint64_t wanted; /* that it should have */
	bool driven;	 /* there is a driver that would hear of it */
	uint64_t told_s; /* when it said the rest: Unix time; 0: never */
	uint64_t stats[BALLOON_STATS];
};

/**
 * balloon_stat_name() - "stat-swap-in", …, as in QEMU's guest-stats.
 */
const char *balloon_stat_name(enum balloon_stat stat);

#endif
