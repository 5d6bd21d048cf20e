// SPDX-License-Identifier: MIT
/*
 * How the locks of a disk pass from one VM to another as it moves, and that no
 * third one slips in, whoever fails or loses what it had.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>

#include "tests/unit/disk_rig.h"

static const uint8_t session[16] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static const uint8_t other_session[16] = { 8, 7, 6, 5, 4, 3, 2, 1 };

/* How often the kernel has refused somebody a lock. */
static _Atomic unsigned int refusals;

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list args;
	void *arg;
	int rc;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	rc = __real_fcntl(fd, cmd, arg);
	refusals += rc < 0 && cmd == F_OFD_SETLK && errno == EAGAIN;
	return rc;
}

struct move {
	struct place place;
	struct disk *source;
	struct disk *target;
	struct error err;
};

static void move_init(struct move *move, bool readonly)
{
	place_init(&move->place, "/dev/shm");
	move->source = open_image(move->place.image, readonly);
	move->target = open_image(move->place.image, readonly);
	ck_ok(disk_lock(move->source, &ck_err));
}

static void move_fini(struct move *move)
{
	disk_close(move->target);
	disk_close(move->source);
	place_fini(&move->place);
}

/* Can a VM that has nothing to do with the move begin to use the disk? */
static bool gets_in(const struct move *move, bool readonly)
{
	struct disk *third = open_image(move->place.image, readonly);
	struct error err;
	bool in = !disk_lock(third, &err);

	disk_close(third);
	return in;
}

static bool third_gets_in(const struct move *move)
{
	return gets_in(move, false);
}

static bool reader_gets_in(const struct move *move)
{
	return gets_in(move, true);
}

START_TEST(a_move_passes_the_locks_and_nobody_slips_in)
{
	struct move move;

	move_init(&move, false);
	ck_ok(disk_prove(move.source, session, &ck_err));
	ck_ok(disk_verify(move.target, session, &ck_err));
	ck_assert(!third_gets_in(&move));
	ck_assert_int_eq(disk_take_writer(move.target, &move.err), -EBUSY);
	disk_drop_writer(move.source);
	ck_assert(!third_gets_in(&move));
	ck_ok(disk_take_writer(move.target, &ck_err));
	ck_assert_int_eq(disk_take_owner(move.target, &move.err), -EBUSY);
	ck_assert(!third_gets_in(&move));
	/* RUNNING: the source lets go by leaving. */
	disk_close(move.source);
	move.source = NULL;
	ck_assert(!third_gets_in(&move));
	ck_assert(!reader_gets_in(&move));
	ck_ok(disk_take_owner(move.target, &ck_err));
	ck_assert(!third_gets_in(&move));
	ck_assert(!reader_gets_in(&move));
	disk_close(move.target);
	move.target = NULL;
	ck_assert(third_gets_in(&move));
	move_fini(&move);
}
END_TEST

/* It comes and goes on so soon that OWNER is had only as it is proved. */
START_TEST(an_owner_that_was_late_gives_its_lock_back_when_the_file_stays_open)
{
	struct move move;
	int kept;

	move_init(&move, false);
	disk_drop_writer(move.source);
	ck_ok(disk_take_writer(move.target, &ck_err));
	disk_close(move.source);
	move.source = NULL;
	ck_ok(disk_prove(move.target, session, &ck_err));
	kept = dup(move.target->fd);
	ck_assert_int_ge(kept, 0);
	disk_close(move.target);
	move.target = NULL;
	ck_assert(third_gets_in(&move));
	close(kept);
	move_fini(&move);
}
END_TEST

START_TEST(a_move_that_failed_gives_everything_back)
{
	struct move move;

	move_init(&move, false);
	ck_ok(disk_prove(move.source, session, &ck_err));
	ck_ok(disk_verify(move.target, session, &ck_err));
	disk_drop_writer(move.source);
	ck_ok(disk_take_writer(move.target, &ck_err));
	ck_assert_int_eq(disk_take_writer(move.source, &move.err), -EBUSY);
	disk_close(move.target);
	ck_ok(disk_take_writer(move.source, &ck_err));
	disk_unprove(move.source);
	/* The next attempt has another proof, and the old one is none. */
	ck_ok(disk_prove(move.source, other_session, &ck_err));
	move.target = open_image(move.place.image, false);
	ck_assert_int_eq(disk_verify(move.target, session, &move.err), -ENXIO);
	ck_ok(disk_verify(move.target, other_session, &ck_err));
	move_fini(&move);
}
END_TEST

START_TEST(another_disk_is_refused)
{
	struct move move;
	struct disk *copy;
	char path[128];

	move_init(&move, false);
	snprintf(path, sizeof(path), "%s/copy", move.place.dir);
	make_file(path, SIZE);
	copy = open_image(path, false);
	ck_ok(disk_prove(move.source, session, &ck_err));
	/* Free, as a copy is. */
	ck_assert_int_eq(disk_verify(copy, session, &move.err), -ENXIO);
	ck_says(move.err, "--lock-dir");
	disk_close(copy);
	/* Owned, but by another VM. */
	copy = open_image(path, false);
	ck_ok(disk_lock(copy, &ck_err));
	ck_ok(disk_prove(copy, other_session, &ck_err));
	disk_close(move.target);
	move.target = open_image(path, false);
	ck_assert_int_eq(disk_verify(move.target, session, &move.err), -ENXIO);
	disk_close(copy);
	move_fini(&move);
}
END_TEST

START_TEST(whoever_locks_everything_proves_nothing)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct place place;
	struct disk *target;
	struct error err;
	int fd;

	place_init(&place, "/dev/shm");
	target = open_image(place.image, false);
	fd = open(place.image, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(__real_fcntl(fd, F_OFD_SETLK, &all), 0);
	ck_assert_int_eq(disk_verify(target, session, &err), -ENOLCK);
	disk_close(target);
	close(fd);
	place_fini(&place);
}
END_TEST

START_TEST(a_readonly_disk_moves_and_stays_guarded)
{
	struct move move;

	move_init(&move, true);
	ck_assert_int_eq(disk_verify(move.target, session, &move.err), -ENXIO);
	ck_ok(disk_prove(move.source, session, &ck_err));
	ck_ok(disk_verify(move.target, session, &ck_err));
	disk_drop_writer(move.source);
	ck_ok(disk_take_writer(move.target, &ck_err));
	/* The source may go first: the target has it already. */
	disk_close(move.source);
	move.source = NULL;
	ck_assert(!third_gets_in(&move));
	ck_ok(disk_take_owner(move.target, &ck_err));
	move_fini(&move);
}
END_TEST

/* As a file server that was restarted loses it. */
static void lose(const struct disk *disk, off_t byte)
{
	struct flock lock = { .l_type = F_UNLCK,
			      .l_whence = SEEK_SET,
			      .l_start = byte,
			      .l_len = 1 };

	ck_assert_int_eq(__real_fcntl(disk->fd, F_OFD_SETLK, &lock), 0);
}

static void *prove(void *opaque)
{
	struct move *move = opaque;

	ck_ok(disk_prove(move->target, session, &move->err));
	return NULL;
}

/* Somebody who tries in vain has OWNER for an instant: nothing is lost. */
START_TEST(an_owner_that_is_late_waits_for_who_tries_in_vain)
{
	struct move move;
	struct disk *third;
	pthread_t thread;

	move_init(&move, false);
	disk_drop_writer(move.source);
	ck_ok(disk_take_writer(move.target, &ck_err));
	disk_close(move.source);
	move.source = NULL;
	third = open_image(move.place.image, false);
	ck_ok(disk_take_owner(third, &ck_err));
	refusals = 0;
	ck_assert(!pthread_create(&thread, NULL, prove, &move));
	while (!refusals)
		sched_yield();
	disk_close(third);
	ck_assert(!pthread_join(thread, NULL));
	ck_assert(!third_gets_in(&move));
	move_fini(&move);
}
END_TEST

START_TEST(a_lock_that_was_lost_is_noticed)
{
	const off_t owner = 1LL << 62;
	struct move move;

	move_init(&move, false);
	/* Nobody was faster: it is ours again. */
	lose(move.source, owner);
	lose(move.source, owner + 1);
	ck_ok(disk_prove(move.source, session, &ck_err));
	ck_assert(!third_gets_in(&move));
	lose(move.source, owner);
	ck_ok(disk_take_owner(move.target, &ck_err));
	ck_assert_int_eq(disk_prove(move.source, session, &move.err), -EBUSY);
	ck_says(move.err, "lost");
	disk_close(move.source);
	move.source = open_image(move.place.image, false);
	disk_close(move.target);
	move.target = open_image(move.place.image, false);
	ck_ok(disk_lock(move.source, &ck_err));
	lose(move.source, owner + 1);
	ck_ok(disk_take_writer(move.target, &ck_err));
	ck_assert_int_eq(disk_prove(move.source, session, &move.err), -EBUSY);
	ck_says(move.err, "lost");
	move_fini(&move);
}
END_TEST

UNIT_SUITE("disk moves", a_move_passes_the_locks_and_nobody_slips_in,
	   an_owner_that_was_late_gives_its_lock_back_when_the_file_stays_open,
	   a_move_that_failed_gives_everything_back, another_disk_is_refused,
	   whoever_locks_everything_proves_nothing,
	   a_readonly_disk_moves_and_stays_guarded,
	   an_owner_that_is_late_waits_for_who_tries_in_vain,
	   a_lock_that_was_lost_is_noticed)
