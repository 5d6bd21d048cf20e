/* SPDX-License-Identifier: MIT */
/*
 * Guest memory: where it is, how the VMM touches it, and what it has dirtied.
 *
 * Memory is one private anonymous mapping a region (RAM below the PCI hole,
 * and the rest from 4 GiB), aligned for transparent huge pages. All pages of
 * a guest are numbered densely, region after region: a "page index" is the
 * key of every bitmap, and region sizes are multiples of 64 pages so that
 * KVM's per-slot log drops into place.
 *
 * KVM's dirty log does not see the VMM's own writes. So everyone writes
 * through memory_write() or calls memory_mark_dirty() *after* the write and
 * before the guest is told; the migration takes a bit by atomic exchange
 * before it copies the page. Marking is always on: it costs one atomic OR, and
 * another the first time in a stretch of memory, so that nobody has to look
 * through what was not written to.
 *
 * Threads: reads, writes and marks from any thread; the rest from the thread
 * that owns the VM.
 */
#ifndef GODWIT_MEMORY_H
#define GODWIT_MEMORY_H

#include <stdatomic.h>

#include "vmm/hugepages.h"
#include "vmm/kvm.h"

#define MEMORY_REGIONS_MAX 2
#define MEMORY_MIN	   (16 * MIB)
#define MEMORY_MAX	   (1024 * GIB)
/* Sizes are whole multiples of this; it keeps bitmap words whole. */
#define MEMORY_GRANULE (1 * MIB)

struct memory_region {
	uint64_t gpa;
	uint64_t size; /* bytes */
	uint8_t *hva;
	uint64_t first_page; /* index of the region's first page */
};

struct memory {
	uint64_t size; /* bytes of RAM in all */
	uint64_t npages;
	uint64_t host_page; /* bytes that the host gives and takes at once */
	unsigned int nregions;
	struct memory_region regions[MEMORY_REGIONS_MAX];
	_Atomic uint64_t *dirty; /* what the VMM wrote, a bit a page index */
	/* Which 64 words of these may have bits: a bit each, set after them. */
	_Atomic uint64_t *dirty_parts;
};

/* Bits of a word of 64 page indices, the first of which is 64 * @word. */
typedef void memory_pages_fn(void *opaque, uint64_t word, uint64_t bits);

/**
 * memory_create() - reserve @size bytes of guest RAM; nothing is populated.
 * @size: multiple of MEMORY_GRANULE, MEMORY_MIN to MEMORY_MAX.
 * @backed: false reserves address space that is never meant to be filled (for
 *          a rehearsal's throwaway VM).
 *
 * Return: 0 or -errno; memory_free() gives it back.
 */
int __must_check memory_create(uint64_t size, bool backed, struct memory **ret,
			       struct error *err);

/**
 * memory_create_huge() - the same, backed by huge pages of 2 MiB of which the
 * host has enough free ones in its @pool: they are promised now, so that none
 * is missing later.
 *
 * Return: 0; -EINVAL: @size is no multiple of HUGE_PAGE_SIZE either; -ENOMEM
 * with @err saying how many are free, and what to do.
 */
int __must_check memory_create_huge(uint64_t size, const struct hugepages *pool,
				    struct memory **ret, struct error *err);

/**
 * memory_free() - unmap all; NULL is fine.
 */
void memory_free(struct memory *mem);

/**
 * memory_attach() - give all regions to a KVM VM as memslots 0..n-1.
 * @log: with KVM_MEM_LOG_DIRTY_PAGES; call again to switch logging.
 *
 * Return: 0 or -errno.
 */
int __must_check memory_attach(struct memory *mem, int vm_fd, bool log,
			       struct error *err);

/**
 * memory_hva() - the host address of @len bytes at @gpa.
 *
 * The range must lie in one region. Reading through it is fine at any time;
 * whoever writes calls memory_mark_dirty() afterwards.
 *
 * Return: the address, or NULL when the range is not all RAM.
 */
void *memory_hva(const struct memory *mem, uint64_t gpa, uint64_t len);

/**
 * memory_read() - copy guest memory out.
 *
 * Return: 0, or -EFAULT when the range is not all RAM (nothing is copied).
 */
int __must_check memory_read(const struct memory *mem, uint64_t gpa, void *buf,
			     uint64_t len);

/**
 * memory_write() - copy into guest memory and mark it dirty.
 *
 * Return: 0, or -EFAULT when the range is not all RAM (nothing is copied).
 */
int __must_check memory_write(struct memory *mem, uint64_t gpa, const void *buf,
			      uint64_t len);

/**
 * memory_mark_dirty() - the VMM has written @len bytes at @gpa.
 */
void memory_mark_dirty(struct memory *mem, uint64_t gpa, uint64_t len);

/**
 * memory_take_dirty() - what was marked since the last time goes to @fn, or
 * nowhere when that is NULL, and is marked no longer.
 */
void memory_take_dirty(struct memory *mem, memory_pages_fn *fn, void *opaque);

/**
 * memory_page_hva() - the host address of page @index (< npages).
 */
void *memory_page_hva(const struct memory *mem, uint64_t index);

/**
 * memory_page_gpa() - the guest address of page @index (< npages).
 */
uint64_t memory_page_gpa(const struct memory *mem, uint64_t index);

/**
 * memory_page_index() - the index of the page that holds @gpa.
 *
 * Return: 0, or -EFAULT when that is not RAM.
 */
int __must_check memory_page_index(const struct memory *mem, uint64_t gpa,
				   uint64_t *ret_index);

/**
 * memory_page_region() - the number of the region, which is that of its
 * memslot, that page @index (< npages) lies in.
 */
unsigned int memory_page_region(const struct memory *mem, uint64_t index);

/**
 * memory_run_length() - how many of the @npages from page @index on are
 * contiguous in guest and host addresses: at least 1, up to the region's end.
 */
uint64_t memory_run_length(const struct memory *mem, uint64_t index,
			   uint64_t npages);

/**
 * memory_find_touched() - which pages anybody may ever have written: all
 * others are zero, and take no memory on the host.
 * @pagemap_fd: /proc/self/pagemap.
 * @touched: a bit a page index, npages of them; written whole.
 *
 * A page that is touched while this looks may be missed.
 *
 * Return: 0 or -errno.
 */
int __must_check memory_find_touched(const struct memory *mem, int pagemap_fd,
				     uint64_t *touched);

/**
 * memory_discard() - give the whole pages of a range back to the host, of the
 * size that the host has there: they read as zero from now on, and take no
 * memory until somebody writes to them. They are marked dirty. Any thread.
 *
 * What of the range is not all RAM stays as it is.
 */
void memory_discard(struct memory *mem, uint64_t gpa, uint64_t len);

/**
 * memory_zero() - make all guest memory zero and give it back to the host;
 * for a reset. Every page is marked dirty.
 */
void memory_zero(struct memory *mem);

#endif
