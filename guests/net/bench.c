/* SPDX-License-Identifier: MIT */
/*
 * How long frames take that the network sends back to where they are from: each
 * from the moment before it is put into the ring to the moment after it is
 * taken out, by the TSC, in ring 3. Each carries that first moment.
 *
 * Those of up to 1514 bytes are plain. Longer ones are what a driver sends when
 * the device can cut TCP, and they come back whole: neither the tap nor a
 * bridge has any need to cut them.
 */
#include "latency.h"
#include "net/net.h"

#define STAMP	   8U
#define LARGE_SIZE 54U /* the headers of Ethernet, IPv4 and TCP */

#define WARM_NS	 (NS_PER_S / 5)
#define PROBE_NS (NS_PER_S / 10)
#define PROBES	 100U
#define LOST_NS	 (2 * NS_PER_S)

static struct {
	struct nic *nic;
	uint32_t bytes;
	uint8_t front[LARGE_SIZE];
	uint32_t front_size;
	struct latency latency;
} bench;

/* RFC 791, section 3.1; RFC 9293, section 3.1. */
static void make_front(void)
{
	static const uint8_t ip[] = { 0x45, 0, 0,  0, 0, 0, 0x40, 0, 64, 6,
				      0,    0, 10, 0, 0, 7, 10,	  0, 0,	 7 };
	uint32_t sum = 0;
	uint8_t *at = bench.front;

	memcpy(at, bench.nic->mac, 6);
	memcpy(at + 6, bench.nic->mac, 6);
	at[12] = TYPE_HIGH;
	at[13] = TYPE_LOW;
	bench.front_size = FRONT;
	if (bench.bytes <= NET_PLAIN)
		return;
	bench.front_size = LARGE_SIZE;
	at[12] = 8;
	at[13] = 0;
	at += FRONT;
	memcpy(at, ip, sizeof(ip));
	at[2] = (uint8_t)((bench.bytes - FRONT) >> 8);
	at[3] = (uint8_t)(bench.bytes - FRONT);
	for (unsigned int i = 0; i < sizeof(ip); i += 2)
		sum += (uint32_t)(at[i] << 8 | at[i + 1]);
	sum = ~((sum & 0xffff) + (sum >> 16));
	at[10] = (uint8_t)(sum >> 8);
	at[11] = (uint8_t)sum;
	at[sizeof(ip) + 12] = 5 << 4; /* words of TCP's header */
	at[sizeof(ip) + 13] = 0x10;   /* ACK */
}

static void send(void)
{
	uint8_t *frame = nic_frame(bench.nic);
	uint64_t now = rdtsc();

	memcpy(frame, bench.front, bench.front_size);
	memcpy(frame + bench.front_size, &now, STAMP);
	nic_send(bench.nic, bench.bytes);
}

/* Return: when the frame that has come was sent; 0: none has, of ours. */
static uint64_t receive(void)
{
	uint32_t len;
	const uint8_t *frame = nic_receive(bench.nic, &len);
	uint64_t sent;

	if (!frame || len < FRONT || memcmp(frame, bench.front, FRONT))
		return 0;
	if (len != bench.bytes)
		guest_fail(NIC_VERDICT_FRAME,
			   "a frame of %u bytes has come back as %u\n",
			   bench.bytes, len);
	memcpy(&sent, frame + bench.front_size, STAMP);
	return sent;
}

/* A network takes a moment to notice that a card has a driver. */
static void wait_for_network(void)
{
	for (unsigned int i = 0; i < PROBES; i++) {
		uint64_t start = rdtsc();

		send();
		while (rdtsc() - start < clock_ns_tsc(PROBE_NS)) {
			if (receive() >= start)
				return;
			cpu_relax();
		}
	}
	guest_fail(VERDICT_LOST, "nothing that is sent comes back\n");
}

/* As many on their way as there are; returns TSC ticks. */
static uint64_t run(unsigned int depth, uint64_t ns)
{
	uint64_t ticks = clock_ns_tsc(ns), lost = clock_ns_tsc(LOST_NS);
	uint64_t start = rdtsc(), last = start, now, sent;
	unsigned int away = depth;

	memset(&bench.latency, 0, sizeof(bench.latency));
	for (unsigned int i = 0; i < depth; i++)
		send();
	while (away) {
		sent = receive();
		now = rdtsc();
		/* A probe that was thought lost is none of these. */
		if (sent < start) {
			if (now - last > lost)
				guest_fail(VERDICT_LOST, "%u frames are lost\n",
					   away);
			cpu_relax();
			continue;
		}
		latency_add(&bench.latency, now - sent);
		last = now;
		if (now - start < ticks)
			send();
		else
			away--;
	}
	return rdtsc() - start;
}

void net_bench(struct nic *nic, const struct net_options *options)
{
	uint64_t ns;

	bench.nic = nic;
	bench.bytes = options->bytes;
	make_front();
	wait_for_network();
	print("ready\n");
	run(options->depth, WARM_NS);
	ns = clock_tsc_ns(run(options->depth, options->seconds * NS_PER_S));
	print("bench bytes=%u depth=%u frames=%lu ms=%lu per_s=%lu "
	      "median_ns=%lu p99_ns=%lu max_ns=%lu\n",
	      bench.bytes, options->depth, bench.latency.done, ns / 1000000,
	      mul_div(bench.latency.done, NS_PER_S, ns),
	      latency_quantile_ns(&bench.latency, 500),
	      latency_quantile_ns(&bench.latency, 990),
	      clock_tsc_ns(bench.latency.longest));
}
