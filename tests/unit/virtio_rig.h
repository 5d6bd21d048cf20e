/* SPDX-License-Identifier: MIT */
/*
 * What the tests of a virtio device stand it on: a device rig with memory and a
 * PCI bus, doorbells that are only written down (the functions of
 * vmm/doorbell.h are replaced at link time; include this in one file a
 * program), and a driver's accesses: configuration space by ECAM, BARs by
 * memory.
 */
#ifndef GODWIT_TESTS_VIRTIO_RIG_H
#define GODWIT_TESTS_VIRTIO_RIG_H

#include "arch/x86_64/layout.h"
#include "devices/virtio/virtio.h"
#include "tests/unit/device_rig.h"
#include "tests/unit/vring.h"
#include "vmm/doorbell.h"

#define VIRTIO_RIG_RAM (16 * MIB)
#define VIRTIO_RIG_RINGS                                    \
	0x10000ULL /* those of queue n are n * 16 KiB above \
		    */

/* Registers of the common configuration. */
#define COMMON_DEVICE_FEATURE_SELECT 0x00
#define COMMON_DEVICE_FEATURE	     0x04
#define COMMON_DRIVER_FEATURE_SELECT 0x08
#define COMMON_DRIVER_FEATURE	     0x0c
#define COMMON_CONFIG_VECTOR	     0x10
#define COMMON_NUM_QUEUES	     0x12
#define COMMON_STATUS		     0x14
#define COMMON_GENERATION	     0x15
#define COMMON_QUEUE_SELECT	     0x16
#define COMMON_QUEUE_SIZE	     0x18
#define COMMON_QUEUE_VECTOR	     0x1a
#define COMMON_QUEUE_ENABLE	     0x1c
#define COMMON_QUEUE_NOTIFY_OFF	     0x1e
#define COMMON_QUEUE_DESC	     0x20
#define COMMON_QUEUE_AVAIL	     0x28
#define COMMON_QUEUE_USED	     0x30
#define COMMON_QUEUE_RESET	     0x3a

/* Where BAR 0 has the rest. */
#define BAR_ISR	   0x1000
#define BAR_DEVICE 0x2000
#define BAR_NOTIFY 0x3000

#define VIRTIO_RIG_BELLS 8

struct virtio_rig {
	struct device_rig *base;
	struct device *host;
	struct memory *mem;
	unsigned int slot; /* of the device whose registers are meant */
	struct doorbell doorbell;
	struct {
		uint64_t gpa; /* 0: none */
		int event_fd;
	} bells[VIRTIO_RIG_BELLS];
};

int doorbell_attach(const struct doorbell *doorbell, uint64_t gpa,
		    unsigned int size, int event_fd,
		    struct error *err __maybe_unused)
{
	struct virtio_rig *rig = container_of((void *)(uintptr_t)doorbell,
					      struct virtio_rig, doorbell);

	ck_assert_uint_eq(size, 0);
	ck_assert_int_ge(event_fd, 0);
	for (size_t i = 0; i < VIRTIO_RIG_BELLS; i++) {
		if (rig->bells[i].gpa)
			continue;
		rig->bells[i].gpa = gpa;
		rig->bells[i].event_fd = event_fd;
		return 0;
	}
	ck_abort_msg("more doorbells than the rig has");
}

void doorbell_detach(const struct doorbell *doorbell, uint64_t gpa,
		     unsigned int size __maybe_unused, int event_fd)
{
	struct virtio_rig *rig = container_of((void *)(uintptr_t)doorbell,
					      struct virtio_rig, doorbell);

	for (size_t i = 0; i < VIRTIO_RIG_BELLS; i++) {
		if (rig->bells[i].gpa != gpa)
			continue;
		ck_assert_int_eq(rig->bells[i].event_fd, event_fd);
		rig->bells[i].gpa = 0;
		return;
	}
	ck_abort_msg("no doorbell at 0x%llx", (unsigned long long)gpa);
}

/* The eventfd that KVM would signal for a write to @gpa, or -1. */
static int __maybe_unused virtio_rig_bell(struct virtio_rig *rig, uint64_t gpa)
{
	for (size_t i = 0; i < VIRTIO_RIG_BELLS; i++) {
		if (rig->bells[i].gpa == gpa)
			return rig->bells[i].event_fd;
	}
	return -1;
}

static unsigned int __maybe_unused virtio_rig_nbells(struct virtio_rig *rig)
{
	unsigned int n = 0;

	for (size_t i = 0; i < VIRTIO_RIG_BELLS; i++)
		n += rig->bells[i].gpa != 0;
	return n;
}

typedef int virtio_rig_create_fn(const struct device_env *env,
				 const struct device_config *config,
				 struct device **ret, struct error *err);

/* A machine with a host bridge, and one device in slot 1; paused. */
static struct virtio_rig *virtio_rig_new(virtio_rig_create_fn *create,
					 uint32_t vectors)
{
	struct virtio_rig *rig = calloc(1, sizeof(*rig));
	const struct device_config host = { .type = "pci", .id = "pci0" };
	const struct device_config config = {
		.type = "virtio",
		.id = "virtio0",
		.vectors = vectors,
	};
	struct error err = { "" };

	ck_assert_ptr_nonnull(rig);
	rig->slot = 1;
	rig->base = rig_new();
	ck_assert(!memory_create(VIRTIO_RIG_RAM, false, &rig->mem, &err));
	rig->base->env.memory = rig->mem;
	rig->base->env.doorbell = &rig->doorbell;
	ck_assert(!pci_host_create(&rig->base->env, &host, &rig->host, &err));
	ck_assert_msg(!create(&rig->base->env, &config, &rig->base->dev, &err),
		      "%s", err.text);
	return rig;
}

static void virtio_rig_free(struct virtio_rig *rig)
{
	rig_stop_loop(rig->base);
	rig->base->dev->ops->free(rig->base->dev);
	rig->base->dev = NULL;
	rig->host->ops->free(rig->host);
	rig_free(rig->base);
	memory_free(rig->mem);
	free(rig);
}

/* ---- a driver's accesses ---- */

static uint64_t peek(struct virtio_rig *rig, uint64_t gpa, unsigned int size)
{
	uint64_t value = 0;

	ck_assert(bus_read(&rig->base->mmio, gpa, &value, size));
	return value;
}

static void poke(struct virtio_rig *rig, uint64_t gpa, uint64_t value,
		 unsigned int size)
{
	ck_assert(bus_write(&rig->base->mmio, gpa, &value, size));
}

static uint64_t config_at(const struct virtio_rig *rig, unsigned int offset)
{
	return LAYOUT_PCI_ECAM + rig->slot * 0x8000ULL + offset;
}

static uint32_t config_read(struct virtio_rig *rig, unsigned int offset,
			    unsigned int size)
{
	return (uint32_t)peek(rig, config_at(rig, offset), size);
}

static void config_write(struct virtio_rig *rig, unsigned int offset,
			 uint32_t value, unsigned int size)
{
	poke(rig, config_at(rig, offset), value, size);
}

static uint64_t bar(struct virtio_rig *rig, unsigned int index)
{
	return config_read(rig, PCI_BAR0 + 4 * index, 4);
}

static uint64_t __maybe_unused common_read(struct virtio_rig *rig,
					   unsigned int offset,
					   unsigned int size)
{
	return peek(rig, bar(rig, 0) + offset, size);
}

static void common_write(struct virtio_rig *rig, unsigned int offset,
			 uint64_t value, unsigned int size)
{
	poke(rig, bar(rig, 0) + offset, value, size);
}

static uint8_t __maybe_unused status_of(struct virtio_rig *rig)
{
	return (uint8_t)common_read(rig, COMMON_STATUS, 1);
}

/* Up to FEATURES_OK. */
static void __maybe_unused negotiate(struct virtio_rig *rig, uint64_t features)
{
	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
		     2);
	common_write(rig, COMMON_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
	for (uint32_t i = 0; i < 2; i++) {
		common_write(rig, COMMON_DRIVER_FEATURE_SELECT, i, 4);
		common_write(rig, COMMON_DRIVER_FEATURE,
			     (uint32_t)(features >> (32 * i)), 4);
	}
	common_write(rig, COMMON_STATUS,
		     VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK,
		     1);
}

/* The rings of queue @index, fresh, and the queue enabled. */
static void __maybe_unused set_up_queue(struct virtio_rig *rig,
					unsigned int index, uint16_t size,
					struct vring *ring)
{
	vring_init(ring, rig->mem, VIRTIO_RIG_RINGS + index * 0x4000ULL, size);
	common_write(rig, COMMON_QUEUE_SELECT, index, 2);
	common_write(rig, COMMON_QUEUE_SIZE, size, 2);
	common_write(rig, COMMON_QUEUE_DESC, ring->desc, 8);
	common_write(rig, COMMON_QUEUE_AVAIL, ring->avail, 8);
	common_write(rig, COMMON_QUEUE_USED, ring->used, 8);
	common_write(rig, COMMON_QUEUE_VECTOR, index, 2);
	common_write(rig, COMMON_QUEUE_ENABLE, 1, 2);
}

static void __maybe_unused driver_ok(struct virtio_rig *rig)
{
	common_write(rig, COMMON_STATUS,
		     VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK |
			     VIRTIO_DRIVER_OK,
		     1);
}

/* As a guest notifies where KVM doesn't catch it. */
static void __maybe_unused notify(struct virtio_rig *rig, unsigned int index)
{
	common_write(rig, BAR_NOTIFY + 4 * index, index, 2);
}

/* Vector @index, unmasked, sends @index to 0xfee00000; MSI-X enabled. */
static void __maybe_unused enable_msix(struct virtio_rig *rig, unsigned int n)
{
	unsigned int cap = config_read(rig, PCI_CAPABILITIES, 1);

	while (config_read(rig, cap, 1) != PCI_CAP_MSIX)
		cap = config_read(rig, cap + 1, 1);
	for (unsigned int i = 0; i < n; i++) {
		poke(rig, bar(rig, 1) + i * 16ULL, 0xfee00000, 4);
		poke(rig, bar(rig, 1) + i * 16ULL + 8, i, 4);
		poke(rig, bar(rig, 1) + i * 16ULL + 12, 0, 4);
	}
	config_write(rig, cap + 2, MSIX_CONTROL_ENABLE, 2);
}

/* ---- how much is done at once ---- */

struct virtio_turns {
	struct vring *ring;
	struct loop *loop;
	uint16_t all;
	uint16_t most; /* that were served between two looks */
	uint16_t last;
};

/* Another source of the loop, which is ready all the time. */
static void virtio_turns_look(void *opaque, uint32_t events __maybe_unused)
{
	struct virtio_turns *turns = opaque;
	uint16_t now = vring_used_idx(turns->ring);

	turns->most = (uint16_t)MAX(turns->most, now - turns->last);
	turns->last = now;
	if (now == turns->all)
		loop_stop(turns->loop);
}

/* A queue with @all requests in it is served, but not at the cost of others. */
static void __maybe_unused expect_turns(struct virtio_rig *rig,
					struct vring *ring, uint16_t all)
{
	struct loop *loop = rig->base->loop;
	struct virtio_turns turns = { .ring = ring, .loop = loop, .all = all };
	struct loop_fd *source;
	struct error err;
	int fd = eventfd(1, EFD_CLOEXEC);

	ck_assert(!loop_fd_add(loop, fd, EPOLLIN, virtio_turns_look, &turns,
			       NULL, &source, &err));
	loop_run(loop);
	ck_assert_uint_gt(turns.most, 0);
	ck_assert_uint_le(turns.most, all / 2);
	loop_fd_remove(source);
	close(fd);
}

#endif
