// SPDX-License-Identifier: MIT
/*
 * The log; see log.h.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
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

/* A pipe that can be written to has room for more than a line of ours. */
static bool has_room(int patience_ms)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&fd, 1, patience_ms) != 0;
}

/* Nothing can be done about a log that can't be written. */
static void put(const char *line, size_t len)
{
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

static void tell_lost(void)
{
	unsigned int lost = atomic_exchange(&log_lost, 0);
	char line[80];
	int n;

	n = snprintf(line, sizeof(line),
		     "godwit: lines lost here, for nobody read them: %u\n",
		     lost);
	if (lost)
		put(line, (size_t)n);
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
	if (!has_room(patience_ms))
		return false;
	tell_lost();
	put(line, used);
	return true;
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
	if (has_room(0))
		tell_lost();
}
