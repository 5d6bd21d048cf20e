// SPDX-License-Identifier: MIT
/*
 * The terminal backend: what the escapes do, and that the terminal is as it
 * was afterwards. The terminal is a pty, with the test as its user.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "tests/unit/unit.h"

struct tty {
	struct loop *loop;
	int user; /* the master side */
	int fd;
	struct terminal *terminal;
	pthread_t thread;
	unsigned int left;
};

static void on_leave(void *opaque)
{
	struct tty *tty = opaque;

	tty->left++;
	loop_stop(tty->loop);
}

static void tty_init(struct tty *tty)
{
	struct error err = { "" };

	memset(tty, 0, sizeof(*tty));
	tty->user = posix_openpt(O_RDWR | O_NOCTTY);
	ck_assert_int_ge(tty->user, 0);
	ck_assert_int_eq(grantpt(tty->user), 0);
	ck_assert_int_eq(unlockpt(tty->user), 0);
	tty->fd = open(ptsname(tty->user), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(tty->fd, 0);
	ck_assert_int_eq(loop_create(&tty->loop, &err), 0);
	ck_assert_msg(!terminal_create(tty->loop, tty->fd, on_leave, tty,
				       &tty->terminal, &err),
		      "%s", err.text);
}

static void *run_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static void start_loop(struct tty *tty)
{
	ck_assert_int_eq(
		pthread_create(&tty->thread, NULL, run_loop, tty->loop), 0);
}

static void tty_fini(struct tty *tty)
{
	terminal_free(tty->terminal);
	loop_free(tty->loop);
	close(tty->fd);
	close(tty->user);
}

static void expect_filtered(const char *typed, const char *want, bool leave)
{
	/* All at once, and a byte at a time: state is kept in between. */
	for (unsigned int step = 1; step <= 64; step += 63) {
		struct terminal_filter filter = { 0 };
		uint8_t out[64];
		size_t n = 0, len = strlen(typed);

		for (size_t at = 0; at < len; at += step)
			n += terminal_filter(&filter,
					     (const uint8_t *)typed + at,
					     MIN(step, len - at), out + n);
		ck_assert_uint_eq(n, strlen(want));
		ck_assert_mem_eq(out, want, n);
		ck_assert_int_eq(filter.leave, leave);
	}
}

START_TEST(terminal_takes_escapes_out_of_what_is_typed)
{
	expect_filtered("plain x h", "plain x h", false);
	expect_filtered("a\001xb", "ab", true);
	expect_filtered("a\001\001xb", "a\001xb", false);
	expect_filtered("\001\001\001\001", "\001\001", false);
	expect_filtered("\001\001\001x", "\001", true);
	expect_filtered("a\001hb", "ab", false);
	expect_filtered("a\001qb", "ab", false);
	expect_filtered("\001", "", false);
}
END_TEST

START_TEST(terminal_passes_on_raw_what_is_typed_and_leaves_when_told)
{
	struct tty tty;
	char got[16] = "";

	tty_init(&tty);
	/* Interrupt, end of file, carriage return: for the guest to know. */
	ck_assert_int_eq(write(tty.user, "ls\r\003\004\001x", 7), 7);
	loop_run(tty.loop);
	ck_assert_uint_eq(tty.left, 1);
	ck_assert_int_eq(
		read(terminal_console_in(tty.terminal), got, sizeof(got)), 5);
	ck_assert_str_eq(got, "ls\r\003\004");
	tty_fini(&tty);
}
END_TEST

START_TEST(terminal_leaves_even_when_the_guest_reads_nothing)
{
	char typed[512];
	struct tty tty;

	tty_init(&tty);
	memset(typed, 'z', sizeof(typed));
	start_loop(&tty);
	/* More than any pipe holds. */
	for (unsigned int i = 0; i < 2 * MIB / sizeof(typed); i++)
		ck_assert_int_eq(write_full(tty.user, typed, sizeof(typed)), 0);
	ck_assert_int_eq(write_full(tty.user, "\001x", 2), 0);
	pthread_join(tty.thread, NULL);
	ck_assert_uint_eq(tty.left, 1);
	tty_fini(&tty);
}
END_TEST

START_TEST(terminal_is_as_it_was_afterwards)
{
	struct termios before, raw, after;
	struct error err = { "" };
	struct terminal *again;
	struct tty tty;

	tty_init(&tty);
	ck_assert_int_eq(tcgetattr(tty.fd, &raw), 0);
	ck_assert(!(raw.c_lflag & (ECHO | ICANON | ISIG)));
	ck_assert(raw.c_oflag & OPOST);
	terminal_restore(tty.terminal);
	ck_assert_int_eq(tcgetattr(tty.fd, &before), 0);
	ck_assert_uint_eq(before.c_lflag & (ECHO | ICANON | ISIG),
			  ECHO | ICANON | ISIG);
	terminal_free(tty.terminal);
	ck_assert_int_eq(
		terminal_create(tty.loop, tty.fd, on_leave, &tty, &again, &err),
		0);
	terminal_free(again);
	ck_assert_int_eq(tcgetattr(tty.fd, &after), 0);
	ck_assert_uint_eq(after.c_iflag, before.c_iflag);
	ck_assert_uint_eq(after.c_oflag, before.c_oflag);
	ck_assert_uint_eq(after.c_cflag, before.c_cflag);
	ck_assert_uint_eq(after.c_lflag, before.c_lflag);
	ck_assert_mem_eq(after.c_cc, before.c_cc, sizeof(after.c_cc));
	tty.terminal = NULL;
	tty_fini(&tty);
}
END_TEST

START_TEST(terminal_gone_is_the_end_of_input)
{
	struct tty tty;
	char byte;

	tty_init(&tty);
	close(tty.user);
	tty.user = -1;
	start_loop(&tty);
	ck_assert_int_eq(read(terminal_console_in(tty.terminal), &byte, 1), 0);
	loop_stop(tty.loop);
	pthread_join(tty.thread, NULL);
	tty_fini(&tty);
}
END_TEST

START_TEST(terminal_refuses_what_is_none)
{
	struct error err = { "" };
	struct terminal *terminal;
	struct loop *loop;
	int fds[2];

	ck_assert_int_eq(loop_create(&loop, &err), 0);
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(
		terminal_create(loop, fds[0], on_leave, NULL, &terminal, &err),
		-ENOTTY);
	ck_assert_ptr_nonnull(strstr(err.text, "console"));
	loop_free(loop);
}
END_TEST

UNIT_SUITE("terminal", terminal_takes_escapes_out_of_what_is_typed,
	   terminal_passes_on_raw_what_is_typed_and_leaves_when_told,
	   terminal_leaves_even_when_the_guest_reads_nothing,
	   terminal_is_as_it_was_afterwards, terminal_gone_is_the_end_of_input,
	   terminal_refuses_what_is_none)
