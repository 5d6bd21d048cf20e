// SPDX-License-Identifier: MIT
/*
 * The PCI bus and its host bridge, as a guest finds them: configuration space
 * by both ways, BARs that are sized and moved, shared interrupt lines, and the
 * reset register in between.
 */
#include <errno.h>

#include "arch/x86_64/layout.h"
#include "tests/unit/device_rig.h"

#define ADDRESS PORT_PCI
#define DATA	(PORT_PCI + 4)

#define HOST_ID 0x00081b36

/* ---- a device to stand on the bus ---- */

struct sample {
	struct device dev;
	struct pci_function fn;
	unsigned int bar; /* the last access to a BAR */
	uint64_t offset;
	unsigned int size;
	uint64_t written;
	unsigned int accesses;
	uint64_t moved[PCI_BARS]; /* what bar_moved() said last */
	unsigned int moves;
	unsigned int cap_reads; /* calls, and what the last was about */
	unsigned int cap_writes;
	unsigned int cap;
	unsigned int cap_offset;
	unsigned int cap_size;
};

static struct sample *to_sample(struct pci_function *fn)
{
	return container_of(fn, struct sample, fn);
}

/* Every call comes under the device's lock. */
static struct sample *called(struct pci_function *fn)
{
	ck_assert_int_eq(pthread_mutex_trylock(&fn->dev->lock), EBUSY);
	return to_sample(fn);
}

static void note(struct sample *s, unsigned int bar, uint64_t offset,
		 unsigned int size)
{
	s->bar = bar;
	s->offset = offset;
	s->size = size;
	s->accesses++;
}

static void sample_bar_read(struct pci_function *fn, unsigned int bar,
			    uint64_t offset, void *data, unsigned int size)
{
	note(called(fn), bar, offset, size);
	memset(data, (int)fn->slot, size);
}

static void sample_bar_write(struct pci_function *fn, unsigned int bar,
			     uint64_t offset, const void *data,
			     unsigned int size)
{
	note(called(fn), bar, offset, size);
	to_sample(fn)->written = 0;
	memcpy(&to_sample(fn)->written, data, size);
}

static void sample_bar_moved(struct pci_function *fn, unsigned int bar,
			     uint64_t gpa)
{
	struct sample *s = to_sample(fn);

	ck_assert_uint_eq(pci_function_bar(fn, bar), gpa);
	s->moved[bar] = gpa;
	s->moves++;
}

static void note_cap(struct sample *s, unsigned int cap, unsigned int offset,
		     unsigned int size)
{
	s->cap = cap;
	s->cap_offset = offset;
	s->cap_size = size;
}

static void sample_cap_read(struct pci_function *fn, unsigned int cap,
			    unsigned int offset, unsigned int size)
{
	struct sample *s = called(fn);

	note_cap(s, cap, offset, size);
	/* What is read is what is there after this call. */
	fn->config[cap + 4] = (uint8_t)++s->cap_reads;
}

static void sample_cap_written(struct pci_function *fn, unsigned int cap,
			       unsigned int offset, unsigned int size)
{
	struct sample *s = called(fn);

	note_cap(s, cap, offset, size);
	s->cap_writes++;
}

static const struct pci_function_ops sample_ops = {
	.bar_read = sample_bar_read,
	.bar_write = sample_bar_write,
	.bar_moved = sample_bar_moved,
	.capability_read = sample_cap_read,
	.capability_written = sample_cap_written,
};

static const struct device_ops sample_device_ops = { .type = "sample" };

/* BAR 0 is larger than a page, so that BAR 2 has to be aligned. */
static const struct pci_identity sample_identity = {
	.vendor = 0x1af4,
	.device = 0x1042,
	.subsystem_vendor = 0x1234,
	.subsystem = 0x5678,
	.revision = 1,
	.class_code = 0x018002,
	.bar_sizes = { 0x1000, 0, 0x4000 },
	.vectors = 2,
	.msix_bar = 1,
};

static struct sample *sample_new(struct device_rig *rig)
{
	struct sample *s = calloc(1, sizeof(*s));
	struct error err = { "" };

	device_init(&s->dev, &sample_device_ops, "sample0");
	ck_assert_msg(!pci_function_init(&s->fn, rig->pci, &s->dev, &sample_ops,
					 &sample_identity, &err),
		      "%s", err.text);
	return s;
}

static void sample_free(struct sample *s)
{
	pci_function_fini(&s->fn);
	device_fini(&s->dev);
	free(s);
}

static struct device_rig *bridge_new(void)
{
	struct device_rig *rig = rig_new();

	rig_create(rig, "pci");
	RIG_OP(rig, resume);
	return rig;
}

/* ---- the guest ---- */

static void out32(struct device_rig *rig, uint64_t port, uint32_t value)
{
	ck_assert(bus_write(&rig->pio, port, &value, sizeof(value)));
}

static void select_at(struct device_rig *rig, unsigned int slot,
		      unsigned int reg)
{
	out32(rig, ADDRESS, 0x80000000 | slot << 11 | reg);
}

static uint64_t ecam(unsigned int slot, unsigned int reg)
{
	return LAYOUT_PCI_ECAM + (slot << 15) + reg;
}

static uint64_t mmio_read(struct device_rig *rig, uint64_t gpa,
			  unsigned int size)
{
	uint64_t value = 0;

	ck_assert(bus_read(&rig->mmio, gpa, &value, size));
	return value;
}

static void mmio_write(struct device_rig *rig, uint64_t gpa, uint64_t value,
		       unsigned int size)
{
	ck_assert(bus_write(&rig->mmio, gpa, &value, size));
}

static uint32_t config_read(struct device_rig *rig, unsigned int slot,
			    unsigned int reg, unsigned int size)
{
	return (uint32_t)mmio_read(rig, ecam(slot, reg), size);
}

static void config_write(struct device_rig *rig, unsigned int slot,
			 unsigned int reg, uint32_t value, unsigned int size)
{
	mmio_write(rig, ecam(slot, reg), value, size);
}

#define COMMAND(rig, slot, value) config_write(rig, slot, PCI_COMMAND, value, 2)

static unsigned int line_of(const struct sample *s)
{
	return 16 + s->fn.slot % 8;
}

START_TEST(pci_bridge_is_found_in_slot_0_both_ways)
{
	struct device_rig *rig = bridge_new();

	select_at(rig, 0, 0);
	ck_assert_uint_eq(in32(rig, DATA), HOST_ID);
	ck_assert_uint_eq(config_read(rig, 0, 0, 4), HOST_ID);
	select_at(rig, 0, 8);
	ck_assert_uint_eq(in32(rig, DATA), 0x06000000);
	ck_assert_uint_eq(config_read(rig, 0, 8, 4), 0x06000000);
	/* It has nothing to map and interrupts nobody. */
	for (unsigned int reg = 0x10; reg < 0x40; reg += 4) {
		config_write(rig, 0, reg, 0xffffffff, 4);
		ck_assert_uint_eq(config_read(rig, 0, reg, 4), 0);
	}
	rig_free(rig);
}
END_TEST

START_TEST(pci_what_is_not_there_reads_as_all_ones)
{
	struct device_rig *rig = bridge_new();
	static const uint32_t nowhere[] = {
		0x80000800, /* slot 1 */
		0x8000f800, /* slot 31 */
		0x80000100, /* function 1 */
		0x80010000, /* bus 1 */
		0x00000000, /* not enabled */
	};

	for (size_t i = 0; i < ARRAY_SIZE(nowhere); i++) {
		out32(rig, ADDRESS, nowhere[i]);
		ck_assert_uint_eq(in32(rig, DATA), 0xffffffff);
		out32(rig, DATA, 0);
	}
	for (uint64_t at = 0x1000; at < LAYOUT_PCI_ECAM_SIZE; at += 0x1000)
		ck_assert_uint_eq(mmio_read(rig, LAYOUT_PCI_ECAM + at, 8),
				  ~0ULL);
	ck_assert_uint_eq(mmio_read(rig, LAYOUT_PCI_WINDOW, 4), 0xffffffff);
	ck_assert_uint_eq(mmio_read(rig, LAYOUT_PCI_ECAM - 8, 8), ~0ULL);
	mmio_write(rig, ecam(5, 0), 0, 4);
	mmio_write(rig, LAYOUT_PCI_WINDOW, 0, 4);
	rig_free(rig);
}
END_TEST

START_TEST(pci_address_is_set_by_whole_dwords_only)
{
	struct device_rig *rig = bridge_new();

	/* How Linux finds out that this mechanism is there. */
	out8(rig, PORT_PCI + 3, 1);
	out32(rig, ADDRESS, 0x80000000);
	ck_assert_uint_eq(in32(rig, ADDRESS), 0x80000000);
	out16(rig, ADDRESS, 0x1234);
	out8(rig, ADDRESS, 0x56);
	out8(rig, ADDRESS + 2, 0x78);
	out16(rig, ADDRESS + 2, 0x4321);
	ck_assert_uint_eq(in32(rig, ADDRESS), 0x80000000);
	ck_assert_uint_eq(in8(rig, ADDRESS), 0xff);
	ck_assert_uint_eq(in16(rig, ADDRESS), 0xffff);
	/* Reserved bits and the byte in the dword aren't kept. */
	out32(rig, ADDRESS, 0xffffffff);
	ck_assert_uint_eq(in32(rig, ADDRESS), 0x80fffffc);
	rig_free(rig);
}
END_TEST

START_TEST(pci_data_port_reaches_each_byte_of_the_dword)
{
	struct device_rig *rig = bridge_new();

	select_at(rig, 0, 0);
	ck_assert_uint_eq(in8(rig, DATA), 0x36);
	ck_assert_uint_eq(in8(rig, DATA + 1), 0x1b);
	ck_assert_uint_eq(in16(rig, DATA + 1), 0x081b);
	ck_assert_uint_eq(in16(rig, DATA + 2), 0x0008);
	select_at(rig, 0, PCI_CACHE_LINE);
	out8(rig, DATA, 0x10);
	select_at(rig, 0, PCI_COMMAND);
	out16(rig, DATA, PCI_COMMAND_MASTER);
	ck_assert_uint_eq(config_read(rig, 0, PCI_COMMAND, 2),
			  PCI_COMMAND_MASTER);
	ck_assert_uint_eq(config_read(rig, 0, PCI_CACHE_LINE, 4), 0x10);
	rig_free(rig);
}
END_TEST

START_TEST(pci_reset_register_resets_on_a_rising_edge)
{
	struct device_rig *rig = bridge_new();

	out8(rig, PORT_RESET, 0x02);
	ck_assert_uint_eq(rig->resets, 0);
	ck_assert_uint_eq(in8(rig, PORT_RESET), 0x02);
	out8(rig, PORT_RESET, 0x06);
	ck_assert_uint_eq(rig->resets, 1);
	out8(rig, PORT_RESET, 0x06);
	ck_assert_uint_eq(rig->resets, 1);
	/* And at once, as the FADT says. */
	RIG_OP(rig, reset);
	out8(rig, PORT_RESET, RESET_HARD);
	ck_assert_uint_eq(rig->resets, 2);
	/* It and the address around it don't mix. */
	RIG_OP(rig, reset);
	out32(rig, ADDRESS, 0xffffffff);
	out16(rig, PORT_RESET, 0xffff);
	ck_assert_uint_eq(rig->resets, 2);
	ck_assert_uint_eq(in8(rig, PORT_RESET), 0);
	out8(rig, PORT_RESET, 0xff);
	ck_assert_uint_eq(in8(rig, PORT_RESET), 0x0e);
	ck_assert_uint_eq(in32(rig, ADDRESS), 0x80fffffc);
	rig_free(rig);
}
END_TEST

START_TEST(pci_function_says_what_it_is)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);

	ck_assert_uint_eq(s->fn.slot, 1);
	ck_assert_uint_eq(config_read(rig, 1, 0x00, 4), 0x10421af4);
	ck_assert_uint_eq(config_read(rig, 1, 0x04, 4), 0x00100000);
	ck_assert_uint_eq(config_read(rig, 1, 0x08, 4), 0x01800201);
	ck_assert_uint_eq(config_read(rig, 1, 0x0c, 4), 0);
	ck_assert_uint_eq(config_read(rig, 1, 0x2c, 4), 0x56781234);
	/* INTA#, and where that ends. */
	ck_assert_uint_eq(config_read(rig, 1, 0x3c, 4), 0x00000111);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_configuration_space_keeps_only_what_can_be_written)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	uint8_t before[PCI_CONFIG_SIZE];

	memcpy(before, s->fn.config, sizeof(before));
	for (unsigned int reg = 0; reg < PCI_CONFIG_SIZE; reg++) {
		uint8_t ones = s->fn.writable[reg];

		config_write(rig, 1, reg, 0xff, 1);
		ck_assert_uint_eq(config_read(rig, 1, reg, 1),
				  before[reg] | ones);
		config_write(rig, 1, reg, 0, 1);
		ck_assert_uint_eq(config_read(rig, 1, reg, 1),
				  before[reg] & (uint8_t)~ones);
	}
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_accesses_of_any_size_and_place_see_the_same_bytes)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	uint8_t bytes[PCI_CONFIG_SIZE + 8] = { 0 };
	uint64_t value;

	for (unsigned int reg = 0; reg < PCI_CONFIG_SIZE; reg++)
		bytes[reg] = (uint8_t)config_read(rig, 1, reg, 1);
	for (unsigned int reg = 0; reg < PCI_CONFIG_SIZE; reg++) {
		for (unsigned int size = 1; size <= 8; size++) {
			value = mmio_read(rig, ecam(1, reg), size);
			ck_assert_mem_eq(&value, &bytes[reg], size);
		}
	}
	/* Two BARs and half of a third in one. */
	mmio_write(rig, ecam(1, 0x12), 0xc234c123c122ffff, 8);
	ck_assert_uint_eq(config_read(rig, 1, 0x10, 4), 0xffff0000);
	ck_assert_uint_eq(config_read(rig, 1, 0x14, 4), 0xc123c000);
	ck_assert_uint_eq(config_read(rig, 1, 0x18, 4), 0xc001c000);
	/* Not past the function's own space. */
	ck_assert_uint_eq(mmio_read(rig, ecam(1, 0xffc), 4), 0);
	ck_assert_uint_eq(mmio_read(rig, ecam(1, 0xffc), 8), ~0ULL);
	mmio_write(rig, ecam(0, 0xffc), ~0ULL, 8);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_extended_space_has_no_capabilities)
{
	struct device_rig *rig = bridge_new();

	for (unsigned int reg = 0x100; reg < 0x1000; reg += 4) {
		config_write(rig, 0, reg, 0xffffffff, 4);
		ck_assert_uint_eq(config_read(rig, 0, reg, 4), 0);
	}
	/* What is written there goes nowhere else. */
	ck_assert_uint_eq(config_read(rig, 0, PCI_CACHE_LINE, 4), 0);
	ck_assert_uint_eq(config_read(rig, 0, PCI_COMMAND, 2), 0);
	rig_free(rig);
}
END_TEST

/* ---- BARs ---- */

START_TEST(pci_bars_have_addresses_from_the_start)
{
	struct device_rig *rig = bridge_new();
	struct sample *one = sample_new(rig), *two = sample_new(rig);

	ck_assert_uint_eq(config_read(rig, 1, 0x10, 4), 0xc0010000);
	ck_assert_uint_eq(config_read(rig, 1, 0x14, 4), 0xc0011000);
	ck_assert_uint_eq(config_read(rig, 1, 0x18, 4), 0xc0014000);
	ck_assert_uint_eq(config_read(rig, 1, 0x1c, 4), 0);
	ck_assert_uint_eq(config_read(rig, 2, 0x10, 4), 0xc0020000);
	/* But nobody has said yet that they shall answer. */
	ck_assert_uint_eq(pci_function_bar(&one->fn, 0), 0);
	ck_assert_uint_eq(mmio_read(rig, 0xc0010000, 4), 0xffffffff);
	ck_assert_uint_eq(one->moves, 0);
	sample_free(one);
	sample_free(two);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bars_are_sized_by_writing_ones)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	static const uint32_t masks[PCI_BARS] = { 0xfffff000, 0xfffff000,
						  0xffffc000 };

	/* Whether decoding is on or off. */
	for (unsigned int command = 0; command <= 2; command += 2) {
		COMMAND(rig, 1, command);
		for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
			unsigned int reg = PCI_BAR0 + 4 * bar;
			uint32_t old = config_read(rig, 1, reg, 4);

			config_write(rig, 1, reg, 0xffffffff, 4);
			ck_assert_uint_eq(config_read(rig, 1, reg, 4),
					  masks[bar]);
			ck_assert_uint_eq(pci_function_bar(&s->fn, bar), 0);
			config_write(rig, 1, reg, old, 4);
		}
	}
	ck_assert_uint_eq(pci_function_bar(&s->fn, 2), 0xc0014000);
	/* The expansion ROM that there isn't has no size. */
	config_write(rig, 1, 0x30, 0xffffffff, 4);
	ck_assert_uint_eq(config_read(rig, 1, 0x30, 4), 0);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bars_answer_while_memory_is_decoded)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);

	COMMAND(rig, 1, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(s->moved[0], 0xc0010000);
	ck_assert_uint_eq(s->moved[2], 0xc0014000);
	ck_assert_uint_eq(s->moves, 2); /* MSI-X is nothing to the device */
	for (unsigned int size = 1; size <= 8; size *= 2) {
		mmio_write(rig, 0xc0014128, 0x1122334455667788, size);
		ck_assert_uint_eq(s->bar, 2);
		ck_assert_uint_eq(s->offset, 0x128);
		ck_assert_uint_eq(s->size, size);
		ck_assert_uint_eq(s->written, 0x1122334455667788 &
						      ~0ULL >> (64 - 8 * size));
	}
	ck_assert_uint_eq(mmio_read(rig, 0xc0010ffe, 2), 0x0101);
	ck_assert_uint_eq(s->bar, 0);
	ck_assert_uint_eq(s->offset, 0xffe);
	COMMAND(rig, 1, 0);
	ck_assert_uint_eq(s->moved[0], 0);
	ck_assert_uint_eq(s->moved[2], 0);
	ck_assert_uint_eq(mmio_read(rig, 0xc0010000, 4), 0xffffffff);
	ck_assert_uint_eq(s->accesses, 5);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bar_sees_only_whole_accesses_of_round_sizes)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);

	COMMAND(rig, 1, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(mmio_read(rig, 0xc0010ffd, 8), ~0ULL);
	ck_assert_uint_eq(mmio_read(rig, 0xc0017ffe, 4), 0xffffffff);
	ck_assert_uint_eq(mmio_read(rig, 0xc000fffe, 4), 0xffffffff);
	ck_assert_uint_eq(mmio_read(rig, 0xc0010ffd, 3), 0xffffff);
	mmio_write(rig, 0xc0017ffe, 0, 4);
	mmio_write(rig, 0xc0010000, 0, 5);
	ck_assert_uint_eq(s->accesses, 0);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bars_move_within_the_window)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	static const struct {
		uint32_t gpa;
		bool reachable;
	} places[] = {
		{ 0xc0000000, true },  { 0xdfffc000, true },
		{ 0xbfffc000, false }, { 0xe0000000, false },
		{ 0x00000000, false }, { 0xffffc000, false },
		{ 0xd0000000, true },
	};

	COMMAND(rig, 1, PCI_COMMAND_MEMORY);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint32_t gpa = places[i].gpa;
		unsigned int before = s->accesses;

		config_write(rig, 1, PCI_BAR0 + 8, gpa, 4);
		ck_assert_uint_eq(config_read(rig, 1, PCI_BAR0 + 8, 4), gpa);
		ck_assert_uint_eq(s->moved[2], places[i].reachable ? gpa : 0);
		ck_assert_uint_eq(pci_function_bar(&s->fn, 2), s->moved[2]);
		if (places[i].reachable)
			mmio_write(rig, gpa + 0x3ffc, 0, 4);
		mmio_read(rig, 0xc0014000, 4); /* where it was */
		ck_assert_uint_eq(s->accesses, before + places[i].reachable);
	}
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bars_over_each_other_answer_as_that_of_the_lowest_slot)
{
	struct device_rig *rig = bridge_new();
	struct sample *one = sample_new(rig), *two = sample_new(rig);

	COMMAND(rig, 1, PCI_COMMAND_MEMORY);
	COMMAND(rig, 2, PCI_COMMAND_MEMORY);
	config_write(rig, 1, PCI_BAR0, 0xc8001000, 4);
	config_write(rig, 2, PCI_BAR0 + 8, 0xc8000000, 4);
	ck_assert_uint_eq(mmio_read(rig, 0xc8000ffc, 1), 2);
	ck_assert_uint_eq(mmio_read(rig, 0xc8001000, 1), 1);
	ck_assert_uint_eq(mmio_read(rig, 0xc8002000, 1), 2);
	COMMAND(rig, 1, 0);
	ck_assert_uint_eq(mmio_read(rig, 0xc8001000, 1), 2);
	ck_assert_uint_eq(two->offset, 0x1000);
	sample_free(one);
	sample_free(two);
	rig_free(rig);
}
END_TEST

/* ---- capabilities ---- */

START_TEST(pci_capabilities_are_a_list_that_devices_look_after)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	static const uint8_t data[] = { 0x0d, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
	unsigned int first, second;

	first = pci_add_capability(&s->fn, PCI_CAP_VENDOR, data, sizeof(data));
	second = pci_add_capability(&s->fn, PCI_CAP_VENDOR, data, 4);
	s->fn.writable[first + 5] = 0xf0;
	ck_assert_uint_eq(config_read(rig, 1, PCI_CAPABILITIES, 4), 0x40);
	ck_assert_uint_eq(config_read(rig, 1, 0x40, 2), 0x4c11);
	ck_assert_uint_eq(first, 0x4c);
	ck_assert_uint_eq(second, 0x5c);
	ck_assert_uint_eq(s->cap_reads, 0);
	ck_assert_uint_eq(config_read(rig, 1, first, 4), 0x010d5c09);
	ck_assert_uint_eq(s->cap_reads, 1);
	ck_assert_uint_eq(s->cap, first);
	ck_assert_uint_eq(config_read(rig, 1, first + 4, 1), 2);
	ck_assert_uint_eq(s->cap_offset, first + 4);
	ck_assert_uint_eq(s->cap_size, 1);
	config_write(rig, 1, first + 4, 0xffffffff, 4);
	ck_assert_uint_eq(s->cap_writes, 1);
	ck_assert_uint_eq(config_read(rig, 1, first + 5, 2), 0x04f3);
	/* Across both; then into the gap between, which is nobody's. */
	mmio_read(rig, second - 4 + ecam(1, 0), 8);
	ck_assert_uint_eq(s->cap_reads, 5);
	ck_assert_uint_eq(s->cap, second);
	config_read(rig, 1, first + 13, 1);
	ck_assert_uint_eq(s->cap_reads, 5);
	config_write(rig, 1, second + 6, 0xff, 1);
	ck_assert_uint_eq(s->cap_writes, 1);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_msix_works_by_its_capability_and_its_bar)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);

	ck_assert_uint_eq(config_read(rig, 1, 0x42, 2), 1); /* two vectors */
	ck_assert_uint_eq(config_read(rig, 1, 0x44, 4), 0x0001);
	ck_assert_uint_eq(config_read(rig, 1, 0x48, 4), 0x0801);
	COMMAND(rig, 1, PCI_COMMAND_MEMORY);
	mmio_write(rig, 0xc0011010, 0xfee00000, 8);
	mmio_write(rig, 0xc0011018, 0x51, 8);
	ck_assert_uint_eq(mmio_read(rig, 0xc0011018, 4), 0x51);
	config_write(rig, 1, 0x42, 0xffff, 2);
	ck_assert_uint_eq(config_read(rig, 1, 0x42, 2), 0xc001);
	ck_assert(msix_raise(&s->fn.msix, 1));
	ck_assert_uint_eq(mmio_read(rig, 0xc0011800, 8), 2);
	ck_assert_uint_eq(rig->nmsis, 0);
	/* The function's mask is in the high byte. */
	config_write(rig, 1, 0x43, 0x80, 1);
	ck_assert_uint_eq(rig->nmsis, 1);
	ck_assert_uint_eq(rig->msis[0].data, 0x51);
	ck_assert_uint_eq(mmio_read(rig, 0xc0011800, 8), 0);
	config_write(rig, 1, 0x42, 0, 2);
	ck_assert(!msix_raise(&s->fn.msix, 1));
	ck_assert_uint_eq(s->accesses, 0);
	sample_free(s);
	rig_free(rig);
}
END_TEST

/* ---- lines ---- */

START_TEST(pci_line_is_high_while_any_of_its_slots_pulls_it)
{
	struct device_rig *rig = bridge_new();
	struct sample *all[9];

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = sample_new(rig);
	ck_assert_uint_eq(line_of(all[0]), line_of(all[8]));
	pci_set_line(&all[0]->fn, true);
	pci_set_line(&all[8]->fn, true);
	pci_set_line(&all[3]->fn, true);
	ck_assert(rig->line[17]);
	ck_assert(rig->line[20]);
	ck_assert_uint_eq(rig->edges[17], 1);
	pci_set_line(&all[0]->fn, false);
	ck_assert(rig->line[17]);
	pci_set_line(&all[8]->fn, false);
	ck_assert(!rig->line[17]);
	ck_assert(rig->line[20]);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		sample_free(all[i]);
	ck_assert(!rig->line[20]);
	rig_free(rig);
}
END_TEST

START_TEST(pci_line_is_cut_off_by_the_guest_and_by_msix)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);

	pci_set_line(&s->fn, true);
	ck_assert(rig->line[17]);
	COMMAND(rig, 1, PCI_COMMAND_INTX_OFF);
	ck_assert(!rig->line[17]);
	/* It interrupts all the same: the guest can poll for it. */
	ck_assert_uint_eq(config_read(rig, 1, PCI_STATUS, 2),
			  PCI_STATUS_INTERRUPT | PCI_STATUS_CAPABILITIES);
	COMMAND(rig, 1, 0);
	ck_assert(rig->line[17]);
	config_write(rig, 1, 0x42, MSIX_CONTROL_ENABLE, 2);
	ck_assert(!rig->line[17]);
	config_write(rig, 1, 0x42, 0, 2);
	ck_assert(rig->line[17]);
	pci_set_line(&s->fn, false);
	ck_assert_uint_eq(config_read(rig, 1, PCI_STATUS, 2),
			  PCI_STATUS_CAPABILITIES);
	sample_free(s);
	rig_free(rig);
}
END_TEST

/* ---- slots ---- */

START_TEST(pci_slots_run_out_and_come_back)
{
	struct device_rig *rig = bridge_new();
	struct sample *all[PCI_SLOTS - 1], extra = { 0 };
	struct error err = { "" };

	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++) {
		all[i] = sample_new(rig);
		ck_assert_uint_eq(all[i]->fn.slot, i + 1);
	}
	device_init(&extra.dev, &sample_device_ops, "extra0");
	ck_assert_int_eq(pci_function_init(&extra.fn, rig->pci, &extra.dev,
					   &sample_ops, &sample_identity, &err),
			 -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, "extra0"));
	pci_function_fini(&extra.fn);
	COMMAND(rig, 31, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(mmio_read(rig, 0xc01f0000, 1), 31);
	COMMAND(rig, 7, PCI_COMMAND_MEMORY);
	sample_free(all[6]);
	ck_assert_uint_eq(mmio_read(rig, 0xc0070000, 4), 0xffffffff);
	ck_assert_uint_eq(config_read(rig, 7, 0, 4), 0xffffffff);
	all[6] = sample_new(rig);
	ck_assert_uint_eq(all[6]->fn.slot, 7);
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++)
		sample_free(all[i]);
	device_fini(&extra.dev);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bridge_takes_no_options)
{
	struct device_rig *rig = rig_new();
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, "pci", "x=1", &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "x=1"));
	rig_free(rig);
}
END_TEST

START_TEST(pci_second_bridge_is_refused)
{
	struct device_rig *rig = bridge_new();
	struct device *first = rig->dev;
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, "pci", "", &err), -EEXIST);
	rig->dev = first;
	ck_assert_uint_eq(config_read(rig, 0, 0, 4), HOST_ID);
	ck_assert_uint_eq(config_read(rig, 1, 0, 4), 0xffffffff);
	rig_free(rig);
}
END_TEST

/* ---- the state ---- */

static void lock(struct sample *s)
{
	pthread_mutex_lock(&s->dev.lock);
}

static void unlock(struct sample *s)
{
	pthread_mutex_unlock(&s->dev.lock);
}

START_TEST(pci_function_moves_with_all_that_the_guest_has_set)
{
	struct device_rig *rig = bridge_new(), *there = bridge_new();
	struct sample *s = sample_new(rig), *t = sample_new(there);
	struct pci_state state;
	struct error err = { "" };

	COMMAND(rig, 1, 0x0406);
	config_write(rig, 1, PCI_CACHE_LINE, 0x20, 1);
	config_write(rig, 1, PCI_INTERRUPT_LINE, 9, 1);
	config_write(rig, 1, PCI_BAR0, 0xc9000000, 4);
	config_write(rig, 1, PCI_BAR0 + 8, 0xfffffff0, 4);
	mmio_write(rig, 0xc0011000, 0xfee00000, 8);
	config_write(rig, 1, 0x42, 0x8000, 2);
	msix_raise(&s->fn.msix, 0);
	lock(s);
	pci_snapshot(&s->fn, &state);
	unlock(s);
	lock(t);
	ck_assert_msg(!pci_check(&t->fn, &state, &err), "%s", err.text);
	pci_commit(&t->fn, &state);
	unlock(t);
	for (unsigned int reg = 0; reg < PCI_CONFIG_SIZE; reg += 4)
		ck_assert_uint_eq(config_read(there, 1, reg, 4),
				  config_read(rig, 1, reg, 4));
	ck_assert_uint_eq(t->moved[0], 0xc9000000);
	ck_assert_uint_eq(t->moved[2], 0);
	ck_assert_uint_eq(t->moves, 1);
	ck_assert_uint_eq(mmio_read(there, 0xc9000000, 1), 1);
	ck_assert_uint_eq(mmio_read(there, 0xc0011800, 4), 1);
	ck_assert_uint_eq(there->nmsis, 0);
	/* What is cut off stays cut off. */
	pci_set_line(&t->fn, true);
	ck_assert_uint_eq(there->edges[17], 0);
	mmio_write(there, 0xc001100c, 0, 4);
	ck_assert_uint_eq(there->nmsis, 1);
	sample_free(s);
	sample_free(t);
	rig_free(rig);
	rig_free(there);
}
END_TEST

START_TEST(pci_function_reset_is_the_state_at_power_on)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	uint8_t before[PCI_CONFIG_SIZE];
	static const uint8_t data[6];
	unsigned int cap = pci_add_capability(&s->fn, 9, data, sizeof(data));

	s->fn.writable[cap + 3] = 0xff;
	memcpy(before, s->fn.config, sizeof(before));
	COMMAND(rig, 1, 0x0006);
	for (unsigned int reg = 0x0c; reg < 0x40; reg += 4)
		config_write(rig, 1, reg, 0xc1111111, 4);
	config_write(rig, 1, 0x42, 0x8000, 2);
	config_write(rig, 1, cap + 3, 0x55, 1);
	mmio_write(rig, 0xc1111000, 0xfee00000, 8);
	pci_set_line(&s->fn, true);
	lock(s);
	pci_function_reset(&s->fn);
	unlock(s);
	ck_assert_mem_eq(s->fn.config, before, sizeof(before));
	ck_assert(!rig->line[17]);
	ck_assert_uint_eq(rig->edges[17], 0);
	ck_assert_uint_eq(s->moved[0], 0);
	ck_assert_uint_eq(mmio_read(rig, 0xc1111000, 4), 0xffffffff);
	ck_assert(!msix_raise(&s->fn.msix, 0));
	/* And the line is the device's again. */
	pci_set_line(&s->fn, true);
	ck_assert(rig->line[17]);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_line_is_low_after_a_state_was_loaded)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	struct pci_state state;

	pci_snapshot(&s->fn, &state);
	pci_set_line(&s->fn, true);
	pci_commit(&s->fn, &state);
	ck_assert(!rig->line[17]);
	pci_set_line(&s->fn, true);
	ck_assert(rig->line[17]);
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_function_refuses_states_that_no_guest_can_reach)
{
	struct device_rig *rig = bridge_new();
	struct sample *s = sample_new(rig);
	struct pci_state good, bad;
	struct error err;

	pci_snapshot(&s->fn, &good);
	ck_assert_int_eq(pci_check(&s->fn, &good, &err), 0);
#define REFUSES(why, field, value)                                        \
	do {                                                              \
		bad = good;                                               \
		bad.field = value;                                        \
		ck_assert_int_eq(pci_check(&s->fn, &bad, &err), -EINVAL); \
		ck_assert_msg(strstr(err.text, why) &&                    \
				      strstr(err.text, "sample0"),        \
			      "%s", err.text);                            \
	} while (0)
	REFUSES("command 0x0001", command, 0x0001);
	REFUSES("command 0x8002", command, 0x8002);
	REFUSES("bar 0 0xc0000004", bars[0], 0xc0000004);
	REFUSES("bar 2 0xc0001000", bars[2], 0xc0001000);
	REFUSES("bar 3 0x80000000", bars[3], 0x80000000);
	REFUSES("msix.control 0x0001", msix.control, 1);
	REFUSES("msix.vectors 3", msix.nvectors, 3);
#undef REFUSES
	sample_free(s);
	rig_free(rig);
}
END_TEST

START_TEST(pci_bridge_comes_whole_over_the_wire)
{
	struct device_rig *rig = bridge_new(), *there = bridge_new();
	struct pci_host_state state, loaded;

	out32(rig, ADDRESS, 0x80001234);
	out8(rig, PORT_RESET, 0x0a);
	config_write(rig, 0, PCI_CACHE_LINE, 0x40, 1);
	COMMAND(rig, 0, PCI_COMMAND_MASTER);
	RIG_OP(rig, pause);
	RIG_OP(rig, snapshot, &state);
	rig_wire(rig, &state, &loaded);
	ck_assert(rig_accepts(there, &loaded));
	RIG_OP(there, pause);
	RIG_OP(there, commit, &loaded);
	RIG_OP(there, resume);
	ck_assert_uint_eq(in32(there, ADDRESS), 0x80001234);
	ck_assert_uint_eq(in8(there, PORT_RESET), 0x0a);
	ck_assert_uint_eq(config_read(there, 0, PCI_CACHE_LINE, 1), 0x40);
	ck_assert_uint_eq(config_read(there, 0, PCI_COMMAND, 2),
			  PCI_COMMAND_MASTER);
	/* An edge is one from what was there before. */
	out8(there, PORT_RESET, 0x0e);
	ck_assert_uint_eq(there->resets, 1);
	RIG_OP(there, pause);
	RIG_OP(there, reset);
	RIG_OP(there, resume);
	ck_assert_uint_eq(in32(there, ADDRESS), 0);
	ck_assert_uint_eq(in8(there, PORT_RESET), 0);
	ck_assert_uint_eq(config_read(there, 0, PCI_COMMAND, 2), 0);
	rig_free(rig);
	rig_free(there);
}
END_TEST

START_TEST(pci_bridge_refuses_states_that_no_guest_can_reach)
{
	struct device_rig *rig = bridge_new();
	struct pci_host_state s = { 0 };

	ck_assert(rig_accepts(rig, &s));
#define REFUSES(...)                                        \
	do {                                                \
		s = (struct pci_host_state){ __VA_ARGS__ }; \
		ck_assert(!rig_accepts(rig, &s));           \
	} while (0)
	REFUSES(.address = 0x80000001);
	REFUSES(.address = 0x01000000);
	REFUSES(.reset_control = 0x01);
	REFUSES(.reset_control = 0x10);
	REFUSES(.pci.command = 0x0100);
	REFUSES(.pci.interrupt_line = 11);
	REFUSES(.pci.bars[0] = 0xc0000000);
	REFUSES(.pci.msix.nvectors = 1);
	REFUSES(.pci.msix.pending = 1);
	REFUSES(.pci.msix.control = MSIX_CONTROL_ENABLE);
#undef REFUSES
	rig_free(rig);
}
END_TEST

UNIT_SUITE("pci", pci_bridge_is_found_in_slot_0_both_ways,
	   pci_what_is_not_there_reads_as_all_ones,
	   pci_address_is_set_by_whole_dwords_only,
	   pci_data_port_reaches_each_byte_of_the_dword,
	   pci_reset_register_resets_on_a_rising_edge,
	   pci_function_says_what_it_is,
	   pci_configuration_space_keeps_only_what_can_be_written,
	   pci_accesses_of_any_size_and_place_see_the_same_bytes,
	   pci_extended_space_has_no_capabilities,
	   pci_bars_have_addresses_from_the_start,
	   pci_bars_are_sized_by_writing_ones,
	   pci_bars_answer_while_memory_is_decoded,
	   pci_bar_sees_only_whole_accesses_of_round_sizes,
	   pci_bars_move_within_the_window,
	   pci_bars_over_each_other_answer_as_that_of_the_lowest_slot,
	   pci_capabilities_are_a_list_that_devices_look_after,
	   pci_msix_works_by_its_capability_and_its_bar,
	   pci_line_is_high_while_any_of_its_slots_pulls_it,
	   pci_line_is_cut_off_by_the_guest_and_by_msix,
	   pci_slots_run_out_and_come_back, pci_bridge_takes_no_options,
	   pci_second_bridge_is_refused,
	   pci_function_moves_with_all_that_the_guest_has_set,
	   pci_function_reset_is_the_state_at_power_on,
	   pci_line_is_low_after_a_state_was_loaded,
	   pci_function_refuses_states_that_no_guest_can_reach,
	   pci_bridge_comes_whole_over_the_wire,
	   pci_bridge_refuses_states_that_no_guest_can_reach)
