// SPDX-License-Identifier: MIT
/*
 * Frames that the guest sends: from its buffers straight into the tap, one
 * chain a frame, with a header of ours that holds what is good in the guest's.
 *
 * A frame that can't be sent is dropped, as on any wire; only when the tap says
 * that it takes nothing for now does the chain stay in its ring.
 *
 * Sections are those of VIRTIO 1.2.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/net_internal.h"
#include "vmm/log.h"

/* Frames before it is the other direction's turn. */
#define BUDGET 64

#define WARN_INTERVAL_NS (60 * NS_PER_S)

static void warn(struct net *net, int code)
{
	uint64_t now = clock_ns();
	uint64_t last = net->warned_ns;

	if ((last && now - last < WARN_INTERVAL_NS) ||
	    !atomic_compare_exchange_strong(&net->warned_ns, &last, now))
		return;
	log_warn("%s: sending a frame to %s: %s", net->virtio.dev.id,
		 tap_name(net->tap), strerror(code));
}

/* Return: false: the tap takes nothing for now. */
static bool write_frame(struct net_pair *pair, struct net_header *header)
{
	const struct virtqueue_chain *chain = &pair->chain;
	struct iovec iov[VIRTQUEUE_SEGMENTS + 1];
	size_t skip = sizeof(*header);
	unsigned int n = 0;

	iov[n++] = (struct iovec){ header, sizeof(*header) };
	for (unsigned int i = 0; i < chain->nreadable; i++) {
		size_t part = MIN(skip, chain->iov[i].iov_len);

		skip -= part;
		if (part == chain->iov[i].iov_len)
			continue;
		iov[n].iov_base = (uint8_t *)chain->iov[i].iov_base + part;
		iov[n++].iov_len = chain->iov[i].iov_len - part;
	}
	if (writev(tap_fd(pair->net->tap, pair->index), iov, (int)n) >= 0)
		return true;
	if (errno == EAGAIN || errno == EINTR)
		return false;
	/* EPIPE and ECONNRESET: a socket whose other end is gone. */
	if (errno == EBADFD || errno == EPIPE || errno == ECONNRESET)
		net_io_lost(pair);
	/* EIO: the interface is down. EINVAL: what the kernel thinks of it. */
	else if (errno != EIO && errno != EINVAL)
		warn(pair->net, errno);
	return true;
}

/* Return: false: it was not sent, and is to be tried again. */
static bool send_frame(struct net_pair *pair)
{
	const struct virtqueue_chain *chain = &pair->chain;
	size_t len = (size_t)chain->readable - TAP_HEADER;
	struct {
		struct net_header header;
		uint8_t frame[NET_PEEK];
	} front;
	size_t n;

	if (len < NET_FRAME_MIN || len > NET_FRAME_MAX)
		return true;
	n = iov_read(chain->iov, chain->nreadable, 0, &front,
		     TAP_HEADER + NET_PEEK_SHORT);
	if (!net_header_send(&pair->view, &front.header, len))
		return true;
	if (n == TAP_HEADER + NET_PEEK_SHORT && net_claims_speak(front.frame)) {
		n = iov_read(chain->iov, chain->nreadable, TAP_HEADER,
			     front.frame, NET_PEEK);
		net_claims_hear(pair->net, front.frame, n);
	}
	return pair->gone || write_frame(pair, &front.header);
}

/* Return: false when there is no more to be sent now. */
static bool send_one(struct net_pair *pair)
{
	struct virtqueue *vq = net_ring(pair, &pair->tx);

	if (!virtqueue_pop(vq, &pair->chain)) {
		if (vq->broken)
			net_io_fail(pair, &pair->tx, vq->why);
		return false;
	}
	if (pair->chain.readable < TAP_HEADER) {
		virtqueue_unpop(vq, 1);
		net_io_fail(pair, &pair->tx,
			    "a frame to be sent has no header");
		return false;
	}
	if (!send_frame(pair)) {
		virtqueue_unpop(vq, 1);
		pair->tx_blocked = true;
		return false;
	}
	virtqueue_push(vq, &pair->chain, 0);
	pair->tx.given_back = true;
	return true;
}

unsigned int net_tx_serve(struct net_pair *pair)
{
	unsigned int n = 0;

	while (n < BUDGET && pair->tx.serving && net_in_use(pair) &&
	       !pair->tx_blocked && send_one(pair))
		n++;
	return n;
}
