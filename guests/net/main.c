/* SPDX-License-Identifier: MIT */
/*
 * net: answers frames, from ring 3, without interrupts.
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
 *   bench=no|send measure instead: see net/bench.c
 *   bytes=N depth=N seconds=N	 of a frame, default 64, to 65535; frames on
 *		  their way, default 1; for how long, default 3
 * Serial: 'q' ends; 's' prints what has been counted.
 * Verdicts: 20 a frame twice, or out of order; 21 a frame that is none; 22 a
 * command that failed; 23 a frame that was sent in a measurement is lost.
 */
#include "net/net.h"

#define NUMBER	 8U
#define FRAME_IN (FRONT + NUMBER)

#define POLL_NS 1000000UL

static const uint8_t address[4] = { 10, 0, 0, 7 };

static struct {
	struct nic nic;
	uint64_t last; /* number that came */
	uint64_t frames, others, announces;
} net;

static void show(const char *what)
{
	print("%s frames=%lu others=%lu last=%lu announces=%lu\n", what,
	      net.frames, net.others, net.last, net.announces);
}

/* RFC 5227, section 2.3. */
static void claim(void)
{
	static const uint8_t front[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
	uint8_t *at = nic_frame(&net.nic);

	memset(at, 0, 60);
	memset(at, 0xff, 6);
	memcpy(at + 6, net.nic.mac, 6);
	memcpy(at + 12, front, sizeof(front));
	memcpy(at + 22, net.nic.mac, 6);
	memcpy(at + 28, address, 4);
	memcpy(at + 38, address, 4);
	nic_send(&net.nic, 60);
	net.announces++;
}

static void answer(const uint8_t *frame, uint32_t len)
{
	uint8_t *back = nic_frame(&net.nic);

	memcpy(back, frame, len);
	memcpy(back, frame + 6, 6);
	memcpy(back + 6, net.nic.mac, 6);
	nic_send(&net.nic, len);
}

static void receive(const uint8_t *frame, uint32_t len)
{
	uint64_t number;

	if (len < FRAME_IN || memcmp(frame, net.nic.mac, 6) ||
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
	const uint8_t *frame = nic_receive(&net.nic, &len);

	if (frame)
		receive(frame, len);
	return frame;
}

/* ---- the whole ---- */

/* Return: false on 'q'. */
static bool attend(void)
{
	static uint64_t next;
	uint64_t now = rdtsc();
	int c;

	if (now < next)
		return true;
	next = now + clock_ns_tsc(POLL_NS);
	if (nic_announce_wanted(&net.nic)) {
		claim();
		nic_announced(&net.nic);
		print("announced\n");
	}
	c = serial_poll();
	if (c == 's')
		show("stats");
	return c != 'q';
}

/* Large frames come in many buffers: so many fit into the queue. */
static unsigned int depth_max(uint32_t bytes)
{
	return bytes > NET_PLAIN ? NIC_BUFFERS / NIC_PARTS : NIC_BUFFERS / 2;
}

static unsigned int measure(const struct net_options *options)
{
	if (options->bytes < FRAME_IN || !options->depth ||
	    options->depth > depth_max(options->bytes))
		guest_fail(VERDICT_USAGE, "bytes=%u depth=%u: not possible\n",
			   options->bytes, options->depth);
	if (options->bytes > NET_PLAIN)
		nic_start_large(&net.nic);
	else
		nic_start(&net.nic, 0, NIC_BUFFERS);
	net_bench(&net.nic, options);
	return VERDICT_PASS;
}

unsigned int guest_main(void)
{
	static const char *const yes_no[] = { "yes", "no", NULL };
	static const char *const benches[] = { "no", "send", NULL };
	struct net_options options = {
		.bytes = (uint32_t)option_number("bytes", 64, NIC_LARGE),
		.depth = (unsigned int)option_number("depth", 1, NIC_BUFFERS),
		.seconds = option_number("seconds", 3, 1000000),
	};
	bool bench = option_choice("bench", benches);
	uint64_t limit = option_number("frames", 0, UINT64_MAX);
	uint64_t size = option_number("size", NIC_BUFFERS, NIC_BUFFERS);
	bool merge = option_choice("merge", yes_no) == 0;

	option_end();
	if (bench)
		return measure(&options);
	nic_start(&net.nic, merge ? 0 : NIC_MERGE, (uint16_t)size);
	claim();
	print("ready\n");
	while (attend() && (!limit || net.frames < limit)) {
		if (!receive_some())
			cpu_relax();
	}
	show("net:");
	return VERDICT_PASS;
}
