// SPDX-License-Identifier: MIT
/*
 * A QMP client; see client.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/client.h"
#include "vmm/log.h"
#include "vmm/rundir.h"

#define PATIENCE (10 * NS_PER_S)
/* After this a terminal is told what takes so long. */
#define TELL_AFTER (1 * NS_PER_S)

/* ---- lines ---- */

static int has_ended(struct client *client, struct error *err)
{
	client->ended = true;
	return error_set(err, -ENODATA, "the VM's process has ended");
}

static int fill(struct client *client, struct error *err)
{
	ssize_t n;

	if (client->len == CLIENT_LINE_MAX)
		return error_set(err, -EMSGSIZE, "the VM's answer is too long");
	do {
		n = read(client->fd, client->in + client->len,
			 CLIENT_LINE_MAX - client->len);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != ECONNRESET)
		return error_set(err, -errno, "reading: %s", strerror(errno));
	if (n <= 0)
		return has_ended(client, err);
	client->len += (size_t)n;
	return 0;
}

/* The next whole line, parsed; NULL when there is none yet. */
static json_t *take_message(struct client *client, int *ret_rc,
			    struct error *err)
{
	char *end = memchr(client->in, '\n', client->len);
	json_error_t where;
	json_t *message;
	size_t len;

	*ret_rc = 0;
	if (!end)
		return NULL;
	len = (size_t)(end - client->in);
	message = json_loadb(client->in, len, 0, &where);
	client->len -= len + 1;
	memmove(client->in, end + 1, client->len);
	if (!message)
		*ret_rc =
			error_set(err, -EBADMSG,
				  "the VM's answer is no JSON: %s", where.text);
	return message;
}

/* Take an event out of the way; true when @message was one. */
static bool tell_event(struct client *client, json_t *message)
{
	const char *name = json_string_value(json_object_get(message, "event"));

	if (!name)
		return false;
	if (client->on_event)
		client->on_event(client->opaque, name,
				 json_object_get(message, "data"));
	return true;
}

static int no_answer(const struct client *client, struct error *err)
{
	if (!client->pid)
		return error_set(err, -ETIMEDOUT,
				 "the VM's process does not answer");
	return error_set(err, -ETIMEDOUT,
			 "the VM's process, %d, does not answer; see what it "
			 "is doing, or end it with `kill -KILL %d`",
			 client->pid, client->pid);
}

static int wait_readable(struct client *client, uint64_t deadline_ns,
			 struct error *err)
{
	struct pollfd fd = { .fd = client->fd, .events = POLLIN };
	uint64_t now = clock_ns();
	int n;

	if (now >= deadline_ns)
		return no_answer(client, err);
	do {
		n = poll(&fd, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, -errno, "poll: %s", strerror(errno));
	return n ? 0 : no_answer(client, err);
}

/* The same, but who looks on is not left in the dark. */
static int wait_patiently(struct client *client, uint64_t deadline_ns,
			  struct error *err)
{
	uint64_t tell_ns = clock_ns() + TELL_AFTER;
	int rc;

	if (client->told || tell_ns >= deadline_ns || !isatty(STDERR_FILENO))
		return wait_readable(client, deadline_ns, err);
	rc = wait_readable(client, tell_ns, err);
	if (rc != -ETIMEDOUT)
		return rc;
	client->told = true;
	log_warn("%s: waiting for its process, %d, to answer", client->name,
		 client->pid);
	return wait_readable(client, deadline_ns, err);
}

/* The next message that is no event; events on the way are told. */
static json_t *next_answer(struct client *client, struct error *err)
{
	uint64_t deadline = clock_ns() + client->patience_ns;
	json_t *message;
	int rc = 0;

	while (!rc) {
		message = take_message(client, &rc, err);
		if (message && !tell_event(client, message))
			return message;
		json_decref(message);
		if (message || rc)
			continue;
		rc = wait_patiently(client, deadline, err);
		if (!rc)
			rc = fill(client, err);
	}
	return NULL;
}

static int send_all(struct client *client, const char *text, struct error *err)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = send(client->fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EPIPE && errno != ECONNRESET)
			return error_set(err, -errno, "writing: %s",
					 strerror(errno));
		if (n < 0)
			return has_ended(client, err);
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- calls ---- */

static json_t *answer_of(json_t *message, struct error *err)
{
	json_t *ret = json_incref(json_object_get(message, "return"));
	json_t *error = json_object_get(message, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));

	if (!ret)
		(void)error_set(err, -EIO, "%s",
				desc ? desc : "the VM's answer is no answer");
	json_decref(message);
	return ret;
}

json_t *client_call(struct client *client, const char *command,
		    json_t *arguments, struct error *err)
{
	json_t *request = json_pack("{s:s}", "execute", command);
	json_t *message;
	char *text;
	int rc;

	if (arguments)
		json_object_set_new(request, "arguments", arguments);
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (!text) {
		(void)error_set(err, -EINVAL,
				"%s: an argument is no valid UTF-8", command);
		return NULL;
	}
	rc = send_all(client, text, err);
	if (!rc)
		rc = send_all(client, "\n", err);
	free(text);
	if (rc)
		return NULL;
	message = next_answer(client, err);
	return message ? answer_of(message, err) : NULL;
}

json_t *client_ask(const char *name, const char *command, json_t *arguments,
		   struct error *err)
{
	struct client client;
	json_t *answer;

	if (client_open(name, &client, err)) {
		json_decref(arguments);
		return NULL;
	}
	answer = client_call(&client, command, arguments, err);
	client_close(&client);
	return answer;
}

const char *client_text(json_t *answer, const char *key)
{
	const char *text = json_string_value(json_object_get(answer, key));

	return text ? text : "";
}

int client_wait(struct client *client, int timeout_ms, int extra_fd,
		struct error *err)
{
	struct pollfd fds[] = { { .fd = client->fd, .events = POLLIN },
				{ .fd = extra_fd, .events = POLLIN } };
	json_t *message;
	int rc = 0;

	if (!memchr(client->in, '\n', client->len) &&
	    poll(fds, ARRAY_SIZE(fds), timeout_ms) > 0 && fds[0].revents)
		rc = fill(client, err);
	while (!rc && (message = take_message(client, &rc, err))) {
		tell_event(client, message);
		json_decref(message);
	}
	return rc;
}

int client_wait_end(struct client *client, struct error *err)
{
	uint64_t deadline = clock_ns() + PATIENCE;
	int rc = 0;

	while (!rc) {
		client->len = 0;
		rc = wait_readable(client, deadline, err);
		if (!rc)
			rc = fill(client, err);
	}
	return rc == -ENODATA ? 0 : rc;
}

int client_send_fd(struct client *client, int fd, const char *name,
		   struct error *err)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	/* A blank between requests: a descriptor needs a byte to ride on. */
	struct iovec iov = { .iov_base = (char[]){ ' ' }, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control.bytes),
	};
	json_t *answer;

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	if (sendmsg(client->fd, &msg, MSG_NOSIGNAL) < 0)
		return error_set(err, -errno, "passing descriptor %d: %s", fd,
				 strerror(errno));
	answer = client_call(client, "getfd",
			     json_pack("{s:s}", "fdname", name), err);
	json_decref(answer);
	return answer ? 0 : -EIO;
}

/* ---- connections ---- */

static int connect_to(const char *name, struct error *err)
{
	struct rundir dir;
	int rc = rundir_open(false, &dir, err);
	int fd;

	if (rc == -ENOENT)
		return error_set(err, rc,
				 "no VM '%s' here; no VM runs at all (%s)",
				 name, dir.path);
	if (rc)
		return rc;
	fd = rundir_connect(&dir, name, err);
	rundir_close(&dir);
	return fd;
}

int client_open(const char *name, struct client *ret, struct error *err)
{
	return client_open_within(name, PATIENCE, ret, err);
}

int client_open_within(const char *name, uint64_t patience_ns,
		       struct client *ret, struct error *err)
{
	json_t *message;

	*ret = (struct client){ .patience_ns = patience_ns };
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	ret->fd = connect_to(name, err);
	if (ret->fd < 0)
		return ret->fd;
	ret->pid = peer_pid(ret->fd);
	ret->in = malloc(CLIENT_LINE_MAX);
	if (!ret->in) {
		client_close(ret);
		return error_set(err, -ENOMEM, "out of memory");
	}
	message = next_answer(ret, err); /* the greeting */
	/* Instead of it: there is no place. */
	if (message && json_object_get(message, "error"))
		message = answer_of(message, err);
	if (message) {
		json_decref(message);
		message = client_call(ret, "qmp_capabilities", NULL, err);
	}
	json_decref(message);
	if (message)
		return 0;
	client_close(ret);
	return -EIO;
}

void client_close(struct client *client)
{
	close_fd(&client->fd);
	free(client->in);
	client->in = NULL;
}
