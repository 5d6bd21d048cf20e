/* SPDX-License-Identifier: MIT */
/*
 * What KVM holds for a VM as a whole, as data: the PC's interrupt controllers
 * and timer, and the clock. irqchip.c and clock.c move it. No padding.
 */
#ifndef GODWIT_X86_64_VM_ARCH_STATE_H
#define GODWIT_X86_64_VM_ARCH_STATE_H

#include "arch/arch.h"

#define X86_VM_STATE_VERSION 1

#define X86_NPICS	 2
#define X86_IOAPIC_PINS	 24
#define X86_PIT_CHANNELS 3

/* As struct kvm_pic_state (8259A). */
struct x86_pic {
	uint8_t last_irr, irr, imr, isr;
	uint8_t priority_add, irq_base, read_reg_select, poll;
	uint8_t special_mask, init_state, auto_eoi, rotate_on_auto_eoi;
	uint8_t special_fully_nested_mode, init4, elcr, elcr_mask;
};

/* As struct kvm_ioapic_state (82093AA). */
struct x86_ioapic {
	uint64_t base_address;
	uint32_t ioregsel;
	uint32_t id;
	uint32_t irr;
	uint32_t reserved; /* 0, not on the wire */
	uint64_t redirtbl[X86_IOAPIC_PINS];
};

/*
 * As struct kvm_pit_channel_state (8254), less the load time: that is host
 * time, and KVM starts each channel's count anew when the state is set.
 */
struct x86_pit_channel {
	uint32_t count; /* 1 to 65536 */
	uint16_t latched_count;
	uint8_t count_latched, status_latched, status;
	uint8_t read_state, write_state, write_latch;
	uint8_t rw_mode, mode, bcd, gate;
};

struct x86_pit {
	struct x86_pit_channel channel[X86_PIT_CHANNELS];
	uint32_t flags; /* KVM_PIT_FLAGS_* */
};

/*
 * One instant on the source's clocks. host_tsc is 0 when KVM couldn't tell,
 * host_tsc_khz when KVM can't scale.
 */
struct x86_clock {
	uint64_t clock_ns;    /* the guest's kvmclock */
	uint64_t realtime_ns; /* CLOCK_REALTIME */
	uint64_t host_tsc;
	uint32_t host_tsc_khz;
	uint32_t reserved; /* 0, not on the wire */
};

struct x86_vm_state {
	struct x86_clock clock;
	struct x86_ioapic ioapic;
	struct x86_pic pic[X86_NPICS];
	struct x86_pit pit;
	uint32_t reserved; /* 0, not on the wire */
};

_Static_assert(sizeof(struct x86_pic) == 16, "padding");
_Static_assert(sizeof(struct x86_ioapic) == 24 + 8 * X86_IOAPIC_PINS,
	       "padding");
_Static_assert(sizeof(struct x86_pit) == 16 * X86_PIT_CHANNELS + 4, "padding");
_Static_assert(sizeof(struct x86_clock) == 32, "padding");
_Static_assert(sizeof(struct x86_vm_state) ==
		       32 + sizeof(struct x86_ioapic) + 2 * 16 +
			       sizeof(struct x86_pit) + 4,
	       "padding");

/* clock.c */
int __must_check clock_save(const struct kvm *kvm, int vm_fd,
			    struct x86_clock *clock, struct error *err);
void clock_visit(struct codec *c, struct x86_clock *clock);
int __must_check clock_check(const struct x86_clock *clock, struct error *err);

/**
 * clock_elapsed() - how long the guest was under way, in nanoseconds.
 * @then: CLOCK_REALTIME of the source when it read its clock.
 * @now: CLOCK_REALTIME here.
 *
 * Clocks of two hosts differ. What would turn guest time back, and what is
 * longer than any move takes, counts as 0.
 */
uint64_t clock_elapsed(uint64_t then, uint64_t now);

/**
 * clock_shift() - what the passage from one clock to another does to TSCs.
 * @src: the source's instant.
 * @dest: an instant here, after the clock was set.
 * @tsc_khz: rate of the guest's TSC.
 */
struct arch_clock_shift clock_shift(const struct x86_clock *src,
				    const struct x86_clock *dest,
				    uint32_t tsc_khz);

#endif
