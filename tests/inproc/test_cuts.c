// SPDX-License-Identifier: MIT
/*
 * The connection is cut, at every record and in every direction, and the
 * handoff rule holds: the target has the guest exactly if COMMIT came through,
 * its memory is intact, and the next attempt succeeds.
 *
 * After each cut rig_move() itself asserts that one side has the guest and no
 * two do; here it is asserted which.
 */
#include <errno.h>
#include <stdio.h>

#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"

/* More records than any of these moves has. */
#define RECORDS_MAX 1000

/* Cut behind every record of one direction, and in the middle of each. */
static void cut_everywhere(bool from_target, unsigned int torn)
{
	struct shuttle s;
	unsigned int after;
	bool cut = true;

	shuttle_start(&s);
	for (after = 0; cut && after < RECORDS_MAX; after++) {
		struct rig_result result;
		bool commit = false;
		struct rig_move move = rig_move_default;

		move.cut = (struct relay_cut){ .enabled = true,
					       .from_target = from_target,
					       .after = after,
					       .torn = torn };
		move.on_record = shuttle_note_commit;
		move.opaque = &commit;
		shuttle_move(&s, &move, &result);
		ck_assert_msg(!result.source_rc == commit,
			      "cut after %u: COMMIT was %s, yet: %s", after,
			      commit ? "passed" : "not passed",
			      result.source_rc ? result.source_error.text
					       : "moved");
		cut = (from_target ? result.from_target : result.from_source) ==
		      after;
		if (result.source_rc)
			shuttle_retry(&s);
	}
	/* There is no move without so many. */
	ck_assert_uint_gt(after, from_target ? 6 : 20);
	ck_assert_uint_lt(after, RECORDS_MAX);
	shuttle_end(&s);
}

START_TEST(the_connection_may_be_cut_after_any_record_of_the_source)
{
	cut_everywhere(false, 0);
}
END_TEST

START_TEST(the_connection_may_be_cut_after_any_record_of_the_target)
{
	cut_everywhere(true, 0);
}
END_TEST

START_TEST(the_connection_may_be_cut_within_any_record_of_the_source)
{
	cut_everywhere(false, 12);
}
END_TEST

START_TEST(the_connection_may_be_cut_within_any_record_of_the_target)
{
	cut_everywhere(true, 12);
}
END_TEST

/* ---- after COMMIT ---- */

struct incident {
	enum wire_type at; /* cut behind the record of this type */
	bool resume;	   /* the operator's word */
	bool had_it;	   /* what the operator saw at the target */
	int cancel_rc;
	int early_rc; /* of a word that nobody asked for */
};

static bool cut_behind(struct rig_moving *moving,
		       const struct relay_record *record, void *opaque)
{
	const struct incident *incident = opaque;

	(void)moving;
	return record->type == incident->at;
}

/* The source asks, through the door, and is told. */
static void lose_connection_at(enum wire_type at, bool moved)
{
	struct incident incident = { .at = at };
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.on_record = cut_behind;
	move.opaque = &incident;
	shuttle_start(&s);
	for (int i = 0; i < 5; i++) {
		shuttle_move(&s, &move, &result);
		ck_assert_msg(!result.source_rc == moved, "%s",
			      result.source_error.text);
		shuttle_retry(&s);
	}
	shuttle_end(&s);
}

START_TEST(a_source_that_lost_RUNNING_asks_and_is_told_that_it_runs)
{
	lose_connection_at(WIRE_COMMIT, true);
}
END_TEST

START_TEST(a_source_that_could_not_send_COMMIT_asks_and_is_told_never)
{
	lose_connection_at(WIRE_LOADED, false);
}
END_TEST

/* The operator looks at the target, and has the last word here. */
static void operate(struct rig_moving *moving, void *opaque)
{
	struct incident *incident = opaque;

	incident->early_rc = source_resolve(moving->source, true);
	rig_await_status(moving, STATUS_UNCERTAIN);
	incident->cancel_rc = source_cancel(moving->source);
	incident->had_it = rig_target_has_it(moving);
	incident->resume = !incident->had_it;
	ck_assert(!source_resolve(moving->source, incident->resume));
}

static void leave_it_to_the_operator(enum wire_type at, bool moved)
{
	struct incident incident = { .at = at };
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.cut.turn_away = true;
	move.on_record = cut_behind;
	move.meanwhile = operate;
	move.opaque = &incident;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(incident.early_rc, -EPERM);
	ck_assert_int_eq(incident.cancel_rc, -EPERM);
	ck_assert_int_eq(incident.had_it, moved);
	ck_assert_msg(!result.source_rc == moved, "%s",
		      result.source_error.text);
	ck_assert_int_eq(result.report.status,
			 moved ? STATUS_COMPLETED : STATUS_FAILED);
	shuttle_retry(&s);
	shuttle_end(&s);
}

START_TEST(when_nobody_answers_the_operator_may_resume_what_was_destroyed)
{
	leave_it_to_the_operator(WIRE_LOADED, false);
}
END_TEST

START_TEST(when_nobody_answers_the_operator_may_discard_what_runs_there)
{
	leave_it_to_the_operator(WIRE_COMMIT, true);
}
END_TEST

/* ---- deadlines ---- */

/* Hold COMMIT back until the target has given up. */
static bool hold_commit(struct rig_moving *moving,
			const struct relay_record *record, void *opaque)
{
	bool *had_it = opaque;

	if (record->type == WIRE_COMMIT)
		*had_it = rig_target_has_it(moving);
	return false;
}

START_TEST(a_COMMIT_that_comes_too_late_finds_no_guest)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	bool had_it = true;
	struct shuttle s;

	move.on_record = hold_commit;
	move.opaque = &had_it;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert(!had_it);
	ck_assert_int_ne(result.source_rc, 0);
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

/* The guest runs on before the target has had a chance to be ready. */
static bool hold_pause(struct rig_moving *moving,
		       const struct relay_record *record, void *opaque)
{
	(void)opaque;
	if (record->type == WIRE_PAUSED)
		rig_await_status(moving, STATUS_FAILED);
	return false;
}

START_TEST(a_pause_that_takes_too_long_is_called_off)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.params.abort_after_ns = 100 * NS_PER_MS;
	move.on_record = hold_pause;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(result.source_rc, -ETIMEDOUT);
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

UNIT_SUITE("cuts", the_connection_may_be_cut_after_any_record_of_the_source,
	   the_connection_may_be_cut_after_any_record_of_the_target,
	   the_connection_may_be_cut_within_any_record_of_the_source,
	   the_connection_may_be_cut_within_any_record_of_the_target,
	   a_source_that_lost_RUNNING_asks_and_is_told_that_it_runs,
	   a_source_that_could_not_send_COMMIT_asks_and_is_told_never,
	   when_nobody_answers_the_operator_may_resume_what_was_destroyed,
	   when_nobody_answers_the_operator_may_discard_what_runs_there,
	   a_COMMIT_that_comes_too_late_finds_no_guest,
	   a_pause_that_takes_too_long_is_called_off)
