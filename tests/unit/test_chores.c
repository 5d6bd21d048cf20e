// SPDX-License-Identifier: MIT
/*
 * What is done aside: nobody waits for it but who asks to, and nothing is left
 * undone.
 */
#include <semaphore.h>

#include "tests/unit/unit.h"
#include "vmm/chores.h"

/* A chore that takes as long as the test says, and what it finds done. */
struct work {
	struct chore chore;
	sem_t begun;
	sem_t goes_on;
	const struct work *after;
	unsigned int done;
};

static void work(void *opaque)
{
	struct work *w = opaque;

	sem_post(&w->begun);
	sem_wait(&w->goes_on);
	ck_assert(!w->after || w->after->done);
	w->done++;
}

static void work_init(struct work *w, const struct work *after)
{
	*w = (struct work){ .chore = { .fn = work, .opaque = w },
			    .after = after };
	sem_init(&w->begun, 0, 0);
	sem_init(&w->goes_on, 0, 0);
}

static struct chores *chores_new(void)
{
	struct chores *chores;
	struct error err;

	ck_assert_msg(!chores_create(NULL, &chores, &err), "%s", err.text);
	return chores;
}

START_TEST(chores_keep_nobody_waiting_who_does_not_ask)
{
	struct chores *chores = chores_new();
	struct work one, two, never;

	work_init(&one, NULL);
	work_init(&two, &one);
	work_init(&never, NULL);
	chores_do(chores, &one.chore);
	sem_wait(&one.begun);
	chores_do(chores, &two.chore);
	chores_await(chores, &never.chore);
	/* One at a time, and in their order. */
	ck_assert_int_eq(sem_trywait(&two.begun), -1);
	ck_assert(chores_pending(chores, &one.chore));
	ck_assert(chores_pending(chores, &two.chore));
	sem_post(&one.goes_on);
	chores_await(chores, &one.chore);
	ck_assert(!chores_pending(chores, &one.chore));
	ck_assert_uint_eq(one.done, 1);
	sem_wait(&two.begun);
	sem_post(&two.goes_on);
	chores_await(chores, &two.chore);
	ck_assert_uint_eq(two.done, 1);
	chores_free(chores);
}
END_TEST

START_TEST(chores_that_wait_already_are_done_once)
{
	struct chores *chores = chores_new();
	struct work one, two;

	work_init(&one, NULL);
	work_init(&two, &one);
	chores_do(chores, &one.chore);
	sem_wait(&one.begun);
	for (int i = 0; i < 3; i++) {
		chores_do(chores, &one.chore);
		chores_do(chores, &two.chore);
	}
	for (int i = 0; i < 3; i++) {
		sem_post(&one.goes_on);
		sem_post(&two.goes_on);
	}
	chores_await(chores, &two.chore);
	ck_assert_uint_eq(one.done, 1);
	ck_assert_uint_eq(two.done, 1);
	/* But again when they are over. */
	chores_do(chores, &one.chore);
	chores_await(chores, &one.chore);
	ck_assert_uint_eq(one.done, 2);
	chores_free(chores);
}
END_TEST

START_TEST(chores_are_all_done_when_their_thread_ends)
{
	struct chores *chores = chores_new();
	struct work one, two;

	work_init(&one, NULL);
	work_init(&two, &one);
	chores_do(chores, &one.chore);
	chores_do(chores, &two.chore);
	sem_post(&one.goes_on);
	sem_post(&two.goes_on);
	chores_free(chores);
	ck_assert_uint_eq(one.done, 1);
	ck_assert_uint_eq(two.done, 1);
	chores_free(NULL);
}
END_TEST

UNIT_SUITE("chores", chores_keep_nobody_waiting_who_does_not_ask,
	   chores_that_wait_already_are_done_once,
	   chores_are_all_done_when_their_thread_ends)
