/* SPDX-License-Identifier: MIT */
/*
 * How a lower room tells a higher one what went wrong, in words.
 *
 * A function that can fail for reasons a user should read takes a
 * `struct error *` and returns -errno. It fills the text once, where the
 * thing, its value and the remedy are known; callers may prefix context and
 * hand it up. Only the top room prints. The pointer is never NULL.
 */
#ifndef GODWIT_ERROR_H
#define GODWIT_ERROR_H

#include "vmm/util.h"

#define ERROR_TEXT_MAX 1024

struct error {
	char text[ERROR_TEXT_MAX];
};

/**
 * error_set() - say what failed.
 * @err: filled; an earlier text is replaced.
 * @code: negative errno, returned as it is.
 * @fmt: the text, without a trailing newline; when it should end in what
 *       errno means, the caller adds strerror(-code) itself.
 *
 * Return: @code, so that `return error_set(...)` reads well.
 */
int error_set(struct error *err, int code, const char *fmt, ...) __printf(3, 4);

/* An analyzer that sees one file at a time can't know that @code comes back. */
#ifdef __clang_analyzer__
#define error_set(err, code, ...) \
	((void)(error_set)((err), -1, __VA_ARGS__), (code))
#endif

/**
 * error_prefix() - put context in front of a text: "context: text".
 */
void error_prefix(struct error *err, const char *fmt, ...) __printf(2, 3);

#endif
