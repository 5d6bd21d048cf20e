/* SPDX-License-Identifier: MIT */
/*
 * The network device: a tap, or a user-mode network, as the guest's eth0.
 *
 * Its options, in any order, each at most once:
 *
 *   mac=XX:XX:XX:XX:XX:XX  needed: the address that it has at power-on
 *   mtu=N                  68 to 65535, default 1500
 *   queues=N               pairs, 1 to NET_PAIRS_MAX, default 1
 *   kind=tap|user          what is offered to the driver: what a tap can do, or
 *                          a user-mode network, which takes no frame that is
 *                          unfinished or larger than the MTU; default tap
 *   name=TEXT              a hint to who looks for the tap, see open_tap()
 *
 * Each pair of queues is served on a thread of its own, straight between the
 * tap and the guest's memory: vCPUs ring a doorbell and go on, and the event
 * loop has nothing to do with it. The control queue is served by the thread of
 * the first pair.
 *
 * Frames that come in while the device is paused wait in the tap. None is ever
 * half-way: a frame that was taken from the guest has been given to the tap,
 * or dropped, when its chain is given back.
 *
 * After a move the target tells the network where the guest is now: for each
 * address that the guest was seen to claim, a gratuitous ARP or an unsolicited
 * neighbour advertisement; RARP for an adapter that claimed none; and the
 * driver is asked to do the same for what we don't know of. All that a few
 * times, as frames get lost.
 *
 * Spec: VIRTIO 1.2, section 5.1.
 */
#ifndef GODWIT_DEVICES_VIRTIO_NET_H
#define GODWIT_DEVICES_VIRTIO_NET_H

#include "devices/backend/tap.h"
#include "devices/backend/user.h"
#include "devices/virtio/virtio.h"

#define NET_PAIRS_MAX  TAP_QUEUES_MAX
#define NET_QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define NET_NAME_MAX   TAP_NAME_MAX
#define NET_MAC	       6 /* bytes */
#define NET_MTU_MIN    68
#define NET_MTU_MAX    65535

/* Addresses that the driver may list; beyond that it gets all frames. */
#define NET_LISTED_MAX 64
/* Of those that the guest claims, the latest are known. */
#define NET_CLAIMS_MAX 16

/* Section 5.1.3, bit numbers. */
#define NET_F_CSUM		  0
#define NET_F_GUEST_CSUM	  1
#define NET_F_CTRL_GUEST_OFFLOADS 2
#define NET_F_MTU		  3
#define NET_F_MAC		  5
#define NET_F_GUEST_TSO4	  7
#define NET_F_GUEST_TSO6	  8
#define NET_F_GUEST_ECN		  9
#define NET_F_HOST_TSO4		  11
#define NET_F_HOST_TSO6		  12
#define NET_F_HOST_ECN		  13
#define NET_F_MRG_RXBUF		  15
#define NET_F_STATUS		  16
#define NET_F_CTRL_VQ		  17
#define NET_F_CTRL_RX		  18
#define NET_F_CTRL_VLAN		  19
#define NET_F_CTRL_RX_EXTRA	  20
#define NET_F_GUEST_ANNOUNCE	  21
#define NET_F_MQ		  22
#define NET_F_CTRL_MAC_ADDR	  23

/* Section 5.1.4. */
#define NET_S_LINK_UP  1
#define NET_S_ANNOUNCE 2

/* Section 5.1.6.5. */
#define NET_CTRL_RX		0
#define NET_CTRL_MAC		1
#define NET_CTRL_VLAN		2
#define NET_CTRL_ANNOUNCE	3
#define NET_CTRL_MQ		4
#define NET_CTRL_GUEST_OFFLOADS 5

#define NET_CTRL_OK  0
#define NET_CTRL_ERR 1

struct net_options {
	uint8_t mac[NET_MAC];
	uint32_t mtu;
	uint32_t queues; /* pairs */
	bool user;	 /* its kind */
	char name[NET_NAME_MAX + 1];
};

/* What the driver wants to receive; sections 5.1.6.5.1 to 5.1.6.5.3. */
struct net_filter {
	bool promisc;
	bool allmulti;
	bool alluni;
	bool nomulti;
	bool nouni;
	bool nobcast;
	/* More were listed than we keep: all of that kind pass. */
	bool many_uni;
	bool many_multi;
	uint32_t nlisted;
	uint8_t listed[NET_LISTED_MAX][NET_MAC];
	uint8_t vlans[4096 / 8]; /* a bit each */
};

/* An address that the guest claims to have, by ARP or neighbour discovery. */
struct net_claim {
	uint8_t mac[NET_MAC];
	uint16_t vlan; /* 0: none */
	bool ipv6;
	bool router;	     /* IPv6: it routes, and says so */
	uint8_t address[16]; /* IPv4: the first 4 */
};

struct net_state {
	struct virtio_state virtio;
	uint8_t mac[NET_MAC];
	bool link_up;
	bool announce;	  /* the driver is asked to, and has not yet */
	uint16_t pairs;	  /* that the driver uses */
	uint64_t refused; /* offloads that it took and has switched off */
	struct net_filter filter;
	uint32_t nclaims;
	struct net_claim claims[NET_CLAIMS_MAX]; /* the latest first */
	struct user_state user; /* what its kind of network knows of it */
};

extern const struct device_ops net_ops;

/**
 * net_options_parse() - from the text of a device_config.
 *
 * Return: 0, or -EINVAL with @err naming option and value.
 */
int __must_check net_options_parse(const char *text, struct net_options *ret,
				   struct error *err);

/**
 * net_mac_parse() - six bytes in hexadecimal, with colons between; no
 * multicast address and not all zero.
 */
bool net_mac_parse(const char *text, uint8_t ret[NET_MAC]);

/**
 * net_create() - with the tap that env->taps has for it.
 */
int __must_check net_create(const struct device_env *env,
			    const struct device_config *config,
			    struct device **ret, struct error *err);

#endif
