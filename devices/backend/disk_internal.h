/* SPDX-License-Identifier: MIT */
/*
 * The inside of a disk, for disk*.c only.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H
#define GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H

#include "devices/backend/disk.h"

/* The line that a holder leaves in a lock file. */
#define DISK_HOLDER_MAX 160

struct disk_uring;

struct disk {
	char *id;
	char *given; /* as the user wrote it, for errors */
	char *path;  /* where links led to */
	int fd;
	bool readonly;
	bool direct;
	bool block_device;
	bool shared_cache; /* with the source of a move */
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
 * disk_holder_read() - what the last one who could write left in the lock file.
 *
 * Return: 0, or -ENOENT: nothing.
 */
int __must_check disk_holder_read(const struct disk *disk, char *buf,
				  size_t size);

/**
 * disk_holder_write() - the next one who is refused shall know who has it.
 */
void disk_holder_write(const struct disk *disk);

/**
 * disk_unlock() - let go of whatever @disk holds.
 */
void disk_unlock(struct disk *disk);

/* ---- io_uring; see disk_uring.c ---- */

/**
 * disk_uring_create() - a ring that can do what requests are made of, on @fd
 * and on nothing else. Before the sandbox.
 *
 * Return: 0; or -errno: none to be had, from this kernel or in this build.
 */
int __must_check disk_uring_create(int fd, struct disk_uring **ret);

/**
 * disk_uring_get() / disk_uring_put() - one user more, one less; NULL is fine.
 */
struct disk_uring *disk_uring_get(struct disk_uring *uring);
void disk_uring_put(struct disk_uring *uring);

/**
 * disk_uring_take() - for one engine, until disk_uring_release().
 *
 * Return: false when another has it, or @uring is NULL.
 */
bool disk_uring_take(struct disk_uring *uring);
void disk_uring_release(struct disk_uring *uring);

int disk_uring_fd(const struct disk_uring *uring);
void disk_uring_submit(struct disk_uring *uring, struct disk_request *request);
void disk_uring_kick(struct disk_uring *uring);

/**
 * disk_uring_next() - what has ended.
 * @wait: until something has.
 * @ret_result: bytes, or -errno.
 *
 * Return: NULL when there is nothing.
 */
struct disk_request *disk_uring_next(struct disk_uring *uring, bool wait,
				     int *ret_result);

/**
 * disk_range_mode() - what fallocate() is told for DISCARD and the like.
 */
int disk_range_mode(enum disk_op op);

#endif
