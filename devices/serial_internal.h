/* SPDX-License-Identifier: MIT */
/*
 * The inside of the serial port, for serial*.c only: its registers' bits, and
 * what the host's side and the guest's have of each other.
 *
 * Section numbers are the PC16550D datasheet's. All of it is under the device's
 * lock.
 */
#ifndef GODWIT_DEVICES_SERIAL_INTERNAL_H
#define GODWIT_DEVICES_SERIAL_INTERNAL_H

#include "arch/x86_64/layout.h"
#include "devices/serial.h"
#include "vmm/bus.h"

/* Registers, datasheet section 8.0, table II. */
enum {
	REG_DATA = 0, /* RBR, THR; DLL with DLAB */
	REG_IER = 1,  /* DLM with DLAB */
	REG_IIR_FCR = 2,
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

#define IER_RX	  0x01
#define IER_THRE  0x02
#define IER_LINE  0x04
#define IER_MODEM 0x08
#define IER_MASK  0x0f

/* IIR: the sources in order of priority, table IV. */
#define IIR_LINE       0x06
#define IIR_RX	       0x04
#define IIR_RX_TIMEOUT 0x0c
#define IIR_THRE       0x02
#define IIR_MODEM      0x00
#define IIR_NONE       0x01
#define IIR_FIFO       0xc0

#define FCR_ENABLE   0x01
#define FCR_RX_RESET 0x02
#define FCR_TX_RESET 0x04
#define FCR_KEPT     0xc9 /* enable, DMA mode, trigger */

#define LCR_DLAB 0x80

#define MCR_DTR	 0x01
#define MCR_RTS	 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR	 0x01
#define LSR_OE	 0x02
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_DCTS   0x01
#define MSR_DDSR   0x02
#define MSR_TERI   0x04
#define MSR_DDCD   0x08
#define MSR_DELTAS 0x0f
#define MSR_CTS	   0x10
#define MSR_DSR	   0x20
#define MSR_RI	   0x40
#define MSR_DCD	   0x80

struct serial {
	struct device dev;
	struct bus *pio;
	struct irq *irq;
	struct line *at; /* the other end of the cable; NULL: none */
	struct loop_fd *news;
	bool claimed; /* the ports are on the bus */
	bool running; /* not paused */
	bool asked;   /* the line will tell of input */
	bool level;   /* what the interrupt line was last driven to */
	struct serial_state state;
};

/* ---- serial.c ---- */

/**
 * serial_drive_level() - drive the interrupt line as IIR has it, unless paused.
 */
void serial_drive_level(struct serial *uart);

/**
 * serial_drain() - give the line what it takes of the TX FIFO.
 */
void serial_drain(struct serial *uart);

/**
 * serial_refill() - the guest has taken a byte; was it the last one?
 *
 * A guest that polls gets more at once if there is more, rather than by way of
 * the loop's thread, a few bytes each time. One that waits for interrupts gets
 * one, and must not be kept in its handler.
 */
void serial_refill(struct serial *uart);

/**
 * serial_settle() - whatever has happened, make invariants 3 and 4 true again.
 */
void serial_settle(struct serial *uart);

/* ---- serial_registers.c ---- */

/* Of the bus range whose opaque is the struct serial. */
extern const struct bus_ops serial_bus_ops;

/**
 * serial_rx_room() - how many bytes the RX FIFO, or RBR without it, takes.
 */
uint32_t serial_rx_room(const struct serial_state *s);

/**
 * serial_source() - what IIR shows: the pending source of the highest priority.
 */
uint8_t serial_source(const struct serial_state *s);

#endif
