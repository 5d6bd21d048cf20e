// SPDX-License-Identifier: MIT
/*
 * A vCPU from its making to its running: CPUID, TSC rate and the few registers
 * that firmware would have set. What it holds once it runs is vcpu_state.c's.
 */
#include <errno.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/msr.h"

/*
 * What firmware would have left: memory types by the page tables alone, and
 * one machine check bank, so that their registers are few enough to move.
 */
static int first_msrs(int vcpu_fd, const struct arch_cpu_model *model,
		      struct error *err)
{
	uint64_t mcg_cap = 1; /* one bank, no MCG_CTL, SDM 3B 16.3.1.1 */
	int rc = 0;

	if (cpuid_has(model, 1, 0, CPUID_EDX, 14))
		rc = KVM_IOCTL(vcpu_fd, KVM_X86_SETUP_MCE, &mcg_cap, err);
	if (rc >= 0 && cpuid_has(model, 1, 0, CPUID_EDX, 12))
		/* Enabled, default write-back, SDM 3A 12.11.2.1. */
		rc = msr_set_one(vcpu_fd, MSR_MTRR_DEF_TYPE, 0x806, err);
	return MIN(rc, 0);
}

/* Only when it differs by more than KVM tolerates anyway. */
static int set_tsc_khz(int vcpu_fd, uint32_t khz, struct error *err)
{
	int rc = KVM_IOCTL_NUM(vcpu_fd, KVM_GET_TSC_KHZ, 0, err);

	if (rc < 0 || tsc_khz_same(khz, (uint32_t)rc))
		return MIN(rc, 0);
	rc = KVM_IOCTL_NUM(vcpu_fd, KVM_SET_TSC_KHZ, khz, err);
	return MIN(rc, 0);
}

int arch_vcpu_init(const struct kvm *kvm, int vcpu_fd, uint32_t index,
		   const struct arch_cpu_model *model, struct error *err)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[ARCH_CPUID_MAX];
	} list;
	int rc;

	(void)kvm;
	memset(&list, 0, sizeof(list));
	list.head.nent = model->nentries;
	memcpy(list.entries, model->entries,
	       model->nentries * sizeof(list.entries[0]));
	cpuid_patch(list.entries, model->nentries, index);
	rc = KVM_IOCTL_VAR(vcpu_fd, KVM_SET_CPUID2, &list, err);
	if (rc >= 0)
		rc = set_tsc_khz(vcpu_fd, model->tsc_khz, err);
	if (rc >= 0)
		rc = first_msrs(vcpu_fd, model, err);
	return MIN(rc, 0);
}

void arch_vcpu_resumed(int vcpu_fd)
{
	struct error ignored;

	/* EINVAL when the guest has no kvmclock. */
	(void)KVM_IOCTL_NUM(vcpu_fd, KVM_KVMCLOCK_CTRL, 0, &ignored);
}
