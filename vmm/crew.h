/* SPDX-License-Identifier: MIT */
/*
 * The vCPUs of one VM, as far as something is asked of all of them: to stop,
 * to read or load what they hold, to go on. Whatever it is, all are told
 * first, and then there is one wait, which ends once, with the last of them:
 * a VM may have many more vCPUs than the host has processors.
 *
 * Threads: any but a vCPU's own, one at a time; crew_kick() from anywhere.
 */
#ifndef GODWIT_CREW_H
#define GODWIT_CREW_H

#include "vmm/vcpu.h"

struct crew;

/**
 * crew_create() - make @count vCPUs and their threads, parked.
 * @env: but for the tallies, which are the crew's.
 */
int __must_check crew_create(const struct vcpu_env *env, uint32_t count,
			     struct crew **ret, struct error *err);

/**
 * crew_free() - end all threads (they get parked) and close. NULL is fine.
 */
void crew_free(struct crew *crew);

uint32_t crew_size(const struct crew *crew);
struct vcpu *crew_vcpu(const struct crew *crew, uint32_t index);

/**
 * crew_kick() - ask all to park; returns at once.
 */
void crew_kick(struct crew *crew);

/**
 * crew_wait_parked() - wait until all have.
 */
void crew_wait_parked(struct crew *crew);

/**
 * crew_unpark() - let all run the guest.
 */
void crew_unpark(struct crew *crew);

/**
 * crew_errand() - run @fn for every vCPU on its own thread, all at once. Those
 * that run go on when their own errand is done, whatever the others do.
 *
 * Return: the first failure, by index, with the vCPU named; or 0.
 */
int __must_check crew_errand(struct crew *crew, vcpu_errand_fn *fn,
			     void *opaque, struct error *err);

/**
 * crew_share() - the same for parked ones, but on no more threads than there
 * are processors, of which the caller's is one: who is done with its own
 * vCPU's errand does those that nobody has begun. Returns at once; the caller
 * does what else there is to do, and then its share: crew_shared().
 */
void crew_share(struct crew *crew, vcpu_errand_fn *fn, void *opaque);

/**
 * crew_shared() - help with what crew_share() began, and wait for its end. For
 * threads that may do all that a vCPU's may (sandbox.h).
 *
 * Return: as crew_errand().
 */
int __must_check crew_shared(struct crew *crew, struct error *err);

/**
 * crew_hands() - how many threads do that at once, the caller's among them.
 */
unsigned int crew_hands(const struct crew *crew);

/**
 * crew_errand_helped() - both, where there is nothing else to do.
 */
int __must_check crew_errand_helped(struct crew *crew, vcpu_errand_fn *fn,
				    void *opaque, struct error *err);

/**
 * crew_lend() - have the threads of up to @max parked vCPUs run @fn; returns at
 * once. Nothing else may be asked of the crew until crew_return().
 */
void crew_lend(struct crew *crew, uint32_t max, vcpu_errand_fn *fn,
	       void *opaque);

/**
 * crew_return() - wait until all that were lent are back.
 */
void crew_return(struct crew *crew);

#endif
