// SPDX-License-Identifier: MIT
/*
 * The log; see log.h.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/log.h"

#define LOG_LINE_MAX 1024

static _Atomic int log_limit = LOG_NOTICE;

void log_set_level(enum log_level level)
{
	atomic_store(&log_limit, (int)level);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char prefix[] = "godwit: ";
	char line[LOG_LINE_MAX];
	size_t used = sizeof(prefix) - 1;
	va_list ap;
	int n;

	if ((int)level > atomic_load(&log_limit))
		return;
	memcpy(line, prefix, used);
	va_start(ap, fmt);
	n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	/* Lines quote peers and guests. */
	text_make_plain(line + used);
	used += MIN((size_t)n, sizeof(line) - used - 2);
	line[used++] = '\n';
	/* Nothing can be done about a log that can't be written. */
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}
