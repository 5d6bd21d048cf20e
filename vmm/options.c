// SPDX-License-Identifier: MIT
/*
 * What each command's options mean; see options.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arch/cpu.h"
#include "vmm/options_internal.h"
#include "vmm/units.h"

/* ---- run and listen ---- */

int option_take_path(const char *value, const char **ret, struct error *err)
{
	if (!*value)
		return option_refuse(err, "the path is empty");
	*ret = value;
	return 0;
}

static int take_name(const char *value, const char **ret, struct error *err)
{
	int rc = machine_name_check(value, err);

	if (!rc)
		*ret = value;
	return rc;
}

#define RUN(opts)    ((struct run_options *)(opts))
#define LISTEN(opts) ((struct listen_options *)(opts))

/* What both have comes first, so that both are one of these. */
#define PROCESS(opts) ((struct process_options *)(opts))
_Static_assert(!offsetof(struct run_options, process) &&
		       !offsetof(struct listen_options, process),
	       "process options come first");

static int process_serial(void *opts, const char *value, struct error *err)
{
	PROCESS(opts)->has_serial = true;
	return option_console(value, &PROCESS(opts)->serial, err);
}

static int process_console(void *opts, const char *value, struct error *err)
{
	struct consoles_options *consoles = &PROCESS(opts)->consoles;
	int rc;

	if (consoles->count == ARRAY_SIZE(consoles->consoles))
		return option_refuse(err, "a VM has at most %d consoles",
				     CONSOLES_MAX);
	rc = option_console(value, &consoles->consoles[consoles->count], err);
	consoles->count += !rc;
	return rc;
}

static int process_name(void *opts, const char *value, struct error *err)
{
	return take_name(value, &PROCESS(opts)->name, err);
}

static int process_on_panic(void *opts, const char *value, struct error *err)
{
	PROCESS(opts)->pause_on_panic = !strcmp(value, "pause");
	if (PROCESS(opts)->pause_on_panic || !strcmp(value, "exit"))
		return 0;
	return option_refuse(err, "give exit or pause");
}

static int process_no_sandbox(void *opts, const char *value __maybe_unused,
			      struct error *err __maybe_unused)
{
	PROCESS(opts)->sandbox = false;
	return 0;
}

static int process_verbose(void *opts, const char *value __maybe_unused,
			   struct error *err __maybe_unused)
{
	PROCESS(opts)->verbosity++;
	return 0;
}

static int disks_lock_dir(void *opts, const char *value, struct error *err)
{
	return option_take_path(value, &PROCESS(opts)->disks.lock_dir, err);
}

/* The place for one disk more; NULL when there is none. */
static struct disk_options *next_disk(void *opts)
{
	struct disks_options *disks = &PROCESS(opts)->disks;

	return disks->count < ARRAY_SIZE(disks->disks)
		       ? &disks->disks[disks->count]
		       : NULL;
}

/* Ids differ: a given one may be what another got by its place. */
static int keep_disk(void *opts, struct error *err)
{
	struct disks_options *disks = &PROCESS(opts)->disks;
	const char *id = disks->disks[disks->count].id;

	for (uint32_t i = 0; i < disks->count; i++) {
		if (!strcmp(disks->disks[i].id, id))
			return option_refuse(err,
					     "id %s: taken by an earlier "
					     "--disk; give another",
					     id);
	}
	disks->count++;
	return 0;
}

/* What the devices that are there without being asked for leave. */
static uint32_t room_for_devices(const struct run_options *options)
{
	struct machine machine;

	machine_init(&machine);
	return MACHINE_DEVICES_MAX - machine.ndevices + !options->rng +
	       !options->balloon - options->debug_exit;
}

static int too_many_devices(const struct run_options *options,
			    struct error *err)
{
	uint32_t room = room_for_devices(options);

	return option_refuse(err,
			     "too many of --disk, --net and --console: a VM "
			     "has at most %d devices, and %u of this one are "
			     "none of these: leave out all but %u",
			     MACHINE_DEVICES_MAX, MACHINE_DEVICES_MAX - room,
			     room);
}

static int run_disk(void *opts, const char *value, struct error *err)
{
	struct disk_options *disk = next_disk(opts);
	int rc;

	if (!disk)
		return too_many_devices(RUN(opts), err);
	rc = option_disk_run(value, disk, err);
	if (!rc && !disk->id[0])
		snprintf(disk->id, sizeof(disk->id), "disk%u",
			 PROCESS(opts)->disks.count);
	return rc ? rc : keep_disk(opts, err);
}

/* The place for one tap more; NULL when there is none. */
static struct tap_options *next_tap(void *opts, struct error *err)
{
	struct taps_options *taps = &PROCESS(opts)->taps;

	if (taps->count < ARRAY_SIZE(taps->taps))
		return &taps->taps[taps->count];
	(void)option_refuse(err, "a VM has at most %zu devices",
			    ARRAY_SIZE(taps->taps));
	return NULL;
}

static int keep_tap(void *opts, struct error *err)
{
	struct taps_options *taps = &PROCESS(opts)->taps;
	const char *id = taps->taps[taps->count].id;

	for (uint32_t i = 0; i < taps->count; i++) {
		if (!strcmp(taps->taps[i].id, id))
			return option_refuse(err,
					     "id %s: taken by an earlier "
					     "--net; give another",
					     id);
	}
	taps->count++;
	return 0;
}

static int run_net(void *opts, const char *value, struct error *err)
{
	struct tap_options *tap = next_tap(opts, err);
	int rc;

	if (!tap)
		return -EINVAL;
	rc = option_net_run(value, tap, err);
	if (!rc && !tap->id[0])
		snprintf(tap->id, sizeof(tap->id), "net%u",
			 PROCESS(opts)->taps.count);
	return rc ? rc : keep_tap(opts, err);
}

static int run_kernel(void *opts, const char *value, struct error *err)
{
	return option_take_path(value, &RUN(opts)->kernel, err);
}

static int run_initrd(void *opts, const char *value, struct error *err)
{
	return option_take_path(value, &RUN(opts)->initrd, err);
}

static int run_cmdline(void *opts, const char *value, struct error *err)
{
	if (strlen(value) >= MACHINE_CMDLINE_MAX)
		return option_refuse(err, "longer than %d bytes",
				     MACHINE_CMDLINE_MAX - 1);
	RUN(opts)->cmdline = value;
	return 0;
}

static int run_cpus(void *opts, const char *value, struct error *err)
{
	uint64_t n;
	int rc = units_count(value, 1, ARCH_CPUS_MAX, &n, err);

	if (!rc)
		RUN(opts)->cpus = (uint32_t)n;
	return rc;
}

static int run_cpu(void *opts, const char *value, struct error *err)
{
	RUN(opts)->cpu = value;
	return arch_cpu_name_check(value, err);
}

/* What follows the size; @text begins with a comma, or is empty. */
static int take_memory_words(void *opts, const char *text, struct error *err)
{
	PROCESS(opts)->hugepages = !strcmp(text, ",hugepages");
	if (!*text || PROCESS(opts)->hugepages)
		return 0;
	if (!strcmp(text, ",shared"))
		return option_refuse(err, ",shared is not in this version of "
					  "godwit, which shares no memory with "
					  "other processes; leave it out");
	return option_refuse(err,
			     "'%.40s' is unknown; give a size, like 512M, and "
			     ",hugepages or nothing",
			     text);
}

static int run_memory(void *opts, const char *value, struct error *err)
{
	size_t len = strcspn(value, ",");
	char size[32];
	uint64_t bytes;
	int rc = take_memory_words(opts, value + len, err);

	if (rc)
		return rc;
	snprintf(size, sizeof(size), "%.*s", (int)MIN(len, sizeof(size)),
		 value);
	rc = units_size(size, &bytes, err);
	if (rc)
		return rc;
	if (bytes < MEMORY_MIN || bytes > MEMORY_MAX || bytes % MEMORY_GRANULE)
		return option_refuse(err,
				     "give whole megabytes from %lluM to "
				     "%lluG",
				     MEMORY_MIN / MIB, MEMORY_MAX / GIB);
	if (PROCESS(opts)->hugepages && bytes % HUGE_PAGE_SIZE)
		return option_refuse(err, "huge pages have 2 MiB; give an even "
					  "number of megabytes");
	RUN(opts)->memory = bytes;
	return 0;
}

static int take_switch(const char *value, bool *ret, struct error *err)
{
	*ret = !strcmp(value, "on");
	if (*ret || !strcmp(value, "off"))
		return 0;
	return option_refuse(err, "give on or off");
}

static int run_rng(void *opts, const char *value, struct error *err)
{
	return take_switch(value, &RUN(opts)->rng, err);
}

static int run_balloon(void *opts, const char *value, struct error *err)
{
	return take_switch(value, &RUN(opts)->balloon, err);
}

static int run_debug_exit(void *opts, const char *value __maybe_unused,
			  struct error *err __maybe_unused)
{
	RUN(opts)->debug_exit = true;
	return 0;
}

static int take_downtime(const char *value, uint64_t *ret, struct error *err)
{
	int rc = units_time(value, ret, err);

	if (!rc && *ret < SOURCE_DOWNTIME_MIN)
		return option_refuse(err,
				     "no pause can be that short: to stop, "
				     "save, load and resume takes longer; give "
				     "at least %lluus, like 10ms",
				     SOURCE_DOWNTIME_MIN / NS_PER_US);
	if (!rc && *ret > SOURCE_DOWNTIME_MAX)
		return option_refuse(err,
				     "is as good as no limit; give at most "
				     "%llus, or pause the guest for the whole "
				     "move with --offline",
				     SOURCE_DOWNTIME_MAX / NS_PER_S);
	return rc;
}

static int take_target(const char *value, struct address *ret,
		       struct error *err)
{
	int rc = address_parse(value, ret, err);

	if (!rc && ret->kind == ADDRESS_TCP && !ret->port)
		return option_refuse(err, "nobody listens on port 0; give the "
					  "one that `godwit listen` prints");
	return rc;
}

/* Behind the address. */
#define AFTER	 "after="
#define DOWNTIME "max-downtime="

static int take_time_once(int (*take)(const char *, uint64_t *, struct error *),
			  const char *piece, size_t prefix, uint64_t *value,
			  bool *seen, struct error *err)
{
	int rc;

	if (*seen)
		return option_refuse(err, "%.*s: given twice; give it once",
				     (int)prefix - 1, piece);
	*seen = true;
	rc = take(piece + prefix, value, err);
	if (rc)
		error_prefix(err, "%s", piece);
	return rc;
}

static int run_migrate_to(void *opts, const char *value, struct error *err)
{
	struct run_options *run = opts;
	bool after = false, downtime = false;
	char piece[ADDRESS_TEXT_MAX];
	int rc;

	value = option_next_piece(value, piece, sizeof(piece), &rc, err);
	if (!rc)
		rc = take_target(piece, &run->migrate_to, err);
	while (!rc && value) {
		value = option_next_piece(value, piece, sizeof(piece), &rc,
					  err);
		if (rc)
			break;
		if (!strncmp(piece, AFTER, strlen(AFTER)))
			rc = take_time_once(units_seconds, piece, strlen(AFTER),
					    &run->migrate_after_ns, &after,
					    err);
		else if (!strncmp(piece, DOWNTIME, strlen(DOWNTIME)))
			rc = take_time_once(
				take_downtime, piece, strlen(DOWNTIME),
				&run->migrate_downtime_ns, &downtime, err);
		else
			rc = option_refuse(err,
					   "'%.80s': no such word; give "
					   "after=SECONDS or "
					   "max-downtime=TIME; a comma in a "
					   "path is doubled",
					   piece);
	}
	run->migrates = !rc;
	return rc;
}

static int absent(void *opts __maybe_unused, const char *value __maybe_unused,
		  struct error *err)
{
	/* The walk refuses these before it gets here. */
	return option_refuse(err, "not in this version of godwit");
}

#define VALUE(name, fn)                                    \
	{                                                  \
		(name), .takes_value = true, .parse = (fn) \
	}
#define FLAG(name, fn)                \
	{                             \
		(name), .parse = (fn) \
	}
#define REPEATED(name, fn)                                                  \
	{                                                                   \
		(name), .takes_value = true, .repeats = true, .parse = (fn) \
	}
#define VERBOSE(fn)                                                            \
	{                                                                      \
		"--verbose", .short_name = 'v', .repeats = true, .parse = (fn) \
	}
#define ABSENT(name, remedy)                                  \
	{                                                     \
		(name), .takes_value = true, .parse = absent, \
			.absent = (remedy)                    \
	}
static const struct option_spec run_specs[] = {
	VALUE("--kernel", run_kernel),
	VALUE("--initrd", run_initrd),
	VALUE("--cmdline", run_cmdline),
	VALUE("--cpus", run_cpus),
	VALUE("--cpu", run_cpu),
	VALUE("--memory", run_memory),
	VALUE("--rng", run_rng),
	VALUE("--balloon", run_balloon),
	VALUE("--serial", process_serial),
	REPEATED("--console", process_console),
	VALUE("--name", process_name),
	REPEATED("--disk", run_disk),
	VALUE("--lock-dir", disks_lock_dir),
	REPEATED("--net", run_net),
	FLAG("--debug-exit", run_debug_exit),
	VALUE("--on-panic", process_on_panic),
	VALUE("--migrate-to", run_migrate_to),
	FLAG("--no-sandbox", process_no_sandbox),
	VERBOSE(process_verbose),
};

static const char *const no_words[] = { NULL };

int options_run(char *const argv[], struct run_options *ret, struct error *err)
{
	static const struct option_walk walk = {
		.specs = run_specs,
		.nspecs = ARRAY_SIZE(run_specs),
		.words = no_words,
	};
	int rc;

	*ret = (struct run_options){
		.process.sandbox = true,
		.cmdline = "",
		.cpus = 1,
		.cpu = "host",
		.memory = 256 * MIB,
		.rng = true,
		.balloon = true,
	};
	rc = option_walk(&walk, argv, ret, err);
	if (!rc && !ret->kernel)
		return option_refuse(err, "--kernel is missing; give a Linux "
					  "kernel or an ELF with a PVH note");
	if (!rc && ret->process.disks.count + ret->process.taps.count +
				   ret->process.consoles.count >
			   room_for_devices(ret))
		return too_many_devices(ret, err);
	return rc ? rc : option_share_stdio(&ret->process, err);
}

static int listen_paused(void *opts, const char *value __maybe_unused,
			 struct error *err __maybe_unused)
{
	LISTEN(opts)->paused = true;
	return 0;
}

static int listen_hugepages(void *opts, const char *value __maybe_unused,
			    struct error *err __maybe_unused)
{
	PROCESS(opts)->hugepages = true;
	return 0;
}

static int listen_once(void *opts, const char *value __maybe_unused,
		       struct error *err __maybe_unused)
{
	LISTEN(opts)->once = true;
	return 0;
}

static int listen_insecure(void *opts, const char *value __maybe_unused,
			   struct error *err __maybe_unused)
{
	LISTEN(opts)->insecure = true;
	return 0;
}

static int listen_allow(void *opts, const char *value, struct error *err)
{
	return transport_allow_add(&LISTEN(opts)->allow, value, err);
}

static int listen_disk(void *opts, const char *value, struct error *err)
{
	struct disk_options *disk = next_disk(opts);
	int rc;

	if (!disk)
		return option_refuse(err,
				     "a VM has at most %d devices; leave out "
				     "disks that the guest hasn't",
				     MACHINE_DEVICES_MAX);
	rc = option_disk_listen(value, disk, err);
	return rc ? rc : keep_disk(opts, err);
}

static int listen_net(void *opts, const char *value, struct error *err)
{
	struct tap_options *tap = next_tap(opts, err);
	int rc;

	if (!tap)
		return -EINVAL;
	rc = option_net_listen(value, tap, err);
	return rc ? rc : keep_tap(opts, err);
}

static int listen_disk_root(void *opts, const char *value, struct error *err)
{
	struct disks_options *disks = &PROCESS(opts)->disks;

	if (disks->nroots == DISK_ROOTS_MAX)
		return option_refuse(err,
				     "at most %d; name a directory above "
				     "some of them",
				     DISK_ROOTS_MAX);
	return option_take_path(value, &disks->roots[disks->nroots++], err);
}

static int listen_unsafe(void *opts, const char *value __maybe_unused,
			 struct error *err __maybe_unused)
{
	PROCESS(opts)->disks.unsafe = true;
	return 0;
}

static int listen_word(void *opts, unsigned int index __maybe_unused,
		       const char *text, struct error *err)
{
	return address_parse(text, &LISTEN(opts)->address, err);
}

static const struct option_spec listen_specs[] = {
	VALUE("--name", process_name),
	VALUE("--serial", process_serial),
	REPEATED("--console", process_console),
	FLAG("--hugepages", listen_hugepages),
	FLAG("--paused", listen_paused),
	FLAG("--once", listen_once),
	REPEATED("--disk", listen_disk),
	REPEATED("--disk-root", listen_disk_root),
	VALUE("--lock-dir", disks_lock_dir),
	FLAG("--unsafe", listen_unsafe),
	REPEATED("--net", listen_net),
	REPEATED("--allow", listen_allow),
	FLAG("--insecure", listen_insecure),
	VALUE("--on-panic", process_on_panic),
	FLAG("--no-sandbox", process_no_sandbox),
	VERBOSE(process_verbose),
	ABSENT("--tls", "; use --allow on a network that you trust, or an SSH "
			"tunnel to a loopback address"),
};

int options_listen(char *const argv[], struct listen_options *ret,
		   struct error *err)
{
	static const char *const words[] = { "ADDR", NULL };
	static const struct option_walk walk = {
		.specs = listen_specs,
		.nspecs = ARRAY_SIZE(listen_specs),
		.words = words,
		.word = listen_word,
	};

	int rc;

	*ret = (struct listen_options){ .process.sandbox = true };
	rc = option_walk(&walk, argv, ret, err);
	if (!rc && ret->process.disks.lock_dir && ret->process.disks.nroots)
		return option_refuse(err,
				     "--lock-dir: lock files are opened before "
				     "a guest comes, when nobody knows what it "
				     "will want of --disk-root; name its disks "
				     "with --disk ID=PATH");
	return rc ? rc : option_share_stdio(&ret->process, err);
}

/* ---- migrate and set ---- */

#define MIGRATE(opts) ((struct migrate_options *)(opts))

static int migrate_to(void *opts, const char *value, struct error *err)
{
	MIGRATE(opts)->has_to = true;
	return take_target(value, &MIGRATE(opts)->params.to, err);
}

static int migrate_max_downtime(void *opts, const char *value,
				struct error *err)
{
	MIGRATE(opts)->has_max_downtime = true;
	return take_downtime(value, &MIGRATE(opts)->params.max_downtime_ns,
			     err);
}

static int migrate_abort_after(void *opts, const char *value, struct error *err)
{
	uint64_t *ns = &MIGRATE(opts)->params.abort_after_ns;
	int rc = units_time(value, ns, err);

	if (!rc && (*ns < SOURCE_DOWNTIME_MIN || *ns > SOURCE_TIME_MAX))
		return option_refuse(err,
				     "every pause would be called off, or "
				     "none; give a time from %lluus to %lluh, "
				     "longer than --max-downtime",
				     SOURCE_DOWNTIME_MIN / NS_PER_US,
				     SOURCE_TIME_MAX / NS_PER_S / 3600);
	return rc;
}

static int take_bandwidth(const char *value, uint64_t *ret, struct error *err)
{
	int rc = units_rate(value, ret, err);

	if (!rc && *ret && *ret < SOURCE_BANDWIDTH_MIN)
		return option_refuse(err,
				     "with so few bytes a second nothing gets "
				     "anywhere; give at least %lluK, like "
				     "500M, or 0 for no limit",
				     SOURCE_BANDWIDTH_MIN / KIB);
	return rc;
}

static int migrate_bandwidth(void *opts, const char *value, struct error *err)
{
	MIGRATE(opts)->has_bandwidth = true;
	return take_bandwidth(value, &MIGRATE(opts)->params.bandwidth, err);
}

static int migrate_timeout(void *opts, const char *value, struct error *err)
{
	uint64_t *ns = &MIGRATE(opts)->params.timeout_ns;
	int rc = units_time(value, ns, err);

	if (!rc && (*ns < SOURCE_TIMEOUT_MIN || *ns > SOURCE_TIME_MAX))
		return option_refuse(err,
				     "in less than %llums no target has "
				     "answered, and nobody waits longer than "
				     "%lluh; give a time like 30s, or leave it "
				     "out for no limit",
				     SOURCE_TIMEOUT_MIN / NS_PER_MS,
				     SOURCE_TIME_MAX / NS_PER_S / 3600);
	return rc;
}

static int migrate_on_timeout(void *opts, const char *value, struct error *err)
{
	if (!strcmp(value, "cancel"))
		MIGRATE(opts)->params.on_timeout = SOURCE_TIMEOUT_CANCEL;
	else if (!strcmp(value, "pause"))
		MIGRATE(opts)->params.on_timeout = SOURCE_TIMEOUT_PAUSE;
	else
		return option_refuse(err, "give cancel or pause");
	return 0;
}

static int migrate_offline(void *opts, const char *value __maybe_unused,
			   struct error *err __maybe_unused)
{
	MIGRATE(opts)->params.offline = true;
	return 0;
}

static int migrate_verify(void *opts, const char *value __maybe_unused,
			  struct error *err __maybe_unused)
{
	MIGRATE(opts)->params.verify = true;
	return 0;
}

static int migrate_dry_run(void *opts, const char *value __maybe_unused,
			   struct error *err __maybe_unused)
{
	MIGRATE(opts)->params.dry_run = true;
	return 0;
}

static int migrate_json(void *opts, const char *value __maybe_unused,
			struct error *err __maybe_unused)
{
	MIGRATE(opts)->json = true;
	return 0;
}

static int migrate_word(void *opts, unsigned int index __maybe_unused,
			const char *text, struct error *err)
{
	return take_name(text, &MIGRATE(opts)->name, err);
}

static const struct option_spec migrate_specs[] = {
	VALUE("--to", migrate_to),
	VALUE("--max-downtime", migrate_max_downtime),
	VALUE("--abort-after", migrate_abort_after),
	VALUE("--bandwidth", migrate_bandwidth),
	VALUE("--timeout", migrate_timeout),
	VALUE("--on-timeout", migrate_on_timeout),
	FLAG("--offline", migrate_offline),
	FLAG("--verify", migrate_verify),
	FLAG("--json", migrate_json),
	FLAG("--dry-run", migrate_dry_run),
};

int options_migrate(char *const argv[], struct migrate_options *ret,
		    struct error *err)
{
	static const char *const words[] = { "NAME", NULL };
	static const struct option_walk walk = {
		.specs = migrate_specs,
		.nspecs = ARRAY_SIZE(migrate_specs),
		.words = words,
		.word = migrate_word,
	};
	int rc;

	*ret = (struct migrate_options){ .params = source_params_default };
	rc = option_walk(&walk, argv, ret, err);
	if (!rc && !ret->has_to)
		return option_refuse(err,
				     "--to is missing; give the address "
				     "that `godwit listen` has there, like "
				     "tcp:HOST:PORT");
	if (!rc && ret->params.dry_run && ret->params.offline)
		return option_refuse(err,
				     "--dry-run: with --offline there are no "
				     "rounds to tell anything from; leave one "
				     "out");
	return rc;
}

static int take_kept_memory(const char *value, uint64_t *ret, struct error *err)
{
	int rc = units_size(value, ret, err);

	if (!rc && *ret < MEMORY_MIN)
		return option_refuse(err,
				     "no guest is made with less than %lluM, "
				     "and none lives on less; give a size like "
				     "512M",
				     MEMORY_MIN / MIB);
	return rc;
}

static const struct {
	const char *name;
	int (*take)(const char *text, uint64_t *ret, struct error *err);
} set_parameters[] = {
	[SET_MAX_DOWNTIME] = { "max-downtime", take_downtime },
	[SET_BANDWIDTH] = { "bandwidth", take_bandwidth },
	[SET_MEMORY] = { "memory", take_kept_memory },
};

static int set_parameter_word(struct set_options *set, const char *text,
			      struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(set_parameters); i++) {
		if (strcmp(text, set_parameters[i].name) != 0)
			continue;
		set->parameter = (enum set_parameter)i;
		set->has_parameter = true;
		return 0;
	}
	return option_refuse(err,
			     "'%.40s': can't be set; give max-downtime, "
			     "bandwidth or memory",
			     text);
}

static int set_word(void *opts, unsigned int index, const char *text,
		    struct error *err)
{
	struct set_options *set = opts;
	int rc;

	if (index == 0)
		return take_name(text, &set->name, err);
	if (index == 1)
		return set_parameter_word(set, text, err);
	set->has_value = true;
	rc = set_parameters[set->parameter].take(text, &set->value, err);
	if (rc)
		error_prefix(err, "%s %.100s",
			     set_parameters[set->parameter].name,
			     *text ? text : "''");
	return rc;
}

int options_set(char *const argv[], struct set_options *ret, struct error *err)
{
	static const char *const words[] = { "NAME",
					     "max-downtime|bandwidth|memory",
					     "VALUE", NULL };
	static const struct option_walk walk = {
		.words = words,
		.needed = 1,
		.word = set_word,
	};

	*ret = (struct set_options){ 0 };
	return option_walk(&walk, argv, ret, err);
}

/* ---- console ---- */

static int attach_word(void *opts, unsigned int index, const char *text,
		       struct error *err)
{
	struct attach_options *attach = opts;
	int rc;

	if (!index)
		return take_name(text, &attach->name, err);
	rc = machine_id_check(text, err);
	if (!rc)
		attach->device = text;
	return rc;
}

int options_attach(char *const argv[], struct attach_options *ret,
		   struct error *err)
{
	static const char *const words[] = { "NAME", "DEVICE", NULL };
	static const struct option_walk walk = {
		.words = words,
		.needed = 1,
		.word = attach_word,
	};

	*ret = (struct attach_options){ 0 };
	return option_walk(&walk, argv, ret, err);
}

/* ---- the rest ---- */

static int name_json(void *opts, const char *value __maybe_unused,
		     struct error *err __maybe_unused)
{
	((struct name_options *)opts)->json = true;
	return 0;
}

static int name_resume(void *opts, const char *value __maybe_unused,
		       struct error *err __maybe_unused)
{
	((struct name_options *)opts)->resume = true;
	return 0;
}

static int name_discard(void *opts, const char *value __maybe_unused,
			struct error *err __maybe_unused)
{
	((struct name_options *)opts)->discard = true;
	return 0;
}

static int name_word(void *opts, unsigned int index __maybe_unused,
		     const char *text, struct error *err)
{
	return take_name(text, &((struct name_options *)opts)->name, err);
}

static const struct option_spec json_spec[] = { FLAG("--json", name_json) };
static const struct option_spec resolve_specs[] = {
	FLAG("--resume", name_resume),
	FLAG("--discard", name_discard),
};

int options_name(const char *command, char *const argv[],
		 struct name_options *ret, struct error *err)
{
	static const char *const words[] = { "NAME", NULL };
	struct option_walk walk = { .words = words, .word = name_word };
	int rc;

	*ret = (struct name_options){ 0 };
	if (!strcmp(command, "list"))
		walk.words = no_words;
	if (!strcmp(command, "status") || !strcmp(command, "list")) {
		walk.specs = json_spec;
		walk.nspecs = ARRAY_SIZE(json_spec);
	} else if (!strcmp(command, "resolve")) {
		walk.specs = resolve_specs;
		walk.nspecs = ARRAY_SIZE(resolve_specs);
	}
	rc = option_walk(&walk, argv, ret, err);
	if (!rc && ret->resume && ret->discard)
		return option_refuse(err, "--resume and --discard contradict "
					  "each other; give one of them");
	return rc;
}
