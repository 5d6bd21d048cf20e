// SPDX-License-Identifier: MIT
/*
 * A model that came from elsewhere: is it well formed, and could a guest that
 * was promised it run here?
 *
 * Models come from a peer, so nothing about them is believed. First the shape
 * (cpuid_check_shape), then, entry by entry, each register by its rule against
 * what this host would offer (cpuid_check_subset). The first thing missing is
 * named.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/vcpu_state.h"

#define TSC_KHZ_MIN 100000U /* 100 MHz */
#define TSC_KHZ_MAX 100000000U

#define REMEDY "; move the guest to a host whose processor and kernel have it"

static int check_entry(const struct arch_cpu_model *model, uint32_t at,
		       struct error *err)
{
	const struct kvm_cpuid_entry2 *e = &model->entries[at];
	const struct cpuid_leaf *leaf = cpuid_leaf_find(e->function, e->index);

	if (!leaf)
		return error_set(err, -EINVAL,
				 "CPUID leaf 0x%x.%u is none that a guest has",
				 e->function, e->index);
	if (e->flags != (leaf->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0))
		return error_set(err, -EINVAL,
				 "CPUID leaf 0x%x.%u has flags 0x%x",
				 e->function, e->index, e->flags);
	for (enum cpuid_reg r = CPUID_EAX; r <= CPUID_EDX; r++)
		if (leaf->rule[r] == CPUID_ZERO && cpuid_reg_get(e, r))
			return error_set(
				err, -EINVAL, "CPUID 0x%x.%u:%s is 0x%x, not 0",
				e->function, e->index, cpuid_reg_name(r),
				cpuid_reg_get(e, r));
	for (uint32_t i = 0; i < at; i++)
		if (model->entries[i].function == e->function &&
		    model->entries[i].index == e->index)
			return error_set(err, -EINVAL,
					 "CPUID leaf 0x%x.%u is there twice",
					 e->function, e->index);
	return 0;
}

/* Every 64-bit guest has these. */
static const struct {
	uint32_t function;
	enum cpuid_reg reg;
	unsigned int bit;
	const char *name;
} need[] = {
	{ 1, CPUID_EDX, 0, "fpu" },   { 1, CPUID_EDX, 4, "tsc" },
	{ 1, CPUID_EDX, 5, "msr" },   { 1, CPUID_EDX, 6, "pae" },
	{ 1, CPUID_EDX, 9, "apic" },  { 1, CPUID_EDX, 24, "fxsr" },
	{ 1, CPUID_EDX, 26, "sse2" }, { 0x80000001, CPUID_EDX, 29, "lm" },
};

bool cpuid_is_needed(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(need); i++) {
		if (!strcmp(name, need[i].name))
			return true;
	}
	return false;
}

/* Code above relies on the leaves. */
static int check_baseline(const struct arch_cpu_model *model, struct error *err)
{
	static const uint32_t leaves[] = { 0, 1, 0x80000000, 0x80000001 };

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		if (!cpuid_find(model, leaves[i], 0))
			return error_set(err, -EINVAL,
					 "CPUID leaf 0x%x is missing",
					 leaves[i]);
	for (size_t i = 0; i < ARRAY_SIZE(need); i++)
		if (!cpuid_has(model, need[i].function, 0, need[i].reg,
			       need[i].bit))
			return error_set(err, -EINVAL,
					 "CPU feature %s is missing",
					 need[i].name);
	return 0;
}

static int check_numbers(const struct arch_cpu_model *model, struct error *err)
{
	const struct kvm_cpuid_entry2 *ext8 = cpuid_find(model, 0x80000008, 0);
	unsigned int phys = cpuid_phys_bits(model);
	uint32_t linear = ext8 ? ext8->eax >> 8 & 0xff : 0;

	if (phys < 32 || phys > 52)
		return error_set(err, -EINVAL,
				 "guest physical addresses have %u bits, not "
				 "32 to 52",
				 phys);
	if (linear && linear != 48 && linear != 57)
		return error_set(err, -EINVAL,
				 "guest linear addresses have %u bits, neither "
				 "48 nor 57",
				 linear);
	if (model->tsc_khz < TSC_KHZ_MIN || model->tsc_khz > TSC_KHZ_MAX)
		return error_set(err, -EINVAL,
				 "a TSC of %u kHz is not between %u and %u",
				 model->tsc_khz, TSC_KHZ_MIN, TSC_KHZ_MAX);
	if (model->xsave_size < 576 || model->xsave_size > X86_XSAVE_MAX)
		return error_set(err, -EINVAL,
				 "an XSAVE area of %u bytes is not between "
				 "576 and %u",
				 model->xsave_size, X86_XSAVE_MAX);
	return 0;
}

int cpuid_check_shape(const struct arch_cpu_model *model, struct error *err)
{
	int rc = 0;

	if (model->nentries < 1 || model->nentries > ARCH_CPUID_MAX)
		return error_set(err, -EINVAL, "%u CPUID leaves, not 1 to %d",
				 model->nentries, ARCH_CPUID_MAX);
	for (uint32_t i = 0; !rc && i < model->nentries; i++)
		rc = check_entry(model, i, err);
	if (!rc)
		rc = check_baseline(model, err);
	if (!rc)
		rc = check_numbers(model, err);
	return rc;
}

/* ---- against a host ---- */

static void vendor_text(const struct kvm_cpuid_entry2 *leaf0, char text[13])
{
	memcpy(text, &leaf0->ebx, 4);
	memcpy(text + 4, &leaf0->edx, 4);
	memcpy(text + 8, &leaf0->ecx, 4);
	text[12] = '\0';
	for (size_t i = 0; i < 12; i++)
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '?';
}

static int check_vendor(const struct arch_cpu_model *model,
			const struct arch_cpu_model *host, struct error *err)
{
	char theirs[13], ours[13];

	vendor_text(cpuid_find(model, 0, 0), theirs);
	vendor_text(cpuid_find(host, 0, 0), ours);
	if (!strcmp(theirs, ours))
		return 0;
	return error_set(err, -ENOTSUP,
			 "the guest has a processor of %s, this host one of "
			 "%s; a guest can't move between vendors",
			 theirs, ours);
}

static int missing_feature(const struct kvm_cpuid_entry2 *e, enum cpuid_reg reg,
			   uint32_t missing, struct error *err)
{
	const struct cpuid_word *word =
		cpuid_word_find(e->function, e->index, reg);
	unsigned int bit = (unsigned int)__builtin_ctz(missing);
	const char *name = word->names[bit];

	if (!name)
		return error_set(err, -ENOTSUP,
				 "a CPU feature (CPUID %x.%u:%s bit %u) is not "
				 "known to this version of godwit; update it",
				 e->function, e->index, cpuid_reg_name(reg),
				 bit);
	if (name[0] == '-')
		return error_set(err, -ENOTSUP,
				 "CPU feature %s (CPUID %x.%u:%s bit %u) can't "
				 "be moved by this version of godwit",
				 name + 1, e->function, e->index,
				 cpuid_reg_name(reg), bit);
	return error_set(err, -ENOTSUP,
			 "CPU feature %s (CPUID %x.%u:%s bit %u) is not "
			 "offered by this host" REMEDY,
			 name, e->function, e->index, cpuid_reg_name(reg), bit);
}

static int check_against(const struct kvm_cpuid_entry2 *e,
			 const struct arch_cpu_model *host, struct error *err)
{
	const struct cpuid_leaf *leaf = cpuid_leaf_find(e->function, e->index);
	const struct kvm_cpuid_entry2 *ours =
		cpuid_find(host, e->function, e->index);

	for (enum cpuid_reg r = CPUID_EAX; r <= CPUID_EDX; r++) {
		uint32_t want = cpuid_reg_get(e, r);
		uint32_t have = ours ? cpuid_reg_get(ours, r) : 0;

		if (leaf->rule[r] == CPUID_FEATURES && (want & ~have))
			return missing_feature(e, r, want & ~have, err);
		if (leaf->rule[r] == CPUID_EXACT && want != have)
			return error_set(err, -ENOTSUP,
					 "CPUID %x.%u:%s is 0x%x for the guest "
					 "and 0x%x on this host, and must not "
					 "change under it",
					 e->function, e->index,
					 cpuid_reg_name(r), want, have);
	}
	return 0;
}

int cpuid_check_subset(const struct arch_cpu_model *model,
		       const struct arch_cpu_model *host, struct error *err)
{
	int rc = check_vendor(model, host, err);

	for (uint32_t i = 0; !rc && i < model->nentries; i++)
		rc = check_against(&model->entries[i], host, err);
	if (!rc && cpuid_phys_bits(model) > cpuid_phys_bits(host))
		rc = error_set(err, -ENOTSUP,
			       "the guest has %u bits of physical address, "
			       "this host %u",
			       cpuid_phys_bits(model), cpuid_phys_bits(host));
	if (!rc && model->xsave_size > host->xsave_size)
		rc = error_set(err, -ENOTSUP,
			       "the guest's XSAVE area has %u bytes, this "
			       "host's %u" REMEDY,
			       model->xsave_size, host->xsave_size);
	return rc;
}

int arch_cpu_model_check(const struct kvm *kvm,
			 const struct arch_cpu_model *host,
			 const struct arch_cpu_model *model, struct error *err)
{
	int rc = cpuid_check_shape(model, err);

	if (!rc)
		rc = cpuid_check_subset(model, host, err);
	if (!rc && !tsc_khz_same(model->tsc_khz, host->tsc_khz) &&
	    !kvm_extension(kvm->fd, KVM_CAP_TSC_CONTROL))
		rc = error_set(err, -ENOTSUP,
			       "the guest's TSC runs at %u kHz, this host's at "
			       "%u kHz, and this host can't scale it (at most "
			       "%d ppm apart would do)",
			       model->tsc_khz, host->tsc_khz,
			       TSC_TOLERANCE_PPM);
	return rc;
}
