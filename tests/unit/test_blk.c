// SPDX-License-Identifier: MIT
/*
 * The block device, as its driver sees it: requests of all shapes on a real
 * file, failures of the host, and what of all that travels.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

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

static uint8_t do_one(struct drive *drive, uint32_t type, uint64_t sector,
		      uint64_t data, uint32_t len)
{
	offer(drive, 0, 0, type, sector, data, len);
	notify(drive->rig, 0);
	wait_used(drive, 0, 1);
	return *status(drive, 0);
}

static void fill(struct drive *drive, uint64_t gpa, uint8_t with, size_t len)
{
	memset(at(drive, gpa), with, len);
}

static bool holds(struct drive *drive, uint64_t gpa, uint8_t what, size_t len)
{
	const uint8_t *bytes = at(drive, gpa);

	for (size_t i = 0; i < len; i++) {
		if (bytes[i] != what)
			return false;
	}
	return true;
}

static bool is_dirty(struct drive *drive, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return drive->rig->mem->dirty[page / 64] >> (page % 64) & 1;
}

static uint8_t range(struct drive *drive, uint32_t type, uint64_t sector,
		     uint32_t count, uint32_t flags)
{
	uint8_t *bytes = at(drive, DATA);

	memcpy(bytes, &sector, 8);
	memcpy(bytes + 8, &count, 4);
	memcpy(bytes + 12, &flags, 4);
	return do_one(drive, type, 0, DATA, 16);
}

START_TEST(blk_reads_what_was_written)
{
	for (int by_fd = 0; by_fd < 2; by_fd++) {
		struct drive *drive = drive_new("queues=2", by_fd);

		fill(drive, DATA, 0xa5, 4096);
		ck_assert_int_eq(do_one(drive, BLK_T_OUT, 8, DATA, 4096), 0);
		ck_assert_int_eq(do_one(drive, BLK_T_FLUSH, 0, 0, 0), 0);
		ck_assert_int_eq(
			do_one(drive, BLK_T_IN, 7, DATA + 0x10000, 3 * 512), 0);
		ck_assert(holds(drive, DATA + 0x10000, 0, 512));
		ck_assert(holds(drive, DATA + 0x10000 + 512, 0xa5, 1024));
		/* What the host wrote is told to a move. */
		ck_assert(is_dirty(drive, DATA + 0x10000));
		ck_assert(is_dirty(drive, STATUS));
		ck_assert(!is_dirty(drive, DATA));
		drive_free(drive);
	}
}
END_TEST

START_TEST(blk_takes_headers_data_and_status_wherever_they_lie)
{
	struct drive *drive = drive_new("queues=2", false);
	struct vring *ring = &drive->rings[0];
	uint8_t *bytes = at(drive, DATA);

	/* Header and data in one, cut at odd places; status alone. */
	memcpy(bytes, at(drive, header(drive, 0, BLK_T_OUT, 3)), 16);
	memset(bytes + 16, 'w', 1024);
	*status(drive, 0) = NOT_YET;
	vring_desc(ring, 0, DATA, 5, VRING_NEXT, 1);
	vring_desc(ring, 1, DATA + 5, 300, VRING_NEXT, 2);
	vring_desc(ring, 2, DATA + 305, 16 + 1024 - 305, VRING_NEXT, 3);
	vring_desc(ring, 3, STATUS, 1, VRING_WRITE, 0);
	vring_offer(ring, 0);
	notify(drive->rig, 0);
	wait_used(drive, 0, 1);
	ck_assert_int_eq(*status(drive, 0), BLK_S_OK);
	/* Data and status in one, behind another. */
	fill(drive, DATA, NOT_YET, 0x1000);
	vring_desc(ring, 0, header(drive, 0, BLK_T_IN, 3), 16, VRING_NEXT, 1);
	vring_desc(ring, 1, DATA, 500, VRING_WRITE | VRING_NEXT, 2);
	vring_desc(ring, 2, DATA + 0x800, 12 + 512 + 1, VRING_WRITE, 0);
	vring_offer(ring, 0);
	notify(drive->rig, 0);
	wait_used(drive, 0, 1);
	ck_assert(holds(drive, DATA, 'w', 500));
	ck_assert(holds(drive, DATA + 500, NOT_YET, 100));
	ck_assert(holds(drive, DATA + 0x800, 'w', 524));
	ck_assert_int_eq(bytes[0x800 + 524], BLK_S_OK);
	ck_assert_int_eq(bytes[0x800 + 525], NOT_YET);
	drive_free(drive);
}
END_TEST

START_TEST(blk_tells_its_serial_number)
{
	struct drive *drive =
		drive_new("queues=2,serial=01234567890123456789", false);

	fill(drive, DATA, 0xff, 64);
	ck_assert_int_eq(do_one(drive, BLK_T_GET_ID, 0, DATA, 20), BLK_S_OK);
	ck_assert_mem_eq(at(drive, DATA), "01234567890123456789\xff", 21);
	/* And as much of it as is asked for. */
	fill(drive, DATA, 0xff, 64);
	ck_assert_int_eq(do_one(drive, BLK_T_GET_ID, 0, DATA, 4), BLK_S_OK);
	ck_assert_mem_eq(at(drive, DATA), "0123\xff", 5);
	drive_free(drive);
	drive = drive_new("queues=2,serial=a", false);
	fill(drive, DATA, 0xff, 64);
	ck_assert_int_eq(do_one(drive, BLK_T_GET_ID, 0, DATA, 20), BLK_S_OK);
	ck_assert_mem_eq(at(drive, DATA), "a\0\0\0", 4);
	drive_free(drive);
}
END_TEST

START_TEST(blk_discards_and_zeroes_ranges)
{
	struct drive *drive = drive_new("queues=2", false);

	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		fill(drive, DATA, 'x', 0x8000);
		ck_assert_int_eq(do_one(drive, BLK_T_OUT, 0, DATA, 0x8000), 0);
		ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, 9, 3, unmap),
				 BLK_S_OK);
		ck_assert_int_eq(do_one(drive, BLK_T_IN, 8, DATA, 5 * 512), 0);
		ck_assert(holds(drive, DATA, 'x', 512));
		ck_assert(holds(drive, DATA + 512, 0, 3 * 512));
		ck_assert(holds(drive, DATA + 4 * 512, 'x', 512));
	}
	ck_assert_int_eq(range(drive, BLK_T_DISCARD, 0, 8, 0), BLK_S_OK);
	ck_assert_int_eq(range(drive, BLK_T_DISCARD, 0, 0, 0), BLK_S_OK);
	/* Flags that there aren't. */
	ck_assert_int_eq(range(drive, BLK_T_DISCARD, 0, 8, 1), BLK_S_UNSUPP);
	ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, 0, 8, 2),
			 BLK_S_UNSUPP);
	/* More than the configuration allows, or than there is. */
	ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, 0,
			       BLK_ZEROES_SECTORS_MAX + 1, 0),
			 BLK_S_IOERR);
	ck_assert_int_eq(
		range(drive, BLK_T_WRITE_ZEROES, 0, BLK_ZEROES_SECTORS_MAX, 0),
		BLK_S_OK);
	ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, SECTORS - 1, 2, 0),
			 BLK_S_IOERR);
	ck_assert_int_eq(range(drive, BLK_T_DISCARD, UINT64_MAX, 2, 0),
			 BLK_S_IOERR);
	/* Two ranges, or half a one. */
	ck_assert_int_eq(do_one(drive, BLK_T_DISCARD, 0, DATA, 32),
			 BLK_S_IOERR);
	ck_assert_int_eq(do_one(drive, BLK_T_DISCARD, 0, DATA, 8), BLK_S_IOERR);
	drive_free(drive);
}
END_TEST

START_TEST(blk_refuses_what_is_not_in_the_disk)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{ SECTORS, 512 },    { SECTORS - 1, 1024 },
		{ UINT64_MAX, 512 }, { UINT64_MAX / 512, 512 },
		{ 1ULL << 55, 512 }, { 0, 511 },
		{ 0, 513 },	     { SECTORS - 8, 9 * 512 },
		{ SECTORS + 1, 0 },
	};
	struct drive *drive = drive_new("queues=2", false);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_eq(do_one(drive, BLK_T_IN, bad[i].sector, DATA,
					bad[i].len),
				 BLK_S_IOERR);
		ck_assert_int_eq(do_one(drive, BLK_T_OUT, bad[i].sector, DATA,
					bad[i].len),
				 BLK_S_IOERR);
	}
	ck_assert_int_eq(do_one(drive, BLK_T_IN, SECTORS - 1, DATA, 512),
			 BLK_S_OK);
	ck_assert_int_eq(do_one(drive, BLK_T_IN, SECTORS, DATA, 0), BLK_S_OK);
	ck_assert_int_eq(do_one(drive, 2, 0, DATA, 512), BLK_S_UNSUPP);
	ck_assert_int_eq(do_one(drive, UINT32_MAX, 0, DATA, 512), BLK_S_UNSUPP);
	drive_free(drive);
}
END_TEST

START_TEST(blk_that_is_readonly_is_never_written)
{
	struct drive *drive = drive_new("queues=2,readonly", true);
	uint64_t features;

	ck_assert(!(status_of(drive->rig) & VIRTIO_NEEDS_RESET));
	ck_assert_int_eq(do_one(drive, BLK_T_OUT, 0, DATA, 512), BLK_S_IOERR);
	ck_assert_int_eq(range(drive, BLK_T_DISCARD, 0, 8, 0), BLK_S_IOERR);
	ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, 0, 8, 0),
			 BLK_S_IOERR);
	ck_assert_int_eq(do_one(drive, BLK_T_FLUSH, 0, 0, 0), BLK_S_OK);
	ck_assert_int_eq(do_one(drive, BLK_T_IN, 0, DATA, 512), BLK_S_OK);
	common_write(drive->rig, COMMON_DEVICE_FEATURE_SELECT, 0, 4);
	features = common_read(drive->rig, COMMON_DEVICE_FEATURE, 4);
	ck_assert(features & VIRTIO_BIT(BLK_F_RO));
	ck_assert(!(features & VIRTIO_BIT(BLK_F_DISCARD)));
	ck_assert(!(features & VIRTIO_BIT(BLK_F_FLUSH)));
	drive_free(drive);
}
END_TEST

START_TEST(blk_breaks_on_requests_that_are_none)
{
	for (int i = 0; i < 3; i++) {
		struct drive *drive = drive_new("queues=2", false);
		struct vring *ring = &drive->rings[0];

		header(drive, 0, BLK_T_IN, 0);
		/* Too short; without a status; no such descriptor. */
		vring_desc(ring, 0, HEADERS, i ? 16 : 15,
			   i == 1 ? 0 : VRING_NEXT, 1);
		vring_desc(ring, 1, STATUS, 1, VRING_WRITE, 0);
		vring_offer(ring, i == 2 ? 256 : 0);
		notify(drive->rig, 0);
		while (!(status_of(drive->rig) & VIRTIO_NEEDS_RESET))
			sched_yield();
		ck_assert_uint_eq(vring_used_idx(ring), 0);
		/* It lives again after a reset. */
		common_write(drive->rig, COMMON_STATUS, 0, 1);
		while (status_of(drive->rig))
			sched_yield();
		RIG_OP(drive->rig->base, pause);
		drive_start(drive);
		ck_assert_int_eq(do_one(drive, BLK_T_IN, 0, DATA, 512), 0);
		drive_free(drive);
	}
}
END_TEST

START_TEST(blk_serves_all_queues_at_a_time)
{
	enum {
		ROUNDS = 50,
		SLOTS = 64
	};
	struct drive *drive = drive_new("queues=2", false);

	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			unsigned int queue = slot % QUEUES;
			uint64_t data = DATA + slot * 0x1000ULL;

			if (!(round % 2))
				fill(drive, data, (uint8_t)(round + slot), 512);
			else
				fill(drive, data, 0xee, 512);
			offer(drive, queue, slot,
			      round % 2 ? BLK_T_IN : BLK_T_OUT, slot, data,
			      512);
			notify(drive->rig, queue);
		}
		for (unsigned int i = 0; i < QUEUES; i++)
			wait_used(drive, i, SLOTS / QUEUES);
		for (unsigned int slot = 0; slot < SLOTS; slot++) {
			ck_assert_int_eq(*status(drive, slot), BLK_S_OK);
			ck_assert(holds(drive, DATA + slot * 0x1000ULL,
					(uint8_t)(round - round % 2 + slot),
					512));
		}
	}
	ck_assert_uint_gt(drive->rig->base->nmsis, 0);
	drive_free(drive);
}
END_TEST

START_TEST(blk_shows_its_shape)
{
	struct drive *drive = drive_new("queues=2,size=33554432", false);
	uint64_t bar0 = bar(drive->rig, 0) + BAR_DEVICE;

	ck_assert_uint_eq(peek(drive->rig, bar0, 4), SECTORS);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 4, 4), 0);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 12, 4), BLK_SEG_MAX);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 20, 4), 512);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 24, 1), 3);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 34, 2), QUEUES);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 36, 4),
			  BLK_DISCARD_SECTORS_MAX);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 40, 4), 1);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 48, 4),
			  BLK_ZEROES_SECTORS_MAX);
	ck_assert_uint_eq(peek(drive->rig, bar0 + 56, 1), 1);
	ck_assert_uint_eq(config_read(drive->rig, PCI_DEVICE_ID, 2), 0x1042);
	drive_free(drive);
}
END_TEST

/* ---- failures of the host ---- */

START_TEST(blk_tells_the_guest_of_a_host_that_fails)
{
	struct drive *drive = drive_new("queues=2", true);

	fail_errno = ENOSPC;
	ck_assert_int_eq(do_one(drive, BLK_T_OUT, 0, DATA, 512), BLK_S_IOERR);
	ck_assert_int_eq(do_one(drive, BLK_T_FLUSH, 0, 0, 0), BLK_S_IOERR);
	fail_errno = 0;
	ck_assert_int_eq(do_one(drive, BLK_T_OUT, 0, DATA, 512), BLK_S_OK);
	ck_assert_uint_eq(drive->rig->base->stops, 0);
	drive_free(drive);
}
END_TEST

static void save(struct drive *drive, struct blk_state *ret)
{
	struct blk_state live;

	RIG_OP(drive->rig->base, snapshot, &live);
	rig_wire(drive->rig->base, &live, ret);
}

/* Three writes that the host can't do, and the VM stopped for that. */
static struct drive *drive_that_stopped(struct blk_state *state)
{
	struct drive *drive = drive_new("queues=2,werror=stop", true);

	fail_errno = ENOSPC;
	fill(drive, DATA, 'k', 512);
	offer(drive, 0, 0, BLK_T_OUT, 1, DATA, 512);
	offer(drive, 0, 1, BLK_T_FLUSH, 0, 0, 0);
	offer(drive, 1, 2, BLK_T_OUT, 2, DATA, 512);
	notify(drive->rig, 0);
	notify(drive->rig, 1);
	/* The first asks for the stop: it may come before the last is taken. */
	while (nfailed < 3 || !drive->rig->base->stops)
		sched_yield();
	RIG_OP(drive->rig->base, pause);
	save(drive, state);
	return drive;
}

static void check_retried(struct drive *drive)
{
	wait_used(drive, 0, 2);
	wait_used(drive, 1, 1);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_int_eq(*status(drive, i), BLK_S_OK);
	ck_assert_int_eq(do_one(drive, BLK_T_IN, 1, DATA + 0x1000, 1024), 0);
	ck_assert(holds(drive, DATA + 0x1000, 'k', 1024));
}

START_TEST(blk_keeps_what_failed_and_tries_again_when_resumed)
{
	struct blk_state state;
	struct drive *drive = drive_that_stopped(&state);

	ck_assert_uint_eq(drive->rig->base->stops, 1);
	for (unsigned int i = 0; i < QUEUES; i++)
		ck_assert_uint_eq(vring_used_idx(&drive->rings[i]), 0);
	/* It is still full: once more all the same. */
	RIG_OP(drive->rig->base, resume);
	while (drive->rig->base->stops < 2)
		sched_yield();
	RIG_OP(drive->rig->base, pause);
	save(drive, &state);
	ck_assert(rig_accepts(drive->rig->base, &state));
	fail_errno = 0;
	RIG_OP(drive->rig->base, resume);
	check_retried(drive);
	RIG_OP(drive->rig->base, pause);
	save(drive, &state);
	ck_assert_uint_eq(state.nkept, 0);
	drive_free(drive);
}
END_TEST

START_TEST(blk_keeps_what_failed_when_it_is_paused_as_soon_as_resumed)
{
	struct blk_state state, again;
	struct drive *drive = drive_that_stopped(&state);
	struct device *dev = drive->rig->base->dev;

	/* With the lock held the I/O thread can't begin in between. */
	pthread_mutex_lock(&dev->lock);
	dev->ops->resume(dev);
	dev->ops->pause(dev);
	pthread_mutex_unlock(&dev->lock);
	save(drive, &again);
	ck_assert_uint_eq(again.nkept, state.nkept);
	ck_assert_mem_eq(again.kept, state.kept,
			 state.nkept * sizeof(state.kept[0]));
	fail_errno = 0;
	RIG_OP(drive->rig->base, resume);
	check_retried(drive);
	drive_free(drive);
}
END_TEST

START_TEST(blk_that_moved_tries_again_at_the_target)
{
	struct blk_state state;
	struct drive *drive = drive_that_stopped(&state);
	struct virtio_rig *target = make_rig(&drive->backing);
	struct virtio_rig *source = drive->rig;

	memcpy(memory_hva(target->mem, 0, VIRTIO_RIG_RAM),
	       memory_hva(source->mem, 0, VIRTIO_RIG_RAM), VIRTIO_RIG_RAM);
	fail_errno = 0;
	ck_assert(rig_accepts(target->base, &state));
	RIG_OP(target->base, commit, &state);
	RIG_OP(target->base, resume);
	drive->rig = target;
	for (unsigned int i = 0; i < QUEUES; i++)
		drive->rings[i].mem = target->mem;
	check_retried(drive);
	/* Nothing is kept in the source either, once it is reset. */
	RIG_OP(source->base, reset);
	pthread_mutex_lock(&source->base->dev->lock);
	source->base->dev->ops->snapshot(source->base->dev, &state);
	pthread_mutex_unlock(&source->base->dev->lock);
	ck_assert_uint_eq(state.nkept, 0);
	virtio_rig_free(source);
	drive_free(drive);
}
END_TEST

START_TEST(blk_forgets_what_it_kept_of_a_queue_that_is_reset)
{
	struct drive *drive = drive_new("queues=2,werror=stop", true);
	struct blk_state state;

	fail_errno = ENOSPC;
	offer(drive, 0, 0, BLK_T_OUT, 1, DATA, 512);
	offer(drive, 1, 1, BLK_T_OUT, 1, DATA, 512);
	notify(drive->rig, 0);
	while (!drive->rig->base->stops)
		sched_yield();
	/* The guest was faster than the stop. */
	common_write(drive->rig, COMMON_QUEUE_SELECT, 0, 2);
	common_write(drive->rig, COMMON_QUEUE_RESET, 1, 2);
	while (common_read(drive->rig, COMMON_QUEUE_RESET, 2))
		sched_yield();
	notify(drive->rig, 1);
	RIG_OP(drive->rig->base, pause);
	save(drive, &state);
	ck_assert(rig_accepts(drive->rig->base, &state));
	for (uint32_t i = 0; i < state.nkept; i++)
		ck_assert_uint_eq(state.kept[i].queue, 1);
	drive_free(drive);
}
END_TEST

START_TEST(blk_keeps_a_chain_twice_that_was_offered_twice)
{
	struct drive *drive = drive_new("queues=2,werror=stop", true);
	struct blk_state state;

	fail_errno = ENOSPC;
	/* Paused, so that both are taken in one turn. */
	RIG_OP(drive->rig->base, pause);
	offer(drive, 0, 0, BLK_T_OUT, 1, DATA, 512);
	vring_offer(&drive->rings[0], 0);
	RIG_OP(drive->rig->base, resume);
	while (!drive->rig->base->stops)
		sched_yield();
	RIG_OP(drive->rig->base, pause);
	save(drive, &state);
	ck_assert_uint_eq(state.nkept, 2);
	ck_assert_uint_eq(state.kept[1].head, state.kept[0].head);
	ck_assert(rig_accepts(drive->rig->base, &state));
	RIG_OP(drive->rig->base, commit, &state);
	fail_errno = 0;
	RIG_OP(drive->rig->base, resume);
	wait_used(drive, 0, 2);
	ck_assert_int_eq(*status(drive, 0), BLK_S_OK);
	drive_free(drive);
}
END_TEST

START_TEST(blk_state_that_cannot_be_is_refused)
{
	struct blk_state good, bad;
	struct drive *drive = drive_that_stopped(&good);
	struct device_rig *rig = drive->rig->base;

	ck_assert_uint_eq(good.nkept, 3);
	ck_assert(rig_accepts(rig, &good));
	bad = good;
	bad.kept[0].queue = QUEUES;
	ck_assert(!rig_accepts(rig, &bad));
	bad = good;
	bad.kept[0].head = 256;
	ck_assert(!rig_accepts(rig, &bad));
	/* More than were taken and not given back. */
	bad = good;
	bad.kept[bad.nkept++] = (struct blk_kept){ 1, 77 };
	ck_assert(!rig_accepts(rig, &bad));
	bad = good;
	bad.virtio.nqueues = 1;
	ck_assert(!rig_accepts(rig, &bad));
	drive_free(drive);
}
END_TEST

START_TEST(blk_pauses_with_nothing_in_flight)
{
	struct drive *drive = drive_new("queues=2", false);
	struct blk_state state;

	for (unsigned int round = 0; round < 100; round++) {
		for (unsigned int slot = 0; slot < 80; slot++) {
			*status(drive, slot) = NOT_YET;
			offer(drive, 0, slot, round % 2 ? BLK_T_IN : BLK_T_OUT,
			      slot, DATA + slot * 0x1000ULL, 512);
		}
		notify(drive->rig, 0);
		RIG_OP(drive->rig->base, pause);
		save(drive, &state);
		ck_assert(rig_accepts(drive->rig->base, &state));
		ck_assert_uint_eq(state.virtio.queues[0].ring.next_avail,
				  state.virtio.queues[0].ring.next_used);
		RIG_OP(drive->rig->base, resume);
		wait_used(drive, 0, 80);
	}
	drive_free(drive);
}
END_TEST

/* ---- moves ---- */

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

static int hand(struct virtio_rig *rig, enum device_handover step)
{
	static const uint8_t session[DEVICE_SESSION_SIZE] = { 42 };
	struct device *dev = rig->base->dev;
	struct error err;

	return dev->ops->handover(dev, step, session, &err);
}

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

START_TEST(blk_hands_its_disk_over)
{
	struct drive *drive = calloc(1, sizeof(*drive));
	struct virtio_rig *source, *target;
	unsigned int flushes;

	backing_init(&drive->backing, "", true);
	drive->backing.locked = true;
	source = make_rig(&drive->backing);
	drive->backing.locked = false;
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

	backing_init(&drive->backing, "", true);
	drive->backing.locked = true;
	source = make_rig(&drive->backing);
	drive->backing.locked = false;
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

/* ---- making ---- */

START_TEST(blk_options_are_what_they_say)
{
	static const char *const bad[] = {
		"size=0",
		"size=513",
		"size=-512",
		"size=",
		"size=1k",
		"queues=0",
		"queues=17",
		"queues=x",
		"readonly=yes",
		"werror=ignore",
		"serial=",
		"name=",
		"fast",
		"queues=2,",
		",queues=2",
		"queues=1,queues=1",
		"readonly,readonly",
		"serial=012345678901234567890",
		"name=a\033b",
		"size=9223372036854775808",
	};
	struct blk_options o;
	struct error err = { "" };

	ck_assert_int_eq(blk_options_parse("", &o, &err), 0);
	ck_assert_uint_eq(o.queues, 1);
	ck_assert(!o.readonly && !o.stop_on_error && !o.size);
	ck_assert_int_eq(blk_options_parse("size=1024,queues=16,name=a.img,"
					   "readonly,serial=x y,werror=stop",
					   &o, &err),
			 0);
	ck_assert(o.size == 1024 && o.queues == 16 && o.readonly &&
		  o.stop_on_error);
	ck_assert_str_eq(o.name, "a.img");
	ck_assert_str_eq(o.serial, "x y");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(blk_options_parse(bad[i], &o, &err) == -EINVAL,
			      "'%s' is taken", bad[i]);
}
END_TEST

START_TEST(blk_of_another_size_is_refused)
{
	struct device_rig *rig = rig_new();
	struct device_config config = { .type = "virtio-blk",
					.id = "disk0",
					.options = "size=512" };
	struct backing backing;
	struct device *dev;
	struct error err = { "" };

	ck_assert_int_eq(blk_create(&rig->env, &config, &dev, &err), -ENODEV);
	backing_init(&backing, "", false);
	rig->env.backends = backends_of(&backing);
	ck_assert_int_eq(blk_create(&rig->env, &config, &dev, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, backing.path));
	ck_assert_ptr_nonnull(strstr(err.text, "33554432"));
	unlink(backing.path);
	rig_free(rig);
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Has the page that @at lies in ever been touched? */
static bool is_touched(const void *at)
{
	uintptr_t page = (uintptr_t)at & ~(uintptr_t)(GUEST_PAGE_SIZE - 1);
	unsigned char resident;

	ck_assert_int_eq(mincore((void *)page, 1, &resident), 0);
	return resident & 1;
}

START_TEST(blk_takes_no_memory_for_requests_that_are_not_made)
{
	struct drive *drive = drive_new("queues=2", false);
	struct device *dev = drive->rig->base->dev;
	struct blk *blk = container_of(dev, struct blk, virtio.dev);

	for (unsigned int i = 0; i < BLK_DEPTH; i++)
		ck_assert_int_eq(do_one(drive, BLK_T_IN, i, DATA, 512), 0);
	ck_assert(is_touched(&blk->requests[0].chain.iov[0]));
	for (unsigned int i = 2; i < BLK_DEPTH; i++)
		ck_assert(!is_touched(&blk->requests[i].chain.iov[0]));
	drive_free(drive);
}
END_TEST

START_TEST(blk_does_its_work_in_the_cage)
{
	struct error err = { "" };
	struct sandbox *cage;

	ck_assert_int_eq(sandbox_create(NULL, 0, &cage, &err), 0);
	ck_assert_int_eq(sandbox_drop(cage, &err), 0);
	sandbox = cage;
	for (int by_fd = 0; by_fd < 2; by_fd++) {
		struct drive *drive = drive_new("queues=2", by_fd);

		fail_errno = 0;
		ck_assert_int_eq(do_one(drive, BLK_T_OUT, 0, DATA, 4096), 0);
		ck_assert_int_eq(do_one(drive, BLK_T_FLUSH, 0, 0, 0), 0);
		ck_assert_int_eq(do_one(drive, BLK_T_IN, 0, DATA, 4096), 0);
		ck_assert_int_eq(range(drive, BLK_T_DISCARD, 0, 8, 0), 0);
		ck_assert_int_eq(range(drive, BLK_T_WRITE_ZEROES, 0, 8, 0), 0);
		ck_assert_int_eq(hand(drive->rig, DEVICE_RECLAIM), 0);
		ck_assert_int_eq(hand(drive->rig, DEVICE_OWN), 0);
		drive_free(drive);
	}
	sandbox = NULL;
	sandbox_free(cage);
}
END_TEST
#endif

UNIT_SUITE("blk", blk_reads_what_was_written,
	   blk_takes_headers_data_and_status_wherever_they_lie,
	   blk_tells_its_serial_number, blk_discards_and_zeroes_ranges,
	   blk_refuses_what_is_not_in_the_disk,
	   blk_that_is_readonly_is_never_written,
	   blk_breaks_on_requests_that_are_none,
	   blk_serves_all_queues_at_a_time, blk_shows_its_shape,
	   blk_tells_the_guest_of_a_host_that_fails,
	   blk_keeps_what_failed_and_tries_again_when_resumed,
	   blk_keeps_what_failed_when_it_is_paused_as_soon_as_resumed,
	   blk_that_moved_tries_again_at_the_target,
	   blk_forgets_what_it_kept_of_a_queue_that_is_reset,
	   blk_keeps_a_chain_twice_that_was_offered_twice,
	   blk_state_that_cannot_be_is_refused,
	   blk_pauses_with_nothing_in_flight,
	   blk_settles_by_a_flush_since_the_last_pause, blk_hands_its_disk_over,
	   blk_takes_its_disk_back_in_the_background,
	   blk_options_are_what_they_say,
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	   blk_takes_no_memory_for_requests_that_are_not_made,
	   blk_does_its_work_in_the_cage,
#endif
	   blk_of_another_size_is_refused)
