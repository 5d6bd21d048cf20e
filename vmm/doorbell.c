// SPDX-License-Identifier: MIT
/*
 * Doorbells; see doorbell.h. Linux, Documentation/virt/kvm/api.rst, 4.59.
 */
#include "vmm/doorbell.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

static struct kvm_ioeventfd describe(uint64_t gpa, unsigned int size,
				     int event_fd, uint32_t flags)
{
	return (struct kvm_ioeventfd){
		.addr = gpa,
		.len = size,
		.fd = event_fd,
		.flags = flags,
	};
}

int doorbell_attach(const struct doorbell *doorbell, uint64_t gpa,
		    unsigned int size, int event_fd, struct error *err)
{
	struct kvm_ioeventfd bell = describe(gpa, size, event_fd, 0);

	return KVM_IOCTL(doorbell->vm_fd, KVM_IOEVENTFD, &bell, err);
}

void doorbell_detach(const struct doorbell *doorbell, uint64_t gpa,
		     unsigned int size, int event_fd)
{
	struct kvm_ioeventfd bell =
		describe(gpa, size, event_fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
	struct error err;

	/* Fails only for a doorbell that isn't there, a bug of ours. */
	if (KVM_IOCTL(doorbell->vm_fd, KVM_IOEVENTFD, &bell, &err) < 0)
		log_error("doorbell at 0x%llx: %s", (unsigned long long)gpa,
			  err.text);
}
