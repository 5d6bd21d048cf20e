// SPDX-License-Identifier: MIT
/*
 * The block device, as its driver sees it: requests of all shapes on a real
 * file, and what it is made of.
 */
#include <sys/mman.h>

#include "tests/unit/blk_rig.h"

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
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	   blk_takes_no_memory_for_requests_that_are_not_made,
	   blk_does_its_work_in_the_cage,
#endif
	   blk_takes_headers_data_and_status_wherever_they_lie,
	   blk_tells_its_serial_number, blk_discards_and_zeroes_ranges,
	   blk_refuses_what_is_not_in_the_disk,
	   blk_that_is_readonly_is_never_written,
	   blk_breaks_on_requests_that_are_none,
	   blk_serves_all_queues_at_a_time, blk_shows_its_shape,
	   blk_options_are_what_they_say, blk_of_another_size_is_refused)
