/* SPDX-License-Identifier: MIT */
/*
 * net: answers frames by its own driver, from ring 3, without interrupts.
 *
 * A frame of Ethernet type 0x88b5 (IEEE 802, for experiments) that is for us
 * begins with a number, of 8 bytes, that is higher than in the frame before:
 * one that comes twice, or late, ends the guest. It is sent back to whom it is
 * from. All else is passed over, and counted.
 *
 * The guest claims ADDRESS by a gratuitous ARP when it begins, and again when
 * the device asks for that; then it says so to the device.
 *
 * Options:
 *   frames=N     end by itself after N; 0 (default): only on 'q'
 *   merge=yes|no MRG_RXBUF
 *   size=N       of a queue, default 256
 * Serial: 'q' ends; 's' prints what has been counted.
 * Verdicts: 20 a frame twice, or out of order; 21 a frame that is none; 22 a
 * command that failed.
 */
#include "lib/guest.h"
#include "lib/virtio.h"

#define NET_ID 1U

#define NET_F_MAC	     (1UL << 5)
#define NET_F_MRG_RXBUF	     (1UL << 15)
#define NET_F_STATUS	     (1UL << 16)
#define NET_F_CTRL_VQ	     (1UL << 17)
#define NET_F_GUEST_ANNOUNCE (1UL << 21)

#define NET_S_ANNOUNCE 2U

#define CTRL_ANNOUNCE	  3U
#define CTRL_ANNOUNCE_ACK 0U

#define VERDICT_ORDER	20
#define VERDICT_FRAME	21
#define VERDICT_COMMAND 22

#define HEADER	 12U
#define BUFFER	 2048U
#define BUFFERS	 256U
#define FRONT	 14U /* of a frame */
#define NUMBER	 8U
#define FRAME_IN (FRONT + NUMBER)

#define TYPE_HIGH 0x88U
#define TYPE_LOW  0xb5U

#define POLL_NS 1000000UL

enum {
	RX,
	TX,
	CONTROL
};

struct config {
	uint8_t mac[6];
	uint16_t status;
};

static const uint8_t address[4] = { 10, 0, 0, 7 };

static struct {
	struct virtio v;
	volatile struct config *config;
	uint8_t mac[6];
	struct virtqueue queues[3];
	uint8_t *rx; /* BUFFERS of BUFFER each */
	uint8_t *tx; /* likewise, by head */
	uint8_t *command;
	uint8_t *of[BUFFERS]; /* a receiving head's buffer */
	uint64_t last;	      /* number that came */
	uint64_t frames, others, announces;
} net;

static void show(const char *what)
{
	print("%s frames=%lu others=%lu last=%lu announces=%lu\n", what,
	      net.frames, net.others, net.last, net.announces);
}

/* ---- sending ---- */

static void take_sent(void)
{
	uint32_t len;

	while (virtqueue_take(&net.queues[TX], &len) >= 0)
		;
}

/* A buffer for the next frame; its header is zero. */
static uint8_t *next_frame(void)
{
	struct virtqueue *q = &net.queues[TX];

	while (virtqueue_in_flight(q) >= q->size)
		take_sent();
	return net.tx + (q->added % q->size) * BUFFER;
}

static void send_frame(uint8_t *frame, uint32_t len)
{
	struct virtqueue_buffer buf = { frame, HEADER + len };

	memset(frame, 0, HEADER);
	if (virtqueue_add(&net.queues[TX], &buf, 1, 0) < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to send from\n");
	virtqueue_kick(&net.queues[TX]);
	take_sent();
}

/* RFC 5227, section 2.3. */
static void claim(void)
{
	static const uint8_t front[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
	uint8_t *frame = next_frame();
	uint8_t *at = frame + HEADER;

	memset(at, 0, 60);
	memset(at, 0xff, 6);
	memcpy(at + 6, net.mac, 6);
	memcpy(at + 12, front, sizeof(front));
	memcpy(at + 22, net.mac, 6);
	memcpy(at + 28, address, 4);
	memcpy(at + 38, address, 4);
	send_frame(frame, 60);
	net.announces++;
}

static void acknowledge(void)
{
	struct virtqueue_buffer buf[2] = { { net.command, 2 },
					   { net.command + 2, 1 } };
	uint32_t len;

	net.command[0] = CTRL_ANNOUNCE;
	net.command[1] = CTRL_ANNOUNCE_ACK;
	net.command[2] = 0xff;
	virtqueue_add(&net.queues[CONTROL], buf, 1, 1);
	virtqueue_kick(&net.queues[CONTROL]);
	while (virtqueue_take(&net.queues[CONTROL], &len) < 0)
		cpu_relax();
	if (net.command[2])
		guest_fail(VERDICT_COMMAND, "announced, and the answer is %u\n",
			   net.command[2]);
	print("announced\n");
}

/* ---- receiving ---- */

static void offer(uint8_t *buffer)
{
	struct virtqueue_buffer buf = { buffer, BUFFER };
	int head = virtqueue_add(&net.queues[RX], &buf, 0, 1);

	if (head < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to receive into\n");
	net.of[head] = buffer;
}

static void answer(const uint8_t *frame, uint32_t len)
{
	uint8_t *back = next_frame();

	memcpy(back + HEADER, frame, len);
	memcpy(back + HEADER, frame + 6, 6);
	memcpy(back + HEADER + 6, net.mac, 6);
	send_frame(back, len);
}

static void receive(const uint8_t *frame, uint32_t len)
{
	uint64_t number;

	if (len < FRAME_IN || memcmp(frame, net.mac, 6) ||
	    frame[12] != TYPE_HIGH || frame[13] != TYPE_LOW) {
		net.others++;
		return;
	}
	memcpy(&number, frame + FRONT, NUMBER);
	if (number <= net.last)
		guest_fail(VERDICT_ORDER, "frame %lu came after %lu\n", number,
			   net.last);
	net.last = number;
	net.frames++;
	answer(frame, len);
}

/* Return: whether there was any. */
static bool receive_some(void)
{
	uint32_t len;
	int head = virtqueue_take(&net.queues[RX], &len);
	uint8_t *buffer;
	uint16_t buffers;

	if (head < 0)
		return false;
	buffer = net.of[head];
	memcpy(&buffers, buffer + 10, sizeof(buffers));
	if (len < HEADER + FRONT || len > BUFFER || buffers != 1)
		guest_fail(VERDICT_FRAME, "%u bytes in %u buffers\n", len,
			   buffers);
	receive(buffer + HEADER, len - HEADER);
	offer(buffer);
	virtqueue_kick(&net.queues[RX]);
	return true;
}

/* ---- the whole ---- */

static void start(uint64_t without, uint16_t size)
{
	uint64_t wanted = NET_F_MAC | NET_F_MRG_RXBUF | NET_F_STATUS |
			  NET_F_CTRL_VQ | NET_F_GUEST_ANNOUNCE |
			  VIRTIO_F_EVENT_IDX;

	if (!virtio_find(NET_ID, 0, &net.v))
		guest_fail(VERDICT_MACHINE, "there is no network card\n");
	net.config = net.v.config;
	virtio_negotiate(&net.v, wanted & ~without);
	for (uint16_t i = RX; i <= CONTROL; i++) {
		virtqueue_setup(&net.queues[i], &net.v, i, size,
				VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&net.queues[i], false);
	}
	for (unsigned int i = 0; i < sizeof(net.mac); i++)
		net.mac[i] = net.config->mac[i];
	net.rx = mem_alloc((size_t)BUFFERS * BUFFER, 4096);
	net.tx = mem_alloc((size_t)BUFFERS * BUFFER, 4096);
	net.command = mem_alloc(64, 64);
	for (unsigned int i = 0; i < net.queues[RX].size; i++)
		offer(net.rx + i * BUFFER);
	virtio_status(&net.v, VIRTIO_DRIVER_OK);
	virtqueue_kick(&net.queues[RX]);
}

/* Return: false on 'q'. */
static bool attend(void)
{
	static uint64_t next;
	uint64_t now = rdtsc();
	int c;

	if (now < next)
		return true;
	next = now + clock_ns_tsc(POLL_NS);
	if (net.config->status & NET_S_ANNOUNCE) {
		claim();
		acknowledge();
	}
	c = serial_poll();
	if (c == 's')
		show("stats");
	return c != 'q';
}

unsigned int guest_main(void)
{
	static const char *const yes_no[] = { "yes", "no", NULL };
	uint64_t limit = option_number("frames", 0, UINT64_MAX);
	uint64_t size = option_number("size", BUFFERS, BUFFERS);
	bool merge = option_choice("merge", yes_no) == 0;

	option_end();
	start(merge ? 0 : NET_F_MRG_RXBUF, (uint16_t)size);
	claim();
	print("ready\n");
	while (attend() && (!limit || net.frames < limit)) {
		if (!receive_some())
			cpu_relax();
	}
	show("net:");
	return VERDICT_PASS;
}
