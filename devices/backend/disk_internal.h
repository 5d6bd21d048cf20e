/* SPDX-License-Identifier: MIT */
/*
 * The inside of a disk, for disk*.c only.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H
#define GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H

#include "devices/backend/disk.h"

struct disk_uring;

struct disk {
	char *id;
	char *given; /* as the user wrote it, for errors */
	char *path;  /* where links led to */
	int fd;
	bool readonly;
	bool direct;
	bool block_device;
	uint64_t size;
	uint64_t dev; /* of the cache, see disk_inode() */
	uint64_t ino;
	uint32_t offset_align; /* what O_DIRECT demands; 1 without */
	uint32_t memory_align;

	char *lock_path; /* NULL: the image itself is locked */
	int lock_fd;	 /* or -1 */
	char *holder;	 /* what we write into lock_path */
	bool owner;
	bool writer;
	bool proof;
	uint64_t proof_at;

	struct disk_uring *uring; /* NULL: none to be had */
};

/**
 * disk_error() - error_set() with "--disk PATH: " in front.
 */
int disk_error(const struct disk *disk, struct error *err, int code,
	       const char *fmt, ...) __printf(4, 5);

/**
 * disk_lock_open() - open, or create, the file in @lock_dir that is locked in
 * the image's stead. @identity: as in struct disk_params.
 */
int __must_check disk_lock_open(struct disk *disk, const char *lock_dir,
				const char *identity, struct error *err);

/**
 * disk_unlock() - let go of whatever @disk holds.
 */
void disk_unlock(struct disk *disk);

#endif
