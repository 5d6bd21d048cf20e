// SPDX-License-Identifier: MIT
/*
 * What the control socket can ask of an instance: qmp_backend over struct
 * instance. All on the loop's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/cpu.h"
#include "vmm/instance.h"
#include "vmm/vm_balloon.h"

/* ---- looking ---- */

static const char *ended_status(const struct instance *inst)
{
	switch (inst->end) {
	case END_CRASHED:
		return "guest-panicked";
	case END_FAILED:
		return "internal-error";
	case END_MOVED:
		return "postmigrate";
	case END_NOT_YET:
	case END_POWEROFF:
	case END_EXIT:
	case END_QUIT:
		break;
	}
	return "shutdown";
}

/* The source tells so before its thread has come to its end here. */
static bool has_moved(const struct instance *inst)
{
	struct report report;

	return inst->mover && mover_report(inst->mover, &report) &&
	       report.status == STATUS_COMPLETED;
}

const char *instance_status(const struct instance *inst)
{
	unsigned int holds;

	if (inst->end != END_NOT_YET)
		return ended_status(inst);
	if (!inst->vm)
		return "inmigrate";
	holds = vm_holds(inst->vm);
	if (holds & VM_HOLD_ENDED)
		return "shutdown";
	if (holds & VM_HOLD_MIGRATION)
		return has_moved(inst) ? "postmigrate" : "finish-migrate";
	if (holds & VM_HOLD_USER && inst->panicked)
		return "guest-panicked";
	if (holds & VM_HOLD_USER)
		return inst->io_error ? "io-error" : "paused";
	return holds & VM_HOLD_BIRTH ? "prelaunch" : "running";
}

static void info(void *opaque, struct qmp_info *ret)
{
	struct instance *inst = opaque;
	const struct machine *machine = inst->vm ? vm_machine(inst->vm) : NULL;
	bool moves = inst->mover && mover_busy(inst->mover);
	struct report report = { 0 };

	if (moves)
		(void)mover_report(inst->mover, &report);
	*ret = (struct qmp_info){
		.name = machine ? machine->name : "",
		.status = instance_status(inst),
		.running = inst->vm && !vm_holds(inst->vm),
		.uncertain = mover_uncertain(inst->mover),
		.reason = inst->paused_by,
		.session = inst->came_by,
		.moving_to = moves ? inst->moved_to : "",
		.dry_run = report.dry_run,
		.cpus = machine ? machine->cpus : 0,
		.memory = machine ? machine->memory_size : 0,
	};
	if (!machine && inst->options->name)
		ret->name = inst->options->name;
}

static bool disk(void *opaque, uint32_t index, struct qmp_disk *ret)
{
	struct instance *inst = opaque;
	const struct machine *machine = inst->vm ? vm_machine(inst->vm) : NULL;
	struct disks_info info;

	for (uint32_t i = 0; machine && i < machine->ndevices; i++) {
		const char *id = machine->devices[i].id;

		if (!disks_look(inst->disks, id, &info) || index--)
			continue;
		*ret = (struct qmp_disk){
			.id = id,
			.path = info.path,
			.size = info.size,
			.readonly = info.readonly,
			.direct = info.direct,
		};
		return true;
	}
	return false;
}

static bool balloon(void *opaque, struct balloon_info *ret)
{
	struct instance *inst = opaque;

	return inst->vm && vm_balloon_look(inst->vm, ret);
}

static bool report(void *opaque, struct report *ret)
{
	struct instance *inst = opaque;

	return mover_report(inst->mover, ret);
}

/* ---- doing ---- */

static int need_guest(const struct instance *inst, struct error *err)
{
	if (!inst->vm)
		return error_set(err, -ENOENT, "there is no guest yet");
	if (inst->end != END_NOT_YET)
		return error_set(err, -ESHUTDOWN, "the guest has ended");
	return 0;
}

/* While nobody knows who has the guest it is not to be touched. */
static int need_certainty(const struct instance *inst, struct error *err)
{
	int rc = need_guest(inst, err);

	if (!rc && mover_uncertain(inst->mover))
		return error_set(err, -EBUSY,
				 "the guest was handed over to %s, which does "
				 "not say whether it runs there; `godwit "
				 "resolve` and its name say what to check",
				 inst->moved_to);
	return rc;
}

static int stop(void *opaque, struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	if (rc)
		return rc;
	vm_hold(inst->vm, VM_HOLD_USER);
	/* STOP comes before the answer, as QEMU has it. */
	vm_tell_events(inst->vm);
	return 0;
}

static int cont(void *opaque, struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	if (rc)
		return rc;
	vm_release(inst->vm, VM_HOLD_USER);
	vm_tell_events(inst->vm);
	return 0;
}

static int set_balloon(void *opaque, uint64_t bytes, struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	return rc ? rc : vm_balloon_set(inst->vm, bytes, err);
}

static int powerdown(void *opaque, struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	if (rc)
		return rc;
	vm_press_power_button(inst->vm);
	control_event(inst->control, "POWERDOWN", NULL);
	return 0;
}

static int reset(void *opaque, struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	if (rc)
		return rc;
	inst->user_reset = true;
	vm_request_reset(inst->vm);
	return 0;
}

static void quit_now(void *opaque)
{
	struct instance *inst = opaque;

	instance_finish(inst, END_QUIT, "host-qmp-quit",
			"ended at the control socket by process %d, as `godwit "
			"kill` does",
			inst->quit_by);
}

static void quit(void *opaque, pid_t by)
{
	struct instance *inst = opaque;

	inst->quit_by = by;
	/* The answer first. */
	loop_post(inst->loop, quit_now, inst);
}

/* ---- migrating ---- */

static int migrate(void *opaque, const struct source_params *params,
		   struct error *err)
{
	struct instance *inst = opaque;
	int rc = need_certainty(inst, err);

	return rc ? rc : instance_migrate(inst, params, err);
}

static int cancel(void *opaque, struct error *err)
{
	struct instance *inst = opaque;

	if (mover_uncertain(inst->mover))
		return need_certainty(inst, err);
	return mover_cancel(inst->mover, err);
}

static int resolve(void *opaque, bool resume, struct error *err)
{
	struct instance *inst = opaque;

	return mover_resolve(inst->mover, resume, err);
}

static const struct source_params *params(void *opaque)
{
	struct instance *inst = opaque;

	return &inst->params;
}

static void set_max_downtime(void *opaque, uint64_t ns)
{
	struct instance *inst = opaque;

	inst->params.max_downtime_ns = ns;
	mover_set_max_downtime(inst->mover, ns);
}

static void set_bandwidth(void *opaque, uint64_t bytes_per_s)
{
	struct instance *inst = opaque;

	inst->params.bandwidth = bytes_per_s;
	mover_set_bandwidth(inst->mover, bytes_per_s);
}

/* ---- consoles ---- */

static bool is_console(const struct device_config *config)
{
	return !strcmp(config->type, "serial") ||
	       !strcmp(config->type, "virtio-console");
}

/* Which one @name names, and all their names for who asks in vain. */
static const char *pick_console(const struct machine *machine, const char *name,
				char *all, size_t size)
{
	const char *picked = NULL;

	all[0] = '\0';
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		const struct device_config *config = &machine->devices[i];
		size_t len = strlen(all);

		if (!is_console(config))
			continue;
		snprintf(all + len, size - len, "%s%s", len ? ", " : "",
			 config->id);
		/* Whoever asks for a virtio console means that one. */
		if (name ? !strcmp(name, config->id)
			 : (!picked || !strcmp(picked, "serial0")))
			picked = config->id;
	}
	return picked;
}

static int need_line(struct instance *inst, const char *name,
		     const char **ret_id, struct line **ret, struct error *err)
{
	char all[MACHINE_DEVICES_MAX * (DEVICE_ID_MAX + 2)];

	if (!inst->vm && !name)
		name = "serial0";
	*ret_id = name;
	/* Before there is a guest, those that wait for one can be had. */
	if (inst->vm)
		*ret_id = pick_console(vm_machine(inst->vm), name, all,
				       sizeof(all));
	*ret = *ret_id ? consoles_find(inst->consoles, *ret_id) : NULL;
	if (*ret)
		return 0;
	if (!inst->vm)
		return error_set(err, -ENOENT,
				 "no console '%s' yet: there is no guest",
				 name);
	return error_set(err, -ENOENT, "no console '%s'; there is %s",
			 name ? name : "", all);
}

static int find_console(void *opaque, const char *device,
			struct qmp_console *ret, struct error *err)
{
	struct instance *inst = opaque;
	struct line *line;
	int rc = need_line(inst, device, &ret->device, &line, err);

	if (rc)
		return rc;
	if (line_is_full(line))
		return error_set(err, -EUSERS,
				 "%s: %d watch it already; end one of them",
				 ret->device, LINE_WATCHERS_MAX);
	line_range(line, &ret->first, &ret->end);
	return 0;
}

static int resize_console(void *opaque, const char *device, uint16_t columns,
			  uint16_t rows, struct error *err)
{
	struct line_size size = { .columns = columns, .rows = rows };
	struct line *line;
	int rc = need_line(opaque, device, &device, &line, err);

	if (!rc)
		line_resize(line, size);
	return rc;
}

static int watch_console(void *opaque, const char *device, int fd,
			 uint64_t from, const void *typed, size_t len,
			 struct error *err)
{
	struct instance *inst = opaque;

	return line_watch(consoles_find(inst->consoles, device), fd, from,
			  typed, len, err);
}

/* ---- show ---- */

/* A word that a shell takes as it is. */
static void put_quoted(FILE *to, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789@%+=:,./_-";

	if (word[0] && strspn(word, plain) == strlen(word)) {
		fputs(word, to);
		return;
	}
	fputc('\'', to);
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\''", to);
		else
			fputc(*word, to);
	}
	fputc('\'', to);
}

static void put_option(FILE *to, const char *option, const char *value)
{
	fprintf(to, " %s ", option);
	put_quoted(to, value);
}

/*
 * Where the boot image can be found. One that came with the guest has no
 * path, but as long as this process lives it can be copied from here.
 */
static void put_image(const struct instance *inst, FILE *to)
{
	const struct vm_image *image = vm_image(inst->vm);

	if (inst->kernel_path) {
		put_option(to, "--kernel", inst->kernel_path);
		if (inst->initrd_path)
			put_option(to, "--initrd", inst->initrd_path);
		return;
	}
	fprintf(to, " --kernel /proc/%d/fd/%d", getpid(), image->kernel_fd);
	if (image->initrd_fd >= 0)
		fprintf(to, " --initrd /proc/%d/fd/%d", getpid(),
			image->initrd_fd);
}

/* What was asked for here; elsewhere, what makes the same processor. */
static void put_cpu(const struct instance *inst, FILE *to)
{
	const struct arch_cpu_model *host;
	struct error ignored;
	char *name;

	if (inst->cpu_name) {
		if (strcmp(inst->cpu_name, "host") != 0)
			put_option(to, "--cpu", inst->cpu_name);
		return;
	}
	if (spares_offer(inst->spares, &host, &ignored))
		return;
	name = arch_cpu_model_name(&vm_machine(inst->vm)->cpu_model, host);
	if (name && strcmp(name, "host") != 0)
		put_option(to, "--cpu", name);
	free(name);
}

static void put_console(const char *option,
			const struct console_options *console, FILE *to)
{
	static const char *const prefixes[] = {
		[CONSOLE_STDIO] = "stdio",
		[CONSOLE_UNIX] = "unix:",
		[CONSOLE_FILE] = "file:",
		[CONSOLE_NULL] = "null",
	};
	char value[4200];

	snprintf(value, sizeof(value), "%s%s", prefixes[console->kind],
		 console->path ? console->path : "");
	put_option(to, option, value);
}

/* A guest may have brought more than this host was told of. */
static void put_consoles(const struct instance *inst, FILE *to)
{
	static const struct console_options unnamed = { .kind = CONSOLE_NULL };
	const struct consoles_options *consoles = &inst->options->consoles;
	const struct console_options *serial = &inst->options->serial;
	const struct machine *machine = vm_machine(inst->vm);
	bool shared = false;
	uint32_t n = 0;

	for (uint32_t i = 0; i < machine->ndevices; i++) {
		const struct console_options *console = &unnamed;

		if (strcmp(machine->devices[i].type, "virtio-console") != 0)
			continue;
		if (n < consoles->count)
			console = &consoles->consoles[n];
		n++;
		put_console("--console", console, to);
		shared |= console->kind == CONSOLE_STDIO;
	}
	/* What it is when nothing is said of it needn't be said. */
	if (serial->kind != (shared ? CONSOLE_NULL : CONSOLE_STDIO))
		put_console("--serial", serial, to);
}

static void put_disks(const struct instance *inst, FILE *to)
{
	const struct machine *machine = vm_machine(inst->vm);
	const char *lock_dir = disks_lock_dir(inst->disks);

	for (uint32_t i = 0; i < machine->ndevices; i++) {
		char *words = NULL;
		size_t size;
		FILE *disk = open_memstream(&words, &size);

		if (!disk)
			return;
		if (disks_put_words(inst->disks, &machine->devices[i], disk)) {
			fflush(disk);
			put_option(to, "--disk", words);
		}
		fclose(disk);
		free(words);
	}
	if (lock_dir)
		put_option(to, "--lock-dir", lock_dir);
}

static void put_nets(const struct instance *inst, FILE *to)
{
	const struct machine *machine = vm_machine(inst->vm);

	for (uint32_t i = 0; i < machine->ndevices; i++) {
		char *words = NULL;
		size_t size;
		FILE *net = open_memstream(&words, &size);

		if (!net)
			return;
		if (taps_put_words(inst->taps, &machine->devices[i], net)) {
			fflush(net);
			put_option(to, "--net", words);
		}
		fclose(net);
		free(words);
	}
}

static void put_line(const struct instance *inst, FILE *to)
{
	const struct machine *machine = vm_machine(inst->vm);

	fputs("godwit run", to);
	put_image(inst, to);
	if (machine->cmdline[0])
		put_option(to, "--cmdline", machine->cmdline);
	fprintf(to, " --cpus %u --memory %lluM", machine->cpus,
		(unsigned long long)(machine->memory_size / MIB));
	if (inst->options->hugepages)
		fputs(",hugepages", to);
	put_cpu(inst, to);
	put_disks(inst, to);
	put_nets(inst, to);
	if (!machine_find_type(machine, "virtio-rng"))
		put_option(to, "--rng", "off");
	if (!machine_find_type(machine, "virtio-balloon"))
		put_option(to, "--balloon", "off");
	if (inst->options->pause_on_panic)
		put_option(to, "--on-panic", "pause");
	put_consoles(inst, to);
	put_option(to, "--name", machine->name);
	if (inst->debug_exit)
		fputs(" --debug-exit", to);
}

static char *show(void *opaque, bool *ret_came_along)
{
	const struct instance *inst = opaque;
	char *line = NULL;
	size_t size;
	FILE *to;

	if (!inst->vm)
		return NULL;
	to = open_memstream(&line, &size);
	if (!to)
		return NULL;
	put_line(inst, to);
	fclose(to);
	*ret_came_along = !inst->kernel_path;
	return line;
}

static char *cpu(void *opaque)
{
	const struct instance *inst = opaque;

	if (!inst->vm)
		return NULL;
	return arch_cpu_facts(&vm_machine(inst->vm)->cpu_model, false);
}

const struct qmp_backend instance_backend = {
	.info = info,
	.stop = stop,
	.cont = cont,
	.powerdown = powerdown,
	.reset = reset,
	.quit = quit,
	.migrate = migrate,
	.cancel = cancel,
	.resolve = resolve,
	.params = params,
	.set_max_downtime = set_max_downtime,
	.set_bandwidth = set_bandwidth,
	.report = report,
	.disk = disk,
	.find_console = find_console,
	.resize_console = resize_console,
	.watch_console = watch_console,
	.balloon = balloon,
	.set_balloon = set_balloon,
	.show = show,
	.cpu = cpu,
};
