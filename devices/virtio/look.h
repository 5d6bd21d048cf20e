/* SPDX-License-Identifier: MIT */
/*
 * Looking on for a while before one goes to sleep: a device's I/O thread that
 * has nothing to do may soon have, and to be woken takes longer than what it
 * waited for. Whether that pays is learnt: looking that found something, or a
 * sleep that was too short to be worth it, gives credit; looking in vain costs
 * some.
 *
 * Threads: each has a struct look of its own, zeroed.
 */
#ifndef GODWIT_DEVICES_VIRTIO_LOOK_H
#define GODWIT_DEVICES_VIRTIO_LOOK_H

#include "vmm/util.h"

struct look {
	unsigned int credit;
	uint64_t idle_ns;  /* since when there is nothing to do; 0: there is */
	uint64_t sleep_ns; /* since when it was to sleep */
};

/**
 * look_on() - there is nothing to do.
 *
 * Return: true: look again; false: sleep, and then call look_slept().
 */
bool look_on(struct look *look);

/**
 * look_slept() - the sleep is over.
 */
void look_slept(struct look *look);

/**
 * look_found() - there was something to do.
 */
void look_found(struct look *look);

#endif
