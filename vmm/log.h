/* SPDX-License-Identifier: MIT */
/*
 * godwit's own words, on stderr: one line each, "godwit: " in front, written
 * with a single write() so that lines of several threads never mix. The level
 * is the program's only mutable file-scope state.
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
 * log_line() - print one line when @level is enabled; any thread.
 */
void log_line(enum log_level level, const char *fmt, ...) __printf(2, 3);

#define log_error(...)	log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)	log_line(LOG_WARN, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_line(LOG_DEBUG, __VA_ARGS__)

#endif
