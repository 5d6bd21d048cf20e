// SPDX-License-Identifier: MIT
/*
 * The block device; see blk.h. Here is what the core, the machine and a move
 * ask of it; requests are the I/O thread's.
 *
 * Threads: the core's calls come under the device's lock and leave orders for
 * the I/O thread. handover() comes without, on a migration's thread.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/blk_internal.h"
#include "vmm/log.h"

#define VIRTIO_ID_BLOCK 2
/* Mass storage that is neither SCSI nor IDE; PCI 3.0, appendix D. */
#define PCI_CLASS_STORAGE 0x018000

/* Blocks of 4 KiB are what files are kept in: 2^3 sectors. */
#define PHYSICAL_EXP 3

/* Section 5.2.4. */
struct blk_config {
	uint64_t capacity; /* sectors */
	uint32_t size_max;
	uint32_t seg_max;
	uint32_t geometry;
	uint32_t blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};

_Static_assert(sizeof(struct blk_config) == 64 &&
		       offsetof(struct blk_config, unused1) == 57,
	       "struct virtio_blk_config");

static struct blk *dev_to_blk(struct device *dev)
{
	return container_of(dev, struct blk, virtio.dev);
}

/* ---- what the core asks ---- */

static void blk_config_read(struct virtio *v, uint32_t offset, void *data,
			    unsigned int size)
{
	const struct blk *blk = blk_of(v);
	bool writable = !blk->options.readonly;
	struct blk_config config = {
		.capacity = htole64(disk_size(blk->disk) / DISK_SECTOR),
		.seg_max = htole32(BLK_SEG_MAX),
		.blk_size = htole32(DISK_SECTOR),
		.physical_block_exp = PHYSICAL_EXP,
		.num_queues = htole16((uint16_t)v->nqueues),
	};

	if (writable) {
		config.max_discard_sectors = htole32(BLK_DISCARD_SECTORS_MAX);
		config.max_discard_seg = htole32(1);
		config.discard_sector_alignment = htole32(1 << PHYSICAL_EXP);
		config.max_write_zeroes_sectors =
			htole32(BLK_ZEROES_SECTORS_MAX);
		config.max_write_zeroes_seg = htole32(1);
		config.write_zeroes_may_unmap = 1;
	}
	memcpy(data, (uint8_t *)&config + offset, size);
}

/* Nothing in it can be written: CONFIG_WCE is not offered. */
static void blk_config_write(struct virtio *v __maybe_unused,
			     uint32_t offset __maybe_unused,
			     const void *data __maybe_unused,
			     unsigned int size __maybe_unused)
{
}

static void blk_start_queue(struct virtio *v, unsigned int index)
{
	blk_of(v)->queues[index].to_start = true;
	blk_io_tell(blk_of(v));
}

static void blk_stop_queue(struct virtio *v, unsigned int index)
{
	blk_of(v)->queues[index].to_stop = true;
	blk_io_tell(blk_of(v));
}

static void blk_forget(struct virtio *v)
{
	blk_of(v)->nkept = 0;
}

static const struct virtio_ops blk_virtio_ops = {
	.id = VIRTIO_ID_BLOCK,
	.class_code = PCI_CLASS_STORAGE,
	.config_size = offsetof(struct blk_config, unused1) + 3,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.start_queue = blk_start_queue,
	.stop_queue = blk_stop_queue,
	.forget = blk_forget,
};

static uint64_t features(const struct blk *blk)
{
	uint64_t common = VIRTIO_BIT(BLK_F_SEG_MAX) |
			  VIRTIO_BIT(BLK_F_BLK_SIZE) |
			  VIRTIO_BIT(BLK_F_TOPOLOGY) | VIRTIO_BIT(BLK_F_MQ);

	if (blk->options.readonly)
		return common | VIRTIO_BIT(BLK_F_RO);
	return common | VIRTIO_BIT(BLK_F_FLUSH) | VIRTIO_BIT(BLK_F_DISCARD) |
	       VIRTIO_BIT(BLK_F_WRITE_ZEROES);
}

/* ---- state ---- */

static void blk_visit(struct codec *c, void *state)
{
	struct blk_state *s = state;

	virtio_visit(c, &s->virtio);
	codec_count(c, "nkept", &s->nkept, BLK_DEPTH);
	for (uint32_t i = 0; i < s->nkept; i++) {
		codec_enter(c, "kept");
		codec_u16(c, "queue", &s->kept[i].queue);
		codec_u16(c, "head", &s->kept[i].head);
		codec_leave(c);
	}
}

static void blk_snapshot(struct device *dev, void *state)
{
	const struct blk *blk = dev_to_blk(dev);
	struct blk_state *s = state;

	virtio_snapshot(&dev_to_blk(dev)->virtio, &s->virtio);
	s->nkept = blk->nkept;
	memcpy(s->kept, blk->kept, sizeof(s->kept));
}

/*
 * What was given back doesn't wait. One chain may wait twice: a driver that
 * breaks the rules offers it twice.
 */
static int check_kept(const struct blk *blk, const struct blk_state *s,
		      struct error *err)
{
	uint16_t left[BLK_QUEUES_MAX];

	for (unsigned int i = 0; i < blk->virtio.nqueues; i++) {
		const struct virtqueue_state *ring = &s->virtio.queues[i].ring;

		left[i] = (uint16_t)(ring->next_avail - ring->next_used);
	}
	for (uint32_t i = 0; i < s->nkept; i++) {
		uint16_t queue = s->kept[i].queue;
		uint16_t head = s->kept[i].head;

		if (queue >= blk->virtio.nqueues ||
		    head >= s->virtio.queues[queue].ring.size || !left[queue])
			return error_set(err, -EINVAL,
					 "%s: kept %u: head %u of queue %u is "
					 "none that can wait",
					 blk->virtio.dev.id, i, head, queue);
		left[queue]--;
	}
	return 0;
}

static int blk_check(struct device *dev, const void *state, struct error *err)
{
	const struct blk *blk = dev_to_blk(dev);
	const struct blk_state *s = state;
	int rc = virtio_check(&blk->virtio, &s->virtio, err);

	if (!rc && s->nkept && blk->options.readonly)
		rc = error_set(err, -EINVAL, "%s: nkept %u, and it is readonly",
			       blk->virtio.dev.id, s->nkept);
	return rc ? rc : check_kept(blk, s, err);
}

static void blk_commit(struct device *dev, const void *state)
{
	struct blk *blk = dev_to_blk(dev);
	const struct blk_state *s = state;

	virtio_commit(&blk->virtio, &s->virtio);
	blk->nkept = s->nkept;
	memcpy(blk->kept, s->kept, sizeof(blk->kept));
}

/* ---- life ---- */

static void blk_pause(struct device *dev)
{
	virtio_pause(&dev_to_blk(dev)->virtio);
}

static void blk_resume(struct device *dev)
{
	struct blk *blk = dev_to_blk(dev);

	blk->settled = false;
	virtio_resume(&blk->virtio);
}

static void blk_reset(struct device *dev)
{
	virtio_reset(&dev_to_blk(dev)->virtio);
}

static bool blk_settle(struct device *dev, uint64_t *ret_ns)
{
	struct blk *blk = dev_to_blk(dev);

	if (blk->options.readonly)
		return device_settled(dev, ret_ns);
	if (!blk->settling) {
		blk->settling = true;
		blk->flush_wanted = true;
		blk_io_tell(blk);
	}
	*ret_ns = blk->settle_ns;
	return blk->settled;
}

/* ---- moves ---- */

/* Have it now, or have the I/O thread try until it is had. */
static void want_lock(struct blk *blk, enum blk_lock which)
{
	struct error err;
	int rc = which == BLK_LOCK_WRITER ? disk_take_writer(blk->disk, &err)
					  : disk_take_owner(blk->disk, &err);

	blk->lock_wanted = rc ? which : BLK_LOCK_NONE;
	if (!rc)
		return;
	log_debug("%s: %s; trying again", blk->virtio.dev.id, err.text);
	blk_io_tell(blk);
}

static int handover_locked(struct blk *blk, enum device_handover step,
			   const uint8_t *session, struct error *err)
{
	int rc;

	switch (step) {
	case DEVICE_PROVE:
		rc = disk_prove(blk->disk, session, err);
		if (!rc)
			blk->lock_wanted = BLK_LOCK_NONE;
		return rc;
	case DEVICE_YIELD:
		blk->lock_wanted = BLK_LOCK_NONE;
		disk_drop_writer(blk->disk);
		return 0;
	case DEVICE_RECLAIM:
		disk_unprove(blk->disk);
		/* A move that came too early let no WRITER go. */
		if (blk->lock_wanted != BLK_LOCK_OWNER)
			want_lock(blk, BLK_LOCK_WRITER);
		return 0;
	case DEVICE_TAKE:
		return disk_take_writer(blk->disk, err);
	case DEVICE_OWN:
		want_lock(blk, BLK_LOCK_OWNER);
		return 0;
	case DEVICE_LEAVE:
		blk->lock_wanted = BLK_LOCK_NONE;
		disk_unlock(blk->disk);
		return 0;
	}
	return 0;
}

static int blk_handover(struct device *dev, enum device_handover step,
			const uint8_t *session, struct error *err)
{
	struct blk *blk = dev_to_blk(dev);
	int rc = 0;

	/* The device is paused: what is written now stays the last. */
	if (step == DEVICE_YIELD && !blk->options.readonly)
		rc = disk_flush(blk->disk, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&blk->handover_lock);
	rc = handover_locked(blk, step, session, err);
	pthread_mutex_unlock(&blk->handover_lock);
	if (!rc && step == DEVICE_TAKE)
		rc = disk_drop_cache(blk->disk, err);
	return rc;
}

/* ---- making and unmaking ---- */

static void blk_free(struct device *dev)
{
	struct blk *blk = dev_to_blk(dev);

	/* A VM that is freed while it ran has requests in flight. */
	pthread_mutex_lock(&dev->lock);
	virtio_pause(&blk->virtio);
	pthread_mutex_unlock(&dev->lock);
	blk_io_free(blk);
	virtio_fini(&blk->virtio);
	disk_close(blk->disk);
	pthread_mutex_destroy(&blk->handover_lock);
	free(blk);
}

const struct device_ops blk_ops = {
	.type = "virtio-blk",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct blk_state),
	.visit = blk_visit,
	.snapshot = blk_snapshot,
	.check = blk_check,
	.commit = blk_commit,
	.pause = blk_pause,
	.resume = blk_resume,
	.reset = blk_reset,
	.settle = blk_settle,
	.handover = blk_handover,
	.left_behind = device_leaves_nothing,
	.free = blk_free,
};

static int open_disk(const struct device_env *env, const char *id,
		     const struct blk_options *options, struct disk **ret,
		     struct error *err)
{
	struct disk *disk;
	int rc;

	if (!env->backends)
		return error_set(err, -ENODEV, "there are no disks here");
	rc = env->backends->open_disk(env->backends->opaque, id, options->name,
				      options->size, options->readonly, &disk,
				      err);
	if (rc)
		return rc;
	if (disk_readonly(disk) && !options->readonly)
		rc = error_set(err, -EROFS, "%s can only be read",
			       disk_path(disk));
	else if (options->size && options->size != disk_size(disk))
		rc = error_set(err, -EINVAL,
			       "%s has %llu bytes, and the guest's disk %llu",
			       disk_path(disk),
			       (unsigned long long)disk_size(disk),
			       (unsigned long long)options->size);
	if (rc)
		disk_close(disk);
	else
		*ret = disk;
	return rc;
}

static int init(struct blk *blk, const struct device_env *env,
		const struct device_config *config, struct error *err)
{
	const struct virtio_params params = {
		.device_ops = &blk_ops,
		.ops = &blk_virtio_ops,
		.features = features(blk),
		.nqueues = blk->options.queues,
		.queue_size_max = BLK_QUEUE_SIZE,
	};
	int rc = virtio_init(&blk->virtio, env, config, &params, err);

	if (rc)
		return rc;
	rc = blk_io_create(blk, env, err);
	if (rc) {
		blk_io_free(blk);
		virtio_fini(&blk->virtio);
		return rc;
	}
	log_info("%s: %s%s, %llu bytes, by %s", config->id,
		 disk_path(blk->disk),
		 blk->options.readonly ? ", readonly" : "",
		 (unsigned long long)disk_size(blk->disk),
		 disk_engine_name(blk->engine));
	return 0;
}

int blk_create(const struct device_env *env, const struct device_config *config,
	       struct device **ret, struct error *err)
{
	struct blk *blk = calloc(1, sizeof(*blk));
	int rc;

	if (!blk)
		return error_set(err, -ENOMEM, "out of memory");
	blk->wake_fd = -1;
	blk->hooks = env->hooks;
	blk->hooks_opaque = env->hooks_opaque;
	/* Can't fail with default attributes. */
	pthread_mutex_init(&blk->handover_lock, NULL);
	rc = blk_options_parse(config->options, &blk->options, err);
	if (!rc)
		rc = open_disk(env, config->id, &blk->options, &blk->disk, err);
	if (!rc)
		rc = init(blk, env, config, err);
	if (rc) {
		disk_close(blk->disk);
		pthread_mutex_destroy(&blk->handover_lock);
		free(blk);
		return rc;
	}
	*ret = &blk->virtio.dev;
	return 0;
}
