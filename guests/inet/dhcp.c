/* SPDX-License-Identifier: MIT */
/*
 * Where the address of the guest inet comes from: RFC 2131, the shortest way.
 * Who answers first is believed, and is the way out.
 */
#include "inet/inet.h"

#define SERVER_PORT 67U

#define YOUR_ADDRESS 16U
#define HARDWARE     28U
#define COOKIE_AT    236U
#define COOKIE	     0x63825363U
#define OPTIONS	     240U

#define OPTION_ROUTER	 3U
#define OPTION_DNS	 6U
#define OPTION_REQUESTED 50U
#define OPTION_KIND	 53U
#define OPTION_SERVER	 54U
#define OPTION_END	 255U

#define DISCOVER 1U
#define OFFER	 2U
#define REQUEST	 3U
#define ACK	 5U

#define TRANSACTION 0x676f6477U

static const uint8_t nobody[4];
static const uint8_t everybody[4] = { 0xff, 0xff, 0xff, 0xff };

/* Options are a number, a length, and so many bytes; NULL: not there. */
static const uint8_t *find(const uint8_t *data, uint32_t len, unsigned int what)
{
	for (uint32_t at = OPTIONS; at + 2 <= len;) {
		uint32_t end = at + 2 + data[at + 1];

		if (data[at] == OPTION_END || end > len)
			break;
		if (data[at] == what)
			return data + at + 2;
		at = end;
	}
	return NULL;
}

static uint8_t *put_address(uint8_t *at, unsigned int what,
			    const uint8_t address[4])
{
	*at++ = (uint8_t)what;
	*at++ = 4;
	memcpy(at, address, 4);
	return at + 4;
}

/* @offer: what is requested, and of whom; NULL: nothing yet. */
static void send(struct inet *inet, const uint8_t *offer, const uint8_t *server)
{
	uint8_t *data = ip_begin(inet, IP_UDP, everybody) + UDP_DATA;
	uint8_t *at = data + OPTIONS;

	memset(data, 0, OPTIONS);
	data[0] = 1; /* a request, by Ethernet */
	data[1] = 1;
	data[2] = 6;
	put32(data + 4, TRANSACTION);
	memcpy(data + HARDWARE, inet->nic.mac, 6);
	put32(data + COOKIE_AT, COOKIE);
	*at++ = OPTION_KIND;
	*at++ = 1;
	*at++ = offer ? REQUEST : DISCOVER;
	if (offer) {
		at = put_address(at, OPTION_REQUESTED, offer);
		at = put_address(at, OPTION_SERVER, server);
	}
	*at++ = OPTION_END;
	udp_send(inet, DHCP_CLIENT, SERVER_PORT, (uint32_t)(at - data));
}

void dhcp_begin(struct inet *inet)
{
	memcpy(inet->address, nobody, 4);
	send(inet, NULL, NULL);
}

static void show(const char *what, const uint8_t *address)
{
	if (address)
		print("%s %u.%u.%u.%u ", what, address[0], address[1],
		      address[2], address[3]);
}

void dhcp_receive(struct inet *inet, const uint8_t *frame, const uint8_t *data,
		  uint32_t len)
{
	const uint8_t *server = find(data, len, OPTION_SERVER);
	const uint8_t *router = find(data, len, OPTION_ROUTER);
	const uint8_t *kind = find(data, len, OPTION_KIND);

	if (len < OPTIONS || !kind || !server || inet->address[0] ||
	    get32(data + 4) != TRANSACTION)
		return;
	if (*kind == OFFER)
		send(inet, data + YOUR_ADDRESS, server);
	if (*kind != ACK || !router)
		return;
	memcpy(inet->address, data + YOUR_ADDRESS, 4);
	memcpy(inet->gateway, router, 4);
	memcpy(inet->peer, frame + 6, 6);
	show("address", inet->address);
	show("gateway", router);
	show("dns", find(data, len, OPTION_DNS));
	print("leased\n");
	arp_claim(inet);
}
