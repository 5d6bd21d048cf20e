// SPDX-License-Identifier: MIT
/*
 * Whether to look on or to sleep; see look.h.
 */
#include "devices/virtio/look.h"

/* Looking around: for so long, and so often in vain. */
#define LOOK_NS	    (30 * NS_PER_US)
#define CREDIT_GAIN 2
#define CREDIT_MAX  16

static void gain(struct look *look)
{
	look->credit = MIN(look->credit + CREDIT_GAIN, CREDIT_MAX);
}

bool look_on(struct look *look)
{
	uint64_t now = clock_ns();

	if (!look->idle_ns)
		look->idle_ns = now;
	if (look->credit && now - look->idle_ns < LOOK_NS) {
		__builtin_ia32_pause();
		return true;
	}
	if (look->credit)
		look->credit--;
	look->idle_ns = 0;
	look->sleep_ns = now;
	return false;
}

void look_slept(struct look *look)
{
	if (clock_ns() - look->sleep_ns < LOOK_NS)
		gain(look);
}

void look_found(struct look *look)
{
	if (look->idle_ns)
		gain(look);
	look->idle_ns = 0;
}
