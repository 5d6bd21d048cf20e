// SPDX-License-Identifier: MIT
/*
 * Guest memory; see memory.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/arch.h"
#include "vmm/memory.h"
#include "vmm/pagemap.h"

#define PART_WORDS 64

/*
 * Reserve address space aligned to a huge page, so that the host can back
 * guest memory with huge pages from its first byte on.
 */
static void *map_aligned(uint64_t size, bool backed)
{
	int prot = PROT_READ | PROT_WRITE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *raw = mmap(NULL, size + HUGE_PAGE_SIZE, prot, flags, -1, 0);
	uint8_t *base;
	size_t head;

	if (raw == MAP_FAILED)
		return NULL;
	base = (uint8_t *)align_up((uintptr_t)raw, HUGE_PAGE_SIZE);
	head = (size_t)(base - raw);
	if (head)
		munmap(raw, head);
	munmap(base + size, HUGE_PAGE_SIZE - head);
	/* Advice only: a host without huge pages runs guests too. */
	if (backed)
		(void)madvise(base, size, MADV_HUGEPAGE);
	return base;
}

/* Of the host's pool, promised at once: nothing to be had is found out now. */
static void *map_huge(uint64_t size)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
				  (21 << MAP_HUGE_SHIFT), /* 2 MiB */
			  -1, 0);

	return base == MAP_FAILED ? NULL : base;
}

static int no_huge_pages(uint64_t size, const struct hugepages *pool,
			 struct error *err)
{
	uint64_t need = size / HUGE_PAGE_SIZE;
	uint64_t have = hugepages_available(pool);

	return error_set(
		err, -ENOMEM,
		"hugepages: %llu MiB take %llu huge pages of 2 MiB, "
		"and the host has %llu free; add %llu to " HUGE_PAGE_POOL
		"nr_hugepages, or leave hugepages out",
		(unsigned long long)(size / MIB), (unsigned long long)need,
		(unsigned long long)have,
		(unsigned long long)(need - MIN(have, need)));
}

static int add_region(struct memory *mem, uint64_t gpa, uint64_t size,
		      bool backed, const struct hugepages *pool,
		      struct error *err)
{
	struct memory_region *region = &mem->regions[mem->nregions];

	region->hva = pool ? map_huge(size) : map_aligned(size, backed);
	if (!region->hva && pool)
		return -ENOSPC; /* no_huge_pages() says the rest */
	if (!region->hva)
		return error_set(
			err, -ENOMEM, "memory: %llu MiB of address space: %s",
			(unsigned long long)(size / MIB), strerror(errno));
	(void)madvise(region->hva, size, MADV_DONTFORK);
	(void)madvise(region->hva, size, MADV_DONTDUMP);
	region->gpa = gpa;
	region->size = size;
	region->first_page = mem->npages;
	mem->npages += size >> GUEST_PAGE_SHIFT;
	mem->size += size;
	mem->nregions++;
	return 0;
}

static uint64_t dirty_parts(const struct memory *mem)
{
	return div_round_up(mem->npages / 64, PART_WORDS);
}

static int create(uint64_t size, bool backed, const struct hugepages *pool,
		  struct memory **ret, struct error *err)
{
	uint64_t low = MIN(size, ARCH_HOLE_START);
	struct memory *mem;
	int rc;

	if (size < MEMORY_MIN || size > MEMORY_MAX || size % MEMORY_GRANULE)
		return error_set(err, -EINVAL,
				 "memory: %llu bytes; give a whole number of "
				 "MiB from %llu to %llu",
				 (unsigned long long)size, MEMORY_MIN / MIB,
				 MEMORY_MAX / MIB);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return error_set(err, -ENOMEM, "memory: out of memory");
	mem->host_page = pool ? HUGE_PAGE_SIZE : GUEST_PAGE_SIZE;
	rc = add_region(mem, 0, low, backed, pool, err);
	if (!rc && size > low)
		rc = add_region(mem, ARCH_HOLE_END, size - low, backed, pool,
				err);
	if (rc)
		goto fail;
	mem->dirty = calloc(mem->npages / 64, sizeof(*mem->dirty));
	mem->dirty_parts =
		calloc(dirty_parts(mem) / 64 + 1, sizeof(*mem->dirty_parts));
	if (!mem->dirty || !mem->dirty_parts) {
		rc = error_set(err, -ENOMEM,
			       "memory: dirty bitmap of %llu "
			       "bytes",
			       (unsigned long long)mem->npages / 8);
		goto fail;
	}
	*ret = mem;
	return 0;

fail:
	memory_free(mem);
	return rc == -ENOSPC ? no_huge_pages(size, pool, err) : rc;
}

int memory_create(uint64_t size, bool backed, struct memory **ret,
		  struct error *err)
{
	return create(size, backed, NULL, ret, err);
}

int memory_create_huge(uint64_t size, const struct hugepages *pool,
		       struct memory **ret, struct error *err)
{
	if (size % HUGE_PAGE_SIZE)
		return error_set(err, -EINVAL,
				 "hugepages: %llu MiB are no whole number of "
				 "huge pages; give a multiple of 2 MiB",
				 (unsigned long long)(size / MIB));
	return create(size, true, pool, ret, err);
}

void memory_free(struct memory *mem)
{
	if (!mem)
		return;
	for (unsigned int i = 0; i < mem->nregions; i++)
		munmap(mem->regions[i].hva, mem->regions[i].size);
	free(mem->dirty);
	free(mem->dirty_parts);
	free(mem);
}

int memory_attach(struct memory *mem, int vm_fd, bool log, struct error *err)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct memory_region *region = &mem->regions[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
			.guest_phys_addr = region->gpa,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->hva,
		};
		int rc = KVM_IOCTL(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot,
				   err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static const struct memory_region *region_of(const struct memory *mem,
					     uint64_t gpa)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct memory_region *region = &mem->regions[i];

		if (gpa - region->gpa < region->size && gpa >= region->gpa)
			return region;
	}
	return NULL;
}

void *memory_hva(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	const struct memory_region *region = region_of(mem, gpa);

	if (!region || len > region->size - (gpa - region->gpa))
		return NULL;
	return region->hva + (gpa - region->gpa);
}

int memory_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
	const void *from = memory_hva(mem, gpa, len);

	if (!from)
		return -EFAULT;
	memcpy(buf, from, len);
	return 0;
}

int memory_write(struct memory *mem, uint64_t gpa, const void *buf,
		 uint64_t len)
{
	void *to = memory_hva(mem, gpa, len);

	if (!to)
		return -EFAULT;
	memcpy(to, buf, len);
	memory_mark_dirty(mem, gpa, len);
	return 0;
}

/* The order is what memory_take_dirty() counts on; all are sequential. */
static void mark(struct memory *mem, uint64_t page)
{
	_Atomic uint64_t *parts =
		&mem->dirty_parts[page / 64 / PART_WORDS / 64];
	uint64_t part = 1ULL << page / 64 / PART_WORDS % 64;

	atomic_fetch_or(&mem->dirty[page / 64], 1ULL << (page % 64));
	if (!(*parts & part))
		atomic_fetch_or(parts, part);
}

void memory_mark_dirty(struct memory *mem, uint64_t gpa, uint64_t len)
{
	const struct memory_region *region = region_of(mem, gpa);
	uint64_t first;
	uint64_t last;

	if (!region || !len)
		return;
	len = MIN(len, region->size - (gpa - region->gpa));
	first = region->first_page + ((gpa - region->gpa) >> GUEST_PAGE_SHIFT);
	last = region->first_page +
	       ((gpa - region->gpa + len - 1) >> GUEST_PAGE_SHIFT);
	for (uint64_t page = first; page <= last; page++)
		mark(mem, page);
}

static void take_part(struct memory *mem, uint64_t part, memory_pages_fn *fn,
		      void *opaque)
{
	uint64_t end = MIN((part + 1) * PART_WORDS, mem->npages / 64);

	for (uint64_t word = part * PART_WORDS; word < end; word++) {
		uint64_t bits = mem->dirty[word];

		/* Mostly nothing: look before the costlier exchange. */
		if (bits)
			bits = atomic_exchange(&mem->dirty[word], 0);
		if (bits && fn)
			fn(opaque, word, bits);
	}
}

/* Parts before their words: what is marked meanwhile is found now or then. */
void memory_take_dirty(struct memory *mem, memory_pages_fn *fn, void *opaque)
{
	for (uint64_t i = 0; i <= dirty_parts(mem) / 64; i++) {
		uint64_t parts = atomic_exchange(&mem->dirty_parts[i], 0);

		for (; parts; parts &= parts - 1)
			take_part(mem,
				  i * 64 + (uint64_t)__builtin_ctzll(parts), fn,
				  opaque);
	}
}

unsigned int memory_page_region(const struct memory *mem, uint64_t index)
{
	unsigned int region = 0;

	for (unsigned int i = 1; i < mem->nregions; i++) {
		if (index >= mem->regions[i].first_page)
			region = i;
	}
	return region;
}

static const struct memory_region *region_of_page(const struct memory *mem,
						  uint64_t index)
{
	return &mem->regions[memory_page_region(mem, index)];
}

void *memory_page_hva(const struct memory *mem, uint64_t index)
{
	const struct memory_region *region = region_of_page(mem, index);

	return region->hva + ((index - region->first_page) << GUEST_PAGE_SHIFT);
}

uint64_t memory_page_gpa(const struct memory *mem, uint64_t index)
{
	const struct memory_region *region = region_of_page(mem, index);

	return region->gpa + ((index - region->first_page) << GUEST_PAGE_SHIFT);
}

int memory_page_index(const struct memory *mem, uint64_t gpa,
		      uint64_t *ret_index)
{
	const struct memory_region *region = region_of(mem, gpa);

	if (!region)
		return -EFAULT;
	*ret_index =
		region->first_page + ((gpa - region->gpa) >> GUEST_PAGE_SHIFT);
	return 0;
}

uint64_t memory_run_length(const struct memory *mem, uint64_t index,
			   uint64_t npages)
{
	const struct memory_region *region = region_of_page(mem, index);
	uint64_t end = region->first_page + (region->size >> GUEST_PAGE_SHIFT);

	return MIN(npages, end - index);
}

int memory_find_touched(const struct memory *mem, int pagemap_fd,
			uint64_t *touched)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < mem->nregions; i++) {
		const struct memory_region *region = &mem->regions[i];

		rc = pagemap_find_touched(pagemap_fd, region->hva,
					  region->size >> GUEST_PAGE_SHIFT,
					  touched + region->first_page / 64);
	}
	return rc;
}

void memory_discard(struct memory *mem, uint64_t gpa, uint64_t len)
{
	uint64_t first = align_up(gpa, mem->host_page);
	uint64_t end = (gpa + len) & ~(mem->host_page - 1);

	if (!memory_hva(mem, gpa, len) || first >= end)
		return;
	/* Refused for memory that is locked, which stays as it is then. */
	if (!madvise(memory_hva(mem, first, end - first), end - first,
		     MADV_DONTNEED))
		memory_mark_dirty(mem, first, end - first);
}

void memory_zero(struct memory *mem)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		struct memory_region *region = &mem->regions[i];

		/* Fails only for ranges that aren't ours; then write zeroes. */
		if (madvise(region->hva, region->size, MADV_DONTNEED))
			memset(region->hva, 0, region->size);
		memory_mark_dirty(mem, region->gpa, region->size);
	}
}
