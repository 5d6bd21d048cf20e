/* SPDX-License-Identifier: MIT */
/*
 * Frames of the guest inet: Ethernet, ARP (RFC 826), IPv4 without options and
 * fragments (RFC 791), UDP without checksums (RFC 768), which comes back as it
 * was sent.
 */
#include "inet/inet.h"

#define TYPE_IP	 0x0800U
#define TYPE_ARP 0x0806U

#define ARP_BYTES   28U
#define ARP_REQUEST 1U
#define ARP_REPLY   2U

#define FRAME_MIN 60U

static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static uint32_t sum(uint32_t begun, const uint8_t *at, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		begun += (uint32_t)at[i] << (i & 1 ? 0 : 8);
	return begun;
}

static unsigned int fold(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total & 0xffff;
}

/* ---- sending ---- */

uint8_t *ip_begin(struct inet *inet, unsigned int protocol, const uint8_t to[4])
{
	uint8_t *frame = nic_frame(&inet->nic);
	uint8_t *ip = frame + ETHERNET;

	memset(frame, 0, UDP_DATA);
	memcpy(frame, memcmp(to, everybody, 4) ? inet->peer : everybody, 6);
	memcpy(frame + 6, inet->nic.mac, 6);
	put16(frame + 12, TYPE_IP);
	ip[0] = 0x45;
	ip[8] = 64;
	ip[9] = (uint8_t)protocol;
	memcpy(ip + 12, inet->address, 4);
	memcpy(ip + 16, to, 4);
	return frame;
}

/* The checksum of TCP covers the addresses, too; RFC 9293, section 3.1. */
static void finish_tcp(uint8_t *ip, uint32_t len)
{
	uint8_t *tcp = ip + IP_BYTES;
	uint32_t total = sum(IP_TCP + len, ip + 12, 8);

	put16(tcp + 16, fold(sum(total, tcp, len)));
}

void ip_send(struct inet *inet, uint32_t len)
{
	uint8_t *frame = nic_frame(&inet->nic);
	uint8_t *ip = frame + ETHERNET;
	uint32_t whole = ETHERNET + IP_BYTES + len;

	put16(ip + 2, IP_BYTES + len);
	put16(ip + 10, fold(sum(0, ip, IP_BYTES)));
	if (ip[9] == IP_TCP)
		finish_tcp(ip, len);
	if (whole < FRAME_MIN)
		memset(frame + whole, 0, FRAME_MIN - whole);
	nic_send(&inet->nic, whole < FRAME_MIN ? FRAME_MIN : whole);
}

void udp_send(struct inet *inet, unsigned int from, unsigned int to,
	      uint32_t len)
{
	uint8_t *udp = nic_frame(&inet->nic) + UDP_AT;

	put16(udp, from);
	put16(udp + 2, to);
	put16(udp + 4, 8 + len);
	ip_send(inet, 8 + len);
}

static void send_arp(struct inet *inet, unsigned int what, const uint8_t mac[6],
		     const uint8_t address[4])
{
	static const uint8_t front[] = { 0, 1, 8, 0, 6, 4 };
	uint8_t *frame = nic_frame(&inet->nic);
	uint8_t *arp = frame + ETHERNET;

	memset(frame, 0, FRAME_MIN);
	memcpy(frame, mac, 6);
	memcpy(frame + 6, inet->nic.mac, 6);
	put16(frame + 12, TYPE_ARP);
	memcpy(arp, front, sizeof(front));
	put16(arp + 6, what);
	memcpy(arp + 8, inet->nic.mac, 6);
	memcpy(arp + 14, inet->address, 4);
	memcpy(arp + 18, mac, 6);
	memcpy(arp + 24, address, 4);
	nic_send(&inet->nic, FRAME_MIN);
}

void arp_claim(struct inet *inet)
{
	send_arp(inet, ARP_REQUEST, everybody, inet->address);
}

/* ---- receiving ---- */

static void receive_arp(struct inet *inet, const uint8_t *arp, uint32_t len)
{
	if (len >= ARP_BYTES && get16(arp + 6) == ARP_REQUEST &&
	    inet->address[0] && !memcmp(arp + 24, inet->address, 4))
		send_arp(inet, ARP_REPLY, arp + 8, arp + 14);
}

static void receive_udp(struct inet *inet, const uint8_t *frame, uint32_t len)
{
	const uint8_t *udp = frame + UDP_AT;
	uint32_t data = len - 8;
	uint8_t *back;

	if (get16(udp + 2) == DHCP_CLIENT) {
		dhcp_receive(inet, frame, udp + 8, data);
		return;
	}
	back = ip_begin(inet, IP_UDP, frame + ETHERNET + 12);
	memcpy(back + UDP_DATA, udp + 8, data);
	udp_send(inet, get16(udp + 2), get16(udp), data);
}

void ip_receive(struct inet *inet, const uint8_t *frame, uint32_t len)
{
	const uint8_t *ip = frame + ETHERNET;
	uint32_t whole;

	if (len < ETHERNET + IP_BYTES)
		return;
	if (get16(frame + 12) == TYPE_ARP)
		receive_arp(inet, ip, len - ETHERNET);
	whole = get16(ip + 2);
	if (get16(frame + 12) != TYPE_IP || ip[0] != 0x45 ||
	    whole < IP_BYTES + 8 || whole > len - ETHERNET)
		return;
	if (ip[9] == IP_UDP)
		receive_udp(inet, frame, whole - IP_BYTES);
	else if (ip[9] == IP_TCP && !memcmp(ip + 16, inet->address, 4))
		tcp_receive(inet, ip + 12, ip + IP_BYTES, whole - IP_BYTES);
}
