// SPDX-License-Identifier: MIT
/*
 * Of each to of all; see glance.h.
 */
#include <assert.h>
#include <stdlib.h>

#include "vmm/glance.h"

static int by_out(const void *a, const void *b)
{
	const struct glance *left = a;
	const struct glance *right = b;

	return (left->out_ns > right->out_ns) - (left->out_ns < right->out_ns);
}

struct glance glance_total(struct glance *each, uint32_t n,
			   unsigned int processors)
{
	uint32_t at_once = MIN(n, processors);
	struct glance total = { 0 };
	uint64_t longest = 0;

	assert(at_once);
	qsort(each, n, sizeof(each[0]), by_out);
	total.out_ns = each[at_once - 1].out_ns +
		       (n - at_once) * each[0].out_ns / at_once;
	for (uint32_t i = 0; i < n; i++) {
		total.read_ns += each[i].read_ns;
		longest = MAX(longest, each[i].read_ns);
	}
	total.read_ns = MAX(total.read_ns / at_once, longest);
	return total;
}
