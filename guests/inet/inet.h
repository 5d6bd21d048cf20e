/* SPDX-License-Identifier: MIT */
/*
 * The inside of the guest inet: ip.c frames and checksums, ARP and UDP; dhcp.c
 * where its address comes from; tcp.c connections; main.c the rest.
 */
#ifndef GUEST_INET_H
#define GUEST_INET_H

#include "nic.h"

#define ETHERNET 14U
#define IP_BYTES 20U
#define UDP_AT	 (ETHERNET + IP_BYTES)
#define UDP_DATA (UDP_AT + 8U)
#define TCP_AT	 UDP_AT

#define IP_TCP 6U
#define IP_UDP 17U

#define DHCP_CLIENT 68U

struct inet {
	struct nic nic;
	uint8_t address[4]; /* all zero: none yet */
	uint8_t gateway[4];
	uint8_t peer[6]; /* the way out */
	uint64_t resets;
	uint64_t flooded;
};

static inline uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static inline void put16(uint8_t *at, unsigned int value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

/* ---- ip.c ---- */

/**
 * ip_begin - the beginning of a frame; what follows goes to TCP_AT
 * @to: IPv4 address; all ones goes to everybody
 */
uint8_t *ip_begin(struct inet *inet, unsigned int protocol,
		  const uint8_t to[4]);

/**
 * ip_send - finish the frame that ip_begin() has given, and send it
 * @len: bytes behind the IP header
 */
void ip_send(struct inet *inet, uint32_t len);

/**
 * udp_send - likewise, with @len bytes at UDP_DATA
 */
void udp_send(struct inet *inet, unsigned int from, unsigned int to,
	      uint32_t len);

/**
 * ip_receive - take any frame
 */
void ip_receive(struct inet *inet, const uint8_t *frame, uint32_t len);

/**
 * arp_claim - tell everybody of our address; RFC 5227, section 2.3
 */
void arp_claim(struct inet *inet);

/* ---- dhcp.c ---- */

/**
 * dhcp_begin - ask for an address
 */
void dhcp_begin(struct inet *inet);

/**
 * dhcp_receive - @len bytes of an answer
 */
void dhcp_receive(struct inet *inet, const uint8_t *frame, const uint8_t *data,
		  uint32_t len);

/* ---- tcp.c ---- */

/**
 * tcp_connect - to a port of the gateway
 */
void tcp_connect(struct inet *inet, unsigned int port);

/**
 * tcp_receive - @len bytes that begin with a TCP header
 */
void tcp_receive(struct inet *inet, const uint8_t from[4], const uint8_t *data,
		 uint32_t len);

/**
 * tcp_say - a byte on each connection
 *
 * Return: how many there are.
 */
unsigned int tcp_say(struct inet *inet);

#endif
