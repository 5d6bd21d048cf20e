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

/*
 * Who comes later on a processor has waited there while those before it were
 * read, too; in a stop nobody is. @each is sorted.
 */
static void leave_out_reading(struct glance *each, uint32_t n)
{
	for (uint32_t i = n; i-- > 0;)
		for (uint32_t j = 0; j < i; j++)
			if (each[j].cpu == each[i].cpu)
				each[i].out_ns -=
					MIN(each[i].out_ns - each[0].out_ns,
					    each[j].read_ns);
}

struct glance glance_total(struct glance *each, uint32_t n, uint64_t rest_ns,
			   unsigned int hands, int cpu)
{
	unsigned int at_once = MIN(hands, processors_seen(each, n, cpu));
	struct glance total = { .read_ns = rest_ns };
	uint64_t longest = rest_ns, last = 0;
	uint32_t first = MIN(n, at_once);

	assert(first);
	qsort(each, n, sizeof(each[0]), by_out);
	leave_out_reading(each, n);
	for (uint32_t i = 0; i < n; i++) {
		if (i < first)
			total.out_ns = MAX(total.out_ns, each[i].out_ns);
		last = MAX(last, each[i].out_ns);
		total.read_ns += each[i].read_ns;
		longest = MAX(longest, each[i].read_ns);
	}
	total.out_ns += (n - first) * each[0].out_ns / first;
	total.out_ns = MIN(total.out_ns, last);
	total.read_ns = MAX(total.read_ns / at_once, longest);
	return total;
}
