// SPDX-License-Identifier: MIT
/*
 * Split virtqueues; see queue.h. Sections are those of VIRTIO 1.2.
 *
 * The guest's processors write the rings while we read them. So each value is
 * read once, into a variable of ours, and all decisions are made on that; and
 * the order of reads and writes between us and them is stated by acquire,
 * release and full fences, where section 2.7.13 wants barriers.
 *
 * Invariants, while the queue is started and not broken:
 *   1. At most `size` chains have been taken and not given back: a chain begins
 *      at a descriptor of its own, so more would be a driver's fault.
 *   2. signalled_used is 0 while signalled_valid is false.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "devices/virtio/queue.h"

/* Ring fields are little-endian, and so is every host that has us. */
static_assert(BYTE_ORDER == LITTLE_ENDIAN, "rings are read as they are");

#define DESC_F_NEXT	1
#define DESC_F_WRITE	2
#define DESC_F_INDIRECT 4

#define AVAIL_F_NO_INTERRUPT 1
#define USED_F_NO_NOTIFY     1

/* Section 2.7.5.3.1: no chain is longer, in bytes. */
#define CHAIN_BYTES_MAX (1ULL << 32)

/* Section 2.7.5. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
static_assert(sizeof(struct desc) == 16, "on the wire");

/* Sections 2.7.6 and 2.7.8; a uint16_t follows either's ring. */
struct avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};

struct used_elem {
	uint32_t id;
	uint32_t len;
};

struct used {
	uint16_t flags;
	uint16_t idx;
	struct used_elem ring[];
};

static uint64_t desc_bytes(uint16_t size)
{
	return size * sizeof(struct desc);
}

static uint64_t avail_bytes(uint16_t size)
{
	return sizeof(struct avail) + size * sizeof(uint16_t) +
	       sizeof(uint16_t);
}

static uint64_t used_bytes(uint16_t size)
{
	return sizeof(struct used) + size * sizeof(struct used_elem) +
	       sizeof(uint16_t);
}

static bool size_is_valid(uint16_t size, uint16_t max)
{
	return size && size <= max && !(size & (size - 1));
}

static void break_queue(struct virtqueue *vq, const char *why)
{
	vq->broken = true;
	vq->why = why;
}

/* ---- the rings, field by field ---- */

static bool is_served(const struct virtqueue *vq)
{
	return vq->used && !vq->broken;
}

static uint16_t avail_idx(const struct virtqueue *vq)
{
	const struct avail *avail = vq->avail;

	/* What the index announces is read after it. */
	return __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE);
}

static uint16_t avail_flags(const struct virtqueue *vq)
{
	const struct avail *avail = vq->avail;

	return __atomic_load_n(&avail->flags, __ATOMIC_RELAXED);
}

static uint16_t avail_entry(const struct virtqueue *vq, uint16_t index)
{
	const struct avail *avail = vq->avail;

	return __atomic_load_n(&avail->ring[index % vq->state.size],
			       __ATOMIC_RELAXED);
}

/* The used index at which the guest wants an interrupt; behind its ring. */
static uint16_t used_event(const struct virtqueue *vq)
{
	const struct avail *avail = vq->avail;

	return __atomic_load_n(&avail->ring[vq->state.size], __ATOMIC_RELAXED);
}

static void store_used16(struct virtqueue *vq, uint64_t offset, uint16_t value,
			 int order)
{
	uint16_t *at = (uint16_t *)((uint8_t *)vq->used + offset);

	if (order == __ATOMIC_RELEASE)
		__atomic_store_n(at, value, __ATOMIC_RELEASE);
	else
		__atomic_store_n(at, value, __ATOMIC_RELAXED);
	memory_mark_dirty(vq->mem, vq->state.used + offset, sizeof(value));
}

static void store_used_elem(struct virtqueue *vq, uint16_t position,
			    uint16_t head, uint32_t len)
{
	uint16_t index = position % vq->state.size;
	struct used *used = vq->used;

	__atomic_store_n(&used->ring[index].id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&used->ring[index].len, len, __ATOMIC_RELAXED);
	memory_mark_dirty(vq->mem,
			  vq->state.used + offsetof(struct used, ring) +
				  index * sizeof(struct used_elem),
			  sizeof(struct used_elem));
}

/*
 * Section 2.7.13.4 and 2.7.10: between what we have published and what we read
 * next lies a full barrier, or both sides could miss each other's news.
 */
static void ring_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- life ---- */

static void *ring_hva(const struct virtqueue *vq, uint64_t gpa, uint64_t len,
		      uint64_t align)
{
	return gpa % align ? NULL : memory_hva(vq->mem, gpa, len);
}

int virtqueue_start(struct virtqueue *vq, struct memory *mem, bool event_idx,
		    bool indirect)
{
	const struct virtqueue_state *s = &vq->state;

	vq->mem = mem;
	vq->event_idx = event_idx;
	vq->indirect = indirect;
	vq->broken = false;
	vq->why = NULL;
	virtqueue_stop(vq);
	if (!size_is_valid(s->size, VIRTQUEUE_SIZE_MAX)) {
		break_queue(vq, "its size is not a power of two in range");
		return -EINVAL;
	}
	/* Alignments: section 2.7. */
	vq->desc = ring_hva(vq, s->desc, desc_bytes(s->size), 16);
	vq->avail = ring_hva(vq, s->avail, avail_bytes(s->size), 2);
	vq->used = ring_hva(vq, s->used, used_bytes(s->size), 4);
	if (vq->desc && vq->avail && vq->used)
		return 0;
	virtqueue_stop(vq);
	break_queue(vq, "a ring is not in RAM or not aligned");
	return -EINVAL;
}

void virtqueue_stop(struct virtqueue *vq)
{
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
}

/* ---- taking chains ---- */

/* Where a chain is being read: the queue's table, or an indirect one. */
struct walk {
	const uint8_t *table;
	uint32_t entries;
	bool indirect;
	bool writable;	   /* a writable buffer has been seen */
	unsigned int seen; /* descriptors of this table */
};

/* Indirect tables may lie at odd addresses, so no atomic types here. */
static struct desc read_desc(const uint8_t *table, uint32_t index)
{
	struct desc desc;

	memcpy(&desc, table + index * sizeof(desc), sizeof(desc));
	/* Whatever the guest writes from here on, this copy is what counts. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return desc;
}

/* Sections 2.7.5.3.1 and 2.7.5.3.2. */
static const char *enter_indirect(const struct virtqueue *vq, struct walk *walk,
				  const struct desc *desc)
{
	if (!vq->indirect)
		return "an indirect descriptor was not negotiated";
	if (walk->indirect)
		return "an indirect table points to another";
	if (desc->flags & DESC_F_NEXT)
		return "an indirect descriptor has a next one";
	if (!desc->len || desc->len % sizeof(struct desc))
		return "an indirect table's length is no multiple of 16";
	walk->table = memory_hva(vq->mem, desc->addr, desc->len);
	if (!walk->table)
		return "an indirect table is not in RAM";
	walk->entries = desc->len / sizeof(struct desc);
	walk->indirect = true;
	walk->seen = 0;
	return NULL;
}

static const char *add_buffer(const struct virtqueue *vq, struct walk *walk,
			      const struct desc *desc,
			      struct virtqueue_chain *chain)
{
	unsigned int n = chain->nreadable + chain->nwritable;
	bool writable = desc->flags & DESC_F_WRITE;
	void *hva;

	/* Section 2.7.4.2. */
	if (walk->writable && !writable)
		return "a readable buffer comes after a writable one";
	walk->writable = writable;
	/* No words on empty buffers there: they are nowhere, and hold nothing.
	 */
	if (!desc->len)
		return NULL;
	if (n == VIRTQUEUE_SEGMENTS)
		return "a chain has too many buffers";
	hva = memory_hva(vq->mem, desc->addr, desc->len);
	if (!hva)
		return "a buffer is not in RAM";
	chain->iov[n].iov_base = hva;
	chain->iov[n].iov_len = desc->len;
	chain->gpa[n] = desc->addr;
	*(writable ? &chain->nwritable : &chain->nreadable) += 1;
	*(writable ? &chain->writable : &chain->readable) += desc->len;
	if (chain->readable + chain->writable > CHAIN_BYTES_MAX)
		return "a chain holds more than 4 GiB";
	return NULL;
}

/* A chain that is longer than its table has a loop. */
static bool is_too_long(const struct walk *walk)
{
	return walk->seen > MIN(walk->entries, VIRTQUEUE_SEGMENTS);
}

static const char *gather(const struct virtqueue *vq, uint16_t head,
			  struct virtqueue_chain *chain)
{
	struct walk walk = { .table = vq->desc, .entries = vq->state.size };
	uint32_t index = head;
	const char *why = NULL;
	struct desc desc;

	chain->head = head;
	chain->nreadable = 0;
	chain->nwritable = 0;
	chain->readable = 0;
	chain->writable = 0;
	do {
		if (index >= walk.entries)
			return "a descriptor's number is out of range";
		desc = read_desc(walk.table, index);
		index = desc.next;
		if (desc.flags & DESC_F_INDIRECT) {
			/* Of the flags only NEXT and INDIRECT count here. */
			why = enter_indirect(vq, &walk, &desc);
			desc.flags = DESC_F_NEXT;
			index = 0;
			continue;
		}
		walk.seen++;
		if (is_too_long(&walk))
			return "a chain is too long, or a loop";
		why = add_buffer(vq, &walk, &desc, chain);
	} while (!why && desc.flags & DESC_F_NEXT);
	return why;
}

/* How many chains wait in the ring. */
static uint16_t count_available(struct virtqueue *vq)
{
	uint16_t n;

	if (!is_served(vq))
		return 0;
	n = (uint16_t)(avail_idx(vq) - vq->state.next_avail);
	if (n <= vq->state.size)
		return n;
	break_queue(vq, "more chains are available than the ring can hold");
	return 0;
}

static bool all_in_flight(const struct virtqueue *vq)
{
	const struct virtqueue_state *s = &vq->state;

	return (uint16_t)(s->next_avail - s->next_used) >= s->size;
}

int virtqueue_fetch(struct virtqueue *vq, uint16_t head,
		    struct virtqueue_chain *chain)
{
	const char *why;

	if (!is_served(vq))
		return 0;
	why = gather(vq, head, chain);
	if (!why)
		return 1;
	break_queue(vq, why);
	return 0;
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	if (!count_available(vq))
		return 0;
	if (all_in_flight(vq)) {
		break_queue(vq, "more chains are in use than descriptors");
		return 0;
	}
	if (!virtqueue_fetch(vq, avail_entry(vq, vq->state.next_avail), chain))
		return 0;
	vq->state.next_avail++;
	return 1;
}

void virtqueue_unpop(struct virtqueue *vq, uint16_t n)
{
	vq->state.next_avail = (uint16_t)(vq->state.next_avail - n);
}

bool virtqueue_pending(struct virtqueue *vq)
{
	return count_available(vq);
}

/* ---- giving them back ---- */

void virtqueue_mark(struct virtqueue *vq, const struct iovec *iov,
		    const uint64_t *gpa, unsigned int n, uint64_t written)
{
	for (unsigned int i = 0; written && i < n; i++) {
		uint64_t len = MIN(iov[i].iov_len, written);

		memory_mark_dirty(vq->mem, gpa[i], len);
		written -= len;
	}
}

void virtqueue_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head,
		    uint32_t written)
{
	if (is_served(vq))
		store_used_elem(vq, (uint16_t)(vq->state.next_used + ahead),
				head, written);
}

void virtqueue_publish(struct virtqueue *vq, uint16_t n)
{
	struct virtqueue_state *s = &vq->state;
	uint16_t before = s->next_used;

	if (!is_served(vq))
		return;
	s->next_used = (uint16_t)(before + n);
	/* All the way round: what the guest was told is too long ago. */
	if (s->signalled_valid &&
	    (uint16_t)(s->signalled_used - before - 1) < n) {
		s->signalled_valid = false;
		s->signalled_used = 0;
	}
	store_used16(vq, offsetof(struct used, idx), s->next_used,
		     __ATOMIC_RELEASE);
}

void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
		    uint32_t written)
{
	/* Of a broken queue too: what was written was written. */
	virtqueue_mark(vq, chain->iov + chain->nreadable,
		       chain->gpa + chain->nreadable, chain->nwritable,
		       written);
	virtqueue_fill(vq, 0, chain->head, written);
	virtqueue_publish(vq, 1);
}

/* Did the index pass @event on its way from @before to @now? 2.7.7.1. */
static bool has_passed(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

bool virtqueue_should_interrupt(struct virtqueue *vq)
{
	struct virtqueue_state *s = &vq->state;
	uint16_t before = s->signalled_used;
	bool valid = s->signalled_valid;

	if (!is_served(vq) || (valid && s->next_used == before))
		return false;
	s->signalled_used = s->next_used;
	s->signalled_valid = true;
	ring_barrier();
	if (!vq->event_idx)
		return !(avail_flags(vq) & AVAIL_F_NO_INTERRUPT);
	return !valid || has_passed(used_event(vq), s->next_used, before);
}

/* ---- doorbells ---- */

void virtqueue_quiet(struct virtqueue *vq)
{
	/*
	 * With EVENT_IDX the guest rings once as it passes the index that it
	 * was given, and is quiet from then on.
	 */
	if (is_served(vq) && !vq->event_idx)
		store_used16(vq, offsetof(struct used, flags), USED_F_NO_NOTIFY,
			     __ATOMIC_RELAXED);
}

bool virtqueue_listen(struct virtqueue *vq)
{
	/* Behind the ring; section 2.7.8. */
	uint64_t avail_event = used_bytes(vq->state.size) - sizeof(uint16_t);

	if (!is_served(vq))
		return false;
	if (vq->event_idx)
		store_used16(vq, avail_event, vq->state.next_avail,
			     __ATOMIC_RELAXED);
	else
		store_used16(vq, offsetof(struct used, flags), 0,
			     __ATOMIC_RELAXED);
	ring_barrier();
	return virtqueue_pending(vq);
}

/* ---- state ---- */

void virtqueue_visit(struct codec *c, struct virtqueue_state *state)
{
	codec_u64(c, "desc", &state->desc);
	codec_u64(c, "avail", &state->avail);
	codec_u64(c, "used", &state->used);
	codec_u16(c, "size", &state->size);
	codec_u16(c, "next_avail", &state->next_avail);
	codec_u16(c, "next_used", &state->next_used);
	codec_u16(c, "signalled_used", &state->signalled_used);
	codec_bool(c, "signalled_valid", &state->signalled_valid);
	codec_bool(c, "enabled", &state->enabled);
}

int virtqueue_check(const struct virtqueue_state *state, uint16_t size_max,
		    struct error *err)
{
	uint16_t in_flight = (uint16_t)(state->next_avail - state->next_used);

	if (!size_is_valid(state->size, size_max))
		return error_set(err, -EINVAL,
				 "size %u is no power of two up to %u",
				 state->size, size_max);
	if (!state->enabled &&
	    (state->next_avail || state->next_used || state->signalled_valid))
		return error_set(err, -EINVAL,
				 "next_avail %u, next_used %u, signalled_valid "
				 "%u, and it is not enabled",
				 state->next_avail, state->next_used,
				 state->signalled_valid);
	if (in_flight > state->size)
		return error_set(err, -EINVAL,
				 "next_avail %u with next_used %u: more chains "
				 "in use than its size %u",
				 state->next_avail, state->next_used,
				 state->size);
	if (!state->signalled_valid && state->signalled_used)
		return error_set(err, -EINVAL, "signalled_used %u is not valid",
				 state->signalled_used);
	return 0;
}

/* ---- bytes of a chain ---- */

static size_t iov_copy(const struct iovec *iov, unsigned int n, size_t offset,
		       void *to, const void *from, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < n && done < len; i++) {
		uint8_t *base = iov[i].iov_base;
		size_t part;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - offset, len - done);
		if (to)
			memcpy((uint8_t *)to + done, base + offset, part);
		else
			memcpy(base + offset, (const uint8_t *)from + done,
			       part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned int n, size_t offset,
		void *buf, size_t len)
{
	return iov_copy(iov, n, offset, buf, NULL, len);
}

size_t iov_write(const struct iovec *iov, unsigned int n, size_t offset,
		 const void *buf, size_t len)
{
	return iov_copy(iov, n, offset, NULL, buf, len);
}
