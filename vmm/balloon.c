// SPDX-License-Identifier: MIT
/*
 * The names of what a guest says of its memory; see balloon.h.
 */
#include "vmm/balloon.h"

static const char *const names[] = {
	[BALLOON_SWAP_IN] = "stat-swap-in",
	[BALLOON_SWAP_OUT] = "stat-swap-out",
	[BALLOON_MAJOR_FAULTS] = "stat-major-faults",
	[BALLOON_MINOR_FAULTS] = "stat-minor-faults",
	[BALLOON_FREE] = "stat-free-memory",
	[BALLOON_TOTAL] = "stat-total-memory",
	[BALLOON_AVAILABLE] = "stat-available-memory",
	[BALLOON_CACHES] = "stat-disk-caches",
	[BALLOON_HTLB_PGALLOC] = "stat-htlb-pgalloc",
	[BALLOON_HTLB_PGFAIL] = "stat-htlb-pgfail",
};
_Static_assert(ARRAY_SIZE(names) == BALLOON_STATS, "each has a name");

const char *balloon_stat_name(enum balloon_stat stat)
{
	return names[stat];
}
