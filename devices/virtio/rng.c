// SPDX-License-Identifier: MIT
/*
 * The entropy device; see rng.h. VIRTIO 1.2, section 5.4.
 *
 * It is served on the loop's thread. A request gets at most REQUEST_MAX bytes,
 * which 5.4.6.1 allows, and a turn serves at most TURN_MAX requests; what is
 * left waits for the next turn, so that a guest that asks without end can't
 * keep others waiting. The bytes go straight into the guest's memory.
 *
 * Nothing is ever in flight between two calls, so a queue stops at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "devices/virtio/rng.h"
#include "vmm/loop.h"

#define VIRTIO_ID_ENTROPY 4
/* A device that fits no class; PCI 3.0, appendix D. */
#define PCI_CLASS_NONE 0xff0000

#define REQUEST_MAX 4096
#define TURN_MAX    16

struct rng {
	struct virtio virtio;
	struct loop_fd *watch;
	bool serving;
	struct virtqueue_chain chain; /* the one that is being served */
};

static struct rng *to_rng(struct virtio *v)
{
	return container_of(v, struct rng, virtio);
}

static struct rng *dev_to_rng(struct device *dev)
{
	return container_of(dev, struct rng, virtio.dev);
}

/*
 * Return: how many bytes were put in. The host's pool was ready when the device
 * was made, so there are always some.
 */
static uint32_t fill(const struct virtqueue_chain *chain)
{
	const struct iovec *iov = &chain->iov[chain->nreadable];
	uint32_t done = 0;

	for (unsigned int i = 0; i < chain->nwritable; i++) {
		size_t len = MIN(iov[i].iov_len, (size_t)REQUEST_MAX - done);
		ssize_t n = getrandom(iov[i].iov_base, len, GRND_NONBLOCK);

		if (n > 0)
			done += (uint32_t)n;
		if (n < (ssize_t)iov[i].iov_len)
			break;
	}
	return done;
}

/* Return: false when there is nothing (more) to serve. */
static bool serve_one(struct rng *rng)
{
	struct virtqueue *vq = &rng->virtio.queues[0].ring;

	if (!virtqueue_pop(vq, &rng->chain)) {
		if (vq->broken)
			virtio_fail(&rng->virtio, vq->why);
		return false;
	}
	/* Section 5.4.6: buffers are there to be filled. */
	if (rng->chain.nreadable || !rng->chain.nwritable) {
		virtio_fail(&rng->virtio, "a request for entropy isn't "
					  "writable");
		return false;
	}
	virtqueue_push(vq, &rng->chain, fill(&rng->chain));
	return true;
}

static void serve_turn(struct rng *rng)
{
	struct virtio *v = &rng->virtio;
	struct virtqueue *vq = &v->queues[0].ring;
	unsigned int left = TURN_MAX;

	virtqueue_quiet(vq);
	while (left && serve_one(rng))
		left--;
	if (left < TURN_MAX && virtqueue_should_interrupt(vq))
		virtio_interrupt(v, 0);
	/* More has come, or was there already: another turn. */
	if (rng->serving && (!left || virtqueue_listen(vq)))
		virtio_kick(v, 0);
}

static void on_doorbell(void *opaque, uint32_t events __maybe_unused)
{
	struct rng *rng = opaque;
	uint64_t count;

	/* Before the ring is looked at: who rings later is heard. */
	if (read(rng->virtio.queues[0].event_fd, &count, sizeof(count)) < 0)
		return;
	if (rng->serving)
		serve_turn(rng);
}

/* ---- what the core asks ---- */

static void rng_config_read(struct virtio *v __maybe_unused,
			    uint32_t offset __maybe_unused, void *data,
			    unsigned int size)
{
	memset(data, 0, size);
}

static void rng_config_write(struct virtio *v __maybe_unused,
			     uint32_t offset __maybe_unused,
			     const void *data __maybe_unused,
			     unsigned int size __maybe_unused)
{
}

static void rng_start_queue(struct virtio *v, unsigned int index __maybe_unused)
{
	to_rng(v)->serving = true;
}

static void rng_stop_queue(struct virtio *v, unsigned int index)
{
	to_rng(v)->serving = false;
	virtio_queue_stopped(v, index);
}

static void rng_forget(struct virtio *v __maybe_unused)
{
}

static const struct virtio_ops rng_virtio_ops = {
	.id = VIRTIO_ID_ENTROPY,
	.class_code = PCI_CLASS_NONE,
	.config_read = rng_config_read,
	.config_write = rng_config_write,
	.start_queue = rng_start_queue,
	.stop_queue = rng_stop_queue,
	.forget = rng_forget,
};

/* ---- the device ---- */

static void rng_visit(struct codec *c, void *state)
{
	struct rng_state *s = state;

	virtio_visit(c, &s->virtio);
}

static void rng_snapshot(struct device *dev, void *state)
{
	struct rng_state *s = state;

	virtio_snapshot(&dev_to_rng(dev)->virtio, &s->virtio);
}

static int rng_check(struct device *dev, const void *state, struct error *err)
{
	const struct rng_state *s = state;

	return virtio_check(&dev_to_rng(dev)->virtio, &s->virtio, err);
}

static void rng_commit(struct device *dev, const void *state)
{
	const struct rng_state *s = state;

	virtio_commit(&dev_to_rng(dev)->virtio, &s->virtio);
}

static void rng_pause(struct device *dev)
{
	virtio_pause(&dev_to_rng(dev)->virtio);
}

static void rng_resume(struct device *dev)
{
	virtio_resume(&dev_to_rng(dev)->virtio);
}

static void rng_reset(struct device *dev)
{
	virtio_reset(&dev_to_rng(dev)->virtio);
}

static void rng_free(struct device *dev)
{
	struct rng *rng = dev_to_rng(dev);

	loop_fd_remove(rng->watch);
	virtio_fini(&rng->virtio);
	free(rng);
}

const struct device_ops rng_ops = {
	.type = "virtio-rng",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct rng_state),
	.visit = rng_visit,
	.snapshot = rng_snapshot,
	.check = rng_check,
	.commit = rng_commit,
	.pause = rng_pause,
	.resume = rng_resume,
	.reset = rng_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = rng_free,
};

/* The host's pool is ready once and for all; wait for it here, not later. */
static int wait_for_entropy(const char *id, struct error *err)
{
	uint8_t byte;

	while (getrandom(&byte, sizeof(byte), 0) < 0) {
		if (errno != EINTR)
			return error_set(err, -errno, "%s: getrandom: %s", id,
					 strerror(errno));
	}
	return 0;
}

int rng_create(const struct device_env *env, const struct device_config *config,
	       struct device **ret, struct error *err)
{
	const struct virtio_params params = {
		.device_ops = &rng_ops,
		.ops = &rng_virtio_ops,
		.nqueues = 1,
		.queue_size_max = RNG_QUEUE_SIZE,
	};
	struct rng *rng;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: the entropy device takes no options, got "
				 "\"%s\"",
				 config->id, config->options);
	code = wait_for_entropy(config->id, err);
	if (code)
		return code;
	rng = calloc(1, sizeof(*rng));
	if (!rng)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	code = virtio_init(&rng->virtio, env, config, &params, err);
	if (code) {
		free(rng);
		return code;
	}
	code = loop_fd_add(env->loop, rng->virtio.queues[0].event_fd, EPOLLIN,
			   on_doorbell, rng, &rng->virtio.dev.lock, &rng->watch,
			   err);
	if (code) {
		error_prefix(err, "%s", config->id);
		rng_free(&rng->virtio.dev);
		return code;
	}
	*ret = &rng->virtio.dev;
	return 0;
}
