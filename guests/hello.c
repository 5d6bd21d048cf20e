/* SPDX-License-Identifier: MIT */
/*
 * hello: says what machine it is on, and ends. The shortest guest, and the
 * one to copy.
 *
 * Options: exit=N (verdict, default 0), spin=yes (loop for good instead, a
 * guest that never answers). Other words on the command line are welcome:
 * the greeting repeats them.
 */
#include "lib/guest.h"

static const char *const no_yes[] = { "no", "yes", NULL };

unsigned int guest_main(void)
{
	print("hello: cmdline=\"%s\" memory=%lu MiB cpus=%u\n", cmdline(),
	      (mem_total() + 0xfffff) >> 20, cpu_count());
	while (option_choice("spin", no_yes))
		cpu_relax();
	return (unsigned int)option_number("exit", VERDICT_PASS, 123);
}
