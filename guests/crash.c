/* SPDX-License-Identifier: MIT */
/*
 * crash: a triple fault, on purpose: an empty IDT, then an exception. A VMM
 * must call that a crash of the guest and end with its own status for it (3
 * with godwit, whether or not there is a debug exit port).
 *
 * Option: panic=yes to say so at the port of pvpanic instead, as a kernel that
 * panics does, and stand still. Verdicts: 20 if the guest is still alive
 * afterwards, 21 if there is no such port.
 */
#include "lib/guest.h"
#include "lib/insn.h"

#define PORT_PANIC  0x505
#define PANIC_EVENT 1

enum {
	VERDICT_NO_PORT = VERDICT_OWN + 1
};

static uint64_t triple_fault(uint64_t arg)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) empty = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" : : "m"(empty) : "memory");
	return arg;
}

static unsigned int panic(void)
{
	option_end();
	if (!(inb(PORT_PANIC) & PANIC_EVENT) || inb(PORT_PANIC) == 0xff)
		return VERDICT_NO_PORT;
	print("crash: panic\n");
	serial_drain();
	outb(PORT_PANIC, PANIC_EVENT);
	for (;;)
		__asm__ volatile("pause");
}

unsigned int guest_main(void)
{
	static const char *const answers[] = { "no", "yes", NULL };

	if (option_choice("panic", answers))
		return panic();
	option_end();
	print("crash: triple fault\n");
	serial_drain();
	call0(triple_fault, 0);
	return VERDICT_OWN;
}
