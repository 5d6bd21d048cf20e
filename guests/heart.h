/* SPDX-License-Identifier: MIT */
/*
 * A heart: one byte an interval on the serial port, for an observer outside
 * who timestamps what arrives, and the longest gap that the guest itself saw.
 * Any guest may have one; it lives as long as heart_turn() is called.
 *
 * A beat is a '.'; every 64th is a newline, so that lines stay short. When
 * the guest is late (it was stopped, or the port was slow) it sends one beat
 * at once and starts a new interval there: beats are skipped, never sent in a
 * burst. So an observer may take the time between two bytes, less one
 * interval, as the time for which the guest stood still.
 *
 * The guest's own gap is the longest time between two turns, by TSC and by
 * kvmclock. It holds no interval, but it does hold what sending a byte takes
 * and whatever else the guest does in a turn.
 */
#ifndef GUEST_HEART_H
#define GUEST_HEART_H

#include "lib/guest.h"

struct heart {
	uint64_t interval; /* TSC ticks */
	uint64_t next;	   /* TSC of the next beat */
	uint64_t beats;
	uint64_t late;
	unsigned int column;
	/* What to end with when a clock goes back. */
	unsigned int verdict_kvmclock, verdict_tsc;

	uint64_t last_tsc, last_ns;
	uint64_t gap_tsc, gap_ns;
};

/**
 * heart_start - start to beat
 * @interval_us: between beats, at least 1
 * @verdict_kvmclock: verdict when kvmclock goes back
 * @verdict_tsc: verdict when the TSC goes back
 */
void heart_start(struct heart *heart, uint64_t interval_us,
		 unsigned int verdict_kvmclock, unsigned int verdict_tsc);

/**
 * heart_turn - look at the clocks, and beat when it is time
 *
 * Ring 3, always on the same CPU, as often as possible.
 *
 * Return: true when it has beaten.
 */
bool heart_turn(struct heart *heart);

/**
 * heart_break - end an unfinished line of beats before other text
 */
void heart_break(struct heart *heart);

/**
 * heart_skip - the time since the last turn, spent on printing, is no gap
 */
void heart_skip(struct heart *heart);

/**
 * heart_report - print "gap …" on a line of its own, and forget the gap
 */
void heart_report(struct heart *heart);

#endif
