/* SPDX-License-Identifier: MIT */
/*
 * The guest's console on the host: two plain descriptors for the serial port,
 * and whatever stands behind them.
 *
 * stdio is standard input and output, byte for byte; a terminal is made raw,
 * with an escape (devices/backend/terminal.h). file: takes output only. unix:
 * listens, for one client at a time; what the guest says while nobody is
 * connected is dropped, as on a line without a terminal.
 *
 * Threads: made and freed by the thread that owns the process, served by the
 * loop.
 */
#ifndef GODWIT_CONSOLE_H
#define GODWIT_CONSOLE_H

#include "vmm/loop.h"
#include "vmm/options.h"

struct console;

/**
 * console_open() - open what @options names.
 * @leave: called on the loop's thread when the user types Ctrl-A x.
 *
 * Return: 0 or -errno with @err naming the option.
 */
int __must_check console_open(const struct console_options *options,
			      struct loop *loop, loop_fn *leave, void *opaque,
			      struct console **ret, struct error *err);

/**
 * console_in() / console_out() - the serial port's ends; -1 for none.
 */
int console_in(const struct console *console);
int console_out(const struct console *console);

/**
 * console_restore() - put a terminal's settings back, early: so that what is
 * said next is seen as it should be. May be repeated.
 */
void console_restore(const struct console *console);

/**
 * console_free() - restore, close; the VM is gone. NULL is fine.
 */
void console_free(struct console *console);

#endif
