/* SPDX-License-Identifier: MIT */
/*
 * The plan of a pass, and verifying what it says; see plan.h.
 */
#include "blk/blk.h"
#include "blk/plan.h"
#include "sector.h"

#define STEP	  0x9e3779b97f4a7c15UL
#define MIX	  0xbf58476d1ce4e5b9UL
#define PIECE_MAX BLK_SECTORS_MAX

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= MIX;
	x ^= x >> 27;
	x *= STEP;
	return x ^ x >> 31;
}

uint64_t plan_random(struct plan *plan, uint64_t below)
{
	plan->random += STEP;
	return mix(plan->random) % below;
}

enum plan_kind plan_kind(const struct plan_shape *shape, uint64_t sector,
			 uint64_t pass)
{
	uint64_t hash =
		mix(sector / PLAN_ZONE * STEP + pass * MIX + shape->seed);
	uint64_t share = hash % 100;

	if (share < shape->zero && shape->can_zero)
		return hash >> 32 & 1 ? PLAN_UNMAP : PLAN_ZEROES;
	if (share >= 100 - shape->zero && shape->can_discard)
		return PLAN_DISCARD;
	return PLAN_WRITE;
}

void plan_init(struct plan *plan)
{
	plan->pieces = mem_alloc(plan->shape.sectors * sizeof(*plan->pieces),
				 PAGE_SIZE);
	plan->order = mem_alloc(plan->shape.sectors * sizeof(*plan->order),
				PAGE_SIZE);
}

static uint64_t piece_length(struct plan *plan, uint64_t at)
{
	uint64_t zone_end = (at / PLAN_ZONE + 1) * PLAN_ZONE;
	uint64_t n = plan->most;

	if (!n)
		n = 1 + plan_random(plan, plan_random(plan, 4) ? 8 : PIECE_MAX);
	if (at + n > zone_end)
		n = zone_end - at;
	if (at + n > plan->shape.sectors)
		n = plan->shape.sectors - at;
	return n;
}

void plan_begin(struct plan *plan, uint64_t pass, bool sure)
{
	uint64_t at = 0;
	uint64_t n;

	plan->pass = pass;
	plan->sure = sure;
	plan->random = mix(plan->shape.seed + pass * MIX);
	plan->count = 0;
	plan->next = 0;
	for (; at < plan->shape.sectors; at += n) {
		n = piece_length(plan, at);
		plan->order[plan->count] = (uint32_t)plan->count;
		plan->pieces[plan->count++] = (struct piece){
			.first = (uint32_t)at,
			.sectors = (uint16_t)n,
		};
	}
	for (size_t i = plan->count - 1; i > 0; i--) {
		size_t j = plan_random(plan, i + 1);
		uint32_t swap = plan->order[i];

		plan->order[i] = plan->order[j];
		plan->order[j] = swap;
	}
}

bool plan_taken_all(const struct plan *plan)
{
	return plan->next == plan->count;
}

struct piece *plan_take(struct plan *plan)
{
	struct piece *piece;

	if (plan_taken_all(plan))
		return NULL;
	piece = &plan->pieces[plan->order[plan->next]];
	if (piece->busy)
		return NULL;
	plan->next++;
	return piece;
}

static struct sector_id name(const struct plan *plan, uint64_t sector,
			     uint64_t pass)
{
	return (struct sector_id){
		.sector = plan->shape.first + sector,
		.pass = pass,
		.seed = plan->shape.seed,
	};
}

void plan_fill(const struct plan *plan, const struct piece *piece,
	       uint8_t *data)
{
	struct sector_id id;

	for (uint64_t i = 0; i < piece->sectors; i++) {
		id = name(plan, piece->first + i, plan->pass);
		sector_write(data + i * SECTOR_SIZE, &id);
	}
}

/* Does a sector hold what @pass leaves in it? */
static bool holds(const struct plan *plan, uint64_t sector, uint64_t pass,
		  const uint8_t *data, struct sector_fault *ret_fault)
{
	struct sector_id id = name(plan, sector, pass);

	switch (plan_kind(&plan->shape, sector, pass)) {
	case PLAN_ZEROES:
	case PLAN_UNMAP:
		return sector_verify_zero(data, ret_fault);
	case PLAN_WRITE:
	case PLAN_DISCARD:
		break;
	}
	return sector_verify(data, &id, ret_fault);
}

static bool verify(const struct plan *plan, const struct piece *piece,
		   uint64_t sector, const uint8_t *data,
		   struct sector_fault *ret_fault)
{
	if (piece->done)
		return holds(plan, sector, plan->pass, data, ret_fault);
	/* Nobody knows what was there before the first pass. */
	if (plan->pass == 1)
		return true;
	if (plan->sure)
		return holds(plan, sector, plan->pass - 1, data, ret_fault);
	/* A pass that was broken off may have come here or not. */
	return plan_kind(&plan->shape, sector, plan->pass) == PLAN_DISCARD ||
	       holds(plan, sector, plan->pass, data, ret_fault) ||
	       holds(plan, sector, plan->pass - 1, data, ret_fault);
}

void plan_verify(const struct plan *plan, const struct piece *piece,
		 const uint8_t *data)
{
	struct sector_fault fault;

	for (uint64_t i = 0; i < piece->sectors; i++) {
		if (verify(plan, piece, piece->first + i,
			   data + i * SECTOR_SIZE, &fault))
			continue;
		guest_fail(VERDICT_DATA,
			   "corrupt sector=%lu pass=%lu done=%u offset=%lu "
			   "expected=0x%016lx got=0x%016lx\n",
			   plan->shape.first + piece->first + i, plan->pass,
			   piece->done, fault.offset, fault.expected,
			   fault.got);
	}
}
