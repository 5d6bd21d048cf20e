/* SPDX-License-Identifier: MIT */
/*
 * What every sector of the span holds: a function of the sector, the pass and
 * a few constants, so that nothing is kept beside the disk itself and whoever
 * knows the constants (they are in the superblock) can verify it.
 *
 * A pass visits each sector of the span once. Zones of PLAN_ZONE sectors are
 * written, made zero, or discarded and then written, as a hash of zone and pass
 * says. The requests of a pass are pieces: runs of sectors of random lengths
 * that cross no zone's end, in random order. All randomness comes from the
 * seed.
 */
#ifndef GUEST_BLK_PLAN_H
#define GUEST_BLK_PLAN_H

#include "lib/guest.h"

#define PLAN_ZONE 128UL

enum plan_kind {
	PLAN_WRITE,
	PLAN_ZEROES,
	PLAN_UNMAP,   /* zeroes that may free the space */
	PLAN_DISCARD, /* anything, until written right afterwards */
};

/* All that the contents depend on; travels on the disk. */
struct plan_shape {
	uint64_t seed;
	uint64_t first;	  /* sector */
	uint64_t sectors; /* of the span */
	uint64_t zero;	  /* percent of the zones, each of: zeroed, discarded */
	uint64_t can_zero;
	uint64_t can_discard;
};

struct piece {
	uint32_t first; /* sector of the span */
	uint16_t sectors;
	bool done; /* in this pass */
	bool busy; /* a request is under way */
};

struct plan {
	struct plan_shape shape;
	uint64_t pass; /* the one that is being made; 1 is the first */
	bool sure;     /* all that is not done holds the pass before */
	uint16_t most; /* sectors of a piece; 0: random lengths */
	uint64_t random;
	struct piece *pieces; /* by sector */
	uint32_t *order;
	size_t count;
	size_t next; /* of order */
};

/**
 * plan_init - memory for the pieces; the shape and most are set
 */
void plan_init(struct plan *plan);

/**
 * plan_begin - cut the span into the pieces of a pass
 * @sure: see struct plan; never of the first pass
 */
void plan_begin(struct plan *plan, uint64_t pass, bool sure);

/* plan_random - a number below @below */
uint64_t plan_random(struct plan *plan, uint64_t below);

/**
 * plan_take - the next piece of the pass
 *
 * Return: NULL when there are no more, or when it is being read now.
 */
struct piece *plan_take(struct plan *plan);

/* plan_taken_all - whether there are no more */
bool plan_taken_all(const struct plan *plan);

enum plan_kind plan_kind(const struct plan_shape *shape, uint64_t sector,
			 uint64_t pass);

/**
 * plan_fill - what to write for a piece
 */
void plan_fill(const struct plan *plan, const struct piece *piece,
	       uint8_t *data);

/**
 * plan_verify - hold what was read for a piece against what must be there
 *
 * Prints what is wrong and ends the guest.
 */
void plan_verify(const struct plan *plan, const struct piece *piece,
		 const uint8_t *data);

#endif
