// SPDX-License-Identifier: MIT
/*
 * The file in --lock-dir that is locked in a disk's stead: what it is called,
 * and the line in it that tells others who holds the disk. Whose locks it has
 * is disk_lock.c's.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

/* ---- its name ---- */

/* The first line of a file, without spaces around it. */
static bool read_word(const char *dir, const char *name, char *buf, size_t size)
{
	char path[PATH_MAX];
	char line[256] = "";
	char *first = line;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	first += strspn(first, " \t");
	for (size_t n = strlen(first);
	     n && isspace((unsigned char)first[n - 1]);)
		first[--n] = '\0';
	return *first && (size_t)snprintf(buf, size, "%s", first) < size;
}

/* What the host calls a block device, the same on every host. */
static bool device_identity(const struct disk *disk, char *buf, size_t size)
{
	static const char *const names[] = { "wwid",	"device/wwid",
					     "serial",	"device/serial",
					     "dm/uuid", "md/uuid" };
	char dir[64], whole[80], word[200], part[24];
	bool is_part;

	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(disk->dev),
		 minor(disk->dev));
	is_part = read_word(dir, "partition", part, sizeof(part));
	snprintf(whole, sizeof(whole), "%s%s", dir, is_part ? "/.." : "");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!read_word(whole, names[i], word, sizeof(word)))
			continue;
		return (size_t)snprintf(buf, size, "%s%s%s", word,
					is_part ? "-part" : "",
					is_part ? part : "") < size;
	}
	return false;
}

/* A file name that says @identity; nothing in it is a path. */
static bool escape(const char *identity, char *buf, size_t size)
{
	size_t at = 0;

	for (; *identity; identity++) {
		unsigned char c = (unsigned char)*identity;

		if (at + 4 > size)
			return false;
		if (isalnum(c) || c == '-' || c == '_' || (c == '.' && at))
			buf[at++] = (char)c;
		else
			at += (size_t)snprintf(buf + at, 4, "%%%02x", c);
	}
	buf[at] = '\0';
	return at;
}

static int lock_path(struct disk *disk, const char *lock_dir,
		     const char *identity, struct error *err)
{
	char name[NAME_MAX - sizeof(".lock")];
	char found[300];

	if (!identity && !disk->block_device)
		identity = disk->path;
	if (!identity && device_identity(disk, found, sizeof(found)))
		identity = found;
	if (!identity)
		return disk_error(disk, err, -ENOENT,
				  "this host knows no serial number or WWID of "
				  "the device, to name a file in --lock-dir "
				  "after; give the same on both hosts with "
				  ",serial=");
	if (!escape(identity, name, sizeof(name)))
		return disk_error(disk, err, -ENAMETOOLONG,
				  "'%.60s…' is no name for a file in "
				  "--lock-dir; give a shorter one with "
				  ",serial=",
				  identity);
	if (asprintf(&disk->lock_path, "%s/%s.lock", lock_dir, name) >= 0)
		return 0;
	disk->lock_path = NULL;
	return disk_error(disk, err, -ENOMEM, "out of memory");
}

/* ---- what is in it ---- */

/* One line of DISK_HOLDER_MAX bytes, so that a later one covers it. */
static int make_holder(struct disk *disk, struct error *err)
{
	char host[HOST_NAME_MAX + 1] = "?";
	char text[DISK_HOLDER_MAX];

	gethostname(host, sizeof(host) - 1);
	snprintf(text, sizeof(text), "pid %ld on host %s, as %s",
		 (long)getpid(), host, disk->id);
	if (asprintf(&disk->holder, "%-*.*s\n", DISK_HOLDER_MAX - 1,
		     DISK_HOLDER_MAX - 1, text) >= 0)
		return 0;
	disk->holder = NULL;
	return disk_error(disk, err, -ENOMEM, "out of memory");
}

int disk_holder_read(const struct disk *disk, char *buf, size_t size)
{
	ssize_t n = pread(disk->lock_fd, buf, size - 1, 0);

	if (n <= 0)
		return -ENOENT;
	buf[n] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	while (n > 0 && (!buf[n - 1] || buf[n - 1] == ' '))
		buf[--n] = '\0';
	text_make_plain(buf);
	return buf[0] ? 0 : -ENOENT;
}

void disk_holder_write(const struct disk *disk)
{
	if (!disk->lock_path || disk->readonly)
		return;
	/* A courtesy: the lock holds without it. */
	(void)!pwrite(disk->lock_fd, disk->holder, DISK_HOLDER_MAX, 0);
}

/* ---- opening ---- */

int disk_lock_open(struct disk *disk, const char *lock_dir,
		   const char *identity, struct error *err)
{
	int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct stat stat;
	int rc = lock_path(disk, lock_dir, identity, err);

	if (!rc)
		rc = make_holder(disk, err);
	if (rc)
		return rc;
	disk->lock_fd = open(disk->lock_path, flags | O_RDWR | O_CREAT, 0666);
	if (disk->lock_fd < 0 && disk->readonly)
		disk->lock_fd = open(disk->lock_path, flags | O_RDONLY);
	if (disk->lock_fd < 0)
		return disk_error(disk, err, -errno, "--lock-dir: %s: %s",
				  disk->lock_path, strerror(errno));
	if (fstat(disk->lock_fd, &stat) || !S_ISREG(stat.st_mode))
		return disk_error(disk, err, -EINVAL,
				  "--lock-dir: %s: not a file; remove it",
				  disk->lock_path);
	return 0;
}
