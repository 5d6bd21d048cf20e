// SPDX-License-Identifier: MIT
/*
 * Dirty tracking with KVM_GET_DIRTY_LOG; see dirty.h.
 *
 * KVM wants a bitmap a memslot, as long as the slot; regions begin at a
 * multiple of 64 pages, so all slots' logs land in one dense bitmap of words.
 *
 * By default KVM_GET_DIRTY_LOG also clears what it says: it protects those
 * pages against writing, so as to notice the next one. A page that is then
 * written before its turn to be sent comes is sent twice. Where KVM can
 * (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), we clear only a stretch ahead of the
 * sender, with KVM_CLEAR_DIRTY_LOG, so that such a page is sent once, and costs
 * the guest one fault less.
 *
 * With KVM_DIRTY_LOG_INITIALLY_SET the start would not protect all pages at
 * once: each would be unprotected, and dirty, until it is cleared. But then
 * pages that were never touched have to be cleared, too, so that a first write
 * to them is noticed; and all of them before the guest is asked for hints
 * (dirty.h). With 16 GiB of which little was in use, that made the whole move
 * take twice as long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/dirty.h"
#include "vmm/log.h"

/*
 * Pages cleared at a time: far enough ahead that the call, which makes every
 * vCPU forget its cached translations, costs little; near enough that few pages
 * are written again before they are sent. A multiple of 64.
 */
#define CLEAR_AHEAD 2048

/* Words of a log that are looked at together, for mostly there is nothing. */
#define STEP 8

struct dirty {
	struct memory *mem;
	int vm_fd;
	bool logging;
	bool manual;	  /* KVM_GET_DIRTY_LOG clears nothing */
	uint64_t cleared; /* in this pass up to here, a page index */
	uint64_t nwords;
	uint64_t npending;
	uint64_t *pending;
	uint64_t *some; /* words of it that may have bits: a bit each */
	uint64_t nleft_out;
	uint64_t *left_out; /* hinted to be free, and never sent */
	uint64_t *log;	    /* what KVM says, before it is merged */
};

int dirty_create(struct memory *mem, int vm_fd, struct dirty **ret,
		 struct error *err)
{
	struct dirty *dirty = calloc(1, sizeof(*dirty));

	if (!dirty)
		goto no_memory;
	dirty->mem = mem;
	dirty->vm_fd = vm_fd;
	dirty->nwords = mem->npages / 64;
	dirty->pending = calloc(dirty->nwords, sizeof(uint64_t));
	dirty->some = calloc(dirty->nwords / 64 + 1, sizeof(uint64_t));
	/* Looked through in whole steps. */
	dirty->log = calloc(align_up(dirty->nwords, STEP), sizeof(uint64_t));
	dirty->left_out = calloc(dirty->nwords, sizeof(uint64_t));
	if (!dirty->pending || !dirty->some || !dirty->log || !dirty->left_out)
		goto no_memory;
	*ret = dirty;
	return 0;

no_memory:
	dirty_free(dirty);
	return error_set(err, -ENOMEM, "dirty bitmaps: out of memory");
}

void dirty_free(struct dirty *dirty)
{
	if (!dirty)
		return;
	free(dirty->pending);
	free(dirty->some);
	free(dirty->log);
	free(dirty->left_out);
	free(dirty);
}

static uint64_t count(uint64_t bits)
{
	return (uint64_t)__builtin_popcountll(bits);
}

/* Tracking is on already: what is touched from now on will be found dirty. */
static void find_touched(struct dirty *dirty, int pagemap_fd)
{
	int rc = memory_find_touched(dirty->mem, pagemap_fd, dirty->pending);

	/* Not knowing costs time and nothing else. */
	if (rc) {
		log_debug("/proc/self/pagemap: %s", strerror(-rc));
		memset(dirty->pending, 0xff, dirty->nwords * sizeof(uint64_t));
	}
	dirty->npending = 0;
	for (uint64_t i = 0; i < dirty->nwords; i++)
		dirty->npending += count(dirty->pending[i]);
	memset(dirty->some, 0xff, (dirty->nwords / 64 + 1) * sizeof(uint64_t));
}

static bool enable_manual(struct dirty *dirty)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE },
	};
	struct error err;

	return KVM_IOCTL(dirty->vm_fd, KVM_ENABLE_CAP, &cap, &err) >= 0;
}

int dirty_start(struct dirty *dirty, int pagemap_fd, struct error *err)
{
	int rc;

	dirty->manual = enable_manual(dirty);
	dirty->cleared = 0;
	rc = memory_attach(dirty->mem, dirty->vm_fd, true, err);
	/* Half of the slots may be logging already. */
	dirty->logging = true;
	if (rc) {
		dirty_stop(dirty);
		return rc;
	}
	/* Older writes are in what is read from now on. */
	memory_take_dirty(dirty->mem, NULL, NULL);
	memset(dirty->left_out, 0, dirty->nwords * sizeof(uint64_t));
	dirty->nleft_out = 0;
	find_touched(dirty, pagemap_fd);
	return 0;
}

void dirty_stop(struct dirty *dirty)
{
	struct error err;

	/*
	 * It can't fail for slots that exist; if it did, the guest would be a
	 * little slower and nothing else.
	 */
	if (dirty->logging)
		(void)!memory_attach(dirty->mem, dirty->vm_fd, false, &err);
	dirty->logging = false;
}

static int get_log(struct dirty *dirty, struct error *err)
{
	for (unsigned int i = 0; i < dirty->mem->nregions; i++) {
		struct kvm_dirty_log log = {
			.slot = i,
			.dirty_bitmap = dirty->log +
					dirty->mem->regions[i].first_page / 64,
		};
		int rc = KVM_IOCTL(dirty->vm_fd, KVM_GET_DIRTY_LOG, &log, err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What was left out has been written to, and is like any other page now. */
static void take_in(struct dirty *dirty, uint64_t word, uint64_t bits)
{
	bits &= dirty->left_out[word];
	dirty->left_out[word] &= ~bits;
	dirty->nleft_out -= count(bits);
}

static void found(void *opaque, uint64_t word, uint64_t bits)
{
	struct dirty *dirty = opaque;

	bits &= ~dirty->pending[word];
	if (!bits)
		return;
	dirty->pending[word] |= bits;
	dirty->some[word / 64] |= 1ULL << word % 64;
	dirty->npending += count(bits);
	take_in(dirty, word, bits);
}

static void find_all(struct dirty *dirty, uint64_t word, uint64_t end)
{
	for (; word < end; word++)
		if (dirty->log[word])
			found(dirty, word, dirty->log[word]);
}

static bool any(const uint64_t *step)
{
	return step[0] | step[1] | step[2] | step[3] | step[4] | step[5] |
	       step[6] | step[7];
}

int dirty_sync(struct dirty *dirty, bool last, struct error *err)
{
	int rc = get_log(dirty, err);

	if (rc)
		return rc;
	dirty->cleared = last ? dirty->mem->npages : 0;
	for (uint64_t i = 0; i < dirty->nwords; i += STEP)
		if (any(dirty->log + i))
			find_all(dirty, i, MIN(i + STEP, dirty->nwords));
	memory_take_dirty(dirty->mem, found, dirty);
	return 0;
}

/* A word is before the end of what was cleared, or behind it: both are whole.
 */
static void leave_out(void *opaque, uint64_t word, uint64_t bits)
{
	struct dirty *dirty = opaque;

	if (word * 64 < dirty->cleared)
		return;
	bits &= dirty->pending[word];
	dirty->pending[word] &= ~bits;
	dirty->npending -= count(bits);
	dirty->left_out[word] |= bits;
	dirty->nleft_out += count(bits);
}

void dirty_heed_hints(struct dirty *dirty, struct hints *hints)
{
	hints_take(hints, leave_out, dirty);
}

uint64_t dirty_left_out(const struct dirty *dirty, const uint64_t **ret_pages)
{
	if (ret_pages)
		*ret_pages = dirty->left_out;
	return dirty->nleft_out;
}

uint64_t dirty_pending(const struct dirty *dirty)
{
	return dirty->npending;
}

/* The first word from @word on with a bit; the number of words: none. */
static uint64_t next_word(const struct dirty *dirty, uint64_t word)
{
	uint64_t mask = ~0ULL << word % 64;

	for (uint64_t i = word / 64; i * 64 < dirty->nwords; i++) {
		uint64_t *some = &dirty->some[i];

		for (uint64_t bits = *some & mask; bits; bits &= bits - 1) {
			word = i * 64 + (uint64_t)__builtin_ctzll(bits);
			if (word >= dirty->nwords)
				break;
			if (dirty->pending[word])
				return word;
			*some &= ~(1ULL << word % 64);
		}
		mask = ~0ULL;
	}
	return dirty->nwords;
}

/* The first pending page from @index on; the number of pages: none. */
static uint64_t first_pending(const struct dirty *dirty, uint64_t index)
{
	uint64_t word = index / 64;
	uint64_t bits;

	if (word >= dirty->nwords)
		return dirty->mem->npages;
	bits = dirty->pending[word] & ~0ULL << index % 64;
	if (!bits) {
		word = next_word(dirty, word + 1);
		if (word == dirty->nwords)
			return dirty->mem->npages;
		bits = dirty->pending[word];
	}
	return word * 64 + (uint64_t)__builtin_ctzll(bits);
}

/* The first page from @index on that is not pending, @end at most. */
static uint64_t end_of_run(const struct dirty *dirty, uint64_t index,
			   uint64_t end)
{
	uint64_t mask = ~0ULL << index % 64;

	for (uint64_t word = index / 64; word * 64 < end; word++) {
		uint64_t bits = ~dirty->pending[word] & mask;

		if (bits)
			return MIN(word * 64 + (uint64_t)__builtin_ctzll(bits),
				   end);
		mask = ~0ULL;
	}
	return end;
}

uint64_t dirty_next(const struct dirty *dirty, uint64_t *index, uint64_t max)
{
	uint64_t npages = dirty->mem->npages;
	uint64_t first = first_pending(dirty, *index);
	uint64_t end;

	if (first == npages)
		return 0;
	end = end_of_run(dirty, first, MIN(first + max, npages));
	*index = first;
	return memory_run_length(dirty->mem, first, end - first);
}

/* Clear what is pending in the stretch that begins at page @index. */
static int clear_ahead(struct dirty *dirty, uint64_t index, struct error *err)
{
	const struct memory *mem = dirty->mem;
	uint64_t first = index & ~63ULL;
	uint64_t npages = memory_run_length(
		mem, first, MIN(CLEAR_AHEAD, mem->npages - first));
	unsigned int slot = memory_page_region(mem, first);
	struct kvm_clear_dirty_log clear = {
		.slot = slot,
		.first_page = first - mem->regions[slot].first_page,
		.num_pages = (uint32_t)npages,
		.dirty_bitmap = dirty->pending + first / 64,
	};

	dirty->cleared = first + npages;
	return MIN(KVM_IOCTL(dirty->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear, err),
		   0);
}

int dirty_take(struct dirty *dirty, uint64_t index, uint64_t npages,
	       struct error *err)
{
	uint64_t end = index + npages;
	int rc = 0;

	while (!rc && dirty->manual && end > dirty->cleared)
		rc = clear_ahead(dirty, MAX(dirty->cleared, index), err);
	if (rc)
		return rc;
	for (uint64_t page = index; page < end; page++)
		dirty->pending[page / 64] &= ~(1ULL << (page % 64));
	dirty->npending -= npages;
	return 0;
}
