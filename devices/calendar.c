// SPDX-License-Identifier: MIT
/*
 * Calendar arithmetic; see calendar.h. Pure functions, any thread.
 */
#include "devices/calendar.h"

int64_t days_of_date(int64_t year, unsigned int month, unsigned int day)
{
	/* Years that begin in March have their leap day at the end. */
	int64_t m = (int64_t)month - 3 + (month < 3 ? 12 : 0);
	int64_t y = year - (month < 3);
	int64_t leaps = floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400);

	/* 153 days in every 5 months from March on; 0000-03-01 is -719468. */
	return 365 * y + leaps + (153 * m + 2) / 5 + day - 1 - 719468;
}

void date_of_time(int64_t time, struct date *ret)
{
	int64_t days = floor_div(time, SECONDS_PER_DAY);
	int64_t rest = time - days * SECONDS_PER_DAY;
	/* An estimate that is never too late, then forward to the year. */
	int64_t year = 1970 + floor_div(days, days < 0 ? 365 : 366);
	unsigned int month = 1;

	while (days_of_date(year + 1, 1, 1) <= days)
		year++;
	while (month < 12 && days_of_date(year, month + 1, 1) <= days)
		month++;
	*ret = (struct date){
		.year = year,
		.month = month,
		.day = (unsigned int)(days - days_of_date(year, month, 1)) + 1,
		/* 1970-01-01 was a Thursday. */
		.weekday =
			(unsigned int)(days + 4 - floor_div(days + 4, 7) * 7) +
			1,
		.hour = (unsigned int)(rest / 3600),
		.minute = (unsigned int)(rest / 60 % 60),
		.second = (unsigned int)(rest % 60),
	};
}
