// SPDX-License-Identifier: MIT
/*
 * The lab's agent: the last thing that /init of the emulated host starts, and
 * process 1 from then on. It gives the driver outside what subprocess.Popen
 * gives at home: start a command, feed its standard input, get its output as
 * it appears, learn its exit status. It also listens on unix sockets, so that
 * a VMM's monitor can call the driver: then nobody has to poll for a socket to
 * appear. One that is there can be called.
 *
 * Why not a shell on the serial line: many consoles run at once, each must
 * arrive byte for byte, and each piece carries the time at which it was seen
 * here, on the one clock that all guests' hosts share.
 *
 * One thread, one poll loop. Writing to the port blocks; that cannot
 * deadlock, because the driver reads always. Writing to a child never blocks:
 * what it does not take waits in the channel. When the driver is gone, so is
 * the reason to run: the host powers off.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define MAX_CHANNELS 64
#define MAX_WORDS    128
#define STREAMS	     3

/**
 * struct channel - one child or one socket
 * @used: the slot holds a channel
 * @listening: fd[LAB_STDIN] waits for its caller
 * @is_socket: fd[LAB_STDIN] is a connected socket, used both ways
 * @closing: close fd[LAB_STDIN] for writing once @pending is empty
 * @id: the driver's number for it
 * @pid: the child; 0 when there is none, or when it was reaped
 * @fd: -1 when closed; indexed by enum lab_stream
 * @pending: bytes for the child that it did not take yet
 * @pending_len: how many
 */
struct channel {
	bool used;
	bool listening;
	bool is_socket;
	bool closing;
	uint16_t id;
	pid_t pid;
	int fd[STREAMS];
	char *pending;
	size_t pending_len;
};

/**
 * struct agent - everything that this process knows
 * @port: the virtio console port
 * @signals: signalfd for SIGCHLD
 * @channel: the slots
 * @input: bytes from the driver that do not make a frame yet
 * @input_len: how many
 */
struct agent {
	int port;
	int signals;
	struct channel channel[MAX_CHANNELS];
	char input[sizeof(struct lab_frame) + LAB_PAYLOAD];
	size_t input_len;
};

/* Process 1 must not just exit: say why, then take the host down. */
static _Noreturn void power_off(const char *why)
{
	fprintf(stderr, "lab agent: %s\n", why);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void write_port(struct agent *agent, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(agent->port, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			power_off("the driver is gone");
		p += n;
		len -= (size_t)n;
	}
}

static void send_frame(struct agent *agent, uint16_t id, enum lab_type type,
		       enum lab_stream stream, const void *data, size_t len)
{
	struct lab_frame frame = {
		.length = (uint32_t)len,
		.channel = id,
		.type = (uint8_t)type,
		.stream = (uint8_t)stream,
		.time_ns = now_ns(),
	};

	write_port(agent, &frame, sizeof(frame));
	write_port(agent, data, len);
}

static void send_error(struct agent *agent, uint16_t id, const char *format,
		       ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	send_frame(agent, id, LAB_ERROR, LAB_STDIN, text, strlen(text));
}

static struct channel *find_channel(struct agent *agent, uint16_t id)
{
	for (size_t i = 0; i < MAX_CHANNELS; i++) {
		struct channel *ch = &agent->channel[i];

		if (ch->used && ch->id == id)
			return ch;
	}
	return NULL;
}

static struct channel *new_channel(struct agent *agent, uint16_t id)
{
	for (size_t i = 0; i < MAX_CHANNELS; i++) {
		struct channel *ch = &agent->channel[i];

		if (!ch->used) {
			*ch = (struct channel){
				.used = true,
				.id = id,
				.fd = { -1, -1, -1 },
			};
			return ch;
		}
	}
	send_error(agent, id, "more than %d channels", MAX_CHANNELS);
	return NULL;
}

static void close_stream(struct channel *ch, enum lab_stream stream)
{
	if (ch->fd[stream] >= 0)
		close(ch->fd[stream]);
	ch->fd[stream] = -1;
}

/* The driver was told everything: the slot can be used again. */
static void release_if_over(struct channel *ch)
{
	if (ch->pid || ch->fd[LAB_STDOUT] >= 0 || ch->fd[LAB_STDERR] >= 0)
		return;
	if ((ch->is_socket || ch->listening) && ch->fd[LAB_STDIN] >= 0)
		return;
	close_stream(ch, LAB_STDIN);
	free(ch->pending);
	ch->pending = NULL;
	ch->used = false;
}

/* In the child: only async-signal-safe calls from here on. */
static _Noreturn void run_child(char *const words[], int ends[STREAMS][2])
{
	sigset_t none;

	for (int i = 0; i < STREAMS; i++)
		dup2(ends[i][i == LAB_STDIN ? 0 : 1], i);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	execvp(words[0], words);
	_exit(127);
}

static void spawn(struct agent *agent, uint16_t id, char *data, size_t len)
{
	int ends[STREAMS][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	char *words[MAX_WORDS + 1] = { NULL };
	struct channel *ch;
	size_t count = 0;

	if (!len || data[len - 1] != '\0') {
		send_error(agent, id, "a command without an end");
		return;
	}
	for (char *p = data; p < data + len && count < MAX_WORDS;
	     p += strlen(p) + 1)
		words[count++] = p;
	ch = new_channel(agent, id);
	if (!ch)
		return;
	for (int i = 0; i < STREAMS; i++) {
		if (pipe2(ends[i], O_CLOEXEC))
			power_off("no more pipes");
	}
	send_frame(agent, id, LAB_STARTS, LAB_STDIN, NULL, 0);
	ch->pid = fork();
	if (ch->pid < 0)
		power_off("cannot fork");
	if (!ch->pid)
		run_child(words, ends);
	for (int i = 0; i < STREAMS; i++) {
		int mine = ends[i][i == LAB_STDIN ? 1 : 0];

		close(ends[i][i == LAB_STDIN ? 0 : 1]);
		/* Only our end: the child may well want to block. */
		fcntl(mine, F_SETFL, O_NONBLOCK);
		ch->fd[i] = mine;
	}
}

static bool listens(int fd, const struct sockaddr_un *addr)
{
	return !bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) &&
	       !listen(fd, 1);
}

static bool calls(int fd, const struct sockaddr_un *addr)
{
	return !connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
}

/* A channel that has a unix socket; NULL when the driver was told why not. */
static struct channel *
open_socket(struct agent *agent, uint16_t id, const char *path, size_t len,
	    bool (*begin)(int fd, const struct sockaddr_un *addr))
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct channel *ch;
	int fd;

	if (!len || len >= sizeof(addr.sun_path)) {
		send_error(agent, id, "a socket path of %zu bytes", len);
		return NULL;
	}
	memcpy(addr.sun_path, path, len);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || !begin(fd, &addr)) {
		send_error(agent, id, "%s: %s", addr.sun_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	ch = new_channel(agent, id);
	if (ch)
		ch->fd[LAB_STDIN] = fd;
	else
		close(fd);
	return ch;
}

static void listen_at(struct agent *agent, uint16_t id, const char *path,
		      size_t len)
{
	struct channel *ch = open_socket(agent, id, path, len, listens);

	if (!ch)
		return;
	ch->listening = true;
	send_frame(agent, id, LAB_LISTENS, LAB_STDIN, NULL, 0);
}

static void call(struct agent *agent, uint16_t id, const char *path, size_t len)
{
	struct channel *ch = open_socket(agent, id, path, len, calls);

	if (!ch)
		return;
	ch->is_socket = true;
	send_frame(agent, id, LAB_CALLED, LAB_STDIN, NULL, 0);
}

static void take_call(struct agent *agent, struct channel *ch)
{
	int fd = accept4(ch->fd[LAB_STDIN], NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	close(ch->fd[LAB_STDIN]);
	ch->fd[LAB_STDIN] = fd;
	ch->listening = false;
	ch->is_socket = true;
	send_frame(agent, ch->id, LAB_CALLED, LAB_STDIN, NULL, 0);
}

/* Hands the child what waits for it, as far as it takes it. */
static void flush_pending(struct channel *ch)
{
	while (ch->pending_len && ch->fd[LAB_STDIN] >= 0) {
		ssize_t n =
			write(ch->fd[LAB_STDIN], ch->pending, ch->pending_len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			/* It does not listen any more; its exit says why. */
			ch->pending_len = 0;
			if (!ch->is_socket)
				close_stream(ch, LAB_STDIN);
			return;
		}
		ch->pending_len -= (size_t)n;
		memmove(ch->pending, ch->pending + n, ch->pending_len);
	}
	if (!ch->closing || ch->fd[LAB_STDIN] < 0)
		return;
	if (ch->is_socket)
		shutdown(ch->fd[LAB_STDIN], SHUT_WR);
	else
		close_stream(ch, LAB_STDIN);
	ch->closing = false;
}

static void feed(struct channel *ch, const char *data, size_t len)
{
	char *bigger = realloc(ch->pending, ch->pending_len + len + 1);

	if (!bigger)
		power_off("out of memory");
	memcpy(bigger + ch->pending_len, data, len);
	ch->pending = bigger;
	ch->pending_len += len;
	flush_pending(ch);
}

static void obey(struct agent *agent, const struct lab_frame *frame, char *data)
{
	struct channel *ch = find_channel(agent, frame->channel);

	switch (frame->type) {
	case LAB_SPAWN:
		spawn(agent, frame->channel, data, frame->length);
		break;
	case LAB_LISTEN:
		listen_at(agent, frame->channel, data, frame->length);
		break;
	case LAB_CALL:
		call(agent, frame->channel, data, frame->length);
		break;
	case LAB_SIGNAL:
		/* Its whole session: a shell's children go with it. */
		if (ch && ch->pid && frame->length)
			kill(-ch->pid, data[0]);
		break;
	case LAB_DATA:
		if (ch && !ch->listening)
			feed(ch, data, frame->length);
		break;
	case LAB_END:
		if (ch) {
			ch->closing = true;
			flush_pending(ch);
		}
		break;
	default:
		power_off("a frame of no known type");
	}
}

static void read_port(struct agent *agent)
{
	struct lab_frame frame;
	size_t size;
	ssize_t n = read(agent->port, agent->input + agent->input_len,
			 sizeof(agent->input) - agent->input_len);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0)
		power_off("the driver is gone");
	agent->input_len += (size_t)n;
	while (agent->input_len >= sizeof(frame)) {
		memcpy(&frame, agent->input, sizeof(frame));
		if (frame.length > LAB_PAYLOAD)
			power_off("a frame longer than the limit");
		size = sizeof(frame) + frame.length;
		if (agent->input_len < size)
			return;
		obey(agent, &frame, agent->input + sizeof(frame));
		agent->input_len -= size;
		memmove(agent->input, agent->input + size, agent->input_len);
	}
}

/* Passes on what a child or a caller said; its end too. */
static void read_stream(struct agent *agent, struct channel *ch,
			enum lab_stream stream)
{
	char data[16384];
	ssize_t n = read(ch->fd[stream], data, sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0) {
		send_frame(agent, ch->id, LAB_DATA, stream, data, (size_t)n);
		return;
	}
	close_stream(ch, stream);
	send_frame(agent, ch->id, LAB_END, stream, NULL, 0);
	release_if_over(ch);
}

static void reap(struct agent *agent)
{
	struct signalfd_siginfo info;
	int32_t status;
	pid_t pid;

	if (read(agent->signals, &info, sizeof(info)) < 0 && errno != EAGAIN)
		power_off("cannot read signals");
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (size_t i = 0; i < MAX_CHANNELS; i++) {
			struct channel *ch = &agent->channel[i];

			if (!ch->used || ch->pid != pid)
				continue;
			ch->pid = 0;
			close_stream(ch, LAB_STDIN);
			send_frame(agent, ch->id, LAB_EXIT, LAB_STDIN, &status,
				   sizeof(status));
			release_if_over(ch);
		}
	}
}

static short wanted(const struct channel *ch, enum lab_stream stream)
{
	short events = 0;

	if (stream != LAB_STDIN || ch->listening || ch->is_socket)
		events |= POLLIN;
	if (stream == LAB_STDIN && ch->pending_len)
		events |= POLLOUT;
	return events;
}

static void serve(struct agent *agent, struct channel *ch,
		  enum lab_stream stream, short events)
{
	if (ch->fd[stream] < 0)
		return;
	if (stream == LAB_STDIN && (events & (POLLOUT | POLLERR)))
		flush_pending(ch);
	if (!(events & (POLLIN | POLLHUP | POLLERR)))
		return;
	if (ch->listening)
		take_call(agent, ch);
	else if (stream != LAB_STDIN || ch->is_socket)
		read_stream(agent, ch, stream);
}

static void run_once(struct agent *agent)
{
	struct pollfd polls[2 + MAX_CHANNELS * STREAMS];
	struct channel *owner[MAX_CHANNELS * STREAMS];
	enum lab_stream stream[MAX_CHANNELS * STREAMS];
	size_t n = 0;

	polls[0] = (struct pollfd){ .fd = agent->port, .events = POLLIN };
	polls[1] = (struct pollfd){ .fd = agent->signals, .events = POLLIN };
	for (size_t i = 0; i < MAX_CHANNELS; i++) {
		struct channel *ch = &agent->channel[i];

		for (int s = 0; ch->used && s < STREAMS; s++) {
			short events = wanted(ch, (enum lab_stream)s);

			/* A pipe nobody reads is broken news, not an event. */
			if (ch->fd[s] < 0 || !events)
				continue;
			polls[2 + n] = (struct pollfd){ ch->fd[s], events, 0 };
			owner[n] = ch;
			stream[n++] = (enum lab_stream)s;
		}
	}
	if (poll(polls, 2 + n, -1) < 0) {
		if (errno == EINTR)
			return;
		power_off("cannot poll");
	}
	/*
	 * Output before exits: a child's last words are in its pipe by the time
	 * that it is a zombie. New channels last: slots must not change hands
	 * while the list above names them.
	 */
	for (size_t i = 0; i < n; i++) {
		if (polls[2 + i].revents)
			serve(agent, owner[i], stream[i], polls[2 + i].revents);
	}
	if (polls[1].revents)
		reap(agent);
	if (polls[0].revents)
		read_port(agent);
}

int main(int argc, char **argv)
{
	struct agent *agent = calloc(1, sizeof(*agent));
	sigset_t chld;

	if (argc != 2 || !agent)
		power_off("usage: agent PORT");
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
	agent->signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	agent->port = open(argv[1], O_RDWR | O_CLOEXEC);
	if (agent->signals < 0 || agent->port < 0)
		power_off("cannot open the port");
	send_frame(agent, 0, LAB_HELLO, LAB_STDIN, NULL, 0);
	for (;;)
		run_once(agent);
}
