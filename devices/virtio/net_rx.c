// SPDX-License-Identifier: MIT
/*
 * Frames that come in. They are read from the tap straight into the guest's
 * buffers: chains are taken from the ring ahead of frames, into the window,
 * and a read is offered all of it. With MRG_RXBUF a frame covers as many
 * chains as it needs, without it one; the rest of the window waits for the next
 * frame. Chains are given back in the order in which they came, so those in the
 * window can go back into the ring at any time, as if they had not been taken.
 *
 * How long a frame is can't be known before it is read. So each read ends in
 * overflow[], which has room for any: a frame that is longer than the window is
 * held until the driver offers more, and dropped when it doesn't, or can't.
 *
 * A frame that the driver doesn't want has been written into its buffers all
 * the same. They are its buffers still, and the next frame comes there.
 *
 * Sections are those of VIRTIO 1.2.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "devices/virtio/net_internal.h"

/* Frames before it is the other direction's turn. */
#define BUDGET 64

/* Nobody needs more of a window. */
#define WINDOW_BYTES (TAP_HEADER + NET_FRAME_MAX)

/* How long a frame waits for buffers. */
#define HOLD_NS (10 * NS_PER_MS)

#define NUM_BUFFERS_AT offsetof(struct net_header, num_buffers)

/* ---- the window ---- */

static const struct iovec *window_iov(const struct net_window *w)
{
	return &w->iov[w->first_segment];
}

/* What a frame may need, as far as the driver lets frames be large. */
static uint64_t wanted(const struct net_pair *pair)
{
	const struct net *net = pair->net;

	if (!pair->view.mergeable)
		return 1;
	if (pair->view.take & (TAP_TSO4 | TAP_TSO6))
		return WINDOW_BYTES;
	return TAP_HEADER + 14 + 4 + net->options.mtu;
}

/* Everything to the beginning, so that there is room at the end. */
static void compact(struct net_window *w)
{
	memmove(w->buffers, w->buffers + w->first,
		w->count * sizeof(w->buffers[0]));
	memmove(w->iov, w->iov + w->first_segment,
		w->nsegments * sizeof(w->iov[0]));
	memmove(w->gpa, w->gpa + w->first_segment,
		w->nsegments * sizeof(w->gpa[0]));
	w->first = 0;
	w->first_segment = 0;
}

/* Room for one more chain, however many segments that has? */
static bool has_room(const struct net_window *w)
{
	return w->count < NET_WINDOW_CHAINS &&
	       w->nsegments <= NET_WINDOW_SEGMENTS - VIRTQUEUE_SEGMENTS;
}

static void make_room(struct net_window *w)
{
	if (w->first + w->count == NET_WINDOW_CHAINS ||
	    w->first_segment + w->nsegments >
		    NET_WINDOW_SEGMENTS - VIRTQUEUE_SEGMENTS)
		compact(w);
}

static void add_chain(struct net_window *w, const struct virtqueue_chain *chain)
{
	unsigned int n = chain->nwritable;
	unsigned int at = w->first_segment + w->nsegments;

	memcpy(w->iov + at, chain->iov + chain->nreadable,
	       n * sizeof(w->iov[0]));
	memcpy(w->gpa + at, chain->gpa + chain->nreadable,
	       n * sizeof(w->gpa[0]));
	w->buffers[w->first + w->count] = (struct net_buffer){
		.head = chain->head,
		.nsegments = (uint16_t)n,
		.bytes = (uint32_t)MIN(chain->writable, UINT32_MAX),
	};
	w->count++;
	w->nsegments += n;
	w->bytes += w->buffers[w->first + w->count - 1].bytes;
}

/* The first @n chains have gone. */
static void take_out(struct net_window *w, unsigned int n)
{
	for (; n; n--) {
		const struct net_buffer *buffer = &w->buffers[w->first];

		w->first_segment += buffer->nsegments;
		w->nsegments -= buffer->nsegments;
		w->bytes -= buffer->bytes;
		w->first++;
		w->count--;
	}
	if (!w->count)
		w->first = w->first_segment = 0;
}

/* Return: false when the ring has no more, or has broken. */
static bool take_chain(struct net_pair *pair)
{
	struct virtqueue *vq = net_ring(pair, &pair->rx);

	if (!virtqueue_pop(vq, &pair->chain)) {
		if (vq->broken)
			net_io_fail(pair, &pair->rx, vq->why);
		return false;
	}
	/* Section 5.1.6.3.1: buffers are there to be filled. */
	if (pair->chain.nreadable || !pair->chain.nwritable) {
		virtqueue_unpop(vq, 1);
		net_io_fail(pair, &pair->rx,
			    "a buffer to receive into isn't writable");
		return false;
	}
	make_room(&pair->window);
	add_chain(&pair->window, &pair->chain);
	return true;
}

static void refill(struct net_pair *pair)
{
	struct net_window *w = &pair->window;
	uint64_t want = MAX(wanted(pair), pair->held);

	while (w->bytes < want && has_room(w) && take_chain(pair))
		;
}

bool net_rx_starved(const struct net_pair *pair)
{
	const struct net_window *w = &pair->window;

	return w->bytes < MAX(wanted(pair), pair->held) && has_room(w);
}

static void mark(struct net_pair *pair, uint64_t len)
{
	const struct net_window *w = &pair->window;

	virtqueue_mark(net_ring(pair, &pair->rx), window_iov(w),
		       &w->gpa[w->first_segment], w->nsegments, len);
}

void net_rx_stop(struct net_pair *pair)
{
	/* What was held was written, though nobody will hear of it. */
	if (pair->held)
		mark(pair, pair->held_in_window);
	virtqueue_unpop(net_ring(pair, &pair->rx),
			(uint16_t)pair->window.count);
	pair->window = (struct net_window){ 0 };
	pair->held = 0;
}

/* ---- a frame ---- */

/* Give back as many chains as a frame of @len bytes covers. */
static void give_back(struct net_pair *pair, uint64_t len, unsigned int n)
{
	struct virtqueue *vq = net_ring(pair, &pair->rx);
	struct net_window *w = &pair->window;

	mark(pair, len);
	for (unsigned int i = 0; i < n; i++) {
		const struct net_buffer *buffer = &w->buffers[w->first + i];
		uint32_t part = (uint32_t)MIN(len, buffer->bytes);

		virtqueue_fill(vq, (uint16_t)i, buffer->head, part);
		len -= part;
	}
	virtqueue_publish(vq, (uint16_t)n);
	take_out(w, n);
	pair->rx.given_back = true;
}

static unsigned int chains_for(const struct net_window *w, uint64_t len)
{
	unsigned int n = 0;

	for (uint64_t bytes = 0; bytes < len; n++)
		bytes += w->buffers[w->first + n].bytes;
	return n;
}

/* A frame of @len bytes lies in the window: the driver's, if it wants it. */
static void deliver(struct net_pair *pair, size_t len)
{
	const struct net_window *w = &pair->window;
	struct {
		struct net_header header;
		uint8_t frame[NET_FRAME_MIN + 4]; /* and a VLAN tag */
	} front;
	unsigned int n;

	if (len < TAP_HEADER + NET_FRAME_MIN) {
		mark(pair, len);
		return;
	}
	iov_read(window_iov(w), w->nsegments, 0, &front, sizeof(front));
	if (!net_header_receive(&pair->view, &front.header) ||
	    !net_filter_passes(&pair->view, front.frame, len - TAP_HEADER)) {
		mark(pair, len);
		return;
	}
	/* Section 5.1.6.4: 1 without MRG_RXBUF too. */
	n = chains_for(w, len);
	front.header.num_buffers = htole16((uint16_t)n);
	iov_write(window_iov(w), w->nsegments, 0, &front.header,
		  sizeof(front.header));
	give_back(pair, len, n);
}

/* What a frame may cover now. */
static uint64_t capacity(const struct net_pair *pair)
{
	const struct net_window *w = &pair->window;

	return pair->view.mergeable ? w->bytes : w->buffers[w->first].bytes;
}

/* More can't come into the window for this frame, or hasn't in time. */
static bool is_hopeless(struct net_pair *pair)
{
	const struct net_window *w = &pair->window;
	uint16_t size = net_ring(pair, &pair->rx)->state.size;

	return !has_room(w) || w->count == size ||
	       clock_ns() - pair->held_ns >= HOLD_NS;
}

/* Return: true when no frame is held any more. */
static bool finish_held(struct net_pair *pair)
{
	struct net_window *w = &pair->window;
	size_t rest = pair->held - pair->held_in_window;

	if (w->bytes >= pair->held) {
		iov_write(window_iov(w), w->nsegments, pair->held_in_window,
			  pair->overflow, rest);
		deliver(pair, pair->held);
	} else if (!is_hopeless(pair)) {
		return false;
	} else {
		mark(pair, pair->held_in_window);
	}
	pair->held = 0;
	return true;
}

static void hold(struct net_pair *pair, size_t len, uint64_t in_window)
{
	/* One chain is all that it may have. */
	if (!pair->view.mergeable) {
		mark(pair, in_window);
		return;
	}
	pair->held = len;
	pair->held_in_window = (size_t)in_window;
	pair->held_ns = clock_ns();
}

static ssize_t read_frame(struct net_pair *pair, uint64_t room)
{
	const struct net_window *w = &pair->window;
	struct iovec iov[NET_WINDOW_SEGMENTS + 1];
	unsigned int n = w->nsegments;

	if (!pair->view.mergeable)
		n = w->buffers[w->first].nsegments;
	memcpy(iov, window_iov(w), n * sizeof(*iov));
	iov[n].iov_base = pair->overflow;
	iov[n].iov_len = sizeof(pair->overflow);
	/* A chain of gigabytes would make the sum overflow an int. */
	for (unsigned int i = 0; room > WINDOW_BYTES && i < n; i++)
		iov[i].iov_len = MIN(iov[i].iov_len, WINDOW_BYTES);
	return readv(tap_fd(pair->net->tap, pair->index), iov, (int)n + 1);
}

/* Return: false when there is none, or no room for it. */
static bool receive_one(struct net_pair *pair)
{
	uint64_t room;
	ssize_t len;

	refill(pair);
	if (!pair->rx.serving || !pair->window.count)
		return false;
	if (pair->held)
		return finish_held(pair);
	room = capacity(pair);
	len = read_frame(pair, room);
	if (len > 0 && (uint64_t)len <= room)
		deliver(pair, (size_t)len);
	else if (len > 0)
		hold(pair, (size_t)len, room);
	/* EIO: the interface is down. A socket's end: nobody is there. */
	else if (!len || (errno != EAGAIN && errno != EINTR && errno != EIO))
		net_io_lost(pair);
	return len > 0;
}

unsigned int net_rx_serve(struct net_pair *pair)
{
	unsigned int n = 0;

	while (n < BUDGET && pair->rx.serving && net_in_use(pair) &&
	       !pair->gone && receive_one(pair))
		n++;
	return n;
}
