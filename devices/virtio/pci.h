/* SPDX-License-Identifier: MIT */
/*
 * Between the virtio core (virtio.c) and its transport, modern PCI (pci.c): the
 * transport turns accesses of the guest into calls of the core, the core has it
 * tell the guest something.
 *
 * All functions: the device's lock is held, but for virtio_pci_tell(), which
 * any thread may call.
 *
 * Spec: VIRTIO 1.2, section 4.1.
 */
#ifndef GODWIT_DEVICES_VIRTIO_PCI_H
#define GODWIT_DEVICES_VIRTIO_PCI_H

#include "devices/virtio/virtio.h"

/* Bits of the ISR status; section 4.1.4.5. */
#define VIRTIO_ISR_QUEUE  1
#define VIRTIO_ISR_CONFIG 2

/* ---- the transport ---- */

int __must_check virtio_pci_init(struct virtio *v, struct pci_bus *bus,
				 struct error *err);
void virtio_pci_fini(struct virtio *v);

/**
 * virtio_pci_tell() - interrupt the guest, by @vector or by the line.
 */
void virtio_pci_tell(struct virtio *v, uint16_t vector, uint8_t isr);

/**
 * virtio_pci_set_isr() - the ISR status is @isr; the line follows.
 */
void virtio_pci_set_isr(struct virtio *v, uint8_t isr);

/**
 * virtio_pci_move_doorbell() - have the doorbell of queue @index where the
 * guest finds it now: nowhere unless the queue is enabled.
 */
void virtio_pci_move_doorbell(struct virtio *v, unsigned int index);

/* The part of the state that lives in configuration space. */
void virtio_pci_snapshot(struct virtio *v, struct virtio_state *state);
void virtio_pci_commit(struct virtio *v, const struct virtio_state *state);

/* ---- the core, as the driver works it ---- */

/**
 * virtio_write_status() - the driver writes the device status; 2.1 and 3.1.
 */
void virtio_write_status(struct virtio *v, uint8_t value);

/**
 * virtio_write_features() - half @select of the driver's features; 2.2.
 */
void virtio_write_features(struct virtio *v, uint32_t select, uint32_t value);

/**
 * virtio_enable_queue() / virtio_reset_queue() - the driver enables it, or has
 * it reset (2.6.1).
 */
void virtio_enable_queue(struct virtio *v, unsigned int index);
void virtio_reset_queue(struct virtio *v, unsigned int index);

/**
 * virtio_vector() - what the driver gets when it asks for @vector; 4.1.5.1.2.
 */
uint16_t virtio_vector(const struct virtio *v, uint16_t vector);

#endif
