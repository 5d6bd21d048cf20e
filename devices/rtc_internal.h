/* SPDX-License-Identifier: MIT */
/*
 * The inside of the real-time clock, for rtc*.c only: its registers, and time
 * as they have it.
 *
 * Functions on the state alone; the caller sees to it that one thread is in
 * there at a time.
 */
#ifndef GODWIT_DEVICES_RTC_INTERNAL_H
#define GODWIT_DEVICES_RTC_INTERNAL_H

#include "arch/x86_64/layout.h"
#include "devices/rtc.h"

/* Registers, datasheet figure "Address Map". */
enum {
	REG_SECONDS = 0,
	REG_SECONDS_ALARM = 1,
	REG_MINUTES = 2,
	REG_MINUTES_ALARM = 3,
	REG_HOURS = 4,
	REG_HOURS_ALARM = 5,
	REG_WEEKDAY = 6,
	REG_DAY = 7,
	REG_MONTH = 8,
	REG_YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,
	REG_CENTURY = CMOS_CENTURY,
};

#define A_RATE 0x0f

#define B_SET	  0x80
#define B_PIE	  0x40 /* the enables are where the flags are in C */
#define B_AIE	  0x20
#define B_UIE	  0x10
#define B_SQWE	  0x08
#define B_BINARY  0x04
#define B_24H	  0x02
#define B_ENABLES (B_PIE | B_AIE | B_UIE)

#define C_PF	0x40
#define C_AF	0x20
#define C_UF	0x10
#define C_FLAGS (C_PF | C_AF | C_UF)

#define TICKS_PER_S 32768

/**
 * rtc_is_time() - is register @reg one of those that show the time?
 */
bool rtc_is_time(unsigned int reg);

/**
 * rtc_is_held() - has the guest stopped the clock?
 */
bool rtc_is_held(const struct rtc_state *s);

/**
 * rtc_show() - the registers that show @time, guest seconds since 1970, into
 * @cmos.
 */
void rtc_show(const struct rtc_state *s, int64_t time, uint8_t *cmos);

/**
 * rtc_time_of() - the guest time that the registers in @cmos stand for.
 */
int64_t rtc_time_of(const struct rtc_state *s, const uint8_t *cmos);

/**
 * rtc_utc() - the host's time, seconds since 1970.
 */
int64_t rtc_utc(void);

/**
 * rtc_ticks() - guest time now, in 1/32768 s since 1970.
 */
int64_t rtc_ticks(const struct rtc_state *s);

/**
 * rtc_look() - bring register C up to date.
 */
void rtc_look(struct rtc_state *s);

/**
 * rtc_irqf() - has anything happened that the guest wants an interrupt for?
 */
bool rtc_irqf(const struct rtc_state *s);

/**
 * rtc_deadline() - when the next event is due that would raise the line, of
 * clock_ns(); 0: never.
 */
uint64_t rtc_deadline(const struct rtc_state *s);

#endif
