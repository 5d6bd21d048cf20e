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
 * Here is the device: its ports, its interrupt, its state. What the registers
 * say of the time, and what time does to them, is in rtc_clock.c.
 *
 * Threads: vCPUs through the bus, the loop; one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/calendar.h"
#include "devices/rtc_internal.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

#define A_UIP	  0x80
#define A_DEFAULT 0x26 /* 32.768 kHz crystal, 1024 Hz periodic rate */
#define C_IRQF	  0x80
#define D_VRT	  0x80 /* the battery is fine */

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

/* ---- time passes ---- */

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
