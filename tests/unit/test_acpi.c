// SPDX-License-Identifier: MIT
/*
 * The ACPI tables as a guest walks them: found, whole, summed up, and saying
 * what is there. The AML is read by a small parser of its own.
 */
#include <errno.h>
#include <string.h>

#include "arch/arch.h"
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/aml.h"
#include "arch/x86_64/layout.h"
#include "tests/unit/unit.h"

struct tables {
	struct memory *mem;
	const uint8_t *rsdp;
	const uint8_t *xsdt;
	const uint8_t *fadt;
	const uint8_t *madt;
	const uint8_t *dsdt;
};

static uint32_t u16_at(const uint8_t *at)
{
	return (uint32_t)(at[0] | at[1] << 8);
}

static uint32_t u32_at(const uint8_t *at)
{
	return u16_at(at) | u16_at(at + 2) << 16;
}

static uint64_t u64_at(const uint8_t *at)
{
	return u32_at(at) | (uint64_t)u32_at(at + 4) << 32;
}

static uint8_t sum(const uint8_t *at, uint32_t len)
{
	uint8_t total = 0;

	while (len--)
		total = (uint8_t)(total + *at++);
	return total;
}

/* A table at @gpa that says it is @signature, whole and summed up. */
static const uint8_t *table(const struct tables *t, uint64_t gpa,
			    const char *signature)
{
	const uint8_t *at = memory_hva(t->mem, gpa, 36);

	ck_assert_ptr_nonnull(at);
	ck_assert_mem_eq(at, signature, 4);
	ck_assert_uint_ge(gpa, LAYOUT_BIOS);
	ck_assert_uint_le(gpa + u32_at(at + 4), LAYOUT_HIGH_RAM);
	ck_assert_uint_eq(sum(at, u32_at(at + 4)), 0);
	return at;
}

static const uint8_t *listed(const struct tables *t, const char *signature)
{
	for (uint32_t i = 36; i < u32_at(t->xsdt + 4); i += 8) {
		uint64_t gpa = u64_at(t->xsdt + i);

		if (!memcmp(memory_hva(t->mem, gpa, 4), signature, 4))
			return table(t, gpa, signature);
	}
	ck_abort_msg("no %s", signature);
	return NULL;
}

static void tables_build(struct tables *t, uint32_t cpus)
{
	struct error err = { "" };
	uint64_t rsdp = 0;

	ck_assert_int_eq(memory_create(MEMORY_MIN, true, &t->mem, &err), 0);
	ck_assert_msg(!acpi_build(t->mem, cpus, &rsdp, &err), "%s", err.text);
	ck_assert_uint_eq(rsdp % 16, 0);
	t->rsdp = memory_hva(t->mem, rsdp, 36);
	t->xsdt = table(t, u64_at(t->rsdp + 24), "XSDT");
	t->fadt = listed(t, "FACP");
	t->madt = listed(t, "APIC");
	t->dsdt = table(t, u32_at(t->fadt + 40), "DSDT");
}

START_TEST(acpi_root_is_where_guests_scan_for_it)
{
	struct tables t;
	unsigned int found = 0;

	tables_build(&t, 1);
	for (uint64_t gpa = 0xe0000; gpa < 0x100000; gpa += 16) {
		const uint8_t *at = memory_hva(t.mem, gpa, 16);

		found += !memcmp(at, "RSD PTR ", 8);
	}
	ck_assert_uint_eq(found, 1);
	ck_assert_uint_eq(sum(t.rsdp, 20), 0);
	ck_assert_uint_eq(sum(t.rsdp, 36), 0);
	ck_assert_uint_eq(t.rsdp[15], 2);
	ck_assert_uint_eq(u32_at(t.rsdp + 20), 36);
	ck_assert_uint_eq(u32_at(t.rsdp + 32) >> 8, 0); /* reserved */
	memory_free(t.mem);
}
END_TEST

START_TEST(acpi_fixed_table_names_the_ports_that_answer)
{
	struct tables t;
	const uint8_t *facs;

	tables_build(&t, 1);
	ck_assert_uint_eq(u32_at(t.fadt + 4), 276);
	ck_assert_uint_eq(u16_at(t.fadt + 46), GSI_SCI);
	ck_assert_uint_eq(u32_at(t.fadt + 48), 0); /* no SMI: ACPI is on */
	ck_assert_uint_eq(u32_at(t.fadt + 56), PORT_PM1A_EVENT);
	ck_assert_uint_eq(u32_at(t.fadt + 64), PORT_PM1A_CONTROL);
	ck_assert_uint_eq(u32_at(t.fadt + 76), PORT_PM_TIMER);
	ck_assert_uint_eq(t.fadt[88], 4);
	ck_assert_uint_eq(t.fadt[89], 2);
	ck_assert_uint_eq(t.fadt[91], 4);
	ck_assert_uint_eq(t.fadt[108], CMOS_CENTURY);
	ck_assert_uint_eq(u64_at(t.fadt + 140), u32_at(t.fadt + 40));
	/* The reset register: a byte of port space, and what to write. */
	ck_assert_uint_eq(t.fadt[116], 1);
	ck_assert_uint_eq(t.fadt[117], 8);
	ck_assert_uint_eq(u64_at(t.fadt + 120), PORT_RESET);
	ck_assert_uint_eq(t.fadt[128], RESET_HARD);
	ck_assert(u32_at(t.fadt + 112) & 1 << 10);
	/* The extended addresses say the same. */
	ck_assert_uint_eq(u64_at(t.fadt + 152), PORT_PM1A_EVENT);
	ck_assert_uint_eq(u64_at(t.fadt + 176), PORT_PM1A_CONTROL);
	ck_assert_uint_eq(u64_at(t.fadt + 212), PORT_PM_TIMER);
	/* A fixed power button, no keyboard controller. */
	ck_assert(!(u32_at(t.fadt + 112) & 1 << 4));
	ck_assert(!(u16_at(t.fadt + 109) & 1 << 1));
	facs = memory_hva(t.mem, u32_at(t.fadt + 36), 64);
	ck_assert_mem_eq(facs, "FACS", 4);
	ck_assert_uint_eq(u32_at(t.fadt + 36) % 64, 0);
	ck_assert_uint_eq(u32_at(facs + 4), 64);
	memory_free(t.mem);
}
END_TEST

/* How many entries of @type the MADT has; each must be of @length. */
static unsigned int madt_count(const struct tables *t, uint8_t type,
			       uint8_t length)
{
	uint32_t at = 44, n = 0;

	while (at < u32_at(t->madt + 4)) {
		const uint8_t *entry = t->madt + at;

		ck_assert_uint_gt(entry[1], 0);
		if (entry[0] == type) {
			ck_assert_uint_eq(entry[1], length);
			n++;
		}
		at += entry[1];
	}
	ck_assert_uint_eq(at, u32_at(t->madt + 4));
	return n;
}

START_TEST(acpi_lists_every_processor_once)
{
	static const uint32_t counts[] = { 1, 2, 3, 64, ARCH_CPUS_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct tables t;

		tables_build(&t, counts[i]);
		ck_assert_uint_eq(madt_count(&t, 0, 8), counts[i]);
		ck_assert_uint_eq(madt_count(&t, 1, 12), 1);
		ck_assert_uint_eq(madt_count(&t, 2, 10), 1);
		ck_assert_uint_eq(madt_count(&t, 4, 6), 1);
		for (uint32_t cpu = 0; cpu < counts[i]; cpu++) {
			const uint8_t *entry = t.madt + 44 + cpu * 8;

			ck_assert_uint_eq(entry[2], cpu);
			ck_assert_uint_eq(entry[3], cpu);
			ck_assert_uint_eq(u32_at(entry + 4), 1);
		}
		memory_free(t.mem);
	}
}
END_TEST

START_TEST(acpi_says_that_the_sci_is_level_triggered)
{
	struct tables t;
	const uint8_t *entry;

	tables_build(&t, 1);
	entry = t.madt + 44 + 8 + 12;
	ck_assert_uint_eq(entry[0], 2);
	ck_assert_uint_eq(entry[3], GSI_SCI);
	ck_assert_uint_eq(u32_at(entry + 4), GSI_SCI);
	ck_assert_uint_eq(u16_at(entry + 8), 0x000d);
	memory_free(t.mem);
}
END_TEST

/* ---- AML ---- */

/* PkgLength: how many bytes it covers, itself included. */
static uint32_t pkg_length(const uint8_t *at, uint32_t *ret_size)
{
	uint32_t follow = at[0] >> 6, length = at[0] & (follow ? 0xf : 0x3f);

	for (uint32_t i = 0; i < follow; i++)
		length |= (uint32_t)at[1 + i] << (4 + 8 * i);
	*ret_size = follow + 1;
	return length;
}

/* Past the value at @at. */
static uint32_t skip_value(const uint8_t *aml, uint32_t at)
{
	uint32_t size;

	switch (aml[at]) {
	case 0x00:
	case 0x01:
		return at + 1;
	case 0x0a:
		return at + 2;
	case 0x0b:
		return at + 3;
	case 0x0c:
		return at + 5;
	case 0x0d:
		return at + 2 + (uint32_t)strlen((const char *)aml + at + 1);
	case 0x11:
	case 0x12:
		return at + 1 + pkg_length(aml + at + 1, &size);
	default:
		ck_abort_msg("value 0x%02x at %u", aml[at], at);
		return at;
	}
}

struct found {
	unsigned int devices;
	unsigned int cpus;
	bool s5;
};

static void walk(const uint8_t *aml, uint32_t at, uint32_t end,
		 struct found *found)
{
	while (at < end) {
		uint32_t size, next;

		if (aml[at] == 0x08) { /* Name */
			at++;
			if (aml[at] == '\\')
				at++;
			found->s5 |= !memcmp(aml + at,
					     "_S5_\x12\x08\x04\x0a\x05", 9);
			found->cpus += !memcmp(aml + at, "_HID\rACPI0007", 13);
			at = skip_value(aml, at + 4);
			continue;
		}
		if (aml[at] == 0x5b) { /* Device */
			ck_assert_uint_eq(aml[at + 1], 0x82);
			found->devices++;
			at++;
		} else {
			ck_assert_uint_eq(aml[at], 0x10); /* Scope */
		}
		at++;
		next = at + pkg_length(aml + at, &size);
		ck_assert_uint_le(next, end);
		at += size + (aml[at + size] == '\\') + 4;
		walk(aml, at, next, found);
		at = next;
	}
	ck_assert_uint_eq(at, end);
}

START_TEST(acpi_describes_processors_and_devices_in_well_formed_aml)
{
	static const uint32_t counts[] = { 1, 5, ARCH_CPUS_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct found found = { 0 };
		struct tables t;

		tables_build(&t, counts[i]);
		walk(t.dsdt, 36, u32_at(t.dsdt + 4), &found);
		ck_assert_uint_eq(found.cpus, counts[i]);
		ck_assert_uint_eq(found.devices, counts[i] + 5);
		ck_assert(found.s5);
		memory_free(t.mem);
	}
}
END_TEST

START_TEST(acpi_serial_port_has_its_ports_and_line)
{
	static const uint8_t
		uart[] = { '_',	 'H',  'I',  'D',  0x0c, 0x41,
			   0xd0, 0x05, 0x01, /* PNP0501 */
			   0x08, '_',  'U',  'I',  'D',	 0x01,
			   0x08, '_',  'C',  'R',  'S',	 0x11,
			   0x10, 0x0a, 0x0d, /* a buffer of 13 bytes */
			   0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03,
			   0x01, 0x08,	     /* ports */
			   0x22, 0x10, 0x00, /* line 4 */
			   0x79, 0x00 };
	struct tables t;

	tables_build(&t, 1);
	ck_assert_ptr_nonnull(
		memmem(t.dsdt, u32_at(t.dsdt + 4), uart, sizeof(uart)));
	memory_free(t.mem);
}
END_TEST

START_TEST(acpi_host_bridge_has_its_ports_and_window)
{
	static const uint8_t bridge[] = {
		'_',  'H',  'I',  'D',	0x0c, 0x41, 0xd0, 0x0a,
		0x08, /* PNP0A08 */
		0x08, '_',  'C',  'I',	'D',  0x0c, 0x41, 0xd0,
		0x0a, 0x03, /* PNP0A03 */
		0x08, '_',  'U',  'I',	'D',  0x00, 0x08, '_',
		'B',  'B',  'N',  0x00, 0x08, '_',  'C',  'R',
		'S',  0x11, 0x37, 0x0a, 0x34, /* a buffer of 52 bytes */
		0x88, 0x0d, 0x00, 0x02, 0x0c, 0x00, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, /* bus 0 */
		0x47, 0x01, 0xf8, 0x0c, 0xf8, 0x0c, 0x01, 0x08, /* ports */
		0x87, 0x17, 0x00, 0x00, 0x0c, 0x01, 0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0xc0, 0xff, 0xff,
		0xff, 0xdf, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x00, 0x20, /* window */
		0x79, 0x00
	};
	struct tables t;

	tables_build(&t, 1);
	ck_assert_ptr_nonnull(
		memmem(t.dsdt, u32_at(t.dsdt + 4), bridge, sizeof(bridge)));
	memory_free(t.mem);
}
END_TEST

START_TEST(acpi_maps_configuration_space_where_memory_is_reserved)
{
	static const uint8_t reserved[] = { '_',  'H',	'I',  'D',  0x0c, 0x41,
					    0xd0, 0x0c, 0x02, /* PNP0C02 */
					    0x08, '_',	'U',  'I',  'D',  0x00,
					    0x08, '_',	'C',  'R',  'S',  0x11,
					    0x11, 0x0a, 0x0e, 0x86, 0x09, 0x00,
					    0x01, 0x00, 0x00, 0x00, 0xe0, 0x00,
					    0x00, 0x10, 0x00, 0x79, 0x00 };
	const uint8_t *mcfg;
	struct tables t;

	tables_build(&t, 1);
	mcfg = listed(&t, "MCFG");
	ck_assert_uint_eq(u32_at(mcfg + 4), 60);
	ck_assert_uint_eq(u64_at(mcfg + 36), 0);
	ck_assert_uint_eq(u64_at(mcfg + 44), LAYOUT_PCI_ECAM);
	ck_assert_uint_eq(u64_at(mcfg + 52), 0); /* segment 0, bus 0 alone */
	ck_assert_ptr_nonnull(
		memmem(t.dsdt, u32_at(t.dsdt + 4), reserved, sizeof(reserved)));
	memory_free(t.mem);
}
END_TEST

/* An integer; moves @at past it. */
static uint32_t take_integer(const uint8_t *aml, uint32_t *at)
{
	uint32_t start = *at;

	*at = skip_value(aml, start);
	switch (*at - start) {
	case 2:
		return aml[start + 1];
	case 3:
		return u16_at(aml + start + 1);
	case 5:
		return u32_at(aml + start + 1);
	default:
		return aml[start];
	}
}

START_TEST(acpi_routes_the_line_of_every_slot)
{
	const uint8_t *prt;
	uint32_t at, size;
	struct tables t;

	tables_build(&t, 1);
	prt = memmem(t.dsdt, u32_at(t.dsdt + 4), "_PRT\x12", 5);
	ck_assert_ptr_nonnull(prt);
	pkg_length(prt + 5, &size);
	at = 5 + size;
	ck_assert_uint_eq(prt[at++], 32);
	for (uint32_t slot = 0; slot < 32; slot++) {
		ck_assert_uint_eq(prt[at], 0x12);
		pkg_length(prt + at + 1, &size);
		at += 1 + size;
		ck_assert_uint_eq(prt[at++], 4);
		ck_assert_uint_eq(take_integer(prt, &at), slot << 16 | 0xffff);
		ck_assert_uint_eq(take_integer(prt, &at), 0); /* INTA# */
		ck_assert_uint_eq(take_integer(prt, &at), 0); /* no router */
		ck_assert_uint_eq(take_integer(prt, &at), 16 + slot % 8);
	}
	memory_free(t.mem);
}
END_TEST

START_TEST(aml_length_counts_itself_at_every_width)
{
	/* Bodies around each place where the length gets longer. */
	static const struct {
		uint32_t body;
		uint32_t size;
	} cases[] = {
		{ 62, 1 },   { 63, 2 },	     { 4093, 2 },
		{ 4094, 3 }, { 1048572, 3 }, { 1048573, 4 },
	};
	static uint8_t bytes[2 * MIB];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml aml;
		size_t start;
		uint32_t size;

		aml_init(&aml, bytes, sizeof(bytes));
		start = aml_open_scope(&aml, "\\_SB");
		while (aml.len - start < cases[i].body)
			aml_integer(&aml, 0);
		aml_close(&aml, start);
		ck_assert(!aml.full);
		ck_assert_uint_eq(pkg_length(bytes + 1, &size), aml.len - 1);
		ck_assert_uint_eq(size, cases[i].size);
		ck_assert_mem_eq(bytes + 1 + size, "\\_SB_", 5);
	}
}
END_TEST

START_TEST(aml_integers_are_as_short_as_they_can_be)
{
	static const struct {
		uint64_t value;
		size_t len;
		uint8_t op;
	} cases[] = {
		{ 0, 1, 0x00 },		  { 1, 1, 0x01 },
		{ 2, 2, 0x0a },		  { 0xff, 2, 0x0a },
		{ 0x100, 3, 0x0b },	  { 0xffff, 3, 0x0b },
		{ 0x10000, 5, 0x0c },	  { 0xffffffff, 5, 0x0c },
		{ 0x100000000, 9, 0x0e },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t bytes[16] = { 0 };
		struct aml aml;

		aml_init(&aml, bytes, sizeof(bytes));
		aml_integer(&aml, cases[i].value);
		ck_assert_uint_eq(aml.len, cases[i].len);
		ck_assert_uint_eq(bytes[0], cases[i].op);
		if (aml.len > 1)
			ck_assert_uint_eq(u64_at(bytes + 1), cases[i].value);
	}
}
END_TEST

START_TEST(aml_says_so_when_the_buffer_is_too_small)
{
	uint8_t bytes[24];

	for (size_t cap = 0; cap <= sizeof(bytes) - 8; cap++) {
		struct aml aml;
		size_t start;

		memset(bytes, 0xee, sizeof(bytes));
		aml_init(&aml, bytes, cap);
		start = aml_open_device(&aml, "COM1");
		aml_name(&aml, "_UID");
		aml_integer(&aml, 1);
		aml_close(&aml, start);
		ck_assert_int_eq(aml.full, cap < 13);
		for (size_t i = cap; i < sizeof(bytes); i++)
			ck_assert_uint_eq(bytes[i], 0xee);
	}
}
END_TEST

UNIT_SUITE("acpi", acpi_root_is_where_guests_scan_for_it,
	   acpi_fixed_table_names_the_ports_that_answer,
	   acpi_lists_every_processor_once,
	   acpi_says_that_the_sci_is_level_triggered,
	   acpi_describes_processors_and_devices_in_well_formed_aml,
	   acpi_serial_port_has_its_ports_and_line,
	   acpi_host_bridge_has_its_ports_and_window,
	   acpi_maps_configuration_space_where_memory_is_reserved,
	   acpi_routes_the_line_of_every_slot,
	   aml_length_counts_itself_at_every_width,
	   aml_integers_are_as_short_as_they_can_be,
	   aml_says_so_when_the_buffer_is_too_small)
