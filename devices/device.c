// SPDX-License-Identifier: MIT
/*
 * What all devices share: the embedded base, and the one explicit table of
 * the types that this build knows. A type that isn't named here doesn't exist.
 */
#include <stdio.h>
#include <string.h>

#include "devices/debug_exit.h"
#include "devices/device.h"
#include "devices/pci.h"
#include "devices/power.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"

static const struct device_type device_types[] = {
	{ &serial_ops, serial_create },
	{ &rtc_ops, rtc_create },
	{ &power_ops, power_create },
	{ &pci_host_ops, pci_host_create },
	{ &rng_ops, rng_create },
	{ &blk_ops, blk_create },
	{ &net_ops, net_create },
	{ &console_ops, console_create },
	{ &balloon_ops, balloon_create },
	{ &debug_exit_ops, debug_exit_create },
};

void device_init(struct device *dev, const struct device_ops *ops,
		 const char *id)
{
	dev->ops = ops;
	snprintf(dev->id, sizeof(dev->id), "%s", id);
	/* Can't fail with default attributes. */
	pthread_mutex_init(&dev->lock, NULL);
}

void device_fini(struct device *dev)
{
	pthread_mutex_destroy(&dev->lock);
}

bool device_settled(struct device *dev __maybe_unused, uint64_t *ret_ns)
{
	*ret_ns = 0;
	return true;
}

int device_no_handover(struct device *dev __maybe_unused,
		       enum device_handover step __maybe_unused,
		       const uint8_t *session __maybe_unused,
		       struct error *err __maybe_unused)
{
	return 0;
}

unsigned int device_leaves_nothing(struct device *dev __maybe_unused)
{
	return 0;
}

int device_open_line(const struct device_env *env, const char *id,
		     struct line **ret, struct error *err)
{
	*ret = NULL;
	if (!env->lines)
		return 0;
	return env->lines->open_line(env->lines->opaque, id, ret, err);
}

const struct device_type *device_type_find(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(device_types); i++) {
		if (!strcmp(device_types[i].ops->type, type))
			return &device_types[i];
	}
	return NULL;
}

const struct device_type *device_type_at(unsigned int index)
{
	if (index >= ARRAY_SIZE(device_types))
		return NULL;
	return &device_types[index];
}
