// SPDX-License-Identifier: MIT
/*
 * One attempt to take a guest, from WELCOME to its end, and what others may ask
 * of it meanwhile; see target.h. What each record does is in target_records.c.
 *
 * The handoff state is changed by handoff_target_step() under target->lock, by
 * the attempt's own thread or by a QUERY that comes through the door, and
 * nowhere else. The lock is held from the step to COMMIT's consequence, the
 * guest being let go, so that whoever asks gets an answer that is true.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/target_internal.h"
#include "vmm/log.h"

#define SILENCE_MIN_MS	1000
#define SILENCE_MAX_MS	600000
#define DEADLINE_MAX_MS 600000
#define DONE_PATIENCE	(5 * NS_PER_S)

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

void target_end_populating(struct target *t)
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
	target_end_populating(t);
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

void target_note_done(struct target *t)
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
		target_note_done(t);
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
			rc = target_dispatch(t, &record, err);
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
		(void)!target_dispatch(t, &record, &err);
}

/* After NACK: a late COMMIT may come first, then DONE, or ABORT. */
static void await_knowledge(struct target *t)
{
	uint64_t deadline = clock_ns() + TARGET_GOODBYE_PATIENCE;
	struct record record;
	struct error err;

	while (!stream_recv(t->stream, &record, deadline, &err)) {
		if (record.type != WIRE_DONE && record.type != WIRE_ABORT)
			continue;
		target_note_done(t);
		return;
	}
}

/*
 * It did not work. Destroy first, then say so: NACK and REFUSE are promises
 * that the guest never ran here and never will.
 *
 * A source that called it off before its guest was paused, or was lost, waits
 * for neither, nor for anything that is held here: what was built is left to
 * target_free().
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
	if (!stream_send_reason(
		    t->stream, t->said_loaded ? WIRE_NACK : WIRE_REFUSE, 0, why,
		    clock_ns() + TARGET_GOODBYE_PATIENCE, &err) &&
	    t->said_loaded)
		await_knowledge(t);
}

int target_run(struct target *t, struct stream *stream, struct error *err)
{
	int rc;

	t->stream = stream;
	stream->interrupt_fd = t->wake_fd;
	rc = receive(t, err);
	/* Nor has COMMIT come from who is lost before its guest was paused. */
	if (rc == STREAM_ENDED && t->stage < STAGE_FINAL)
		t->called_off = true;
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
