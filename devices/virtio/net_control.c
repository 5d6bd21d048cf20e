// SPDX-License-Identifier: MIT
/*
 * What the driver commands by the control queue. A command is a class and a
 * number, a byte each, then what it needs, all copied once; the answer is one
 * byte. A command that isn't understood, or not negotiated, changes nothing.
 *
 * Sections are those of VIRTIO 1.2.
 */
#include <endian.h>
#include <string.h>

#include "devices/virtio/net_internal.h"

/* Commands before it is the frames' turn. */
#define BUDGET 16

/* Section 5.1.6.5.1. */
enum rx_command {
	RX_PROMISC,
	RX_ALLMULTI,
	RX_ALLUNI,
	RX_NOMULTI,
	RX_NOUNI,
	RX_NOBCAST,
};

/* Section 5.1.6.5.2. */
#define MAC_TABLE_SET 0
#define MAC_ADDR_SET  1
/* Section 5.1.6.5.3. */
#define VLAN_ADD 0
#define VLAN_DEL 1
/* Sections 5.1.6.5.4, 5.1.6.5.5 and 5.1.6.5.6. */
#define ANNOUNCE_ACK	   0
#define MQ_PAIRS_SET	   0
#define GUEST_OFFLOADS_SET 0

struct command {
	uint8_t class;
	uint8_t number;
};

/* Where the rest of a command is read from. */
struct reader {
	const struct virtqueue_chain *chain;
	size_t at;
};

static bool get(struct reader *r, void *buf, size_t len)
{
	size_t n =
		iov_read(r->chain->iov, r->chain->nreadable, r->at, buf, len);

	r->at += n;
	return n == len;
}

static bool get16(struct reader *r, uint16_t *ret)
{
	bool had = get(r, ret, sizeof(*ret));

	*ret = le16toh(*ret);
	return had;
}

static bool set_rx_mode(struct net *net, uint8_t number, struct reader *r)
{
	struct net_filter *f = &net->filter;
	bool *const modes[] = {
		[RX_PROMISC] = &f->promisc, [RX_ALLMULTI] = &f->allmulti,
		[RX_ALLUNI] = &f->alluni,   [RX_NOMULTI] = &f->nomulti,
		[RX_NOUNI] = &f->nouni,	    [RX_NOBCAST] = &f->nobcast,
	};
	unsigned int feature =
		number < RX_ALLUNI ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA;
	uint8_t on;

	if (number >= ARRAY_SIZE(modes) ||
	    !virtio_negotiated(&net->virtio, feature) ||
	    !get(r, &on, sizeof(on)))
		return false;
	*modes[number] = on;
	return true;
}

/*
 * One of the two tables. Entries of the wrong kind are passed over; *@ret_many
 * when there are more than fit.
 */
static bool get_table(struct reader *r, bool multicast, struct net_filter *f,
		      bool *ret_many)
{
	uint32_t entries;
	uint8_t mac[NET_MAC];

	if (!get(r, &entries, sizeof(entries)))
		return false;
	entries = le32toh(entries);
	if (entries > (r->chain->readable - r->at) / NET_MAC)
		return false;
	if (entries > NET_LISTED_MAX - f->nlisted) {
		r->at += entries * (size_t)NET_MAC;
		*ret_many = true;
		return true;
	}
	for (; entries; entries--) {
		if (!get(r, mac, sizeof(mac)))
			return false;
		if (multicast == (mac[0] & 1))
			memcpy(f->listed[f->nlisted++], mac, NET_MAC);
	}
	return true;
}

static bool set_table(struct net *net, struct reader *r)
{
	struct net_filter fresh = net->filter;

	fresh.nlisted = 0;
	fresh.many_uni = false;
	fresh.many_multi = false;
	memset(fresh.listed, 0, sizeof(fresh.listed));
	if (!virtio_negotiated(&net->virtio, NET_F_CTRL_RX) ||
	    !get_table(r, false, &fresh, &fresh.many_uni) ||
	    !get_table(r, true, &fresh, &fresh.many_multi))
		return false;
	net->filter = fresh;
	return true;
}

static bool set_address(struct net *net, struct reader *r)
{
	uint8_t mac[NET_MAC];

	if (!virtio_negotiated(&net->virtio, NET_F_CTRL_MAC_ADDR) ||
	    !get(r, mac, sizeof(mac)) || mac[0] & 1)
		return false;
	memcpy(net->mac, mac, sizeof(mac));
	return true;
}

static bool set_vlan(struct net *net, uint8_t number, struct reader *r)
{
	uint8_t *vlans = net->filter.vlans;
	uint16_t vlan;

	if (!virtio_negotiated(&net->virtio, NET_F_CTRL_VLAN) ||
	    number > VLAN_DEL || !get16(r, &vlan) || vlan >= 4096)
		return false;
	if (number == VLAN_ADD)
		vlans[vlan / 8] |= (uint8_t)(1U << (vlan % 8));
	else
		vlans[vlan / 8] &= (uint8_t) ~(1U << (vlan % 8));
	return true;
}

static bool set_pairs(struct net *net, struct reader *r)
{
	uint16_t pairs;

	if (!virtio_negotiated(&net->virtio, NET_F_MQ) || !get16(r, &pairs) ||
	    !pairs || pairs > net->options.queues)
		return false;
	net->npairs = pairs;
	return true;
}

static bool set_offloads(struct net *net, struct reader *r)
{
	uint64_t may = net->virtio.state.driver_features & NET_GUEST_OFFLOADS;
	uint64_t offloads;

	if (!virtio_negotiated(&net->virtio, NET_F_CTRL_GUEST_OFFLOADS) ||
	    !get(r, &offloads, sizeof(offloads)))
		return false;
	offloads = le64toh(offloads);
	if (offloads & ~may)
		return false;
	net->refused = may & ~offloads;
	return true;
}

static bool execute(struct net *net, struct command command, struct reader *r)
{
	bool first = !command.number;

	switch (command.class) {
	case NET_CTRL_RX:
		return set_rx_mode(net, command.number, r);
	case NET_CTRL_MAC:
		if (command.number == MAC_ADDR_SET)
			return set_address(net, r);
		return command.number == MAC_TABLE_SET && set_table(net, r);
	case NET_CTRL_VLAN:
		return set_vlan(net, command.number, r);
	case NET_CTRL_ANNOUNCE:
		if (!first ||
		    !virtio_negotiated(&net->virtio, NET_F_GUEST_ANNOUNCE))
			return false;
		net->announce = false;
		return true;
	case NET_CTRL_MQ:
		return first && set_pairs(net, r);
	case NET_CTRL_GUEST_OFFLOADS:
		return first && set_offloads(net, r);
	default:
		return false;
	}
}

static void fail(struct net_pair *pair, const char *why)
{
	pair->control.serving = false;
	virtio_fail(&pair->net->virtio, why);
}

/* Return: false when there is no more. */
static bool serve_one(struct net_pair *pair)
{
	struct virtqueue *vq = net_ring(pair, &pair->control);
	struct virtqueue_chain *chain = &pair->chain;
	struct reader reader = { .chain = chain };
	struct command command;
	uint8_t answer;

	if (!virtqueue_pop(vq, chain)) {
		if (vq->broken)
			fail(pair, vq->why);
		return false;
	}
	if (!get(&reader, &command, sizeof(command)) || !chain->writable) {
		virtqueue_unpop(vq, 1);
		fail(pair, "a command is too short, or has no room for its "
			   "answer");
		return false;
	}
	answer = execute(pair->net, command, &reader) ? NET_CTRL_OK
						      : NET_CTRL_ERR;
	/* Whoever sees the answer, sees what it did. */
	atomic_fetch_add(&pair->net->version, 1);
	iov_write(chain->iov + chain->nreadable, chain->nwritable, 0, &answer,
		  sizeof(answer));
	virtqueue_push(vq, chain, sizeof(answer));
	pair->control.given_back = true;
	return true;
}

unsigned int net_control_serve(struct net_pair *pair)
{
	struct virtqueue *vq = net_ring(pair, &pair->control);
	unsigned int n = 0;

	if (!pair->control.serving || (!virtqueue_pending(vq) && !vq->broken))
		return 0;
	pthread_mutex_lock(&pair->net->virtio.dev.lock);
	while (n < BUDGET && serve_one(pair))
		n++;
	pthread_mutex_unlock(&pair->net->virtio.dev.lock);
	return n;
}
