// SPDX-License-Identifier: MIT
/*
 * The moves of the in-process rig; see rig.h: a source's thread on one host, a
 * door and an attempt behind it on the other, and a relay between them.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/inproc/rig_internal.h"

const struct rig_move rig_move_default = {
	.params = { .max_downtime_ns = 2 * NS_PER_S,
		    .abort_after_ns = 40 * NS_PER_S,
		    .verify = true },
};

_Thread_local const struct rig_host *rig_thread_host;

/* The target's process: a door, and one attempt behind it. */
struct receiving {
	struct rig_host *host;
	const struct rig_move *move;
	struct door *door;
	struct spares *spares;
	pthread_t door_thread;
	pthread_t thread;
	struct vm *vm; /* what came */
	int rc;
	struct error err;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct target *target;
	bool cancelled;
	bool decided;
	bool source_done;
};

struct sending {
	int rc;
	struct error err;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum report_status status;
};

struct move {
	struct rig_moving moving; /* what hooks see */
	const struct rig_move *params;
	struct receiving receiving;
	struct sending sending;
};

static struct move *move_of(struct rig_moving *moving)
{
	return (struct move *)moving;
}

/* ---- the target ---- */

static int on_config(void *opaque, struct wire_config *config,
		     const uint8_t session[WIRE_SESSION_SIZE],
		     struct error *err)
{
	struct receiving *r = opaque;

	if (r->move->refuse)
		return error_set(err, -EPERM, "%s", r->move->refuse);
	if (r->host->disks)
		disks_offer(r->host->disks, config, session);
	return 0;
}

static void on_running(void *opaque, struct vm *vm)
{
	struct receiving *r = opaque;

	r->vm = vm;
}

static void *serve_door(void *opaque)
{
	struct receiving *r = opaque;

	rig_thread_host = r->host;
	door_serve(r->door);
	return NULL;
}

/* The session is answered for until the source has its answer. */
static void await_source(struct receiving *r)
{
	pthread_mutex_lock(&r->lock);
	r->decided = true;
	pthread_cond_broadcast(&r->changed);
	while (!r->source_done)
		pthread_cond_wait(&r->changed, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static int attend(struct receiving *r, struct stream *stream,
		  const struct wire_hello *hello)
{
	struct target_env env = { .host = rig_vm_host(r->host),
				  .spares = r->spares,
				  .paused = r->move->paused,
				  .on_config = on_config,
				  .on_running = on_running,
				  .opaque = r };
	struct target *target = NULL;
	int rc = target_create(&env, hello, &target, &r->err);

	if (!rc) {
		door_attend(r->door, target);
		pthread_mutex_lock(&r->lock);
		r->target = target;
		if (r->cancelled)
			target_cancel(target);
		pthread_mutex_unlock(&r->lock);
		rc = target_run(target, stream, &r->err);
	}
	stream_close(stream);
	await_source(r);
	door_attend(r->door, NULL);
	pthread_mutex_lock(&r->lock);
	r->target = NULL;
	pthread_mutex_unlock(&r->lock);
	target_free(target);
	return rc;
}

static void *receive(void *opaque)
{
	struct receiving *r = opaque;
	struct wire_hello hello;
	struct stream *stream;

	rig_thread_host = r->host;
	spares_fill(r->spares);
	r->rc = door_wait(r->door, &stream, &hello, &r->err);
	if (!r->rc)
		r->rc = attend(r, stream, &hello);
	return NULL;
}

static void start_receiving(struct receiving *r, const char *path)
{
	struct door_params params = { .listen_fd = -1 };
	struct address address;
	struct error err;
	char text[200];
	uint16_t port;

	snprintf(text, sizeof(text), "unix:%s", path);
	ck_assert(!address_parse(text, &address, &err));
	params.listen_fd = transport_listen(&address, &port, &err);
	ck_assert_msg(params.listen_fd >= 0, "%s", err.text);
	ck_assert(!door_create(&params, &r->door, &err));
	ck_assert(!spares_create(&r->host->kvm, &r->spares, &err));
	rig_open_disks(r->host, true);
	rig_open_taps(r->host, true);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	pthread_mutex_lock(&r->host->lock);
	r->host->ended = false;
	pthread_mutex_unlock(&r->host->lock);
	ck_assert(!pthread_create(&r->door_thread, NULL, serve_door, r));
	ck_assert(!pthread_create(&r->thread, NULL, receive, r));
}

static void finish_receiving(struct receiving *r, const char *path)
{
	pthread_mutex_lock(&r->lock);
	r->source_done = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	/* Only now: a source that asks needs the door. */
	door_close(r->door);
	pthread_join(r->thread, NULL);
	pthread_join(r->door_thread, NULL);
	door_free(r->door);
	spares_free(r->spares);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	unlink(path);
}

bool rig_target_has_it(struct rig_moving *moving)
{
	struct receiving *r = &move_of(moving)->receiving;
	bool has_it;

	pthread_mutex_lock(&r->lock);
	while (!r->decided)
		rig_await(&r->changed, &r->lock,
			  "the target does not make up its mind");
	has_it = r->vm;
	pthread_mutex_unlock(&r->lock);
	return has_it;
}

void rig_cancel_target(struct rig_moving *moving)
{
	struct receiving *r = &move_of(moving)->receiving;

	pthread_mutex_lock(&r->lock);
	r->cancelled = true;
	if (r->target)
		target_cancel(r->target);
	pthread_mutex_unlock(&r->lock);
}

/* ---- the source ---- */

static void on_status(void *opaque, enum report_status status)
{
	struct sending *sending = opaque;

	pthread_mutex_lock(&sending->lock);
	sending->status = status;
	pthread_cond_broadcast(&sending->changed);
	pthread_mutex_unlock(&sending->lock);
}

void rig_await_status(struct rig_moving *moving, enum report_status status)
{
	struct sending *sending = &move_of(moving)->sending;

	pthread_mutex_lock(&sending->lock);
	while (sending->status != status)
		rig_await(&sending->changed, &sending->lock,
			  report_status_name(status));
	pthread_mutex_unlock(&sending->lock);
}

static void *send_guest(void *opaque)
{
	struct move *move = opaque;
	struct sending *sending = &move->sending;

	rig_thread_host = move->moving.from;
	sending->rc = source_run(move->moving.source, &sending->err);
	return NULL;
}

/* -errno: there was nothing to start. */
static int start_sending(struct move *move, const char *path)
{
	struct sending *sending = &move->sending;
	struct source_env env = { .vm = move->moving.from->vm,
				  .on_status = on_status,
				  .opaque = sending };
	struct source_params params = move->params->params;
	struct error err;
	char text[200];

	pthread_mutex_init(&sending->lock, NULL);
	pthread_cond_init(&sending->changed, NULL);
	snprintf(text, sizeof(text), "unix:%s", path);
	ck_assert(!address_parse(text, &params.to, &err));
	rig_thread_host = move->moving.from;
	sending->rc = source_create(&env, &params, &move->moving.source,
				    &sending->err);
	rig_thread_host = NULL;
	return sending->rc;
}

static void run_source(struct move *move, const char *path)
{
	struct sending *sending = &move->sending;

	if (start_sending(move, path))
		return;
	ck_assert(!pthread_create(&sending->thread, NULL, send_guest, move));
	if (move->params->meanwhile)
		move->params->meanwhile(&move->moving, move->params->opaque);
	pthread_join(sending->thread, NULL);
}

/* ---- both ---- */

/* What the guest said and nobody has looked at goes with it. */
static void carry_text(struct rig_host *from, struct rig_host *to)
{
	ssize_t n;

	do {
		n = read(from->console_out[0], from->text + from->text_len,
			 sizeof(from->text) - 1 - from->text_len);
		from->text_len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	to->text_len = from->text_len - from->text_seen;
	to->text_seen = 0;
	memcpy(to->text, from->text + from->text_seen, to->text_len);
	to->text[to->text_len] = '\0';
	from->text_seen = from->text_len = 0;
	from->text[0] = '\0';
}

/* Never two, never none. */
static void check_one_runs(const struct move *move)
{
	const struct receiving *r = &move->receiving;
	const struct sending *sending = &move->sending;
	struct vm *here = move->moving.from->vm;

	ck_assert_msg(!!sending->rc == !r->vm,
		      "source: %d (%s), target: %d (%s), %s VM", sending->rc,
		      sending->rc ? sending->err.text : "moved", r->rc,
		      r->rc ? r->err.text : "runs", r->vm ? "a" : "no");
	if (sending->rc)
		ck_assert_uint_eq(vm_holds(here) & VM_HOLD_MIGRATION, 0);
	else
		ck_assert_uint_ne(vm_holds(here) & VM_HOLD_MIGRATION, 0);
}

static bool on_record(void *opaque, const struct relay_record *record)
{
	struct move *move = opaque;

	return move->params->on_record(&move->moving, record,
				       move->params->opaque);
}

static void tell(struct move *move, struct rig_result *ret)
{
	if (move->moving.source)
		source_report(move->moving.source, &ret->report);
	ret->source_rc = move->sending.rc;
	ret->source_error = move->sending.err;
	ret->target_rc = move->receiving.rc;
	ret->target_error = move->receiving.err;
}

void rig_move(struct rig_host *from, struct rig_host *to,
	      const struct rig_move *params, struct rig_result *ret)
{
	struct move move = {
		.moving = { .from = from, .to = to },
		.params = params,
		.receiving = { .host = to, .move = params },
	};
	struct relay *relay;
	char door_path[100];
	char path[100];

	snprintf(door_path, sizeof(door_path), "/tmp/godwit-rig-%d.door",
		 getpid());
	snprintf(path, sizeof(path), "/tmp/godwit-rig-%d.relay", getpid());
	start_receiving(&move.receiving, door_path);
	relay = relay_start(path, door_path, &params->cut, &params->spoil,
			    params->on_record ? on_record : NULL, &move);
	run_source(&move, path);
	finish_receiving(&move.receiving, door_path);
	relay_stop(relay, &ret->from_source, &ret->from_target);
	check_one_runs(&move);
	tell(&move, ret);
	source_free(move.moving.source);
	pthread_cond_destroy(&move.sending.changed);
	pthread_mutex_destroy(&move.sending.lock);
	if (!move.sending.rc) {
		rig_discard(from);
		carry_text(from, to);
		to->vm = move.receiving.vm;
	}
}
