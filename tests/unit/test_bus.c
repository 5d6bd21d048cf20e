// SPDX-License-Identifier: MIT
/*
 * Port and MMIO dispatch: who answers at an address, and under which lock.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/bus.h"

/* A range of 16 bytes that says where it was read and who held its lock. */
struct sample {
	pthread_mutex_t lock;
	uint64_t offset;
	unsigned int calls;
	bool locked;
};

static void note(struct sample *s, uint64_t offset)
{
	s->offset = offset;
	s->calls++;
	s->locked = pthread_mutex_trylock(&s->lock) == EBUSY;
	if (!s->locked)
		pthread_mutex_unlock(&s->lock);
}

static void sample_read(void *opaque, uint64_t offset, void *data,
			unsigned int size)
{
	note(opaque, offset);
	memset(data, 0x42, size);
}

static void sample_write(void *opaque, uint64_t offset,
			 const void *data __maybe_unused,
			 unsigned int size __maybe_unused)
{
	note(opaque, offset);
}

static const struct bus_ops sample_ops = {
	.read = sample_read,
	.write = sample_write,
};

static int add(struct bus *bus, struct sample *s, uint64_t base, bool locked,
	       struct error *err)
{
	const struct bus_range range = {
		.base = base,
		.len = 16,
		.name = "sample",
		.ops = &sample_ops,
		.opaque = s,
		.lock = locked ? &s->lock : NULL,
	};

	pthread_mutex_init(&s->lock, NULL);
	return bus_add(bus, &range, err);
}

static uint32_t read_at(struct bus *bus, uint64_t addr, bool *ret_answered)
{
	uint32_t value = 0;

	*ret_answered = bus_read(bus, addr, &value, sizeof(value));
	return value;
}

START_TEST(bus_finds_the_range_that_has_all_of_an_access)
{
	struct sample all[3] = { 0 };
	struct error err;
	struct bus bus;
	bool answered;

	bus_init(&bus, "mmio");
	ck_assert_int_eq(add(&bus, &all[1], 0x2000, true, &err), 0);
	ck_assert_int_eq(add(&bus, &all[2], 0x2010, true, &err), 0);
	ck_assert_int_eq(add(&bus, &all[0], 0x1000, true, &err), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++) {
		uint64_t base = i ? 0x1ff0 + i * 0x10 : 0x1000;

		ck_assert_uint_eq(read_at(&bus, base + 12, &answered),
				  0x42424242);
		ck_assert(answered);
		ck_assert_uint_eq(all[i].offset, 12);
		ck_assert_uint_eq(all[i].calls, 1);
	}
	/* Beside, and over an end: all ones, and nobody is called. */
	ck_assert_uint_eq(read_at(&bus, 0x100e, &answered), 0xffffffff);
	ck_assert(!answered);
	ck_assert_uint_eq(read_at(&bus, 0x200e, &answered), 0xffffffff);
	ck_assert_uint_eq(read_at(&bus, 0xffe, &answered), 0xffffffff);
	ck_assert_uint_eq(read_at(&bus, ~0ULL, &answered), 0xffffffff);
	ck_assert(!bus_write(&bus, 0x3000, &answered, 1));
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++)
		ck_assert_uint_eq(all[i].calls, 1);
}
END_TEST

START_TEST(bus_holds_the_lock_of_a_range_that_has_one)
{
	struct sample with = { 0 }, without = { 0 };
	struct error err;
	struct bus bus;
	bool answered;

	bus_init(&bus, "mmio");
	ck_assert_int_eq(add(&bus, &with, 0x1000, true, &err), 0);
	ck_assert_int_eq(add(&bus, &without, 0x2000, false, &err), 0);
	read_at(&bus, 0x1000, &answered);
	ck_assert(with.locked);
	with.locked = false;
	ck_assert(bus_write(&bus, 0x1000, &answered, 1));
	ck_assert(with.locked);
	read_at(&bus, 0x2000, &answered);
	ck_assert(answered);
	ck_assert(!without.locked);
	ck_assert(bus_write(&bus, 0x2000, &answered, 1));
	ck_assert(!without.locked);
	ck_assert_uint_eq(without.calls, 2);
	/* And lets it go. */
	ck_assert_int_eq(pthread_mutex_trylock(&with.lock), 0);
}
END_TEST

START_TEST(bus_refuses_ranges_over_each_other)
{
	struct sample s = { 0 };
	struct error err = { "" };
	struct bus bus;
	bool answered;

	bus_init(&bus, "port");
	ck_assert_int_eq(add(&bus, &s, 0x100, true, &err), 0);
	ck_assert_int_eq(add(&bus, &s, 0xf1, true, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "0xf1"));
	ck_assert_int_eq(add(&bus, &s, 0x10f, true, &err), -EEXIST);
	ck_assert_int_eq(add(&bus, &s, 0xf0, true, &err), 0);
	bus_remove(&bus, 0x100);
	bus_remove(&bus, 0x100);
	read_at(&bus, 0x100, &answered);
	ck_assert(!answered);
	read_at(&bus, 0xf0, &answered);
	ck_assert(answered);
}
END_TEST

START_TEST(bus_is_full_some_time)
{
	struct sample s = { 0 };
	struct error err = { "" };
	struct bus bus;

	bus_init(&bus, "port");
	for (uint64_t i = 0; i < BUS_RANGES_MAX; i++)
		ck_assert_int_eq(add(&bus, &s, i * 16, true, &err), 0);
	ck_assert_int_eq(add(&bus, &s, 0x8000, true, &err), -ENOSPC);
}
END_TEST

UNIT_SUITE("bus", bus_finds_the_range_that_has_all_of_an_access,
	   bus_holds_the_lock_of_a_range_that_has_one,
	   bus_refuses_ranges_over_each_other, bus_is_full_some_time)
