/* SPDX-License-Identifier: MIT */
/*
 * Which CPUs there are, and where PCI configuration space is: RSDP, from there
 * XSDT or RSDT, from there the MADT and the MCFG. ACPI 6.5, sections 5.2.5 to
 * 5.2.12; PCI firmware 3.2, section 4.1.2.
 *
 * A guest tests its VMM, so sums are checked and what is wrong ends it. No
 * RSDP is no fault: there is one CPU then, and PCI by ports if at all.
 */
#include "runtime.h"

#define MADT_LAPIC   0
#define MADT_X2APIC  9
#define LAPIC_USABLE 1U

struct rsdp {
	char signature[8];
	uint8_t sum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_sum;
	uint8_t reserved[3];
} __attribute__((packed));

struct sdt {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t sum;
	char oem[6];
	char oem_table[8];
	uint32_t oem_revision;
	uint32_t creator;
	uint32_t creator_revision;
} __attribute__((packed));

struct madt {
	struct sdt header;
	uint32_t lapic;
	uint32_t flags;
	uint8_t entries[];
} __attribute__((packed));

struct madt_lapic {
	uint8_t type, length;
	uint8_t processor;
	uint8_t apic_id;
	uint32_t flags;
} __attribute__((packed));

struct madt_x2apic {
	uint8_t type, length;
	uint16_t reserved;
	uint32_t apic_id;
	uint32_t flags;
	uint32_t processor;
} __attribute__((packed));

struct mcfg_entry {
	uint64_t base;
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint32_t reserved;
} __attribute__((packed));

struct mcfg {
	struct sdt header;
	uint64_t reserved;
	struct mcfg_entry entries[];
} __attribute__((packed));

static uint64_t load(const void *from, size_t size)
{
	uint64_t value = 0;

	memcpy(&value, from, size);
	return value;
}

static void check_sum(const char *name, const void *table, size_t size)
{
	const uint8_t *byte = table;
	uint8_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + byte[i]);
	if (sum)
		guest_fail(VERDICT_MACHINE, "ACPI %s: bad checksum\n", name);
}

/* The tables that RSDT (@width 4) or XSDT (@width 8) lists. */
static const struct sdt *find(const struct sdt *root, size_t width,
			      const char *signature)
{
	const uint8_t *entry = (const uint8_t *)(root + 1);
	const uint8_t *end = (const uint8_t *)root + root->length;
	const struct sdt *table;

	check_sum(width == 8 ? "XSDT" : "RSDT", root, root->length);
	for (; entry + width <= end; entry += width) {
		table = (const struct sdt *)load(entry, width);
		if (!memcmp(table->signature, signature, 4)) {
			check_sum(signature, table, table->length);
			return table;
		}
	}
	return NULL;
}

static void add_cpu(const uint8_t *entry)
{
	struct madt_x2apic x2apic;
	struct madt_lapic lapic;

	if (entry[0] == MADT_LAPIC && entry[1] >= sizeof(lapic)) {
		memcpy(&lapic, entry, sizeof(lapic));
		if (lapic.flags & LAPIC_USABLE)
			smp_add(lapic.apic_id);
	} else if (entry[0] == MADT_X2APIC && entry[1] >= sizeof(x2apic)) {
		memcpy(&x2apic, entry, sizeof(x2apic));
		if (x2apic.flags & LAPIC_USABLE)
			smp_add(x2apic.apic_id);
	}
}

static void add_cpus(const struct madt *madt)
{
	const uint8_t *end = (const uint8_t *)madt + madt->header.length;
	const uint8_t *entry;

	for (entry = madt->entries;
	     entry + 2 <= end && entry[1] >= 2 && entry + entry[1] <= end;
	     entry += entry[1])
		add_cpu(entry);
}

static void add_ecam(const struct mcfg *mcfg)
{
	const uint8_t *end = (const uint8_t *)mcfg + mcfg->header.length;
	const struct mcfg_entry *entry = mcfg->entries;

	for (; (const uint8_t *)(entry + 1) <= end; entry++) {
		if (!entry->segment && !entry->first_bus)
			pci_add_ecam(entry->base);
	}
}

void acpi_init(const struct hvm_start_info *info)
{
	const struct rsdp *rsdp = (const struct rsdp *)info->rsdp_gpa;
	const struct sdt *root, *table;
	size_t width;

	if (!rsdp)
		return;
	if (memcmp(rsdp->signature, "RSD PTR ", 8))
		guest_fail(VERDICT_MACHINE, "ACPI RSDP: bad signature\n");
	check_sum("RSDP", rsdp, 20);
	width = rsdp->revision >= 2 && rsdp->xsdt ? 8 : 4;
	root = (const struct sdt *)(width == 8 ? rsdp->xsdt : rsdp->rsdt);
	table = find(root, width, "APIC");
	if (table)
		add_cpus((const struct madt *)table);
	table = find(root, width, "MCFG");
	if (table)
		add_ecam((const struct mcfg *)table);
}
