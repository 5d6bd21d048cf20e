// SPDX-License-Identifier: MIT
/*
 * Power management: the part of ACPI's fixed hardware that a VM has a use for
 * (PM1a event and control blocks, the power management timer), and of the
 * keyboard controller only its reset pulse, for kernels that try that. The
 * reset control register is the PCI host bridge's, among whose ports it lies.
 *
 * A kernel that panics says so at a port of its own, if it has a driver for
 * that: pvpanic, as QEMU's docs/specs/pvpanic describes it. It reads what can
 * be told, and writes what it tells.
 *
 * There is no SMI command port: ACPI mode is on from the start, so SCI_EN
 * reads as 1. The only sleep state is S5. The SCI is level-triggered: high
 * exactly while a status bit is set whose enable bit is set, except while
 * paused, when it is left alone.
 *
 * The timer runs on the host's monotonic clock, in pauses too, as the TSC
 * does: guests compare the two. Across a move it goes on by the UTC time that
 * passed, but never back, even if the target's clock is behind. That is why
 * the state has the UTC time in it.
 *
 * TMR_STS is worked out when someone looks; only a guest that wants the
 * interrupt costs a host timer.
 *
 * Spec: ACPI 6.5, section 4.8. Threads: vCPUs through the bus, the loop, and
 * whoever presses the button; one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/layout.h"
#include "devices/power.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

/* PM1 status and enable, section 4.8.3.1. */
#define PM1_TIMER    (1U << 0)
#define PM1_GLOBAL   (1U << 5)
#define PM1_BUTTON   (1U << 8)
#define PM1_RTC	     (1U << 10)
#define PM1_WRITABLE (PM1_TIMER | PM1_GLOBAL | PM1_BUTTON | PM1_RTC)
/* What can ever be set: no firmware raises GBL_STS, the RTC wakes nobody. */
#define PM1_REACHABLE (PM1_TIMER | PM1_BUTTON)

/* PM1 control, section 4.8.3.2. */
#define CNT_SCI_EN    (1U << 0)
#define CNT_BM_RLD    (1U << 1)
#define CNT_SLP_SHIFT 10
#define CNT_SLP_TYPE  (7U << CNT_SLP_SHIFT)
#define CNT_SLP_EN    (1U << 13)
#define CNT_KEPT      (CNT_BM_RLD | CNT_SLP_TYPE)

/* TMR_STS is set when bit 31 toggles, section 4.8.2.1. */
#define TIMER_SHIFT 31

/* Six centuries: far from where 64 bits would wrap. */
#define TIMER_MAX (1ULL << 56)

enum power_port {
	POWER_EVENT,
	POWER_CONTROL,
	POWER_TIMER,
	POWER_I8042,
	POWER_PANIC,
	POWER_PORTS,
};

struct power;

/* What a bus access carries to tell the ranges apart. */
struct power_range {
	struct power *power;
	enum power_port port;
	bool claimed;
};

struct power {
	struct device dev;
	struct bus *pio;
	struct irq *irq;
	const struct device_hooks *hooks;
	void *hooks_opaque;
	struct loop_timer *alarm; /* fires when TMR_STS becomes set */
	struct power_range ranges[POWER_PORTS];
	bool running;	  /* not paused */
	uint64_t base_ns; /* clock_ns() when the timer was at state.timer */
	struct power_state state; /* timer, utc_ns: as of base_ns */
};

static const struct {
	const char *name;
	uint64_t base;
	uint64_t len;
} power_ports[POWER_PORTS] = {
	[POWER_EVENT] = { "PM1a event", PORT_PM1A_EVENT, PORT_PM1A_EVENT_LEN },
	[POWER_CONTROL] = { "PM1a control", PORT_PM1A_CONTROL,
			    PORT_PM1A_CONTROL_LEN },
	[POWER_TIMER] = { "PM timer", PORT_PM_TIMER, PORT_PM_TIMER_LEN },
	[POWER_I8042] = { "reset pulse", PORT_I8042_COMMAND, 1 },
	[POWER_PANIC] = { "panic", PORT_PANIC, 1 },
};

/* ---- the timer ---- */

static uint64_t ns_to_ticks(uint64_t ns)
{
	return ns / NS_PER_S * POWER_TIMER_HZ +
	       ns % NS_PER_S * POWER_TIMER_HZ / NS_PER_S;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ticks / POWER_TIMER_HZ * NS_PER_S +
	       div_round_up(ticks % POWER_TIMER_HZ * NS_PER_S, POWER_TIMER_HZ);
}

static uint64_t power_ticks(const struct power *power)
{
	return power->state.timer + ns_to_ticks(clock_ns() - power->base_ns);
}

/* Bring TMR_STS up to date. */
static void power_look_at_timer(struct power *power)
{
	struct power_state *s = &power->state;
	uint64_t now = power_ticks(power);

	if (now >> TIMER_SHIFT != s->timer_seen >> TIMER_SHIFT)
		s->pm1_status |= PM1_TIMER;
	s->timer_seen = now;
}

/* ---- the SCI ---- */

/* Drive the line, and have the loop call when the timer will raise it. */
static void power_settle(struct power *power)
{
	struct power_state *s = &power->state;
	uint64_t left, at = 0;

	if (!power->running)
		return;
	if (s->pm1_enable & ~s->pm1_status & PM1_TIMER) {
		left = (1ULL << TIMER_SHIFT) -
		       (s->timer_seen & ((1ULL << TIMER_SHIFT) - 1));
		at = clock_ns() + ticks_to_ns(left);
	}
	loop_timer_arm(power->alarm, at);
	irq_set_line(power->irq, GSI_SCI, s->pm1_status & s->pm1_enable);
}

static void power_on_alarm(void *opaque)
{
	struct power *power = opaque;

	power_look_at_timer(power);
	power_settle(power);
}

void power_press_button(struct device *dev)
{
	struct power *power = container_of(dev, struct power, dev);

	power->state.pm1_status |= PM1_BUTTON;
	power_settle(power);
}

/* ---- the guest's side ---- */

static uint32_t power_read_port(struct power *power, enum power_port port)
{
	const struct power_state *s = &power->state;

	switch (port) {
	case POWER_EVENT:
		power_look_at_timer(power);
		return s->pm1_status | (uint32_t)s->pm1_enable << 16;
	case POWER_CONTROL:
		return s->pm1_control | CNT_SCI_EN;
	case POWER_TIMER:
		return (uint32_t)power_ticks(power);
	case POWER_PANIC:
		return PANIC_EVENT;
	case POWER_I8042:
	case POWER_PORTS:
		break;
	}
	return 0; /* a keyboard controller with nothing to say */
}

/* Replace the byte of @reg that is at @offset. */
static uint16_t power_put_byte(uint16_t reg, uint64_t offset, uint8_t value)
{
	unsigned int shift = offset % 2 * 8;

	return (uint16_t)((reg & ~(0xffU << shift)) | (uint32_t)value << shift);
}

static void power_write_event(struct power *power, uint64_t offset,
			      uint8_t value)
{
	struct power_state *s = &power->state;

	power_look_at_timer(power);
	if (offset < 2) {
		/* Writing a 1 is what clears. */
		s->pm1_status &= (uint16_t)~power_put_byte(0, offset, value);
	} else {
		s->pm1_enable = power_put_byte(s->pm1_enable, offset, value);
		s->pm1_enable &= PM1_WRITABLE;
	}
}

static void power_write_control(struct power *power, uint64_t offset,
				uint8_t value)
{
	struct power_state *s = &power->state;
	uint16_t bits = power_put_byte(s->pm1_control, offset, value);

	s->pm1_control = bits & CNT_KEPT;
	if ((bits & CNT_SLP_EN) &&
	    (bits & CNT_SLP_TYPE) >> CNT_SLP_SHIFT == SLEEP_TYPE_S5)
		power->hooks->request_poweroff(power->hooks_opaque);
}

static void power_write_port(struct power *power, enum power_port port,
			     uint64_t offset, uint8_t value)
{
	switch (port) {
	case POWER_EVENT:
		power_write_event(power, offset, value);
		break;
	case POWER_CONTROL:
		power_write_control(power, offset, value);
		break;
	case POWER_I8042:
		/* Pulse output lines that are 0 in the low half: 0 is reset. */
		if ((value & 0xf1) == 0xf0)
			power->hooks->request_reset(power->hooks_opaque);
		break;
	case POWER_PANIC:
		if (value & PANIC_EVENT)
			power->hooks->request_crash(power->hooks_opaque,
						    "its kernel panicked");
		break;
	case POWER_TIMER:
	case POWER_PORTS:
		break;
	}
}

static void power_read(void *opaque, uint64_t offset, void *data,
		       unsigned int size)
{
	struct power_range *range = opaque;
	uint64_t value = power_read_port(range->power, range->port);

	value >>= offset * 8;
	memcpy(data, &value, size);
	if (range->port == POWER_EVENT)
		power_settle(range->power);
}

static void power_write(void *opaque, uint64_t offset, const void *data,
			unsigned int size)
{
	struct power_range *range = opaque;
	const uint8_t *bytes = data;

	for (unsigned int i = 0; i < size; i++)
		power_write_port(range->power, range->port, offset + i,
				 bytes[i]);
	if (range->port == POWER_EVENT)
		power_settle(range->power);
}

static const struct bus_ops power_bus_ops = {
	.read = power_read,
	.write = power_write,
};

/* ---- the device ---- */

static struct power *to_power(struct device *dev)
{
	return container_of(dev, struct power, dev);
}

static void power_visit(struct codec *c, void *state)
{
	struct power_state *s = state;

	codec_u16(c, "pm1_status", &s->pm1_status);
	codec_u16(c, "pm1_enable", &s->pm1_enable);
	codec_u16(c, "pm1_control", &s->pm1_control);
	/* The reset control register has become the PCI host bridge's. */
	if (c->version < 2)
		codec_u8(c, "reset_control", &(uint8_t){ 0 });
	codec_u64(c, "timer", &s->timer);
	codec_u64(c, "timer_seen", &s->timer_seen);
	codec_u64(c, "utc_ns", &s->utc_ns);
}

static void power_snapshot(struct device *dev, void *state)
{
	struct power *power = to_power(dev);
	struct power_state *s = state;

	*s = power->state;
	s->timer = power_ticks(power);
	s->utc_ns = clock_real_ns();
}

static int power_check(struct device *dev, const void *state, struct error *err)
{
	const struct power_state *s = state;

	if (s->pm1_status & ~PM1_REACHABLE)
		return error_set(err, -EINVAL,
				 "%s: pm1_status 0x%04x has bits "
				 "that nothing sets",
				 dev->id, s->pm1_status);
	if (s->pm1_enable & ~PM1_WRITABLE)
		return error_set(err, -EINVAL,
				 "%s: pm1_enable 0x%04x has bits "
				 "that are always 0",
				 dev->id, s->pm1_enable);
	if (s->pm1_control & ~CNT_KEPT)
		return error_set(err, -EINVAL,
				 "%s: pm1_control 0x%04x has "
				 "bits that aren't kept",
				 dev->id, s->pm1_control);
	if (s->timer > TIMER_MAX)
		return error_set(err, -EINVAL,
				 "%s: timer %llu has run for "
				 "longer than any machine",
				 dev->id, (unsigned long long)s->timer);
	if (s->timer_seen > s->timer)
		return error_set(err, -EINVAL,
				 "%s: timer_seen %llu is ahead "
				 "of the timer, %llu",
				 dev->id, (unsigned long long)s->timer_seen,
				 (unsigned long long)s->timer);
	return 0;
}

static void power_commit(struct device *dev, const void *state)
{
	struct power *power = to_power(dev);
	uint64_t now = clock_real_ns();

	power->state = *(const struct power_state *)state;
	power->base_ns = clock_ns();
	if (now > power->state.utc_ns)
		power->state.timer += ns_to_ticks(now - power->state.utc_ns);
}

static void power_pause(struct device *dev)
{
	struct power *power = to_power(dev);

	power->running = false;
	loop_timer_arm(power->alarm, 0);
}

static void power_resume(struct device *dev)
{
	struct power *power = to_power(dev);

	power->running = true;
	power_look_at_timer(power);
	power_settle(power);
}

static void power_reset(struct device *dev)
{
	struct power *power = to_power(dev);

	power->state = (struct power_state){ 0 };
	power->base_ns = clock_ns();
}

static void power_free(struct device *dev)
{
	struct power *power = to_power(dev);

	loop_timer_remove(power->alarm);
	for (unsigned int i = 0; i < POWER_PORTS; i++) {
		if (power->ranges[i].claimed)
			bus_remove(power->pio, power_ports[i].base);
	}
	device_fini(dev);
	free(power);
}

const struct device_ops power_ops = {
	.type = "power",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 2,
	.state_size = sizeof(struct power_state),
	.visit = power_visit,
	.snapshot = power_snapshot,
	.check = power_check,
	.commit = power_commit,
	.pause = power_pause,
	.resume = power_resume,
	.reset = power_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = power_free,
};

static int power_claim(struct power *power, enum power_port port,
		       struct error *err)
{
	struct power_range *range = &power->ranges[port];
	int code;

	range->power = power;
	range->port = port;
	code = bus_add(power->pio,
		       &(struct bus_range){
			       .base = power_ports[port].base,
			       .len = power_ports[port].len,
			       .name = power_ports[port].name,
			       .ops = &power_bus_ops,
			       .opaque = range,
			       .lock = &power->dev.lock,
		       },
		       err);
	range->claimed = !code;
	return code;
}

int power_create(const struct device_env *env,
		 const struct device_config *config, struct device **ret,
		 struct error *err)
{
	struct power *power;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: power management takes no options, got "
				 "\"%s\"",
				 config->id, config->options);
	power = calloc(1, sizeof(*power));
	if (!power)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	device_init(&power->dev, &power_ops, config->id);
	power->pio = env->pio;
	power->irq = env->irq;
	power->hooks = env->hooks;
	power->hooks_opaque = env->hooks_opaque;
	power_reset(&power->dev);
	code = loop_timer_add(env->loop, power_on_alarm, power,
			      &power->dev.lock, &power->alarm, err);
	for (unsigned int i = 0; !code && i < POWER_PORTS; i++)
		code = power_claim(power, i, err);
	if (code)
		goto fail;
	*ret = &power->dev;
	return 0;
fail:
	power_free(&power->dev);
	return code;
}
