/* SPDX-License-Identifier: MIT */
/*
 * What it would take to stop a VM and to read it, by what it took to get a
 * glance at each of its vCPUs while the others ran on.
 *
 * In a pause nobody who has been stopped is in the way of the others any more;
 * as they are looked at, all who had their turn are, and where there are more
 * vCPUs than processors they make the rest wait for whole slices of the
 * scheduler's. So what is measured of each is only what doesn't depend on the
 * others, and this puts it together. Numbers in, numbers out.
 */
#ifndef GODWIT_GLANCE_H
#define GODWIT_GLANCE_H

#include "vmm/util.h"

/* Nanoseconds. */
struct glance {
	uint64_t out_ns;  /* from being told until it was out of the guest */
	uint64_t read_ns; /* that reading it kept a processor busy */
	int cpu;	  /* which one */
};

/**
 * glance_total() - from the glances at @n vCPUs (at least one) to all of them.
 * @each: gets sorted.
 * @rest_ns: that reading what is not a vCPU's kept a processor busy.
 * @hands: that work at once, where they have a processor each; at least one.
 * @cpu: of the one that reads the rest.
 *
 * Out: as long as the last of those that had a processor needed, and for the
 * others as often as they share one what the quickest of all needed; but no
 * longer than all needed as they were, without the reading of those before.
 * Read: the work shared among the hands, but no less than the longest piece of
 * it. Processors are those that were seen at it.
 */
struct glance glance_total(struct glance *each, uint32_t n, uint64_t rest_ns,
			   unsigned int hands, int cpu);

#endif
