// SPDX-License-Identifier: MIT
/*
 * The real-time clock: what a guest reads, sets and is woken by. Tests that
 * need time to have passed load a state that has seen less than there was.
 */
#include <errno.h>

#include "arch/x86_64/layout.h"
#include "devices/rtc.h"
#include "tests/unit/device_rig.h"

#define REG_A 10
#define REG_B 11
#define REG_C 12
#define REG_D 13

#define SET	 0x80
#define BINARY	 0x04
#define HOURS_24 0x02

#define DAY   86400
#define TICKS 32768

/* Long enough ago that nothing here depends on how fast the test runs. */
#define LONG_AGO 1000000000LL

struct date {
	unsigned int year, month, day, weekday, hour, minute, second;
};

static uint8_t get(struct device_rig *rig, uint8_t reg)
{
	out8(rig, PORT_RTC, reg);
	return in8(rig, PORT_RTC + 1);
}

static void put(struct device_rig *rig, uint8_t reg, uint8_t value)
{
	out8(rig, PORT_RTC, reg);
	out8(rig, PORT_RTC + 1, value);
}

static struct device_rig *clock_new(void)
{
	struct device_rig *rig = rig_new();

	rig_create(rig, "rtc");
	RIG_OP(rig, resume);
	return rig;
}

/* Stop the clock at a date, in binary and 24 hours, and let it go on. */
static void set_date(struct device_rig *rig, const struct date *date)
{
	put(rig, REG_B, SET | BINARY | HOURS_24);
	put(rig, CMOS_CENTURY, (uint8_t)(date->year / 100));
	put(rig, 9, (uint8_t)(date->year % 100));
	put(rig, 8, (uint8_t)date->month);
	put(rig, 7, (uint8_t)date->day);
	put(rig, 4, (uint8_t)date->hour);
	put(rig, 2, (uint8_t)date->minute);
	put(rig, 0, (uint8_t)date->second);
	put(rig, REG_B, BINARY | HOURS_24);
}

/* Stop it, as a guest does that wants all registers of one moment. */
static struct date stop_and_read(struct device_rig *rig)
{
	/* The format first: registers don't change with it once they're held.
	 */
	put(rig, REG_B, BINARY | HOURS_24);
	put(rig, REG_B, SET | BINARY | HOURS_24);
	return (struct date){
		.year = get(rig, CMOS_CENTURY) * 100U + get(rig, 9),
		.month = get(rig, 8),
		.day = get(rig, 7),
		.weekday = get(rig, 6),
		.hour = get(rig, 4),
		.minute = get(rig, 2),
		.second = get(rig, 0),
	};
}

static int64_t guest_offset(struct device_rig *rig)
{
	struct rtc_state state;

	RIG_OP(rig, snapshot, &state);
	return state.offset;
}

/* Make it so that the last look at the clock was @ticks before now. */
static void look_back(struct device_rig *rig, int64_t ticks)
{
	struct rtc_state state;

	RIG_OP(rig, pause);
	RIG_OP(rig, snapshot, &state);
	state.seen -= ticks;
	ck_assert(rig_accepts(rig, &state));
	RIG_OP(rig, commit, &state);
	RIG_OP(rig, resume);
}

START_TEST(rtc_shows_the_time_of_the_host)
{
	struct device_rig *rig = clock_new();
	struct date date = stop_and_read(rig);
	int64_t seconds = (int64_t)(clock_real_ns() / NS_PER_S) % DAY;
	int64_t shown = date.hour * 3600 + date.minute * 60 + date.second;

	ck_assert_int_lt((seconds - shown + DAY) % DAY, 60);
	ck_assert_int_eq(guest_offset(rig), 0);
	ck_assert_uint_ge(date.year, 2024);
	ck_assert_uint_eq(get(rig, REG_D), 0x80);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_counts_from_the_date_it_is_set_to)
{
	static const struct {
		struct date set;
		struct date shown; /* weekday 1 is Sunday */
	} cases[] = {
		{ { .year = 1970, .month = 1, .day = 1 },
		  { 1970, 1, 1, 5, 0, 0, 0 } },
		{ { .year = 1999, .month = 12, .day = 31, .hour = 23 },
		  { 1999, 12, 31, 6, 23, 0, 0 } },
		{ { .year = 2000, .month = 2, .day = 29 },
		  { 2000, 2, 29, 3, 0, 0, 0 } },
		{ { .year = 2024, .month = 2, .day = 29, .minute = 7 },
		  { 2024, 2, 29, 5, 0, 7, 0 } },
		{ { .year = 2025, .month = 2, .day = 29 },
		  { 2025, 3, 1, 7, 0, 0, 0 } },
		{ { .year = 2100, .month = 2, .day = 28, .hour = 12 },
		  { 2100, 2, 28, 1, 12, 0, 0 } },
		{ { .year = 1900, .month = 1, .day = 1 },
		  { 1900, 1, 1, 2, 0, 0, 0 } },
		{ { .year = 1600, .month = 12, .day = 31 },
		  { 1600, 12, 31, 1, 0, 0, 0 } },
		{ { .year = 9999, .month = 12, .day = 31 },
		  { 9999, 12, 31, 6, 0, 0, 0 } },
	};
	struct device_rig *rig = clock_new();

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct date *want = &cases[i].shown;
		struct date got;

		set_date(rig, &cases[i].set);
		got = stop_and_read(rig);
		ck_assert_uint_eq(got.year, want->year);
		ck_assert_uint_eq(got.month, want->month);
		ck_assert_uint_eq(got.day, want->day);
		ck_assert_uint_eq(got.weekday, want->weekday);
		ck_assert_uint_eq(got.hour, want->hour);
		ck_assert_uint_eq(got.minute, want->minute);
	}
	rig_free(rig);
}
END_TEST

START_TEST(rtc_goes_through_every_day_of_four_centuries)
{
	static const unsigned int lengths[] = { 31, 28, 31, 30, 31, 30,
						31, 31, 30, 31, 30, 31 };
	struct device_rig *rig = clock_new();
	struct date want = { .year = 1900, .month = 1, .day = 1, .weekday = 2 };
	struct rtc_state state;

	put(rig, REG_B, BINARY | HOURS_24);
	RIG_OP(rig, snapshot, &state);
	/* By the offset, not by registers: 146097 days are a whole cycle. */
	for (int64_t day = -25567; day < -25567 + 146097; day++) {
		bool leap = want.year % 4 == 0 &&
			    (want.year % 100 || want.year % 400 == 0);

		/* To noon, so that no day ends while it is looked at. */
		state.offset = day * DAY + DAY / 2 -
			       (int64_t)(clock_real_ns() / NS_PER_S);
		RIG_OP(rig, commit, &state);
		ck_assert_uint_eq(get(rig, CMOS_CENTURY) * 100U + get(rig, 9),
				  want.year);
		ck_assert_uint_eq(get(rig, 8), want.month);
		ck_assert_uint_eq(get(rig, 7), want.day);
		ck_assert_uint_eq(get(rig, 6), want.weekday);
		want.weekday = want.weekday % 7 + 1;
		if (want.day++ <
		    lengths[want.month - 1] + (leap && want.month == 2))
			continue;
		want.day = 1;
		if (want.month++ < 12)
			continue;
		want.month = 1;
		want.year++;
	}
	rig_free(rig);
}
END_TEST

START_TEST(rtc_speaks_bcd_and_twelve_hours_too)
{
	struct device_rig *rig = clock_new();

	put(rig, REG_B, SET); /* BCD, 12 hours */
	put(rig, CMOS_CENTURY, 0x19);
	put(rig, 9, 0x97);
	put(rig, 8, 0x12);
	put(rig, 7, 0x31);
	put(rig, 4, 0x92); /* 12 PM: noon */
	put(rig, 2, 0x59);
	put(rig, 0, 0x00);
	put(rig, REG_B, 0);
	ck_assert_uint_eq(get(rig, 4), 0x92);
	put(rig, REG_B, BINARY);
	ck_assert_uint_eq(get(rig, 4), 0x8c);
	put(rig, REG_B, BINARY | HOURS_24);
	ck_assert_uint_eq(get(rig, 4), 12);
	ck_assert_uint_eq(get(rig, 2), 59);
	ck_assert_uint_eq(get(rig, 8), 12);
	put(rig, REG_B, HOURS_24);
	ck_assert_uint_eq(get(rig, CMOS_CENTURY), 0x19);
	ck_assert_uint_eq(get(rig, 9), 0x97);
	/* Midnight is 12 AM. */
	put(rig, REG_B, HOURS_24);
	put(rig, 4, 0x00);
	put(rig, REG_B, 0);
	ck_assert_uint_eq(get(rig, 4), 0x12);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_takes_garbage_for_some_date_or_other)
{
	struct device_rig *rig = clock_new();
	struct rtc_state state;

	for (unsigned int value = 0; value < 256; value++) {
		put(rig, REG_B, value & 1 ? SET : SET | BINARY | HOURS_24);
		for (uint8_t reg = 0; reg < RTC_CMOS; reg++) {
			if (reg != REG_B)
				put(rig, reg, (uint8_t)value);
		}
		put(rig, REG_B, value & 1 ? 0 : BINARY | HOURS_24);
		/* Whatever it is now, it can be moved, and is a date. */
		RIG_OP(rig, snapshot, &state);
		ck_assert(rig_accepts(rig, &state));
		put(rig, REG_B, BINARY | HOURS_24);
		ck_assert_uint_ge(get(rig, 8), 1);
		ck_assert_uint_le(get(rig, 8), 12);
		ck_assert_uint_ge(get(rig, 7), 1);
		ck_assert_uint_le(get(rig, 7), 31);
	}
	rig_free(rig);
}
END_TEST

START_TEST(rtc_stands_still_while_the_guest_holds_it)
{
	struct device_rig *rig = clock_new();
	struct rtc_state state;

	put(rig, REG_B, SET | BINARY | HOURS_24);
	put(rig, 0, 30);
	look_back(rig, LONG_AGO);
	ck_assert_uint_eq(get(rig, 0), 30);
	/* Nor is there an update to be told of. */
	ck_assert_uint_eq(get(rig, REG_C) & 0x30, 0);
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.cmos[0], 30);
	put(rig, REG_B, BINARY | HOURS_24);
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.cmos[0], 0);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_keeps_memory_and_the_shutdown_byte_through_a_reset)
{
	struct device_rig *rig = clock_new();
	int64_t offset;

	for (uint8_t reg = 14; reg < RTC_CMOS; reg++) {
		if (reg != CMOS_CENTURY)
			put(rig, reg, (uint8_t)(reg ^ 0x5a));
	}
	set_date(rig, &(struct date){ .year = 2001, .month = 2, .day = 3 });
	offset = guest_offset(rig);
	put(rig, REG_B, 0x7e);
	RIG_OP(rig, pause);
	RIG_OP(rig, reset);
	RIG_OP(rig, resume);
	ck_assert_uint_eq(get(rig, 0x0f), 0x0f ^ 0x5a);
	ck_assert_uint_eq(get(rig, 0x7f), 0x7f ^ 0x5a);
	ck_assert_uint_eq(get(rig, REG_B), BINARY | HOURS_24);
	ck_assert_int_eq(guest_offset(rig), offset);
	ck_assert(!rig->line[GSI_RTC]);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_leaves_out_the_top_bit_of_the_index)
{
	struct device_rig *rig = clock_new();

	put(rig, 0x80 | 0x0f, 0x42);
	ck_assert_uint_eq(get(rig, 0x0f), 0x42);
	ck_assert_uint_eq(in8(rig, PORT_RTC), 0xff);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_tells_once_of_an_update)
{
	struct device_rig *rig = clock_new();

	get(rig, REG_C);
	look_back(rig, TICKS);
	ck_assert_uint_eq(get(rig, REG_C) & 0x90, 0x10);
	look_back(rig, 0);
	put(rig, REG_B, 0x10 | BINARY | HOURS_24);
	look_back(rig, TICKS);
	ck_assert(rig->line[GSI_RTC]);
	ck_assert_uint_eq(get(rig, REG_C) & 0x90, 0x90);
	ck_assert(!rig->line[GSI_RTC]);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_wakes_the_guest_at_the_next_second)
{
	struct device_rig *rig = clock_new();
	uint8_t before, flags;

	put(rig, REG_B, 0x10 | BINARY | HOURS_24);
	before = get(rig, 0);
	get(rig, REG_C);
	rig_start_loop(rig);
	while (!rig->line[GSI_RTC])
		sched_yield();
	flags = get(rig, REG_C);
	ck_assert_uint_eq(flags & 0x90, 0x90);
	ck_assert_uint_ne(get(rig, 0), before);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_ticks_periodically_when_asked_to)
{
	struct device_rig *rig = clock_new();

	put(rig, REG_A, 0x26);
	put(rig, REG_B, 0x40 | BINARY | HOURS_24);
	rig_start_loop(rig);
	for (unsigned int i = 0; i < 20; i++) {
		while (!rig->line[GSI_RTC])
			sched_yield();
		ck_assert_uint_eq(get(rig, REG_C) & 0xc0, 0xc0);
	}
	ck_assert_uint_ge(rig->edges[GSI_RTC], 20);
	/* Rate 0 is none. */
	put(rig, REG_A, 0x20);
	get(rig, REG_C);
	look_back(rig, 10 * TICKS);
	ck_assert_uint_eq(get(rig, REG_C) & 0x40, 0);
	rig_free(rig);
}
END_TEST

/* Set the time to noon and the alarm to @second past, and look @back s back. */
static uint8_t flags_of_alarm(uint8_t hour, uint8_t minute, uint8_t second,
			      int64_t back)
{
	struct device_rig *rig = clock_new();
	struct rtc_state state;
	uint8_t flags;

	set_date(rig, &(struct date){ .year = 2020,
				      .month = 6,
				      .day = 1,
				      .hour = 12,
				      .second = 30 });
	put(rig, 5, hour);
	put(rig, 3, minute);
	put(rig, 1, second);
	get(rig, REG_C);
	RIG_OP(rig, pause);
	RIG_OP(rig, snapshot, &state);
	/* From exactly so long before half past, whenever this runs. */
	state.seen = (1591012830LL - back) * TICKS;
	RIG_OP(rig, commit, &state);
	RIG_OP(rig, resume);
	flags = get(rig, REG_C);
	rig_free(rig);
	return flags;
}

START_TEST(rtc_alarm_goes_off_at_its_time_and_at_no_other)
{
	/* 2020-06-01 12:00:30 UTC. */
	ck_assert_uint_eq(flags_of_alarm(12, 0, 30, 1) & 0x20, 0x20);
	ck_assert_uint_eq(flags_of_alarm(12, 0, 25, 10) & 0x20, 0x20);
	ck_assert_uint_eq(flags_of_alarm(12, 0, 25, 5) & 0x20, 0);
	ck_assert_uint_eq(flags_of_alarm(11, 0, 25, 10) & 0x20, 0);
	ck_assert_uint_eq(flags_of_alarm(0xff, 0, 25, 10) & 0x20, 0x20);
	ck_assert_uint_eq(flags_of_alarm(0xc0, 0xff, 0xff, 1) & 0x20, 0x20);
	/* Once a day, however long nobody looked. */
	ck_assert_uint_eq(flags_of_alarm(3, 4, 5, DAY) & 0x20, 0x20);
	ck_assert_uint_eq(flags_of_alarm(3, 4, 5, 1000LL * DAY) & 0x20, 0x20);
	/* 60 is no second: never. */
	ck_assert_uint_eq(flags_of_alarm(12, 0, 60, 10LL * DAY) & 0x20, 0);
}
END_TEST

START_TEST(rtc_takes_a_clock_that_was_set_back_for_no_event)
{
	struct device_rig *rig = clock_new();

	struct rtc_state state;

	get(rig, REG_C);
	look_back(rig, -LONG_AGO);
	/* Not by reading it: time goes on, and so do periods. */
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.cmos[REG_C], 0);
	ck_assert_int_le(state.seen,
			 (int64_t)(clock_real_ns() / NS_PER_S + 1) * TICKS);
	rig_free(rig);
}
END_TEST

START_TEST(rtc_goes_on_elsewhere_with_its_time_and_interrupts)
{
	struct device_rig *source = clock_new(), *target = clock_new();
	struct rtc_state state, loaded;

	set_date(source, &(struct date){ .year = 1984, .month = 7, .day = 8 });
	put(source, 0x40, 0x99);
	put(source, REG_B, 0x10 | BINARY | HOURS_24);
	look_back(source, TICKS);
	ck_assert(source->line[GSI_RTC]);
	out8(source, PORT_RTC, 0x40);
	RIG_OP(source, pause);
	RIG_OP(target, pause);
	RIG_OP(source, snapshot, &state);
	rig_wire(source, &state, &loaded);
	ck_assert_mem_eq(&loaded.cmos, &state.cmos, sizeof(state.cmos));
	ck_assert_uint_eq(loaded.index, state.index);
	ck_assert_int_eq(loaded.offset, state.offset);
	ck_assert_int_eq(loaded.seen, state.seen);
	ck_assert(rig_accepts(target, &loaded));
	RIG_OP(target, commit, &loaded);
	ck_assert(!target->line[GSI_RTC]);
	RIG_OP(target, resume);
	ck_assert(target->line[GSI_RTC]);
	ck_assert_uint_eq(in8(target, PORT_RTC + 1), 0x99);
	ck_assert_uint_eq(get(target, 9), 84);
	rig_free(source);
	rig_free(target);
}
END_TEST

START_TEST(rtc_refuses_states_that_no_guest_can_reach)
{
	struct device_rig *rig = clock_new();
	struct rtc_state live, s;

	RIG_OP(rig, snapshot, &live);
	ck_assert(rig_accepts(rig, &live));
#define REFUSES(field, value)                     \
	do {                                      \
		s = live;                         \
		s.field = value;                  \
		ck_assert(!rig_accepts(rig, &s)); \
	} while (0)
	REFUSES(index, RTC_CMOS);
	REFUSES(cmos[REG_A], 0xa6);
	REFUSES(cmos[REG_B], SET | 0x10);
	REFUSES(cmos[REG_C], 0x80);
	REFUSES(cmos[REG_D], 0x00);
	REFUSES(cmos[0], 1); /* while it runs */
	REFUSES(cmos[CMOS_CENTURY], 0x20);
	REFUSES(offset, INT64_MAX);
	REFUSES(offset, INT64_MIN);
	REFUSES(seen, INT64_MAX);
	REFUSES(seen, INT64_MIN);
#undef REFUSES
	rig_free(rig);
}
END_TEST

UNIT_SUITE("rtc", rtc_shows_the_time_of_the_host,
	   rtc_counts_from_the_date_it_is_set_to,
	   rtc_goes_through_every_day_of_four_centuries,
	   rtc_speaks_bcd_and_twelve_hours_too,
	   rtc_takes_garbage_for_some_date_or_other,
	   rtc_stands_still_while_the_guest_holds_it,
	   rtc_keeps_memory_and_the_shutdown_byte_through_a_reset,
	   rtc_leaves_out_the_top_bit_of_the_index, rtc_tells_once_of_an_update,
	   rtc_wakes_the_guest_at_the_next_second,
	   rtc_ticks_periodically_when_asked_to,
	   rtc_alarm_goes_off_at_its_time_and_at_no_other,
	   rtc_takes_a_clock_that_was_set_back_for_no_event,
	   rtc_goes_on_elsewhere_with_its_time_and_interrupts,
	   rtc_refuses_states_that_no_guest_can_reach)
