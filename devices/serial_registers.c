// SPDX-License-Identifier: MIT
/*
 * The serial port's registers, as the guest reads and writes them; see
 * serial.c.
 */
#include <string.h>

#include "devices/serial_internal.h"

/* ---- what they say ---- */

uint32_t serial_rx_room(const struct serial_state *s)
{
	return (s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1) - s->rx_len;
}

static uint32_t serial_rx_trigger(const struct serial_state *s)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

uint8_t serial_source(const struct serial_state *s)
{
	if ((s->ier & IER_LINE) && s->overrun)
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->rx_len >= serial_rx_trigger(s))
		return IIR_RX;
	if ((s->ier & IER_RX) && s->rx_len)
		return IIR_RX_TIMEOUT;
	if (s->thre_pending)
		return IIR_THRE;
	if ((s->ier & IER_MODEM) && s->msr_delta)
		return IIR_MODEM;
	return IIR_NONE;
}

/* ---- what is done to them ---- */

/* A byte that comes back through the loop, section 8.7. */
static void serial_loop_back(struct serial_state *s, uint8_t byte)
{
	if (serial_rx_room(s)) {
		s->rx[s->rx_len++] = byte;
		return;
	}
	s->overrun = true;
	/* A full FIFO keeps what it has; the single register doesn't. */
	if (!(s->fcr & FCR_ENABLE))
		s->rx[0] = byte;
}

static void serial_transmit(struct serial *uart, uint8_t byte)
{
	struct serial_state *s = &uart->state;

	/* The line has to fall, or there is no edge when THR empties. */
	s->thre_pending = false;
	serial_drive_level(uart);
	if (s->mcr & MCR_LOOP) {
		serial_loop_back(s, byte);
		s->thre_pending = !s->tx_len && (s->ier & IER_THRE);
		return;
	}
	if (s->tx_len == SERIAL_FIFO)
		return;
	s->tx[s->tx_len++] = byte;
	serial_drain(uart);
}

static uint8_t serial_receive(struct serial_state *s)
{
	uint8_t byte;

	if (!s->rx_len)
		return 0;
	byte = s->rx[0];
	s->rx_len--;
	memmove(s->rx, s->rx + 1, s->rx_len);
	return byte;
}

static uint8_t serial_modem_lines(const struct serial_state *s)
{
	uint8_t lines = 0;

	/* The cable says: someone is there and listens. */
	if (!(s->mcr & MCR_LOOP))
		return MSR_DCD | MSR_DSR | MSR_CTS;
	lines |= s->mcr & MCR_DTR ? MSR_DSR : 0;
	lines |= s->mcr & MCR_RTS ? MSR_CTS : 0;
	lines |= s->mcr & MCR_OUT1 ? MSR_RI : 0;
	lines |= s->mcr & MCR_OUT2 ? MSR_DCD : 0;
	return lines;
}

static void serial_write_mcr(struct serial_state *s, uint8_t value)
{
	uint8_t before = serial_modem_lines(s), after, changed;

	s->mcr = value & MCR_MASK;
	after = serial_modem_lines(s);
	changed = before ^ after;
	s->msr_delta |= changed & MSR_CTS ? MSR_DCTS : 0;
	s->msr_delta |= changed & MSR_DSR ? MSR_DDSR : 0;
	s->msr_delta |= changed & MSR_DCD ? MSR_DDCD : 0;
	/* Of the ring indicator only the end counts, section 8.8. */
	s->msr_delta |= before & ~after & MSR_RI ? MSR_TERI : 0;
}

static void serial_write_ier(struct serial_state *s, uint8_t value)
{
	uint8_t changed = s->ier ^ value;

	s->ier = value & IER_MASK;
	if (changed & IER_THRE)
		s->thre_pending = (s->ier & IER_THRE) && !s->tx_len;
}

/* Section 8.5. */
static void serial_write_fcr(struct serial_state *s, uint8_t value)
{
	bool toggled = (s->fcr ^ value) & FCR_ENABLE;

	/* Without the enable bit no other bit is programmed. */
	s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	if (!(value & FCR_ENABLE))
		value = 0;
	if (toggled || (value & FCR_RX_RESET))
		s->rx_len = 0;
	if ((toggled || (value & FCR_TX_RESET)) && s->tx_len) {
		s->tx_len = 0;
		s->thre_pending = s->ier & IER_THRE;
	}
}

static uint8_t serial_read_reg(struct serial_state *s, uint64_t reg)
{
	uint8_t value = 0;

	switch (reg) {
	case REG_DATA:
		return s->lcr & LCR_DLAB ? s->dll : serial_receive(s);
	case REG_IER:
		return s->lcr & LCR_DLAB ? s->dlm : s->ier;
	case REG_IIR_FCR:
		value = serial_source(s);
		/* Being told of an empty THR is what acknowledges it. */
		if (value == IIR_THRE)
			s->thre_pending = false;
		return value | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		value |= s->rx_len ? LSR_DR : 0;
		value |= s->overrun ? LSR_OE : 0;
		value |= s->tx_len ? 0 : LSR_THRE | LSR_TEMT;
		s->overrun = false;
		return value;
	case REG_MSR:
		value = serial_modem_lines(s) | s->msr_delta;
		s->msr_delta = 0;
		return value;
	default:
		return s->scr;
	}
}

static void serial_write_reg(struct serial *uart, uint64_t reg, uint8_t value)
{
	struct serial_state *s = &uart->state;

	switch (reg) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->dll = value;
		else
			serial_transmit(uart, value);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB)
			s->dlm = value;
		else
			serial_write_ier(s, value);
		break;
	case REG_IIR_FCR:
		serial_write_fcr(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		serial_write_mcr(s, value);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	default: /* LSR and MSR are for factory tests: not ours to have */
		break;
	}
}

/* A wide access to 8-bit registers is one access each, ascending. */
static void serial_read(void *opaque, uint64_t offset, void *data,
			unsigned int size)
{
	struct serial *uart = opaque;
	uint8_t *bytes = data;

	for (unsigned int i = 0; i < size; i++) {
		bytes[i] = serial_read_reg(&uart->state, offset + i);
		if (offset + i == REG_DATA)
			serial_refill(uart);
		serial_settle(uart);
	}
}

static void serial_write(void *opaque, uint64_t offset, const void *data,
			 unsigned int size)
{
	struct serial *uart = opaque;
	const uint8_t *bytes = data;

	for (unsigned int i = 0; i < size; i++) {
		serial_write_reg(uart, offset + i, bytes[i]);
		serial_settle(uart);
	}
}

const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
};
