// SPDX-License-Identifier: MIT
/*
 * What is held on a disk's image by those who lock it by a file in --lock-dir,
 * so that whoever locks otherwise keeps away; the rule is in disk.h.
 *
 * All of it is shared locks, because source and target of a move have them
 * together; and shared locks refuse nobody. So each looks at what others hold,
 * takes its own, and looks again: of two that come at the same time at least
 * one sees the other. The first look is for who is there already, and is not to
 * be disturbed by what the second one takes back.
 *
 * Locks that the image's filesystem doesn't have keep nobody away, and nobody
 * else has any there: then there is nothing to hold and nothing to see.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

/* Beyond all PROOF bytes. */
#define BADGES	   (DISK_LOCK_BASE + (1ULL << 42))
#define BADGE_BITS 40
#define BADGE_MASK ((1ULL << BADGE_BITS) - 1)
#define BADGES_END (BADGES + BADGE_MASK + 1)

/* In the lock file, behind the holder's line: ten hexadecimal digits. */
#define BADGE_LINE "badge %010" PRIx64 "\n"
#define BADGE_LEN  17

static bool no_locks_there(int rc)
{
	return rc == -ENOLCK || rc == -EOPNOTSUPP || rc == -ENOSYS ||
	       rc == -EINVAL;
}

/* ---- what others hold ---- */

static int seen(const struct disk *disk, uint64_t at, short type, bool caged,
		struct error *err)
{
	bool reads = at == DISK_LOCK_OWNER && type == F_RDLCK;
	char holder[DISK_HOLDER_MAX] = "which one can't be seen from here";

	if (!caged)
		(void)disk_holder_find(disk->fd, at, holder, sizeof(holder));
	return disk_error(
		disk, err, -EBUSY, "locked by another VM (%s)%s%s; %s", holder,
		disk->lock_path ? ", otherwise than by "
				: ", by a file in its --lock-dir",
		disk->lock_path ? disk->lock_path : "",
		reads ? "it only reads: stop it, or add ,readonly" : "stop it");
}

static int look(const struct disk *disk, uint64_t from, uint64_t end,
		bool caged, struct error *err)
{
	short type;
	uint64_t at;
	int rc;

	if (from >= end)
		return 0;
	rc = disk_bytes_look(disk->fd, from, end - from, &type, &at);
	if (no_locks_there(rc))
		return 0;
	if (rc)
		return disk_error(disk, err, rc, "looking at its locks: %s",
				  strerror(-rc));
	return type == F_UNLCK ? 0 : seen(disk, at, type, caged, err);
}

int disk_badge_check(const struct disk *disk, bool caged, struct error *err)
{
	uint64_t own = BADGES - 1;
	int rc = 0;

	if (disk->lock_path)
		rc = look(disk,
			  disk->readonly ? DISK_LOCK_WRITER : DISK_LOCK_OWNER,
			  DISK_LOCK_WRITER + 1, caged, err);
	if (disk->badge_at)
		own = disk->badge_at;
	if (!rc)
		rc = look(disk, BADGES, own, caged, err);
	return rc ? rc : look(disk, own + 1, BADGES_END, caged, err);
}

/* ---- one's own ---- */

int disk_badge_draw(struct disk *disk, struct error *err)
{
	char line[BADGE_LEN + 1];
	uint64_t number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return disk_error(disk, err, -EIO, "getrandom: %s",
				  strerror(errno));
	number &= BADGE_MASK;
	snprintf(line, sizeof(line), BADGE_LINE, number);
	/* Another host is to read it, not to find it in our cache later. */
	if (pwrite(disk->lock_fd, line, BADGE_LEN, DISK_HOLDER_MAX) !=
		    BADGE_LEN ||
	    fdatasync(disk->lock_fd))
		return disk_error(disk, err, -EIO,
				  "--lock-dir: writing %s: %s; make room for "
				  "it, or have it mended",
				  disk->lock_path, strerror(errno));
	disk->badge_at = BADGES + number;
	return 0;
}

int disk_badge_learn(struct disk *disk, struct error *err)
{
	char line[BADGE_LEN + 1] = "", again[BADGE_LEN + 1];
	ssize_t n = pread(disk->lock_fd, line, BADGE_LEN, DISK_HOLDER_MAX);
	uint64_t number;

	number = strtoull(line + strlen("badge "), NULL, 16) & BADGE_MASK;
	snprintf(again, sizeof(again), BADGE_LINE, number);
	if (n != BADGE_LEN || strcmp(line, again) != 0)
		return disk_error(
			disk, err, -EBADMSG,
			"--lock-dir: %s does not say by which lock on "
			"the disk the source's VM is known, so "
			"somebody has changed it: end the VM and start "
			"it anew",
			disk->lock_path);
	disk->badge_at = BADGES + number;
	return 0;
}

int disk_badge_wear(struct disk *disk, struct error *err)
{
	uint64_t at = disk->readonly ? DISK_LOCK_OWNER : disk->badge_at;
	int rc = disk_badge_check(disk, true, err);

	if (rc)
		return rc;
	rc = disk_byte_lock(disk->fd, at, F_RDLCK);
	if (no_locks_there(rc))
		return 0;
	if (rc == -EAGAIN)
		return seen(disk, at, F_WRLCK, true, err);
	if (rc)
		return disk_error(disk, err, rc, "locking it: %s",
				  strerror(-rc));
	disk->badge = true;
	return disk_badge_check(disk, true, err);
}

void disk_badge_take_off(struct disk *disk)
{
	uint64_t at = disk->readonly ? DISK_LOCK_OWNER : disk->badge_at;

	if (disk->badge)
		(void)!disk_byte_lock(disk->fd, at, F_UNLCK);
	disk->badge = false;
}
