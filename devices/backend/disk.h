/* SPDX-License-Identifier: MIT */
/*
 * A disk image on the host: a raw file or a block device, the locks that say
 * whose it is, and requests on it.
 *
 * Locks are open-file-description locks on single bytes far beyond any data,
 * of the image itself or of a file in --lock-dir that is named after the disk
 * (by serial= of its --disk, if that is given):
 *
 *   OWNER   a VM has this disk; held from `run` until the VM is gone from here
 *   WRITER  it may write to it now; given from source to target in the pause
 *   PROOF   a byte that a session's id chooses, held by the source of a move
 *
 * `run` takes OWNER and WRITER; a readonly disk takes OWNER shared, while
 * nobody has WRITER: a guest that has moved may write before it gets OWNER. A
 * target that finds OWNER free, or PROOF, knows that it looks at another disk,
 * or that locks don't work between the two hosts, and refuses. The byte after
 * PROOF must be free, or whoever locks everything would pass.
 *
 * Who locks by a lock file also holds, on the image, what keeps those away who
 * lock otherwise: by the image itself, or by another lock file, be it of
 * another directory, under another name, or made anew after one that was
 * removed.
 *
 *   BADGE   a byte that `run` draws and writes into the lock file, where the
 *           target of a move finds it; held shared by all who may write to the
 *           disk by virtue of that file. A readonly disk has OWNER of the image
 *           shared instead, as if there were no lock file
 *
 *                    by the image      by lock file L          by another
 *                    writer  reader    writer        reader    writer
 *   image: writer    OWNER   OWNER     look          OWNER     look
 *   image: reader    OWNER   together  look          together  look
 *   L: writer        look    look      OWNER of L,   OWNER     look
 *                                      in a move         of L
 *                                      together
 *
 * "look": shared locks don't refuse each other, so each looks for what the
 * other holds before it takes its own, and again when it has it: all of them
 * for any BADGE but their own; who locks by a lock file also for WRITER of the
 * image and, if it writes, for OWNER. In a move OWNER or WRITER, or the BADGE,
 * is held at every moment, so nobody needs to look again until he is the source
 * of one.
 *
 * An image whose filesystem has no locks has nobody on it who could hold one.
 *
 * Locks on an image go as far as its filesystem carries them: with NFS between
 * hosts. Those on the node of a block device, /dev/sda, are known to this host
 * alone, and to nobody who reaches the device by another node: enough to keep
 * two VMs of one host apart and to move between them; for more --lock-dir names
 * a directory that all hosts share.
 *
 * A file whose size is no multiple of a sector is a disk of so many sectors
 * that it fits in: what lies behind its end reads as zeroes, and a write there
 * makes the file longer, to the end of the sector.
 *
 * Whoever opens a disk does so before the process enters its sandbox; from then
 * on there is disk_dup(). Descriptors that are shared share their locks, so
 * locks are given back by name and not only by closing.
 *
 * Threads: opening and locks from any one at a time; requests from the thread
 * that the engine belongs to, see below.
 */
#ifndef GODWIT_DEVICES_BACKEND_DISK_H
#define GODWIT_DEVICES_BACKEND_DISK_H

#include <sys/uio.h>

#include "vmm/error.h"

#define DISK_SECTOR	  512
#define DISK_DEPTH_MAX	  256 /* requests in flight */
#define DISK_SEGMENTS_MAX 256 /* of one */

struct disk;

struct disk_params {
	const char *id;	  /* of the device, for the log */
	const char *path; /* for errors, and to open unless fd says more */
	int fd;		  /* -1: open @path; else taken over */
	bool readonly;
	bool comes;	      /* from a source: it has to be there already */
	bool direct;	      /* O_DIRECT: past the host's page cache */
	const char *lock_dir; /* NULL: lock the image itself */
	/*
	 * Names the disk in lock_dir. NULL: of a block device the serial number
	 * or WWID that the host knows, of a file its path.
	 */
	const char *identity;
};

/**
 * disk_open() - open, look at kind, size and alignment. Nothing is locked.
 *
 * Before the sandbox: links are followed, lock and system files opened, an
 * io_uring made. With params->fd, and without lock_dir, nothing of that
 * happens, so that it does in the sandbox of a migration thread too.
 *
 * Return: 0, or -errno with @err naming path, fault and remedy. params->fd is
 * closed then.
 */
int __must_check disk_open(const struct disk_params *params, struct disk **ret,
			   struct error *err);

/**
 * disk_dup() - the same disk once more, on the same open files: for a listener,
 * which opens a disk once and gives it to one attempt after the other.
 * @readonly: even though @disk could be written.
 *
 * Looks at the size again. Locks and io_uring are those of @disk: one of the
 * two uses them at a time. Either may be closed first.
 *
 * Return: 0, or -errno: -EROFS: @disk is readonly and this one shall not be.
 */
int __must_check disk_dup(const struct disk *disk, bool readonly,
			  struct disk **ret, struct error *err);

/**
 * disk_close() - give back the locks that were taken through @disk, and close;
 * NULL is fine.
 */
void disk_close(struct disk *disk);

uint64_t disk_size(const struct disk *disk); /* bytes; whole sectors */
bool disk_readonly(const struct disk *disk);
bool disk_direct(const struct disk *disk);
bool disk_is_block_device(const struct disk *disk);
/* Where links led to; of a descriptor what params->path said. */
const char *disk_path(const struct disk *disk);

/**
 * disk_block_size() - what requests should be multiples of, to be fast: with
 * O_DIRECT what the host demands, else DISK_SECTOR, which is always possible.
 */
uint32_t disk_block_size(const struct disk *disk);

/**
 * disk_inode() - names the host's cache of this disk: two disks with the same
 * numbers under one kernel share their cached pages.
 */
void disk_inode(const struct disk *disk, uint64_t *ret_dev, uint64_t *ret_ino);

/* ---- locks; each -errno with @err naming disk, holder and remedy ---- */

/**
 * disk_lock() - OWNER and WRITER, or OWNER shared for a readonly disk. Before
 * the sandbox: it looks in /proc for who holds them.
 *
 * Return: 0; -EBUSY: another VM has it (its pid and host are named, if they can
 * be known); -ENOLCK, -EOPNOTSUPP: no locks there.
 */
int __must_check disk_lock(struct disk *disk, struct error *err);

/**
 * disk_prove() - source: hold PROOF of @session (16 bytes), and make sure that
 * OWNER and WRITER are still ours (a file server may have lost them).
 */
int __must_check disk_prove(struct disk *disk, const uint8_t *session,
			    struct error *err);

/**
 * disk_unprove() - let PROOF go.
 */
void disk_unprove(struct disk *disk);

/**
 * disk_verify() - target: is this the disk that the source of @session has, and
 * do locks work from there to here? A readonly disk is ours too from here on:
 * OWNER is shared.
 */
int __must_check disk_verify(struct disk *disk, const uint8_t *session,
			     struct error *err);

/**
 * disk_take_writer() - -EBUSY when somebody has it. Readonly disks have none.
 */
int __must_check disk_take_writer(struct disk *disk, struct error *err);
void disk_drop_writer(struct disk *disk);

/**
 * disk_look_for_writer() - does anybody have WRITER by a lock on the image at
 * @path? Of a lock file in its stead nothing is known here. For a process that
 * has no disk; not in the sandbox, and may block for as long as the storage
 * takes.
 *
 * Return: 0: nobody, which proves nothing; -EBUSY with @err: somebody; or
 * another -errno with @err: it can't be told.
 */
int __must_check disk_look_for_writer(const char *path, struct error *err);

/**
 * disk_take_owner() - target after RUNNING; -EBUSY as long as the source has
 * not let go.
 */
int __must_check disk_take_owner(struct disk *disk, struct error *err);

/**
 * disk_unlock() - let go of whatever @disk holds: source after RUNNING, and
 * whoever closes it.
 */
void disk_unlock(struct disk *disk);

/**
 * disk_flush() - all that was written is on stable storage. Blocks.
 */
int __must_check disk_flush(struct disk *disk, struct error *err);

/**
 * disk_share_cache() - target: the source writes through this very page cache,
 * so nothing in it can be old: disk_drop_cache() keeps what is there.
 */
void disk_share_cache(struct disk *disk);
bool disk_shares_cache(const struct disk *disk);

/**
 * disk_drop_cache() - forget what the host has cached, after another host may
 * have written. Blocks. What somebody else on this host has mapped, or is
 * writing, stays cached: for that O_DIRECT is the remedy.
 */
int __must_check disk_drop_cache(struct disk *disk, struct error *err);

/* ---- requests ---- */

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,
	DISK_DISCARD, /* contents may become anything; a hole if possible */
	DISK_ZEROES,  /* contents become zero, space stays */
	DISK_UNMAP_ZEROES, /* contents become zero, space may go */
};

struct disk_request {
	enum disk_op op;
	uint64_t offset; /* bytes; whole sectors */
	uint64_t len;	 /* of all iov together, or of the range */
	const struct iovec
		*iov;	   /* READ, WRITE; stays until done(). Else NULL */
	unsigned int niov; /* up to DISK_SEGMENTS_MAX; 0 without iov */
	/* Called by the engine's thread; @result 0 or -errno. Doesn't submit.
	 */
	void (*done)(struct disk_request *request, int result);
};

/*
 * An engine carries many requests at a time: by io_uring where there is
 * liburing and the kernel lets us, else one after the other by preadv and
 * pwritev on the calling thread. It belongs to one thread, which need not be
 * the one that made it.
 */
struct disk_engine;

/**
 * disk_engine_create() - room for @depth requests. Everything is allocated and
 * set up here: no system call afterwards that the I/O threads' filter lacks.
 * One engine a disk; @disk outlives it.
 * @depth: up to DISK_DEPTH_MAX.
 */
int __must_check disk_engine_create(struct disk *disk, unsigned int depth,
				    struct disk_engine **ret,
				    struct error *err);

/**
 * disk_engine_free() - nothing is in flight. NULL is fine.
 */
void disk_engine_free(struct disk_engine *engine);

/**
 * disk_submit() - begin a request; done() may be called before it returns, of
 * this one and of others. The range lies in the disk; at most @depth are in
 * flight.
 *
 * A flush covers the writes whose done() was called before it was submitted.
 */
void disk_submit(struct disk_engine *engine, struct disk_request *request);

/**
 * disk_engine_fd() - readable when disk_engine_reap() has something to do; -1
 * with an engine that never has.
 */
int disk_engine_fd(const struct disk_engine *engine);

/**
 * disk_engine_kick() - hand what was submitted since to the kernel, in one
 * system call.
 */
void disk_engine_kick(struct disk_engine *engine);

/**
 * disk_engine_reap() - call done() of what has ended. Never blocks.
 *
 * Return: how many.
 */
unsigned int disk_engine_reap(struct disk_engine *engine);

/**
 * disk_engine_name() - "io_uring" or "preadv", for the log.
 */
const char *disk_engine_name(const struct disk_engine *engine);

#endif
