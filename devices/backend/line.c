// SPDX-License-Identifier: MIT
/*
 * A line and its end; see line.h. Its watchers are in line_watch.c.
 *
 * Both ends of a direction have a watch of the loop's only while there is
 * something to wait for, and it is removed rather than muted: a hang-up would
 * be told again and again. But a client's output is watched always, or nobody
 * would notice that he has gone and the next may come.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/line_internal.h"
#include "vmm/log.h"

/* What is written byte by byte before the loop goes on. */
#define BYTES_AT_ONCE 1024

/* How long nobody is let in when the process has no descriptor left. */
#define BACK_OFF (100 * NS_PER_MS)

void line_tell(struct line *line)
{
	uint64_t one = 1;
	ssize_t n = write(line->news_fd, &one, sizeof(one));

	/* EAGAIN: it is full of signals that nobody has read yet. */
	(void)n;
}

static bool has_clients(const struct line *line)
{
	return line->listen >= 0;
}

/* ---- the end ---- */

static void close_end(const struct line *line, int *fd)
{
	if (line->owned)
		close_fd(fd);
	*fd = -1;
}

/* The next client waits in the backlog until this one has gone. */
static void listen_again(struct line *line)
{
	if (line->listen_watch && line->in < 0 && line->out < 0)
		loop_fd_set(line->listen_watch, EPOLLIN);
}

static void end_input(struct line *line)
{
	loop_fd_remove(line->in_watch);
	line->in_watch = NULL;
	close_end(line, &line->in);
	listen_again(line);
}

static void end_output(struct line *line)
{
	loop_fd_remove(line->out_watch);
	line->out_watch = NULL;
	close_end(line, &line->out);
	listen_again(line);
}

static void on_input(void *opaque, uint32_t events __maybe_unused)
{
	struct line *line = opaque;

	line_set_hungry(line, false);
	line_tell(line);
}

/* He has gone: what he has said before is still read, but silence is not. */
static void end_unless_typed(struct line *line)
{
	ssize_t n;
	char byte;

	if (line->in < 0)
		return;
	n = recv(line->in, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
		end_input(line);
}

static void on_room(void *opaque, uint32_t events)
{
	struct line *line = opaque;

	if (!has_clients(line)) {
		loop_fd_remove(line->out_watch);
		line->out_watch = NULL;
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		end_output(line);
		end_unless_typed(line);
	} else {
		loop_fd_set(line->out_watch, 0);
	}
	line_tell(line);
}

static void watch_input(struct line *line)
{
	struct error ignored;

	if (line->in < 0 || line->in_watch)
		return;
	if (loop_fd_add(line->loop, line->in, EPOLLIN, on_input, line,
			&line->lock, &line->in_watch, &ignored))
		/* Looked at again at once, then: slow, but not deaf. */
		line_tell(line);
}

static void ask(struct line *line)
{
	line_set_hungry(line, true);
	watch_input(line);
	if (line_has_typed(line))
		line_tell(line);
}

static void watch_output(struct line *line)
{
	struct error ignored;

	if (line->out_watch)
		loop_fd_set(line->out_watch, EPOLLOUT);
	else if (loop_fd_add(line->loop, line->out, EPOLLOUT, on_room, line,
			     &line->lock, &line->out_watch, &ignored))
		line_tell(line);
}

/* One that is shared may block, and must not be switched not to. */
static bool is_ready(const struct line *line, int fd, short events)
{
	struct pollfd ready = { .fd = fd, .events = events };

	return line->owned || poll(&ready, 1, 0) > 0;
}

static size_t get_from_end(struct line *line, uint8_t *buf, size_t len)
{
	ssize_t n;

	if (line->in < 0 || !len || !is_ready(line, line->in, POLLIN))
		return 0;
	n = read(line->in, buf, len);
	if (n > 0)
		return (size_t)n;
	if (!n || (errno != EAGAIN && errno != EINTR))
		end_input(line);
	return 0;
}

static void lose(struct line *line)
{
	if (has_clients(line)) {
		end_output(line);
		return;
	}
	if (!line->lost)
		log_warn("console: %s; what the guest says is lost",
			 strerror(errno));
	line->lost = true;
}

static size_t put_to_end(struct line *line, const uint8_t *bytes, size_t len)
{
	size_t done = 0;

	/* A terminal takes one byte a call: others have their turn, too. */
	if (line->chunk == 1 && line->out >= 0)
		len = MIN(len, BYTES_AT_ONCE);
	while (line->out >= 0 && done < len) {
		ssize_t n;

		if (!is_ready(line, line->out, POLLOUT))
			return done;
		n = write(line->out, bytes + done,
			  MIN(len - done, line->chunk));
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return done;
		else {
			lose(line);
			return len;
		}
	}
	return len;
}

/* ---- for the device ---- */

int line_watch_news(struct line *line, struct loop *loop, loop_fd_fn *fn,
		    void *opaque, pthread_mutex_t *lock, struct loop_fd **ret,
		    struct error *err)
{
	*ret = NULL;
	if (!line)
		return 0;
	return loop_fd_add(loop, line->news_fd, EPOLLIN, fn, opaque, lock, ret,
			   err);
}

void line_take_news(struct line *line)
{
	uint64_t count;
	ssize_t n = read(line->news_fd, &count, sizeof(count));

	/* EAGAIN: it was taken already. */
	(void)n;
}

size_t line_put(struct line *line, const uint8_t *bytes, size_t len)
{
	size_t n;

	if (!line || !len)
		return len;
	pthread_mutex_lock(&line->lock);
	n = put_to_end(line, bytes, len);
	line_record(line, bytes, n);
	if (n < len)
		watch_output(line);
	pthread_mutex_unlock(&line->lock);
	return n;
}

size_t line_get(struct line *line, uint8_t *buf, size_t len)
{
	size_t n;

	if (!line)
		return 0;
	pthread_mutex_lock(&line->lock);
	n = get_from_end(line, buf, len);
	n += line_get_from_watchers(line, buf + n, len - n);
	if (n < len)
		ask(line);
	pthread_mutex_unlock(&line->lock);
	return n;
}

void line_ask(struct line *line)
{
	if (!line)
		return;
	pthread_mutex_lock(&line->lock);
	ask(line);
	pthread_mutex_unlock(&line->lock);
}

struct line_size line_size(struct line *line)
{
	struct line_size size = { 0 };

	if (!line)
		return size;
	pthread_mutex_lock(&line->lock);
	size = line->size;
	pthread_mutex_unlock(&line->lock);
	return size;
}

void line_resize(struct line *line, struct line_size size)
{
	pthread_mutex_lock(&line->lock);
	line->size = size;
	line_tell(line);
	pthread_mutex_unlock(&line->lock);
}

/* ---- clients ---- */

static void take_client(struct line *line, int fd)
{
	struct error ignored;

	line->in = fd;
	/* Each direction ends, and is watched, for itself. */
	line->out = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (line->out < 0 ||
	    loop_fd_add(line->loop, line->out, 0, on_room, line, &line->lock,
			&line->out_watch, &ignored)) {
		end_output(line);
		end_input(line);
		return;
	}
	if (line->hungry)
		watch_input(line);
	line_tell(line);
}

static void on_listen(void *opaque, uint32_t events __maybe_unused)
{
	struct line *line = opaque;
	int fd =
		accept4(line->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && is_shortage(errno) && line->back_off) {
		loop_fd_set(line->listen_watch, 0);
		loop_timer_arm(line->back_off, clock_ns() + BACK_OFF);
	}
	if (fd < 0)
		return;
	loop_fd_set(line->listen_watch, 0);
	take_client(line, fd);
}

static void on_back_off(void *opaque)
{
	listen_again(opaque);
}

static int watch_clients(struct line *line, struct error *err)
{
	int rc;

	if (!has_clients(line))
		return 0;
	rc = loop_timer_add(line->loop, on_back_off, line, &line->lock,
			    &line->back_off, err);
	if (rc)
		return rc;
	return loop_fd_add(line->loop, line->listen, EPOLLIN, on_listen, line,
			   &line->lock, &line->listen_watch, err);
}

/* ---- making and unmaking ---- */

/*
 * How much can be written at once to what poll() says is ready, if it blocks
 * otherwise. A terminal may have room for one byte; pipe(7) has room for this
 * many.
 */
static size_t chunk_of(const struct line_end *end)
{
	struct stat st;

	if (end->owned || end->out < 0 || fstat(end->out, &st))
		return SIZE_MAX;
	if (S_ISREG(st.st_mode))
		return SIZE_MAX;
	return S_ISFIFO(st.st_mode) ? PIPE_BUF : 1;
}

/* So that one descriptor can serve both ways: each is watched for itself. */
static int take_shared(struct line *line, struct error *err)
{
	if (line->owned || line->out < 0)
		return 0;
	line->shared_out = fcntl(line->out, F_DUPFD_CLOEXEC, 3);
	if (line->shared_out < 0)
		return error_set(err, -errno, "console output: %s",
				 strerror(errno));
	line->out = line->shared_out;
	return 0;
}

int line_create(struct loop *loop, const struct line_end *end,
		struct line **ret, struct error *err)
{
	struct line *line = calloc(1, sizeof(*line));
	int rc = 0;

	if (!line)
		return error_set(err, -ENOMEM, "console: out of memory");
	*line = (struct line){
		.loop = loop,
		.owned = end->owned,
		.in = end->in,
		.out = end->out,
		.listen = end->listen,
		.shared_out = -1,
		.chunk = chunk_of(end),
		.news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.scroll = calloc(1, LINE_SCROLLBACK),
	};
	/* Can't fail with default attributes. */
	pthread_mutex_init(&line->lock, NULL);
	if (line->news_fd < 0)
		rc = error_set(err, -errno, "eventfd: %s", strerror(errno));
	else if (!line->scroll)
		rc = error_set(err, -ENOMEM, "console: out of memory");
	if (!rc)
		rc = take_shared(line, err);
	if (!rc)
		rc = watch_clients(line, err);
	if (rc) {
		line_free(line);
		return rc;
	}
	*ret = line;
	return 0;
}

void line_free(struct line *line)
{
	if (!line)
		return;
	pthread_mutex_lock(&line->lock);
	loop_timer_remove(line->back_off);
	loop_fd_remove(line->listen_watch);
	line->listen_watch = NULL;
	line_drop_watchers(line);
	end_input(line);
	end_output(line);
	pthread_mutex_unlock(&line->lock);
	close_fd(&line->listen);
	close_fd(&line->shared_out);
	close_fd(&line->news_fd);
	free(line->scroll);
	pthread_mutex_destroy(&line->lock);
	free(line);
}
