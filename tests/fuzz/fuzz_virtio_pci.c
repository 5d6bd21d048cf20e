// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to virtio devices through configuration space, BARs
 * and memory: a bus with an entropy device, one that lets go of its queues when
 * it likes, and a balloon. Nothing may crash, and each state that is reached
 * must be one that check() accepts, after which the machine goes on from it.
 *
 * An input is a series of struct step (steps.h); where is the device, and the
 * BAR above it.
 */
#include "devices/virtio/balloon.h"
#include "devices/virtio/rng.h"
#include "tests/fuzz/steps.h"
#include "tests/unit/virtio_toy.h"
#include "vmm/hints.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	STEP_TURN = STEP_OWN,
	STEP_TOY,
	STEP_HOLD,
	STEP_MOVE,
	STEP_RESET,
	STEP_READY,
	STEP_BALLOON,
	STEPS,
};

enum {
	RNG,
	TOY,
	BALLOON,
	DEVICES,
};

static_assert(DEVICES <= DRIVER_DEVICES, "room for the devices");

struct machine {
	struct driver d;
	struct loop *loop;
	struct hints *hints;
	struct toy *toy;
};

/* ---- the device that lets go when it likes ---- */

static void toy_let_go(struct toy *toy)
{
	for (unsigned int i = 0; i < TOY_QUEUES; i++) {
		if (toy->asked[i])
			toy_stopped(toy, i);
	}
}

static void toy_serve(struct toy *toy, unsigned int index)
{
	static struct virtqueue_chain chain;
	struct virtqueue *vq = &toy->virtio.queues[index].ring;

	if (!toy->served[index])
		return;
	if (virtqueue_pop(vq, &chain))
		virtqueue_push(vq, &chain, (uint32_t)chain.writable);
	else if (vq->broken)
		virtio_fail(&toy->virtio, vq->why);
	if (virtqueue_should_interrupt(vq))
		virtio_interrupt(&toy->virtio, index);
}

/* ---- the machine ---- */

static void tell_balloon(void *opaque)
{
}

static const struct device_hooks hooks = { .tell_balloon = tell_balloon };

static void make_machine(struct machine *m)
{
	const struct device_config rng = { .id = "rng0", .vectors = 2 };
	const struct device_config toy = { .id = "toy0" };
	const struct device_config balloon = { .id = "balloon0", .vectors = 6 };
	struct driver *d = &m->d;
	struct error err;

	demand(!loop_create(&m->loop, &err) &&
		       !hints_create(d->mem, &m->hints, &err),
	       "machine");
	d->env.loop = m->loop;
	d->env.hints = m->hints;
	d->env.hooks = &hooks;
	driver_make(d);
	driver_add(d, rng_create, &rng);
	driver_add(d, toy_create, &toy);
	m->toy = container_of(d->dev, struct toy, virtio.dev);
	driver_add(d, balloon_create, &balloon);
}

static void free_machine(struct machine *m)
{
	driver_free(&m->d);
	loop_free(m->loop);
	hints_free(m->hints);
}

static void pause_all(struct machine *m)
{
	m->toy->holds = false;
	toy_let_go(m->toy);
	for (int i = 0; i < DEVICES; i++)
		m->d.devices[i]->ops->pause(m->d.devices[i]);
}

static void resume_all(struct machine *m)
{
	for (int i = 0; i < DEVICES; i++)
		m->d.devices[i]->ops->resume(m->d.devices[i]);
}

/* All devices, by way of bytes, into themselves. */
static void move(struct machine *m)
{
	/* The largest, and all of them are as large as they say. */
	static struct balloon_state state;

	pause_all(m);
	for (unsigned int i = 0; i < DEVICES; i++) {
		driver_speak_to(&m->d, i);
		demand(m->d.dev->ops->state_size <= sizeof(state),
		       "room for the state");
		driver_move_paused(&m->d, &state);
	}
	resume_all(m);
}

static void reset(struct machine *m, struct device *dev)
{
	pause_all(m);
	dev->ops->reset(dev);
	resume_all(m);
}

/* ---- the guest ---- */

/* What a driver does that works, so that inputs needn't find it out. */
static void ready(struct machine *m)
{
	static const unsigned int queues[] = { 1, TOY_QUEUES, 5 };
	/* Of the balloon all but poison, which inputs may find. */
	static const uint64_t features[] = { 0, 0, 0x2a };

	driver_ready(&m->d,
		     VIRTIO_BIT(VIRTIO_F_VERSION_1) |
			     VIRTIO_BIT(VIRTIO_F_RING_RESET) |
			     VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |
			     VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) |
			     features[m->d.which],
		     queues[m->d.which]);
}

static void forget_hint(void *opaque, uint64_t word, uint64_t bits)
{
	struct machine *m = opaque;

	demand(bits && word < m->d.mem->npages / 64, "hint");
}

/* What users and migrations want of it. */
static void ask_balloon(struct machine *m, unsigned int at)
{
	struct device *balloon = m->d.devices[BALLOON];
	struct balloon_info info;

	switch (at % 4) {
	case 0:
		balloon_set(balloon, (uint64_t)at << 9);
		break;
	case 1:
		balloon_look(balloon, &info);
		demand(info.actual <= m->d.mem->size, "actual");
		break;
	case 2:
		hints_open(m->hints);
		balloon_ask_hints(balloon);
		break;
	default:
		hints_take(m->hints, forget_hint, m);
		balloon_end_hints(balloon);
		hints_close(m->hints);
	}
}

static void take(void *opaque, const struct step *step)
{
	struct machine *m = opaque;
	unsigned int at = step_at(step);
	unsigned int what = step->what % STEPS;
	struct step own = *step;

	driver_speak_to(&m->d, step->where % DEVICES);
	own.where = step->where / DEVICES;
	switch (what) {
	case STEP_TURN:
		step_turn(m->loop);
		break;
	case STEP_TOY:
		toy_serve(m->toy, at % TOY_QUEUES);
		break;
	case STEP_HOLD:
		m->toy->holds = at & 1;
		toy_let_go(m->toy);
		break;
	case STEP_BALLOON:
		ask_balloon(m, at);
		break;
	case STEP_MOVE:
		move(m);
		break;
	case STEP_RESET:
		reset(m, m->d.dev);
		break;
	case STEP_READY:
		ready(m);
		break;
	default:
		step_touch(&m->d, &own, what);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine m;

	log_set_level(LOG_ERROR);
	if (!m.d.mem)
		driver_init(&m.d, MEMORY_MIN);
	driver_clean(&m.d);
	make_machine(&m);
	resume_all(&m);
	steps_walk(data, size, take, &m);
	/* Whatever it was that was reached, it can move. */
	move(&m);
	pause_all(&m);
	free_machine(&m);
	return 0;
}
