// SPDX-License-Identifier: MIT
/*
 * Which frames the driver gets, and what their headers may say.
 *
 * Headers of frames to be sent come from the guest and are copied once; what
 * passes here is what the host's kernel is asked to believe. Those of frames
 * that come in are the host's, but may be older than the driver: a tap keeps
 * frames for whoever reads next, who may know less than the last reader did.
 *
 * Sections are those of VIRTIO 1.2.
 */
#include <endian.h>
#include <string.h>

#include "devices/virtio/net_internal.h"

#define ETHERTYPE_AT   12
#define ETHERTYPE_VLAN 0x8100
#define VLAN_AT	       14
#define VLAN_ID	       0x0fff

void net_filter_init(struct net_filter *filter)
{
	/* A driver that can't say what it wants gets it all. */
	*filter = (struct net_filter){ .promisc = true };
}

static unsigned int get16(const uint8_t *at)
{
	return (unsigned int)at[0] << 8 | at[1];
}

static bool vlan_passes(const struct net_view *view, const uint8_t *frame,
			size_t len)
{
	unsigned int vlan;

	if (!view->filter_vlans || len < VLAN_AT + 2 ||
	    get16(frame + ETHERTYPE_AT) != ETHERTYPE_VLAN)
		return true;
	vlan = get16(frame + VLAN_AT) & VLAN_ID;
	return view->filter.vlans[vlan / 8] >> (vlan % 8) & 1;
}

static bool is_listed(const struct net_filter *f, const uint8_t *mac)
{
	for (uint32_t i = 0; i < f->nlisted; i++) {
		if (!memcmp(f->listed[i], mac, NET_MAC))
			return true;
	}
	return false;
}

static bool is_broadcast(const uint8_t *mac)
{
	static const uint8_t broadcast[NET_MAC] = { 0xff, 0xff, 0xff,
						    0xff, 0xff, 0xff };

	return !memcmp(mac, broadcast, NET_MAC);
}

bool net_filter_passes(const struct net_view *view, const uint8_t *frame,
		       size_t len)
{
	const struct net_filter *f = &view->filter;

	if (f->promisc)
		return true;
	if (!vlan_passes(view, frame, len))
		return false;
	if (is_broadcast(frame))
		return !f->nobcast;
	if (frame[0] & 1)
		return !f->nomulti &&
		       (f->allmulti || f->many_multi || is_listed(f, frame));
	return !f->nouni &&
	       (f->alluni || f->many_uni ||
		!memcmp(frame, view->mac, NET_MAC) || is_listed(f, frame));
}

/* ---- headers ---- */

/* Section 5.1.6.4. */
bool net_header_receive(const struct net_view *view, struct net_header *header)
{
	uint8_t type = header->gso_type & (uint8_t)~NET_GSO_ECN;

	header->flags &= NET_HDR_NEEDS_CSUM | NET_HDR_DATA_VALID;
	if (!(view->take & TAP_CSUM)) {
		if (header->flags & NET_HDR_NEEDS_CSUM)
			return false;
		header->flags = 0;
	}
	if (header->gso_type & NET_GSO_ECN && !(view->take & TAP_ECN))
		return false;
	switch (type) {
	case NET_GSO_NONE:
		return !header->gso_type;
	case NET_GSO_TCPV4:
		return view->take & TAP_TSO4;
	case NET_GSO_TCPV6:
		return view->take & TAP_TSO6;
	default:
		return false;
	}
}

static bool gso_is_good(const struct net_view *view,
			const struct net_header *header, size_t len)
{
	uint8_t type = header->gso_type & (uint8_t)~NET_GSO_ECN;

	if (header->gso_type & NET_GSO_ECN && !view->ecn)
		return false;
	/* Segments need checksums of their own, and a size. */
	if (!(header->flags & NET_HDR_NEEDS_CSUM) || !header->gso_size ||
	    le16toh(header->hdr_len) > len)
		return false;
	return type == NET_GSO_TCPV4 ? view->tso4
				     : type == NET_GSO_TCPV6 && view->tso6;
}

/* Section 5.1.6.2.1. */
bool net_header_send(const struct net_view *view, struct net_header *header,
		     size_t len)
{
	size_t start = le16toh(header->csum_start);
	size_t end = start + le16toh(header->csum_offset) + 2;

	header->num_buffers = 0;
	header->flags &= NET_HDR_NEEDS_CSUM;
	if (header->flags) {
		if (!view->csum || start < NET_FRAME_MIN || end > len)
			return false;
	} else {
		header->csum_start = 0;
		header->csum_offset = 0;
	}
	if (header->gso_type)
		return gso_is_good(view, header, len);
	/* A hint, of segments alone. */
	header->hdr_len = 0;
	header->gso_size = 0;
	return true;
}
