// SPDX-License-Identifier: MIT
/*
 * The guest's processor: made from what this host's KVM supports, filtered by
 * the tables of cpuid_table.c, with a topology of one socket, as many cores as
 * there are vCPUs, and one thread a core. APIC ids count from 0 without gaps,
 * as the ACPI tables say too.
 *
 * A model depends on the host and the number of vCPUs only. What differs
 * between the vCPUs of a guest is patched into a copy as each is made.
 *
 * Hostile models are dealt with in cpuid_check.c.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/cpu.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/vcpu_state.h"

/* KVM's own leaves, Documentation/virt/kvm/x86/cpuid.rst. */
#define KVM_LEAF_SIGNATURE 0x40000000U
#define KVM_LEAF_FEATURES  0x40000001U

const struct kvm_cpuid_entry2 *cpuid_find(const struct arch_cpu_model *model,
					  uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < model->nentries; i++)
		if (model->entries[i].function == function &&
		    model->entries[i].index == index)
			return &model->entries[i];
	return NULL;
}

bool cpuid_has(const struct arch_cpu_model *model, uint32_t function,
	       uint32_t index, enum cpuid_reg reg, unsigned int bit)
{
	const struct kvm_cpuid_entry2 *entry =
		cpuid_find(model, function, index);

	return entry && (cpuid_reg_get(entry, reg) >> bit & 1);
}

unsigned int cpuid_phys_bits(const struct arch_cpu_model *model)
{
	const struct kvm_cpuid_entry2 *entry = cpuid_find(model, 0x80000008, 0);

	return entry ? entry->eax & 0xff : 36;
}

unsigned int arch_cpu_address_bits(const struct arch_cpu_model *model)
{
	return cpuid_phys_bits(model);
}

unsigned int cpuid_linear_bits(const struct arch_cpu_model *model)
{
	return cpuid_has(model, 7, 0, CPUID_ECX, 16) ? 57 : 48;
}

uint64_t cpuid_xcr0(const struct arch_cpu_model *model)
{
	const struct kvm_cpuid_entry2 *entry = cpuid_find(model, 0xd, 0);

	return (entry ? entry->eax : 0) | 3; /* x87 and SSE always */
}

bool tsc_khz_same(uint32_t a, uint32_t b)
{
	uint64_t apart = a > b ? a - b : b - a;

	return apart * 1000000 <= (uint64_t)b * TSC_TOLERANCE_PPM;
}

/* ---- building a model ---- */

struct builder {
	struct arch_cpu_model *model;
	uint32_t cpus;
	bool amd; /* or Hygon */
};

/* The smallest n with 2^n >= value. */
static uint32_t order(uint32_t value)
{
	uint32_t bits = 0;

	while ((1U << bits) < value)
		bits++;
	return bits;
}

static struct kvm_cpuid_entry2 *find(struct builder *b, uint32_t function,
				     uint32_t index)
{
	return (struct kvm_cpuid_entry2 *)(uintptr_t)cpuid_find(
		b->model, function, index);
}

static int add(struct builder *b, const struct kvm_cpuid_entry2 *entry,
	       struct error *err)
{
	if (b->model->nentries == ARCH_CPUID_MAX)
		return error_set(err, -ENOTSUP,
				 "KVM offers more than %d CPUID leaves",
				 ARCH_CPUID_MAX);
	b->model->entries[b->model->nentries++] = *entry;
	return 0;
}

/* The bits of a word that a guest may have. */
static uint32_t allowed(const struct cpuid_choice *choice,
			const struct cpuid_word *word)
{
	uint32_t mask = cpuid_word_mask(word);
	size_t count;

	return choice ? mask & choice->mask[word - cpuid_words(&count)] : mask;
}

/* What of a supported entry a guest may see. */
static bool filter(const struct cpuid_choice *choice,
		   const struct kvm_cpuid_entry2 *in,
		   struct kvm_cpuid_entry2 *out)
{
	const struct cpuid_leaf *leaf =
		cpuid_leaf_find(in->function, in->index);
	uint32_t any = 0;

	if (!leaf)
		return false;
	*out = (struct kvm_cpuid_entry2){
		.function = in->function,
		.index = in->index,
		.flags = leaf->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	for (enum cpuid_reg r = CPUID_EAX; r <= CPUID_EDX; r++) {
		uint32_t value = cpuid_reg_get(in, r);

		if (leaf->rule[r] == CPUID_ZERO)
			continue;
		if (leaf->rule[r] == CPUID_FEATURES)
			value &= allowed(choice, cpuid_word_find(in->function,
								 in->index, r));
		cpuid_reg_set(out, r, value);
		any |= value;
	}
	return any || !leaf->indexed;
}

static bool allows(const struct cpuid_choice *choice, uint32_t function,
		   enum cpuid_reg reg, unsigned int bit)
{
	return allowed(choice, cpuid_word_find(function, 0, reg)) >> bit & 1;
}

/*
 * Register files of features that were not chosen are none to save. What the
 * host lacks is no matter: there are some whose processors have registers that
 * their KVM offers no feature for, and guests use them all the same.
 */
static void drop_unused_states(struct builder *b,
			       const struct cpuid_choice *choice)
{
	struct kvm_cpuid_entry2 *head = find(b, 0xd, 0);

	if (!head)
		return;
	if (!allows(choice, 1, CPUID_ECX, 28)) /* avx */
		head->eax &= ~(1U << 2);
	if (!allows(choice, 7, CPUID_EBX, 16)) /* avx512f */
		head->eax &= ~(7U << 5);
	if (!allows(choice, 7, CPUID_ECX, 3)) /* pku */
		head->eax &= ~(1U << 9);
}

/* Without XSAVE there is nothing to say of it. */
static void drop_xsave(struct builder *b, const struct cpuid_choice *choice)
{
	uint32_t kept = 0;

	if (allows(choice, 1, CPUID_ECX, 26))
		return;
	for (uint32_t i = 0; i < b->model->nentries; i++)
		if (b->model->entries[i].function != 0xd)
			b->model->entries[kept++] = b->model->entries[i];
	b->model->nentries = kept;
}

/*
 * Subleaves of XSAVE components that were filtered out of XCR0 go, and the
 * size of the whole area (SDM 13.2) follows those that stay.
 */
static void trim_xsave(struct builder *b)
{
	struct arch_cpu_model *model = b->model;
	uint64_t xcr0 = cpuid_xcr0(model);
	struct kvm_cpuid_entry2 *head = find(b, 0xd, 0);
	uint32_t size = 512 + 64; /* legacy area and header */
	uint32_t kept = 0;

	if (!head)
		return;
	for (uint32_t i = 0; i < model->nentries; i++) {
		const struct kvm_cpuid_entry2 *e = &model->entries[i];

		if (e->function == 0xd && e->index >= 2) {
			if (!(xcr0 >> e->index & 1))
				continue;
			size = MAX(size, e->eax + e->ebx);
		}
		model->entries[kept++] = *e;
	}
	model->nentries = kept;
	head = find(b, 0xd, 0);
	head->ebx = size;
	head->ecx = size;
}

/* Leaf 1 and its like: flags that are ours to give, not KVM's. */
static void set_flags(struct builder *b, bool tsc_deadline, uint32_t phys_bits)
{
	struct kvm_cpuid_entry2 *leaf1 = find(b, 1, 0);
	struct kvm_cpuid_entry2 *ext1 = find(b, 0x80000001, 0);
	struct kvm_cpuid_entry2 *ext8 = find(b, 0x80000008, 0);
	uint32_t logical = MIN(1U << order(b->cpus), 255U);

	leaf1->ecx |= 1U << 31; /* hypervisor */
	leaf1->ecx &= ~(1U << 24);
	if (tsc_deadline)
		leaf1->ecx |= 1U << 24;
	leaf1->ebx = (leaf1->ebx & 0xff00) | (b->amd ? b->cpus : logical) << 16;
	leaf1->edx &= ~(1U << 28);
	if (b->cpus > 1)
		leaf1->edx |= 1U << 28; /* HTT: EBX[23:16] is valid */
	if (ext1) {
		ext1->ecx &= ~2U;
		if (b->amd && b->cpus > 1)
			ext1->ecx |= 2U; /* CmpLegacy: those are cores */
	}
	/* Core count and how many APIC id bits they take, APM E.4.7. */
	if (ext8)
		ext8->ecx = b->amd ? order(b->cpus) << 12 | (b->cpus - 1) : 0;
	/* GuestPhysAddrSize speaks to nested hypervisors only. */
	if (!ext8)
		return;
	ext8->eax &= 0xffff;
	if (phys_bits)
		ext8->eax =
			(ext8->eax & 0xff00) | MIN(ext8->eax & 0xff, phys_bits);
	if (cpuid_linear_bits(b->model) == 48 && ext8->eax >> 8)
		ext8->eax = (ext8->eax & 0xff) | 48 << 8;
}

/*
 * Caches below level 3 belong to a core, the others to the socket. Intel's
 * leaf counts in powers of two, as ids are laid out (SDM 2A, leaf 4).
 */
static void set_caches(struct builder *b)
{
	uint32_t ids = (1U << order(b->cpus)) - 1;

	for (uint32_t i = 0; i < b->model->nentries; i++) {
		struct kvm_cpuid_entry2 *e = &b->model->entries[i];
		uint32_t level = e->eax >> 5 & 7;
		uint32_t sharing = level >= 3 ? ids : 0;

		if (e->function == 4 && (e->eax & 0x1f))
			e->eax = (e->eax & 0x3fff) | sharing << 14 |
				 MIN(ids, 63U) << 26;
		if (e->function == 0x8000001d && (e->eax & 0x1f))
			e->eax = (e->eax & 0x3fff) |
				 (level >= 3 ? b->cpus - 1 : 0) << 14;
	}
}

/*
 * Leaf 0xb: a thread level of one and a core level of all (SDM 2A). Leaf 0x1f
 * would say the same for lack of dies and modules; software that doesn't find
 * it falls back to 0xb.
 */
static int set_topology(struct builder *b, bool has_0xb, struct error *err)
{
	struct kvm_cpuid_entry2 *e = find(b, 0x8000001e, 0);
	const struct kvm_cpuid_entry2 level[] = {
		{ .function = 0xb,
		  .index = 0,
		  .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		  .ebx = 1,
		  .ecx = 1 << 8 }, /* threads */
		{ .function = 0xb,
		  .index = 1,
		  .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		  .eax = order(b->cpus),
		  .ebx = b->cpus,
		  .ecx = 2 << 8 | 1 }, /* cores */
		{ .function = 0xb,
		  .index = 2,
		  .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		  .ecx = 2 }, /* the end */
	};
	int rc = 0;

	if (e) /* one thread a compute unit, one node; ids are patched */
		e->eax = e->ebx = e->ecx = 0;
	for (size_t i = 0; has_0xb && !rc && i < ARRAY_SIZE(level); i++)
		rc = add(b, &level[i], err);
	return rc;
}

/* The highest leaf of each range is the highest that is there. */
static void set_highest(struct builder *b)
{
	struct kvm_cpuid_entry2 *basic = find(b, 0, 0);
	struct kvm_cpuid_entry2 *ext = find(b, 0x80000000, 0);
	struct kvm_cpuid_entry2 *leaf7 = find(b, 7, 0);
	struct kvm_cpuid_entry2 *kvm = find(b, KVM_LEAF_SIGNATURE, 0);
	uint32_t high_basic = 1, high_ext = 0x80000000;

	for (uint32_t i = 0; i < b->model->nentries; i++) {
		uint32_t function = b->model->entries[i].function;

		if (function < KVM_LEAF_SIGNATURE)
			high_basic = MAX(high_basic, function);
		else if (function >= 0x80000000)
			high_ext = MAX(high_ext, function);
	}
	basic->eax = MIN(basic->eax, high_basic);
	if (ext)
		ext->eax = MIN(ext->eax, high_ext);
	if (leaf7)
		leaf7->eax = find(b, 7, 2) ? 2 : find(b, 7, 1) ? 1 : 0;
	if (kvm)
		kvm->eax = KVM_LEAF_FEATURES;
}

static bool is_amd(const struct kvm_cpuid_entry2 *leaf0)
{
	return leaf0->ebx == 0x68747541 || /* AuthenticAMD */
	       leaf0->ebx == 0x6f677948;   /* HygonGenuine */
}

int cpuid_build(const struct cpuid_table *supported,
		const struct cpuid_choice *choice, bool tsc_deadline,
		uint32_t cpus, struct arch_cpu_model *ret, struct error *err)
{
	struct builder b = { .model = ret, .cpus = cpus };
	const struct kvm_cpuid_entry2 *leaf0;
	struct kvm_cpuid_entry2 entry;
	bool has_0xb = false;
	int rc;

	ret->nentries = 0;
	for (uint32_t i = 0; i < supported->nent; i++) {
		if (supported->entries[i].function == 0xb) {
			has_0xb = true;
			continue;
		}
		if (!filter(choice, &supported->entries[i], &entry) ||
		    cpuid_find(ret, entry.function, entry.index))
			continue;
		rc = add(&b, &entry, err);
		if (rc)
			return rc;
	}
	leaf0 = cpuid_find(ret, 0, 0);
	if (!leaf0 || !cpuid_find(ret, 1, 0))
		return error_set(err, -ENOTSUP,
				 "KVM_GET_SUPPORTED_CPUID: leaves 0 and 1 are "
				 "missing");
	b.amd = is_amd(leaf0);
	drop_unused_states(&b, choice);
	trim_xsave(&b);
	drop_xsave(&b, choice);
	/* The TSC-deadline timer is KVM's to offer, and not in its table. */
	set_flags(&b, tsc_deadline && allows(choice, 1, CPUID_ECX, 24),
		  choice ? choice->phys_bits : 0);
	set_caches(&b);
	rc = set_topology(&b, has_0xb, err);
	if (!rc)
		set_highest(&b);
	return rc;
}

void cpuid_patch(struct kvm_cpuid_entry2 *entries, uint32_t nentries,
		 uint32_t index)
{
	for (uint32_t i = 0; i < nentries; i++) {
		struct kvm_cpuid_entry2 *e = &entries[i];

		if (e->function == 1) {
			e->ebx = (e->ebx & 0xffffff) | index << 24;
		} else if (e->function == 0xb) {
			e->edx = index;
		} else if (e->function == 0x8000001e) {
			e->eax = index;
			e->ebx = (e->ebx & ~0xffU) | index; /* core id */
		}
	}
}

/* ---- the host ---- */

int cpuid_supported(const struct kvm *kvm, struct cpuid_table *ret,
		    bool *ret_tsc_deadline, struct error *err)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[ARCH_CPUID_MAX];
	} *list = calloc(1, sizeof(*list));
	int rc;

	if (!list)
		return error_set(err, -ENOMEM, "out of memory");
	list->head.nent = ARCH_CPUID_MAX;
	rc = KVM_IOCTL_VAR(kvm->fd, KVM_GET_SUPPORTED_CPUID, list, err);
	if (rc >= 0) {
		ret->nent = list->head.nent;
		memcpy(ret->entries, list->entries,
		       ret->nent * sizeof(ret->entries[0]));
		rc = 0;
	}
	free(list);
	*ret_tsc_deadline =
		kvm_extension(kvm->fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	return rc;
}

/* Before Linux 5.18 only a vCPU tells, so one is made and thrown away. */
static int vcpu_tsc_khz(const struct kvm *kvm, struct error *err)
{
	int vm_fd = KVM_IOCTL_NUM(kvm->fd, KVM_CREATE_VM, 0, err);
	int vcpu_fd = -1;
	int rc = vm_fd;

	if (vm_fd >= 0)
		rc = vcpu_fd = KVM_IOCTL_NUM(vm_fd, KVM_CREATE_VCPU, 0, err);
	if (rc >= 0)
		rc = KVM_IOCTL_NUM(vcpu_fd, KVM_GET_TSC_KHZ, 0, err);
	close_fd(&vcpu_fd);
	close_fd(&vm_fd);
	return rc;
}

/* The rate of a vCPU's TSC when nobody asked for another. */
static int host_tsc_khz(const struct kvm *kvm, int vm_fd, uint32_t *ret,
			struct error *err)
{
	int rc = KVM_IOCTL_NUM(vm_fd, KVM_GET_TSC_KHZ, 0, err);

	if (rc <= 0)
		rc = vcpu_tsc_khz(kvm, err);
	if (rc >= 0)
		*ret = (uint32_t)rc;
	return MIN(rc, 0);
}

/*
 * The processor's name is for people to read. KVM doesn't pass it on, so it is
 * asked of the processor itself; a guest keeps the one it was made with.
 */
static void set_brand(struct arch_cpu_model *model)
{
	for (uint32_t i = 0; i < model->nentries; i++) {
		struct kvm_cpuid_entry2 *e = &model->entries[i];

		if (e->function < 0x80000002 || e->function > 0x80000004)
			continue;
		if (!(e->eax | e->ebx | e->ecx | e->edx))
			(void)__get_cpuid(e->function, &e->eax, &e->ebx,
					  &e->ecx, &e->edx);
	}
}

int cpuid_finish(const struct kvm *kvm, int vm_fd, struct arch_cpu_model *model,
		 struct error *err)
{
	int xsave = kvm_extension(kvm->fd, KVM_CAP_XSAVE2);
	int rc = host_tsc_khz(kvm, vm_fd, &model->tsc_khz, err);

	if (rc)
		return rc;
	set_brand(model);
	model->xsave_size = xsave > 0 ? (uint32_t)xsave
				      : (uint32_t)sizeof(struct kvm_xsave);
	if (model->xsave_size > X86_XSAVE_MAX)
		return error_set(err, -ENOTSUP,
				 "KVM's XSAVE area has %u bytes, more than the "
				 "%u that can be moved",
				 model->xsave_size, X86_XSAVE_MAX);
	return 0;
}

int arch_cpu_model_host(const struct kvm *kvm, int vm_fd, uint32_t cpus,
			struct arch_cpu_model *ret, struct error *err)
{
	return arch_cpu_model_named(kvm, vm_fd, "host", cpus, ret, err);
}

/* ---- CONFIG ---- */

void arch_cpu_model_visit(struct codec *c, struct arch_cpu_model *model)
{
	codec_u32(c, "tsc_khz", &model->tsc_khz);
	codec_u32(c, "xsave_size", &model->xsave_size);
	codec_count(c, "cpuid_entries", &model->nentries, ARCH_CPUID_MAX);
	for (uint32_t i = 0; i < model->nentries; i++) {
		struct kvm_cpuid_entry2 *e = &model->entries[i];

		codec_enter(c, "cpuid");
		codec_u32(c, "function", &e->function);
		codec_u32(c, "index", &e->index);
		codec_u32(c, "flags", &e->flags);
		codec_u32(c, "eax", &e->eax);
		codec_u32(c, "ebx", &e->ebx);
		codec_u32(c, "ecx", &e->ecx);
		codec_u32(c, "edx", &e->edx);
		codec_leave(c);
	}
}
