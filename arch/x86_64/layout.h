/* SPDX-License-Identifier: MIT */
/*
 * The PC as every guest finds it: which addresses, ports and interrupt lines
 * belong to whom. Devices, boot code and ACPI tables all take the numbers from
 * here, so that what is described is what is there. They are part of what a
 * guest can see and never change once a guest has seen them.
 *
 * The first MiB belongs to godwit and to PC tradition: kernels are loaded above
 * it. What the boot code leaves below 640 KiB is the kernel's to reuse once it
 * has read it; the ACPI tables lie in the reserved BIOS area and stay.
 */
#ifndef GODWIT_X86_64_LAYOUT_H
#define GODWIT_X86_64_LAYOUT_H

/* ---- what the boot code leaves in low memory ---- */

#define LAYOUT_GDT	     0x500ULL
#define LAYOUT_GDT_SIZE	     0x100ULL
#define LAYOUT_PVH_INFO	     0x6000ULL /* hvm_start_info, modules, map */
#define LAYOUT_PVH_INFO_SIZE 0x1000ULL
#define LAYOUT_LINUX_PARAMS  0x7000ULL /* struct boot_params, one page */
#define LAYOUT_STACK_TOP     0x8ff0ULL /* one page, below the page tables */
#define LAYOUT_PAGE_TABLES   0x9000ULL /* PML4, PDPT, 4 page directories */
#define LAYOUT_CMDLINE	     0x20000ULL
#define LAYOUT_CMDLINE_SIZE  0x10000ULL /* with the NUL */

#define LAYOUT_LOW_RAM_END 0x9fc00ULL /* where an EBDA would begin */
#define LAYOUT_VIDEO	   0xa0000ULL
#define LAYOUT_BIOS	   0xe0000ULL  /* scanned for the RSDP */
#define LAYOUT_ACPI	   LAYOUT_BIOS /* RSDP first, then the tables */
#define LAYOUT_ACPI_SIZE   0x20000ULL
#define LAYOUT_HIGH_RAM	   0x100000ULL /* kernels from here on */

/* ---- memory-mapped hardware in the hole below 4 GiB ---- */

#define LAYOUT_PCI_WINDOW      0xc0000000U /* where BARs may lie */
#define LAYOUT_PCI_WINDOW_SIZE 0x20000000U
#define LAYOUT_PCI_SLOT_SIZE   0x10000U /* of the window, a slot's first BARs */
#define LAYOUT_PCI_ECAM	       0xe0000000U /* of bus 0, the only one */
#define LAYOUT_PCI_ECAM_SIZE   0x100000U
#define LAYOUT_IOAPIC	       0xfec00000U
#define LAYOUT_LOCAL_APIC      0xfee00000U

/* ---- ports ---- */

#define PORT_I8042_COMMAND    0x64 /* only the reset pulse */
#define PORT_RTC	      0x70 /* index, data */
#define PORT_RTC_LEN	      2
#define PORT_DEBUG_EXIT	      0xf4
#define PORT_DEBUG_EXIT_LEN   4
#define PORT_SERIAL	      0x3f8
#define PORT_SERIAL_LEN	      8
#define PORT_PANIC	      0x505 /* where kernels look for pvpanic */
#define PORT_PM1A_EVENT	      0x600 /* status, enable: two words */
#define PORT_PM1A_EVENT_LEN   4
#define PORT_PM1A_CONTROL     0x604
#define PORT_PM1A_CONTROL_LEN 2
#define PORT_PM_TIMER	      0x608
#define PORT_PM_TIMER_LEN     4
#define PORT_PCI	      0xcf8 /* configuration: address, data */
#define PORT_PCI_LEN	      8
#define PORT_RESET	      0xcf9 /* a byte among those */

/* ---- values that hardware and tables must agree on ---- */

#define RESET_HARD    0x06 /* to PORT_RESET: reset system and CPU */
#define SLEEP_TYPE_S5 5	   /* SLP_TYP of soft-off */
#define PANIC_EVENT   0x01 /* PORT_PANIC: what it knows, and is told */
#define CMOS_CENTURY  0x32 /* the register that holds the century */

/* ---- interrupts: ISA line n is GSI n ---- */

#define GSI_SERIAL    4
#define GSI_RTC	      8
#define GSI_SCI	      9	 /* level, active high */
#define GSI_PCI	      16 /* INTA# of slot n is line n % GSI_PCI_COUNT of these */
#define GSI_PCI_COUNT 8

#endif
