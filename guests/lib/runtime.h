/* SPDX-License-Identifier: MIT */
/*
 * What the runtime's own files need of each other and guests do not.
 */
#ifndef GUEST_RUNTIME_H
#define GUEST_RUNTIME_H

#include "guest.h"
#include "layout.h"

/*
 * PVH boot protocol, version 1.
 * Xen: xen/include/public/arch-x86/hvm/start_info.h
 */
#define HVM_START_MAGIC 0x336ec578U

struct hvm_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t modules;
	uint64_t modules_gpa;
	uint64_t cmdline_gpa;
	uint64_t rsdp_gpa;
	uint64_t memmap_gpa;
	uint32_t memmap_entries;
	uint32_t reserved;
};

#define HVM_MEMMAP_RAM 1U

struct hvm_memmap_entry {
	uint64_t gpa;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

/* boot.S */
extern uint64_t boot_info;
extern uint64_t boot_pml4[512];
extern uint64_t boot_pdpt[512];
extern struct cpu boot_cpu;
extern struct cpu *ap_cpu;
extern const char trampoline[];
extern const char trampoline_end[];
extern char image_end[];

/* trap_entry.S */
extern const char trap_stubs[];
uint64_t gate_call0(uint64_t (*fn)(uint64_t arg), uint64_t arg);
uint64_t gate_set_if(uint64_t on);

/* called from assembly */
void cpu_setup(struct cpu *cpu);
_Noreturn void guest_start(struct cpu *cpu);
_Noreturn void ap_start(struct cpu *cpu);
void trap_dispatch(struct trap_frame *frame);

/* the order in which guest_start() calls them */
void trap_init(void);
void cmdline_init(const struct hvm_start_info *info);
void mem_init(const struct hvm_start_info *info);
void acpi_init(const struct hvm_start_info *info);
void mem_map(void);
void smp_init(struct cpu *cpu);
void clock_init(void);

/**
 * smp_add - note a CPU that the MADT lists
 */
void smp_add(uint32_t apic_id);

/**
 * pci_add_ecam - note what the MCFG says of PCI segment 0
 * @base: of the configuration space of bus 0
 */
void pci_add_ecam(uint64_t base);

/**
 * print_urgent - print() that takes no lock: for a guest that is dying
 */
void print_urgent(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * vformat - printf into a buffer
 *
 * Return: length without the ending NUL; text that does not fit is cut.
 */
size_t vformat(char *out, size_t size, const char *fmt, __builtin_va_list args);

#endif
