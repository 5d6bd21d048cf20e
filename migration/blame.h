/* SPDX-License-Identifier: MIT */
/*
 * Which vCPUs to slow down when a guest dirties faster than the link takes:
 * those that dirty. Pure policy: numbers in, a choice out; no VM, no clock.
 *
 * The sign is how many page faults KVM has resolved for each: where dirty
 * logging protects pages against writing, each page that is found dirty was
 * one fault of the vCPU that wrote it first. A host that logs in another way
 * (Intel's page modification logging) shows far fewer faults than dirty pages;
 * then nobody knows, and all are slowed alike.
 *
 * A vCPU that is slowed faults less, so what it does is counted by the time
 * that it had: else it would look innocent as soon as it is held, and be let
 * go, and so on.
 *
 * Threads: none; the caller's.
 */
#ifndef GODWIT_BLAME_H
#define GODWIT_BLAME_H

#include "vmm/util.h"

#define BLAME_VCPUS_MAX 254

/* All members are private but for @slow; blame_init() makes one. */
struct blame {
	uint32_t nvcpus;
	unsigned int percent; /* for which chosen were held in this round */
	bool begun;	      /* @seen is filled */
	uint64_t seen[BLAME_VCPUS_MAX];	  /* faults as of the last round */
	uint64_t weight[BLAME_VCPUS_MAX]; /* recent ones, by its own time */
	uint64_t faults;		  /* recent ones in all */
	uint64_t dirty;			  /* pages found dirty meanwhile */
	bool slow[BLAME_VCPUS_MAX];	  /* the choice */
};

/**
 * blame_init() - begin, with nothing known.
 * @nvcpus: 1 to BLAME_VCPUS_MAX.
 */
void blame_init(struct blame *b, uint32_t nvcpus);

/**
 * blame_note() - a round has ended.
 * @faults: of each vCPU, since it was made; NULL: the host doesn't tell.
 * @dirty_pages: that the round's sync has found.
 */
void blame_note(struct blame *b, const uint64_t *faults, uint64_t dirty_pages);

/**
 * blame_choose() - whom to hold for @percent of the time, in @b->slow: the
 * fewest, those that dirty most, so that all others together dirty at most a
 * quarter of what these still will. So the harder they are held, the more small
 * ones join them. Without a sign: all. With @percent 0: none.
 */
void blame_choose(struct blame *b, unsigned int percent);

#endif
