// SPDX-License-Identifier: MIT
/*
 * `godwit listen`: wait for one guest and become its process; see run.h. The
 * order of things is instance.h's.
 *
 * Four threads besides the loop's: one at the door, one that receives, one that
 * does chores, and one, parked, that can move the guest on. The receiving
 * thread makes one attempt after the other until a guest has come; then it
 * ends, and the door, from then on, only answers what a source may still have
 * to ask. When nobody can have to ask any more the door is closed too.
 *
 * Chores are what keeps no source waiting for its WELCOME: spares are filled,
 * and what an attempt that was called off had built is unmade. The next attempt
 * takes what spares there are, and does wait, with its CONFIG, until disks,
 * taps and consoles are nobody's any more.
 *
 * The guest's name is known when its CONFIG comes, on the receiving thread: it
 * claims the control socket's name there, and gives it back when the attempt
 * fails. The loop's thread has no business with the name meanwhile. A name that
 * is taken gets a number; when it was the source that had it, that lets it go
 * before it says DONE, and the socket is renamed then. The guest itself is
 * called by its name all along, also where it moves on from here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/door.h"
#include "vmm/chores.h"
#include "vmm/instance.h"
#include "vmm/log.h"
#include "vmm/run.h"

#define HELLO_PATIENCE (30 * NS_PER_S)
#define DOOR_CHECK     (1 * NS_PER_S)
#define NAME_TRIES     1000
/* How long a source may need to come back and ask, after a failed --once. */
#define LINGER (30 * NS_PER_S)

struct listener {
	struct instance inst;
	const struct listen_options *options;
	struct address address;	   /* resolved */
	char at[ADDRESS_TEXT_MAX]; /* the same with the port that it got */
	struct stat bound; /* the socket file that is ours; st_ino 0: none */
	struct door *door; /* NULL with fd:N */
	pthread_t door_thread;
	bool door_open; /* its thread runs */
	struct loop_timer *door_timer;
	pthread_t receive_thread;
	bool receiving; /* its thread was started and not joined */
	struct chores *chores;

	/* the receiving thread's own, until the guest has arrived */
	bool claimed;	/* the socket has a guest's name */
	bool coming;	/* clients have been told that a guest comes */
	bool rehearsed; /* the last attempt was a dry run that went well */
	char came_as[MACHINE_NAME_MAX]; /* what it was called there */
	char called[MACHINE_NAME_MAX];	/* and what it is called here */
	struct error taken;		/* why that is another; "": --name */
	struct chore filling;		/* the spares */
	struct chore unmaking;		/* the target of the last attempt */
	struct error failure;		/* why the last attempt was the last */

	pthread_mutex_t lock;
	char session[WIRE_SESSION_TEXT]; /* of the attempt */
	bool stop;			 /* no further attempt */
	struct target *target; /* the attempt under way, or that was taken */
	struct vm *arrived;    /* on its way to the loop */
};

/* ---- the receiving thread ---- */

/* How much of a name there is before a number that we, or one of us, added. */
static int stem_length(const char *name)
{
	const char *dash = strrchr(name, '-');
	size_t len = strlen(name);

	if (dash && dash > name && dash[1] &&
	    strspn(dash + 1, "0123456789") == strlen(dash + 1))
		len = (size_t)(dash - name);
	return (int)MIN(len, MACHINE_NAME_MAX - 6);
}

static int claim_name(struct listener *l, struct error *err)
{
	struct instance *inst = &l->inst;
	const char *wanted = l->came_as;
	int rc;

	rc = rundir_claim(&inst->dir, &inst->socket, l->called, err);
	l->taken = *err;
	for (int n = 2; rc == -EADDRINUSE && n < NAME_TRIES; n++) {
		snprintf(l->called, sizeof(l->called), "%.*s-%d",
			 stem_length(wanted), wanted, n);
		rc = rundir_claim(&inst->dir, &inst->socket, l->called, err);
	}
	if (rc)
		return rc;
	l->claimed = true;
	return 0;
}

/* The source has gone: what kept the guest's name may have been just that. */
static void claim_own_name(struct listener *l)
{
	struct instance *inst = &l->inst;
	struct error ignored;

	if (!l->claimed || !strcmp(l->called, l->came_as) ||
	    rundir_claim(&inst->dir, &inst->socket, l->came_as, &ignored))
		return;
	memcpy(l->called, l->came_as, sizeof(l->called));
}

static void tell_status(struct listener *l, enum report_status status)
{
	control_event(l->inst.control, "MIGRATION",
		      json_pack("{s:s}", "status", report_status_name(status)));
}

static void on_coming(void *opaque)
{
	struct listener *l = opaque;

	pthread_mutex_lock(&l->lock);
	memcpy(l->inst.came_by, l->session, sizeof(l->inst.came_by));
	pthread_mutex_unlock(&l->lock);
	tell_status(opaque, STATUS_ACTIVE);
}

static void on_stayed_away(void *opaque)
{
	struct listener *l = opaque;

	l->inst.came_by[0] = '\0';
	tell_status(l, STATUS_FAILED);
}

static void on_rehearsed(void *opaque)
{
	struct listener *l = opaque;

	l->inst.came_by[0] = '\0';
	tell_status(l, STATUS_REHEARSED);
}

static int on_config(void *opaque, struct wire_config *config,
		     const uint8_t session[WIRE_SESSION_SIZE],
		     struct error *err)
{
	struct machine *machine = &config->machine;
	struct listener *l = opaque;
	const char *name = l->options->process.name;

	chores_await(l->chores, &l->unmaking);
	consoles_expect(l->inst.consoles);
	disks_offer(l->inst.disks, config, session);
	memcpy(l->came_as, machine->name, sizeof(l->came_as));
	l->coming = true;
	pthread_mutex_lock(&l->lock);
	wire_session_text(session, l->session);
	pthread_mutex_unlock(&l->lock);
	loop_post(l->inst.loop, on_coming, l);
	snprintf(l->called, sizeof(l->called), "%s",
		 name ? name : machine->name);
	if (!name)
		return claim_name(l, err);
	l->taken.text[0] = '\0';
	memcpy(machine->name, l->called, sizeof(machine->name));
	return 0;
}

static void on_arrived(void *opaque);

static void on_running(void *opaque, struct vm *vm)
{
	struct listener *l = opaque;

	pthread_mutex_lock(&l->lock);
	l->arrived = vm;
	pthread_mutex_unlock(&l->lock);
	loop_post(l->inst.loop, on_arrived, l);
}

/* The one connection of fd:N: it says HELLO, and nobody else can ask. */
static int receive_hello(struct listener *l, struct stream **ret,
			 struct wire_hello *ret_hello, struct error *err)
{
	struct record record;
	int rc;

	transport_tune(l->address.fd,
		       (unsigned int)(HELLO_PATIENCE / NS_PER_MS));
	rc = stream_open(l->address.fd, -1, ret, err);
	if (rc)
		return rc;
	rc = stream_recv(*ret, &record, clock_ns() + HELLO_PATIENCE, err);
	if (!rc && record.type != WIRE_HELLO)
		rc = stream_unexpected(&record, "HELLO", err);
	if (!rc)
		rc = stream_decode(&record, wire_hello_visit, ret_hello, err);
	if (!rc && ret_hello->magic != WIRE_MAGIC)
		rc = error_set(err, -EBADMSG, "HELLO has the wrong magic");
	if (rc)
		stream_close(*ret);
	return rc;
}

static int next_source(struct listener *l, struct stream **ret,
		       struct wire_hello *ret_hello, struct error *err)
{
	if (l->door)
		return door_wait(l->door, ret, ret_hello, err);
	return receive_hello(l, ret, ret_hello, err);
}

/* Return: false when the process is ending. */
static bool begin_attempt(struct listener *l, struct target *target)
{
	bool stop;

	pthread_mutex_lock(&l->lock);
	stop = l->stop;
	if (!stop)
		l->target = target;
	pthread_mutex_unlock(&l->lock);
	if (!stop && l->door)
		door_attend(l->door, target);
	return !stop;
}

static void fill_spares(void *opaque)
{
	spares_fill(opaque);
}

static void free_target(void *opaque)
{
	target_free(opaque);
}

/* One that has built anything has waited for the last one in on_config(). */
static void unmake(struct listener *l, struct target *target)
{
	if (chores_pending(l->chores, &l->unmaking)) {
		target_free(target);
		return;
	}
	l->unmaking = (struct chore){ .fn = free_target, .opaque = target };
	chores_do(l->chores, &l->unmaking);
}

static void end_attempt(struct listener *l, struct target *target,
			const struct wire_hello *hello)
{
	if (l->door) {
		/* Only who has sent COMMIT will ever ask. */
		if (target_must_answer(target))
			door_remember_never(l->door, hello->session);
		door_attend(l->door, NULL);
	}
	pthread_mutex_lock(&l->lock);
	l->target = NULL;
	pthread_mutex_unlock(&l->lock);
	l->rehearsed = target_rehearsed(target);
	unmake(l, target);
	if (l->claimed)
		rundir_unclaim(&l->inst.dir, &l->inst.socket);
	l->claimed = false;
	if (l->coming)
		loop_post(l->inst.loop,
			  l->rehearsed ? on_rehearsed : on_stayed_away, l);
	l->coming = false;
}

static int attempt(struct listener *l, struct stream *stream,
		   const struct wire_hello *hello, struct error *err)
{
	struct target_env env = {
		.host = instance_vm_host(&l->inst),
		.spares = l->inst.spares,
		.paused = l->options->paused,
		.on_config = on_config,
		.on_running = on_running,
		.opaque = l,
	};
	struct target *target;
	int rc = target_create(&env, hello, &target, err);

	if (rc)
		return rc;
	if (!begin_attempt(l, target)) {
		target_free(target);
		return error_set(err, -ECANCELED, "the listener is leaving");
	}
	rc = target_run(target, stream, err);
	if (rc == STREAM_ENDED)
		error_set(err, rc,
			  "the source closed the connection and said not why; "
			  "see its log, unless it has ended");
	/* Before the source, which waits for it, sees the connection end. */
	if (!rc)
		claim_own_name(l);
	/* Nobody is here to answer for it once the process has ended. */
	if (rc && l->options->once && l->door)
		target_linger(target, clock_ns() + LINGER);
	if (rc)
		end_attempt(l, target, hello);
	return rc;
}

static void on_no_guest(void *opaque);
static void on_received(void *opaque);

/* A dry run, however it ends, is no attempt to bring a guest. */
static bool was_dry_run(const struct listener *l,
			const struct wire_hello *hello)
{
	return l->rehearsed || hello->capabilities & WIRE_CAP_DRY_RUN;
}

static void say_listens_on(struct listener *l, const struct error *why)
{
	bool stop;

	pthread_mutex_lock(&l->lock);
	stop = l->stop;
	pthread_mutex_unlock(&l->lock);
	log_warn("no guest came: %s%s%s", why->text,
		 stop ? "" : "; listens on at ", stop ? "" : l->at);
}

static void *receive(void *arg)
{
	struct listener *l = arg;
	struct wire_hello hello;
	struct stream *stream;
	struct error err;
	bool again;
	int rc;

	do {
		chores_do(l->chores, &l->filling);
		l->rehearsed = false;
		hello.capabilities = 0;
		rc = next_source(l, &stream, &hello, &err);
		if (rc == -ECANCELED)
			return NULL;
		if (!rc) {
			rc = attempt(l, stream, &hello, &err);
			stream_close(stream);
		}
		again = rc && l->door &&
			(!l->options->once || was_dry_run(l, &hello));
		if (again)
			say_listens_on(l, &err);
	} while (again);
	/* Nobody comes any more. */
	if (rc)
		l->failure = err;
	spares_drop(l->inst.spares);
	loop_post(l->inst.loop, rc ? on_no_guest : on_received, l);
	return NULL;
}

static void *serve_door(void *arg)
{
	door_serve(arg);
	return NULL;
}

/* ---- on the loop ---- */

static void on_no_guest(void *opaque)
{
	struct listener *l = opaque;

	instance_finish(&l->inst, END_FAILED, "host-error",
			"no guest came: %s; this listener ends%s",
			l->failure.text,
			l->options->once ? ", as --once says"
					 : ": fd:N is one connection");
}

/* Only what this process has made: the path may be somebody else's by now. */
static void remove_socket_file(struct listener *l)
{
	struct stat now;

	if (l->bound.st_ino && !lstat(l->address.un.sun_path, &now) &&
	    now.st_ino == l->bound.st_ino && now.st_dev == l->bound.st_dev)
		(void)unlink(l->address.un.sun_path);
	l->bound.st_ino = 0;
}

static void close_door(struct listener *l)
{
	if (l->door_open) {
		door_close(l->door);
		pthread_join(l->door_thread, NULL);
	}
	l->door_open = false;
	door_free(l->door);
	l->door = NULL;
	remove_socket_file(l);
}

static void on_door_check(void *opaque)
{
	struct listener *l = opaque;

	if (!l->receiving)
		return;
	if (target_must_answer(l->target)) {
		loop_timer_arm(l->door_timer, clock_ns() + DOOR_CHECK);
		return;
	}
	/* It has nothing left to say either. */
	pthread_join(l->receive_thread, NULL);
	l->receiving = false;
	if (l->door)
		close_door(l);
	target_free(l->target);
	l->target = NULL;
}

/* Only now: one that doesn't come is called nothing here. */
static void on_received(void *opaque)
{
	struct listener *l = opaque;
	const char *why = l->taken.text;

	if (strcmp(l->came_as, l->called) != 0)
		log_warn("the guest '%s' is called '%s' here%s%s", l->came_as,
			 l->called, why[0] ? ": " : "", why);
	on_door_check(l);
}

static void on_arrived(void *opaque)
{
	struct listener *l = opaque;

	if (l->door)
		door_refuse_guests(l->door, "this listener has its guest");
	instance_adopt(&l->inst, l->arrived);
	tell_status(l, STATUS_COMPLETED);
	loop_timer_arm(l->door_timer, clock_ns() + DOOR_CHECK);
}

/* ---- the whole ---- */

static int check_exposure(const struct listener *l, struct error *err)
{
	const struct listen_options *options = l->options;

	if (address_is_local(&l->address) || options->insecure ||
	    options->allow.count)
		return 0;
	return error_set(err, -EPERM,
			 "%s: others can connect to this address, and a guest "
			 "is trusted with nothing less than its whole memory; "
			 "say who may with --allow NETWORK, or --insecure",
			 l->address.text);
}

/* Where to listen; the exit status when not there. */
static int check_address(struct listener *l, struct error *err)
{
	l->address = l->options->address;
	/* A descriptor that can't be one is a mistake of the command line. */
	if (l->address.kind == ADDRESS_FD)
		return address_check(&l->address, err) ? EXIT_USAGE
						       : EXIT_SUCCESS;
	if (address_resolve(&l->address, err))
		return EXIT_FAILURE;
	return check_exposure(l, err) ? EXIT_USAGE : EXIT_SUCCESS;
}

static int open_door(struct listener *l, struct error *err)
{
	struct door_params params = { .allow = l->options->allow };
	uint16_t port = 0;
	int rc;

	if (l->address.kind == ADDRESS_FD)
		return 0;
	rc = transport_listen(&l->address, &port, err);
	if (rc < 0)
		return rc;
	params.listen_fd = rc;
	address_text(&l->address, port, l->at);
	if (l->address.kind == ADDRESS_UNIX &&
	    lstat(l->address.un.sun_path, &l->bound))
		l->bound.st_ino = 0;
	rc = door_create(&params, &l->door, err);
	if (rc) {
		close(params.listen_fd);
		return rc;
	}
	/* Whoever has said which port it is knows it. */
	if (l->address.kind == ADDRESS_TCP &&
	    dprintf(STDOUT_FILENO, "%u\n", port) < 0 && !l->address.port)
		return error_set(err, -errno, "standard output: %s",
				 strerror(errno));
	return 0;
}

static int start_threads(struct listener *l, struct error *err)
{
	int rc = instance_start(&l->inst, err);

	l->filling =
		(struct chore){ .fn = fill_spares, .opaque = l->inst.spares };
	if (!rc)
		rc = chores_create(l->inst.sandbox, &l->chores, err);
	if (!rc && l->door) {
		rc = thread_start(l->inst.sandbox, THREAD_MIGRATION, "door",
				  serve_door, l->door, &l->door_thread, err);
		l->door_open = !rc;
	}
	if (!rc) {
		rc = thread_start(l->inst.sandbox, THREAD_MIGRATION, "receive",
				  receive, l, &l->receive_thread, err);
		l->receiving = !rc;
	}
	return rc;
}

static int prepare(struct listener *l, struct error *err)
{
	const struct process_options *process = &l->options->process;
	/* Before all else: see taps.h. */
	int rc = taps_open(&process->taps, true, process->sandbox,
			   &l->inst.taps, err);

	if (!rc)
		rc = disks_open(&process->disks, true, &l->inst.disks, err);
	if (!rc)
		rc = instance_open(&l->inst, process, process->name, err);
	if (!rc)
		rc = loop_timer_add(l->inst.loop, on_door_check, l, NULL,
				    &l->door_timer, err);
	if (!rc)
		rc = open_door(l, err);
	if (!rc)
		rc = instance_confine(&l->inst, err);
	return rc;
}

/* A guest that came when we were leaving already is ended with us. */
static void stop_receiving(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	if (l->target)
		target_cancel(l->target);
	else if (l->receiving && !l->door)
		/* Ends the wait for HELLO. */
		(void)shutdown(l->address.fd, SHUT_RDWR);
	pthread_mutex_unlock(&l->lock);
	if (l->door)
		door_close(l->door);
	if (l->receiving)
		pthread_join(l->receive_thread, NULL);
	if (l->arrived && !l->inst.vm)
		instance_adopt(&l->inst, l->arrived);
	close_door(l);
	target_free(l->target);
	chores_free(l->chores);
}

static void on_ready(void *opaque __maybe_unused)
{
}

int listen_command(const struct listen_options *options)
{
	struct listener *l = calloc(1, sizeof(*l));
	struct error err;
	int status;

	if (!l) {
		log_error("out of memory");
		return EXIT_FAILURE;
	}
	l->options = options;
	status = check_address(l, &err);
	if (status) {
		log_error("listen: %s", err.text);
		free(l);
		return status;
	}
	status = EXIT_FAILURE;
	pthread_mutex_init(&l->lock, NULL);
	instance_init(&l->inst);
	if (prepare(l, &err) || start_threads(l, &err)) {
		consoles_restore(l->inst.consoles);
		log_error("%s", err.text);
	} else {
		status = instance_run(&l->inst, on_ready, l, &err);
	}
	if (!l->inst.abandoned)
		stop_receiving(l);
	loop_timer_remove(l->door_timer);
	instance_close(&l->inst, status);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return status;
}
