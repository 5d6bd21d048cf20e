// SPDX-License-Identifier: MIT
/*
 * What a disk is on the host: opened and looked at once, so that everything
 * that can be wrong with it is said before anything begins. Locks are in
 * disk_lock.c, requests in disk_engine.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

/* More than that no request should have to be a multiple of. */
#define ALIGN_MAX 4096

int disk_error(const struct disk *disk, struct error *err, int code,
	       const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return error_set(err, code, "--disk %s: %s", disk->given, text);
}

/* ---- opening ---- */

/* Where a file in a device's place would be a surprise. */
static bool is_in_dev(const char *path)
{
	return !strncmp(path, "/dev/", 5) && strncmp(path, "/dev/shm/", 9) != 0;
}

static const char *remedy_for_nothing(const struct disk *disk, bool comes)
{
	struct stat link;

	if (!lstat(disk->given, &link) && S_ISLNK(link.st_mode))
		return "; it is a link that leads nowhere: set it right";
	if (comes)
		return "; give the path that the source's image has here";
	return is_in_dev(disk->given)
		       ? ""
		       : "; `truncate -s SIZE FILE` makes an empty disk";
}

static int open_failed(const struct disk *disk, bool comes, int code,
		       struct error *err)
{
	const char *remedy = "";

	if (code == -ENOENT)
		remedy = remedy_for_nothing(disk, comes);
	else if (code == -EISDIR)
		remedy = "; give a file in it, or a block device";
	else if (code == -EINVAL && disk->direct)
		remedy = "; its filesystem may have no O_DIRECT: leave out "
			 ",direct";
	else if ((code == -EACCES || code == -EPERM || code == -EROFS) &&
		 !disk->readonly)
		remedy = "; make it writable, or add ,readonly";
	return disk_error(disk, err, code, "%s%s", strerror(-code), remedy);
}

/*
 * The kernel lets a device that is mounted, swapped to or part of an array be
 * opened exclusively by nobody else; so whoever can is alone with it. VMs don't
 * open it so, and are kept apart by locks.
 */
static int refuse_host_use(const struct disk *disk, struct error *err)
{
	int fd = open(disk->given, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == EBUSY)
		return disk_error(disk, err, -EBUSY,
				  "this host uses the device itself: mounted, "
				  "as swap or in an array; end that, or add "
				  ",readonly");
	close_fd(&fd);
	return 0;
}

static int open_path(struct disk *disk, bool comes, struct error *err)
{
	int flags = disk->readonly ? O_RDONLY : O_RDWR;
	char *path;

	if (disk->direct)
		flags |= O_DIRECT;
	/* Whatever is there, a pipe for example: don't wait for anybody. */
	disk->fd = open(disk->given, flags | O_CLOEXEC | O_NONBLOCK);
	if (disk->fd < 0)
		return open_failed(disk, comes, -errno, err);
	path = realpath(disk->given, NULL);
	if (path) {
		free(disk->path);
		disk->path = path;
	}
	return 0;
}

/* Bring what is open to what is asked for. */
static int set_flags(struct disk *disk, struct error *err)
{
	int flags = fcntl(disk->fd, F_GETFL);
	int access = flags & O_ACCMODE;
	int wanted = flags & ~(O_NONBLOCK | O_DIRECT | O_APPEND);

	if (flags < 0)
		return disk_error(disk, err, -errno, "%s", strerror(errno));
	if (access == O_WRONLY || (access == O_RDONLY && !disk->readonly))
		return disk_error(disk, err, -EROFS,
				  "opened for %s only; add ,readonly, or open "
				  "it for both",
				  access == O_RDONLY ? "reading" : "writing");
	if (disk->direct)
		wanted |= O_DIRECT;
	if (fcntl(disk->fd, F_SETFL, wanted))
		return open_failed(disk, false, -errno, err);
	return 0;
}

/* ---- looking ---- */

/* Is a sector the unit of O_DIRECT? A page-sized one always is enough. */
static uint32_t try_direct(const struct disk *disk)
{
	uint32_t unit = ALIGN_MAX;
	void *buf = aligned_alloc(ALIGN_MAX, ALIGN_MAX);

	if (buf && pread(disk->fd, buf, DISK_SECTOR, 0) >= 0)
		unit = DISK_SECTOR;
	free(buf);
	return unit;
}

static int ask_alignment(struct disk *disk, struct error *err)
{
	int sector;

#ifdef STATX_DIOALIGN
	struct statx stat;

	if (!statx(disk->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) &&
	    (stat.stx_mask & STATX_DIOALIGN)) {
		if (!stat.stx_dio_offset_align)
			return disk_error(disk, err, -EOPNOTSUPP,
					  "this file can't be had with "
					  "O_DIRECT; leave out ,direct");
		disk->offset_align = stat.stx_dio_offset_align;
		disk->memory_align = MAX(stat.stx_dio_mem_align, 1U);
		return 0;
	}
#endif
	if (disk->block_device && !ioctl(disk->fd, BLKSSZGET, &sector))
		disk->offset_align = (uint32_t)sector;
	else
		disk->offset_align = try_direct(disk);
	disk->memory_align = disk->offset_align;
	return 0;
}

static int look_alignment(struct disk *disk, struct error *err)
{
	int rc;

	disk->offset_align = 1;
	disk->memory_align = 1;
	if (!disk->direct)
		return 0;
	rc = ask_alignment(disk, err);
	if (!rc && MAX(disk->offset_align, disk->memory_align) > ALIGN_MAX)
		rc = disk_error(disk, err, -EOPNOTSUPP,
				"O_DIRECT here wants blocks of %u bytes, more "
				"than %d; leave out ,direct",
				MAX(disk->offset_align, disk->memory_align),
				ALIGN_MAX);
	return rc;
}

static int look_size(struct disk *disk, const struct stat *stat,
		     struct error *err)
{
	uint32_t unit = MAX(disk->offset_align, (uint32_t)DISK_SECTOR);

	if (!disk->block_device)
		disk->size = align_up((uint64_t)stat->st_size, unit);
	else if (ioctl(disk->fd, BLKGETSIZE64, &disk->size))
		return disk_error(disk, err, -errno, "its size: %s",
				  strerror(errno));
	if (!disk->size)
		return disk_error(disk, err, -EINVAL,
				  disk->block_device
					  ? "it has no size: nothing is "
					    "attached to the device"
					  : "it is empty; `truncate -s SIZE "
					    "FILE` gives it a size");
	return 0;
}

static int look(struct disk *disk, struct error *err)
{
	struct stat stat;
	int rc;

	if (fstat(disk->fd, &stat))
		return disk_error(disk, err, -errno, "%s", strerror(errno));
	if (!S_ISREG(stat.st_mode) && !S_ISBLK(stat.st_mode))
		return disk_error(disk, err, -EINVAL,
				  "it is %s; give a file or a block device",
				  S_ISDIR(stat.st_mode) ? "a directory"
							: "a special file");
	disk->block_device = S_ISBLK(stat.st_mode);
	disk->dev = disk->block_device ? stat.st_rdev : stat.st_dev;
	disk->ino = disk->block_device ? 0 : stat.st_ino;
	rc = look_alignment(disk, err);
	return rc ? rc : look_size(disk, &stat, err);
}

/* ---- rings ---- */

/*
 * A file that is nothing but page cache: requests end as they are made, and
 * io_uring, which takes such filesystems for slow ones, would only hand them to
 * another thread.
 */
static bool is_in_memory(const struct disk *disk)
{
	struct statfs fs;

	return !disk->block_device && !fstatfs(disk->fd, &fs) &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/*
 * The kernel takes a ring down some time after its process has died, and what
 * the ring refers to stays open until then. So it has an open file of its own:
 * on the disk's are the locks, which have to go at once.
 */
static void make_ring(struct disk *disk)
{
	int flags = fcntl(disk->fd, F_GETFL);
	char path[32];
	int fd;

	if (is_in_memory(disk) || flags < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", disk->fd);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return;
	/* Without one requests go another way. */
	(void)!disk_uring_create(fd, &disk->uring);
	close(fd);
}

/* ---- making and unmaking ---- */

static struct disk *disk_new(const char *id, const char *given,
			     const char *path)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		return NULL;
	disk->fd = -1;
	disk->lock_fd = -1;
	disk->id = strdup(id);
	disk->given = strdup(given);
	disk->path = strdup(path);
	if (disk->id && disk->given && disk->path)
		return disk;
	disk_close(disk);
	return NULL;
}

static int open_and_look(struct disk *disk, const struct disk_params *params,
			 struct error *err)
{
	int rc = 0;

	if (params->fd < 0)
		rc = open_path(disk, params->comes, err);
	if (!rc)
		rc = set_flags(disk, err);
	if (!rc)
		rc = look(disk, err);
	if (!rc && params->fd < 0 && disk->block_device && !disk->readonly)
		rc = refuse_host_use(disk, err);
	if (!rc && params->lock_dir)
		rc = disk_lock_open(disk, params->lock_dir, params->identity,
				    err);
	if (!rc && params->fd < 0)
		make_ring(disk);
	return rc;
}

int disk_open(const struct disk_params *params, struct disk **ret,
	      struct error *err)
{
	struct disk *disk = disk_new(params->id, params->path, params->path);
	int fd = params->fd;
	int rc;

	if (!disk) {
		close_fd(&fd);
		return error_set(err, -ENOMEM, "--disk %s: out of memory",
				 params->path);
	}
	disk->fd = fd;
	disk->readonly = params->readonly;
	disk->direct = params->direct;
	rc = open_and_look(disk, params, err);
	if (rc) {
		disk_close(disk);
		return rc;
	}
	*ret = disk;
	return 0;
}

static int dup_fd(const struct disk *disk, int fd, int *ret, struct error *err)
{
	if (fd < 0)
		return 0;
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (*ret < 0)
		return disk_error(disk, err, -errno, "descriptor: %s",
				  strerror(errno));
	return 0;
}

static int dup_into(const struct disk *from, struct disk *to, struct error *err)
{
	struct stat stat;
	int rc = dup_fd(from, from->fd, &to->fd, err);

	if (!rc)
		rc = dup_fd(from, from->lock_fd, &to->lock_fd, err);
	if (!rc && from->lock_path) {
		to->lock_path = strdup(from->lock_path);
		to->holder = strdup(from->holder);
		if (!to->lock_path || !to->holder)
			rc = disk_error(from, err, -ENOMEM, "out of memory");
	}
	if (!rc && fstat(to->fd, &stat))
		rc = disk_error(from, err, -errno, "%s", strerror(errno));
	if (!rc)
		rc = look_size(to, &stat, err);
	return rc;
}

int disk_dup(const struct disk *disk, bool readonly, struct disk **ret,
	     struct error *err)
{
	struct disk *to;
	int rc;

	if (disk->readonly && !readonly)
		return disk_error(disk, err, -EROFS,
				  "it is opened for reading only, and the "
				  "guest would write to it; leave out "
				  ",readonly");
	to = disk_new(disk->id, disk->given, disk->path);
	if (!to)
		return disk_error(disk, err, -ENOMEM, "out of memory");
	to->readonly = readonly;
	to->direct = disk->direct;
	to->block_device = disk->block_device;
	to->dev = disk->dev;
	to->ino = disk->ino;
	to->offset_align = disk->offset_align;
	to->memory_align = disk->memory_align;
	to->uring = disk_uring_get(disk->uring);
	rc = dup_into(disk, to, err);
	if (rc) {
		disk_close(to);
		return rc;
	}
	*ret = to;
	return 0;
}

void disk_close(struct disk *disk)
{
	if (!disk)
		return;
	disk_unlock(disk);
	disk_uring_put(disk->uring);
	close_fd(&disk->lock_fd);
	close_fd(&disk->fd);
	free(disk->holder);
	free(disk->lock_path);
	free(disk->path);
	free(disk->given);
	free(disk->id);
	free(disk);
}

uint64_t disk_size(const struct disk *disk)
{
	return disk->size;
}

bool disk_readonly(const struct disk *disk)
{
	return disk->readonly;
}

bool disk_direct(const struct disk *disk)
{
	return disk->direct;
}

bool disk_is_block_device(const struct disk *disk)
{
	return disk->block_device;
}

const char *disk_path(const struct disk *disk)
{
	return disk->path;
}

uint32_t disk_block_size(const struct disk *disk)
{
	return MAX(disk->offset_align, (uint32_t)DISK_SECTOR);
}

void disk_inode(const struct disk *disk, uint64_t *ret_dev, uint64_t *ret_ino)
{
	*ret_dev = disk->dev;
	*ret_ino = disk->ino;
}

/* ---- the host's cache ---- */

int disk_flush(struct disk *disk, struct error *err)
{
	while (fdatasync(disk->fd)) {
		if (errno != EINTR)
			return disk_error(disk, err, -errno,
					  "writing to stable storage: %s",
					  strerror(errno));
	}
	return 0;
}

void disk_share_cache(struct disk *disk)
{
	disk->shared_cache = true;
}

bool disk_shares_cache(const struct disk *disk)
{
	return disk->shared_cache;
}

int disk_drop_cache(struct disk *disk, struct error *err)
{
	int rc = 0;

	if (disk->direct || disk->shared_cache)
		return 0;
	/* Pages that are dirty would stay. */
	if (!disk->readonly)
		rc = disk_flush(disk, err);
	if (rc)
		return rc;
	rc = posix_fadvise(disk->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (rc)
		return disk_error(disk, err, -rc,
				  "dropping what the host has cached: %s",
				  strerror(rc));
	return 0;
}
