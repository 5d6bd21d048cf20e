/* SPDX-License-Identifier: MIT */
/*
 * The cage. After start-up, and before the first guest instruction or peer
 * byte is acted on, the process has no capabilities and no_new_privs, and
 * each thread has the seccomp filter of its kind: what that kind of thread
 * needs and nothing else, ioctl numbers pinned. A forbidden call kills the
 * process and is named in the host's audit log.
 *
 * Threads are started by thread_start(), which installs the filter as the
 * thread's first act. Filters add up: a thread inherits its creator's filter,
 * so whoever creates threads allows what they allow: after the loop's thread
 * has entered its filter, only migration threads create threads, and theirs
 * covers all kinds but the loop's.
 *
 * A migration thread opens no file either, unless the user has named
 * directories below which it may: then it may open what is there, and where the
 * kernel has Landlock the whole process can open nothing else.
 *
 * The order at start-up: open everything; sandbox_create() (in the process
 * that will run the guest: signals are pinned to its pid); sandbox_drop();
 * start threads; sandbox_enter(THREAD_LOOP) on the main thread.
 */
#ifndef GODWIT_SANDBOX_H
#define GODWIT_SANDBOX_H

#include <pthread.h>
#include <signal.h>

#include "vmm/error.h"

/* Interrupts KVM_RUN; the one signal that threads don't block. */
#define VCPU_KICK_SIGNAL SIGUSR1

enum thread_kind {
	THREAD_LOOP,
	THREAD_VCPU,
	THREAD_IO, /* a disk's or a network card's */
	THREAD_MIGRATION,
	THREAD_KINDS,
};

struct sandbox;

/**
 * sandbox_create() - compile the filters of all kinds.
 * @dirs: descriptors of the directories below which migration threads may open
 * files with openat2(); they stay the caller's, until after sandbox_drop().
 *
 * Return: 0 or -errno.
 */
int __must_check sandbox_create(const int *dirs, size_t ndirs,
				struct sandbox **ret, struct error *err);

void sandbox_free(struct sandbox *sandbox);

/**
 * sandbox_drop() - give up every capability and set no_new_privs, and confine
 * opening to the directories; for the whole process, before other threads
 * exist.
 */
int __must_check sandbox_drop(struct sandbox *sandbox, struct error *err);

/**
 * sandbox_give_up() - the first two of these, for a process that is no VM's.
 */
int __must_check sandbox_give_up(struct error *err);

/**
 * sandbox_confine_opening() - the last one: from now on the process opens what
 * is below @dirs and nothing else, and only if @writing to write to it. Needs
 * no_new_privs.
 *
 * Return: 0, -ENOSYS when this kernel has no Landlock, or -errno.
 */
int __must_check sandbox_confine_opening(const int *dirs, size_t ndirs,
					 bool writing, struct error *err);

/**
 * sandbox_enter() - install the filter of @kind on the calling thread.
 */
int __must_check sandbox_enter(const struct sandbox *sandbox,
			       enum thread_kind kind, struct error *err);

/**
 * thread_start() - create a thread that enters its filter, then runs @fn.
 * @sandbox: NULL for none (tests that run many VMs in one process).
 * @name: at most 15 bytes, shown by ps and gdb.
 *
 * Signals are blocked in the new thread, except the vCPU kick.
 *
 * Return: 0 or -errno. A thread that can't enter its filter ends the process.
 */
int __must_check thread_start(const struct sandbox *sandbox,
			      enum thread_kind kind, const char *name,
			      void *(*fn)(void *), void *arg,
			      pthread_t *ret_thread, struct error *err);

#endif
