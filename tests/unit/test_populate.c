// SPDX-License-Identifier: MIT
/*
 * Memory made ahead of the data: what is expected gets populated, what has come
 * already doesn't, and nobody is kept waiting at the end.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include "migration/populate.h"
#include "tests/unit/unit.h"

#define BLOCK (2 * MIB / GUEST_PAGE_SIZE)

static bool is_there(const struct memory *mem, uint64_t index)
{
	unsigned char here = 0;

	ck_assert(
		!mincore(memory_page_hva(mem, index), GUEST_PAGE_SIZE, &here));
	return here & 1;
}

static void *work(void *p)
{
	populate_work(p);
	return NULL;
}

struct workshop {
	struct memory *mem;
	struct populate *populate;
	pthread_t worker;
};

static void open_shop(struct workshop *shop)
{
	struct error err;

	ck_assert(!memory_create(64 * MIB, true, &shop->mem, &err));
	ck_assert(!populate_create(shop->mem, &shop->populate, &err));
}

static void close_shop(struct workshop *shop)
{
	populate_end(shop->populate);
	ck_assert(!pthread_join(shop->worker, NULL));
	populate_free(shop->populate);
	memory_free(shop->mem);
}

static void hire(struct workshop *shop)
{
	ck_assert(!pthread_create(&shop->worker, NULL, work, shop->populate));
}

START_TEST(what_is_expected_is_populated_and_nothing_else)
{
	struct workshop shop;

	open_shop(&shop);
	hire(&shop);
	populate_expect(shop.populate, BLOCK, BLOCK);
	populate_expect(shop.populate, 4 * BLOCK, 3 * BLOCK);
	while (!is_there(shop.mem, 7 * BLOCK - 1))
		sched_yield();
	ck_assert(is_there(shop.mem, BLOCK));
	ck_assert(is_there(shop.mem, 2 * BLOCK - 1));
	ck_assert(is_there(shop.mem, 4 * BLOCK));
	ck_assert(!is_there(shop.mem, 0));
	ck_assert(!is_there(shop.mem, 2 * BLOCK));
	ck_assert(!is_there(shop.mem, 7 * BLOCK));
	close_shop(&shop);
}
END_TEST

START_TEST(what_has_come_already_is_left_alone)
{
	struct workshop shop;

	open_shop(&shop);
	populate_expect(shop.populate, 0, 2 * BLOCK);
	populate_expect(shop.populate, 3 * BLOCK, 2 * BLOCK);
	populate_passed(shop.populate, 4 * BLOCK);
	hire(&shop);
	while (!is_there(shop.mem, 5 * BLOCK - 1))
		sched_yield();
	ck_assert(!is_there(shop.mem, 0));
	ck_assert(!is_there(shop.mem, 2 * BLOCK - 1));
	ck_assert(!is_there(shop.mem, 3 * BLOCK));
	ck_assert(is_there(shop.mem, 4 * BLOCK));
	close_shop(&shop);
}
END_TEST

START_TEST(too_much_to_remember_is_forgotten)
{
	struct workshop shop;

	open_shop(&shop);
	for (unsigned int i = 0; i < 100000; i++)
		populate_expect(shop.populate, i % 8, 1);
	populate_expect(shop.populate, 8, 1);
	populate_passed(shop.populate, 8);
	hire(&shop);
	/* The ring is used up before this is taken. */
	while (!is_there(shop.mem, 9)) {
		populate_expect(shop.populate, 9, 1);
		sched_yield();
	}
	close_shop(&shop);
}
END_TEST

UNIT_SUITE("populate", what_is_expected_is_populated_and_nothing_else,
	   what_has_come_already_is_left_alone,
	   too_much_to_remember_is_forgotten)
