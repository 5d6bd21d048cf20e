// SPDX-License-Identifier: MIT
/*
 * Which states of a network device a guest can bring about; a stream may hold
 * any. What the driver sets by commands it sets after DRIVER_OK, each under the
 * feature that allows it, and a reset takes it all back.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/net_internal.h"

#define VLAN_MAX 4095

static bool has(const struct net_state *s, unsigned int feature)
{
	return s->virtio.status & VIRTIO_DRIVER_OK &&
	       s->virtio.driver_features & VIRTIO_BIT(feature);
}

static bool filter_is_fresh(const struct net_filter *f)
{
	return f->promisc && !f->allmulti && !f->many_uni && !f->many_multi &&
	       !f->nlisted;
}

static bool any_vlan(const struct net_filter *f)
{
	for (size_t i = 0; i < sizeof(f->vlans); i++) {
		if (f->vlans[i])
			return true;
	}
	return false;
}

/* What may be set, was allowed to be. */
static const char *find_unallowed(const struct net *net,
				  const struct net_state *s)
{
	const struct net_filter *f = &s->filter;
	uint64_t took = s->virtio.driver_features & NET_GUEST_OFFLOADS;

	if (!has(s, NET_F_CTRL_MAC_ADDR) &&
	    memcmp(s->mac, net->options.mac, NET_MAC))
		return "mac";
	if (!has(s, NET_F_CTRL_RX) && !filter_is_fresh(f))
		return "filter";
	if (!has(s, NET_F_CTRL_RX_EXTRA) &&
	    (f->alluni || f->nomulti || f->nouni || f->nobcast))
		return "filter.nobcast and the like";
	if (!has(s, NET_F_CTRL_VLAN) && any_vlan(f))
		return "filter.vlans";
	if (!has(s, NET_F_MQ) && s->pairs != 1)
		return "pairs";
	if (s->refused &&
	    (!has(s, NET_F_CTRL_GUEST_OFFLOADS) || s->refused & ~took))
		return "refused";
	if (s->user.len && !net->options.user)
		return "user";
	if (s->announce && !has(s, NET_F_GUEST_ANNOUNCE))
		return "announce";
	if (s->nclaims && !(s->virtio.status & VIRTIO_DRIVER_OK))
		return "claims";
	return NULL;
}

/* Of what is too much to list, nothing is. */
static int check_listed(const struct net *net, const struct net_filter *f,
			struct error *err)
{
	for (uint32_t i = 0; i < f->nlisted; i++) {
		bool multicast = f->listed[i][0] & 1;

		if (multicast ? f->many_multi : f->many_uni)
			return error_set(err, -EINVAL,
					 "%s: filter.listed %u is of a kind "
					 "that has too many to list",
					 net->virtio.dev.id, i);
	}
	return 0;
}

static bool claim_is_good(const struct net_claim *claim)
{
	static const uint8_t rest[12];

	if (claim->mac[0] & 1 || claim->vlan > VLAN_MAX)
		return false;
	return claim->ipv6 || (!claim->router &&
			       !memcmp(claim->address + 4, rest, sizeof(rest)));
}

/* A frame is never half-way when the device is paused. */
static int check_rings(const struct net *net, const struct virtio_state *s,
		       struct error *err)
{
	for (uint32_t i = 0; i < s->nqueues; i++) {
		const struct virtqueue_state *ring = &s->queues[i].ring;

		if (ring->next_avail != ring->next_used)
			return error_set(err, -EINVAL,
					 "%s: queue %u: next_avail %u, "
					 "next_used %u: none is kept here",
					 net->virtio.dev.id, i,
					 ring->next_avail, ring->next_used);
	}
	return 0;
}

int net_check(struct device *dev, const void *state, struct error *err)
{
	const struct net *net = container_of(dev, struct net, virtio.dev);
	const struct net_state *s = state;
	const char *what;
	int rc = virtio_check(&net->virtio, &s->virtio, err);

	if (!rc)
		rc = check_rings(net, &s->virtio, err);
	if (!rc)
		rc = check_listed(net, &s->filter, err);
	if (rc)
		return rc;
	rc = user_state_check(&s->user, err);
	if (rc) {
		error_prefix(err, "%s", dev->id);
		return rc;
	}
	what = find_unallowed(net, s);
	if (what)
		return error_set(err, -EINVAL,
				 "%s: %s is set, and the driver could not",
				 dev->id, what);
	if (!s->pairs || s->pairs > net->options.queues || s->mac[0] & 1)
		return error_set(err, -EINVAL,
				 "%s: pairs %u, mac %02x:…; it has %u pairs "
				 "and no multicast address",
				 dev->id, s->pairs, s->mac[0],
				 net->options.queues);
	for (uint32_t i = 0; i < s->nclaims; i++) {
		if (!claim_is_good(&s->claims[i]))
			return error_set(err, -EINVAL,
					 "%s: claim %u is no address that a "
					 "guest can claim",
					 dev->id, i);
	}
	return 0;
}
