// SPDX-License-Identifier: MIT
/*
 * One attempt to take a guest; see target.h. Building the machine is in
 * target_build.c.
 *
 * The handoff state (handoff.h) is changed under target->lock, by this thread
 * or by a QUERY that comes through the door, and nowhere but in step(). The
 * lock is held from the step to COMMIT's consequence, the guest being let go,
 * so that whoever asks gets an answer that is true.
 *
 * Which record may come when is a table, below; the handoff machine does not
 * know about rounds and sections. Everything the peer sends is checked before
 * it has an effect, and nothing is committed before everything is checked.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/target_internal.h"
#include "migration/transport.h"
#include "vmm/log.h"

#define SILENCE_MIN_MS	 1000
#define SILENCE_MAX_MS	 600000
#define DEADLINE_MAX_MS	 600000
#define GOODBYE_PATIENCE (1 * NS_PER_S)
/* A connection brings no more than two can populate. */
#define POPULATE_THREADS 2
#define DONE_PATIENCE	 (5 * NS_PER_S)

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

/* ---- making ---- */

int target_create(const struct target_env *env, const struct wire_hello *hello,
		  struct target **ret, struct error *err)
{
	struct target *t = calloc(1, sizeof(*t));
	pthread_condattr_t monotonic;

	if (!t)
		return error_set(err, -ENOMEM, "target: out of memory");
	t->env = *env;
	t->hello = *hello;
	t->image = (struct vm_image){ .kernel_fd = -1, .initrd_fd = -1 };
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&t->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake_fd < 0) {
		int code = -errno;

		target_free(t);
		return error_set(err, code, "eventfd: %s", strerror(-code));
	}
	*ret = t;
	return 0;
}

/* Have the vCPUs back: soon they are needed for what they are. */
static void end_populating(struct target *t)
{
	if (!t->populating)
		return;
	populate_end(t->populate);
	vm_return_vcpus(t->vm);
	t->populating = false;
}

static void free_receiver(struct target *t)
{
	page_receiver_free(t->receiver);
	t->receiver = NULL;
	populate_free(t->populate);
	t->populate = NULL;
	verifier_free(t->verifier);
	t->verifier = NULL;
}

/* The machine is unmade; without a VM in our hands there is nothing to do. */
static void destroy(struct target *t)
{
	end_populating(t);
	free_receiver(t);
	vm_state_free(t->vm_state);
	t->vm_state = NULL;
	vm_free(t->vm);
	t->vm = NULL;
	close_fd(&t->image.kernel_fd);
	close_fd(&t->image.initrd_fd);
}

void target_free(struct target *t)
{
	if (!t)
		return;
	destroy(t);
	close_fd(&t->wake_fd);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static void wake(struct target *t)
{
	uint64_t one = 1;

	if (write(t->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("target wake-up: %s", strerror(errno));
}

void target_cancel(struct target *t)
{
	pthread_mutex_lock(&t->lock);
	t->cancelled = true;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	wake(t);
}

static void note_done(struct target *t)
{
	pthread_mutex_lock(&t->lock);
	t->done = true;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	/* Whoever still listens for DONE has nothing more to learn. */
	wake(t);
}

void target_done(struct target *t, const uint8_t session[WIRE_SESSION_SIZE])
{
	if (!memcmp(session, t->hello.session, sizeof(t->hello.session)))
		note_done(t);
}

void target_linger(struct target *t, uint64_t deadline_ns)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};

	pthread_mutex_lock(&t->lock);
	while (t->reached_loaded && !t->done && !t->cancelled &&
	       clock_ns() < deadline_ns)
		pthread_cond_timedwait(&t->changed, &t->lock, &until);
	pthread_mutex_unlock(&t->lock);
}

enum target_state target_step(struct target *t, enum target_event event)
{
	enum target_state state;

	pthread_mutex_lock(&t->lock);
	/* An event that is refused changes nothing; the state tells. */
	(void)!handoff_target_step(&t->state, event);
	state = t->state;
	pthread_mutex_unlock(&t->lock);
	return state;
}

enum wire_verdict_kind target_query(struct target *t,
				    const uint8_t session[WIRE_SESSION_SIZE])
{
	enum wire_verdict_kind kind = WIRE_VERDICT_NEVER;

	if (memcmp(session, t->hello.session, sizeof(t->hello.session)))
		return WIRE_VERDICT_UNKNOWN;
	pthread_mutex_lock(&t->lock);
	(void)!handoff_target_step(&t->state, TARGET_ON_QUERY);
	if (t->state == TARGET_RUNNING)
		kind = WIRE_VERDICT_RUNNING;
	else
		wake(t);
	while (kind == WIRE_VERDICT_NEVER && !t->gone)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
	return kind;
}

bool target_rehearsed(const struct target *t)
{
	return t->rehearsed;
}

bool target_must_answer(struct target *t)
{
	bool must;

	pthread_mutex_lock(&t->lock);
	must = t->reached_loaded && !t->done;
	pthread_mutex_unlock(&t->lock);
	return must;
}

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

	end_populating(t);
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
	end_populating(t);
	return stream_send_struct(t->stream, WIRE_ROUND_ACK, wire_round_visit,
				  &ack, clock_ns() + TARGET_REPLY_PATIENCE,
				  err);
}

static int on_paused(struct target *t, const struct record *record,
		     struct error *err)
{
	(void)t;
	(void)record;
	(void)err;
	return 0;
}

/* ---- COMMIT ---- */

static void log_session(const struct target *t)
{
	char text[WIRE_SESSION_TEXT];

	log_notice("the guest of session %s runs here from now on",
		   wire_session_text(t->hello.session, text));
}

/*
 * The guest is let go under the lock, so that a QUERY never gets an answer
 * that is not true yet. Nothing here can fail.
 */
static int on_commit(struct target *t, const struct record *record,
		     struct error *err)
{
	struct wire_running running = { 0 };
	uint64_t start = clock_ns();
	struct vm *vm = t->vm;

	(void)record;
	if (t->env.paused)
		vm_hold_quietly(vm, VM_HOLD_USER);
	pthread_mutex_lock(&t->lock);
	(void)!handoff_target_step(&t->state, TARGET_ON_COMMIT);
	if (t->state == TARGET_RUNNING) {
		/* An operator who has to decide later goes by this line. */
		log_session(t);
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
			       &running, clock_ns() + GOODBYE_PATIENCE, err))
		log_info("migration: telling the source: %s", err->text);
	vm_tell_soon(vm);
	/* It lets its disks go when it has read that. */
	(void)!vm_handover(vm, DEVICE_OWN, t->hello.session, err);
	t->env.on_running(t->env.opaque, vm);
	return 0;
}

static int on_done(struct target *t, const struct record *record,
		   struct error *err)
{
	(void)record;
	(void)err;
	(void)target_step(t, TARGET_ON_DONE);
	note_done(t);
	return 0;
}

/* ---- the table ---- */

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
	note_done(t);
	t->called_off = t->stage < STAGE_FINAL;
	t->rehearsed = reason.code == WIRE_ABORT_REHEARSED &&
		       t->stage == STAGE_BETWEEN;
	return error_set(err, -ECONNABORTED, "the source called it off: %s",
			 reason.text);
}

static int dispatch(struct target *t, const struct record *record,
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

/* ---- the whole ---- */

static int negotiate(struct target *t, struct error *err)
{
	struct wire_hello *hello = &t->hello;
	struct wire_welcome welcome = {
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION_MAX,
		.capabilities = hello->capabilities & WIRE_CAPS_KNOWN,
		.software = "godwit " GODWIT_VERSION,
	};

	if (hello->version_min > WIRE_VERSION_MAX ||
	    hello->version_max < WIRE_VERSION_MIN)
		return error_set(err, -ENOTSUP,
				 "%s speaks versions %u to %u of the "
				 "migration format, this godwit %u to %u; "
				 "update the older one",
				 hello->software, hello->version_min,
				 hello->version_max, WIRE_VERSION_MIN,
				 WIRE_VERSION_MAX);
	hello->commit_deadline_ms =
		MIN(hello->commit_deadline_ms, DEADLINE_MAX_MS);
	hello->silence_deadline_ms =
		MIN(MAX(hello->silence_deadline_ms, SILENCE_MIN_MS),
		    SILENCE_MAX_MS);
	welcome.version = MIN(welcome.version, hello->version_max);
	memcpy(welcome.session, hello->session, sizeof(welcome.session));
	return stream_send_struct(t->stream, WIRE_WELCOME, wire_welcome_visit,
				  &welcome, clock_ns() + TARGET_REPLY_PATIENCE,
				  err);
}

static uint64_t next_deadline(const struct target *t)
{
	if (t->stage == STAGE_COMMIT)
		return t->commit_deadline_ns;
	if (t->stage == STAGE_RUNNING)
		return clock_ns() + DONE_PATIENCE;
	return clock_ns() + t->hello.silence_deadline_ms * NS_PER_MS;
}

/* Receive until the guest runs here or the attempt has failed. */
static int receive(struct target *t, struct error *err)
{
	struct record record;
	int rc = negotiate(t, err);

	while (!rc && t->stage != STAGE_RUNNING) {
		rc = stream_recv(t->stream, &record, next_deadline(t), err);
		/* Looked at before what has come since: FORMAT.md. */
		if (t->stage == STAGE_COMMIT &&
		    clock_ns() >= t->commit_deadline_ns) {
			(void)target_step(t, TARGET_ON_DEADLINE);
			return error_set(err, STREAM_DEADLINE,
					 "COMMIT did not come in time");
		}
		if (!rc)
			rc = dispatch(t, &record, err);
	}
	return rc;
}

/* The guest is ours; the source may still want to say that it knows. */
static void await_done(struct target *t)
{
	struct record record;
	struct error err;

	t->stream->interrupt_fd = t->wake_fd;
	if (!stream_recv(t->stream, &record, next_deadline(t), &err))
		(void)!dispatch(t, &record, &err);
}

/* After NACK: a late COMMIT may come first, then DONE, or ABORT. */
static void await_knowledge(struct target *t)
{
	uint64_t deadline = clock_ns() + GOODBYE_PATIENCE;
	struct record record;
	struct error err;

	while (!stream_recv(t->stream, &record, deadline, &err)) {
		if (record.type != WIRE_DONE && record.type != WIRE_ABORT)
			continue;
		note_done(t);
		return;
	}
}

/*
 * It did not work. Destroy first, then say so: NACK and REFUSE are promises
 * that the guest never ran here and never will.
 *
 * A source that called it off before its guest was paused waits for neither,
 * nor for anything that is held here: what was built is left to target_free().
 */
static void give_up(struct target *t, int rc, const char *why)
{
	struct error err;

	(void)target_step(t,
			  rc == STREAM_ENDED ? TARGET_ON_LOST : TARGET_ON_FAIL);
	if (!t->called_off)
		destroy(t);
	pthread_mutex_lock(&t->lock);
	t->gone = true;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	t->stream->interrupt_fd = -1;
	if (!stream_send_reason(t->stream,
				t->said_loaded ? WIRE_NACK : WIRE_REFUSE, 0,
				why, clock_ns() + GOODBYE_PATIENCE, &err) &&
	    t->said_loaded)
		await_knowledge(t);
}

int target_run(struct target *t, struct stream *stream, struct error *err)
{
	int rc;

	t->stream = stream;
	stream->interrupt_fd = t->wake_fd;
	rc = receive(t, err);
	if (rc)
		give_up(t, rc, err->text);
	else
		await_done(t);
	t->stream = NULL;
	if (t->called_off)
		return rc;
	free_receiver(t);
	vm_state_free(t->vm_state);
	t->vm_state = NULL;
	return rc;
}
