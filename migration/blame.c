// SPDX-License-Identifier: MIT
/*
 * Who dirties; see blame.h.
 */
#include <assert.h>
#include <string.h>

#include "migration/blame.h"

/* What is left to the untouched, of what the slowed still dirty. */
#define UNTOUCHED_SHARE 4

void blame_init(struct blame *b, uint32_t nvcpus)
{
	assert(nvcpus && nvcpus <= BLAME_VCPUS_MAX);
	memset(b, 0, sizeof(*b));
	b->nvcpus = nvcpus;
}

/* What vCPU @i would have done in the time that it was held. */
static uint64_t undamped(const struct blame *b, uint32_t i, uint64_t faults)
{
	return b->slow[i] ? faults * 100 / (100 - b->percent) : faults;
}

void blame_note(struct blame *b, const uint64_t *faults, uint64_t dirty_pages)
{
	uint64_t sum = 0;

	if (!faults) {
		b->begun = false;
		b->faults = 0;
		return;
	}
	for (uint32_t i = 0; b->begun && i < b->nvcpus; i++) {
		uint64_t now = faults[i] - b->seen[i];

		/* Half of what was known before: habits change. */
		b->weight[i] = b->weight[i] / 2 + undamped(b, i, now);
		sum += now;
	}
	if (b->begun) {
		b->faults = b->faults / 2 + sum;
		b->dirty = b->dirty / 2 + dirty_pages;
	}
	memcpy(b->seen, faults, b->nvcpus * sizeof(faults[0]));
	b->begun = true;
}

/* Is there about a fault for each page that was dirtied? */
static bool has_sign(const struct blame *b)
{
	return b->faults && b->faults >= b->dirty / 2;
}

static uint32_t heaviest_left(const struct blame *b)
{
	uint32_t most = b->nvcpus;

	for (uint32_t i = 0; i < b->nvcpus; i++) {
		if (!b->slow[i] &&
		    (most == b->nvcpus || b->weight[i] > b->weight[most]))
			most = i;
	}
	return most;
}

void blame_choose(struct blame *b, unsigned int percent)
{
	uint64_t left = 0, allowed;

	assert(percent < 100);
	b->percent = percent;
	for (uint32_t i = 0; i < b->nvcpus; i++) {
		b->slow[i] = percent && !has_sign(b);
		left += b->weight[i];
	}
	if (!percent || !has_sign(b))
		return;
	allowed = left * (100 - percent) / 100 / UNTOUCHED_SHARE;
	while (left > allowed) {
		uint32_t i = heaviest_left(b);

		b->slow[i] = true;
		left -= b->weight[i];
	}
}
