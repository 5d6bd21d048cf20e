/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables: how a guest learns of its processors, interrupt
 * controllers, power management and the devices that can't be enumerated.
 */
#ifndef GODWIT_X86_64_ACPI_H
#define GODWIT_X86_64_ACPI_H

#include "vmm/memory.h"

/**
 * acpi_build() - write all tables into the BIOS area of guest memory.
 * @cpus: 1 to ARCH_CPUS_MAX; APIC ids are 0 to @cpus - 1.
 * @ret_rsdp: gets the guest address of the RSDP.
 *
 * Return: 0, or -ENOSPC with @err when they don't fit.
 */
int __must_check acpi_build(struct memory *mem, uint32_t cpus,
			    uint64_t *ret_rsdp, struct error *err);

#endif
