/* SPDX-License-Identifier: MIT */
/*
 * godwit's own words, on stderr: one line each, "godwit: " in front, written
 * with a single write() where there is room for that, so that lines of several
 * threads don't mix. The level, and how many lines were lost, are the program's
 * only mutable file-scope state.
 *
 * Who reads may be behind (a full pipe, a terminal that was stopped): a line is
 * waited with for a second, and then lost; what is printed next says so.
 */
#ifndef GODWIT_LOG_H
#define GODWIT_LOG_H

#include "vmm/util.h"

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_NOTICE, /* what a person may need to know later */
	LOG_INFO,
	LOG_DEBUG,
};

/**
 * log_set_level() - print lines up to and including @level (default NOTICE).
 */
void log_set_level(enum log_level level);

/**
 * log_begin() - have no write to a log's pipe or terminal block; for processes
 * that hold a guest, before their first line. Others who have the same stderr
 * notice nothing.
 */
void log_begin(void);

/**
 * log_line() - print one line when @level is enabled; any thread.
 */
void log_line(enum log_level level, const char *fmt, ...) __printf(2, 3);

/**
 * log_now() - as log_line(), where nobody may be held up: a guest waits.
 *
 * Return: false when there is no room now; then nothing was printed, and the
 * caller should later say it again.
 */
bool log_now(enum log_level level, const char *fmt, ...) __printf(2, 3);

/**
 * log_end() - no line follows; if some were lost, now is the time to say so.
 */
void log_end(void);

#define log_error(...)	log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)	log_line(LOG_WARN, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_line(LOG_DEBUG, __VA_ARGS__)

#endif
