/* SPDX-License-Identifier: MIT */
/*
 * The inside of the ACPI tables, for acpi*.c only: how each is laid out in
 * guest memory, and what fills the DSDT.
 *
 * Spec: ACPI 6.5 where nothing else is named.
 */
#ifndef GODWIT_X86_64_ACPI_INTERNAL_H
#define GODWIT_X86_64_ACPI_INTERNAL_H

#include <assert.h>

#include "arch/x86_64/aml.h"

#define __packed __attribute__((packed))

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

/**
 * acpi_describe() - write the DSDT's terms: devices that can't be enumerated,
 * PCI, @cpus processors, S5. aml->full tells when they don't fit.
 */
void acpi_describe(struct aml *aml, uint32_t cpus);

#endif
