// SPDX-License-Identifier: MIT
/*
 * What of a vCPU's state may lie in it before its time.
 *
 * A vCPU that waits for its guest holds what that looked like a while ago,
 * while the guest's memory still comes in. Nothing may come of it: no timer
 * runs out, nothing waits to be delivered, and guest memory is neither read nor
 * written. What that leaves out stays as it was switched on.
 *
 * Two things are not as in a vCPU that was switched on, where a source leaves
 * out later what it said at first, which none does: an MSR keeps the value that
 * was primed, and so does PKRU (KVM_SET_XSAVE leaves it alone where the area
 * has none). Both were checked.
 */
#include <asm/kvm_para.h>
#include <string.h>

#include "arch/x86_64/msr.h"

/*
 * KVM's own MSRs point to memory. To kvmclock's page it writes when the vCPU is
 * entered; to others some kernels do whenever one is left alone.
 */
#define MSR_KVM_FIRST 0x4b564d00U
#define MSR_KVM_LAST  0x4b564dffU

static bool msr_waits(uint32_t index)
{
	if (index >= MSR_KVM_FIRST && index <= MSR_KVM_LAST)
		return index == MSR_KVM_SYSTEM_TIME_NEW;
	return index != MSR_TSC && index != MSR_TSC_ADJUST &&
	       index != MSR_TSC_DEADLINE;
}

/* The deadline, which starts the timer without a count, is an MSR. */
static bool lapic_waits(const struct x86_vcpu_state *s)
{
	uint32_t pending = 0;

	for (size_t i = 0; i < 8; i++)
		pending |= x86_lapic_register(s, X86_LAPIC_ISR + 16 * i) |
			   x86_lapic_register(s, X86_LAPIC_IRR + 16 * i);
	return !pending && !x86_lapic_register(s, X86_LAPIC_INITIAL_COUNT);
}

/* 32-bit paging may begin with a look at memory: PAE's, SDM 3A 4.4.1. */
static bool sregs_wait(const struct x86_sregs *s)
{
	return !(s->cr0 & X86_CR0_PG) || (s->efer & X86_EFER_LMA);
}

/* To set another one may be a command: INIT and SIPI are. */
static bool mp_state_waits(uint32_t mp_state)
{
	return mp_state == KVM_MP_STATE_RUNNABLE ||
	       mp_state == KVM_MP_STATE_HALTED;
}

/* @ahead: as switched on; what of @s waits is put over it. */
static void lay_over(struct x86_vcpu_state *ahead,
		     const struct x86_vcpu_state *s)
{
	if (mp_state_waits(s->mp_state))
		ahead->mp_state = s->mp_state;
	ahead->regs = s->regs;
	ahead->xcr0 = s->xcr0;
	ahead->debugregs = s->debugregs;
	ahead->xsave_size = s->xsave_size;
	memcpy(ahead->xsave, s->xsave, sizeof(ahead->xsave));
	if (sregs_wait(&s->sregs))
		ahead->sregs = s->sregs;
	if (sregs_wait(&s->sregs) && lapic_waits(s))
		memcpy(ahead->lapic, s->lapic, sizeof(ahead->lapic));
	ahead->nmsrs = 0;
	for (uint32_t i = 0; i < s->nmsrs; i++) {
		if (!msr_waits(s->msr_index[i]))
			continue;
		ahead->msr_index[ahead->nmsrs] = s->msr_index[i];
		ahead->msr_value[ahead->nmsrs++] = s->msr_value[i];
	}
}

int arch_vcpu_prime(const struct kvm *kvm, int vcpu_fd, const void *state,
		    const void *power_on, void *ret_held, struct error *err)
{
	/* All zero: TSCs are left alone, for none is in what is loaded. */
	const struct arch_clock_shift shift = { 0 };
	const struct x86_vcpu_state *fresh = power_on;
	struct x86_vcpu_state *held = ret_held;
	int rc;

	*held = *fresh;
	lay_over(held, state);
	rc = arch_vcpu_load(kvm, vcpu_fd, held, power_on, &shift, err);
	if (rc)
		return rc;
	/* What KVM has made of it; its list of registers is the fresh one's. */
	*held = *fresh;
	return arch_vcpu_save(kvm, vcpu_fd, held, err);
}
