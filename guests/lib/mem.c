/* SPDX-License-Identifier: MIT */
/*
 * RAM: what the memory map reports, the page tables for what lies above the
 * 4 GiB that the image maps by itself, and an allocator that only ever grows,
 * from the end of the image upwards.
 *
 * The first MiB is left alone: the firmware's tables and the trampoline of
 * application processors are there.
 */
#include "runtime.h"

#define RANGES_MAX  32
#define LOW_MEMORY  0x100000UL
#define MAPPED	    0x100000000UL
#define GIB	    0x40000000UL
#define TABLE_FLAGS 0x07UL
#define PAGE_FLAGS  0x87UL
#define MMIO_FLAGS  0x9fUL /* the same, uncached */
#define BIG_PAGE    0x200000UL
#define MEMMAP_MAX  128

static struct mem_range ranges[RANGES_MAX];
static size_t range_count;
static uint64_t total;

/* The range that allocations come from, and what is left of it. */
static size_t alloc_range;
static uint64_t alloc_next;
static bool sealed;

/* Keeps ranges sorted; the memory map need not be. */
static void add_range(uint64_t gpa, uint64_t end)
{
	size_t i;

	if (gpa < LOW_MEMORY)
		gpa = LOW_MEMORY;
	gpa = (gpa + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	end &= ~(PAGE_SIZE - 1);
	if (gpa >= end || range_count == RANGES_MAX)
		return;
	for (i = range_count; i > 0 && ranges[i - 1].gpa > gpa; i--)
		ranges[i] = ranges[i - 1];
	ranges[i] = (struct mem_range){ gpa, end - gpa };
	range_count++;
}

void mem_init(const struct hvm_start_info *info)
{
	const struct hvm_memmap_entry *map;
	uint64_t image = (uint64_t)image_end;

	map = (const struct hvm_memmap_entry *)info->memmap_gpa;
	if (info->version < 1 || !map || info->memmap_entries > MEMMAP_MAX)
		guest_fail(VERDICT_MACHINE, "no memory map\n");
	for (uint32_t i = 0; i < info->memmap_entries; i++) {
		if (map[i].type != HVM_MEMMAP_RAM)
			continue;
		total += map[i].size;
		add_range(map[i].gpa, map[i].gpa + map[i].size);
	}
	for (size_t i = 0; i < range_count; i++) {
		if (ranges[i].gpa > image ||
		    ranges[i].gpa + ranges[i].size < image)
			continue;
		alloc_range = i;
		alloc_next = image;
	}
	if (!alloc_next)
		guest_fail(VERDICT_MACHINE, "the image lies in no RAM\n");
}

void *mem_alloc(size_t size, size_t align)
{
	const struct mem_range *range = &ranges[alloc_range];
	uint64_t start = (alloc_next + align - 1) & ~(align - 1);

	if (sealed)
		guest_fail(VERDICT_INTERNAL, "mem_alloc after mem_free\n");
	if (start + size > range->gpa + range->size)
		guest_fail(VERDICT_MACHINE, "no memory for %lu bytes\n", size);
	alloc_next = start + size;
	return memset((void *)start, 0, size);
}

static uint64_t *table_at(uint64_t *table, size_t index)
{
	if (!table[index])
		table[index] =
			(uint64_t)mem_alloc(PAGE_SIZE, PAGE_SIZE) | TABLE_FLAGS;
	return (uint64_t *)(table[index] & ~(PAGE_SIZE - 1));
}

/* Entries go from absent to present, so nothing needs to be flushed. */
static void map_gib(uint64_t gpa, uint64_t flags)
{
	uint64_t *pdpt = table_at(boot_pml4, gpa / GIB / 512);
	uint64_t *pd = table_at(pdpt, gpa / GIB % 512);

	for (size_t i = 0; i < 512; i++)
		pd[i] = (gpa + i * BIG_PAGE) | flags;
}

void mem_map(void)
{
	uint64_t mapped = MAPPED;
	uint64_t end;

	for (size_t i = 0; i < range_count; i++) {
		end = ranges[i].gpa + ranges[i].size;
		if (end <= mapped)
			continue;
		if (ranges[i].gpa > mapped)
			mapped = ranges[i].gpa & ~(GIB - 1);
		for (; mapped < end; mapped += GIB)
			map_gib(mapped, PAGE_FLAGS);
	}
}

static bool is_mapped(uint64_t gpa)
{
	const uint64_t *pdpt;

	if (gpa < MAPPED)
		return true;
	if (!boot_pml4[gpa / GIB / 512])
		return false;
	pdpt = (const uint64_t *)(boot_pml4[gpa / GIB / 512] &
				  ~(PAGE_SIZE - 1));
	return pdpt[gpa / GIB % 512];
}

volatile void *mem_map_device(uint64_t gpa, uint64_t size)
{
	for (uint64_t at = gpa & ~(GIB - 1); at < gpa + size; at += GIB) {
		if (!is_mapped(at))
			map_gib(at, MMIO_FLAGS);
	}
	return (volatile void *)gpa;
}

const struct mem_range *mem_free(size_t *ret_count)
{
	struct mem_range *range = &ranges[alloc_range];
	uint64_t start = (alloc_next + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);

	if (!sealed) {
		range->size -= start - range->gpa;
		range->gpa = start;
		sealed = true;
	}
	*ret_count = range_count;
	return ranges;
}

uint64_t mem_total(void)
{
	return total;
}
