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
	char context[ERROR_TEXT_MAX / 2];
	char text[ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(text, err->text, sizeof(text));
	/*
	 * What is too long for the buffer loses its tail, where the remedy is:
	 * of the context first, which is to be no more than half.
	 */
	snprintf(err->text, sizeof(err->text), "%s: %.*s", context,
		 (int)(sizeof(err->text) - strlen(context) - 3), text);
}
