/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of virtio devices that are fuzzed: a bus with a bridge and
 * the devices, memory of which the guest writes a window, and the accesses that
 * a driver makes. Interrupts and doorbells go nowhere (functions that are
 * replaced at link time: include this in one file a program).
 */
#ifndef GODWIT_TESTS_FUZZ_DRIVER_H
#define GODWIT_TESTS_FUZZ_DRIVER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/arch.h"
#include "arch/x86_64/layout.h"
#include "devices/virtio/virtio.h"
#include "vmm/bus.h"
#include "vmm/doorbell.h"
#include "vmm/irq.h"

/* Memory that has a hole, and comes to an end behind it. */
#define DRIVER_RAM	  (ARCH_HOLE_START + 16 * MIB)
#define DRIVER_QUEUE_SIZE 16
#define DRIVER_DEVICES	  3

/* What the guest writes, and what is looked at in the end. */
#define WINDOW	    0x10000
#define WINDOW_SIZE 0x10000
#define RINGS(q)    (WINDOW + (q)*0x1000U)
#define AVAIL	    0x400
#define USED	    0x800

#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

typedef int driver_create_fn(const struct device_env *env,
			     const struct device_config *config,
			     struct device **ret, struct error *err);

struct driver {
	/* Made once: it is slow to make. */
	struct memory *mem;
	uint8_t window[WINDOW_SIZE]; /* as the guest alone wrote it */

	/* Of one input. */
	struct bus pio;
	struct bus mmio;
	struct irq irq;
	struct doorbell doorbell;
	struct pci_bus *pci;
	struct device_env env;
	struct device *host;
	struct device *devices[DRIVER_DEVICES]; /* from slot 1 on */
	unsigned int ndevices;
	unsigned int which; /* of them is spoken to, */
	struct device *dev; /* and that is this one */
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

/* ---- memory ---- */

static void driver_init(struct driver *d, uint64_t ram)
{
	struct error err;

	demand(!memory_create(ram, true, &d->mem, &err), "memory");
	for (unsigned int i = 0; i < d->mem->nregions; i++)
		madvise(d->mem->regions[i].hva, d->mem->regions[i].size,
			MADV_NOHUGEPAGE);
}

static void driver_clean(struct driver *d)
{
	struct memory *mem = d->mem;

	for (unsigned int i = 0; i < mem->nregions; i++)
		demand(!madvise(mem->regions[i].hva, mem->regions[i].size,
				MADV_DONTNEED),
		       "memory");
	memset((void *)mem->dirty, 0, mem->npages / 8);
	memset(d->window, 0, sizeof(d->window));
}

static bool is_dirty(const struct memory *mem, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return mem->dirty[page / 64] >> (page % 64) & 1;
}

/* Whatever the device has written is marked dirty. */
static void driver_inspect_memory(const struct driver *d)
{
	const uint8_t *ram = memory_hva(d->mem, WINDOW, WINDOW_SIZE);

	for (uint64_t at = 0; at < WINDOW_SIZE; at += GUEST_PAGE_SIZE)
		demand(is_dirty(d->mem, WINDOW + at) ||
			       !memcmp(ram + at, d->window + at,
				       GUEST_PAGE_SIZE),
		       "a page that was written and isn't marked dirty");
}

/* ---- the machine ---- */

/* With a bridge alone; @d->env has what else its devices need. */
static void driver_make(struct driver *d)
{
	const struct device_config host = { .id = "pci0" };
	struct error err;

	bus_init(&d->pio, "port");
	bus_init(&d->mmio, "mmio");
	demand(!pci_bus_create(&d->irq, &d->pci, &err), "bus");
	d->env.pio = &d->pio;
	d->env.mmio = &d->mmio;
	d->env.pci = d->pci;
	d->env.irq = &d->irq;
	d->env.doorbell = &d->doorbell;
	d->env.memory = d->mem;
	demand(!pci_host_create(&d->env, &host, &d->host, &err), "bridge");
	d->ndevices = 0;
}

static void driver_speak_to(struct driver *d, unsigned int which)
{
	d->which = which;
	d->dev = d->devices[which];
}

static void driver_add(struct driver *d, driver_create_fn *create,
		       const struct device_config *config)
{
	struct error err = { "" };

	demand(!create(&d->env, config, &d->devices[d->ndevices], &err),
	       err.text);
	driver_speak_to(d, d->ndevices++);
}

static void driver_free(struct driver *d)
{
	for (unsigned int i = 0; i < d->ndevices; i++)
		d->devices[i]->ops->free(d->devices[i]);
	d->host->ops->free(d->host);
	pci_bus_free(d->pci);
}

/*
 * By way of bytes into itself; the lock is held, and it is paused.
 * @state: room for one.
 */
static void driver_move_paused(struct driver *d, void *state)
{
	const struct device_ops *ops = d->dev->ops;
	struct error err = { "" };
	struct buffer bytes = { 0 };
	struct codec c;

	ops->snapshot(d->dev, state);
	codec_init_save(&c, &bytes, ops->version);
	ops->visit(&c, state);
	demand(!codec_finish(&c, &err), "save");
	memset(state, 0, ops->state_size);
	codec_init_load(&c, bytes.data, bytes.len, ops->version);
	ops->visit(&c, state);
	demand(!codec_finish(&c, &err), "load");
	demand(!ops->check(d->dev, state, &err), err.text);
	ops->commit(d->dev, state);
	buffer_free(&bytes);
}

/* ---- accesses ---- */

static void guest_write(struct driver *d, uint64_t gpa, const void *value,
			size_t size)
{
	size = MIN(size, WINDOW + WINDOW_SIZE - gpa);
	memcpy(&d->window[gpa - WINDOW], value, size);
	memcpy(memory_hva(d->mem, gpa, size), value, size);
}

static uint64_t config_gpa(const struct driver *d, unsigned int offset)
{
	return LAYOUT_PCI_ECAM + (d->which + 1) * 0x8000ULL + offset;
}

static uint64_t bar_gpa(struct driver *d, unsigned int bar, unsigned int offset)
{
	uint32_t gpa = 0;

	bus_read(&d->mmio, config_gpa(d, PCI_BAR0 + 4 * (bar % 2)), &gpa, 4);
	return gpa + offset % 0x4000;
}

static void put(struct driver *d, unsigned int offset, uint64_t value,
		unsigned int size)
{
	bus_write(&d->mmio, bar_gpa(d, 0, offset), &value, size);
}

static void notify(struct driver *d, unsigned int queue)
{
	put(d, 0x3000 + 4 * queue, queue, 2);
}

/* What a driver does that works, so that inputs needn't find it out. */
static void driver_ready(struct driver *d, uint64_t features,
			 unsigned int queues)
{
	uint16_t command = PCI_COMMAND_MEMORY;

	bus_write(&d->mmio, config_gpa(d, PCI_COMMAND), &command, 2);
	put(d, 0x14, 0, 1);
	put(d, 0x08, 1, 4);
	put(d, 0x0c, features >> 32, 4);
	put(d, 0x08, 0, 4);
	put(d, 0x0c, features, 4);
	put(d, 0x14, VIRTIO_FEATURES_OK, 1);
	for (unsigned int i = 0; i < queues; i++) {
		put(d, 0x16, i, 2);
		put(d, 0x18, DRIVER_QUEUE_SIZE, 2);
		put(d, 0x20, RINGS(i), 8);
		put(d, 0x28, RINGS(i) + AVAIL, 8);
		put(d, 0x30, RINGS(i) + USED, 8);
		put(d, 0x1c, 1, 2);
	}
	put(d, 0x14, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

/* At @gpa, which may be in a table of its own. */
static void put_desc_at(struct driver *d, uint64_t gpa, uint64_t addr,
			uint32_t len, uint16_t flags, uint16_t next)
{
	guest_write(d, gpa, &addr, 8);
	guest_write(d, gpa + 8, &len, 4);
	guest_write(d, gpa + 12, &flags, 2);
	guest_write(d, gpa + 14, &next, 2);
}

static void put_desc(struct driver *d, unsigned int queue, uint16_t index,
		     uint64_t addr, uint32_t len, uint16_t flags)
{
	put_desc_at(d, RINGS(queue) + 16ULL * index, addr, len, flags,
		    (uint16_t)(index + 1));
}

static void offer(struct driver *d, unsigned int queue, uint16_t head)
{
	uint64_t avail = RINGS(queue) + AVAIL;
	uint16_t idx;

	memcpy(&idx, memory_hva(d->mem, avail + 2, 2), 2);
	guest_write(d, avail + 4 + 2 * (idx % DRIVER_QUEUE_SIZE), &head, 2);
	idx++;
	guest_write(d, avail + 2, &idx, 2);
}

static uint16_t used_idx(struct driver *d, unsigned int queue)
{
	return *(volatile uint16_t *)memory_hva(d->mem, RINGS(queue) + USED + 2,
						2);
}

#endif
