/* SPDX-License-Identifier: MIT */
/*
 * The runtime's interface: all that a guest may use.
 *
 * A guest is one function, guest_main(), that runs on the first CPU in ring 3
 * (64-bit, IOPL 3) with interrupts off, all RAM mapped one to one, and what
 * it returns is its verdict. Ring 3, because under some hypervisors only ring
 * 3 runs at native speed; ring 0 is entered for a moment by call0() and by
 * interrupts.
 *
 * Unless a function says "ring 0" or "ring 3", it runs in either. Files are
 * compiled without SSE unless build.mk says otherwise, so that ring 0 never
 * touches the vector registers of the code it interrupted.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "insn.h"

#define PAGE_SIZE     4096UL
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define NS_PER_S      1000000000UL

/**
 * enum verdict - the byte that a guest writes to the debug exit port
 *
 * Below 124, which godwit keeps for itself, and never 3 (its word for a
 * crash). From VERDICT_OWN on, each guest has its own.
 */
enum verdict {
	VERDICT_PASS = 0,
	VERDICT_USAGE = 10,	/* command line: unknown or bad option */
	VERDICT_EXCEPTION = 11, /* an exception that nobody asked for */
	VERDICT_MACHINE = 12,	/* the machine lacks what the guest needs */
	VERDICT_INTERNAL = 13,	/* the guest's own assumption is broken */
	VERDICT_INTERRUPT = 14, /* an interrupt that nobody asked for */
	VERDICT_DEVICE = 15,	/* a device broke the rules of its kind */
	VERDICT_OWN = 20,
};

/* ---- what a guest provides ---- */

/**
 * guest_main - the guest
 *
 * Return: verdict, 0 to 123.
 */
unsigned int guest_main(void);

/* ---- the end ---- */

/**
 * guest_exit - end the VM
 * @verdict: the byte for port 0xf4
 *
 * Prints "verdict N", writes the port and, where the port is absent, halts
 * this CPU for good. Any CPU may call it.
 */
_Noreturn void guest_exit(unsigned int verdict);

/**
 * guest_fail - print a message (printf style) and end the VM
 * @verdict: as for guest_exit()
 */
_Noreturn void guest_fail(unsigned int verdict, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- text (print.c, serial.c, string.c) ---- */

/**
 * print - formatted text to the serial port, in one piece
 *
 * Knows %c %s %d %u %x %% with l, width and zero padding. Longer text than
 * 256 bytes is cut. Lines of different CPUs do not mix.
 */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * serial_putc - send a byte, once the transmitter is empty
 */
void serial_putc(char c);

/**
 * serial_poll - take a received byte
 *
 * Return: 0 to 255, or -1 when there is none.
 */
int serial_poll(void);

/**
 * serial_drain - wait until the last byte has left the transmitter
 */
void serial_drain(void);

size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- the command line (cmdline.c) ---- */

/**
 * cmdline - the whole command line, never NULL
 */
const char *cmdline(void);

/**
 * option_number - the value of key=N
 * @key: name, without the equals sign
 * @fallback: value when the option is absent
 *
 * Decimal or 0x hexadecimal. A value that is no number, or more than @max,
 * ends the guest with VERDICT_USAGE.
 */
uint64_t option_number(const char *key, uint64_t fallback, uint64_t max);

/**
 * option_choice - which of a NULL-terminated list of words key=WORD names
 *
 * Return: the index; @names[0] is the default. Another word ends the guest
 * with VERDICT_USAGE.
 */
unsigned int option_choice(const char *key, const char *const *names);

/**
 * option_end - refuse what no option_*() call has asked for
 *
 * A mistyped option must not become a test of the default.
 */
void option_end(void);

/* ---- memory (mem.c) ---- */

struct mem_range {
	uint64_t gpa;
	uint64_t size;
};

/**
 * mem_alloc - zeroed memory that is never freed
 * @size: bytes
 * @align: power of two, bytes
 *
 * Not after mem_free(). Ends the guest when there is no memory.
 */
void *mem_alloc(size_t size, size_t align);

/**
 * mem_free - the RAM above 1 MiB that belongs to nobody
 * @ret_count: number of ranges
 *
 * Return: ranges of whole pages, ascending; all are mapped, one to one.
 */
const struct mem_range *mem_free(size_t *ret_count);

/**
 * mem_map_device - make sure that ring 3 can reach a device's registers
 * @gpa: guest physical address; @size in bytes
 *
 * All below 4 GiB is mapped from the start. For what lies above, this takes
 * memory, so: not after mem_free().
 *
 * Return: where; the same address.
 */
volatile void *mem_map_device(uint64_t gpa, uint64_t size);

/**
 * mem_total - bytes of RAM in the memory map
 */
uint64_t mem_total(void);

/* ---- CPUs (cpu.c, smp.c) ---- */

#define TSS_PORTS 0x1000 /* ring 3 may use ports below this one */

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3;
	uint16_t io_map;
	uint8_t ports[TSS_PORTS / 8 + 1]; /* all zero but the last */
} __attribute__((packed));

/* What KVM writes: one a CPU. Linux: Documentation/virt/kvm/x86/msr.rst */
struct pvclock {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc;
	uint64_t ns;
	uint32_t mul;
	int8_t shift;
	uint8_t flags;
	uint8_t pad1[2];
};

/* One CPU; sits at the start of its block (see layout.h). */
struct cpu {
	struct pvclock pvclock __attribute__((aligned(64)));
	uint64_t gdt[8];
	struct tss tss;
	unsigned int index; /* 0 is the first */
	uint32_t apic_id;
	volatile bool online;
	void (*volatile work)(void *arg);
	void *volatile work_arg;
	/* While set, an exception in ring 0 goes there and sets faulted. */
	uint64_t fixup;
	bool faulted;
};

/**
 * this_cpu - the CPU that runs this
 */
struct cpu *this_cpu(void);

/**
 * cpu_count - CPUs in the MADT, started or not; at least 1
 */
unsigned int cpu_count(void);

/**
 * cpu_apic_id - APIC id of CPU number @index, 0 is the first CPU
 */
uint32_t cpu_apic_id(unsigned int index);

/**
 * cpu_get - CPU number @index, NULL while it was never started
 */
struct cpu *cpu_get(unsigned int index);

/**
 * cpu_start - start CPU number @index and wait until it is up
 * @work: runs on it in ring 3, interrupts off; may return, then the CPU
 *	spins in ring 3 until cpu_run() gives it more
 *
 * Ring 3, on the first CPU. Ends the guest when the CPU does not come up.
 */
void cpu_start(unsigned int index, void (*work)(void *), void *arg);

/**
 * cpu_run - give a started CPU that has nothing to do work
 */
void cpu_run(unsigned int index, void (*work)(void *), void *arg);

/**
 * cpu_wait - wait until CPU number @index has nothing to do
 */
void cpu_wait(unsigned int index);

/* ---- rings, traps, interrupts (trap.c) ---- */

/* What trap_entry.S pushes, lowest address first. */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/**
 * call0 - run @fn in ring 0, interrupts off, and return what it returns
 *
 * From ring 0 it is a plain call, with interrupts as they are.
 */
uint64_t call0(uint64_t (*fn)(uint64_t arg), uint64_t arg);

/**
 * trap_set - who handles a vector
 * @fn: runs in ring 0, interrupts off, and may change the frame. For an
 *	interrupt it must end it (lapic_eoi()). NULL: unexpected again
 */
void trap_set(unsigned int vector, void (*fn)(struct trap_frame *frame));

/**
 * irq_set - set or clear the interrupt flag
 */
void irq_set(bool on);

/**
 * irq_wait - halt with interrupts on until one was handled, then IF is off
 *
 * Ring 3.
 */
void irq_wait(void);

uint64_t rdmsr(uint32_t msr);
void wrmsr(uint32_t msr, uint64_t value);

/**
 * rdmsr_try, wrmsr_try - the same, and a refusal is no exception
 *
 * Return: false when the CPU raised one.
 */
bool rdmsr_try(uint32_t msr, uint64_t *ret_value);
bool wrmsr_try(uint32_t msr, uint64_t value);

/**
 * cpuid - CPUID as the hypervisor means it (by ring 0)
 * @reg: eax, ebx, ecx, edx
 */
void cpuid(uint32_t leaf, uint32_t sub, uint32_t reg[4]);

/* ---- time (clock.c) ---- */

/**
 * clock_tsc_khz - rate of the TSC at boot
 */
uint64_t clock_tsc_khz(void);

/**
 * clock_tsc_ns - a TSC interval in nanoseconds, by the rate at boot
 */
uint64_t clock_tsc_ns(uint64_t ticks);

/**
 * clock_ns_tsc - nanoseconds as TSC ticks
 */
uint64_t clock_ns_tsc(uint64_t ns);

/**
 * clock_delay - spin, @ns nanoseconds of the TSC
 */
void clock_delay(uint64_t ns);

/**
 * kvmclock_present - whether CPUID offers kvmclock (and it is set up)
 */
bool kvmclock_present(void);

/**
 * kvmclock_enable - have KVM fill this CPU's pvclock; once per CPU
 */
void kvmclock_enable(void);

/**
 * kvmclock_read - nanoseconds by this CPU's pvclock
 */
uint64_t kvmclock_read(void);

/* ---- the local APIC (lapic.c) ---- */

#define LAPIC_ID	    0x20
#define LAPIC_TPR	    0x80
#define LAPIC_PPR	    0xa0
#define LAPIC_EOI	    0xb0
#define LAPIC_SVR	    0xf0
#define LAPIC_ISR	    0x100 /* eight registers, 0x10 apart */
#define LAPIC_IRR	    0x200 /* likewise */
#define LAPIC_ICR	    0x300
#define LAPIC_ICR_HIGH	    0x310
#define LAPIC_LVT_TIMER	    0x320
#define LAPIC_LVT_LINT0	    0x350
#define LAPIC_LVT_LINT1	    0x360
#define LAPIC_LVT_ERROR	    0x370
#define LAPIC_TIMER_INIT    0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE  0x3e0

#define LVT_MASKED	   0x10000U
#define LVT_TIMER_PERIODIC 0x20000U
#define LVT_TIMER_DEADLINE 0x40000U
#define LAPIC_DIVIDE_BY_1  0xbU

#define MSR_APIC_BASE	 0x1bU
#define MSR_TSC_DEADLINE 0x6e0U

/**
 * lapic_enable - software-enable this CPU's local APIC
 */
void lapic_enable(void);

/* lapic_read, lapic_write - a register, by MMIO or, in x2APIC mode, by MSR */
uint32_t lapic_read(uint32_t reg);
void lapic_write(uint32_t reg, uint32_t value);

void lapic_eoi(void);

/**
 * lapic_send - interprocessor interrupt
 * @apic_id: to whom
 * @command: low half of ICR (vector and delivery mode)
 */
void lapic_send(uint32_t apic_id, uint32_t command);

/**
 * lapic_x2_enable - switch this CPU (and this file) to x2APIC mode
 *
 * Return: false when CPUID has no x2APIC.
 */
bool lapic_x2_enable(void);

/**
 * lapic_timer_hz - rate of the local APIC timer, divider 1, measured once
 */
uint64_t lapic_timer_hz(void);

#endif
