/* SPDX-License-Identifier: MIT */
/*
 * inet: a host of the Internet, as small as can be, from ring 3, polling. Gets
 * its address by DHCP; sends back what comes by TCP, on any port, and by UDP.
 *
 * Options:
 *   connect=PORT connects there, at its gateway, and says hello; 0 (default):
 *                doesn't
 * Serial: 'd' asks for an address anew; 't' sends a byte on each connection;
 * 'f' floods its gateway with datagrams, or stops doing so; 's' prints what has
 * been counted; 'q' ends.
 */
#include "inet/inet.h"

#define POLL_NS	      1000000UL
#define FLOOD_PORT    9U /* where nobody listens: discard */
#define FLOOD_BYTES   1000U
#define FLOOD_AT_ONCE 64U

static struct inet inet;
static bool flooding;

static void flood(void)
{
	for (unsigned int i = 0; i < FLOOD_AT_ONCE && nic_room(&inet.nic);
	     i++) {
		uint8_t *frame = ip_begin(&inet, IP_UDP, inet.gateway);

		memset(frame + UDP_DATA, '.', FLOOD_BYTES);
		udp_send(&inet, FLOOD_PORT, FLOOD_PORT, FLOOD_BYTES);
		inet.flooded++;
	}
}

static void watch_link(void)
{
	static bool was = true;
	bool is = nic_link(&inet.nic);

	if (is != was)
		print("link %s\n", is ? "up" : "down");
	was = is;
}

static void show(const char *what)
{
	print("%s resets=%lu flooded=%lu\n", what, inet.resets, inet.flooded);
}

/* Return: false on 'q'. */
static bool obey(int c)
{
	switch (c) {
	case 'd':
		dhcp_begin(&inet);
		break;
	case 't':
		print("said on %u\n", tcp_say(&inet));
		break;
	case 'f':
		flooding = !flooding;
		print("flood %s\n", flooding ? "begins" : "ends");
		break;
	case 's':
		show("stats");
		break;
	default:
		break;
	}
	return c != 'q';
}

static bool attend(void)
{
	static uint64_t next;
	uint64_t now = rdtsc();

	if (now < next)
		return true;
	next = now + clock_ns_tsc(POLL_NS);
	watch_link();
	if (nic_announce_wanted(&inet.nic)) {
		arp_claim(&inet);
		nic_announced(&inet.nic);
		print("announced\n");
	}
	return obey(serial_poll());
}

unsigned int guest_main(void)
{
	unsigned int port =
		(unsigned int)option_number("connect", 0, UINT16_MAX);
	const uint8_t *frame;
	uint32_t len;

	option_end();
	nic_start(&inet.nic, 0, NIC_BUFFERS);
	dhcp_begin(&inet);
	while (attend()) {
		frame = nic_receive(&inet.nic, &len);
		if (frame)
			ip_receive(&inet, frame, len);
		else
			cpu_relax();
		if (port && inet.address[0]) {
			tcp_connect(&inet, port);
			port = 0;
		}
		if (flooding && inet.address[0])
			flood();
	}
	show("inet:");
	return VERDICT_PASS;
}
