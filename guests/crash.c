/* SPDX-License-Identifier: MIT */
/*
 * crash: a triple fault, on purpose: an empty IDT, then an exception. A VMM
 * must call that a crash of the guest and end with its own status for it (3
 * with godwit, whether or not there is a debug exit port).
 *
 * Options: none. Verdicts: 20 if the guest is still alive afterwards.
 */
#include "lib/guest.h"

static uint64_t triple_fault(uint64_t arg)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) empty = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" : : "m"(empty) : "memory");
	return arg;
}

unsigned int guest_main(void)
{
	option_end();
	print("crash: triple fault\n");
	serial_drain();
	call0(triple_fault, 0);
	return VERDICT_OWN;
}
