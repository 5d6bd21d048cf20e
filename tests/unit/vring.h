/* SPDX-License-Identifier: MIT */
/*
 * The other side of a split virtqueue: what a driver does, as plain stores into
 * guest memory, for tests that offer chains good and bad. It checks nothing.
 *
 * Spec: VIRTIO 1.2, section 2.7.
 */
#ifndef GODWIT_TESTS_VRING_H
#define GODWIT_TESTS_VRING_H

#include <string.h>

#include "vmm/memory.h"

#define VRING_NEXT	   1
#define VRING_WRITE	   2
#define VRING_INDIRECT	   4
#define VRING_NO_INTERRUPT 1

struct vring {
	struct memory *mem;
	uint16_t size;
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	uint16_t avail_idx; /* what the driver has offered */
	uint16_t used_idx;  /* and taken back */
};

/* The three rings one after the other at @gpa, empty; up to 16 KiB. */
static inline void vring_init(struct vring *ring, struct memory *mem,
			      uint64_t gpa, uint16_t size)
{
	*ring = (struct vring){
		.mem = mem,
		.size = size,
		.desc = gpa,
		.avail = gpa + 0x2000,
		.used = gpa + 0x3000,
	};
	memset(memory_hva(mem, gpa, 0x4000), 0, 0x4000);
}

static inline void vring_put16(struct vring *ring, uint64_t gpa, uint16_t value)
{
	memcpy(memory_hva(ring->mem, gpa, 2), &value, 2);
}

static inline uint16_t vring_get16(struct vring *ring, uint64_t gpa)
{
	uint16_t value;

	memcpy(&value, memory_hva(ring->mem, gpa, 2), 2);
	return value;
}

/* Entry @index of the table at @table. */
static inline void vring_desc_at(struct vring *ring, uint64_t table,
				 uint16_t index, uint64_t addr, uint32_t len,
				 uint16_t flags, uint16_t next)
{
	uint8_t *at = memory_hva(ring->mem, table + index * 16ULL, 16);

	memcpy(at, &addr, 8);
	memcpy(at + 8, &len, 4);
	memcpy(at + 12, &flags, 2);
	memcpy(at + 14, &next, 2);
}

static inline void vring_desc(struct vring *ring, uint16_t index, uint64_t addr,
			      uint32_t len, uint16_t flags, uint16_t next)
{
	vring_desc_at(ring, ring->desc, index, addr, len, flags, next);
}

/* Make the chain that begins at @head available. */
static inline void vring_offer(struct vring *ring, uint16_t head)
{
	vring_put16(ring,
		    ring->avail + 4 + 2ULL * (ring->avail_idx % ring->size),
		    head);
	ring->avail_idx++;
	__atomic_store_n((uint16_t *)memory_hva(ring->mem, ring->avail + 2, 2),
			 ring->avail_idx, __ATOMIC_SEQ_CST);
}

static inline void vring_set_avail_flags(struct vring *ring, uint16_t flags)
{
	vring_put16(ring, ring->avail, flags);
}

static inline void vring_set_used_event(struct vring *ring, uint16_t event)
{
	vring_put16(ring, ring->avail + 4 + 2ULL * ring->size, event);
}

static inline uint16_t vring_used_flags(struct vring *ring)
{
	return vring_get16(ring, ring->used);
}

static inline uint16_t vring_used_idx(struct vring *ring)
{
	return __atomic_load_n(
		(uint16_t *)memory_hva(ring->mem, ring->used + 2, 2),
		__ATOMIC_ACQUIRE);
}

static inline uint16_t vring_avail_event(struct vring *ring)
{
	return vring_get16(ring, ring->used + 4 + 8ULL * ring->size);
}

/* The next used entry, if there is one. */
static inline bool vring_take(struct vring *ring, uint32_t *ret_head,
			      uint32_t *ret_len)
{
	uint64_t at = ring->used + 4 + 8ULL * (ring->used_idx % ring->size);

	if (vring_used_idx(ring) == ring->used_idx)
		return false;
	memcpy(ret_head, memory_hva(ring->mem, at, 4), 4);
	memcpy(ret_len, memory_hva(ring->mem, at + 4, 4), 4);
	ring->used_idx++;
	return true;
}

#endif
