// SPDX-License-Identifier: MIT
/*
 * Could a vCPU of this model be in this state, and can this host load it?
 *
 * A state comes from a peer. KVM would refuse much of what is impossible, but
 * as "invalid argument", and late; and what it accepts may still fail at the
 * first entry. So each group is checked here, by the rules of the processor
 * manuals, and the first fault is named. The rules are no stricter than what a
 * guest can reach: whatever godwit has saved passes.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/msr.h"

/* CR0, SDM 3A 2.5 */
#define CR0_PE	(1ULL << 0)
#define CR0_NW	(1ULL << 29)
#define CR0_CD	(1ULL << 30)
#define CR0_ALL 0xe005003fULL

#define CR4_PAE	    (1ULL << 5)
#define CR4_PCIDE   (1ULL << 17)
#define CR3_LAM	    (3ULL << 61)
#define CR4_OSXSAVE (1ULL << 18)

/* EFER, SDM 3A 2.2.1, APM 2 3.1.7 */
#define EFER_SCE      (1ULL << 0)
#define EFER_LME      (1ULL << 8)
#define EFER_NX	      (1ULL << 11)
#define EFER_LMSLE    (1ULL << 13)
#define EFER_FFXSR    (1ULL << 14)
#define EFER_TCE      (1ULL << 15)
#define EFER_AUTOIBRS (1ULL << 21)
#define EFER_ALL                                                     \
	(EFER_SCE | EFER_LME | X86_EFER_LMA | EFER_NX | EFER_LMSLE | \
	 EFER_FFXSR | EFER_TCE | EFER_AUTOIBRS)

/* RFLAGS: always one, and those that are always zero, SDM 1 3.4.3 */
#define RFLAGS_ONE  (1ULL << 1)
#define RFLAGS_ZERO (~0x3f7fd7ULL)
#define RFLAGS_VM   (1ULL << 17)

/* APIC base, SDM 3A 11.4.4 */
#define APIC_BASE_X2APIC   (1ULL << 10)
#define APIC_BASE_ENABLE   (1ULL << 11)
#define APIC_BASE_RESERVED 0x2ffULL

/* Offsets in the local APIC's page and in an XSAVE area */
#define LAPIC_ID	    0x20
#define XSAVE_MXCSR	    24
#define XSAVE_XSTATE_BV	    512
#define XSAVE_XCOMP_BV	    520
#define XSAVE_HEADER_ZEROES 528
#define XSAVE_HEADER_END    576

#define VECTOR_NMI     2
#define VECTOR_MAX_EXC 31

struct check {
	const struct kvm *kvm;
	const struct arch_cpu_model *model;
	uint32_t index;
	const struct x86_vcpu_state *s;
	const struct x86_vcpu_state *held;
};

static int bad(struct error *err, const char *what, uint64_t value,
	       const char *why)
{
	return error_set(err, -EINVAL, "%s is 0x%llx: %s", what,
			 (unsigned long long)value, why);
}

/* Are the bits from the top linear address bit on all the same? */
static bool canonical(uint64_t address, unsigned int bits)
{
	int64_t top = (int64_t)address >> (bits - 1);

	return top == 0 || top == -1;
}

/* ---- control registers ---- */

/*
 * CR4 bits that a guest may have set. Whether it may without the feature in its
 * CPUID is for KVM to say, when the state is loaded for practice: KVM_SET_SREGS
 * refuses what this host's KVM keeps guests from, and some KVMs let them set
 * OSXSAVE or FSGSBASE all the same.
 */
#define CR4_BIT(n) (1ULL << (n))
#define CR4_KNOWN                                                    \
	(0x7ffULL /* VME to OSXMMEXCPT */ | CR4_BIT(11) /* UMIP */ | \
	 CR4_BIT(12) /* LA57 */ | CR4_BIT(16) /* FSGSBASE */ |       \
	 CR4_BIT(17) /* PCIDE */ | CR4_BIT(18) /* OSXSAVE */ |       \
	 CR4_BIT(20) /* SMEP */ | CR4_BIT(21) /* SMAP */ |           \
	 CR4_BIT(22) /* PKE */ | CR4_BIT(28) /* LAM_SUP */)

static int check_cr0(const struct x86_sregs *s, struct error *err)
{
	if (s->cr0 & ~CR0_ALL)
		return bad(err, "cr0", s->cr0, "reserved bits are set");
	if ((s->cr0 & X86_CR0_PG) && !(s->cr0 & CR0_PE))
		return bad(err, "cr0", s->cr0, "paging without protection");
	if ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD))
		return bad(err, "cr0", s->cr0, "NW without CD");
	return 0;
}

static int check_cr3(const struct check *c, bool wide, struct error *err)
{
	const struct x86_sregs *s = &c->s->sregs;
	uint64_t allowed = (1ULL << cpuid_phys_bits(c->model)) - 1;

	if (cpuid_has(c->model, 7, 1, CPUID_EAX, 26))
		allowed |= CR3_LAM;
	if ((wide || (s->cr0 & X86_CR0_PG)) && (s->cr3 & ~allowed))
		return bad(err, "cr3", s->cr3,
			   "beyond the guest's physical addresses");
	return 0;
}

/* SDM 3A 4.1 and 10.8.5: which modes exist. */
static int check_mode(const struct check *c, struct error *err)
{
	const struct x86_sregs *s = &c->s->sregs;
	bool paging = s->cr0 & X86_CR0_PG;
	bool wide = paging && (s->efer & EFER_LME);

	if (s->cr4 & ~CR4_KNOWN)
		return bad(err, "cr4", s->cr4, "reserved bits are set");
	if (s->efer & ~EFER_ALL)
		return bad(err, "efer", s->efer, "reserved bits are set");
	if (!!(s->efer & X86_EFER_LMA) != wide)
		return bad(err, "efer", s->efer,
			   "LMA doesn't agree with LME and paging");
	if (wide && !(s->cr4 & CR4_PAE))
		return bad(err, "cr4", s->cr4, "long mode without PAE");
	if (!wide && (s->seg[X86_CS].attr & X86_SEG_L))
		return bad(err, "cs.attr", s->seg[X86_CS].attr,
			   "64-bit code outside long mode");
	if (!wide && (s->cr4 & CR4_PCIDE))
		return bad(err, "cr4", s->cr4, "PCIDE outside long mode");
	if (s->cr8 > 15)
		return bad(err, "cr8", s->cr8, "more than 15");
	if (s->pdptrs_valid > 1)
		return bad(err, "pdptrs_valid", s->pdptrs_valid,
			   "neither 0 nor 1");
	if (s->pdptrs_valid && (!paging || wide || !(s->cr4 & CR4_PAE)))
		return bad(err, "pdptrs_valid", s->pdptrs_valid,
			   "not in PAE paging");
	return check_cr3(c, wide, err);
}

/* ---- segments and tables ---- */

static int check_segments(const struct check *c, struct error *err)
{
	static const char *const names[X86_NSEGMENTS] = {
		"cs.base", "ds.base", "es.base", "fs.base",
		"gs.base", "ss.base", "tr.base", "ldt.base",
	};
	const struct x86_sregs *s = &c->s->sregs;
	unsigned int bits = cpuid_linear_bits(c->model);

	for (size_t i = 0; i < X86_NSEGMENTS; i++) {
		bool wide = i == X86_FS || i == X86_GS || i == X86_TR ||
			    i == X86_LDT;
		uint64_t base = s->seg[i].base;

		if (s->seg[i].attr & ~X86_SEG_ALL)
			return bad(err, "segment attributes", s->seg[i].attr,
				   "reserved bits are set");
		if (wide ? !canonical(base, bits) : base >> 32 != 0)
			return bad(err, names[i], base,
				   "no address that it can have");
	}
	if (!canonical(s->gdt_base, bits))
		return bad(err, "gdt_base", s->gdt_base, "not canonical");
	if (!canonical(s->idt_base, bits))
		return bad(err, "idt_base", s->idt_base, "not canonical");
	if (s->gdt_limit > 0xffff)
		return bad(err, "gdt_limit", s->gdt_limit, "over 0xffff");
	if (s->idt_limit > 0xffff)
		return bad(err, "idt_limit", s->idt_limit, "over 0xffff");
	return 0;
}

static int check_sregs(const struct check *c, struct error *err)
{
	int rc = check_cr0(&c->s->sregs, err);

	if (!rc)
		rc = check_mode(c, err);
	if (!rc)
		rc = check_segments(c, err);
	return rc;
}

/* ---- MP state and general registers ---- */

static int check_mp_state(const struct check *c, struct error *err)
{
	uint32_t mp = c->s->mp_state;

	/* SIPI_RECEIVED is gone once KVM has been asked for the state. */
	if (mp != KVM_MP_STATE_RUNNABLE && mp != KVM_MP_STATE_UNINITIALIZED &&
	    mp != KVM_MP_STATE_INIT_RECEIVED && mp != KVM_MP_STATE_HALTED)
		return bad(err, "mp_state", mp, "no state of a vCPU at rest");
	if (c->index == 0 && mp != KVM_MP_STATE_RUNNABLE &&
	    mp != KVM_MP_STATE_HALTED)
		return bad(err, "mp_state", mp,
			   "the boot processor doesn't wait to be started");
	return 0;
}

static int check_regs(const struct check *c, struct error *err)
{
	const struct x86_regs *r = &c->s->regs;

	if (!(r->rflags & RFLAGS_ONE) || (r->rflags & RFLAGS_ZERO))
		return bad(err, "rflags", r->rflags,
			   "reserved bits are not what they always are");
	if ((r->rflags & RFLAGS_VM) && (c->s->sregs.efer & X86_EFER_LMA))
		return bad(err, "rflags", r->rflags,
			   "virtual-8086 in long mode");
	/* One bit more than canonical: execution can run off the end. */
	if (!canonical(r->rip, cpuid_linear_bits(c->model) + 1))
		return bad(err, "rip", r->rip, "not canonical");
	return 0;
}

/* ---- XSAVE ---- */

static uint64_t load64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* SDM 1 13.3: which combinations of XCR0 there are. */
static int check_xcr0(const struct check *c, struct error *err)
{
	uint64_t xcr0 = c->s->xcr0;

	if (xcr0 & ~cpuid_xcr0(c->model))
		return bad(err, "xcr0", xcr0,
			   "components that the guest's processor lacks");
	if (!(xcr0 & 1))
		return bad(err, "xcr0", xcr0, "without x87");
	if ((xcr0 & 4) && !(xcr0 & 2))
		return bad(err, "xcr0", xcr0, "AVX without SSE");
	if ((xcr0 & 0xe0) && (xcr0 & 0xe6) != 0xe6)
		return bad(err, "xcr0", xcr0, "half of AVX-512");
	if (xcr0 != 1 && !c->kvm->has_xcrs)
		return error_set(err, -ENOTSUP,
				 "xcr0 is 0x%llx, and this host's processor "
				 "has no XSAVE",
				 (unsigned long long)xcr0);
	return 0;
}

/* SDM 1 13.4.2: the header; the standard format has no XCOMP_BV. */
static int check_xsave(const struct check *c, struct error *err)
{
	const uint8_t *area = c->s->xsave;
	uint32_t allowed = 0xffff;
	uint32_t mxcsr;

	if (c->s->xsave_size < XSAVE_HEADER_END ||
	    c->s->xsave_size > X86_XSAVE_MAX)
		return bad(err, "xsave size", c->s->xsave_size,
			   "not between 576 and 4096");
	if (load64(area + XSAVE_XSTATE_BV) & ~cpuid_xcr0(c->model))
		return bad(err, "xsave xstate_bv",
			   load64(area + XSAVE_XSTATE_BV),
			   "components that the guest's processor lacks");
	if (load64(area + XSAVE_XCOMP_BV))
		return bad(err, "xsave xcomp_bv", load64(area + XSAVE_XCOMP_BV),
			   "not the standard format");
	for (size_t i = XSAVE_HEADER_ZEROES; i < XSAVE_HEADER_END; i++)
		if (area[i])
			return bad(err, "xsave header", area[i],
				   "reserved bytes are set");
	/* AMD's MM bit comes with misalignsse, APM 1 4.2.2. */
	if (cpuid_has(c->model, 0x80000001, 0, CPUID_ECX, 7))
		allowed |= 1U << 17;
	memcpy(&mxcsr, area + XSAVE_MXCSR, sizeof(mxcsr));
	if (mxcsr & ~allowed)
		return bad(err, "xsave mxcsr", mxcsr, "reserved bits are set");
	return check_xcr0(c, err);
}

/* ---- the rest ---- */

static int check_debugregs(const struct check *c, struct error *err)
{
	if (c->s->debugregs.dr6 >> 32)
		return bad(err, "dr6", c->s->debugregs.dr6,
			   "the upper half is set");
	if (c->s->debugregs.dr7 >> 32)
		return bad(err, "dr7", c->s->debugregs.dr7,
			   "the upper half is set");
	return 0;
}

static int check_lapic(const struct check *c, struct error *err)
{
	uint64_t base = c->s->sregs.apic_base;
	uint64_t over = ~((1ULL << cpuid_phys_bits(c->model)) - 1);
	bool x2apic = base & APIC_BASE_X2APIC;
	uint32_t id;

	if (base & (over | APIC_BASE_RESERVED))
		return bad(err, "apic_base", base, "reserved bits are set");
	if (x2apic && !(base & APIC_BASE_ENABLE))
		return bad(err, "apic_base", base, "x2APIC of a disabled APIC");
	if (x2apic && !cpuid_has(c->model, 1, 0, CPUID_ECX, 21))
		return bad(err, "apic_base", base,
			   "the guest's processor has no x2APIC");
	/* In xAPIC mode the id is the guest's to write. */
	memcpy(&id, c->s->lapic + LAPIC_ID, sizeof(id));
	if (x2apic && id != c->index << 24)
		return bad(err, "local APIC id", id, "another vCPU's");
	return 0;
}

static int check_tsc(const struct check *c, struct error *err)
{
	if (c->s->tsc_offset_valid > 1)
		return bad(err, "tsc_offset_valid", c->s->tsc_offset_valid,
			   "neither 0 nor 1");
	if (!tsc_khz_same(c->s->tsc_khz, c->model->tsc_khz))
		return error_set(err, -EINVAL,
				 "tsc_khz is %u, and the machine's %u",
				 c->s->tsc_khz, c->model->tsc_khz);
	return 0;
}

static int check_exception(const struct x86_events *e, struct error *err)
{
	bool any = e->exception_injected || e->exception_pending;

	/* Without payloads KVM says "injected" of pending ones too. */
	if ((e->valid & KVM_VCPUEVENT_VALID_PAYLOAD) && e->exception_injected &&
	    e->exception_pending)
		return bad(err, "exception", e->exception_nr,
			   "both injected and pending");
	if (any &&
	    (e->exception_nr > VECTOR_MAX_EXC || e->exception_nr == VECTOR_NMI))
		return bad(err, "exception", e->exception_nr,
			   "no vector of an exception");
	if (e->exception_has_payload && !e->exception_pending)
		return bad(err, "exception payload", e->exception_payload,
			   "of no pending exception");
	return 0;
}

/* Can this host take all of it? */
static int check_events_host(const struct check *c, struct error *err)
{
	const struct x86_events *e = &c->s->events;

	if (e->exception_has_payload && !c->kvm->has_exception_payload)
		return error_set(err, -ENOTSUP,
				 "an exception is pending with its payload, "
				 "and this host's KVM has no "
				 "KVM_CAP_EXCEPTION_PAYLOAD");
	if (e->triple_fault_pending && !c->kvm->has_triple_fault_event)
		return error_set(err, -ENOTSUP,
				 "a triple fault is pending, and this host's "
				 "KVM has no KVM_CAP_X86_TRIPLE_FAULT_EVENT");
	if ((e->smi_smm || e->smi_pending || e->smi_inside_nmi) &&
	    !c->kvm->has_smm)
		return error_set(err, -ENOTSUP,
				 "the guest is in system management mode, and "
				 "this host's KVM has none");
	return 0;
}

static int check_events(const struct check *c, struct error *err)
{
	const struct x86_events *e = &c->s->events;
	const uint8_t flags[] = {
		e->exception_injected,
		e->exception_pending,
		e->exception_has_error_code,
		e->exception_has_payload,
		e->interrupt_injected,
		e->interrupt_soft,
		e->nmi_injected,
		e->nmi_masked,
		e->smi_smm,
		e->smi_pending,
		e->smi_inside_nmi,
		e->smi_latched_init,
		e->triple_fault_pending,
	};
	const uint32_t known =
		KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD |
		KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	int rc;

	if (e->valid & ~known)
		return bad(err, "events.valid", e->valid, "unknown flags");
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i] > 1)
			return bad(err, "a flag of the events", flags[i],
				   "neither 0 nor 1");
	if (e->interrupt_shadow & ~3)
		return bad(err, "interrupt_shadow", e->interrupt_shadow,
			   "neither STI nor MOV SS");
	if (e->nmi_pending > 2)
		return bad(err, "nmi_pending", e->nmi_pending,
			   "two NMIs can wait at most");
	rc = check_exception(e, err);
	if (!rc)
		rc = check_events_host(c, err);
	return rc;
}

typedef int check_step(const struct check *c, struct error *err);

static int check_msrs(const struct check *c, struct error *err)
{
	return msr_check(c->kvm, c->model, c->s, c->held, err);
}

static check_step *const steps[] = {
	check_mp_state, check_sregs, check_regs,   check_xsave, check_debugregs,
	check_lapic,	check_tsc,   check_events, check_msrs,
};

int arch_vcpu_check(const struct kvm *kvm, const struct arch_cpu_model *model,
		    uint32_t index, const void *state, const void *held,
		    struct error *err)
{
	const struct check c = { .kvm = kvm,
				 .model = model,
				 .index = index,
				 .s = state,
				 .held = held };
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(steps); i++)
		rc = steps[i](&c, err);
	return rc;
}
