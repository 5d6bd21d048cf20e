/* SPDX-License-Identifier: MIT */
/*
 * What the inputs of device fuzzers have in common: a series of steps, some of
 * which any device takes, and ways to lift a device from under its driver. Of
 * driver.h, like which it belongs into one file a program.
 */
#ifndef GODWIT_TESTS_FUZZ_STEPS_H
#define GODWIT_TESTS_FUZZ_STEPS_H

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/fuzz/driver.h"
#include "vmm/loop.h"

#define STEPS_MAX     256
#define STEP_PATIENCE 100 /* yields */
#define STEP_FLIPS    200
#define STEP_ROUNDS   3 /* of the loop */

/* The kinds that any device takes; each fuzzer's own come after. */
enum {
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_BAR_WRITE,
	STEP_BAR_READ,
	STEP_MEMORY,
	STEP_OWN,
};

struct step {
	uint8_t what;
	uint8_t where; /* queue or BAR */
	uint8_t at[2];
	uint8_t size_shift;
	uint8_t value[8];
};

static unsigned int step_at(const struct step *step)
{
	return (unsigned int)(step->at[0] | step->at[1] << 8);
}

/* @take: called with each step of an input. */
static void steps_walk(const uint8_t *data, size_t size,
		       void (*take)(void *opaque, const struct step *step),
		       void *opaque)
{
	struct step step;

	for (size_t i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		memcpy(&step, data, sizeof(step));
		take(opaque, &step);
		data += sizeof(step);
		size -= sizeof(step);
	}
}

/* ---- the guest ---- */

/* A step of a kind before STEP_OWN. */
static void step_touch(struct driver *d, const struct step *step,
		       unsigned int what)
{
	unsigned int at = step_at(step);
	unsigned int size = 1U << step->size_shift % 4;
	uint8_t value[8];

	memcpy(value, step->value, sizeof(value));
	if (what == STEP_CONFIG_WRITE)
		bus_write(&d->mmio, config_gpa(d, at % 0x100), value, size);
	else if (what == STEP_CONFIG_READ)
		bus_read(&d->mmio, config_gpa(d, at % 0x100), value, size);
	else if (what == STEP_BAR_WRITE)
		bus_write(&d->mmio, bar_gpa(d, step->where, at), value, size);
	else if (what == STEP_BAR_READ)
		bus_read(&d->mmio, bar_gpa(d, step->where, at), value, size);
	else
		guest_write(d, WINDOW + at, value, size);
}

/* Now this, now that, while the device looks at it. */
static void step_flip(struct driver *d, const struct step *step)
{
	uint64_t gpa = WINDOW + step_at(step);
	volatile uint8_t *byte = memory_hva(d->mem, gpa, 1);

	for (int i = 0; i < STEP_FLIPS; i++)
		*byte = step->value[i % 2];
	guest_write(d, gpa, &step->value[1], 1);
}

/* For something to be given back, perhaps, by a thread of the device's. */
static void step_wait(struct driver *d, unsigned int queue)
{
	uint16_t before = used_idx(d, queue);

	for (int i = 0; i < STEP_PATIENCE && used_idx(d, queue) == before; i++)
		sched_yield();
}

/* ---- the host ---- */

enum step_hold {
	HOLD_ONCE,
	HOLD_RESET,
	HOLD_TWICE, /* with no time for the device in between */
};

/*
 * Pause it, and have it go by way of bytes into itself. The lock is held from
 * here until step_go_on(), so that a resume may be followed by a pause that a
 * thread of the device's sees at the same time.
 * @state: room for one; what it came with.
 */
static void step_hold(struct driver *d, enum step_hold how, void *state)
{
	const struct device_ops *ops = d->dev->ops;

	pthread_mutex_lock(&d->dev->lock);
	ops->pause(d->dev);
	if (how == HOLD_RESET)
		ops->reset(d->dev);
	if (how == HOLD_TWICE) {
		ops->resume(d->dev);
		ops->pause(d->dev);
	}
	driver_move_paused(d, state);
}

static void step_go_on(struct driver *d)
{
	d->dev->ops->resume(d->dev);
	pthread_mutex_unlock(&d->dev->lock);
}

struct step_marker {
	struct loop *loop;
	unsigned int rounds;
};

static void on_step_marker(void *opaque, uint32_t events)
{
	struct step_marker *marker = opaque;

	if (++marker->rounds == STEP_ROUNDS)
		loop_stop(marker->loop);
}

/* The loop serves what is ready. */
static void step_turn(struct loop *loop)
{
	struct step_marker marker = { .loop = loop };
	int fd = eventfd(1, EFD_CLOEXEC);
	struct loop_fd *source;
	struct error err;

	demand(!loop_fd_add(loop, fd, EPOLLIN, on_step_marker, &marker, NULL,
			    &source, &err),
	       "marker");
	loop_run(loop);
	loop_fd_remove(source);
	close(fd);
}

#endif
