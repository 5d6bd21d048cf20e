// SPDX-License-Identifier: MIT
/*
 * Power management: what switches off and resets, the button, and a timer that
 * never steps back.
 */
#include <errno.h>

#include "arch/x86_64/layout.h"
#include "devices/power.h"
#include "tests/unit/device_rig.h"

#define STATUS	PORT_PM1A_EVENT
#define ENABLE	(PORT_PM1A_EVENT + 2)
#define CONTROL PORT_PM1A_CONTROL

#define BUTTON	  0x0100
#define TIMER	  0x0001
#define SLEEP_NOW 0x2000

static struct device_rig *power_new(void)
{
	struct device_rig *rig = rig_new();

	rig_create(rig, "power");
	RIG_OP(rig, resume);
	return rig;
}

static void press(struct device_rig *rig)
{
	pthread_mutex_lock(&rig->dev->lock);
	power_press_button(rig->dev);
	pthread_mutex_unlock(&rig->dev->lock);
}

/* Set the timer forward, or anything else that a guest has no means for. */
static void load(struct device_rig *rig, const struct power_state *state)
{
	RIG_OP(rig, pause);
	ck_assert(rig_accepts(rig, state));
	RIG_OP(rig, commit, state);
	RIG_OP(rig, resume);
}

START_TEST(power_goes_off_by_s5_and_by_no_other_sleep)
{
	struct device_rig *rig = power_new();

	for (uint16_t type = 0; type < 8; type++) {
		out16(rig, CONTROL, (uint16_t)(type << 10)); /* only a type */
		ck_assert_uint_eq(rig->poweroffs, 0);
		if (type != SLEEP_TYPE_S5)
			out16(rig, CONTROL, (uint16_t)(SLEEP_NOW | type << 10));
		ck_assert_uint_eq(rig->poweroffs, 0);
	}
	out16(rig, CONTROL, SLEEP_NOW | SLEEP_TYPE_S5 << 10);
	ck_assert_uint_eq(rig->poweroffs, 1);
	/* As bytes too. */
	out8(rig, CONTROL + 1, (SLEEP_NOW | SLEEP_TYPE_S5 << 10) >> 8);
	ck_assert_uint_eq(rig->poweroffs, 2);
	ck_assert_uint_eq(rig->resets, 0);
	rig_free(rig);
}
END_TEST

START_TEST(power_control_reads_back_with_acpi_on)
{
	struct device_rig *rig = power_new();

	ck_assert_uint_eq(in16(rig, CONTROL), 0x0001);
	out16(rig, CONTROL, 0x1c02);
	ck_assert_uint_eq(in16(rig, CONTROL), 0x1c03);
	out16(rig, CONTROL, 0x0000);
	ck_assert_uint_eq(in16(rig, CONTROL), 0x0001);
	rig_free(rig);
}
END_TEST

START_TEST(power_button_interrupts_until_it_is_acknowledged)
{
	struct device_rig *rig = power_new();

	out16(rig, ENABLE, BUTTON);
	ck_assert(!rig->line[GSI_SCI]);
	press(rig);
	ck_assert(rig->line[GSI_SCI]);
	ck_assert_uint_eq(in16(rig, STATUS), BUTTON);
	out16(rig, STATUS, TIMER); /* another bit */
	ck_assert(rig->line[GSI_SCI]);
	out16(rig, STATUS, BUTTON);
	ck_assert(!rig->line[GSI_SCI]);
	ck_assert_uint_eq(in16(rig, STATUS), 0);
	ck_assert_uint_eq(in16(rig, ENABLE), BUTTON);
	rig_free(rig);
}
END_TEST

START_TEST(power_button_waits_for_a_guest_that_does_not_listen_yet)
{
	struct device_rig *rig = power_new();

	press(rig);
	ck_assert(!rig->line[GSI_SCI]);
	ck_assert_uint_eq(in32(rig, STATUS), BUTTON);
	out8(rig, ENABLE + 1, BUTTON >> 8);
	ck_assert(rig->line[GSI_SCI]);
	rig_free(rig);
}
END_TEST

START_TEST(power_button_pressed_while_paused_is_felt_at_resume)
{
	struct device_rig *rig = power_new();

	out16(rig, ENABLE, BUTTON);
	RIG_OP(rig, pause);
	press(rig);
	ck_assert(!rig->line[GSI_SCI]);
	RIG_OP(rig, resume);
	ck_assert(rig->line[GSI_SCI]);
	rig_free(rig);
}
END_TEST

START_TEST(power_resets_on_the_keyboard_controllers_pulse)
{
	struct device_rig *rig = power_new();

	/* Kernels wait until the input buffer is empty. */
	ck_assert_uint_eq(in8(rig, PORT_I8042_COMMAND) & 0x02, 0);
	out8(rig, PORT_I8042_COMMAND, 0xaa);
	out8(rig, PORT_I8042_COMMAND, 0xff);
	ck_assert_uint_eq(rig->resets, 0);
	out8(rig, PORT_I8042_COMMAND, 0xfe);
	ck_assert_uint_eq(rig->resets, 1);
	rig_free(rig);
}
END_TEST

START_TEST(power_hears_of_a_panic)
{
	struct device_rig *rig = power_new();

	ck_assert_uint_eq(in8(rig, PORT_PANIC), PANIC_EVENT);
	/* What it did not offer to hear. */
	out8(rig, PORT_PANIC, (uint8_t)~PANIC_EVENT);
	ck_assert_uint_eq(rig->crashes, 0);
	out8(rig, PORT_PANIC, PANIC_EVENT);
	ck_assert_uint_eq(rig->crashes, 1);
	rig_free(rig);
}
END_TEST

START_TEST(power_timer_counts_at_its_frequency)
{
	struct device_rig *rig = power_new();
	uint64_t low = clock_ns(), high, ticks;
	uint32_t first = in32(rig, PORT_PM_TIMER), last;

	while ((last = in32(rig, PORT_PM_TIMER)) - first < 50000)
		;
	high = clock_ns();
	/* At most what fits between the two looks at the host's clock. */
	ticks = (high - low) * POWER_TIMER_HZ / NS_PER_S;
	ck_assert_uint_le(last - first, ticks + 1);
	rig_free(rig);
}
END_TEST

START_TEST(power_timer_does_not_step_back_across_a_move)
{
	struct device_rig *source = power_new(), *target = power_new();
	struct power_state state, loaded;
	uint32_t before;

	load(source, &(struct power_state){ .timer = 1ULL << 33,
					    .timer_seen = 1ULL << 33,
					    .utc_ns = clock_real_ns() });
	before = in32(source, PORT_PM_TIMER);
	RIG_OP(source, pause);
	RIG_OP(source, snapshot, &state);
	ck_assert_uint_ge((uint32_t)state.timer, before);
	rig_wire(source, &state, &loaded);
	/* The target's clock is an hour behind. */
	loaded.utc_ns += 3600 * NS_PER_S;
	load(target, &loaded);
	ck_assert_uint_ge(in32(target, PORT_PM_TIMER), (uint32_t)state.timer);
	/* Less than a minute ahead: nothing was made up. */
	ck_assert_uint_lt(in32(target, PORT_PM_TIMER) - (uint32_t)state.timer,
			  60 * POWER_TIMER_HZ);
	rig_free(source);
	rig_free(target);
}
END_TEST

START_TEST(power_timer_goes_on_by_the_time_that_a_move_took)
{
	struct device_rig *rig = power_new();

	load(rig,
	     &(struct power_state){ .utc_ns = clock_real_ns() - 5 * NS_PER_S });
	ck_assert_uint_ge(in32(rig, PORT_PM_TIMER), 5 * POWER_TIMER_HZ);
	rig_free(rig);
}
END_TEST

START_TEST(power_timer_status_is_set_when_the_top_bit_toggles)
{
	struct device_rig *rig = power_new();
	struct power_state state = {
		.pm1_enable = TIMER,
		.timer = (1ULL << 31) - POWER_TIMER_HZ / 100,
		.timer_seen = (1ULL << 31) - POWER_TIMER_HZ / 100,
		.utc_ns = clock_real_ns(),
	};

	ck_assert_uint_eq(in16(rig, STATUS), 0);
	rig_start_loop(rig);
	load(rig, &state);
	while (!rig->line[GSI_SCI])
		sched_yield();
	ck_assert_uint_eq(in16(rig, STATUS), TIMER);
	ck_assert_uint_eq(in32(rig, PORT_PM_TIMER) >> 31, 1);
	out16(rig, STATUS, TIMER);
	ck_assert(!rig->line[GSI_SCI]);
	ck_assert_uint_eq(in16(rig, STATUS), 0);
	rig_free(rig);
}
END_TEST

START_TEST(power_timer_ignores_writes)
{
	struct device_rig *rig = power_new();
	uint32_t zero = 0, before;

	load(rig, &(struct power_state){ .timer = 1 << 30,
					 .utc_ns = clock_real_ns() });
	before = in32(rig, PORT_PM_TIMER);
	ck_assert(bus_write(&rig->pio, PORT_PM_TIMER, &zero, sizeof(zero)));
	ck_assert_uint_ge(in32(rig, PORT_PM_TIMER), before);
	rig_free(rig);
}
END_TEST

START_TEST(power_state_comes_whole_over_the_wire)
{
	struct device_rig *rig = power_new();
	const struct power_state full = {
		.pm1_status = 0x0101,
		.pm1_enable = 0x0520,
		.pm1_control = 0x1402,
		.timer = 0x23456789abcdef,
		.timer_seen = 0x23456700000000,
		.utc_ns = 0x17c0ffee12345678,
	};
	struct power_state back;

	ck_assert(rig_accepts(rig, &full));
	rig_wire(rig, &full, &back);
	ck_assert_uint_eq(back.pm1_status, full.pm1_status);
	ck_assert_uint_eq(back.pm1_enable, full.pm1_enable);
	ck_assert_uint_eq(back.pm1_control, full.pm1_control);
	ck_assert_uint_eq(back.timer, full.timer);
	ck_assert_uint_eq(back.timer_seen, full.timer_seen);
	ck_assert_uint_eq(back.utc_ns, full.utc_ns);
	rig_free(rig);
}
END_TEST

START_TEST(power_state_of_version_1_had_the_reset_register_too)
{
	const uint8_t wire[] = { 0x01, 0x01, 0x20, 0x05, 0x02, 0x14, 0x0a, 9,
				 0,    0,    0,	   0,	 0,    0,    0,	   8,
				 0,    0,    0,	   0,	 0,    0,    0,	   7,
				 0,    0,    0,	   0,	 0,    0,    0 };
	struct power_state back;
	struct error err = { "" };
	struct codec c;

	codec_init_load(&c, wire, sizeof(wire), 1);
	power_ops.visit(&c, &back);
	ck_assert_msg(!codec_finish(&c, &err), "%s", err.text);
	ck_assert_uint_eq(back.pm1_status, 0x0101);
	ck_assert_uint_eq(back.pm1_enable, 0x0520);
	ck_assert_uint_eq(back.pm1_control, 0x1402);
	ck_assert_uint_eq(back.timer, 9);
	ck_assert_uint_eq(back.timer_seen, 8);
	ck_assert_uint_eq(back.utc_ns, 7);
}
END_TEST

START_TEST(power_refuses_states_that_no_guest_can_reach)
{
	struct device_rig *rig = power_new();
	struct power_state s;

#define REFUSES(...)                                     \
	do {                                             \
		s = (struct power_state){ __VA_ARGS__ }; \
		ck_assert(!rig_accepts(rig, &s));        \
	} while (0)
	REFUSES(.pm1_status = 0x0020);
	REFUSES(.pm1_status = 0x8000);
	REFUSES(.pm1_enable = 0x0200);
	REFUSES(.pm1_control = 0x0001);
	REFUSES(.pm1_control = 0x2000);
	REFUSES(.timer_seen = 1);
	REFUSES(.timer = 1ULL << 63);
#undef REFUSES
	rig_free(rig);
}
END_TEST

START_TEST(power_reset_is_the_state_at_power_on)
{
	struct device_rig *rig = power_new();
	struct power_state state;

	out16(rig, ENABLE, BUTTON);
	press(rig);
	out16(rig, CONTROL, 0x0402);
	RIG_OP(rig, pause);
	RIG_OP(rig, reset);
	RIG_OP(rig, resume);
	ck_assert(!rig->line[GSI_SCI]);
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.pm1_status, 0);
	ck_assert_uint_eq(state.pm1_enable, 0);
	ck_assert_uint_eq(state.pm1_control, 0);
	ck_assert_uint_lt(state.timer, 60 * POWER_TIMER_HZ);
	rig_free(rig);
}
END_TEST

UNIT_SUITE("power", power_goes_off_by_s5_and_by_no_other_sleep,
	   power_control_reads_back_with_acpi_on,
	   power_button_interrupts_until_it_is_acknowledged,
	   power_button_waits_for_a_guest_that_does_not_listen_yet,
	   power_button_pressed_while_paused_is_felt_at_resume,
	   power_resets_on_the_keyboard_controllers_pulse,
	   power_hears_of_a_panic, power_timer_counts_at_its_frequency,
	   power_timer_does_not_step_back_across_a_move,
	   power_timer_goes_on_by_the_time_that_a_move_took,
	   power_timer_status_is_set_when_the_top_bit_toggles,
	   power_timer_ignores_writes, power_state_comes_whole_over_the_wire,
	   power_state_of_version_1_had_the_reset_register_too,
	   power_refuses_states_that_no_guest_can_reach,
	   power_reset_is_the_state_at_power_on)
