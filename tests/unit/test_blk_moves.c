// SPDX-License-Identifier: MIT
/*
 * The block device in a move: when it has settled, and how its disk changes
 * hands.
 */
#include "tests/unit/blk_rig.h"

static bool settles(struct device *dev, uint64_t *ret_ns)
{
	bool settled;

	pthread_mutex_lock(&dev->lock);
	settled = dev->ops->settle(dev, ret_ns);
	pthread_mutex_unlock(&dev->lock);
	return settled;
}

START_TEST(blk_settles_by_a_flush_since_the_last_pause)
{
	struct drive *drive = drive_new("queues=2", true);
	struct device *dev = drive->rig->base->dev;
	uint64_t ns = 0;

	ck_assert(!settles(dev, &ns));
	while (!settles(dev, &ns))
		sched_yield();
	ck_assert_uint_gt(ns, 0);
	ck_assert_uint_gt(nflushes, 0);
	RIG_OP(drive->rig->base, pause);
	RIG_OP(drive->rig->base, resume);
	ck_assert(!settles(dev, &ns));
	drive_free(drive);
	drive = drive_new("queues=2,readonly", true);
	ck_assert(settles(drive->rig->base->dev, &ns));
	ck_assert_uint_eq(ns, 0);
	drive_free(drive);
}
END_TEST

/* Does somebody else get the disk, by @lock? */
static bool others_lock(const struct drive *drive,
			int (*lock)(struct disk *disk, struct error *err))
{
	struct disk_params params = { .id = "x",
				      .path = drive->backing.path,
				      .fd = -1 };
	struct disk *disk;
	struct error err;
	bool got;

	ck_assert_int_eq(disk_open(&params, &disk, &err), 0);
	got = !lock(disk, &err);
	disk_close(disk);
	return got;
}

static bool others_get_it(const struct drive *drive)
{
	return others_lock(drive, disk_lock);
}

static bool others_get_owner(const struct drive *drive)
{
	return others_lock(drive, disk_take_owner);
}

/* A drive that has its disk; what is made of the same after it has not. */
static struct virtio_rig *make_source(struct drive *drive)
{
	struct virtio_rig *source;

	backing_init(&drive->backing, "", true);
	drive->backing.locked = true;
	source = make_rig(&drive->backing);
	drive->backing.locked = false;
	return source;
}

START_TEST(blk_hands_its_disk_over)
{
	struct drive *drive = calloc(1, sizeof(*drive));
	struct virtio_rig *source, *target;
	unsigned int flushes;

	source = make_source(drive);
	target = make_rig(&drive->backing);
	ck_assert_int_eq(hand(source, DEVICE_PROVE), 0);
	ck_assert_int_eq(hand(target, DEVICE_TAKE), -EBUSY);
	flushes = nflushes;
	ck_assert_int_eq(hand(source, DEVICE_YIELD), 0);
	ck_assert_uint_eq(nflushes, flushes + 1);
	ck_assert_int_eq(hand(target, DEVICE_TAKE), 0);
	/* Not yet the target's: it is, as soon as the source has gone. */
	ck_assert_int_eq(hand(target, DEVICE_OWN), 0);
	ck_assert_int_eq(hand(target, DEVICE_PROVE), -EBUSY);
	/* A move on that comes too early is none the worse for it. */
	ck_assert_int_eq(hand(target, DEVICE_RECLAIM), 0);
	ck_assert_int_eq(hand(source, DEVICE_LEAVE), 0);
	while (others_get_owner(drive))
		sched_yield();
	ck_assert_int_eq(hand(target, DEVICE_PROVE), 0);
	ck_assert(!others_get_it(drive));
	virtio_rig_free(source);
	ck_assert(!others_get_it(drive));
	virtio_rig_free(target);
	ck_assert(others_get_it(drive));
	unlink(drive->backing.path);
	free(drive);
}
END_TEST

START_TEST(blk_takes_its_disk_back_in_the_background)
{
	struct drive *drive = calloc(1, sizeof(*drive));
	struct virtio_rig *source, *target;

	source = make_source(drive);
	target = make_rig(&drive->backing);
	ck_assert_int_eq(hand(source, DEVICE_PROVE), 0);
	ck_assert_int_eq(hand(source, DEVICE_YIELD), 0);
	ck_assert_int_eq(hand(target, DEVICE_TAKE), 0);
	ck_assert_int_eq(hand(source, DEVICE_RECLAIM), 0);
	virtio_rig_free(target);
	/* Nobody asks for it but the source's own thread. */
	target = make_rig(&drive->backing);
	while (!hand(target, DEVICE_TAKE)) {
		ck_assert_int_eq(hand(target, DEVICE_YIELD), 0);
		sched_yield();
	}
	virtio_rig_free(target);
	/* A flush that fails fails the move before anything is let go. */
	fail_errno = EIO;
	ck_assert_int_eq(hand(source, DEVICE_YIELD), -EIO);
	fail_errno = 0;
	target = make_rig(&drive->backing);
	ck_assert_int_eq(hand(target, DEVICE_TAKE), -EBUSY);
	virtio_rig_free(target);
	virtio_rig_free(source);
	unlink(drive->backing.path);
	free(drive);
}
END_TEST

UNIT_SUITE("blk moves", blk_settles_by_a_flush_since_the_last_pause,
	   blk_hands_its_disk_over, blk_takes_its_disk_back_in_the_background)
