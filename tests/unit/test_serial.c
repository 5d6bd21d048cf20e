// SPDX-License-Identifier: MIT
/*
 * The serial port as a guest and as the host sees it: registers, interrupts,
 * and above all that no byte is lost, to a stalled reader or to a move.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arch/x86_64/layout.h"
#include "devices/serial.h"
#include "tests/unit/device_rig.h"

#define DATA (PORT_SERIAL + 0)
#define IER  (PORT_SERIAL + 1)
#define IIR  (PORT_SERIAL + 2)
#define FCR  (PORT_SERIAL + 2)
#define LCR  (PORT_SERIAL + 3)
#define MCR  (PORT_SERIAL + 4)
#define LSR  (PORT_SERIAL + 5)
#define MSR  (PORT_SERIAL + 6)
#define SCR  (PORT_SERIAL + 7)

#define LSR_EMPTY 0x60 /* THRE and TEMT */

/* The host's ends of the console. */
struct console {
	int type; /* what is written here the guest reads */
	int show; /* what the guest writes is read here */
	int out;  /* the guest's end, to fill */
	int in;	  /* the other one, to look into */
};

/* A port on two pipes, running. */
static struct device_rig *port_new(struct console *console)
{
	struct device_rig *rig = rig_new();
	int in[2], out[2];

	ck_assert_int_eq(pipe(in), 0);
	ck_assert_int_eq(pipe(out), 0);
	rig_give_console(rig, in[0], out[1]);
	*console = (struct console){ in[1], out[0], out[1], in[0] };
	rig_create(rig, "serial");
	RIG_OP(rig, resume);
	return rig;
}

static void send_text(struct device_rig *rig, const char *text)
{
	for (; *text; text++)
		out8(rig, DATA, (uint8_t)*text);
}

static void type_text(const struct console *console, const char *text)
{
	ck_assert_int_eq(write(console->type, text, strlen(text)),
			 (ssize_t)strlen(text));
}

static void expect_shown(const struct console *console, const char *text)
{
	char shown[256] = "";

	ck_assert_int_eq(read_full(console->show, shown, strlen(text)), 0);
	ck_assert_str_eq(shown, text);
}

static int waiting_in(int fd)
{
	int n = 0;

	ck_assert_int_eq(ioctl(fd, FIONREAD, &n), 0);
	return n;
}

/* Fill the output pipe to the brim, as a reader that has stalled does. */
static size_t stall(const struct console *console)
{
	int flags = fcntl(console->out, F_GETFL);
	char page[4096];
	size_t n = 0;
	ssize_t one;

	memset(page, '.', sizeof(page));
	fcntl(console->out, F_SETFL, flags | O_NONBLOCK);
	while ((one = write(console->out, page, sizeof(page))) > 0)
		n += (size_t)one;
	fcntl(console->out, F_SETFL, flags);
	return n;
}

static void drain_dots(const struct console *console, size_t n)
{
	char page[4096];

	for (; n; n -= MIN(n, sizeof(page)))
		ck_assert_int_eq(
			read_full(console->show, page, MIN(n, sizeof(page))),
			0);
}

static void wait_for_input(struct device_rig *rig)
{
	while (!(in8(rig, LSR) & 1))
		sched_yield();
}

START_TEST(serial_hands_each_byte_to_the_host_in_the_write_that_sends_it)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	/* No loop runs here: only the write itself can have done it. */
	out8(rig, DATA, 'a');
	ck_assert_int_eq(waiting_in(console.show), 1);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	send_text(rig, "bc");
	expect_shown(&console, "abc");
	rig_free(rig);
}
END_TEST

START_TEST(serial_looks_like_a_16550a_to_a_driver_that_probes)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	ck_assert_uint_eq(in8(rig, IIR), 0x01);
	out8(rig, FCR, 0x01);
	ck_assert_uint_eq(in8(rig, IIR), 0xc1);
	out8(rig, FCR, 0x00);
	ck_assert_uint_eq(in8(rig, IIR), 0x01);
	out8(rig, SCR, 0x5a);
	ck_assert_uint_eq(in8(rig, SCR), 0x5a);
	out8(rig, IER, 0xff);
	ck_assert_uint_eq(in8(rig, IER), 0x0f);
	out8(rig, MCR, 0xef);
	ck_assert_uint_eq(in8(rig, MCR), 0x0f);
	ck_assert_uint_eq(in8(rig, MSR) & 0xf0, 0xb0);
	rig_free(rig);
}
END_TEST

START_TEST(serial_keeps_the_divisor_apart_from_the_data)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, IER, 0x05);
	out8(rig, LCR, 0x83);
	out8(rig, DATA, 0x01);
	out8(rig, IER, 0x02);
	ck_assert_uint_eq(in8(rig, DATA), 0x01);
	ck_assert_uint_eq(in8(rig, IER), 0x02);
	out8(rig, LCR, 0x03);
	ck_assert_uint_eq(in8(rig, IER), 0x05);
	ck_assert_int_eq(waiting_in(console.show), 0);
	rig_free(rig);
}
END_TEST

START_TEST(serial_splits_a_wide_access_into_registers)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, LCR, 0x80);
	out16(rig, DATA, 0x1234);
	ck_assert_uint_eq(in8(rig, DATA), 0x34);
	ck_assert_uint_eq(in8(rig, IER), 0x12);
	ck_assert_uint_eq(in16(rig, DATA), 0x1234);
	rig_free(rig);
}
END_TEST

START_TEST(serial_latches_the_empty_interrupt_until_it_is_told)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	ck_assert(!rig->line[GSI_SERIAL]);
	out8(rig, IER, 0x02);
	ck_assert(rig->line[GSI_SERIAL]);
	ck_assert_uint_eq(in8(rig, IIR), 0x02);
	ck_assert(!rig->line[GSI_SERIAL]);
	ck_assert_uint_eq(in8(rig, IIR), 0x01);
	/* Writing what it is already brings nothing back. */
	out8(rig, IER, 0x02);
	ck_assert(!rig->line[GSI_SERIAL]);
	out8(rig, IER, 0x00);
	out8(rig, IER, 0x02);
	ck_assert(rig->line[GSI_SERIAL]);
	out8(rig, IER, 0x00);
	ck_assert(!rig->line[GSI_SERIAL]);
	rig_free(rig);
}
END_TEST

START_TEST(serial_gives_an_edge_for_every_byte_it_has_sent)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, IER, 0x02);
	ck_assert_uint_eq(rig->edges[GSI_SERIAL], 1);
	/* Even when the guest never asks why. */
	send_text(rig, "abc");
	ck_assert_uint_eq(rig->edges[GSI_SERIAL], 4);
	ck_assert(rig->line[GSI_SERIAL]);
	rig_free(rig);
}
END_TEST

START_TEST(serial_loses_nothing_to_a_stalled_reader)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	size_t dots = stall(&console);

	out8(rig, FCR, 0x01);
	out8(rig, IER, 0x02);
	in8(rig, IIR);
	rig_start_loop(rig);
	send_text(rig, "sixteen bytes ok");
	ck_assert_uint_eq(in8(rig, LSR), 0);
	ck_assert(!rig->line[GSI_SERIAL]);
	ck_assert_uint_eq(in8(rig, IIR), 0xc1);
	drain_dots(&console, dots);
	expect_shown(&console, "sixteen bytes ok");
	while (in8(rig, LSR) != LSR_EMPTY)
		sched_yield();
	ck_assert(rig->line[GSI_SERIAL]);
	ck_assert_uint_eq(in8(rig, IIR), 0xc2);
	send_text(rig, "!");
	expect_shown(&console, "!");
	ck_assert_int_eq(waiting_in(console.show), 0);
	rig_free(rig);
}
END_TEST

START_TEST(
	serial_sends_a_long_text_through_a_reader_that_stalls_again_and_again)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	size_t dots = stall(&console), got = 0;
	uint32_t sent = 0;
	uint8_t bytes[4096];

	rig_start_loop(rig);
	fcntl(console.show, F_SETFL, O_NONBLOCK);
	while (got < dots + 100000) {
		ssize_t n = 0;

		/* What a driver does that looks at THRE. */
		while (sent < 100000 && (in8(rig, LSR) & 0x20))
			out8(rig, DATA, (uint8_t)sent++);
		n = read(console.show, bytes, sizeof(bytes));
		for (ssize_t i = 0; i < n; i++, got++) {
			if (got >= dots)
				ck_assert_uint_eq(bytes[i],
						  (uint8_t)(got - dots));
		}
	}
	rig_free(rig);
}
END_TEST

START_TEST(serial_goes_on_when_nobody_will_ever_read)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	close(console.show);
	send_text(rig, "into the void, more than sixteen bytes of it");
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	rig_free(rig);
}
END_TEST

START_TEST(serial_lets_go_of_pending_bytes_when_the_stalled_reader_dies)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	stall(&console);
	send_text(rig, "abc");
	ck_assert_uint_eq(in8(rig, LSR), 0);
	rig_start_loop(rig);
	close(console.show);
	while (in8(rig, LSR) != LSR_EMPTY)
		sched_yield();
	rig_free(rig);
}
END_TEST

START_TEST(serial_does_without_a_console)
{
	struct device_rig *rig = rig_new();

	rig_create(rig, "serial");
	RIG_OP(rig, resume);
	send_text(rig, "nobody listens, and that is fine");
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	rig_free(rig);
}
END_TEST

START_TEST(serial_serves_both_ways_by_one_descriptor)
{
	struct device_rig *rig = rig_new();
	char shown[4096];
	size_t dots = 0;
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	rig_give_console(rig, pair[0], pair[0]);
	rig_create(rig, "serial");
	RIG_OP(rig, resume);
	memset(shown, '.', sizeof(shown));
	while (send(pair[0], shown, sizeof(shown), MSG_DONTWAIT) > 0)
		dots += sizeof(shown);
	/* Watched both ways now. */
	send_text(rig, "out");
	ck_assert_uint_eq(in8(rig, LSR), 0);
	rig_start_loop(rig);
	for (; dots; dots -= sizeof(shown))
		ck_assert_int_eq(read_full(pair[1], shown, sizeof(shown)), 0);
	ck_assert_int_eq(read_full(pair[1], shown, 3), 0);
	ck_assert_mem_eq(shown, "out", 3);
	ck_assert_int_eq(write(pair[1], "i", 1), 1);
	wait_for_input(rig);
	ck_assert_uint_eq(in8(rig, DATA), 'i');
	rig_free(rig);
}
END_TEST

START_TEST(serial_takes_no_more_input_than_the_fifo_has_room_for)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	char got[31] = "";

	out8(rig, FCR, 0x01);
	type_text(&console, "0123456789abcdefghijklmnopqrst");
	rig_start_loop(rig);
	while (waiting_in(console.in) != 14)
		sched_yield();
	for (unsigned int i = 0; i < 30; i++) {
		wait_for_input(rig);
		got[i] = (char)in8(rig, DATA);
	}
	ck_assert_str_eq(got, "0123456789abcdefghijklmnopqrst");
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	rig_free(rig);
}
END_TEST

START_TEST(serial_has_the_next_byte_ready_for_a_guest_that_polls)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	type_text(&console, "abcd");
	rig_start_loop(rig);
	wait_for_input(rig);
	rig_stop_loop(rig);
	/* No loop runs any more: only the read itself can fetch it. */
	ck_assert_uint_eq(in8(rig, DATA), 'a');
	ck_assert_uint_eq(in8(rig, LSR) & 1, 1);
	ck_assert_uint_eq(in8(rig, DATA), 'b');
	out8(rig, IER, 0x01);
	ck_assert_uint_eq(in8(rig, DATA), 'c');
	ck_assert_uint_eq(in8(rig, LSR) & 1, 0);
	rig_free(rig);
}
END_TEST

START_TEST(serial_takes_one_byte_at_a_time_without_fifo)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	type_text(&console, "ab");
	rig_start_loop(rig);
	wait_for_input(rig);
	ck_assert_int_eq(waiting_in(console.in), 1);
	ck_assert_uint_eq(in8(rig, DATA), 'a');
	wait_for_input(rig);
	ck_assert_uint_eq(in8(rig, DATA), 'b');
	rig_free(rig);
}
END_TEST

START_TEST(serial_stops_listening_at_the_end_of_input)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	type_text(&console, "z");
	close(console.type);
	rig_start_loop(rig);
	wait_for_input(rig);
	ck_assert_uint_eq(in8(rig, DATA), 'z');
	/* The loop must come to rest: stopping it must not have to wait. */
	rig_stop_loop(rig);
	send_text(rig, "still here");
	expect_shown(&console, "still here");
	rig_free(rig);
}
END_TEST

START_TEST(serial_tells_full_enough_from_timed_out)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, FCR, 0x41); /* trigger at 4 */
	out8(rig, IER, 0x01);
	/* Through the loop, so that the test decides what is there. */
	out8(rig, MCR, 0x10);
	send_text(rig, "abc");
	ck_assert(rig->line[GSI_SERIAL]);
	ck_assert_uint_eq(in8(rig, IIR), 0xcc);
	send_text(rig, "d");
	ck_assert_uint_eq(in8(rig, IIR), 0xc4);
	for (unsigned int i = 0; i < 4; i++) {
		ck_assert_uint_eq(in8(rig, DATA), 'a' + i);
		ck_assert_uint_eq(in8(rig, IIR), i < 3 ? 0xcc : 0xc1);
	}
	ck_assert(!rig->line[GSI_SERIAL]);
	rig_free(rig);
}
END_TEST

START_TEST(serial_reports_sources_in_order_of_priority)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, MCR, 0x10);
	in8(rig, MSR);
	out8(rig, IER, 0x0f);
	send_text(rig, "ab"); /* no FIFO: the second overruns */
	out8(rig, MCR, 0x12);
	ck_assert_uint_eq(in8(rig, IIR), 0x06);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY | 0x03);
	ck_assert_uint_eq(in8(rig, IIR), 0x04);
	ck_assert_uint_eq(in8(rig, DATA), 'b');
	ck_assert_uint_eq(in8(rig, IIR), 0x02);
	ck_assert_uint_eq(in8(rig, IIR), 0x00);
	ck_assert_uint_eq(in8(rig, MSR), 0x11);
	ck_assert_uint_eq(in8(rig, IIR), 0x01);
	ck_assert(!rig->line[GSI_SERIAL]);
	rig_free(rig);
}
END_TEST

START_TEST(serial_keeps_the_fifo_and_drops_the_new_byte_on_overrun)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, FCR, 0x01);
	out8(rig, MCR, 0x10);
	send_text(rig, "0123456789abcdefX");
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY | 0x03);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY | 0x01);
	for (unsigned int i = 0; i < 16; i++)
		ck_assert_int_eq(in8(rig, DATA), "0123456789abcdef"[i]);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	rig_free(rig);
}
END_TEST

START_TEST(serial_loops_modem_lines_back_and_notes_each_change)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, MCR, 0x10);
	/* Carrier, set ready and clear to send all fell. */
	ck_assert_uint_eq(in8(rig, MSR), 0x0b);
	ck_assert_uint_eq(in8(rig, MSR), 0x00);
	out8(rig, MCR, 0x11);
	ck_assert_uint_eq(in8(rig, MSR), 0x22);
	out8(rig, MCR, 0x12);
	ck_assert_uint_eq(in8(rig, MSR), 0x13);
	out8(rig, MCR, 0x14);
	ck_assert_uint_eq(in8(rig, MSR), 0x41);
	out8(rig, MCR, 0x18);
	ck_assert_uint_eq(in8(rig, MSR), 0x8c); /* the ring's end counts */
	ck_assert_int_eq(waiting_in(console.show), 0);
	rig_free(rig);
}
END_TEST

START_TEST(serial_leaves_input_on_the_host_while_looped_back)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, MCR, 0x10);
	type_text(&console, "k");
	rig_turn_loop(rig);
	send_text(rig, "l");
	ck_assert_uint_eq(in8(rig, DATA), 'l');
	ck_assert_int_eq(waiting_in(console.in), 1);
	out8(rig, MCR, 0x00);
	rig_turn_loop(rig);
	ck_assert_uint_eq(in8(rig, DATA), 'k');
	rig_free(rig);
}
END_TEST

START_TEST(serial_clears_each_fifo_when_told_to)
{
	struct console console;
	struct device_rig *rig = port_new(&console);

	out8(rig, FCR, 0x01);
	out8(rig, MCR, 0x10);
	send_text(rig, "rx");
	out8(rig, FCR, 0x05); /* the transmitter's only */
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY | 0x01);
	out8(rig, FCR, 0x03);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	out8(rig, MCR, 0x00);
	stall(&console);
	send_text(rig, "tx");
	out8(rig, FCR, 0x03); /* the receiver's only */
	ck_assert_uint_eq(in8(rig, LSR), 0);
	out8(rig, FCR, 0x05);
	ck_assert_uint_eq(in8(rig, LSR), LSR_EMPTY);
	rig_free(rig);
}
END_TEST

START_TEST(serial_ignores_fcr_bits_that_come_without_the_enable_bit)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	struct serial_state state;

	out8(rig, FCR, 0xce);
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.fcr, 0);
	out8(rig, FCR, 0xcf);
	RIG_OP(rig, snapshot, &state);
	ck_assert_uint_eq(state.fcr, 0xc9);
	rig_free(rig);
}
END_TEST

START_TEST(serial_does_nothing_while_paused)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	unsigned int edges;

	out8(rig, IER, 0x03);
	in8(rig, IIR);
	edges = rig->edges[GSI_SERIAL];
	RIG_OP(rig, pause);
	type_text(&console, "a");
	/* As when a vCPU finishes its access while the VM is being held. */
	send_text(rig, "b");
	rig_turn_loop(rig);
	ck_assert_int_eq(waiting_in(console.in), 1);
	ck_assert_int_eq(waiting_in(console.show), 0);
	ck_assert_uint_eq(rig->edges[GSI_SERIAL], edges);
	RIG_OP(rig, resume);
	rig_start_loop(rig);
	expect_shown(&console, "b");
	wait_for_input(rig);
	ck_assert(rig->line[GSI_SERIAL]);
	rig_free(rig);
}
END_TEST

START_TEST(serial_goes_on_elsewhere_with_every_byte_and_interrupt)
{
	struct console here, there;
	struct device_rig *source = port_new(&here), *target = port_new(&there);
	struct serial_state state, loaded;

	out8(source, FCR, 0x81);
	out8(source, MCR, 0x10);
	send_text(source, "in");
	out8(source, MCR, 0x0b);
	out8(source, IER, 0x03);
	stall(&here);
	send_text(source, "out");
	RIG_OP(source, pause);
	RIG_OP(target, pause);
	RIG_OP(source, snapshot, &state);
	rig_wire(source, &state, &loaded);
	ck_assert(rig_accepts(target, &loaded));
	RIG_OP(target, commit, &loaded);
	ck_assert(!target->line[GSI_SERIAL]);
	ck_assert_int_eq(waiting_in(there.show), 0);
	RIG_OP(target, resume);
	ck_assert(target->line[GSI_SERIAL]);
	expect_shown(&there, "out");
	ck_assert_uint_eq(in8(target, IIR), 0xcc);
	ck_assert_uint_eq(in8(target, DATA), 'i');
	ck_assert_uint_eq(in8(target, DATA), 'n');
	ck_assert_uint_eq(in8(target, IIR), 0xc2);
	rig_free(source);
	rig_free(target);
}
END_TEST

static const struct serial_state full = {
	.ier = 0x0d,
	.fcr = 0xc9,
	.lcr = 0x9b,
	.mcr = 0x15,
	.scr = 0x77,
	.dll = 0x21,
	.dlm = 0x43,
	.msr_delta = 0x0a,
	.overrun = true,
	.thre_pending = false,
	.rx_len = 16,
	.rx = "received 16 byte",
	.tx_len = 15,
	.tx = "sending 15 byte",
};

START_TEST(serial_state_comes_whole_over_the_wire)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	struct serial_state back;

	ck_assert(rig_accepts(rig, &full));
	rig_wire(rig, &full, &back);
	ck_assert_uint_eq(back.ier, full.ier);
	ck_assert_uint_eq(back.fcr, full.fcr);
	ck_assert_uint_eq(back.lcr, full.lcr);
	ck_assert_uint_eq(back.mcr, full.mcr);
	ck_assert_uint_eq(back.scr, full.scr);
	ck_assert_uint_eq(back.dll, full.dll);
	ck_assert_uint_eq(back.dlm, full.dlm);
	ck_assert_uint_eq(back.msr_delta, full.msr_delta);
	ck_assert(back.overrun);
	ck_assert(!back.thre_pending);
	ck_assert_uint_eq(back.rx_len, full.rx_len);
	ck_assert_mem_eq(back.rx, full.rx, full.rx_len);
	ck_assert_uint_eq(back.tx_len, full.tx_len);
	ck_assert_mem_eq(back.tx, full.tx, full.tx_len);
	rig_free(rig);
}
END_TEST

START_TEST(serial_refuses_states_that_no_guest_can_reach)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	struct serial_state s;

#define REFUSES(field, value)                     \
	do {                                      \
		s = full;                         \
		s.field = value;                  \
		ck_assert(!rig_accepts(rig, &s)); \
	} while (0)
	REFUSES(ier, 0x10);
	REFUSES(fcr, 0xc8);
	REFUSES(fcr, 0x03);
	REFUSES(fcr, 0x00); /* and 16 bytes received */
	REFUSES(mcr, 0x20);
	REFUSES(msr_delta, 0x10);
	REFUSES(rx_len, 17);
	REFUSES(tx_len, 17);
	REFUSES(thre_pending, true);
#undef REFUSES
	s = (struct serial_state){ .thre_pending = true, .ier = 0x02 };
	ck_assert(rig_accepts(rig, &s));
	s.ier = 0x01;
	ck_assert(!rig_accepts(rig, &s));
	rig_free(rig);
}
END_TEST

START_TEST(serial_reset_is_the_state_at_power_on)
{
	struct console console;
	struct device_rig *rig = port_new(&console);
	struct serial_state fresh, state;

	memset(&fresh, 0, sizeof(fresh));
	RIG_OP(rig, pause);
	RIG_OP(rig, commit, &full);
	RIG_OP(rig, reset);
	RIG_OP(rig, snapshot, &state);
	ck_assert_mem_eq(&state, &fresh, sizeof(state));
	/* The last words before a reboot are still shown. */
	expect_shown(&console, "sending 15 byte");
	rig_free(rig);
}
END_TEST

START_TEST(serial_refuses_options_and_leaves_nothing_behind)
{
	struct device_rig *rig = rig_new();
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, "serial", "speed=9600", &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "speed=9600"));
	rig_free(rig);
}
END_TEST

START_TEST(debug_exit_ends_the_vm_with_the_byte_that_is_written)
{
	struct device_rig *rig = rig_new();
	uint32_t wide = 0xffffff2a;

	rig_create(rig, "debug-exit");
	RIG_OP(rig, resume);
	out8(rig, PORT_DEBUG_EXIT, 7);
	ck_assert_uint_eq(rig->exits, 1);
	ck_assert_uint_eq(rig->exit_status, 7);
	ck_assert(bus_write(&rig->pio, PORT_DEBUG_EXIT, &wide, sizeof(wide)));
	ck_assert_uint_eq(rig->exit_status, 0x2a);
	out8(rig, PORT_DEBUG_EXIT + 1, 9);
	ck_assert_uint_eq(rig->exits, 2);
	ck_assert_uint_ne(in8(rig, PORT_DEBUG_EXIT), 0xff);
	rig_free(rig);
}
END_TEST

START_TEST(device_table_knows_each_type_by_its_name_once)
{
	const struct device_type *type;

	for (unsigned int i = 0; (type = device_type_at(i)); i++)
		ck_assert_ptr_eq(device_type_find(type->ops->type), type);
	ck_assert_ptr_nonnull(device_type_find("serial"));
	ck_assert_ptr_null(device_type_find("serial0"));
	ck_assert_ptr_null(device_type_at(1000));
}
END_TEST

UNIT_SUITE(
	"serial", serial_hands_each_byte_to_the_host_in_the_write_that_sends_it,
	serial_looks_like_a_16550a_to_a_driver_that_probes,
	serial_keeps_the_divisor_apart_from_the_data,
	serial_splits_a_wide_access_into_registers,
	serial_latches_the_empty_interrupt_until_it_is_told,
	serial_gives_an_edge_for_every_byte_it_has_sent,
	serial_loses_nothing_to_a_stalled_reader,
	serial_sends_a_long_text_through_a_reader_that_stalls_again_and_again,
	serial_goes_on_when_nobody_will_ever_read,
	serial_lets_go_of_pending_bytes_when_the_stalled_reader_dies,
	serial_does_without_a_console,
	serial_serves_both_ways_by_one_descriptor,
	serial_takes_no_more_input_than_the_fifo_has_room_for,
	serial_has_the_next_byte_ready_for_a_guest_that_polls,
	serial_takes_one_byte_at_a_time_without_fifo,
	serial_stops_listening_at_the_end_of_input,
	serial_tells_full_enough_from_timed_out,
	serial_reports_sources_in_order_of_priority,
	serial_keeps_the_fifo_and_drops_the_new_byte_on_overrun,
	serial_loops_modem_lines_back_and_notes_each_change,
	serial_leaves_input_on_the_host_while_looped_back,
	serial_clears_each_fifo_when_told_to,
	serial_ignores_fcr_bits_that_come_without_the_enable_bit,
	serial_does_nothing_while_paused,
	serial_goes_on_elsewhere_with_every_byte_and_interrupt,
	serial_state_comes_whole_over_the_wire,
	serial_refuses_states_that_no_guest_can_reach,
	serial_reset_is_the_state_at_power_on,
	serial_refuses_options_and_leaves_nothing_behind,
	debug_exit_ends_the_vm_with_the_byte_that_is_written,
	device_table_knows_each_type_by_its_name_once)
