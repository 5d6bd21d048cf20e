/* SPDX-License-Identifier: MIT */
/*
 * A report of a migration in words for people, on standard output.
 */
#ifndef GODWIT_MOVE_WORDS_H
#define GODWIT_MOVE_WORDS_H

#include <jansson.h>

/**
 * move_words_moved() - what the move of @name has cost, and whether its pause
 * was longer than allowed.
 * @report: of one that is "completed".
 */
void move_words_moved(const char *name, json_t *report);

/**
 * move_words_forecast() - the verdict of a dry run, and what it rests on.
 * @report: of one that is "rehearsed".
 */
void move_words_forecast(const char *name, json_t *report);

#endif
