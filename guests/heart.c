/* SPDX-License-Identifier: MIT */
/*
 * Beats on the serial port and the longest gap between turns; see heart.h.
 */
#include "heart.h"

#define BEATS_A_LINE 64

static void look(struct heart *heart)
{
	uint64_t now = rdtsc();
	uint64_t gap = now - heart->last_tsc;

	if (now < heart->last_tsc)
		guest_fail(heart->verdict_tsc, "\nTSC went back: %lu to %lu\n",
			   heart->last_tsc, now);
	if (gap > heart->gap_tsc)
		heart->gap_tsc = gap;
	heart->last_tsc = now;
	if (!kvmclock_present())
		return;

	now = kvmclock_read();
	gap = now - heart->last_ns;
	if (now < heart->last_ns)
		guest_fail(heart->verdict_kvmclock,
			   "\nkvmclock went back: %lu ns to %lu ns\n",
			   heart->last_ns, now);
	if (gap > heart->gap_ns)
		heart->gap_ns = gap;
	heart->last_ns = now;
}

void heart_skip(struct heart *heart)
{
	heart->last_tsc = rdtsc();
	if (kvmclock_present())
		heart->last_ns = kvmclock_read();
	heart->next = heart->last_tsc + heart->interval;
}

void heart_start(struct heart *heart, uint64_t interval_us,
		 unsigned int verdict_kvmclock, unsigned int verdict_tsc)
{
	*heart = (struct heart){
		.interval = clock_ns_tsc(interval_us * 1000),
		.verdict_kvmclock = verdict_kvmclock,
		.verdict_tsc = verdict_tsc,
	};
	if (!heart->interval)
		guest_fail(VERDICT_USAGE, "an interval of 0 us: at least 1\n");
	heart_skip(heart);
}

void heart_break(struct heart *heart)
{
	if (heart->column)
		serial_putc('\n');
	heart->column = 0;
}

void heart_report(struct heart *heart)
{
	uint64_t tsc_ns;

	look(heart);
	tsc_ns = clock_tsc_ns(heart->gap_tsc);
	heart_break(heart);
	if (kvmclock_present())
		print("gap tsc_ns=%lu kvmclock_ns=%lu beats=%lu late=%lu\n",
		      tsc_ns, heart->gap_ns, heart->beats, heart->late);
	else
		print("gap tsc_ns=%lu kvmclock_ns=none beats=%lu late=%lu\n",
		      tsc_ns, heart->beats, heart->late);
	heart->gap_tsc = 0;
	heart->gap_ns = 0;
	heart_skip(heart);
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

bool heart_turn(struct heart *heart)
{
	look(heart);
	if (heart->last_tsc < heart->next)
		return false;
	beat(heart);
	return true;
}
