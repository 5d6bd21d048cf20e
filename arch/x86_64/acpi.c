// SPDX-License-Identifier: MIT
/*
 * The ACPI tables; see acpi.h.
 */
#include "arch/x86_64/acpi.h"

int acpi_build(struct memory *mem __maybe_unused, uint32_t cpus __maybe_unused,
	       uint64_t *ret_rsdp, struct error *err __maybe_unused)
{
	*ret_rsdp = 0;
	return 0;
}
