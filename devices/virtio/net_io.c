// SPDX-License-Identifier: MIT
/*
 * The threads of a network device, one a pair of queues. A turn takes some
 * frames of each direction, so that neither waits for the other for long, and
 * interrupts the guest once a queue; a flood of any kind is so many turns, and
 * nothing grows by it.
 *
 * Nothing is allocated and nobody waits for anybody. The device's lock is taken
 * for orders (start and stop a queue), commands, and what is rare.
 *
 * Before it sleeps a thread looks around a little longer, if that has paid
 * lately: who is asked and answers is often asked again at once.
 *
 * The guest is asked to ring for frames to send, and for new buffers only when
 * there are too few.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/virtio/net_internal.h"
#include "devices/virtio/look.h"
#include "vmm/log.h"
#include "vmm/sandbox.h"

/* Longer than a frame that is held has to wait; see net_rx.c. */
#define HELD_WAIT_NS (11 * NS_PER_MS)

/* ---- telling threads ---- */

static void tell(struct net_pair *pair)
{
	uint64_t one = 1;

	pair->told = true;
	/* An eventfd that is full is an eventfd that wakes. */
	(void)!write(pair->wake_fd, &one, sizeof(one));
}

static struct net_pair *owner(struct net *net, unsigned int index)
{
	/* The commands, and what no driver may use, are the first pair's. */
	if (index >= 2 * net->options.queues || index >= net_control_index(net))
		return &net->pairs[0];
	return &net->pairs[index / 2];
}

void net_io_order(struct net *net, unsigned int index)
{
	tell(owner(net, index));
}

void net_io_tell(struct net *net)
{
	tell(&net->pairs[0]);
}

void net_io_fail(struct net_pair *pair, struct net_queue *q, const char *why)
{
	struct virtio *v = &pair->net->virtio;

	/* The core orders a stop, which comes by and ends this for good. */
	q->serving = false;
	pthread_mutex_lock(&v->dev.lock);
	virtio_fail(v, why);
	pthread_mutex_unlock(&v->dev.lock);
}

void net_io_lost(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct virtio *v = &net->virtio;

	if (pair->index >= net->attached)
		return;
	pair->gone = true;
	pthread_mutex_lock(&v->dev.lock);
	if (!net->lost)
		log_warn("%s: %s is gone; the guest's link is down", v->dev.id,
			 tap_name(net->tap));
	net->lost = true;
	if (net->link_up) {
		net->link_up = false;
		virtio_config_changed(v);
	}
	pthread_mutex_unlock(&v->dev.lock);
}

/* ---- orders ---- */

/* What queue @index is to a pair that owns it; NULL: no driver may use it. */
static struct net_queue *role(struct net_pair *pair, unsigned int index)
{
	if (index == net_control_index(pair->net))
		return &pair->control;
	if (index == 2 * pair->index)
		return &pair->rx;
	return index == 2 * pair->index + 1 ? &pair->tx : NULL;
}

static void start(struct net_pair *pair, struct net_queue *q,
		  unsigned int index)
{
	*q = (struct net_queue){ .index = index, .serving = true };
	virtqueue_quiet(net_ring(pair, q));
}

static void stop(struct net_pair *pair, struct net_queue *q)
{
	q->serving = false;
	if (q == &pair->rx)
		net_rx_stop(pair);
	if (q == &pair->tx)
		pair->tx_blocked = false;
}

static void take_order(struct net_pair *pair, unsigned int index)
{
	struct net_order *order = &pair->net->orders[index];
	struct net_queue *q = role(pair, index);

	if (order->to_start && q)
		start(pair, q, index);
	if (order->to_stop) {
		if (q)
			stop(pair, q);
		virtio_queue_stopped(&pair->net->virtio, index);
	}
	*order = (struct net_order){ 0 };
}

static void take_orders(struct net_pair *pair)
{
	struct net *net = pair->net;

	if (!atomic_exchange(&pair->told, false))
		return;
	pthread_mutex_lock(&net->virtio.dev.lock);
	for (unsigned int i = 0; i < net->virtio.nqueues; i++) {
		if (owner(net, i) == pair)
			take_order(pair, i);
	}
	pthread_mutex_unlock(&net->virtio.dev.lock);
}

/* ---- what the driver has set ---- */

static unsigned int takes(const struct net *net)
{
	uint64_t features = net->virtio.state.driver_features & ~net->refused;
	unsigned int take = 0;

	if (!(features & VIRTIO_BIT(NET_F_GUEST_CSUM)))
		return 0;
	take = TAP_CSUM;
	if (features & VIRTIO_BIT(NET_F_GUEST_TSO4))
		take |= TAP_TSO4;
	if (features & VIRTIO_BIT(NET_F_GUEST_TSO6))
		take |= TAP_TSO6;
	if (features & VIRTIO_BIT(NET_F_GUEST_ECN))
		take |= TAP_ECN;
	return take;
}

static void look_at_settings(struct net *net, struct net_view *view)
{
	const struct virtio *v = &net->virtio;

	pthread_mutex_lock(&net->virtio.dev.lock);
	*view = (struct net_view){
		.version = net->version,
		.csum = virtio_negotiated(v, NET_F_CSUM),
		.tso4 = virtio_negotiated(v, NET_F_HOST_TSO4),
		.tso6 = virtio_negotiated(v, NET_F_HOST_TSO6),
		.ecn = virtio_negotiated(v, NET_F_HOST_ECN),
		.mergeable = virtio_negotiated(v, NET_F_MRG_RXBUF),
		.take = takes(net),
		.pairs = net->npairs,
		.filter_vlans = virtio_negotiated(v, NET_F_CTRL_VLAN),
		.filter = net->filter,
	};
	memcpy(view->mac, net->mac, NET_MAC);
	pthread_mutex_unlock(&net->virtio.dev.lock);
}

static void spread(struct net *net, unsigned int pairs)
{
	unsigned int before = net->attached;

	/* Who reads a queue knows that it is there. */
	if (pairs < before)
		net->attached = pairs;
	tap_set_queues(net->tap, pairs);
	net->attached = pairs;
	for (unsigned int i = before; i < pairs; i++)
		tell(&net->pairs[i]);
}

static void follow_settings(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct net_view old = pair->view;

	if (pair->view.version == net->version)
		return;
	look_at_settings(net, &pair->view);
	if (pair->index)
		return;
	if (old.take != pair->view.take)
		tap_set_offloads(net->tap, pair->view.take);
	if (net->attached != pair->view.pairs)
		spread(net, pair->view.pairs);
}

/* ---- the thread ---- */

static void interrupt(struct net_pair *pair, struct net_queue *q)
{
	if (!q->given_back)
		return;
	q->given_back = false;
	if (q->serving && virtqueue_should_interrupt(net_ring(pair, q)))
		virtio_interrupt(&pair->net->virtio, q->index);
}

/* Return: whether there was anything to do. */
static bool turn(struct net_pair *pair)
{
	unsigned int n = 0;

	take_orders(pair);
	if (!pair->index) {
		n = net_control_serve(pair);
		interrupt(pair, &pair->control);
		(void)net_announce_turn(pair->net);
	}
	follow_settings(pair);
	n += net_tx_serve(pair);
	interrupt(pair, &pair->tx);
	n += net_rx_serve(pair);
	interrupt(pair, &pair->rx);
	return n;
}

/* Ask to be told. Return: false: there is something already. */
static bool listen_one(const struct net_pair *pair, const struct net_queue *q)
{
	return !q->serving || !virtqueue_listen(net_ring(pair, q));
}

static bool listen_all(const struct net_pair *pair)
{
	bool quiet = listen_one(pair, &pair->control);

	if (!net_in_use(pair))
		return quiet;
	/* It is the tap that we wait for when it takes nothing. */
	if (!pair->tx_blocked)
		quiet = listen_one(pair, &pair->tx) && quiet;
	if (!pair->gone && net_rx_starved(pair))
		quiet = listen_one(pair, &pair->rx) && quiet;
	return quiet;
}

static void quiet_all(const struct net_pair *pair)
{
	if (pair->control.serving)
		virtqueue_quiet(net_ring(pair, &pair->control));
	if (pair->rx.serving)
		virtqueue_quiet(net_ring(pair, &pair->rx));
	if (pair->tx.serving)
		virtqueue_quiet(net_ring(pair, &pair->tx));
}

static short tap_events(const struct net_pair *pair)
{
	short events = 0;

	if (!net_in_use(pair) || pair->gone)
		return 0;
	if (pair->rx.serving && pair->window.count && !pair->held)
		events |= POLLIN;
	if (pair->tx.serving && pair->tx_blocked)
		events |= POLLOUT;
	return events;
}

enum {
	FD_WAKE,
	FD_RX,
	FD_TX,
	FD_CONTROL,
	FD_TAP,
	FDS
};

static int bell(const struct net_pair *pair, const struct net_queue *q)
{
	return q->serving ? pair->net->virtio.queues[q->index].event_fd : -1;
}

/* @wait_ns: at most; 0: for as long as it takes. */
static void wait_for_anything(struct net_pair *pair, uint64_t wait_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(wait_ns / NS_PER_S),
		.tv_nsec = (long)(wait_ns % NS_PER_S),
	};
	short events = tap_events(pair);
	struct pollfd fds[FDS] = {
		[FD_WAKE] = { pair->wake_fd, POLLIN, 0 },
		[FD_RX] = { bell(pair, &pair->rx), POLLIN, 0 },
		[FD_TX] = { bell(pair, &pair->tx), POLLIN, 0 },
		[FD_CONTROL] = { bell(pair, &pair->control), POLLIN, 0 },
		[FD_TAP] = { events ? tap_fd(pair->net->tap, pair->index) : -1,
			     events, 0 },
	};
	uint64_t count;

	ppoll(fds, FDS, wait_ns ? &timeout : NULL, NULL);
	/* Before anything is looked at: who rings later is heard. */
	for (unsigned int i = 0; i < FD_TAP; i++) {
		if (fds[i].revents)
			(void)!read(fds[i].fd, &count, sizeof(count));
	}
	if (fds[FD_TAP].revents)
		pair->tx_blocked = false;
}

static void sleep_awhile(struct net_pair *pair)
{
	uint64_t wait_ns = pair->index ? 0 : net_announce_turn(pair->net);

	if (pair->held)
		wait_ns = wait_ns ? MIN(wait_ns, HELD_WAIT_NS) : HELD_WAIT_NS;
	if (listen_all(pair))
		wait_for_anything(pair, wait_ns);
	quiet_all(pair);
}

static void *io_main(void *opaque)
{
	struct net_pair *pair = opaque;
	struct look look = { 0 };

	while (!pair->net->ending) {
		if (turn(pair)) {
			look_found(&look);
		} else if (!look_on(&look)) {
			sleep_awhile(pair);
			look_slept(&look);
		}
	}
	return NULL;
}

/* ---- making and unmaking ---- */

static int start_pair(struct net *net, unsigned int index,
		      const struct device_env *env, struct error *err)
{
	struct net_pair *pair = &net->pairs[index];
	char name[16];
	int rc;

	pair->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pair->wake_fd < 0)
		return error_set(err, -errno, "%s: eventfd: %s",
				 net->virtio.dev.id, strerror(errno));
	snprintf(name, sizeof(name), "%.12s/%u", net->virtio.dev.id,
		 index % 100);
	rc = thread_start(env->sandbox, THREAD_IO, name, io_main, pair,
			  &pair->thread, err);
	pair->has_thread = !rc;
	return rc;
}

int net_io_create(struct net *net, const struct device_env *env,
		  struct error *err)
{
	unsigned int n = net->options.queues;
	int rc = 0;

	/* Most of it stays untouched until there is something in it. */
	net->pairs = calloc(n, sizeof(*net->pairs));
	if (!net->pairs)
		return error_set(err, -ENOMEM, "%s: out of memory",
				 net->virtio.dev.id);
	net->attached = 1;
	for (unsigned int i = 0; i < n; i++) {
		net->pairs[i].net = net;
		net->pairs[i].index = i;
		net->pairs[i].rx.index = 2 * i;
		net->pairs[i].tx.index = 2 * i + 1;
		net->pairs[i].wake_fd = -1;
	}
	for (unsigned int i = 0; i < n && !rc; i++)
		rc = start_pair(net, i, env, err);
	return rc;
}

void net_io_free(struct net *net)
{
	unsigned int n = net->pairs ? net->options.queues : 0;

	net->ending = true;
	for (unsigned int i = 0; i < n; i++) {
		struct net_pair *pair = &net->pairs[i];

		if (pair->has_thread) {
			tell(pair);
			pthread_join(pair->thread, NULL);
		}
		close_fd(&pair->wake_fd);
	}
	free(net->pairs);
}
