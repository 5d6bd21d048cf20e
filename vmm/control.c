// SPDX-License-Identifier: MIT
/*
 * The control socket; see control.h.
 *
 * A client that asks for a console is one no longer as soon as its answer is
 * out: the console has its connection then.
 *
 * A client's handler does one thing at a time: what it has to send goes first,
 * then one request is read and carried out. So a flood of requests gets one
 * turn of the loop each.
 *
 * A client is freed only from its own handler or by control_free(): events,
 * which go to all of them, only mark the one that is to go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/control.h"
#include "vmm/log.h"

/* How long nobody is let in when the process has no descriptor left. */
#define BACK_OFF (100 * NS_PER_MS)

#define TOO_LONG "JSON parse error, the line is longer than 65536 bytes"

struct client {
	struct control *control;
	struct client *next;
	int fd;
	struct loop_fd *watch;
	struct qmp_session session;
	bool gone;     /* to be freed as soon as its handler runs */
	bool skipping; /* the rest of a line that was too long */
	size_t in_len;
	char in[QMP_LINE_MAX];
	char *out;
	size_t out_len; /* bytes not sent yet */
};

struct control {
	struct loop *loop;
	const struct qmp_backend *backend;
	void *opaque;
	int listen_fd;
	struct loop_fd *watch;
	struct loop_timer *back_off;
	struct client *clients;
	unsigned int nclients;
	bool told_full; /* since a client left */
	bool expect_end;
	loop_fn *on_served;
};

/* ---- going out ---- */

/*
 * Events are wanted according to what there is to do. A socket with room is
 * always ready, which is how the next of several lines gets its turn.
 */
static void watch_client(struct client *client)
{
	bool busy = client->out_len || client->gone ||
		    memchr(client->in, '\n', client->in_len);

	loop_fd_set(client->watch, busy ? EPOLLOUT : EPOLLIN);
}

static void mark_gone(struct client *client)
{
	client->gone = true;
	client->out_len = 0;
	/* A hang-up wakes the handler, whatever the client does. */
	shutdown(client->fd, SHUT_RDWR);
}

static void flush(struct client *client)
{
	size_t sent = 0;

	while (sent < client->out_len) {
		ssize_t n = send(client->fd, client->out + sent,
				 client->out_len - sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			mark_gone(client);
			break;
		}
		sent += (size_t)n;
	}
	if (!client->out_len)
		return;
	client->out_len -= sent;
	memmove(client->out, client->out + sent, client->out_len);
}

static bool append(struct client *client, const char *text, size_t len)
{
	size_t total = client->out_len + len;
	char *out;

	if (total > CONTROL_UNSENT_MAX) {
		log_info("control: hung up on a client that does not read");
		return false;
	}
	out = realloc(client->out, total);
	if (!out)
		return false;
	memcpy(out + client->out_len, text, len);
	client->out = out;
	client->out_len = total;
	return true;
}

/* @message is stolen. */
static void send_message(struct client *client, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

	json_decref(message);
	if (client->gone) {
		free(text);
		return;
	}
	if (!text || !append(client, text, strlen(text)) ||
	    !append(client, "\r\n", 2))
		mark_gone(client);
	free(text);
	flush(client);
	watch_client(client);
}

/* ---- coming in ---- */

static void handle_line(struct client *client, const char *line, size_t len)
{
	struct control *control = client->control;

	while (len && strchr(" \t\r", line[len - 1]))
		len--;
	if (!len)
		return;
	send_message(client, qmp_handle(&client->session, control->backend,
					control->opaque, line, len));
}

/* Handle the first whole line of the input, if there is one. */
static void take_line(struct client *client)
{
	char *end = memchr(client->in, '\n', client->in_len);
	size_t len;

	if (end) {
		len = (size_t)(end - client->in);
		if (!client->skipping)
			handle_line(client, client->in, len);
		client->skipping = false;
		client->in_len -= len + 1;
		memmove(client->in, end + 1, client->in_len);
	} else if (client->in_len == sizeof(client->in)) {
		if (!client->skipping)
			send_message(client,
				     qmp_error("GenericError", TOO_LONG));
		client->skipping = true;
		client->in_len = 0;
	}
}

static void take_descriptors(struct client *client, struct msghdr *msg)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			qmp_session_take_fd(&client->session, fd);
		}
	}
}

static void receive(struct client *client)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(QMP_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {
		.iov_base = client->in + client->in_len,
		.iov_len = sizeof(client->in) - client->in_len,
	};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(client->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		mark_gone(client);
		return;
	}
	take_descriptors(client, &msg);
	client->in_len += (size_t)n;
}

/* ---- clients ---- */

static void unlink_client(struct client *client)
{
	struct control *control = client->control;
	struct client **at = &control->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	control->nclients--;
	control->told_full = false;
}

static void free_client(struct client *client)
{
	loop_fd_remove(client->watch);
	qmp_session_fini(&client->session);
	close_fd(&client->fd);
	free(client->out);
	free(client);
}

static void tell_served(struct control *control)
{
	if (control->on_served && control_served(control))
		control->on_served(control->opaque);
}

/* What it has sent behind the request is the guest's. */
static void hand_over(struct client *client)
{
	struct control *control = client->control;
	struct qmp_session *session = &client->session;
	struct error err;
	int fd = client->fd;

	loop_fd_remove(client->watch);
	client->watch = NULL;
	client->fd = -1;
	if (control->backend->watch_console(control->opaque, session->watches,
					    fd, session->watches_from,
					    client->in, client->in_len, &err))
		log_info("control: %s: %s", session->watches, err.text);
}

static bool is_watcher(const struct client *client)
{
	return client->session.watches[0];
}

static void on_client(void *opaque, uint32_t events)
{
	struct client *client = opaque;
	struct control *control = client->control;

	flush(client);
	if (!client->gone && client->in_len < sizeof(client->in) &&
	    (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		receive(client);
	/* One line a turn: others have their turn in between. */
	if (!client->gone && !client->out_len && !is_watcher(client))
		take_line(client);
	/* The answer first. */
	if (!client->gone && !client->out_len && is_watcher(client)) {
		hand_over(client);
		client->gone = true;
	}
	if (client->gone) {
		unlink_client(client);
		free_client(client);
	} else {
		watch_client(client);
	}
	tell_served(control);
}

int control_add(struct control *control, int fd, struct error *err)
{
	struct client *client = calloc(1, sizeof(*client));
	int rc;

	if (!client) {
		close(fd);
		return error_set(err, -ENOMEM, "control: out of memory");
	}
	client->control = control;
	client->fd = fd;
	qmp_session_init(&client->session);
	client->session.peer = peer_pid(fd);
	rc = loop_fd_add(control->loop, fd, EPOLLIN, on_client, client, NULL,
			 &client->watch, err);
	if (rc) {
		free_client(client);
		return rc;
	}
	client->next = control->clients;
	control->clients = client;
	control->nclients++;
	send_message(client, qmp_greeting());
	return 0;
}

static void on_back_off(void *opaque)
{
	struct control *control = opaque;

	loop_fd_set(control->watch, EPOLLIN);
}

/* Said once, until there was room again: who comes in vain comes often. */
static void turn_away(struct control *control, int fd)
{
	char text[80];
	json_t *error;
	char *line;

	snprintf(text, sizeof(text),
		 "%d clients are connected already; try again later",
		 CONTROL_CLIENTS_MAX);
	if (!control->told_full)
		log_warn("control: another client was turned away: %s", text);
	control->told_full = true;
	error = qmp_error("GenericError", text);
	line = error ? json_dumps(error, JSON_COMPACT) : NULL;
	/* A fresh socket has room for it. */
	if (line)
		(void)!send(fd, line, strlen(line), MSG_NOSIGNAL);
	(void)!send(fd, "\r\n", 2, MSG_NOSIGNAL);
	free(line);
	json_decref(error);
	close(fd);
}

static void on_listen(void *opaque, uint32_t events __maybe_unused)
{
	struct control *control = opaque;
	struct error err;
	int fd = accept4(control->listen_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && is_shortage(errno)) {
		loop_fd_set(control->watch, 0);
		loop_timer_arm(control->back_off, clock_ns() + BACK_OFF);
	}
	if (fd < 0)
		return;
	if (control->nclients == CONTROL_CLIENTS_MAX) {
		turn_away(control, fd);
		return;
	}
	if (control_add(control, fd, &err))
		log_warn("%s", err.text);
}

int control_create(struct loop *loop, int listen_fd,
		   const struct qmp_backend *backend, void *opaque,
		   struct control **ret, struct error *err)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc = 0;

	if (!control)
		return error_set(err, -ENOMEM, "control: out of memory");
	*control = (struct control){
		.loop = loop,
		.backend = backend,
		.opaque = opaque,
		.listen_fd = listen_fd,
	};
	if (listen_fd >= 0)
		rc = loop_timer_add(loop, on_back_off, control, NULL,
				    &control->back_off, err);
	if (!rc && listen_fd >= 0)
		rc = loop_fd_add(loop, listen_fd, EPOLLIN, on_listen, control,
				 NULL, &control->watch, err);
	if (rc) {
		control_free(control);
		return rc;
	}
	*ret = control;
	return 0;
}

void control_free(struct control *control)
{
	struct client *client;

	if (!control)
		return;
	loop_timer_remove(control->back_off);
	loop_fd_remove(control->watch);
	while ((client = control->clients)) {
		control->clients = client->next;
		free_client(client);
	}
	free(control);
}

/* ---- telling everyone ---- */

void control_event(struct control *control, const char *name, json_t *data)
{
	json_t *event = qmp_event(name, data);

	for (struct client *c = control->clients; c; c = c->next) {
		if (c->session.negotiated && !is_watcher(c))
			send_message(c, json_incref(event));
	}
	json_decref(event);
}

void control_expect_end(struct control *control)
{
	control->expect_end = true;
}

bool control_served(const struct control *control)
{
	for (const struct client *c = control->clients; c; c = c->next) {
		if (c->out_len)
			return false;
		if (control->expect_end && c->session.negotiated &&
		    !c->session.told_end && !c->gone)
			return false;
	}
	return true;
}

void control_on_served(struct control *control, loop_fn *fn)
{
	control->on_served = fn;
}
