// SPDX-License-Identifier: MIT
/*
 * The estimator and the switch-over policy: single decisions. Whole migrations
 * are in test_policy.c.
 */
#include <stdio.h>
#include <string.h>

#include "migration/pacing.h"
#include "tests/unit/unit.h"

#define PAGE_WIRE (GUEST_PAGE_SIZE + 16)

static const struct pacing_params defaults = {
	.max_downtime_ns = 10 * NS_PER_MS,
};

static void note_costs(struct pacing *p, uint64_t each_ns)
{
	for (int i = 0; i < PACING_COSTS; i++)
		pacing_note_cost(p, (enum pacing_cost)i, each_ns);
}

/* 1 GB/s unless said otherwise */
static void note(struct pacing *p, uint64_t pages, uint64_t ns, uint64_t dirty)
{
	struct pacing_round r = {
		.pages = pages,
		.ns = ns,
		.link_bytes = pages * PAGE_WIRE,
		.link_ns = ns,
		.dirty_pages = dirty,
	};

	pacing_note_round(p, &r);
}

static struct pacing fresh(void)
{
	struct pacing p;

	pacing_init(&p, &defaults);
	note_costs(&p, 100 * NS_PER_US);
	return p;
}

static struct pacing_decision decide(struct pacing *p)
{
	struct pacing_decision d;

	pacing_decide(p, NS_PER_S, &d);
	ck_assert(d.reason[0]);
	return d;
}

START_TEST(a_prediction_is_the_sum_of_its_terms)
{
	struct pacing p = fresh();
	struct pacing_prediction x;
	uint64_t sum;

	pacing_note_state(&p, 100000);
	note(&p, 250000, NS_PER_S, 1000);
	pacing_predict(&p, 1000, &x);
	sum = x.transfer_ns;
	for (int i = 0; i < PACING_COSTS; i++)
		sum += x.cost_ns[i];
	ck_assert_uint_eq(sum, x.total_ns);
	ck_assert_uint_eq(x.cost_ns[PACING_TRIP], 200 * NS_PER_US);
	/* about 4.2 MB at about 1 GB/s */
	ck_assert_uint_gt(x.transfer_ns, 4 * NS_PER_MS);
	ck_assert_uint_lt(x.transfer_ns, 43 * NS_PER_MS / 10);
	/* dirtied while it is being stopped: 1000/s for 0.2 ms, rounded up */
	ck_assert_uint_eq(x.pages, 1001);
}
END_TEST

START_TEST(nothing_is_predicted_from_no_bandwidth)
{
	struct pacing p = fresh();
	struct pacing_prediction x;

	ck_assert_uint_eq(pacing_bandwidth(&p), 0);
	pacing_predict(&p, 1, &x);
	ck_assert_uint_eq(x.total_ns, UINT64_MAX);
	note(&p, 0, 1000, 5);
	ck_assert_int_eq(decide(&p).action, PACING_GO_ON);
}
END_TEST

START_TEST(it_converges_when_rounds_lead_to_a_pause_that_is_short_enough)
{
	struct pacing p = fresh();

	/* A quarter of the wire: the next rounds are shorter and shorter. */
	note(&p, 250000, NS_PER_S, 62500);
	ck_assert_int_eq(decide(&p).action, PACING_GO_ON);
	ck_assert(pacing_converges(&p));
	/* Faster than the wire, and more than the pause could carry. */
	note(&p, 62500, NS_PER_S / 4, 70000);
	ck_assert(!pacing_converges(&p));
	/* As fast, but little: that is all there is. */
	note(&p, 100, NS_PER_MS / 2, 200);
	ck_assert(pacing_converges(&p));
	/* What a pause costs by itself counts, too. */
	p = fresh();
	note_costs(&p, 3 * NS_PER_MS);
	note_costs(&p, 3 * NS_PER_MS);
	note(&p, 250000, NS_PER_S, 100);
	ck_assert(!pacing_converges(&p));
	/* So does a cap on the rounds. */
	p = fresh();
	note(&p, 250000, NS_PER_S, 62500);
	pacing_set_cap(&p, 100 * MIB);
	ck_assert(!pacing_converges(&p));
}
END_TEST

START_TEST(small_rounds_do_not_spoil_the_bandwidth)
{
	struct pacing p = fresh();
	uint64_t before;

	note(&p, 250000, NS_PER_S, 100);
	before = pacing_bandwidth(&p);
	for (int i = 0; i < 10; i++)
		note(&p, 3, 130 * NS_PER_US, 3);
	ck_assert_uint_gt(pacing_bandwidth(&p), before / 100 * 95);
	ck_assert_uint_lt(pacing_bandwidth(&p), before / 100 * 105);
}
END_TEST

/* Somebody else had the processor, and a few pages waited for that. */
START_TEST(one_small_round_that_was_late_says_nothing_of_the_link)
{
	struct pacing p = fresh();
	uint64_t before;

	note(&p, 20, 100 * NS_PER_US, 3);
	before = pacing_bandwidth(&p);
	note(&p, 3, 9 * NS_PER_MS, 3);
	ck_assert_uint_eq(pacing_bandwidth(&p), before);
	p = fresh();
	note(&p, 20, 9 * NS_PER_MS, 3);
	note(&p, 20, 100 * NS_PER_US, 3);
	ck_assert_uint_eq(pacing_bandwidth(&p), before);
	/* Twice is no accident. */
	note(&p, 20, 9 * NS_PER_MS, 3);
	ck_assert_uint_lt(pacing_bandwidth(&p), before / 50);
}
END_TEST

START_TEST(a_link_that_slows_down_counts_at_once)
{
	struct pacing p = fresh();
	uint64_t before;

	for (int i = 0; i < 4; i++)
		note(&p, 25000, 100 * NS_PER_MS, 25000);
	before = pacing_bandwidth(&p);
	note(&p, 25000, NS_PER_S, 25000);
	ck_assert_uint_lt(pacing_bandwidth(&p), before / 9);
}
END_TEST

START_TEST(a_cap_on_rounds_is_none_on_the_pause)
{
	struct pacing p = fresh();
	struct pacing_round r = {
		.pages = 25000,
		.ns = 10 * NS_PER_S, /* 10 MB/s, but 1 GB/s in the burst */
		.link_bytes = 250 * PAGE_WIRE,
		.link_ns = NS_PER_MS,
		.dirty_pages = 1000,
	};
	struct pacing_prediction x;
	struct pacing_decision d;

	pacing_set_cap(&p, 10 * 1000 * 1000);
	pacing_note_round(&p, &r);
	ck_assert_uint_gt(pacing_bandwidth(&p), 1000 * 1000 * 1000);
	pacing_predict(&p, 1000, &x);
	ck_assert_uint_lt(x.transfer_ns, 5 * NS_PER_MS);
	/* A round in between would take 400 ms, which doesn't pay. */
	(void)decide(&p);
	pacing_note_round(&p, &r);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_SWITCH);
}
END_TEST

START_TEST(a_round_without_a_burst_says_nothing_of_the_link)
{
	struct pacing p = fresh();
	struct pacing_round r = { .pages = 25000,
				  .ns = 10 * NS_PER_S,
				  .dirty_pages = 1000 };
	uint64_t before;

	note(&p, 25000, 100 * NS_PER_MS, 25000);
	before = pacing_bandwidth(&p);
	pacing_note_round(&p, &r);
	ck_assert_uint_eq(pacing_bandwidth(&p), before);
}
END_TEST

START_TEST(one_hiccup_neither_hides_nor_poisons_a_cost)
{
	struct pacing p = fresh();
	struct pacing_prediction x;

	pacing_note_cost(&p, PACING_SAVE, 50 * NS_PER_MS);
	pacing_predict(&p, 0, &x);
	ck_assert_uint_eq(x.cost_ns[PACING_SAVE], 50 * NS_PER_MS);
	pacing_note_cost(&p, PACING_SAVE, 120 * NS_PER_US);
	pacing_predict(&p, 0, &x);
	ck_assert_uint_eq(x.cost_ns[PACING_SAVE], 120 * NS_PER_US);
}
END_TEST

START_TEST(disks_are_flushed_before_the_switch)
{
	struct pacing p = fresh();
	struct pacing_decision d;

	note(&p, 250000, NS_PER_S, 10);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_GO_ON);
	ck_assert(d.prepare);
	note(&p, 10, 150 * NS_PER_US, 10);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_SWITCH);
	ck_assert(!d.prepare);
}
END_TEST

START_TEST(the_switch_waits_for_a_flush_without_hurry)
{
	struct pacing p = fresh();
	struct pacing_decision d;

	pacing_note_settled(&p, false);
	note(&p, 250000, NS_PER_S, 10);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_GO_ON);
	for (int i = 0; i < 1000; i++) {
		note(&p, 10, 150 * NS_PER_US, 10);
		d = decide(&p);
		ck_assert_int_eq(d.action, PACING_GO_ON);
		ck_assert(d.idle);
	}
	pacing_note_settled(&p, true);
	note(&p, 10, 150 * NS_PER_US, 10);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_SWITCH);
	ck_assert(!d.idle);
}
END_TEST

START_TEST(a_flush_that_never_ends_does_not_outlast_the_timeout)
{
	static const struct {
		enum pacing_on_timeout chosen;
		enum pacing_action action;
	} cases[] = { { PACING_CANCEL, PACING_GIVE_UP },
		      { PACING_PAUSE, PACING_FORCE } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pacing p = fresh();
		struct pacing_decision d;

		p.params.timeout_ns = NS_PER_S;
		p.params.on_timeout = cases[i].chosen;
		pacing_note_settled(&p, false);
		note(&p, 10, 150 * NS_PER_US, 10);
		pacing_decide(&p, NS_PER_S - 1, &d);
		ck_assert_int_eq(d.action, PACING_GO_ON);
		pacing_decide(&p, NS_PER_S, &d);
		ck_assert_int_eq(d.action, cases[i].action);
		ck_assert(strstr(d.reason, "flushed"));
	}
}
END_TEST

START_TEST(one_more_cheap_round_is_taken_when_it_pays)
{
	struct pacing p = fresh();
	struct pacing_decision d;

	p.prepared = true;
	note(&p, 250000, NS_PER_S, 1500); /* 6 ms to send, 9 dirty after */
	d = decide(&p);
	ck_assert_uint_le(d.prediction.total_ns, 10 * NS_PER_MS);
	ck_assert_int_eq(d.action, PACING_GO_ON);
	note(&p, 1500, 6 * NS_PER_MS, 10);
	d = decide(&p);
	ck_assert_int_eq(d.action, PACING_SWITCH);
	ck_assert_uint_lt(d.prediction.total_ns, NS_PER_MS);
}
END_TEST

START_TEST(rounds_that_stop_shrinking_slow_the_guest)
{
	struct pacing p = fresh();
	unsigned int last = 0;

	note(&p, 250000, NS_PER_S, 60000);
	ck_assert_int_eq(decide(&p).action, PACING_GO_ON);
	for (int i = 0; i < 100; i++) {
		struct pacing_decision d;

		note(&p, 60000, 240 * NS_PER_MS, 60000);
		d = decide(&p);
		if (d.action == PACING_THROTTLE) {
			ck_assert_uint_gt(d.throttle, last);
			ck_assert_uint_le(d.throttle, 99);
			last = d.throttle;
		} else if (d.action == PACING_GIVE_UP) {
			ck_assert_uint_eq(last, 99);
			return;
		} else {
			ck_assert_int_eq(d.action, PACING_GO_ON);
		}
	}
	ck_abort_msg("never gave up");
}
END_TEST

START_TEST(at_the_timeout_the_users_choice_counts)
{
	for (int i = 0; i < 2; i++) {
		struct pacing_params params = defaults;
		struct pacing_decision d;
		struct pacing p;

		params.timeout_ns = 5 * NS_PER_S;
		params.on_timeout = i ? PACING_PAUSE : PACING_CANCEL;
		pacing_init(&p, &params);
		note_costs(&p, 1000);
		note(&p, 250000, 5 * NS_PER_S, 60000);
		pacing_decide(&p, 5 * NS_PER_S - 1, &d);
		ck_assert_int_eq(d.action, PACING_GO_ON);
		pacing_decide(&p, 5 * NS_PER_S, &d);
		ck_assert_int_eq(d.action, i ? PACING_FORCE : PACING_GIVE_UP);
		ck_assert_ptr_nonnull(strstr(d.reason, "timeout"));
	}
}
END_TEST

START_TEST(within_the_threshold_the_timeout_does_not_matter)
{
	struct pacing_params params = defaults;
	struct pacing_decision d;
	struct pacing p;

	params.timeout_ns = 1;
	pacing_init(&p, &params);
	note_costs(&p, 1000);
	note(&p, 250000, NS_PER_S, 1500);
	pacing_decide(&p, NS_PER_S, &d);
	ck_assert_int_eq(d.action, PACING_SWITCH);
}
END_TEST

START_TEST(costs_over_the_threshold_are_refused_by_name_and_not_throttled)
{
	struct pacing p = fresh();
	char advice[PACING_REASON_MAX];
	struct pacing_decision d;
	int i;

	for (i = 0; i < PACING_SAMPLES; i++)
		pacing_note_cost(&p, PACING_LOAD, 12 * NS_PER_MS);
	for (i = 0; i < 60; i++) {
		pacing_set_max_downtime(&p, defaults.max_downtime_ns);
		note(&p, 1000, 4 * NS_PER_MS, 1000);
		d = decide(&p);
		if (d.action != PACING_GO_ON)
			break;
		ck_assert(d.prepare);
	}
	ck_assert_int_eq(d.action, PACING_GIVE_UP);
	ck_assert_ptr_nonnull(strstr(d.reason, "even with no page"));
	ck_assert_str_eq(pacing_advice(&p, NS_PER_S, 2000 * NS_PER_S, advice),
			 "--max-downtime 20ms would do");
	ck_assert_str_eq(pacing_advice(&p, NS_PER_S, 11 * NS_PER_MS, advice),
			 "give a longer --timeout, or --on-timeout pause");
	ck_assert_int_lt(i, 30);
}
END_TEST

START_TEST(a_crowd_on_the_cores_that_passes_does_not_end_the_move)
{
	struct pacing p = fresh();
	struct pacing_decision d;
	int i;

	pacing_note_cost(&p, PACING_STOP, 12 * NS_PER_MS);
	for (i = 0; i < 60; i++) {
		note(&p, 1000, 4 * NS_PER_MS, 0);
		d = decide(&p);
		if (d.action != PACING_GO_ON)
			break;
		ck_assert(d.prepare);
		/* measured anew, as asked: a few late ones, then none */
		pacing_note_cost(&p, PACING_STOP,
				 i < 6 ? 12 * NS_PER_MS : NS_PER_MS / 10);
	}
	ck_assert_int_eq(d.action, PACING_SWITCH);
}
END_TEST

START_TEST(a_new_threshold_counts_from_the_next_decision)
{
	struct pacing p = fresh();

	p.prepared = true;
	note(&p, 250000, NS_PER_S, 60000);
	ck_assert_int_eq(decide(&p).action, PACING_GO_ON);
	pacing_set_max_downtime(&p, NS_PER_S);
	note(&p, 60000, 240 * NS_PER_MS, 60000);
	ck_assert_int_eq(decide(&p).action, PACING_SWITCH);
}
END_TEST

START_TEST(offline_pauses_first)
{
	struct pacing_params params = { .offline = true };
	struct pacing_decision d;
	struct pacing p;

	pacing_init(&p, &params);
	pacing_decide(&p, 0, &d);
	ck_assert_int_eq(d.action, PACING_FORCE);
}
END_TEST

START_TEST(absurd_numbers_saturate)
{
	struct pacing p = fresh();
	struct pacing_remedy remedy;
	struct pacing_forecast f;
	struct pacing_prediction x;

	pacing_note_cost(&p, PACING_LOAD, UINT64_MAX);
	pacing_note_state(&p, UINT64_MAX);
	note(&p, 1, UINT64_MAX, UINT64_MAX);
	pacing_predict(&p, UINT64_MAX, &x);
	ck_assert_uint_eq(x.total_ns, UINT64_MAX);
	ck_assert_int_ne(decide(&p).action, PACING_SWITCH);
	pacing_forecast(&p, UINT64_MAX, &f);
	ck_assert_int_ne(f.action, PACING_SWITCH);
	p.params.timeout_ns = 1;
	pacing_remedy(&p, UINT64_MAX, 1ULL << 62, &remedy);
	ck_assert_uint_eq(remedy.max_downtime_ns, 0);
	ck_assert_uint_eq(remedy.timeout_ns, 0);
	p = fresh();
	note(&p, 1, NS_PER_MS, 0);
	for (int i = 0; i < PACING_SAMPLES; i++)
		pacing_note_cost(&p, PACING_TRIP, UINT64_MAX / 2 + 1);
	pacing_predict(&p, 0, &x);
	ck_assert_uint_eq(x.total_ns, UINT64_MAX);
}
END_TEST

UNIT_SUITE("pacing", a_prediction_is_the_sum_of_its_terms,
	   nothing_is_predicted_from_no_bandwidth,
	   it_converges_when_rounds_lead_to_a_pause_that_is_short_enough,
	   small_rounds_do_not_spoil_the_bandwidth,
	   one_small_round_that_was_late_says_nothing_of_the_link,
	   a_cap_on_rounds_is_none_on_the_pause,
	   a_round_without_a_burst_says_nothing_of_the_link,
	   a_link_that_slows_down_counts_at_once,
	   one_hiccup_neither_hides_nor_poisons_a_cost,
	   disks_are_flushed_before_the_switch,
	   the_switch_waits_for_a_flush_without_hurry,
	   a_flush_that_never_ends_does_not_outlast_the_timeout,
	   one_more_cheap_round_is_taken_when_it_pays,
	   rounds_that_stop_shrinking_slow_the_guest,
	   at_the_timeout_the_users_choice_counts,
	   within_the_threshold_the_timeout_does_not_matter,
	   costs_over_the_threshold_are_refused_by_name_and_not_throttled,
	   a_crowd_on_the_cores_that_passes_does_not_end_the_move,
	   a_new_threshold_counts_from_the_next_decision, offline_pauses_first,
	   absurd_numbers_saturate)
