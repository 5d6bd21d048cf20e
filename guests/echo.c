/* SPDX-License-Identifier: MIT */
/*
 * echo: sends back every byte that it gets, for tests of the serial port and
 * of what the VMM attaches to it. Nothing else is printed between `ready` and
 * the last byte. It turns the FIFOs on: a byte at a time is slow.
 *
 * Options: bytes=N (end by itself after N; 0: never).
 */
#include "lib/guest.h"

#define UART_FCR   0x3fa
#define FCR_ENABLE 0x01

unsigned int guest_main(void)
{
	uint64_t limit = option_number("bytes", 0, UINT64_MAX);
	uint64_t count = 0;
	int c;

	option_end();
	outb(UART_FCR, FCR_ENABLE);
	print("ready\n");
	while (!limit || count < limit) {
		c = serial_poll();
		if (c < 0) {
			cpu_relax();
			continue;
		}
		serial_putc((char)c);
		count++;
	}
	print("\necho: bytes=%lu\n", count);
	return VERDICT_PASS;
}
