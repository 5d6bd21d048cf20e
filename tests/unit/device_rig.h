/* SPDX-License-Identifier: MIT */
/*
 * What the tests of a device stand it on: real buses and a real loop, hooks
 * that count, and interrupt lines and messages that are only written down (the
 * functions of vmm/irq.h are replaced at link time; include this in one file a
 * program).
 */
#ifndef GODWIT_TESTS_DEVICE_RIG_H
#define GODWIT_TESTS_DEVICE_RIG_H

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/backend/line.h"
#include "devices/device.h"
#include "devices/pci.h"
#include "tests/unit/unit.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

#define RIG_GSIS 24
#define RIG_MSIS 64

struct device_rig {
	struct bus pio;
	struct bus mmio;
	struct pci_bus *pci;
	struct irq irq;
	struct loop *loop;
	pthread_t thread;
	bool looping;
	struct device_hooks hooks;
	struct device_lines lines;
	struct line *console; /* rig_give_console(); NULL: nobody */
	struct device_env env;
	struct device *dev;
	_Atomic bool line[RIG_GSIS];
	_Atomic unsigned int edges[RIG_GSIS]; /* rising ones */
	_Atomic unsigned int nmsis;	      /* messages that were sent */
	struct rig_msi {
		uint64_t address;
		uint32_t data;
	} msis[RIG_MSIS]; /* the first ones */
	unsigned int poweroffs;
	unsigned int resets;
	unsigned int exits;
	uint8_t exit_status;
	unsigned int crashes;
	_Atomic unsigned int stops;
	unsigned int balloons; /* times that a balloon was told of */
};

void irq_set_line(struct irq *irq, uint32_t gsi, bool level)
{
	struct device_rig *rig = container_of(irq, struct device_rig, irq);

	ck_assert_uint_lt(gsi, RIG_GSIS);
	if (level && !rig->line[gsi])
		rig->edges[gsi]++;
	rig->line[gsi] = level;
}

void irq_send_msi(struct irq *irq, uint64_t address, uint32_t data)
{
	struct device_rig *rig = container_of(irq, struct device_rig, irq);
	unsigned int n = rig->nmsis++;

	if (n < RIG_MSIS)
		rig->msis[n] = (struct rig_msi){ address, data };
}

static void rig_poweroff(void *opaque)
{
	((struct device_rig *)opaque)->poweroffs++;
}

static void rig_reset(void *opaque)
{
	((struct device_rig *)opaque)->resets++;
}

static void rig_exit(void *opaque, uint8_t status)
{
	struct device_rig *rig = opaque;

	rig->exits++;
	rig->exit_status = status;
}

static void rig_crash(void *opaque, const char *text __maybe_unused)
{
	((struct device_rig *)opaque)->crashes++;
}

static void rig_stop(void *opaque, const char *text __maybe_unused)
{
	((struct device_rig *)opaque)->stops++;
}

static int rig_open_line(void *opaque, const char *id __maybe_unused,
			 struct line **ret, struct error *err __maybe_unused)
{
	*ret = ((struct device_rig *)opaque)->console;
	return 0;
}

static void rig_balloon(void *opaque)
{
	((struct device_rig *)opaque)->balloons++;
}

static struct device_rig *rig_new(void)
{
	struct device_rig *rig = calloc(1, sizeof(*rig));
	struct error err;

	ck_assert_ptr_nonnull(rig);
	signal(SIGPIPE, SIG_IGN);
	bus_init(&rig->pio, "port");
	bus_init(&rig->mmio, "mmio");
	ck_assert_int_eq(loop_create(&rig->loop, &err), 0);
	ck_assert_int_eq(pci_bus_create(&rig->irq, &rig->pci, &err), 0);
	rig->hooks = (struct device_hooks){
		.request_poweroff = rig_poweroff,
		.request_reset = rig_reset,
		.request_exit = rig_exit,
		.request_crash = rig_crash,
		.request_stop = rig_stop,
		.tell_balloon = rig_balloon,
	};
	rig->lines = (struct device_lines){
		.open_line = rig_open_line,
		.opaque = rig,
	};
	rig->env = (struct device_env){
		.pio = &rig->pio,
		.mmio = &rig->mmio,
		.pci = rig->pci,
		.irq = &rig->irq,
		.loop = rig->loop,
		.hooks = &rig->hooks,
		.hooks_opaque = rig,
		.lines = &rig->lines,
	};
	return rig;
}

static int rig_try_create(struct device_rig *rig, const char *type,
			  const char *options, struct error *err)
{
	const struct device_type *entry = device_type_find(type);
	struct device_config config = { 0 };

	ck_assert_ptr_nonnull(entry);
	snprintf(config.type, sizeof(config.type), "%s", type);
	snprintf(config.id, sizeof(config.id), "%s0", type);
	snprintf(config.options, sizeof(config.options), "%s", options);
	return entry->create(&rig->env, &config, &rig->dev, err);
}

static void __maybe_unused rig_create(struct device_rig *rig, const char *type)
{
	struct error err = { "" };

	ck_assert_msg(!rig_try_create(rig, type, "", &err), "%s", err.text);
}

/* What is read from @in is typed to the device that is made next. */
static void __maybe_unused rig_give_console(struct device_rig *rig, int in,
					    int out)
{
	const struct line_end end = { .in = in, .out = out, .listen = -1 };
	struct error err;

	ck_assert(!line_create(rig->loop, &end, &rig->console, &err));
}

#define RIG_OP(rig, op, ...)                                    \
	do {                                                    \
		pthread_mutex_lock(&(rig)->dev->lock);          \
		(rig)->dev->ops->op((rig)->dev, ##__VA_ARGS__); \
		pthread_mutex_unlock(&(rig)->dev->lock);        \
	} while (0)

static void *rig_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static void __maybe_unused rig_start_loop(struct device_rig *rig)
{
	ck_assert_int_eq(
		pthread_create(&rig->thread, NULL, rig_loop, rig->loop), 0);
	rig->looping = true;
}

static void __maybe_unused rig_stop_loop(struct device_rig *rig)
{
	if (!rig->looping)
		return;
	loop_stop(rig->loop);
	pthread_join(rig->thread, NULL);
	rig->looping = false;
}

struct rig_marker {
	struct loop *loop;
	unsigned int rounds;
};

static void rig_on_marker(void *opaque, uint32_t events __maybe_unused)
{
	struct rig_marker *marker = opaque;

	if (++marker->rounds == 4)
		loop_stop(marker->loop);
}

/*
 * Run the loop here for so long that each source that is ready has had its
 * turn: until one that is always ready has had several.
 */
static void __maybe_unused rig_turn_loop(struct device_rig *rig)
{
	struct rig_marker marker = { .loop = rig->loop };
	struct loop_fd *source;
	struct error err;
	int fd = eventfd(1, EFD_CLOEXEC);

	ck_assert_int_eq(loop_fd_add(rig->loop, fd, EPOLLIN, rig_on_marker,
				     &marker, NULL, &source, &err),
			 0);
	loop_run(rig->loop);
	loop_fd_remove(source);
	close(fd);
}

static void rig_free(struct device_rig *rig)
{
	rig_stop_loop(rig);
	if (rig->dev)
		rig->dev->ops->free(rig->dev);
	/* Whatever a device claims it gives back. */
	ck_assert_uint_eq(rig->pio.nranges, 0);
	ck_assert_uint_eq(rig->mmio.nranges, 0);
	pci_bus_free(rig->pci);
	line_free(rig->console);
	loop_free(rig->loop);
	free(rig);
}

static void __maybe_unused out8(struct device_rig *rig, uint64_t port,
				uint8_t value)
{
	ck_assert(bus_write(&rig->pio, port, &value, sizeof(value)));
}

static uint8_t __maybe_unused in8(struct device_rig *rig, uint64_t port)
{
	uint8_t value = 0;

	ck_assert(bus_read(&rig->pio, port, &value, sizeof(value)));
	return value;
}

static void __maybe_unused out16(struct device_rig *rig, uint64_t port,
				 uint16_t value)
{
	ck_assert(bus_write(&rig->pio, port, &value, sizeof(value)));
}

static uint16_t __maybe_unused in16(struct device_rig *rig, uint64_t port)
{
	uint16_t value = 0;

	ck_assert(bus_read(&rig->pio, port, &value, sizeof(value)));
	return value;
}

static uint32_t __maybe_unused in32(struct device_rig *rig, uint64_t port)
{
	uint32_t value = 0;

	ck_assert(bus_read(&rig->pio, port, &value, sizeof(value)));
	return value;
}

/* Does the device take this state? */
static bool __maybe_unused rig_accepts(struct device_rig *rig,
				       const void *state)
{
	struct error err = { "" };
	int code = rig->dev->ops->check(rig->dev, state, &err);

	/* A refusal names the device and says why. */
	if (code) {
		ck_assert_int_eq(code, -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, rig->dev->id));
	}
	return !code;
}

/*
 * Send @from over the wire into @to, which is filled with garbage before, so
 * that a field which isn't visited shows.
 */
static void __maybe_unused rig_wire(struct device_rig *rig, const void *from,
				    void *to)
{
	const struct device_ops *ops = rig->dev->ops;
	struct buffer wire = { 0 };
	struct codec c;
	struct error err = { "" };
	void *copy = malloc(ops->state_size);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, from, ops->state_size);
	codec_init_save(&c, &wire, ops->version);
	ops->visit(&c, copy);
	ck_assert_msg(!codec_finish(&c, &err), "%s", err.text);
	/* 1 is garbage that a bool can hold. */
	memset(to, 1, ops->state_size);
	codec_init_load(&c, wire.data, wire.len, ops->version);
	ops->visit(&c, to);
	ck_assert_msg(!codec_finish(&c, &err), "%s", err.text);
	buffer_free(&wire);
	free(copy);
}

#endif
