/* SPDX-License-Identifier: MIT */
/*
 * heartbeat: one byte an interval on the serial port, for an observer outside
 * who timestamps what arrives, and the longest gap that the guest itself saw.
 *
 * A beat is a '.'; every 64th is a newline, so that lines stay short. When
 * the guest is late (it was stopped, or the port was slow) it sends one beat
 * at once and starts a new interval there: beats are skipped, never sent in a
 * burst. So an observer may take the time between two bytes, less one
 * interval, as the time for which the guest stood still.
 *
 * The guest's own gap is the longest time between two turns of its loop, by
 * TSC and by kvmclock. It holds no interval, but it does hold what sending a
 * byte takes.
 *
 * Options: interval_us=100, beats=N (end by itself after N; 0: never).
 * Serial: 'g' prints "gap tsc_ns=… kvmclock_ns=… beats=… late=…" on a line of
 * its own and starts to look for a new longest gap; 'q' prints the same for
 * the last time and ends. late counts the beats that were skipped. Without
 * kvmclock, kvmclock_ns is "none".
 * Verdicts: 20 kvmclock went back, 21 the TSC did.
 */
#include "lib/guest.h"

#define VERDICT_KVMCLOCK_BACK (VERDICT_OWN + 0)
#define VERDICT_TSC_BACK      (VERDICT_OWN + 1)

#define BEATS_A_LINE 64

struct heart {
	uint64_t interval; /* TSC ticks */
	uint64_t next;	   /* TSC of the next beat */
	uint64_t beats;
	uint64_t late;
	unsigned int column;

	uint64_t last_tsc, last_ns;
	uint64_t gap_tsc, gap_ns;
};

static void look(struct heart *heart)
{
	uint64_t now = rdtsc();
	uint64_t gap = now - heart->last_tsc;

	if (now < heart->last_tsc)
		guest_fail(VERDICT_TSC_BACK, "\nTSC went back: %lu to %lu\n",
			   heart->last_tsc, now);
	if (gap > heart->gap_tsc)
		heart->gap_tsc = gap;
	heart->last_tsc = now;
	if (!kvmclock_present())
		return;

	now = kvmclock_read();
	gap = now - heart->last_ns;
	if (now < heart->last_ns)
		guest_fail(VERDICT_KVMCLOCK_BACK,
			   "\nkvmclock went back: %lu ns to %lu ns\n",
			   heart->last_ns, now);
	if (gap > heart->gap_ns)
		heart->gap_ns = gap;
	heart->last_ns = now;
}

/* Time spent on printing is nobody's pause. */
static void restart(struct heart *heart)
{
	heart->last_tsc = rdtsc();
	if (kvmclock_present())
		heart->last_ns = kvmclock_read();
	heart->gap_tsc = 0;
	heart->gap_ns = 0;
	heart->next = heart->last_tsc + heart->interval;
}

static void report(struct heart *heart)
{
	const char *fresh = heart->column ? "\n" : "";
	uint64_t tsc_ns = clock_tsc_ns(heart->gap_tsc);

	look(heart);
	if (kvmclock_present())
		print("%sgap tsc_ns=%lu kvmclock_ns=%lu beats=%lu late=%lu\n",
		      fresh, tsc_ns, heart->gap_ns, heart->beats, heart->late);
	else
		print("%sgap tsc_ns=%lu kvmclock_ns=none beats=%lu late=%lu\n",
		      fresh, tsc_ns, heart->beats, heart->late);
	heart->column = 0;
	restart(heart);
}

static void beat(struct heart *heart)
{
	uint64_t missed = (heart->last_tsc - heart->next) / heart->interval;

	heart->beats++;
	if (++heart->column == BEATS_A_LINE) {
		heart->column = 0;
		serial_putc('\n');
	} else {
		serial_putc('.');
	}
	heart->late += missed;
	if (missed)
		heart->next = heart->last_tsc;
	heart->next += heart->interval;
}

unsigned int guest_main(void)
{
	uint64_t interval_us = option_number("interval_us", 100, 10000000);
	uint64_t limit = option_number("beats", 0, UINT64_MAX);
	struct heart heart = { 0 };
	int c;

	option_end();
	heart.interval = clock_ns_tsc(interval_us * 1000);
	if (!heart.interval)
		guest_fail(VERDICT_USAGE, "interval_us=0: at least 1\n");
	print("heartbeat: interval_us=%lu tsc_khz=%lu kvmclock=%s\n",
	      interval_us, clock_tsc_khz(), kvmclock_present() ? "yes" : "no");
	restart(&heart);
	for (;;) {
		look(&heart);
		if (heart.last_tsc < heart.next)
			continue;
		beat(&heart);
		/* Once a beat: looking at the port costs an exit. */
		c = serial_poll();
		if (c == 'g')
			report(&heart);
		if (c == 'q' || (limit && heart.beats >= limit))
			break;
	}
	report(&heart);
	return VERDICT_PASS;
}
