/* SPDX-License-Identifier: MIT */
/*
 * Points about timers that are armed and clocks that run: the local APIC
 * timer in its three modes, and kvmclock.
 */
#include "sync.h"

#define NEAR_NS	   300000000UL
#define PERIOD_NS  10000000UL
#define TICKS	   5
#define DIVIDE_128 0xaU
#define SETTLE_NS  2000000UL
#define TAKEN_NS   100000UL

static volatile uint64_t ticks;

static void on_tick(struct trap_frame *frame)
{
	(void)frame;
	ticks = ticks + 1;
	lapic_eoi();
}

static void timer_off(void)
{
	lapic_write(LAPIC_TIMER_INIT, 0);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
	/* A tick that came while nobody listened is not the next point's. */
	irq_set(true);
	clock_delay(TAKEN_NS);
	irq_set(false);
}

static uint32_t lapic_count(uint64_t ns)
{
	return (uint32_t)mul_div(ns, lapic_timer_hz(), NS_PER_S);
}

/* Minutes away: must count down, by no more than the time that passed. */
void point_timer_far(void)
{
	uint64_t start, elapsed;
	uint32_t before, after;

	ticks = 0;
	lapic_timer_hz();
	trap_set(TIMER_VECTOR, on_tick);
	irq_set(true);
	lapic_write(LAPIC_TIMER_DIVIDE, DIVIDE_128);
	lapic_write(LAPIC_LVT_TIMER, TIMER_VECTOR);
	lapic_write(LAPIC_TIMER_INIT, UINT32_MAX);
	start = rdtsc();
	before = lapic_read(LAPIC_TIMER_CURRENT);
	sync_wait();
	after = lapic_read(LAPIC_TIMER_CURRENT);
	elapsed = clock_tsc_ns(rdtsc() - start);
	irq_set(false);
	sync_check("initial count", UINT32_MAX, lapic_read(LAPIC_TIMER_INIT));
	sync_check("divider", DIVIDE_128, lapic_read(LAPIC_TIMER_DIVIDE));
	sync_check("LVT", TIMER_VECTOR, lapic_read(LAPIC_LVT_TIMER));
	sync_check("it counts down", 1, after < before);
	sync_check("not faster than time", 1,
		   before - after <= mul_div(elapsed + elapsed / 100,
					     lapic_timer_hz() / 128, NS_PER_S) +
					     1);
	sync_check("ticks", 0, ticks);
	timer_off();
}

/*
 * Armed, and due before, while or after the guest is moved: fires once. But
 * when it is due before, KVM fires it a second time as its state is loaded: a
 * current count of 0 doesn't tell whether the interrupt was delivered, and a
 * lost tick would be worse (Linux: restart_apic_timer() with APIC_TMCCT).
 */
void point_timer_near(void)
{
	ticks = 0;
	lapic_timer_hz();
	trap_set(TIMER_VECTOR, on_tick);
	irq_set(true);
	lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
	lapic_write(LAPIC_LVT_TIMER, TIMER_VECTOR);
	lapic_write(LAPIC_TIMER_INIT, lapic_count(NEAR_NS));
	sync_wait();
	sync_until(&ticks, 1, 5 * SECOND_NS);
	clock_delay(SETTLE_NS);
	irq_set(false);
	sync_check("at least one tick, at most two", 1,
		   ticks == 1 || ticks == 2);
	timer_off();
}

void point_timer_periodic(void)
{
	uint64_t seen;

	ticks = 0;
	lapic_timer_hz();
	trap_set(TIMER_VECTOR, on_tick);
	irq_set(true);
	lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
	lapic_write(LAPIC_LVT_TIMER, LVT_TIMER_PERIODIC | TIMER_VECTOR);
	lapic_write(LAPIC_TIMER_INIT, lapic_count(PERIOD_NS));
	sync_until(&ticks, TICKS, 5 * SECOND_NS);
	sync_wait();
	seen = ticks;
	sync_check("goes on", 1,
		   sync_until(&ticks, seen + TICKS, 5 * SECOND_NS));
	irq_set(false);
	sync_check("initial count", lapic_count(PERIOD_NS),
		   lapic_read(LAPIC_TIMER_INIT));
	timer_off();
}

static bool deadline_arm(uint64_t deadline)
{
	uint32_t reg[4];

	cpuid(1, 0, reg);
	if (!(reg[2] & 1U << 24)) {
		sync_skip("not in CPUID");
		return false;
	}
	ticks = 0;
	trap_set(TIMER_VECTOR, on_tick);
	lapic_write(LAPIC_LVT_TIMER, LVT_TIMER_DEADLINE | TIMER_VECTOR);
	irq_set(true);
	wrmsr(MSR_TSC_DEADLINE, deadline);
	return true;
}

void point_deadline_far(void)
{
	uint64_t deadline = rdtsc() + clock_ns_tsc(1000 * SECOND_NS);

	if (!deadline_arm(deadline))
		return;
	sync_wait();
	irq_set(false);
	sync_check("TSC_DEADLINE", deadline, rdmsr(MSR_TSC_DEADLINE));
	sync_check("ticks", 0, ticks);
	wrmsr(MSR_TSC_DEADLINE, 0);
	timer_off();
}

void point_deadline_near(void)
{
	uint64_t deadline = rdtsc() + clock_ns_tsc(NEAR_NS);

	if (!deadline_arm(deadline))
		return;
	sync_wait();
	sync_until(&ticks, 1, 5 * SECOND_NS);
	sync_check("not before its time", 1, rdtsc() >= deadline);
	clock_delay(SETTLE_NS);
	irq_set(false);
	sync_check("ticks", 1, ticks);
	sync_check("TSC_DEADLINE afterwards", 0, rdmsr(MSR_TSC_DEADLINE));
	timer_off();
}

/*
 * Both clocks go forward over the wait, and at one rate afterwards. How much
 * of the pause each of them counts is the VMM's choice.
 */
void point_kvmclock(void)
{
	uint64_t tsc, ns, later_tsc, later_ns, by_tsc;

	if (!kvmclock_present()) {
		sync_skip("not in CPUID");
		return;
	}
	tsc = rdtsc();
	ns = kvmclock_read();
	sync_wait();
	later_tsc = rdtsc();
	later_ns = kvmclock_read();
	sync_check("TSC goes forward", 1, later_tsc > tsc);
	sync_check("kvmclock goes forward", 1, later_ns > ns);
	clock_delay(50000000);
	by_tsc = clock_tsc_ns(rdtsc() - later_tsc);
	ns = kvmclock_read() - later_ns;
	sync_check("kvmclock is not slower than the TSC", 1,
		   ns > by_tsc - by_tsc / 20);
	sync_check("nor faster", 1, ns < by_tsc + by_tsc / 20);
}
