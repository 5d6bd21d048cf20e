// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to virtio devices through configuration space, BARs
 * and memory: a bus with an entropy device, a balloon, and one that lets go of
 * its queues when it likes. Nothing may crash, and each state that is reached
 * must be one that check() accepts, after which the machine goes on from it.
 *
 * An input is a series of struct step. Interrupts and doorbells go nowhere (the
 * functions of vmm/irq.h and vmm/doorbell.h are replaced at link time).
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "arch/x86_64/layout.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/rng.h"
#include "vmm/bus.h"
#include "vmm/doorbell.h"
#include "vmm/hints.h"
#include "vmm/irq.h"
#include "vmm/log.h"
#include "vmm/loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RINGS	   0x10000
#define RINGS_SIZE 0x2000
#define DEVICES	   3
#define TOY_QUEUES 2
#define STEPS_MAX  256

enum {
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_BAR_WRITE,
	STEP_BAR_READ,
	STEP_MEMORY,
	STEP_TURN,
	STEP_TOY,
	STEP_HOLD,
	STEP_MOVE,
	STEP_RESET,
	STEP_READY,
	STEP_BALLOON,
	STEPS,
};

struct step {
	uint8_t what;
	uint8_t device; /* and the BAR above it */
	uint8_t at[2];
	uint8_t size_shift;
	uint8_t value[8];
};

struct toy {
	struct virtio virtio;
	bool holds;
	bool asked[TOY_QUEUES];
	bool served[TOY_QUEUES];
	uint8_t config[8];
};

/* rng, toy, balloon: slots 1 to 3 */
enum {
	RNG,
	TOY,
	BALLOON
};

struct machine {
	struct bus pio;
	struct bus mmio;
	struct irq irq;
	struct doorbell doorbell;
	struct pci_bus *pci;
	struct loop *loop;
	struct memory *mem;
	struct device_env env;
	struct device *host;
	struct device *devices[DEVICES];
	struct hints *hints;
	struct toy *toy;
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

/* ---- the other device ---- */

static struct toy *to_toy(struct virtio *v)
{
	return container_of(v, struct toy, virtio);
}

static void toy_config_read(struct virtio *v, uint32_t offset, void *data,
			    unsigned int size)
{
	demand(offset + size <= sizeof(to_toy(v)->config), "config read");
	memcpy(data, to_toy(v)->config + offset, size);
}

static void toy_config_write(struct virtio *v, uint32_t offset,
			     const void *data, unsigned int size)
{
	demand(offset + size <= sizeof(to_toy(v)->config), "config write");
	memcpy(to_toy(v)->config + offset, data, size);
}

static void toy_start_queue(struct virtio *v, unsigned int index)
{
	demand(!to_toy(v)->served[index] && !to_toy(v)->asked[index], "start");
	to_toy(v)->served[index] = true;
}

static void toy_stop_queue(struct virtio *v, unsigned int index)
{
	demand(to_toy(v)->served[index], "stop");
	to_toy(v)->served[index] = false;
	to_toy(v)->asked[index] = to_toy(v)->holds;
	if (!to_toy(v)->holds)
		virtio_queue_stopped(v, index);
}

static void toy_forget(struct virtio *v)
{
	for (unsigned int i = 0; i < TOY_QUEUES; i++)
		demand(!to_toy(v)->served[i] && !to_toy(v)->asked[i], "forget");
}

static const struct virtio_ops toy_virtio_ops = {
	.id = 42,
	.config_size = 8,
	.config_read = toy_config_read,
	.config_write = toy_config_write,
	.start_queue = toy_start_queue,
	.stop_queue = toy_stop_queue,
	.forget = toy_forget,
};

static struct virtio *to_virtio(struct device *dev)
{
	return container_of(dev, struct virtio, dev);
}

static void toy_visit(struct codec *c, void *state)
{
	virtio_visit(c, state);
}

static void toy_snapshot(struct device *dev, void *state)
{
	virtio_snapshot(to_virtio(dev), state);
}

static int toy_check(struct device *dev, const void *state, struct error *err)
{
	return virtio_check(to_virtio(dev), state, err);
}

static void toy_commit(struct device *dev, const void *state)
{
	virtio_commit(to_virtio(dev), state);
}

static void toy_pause(struct device *dev)
{
	virtio_pause(to_virtio(dev));
}

static void toy_resume(struct device *dev)
{
	virtio_resume(to_virtio(dev));
}

static void toy_reset(struct device *dev)
{
	virtio_reset(to_virtio(dev));
}

static void toy_free(struct device *dev)
{
	struct virtio *v = to_virtio(dev);

	virtio_fini(v);
	free(to_toy(v));
}

static const struct device_ops toy_ops = {
	.type = "toy",
	.version = 1,
	.state_size = sizeof(struct virtio_state),
	.visit = toy_visit,
	.snapshot = toy_snapshot,
	.check = toy_check,
	.commit = toy_commit,
	.pause = toy_pause,
	.resume = toy_resume,
	.reset = toy_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = toy_free,
};

static void toy_let_go(struct toy *toy)
{
	for (unsigned int i = 0; i < TOY_QUEUES; i++) {
		if (!toy->asked[i])
			continue;
		toy->asked[i] = false;
		virtio_queue_stopped(&toy->virtio, i);
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

static struct toy *make_toy(struct machine *m)
{
	const struct device_config config = { .id = "toy0" };
	const struct virtio_params params = {
		.device_ops = &toy_ops,
		.ops = &toy_virtio_ops,
		.nqueues = TOY_QUEUES,
		.queue_size_max = 16,
	};
	struct toy *toy = calloc(1, sizeof(*toy));
	struct error err;

	demand(!virtio_init(&toy->virtio, &m->env, &config, &params, &err),
	       "toy");
	return toy;
}

static void make_machine(struct machine *m)
{
	const struct device_config host = { .id = "pci0" };
	const struct device_config rng = { .id = "rng0", .vectors = 2 };
	const struct device_config balloon = { .id = "balloon0", .vectors = 6 };
	struct error err;

	bus_init(&m->pio, "port");
	bus_init(&m->mmio, "mmio");
	demand(!loop_create(&m->loop, &err) &&
		       !pci_bus_create(&m->irq, &m->pci, &err) &&
		       !memory_create(MEMORY_MIN, false, &m->mem, &err) &&
		       !hints_create(m->mem, &m->hints, &err),
	       "machine");
	m->env = (struct device_env){
		.pio = &m->pio,
		.mmio = &m->mmio,
		.pci = m->pci,
		.irq = &m->irq,
		.doorbell = &m->doorbell,
		.loop = m->loop,
		.memory = m->mem,
		.hints = m->hints,
		.hooks = &hooks,
	};
	demand(!pci_host_create(&m->env, &host, &m->host, &err) &&
		       !rng_create(&m->env, &rng, &m->devices[RNG], &err),
	       "devices");
	m->toy = make_toy(m);
	m->devices[TOY] = &m->toy->virtio.dev;
	demand(!balloon_create(&m->env, &balloon, &m->devices[BALLOON], &err),
	       "balloon");
}

static void free_machine(struct machine *m)
{
	for (int i = 0; i < DEVICES; i++)
		m->devices[i]->ops->free(m->devices[i]);
	m->host->ops->free(m->host);
	pci_bus_free(m->pci);
	loop_free(m->loop);
	hints_free(m->hints);
	memory_free(m->mem);
}

static void on_marker(void *opaque, uint32_t events)
{
	loop_stop(opaque);
}

/* Let the loop serve what is ready. */
static void turn_loop(struct machine *m)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	struct loop_fd *marker;
	struct error err;

	demand(!loop_fd_add(m->loop, fd, EPOLLIN, on_marker, m->loop, NULL,
			    &marker, &err),
	       "marker");
	for (int i = 0; i < 3; i++)
		loop_run(m->loop);
	loop_fd_remove(marker);
	close(fd);
}

/* All devices, by way of bytes, into themselves. */
static void pause_all(struct machine *m)
{
	m->toy->holds = false;
	toy_let_go(m->toy);
	for (int i = 0; i < DEVICES; i++)
		m->devices[i]->ops->pause(m->devices[i]);
}

static void resume_all(struct machine *m)
{
	for (int i = 0; i < DEVICES; i++)
		m->devices[i]->ops->resume(m->devices[i]);
}

static void move(struct machine *m)
{
	/* The largest, and all of them are as large as they say. */
	static struct balloon_state state;
	struct error err;

	pause_all(m);
	for (int i = 0; i < DEVICES; i++) {
		const struct device_ops *ops = m->devices[i]->ops;
		struct buffer bytes = { 0 };
		struct codec c;

		demand(ops->state_size <= sizeof(state), "room for the state");
		ops->snapshot(m->devices[i], &state);
		codec_init_save(&c, &bytes, ops->version);
		ops->visit(&c, &state);
		demand(!codec_finish(&c, &err), "save");
		memset(&state, 0, sizeof(state));
		codec_init_load(&c, bytes.data, bytes.len, ops->version);
		ops->visit(&c, &state);
		demand(!codec_finish(&c, &err), "load");
		err.text[0] = '\0';
		demand(!ops->check(m->devices[i], &state, &err), err.text);
		ops->commit(m->devices[i], &state);
		buffer_free(&bytes);
	}
	resume_all(m);
}

/* ---- the guest ---- */

static uint64_t config_gpa(unsigned int device, unsigned int offset)
{
	return LAYOUT_PCI_ECAM + (device + 1) * 0x8000ULL + offset;
}

static uint64_t bar_gpa(struct machine *m, const struct step *step,
			unsigned int offset)
{
	unsigned int bar = step->device / DEVICES % 2;
	uint32_t gpa = 0;

	bus_read(&m->mmio,
		 config_gpa(step->device % DEVICES, PCI_BAR0 + 4 * bar), &gpa,
		 4);
	return gpa + offset % 0x4000;
}

static void put(struct machine *m, unsigned int device, unsigned int offset,
		uint64_t value, unsigned int size)
{
	const struct step at = { .device = (uint8_t)device };

	bus_write(&m->mmio, bar_gpa(m, &at, offset), &value, size);
}

/* What a driver does that works, so that inputs needn't find it out. */
static void ready(struct machine *m, unsigned int device)
{
	static const unsigned int queues[] = { 1, TOY_QUEUES, 5 };
	/* Of the balloon all but poison, which inputs may find. */
	static const uint32_t features[] = { 0, 0, 0x2a };
	uint16_t command = PCI_COMMAND_MEMORY;

	bus_write(&m->mmio, config_gpa(device, PCI_COMMAND), &command, 2);
	put(m, device, 0x14, 0, 1);
	put(m, device, 0x08, 1, 4);
	put(m, device, 0x0c, 0x101, 4);
	put(m, device, 0x08, 0, 4);
	put(m, device, 0x0c, 0x30000000 | features[device], 4);
	put(m, device, 0x14, VIRTIO_FEATURES_OK, 1);
	for (unsigned int i = 0; i < queues[device]; i++) {
		put(m, device, 0x16, i, 2);
		put(m, device, 0x18, 4, 2);
		put(m, device, 0x20, RINGS + i * 0x400, 8);
		put(m, device, 0x28, RINGS + i * 0x400 + 0x100, 8);
		put(m, device, 0x30, RINGS + i * 0x400 + 0x200, 8);
		put(m, device, 0x1c, 1, 2);
	}
	put(m, device, 0x14, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

static void forget_hint(void *opaque, uint64_t word, uint64_t bits)
{
	struct machine *m = opaque;

	demand(bits && word < m->mem->npages / 64, "hint");
}

/* What users and migrations want of it. */
static void ask_balloon(struct machine *m, unsigned int at)
{
	struct device *balloon = m->devices[BALLOON];
	struct balloon_info info;

	switch (at % 4) {
	case 0:
		balloon_set(balloon, (uint64_t)at << 9);
		break;
	case 1:
		balloon_look(balloon, &info);
		demand(info.actual <= m->mem->size, "actual");
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

static void take(struct machine *m, const struct step *step)
{
	unsigned int at = (unsigned int)(step->at[0] | step->at[1] << 8);
	unsigned int size = 1U << step->size_shift % 4;
	unsigned int device = step->device % DEVICES;
	uint8_t value[8];

	memcpy(value, step->value, sizeof(value));
	switch (step->what % STEPS) {
	case STEP_CONFIG_WRITE:
		bus_write(&m->mmio, config_gpa(device, at % 0x100), value,
			  size);
		break;
	case STEP_CONFIG_READ:
		bus_read(&m->mmio, config_gpa(device, at % 0x100), value, size);
		break;
	case STEP_BAR_WRITE:
		bus_write(&m->mmio, bar_gpa(m, step, at), value, size);
		break;
	case STEP_BAR_READ:
		bus_read(&m->mmio, bar_gpa(m, step, at), value, size);
		break;
	case STEP_MEMORY:
		(void)!memory_write(m->mem, RINGS + at % RINGS_SIZE, value,
				    size);
		break;
	case STEP_TURN:
		turn_loop(m);
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
		pause_all(m);
		m->devices[device]->ops->reset(m->devices[device]);
		resume_all(m);
		break;
	default:
		ready(m, device);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine m = { 0 };
	struct step step;

	log_set_level(LOG_ERROR);
	make_machine(&m);
	resume_all(&m);
	for (size_t i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		memcpy(&step, data, sizeof(step));
		take(&m, &step);
		data += sizeof(step);
		size -= sizeof(step);
	}
	/* Whatever it was that was reached, it can move. */
	move(&m);
	pause_all(&m);
	free_machine(&m);
	return 0;
}
