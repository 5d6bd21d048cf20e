// SPDX-License-Identifier: MIT
/*
 * The life of a process that holds a VM; see instance.h.
 *
 * The end, step by step; each step happens once, in this order:
 *
 *   instance_finish()  the verdict; the guest is stopped for good
 *   wait_for_mover()   a move under way is called off, and must end
 *   tell_clients()     the last event; every client gets what it was sent
 *   loop_stop()
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/instance.h"
#include "vmm/log.h"
#include "vmm/vm_balloon.h"

#define EXIT_CRASHED	   3
#define EXIT_MOVED_DEBUG   124
#define EXIT_FAILURE_DEBUG 125

/* How long the end waits for a move to be over, and for slow clients. */
#define MOVER_PATIENCE	(5 * NS_PER_S)
#define CLIENT_PATIENCE (1 * NS_PER_S)

/* ---- the end ---- */

int instance_failure_status(bool debug_exit)
{
	return debug_exit ? EXIT_FAILURE_DEBUG : EXIT_FAILURE;
}

static int exit_status(const struct instance *inst)
{
	switch (inst->end) {
	case END_POWEROFF:
		return EXIT_SUCCESS;
	case END_EXIT:
		return inst->guest_status;
	case END_CRASHED:
		return EXIT_CRASHED;
	case END_QUIT:
		/* No verdict was given, and none may be made up. */
		return inst->debug_exit ? EXIT_FAILURE_DEBUG : EXIT_SUCCESS;
	case END_MOVED:
		return inst->debug_exit ? EXIT_MOVED_DEBUG : EXIT_SUCCESS;
	case END_NOT_YET:
	case END_FAILED:
		break;
	}
	return instance_failure_status(inst->debug_exit);
}

static void stop_when_served(void *opaque)
{
	struct instance *inst = opaque;

	if (control_served(inst->control) && consoles_served(inst->consoles))
		loop_stop(inst->loop);
}

static void tell_clients(struct instance *inst)
{
	json_t *data;

	if (inst->end == END_MOVED) {
		control_expect_end(inst->control);
	} else {
		data = json_pack("{s:b,s:s,s:i,s:s}", "guest",
				 !strncmp(inst->end_reason, "guest", 5),
				 "reason", inst->end_reason,
				 "x-godwit-exit-status", exit_status(inst),
				 "x-godwit-why", inst->end_why);
		control_event(inst->control, "SHUTDOWN", data);
	}
	loop_timer_arm(inst->patience, clock_ns() + CLIENT_PATIENCE);
	control_on_served(inst->control, stop_when_served);
	consoles_on_served(inst->consoles, stop_when_served, inst);
	stop_when_served(inst);
}

static void wait_for_mover(struct instance *inst)
{
	struct error err;

	if (!mover_busy(inst->mover)) {
		tell_clients(inst);
		return;
	}
	/* Too late to call it off: then it is nearly over, or uncertain. */
	(void)!mover_cancel(inst->mover, &err);
	loop_timer_arm(
		inst->patience,
		clock_ns() +
			(mover_uncertain(inst->mover) ? 0 : MOVER_PATIENCE) +
			1);
}

static void on_patience_end(void *opaque)
{
	struct instance *inst = opaque;

	if (mover_busy(inst->mover)) {
		log_error("ends while it is not known who has the guest: it "
			  "may run at %s; type `godwit list` there",
			  inst->moved_to);
		inst->abandoned = true;
		inst->end = END_FAILED;
	}
	loop_stop(inst->loop);
}

void instance_finish(struct instance *inst, enum instance_end end,
		     const char *reason, const char *why, ...)
{
	bool bad = end == END_CRASHED || end == END_FAILED;
	va_list ap;

	if (inst->end != END_NOT_YET)
		return;
	inst->end = end;
	inst->end_reason = reason;
	va_start(ap, why);
	vsnprintf(inst->end_why, sizeof(inst->end_why), why, ap);
	va_end(ap);
	text_make_plain(inst->end_why);
	if (inst->vm)
		vm_hold(inst->vm, VM_HOLD_ENDED);
	consoles_restore(inst->consoles);
	log_line(bad ? LOG_ERROR : LOG_NOTICE, "%s", inst->end_why);
	wait_for_mover(inst);
}

/* ---- what happens to the VM ---- */

static json_t *reset_data(struct instance *inst)
{
	bool user = inst->user_reset;

	inst->user_reset = false;
	return json_pack("{s:b,s:s}", "guest", !user, "reason",
			 user ? "host-qmp-system-reset" : "guest-reset");
}

/* Texts of devices begin with "ID: ". */
static json_t *io_error_data(const char *text)
{
	size_t len = strcspn(text, ":");

	return json_pack("{s:s%,s:s,s:s,s:s}", "device", text, len, "operation",
			 "write", "action", "stop", "reason", text);
}

/* The text may have come with the guest, from anybody. */
static void note_paused_by(struct instance *inst, const char *text)
{
	snprintf(inst->paused_by, sizeof(inst->paused_by), "%s", text);
	for (char *c = inst->paused_by; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
}

static void on_crash(struct instance *inst, const char *text, bool pause)
{
	control_event(
		inst->control, "GUEST_PANICKED",
		json_pack("{s:s}", "action", pause ? "pause" : "poweroff"));
	if (!pause) {
		instance_finish(inst, END_CRASHED, "guest-panic",
				"the guest crashed: %s", text);
		return;
	}
	consoles_end_row(inst->consoles);
	log_error("the guest crashed: %s; it is paused, as --on-panic says",
		  text);
	inst->panicked = true;
	note_paused_by(inst, text);
}

static void tell_balloon(struct instance *inst)
{
	struct balloon_info info;

	if (inst->vm && vm_balloon_look(inst->vm, &info))
		control_event(
			inst->control, "BALLOON_CHANGE",
			json_pack("{s:I}", "actual", (json_int_t)info.actual));
}

static void on_vm_event(void *opaque, enum vm_event event, uint8_t status,
			const char *text)
{
	struct instance *inst = opaque;

	switch (event) {
	case VM_EVENT_STOP:
		control_event(inst->control, "STOP", NULL);
		break;
	case VM_EVENT_IO_ERROR:
		inst->io_error = true;
		note_paused_by(inst, text);
		consoles_end_row(inst->consoles);
		log_error("the guest is paused: %s", text);
		control_event(inst->control, "BLOCK_IO_ERROR",
			      io_error_data(text));
		break;
	case VM_EVENT_RESUME:
		inst->io_error = false;
		inst->panicked = false;
		note_paused_by(inst, "");
		control_event(inst->control, "RESUME", NULL);
		break;
	case VM_EVENT_BALLOON:
		tell_balloon(inst);
		break;
	case VM_EVENT_RESET:
		control_event(inst->control, "RESET", reset_data(inst));
		break;
	case VM_EVENT_POWEROFF:
		instance_finish(inst, END_POWEROFF, "guest-shutdown",
				"the guest switched itself off");
		break;
	case VM_EVENT_EXIT:
		inst->guest_status = status;
		instance_finish(inst, END_EXIT, "guest-shutdown",
				"the guest ended itself with status %u",
				status);
		break;
	case VM_EVENT_CRASHED:
		on_crash(inst, text, false);
		break;
	case VM_EVENT_PANICKED:
		on_crash(inst, text, true);
		break;
	case VM_EVENT_FAILED:
		instance_finish(inst, END_FAILED, "host-error",
				"the guest can't go on: %s", text);
		break;
	}
}

struct vm_host instance_vm_host(struct instance *inst)
{
	return (struct vm_host){
		.kvm = &inst->kvm,
		.loop = inst->loop,
		.sandbox = inst->sandbox,
		.backends = disks_backends(inst->disks),
		.hugepages = inst->options->hugepages ? &inst->hugepages : NULL,
		.taps = taps_backends(inst->taps),
		.lines = consoles_lines(inst->consoles),
		.pause_on_crash = inst->options->pause_on_panic,
		.on_event = on_vm_event,
		.opaque = inst,
	};
}

void instance_adopt(struct instance *inst, struct vm *vm)
{
	const struct machine *machine = vm_machine(vm);

	inst->vm = vm;
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		if (!strcmp(machine->devices[i].type, "debug-exit"))
			inst->debug_exit = true;
	}
	/* It may have ended before we had it in hand. */
	if (inst->end != END_NOT_YET)
		vm_hold(vm, VM_HOLD_ENDED);
}

/* ---- what happens to a move ---- */

static void on_move_status(void *opaque, enum report_status status)
{
	struct instance *inst = opaque;
	struct report report;
	json_t *data = json_pack("{s:s}", "status", report_status_name(status));

	/* The last word carries the whole story, so nobody has to ask. */
	if (report_status_ended(status) && mover_report(inst->mover, &report))
		json_object_set_new(data, "x-godwit-report",
				    report_json(&report));
	control_event(inst->control, "MIGRATION", data);
}

/*
 * The guest's name is free for it where it runs now, if that is on this host.
 * The loop's thread has no business with the name while a move is under way.
 */
static void on_moved(void *opaque)
{
	struct instance *inst = opaque;

	rundir_unclaim(&inst->dir, &inst->socket);
}

static void on_move_pass(void *opaque, uint32_t pass)
{
	struct instance *inst = opaque;

	control_event(inst->control, "MIGRATION_PASS",
		      json_pack("{s:I}", "pass", (json_int_t)pass));
}

static void say_moved(struct instance *inst)
{
	struct report report;
	char over[80] = "";

	if (!mover_report(inst->mover, &report))
		return;
	consoles_restore(inst->consoles);
	if (report_over_ns(&report))
		snprintf(over, sizeof(over),
			 ", %.3f ms longer than the %.3f ms allowed",
			 (double)report_over_ns(&report) / 1e6,
			 (double)report.max_downtime_ns / 1e6);
	log_warn("moved to %s: paused for %.3f ms%s, %.1f ms in all",
		 inst->moved_to, (double)report.downtime_ns / 1e6, over,
		 (double)report.total_ns / 1e6);
	if (inst->options->verbosity || inst->wants_report)
		report_print(&report, stderr);
}

static void on_move_end(void *opaque, int rc, const char *text)
{
	struct instance *inst = opaque;
	struct report report = { 0 };

	(void)mover_report(inst->mover, &report);
	consoles_end_row(inst->consoles);
	if (rc == SOURCE_REHEARSED)
		log_info("rehearsed a move to %s", inst->moved_to);
	else if (rc)
		log_warn("%s to %s: %s; the guest %s",
			 report.dry_run ? "dry run given up" : "not moved",
			 inst->moved_to, text,
			 inst->end == END_NOT_YET ? "is here as before"
						  : "has ended here");
	else
		say_moved(inst);
	if (!rc && inst->end == END_NOT_YET)
		inst->end = END_MOVED;
	if (inst->end != END_NOT_YET)
		tell_clients(inst);
}

int instance_migrate(struct instance *inst, const struct source_params *params,
		     struct error *err)
{
	int rc;

	if (!inst->vm)
		return error_set(err, -ENOENT, "there is no guest yet");
	if (inst->end != END_NOT_YET)
		return error_set(err, -ESHUTDOWN, "the guest has ended");
	rc = mover_start(inst->mover, inst->vm, params, err);
	if (!rc)
		snprintf(inst->moved_to, sizeof(inst->moved_to), "%s",
			 params->to.text);
	return rc;
}

/* ---- signals ---- */

/* The kernel itself sends one when the terminal hangs up, or for Ctrl-C. */
static void finish_by_signal(struct instance *inst,
			     const struct signalfd_siginfo *info)
{
	char sender[32] = "its terminal";

	if (info->ssi_code <= 0 && info->ssi_pid)
		snprintf(sender, sizeof(sender), "process %u", info->ssi_pid);
	else if (info->ssi_code <= 0)
		snprintf(sender, sizeof(sender), "outside of its container");
	instance_finish(inst, END_QUIT, "host-signal", "ended by SIG%s from %s",
			sigabbrev_np((int)info->ssi_signo), sender);
}

static void on_signal(void *opaque, uint32_t events __maybe_unused)
{
	struct instance *inst = opaque;
	struct signalfd_siginfo info;

	if (read(inst->signal_fd, &info, sizeof(info)) < 0)
		return;
	if (info.ssi_signo == SIGWINCH) {
		consoles_look_at_size(inst->consoles);
		return;
	}
	if (inst->end != END_NOT_YET) {
		/* Asked twice: wait for nobody. */
		on_patience_end(inst);
		return;
	}
	finish_by_signal(inst, &info);
}

static int open_signals(struct instance *inst, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	/* Whoever writes looks at what write() says. */
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	log_begin();
	vcpu_signals_init();
	inst->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (inst->signal_fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	return loop_fd_add(inst->loop, inst->signal_fd, EPOLLIN, on_signal,
			   inst, NULL, &inst->signal_watch, err);
}

/* ---- opening ---- */

static void on_leave(void *opaque)
{
	instance_finish(opaque, END_QUIT, "host-ui",
			"ended at its console, by Ctrl-A x");
}

static int open_control(struct instance *inst, const char *name,
			struct error *err)
{
	int rc = rundir_open(true, &inst->dir, err);

	if (!rc)
		rc = rundir_listen(&inst->dir, &inst->socket, err);
	if (!rc && name)
		rc = rundir_claim(&inst->dir, &inst->socket, name, err);
	if (!rc)
		rc = control_create(inst->loop, inst->socket.fd,
				    &instance_backend, inst, &inst->control,
				    err);
	return rc;
}

void instance_init(struct instance *inst)
{
	*inst = (struct instance){
		.kvm.fd = -1,
		.signal_fd = -1,
		.dir.fd = -1,
		.socket.fd = -1,
		.params = source_params_default,
	};
	hugepages_init(&inst->hugepages);
}

int instance_open(struct instance *inst, const struct process_options *options,
		  const char *name, struct error *err)
{
	int rc;

	inst->options = options;
	/* The seed of its hash tables comes from a file, opened when first
	 * needed: now, while files can be opened. */
	json_object_seed(0);
	rc = loop_create(&inst->loop, err);
	if (!rc)
		rc = loop_timer_add(inst->loop, on_patience_end, inst, NULL,
				    &inst->patience, err);
	if (!rc)
		rc = open_signals(inst, err);
	if (!rc)
		rc = kvm_open(&inst->kvm, err);
	if (!rc && options->hugepages)
		rc = hugepages_open(&inst->hugepages, err);
	if (!rc)
		rc = spares_create(&inst->kvm, &inst->spares, err);
	if (!rc)
		rc = open_control(inst, name, err);
	if (!rc)
		rc = consoles_open(options, inst->loop, on_leave, inst,
				   &inst->consoles, err);
	return rc;
}

int instance_confine(struct instance *inst, struct error *err)
{
	const int *roots;
	size_t nroots;
	int rc;

	if (!inst->options->sandbox)
		return 0;
	roots = disks_roots(inst->disks, &nroots);
	rc = sandbox_create(roots, nroots, &inst->sandbox, err);
	if (!rc)
		rc = sandbox_drop(inst->sandbox, err);
	return rc;
}

int instance_start(struct instance *inst, struct error *err)
{
	struct mover_env env = {
		.loop = inst->loop,
		.sandbox = inst->sandbox,
		.on_status = on_move_status,
		.on_moved = on_moved,
		.on_pass = on_move_pass,
		.on_end = on_move_end,
		.opaque = inst,
	};

	return mover_create(&env, &inst->mover, err);
}

/* ---- running and closing ---- */

int instance_run(struct instance *inst, loop_fn *ready, void *opaque,
		 struct error *err)
{
	if (inst->sandbox && sandbox_enter(inst->sandbox, THREAD_LOOP, err)) {
		log_error("%s", err->text);
		return instance_failure_status(inst->debug_exit);
	}
	ready(opaque);
	loop_run(inst->loop);
	return exit_status(inst);
}

void instance_close(struct instance *inst, int status)
{
	consoles_restore(inst->consoles);
	control_free(inst->control);
	rundir_remove(&inst->dir, &inst->socket);
	if (inst->abandoned)
		_exit(status);
	mover_free(inst->mover);
	vm_free(inst->vm);
	disks_free(inst->disks);
	taps_free(inst->taps);
	consoles_free(inst->consoles);
	rundir_close(&inst->dir);
	spares_free(inst->spares);
	hugepages_close(&inst->hugepages);
	kvm_close(&inst->kvm);
	loop_timer_remove(inst->patience);
	loop_fd_remove(inst->signal_watch);
	close_fd(&inst->signal_fd);
	loop_free(inst->loop);
	sandbox_free(inst->sandbox);
}
