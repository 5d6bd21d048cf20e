// SPDX-License-Identifier: MIT
/*
 * Dry runs: all of a move that comes before the pause, and a forecast of the
 * rest. The guest stays, whatever happens.
 */
#include <errno.h>
#include <string.h>

#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"

#define RECORDS_MAX 1000

static struct rig_move dry_move(void)
{
	struct rig_move move = rig_move_default;

	move.params.dry_run = true;
	return move;
}

struct seen {
	unsigned int rounds;
	unsigned int pauses;
	unsigned int holds; /* the guest's, at any record */
};

static bool look(struct rig_moving *moving, const struct relay_record *record,
		 void *opaque)
{
	struct seen *seen = opaque;

	seen->rounds += record->type == WIRE_ROUND_ACK;
	seen->pauses += record->type == WIRE_PAUSED;
	seen->holds |= vm_holds(moving->from->vm);
	return false;
}

START_TEST(a_dry_run_tells_what_a_move_would_cost_and_leaves_the_guest)
{
	struct rig_move move = dry_move();
	const struct report_forecast *f;
	struct rig_result result;
	struct seen seen = { 0 };
	uint64_t sum = 0;
	struct shuttle s;

	move.on_record = look;
	move.opaque = &seen;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_msg(result.source_rc == SOURCE_REHEARSED, "%s",
		      result.source_error.text);
	ck_assert_int_eq(result.report.status, STATUS_REHEARSED);
	ck_assert_uint_eq(seen.rounds, 2);
	ck_assert_uint_eq(seen.pauses, 0);
	ck_assert_uint_eq(seen.holds, 0);
	f = &result.report.forecast;
	ck_assert_msg(f->converges, "%s", f->reason);
	ck_assert_uint_ge(f->rounds, 2);
	for (int i = 0; i < REPORT_PHASES; i++)
		sum += f->phase_ns[i];
	ck_assert_uint_eq(sum, f->total_ns);
	sum = 0;
	for (int i = PHASE_STOP; i < REPORT_PHASES; i++)
		sum += f->phase_ns[i];
	ck_assert_uint_eq(sum, f->downtime_ns);
	ck_assert_uint_le(f->downtime_ns, move.params.max_downtime_ns);
	ck_assert_uint_eq(result.report.downtime_ns, 0);
	ck_assert_str_eq(result.report.error, "");
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

START_TEST(a_dry_run_says_that_a_threshold_can_not_be_kept)
{
	struct rig_move move = dry_move();
	struct rig_result result;
	struct shuttle s;

	move.params.max_downtime_ns = 1;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(result.source_rc, SOURCE_REHEARSED);
	ck_assert(!result.report.forecast.converges);
	ck_assert_uint_gt(result.report.forecast.downtime_ns, 1);
	ck_assert_ptr_nonnull(
		strstr(result.report.forecast.reason, "no page left"));
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

START_TEST(a_dry_run_verifies_nothing_but_that_it_could)
{
	struct rig_move move = dry_move();
	struct rig_result result;
	struct shuttle s;

	move.params.verify = true;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(result.source_rc, SOURCE_REHEARSED);
	ck_assert_uint_eq(result.report.phase_ns[PHASE_VERIFY], 0);
	shuttle_end(&s);
}
END_TEST

START_TEST(a_dry_run_is_refused_like_a_move)
{
	struct shuttle s;

	shuttle_start(&s);
	shuttle_refuse(&s, dry_move());
	shuttle_end(&s);
}
END_TEST

static void expect_trouble(const struct shuttle_trouble *trouble,
			   const struct rig_result *result)
{
	if (shuttle_was_cancelled(trouble, result))
		return;
	if (!trouble->made || trouble->cancel_rc)
		ck_assert_int_eq(result->source_rc, SOURCE_REHEARSED);
	else
		ck_assert_msg(result->source_rc < 0 ||
				      result->source_rc == SOURCE_REHEARSED,
			      "cut at record %u: %d", trouble->at,
			      result->source_rc);
}

static void make_trouble_everywhere(enum shuttle_trouble_kind kind)
{
	bool made = true;
	struct shuttle s;

	shuttle_start(&s);
	for (unsigned int at = 0; made && at < RECORDS_MAX; at++) {
		struct shuttle_trouble trouble = { .at = at, .kind = kind };
		struct rig_move move = dry_move();
		struct rig_result result;

		move.on_record = shuttle_make_trouble;
		move.opaque = &trouble;
		shuttle_move(&s, &move, &result);
		expect_trouble(&trouble, &result);
		made = trouble.made;
	}
	ck_assert(!made);
	shuttle_retry(&s);
	shuttle_end(&s);
}

START_TEST(a_dry_run_may_be_cancelled_at_any_record)
{
	make_trouble_everywhere(TROUBLE_CANCEL);
}
END_TEST

START_TEST(a_dry_run_may_lose_its_connection_at_any_record)
{
	make_trouble_everywhere(TROUBLE_CUT);
}
END_TEST

UNIT_SUITE("dry run",
	   a_dry_run_tells_what_a_move_would_cost_and_leaves_the_guest,
	   a_dry_run_says_that_a_threshold_can_not_be_kept,
	   a_dry_run_verifies_nothing_but_that_it_could,
	   a_dry_run_is_refused_like_a_move,
	   a_dry_run_may_be_cancelled_at_any_record,
	   a_dry_run_may_lose_its_connection_at_any_record)
