// SPDX-License-Identifier: MIT
/*
 * The estimator and the switch-over policy of pacing.h. Everything here is
 * arithmetic on what was noted; times are nanoseconds, and sums saturate
 * rather than wrap.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "migration/pacing.h"

/* A page on the wire: its data and its share of run and record headers. */
#define PAGE_BYTES (GUEST_PAGE_SIZE + 16)

/* Rounds of fewer bytes say more about latency than about bandwidth. */
#define SIZED_BYTES (64 * PAGE_BYTES)

/* Last byte to LOADED, COMMIT to RUNNING. */
#define PAUSE_TRIPS 2

/* Without a clear gain before the guest is slowed. */
#define STALL_ROUNDS 2
/* The same, where what was seen says that rounds will shrink. */
#define SHRINK_ROUNDS 12
/*
 * With the costs alone over the threshold. They are measured anew after each
 * such round, and on a busy host it takes many samples to tell a crowd on the
 * cores from a cost.
 */
#define HOPELESS_ROUNDS 24
#define PATIENCE_ROUNDS 8    /* without a gain at the strongest step */
#define PLAY_ROUNDS	1000 /* of a forecast, until it is as it will stay */
#define POLISH_ROUNDS	8    /* beyond the threshold */
#define POLISH_COST	4    /* thresholds that those may last together */

/* Per cent of a vCPU's time. */
static const unsigned int throttle_steps[] = { 20, 40, 60, 80, 90, 95, 99 };

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* a × b ÷ c, rounded up; c is not 0 */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 x = ((unsigned __int128)a * b + c - 1) / c;

	return x > UINT64_MAX ? UINT64_MAX : (uint64_t)x;
}

void pacing_init(struct pacing *p, const struct pacing_params *params)
{
	memset(p, 0, sizeof(*p));
	p->params = *params;
	p->best_ns = UINT64_MAX;
}

void pacing_set_max_downtime(struct pacing *p, uint64_t ns)
{
	if (p->params.max_downtime_ns == ns)
		return;
	p->params.max_downtime_ns = ns;
	p->hopeless = 0;
	p->polished = 0;
	p->polished_ns = 0;
}

void pacing_set_cap(struct pacing *p, uint64_t bytes_per_s)
{
	p->cap = bytes_per_s;
}

void pacing_note_cost(struct pacing *p, enum pacing_cost cost, uint64_t ns)
{
	assert(cost < PACING_COSTS);
	p->cost[cost][p->ncost[cost]++ % PACING_SAMPLES] = ns;
}

void pacing_note_settled(struct pacing *p, bool settled)
{
	p->unsettled = !settled;
}

void pacing_note_state(struct pacing *p, uint64_t bytes)
{
	p->state_bytes = bytes;
}

/* The upper median of the samples at hand. */
static uint64_t cost_ns(const struct pacing *p, enum pacing_cost cost)
{
	unsigned int n = MIN(p->ncost[cost], (unsigned int)PACING_SAMPLES);
	uint64_t s[PACING_SAMPLES] = { 0 };

	for (unsigned int i = 0; i < n; i++) {
		unsigned int j = i;

		for (; j > 0 && s[j - 1] > p->cost[cost][i]; j--)
			s[j] = s[j - 1];
		s[j] = p->cost[cost][i];
	}
	return s[n / 2];
}

/* Most of its time went to bytes, not to the round trip or to zero pages. */
static bool is_telling(const struct pacing *p, const struct pacing_round *r)
{
	return r->link_bytes >= SIZED_BYTES && r->zero_pages <= r->pages / 16 &&
	       r->link_ns / 2 > cost_ns(p, PACING_TRIP);
}

void pacing_note_round(struct pacing *p, const struct pacing_round *round)
{
	p->rounds[p->nrounds++ % PACING_ROUNDS] = *round;
	p->most_pages = MAX(p->most_pages, round->pages);
	if (is_telling(p, round) ||
	    (round->link_bytes >= SIZED_BYTES && !is_telling(p, &p->sized)))
		p->sized = *round;
}

/* Time that the link spent on a round's bytes. */
static uint64_t wire_ns(const struct pacing *p, const struct pacing_round *r)
{
	uint64_t trip = cost_ns(p, PACING_TRIP);
	uint64_t ns = r->link_ns;

	/* never less than half: a trip can't explain more of a round */
	return ns / 2 > trip ? ns - trip : MAX(ns / 2, 1ULL);
}

/* Recent rounds that tell something together. */
static void sum_rounds(const struct pacing *p, uint64_t *bytes, uint64_t *ns)
{
	unsigned int n = MIN(p->nrounds, (unsigned int)PACING_ROUNDS);

	*bytes = 0;
	*ns = 0;
	for (unsigned int i = 0; i < n; i++) {
		const struct pacing_round *r = &p->rounds[i];

		if (!is_telling(p, r))
			continue;
		*bytes = add(*bytes, r->link_bytes);
		*ns = add(*ns, wire_ns(p, r));
	}
}

static bool is_faster(const struct pacing *p, const struct pacing_round *a,
		      const struct pacing_round *b)
{
	return scale(wire_ns(p, a), b->link_bytes, a->link_bytes) <
	       wire_ns(p, b);
}

/*
 * While none has told anything: the one in the middle, of two the faster. A few
 * pages take as long as what else went on in that time, not as their bytes.
 */
static void middle_round(const struct pacing *p, uint64_t *bytes, uint64_t *ns)
{
	unsigned int n = MIN(p->nrounds, (unsigned int)PACING_ROUNDS);
	const struct pacing_round *sorted[PACING_ROUNDS];
	unsigned int count = 0;

	for (unsigned int i = 0; i < n; i++) {
		const struct pacing_round *r = &p->rounds[i];
		unsigned int at = count;

		if (!r->link_bytes)
			continue;
		for (; at > 0 && is_faster(p, r, sorted[at - 1]); at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = r;
		count++;
	}
	*bytes = count ? sorted[(count - 1) / 2]->link_bytes : 0;
	*ns = count ? wire_ns(p, sorted[(count - 1) / 2]) : 0;
}

/* Bandwidth as a fraction: bytes in nanoseconds; false when unknown. */
static bool bandwidth(const struct pacing *p, uint64_t *bytes, uint64_t *ns)
{
	const struct pacing_round *last = &p->sized;

	if (!last->link_bytes) {
		middle_round(p, bytes, ns);
		return *bytes > 0;
	}
	sum_rounds(p, bytes, ns);
	if (!*bytes ||
	    scale(*ns, last->link_bytes, *bytes) < wire_ns(p, last)) {
		*bytes = last->link_bytes;
		*ns = wire_ns(p, last);
	}
	return true;
}

uint64_t pacing_bandwidth(const struct pacing *p)
{
	uint64_t bytes, ns;

	return bandwidth(p, &bytes, &ns) ? scale(bytes, NS_PER_S, ns) : 0;
}

uint64_t pacing_dirty_rate(const struct pacing *p)
{
	unsigned int n = MIN(p->nrounds, (unsigned int)PACING_ROUNDS);
	uint64_t most = 0;

	for (unsigned int i = 0; i < n; i++) {
		const struct pacing_round *r = &p->rounds[i];
		uint64_t ns = add(r->ns, cost_ns(p, PACING_SYNC));
		uint64_t rate = scale(r->dirty_pages, NS_PER_S, MAX(ns, 1ULL));

		most = MAX(most, rate);
	}
	return most;
}

static uint64_t transfer_ns(const struct pacing *p, uint64_t to_send)
{
	uint64_t bytes, ns;

	if (!bandwidth(p, &bytes, &ns))
		return to_send ? UINT64_MAX : 0;
	return scale(to_send, ns, bytes);
}

/* Everything but the bytes. */
static uint64_t fixed_ns(const struct pacing_prediction *prediction)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < PACING_COSTS; i++)
		sum = add(sum, prediction->cost_ns[i]);
	return sum;
}

void pacing_predict(const struct pacing *p, uint64_t dirty_pages,
		    struct pacing_prediction *ret)
{
	uint64_t running, bytes;

	for (unsigned int i = 0; i < PACING_COSTS; i++)
		ret->cost_ns[i] = cost_ns(p, (enum pacing_cost)i);
	ret->cost_ns[PACING_TRIP] =
		scale(ret->cost_ns[PACING_TRIP], PAUSE_TRIPS, 1);

	/* from the start of the last sync until the guest stands still */
	running = add(ret->cost_ns[PACING_SYNC], ret->cost_ns[PACING_STOP]);
	ret->pages = add(dirty_pages,
			 scale(pacing_dirty_rate(p), running, NS_PER_S));
	bytes = add(scale(ret->pages, PAGE_BYTES, 1), p->state_bytes);
	ret->transfer_ns = transfer_ns(p, bytes);
	ret->total_ns = add(fixed_ns(ret), ret->transfer_ns);
}

static const struct pacing_round *last_round(const struct pacing *p)
{
	return &p->rounds[(p->nrounds - 1) % PACING_ROUNDS];
}

/* How long sending @pages as a round would take. */
static uint64_t round_ns(const struct pacing *p, uint64_t pages)
{
	uint64_t bytes = scale(pages, PAGE_BYTES, 1);
	uint64_t ns = transfer_ns(p, bytes);

	if (p->cap)
		ns = MAX(ns, scale(bytes, NS_PER_S, p->cap));
	return add(ns, cost_ns(p, PACING_TRIP));
}

/* What rounds can send, bytes a second. */
static uint64_t round_bandwidth(const struct pacing *p)
{
	uint64_t link = pacing_bandwidth(p);

	return p->cap ? MIN(link, p->cap) : link;
}

/*
 * What a round finds dirty in the end, if all goes on as in the last ones. It
 * sends n pages in n ÷ wire + idle, and finds rate times that: n shrinks
 * towards where both are the same.
 */
static uint64_t limit_pages(const struct pacing *p)
{
	uint64_t idle = add(cost_ns(p, PACING_TRIP), cost_ns(p, PACING_SYNC));
	uint64_t wire = round_bandwidth(p) / PAGE_BYTES; /* pages a second */
	uint64_t pages = last_round(p)->dirty_pages;
	uint64_t rate = pacing_dirty_rate(p);

	if (rate >= wire)
		return pages;
	return MIN(pages,
		   scale(scale(rate, idle, NS_PER_S), wire, wire - rate));
}

bool pacing_converges(const struct pacing *p)
{
	struct pacing_prediction then;

	pacing_predict(p, limit_pages(p), &then);
	return then.total_ns <= p->params.max_downtime_ns;
}

/* By a @part-th or more. */
static bool is_shorter(uint64_t ns, uint64_t than, uint64_t part)
{
	return add(ns, ns / part) < than;
}

/*
 * Within the threshold: do more rounds shorten the pause, as far as can be told
 * from where they lead and from what the last one did? And is there time for
 * the next?
 *
 * Return: what it takes, in nanoseconds; 0: it doesn't pay.
 */
static uint64_t polish_ns(const struct pacing *p, uint64_t elapsed_ns,
			  const struct pacing_prediction *now)
{
	uint64_t budget = scale(p->params.max_downtime_ns, POLISH_COST, 1);
	uint64_t timeout = p->params.timeout_ns;
	uint64_t ns = add(round_ns(p, last_round(p)->dirty_pages),
			  cost_ns(p, PACING_SYNC));
	struct pacing_prediction then;

	if (p->polished >= POLISH_ROUNDS || add(p->polished_ns, ns) > budget ||
	    (timeout && add(elapsed_ns, ns) > timeout))
		return 0;
	pacing_predict(p, limit_pages(p), &then);
	if (is_shorter(then.total_ns, now->total_ns, 20))
		return ns;
	/* Near the bandwidth that limit is vague: there must be something. */
	pacing_predict(p, 0, &then);
	if (is_shorter(now->total_ns, p->last_ns, 50) &&
	    is_shorter(then.total_ns, now->total_ns, 10))
		return ns;
	return 0;
}

/* The next step, further ahead when dirtying is far ahead of the wire. */
static unsigned int next_throttle(const struct pacing *p)
{
	uint64_t wire = round_bandwidth(p) / PAGE_BYTES; /* pages a second */
	uint64_t dirty = MAX(pacing_dirty_rate(p), 1ULL);
	uint64_t keep = MIN(scale(wire, 50, dirty), 100ULL);

	for (size_t i = 0; i < ARRAY_SIZE(throttle_steps); i++)
		if (throttle_steps[i] > p->throttle &&
		    (!p->throttle ? throttle_steps[i] + keep >= 100 : true))
			return throttle_steps[i];
	return throttle_steps[ARRAY_SIZE(throttle_steps) - 1];
}

static bool throttle_left(const struct pacing *p)
{
	return p->throttle < throttle_steps[ARRAY_SIZE(throttle_steps) - 1];
}

static void note_progress(struct pacing *p, uint64_t total_ns, uint64_t fixed)
{
	if (total_ns < p->best_ns / 10 * 9) {
		p->best_ns = total_ns;
		p->stalled = 0;
	} else {
		p->stalled++;
	}
	if (fixed > p->params.max_downtime_ns)
		p->hopeless++;
	else
		p->hopeless = 0;
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

/* What the user chose for a migration that does not converge. */
static enum pacing_action last_resort(const struct pacing *p)
{
	return p->params.on_timeout == PACING_PAUSE ? PACING_FORCE
						    : PACING_GIVE_UP;
}

#define REASON(d, ...) snprintf((d)->reason, sizeof((d)->reason), __VA_ARGS__)

static void decide_within(struct pacing *p, uint64_t elapsed_ns,
			  struct pacing_decision *d)
{
	bool in_time =
		!p->params.timeout_ns || elapsed_ns < p->params.timeout_ns;
	uint64_t polish;

	d->prepare = !p->prepared || !p->unsettled;
	if ((!p->prepared || p->unsettled) && in_time) {
		d->action = PACING_GO_ON;
		d->idle = p->unsettled;
		REASON(d, "%.3f ms would do, disks are flushed first",
		       ms(d->prediction.total_ns));
		return;
	}
	if (p->unsettled) {
		d->action = last_resort(p);
		REASON(d, "timeout: the disks have not been flushed yet");
		return;
	}
	polish = polish_ns(p, elapsed_ns, &d->prediction);
	if (polish) {
		p->polished++;
		p->polished_ns = add(p->polished_ns, polish);
		d->action = PACING_GO_ON;
		REASON(d, "%.3f ms would do, one more round pays",
		       ms(d->prediction.total_ns));
		return;
	}
	d->action = PACING_SWITCH;
	REASON(d, "%.3f ms is within %.3f ms", ms(d->prediction.total_ns),
	       ms(p->params.max_downtime_ns));
}

static void decide_stalled(struct pacing *p, struct pacing_decision *d)
{
	if (throttle_left(p)) {
		p->throttle = next_throttle(p);
		p->best_ns = UINT64_MAX;
		p->stalled = 0;
		d->action = PACING_THROTTLE;
		d->throttle = p->throttle;
		REASON(d,
		       "rounds no longer shrink at %.3f ms: slowing the vCPUs "
		       "that dirty by %u %%",
		       ms(d->prediction.total_ns), p->throttle);
		return;
	}
	if (p->params.timeout_ns || p->stalled < PATIENCE_ROUNDS) {
		REASON(d, "%.3f ms, with the guest as slow as can be",
		       ms(d->prediction.total_ns));
		return;
	}
	d->action = last_resort(p);
	REASON(d, "it does not converge: %.3f ms at best, %.3f ms allowed",
	       ms(p->best_ns), ms(p->params.max_downtime_ns));
}

/* The nearer to the bandwidth a guest dirties, the slower do rounds shrink. */
static unsigned int stall_rounds(const struct pacing *p)
{
	return pacing_converges(p) ? SHRINK_ROUNDS : STALL_ROUNDS;
}

static void decide_over(struct pacing *p, uint64_t elapsed_ns,
			struct pacing_decision *d)
{
	uint64_t fixed = fixed_ns(&d->prediction);

	note_progress(p, d->prediction.total_ns, fixed);
	d->action = PACING_GO_ON;
	d->prepare = p->hopeless > 0 ||
		     d->prediction.total_ns / 4 <= p->params.max_downtime_ns;
	if (p->params.timeout_ns && elapsed_ns >= p->params.timeout_ns) {
		d->action = last_resort(p);
		if (d->prediction.total_ns == UINT64_MAX)
			REASON(d, "timeout: too little could be sent to tell "
				  "how long the pause would be");
		else
			REASON(d,
			       "timeout: %.3f ms would be needed, %.3f ms "
			       "allowed",
			       ms(d->prediction.total_ns),
			       ms(p->params.max_downtime_ns));
	} else if (p->hopeless >= HOPELESS_ROUNDS) {
		d->action = last_resort(p);
		REASON(d,
		       "%.3f ms go by even with no page left to send, "
		       "%.3f ms allowed",
		       ms(fixed), ms(p->params.max_downtime_ns));
	} else if (p->stalled < stall_rounds(p) || p->hopeless) {
		REASON(d, "%.3f ms would be needed, %.3f ms allowed",
		       ms(d->prediction.total_ns),
		       ms(p->params.max_downtime_ns));
	} else {
		decide_stalled(p, d);
	}
}

void pacing_decide(struct pacing *p, uint64_t elapsed_ns,
		   struct pacing_decision *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (p->params.offline) {
		ret->action = PACING_FORCE;
		REASON(ret, "offline: the guest is paused for the whole move");
		return;
	}
	assert(p->nrounds > 0);
	for (unsigned int i = 0; i < PACING_COSTS; i++)
		assert(p->ncost[i] > 0);

	pacing_predict(p, last_round(p)->dirty_pages, &ret->prediction);
	ret->throttle = p->throttle;
	if (ret->prediction.total_ns <= p->params.max_downtime_ns)
		decide_within(p, elapsed_ns, ret);
	else
		decide_over(p, elapsed_ns, ret);
	p->last_ns = ret->prediction.total_ns;
	p->prepared = p->prepared || ret->prepare;
	/* when it is decided there is no time to lose */
	if (ret->action != PACING_GO_ON && ret->action != PACING_THROTTLE)
		ret->prepare = false;
}

/* ---- the forecast ---- */

/* From its first byte until the log was read: what its dirty pages took. */
static uint64_t span_ns(const struct pacing *p, const struct pacing_round *r)
{
	return MAX(add(r->ns, cost_ns(p, PACING_SYNC)), 1ULL);
}

/*
 * What the guest dirties in @ns, told from what it did in the last rounds:
 * proportional where nothing like it was seen, between two rounds in between. A
 * guest that keeps to some of its memory dirties ever less of it anew, so a
 * short round says nothing of a long one.
 */
static uint64_t dirtied_in(const struct pacing *p, uint64_t ns)
{
	unsigned int n = MIN(p->nrounds, (unsigned int)PACING_ROUNDS);
	uint64_t low_ns = 0, low = 0, high_ns = UINT64_MAX, high = 0;

	for (unsigned int i = 0; i < n; i++) {
		uint64_t span = span_ns(p, &p->rounds[i]);
		uint64_t pages = p->rounds[i].dirty_pages;

		if (span <= ns && span > low_ns) {
			low_ns = span;
			low = pages;
		}
		if (span >= ns && span < high_ns) {
			high_ns = span;
			high = pages;
		}
	}
	if (high_ns == low_ns)
		return low;
	if (high_ns == UINT64_MAX && !low_ns)
		return p->most_pages;
	if (high_ns == UINT64_MAX)
		return MIN(scale(low, ns, low_ns), MAX(p->most_pages, low));
	if (high < low)
		return low;
	return add(low, scale(high - low, ns - low_ns, high_ns - low_ns));
}

/* One more round of @play, as those of @p were; returns what it takes. */
static uint64_t play_round(const struct pacing *p, struct pacing *play)
{
	uint64_t pages = last_round(play)->dirty_pages;
	uint64_t bytes = scale(pages, PAGE_BYTES, 1);
	struct pacing_round round = {
		.pages = pages,
		.ns = round_ns(play, pages),
		.link_bytes = bytes,
		.link_ns = add(transfer_ns(play, bytes),
			       cost_ns(play, PACING_TRIP)),
	};
	uint64_t span = span_ns(play, &round);

	round.dirty_pages =
		dirtied_in(p, scale(span, 100 - play->throttle, 100));
	pacing_note_round(play, &round);
	return span;
}

/* Costs are measured anew, each round trip as often as it is remembered. */
static uint64_t prepare_ns(const struct pacing *p)
{
	return add(add(cost_ns(p, PACING_STOP), cost_ns(p, PACING_SAVE)),
		   scale(cost_ns(p, PACING_TRIP), PACING_SAMPLES, 1));
}

void pacing_forecast(const struct pacing *p, uint64_t elapsed_ns,
		     struct pacing_forecast *ret)
{
	struct pacing play = *p;
	uint64_t now = elapsed_ns;
	struct pacing_decision d;

	memset(ret, 0, sizeof(*ret));
	pacing_note_settled(&play, true);
	pacing_decide(&play, now, &d);
	while (d.action == PACING_GO_ON || d.action == PACING_THROTTLE) {
		if (d.prepare)
			now = add(now, prepare_ns(p));
		now = add(now, play_round(p, &play));
		/* Nothing changes any more: on to the timeout. */
		if (++ret->rounds == PLAY_ROUNDS)
			now = MAX(now, p->params.timeout_ns);
		pacing_decide(&play, now, &d);
	}
	ret->rounds_ns = now - elapsed_ns;
	ret->action = d.action;
	ret->throttle = d.throttle;
	ret->pause = d.prediction;
	memcpy(ret->reason, d.reason, sizeof(ret->reason));
}

const char *pacing_action_name(enum pacing_action action)
{
	static const char *const names[] = {
		[PACING_GO_ON] = "go on",     [PACING_THROTTLE] = "throttle",
		[PACING_SWITCH] = "switch",   [PACING_FORCE] = "force",
		[PACING_GIVE_UP] = "give up",
	};

	_Static_assert(ARRAY_SIZE(names) == PACING_GIVE_UP + 1, "a name each");
	return names[action];
}

const char *pacing_cost_name(enum pacing_cost cost)
{
	static const char *const names[] = {
		[PACING_STOP] = "stop", [PACING_DRAIN] = "drain",
		[PACING_SAVE] = "save", [PACING_SYNC] = "sync",
		[PACING_LOAD] = "load", [PACING_TRIP] = "round trips",
	};

	_Static_assert(ARRAY_SIZE(names) == PACING_COSTS, "a name each");
	return names[cost];
}
