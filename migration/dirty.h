/* SPDX-License-Identifier: MIT */
/*
 * Which pages still have to be sent.
 *
 * While tracking is on, a page is in one of three places: unchanged since it
 * was sent; in KVM's dirty log or the VMM's own bitmap (memory.h), not noticed
 * yet; or pending here. dirty_sync() moves pages from the second place to the
 * third, dirty_take() from the third to the first, just before the page is
 * read. A page written after that is found by the next sync. So nothing is
 * ever lost, and at most it is sent twice.
 *
 * A page that the guest has hinted to be free (vmm/hints.h) leaves the third
 * place without being sent: it is left out, until it is found to be written to.
 * A hint stands for what the page held when the guest was asked, after
 * tracking had begun. So it is good as long as nothing that was found since
 * then has been forgotten, which dirty_take() makes KVM do, in a stretch ahead
 * of the sender: behind the end of that stretch hints are heeded, before it
 * they come too late. And none is heeded after a sync.
 *
 * Threads: one; the VM may run.
 */
#ifndef GODWIT_DIRTY_H
#define GODWIT_DIRTY_H

#include "vmm/hints.h"
#include "vmm/memory.h"

struct dirty;

/**
 * dirty_create() - bitmaps for a VM's memory; tracking is off.
 */
int __must_check dirty_create(struct memory *mem, int vm_fd, struct dirty **ret,
			      struct error *err);

/**
 * dirty_free() - as it says; switch tracking off first. NULL is fine.
 */
void dirty_free(struct dirty *dirty);

/**
 * dirty_start() - switch tracking on; every page is pending that was ever
 * touched. The others are zero, as they are at a fresh target.
 * @pagemap_fd: /proc/self/pagemap; -1: every page is pending.
 */
int __must_check dirty_start(struct dirty *dirty, int pagemap_fd,
			     struct error *err);

/**
 * dirty_stop() - switch KVM's logging off. On a big guest this takes tens of
 * milliseconds: never inside the pause.
 */
void dirty_stop(struct dirty *dirty);

/**
 * dirty_sync() - gather what was written since the last sync.
 * @last: the guest stands still, and nothing needs to be noticed any more.
 */
int __must_check dirty_sync(struct dirty *dirty, bool last, struct error *err);

/**
 * dirty_pending() - how many pages are pending.
 */
uint64_t dirty_pending(const struct dirty *dirty);

/**
 * dirty_next() - the first run of pending pages at or after page *@index.
 * @max: longest run wanted, pages.
 * @index: on return the run's first page.
 *
 * Return: the run's length, 0 when there is none. Runs never cross the end of
 * a memory region.
 */
uint64_t dirty_next(const struct dirty *dirty, uint64_t *index, uint64_t max);

/**
 * dirty_heed_hints() - leave out pages that @hints say are free, which were
 * never sent. @hints were opened after dirty_start(), and are closed before
 * the first dirty_sync().
 */
void dirty_heed_hints(struct dirty *dirty, struct hints *hints);

/**
 * dirty_left_out() - pages that were left out and not written to since, as far
 * as is known: at the target they are zero and untouched.
 * @ret_pages: a bit a page index; NULL: never mind.
 *
 * Return: how many.
 */
uint64_t dirty_left_out(const struct dirty *dirty, const uint64_t **ret_pages);

/**
 * dirty_take() - @npages from page @index on, which are pending, are about to
 * be read and sent. Between two syncs pages are taken in rising order.
 */
int __must_check dirty_take(struct dirty *dirty, uint64_t index,
			    uint64_t npages, struct error *err);

#endif
