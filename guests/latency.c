/* SPDX-License-Identifier: MIT */
/*
 * A histogram of latencies; see latency.h.
 */
#include "latency.h"

static size_t bucket_of(uint64_t ticks)
{
	unsigned int top;

	if (ticks < LATENCY_SUB)
		return ticks;
	top = 63U - (unsigned int)__builtin_clzl(ticks);
	return (top - LATENCY_SUB_BITS + 1) * LATENCY_SUB +
	       (ticks >> (top - LATENCY_SUB_BITS)) - LATENCY_SUB;
}

/* The middle of a bucket. */
static uint64_t bucket_ticks(size_t bucket)
{
	uint64_t shift;

	if (bucket < LATENCY_SUB)
		return bucket;
	shift = bucket / LATENCY_SUB - 1;
	return ((bucket % LATENCY_SUB + LATENCY_SUB) << shift) +
	       (1UL << shift) / 2;
}

void latency_add(struct latency *latency, uint64_t ticks)
{
	latency->histogram[bucket_of(ticks)]++;
	latency->done++;
	if (ticks > latency->longest)
		latency->longest = ticks;
}

uint64_t latency_quantile_ns(const struct latency *latency,
			     uint64_t per_thousand)
{
	uint64_t rank = latency->done * per_thousand / 1000;
	uint64_t seen = 0;

	for (size_t i = 0; i < ARRAY_SIZE(latency->histogram); i++) {
		seen += latency->histogram[i];
		if (seen > rank)
			return clock_tsc_ns(bucket_ticks(i));
	}
	return clock_tsc_ns(latency->longest);
}
