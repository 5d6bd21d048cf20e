// SPDX-License-Identifier: MIT
/*
 * Events between KVM and struct x86_events; see vcpu_events.h.
 */
#include <errno.h>

#include "arch/x86_64/vcpu_events.h"

/* Events that we know how to carry. */
#define EVENTS_KNOWN                                                         \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | \
	 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM |              \
	 KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

/*
 * KVM leaves what was delivered, or dropped, where it was. Nothing comes of
 * it, but a vCPU without events should look like any other without.
 */
static void drop_stale(struct kvm_vcpu_events *e)
{
	if (!e->exception.pending)
		e->exception_has_payload = 0;
	if (!e->exception_has_payload)
		e->exception_payload = 0;
	if (!e->exception.pending && !e->exception.injected) {
		e->exception.nr = 0;
		e->exception.has_error_code = 0;
		e->exception.error_code = 0;
	}
	if (!e->interrupt.injected) {
		e->interrupt.nr = 0;
		e->interrupt.soft = 0;
	}
}

int vcpu_events_save(int vcpu_fd, struct x86_events *ret, struct error *err)
{
	struct kvm_vcpu_events e = { 0 };
	int rc = KVM_IOCTL(vcpu_fd, KVM_GET_VCPU_EVENTS, &e, err);

	if (rc < 0)
		return rc;
	if (e.flags & ~(uint32_t)EVENTS_KNOWN)
		return error_set(err, -ENOTSUP,
				 "KVM_GET_VCPU_EVENTS: flags 0x%x are not "
				 "known to this version of godwit",
				 e.flags & ~(uint32_t)EVENTS_KNOWN);
	drop_stale(&e);
	*ret = (struct x86_events){
		.valid = e.flags,
		.exception_error_code = e.exception.error_code,
		.exception_payload = e.exception_payload,
		.exception_injected = !!e.exception.injected,
		.exception_pending = !!e.exception.pending,
		.exception_nr = e.exception.nr,
		.exception_has_error_code = !!e.exception.has_error_code,
		.exception_has_payload = !!e.exception_has_payload,
		.interrupt_injected = !!e.interrupt.injected,
		.interrupt_nr = e.interrupt.nr,
		.interrupt_soft = !!e.interrupt.soft,
		.interrupt_shadow = e.interrupt.shadow,
		.nmi_injected = !!e.nmi.injected,
		.nmi_pending = e.nmi.pending,
		.nmi_masked = !!e.nmi.masked,
		.smi_smm = !!e.smi.smm,
		.smi_pending = !!e.smi.pending,
		.smi_inside_nmi = !!e.smi.smm_inside_nmi,
		.smi_latched_init = !!e.smi.latched_init,
		.triple_fault_pending = !!e.triple_fault.pending,
	};
	return 0;
}

/*
 * A kernel refuses flags that it doesn't know. They may go when what they
 * stand for is 0; arch_vcpu_check() has refused the rest.
 */
static uint32_t events_flags(const struct kvm *kvm, const struct x86_events *e)
{
	uint32_t flags = e->valid;

	if (!kvm->has_exception_payload)
		flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_PAYLOAD;
	if (!kvm->has_triple_fault_event)
		flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	return flags;
}

int vcpu_events_load(const struct kvm *kvm, int vcpu_fd,
		     const struct x86_events *e, struct error *err)
{
	struct kvm_vcpu_events events = {
		.flags = events_flags(kvm, e),
		.exception.error_code = e->exception_error_code,
		.exception_payload = e->exception_payload,
		.exception.injected = e->exception_injected,
		.exception.pending = e->exception_pending,
		.exception.nr = e->exception_nr,
		.exception.has_error_code = e->exception_has_error_code,
		.exception_has_payload = e->exception_has_payload,
		.interrupt.injected = e->interrupt_injected,
		.interrupt.nr = e->interrupt_nr,
		.interrupt.soft = e->interrupt_soft,
		.interrupt.shadow = e->interrupt_shadow,
		.nmi.injected = e->nmi_injected,
		.nmi.pending = e->nmi_pending,
		.nmi.masked = e->nmi_masked,
		.smi.smm = e->smi_smm,
		.smi.pending = e->smi_pending,
		.smi.smm_inside_nmi = e->smi_inside_nmi,
		.smi.latched_init = e->smi_latched_init,
		.triple_fault.pending = e->triple_fault_pending,
	};

	return KVM_IOCTL(vcpu_fd, KVM_SET_VCPU_EVENTS, &events, err);
}
