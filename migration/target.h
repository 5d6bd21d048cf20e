/* SPDX-License-Identifier: MIT */
/*
 * The target of a migration: takes one guest from a source, or leaves nothing
 * behind. Who may run the guest is decided by handoff.h's table.
 *
 * Two parts. The *door* (door.h) answers whoever connects: it hands a source
 * that says HELLO to the target and answers QUERY about sessions at any time,
 * also while a migration is under way and after. The *target* is one attempt:
 * target_run() takes one connection from HELLO to the end.
 *
 * Threads: target_run() belongs to one migration thread; target_query() comes
 * from the door's.
 */
#ifndef GODWIT_TARGET_H
#define GODWIT_TARGET_H

#include "migration/stream.h"
#include "vmm/vm.h"

struct target;

struct target_env {
	struct vm_host host;
	struct spares *spares; /* filled or not */
	bool paused;	       /* the guest stays paused after the move */
	/*
	 * The machine as the source of @session describes it, before it is
	 * built: refuse it (-errno and @err), or change its name to one that is
	 * free here. host.backends are asked for its disks next.
	 */
	int (*on_config)(void *opaque, struct wire_config *config,
			 const uint8_t session[WIRE_SESSION_SIZE],
			 struct error *err);
	/* The guest runs here, and the source has been told; take the VM. */
	void (*on_running)(void *opaque, struct vm *vm);
	void *opaque;
};

/**
 * target_create() - an attempt for the session that @hello names.
 */
int __must_check target_create(const struct target_env *env,
			       const struct wire_hello *hello,
			       struct target **ret, struct error *err);

/**
 * target_free() - forget the session, and unmake what is left of it: of an
 * attempt that was called off, or lost, before the guest was paused, the whole
 * machine, which can take a while. The VM that on_running() took lives on. Any
 * thread.
 */
void target_free(struct target *target);

/**
 * target_run() - receive the guest on @stream, from WELCOME on.
 *
 * Return: 0: the guest runs here (or is here, paused), on_running() has been
 * called, and the source knows or its connection is lost. -errno with @err:
 * there is no guest, and there will be none from this session; the source has
 * been told why, if it could be.
 */
int __must_check target_run(struct target *target, struct stream *stream,
			    struct error *err);

/**
 * target_cancel() - give the attempt up. Any thread; no effect once the guest
 * runs here.
 */
void target_cancel(struct target *target);

/**
 * target_query() - a source asks on another connection what became of @session.
 *
 * A session that is not committed is destroyed by the question; waits until
 * the answer is true.
 *
 * Return: the verdict; UNKNOWN when it is another session.
 */
enum wire_verdict_kind target_query(struct target *target,
				    const uint8_t session[WIRE_SESSION_SIZE]);

/**
 * target_done() - the source of @session has said that it knows.
 */
void target_done(struct target *target,
		 const uint8_t session[WIRE_SESSION_SIZE]);

/**
 * target_linger() - wait until the source knows, @deadline_ns, or
 * target_cancel(), whatever is first.
 */
void target_linger(struct target *target, uint64_t deadline_ns);

/**
 * target_rehearsed() - after target_run(): was the source on a dry run, and has
 * all gone well?
 */
bool target_rehearsed(const struct target *target);

/**
 * target_must_answer() - may the source of this session still have to ask?
 */
bool target_must_answer(struct target *target);

#endif
