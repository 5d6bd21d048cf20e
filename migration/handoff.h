/* SPDX-License-Identifier: MIT */
/*
 * The handoff rule: who may run the guest, and what may change that.
 *
 * Each side is a small machine; handoff.def has both tables, FORMAT.md says
 * them in words and tests/model proves of them that never two run the guest,
 * that it is lost only with the process that holds it, and that both sides
 * come to an end when the network does not stay broken. A state changes
 * through handoff_source_step() and handoff_target_step() and nowhere else.
 *
 * How to use them, or the proof is of something else:
 *
 *  1. Step first, act after: COMMIT is sent after the source is COMMITTED (so
 *     an attempt counts as sent), the guest is let go after the target is
 *     RUNNING, NACK and VERDICT are sent after the VM is destroyed.
 *  2. A refused event of the peer: close the connection, step FAIL. A refused
 *     event of the user: tell the user, change nothing.
 *  3. The target looks at its deadline before it reads what has come since.
 *  4. A source that steps out of COMMITTED by FAIL or LOST shuts the old
 *     connection before it asks on a new one, and never reads it again.
 *  5. Whoever asks must find an answer: a target that has said LOADED keeps
 *     answering QUERY for that session, with --once too, until ABORT or DONE
 *     came; so the source says DONE after RUNNING, NACK and a VERDICT alike.
 *  6. The target's log says that it takes the guest before the guest is let
 *     go: without an answer that line is what the operator goes by. A process
 *     that is found dead proves nothing without it.
 *
 * Threads: plain functions; a state belongs to whoever owns it. At the target
 * two connections may step one state, so there a lock is held from the step
 * until its consequence (destroyed, or running) is true.
 */
#ifndef GODWIT_HANDOFF_H
#define GODWIT_HANDOFF_H

#include <stdbool.h>

#include "migration/handoff.def"
#include "vmm/util.h"

/* How many; not members of the enums, so that a switch needs no such case. */
#define HANDOFF_ONE(name, attribute) +1
#define SOURCE_STATES		     (0 HANDOFF_SOURCE_STATES(HANDOFF_ONE))
#define SOURCE_EVENTS		     (0 HANDOFF_SOURCE_EVENTS(HANDOFF_ONE))
#define TARGET_STATES		     (0 HANDOFF_TARGET_STATES(HANDOFF_ONE))
#define TARGET_EVENTS		     (0 HANDOFF_TARGET_EVENTS(HANDOFF_ONE))

#define HANDOFF_SOURCE_STATE_ENUM(name, guest) SOURCE_##name,
enum source_state {
	HANDOFF_SOURCE_STATES(HANDOFF_SOURCE_STATE_ENUM)
};

#define HANDOFF_SOURCE_EVENT_ENUM(name, origin) SOURCE_ON_##name,
enum source_event {
	HANDOFF_SOURCE_EVENTS(HANDOFF_SOURCE_EVENT_ENUM)
};

#define HANDOFF_TARGET_STATE_ENUM(name, guest) TARGET_##name,
enum target_state {
	HANDOFF_TARGET_STATES(HANDOFF_TARGET_STATE_ENUM)
};

#define HANDOFF_TARGET_EVENT_ENUM(name, origin) TARGET_ON_##name,
enum target_event {
	HANDOFF_TARGET_EVENTS(HANDOFF_TARGET_EVENT_ENUM)
};

/**
 * handoff_source_step() - let @event happen at the source.
 * @state: the state it is in; on success the one it is in now, which may be
 *         the same.
 *
 * An event of our own that has no row is a bug here and asserts.
 *
 * Return: 0; -EPROTO, the peer may not do that in this state; -EPERM, the user
 * may not (cancel after COMMIT, resolve when nothing is uncertain). @state is
 * unchanged after an error.
 */
int __must_check handoff_source_step(enum source_state *state,
				     enum source_event event);

/**
 * handoff_target_step() - let @event happen at the target; see
 * handoff_source_step().
 */
int __must_check handoff_target_step(enum target_state *state,
				     enum target_event event);

/**
 * handoff_source_may_run() - may the source let the guest run in @state?
 */
bool handoff_source_may_run(enum source_state state);

/**
 * handoff_target_may_run() - may the target let the guest run in @state?
 */
bool handoff_target_may_run(enum target_state state);

/**
 * handoff_source_state_name() - "RUNS", …; the names of handoff.def.
 */
const char *handoff_source_state_name(enum source_state state);
const char *handoff_source_event_name(enum source_event event);
const char *handoff_target_state_name(enum target_state state);
const char *handoff_target_event_name(enum target_event event);

#endif
