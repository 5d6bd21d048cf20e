/* SPDX-License-Identifier: MIT */
/*
 * How a migration goes, for people: one line made of what query-migrate says.
 */
#ifndef GODWIT_PROGRESS_H
#define GODWIT_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The longest line, with its end. */
#define PROGRESS_MAX 256

/**
 * progress_is_due() - is the migration under way, so that there is progress?
 * @now: what query-migrate returned.
 */
bool progress_is_due(json_t *now);

/**
 * progress_line() - phase and round, how much has been sent, how fast, how much
 * the guest writes meanwhile, how long a pause would be, and whether that will
 * be short enough.
 * @now: what query-migrate returned.
 * @width: of the terminal, in columns; where all of it doesn't fit, what says
 *         least is left out.
 * @ret: the line, in ASCII, without a newline; PROGRESS_MAX is enough for
 * @size.
 */
void progress_line(json_t *now, size_t width, char *ret, size_t size);

#endif
