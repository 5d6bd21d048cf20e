// SPDX-License-Identifier: MIT
/*
 * What the DSDT says: the devices that can't be enumerated, the bridge that
 * those behind it can be, processors, and how to switch off; see acpi.h. A
 * device that comes later is one more acpi_describe_*().
 *
 * Spec: ACPI 6.5, PCI firmware 3.2.
 */
#include <stdio.h>

#include "arch/x86_64/acpi_internal.h"
#include "arch/x86_64/layout.h"

#define PCI_SLOTS 32

static void acpi_describe_legacy(struct aml *aml, const char *name,
				 const char *id, uint16_t base, uint8_t len,
				 unsigned int line)
{
	size_t device = aml_open_device(aml, name);
	uint8_t bytes[16];
	struct aml res;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, id);
	aml_name(aml, "_UID");
	aml_integer(aml, 1);
	aml_init(&res, bytes, sizeof(bytes));
	aml_io(&res, base, len);
	aml_irq(&res, line);
	aml_name(aml, "_CRS");
	aml_resources(aml, &res);
	aml_close(aml, device);
}

/* What Linux' driver for pvpanic binds to. */
static void acpi_describe_panic(struct aml *aml)
{
	size_t device = aml_open_device(aml, "PEVT");
	uint8_t bytes[16];
	struct aml res;

	aml_name(aml, "_HID");
	aml_string(aml, "QEMU0001");
	aml_init(&res, bytes, sizeof(bytes));
	aml_io(&res, PORT_PANIC, 1);
	aml_name(aml, "_CRS");
	aml_resources(aml, &res);
	aml_close(aml, device);
}

static void acpi_describe_cpus(struct aml *aml, uint32_t cpus)
{
	for (uint32_t i = 0; i < cpus; i++) {
		char name[5];
		size_t device;

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		device = aml_open_device(aml, name);
		aml_name(aml, "_HID");
		aml_string(aml, "ACPI0007");
		aml_name(aml, "_UID"); /* as in the MADT */
		aml_integer(aml, i);
		aml_close(aml, device);
	}
}

/*
 * Section 6.2.13: the interrupt line of each slot, without a device that routes
 * it; then it is level-triggered.
 */
static void acpi_describe_pci_lines(struct aml *aml)
{
	size_t table, entry;

	aml_name(aml, "_PRT");
	table = aml_open_package(aml, PCI_SLOTS);
	for (uint32_t slot = 0; slot < PCI_SLOTS; slot++) {
		entry = aml_open_package(aml, 4);
		aml_integer(aml, slot << 16 | 0xffff); /* any function */
		aml_integer(aml, 0);		       /* INTA# */
		aml_integer(aml, 0);
		aml_integer(aml, GSI_PCI + slot % GSI_PCI_COUNT);
		aml_close(aml, entry);
	}
	aml_close(aml, table);
}

static void acpi_describe_pci(struct aml *aml)
{
	size_t device = aml_open_device(aml, "PCI0");
	uint8_t bytes[64];
	struct aml res;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0A08"); /* PCI Express: there is ECAM */
	aml_name(aml, "_CID");
	aml_eisa_id(aml, "PNP0A03");
	aml_name(aml, "_UID");
	aml_integer(aml, 0);
	aml_name(aml, "_BBN");
	aml_integer(aml, 0);
	aml_init(&res, bytes, sizeof(bytes));
	aml_bus_window(&res, 0, 0);
	aml_io(&res, PORT_PCI, PORT_PCI_LEN);
	aml_memory_window(&res, LAYOUT_PCI_WINDOW, LAYOUT_PCI_WINDOW_SIZE);
	aml_name(aml, "_CRS");
	aml_resources(aml, &res);
	acpi_describe_pci_lines(aml);
	aml_close(aml, device);
}

/*
 * Section 4.1.2 of PCI firmware: a bridge doesn't own its ECAM, the mainboard
 * does.
 */
static void acpi_describe_ecam(struct aml *aml)
{
	size_t device = aml_open_device(aml, "ECAM");
	uint8_t bytes[16];
	struct aml res;

	aml_name(aml, "_HID");
	aml_eisa_id(aml, "PNP0C02");
	aml_name(aml, "_UID");
	aml_integer(aml, 0);
	aml_init(&res, bytes, sizeof(bytes));
	aml_memory(&res, LAYOUT_PCI_ECAM, LAYOUT_PCI_ECAM_SIZE);
	aml_name(aml, "_CRS");
	aml_resources(aml, &res);
	aml_close(aml, device);
}

/* Section 7.4.2.6: what to put into SLP_TYP to switch off. */
static void acpi_describe_s5(struct aml *aml)
{
	size_t package;

	aml_name(aml, "\\_S5");
	package = aml_open_package(aml, 4);
	aml_integer(aml, SLEEP_TYPE_S5); /* PM1a */
	aml_integer(aml, SLEEP_TYPE_S5); /* PM1b, which there isn't */
	aml_integer(aml, 0);
	aml_integer(aml, 0);
	aml_close(aml, package);
}

void acpi_describe(struct aml *aml, uint32_t cpus)
{
	size_t scope = aml_open_scope(aml, "\\_SB");

	acpi_describe_cpus(aml, cpus);
	acpi_describe_legacy(aml, "COM1", "PNP0501", PORT_SERIAL,
			     PORT_SERIAL_LEN, GSI_SERIAL);
	acpi_describe_legacy(aml, "RTC", "PNP0B00", PORT_RTC, PORT_RTC_LEN,
			     GSI_RTC);
	acpi_describe_panic(aml);
	acpi_describe_pci(aml);
	acpi_describe_ecam(aml);
	aml_close(aml, scope);
	acpi_describe_s5(aml);
}
