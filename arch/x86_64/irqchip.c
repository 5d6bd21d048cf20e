// SPDX-License-Identifier: MIT
/*
 * The PC that KVM emulates around the vCPUs: two 8259A, an IOAPIC, an 8254 and
 * where KVM keeps its own pages; and their state.
 *
 * Loading must come last in the VM: controllers deliver what is pending as
 * soon as they are set, and the 8254's channels begin to count.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86_64/layout.h"
#include "arch/x86_64/vm_arch_state.h"

/*
 * Intel processors without unrestricted guest mode run real mode through pages
 * that KVM puts into the guest's address space: a task state segment of three
 * pages and a page table of one. They lie where a PC has its firmware, which
 * godwit hasn't, clear of the APICs at 0xfec00000 and 0xfee00000.
 */
#define KVM_IDENTITY_MAP 0xfffbc000ULL
#define KVM_TSS		 0xfffbd000ULL

#define PIT_MODE_NONE 0xff /* never programmed */

/* Numbers in KVM_GET_IRQCHIP, after the two PICs. */
#define CHIP_IOAPIC 2

/* ---- making a VM ---- */

static int enable(int vm_fd, uint32_t cap, uint64_t arg, struct error *err)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

	if (!kvm_extension(vm_fd, cap))
		return 0;
	return KVM_IOCTL(vm_fd, KVM_ENABLE_CAP, &enable, err);
}

/*
 * What makes state complete, or smaller. x2APIC's 32-bit ids are not asked
 * for, as ids stay below 255, and no quirk is off: nothing here needs it.
 */
static int enable_capabilities(int vm_fd, struct error *err)
{
	/*
	 * Without it, reading the events delivers a pending page fault's
	 * address into CR2, after CR2 was read.
	 */
	int rc = enable(vm_fd, KVM_CAP_EXCEPTION_PAYLOAD, 1, err);

	if (rc >= 0)
		rc = enable(vm_fd, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1, err);
	/* CPUID says that there are no counters; AMD's old four count too. */
	if (rc >= 0)
		rc = enable(vm_fd, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE,
			    err);
	return MIN(rc, 0);
}

int arch_vm_init(const struct kvm *kvm, int vm_fd, struct error *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_clock_data clock = { 0 };
	uint64_t identity = KVM_IDENTITY_MAP;
	int rc;

	(void)kvm;
	rc = KVM_IOCTL_NUM(vm_fd, KVM_SET_TSS_ADDR, KVM_TSS, err);
	if (rc >= 0)
		rc = KVM_IOCTL(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity,
			       err);
	if (rc >= 0)
		rc = enable_capabilities(vm_fd, err);
	if (rc >= 0)
		rc = KVM_IOCTL_NUM(vm_fd, KVM_CREATE_IRQCHIP, 0, err);
	if (rc >= 0)
		rc = KVM_IOCTL(vm_fd, KVM_CREATE_PIT2, &pit, err);
	/* The clock begins; KVM tells no host TSC before it was set once. */
	if (rc >= 0)
		rc = KVM_IOCTL(vm_fd, KVM_SET_CLOCK, &clock, err);
	return MIN(rc, 0);
}

/* ---- 8259A ---- */

static int save_pic(int vm_fd, uint32_t chip, struct x86_pic *pic,
		    struct error *err)
{
	struct kvm_irqchip k = { .chip_id = chip };
	int rc = KVM_IOCTL(vm_fd, KVM_GET_IRQCHIP, &k, err);

	_Static_assert(sizeof(k.chip.pic) == sizeof(*pic), "8259A");
	if (rc >= 0)
		memcpy(pic, &k.chip.pic, sizeof(*pic));
	return rc;
}

static int load_pic(int vm_fd, uint32_t chip, const struct x86_pic *pic,
		    struct error *err)
{
	struct kvm_irqchip k = { .chip_id = chip };

	memcpy(&k.chip.pic, pic, sizeof(*pic));
	return KVM_IOCTL(vm_fd, KVM_SET_IRQCHIP, &k, err);
}

static void visit_pic(struct codec *c, const char *name, struct x86_pic *p)
{
	codec_enter(c, name);
	codec_u8(c, "last_irr", &p->last_irr);
	codec_u8(c, "irr", &p->irr);
	codec_u8(c, "imr", &p->imr);
	codec_u8(c, "isr", &p->isr);
	codec_u8(c, "priority_add", &p->priority_add);
	codec_u8(c, "irq_base", &p->irq_base);
	codec_u8(c, "read_reg_select", &p->read_reg_select);
	codec_u8(c, "poll", &p->poll);
	codec_u8(c, "special_mask", &p->special_mask);
	codec_u8(c, "init_state", &p->init_state);
	codec_u8(c, "auto_eoi", &p->auto_eoi);
	codec_u8(c, "rotate_on_auto_eoi", &p->rotate_on_auto_eoi);
	codec_u8(c, "special_fully_nested_mode", &p->special_fully_nested_mode);
	codec_u8(c, "init4", &p->init4);
	codec_u8(c, "elcr", &p->elcr);
	codec_u8(c, "elcr_mask", &p->elcr_mask);
	codec_leave(c);
}

static int check_max(const char *chip, const char *field, uint64_t value,
		     uint64_t max, struct error *err)
{
	if (value <= max)
		return 0;
	return error_set(err, -EINVAL, "%s: %s is 0x%llx, more than 0x%llx",
			 chip, field, (unsigned long long)value,
			 (unsigned long long)max);
}

/* Intel 8259A data sheet: ICW and OCW formats. */
static int check_pic(const char *chip, const struct x86_pic *p, uint8_t wired,
		     struct error *err)
{
	const struct {
		const char *name;
		uint8_t value, max;
	} fields[] = {
		{ "priority_add", p->priority_add, 7 },
		{ "read_reg_select", p->read_reg_select, 1 },
		{ "poll", p->poll, 4 }, /* KVM keeps the bit of OCW3 */
		{ "special_mask", p->special_mask, 1 },
		{ "init_state", p->init_state, 3 },
		{ "auto_eoi", p->auto_eoi, 1 },
		{ "rotate_on_auto_eoi", p->rotate_on_auto_eoi, 1 },
		{ "special_fully_nested_mode", p->special_fully_nested_mode,
		  1 },
		{ "init4", p->init4, 1 },
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(fields); i++)
		rc = check_max(chip, fields[i].name, fields[i].value,
			       fields[i].max, err);
	if (!rc && (p->irq_base & 7))
		rc = error_set(err, -EINVAL,
			       "%s: irq_base 0x%x is no multiple of 8", chip,
			       p->irq_base);
	if (!rc && p->elcr_mask != wired)
		rc = error_set(err, -EINVAL, "%s: elcr_mask is 0x%x, not 0x%x",
			       chip, p->elcr_mask, wired);
	if (!rc && (p->elcr & ~p->elcr_mask))
		rc = error_set(err, -EINVAL,
			       "%s: elcr 0x%x makes a line level that can't be",
			       chip, p->elcr);
	return rc;
}

/* ---- IOAPIC ---- */

static int save_ioapic(int vm_fd, struct x86_ioapic *s, struct error *err)
{
	struct kvm_irqchip k = { .chip_id = CHIP_IOAPIC };
	int rc = KVM_IOCTL(vm_fd, KVM_GET_IRQCHIP, &k, err);

	_Static_assert(KVM_IOAPIC_NUM_PINS == X86_IOAPIC_PINS, "IOAPIC");
	if (rc < 0)
		return rc;
	*s = (struct x86_ioapic){
		.base_address = k.chip.ioapic.base_address,
		.ioregsel = k.chip.ioapic.ioregsel,
		.id = k.chip.ioapic.id,
		.irr = k.chip.ioapic.irr,
	};
	for (size_t i = 0; i < X86_IOAPIC_PINS; i++)
		s->redirtbl[i] = k.chip.ioapic.redirtbl[i].bits;
	return 0;
}

static int load_ioapic(int vm_fd, const struct x86_ioapic *s, struct error *err)
{
	struct kvm_irqchip k = {
		.chip_id = CHIP_IOAPIC,
		.chip.ioapic.base_address = s->base_address,
		.chip.ioapic.ioregsel = s->ioregsel,
		.chip.ioapic.id = s->id,
		.chip.ioapic.irr = s->irr,
	};

	for (size_t i = 0; i < X86_IOAPIC_PINS; i++)
		k.chip.ioapic.redirtbl[i].bits = s->redirtbl[i];
	return KVM_IOCTL(vm_fd, KVM_SET_IRQCHIP, &k, err);
}

static void visit_ioapic(struct codec *c, struct x86_ioapic *s)
{
	codec_enter(c, "ioapic");
	codec_u64(c, "base_address", &s->base_address);
	codec_u32(c, "ioregsel", &s->ioregsel);
	codec_u32(c, "id", &s->id);
	codec_u32(c, "irr", &s->irr);
	for (unsigned int i = 0; i < X86_IOAPIC_PINS; i++) {
		codec_enter(c, "pin");
		codec_u64(c, "redirection", &s->redirtbl[i]);
		codec_leave(c);
	}
	codec_leave(c);
}

static int check_ioapic(const struct x86_ioapic *s, struct error *err)
{
	int rc = 0;

	if (s->base_address != LAYOUT_IOAPIC)
		rc = error_set(err, -EINVAL,
			       "ioapic: base_address is 0x%llx, not 0x%x",
			       (unsigned long long)s->base_address,
			       LAYOUT_IOAPIC);
	if (!rc)
		rc = check_max("ioapic", "ioregsel", s->ioregsel, 0xff, err);
	if (!rc)
		rc = check_max("ioapic", "id", s->id, 0xf, err);
	if (!rc)
		rc = check_max("ioapic", "irr", s->irr,
			       (1U << X86_IOAPIC_PINS) - 1, err);
	return rc;
}

/* ---- 8254 ---- */

static int save_pit(int vm_fd, struct x86_pit *s, struct error *err)
{
	struct kvm_pit_state2 k = { 0 };
	int rc = KVM_IOCTL(vm_fd, KVM_GET_PIT2, &k, err);

	if (rc < 0)
		return rc;
	s->flags = k.flags;
	for (size_t i = 0; i < X86_PIT_CHANNELS; i++) {
		const struct kvm_pit_channel_state *ch = &k.channels[i];

		s->channel[i] = (struct x86_pit_channel){
			.count = ch->count,
			.latched_count = ch->latched_count,
			.count_latched = ch->count_latched,
			.status_latched = ch->status_latched,
			.status = ch->status,
			.read_state = ch->read_state,
			.write_state = ch->write_state,
			.write_latch = ch->write_latch,
			.rw_mode = ch->rw_mode,
			.mode = ch->mode,
			.bcd = ch->bcd,
			.gate = ch->gate,
		};
	}
	return 0;
}

static int load_pit(int vm_fd, const struct x86_pit *s, struct error *err)
{
	struct kvm_pit_state2 k = { .flags = s->flags };

	for (size_t i = 0; i < X86_PIT_CHANNELS; i++) {
		const struct x86_pit_channel *ch = &s->channel[i];

		k.channels[i] = (struct kvm_pit_channel_state){
			.count = ch->count,
			.latched_count = ch->latched_count,
			.count_latched = ch->count_latched,
			.status_latched = ch->status_latched,
			.status = ch->status,
			.read_state = ch->read_state,
			.write_state = ch->write_state,
			.write_latch = ch->write_latch,
			.rw_mode = ch->rw_mode,
			.mode = ch->mode,
			.bcd = ch->bcd,
			.gate = ch->gate,
		};
	}
	return KVM_IOCTL(vm_fd, KVM_SET_PIT2, &k, err);
}

static void visit_pit(struct codec *c, struct x86_pit *s)
{
	codec_enter(c, "pit");
	for (size_t i = 0; i < X86_PIT_CHANNELS; i++) {
		struct x86_pit_channel *ch = &s->channel[i];

		codec_enter(c, "channel");
		codec_u32(c, "count", &ch->count);
		codec_u16(c, "latched_count", &ch->latched_count);
		codec_u8(c, "count_latched", &ch->count_latched);
		codec_u8(c, "status_latched", &ch->status_latched);
		codec_u8(c, "status", &ch->status);
		codec_u8(c, "read_state", &ch->read_state);
		codec_u8(c, "write_state", &ch->write_state);
		codec_u8(c, "write_latch", &ch->write_latch);
		codec_u8(c, "rw_mode", &ch->rw_mode);
		codec_u8(c, "mode", &ch->mode);
		codec_u8(c, "bcd", &ch->bcd);
		codec_u8(c, "gate", &ch->gate);
		codec_leave(c);
	}
	codec_u32(c, "flags", &s->flags);
	codec_leave(c);
}

/* Intel 8254 data sheet: control word; states are KVM's byte sequencers. */
static int check_channel(const struct x86_pit_channel *ch, struct error *err)
{
	const struct {
		const char *name;
		uint8_t value, max;
	} fields[] = {
		{ "count_latched", ch->count_latched, 4 },
		{ "status_latched", ch->status_latched, 1 },
		{ "read_state", ch->read_state, 4 },
		{ "write_state", ch->write_state, 4 },
		{ "rw_mode", ch->rw_mode, 4 },
		{ "bcd", ch->bcd, 1 },
		{ "gate", ch->gate, 1 },
	};
	int rc = check_max("pit", "count", ch->count, 65536, err);

	/* KVM divides by it. */
	if (!rc && !ch->count)
		rc = error_set(err, -EINVAL, "pit: count is 0");
	for (size_t i = 0; !rc && i < ARRAY_SIZE(fields); i++)
		rc = check_max("pit", fields[i].name, fields[i].value,
			       fields[i].max, err);
	if (!rc && ch->mode != PIT_MODE_NONE)
		rc = check_max("pit", "mode", ch->mode, 5, err);
	return rc;
}

static int check_pit(const struct x86_pit *s, struct error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < X86_PIT_CHANNELS; i++)
		rc = check_channel(&s->channel[i], err);
	/* There is no HPET to take its place. */
	if (!rc)
		rc = check_max("pit", "flags",
			       s->flags &
				       ~(uint32_t)KVM_PIT_FLAGS_SPEAKER_DATA_ON,
			       0, err);
	return rc;
}

/* ---- the whole ---- */

size_t arch_vm_state_size(void)
{
	return sizeof(struct x86_vm_state);
}

uint32_t arch_vm_state_version(void)
{
	return X86_VM_STATE_VERSION;
}

int arch_vm_save(const struct kvm *kvm, int vm_fd, void *state,
		 struct error *err)
{
	struct x86_vm_state *s = state;
	int rc = save_pit(vm_fd, &s->pit, err);

	if (rc >= 0)
		rc = clock_save(kvm, vm_fd, &s->clock, err);
	for (uint32_t i = 0; rc >= 0 && i < X86_NPICS; i++)
		rc = save_pic(vm_fd, i, &s->pic[i], err);
	if (rc >= 0)
		rc = save_ioapic(vm_fd, &s->ioapic, err);
	return MIN(rc, 0);
}

void arch_vm_visit(struct codec *c, void *state)
{
	struct x86_vm_state *s = state;

	clock_visit(c, &s->clock);
	visit_pic(c, "pic0", &s->pic[0]);
	visit_pic(c, "pic1", &s->pic[1]);
	visit_ioapic(c, &s->ioapic);
	visit_pit(c, &s->pit);
}

int arch_vm_check(const struct kvm *kvm, const void *state, struct error *err)
{
	/* Lines that may be level-triggered, as the ISA bus is wired. */
	static const uint8_t elcr_masks[X86_NPICS] = { 0xf8, 0xde };
	static const char *const names[X86_NPICS] = { "pic0", "pic1" };
	const struct x86_vm_state *s = state;
	int rc = clock_check(&s->clock, err);

	(void)kvm;
	for (size_t i = 0; !rc && i < X86_NPICS; i++)
		rc = check_pic(names[i], &s->pic[i], elcr_masks[i], err);
	if (!rc)
		rc = check_ioapic(&s->ioapic, err);
	if (!rc)
		rc = check_pit(&s->pit, err);
	return rc;
}

int arch_vm_load_finish(const struct kvm *kvm, int vm_fd, const void *state,
			struct error *err)
{
	const struct x86_vm_state *s = state;
	int rc = load_pit(vm_fd, &s->pit, err);

	(void)kvm;
	for (uint32_t i = 0; rc >= 0 && i < X86_NPICS; i++)
		rc = load_pic(vm_fd, i, &s->pic[i], err);
	if (rc >= 0)
		rc = load_ioapic(vm_fd, &s->ioapic, err);
	return MIN(rc, 0);
}
