// SPDX-License-Identifier: MIT
/*
 * The network device, as its driver and the network see it. A socket stands for
 * the tap: it keeps messages apart, and its other end is the network.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/socket.h>

#include "devices/virtio/net_internal.h"
#include "tests/unit/tap_rig.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/sandbox.h"

#define MAC	  "52:54:00:12:34:56"
#define HEADER_AT 0x100000ULL /* of frames to send; and commands */
#define DATA	  0x200000ULL /* of the same */
#define BUFFERS	  0x400000ULL /* to receive into; 64 KiB each */
#define STEP	  0x10000ULL

#define RX	0
#define TX	1
#define CONTROL 2
#define QUEUES	3

#define NET_BIT(name) VIRTIO_BIT(NET_F_##name)
#define FEATURES                                                           \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | NET_BIT(MAC) | NET_BIT(STATUS) | \
	 NET_BIT(CSUM) | NET_BIT(GUEST_CSUM) | NET_BIT(HOST_TSO4) |        \
	 NET_BIT(HOST_TSO6) | NET_BIT(GUEST_TSO4) | NET_BIT(CTRL_VQ) |     \
	 NET_BIT(CTRL_RX) | NET_BIT(CTRL_RX_EXTRA) | NET_BIT(CTRL_VLAN) |  \
	 NET_BIT(CTRL_MAC_ADDR) | NET_BIT(CTRL_GUEST_OFFLOADS) |           \
	 NET_BIT(GUEST_ANNOUNCE) | VIRTIO_BIT(VIRTIO_F_RING_RESET))
#define MERGEABLE (FEATURES | NET_BIT(MRG_RXBUF))

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static const uint8_t peer_mac[6] = { 0x52, 0x54, 0, 0xaa, 0xbb, 0xcc };
static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };

/* ---- time that stands still when told to ---- */

static _Atomic uint64_t frozen_ns; /* 0: it goes on */

uint64_t __real_clock_ns(void);
uint64_t __wrap_clock_ns(void);

uint64_t __wrap_clock_ns(void)
{
	uint64_t ns = frozen_ns;

	return ns ? ns : __real_clock_ns();
}

/* ---- a machine with a network card ---- */

static int tap_fds[2]; /* what the next one is made of: ours is [1] */
static const char *tap_options;
static const char *tap_wanted; /* or a real one, of several queues */
static const struct sandbox *sandbox;

static int open_tap(void *opaque __maybe_unused, const char *id,
		    const char *name, unsigned int queues,
		    bool user __maybe_unused, struct tap **ret,
		    struct error *err)
{
	const struct tap_params params = { .name = tap_wanted,
					   .fd = tap_fds[0],
					   .queues = queues };

	ck_assert_str_eq(id, "virtio0");
	ck_assert_str_eq(name, "");
	return tap_open(&params, ret, err);
}

static int create(const struct device_env *env,
		  const struct device_config *config, struct device **ret,
		  struct error *err)
{
	static const struct device_taps taps = { .open_tap = open_tap };
	struct device_env with_tap = *env;
	struct device_config with_options = *config;

	with_tap.taps = &taps;
	with_tap.sandbox = sandbox;
	snprintf(with_options.options, sizeof(with_options.options), "%s",
		 tap_options);
	return net_create(&with_tap, &with_options, ret, err);
}

struct card {
	struct virtio_rig *rig;
	int wire; /* the network's end */
	struct vring rings[QUEUES];
	unsigned int nsent; /* so that each has descriptors of its own */
};

static struct net *net_in(const struct card *card)
{
	return container_of(card->rig->base->dev, struct net, virtio.dev);
}

/* Paused, and without a driver. */
static struct card *card_make_with(const char *options)
{
	struct card *card = calloc(1, sizeof(*card));

	ck_assert_ptr_nonnull(card);
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, tap_fds),
		0);
	tap_options = options;
	card->rig = virtio_rig_new(create, QUEUES + 1);
	card->wire = tap_fds[1];
	return card;
}

static struct card *card_make(void)
{
	return card_make_with("mac=" MAC);
}

static void card_drive(struct card *card, uint64_t features)
{
	negotiate(card->rig, features);
	ck_assert(status_of(card->rig) & VIRTIO_FEATURES_OK);
	enable_msix(card->rig, QUEUES + 1);
	common_write(card->rig, COMMON_CONFIG_VECTOR, QUEUES, 2);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_up_queue(card->rig, i, 64, &card->rings[i]);
	driver_ok(card->rig);
}

static struct card *card_new(uint64_t features)
{
	struct card *card = card_make();

	RIG_OP(card->rig->base, resume);
	card_drive(card, features);
	return card;
}

static void card_free(struct card *card)
{
	virtio_rig_free(card->rig);
	close(card->wire);
	free(card);
}

static void *at(struct card *card, uint64_t gpa)
{
	return memory_hva(card->rig->mem, gpa, 1);
}

static bool is_dirty(struct card *card, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return card->rig->mem->dirty[page / 64] >> (page % 64) & 1;
}

static uint32_t wait_used(struct card *card, unsigned int queue)
{
	uint32_t head, len;

	while (!vring_take(&card->rings[queue], &head, &len))
		sched_yield();
	return len;
}

static uint16_t status_field(struct card *card)
{
	return (uint16_t)peek(card->rig, bar(card->rig, 0) + BAR_DEVICE + 6, 2);
}

static void wait_status(struct card *card, uint16_t status)
{
	while (status_field(card) != status)
		sched_yield();
}

static void wait_broken(struct card *card)
{
	while (!(status_of(card->rig) & VIRTIO_NEEDS_RESET))
		sched_yield();
}

/* ---- frames ---- */

struct frame {
	struct net_header header;
	uint8_t bytes[NET_FRAME_MAX];
	size_t len; /* of bytes */
};

static struct frame *frame_new(const uint8_t *to, const uint8_t *from,
			       unsigned int type, size_t len)
{
	struct frame *f = calloc(1, sizeof(*f));

	ck_assert_ptr_nonnull(f);
	memcpy(f->bytes, to, 6);
	memcpy(f->bytes + 6, from, 6);
	f->bytes[12] = (uint8_t)(type >> 8);
	f->bytes[13] = (uint8_t)type;
	for (size_t i = 14; i < len; i++)
		f->bytes[i] = (uint8_t)(i * 7 + i / 256);
	f->len = len;
	return f;
}

/* The next message on the wire. */
static size_t hear(struct card *card, struct frame *f)
{
	ssize_t n;

	memset(f, 0, sizeof(*f));
	n = recv(card->wire, f, sizeof(f->header) + sizeof(f->bytes), 0);
	ck_assert_int_ge(n, (ssize_t)sizeof(f->header));
	f->len = (size_t)n - sizeof(f->header);
	return f->len;
}

static bool wire_is_quiet(struct card *card)
{
	struct pollfd fd = { .fd = card->wire, .events = POLLIN };

	return poll(&fd, 1, 0) == 0;
}

static void say(struct card *card, const struct frame *f)
{
	size_t len = sizeof(f->header) + f->len;

	ck_assert_int_eq(send(card->wire, f, len, 0), (ssize_t)len);
}

/* Until what was said has been read. */
static void wait_taken(struct card *card)
{
	int left;

	do {
		sched_yield();
		ck_assert_int_eq(ioctl(card->wire, SIOCOUTQ, &left), 0);
	} while (left);
}

/* Header and frame in descriptors cut at @cut. */
static void offer_tx(struct card *card, const struct frame *f, uint32_t cut)
{
	struct vring *ring = &card->rings[TX];
	uint16_t d = (uint16_t)(card->nsent * 2 % 32);
	uint64_t gpa = DATA + card->nsent % 16 * 2 * STEP;
	uint32_t len = (uint32_t)(sizeof(f->header) + f->len);

	card->nsent++;
	memcpy(at(card, gpa), f, len);
	vring_desc(ring, d, gpa, cut, VRING_NEXT, d + 1);
	vring_desc(ring, d + 1, gpa + cut, len - cut, 0, 0);
	vring_offer(ring, d);
	notify(card->rig, TX);
}

static void send_frame(struct card *card, const struct frame *f, uint32_t cut)
{
	offer_tx(card, f, cut);
	ck_assert_uint_eq(wait_used(card, TX), 0);
}

/* Buffer @index, of @len bytes. */
static void offer_rx(struct card *card, uint16_t index, uint32_t len)
{
	vring_desc(&card->rings[RX], index, BUFFERS + index * STEP, len,
		   VRING_WRITE, 0);
	vring_offer(&card->rings[RX], index);
}

static void offer_all(struct card *card, uint16_t count, uint32_t len)
{
	for (uint16_t i = 0; i < count; i++)
		offer_rx(card, i, len);
	notify(card->rig, RX);
}

static struct net_header header_at(struct card *card, uint16_t index)
{
	struct net_header header;

	memcpy(&header, at(card, BUFFERS + index * STEP), sizeof(header));
	return header;
}

static uint8_t command(struct card *card, uint8_t class, uint8_t number,
		       const void *data, uint32_t len)
{
	struct vring *ring = &card->rings[CONTROL];
	uint8_t *bytes = at(card, HEADER_AT);

	bytes[0] = class;
	bytes[1] = number;
	memcpy(bytes + 2, data, len);
	bytes[0x1000] = 0xff;
	vring_desc(ring, 0, HEADER_AT, 1, VRING_NEXT, 1);
	vring_desc(ring, 1, HEADER_AT + 1, len + 1, VRING_NEXT, 2);
	vring_desc(ring, 2, HEADER_AT + 0x1000, 1, VRING_WRITE, 0);
	vring_offer(ring, 0);
	notify(card->rig, CONTROL);
	ck_assert_uint_eq(wait_used(card, CONTROL), 1);
	return bytes[0x1000];
}

static uint8_t set_mode(struct card *card, uint8_t number, uint8_t on)
{
	return command(card, NET_CTRL_RX, number, &on, 1);
}

/* ---- sending ---- */

START_TEST(net_sends_frames_however_they_are_cut)
{
	static const uint32_t cuts[] = { 12, 1, 11, 13, 26, 40 };
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 1514);
	struct frame *got = calloc(1, sizeof(*got));

	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		send_frame(card, f, cuts[i]);
		ck_assert_uint_eq(hear(card, got), 1514);
		ck_assert(!memcmp(got->bytes, f->bytes, f->len));
		ck_assert(!memcmp(&got->header, &f->header, TAP_HEADER));
	}
	/* The vector of the queue, once each: the driver looks each time. */
	ck_assert_uint_ge(card->rig->base->nmsis, 1);
	ck_assert_uint_eq(card->rig->base->msis[0].data, TX);
	free(got);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_sends_large_segments_with_their_headers)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 65536);
	struct frame *got = calloc(1, sizeof(*got));

	f->header = (struct net_header){
		.flags = NET_HDR_NEEDS_CSUM | 0x70,
		.gso_type = NET_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16,
		.num_buffers = 77,
	};
	send_frame(card, f, 12);
	ck_assert_uint_eq(hear(card, got), 65536);
	/* What is not for the network is taken out. */
	f->header.flags = NET_HDR_NEEDS_CSUM;
	f->header.num_buffers = 0;
	ck_assert(!memcmp(&got->header, &f->header, TAP_HEADER));
	ck_assert(!memcmp(got->bytes, f->bytes, f->len));
	free(got);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_drops_frames_whose_headers_make_no_sense)
{
	static const struct net_header bad[] = {
		{ .flags = 1, .csum_start = 1513, .csum_offset = 16 },
		{ .flags = 1, .csum_start = 65535, .csum_offset = 65535 },
		{ .flags = 1, .csum_start = 13, .csum_offset = 0 },
		{ .flags = 1, .csum_start = 1498, .csum_offset = 15 },
		/* No checksum, no size, a header beyond the frame. */
		{ .gso_type = 1, .gso_size = 1448 },
		{ .flags = 1, .gso_type = 1, .csum_start = 34 },
		{ .flags = 1,
		  .gso_type = 1,
		  .csum_start = 34,
		  .gso_size = 1448,
		  .hdr_len = 1515 },
		/* UDP, and TCP with ECN, that were not negotiated; nonsense. */
		{ .flags = 1, .gso_type = 3, .gso_size = 9, .csum_start = 34 },
		{ .flags = 1, .gso_type = 5, .gso_size = 9, .csum_start = 34 },
		{ .flags = 1,
		  .gso_type = 0x81,
		  .gso_size = 9,
		  .csum_start = 34 },
		{ .flags = 1, .gso_type = 7, .gso_size = 9, .csum_start = 34 },
	};
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 1514);
	struct frame *got = calloc(1, sizeof(*got));

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		f->header = bad[i];
		send_frame(card, f, 12);
		ck_assert_msg(wire_is_quiet(card), "header %zu is sent", i);
	}
	f->header = (struct net_header){ 0 };
	/* Too short and too long. */
	f->len = 13;
	send_frame(card, f, 12);
	ck_assert(wire_is_quiet(card));
	f->len = 14;
	send_frame(card, f, 12);
	ck_assert_uint_eq(hear(card, got), 14);
	free(got);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_without_checksums_takes_no_unfinished_ones)
{
	uint64_t plain = VIRTIO_BIT(VIRTIO_F_VERSION_1) | NET_BIT(CTRL_VQ);
	struct card *card = card_new(plain);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 1514);

	f->header.flags = NET_HDR_NEEDS_CSUM;
	f->header.csum_start = 34;
	send_frame(card, f, 12);
	ck_assert(wire_is_quiet(card));
	/* And gives none. */
	offer_all(card, 4, 2048);
	say(card, f);
	f->header = (struct net_header){ .flags = NET_HDR_DATA_VALID };
	f->len = 600;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 612);
	ck_assert_uint_eq(header_at(card, 0).flags, 0);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_breaks_on_chains_that_are_none)
{
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 100);

	for (int which = 0; which < 4; which++) {
		struct card *card = card_new(FEATURES);
		unsigned int queue = which == 0	  ? TX
				     : which == 1 ? RX
						  : CONTROL;
		struct vring *ring = &card->rings[queue];

		/* 11 bytes to send; a buffer that isn't to be written; half a
		 * command; no room for its answer. */
		vring_desc(ring, 0, DATA,
			   which == 0	? 11
			   : which == 2 ? 1
					: 64,
			   which == 2 ? VRING_NEXT : 0, 1);
		vring_desc(ring, 1, DATA + 0x1000, 1, VRING_WRITE, 0);
		vring_offer(ring, 0);
		notify(card->rig, queue);
		wait_broken(card);
		/* A reset heals it. */
		common_write(card->rig, COMMON_STATUS, 0, 1);
		while (status_of(card->rig))
			sched_yield();
		card_drive(card, FEATURES);
		send_frame(card, f, 12);
		ck_assert_uint_eq(hear(card, f), 100);
		card_free(card);
	}
	free(f);
}
END_TEST

/* ---- receiving ---- */

START_TEST(net_receives_a_frame_a_buffer)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 1000);
	struct net_header header;

	offer_all(card, 3, 2048);
	for (uint16_t i = 0; i < 3; i++) {
		f->bytes[20] = (uint8_t)i;
		say(card, f);
		ck_assert_uint_eq(wait_used(card, RX), 1012);
		header = header_at(card, i);
		ck_assert_uint_eq(header.num_buffers, 1);
		ck_assert(!memcmp(at(card, BUFFERS + i * STEP + 12), f->bytes,
				  f->len));
		ck_assert(is_dirty(card, BUFFERS + i * STEP));
	}
	/* One that is longer than a buffer is dropped, and its buffer kept. */
	offer_rx(card, 3, 512);
	offer_rx(card, 4, 2048);
	notify(card->rig, RX);
	say(card, f);
	f->len = 500;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 512);
	ck_assert_uint_eq(header_at(card, 3).num_buffers, 1);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_receives_a_frame_over_several_buffers_at_once)
{
	struct card *card = card_new(MERGEABLE);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 65536);
	size_t done = 0;

	f->header = (struct net_header){ .flags = NET_HDR_NEEDS_CSUM,
					 .gso_type = NET_GSO_TCPV4,
					 .gso_size = 1448,
					 .csum_start = 34,
					 .csum_offset = 16 };
	offer_all(card, 40, 2000);
	say(card, f);
	for (uint16_t i = 0; i < 33; i++) {
		size_t part = MIN(65548 - done, (size_t)2000);

		ck_assert_uint_eq(wait_used(card, RX), part);
		/* Once the first is seen, all are. */
		ck_assert_uint_eq(vring_used_idx(&card->rings[RX]), 33);
		ck_assert(is_dirty(card, BUFFERS + i * STEP));
		if (i)
			ck_assert(!memcmp(at(card, BUFFERS + i * STEP),
					  f->bytes + done - 12, part));
		done += part;
	}
	ck_assert_uint_eq(header_at(card, 0).num_buffers, 33);
	ck_assert_uint_eq(header_at(card, 0).gso_size, 1448);
	f->header = (struct net_header){ 0 };
	f->len = 60;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 72);
	ck_assert_uint_eq(header_at(card, 33).num_buffers, 1);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_holds_a_frame_until_there_are_buffers_for_it)
{
	struct card *card = card_new(MERGEABLE);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 5000);

	frozen_ns = __real_clock_ns();
	offer_all(card, 1, 1500);
	say(card, f);
	wait_taken(card);
	for (uint16_t i = 1; i < 5; i++) {
		ck_assert_uint_eq(vring_used_idx(&card->rings[RX]), 0);
		offer_rx(card, i, 1500);
		notify(card->rig, RX);
	}
	for (uint16_t i = 0; i < 4; i++) {
		ck_assert_uint_eq(wait_used(card, RX), i < 3 ? 1500 : 512);
		ck_assert(!memcmp(at(card, BUFFERS + i * STEP + (i ? 0 : 12)),
				  f->bytes + (i ? i * 1500 - 12 : 0),
				  i == 3 ? 512 : 1488));
	}
	ck_assert_uint_eq(header_at(card, 0).num_buffers, 4);
	f->len = 300;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 312);
	/* Paused while it waits it is lost, and its buffers are not. */
	f->len = 5000;
	offer_rx(card, 5, 1500);
	notify(card->rig, RX);
	say(card, f);
	wait_taken(card);
	RIG_OP(card->rig->base, pause);
	ck_assert(is_dirty(card, BUFFERS + 5 * STEP));
	RIG_OP(card->rig->base, resume);
	f->len = 301;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 313);
	frozen_ns = 0;
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_drops_a_frame_that_never_finds_room)
{
	struct card *card = card_new(MERGEABLE);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 5000);

	offer_all(card, 2, 1500);
	say(card, f);
	f->len = 900;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 912);
	ck_assert_uint_eq(header_at(card, 0).num_buffers, 1);
	/* Nor does a window of crumbs ever fill, or keep the thread busy. */
	for (uint16_t i = 2; i < 64; i++)
		offer_rx(card, i, 1);
	notify(card->rig, RX);
	f->len = 5000;
	say(card, f);
	f->len = 1400;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 1412);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_gives_no_frame_that_the_driver_does_not_know)
{
	static const struct net_header bad[] = {
		{ .gso_type = NET_GSO_TCPV6, .gso_size = 1440 },
		{ .gso_type = 3, .gso_size = 1440 },
		{ .gso_type = NET_GSO_TCPV4 | NET_GSO_ECN, .gso_size = 1440 },
		{ .gso_type = 0x40 },
	};
	struct card *card = card_new(MERGEABLE);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 1200);
	uint64_t none = 0;

	offer_all(card, 60, 2048);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		f->header = bad[i];
		say(card, f);
	}
	/* Less than a header, and less than a frame. */
	ck_assert_int_eq(send(card->wire, f, 5, 0), 5);
	ck_assert_int_eq(send(card->wire, f, 25, 0), 25);
	f->header = (struct net_header){ 0 };
	f->len = 777;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 789);
	/* Nor one that it has stopped to know. */
	ck_assert_uint_eq(command(card, NET_CTRL_GUEST_OFFLOADS, 0, &none, 8),
			  NET_CTRL_OK);
	f->header.flags = NET_HDR_NEEDS_CSUM;
	say(card, f);
	f->header.flags = 0;
	f->len = 778;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 790);
	none = NET_BIT(GUEST_TSO6);
	ck_assert_uint_eq(command(card, NET_CTRL_GUEST_OFFLOADS, 0, &none, 8),
			  NET_CTRL_ERR);
	free(f);
	card_free(card);
}
END_TEST

/* ---- commands ---- */

/* Does a frame to @to come in? One to the guest, which does, follows. */
static bool comes_in(struct card *card, const uint8_t *to, unsigned int type,
		     unsigned int vlan)
{
	struct frame *f = frame_new(to, peer_mac, type, 300);
	struct vring *ring = &card->rings[RX];
	bool came;

	f->bytes[14] = (uint8_t)(vlan >> 8);
	f->bytes[15] = (uint8_t)vlan;
	say(card, f);
	memcpy(f->bytes, guest_mac, 6);
	f->bytes[12] = 8;
	f->bytes[13] = 0;
	f->len = 200;
	say(card, f);
	came = wait_used(card, RX) == 312;
	if (came)
		ck_assert_uint_eq(wait_used(card, RX), 212);
	while (ring->avail_idx < ring->used_idx + 8)
		offer_rx(card, ring->avail_idx % 64, 2048);
	notify(card->rig, RX);
	free(f);
	return came;
}

START_TEST(net_filters_what_the_driver_does_not_want)
{
	static const uint8_t other[6] = { 0x52, 0x54, 0, 9, 9, 9 };
	static const uint8_t group[6] = { 1, 0, 0x5e, 0, 0, 1 };
	static const uint8_t group2[6] = { 1, 0, 0x5e, 0, 0, 2 };
	uint8_t table[4 + 6 + 4 + 6] = { 1 };
	struct card *card = card_new(FEATURES);

	offer_all(card, 8, 2048);
	/* Everything, until the driver has said something. */
	ck_assert(comes_in(card, other, 0x0800, 0));
	ck_assert(comes_in(card, group, 0x0800, 0));
	ck_assert_uint_eq(set_mode(card, 0, 0), NET_CTRL_OK);
	ck_assert(!comes_in(card, other, 0x0800, 0));
	ck_assert(!comes_in(card, group, 0x0800, 0));
	ck_assert(comes_in(card, broadcast, 0x0806, 0));
	memcpy(table + 4, other, 6);
	table[10] = 1;
	memcpy(table + 14, group, 6);
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 0, table, sizeof(table)),
			  NET_CTRL_OK);
	ck_assert(comes_in(card, other, 0x0800, 0));
	ck_assert(comes_in(card, group, 0x0800, 0));
	ck_assert(!comes_in(card, group2, 0x0800, 0));
	ck_assert_uint_eq(set_mode(card, 3, 1), NET_CTRL_OK);
	ck_assert(!comes_in(card, group, 0x0800, 0));
	ck_assert_uint_eq(set_mode(card, 3, 0), NET_CTRL_OK);
	ck_assert_uint_eq(set_mode(card, 1, 1), NET_CTRL_OK);
	ck_assert(comes_in(card, group2, 0x0800, 0));
	ck_assert_uint_eq(set_mode(card, 5, 1), NET_CTRL_OK);
	ck_assert(!comes_in(card, broadcast, 0x0806, 0));
	ck_assert_uint_eq(set_mode(card, 2, 1), NET_CTRL_OK);
	ck_assert(comes_in(card, peer_mac, 0x0800, 0));
	ck_assert_uint_eq(set_mode(card, 6, 1), NET_CTRL_ERR);
	card_free(card);
}
END_TEST

START_TEST(net_filters_vlans_that_were_not_named)
{
	struct card *card = card_new(FEATURES);
	uint16_t vlan = 100;

	offer_all(card, 8, 2048);
	ck_assert_uint_eq(set_mode(card, 0, 0), NET_CTRL_OK);
	ck_assert(!comes_in(card, guest_mac, 0x8100, 100));
	ck_assert_uint_eq(command(card, NET_CTRL_VLAN, 0, &vlan, 2),
			  NET_CTRL_OK);
	/* Whatever its priority. */
	ck_assert(comes_in(card, guest_mac, 0x8100, 0xe000 | 100));
	ck_assert(!comes_in(card, guest_mac, 0x8100, 101));
	ck_assert_uint_eq(command(card, NET_CTRL_VLAN, 1, &vlan, 2),
			  NET_CTRL_OK);
	ck_assert(!comes_in(card, guest_mac, 0x8100, 100));
	vlan = 4096;
	ck_assert_uint_eq(command(card, NET_CTRL_VLAN, 0, &vlan, 2),
			  NET_CTRL_ERR);
	card_free(card);
}
END_TEST

START_TEST(net_takes_all_frames_when_more_are_listed_than_it_keeps)
{
	uint8_t table[4 + 65 * 6 + 4] = { 65 };
	struct card *card = card_new(FEATURES);

	offer_all(card, 8, 2048);
	ck_assert_uint_eq(set_mode(card, 0, 0), NET_CTRL_OK);
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 0, table, sizeof(table)),
			  NET_CTRL_OK);
	ck_assert(comes_in(card, peer_mac, 0x0800, 0));
	/* A table that ends before it says so is none. */
	table[0] = 66;
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 0, table, sizeof(table)),
			  NET_CTRL_ERR);
	memset(table, 0xff, 4);
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 0, table, sizeof(table)),
			  NET_CTRL_ERR);
	memset(table, 0, sizeof(table));
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 0, table, 8),
			  NET_CTRL_OK);
	ck_assert(!comes_in(card, peer_mac, 0x0800, 0));
	card_free(card);
}
END_TEST

START_TEST(net_shows_its_address_link_and_mtu)
{
	struct card *card = card_new(FEATURES);
	uint64_t base = bar(card->rig, 0) + BAR_DEVICE;
	uint8_t mac[6] = { 2, 0, 0, 0, 0, 7 };
	uint16_t pairs = 1;

	for (unsigned int i = 0; i < 6; i++)
		ck_assert_uint_eq(peek(card->rig, base + i, 1), guest_mac[i]);
	ck_assert_uint_eq(status_field(card), NET_S_LINK_UP);
	ck_assert_uint_eq(peek(card->rig, base + 8, 2), 1);
	ck_assert_uint_eq(peek(card->rig, base + 10, 2), 1500);
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 1, mac, 6), NET_CTRL_OK);
	ck_assert_uint_eq(peek(card->rig, base, 4), 2);
	ck_assert_uint_eq(peek(card->rig, base + 4, 2), 0x700);
	mac[0] = 1;
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 1, mac, 6), NET_CTRL_ERR);
	ck_assert_uint_eq(command(card, NET_CTRL_MAC, 1, mac, 5), NET_CTRL_ERR);
	ck_assert_uint_eq(command(card, NET_CTRL_MQ, 0, &pairs, 2),
			  NET_CTRL_ERR);
	ck_assert_uint_eq(command(card, 9, 0, &pairs, 2), NET_CTRL_ERR);
	/* A driver that leaves takes its address with it. */
	common_write(card->rig, COMMON_STATUS, 0, 1);
	while (status_of(card->rig))
		sched_yield();
	ck_assert_uint_eq(peek(card->rig, base, 1), guest_mac[0]);
	card_free(card);
}
END_TEST

START_TEST(net_link_goes_down_with_the_tap)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 100);

	offer_all(card, 4, 2048);
	shutdown(card->wire, SHUT_RDWR);
	wait_status(card, 0);
	while (!card->rig->base->nmsis)
		sched_yield();
	ck_assert_uint_eq(card->rig->base->msis[0].data, QUEUES);
	/* What is sent goes nowhere, and nothing waits. */
	send_frame(card, f, 12);
	RIG_OP(card->rig->base, pause);
	RIG_OP(card->rig->base, resume);
	send_frame(card, f, 12);
	ck_assert_uint_eq(status_field(card), 0);
	free(f);
	card_free(card);
}
END_TEST

/* ---- several pairs ---- */

#define PAIRS 3

struct multi {
	struct virtio_rig *rig;
	int wire;
	struct vring rings[2 * PAIRS + 1];
	unsigned int control;
};

static void multi_drive(struct multi *m, uint64_t features,
			unsigned int nqueues)
{
	negotiate(m->rig, features);
	for (unsigned int i = 0; i < nqueues; i++)
		set_up_queue(m->rig, i, 64, &m->rings[i]);
	driver_ok(m->rig);
	m->control = nqueues - 1;
}

static bool multi_init(struct multi *m)
{
	if (!tap_rig_enter())
		return false;
	ck_assert_int_eq(tap_rig_make("many", IFF_MULTI_QUEUE), 0);
	tap_wanted = "many";
	tap_options = "mac=" MAC ",queues=3";
	m->rig = virtio_rig_new(create, 2 * PAIRS + 2);
	m->wire = tap_rig_wire("many");
	RIG_OP(m->rig->base, resume);
	return true;
}

static void multi_fini(struct multi *m)
{
	virtio_rig_free(m->rig);
	close(m->wire);
	tap_wanted = NULL;
}

static uint8_t multi_set_pairs(struct multi *m, uint16_t pairs)
{
	struct vring *ring = &m->rings[m->control];
	uint8_t *bytes = memory_hva(m->rig->mem, HEADER_AT, 8);
	uint32_t head, len;

	bytes[0] = NET_CTRL_MQ;
	bytes[1] = 0;
	memcpy(bytes + 2, &pairs, 2);
	vring_desc(ring, 0, HEADER_AT, 4, VRING_NEXT, 1);
	vring_desc(ring, 1, HEADER_AT + 4, 1, VRING_WRITE, 0);
	vring_offer(ring, 0);
	notify(m->rig, m->control);
	while (!vring_take(ring, &head, &len))
		sched_yield();
	return bytes[4];
}

/* Send by @pair until that comes out; the host says things of its own too. */
static void multi_send(struct multi *m, unsigned int pair, uint8_t mark)
{
	struct vring *ring = &m->rings[2 * pair + 1];
	uint8_t *bytes = memory_hva(m->rig->mem, DATA + pair * STEP, 76);
	uint8_t got[128];

	memset(bytes, 0, 12);
	tap_rig_fill(bytes + 12, mark);
	vring_desc(ring, 0, DATA + pair * STEP, 76, 0, 0);
	vring_offer(ring, 0);
	notify(m->rig, 2 * pair + 1);
	ck_assert_int_eq(recv(m->wire, got, sizeof(got), 0), 64);
	ck_assert_uint_eq(got[63], mark);
}

/* A frame to the guest; the pair that has it. */
static unsigned int multi_receive(struct multi *m, uint8_t mark)
{
	uint32_t head, len;

	tap_rig_send(m->wire, mark);
	for (unsigned int pair = 0;; pair = (pair + 1) % PAIRS) {
		struct vring *ring = &m->rings[2 * pair];
		uint64_t gpa = BUFFERS + pair * 64 * STEP;
		const uint8_t *bytes;

		if (!ring->mem || !vring_take(ring, &head, &len)) {
			sched_yield();
			continue;
		}
		bytes = memory_hva(m->rig->mem, gpa + head * 2048ULL, 76);
		vring_offer(ring, (uint16_t)head);
		notify(m->rig, 2 * pair);
		if (len == 76 && bytes[75] == mark &&
		    bytes[24] == TAP_RIG_ETHERTYPE >> 8)
			return pair;
	}
}

static void multi_offer(struct multi *m, unsigned int pair)
{
	uint64_t gpa = BUFFERS + pair * 64 * STEP;

	for (uint16_t i = 0; i < 64; i++) {
		vring_desc(&m->rings[2 * pair], i, gpa + i * 2048ULL, 2048,
			   VRING_WRITE, 0);
		vring_offer(&m->rings[2 * pair], i);
	}
	notify(m->rig, 2 * pair);
}

START_TEST(net_uses_the_pairs_that_the_driver_asks_for)
{
	struct multi m = { 0 };

	if (!multi_init(&m))
		return;
	multi_drive(&m, FEATURES | NET_BIT(MQ), 2 * PAIRS + 1);
	for (unsigned int i = 0; i < PAIRS; i++)
		multi_offer(&m, i);
	for (uint8_t i = 1; i < 50; i++)
		ck_assert_uint_eq(multi_receive(&m, i), 0);
	multi_send(&m, 0, 50);
	ck_assert_uint_eq(multi_set_pairs(&m, 0), NET_CTRL_ERR);
	ck_assert_uint_eq(multi_set_pairs(&m, PAIRS + 1), NET_CTRL_ERR);
	ck_assert_uint_eq(multi_set_pairs(&m, PAIRS), NET_CTRL_OK);
	for (unsigned int i = 0; i < PAIRS; i++)
		multi_send(&m, i, (uint8_t)(60 + i));
	for (uint8_t i = 1; i < 50; i++)
		(void)multi_receive(&m, i);
	/* In the pause nothing is on its way; then it goes on as it was. */
	RIG_OP(m.rig->base, pause);
	RIG_OP(m.rig->base, resume);
	multi_send(&m, 2, 70);
	ck_assert_uint_eq(multi_set_pairs(&m, 1), NET_CTRL_OK);
	RIG_OP(m.rig->base, pause);
	RIG_OP(m.rig->base, resume);
	for (uint8_t i = 1; i < 50; i++)
		ck_assert_uint_eq(multi_receive(&m, i), 0);
	ck_assert_uint_eq(status_of(m.rig) & VIRTIO_NEEDS_RESET, 0);
	multi_fini(&m);
}
END_TEST

START_TEST(net_has_its_commands_after_the_first_pair_without_multiqueue)
{
	struct multi m = { 0 };

	if (!multi_init(&m))
		return;
	multi_drive(&m, FEATURES | NET_BIT(MQ), 2 * PAIRS + 1);
	ck_assert_uint_eq(multi_set_pairs(&m, PAIRS), NET_CTRL_OK);
	common_write(m.rig, COMMON_STATUS, 0, 1);
	while (status_of(m.rig))
		sched_yield();
	/* The next driver knows one pair, and sets up a queue too many. */
	multi_drive(&m, FEATURES, 4);
	m.control = CONTROL;
	multi_offer(&m, 0);
	ck_assert_uint_eq(multi_set_pairs(&m, 1), NET_CTRL_ERR);
	for (uint8_t i = 1; i < 50; i++)
		ck_assert_uint_eq(multi_receive(&m, i), 0);
	multi_send(&m, 0, 77);
	notify(m.rig, 3);
	RIG_OP(m.rig->base, pause);
	RIG_OP(m.rig->base, resume);
	multi_send(&m, 0, 78);
	multi_fini(&m);
}
END_TEST

START_TEST(net_link_goes_down_when_the_tap_is_deleted)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct virtio_rig *rig;
	struct vring rings[2];

	if (!tap_rig_enter())
		return;
	tap_fds[0] = open("/dev/net/tun", O_RDWR);
	ck_assert_int_eq(ioctl(tap_fds[0], TUNSETIFF, &ifr), 0);
	tap_options = "mac=" MAC;
	rig = virtio_rig_new(create, 4);
	RIG_OP(rig->base, resume);
	negotiate(rig, FEATURES);
	for (unsigned int i = 0; i < 2; i++)
		set_up_queue(rig, i, 64, &rings[i]);
	driver_ok(rig);
	vring_desc(&rings[0], 0, BUFFERS, 2048, VRING_WRITE, 0);
	vring_offer(&rings[0], 0);
	notify(rig, 0);
	ck_assert_uint_eq(peek(rig, bar(rig, 0) + BAR_DEVICE + 6, 2), 1);
	tap_rig_delete(ifr.ifr_name);
	while (peek(rig, bar(rig, 0) + BAR_DEVICE + 6, 2))
		sched_yield();
	virtio_rig_free(rig);
}
END_TEST

/* ---- moves ---- */

static struct net_state *save(struct card *card)
{
	struct net_state *before = calloc(1, sizeof(*before));
	struct net_state *state = calloc(1, sizeof(*state));

	RIG_OP(card->rig->base, pause);
	RIG_OP(card->rig->base, snapshot, before);
	rig_wire(card->rig->base, before, state);
	free(before);
	return state;
}

/* The same guest on another host. */
static struct card *move(struct card *card)
{
	struct net_state *state = save(card);
	struct card *target = card_make();
	struct error err = { "" };
	struct frame *stale;

	memcpy(target->rings, card->rings, sizeof(card->rings));
	for (unsigned int i = 0; i < QUEUES; i++)
		target->rings[i].mem = target->rig->mem;
	target->nsent = card->nsent;
	memcpy(at(target, 0), at(card, 0), VIRTIO_RIG_RAM);
	ck_assert_msg(rig_accepts(target->rig->base, state), "state");
	RIG_OP(target->rig->base, commit, state);
	/* The network sends to both while it doesn't know: to be dropped. */
	stale = frame_new(broadcast, peer_mac, 0x0806, 99);
	say(target, stale);
	free(stale);
	ck_assert_int_eq(
		target->rig->base->dev->ops->handover(target->rig->base->dev,
						      DEVICE_TAKE, NULL, &err),
		0);
	free(state);
	card_free(card);
	return target;
}

START_TEST(net_loses_no_frame_and_gives_none_twice_across_a_move)
{
	struct card *card = card_new(MERGEABLE);
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 400);
	struct net_state *state;

	offer_all(card, 20, 2048);
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 412);
	state = save(card);
	/* Chains that were taken ahead have gone back. */
	for (unsigned int i = 0; i < QUEUES; i++)
		ck_assert_uint_eq(state->virtio.queues[i].ring.next_avail,
				  state->virtio.queues[i].ring.next_used);
	ck_assert_uint_eq(state->virtio.queues[RX].ring.next_used, 1);
	free(state);
	/* What comes in the pause waits, if the guest stays. */
	f->len = 401;
	say(card, f);
	offer_tx(card, f, 12);
	RIG_OP(card->rig->base, resume);
	ck_assert_uint_eq(wait_used(card, RX), 413);
	ck_assert_uint_eq(wait_used(card, TX), 0);
	ck_assert_uint_eq(hear(card, f), 401);
	/* And doesn't come along if it goes. */
	RIG_OP(card->rig->base, pause);
	say(card, f);
	card = move(card);
	RIG_OP(card->rig->base, resume);
	f->len = 402;
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 414);
	ck_assert_uint_eq(header_at(card, 2).num_buffers, 1);
	free(f);
	card_free(card);
}
END_TEST

/* The guest claims 10.0.0.7 and fe80::7 for itself, 10.0.1.9 in VLAN 5. */
static void claim_addresses(struct card *card)
{
	static const uint8_t arp[28] = { 0,  1,	   8,	 0,  6,	   4,	 0,
					 1,  0x52, 0x54, 0,  0x12, 0x34, 0x56,
					 10, 0,	   0,	 7,  0,	   0,	 0,
					 0,  0,	   0,	 10, 0,	   0,	 1 };
	static const uint8_t ip6[] = {
		0x60, 0, 0, 0, 0, 32, 58, 255, 0xfe, 0x80
	};
	struct frame *f = frame_new(broadcast, guest_mac, 0x0806, 60);

	memcpy(f->bytes + 14, arp, sizeof(arp));
	send_frame(card, f, 12);
	memmove(f->bytes + 16, f->bytes + 12, 40);
	memcpy(f->bytes + 12, (uint8_t[]){ 0x81, 0, 0x20, 5 }, 4);
	memcpy(f->bytes + 18 + 14, (uint8_t[]){ 10, 0, 1, 9 }, 4);
	send_frame(card, f, 20);
	free(f);
	/* A neighbour advertisement, from a router. */
	f = frame_new(broadcast, guest_mac, 0x86dd, 86);
	memset(f->bytes + 14, 0, 72);
	memcpy(f->bytes + 14, ip6, sizeof(ip6));
	f->bytes[14 + 23] = 7;
	f->bytes[54] = 136;
	f->bytes[58] = 0xc0;
	f->bytes[62] = 0xfe;
	f->bytes[63] = 0x80;
	f->bytes[77] = 7;
	send_frame(card, f, 12);
	/* A probe claims nothing, nor does anything else. */
	memset(f->bytes + 14, 0, 72);
	memcpy(f->bytes + 14, arp, sizeof(arp));
	memset(f->bytes + 14 + 14, 0, 4);
	f->bytes[12] = 8;
	f->bytes[13] = 6;
	send_frame(card, f, 12);
	f->bytes[13] = 0;
	send_frame(card, f, 12);
	for (unsigned int i = 0; i < 5; i++)
		hear(card, f);
	free(f);
}

/* The ones' complement sum of a packet whose checksum is right is all ones. */
static void check_icmpv6(const uint8_t *ip)
{
	uint32_t sum = 58 + 32;

	for (unsigned int i = 8; i < 72; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ck_assert_uint_eq(sum, 0xffff);
}

static void hear_round(struct card *card, struct frame *f)
{
	/* The latest claim comes first: the router's. */
	ck_assert_uint_eq(hear(card, f), 86);
	ck_assert(!memcmp(f->bytes + 6, guest_mac, 6));
	ck_assert_uint_eq(f->bytes[54], 136);
	ck_assert_uint_eq(f->bytes[58], 0xa0);
	ck_assert_uint_eq(f->bytes[77], 7);
	ck_assert(!memcmp(f->bytes + 80, guest_mac, 6));
	check_icmpv6(f->bytes + 14);
	ck_assert_uint_eq(hear(card, f), 60);
	ck_assert(
		!memcmp(f->bytes + 12, (uint8_t[]){ 0x81, 0, 0, 5, 8, 6 }, 6));
	ck_assert(!memcmp(f->bytes + 18 + 24, (uint8_t[]){ 10, 0, 1, 9 }, 4));
	ck_assert_uint_eq(hear(card, f), 60);
	ck_assert(!memcmp(f->bytes, broadcast, 6));
	ck_assert(!memcmp(f->bytes + 6, guest_mac, 6));
	ck_assert(!memcmp(f->bytes + 12, (uint8_t[]){ 8, 6 }, 2));
	ck_assert(!memcmp(f->bytes + 20, (uint8_t[]){ 0, 1 }, 2));
	ck_assert(!memcmp(f->bytes + 22, guest_mac, 6));
	ck_assert(!memcmp(f->bytes + 28, (uint8_t[]){ 10, 0, 0, 7 }, 4));
	ck_assert(!memcmp(f->bytes + 38, (uint8_t[]){ 10, 0, 0, 7 }, 4));
}

START_TEST(net_announces_what_the_guest_claimed_at_the_target)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = calloc(1, sizeof(*f));

	claim_addresses(card);
	card = move(card);
	ck_assert(wire_is_quiet(card));
	RIG_OP(card->rig->base, resume);
	hear_round(card, f);
	/* The driver is asked, and has done it when it says so. */
	wait_status(card, NET_S_LINK_UP | NET_S_ANNOUNCE);
	for (unsigned int i = 1; i < 5; i++)
		hear_round(card, f);
	while (net_in(card)->announces_left)
		sched_yield();
	ck_assert_uint_eq(command(card, NET_CTRL_ANNOUNCE, 0, "", 0),
			  NET_CTRL_OK);
	ck_assert_uint_eq(status_field(card), NET_S_LINK_UP);
	/* A pause is no move. */
	RIG_OP(card->rig->base, pause);
	RIG_OP(card->rig->base, resume);
	ck_assert_uint_eq(command(card, NET_CTRL_ANNOUNCE, 0, "", 0),
			  NET_CTRL_OK);
	ck_assert(wire_is_quiet(card));
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_announces_an_adapter_that_claimed_nothing_by_rarp)
{
	struct card *card = card_make();
	struct frame *f = calloc(1, sizeof(*f));

	/* Moved before a driver came. */
	card = move(card);
	RIG_OP(card->rig->base, resume);
	for (unsigned int i = 0; i < 5; i++) {
		ck_assert_uint_eq(hear(card, f), 60);
		ck_assert(!memcmp(f->bytes, broadcast, 6));
		ck_assert(!memcmp(f->bytes + 6, guest_mac, 6));
		ck_assert(!memcmp(f->bytes + 12, (uint8_t[]){ 0x80, 0x35 }, 2));
		ck_assert_uint_eq(f->bytes[21], 3);
		ck_assert(!memcmp(f->bytes + 22, guest_mac, 6));
		ck_assert(!memcmp(f->bytes + 32, guest_mac, 6));
	}
	ck_assert_uint_eq(net_in(card)->virtio.state.status, 0);
	card_free(card);
	free(f);
}
END_TEST

START_TEST(net_says_nothing_more_when_it_has_been_paused)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = calloc(1, sizeof(*f));

	card = move(card);
	RIG_OP(card->rig->base, resume);
	hear(card, f);
	/* On to the next host: this one is silent at once. */
	RIG_OP(card->rig->base, pause);
	while (!wire_is_quiet(card))
		hear(card, f);
	/* Also when the time has come, as often as it looks. */
	frozen_ns = __real_clock_ns() + 10 * NS_PER_S;
	for (int i = 0; i < 2; i++) {
		net_io_tell(net_in(card));
		while (net_in(card)->pairs[0].told)
			sched_yield();
	}
	ck_assert(wire_is_quiet(card));
	frozen_ns = 0;
	card = move(card);
	ck_assert(wire_is_quiet(card));
	RIG_OP(card->rig->base, resume);
	for (unsigned int i = 0; i < 5; i++)
		ck_assert_uint_eq(hear(card, f), 60);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_keeps_the_latest_claims_of_a_guest_that_makes_many)
{
	struct card *card = card_new(FEATURES);
	struct net *net = net_in(card);
	struct frame *f = frame_new(broadcast, guest_mac, 0x0806, 60);

	memset(f->bytes + 14, 0, 46);
	memcpy(f->bytes + 14, (uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 2 }, 8);
	memcpy(f->bytes + 22, guest_mac, 6);
	for (unsigned int i = 0; i < 300; i++) {
		f->bytes[28] = 10;
		f->bytes[30] = (uint8_t)(i / 200);
		f->bytes[31] = (uint8_t)(i % 200);
		send_frame(card, f, 12);
		ck_assert_uint_eq(hear(card, f), 60);
	}
	RIG_OP(card->rig->base, pause);
	ck_assert_uint_eq(net->nclaims, NET_CLAIMS_MAX);
	for (unsigned int i = 0; i < NET_CLAIMS_MAX; i++)
		ck_assert_uint_eq(net->claims[i].address[3], 99 - i);
	free(f);
	card_free(card);
}
END_TEST

START_TEST(net_state_travels_whole)
{
	static const uint8_t group[6] = { 1, 0, 0x5e, 0, 0, 1 };
	uint8_t table[4 + 4 + 6] = { 0, 0, 0, 0, 1 };
	uint8_t mac[6] = { 2, 0, 0, 0, 0, 7 };
	uint64_t csum = NET_BIT(GUEST_CSUM);
	uint16_t vlan = 9;
	struct card *card = card_new(FEATURES);
	struct net_state *state;

	claim_addresses(card);
	memcpy(table + 8, group, 6);
	ck_assert(!set_mode(card, 0, 0));
	ck_assert(!set_mode(card, 4, 1));
	ck_assert(!command(card, NET_CTRL_MAC, 0, table, sizeof(table)));
	ck_assert(!command(card, NET_CTRL_MAC, 1, mac, 6));
	ck_assert(!command(card, NET_CTRL_VLAN, 0, &vlan, 2));
	ck_assert(!command(card, NET_CTRL_GUEST_OFFLOADS, 0, &csum, 8));
	card = move(card);
	state = save(card);
	ck_assert(!state->filter.promisc && state->filter.nouni);
	ck_assert_uint_eq(state->filter.nlisted, 1);
	ck_assert(!memcmp(state->filter.listed[0], group, 6));
	ck_assert_uint_eq(state->filter.vlans[1], 2);
	ck_assert(!memcmp(state->mac, mac, 6));
	ck_assert_uint_eq(state->refused, NET_BIT(GUEST_TSO4));
	ck_assert_uint_eq(state->nclaims, 3);
	ck_assert(state->claims[0].router && state->claims[0].ipv6);
	ck_assert_uint_eq(state->claims[1].vlan, 5);
	free(state);
	card_free(card);
}
END_TEST

START_TEST(a_card_of_the_user_kind_offers_no_offloads)
{
	static const unsigned int absent[] = {
		NET_F_CSUM,	  NET_F_GUEST_CSUM, NET_F_CTRL_GUEST_OFFLOADS,
		NET_F_GUEST_TSO4, NET_F_GUEST_TSO6, NET_F_GUEST_ECN,
		NET_F_HOST_TSO4,  NET_F_HOST_TSO6,  NET_F_HOST_ECN,
	};
	struct card *card = card_make_with("mac=" MAC ",kind=user");
	uint64_t offered = net_in(card)->virtio.features;
	struct card *tap = card_make();
	struct net_state *state;

	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		ck_assert(!(offered & VIRTIO_BIT(absent[i])));
		offered |= VIRTIO_BIT(absent[i]);
	}
	ck_assert_uint_eq(offered, net_in(tap)->virtio.features);
	/* Only of this kind does anything move that a network knows. */
	state = save(card);
	state->user.version = 4;
	state->user.len = 131;
	memset(state->user.bytes, 0, sizeof(state->user.bytes));
	ck_assert(rig_accepts(card->rig->base, state));
	state->user.bytes[0] = 1;
	ck_assert(!rig_accepts(card->rig->base, state));
	state->user.bytes[0] = 0;
	ck_assert(!rig_accepts(tap->rig->base, state));
	free(state);
	card_free(tap);
	card_free(card);
}
END_TEST

START_TEST(what_is_sent_to_a_socket_that_is_gone_takes_the_link_down)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 100);

	/* No buffer waits for what could be read. */
	shutdown(card->wire, SHUT_RDWR);
	send_frame(card, f, 12);
	wait_status(card, 0);
	free(f);
	card_free(card);
}
END_TEST

/* A driver's life, a step at a time. */
static void drive_step(struct card *card, unsigned int step)
{
	switch (step) {
	case 0:
		config_write(card->rig, PCI_COMMAND,
			     PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
		break;
	case 1:
		common_write(card->rig, COMMON_STATUS,
			     VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
		break;
	case 2:
		common_write(card->rig, COMMON_DRIVER_FEATURE_SELECT, 1, 4);
		common_write(card->rig, COMMON_DRIVER_FEATURE, MERGEABLE >> 32,
			     4);
		break;
	case 3:
		common_write(card->rig, COMMON_DRIVER_FEATURE_SELECT, 0, 4);
		common_write(card->rig, COMMON_DRIVER_FEATURE,
			     (uint32_t)MERGEABLE, 4);
		break;
	case 4:
		common_write(card->rig, COMMON_STATUS,
			     VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER |
				     VIRTIO_FEATURES_OK,
			     1);
		break;
	case 5:
	case 6:
	case 7:
		set_up_queue(card->rig, step - 5, 64, &card->rings[step - 5]);
		break;
	case 8:
		driver_ok(card->rig);
		break;
	case 9:
		offer_all(card, 64, 2048);
		break;
	default:
		ck_assert(!set_mode(card, 0, 0));
		break;
	}
}

#define DRIVE_STEPS 11

/* The next frame that is not the host's own announcement. */
static void hear_guest(struct card *card, struct frame *f)
{
	do
		hear(card, f);
	while (f->bytes[12] == 0x80 && f->bytes[13] == 0x35);
}

START_TEST(net_moves_at_every_step_of_its_driver)
{
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 300);
	struct frame *got = calloc(1, sizeof(*got));

	for (unsigned int when = 0; when <= DRIVE_STEPS; when++) {
		struct card *card = card_make();

		RIG_OP(card->rig->base, resume);
		for (unsigned int i = 0; i < when; i++)
			drive_step(card, i);
		card = move(card);
		RIG_OP(card->rig->base, resume);
		for (unsigned int i = when; i < DRIVE_STEPS; i++)
			drive_step(card, i);
		say(card, f);
		ck_assert_uint_eq(wait_used(card, RX), 312);
		send_frame(card, f, 12);
		hear_guest(card, got);
		ck_assert_uint_eq(got->len, 300);
		/* And a machine that is reset after all that. */
		RIG_OP(card->rig->base, pause);
		RIG_OP(card->rig->base, reset);
		card = move(card);
		RIG_OP(card->rig->base, resume);
		card->nsent = 0;
		for (unsigned int i = 0; i < DRIVE_STEPS; i++)
			drive_step(card, i);
		send_frame(card, f, 12);
		hear_guest(card, got);
		ck_assert_uint_eq(got->len, 300);
		card_free(card);
	}
	free(got);
	free(f);
}
END_TEST

START_TEST(net_moves_with_its_ring_full_of_frames_that_nobody_takes)
{
	struct card *card = card_new(FEATURES);
	struct frame *f = frame_new(peer_mac, guest_mac, 0x0800, 60000);
	struct frame *got = calloc(1, sizeof(*got));
	struct vring *ring = &card->rings[TX];
	unsigned int sent, left = 0;

	/* Until the wire is full and the ring, too. */
	for (sent = 0; left < 16; sent++) {
		offer_tx(card, f, 12);
		for (int i = 0; i < 100; i++)
			sched_yield();
		left = (uint16_t)(ring->avail_idx - vring_used_idx(ring));
	}
	card = move(card);
	ring = &card->rings[TX];
	left = (uint16_t)(ring->avail_idx - vring_used_idx(ring));
	RIG_OP(card->rig->base, resume);
	/* The network there hears the rest of it, each once. */
	for (unsigned int i = 0; i < left; i++) {
		hear_guest(card, got);
		ck_assert_uint_eq(got->len, 60000);
	}
	while (vring_used_idx(ring) != ring->avail_idx)
		sched_yield();
	while (net_in(card)->announces_left)
		sched_yield();
	while (!wire_is_quiet(card)) {
		hear(card, got);
		ck_assert_uint_eq(got->len, 60);
	}
	free(got);
	free(f);
	card_free(card);
}
END_TEST

/* A change to a good state, and whether that is good still. */
#define REFUSES(card, good, change)                               \
	do {                                                      \
		struct net_state *s = malloc(sizeof(*s));         \
                                                                  \
		ck_assert_ptr_nonnull(s);                         \
		*s = *(good);                                     \
		change;                                           \
		ck_assert_msg(!rig_accepts((card)->rig->base, s), \
			      "%s is taken", #change);            \
		free(s);                                          \
	} while (0)

START_TEST(net_state_that_cannot_be_is_refused)
{
	struct card *card = card_new(FEATURES);
	struct net_state *good;
	struct card *fresh;

	claim_addresses(card);
	good = save(card);
	ck_assert(rig_accepts(card->rig->base, good));
	REFUSES(card, good, s->mac[0] = 3);
	REFUSES(card, good, s->pairs = 0);
	REFUSES(card, good, s->pairs = 2);
	REFUSES(card, good, s->refused = NET_BIT(GUEST_TSO6));
	REFUSES(card, good, s->refused = 1ULL << 63);
	REFUSES(card, good, s->filter.nlisted = 1; s->filter.listed[0][0] = 1;
		s->filter.many_multi = true);
	REFUSES(card, good, s->filter.nlisted = 1; s->filter.listed[0][0] = 2;
		s->filter.many_uni = true);
	REFUSES(card, good, s->claims[0].mac[0] |= 1);
	REFUSES(card, good, s->claims[1].vlan = 4096);
	REFUSES(card, good, s->claims[2].address[4] = 1);
	REFUSES(card, good, s->claims[2].router = true);
	REFUSES(card, good, s->virtio.queues[TX].ring.next_avail++);
	/* What came by a feature is nothing without it. */
	REFUSES(card, good, s->virtio.driver_features &= ~NET_BIT(CTRL_RX);
		s->filter.promisc = false);
	REFUSES(card, good,
		s->virtio.driver_features &= ~NET_BIT(CTRL_RX_EXTRA);
		s->filter.nobcast = true);
	REFUSES(card, good, s->virtio.driver_features &= ~NET_BIT(CTRL_VLAN);
		s->filter.vlans[0] = 1);
	REFUSES(card, good,
		s->virtio.driver_features &= ~NET_BIT(GUEST_ANNOUNCE);
		s->announce = true);
	REFUSES(card, good,
		s->virtio.driver_features &= ~NET_BIT(CTRL_MAC_ADDR);
		s->mac[5]++);
	free(good);
	card_free(card);
	fresh = card_make();
	good = save(fresh);
	ck_assert(rig_accepts(fresh->rig->base, good));
	REFUSES(fresh, good, s->nclaims = 1);
	REFUSES(fresh, good, s->announce = true);
	REFUSES(fresh, good, s->mac[5]++);
	REFUSES(fresh, good, s->filter.promisc = false);
	free(good);
	card_free(fresh);
}
END_TEST

/* ---- making ---- */

START_TEST(net_options_are_what_they_say)
{
	static const char *const bad[] = {
		"",
		"queues=1",
		"mac=52:54:00:12:34",
		"mac=52:54:00:12:34:56:78",
		"mac=53:54:00:12:34:56",
		"mac=00:00:00:00:00:00",
		"mac=52-54-00-12-34-56",
		"mac=5:54:00:12:34:560",
		"mac=" MAC ",mac=" MAC,
		"mac=" MAC ",mtu=67",
		"mac=" MAC ",mtu=65536",
		"mac=" MAC ",queues=0",
		"mac=" MAC ",queues=16",
		"mac=" MAC ",queues=+1",
		"mac=" MAC ",name=",
		"mac=" MAC ",name=0123456789abcdef",
		"mac=" MAC ",fast",
		"mac=" MAC ",",
		",mac=" MAC,
	};
	struct net_options o;
	struct error err = { "" };

	ck_assert_int_eq(net_options_parse("mac=" MAC, &o, &err), 0);
	ck_assert(!memcmp(o.mac, guest_mac, 6));
	ck_assert(o.mtu == 1500 && o.queues == 1 && !o.name[0]);
	ck_assert_int_eq(net_options_parse("queues=15,mtu=65535,name=tap0,"
					   "mac=fE:ff:00:aB:34:56",
					   &o, &err),
			 0);
	ck_assert(o.mtu == 65535 && o.queues == 15 && o.mac[0] == 0xfe);
	ck_assert_str_eq(o.name, "tap0");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(net_options_parse(bad[i], &o, &err) == -EINVAL,
			      "'%s' is taken", bad[i]);
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Also as far as only a real tap goes: its offloads and its queues. */
static void work_with_a_tap(struct multi *m)
{
	multi_drive(m, FEATURES | NET_BIT(MQ), 2 * PAIRS + 1);
	multi_offer(m, 0);
	ck_assert_uint_eq(multi_receive(m, 9), 0);
	ck_assert_uint_eq(multi_set_pairs(m, PAIRS), NET_CTRL_OK);
	multi_send(m, PAIRS - 1, 10);
	multi_fini(m);
}

START_TEST(net_does_its_work_in_the_cage)
{
	struct frame *f = frame_new(guest_mac, peer_mac, 0x0800, 100);
	struct error err = { "" };
	struct multi m = { 0 };
	struct sandbox *cage;
	struct card *card;
	bool has_tap;

	ck_assert_int_eq(sandbox_create(NULL, 0, &cage, &err), 0);
	sandbox = cage;
	has_tap = multi_init(&m);
	ck_assert_int_eq(sandbox_drop(cage, &err), 0);
	if (has_tap)
		work_with_a_tap(&m);
	card = card_new(FEATURES);
	offer_all(card, 4, 2048);
	say(card, f);
	ck_assert_uint_eq(wait_used(card, RX), 112);
	ck_assert(!set_mode(card, 0, 0));
	card = move(card);
	RIG_OP(card->rig->base, resume);
	ck_assert_uint_eq(hear(card, f), 60);
	card_free(card);
	free(f);
	sandbox = NULL;
	sandbox_free(cage);
}
END_TEST
#endif

UNIT_SUITE("net", net_sends_frames_however_they_are_cut,
	   net_sends_large_segments_with_their_headers,
	   net_drops_frames_whose_headers_make_no_sense,
	   net_without_checksums_takes_no_unfinished_ones,
	   net_breaks_on_chains_that_are_none, net_receives_a_frame_a_buffer,
	   net_receives_a_frame_over_several_buffers_at_once,
	   net_holds_a_frame_until_there_are_buffers_for_it,
	   net_drops_a_frame_that_never_finds_room,
	   net_gives_no_frame_that_the_driver_does_not_know,
	   net_filters_what_the_driver_does_not_want,
	   net_filters_vlans_that_were_not_named,
	   net_takes_all_frames_when_more_are_listed_than_it_keeps,
	   net_shows_its_address_link_and_mtu, net_link_goes_down_with_the_tap,
	   net_uses_the_pairs_that_the_driver_asks_for,
	   net_has_its_commands_after_the_first_pair_without_multiqueue,
	   net_link_goes_down_when_the_tap_is_deleted,
	   net_loses_no_frame_and_gives_none_twice_across_a_move,
	   net_announces_what_the_guest_claimed_at_the_target,
	   net_announces_an_adapter_that_claimed_nothing_by_rarp,
	   net_says_nothing_more_when_it_has_been_paused,
	   net_keeps_the_latest_claims_of_a_guest_that_makes_many,
	   a_card_of_the_user_kind_offers_no_offloads,
	   what_is_sent_to_a_socket_that_is_gone_takes_the_link_down,
	   net_state_travels_whole, net_moves_at_every_step_of_its_driver,
	   net_moves_with_its_ring_full_of_frames_that_nobody_takes,
	   net_state_that_cannot_be_is_refused,
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	   net_does_its_work_in_the_cage,
#endif
	   net_options_are_what_they_say)
