// SPDX-License-Identifier: MIT
/*
 * ROUNDS: guest memory is sent while the guest runs on. Each round sends what
 * is pending, waits until the target has it, and gathers what was written
 * meanwhile; then the policy (pacing.h) says whether to go on.
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

struct precopy {
	struct source *s;
	uint64_t start_ns;
	uint64_t round_start_ns;
	uint64_t sent; /* bytes in this round, for the cap */
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

/* Keep to the bandwidth cap, and show how far it is. */
static int pace(void *opaque, size_t bytes, struct error *err)
{
	struct precopy *p = opaque;
	struct source *s = p->s;
	uint64_t cap = s->bandwidth_cap;
	uint64_t due;

	pthread_mutex_lock(&s->lock);
	s->report.remaining_pages = dirty_pending(s->dirty);
	pthread_mutex_unlock(&s->lock);
	if (cap) {
		due = p->round_start_ns +
		      (uint64_t)((double)p->sent / (double)cap *
				 (double)NS_PER_S);
		int rc = sleep_until(s, due, err);

		if (rc)
			return rc;
	}
	p->sent += bytes;
	return 0;
}

static int acknowledged(struct source *s, uint32_t number, struct error *err)
{
	struct wire_round ack = { 0 };
	struct record record;
	int rc = source_expect(s, WIRE_ROUND_ACK, &record, source_patience(),
			       err);

	if (!rc)
		rc = stream_decode(&record, wire_round_visit, &ack, err);
	if (!rc && ack.number != number)
		rc = error_set(err, -EPROTO,
			       "the peer acknowledged round %u instead of %u",
			       ack.number, number);
	return rc;
}

/* Send what is pending, and wait until the target has it. */
static int send_round(struct precopy *p, uint32_t number,
		      struct page_counts *counts, struct error *err)
{
	struct wire_round round = { .number = number };
	struct wire_round_end end = { .number = number };
	struct source *s = p->s;
	int rc;

	*counts = (struct page_counts){ 0 };
	p->sent = 0;
	rc = stream_send_struct(s->stream, WIRE_ROUND, wire_round_visit, &round,
				source_patience(), err);
	if (!rc)
		rc = page_sender_send(s->sender, s->dirty,
				      source_patience() - clock_ns(), pace, p,
				      counts, err);
	end.pages = counts->pages + counts->zero_pages;
	if (!rc)
		rc = stream_send_struct(s->stream, WIRE_ROUND_END,
					wire_round_end_visit, &end,
					source_patience(), err);
	return rc ? rc : acknowledged(s, number, err);
}

/* What the round was, for the policy and for the report. */
static void note_round(struct source *s, const struct page_counts *counts,
		       uint64_t ns)
{
	struct pacing_round round = {
		.pages = counts->pages + counts->zero_pages,
		.zero_pages = counts->zero_pages,
		.bytes = counts->bytes,
		.ns = ns,
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
	report->pages += counts->pages;
	report->zero_pages += counts->zero_pages;
	report->bytes = s->stream->bytes_sent;
	report->remaining_pages = round.dirty_pages;
	report->bandwidth = pacing_bandwidth(&s->pacing);
	pthread_mutex_unlock(&s->lock);
}

/* One round: send, wait, gather. */
static int run_round(struct precopy *p, uint32_t number, struct error *err)
{
	struct source *s = p->s;
	struct page_counts counts;
	uint64_t sync_ns;
	int rc;

	p->round_start_ns = clock_ns();
	rc = send_round(p, number, &counts, err);
	if (rc)
		return rc;
	sync_ns = clock_ns();
	rc = dirty_sync(s->dirty, false, err);
	if (rc)
		return rc;
	pacing_note_cost(&s->pacing, PACING_SYNC, clock_ns() - sync_ns);
	note_round(s, &counts, sync_ns - p->round_start_ns);
	return 0;
}

static void decide(struct precopy *p, struct pacing_decision *ret)
{
	struct source *s = p->s;

	pacing_set_max_downtime(&s->pacing, s->max_downtime_ns);
	pacing_decide(&s->pacing, clock_ns() - p->start_ns, ret);
	log_info("migration: rounds: %s: %s", pacing_action_name(ret->action),
		 ret->reason);
	pthread_mutex_lock(&s->lock);
	s->report.expected_ns = ret->prediction.total_ns;
	s->report.predicted_ns = ret->prediction.total_ns;
	pthread_mutex_unlock(&s->lock);
}

int precopy_run(struct source *s, struct error *err)
{
	struct precopy p = { .s = s, .start_ns = clock_ns() };
	struct pacing_decision decision;
	int rc = 0;

	for (uint32_t number = 0; !rc; number++) {
		rc = run_round(&p, number, err);
		if (rc)
			break;
		source_settle(s);
		decide(&p, &decision);
		if (decision.prepare)
			rc = source_measure(s, err);
		if (decision.idle)
			rc = sleep_until(s, clock_ns() + IDLE_NS, err);
		switch (decision.action) {
		case PACING_GO_ON:
			break;
		case PACING_THROTTLE:
			vm_throttle(s->vm, decision.throttle);
			break;
		case PACING_SWITCH:
			return rc;
		case PACING_FORCE:
			s->forced = true;
			return rc;
		case PACING_GIVE_UP:
			return error_set(err, -ETIME, "%s", decision.reason);
		}
	}
	return rc;
}
