/* SPDX-License-Identifier: MIT */
/*
 * Noise that looks like frames of a guest: bytes from anywhere, made to look
 * right on the outside (types, versions, lengths, checksums), so that whoever
 * takes them looks inside.
 *
 * Formats: RFC 826 (ARP), RFC 791 and 8200 (IP), RFC 9293, 768 and 792.
 */
#ifndef GODWIT_TESTS_NOISE_H
#define GODWIT_TESTS_NOISE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NOISE_ETHERNET 14
#define NOISE_IP4      20
#define NOISE_IP6      40
#define NOISE_MIN      (NOISE_ETHERNET + NOISE_IP6 + 20)

enum noise_kind {
	NOISE_RAW,
	NOISE_ARP,
	NOISE_IP4_TCP,
	NOISE_IP4_UDP,
	NOISE_IP4_ICMP,
	NOISE_IP4_OTHER,
	NOISE_IP6_TCP,
	NOISE_IP6_UDP,
	NOISE_IP6_ICMP,
	NOISE_KINDS,
};

static void noise_put16(uint8_t *at, unsigned int value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* RFC 1071; @sum: of what was summed up before. */
static uint32_t noise_sum(uint32_t sum, const uint8_t *at, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	if (len % 2)
		sum += (uint32_t)at[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* @addresses: with those the checksum of @protocol begins. */
static void noise_transport(uint8_t *at, size_t len, unsigned int protocol,
			    const uint8_t *addresses, size_t naddresses)
{
	size_t sum_at = protocol == IPPROTO_TCP	  ? 16
			: protocol == IPPROTO_UDP ? 6
						  : 2;
	uint32_t sum = 0;

	if (protocol == IPPROTO_UDP)
		noise_put16(at + 4, (unsigned int)len);
	if (protocol != IPPROTO_ICMP)
		sum = noise_sum(protocol + (uint32_t)len, addresses,
				naddresses);
	noise_put16(at + sum_at, 0);
	noise_put16(at + sum_at, ~noise_sum(sum, at, len) & 0xffff);
}

/* The guest's, as DHCP gives it; who it speaks to follows from what is there.
 */
static void noise_addresses4(uint8_t *at)
{
	static const uint8_t guest[] = { 10, 0, 2, 15 };
	static const uint8_t others[][4] = {
		{ 10, 0, 2, 2 }, { 10, 0, 2, 3 },    { 255, 255, 255, 255 },
		{ 10, 0, 2, 2 }, { 127, 0, 0, 1 },   { 224, 0, 0, 1 },
		{ 10, 0, 2, 2 }, { 203, 0, 113, 1 },
	};

	memcpy(at + 4, others[at[4] % 8], 4);
	memcpy(at, guest, sizeof(guest));
}

static void noise_ip4(uint8_t *ip, size_t len, unsigned int protocol)
{
	bool whole = protocol != IPPROTO_RAW;

	ip[0] = 0x45;
	noise_put16(ip + 2, (unsigned int)len);
	if (whole)
		ip[9] = (uint8_t)protocol;
	noise_put16(ip + 6, 0);
	ip[8] |= 1;
	noise_addresses4(ip + 12);
	noise_put16(ip + 10, 0);
	noise_put16(ip + 10, ~noise_sum(0, ip, NOISE_IP4) & 0xffff);
	if (whole)
		noise_transport(ip + NOISE_IP4, len - NOISE_IP4, protocol,
				ip + 12, 8);
}

static void noise_ip6(uint8_t *ip, size_t len, unsigned int protocol)
{
	static const uint8_t prefix[8] = { 0xfe, 0xc0 };

	ip[0] = 0x60;
	noise_put16(ip + 4, (unsigned int)(len - NOISE_IP6));
	ip[6] = (uint8_t)protocol;
	ip[7] = 255;
	memcpy(ip + 8, prefix, sizeof(prefix));
	if (ip[24] % 4) {
		memcpy(ip + 24, prefix, sizeof(prefix));
		memset(ip + 32, 0, 7);
		ip[39] = (uint8_t)(2 + ip[39] % 2);
	}
	noise_transport(ip + NOISE_IP6, len - NOISE_IP6, protocol, ip + 8, 32);
}

static void noise_arp(uint8_t *arp)
{
	static const uint8_t front[] = { 0, 1, 8, 0, 6, 4, 0 };

	memcpy(arp, front, sizeof(front));
	arp[7] = (uint8_t)(1 + arp[7] % 2);
	noise_addresses4(arp + 24 - 4);
	memcpy(arp + 14, arp + 20, 4);
}

/*
 * No fragments: libslirp 4.7.0 falls over some, which are none of ours. Then
 * the process is gone, and the guest's link with it, which is what it is for.
 */
static void noise_mend(uint8_t *frame)
{
	if (frame[12] == 8 && !frame[13])
		noise_put16(frame + NOISE_ETHERNET + 6, 0);
}

/**
 * noise_dress() - make a frame of @kind of bytes that may be any.
 * @len: NOISE_MIN at least, and no more than 65535 and an Ethernet header.
 */
static void noise_dress(uint8_t *frame, size_t len, enum noise_kind kind)
{
	static const uint8_t protocols[NOISE_KINDS] = {
		[NOISE_IP4_TCP] = IPPROTO_TCP,
		[NOISE_IP4_UDP] = IPPROTO_UDP,
		[NOISE_IP4_ICMP] = IPPROTO_ICMP,
		[NOISE_IP4_OTHER] = IPPROTO_RAW,
		[NOISE_IP6_TCP] = IPPROTO_TCP,
		[NOISE_IP6_UDP] = IPPROTO_UDP,
		[NOISE_IP6_ICMP] = IPPROTO_ICMPV6,
	};
	uint8_t *inside = frame + NOISE_ETHERNET;

	if (kind == NOISE_RAW) {
		noise_mend(frame);
		return;
	}
	frame[6] = 2;
	noise_put16(frame + 12, kind == NOISE_ARP	? 0x0806
				: kind >= NOISE_IP6_TCP ? 0x86dd
							: 0x0800);
	if (kind == NOISE_ARP)
		noise_arp(inside);
	else if (kind >= NOISE_IP6_TCP)
		noise_ip6(inside, len - NOISE_ETHERNET, protocols[kind]);
	else
		noise_ip4(inside, len - NOISE_ETHERNET, protocols[kind]);
}

#endif
