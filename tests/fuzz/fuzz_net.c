// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to its network card, and the network to the guest: a
 * bus with a card whose rings, frames, commands and registers come from the
 * input, on a socket whose other end says anything, listens or doesn't, and may
 * leave. The card goes on on a thread of its own while the guest writes into
 * the same memory. Or the network is a user-mode one, whose process may be in
 * the hands of a guest: then the other end writes what it likes into the page
 * that it shares with us, and answers as it likes.
 *
 * Nothing may crash or hang. What reaches the network is a frame with a header
 * that makes sense; what the card wrote into memory is marked dirty; and each
 * state that it is paused in is one that check() accepts, with no frame
 * half-way.
 *
 * An input: a byte of FLAG_*, then a series of struct step; see steps.h.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>

#include "devices/backend/user_internal.h"
#include "devices/virtio/net_internal.h"
#include "tests/fuzz/steps.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_PLAIN     1 /* the driver accepts next to nothing */
#define FLAG_MERGEABLE 2
#define FLAG_EVENT_IDX 4
#define FLAG_ABRUPT    8 /* freed as it runs */
#define FLAG_USER      16
#define FLAG_LIAR      32 /* its process says more than that it is ready */

#define QUEUES	 3 /* to receive, to send, commands */
#define FRAMES	 0x18000
#define COMMANDS 0x19000
#define BUFFERS	 0x1a000
#define SLOTS	 8 /* for chains, of a queue */

static const uint64_t places[] = {
	BUFFERS,
	BUFFERS + 0x1ffe,
	ARCH_HOLE_START - 512,
	ARCH_HOLE_START,
	ARCH_HOLE_END - 512,
	ARCH_HOLE_END,
	ARCH_HOLE_END + 16 * MIB - 512,
	UINT64_MAX - 511,
};

static const uint32_t lengths[] = {
	0, 1, 12, 13, 512, 1514, 0x10012, UINT32_MAX,
};

enum {
	STEP_SEND = STEP_OWN,
	STEP_RECEIVE,
	STEP_COMMAND,
	STEP_NOTIFY,
	STEP_WIRE,  /* a frame from the network */
	STEP_DRAIN, /* the network listens */
	STEP_CUT,   /* and leaves */
	STEP_WAIT,
	STEP_FLIP,
	STEP_HOLD,
	STEP_MOVE,
	STEP_RESET,
	STEP_TAKE,
	STEP_READY,
	STEP_WRITE_DOWN, /* into the page */
	STEP_HEED,	 /* an order */
	STEPS,
};

struct card {
	struct driver d;
	struct device_taps taps;
	unsigned int flags;
	struct user *user; /* or NULL */
	int wire;	   /* the network's end */
};

/*
 * What the process of a user-mode network has of it. It is started by way of
 * functions that are replaced at link time, and there is none.
 */
static struct process {
	bool starting;
	unsigned int npairs;
	int ends[2]; /* of frames, of orders */
	struct user_page *page;
	struct user_answer answer;
	size_t answer_len;
} process;

int __real_socketpair(int domain, int type, int protocol, int pair[2]);
int __wrap_socketpair(int domain, int type, int protocol, int pair[2]);
int __real_mprotect(void *at, size_t len, int prot);
int __wrap_mprotect(void *at, size_t len, int prot);
pid_t __wrap_fork(void);

/* ---- the network ---- */

static void inspect_frame(const struct card *card, const uint8_t *message,
			  size_t len)
{
	struct net_header h;
	uint8_t type;

	memcpy(&h, message, sizeof(h));
	type = h.gso_type & (uint8_t)~NET_GSO_ECN;
	demand(len >= TAP_HEADER + NET_FRAME_MIN &&
		       len <= TAP_HEADER + NET_FRAME_MAX,
	       "a frame's length");
	len -= TAP_HEADER;
	demand(!(h.flags & ~NET_HDR_NEEDS_CSUM) && !h.num_buffers,
	       "a frame's flags");
	demand(!h.flags || h.csum_start + h.csum_offset + 2U <= len,
	       "a checksum beyond the frame");
	demand(!type || type == NET_GSO_TCPV4 || type == NET_GSO_TCPV6,
	       "a kind of segment");
	demand(!h.gso_type || (type && h.flags && h.gso_size &&
			       h.hdr_len <= len && !(card->flags & FLAG_PLAIN)),
	       "a segment that makes no sense");
}

static void listen_to_wire(struct card *card)
{
	static uint8_t message[TAP_HEADER + NET_FRAME_MAX + 100];
	ssize_t n;

	while ((n = recv(card->wire, message, sizeof(message), MSG_DONTWAIT)) >
	       0)
		inspect_frame(card, message, (size_t)n);
}

/* Of @step: at, how long and where to; value, the header and the type. */
static void say_on_wire(struct card *card, const struct step *step)
{
	static uint8_t message[TAP_HEADER + NET_FRAME_MAX];
	size_t len = lengths[step->at[0] % (ARRAY_SIZE(lengths) - 1)];

	memcpy(message, step->value, sizeof(step->value));
	memset(message + TAP_HEADER, step->at[1], 6);
	message[TAP_HEADER + 12] = step->value[6];
	message[TAP_HEADER + 13] = step->value[7];
	(void)send(card->wire, message, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the process ---- */

int __wrap_socketpair(int domain, int type, int protocol, int pair[2])
{
	int rc = __real_socketpair(domain, type, protocol, pair);

	if (process.starting && !rc)
		process.ends[process.npairs++] = dup(pair[1]);
	return rc;
}

/* It can write there still. */
int __wrap_mprotect(void *at, size_t len, int prot)
{
	if (!process.starting)
		return __real_mprotect(at, len, prot);
	process.page = at;
	return 0;
}

pid_t __wrap_fork(void)
{
	(void)send(process.ends[1], &process.answer, process.answer_len,
		   MSG_NOSIGNAL);
	/* What nobody has. */
	return INT_MAX;
}

static int start_process(struct card *card, struct error *err)
{
	static const struct user_params params = { .id = "net0" };
	int rc;

	process.npairs = 0;
	process.starting = true;
	rc = user_create(&params, &card->user, err);
	process.starting = false;
	return rc;
}

static void end_process(struct card *card)
{
	user_free(card->user);
	card->user = NULL;
	close(process.ends[0]);
	close(process.ends[1]);
}

/* What it says first is what the input begins with. */
static void lie(struct card *card, const uint8_t *data, size_t size)
{
	struct error err = { "" };
	int rc;

	process.answer_len = MIN(MAX(size, 1U), sizeof(process.answer));
	memset(&process.answer, 0xff, sizeof(process.answer));
	memcpy(&process.answer, data, MIN(size, sizeof(process.answer)));
	rc = start_process(card, &err);
	demand(!rc || (rc < 0 && memchr(err.text, 0, sizeof(err.text))),
	       "why there is no user-mode network");
	end_process(card);
}

/* Of @step: at, where; value, what; size_shift: how often over. */
static void write_down(const struct card *card, const struct step *step)
{
	uint8_t *bytes = (uint8_t *)process.page;

	for (unsigned int i = 0; card->user && i <= step->size_shift; i++)
		bytes[(step_at(step) + i) % sizeof(*process.page)] =
			step->value[i % 8];
}

/* What the parent sends has been looked at. */
static void heed(const struct card *card)
{
	struct user_message message;
	struct error err = { "" };

	if (!card->user || recv(process.ends[1], &message, sizeof(message),
				MSG_DONTWAIT) != (ssize_t)sizeof(message))
		return;
	demand(message.order == USER_LOAD || message.order == USER_BEGIN,
	       "an order");
	demand(message.order != USER_LOAD ||
		       !user_state_check(&message.state, &err),
	       err.text);
}

/* ---- the card ---- */

static int open_tap(void *opaque, const char *id, const char *name,
		    unsigned int queues, bool user, struct tap **ret,
		    struct error *err)
{
	struct card *card = opaque;
	struct tap_params params = { .queues = 1, .user = card->user };
	int pair[2];

	demand(user == !!card->user, "what kind of network");
	if (user) {
		card->wire = dup(process.ends[0]);
		params.fd = dup(user_fd(card->user));
		return tap_open(&params, ret, err);
	}
	demand(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), "socketpair");
	card->wire = pair[1];
	params.fd = pair[0];
	return tap_open(&params, ret, err);
}

static void make_card(struct card *card)
{
	struct device_config config = { .id = "net0", .vectors = QUEUES + 1 };
	bool user = card->flags & FLAG_USER;
	struct error err = { "" };

	process.answer = (struct user_answer){ 0 };
	process.answer_len = sizeof(process.answer);
	demand(!user || !start_process(card, &err), err.text);
	snprintf(config.options, sizeof(config.options),
		 "mac=52:54:00:12:34:56%s", user ? ",kind=user" : "");
	card->taps.opaque = card;
	card->taps.open_tap = open_tap;
	card->d.env.taps = &card->taps;
	driver_make(&card->d);
	driver_add(&card->d, net_create, &config);
}

static void free_card(struct card *card)
{
	driver_free(&card->d);
	listen_to_wire(card);
	close(card->wire);
	if (card->user)
		end_process(card);
}

/* @taken: by another host. */
static void hold(struct card *card, enum step_hold how, bool taken)
{
	static struct net_state state;
	struct device *dev = card->d.dev;
	struct error err;

	step_hold(&card->d, how, &state);
	demand(dev->ops->left_behind(dev) <= USER_FDS_MAX, "connections");
	if (taken)
		demand(!dev->ops->handover(dev, DEVICE_TAKE, NULL, &err),
		       "take");
	step_go_on(&card->d);
}

/* ---- the guest ---- */

/* Of a tap alone. */
static uint64_t offloads(void)
{
	return NET_GUEST_OFFLOADS | VIRTIO_BIT(NET_F_CSUM) |
	       VIRTIO_BIT(NET_F_HOST_TSO4) | VIRTIO_BIT(NET_F_HOST_TSO6) |
	       VIRTIO_BIT(NET_F_CTRL_GUEST_OFFLOADS);
}

static uint64_t features(const struct card *card)
{
	uint64_t all =
		VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(NET_F_CTRL_VQ);

	if (!(card->flags & FLAG_PLAIN))
		all |= VIRTIO_BIT(NET_F_MAC) | VIRTIO_BIT(NET_F_STATUS) |
		       VIRTIO_BIT(NET_F_CTRL_RX) |
		       VIRTIO_BIT(NET_F_CTRL_RX_EXTRA) |
		       VIRTIO_BIT(NET_F_CTRL_VLAN) |
		       VIRTIO_BIT(NET_F_CTRL_MAC_ADDR) |
		       VIRTIO_BIT(NET_F_GUEST_ANNOUNCE) |
		       VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
		       VIRTIO_BIT(VIRTIO_F_RING_RESET) |
		       (card->user ? 0 : offloads());
	if (card->flags & FLAG_MERGEABLE)
		all |= VIRTIO_BIT(NET_F_MRG_RXBUF);
	if (card->flags & FLAG_EVENT_IDX)
		all |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	return all;
}

/*
 * A frame that looks like one: its header and beginning, then data from
 * anywhere. Of @step: at, the slot, and where the data is and how much; value,
 * the header; where, an address that is claimed.
 */
static void send_frame(struct card *card, const struct step *step)
{
	unsigned int slot = step->at[0] % SLOTS;
	uint64_t gpa = FRAMES + slot * 128;
	uint64_t data = places[(step->at[1] & 15) % ARRAY_SIZE(places)];
	uint32_t len = lengths[(step->at[1] >> 4) % ARRAY_SIZE(lengths)];
	static const uint8_t arp[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2 };
	static const uint8_t ip6[] = { 0x86, 0xdd, 0x60, 0,   0,   0,
				       0,    0,	   58,	 255, 0xfe };
	uint8_t bytes[TAP_HEADER + 86] = { 0 };

	memcpy(bytes, step->value, sizeof(step->value));
	if (step->size_shift & 1)
		memcpy(bytes + TAP_HEADER + 12, arp, sizeof(arp));
	else
		memcpy(bytes + TAP_HEADER + 12, ip6, sizeof(ip6));
	bytes[TAP_HEADER + 31] = step->where;
	bytes[TAP_HEADER + 54] = (uint8_t)(133 + step->where % 4);
	guest_write(&card->d, gpa, bytes, sizeof(bytes));
	put_desc(&card->d, 1, (uint16_t)(2 * slot), gpa,
		 step->size_shift & 2 ? sizeof(bytes) : 20, DESC_NEXT);
	put_desc(&card->d, 1, (uint16_t)(2 * slot + 1), data, len, 0);
	offer(&card->d, 1, (uint16_t)(2 * slot));
}

/* Of @step: at, the slot, where the buffer is; value, how long. */
static void offer_buffer(struct card *card, const struct step *step)
{
	unsigned int slot = step->at[0] % DRIVER_QUEUE_SIZE;
	uint64_t data = places[step->at[1] % ARRAY_SIZE(places)];
	uint32_t len = lengths[step->value[0] % ARRAY_SIZE(lengths)];

	put_desc(&card->d, 0, (uint16_t)slot, data, len,
		 (uint16_t)(DESC_WRITE |
			    (step->size_shift & 1 ? DESC_NEXT : 0)));
	offer(&card->d, 0, (uint16_t)slot);
}

/* Of @step: at, class and number; value, what follows, where, how much. */
static void give_command(struct card *card, const struct step *step)
{
	uint8_t bytes[64] = { step->at[0] % 7, step->at[1] % 7 };

	memcpy(bytes + 2, step->value, sizeof(step->value));
	memcpy(bytes + 20, step->value, sizeof(step->value));
	guest_write(&card->d, COMMANDS, bytes, sizeof(bytes));
	put_desc(&card->d, 2, 0, COMMANDS, step->where % 65, DESC_NEXT);
	put_desc(&card->d, 2, 1, COMMANDS + 64, step->size_shift & 1,
		 DESC_WRITE);
	offer(&card->d, 2, 0);
}

static void lift(struct card *card, unsigned int what)
{
	if (what == STEP_HOLD)
		hold(card, HOLD_TWICE, false);
	else if (what == STEP_RESET)
		hold(card, HOLD_RESET, false);
	else
		hold(card, HOLD_ONCE, what == STEP_TAKE);
}

static void take(void *opaque, const struct step *step)
{
	struct card *card = opaque;
	unsigned int what = step->what % STEPS;
	unsigned int queue = step->where % QUEUES;

	switch (what) {
	case STEP_SEND:
		send_frame(card, step);
		break;
	case STEP_RECEIVE:
		offer_buffer(card, step);
		break;
	case STEP_COMMAND:
		give_command(card, step);
		break;
	case STEP_NOTIFY:
		notify(&card->d, queue);
		break;
	case STEP_WIRE:
		say_on_wire(card, step);
		break;
	case STEP_DRAIN:
		listen_to_wire(card);
		break;
	case STEP_CUT:
		shutdown(card->wire, step->at[0] % 3);
		break;
	case STEP_WAIT:
		step_wait(&card->d, queue);
		break;
	case STEP_FLIP:
		step_flip(&card->d, step);
		break;
	case STEP_HOLD:
	case STEP_MOVE:
	case STEP_RESET:
	case STEP_TAKE:
		lift(card, what);
		break;
	case STEP_READY:
		driver_ready(&card->d, features(card), QUEUES);
		break;
	case STEP_WRITE_DOWN:
		write_down(card, step);
		break;
	case STEP_HEED:
		heed(card);
		break;
	default:
		step_touch(&card->d, step, what);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct card card;

	log_set_level(LOG_ERROR);
	signal(SIGPIPE, SIG_IGN);
	if (!card.d.mem)
		driver_init(&card.d, DRIVER_RAM);
	if (!size)
		return 0;
	driver_clean(&card.d);
	card.flags = data[0];
	if (card.flags & FLAG_LIAR)
		lie(&card, data + 1, size - 1);
	make_card(&card);
	hold(&card, HOLD_ONCE, false);
	steps_walk(data + 1, size - 1, take, &card);
	if (!(card.flags & FLAG_ABRUPT))
		hold(&card, HOLD_ONCE, false);
	free_card(&card);
	driver_inspect_memory(&card.d);
	return 0;
}
