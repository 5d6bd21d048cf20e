// SPDX-License-Identifier: MIT
/*
 * Numbers with units; see units.h. All in integers, so that what was written
 * is what is meant.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/units.h"

struct unit {
	const char *name;
	uint64_t scale;
};

/* A number taken apart: whole, and a fraction in units of 10^-9. */
struct number {
	uint64_t whole;
	uint64_t fraction;
	const char *rest; /* what follows it */
};

static int parse_number(const char *text, struct number *ret)
{
	uint64_t place = 1000000000;
	const char *at = text;

	*ret = (struct number){ 0 };
	if (!isdigit((unsigned char)*at))
		return -EINVAL;
	for (; isdigit((unsigned char)*at); at++) {
		if (__builtin_mul_overflow(ret->whole, 10, &ret->whole) ||
		    __builtin_add_overflow(ret->whole, (uint64_t)(*at - '0'),
					   &ret->whole))
			return -ERANGE;
	}
	if (*at == '.') {
		if (!isdigit((unsigned char)*++at))
			return -EINVAL;
		for (; isdigit((unsigned char)*at); at++) {
			place /= 10;
			ret->fraction += (uint64_t)(*at - '0') * place;
		}
	}
	ret->rest = at;
	return 0;
}

static int scale_number(const struct number *number, uint64_t scale,
			uint64_t *ret)
{
	/* fraction < 10^9 and scale < 2^44, so this needs 128 bits. */
	unsigned __int128 value = (unsigned __int128)number->whole * scale;

	value += (unsigned __int128)number->fraction * scale / 1000000000;
	if (value > INT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)value;
	return 0;
}

/* @bare: what a number without unit counts, 0 when it needs one. */
static int parse_with(const char *text, const struct unit *units, size_t n,
		      uint64_t bare, const char *like, uint64_t *ret,
		      struct error *err)
{
	struct number number;
	int rc = parse_number(text, &number);
	uint64_t scale = 0;

	if (rc == -ERANGE)
		return error_set(err, rc, "the number is too large");
	if (rc && *text == '-')
		return error_set(err, rc, "a negative number; %s", like);
	if (rc)
		return error_set(err, rc, "not a number with a unit; %s", like);
	if (!*number.rest && !bare)
		return error_set(err, -EINVAL, "the unit is missing; %s", like);
	if (!*number.rest)
		scale = bare;
	for (size_t i = 0; i < n; i++) {
		if (!strcasecmp(number.rest, units[i].name))
			scale = units[i].scale;
	}
	if (!scale)
		return error_set(err, -EINVAL, "unit '%.20s' is unknown; %s",
				 number.rest, like);
	rc = scale_number(&number, scale, ret);
	if (rc)
		return error_set(err, rc, "the number is too large");
	return 0;
}

/* Those that we write ourselves come first, the smallest of them last. */
static const struct unit sizes[] = {
	{ "T", 1024 * GIB }, { "G", GIB },   { "M", MIB },
	{ "K", KIB },	     { "B", 1 },     { "kib", KIB },
	{ "mib", MIB },	     { "gib", GIB }, { "tib", 1024 * GIB },
};

static const struct unit times[] = {
	{ "h", 3600 * NS_PER_S }, { "min", 60 * NS_PER_S }, { "s", NS_PER_S },
	{ "ms", NS_PER_MS },	  { "us", NS_PER_US },	    { "ns", 1 },
};

int units_size(const char *text, uint64_t *ret_bytes, struct error *err)
{
	return parse_with(text, sizes, ARRAY_SIZE(sizes), 0,
			  "give a size with K, M, G or T, like 512M", ret_bytes,
			  err);
}

int units_time(const char *text, uint64_t *ret_ns, struct error *err)
{
	return parse_with(text, times, ARRAY_SIZE(times), 0,
			  "give a time with us, ms, s, min or h, like 10ms",
			  ret_ns, err);
}

int units_seconds(const char *text, uint64_t *ret_ns, struct error *err)
{
	return parse_with(text, times, ARRAY_SIZE(times), NS_PER_S,
			  "give seconds, like 5 or 0.5", ret_ns, err);
}

int units_rate(const char *text, uint64_t *ret_bytes_per_s, struct error *err)
{
	return parse_with(text, sizes, ARRAY_SIZE(sizes), 1,
			  "give bytes a second, with K, M, G or T, like 500M",
			  ret_bytes_per_s, err);
}

/* @units: the last one that is looked at counts ones. */
static const char *exact_text(const struct unit *units, uint64_t value,
			      char buf[UNITS_TEXT_MAX])
{
	while (units->scale > 1 && (!value || value % units->scale))
		units++;
	snprintf(buf, UNITS_TEXT_MAX, "%llu%s",
		 (unsigned long long)(value / units->scale), units->name);
	return buf;
}

const char *units_time_text(uint64_t ns, char buf[UNITS_TEXT_MAX])
{
	return exact_text(times, ns, buf);
}

const char *units_size_text(uint64_t bytes, char buf[UNITS_TEXT_MAX])
{
	return exact_text(sizes, bytes, buf);
}

int units_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret,
		struct error *err)
{
	struct number number;

	if (parse_number(text, &number) || *number.rest || number.fraction ||
	    number.whole < min || number.whole > max)
		return error_set(
			err, -EINVAL, "not a whole number from %llu to %llu",
			(unsigned long long)min, (unsigned long long)max);
	*ret = number.whole;
	return 0;
}
