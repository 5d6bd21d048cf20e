// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to its console, and those who sit at it: a bus with a
 * console whose rings, buffers and registers come from the input, on a line
 * whose end and watchers speak, listen or don't, and may leave.
 *
 * Nothing may crash, hang or grow. What the device wrote into memory is marked
 * dirty, and each state that it is paused in is one that check() accepts.
 *
 * An input: a byte of FLAG_*, then a series of struct step; see driver.h. All
 * on one thread, the loop's: after each step it has its turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/line.h"
#include "devices/virtio/console.h"
#include "tests/fuzz/driver.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_EVENT_IDX 1
#define FLAG_PLAIN     2 /* the driver accepts next to nothing */
#define FLAG_NOBODY    4 /* at the end of the line */

#define QUEUES	  2
#define STEPS_MAX 256
#define BUFFERS	  0x1a000

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
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_BAR_WRITE,
	STEP_BAR_READ,
	STEP_MEMORY,
	STEP_SAY,
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

struct step {
	uint8_t what;
	uint8_t where; /* queue or BAR */
	uint8_t at[2];
	uint8_t size_shift;
	uint8_t value[8];
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

/* ---- the loop ---- */

struct marker {
	struct loop *loop;
	unsigned int rounds;
};

static void on_marker(void *opaque, uint32_t events)
{
	struct marker *marker = opaque;

	if (++marker->rounds == 3)
		loop_stop(marker->loop);
}

static void turn(struct place *p)
{
	struct marker marker = { .loop = p->loop };
	int fd = eventfd(1, EFD_CLOEXEC);
	struct loop_fd *source;
	struct error err;

	demand(!loop_fd_add(p->loop, fd, EPOLLIN, on_marker, &marker, NULL,
			    &source, &err),
	       "marker");
	loop_run(p->loop);
	loop_fd_remove(source);
	close(fd);
}

/* ---- the guest ---- */

static void move(struct place *p, bool reset)
{
	static struct console_state state;
	const struct device_ops *ops = p->d.dev->ops;

	pthread_mutex_lock(&p->d.dev->lock);
	ops->pause(p->d.dev);
	if (reset)
		ops->reset(p->d.dev);
	driver_move_paused(&p->d, &state);
	ops->resume(p->d.dev);
	pthread_mutex_unlock(&p->d.dev->lock);
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

static void touch(struct place *p, const struct step *step, unsigned int what)
{
	unsigned int at = (unsigned int)(step->at[0] | step->at[1] << 8);
	unsigned int size = 1U << step->size_shift % 4;
	struct driver *d = &p->d;
	uint8_t value[8];

	memcpy(value, step->value, sizeof(value));
	if (what == STEP_CONFIG_WRITE)
		bus_write(&d->mmio, config_gpa(at % 0x100), value, size);
	else if (what == STEP_CONFIG_READ)
		bus_read(&d->mmio, config_gpa(at % 0x100), value, size);
	else if (what == STEP_BAR_WRITE)
		bus_write(&d->mmio, bar_gpa(d, step->where, at), value, size);
	else if (what == STEP_BAR_READ)
		bus_read(&d->mmio, bar_gpa(d, step->where, at), value, size);
	else
		guest_write(d, WINDOW + at, value, size);
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

static void take(struct place *p, const struct step *step)
{
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
	case STEP_RESET:
		move(p, what == STEP_RESET);
		break;
	case STEP_READY:
		ready(p);
		break;
	default:
		touch(p, step, what);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct device_config config = {
		.id = "console0",
		.vectors = CONSOLE_VECTORS,
	};
	static struct place place;
	struct place *p = &place;
	struct step step;

	log_set_level(LOG_ERROR);
	signal(SIGPIPE, SIG_IGN);
	if (!p->d.mem)
		driver_init(&p->d);
	if (!size)
		return 0;
	driver_clean(&p->d);
	p->flags = *data++;
	size--;
	make_line(p);
	driver_make(&p->d, console_create, &config);
	move(p, false);
	for (size_t i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		memcpy(&step, data, sizeof(step));
		take(p, &step);
		turn(p);
		data += sizeof(step);
		size -= sizeof(step);
	}
	move(p, false);
	driver_free(&p->d);
	line_free(p->line);
	loop_free(p->loop);
	close_fd(&p->end);
	close_fd(&p->watchers[0]);
	close_fd(&p->watchers[1]);
	driver_inspect_memory(&p->d);
	return 0;
}
