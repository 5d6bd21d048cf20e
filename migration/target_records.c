// SPDX-License-Identifier: MIT
/*
 * What each record does at a target, and which may come when: a table, at the
 * end. The handoff machine (handoff.h) does not know about rounds and sections;
 * they are stages of the connection. CONFIG and IMAGE are in target_build.c,
 * what is to be verified in target_verify.c.
 *
 * Everything the peer sends is checked before it has an effect, and nothing is
 * committed before everything is checked.
 *
 * Runs on the thread of target_run().
 */
#include <errno.h>
#include <string.h>

#include "migration/target_internal.h"
#include "migration/transport.h"
#include "vmm/log.h"

/* A connection brings no more than two can populate. */
#define POPULATE_THREADS 2

/* ---- state ---- */

static int on_rehearse(struct target *t, const struct record *record,
		       struct error *err)
{
	(void)record;
	(void)err;
	/* The image is complete; from here on it is the VM's. */
	vm_set_image(t->vm, &t->image);
	t->image.kernel_fd = -1;
	t->image.initrd_fd = -1;
	vm_state_reset(t->vm_state);
	t->nsections = 0;
	return 0;
}

static int on_section(struct target *t, const struct record *record,
		      struct error *err)
{
	struct wire_section front = { 0 };
	struct vm_section section;
	uint64_t start = clock_ns();
	const uint8_t *rest;
	int rc = stream_decode_front(record, wire_section_visit, &front, &rest,
				     &section.len, err);

	if (rc)
		return rc;
	memcpy(section.type, front.type, sizeof(section.type));
	memcpy(section.id, front.id, sizeof(section.id));
	section.version = front.version;
	section.data = rest;
	rc = vm_state_decode(t->vm_state, &section, err);
	t->nsections++;
	t->times.decode_ns += clock_ns() - start;
	return rc ? rc : target_take_section(t, &section, err);
}

/* All sections are here: are they all, and all possible? */
static int check_state(struct target *t, const struct record *record,
		       struct error *err)
{
	struct wire_state_end end = { 0 };
	uint64_t start = clock_ns();
	int rc = stream_decode(record, wire_state_end_visit, &end, err);

	if (!rc && end.nsections != t->nsections)
		rc = error_set(err, -EBADMSG,
			       "%u sections of state, said to "
			       "be %u",
			       t->nsections, end.nsections);
	if (!rc)
		rc = vm_state_check(t->vm_state, err);
	t->times.check_ns = clock_ns() - start;
	return rc;
}

static int send_times(struct target *t, enum wire_type type, struct error *err)
{
	struct wire_load_times times = t->times;

	t->times = (struct wire_load_times){ 0 };
	t->nsections = 0;
	return stream_send_struct(t->stream, type, wire_load_times_visit,
				  &times, clock_ns() + TARGET_REPLY_PATIENCE,
				  err);
}

static int on_rehearsal_end(struct target *t, const struct record *record,
			    struct error *err)
{
	int rc = check_state(t, record, err);

	if (!rc)
		rc = vm_state_rehearse(t->vm_state, t->env.spares,
				       transport_is_within_host(t->stream->fd),
				       &t->times.load_ns, err);
	vm_state_reset(t->vm_state);
	return rc ? rc : send_times(t, WIRE_REHEARSED, err);
}

static int on_state_end(struct target *t, const struct record *record,
			struct error *err)
{
	uint64_t start;
	int rc;

	target_end_populating(t);
	if (!verifier_content(t->verifier))
		return stream_unexpected(record, "DIGEST", err);
	rc = check_state(t, record, err);
	start = clock_ns();
	if (!rc)
		rc = vm_state_load(t->vm_state, err);
	/* The source writes no more; whoever says LOADED may. */
	if (!rc)
		rc = vm_handover(t->vm, DEVICE_TAKE, t->hello.session, err);
	t->times.load_ns = clock_ns() - start;
	if (rc)
		return rc;
	pthread_mutex_lock(&t->lock);
	(void)!handoff_target_step(&t->state, TARGET_ON_LOADED);
	t->reached_loaded = t->state == TARGET_LOADED;
	pthread_mutex_unlock(&t->lock);
	if (!t->reached_loaded)
		return error_set(err, STREAM_CANCELLED, "cancelled");
	t->commit_deadline_ns =
		clock_ns() + t->hello.commit_deadline_ms * NS_PER_MS;
	rc = send_times(t, WIRE_LOADED, err);
	t->said_loaded = !rc;
	return rc;
}

/* ---- rounds ---- */

static int on_round(struct target *t, const struct record *record,
		    struct error *err)
{
	struct wire_round round = { 0 };
	int rc = stream_decode(record, wire_round_visit, &round, err);

	if (!rc && round.number != t->round)
		return error_set(err, -EPROTO, "round %u instead of %u",
				 round.number, t->round);
	t->round_pages = 0;
	return rc;
}

static int on_runs(struct target *t, const struct record *record,
		   struct error *err)
{
	struct wire_runs_header front = { 0 };

	memcpy(&front, record->payload, MIN(sizeof(front), record->length));
	t->round_pages += front.npages;
	return page_receiver_take(
		t->receiver, t->stream, record,
		clock_ns() + t->hello.silence_deadline_ms * NS_PER_MS, err);
}

static int populate_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	(void)vcpu;
	(void)err;
	populate_work(opaque);
	return 0;
}

static int on_expect(struct target *t, const struct record *record,
		     struct error *err)
{
	if (!t->populating && !t->round) {
		t->populating = true;
		vm_lend_vcpus(t->vm, POPULATE_THREADS, populate_errand,
			      t->populate);
	}
	return page_receiver_take(t->receiver, t->stream, record, 0, err);
}

static int on_round_end(struct target *t, const struct record *record,
			struct error *err)
{
	struct wire_round ack = { .number = t->round };
	struct wire_round_end end = { 0 };
	int rc = stream_decode(record, wire_round_end_visit, &end, err);

	if (rc)
		return rc;
	if (end.number != t->round || end.pages != t->round_pages)
		return error_set(err, -EPROTO,
				 "round %u ends as round %u, "
				 "with %llu of %llu pages",
				 t->round, end.number,
				 (unsigned long long)t->round_pages,
				 (unsigned long long)end.pages);
	t->round++;
	/* It was for the first round; what comes now has mostly been here. */
	target_end_populating(t);
	return stream_send_struct(t->stream, WIRE_ROUND_ACK, wire_round_visit,
				  &ack, clock_ns() + TARGET_REPLY_PATIENCE,
				  err);
}

static int on_paused(struct target *t, const struct record *record,
		     struct error *err)
{
	if (t->hello.capabilities & WIRE_CAP_DRY_RUN)
		return stream_unexpected(record, "ROUND or ABORT", err);
	return 0;
}

/* ---- COMMIT ---- */

#define RUNS_HERE "the guest of session %s runs here from now on"

/*
 * The guest is let go under the lock, so that a QUERY never gets an answer
 * that is not true yet. Nothing here can fail.
 */
static int on_commit(struct target *t, const struct record *record,
		     struct error *err)
{
	char session[WIRE_SESSION_TEXT];
	struct wire_running running = { 0 };
	uint64_t start = clock_ns();
	struct vm *vm = t->vm;
	bool logged = true;

	(void)record;
	wire_session_text(t->hello.session, session);
	if (t->env.paused)
		vm_hold_quietly(vm, VM_HOLD_USER);
	pthread_mutex_lock(&t->lock);
	(void)!handoff_target_step(&t->state, TARGET_ON_COMMIT);
	if (t->state == TARGET_RUNNING) {
		/*
		 * An operator who has to decide later goes by this line. It is
		 * late only when nobody reads: no guest waits for that.
		 */
		logged = log_now(LOG_NOTICE, RUNS_HERE, session);
		vm_release_quietly(vm, VM_HOLD_BIRTH);
		t->vm = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	if (t->vm)
		return error_set(err, STREAM_CANCELLED, "cancelled");
	running.resume_ns = clock_ns() - start;
	t->stream->interrupt_fd = -1;
	/* If this doesn't arrive the source asks, and is told. */
	if (stream_send_struct(t->stream, WIRE_RUNNING, wire_running_visit,
			       &running, clock_ns() + TARGET_GOODBYE_PATIENCE,
			       err))
		log_info("migration: telling the source: %s", err->text);
	vm_tell_soon(vm);
	/* It lets its disks go when it has read that. */
	(void)!vm_handover(vm, DEVICE_OWN, t->hello.session, err);
	t->env.on_running(t->env.opaque, vm);
	if (!logged)
		log_notice(RUNS_HERE, session);
	return 0;
}

static int on_done(struct target *t, const struct record *record,
		   struct error *err)
{
	(void)record;
	(void)err;
	(void)target_step(t, TARGET_ON_DONE);
	target_note_done(t);
	return 0;
}

/* ---- the table ---- */

static const char *const stage_wants[] = {
	[STAGE_CONFIG] = "CONFIG",
	[STAGE_IMAGE] = "IMAGE",
	[STAGE_REHEARSE] = "REHEARSE",
	[STAGE_REHEARSING] = "SECTION or STATE_END",
	[STAGE_BETWEEN] = "ROUND or PAUSED",
	[STAGE_ROUND] = "PAGES, ZERO, EXPECT or ROUND_END",
	[STAGE_FINAL] = "PAGES, ZERO, EXPECT or SECTION",
	[STAGE_STATE] = "SECTION, DIGEST or STATE_END",
	[STAGE_DIGEST] = "DIGEST or STATE_DIGEST",
	[STAGE_DIGESTED] = "STATE_END",
	[STAGE_COMMIT] = "COMMIT",
	[STAGE_RUNNING] = "DONE",
};
_Static_assert(ARRAY_SIZE(stage_wants) == STAGES,
	       "every stage wants something");

static const struct rule {
	enum stage stage;
	enum wire_type type;
	enum stage next; /* set before the action, which may change it */
	int (*act)(struct target *t, const struct record *record,
		   struct error *err);
} rules[] = {
	{ STAGE_CONFIG, WIRE_CONFIG, STAGE_IMAGE, target_on_config },
	{ STAGE_IMAGE, WIRE_IMAGE, STAGE_IMAGE, target_on_image },
	{ STAGE_REHEARSE, WIRE_REHEARSE, STAGE_REHEARSING, on_rehearse },
	{ STAGE_REHEARSING, WIRE_SECTION, STAGE_REHEARSING, on_section },
	{ STAGE_REHEARSING, WIRE_STATE_END, STAGE_BETWEEN, on_rehearsal_end },
	{ STAGE_BETWEEN, WIRE_ROUND, STAGE_ROUND, on_round },
	{ STAGE_ROUND, WIRE_PAGES, STAGE_ROUND, on_runs },
	{ STAGE_ROUND, WIRE_ZERO, STAGE_ROUND, on_runs },
	{ STAGE_ROUND, WIRE_EXPECT, STAGE_ROUND, on_expect },
	{ STAGE_ROUND, WIRE_ROUND_END, STAGE_BETWEEN, on_round_end },
	{ STAGE_BETWEEN, WIRE_PAUSED, STAGE_FINAL, on_paused },
	{ STAGE_FINAL, WIRE_PAGES, STAGE_FINAL, on_runs },
	{ STAGE_FINAL, WIRE_ZERO, STAGE_FINAL, on_runs },
	{ STAGE_FINAL, WIRE_EXPECT, STAGE_FINAL, on_expect },
	{ STAGE_FINAL, WIRE_SECTION, STAGE_STATE, on_section },
	{ STAGE_STATE, WIRE_SECTION, STAGE_STATE, on_section },
	{ STAGE_STATE, WIRE_DIGEST, STAGE_DIGEST, target_on_digest },
	{ STAGE_DIGEST, WIRE_DIGEST, STAGE_DIGEST, target_on_digest },
	{ STAGE_DIGEST, WIRE_STATE_DIGEST, STAGE_DIGESTED,
	  target_on_state_digest },
	{ STAGE_STATE, WIRE_STATE_END, STAGE_COMMIT, on_state_end },
	{ STAGE_DIGESTED, WIRE_STATE_END, STAGE_COMMIT, on_state_end },
	{ STAGE_COMMIT, WIRE_COMMIT, STAGE_RUNNING, on_commit },
	{ STAGE_RUNNING, WIRE_DONE, STAGE_RUNNING, on_done },
};

static int aborted(struct target *t, const struct record *record,
		   struct error *err)
{
	struct wire_reason reason = { 0 };
	int rc = stream_decode(record, wire_reason_visit, &reason, err);

	if (rc)
		return rc;
	/* Who calls it off has not sent COMMIT, and will not ask. */
	target_note_done(t);
	t->called_off = t->stage < STAGE_FINAL;
	t->rehearsed = reason.code == WIRE_ABORT_REHEARSED &&
		       t->stage == STAGE_BETWEEN;
	return error_set(err, -ECONNABORTED, "the source called it off: %s",
			 reason.text);
}

int target_dispatch(struct target *t, const struct record *record,
		    struct error *err)
{
	if (record->type == WIRE_PING && t->stage < STAGE_COMMIT)
		return stream_send(t->stream, WIRE_PONG, NULL, 0,
				   clock_ns() + TARGET_REPLY_PATIENCE, err);
	if (record->type == WIRE_ABORT && t->stage <= STAGE_COMMIT)
		return aborted(t, record, err);
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (rules[i].stage != t->stage || rules[i].type != record->type)
			continue;
		t->stage = rules[i].next;
		return rules[i].act(t, record, err);
	}
	return stream_unexpected(record, stage_wants[t->stage], err);
}
