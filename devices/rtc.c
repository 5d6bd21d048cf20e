// SPDX-License-Identifier: MIT
/*
 * The real-time clock: an MC146818 after Motorola's datasheet, on ports 0x70
 * (index) and 0x71 (data), with the century where PCs have it and 128 bytes
 * of memory, in which firmware conventions such as the shutdown byte (0x0f)
 * are just bytes.
 *
 * The clock is UTC plus an offset that changes when the guest sets the time.
 * So it needs no care in pauses and moves: it shows what the host's clock
 * says. Reading the time computes it; while the guest holds the clock (SET in
 * register B) the registers themselves count.
 *
 * Events come from counting guest time in 1/32768 s, the part's crystal:
 * whoever looks finds out what has happened since `seen`. A flag of register C
 * is set at most once between two looks, as on the part. Only a guest that
 * wants interrupts costs a host timer. The interrupt line is high exactly
 * while register C has IRQF, except while paused, when it is left alone.
 *
 * What isn't there: the square wave output, daylight saving, and other
 * crystals (the divider bits of register A are only remembered).
 *
 * Threads: vCPUs through the bus, the loop; one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/layout.h"
#include "devices/calendar.h"
#include "devices/rtc.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

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

#define A_UIP	  0x80
#define A_DEFAULT 0x26 /* 32.768 kHz crystal, 1024 Hz periodic rate */
#define A_RATE	  0x0f

#define B_SET	  0x80
#define B_PIE	  0x40 /* the enables are where the flags are in C */
#define B_AIE	  0x20
#define B_UIE	  0x10
#define B_SQWE	  0x08
#define B_BINARY  0x04
#define B_24H	  0x02
#define B_ENABLES (B_PIE | B_AIE | B_UIE)

#define C_IRQF	0x80
#define C_PF	0x40
#define C_AF	0x20
#define C_UF	0x10
#define C_FLAGS (C_PF | C_AF | C_UF)

#define D_VRT 0x80 /* the battery is fine */

#define HOUR_PM	  0x80
#define ALARM_ANY 0xc0 /* both bits set: any value matches */

#define TICKS_PER_S  32768
#define TICKS_SHIFT  15
#define UPDATE_TICKS 8 /* UIP is up 244 us before an update */
/* All that two digits of century and garbage in registers can express. */
#define OFFSET_MAX (30000LL * 366 * SECONDS_PER_DAY)
#define SEEN_MAX   (2 * OFFSET_MAX * TICKS_PER_S)

struct rtc {
	struct device dev;
	struct bus *pio;
	struct irq *irq;
	struct loop_timer *timer; /* fires when the next wanted event is due */
	bool claimed;		  /* the ports are on the bus */
	bool running;		  /* not paused */
	struct rtc_state state;
};

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

static bool rtc_is_time(unsigned int reg)
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

static bool rtc_is_held(const struct rtc_state *s)
{
	return s->cmos[REG_B] & B_SET;
}

/* The registers that show @time, guest seconds since 1970, into @cmos. */
static void rtc_show(const struct rtc_state *s, int64_t time, uint8_t *cmos)
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

/* The guest time that the registers in @cmos stand for. */
static int64_t rtc_time_of(const struct rtc_state *s, const uint8_t *cmos)
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

static int64_t rtc_utc(void)
{
	return (int64_t)(clock_real_ns() / NS_PER_S);
}

/* Guest time in 1/32768 s. */
static int64_t rtc_ticks(const struct rtc_state *s)
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

/* Bring register C up to date. */
static void rtc_look(struct rtc_state *s)
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

static bool rtc_irqf(const struct rtc_state *s)
{
	return s->cmos[REG_C] & s->cmos[REG_B] & B_ENABLES;
}

/* When the next event is due that would raise the line; 0 for never. */
static uint64_t rtc_deadline(const struct rtc_state *s)
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

static void rtc_settle(struct rtc *rtc)
{
	if (!rtc->running)
		return;
	loop_timer_arm(rtc->timer, rtc_deadline(&rtc->state));
	irq_set_line(rtc->irq, GSI_RTC, rtc_irqf(&rtc->state));
}

static void rtc_on_timer(void *opaque)
{
	struct rtc *rtc = opaque;

	rtc_look(&rtc->state);
	rtc_settle(rtc);
}

/* ---- the guest's side ---- */

/* The guest stops the clock: from now on the registers count. */
static void rtc_hold(struct rtc_state *s)
{
	rtc_show(s, rtc_utc() + s->offset, s->cmos);
}

/* The clock goes on from what the registers say. */
static void rtc_release(struct rtc_state *s)
{
	s->offset = rtc_time_of(s, s->cmos) - rtc_utc();
	for (unsigned int reg = 0; reg < RTC_CMOS; reg++) {
		if (rtc_is_time(reg))
			s->cmos[reg] = 0;
	}
	s->seen = rtc_ticks(s);
}

static void rtc_write_b(struct rtc_state *s, uint8_t value)
{
	bool held = rtc_is_held(s);

	/* Stopping the clock takes the update interrupt back, "SET". */
	if (value & B_SET)
		value &= (uint8_t)~B_UIE;
	if (!held && (value & B_SET))
		rtc_hold(s);
	s->cmos[REG_B] = value;
	if (held && !(value & B_SET))
		rtc_release(s);
}

static void rtc_write_time(struct rtc_state *s, uint8_t value)
{
	bool held = rtc_is_held(s);

	if (!held)
		rtc_hold(s);
	s->cmos[s->index] = value;
	if (!held)
		rtc_release(s);
}

static void rtc_write_data(struct rtc *rtc, uint8_t value)
{
	struct rtc_state *s = &rtc->state;

	rtc_look(s);
	if (rtc_is_time(s->index))
		rtc_write_time(s, value);
	else if (s->index == REG_A)
		s->cmos[REG_A] = value & (uint8_t)~A_UIP;
	else if (s->index == REG_B)
		rtc_write_b(s, value);
	else if (s->index != REG_C && s->index != REG_D)
		s->cmos[s->index] = value;
	rtc_settle(rtc);
}

static uint8_t rtc_read_time(const struct rtc_state *s)
{
	uint8_t cmos[RTC_CMOS];

	if (rtc_is_held(s))
		return s->cmos[s->index];
	rtc_show(s, rtc_utc() + s->offset, cmos);
	return cmos[s->index];
}

static uint8_t rtc_read_data(struct rtc *rtc)
{
	struct rtc_state *s = &rtc->state;
	uint8_t value = s->cmos[s->index];

	if (rtc_is_time(s->index))
		return rtc_read_time(s);
	if (s->index == REG_A && !rtc_is_held(s) &&
	    (rtc_ticks(s) & (TICKS_PER_S - 1)) >= TICKS_PER_S - UPDATE_TICKS)
		return value | A_UIP;
	if (s->index != REG_C)
		return value;
	rtc_look(s);
	value = s->cmos[REG_C] | (rtc_irqf(s) ? C_IRQF : 0);
	/* Reading is what acknowledges. */
	s->cmos[REG_C] = 0;
	rtc_settle(rtc);
	return value;
}

static void rtc_read(void *opaque, uint64_t offset, void *data,
		     unsigned int size)
{
	uint8_t *bytes = data;

	/* The index can't be read back. */
	for (unsigned int i = 0; i < size; i++)
		bytes[i] = offset + i ? rtc_read_data(opaque) : 0xff;
}

static void rtc_write(void *opaque, uint64_t offset, const void *data,
		      unsigned int size)
{
	struct rtc *rtc = opaque;
	const uint8_t *bytes = data;

	for (unsigned int i = 0; i < size; i++) {
		if (offset + i)
			rtc_write_data(rtc, bytes[i]);
		else
			/* Bit 7 masks the NMI, which nobody sends. */
			rtc->state.index = bytes[i] % RTC_CMOS;
	}
}

static const struct bus_ops rtc_bus_ops = {
	.read = rtc_read,
	.write = rtc_write,
};

/* ---- the device ---- */

static struct rtc *to_rtc(struct device *dev)
{
	return container_of(dev, struct rtc, dev);
}

static void rtc_visit(struct codec *c, void *state)
{
	struct rtc_state *s = state;

	codec_u8(c, "index", &s->index);
	codec_bytes(c, "cmos", s->cmos, sizeof(s->cmos));
	codec_s64(c, "offset", &s->offset);
	codec_s64(c, "seen", &s->seen);
}

static void rtc_snapshot(struct device *dev, void *state)
{
	*(struct rtc_state *)state = to_rtc(dev)->state;
}

static int rtc_check_registers(struct device *dev, const struct rtc_state *s,
			       struct error *err)
{
	if (s->cmos[REG_A] & A_UIP)
		return error_set(err, -EINVAL,
				 "%s: register A is 0x%02x, but "
				 "its UIP isn't kept",
				 dev->id, s->cmos[REG_A]);
	if (rtc_is_held(s) && s->cmos[REG_B] & B_UIE)
		return error_set(err, -EINVAL,
				 "%s: register B is 0x%02x, but "
				 "SET clears UIE",
				 dev->id, s->cmos[REG_B]);
	if (s->cmos[REG_C] & ~C_FLAGS)
		return error_set(err, -EINVAL,
				 "%s: register C is 0x%02x, but "
				 "only flags are kept",
				 dev->id, s->cmos[REG_C]);
	if (s->cmos[REG_D] != D_VRT)
		return error_set(err, -EINVAL,
				 "%s: register D is 0x%02x, "
				 "which is always 0x80",
				 dev->id, s->cmos[REG_D]);
	for (unsigned int reg = 0; reg < RTC_CMOS; reg++) {
		if (rtc_is_time(reg) && s->cmos[reg] && !rtc_is_held(s))
			return error_set(err, -EINVAL,
					 "%s: register 0x%02x is "
					 "0x%02x while the clock runs",
					 dev->id, reg, s->cmos[reg]);
	}
	return 0;
}

static int rtc_check(struct device *dev, const void *state, struct error *err)
{
	const struct rtc_state *s = state;

	if (s->index >= RTC_CMOS)
		return error_set(err, -EINVAL,
				 "%s: index 0x%02x is past the "
				 "last register",
				 dev->id, s->index);
	if (s->offset < -OFFSET_MAX || s->offset > OFFSET_MAX)
		return error_set(err, -EINVAL,
				 "%s: offset %lld s is more than "
				 "the registers can express",
				 dev->id, (long long)s->offset);
	if (s->seen < -SEEN_MAX || s->seen > SEEN_MAX)
		return error_set(err, -EINVAL,
				 "%s: seen %lld is more than the "
				 "registers can express",
				 dev->id, (long long)s->seen);
	return rtc_check_registers(dev, s, err);
}

static void rtc_commit(struct device *dev, const void *state)
{
	to_rtc(dev)->state = *(const struct rtc_state *)state;
}

static void rtc_pause(struct device *dev)
{
	struct rtc *rtc = to_rtc(dev);

	rtc->running = false;
	loop_timer_arm(rtc->timer, 0);
}

static void rtc_resume(struct device *dev)
{
	struct rtc *rtc = to_rtc(dev);

	rtc->running = true;
	rtc_look(&rtc->state);
	rtc_settle(rtc);
}

/* What the battery keeps stays: the time, and the memory. */
static void rtc_reset(struct device *dev)
{
	struct rtc_state *s = &to_rtc(dev)->state;

	s->index = 0;
	s->cmos[REG_B] &= (uint8_t) ~(B_ENABLES | B_SQWE);
	s->cmos[REG_C] = 0;
}

static void rtc_free(struct device *dev)
{
	struct rtc *rtc = to_rtc(dev);

	loop_timer_remove(rtc->timer);
	if (rtc->claimed)
		bus_remove(rtc->pio, PORT_RTC);
	device_fini(dev);
	free(rtc);
}

const struct device_ops rtc_ops = {
	.type = "rtc",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct rtc_state),
	.visit = rtc_visit,
	.snapshot = rtc_snapshot,
	.check = rtc_check,
	.commit = rtc_commit,
	.pause = rtc_pause,
	.resume = rtc_resume,
	.reset = rtc_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = rtc_free,
};

static void rtc_init_state(struct rtc_state *s)
{
	s->cmos[REG_A] = A_DEFAULT;
	s->cmos[REG_B] = B_24H;
	s->cmos[REG_D] = D_VRT;
	s->seen = rtc_ticks(s);
}

int rtc_create(const struct device_env *env, const struct device_config *config,
	       struct device **ret, struct error *err)
{
	struct rtc *rtc;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: a real-time clock takes no options, got "
				 "\"%s\"",
				 config->id, config->options);
	rtc = calloc(1, sizeof(*rtc));
	if (!rtc)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	device_init(&rtc->dev, &rtc_ops, config->id);
	rtc->pio = env->pio;
	rtc->irq = env->irq;
	rtc_init_state(&rtc->state);
	code = loop_timer_add(env->loop, rtc_on_timer, rtc, &rtc->dev.lock,
			      &rtc->timer, err);
	if (code)
		goto fail;
	code = bus_add(env->pio,
		       &(struct bus_range){
			       .base = PORT_RTC,
			       .len = PORT_RTC_LEN,
			       .name = "real-time clock",
			       .ops = &rtc_bus_ops,
			       .opaque = rtc,
			       .lock = &rtc->dev.lock,
		       },
		       err);
	if (code)
		goto fail;
	rtc->claimed = true;
	*ret = &rtc->dev;
	return 0;
fail:
	rtc_free(&rtc->dev);
	return code;
}
