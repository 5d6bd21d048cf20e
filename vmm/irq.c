// SPDX-License-Identifier: MIT
/*
 * Interrupt delivery; see irq.h.
 *
 * Neither call can fail in a way that anyone could act on: the descriptor is
 * the VM's, the GSI is a constant, and KVM_SIGNAL_MSI says 0 when the guest
 * has blocked the message. A failure is logged, for it is a bug of ours.
 */
#include "vmm/irq.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

void irq_set_line(struct irq *irq, uint32_t gsi, bool level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = level };
	struct error err;

	if (KVM_IOCTL(irq->vm_fd, KVM_IRQ_LINE, &line, &err) < 0)
		log_error("interrupt line %u: %s", gsi, err.text);
}

void irq_send_msi(struct irq *irq, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};
	struct error err;

	/* A guest may program any address; what KVM refuses goes nowhere. */
	if (KVM_IOCTL(irq->vm_fd, KVM_SIGNAL_MSI, &msi, &err) < 0)
		log_debug("MSI to 0x%llx: %s", (unsigned long long)address,
			  err.text);
}
