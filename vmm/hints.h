/* SPDX-License-Identifier: MIT */
/*
 * What the guest says it does not need: pages that are free just now, as a
 * balloon hears of them, for a migration that need not send them.
 *
 * A hint stands for the content that the page had when the guest was asked, or
 * before. Whoever takes hints therefore has to see each write to a page since
 * before the asking, and must not believe a hint over such a write.
 *
 * Hints are only kept while somebody wants them: from hints_open() to
 * hints_close(). None is heard after hints_close() has returned.
 *
 * Threads: hints_add() from any; the others from the one that migrates.
 */
#ifndef GODWIT_HINTS_H
#define GODWIT_HINTS_H

#include "vmm/memory.h"

struct hints;

/**
 * hints_create() - none yet, of @mem, and nobody wants any.
 */
int __must_check hints_create(const struct memory *mem, struct hints **ret,
			      struct error *err);

/**
 * hints_free() - as it says; NULL is fine.
 */
void hints_free(struct hints *hints);

/**
 * hints_open() - from now on hints are wanted; there are none yet.
 */
void hints_open(struct hints *hints);

/**
 * hints_close() - no more of them; what nobody took is forgotten.
 */
void hints_close(struct hints *hints);

/**
 * hints_add() - the guest does not need the whole pages of @len bytes at @gpa.
 * What is not all RAM is passed over.
 */
void hints_add(struct hints *hints, uint64_t gpa, uint64_t len);

/**
 * hints_take() - hand each hint that came since the last time to @fn. Costs
 * next to nothing when there are none.
 */
void hints_take(struct hints *hints, memory_pages_fn *fn, void *opaque);

#endif
