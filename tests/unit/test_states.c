// SPDX-License-Identifier: MIT
/*
 * Every state struct that travels: of each type in the device table, of a vCPU
 * and of a VM. A section that is full to the brim is made up from the schema
 * and loaded twice, over two different poisons. Whatever is not the same in
 * both afterwards is a field that visit() forgets; and what is saved again
 * must be what was loaded.
 */
#include <stddef.h>
#include <string.h>

#include "arch/x86_64/vcpu_state.h"
#include "arch/x86_64/vm_arch_state.h"
#include "devices/device.h"
#include "devices/pci.h"
#include "devices/power.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "tests/unit/schema.h"
#include "tests/unit/unit.h"

/* The bytes that are not on the wire, on purpose. */
static const struct hole {
	const char *type;
	size_t at;
	size_t len;
	const char *why;
	/* One in each of so many elements; 0: it is not in an array. */
	size_t stride;
	size_t times;
} holes[] = {
#define HOLE(type, state, field, why)                                    \
	{                                                                \
		type, offsetof(struct state, field),                     \
			sizeof(((struct state *)NULL)->field), why, 0, 0 \
	}
#define PADDING(type, state, before, after)                             \
	{                                                               \
		type,                                                   \
			offsetof(struct state, before) +                \
				sizeof(((struct state *)NULL)->before), \
			offsetof(struct state, after) -                 \
				offsetof(struct state, before) -        \
				sizeof(((struct state *)NULL)->before), \
			"padding", 0, 0                                 \
	}
/* Inside of a struct pci_state. */
#define PCI_PADDING(type, state, pci)             \
	PADDING(type, state, pci.bars, pci.msix), \
		PADDING(type, state, pci.msix.control, pci.msix.entries)
/* Inside of a struct virtio_state, and behind it. */
#define VIRTIO_QUEUE_PADDING(type, state, v, after, before_end)              \
	{                                                                    \
		type, offsetof(struct state, v.queues) + (after),            \
			(before_end) - (after), "padding",                   \
			sizeof(struct virtio_queue_setup), VIRTIO_QUEUES_MAX \
	}
#define VIRTIO_PADDING(type, state, v)                                   \
	PCI_PADDING(type, state, v.pci),                                 \
		PADDING(type, state, v.nqueues, v.queues),               \
		VIRTIO_QUEUE_PADDING(                                    \
			type, state, v,                                  \
			offsetof(struct virtqueue_state, enabled) + 1,   \
			sizeof(struct virtqueue_state)),                 \
		VIRTIO_QUEUE_PADDING(                                    \
			type, state, v,                                  \
			offsetof(struct virtio_queue_setup, vector) + 2, \
			sizeof(struct virtio_queue_setup))
	HOLE("vcpu", x86_vcpu_state, events.reserved, "reserved"),
	HOLE("vcpu", x86_vcpu_state, reserved, "reserved"),
	HOLE("vm", x86_vm_state, clock.reserved, "reserved"),
	HOLE("vm", x86_vm_state, ioapic.reserved, "reserved"),
	HOLE("vm", x86_vm_state, reserved, "reserved"),
	PADDING("serial", serial_state, thre_pending, rx_len),
	PADDING("rtc", rtc_state, cmos, offset),
	PADDING("power", power_state, pm1_control, timer),
	PADDING("pci", pci_host_state, reset_control, pci),
	PCI_PADDING("pci", pci_host_state, pci),
	VIRTIO_PADDING("virtio-rng", rng_state, virtio),
	VIRTIO_PADDING("virtio-balloon", balloon_state, virtio),
	VIRTIO_PADDING("virtio-blk", blk_state, virtio),
	VIRTIO_PADDING("virtio-net", net_state, virtio),
	VIRTIO_PADDING("virtio-console", console_state, virtio),
	{ "virtio-console", offsetof(struct console_state, rows) + 2,
	  sizeof(struct console_state) - offsetof(struct console_state, rows) -
		  2,
	  "padding", 0, 0 },
	PADDING("virtio-net", net_state, pairs, refused),
	PADDING("virtio-net", net_state, claims, user),
	{ "virtio-net", offsetof(struct net_state, user.bytes[USER_STATE_MAX]),
	  sizeof(struct net_state) -
		  offsetof(struct net_state, user.bytes[USER_STATE_MAX]),
	  "padding", 0, 0 },
	{ "virtio-blk", offsetof(struct blk_state, kept[BLK_DEPTH]),
	  sizeof(struct blk_state) -
		  offsetof(struct blk_state, kept[BLK_DEPTH]),
	  "padding", 0, 0 },
};

static bool is_hole(const char *type, size_t at)
{
	for (size_t i = 0; i < ARRAY_SIZE(holes); i++) {
		size_t from = at - holes[i].at;

		if (strcmp(holes[i].type, type) || at < holes[i].at)
			continue;
		if (holes[i].times && from / holes[i].stride < holes[i].times)
			from %= holes[i].stride;
		if (from < holes[i].len)
			return true;
	}
	return false;
}

typedef void visit_fn(struct codec *c, void *state);

static void load(const struct buffer *section, uint32_t version, visit_fn *fn,
		 void *state, const char *type)
{
	struct codec c;
	struct error err;

	codec_init_load(&c, section->data, section->len, version);
	fn(&c, state);
	ck_assert_msg(!codec_finish(&c, &err), "%s: %s", type, err.text);
}

static void save(struct buffer *section, uint32_t version, visit_fn *fn,
		 void *state)
{
	struct codec c;
	struct error err;

	codec_init_save(&c, section, version);
	fn(&c, state);
	ck_assert(!codec_finish(&c, &err));
}

static void make(struct buffer *section, uint32_t version, visit_fn *fn,
		 void *state)
{
	struct schema *schema = calloc(1, sizeof(*schema));
	struct buffer text = { 0 };
	struct codec c;
	struct error err;

	codec_init_describe(&c, &text, version);
	fn(&c, state);
	ck_assert(!codec_finish(&c, &err));
	schema_parse(schema, &text);
	schema_make(schema, section);
	buffer_free(&text);
	free(schema);
}

static void round_trip(const char *type, uint32_t version, visit_fn *fn,
		       size_t size)
{
	uint8_t *one = malloc(size);
	uint8_t *two = malloc(size);
	struct buffer section = { 0 };
	struct buffer again = { 0 };

	memset(one, 0, size);
	make(&section, version, fn, one);
	memset(one, 0xaa, size);
	memset(two, 0x55, size);
	load(&section, version, fn, one, type);
	load(&section, version, fn, two, type);
	for (size_t i = 0; i < size; i++)
		ck_assert_msg(is_hole(type, i) == (one[i] != two[i]),
			      "%s: byte %zu of %zu %s", type, i, size,
			      is_hole(type, i) ? "travels, and is said not to"
					       : "is forgotten by visit()");
	save(&again, version, fn, one);
	ck_assert_msg(again.len == section.len &&
			      !memcmp(again.data, section.data, again.len),
		      "%s: what is saved is not what was loaded", type);
	buffer_free(&section);
	buffer_free(&again);
	free(one);
	free(two);
}

START_TEST(every_byte_of_every_device_s_state_travels)
{
	const struct device_type *type;
	unsigned int n = 0;

	for (unsigned int i = 0; (type = device_type_at(i)); i++) {
		const struct device_ops *ops = type->ops;

		if (ops->migrates != DEVICE_MIGRATES_STATE)
			continue;
		round_trip(ops->type, ops->version, ops->visit,
			   ops->state_size);
		n++;
	}
	ck_assert_uint_gt(n, 2);
}
END_TEST

START_TEST(every_byte_of_a_vcpu_s_state_travels)
{
	round_trip("vcpu", arch_vcpu_state_version(), arch_vcpu_visit,
		   arch_vcpu_state_size());
}
END_TEST

START_TEST(every_byte_of_a_vm_s_state_travels)
{
	round_trip("vm", arch_vm_state_version(), arch_vm_visit,
		   arch_vm_state_size());
}
END_TEST

UNIT_SUITE("states", every_byte_of_every_device_s_state_travels,
	   every_byte_of_a_vcpu_s_state_travels,
	   every_byte_of_a_vm_s_state_travels)
