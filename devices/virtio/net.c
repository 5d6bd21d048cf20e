// SPDX-License-Identifier: MIT
/*
 * The network device; see net.h. Here is what the core, the machine and a move
 * ask of it; frames are the threads'.
 *
 * Threads: the core's calls come under the device's lock and leave orders for
 * the threads. handover() comes without, on a migration's thread.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/net_internal.h"
#include "vmm/log.h"

#define VIRTIO_ID_NET 1
/* Ethernet; PCI 3.0, appendix D. */
#define PCI_CLASS_ETHERNET 0x020000

/* Section 5.1.4. */
struct net_config {
	uint8_t mac[NET_MAC];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
};

_Static_assert(sizeof(struct net_config) == 12, "struct virtio_net_config");

static struct net *dev_to_net(struct device *dev)
{
	return container_of(dev, struct net, virtio.dev);
}

unsigned int net_control_index(const struct net *net)
{
	return virtio_negotiated(&net->virtio, NET_F_MQ)
		       ? 2 * net->options.queues
		       : 2;
}

/* ---- what the core asks ---- */

static void net_config_read(struct virtio *v, uint32_t offset, void *data,
			    unsigned int size)
{
	const struct net *net = net_of(v);
	uint16_t status = 0;
	struct net_config config = {
		.max_virtqueue_pairs = htole16((uint16_t)net->options.queues),
		.mtu = htole16((uint16_t)net->options.mtu),
	};

	if (net->link_up)
		status |= NET_S_LINK_UP;
	if (net->announce)
		status |= NET_S_ANNOUNCE;
	config.status = htole16(status);
	memcpy(config.mac, net->mac, NET_MAC);
	memcpy(data, (uint8_t *)&config + offset, size);
}

/* Only drivers of before VERSION_1 write to it. */
static void net_config_write(struct virtio *v __maybe_unused,
			     uint32_t offset __maybe_unused,
			     const void *data __maybe_unused,
			     unsigned int size __maybe_unused)
{
}

static void net_start_queue(struct virtio *v, unsigned int index)
{
	struct net *net = net_of(v);

	/* What was negotiated is news too. */
	atomic_fetch_add(&net->version, 1);
	net->orders[index].to_start = true;
	net_io_order(net, index);
}

static void net_stop_queue(struct virtio *v, unsigned int index)
{
	net_of(v)->orders[index].to_stop = true;
	net_io_order(net_of(v), index);
}

static void net_forget(struct virtio *v)
{
	struct net *net = net_of(v);

	memcpy(net->mac, net->options.mac, NET_MAC);
	net->announce = false;
	net->npairs = 1;
	net->refused = 0;
	net_filter_init(&net->filter);
	net->nclaims = 0;
	net->announces_left = 0;
	net->arrived = false;
	atomic_fetch_add(&net->version, 1);
	net_io_tell(net);
}

static const struct virtio_ops net_virtio_ops = {
	.id = VIRTIO_ID_NET,
	.class_code = PCI_CLASS_ETHERNET,
	.config_size = sizeof(struct net_config),
	.config_read = net_config_read,
	.config_write = net_config_write,
	.start_queue = net_start_queue,
	.stop_queue = net_stop_queue,
	.forget = net_forget,
};

/* What a tap does for frames, and takes of them. */
#define OFFLOADS                                                               \
	(VIRTIO_BIT(NET_F_CSUM) | NET_GUEST_OFFLOADS |                         \
	 VIRTIO_BIT(NET_F_CTRL_GUEST_OFFLOADS) | VIRTIO_BIT(NET_F_HOST_TSO4) | \
	 VIRTIO_BIT(NET_F_HOST_TSO6) | VIRTIO_BIT(NET_F_HOST_ECN))

#define FEATURES                                                         \
	(VIRTIO_BIT(NET_F_MTU) | VIRTIO_BIT(NET_F_MAC) |                 \
	 VIRTIO_BIT(NET_F_MRG_RXBUF) | VIRTIO_BIT(NET_F_STATUS) |        \
	 VIRTIO_BIT(NET_F_CTRL_VQ) | VIRTIO_BIT(NET_F_CTRL_RX) |         \
	 VIRTIO_BIT(NET_F_CTRL_VLAN) | VIRTIO_BIT(NET_F_CTRL_RX_EXTRA) | \
	 VIRTIO_BIT(NET_F_GUEST_ANNOUNCE) | VIRTIO_BIT(NET_F_CTRL_MAC_ADDR))

static uint64_t features(const struct net_options *options)
{
	return FEATURES | (options->user ? 0 : OFFLOADS) |
	       (options->queues > 1 ? VIRTIO_BIT(NET_F_MQ) : 0);
}

/* ---- state ---- */

static void visit_filter(struct codec *c, struct net_filter *f)
{
	codec_enter(c, "filter");
	codec_bool(c, "promisc", &f->promisc);
	codec_bool(c, "allmulti", &f->allmulti);
	codec_bool(c, "alluni", &f->alluni);
	codec_bool(c, "nomulti", &f->nomulti);
	codec_bool(c, "nouni", &f->nouni);
	codec_bool(c, "nobcast", &f->nobcast);
	codec_bool(c, "many_uni", &f->many_uni);
	codec_bool(c, "many_multi", &f->many_multi);
	codec_count(c, "nlisted", &f->nlisted, NET_LISTED_MAX);
	for (uint32_t i = 0; i < f->nlisted; i++) {
		codec_enter(c, "listed");
		codec_bytes(c, "mac", f->listed[i], NET_MAC);
		codec_leave(c);
	}
	codec_bytes(c, "vlans", f->vlans, sizeof(f->vlans));
	codec_leave(c);
}

static void visit_claim(struct codec *c, struct net_claim *claim)
{
	codec_enter(c, "claim");
	codec_bytes(c, "mac", claim->mac, NET_MAC);
	codec_u16(c, "vlan", &claim->vlan);
	codec_bool(c, "ipv6", &claim->ipv6);
	codec_bool(c, "router", &claim->router);
	codec_bytes(c, "address", claim->address, sizeof(claim->address));
	codec_leave(c);
}

static void visit_user(struct codec *c, struct user_state *user)
{
	codec_enter(c, "user");
	codec_u32(c, "version", &user->version);
	codec_blob(c, "bytes", user->bytes, &user->len, sizeof(user->bytes));
	codec_leave(c);
}

static void net_visit(struct codec *c, void *state)
{
	struct net_state *s = state;

	virtio_visit(c, &s->virtio);
	codec_bytes(c, "mac", s->mac, NET_MAC);
	codec_bool(c, "link_up", &s->link_up);
	codec_bool(c, "announce", &s->announce);
	codec_u16(c, "pairs", &s->pairs);
	codec_u64(c, "refused", &s->refused);
	visit_filter(c, &s->filter);
	codec_count(c, "nclaims", &s->nclaims, NET_CLAIMS_MAX);
	for (uint32_t i = 0; i < s->nclaims; i++)
		visit_claim(c, &s->claims[i]);
	if (c->version >= 2)
		visit_user(c, &s->user);
}

static void net_snapshot(struct device *dev, void *state)
{
	struct net *net = dev_to_net(dev);
	struct net_state *s = state;

	virtio_snapshot(&net->virtio, &s->virtio);
	memcpy(s->mac, net->mac, NET_MAC);
	s->link_up = net->link_up;
	s->announce = net->announce;
	s->pairs = net->npairs;
	s->refused = net->refused;
	s->filter = net->filter;
	s->nclaims = net->nclaims;
	memcpy(s->claims, net->claims, sizeof(s->claims));
	s->user = (struct user_state){ 0 };
	if (tap_user(net->tap))
		user_save(tap_user(net->tap), &s->user);
}

static void net_commit(struct device *dev, const void *state)
{
	struct net *net = dev_to_net(dev);
	const struct net_state *s = state;

	virtio_commit(&net->virtio, &s->virtio);
	memcpy(net->mac, s->mac, NET_MAC);
	net->link_up = s->link_up;
	net->announce = s->announce;
	net->npairs = s->pairs;
	net->refused = s->refused;
	net->filter = s->filter;
	net->nclaims = s->nclaims;
	memcpy(net->claims, s->claims, sizeof(net->claims));
	net->arrived = true;
	if (tap_user(net->tap))
		user_load(tap_user(net->tap), &s->user);
	atomic_fetch_add(&net->version, 1);
}

/* ---- life ---- */

static void net_pause(struct device *dev)
{
	virtio_pause(&dev_to_net(dev)->virtio);
}

static void net_resume(struct device *dev)
{
	struct net *net = dev_to_net(dev);

	if (tap_user(net->tap))
		user_begin(tap_user(net->tap));
	if (net->arrived)
		net_announce_begin(net);
	net->arrived = false;
	virtio_resume(&net->virtio);
	/* It may have been cut where the guest was. */
	if (net->link_up == net->lost) {
		net->link_up = !net->lost;
		virtio_config_changed(&net->virtio);
	}
	net_io_tell(net);
}

static void net_reset(struct device *dev)
{
	virtio_reset(&dev_to_net(dev)->virtio);
}

static int net_handover(struct device *dev, enum device_handover step,
			const uint8_t *session __maybe_unused,
			struct error *err __maybe_unused)
{
	/* The source is paused: what comes from now on is for here. */
	if (step == DEVICE_TAKE)
		tap_hear(dev_to_net(dev)->tap);
	return 0;
}

static unsigned int net_left_behind(struct device *dev)
{
	const struct user *user = tap_user(dev_to_net(dev)->tap);

	return user ? user_connections(user) : 0;
}

/* ---- making and unmaking ---- */

static void net_free(struct device *dev)
{
	struct net *net = dev_to_net(dev);

	/* A VM that is freed while it ran is served still. */
	pthread_mutex_lock(&dev->lock);
	virtio_pause(&net->virtio);
	pthread_mutex_unlock(&dev->lock);
	net_io_free(net);
	virtio_fini(&net->virtio);
	tap_close(net->tap);
	free(net);
}

const struct device_ops net_ops = {
	.type = "virtio-net",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 2,
	.state_size = sizeof(struct net_state),
	.visit = net_visit,
	.snapshot = net_snapshot,
	.check = net_check,
	.commit = net_commit,
	.pause = net_pause,
	.resume = net_resume,
	.reset = net_reset,
	.settle = device_settled,
	.handover = net_handover,
	.left_behind = net_left_behind,
	.free = net_free,
};

static int open_tap(const struct device_env *env, const char *id,
		    const struct net_options *options, struct tap **ret,
		    struct error *err)
{
	struct tap *tap;
	int rc;

	if (!env->taps)
		return error_set(err, -ENODEV, "there are no taps here");
	rc = env->taps->open_tap(env->taps->opaque, id, options->name,
				 options->queues, options->user, &tap, err);
	if (rc)
		return rc;
	if (tap_mtu(tap) >= options->mtu) {
		*ret = tap;
		return 0;
	}
	rc = error_set(err, -EMSGSIZE,
		       "tap %s carries %u bytes here, and the guest sends up "
		       "to %u; `ip link set %s mtu %u`, and what it is joined "
		       "to",
		       tap_name(tap), tap_mtu(tap), options->mtu, tap_name(tap),
		       options->mtu);
	tap_close(tap);
	return rc;
}

static int init(struct net *net, const struct device_env *env,
		const struct device_config *config, struct error *err)
{
	const struct net_options *options = &net->options;
	const struct virtio_params params = {
		.device_ops = &net_ops,
		.ops = &net_virtio_ops,
		.features = features(options),
		.nqueues = 2 * options->queues + 1,
		.queue_size_max = NET_QUEUE_SIZE,
	};
	int rc = virtio_init(&net->virtio, env, config, &params, err);

	if (rc)
		return rc;
	rc = net_io_create(net, env, err);
	if (rc) {
		net_io_free(net);
		virtio_fini(&net->virtio);
		return rc;
	}
	log_info("%s: %s, %u queue%s, MTU %u", config->id, tap_name(net->tap),
		 options->queues, options->queues > 1 ? "s" : "", options->mtu);
	return 0;
}

int net_create(const struct device_env *env, const struct device_config *config,
	       struct device **ret, struct error *err)
{
	struct net *net = calloc(1, sizeof(*net));
	int rc;

	if (!net)
		return error_set(err, -ENOMEM, "out of memory");
	net->link_up = true;
	net->npairs = 1;
	net_filter_init(&net->filter);
	rc = net_options_parse(config->options, &net->options, err);
	memcpy(net->mac, net->options.mac, NET_MAC);
	if (!rc)
		rc = open_tap(env, config->id, &net->options, &net->tap, err);
	if (!rc)
		rc = init(net, env, config, err);
	if (rc) {
		tap_close(net->tap);
		free(net);
		return rc;
	}
	*ret = &net->virtio.dev;
	return 0;
}
