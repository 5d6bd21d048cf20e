// SPDX-License-Identifier: MIT
/*
 * What the real-time clock's registers say of the time, and what time does to
 * them; see rtc.c. Of the state only: no timer, no interrupt, no bus.
 */
#include "devices/calendar.h"
#include "devices/rtc_internal.h"

#define HOUR_PM	    0x80
#define ALARM_ANY   0xc0 /* both bits set: any value matches */
#define TICKS_SHIFT 15

/* ---- the time in registers ---- */

static uint8_t rtc_encode(const struct rtc_state *s, unsigned int value)
{
	if (s->cmos[REG_B] & B_BINARY)
		return (uint8_t)value;
	return (uint8_t)(value / 10 << 4 | value % 10);
}

/* What a register says, at most @max; garbage decodes to something. */
static unsigned int rtc_decode(const struct rtc_state *s, uint8_t value,
			       unsigned int min, unsigned int max)
{
	unsigned int number = value;

	if (!(s->cmos[REG_B] & B_BINARY))
		number = (value >> 4) * 10U + (value & 0xf);
	return MIN(MAX(number, min), max);
}

static uint8_t rtc_encode_hour(const struct rtc_state *s, unsigned int hour)
{
	unsigned int twelve = hour % 12 ? hour % 12 : 12;

	if (s->cmos[REG_B] & B_24H)
		return rtc_encode(s, hour);
	return rtc_encode(s, twelve) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned int rtc_decode_hour(const struct rtc_state *s, uint8_t value)
{
	unsigned int twelve;

	if (s->cmos[REG_B] & B_24H)
		return rtc_decode(s, value, 0, 23);
	twelve = rtc_decode(s, value & (uint8_t)~HOUR_PM, 1, 12) % 12;
	return twelve + (value & HOUR_PM ? 12 : 0);
}

bool rtc_is_time(unsigned int reg)
{
	switch (reg) {
	case REG_SECONDS:
	case REG_MINUTES:
	case REG_HOURS:
	case REG_WEEKDAY:
	case REG_DAY:
	case REG_MONTH:
	case REG_YEAR:
	case REG_CENTURY:
		return true;
	default:
		return false;
	}
}

bool rtc_is_held(const struct rtc_state *s)
{
	return s->cmos[REG_B] & B_SET;
}

void rtc_show(const struct rtc_state *s, int64_t time, uint8_t *cmos)
{
	struct date date;
	unsigned int year;

	date_of_time(time, &date);
	/* Four digits are all there is to show. */
	year = (unsigned int)(date.year - floor_div(date.year, 10000) * 10000);
	cmos[REG_SECONDS] = rtc_encode(s, date.second);
	cmos[REG_MINUTES] = rtc_encode(s, date.minute);
	cmos[REG_HOURS] = rtc_encode_hour(s, date.hour);
	cmos[REG_WEEKDAY] = rtc_encode(s, date.weekday);
	cmos[REG_DAY] = rtc_encode(s, date.day);
	cmos[REG_MONTH] = rtc_encode(s, date.month);
	cmos[REG_YEAR] = rtc_encode(s, year % 100);
	cmos[REG_CENTURY] = rtc_encode(s, year / 100);
}

int64_t rtc_time_of(const struct rtc_state *s, const uint8_t *cmos)
{
	int64_t year = (int64_t)rtc_decode(s, cmos[REG_CENTURY], 0, 99) * 100 +
		       rtc_decode(s, cmos[REG_YEAR], 0, 99);
	int64_t days = days_of_date(year, rtc_decode(s, cmos[REG_MONTH], 1, 12),
				    rtc_decode(s, cmos[REG_DAY], 1, 31));

	return days * SECONDS_PER_DAY +
	       rtc_decode_hour(s, cmos[REG_HOURS]) * 3600 +
	       rtc_decode(s, cmos[REG_MINUTES], 0, 59) * 60 +
	       rtc_decode(s, cmos[REG_SECONDS], 0, 59);
}

/* ---- time passes ---- */

int64_t rtc_utc(void)
{
	return (int64_t)(clock_real_ns() / NS_PER_S);
}

int64_t rtc_ticks(const struct rtc_state *s)
{
	uint64_t ns = clock_real_ns();

	return ((int64_t)(ns / NS_PER_S) + s->offset) * TICKS_PER_S +
	       (int64_t)(ns % NS_PER_S * TICKS_PER_S / NS_PER_S);
}

/* Ticks between periodic events, a power of two; 0 for none. */
static int64_t rtc_period(const struct rtc_state *s)
{
	unsigned int rate = s->cmos[REG_A] & A_RATE;

	/* The two fastest rates aren't to be had from this crystal. */
	if (rate && rate < 3)
		rate += 7;
	return rate ? 1LL << (rate - 1) : 0;
}

static bool rtc_alarm_matches(uint8_t alarm, uint8_t value)
{
	return alarm >= ALARM_ANY || alarm == value;
}

/* Has the alarm gone off in the seconds after @from, up to @to? */
static bool rtc_alarm_between(const struct rtc_state *s, int64_t from,
			      int64_t to)
{
	/* It goes off every day, if ever. */
	from = MAX(from, to - SECONDS_PER_DAY);
	for (int64_t at = from + 1; at <= to; at++) {
		int64_t midnight =
			floor_div(at, SECONDS_PER_DAY) * SECONDS_PER_DAY;
		unsigned int second = (unsigned int)(at - midnight);

		if (rtc_alarm_matches(s->cmos[REG_SECONDS_ALARM],
				      rtc_encode(s, second % 60)) &&
		    rtc_alarm_matches(s->cmos[REG_MINUTES_ALARM],
				      rtc_encode(s, second / 60 % 60)) &&
		    rtc_alarm_matches(s->cmos[REG_HOURS_ALARM],
				      rtc_encode_hour(s, second / 3600)))
			return true;
	}
	return false;
}

void rtc_look(struct rtc_state *s)
{
	int64_t now = rtc_ticks(s), period = rtc_period(s);
	int64_t from = s->seen >> TICKS_SHIFT, to = now >> TICKS_SHIFT;

	/* The host's clock may have been set back: that's no event. */
	if (now > s->seen) {
		if (period &&
		    floor_div(now, period) != floor_div(s->seen, period))
			s->cmos[REG_C] |= C_PF;
		if (to > from && !rtc_is_held(s)) {
			s->cmos[REG_C] |= C_UF;
			if (rtc_alarm_between(s, from, to))
				s->cmos[REG_C] |= C_AF;
		}
	}
	s->seen = now;
}

bool rtc_irqf(const struct rtc_state *s)
{
	return s->cmos[REG_C] & s->cmos[REG_B] & B_ENABLES;
}

uint64_t rtc_deadline(const struct rtc_state *s)
{
	uint8_t wanted = s->cmos[REG_B] & (uint8_t)~s->cmos[REG_C] & B_ENABLES;
	int64_t unit = 0;

	/* Alarms are looked for once a second. */
	if (wanted & (B_UIE | B_AIE) && !rtc_is_held(s))
		unit = TICKS_PER_S;
	if (wanted & B_PIE && rtc_period(s))
		unit = MIN(unit ? unit : INT64_MAX, rtc_period(s));
	if (!unit)
		return 0;
	unit -= s->seen & (unit - 1);
	return clock_ns() +
	       div_round_up((uint64_t)unit * NS_PER_S, TICKS_PER_S);
}
