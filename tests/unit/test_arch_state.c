// SPDX-License-Identifier: MIT
/*
 * The KVM-held state without a KVM: over the wire whole, impossible ones
 * refused by name, and time that is shifted.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/vm_arch_state.h"
#include "tests/unit/arch_sample.h"
#include "tests/unit/unit.h"

#define CPUS 2

static struct arch_cpu_model model;
static const struct kvm no_kvm = { .fd = -1, .has_xcrs = true };

static void round_trip(void (*visit)(struct codec *, void *), void *from,
		       void *to)
{
	struct buffer buf = { 0 };
	struct codec c;
	struct error err;

	codec_init_save(&c, &buf, 1);
	visit(&c, from);
	ck_assert_msg(codec_finish(&c, &err) == 0, "%s", err.text);
	codec_init_load(&c, buf.data, buf.len, 1);
	visit(&c, to);
	ck_assert_msg(codec_finish(&c, &err) == 0, "%s", err.text);
	/* Every truncation is told. */
	for (size_t len = 0; len < buf.len; len += 1 + len / 64) {
		void *scratch = calloc(1, sizeof(struct x86_vcpu_state));

		codec_init_load(&c, buf.data, len, 1);
		visit(&c, scratch);
		ck_assert_int_eq(codec_finish(&c, &err), -ENODATA);
		free(scratch);
	}
	buffer_free(&buf);
}

START_TEST(every_byte_of_a_vcpu_survives_the_wire)
{
	struct x86_vcpu_state *from = malloc(sizeof(*from));
	struct x86_vcpu_state *to = calloc(1, sizeof(*to));

	poison(from, sizeof(*from));
	from->nmsrs = X86_MSRS_MAX;
	from->xsave_size = X86_XSAVE_MAX;
	from->reserved = 0;
	memset(from->events.reserved, 0, sizeof(from->events.reserved));
	round_trip(arch_vcpu_visit, from, to);
	ck_assert_mem_eq(from, to, sizeof(*from));
	free(from);
	free(to);
}
END_TEST

START_TEST(every_byte_of_a_vm_survives_the_wire)
{
	struct x86_vm_state from, to = { 0 };

	poison(&from, sizeof(from));
	from.reserved = from.clock.reserved = from.ioapic.reserved = 0;
	round_trip(arch_vm_visit, &from, &to);
	ck_assert_mem_eq(&from, &to, sizeof(from));
}
END_TEST

/* A vCPU of the sample model in 64-bit mode. */
static void good_vcpu(struct x86_vcpu_state *s)
{
	const uint64_t xstate_bv = 0xe7;
	const uint32_t mxcsr = 0x1f80;

	memset(s, 0, sizeof(*s));
	s->tsc_khz = model.tsc_khz;
	s->regs.rflags = 0x202;
	s->regs.rip = 0xffffffff81000000;
	s->sregs.cr0 = 0x80050033;
	s->sregs.cr3 = 0x1000;
	s->sregs.cr4 = 0x406f0;
	s->sregs.efer = 0xd01;
	s->sregs.apic_base = 0xfee00900;
	s->sregs.seg[X86_CS].attr =
		X86_SEG_L | X86_SEG_PRESENT | X86_SEG_S | 11;
	s->sregs.seg[X86_GS].base = 0xffff888000000000;
	s->xcr0 = 0xe7;
	s->debugregs.dr6 = 0xffff0ff0;
	s->debugregs.dr7 = 0x400;
	s->xsave_size = X86_XSAVE_MAX;
	memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
	memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));
	s->nmsrs = 1;
	s->msr_index[0] = MSR_TSC;
}

#define OFF(field) offsetof(struct x86_vcpu_state, field)
#define LEN(field) sizeof(((struct x86_vcpu_state *)0)->field)
#define BAD(field, value, text)                         \
	{                                               \
		OFF(field), LEN(field), (value), (text) \
	}

static const struct {
	size_t offset, len;
	uint64_t value;
	const char *text; /* in the refusal */
} impossible[] = {
	BAD(mp_state, KVM_MP_STATE_UNINITIALIZED, "mp_state"), /* vCPU 0 */
	BAD(mp_state, KVM_MP_STATE_SIPI_RECEIVED, "mp_state"),
	BAD(mp_state, 9, "mp_state"),
	BAD(mp_state, 0xffffffff, "mp_state"),
	BAD(sregs.cr0, 0x100000000, "cr0"),
	BAD(sregs.cr0, 0x80000030, "cr0"),  /* paging, no protection */
	BAD(sregs.cr0, 0xa0050033, "cr0"),  /* NW without CD */
	BAD(sregs.cr0, 0x00050033, "efer"), /* LMA without paging */
	BAD(sregs.cr3, 1ULL << 48, "cr3"),
	BAD(sregs.cr4, 0x40650, "cr4"),		  /* no PAE */
	BAD(sregs.cr4, 0x406f0 | 1 << 13, "cr4"), /* VMXE */
	BAD(sregs.cr4, 0x406f0 | 1 << 23, "cr4"), /* CET */
	BAD(sregs.cr4, 1ULL << 63 | 0x406f0, "cr4"),
	BAD(sregs.efer, 0x1d01, "efer"), /* SVME */
	BAD(sregs.efer, 0x901, "efer"),	 /* LME and paging without LMA */
	BAD(sregs.cr8, 16, "cr8"),
	BAD(sregs.pdptrs_valid, 1, "pdptrs_valid"),
	BAD(sregs.pdptrs_valid, 2, "pdptrs_valid"),
	BAD(sregs.apic_base, 0xfee00901, "apic_base"),
	BAD(sregs.apic_base, 0xfee00500, "apic_base"), /* x2APIC, disabled */
	BAD(sregs.apic_base, 1ULL << 50 | 0x900, "apic_base"),
	BAD(sregs.seg[X86_CS].attr, 1 << 13, "segment"),
	BAD(sregs.seg[X86_DS].base, 1ULL << 32, "ds.base"),
	BAD(sregs.seg[X86_FS].base, 1ULL << 60, "fs.base"),
	BAD(sregs.seg[X86_TR].base, 1ULL << 60, "tr.base"),
	BAD(sregs.gdt_base, 1ULL << 60, "gdt_base"),
	BAD(sregs.idt_base, 1ULL << 60, "idt_base"),
	BAD(sregs.gdt_limit, 0x10000, "gdt_limit"),
	BAD(sregs.idt_limit, 0x10000, "idt_limit"),
	BAD(regs.rflags, 0, "rflags"),
	BAD(regs.rflags, 0x20a, "rflags"),
	BAD(regs.rflags, 1ULL << 40 | 2, "rflags"),
	BAD(regs.rflags, 0x20002, "rflags"), /* VM in long mode */
	BAD(regs.rip, 1ULL << 58, "rip"),
	BAD(xcr0, 0, "xcr0"),
	BAD(xcr0, 5, "xcr0"),
	BAD(xcr0, 0x27, "xcr0"),
	BAD(xcr0, 0x1f, "xcr0"),    /* MPX */
	BAD(xcr0, 0x60007, "xcr0"), /* AMX */
	BAD(xsave_size, 0, "xsave size"),
	BAD(xsave_size, X86_XSAVE_MAX + 1, "xsave size"),
	BAD(xsave[24], 0x80, "xsave"), /* see below: fine */
	BAD(xsave[27], 1, "mxcsr"),
	BAD(xsave[513], 1, "xstate_bv"),
	BAD(xsave[514], 4, "xstate_bv"), /* AMX */
	BAD(xsave[519], 0x80, "xstate_bv"),
	BAD(xsave[520], 1, "xcomp_bv"),
	BAD(xsave[527], 0x80, "xcomp_bv"),
	BAD(xsave[528], 1, "header"),
	BAD(xsave[575], 1, "header"),
	BAD(debugregs.dr6, 1ULL << 32, "dr6"),
	BAD(debugregs.dr7, 1ULL << 32, "dr7"),
	BAD(tsc_offset_valid, 2, "tsc_offset_valid"),
	BAD(tsc_khz, 2602000, "tsc_khz"),
	BAD(tsc_khz, 0, "tsc_khz"),
	BAD(events.valid, KVM_VCPUEVENT_VALID_SIPI_VECTOR, "events"),
	BAD(events.valid, 0x40, "events"),
	BAD(events.nmi_masked, 2, "flag"),
	BAD(events.smi_latched_init, 0xff, "flag"),
	BAD(events.interrupt_shadow, 4, "shadow"),
	BAD(events.nmi_pending, 3, "nmi"),
	BAD(events.exception_has_payload, 1, "payload"),
	BAD(events.triple_fault_pending, 1, "triple fault"),
	BAD(events.smi_smm, 1, "system management"),
	BAD(events.smi_inside_nmi, 1, "system management"),
	BAD(nmsrs, X86_MSRS_MAX + 1, "MSRs"),
};

/* What is said when all but the MSRs, which need KVM, has passed. */
#define PASSED "KVM_GET_MSR_INDEX_LIST"

static int check_vcpu(const struct x86_vcpu_state *s, struct error *err)
{
	*err = (struct error){ 0 };
	return arch_vcpu_check(&no_kvm, &model, 0, s, NULL, err);
}

START_TEST(impossible_vcpus_are_refused_by_name)
{
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	for (size_t i = 0; i < ARRAY_SIZE(impossible); i++) {
		good_vcpu(s);
		memcpy((uint8_t *)s + impossible[i].offset,
		       &impossible[i].value, impossible[i].len);
		ck_assert_int_lt(check_vcpu(s, &err), 0);
		if (impossible[i].offset == OFF(xsave[24]))
			ck_assert_ptr_nonnull(strstr(err.text, PASSED));
		else
			ck_assert_msg(strstr(err.text, impossible[i].text),
				      "case %zu (%s): \"%s\"", i,
				      impossible[i].text, err.text);
	}
	free(s);
}
END_TEST

START_TEST(a_possible_vcpu_passes)
{
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	good_vcpu(s);
	ck_assert_int_lt(check_vcpu(s, &err), 0);
	ck_assert_msg(strstr(err.text, PASSED), "%s", err.text);
	free(s);
}
END_TEST

/* What CR4 may hold without the feature is for KVM to say. */
START_TEST(cr4_may_hold_bits_whose_feature_is_not_in_cpuid)
{
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	for (uint32_t i = 0; i < model.nentries; i++) {
		if (model.entries[i].function == 1)
			model.entries[i].ecx &= ~(1U << 26); /* xsave */
		if (model.entries[i].function == 7)
			model.entries[i].ebx &= ~1U; /* fsgsbase */
	}
	good_vcpu(s);
	s->sregs.cr4 |= 1 << 16;
	ck_assert_int_lt(check_vcpu(s, &err), 0);
	ck_assert_msg(strstr(err.text, PASSED), "%s", err.text);
	free(s);
}
END_TEST

START_TEST(exceptions_must_make_sense)
{
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	good_vcpu(s);
	s->events.exception_injected = 1;
	s->events.exception_nr = 2;
	ck_assert_int_eq(check_vcpu(s, &err), -EINVAL);
	s->events.exception_nr = 32;
	ck_assert_int_eq(check_vcpu(s, &err), -EINVAL);
	s->events.exception_nr = 14;
	check_vcpu(s, &err);
	ck_assert_ptr_nonnull(strstr(err.text, PASSED));
	s->events.valid = KVM_VCPUEVENT_VALID_PAYLOAD;
	s->events.exception_pending = 1;
	ck_assert_int_eq(check_vcpu(s, &err), -EINVAL);
	free(s);
}
END_TEST

START_TEST(a_host_without_xsave_takes_no_xcr0_but_that_of_a_reset)
{
	const struct kvm host = { .fd = -1 };
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	good_vcpu(s);
	ck_assert_int_eq(arch_vcpu_check(&host, &model, 0, s, NULL, &err),
			 -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "XSAVE"));
	s->xcr0 = 1;
	ck_assert_int_lt(arch_vcpu_check(&host, &model, 0, s, NULL, &err), 0);
	ck_assert_msg(strstr(err.text, PASSED), "%s", err.text);
	free(s);
}
END_TEST

START_TEST(an_x2apic_id_must_be_the_vcpus_own)
{
	struct x86_vcpu_state *s = malloc(sizeof(*s));
	struct error err;

	sample_model(&model, CPUS, false);
	good_vcpu(s);
	s->sregs.apic_base |= 0x400;
	s->lapic[0x23] = 1;
	ck_assert_int_eq(check_vcpu(s, &err), -EINVAL);
	ck_assert_int_lt(arch_vcpu_check(&no_kvm, &model, 1, s, NULL, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, PASSED));
	free(s);
}
END_TEST

static void good_vm(struct x86_vm_state *s)
{
	memset(s, 0, sizeof(*s));
	s->pic[0].elcr_mask = 0xf8;
	s->pic[1].elcr_mask = 0xde;
	s->ioapic.base_address = 0xfec00000;
	for (size_t i = 0; i < X86_PIT_CHANNELS; i++) {
		s->pit.channel[i].count = 65536;
		s->pit.channel[i].mode = 0xff;
	}
}

#define VM_OFF(field) offsetof(struct x86_vm_state, field)
#define VM_LEN(field) sizeof(((struct x86_vm_state *)0)->field)
#define VM_BAD(field, value, text)                            \
	{                                                     \
		VM_OFF(field), VM_LEN(field), (value), (text) \
	}

static const struct {
	size_t offset, len;
	uint64_t value;
	const char *text;
} impossible_vm[] = {
	VM_BAD(pic[0].priority_add, 8, "pic0: priority_add"),
	VM_BAD(pic[1].irq_base, 0x71, "pic1: irq_base"),
	VM_BAD(pic[0].init_state, 4, "init_state"),
	VM_BAD(pic[0].auto_eoi, 2, "auto_eoi"),
	VM_BAD(pic[0].elcr, 1, "elcr"),
	VM_BAD(pic[1].elcr_mask, 0xff, "elcr_mask"),
	VM_BAD(ioapic.base_address, 0xfee00000, "base_address"),
	VM_BAD(ioapic.ioregsel, 0x100, "ioregsel"),
	VM_BAD(ioapic.id, 16, "id"),
	VM_BAD(ioapic.irr, 1 << 24, "irr"),
	VM_BAD(pit.channel[0].count, 0, "count"),
	VM_BAD(pit.channel[2].count, 0, "count"),
	VM_BAD(pit.channel[1].count, 65537, "count"),
	VM_BAD(pit.channel[0].mode, 6, "mode"),
	VM_BAD(pit.channel[0].rw_mode, 5, "rw_mode"),
	VM_BAD(pit.channel[2].read_state, 5, "read_state"),
	VM_BAD(pit.channel[2].gate, 2, "gate"),
	VM_BAD(pit.flags, KVM_PIT_FLAGS_HPET_LEGACY, "flags"),
	VM_BAD(pit.flags, 1ULL << 31, "flags"),
	VM_BAD(clock.clock_ns, 1ULL << 63, "clock"),
};

START_TEST(impossible_controllers_are_refused_by_name)
{
	struct x86_vm_state s;
	struct error err;

	good_vm(&s);
	ck_assert_int_eq(arch_vm_check(&no_kvm, &s, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(impossible_vm); i++) {
		good_vm(&s);
		memcpy((uint8_t *)&s + impossible_vm[i].offset,
		       &impossible_vm[i].value, impossible_vm[i].len);
		ck_assert_int_eq(arch_vm_check(&no_kvm, &s, &err), -EINVAL);
		ck_assert_msg(strstr(err.text, impossible_vm[i].text),
			      "case %zu: \"%s\"", i, err.text);
	}
}
END_TEST

START_TEST(time_under_way_never_goes_back_nor_leaps)
{
	ck_assert_uint_eq(clock_elapsed(1000, 4000), 3000);
	ck_assert_uint_eq(clock_elapsed(4000, 1000), 0);
	ck_assert_uint_eq(clock_elapsed(0, 0), 0);
	ck_assert_uint_eq(clock_elapsed(0, clock_real_ns()), 0);
	ck_assert_uint_eq(clock_elapsed(UINT64_MAX, 1), 0);
}
END_TEST

/* Documentation/virt/kvm/devices/vcpu.rst, worked by hand. */
START_TEST(tsc_offsets_shift_by_both_clocks_and_both_tscs)
{
	/* The guest's TSC at 2 GHz; 5 ms under way. */
	const struct x86_clock src = { .clock_ns = 1000000,
				       .host_tsc = 9000000000 };
	const struct x86_clock dest = { .clock_ns = 6000000, .host_tsc = 400 };
	struct arch_clock_shift shift = clock_shift(&src, &dest, 2000000);
	uint64_t offset = 77;
	uint64_t before = src.host_tsc + offset;
	uint64_t after = dest.host_tsc + offset + (uint64_t)shift.tsc_delta;

	ck_assert(shift.valid);
	ck_assert_uint_eq(after - before, 10000000);
	ck_assert_uint_eq(shift.tsc_advance, 10000000);
}
END_TEST

START_TEST(tsc_offsets_are_not_trusted_across_scaling)
{
	struct x86_clock src = { .host_tsc = 1, .host_tsc_khz = 2000000 };
	struct x86_clock dest = { .host_tsc = 1, .host_tsc_khz = 2000100 };

	ck_assert(clock_shift(&src, &dest, 2000000).valid);
	dest.host_tsc_khz = 2400000;
	ck_assert(!clock_shift(&src, &dest, 2000000).valid);
	dest.host_tsc_khz = 0;
	ck_assert(clock_shift(&src, &dest, 2000000).valid);
	src.host_tsc = 0;
	ck_assert(!clock_shift(&src, &dest, 2000000).valid);
}
END_TEST

UNIT_SUITE("arch_state", every_byte_of_a_vcpu_survives_the_wire,
	   every_byte_of_a_vm_survives_the_wire,
	   impossible_vcpus_are_refused_by_name, a_possible_vcpu_passes,
	   cr4_may_hold_bits_whose_feature_is_not_in_cpuid,
	   exceptions_must_make_sense,
	   a_host_without_xsave_takes_no_xcr0_but_that_of_a_reset,
	   an_x2apic_id_must_be_the_vcpus_own,
	   impossible_controllers_are_refused_by_name,
	   time_under_way_never_goes_back_nor_leaps,
	   tsc_offsets_shift_by_both_clocks_and_both_tscs,
	   tsc_offsets_are_not_trusted_across_scaling)
