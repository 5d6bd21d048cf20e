// SPDX-License-Identifier: MIT
/*
 * Disks as they are opened, on real files: what is refused, what is followed,
 * and how large one is.
 */
#include <errno.h>
#include <sys/stat.h>

#include "tests/unit/disk_rig.h"

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
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
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

UNIT_SUITE("disk", opening_says_what_is_wrong_with_a_file,
	   a_descriptor_must_allow_what_the_guest_does,
	   a_link_is_followed_and_its_end_told, a_size_is_whole_sectors_upwards,
	   a_dup_of_a_readonly_disk_is_readonly)
