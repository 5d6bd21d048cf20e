// SPDX-License-Identifier: MIT
/*
 * The virtio core: device status, features, and the life of queues; see
 * virtio.h. Sections are those of VIRTIO 1.2.
 *
 * A queue is served exactly while all of this holds: it is enabled, the driver
 * has set DRIVER_OK, nobody has found fault (NEEDS_RESET), and the device isn't
 * paused. serve() starts it when the last of these comes true; stop() ends it
 * when the first ceases, or a reset begins, during which the driver isn't
 * heard. Between the two lies the device's own time: virtio_queue_stopped()
 * says that it is over.
 *
 *	IDLE --serve()--> SERVED --stop()--> STOPPING --stopped()--> IDLE
 *
 * Invariants:
 *   1. Without DRIVER_OK no queue has been served: its indices are 0, ISR
 *      status is 0, NEEDS_RESET is clear.
 *   2. With FEATURES_OK the driver's features are good ones, for good.
 *   3. ring.state is the core's while the queue is IDLE, and the device's, on
 *      whatever thread, while it is not.
 *   4. Everything is idle while the device is paused, but for what ends in
 *      virtio_pause() itself; so a reset never lasts over a pause.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/virtio/pci.h"
#include "vmm/log.h"

#define STATUS_OF_DRIVER                                         \
	(VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | \
	 VIRTIO_FEATURES_OK | VIRTIO_FAILED)

/*
 * What every device offers. VIRTIO_F_IN_ORDER (6.1) is not among it: it saves a
 * driver work only if that makes use of it, as Linux 6.12 does not, and would
 * have a disk wait with what is done for what was asked before.
 */
#define COMMON_FEATURES                                                        \
	(VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | \
	 VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET))

/* A guest that breaks its driver again and again is told of this often. */
#define WARN_INTERVAL_NS (60 * NS_PER_S)

/* ---- queues ---- */

static bool may_serve(const struct virtio *v)
{
	return (v->state.status & VIRTIO_DRIVER_OK) &&
	       !(v->state.status & VIRTIO_NEEDS_RESET) && !v->paused;
}

void virtio_kick(struct virtio *v, unsigned int index)
{
	uint64_t one = 1;
	ssize_t n = write(v->queues[index].event_fd, &one, sizeof(one));

	/* EAGAIN: it is full of signals that nobody has read yet. */
	(void)n;
}

static void serve(struct virtio *v, unsigned int index)
{
	struct virtio_queue *q = &v->queues[index];

	if (!may_serve(v) || q->phase != VIRTIO_QUEUE_IDLE ||
	    !q->ring.state.enabled)
		return;
	if (virtqueue_start(&q->ring, v->mem,
			    virtio_negotiated(v, VIRTIO_F_EVENT_IDX),
			    virtio_negotiated(v, VIRTIO_F_INDIRECT_DESC))) {
		virtio_fail(v, q->ring.why);
		return;
	}
	q->phase = VIRTIO_QUEUE_SERVED;
	q->started = q->ring.state;
	v->ops->start_queue(v, index);
	virtio_kick(v, index);
}

static void serve_all(struct virtio *v)
{
	for (unsigned int i = 0; i < v->nqueues; i++)
		serve(v, i);
}

static void stop(struct virtio *v, unsigned int index)
{
	struct virtio_queue *q = &v->queues[index];

	if (q->phase != VIRTIO_QUEUE_SERVED)
		return;
	q->phase = VIRTIO_QUEUE_STOPPING;
	v->ops->stop_queue(v, index);
}

static void stop_all(struct virtio *v)
{
	for (unsigned int i = 0; i < v->nqueues; i++)
		stop(v, i);
}

static bool all_idle(const struct virtio *v)
{
	for (unsigned int i = 0; i < v->nqueues; i++) {
		if (v->queues[i].phase != VIRTIO_QUEUE_IDLE)
			return false;
	}
	return true;
}

/* What a queue is when nobody has set it up. */
static void clear_queue(struct virtio *v, unsigned int index)
{
	struct virtio_queue *q = &v->queues[index];

	q->ring.state = (struct virtqueue_state){ .size = v->queue_size_max };
	q->vector = VIRTIO_NO_VECTOR;
	q->resetting = false;
	virtio_pci_move_doorbell(v, index);
}

/* The device as it is at power-on, but for what is PCI's. */
static void clear(struct virtio *v)
{
	v->resetting = false;
	v->state.status = 0;
	v->state.config_vector = VIRTIO_NO_VECTOR;
	v->state.driver_features = 0;
	v->state.device_feature_select = 0;
	v->state.driver_feature_select = 0;
	v->state.queue_select = 0;
	virtio_pci_set_isr(v, 0);
	for (unsigned int i = 0; i < v->nqueues; i++)
		clear_queue(v, i);
	v->ops->forget(v);
}

/* A reset by the driver ends when nothing is in flight; 2.4.1, 2.6.1. */
static void finish_resets(struct virtio *v)
{
	if (v->resetting) {
		if (all_idle(v))
			clear(v);
		return;
	}
	for (unsigned int i = 0; i < v->nqueues; i++) {
		if (v->queues[i].resetting &&
		    v->queues[i].phase == VIRTIO_QUEUE_IDLE)
			clear_queue(v, i);
	}
}

void virtio_queue_stopped(struct virtio *v, unsigned int index)
{
	struct virtio_queue *q = &v->queues[index];

	q->phase = VIRTIO_QUEUE_IDLE;
	virtqueue_stop(&q->ring);
	finish_resets(v);
	pthread_cond_broadcast(&v->idle);
}

void virtio_enable_queue(struct virtio *v, unsigned int index)
{
	struct virtqueue_state *s = &v->queues[index].ring.state;

	if (s->enabled || v->queues[index].resetting)
		return;
	s->enabled = true;
	virtio_pci_move_doorbell(v, index);
	serve(v, index);
}

void virtio_reset_queue(struct virtio *v, unsigned int index)
{
	if (!(v->state.status & VIRTIO_FEATURES_OK) ||
	    !virtio_negotiated(v, VIRTIO_F_RING_RESET))
		return;
	v->queues[index].resetting = true;
	stop(v, index);
	finish_resets(v);
}

/* ---- status and features ---- */

static bool features_are_good(const struct virtio *v, uint64_t features)
{
	/* Sections 2.2.2 and 6.1. */
	return !(features & ~v->features) &&
	       features & VIRTIO_BIT(VIRTIO_F_VERSION_1);
}

void virtio_write_features(struct virtio *v, uint32_t select, uint32_t value)
{
	uint64_t *features = &v->state.driver_features;

	if (v->state.status & VIRTIO_FEATURES_OK || select > 1)
		return;
	*features &= ~(0xffffffffULL << (32 * select));
	*features |= (uint64_t)value << (32 * select);
}

static void begin_reset(struct virtio *v)
{
	v->resetting = true;
	stop_all(v);
	finish_resets(v);
}

void virtio_write_status(struct virtio *v, uint8_t value)
{
	uint8_t fresh = value & STATUS_OF_DRIVER & ~v->state.status;

	if (!value) {
		begin_reset(v);
		return;
	}
	/* Bits are set one by one, and cleared by a reset alone; 2.1.1. */
	if (fresh & VIRTIO_FEATURES_OK &&
	    !features_are_good(v, v->state.driver_features))
		fresh &= (uint8_t)~VIRTIO_FEATURES_OK;
	if (!((v->state.status | fresh) & VIRTIO_FEATURES_OK))
		fresh &= (uint8_t)~VIRTIO_DRIVER_OK;
	v->state.status |= fresh;
	if (fresh & VIRTIO_DRIVER_OK)
		serve_all(v);
}

/* ---- telling the driver ---- */

uint16_t virtio_vector(const struct virtio *v, uint16_t vector)
{
	return vector < v->vectors ? vector : VIRTIO_NO_VECTOR;
}

void virtio_interrupt(struct virtio *v, unsigned int index)
{
	virtio_pci_tell(v, v->queues[index].vector, VIRTIO_ISR_QUEUE);
}

static void tell_config(struct virtio *v)
{
	if (v->state.status & VIRTIO_DRIVER_OK)
		virtio_pci_tell(v, v->state.config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_config_changed(struct virtio *v)
{
	v->state.config_generation++;
	tell_config(v);
}

static void warn(struct virtio *v, const char *why)
{
	uint64_t now = clock_ns();

	if (v->warned_ns && now - v->warned_ns < WARN_INTERVAL_NS)
		return;
	v->warned_ns = now;
	log_warn("%s: the guest's driver broke the rules: %s; it has to reset "
		 "the device",
		 v->dev.id, why);
}

void virtio_fail(struct virtio *v, const char *why)
{
	if (!(v->state.status & VIRTIO_DRIVER_OK) ||
	    v->state.status & VIRTIO_NEEDS_RESET || v->resetting)
		return;
	warn(v, why);
	v->state.status |= VIRTIO_NEEDS_RESET;
	stop_all(v);
	tell_config(v);
}

/* ---- state ---- */

static void visit_queue(struct codec *c, struct virtio_queue_setup *setup)
{
	codec_enter(c, "queue");
	virtqueue_visit(c, &setup->ring);
	codec_u16(c, "vector", &setup->vector);
	codec_leave(c);
}

void virtio_visit(struct codec *c, struct virtio_state *state)
{
	codec_enter(c, "virtio");
	pci_visit(c, &state->pci);
	codec_u64(c, "driver_features", &state->driver_features);
	codec_u32(c, "device_feature_select", &state->device_feature_select);
	codec_u32(c, "driver_feature_select", &state->driver_feature_select);
	codec_u32(c, "window_offset", &state->window_offset);
	codec_u32(c, "window_length", &state->window_length);
	codec_u8(c, "window_bar", &state->window_bar);
	codec_u8(c, "status", &state->status);
	codec_u8(c, "config_generation", &state->config_generation);
	codec_u8(c, "isr", &state->isr);
	codec_u16(c, "config_vector", &state->config_vector);
	codec_u16(c, "queue_select", &state->queue_select);
	codec_count(c, "nqueues", &state->nqueues, VIRTIO_QUEUES_MAX);
	for (uint32_t i = 0; i < state->nqueues; i++)
		visit_queue(c, &state->queues[i]);
	codec_leave(c);
}

void virtio_snapshot(struct virtio *v, struct virtio_state *state)
{
	pthread_mutex_lock(&v->isr_lock);
	*state = v->state;
	pthread_mutex_unlock(&v->isr_lock);
	virtio_pci_snapshot(v, state);
	state->nqueues = v->nqueues;
	for (unsigned int i = 0; i < v->nqueues; i++) {
		struct virtio_queue *q = &v->queues[i];

		state->queues[i].ring = q->phase == VIRTIO_QUEUE_IDLE
						? q->ring.state
						: q->started;
		state->queues[i].vector = q->vector;
	}
}

static int check_status(const struct virtio *v, const struct virtio_state *s,
			struct error *err)
{
	bool running = s->status & VIRTIO_DRIVER_OK;

	if (s->status & ~(STATUS_OF_DRIVER | VIRTIO_NEEDS_RESET) ||
	    (running && !(s->status & VIRTIO_FEATURES_OK)) ||
	    (s->status & VIRTIO_NEEDS_RESET && !running))
		return error_set(err, -EINVAL,
				 "%s: status 0x%02x is none that a "
				 "driver can get to",
				 v->dev.id, s->status);
	if (s->status & VIRTIO_FEATURES_OK &&
	    !features_are_good(v, s->driver_features))
		return error_set(err, -EINVAL,
				 "%s: driver_features 0x%llx, offered are "
				 "0x%llx, and VERSION_1 must be among them",
				 v->dev.id,
				 (unsigned long long)s->driver_features,
				 (unsigned long long)v->features);
	if (s->isr & ~(VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG) ||
	    (s->isr && !running))
		return error_set(err, -EINVAL,
				 "%s: isr 0x%02x with status 0x%02x", v->dev.id,
				 s->isr, s->status);
	return 0;
}

static int check_vector(const struct virtio *v, const char *name,
			uint16_t vector, struct error *err)
{
	if (vector == VIRTIO_NO_VECTOR || vector < v->vectors)
		return 0;
	return error_set(err, -EINVAL, "%s %u, and there are %u", name, vector,
			 v->vectors);
}

static int check_queue(const struct virtio *v, const struct virtio_state *s,
		       unsigned int index, struct error *err)
{
	const struct virtio_queue_setup *setup = &s->queues[index];
	const struct virtqueue_state *ring = &setup->ring;
	int code = virtqueue_check(ring, v->queue_size_max, err);

	if (!code)
		code = check_vector(v, "vector", setup->vector, err);
	if (!code && !(s->status & VIRTIO_DRIVER_OK) &&
	    (ring->next_avail || ring->next_used || ring->signalled_valid))
		code = error_set(err, -EINVAL,
				 "next_avail %u, next_used %u, signalled_valid "
				 "%u before any driver was ready",
				 ring->next_avail, ring->next_used,
				 ring->signalled_valid);
	if (code)
		error_prefix(err, "%s: queue %u", v->dev.id, index);
	return code;
}

int virtio_check(const struct virtio *v, const struct virtio_state *state,
		 struct error *err)
{
	int code = pci_check(&v->pci, &state->pci, err);

	if (!code)
		code = check_status(v, state, err);
	if (code)
		return code;
	code = check_vector(v, "config_vector", state->config_vector, err);
	if (code) {
		error_prefix(err, "%s", v->dev.id);
		return code;
	}
	if (state->nqueues != v->nqueues)
		return error_set(err, -EINVAL,
				 "%s: nqueues %u, and it has %u here",
				 v->dev.id, state->nqueues, v->nqueues);
	for (unsigned int i = 0; !code && i < v->nqueues; i++)
		code = check_queue(v, state, i, err);
	return code;
}

void virtio_commit(struct virtio *v, const struct virtio_state *state)
{
	v->state = *state;
	for (unsigned int i = 0; i < v->nqueues; i++) {
		v->queues[i].ring.state = state->queues[i].ring;
		v->queues[i].vector = state->queues[i].vector;
	}
	virtio_pci_commit(v, state);
}

/* ---- life ---- */

void virtio_pause(struct virtio *v)
{
	v->paused = true;
	stop_all(v);
	while (!all_idle(v))
		pthread_cond_wait(&v->idle, &v->dev.lock);
}

void virtio_resume(struct virtio *v)
{
	v->paused = false;
	/* The interrupt controller may be another one than at pause. */
	virtio_pci_set_isr(v, v->state.isr);
	serve_all(v);
}

void virtio_reset(struct virtio *v)
{
	pci_function_reset(&v->pci);
	v->state.config_generation = 0;
	clear(v);
}

static int open_queue(struct virtio *v, unsigned int index, struct error *err)
{
	struct virtio_queue *q = &v->queues[index];

	q->ring.state.size = v->queue_size_max;
	q->vector = VIRTIO_NO_VECTOR;
	q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->event_fd >= 0)
		return 0;
	return error_set(err, -errno, "%s: doorbell of queue %u: %s", v->dev.id,
			 index, strerror(errno));
}

int virtio_init(struct virtio *v, const struct device_env *env,
		const struct device_config *config,
		const struct virtio_params *params, struct error *err)
{
	int code = 0;

	if (config->vectors > DEVICE_VECTORS_MAX)
		return error_set(err, -EINVAL,
				 "%s: vectors=%u; at most %d, so that any host "
				 "can hold them",
				 config->id, config->vectors,
				 DEVICE_VECTORS_MAX);
	*v = (struct virtio){
		.ops = params->ops,
		.mem = env->memory,
		.doorbell = env->doorbell,
		.features = params->features | COMMON_FEATURES,
		.nqueues = params->nqueues,
		.queue_size_max = params->queue_size_max,
		.vectors = config->vectors,
		.paused = true,
		.state.config_vector = VIRTIO_NO_VECTOR,
	};
	device_init(&v->dev, params->device_ops, config->id);
	/* Can't fail with default attributes. */
	pthread_cond_init(&v->idle, NULL);
	pthread_mutex_init(&v->isr_lock, NULL);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		v->queues[i].event_fd = -1;
	for (unsigned int i = 0; !code && i < v->nqueues; i++)
		code = open_queue(v, i, err);
	if (!code)
		code = virtio_pci_init(v, env->pci, err);
	if (code)
		virtio_fini(v);
	return code;
}

void virtio_fini(struct virtio *v)
{
	virtio_pci_fini(v);
	for (unsigned int i = 0; i < v->nqueues; i++)
		close_fd(&v->queues[i].event_fd);
	pthread_mutex_destroy(&v->isr_lock);
	pthread_cond_destroy(&v->idle);
	device_fini(&v->dev);
}
