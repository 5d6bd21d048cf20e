/* SPDX-License-Identifier: MIT */
/*
 * The 16550 at 0x3f8, polled: it needs no interrupt and works in any ring,
 * also while interrupts are what is being tested. Its line settings are left
 * as they are; guests that test the UART itself program it on their own.
 */
#include "guest.h"

#define UART_DATA 0x3f8
#define UART_LSR  0x3fd

#define LSR_DATA_READY	      0x01
#define LSR_HOLDING_EMPTY     0x20
#define LSR_TRANSMITTER_EMPTY 0x40

void serial_putc(char c)
{
	while (!(inb(UART_LSR) & LSR_HOLDING_EMPTY))
		cpu_relax();
	outb(UART_DATA, (uint8_t)c);
}

int serial_poll(void)
{
	if (!(inb(UART_LSR) & LSR_DATA_READY))
		return -1;
	return inb(UART_DATA);
}

void serial_drain(void)
{
	while (!(inb(UART_LSR) & LSR_TRANSMITTER_EMPTY))
		cpu_relax();
}
