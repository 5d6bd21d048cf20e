/* SPDX-License-Identifier: MIT */
/*
 * Latencies in a histogram whose buckets are 1/64 of their octave wide: a
 * quantile is exact to 1.6 %, and no run is too long. Any ring.
 */
#ifndef GUEST_LATENCY_H
#define GUEST_LATENCY_H

#include "lib/guest.h"

#define LATENCY_SUB_BITS 6U
#define LATENCY_SUB	 (1UL << LATENCY_SUB_BITS)

/* Zeroed: nothing was measured. */
struct latency {
	uint64_t histogram[64 * LATENCY_SUB];
	uint64_t done;
	uint64_t longest; /* TSC ticks */
};

/**
 * latency_add - one more took @ticks of the TSC
 */
void latency_add(struct latency *latency, uint64_t ticks);

/**
 * latency_quantile_ns - so many of a thousand took no longer, in nanoseconds
 */
uint64_t latency_quantile_ns(const struct latency *latency,
			     uint64_t per_thousand);

#endif
