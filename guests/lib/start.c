/* SPDX-License-Identifier: MIT */
/*
 * From the first instruction in ring 3 to guest_main(), and the end.
 *
 * The order matters in one place: the command line, the memory map and the
 * ACPI tables are read before anything is allocated, since the loader may
 * have put them into memory that the allocator hands out.
 */
#include <stdarg.h>

#include "runtime.h"

#define DEBUG_EXIT_PORT 0xf4
#define PIC1_MASK	0x21
#define PIC2_MASK	0xa1

_Noreturn void guest_start(struct cpu *cpu)
{
	const struct hvm_start_info *info;

	info = (const struct hvm_start_info *)boot_info;
	trap_init();
	outb(PIC1_MASK, 0xff);
	outb(PIC2_MASK, 0xff);
	if (info->magic != HVM_START_MAGIC)
		guest_fail(VERDICT_MACHINE, "no PVH start info at 0x%lx\n",
			   boot_info);
	cmdline_init(info);
	mem_init(info);
	acpi_init(info);
	mem_map();
	lapic_enable();
	smp_init(cpu);
	clock_init();
	guest_exit(guest_main());
}

static _Noreturn uint64_t halt_for_good(uint64_t arg)
{
	(void)arg;
	for (;;)
		__asm__ volatile("cli; hlt" : : : "memory");
}

_Noreturn void guest_exit(unsigned int verdict)
{
	print_urgent("verdict %u\n", verdict);
	serial_drain();
	outb(DEBUG_EXIT_PORT, (uint8_t)verdict);
	call0(halt_for_good, 0);
	__builtin_unreachable();
}

_Noreturn void guest_fail(unsigned int verdict, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vformat(text, sizeof(text), fmt, args);
	va_end(args);
	print_urgent("%s", text);
	guest_exit(verdict);
}
