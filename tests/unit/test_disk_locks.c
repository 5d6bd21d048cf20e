// SPDX-License-Identifier: MIT
/*
 * Whose a disk is: locks on real files, who is refused by them and named, and
 * lock files.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/disk_rig.h"

static const uint8_t session[16] = { 1, 2, 3, 4, 5, 6, 7, 8 };

/* What fcntl() says to whoever locks; 0: what the kernel says. */
static int lock_errno;

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);

int __wrap_fcntl(int fd, int cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	if (lock_errno && (cmd == F_OFD_SETLK || cmd == F_OFD_GETLK)) {
		errno = lock_errno;
		return -1;
	}
	return __real_fcntl(fd, cmd, arg);
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

static void pid_word(char *buf, size_t size)
{
	snprintf(buf, size, "pid %d", getpid());
}

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

/* ---- the end ---- */

/* As when its VM is started anew at once. */
START_TEST(the_disk_of_a_process_that_was_killed_is_free)
{
	static const char *const above[] = { "/dev/shm", "/var/tmp" };
	int ready[2];
	char byte;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	for (size_t i = 0; i < ARRAY_SIZE(above); i++) {
		struct place place;
		struct disk *disk;
		pid_t pid;

		place_init(&place, above[i]);
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

UNIT_SUITE("disk locks", a_second_vm_is_refused_and_the_first_one_named,
	   the_holder_of_each_byte_is_found, readers_share_and_keep_writers_out,
	   whoever_is_refused_holds_nothing,
	   a_dup_gives_its_locks_back_when_the_file_stays_open,
	   a_filesystem_without_locks_is_refused,
	   a_lock_file_tells_who_holds_it,
	   an_image_in_a_lock_dir_is_named_by_its_path,
	   a_lock_dir_that_does_not_do_is_refused,
	   the_disk_of_a_process_that_was_killed_is_free)
