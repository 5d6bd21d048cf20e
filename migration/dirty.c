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

struct dirty {
	struct memory *mem;
	int vm_fd;
	bool logging;
	bool manual;	  /* KVM_GET_DIRTY_LOG clears nothing */
	uint64_t cleared; /* in this pass up to here, a page index */
	uint64_t nwords;
	uint64_t npending;
	uint64_t *pending;
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
	dirty->log = calloc(dirty->nwords, sizeof(uint64_t));
	dirty->left_out = calloc(dirty->nwords, sizeof(uint64_t));
	if (!dirty->pending || !dirty->log || !dirty->left_out)
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
	free(dirty->log);
	free(dirty->left_out);
	free(dirty);
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
		dirty->npending +=
			(uint64_t)__builtin_popcountll(dirty->pending[i]);
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
	for (uint64_t i = 0; i < dirty->nwords; i++)
		atomic_store(&dirty->mem->dirty[i], 0);
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

static uint64_t count(uint64_t bits)
{
	return (uint64_t)__builtin_popcountll(bits);
}

/* What was left out has been written to, and is like any other page now. */
static void take_in(struct dirty *dirty, uint64_t word, uint64_t bits)
{
	bits &= dirty->left_out[word];
	dirty->left_out[word] &= ~bits;
	dirty->nleft_out -= count(bits);
}

int dirty_sync(struct dirty *dirty, bool last, struct error *err)
{
	_Atomic uint64_t *own = dirty->mem->dirty;
	int rc = get_log(dirty, err);

	if (rc)
		return rc;
	dirty->cleared = last ? dirty->mem->npages : 0;
	for (uint64_t i = 0; i < dirty->nwords; i++) {
		uint64_t found = dirty->log[i];

		/* Mostly nothing: look before the costlier exchange. */
		if (atomic_load_explicit(&own[i], memory_order_relaxed))
			found |= atomic_exchange(&own[i], 0);
		found &= ~dirty->pending[i];
		if (!found)
			continue;
		dirty->pending[i] |= found;
		dirty->npending += count(found);
		take_in(dirty, i, found);
	}
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

/*
 * The first page in [@index, @end) whose bit is @set; @end if there is none.
 */
static uint64_t scan(const struct dirty *dirty, uint64_t index, uint64_t end,
		     bool set)
{
	uint64_t flip = set ? 0 : ~0ULL;
	uint64_t mask = ~0ULL << (index % 64);

	for (uint64_t base = index & ~63ULL; base < end; base += 64) {
		uint64_t bits = (dirty->pending[base / 64] ^ flip) & mask;

		if (bits)
			return MIN(base + (uint64_t)__builtin_ctzll(bits), end);
		mask = ~0ULL;
	}
	return end;
}

uint64_t dirty_next(const struct dirty *dirty, uint64_t *index, uint64_t max)
{
	uint64_t npages = dirty->mem->npages;
	uint64_t first = scan(dirty, *index, npages, true);
	uint64_t end;

	if (first == npages)
		return 0;
	end = scan(dirty, first, MIN(first + max, npages), false);
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
