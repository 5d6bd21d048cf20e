/* SPDX-License-Identifier: MIT */
/*
 * A virtio device that does nothing but keep count of what the core wants of
 * it, and lets go of its queues when it is told to. A call that breaks the
 * core's contract ends the program.
 */
#ifndef GODWIT_TESTS_VIRTIO_TOY_H
#define GODWIT_TESTS_VIRTIO_TOY_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/virtio.h"

#define TOY_QUEUES  3
#define TOY_SIZE    8
#define TOY_CONFIG  12
#define TOY_FEATURE 5

struct toy_state {
	struct virtio_state virtio;
};

struct toy {
	struct virtio virtio;
	uint8_t config[TOY_CONFIG];
	bool holds;		 /* stopped queues wait for toy_stopped() */
	bool served[TOY_QUEUES]; /* between start_queue() and stop_queue() */
	bool asked[TOY_QUEUES];	 /* to stop, and hasn't */
	unsigned int starts[TOY_QUEUES];
	unsigned int forgets;
};

static struct toy *to_toy(struct virtio *v)
{
	return container_of(v, struct toy, virtio);
}

static void toy_config_read(struct virtio *v, uint32_t offset, void *data,
			    unsigned int size)
{
	assert(offset + size <= TOY_CONFIG);
	memcpy(data, to_toy(v)->config + offset, size);
}

static void toy_config_write(struct virtio *v, uint32_t offset,
			     const void *data, unsigned int size)
{
	assert(offset + size <= TOY_CONFIG);
	memcpy(to_toy(v)->config + offset, data, size);
}

static void toy_start_queue(struct virtio *v, unsigned int index)
{
	struct toy *toy = to_toy(v);

	assert(!toy->served[index] && !toy->asked[index]);
	toy->served[index] = true;
	toy->starts[index]++;
}

static void toy_stop_queue(struct virtio *v, unsigned int index)
{
	struct toy *toy = to_toy(v);

	assert(toy->served[index]);
	toy->served[index] = false;
	if (toy->holds)
		toy->asked[index] = true;
	else
		virtio_queue_stopped(v, index);
}

static void toy_forget(struct virtio *v)
{
	struct toy *toy = to_toy(v);

	for (unsigned int i = 0; i < TOY_QUEUES; i++)
		assert(!toy->served[i] && !toy->asked[i]);
	toy->forgets++;
}

static const struct virtio_ops toy_virtio_ops = {
	.id = 42,
	.class_code = 0xff0000,
	.config_size = TOY_CONFIG,
	.config_read = toy_config_read,
	.config_write = toy_config_write,
	.start_queue = toy_start_queue,
	.stop_queue = toy_stop_queue,
	.forget = toy_forget,
};

static struct virtio *dev_to_virtio(struct device *dev)
{
	return container_of(dev, struct virtio, dev);
}

static void toy_visit(struct codec *c, void *state)
{
	virtio_visit(c, state);
}

static void toy_snapshot(struct device *dev, void *state)
{
	virtio_snapshot(dev_to_virtio(dev), state);
}

static int toy_check(struct device *dev, const void *state, struct error *err)
{
	return virtio_check(dev_to_virtio(dev), state, err);
}

static void toy_commit(struct device *dev, const void *state)
{
	virtio_commit(dev_to_virtio(dev), state);
}

static void toy_pause(struct device *dev)
{
	virtio_pause(dev_to_virtio(dev));
}

static void toy_resume(struct device *dev)
{
	virtio_resume(dev_to_virtio(dev));
}

static void toy_reset(struct device *dev)
{
	virtio_reset(dev_to_virtio(dev));
}

static void toy_free(struct device *dev)
{
	struct virtio *v = dev_to_virtio(dev);

	virtio_fini(v);
	free(to_toy(v));
}

static const struct device_ops toy_ops = {
	.type = "toy",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct toy_state),
	.visit = toy_visit,
	.snapshot = toy_snapshot,
	.check = toy_check,
	.commit = toy_commit,
	.pause = toy_pause,
	.resume = toy_resume,
	.reset = toy_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = toy_free,
};

static int toy_create(const struct device_env *env,
		      const struct device_config *config, struct device **ret,
		      struct error *err)
{
	const struct virtio_params params = {
		.device_ops = &toy_ops,
		.ops = &toy_virtio_ops,
		.features = VIRTIO_BIT(TOY_FEATURE),
		.nqueues = TOY_QUEUES,
		.queue_size_max = TOY_SIZE,
	};
	struct toy *toy = calloc(1, sizeof(*toy));
	int code = virtio_init(&toy->virtio, env, config, &params, err);

	if (code) {
		free(toy);
		return code;
	}
	*ret = &toy->virtio.dev;
	return 0;
}

/* Queue @index, which was asked to stop, has. */
static void toy_stopped(struct toy *toy, unsigned int index)
{
	assert(toy->asked[index]);
	toy->asked[index] = false;
	virtio_queue_stopped(&toy->virtio, index);
}

#endif
