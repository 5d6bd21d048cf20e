/* SPDX-License-Identifier: MIT */
/*
 * A tally: how many things are still under way, and one wait for all of them.
 * Whoever waits is woken once, by the last, however many there are.
 *
 * Threads: any; its lock is an innermost one.
 */
#ifndef GODWIT_TALLY_H
#define GODWIT_TALLY_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/util.h"

struct tally {
	_Atomic uint32_t left;
	pthread_mutex_t lock;
	pthread_cond_t none;
};

void tally_init(struct tally *tally);
void tally_fini(struct tally *tally);

/**
 * tally_add() - one more is under way.
 */
void tally_add(struct tally *tally);

/**
 * tally_done() - one that was is no longer.
 */
void tally_done(struct tally *tally);

/**
 * tally_wait() - wait until none is. What they did before is seen after.
 */
void tally_wait(struct tally *tally);

#endif
