// SPDX-License-Identifier: MIT
/*
 * Texts of failures; see error.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm/error.h"

int(error_set)(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
	char context[ERROR_TEXT_MAX];
	char text[ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(text, err->text, sizeof(text));
	/* A text too long for the buffer loses its tail, never its head. */
	snprintf(err->text, sizeof(err->text), "%.*s: %.*s",
		 (int)(sizeof(err->text) / 2), context,
		 (int)(sizeof(err->text) / 2) - 4, text);
}
