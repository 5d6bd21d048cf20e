/* SPDX-License-Identifier: MIT */
/*
 * Time: the TSC, how fast it runs, and kvmclock, all read in ring 3.
 *
 * The rate comes from the first of these that exists: kvmclock (which holds
 * it as a multiplier), CPUID 0x40000010, CPUID 0x15, the PIT; without any of
 * them it is taken to be 1 GHz, which is what QEMU emulates. It is the rate
 * at boot; a move to a host whose TSC is not scaled shows as a difference
 * between the two clocks.
 */
#include "runtime.h"

#define KVM_SIGNATURE	    0x40000000U
#define KVM_FEATURES	    0x40000001U
#define KVM_FEATURE_CLOCK2  (1U << 3)
#define TIMING_LEAF	    0x40000010U
#define MSR_KVM_SYSTEM_TIME 0x4b564d01U

#define PIT_HZ	    1193182UL
#define PIT_CONTROL 0x43
#define PIT_2	    0x42
#define PIT_GATE    0x61

static bool have_kvmclock;
static uint64_t tsc_khz;

static uint64_t khz_from_kvmclock(void)
{
	const struct pvclock *pv = &this_cpu()->pvclock;
	uint64_t khz = (1000000UL << 32) / pv->mul;

	return pv->shift < 0 ? khz << -pv->shift : khz >> pv->shift;
}

static uint64_t khz_from_cpuid(void)
{
	uint32_t reg[4];

	cpuid(KVM_SIGNATURE, 0, reg);
	if (reg[0] >= TIMING_LEAF && reg[0] < KVM_SIGNATURE + 0x100) {
		cpuid(TIMING_LEAF, 0, reg);
		if (reg[0])
			return reg[0];
	}
	cpuid(0, 0, reg);
	if (reg[0] < 0x15)
		return 0;
	cpuid(0x15, 0, reg);
	if (!reg[0] || !reg[1] || !reg[2])
		return 0;
	return (uint64_t)reg[2] * reg[1] / reg[0] / 1000;
}

/* Channel 2, one shot of 50 ms; its output is bit 5 of port 0x61, or 0. */
static uint64_t khz_from_pit(void)
{
	const uint64_t count = PIT_HZ / 20;
	uint8_t gate = inb(PIT_GATE) & 0xfc;
	uint64_t start;

	outb(PIT_GATE, gate);
	outb(PIT_CONTROL, 0xb0);
	outb(PIT_2, (uint8_t)count);
	outb(PIT_2, (uint8_t)(count >> 8));
	outb(PIT_GATE, gate | 1);
	if ((inb(PIT_GATE) & 3) != 1)
		return 0;
	start = rdtsc();
	while (!(inb(PIT_GATE) & 0x20))
		;
	return (rdtsc() - start) * PIT_HZ / count / 1000;
}

void clock_init(void)
{
	uint32_t reg[4];

	cpuid(KVM_SIGNATURE, 0, reg);
	if (reg[1] == 0x4b4d564b && reg[2] == 0x564b4d56 && reg[3] == 0x4d) {
		cpuid(KVM_FEATURES, 0, reg);
		have_kvmclock = reg[0] & KVM_FEATURE_CLOCK2;
	}
	kvmclock_enable();
	if (have_kvmclock)
		tsc_khz = khz_from_kvmclock();
	if (!tsc_khz)
		tsc_khz = khz_from_cpuid();
	if (!tsc_khz)
		tsc_khz = khz_from_pit();
	if (!tsc_khz)
		tsc_khz = 1000000;
}

uint64_t clock_tsc_khz(void)
{
	return tsc_khz;
}

uint64_t clock_tsc_ns(uint64_t ticks)
{
	return mul_div(ticks, 1000000, tsc_khz);
}

uint64_t clock_ns_tsc(uint64_t ns)
{
	return mul_div(ns, tsc_khz, 1000000);
}

void clock_delay(uint64_t ns)
{
	uint64_t start = rdtsc();

	while (rdtsc() - start < clock_ns_tsc(ns))
		cpu_relax();
}

bool kvmclock_present(void)
{
	return have_kvmclock;
}

void kvmclock_enable(void)
{
	if (have_kvmclock)
		wrmsr(MSR_KVM_SYSTEM_TIME, (uint64_t)&this_cpu()->pvclock | 1);
}

/*
 * An odd version, or one that has changed, means that KVM was writing. The
 * scale is a 32.32 fixed point number with a shift of either sign.
 */
uint64_t kvmclock_read(void)
{
	const volatile struct pvclock *pv = &this_cpu()->pvclock;
	uint32_t version;
	uint64_t delta, ns;

	do {
		version = pv->version;
		barrier();
		delta = rdtsc() - pv->tsc;
		if (pv->shift < 0)
			delta >>= -pv->shift;
		else
			delta <<= pv->shift;
		ns = pv->ns +
		     (uint64_t)((unsigned __int128)delta * pv->mul >> 32);
		barrier();
	} while ((version & 1) || version != pv->version);
	return ns;
}
