// SPDX-License-Identifier: MIT
/*
 * vCPU state between KVM and struct x86_vcpu_state.
 *
 * Two tables hold the order, which is not free:
 *
 *  - Reading the MP state makes KVM take INIT and SIPI events that wait, which
 *    changes everything else: first. Reading the local APIC may move interrupts
 *    into it, and events follow from all the others: last.
 *  - Setting the special registers sets the APIC base and so the APIC's mode,
 *    which the local APIC's registers are read by. The local APIC holds the
 *    timer's mode and the TSC offset its time, on which the TSC deadline
 *    depends. Setting the registers drops exceptions that wait: events last.
 *
 * The CPUID and the TSC's rate are not state: arch_vcpu_init() (vcpu.c) gives
 * them to the vCPU from the model.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/vcpu_events.h"

#define XCR0_RESET 1 /* x87 */

#define LVT_TIMER_DEADLINE (1U << 18) /* SDM 3A 11.5.4 */

struct vcpu_io {
	const struct kvm *kvm;
	int fd;
	/* Loading only. */
	const struct x86_vcpu_state *held; /* what it holds now, or NULL */
	const struct arch_clock_shift *shift;
};

size_t arch_vcpu_state_size(void)
{
	return sizeof(struct x86_vcpu_state);
}

uint32_t arch_vcpu_state_version(void)
{
	return X86_VCPU_STATE_VERSION;
}

/* ---- MP state ---- */

bool arch_vcpu_works(const void *state)
{
	const struct x86_vcpu_state *s = state;

	return s->mp_state == KVM_MP_STATE_RUNNABLE;
}

static int save_mp_state(const struct vcpu_io *io, struct x86_vcpu_state *s,
			 struct error *err)
{
	struct kvm_mp_state mp;
	int rc = KVM_IOCTL(io->fd, KVM_GET_MP_STATE, &mp, err);

	if (rc >= 0)
		s->mp_state = mp.mp_state;
	return rc;
}

static int load_mp_state(const struct vcpu_io *io,
			 const struct x86_vcpu_state *s, struct error *err)
{
	struct kvm_mp_state mp;
	int rc = 0;

	/* A vCPU that has run may hold an INIT that it has not taken yet. */
	if (!io->held)
		rc = KVM_IOCTL(io->fd, KVM_GET_MP_STATE, &mp, err);
	if (rc < 0)
		return rc;
	mp = (struct kvm_mp_state){ .mp_state = s->mp_state };
	return KVM_IOCTL(io->fd, KVM_SET_MP_STATE, &mp, err);
}

/* ---- general registers ---- */

static int save_regs(const struct vcpu_io *io, struct x86_vcpu_state *s,
		     struct error *err)
{
	struct kvm_regs r;
	int rc = KVM_IOCTL(io->fd, KVM_GET_REGS, &r, err);

	if (rc < 0)
		return rc;
	s->regs = (struct x86_regs){
		.rax = r.rax,
		.rbx = r.rbx,
		.rcx = r.rcx,
		.rdx = r.rdx,
		.rsi = r.rsi,
		.rdi = r.rdi,
		.rsp = r.rsp,
		.rbp = r.rbp,
		.r8 = r.r8,
		.r9 = r.r9,
		.r10 = r.r10,
		.r11 = r.r11,
		.r12 = r.r12,
		.r13 = r.r13,
		.r14 = r.r14,
		.r15 = r.r15,
		.rip = r.rip,
		.rflags = r.rflags,
	};
	return 0;
}

static int load_regs(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		     struct error *err)
{
	const struct x86_regs *r = &s->regs;
	struct kvm_regs regs = {
		.rax = r->rax,
		.rbx = r->rbx,
		.rcx = r->rcx,
		.rdx = r->rdx,
		.rsi = r->rsi,
		.rdi = r->rdi,
		.rsp = r->rsp,
		.rbp = r->rbp,
		.r8 = r->r8,
		.r9 = r->r9,
		.r10 = r->r10,
		.r11 = r->r11,
		.r12 = r->r12,
		.r13 = r->r13,
		.r14 = r->r14,
		.r15 = r->r15,
		.rip = r->rip,
		.rflags = r->rflags,
	};

	return KVM_IOCTL(io->fd, KVM_SET_REGS, &regs, err);
}

/* ---- special registers ---- */

static void pack_segment(const struct kvm_segment *k, struct x86_segment *s)
{
	unsigned int attr =
		(k->type & X86_SEG_TYPE) | (k->s ? X86_SEG_S : 0U) |
		(k->dpl & 3U) << X86_SEG_DPL_SHIFT |
		(k->present ? X86_SEG_PRESENT : 0U) |
		(k->avl ? X86_SEG_AVL : 0U) | (k->l ? X86_SEG_L : 0U) |
		(k->db ? X86_SEG_DB : 0U) | (k->g ? X86_SEG_G : 0U) |
		(k->unusable ? X86_SEG_UNUSABLE : 0U);

	*s = (struct x86_segment){ .base = k->base,
				   .limit = k->limit,
				   .selector = k->selector,
				   .attr = (uint16_t)attr };
}

static struct kvm_segment unpack_segment(const struct x86_segment *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->selector,
		.type = s->attr & X86_SEG_TYPE,
		.s = !!(s->attr & X86_SEG_S),
		.dpl = (s->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT,
		.present = !!(s->attr & X86_SEG_PRESENT),
		.avl = !!(s->attr & X86_SEG_AVL),
		.l = !!(s->attr & X86_SEG_L),
		.db = !!(s->attr & X86_SEG_DB),
		.g = !!(s->attr & X86_SEG_G),
		.unusable = !!(s->attr & X86_SEG_UNUSABLE),
	};
}

/* struct kvm_sregs and kvm_sregs2 begin alike, member by member. */
#define PACK_SREGS(k, s)                                     \
	do {                                                 \
		pack_segment(&(k)->cs, &(s)->seg[X86_CS]);   \
		pack_segment(&(k)->ds, &(s)->seg[X86_DS]);   \
		pack_segment(&(k)->es, &(s)->seg[X86_ES]);   \
		pack_segment(&(k)->fs, &(s)->seg[X86_FS]);   \
		pack_segment(&(k)->gs, &(s)->seg[X86_GS]);   \
		pack_segment(&(k)->ss, &(s)->seg[X86_SS]);   \
		pack_segment(&(k)->tr, &(s)->seg[X86_TR]);   \
		pack_segment(&(k)->ldt, &(s)->seg[X86_LDT]); \
		(s)->gdt_base = (k)->gdt.base;               \
		(s)->gdt_limit = (k)->gdt.limit;             \
		(s)->idt_base = (k)->idt.base;               \
		(s)->idt_limit = (k)->idt.limit;             \
		(s)->cr0 = (k)->cr0;                         \
		(s)->cr2 = (k)->cr2;                         \
		(s)->cr3 = (k)->cr3;                         \
		(s)->cr4 = (k)->cr4;                         \
		(s)->cr8 = (k)->cr8;                         \
		(s)->efer = (k)->efer;                       \
		(s)->apic_base = (k)->apic_base;             \
	} while (0)

#define UNPACK_SREGS(k, x)                                     \
	do {                                                   \
		(k)->cs = unpack_segment(&(x)->seg[X86_CS]);   \
		(k)->ds = unpack_segment(&(x)->seg[X86_DS]);   \
		(k)->es = unpack_segment(&(x)->seg[X86_ES]);   \
		(k)->fs = unpack_segment(&(x)->seg[X86_FS]);   \
		(k)->gs = unpack_segment(&(x)->seg[X86_GS]);   \
		(k)->ss = unpack_segment(&(x)->seg[X86_SS]);   \
		(k)->tr = unpack_segment(&(x)->seg[X86_TR]);   \
		(k)->ldt = unpack_segment(&(x)->seg[X86_LDT]); \
		(k)->gdt.base = (x)->gdt_base;                 \
		(k)->gdt.limit = (uint16_t)(x)->gdt_limit;     \
		(k)->idt.base = (x)->idt_base;                 \
		(k)->idt.limit = (uint16_t)(x)->idt_limit;     \
		(k)->cr0 = (x)->cr0;                           \
		(k)->cr2 = (x)->cr2;                           \
		(k)->cr3 = (x)->cr3;                           \
		(k)->cr4 = (x)->cr4;                           \
		(k)->cr8 = (x)->cr8;                           \
		(k)->efer = (x)->efer;                         \
		(k)->apic_base = (x)->apic_base;               \
	} while (0)

/* An injected interrupt is in the events; sregs' bitmap of it isn't used. */
static int save_sregs(const struct vcpu_io *io, struct x86_vcpu_state *s,
		      struct error *err)
{
	struct kvm_sregs2 two;
	struct kvm_sregs one;
	int rc;

	memset(&s->sregs, 0, sizeof(s->sregs));
	if (!io->kvm->has_sregs2) {
		rc = KVM_IOCTL(io->fd, KVM_GET_SREGS, &one, err);
		if (rc >= 0)
			PACK_SREGS(&one, &s->sregs);
		return rc;
	}
	rc = KVM_IOCTL(io->fd, KVM_GET_SREGS2, &two, err);
	if (rc < 0)
		return rc;
	PACK_SREGS(&two, &s->sregs);
	if (two.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) {
		s->sregs.pdptrs_valid = 1;
		for (size_t i = 0; i < ARRAY_SIZE(two.pdptrs); i++)
			s->sregs.pdptrs[i] = two.pdptrs[i];
	}
	return 0;
}

static int load_sregs(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		      struct error *err)
{
	struct kvm_sregs2 two = { 0 };
	struct kvm_sregs one = { 0 };

	if (!io->kvm->has_sregs2) {
		UNPACK_SREGS(&one, &s->sregs);
		return KVM_IOCTL(io->fd, KVM_SET_SREGS, &one, err);
	}
	UNPACK_SREGS(&two, &s->sregs);
	if (s->sregs.pdptrs_valid) {
		two.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		for (size_t i = 0; i < ARRAY_SIZE(two.pdptrs); i++)
			two.pdptrs[i] = s->sregs.pdptrs[i];
	}
	return KVM_IOCTL(io->fd, KVM_SET_SREGS2, &two, err);
}

/* ---- FPU and its kin ---- */

static int save_xsave(const struct vcpu_io *io, struct x86_vcpu_state *s,
		      struct error *err)
{
	_Static_assert(X86_XSAVE_MAX == sizeof(struct kvm_xsave), "XSAVE");
	struct kvm_xsave area;
	int rc;

	/*
	 * KVM_GET_XSAVE2 writes as much as KVM_CAP_XSAVE2 says, which
	 * arch_cpu_model_host() has compared with what there is room for.
	 */
	if (io->kvm->has_xsave2)
		rc = KVM_IOCTL(io->fd, KVM_GET_XSAVE2, &area, err);
	else
		rc = KVM_IOCTL(io->fd, KVM_GET_XSAVE, &area, err);
	if (rc < 0)
		return rc;
	s->xsave_size = sizeof(area);
	memcpy(s->xsave, &area, sizeof(area));
	return 0;
}

static int load_xsave(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		      struct error *err)
{
	struct kvm_xsave area;

	memset(&area, 0, sizeof(area));
	memcpy(&area, s->xsave, MIN((size_t)s->xsave_size, sizeof(area)));
	return KVM_IOCTL(io->fd, KVM_SET_XSAVE, &area, err);
}

static int save_xcrs(const struct vcpu_io *io, struct x86_vcpu_state *s,
		     struct error *err)
{
	struct kvm_xcrs xcrs;
	int rc;

	s->xcr0 = XCR0_RESET;
	if (!io->kvm->has_xcrs)
		return 0;
	rc = KVM_IOCTL(io->fd, KVM_GET_XCRS, &xcrs, err);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < MIN(xcrs.nr_xcrs, (uint32_t)KVM_MAX_XCRS); i++)
		if (xcrs.xcrs[i].xcr == 0)
			s->xcr0 = xcrs.xcrs[i].value;
	return 0;
}

static int load_xcrs(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		     struct error *err)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };

	/* Then there is no XSAVE: what was checked has the value of a reset. */
	if (!io->kvm->has_xcrs)
		return 0;
	return KVM_IOCTL(io->fd, KVM_SET_XCRS, &xcrs, err);
}

/* ---- debug registers ---- */

static int save_debugregs(const struct vcpu_io *io, struct x86_vcpu_state *s,
			  struct error *err)
{
	struct kvm_debugregs d;
	int rc = KVM_IOCTL(io->fd, KVM_GET_DEBUGREGS, &d, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_SIZE(d.db); i++)
		s->debugregs.dr[i] = d.db[i];
	s->debugregs.dr6 = d.dr6;
	s->debugregs.dr7 = d.dr7;
	return 0;
}

static int load_debugregs(const struct vcpu_io *io,
			  const struct x86_vcpu_state *s, struct error *err)
{
	struct kvm_debugregs d = { .dr6 = s->debugregs.dr6,
				   .dr7 = s->debugregs.dr7 };

	for (size_t i = 0; i < ARRAY_SIZE(d.db); i++)
		d.db[i] = s->debugregs.dr[i];
	return KVM_IOCTL(io->fd, KVM_SET_DEBUGREGS, &d, err);
}

/* ---- local APIC ---- */

static int save_lapic(const struct vcpu_io *io, struct x86_vcpu_state *s,
		      struct error *err)
{
	struct kvm_lapic_state lapic = { 0 };
	int rc = KVM_IOCTL(io->fd, KVM_GET_LAPIC, &lapic, err);

	_Static_assert(sizeof(lapic) == X86_LAPIC_SIZE, "local APIC");
	if (rc >= 0)
		memcpy(s->lapic, &lapic, sizeof(lapic));
	return rc;
}

static bool timer_has_deadline(const struct x86_vcpu_state *s)
{
	return x86_lapic_register(s, X86_LAPIC_LVT_TIMER) & LVT_TIMER_DEADLINE;
}

/*
 * Out of deadline mode, KVM takes away the count that comes with the new mode;
 * given once more, it stays.
 */
static bool mode_takes_count(const struct vcpu_io *io,
			     const struct x86_vcpu_state *s)
{
	return io->held && timer_has_deadline(io->held) &&
	       !timer_has_deadline(s);
}

static int load_lapic(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		      struct error *err)
{
	struct kvm_lapic_state lapic;
	int rc = 0;

	memcpy(&lapic, s->lapic, sizeof(lapic));
	if (mode_takes_count(io, s))
		rc = KVM_IOCTL(io->fd, KVM_SET_LAPIC, &lapic, err);
	if (rc < 0)
		return rc;
	return KVM_IOCTL(io->fd, KVM_SET_LAPIC, &lapic, err);
}

/* ---- TSC and MSRs ---- */

static int save_tsc(const struct vcpu_io *io, struct x86_vcpu_state *s,
		    struct error *err)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)&offset,
	};
	struct error ignored;
	int rc = 0;

	/* It was set when the vCPU was made, and never is again. */
	if (!s->tsc_khz)
		rc = KVM_IOCTL_NUM(io->fd, KVM_GET_TSC_KHZ, 0, err);
	if (rc < 0)
		return rc;
	if (!s->tsc_khz)
		s->tsc_khz = (uint32_t)rc;
	/* Kernels before 5.16 don't have it; then the TSC's value counts. */
	rc = KVM_IOCTL(io->fd, KVM_GET_DEVICE_ATTR, &attr, &ignored);
	s->tsc_offset_valid = rc >= 0;
	s->tsc_offset = rc >= 0 ? offset : 0;
	return 0;
}

static bool load_by_offset(const struct vcpu_io *io,
			   const struct x86_vcpu_state *s)
{
	return io->shift->valid && s->tsc_offset_valid;
}

static int load_tsc(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		    struct error *err)
{
	uint64_t offset = s->tsc_offset + (uint64_t)io->shift->tsc_delta;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)&offset,
	};

	if (!load_by_offset(io, s))
		return 0;
	return KVM_IOCTL(io->fd, KVM_SET_DEVICE_ATTR, &attr, err);
}

static int save_msrs(const struct vcpu_io *io, struct x86_vcpu_state *s,
		     struct error *err)
{
	return msr_save(io->kvm, io->fd, s, err);
}

static int load_msrs(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		     struct error *err)
{
	return msr_load(io->fd, s, io->held, !load_by_offset(io, s),
			io->shift->tsc_advance, err);
}

/* ---- events ---- */

static int save_events(const struct vcpu_io *io, struct x86_vcpu_state *s,
		       struct error *err)
{
	return vcpu_events_save(io->fd, &s->events, err);
}

static int load_events(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		       struct error *err)
{
	return vcpu_events_load(io->kvm, io->fd, &s->events, err);
}

/* ---- the order ---- */

typedef int save_step(const struct vcpu_io *io, struct x86_vcpu_state *s,
		      struct error *err);
typedef int load_step(const struct vcpu_io *io, const struct x86_vcpu_state *s,
		      struct error *err);

static save_step *const save_steps[] = {
	save_mp_state,	save_regs,  save_sregs, save_xsave, save_xcrs,
	save_debugregs, save_lapic, save_tsc,	save_msrs,  save_events,
};

/*
 * What a step writes of the state, so that it can be left out where the vCPU
 * holds that already. Those without a size decide for themselves: what they
 * write depends on the clock, too. And who has set the special registers has
 * set some of the local APIC's (CR8 is four bits of its task priority).
 */
#define FIELD(name)                            \
	offsetof(struct x86_vcpu_state, name), \
		sizeof(((struct x86_vcpu_state *)0)->name)

static const struct {
	load_step *load;
	size_t at;
	size_t size;
	bool with_previous;
} load_steps[] = {
	{ load_mp_state, FIELD(mp_state), false },
	{ load_regs, FIELD(regs), false },
	{ load_sregs, FIELD(sregs), false },
	{ load_lapic, FIELD(lapic), true },
	{ load_xsave, FIELD(xsave), false },
	{ load_xcrs, FIELD(xcr0), false },
	{ load_debugregs, FIELD(debugregs), false },
	{ load_tsc, 0, 0, false },
	{ load_msrs, 0, 0, false },
	{ load_events, FIELD(events), false },
};

static bool same(const void *state, const void *held, size_t at, size_t size)
{
	return held && size &&
	       !memcmp((const char *)state + at, (const char *)held + at, size);
}

int arch_vcpu_save(const struct kvm *kvm, int vcpu_fd, void *state,
		   struct error *err)
{
	const struct vcpu_io io = { .kvm = kvm, .fd = vcpu_fd };
	int rc = 0;

	for (size_t i = 0; rc >= 0 && i < ARRAY_SIZE(save_steps); i++)
		rc = save_steps[i](&io, state, err);
	return MIN(rc, 0);
}

int arch_vcpu_load(const struct kvm *kvm, int vcpu_fd, const void *state,
		   const void *held, const struct arch_clock_shift *shift,
		   struct error *err)
{
	const struct vcpu_io io = {
		.kvm = kvm, .fd = vcpu_fd, .held = held, .shift = shift
	};
	bool written = false;
	int rc = 0;

	for (size_t i = 0; rc >= 0 && i < ARRAY_SIZE(load_steps); i++) {
		written = (written && load_steps[i].with_previous) ||
			  !same(state, held, load_steps[i].at,
				load_steps[i].size);
		if (written)
			rc = load_steps[i].load(&io, state, err);
	}
	return MIN(rc, 0);
}
