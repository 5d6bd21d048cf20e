/* SPDX-License-Identifier: MIT */
/*
 * Points about the UART that also carries the announcements. National
 * Semiconductor PC16550D data sheet.
 */
#include "sync.h"

#define UART_DATA 0x3f8
#define UART_IER  0x3f9
#define UART_FCR  0x3fa /* write */
#define UART_IIR  0x3fa /* read */
#define UART_LCR  0x3fb
#define UART_MCR  0x3fc
#define UART_LSR  0x3fd
#define UART_MSR  0x3fe
#define UART_SCR  0x3ff

#define LCR_DIVISOR	0x80
#define LCR_8N1		0x03
#define MCR_LOOPBACK	0x10
#define MCR_NORMAL	0x0b
#define LSR_READY	0x01
#define FCR_ON_CLEAR	0x07
#define FCR_TRIGGER_4	0x40
#define IER_RECEIVED	0x01
#define IIR_CAUSE	0x0f
#define IIR_FIFO	0xc0
#define DEFAULT_DIVISOR 1

static uint16_t divisor(void)
{
	uint8_t lcr = inb(UART_LCR);
	uint16_t value;

	outb(UART_LCR, lcr | LCR_DIVISOR);
	value = inb(UART_DATA);
	value = (uint16_t)(value | inb(UART_IER) << 8);
	outb(UART_LCR, lcr);
	return value;
}

static void set_divisor(uint16_t value, uint8_t lcr)
{
	outb(UART_LCR, lcr | LCR_DIVISOR);
	outb(UART_DATA, (uint8_t)value);
	outb(UART_IER, (uint8_t)(value >> 8));
	outb(UART_LCR, lcr);
}

static void uart_defaults(void)
{
	set_divisor(DEFAULT_DIVISOR, LCR_8N1);
	outb(UART_IER, 0);
	outb(UART_FCR, 0);
	outb(UART_MCR, MCR_NORMAL);
}

/* Interrupts are enabled in the UART, but the IOAPIC and the PIC mask them. */
void point_uart_registers(void)
{
	serial_drain();
	/* 8 bits, even parity, two stop bits; another speed, still fast. */
	set_divisor(3, 0x1f);
	outb(UART_FCR, FCR_ON_CLEAR | FCR_TRIGGER_4);
	outb(UART_IER, 0x0d);
	outb(UART_MCR, 0x0a);
	outb(UART_SCR, 0x5a);
	sync_wait();
	sync_check("LCR", 0x1f, inb(UART_LCR));
	sync_check("divisor", 3, divisor());
	sync_check("IER", 0x0d, inb(UART_IER));
	sync_check("MCR", 0x0a, inb(UART_MCR));
	sync_check("SCR", 0x5a, inb(UART_SCR));
	sync_check("FIFO on", IIR_FIFO, inb(UART_IIR) & IIR_FIFO);
	uart_defaults();
}

/* A cause that is pending and not yet read: "transmitter empty". */
void point_uart_interrupt(void)
{
	outb(UART_MCR, MCR_NORMAL);
	outb(UART_IER, 0x02);
	sync_wait();
	sync_check("IIR", 0x02, inb(UART_IIR) & IIR_CAUSE);
	sync_check("IIR once read", 0x01, inb(UART_IIR) & IIR_CAUSE);
	uart_defaults();
}

/* "abcde" to ourselves; two of them are read. */
static void loop_back(void)
{
	serial_drain();
	outb(UART_FCR, FCR_ON_CLEAR | FCR_TRIGGER_4);
	outb(UART_MCR, MCR_LOOPBACK | MCR_NORMAL);
	for (char c = 'a'; c <= 'e'; c++) {
		serial_putc(c);
		serial_drain();
	}
	(void)inb(UART_DATA);
	(void)inb(UART_DATA);
}

/*
 * Holds hold_ms in loopback. Nothing may be printed there, so what is read is
 * checked afterwards. A byte that comes from outside meanwhile may be kept by
 * the machine, behind the three, or be lost.
 */
void point_uart_loopback(void)
{
	uint8_t before, msr, mcr, bytes[3];

	sync_announce();
	serial_drain();
	loop_back();
	before = inb(UART_MSR) & 0xf0;
	clock_delay(sync_hold_ns());
	mcr = inb(UART_MCR);
	msr = inb(UART_MSR) & 0xf0;
	for (unsigned int i = 0; i < 3; i++)
		bytes[i] = inb(UART_DATA);
	outb(UART_MCR, MCR_NORMAL);
	sync_check("MCR", MCR_LOOPBACK | MCR_NORMAL, mcr);
	sync_check("MSR", before, msr);
	for (unsigned int i = 0; i < 3; i++)
		sync_check("byte", 'c' + i, bytes[i]);
	sync_held();
	uart_defaults();
}

/*
 * Three bytes remain in the receiver, so the line status cannot show the one
 * that ends the wait: holds hold_ms. A byte that comes meanwhile queues up
 * behind the three.
 */
void point_uart_fifo(void)
{
	loop_back();
	outb(UART_MCR, MCR_NORMAL);
	outb(UART_IER, IER_RECEIVED);
	sync_announce();
	clock_delay(sync_hold_ns());
	for (uint8_t c = 'c'; c <= 'e'; c++) {
		sync_check("ready", LSR_READY, inb(UART_LSR) & LSR_READY);
		sync_check("byte", c, inb(UART_DATA));
	}
	sync_check("IER", IER_RECEIVED, inb(UART_IER));
	sync_check("FIFO on", IIR_FIFO, inb(UART_IIR) & IIR_FIFO);
	sync_held();
	uart_defaults();
}
