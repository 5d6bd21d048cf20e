// SPDX-License-Identifier: MIT
/*
 * The source's life: from HELLO to the decision who has the guest; see
 * source.h. What comes before the first page is in source_setup.c, pre-copy in
 * precopy.c.
 *
 * The handoff state changes through step() and nowhere else. What is true in
 * which state:
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
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "migration/source_internal.h"
#include "vmm/log.h"

/* COMMIT to RUNNING takes a round trip; after this we go and ask. */
#define ABORT_FACTOR 30
/* Longer than anybody waits, and far from where nanoseconds overflow. */
#define DOWNTIME_MAX	 (86400 * NS_PER_S)
#define RUNNING_PATIENCE (5 * NS_PER_S)
#define ASK_PATIENCE	 (2 * NS_PER_S)
#define ASK_INTERVAL_MS	 500
#define GOODBYE_PATIENCE (1 * NS_PER_S)
#define TIMEOUT_GRACE	 (1 * NS_PER_S)

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

static int step(struct source *s, enum source_event event)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = handoff_source_step(&s->state, event);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static enum source_state state_now(struct source *s)
{
	enum source_state state;

	pthread_mutex_lock(&s->lock);
	state = s->state;
	pthread_mutex_unlock(&s->lock);
	return state;
}

static void set_status(struct source *s, enum report_status status)
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

/* It ends at the user's timeout; @err says what was waited for. */
static int timed_out(struct source *s, struct error *err)
{
	if (s->grace_ns)
		error_prefix(err, "timeout, and nothing has been sent that a "
				  "pause could finish");
	else
		error_prefix(err, "timeout");
	return -ETIME;
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
	set_status(s, STATUS_ACTIVE);
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

/* ---- the pause ---- */

static int final_pace(void *opaque, size_t bytes, struct error *err)
{
	struct source *s = opaque;

	(void)bytes;
	if (clock_ns() < s->abort_ns)
		return 0;
	return error_set(err, STREAM_DEADLINE,
			 "the pause takes longer than --abort-after allows");
}

/* The source waits no longer than this for LOADED, and then goes on. */
static uint64_t abort_deadline(const struct source *s, uint64_t pause_ns)
{
	uint64_t after = s->params.abort_after_ns;

	if (!after && (s->params.offline || s->forced))
		return STREAM_NO_DEADLINE;
	if (!after)
		after = ABORT_FACTOR * MIN(s->max_downtime_ns, DOWNTIME_MAX);
	return pause_ns + MIN(after, DOWNTIME_MAX);
}

static uint64_t pause_patience(const struct source *s)
{
	return MIN(s->abort_ns, source_patience(s));
}

static int send_final(struct source *s, struct error *err)
{
	uint64_t before = s->stream->bytes_sent;
	struct page_counts counts = { 0 };
	int rc;

	source_enter_phase(s, PHASE_FINAL);
	rc = stream_send(s->stream, WIRE_PAUSED, NULL, 0, pause_patience(s),
			 err);
	s->stream->more = true;
	if (!rc)
		rc = page_sender_send(s->sender, s->dirty, NULL,
				      time_left(pause_patience(s)), final_pace,
				      s, &counts, err);
	if (!rc)
		rc = source_send_sections(s, pause_patience(s), err);
	s->stream->more = false;
	pthread_mutex_lock(&s->lock);
	s->report.pages += counts.pages;
	s->report.zero_pages += counts.zero_pages;
	s->report.hinted_pages = dirty_left_out(s->dirty, NULL);
	s->report.bytes = s->stream->bytes_sent;
	s->report.pause_bytes = s->report.bytes - before;
	s->report.remaining_pages = dirty_pending(s->dirty);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/*
 * Stop the guest and bring the target to LOADED. State is saved before the
 * last log is taken, for KVM writes guest memory as its state is read.
 */
static int pause_and_load(struct source *s, struct error *err)
{
	struct record record;
	int rc;

	set_status(s, STATUS_DEVICE);
	source_enter_phase(s, PHASE_STOP);
	s->deadline_ns = STREAM_NO_DEADLINE;
	s->pause_ns = clock_ns();
	s->abort_ns = abort_deadline(s, s->pause_ns);
	vm_hold_quietly(s->vm, VM_HOLD_MIGRATION);
	rc = step(s, SOURCE_ON_PAUSE);
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
	if (rc)
		return rc;
	source_enter_phase(s, PHASE_LOADED);
	rc = source_send_state_end(s, pause_patience(s), err);
	if (rc)
		return rc;
	vm_tell_soon(s->vm);
	rc = source_expect(s, WIRE_LOADED, &record, pause_patience(s), err);
	if (rc == STREAM_DEADLINE)
		return error_set(err, rc,
				 "the target was not ready within "
				 "--abort-after");
	return rc;
}

/* The point of no return. A cancel that was granted comes first. */
static int commit_step(struct source *s, struct error *err)
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

/* COMMIT has been decided on; whatever fails here is LOST, never FAIL. */
static void hand_over(struct source *s, struct error *err)
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
	if (!rc && record.type == WIRE_RUNNING && !step(s, SOURCE_ON_RUNNING))
		return;
	if (!rc && record.type == WIRE_NACK &&
	    !stream_decode(&record, wire_reason_visit, &reason, err) &&
	    !step(s, SOURCE_ON_NACK)) {
		s->nacked = true;
		error_set(err, -ECONNREFUSED, "the target gave up: %s",
			  reason.text);
		return;
	}
	(void)!step(s, SOURCE_ON_LOST);
}

/* ---- asking ---- */

/* We know what became of the session; the target may forget it. */
static void send_done(struct stream *stream)
{
	struct error err;

	(void)!stream_send(stream, WIRE_DONE, NULL, 0,
			   clock_ns() + GOODBYE_PATIENCE, &err);
}

static enum source_event verdict_event(const struct wire_verdict *verdict)
{
	switch (verdict->kind) {
	case WIRE_VERDICT_RUNNING:
		return SOURCE_ON_VERDICT_RUNNING;
	case WIRE_VERDICT_NEVER:
		return SOURCE_ON_VERDICT_NEVER;
	default:
		return SOURCE_ON_VERDICT_UNKNOWN;
	}
}

/* One attempt to learn what became of the session. */
static void ask_once(struct source *s)
{
	struct wire_verdict verdict = { 0 };
	uint64_t deadline = clock_ns() + ASK_PATIENCE;
	struct stream *stream = NULL;
	struct wire_hello query;
	struct record record;
	struct error err;
	int rc;

	source_fill_hello(s, &query);
	rc = source_connect(s, deadline, &stream, &err);
	if (!rc)
		rc = stream_send_struct(stream, WIRE_QUERY, wire_hello_visit,
					&query, deadline, &err);
	if (!rc)
		rc = stream_recv(stream, &record, deadline, &err);
	if (!rc && record.type == WIRE_VERDICT)
		rc = stream_decode(&record, wire_verdict_visit, &verdict, &err);
	if (!rc && memcmp(verdict.session, s->session, sizeof(s->session)))
		rc = error_set(&err, -EPROTO, "an answer on another session");
	/* The operator may have been faster; his word stands. */
	if (!rc)
		(void)!step(s, verdict_event(&verdict));
	if (!rc && verdict.kind != WIRE_VERDICT_UNKNOWN)
		send_done(stream);
	stream_close(stream);
	if (rc)
		log_info("migration: asking: %s", err.text);
}

static void ask(struct source *s)
{
	struct pollfd wake = { .fd = s->interrupt_fd, .events = POLLIN };
	char text[WIRE_SESSION_TEXT];
	uint64_t count;

	/* The target's log names the session that it took the guest of. */
	log_warn("migration: the connection was lost after COMMIT; the guest "
		 "of session %s stays paused here until the target says what "
		 "became of it",
		 wire_session_text(s->session, text));
	set_status(s, STATUS_UNCERTAIN);
	stream_close(s->stream);
	s->stream = NULL;
	while (state_now(s) == SOURCE_ASKING) {
		/* fd:N can't be connected to again: the operator decides. */
		if (s->params.to.kind != ADDRESS_FD)
			ask_once(s);
		if (state_now(s) != SOURCE_ASKING)
			break;
		(void)poll(&wake, 1, ASK_INTERVAL_MS);
		(void)!read(s->interrupt_fd, &count, sizeof(count));
	}
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
		send_done(s->stream);
	else if (s->stream->send_sequence)
		(void)!stream_send_reason(s->stream, WIRE_ABORT, abort_code(rc),
					  why, clock_ns() + GOODBYE_PATIENCE,
					  &err);
	stream_close(s->stream);
	s->stream = NULL;
}

/* The target has closed the connection; it may have said why before. */
static int learn_why(struct source *s, struct error *err)
{
	uint64_t deadline = clock_ns() + GOODBYE_PATIENCE;
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
	return STREAM_ENDED;
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
	set_status(s, end_status(rc));
	return rc;
}

static int moved(struct source *s)
{
	uint64_t now = clock_ns();
	uint64_t closed = vm_left_behind(s->vm);

	pthread_mutex_lock(&s->lock);
	s->report.closed_connections = closed;
	s->report.downtime_ns = now - s->pause_ns;
	pthread_mutex_unlock(&s->lock);
	finish_report(s, s->resolved ? "discarded at the operator's word" : "");
	if (s->stream)
		send_done(s->stream);
	set_status(s, STATUS_COMPLETED);
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
	set_status(s, STATUS_SETUP);
	rc = before_the_pause(s, err);
	if (rc == STREAM_DEADLINE && clock_ns() >= s->deadline_ns)
		rc = timed_out(s, err);
	if (!rc && s->params.dry_run)
		rc = end_dry_run(s, err);
	if (!rc)
		rc = pause_and_load(s, err);
	if (!rc)
		rc = commit_step(s, err);
	if (rc) {
		(void)!step(s, fail_event(rc));
		return keep(s, rc, err);
	}
	hand_over(s, err);
	if (state_now(s) == SOURCE_ASKING) {
		ask(s);
		error_set(err, -ECONNABORTED, "%s",
			  s->resolved ? "resumed at the operator's word"
				      : "the target never ran the guest");
	}
	return state_now(s) == SOURCE_MOVED ? moved(s)
					    : keep(s, -ECONNREFUSED, err);
}
