// SPDX-License-Identifier: MIT
/*
 * The source's life: from HELLO to the decision who has the guest; see
 * source.h. What comes before the first page is in source_setup.c, pre-copy in
 * precopy.c, the pause and COMMIT in source_pause.c, asking in source_ask.c.
 *
 * The handoff state changes by handoff_source_step() under the lock, and
 * nowhere else. What is true in which state:
 *
 *   RUNS       the guest runs here; any failure just ends the attempt
 *   PAUSED     it is held here; any failure lets it go on at once
 *   COMMITTED  it is held here and may run there; only NACK brings it back
 *   ASKING     as COMMITTED, without a connection
 *   MOVED/KEPT decided
 *
 * Cancelling is a wish noted under the lock: it is granted as long as COMMIT
 * was not sent, and the step to COMMITTED looks for it under the same lock, so
 * a cancel that was granted is never overtaken by a COMMIT.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "migration/source_internal.h"
#include "vmm/log.h"

#define TIMEOUT_GRACE (1 * NS_PER_S)

const struct source_params source_params_default = {
	.max_downtime_ns = 10 * NS_PER_MS,
	.on_timeout = SOURCE_TIMEOUT_CANCEL,
};

/* ---- making ---- */

int source_create(const struct source_env *env,
		  const struct source_params *params, struct source **ret,
		  struct error *err)
{
	struct source *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return error_set(err, -ENOMEM, "migration: out of memory");
	s->env = *env;
	s->params = *params;
	s->vm = env->vm;
	s->max_downtime_ns = params->max_downtime_ns;
	pacing_init(
		&s->pacing,
		&(struct pacing_params){
			.max_downtime_ns = params->max_downtime_ns,
			.timeout_ns = params->timeout_ns,
			.on_timeout = params->on_timeout == SOURCE_TIMEOUT_PAUSE
					      ? PACING_PAUSE
					      : PACING_CANCEL,
			.offline = params->offline,
		});
	s->bandwidth_cap = params->bandwidth;
	s->report.dry_run = params->dry_run;
	s->report.offline = params->offline;
	s->report.memory_size = vm_machine(s->vm)->memory_size;
	s->report.remaining_pages = s->report.memory_size / GUEST_PAGE_SIZE;
	pthread_mutex_init(&s->lock, NULL);
	s->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->interrupt_fd < 0) {
		rc = error_set(err, -errno, "eventfd: %s", strerror(errno));
		goto fail;
	}
	if (getrandom(s->session, sizeof(s->session), 0) !=
	    (ssize_t)sizeof(s->session)) {
		rc = error_set(err, -EIO, "getrandom: %s", strerror(errno));
		goto fail;
	}
	wire_session_text(s->session, s->report.session);
	rc = dirty_create(vm_memory(s->vm), vm_fd(s->vm), &s->dirty, err);
	if (!rc)
		rc = vm_state_create(s->vm, &s->vm_state, err);
	if (rc)
		goto fail;
	*ret = s;
	return 0;

fail:
	source_free(s);
	return rc;
}

void source_free(struct source *s)
{
	if (!s)
		return;
	stream_close(s->stream);
	page_sender_free(s->sender);
	digest_free(s->digest);
	vm_state_free(s->vm_state);
	dirty_free(s->dirty);
	close_fd(&s->interrupt_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- states and status ---- */

int source_step(struct source *s, enum source_event event)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = handoff_source_step(&s->state, event);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

enum source_state source_state_now(struct source *s)
{
	enum source_state state;

	pthread_mutex_lock(&s->lock);
	state = s->state;
	pthread_mutex_unlock(&s->lock);
	return state;
}

void source_set_status(struct source *s, enum report_status status)
{
	pthread_mutex_lock(&s->lock);
	s->report.status = status;
	pthread_mutex_unlock(&s->lock);
	if (s->env.on_status)
		s->env.on_status(s->env.opaque, status);
}

void source_enter_phase(struct source *s, enum report_phase phase)
{
	uint64_t now = clock_ns();

	pthread_mutex_lock(&s->lock);
	s->report.phase_ns[s->report.phase] += now - s->phase_start_ns;
	s->report.phase = phase;
	s->phase_start_ns = now;
	pthread_mutex_unlock(&s->lock);
}

static void finish_report(struct source *s, const char *error)
{
	source_enter_phase(s, s->report.phase);
	pthread_mutex_lock(&s->lock);
	s->report.total_ns = clock_ns() - s->report.start_ns;
	s->report.sent_per_s =
		(uint64_t)((double)s->report.bytes * (double)NS_PER_S /
			   (double)MAX(s->report.total_ns, 1));
	snprintf(s->report.error, sizeof(s->report.error), "%s", error);
	pthread_mutex_unlock(&s->lock);
}

void source_report(struct source *s, struct report *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->report;
	ret->max_downtime_ns = s->max_downtime_ns;
	ret->bandwidth_cap = s->bandwidth_cap;
	if (!ret->total_ns && ret->start_ns) {
		ret->total_ns = clock_ns() - ret->start_ns;
		ret->phase_ns[ret->phase] += clock_ns() - s->phase_start_ns;
	}
	pthread_mutex_unlock(&s->lock);
}

static void interrupt(struct source *s)
{
	uint64_t one = 1;

	if (write(s->interrupt_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("migration wake-up: %s", strerror(errno));
}

int source_cancel(struct source *s)
{
	enum source_state state;
	int rc;

	pthread_mutex_lock(&s->lock);
	/* Try the step on a copy: the thread takes it when it gets there. */
	state = s->state;
	rc = handoff_source_step(&state, SOURCE_ON_CANCEL);
	if (!rc)
		s->cancel_wanted = true;
	pthread_mutex_unlock(&s->lock);
	if (!rc)
		interrupt(s);
	return rc;
}

int source_resolve(struct source *s, bool resume)
{
	enum source_event event =
		resume ? SOURCE_ON_OPERATOR_RESUME : SOURCE_ON_OPERATOR_DISCARD;
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = handoff_source_step(&s->state, event);
	s->resolved = s->resolved || !rc;
	pthread_mutex_unlock(&s->lock);
	if (!rc)
		interrupt(s);
	return rc;
}

void source_set_max_downtime(struct source *s, uint64_t ns)
{
	s->max_downtime_ns = ns;
}

void source_set_bandwidth(struct source *s, uint64_t bytes_per_s)
{
	s->bandwidth_cap = bytes_per_s;
}

/*
 * Where the user's timeout ends the wait for a peer that does not answer. Who
 * wants the guest paused then gives one that answers the time to get to where
 * there is something to be finished.
 */
static void set_deadline(struct source *s)
{
	s->deadline_ns = STREAM_NO_DEADLINE;
	if (!s->params.timeout_ns)
		return;
	s->deadline_ns = s->report.start_ns + s->params.timeout_ns;
	if (s->params.on_timeout == SOURCE_TIMEOUT_PAUSE)
		s->grace_ns = TIMEOUT_GRACE;
}

/* A round that is under way may end by itself, and say what is missing. */
static void allow_rounds(struct source *s)
{
	s->grace_ns = 0;
	if (s->params.on_timeout == SOURCE_TIMEOUT_PAUSE)
		s->deadline_ns = STREAM_NO_DEADLINE;
	else if (s->deadline_ns != STREAM_NO_DEADLINE)
		s->deadline_ns += TIMEOUT_GRACE;
}

/* It ends at the user's timeout, whatever was waited for. */
static int timed_out(struct source *s, struct error *err)
{
	return error_set(err, -ETIME,
			 "timeout: %.3f ms are over, and the target has not "
			 "answered in phase %s%s%s",
			 (double)s->params.timeout_ns / 1e6,
			 report_phase_name(s->report.phase),
			 s->report.phase == PHASE_HELLO
				 ? "; does a `godwit listen` wait there?"
				 : "",
			 s->grace_ns ? "; nothing has been sent that a pause "
				       "could finish"
				     : "");
}

static int before_the_pause(struct source *s, struct error *err)
{
	const char *never = vm_never_migrates(s->vm);
	int rc;

	if (never)
		return error_set(err, -ENOTSUP, "%s", never);
	rc = source_set_up(s, err);
	if (rc)
		return rc;
	source_set_status(s, STATUS_ACTIVE);
	source_enter_phase(s, PHASE_ROUNDS);
	allow_rounds(s);
	rc = dirty_start(s->dirty, vm_host(s->vm)->kvm->pagemap_fd, err);
	if (rc || s->params.offline)
		return rc;
	return s->params.dry_run ? precopy_rehearse(s, err)
				 : precopy_run(s, err);
}

/* A dry run goes no further. A cancel that was granted comes first. */
static int end_dry_run(struct source *s, struct error *err)
{
	int rc;

	source_forecast(s);
	pthread_mutex_lock(&s->lock);
	if (s->cancel_wanted)
		rc = error_set(err, STREAM_CANCELLED, "cancelled");
	else
		rc = handoff_source_step(&s->state, SOURCE_ON_CANCEL);
	pthread_mutex_unlock(&s->lock);
	return rc ? rc
		  : error_set(err, SOURCE_REHEARSED,
			      "it was no more than a dry run");
}

/* ---- the whole ---- */

static enum wire_abort abort_code(int rc)
{
	if (rc == SOURCE_REHEARSED)
		return WIRE_ABORT_REHEARSED;
	return rc == STREAM_CANCELLED ? WIRE_ABORT_CANCELLED
				      : WIRE_ABORT_FAILED;
}

static enum report_status end_status(int rc)
{
	if (rc == SOURCE_REHEARSED)
		return STATUS_REHEARSED;
	return rc == STREAM_CANCELLED ? STATUS_CANCELLED : STATUS_FAILED;
}

/*
 * Courtesy: the target acts the same when the line goes dead, only later.
 * After NACK there is nothing left to abort; DONE says that we know. And where
 * not even HELLO went out, ABORT has no place.
 */
static void say_goodbye(struct source *s, int rc, const char *why)
{
	struct error err;

	if (!s->stream)
		return;
	s->stream->interrupt_fd = -1;
	if (s->nacked)
		source_send_done(s->stream);
	else if (s->stream->send_sequence)
		(void)!stream_send_reason(
			s->stream, WIRE_ABORT, abort_code(rc), why,
			clock_ns() + SOURCE_GOODBYE_PATIENCE, &err);
	stream_close(s->stream);
	s->stream = NULL;
}

/* The target has closed the connection; it may have said why before. */
static int learn_why(struct source *s, struct error *err)
{
	uint64_t deadline = clock_ns() + SOURCE_GOODBYE_PATIENCE;
	struct wire_reason reason = { 0 };
	struct record record;
	struct error ignored;

	s->stream->interrupt_fd = -1;
	while (!stream_recv(s->stream, &record, deadline, &ignored)) {
		if (record.type == WIRE_REFUSE &&
		    !stream_decode(&record, wire_reason_visit, &reason,
				   &ignored))
			return error_set(err, -ECONNREFUSED,
					 "the target refuses: %s", reason.text);
	}
	return error_set(err, STREAM_ENDED,
			 "%s closed the connection in phase %s and said not "
			 "why; see the log of the `godwit listen` there",
			 s->params.to.text, report_phase_name(s->report.phase));
}

/*
 * It runs on here. The guest first, manners and cleaning up after. The right to
 * write to its disks may still be with the target, which then never uses it;
 * nobody else can have taken it, for owning the disks was never given up.
 */
static int keep(struct source *s, int rc, struct error *err)
{
	struct error ignored;

	vm_throttle(s->vm, 0, NULL);
	vm_release(s->vm, VM_HOLD_MIGRATION);
	(void)!vm_handover(s->vm, DEVICE_RECLAIM, s->session, &ignored);
	if (rc == STREAM_ENDED && s->stream)
		rc = learn_why(s, err);
	finish_report(s, rc == SOURCE_REHEARSED ? "" : err->text);
	say_goodbye(s, rc, err->text);
	dirty_stop(s->dirty);
	source_set_status(s, end_status(rc));
	return rc;
}

/*
 * What was let go is of use on this host only. The target hangs up when it has
 * taken it, and whoever hears that the guest has moved finds it there.
 */
static void await_takeover(struct source *s)
{
	struct record record;
	struct error ignored;

	if (s->env.on_moved && transport_is_within_host(s->stream->fd))
		(void)!stream_recv(s->stream, &record,
				   clock_ns() + SOURCE_GOODBYE_PATIENCE,
				   &ignored);
}

static int moved(struct source *s)
{
	uint64_t now = clock_ns();
	uint64_t closed = vm_left_behind(s->vm);
	struct error ignored;

	pthread_mutex_lock(&s->lock);
	s->report.closed_connections = closed;
	s->report.downtime_ns = now - s->pause_ns;
	pthread_mutex_unlock(&s->lock);
	finish_report(s, s->resolved ? "discarded at the operator's word" : "");
	(void)!vm_handover(s->vm, DEVICE_LEAVE, s->session, &ignored);
	source_let_go(s);
	if (s->stream) {
		source_send_done(s->stream);
		await_takeover(s);
	}
	source_set_status(s, STATUS_COMPLETED);
	return 0;
}

static enum source_event fail_event(int rc)
{
	if (rc == STREAM_CANCELLED)
		return SOURCE_ON_CANCEL;
	if (rc == STREAM_ENDED)
		return SOURCE_ON_LOST;
	return SOURCE_ON_FAIL;
}

int source_run(struct source *s, struct error *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	s->report.start_ns = clock_ns();
	s->phase_start_ns = s->report.start_ns;
	pthread_mutex_unlock(&s->lock);
	set_deadline(s);
	source_set_status(s, STATUS_SETUP);
	rc = before_the_pause(s, err);
	if (rc == STREAM_DEADLINE && clock_ns() >= s->deadline_ns)
		rc = timed_out(s, err);
	if (!rc && s->params.dry_run)
		rc = end_dry_run(s, err);
	if (!rc)
		rc = source_pause(s, err);
	if (!rc)
		rc = source_commit(s, err);
	if (rc) {
		(void)!source_step(s, fail_event(rc));
		return keep(s, rc, err);
	}
	source_hand_over(s, err);
	if (source_state_now(s) == SOURCE_ASKING) {
		source_ask(s);
		error_set(err, -ECONNABORTED, "%s",
			  s->resolved ? "resumed at the operator's word"
				      : "the target never ran the guest");
	}
	return source_state_now(s) == SOURCE_MOVED
		       ? moved(s)
		       : keep(s, -ECONNREFUSED, err);
}
