/* SPDX-License-Identifier: MIT */
/*
 * The command line as data: one plain struct a command. Parsing touches
 * nothing but its argument: no file, no host, no output. A text in a struct
 * points into argv.
 *
 * Each refusal is one line that names the option, its value and the remedy.
 */
#ifndef GODWIT_OPTIONS_H
#define GODWIT_OPTIONS_H

#include <limits.h>

#include "devices/backend/user.h"
#include "migration/source.h"

/* Exit statuses that are the same for every command. */
#define EXIT_USAGE 2

enum console_kind {
	CONSOLE_STDIO,
	CONSOLE_UNIX, /* listened on */
	CONSOLE_FILE,
	CONSOLE_NULL,
};

struct console_options {
	enum console_kind kind;
	const char *path; /* UNIX and FILE */
};

#define CONSOLES_MAX 16

/* The --console, in order: console0, console1, … */
struct consoles_options {
	uint32_t count;
	struct console_options consoles[CONSOLES_MAX];
};

#define DISK_ROOTS_MAX	8
#define DISK_SERIAL_MAX 20 /* bytes; VIRTIO 1.2, 5.2.6 */
#define DISK_QUEUES_MAX 16 /* those of virtio-blk */

/* A --disk. `listen` says only id, path and direct. */
struct disk_options {
	char id[DEVICE_ID_MAX]; /* "": not given */
	char path[PATH_MAX];	/* commas no longer doubled */
	bool readonly;
	bool direct;
	bool werror_stop;
	char serial[DISK_SERIAL_MAX + 1]; /* "": none */
	uint32_t queues;
	uint32_t vectors;
};

struct disks_options {
	uint32_t count;
	struct disk_options disks[MACHINE_DEVICES_MAX];
	uint32_t nroots;
	const char *roots[DISK_ROOTS_MAX]; /* listen: --disk-root */
	const char *lock_dir;		   /* NULL: images are locked */
	bool unsafe;			   /* listen */
};

#define TAP_OPTION_NAME_MAX 15 /* bytes; the kernel's */

/* A --net. `listen` says only id, tap and queues, or user and forwards. */
struct tap_options {
	char id[DEVICE_ID_MAX];		    /* "": not given */
	char name[TAP_OPTION_NAME_MAX + 1]; /* of a tap; "": by fd */
	int fd;				    /* -1: by name */
	bool has_mac;
	uint8_t mac[6];
	bool user;
	uint32_t nforwards;
	struct user_forward forwards[USER_FORWARDS_MAX];
	uint32_t queues; /* pairs */
	uint32_t vectors;
};

struct taps_options {
	uint32_t count;
	struct tap_options taps[MACHINE_DEVICES_MAX];
};

/* What `run` and `listen` have in common. */
struct process_options {
	bool has_serial;
	struct console_options serial;
	struct consoles_options consoles;
	const char *name; /* NULL: not given */
	struct disks_options disks;
	struct taps_options taps;
	bool pause_on_panic;
	bool hugepages; /* guest memory is made of them */
	bool sandbox;
	unsigned int verbosity; /* how many -v */
};

struct run_options {
	struct process_options process;
	const char *kernel;
	const char *initrd; /* NULL for none */
	const char *cmdline;
	uint32_t cpus;
	const char *cpu; /* arch/cpu.h */
	uint64_t memory; /* bytes */
	bool rng;
	bool balloon;
	bool debug_exit;
	bool migrates; /* --migrate-to */
	struct address migrate_to;
	uint64_t migrate_after_ns;
	uint64_t migrate_downtime_ns; /* 0: as the VM has it */
};

struct listen_options {
	struct process_options process;
	struct address address;
	bool paused;
	bool once;
	bool insecure;
	struct transport_allow allow;
};

struct migrate_options {
	const char *name;
	bool has_to;
	bool has_max_downtime;
	bool has_bandwidth;
	struct source_params params; /* @to is not resolved */
	bool json;
};

enum set_parameter {
	SET_MAX_DOWNTIME, /* nanoseconds */
	SET_BANDWIDTH,	  /* bytes a second, 0: no cap */
	SET_MEMORY,	  /* bytes that the guest is to keep */
};

struct set_options {
	const char *name;
	bool has_parameter; /* else all are shown */
	bool has_value;	    /* else it is shown, and not changed */
	enum set_parameter parameter;
	uint64_t value;
};

#define CPU_FILES_MAX 64

struct cpu_options {
	const char *guest;   /* NULL: not given */
	const char *can_run; /* likewise */
	unsigned int nfiles;
	const char *files[CPU_FILES_MAX];
};

struct attach_options {
	const char *name;
	const char *device; /* NULL: the one that people mean */
};

/* Commands that take a VM's name and little else. */
struct name_options {
	const char *name; /* NULL for `list` */
	bool json;
	bool resume; /* resolve */
	bool discard;
};

/*
 * All parsers: @argv holds what follows the command's name, NULL-terminated.
 *
 * Return: 0; OPTIONS_HELP when --help was among them; -EINVAL with @err.
 */
#define OPTIONS_HELP 1

int __must_check options_run(char *const argv[], struct run_options *ret,
			     struct error *err);
int __must_check options_listen(char *const argv[], struct listen_options *ret,
				struct error *err);
int __must_check options_migrate(char *const argv[],
				 struct migrate_options *ret,
				 struct error *err);
int __must_check options_set(char *const argv[], struct set_options *ret,
			     struct error *err);

int __must_check options_cpu(char *const argv[], struct cpu_options *ret,
			     struct error *err);
int __must_check options_attach(char *const argv[], struct attach_options *ret,
				struct error *err);

/**
 * options_name() - the commands that only take a VM's name.
 * @command: "cancel", "status", …, decides which options there are.
 */
int __must_check options_name(const char *command, char *const argv[],
			      struct name_options *ret, struct error *err);

/**
 * options_nearest() - the one of @words that @text was probably meant to be.
 * @words: NULL-terminated.
 *
 * Return: the word, or NULL when none is near.
 */
const char *options_nearest(const char *text, const char *const words[]);

#endif
