/* SPDX-License-Identifier: MIT */
/*
 * A line from the inside; for line*.c only. The lock is held wherever nothing
 * else is said.
 */
#ifndef GODWIT_DEVICES_BACKEND_LINE_INTERNAL_H
#define GODWIT_DEVICES_BACKEND_LINE_INTERNAL_H

#include "devices/backend/line.h"

struct line_watcher {
	struct line *line;
	struct line_watcher *next;
	int fd;
	struct loop_fd *watch; /* NULL: he has hung up */
	bool silent;	       /* says nothing more */
	uint64_t at;	       /* the next byte that he is to hear */
	size_t ntyped;	       /* of these, not read yet */
	uint8_t *typed;	       /* NULL: none */
};

struct line {
	struct loop *loop;
	pthread_mutex_t lock;
	int news_fd;

	/* the end */
	bool owned;
	int in;
	int out;
	struct loop_fd *in_watch;  /* only while input is wanted */
	struct loop_fd *out_watch; /* while it is full; a client's: always */
	size_t chunk;	/* bytes that it takes without blocking, if any */
	bool lost;	/* what was said; and the user has been told */
	int shared_out; /* our own of one that isn't; -1 */
	int listen;
	struct loop_fd *listen_watch;
	struct loop_timer *back_off; /* of letting clients in */

	bool hungry; /* the device wants what is typed next */
	struct line_size size;

	struct line_watcher *watchers;
	unsigned int nwatchers;
	loop_fn *on_served;
	void *served_opaque;

	uint64_t said;	 /* bytes, ever */
	uint8_t *scroll; /* the last LINE_SCROLLBACK of them */
};

/* ---- line.c ---- */

/**
 * line_tell() - there is news for the device.
 */
void line_tell(struct line *line);

/* ---- line_watch.c ---- */

/**
 * line_record() - these bytes have been said: keep them, and have them sent.
 */
void line_record(struct line *line, const uint8_t *bytes, size_t len);

/**
 * line_get_from_watchers() - as line_get().
 */
size_t line_get_from_watchers(struct line *line, uint8_t *buf, size_t len);

/**
 * line_has_typed() - is there something for line_get_from_watchers() that no
 * descriptor will tell of? Then it is either got or found to be nothing.
 */
bool line_has_typed(const struct line *line);

/**
 * line_set_hungry() - watch everyone for what he types, or don't.
 */
void line_set_hungry(struct line *line, bool hungry);

/**
 * line_drop_watchers() - hang up on all of them.
 */
void line_drop_watchers(struct line *line);

#endif
