/* SPDX-License-Identifier: MIT */
/*
 * A terminal as the guest's console: raw, with an escape for the user.
 *
 * It stands between the terminal and whoever wants a plain descriptor to read
 * from: what is typed goes through a filter for Ctrl-A into a pipe, whose other
 * end is the input of a console's line. So that needs to know nothing of
 * terminals, and the escape works even when the guest doesn't read.
 *
 *	Ctrl-A x	leave
 *	Ctrl-A h	say what there is
 *	Ctrl-A Ctrl-A	send Ctrl-A
 */
#ifndef GODWIT_DEVICES_BACKEND_TERMINAL_H
#define GODWIT_DEVICES_BACKEND_TERMINAL_H

#include "devices/backend/line.h"

struct terminal;

/* Where a stream of typed bytes is with its escapes; zero to begin. */
struct terminal_filter {
	bool escaped; /* the last byte was Ctrl-A */
	bool leave;   /* set by Ctrl-A x */
	bool help;    /* set by Ctrl-A h */
};

/**
 * terminal_filter() - take the escapes out of typed bytes.
 * @len: bytes at @in.
 * @out: room for @len bytes; may be @in.
 *
 * A Ctrl-A followed by anything else is dropped with what follows.
 *
 * Return: how many bytes are for the guest.
 */
size_t terminal_filter(struct terminal_filter *filter, const uint8_t *in,
		       size_t len, uint8_t *out);

/**
 * terminal_create() - make @fd raw and start filtering what is typed.
 * @fd: a terminal; it stays the caller's.
 * @leave: called on the loop's thread for Ctrl-A x.
 *
 * Output processing stays on, so that our own lines on the same terminal begin
 * at its left edge; guests send carriage returns anyway.
 *
 * Return: 0, -ENOTTY, or another -errno with @err; terminal_free() restores.
 */
int __must_check terminal_create(struct loop *loop, int fd, loop_fn *leave,
				 void *opaque, struct terminal **ret,
				 struct error *err);

/**
 * terminal_console_in() - what a console's line reads from.
 */
int terminal_console_in(const struct terminal *terminal);

/**
 * terminal_size() - of its window.
 *
 * Return: 0, or -errno when it has none.
 */
int __must_check terminal_size(const struct terminal *terminal,
			       struct line_size *ret);

/**
 * terminal_restore() - put the terminal's settings back.
 *
 * May be called more than once and from a signal handler: whoever installs
 * one for fatal signals calls this in it.
 */
void terminal_restore(const struct terminal *terminal);

/**
 * terminal_free() - restore and close; NULL is fine. The line that reads
 * terminal_console_in() is gone.
 */
void terminal_free(struct terminal *terminal);

#endif
