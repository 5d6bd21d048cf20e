/* SPDX-License-Identifier: MIT */
/*
 * Who opens which image: the disks that a command line names, opened before the
 * sandbox closes, and given to devices as they are made (device.h, struct
 * device_backends).
 *
 * `run` opens what its --disk describe and locks it at once. `listen` opens
 * what its own --disk ID=PATH name, and looks for the rest below its
 * --disk-root, by the last part of the path that the disk has at the source. It
 * gives a disk to a device only when that is the very disk that the source has,
 * of the same size, and can be read here without what an earlier time has left
 * in this host's page cache. An attempt that fails leaves nothing locked.
 *
 * Threads: disks_open() and disks_free() on the main one; a listener's
 * disks_offer() and backends on the migration's; disks_look() on any, once
 * there is a VM.
 */
#ifndef GODWIT_DISKS_H
#define GODWIT_DISKS_H

#include <stdio.h>

#include "migration/wire.h"
#include "vmm/options.h"

struct disks;

/**
 * disks_open() - open what the command line names.
 * @listens: for a guest that comes; else for one that is made here, and its
 * disks are locked.
 *
 * @options outlives the disks.
 *
 * Return: 0, or -errno with @err naming option, path and remedy.
 */
int __must_check disks_open(const struct disks_options *options, bool listens,
			    struct disks **ret, struct error *err);

/**
 * disks_free() - close what no device has. NULL is fine.
 */
void disks_free(struct disks *disks);

/**
 * disks_add_devices() - `run`: a device for each --disk.
 */
int __must_check disks_add_devices(const struct disks *disks,
				   struct machine *machine, struct error *err);

/**
 * disks_offer() - `listen`: the source of @session describes a machine, which
 * is built next.
 */
void disks_offer(struct disks *disks, const struct wire_config *config,
		 const uint8_t session[WIRE_SESSION_SIZE]);

/**
 * disks_backends() - for the VM that is made; lives as long as @disks.
 */
const struct device_backends *disks_backends(const struct disks *disks);

/**
 * disks_roots() - descriptors of the directories of --disk-root; what else may
 * be opened later is nothing.
 */
const int *disks_roots(const struct disks *disks, size_t *ret_count);

/* A disk that a device has. */
struct disks_info {
	const char *path; /* where links led to */
	bool direct;
	bool readonly;
	uint64_t size; /* bytes */
};

/**
 * disks_look() - what is behind device @id; false: no disk of ours.
 */
bool disks_look(const struct disks *disks, const char *id,
		struct disks_info *ret);

/**
 * disks_put_words() - the value of the --disk that would make device @config
 * again; false: no disk of ours.
 */
bool disks_put_words(const struct disks *disks,
		     const struct device_config *config, FILE *to);

/**
 * disks_lock_dir() - the whole path of --lock-dir; NULL without.
 */
const char *disks_lock_dir(const struct disks *disks);

#endif
