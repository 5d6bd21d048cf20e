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
 * table that comes later is one more function and one more entry of the XSDT; a
 * device that comes later is one more acpi_describe_*() in the DSDT.
 *
 * Spec: ACPI 6.5, PCI firmware 3.2; sections are named at each table.
 */
#include "arch/x86_64/acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "arch/x86_64/aml.h"
#include "arch/x86_64/layout.h"

#define ACPI_TABLES_MAX 4 /* that the XSDT leads to */
#define PCI_SLOTS	32
#define __packed	__attribute__((packed))

/* Section 5.2.3.2. */
struct acpi_address {
	uint8_t space;
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access; /* 1 byte, 2 word, 3 dword */
	uint64_t address;
} __packed;

#define SPACE_IO 1

/* Section 5.2.5.3. */
struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum; /* of all */
	uint8_t reserved[3];
} __packed;

#define RSDP_V1_LENGTH 20

/* Section 5.2.6. */
struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __packed;

/* Section 5.2.10. */
struct acpi_facs {
	char signature[4];
	uint32_t length;
	uint32_t hardware_signature;
	uint32_t waking_vector;
	uint32_t global_lock;
	uint32_t flags;
	uint64_t x_waking_vector;
	uint8_t version;
	uint8_t reserved[3];
	uint32_t ospm_flags;
	uint8_t reserved2[24];
} __packed;

/* Section 5.2.9. */
struct acpi_fadt {
	struct acpi_header header;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t reserved;
	uint8_t profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable;
	uint8_t acpi_disable;
	uint8_t s4bios_req;
	uint8_t pstate_cnt;
	uint32_t pm1a_evt_blk;
	uint32_t pm1b_evt_blk;
	uint32_t pm1a_cnt_blk;
	uint32_t pm1b_cnt_blk;
	uint32_t pm2_cnt_blk;
	uint32_t pm_tmr_blk;
	uint32_t gpe0_blk;
	uint32_t gpe1_blk;
	uint8_t pm1_evt_len;
	uint8_t pm1_cnt_len;
	uint8_t pm2_cnt_len;
	uint8_t pm_tmr_len;
	uint8_t gpe0_blk_len;
	uint8_t gpe1_blk_len;
	uint8_t gpe1_base;
	uint8_t cst_cnt;
	uint16_t p_lvl2_lat;
	uint16_t p_lvl3_lat;
	uint16_t flush_size;
	uint16_t flush_stride;
	uint8_t duty_offset;
	uint8_t duty_width;
	uint8_t day_alrm;
	uint8_t mon_alrm;
	uint8_t century;
	uint16_t iapc_boot_arch;
	uint8_t reserved2;
	uint32_t flags;
	struct acpi_address reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_facs;
	uint64_t x_dsdt;
	struct acpi_address x_pm1a_evt_blk;
	struct acpi_address x_pm1b_evt_blk;
	struct acpi_address x_pm1a_cnt_blk;
	struct acpi_address x_pm1b_cnt_blk;
	struct acpi_address x_pm2_cnt_blk;
	struct acpi_address x_pm_tmr_blk;
	struct acpi_address x_gpe0_blk;
	struct acpi_address x_gpe1_blk;
	struct acpi_address sleep_control_reg;
	struct acpi_address sleep_status_reg;
	uint64_t hypervisor_vendor;
} __packed;

#define FADT_REVISION 6
#define FADT_MINOR    5
#define FADT_NO_C2    101 /* more than 100 us: there is none */
#define FADT_NO_C3    1001

#define BOOT_ARCH_LEGACY  (1U << 0) /* devices on ISA ports */
#define BOOT_ARCH_NO_VGA  (1U << 2)
#define BOOT_ARCH_NO_ASPM (1U << 4)
/* bit 1, a keyboard controller, is clear: there is only its reset pulse */

#define FADT_WBINVD	     (1U << 0)
#define FADT_PROC_C1	     (1U << 2)
#define FADT_NO_SLEEP_BUTTON (1U << 5)
#define FADT_NO_FIXED_RTC    (1U << 6)
#define FADT_TIMER_32_BITS   (1U << 8)
#define FADT_RESET_REG	     (1U << 10)
/* bit 4 is clear: the power button is fixed hardware */

/* Section 5.2.12. */
struct acpi_madt {
	struct acpi_header header;
	uint32_t local_apic;
	uint32_t flags;
} __packed;

#define MADT_REVISION	 5
#define MADT_PCAT_COMPAT 1 /* with two 8259s */

struct madt_local_apic {
	uint8_t type;
	uint8_t length;
	uint8_t uid;
	uint8_t apic_id;
	uint32_t flags;
} __packed;

struct madt_ioapic {
	uint8_t type;
	uint8_t length;
	uint8_t id;
	uint8_t reserved;
	uint32_t address;
	uint32_t gsi_base;
} __packed;

struct madt_override {
	uint8_t type;
	uint8_t length;
	uint8_t bus;
	uint8_t source;
	uint32_t gsi;
	uint16_t flags;
} __packed;

struct madt_nmi {
	uint8_t type;
	uint8_t length;
	uint8_t uid;
	uint16_t flags;
	uint8_t lint;
} __packed;

enum {
	MADT_LOCAL_APIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_NMI = 4,
};

#define MADT_CPU_ENABLED 1
#define MADT_LEVEL_HIGH	 0x000d /* MPS INTI: level, active high */
#define MADT_ALL_CPUS	 0xff

/* PCI firmware 3.2, section 4.1.2; one bus group. */
struct acpi_mcfg {
	struct acpi_header header;
	uint64_t reserved;
	uint64_t ecam;
	uint16_t segment;
	uint8_t first_bus;
	uint8_t last_bus;
	uint32_t reserved2;
} __packed;

static_assert(sizeof(struct acpi_address) == 12, "as ACPI has it");
static_assert(sizeof(struct acpi_rsdp) == 36, "as ACPI has it");
static_assert(sizeof(struct acpi_header) == 36, "as ACPI has it");
static_assert(sizeof(struct acpi_facs) == 64, "as ACPI has it");
static_assert(sizeof(struct acpi_fadt) == 276, "as ACPI has it");
static_assert(sizeof(struct acpi_madt) == 44, "as ACPI has it");
static_assert(sizeof(struct acpi_mcfg) == 60, "as PCI firmware has it");
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

/* ---- DSDT ---- */

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

/* Section 5.2.11.1. Revision 2: integers have 64 bits. */
static uint64_t acpi_add_dsdt(struct acpi *acpi, uint32_t cpus)
{
	const struct acpi_header header = acpi_header("DSDT", 2);
	size_t start = acpi->len, scope;
	struct aml aml;

	acpi_append(acpi, &header, sizeof(header));
	aml_init(&aml, acpi->data + acpi->len, sizeof(acpi->data) - acpi->len);
	scope = aml_open_scope(&aml, "\\_SB");
	acpi_describe_cpus(&aml, cpus);
	acpi_describe_legacy(&aml, "COM1", "PNP0501", PORT_SERIAL,
			     PORT_SERIAL_LEN, GSI_SERIAL);
	acpi_describe_legacy(&aml, "RTC", "PNP0B00", PORT_RTC, PORT_RTC_LEN,
			     GSI_RTC);
	acpi_describe_panic(&aml);
	acpi_describe_pci(&aml);
	acpi_describe_ecam(&aml);
	aml_close(&aml, scope);
	acpi_describe_s5(&aml);
	acpi->full |= aml.full;
	acpi->len += aml.len;
	acpi_finish(acpi, start);
	return acpi_gpa(start);
}

/* ---- the other tables ---- */

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
