/* SPDX-License-Identifier: MIT */
/*
 * Who is at the other end of the sync guest's devices: the network, a user at
 * its virtio console, the host that wants memory back. What is done at each
 * point is said where the guest has it (guests/sync/card.c, balloon.c,
 * console.c).
 */
#ifndef GODWIT_TESTS_PEER_H
#define GODWIT_TESTS_PEER_H

#include "tests/inproc/rig.h"

struct peer_seat {
	struct rig_host *host;
	int near; /* the host's end of the network */
	int far;
};

struct peer {
	struct peer_seat seats[2]; /* where the guest is, and the other */
	unsigned int asked;	   /* how often, at this point */
};

/* Both hosts get a card, "net0". */
void peer_init(struct peer *peer, struct rig_host *here,
	       struct rig_host *there);

/* The hosts are gone. */
void peer_fini(struct peer *peer);

/* The guest stands at @point at @here, and is lifted next. */
void peer_before(struct peer *peer, const struct rig_host *here,
		 const char *point);

/* It is at @here, and asks for what is due at @point. */
void peer_ask(struct peer *peer, const struct rig_host *here,
	      const char *point);

#endif
