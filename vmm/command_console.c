// SPDX-License-Identifier: MIT
/*
 * `godwit console`: a console of a VM's on this terminal, or on pipes, byte for
 * byte, beside whoever has it already.
 *
 * There are two connections to the VM: the stream, which is the console, and
 * the control, by which the window's size goes there, and from which it is
 * known, when the stream ends, why. It ends when
 *
 *   the guest has moved    and goes on where that went, if it is on this host;
 *                          the VM there is known by the move's session, and its
 *                          console begins with what the guest has said there
 *   the VM has ended       and so does this
 *   we read too slowly     and go on with the oldest byte that can be had
 *
 * All bytes of a process's console are counted from its first, so what was
 * missed is known, and nothing is shown twice.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/rundir.h"

/* For a VM that may be the one that we look for to say who it is. */
#define SEARCH_PATIENCE (1 * NS_PER_S)

#define PIECE (64 * KIB)

struct attach {
	struct loop *loop;
	struct terminal *terminal; /* NULL: standard input is none */
	int in;
	struct loop_fd *in_watch; /* NULL: it has ended */
	int signal_fd;
	struct loop_fd *signal_watch;
	struct loop_fd *out_watch; /* of a pipe: its reader may go */

	char name[MACHINE_NAME_MAX]; /* of the VM that has the guest now */
	char device[DEVICE_ID_MAX];  /* "": not known yet */
	struct client control;
	struct loop_fd *control_watch; /* NULL: it has hung up */
	int stream;
	struct loop_fd *stream_watch;
	uint64_t heard;	      /* bytes of this VM's console */
	bool shown;	      /* standard output is a terminal, … */
	bool at_edge;	      /* … and at the left edge of it */
	uint8_t typed[PIECE]; /* that the stream has not taken yet */
	size_t ntyped;

	bool moved;
	bool ended;
	char session[REPORT_SESSION_MAX]; /* that it has moved by */
	int ended_with;			  /* exit status */

	int status; /* our own */
};

/* Before we say something: where the guest's last row has no end, end it. */
static void end_row(struct attach *a)
{
	if (a->shown && !a->at_edge)
		(void)!write(STDOUT_FILENO, "\n", 1);
	a->at_edge = true;
}

static void finish(struct attach *a, int status)
{
	end_row(a);
	a->status = status;
	if (a->loop)
		loop_stop(a->loop);
}

static void fail(struct attach *a, const struct error *err)
{
	end_row(a);
	log_error("%s: %s", a->name, err->text);
	finish(a, EXIT_FAILURE);
}

/* ---- what the guest says ---- */

static int show(struct attach *a, const void *bytes, size_t len,
		struct error *err)
{
	int rc = write_full(STDOUT_FILENO, bytes, len);

	if (rc)
		return error_set(err, rc, "standard output: %s", strerror(-rc));
	a->heard += len;
	a->at_edge = line_row_ends(bytes, len, a->at_edge);
	return 0;
}

/* Who reads us has had enough: that is his to decide, and no failure. */
static bool has_reader(void)
{
	struct pollfd out = { .fd = STDOUT_FILENO };

	return poll(&out, 1, 0) <= 0 || !(out.revents & POLLERR);
}

static void fail_to_show(struct attach *a, const struct error *err)
{
	if (has_reader())
		fail(a, err);
	else
		finish(a, EXIT_SUCCESS);
}

static void on_reader_gone(void *opaque, uint32_t events __maybe_unused)
{
	finish(opaque, EXIT_SUCCESS);
}

static void on_stream_end(struct attach *a);

/* ---- what is typed ---- */

static void watch_stream(struct attach *a)
{
	loop_fd_set(a->stream_watch, a->ntyped ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (a->in_watch)
		loop_fd_set(a->in_watch, a->ntyped ? 0 : EPOLLIN);
}

/* A stream that takes no more has ended, or will: that is told by reading. */
static void send_typed(struct attach *a)
{
	ssize_t n = 0;

	if (a->ntyped)
		n = send(a->stream, a->typed, a->ntyped,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0) {
		a->ntyped -= (size_t)n;
		memmove(a->typed, a->typed + n, a->ntyped);
	}
	if (!a->ntyped && !a->in_watch)
		(void)shutdown(a->stream, SHUT_WR);
	watch_stream(a);
}

static void on_stream(void *opaque, uint32_t events)
{
	struct attach *a = opaque;
	uint8_t piece[PIECE];
	struct error err;
	ssize_t n = -1;

	if (events & EPOLLOUT)
		send_typed(a);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(a->stream, piece, sizeof(piece), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		on_stream_end(a);
	else if (show(a, piece, (size_t)n, &err))
		fail_to_show(a, &err);
}

static void on_input(void *opaque, uint32_t events __maybe_unused)
{
	struct attach *a = opaque;
	ssize_t n;

	if (a->ntyped)
		return;
	n = read(a->in, a->typed, sizeof(a->typed));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		a->ntyped = (size_t)n;
	} else {
		loop_fd_remove(a->in_watch);
		a->in_watch = NULL;
	}
	if (a->stream_watch)
		send_typed(a);
}

static void on_leave(void *opaque)
{
	finish(opaque, EXIT_SUCCESS);
}

/* ---- what is said of the VM ---- */

static void on_event(void *opaque, const char *name, json_t *data)
{
	struct attach *a = opaque;
	json_t *report = json_object_get(data, "x-godwit-report");
	const char *session =
		json_string_value(json_object_get(report, "session"));
	const char *status = json_string_value(json_object_get(data, "status"));

	if (!strcmp(name, "SHUTDOWN")) {
		a->ended = true;
		a->ended_with = (int)json_integer_value(
			json_object_get(data, "x-godwit-exit-status"));
	}
	if (strcmp(name, "MIGRATION") || !session || !status ||
	    strcmp(status, "completed") != 0)
		return;
	a->moved = true;
	snprintf(a->session, sizeof(a->session), "%s", session);
}

static void close_control(struct attach *a)
{
	loop_fd_remove(a->control_watch);
	a->control_watch = NULL;
	client_close(&a->control);
}

/* A VM that has moved waits for clients to have heard of it: go. */
static void hear_control(struct attach *a)
{
	struct error err;

	if (a->control_watch &&
	    (client_wait(&a->control, 0, -1, &err) || a->moved))
		close_control(a);
}

static void on_control(void *opaque, uint32_t events __maybe_unused)
{
	hear_control(opaque);
}

static void tell_size(struct attach *a)
{
	struct line_size size;
	struct error err;
	json_t *answer;

	if (!a->terminal || !a->control_watch ||
	    terminal_size(a->terminal, &size))
		return;
	answer = client_call(&a->control, "x-godwit-console-size",
			     json_pack("{s:s,s:i,s:i}", "device", a->device,
				       "columns", size.columns, "rows",
				       size.rows),
			     &err);
	if (!answer)
		log_debug("%s: the window's size: %s", a->name, err.text);
	json_decref(answer);
}

static void on_signal(void *opaque, uint32_t events __maybe_unused)
{
	struct attach *a = opaque;
	struct signalfd_siginfo info;

	if (read(a->signal_fd, &info, sizeof(info)) < 0)
		return;
	if (info.ssi_signo == SIGWINCH)
		tell_size(a);
	else
		finish(a, EXIT_SUCCESS);
}

/* ---- connecting ---- */

static int open_control(struct attach *a, struct error *err)
{
	int rc = client_open(a->name, &a->control, err);

	if (rc)
		return rc;
	a->control.on_event = on_event;
	a->control.opaque = a;
	rc = loop_fd_add(a->loop, a->control.fd, EPOLLIN, on_control, a, NULL,
			 &a->control_watch, err);
	if (rc)
		client_close(&a->control);
	return rc;
}

/* What came with the answer is the console's already. */
static int begin_stream(struct attach *a, struct client *client, json_t *answer,
			struct error *err)
{
	const char *device =
		json_string_value(json_object_get(answer, "device"));
	uint64_t offset =
		(uint64_t)json_integer_value(json_object_get(answer, "offset"));

	snprintf(a->device, sizeof(a->device), "%s", device ? device : "");
	if (offset > a->heard && a->heard) {
		end_row(a);
		log_warn("%s: this end reads too slowly: %llu bytes were "
			 "skipped",
			 a->name, (unsigned long long)(offset - a->heard));
	}
	a->heard = offset;
	return show(a, client->in, client->len, err);
}

static int open_stream(struct attach *a, struct error *err)
{
	json_t *arguments = json_pack("{s:I}", "from", (json_int_t)a->heard);
	struct client client;
	json_t *answer;
	int rc = client_open(a->name, &client, err);

	if (rc) {
		json_decref(arguments);
		return rc;
	}
	if (a->device[0])
		json_object_set_new(arguments, "device",
				    json_string(a->device));
	answer = client_call(&client, "x-godwit-console", arguments, err);
	rc = answer ? begin_stream(a, &client, answer, err) : -EIO;
	json_decref(answer);
	if (!rc) {
		a->stream = client.fd;
		client.fd = -1;
		rc = loop_fd_add(a->loop, a->stream, EPOLLIN, on_stream, a,
				 NULL, &a->stream_watch, err);
	}
	client_close(&client);
	return rc;
}

static int connect_to_vm(struct attach *a, struct error *err)
{
	int rc = open_control(a, err);

	if (!rc)
		rc = open_stream(a, err);
	if (rc)
		return rc;
	send_typed(a);
	tell_size(a);
	return 0;
}

/* ---- after the end of a stream ---- */

struct search {
	struct attach *a;
	bool found;
	pid_t pid;
	char own_name[MACHINE_NAME_MAX]; /* the guest's */
};

static void look_at_vm(void *opaque, const char *name)
{
	struct search *search = opaque;
	struct attach *a = search->a;
	const char *session, *own;
	struct client client;
	struct error err;
	json_t *info;

	if (search->found ||
	    client_open_within(name, SEARCH_PATIENCE, &client, &err))
		return;
	info = client_call(&client, "x-godwit-info", NULL, &err);
	session = json_string_value(json_object_get(info, "session"));
	own = json_string_value(json_object_get(info, "name"));
	search->found = session && !strcmp(session, a->session);
	if (search->found) {
		snprintf(a->name, sizeof(a->name), "%s", name);
		search->pid = client.pid;
		snprintf(search->own_name, sizeof(search->own_name), "%s",
			 own ? own : name);
	}
	json_decref(info);
	client_close(&client);
}

/* The VM of our session, whatever it is called now. */
static int search_vm(struct search *search, struct error *err)
{
	struct rundir dir;
	int rc = rundir_open(false, &dir, err);

	search->found = false;
	if (!rc) {
		rc = rundir_list(&dir, look_at_vm, search, err);
		rundir_close(&dir);
	}
	if (!rc && !search->found)
		rc = error_set(err, -ENOENT,
			       "moved away, and there is no VM of yours on "
			       "this host that it has become");
	return rc;
}

/* It gets its own name as soon as the one before has let that go: meanwhile. */
#define SEARCHES 8

/* @before: what it was called; NULL: it has not moved again. */
static int connect_by_session(struct attach *a, const char *before,
			      struct error *err)
{
	struct search search = { .a = a };
	int rc = -ENOENT;

	for (int i = 0; i < SEARCHES && rc == -ENOENT; i++) {
		rc = search_vm(&search, err);
		if (rc)
			continue;
		if (before) {
			bool renamed = strcmp(before, search.own_name) != 0;

			end_row(a);
			log_warn("%s: moved to process %d%s%s", before,
				 search.pid, renamed ? ", as " : "",
				 renamed ? search.own_name : "");
			a->heard = 0;
			before = NULL;
		}
		close_control(a);
		rc = connect_to_vm(a, err);
	}
	return rc;
}

static void follow(struct attach *a)
{
	char before[MACHINE_NAME_MAX];
	struct error err;
	int rc;

	memcpy(before, a->name, sizeof(before));
	a->moved = false;
	rc = connect_by_session(a, before, &err);
	if (rc && rc != -ENOENT) {
		fail_to_show(a, &err);
	} else if (rc) {
		end_row(a);
		log_warn("%s: %s", before, err.text);
		finish(a, EXIT_SUCCESS);
	}
}

/* The stream has ended, and nothing else: we were too slow. */
static int open_stream_again(struct attach *a, struct error *err)
{
	int rc = open_stream(a, err);

	if (rc == -ENOENT && a->session[0])
		return connect_by_session(a, NULL, err);
	if (!rc)
		send_typed(a);
	return rc;
}

static void on_stream_end(struct attach *a)
{
	struct error err;

	loop_fd_remove(a->stream_watch);
	a->stream_watch = NULL;
	close_fd(&a->stream);
	/* Why, was said before. */
	hear_control(a);
	if (a->moved) {
		follow(a);
	} else if (a->ended) {
		end_row(a);
		log_warn("%s: ended with status %d", a->name, a->ended_with);
		finish(a, EXIT_SUCCESS);
	} else if (!a->control_watch) {
		end_row(a);
		log_error("%s: its process has ended", a->name);
		finish(a, EXIT_FAILURE);
	} else if (open_stream_again(a, &err)) {
		fail_to_show(a, &err);
	}
}

/* ---- the whole ---- */

static int open_signals(struct attach *a, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	a->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->signal_fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	return loop_fd_add(a->loop, a->signal_fd, EPOLLIN, on_signal, a, NULL,
			   &a->signal_watch, err);
}

static int open_input(struct attach *a, struct error *err)
{
	int rc = 0;

	a->in = STDIN_FILENO;
	if (isatty(STDIN_FILENO))
		rc = terminal_create(a->loop, STDIN_FILENO, on_leave, a,
				     &a->terminal, err);
	if (rc)
		return rc;
	if (a->terminal) {
		a->in = terminal_console_in(a->terminal);
		end_row(a);
		log_warn("%s: this is %s; Ctrl-A x leaves", a->name, a->device);
	}
	return loop_fd_add(a->loop, a->in, EPOLLIN, on_input, a, NULL,
			   &a->in_watch, err);
}

/* A file has no reader, and can't be watched. */
static void watch_reader(struct attach *a)
{
	struct error ignored;

	if (!a->shown)
		(void)!loop_fd_add(a->loop, STDOUT_FILENO, 0, on_reader_gone, a,
				   NULL, &a->out_watch, &ignored);
}

static int run(struct attach *a, struct error *err)
{
	int rc = loop_create(&a->loop, err);

	if (!rc)
		rc = open_signals(a, err);
	if (!rc)
		rc = open_control(a, err);
	if (!rc)
		rc = open_stream(a, err);
	if (!rc)
		rc = open_input(a, err);
	if (rc)
		return rc;
	tell_size(a);
	watch_reader(a);
	loop_run(a->loop);
	return 0;
}

static void close_all(struct attach *a)
{
	close_control(a);
	loop_fd_remove(a->stream_watch);
	close_fd(&a->stream);
	loop_fd_remove(a->in_watch);
	terminal_free(a->terminal);
	loop_fd_remove(a->signal_watch);
	loop_fd_remove(a->out_watch);
	close_fd(&a->signal_fd);
	loop_free(a->loop);
}

int command_console(const struct attach_options *options)
{
	struct attach *a = calloc(1, sizeof(*a));
	struct error err;
	int status;

	if (!a) {
		log_error("out of memory");
		return EXIT_FAILURE;
	}
	a->control.fd = -1;
	a->signal_fd = -1;
	a->stream = -1;
	snprintf(a->name, sizeof(a->name), "%s", options->name);
	snprintf(a->device, sizeof(a->device), "%s",
		 options->device ? options->device : "");
	a->shown = isatty(STDOUT_FILENO);
	a->at_edge = true;
	if (run(a, &err))
		fail_to_show(a, &err);
	close_all(a);
	status = a->status;
	free(a);
	return status;
}
