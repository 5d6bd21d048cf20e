// SPDX-License-Identifier: MIT
/*
 * Those who lock a disk by a file in --lock-dir, and those who lock it
 * otherwise, keep each other away; and who hands a disk over by one lock file
 * does so as ever. Locks belong to open files, so several disks of one process
 * stand for several VMs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"
#include "tests/unit/unit.h"

#define IMAGE_SIZE (64 * KIB)

static const uint8_t session[16] = { 1, 2, 3, 4, 5, 6, 7, 8 };

/* What fcntl() says to whoever locks an image; 0: what the kernel says. */
static int image_errno;
/* Once, before the next lock on an image: somebody else is faster. */
static void (*before_lock)(void);

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

static bool is_image(int fd)
{
	struct stat stat;

	return !fstat(fd, &stat) && stat.st_size == IMAGE_SIZE;
}

int __wrap_fcntl(int fd, int cmd, ...)
{
	const struct flock *lock;
	void (*hook)(void) = before_lock;
	bool locks = cmd == F_OFD_SETLK || cmd == F_OFD_GETLK;
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	lock = arg;
	if (locks && image_errno && is_image(fd)) {
		errno = image_errno;
		return -1;
	}
	if (hook && cmd == F_OFD_SETLK && lock->l_type != F_UNLCK &&
	    is_image(fd)) {
		before_lock = NULL;
		hook();
	}
	return __real_fcntl(fd, cmd, arg);
}

/* ---- an image, its other name, and two directories for locks ---- */

static char dir[64];

static const char *path_of(const char *name)
{
	static char paths[4][96];
	static unsigned int at;
	char *path = paths[at++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void setup(void)
{
	int fd;

	snprintf(dir, sizeof(dir), "/dev/shm/godwit-badge-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	fd = open(path_of("image"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, IMAGE_SIZE), 0);
	close(fd);
	ck_assert_int_eq(link(path_of("image"), path_of("other-name")), 0);
	ck_assert_int_eq(mkdir(path_of("locks"), 0700), 0);
	ck_assert_int_eq(mkdir(path_of("other-locks"), 0700), 0);
	image_errno = 0;
	before_lock = NULL;
}

static void teardown(void)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	ck_assert_int_eq(system(command), 0);
}

/* Each way to come by the image. */
enum way {
	PLAIN,
	PLAIN_READER,
	BY_FILE,
	BY_FILE_READER,
	BY_OTHER_DIR,
	BY_OTHER_NAME,
	WAYS,
};

static struct disk *open_by(enum way way)
{
	bool by_file = way != PLAIN && way != PLAIN_READER;
	const char *image = way == BY_OTHER_NAME ? "other-name" : "image";
	const char *locks = way == BY_OTHER_DIR ? "other-locks" : "locks";
	struct disk_params params = {
		.id = "disk0",
		.path = path_of(image),
		.fd = -1,
		.readonly = way == PLAIN_READER || way == BY_FILE_READER,
		.lock_dir = by_file ? path_of(locks) : NULL,
	};
	struct error err = { "" };
	struct disk *disk;

	ck_assert_msg(!disk_open(&params, &disk, &err), "%s", err.text);
	return disk;
}

static struct disk *locked_by(enum way way)
{
	struct disk *disk = open_by(way);
	struct error err = { "" };

	ck_assert_msg(!disk_lock(disk, &err), "way %d: %s", way, err.text);
	return disk;
}

/* Would a new VM be let in? Nothing is left of its attempt. */
static bool gets_in(enum way way, struct error *err)
{
	struct disk *disk = open_by(way);
	int rc = disk_lock(disk, err);

	disk_close(disk);
	if (rc)
		ck_assert_int_eq(rc, -EBUSY);
	return !rc;
}

static void ck_nobody_gets_in(const char *when)
{
	struct error err;

	for (enum way way = PLAIN; way < WAYS; way++)
		ck_assert_msg(!gets_in(way, &err), "%s: way %d", when, way);
}

/* ---- who comes in beside whom ---- */

static bool reads(enum way way)
{
	return way == PLAIN_READER || way == BY_FILE_READER;
}

static void try_beside(enum way first, enum way second)
{
	struct disk *disk = locked_by(first);
	bool both_read = reads(first) && reads(second);
	struct error err = { "" };
	char pid[32];
	int kept;

	snprintf(pid, sizeof(pid), "pid %d", getpid());
	ck_assert_msg(gets_in(second, &err) == both_read, "%d beside %d",
		      second, first);
	if (!both_read) {
		ck_says(err, "locked by another VM");
		ck_says(err, pid);
		ck_says(err, "stop it");
	}
	/* Who was refused has left nothing that would be in the way. */
	ck_ok(disk_prove(disk, session, &ck_err));
	/* What is let go of is so even when the file stays open. */
	kept = dup(disk->fd);
	disk_close(disk);
	ck_assert(gets_in(second, &err));
	ck_assert(gets_in(first, &err));
	close(kept);
}

START_TEST(only_readers_share_a_disk_however_they_lock_it)
{
	setup();
	for (enum way first = PLAIN; first < WAYS; first++) {
		for (enum way second = PLAIN; second < WAYS; second++)
			try_beside(first, second);
	}
	teardown();
}
END_TEST

START_TEST(a_writer_is_told_of_readers_that_lock_otherwise)
{
	struct disk *disk;
	struct error err;

	setup();
	disk = locked_by(PLAIN_READER);
	ck_assert(!gets_in(BY_FILE, &err));
	ck_says(err, ",readonly");
	disk_close(disk);
	teardown();
}
END_TEST

START_TEST(a_lock_file_that_was_made_anew_is_another_one)
{
	struct disk *disk;
	struct error err;
	char path[160];

	setup();
	disk = locked_by(BY_FILE);
	snprintf(path, sizeof(path), "%s", disk->lock_path);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert(!gets_in(BY_FILE, &err));
	ck_says(err, path);
	disk_close(disk);
	teardown();
}
END_TEST

START_TEST(a_copy_of_the_lock_dir_is_another_one)
{
	struct disk *disk;
	struct error err;
	char command[224];

	setup();
	disk = locked_by(BY_FILE);
	snprintf(command, sizeof(command), "cp -a '%s/.' '%s/'",
		 path_of("locks"), path_of("other-locks"));
	ck_assert_int_eq(system(command), 0);
	ck_assert(!gets_in(BY_OTHER_DIR, &err));
	disk_close(disk);
	teardown();
}
END_TEST

static struct {
	enum way way;
	struct disk *disk;
} faster;

static void come_faster(void)
{
	faster.disk = locked_by(faster.way);
}

START_TEST(of_two_that_come_at_once_one_is_refused)
{
	static const struct {
		enum way slow, fast;
	} pairs[] = { { BY_FILE, PLAIN },	 { BY_FILE, PLAIN_READER },
		      { BY_FILE, BY_OTHER_DIR }, { PLAIN, BY_FILE },
		      { PLAIN_READER, BY_FILE }, { BY_FILE_READER, PLAIN } };
	struct error err;

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		faster.way = pairs[i].fast;
		before_lock = come_faster;
		ck_assert(!gets_in(pairs[i].slow, &err));
		disk_close(faster.disk);
		ck_assert(gets_in(pairs[i].slow, &err));
	}
	teardown();
}
END_TEST

/* ---- moves ---- */

START_TEST(a_move_by_a_lock_file_leaves_no_gap_to_anybody)
{
	struct disk *source, *target;
	struct error err;

	setup();
	source = locked_by(BY_FILE);
	target = open_by(BY_FILE);
	ck_ok(disk_prove(source, session, &ck_err));
	ck_ok(disk_verify(target, session, &ck_err));
	ck_nobody_gets_in("verified");
	disk_drop_writer(source);
	ck_nobody_gets_in("yielded");
	ck_ok(disk_take_writer(target, &ck_err));
	ck_nobody_gets_in("taken");
	disk_close(source);
	ck_nobody_gets_in("source gone");
	ck_ok(disk_take_owner(target, &ck_err));
	ck_nobody_gets_in("owned");
	/* And on it goes, back to where it came from. */
	source = open_by(BY_FILE);
	ck_ok(disk_prove(target, session, &ck_err));
	ck_ok(disk_verify(source, session, &ck_err));
	disk_close(target);
	ck_ok(disk_take_writer(source, &ck_err));
	ck_ok(disk_take_owner(source, &ck_err));
	ck_nobody_gets_in("moved back");
	disk_close(source);
	ck_assert(gets_in(PLAIN, &err));
	teardown();
}
END_TEST

START_TEST(a_move_by_a_lock_file_that_failed_leaves_the_source_alone)
{
	struct disk *source, *target;
	struct error err;

	setup();
	source = locked_by(BY_FILE);
	target = open_by(BY_FILE);
	ck_ok(disk_prove(source, session, &ck_err));
	ck_ok(disk_verify(target, session, &ck_err));
	disk_drop_writer(source);
	disk_close(target);
	ck_ok(disk_take_writer(source, &ck_err));
	ck_nobody_gets_in("failed");
	disk_close(source);
	ck_assert(gets_in(BY_OTHER_DIR, &err));
	teardown();
}
END_TEST

START_TEST(a_reader_moves_by_a_lock_file_and_keeps_writers_out)
{
	struct disk *source, *target;
	struct error err;

	setup();
	source = locked_by(BY_FILE_READER);
	target = open_by(BY_FILE_READER);
	ck_ok(disk_prove(source, session, &ck_err));
	ck_ok(disk_verify(target, session, &ck_err));
	disk_close(source);
	ck_assert(!gets_in(PLAIN, &err));
	ck_assert(!gets_in(BY_FILE, &err));
	ck_assert(!gets_in(BY_OTHER_DIR, &err));
	ck_assert(gets_in(PLAIN_READER, &err));
	disk_close(target);
	ck_assert(gets_in(PLAIN, &err));
	teardown();
}
END_TEST

START_TEST(a_disk_does_not_move_to_who_locks_it_otherwise)
{
	static const enum way sources[] = { PLAIN, BY_FILE };
	struct error err;

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		struct disk *source = locked_by(sources[i]);

		ck_ok(disk_prove(source, session, &ck_err));
		for (enum way way = PLAIN; way < WAYS; way++) {
			struct disk *target = open_by(way);

			if (way != sources[i] && !disk_readonly(target))
				ck_assert_int_eq(
					disk_verify(target, session, &err),
					-ENXIO);
			disk_close(target);
		}
		disk_close(source);
	}
	teardown();
}
END_TEST

/* As of another host, which reaches the device by a node of its own. */
START_TEST(a_target_whose_image_another_has_is_refused)
{
	struct disk *source, *target, *other;
	struct error err;

	setup();
	image_errno = ENOLCK;
	source = locked_by(BY_FILE);
	image_errno = 0;
	ck_ok(disk_prove(source, session, &ck_err));
	other = locked_by(PLAIN);
	target = open_by(BY_FILE);
	ck_assert_int_eq(disk_verify(target, session, &err), -EBUSY);
	ck_says(err, "otherwise than by");
	disk_close(target);
	disk_close(other);
	disk_close(source);
	teardown();
}
END_TEST

START_TEST(a_lock_file_that_somebody_has_changed_is_refused)
{
	static const char *const lines[] = { "", "badge 0123",
					     "badge 000000000g",
					     "badge 0x23456789",
					     "badge  123456789" };
	struct error err;

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct disk *source = locked_by(BY_FILE);
		struct disk *target = open_by(BY_FILE);

		ck_ok(disk_prove(source, session, &ck_err));
		ck_assert_int_eq(ftruncate(target->lock_fd, DISK_HOLDER_MAX),
				 0);
		ck_assert_int_ge(pwrite(target->lock_fd, lines[i],
					strlen(lines[i]), DISK_HOLDER_MAX),
				 0);
		ck_assert_int_eq(disk_verify(target, session, &err), -EBADMSG);
		ck_says(err, target->lock_path);
		disk_close(target);
		disk_close(source);
	}
	teardown();
}
END_TEST

/* ---- locks that are lost, or that aren't there ---- */

START_TEST(a_badge_that_was_lost_is_noticed)
{
	struct disk *disk, *other;
	struct error err;

	setup();
	disk = locked_by(BY_FILE);
	/* Nobody was faster: it is ours again. */
	ck_ok(disk_byte_lock(disk->fd, disk->badge_at, F_UNLCK));
	ck_ok(disk_prove(disk, session, &ck_err));
	ck_nobody_gets_in("proved");
	ck_ok(disk_byte_lock(disk->fd, disk->badge_at, F_UNLCK));
	other = locked_by(PLAIN);
	ck_assert_int_eq(disk_prove(disk, session, &err), -EBUSY);
	ck_says(err, "locked by another VM");
	disk_close(other);
	disk_close(disk);
	/* Of the image itself, meanwhile had by who locks otherwise. */
	disk = locked_by(PLAIN);
	ck_ok(disk_byte_lock(disk->fd, DISK_LOCK_OWNER, F_UNLCK));
	ck_ok(disk_byte_lock(disk->fd, DISK_LOCK_WRITER, F_UNLCK));
	other = locked_by(BY_FILE);
	ck_assert_int_eq(disk_prove(disk, session, &err), -EBUSY);
	disk_close(other);
	disk_close(disk);
	teardown();
}
END_TEST

START_TEST(an_image_without_locks_is_locked_by_its_file_alone)
{
	static const int errors[] = { ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS };
	struct disk *source, *target;
	struct error err;

	setup();
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		image_errno = errors[i];
		source = locked_by(BY_FILE);
		target = open_by(BY_FILE);
		ck_assert(!gets_in(BY_FILE, &err));
		ck_ok(disk_prove(source, session, &ck_err));
		ck_ok(disk_verify(target, session, &ck_err));
		disk_close(source);
		ck_ok(disk_take_writer(target, &ck_err));
		ck_ok(disk_take_owner(target, &ck_err));
		disk_close(target);
	}
	/* What may come and go, as a file server does, is no such image. */
	image_errno = EIO;
	source = open_by(BY_FILE);
	ck_assert_int_eq(disk_lock(source, &err), -EIO);
	disk_close(source);
	teardown();
}
END_TEST

UNIT_SUITE("badge", only_readers_share_a_disk_however_they_lock_it,
	   a_writer_is_told_of_readers_that_lock_otherwise,
	   a_lock_file_that_was_made_anew_is_another_one,
	   a_copy_of_the_lock_dir_is_another_one,
	   of_two_that_come_at_once_one_is_refused,
	   a_move_by_a_lock_file_leaves_no_gap_to_anybody,
	   a_move_by_a_lock_file_that_failed_leaves_the_source_alone,
	   a_reader_moves_by_a_lock_file_and_keeps_writers_out,
	   a_disk_does_not_move_to_who_locks_it_otherwise,
	   a_target_whose_image_another_has_is_refused,
	   a_lock_file_that_somebody_has_changed_is_refused,
	   a_badge_that_was_lost_is_noticed,
	   an_image_without_locks_is_locked_by_its_file_alone)
