/* SPDX-License-Identifier: MIT */
/*
 * A virtio device of several queues, polled, for the points about what such a
 * device is for. Somebody is at its other end: the network, a user at a
 * console, the host that wants memory back.
 *
 * Ring 3, one CPU.
 */
#ifndef SYNC_UNIT_H
#define SYNC_UNIT_H

#include "lib/virtio.h"
#include "sync.h"

#define UNIT_QUEUES	5U
#define UNIT_QUEUE_SIZE 16U

struct unit {
	struct virtio v;
	struct virtqueue queues[UNIT_QUEUES];
};

/**
 * unit_up - from reset to FEATURES_OK, its queues set up and empty
 * @id: what kind of device
 * @features: wanted
 *
 * Return: false, and skipped, when there is none, or nobody at its other end.
 */
bool unit_up(struct unit *unit, uint32_t id, uint64_t features,
	     unsigned int queues);

/**
 * unit_go - DRIVER_OK, and what is in the queues is told of
 */
void unit_go(struct unit *unit, unsigned int queues);

/**
 * unit_give - one buffer into a queue; the device does not see it yet
 * @in: the device writes it
 *
 * Return: its head.
 */
unsigned int unit_give(struct unit *unit, unsigned int queue, void *at,
		       uint32_t len, bool in);

/**
 * unit_publish - let the device see what is in a queue
 * @ring: and tell it
 */
void unit_publish(struct unit *unit, unsigned int queue, bool ring);

/**
 * unit_take - wait for the next answer and take it
 *
 * Return: its head; -1, and wrong, when there is none in half a minute.
 */
int unit_take(struct unit *unit, unsigned int queue, uint32_t *ret_len);

/**
 * unit_settle - take what is outstanding in a queue
 */
void unit_settle(struct unit *unit, unsigned int queue);

/**
 * unit_await - wait until @holds(); wrong when it doesn't in half a minute
 */
void unit_await(const char *what, bool (*holds)(void));

#endif
