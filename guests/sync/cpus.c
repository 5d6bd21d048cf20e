/* SPDX-License-Identifier: MIT */
/*
 * Points about a second CPU in each of its states. It is CPU number 1; with
 * one CPU there is nothing to test.
 */
#include "sync.h"

#define ICR_INIT 0x4500U

static volatile uint64_t up, hits, halts, count;
static volatile bool stop;

static bool have_second(void)
{
	if (cpu_count() < 2)
		sync_skip("one CPU only");
	return cpu_count() >= 2;
}

static void say_up(void *arg)
{
	(void)arg;
	up = up + 1;
}

/* Starts it, whatever it did before, and sees that it runs. */
static void start_and_check(void)
{
	up = 0;
	cpu_start(1, say_up, NULL);
	sync_check("it came up", 1, sync_until(&up, 1, SECOND_NS));
	cpu_wait(1);
}

/* As reset left it: waiting for INIT and SIPI that never came. */
void point_ap_parked(void)
{
	if (!have_second())
		return;
	if (cpu_get(1)) {
		sync_skip("an earlier point has started it");
		return;
	}
	sync_wait();
	start_and_check();
}

/* It ran, then got INIT, and now waits for SIPI. */
void point_ap_init(void)
{
	if (!have_second())
		return;
	start_and_check();
	lapic_send(cpu_apic_id(1), ICR_INIT);
	sync_wait();
	start_and_check();
}

static void on_wake(struct trap_frame *frame)
{
	(void)frame;
	hits = hits + 1;
	lapic_eoi();
}

static void halt(void *arg)
{
	(void)arg;
	halts = 1;
	irq_wait();
	halts = 2;
}

/* Halted with interrupts on: one interrupt ends that, once. */
void point_ap_halted(void)
{
	if (!have_second())
		return;
	halts = hits = 0;
	trap_set(SYNC_VECTOR, on_wake);
	cpu_start(1, halt, NULL);
	sync_until(&halts, 1, SECOND_NS);
	clock_delay(1000000);
	sync_wait();
	sync_check("still halted", 1, halts);
	lapic_send(cpu_apic_id(1), SYNC_VECTOR);
	sync_check("woken", 1, sync_until(&halts, 2, SECOND_NS));
	clock_delay(1000000);
	sync_check("interrupts", 1, hits);
	cpu_wait(1);
}

static void run(void *arg)
{
	(void)arg;
	while (!stop)
		count = count + 1;
}

void point_ap_running(void)
{
	uint64_t seen;

	if (!have_second())
		return;
	count = 0;
	stop = false;
	cpu_start(1, run, NULL);
	sync_check("it counts", 1, sync_until(&count, 1000, SECOND_NS));
	sync_wait();
	seen = count;
	sync_check("it goes on", 1,
		   sync_until(&count, seen + 1000, 5 * SECOND_NS));
	stop = true;
	cpu_wait(1);
}
