/* SPDX-License-Identifier: MIT */
/*
 * Guest memory on the wire: pending pages into PAGES and ZERO records at the
 * source, with word of it ahead in EXPECT, and records into memory at the
 * target.
 *
 * A page of zeroes costs the sender a look and the wire a share of a run; one
 * that was never touched costs nothing (dirty.h). At the target memory starts
 * out zero, so a zero page that never received data is not even touched, and
 * the host allocates nothing for it.
 */
#ifndef GODWIT_PAGES_H
#define GODWIT_PAGES_H

#include "migration/dirty.h"
#include "migration/populate.h"
#include "migration/stream.h"

/* What a stretch of sending moved. */
struct page_counts {
	uint64_t pages; /* with data */
	uint64_t zero_pages;
	uint64_t bytes; /* on the wire, all of it */
};

/*
 * Called before each record of page data, so that the caller may slow down,
 * look at a clock, or give up by returning an error. PAGES_ENOUGH: send what
 * was begun, and leave the rest pending.
 */
#define PAGES_ENOUGH 1

typedef int pages_pace_fn(void *opaque, size_t bytes, struct error *err);

struct page_sender;

/**
 * page_sender_create() - buffers for sending @mem over @stream.
 */
int __must_check page_sender_create(struct stream *stream,
				    const struct memory *mem,
				    struct page_sender **ret,
				    struct error *err);

void page_sender_free(struct page_sender *sender);

/**
 * page_sender_send() - send every page that is pending in @dirty, or until
 * @pace has enough.
 * @hints: pages that need not be sent, see dirty_heed_hints(); NULL: none.
 * @deadline_ns: for each record: how long from now it may take.
 * @counts: added to.
 */
int __must_check page_sender_send(struct page_sender *sender,
				  struct dirty *dirty, struct hints *hints,
				  uint64_t patience_ns, pages_pace_fn *pace,
				  void *opaque, struct page_counts *counts,
				  struct error *err);

struct page_receiver;

/**
 * page_receiver_create() - for @mem, which is all zero and untouched.
 * @populate: is told what EXPECT says.
 */
int __must_check page_receiver_create(struct memory *mem,
				      struct populate *populate,
				      struct page_receiver **ret,
				      struct error *err);

void page_receiver_free(struct page_receiver *receiver);

/**
 * page_receiver_take() - carry out a PAGES, ZERO or EXPECT record.
 *
 * Every run is checked against the memory map before the first byte is
 * written.
 */
int __must_check page_receiver_take(struct page_receiver *receiver,
				    struct stream *stream,
				    const struct record *record,
				    uint64_t deadline_ns, struct error *err);

#endif
