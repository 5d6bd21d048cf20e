/* SPDX-License-Identifier: MIT */
/*
 * The pattern of a sector: sector.h says what it is. Buffers need not be
 * aligned.
 */
#include "lib/guest.h"
#include "sector.h"

#define STEP   0x9e3779b97f4a7c15UL
#define PRIME  0xd6e8feb86659fd93UL
#define WORDS  64UL
#define HEADER 4UL

typedef uint64_t word __attribute__((aligned(1), may_alias));

static uint64_t stamp(const struct sector_id *id)
{
	uint64_t x = id->sector * PRIME + id->pass * STEP + id->seed + 1;

	x ^= x >> 32;
	x *= PRIME;
	x ^= x >> 29;
	return x | 1;
}

/* Word number @i of a sector with this stamp. */
static uint64_t expected(const struct sector_id *id, uint64_t start, size_t i)
{
	const uint64_t n = WORDS - HEADER;
	const uint64_t steps = (HEADER + WORDS - 1) * n / 2;

	if (i >= HEADER)
		return start + i * STEP;
	if (i == 0)
		return id->sector;
	if (i == 1)
		return id->pass;
	if (i == 2)
		return id->seed;
	return n * start + steps * STEP +
	       (id->sector + id->pass + id->seed) * PRIME;
}

void sector_write(void *data, const struct sector_id *id)
{
	uint64_t start = stamp(id);
	word *out = data;

	for (size_t i = 0; i < WORDS; i++)
		out[i] = expected(id, start, i);
}

static bool word_is(const word *in, size_t i, uint64_t value,
		    struct sector_fault *ret_fault)
{
	/* Once: another look might see another value. */
	uint64_t got = in[i];

	if (got == value)
		return true;
	*ret_fault = (struct sector_fault){
		.offset = i * sizeof(*in),
		.expected = value,
		.got = got,
	};
	return false;
}

bool sector_verify(const void *data, const struct sector_id *id,
		   struct sector_fault *ret_fault)
{
	uint64_t start = stamp(id);

	for (size_t i = 0; i < WORDS; i++)
		if (!word_is(data, i, expected(id, start, i), ret_fault))
			return false;
	return true;
}

bool sector_verify_zero(const void *data, struct sector_fault *ret_fault)
{
	for (size_t i = 0; i < WORDS; i++)
		if (!word_is(data, i, 0, ret_fault))
			return false;
	return true;
}
