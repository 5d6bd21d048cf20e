/* SPDX-License-Identifier: MIT */
/*
 * A holder: a device that stands in for virtio-blk. It has a real image with
 * real locks and deals with them as device.h wants it, without a guest's
 * requests. So each step of the hand-over can be made to fail, and it can be
 * asked at any time what it holds. The linker's --wrap puts it into the table
 * of devices.
 */
#ifndef GODWIT_TESTS_HOLDER_H
#define GODWIT_TESTS_HOLDER_H

#include <stdatomic.h>

#include "tests/inproc/rig.h"

/* What holders do wrong; of the whole process, for one test at a time. */
struct holder_fault {
	bool armed;
	enum device_handover step;
	atomic_bool never_settles;
};

extern struct holder_fault holder_fault;

/* What the holder on @host holds, as it was told. */
void holder_holds(struct rig_host *host, bool *ret_owner, bool *ret_writer);

/* Have it ask for a pause, as one whose disk is full. */
void holder_ask_for_stop(struct rig_host *host);

#endif
