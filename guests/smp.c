/* SPDX-License-Identifier: MIT */
/*
 * smp: all CPUs count on one counter by atomic additions and each keeps its
 * own count beside; at the end the sum must be the counter, none lost and
 * none doubled, and on the way each CPU must see the counter grow.
 *
 * Time is checked across CPUs too: a CPU that reads a clock after another CPU
 * has published its reading must not see an earlier time. How far back it went
 * at worst is printed; it is a failure only beyond warp_ns.
 *
 * Options: cpus=N (default all), count=N (end at N; 0, default: on 'q'),
 * seconds=N (end by itself), warp_ns=N (default: no limit).
 * Serial: 's' prints "stats …", 'q' ends.
 * Verdicts: 20 the sum is wrong, 21 a CPU saw the counter go back, 22 a clock
 * went back by more than warp_ns. A CPU that stands still shows in the counts
 * of two 's', and keeps the guest from ending.
 */
#include "lib/guest.h"

#define VERDICT_SUM   (VERDICT_OWN + 0)
#define VERDICT_ORDER (VERDICT_OWN + 1)
#define VERDICT_WARP  (VERDICT_OWN + 2)

#define CPUS_MAX    256
#define CLOCK_EVERY 64 /* additions between two looks at the clocks */

/* A line of the cache each, so that only the counter is contended. */
struct counter {
	volatile uint64_t value;
	uint64_t least; /* what this CPU may see next, at least */
	uint64_t tsc_warp, ns_warp;
} __attribute__((aligned(64)));

static struct counter shared, own[CPUS_MAX];
static volatile uint64_t last_tsc __attribute__((aligned(64)));
static volatile uint64_t last_ns __attribute__((aligned(64)));
static uint64_t limit;
static volatile bool go, stop;

static void look_at_clocks(struct counter *mine)
{
	uint64_t seen, now;

	seen = last_tsc;
	now = rdtsc();
	if (now < seen && seen - now > mine->tsc_warp)
		mine->tsc_warp = seen - now;
	last_tsc = now;
	if (!kvmclock_present())
		return;
	seen = last_ns;
	now = kvmclock_read();
	if (now < seen && seen - now > mine->ns_warp)
		mine->ns_warp = seen - now;
	last_ns = now;
}

static void count(struct counter *mine)
{
	static volatile uint64_t *const counter = &shared.value;
	uint64_t old;

	do {
		old = __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
		mine->value++;
		if (old < mine->least)
			guest_fail(VERDICT_ORDER,
				   "counter went back: %lu after %lu\n", old,
				   mine->least);
		mine->least = old + 1;
		if (limit && mine->least >= limit)
			stop = true;
		if (old % CLOCK_EVERY == 0)
			look_at_clocks(mine);
		/* The first CPU goes to see to its other duties. */
		if (mine == own && mine->value % 4096 == 0)
			return;
	} while (!stop);
}

/* Everyone begins together, and counts at least once. */
static void work(void *arg)
{
	while (!go)
		cpu_relax();
	count(arg);
}

static uint64_t warp_ns(unsigned int cpus, uint64_t *ret_kvmclock)
{
	uint64_t tsc = 0, ns = 0;

	for (unsigned int i = 0; i < cpus; i++) {
		if (own[i].tsc_warp > tsc)
			tsc = own[i].tsc_warp;
		if (own[i].ns_warp > ns)
			ns = own[i].ns_warp;
	}
	*ret_kvmclock = ns;
	return clock_tsc_ns(tsc);
}

static void show(const char *what, unsigned int cpus)
{
	uint64_t kvmclock, tsc = warp_ns(cpus, &kvmclock);

	print("%s total=%lu tsc_warp_ns=%lu kvmclock_warp_ns=%lu\n", what,
	      shared.value, tsc, kvmclock);
	for (unsigned int i = 0; i < cpus; i++)
		print("cpu=%u count=%lu\n", i, own[i].value);
}

static unsigned int judge(unsigned int cpus, uint64_t warp_limit)
{
	uint64_t sum = 0, kvmclock, tsc = warp_ns(cpus, &kvmclock);

	show("end", cpus);
	for (unsigned int i = 0; i < cpus; i++)
		sum += own[i].value;
	if (sum != shared.value)
		guest_fail(VERDICT_SUM, "sum=%lu but total=%lu\n", sum,
			   shared.value);
	if (tsc > warp_limit || kvmclock > warp_limit)
		guest_fail(VERDICT_WARP, "clocks differ by more than %lu ns\n",
			   warp_limit);
	return VERDICT_PASS;
}

unsigned int guest_main(void)
{
	uint64_t want = option_number("cpus", cpu_count(), CPUS_MAX);
	uint64_t seconds = option_number("seconds", 0, 1000000);
	uint64_t warp = option_number("warp_ns", UINT64_MAX, UINT64_MAX);
	unsigned int cpus = (unsigned int)want;
	uint64_t start;
	int c;

	limit = option_number("count", 0, UINT64_MAX);
	option_end();
	if (!cpus || cpus > cpu_count())
		guest_fail(VERDICT_USAGE, "cpus=%u: there are %u\n", cpus,
			   cpu_count());
	for (unsigned int i = 1; i < cpus; i++)
		cpu_start(i, work, &own[i]);
	print("smp: cpus=%u count=%lu\nready\n", cpus, limit);
	start = rdtsc();
	go = true;
	do {
		count(&own[0]);
		c = serial_poll();
		if (c == 's')
			show("stats", cpus);
		if (c == 'q' || (seconds && clock_tsc_ns(rdtsc() - start) >=
						    seconds * NS_PER_S))
			stop = true;
	} while (!stop);
	for (unsigned int i = 1; i < cpus; i++)
		cpu_wait(i);
	return judge(cpus, warp);
}
