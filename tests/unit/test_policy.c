// SPDX-License-Identifier: MIT
/*
 * The policy against a simulator: whole migrations of simulated guests over
 * simulated links, thousands of them, and what must be true of each. The
 * simulator has its own clock and its own random numbers, so a seed always
 * tells one story; who finds a counterexample prints its seed.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "migration/pacing.h"
#include "tests/unit/unit.h"

#define PAGE_WIRE    (GUEST_PAGE_SIZE + 16)
#define STORIES	     4000
#define ROUNDS_MAX   300 /* without a timeout */
#define FORECAST_MAX 1001

static const struct pacing_params defaults = {
	.max_downtime_ns = 10 * NS_PER_MS,
};

/* ---- the simulator ---- */

struct sim {
	uint64_t story; /* the seed that it began with */
	uint64_t seed;
	double noise;  /* 0 … 1 */
	double wire;   /* bytes a second */
	double trip;   /* seconds, as all times here */
	double cost;   /* of each of the other terms, on average */
	double memory; /* pages */
	double zero;   /* part of memory */
	double set;    /* pages that the guest writes to */
	double rate;   /* writes a second, to random pages of the set */
	double held;   /* part of its time that it is slowed by */
	double now;
};

static double uniform(struct sim *s)
{
	s->seed ^= s->seed << 13;
	s->seed ^= s->seed >> 7;
	s->seed ^= s->seed << 17;
	return (double)(s->seed >> 11) / (double)(1ULL << 53);
}

static double between(struct sim *s, double low, double high)
{
	return low * pow(high / low, uniform(s));
}

/* A measured time: jitter, and once in a while a scheduler's hiccup. */
static double jitter(struct sim *s, double t)
{
	double x = t * (1 + s->noise * (uniform(s) - 0.5));

	if (uniform(s) < 0.02 * s->noise)
		x += 0.01;
	return x;
}

static double dirtied(const struct sim *s, double t)
{
	double writes = s->rate * (1 - s->held) * t;

	return s->set * (1 - exp(-writes / s->set));
}

static uint64_t ns(double t)
{
	return (uint64_t)(t * 1e9);
}

static void sim_costs(struct sim *s, struct pacing *p)
{
	for (int i = 0; i < PACING_COSTS; i++)
		pacing_note_cost(
			p, (enum pacing_cost)i,
			ns(jitter(s, i == PACING_TRIP ? s->trip : s->cost)));
}

/* Send @pages, then look what is dirty; returns that. */
static double sim_round(struct sim *s, struct pacing *p, double pages,
			double data)
{
	double bytes = data * PAGE_WIRE + 16 * pages / 64 + 64;
	double t =
		jitter(s, bytes / s->wire) + s->trip + (pages - data) * 0.3e-6;
	double sync = jitter(s, s->cost);
	double dirty = floor(dirtied(s, t + sync));
	struct pacing_round r = {
		.pages = (uint64_t)pages,
		.zero_pages = (uint64_t)(pages - data),
		.ns = ns(t),
		.link_bytes = (uint64_t)bytes,
		.link_ns = ns(t),
		.dirty_pages = (uint64_t)dirty,
	};

	s->now += t + sync;
	pacing_note_cost(p, PACING_SYNC, ns(sync));
	pacing_note_cost(p, PACING_TRIP, ns(jitter(s, s->trip)));
	pacing_note_round(p, &r);
	return dirty;
}

/* The pause that really comes, with @dirty pages left after the sync. */
static double sim_pause(struct sim *s, double dirty, uint64_t state)
{
	double lag = jitter(s, s->cost);
	double pages = dirty + dirtied(s, lag) * (1 - MIN(dirty / s->set, 1));
	double t = lag + 2 * jitter(s, s->trip);

	for (int i = PACING_STOP + 1; i < PACING_TRIP; i++)
		t += jitter(s, s->cost);
	return t + jitter(s, (pages * PAGE_WIRE + (double)state) / s->wire);
}

/* A migration under way. */
struct story {
	struct sim s;
	struct pacing_params params;
	struct pacing p;
	struct pacing_decision d;
	double dirty; /* pages, by the last sync */
	int rounds;
};

#define STATE_BYTES 60000

/* Of all that is claimed, with what it takes to see it again. */
#define HOLDS(of, what, format, ...)                                   \
	ck_assert_msg((what), "seed %llu, %d rounds: " format,         \
		      (unsigned long long)(of)->s.story, (of)->rounds, \
		      __VA_ARGS__)

/* Up to the end of round 0. */
static void begin(struct story *t, const struct sim *s,
		  const struct pacing_params *params)
{
	*t = (struct story){ .s = *s, .params = *params, .rounds = 1 };
	pacing_init(&t->p, params);
	pacing_note_state(&t->p, STATE_BYTES);
	sim_costs(&t->s, &t->p);
	t->dirty =
		sim_round(&t->s, &t->p, s->memory, s->memory * (1 - s->zero));
}

/* One decision, and the round that it leads to; false: it is decided. */
static bool go_on(struct story *t)
{
	pacing_decide(&t->p, ns(t->s.now), &t->d);
	HOLDS(t, t->d.reason[0], "%s", "no reason is given");
	if (t->d.action == PACING_THROTTLE)
		t->s.held = t->d.throttle / 100.0;
	else if (t->d.action != PACING_GO_ON)
		return false;
	if (t->d.prepare) {
		sim_costs(&t->s, &t->p);
		t->s.now += 2 * t->s.cost + PACING_SAMPLES * t->s.trip;
	}
	pacing_set_max_downtime(&t->p, t->params.max_downtime_ns);
	t->dirty = sim_round(&t->s, &t->p, t->dirty, t->dirty);
	t->rounds++;
	return true;
}

/* To its end, which comes; never knowingly over the threshold. */
static void finish(struct story *t)
{
	while (go_on(t)) {
		HOLDS(t, t->params.timeout_ns || t->rounds < ROUNDS_MAX, "%s",
		      "it doesn't end");
		HOLDS(t, t->s.now < 1e6, "%s", "it takes for ever");
	}
	HOLDS(t,
	      t->d.action != PACING_SWITCH ||
		      t->d.prediction.total_ns <= t->params.max_downtime_ns,
	      "switched at %.3f ms", (double)t->d.prediction.total_ns / 1e6);
}

static double pause_of(struct story *t)
{
	return sim_pause(&t->s, t->dirty, STATE_BYTES);
}

static struct sim sim_random(uint64_t seed, double noise)
{
	struct sim s = { .story = seed,
			 .seed = seed * 0x9e3779b97f4a7c15ULL + 1 };

	s.noise = noise;
	s.wire = between(&s, 10e6, 12e9);
	s.trip = between(&s, 20e-6, 2e-3);
	s.cost = between(&s, 20e-6, 1.5e-3);
	s.memory = between(&s, 4096, 4e6);
	s.zero = uniform(&s) * 0.99;
	s.set = between(&s, 10, s.memory * (1 - s.zero) / 2 + 20);
	s.rate = between(&s, 10, 1e6);
	return s;
}

START_TEST(on_a_steady_link_no_switch_is_over_the_threshold)
{
	int switched = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		struct story t;
		double pause;

		begin(&t, &s, &defaults);
		finish(&t);
		if (t.d.action != PACING_SWITCH)
			continue;
		switched++;
		pause = pause_of(&t);
		HOLDS(&t, pause <= 0.010 * 1.01, "%.3f ms, predicted %.3f ms",
		      pause * 1e3, (double)t.d.prediction.total_ns / 1e6);
	}
	ck_assert_int_gt(switched, STORIES / 10 * 8);
}
END_TEST

START_TEST(on_a_noisy_link_few_switches_are_over_the_threshold)
{
	int switched = 0, over = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0.5);
		struct story t;

		begin(&t, &s, &defaults);
		finish(&t);
		if (t.d.action != PACING_SWITCH)
			continue;
		switched++;
		/* jitter is half of 0.5, and a hiccup 10 ms: nobody's fault */
		over += pause_of(&t) > 0.010 * 1.25 + 0.010;
	}
	ck_assert_int_gt(switched, STORIES / 10 * 8);
	ck_assert_int_lt(over, switched / 100);
}
END_TEST

START_TEST(every_migration_ends_and_as_the_user_chose)
{
	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, (double)(seed % 3) * 0.5);
		struct pacing_params params = defaults;
		struct story t;

		params.max_downtime_ns = ns(between(&s, 1e-6, 1));
		if (seed % 2)
			params.timeout_ns = ns(between(&s, 1e-3, 100));
		if (seed % 5 > 2)
			params.on_timeout = PACING_PAUSE;
		begin(&t, &s, &params);
		finish(&t);
		HOLDS(&t,
		      t.d.action == PACING_SWITCH ||
			      t.d.action == (params.on_timeout == PACING_PAUSE
						     ? PACING_FORCE
						     : PACING_GIVE_UP),
		      "%s", pacing_action_name(t.d.action));
	}
}
END_TEST

START_TEST(a_guest_that_can_be_moved_without_slowing_is_not_slowed)
{
	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		struct story t;

		/* dirties at a tenth of what the wire takes, costs are low */
		s.rate = s.wire / PAGE_WIRE / 10;
		s.cost = 100e-6;
		s.trip = 100e-6;
		s.wire = MAX(s.wire, 100e6);
		begin(&t, &s, &defaults);
		finish(&t);
		HOLDS(&t, t.d.action == PACING_SWITCH && t.s.held == 0,
		      "%s, slowed by %.2f", t.d.reason, t.s.held);
		HOLDS(&t, t.rounds < 20, "%s", t.d.reason);
	}
}
END_TEST

/*
 * A round finds λ times what it sent, and λ times what is dirtied in its
 * overhead o: it shrinks to o × λ ÷ (1 − λ) of the link's time. That fits into
 * G, what the threshold leaves for memory, if λ < G ÷ (G + o). A page more or
 * less is a page, and room for nothing else than that is none.
 */
static bool must_converge(const struct sim *s, double threshold)
{
	double page = PAGE_WIRE / s->wire;
	double rate = s->rate * page;
	double overhead = s->trip + s->cost;
	double fixed = 5 * s->cost + 2 * s->trip + STATE_BYTES / s->wire +
		       2 * s->cost * rate + 3 * page;
	double room = threshold - fixed;

	return room > threshold / 20 && rate < 0.97 * room / (room + overhead);
}

START_TEST(whoever_dirties_less_than_the_link_takes_away_is_moved_unslowed)
{
	int can = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		struct story t;

		if (!must_converge(&s, 0.010))
			continue;
		can++;
		begin(&t, &s, &defaults);
		finish(&t);
		HOLDS(&t, t.d.action == PACING_SWITCH && t.s.held == 0,
		      "%s, slowed by %.2f", t.d.reason, t.s.held);
	}
	ck_assert_int_gt(can, STORIES / 2);
}
END_TEST

/* The shortest pause from here on, within what polishing may take. */
static double best_pause(struct story t)
{
	double until = t.s.now + 4 * 0.010;
	double best = pause_of(&t);

	for (int i = 0; i < 8; i++) {
		struct pacing unheard = t.p;
		struct story now;

		t.dirty = sim_round(&t.s, &unheard, t.dirty, t.dirty);
		if (t.s.now > until)
			break;
		now = t;
		best = MIN(best, pause_of(&now));
	}
	return best;
}

START_TEST(the_switch_is_within_a_tenth_of_the_best_moment_at_hand)
{
	int seen = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		double best = 0, pause;
		struct story t;

		begin(&t, &s, &defaults);
		do {
			struct pacing then = t.p;
			struct pacing_prediction x;

			pacing_predict(&then, (uint64_t)t.dirty, &x);
			if (!best && then.prepared &&
			    x.total_ns <= defaults.max_downtime_ns)
				best = best_pause(t);
		} while (go_on(&t));
		if (t.d.action != PACING_SWITCH)
			continue;
		seen++;
		pause = pause_of(&t) - 2 * PAGE_WIRE / s.wire;
		HOLDS(&t, pause <= 1.1 * best, "%.3f ms, %.3f ms could be had",
		      pause * 1e3, best * 1e3);
	}
	ck_assert_int_gt(seen, STORIES / 10 * 8);
}
END_TEST

/* ---- the forecast ---- */

/* What was forecast after two rounds, and how it went. */
struct foretold {
	struct pacing_forecast f;
	double total; /* seconds to the end of the rounds */
	bool early;   /* it was over by then */
};

static void foretell(struct story *t, const struct sim *s,
		     const struct pacing_params *params, struct foretold *ret)
{
	begin(t, s, params);
	ret->early = !go_on(t);
	if (ret->early)
		return;
	pacing_forecast(&t->p, ns(t->s.now), &ret->f);
	ret->total = t->s.now + (double)ret->f.rounds_ns / 1e9;
	finish(t);
}

START_TEST(a_forecast_of_a_guest_that_writes_all_over_comes_true)
{
	int seen = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		struct foretold x;
		struct story t;

		/* Few pages are written twice, even in the longest round. */
		s.zero = 0.3;
		s.rate = s.wire / PAGE_WIRE * between(&s, 0.01, 0.7);
		s.set = 100 * s.memory;
		foretell(&t, &s, &defaults, &x);
		/* What is on the brink may fall to either side. */
		if (x.early || t.d.action != PACING_SWITCH || t.s.held > 0 ||
		    t.d.prediction.total_ns > 8 * NS_PER_MS)
			continue;
		seen++;
		HOLDS(&t, x.f.action == PACING_SWITCH && !x.f.throttle, "%s",
		      x.f.reason);
		HOLDS(&t, fabs(x.total - t.s.now) < 0.25 * t.s.now,
		      "%.3f s foretold, %.3f s", x.total, t.s.now);
	}
	ck_assert_int_gt(seen, STORIES / 2);
}
END_TEST

/* Two rounds don't show all that a guest does. */
START_TEST(a_forecast_is_right_in_all_but_few_cases)
{
	int right = 0, near = 0, moved = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0);
		struct foretold x;
		struct story t;

		foretell(&t, &s, &defaults, &x);
		HOLDS(&t, !x.early, "%s", "over before two rounds were");
		right += x.f.action == t.d.action;
		if (t.d.action != PACING_SWITCH)
			continue;
		moved++;
		near += fabs(x.total - t.s.now) < 0.1 * t.s.now;
	}
	ck_assert_int_gt(right, STORIES / 100 * 97);
	ck_assert_int_gt(near, moved / 100 * 85);
}
END_TEST

START_TEST(a_forecast_ends_whatever_was_measured)
{
	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 1);
		struct pacing_params params = defaults;
		struct pacing_forecast f;
		struct story t;

		params.max_downtime_ns = ns(between(&s, 1e-9, 1));
		if (seed % 2)
			params.timeout_ns = ns(between(&s, 1e-3, 1e8));
		if (seed % 5 > 2)
			params.on_timeout = PACING_PAUSE;
		begin(&t, &s, &params);
		if (!go_on(&t))
			continue;
		pacing_forecast(&t.p, ns(t.s.now), &f);
		HOLDS(&t, f.rounds <= FORECAST_MAX, "%u rounds", f.rounds);
		HOLDS(&t,
		      f.action == (f.pause.total_ns <= params.max_downtime_ns
					   ? PACING_SWITCH
				   : params.on_timeout == PACING_PAUSE
					   ? PACING_FORCE
					   : PACING_GIVE_UP),
		      "%s", f.reason);
	}
}
END_TEST

/* What a move with other limits comes to, told by moving. */
static bool comes_true(const struct story *t, uint64_t max_downtime_ns,
		       uint64_t timeout_ns)
{
	struct story then = *t;

	then.params.max_downtime_ns = max_downtime_ns;
	then.params.timeout_ns = timeout_ns;
	then.p.params.timeout_ns = timeout_ns;
	pacing_set_max_downtime(&then.p, max_downtime_ns);
	finish(&then);
	return then.d.action == PACING_SWITCH;
}

#define REMEDY_MOST (2000 * NS_PER_S)

START_TEST(what_is_said_to_do_would_have_done)
{
	int downtimes = 0, did = 0, timeouts = 0, in_time = 0;

	for (uint64_t seed = 1; seed <= STORIES; seed++) {
		struct sim s = sim_random(seed, 0.2);
		struct pacing_params params = defaults;
		struct pacing_remedy remedy;
		struct pacing_forecast f;
		struct story t;

		begin(&t, &s, &params);
		/* Half of them are short of time, the others of pause. */
		if (seed % 2)
			params.timeout_ns = ns(between(&s, 1.1, 2) * t.s.now);
		else
			params.max_downtime_ns = ns(between(&s, 1e-4, 1e-2));
		t.params = t.p.params = params;
		if (!go_on(&t))
			continue;
		pacing_forecast(&t.p, ns(t.s.now), &f);
		pacing_remedy(&t.p, ns(t.s.now), REMEDY_MOST, &remedy);
		HOLDS(&t, f.action == PACING_SWITCH || remedy.max_downtime_ns,
		      "nothing would do: %s", f.reason);
		if (f.action == PACING_SWITCH)
			continue;
		HOLDS(&t,
		      remedy.max_downtime_ns > params.max_downtime_ns &&
			      remedy.max_downtime_ns <= REMEDY_MOST,
		      "%llu ns", (unsigned long long)remedy.max_downtime_ns);
		downtimes++;
		did += comes_true(&t, remedy.max_downtime_ns,
				  params.timeout_ns);
		if (!remedy.timeout_ns)
			continue;
		HOLDS(&t, remedy.timeout_ns > params.timeout_ns, "%llu ns",
		      (unsigned long long)remedy.timeout_ns);
		timeouts++;
		in_time += comes_true(&t, params.max_downtime_ns,
				      remedy.timeout_ns);
	}
	ck_assert_int_gt(downtimes, STORIES / 10);
	ck_assert_int_gt(did, downtimes / 100 * 94);
	ck_assert_int_gt(timeouts, 50);
	ck_assert_int_gt(in_time, timeouts / 10 * 7);
}
END_TEST

UNIT_SUITE("policy", on_a_steady_link_no_switch_is_over_the_threshold,
	   on_a_noisy_link_few_switches_are_over_the_threshold,
	   every_migration_ends_and_as_the_user_chose,
	   a_guest_that_can_be_moved_without_slowing_is_not_slowed,
	   whoever_dirties_less_than_the_link_takes_away_is_moved_unslowed,
	   the_switch_is_within_a_tenth_of_the_best_moment_at_hand,
	   a_forecast_of_a_guest_that_writes_all_over_comes_true,
	   a_forecast_is_right_in_all_but_few_cases,
	   a_forecast_ends_whatever_was_measured,
	   what_is_said_to_do_would_have_done)
