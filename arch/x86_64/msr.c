// SPDX-License-Identifier: MIT
/*
 * Which MSRs are state.
 *
 * The list is KVM's own (KVM_GET_MSR_INDEX_LIST), less those of `not_state`
 * below, plus those of `unlisted`, which KVM holds but doesn't list. So a
 * kernel that learns to hold more has more of it moved, and two hosts may
 * differ in what they list: a register that the other side doesn't have is
 * fine as long as it is 0, which is what it reads as there.
 *
 * Reading and writing fail closed. KVM stops at the first MSR that it refuses
 * and says how many it did, which names the culprit. Passed over are only
 * those of value 0 and those of `may_refuse`, each for its reason.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/msr.h"

#define LIST_MAX 1024 /* KVM's own lists are below 400 */

/* ---- tables ---- */

static const struct {
	uint32_t first, last;
	const char *why;
} not_state[] = {
	/* Held elsewhere. */
	{ 0x1b, 0x1b, "APIC base: in the special registers" },
	{ 0x800, 0x8ff, "x2APIC: in the local APIC's state" },
	{ 0xc0000080, 0xc0000080, "EFER: in the special registers" },
	{ 0xc0000100, 0xc0000101, "FS and GS base: in the segments" },
	/* Fixed by godwit or by KVM, the same on every host. */
	{ 0xce, 0xce, "PLATFORM_INFO: constant" },
	{ 0xfe, 0xfe, "MTRRcap: constant" },
	{ 0x179, 0x179, "MCG_CAP: set when the vCPU is made" },
	/*
	 * Commands, not state: KVM acts when they are written. The wall clock
	 * is written into guest memory at once, where by now there may be
	 * something else; a guest asks for it anew whenever it wants to know.
	 */
	{ 0x11, 0x11, "kvmclock wall clock (old number)" },
	{ 0x4b564d00, 0x4b564d00, "kvmclock wall clock" },
	{ 0x4b564d07, 0x4b564d07, "acknowledges an async page fault" },
	{ 0x49, 0x49, "PRED_CMD" },
	{ 0x10b, 0x10b, "FLUSH_CMD" },
	/* Another number for 0x4b564d01. */
	{ 0x12, 0x12, "kvmclock system time (old number)" },
	/* Performance counters: CPUID 0xa says there are none. */
	{ 0xc1, 0xc8, "performance counters" },
	{ 0x186, 0x18d, "performance event selectors" },
	{ 0x309, 0x30c, "fixed counters" },
	{ 0x329, 0x329, "PERF_METRICS" },
	{ 0x345, 0x345, "PERF_CAPABILITIES" },
	{ 0x38d, 0x391, "performance global control" },
	{ 0x3f1, 0x3f2, "PEBS" },
	{ 0x600, 0x600, "DS_AREA" },
	{ 0x4c1, 0x4c8, "full-width performance counters" },
	{ 0x14ce, 0x14cf, "LBR control" },
	{ 0xc0000300, 0xc0000303, "performance global control, AMD" },
	{ 0xc0010000, 0xc0010007, "performance counters, AMD" },
	{ 0xc0010200, 0xc001020b, "performance counters, AMD" },
	/* Nested virtualisation is not offered. */
	{ 0x3a, 0x3a, "FEATURE_CONTROL" },
	{ 0x480, 0x4ff, "VMX capabilities" },
	{ 0xc0010114, 0xc0010118, "VM_CR, VM_HSAVE_PA and their like" },
	{ 0xc0000104, 0xc0000104, "TSC ratio, for nested guests" },
	/* Processor trace, SGX, AMX, CET: not offered. */
	{ 0x560, 0x587, "processor trace" },
	{ 0x8c, 0x8f, "SGX launch keys" },
	{ 0x1c4, 0x1c5, "XFD: no component is left out on demand" },
	{ 0x6a0, 0x6a8, "CET" },
	/* Hyper-V's interfaces are not offered. */
	{ 0x40000000, 0x400000ff, "Hyper-V" },
};

/* State that KVM_GET_MSR_INDEX_LIST leaves out. */
static const struct {
	uint32_t first, last;
} unlisted[] = {
	{ 0x200, 0x20f }, /* MTRR variable ranges: KVM has 8 pairs */
	{ 0x250, 0x250 }, /* MTRR fixed ranges */
	{ 0x258, 0x259 },
	{ 0x268, 0x26f },
	{ MSR_MTRR_DEF_TYPE, MSR_MTRR_DEF_TYPE },
	{ 0x400, 0x403 }, /* the one machine check bank */
};

/*
 * A host may refuse these though they aren't 0. What the guest loses is said
 * beside each.
 */
static const struct {
	uint32_t index;
	const char *why;
} may_refuse[] = {
	{ MSR_ARCH_CAPABILITIES,
	  "read-only for a guest; some kernels let it be read but not "
	  "written. msr_check() has made sure that this host has no weakness "
	  "that the guest believes absent" },
	{ 0x8b, "microcode revision: reported, never acted upon after boot" },
};

static const struct {
	uint32_t index;
	const char *name;
} names[] = {
	{ 0x10, "TSC" },
	{ 0x34, "SMI_COUNT" },
	{ 0x3b, "TSC_ADJUST" },
	{ 0x48, "SPEC_CTRL" },
	{ 0x8b, "microcode revision" },
	{ 0x9e, "SMBASE" },
	{ 0xe1, "UMWAIT_CONTROL" },
	{ 0x10a, "ARCH_CAPABILITIES" },
	{ 0x122, "TSX_CTRL" },
	{ 0x140, "MISC_FEATURES_ENABLES" },
	{ 0x174, "SYSENTER_CS" },
	{ 0x175, "SYSENTER_ESP" },
	{ 0x176, "SYSENTER_EIP" },
	{ 0x17a, "MCG_STATUS" },
	{ 0x17b, "MCG_CTL" },
	{ 0x1a0, "MISC_ENABLE" },
	{ 0x1d9, "DEBUGCTL" },
	{ 0x1fc, "POWER_CTL" },
	{ 0x277, "PAT" },
	{ 0x2ff, "MTRRdefType" },
	{ 0x6e0, "TSC_DEADLINE" },
	{ 0xda0, "XSS" },
	{ 0x4b564d01, "kvmclock" },
	{ 0x4b564d02, "KVM async page faults" },
	{ 0x4b564d03, "KVM steal time" },
	{ 0x4b564d04, "KVM PV EOI" },
	{ 0x4b564d05, "KVM poll control" },
	{ 0x4b564d06, "KVM async page fault vector" },
	{ 0x4b564d08, "KVM migration control" },
	{ 0xc0000081, "STAR" },
	{ 0xc0000082, "LSTAR" },
	{ 0xc0000083, "CSTAR" },
	{ 0xc0000084, "SYSCALL_MASK" },
	{ 0xc0000102, "KERNEL_GS_BASE" },
	{ 0xc0000103, "TSC_AUX" },
	{ 0xc0010015, "HWCR" },
	{ 0xc001011f, "VIRT_SPEC_CTRL" },
};

const char *msr_name(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].index == index)
			return names[i].name;
	if (index >= 0x200 && index <= 0x26f)
		return "MTRR";
	if (index >= 0x400 && index <= 0x403)
		return "machine check bank";
	return "MSR";
}

bool msr_is_state(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(not_state); i++)
		if (index >= not_state[i].first && index <= not_state[i].last)
			return false;
	return true;
}

static bool refusal_is_fine(uint32_t index, uint64_t value)
{
	for (size_t i = 0; i < ARRAY_SIZE(may_refuse); i++)
		if (may_refuse[i].index == index)
			return true;
	return value == 0;
}

/* ---- the list ---- */

bool msr_listed(const uint32_t *list, uint32_t n, uint32_t index)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == index)
			return true;
	return false;
}

uint64_t msr_value(const struct x86_vcpu_state *state, uint32_t index)
{
	for (uint32_t i = 0; i < state->nmsrs; i++)
		if (state->msr_index[i] == index)
			return state->msr_value[i];
	return 0;
}

static int list_add(uint32_t *list, uint32_t *n, uint32_t index,
		    struct error *err)
{
	if (!msr_is_state(index) || msr_listed(list, *n, index))
		return 0;
	if (*n == X86_MSRS_MAX)
		return error_set(err, -ENOTSUP,
				 "this host's KVM has more than %d MSRs of "
				 "state; that many can't be moved",
				 X86_MSRS_MAX);
	list[(*n)++] = index;
	return 0;
}

int msr_list(const struct kvm *kvm, uint32_t *ret_index, uint32_t *ret_n,
	     struct error *err)
{
	struct {
		struct kvm_msr_list head;
		uint32_t indices[LIST_MAX];
	} list;
	int rc;

	list.head.nmsrs = LIST_MAX;
	rc = KVM_IOCTL_VAR(kvm->fd, KVM_GET_MSR_INDEX_LIST, &list, err);
	*ret_n = 0;
	for (uint32_t i = 0; rc >= 0 && i < list.head.nmsrs; i++)
		rc = list_add(ret_index, ret_n, list.indices[i], err);
	for (size_t i = 0; i < ARRAY_SIZE(unlisted); i++)
		for (uint32_t m = unlisted[i].first;
		     rc >= 0 && m <= unlisted[i].last; m++)
			rc = list_add(ret_index, ret_n, m, err);
	return MIN(rc, 0);
}

/* ---- reading and writing ---- */

struct msr_batch {
	struct kvm_msrs head;
	/* One more: the TSC deadline is loaded even if the state has none. */
	struct kvm_msr_entry entries[X86_MSRS_MAX + 1];
};

static int refused(const char *verb, const struct kvm_msr_entry *e,
		   struct error *err)
{
	return error_set(err, -EIO, "KVM %s %s (0x%x)", verb,
			 msr_name(e->index), e->index);
}

/* Drop entry @at. */
static void batch_drop(struct msr_batch *batch, uint32_t at)
{
	batch->head.nmsrs--;
	memmove(&batch->entries[at], &batch->entries[at + 1],
		(batch->head.nmsrs - at) * sizeof(batch->entries[0]));
}

int msr_save(const struct kvm *kvm, int vcpu_fd, struct x86_vcpu_state *state,
	     struct error *err)
{
	struct msr_batch batch = { 0 };
	int rc = 0;

	/* Which there are does not change: a second save goes by the first. */
	if (!state->nmsrs)
		rc = msr_list(kvm, state->msr_index, &state->nmsrs, err);
	if (rc)
		return rc;
	batch.head.nmsrs = state->nmsrs;
	for (uint32_t i = 0; i < state->nmsrs; i++)
		batch.entries[i].index = state->msr_index[i];
	for (;;) {
		rc = KVM_IOCTL_VAR(vcpu_fd, KVM_GET_MSRS, &batch, err);
		if (rc < 0)
			return rc;
		if ((uint32_t)rc == batch.head.nmsrs)
			break;
		/* A value that can't be read may well not be 0. */
		if (!refusal_is_fine(batch.entries[rc].index, 1))
			return refused("can't read", &batch.entries[rc], err);
		batch_drop(&batch, (uint32_t)rc);
	}
	state->nmsrs = batch.head.nmsrs;
	for (uint32_t i = 0; i < state->nmsrs; i++) {
		state->msr_index[i] = batch.entries[i].index;
		state->msr_value[i] = batch.entries[i].data;
	}
	return 0;
}

static int batch_write(int vcpu_fd, struct msr_batch *batch, struct error *err)
{
	while (batch->head.nmsrs) {
		int rc = KVM_IOCTL_VAR(vcpu_fd, KVM_SET_MSRS, batch, err);
		const struct kvm_msr_entry *e;

		if (rc < 0)
			return rc;
		if ((uint32_t)rc == batch->head.nmsrs)
			return 0;
		e = &batch->entries[rc];
		if (!refusal_is_fine(e->index, e->data))
			return error_set(err, -EIO,
					 "KVM can't set %s (0x%x) to 0x%llx",
					 msr_name(e->index), e->index,
					 (unsigned long long)e->data);
		/* Those before it are written; go on after it. */
		batch->head.nmsrs -= (uint32_t)rc + 1;
		memmove(batch->entries, e + 1,
			batch->head.nmsrs * sizeof(batch->entries[0]));
	}
	return 0;
}

/* Is it better not to write it, if the vCPU holds that value already? */
static bool spare(const struct kvm_msr_entry *e)
{
	return !e->data || refusal_is_fine(e->index, e->data);
}

/* What is in both, value and all, goes; but for the TSC, which goes on. */
static void batch_drop_same(struct msr_batch *batch, const uint32_t *index,
			    const uint64_t *value, uint32_t n)
{
	uint32_t kept = 0, at = 0;

	for (uint32_t i = 0; i < batch->head.nmsrs; i++) {
		const struct kvm_msr_entry *e = &batch->entries[i];
		uint32_t looked = 0;

		/* Mostly they are in the same order. */
		while (looked < n && index[at % n] != e->index) {
			at++;
			looked++;
		}
		if (looked < n && value[at % n] == e->data &&
		    e->index != MSR_TSC)
			continue;
		batch->entries[kept++] = *e;
	}
	batch->head.nmsrs = kept;
}

/*
 * What is 0 in the state and 0 in the vCPU needn't be written. That is most of
 * a fresh vCPU, and KVM tells the host's kernel log of each register that it
 * lists but can't write: on a slow console that takes longer than all else. And
 * what may be refused makes KVM stop there, which costs a second call.
 */
static int batch_skip_same(int vcpu_fd, struct msr_batch *batch,
			   struct error *err)
{
	struct msr_batch now = { 0 };
	uint32_t index[X86_MSRS_MAX];
	uint64_t value[X86_MSRS_MAX];
	int read;

	for (uint32_t i = 0; i < batch->head.nmsrs; i++)
		if (spare(&batch->entries[i]))
			now.entries[now.head.nmsrs++] = batch->entries[i];
	read = KVM_IOCTL_VAR(vcpu_fd, KVM_GET_MSRS, &now, err);
	if (read < 0)
		return read;
	for (int i = 0; i < read; i++) {
		index[i] = now.entries[i].index;
		value[i] = now.entries[i].data;
	}
	batch_drop_same(batch, index, value, (uint32_t)read);
	return 0;
}

/* All but the TSC deadline, which is returned. */
static uint64_t batch_fill(struct msr_batch *batch,
			   const struct x86_vcpu_state *state, bool tsc,
			   uint64_t tsc_advance)
{
	uint64_t deadline = 0;

	for (uint32_t i = 0; i < state->nmsrs; i++) {
		struct kvm_msr_entry e = { .index = state->msr_index[i],
					   .data = state->msr_value[i] };

		if (e.index == MSR_TSC_DEADLINE) {
			deadline = e.data;
			continue;
		}
		if (e.index == MSR_TSC && !tsc)
			continue;
		if (e.index == MSR_TSC)
			e.data += tsc_advance;
		batch->entries[batch->head.nmsrs++] = e;
	}
	return deadline;
}

int msr_load(int vcpu_fd, const struct x86_vcpu_state *state,
	     const struct x86_vcpu_state *held, bool tsc, uint64_t tsc_advance,
	     struct error *err)
{
	struct msr_batch batch = { 0 };
	uint64_t deadline = batch_fill(&batch, state, tsc, tsc_advance);
	int rc = 0;

	if (held)
		batch_drop_same(&batch, held->msr_index, held->msr_value,
				held->nmsrs);
	else
		rc = batch_skip_same(vcpu_fd, &batch, err);
	if (rc)
		return rc;
	/*
	 * The deadline is armed against the TSC as it is then, and only when
	 * the local APIC's timer is in deadline mode already. KVM goes by the
	 * order of the batch: it is the last.
	 */
	if (!held || deadline || msr_value(held, MSR_TSC_DEADLINE))
		batch.entries[batch.head.nmsrs++] =
			(struct kvm_msr_entry){ .index = MSR_TSC_DEADLINE,
						.data = deadline };
	return batch_write(vcpu_fd, &batch, err);
}

int msr_set_one(int vcpu_fd, uint32_t index, uint64_t value, struct error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };
	int rc = KVM_IOCTL_VAR(vcpu_fd, KVM_SET_MSRS, &one, err);

	if (rc == 1)
		return 0;
	if (rc < 0)
		return rc;
	return error_set(err, -EIO, "KVM can't set %s (0x%x) to 0x%llx",
			 msr_name(index), index, (unsigned long long)value);
}
