// SPDX-License-Identifier: MIT
/*
 * Disks on real files, in memory and on whatever /var/tmp is: what is refused
 * when they are opened, and whose they are. Locks belong to open files, so two
 * disks of one process stand for two VMs, on one host or on two.
 */
#include <errno.h>
#include <fcntl.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"
#include "tests/unit/unit.h"

#define SIZE (64 * KIB)

static const uint8_t session[16] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static const uint8_t other_session[16] = { 8, 7, 6, 5, 4, 3, 2, 1 };

/* What fcntl() says to whoever locks; 0: what the kernel says. */
static int lock_errno;
static _Atomic unsigned int refusals; /* by the kernel */

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
	if (lock_errno && (cmd == F_OFD_SETLK || cmd == F_OFD_GETLK)) {
		errno = lock_errno;
		return -1;
	}
	rc = __real_fcntl(fd, cmd, arg);
	refusals += rc < 0 && cmd == F_OFD_SETLK && errno == EAGAIN;
	return rc;
}

/* preadv() and pwritev() do at most so many bytes; 0: all. */
static size_t short_by;
static unsigned int shortened;
static bool no_fallocate;

typedef ssize_t io_call(int fd, const struct iovec *iov, int niov,
			off_t offset);

io_call __real_preadv, __wrap_preadv, __real_pwritev, __wrap_pwritev;
int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);

static ssize_t shorten(io_call *call, int fd, const struct iovec *iov, int niov,
		       off_t offset)
{
	struct iovec first = *iov;

	if (!short_by)
		return call(fd, iov, niov, offset);
	/* And a signal comes now and then. */
	if (!(++shortened % 5)) {
		errno = EINTR;
		return -1;
	}
	first.iov_len = MIN(first.iov_len, short_by);
	return call(fd, &first, 1, offset);
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int niov, off_t offset)
{
	return shorten(__real_preadv, fd, iov, niov, offset);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int niov, off_t offset)
{
	return shorten(__real_pwritev, fd, iov, niov, offset);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (!no_fallocate)
		return __real_fallocate(fd, mode, offset, len);
	errno = EOPNOTSUPP;
	return -1;
}

/* ---- a directory with an image ---- */

struct place {
	char dir[64];
	char image[96];
};

static void make_file(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static void place_init(struct place *place, const char *above)
{
	snprintf(place->dir, sizeof(place->dir), "%s/godwit-disk-XXXXXX",
		 above);
	ck_assert_ptr_nonnull(mkdtemp(place->dir));
	snprintf(place->image, sizeof(place->image), "%s/a.img", place->dir);
	make_file(place->image, SIZE);
}

static void place_fini(const struct place *place)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", place->dir);
	ck_assert_int_eq(system(command), 0);
}

static struct disk *disk_of(const struct disk_params *params)
{
	struct error err = { "" };
	struct disk *disk;

	ck_assert_msg(!disk_open(params, &disk, &err), "%s", err.text);
	return disk;
}

static struct disk *open_image(const char *path, bool readonly)
{
	struct disk_params params = {
		.id = "disk0", .path = path, .fd = -1, .readonly = readonly
	};

	return disk_of(&params);
}

static struct disk *open_in_lock_dir(const struct place *place, bool readonly)
{
	struct disk_params params = { .id = "disk0",
				      .path = place->image,
				      .fd = -1,
				      .readonly = readonly,
				      .lock_dir = place->dir,
				      .identity = "wwid:1/2" };

	return disk_of(&params);
}

#define ck_says(err, word)                                                   \
	ck_assert_msg(strstr((err).text, (word)), "'%s' says nothing of %s", \
		      (err).text, (word))

#define ck_ok(call)                                       \
	do {                                              \
		struct error ck_err = { "" };             \
		int ck_rc = (call);                       \
                                                          \
		ck_assert_msg(!ck_rc, "%s", ck_err.text); \
	} while (0)

static void refuses(struct disk_params params, int code, const char *word)
{
	struct error err = { "" };
	struct disk *disk;

	params.id = "disk0";
	ck_assert_int_eq(disk_open(&params, &disk, &err), code);
	ck_says(err, params.path);
	ck_says(err, word);
}

static void pid_word(char *buf, size_t size)
{
	snprintf(buf, size, "pid %d", getpid());
}

/* ---- opening ---- */

START_TEST(opening_says_what_is_wrong_with_a_file)
{
	struct place place;
	char path[128];

	place_init(&place, "/dev/shm");
	snprintf(path, sizeof(path), "%s/none", place.dir);
	refuses((struct disk_params){ .path = path, .fd = -1 }, -ENOENT,
		"truncate");
	refuses((struct disk_params){ .path = path, .fd = -1, .comes = true },
		-ENOENT, "the source's image");
	ck_assert_int_eq(symlink("gone", path), 0);
	refuses((struct disk_params){ .path = path, .fd = -1 }, -ENOENT,
		"leads nowhere");
	unlink(path);
	refuses((struct disk_params){ .path = place.dir, .fd = -1 }, -EISDIR,
		"a file in it");
	refuses((struct disk_params){ .path = place.dir,
				      .fd = -1,
				      .readonly = true },
		-EINVAL, "directory");
	make_file(path, 0);
	refuses((struct disk_params){ .path = path, .fd = -1 }, -EINVAL,
		"empty");
	unlink(path);
	/* Nobody has the pipe open, and nobody waits for that. */
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refuses((struct disk_params){ .path = path,
				      .fd = -1,
				      .readonly = true },
		-EINVAL, "special");
	place_fini(&place);
}
END_TEST

START_TEST(a_descriptor_must_allow_what_the_guest_does)
{
	struct place place;
	struct disk *disk;
	struct error err;
	int fd;

	place_init(&place, "/dev/shm");
	fd = open(place.image, O_RDONLY | O_CLOEXEC);
	refuses((struct disk_params){ .path = "fd", .fd = fd }, -EROFS,
		",readonly");
	/* It was taken over all the same. */
	ck_assert_int_eq(close(fd), -1);
	fd = open(place.image, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ck_assert_int_eq(disk_open(&(struct disk_params){ .id = "disk0",
							  .path = "fd",
							  .fd = fd,
							  .readonly = true },
				   &disk, &err),
			 0);
	ck_assert_str_eq(disk_path(disk), "fd");
	ck_assert_int_eq(__real_fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	disk_close(disk);
	place_fini(&place);
}
END_TEST

START_TEST(a_link_is_followed_and_its_end_told)
{
	struct place place;
	struct disk *a, *b;
	struct error err;
	char link[128];
	uint64_t dev[2], ino[2];

	place_init(&place, "/dev/shm");
	snprintf(link, sizeof(link), "%s/link", place.dir);
	ck_assert_int_eq(symlink("a.img", link), 0);
	a = open_image(place.image, false);
	b = open_image(link, false);
	ck_assert_str_eq(disk_path(b), place.image);
	disk_inode(a, &dev[0], &ino[0]);
	disk_inode(b, &dev[1], &ino[1]);
	ck_assert(dev[0] == dev[1] && ino[0] == ino[1]);
	/* One image, by whatever name; errors use the user's. */
	ck_ok(disk_lock(a, &ck_err));
	ck_assert_int_eq(disk_lock(b, &err), -EBUSY);
	ck_says(err, link);
	disk_close(b);
	disk_close(a);
	place_fini(&place);
}
END_TEST

START_TEST(a_size_is_whole_sectors_upwards)
{
	struct place place;
	struct disk *disk, *again;

	place_init(&place, "/dev/shm");
	ck_assert_int_eq(truncate(place.image, 1000), 0);
	disk = open_image(place.image, false);
	ck_assert_uint_eq(disk_size(disk), 1024);
	/* A dup looks again: the image may have been made larger. */
	ck_assert_int_eq(truncate(place.image, 5000), 0);
	ck_ok(disk_dup(disk, true, &again, &ck_err));
	ck_assert_uint_eq(disk_size(disk), 1024);
	ck_assert_uint_eq(disk_size(again), 5120);
	ck_assert(disk_readonly(again));
	ck_assert(!disk_readonly(disk));
	disk_close(again);
	disk_close(disk);
	place_fini(&place);
}
END_TEST

START_TEST(a_dup_of_a_readonly_disk_is_readonly)
{
	struct place place;
	struct disk *disk, *again;
	struct error err;

	place_init(&place, "/dev/shm");
	disk = open_image(place.image, true);
	ck_assert_int_eq(disk_dup(disk, false, &again, &err), -EROFS);
	ck_says(err, ",readonly");
	disk_close(disk);
	place_fini(&place);
}
END_TEST

/* ---- whose it is ---- */

START_TEST(a_second_vm_is_refused_and_the_first_one_named)
{
	struct place place;
	struct disk *a, *b;
	struct error err;
	char pid[32];

	place_init(&place, "/var/tmp");
	a = open_image(place.image, false);
	b = open_image(place.image, false);
	ck_ok(disk_lock(a, &ck_err));
	ck_assert_int_eq(disk_lock(b, &err), -EBUSY);
	pid_word(pid, sizeof(pid));
	ck_says(err, pid);
	ck_says(err, "stop it");
	ck_assert_ptr_null(strstr(err.text, ",readonly"));
	disk_close(a);
	ck_ok(disk_lock(b, &ck_err));
	disk_close(b);
	place_fini(&place);
}
END_TEST

/* Neighbouring bytes that one file has locked are one lock to the kernel. */
START_TEST(the_holder_of_each_byte_is_found)
{
	char holder[DISK_HOLDER_MAX], pid[32];
	struct place place;
	struct disk *disk;

	place_init(&place, "/var/tmp");
	disk = open_image(place.image, false);
	pid_word(pid, sizeof(pid));
	ck_assert(!disk_holder_find(disk->fd, DISK_LOCK_OWNER, holder,
				    sizeof(holder)));
	ck_ok(disk_lock(disk, &ck_err));
	ck_assert(disk_holder_find(disk->fd, DISK_LOCK_OWNER, holder,
				   sizeof(holder)));
	ck_assert_ptr_nonnull(strstr(holder, pid));
	ck_assert(disk_holder_find(disk->fd, DISK_LOCK_WRITER, holder,
				   sizeof(holder)));
	ck_assert_ptr_nonnull(strstr(holder, pid));
	disk_close(disk);
	place_fini(&place);
}
END_TEST

START_TEST(readers_share_and_keep_writers_out)
{
	struct place place;
	struct disk *a, *b, *c;
	struct error err;

	place_init(&place, "/dev/shm");
	a = open_image(place.image, true);
	b = open_image(place.image, true);
	c = open_image(place.image, false);
	ck_ok(disk_lock(a, &ck_err));
	ck_ok(disk_lock(b, &ck_err));
	ck_assert_int_eq(disk_lock(c, &err), -EBUSY);
	ck_says(err, ",readonly");
	disk_close(a);
	disk_close(b);
	ck_ok(disk_lock(c, &ck_err));
	a = open_image(place.image, true);
	ck_assert_int_eq(disk_lock(a, &err), -EBUSY);
	disk_close(a);
	disk_close(c);
	place_fini(&place);
}
END_TEST

/* A refusal by WRITER leaves OWNER free. */
START_TEST(whoever_is_refused_holds_nothing)
{
	struct place place;
	struct disk *a, *b, *c;
	struct error err;

	place_init(&place, "/dev/shm");
	a = open_image(place.image, false);
	b = open_image(place.image, false);
	c = open_image(place.image, false);
	ck_ok(disk_take_writer(a, &ck_err));
	ck_assert_int_eq(disk_lock(b, &err), -EBUSY);
	ck_ok(disk_take_owner(c, &ck_err));
	disk_close(a);
	disk_close(b);
	disk_close(c);
	place_fini(&place);
}
END_TEST

START_TEST(a_dup_gives_its_locks_back_when_the_file_stays_open)
{
	struct place place;
	struct disk *a, *again, *b;

	place_init(&place, "/dev/shm");
	a = open_image(place.image, false);
	b = open_image(place.image, false);
	ck_ok(disk_dup(a, false, &again, &ck_err));
	ck_ok(disk_lock(again, &ck_err));
	disk_close(again);
	ck_ok(disk_lock(b, &ck_err));
	disk_close(b);
	/* And keeps them when it is the original that goes. */
	ck_ok(disk_dup(a, false, &again, &ck_err));
	ck_ok(disk_lock(again, &ck_err));
	disk_close(a);
	b = open_image(place.image, true);
	ck_assert_int_eq(disk_lock(b, &(struct error){ "" }), -EBUSY);
	disk_close(b);
	disk_close(again);
	place_fini(&place);
}
END_TEST

START_TEST(a_filesystem_without_locks_is_refused)
{
	static const int errors[] = { ENOLCK, EOPNOTSUPP, EINVAL };
	struct place place;
	struct disk *disk;
	struct error err;

	place_init(&place, "/dev/shm");
	disk = open_image(place.image, false);
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		lock_errno = errors[i];
		ck_assert_int_eq(disk_lock(disk, &err), -errors[i]);
		ck_says(err, "--lock-dir");
		ck_assert_int_eq(disk_verify(disk, session, &err), -errors[i]);
		ck_assert_int_eq(disk_take_writer(disk, &err), -errors[i]);
		ck_assert_int_eq(disk_take_owner(disk, &err), -errors[i]);
		ck_assert_int_eq(disk_prove(disk, session, &err), -errors[i]);
	}
	lock_errno = 0;
	ck_ok(disk_lock(disk, &ck_err));
	disk_close(disk);
	place_fini(&place);
}
END_TEST

/* ---- moves ---- */

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

/* ---- lock files ---- */

START_TEST(a_lock_file_tells_who_holds_it)
{
	struct place place;
	struct disk *a, *b;
	struct error err;
	char host[65] = "";
	char pid[32], path[128];

	place_init(&place, "/dev/shm");
	gethostname(host, sizeof(host) - 1);
	pid_word(pid, sizeof(pid));
	a = open_in_lock_dir(&place, false);
	/* The identity is a name in the directory, whatever is in it. */
	snprintf(path, sizeof(path), "%s/wwid%%3a1%%2f2.lock", place.dir);
	ck_assert_int_eq(access(path, R_OK | W_OK), 0);
	ck_ok(disk_lock(a, &ck_err));
	b = open_in_lock_dir(&place, false);
	ck_assert_int_eq(disk_lock(b, &err), -EBUSY);
	ck_says(err, pid);
	ck_says(err, host);
	disk_close(a);
	disk_close(b);
	/* A reader leaves no word, and isn't taken for the writer before. */
	a = open_in_lock_dir(&place, true);
	ck_ok(disk_lock(a, &ck_err));
	b = open_in_lock_dir(&place, false);
	ck_assert_int_eq(disk_lock(b, &err), -EBUSY);
	ck_says(err, pid);
	ck_assert_ptr_null(strstr(err.text, host));
	disk_close(a);
	disk_close(b);
	place_fini(&place);
}
END_TEST

START_TEST(an_image_in_a_lock_dir_is_named_by_its_path)
{
	struct place place;
	struct disk_params params = { .id = "disk0", .fd = -1 };
	struct disk *disk;
	char name[256];

	place_init(&place, "/dev/shm");
	params.path = place.image;
	params.lock_dir = place.dir;
	disk = disk_of(&params);
	snprintf(name, sizeof(name), "%s/%%2fdev%%2fshm%%2f%s%%2fa.img.lock",
		 place.dir, strrchr(place.dir, '/') + 1);
	ck_assert_str_eq(disk->lock_path, name);
	/* The image itself stays unlocked. */
	ck_ok(disk_lock(disk, &ck_err));
	disk_close(disk);
	place_fini(&place);
}
END_TEST

START_TEST(a_lock_dir_that_does_not_do_is_refused)
{
	struct disk_params params = { .fd = -1, .lock_dir = "/nonexistent" };
	struct place place;
	char path[128];
	char identity[300];

	place_init(&place, "/dev/shm");
	params.path = place.image;
	params.identity = "x";
	refuses(params, -ENOENT, "/nonexistent/x.lock");
	params.lock_dir = place.dir;
	snprintf(path, sizeof(path), "%s/x.lock", place.dir);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	params.readonly = true;
	refuses(params, -EINVAL, "remove it");
	/* A link could lead anywhere. */
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("a.img", path), 0);
	refuses(params, -ELOOP, "x.lock");
	memset(identity, 'a', sizeof(identity) - 1);
	identity[sizeof(identity) - 1] = '\0';
	params.identity = identity;
	refuses(params, -ENAMETOOLONG, "serial=");
	params.identity = "";
	refuses(params, -ENAMETOOLONG, "serial=");
	place_fini(&place);
}
END_TEST

/* ---- requests ---- */

#define DEPTH 32

struct io {
	struct place place;
	struct disk *disk;
	struct disk_engine *engine;
	unsigned int ended;
	int result; /* of the last */
};

struct io_request {
	struct disk_request request;
	struct io *io;
};

static void on_done(struct disk_request *request, int result)
{
	struct io *io = container_of(request, struct io_request, request)->io;

	io->ended++;
	io->result = result;
}

/* Each way to get at a disk: where the file is, by what and past what. */
static const struct way {
	const char *above;
	bool uring;
	bool direct;
} ways[] = {
	{ "/dev/shm", false, false }, { "/var/tmp", true, false },
	{ "/var/tmp", false, false }, { "/var/tmp", false, true },
	{ "/var/tmp", true, true },
};

/* Return: false: not to be had on this machine. */
static bool io_init(struct io *io, const struct way *way, uint64_t size)
{
	struct disk_params params = { .id = "disk0", .direct = way->direct };
	struct error err = { "" };
	int rc;

	memset(io, 0, sizeof(*io));
	place_init(&io->place, way->above);
	ck_assert_int_eq(truncate(io->place.image, (off_t)size), 0);
	params.path = io->place.image;
	params.fd = -1;
	/* A descriptor comes without a ring. */
	if (!way->uring)
		params.fd = open(io->place.image, O_RDWR | O_CLOEXEC);
	rc = disk_open(&params, &io->disk, &err);
	if (rc && way->direct) {
		ck_says(err, ",direct");
		place_fini(&io->place);
		return false;
	}
	ck_assert_msg(!rc, "%s", err.text);
	ck_ok(disk_engine_create(io->disk, DEPTH, &io->engine, &ck_err));
	if (way->uring && strcmp(disk_engine_name(io->engine), "io_uring")) {
		disk_engine_free(io->engine);
		disk_close(io->disk);
		place_fini(&io->place);
		return false;
	}
	return true;
}

static void io_fini(struct io *io)
{
	disk_engine_free(io->engine);
	disk_close(io->disk);
	place_fini(&io->place);
}

static void io_wait(struct io *io, unsigned int ended)
{
	struct pollfd poll_fd = { .fd = disk_engine_fd(io->engine),
				  .events = POLLIN };

	disk_engine_kick(io->engine);
	while (io->ended < ended) {
		if (disk_engine_reap(io->engine))
			continue;
		ck_assert_int_ge(poll_fd.fd, 0);
		ck_assert_int_ge(poll(&poll_fd, 1, -1), 0);
	}
}

static int io_do(struct io *io, enum disk_op op, uint64_t offset,
		 const struct iovec *iov, unsigned int niov, uint64_t len)
{
	struct io_request request = { .request = { .op = op,
						   .offset = offset,
						   .len = len,
						   .iov = iov,
						   .niov = niov,
						   .done = on_done },
				      .io = io };
	unsigned int before = io->ended;

	disk_submit(io->engine, &request.request);
	io_wait(io, before + 1);
	return io->result;
}

static int io_one(struct io *io, enum disk_op op, uint64_t offset, void *buf,
		  uint64_t len)
{
	struct iovec iov = { buf, len };

	return io_do(io, op, offset, buf ? &iov : NULL, buf ? 1 : 0, len);
}

#define SECTORS 301

/* A disk and what it should hold. */
struct twin {
	struct io io;
	uint8_t should[SECTORS * DISK_SECTOR];
	uint8_t buf[2 * SECTORS * DISK_SECTOR];
	struct iovec iov[DISK_SEGMENTS_MAX];
	unsigned int niov;
};

/* Segments of any length at any address. */
static void cut(struct twin *twin, uint64_t len)
{
	uint8_t *at = twin->buf + (size_t)(random() % 64);

	twin->niov = 0;
	while (len) {
		uint64_t piece = 1 + (uint64_t)random() % len;

		if (twin->niov == 8 || !(random() % 4))
			piece = len;
		twin->iov[twin->niov++] = (struct iovec){ at, piece };
		at += piece + (size_t)(random() % 16);
		len -= piece;
	}
}

static void twin_write(struct twin *twin, uint64_t offset, uint64_t len)
{
	uint8_t *should = twin->should + offset;

	cut(twin, len);
	for (unsigned int i = 0; i < twin->niov; i++) {
		uint8_t *at = twin->iov[i].iov_base;

		for (size_t j = 0; j < twin->iov[i].iov_len; j++)
			at[j] = *should++ = (uint8_t)random();
	}
	ck_assert_int_eq(io_do(&twin->io, DISK_WRITE, offset, twin->iov,
			       twin->niov, len),
			 0);
}

static void twin_read(struct twin *twin, uint64_t offset, uint64_t len)
{
	const uint8_t *should = twin->should + offset;

	cut(twin, len);
	memset(twin->buf, 0x5a, sizeof(twin->buf));
	ck_assert_int_eq(
		io_do(&twin->io, DISK_READ, offset, twin->iov, twin->niov, len),
		0);
	for (unsigned int i = 0; i < twin->niov; i++) {
		ck_assert_mem_eq(twin->iov[i].iov_base, should,
				 twin->iov[i].iov_len);
		should += twin->iov[i].iov_len;
	}
}

static void twin_step(struct twin *twin)
{
	uint64_t offset = (uint64_t)random() % SECTORS;
	uint64_t len = 1 + (uint64_t)random() % (SECTORS - offset);
	enum disk_op op = (enum disk_op)(random() % 6);

	offset *= DISK_SECTOR;
	len *= DISK_SECTOR;
	switch (op) {
	case DISK_READ:
		twin_read(twin, offset, len);
		return;
	case DISK_WRITE:
		twin_write(twin, offset, len);
		return;
	case DISK_FLUSH:
		offset = len = 0;
		break;
	case DISK_DISCARD:
	case DISK_ZEROES:
	case DISK_UNMAP_ZEROES:
		memset(twin->should + offset, 0, len);
		break;
	}
	ck_assert_int_eq(io_one(&twin->io, op, offset, NULL, len), 0);
	/* What became of it is nobody's business, until it is written. */
	if (op == DISK_DISCARD)
		twin_write(twin, offset, len);
}

static void exercise(const struct way *way, uint32_t block)
{
	struct twin *twin = calloc(1, sizeof(*twin));
	/* The last sector is there in part, so that it needs care. */
	uint64_t size = sizeof(twin->should) - 100;

	ck_assert_ptr_nonnull(twin);
	if (!io_init(&twin->io, way, size)) {
		free(twin);
		return;
	}
	if (block) {
		/* As a disk whose blocks are larger would have it. */
		twin->io.disk->offset_align = block;
		twin->io.disk->memory_align = block;
	}
	for (unsigned int i = 0; i < 100; i++)
		twin_step(twin);
	twin_read(twin, 0, sizeof(twin->should));
	ck_ok(disk_flush(twin->io.disk, &ck_err));
	ck_ok(disk_drop_cache(twin->io.disk, &ck_err));
	twin_read(twin, 0, sizeof(twin->should));
	io_fini(&twin->io);
	free(twin);
}

START_TEST(what_is_written_is_read_back_by_every_way)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		exercise(&ways[i], 0);
}
END_TEST

START_TEST(what_covers_blocks_in_part_leaves_the_rest)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		if (ways[i].direct)
			exercise(&ways[i], 4096);
	}
}
END_TEST

START_TEST(transfers_that_end_early_go_on)
{
	short_by = 1000;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		if (!ways[i].direct)
			exercise(&ways[i], 0);
	}
	ck_assert_uint_gt(shortened, 0);
}
END_TEST

START_TEST(zeroes_are_written_where_nothing_makes_them)
{
	no_fallocate = true;
	exercise(&ways[0], 0);
}
END_TEST

START_TEST(an_error_is_told_and_not_taken_for_zeroes)
{
	uint8_t buf[DISK_SECTOR];

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct io io;

		if (!io_init(&io, &ways[i], 8 * DISK_SECTOR))
			continue;
		/* Somebody has cut it off. */
		ck_assert_int_eq(truncate(io.place.image, 2 * DISK_SECTOR), 0);
		ck_assert_int_eq(io_one(&io, DISK_READ, 0, buf, sizeof(buf)),
				 0);
		ck_assert_int_eq(io_one(&io, DISK_READ, 4 * DISK_SECTOR, buf,
					sizeof(buf)),
				 -EIO);
		io_fini(&io);
	}
}
END_TEST

START_TEST(many_requests_are_in_flight_at_a_time)
{
	static uint8_t data[DEPTH][4096], back[DEPTH][4096];

	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		struct io_request requests[DEPTH];
		struct iovec iov[DEPTH];
		struct io io;

		if (!io_init(&io, &ways[w], DEPTH * 4096))
			continue;
		for (unsigned int pass = 0; pass < 2; pass++) {
			for (unsigned int i = 0; i < DEPTH; i++) {
				if (!pass)
					memset(data[i], (int)i + 1, 4096);
				iov[i] = (struct iovec){ pass ? back[i]
							      : data[i],
							 4096 };
				requests[i] = (struct io_request){
					.request = { .op = pass ? DISK_READ
								: DISK_WRITE,
						     .offset = i * 4096,
						     .len = 4096,
						     .iov = &iov[i],
						     .niov = 1,
						     .done = on_done },
					.io = &io,
				};
				disk_submit(io.engine, &requests[i].request);
			}
			io_wait(&io, DEPTH * (pass + 1));
		}
		ck_assert_mem_eq(data, back, sizeof(data));
		memset(back, 0, sizeof(back));
		io_fini(&io);
	}
}
END_TEST

START_TEST(a_part_of_a_block_waits_for_the_whole_of_it)
{
	uint8_t *block = aligned_alloc(4096, 4096);
	uint8_t part[DISK_SECTOR];

	memset(part, 'b', sizeof(part));
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct iovec iov = { block, 4096 };
		struct io_request whole = { .request = { .op = DISK_WRITE,
							 .len = 4096,
							 .iov = &iov,
							 .niov = 1,
							 .done = on_done } };
		struct io io;

		if (!ways[i].direct || !io_init(&io, &ways[i], 8192))
			continue;
		io.disk->offset_align = 4096;
		whole.io = &io;
		memset(block, 'a', 4096);
		disk_submit(io.engine, &whole.request);
		ck_assert_int_eq(
			io_one(&io, DISK_WRITE, 1024, part, sizeof(part)), 0);
		ck_assert_uint_eq(io.ended, 2);
		ck_assert_int_eq(io_one(&io, DISK_READ, 0, block, 4096), 0);
		ck_assert_int_eq(block[0], 'a');
		ck_assert_mem_eq(block + 1024, part, sizeof(part));
		ck_assert_int_eq(block[1536], 'a');
		io_fini(&io);
	}
	free(block);
}
END_TEST

static uint64_t allocated(const struct io *io)
{
	struct stat stat;

	ck_assert_int_eq(fstat(io->disk->fd, &stat), 0);
	return (uint64_t)stat.st_blocks * 512;
}

START_TEST(a_discard_gives_space_back)
{
	uint8_t *data = malloc(MIB);

	memset(data, 1, MIB);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct io io;

		if (!io_init(&io, &ways[i], MIB))
			continue;
		for (unsigned int unmap = 0; unmap < 2; unmap++) {
			ck_assert_int_eq(io_one(&io, DISK_WRITE, 0, data, MIB),
					 0);
			ck_ok(disk_flush(io.disk, &ck_err));
			ck_assert_uint_ge(allocated(&io), MIB);
			ck_assert_int_eq(
				io_one(&io,
				       unmap ? DISK_UNMAP_ZEROES : DISK_DISCARD,
				       0, NULL, MIB / 2),
				0);
			ck_assert_uint_le(allocated(&io), MIB / 2);
		}
		ck_assert_int_eq(
			io_one(&io, DISK_ZEROES, MIB / 2, NULL, MIB / 2), 0);
		ck_ok(disk_flush(io.disk, &ck_err));
		ck_assert_uint_ge(allocated(&io), MIB / 2);
		io_fini(&io);
	}
	free(data);
}
END_TEST

/* As when its VM is started anew at once. */
START_TEST(the_disk_of_a_process_that_was_killed_is_free)
{
	int ready[2];
	char byte;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct place place;
		struct disk *disk;
		pid_t pid;

		place_init(&place, ways[i].above);
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (!pid) {
			struct error err;

			disk = open_image(place.image, false);
			if (disk_lock(disk, &err) || write(ready[1], "", 1) < 0)
				_exit(1);
			pause();
		}
		ck_assert_int_eq(read(ready[0], &byte, 1), 1);
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
		disk = open_image(place.image, false);
		ck_ok(disk_lock(disk, &ck_err));
		disk_close(disk);
		place_fini(&place);
	}
	close(ready[0]);
	close(ready[1]);
}
END_TEST

START_TEST(one_engine_has_the_ring_and_the_next_has_it_after)
{
	struct disk_engine *engine;
	struct disk *again;
	struct io io;

	if (!io_init(&io, &ways[1], MIB))
		return;
	ck_ok(disk_dup(io.disk, false, &again, &ck_err));
	ck_ok(disk_engine_create(again, DEPTH, &engine, &ck_err));
	ck_assert_str_eq(disk_engine_name(engine), "preadv");
	disk_engine_free(engine);
	disk_engine_free(io.engine);
	disk_close(io.disk);
	ck_ok(disk_engine_create(again, DEPTH, &io.engine, &ck_err));
	ck_assert_str_eq(disk_engine_name(io.engine), "io_uring");
	io.disk = again;
	io_fini(&io);
}
END_TEST

#ifdef HAVE_LIBURING
START_TEST(a_ring_does_nothing_but_io_on_its_disk)
{
	struct io_uring_cqe *cqe;
	struct io_uring *ring;
	char byte;
	struct io io;

	if (!io_init(&io, &ways[1], MIB))
		return;
	/* It is the first thing in there. */
	ring = (struct io_uring *)(void *)io.disk->uring;
	for (unsigned int i = 0; i < 3; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		ck_assert_ptr_nonnull(sqe);
		if (i == 0)
			io_uring_prep_read(sqe, io.disk->fd, &byte, 1, 0);
		else if (i == 1)
			io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd",
					     O_RDONLY, 0);
		else
			io_uring_prep_read(sqe, 1, &byte, 1, 0);
		if (i == 2)
			sqe->flags |= IOSQE_FIXED_FILE;
		ck_assert_int_eq(io_uring_submit(ring), 1);
		ck_assert_int_eq(io_uring_wait_cqe(ring, &cqe), 0);
		ck_assert_int_eq(cqe->res, i == 2 ? -EBADF : -EACCES);
		io_uring_cqe_seen(ring, cqe);
	}
	ck_assert_int_lt(
		io_uring_register_files_update(ring, 0, &(int){ 0 }, 1), 0);
	io_fini(&io);
}
END_TEST
#endif

UNIT_SUITE("disk", opening_says_what_is_wrong_with_a_file,
	   a_descriptor_must_allow_what_the_guest_does,
	   a_link_is_followed_and_its_end_told, a_size_is_whole_sectors_upwards,
	   a_dup_of_a_readonly_disk_is_readonly,
	   a_second_vm_is_refused_and_the_first_one_named,
	   the_holder_of_each_byte_is_found, readers_share_and_keep_writers_out,
	   whoever_is_refused_holds_nothing,
	   a_dup_gives_its_locks_back_when_the_file_stays_open,
	   a_filesystem_without_locks_is_refused,
	   a_move_passes_the_locks_and_nobody_slips_in,
	   an_owner_that_was_late_gives_its_lock_back_when_the_file_stays_open,
	   a_move_that_failed_gives_everything_back, another_disk_is_refused,
	   whoever_locks_everything_proves_nothing,
	   a_readonly_disk_moves_and_stays_guarded,
	   an_owner_that_is_late_waits_for_who_tries_in_vain,
	   a_lock_that_was_lost_is_noticed, a_lock_file_tells_who_holds_it,
	   an_image_in_a_lock_dir_is_named_by_its_path,
	   a_lock_dir_that_does_not_do_is_refused,
#ifdef HAVE_LIBURING
	   a_ring_does_nothing_but_io_on_its_disk,
#endif
	   what_is_written_is_read_back_by_every_way,
	   what_covers_blocks_in_part_leaves_the_rest,
	   transfers_that_end_early_go_on,
	   zeroes_are_written_where_nothing_makes_them,
	   an_error_is_told_and_not_taken_for_zeroes,
	   many_requests_are_in_flight_at_a_time,
	   a_part_of_a_block_waits_for_the_whole_of_it,
	   a_discard_gives_space_back,
	   the_disk_of_a_process_that_was_killed_is_free,
	   one_engine_has_the_ring_and_the_next_has_it_after)
