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

/* How many processors they are; threads may be kept to a few. */
static unsigned int processors_seen(const struct glance *each, uint32_t n,
				    int cpu)
{
	unsigned int seen = 1;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = 0;

		while (j < i && each[j].cpu != each[i].cpu)
			j++;
		seen += j == i && each[i].cpu != cpu;
	}
	return seen;
}

struct glance glance_total(struct glance *each, uint32_t n, uint64_t rest_ns,
			   unsigned int hands, int cpu)
{
	uint32_t at_once = MIN(n, hands);
	struct glance total = { .read_ns = rest_ns };
	uint64_t longest = rest_ns;

	assert(at_once);
	qsort(each, n, sizeof(each[0]), by_out);
	total.out_ns = each[at_once - 1].out_ns +
		       (n - at_once) * each[0].out_ns / at_once;
	total.out_ns = MIN(total.out_ns, each[n - 1].out_ns);
	for (uint32_t i = 0; i < n; i++) {
		total.read_ns += each[i].read_ns;
		longest = MAX(longest, each[i].read_ns);
	}
	hands = MIN(hands, processors_seen(each, n, cpu));
	total.read_ns = MAX(total.read_ns / hands, longest);
	return total;
}
