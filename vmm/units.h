/* SPDX-License-Identifier: MIT */
/*
 * Sizes, times and rates as people write them. A number may have a fraction;
 * a unit is asked for where leaving it out could be misread.
 */
#ifndef GODWIT_UNITS_H
#define GODWIT_UNITS_H

#include "vmm/error.h"

/**
 * units_size() - bytes, from "512M", "1.5G": K, M, G or T, powers of 1024.
 *
 * Return: 0, or -EINVAL with @err saying what a size looks like.
 */
int __must_check units_size(const char *text, uint64_t *ret_bytes,
			    struct error *err);

/**
 * units_time() - nanoseconds, from "10ms", "0.5s": ns, us, ms, s, min or h.
 */
int __must_check units_time(const char *text, uint64_t *ret_ns,
			    struct error *err);

/**
 * units_seconds() - nanoseconds, from a bare number of seconds or a time.
 */
int __must_check units_seconds(const char *text, uint64_t *ret_ns,
			       struct error *err);

/**
 * units_rate() - bytes a second, from "500M" or a bare number of bytes.
 */
int __must_check units_rate(const char *text, uint64_t *ret_bytes_per_s,
			    struct error *err);

#define UNITS_TEXT_MAX 32

/**
 * units_time_text() / units_size_text() - as people write them: in the largest
 * unit in which it is a whole number: "1500ms", "512M", "17B".
 *
 * Return: @buf.
 */
const char *units_time_text(uint64_t ns, char buf[UNITS_TEXT_MAX]);
const char *units_size_text(uint64_t bytes, char buf[UNITS_TEXT_MAX]);

/**
 * units_count() - a whole number from @min to @max.
 */
int __must_check units_count(const char *text, uint64_t min, uint64_t max,
			     uint64_t *ret, struct error *err);

#endif
