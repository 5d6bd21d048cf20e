// SPDX-License-Identifier: MIT
/*
 * The wire form of a vCPU's state: every register by name, in a fixed order.
 */
#include "arch/x86_64/vcpu_state.h"

#define U64(c, s, field) codec_u64((c), #field, &(s)->field)
#define U32(c, s, field) codec_u32((c), #field, &(s)->field)
#define U8(c, s, field)	 codec_u8((c), #field, &(s)->field)

static void visit_regs(struct codec *c, struct x86_regs *r)
{
	codec_enter(c, "regs");
	U64(c, r, rax);
	U64(c, r, rbx);
	U64(c, r, rcx);
	U64(c, r, rdx);
	U64(c, r, rsi);
	U64(c, r, rdi);
	U64(c, r, rsp);
	U64(c, r, rbp);
	U64(c, r, r8);
	U64(c, r, r9);
	U64(c, r, r10);
	U64(c, r, r11);
	U64(c, r, r12);
	U64(c, r, r13);
	U64(c, r, r14);
	U64(c, r, r15);
	U64(c, r, rip);
	U64(c, r, rflags);
	codec_leave(c);
}

static void visit_sregs(struct codec *c, struct x86_sregs *s)
{
	static const char *const names[] = { "cs", "ds", "es", "fs",
					     "gs", "ss", "tr", "ldt" };
	static const char *const pdptrs[] = { "pdptr0", "pdptr1", "pdptr2",
					      "pdptr3" };

	_Static_assert(ARRAY_SIZE(names) == X86_NSEGMENTS, "segment names");
	codec_enter(c, "sregs");
	for (size_t i = 0; i < X86_NSEGMENTS; i++) {
		struct x86_segment *seg = &s->seg[i];

		codec_enter(c, names[i]);
		U64(c, seg, base);
		U32(c, seg, limit);
		codec_u16(c, "selector", &seg->selector);
		codec_u16(c, "attr", &seg->attr);
		codec_leave(c);
	}
	U64(c, s, gdt_base);
	U32(c, s, gdt_limit);
	U64(c, s, idt_base);
	U32(c, s, idt_limit);
	U64(c, s, cr0);
	U64(c, s, cr2);
	U64(c, s, cr3);
	U64(c, s, cr4);
	U64(c, s, cr8);
	U64(c, s, efer);
	U64(c, s, apic_base);
	U64(c, s, pdptrs_valid);
	for (size_t i = 0; i < ARRAY_SIZE(pdptrs); i++)
		codec_u64(c, pdptrs[i], &s->pdptrs[i]);
	codec_leave(c);
}

static void visit_debugregs(struct codec *c, struct x86_debugregs *d)
{
	static const char *const names[] = { "dr0", "dr1", "dr2", "dr3" };

	codec_enter(c, "debugregs");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		codec_u64(c, names[i], &d->dr[i]);
	U64(c, d, dr6);
	U64(c, d, dr7);
	codec_leave(c);
}

static void visit_events(struct codec *c, struct x86_events *e)
{
	codec_enter(c, "events");
	U32(c, e, valid);
	U8(c, e, exception_injected);
	U8(c, e, exception_pending);
	U8(c, e, exception_nr);
	U8(c, e, exception_has_error_code);
	U32(c, e, exception_error_code);
	U8(c, e, exception_has_payload);
	U64(c, e, exception_payload);
	U8(c, e, interrupt_injected);
	U8(c, e, interrupt_nr);
	U8(c, e, interrupt_soft);
	U8(c, e, interrupt_shadow);
	U8(c, e, nmi_injected);
	U8(c, e, nmi_pending);
	U8(c, e, nmi_masked);
	U8(c, e, smi_smm);
	U8(c, e, smi_pending);
	U8(c, e, smi_inside_nmi);
	U8(c, e, smi_latched_init);
	U8(c, e, triple_fault_pending);
	codec_leave(c);
}

static void visit_msrs(struct codec *c, struct x86_vcpu_state *s)
{
	codec_count(c, "msrs", &s->nmsrs, X86_MSRS_MAX);
	for (uint32_t i = 0; i < s->nmsrs; i++) {
		codec_enter(c, "msr");
		codec_u32(c, "index", &s->msr_index[i]);
		codec_u64(c, "value", &s->msr_value[i]);
		codec_leave(c);
	}
}

void arch_vcpu_visit(struct codec *c, void *state)
{
	struct x86_vcpu_state *s = state;

	U32(c, s, mp_state);
	visit_regs(c, &s->regs);
	visit_sregs(c, &s->sregs);
	U64(c, s, xcr0);
	codec_blob(c, "xsave", s->xsave, &s->xsave_size, X86_XSAVE_MAX);
	visit_debugregs(c, &s->debugregs);
	codec_bytes(c, "lapic", s->lapic, sizeof(s->lapic));
	U32(c, s, tsc_khz);
	U32(c, s, tsc_offset_valid);
	U64(c, s, tsc_offset);
	visit_msrs(c, s);
	visit_events(c, &s->events);
}
