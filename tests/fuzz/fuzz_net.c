// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to its network card, and the network to the guest: a
 * bus with a card whose rings, frames, commands and registers come from the
 * input, on a socket whose other end says anything, listens or doesn't, and may
 * leave. The card goes on on a thread of its own while the guest writes into
 * the same memory.
 *
 * Nothing may crash or hang. What reaches the network is a frame with a header
 * that makes sense; what the card wrote into memory is marked dirty; and each
 * state that it is paused in is one that check() accepts, with no frame
 * half-way.
 *
 * An input: a byte of FLAG_*, then a series of struct step. Memory has a hole,
 * and comes to an end. Interrupts and doorbells go nowhere (functions that are
 * replaced at link time).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arch/arch.h"
#include "arch/x86_64/layout.h"
#include "devices/backend/tap.h"
#include "devices/virtio/net_internal.h"
#include "vmm/bus.h"
#include "vmm/doorbell.h"
#include "vmm/irq.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_PLAIN     1 /* the driver accepts next to nothing */
#define FLAG_MERGEABLE 2
#define FLAG_EVENT_IDX 4
#define FLAG_ABRUPT    8 /* freed as it runs */

#define RAM	   (ARCH_HOLE_START + 16 * MIB)
#define QUEUES	   3 /* to receive, to send, commands */
#define QUEUE_SIZE 16
#define STEPS_MAX  256
#define PATIENCE   100 /* yields */
#define FLIPS	   200

/* What the guest writes, and what is looked at in the end. */
#define WINDOW	    0x10000
#define WINDOW_SIZE 0x10000
#define RINGS(q)    (WINDOW + (q)*0x1000U)
#define AVAIL	    0x400
#define USED	    0x800
#define FRAMES	    0x18000
#define COMMANDS    0x19000
#define BUFFERS	    0x1a000
#define SLOTS	    8 /* for chains, of a queue */

#define DESC_NEXT  1
#define DESC_WRITE 2

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
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_BAR_WRITE,
	STEP_BAR_READ,
	STEP_MEMORY,
	STEP_SEND,
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
	STEPS,
};

struct step {
	uint8_t what;
	uint8_t where; /* queue or BAR */
	uint8_t at[2];
	uint8_t size_shift;
	uint8_t value[8];
};

/* What is made once: it is slow to make. */
struct ground {
	struct memory *mem;
	uint8_t window[WINDOW_SIZE]; /* as the guest alone wrote it */
};

struct machine {
	struct ground *ground;
	struct memory *mem;
	struct bus pio;
	struct bus mmio;
	struct irq irq;
	struct doorbell doorbell;
	struct pci_bus *pci;
	struct device_hooks hooks;
	struct device_taps taps;
	struct device_env env;
	struct device *host;
	struct device *dev;
	unsigned int flags;
	int wire; /* the network's end */
};

void irq_set_line(struct irq *irq, uint32_t gsi, bool level)
{
}

void irq_send_msi(struct irq *irq, uint64_t address, uint32_t data)
{
}

int doorbell_attach(const struct doorbell *doorbell, uint64_t gpa,
		    unsigned int size, int event_fd, struct error *err)
{
	return 0;
}

void doorbell_detach(const struct doorbell *doorbell, uint64_t gpa,
		     unsigned int size, int event_fd)
{
}

static void demand(bool truth, const char *what)
{
	if (truth)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* ---- the ground ---- */

static struct ground *make_ground(void)
{
	struct ground *ground = calloc(1, sizeof(*ground));
	struct error err;

	demand(ground && !memory_create(RAM, true, &ground->mem, &err),
	       "memory");
	for (unsigned int i = 0; i < ground->mem->nregions; i++)
		madvise(ground->mem->regions[i].hva,
			ground->mem->regions[i].size, MADV_NOHUGEPAGE);
	return ground;
}

static void clean_ground(struct ground *ground)
{
	struct memory *mem = ground->mem;

	for (unsigned int i = 0; i < mem->nregions; i++)
		demand(!madvise(mem->regions[i].hva, mem->regions[i].size,
				MADV_DONTNEED),
		       "memory");
	memset((void *)mem->dirty, 0, mem->npages / 8);
	memset(ground->window, 0, sizeof(ground->window));
}

static bool is_dirty(const struct memory *mem, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return mem->dirty[page / 64] >> (page % 64) & 1;
}

static void inspect_memory(const struct ground *ground)
{
	const uint8_t *ram = memory_hva(ground->mem, WINDOW, WINDOW_SIZE);

	for (uint64_t at = 0; at < WINDOW_SIZE; at += GUEST_PAGE_SIZE)
		demand(is_dirty(ground->mem, WINDOW + at) ||
			       !memcmp(ram + at, ground->window + at,
				       GUEST_PAGE_SIZE),
		       "a page that was written and isn't marked dirty");
}

/* ---- the network ---- */

static void inspect_frame(const struct machine *m, const uint8_t *message,
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
			       h.hdr_len <= len && !(m->flags & FLAG_PLAIN)),
	       "a segment that makes no sense");
}

static void listen_to_wire(struct machine *m)
{
	static uint8_t message[TAP_HEADER + NET_FRAME_MAX + 100];
	ssize_t n;

	while ((n = recv(m->wire, message, sizeof(message), MSG_DONTWAIT)) > 0)
		inspect_frame(m, message, (size_t)n);
}

/* Of @step: at, how long and where to; value, the header and the type. */
static void say_on_wire(struct machine *m, const struct step *step)
{
	static uint8_t message[TAP_HEADER + NET_FRAME_MAX];
	size_t len = lengths[step->at[0] % (ARRAY_SIZE(lengths) - 1)];

	memcpy(message, step->value, sizeof(step->value));
	memset(message + TAP_HEADER, step->at[1], 6);
	message[TAP_HEADER + 12] = step->value[6];
	message[TAP_HEADER + 13] = step->value[7];
	(void)send(m->wire, message, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the machine ---- */

static int open_tap(void *opaque, const char *id, const char *name,
		    unsigned int queues, bool user, struct tap **ret,
		    struct error *err)
{
	struct machine *m = opaque;
	struct tap_params params = { .queues = 1 };
	int pair[2];

	demand(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), "socketpair");
	m->wire = pair[1];
	params.fd = pair[0];
	return tap_open(&params, ret, err);
}

static void make_machine(struct machine *m)
{
	const struct device_config host = { .id = "pci0" };
	const struct device_config config = {
		.id = "net0",
		.vectors = QUEUES + 1,
		.options = "mac=52:54:00:12:34:56",
	};
	struct error err;

	bus_init(&m->pio, "port");
	bus_init(&m->mmio, "mmio");
	demand(!pci_bus_create(&m->irq, &m->pci, &err), "bus");
	m->taps.opaque = m;
	m->taps.open_tap = open_tap;
	m->env = (struct device_env){
		.pio = &m->pio,
		.mmio = &m->mmio,
		.pci = m->pci,
		.irq = &m->irq,
		.doorbell = &m->doorbell,
		.memory = m->mem,
		.taps = &m->taps,
		.hooks = &m->hooks,
		.hooks_opaque = m,
	};
	demand(!pci_host_create(&m->env, &host, &m->host, &err), "bridge");
	demand(!net_create(&m->env, &config, &m->dev, &err), err.text);
}

static void free_machine(struct machine *m)
{
	m->dev->ops->free(m->dev);
	m->host->ops->free(m->host);
	pci_bus_free(m->pci);
	listen_to_wire(m);
	close(m->wire);
}

/* By way of bytes into itself; the lock is held, and it is paused. */
static void move_paused(struct machine *m)
{
	static struct net_state state;
	const struct device_ops *ops = m->dev->ops;
	struct error err = { "" };
	struct buffer bytes = { 0 };
	struct codec c;

	ops->snapshot(m->dev, &state);
	codec_init_save(&c, &bytes, ops->version);
	ops->visit(&c, &state);
	demand(!codec_finish(&c, &err), "save");
	memset(&state, 0, sizeof(state));
	codec_init_load(&c, bytes.data, bytes.len, ops->version);
	ops->visit(&c, &state);
	demand(!codec_finish(&c, &err), "load");
	demand(!ops->check(m->dev, &state, &err), err.text);
	ops->commit(m->dev, &state);
	buffer_free(&bytes);
}

/* The lock is held over it all, so that a resume may be followed by a pause
 * that the thread sees at the same time. */
static void hold(struct machine *m, unsigned int what)
{
	const struct device_ops *ops = m->dev->ops;
	struct error err;

	pthread_mutex_lock(&m->dev->lock);
	ops->pause(m->dev);
	if (what == STEP_RESET)
		ops->reset(m->dev);
	if (what == STEP_HOLD) {
		ops->resume(m->dev);
		ops->pause(m->dev);
	}
	move_paused(m);
	if (what == STEP_TAKE)
		demand(!ops->handover(m->dev, DEVICE_TAKE, NULL, &err), "take");
	ops->resume(m->dev);
	pthread_mutex_unlock(&m->dev->lock);
}

/* ---- the guest ---- */

static void guest_write(struct machine *m, uint64_t gpa, const void *value,
			size_t size)
{
	size = MIN(size, WINDOW + WINDOW_SIZE - gpa);
	memcpy(&m->ground->window[gpa - WINDOW], value, size);
	memcpy(memory_hva(m->mem, gpa, size), value, size);
}

static uint64_t config_gpa(unsigned int offset)
{
	return LAYOUT_PCI_ECAM + 0x8000ULL + offset;
}

static uint64_t bar_gpa(struct machine *m, unsigned int bar,
			unsigned int offset)
{
	uint32_t gpa = 0;

	bus_read(&m->mmio, config_gpa(PCI_BAR0 + 4 * (bar % 2)), &gpa, 4);
	return gpa + offset % 0x4000;
}

static void put(struct machine *m, unsigned int offset, uint64_t value,
		unsigned int size)
{
	bus_write(&m->mmio, bar_gpa(m, 0, offset), &value, size);
}

static uint64_t features(const struct machine *m)
{
	uint64_t all =
		VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(NET_F_CTRL_VQ);

	if (!(m->flags & FLAG_PLAIN))
		all |= NET_GUEST_OFFLOADS | VIRTIO_BIT(NET_F_CSUM) |
		       VIRTIO_BIT(NET_F_HOST_TSO4) |
		       VIRTIO_BIT(NET_F_HOST_TSO6) | VIRTIO_BIT(NET_F_MAC) |
		       VIRTIO_BIT(NET_F_CTRL_GUEST_OFFLOADS) |
		       VIRTIO_BIT(NET_F_STATUS) | VIRTIO_BIT(NET_F_CTRL_RX) |
		       VIRTIO_BIT(NET_F_CTRL_RX_EXTRA) |
		       VIRTIO_BIT(NET_F_CTRL_VLAN) |
		       VIRTIO_BIT(NET_F_CTRL_MAC_ADDR) |
		       VIRTIO_BIT(NET_F_GUEST_ANNOUNCE) |
		       VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
		       VIRTIO_BIT(VIRTIO_F_RING_RESET);
	if (m->flags & FLAG_MERGEABLE)
		all |= VIRTIO_BIT(NET_F_MRG_RXBUF);
	if (m->flags & FLAG_EVENT_IDX)
		all |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	return all;
}

/* What a driver does that works, so that inputs needn't find it out. */
static void ready(struct machine *m)
{
	uint16_t command = PCI_COMMAND_MEMORY;
	uint64_t wanted = features(m);

	bus_write(&m->mmio, config_gpa(PCI_COMMAND), &command, 2);
	put(m, 0x14, 0, 1);
	put(m, 0x08, 1, 4);
	put(m, 0x0c, wanted >> 32, 4);
	put(m, 0x08, 0, 4);
	put(m, 0x0c, wanted, 4);
	put(m, 0x14, VIRTIO_FEATURES_OK, 1);
	for (unsigned int i = 0; i < QUEUES; i++) {
		put(m, 0x16, i, 2);
		put(m, 0x18, QUEUE_SIZE, 2);
		put(m, 0x20, RINGS(i), 8);
		put(m, 0x28, RINGS(i) + AVAIL, 8);
		put(m, 0x30, RINGS(i) + USED, 8);
		put(m, 0x1c, 1, 2);
	}
	put(m, 0x14, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

static void put_desc(struct machine *m, unsigned int queue, uint16_t index,
		     uint64_t addr, uint32_t len, uint16_t flags)
{
	uint64_t gpa = RINGS(queue) + 16ULL * index;
	uint16_t next = (uint16_t)(index + 1);

	guest_write(m, gpa, &addr, 8);
	guest_write(m, gpa + 8, &len, 4);
	guest_write(m, gpa + 12, &flags, 2);
	guest_write(m, gpa + 14, &next, 2);
}

static void offer(struct machine *m, unsigned int queue, uint16_t head)
{
	uint64_t avail = RINGS(queue) + AVAIL;
	uint16_t idx;

	memcpy(&idx, memory_hva(m->mem, avail + 2, 2), 2);
	guest_write(m, avail + 4 + 2 * (idx % QUEUE_SIZE), &head, 2);
	idx++;
	guest_write(m, avail + 2, &idx, 2);
}

/*
 * A frame that looks like one: its header and beginning, then data from
 * anywhere. Of @step: at, the slot, and where the data is and how much; value,
 * the header; where, an address that is claimed.
 */
static void send_frame(struct machine *m, const struct step *step)
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
	guest_write(m, gpa, bytes, sizeof(bytes));
	put_desc(m, 1, (uint16_t)(2 * slot), gpa,
		 step->size_shift & 2 ? sizeof(bytes) : 20, DESC_NEXT);
	put_desc(m, 1, (uint16_t)(2 * slot + 1), data, len, 0);
	offer(m, 1, (uint16_t)(2 * slot));
}

/* Of @step: at, the slot, where the buffer is; value, how long. */
static void offer_buffer(struct machine *m, const struct step *step)
{
	unsigned int slot = step->at[0] % QUEUE_SIZE;
	uint64_t data = places[step->at[1] % ARRAY_SIZE(places)];
	uint32_t len = lengths[step->value[0] % ARRAY_SIZE(lengths)];

	put_desc(m, 0, (uint16_t)slot, data, len,
		 (uint16_t)(DESC_WRITE |
			    (step->size_shift & 1 ? DESC_NEXT : 0)));
	offer(m, 0, (uint16_t)slot);
}

/* Of @step: at, class and number; value, what follows, where, how much. */
static void give_command(struct machine *m, const struct step *step)
{
	uint8_t bytes[64] = { step->at[0] % 7, step->at[1] % 7 };

	memcpy(bytes + 2, step->value, sizeof(step->value));
	memcpy(bytes + 20, step->value, sizeof(step->value));
	guest_write(m, COMMANDS, bytes, sizeof(bytes));
	put_desc(m, 2, 0, COMMANDS, step->where % 65, DESC_NEXT);
	put_desc(m, 2, 1, COMMANDS + 64, step->size_shift & 1, DESC_WRITE);
	offer(m, 2, 0);
}

static uint16_t used_idx(struct machine *m, unsigned int queue)
{
	return *(volatile uint16_t *)memory_hva(m->mem, RINGS(queue) + USED + 2,
						2);
}

/* For something to be given back, perhaps. */
static void wait_awhile(struct machine *m, unsigned int queue)
{
	uint16_t before = used_idx(m, queue);

	for (int i = 0; i < PATIENCE && used_idx(m, queue) == before; i++)
		sched_yield();
}

/* Now this, now that, while the device looks at it. */
static void flip(struct machine *m, uint64_t gpa, const struct step *step)
{
	volatile uint8_t *at = memory_hva(m->mem, gpa, 1);

	for (int i = 0; i < FLIPS; i++)
		*at = step->value[i % 2];
	guest_write(m, gpa, &step->value[1], 1);
}

static void touch(struct machine *m, const struct step *step, unsigned int what)
{
	unsigned int at = (unsigned int)(step->at[0] | step->at[1] << 8);
	unsigned int size = 1U << step->size_shift % 4;
	uint8_t value[8];

	memcpy(value, step->value, sizeof(value));
	if (what == STEP_CONFIG_WRITE)
		bus_write(&m->mmio, config_gpa(at % 0x100), value, size);
	else if (what == STEP_CONFIG_READ)
		bus_read(&m->mmio, config_gpa(at % 0x100), value, size);
	else if (what == STEP_BAR_WRITE)
		bus_write(&m->mmio, bar_gpa(m, step->where, at), value, size);
	else if (what == STEP_BAR_READ)
		bus_read(&m->mmio, bar_gpa(m, step->where, at), value, size);
	else if (what == STEP_MEMORY)
		guest_write(m, WINDOW + at, value, size);
	else
		flip(m, WINDOW + at, step);
}

static void take(struct machine *m, const struct step *step)
{
	unsigned int what = step->what % STEPS;
	unsigned int queue = step->where % QUEUES;

	switch (what) {
	case STEP_SEND:
		send_frame(m, step);
		break;
	case STEP_RECEIVE:
		offer_buffer(m, step);
		break;
	case STEP_COMMAND:
		give_command(m, step);
		break;
	case STEP_NOTIFY:
		put(m, 0x3000 + 4 * queue, queue, 2);
		break;
	case STEP_WIRE:
		say_on_wire(m, step);
		break;
	case STEP_DRAIN:
		listen_to_wire(m);
		break;
	case STEP_CUT:
		shutdown(m->wire, step->at[0] % 3);
		break;
	case STEP_WAIT:
		wait_awhile(m, queue);
		break;
	case STEP_HOLD:
	case STEP_MOVE:
	case STEP_RESET:
	case STEP_TAKE:
		hold(m, what);
		break;
	case STEP_READY:
		ready(m);
		break;
	default:
		touch(m, step, what);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ground *ground;
	struct machine m = { 0 };
	struct step step;

	log_set_level(LOG_ERROR);
	signal(SIGPIPE, SIG_IGN);
	if (!ground)
		ground = make_ground();
	if (!size)
		return 0;
	clean_ground(ground);
	m.ground = ground;
	m.mem = ground->mem;
	m.flags = *data++;
	size--;
	make_machine(&m);
	hold(&m, STEP_MOVE);
	for (size_t i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		memcpy(&step, data, sizeof(step));
		take(&m, &step);
		data += sizeof(step);
		size -= sizeof(step);
	}
	if (!(m.flags & FLAG_ABRUPT))
		hold(&m, STEP_MOVE);
	free_machine(&m);
	inspect_memory(ground);
	return 0;
}
