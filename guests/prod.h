/* SPDX-License-Identifier: MIT */
/*
 * A virtio device that interrupts when it is prodded: an entropy source, or
 * else a disk, either of which answers a small request at once. For whoever
 * tests interrupts, or the transport, and not what the device is for.
 *
 * Ring 3, one CPU. Without EVENT_IDX unless asked for, so that each answer
 * interrupts.
 */
#ifndef GUEST_PROD_H
#define GUEST_PROD_H

#include "block.h"

/* MSI-X entries: of the configuration, and of the queue. */
#define PROD_CONFIG 0U
#define PROD_QUEUE  1U

struct prod {
	struct virtio v;
	struct msix msix;
	uint32_t kind; /* VIRTIO_ID_… */
	struct virtqueue queue;
	struct prod_request *requests; /* by head */
};

/**
 * prod_find - a device and its MSI-X table; nothing is changed
 *
 * Return: false when there is none.
 */
bool prod_find(struct prod *prod);

/**
 * prod_start - reset the device and bring it up, interrupts by MSI-X entries
 * PROD_CONFIG and PROD_QUEUE
 * @features: wanted beside VIRTIO_F_VERSION_1
 *
 * MSI-X itself is left as it is.
 */
void prod_start(struct prod *prod, uint64_t features);

/**
 * prod_add - queue a request that the device doesn't see yet
 *
 * Return: false when the queue is full.
 */
bool prod_add(struct prod *prod);

/**
 * prod_take - take all answers, which must be right
 *
 * Return: how many there were.
 */
unsigned int prod_take(struct prod *prod);

/**
 * prod_wait - take answers until none is outstanding; the queue was rung
 *
 * Return: how many there were; fewer than expected after five seconds.
 */
unsigned int prod_wait(struct prod *prod);

/**
 * prod_once - one request, to its end; there is an interrupt on its way then
 */
void prod_once(struct prod *prod);

#endif
