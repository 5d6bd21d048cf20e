// SPDX-License-Identifier: MIT
/*
 * The ACPI tables; see acpi.h. They lie in the BIOS area in this order:
 *
 *	RSDP   where guests scan for it; leads to the XSDT
 *	FACS   what firmware and guest share: nothing, but it must be there
 *	DSDT   devices that can't be enumerated, PCI, processors, S5
 *	FADT   power management ports, reset register, what a PC lacks here
 *	MADT   processors and interrupt controllers
 *	MCFG   where PCI configuration space is mapped
 *	XSDT   leads to FADT, MADT and MCFG
 *
 * They are made in a buffer on the side and written to the guest at once. A
 * table that comes later is one more function and one more entry of the XSDT.
 * What the DSDT says is in acpi_dsdt.c, how a table is laid out in
 * acpi_internal.h.
 *
 * Spec: ACPI 6.5, PCI firmware 3.2; sections are named at each table.
 */
#include "arch/x86_64/acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "arch/x86_64/acpi_internal.h"
#include "arch/x86_64/layout.h"

#define ACPI_TABLES_MAX 4 /* that the XSDT leads to */

/* From APIC id 255 on an x2APIC entry would be needed, section 5.2.12.12. */
static_assert(ARCH_CPUS_MAX <= 255, "local APIC entries do for all");

/* Tables in the making; addresses in the guest are LAYOUT_ACPI + offset. */
struct acpi {
	uint8_t data[LAYOUT_ACPI_SIZE];
	size_t len;
	bool full; /* something didn't fit */
	unsigned int ntables;
	uint64_t tables[ACPI_TABLES_MAX]; /* for the XSDT */
};

/* ---- putting tables together ---- */

static uint64_t acpi_gpa(size_t offset)
{
	return LAYOUT_ACPI + offset;
}

static void acpi_align(struct acpi *acpi, size_t to)
{
	acpi->len = align_up(acpi->len, to);
}

static void acpi_append(struct acpi *acpi, const void *data, size_t len)
{
	if (acpi->len > sizeof(acpi->data) ||
	    len > sizeof(acpi->data) - acpi->len) {
		acpi->full = true;
		return;
	}
	memcpy(acpi->data + acpi->len, data, len);
	acpi->len += len;
}

static uint8_t acpi_checksum(const void *data, size_t len)
{
	const uint8_t *bytes = data;
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return (uint8_t)-sum;
}

static struct acpi_header acpi_header(const char *signature, uint8_t revision)
{
	struct acpi_header header = {
		.revision = revision,
		.oem_revision = 1,
		.creator_revision = 1,
	};

	memcpy(header.signature, signature, sizeof(header.signature));
	memcpy(header.oem_id, "GODWIT", sizeof(header.oem_id));
	memcpy(header.oem_table_id, "GODWITVM", sizeof(header.oem_table_id));
	memcpy(header.creator_id, "GDWT", sizeof(header.creator_id));
	return header;
}

/* The table that began at @start ends here: fill in what is known only now. */
static void acpi_finish(struct acpi *acpi, size_t start)
{
	uint32_t length = (uint32_t)(acpi->len - start);
	uint8_t *table = acpi->data + start;

	if (acpi->full)
		return;
	memcpy(table + offsetof(struct acpi_header, length), &length,
	       sizeof(length));
	table[offsetof(struct acpi_header, checksum)] = 0;
	table[offsetof(struct acpi_header, checksum)] =
		acpi_checksum(table, length);
}

static void acpi_list(struct acpi *acpi, size_t start)
{
	assert(acpi->ntables < ACPI_TABLES_MAX);
	acpi->tables[acpi->ntables++] = acpi_gpa(start);
}

/* ---- the tables ---- */

/* Section 5.2.11.1. Revision 2: integers have 64 bits. */
static uint64_t acpi_add_dsdt(struct acpi *acpi, uint32_t cpus)
{
	const struct acpi_header header = acpi_header("DSDT", 2);
	size_t start = acpi->len;
	struct aml aml;

	acpi_append(acpi, &header, sizeof(header));
	aml_init(&aml, acpi->data + acpi->len, sizeof(acpi->data) - acpi->len);
	acpi_describe(&aml, cpus);
	acpi->full |= aml.full;
	acpi->len += aml.len;
	acpi_finish(acpi, start);
	return acpi_gpa(start);
}

static uint64_t acpi_add_facs(struct acpi *acpi)
{
	struct acpi_facs facs = { .length = sizeof(facs), .version = 2 };
	size_t start;

	memcpy(facs.signature, "FACS", sizeof(facs.signature));
	acpi_align(acpi, 64);
	start = acpi->len;
	acpi_append(acpi, &facs, sizeof(facs));
	return acpi_gpa(start);
}

static struct acpi_address acpi_port(uint16_t port, uint8_t bytes,
				     uint8_t access)
{
	return (struct acpi_address){
		.space = SPACE_IO,
		.bit_width = (uint8_t)(bytes * 8),
		.access = access,
		.address = port,
	};
}

static void acpi_add_fadt(struct acpi *acpi, uint64_t facs, uint64_t dsdt)
{
	const struct acpi_fadt fadt = {
		.header = acpi_header("FACP", FADT_REVISION),
		.facs = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.x_dsdt = dsdt,
		.sci_int = GSI_SCI,
		.pm1a_evt_blk = PORT_PM1A_EVENT,
		.pm1a_cnt_blk = PORT_PM1A_CONTROL,
		.pm_tmr_blk = PORT_PM_TIMER,
		.pm1_evt_len = PORT_PM1A_EVENT_LEN,
		.pm1_cnt_len = PORT_PM1A_CONTROL_LEN,
		.pm_tmr_len = PORT_PM_TIMER_LEN,
		.p_lvl2_lat = FADT_NO_C2,
		.p_lvl3_lat = FADT_NO_C3,
		.century = CMOS_CENTURY,
		.iapc_boot_arch =
			BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON |
			 FADT_NO_FIXED_RTC | FADT_TIMER_32_BITS |
			 FADT_RESET_REG,
		.reset_reg = acpi_port(PORT_RESET, 1, 1),
		.reset_value = RESET_HARD,
		.minor_version = FADT_MINOR,
		.x_pm1a_evt_blk =
			acpi_port(PORT_PM1A_EVENT, PORT_PM1A_EVENT_LEN, 2),
		.x_pm1a_cnt_blk =
			acpi_port(PORT_PM1A_CONTROL, PORT_PM1A_CONTROL_LEN, 2),
		.x_pm_tmr_blk = acpi_port(PORT_PM_TIMER, PORT_PM_TIMER_LEN, 3),
	};
	size_t start;

	acpi_align(acpi, 8);
	start = acpi->len;
	acpi_append(acpi, &fadt, sizeof(fadt));
	acpi_finish(acpi, start);
	acpi_list(acpi, start);
}

static void acpi_add_madt_cpus(struct acpi *acpi, uint32_t cpus)
{
	for (uint32_t i = 0; i < cpus; i++) {
		const struct madt_local_apic cpu = {
			.type = MADT_LOCAL_APIC,
			.length = sizeof(cpu),
			.uid = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = MADT_CPU_ENABLED,
		};

		acpi_append(acpi, &cpu, sizeof(cpu));
	}
}

static void acpi_add_madt(struct acpi *acpi, uint32_t cpus)
{
	const struct acpi_madt madt = {
		.header = acpi_header("APIC", MADT_REVISION),
		.local_apic = LAYOUT_LOCAL_APIC,
		.flags = MADT_PCAT_COMPAT,
	};
	const struct madt_ioapic ioapic = {
		.type = MADT_IOAPIC,
		.length = sizeof(ioapic),
		.address = LAYOUT_IOAPIC,
	};
	/* ISA lines are edge-triggered unless something else is said. */
	const struct madt_override sci = {
		.type = MADT_OVERRIDE,
		.length = sizeof(sci),
		.source = GSI_SCI,
		.gsi = GSI_SCI,
		.flags = MADT_LEVEL_HIGH,
	};
	const struct madt_nmi nmi = {
		.type = MADT_NMI,
		.length = sizeof(nmi),
		.uid = MADT_ALL_CPUS,
		.lint = 1,
	};
	size_t start;

	acpi_align(acpi, 8);
	start = acpi->len;
	acpi_append(acpi, &madt, sizeof(madt));
	acpi_add_madt_cpus(acpi, cpus);
	acpi_append(acpi, &ioapic, sizeof(ioapic));
	acpi_append(acpi, &sci, sizeof(sci));
	acpi_append(acpi, &nmi, sizeof(nmi));
	acpi_finish(acpi, start);
	acpi_list(acpi, start);
}

static void acpi_add_mcfg(struct acpi *acpi)
{
	const struct acpi_mcfg mcfg = {
		.header = acpi_header("MCFG", 1),
		.ecam = LAYOUT_PCI_ECAM,
	};
	size_t start;

	acpi_align(acpi, 8);
	start = acpi->len;
	acpi_append(acpi, &mcfg, sizeof(mcfg));
	acpi_finish(acpi, start);
	acpi_list(acpi, start);
}

/* Section 5.2.8. */
static uint64_t acpi_add_xsdt(struct acpi *acpi)
{
	const struct acpi_header header = acpi_header("XSDT", 1);
	size_t start;

	acpi_align(acpi, 8);
	start = acpi->len;
	acpi_append(acpi, &header, sizeof(header));
	acpi_append(acpi, acpi->tables,
		    acpi->ntables * sizeof(acpi->tables[0]));
	acpi_finish(acpi, start);
	return acpi_gpa(start);
}

static void acpi_fill_rsdp(struct acpi *acpi, uint64_t xsdt)
{
	struct acpi_rsdp rsdp = {
		.revision = 2,
		.length = sizeof(rsdp),
		.xsdt = xsdt,
	};

	memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
	memcpy(rsdp.oem_id, "GODWIT", sizeof(rsdp.oem_id));
	rsdp.checksum = acpi_checksum(&rsdp, RSDP_V1_LENGTH);
	rsdp.extended_checksum = acpi_checksum(&rsdp, sizeof(rsdp));
	memcpy(acpi->data, &rsdp, sizeof(rsdp));
}

int acpi_build(struct memory *mem, uint32_t cpus, uint64_t *ret_rsdp,
	       struct error *err)
{
	struct acpi *acpi = calloc(1, sizeof(*acpi));
	uint64_t facs, dsdt;
	int code;

	if (!acpi)
		return error_set(err, -ENOMEM, "ACPI tables: %s",
				 strerror(ENOMEM));
	acpi->len = sizeof(struct acpi_rsdp);
	facs = acpi_add_facs(acpi);
	dsdt = acpi_add_dsdt(acpi, cpus);
	acpi_add_fadt(acpi, facs, dsdt);
	acpi_add_madt(acpi, cpus);
	acpi_add_mcfg(acpi);
	acpi_fill_rsdp(acpi, acpi_add_xsdt(acpi));
	if (acpi->full) {
		code = error_set(err, -ENOSPC,
				 "ACPI tables: those of %u CPUs are larger "
				 "than %llu KiB",
				 cpus, LAYOUT_ACPI_SIZE / KIB);
	} else {
		code = memory_write(mem, LAYOUT_ACPI, acpi->data, acpi->len);
		assert(!code); /* memory begins with MEMORY_MIN bytes at 0 */
	}
	free(acpi);
	*ret_rsdp = LAYOUT_ACPI;
	return code;
}
