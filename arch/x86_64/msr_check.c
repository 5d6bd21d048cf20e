// SPDX-License-Identifier: MIT
/*
 * Could a vCPU's MSRs hold this, and has this host those MSRs?
 *
 * KVM would refuse a value that no guest can write, by the number of the MSR
 * alone and late. Those with simple rules are checked here; for the rest,
 * writing them in the rehearsal tells as much.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/msr.h"

/*
 * Bits of ARCH_CAPABILITIES say that a weakness is absent or a mitigation
 * there. The guest has acted on them, so this host must have them too; when
 * KVM doesn't tell what it has, the write will.
 */
static int check_arch_capabilities(const struct kvm *kvm, uint64_t value,
				   struct error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = { .head.nmsrs = 1, .entry.index = MSR_ARCH_CAPABILITIES };
	struct error ignored;

	if (KVM_IOCTL_VAR(kvm->fd, KVM_GET_MSRS, &one, &ignored) != 1)
		return 0;
	if (value & ~one.entry.data)
		return error_set(err, -ENOTSUP,
				 "the guest counts on ARCH_CAPABILITIES bits "
				 "0x%llx, which this host's processor lacks",
				 (unsigned long long)(value & ~one.entry.data));
	return 0;
}

/* Registers that hold a linear address. */
static bool holds_address(uint32_t index)
{
	static const uint32_t linear[] = {
		0x175,	    0x176,	/* SYSENTER_ESP, EIP */
		0xc0000082, 0xc0000083, /* LSTAR, CSTAR */
		0xc0000102,		/* KERNEL_GS_BASE */
	};

	return msr_listed(linear, ARRAY_SIZE(linear), index);
}

/* SDM 3A 12.11.1, table 12-8: 2, 3 and 7 on are no memory types. */
static bool memory_type(uint64_t value)
{
	return value == 0 || value == 1 || value == 4 || value == 5 ||
	       value == 6;
}

static bool eight_types(uint64_t value, bool pat)
{
	for (unsigned int i = 0; i < 64; i += 8) {
		uint64_t type = value >> i & 0xff;

		/* A PAT has UC- too, SDM 3A 12.12.2. */
		if (!memory_type(type) && !(pat && type == 7))
			return false;
	}
	return true;
}

static bool mtrr_possible(uint32_t index, uint64_t value,
			  const struct arch_cpu_model *model)
{
	uint64_t over = ~((1ULL << cpuid_phys_bits(model)) - 1);

	if (index == MSR_MTRR_DEF_TYPE)
		return !(value & ~0xcffULL) && memory_type(value & 0xff);
	if (index >= 0x250)
		return eight_types(value, false);
	if (index & 1) /* mask: valid bit, address */
		return !(value & (over | 0x7ff));
	return !(value & (over | 0xf00)) && memory_type(value & 0xff);
}

static bool possible(uint32_t index, uint64_t value,
		     const struct arch_cpu_model *model)
{
	if (holds_address(index)) {
		unsigned int bits = cpuid_linear_bits(model);
		int64_t top = (int64_t)value >> (bits - 1);

		return top == 0 || top == -1;
	}
	if (index == MSR_PAT)
		return eight_types(value, true);
	if (index >= 0x200 && index <= MSR_MTRR_DEF_TYPE)
		return mtrr_possible(index, value, model);
	if (index == MSR_XSS) /* no guest is offered any of it */
		return value == 0;
	return true;
}

static int check_value(const struct kvm *kvm,
		       const struct arch_cpu_model *model, uint32_t index,
		       uint64_t value, const struct x86_vcpu_state *held,
		       struct error *err)
{
	if (!possible(index, value, model))
		return error_set(err, -EINVAL,
				 "%s (0x%x) is 0x%llx, which no guest can "
				 "write",
				 msr_name(index), index,
				 (unsigned long long)value);
	if (index == MSR_ARCH_CAPABILITIES &&
	    !(held && msr_value(held, index) == value))
		return check_arch_capabilities(kvm, value, err);
	return 0;
}

/*
 * The MSRs that are state here. What a vCPU holds says most of them; KVM, which
 * takes its time, is asked only of one that is not among those.
 */
struct here {
	const struct x86_vcpu_state *held;
	bool asked;
	uint32_t n;
	uint32_t index[X86_MSRS_MAX];
};

static int is_here(const struct kvm *kvm, struct here *here, uint32_t index,
		   bool *ret, struct error *err)
{
	const struct x86_vcpu_state *held = here->held;
	int rc = 0;

	*ret = held && msr_listed(held->msr_index, held->nmsrs, index);
	if (*ret)
		return 0;
	if (!here->asked)
		rc = msr_list(kvm, here->index, &here->n, err);
	here->asked = true;
	*ret = msr_listed(here->index, here->n, index);
	return rc;
}

/* Could a state have its MSR number @i, if it isn't 0? */
static int check_index(const struct kvm *kvm,
		       const struct x86_vcpu_state *state, uint32_t i,
		       struct here *here, struct error *err)
{
	uint32_t index = state->msr_index[i];
	uint64_t value = state->msr_value[i];
	bool there = false;
	int rc;

	if (!msr_is_state(index))
		return error_set(err, -EINVAL,
				 "MSR 0x%x is not part of a state", index);
	if (msr_listed(state->msr_index, i, index))
		return error_set(err, -EINVAL, "%s (0x%x) is there twice",
				 msr_name(index), index);
	rc = is_here(kvm, here, index, &there, err);
	if (!rc && value && !there)
		rc = error_set(err, -ENOTSUP,
			       "%s (0x%x) is 0x%llx, and this host's KVM "
			       "doesn't have it",
			       msr_name(index), index,
			       (unsigned long long)value);
	return rc;
}

static bool same_ones(const struct x86_vcpu_state *a,
		      const struct x86_vcpu_state *b)
{
	return a->nmsrs == b->nmsrs &&
	       !memcmp(a->msr_index, b->msr_index, a->nmsrs * sizeof(uint32_t));
}

static int check_all(const struct kvm *kvm, const struct arch_cpu_model *model,
		     const struct x86_vcpu_state *state, struct here *here,
		     struct error *err)
{
	/* Then there is no need, in a pause, to look for each among all. */
	bool alike = here->held && same_ones(state, here->held);
	int rc = 0;

	for (uint32_t i = 0; !rc && i < state->nmsrs; i++) {
		if (!alike)
			rc = check_index(kvm, state, i, here, err);
		if (!rc)
			rc = check_value(kvm, model, state->msr_index[i],
					 state->msr_value[i], here->held, err);
	}
	return rc;
}

int msr_check(const struct kvm *kvm, const struct arch_cpu_model *model,
	      const struct x86_vcpu_state *state,
	      const struct x86_vcpu_state *held, struct error *err)
{
	struct here here = { .held = held };

	if (state->nmsrs > X86_MSRS_MAX)
		return error_set(err, -EINVAL, "%u MSRs, more than %d",
				 state->nmsrs, X86_MSRS_MAX);
	return check_all(kvm, model, state, &here, err);
}
