/* SPDX-License-Identifier: MIT */
/*
 * The real-time clock and its CMOS memory, an MC146818.
 *
 * The state is what a guest can see, in the order of the section.
 */
#ifndef GODWIT_DEVICES_RTC_H
#define GODWIT_DEVICES_RTC_H

#include "devices/device.h"

#define RTC_CMOS 128 /* bytes behind the index port */

struct rtc_state {
	uint8_t index;
	/*
	 * All registers. Those of the time are 0 unless the guest has stopped
	 * the clock (SET); then they hold what it stopped at, or wrote since.
	 */
	uint8_t cmos[RTC_CMOS];
	int64_t offset; /* guest time less UTC, seconds */
	/*
	 * Guest time up to which update, alarm and periodic events have been
	 * accounted for, in 1/32768 s since 1970.
	 */
	int64_t seen;
};

extern const struct device_ops rtc_ops;

/**
 * rtc_create() - make the clock, showing UTC; it takes no options.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check rtc_create(const struct device_env *env,
			    const struct device_config *config,
			    struct device **ret, struct error *err);

#endif
