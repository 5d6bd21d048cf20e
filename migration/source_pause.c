// SPDX-License-Identifier: MIT
/*
 * From the pause to COMMIT: the guest is stopped, the target brought to LOADED,
 * and the guest handed over; see source.c for what is true in which state.
 *
 * Nothing here allocates, resolves a name, or waits for what can be done later.
 * Runs on the migration thread.
 */
#include <errno.h>

#include "migration/source_internal.h"

/* How much longer than a pause may be it may take before it is called off. */
#define ABORT_FACTOR 30
/* COMMIT to RUNNING takes a round trip; after this we go and ask. */
#define RUNNING_PATIENCE (5 * NS_PER_S)

int source_abort(const struct source *s, const char *what, struct error *err)
{
	return error_set(
		err, STREAM_DEADLINE,
		"%s within %.3f ms of pause, which is --abort-after%s", what,
		(double)(s->abort_ns - s->pause_ns) / 1e6,
		s->params.abort_after_ns ? "" : ", 30 times --max-downtime");
}

static int final_pace(void *opaque, size_t bytes, struct error *err)
{
	struct source *s = opaque;

	(void)bytes;
	(void)err;
	return clock_ns() < s->abort_ns ? 0 : STREAM_DEADLINE;
}

/* The source waits no longer than this for LOADED, and then goes on. */
static uint64_t abort_deadline(const struct source *s, uint64_t pause_ns)
{
	uint64_t after = s->params.abort_after_ns;

	if (!after && (s->params.offline || s->forced))
		return STREAM_NO_DEADLINE;
	if (!after)
		after = ABORT_FACTOR * s->max_downtime_ns;
	return pause_ns + after;
}

static uint64_t pause_patience(const struct source *s)
{
	return MIN(s->abort_ns, source_patience(s));
}

/* Pages, state, and that this was it, unless there is something to verify. */
static int send_final(struct source *s, struct error *err)
{
	uint64_t before = s->stream->bytes_sent;
	struct page_counts counts = { 0 };
	int rc;

	source_enter_phase(s, PHASE_FINAL);
	stream_gather(s->stream, true);
	rc = stream_send(s->stream, WIRE_PAUSED, NULL, 0, pause_patience(s),
			 err);
	if (!rc)
		rc = page_sender_send(s->sender, s->dirty, NULL,
				      time_left(pause_patience(s)), final_pace,
				      s, &counts, err);
	if (!rc)
		rc = source_send_sections(s, pause_patience(s), err);
	if (!rc && !s->digest)
		rc = source_send_state_end(s, pause_patience(s), err);
	if (!rc)
		rc = stream_gathered(s->stream, pause_patience(s), err);
	else
		stream_gather(s->stream, false);
	pthread_mutex_lock(&s->lock);
	s->report.pages += counts.pages;
	s->report.zero_pages += counts.zero_pages;
	s->report.hinted_pages = dirty_left_out(s->dirty, NULL);
	s->report.bytes = s->stream->bytes_sent;
	s->report.pause_bytes = s->report.bytes - before;
	s->report.remaining_pages = dirty_pending(s->dirty);
	pthread_mutex_unlock(&s->lock);
	if (rc == STREAM_DEADLINE && clock_ns() >= s->abort_ns)
		return source_abort(s, "what was left was not sent", err);
	return rc;
}

/*
 * State is saved before the last log is taken, for KVM writes guest memory as
 * its state is read.
 */
int source_pause(struct source *s, struct error *err)
{
	struct record record;
	int rc;

	source_set_status(s, STATUS_DEVICE);
	source_enter_phase(s, PHASE_STOP);
	s->deadline_ns = STREAM_NO_DEADLINE;
	s->pause_ns = clock_ns();
	s->abort_ns = abort_deadline(s, s->pause_ns);
	vm_hold_quietly(s->vm, VM_HOLD_MIGRATION);
	rc = source_step(s, SOURCE_ON_PAUSE);
	if (rc)
		return error_set(err, rc, "the guest can't be paused now");
	if (vm_holds(s->vm) & VM_HOLD_ENDED)
		return error_set(err, -ESHUTDOWN, "the guest has ended");
	/* Nothing is written to a disk any more: others may have it. */
	rc = vm_handover(s->vm, DEVICE_YIELD, s->session, err);
	if (rc)
		return rc;
	source_enter_phase(s, PHASE_SAVE);
	rc = vm_state_save(s->vm_state, err);
	if (rc)
		return rc;
	source_enter_phase(s, PHASE_SYNC);
	rc = dirty_sync(s->dirty, true, err);
	if (!rc)
		rc = send_final(s, err);
	if (!rc && s->digest)
		rc = source_verify(s, err);
	if (!rc && s->digest)
		rc = source_send_state_end(s, pause_patience(s), err);
	if (rc)
		return rc;
	source_enter_phase(s, PHASE_LOADED);
	vm_tell_soon(s->vm);
	rc = source_expect(s, WIRE_LOADED, &record, pause_patience(s), err);
	if (rc == STREAM_DEADLINE && clock_ns() >= s->abort_ns)
		return source_abort(s, "the target was not ready", err);
	return rc;
}

int source_commit(struct source *s, struct error *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	if (s->cancel_wanted)
		rc = error_set(err, STREAM_CANCELLED, "cancelled");
	else
		rc = handoff_source_step(&s->state, SOURCE_ON_LOADED);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void source_hand_over(struct source *s, struct error *err)
{
	struct wire_reason reason = { 0 };
	struct record record;
	int rc;

	source_enter_phase(s, PHASE_COMMIT);
	s->stream->interrupt_fd = -1;
	rc = stream_send(s->stream, WIRE_COMMIT, NULL, 0,
			 clock_ns() + RUNNING_PATIENCE, err);
	if (!rc)
		rc = stream_recv(s->stream, &record,
				 clock_ns() + RUNNING_PATIENCE, err);
	if (!rc && record.type == WIRE_RUNNING &&
	    !source_step(s, SOURCE_ON_RUNNING))
		return;
	if (!rc && record.type == WIRE_NACK &&
	    !stream_decode(&record, wire_reason_visit, &reason, err) &&
	    !source_step(s, SOURCE_ON_NACK)) {
		s->nacked = true;
		error_set(err, -ECONNREFUSED, "the target gave up: %s",
			  reason.text);
		return;
	}
	(void)!source_step(s, SOURCE_ON_LOST);
}
