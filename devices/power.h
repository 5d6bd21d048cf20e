/* SPDX-License-Identifier: MIT */
/*
 * Power management: soft-off, the power button, the ACPI timer, reset.
 *
 * The state is what a guest can see, in the order of the section.
 */
#ifndef GODWIT_DEVICES_POWER_H
#define GODWIT_DEVICES_POWER_H

#include "devices/device.h"

/* The ACPI timer's frequency in Hz; ACPI 6.5, section 4.8.2.1. */
#define POWER_TIMER_HZ 3579545ULL

struct power_state {
	uint16_t pm1_status;
	uint16_t pm1_enable;
	uint16_t pm1_control; /* without SCI_EN, which is always 1 */
	uint64_t timer;	      /* ticks; the guest sees the low 32 bits */
	uint64_t timer_seen;  /* of timer, when TMR_STS was last looked at */
	uint64_t utc_ns;      /* since 1970, when timer was read */
};

extern const struct device_ops power_ops;

/**
 * power_create() - make the power management block; it takes no options.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check power_create(const struct device_env *env,
			      const struct device_config *config,
			      struct device **ret, struct error *err);

/**
 * power_press_button() - press and release the power button.
 *
 * The guest is asked to switch itself off; what it does about it is its own
 * affair. Pressed while paused, it is felt at resume. The caller holds the
 * device's lock; any thread.
 */
void power_press_button(struct device *dev);

#endif
