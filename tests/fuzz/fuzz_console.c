// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to its console, and those who sit at it: a bus with a
 * console whose rings, buffers and registers come from the input, on a line
 * whose end and watchers speak, listen or don't, and may leave.
 *
 * Nothing may crash, hang or grow. What the device wrote into memory is marked
 * dirty, and each state that it is paused in is one that check() accepts.
 *
 * An input: a byte of FLAG_*, then a series of struct step; see steps.h. All
 * on one thread, the loop's: after each step it has its turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "devices/backend/line.h"
#include "devices/virtio/console.h"
#include "tests/fuzz/steps.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_EVENT_IDX 1
#define FLAG_PLAIN     2 /* the driver accepts next to nothing */
#define FLAG_NOBODY    4 /* at the end of the line */

#define QUEUES	2
#define BUFFERS 0x1a000

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
	0, 1, 12, 512, 4096, 0x5000, 0x400000, UINT32_MAX,
};

enum {
	STEP_SAY = STEP_OWN,
	STEP_HEAR,
	STEP_NOTIFY,
	STEP_TYPE,
	STEP_READ,
	STEP_WATCH,
	STEP_LEAVE,
	STEP_RESIZE,
	STEP_MOVE,
	STEP_RESET,
	STEP_READY,
	STEPS,
};

struct place {
	struct driver d;
	unsigned int flags;
	struct loop *loop;
	struct line *line;
	struct device_lines lines;
	int end;	 /* the other one of the line's; -1: none */
	int watchers[2]; /* likewise; -1: not there */
};

/* ---- the line ---- */

static int open_line(void *opaque, const char *id, struct line **ret,
		     struct error *err)
{
	*ret = ((struct place *)opaque)->line;
	return 0;
}

/* Two sockets, the second one ours, with little room between. */
static void make_pair(int pair[2])
{
	int size = 4096;

	demand(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair),
	       "socketpair");
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void make_line(struct place *p)
{
	struct line_end end = { .in = -1, .out = -1, .listen = -1 };
	struct error err;
	int pair[2];

	p->end = p->watchers[0] = p->watchers[1] = -1;
	if (!(p->flags & FLAG_NOBODY)) {
		make_pair(pair);
		end.in = pair[0];
		end.out = dup(pair[0]);
		end.owned = true;
		p->end = pair[1];
	}
	demand(!loop_create(&p->loop, &err), "loop");
	demand(!line_create(p->loop, &end, &p->line, &err), "line");
	p->lines.open_line = open_line;
	p->lines.opaque = p;
	p->d.env.loop = p->loop;
	p->d.env.lines = &p->lines;
}

static void watch(struct place *p, const struct step *step)
{
	int *watcher = &p->watchers[step->where % 2];
	struct error err;
	int pair[2];

	if (*watcher >= 0)
		return;
	make_pair(pair);
	*watcher = pair[1];
	demand(!line_watch(p->line, pair[0], step->at[0], step->value,
			   step->at[1] % sizeof(step->value), &err),
	       "watch");
}

static int *end_of(struct place *p, unsigned int which)
{
	return which % 3 ? &p->watchers[which % 3 - 1] : &p->end;
}

/* Return: was there anything? */
static bool read_some(int fd)
{
	static char bytes[65536];

	return fd >= 0 && recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0;
}

/* ---- the guest ---- */

static void move(struct place *p, enum step_hold how)
{
	static struct console_state state;

	step_hold(&p->d, how, &state);
	step_go_on(&p->d);
}

static void ready(struct place *p)
{
	uint64_t all = VIRTIO_BIT(VIRTIO_F_VERSION_1);

	if (!(p->flags & FLAG_PLAIN))
		all |= VIRTIO_BIT(CONSOLE_F_SIZE) |
		       VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
		       VIRTIO_BIT(VIRTIO_F_RING_RESET);
	if (p->flags & FLAG_EVENT_IDX)
		all |= VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
	driver_ready(&p->d, all, QUEUES);
}

/*
 * A chain of one or two buffers. Of @step: at, its slot, and where the buffers
 * are; value, how long; size_shift, in which direction, and whether two.
 */
static void offer_chain(struct place *p, unsigned int queue,
			const struct step *step)
{
	uint16_t slot = step->at[0] % (DRIVER_QUEUE_SIZE - 1);
	uint16_t flags = queue == CONSOLE_RX ? DESC_WRITE : 0;

	if (step->size_shift & 2)
		flags ^= DESC_WRITE;
	put_desc(&p->d, queue, slot,
		 places[(step->at[1] & 15) % ARRAY_SIZE(places)],
		 lengths[step->value[0] % ARRAY_SIZE(lengths)],
		 (uint16_t)(flags | (step->size_shift & 1 ? DESC_NEXT : 0)));
	put_desc(&p->d, queue, (uint16_t)(slot + 1),
		 places[(step->at[1] >> 4) % ARRAY_SIZE(places)],
		 lengths[step->value[1] % ARRAY_SIZE(lengths)], flags);
	offer(&p->d, queue, slot);
}

/* What those at the console do. */
static void sit_at(struct place *p, const struct step *step, unsigned int what)
{
	int *end = end_of(p, step->where);
	struct line_size size = { step->value[0], step->value[1] };

	if (what == STEP_WATCH)
		watch(p, step);
	else if (what == STEP_RESIZE)
		line_resize(p->line, size);
	else if (*end < 0)
		return;
	else if (what == STEP_TYPE)
		(void)send(*end, step->value, step->at[0] % 9,
			   MSG_DONTWAIT | MSG_NOSIGNAL);
	else if (what == STEP_READ)
		(void)read_some(*end);
	else if (step->at[0] & 1)
		shutdown(*end, step->at[1] % 3);
	else
		close_fd(end);
}

static void take(void *opaque, const struct step *step)
{
	struct place *p = opaque;
	unsigned int what = step->what % STEPS;

	switch (what) {
	case STEP_SAY:
		offer_chain(p, CONSOLE_TX, step);
		break;
	case STEP_HEAR:
		offer_chain(p, CONSOLE_RX, step);
		break;
	case STEP_NOTIFY:
		notify(&p->d, step->where % QUEUES);
		break;
	case STEP_TYPE:
	case STEP_READ:
	case STEP_WATCH:
	case STEP_LEAVE:
	case STEP_RESIZE:
		sit_at(p, step, what);
		break;
	case STEP_MOVE:
		move(p, HOLD_ONCE);
		break;
	case STEP_RESET:
		move(p, HOLD_RESET);
		break;
	case STEP_READY:
		ready(p);
		break;
	default:
		step_touch(&p->d, step, what);
		break;
	}
	step_turn(p->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct device_config config = {
		.id = "console0",
		.vectors = CONSOLE_VECTORS,
	};
	static struct place place;
	struct place *p = &place;

	log_set_level(LOG_ERROR);
	signal(SIGPIPE, SIG_IGN);
	if (!p->d.mem)
		driver_init(&p->d, DRIVER_RAM);
	if (!size)
		return 0;
	driver_clean(&p->d);
	p->flags = data[0];
	make_line(p);
	driver_make(&p->d);
	driver_add(&p->d, console_create, &config);
	move(p, HOLD_ONCE);
	steps_walk(data + 1, size - 1, take, p);
	move(p, HOLD_ONCE);
	driver_free(&p->d);
	line_free(p->line);
	loop_free(p->loop);
	close_fd(&p->end);
	close_fd(&p->watchers[0]);
	close_fd(&p->watchers[1]);
	driver_inspect_memory(&p->d);
	return 0;
}
