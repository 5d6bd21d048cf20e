// SPDX-License-Identifier: MIT
/*
 * From glances at vCPUs to what stopping and reading all of them takes.
 */
#include "tests/unit/unit.h"
#include "vmm/glance.h"

#define US NS_PER_US
#define MS NS_PER_MS

START_TEST(one_vcpu_takes_what_it_took)
{
	struct glance one = { 30 * US, 60 * US };
	struct glance total = glance_total(&one, 1, 4);

	ck_assert_uint_eq(total.out_ns, 30 * US);
	ck_assert_uint_eq(total.read_ns, 60 * US);
}
END_TEST

START_TEST(with_a_processor_each_the_slowest_counts)
{
	struct glance each[] = { { 30 * US, 60 * US },
				 { 90 * US, 50 * US },
				 { 20 * US, 10 * US } };
	struct glance total = glance_total(each, ARRAY_SIZE(each), 3);

	ck_assert_uint_eq(total.out_ns, 90 * US);
	ck_assert_uint_eq(total.read_ns, 60 * US);
}
END_TEST

/* Those who wait for who runs on would not wait for who is stopped. */
START_TEST(with_more_vcpus_than_processors_slices_do_not_count)
{
	struct glance each[32];
	struct glance total;

	for (unsigned int i = 0; i < ARRAY_SIZE(each); i++)
		each[i] = (struct glance){ (31 - i) / 2 * 3 * MS + 20 * US,
					   60 * US };
	total = glance_total(each, ARRAY_SIZE(each), 2);
	ck_assert_uint_eq(total.out_ns, 20 * US + 15 * 20 * US);
	ck_assert_uint_eq(total.read_ns, 16 * 60 * US);
}
END_TEST

START_TEST(a_processor_that_was_late_does_count)
{
	struct glance each[] = { { 20 * US, 60 * US },
				 { 5 * MS, 60 * US },
				 { 9 * MS, 60 * US } };
	struct glance total = glance_total(each, ARRAY_SIZE(each), 2);

	ck_assert_uint_eq(total.out_ns, 5 * MS + 10 * US);
	ck_assert_uint_eq(total.read_ns, 90 * US);
}
END_TEST

UNIT_SUITE("glance", one_vcpu_takes_what_it_took,
	   with_a_processor_each_the_slowest_counts,
	   with_more_vcpus_than_processors_slices_do_not_count,
	   a_processor_that_was_late_does_count)
