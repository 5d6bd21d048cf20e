/* SPDX-License-Identifier: MIT */
/*
 * Points about a virtio console. What those at its other end do is said at
 * each: type, read, and make their window larger; "asked": as the guest says
 * "ask". What either side says is bytes of a pattern.
 */
#include "unit.h"

#define CONSOLE_ID     3U
#define CONSOLE_F_SIZE 1UL

#define SAID	  200000U /* bytes, in CHAINS; more than two pipes hold */
#define CHAINS	  4U
#define ROOM	  16U /* bytes of a buffer for what is typed */
#define ROOMS	  4U
#define TYPED	  24U /* bytes, before; two buffers do */
#define TYPED_ALL 40U

enum {
	RX,
	TX,
	QUEUES
};

struct config {
	uint16_t columns;
	uint16_t rows;
};

static struct {
	struct unit unit;
	volatile struct config *config;
	uint8_t *said;
	uint8_t (*rooms)[ROOM];
	uint8_t *of[UNIT_QUEUE_SIZE]; /* a receiving head's */
} console;

static uint8_t byte_of(uint32_t at)
{
	return (uint8_t)(at % 251);
}

static bool console_up(void)
{
	if (!unit_up(&console.unit, CONSOLE_ID, CONSOLE_F_SIZE, QUEUES))
		return false;
	console.config = console.unit.v.config;
	if (!console.said) {
		console.said = mem_alloc(SAID, PAGE_SIZE);
		console.rooms = mem_alloc(ROOMS * ROOM, PAGE_SIZE);
	}
	unit_go(&console.unit, QUEUES);
	return true;
}

static void console_down(void)
{
	virtio_reset(&console.unit.v);
}

static bool is_wide(void)
{
	return console.config->columns == 132 && console.config->rows == 43;
}

/* The window is of 80 by 25; asked: it becomes one of 132 by 43. */
void point_console_size(void)
{
	if (!console_up())
		return;
	sync_wait();
	sync_check("columns", 80, console.config->columns);
	sync_check("rows", 25, console.config->rows);
	sync_ask();
	unit_await("another window", is_wide);
	console_down();
}

/*
 * More is said than fits where nobody reads, so that a part of a buffer may be
 * taken; or all, and nobody was told. Asked: it is read.
 */
static void say(bool ring)
{
	if (!console_up())
		return;
	for (uint32_t i = 0; i < SAID; i++)
		console.said[i] = byte_of(i);
	for (unsigned int i = 0; i < CHAINS; i++)
		unit_give(&console.unit, TX, console.said + i * (SAID / CHAINS),
			  SAID / CHAINS, false);
	unit_publish(&console.unit, TX, ring);
	sync_wait();
	sync_check("not all is said", 1,
		   console.unit.queues[TX].used->idx < CHAINS);
	unit_publish(&console.unit, TX, true);
	sync_ask();
	unit_settle(&console.unit, TX);
	console_down();
}

void point_console_half_said(void)
{
	say(true);
}

void point_console_not_rung(void)
{
	say(false);
}

static void offer(void)
{
	for (unsigned int i = 0; i < ROOMS; i++)
		console.of[unit_give(&console.unit, RX, console.rooms[i], ROOM,
				     true)] = console.rooms[i];
	unit_publish(&console.unit, RX, true);
}

/* From byte @at on to @end. */
static void hear(uint32_t at, uint32_t end)
{
	while (at < end) {
		uint32_t len;
		int head = unit_take(&console.unit, RX, &len);

		if (head < 0)
			return;
		if (!len || len > ROOM)
			guest_fail(VERDICT_DEVICE, "%u bytes typed\n", len);
		for (uint32_t i = 0; i < len; i++, at++)
			sync_check("typed", byte_of(at), console.of[head][i]);
	}
	sync_check("bytes typed", end, at);
}

/* There is room, and nothing typed; asked: 40 bytes. */
void point_console_hearing(void)
{
	if (!console_up())
		return;
	offer();
	sync_wait();
	sync_ask();
	hear(0, TYPED_ALL);
	console_down();
}

/* 24 bytes were typed, and taken; asked: 16 more. */
void point_console_heard(void)
{
	if (!console_up())
		return;
	offer();
	sync_wait();
	hear(0, TYPED);
	sync_ask();
	hear(TYPED, TYPED_ALL);
	console_down();
}
