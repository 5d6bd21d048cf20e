// SPDX-License-Identifier: MIT
/*
 * Whose a disk is: three bytes that nobody reads, see disk.h.
 *
 * The locks are those of open files (F_OFD_SETLK): they stay until the last
 * descriptor is closed or they are let go of, whatever thread or process does
 * it, and an operating system that loses the process lets go of them too. What
 * is held on an image beside a lock file is in disk_badge.c.
 *
 * Invariant: disk->owner, ->writer, ->proof and ->badge say what was granted
 * and not let go of. Only what they say is unlocked, because a dup of this disk
 * may hold the rest.
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
#include <time.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

/* PROOF bytes lie at even distances, so that the byte after one is none. */
#define LOCK_PROOF (DISK_LOCK_BASE + 0x10000)
#define PROOF_BITS 40

#define OWNER_PATIENCE (1 * NS_PER_S)

/* ---- single bytes ---- */

static int lock_fd(const struct disk *disk)
{
	return disk->lock_fd >= 0 ? disk->lock_fd : disk->fd;
}

int disk_byte_lock(int fd, uint64_t at, short type)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)at,
		.l_len = 1,
	};

	while (fcntl(fd, F_OFD_SETLK, &lock)) {
		if (errno == EACCES)
			return -EAGAIN;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int disk_bytes_look(int fd, uint64_t from, uint64_t len, short *ret_type,
		    uint64_t *ret_at)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)from,
		.l_len = (off_t)len,
	};

	if (fcntl(fd, F_OFD_GETLK, &lock))
		return -errno;
	*ret_type = lock.l_type;
	*ret_at = (uint64_t)lock.l_start;
	return 0;
}

static int set_lock(const struct disk *disk, uint64_t at, short type)
{
	return disk_byte_lock(lock_fd(disk), at, type);
}

static int get_lock(const struct disk *disk, uint64_t at, short *ret_type)
{
	return disk_bytes_look(lock_fd(disk), at, 1, ret_type, &at);
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

/*
 * "lock: 1: OFDLCK ADVISORY WRITE -1 MAJOR:MINOR:INODE START END". One file's
 * locks on neighbouring bytes are one to the kernel.
 */
static bool is_lock_on(const char *line, uint64_t inode, uint64_t at)
{
	char *place = strrchr(line, ':');
	uint64_t start;

	if (!place || !strstr(line, "OFDLCK") ||
	    strtoull(place + 1, &place, 10) != inode)
		return false;
	start = strtoull(place, &place, 10);
	return start <= at &&
	       (strstr(place, "EOF") || at <= strtoull(place, NULL, 10));
}

/* Does this open file hold a lock on our byte? */
static bool fdinfo_holds(const char *path, uint64_t inode, uint64_t at)
{
	char line[256];
	bool found = false;
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = is_lock_on(line, inode, at);
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
static long find_pid(int fd, uint64_t at)
{
	struct dirent *entry;
	struct stat stat;
	long pid = 0;
	DIR *proc;

	if (fstat(fd, &stat))
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

bool disk_holder_find(int fd, uint64_t at, char *buf, size_t size)
{
	long pid = find_pid(fd, at);

	if (pid)
		snprintf(buf, size, "pid %ld", pid);
	else
		snprintf(buf, size,
			 "which can't be seen: another user's, or on another "
			 "host");
	return pid != 0;
}

/*
 * Of whom the lock is, in words. A reader leaves no line in a lock file: what
 * stands there is of a writer before it. And who had OWNER may have moved away
 * meanwhile: then it is who has WRITER.
 */
static void name_holder(const struct disk *disk, uint64_t at, short type,
			char *buf, size_t size)
{
	if (disk->lock_path && type == F_WRLCK &&
	    !disk_holder_read(disk, buf, size))
		return;
	if (!disk_holder_find(lock_fd(disk), at, buf, size))
		(void)disk_holder_find(lock_fd(disk), DISK_LOCK_WRITER, buf,
				       size);
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
	int rc = set_lock(disk, DISK_LOCK_OWNER, owner_type(disk));

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
	rc = set_lock(disk, DISK_LOCK_WRITER, F_WRLCK);
	if (!rc)
		disk->writer = true;
	return rc;
}

/*
 * A guest that came a moment ago may write before its source has let OWNER go,
 * and in between nobody has that.
 */
static int heed_writer(const struct disk *disk)
{
	short type = F_UNLCK;
	int rc = get_lock(disk, DISK_LOCK_WRITER, &type);

	return rc || type == F_UNLCK ? rc : -EAGAIN;
}

/* @ret_at: the byte that was not to be had. */
static int lock_bytes(struct disk *disk, uint64_t *ret_at)
{
	int rc = lock_owner(disk);

	*ret_at = DISK_LOCK_OWNER;
	if (rc)
		return rc;
	*ret_at = DISK_LOCK_WRITER;
	return disk->readonly ? heed_writer(disk) : lock_writer(disk);
}

/* The lock file is ours: the image too, unless somebody locks otherwise. */
static int lock_badge(struct disk *disk, struct error *err)
{
	int rc = disk->readonly ? 0 : disk_badge_draw(disk, err);

	return rc ? rc : disk_badge_wear(disk, err);
}

/*
 * Looks, takes, and looks again, as disk_badge.c says. Who is refused lets go
 * before he finds out by whom: that takes long, and others come by meanwhile.
 */
int disk_lock(struct disk *disk, struct error *err)
{
	uint64_t at;
	int rc = 0;

	if (!disk->lock_path)
		rc = disk_badge_check(disk, false, err);
	if (rc)
		return rc;
	rc = lock_bytes(disk, &at);
	if (rc) {
		disk_unlock(disk);
		return rc == -EAGAIN ? busy(disk, at, err)
				     : no_locks(disk, rc, err);
	}
	rc = disk->lock_path ? lock_badge(disk, err)
			     : disk_badge_check(disk, true, err);
	if (rc)
		disk_unlock(disk);
	if (rc == -EBUSY)
		(void)!disk_badge_check(disk, false, err);
	return rc;
}

static void drop_owner(struct disk *disk)
{
	if (disk->owner)
		set_lock(disk, DISK_LOCK_OWNER, F_UNLCK);
	disk->owner = false;
}

void disk_unlock(struct disk *disk)
{
	disk_unprove(disk);
	/* First: whoever has got the lock file shall not meet it any more. */
	disk_badge_take_off(disk);
	disk_drop_writer(disk);
	drop_owner(disk);
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
 * OWNER of a disk that came a moment ago has not become ours yet. Its source
 * has it until it knows of the guest's coming; others may, for as long as it
 * takes them to find that WRITER is not to be had.
 */
static int await_owner(struct disk *disk)
{
	const struct timespec pause = { .tv_nsec = NS_PER_MS };
	uint64_t deadline = clock_ns() + OWNER_PATIENCE;
	int rc;

	while ((rc = lock_owner(disk)) == -EAGAIN && clock_ns() < deadline)
		nanosleep(&pause, NULL);
	return rc;
}

/* Locking once more what is ours succeeds, unless it isn't ours any more. */
static int still_ours(struct disk *disk, struct error *err)
{
	bool late = !disk->owner;
	int rc = late ? await_owner(disk) : lock_owner(disk);

	if (late && rc == -EAGAIN)
		return disk_error(disk, err, -EBUSY,
				  "the host that it came from has not let go "
				  "of it yet; try again when it has");
	if (!rc)
		rc = lock_writer(disk);
	if (!rc)
		return disk->badge ? disk_badge_wear(disk, err)
				   : disk_badge_check(disk, true, err);
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

/* Of the source's disk, what its target has as well from here on. */
static int join(struct disk *disk, struct error *err)
{
	int rc = 0;

	/*
	 * The byte after PROOF was granted a moment ago, whereupon NFS forgets
	 * what it has cached: the source may have drawn its badge after we
	 * opened the lock file.
	 */
	if (disk->readonly)
		rc = disk_take_owner(disk, err);
	else if (disk->lock_path)
		rc = disk_badge_learn(disk, err);
	if (!rc && disk->lock_path)
		rc = disk_badge_wear(disk, err);
	return rc;
}

int disk_verify(struct disk *disk, const uint8_t *session, struct error *err)
{
	uint64_t at = proof_byte(session);
	bool owner, proof, next;
	int rc = is_refused(disk, DISK_LOCK_OWNER, &owner);

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
	return join(disk, err);
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
		set_lock(disk, DISK_LOCK_WRITER, F_UNLCK);
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
	rc = get_lock(&disk, DISK_LOCK_WRITER, &type);
	if (rc)
		rc = error_set(err, rc, "%s: its locks: %s", path,
			       strerror(-rc));
	if (!rc && type != F_UNLCK) {
		name_holder(&disk, DISK_LOCK_WRITER, type, holder,
			    sizeof(holder));
		rc = error_set(err, -EBUSY,
			       "%s: another VM has it and may write to it (%s)",
			       path, holder);
	}
	close(disk.fd);
	return rc;
}
