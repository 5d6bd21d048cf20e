/* SPDX-License-Identifier: MIT */
/*
 * Memory made ahead of the data that will come into it.
 *
 * A fresh page costs the target more than the copy into it: the host has to
 * find it and to clear it, 2 MiB at a time where it has huge pages. So the
 * source says a little ahead which blocks it will send (EXPECT, FORMAT.md §1),
 * and threads that have nothing else to do yet populate them, while the
 * receiving thread copies. It is advice: what isn't made in time is made by the
 * copy, as ever.
 *
 * They have the priority of other threads. With a lower one, and a guest on the
 * same host that leaves no processor idle, rounds take several times as long:
 * a piece that was begun is not ended, and whoever receives comes to need it.
 *
 * Threads: populate_work() on any number of them; the rest on one, the one that
 * receives.
 */
#ifndef GODWIT_POPULATE_H
#define GODWIT_POPULATE_H

#include "vmm/memory.h"

struct populate;

/**
 * populate_create() - nothing is expected yet.
 */
int __must_check populate_create(const struct memory *mem,
				 struct populate **ret, struct error *err);

/**
 * populate_free() - when no thread is at work any more; NULL is fine.
 */
void populate_free(struct populate *p);

/**
 * populate_expect() - data for @npages pages from page @index on will come.
 *
 * They are all RAM. What is too much to remember is forgotten.
 */
void populate_expect(struct populate *p, uint64_t index, uint64_t npages);

/**
 * populate_passed() - data comes in rising order, and is here up to page
 * @index: there is nothing left to do in front of it.
 */
void populate_passed(struct populate *p, uint64_t index);

/**
 * populate_work() - populate what is expected until populate_end() is called.
 */
void populate_work(struct populate *p);

/**
 * populate_end() - have all threads come back, at the latest when they have
 * made 2 MiB.
 */
void populate_end(struct populate *p);

#endif
