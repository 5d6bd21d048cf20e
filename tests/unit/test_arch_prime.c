// SPDX-License-Identifier: MIT
/*
 * vCPUs that hold what they can of a state ahead of its time: what that is,
 * that nothing comes of it, and that what is loaded over it is all there is.
 */
#include <asm/kvm_para.h>

#include "tests/unit/arch_rig.h"

#define LAPIC_TPR	    0x80
#define LAPIC_PPR	    0xa0
#define LAPIC_SPURIOUS	    0xf0
#define LAPIC_CURRENT_COUNT 0x390
#define LAPIC_DIVIDE	    0x3e0

static uint32_t *lapic(struct x86_vcpu_state *s, size_t at)
{
	return (uint32_t *)(void *)(s->lapic + at);
}

/* Switched on by software, and the timer's clock undivided. */
static void enable_lapic(struct x86_vcpu_state *s)
{
	*lapic(s, LAPIC_SPURIOUS) = 0x1ff;
	*lapic(s, LAPIC_DIVIDE) = 0xb;
}

/*
 * CR8 is the upper half of the task priority: who sets it takes away the lower,
 * even where both are what they were.
 */
START_TEST(the_task_priority_survives_special_registers)
{
	struct snapshot *ahead, *before;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		ahead->vcpu[i].sregs.cr8 = 3;
		*lapic(&ahead->vcpu[i], LAPIC_TPR) = 0x35;
		*lapic(&ahead->vcpu[i], LAPIC_PPR) = 0x35;
		before->vcpu[i] = ahead->vcpu[i];
		before->vcpu[i].sregs.cr2 = 0x1000;
	}
	assert_moves_primed(&a.kvm, before, ahead);
	free(before);
	free(ahead);
	rig_end(&a);
}
END_TEST

static void assert_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ck_assert_msg(!bytes[i], "byte %zu is 0x%x", i, bytes[i]);
}

START_TEST(nothing_comes_of_what_is_primed)
{
	struct snapshot *ahead, *held, *later;
	struct rig a, b;

	if (!rig_begin(&a, __func__))
		return;
	b.kvm = a.kvm;
	run_program(&a);
	ahead = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *s = &ahead->vcpu[i];

		s->events.nmi_pending = 1;
		*msr(s, MSR_KVM_SYSTEM_TIME_NEW) = 0x2001;
		*msr(s, MSR_KVM_STEAL_TIME) = 0x3001;
	}
	/* The deadline has passed; and a timer that would soon run out. */
	*msr(&ahead->vcpu[0], MSR_TSC_DEADLINE) = 1;
	enable_lapic(&ahead->vcpu[1]);
	*lapic(&ahead->vcpu[1], X86_LAPIC_LVT_TIMER) = 0x41; /* one shot */
	*lapic(&ahead->vcpu[1], X86_LAPIC_INITIAL_COUNT) = 0x10;
	*lapic(&ahead->vcpu[1], LAPIC_CURRENT_COUNT) = 0x10;
	rig_init(&b);
	held = prime(&b, ahead);
	later = save(&b);
	assert_zero(b.ram, RAM_SIZE);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *s = &later->vcpu[i];

		ck_assert_uint_eq(*msr(s, MSR_TSC_DEADLINE), 0);
		ck_assert_uint_eq(s->events.nmi_pending, 0);
		ck_assert_uint_eq(s->regs.rip, ahead->vcpu[i].regs.rip);
		ck_assert_uint_eq(*msr(s, MSR_KVM_SYSTEM_TIME_NEW), 0x2001);
		ck_assert_uint_eq(*msr(s, MSR_KVM_STEAL_TIME), 0);
		ck_assert_uint_ge(*msr(s, MSR_TSC),
				  *msr(&held->vcpu[i], MSR_TSC));
		*msr(s, MSR_TSC) = *msr(&held->vcpu[i], MSR_TSC);
		ck_assert_mem_eq(s, &held->vcpu[i], sizeof(*s));
	}
	/* In the mode that goes by the deadline, its page waits. */
	ck_assert_uint_eq(*lapic(&later->vcpu[0], X86_LAPIC_LVT_TIMER),
			  0x40040);
	ck_assert_uint_eq(*lapic(&later->vcpu[1], X86_LAPIC_INITIAL_COUNT), 0);
	free(later);
	free(held);
	free(ahead);
	rig_fini(&b);
	rig_end(&a);
}
END_TEST

/* Out of deadline mode KVM takes away the count that it is given. */
START_TEST(a_timer_that_has_changed_its_mode_since_counts_on)
{
	struct snapshot *ahead, *before, *after;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		enable_lapic(&ahead->vcpu[i]);
		*lapic(&ahead->vcpu[i], X86_LAPIC_LVT_TIMER) =
			0x40040; /* deadline */
		enable_lapic(&before->vcpu[i]);
		*lapic(&before->vcpu[i], X86_LAPIC_LVT_TIMER) =
			i ? 0x20040 : 0x40;
		*lapic(&before->vcpu[i], X86_LAPIC_INITIAL_COUNT) = 0xffffffff;
		*lapic(&before->vcpu[i], LAPIC_CURRENT_COUNT) = 0xfffffffe;
	}
	after = prime(&a, ahead);
	ck_assert_uint_eq(*lapic(&after->vcpu[0], X86_LAPIC_LVT_TIMER),
			  0x40040);
	(void)load(&a, before, after);
	free(after);
	after = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		ck_assert_uint_eq(
			*lapic(&after->vcpu[i], X86_LAPIC_INITIAL_COUNT),
			0xffffffff);
		ck_assert_uint_gt(*lapic(&after->vcpu[i], LAPIC_CURRENT_COUNT),
				  0x10000000);
	}
	free(after);
	free(before);
	free(ahead);
	rig_end(&a);
}
END_TEST

START_TEST(interrupts_are_not_primed)
{
	static const size_t kinds[] = { X86_LAPIC_ISR, X86_LAPIC_IRR };
	struct snapshot *ahead, *held, *later;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		enable_lapic(&ahead->vcpu[i]);
		*lapic(&ahead->vcpu[i], kinds[i] + 0x20) = 1;
	}
	held = prime(&a, ahead);
	later = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		ck_assert_uint_eq(*lapic(&later->vcpu[i], kinds[i] + 0x20), 0);
		ck_assert_uint_ne(*lapic(&later->vcpu[i], LAPIC_SPURIOUS),
				  0x1ff);
	}
	free(later);
	free(held);
	free(ahead);
	rig_end(&a);
}
END_TEST

/* What a processor waits for when it isn't at work is primed, or isn't. */
START_TEST(mp_states_move_over_each_other)
{
	static const uint32_t states[] = {
		KVM_MP_STATE_RUNNABLE,
		KVM_MP_STATE_HALTED,
		KVM_MP_STATE_UNINITIALIZED,
		KVM_MP_STATE_INIT_RECEIVED,
	};
	struct snapshot *ahead, *before, *held;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	before = save(&a);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct rig b = { .kvm = a.kvm };

		ahead->vcpu[1].mp_state = states[i];
		for (size_t j = 0; j < ARRAY_SIZE(states); j++) {
			before->vcpu[1].mp_state = states[j];
			assert_moves_primed(&a.kvm, before, ahead);
		}
		rig_init(&b);
		held = prime(&b, ahead);
		ck_assert_uint_eq(held->vcpu[1].mp_state,
				  i < 2 ? states[i]
					: KVM_MP_STATE_UNINITIALIZED);
		free(held);
		rig_fini(&b);
	}
	free(before);
	free(ahead);
	rig_end(&a);
}
END_TEST

/* 64-bit code, as a kernel runs it. */
static void make_long_mode(struct x86_vcpu_state *s)
{
	const uint16_t code =
		0xb | X86_SEG_S | X86_SEG_PRESENT | X86_SEG_L | X86_SEG_G;
	const uint16_t data =
		0x3 | X86_SEG_S | X86_SEG_PRESENT | X86_SEG_DB | X86_SEG_G;

	s->sregs.cr0 = X86_CR0_PG | 0x33;
	s->sregs.cr3 = 0x1000;
	s->sregs.cr4 = 0x20;
	s->sregs.efer = X86_EFER_LMA | 0x101; /* LME, SCE */
	for (size_t i = X86_CS; i <= X86_SS; i++)
		s->sregs.seg[i] = (struct x86_segment){
			.limit = 0xffffffff,
			.selector = i == X86_CS ? 0x10 : 0x18,
			.attr = i == X86_CS ? code : data,
		};
	s->sregs.seg[X86_TR] = (struct x86_segment){
		.base = 0x3000,
		.limit = 0x67,
		.selector = 0x28,
		.attr = 0xb | X86_SEG_PRESENT,
	};
	s->regs.rip = 0xffffffff81000000;
	s->regs.rflags = 0x2;
	s->regs.rsp = 0xffffffff82000000;
	*msr(s, 0xc0000081) = 0x0023001000000000; /* STAR */
	*msr(s, 0xc0000082) = 0xffffffff81200000; /* LSTAR */
}

/* The guest is reset in the rounds, say; and starts from there. */
START_TEST(a_vcpu_primed_in_long_mode_starts_in_real_mode)
{
	struct snapshot *ahead, *before;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++)
		make_long_mode(&ahead->vcpu[i]);
	assert_moves(&a.kvm, ahead, NULL);
	assert_loads(&a, before, prime(&a, ahead), NULL);
	run_program(&a);
	free(before);
	free(ahead);
	rig_end(&a);
}
END_TEST

/* And what is primed is there, or priming would be for nothing. */
START_TEST(what_may_wait_is_primed)
{
	struct snapshot *ahead, *held;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	for (uint32_t i = 0; i < CPUS; i++)
		fill_vcpu(&ahead->vcpu[i]);
	held = prime(&a, ahead);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *is = &held->vcpu[i];
		struct x86_vcpu_state *was = &ahead->vcpu[i];

		ck_assert_mem_eq(&is->regs, &was->regs, sizeof(is->regs));
		ck_assert_mem_eq(&is->sregs, &was->sregs, sizeof(is->sregs));
		ck_assert_mem_eq(&is->debugregs, &was->debugregs,
				 sizeof(is->debugregs));
		ck_assert_mem_eq(is->xsave, was->xsave, sizeof(is->xsave));
		ck_assert_mem_eq(is->lapic, was->lapic, sizeof(is->lapic));
		ck_assert_uint_eq(is->xcr0, was->xcr0);
		ck_assert_uint_eq(*msr(is, 0xc0000082), *msr(was, 0xc0000082));
		ck_assert_uint_eq(*msr(is, 0x277), *msr(was, 0x277));
		ck_assert_uint_eq(is->events.exception_injected, 0);
	}
	free(held);
	free(ahead);
	rig_end(&a);
}
END_TEST

/* KVM reads PAE's page directory pointers as it is given CR3. */
START_TEST(paging_that_starts_in_memory_is_not_primed)
{
	struct snapshot *ahead, *held;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	ahead = save(&a);
	ahead->vcpu[0].sregs.cr0 |= X86_CR0_PG | 1;
	ahead->vcpu[0].sregs.cr3 = 0x1000;
	ahead->vcpu[0].sregs.cr4 = 0x20; /* PAE */
	ahead->vcpu[1].sregs.cr2 = 0x1000;
	held = prime(&a, ahead);
	ck_assert_uint_eq(held->vcpu[0].sregs.cr3, 0);
	ck_assert_uint_eq(held->vcpu[0].sregs.cr0 & X86_CR0_PG, 0);
	ck_assert_uint_eq(held->vcpu[1].sregs.cr2, 0x1000);
	free(held);
	free(ahead);
	rig_end(&a);
}
END_TEST

UNIT_SUITE("arch_prime", the_task_priority_survives_special_registers,
	   nothing_comes_of_what_is_primed,
	   a_timer_that_has_changed_its_mode_since_counts_on,
	   interrupts_are_not_primed, mp_states_move_over_each_other,
	   a_vcpu_primed_in_long_mode_starts_in_real_mode,
	   what_may_wait_is_primed, paging_that_starts_in_memory_is_not_primed)
