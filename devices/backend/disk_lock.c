// SPDX-License-Identifier: MIT
/*
 * Whose a disk is: three bytes that nobody reads, see disk.h.
 *
 * The locks are those of open files (F_OFD_SETLK): they stay until the last
 * descriptor is closed or they are let go of, whatever thread or process does
 * it, and an operating system that loses the process lets go of them too. They
 * lie at 2^62 and beyond: no image is that long, so a filesystem whose locks
 * forbid reading (SMB) forbids none of ours; and it is below 2^63, where
 * offsets of NFS and of Linux end.
 *
 * Invariant: disk->owner, ->writer and ->proof say what was granted and not let
 * go of. Only what they say is unlocked, because a dup of this disk may hold
 * the rest.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

#define LOCK_BASE   (1ULL << 62)
#define LOCK_OWNER  LOCK_BASE
#define LOCK_WRITER (LOCK_BASE + 1)
/* PROOF bytes lie at even distances, so that the byte after one is none. */
#define LOCK_PROOF (LOCK_BASE + 0x10000)
#define PROOF_BITS 40

/* ---- single bytes ---- */

static int lock_fd(const struct disk *disk)
{
	return disk->lock_fd >= 0 ? disk->lock_fd : disk->fd;
}

static int set_lock(const struct disk *disk, uint64_t at, short type)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)at,
		.l_len = 1,
	};

	while (fcntl(lock_fd(disk), F_OFD_SETLK, &lock)) {
		if (errno == EACCES)
			return -EAGAIN;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* Who holds the byte against an exclusive lock; F_UNLCK: nobody. */
static int get_lock(const struct disk *disk, uint64_t at, short *ret_type)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)at,
		.l_len = 1,
	};

	if (fcntl(lock_fd(disk), F_OFD_GETLK, &lock))
		return -errno;
	*ret_type = lock.l_type;
	return 0;
}

static short owner_type(const struct disk *disk)
{
	return disk->readonly ? F_RDLCK : F_WRLCK;
}

/* ---- what to say ---- */

static int no_locks(const struct disk *disk, int code, struct error *err)
{
	if (disk->lock_path)
		return disk_error(disk, err, code,
				  "locking %s: %s; name a directory whose "
				  "filesystem has locks with --lock-dir",
				  disk->lock_path, strerror(-code));
	return disk_error(disk, err, code,
			  "its filesystem gives no locks (%s); name a "
			  "directory on one that does with --lock-dir",
			  strerror(-code));
}

/* Does this open file hold a lock on our byte? */
static bool fdinfo_holds(const char *path, uint64_t inode, uint64_t at)
{
	char line[256];
	bool found = false;
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	/* "lock: 1: OFDLCK ADVISORY WRITE -1 MAJOR:MINOR:INODE START END" */
	while (!found && fgets(line, sizeof(line), file)) {
		char *number = strrchr(line, ':');

		found = number && strstr(line, "OFDLCK") &&
			strtoull(number + 1, &number, 10) == inode &&
			strtoull(number, NULL, 10) == at;
	}
	fclose(file);
	return found;
}

static bool process_holds(const char *pid, uint64_t inode, uint64_t at)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fdinfo", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid,
			 entry->d_name);
		found = isdigit((unsigned char)entry->d_name[0]) &&
			fdinfo_holds(path, inode, at);
	}
	closedir(dir);
	return found;
}

/*
 * The kernel names no process for a lock that belongs to an open file; but each
 * process of ours shows what its files hold.
 */
static long find_pid(const struct disk *disk, uint64_t at)
{
	struct dirent *entry;
	struct stat stat;
	long pid = 0;
	DIR *proc;

	if (fstat(lock_fd(disk), &stat))
		return 0;
	proc = opendir("/proc");
	if (!proc)
		return 0;
	while (!pid && (entry = readdir(proc))) {
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    process_holds(entry->d_name, stat.st_ino, at))
			pid = strtol(entry->d_name, NULL, 10);
	}
	closedir(proc);
	return pid;
}

/*
 * Of whom the lock is, in words. A reader leaves no line in a lock file: what
 * stands there is of a writer before it.
 */
static void name_holder(const struct disk *disk, uint64_t at, short type,
			char *buf, size_t size)
{
	long pid;

	if (disk->lock_path && type == F_WRLCK &&
	    !disk_holder_read(disk, buf, size))
		return;
	pid = find_pid(disk, at);
	if (pid)
		snprintf(buf, size, "pid %ld", pid);
	else
		snprintf(buf, size,
			 "which can't be seen: another user's, or on another "
			 "host");
}

static int busy(const struct disk *disk, uint64_t at, struct error *err)
{
	char holder[DISK_HOLDER_MAX];
	short type = F_WRLCK;

	/* It may be gone by now; then the answer is what it was. */
	(void)!get_lock(disk, at, &type);
	name_holder(disk, at, type, holder, sizeof(holder));
	return disk_error(disk, err, -EBUSY, "locked by another VM (%s); %s",
			  holder,
			  type == F_RDLCK ? "it only reads: stop it, or add "
					    ",readonly"
					  : "stop it");
}

/* ---- run ---- */

static int lock_owner(struct disk *disk)
{
	int rc = set_lock(disk, LOCK_OWNER, owner_type(disk));

	if (rc)
		return rc;
	disk->owner = true;
	disk_holder_write(disk);
	return 0;
}

static int lock_writer(struct disk *disk)
{
	int rc;

	if (disk->readonly)
		return 0;
	rc = set_lock(disk, LOCK_WRITER, F_WRLCK);
	if (!rc)
		disk->writer = true;
	return rc;
}

int disk_lock(struct disk *disk, struct error *err)
{
	uint64_t at = LOCK_OWNER;
	int rc = lock_owner(disk);

	if (!rc) {
		at = LOCK_WRITER;
		rc = lock_writer(disk);
	}
	if (!rc)
		return 0;
	if (disk->owner)
		set_lock(disk, LOCK_OWNER, F_UNLCK);
	disk->owner = false;
	return rc == -EAGAIN ? busy(disk, at, err) : no_locks(disk, rc, err);
}

void disk_unlock(struct disk *disk)
{
	disk_unprove(disk);
	disk_drop_writer(disk);
	if (disk->owner)
		set_lock(disk, LOCK_OWNER, F_UNLCK);
	disk->owner = false;
}

/* ---- moves ---- */

static uint64_t proof_byte(const uint8_t *session)
{
	uint64_t number = 0;

	for (unsigned int i = 0; i < 8; i++)
		number |= (uint64_t)session[i] << (8 * i);
	return LOCK_PROOF + 2 * (number & ((1ULL << PROOF_BITS) - 1));
}

/*
 * Locking once more what is ours succeeds, unless it isn't ours any more. OWNER
 * may also become ours only here, when the disk came a moment ago.
 */
static int still_ours(struct disk *disk, struct error *err)
{
	int rc = lock_owner(disk);

	if (!rc)
		rc = lock_writer(disk);
	if (!rc)
		return 0;
	return disk_error(disk, err, rc == -EAGAIN ? -EBUSY : rc,
			  "its lock was lost (%s), so another VM may have it; "
			  "stop one of the two",
			  strerror(-rc));
}

int disk_prove(struct disk *disk, const uint8_t *session, struct error *err)
{
	uint64_t at = proof_byte(session);
	int rc = still_ours(disk, err);

	if (rc)
		return rc;
	disk_unprove(disk);
	rc = set_lock(disk, at, owner_type(disk));
	if (rc == -EAGAIN)
		return disk_error(disk, err, -EBUSY,
				  "another move of it is under way; wait for "
				  "that to end");
	if (rc)
		return no_locks(disk, rc, err);
	disk->proof = true;
	disk->proof_at = at;
	return 0;
}

void disk_unprove(struct disk *disk)
{
	if (disk->proof)
		set_lock(disk, disk->proof_at, F_UNLCK);
	disk->proof = false;
}

/*
 * Would we be refused the byte? Who may write tries, because granting is what
 * the guest's safety will depend on; who may only read has to ask.
 */
static int is_refused(struct disk *disk, uint64_t at, bool *ret)
{
	short type = F_UNLCK;
	int rc;

	if (disk->readonly) {
		rc = get_lock(disk, at, &type);
		*ret = type != F_UNLCK;
		return rc;
	}
	rc = set_lock(disk, at, F_WRLCK);
	*ret = rc == -EAGAIN;
	if (!rc)
		set_lock(disk, at, F_UNLCK);
	return *ret ? 0 : rc;
}

static int not_the_disk(const struct disk *disk, struct error *err)
{
	return disk_error(disk, err, -ENXIO,
			  "the source's lock on its disk is not seen %s%s here:"
			  " it is another disk, or a copy, or locks don't work "
			  "between the two hosts; put it on storage that both "
			  "share, or name a directory that both share with "
			  "--lock-dir on both",
			  disk->lock_path ? "on " : "",
			  disk->lock_path ? disk->lock_path : "from");
}

int disk_verify(struct disk *disk, const uint8_t *session, struct error *err)
{
	uint64_t at = proof_byte(session);
	bool owner, proof, next;
	int rc = is_refused(disk, LOCK_OWNER, &owner);

	if (!rc)
		rc = is_refused(disk, at, &proof);
	if (!rc)
		rc = is_refused(disk, at + 1, &next);
	if (rc)
		return no_locks(disk, rc, err);
	if (!owner || !proof)
		return not_the_disk(disk, err);
	if (next)
		return disk_error(disk, err, -ENOLCK,
				  "somebody locks all of it, so whose it is "
				  "can't be told; name a directory that both "
				  "hosts share with --lock-dir on both");
	return disk->readonly ? disk_take_owner(disk, err) : 0;
}

int disk_take_writer(struct disk *disk, struct error *err)
{
	int rc = lock_writer(disk);

	if (rc == -EAGAIN)
		return disk_error(disk, err, -EBUSY,
				  "somebody else may write to it: the lock "
				  "WRITER is not free");
	return rc ? no_locks(disk, rc, err) : 0;
}

void disk_drop_writer(struct disk *disk)
{
	if (disk->writer)
		set_lock(disk, LOCK_WRITER, F_UNLCK);
	disk->writer = false;
}

int disk_take_owner(struct disk *disk, struct error *err)
{
	int rc = lock_owner(disk);

	if (rc == -EAGAIN)
		return disk_error(disk, err, -EBUSY,
				  "its owner has not let go of it yet");
	return rc ? no_locks(disk, rc, err) : 0;
}

int disk_look_for_writer(const char *path, struct error *err)
{
	struct disk disk = { .lock_fd = -1 };
	short type = F_UNLCK;
	char holder[DISK_HOLDER_MAX];
	int rc;

	disk.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (disk.fd < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	rc = get_lock(&disk, LOCK_WRITER, &type);
	if (rc)
		rc = error_set(err, rc, "%s: its locks: %s", path,
			       strerror(-rc));
	if (!rc && type != F_UNLCK) {
		name_holder(&disk, LOCK_WRITER, type, holder, sizeof(holder));
		rc = error_set(err, -EBUSY,
			       "%s: another VM has it and may write to it (%s)",
			       path, holder);
	}
	close(disk.fd);
	return rc;
}
