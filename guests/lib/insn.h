/* SPDX-License-Identifier: MIT */
/*
 * Single instructions as functions. The ones marked "ring 0" must run there
 * (see call0() in guest.h); the others run anywhere, ports because ring 3
 * has IOPL 3.
 *
 * CPUID is marked "ring 0" although it is not privileged: a hypervisor that
 * runs ring 3 natively may be unable to intercept it, and then ring 3 sees
 * the host's leaves and not the guest's.
 */
#ifndef GUEST_INSN_H
#define GUEST_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* The fence keeps the read from moving up over earlier loads. */
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

/* Earlier stores are visible before later loads: x86 reorders only these. */
static inline void full_barrier(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
}

/* a * b / c with a 128-bit product; the quotient must fit. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t lo, hi;

	__asm__("mulq %3" : "=a"(lo), "=d"(hi) : "a"(a), "rm"(b) : "cc");
	__asm__("divq %2" : "+a"(lo), "+d"(hi) : "rm"(c) : "cc");
	return lo;
}

/* Any ring: which ring this is. */
static inline unsigned int current_ring(void)
{
	uint16_t cs;

	__asm__("movw %%cs, %0" : "=r"(cs));
	return cs & 3U;
}

/* Ring 0: see the comment on top. */
static inline void cpuid0(uint32_t leaf, uint32_t sub, uint32_t reg[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(reg[0]), "=b"(reg[1]), "=c"(reg[2]),
			   "=d"(reg[3])
			 : "a"(leaf), "c"(sub));
}

/* Ring 0. */
static inline uint64_t rdmsr0(uint32_t msr)
{
	uint32_t lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (uint64_t)hi << 32 | lo;
}

/* Ring 0. */
static inline void wrmsr0(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(msr), "a"((uint32_t)value),
			   "d"((uint32_t)(value >> 32))
			 : "memory");
}

#define DEFINE_REGISTER(reg)                                           \
	/* Ring 0. */                                                  \
	static inline uint64_t reg##_read0(void)                       \
	{                                                              \
		uint64_t value;                                        \
                                                                       \
		__asm__ volatile("movq %%" #reg ", %0" : "=r"(value)); \
		return value;                                          \
	}                                                              \
	/* Ring 0. */                                                  \
	static inline void reg##_write0(uint64_t value)                \
	{                                                              \
		__asm__ volatile("movq %0, %%" #reg                    \
				 :                                     \
				 : "r"(value)                          \
				 : "memory");                          \
	}

DEFINE_REGISTER(cr0)
DEFINE_REGISTER(cr2)
DEFINE_REGISTER(cr3)
DEFINE_REGISTER(cr4)
DEFINE_REGISTER(cr8)
DEFINE_REGISTER(dr0)
DEFINE_REGISTER(dr1)
DEFINE_REGISTER(dr2)
DEFINE_REGISTER(dr3)
DEFINE_REGISTER(dr6)
DEFINE_REGISTER(dr7)

#undef DEFINE_REGISTER

#endif
