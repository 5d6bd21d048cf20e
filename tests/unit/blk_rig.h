/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the block device stand it on: a virtio rig with a disk that
 * is a real file, whose host fails when told to (its calls are replaced at link
 * time; include this in one file a program), and a driver's requests.
 */
#ifndef GODWIT_TESTS_BLK_RIG_H
#define GODWIT_TESTS_BLK_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "devices/backend/disk.h"
#include "devices/virtio/blk_internal.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/sandbox.h"

#define SECTORS 65536
#define HEADERS 0x100000ULL
#define STATUS	0x110000ULL
#define DATA	0x200000ULL
#define NOT_YET 0xff /* in the place of a status */

#define FEATURES                                                            \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET) | \
	 VIRTIO_BIT(BLK_F_FLUSH) | VIRTIO_BIT(BLK_F_MQ))

/* ---- a host that fails when told to ---- */

static _Atomic int fail_errno; /* of all that writes; 0: all is well */
static _Atomic unsigned int nfailed;
static _Atomic unsigned int nflushes;

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	if (!fail_errno)
		return __real_pwritev(fd, iov, n, offset);
	nfailed++;
	errno = fail_errno;
	return -1;
}

int __wrap_fdatasync(int fd)
{
	nflushes++;
	if (!fail_errno)
		return __real_fdatasync(fd);
	nfailed++;
	errno = fail_errno;
	return -1;
}

/* ---- a machine with a disk ---- */

struct backing {
	char path[64];
	const char *options;
	bool by_fd; /* which means preadv, that can fail */
	bool locked;
};

static int open_disk(void *opaque, const char *id, const char *name,
		     uint64_t size, bool readonly, struct disk **ret,
		     struct error *err)
{
	const struct backing *backing = opaque;
	struct disk_params params = {
		.id = id,
		.path = backing->path,
		.fd = -1,
		.readonly = readonly,
	};
	int rc;

	ck_assert_str_eq(name, "");
	ck_assert(!size || size == SECTORS * DISK_SECTOR || size == 512);
	if (backing->by_fd)
		params.fd = open(backing->path, O_RDWR | O_CLOEXEC);
	rc = disk_open(&params, ret, err);
	if (!rc && backing->locked)
		rc = disk_lock(*ret, err);
	return rc;
}

static const struct device_backends *backends_of(struct backing *backing)
{
	static struct device_backends backends = { .open_disk = open_disk };

	backends.opaque = backing;
	return &backends;
}

static struct backing *making; /* what the next one is made of */
static const struct sandbox *sandbox;

static int create(const struct device_env *env,
		  const struct device_config *config, struct device **ret,
		  struct error *err)
{
	struct device_env with_disk = *env;
	struct device_config with_options = *config;

	with_disk.backends = backends_of(making);
	with_disk.sandbox = sandbox;
	snprintf(with_options.options, sizeof(with_options.options), "%s",
		 making->options);
	return blk_create(&with_disk, &with_options, ret, err);
}

static void backing_init(struct backing *backing, const char *options,
			 bool by_fd)
{
	int fd;

	fail_errno = 0;
	nfailed = 0;
	*backing = (struct backing){ .path = "/dev/shm/godwit-blk-XXXXXX",
				     .options = options,
				     .by_fd = by_fd };
	fd = mkstemp(backing->path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, SECTORS * DISK_SECTOR), 0);
	close(fd);
}

#define QUEUES 2

struct drive {
	struct backing backing;
	struct virtio_rig *rig;
	struct vring rings[QUEUES];
};

static struct virtio_rig *make_rig(struct backing *backing)
{
	making = backing;
	return virtio_rig_new(create, QUEUES + 1);
}

static void drive_start(struct drive *drive)
{
	RIG_OP(drive->rig->base, resume);
	negotiate(drive->rig, strstr(drive->backing.options, "readonly")
				      ? FEATURES & ~VIRTIO_BIT(BLK_F_FLUSH)
				      : FEATURES);
	ck_assert(status_of(drive->rig) & VIRTIO_FEATURES_OK);
	enable_msix(drive->rig, QUEUES + 1);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_up_queue(drive->rig, i, 256, &drive->rings[i]);
	driver_ok(drive->rig);
}

static struct drive *drive_new(const char *options, bool by_fd)
{
	struct drive *drive = calloc(1, sizeof(*drive));

	ck_assert_ptr_nonnull(drive);
	backing_init(&drive->backing, options, by_fd);
	drive->rig = make_rig(&drive->backing);
	drive_start(drive);
	return drive;
}

static void drive_free(struct drive *drive)
{
	virtio_rig_free(drive->rig);
	unlink(drive->backing.path);
	free(drive);
}

static void *at(struct drive *drive, uint64_t gpa)
{
	return memory_hva(drive->rig->mem, gpa, 1);
}

/* ---- requests ---- */

static uint64_t header(struct drive *drive, unsigned int slot, uint32_t type,
		       uint64_t sector)
{
	uint64_t gpa = HEADERS + slot * 16ULL;

	memcpy(at(drive, gpa), &type, 4);
	memset((uint8_t *)at(drive, gpa) + 4, 0, 4);
	memcpy((uint8_t *)at(drive, gpa) + 8, &sector, 8);
	return gpa;
}

static uint8_t *status(struct drive *drive, unsigned int slot)
{
	return at(drive, STATUS + slot);
}

/* Header, data and status in a descriptor each: 3 * @slot and the next two. */
static void offer(struct drive *drive, unsigned int queue, unsigned int slot,
		  uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
	struct vring *ring = &drive->rings[queue];
	uint16_t d = (uint16_t)(3 * slot);
	bool in = type == BLK_T_IN || type == BLK_T_GET_ID;

	*status(drive, slot) = NOT_YET;
	vring_desc(ring, d, header(drive, slot, type, sector), 16, VRING_NEXT,
		   len ? d + 1 : d + 2);
	vring_desc(ring, d + 1, data, len, VRING_NEXT | (in ? VRING_WRITE : 0),
		   d + 2);
	vring_desc(ring, d + 2, STATUS + slot, 1, VRING_WRITE, 0);
	vring_offer(ring, d);
}

/* Until the device has given @n chains back, and took no other. */
static void wait_used(struct drive *drive, unsigned int queue, unsigned int n)
{
	struct vring *ring = &drive->rings[queue];
	uint32_t head, len;

	while (n) {
		if (vring_take(ring, &head, &len))
			n--;
		else
			sched_yield();
	}
}

static uint8_t __maybe_unused do_one(struct drive *drive, uint32_t type,
				     uint64_t sector, uint64_t data,
				     uint32_t len)
{
	offer(drive, 0, 0, type, sector, data, len);
	notify(drive->rig, 0);
	wait_used(drive, 0, 1);
	return *status(drive, 0);
}

static void __maybe_unused fill(struct drive *drive, uint64_t gpa, uint8_t with,
				size_t len)
{
	memset(at(drive, gpa), with, len);
}

static bool __maybe_unused holds(struct drive *drive, uint64_t gpa,
				 uint8_t what, size_t len)
{
	const uint8_t *bytes = at(drive, gpa);

	for (size_t i = 0; i < len; i++) {
		if (bytes[i] != what)
			return false;
	}
	return true;
}

static int __maybe_unused hand(struct virtio_rig *rig,
			       enum device_handover step)
{
	static const uint8_t session[DEVICE_SESSION_SIZE] = { 42 };
	struct device *dev = rig->base->dev;
	struct error err;

	return dev->ops->handover(dev, step, session, &err);
}

#endif
