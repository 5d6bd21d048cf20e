// SPDX-License-Identifier: MIT
/*
 * ROUNDS: guest memory is sent while the guest runs on. Each round sends what
 * is pending, waits until the target has it, and gathers what was written
 * meanwhile; then the policy (pacing.h) says whether to go on.
 *
 * A cap on bandwidth is kept by sleeping, on the average of all rounds. How
 * fast the link itself is, and so the pause will be, is learnt from a burst at
 * the end of each round: what the cap allows in a tenth of a second, and at
 * least BURST_MIN.
 *
 * Runs on the migration thread.
 */
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "migration/source_internal.h"
#include "vmm/log.h"

/* Between rounds that only pass the time until disks are flushed. */
#define IDLE_NS (5 * NS_PER_MS)

#define BURST_PER_S 10
#define BURST_MIN   (1 * MIB)

/* While the cap makes us wait: look again, and show that we are there. */
#define NAP	   (50 * NS_PER_MS)
#define SEEN_EVERY (100 * NS_PER_MS)
#define KEEP_ALIVE (1 * NS_PER_S)

struct precopy {
	struct source *s;
	bool hinted; /* by the guest, in this round */
	uint64_t round_start_ns;
	struct page_counts counts; /* of this round, taken to be sent */
	struct page_counts told;   /* of that, what the report has */
	/* by the cap */
	double debt;	  /* bytes that were sent too early */
	uint64_t debt_ns; /* as of then */
	/* how much was sent, as of when, for those who watch */
	uint64_t seen_ns;
	uint64_t seen_bytes;
	/* the burst of this round */
	bool unbounded; /* all of it: there was no cap when it began */
	bool bursting;
	uint64_t burst_ns;   /* since when */
	uint64_t burst_from; /* of stream->bytes_sent */
};

/* Sleep until @until_ns, or until the migration is interrupted. */
static int sleep_until(struct source *s, uint64_t until_ns, struct error *err)
{
	struct pollfd wake = { .fd = s->interrupt_fd, .events = POLLIN };
	uint64_t now;

	while ((now = clock_ns()) < until_ns) {
		uint64_t left = until_ns - now;
		struct timespec ts = {
			.tv_sec = (time_t)(left / NS_PER_S),
			.tv_nsec = (long)(left % NS_PER_S),
		};

		if (ppoll(&wake, 1, &ts, NULL) > 0)
			return error_set(err, STREAM_CANCELLED, "cancelled");
	}
	return 0;
}

/* Since the user asked for the move: that is what a timeout counts from. */
static uint64_t elapsed_ns(const struct source *s)
{
	return clock_ns() - s->report.start_ns;
}

/* The round has taken so long that the user has something to say to it. */
static bool is_late(const struct precopy *p)
{
	uint64_t timeout = p->s->params.timeout_ns;

	return timeout && elapsed_ns(p->s) >= timeout;
}

/* What is left of the debt; the cap may be another than a moment ago. */
static double debt_now(struct precopy *p, uint64_t cap)
{
	uint64_t now = clock_ns();
	double paid =
		(double)(now - p->debt_ns) / (double)NS_PER_S * (double)cap;

	p->debt_ns = now;
	p->debt = cap && p->debt > paid ? p->debt - paid : 0;
	return p->debt;
}

/* Wait until the cap allows more, or it is late. */
static int pay(struct precopy *p, struct error *err)
{
	uint64_t said_ns = clock_ns();
	struct source *s = p->s;
	double debt;
	int rc = 0;

	while (!rc && (debt = debt_now(p, s->bandwidth_cap)) > 0 &&
	       !is_late(p)) {
		uint64_t cap = MAX(s->bandwidth_cap, 1U);
		double ns = debt / (double)cap * (double)NS_PER_S;

		rc = sleep_until(s, clock_ns() + (uint64_t)MIN(ns, (double)NAP),
				 err);
		if (!rc && clock_ns() - said_ns > KEEP_ALIVE) {
			said_ns = clock_ns();
			rc = source_drain(s, err);
		}
	}
	return rc;
}

/* Begin a burst, with nothing in the pipe, when the round's end is near. */
static int begin_burst(struct precopy *p, struct error *err)
{
	uint64_t cap = p->s->bandwidth_cap;
	uint64_t bytes = MAX(cap / BURST_PER_S, BURST_MIN);
	int rc;

	if (dirty_pending(p->s->dirty) << GUEST_PAGE_SHIFT > bytes)
		return 0;
	rc = source_drain(p->s, err);
	p->bursting = true;
	p->burst_ns = clock_ns();
	p->burst_from = p->s->stream->bytes_sent;
	return rc;
}

/* With the report's lock held. */
static void report_counts(struct precopy *p)
{
	struct report *report = &p->s->report;

	report->pages += p->counts.pages - p->told.pages;
	report->zero_pages += p->counts.zero_pages - p->told.zero_pages;
	p->told = p->counts;
}

/* How far it is, for those who watch. */
static void show(struct precopy *p)
{
	struct source *s = p->s;
	uint64_t now = clock_ns();
	uint64_t ns = now - p->seen_ns;

	pthread_mutex_lock(&s->lock);
	s->report.remaining_pages = dirty_pending(s->dirty);
	s->report.bytes = s->stream->bytes_sent;
	report_counts(p);
	if (ns >= SEEN_EVERY) {
		s->report.sent_per_s =
			(uint64_t)((double)(s->report.bytes - p->seen_bytes) *
				   (double)NS_PER_S / (double)ns);
		p->seen_ns = now;
		p->seen_bytes = s->report.bytes;
	}
	pthread_mutex_unlock(&s->lock);
}

/* The cap may come and go while the round is under way. */
static int keep_to_cap(struct precopy *p, struct error *err)
{
	int rc;

	if (!p->s->bandwidth_cap) {
		/* What is sent now is owed to nobody. */
		p->debt = 0;
		p->debt_ns = clock_ns();
		return 0;
	}
	if (p->unbounded)
		p->bursting = p->unbounded = false;
	if (p->bursting)
		return 0;
	rc = pay(p, err);
	return rc ? rc : begin_burst(p, err);
}

/*
 * Before each record of pages: keep to the cap, and show how far it is.
 *
 * Return: PAGES_ENOUGH when it is so late that the round has to end.
 */
static int pace(void *opaque, size_t bytes, struct error *err)
{
	struct precopy *p = opaque;
	int rc;

	show(p);
	rc = keep_to_cap(p, err);
	p->debt += (double)bytes;
	return rc || !is_late(p) ? rc : PAGES_ENOUGH;
}

static int acknowledged(struct source *s, uint32_t number, struct error *err)
{
	struct wire_round ack = { 0 };
	struct record record;
	int rc = source_expect(s, WIRE_ROUND_ACK, &record, source_patience(s),
			       err);

	if (!rc)
		rc = stream_decode(&record, wire_round_visit, &ack, err);
	if (!rc && ack.number != number)
		rc = error_set(err, -EPROTO,
			       "the peer acknowledged round %u instead of %u",
			       ack.number, number);
	return rc;
}

/*
 * Send what is pending, and wait until the target has it.
 *
 * What the guest hints to be free need not be sent. It is asked as round 0
 * begins, and answers while that goes on, or doesn't: nobody waits.
 */
static int send_round(struct precopy *p, uint32_t number, struct error *err)
{
	struct page_counts *counts = &p->counts;
	struct wire_round round = { .number = number };
	struct wire_round_end end = { .number = number };
	struct source *s = p->s;
	int rc;

	p->counts = p->told = (struct page_counts){ 0 };
	rc = stream_send_struct(s->stream, WIRE_ROUND, wire_round_visit, &round,
				source_patience(s), err);
	if (!rc)
		rc = page_sender_send(
			s->sender, s->dirty, p->hinted ? vm_hints(s->vm) : NULL,
			time_left(source_patience(s)), pace, p, counts, err);
	/* Before the next sync: from then on a hint may be too old. */
	vm_hints_end(s->vm);
	p->hinted = false;
	end.pages = counts->pages + counts->zero_pages;
	if (!rc)
		rc = stream_send_struct(s->stream, WIRE_ROUND_END,
					wire_round_end_visit, &end,
					source_patience(s), err);
	return rc ? rc : acknowledged(s, number, err);
}

/* What the round was, for the policy and for the report. */
static void note_round(struct precopy *p, uint64_t end_ns)
{
	const struct page_counts *counts = &p->counts;
	struct source *s = p->s;
	uint64_t ns = end_ns - p->round_start_ns;
	struct pacing_round round = {
		.pages = counts->pages + counts->zero_pages,
		.zero_pages = counts->zero_pages,
		.ns = ns,
		.link_bytes =
			p->bursting ? s->stream->bytes_sent - p->burst_from : 0,
		.link_ns = p->bursting ? end_ns - p->burst_ns : 0,
		.dirty_pages = dirty_pending(s->dirty),
	};
	struct report *report = &s->report;

	pacing_note_round(&s->pacing, &round);
	pthread_mutex_lock(&s->lock);
	report->dirty_pages_per_s =
		(uint64_t)((double)round.dirty_pages * (double)NS_PER_S /
			   (double)MAX(ns, 1));
	if (report->nrounds < REPORT_ROUNDS_MAX)
		report->rounds[report->nrounds] = (struct report_round){
			.pages = counts->pages,
			.zero_pages = counts->zero_pages,
			.bytes = counts->bytes,
			.ns = ns,
			.dirty_pages_per_s = report->dirty_pages_per_s,
		};
	report->nrounds++;
	report_counts(p);
	report->hinted_pages = dirty_left_out(s->dirty, NULL);
	report->bytes = s->stream->bytes_sent;
	report->remaining_pages = round.dirty_pages;
	report->bandwidth = pacing_bandwidth(&s->pacing);
	pthread_mutex_unlock(&s->lock);
}

/* Without a cap the whole round is a burst. */
static void begin_round(struct precopy *p)
{
	p->round_start_ns = clock_ns();
	p->unbounded = !p->s->bandwidth_cap;
	p->bursting = p->unbounded;
	p->burst_ns = p->round_start_ns;
	p->burst_from = p->s->stream->bytes_sent;
}

/* What each vCPU has had to do with what is dirty now. */
static void note_faults(struct source *s)
{
	uint64_t faults[ARCH_CPUS_MAX];
	bool known = true;

	_Static_assert(ARCH_CPUS_MAX == BLAME_VCPUS_MAX, "blame each");
	_Static_assert(ARCH_CPUS_MAX == REPORT_VCPUS_MAX, "report each");
	for (uint32_t i = 0; known && i < vm_vcpu_count(s->vm); i++)
		known = !vcpu_faults(vm_vcpu(s->vm, i), &faults[i]);
	blame_note(&s->blame, known ? faults : NULL, dirty_pending(s->dirty));
}

/* Slow down those who dirty, and no others; they may be others than before. */
static void throttle(struct source *s, unsigned int percent)
{
	uint8_t *most = s->report.throttled;

	blame_choose(&s->blame, percent);
	vm_throttle(s->vm, percent, s->blame.slow);
	pthread_mutex_lock(&s->lock);
	for (uint32_t i = 0; i < vm_vcpu_count(s->vm); i++) {
		if (s->blame.slow[i])
			most[i] = (uint8_t)MAX(most[i], percent);
	}
	pthread_mutex_unlock(&s->lock);
}

/* One round: send, wait, gather. */
static int run_round(struct precopy *p, uint32_t number, struct error *err)
{
	struct source *s = p->s;
	uint64_t sync_ns;
	int rc;

	if (s->env.on_round)
		s->env.on_round(s->env.opaque, number);
	begin_round(p);
	rc = send_round(p, number, err);
	if (rc)
		return rc;
	sync_ns = clock_ns();
	rc = dirty_sync(s->dirty, false, err);
	if (rc)
		return rc;
	pacing_note_cost(&s->pacing, PACING_SYNC, clock_ns() - sync_ns);
	note_round(p, sync_ns);
	note_faults(s);
	return 0;
}

static void decide(struct precopy *p, struct pacing_decision *ret)
{
	struct source *s = p->s;

	pacing_set_max_downtime(&s->pacing, s->max_downtime_ns);
	pacing_set_cap(&s->pacing, s->bandwidth_cap);
	pacing_decide(&s->pacing, elapsed_ns(s), ret);
	log_info("migration: rounds: %s: %s", pacing_action_name(ret->action),
		 ret->reason);
	pthread_mutex_lock(&s->lock);
	s->report.expected_ns = ret->prediction.total_ns;
	s->report.predicted_ns = ret->prediction.total_ns;
	s->report.outlook = pacing_converges(&s->pacing) ? OUTLOOK_CONVERGES
							 : OUTLOOK_DIVERGES;
	s->report.throttle = ret->throttle;
	pthread_mutex_unlock(&s->lock);
}

static void begin(struct precopy *p, struct source *s)
{
	*p = (struct precopy){ .s = s,
			       .debt_ns = clock_ns(),
			       .seen_ns = clock_ns(),
			       .seen_bytes = s->stream->bytes_sent };
	blame_init(&s->blame, vm_vcpu_count(s->vm));
	p->hinted = vm_hints_begin(s->vm);
}

/* What was decided on to be done before the next round. */
static int get_ready(struct source *s, const struct pacing_decision *decision,
		     struct error *err)
{
	int rc = 0;

	if (decision->prepare)
		rc = source_measure(s, err);
	if (!rc && decision->idle)
		rc = sleep_until(s, clock_ns() + IDLE_NS, err);
	return rc;
}

int precopy_rehearse(struct source *s, struct error *err)
{
	struct pacing_decision decision;
	struct precopy p;
	int rc = 0;

	begin(&p, s);
	for (uint32_t number = 0; !rc; number++) {
		rc = run_round(&p, number, err);
		if (rc)
			break;
		source_settle(s);
		if (number > 0 && !s->pacing.unsettled)
			return 0;
		decide(&p, &decision);
		if (decision.action == PACING_GIVE_UP ||
		    decision.action == PACING_FORCE)
			return error_set(err, -ETIME,
					 "%s; give a longer --timeout",
					 decision.reason);
		/* As if the end were near: its costs are wanted. */
		decision.prepare = true;
		rc = get_ready(s, &decision, err);
	}
	return rc;
}

int precopy_run(struct source *s, struct error *err)
{
	char advice[PACING_REASON_MAX];
	struct pacing_decision decision;
	struct precopy p;
	int rc = 0;

	begin(&p, s);
	for (uint32_t number = 0; !rc; number++) {
		rc = run_round(&p, number, err);
		if (rc)
			break;
		source_settle(s);
		decide(&p, &decision);
		rc = get_ready(s, &decision, err);
		switch (decision.action) {
		case PACING_GO_ON:
		case PACING_THROTTLE:
			throttle(s, decision.throttle);
			break;
		case PACING_SWITCH:
			return rc;
		case PACING_FORCE:
			s->forced = true;
			return rc;
		case PACING_GIVE_UP:
			return error_set(
				err, -ETIME, "%s; %s", decision.reason,
				pacing_advice(&s->pacing, elapsed_ns(s),
					      SOURCE_DOWNTIME_MAX, advice));
		}
	}
	return rc;
}
