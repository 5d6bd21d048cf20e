/* SPDX-License-Identifier: MIT */
/*
 * A relay between source and target: forwards records, counts them, cuts the
 * connection where a test wants it, and captures what passed.
 *
 * It can also spoil a page: flip a bit of it on its way, each time that it
 * passes. What is captured is what came.
 *
 * The relay listens on a unix socket of its own and connects to the door's for
 * each connection that comes. Once COMMIT has passed, the target gets to act on
 * it before a connection is cut. Counting and cutting concern the first
 * connection; later ones (a source that asks) just pass, or are turned away.
 *
 * With GODWIT_CAPTURE=DIR in the environment both directions of each connection
 * are written to DIR/PID-N.source and DIR/PID-N.target. Once it has ended, the
 * line "PID-N whole" goes to the pipe DIR/ended, or "PID-N torn" if it may have
 * been cut anywhere.
 */
#ifndef GODWIT_TESTS_RELAY_H
#define GODWIT_TESTS_RELAY_H

#include "vmm/util.h"

struct relay;

struct relay_cut {
	bool enabled;
	bool from_target;   /* whose records are counted */
	unsigned int after; /* so many pass, then both ends are closed */
	unsigned int torn;  /* and so many bytes of the next one, if it comes */
	bool turn_away;	    /* after it ended nobody gets through any more */
};

struct relay_spoil {
	bool enabled;
	uint64_t gpa; /* of the page */
};

struct relay_record {
	bool from_target;
	unsigned int nth; /* from 0, of its direction */
	uint32_t type;	  /* enum wire_type */
};

/*
 * A record of the first connection is all here, and goes on when this returns;
 * on the relay's thread. True: cut the connection behind it.
 */
typedef bool relay_record_fn(void *opaque, const struct relay_record *record);

struct relay *relay_start(const char *listen_path, const char *door_path,
			  const struct relay_cut *cut,
			  const struct relay_spoil *spoil,
			  relay_record_fn *on_record, void *opaque);

/* Stop, and tell how many records of the first connection passed. */
void relay_stop(struct relay *relay, unsigned int *ret_from_source,
		unsigned int *ret_from_target);

#endif
