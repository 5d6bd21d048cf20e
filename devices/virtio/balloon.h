/* SPDX-License-Identifier: MIT */
/*
 * The balloon: memory that the guest gives back.
 *
 * What a driver puts into its balloon, and what it reports as free, goes back
 * to the host at once. What it hints to be free goes nowhere: a migration that
 * asked for hints need not send it (vmm/hints.h).
 *
 * Spec: VIRTIO 1.2, section 5.5.
 */
#ifndef GODWIT_DEVICES_VIRTIO_BALLOON_H
#define GODWIT_DEVICES_VIRTIO_BALLOON_H

#include "devices/virtio/virtio.h"
#include "vmm/balloon.h"

#define BALLOON_QUEUE_SIZE 128
/* One a queue, one for the configuration. */
#define BALLOON_VECTORS 6

struct balloon_state {
	struct virtio_state virtio;
	uint32_t wanted;  /* pages that the balloon should have */
	uint32_t actual;  /* that it has, as the driver says */
	uint32_t poison;  /* what the driver fills free memory with */
	uint32_t hint_id; /* of the last request for hints; 0: none yet */
};

extern const struct device_ops balloon_ops;

/**
 * balloon_create() - type "virtio-balloon", no options.
 */
int __must_check balloon_create(const struct device_env *env,
				const struct device_config *config,
				struct device **ret, struct error *err);

/* All of these with the device's lock held. */

/**
 * balloon_set() - have the guest keep @bytes of its memory; what is not whole
 * pages is rounded up, and what is more than it has, down.
 */
void balloon_set(struct device *dev, uint64_t bytes);

/**
 * balloon_look() - what the guest has, and said of it last. It is asked to say
 * it anew, for the next time.
 */
void balloon_look(struct device *dev, struct balloon_info *ret);

/**
 * balloon_ask_hints() - have the driver hint at all that is free, as of now.
 *
 * Return: false when there is no driver that can.
 */
bool balloon_ask_hints(struct device *dev);

/**
 * balloon_end_hints() - no more hints are taken, and the driver may use what it
 * kept aside for them. Does nothing when none were asked for.
 */
void balloon_end_hints(struct device *dev);

#endif
