// SPDX-License-Identifier: MIT
/*
 * The log; see log.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"

#define LOG_LINE_MAX 1024
/* That somebody who reads may be behind. */
#define PATIENCE_MS 1000

static _Atomic int log_limit = LOG_NOTICE;
static _Atomic unsigned int log_lost; /* lines, since the last that was not */

void log_set_level(enum log_level level)
{
	atomic_store(&log_limit, (int)level);
}

/*
 * A terminal says that it has room when a byte fits, and of a pipe others may
 * take what there was: only a write that doesn't block is safe. Those who share
 * the descriptor with us shall not notice, so it has to be opened anew.
 */
void log_begin(void)
{
	struct stat info;
	int fd;

	if (fstat(STDERR_FILENO, &info) ||
	    !(S_ISFIFO(info.st_mode) || isatty(STDERR_FILENO)))
		return;
	fd = open("/proc/self/fd/2",
		  O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	close(fd);
}

static bool has_room(int patience_ms)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };

	/* A signal says that this thread is wanted elsewhere. */
	return poll(&fd, 1, patience_ms) > 0;
}

/*
 * Returns false when there is no room for all of it. Nothing can be done about
 * a log that can't be written for another reason.
 */
static bool put(const char *line, size_t len, int patience_ms)
{
	while (len) {
		ssize_t n;

		if (!has_room(patience_ms))
			return false;
		n = write(STDERR_FILENO, line, len);
		if (n < 0)
			return errno != EAGAIN && errno != EINTR;
		line += n;
		len -= (size_t)n;
	}
	return true;
}

static bool tell_lost(int patience_ms)
{
	unsigned int lost = atomic_exchange(&log_lost, 0);
	char line[80];
	bool done;
	int n;

	if (!lost)
		return true;
	n = snprintf(line, sizeof(line),
		     "godwit: lines lost here, for nobody read them: %u\n",
		     lost);
	done = put(line, (size_t)n, patience_ms);
	if (!done)
		atomic_fetch_add(&log_lost, lost);
	return done;
}

/* Returns false when there is no room: a reader who sleeps holds nobody up. */
static bool print(int patience_ms, const char *fmt, va_list ap)
{
	static const char prefix[] = "godwit: ";
	char line[LOG_LINE_MAX];
	size_t used = sizeof(prefix) - 1;
	int n;

	memcpy(line, prefix, used);
	n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
	if (n < 0)
		return true;
	/* Lines quote peers and guests. */
	text_make_plain(line + used);
	used += MIN((size_t)n, sizeof(line) - used - 2);
	line[used++] = '\n';
	return tell_lost(patience_ms) && put(line, used, patience_ms);
}

static bool enabled(enum log_level level)
{
	return (int)level <= atomic_load(&log_limit);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (!enabled(level))
		return;
	va_start(ap, fmt);
	/* One who has slept for that long is not waited for again. */
	if (!print(log_lost ? 0 : PATIENCE_MS, fmt, ap))
		atomic_fetch_add(&log_lost, 1);
	va_end(ap);
}

bool log_now(enum log_level level, const char *fmt, ...)
{
	bool done = true;
	va_list ap;

	va_start(ap, fmt);
	if (enabled(level))
		done = print(0, fmt, ap);
	va_end(ap);
	return done;
}

void log_end(void)
{
	(void)tell_lost(0);
}
