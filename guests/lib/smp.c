/* SPDX-License-Identifier: MIT */
/*
 * CPUs: the list from the MADT, and starting them one at a time by INIT and
 * SIPI. A guest that starts none leaves them waiting for SIPI, as reset left
 * them.
 */
#include "runtime.h"

#define CPUS_MAX    256
#define ICR_INIT    0x4500U
#define ICR_STARTUP 0x4600U
/* There may be many CPUs that spin, and few of the host's to run them. */
#define START_NS 10000000000UL

static uint32_t apic_ids[CPUS_MAX];
static struct cpu *cpus[CPUS_MAX];
static unsigned int count;

void smp_add(uint32_t apic_id)
{
	for (unsigned int i = 0; i < count; i++)
		if (apic_ids[i] == apic_id)
			return;
	if (count < CPUS_MAX)
		apic_ids[count++] = apic_id;
}

/* Puts the first CPU first, wherever the MADT has it. */
void smp_init(struct cpu *cpu)
{
	cpu->apic_id = lapic_read(LAPIC_ID) >> 24;
	cpu->online = true;
	cpus[0] = cpu;
	if (!count)
		smp_add(cpu->apic_id);
	for (unsigned int i = 0; i < count; i++) {
		if (apic_ids[i] != cpu->apic_id)
			continue;
		apic_ids[i] = apic_ids[0];
		apic_ids[0] = cpu->apic_id;
	}
}

unsigned int cpu_count(void)
{
	return count;
}

uint32_t cpu_apic_id(unsigned int index)
{
	return apic_ids[index];
}

struct cpu *cpu_get(unsigned int index)
{
	return index < count ? cpus[index] : NULL;
}

/* Where boot.S brings an application processor to, in ring 3. */
void ap_start(struct cpu *cpu)
{
	void (*work)(void *);

	lapic_enable();
	kvmclock_enable();
	__atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
	for (;;) {
		work = __atomic_load_n(&cpu->work, __ATOMIC_ACQUIRE);
		if (work) {
			work(cpu->work_arg);
			__atomic_store_n(&cpu->work, NULL, __ATOMIC_RELEASE);
		}
		cpu_relax();
	}
}

static bool wait_online(const struct cpu *cpu)
{
	uint64_t start = rdtsc();

	while (!__atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE)) {
		if (rdtsc() - start > clock_ns_tsc(START_NS))
			return false;
		cpu_relax();
	}
	return true;
}

void cpu_start(unsigned int index, void (*work)(void *), void *arg)
{
	struct cpu *cpu = mem_alloc(CPU_BLOCK_SIZE, CPU_BLOCK_SIZE);

	cpu->index = index;
	cpu->apic_id = apic_ids[index];
	cpu->work_arg = arg;
	cpu->work = work;
	memcpy((void *)TRAMPOLINE, trampoline,
	       (size_t)(trampoline_end - trampoline));
	__atomic_store_n(&ap_cpu, cpu, __ATOMIC_RELEASE);
	lapic_send(cpu->apic_id, ICR_INIT);
	clock_delay(200000);
	/* A second SIPI, as the manuals advise: the first may be lost. */
	for (int i = 0; i < 2; i++) {
		lapic_send(cpu->apic_id, ICR_STARTUP | TRAMPOLINE >> 12);
		if (wait_online(cpu)) {
			cpus[index] = cpu;
			return;
		}
	}
	guest_fail(VERDICT_MACHINE, "CPU %u does not start\n", index);
}

void cpu_run(unsigned int index, void (*work)(void *), void *arg)
{
	cpus[index]->work_arg = arg;
	__atomic_store_n(&cpus[index]->work, work, __ATOMIC_RELEASE);
}

void cpu_wait(unsigned int index)
{
	while (__atomic_load_n(&cpus[index]->work, __ATOMIC_ACQUIRE))
		cpu_relax();
}
