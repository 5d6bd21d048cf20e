/* SPDX-License-Identifier: MIT */
/*
 * A driver for a network card, polling, for guests that speak to the network:
 * frames in and out, one at a time. Ring 3, one CPU.
 *
 * Verdicts: NIC_VERDICT_FRAME a frame that is none; NIC_VERDICT_COMMAND a
 * command that failed.
 */
#ifndef GUEST_NIC_H
#define GUEST_NIC_H

#include "lib/guest.h"
#include "lib/virtio.h"

#define NIC_MERGE   (1UL << 15)
#define NIC_BUFFERS 256U
#define NIC_FRAME   2036U  /* bytes that a buffer has for it */
#define NIC_LARGE   65535U /* likewise for a large one that is sent */
#define NIC_PARTS   17U	   /* buffers that a large one comes in, at most */
#define NIC_LARGES  32U	   /* large ones on their way out, at most */

#define NIC_VERDICT_FRAME   21
#define NIC_VERDICT_COMMAND 22

struct nic {
	struct virtio v;
	uint8_t mac[6];
	struct virtqueue queues[3];
	bool large;
	uint32_t rx_bytes, tx_bytes; /* of a buffer */
	uint16_t sending;	     /* tx buffers, a power of two */
	uint8_t *rx;		     /* NIC_BUFFERS of them */
	uint8_t *tx;
	uint8_t *command;
	uint8_t *of[NIC_BUFFERS]; /* a receiving head's buffer */
	uint8_t *received[NIC_PARTS];
	unsigned int nreceived; /* 0: given back */
};

/**
 * nic_start - find the card and drive it
 * @without: features to be done without
 * @size: of its queues, at most NIC_BUFFERS
 */
void nic_start(struct nic *nic, uint64_t without, uint16_t size);

/**
 * nic_start_large - likewise, with TSO both ways and the queues as large as
 * they can be
 *
 * What is sent that is longer than an Ethernet frame has to be TCP over IPv4
 * without options: the device is asked to cut it.
 */
void nic_start_large(struct nic *nic);

/**
 * nic_room - can a frame be sent without waiting?
 */
bool nic_room(struct nic *nic);

/**
 * nic_frame - where the next frame is to be written; waits until there is room
 */
uint8_t *nic_frame(struct nic *nic);

/**
 * nic_send - send what was written there
 */
void nic_send(struct nic *nic, uint32_t len);

/**
 * nic_receive - the next frame that came, good until the next call
 *
 * Return: NULL: there is none. Of a large one only the first NIC_FRAME bytes
 * lie in one piece.
 */
const uint8_t *nic_receive(struct nic *nic, uint32_t *ret_len);

/**
 * nic_link - is the link up?
 */
bool nic_link(const struct nic *nic);

/**
 * nic_announce_wanted, nic_announced - the device asks for an announcement; it
 * was made
 */
bool nic_announce_wanted(const struct nic *nic);
void nic_announced(struct nic *nic);

#endif
