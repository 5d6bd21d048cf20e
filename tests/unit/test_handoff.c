// SPDX-License-Identifier: MIT
/*
 * The handoff tables: what an implementation leans on. What they guarantee
 * together is proved by tests/model.
 */
#include <errno.h>

#include "migration/handoff.h"
#include "tests/unit/unit.h"

START_TEST(every_state_has_an_answer_to_fail_and_lost)
{
	for (int i = 0; i < SOURCE_STATES; i++) {
		enum source_state s = (enum source_state)i, t = s;

		ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_FAIL), 0);
		ck_assert_int_eq(handoff_source_step(&t, SOURCE_ON_LOST), 0);
	}
	for (int i = 0; i < TARGET_STATES; i++) {
		enum target_state s = (enum target_state)i, t = s;

		ck_assert_int_eq(handoff_target_step(&s, TARGET_ON_FAIL), 0);
		ck_assert_int_eq(handoff_target_step(&t, TARGET_ON_LOST), 0);
	}
}
END_TEST

START_TEST(a_move_that_works_ends_moved_and_running)
{
	static const enum source_event source[] = { SOURCE_ON_PAUSE,
						    SOURCE_ON_LOADED,
						    SOURCE_ON_RUNNING };
	static const enum target_event target[] = { TARGET_ON_CONFIG,
						    TARGET_ON_LOADED,
						    TARGET_ON_COMMIT };
	enum source_state s = SOURCE_RUNS;
	enum target_state t = TARGET_EMPTY;

	for (size_t i = 0; i < ARRAY_SIZE(source); i++)
		ck_assert_int_eq(handoff_source_step(&s, source[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(target); i++) {
		ck_assert(!handoff_target_may_run(t));
		ck_assert_int_eq(handoff_target_step(&t, target[i]), 0);
	}
	ck_assert_int_eq(s, SOURCE_MOVED);
	ck_assert(!handoff_source_may_run(s));
	ck_assert_int_eq(t, TARGET_RUNNING);
	ck_assert(handoff_target_may_run(t));
}
END_TEST

START_TEST(the_user_may_cancel_before_commit_and_not_after)
{
	enum source_state s = SOURCE_RUNS;

	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_CANCEL), 0);
	ck_assert_int_eq(s, SOURCE_KEPT);
	s = SOURCE_COMMITTED;
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_CANCEL), -EPERM);
	ck_assert_int_eq(s, SOURCE_COMMITTED);
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_LOST), 0);
	ck_assert_int_eq(s, SOURCE_ASKING);
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_CANCEL), -EPERM);
}
END_TEST

START_TEST(the_operators_word_counts_only_while_asking)
{
	enum source_state s = SOURCE_COMMITTED;

	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_OPERATOR_RESUME),
			 -EPERM);
	s = SOURCE_MOVED;
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_OPERATOR_RESUME),
			 -EPERM);
	s = SOURCE_ASKING;
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_OPERATOR_RESUME), 0);
	ck_assert_int_eq(s, SOURCE_KEPT);
}
END_TEST

START_TEST(a_peer_out_of_turn_is_refused_and_changes_nothing)
{
	enum source_state s = SOURCE_RUNS;
	enum target_state t = TARGET_RUNNING;

	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_RUNNING), -EPROTO);
	ck_assert_int_eq(handoff_source_step(&s, SOURCE_ON_LOADED), -EPROTO);
	ck_assert_int_eq(s, SOURCE_RUNS);
	ck_assert_int_eq(handoff_target_step(&t, TARGET_ON_COMMIT), -EPROTO);
	ck_assert_int_eq(handoff_target_step(&t, TARGET_ON_ABORT), -EPROTO);
	ck_assert_int_eq(t, TARGET_RUNNING);
}
END_TEST

START_TEST(a_destroyed_target_never_comes_back)
{
	for (int i = 0; i < TARGET_EVENTS; i++) {
		enum target_state t = TARGET_DESTROYED;

		if (i == TARGET_ON_LOADED) /* our own bug: asserts */
			continue;
		if (handoff_target_step(&t, (enum target_event)i))
			continue;
		ck_assert_int_eq(t, TARGET_DESTROYED);
	}
}
END_TEST

START_TEST(names_are_those_of_the_table)
{
	ck_assert_str_eq(handoff_source_state_name(SOURCE_ASKING), "ASKING");
	ck_assert_str_eq(handoff_source_event_name(SOURCE_ON_NACK), "NACK");
	ck_assert_str_eq(handoff_target_state_name(TARGET_LOADED), "LOADED");
	ck_assert_str_eq(handoff_target_event_name(TARGET_ON_DONE), "DONE");
}
END_TEST

UNIT_SUITE("handoff", every_state_has_an_answer_to_fail_and_lost,
	   a_move_that_works_ends_moved_and_running,
	   the_user_may_cancel_before_commit_and_not_after,
	   the_operators_word_counts_only_while_asking,
	   a_peer_out_of_turn_is_refused_and_changes_nothing,
	   a_destroyed_target_never_comes_back, names_are_those_of_the_table)
