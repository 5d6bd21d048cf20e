// SPDX-License-Identifier: MIT
/*
 * Counting by atomics; the lock is only for the moment of going to sleep. See
 * tally.h.
 */
#include <assert.h>

#include "vmm/tally.h"

/* A vCPU leaves its guest in less, unless it waits for a processor. */
#define WATCH_NS 100000

void tally_init(struct tally *tally)
{
	tally->left = 0;
	pthread_mutex_init(&tally->lock, NULL);
	pthread_cond_init(&tally->none, NULL);
}

void tally_fini(struct tally *tally)
{
	pthread_cond_destroy(&tally->none);
	pthread_mutex_destroy(&tally->lock);
}

void tally_add(struct tally *tally)
{
	atomic_fetch_add(&tally->left, 1);
}

void tally_done(struct tally *tally)
{
	uint32_t before = atomic_fetch_sub(&tally->left, 1);

	assert(before);
	if (before > 1)
		return;
	/* Who has seen that it wasn't 0 sleeps, or hasn't taken the lock. */
	pthread_mutex_lock(&tally->lock);
	pthread_cond_broadcast(&tally->none);
	pthread_mutex_unlock(&tally->lock);
}

/*
 * To be put to sleep and woken takes longer than what a single one needs, and
 * in a pause a guest waits with us. Where it needs this very processor to get
 * done it is late by WATCH_NS, at most.
 */
static void watch(const struct tally *tally)
{
	uint64_t end = clock_ns() + WATCH_NS;

	while (tally->left == 1 && clock_ns() < end)
		__builtin_ia32_pause();
}

void tally_wait(struct tally *tally)
{
	watch(tally);
	pthread_mutex_lock(&tally->lock);
	while (tally->left)
		pthread_cond_wait(&tally->none, &tally->lock);
	pthread_mutex_unlock(&tally->lock);
}
