// SPDX-License-Identifier: MIT
/*
 * Images, opened for devices; see disks.h.
 *
 * A listener gives each attempt a disk of its own on the open file that it has
 * had from the beginning (disk_dup()): in the sandbox nothing can be opened,
 * and closing the one gives its locks back and leaves the other.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/disks_internal.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

_Static_assert(sizeof((struct wire_config){ 0 }.host) == SIPHASH_SIZE &&
		       sizeof((struct wire_hello){ 0 }.session) == SIPHASH_SIZE,
	       "a host is named by a hash of the session");

/* ---- this host ---- */

static int digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower(c) - 'a' + 10;
}

/* 32 hexadecimal digits, with dashes among them. */
static bool parse_boot_id(const char *text, uint8_t ret[SIPHASH_SIZE])
{
	unsigned int n = 0;

	memset(ret, 0, SIPHASH_SIZE);
	for (; *text && *text != '\n'; text++) {
		if (*text == '-')
			continue;
		if (n == 2 * SIPHASH_SIZE || !isxdigit((unsigned char)*text))
			return false;
		ret[n / 2] = (uint8_t)(ret[n / 2] << 4 | digit(*text));
		n++;
	}
	return n == 2 * SIPHASH_SIZE;
}

/* Without it each peer is taken for another host, which is always safe. */
static void read_boot_id(struct disks *disks)
{
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	char text[64] = "";

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		disks->has_boot_id = parse_boot_id(text, disks->boot_id);
	close_fd(&fd);
}

static void name_host(void *opaque, const uint8_t *session,
		      uint8_t ret[DEVICE_HOST_SIZE])
{
	const struct disks *disks = opaque;

	if (disks->has_boot_id)
		siphash(disks->boot_id, session, ret);
	else
		memset(ret, 0, DEVICE_HOST_SIZE);
}

/* ---- what is in use ---- */

static const struct used *find_used(const struct disks *disks, const char *id)
{
	for (uint32_t i = 0; i < disks->nused; i++) {
		if (!strcmp(disks->used[i].id, id))
			return &disks->used[i];
	}
	return NULL;
}

static void note_used(struct disks *disks, const char *id,
		      const struct disk *disk)
{
	struct used *used = &disks->used[disks->nused++];

	snprintf(used->id, sizeof(used->id), "%s", id);
	snprintf(used->path, sizeof(used->path), "%s", disk_path(disk));
	disk_inode(disk, &used->dev, &used->ino);
	used->size = disk_size(disk);
	used->direct = disk_direct(disk);
	used->readonly = disk_readonly(disk);
}

static bool inode_of(void *opaque, const char *id, uint64_t *ret_dev,
		     uint64_t *ret_ino)
{
	const struct used *used = find_used(opaque, id);

	if (!used)
		return false;
	*ret_dev = used->dev;
	*ret_ino = used->ino;
	return true;
}

bool disks_look(const struct disks *disks, const char *id,
		struct disks_info *ret)
{
	const struct used *used = find_used(disks, id);

	if (!used)
		return false;
	*ret = (struct disks_info){
		.path = used->path,
		.direct = used->direct,
		.readonly = used->readonly,
		.size = used->size,
	};
	return true;
}

/* ---- a disk for a device ---- */

/* A device more than a machine can have would be no device's. */
static int check_room(const struct disks *disks, struct error *err)
{
	if (disks->nused < ARRAY_SIZE(disks->used))
		return 0;
	return error_set(err, -ENOSPC, "more disks than a VM has devices");
}

/* The place of --disk @id on the command line; -1: it isn't there. */
static int find_named(const struct disks *disks, const char *id)
{
	for (uint32_t i = 0; i < disks->options->count; i++) {
		if (!strcmp(disks->options->disks[i].id, id))
			return (int)i;
	}
	return -1;
}

/* `run`: it is open and locked since the command line was read. */
static int hand_out(void *opaque, const char *id,
		    const char *name __maybe_unused,
		    uint64_t size __maybe_unused, bool readonly __maybe_unused,
		    struct disk **ret, struct error *err)
{
	struct disks *disks = opaque;
	int at = find_named(disks, id);
	int rc;

	if (at < 0 || !disks->named[at])
		return error_set(err, -ENOENT,
				 "no --disk of this id on the command line");
	rc = check_room(disks, err);
	if (rc)
		return rc;
	*ret = disks->named[at];
	disks->named[at] = NULL;
	note_used(disks, id, *ret);
	return 0;
}

static int open_below(int root, const char *name, bool readonly)
{
	struct open_how how = {
		/* Whatever is there, a pipe for example: wait for nobody. */
		.flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY |
			 O_NONBLOCK | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
			   RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, root, name, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int not_named(const char *id, const char *name, struct error *err)
{
	return error_set(err, -ENOENT,
			 "this listener has no disk for it; start it with "
			 "--disk %s=PATH%s%s%s, or with the --disk-root that "
			 "it is in",
			 id, name[0] ? " (the source has it as '" : "", name,
			 name[0] ? "')" : "");
}

static int no_such_file(const struct disks *disks, const char *id,
			const char *name, int code, struct error *err)
{
	const char *root = disks->options->roots[0];

	if (code == -ENOENT)
		return error_set(
			err, code,
			"no file '%s' in --disk-root %s%s; put it "
			"there, or start the listener with --disk "
			"%s=PATH",
			name, root,
			disks->options->nroots > 1 ? " and others" : "", id);
	if (code == -ELOOP || code == -EXDEV)
		return error_set(err, code,
				 "'%s' in --disk-root is a link, and those are "
				 "not followed; start the listener with --disk "
				 "%s=PATH",
				 name, id);
	return error_set(err, code, "'%s' in --disk-root: %s", name,
			 strerror(-code));
}

/* What the stream calls a file is one word, below a root, and no link. */
static int open_in_roots(struct disks *disks, const char *id, const char *name,
			 bool readonly, struct disk **ret, struct error *err)
{
	struct disk_params params = { .id = id, .readonly = readonly };
	char path[PATH_MAX];
	int rc = -ENOENT;

	if (!disks->options->nroots || !name[0] || strchr(name, '/') ||
	    name[0] == '.')
		return not_named(id, name, err);
	for (uint32_t i = 0; i < disks->options->nroots && rc < 0; i++) {
		int fd = open_below(disks->roots[i], name, readonly);

		/* A file that can't be had says more than one that isn't. */
		if (fd >= 0 || rc == -ENOENT)
			rc = fd;
		if (fd >= 0)
			snprintf(path, sizeof(path), "%s/%s",
				 disks->root_paths[i], name);
	}
	if (rc < 0)
		return no_such_file(disks, id, name, rc, err);
	params.path = path;
	params.fd = rc;
	return disk_open(&params, ret, err);
}

static bool same_cache(const struct disks *disks, const char *id,
		       const struct disk *disk)
{
	uint64_t dev, ino;

	disk_inode(disk, &dev, &ino);
	for (uint32_t i = 0; disks->same_host && i < disks->noffered; i++) {
		const struct wire_disk *offered = &disks->offered[i];

		if (!strcmp(offered->id, id))
			return offered->dev == dev && offered->ino == ino;
	}
	return false;
}

/* Is it the source's disk, and can it be read here as the source wrote it? */
static int judge(const struct disks *disks, const char *id, uint64_t size,
		 struct disk *disk, struct error *err)
{
	int rc = disk_verify(disk, disks->session, err);

	if (rc)
		return rc;
	if (disk_size(disk) != size)
		return error_set(err, -ESTALE,
				 "--disk %s: it has %llu bytes here, and had "
				 "%llu when the guest was started; end the "
				 "guest and start it anew to have it see the "
				 "new size",
				 disk_path(disk),
				 (unsigned long long)disk_size(disk),
				 (unsigned long long)size);
	if (same_cache(disks, id, disk)) {
		disk_share_cache(disk);
		return 0;
	}
	if (!disk_is_block_device(disk) || disk_direct(disk) ||
	    disks->options->unsafe)
		return 0;
	return error_set(err, -EPERM,
			 "--disk %s: this host may have kept blocks of it that "
			 "the other has written since, and a block device's "
			 "can't be told to forget them; add ,direct, or "
			 "--unsafe when nobody has read it here",
			 disk_path(disk));
}

/* `listen`: what the command line names, if it is what the source has. */
static int receive(void *opaque, const char *id, const char *name,
		   uint64_t size, bool readonly, struct disk **ret,
		   struct error *err)
{
	struct disks *disks = opaque;
	int at = find_named(disks, id);
	struct disk *disk;
	int rc = check_room(disks, err);

	if (rc)
		return rc;
	if (at >= 0)
		rc = disk_dup(disks->named[at], readonly, &disk, err);
	else
		rc = open_in_roots(disks, id, name, readonly, &disk, err);
	if (rc)
		return rc;
	rc = judge(disks, id, size, disk, err);
	if (rc) {
		disk_close(disk);
		return rc;
	}
	note_used(disks, id, disk);
	*ret = disk;
	return 0;
}

void disks_offer(struct disks *disks, const struct wire_config *config,
		 const uint8_t session[WIRE_SESSION_SIZE])
{
	uint8_t host[DEVICE_HOST_SIZE];

	memcpy(disks->session, session, sizeof(disks->session));
	disks->noffered = config->ndisks;
	memcpy(disks->offered, config->disks, sizeof(disks->offered));
	disks->nused = 0;
	name_host(disks, session, host);
	disks->same_host =
		disks->has_boot_id && !memcmp(host, config->host, sizeof(host));
}

/* ---- opening ---- */

/* Locked by this very command would be blamed on another VM. */
static int check_twice(const struct disks *disks, uint32_t at,
		       struct error *err)
{
	uint64_t dev, ino, other_dev, other_ino;

	disk_inode(disks->named[at], &dev, &ino);
	for (uint32_t i = 0; i < at; i++) {
		disk_inode(disks->named[i], &other_dev, &other_ino);
		if (dev == other_dev && ino == other_ino)
			return error_set(err, -EINVAL,
					 "--disk %s: it is the image of %s "
					 "already; give each disk its own",
					 disks->options->disks[at].path,
					 disks->options->disks[i].id);
	}
	return 0;
}

static int open_one(struct disks *disks, uint32_t at, struct error *err)
{
	const struct disk_options *options = &disks->options->disks[at];
	struct disk_params params = {
		.id = options->id,
		.path = options->path,
		.fd = -1,
		.readonly = options->readonly,
		.comes = disks->listens,
		.direct = options->direct,
		.lock_dir = disks->options->lock_dir,
		.identity = options->serial[0] ? options->serial : NULL,
	};
	struct disk **ret = &disks->named[at];
	int rc = disk_open(&params, ret, err);

	if (!disks->listens) {
		if (!rc)
			rc = check_twice(disks, at, err);
		return rc ? rc : disk_lock(*ret, err);
	}
	/* Whether the guest only reads it is known when it comes. */
	if (rc == -EACCES || rc == -EROFS || rc == -EPERM) {
		params.readonly = true;
		rc = disk_open(&params, ret, err);
	}
	return rc;
}

static int open_root(struct disks *disks, uint32_t at, struct error *err)
{
	const char *path = disks->options->roots[at];

	disks->roots[at] = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (disks->roots[at] >= 0)
		disks->root_paths[at] = realpath(path, NULL);
	if (disks->root_paths[at])
		return 0;
	return error_set(err, -errno, "--disk-root %s: %s", path,
			 strerror(errno));
}

int disks_open(const struct disks_options *options, bool listens,
	       struct disks **ret, struct error *err)
{
	struct disks *disks = calloc(1, sizeof(*disks));
	int rc = 0;

	if (!disks)
		return error_set(err, -ENOMEM, "disks: out of memory");
	disks->options = options;
	disks->listens = listens;
	disks->backends = (struct device_backends){
		.open_disk = listens ? receive : hand_out,
		.disk_inode = inode_of,
		.name_host = name_host,
		.opaque = disks,
	};
	for (size_t i = 0; i < ARRAY_SIZE(disks->roots); i++)
		disks->roots[i] = -1;
	read_boot_id(disks);
	if (options->lock_dir) {
		disks->lock_dir = realpath(options->lock_dir, NULL);
		if (!disks->lock_dir)
			rc = error_set(err, -errno, "--lock-dir %s: %s",
				       options->lock_dir, strerror(errno));
	}
	for (uint32_t i = 0; i < options->count && !rc; i++)
		rc = open_one(disks, i, err);
	for (uint32_t i = 0; i < options->nroots && !rc; i++)
		rc = open_root(disks, i, err);
	if (rc) {
		disks_free(disks);
		return rc;
	}
	*ret = disks;
	return 0;
}

void disks_free(struct disks *disks)
{
	if (!disks)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(disks->named); i++)
		disk_close(disks->named[i]);
	for (size_t i = 0; i < ARRAY_SIZE(disks->roots); i++) {
		close_fd(&disks->roots[i]);
		free(disks->root_paths[i]);
	}
	free(disks->lock_dir);
	free(disks);
}

const struct device_backends *disks_backends(const struct disks *disks)
{
	return &disks->backends;
}

const int *disks_roots(const struct disks *disks, size_t *ret_count)
{
	*ret_count = disks->options->nroots;
	return disks->roots;
}
