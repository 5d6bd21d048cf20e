/* SPDX-License-Identifier: MIT */
/*
 * A vCPU's state as data: what KVM holds of it, in godwit's own layout, which
 * is the same on every kernel. No padding, so that two states are equal when
 * their bytes are.
 *
 * vcpu_state.c moves it between KVM and this struct, vcpu_visit.c between the
 * struct and the wire, vcpu_check.c decides whether it is possible.
 */
#ifndef GODWIT_X86_64_VCPU_STATE_H
#define GODWIT_X86_64_VCPU_STATE_H

#include <string.h>

#include "arch/arch.h"

#define X86_MSRS_MAX   256
#define X86_XSAVE_MAX  4096U
#define X86_LAPIC_SIZE 1024U

#define X86_VCPU_STATE_VERSION 1

/* Offsets in the local APIC's page, SDM 3A 11.4.1 */
#define X86_LAPIC_ISR		0x100 /* eight registers, 16 bytes apart */
#define X86_LAPIC_IRR		0x200
#define X86_LAPIC_LVT_TIMER	0x320
#define X86_LAPIC_INITIAL_COUNT 0x380

/* Segment attributes, packed as VMX packs access rights (SDM 3C 25.4.1). */
enum x86_segment_attr {
	X86_SEG_TYPE = 0xf,
	X86_SEG_S = 1 << 4,
	X86_SEG_DPL_SHIFT = 5,
	X86_SEG_DPL = 3 << X86_SEG_DPL_SHIFT,
	X86_SEG_PRESENT = 1 << 7,
	X86_SEG_AVL = 1 << 8,
	X86_SEG_L = 1 << 9,
	X86_SEG_DB = 1 << 10,
	X86_SEG_G = 1 << 11,
	X86_SEG_UNUSABLE = 1 << 12,
	X86_SEG_ALL = (1 << 13) - 1,
};

enum x86_segment_index {
	X86_CS,
	X86_DS,
	X86_ES,
	X86_FS,
	X86_GS,
	X86_SS,
	X86_TR,
	X86_LDT,
	X86_NSEGMENTS,
};

struct x86_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint16_t attr; /* enum x86_segment_attr */
};

struct x86_regs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip, rflags;
};

/* SDM 3A 2.5 and 2.2.1 */
#define X86_CR0_PG   (1ULL << 31)
#define X86_EFER_LMA (1ULL << 10)

struct x86_sregs {
	struct x86_segment seg[X86_NSEGMENTS];
	uint64_t gdt_base, idt_base;
	uint32_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	/*
	 * PAE page directory pointers as the processor holds them, when
	 * pdptrs_valid is 1; memory may say otherwise by now.
	 */
	uint64_t pdptrs_valid;
	uint64_t pdptrs[4];
};

struct x86_debugregs {
	uint64_t dr[4]; /* DR0 to DR3 */
	uint64_t dr6, dr7;
};

/* As struct kvm_vcpu_events; every u8 but numbers and masks is 0 or 1. */
struct x86_events {
	uint32_t valid; /* KVM_VCPUEVENT_VALID_* */
	uint32_t exception_error_code;
	uint64_t exception_payload;
	uint8_t exception_injected;
	uint8_t exception_pending;
	uint8_t exception_nr;
	uint8_t exception_has_error_code;
	uint8_t exception_has_payload;
	uint8_t interrupt_injected;
	uint8_t interrupt_nr;
	uint8_t interrupt_soft;
	uint8_t interrupt_shadow; /* KVM_X86_SHADOW_INT_* */
	uint8_t nmi_injected;
	uint8_t nmi_pending;
	uint8_t nmi_masked;
	uint8_t smi_smm;
	uint8_t smi_pending;
	uint8_t smi_inside_nmi;
	uint8_t smi_latched_init;
	uint8_t triple_fault_pending;
	uint8_t reserved[7]; /* 0, not on the wire */
};

struct x86_vcpu_state {
	uint32_t mp_state; /* KVM_MP_STATE_* */
	uint32_t tsc_khz;
	struct x86_regs regs;
	struct x86_sregs sregs;
	uint64_t xcr0;
	struct x86_debugregs debugregs;
	struct x86_events events;
	/* Guest TSC minus host TSC, when tsc_offset_valid is 1. */
	uint64_t tsc_offset;
	uint32_t tsc_offset_valid;
	uint32_t nmsrs;
	uint32_t msr_index[X86_MSRS_MAX];
	uint64_t msr_value[X86_MSRS_MAX];
	uint8_t lapic[X86_LAPIC_SIZE];
	uint32_t xsave_size;	      /* bytes of xsave that count */
	uint32_t reserved;	      /* 0, not on the wire */
	uint8_t xsave[X86_XSAVE_MAX]; /* standard format, SDM 1 13.4 */
};

static inline uint32_t x86_lapic_register(const struct x86_vcpu_state *s,
					  size_t at)
{
	uint32_t value;

	memcpy(&value, s->lapic + at, sizeof(value));
	return value;
}

_Static_assert(sizeof(struct x86_segment) == 16, "padding");
_Static_assert(sizeof(struct x86_sregs) == 8 * 16 + 2 * 8 + 2 * 4 + 12 * 8,
	       "padding");
_Static_assert(sizeof(struct x86_events) == 40, "padding");
_Static_assert(sizeof(struct x86_vcpu_state) ==
		       8 + sizeof(struct x86_regs) + sizeof(struct x86_sregs) +
			       8 + sizeof(struct x86_debugregs) + 40 + 16 +
			       X86_MSRS_MAX * 12 + X86_LAPIC_SIZE + 8 +
			       X86_XSAVE_MAX,
	       "padding");

#endif
