/* SPDX-License-Identifier: MIT */
/*
 * The inside of a source, for source*.c and precopy.c only.
 */
#ifndef GODWIT_SOURCE_INTERNAL_H
#define GODWIT_SOURCE_INTERNAL_H

#include <stdatomic.h>

#include "migration/blame.h"
#include "migration/digest.h"
#include "migration/dirty.h"
#include "migration/handoff.h"
#include "migration/pacing.h"
#include "migration/pages.h"
#include "migration/source.h"
#include "migration/stream.h"
#include "vmm/vm_balloon.h"
#include "vmm/vm_state.h"

#define SOURCE_GOODBYE_PATIENCE (1 * NS_PER_S)

struct source {
	struct source_env env;
	struct source_params params;
	struct vm *vm;
	uint8_t session[WIRE_SESSION_SIZE];
	int interrupt_fd; /* eventfd: cancel, or the operator's word */

	/* the migration thread's own */
	struct stream *stream;
	struct page_sender *sender;
	struct dirty *dirty;
	struct digest *digest; /* NULL: nothing is to be verified */
	struct vm_state *vm_state;
	struct pacing pacing;
	struct blame blame; /* whom to slow down */
	uint64_t state_deadline_ns;
	uint64_t phase_start_ns;
	uint64_t deadline_ns; /* before the pause; STREAM_NO_DEADLINE */
	uint64_t grace_ns;    /* of who answers, even after that */
	uint64_t pause_ns;    /* when the pause began */
	uint64_t abort_ns;    /* when it is called off */
	bool let_go;	      /* env.on_moved() has been called */
	bool nacked; /* the target has said that it never ran the guest */
	bool forced; /* switched over at the timeout, whatever it costs */

	_Atomic uint64_t max_downtime_ns;
	_Atomic uint64_t bandwidth_cap; /* bytes a second; 0: none */

	pthread_mutex_t lock; /* of what follows */
	enum source_state state;
	bool cancel_wanted;
	bool resolved; /* by the operator */
	struct report report;
};

/**
 * source_patience() - the deadline of a step in which the peer's answer, or
 * its taking what we send, is due: never later than the user's timeout.
 */
uint64_t source_patience(const struct source *s);

/**
 * source_step() - let @event happen.
 *
 * Return: 0, or -errno when it can't in the state that it is in.
 */
int __must_check source_step(struct source *s, enum source_event event);

/**
 * source_state_now() - as it is, or was a moment ago.
 */
enum source_state source_state_now(struct source *s);

/**
 * source_set_status() - for the report, and for who wants to be told.
 */
void source_set_status(struct source *s, enum report_status status);

/**
 * source_abort() - the pause has got too long for the user.
 * @what: was not done in time.
 *
 * Return: STREAM_DEADLINE, with @err.
 */
int __must_check source_abort(const struct source *s, const char *what,
			      struct error *err);

/**
 * source_enter_phase() - the phase before ends here.
 */
void source_enter_phase(struct source *s, enum report_phase phase);

/**
 * source_expect() - receive a record of @type; REFUSE becomes an error with
 * the target's own words.
 */
int __must_check source_expect(struct source *s, enum wire_type type,
			       struct record *ret, uint64_t deadline_ns,
			       struct error *err);

/**
 * source_fill_hello() - HELLO, or QUERY, of this session.
 */
void source_fill_hello(const struct source *s, struct wire_hello *hello);

/**
 * source_connect() - a new connection to the target.
 */
int __must_check source_connect(struct source *s, uint64_t deadline_ns,
				struct stream **ret, struct error *err);

/**
 * source_send_sections() - the sections of the last save or peek.
 */
int __must_check source_send_sections(struct source *s, uint64_t deadline_ns,
				      struct error *err);

/**
 * source_send_state_end() - STATE_END, behind them.
 */
int __must_check source_send_state_end(struct source *s, uint64_t deadline_ns,
				       struct error *err);

/**
 * source_verify() - send the digests of memory and of the state that was sent,
 * and wait until the target has compared them with its own.
 *
 * The guest stands still. What this takes doesn't count for the default of
 * --abort-after.
 */
int __must_check source_verify(struct source *s, struct error *err);

/**
 * source_set_up() - HELLO to REHEARSED; notes costs in s->pacing.
 */
int __must_check source_set_up(struct source *s, struct error *err);

/**
 * source_measure() - note what stopping, saving and a round trip cost now;
 * the guest runs on.
 */
int __must_check source_measure(struct source *s, struct error *err);

/**
 * source_settle() - have disks flushed, and note what the last flush took, if
 * one has ended; the guest runs on, nothing is waited for.
 */
void source_settle(struct source *s);

/**
 * source_drain() - wait until the target has taken all that was sent (PING,
 * PONG).
 */
int __must_check source_drain(struct source *s, struct error *err);

/**
 * precopy_run() - ROUNDS: send memory while the guest runs, until the pause is
 * predicted to be short enough.
 *
 * Return: 0: switch over now. -errno: give up.
 */
int __must_check precopy_run(struct source *s, struct error *err);

/**
 * precopy_rehearse() - ROUNDS of a dry run: two, and more only while disks are
 * being flushed. Nobody is slowed.
 *
 * Return: 0: s->pacing knows what there is to know. -errno: give up.
 */
int __must_check precopy_rehearse(struct source *s, struct error *err);

/**
 * source_pause() - stop the guest and bring the target to LOADED.
 */
int __must_check source_pause(struct source *s, struct error *err);

/**
 * source_commit() - the point of no return. A cancel that was granted comes
 * first.
 */
int __must_check source_commit(struct source *s, struct error *err);

/**
 * source_hand_over() - COMMIT has been decided on: send it. Whatever fails is
 * LOST, never FAIL; s->state says how it is. @err: set when it was NACKed.
 */
void source_hand_over(struct source *s, struct error *err);

/**
 * source_ask() - ask until s->state is ASKING no more.
 */
void source_ask(struct source *s);

/**
 * source_let_go() - the guest has moved for good: tell env.on_moved, once.
 */
void source_let_go(struct source *s);

/**
 * source_send_done() - we know what became of the session; the target may
 * forget it.
 */
void source_send_done(struct stream *stream);

/**
 * source_forecast() - note in the report what a move would have cost, as
 * s->pacing has it now.
 */
void source_forecast(struct source *s);

#endif
