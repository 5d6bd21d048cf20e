/* SPDX-License-Identifier: MIT */
/*
 * A relay between source and target: forwards records, counts them, cuts the
 * connection where a test wants it, and captures what passed.
 *
 * The relay listens on a unix socket of its own and connects to the door's for
 * each connection that comes. Counting and cutting concern the first
 * connection; later ones (a source that asks) just pass, or are turned away.
 *
 * With GODWIT_CAPTURE=DIR in the environment both directions of the first
 * connection are written to DIR/PID-N.source and DIR/PID-N.target.
 */
#ifndef GODWIT_TESTS_RELAY_H
#define GODWIT_TESTS_RELAY_H

#include "vmm/util.h"

struct relay;

struct relay_cut {
	bool enabled;
	bool from_target;   /* whose records are counted */
	unsigned int after; /* so many pass, then both ends are closed */
	bool turn_away;	    /* after the cut nobody gets through any more */
};

struct relay *relay_start(const char *listen_path, const char *door_path,
			  const struct relay_cut *cut);

/* Stop, and tell how many records of the first connection passed. */
void relay_stop(struct relay *relay, unsigned int *ret_from_source,
		unsigned int *ret_from_target);

#endif
