// SPDX-License-Identifier: MIT
/*
 * The console; see console.h. The unix kind joins its client to the serial
 * port by a socket pair, a relay a direction: each holds at most one buffer and
 * reads only when that is empty, so that a slow reader slows its writer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "vmm/console.h"

/* Bytes on their way in one direction. */
struct relay {
	size_t len;
	char bytes[4096];
};

struct console {
	struct loop *loop;
	int in; /* the serial port's; -1 for none */
	int out;
	bool owned; /* in and out are ours to close */
	struct terminal *terminal;

	/* unix: */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int listen_fd;
	struct loop_fd *listen_watch;
	int port_fd; /* our end of the pair */
	struct loop_fd *port_watch;
	int client_fd;
	struct loop_fd *client_watch;
	bool client_ended; /* it sends no more, but may still listen */
	struct relay to_client;
	struct relay to_port;
};

/* ---- unix: the relays ---- */

static void hang_up(struct console *console)
{
	loop_fd_remove(console->client_watch);
	console->client_watch = NULL;
	close_fd(&console->client_fd);
	console->client_ended = false;
	console->to_client.len = 0;
	loop_fd_set(console->listen_watch, EPOLLIN);
}

static void on_client(void *opaque, uint32_t events);

static void watch_client(struct console *console, uint32_t events)
{
	struct error ignored;

	if (console->client_watch)
		loop_fd_set(console->client_watch, events);
	else if (loop_fd_add(console->loop, console->client_fd, events,
			     on_client, console, NULL, &console->client_watch,
			     &ignored))
		hang_up(console);
}

static void watch_relays(struct console *console)
{
	uint32_t port = 0, client = 0;

	port |= console->to_client.len ? 0 : EPOLLIN;
	port |= console->to_port.len ? EPOLLOUT : 0;
	client |= console->to_port.len || console->client_ended ? 0 : EPOLLIN;
	client |= console->to_client.len ? EPOLLOUT : 0;
	loop_fd_set(console->port_watch, port);
	if (console->client_fd < 0)
		return;
	if (client || !console->to_port.len) {
		watch_client(console, client);
		return;
	}
	/* A client that has hung up would wake us all the time. */
	loop_fd_remove(console->client_watch);
	console->client_watch = NULL;
}

/* Return: false when @from has ended. */
static bool fill(struct relay *relay, int from)
{
	ssize_t n;

	if (relay->len)
		return true;
	n = read(from, relay->bytes, sizeof(relay->bytes));
	if (n > 0)
		relay->len = (size_t)n;
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Return: false when nothing can be written to @to any more. */
static bool drain(struct relay *relay, int to)
{
	ssize_t n;

	if (!relay->len)
		return true;
	n = send(to, relay->bytes, relay->len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	relay->len -= (size_t)n;
	memmove(relay->bytes, relay->bytes + n, relay->len);
	return true;
}

static void on_port(void *opaque, uint32_t events __maybe_unused)
{
	struct console *console = opaque;

	(void)drain(&console->to_port, console->port_fd);
	(void)fill(&console->to_client, console->port_fd);
	if (console->client_fd < 0)
		console->to_client.len = 0;
	else if (!drain(&console->to_client, console->client_fd))
		hang_up(console);
	watch_relays(console);
}

static void on_client(void *opaque, uint32_t events)
{
	struct console *console = opaque;
	bool usable = drain(&console->to_client, console->client_fd);

	if (usable && !fill(&console->to_port, console->client_fd))
		console->client_ended = true;
	/* Gone in both directions, and all that it sent has been read. */
	if (console->client_ended && (events & (EPOLLHUP | EPOLLERR)))
		usable = false;
	if (!usable)
		hang_up(console);
	(void)drain(&console->to_port, console->port_fd);
	watch_relays(console);
}

static void on_listen(void *opaque, uint32_t events __maybe_unused)
{
	struct console *console = opaque;
	int fd = accept4(console->listen_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	/* The next one waits in the backlog until this one has gone. */
	loop_fd_set(console->listen_watch, 0);
	console->client_fd = fd;
	watch_relays(console);
}

/* ---- opening ---- */

static int open_unix(struct console *console, const char *path,
		     struct error *err)
{
	struct address address;
	char text[ADDRESS_TEXT_MAX];
	int pair[2];
	int rc;

	snprintf(text, sizeof(text), "unix:%s", path);
	rc = address_parse(text, &address, err);
	if (rc)
		return rc;
	rc = transport_listen(&address, NULL, err);
	if (rc < 0)
		return rc;
	console->listen_fd = rc;
	snprintf(console->path, sizeof(console->path), "%s", path);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       pair))
		return error_set(err, -errno, "socketpair: %s",
				 strerror(errno));
	console->port_fd = pair[0];
	console->in = pair[1];
	console->owned = true;
	/* The port watches its two ends apart. */
	console->out = fcntl(pair[1], F_DUPFD_CLOEXEC, 0);
	if (console->out < 0)
		return error_set(err, -errno, "dup: %s", strerror(errno));
	rc = loop_fd_add(console->loop, console->port_fd, EPOLLIN, on_port,
			 console, NULL, &console->port_watch, err);
	if (!rc)
		rc = loop_fd_add(console->loop, console->listen_fd, EPOLLIN,
				 on_listen, console, NULL,
				 &console->listen_watch, err);
	return rc;
}

static int open_file(struct console *console, const char *path,
		     struct error *err)
{
	/* A FIFO that nobody reads is not waited for. */
	console->out = open(
		path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK,
		0644);
	if (console->out < 0 && errno == ENXIO)
		return error_set(err, -ENXIO,
				 "file:%s: it is a FIFO that nobody reads; "
				 "open its other end first",
				 path);
	if (console->out < 0)
		return error_set(err, -errno, "file:%s: %s", path,
				 strerror(errno));
	console->owned = true;
	return 0;
}

/* Closed at our start: main() has put something unwritable in its place. */
static bool is_writable(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static int open_stdio(struct console *console, loop_fn *leave, void *opaque,
		      struct error *err)
{
	int rc;

	console->in = STDIN_FILENO;
	if (is_writable(STDOUT_FILENO))
		console->out = STDOUT_FILENO;
	if (!isatty(STDIN_FILENO))
		return 0;
	rc = terminal_create(console->loop, STDIN_FILENO, leave, opaque,
			     &console->terminal, err);
	if (!rc)
		console->in = terminal_console_in(console->terminal);
	return rc;
}

int console_open(const struct console_options *options, struct loop *loop,
		 loop_fn *leave, void *opaque, struct console **ret,
		 struct error *err)
{
	struct console *console = calloc(1, sizeof(*console));
	int rc = 0;

	if (!console)
		return error_set(err, -ENOMEM, "--console: out of memory");
	console->loop = loop;
	console->in = console->out = -1;
	console->listen_fd = console->port_fd = console->client_fd = -1;
	switch (options->kind) {
	case CONSOLE_STDIO:
		rc = open_stdio(console, leave, opaque, err);
		break;
	case CONSOLE_UNIX:
		rc = open_unix(console, options->path, err);
		break;
	case CONSOLE_FILE:
		rc = open_file(console, options->path, err);
		break;
	case CONSOLE_NULL:
		break;
	}
	if (rc) {
		console_free(console);
		error_prefix(err, "--console");
		return rc;
	}
	*ret = console;
	return 0;
}

int console_in(const struct console *console)
{
	return console->in;
}

int console_out(const struct console *console)
{
	return console->out;
}

void console_restore(const struct console *console)
{
	if (console && console->terminal)
		terminal_restore(console->terminal);
}

/* The guest's last words, as far as the client takes them at once. */
static void flush_relay(struct console *console)
{
	struct relay *relay = &console->to_client;

	while (drain(relay, console->client_fd) && !relay->len) {
		(void)fill(relay, console->port_fd);
		if (!relay->len)
			return;
	}
}

void console_free(struct console *console)
{
	if (!console)
		return;
	if (console->client_fd >= 0)
		flush_relay(console);
	terminal_free(console->terminal);
	loop_fd_remove(console->listen_watch);
	loop_fd_remove(console->port_watch);
	loop_fd_remove(console->client_watch);
	if (console->owned) {
		close_fd(&console->in);
		close_fd(&console->out);
	}
	close_fd(&console->listen_fd);
	close_fd(&console->port_fd);
	close_fd(&console->client_fd);
	if (console->path[0])
		(void)unlink(console->path);
	free(console);
}
