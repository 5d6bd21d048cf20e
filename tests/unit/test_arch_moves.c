// SPDX-License-Identifier: MIT
/*
 * The KVM-held state with a KVM: from one VM into another and back out without
 * a difference, and what KVM does not take.
 */
#include "tests/unit/arch_rig.h"

START_TEST(a_fresh_vm_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!rig_begin(&a, __func__))
		return;
	before = save(&a);
	assert_moves(&a.kvm, before, NULL);
	free(before);
	rig_end(&a);
}
END_TEST

START_TEST(a_vm_that_ran_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!rig_begin(&a, __func__))
		return;
	run_program(&a);
	before = save(&a);
	ck_assert_uint_eq(before->vm.pic[0].irq_base, 0x20);
	ck_assert_uint_eq(before->vm.pic[0].imr, 0xfb);
	ck_assert_uint_eq(before->vm.pit.channel[0].count, 0x1234);
	ck_assert_uint_eq(*msr(&before->vcpu[0], 0x174), 0x10);
	ck_assert_uint_eq(*msr(&before->vcpu[0], MSR_TSC_DEADLINE),
			  0x4000000012345678);
	ck_assert_uint_eq(before->vcpu[0].sregs.apic_base & 0xc00, 0xc00);
	ck_assert_uint_eq(before->vcpu[1].mp_state, KVM_MP_STATE_UNINITIALIZED);
	assert_moves(&a.kvm, before, NULL);
	free(before);
	rig_end(&a);
}
END_TEST

static void look_at_xcr0(struct rig *rig, struct snapshot *before)
{
	(void)rig;
	before->vcpu[0].xcr0 = 1;
}

/* Such hosts have no XCRs to ask for: KVM would refuse. */
START_TEST(a_vm_moves_on_a_host_without_xsave)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	a.kvm.has_xcrs = false;
	rig_init(&a);
	before = save(&a);
	ck_assert_uint_eq(before->vcpu[0].xcr0, 1);
	/* Not loaded: KVM would refuse this. */
	before->vcpu[0].xcr0 = 0;
	assert_moves(&a.kvm, before, look_at_xcr0);
	free(before);
	rig_end(&a);
}
END_TEST

/* A mistake made both ways would cancel out: ask KVM itself. */
static void look_at_registers(struct rig *rig, struct snapshot *before)
{
	const struct x86_vcpu_state *s = &before->vcpu[1];
	const uint32_t i = 1;
	struct error err = { 0 };
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	OK(KVM_IOCTL(rig->vcpu_fd[i], KVM_GET_REGS, &regs, &err));
	OK(KVM_IOCTL(rig->vcpu_fd[i], KVM_GET_SREGS, &sregs, &err));
	ck_assert_uint_eq(regs.rax, s->regs.rax);
	ck_assert_uint_eq(regs.rsi, s->regs.rsi);
	ck_assert_uint_eq(regs.rdi, s->regs.rdi);
	ck_assert_uint_eq(regs.r15, s->regs.r15);
	ck_assert_uint_eq(sregs.cr2, s->sregs.cr2);
	ck_assert_uint_eq(sregs.fs.base, 0x1234);
	ck_assert_uint_eq(sregs.ldt.type,
			  s->sregs.seg[X86_LDT].attr & X86_SEG_TYPE);
	ck_assert_uint_eq(sregs.cs.type,
			  s->sregs.seg[X86_CS].attr & X86_SEG_TYPE);
	ck_assert_uint_eq(sregs.cs.s, 1);
	ck_assert_uint_eq(sregs.cs.present, 1);
}

START_TEST(full_registers_move_without_a_difference)
{
	struct rig a;
	struct snapshot *before;
	struct error err = { 0 };

	if (!rig_begin(&a, __func__))
		return;
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		fill_vcpu(&before->vcpu[i]);
		OK(arch_vcpu_check(&a.kvm, &model, i, &before->vcpu[i], NULL,
				   &err));
	}
	assert_moves(&a.kvm, before, look_at_registers);
	free(before);
	rig_end(&a);
}
END_TEST

/* What is left out because the vCPU holds it is left out for itself alone. */
START_TEST(one_group_of_registers_moves_where_the_others_are_the_same)
{
#define GROUP(member)                                                \
	{                                                            \
		offsetof(struct x86_vcpu_state, member),             \
			sizeof(((struct x86_vcpu_state *)0)->member) \
	}
	static const struct {
		size_t at, size;
	} groups[] = {
		GROUP(regs),	  GROUP(sregs.seg), GROUP(xsave),
		GROUP(debugregs), GROUP(events),    GROUP(xcr0),
		GROUP(msr_value),
	};
	struct x86_vcpu_state *full;
	struct snapshot *before;
	struct rig a;

	if (!rig_begin(&a, __func__))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		before = save(&a);
		full = calloc(1, sizeof(*full));
		*full = before->vcpu[0];
		fill_vcpu(full);
		memcpy((uint8_t *)&before->vcpu[0] + groups[i].at,
		       (uint8_t *)full + groups[i].at, groups[i].size);
		assert_moves(&a.kvm, before, NULL);
		free(full);
		free(before);
	}
	rig_end(&a);
}
END_TEST

START_TEST(msrs_that_are_no_state_are_refused)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} cases[] = {
		{ 0x1b, 0xfee00900 },	{ 0xc0000080, 0x500 },
		{ 0x4b564d00, 0x1000 }, { 0x808, 1 },
		{ 0xdeadbeef, 1 },	{ MSR_XSS, 1 },
	};
	struct rig rig;
	struct snapshot *snap;
	struct x86_vcpu_state *s;
	struct error err = { 0 };
	uint32_t n;

	if (!rig_begin(&rig, __func__))
		return;
	snap = save(&rig);
	s = &snap->vcpu[0];
	n = s->nmsrs;
	s->nmsrs = n + 1;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		s->msr_index[n] = cases[i].index;
		s->msr_value[n] = cases[i].value;
		ck_assert_int_lt(
			arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err), 0);
	}
	/* Another host may hold what this one doesn't, as long as it is 0. */
	s->msr_index[n] = 0x122;
	s->msr_value[n] = 0;
	OK(arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err));
	s->msr_index[n] = s->msr_index[0];
	ck_assert_int_eq(arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "twice"));
	free(snap);
	rig_end(&rig);
}
END_TEST

START_TEST(msrs_that_no_guest_can_write_are_refused)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} cases[] = {
		{ 0x277, 0x0007040600070402 }, /* PAT: no type 2 */
		{ 0x200, 0x80000007 },	       /* UC- is no MTRR's */
		{ 0x200, 1ULL << 60 },	       { 0x201, 0x401 },
		{ 0x250, 0x0606060606060603 }, { MSR_MTRR_DEF_TYPE, 0x1006 },
		{ 0xc0000082, 1ULL << 60 }, /* LSTAR */
		{ 0xc0000102, 1ULL << 60 }, /* KERNEL_GS_BASE */
		{ 0x175, 1ULL << 60 },	    /* SYSENTER_ESP */
	};
	struct rig rig;
	struct snapshot *snap;
	struct error err;

	if (!rig_begin(&rig, __func__))
		return;
	snap = save(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t *value = msr(&snap->vcpu[0], cases[i].index);
		uint64_t was = *value;

		*value = cases[i].value;
		ck_assert_msg(arch_vcpu_check(&rig.kvm, &model, 0,
					      &snap->vcpu[0], NULL,
					      &err) == -EINVAL,
			      "case %zu", i);
		*value = was;
	}
	free(snap);
	rig_end(&rig);
}
END_TEST

UNIT_SUITE("arch_moves", a_fresh_vm_moves_without_a_difference,
	   a_vm_that_ran_moves_without_a_difference,
	   a_vm_moves_on_a_host_without_xsave,
	   full_registers_move_without_a_difference,
	   one_group_of_registers_moves_where_the_others_are_the_same,
	   msrs_that_are_no_state_are_refused,
	   msrs_that_no_guest_can_write_are_refused)
