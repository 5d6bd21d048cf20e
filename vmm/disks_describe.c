// SPDX-License-Identifier: MIT
/*
 * Disks as devices of a machine, and as words of a command line; see disks.h.
 * What travels of a disk is its size, how the guest sees it, and the last part
 * of its path as a hint. How it is opened here does not travel.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/disks_internal.h"

/* ---- of a machine ---- */

/*
 * The last part of a path, when it can stand among options; else "", and who
 * wants the disk has to be told where it is.
 */
static const char *hint(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;

	if (strlen(name) > DISK_NAME_MAX)
		return "";
	for (const char *at = name; *at; at++) {
		if (*at < ' ' || *at > '~' || *at == ',' || *at == '=')
			return "";
	}
	return name;
}

static int put_options(const struct disk_options *options,
		       const struct disk *disk, char *buf, size_t size)
{
	const char *name = hint(disk_path(disk));
	int len =
		snprintf(buf, size, "size=%llu,queues=%u%s%s%s%s%s%s",
			 (unsigned long long)disk_size(disk), options->queues,
			 name[0] ? ",name=" : "", name,
			 options->readonly ? ",readonly" : "",
			 options->serial[0] ? ",serial=" : "", options->serial,
			 options->werror_stop ? ",werror=stop" : "");

	return len < (int)size ? 0 : -E2BIG;
}

int disks_add_devices(const struct disks *disks, struct machine *machine,
		      struct error *err)
{
	for (uint32_t i = 0; i < disks->options->count; i++) {
		const struct disk_options *options = &disks->options->disks[i];
		struct device_config config = {
			.type = DISK_DEVICE,
			.vectors = options->vectors,
		};
		int rc;

		memcpy(config.id, options->id, sizeof(config.id));
		rc = put_options(options, disks->named[i], config.options,
				 sizeof(config.options));
		if (rc)
			rc = error_set(err, rc, "too much to say of it");
		else
			rc = machine_add_device(machine, &config, err);
		if (rc) {
			error_prefix(err, "--disk %s", options->path);
			return rc;
		}
	}
	return 0;
}

/* ---- of a command line ---- */

/* A path, with its commas doubled. */
static void put_path(FILE *to, const char *path)
{
	for (; *path; path++) {
		if (*path == ',')
			fputc(',', to);
		fputc(*path, to);
	}
}

/* What the command line says anew, or the image itself. */
static bool is_said_otherwise(const char *word)
{
	return !strncmp(word, "size=", 5) || !strncmp(word, "name=", 5);
}

static void put_words(FILE *to, const char *options)
{
	while (*options) {
		size_t len = strcspn(options, ",");

		if (!is_said_otherwise(options))
			fprintf(to, ",%.*s", (int)len, options);
		options += len;
		options += *options == ',';
	}
}

bool disks_put_words(const struct disks *disks,
		     const struct device_config *config, FILE *to)
{
	struct disks_info info;

	if (!disks_look(disks, config->id, &info))
		return false;
	put_path(to, info.path);
	fprintf(to, ",id=%s%s", config->id, info.direct ? ",direct" : "");
	put_words(to, config->options);
	fprintf(to, ",vectors=%u", config->vectors);
	return true;
}

const char *disks_lock_dir(const struct disks *disks)
{
	return disks->lock_dir;
}
