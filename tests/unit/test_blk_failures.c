// SPDX-License-Identifier: MIT
/*
 * The block device where the host's disk fails: who is told, what is kept and
 * tried again, also after a move, and which states of that can be.
 */
#include "tests/unit/blk_rig.h"

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

UNIT_SUITE("blk failures", blk_tells_the_guest_of_a_host_that_fails,
	   blk_keeps_what_failed_and_tries_again_when_resumed,
	   blk_keeps_what_failed_when_it_is_paused_as_soon_as_resumed,
	   blk_that_moved_tries_again_at_the_target,
	   blk_forgets_what_it_kept_of_a_queue_that_is_reset,
	   blk_keeps_a_chain_twice_that_was_offered_twice,
	   blk_state_that_cannot_be_is_refused,
	   blk_pauses_with_nothing_in_flight)
