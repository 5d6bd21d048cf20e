// SPDX-License-Identifier: MIT
/*
 * Telling the network where the guest is now.
 *
 * Switches learn from any frame behind which port an address of the guest is;
 * neighbours know which Ethernet address an IP address has, and need not learn
 * anything, unless that has changed meanwhile. A gratuitous ARP or unsolicited
 * neighbour advertisement tells both. What it says was said by the guest
 * before: claims are learnt from the ARP and neighbour discovery that the guest
 * sends, and from nothing else, as a guest that routes sends others' addresses.
 *
 * The table is small, and the guest can fill it with anything; all it gets for
 * that is frames that it could have sent itself.
 *
 * RFC 826 (ARP), 903 (RARP), 4861 (neighbour discovery), 5227 (announcements).
 */
#include <string.h>
#include <sys/uio.h>

#include "devices/virtio/net_internal.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define ETHERTYPE_RARP 0x8035
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd

#define ARP_REQUEST  1
#define ARP_REPLY    2
#define RARP_REQUEST 3

#define ICMPV6		      58
#define ICMPV6_ROUTER_SOLICIT 133
#define ICMPV6_ROUTER_ADVERT  134
#define ICMPV6_SOLICIT	      135
#define ICMPV6_ADVERT	      136
#define ADVERT_ROUTER	      0x80
#define ADVERT_OVERRIDE	      0x20
#define OPTION_TARGET_LINK    2
#define HOP_LIMIT	      255

#define IPV6_HEADER  40
#define ADVERT_BYTES 32 /* with the option */
#define ARP_BYTES    28

/*
 * The first at once, the next after 50 ms, then each 100 ms later than the one
 * before: 350 ms in the end.
 */
#define ROUNDS	 5
#define FIRST_NS (50 * NS_PER_MS)
#define STEP_NS	 (100 * NS_PER_MS)

static unsigned int get16(const uint8_t *at)
{
	return (unsigned int)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, unsigned int value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* ---- what the guest says ---- */

/* Return: where what comes after Ethernet begins. */
static size_t payload_at(const uint8_t *frame)
{
	return get16(frame + 12) == ETHERTYPE_VLAN ? 18 : 14;
}

bool net_claims_speak(const uint8_t *frame)
{
	size_t at = payload_at(frame);
	unsigned int type = get16(frame + at - 2);

	return type == ETHERTYPE_ARP ||
	       (type == ETHERTYPE_IPV6 && frame[at + 6] == ICMPV6);
}

/* Section "Packet format" of RFC 826; a probe (RFC 5227) claims nothing. */
static bool hear_arp(const uint8_t *arp, size_t len, struct net_claim *ret)
{
	static const uint8_t front[] = { 0, 1, 8, 0, 6, 4 };
	static const uint8_t nobody[4];
	unsigned int op;

	if (len < ARP_BYTES || memcmp(arp, front, sizeof(front)))
		return false;
	op = get16(arp + 6);
	if ((op != ARP_REQUEST && op != ARP_REPLY) ||
	    !memcmp(arp + 14, nobody, sizeof(nobody)))
		return false;
	memcpy(ret->mac, arp + 8, NET_MAC);
	memcpy(ret->address, arp + 14, 4);
	return !(ret->mac[0] & 1);
}

/* *@ret_router: whether it says that it is a router; -1: it doesn't say. */
static bool hear_ipv6(const uint8_t *ip, size_t len, struct net_claim *ret,
		      int *ret_router)
{
	static const uint8_t nobody[16];
	const uint8_t *icmp = ip + IPV6_HEADER;
	const uint8_t *address = ip + 8;

	*ret_router = -1;
	if (len < IPV6_HEADER + 8 || ip[7] != HOP_LIMIT)
		return false;
	switch (icmp[0]) {
	case ICMPV6_ADVERT:
		if (len < IPV6_HEADER + 24)
			return false;
		address = icmp + 8;
		*ret_router = icmp[4] & ADVERT_ROUTER ? 1 : 0;
		break;
	case ICMPV6_ROUTER_ADVERT:
		*ret_router = 1;
		break;
	case ICMPV6_SOLICIT:
	case ICMPV6_ROUTER_SOLICIT:
		break;
	default:
		return false;
	}
	ret->ipv6 = true;
	memcpy(ret->address, address, sizeof(ret->address));
	return address[0] != 0xff && memcmp(address, nobody, sizeof(nobody));
}

static bool same_address(const struct net_claim *a, const struct net_claim *b)
{
	return a->vlan == b->vlan && a->ipv6 == b->ipv6 &&
	       !memcmp(a->address, b->address, sizeof(a->address));
}

/* The latest comes first; the oldest goes when there is no room. */
static void remember(struct net *net, struct net_claim *claim, int router)
{
	uint32_t at = 0;

	while (at < net->nclaims && !same_address(&net->claims[at], claim))
		at++;
	claim->router = at < net->nclaims && net->claims[at].router;
	if (router >= 0)
		claim->router = router;
	if (at == net->nclaims && at < NET_CLAIMS_MAX)
		net->nclaims++;
	if (at == NET_CLAIMS_MAX)
		at--;
	memmove(net->claims + 1, net->claims, at * sizeof(net->claims[0]));
	net->claims[0] = *claim;
}

void net_claims_hear(struct net *net, const uint8_t *frame, size_t len)
{
	size_t at = payload_at(frame);
	struct net_claim claim = { 0 };
	int router = -1;
	bool heard;

	if (at == 18)
		claim.vlan = (uint16_t)(get16(frame + 14) & 0xfff);
	memcpy(claim.mac, frame + NET_MAC, NET_MAC);
	if (len < at || claim.mac[0] & 1)
		return;
	if (get16(frame + at - 2) == ETHERTYPE_ARP)
		heard = hear_arp(frame + at, len - at, &claim);
	else
		heard = hear_ipv6(frame + at, len - at, &claim, &router);
	if (!heard)
		return;
	pthread_mutex_lock(&net->virtio.dev.lock);
	remember(net, &claim, router);
	pthread_mutex_unlock(&net->virtio.dev.lock);
}

/* ---- what we say for it ---- */

struct announcement {
	uint8_t header[TAP_HEADER]; /* all zero: a plain frame */
	uint8_t frame[18 + IPV6_HEADER + ADVERT_BYTES];
	size_t len;
};

/* Return: where the rest goes. */
static uint8_t *put_ethernet(struct announcement *a, const uint8_t *to,
			     const uint8_t *from, uint16_t vlan,
			     unsigned int type, size_t payload)
{
	size_t at = 12;

	memset(a, 0, sizeof(*a));
	memcpy(a->frame, to, NET_MAC);
	memcpy(a->frame + NET_MAC, from, NET_MAC);
	if (vlan) {
		put16(a->frame + at, ETHERTYPE_VLAN);
		put16(a->frame + at + 2, vlan);
		at += 4;
	}
	put16(a->frame + at, type);
	at += 2;
	/* The shortest frame that Ethernet knows, less its checksum. */
	a->len = MAX(at + payload, 60);
	return a->frame + at;
}

static void put_arp(struct announcement *a, unsigned int type, unsigned int op,
		    const struct net_claim *claim)
{
	static const uint8_t broadcast[NET_MAC] = { 0xff, 0xff, 0xff,
						    0xff, 0xff, 0xff };
	uint8_t *arp = put_ethernet(a, broadcast, claim->mac, claim->vlan, type,
				    ARP_BYTES);

	put16(arp, 1);
	put16(arp + 2, ETHERTYPE_IPV4);
	arp[4] = NET_MAC;
	arp[5] = 4;
	put16(arp + 6, op);
	memcpy(arp + 8, claim->mac, NET_MAC);
	memcpy(arp + 14, claim->address, 4);
	if (op == RARP_REQUEST)
		memcpy(arp + 18, claim->mac, NET_MAC);
	memcpy(arp + 24, claim->address, 4);
}

/* RFC 4443, section 2.3; @ip: the header and ADVERT_BYTES. */
static unsigned int checksum(const uint8_t *ip)
{
	uint32_t sum = ADVERT_BYTES + ICMPV6;

	for (size_t i = 8; i < IPV6_HEADER + ADVERT_BYTES; i += 2)
		sum += get16(ip + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

/* RFC 4861, sections 4.4 and 7.2.6. */
static void put_advert(struct announcement *a, const struct net_claim *claim)
{
	static const uint8_t all_nodes_mac[NET_MAC] = {
		0x33, 0x33, 0, 0, 0, 1
	};
	static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 };
	uint8_t *ip = put_ethernet(a, all_nodes_mac, claim->mac, claim->vlan,
				   ETHERTYPE_IPV6, IPV6_HEADER + ADVERT_BYTES);
	uint8_t *icmp = ip + IPV6_HEADER;

	ip[0] = 6 << 4;
	put16(ip + 4, ADVERT_BYTES);
	ip[6] = ICMPV6;
	ip[7] = HOP_LIMIT;
	memcpy(ip + 8, claim->address, 16);
	memcpy(ip + 24, all_nodes, 16);
	icmp[0] = ICMPV6_ADVERT;
	icmp[4] = ADVERT_OVERRIDE | (claim->router ? ADVERT_ROUTER : 0);
	memcpy(icmp + 8, claim->address, 16);
	icmp[24] = OPTION_TARGET_LINK;
	icmp[25] = 1; /* times 8 bytes */
	memcpy(icmp + 26, claim->mac, NET_MAC);
	put16(icmp + 2, checksum(ip));
}

/* What gets lost comes again in the next round. */
static void say(struct net *net, struct announcement *a)
{
	struct iovec iov[] = { { a->header, sizeof(a->header) },
			       { a->frame, a->len } };

	(void)!writev(tap_fd(net->tap, 0), iov, ARRAY_SIZE(iov));
}

static void say_all(struct net *net)
{
	struct net_claim self = { 0 };
	struct announcement a;
	bool known = false;

	for (uint32_t i = 0; i < net->nclaims; i++) {
		const struct net_claim *claim = &net->claims[i];

		known = known || !memcmp(claim->mac, net->mac, NET_MAC);
		if (claim->ipv6)
			put_advert(&a, claim);
		else
			put_arp(&a, ETHERTYPE_ARP, ARP_REQUEST, claim);
		say(net, &a);
	}
	if (known)
		return;
	memcpy(self.mac, net->mac, NET_MAC);
	put_arp(&a, ETHERTYPE_RARP, RARP_REQUEST, &self);
	say(net, &a);
}

/* VIRTIO 1.2, section 5.1.6.5.4. */
static void ask_driver(struct net *net)
{
	struct virtio *v = &net->virtio;

	if (!(v->state.status & VIRTIO_DRIVER_OK) ||
	    !virtio_negotiated(v, NET_F_GUEST_ANNOUNCE) ||
	    !virtio_negotiated(v, NET_F_CTRL_VQ))
		return;
	net->announce = true;
	virtio_config_changed(v);
}

void net_announce_begin(struct net *net)
{
	net->announces_left = ROUNDS;
	net->announce_ns = clock_ns();
}

/*
 * Under the lock from beginning to end, so that nothing is said any more when
 * the device has been paused: the guest may be elsewhere then.
 */
uint64_t net_announce_turn(struct net *net)
{
	uint64_t now, wait = 0;

	if (!net->announces_left)
		return 0;
	now = clock_ns();
	if (now < net->announce_ns)
		return net->announce_ns - now;
	pthread_mutex_lock(&net->virtio.dev.lock);
	/* Resuming goes on with it. */
	if (!net->virtio.paused && !net->lost) {
		say_all(net);
		ask_driver(net);
		wait = FIRST_NS + (ROUNDS - net->announces_left) * STEP_NS;
		net->announce_ns = now + wait;
		if (!--net->announces_left)
			wait = 0;
	}
	pthread_mutex_unlock(&net->virtio.dev.lock);
	return wait;
}
