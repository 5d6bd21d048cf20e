/* SPDX-License-Identifier: MIT */
/*
 * A line: what a guest's console, the serial port's or a virtio one, is
 * connected to on the host.
 *
 * A line has an end, whose pace is the guest's: standard input and output, a
 * file, one client of a socket, or nobody. When the end takes no more, neither
 * does the line, and the guest waits; so nothing is lost to a reader that
 * stalls, and nothing is kept for him. What the guest says while nobody is
 * there is dropped, as on a line without a terminal.
 *
 * And it has watchers, who come and go (`godwit console`). They hold nobody up:
 * what is said goes into a buffer of fixed size, the scroll-back, and one who
 * falls behind by all of it is hung up on. Who says from which byte on he wants
 * to hear knows whether he has missed any: bytes are counted from the line's
 * first.
 *
 * Everyone may type. It is not read before the guest wants it, but for what a
 * terminal does (terminal.h): so it waits on the host's side.
 *
 * The device is told by an eventfd that there is news: something was typed,
 * there is room again, or the size is another. It looks at all three then. Of
 * input it is told only after it has asked for some, by line_ask() or by a
 * line_get() that gave less than there was room for; of room, after a
 * line_put() that took less than all.
 *
 * Threads: any; the line's lock is taken inside, below a device's. Nothing here
 * blocks, provided that nobody else fills the pipe that is standard output.
 */
#ifndef GODWIT_DEVICES_BACKEND_LINE_H
#define GODWIT_DEVICES_BACKEND_LINE_H

#include "vmm/loop.h"

/* What a new watcher can have of the past: bytes, a power of two. */
#define LINE_SCROLLBACK	  (64 * KIB)
#define LINE_WATCHERS_MAX 16

struct line;

struct line_end {
	int in;	    /* -1: nothing is typed there */
	int out;    /* -1: nobody listens */
	int listen; /* not -1: clients come here, one at a time, instead */
	/* All are the line's to close; else they may be shared with others. */
	bool owned;
};

/* Of the window that shows it, in characters; 0: not known. */
struct line_size {
	uint16_t columns;
	uint16_t rows;
};

/**
 * line_create() - @end may be shared: it is not made non-blocking. SIGPIPE must
 * be ignored.
 *
 * Return: 0, or -errno with @err; what is owned is closed then.
 */
int __must_check line_create(struct loop *loop, const struct line_end *end,
			     struct line **ret, struct error *err);

/**
 * line_free() - hang up on all; no device has it any more. NULL is fine.
 */
void line_free(struct line *line);

/* ---- for the device; NULL is a line with nobody at its end ---- */

/**
 * line_watch_news() - have @fn called, under @lock, when there is news.
 *
 * Call line_take_news() first in it.
 */
int __must_check line_watch_news(struct line *line, struct loop *loop,
				 loop_fd_fn *fn, void *opaque,
				 pthread_mutex_t *lock, struct loop_fd **ret,
				 struct error *err);

/**
 * line_take_news() - what comes after this is told anew.
 */
void line_take_news(struct line *line);

/**
 * line_put() - say something.
 *
 * What nobody can ever take (the reader is gone, the disk is full) counts as
 * taken, and the user is told so once.
 *
 * Return: how many of @len bytes were taken: when not all, there is news as
 * soon as there is room.
 */
size_t line_put(struct line *line, const uint8_t *bytes, size_t len);

/**
 * line_get() - take what was typed.
 *
 * Return: how many bytes, up to @len: when not as many, there is news as soon
 * as there are more.
 */
size_t line_get(struct line *line, uint8_t *buf, size_t len);

/**
 * line_ask() - there is room for input: there is news as soon as there is any.
 */
void line_ask(struct line *line);

/**
 * line_size() - of the window, as it was last said to be.
 */
struct line_size line_size(struct line *line);

/* ---- for the host's side ---- */

/**
 * line_resize() - the window has another size. Of several, the last one counts.
 */
void line_resize(struct line *line, struct line_size size);

/**
 * line_range() - which bytes can still be had.
 */
void line_range(struct line *line, uint64_t *ret_first, uint64_t *ret_end);

/**
 * line_midway() - is the end, if it is a terminal, left in the middle of a row?
 *
 * Return: how many bytes have been said until then; 0: it is at its left edge.
 */
uint64_t line_midway(struct line *line);

/**
 * line_row_ends() - the same told of bytes: do they leave a terminal at its
 * left edge? One that they don't move is where it was.
 * @before: where they found it.
 */
bool line_row_ends(const uint8_t *bytes, size_t len, bool before);

/**
 * line_watch() - show the line to one more.
 * @fd: a connected, non-blocking socket; the line's from here on.
 * @from: the byte to begin with, of line_range().
 * @typed: @len bytes that he has said already; copied.
 *
 * Return: 0, or -errno with @err, @fd closed: -EUSERS when there are
 * LINE_WATCHERS_MAX.
 */
int __must_check line_watch(struct line *line, int fd, uint64_t from,
			    const void *typed, size_t len, struct error *err);

/**
 * line_is_full() - would line_watch() say -EUSERS?
 */
bool line_is_full(struct line *line);

/**
 * line_served() - has every watcher heard everything?
 */
bool line_served(struct line *line);

/**
 * line_on_served() - have @fn posted to the loop whenever that has become so.
 */
void line_on_served(struct line *line, loop_fn *fn, void *opaque);

#endif
