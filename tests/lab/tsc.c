// SPDX-License-Identifier: MIT
/*
 * Prints the rate of this machine's TSC in kHz, which is also that of any
 * machine that QEMU's TCG emulates here. The emulated host's kernel would
 * measure it against an emulated timer; when this machine is busy just then,
 * it may be wrong by a factor of ten, and all time in there with it.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define INTERVAL_NS 100000000
#define TRIES	    50

struct instant {
	uint64_t tsc;
	uint64_t ns;
};

/* The pair that was read fastest: nothing came in between. */
static struct instant now(void)
{
	uint64_t best = UINT64_MAX;
	struct instant ret = { 0 };

	for (int i = 0; i < TRIES; i++) {
		uint64_t before = __rdtsc();
		struct timespec ts;
		uint64_t took;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		took = __rdtsc() - before;
		if (took >= best)
			continue;
		best = took;
		ret.tsc = before + took / 2;
		ret.ns =
			(uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	}
	return ret;
}

int main(void)
{
	const struct timespec interval = { .tv_nsec = INTERVAL_NS };
	struct instant start = now(), end;

	nanosleep(&interval, NULL);
	end = now();
	/* Cycles a millisecond. */
	printf("%.0f\n", (double)(end.tsc - start.tsc) /
				 (double)(end.ns - start.ns) * 1e6);
	return 0;
}
