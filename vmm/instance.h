/* SPDX-License-Identifier: MIT */
/*
 * The process that holds one VM: everything around it that `run` and `listen`
 * have in common, and the process's life from its first to its last word.
 *
 * Start-up, in an order that is the sandbox's:
 *
 *   instance_open()    whatever is opened: KVM, loop, control socket, console
 *   instance_confine() the filters are compiled, capabilities dropped
 *   (the VM, or the listener's threads, are made)
 *   instance_start()   the moving thread
 *   instance_run()     the loop's thread enters its filter; the guest runs
 *
 * The end comes once, as an enum instance_end, from the guest, the user or a
 * finished move. Then the guest is stopped for good, a move that is still under
 * way is called off, clients are told and get what they were sent, and the loop
 * stops. Each of these waits is bounded. The one thing that can't be waited for
 * is a target that doesn't say whether it has the guest: then the process goes
 * without its moving thread, and says so.
 *
 * Threads: all on the loop's thread, which is the process's main one.
 */
#ifndef GODWIT_INSTANCE_H
#define GODWIT_INSTANCE_H

#include "vmm/consoles.h"
#include "vmm/control.h"
#include "vmm/disks.h"
#include "vmm/mover.h"
#include "vmm/rundir.h"
#include "vmm/taps.h"

enum instance_end {
	END_NOT_YET,
	END_POWEROFF, /* the guest switched itself off */
	END_EXIT,     /* --debug-exit, with the guest's byte */
	END_CRASHED,
	END_QUIT,   /* Ctrl-A x, a signal, `godwit kill` */
	END_MOVED,  /* it runs elsewhere now */
	END_FAILED, /* godwit can't go on */
};

struct instance {
	const struct process_options *options;
	struct kvm kvm;
	struct spares *spares;	    /* of whoever makes a VM here */
	struct hugepages hugepages; /* open if guest memory is made of them */
	struct loop *loop;
	struct sandbox *sandbox; /* NULL with --no-sandbox */
	int signal_fd;
	struct loop_fd *signal_watch;
	struct loop_timer *patience; /* of the end */
	struct rundir dir;
	struct rundir_socket socket;
	struct control *control;
	struct consoles *consoles;
	struct disks *disks; /* opened by `run` and `listen` */
	struct taps *taps;   /* likewise */
	struct mover *mover;
	struct vm *vm;		     /* NULL: none yet, or none any more */
	struct source_params params; /* that a migration starts with */

	/* For `show`; NULL when there is none or it came with the guest. */
	char *kernel_path;
	char *initrd_path;
	const char *cpu_name; /* as --cpu has it */

	bool debug_exit;     /* exit statuses are the guest's */
	bool wants_report;   /* print what a move cost, without -v too */
	bool panicked;	     /* paused because the guest crashed */
	bool io_error;	     /* paused because a device asked for it */
	char paused_by[160]; /* why, in both cases; else "" */
	bool user_reset;     /* the next reset is not the guest's idea */
	enum instance_end end;
	uint8_t guest_status;	/* END_EXIT */
	const char *end_reason; /* QEMU's ShutdownCause */
	char end_why[256];	/* the same for people, and who it was */
	pid_t quit_by;		/* who has asked for it at the control socket */
	bool abandoned;		/* the moving thread is left behind */
	char moved_to[ADDRESS_TEXT_MAX];
	char came_by[WIRE_SESSION_TEXT]; /* the session of its last move; "" */
};

/**
 * instance_init() - nothing is open yet; instance_close() may follow.
 */
void instance_init(struct instance *inst);

/**
 * instance_open() - open everything that both commands need.
 * @name: claimed at once; NULL: the socket stays hidden until
 *        instance_claim().
 *
 * Return: 0 or -errno with @err.
 */
int __must_check instance_open(struct instance *inst,
			       const struct process_options *options,
			       const char *name, struct error *err);

/**
 * instance_confine() - compile filters, give up capabilities.
 */
int __must_check instance_confine(struct instance *inst, struct error *err);

/**
 * instance_start() - start the moving thread, parked.
 */
int __must_check instance_start(struct instance *inst, struct error *err);

/**
 * instance_vm_host() - what vm_create() wants to know of this process.
 */
struct vm_host instance_vm_host(struct instance *inst);

/**
 * instance_adopt() - @vm is this instance's VM from here on.
 */
void instance_adopt(struct instance *inst, struct vm *vm);

/**
 * instance_migrate() - begin to move the guest.
 */
int __must_check instance_migrate(struct instance *inst,
				  const struct source_params *params,
				  struct error *err);

/**
 * instance_run() - enter the loop thread's filter, call @ready, run the loop
 * to the end.
 *
 * Return: the process's exit status.
 */
int instance_run(struct instance *inst, loop_fn *ready, void *opaque,
		 struct error *err);

/**
 * instance_finish() - the end has come, unless it had before.
 * @reason: QEMU's ShutdownCause.
 * @why: for people, and who it was; printf's. Said in the log and to clients.
 */
void instance_finish(struct instance *inst, enum instance_end end,
		     const char *reason, const char *why, ...) __printf(4, 5);

/**
 * instance_failure_status() - the exit status for "godwit could not".
 */
int instance_failure_status(bool debug_exit);

/**
 * instance_close() - free and close all, in any state; the terminal is itself
 * again. Doesn't return when the moving thread had to be left behind.
 * @status: the exit status in that case.
 */
void instance_close(struct instance *inst, int status);

/* ---- instance_control.c ---- */

extern const struct qmp_backend instance_backend;

/**
 * instance_status() - QEMU's word for the state the VM is in.
 */
const char *instance_status(const struct instance *inst);

#endif
