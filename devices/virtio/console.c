// SPDX-License-Identifier: MIT
/*
 * The console device; see console.h. VIRTIO 1.2, section 5.3.
 *
 * It is served on the loop's thread, a turn at a time: at most TURN_CHAINS
 * chains and TURN_BYTES bytes each way, so that a guest which speaks without
 * end can't keep others waiting.
 *
 * Nothing is in flight between two calls, so a queue stops at once. A chain of
 * which the line took a part goes back into the ring, and `said` says how far
 * it has got; that is how it waits, for room or across a move. What is typed is
 * taken from the line only when there is a buffer for it.
 *
 * Invariants, between any two calls:
 *   1. said > 0 only with DRIVER_OK and the transmit queue enabled.
 *   2. While the receive queue is served, either it had no buffer when it was
 *      last looked at, and its bell will ring, or the line was asked.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/line.h"
#include "devices/virtio/console.h"
#include "vmm/loop.h"

#define VIRTIO_ID_CONSOLE 3
/* A simple communication controller, of no kind; PCI 3.0, appendix D. */
#define PCI_CLASS_COMMUNICATION 0x078000

#define TURN_CHAINS 32
#define TURN_BYTES  (64 * KIB)

/* Section 5.3.4. */
struct console_config {
	uint16_t columns;
	uint16_t rows;
	uint32_t max_nr_ports; /* with MULTIPORT */
	uint32_t emerg_wr;     /* with EMERG_WRITE */
};

_Static_assert(sizeof(struct console_config) == 12,
	       "struct virtio_console_config");

struct console {
	struct virtio virtio;
	struct line *line; /* NULL: nobody is there */
	struct loop_fd *news;
	struct loop_fd *bells[2];
	bool serving[2];
	bool full; /* the line took no more, and will tell */
	uint64_t said;
	struct line_size size;
	struct virtqueue_chain chain; /* the one that is being served */
};

static struct console *to_console(struct virtio *v)
{
	return container_of(v, struct console, virtio);
}

static struct console *dev_to_console(struct device *dev)
{
	return container_of(dev, struct console, virtio.dev);
}

static struct virtqueue *ring_of(struct console *console, unsigned int index)
{
	return &console->virtio.queues[index].ring;
}

/* Return: false when there is nothing (more) to serve. */
static bool take(struct console *console, unsigned int index)
{
	struct virtqueue *vq = ring_of(console, index);

	if (virtqueue_pop(vq, &console->chain))
		return true;
	if (vq->broken)
		virtio_fail(&console->virtio, vq->why);
	return false;
}

/* ---- what the guest says ---- */

/*
 * Hand on what is left of the chain, up to *@left bytes.
 *
 * Return: true when all of it has been said.
 */
static bool say(struct console *console, size_t *left)
{
	const struct virtqueue_chain *chain = &console->chain;
	uint64_t skip = console->said;

	for (unsigned int i = 0; i < chain->nreadable; i++) {
		const uint8_t *bytes = chain->iov[i].iov_base;
		size_t len = chain->iov[i].iov_len, want, n;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		want = MIN(len - (size_t)skip, *left);
		n = line_put(console->line, bytes + skip, want);
		console->said += n;
		*left -= n;
		console->full = n < want;
		if (n < len - (size_t)skip)
			return false;
		skip = 0;
	}
	return true;
}

/* Return: was a chain given back? */
static bool transmit_one(struct console *console, size_t *left)
{
	struct virtqueue *vq = ring_of(console, CONSOLE_TX);

	if (!take(console, CONSOLE_TX))
		return false;
	if (console->chain.nwritable) {
		virtio_fail(&console->virtio, "a buffer of the transmit queue "
					      "is writable");
		return false;
	}
	if (!say(console, left)) {
		virtqueue_unpop(vq, 1);
		return false;
	}
	console->said = 0;
	virtqueue_push(vq, &console->chain, 0);
	return true;
}

static void transmit(struct console *console)
{
	struct virtio *v = &console->virtio;
	struct virtqueue *vq = ring_of(console, CONSOLE_TX);
	unsigned int chains = TURN_CHAINS;
	size_t left = TURN_BYTES;

	console->full = false;
	virtqueue_quiet(vq);
	while (chains && left && transmit_one(console, &left))
		chains--;
	if (chains < TURN_CHAINS && virtqueue_should_interrupt(vq))
		virtio_interrupt(v, CONSOLE_TX);
	if (!console->serving[CONSOLE_TX])
		return;
	/* More has come, or was there already: another turn. */
	if (!chains || !left || (!console->full && virtqueue_listen(vq)))
		virtio_kick(v, CONSOLE_TX);
}

/* ---- what is typed ---- */

/*
 * Fill the chain, with up to *@left bytes.
 *
 * Return: how many; *@ret_more: it was filled, there may be more.
 */
static uint32_t fill(struct console *console, size_t *left, bool *ret_more)
{
	const struct virtqueue_chain *chain = &console->chain;
	uint32_t done = 0;

	*ret_more = false;
	for (unsigned int i = 0; *left && i < chain->nwritable; i++) {
		const struct iovec *iov = &chain->iov[chain->nreadable + i];
		size_t room = MIN(iov->iov_len, *left);
		size_t n = line_get(console->line, iov->iov_base, room);

		done += (uint32_t)n;
		*left -= n;
		if (n < room)
			return done;
	}
	*ret_more = true;
	return done;
}

/* Return: may there be more to receive, and a buffer for it? */
static bool receive_one(struct console *console, unsigned int *served,
			size_t *left)
{
	struct virtqueue *vq = ring_of(console, CONSOLE_RX);
	uint32_t len;
	bool more;

	if (!take(console, CONSOLE_RX))
		return false;
	if (console->chain.nreadable || !console->chain.nwritable) {
		virtio_fail(&console->virtio, "a buffer of the receive queue "
					      "isn't writable");
		return false;
	}
	len = fill(console, left, &more);
	if (!len) {
		virtqueue_unpop(vq, 1);
		return false;
	}
	virtqueue_push(vq, &console->chain, len);
	(*served)++;
	return more;
}

static void receive(struct console *console)
{
	struct virtio *v = &console->virtio;
	struct virtqueue *vq = ring_of(console, CONSOLE_RX);
	unsigned int served = 0;
	size_t left = TURN_BYTES;

	virtqueue_quiet(vq);
	while (served < TURN_CHAINS && left &&
	       receive_one(console, &served, &left))
		;
	if (served && virtqueue_should_interrupt(vq))
		virtio_interrupt(v, CONSOLE_RX);
	if (!console->serving[CONSOLE_RX])
		return;
	/* With a buffer left it is the line that tells of more. */
	if (served == TURN_CHAINS || !left ||
	    (!virtqueue_pending(vq) && virtqueue_listen(vq)))
		virtio_kick(v, CONSOLE_RX);
}

/* ---- who wakes us ---- */

static void serve(struct console *console)
{
	if (console->serving[CONSOLE_TX])
		transmit(console);
	if (console->serving[CONSOLE_RX])
		receive(console);
}

/* Before the ring is looked at: who rings later is heard. */
static void hear_bell(struct console *console, unsigned int index)
{
	uint64_t count;
	ssize_t n = read(console->virtio.queues[index].event_fd, &count,
			 sizeof(count));

	/* EAGAIN: somebody has heard it. */
	(void)n;
}

static void on_receive_bell(void *opaque, uint32_t events __maybe_unused)
{
	struct console *console = opaque;

	hear_bell(console, CONSOLE_RX);
	if (console->serving[CONSOLE_RX])
		receive(console);
}

static void on_transmit_bell(void *opaque, uint32_t events __maybe_unused)
{
	struct console *console = opaque;

	hear_bell(console, CONSOLE_TX);
	if (console->serving[CONSOLE_TX])
		transmit(console);
}

/* A window that nobody knows doesn't change one that the driver knows. */
static void look_at_size(struct console *console)
{
	struct line_size now = line_size(console->line);

	if ((!now.columns && !now.rows) ||
	    (now.columns == console->size.columns &&
	     now.rows == console->size.rows))
		return;
	console->size = now;
	virtio_config_changed(&console->virtio);
}

static void on_news(void *opaque, uint32_t events __maybe_unused)
{
	struct console *console = opaque;

	line_take_news(console->line);
	if (console->virtio.paused)
		return;
	look_at_size(console);
	serve(console);
}

/* ---- what the core asks ---- */

static void console_config_read(struct virtio *v, uint32_t offset, void *data,
				unsigned int size)
{
	const struct console *console = to_console(v);
	const struct console_config config = {
		.columns = htole16(console->size.columns),
		.rows = htole16(console->size.rows),
	};

	memcpy(data, (const uint8_t *)&config + offset, size);
}

/* There is nothing to write without EMERG_WRITE. */
static void console_config_write(struct virtio *v __maybe_unused,
				 uint32_t offset __maybe_unused,
				 const void *data __maybe_unused,
				 unsigned int size __maybe_unused)
{
}

static void console_start_queue(struct virtio *v, unsigned int index)
{
	to_console(v)->serving[index] = true;
}

static void console_stop_queue(struct virtio *v, unsigned int index)
{
	struct console *console = to_console(v);

	console->serving[index] = false;
	/* Then what is in it won't come again. */
	if (index == CONSOLE_TX && (v->queues[index].resetting ||
				    v->state.status & VIRTIO_NEEDS_RESET))
		console->said = 0;
	virtio_queue_stopped(v, index);
}

static void console_forget(struct virtio *v)
{
	to_console(v)->said = 0;
}

static const struct virtio_ops console_virtio_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.class_code = PCI_CLASS_COMMUNICATION,
	.config_size = sizeof(struct console_config),
	.config_read = console_config_read,
	.config_write = console_config_write,
	.start_queue = console_start_queue,
	.stop_queue = console_stop_queue,
	.forget = console_forget,
};

/* ---- state ---- */

static void console_visit(struct codec *c, void *state)
{
	struct console_state *s = state;

	virtio_visit(c, &s->virtio);
	codec_u64(c, "said", &s->said);
	codec_u16(c, "columns", &s->columns);
	codec_u16(c, "rows", &s->rows);
}

static void console_snapshot(struct device *dev, void *state)
{
	struct console *console = dev_to_console(dev);
	struct console_state *s = state;

	virtio_snapshot(&console->virtio, &s->virtio);
	s->said = console->said;
	s->columns = console->size.columns;
	s->rows = console->size.rows;
}

static int console_check(struct device *dev, const void *state,
			 struct error *err)
{
	const struct console_state *s = state;
	int rc = virtio_check(&dev_to_console(dev)->virtio, &s->virtio, err);

	if (rc)
		return rc;
	/* Invariant 1. */
	if (s->said && (!(s->virtio.status & VIRTIO_DRIVER_OK) ||
			!s->virtio.queues[CONSOLE_TX].ring.enabled))
		return error_set(err, -EINVAL,
				 "%s: said %llu of a queue that is not in use",
				 dev->id, (unsigned long long)s->said);
	return 0;
}

static void console_commit(struct device *dev, const void *state)
{
	struct console *console = dev_to_console(dev);
	const struct console_state *s = state;

	virtio_commit(&console->virtio, &s->virtio);
	console->said = s->said;
	console->size.columns = s->columns;
	console->size.rows = s->rows;
}

/* ---- life ---- */

static void console_pause(struct device *dev)
{
	virtio_pause(&dev_to_console(dev)->virtio);
}

static void console_resume(struct device *dev)
{
	struct console *console = dev_to_console(dev);

	virtio_resume(&console->virtio);
	/* Another window, perhaps, than where the guest was. */
	look_at_size(console);
}

static void console_reset(struct device *dev)
{
	virtio_reset(&dev_to_console(dev)->virtio);
}

static void console_free(struct device *dev)
{
	struct console *console = dev_to_console(dev);

	loop_fd_remove(console->news);
	for (size_t i = 0; i < ARRAY_SIZE(console->bells); i++)
		loop_fd_remove(console->bells[i]);
	virtio_fini(&console->virtio);
	free(console);
}

const struct device_ops console_ops = {
	.type = CONSOLE_DEVICE,
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct console_state),
	.visit = console_visit,
	.snapshot = console_snapshot,
	.check = console_check,
	.commit = console_commit,
	.pause = console_pause,
	.resume = console_resume,
	.reset = console_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = console_free,
};

/* ---- making ---- */

static int watch(struct console *console, const struct device_env *env,
		 struct error *err)
{
	static loop_fd_fn *const on_bell[] = {
		[CONSOLE_RX] = on_receive_bell,
		[CONSOLE_TX] = on_transmit_bell,
	};
	pthread_mutex_t *lock = &console->virtio.dev.lock;
	int rc = line_watch_news(console->line, env->loop, on_news, console,
				 lock, &console->news, err);

	for (size_t i = 0; !rc && i < ARRAY_SIZE(on_bell); i++)
		rc = loop_fd_add(env->loop, console->virtio.queues[i].event_fd,
				 EPOLLIN, on_bell[i], console, lock,
				 &console->bells[i], err);
	return rc;
}

int console_create(const struct device_env *env,
		   const struct device_config *config, struct device **ret,
		   struct error *err)
{
	const struct virtio_params params = {
		.device_ops = &console_ops,
		.ops = &console_virtio_ops,
		.features = VIRTIO_BIT(CONSOLE_F_SIZE),
		.nqueues = 2,
		.queue_size_max = CONSOLE_QUEUE_SIZE,
	};
	struct console *console;
	int rc;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: a console takes no options, got \"%s\"",
				 config->id, config->options);
	console = calloc(1, sizeof(*console));
	if (!console)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	rc = device_open_line(env, config->id, &console->line, err);
	if (!rc)
		rc = virtio_init(&console->virtio, env, config, &params, err);
	if (rc) {
		free(console);
		return rc;
	}
	rc = watch(console, env, err);
	if (rc) {
		error_prefix(err, "%s", config->id);
		console_free(&console->virtio.dev);
		return rc;
	}
	*ret = &console->virtio.dev;
	return 0;
}
