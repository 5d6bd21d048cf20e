/* SPDX-License-Identifier: MIT */
/*
 * The entropy device: random bytes from the host's kernel.
 *
 * Spec: VIRTIO 1.2, section 5.4.
 */
#ifndef GODWIT_DEVICES_VIRTIO_RNG_H
#define GODWIT_DEVICES_VIRTIO_RNG_H

#include "devices/virtio/virtio.h"

#define RNG_QUEUE_SIZE 64
/* One for the queue, one for the configuration. */
#define RNG_VECTORS 2

struct rng_state {
	struct virtio_state virtio;
};

extern const struct device_ops rng_ops;

/**
 * rng_create() - type "virtio-rng", no options.
 */
int __must_check rng_create(const struct device_env *env,
			    const struct device_config *config,
			    struct device **ret, struct error *err);

#endif
