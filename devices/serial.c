// SPDX-License-Identifier: MIT
/*
 * The serial port: a 16550A after National Semiconductor's PC16550D datasheet,
 * whose sections are named below. It joins the guest's console to a line of the
 * host's (backend/line.h) and knows nothing of what is behind it.
 *
 * The wire is as fast as the host: a byte is out when the THR write that sent
 * it returns, received bytes come in bursts with silence behind them. So the
 * divisor latch is only remembered, and a character timeout is due at once.
 *
 * Nobody waits. A byte that the host can't take now stays in the TX FIFO with
 * THRE clear, until the line says that there is room. Bytes that the guest has
 * no room for stay on the host's side of the line. So nothing is lost, to a
 * stalled reader nor to a move, unless the guest ignores THRE, which loses
 * bytes on the real part too.
 *
 * Invariants, between any two calls:
 *   1. tx_len > 0 only while the host can't take a byte or the device is
 *      paused. LSR's THRE and TEMT are exactly tx_len == 0.
 *   2. thre_pending implies tx_len == 0 and the THRE interrupt enabled.
 *   3. The interrupt line is high exactly while IIR has a source, except while
 *      paused, when it is left alone.
 *   4. While there is room for input, the line has been asked for it since it
 *      was last told of any.
 *
 * Unlike on a PC the line isn't gated by OUT2: guests that never set it get
 * their interrupts all the same.
 *
 * Threads: vCPUs through the bus, the loop; one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/layout.h"
#include "devices/backend/line.h"
#include "devices/serial.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

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

/* ---- interrupts ---- */

static uint32_t serial_rx_room(const struct serial_state *s)
{
	return (s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1) - s->rx_len;
}

static uint32_t serial_rx_trigger(const struct serial_state *s)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* The source that IIR shows: the pending one of the highest priority. */
static uint8_t serial_source(const struct serial_state *s)
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

static void serial_drive_level(struct serial *uart)
{
	bool level = serial_source(&uart->state) != IIR_NONE;

	if (!uart->running || level == uart->level)
		return;
	uart->level = level;
	irq_set_line(uart->irq, GSI_SERIAL, level);
}

/* ---- the host's side ---- */

static bool serial_can_receive(const struct serial *uart)
{
	return uart->running && !(uart->state.mcr & MCR_LOOP) &&
	       serial_rx_room(&uart->state);
}

static void serial_drain(struct serial *uart)
{
	struct serial_state *s = &uart->state;
	uint32_t sent;

	if (!uart->running || !s->tx_len)
		return;
	sent = (uint32_t)line_put(uart->at, s->tx, s->tx_len);
	s->tx_len -= sent;
	memmove(s->tx, s->tx + sent, s->tx_len);
	if (!s->tx_len)
		s->thre_pending = s->ier & IER_THRE;
}

static void serial_take_input(struct serial *uart)
{
	struct serial_state *s = &uart->state;

	if (!serial_can_receive(uart))
		return;
	s->rx_len += (uint32_t)line_get(uart->at, s->rx + s->rx_len,
					serial_rx_room(s));
	uart->asked = serial_rx_room(s);
}

static void serial_settle(struct serial *uart)
{
	if (serial_can_receive(uart) && !uart->asked) {
		line_ask(uart->at);
		uart->asked = true;
	}
	serial_drive_level(uart);
}

static void serial_on_news(void *opaque, uint32_t events __maybe_unused)
{
	struct serial *uart = opaque;

	line_take_news(uart->at);
	uart->asked = false;
	serial_drain(uart);
	serial_take_input(uart);
	serial_settle(uart);
}

/*
 * A guest that polls has taken the last byte: it gets more at once if there is
 * more, rather than by way of the loop's thread, a few bytes each time. One
 * that waits for interrupts gets one, and must not be kept in its handler.
 */
static void serial_refill(struct serial *uart)
{
	const struct serial_state *s = &uart->state;

	if (!s->rx_len && !(s->ier & IER_RX))
		serial_take_input(uart);
}

/* ---- the guest's side ---- */

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

static const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
};

/* ---- the device ---- */

static struct serial *to_serial(struct device *dev)
{
	return container_of(dev, struct serial, dev);
}

static void serial_visit(struct codec *c, void *state)
{
	struct serial_state *s = state;

	codec_u8(c, "ier", &s->ier);
	codec_u8(c, "fcr", &s->fcr);
	codec_u8(c, "lcr", &s->lcr);
	codec_u8(c, "mcr", &s->mcr);
	codec_u8(c, "scr", &s->scr);
	codec_u8(c, "dll", &s->dll);
	codec_u8(c, "dlm", &s->dlm);
	codec_u8(c, "msr_delta", &s->msr_delta);
	codec_bool(c, "overrun", &s->overrun);
	codec_bool(c, "thre_pending", &s->thre_pending);
	codec_blob(c, "rx", s->rx, &s->rx_len, SERIAL_FIFO);
	codec_blob(c, "tx", s->tx, &s->tx_len, SERIAL_FIFO);
}

static void serial_snapshot(struct device *dev, void *state)
{
	*(struct serial_state *)state = to_serial(dev)->state;
}

static int serial_check(struct device *dev, const void *state,
			struct error *err)
{
	const struct serial_state *s = state;
	uint32_t rx_max = s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;

	if (s->ier & ~IER_MASK)
		return error_set(err, -EINVAL,
				 "%s: ier 0x%02x has bits that "
				 "are always 0",
				 dev->id, s->ier);
	if (s->fcr & ~FCR_KEPT || (s->fcr && !(s->fcr & FCR_ENABLE)))
		return error_set(err, -EINVAL,
				 "%s: fcr 0x%02x can't be "
				 "programmed",
				 dev->id, s->fcr);
	if (s->mcr & ~MCR_MASK)
		return error_set(err, -EINVAL,
				 "%s: mcr 0x%02x has bits that "
				 "are always 0",
				 dev->id, s->mcr);
	if (s->msr_delta & ~MSR_DELTAS)
		return error_set(err, -EINVAL,
				 "%s: msr_delta 0x%02x is more "
				 "than 4 bits",
				 dev->id, s->msr_delta);
	if (s->rx_len > rx_max)
		return error_set(err, -EINVAL, "%s: rx_len %u, room is for %u",
				 dev->id, s->rx_len, rx_max);
	if (s->tx_len > SERIAL_FIFO)
		return error_set(err, -EINVAL, "%s: tx_len %u, room is for %u",
				 dev->id, s->tx_len, SERIAL_FIFO);
	if (s->thre_pending && (s->tx_len || !(s->ier & IER_THRE)))
		return error_set(err, -EINVAL,
				 "%s: thre_pending with %u bytes "
				 "to send and ier 0x%02x",
				 dev->id, s->tx_len, s->ier);
	return 0;
}

static void serial_commit(struct device *dev, const void *state)
{
	to_serial(dev)->state = *(const struct serial_state *)state;
}

static void serial_pause(struct device *dev)
{
	struct serial *uart = to_serial(dev);

	uart->running = false;
}

static void serial_resume(struct device *dev)
{
	struct serial *uart = to_serial(dev);

	uart->running = true;
	serial_drain(uart);
	/* The interrupt controller may be another one than at pause. */
	uart->level = serial_source(&uart->state) != IIR_NONE;
	irq_set_line(uart->irq, GSI_SERIAL, uart->level);
	serial_settle(uart);
}

/* Master reset, section 8.0, table III. */
static void serial_reset(struct device *dev)
{
	struct serial *uart = to_serial(dev);
	struct serial_state *s = &uart->state;

	/* The last words before a reboot are worth a try. */
	(void)line_put(uart->at, s->tx, s->tx_len);
	*s = (struct serial_state){ 0 };
}

static void serial_free(struct device *dev)
{
	struct serial *uart = to_serial(dev);

	loop_fd_remove(uart->news);
	if (uart->claimed)
		bus_remove(uart->pio, PORT_SERIAL);
	device_fini(dev);
	free(uart);
}

const struct device_ops serial_ops = {
	.type = "serial",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct serial_state),
	.visit = serial_visit,
	.snapshot = serial_snapshot,
	.check = serial_check,
	.commit = serial_commit,
	.pause = serial_pause,
	.resume = serial_resume,
	.reset = serial_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = serial_free,
};

int serial_create(const struct device_env *env,
		  const struct device_config *config, struct device **ret,
		  struct error *err)
{
	struct serial *uart;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: a serial port takes no options, got "
				 "\"%s\"",
				 config->id, config->options);
	uart = calloc(1, sizeof(*uart));
	if (!uart)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	device_init(&uart->dev, &serial_ops, config->id);
	uart->pio = env->pio;
	uart->irq = env->irq;
	code = device_open_line(env, config->id, &uart->at, err);
	if (!code)
		code = line_watch_news(uart->at, env->loop, serial_on_news,
				       uart, &uart->dev.lock, &uart->news, err);
	if (code)
		goto fail;
	code = bus_add(env->pio,
		       &(struct bus_range){
			       .base = PORT_SERIAL,
			       .len = PORT_SERIAL_LEN,
			       .name = "serial",
			       .ops = &serial_bus_ops,
			       .opaque = uart,
			       .lock = &uart->dev.lock,
		       },
		       err);
	if (code)
		goto fail;
	uart->claimed = true;
	*ret = &uart->dev;
	return 0;
fail:
	serial_free(&uart->dev);
	return code;
}
