/* SPDX-License-Identifier: MIT */
/*
 * Dates of the proleptic Gregorian calendar in UTC. The C library's functions
 * would read the time zone from a file, which the sandbox forbids.
 */
#ifndef GODWIT_DEVICES_CALENDAR_H
#define GODWIT_DEVICES_CALENDAR_H

#include <stdint.h>

#define SECONDS_PER_DAY 86400

struct date {
	int64_t year;
	unsigned int month;   /* 1 to 12 */
	unsigned int day;     /* 1 to 31 */
	unsigned int weekday; /* 1 is Sunday */
	unsigned int hour;
	unsigned int minute;
	unsigned int second;
};

/**
 * floor_div() - divide, rounding down, by a positive number.
 */
static inline int64_t floor_div(int64_t value, int64_t by)
{
	return value / by - (value % by < 0);
}

/**
 * days_of_date() - days from 1970-01-01 to a date.
 * @day: may be past the end of the month; counting goes on into the next.
 */
int64_t days_of_date(int64_t year, unsigned int month, unsigned int day);

/**
 * date_of_time() - the date at @time, in seconds since 1970, which may be
 * negative.
 */
void date_of_time(int64_t time, struct date *ret);

#endif
