/* SPDX-License-Identifier: MIT */
/*
 * What the tests of disks share: a directory with an image, of which any number
 * of disks are opened. Locks belong to open files, so two disks of one process
 * stand for two VMs, on one host or on two.
 */
#ifndef GODWIT_TESTS_DISK_RIG_H
#define GODWIT_TESTS_DISK_RIG_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"
#include "tests/unit/unit.h"

#define SIZE (64 * KIB)

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

static __maybe_unused struct disk *disk_of(const struct disk_params *params)
{
	struct error err = { "" };
	struct disk *disk;

	ck_assert_msg(!disk_open(params, &disk, &err), "%s", err.text);
	return disk;
}

static __maybe_unused struct disk *open_image(const char *path, bool readonly)
{
	struct disk_params params = {
		.id = "disk0", .path = path, .fd = -1, .readonly = readonly
	};

	return disk_of(&params);
}

static void __maybe_unused refuses(struct disk_params params, int code,
				   const char *word)
{
	struct error err = { "" };
	struct disk *disk;

	params.id = "disk0";
	ck_assert_int_eq(disk_open(&params, &disk, &err), code);
	ck_says(err, params.path);
	ck_says(err, word);
}

#endif
