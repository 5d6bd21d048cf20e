/* SPDX-License-Identifier: MIT */
/*
 * Points about a network card. What the network does at each is said there,
 * and done by whoever has the guest lifted; "asked": as the guest says "ask".
 *
 * Frames are of an Ethernet type for experiments, numbered, and what is in one
 * follows from its number. Of a span of them the last one has LAST in it. One
 * with UNWANTED is for somebody else.
 */
#include "unit.h"

#define NET_ID 1U

#define NET_F_MAC	     (1UL << 5)
#define NET_F_MERGE	     (1UL << 15)
#define NET_F_STATUS	     (1UL << 16)
#define NET_F_CTRL_VQ	     (1UL << 17)
#define NET_F_CTRL_RX	     (1UL << 18)
#define NET_F_CTRL_VLAN	     (1UL << 19)
#define NET_F_GUEST_ANNOUNCE (1UL << 21)
#define NET_F_CTRL_MAC_ADDR  (1UL << 23)

#define FEATURES (NET_F_MAC | NET_F_STATUS | NET_F_CTRL_VQ)

#define NET_S_ANNOUNCE 2U

/* Classes of commands; section 5.1.6.5. */
#define CTRL_RX	      0U
#define CTRL_MAC      1U
#define CTRL_VLAN     2U
#define CTRL_ANNOUNCE 3U

#define HEADER	  12U
#define FRONT	  14U /* of a frame */
#define NUMBER	  8U
#define FRAME_MIN 60U
#define FRAME_MAX 1514U

#define LAST	 (1UL << 63)
#define UNWANTED (1UL << 62)

#define BUFFER	2048U
#define PART	256U /* a small one */
#define BUFFERS UNIT_QUEUE_SIZE
#define SENT	8U /* frames, where some are */

enum {
	RX,
	TX,
	CONTROL,
	QUEUES
};

struct header {
	uint8_t unused[10];
	uint16_t num_buffers;
};

struct config {
	uint8_t mac[6];
	uint16_t status;
	uint16_t pairs;
	uint16_t mtu;
};

struct command {
	uint8_t class;
	uint8_t number;
	uint8_t data[32];
	uint8_t answer;
};

static struct {
	struct unit unit;
	volatile struct config *config;
	uint8_t (*buffers)[BUFFER];
	uint8_t *of[BUFFERS]; /* a receiving head's */
	uint32_t size;	      /* of a buffer */
	uint8_t (*frames)[HEADER + FRAME_MAX];
	struct command *command;
	uint8_t heard[HEADER + FRAME_MAX];
} card;

static bool card_up(uint64_t features, uint32_t size)
{
	if (!unit_up(&card.unit, NET_ID, FEATURES | features, QUEUES))
		return false;
	card.config = card.unit.v.config;
	card.size = size;
	if (!card.buffers) {
		card.buffers = mem_alloc(BUFFERS * BUFFER, PAGE_SIZE);
		card.frames = mem_alloc(SENT * sizeof(*card.frames), PAGE_SIZE);
		card.command = mem_alloc(sizeof(*card.command), PAGE_SIZE);
	}
	return true;
}

static void card_down(void)
{
	virtio_reset(&card.unit.v);
}

/* ---- frames ---- */

static size_t size_of(uint64_t number)
{
	return FRAME_MIN + number * 97 % (FRAME_MAX - FRAME_MIN + 1);
}

/* What is behind a frame's front. */
static uint8_t byte_of(uint64_t number, size_t at)
{
	if (at < FRONT + NUMBER)
		return (uint8_t)(number >> (at - FRONT) * 8);
	return (uint8_t)(number + at);
}

/* Buffers @first to @end. */
static void offer(unsigned int first, unsigned int end)
{
	for (unsigned int i = first; i < end; i++)
		card.of[unit_give(&card.unit, RX, card.buffers[i], card.size,
				  true)] = card.buffers[i];
}

/* Of the frame that came; 0: none has. */
static uint32_t take_frame(void)
{
	uint32_t total = 0, len;
	unsigned int n = 1;

	for (unsigned int i = 0; i < n; i++) {
		int head = unit_take(&card.unit, RX, &len);

		if (head < 0)
			return 0;
		if (len > card.size || total + len > sizeof(card.heard))
			guest_fail(VERDICT_DEVICE, "%u and %u bytes\n", total,
				   len);
		memcpy(card.heard + total, card.of[head], len);
		total += len;
		if (!i)
			n = ((struct header *)card.heard)->num_buffers;
	}
	return total;
}

/*
 * Frames until the last one, whole and in order.
 *
 * Return: how many.
 */
static unsigned int hear(void)
{
	uint64_t number = 0, before = 0;
	unsigned int n = 0;

	while (!(number & LAST)) {
		uint32_t len = take_frame();

		if (!len)
			return n;
		memcpy(&number, card.heard + HEADER + FRONT, NUMBER);
		sync_check("length", HEADER + size_of(number), len);
		for (size_t i = FRONT; i < len - HEADER; i++)
			if (card.heard[HEADER + i] != byte_of(number, i))
				sync_check("a byte of frame", number, i);
		sync_check("frame for somebody else", 0, number & UNWANTED);
		sync_check("after the one before", 1, number > before);
		before = number;
		n++;
	}
	return n;
}

/* To be sent, 1 to SENT. */
static void add_frames(void)
{
	static const uint8_t front[FRONT] = { 2, 0, 0, 0, 0, 1,	   2,
					      0, 0, 0, 0, 7, 0x88, 0xb5 };

	for (unsigned int n = 1; n <= SENT; n++) {
		uint8_t *at = card.frames[n - 1];

		memset(at, 0, HEADER);
		memcpy(at + HEADER, front, FRONT);
		for (size_t i = FRONT; i < size_of(n); i++)
			at[HEADER + i] = byte_of(n, i);
		unit_give(&card.unit, TX, at, (uint32_t)(HEADER + size_of(n)),
			  false);
	}
}

/* ---- commands ---- */

static void give_command(unsigned int class, unsigned int number,
			 const void *data, uint32_t len)
{
	struct command *c = card.command;
	struct virtqueue_buffer buf[2] = { { c, 2 + len }, { &c->answer, 1 } };

	c->class = (uint8_t) class;
	c->number = (uint8_t)number;
	c->answer = 0xff;
	memcpy(c->data, data, len);
	if (virtqueue_add(&card.unit.queues[CONTROL], buf, 1, 1) < 0)
		guest_fail(VERDICT_INTERNAL, "no room for a command\n");
}

static void end_command(void)
{
	unit_settle(&card.unit, CONTROL);
	sync_check("answer", 0, card.command->answer);
}

static void command(unsigned int class, unsigned int number, const void *data,
		    uint32_t len)
{
	give_command(class, number, data, len);
	unit_publish(&card.unit, CONTROL, true);
	end_command();
}

/* ---- points ---- */

void point_card_config(void)
{
	uint8_t before[sizeof(struct config)];

	if (!card_up(NET_F_GUEST_ANNOUNCE, BUFFER))
		return;
	for (size_t i = 0; i < sizeof(before); i++)
		before[i] = ((volatile uint8_t *)card.config)[i];
	sync_wait();
	for (size_t i = 0; i < sizeof(before); i++)
		sync_check("configuration", before[i],
			   ((volatile uint8_t *)card.config)[i]);
	card_down();
}

/* All is set up, buffers too, but for DRIVER_OK. Three frames, two asked. */
void point_card_set_up(void)
{
	if (!card_up(0, BUFFER))
		return;
	offer(0, BUFFERS);
	unit_publish(&card.unit, RX, false);
	sync_wait();
	sync_check("frames before DRIVER_OK", 0,
		   card.unit.queues[RX].used->idx);
	unit_go(&card.unit, QUEUES);
	sync_ask();
	hear();
	card_down();
}

/* Eight frames, which it takes, one asked: none of them may be missing. */
void point_card_receiving(void)
{
	if (!card_up(0, BUFFER))
		return;
	offer(0, BUFFERS);
	unit_go(&card.unit, QUEUES);
	sync_wait();
	sync_ask();
	sync_check("frames", 9, hear());
	card_down();
}

/* One frame that needs more buffers than there are, two asked. */
void point_card_half_received(void)
{
	if (!card_up(NET_F_MERGE, PART))
		return;
	offer(0, 2);
	unit_go(&card.unit, QUEUES);
	sync_wait();
	sync_check("buffers of half a frame", 0,
		   card.unit.queues[RX].used->idx);
	offer(2, BUFFERS);
	unit_publish(&card.unit, RX, true);
	sync_ask();
	hear();
	card_down();
}

/* No buffer at all. Three frames, one asked. */
void point_card_starved(void)
{
	if (!card_up(0, BUFFER))
		return;
	unit_go(&card.unit, QUEUES);
	sync_wait();
	offer(0, BUFFERS);
	unit_publish(&card.unit, RX, true);
	sync_ask();
	hear();
	card_down();
}

/* Frames to be sent, each of which has to arrive, once. */
static void send(bool ring)
{
	if (!card_up(0, BUFFER))
		return;
	unit_go(&card.unit, QUEUES);
	add_frames();
	unit_publish(&card.unit, TX, ring);
	sync_wait();
	if (!ring)
		unit_publish(&card.unit, TX, true);
	unit_settle(&card.unit, TX);
	sync_check("answers", SENT, card.unit.queues[TX].used->idx);
	sync_ask();
	card_down();
}

void point_card_sending(void)
{
	send(true);
}

void point_card_not_rung(void)
{
	send(false);
}

/*
 * Who it is, and what else it hears, was commanded. Asked: frames to all that
 * it hears, and to others.
 */
void point_card_filtering(void)
{
	static const uint8_t off = 0;
	static const uint8_t mac[] = { 2, 0, 0, 0, 0, 8 };
	static const uint8_t table[] = { 1, 0, 0, 0, 2,	   0, 0, 0, 0, 9,
					 1, 0, 0, 0, 0x33, 0, 0, 0, 0, 1 };
	static const uint16_t vlan = 100;
	uint8_t before[6];

	if (!card_up(NET_F_CTRL_RX | NET_F_CTRL_VLAN | NET_F_CTRL_MAC_ADDR,
		     BUFFER))
		return;
	for (size_t i = 0; i < sizeof(before); i++)
		before[i] = card.config->mac[i];
	offer(0, BUFFERS);
	unit_go(&card.unit, QUEUES);
	command(CTRL_RX, 0, &off, 1);
	command(CTRL_MAC, 1, mac, sizeof(mac));
	command(CTRL_MAC, 0, table, sizeof(table));
	command(CTRL_VLAN, 0, &vlan, sizeof(vlan));
	sync_wait();
	for (size_t i = 0; i < sizeof(mac); i++)
		sync_check("address", mac[i], card.config->mac[i]);
	sync_ask();
	sync_check("frames", 5, hear());
	command(CTRL_MAC, 1, before, sizeof(before));
	card_down();
}

/* A command that was given, and nobody was told. */
void point_card_commanded(void)
{
	static const uint8_t off = 0;

	if (!card_up(NET_F_CTRL_RX, BUFFER))
		return;
	offer(0, BUFFERS);
	unit_go(&card.unit, QUEUES);
	give_command(CTRL_RX, 0, &off, 1);
	unit_publish(&card.unit, CONTROL, false);
	sync_wait();
	unit_publish(&card.unit, CONTROL, true);
	end_command();
	sync_ask();
	sync_check("frames", 1, hear());
	card_down();
}

static bool announce_wanted(void)
{
	return card.config->status & NET_S_ANNOUNCE;
}

/* After a move the guest is wanted to announce itself; it leaves that. */
void point_card_announce(void)
{
	if (!card_up(NET_F_GUEST_ANNOUNCE, BUFFER))
		return;
	unit_go(&card.unit, QUEUES);
	sync_wait();
}

/* It is wanted again with each of the host's own announcements, a few. */
static bool has_announced(void)
{
	if (announce_wanted())
		command(CTRL_ANNOUNCE, 0, NULL, 0);
	return !announce_wanted();
}

/* And here it is, and it does. */
void point_card_announce_wanted(void)
{
	if (!card.config || !announce_wanted()) {
		sync_skip("nobody has moved it");
		return;
	}
	sync_wait();
	sync_check("an announcement is wanted", 1, announce_wanted());
	unit_await("it is not any more", has_announced);
	card_down();
}
