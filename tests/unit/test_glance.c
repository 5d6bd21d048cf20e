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
	struct glance one = { 30 * US, 60 * US, 0 };
	struct glance total = glance_total(&one, 1, 10 * US, 4, 1);

	ck_assert_uint_eq(total.out_ns, 30 * US);
	ck_assert_uint_eq(total.read_ns, 60 * US);
}
END_TEST

START_TEST(with_a_processor_each_the_slowest_counts)
{
	struct glance each[] = { { 30 * US, 60 * US, 0 },
				 { 90 * US, 50 * US, 1 },
				 { 20 * US, 10 * US, 2 } };
	struct glance total = glance_total(each, ARRAY_SIZE(each), 0, 3, 0);

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
					   60 * US, (int)i % 2 };
	total = glance_total(each, ARRAY_SIZE(each), 0, 2, 1);
	ck_assert_uint_eq(total.out_ns, 20 * US + 15 * 20 * US);
	ck_assert_uint_eq(total.read_ns, 16 * 60 * US);
}
END_TEST

START_TEST(a_processor_that_was_late_does_count)
{
	struct glance each[] = { { 20 * US, 60 * US, 0 },
				 { 5 * MS, 60 * US, 1 },
				 { 9 * MS, 60 * US, 0 } };
	struct glance total = glance_total(each, ARRAY_SIZE(each), 0, 2, 1);

	ck_assert_uint_eq(total.out_ns, 5 * MS + 10 * US);
	ck_assert_uint_eq(total.read_ns, 90 * US);
}
END_TEST

/* As with those that are halted: only the reading of one keeps the next. */
START_TEST(it_takes_no_longer_than_it_took)
{
	struct glance each[] = { { 50 * US, 90 * US, 0 },
				 { 150 * US, 90 * US, 0 },
				 { 250 * US, 90 * US, 0 },
				 { 350 * US, 90 * US, 0 } };
	struct glance total = glance_total(each, ARRAY_SIZE(each), 0, 1, 0);

	ck_assert_uint_eq(total.out_ns, 80 * US);
	ck_assert_uint_eq(total.read_ns, 360 * US);
}
END_TEST

START_TEST(the_rest_is_read_meanwhile)
{
	struct glance each[] = { { 30 * US, 90 * US, 0 },
				 { 30 * US, 90 * US, 1 } };
	struct glance total;

	total = glance_total(each, ARRAY_SIZE(each), 60 * US, 2, 1);
	ck_assert_uint_eq(total.read_ns, 120 * US);
	total = glance_total(each, ARRAY_SIZE(each), 200 * US, 3, 2);
	ck_assert_uint_eq(total.read_ns, 200 * US);
}
END_TEST

/* However many there are in the host: these were kept to one, or two. */
START_TEST(only_processors_that_were_used_count)
{
	struct glance each[] = { { 30 * US, 90 * US, 5 },
				 { 30 * US, 90 * US, 5 } };
	struct glance total;

	total = glance_total(each, ARRAY_SIZE(each), 20 * US, 3, 5);
	ck_assert_uint_eq(total.read_ns, 200 * US);
	total = glance_total(each, ARRAY_SIZE(each), 20 * US, 3, 7);
	ck_assert_uint_eq(total.read_ns, 100 * US);
}
END_TEST

UNIT_SUITE("glance", one_vcpu_takes_what_it_took,
	   with_a_processor_each_the_slowest_counts,
	   with_more_vcpus_than_processors_slices_do_not_count,
	   a_processor_that_was_late_does_count,
	   it_takes_no_longer_than_it_took, the_rest_is_read_meanwhile,
	   only_processors_that_were_used_count)
