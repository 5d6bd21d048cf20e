// SPDX-License-Identifier: MIT
/*
 * A device that has a disk and nothing to do with it; see holder.h.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/backend/disk.h"
#include "tests/inproc/holder.h"

#define RETRY_NS NS_PER_MS

struct holder_state {
	uint8_t nothing;
};

struct holder {
	struct device dev;
	struct disk *disk;
	struct loop_timer *retry;
	const struct device_hooks *hooks;
	void *hooks_opaque;
	/* What it holds, as it was told; under the device's lock. */
	bool owner;
	bool writer;
	bool wants_owner;
	bool wants_writer;
};

struct holder_fault holder_fault;

static void holder_visit(struct codec *c, void *state)
{
	codec_u8(c, "nothing", &((struct holder_state *)state)->nothing);
}

static void holder_snapshot(struct device *dev __maybe_unused, void *state)
{
	((struct holder_state *)state)->nothing = 0;
}

static int holder_check(struct device *dev __maybe_unused,
			const void *state __maybe_unused,
			struct error *err __maybe_unused)
{
	return 0;
}

static void holder_commit(struct device *dev __maybe_unused,
			  const void *state __maybe_unused)
{
}

static void holder_nothing(struct device *dev __maybe_unused)
{
}

static bool holder_settle(struct device *dev __maybe_unused, uint64_t *ret_ns)
{
	*ret_ns = NS_PER_US;
	return !holder_fault.never_settles;
}

/* Try for what is wanted, and again soon; under the lock. */
static void try_wanted(struct holder *holder)
{
	struct error err;

	if (holder->wants_owner && !disk_take_owner(holder->disk, &err)) {
		holder->owner = true;
		holder->wants_owner = false;
	}
	if (holder->wants_writer && !disk_take_writer(holder->disk, &err)) {
		holder->writer = true;
		holder->wants_writer = false;
	}
	if (holder->wants_owner || holder->wants_writer)
		loop_timer_arm(holder->retry, clock_ns() + RETRY_NS);
}

static void on_retry(void *opaque)
{
	try_wanted(opaque);
}

static int prove(struct holder *holder, const uint8_t *session,
		 struct error *err)
{
	/* It may have come a moment ago. */
	try_wanted(holder);
	return disk_prove(holder->disk, session, err);
}

static int yield(struct holder *holder, struct error *err)
{
	int rc = disk_flush(holder->disk, err);

	if (rc)
		return rc;
	disk_drop_writer(holder->disk);
	holder->writer = false;
	return 0;
}

static int take(struct holder *holder, struct error *err)
{
	int rc = disk_take_writer(holder->disk, err);

	if (rc)
		return rc;
	holder->writer = true;
	return disk_drop_cache(holder->disk, err);
}

static int do_step(struct holder *holder, enum device_handover step,
		   const uint8_t *session, struct error *err)
{
	switch (step) {
	case DEVICE_PROVE:
		return prove(holder, session, err);
	case DEVICE_YIELD:
		return yield(holder, err);
	case DEVICE_TAKE:
		return take(holder, err);
	case DEVICE_RECLAIM:
		disk_unprove(holder->disk);
		holder->wants_writer = !holder->writer;
		try_wanted(holder);
		return 0;
	case DEVICE_OWN:
		holder->wants_owner = true;
		try_wanted(holder);
		return 0;
	case DEVICE_LEAVE:
		disk_unlock(holder->disk);
		return 0;
	}
	return -EINVAL;
}

static int holder_handover(struct device *dev, enum device_handover step,
			   const uint8_t *session, struct error *err)
{
	struct holder *holder = container_of(dev, struct holder, dev);
	int rc;

	if (holder_fault.armed && holder_fault.step == step)
		return error_set(err, -EIO, "a fault of this test");
	pthread_mutex_lock(&dev->lock);
	rc = do_step(holder, step, session, err);
	pthread_mutex_unlock(&dev->lock);
	return rc;
}

static void holder_free(struct device *dev)
{
	struct holder *holder = container_of(dev, struct holder, dev);

	loop_timer_remove(holder->retry);
	disk_close(holder->disk);
	device_fini(dev);
	free(holder);
}

static const struct device_ops holder_ops = {
	.type = "virtio-blk",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct holder_state),
	.visit = holder_visit,
	.snapshot = holder_snapshot,
	.check = holder_check,
	.commit = holder_commit,
	.pause = holder_nothing,
	.resume = holder_nothing,
	.reset = holder_nothing,
	.settle = holder_settle,
	.handover = holder_handover,
	.left_behind = device_leaves_nothing,
	.free = holder_free,
};

/* The value of a word of the options; "" when it isn't there. */
static void option_of(const struct device_config *config, const char *word,
		      char *ret, size_t size)
{
	const char *found = strstr(config->options, word);

	ret[0] = '\0';
	if (found)
		snprintf(ret, size, "%.*s",
			 (int)strcspn(found + strlen(word), ","),
			 found + strlen(word));
}

static int holder_create(const struct device_env *env,
			 const struct device_config *config,
			 struct device **ret, struct error *err)
{
	struct holder *holder = calloc(1, sizeof(*holder));
	bool readonly = strstr(config->options, "readonly");
	char name[100], size[32];
	struct error ignored;
	int rc;

	ck_assert_ptr_nonnull(holder);
	if (!env->backends) {
		free(holder);
		return error_set(err, -ENOENT, "no disks can be had here");
	}
	option_of(config, "name=", name, sizeof(name));
	option_of(config, "size=", size, sizeof(size));
	rc = env->backends->open_disk(env->backends->opaque, config->id, name,
				      strtoull(size, NULL, 10), readonly,
				      &holder->disk, err);
	if (rc) {
		free(holder);
		return rc;
	}
	device_init(&holder->dev, &holder_ops, config->id);
	holder->hooks = env->hooks;
	holder->hooks_opaque = env->hooks_opaque;
	ck_assert(!loop_timer_add(env->loop, on_retry, holder,
				  &holder->dev.lock, &holder->retry, &ignored));
	/* Who opens for `run` has locked it, so that this changes nothing. */
	holder->owner = !disk_take_owner(holder->disk, &ignored);
	holder->writer =
		holder->owner && !disk_take_writer(holder->disk, &ignored);
	*ret = &holder->dev;
	return 0;
}

const struct device_type *__real_device_type_find(const char *type);
const struct device_type *__wrap_device_type_find(const char *type);

const struct device_type *__wrap_device_type_find(const char *type)
{
	static const struct device_type holder = { &holder_ops, holder_create };

	if (!strcmp(type, holder_ops.type))
		return &holder;
	return __real_device_type_find(type);
}

/* ---- for tests ---- */

void holder_holds(struct rig_host *host, bool *ret_owner, bool *ret_writer)
{
	struct device *dev = vm_device_find(host->vm, "disk0");
	struct holder *holder = container_of(dev, struct holder, dev);

	pthread_mutex_lock(&dev->lock);
	*ret_owner = holder->owner;
	*ret_writer = holder->writer;
	pthread_mutex_unlock(&dev->lock);
}

void holder_ask_for_stop(struct rig_host *host)
{
	struct device *dev = vm_device_find(host->vm, "disk0");
	struct holder *holder = container_of(dev, struct holder, dev);

	pthread_mutex_lock(&dev->lock);
	holder->hooks->request_stop(holder->hooks_opaque, "no space left");
	pthread_mutex_unlock(&dev->lock);
}
