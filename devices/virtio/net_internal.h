/* SPDX-License-Identifier: MIT */
/*
 * The inside of the network device, for net*.c only: net.c is what core and
 * machine call, net_check.c what a stream may hold, net_io.c the threads,
 * net_rx.c and net_tx.c frames on their way, net_control.c the driver's
 * commands, net_filter.c which frames are for it, net_announce.c what is told
 * to the network after a move.
 *
 * Locks: what the driver has set (struct net, first part) is under the
 * device's lock. Each thread works by a copy of it, and makes a new one when
 * @version has moved on.
 */
#ifndef GODWIT_DEVICES_VIRTIO_NET_INTERNAL_H
#define GODWIT_DEVICES_VIRTIO_NET_INTERNAL_H

#include <stdatomic.h>

#include "devices/virtio/net.h"

/* A frame of 64 KiB, with what may come before it: Ethernet, a VLAN tag. */
#define NET_FRAME_MAX (65536 + 14 + 4)
#define NET_FRAME_MIN 14

/* With these bytes it is known whether anything may be learnt from a frame. */
#define NET_PEEK_SHORT 25
/* And with these what. */
#define NET_PEEK 82

/* Section 5.1.6; struct virtio_net_hdr with num_buffers. */
struct net_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};

_Static_assert(sizeof(struct net_header) == TAP_HEADER,
	       "struct virtio_net_hdr");

/* Features by which the driver takes more than plain frames. */
#define NET_GUEST_OFFLOADS                                             \
	(VIRTIO_BIT(NET_F_GUEST_CSUM) | VIRTIO_BIT(NET_F_GUEST_TSO4) | \
	 VIRTIO_BIT(NET_F_GUEST_TSO6) | VIRTIO_BIT(NET_F_GUEST_ECN))

#define NET_HDR_NEEDS_CSUM 1
#define NET_HDR_DATA_VALID 2

#define NET_GSO_NONE  0
#define NET_GSO_TCPV4 1
#define NET_GSO_TCPV6 4
#define NET_GSO_ECN   0x80

/* Chains that wait for frames, in the order of the ring; see net_rx.c. */
#define NET_WINDOW_CHAINS   128
#define NET_WINDOW_SEGMENTS 512

struct net_buffer {
	uint16_t head;
	uint16_t nsegments;
	uint32_t bytes;
};

struct net_window {
	unsigned int first; /* of buffers[], and so on */
	unsigned int count;
	unsigned int first_segment;
	unsigned int nsegments;
	uint64_t bytes;
	struct net_buffer buffers[NET_WINDOW_CHAINS];
	struct iovec iov[NET_WINDOW_SEGMENTS];
	uint64_t gpa[NET_WINDOW_SEGMENTS];
};

struct net;

/* What a thread knows of what the driver has set. */
struct net_view {
	unsigned int version;
	bool csum; /* may send frames with unfinished checksums */
	bool tso4;
	bool tso6;
	bool ecn;
	bool mergeable;
	unsigned int take; /* TAP_CSUM and so on: what the guest takes */
	unsigned int pairs;
	bool filter_vlans;
	uint8_t mac[NET_MAC];
	struct net_filter filter;
};

/* A queue as its thread has it. */
struct net_queue {
	unsigned int index;
	bool serving;
	bool given_back; /* since the guest was interrupted last */
};

/* Under the device's lock. Given both, the queue starts and stops. */
struct net_order {
	bool to_start;
	bool to_stop;
};

struct net_pair {
	struct net *net;
	unsigned int index;
	atomic_bool told; /* of orders, the end, an announcement */
	int wake_fd;
	bool has_thread;
	pthread_t thread;

	/* The thread's own. */
	struct net_queue rx;
	struct net_queue tx;
	struct net_queue control; /* of the first pair alone */
	struct net_view view;
	bool gone;	 /* its queue of the tap is no more */
	bool tx_blocked; /* the tap takes nothing for now */
	/* A frame that is longer than the window: its end is in overflow[]. */
	size_t held;	       /* its length with its header; 0: none */
	size_t held_in_window; /* of that */
	uint64_t held_ns;      /* since when */
	struct net_window window;
	struct virtqueue_chain chain;
	uint8_t overflow[TAP_HEADER + NET_FRAME_MAX];
};

struct net {
	struct virtio virtio;
	struct net_options options;
	struct tap *tap;

	/* Under the device's lock; see struct net_state. */
	uint8_t mac[NET_MAC];
	bool link_up;
	bool announce;
	uint16_t npairs; /* that the driver uses */
	uint64_t refused;
	struct net_filter filter;
	uint32_t nclaims;
	struct net_claim claims[NET_CLAIMS_MAX];

	bool arrived; /* from another host, and not resumed yet */
	_Atomic unsigned int announces_left;
	_Atomic uint64_t announce_ns; /* when the next is due */
	bool lost;		      /* the tap is no more; under the lock */

	_Atomic unsigned int version;  /* of what the driver has set */
	_Atomic unsigned int attached; /* pairs that the tap's frames go to */
	atomic_bool ending;
	_Atomic uint64_t warned_ns; /* when the log was last told of a failure
				     */
	struct net_order orders[VIRTIO_QUEUES_MAX];
	struct net_pair *pairs; /* options.queues of them */
};

static inline struct net *net_of(struct virtio *v)
{
	return container_of(v, struct net, virtio);
}

static inline struct virtqueue *net_ring(const struct net_pair *pair,
					 const struct net_queue *q)
{
	return &pair->net->virtio.queues[q->index].ring;
}

/* Do frames go over it? A driver needn't use all pairs. */
static inline bool net_in_use(const struct net_pair *pair)
{
	return pair->index < pair->net->attached;
}

/**
 * net_control_index() - which queue has the commands; section 5.1.2.
 */
unsigned int net_control_index(const struct net *net);

/* ---- net_check.c ---- */

/**
 * net_check() - as device_ops has it.
 */
int __must_check net_check(struct device *dev, const void *state,
			   struct error *err);

/* ---- net_io.c ---- */

/**
 * net_io_create() - the threads.
 */
int __must_check net_io_create(struct net *net, const struct device_env *env,
			       struct error *err);

/**
 * net_io_free() - end them. No queue is served. What was not made is left
 * alone.
 */
void net_io_free(struct net *net);

/**
 * net_io_order() - have the thread that has queue @index look at its orders.
 */
void net_io_order(struct net *net, unsigned int index);

/**
 * net_io_tell() - have the thread of the first pair look at what is new.
 */
void net_io_tell(struct net *net);

/**
 * net_io_fail() - the driver broke the rules; from a thread of the device,
 * without the lock.
 */
void net_io_fail(struct net_pair *pair, struct net_queue *q, const char *why);

/**
 * net_io_lost() - a queue of the tap is no more; so the link is down, unless it
 * was switched off; likewise.
 */
void net_io_lost(struct net_pair *pair);

/* ---- net_rx.c and net_tx.c ---- */

/**
 * net_rx_serve() - take frames from the tap for a turn.
 *
 * Return: how many were taken; and whether there is anything to wait for.
 */
unsigned int net_rx_serve(struct net_pair *pair);

/**
 * net_rx_starved() - the driver has offered less than a frame may need.
 */
bool net_rx_starved(const struct net_pair *pair);

/**
 * net_rx_stop() - chains that were taken from the ring go back into it.
 */
void net_rx_stop(struct net_pair *pair);

/**
 * net_tx_serve() - send frames for a turn.
 *
 * Return: how many chains were given back.
 */
unsigned int net_tx_serve(struct net_pair *pair);

/* ---- net_control.c ---- */

/**
 * net_control_serve() - execute commands for a turn; takes the lock.
 */
unsigned int net_control_serve(struct net_pair *pair);

/* ---- net_filter.c ---- */

/**
 * net_filter_init() - what is received before the driver says anything: all.
 */
void net_filter_init(struct net_filter *filter);

/**
 * net_filter_passes() - is this frame for the driver?
 * @frame: its first @len bytes, at least NET_FRAME_MIN.
 */
bool net_filter_passes(const struct net_view *view, const uint8_t *frame,
		       size_t len);

/**
 * net_header_receive() - may the driver be given a frame with this header?
 * Takes out of it what the driver doesn't know.
 */
bool net_header_receive(const struct net_view *view, struct net_header *header);

/**
 * net_header_send() - is this header of a frame of @len bytes one that the
 * driver may use, and does it make sense? Takes out of it what doesn't count.
 */
bool net_header_send(const struct net_view *view, struct net_header *header,
		     size_t len);

/* ---- net_announce.c ---- */

/**
 * net_claims_hear() - learn from a frame that the guest sends.
 * @frame: its first @len bytes, up to NET_PEEK.
 *
 * Takes the lock when there is anything to learn.
 */
void net_claims_hear(struct net *net, const uint8_t *frame, size_t len);

/**
 * net_claims_speak() - is this the beginning of a frame that may be learnt
 * from? @frame: NET_PEEK_SHORT bytes.
 */
bool net_claims_speak(const uint8_t *frame);

/**
 * net_announce_begin() - the guest is here now; the lock is held.
 */
void net_announce_begin(struct net *net);

/**
 * net_announce_turn() - send what is due. From the thread of the first pair.
 *
 * Return: nanoseconds until there is more, 0: nothing more.
 */
uint64_t net_announce_turn(struct net *net);

#endif
