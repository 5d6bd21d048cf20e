// SPDX-License-Identifier: MIT
/*
 * Pages on the wire; see pages.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/pages.h"

/*
 * Zero pages cost no bytes, but finding out takes time: a peer that hears
 * nothing for as long as a big empty guest takes to read would give up.
 */
#define ZERO_PAGES_PER_BATCH (256 * MIB / GUEST_PAGE_SIZE)

/*
 * The target is told of blocks of a huge page, so far ahead at most and half of
 * that at least: enough for it to be in front of the data, and little enough to
 * look at before anything is sent.
 */
#define EXPECT_BLOCK (2 * MIB / GUEST_PAGE_SIZE)
#define EXPECT_AHEAD (64 * MIB / GUEST_PAGE_SIZE)

struct batch {
	uint32_t nruns;
	uint32_t npages;
	struct wire_run runs[WIRE_RUNS_MAX];
};

struct page_sender {
	struct stream *stream;
	const struct memory *mem;
	struct batch data;
	struct batch zero;
	struct batch expect;
	uint64_t expected; /* told of what comes up to here, a page index */
	/* of the send in progress */
	uint64_t patience_ns;
	pages_pace_fn *pace;
	void *opaque;
	bool enough; /* @pace has said so */
	struct page_counts *counts;
};

int page_sender_create(struct stream *stream, const struct memory *mem,
		       struct page_sender **ret, struct error *err)
{
	struct page_sender *sender = calloc(1, sizeof(*sender));

	if (!sender)
		return error_set(err, -ENOMEM, "page sender: out of memory");
	sender->stream = stream;
	sender->mem = mem;
	*ret = sender;
	return 0;
}

void page_sender_free(struct page_sender *sender)
{
	free(sender);
}

/* Four words at a time; the compiler makes vectors of it. */
static bool is_zero(const void *page)
{
	const uint64_t *word = page;

	for (size_t i = 0; i < GUEST_PAGE_SIZE / sizeof(*word); i += 8) {
		if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] |
		    word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
			return false;
	}
	return true;
}

static int flush(struct page_sender *sender, struct batch *batch,
		 enum wire_type type, struct error *err)
{
	uint64_t before = sender->stream->bytes_sent;
	size_t bytes = batch->nruns * sizeof(batch->runs[0]);
	int rc;

	if (!batch->nruns)
		return 0;
	if (type == WIRE_PAGES)
		bytes += (size_t)batch->npages << GUEST_PAGE_SHIFT;
	rc = sender->pace(sender->opaque, bytes, err);
	sender->enough |= rc == PAGES_ENOUGH;
	if (rc >= 0)
		rc = stream_send_runs(sender->stream, type, sender->mem,
				      batch->runs, batch->nruns,
				      clock_ns() + sender->patience_ns, err);
	batch->nruns = 0;
	batch->npages = 0;
	sender->counts->bytes += sender->stream->bytes_sent - before;
	return rc;
}

static void append(struct batch *batch, uint64_t gpa, uint32_t npages)
{
	struct wire_run *last = &batch->runs[batch->nruns - 1];

	if (batch->nruns &&
	    last->gpa + ((uint64_t)last->npages << GUEST_PAGE_SHIFT) == gpa)
		last->npages += npages;
	else
		batch->runs[batch->nruns++] =
			(struct wire_run){ .gpa = gpa, .npages = npages };
	batch->npages += npages;
}

/*
 * Will a block hold data at the target that is worth making it for? A block of
 * zeroes takes no memory there, and one with few pages only where it is a huge
 * page here.
 */
static bool holds_data(const struct page_sender *sender,
		       const struct dirty *dirty, uint64_t first, uint64_t end)
{
	uint64_t index = first;
	uint64_t npending = 0;
	bool data = false;

	while (index < end) {
		uint64_t npages = dirty_next(dirty, &index, end - index);

		if (!npages || index >= end)
			break;
		npages = MIN(npages, end - index);
		for (uint64_t i = 0; i < npages && !data; i++)
			data = !is_zero(
				memory_page_hva(sender->mem, index + i));
		npending += npages;
		index += npages;
	}
	return data && npending >= (end - first) / 2;
}

/* Tell the target which blocks up to page @end data will come into. */
static int expect(struct page_sender *sender, const struct dirty *dirty,
		  uint64_t end, struct error *err)
{
	const struct memory *mem = sender->mem;
	uint64_t index = sender->expected;

	end = MIN(end, mem->npages);
	while (index < end) {
		const struct memory_region *region;
		uint64_t first;

		if (!dirty_next(dirty, &index, 1))
			index = mem->npages;
		if (index >= end)
			break;
		region = &mem->regions[memory_page_region(mem, index)];
		first = index - (index - region->first_page) % EXPECT_BLOCK;
		index = first + memory_run_length(mem, first, EXPECT_BLOCK);
		if (holds_data(sender, dirty, first, index))
			append(&sender->expect, memory_page_gpa(mem, first),
			       (uint32_t)(index - first));
	}
	sender->expected = index;
	return flush(sender, &sender->expect, WIRE_EXPECT, err);
}

/* Add @npages pages of one kind, contiguous from @gpa; send what is full. */
static int add(struct page_sender *sender, bool zero, uint64_t gpa,
	       uint32_t npages, struct error *err)
{
	struct batch *batch = zero ? &sender->zero : &sender->data;

	append(batch, gpa, npages);
	if (zero)
		sender->counts->zero_pages += npages;
	else
		sender->counts->pages += npages;
	if (batch->nruns < WIRE_RUNS_MAX &&
	    batch->npages <
		    (zero ? ZERO_PAGES_PER_BATCH : WIRE_PAGES_PER_BATCH))
		return 0;
	return flush(sender, batch, zero ? WIRE_ZERO : WIRE_PAGES, err);
}

/* Split a run of pending pages into stretches of zero and data pages. */
static int send_run(struct page_sender *sender, uint64_t index, uint64_t npages,
		    struct error *err)
{
	const uint8_t *hva = memory_page_hva(sender->mem, index);
	uint64_t gpa = memory_page_gpa(sender->mem, index);
	uint64_t done = 0;

	while (done < npages) {
		bool zero = is_zero(hva + (done << GUEST_PAGE_SHIFT));
		uint64_t room =
			zero ? npages - done
			     : WIRE_PAGES_PER_BATCH - sender->data.npages;
		uint64_t end = done + 1;
		int rc;

		while (end < npages && end - done < room &&
		       is_zero(hva + (end << GUEST_PAGE_SHIFT)) == zero)
			end++;
		rc = add(sender, zero, gpa + (done << GUEST_PAGE_SHIFT),
			 (uint32_t)(end - done), err);
		if (rc)
			return rc;
		done = end;
	}
	return 0;
}

int page_sender_send(struct page_sender *sender, struct dirty *dirty,
		     struct hints *hints, uint64_t patience_ns,
		     pages_pace_fn *pace, void *opaque,
		     struct page_counts *counts, struct error *err)
{
	uint64_t index = 0;
	uint64_t npages;
	int rc = 0;

	sender->patience_ns = patience_ns;
	sender->pace = pace;
	sender->opaque = opaque;
	sender->counts = counts;
	sender->data.nruns = sender->data.npages = 0;
	sender->zero.nruns = sender->zero.npages = 0;
	sender->enough = false;
	while (!rc && !sender->enough) {
		if (hints)
			dirty_heed_hints(dirty, hints);
		npages = dirty_next(dirty, &index, WIRE_PAGES_PER_BATCH);
		if (!npages)
			break;
		sender->expected = MAX(sender->expected, index);
		if (sender->expected < index + EXPECT_AHEAD / 2)
			rc = expect(sender, dirty, index + EXPECT_AHEAD, err);
		if (!rc)
			rc = dirty_take(dirty, index, npages, err);
		if (!rc)
			rc = send_run(sender, index, npages, err);
		index += npages;
	}
	/* What is sent from now on goes where most has been before. */
	sender->expected = sender->mem->npages;
	if (!rc)
		rc = flush(sender, &sender->data, WIRE_PAGES, err);
	if (!rc)
		rc = flush(sender, &sender->zero, WIRE_ZERO, err);
	return rc;
}

/* ---- the target's side ---- */

struct page_receiver {
	struct memory *mem;
	struct populate *populate;
	uint64_t *touched; /* pages that data was received into */
	struct iovec iov[WIRE_RUNS_MAX];
};

int page_receiver_create(struct memory *mem, struct populate *populate,
			 struct page_receiver **ret, struct error *err)
{
	struct page_receiver *receiver = calloc(1, sizeof(*receiver));

	if (receiver)
		receiver->touched = calloc(mem->npages / 64, sizeof(uint64_t));
	if (!receiver || !receiver->touched) {
		page_receiver_free(receiver);
		return error_set(err, -ENOMEM, "page receiver: out of memory");
	}
	receiver->mem = mem;
	receiver->populate = populate;
	*ret = receiver;
	return 0;
}

void page_receiver_free(struct page_receiver *receiver)
{
	if (!receiver)
		return;
	free(receiver->touched);
	free(receiver);
}

static int bad_run(const struct wire_run *run, const char *why,
		   struct error *err)
{
	return error_set(err, -EBADMSG, "pages 0x%llx+%u: %s",
			 (unsigned long long)run->gpa, run->npages, why);
}

static int check_run(const struct page_receiver *receiver,
		     const struct wire_run *run, struct error *err)
{
	uint64_t bytes = (uint64_t)run->npages << GUEST_PAGE_SHIFT;

	if (!run->npages || run->reserved)
		return bad_run(run, "not a proper run", err);
	if (run->gpa % GUEST_PAGE_SIZE)
		return bad_run(run, "not page aligned", err);
	if (!memory_hva(receiver->mem, run->gpa, bytes))
		return bad_run(run, "outside guest memory", err);
	return 0;
}

/* Check the whole table; the length too, which PAGES had checked before. */
static int parse_runs(const struct page_receiver *receiver,
		      const struct record *record, const struct wire_run **ret,
		      struct wire_runs_header *front, struct error *err)
{
	const struct wire_run *runs;
	uint64_t npages = 0;

	if (record->length < sizeof(*front))
		return error_set(err, -EBADMSG, "record of runs: truncated");
	memcpy(front, record->payload, sizeof(*front));
	runs = (const void *)(record->payload + sizeof(*front));
	if (!front->nruns || front->nruns > WIRE_RUNS_MAX ||
	    record->length != sizeof(*front) + front->nruns * sizeof(*runs))
		return error_set(err, -EBADMSG,
				 "record of runs: %u runs in "
				 "%u bytes",
				 front->nruns, record->length);
	for (uint32_t i = 0; i < front->nruns; i++) {
		struct wire_run run;
		int rc;

		memcpy(&run, &runs[i], sizeof(run));
		rc = check_run(receiver, &run, err);
		if (rc)
			return rc;
		npages += run.npages;
	}
	if (npages != front->npages)
		return error_set(err, -EBADMSG,
				 "record of runs: %llu pages, "
				 "said to be %u",
				 (unsigned long long)npages, front->npages);
	*ret = runs;
	return 0;
}

static uint64_t run_index(const struct page_receiver *receiver, uint64_t gpa)
{
	uint64_t index = 0;

	/* Can't fail: the run was checked. */
	(void)!memory_page_index(receiver->mem, gpa, &index);
	return index;
}

static void touch(struct page_receiver *receiver, const struct wire_run *run)
{
	uint64_t index = run_index(receiver, run->gpa);

	populate_passed(receiver->populate, index + run->npages);
	for (uint64_t page = index; page < index + run->npages; page++)
		receiver->touched[page / 64] |= 1ULL << (page % 64);
}

/* Only pages that hold data need to be made zero. */
static void clear(struct page_receiver *receiver, const struct wire_run *run)
{
	uint64_t index = run_index(receiver, run->gpa);

	for (uint64_t page = index; page < index + run->npages; page++) {
		if (receiver->touched[page / 64] & 1ULL << (page % 64))
			memset(memory_page_hva(receiver->mem, page), 0,
			       GUEST_PAGE_SIZE);
	}
}

static void clear_or_expect(struct page_receiver *receiver, uint32_t type,
			    const struct wire_run *run)
{
	if (type == WIRE_ZERO)
		clear(receiver, run);
	else
		populate_expect(receiver->populate,
				run_index(receiver, run->gpa), run->npages);
}

int page_receiver_take(struct page_receiver *receiver, struct stream *stream,
		       const struct record *record, uint64_t deadline_ns,
		       struct error *err)
{
	struct wire_runs_header front;
	const struct wire_run *runs = NULL;
	struct wire_run run;
	int rc = parse_runs(receiver, record, &runs, &front, err);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < front.nruns; i++) {
		memcpy(&run, &runs[i], sizeof(run));
		if (record->type != WIRE_PAGES) {
			clear_or_expect(receiver, record->type, &run);
			continue;
		}
		touch(receiver, &run);
		receiver->iov[i].iov_len = (size_t)run.npages
					   << GUEST_PAGE_SHIFT;
		receiver->iov[i].iov_base = memory_hva(
			receiver->mem, run.gpa, receiver->iov[i].iov_len);
	}
	if (record->type != WIRE_PAGES)
		return 0;
	return stream_recv_data(stream, receiver->iov, front.nruns, deadline_ns,
				err);
}
