/* SPDX-License-Identifier: MIT */
/*
 * The inside of a disk, for disk*.c only.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H
#define GODWIT_DEVICES_BACKEND_DISK_INTERNAL_H

#include "devices/backend/disk.h"

/*
 * Where locks lie: no image is that long, so a filesystem whose locks forbid
 * reading (SMB) forbids none of ours; and it is below 2^63, where offsets of
 * NFS and of Linux end.
 */
#define DISK_LOCK_BASE	 (1ULL << 62)
#define DISK_LOCK_OWNER	 DISK_LOCK_BASE
#define DISK_LOCK_WRITER (DISK_LOCK_BASE + 1)

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
	bool badge;	   /* is held, on the image; only with lock_path */
	uint64_t badge_at; /* of a writer; 0: not known yet */

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

/* ---- single bytes; see disk_lock.c ---- */

/**
 * disk_byte_lock() - F_RDLCK, F_WRLCK or F_UNLCK, for the open file @fd.
 *
 * Return: 0; -EAGAIN: another open file's lock forbids it; or -errno.
 */
int __must_check disk_byte_lock(int fd, uint64_t at, short type);

/**
 * disk_bytes_look() - a lock that another open file has in a range.
 * @ret_type: F_UNLCK: there is none.
 * @ret_at: where it begins.
 */
int __must_check disk_bytes_look(int fd, uint64_t from, uint64_t len,
				 short *ret_type, uint64_t *ret_at);

/**
 * disk_holder_find() - in words, whose process on this host holds the lock that
 * begins at @at of the file @fd is open on. Looks in /proc: not in the sandbox.
 *
 * Return: was one seen?
 */
bool disk_holder_find(int fd, uint64_t at, char *buf, size_t size);

/* ---- badges; see disk_badge.c ---- */

/**
 * disk_badge_check() - does somebody have the image who locks it otherwise?
 * @caged: say so without finding out who, which takes long and is not to be had
 * in the sandbox.
 *
 * Return: 0, or -errno with @err; -EBUSY: somebody has.
 */
int __must_check disk_badge_check(const struct disk *disk, bool caged,
				  struct error *err);

/**
 * disk_badge_draw() - for a new VM, and into the lock file; OWNER of which is
 * ours.
 */
int __must_check disk_badge_draw(struct disk *disk, struct error *err);

/**
 * disk_badge_learn() - from the lock file: of the VM that is about to come.
 */
int __must_check disk_badge_learn(struct disk *disk, struct error *err);

/**
 * disk_badge_wear() - hold it on the image, unless somebody has that who locks
 * it otherwise. Again after it was lost, too. When it fails it may be held all
 * the same.
 */
int __must_check disk_badge_wear(struct disk *disk, struct error *err);
void disk_badge_take_off(struct disk *disk);

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
