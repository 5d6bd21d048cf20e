/* SPDX-License-Identifier: MIT */
/*
 * console: a virtio console by its own driver, from ring 3, without interrupts.
 *
 * First it says numbered lines there, "0", "1", …, padded to LINE bytes with
 * their newline, in buffers whose lengths have nothing to do with lines, as
 * many at a time as the queue holds: so many lines, or until something is typed
 * there. Then it sends back every byte that is. Whatever is lost, or said
 * twice, shows.
 *
 * On the serial port it says "ready", "said N" when the host has taken all
 * lines, and "size C R" for each size of the window that it sees.
 *
 * Options:
 *   device=N   which of the consoles, from 0
 *   lines=N    default 0
 *   endless=yes|no  (no) lines until something is typed
 *   pause_us=N between two buffers, default 0
 *   bytes=N    end by itself after sending back N; 0 (default): only on 'q'
 *   buffer=N   bytes of the largest buffer, default 300
 * Serial: 'q' ends.
 */
#include "lib/guest.h"
#include "lib/virtio.h"

#define CONSOLE_ID     3U
#define CONSOLE_F_SIZE 1UL

#define LINE	16U
#define BUFFERS 64U
#define BUFFER	4096U
#define POLL_NS 1000000UL

#define ENDLESS (UINT64_MAX / LINE)

enum {
	RX,
	TX
};

struct config {
	uint16_t columns;
	uint16_t rows;
};

static struct {
	struct virtio v;
	volatile struct config *config;
	struct virtqueue queues[2];
	uint8_t *rx;	      /* BUFFERS of BUFFER each */
	uint8_t *tx;	      /* likewise, by turns */
	uint8_t *of[BUFFERS]; /* a receiving head's buffer */
	uint16_t columns, rows;
	bool end;
} con;

/* What else there is to look at, now and then. */
static void attend(void)
{
	static uint64_t next;
	uint64_t now = rdtsc();

	if (now < next)
		return;
	next = now + clock_ns_tsc(POLL_NS);
	if (con.config->columns != con.columns ||
	    con.config->rows != con.rows) {
		con.columns = con.config->columns;
		con.rows = con.config->rows;
		print("size %u %u\n", con.columns, con.rows);
	}
	con.end |= serial_poll() == 'q';
}

/* ---- saying ---- */

static void take_said(void)
{
	uint32_t len;

	while (virtqueue_take(&con.queues[TX], &len) >= 0) {
		if (len)
			guest_fail(VERDICT_DEVICE, "%u bytes were written\n",
				   len);
	}
}

/* A buffer that the host has done with; NULL: it is time to end. */
static uint8_t *next_buffer(void)
{
	struct virtqueue *q = &con.queues[TX];

	while (virtqueue_in_flight(q) >= q->size) {
		take_said();
		attend();
		if (con.end)
			return NULL;
	}
	return con.tx + (q->added % q->size) * BUFFER;
}

static void say(uint8_t *bytes, uint32_t len)
{
	struct virtqueue_buffer buf = { bytes, len };

	if (virtqueue_add(&con.queues[TX], &buf, 1, 0) < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to say it\n");
	virtqueue_kick(&con.queues[TX]);
	take_said();
}

/* The byte at @at of all lines. */
static uint8_t byte_of_lines(uint64_t at)
{
	uint64_t number = at / LINE;
	unsigned int from_end = LINE - 1 - (unsigned int)(at % LINE);

	if (!from_end)
		return '\n';
	while (--from_end)
		number /= 10;
	return (uint8_t)('0' + number % 10);
}

/* Return: false when it is time to end. */
static bool nap(uint64_t ns)
{
	uint64_t start = rdtsc();

	while (!con.end && rdtsc() - start < clock_ns_tsc(ns))
		attend();
	return !con.end;
}

/* @lines: ENDLESS: until something is typed, and to the line's end. */
static void say_lines(uint64_t lines, uint32_t most, uint64_t pause_ns)
{
	uint64_t at = 0, end = lines * LINE;
	uint32_t len = 1;

	while (at < end && nap(pause_ns)) {
		uint8_t *buffer = next_buffer();
		uint32_t n = 0;

		if (!buffer)
			return;
		if (lines == ENDLESS && virtqueue_done(&con.queues[RX]))
			end = end == ENDLESS * LINE
				      ? (at + LINE - 1) / LINE * LINE
				      : end;
		for (; n < len && at < end; n++)
			buffer[n] = byte_of_lines(at++);
		if (n)
			say(buffer, n);
		len = len % most + 1;
	}
	while (virtqueue_in_flight(&con.queues[TX]) && !con.end) {
		take_said();
		attend();
	}
	print("said %lu\n", at / LINE);
}

/* ---- hearing ---- */

static void offer(uint8_t *buffer)
{
	struct virtqueue_buffer buf = { buffer, BUFFER };
	int head = virtqueue_add(&con.queues[RX], &buf, 0, 1);

	if (head < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to hear it\n");
	con.of[head] = buffer;
}

/* Return: how many bytes were sent back. */
static uint32_t echo(void)
{
	uint8_t *buffer, *back;
	uint32_t len;
	int head = virtqueue_take(&con.queues[RX], &len);

	if (head < 0)
		return 0;
	if (!len || len > BUFFER)
		guest_fail(VERDICT_DEVICE, "%u bytes were typed at once\n",
			   len);
	buffer = con.of[head];
	back = next_buffer();
	if (back) {
		memcpy(back, buffer, len);
		say(back, len);
	}
	offer(buffer);
	virtqueue_kick(&con.queues[RX]);
	return len;
}

/* ---- the whole ---- */

static void start(unsigned int index)
{
	if (!virtio_find(CONSOLE_ID, index, &con.v))
		guest_fail(VERDICT_MACHINE, "there is no console %u\n", index);
	con.config = con.v.config;
	virtio_negotiate(&con.v, CONSOLE_F_SIZE | VIRTIO_F_EVENT_IDX);
	for (uint16_t i = RX; i <= TX; i++) {
		virtqueue_setup(&con.queues[i], &con.v, i, BUFFERS,
				VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&con.queues[i], false);
	}
	con.rx = mem_alloc((size_t)BUFFERS * BUFFER, 4096);
	con.tx = mem_alloc((size_t)BUFFERS * BUFFER, 4096);
	for (unsigned int i = 0; i < con.queues[RX].size; i++)
		offer(con.rx + i * BUFFER);
	virtio_status(&con.v, VIRTIO_DRIVER_OK);
	virtqueue_kick(&con.queues[RX]);
}

unsigned int guest_main(void)
{
	static const char *const no_yes[] = { "no", "yes", NULL };
	uint64_t index = option_number("device", 0, 15);
	uint64_t lines = option_number("lines", 0, ENDLESS - 1);
	uint64_t pause_us = option_number("pause_us", 0, 1000000);
	uint64_t limit = option_number("bytes", 0, UINT64_MAX);
	uint64_t most = option_number("buffer", 300, BUFFER);
	uint64_t echoed = 0;

	if (option_choice("endless", no_yes))
		lines = ENDLESS;
	option_end();
	start((unsigned int)index);
	print("ready\n");
	say_lines(lines, (uint32_t)most, pause_us * 1000);
	while (!con.end && (!limit || echoed < limit)) {
		echoed += echo();
		attend();
		cpu_relax();
	}
	while (virtqueue_in_flight(&con.queues[TX]) && !con.end) {
		take_said();
		attend();
	}
	print("console: bytes=%lu\n", echoed);
	return VERDICT_PASS;
}
