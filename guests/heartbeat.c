/* SPDX-License-Identifier: MIT */
/*
 * heartbeat: a heart (heart.h) and nothing else, so that whatever gap shows
 * was the machine's doing. It beats on the first CPU; the others are started,
 * and halt as those of an idle system do.
 *
 * Options: interval_us=100, beats=N (end by itself after N; 0: never).
 * Serial: 'g' prints "gap tsc_ns=… kvmclock_ns=… beats=… late=…" on a line of
 * its own and starts to look for a new longest gap; 'q' prints the same for
 * the last time and ends. late counts the beats that were skipped. Without
 * kvmclock, kvmclock_ns is "none".
 * Verdicts: 20 kvmclock went back, 21 the TSC did.
 */
#include "heart.h"
#include "lib/guest.h"

#define VERDICT_KVMCLOCK_BACK (VERDICT_OWN + 0)
#define VERDICT_TSC_BACK      (VERDICT_OWN + 1)

static void halt(void *arg)
{
	(void)arg;
	for (;;)
		irq_wait();
}

unsigned int guest_main(void)
{
	uint64_t interval_us = option_number("interval_us", 100, 10000000);
	uint64_t limit = option_number("beats", 0, UINT64_MAX);
	struct heart heart;
	int c;

	option_end();
	for (unsigned int i = 1; i < cpu_count(); i++)
		cpu_start(i, halt, NULL);
	print("heartbeat: interval_us=%lu tsc_khz=%lu kvmclock=%s\n",
	      interval_us, clock_tsc_khz(), kvmclock_present() ? "yes" : "no");
	heart_start(&heart, interval_us, VERDICT_KVMCLOCK_BACK,
		    VERDICT_TSC_BACK);
	for (;;) {
		if (!heart_turn(&heart))
			continue;
		/* Once a beat: looking at the port costs an exit. */
		c = serial_poll();
		if (c == 'g')
			heart_report(&heart);
		if (c == 'q' || (limit && heart.beats >= limit))
			break;
	}
	heart_report(&heart);
	return VERDICT_PASS;
}
