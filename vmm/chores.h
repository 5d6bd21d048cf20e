/* SPDX-License-Identifier: MIT */
/*
 * Work that may take KVM and the kernel a while and that nobody's answer should
 * wait for, done aside: one piece after the other, on a thread of its own.
 *
 * A chore belongs to who has it done, and is waiting, under way or over; so
 * there are never more than there are structs, whatever others ask for.
 *
 * Threads: a chore is one thread's to have done, to look at and to wait for;
 * different ones may be different threads'.
 */
#ifndef GODWIT_CHORES_H
#define GODWIT_CHORES_H

#include "vmm/error.h"

struct chores;
struct sandbox;

/* All zero but for @fn and @opaque; the rest is private. */
struct chore {
	void (*fn)(void *opaque);
	void *opaque;
	struct chore *next;
	bool pending; /* waiting, or under way */
};

/**
 * chores_create() - start the thread. Its filter is that of a migration's.
 * @sandbox: NULL for none.
 */
int __must_check chores_create(const struct sandbox *sandbox,
			       struct chores **ret, struct error *err);

/**
 * chores_free() - wait until everything is done, and end. NULL is fine.
 */
void chores_free(struct chores *chores);

/**
 * chores_do() - have @chore done after those that came before; one that is
 * pending already is done once. It must live until it is over.
 */
void chores_do(struct chores *chores, struct chore *chore);

/**
 * chores_pending() - is @chore waiting, or under way?
 */
bool chores_pending(struct chores *chores, const struct chore *chore);

/**
 * chores_await() - until @chore is over. One that was never to be done is.
 */
void chores_await(struct chores *chores, struct chore *chore);

#endif
