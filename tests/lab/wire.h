/* SPDX-License-Identifier: MIT */
/*
 * The frames between the lab's driver (python, outside) and its agent (in the
 * emulated host). They travel over one virtio console port, in order, both
 * ways. tests/lab/host.py is the other half and packs the same sixteen bytes.
 *
 * Everything is little endian. A channel is one child process or one socket;
 * the driver numbers channels and never uses a number twice.
 */
#ifndef LAB_WIRE_H
#define LAB_WIRE_H

#include <assert.h>
#include <stdint.h>

struct lab_frame {
	uint32_t length; /* payload bytes that follow, at most LAB_PAYLOAD */
	uint16_t channel;
	uint8_t type;	  /* enum lab_type */
	uint8_t stream;	  /* of DATA and END: enum lab_stream */
	uint64_t time_ns; /* CLOCK_MONOTONIC of the emulated host; to it, 0 */
};

static_assert(sizeof(struct lab_frame) == 16, "the wire has no padding");

#define LAB_PAYLOAD 65536u

enum lab_type {
	/* driver to agent */
	LAB_SPAWN = 1,	/* payload: the command's words, each NUL-terminated */
	LAB_LISTEN = 2, /* payload: path of a unix socket; takes one caller */
	LAB_SIGNAL = 3, /* payload: one byte, the signal's number */
	/* both ways */
	LAB_DATA = 4,
	LAB_END = 5, /* end of that stream */
	/* agent to driver */
	LAB_HELLO = 6,
	LAB_LISTENS = 7,
	LAB_CALLED = 8,	 /* the listener has its caller; DATA may follow */
	LAB_EXIT = 9,	 /* payload: wait status, 32 bits */
	LAB_ERROR = 10,	 /* payload: text; the channel is gone */
	LAB_STARTS = 11, /* the command is about to be run */
	/* driver to agent */
	LAB_CALL = 12, /* payload: path of a unix socket to call */
};

enum lab_stream {
	LAB_STDIN = 0, /* also a socket, both ways */
	LAB_STDOUT = 1,
	LAB_STDERR = 2,
};

#endif
