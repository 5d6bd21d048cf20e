/* SPDX-License-Identifier: MIT */
/*
 * The inside of a command line's disks, for disks.c and disks_describe.c only.
 */
#ifndef GODWIT_DISKS_INTERNAL_H
#define GODWIT_DISKS_INTERNAL_H

#include "devices/backend/disk.h"
#include "vmm/disks.h"
#include "vmm/siphash.h"

/* The type of a disk's device, and how much of a name goes with it. */
#define DISK_DEVICE   "virtio-blk"
#define DISK_NAME_MAX 100

/* A disk that some device has, or had in an attempt before. */
struct used {
	char id[DEVICE_ID_MAX];
	char path[PATH_MAX];
	uint64_t dev;
	uint64_t ino;
	uint64_t size;
	bool direct;
	bool readonly;
};

struct disks {
	const struct disks_options *options;
	bool listens;
	struct device_backends backends;
	char *lock_dir; /* the whole path; NULL: none */
	struct disk *named[MACHINE_DEVICES_MAX]; /* by place in options */
	int roots[DISK_ROOTS_MAX];
	char *root_paths[DISK_ROOTS_MAX]; /* whole ones, for who is told */
	uint8_t boot_id[SIPHASH_SIZE];
	bool has_boot_id;

	uint32_t nused;
	struct used used[MACHINE_DEVICES_MAX];

	/* What the source says, for the attempt under way. */
	uint8_t session[WIRE_SESSION_SIZE];
	bool same_host;
	uint32_t noffered;
	struct wire_disk offered[MACHINE_DEVICES_MAX];
};

#endif
