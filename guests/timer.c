/* SPDX-License-Identifier: MIT */
/*
 * timer: takes local APIC timer interrupts at a fixed rate and compares their
 * number with what the clock says it should be.
 *
 * A guest that was stopped misses ticks, and it is right to: the timer cannot
 * fire twice into one pending bit. So while ticks come in, the CPU turns a
 * loop in ring 3 and looks at the TSC. A turn longer than half a period is a
 * stall, and explains as many missing ticks as periods fit into it, and one
 * more. What is missing beyond that is lost. Ticks beyond the expected number
 * are doubled, and so are four ticks within nine tenths of a period: one may
 * be in service, one in the request register and one with the timer itself
 * when a stall ends, but no more.
 *
 * The clock and the timer may drift apart by one in a thousand.
 *
 * Options: hz=1000 (10 to 5000: an interrupt costs tens of microseconds where
 * ring 0 is emulated), mode=periodic|deadline, seconds=N (end by itself; 0,
 * default: on 'q').
 * Serial: 's' prints "stats …", 'q' ends.
 * Verdicts: 20 ticks were lost, 21 ticks were doubled.
 */
#include "lib/guest.h"

#define VERDICT_LOST	(VERDICT_OWN + 0)
#define VERDICT_DOUBLED (VERDICT_OWN + 1)

#define VECTOR_TIMER 0x40
#define DRIFT	     1000
#define CROWD	     4 /* ticks that cannot come within one period */

static const char *const modes[] = { "periodic", "deadline", NULL };

static struct {
	uint64_t period;     /* TSC ticks */
	uint64_t start, end; /* TSC */
	bool deadline_mode;
	uint64_t deadline; /* TSC */

	/* written by the handler */
	volatile uint64_t ticks;
	volatile uint64_t at[CROWD];
	volatile uint64_t crowded;
	volatile uint64_t longest;

	/* written by the loop */
	uint64_t last;
	uint64_t stalls;
	uint64_t longest_stall;
	uint64_t explained;
} timer;

static void tick(struct trap_frame *frame)
{
	uint64_t now = rdtsc();
	uint64_t n = timer.ticks;
	uint64_t previous = n ? timer.at[(n - 1) % CROWD] : timer.start;
	uint64_t oldest = timer.at[(n - (CROWD - 1)) % CROWD];

	(void)frame;
	if (timer.deadline_mode) {
		timer.deadline += timer.period;
		/* Skip what has passed: the loop saw that stall as well. */
		while (timer.deadline <= now)
			timer.deadline += timer.period;
		wrmsr0(MSR_TSC_DEADLINE, timer.deadline);
	}
	if (now - previous > timer.longest)
		timer.longest = now - previous;
	if (n >= CROWD - 1 && now - oldest < timer.period / 10 * 9)
		timer.crowded++;
	timer.at[n % CROWD] = now;
	timer.ticks = n + 1;
	lapic_eoi();
}

static void look(void)
{
	uint64_t now = rdtsc();
	uint64_t gap = now - timer.last;

	timer.last = now;
	if (gap < timer.period / 2)
		return;
	timer.stalls++;
	timer.explained += gap / timer.period + 1;
	if (gap > timer.longest_stall)
		timer.longest_stall = gap;
}

/* Return: verdict so far. */
static unsigned int show(const char *what)
{
	uint64_t expected = (timer.last - timer.start) / timer.period;
	uint64_t slack = 1 + expected / DRIFT;
	uint64_t ticks = timer.ticks;
	uint64_t missing = expected > ticks ? expected - ticks : 0;
	uint64_t excess = ticks > expected + slack ? ticks - expected : 0;
	uint64_t excuse = timer.explained + slack;
	uint64_t lost = missing > excuse ? missing - excuse : 0;

	print("%s ticks=%lu expected=%lu missing=%lu lost=%lu doubled=%lu "
	      "longest_ns=%lu stalls=%lu stall_ns=%lu\n",
	      what, ticks, expected, missing, lost, excess + timer.crowded,
	      clock_tsc_ns(timer.longest), timer.stalls,
	      clock_tsc_ns(timer.longest_stall));
	/* What it took to print is a stall too, and ticks came in. */
	if (lost)
		return VERDICT_LOST;
	return excess + timer.crowded ? VERDICT_DOUBLED : VERDICT_PASS;
}

static void arm(uint64_t hz)
{
	uint32_t reg[4];

	trap_set(VECTOR_TIMER, tick);
	if (!timer.deadline_mode) {
		lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
		lapic_write(LAPIC_LVT_TIMER, LVT_TIMER_PERIODIC | VECTOR_TIMER);
		timer.start = timer.last = rdtsc();
		lapic_write(LAPIC_TIMER_INIT,
			    (uint32_t)(lapic_timer_hz() / hz));
		return;
	}
	cpuid(1, 0, reg);
	if (!(reg[2] & 1U << 24))
		guest_fail(VERDICT_MACHINE, "no TSC deadline timer\n");
	lapic_write(LAPIC_LVT_TIMER, LVT_TIMER_DEADLINE | VECTOR_TIMER);
	timer.start = timer.last = rdtsc();
	timer.deadline = timer.start + timer.period;
	wrmsr(MSR_TSC_DEADLINE, timer.deadline);
}

unsigned int guest_main(void)
{
	uint64_t hz = option_number("hz", 1000, 5000);
	uint64_t seconds = option_number("seconds", 0, 1000000);
	uint64_t next_poll = 0;
	int c = 0;

	timer.deadline_mode = option_choice("mode", modes);
	option_end();
	if (hz < 10)
		guest_fail(VERDICT_USAGE, "hz=%lu: at least 10\n", hz);
	timer.period = clock_ns_tsc(NS_PER_S) / hz;
	print("timer: hz=%lu mode=%s timer_hz=%lu\nready\n", hz,
	      modes[timer.deadline_mode], lapic_timer_hz());
	arm(hz);
	irq_set(true);
	do {
		look();
		if (timer.last < next_poll)
			continue;
		next_poll = timer.last + clock_ns_tsc(NS_PER_S / 1000);
		c = serial_poll();
		if (c == 's')
			show("stats");
	} while (c != 'q' &&
		 (!seconds ||
		  timer.last - timer.start < clock_ns_tsc(seconds * NS_PER_S)));
	irq_set(false);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
	return show("end");
}
