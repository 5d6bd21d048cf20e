/* SPDX-License-Identifier: MIT */
/*
 * What the files of the net guest share.
 */
#ifndef GUEST_NET_H
#define GUEST_NET_H

#include "nic.h"

#define VERDICT_ORDER 20
#define VERDICT_LOST  23

/* Of a frame of Ethernet: two addresses, and a type, for experiments. */
#define FRONT	  14U
#define TYPE_HIGH 0x88U
#define TYPE_LOW  0xb5U

#define NET_PLAIN 1514U /* a longer frame is large */

struct net_options {
	uint32_t bytes;	    /* of a frame */
	unsigned int depth; /* frames on their way */
	uint64_t seconds;
};

/**
 * net_bench - how fast frames that are sent come back, from a network that
 * sends back what comes
 */
void net_bench(struct nic *nic, const struct net_options *options);

#endif
