// SPDX-License-Identifier: MIT
/*
 * `godwit run`: from a command line to a running guest; see run.h. The order of
 * things is instance.h's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/instance.h"
#include "vmm/log.h"
#include "vmm/run.h"

struct run {
	struct instance inst;
	const struct run_options *options;
	struct vm_image image; /* until it is the VM's */
	char *kernel_path;
	char *initrd_path;
	struct machine machine;
	struct address migrate_to; /* resolved */
	struct loop_timer *migrate_timer;
};

static int open_file(const char *option, const char *path, int *ret_fd,
		     uint64_t *ret_size, struct error *err)
{
	struct stat st;
	/* Nobody may ever write to what turns out to be a pipe. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return error_set(err, -errno, "%s %s: %s", option, path,
				 strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return error_set(err, -EINVAL, "%s %s: not a regular file",
				 option, path);
	}
	if (!st.st_size) {
		close(fd);
		return error_set(err, -EINVAL, "%s %s: the file is empty",
				 option, path);
	}
	*ret_fd = fd;
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

static int open_image(struct run *run, struct error *err)
{
	const struct run_options *options = run->options;
	struct vm_image *image = &run->image;
	int rc = open_file("--kernel", options->kernel, &image->kernel_fd,
			   &image->kernel_size, err);

	if (rc)
		return rc;
	run->kernel_path = realpath(options->kernel, NULL);
	if (!options->initrd)
		return 0;
	run->initrd_path = realpath(options->initrd, NULL);
	return open_file("--initrd", options->initrd, &image->initrd_fd,
			 &image->initrd_size, err);
}

static int choose_cpu(struct run *run, struct error *err)
{
	struct machine *machine = &run->machine;
	int rc = spares_cpu_model(run->inst.spares, run->options->cpu,
				  machine->cpus, &machine->cpu_model, err);

	if (rc)
		error_prefix(err, "--cpu %.100s", run->options->cpu);
	return rc;
}

static int describe_machine(struct run *run, const char *name,
			    struct error *err)
{
	static const struct device_config debug_exit = { .type = "debug-exit",
							 .id = "debug-exit0" };
	const struct run_options *options = run->options;
	struct machine *machine = &run->machine;
	int rc;

	machine_init(machine);
	strcpy(machine->name, name);
	machine->cpus = options->cpus;
	machine->memory_size = options->memory;
	strcpy(machine->cmdline, options->cmdline);
	if (!options->rng)
		machine_remove_device(machine, "rng0");
	if (!options->balloon)
		machine_remove_device(machine, "balloon0");
	rc = disks_add_devices(run->inst.disks, machine, err);
	if (!rc)
		rc = taps_add_devices(run->inst.taps, machine, err);
	if (!rc)
		rc = consoles_add_devices(&options->process.consoles, machine,
					  err);
	if (!rc && options->debug_exit)
		rc = machine_add_device(machine, &debug_exit, err);
	if (!rc)
		rc = choose_cpu(run, err);
	return rc;
}

static int make_vm(struct run *run, struct error *err)
{
	struct vm_host host = instance_vm_host(&run->inst);
	struct vm *vm;
	int rc = vm_create(&run->machine, &host, run->inst.spares, &vm, err);

	if (rc)
		return rc;
	vm_set_image(vm, &run->image);
	run->image = (struct vm_image){ .kernel_fd = -1, .initrd_fd = -1 };
	/* By whole paths: whoever repeats the line may be elsewhere. */
	run->inst.kernel_path = run->kernel_path;
	run->inst.cpu_name = run->options->cpu;
	run->inst.initrd_path = run->initrd_path;
	instance_adopt(&run->inst, vm);
	rc = vm_boot(vm, err);
	if (rc)
		error_prefix(err, "%s", run->options->kernel);
	return rc;
}

/* ---- --migrate-to ---- */

static void migrate_now(void *opaque)
{
	struct run *run = opaque;
	struct source_params params = run->inst.params;
	struct error err;

	params.to = run->migrate_to;
	if (run->options->migrate_downtime_ns)
		params.max_downtime_ns = run->options->migrate_downtime_ns;
	run->inst.wants_report = true;
	if (instance_migrate(&run->inst, &params, &err))
		log_error("--migrate-to %s: %s", run->migrate_to.text,
			  err.text);
}

static int prepare_migration(struct run *run, struct error *err)
{
	int rc;

	if (!run->options->migrates)
		return 0;
	run->migrate_to = run->options->migrate_to;
	/* Names are looked up now: later it can't be done. */
	rc = address_check(&run->migrate_to, err);
	if (!rc)
		rc = address_resolve(&run->migrate_to, err);
	if (rc) {
		error_prefix(err, "--migrate-to");
		return rc;
	}
	return loop_timer_add(run->inst.loop, migrate_now, run, NULL,
			      &run->migrate_timer, err);
}

/* ---- the whole ---- */

static int prepare(struct run *run, struct error *err)
{
	const struct run_options *options = run->options;
	const char *name = options->process.name;
	char by_pid[MACHINE_NAME_MAX];
	int rc;

	snprintf(by_pid, sizeof(by_pid), "vm-%d", getpid());
	if (!name)
		name = by_pid;
	/* Before all else: see taps.h. */
	rc = taps_open(&options->process.taps, false, options->process.sandbox,
		       &run->inst.taps, err);
	if (!rc)
		rc = open_image(run, err);
	if (!rc)
		rc = disks_open(&options->process.disks, false,
				&run->inst.disks, err);
	if (!rc)
		rc = instance_open(&run->inst, &options->process, name, err);
	if (!rc)
		rc = prepare_migration(run, err);
	if (!rc)
		rc = describe_machine(run, name, err);
	if (!rc)
		rc = instance_confine(&run->inst, err);
	if (!rc)
		rc = make_vm(run, err);
	if (!rc)
		rc = instance_start(&run->inst, err);
	return rc;
}

static void on_ready(void *opaque)
{
	struct run *run = opaque;

	if (run->migrate_timer)
		loop_timer_arm(run->migrate_timer,
			       clock_ns() + run->options->migrate_after_ns);
	vm_release(run->inst.vm, VM_HOLD_BIRTH);
}

int run_command(const struct run_options *options)
{
	struct run *run = calloc(1, sizeof(*run));
	struct error err;
	int status = instance_failure_status(options->debug_exit);

	if (!run) {
		log_error("out of memory");
		return status;
	}
	run->options = options;
	run->image = (struct vm_image){ .kernel_fd = -1, .initrd_fd = -1 };
	instance_init(&run->inst);
	if (prepare(run, &err)) {
		consoles_restore(run->inst.consoles);
		log_error("%s", err.text);
	} else {
		status = instance_run(&run->inst, on_ready, run, &err);
	}
	loop_timer_remove(run->migrate_timer);
	instance_close(&run->inst, status);
	close_fd(&run->image.kernel_fd);
	close_fd(&run->image.initrd_fd);
	free(run->kernel_path);
	free(run->initrd_path);
	free(run);
	return status;
}
