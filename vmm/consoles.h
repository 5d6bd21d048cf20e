/* SPDX-License-Identifier: MIT */
/*
 * The guest's consoles on the host: a line (devices/backend/line.h) for each,
 * opened as the command line says before the sandbox closes, and given to
 * devices as they are made.
 *
 * stdio is standard input and output, byte for byte; a terminal is made raw,
 * with an escape (devices/backend/terminal.h). file: is appended to. unix:
 * listens, for one client at a time. A console that the command line doesn't
 * name, because it came with a guest, has nobody at its end but watchers.
 *
 * Threads: made and freed by the thread that owns the process, served by the
 * loop; a listener's devices ask for their lines on the migration's.
 */
#ifndef GODWIT_CONSOLES_H
#define GODWIT_CONSOLES_H

#include "devices/backend/line.h"
#include "vmm/options.h"

struct consoles;

/**
 * consoles_open() - open what @options names.
 * @leave: called on the loop's thread when the user types Ctrl-A x.
 *
 * Return: 0 or -errno with @err naming the option.
 */
int __must_check consoles_open(const struct process_options *options,
			       struct loop *loop, loop_fn *leave, void *opaque,
			       struct consoles **ret, struct error *err);

/**
 * consoles_add_devices() - `run`: a device for each --console.
 */
int __must_check consoles_add_devices(const struct consoles_options *options,
				      struct machine *machine,
				      struct error *err);

/**
 * consoles_lines() - for the VM that is made; lives as long as @consoles.
 */
const struct device_lines *consoles_lines(const struct consoles *consoles);

/**
 * consoles_expect() - another guest may come: consoles that only the one had
 * which did not come are free for this one's. No device has a line now.
 */
void consoles_expect(struct consoles *consoles);

/**
 * consoles_find() - the line of console @id; NULL: nobody has asked for it.
 */
struct line *consoles_find(struct consoles *consoles, const char *id);

/**
 * consoles_look_at_size() - the terminal that is standard input may have
 * another size.
 */
void consoles_look_at_size(struct consoles *consoles);

/**
 * consoles_served() - has every watcher heard everything?
 */
bool consoles_served(struct consoles *consoles);

/**
 * consoles_on_served() - have @fn called, on the loop's thread, whenever that
 * may have become so.
 */
void consoles_on_served(struct consoles *consoles, loop_fn *fn, void *opaque);

/**
 * consoles_end_row() - where the guest's last row on our own terminal has no
 * end, end it: before we say something there ourselves. NULL is fine.
 */
void consoles_end_row(struct consoles *consoles);

/**
 * consoles_restore() - put a terminal's settings back, early: so that what is
 * said next is seen as it should be. May be repeated; NULL is fine.
 */
void consoles_restore(struct consoles *consoles);

/**
 * consoles_free() - restore, close; the VM is gone. NULL is fine.
 */
void consoles_free(struct consoles *consoles);

#endif
