// SPDX-License-Identifier: MIT
/*
 * The KVM-held state: over the wire whole, impossible ones refused, and from
 * one VM into another and back out without a difference.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/vm_arch_state.h"
#include "tests/unit/arch_sample.h"
#include "tests/unit/unit.h"

#define CPUS 2

/* ---- without KVM ---- */

static struct arch_cpu_model model;
static const struct kvm no_kvm = { .fd = -1, .has_xcrs = true };

/* Each byte another value, so that a swap shows. */
static void poison(void *p, size_t len)
{
	uint8_t *bytes = p;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 37 + (i >> 8) + 1);
}

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

/* ---- with KVM ---- */

struct rig {
	struct kvm kvm;
	int vm_fd;
	int vcpu_fd[CPUS];
	uint8_t *ram;
};

#define RAM_SIZE (1 * MIB)
#define CODE	 0x1000

/* Opens KVM, or says that the test is skipped. */
static bool have_kvm(struct kvm *kvm, const char *test)
{
	struct error err;

	if (!kvm_open(kvm, &err))
		return true;
	fprintf(stderr, "SKIP %s: %s\n", test, err.text);
	return false;
}

#define OK(call) ck_assert_msg((call) >= 0, "%s", err.text)

static void rig_init(struct rig *rig)
{
	struct kvm_userspace_memory_region slot = { .memory_size = RAM_SIZE };
	struct error err = { 0 };

	OK(arch_cpu_model_host(&rig->kvm, -1, CPUS, &model, &err));
	OK(arch_cpu_model_check(&rig->kvm, &model, &model, &err));
	OK(rig->vm_fd = KVM_IOCTL_NUM(rig->kvm.fd, KVM_CREATE_VM, 0, &err));
	OK(arch_vm_init(&rig->kvm, rig->vm_fd, &err));
	rig->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(rig->ram, MAP_FAILED);
	slot.userspace_addr = (uintptr_t)rig->ram;
	OK(KVM_IOCTL(rig->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot, &err));
	for (uint32_t i = 0; i < CPUS; i++) {
		OK(rig->vcpu_fd[i] =
			   KVM_IOCTL_NUM(rig->vm_fd, KVM_CREATE_VCPU, i, &err));
		OK(arch_vcpu_init(&rig->kvm, rig->vcpu_fd[i], i, &model, &err));
	}
}

static void rig_fini(struct rig *rig)
{
	for (size_t i = 0; i < CPUS; i++)
		close_fd(&rig->vcpu_fd[i]);
	close_fd(&rig->vm_fd);
	munmap(rig->ram, RAM_SIZE);
}

struct snapshot {
	struct x86_vcpu_state vcpu[CPUS];
	struct x86_vm_state vm;
};

static struct snapshot *save(struct rig *rig)
{
	struct snapshot *snap = calloc(1, sizeof(*snap));
	struct error err = { 0 };

	for (uint32_t i = 0; i < CPUS; i++) {
		OK(arch_vcpu_save(&rig->kvm, rig->vcpu_fd[i], &snap->vcpu[i],
				  &err));
		OK(arch_vcpu_check(&rig->kvm, &model, i, &snap->vcpu[i], NULL,
				   &err));
	}
	OK(arch_vm_save(&rig->kvm, rig->vm_fd, &snap->vm, &err));
	OK(arch_vm_check(&rig->kvm, &snap->vm, &err));
	return snap;
}

/* @told: what @rig holds already is read first, and need not be written. */
static struct arch_clock_shift load(struct rig *rig,
				    const struct snapshot *snap, bool told)
{
	struct snapshot *held = told ? save(rig) : NULL;
	struct arch_clock_shift shift;
	struct error err = { 0 };

	OK(arch_vm_load_begin(&rig->kvm, rig->vm_fd, &snap->vm, model.tsc_khz,
			      &shift, &err));
	for (uint32_t i = 0; i < CPUS; i++)
		OK(arch_vcpu_load(&rig->kvm, rig->vcpu_fd[i], &snap->vcpu[i],
				  held ? &held->vcpu[i] : NULL, &shift, &err));
	OK(arch_vm_load_finish(&rig->kvm, rig->vm_fd, &snap->vm, &err));
	free(held);
	return shift;
}

static uint64_t *msr(struct x86_vcpu_state *s, uint32_t index)
{
	for (uint32_t i = 0; i < s->nmsrs; i++)
		if (s->msr_index[i] == index)
			return &s->msr_value[i];
	ck_abort_msg("no MSR 0x%x", index);
}

/*
 * Take out what time changes, after checking how it did. Without offsets KVM
 * may take a TSC that is written for an attempt to synchronise it with the
 * VM's others, so then nothing is known of it.
 */
static void settle(struct snapshot *before, struct snapshot *after,
		   const struct arch_clock_shift *shift)
{
	ck_assert_uint_ge(after->vm.clock.clock_ns, before->vm.clock.clock_ns);
	after->vm.clock = before->vm.clock;
	for (size_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *was = &before->vcpu[i];
		struct x86_vcpu_state *is = &after->vcpu[i];

		if (shift->valid && was->tsc_offset_valid) {
			uint64_t moved = is->tsc_offset - was->tsc_offset;

			/* PVM takes an offset and ignores it. */
			ck_assert(moved == (uint64_t)shift->tsc_delta ||
				  is->tsc_offset == 0);
			ck_assert_uint_ge(*msr(is, MSR_TSC),
					  *msr(was, MSR_TSC));
		}
		*msr(is, MSR_TSC) = *msr(was, MSR_TSC);
		is->tsc_offset = was->tsc_offset;
	}
}

static void assert_same(struct snapshot *before, struct snapshot *after,
			const struct arch_clock_shift *shift)
{
	settle(before, after, shift);
	for (size_t i = 0; i < CPUS; i++) {
		const uint8_t *a = (const uint8_t *)&before->vcpu[i];
		const uint8_t *b = (const uint8_t *)&after->vcpu[i];

		for (size_t at = 0; at < sizeof(before->vcpu[i]); at++)
			ck_assert_msg(a[at] == b[at],
				      "vCPU %zu: byte %zu is 0x%x, was 0x%x", i,
				      at, b[at], a[at]);
	}
	ck_assert_mem_eq(&before->vm, &after->vm, sizeof(before->vm));
}

static void assert_loads(struct rig *rig, struct snapshot *before, bool told,
			 void (*look)(struct rig *rig, struct snapshot *before))
{
	struct arch_clock_shift shift = load(rig, before, told);
	struct snapshot *after;

	if (look)
		look(rig, before);
	after = save(rig);
	assert_same(before, after, &shift);
	free(after);
}

/*
 * Into a fresh VM, which then is made a fresh one again; without and with its
 * being known what that holds. @look, when not NULL, at what was loaded.
 */
static void assert_moves(const struct kvm *kvm, struct snapshot *before,
			 void (*look)(struct rig *rig, struct snapshot *before))
{
	for (int told = 0; told < 2; told++) {
		struct rig rig = { .kvm = *kvm };
		struct snapshot *fresh;

		rig_init(&rig);
		fresh = save(&rig);
		assert_loads(&rig, before, told, look);
		assert_loads(&rig, fresh, told, NULL);
		free(fresh);
		rig_fini(&rig);
	}
}

START_TEST(a_fresh_vm_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	before = save(&a);
	assert_moves(&a.kvm, before, NULL);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/*
 * Real mode: program the PIC, the PIT and an MSR, switch the local APIC to
 * x2APIC, arm its timer far ahead, then leave by a port.
 */
static const uint8_t program[] = {
	0xb0, 0x11, 0xe6, 0x20, /* mov $0x11,%al; out %al,$0x20: ICW1 */
	0xb0, 0x20, 0xe6, 0x21, /* ICW2: vectors from 0x20 */
	0xb0, 0x04, 0xe6, 0x21, /* ICW3 */
	0xb0, 0x01, 0xe6, 0x21, /* ICW4 */
	0xb0, 0xfb, 0xe6, 0x21, /* mask all but the cascade */
	0xb0, 0x36, 0xe6, 0x43, /* PIT channel 0, mode 3 */
	0xb0, 0x34, 0xe6, 0x40, /* count 0x1234 */
	0xb0, 0x12, 0xe6, 0x40, 0x66, 0xb9, 0x74, 0x01, 0, 0, /* mov
								 $0x174,%ecx:
								 SYSENTER_CS */
	0x66, 0xb8, 0x10, 0,	0,    0,    /* mov $0x10,%eax */
	0x66, 0x31, 0xd2,		    /* xor %edx,%edx */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x1b, 0,	0,    0,    /* APIC base */
	0x66, 0xb8, 0x00, 0x0d, 0xe0, 0xfe, /* enable, x2APIC, BSP */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x0f, 0x08, 0,    0,    /* spurious vector */
	0x66, 0xb8, 0xff, 0x01, 0,    0,    /* enabled */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x32, 0x08, 0,    0,    /* LVT timer */
	0x66, 0xb8, 0x40, 0x00, 0x04, 0,    /* TSC deadline, vector 0x40 */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0xe0, 0x06, 0,    0,    /* TSC_DEADLINE */
	0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x66, 0xba, 0, 0, 0,
	0x40,	    /* far ahead */
	0x0f, 0x30, /* wrmsr */
	0xe6, 0x80, /* out %al,$0x80 */
	0xf4,	    /* hlt */
};

static void run_program(struct rig *rig)
{
	struct error err = { 0 };
	struct kvm_regs regs = { .rip = 0, .rflags = 2, .rsp = 0x800 };
	struct kvm_sregs sregs;
	struct kvm_run *run;

	memcpy(rig->ram + CODE, program, sizeof(program));
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_GET_SREGS, &sregs, &err));
	sregs.cs.base = CODE;
	sregs.cs.selector = CODE >> 4;
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_SET_SREGS, &sregs, &err));
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_SET_REGS, &regs, &err));
	run = mmap(NULL, rig->kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   rig->vcpu_fd[0], 0);
	ck_assert_ptr_ne(run, MAP_FAILED);
	OK(KVM_IOCTL_NUM(rig->vcpu_fd[0], KVM_RUN, 0, &err));
	ck_assert_uint_eq(run->exit_reason, KVM_EXIT_IO);
	ck_assert_uint_eq(run->io.port, 0x80);
	run->immediate_exit = 1; /* complete the access */
	ck_assert_int_eq(ioctl(rig->vcpu_fd[0], KVM_RUN, 0), -1);
	run->immediate_exit = 0;
	munmap(run, rig->kvm.run_size);
}

START_TEST(a_vm_that_ran_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
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
	rig_fini(&a);
	kvm_close(&a.kvm);
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
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* Registers that no short program fills. */
static void fill_vcpu(struct x86_vcpu_state *s)
{
	const uint64_t xstate_bv = 3;

	poison(&s->regs, sizeof(s->regs));
	s->regs.rip = 0xfff0;
	s->regs.rflags = 0x8d7;
	for (size_t i = 0; i < 4; i++)
		s->debugregs.dr[i] = 0x1000 * (i + 1);
	s->sregs.cr2 = 0x123456789a;
	s->events.nmi_masked = 1;
	s->events.exception_injected = 1;
	s->events.exception_nr = 14;
	s->events.exception_has_error_code = 1;
	s->events.exception_error_code = 0x1f;
	s->debugregs.dr7 = 0x455;
	s->xcr0 = cpuid_xcr0(&model) & 7;
	s->sregs.cr8 = 3;
	s->lapic[0x80] = 0x30; /* TPR, the same */
	s->lapic[0xa0] = 0x30; /* PPR, which follows */
	s->sregs.seg[X86_FS].base = 0x1234;
	poison(s->xsave + 32, 128); /* x87 */
	for (size_t i = 0; i < 8; i++)
		memset(s->xsave + 32 + 16 * i + 10, 0, 6);
	poison(s->xsave + 160, 256); /* XMM0 to 15 */
	memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));
	*msr(s, 0x277) = 0x0007040600070406;
	*msr(s, 0x200) = 0x80000000;
	*msr(s, 0x201) =
		((1ULL << cpuid_phys_bits(&model)) - 1) & ~0x7ffff7ffULL;
	*msr(s, 0xc0000082) = 0xffffffff81200000;
	*msr(s, 0xc0000102) = 0xffff888000123000;
}

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

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		fill_vcpu(&before->vcpu[i]);
		OK(arch_vcpu_check(&a.kvm, &model, i, &before->vcpu[i], NULL,
				   &err));
	}
	assert_moves(&a.kvm, before, look_at_registers);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
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

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
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
	rig_fini(&a);
	kvm_close(&a.kvm);
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

	if (!have_kvm(&rig.kvm, __func__))
		return;
	rig_init(&rig);
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
	rig_fini(&rig);
	kvm_close(&rig.kvm);
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

	if (!have_kvm(&rig.kvm, __func__))
		return;
	rig_init(&rig);
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
	rig_fini(&rig);
	kvm_close(&rig.kvm);
}
END_TEST

UNIT_SUITE("arch_state", every_byte_of_a_vcpu_survives_the_wire,
	   every_byte_of_a_vm_survives_the_wire, a_possible_vcpu_passes,
	   cr4_may_hold_bits_whose_feature_is_not_in_cpuid,
	   impossible_vcpus_are_refused_by_name, exceptions_must_make_sense,
	   a_host_without_xsave_takes_no_xcr0_but_that_of_a_reset,
	   an_x2apic_id_must_be_the_vcpus_own,
	   impossible_controllers_are_refused_by_name,
	   time_under_way_never_goes_back_nor_leaps,
	   tsc_offsets_shift_by_both_clocks_and_both_tscs,
	   tsc_offsets_are_not_trusted_across_scaling,
	   a_fresh_vm_moves_without_a_difference,
	   a_vm_that_ran_moves_without_a_difference,
	   a_vm_moves_on_a_host_without_xsave,
	   full_registers_move_without_a_difference,
	   one_group_of_registers_moves_where_the_others_are_the_same,
	   msrs_that_are_no_state_are_refused,
	   msrs_that_no_guest_can_write_are_refused)
