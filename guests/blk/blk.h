/* SPDX-License-Identifier: MIT */
/*
 * What the files of the blk guest share.
 */
#ifndef GUEST_BLK_H
#define GUEST_BLK_H

#include "block.h"

#define VERDICT_DATA	       (VERDICT_OWN + 0)
#define VERDICT_STATUS	       (VERDICT_OWN + 1)
#define VERDICT_ID	       (VERDICT_OWN + 2)
#define VERDICT_INTERRUPT_LOST (VERDICT_OWN + 3)

#define BLK_SECTORS_MAX 64U  /* of a request */
#define BLK_DEPTH_MAX	256U /* requests in flight, of all queues */

struct blk_options {
	unsigned int depth; /* a queue */
	uint64_t span;	    /* bytes */
	uint64_t seconds;   /* 0: for ever */
	uint64_t seed;
};

/**
 * blk_bench - random reads of 4 KiB, as fast as they go, and their latency
 */
void blk_bench(struct block *disk, const struct blk_options *options);

#endif
