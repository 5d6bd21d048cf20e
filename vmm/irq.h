/* SPDX-License-Identifier: MIT */
/*
 * How devices interrupt: legacy lines by KVM_IRQ_LINE, messages by
 * KVM_SIGNAL_MSI. No irqfd and no routing table, so nothing is ever in flight
 * outside a device's own mask and pending bits. Any thread.
 */
#ifndef GODWIT_IRQ_H
#define GODWIT_IRQ_H

#include "vmm/util.h"

struct irq {
	int vm_fd;
};

/**
 * irq_set_line() - drive a GSI of the in-kernel interrupt controllers.
 * @gsi: 0..23.
 */
void irq_set_line(struct irq *irq, uint32_t gsi, bool level);

/**
 * irq_send_msi() - deliver one message-signalled interrupt.
 */
void irq_send_msi(struct irq *irq, uint64_t address, uint32_t data);

#endif
