/* SPDX-License-Identifier: MIT */
/*
 * The thread that moves a guest away. It is made before the process is
 * sandboxed and parked until somebody asks for a move; after a move that failed
 * it parks again. The source engine (migration/source.h) runs on it.
 *
 * All functions belong to the loop's thread, and so do the callbacks but one.
 */
#ifndef GODWIT_MOVER_H
#define GODWIT_MOVER_H

#include "migration/source.h"

struct mover;

struct mover_env {
	struct loop *loop;
	const struct sandbox *sandbox;
	void (*on_status)(void *opaque, enum report_status status);
	/* On the moving thread, as the only one; see source_env. */
	void (*on_moved)(void *opaque);
	/* A round began, the first is 1; each is told, in order. */
	void (*on_pass)(void *opaque, uint32_t pass);
	/*
	 * A move is over. @rc: 0, the target runs the guest; -errno with
	 * @text, or SOURCE_REHEARSED, it is ours as before.
	 */
	void (*on_end)(void *opaque, int rc, const char *text);
	void *opaque;
};

/**
 * mover_create() - start the thread, parked.
 */
int __must_check mover_create(const struct mover_env *env, struct mover **ret,
			      struct error *err);

/**
 * mover_free() - end the thread, which is not moving anything, and free.
 */
void mover_free(struct mover *mover);

/**
 * mover_start() - move @vm.
 *
 * Return: 0, -EBUSY while a move is under way, or -errno; with @err.
 */
int __must_check mover_start(struct mover *mover, struct vm *vm,
			     const struct source_params *params,
			     struct error *err);

/**
 * mover_busy() - is a move under way?
 */
bool mover_busy(const struct mover *mover);

/**
 * mover_uncertain() - is the guest held until it is known who has it?
 */
bool mover_uncertain(const struct mover *mover);

/**
 * mover_cancel() - call the move off, if there is one.
 *
 * Return: 0, or -EPERM with @err: it is too late for that.
 */
int __must_check mover_cancel(struct mover *mover, struct error *err);

/**
 * mover_resolve() - the operator's word; see source_resolve().
 */
int __must_check mover_resolve(struct mover *mover, bool resume,
			       struct error *err);

/**
 * mover_set_max_downtime() / mover_set_bandwidth() - change a limit of the move
 * that is under way, if there is one.
 */
void mover_set_max_downtime(struct mover *mover, uint64_t ns);
void mover_set_bandwidth(struct mover *mover, uint64_t bytes_per_s);

/**
 * mover_report() - of the move under way or the last one.
 *
 * Return: false when there was none yet.
 */
bool mover_report(struct mover *mover, struct report *ret);

/**
 * mover_forget() - drop the last move and its report; before its VM is freed.
 */
void mover_forget(struct mover *mover);

#endif
