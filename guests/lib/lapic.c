/* SPDX-License-Identifier: MIT */
/*
 * The local APIC, by MMIO (which ring 3 may touch) or, in x2APIC mode, by
 * MSRs. Intel SDM, volume 3, chapter 11.
 *
 * All CPUs are in the same mode: lapic_x2_enable() sets a flag for all of
 * them, so each CPU that is up must call it.
 */
#include "runtime.h"

#define APIC_BASE_X2   (1U << 10)
#define SVR_ENABLE     0x100U
#define MSR_X2APIC     0x800U
#define ICR_PENDING    (1U << 12)
#define CALIBRATION_NS 20000000UL
#define KVM_TIMER_HZ   1000000000UL

static uint64_t timer_hz;
static bool x2apic;

static volatile uint32_t *mmio(uint32_t reg)
{
	return (volatile uint32_t *)(0xfee00000UL + reg);
}

uint32_t lapic_read(uint32_t reg)
{
	uint32_t value;

	if (!x2apic)
		return *mmio(reg);
	value = (uint32_t)rdmsr(MSR_X2APIC + (reg >> 4));
	/* One layout for the callers: the id in the top byte. */
	return reg == LAPIC_ID ? value << 24 : value;
}

void lapic_write(uint32_t reg, uint32_t value)
{
	if (x2apic)
		wrmsr(MSR_X2APIC + (reg >> 4), value);
	else
		*mmio(reg) = value;
}

void lapic_enable(void)
{
	x2apic = rdmsr(MSR_APIC_BASE) & APIC_BASE_X2;
	lapic_write(LAPIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
	lapic_write(LAPIC_TPR, 0);
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

void lapic_send(uint32_t apic_id, uint32_t command)
{
	if (x2apic) {
		wrmsr(MSR_X2APIC + (LAPIC_ICR >> 4),
		      (uint64_t)apic_id << 32 | command);
		return;
	}
	*mmio(LAPIC_ICR_HIGH) = apic_id << 24;
	*mmio(LAPIC_ICR) = command;
	while (*mmio(LAPIC_ICR) & ICR_PENDING)
		cpu_relax();
}

bool lapic_x2_enable(void)
{
	uint32_t reg[4];

	cpuid(1, 0, reg);
	if (!(reg[2] & 1U << 21))
		return false;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
	x2apic = true;
	return true;
}

/*
 * Ticks a second, measured once. False when something came between the timer
 * and the clock that it is held against.
 */
static bool measure(uint64_t *ret_hz)
{
	uint64_t before, start, end, after, ticks;

	before = rdtsc();
	lapic_write(LAPIC_TIMER_INIT, UINT32_MAX);
	start = rdtsc();
	clock_delay(CALIBRATION_NS);
	end = rdtsc();
	ticks = UINT32_MAX - lapic_read(LAPIC_TIMER_CURRENT);
	after = rdtsc();
	*ret_hz = ticks * NS_PER_S / clock_tsc_ns(end - start);
	return start - before + after - end < (end - start) / 200;
}

/*
 * KVM's timer runs at exactly 1 GHz. Measuring tells it from others, but only
 * the exact number lets ticks be counted over minutes.
 */
uint64_t lapic_timer_hz(void)
{
	unsigned int tries = 20;

	if (timer_hz)
		return timer_hz;
	lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	while (!measure(&timer_hz) && --tries)
		continue;
	lapic_write(LAPIC_TIMER_INIT, 0);
	if (timer_hz > KVM_TIMER_HZ - KVM_TIMER_HZ / 50 &&
	    timer_hz < KVM_TIMER_HZ + KVM_TIMER_HZ / 50)
		timer_hz = KVM_TIMER_HZ;
	return timer_hz;
}
