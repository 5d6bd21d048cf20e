/* SPDX-License-Identifier: MIT */
/*
 * The console device: one port, on one line of the host's (backend/line.h).
 *
 * Several consoles are several devices rather than ports of one: a guest finds
 * hvc0, hvc1, … in their order either way, and each does without the queues and
 * the protocol by which ports are made known. So VIRTIO_CONSOLE_F_MULTIPORT is
 * not offered. The size of the window is (VIRTIO_CONSOLE_F_SIZE), 0 by 0 while
 * nobody knows it.
 *
 * A guest that speaks faster than the host listens waits, as at the serial
 * port: its buffers are given back when they have been taken. Linux waits for
 * that with a lock held and interrupts off; so whoever stalls a console for
 * long stalls the guest's processor, and should watch it instead (`godwit
 * console`).
 *
 * Spec: VIRTIO 1.2, section 5.3.
 */
#ifndef GODWIT_DEVICES_VIRTIO_CONSOLE_H
#define GODWIT_DEVICES_VIRTIO_CONSOLE_H

#include "devices/virtio/virtio.h"

#define CONSOLE_DEVICE	   "virtio-console"
#define CONSOLE_QUEUE_SIZE 64
/* One a queue, one for the configuration. */
#define CONSOLE_VECTORS 3

/* Feature bits, section 5.3.3. */
#define CONSOLE_F_SIZE 0

/* Queues, section 5.3.2. */
#define CONSOLE_RX 0
#define CONSOLE_TX 1

struct console_state {
	struct virtio_state virtio;
	/* Of the chain that is taken from the transmit queue next: bytes that
	 * the host has had already. */
	uint64_t said;
	/* Of the window, as the driver can read it. */
	uint16_t columns;
	uint16_t rows;
};

extern const struct device_ops console_ops;

/**
 * console_create() - type "virtio-console", no options; on the line that has
 * the device's id.
 */
int __must_check console_create(const struct device_env *env,
				const struct device_config *config,
				struct device **ret, struct error *err);

#endif
