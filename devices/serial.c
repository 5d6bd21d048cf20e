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
 * Here are the host's side and the life of the device; what the guest reads and
 * writes is in serial_registers.c.
 *
 * Threads: vCPUs through the bus, the loop; one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/backend/line.h"
#include "devices/serial_internal.h"
#include "vmm/irq.h"
#include "vmm/loop.h"

void serial_drive_level(struct serial *uart)
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

void serial_drain(struct serial *uart)
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

void serial_settle(struct serial *uart)
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

void serial_refill(struct serial *uart)
{
	const struct serial_state *s = &uart->state;

	if (!s->rx_len && !(s->ier & IER_RX))
		serial_take_input(uart);
}

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
