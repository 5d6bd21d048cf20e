/* SPDX-License-Identifier: MIT */
/*
 * Points about memory in places that are easily forgotten, and about string
 * instructions that are stopped half-way.
 */
#include "page.h"
#include "sync.h"

#define LOW_FIRST 0x10000UL /* 64 KiB to 576 KiB: nobody else's */
#define LOW_LAST  0x90000UL
#define END_PAGES 16UL
#define RANGES	  16

#define SCRATCH_PORT 0x3ff /* of the UART: reads back what was written */
#define CHUNK	     4096UL
#define COPY_SIZE    (1UL << 20)

/* @index keeps the pages of different ranges apart. */
static void write_range(uint64_t gpa, uint64_t pages, uint64_t index)
{
	for (uint64_t i = 0; i < pages; i++)
		page_write((void *)(gpa + i * PAGE_SIZE), index + i, 1, 1);
}

static void check_range(uint64_t gpa, uint64_t pages, uint64_t index)
{
	struct page_fault fault;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = gpa + i * PAGE_SIZE;

		if (page_verify((void *)at, index + i, 1, 1, &fault))
			continue;
		print("page at 0x%lx, offset %lu: ", at, fault.offset);
		sync_check("word", fault.expected, fault.got);
		return;
	}
}

void point_low_memory(void)
{
	const uint64_t pages = (LOW_LAST - LOW_FIRST) / PAGE_SIZE;

	write_range(LOW_FIRST, pages, 1000);
	sync_wait();
	check_range(LOW_FIRST, pages, 1000);
}

/* The first and the last pages of every range of RAM. */
static void ends(void (*fn)(uint64_t gpa, uint64_t pages, uint64_t index))
{
	size_t count;
	const struct mem_range *range = mem_free(&count);

	for (size_t i = 0; i < count && i < RANGES; i++) {
		if (range[i].size < 2 * END_PAGES * PAGE_SIZE)
			continue;
		fn(range[i].gpa, END_PAGES, i * 1000);
		fn(range[i].gpa + range[i].size - END_PAGES * PAGE_SIZE,
		   END_PAGES, i * 1000 + 500);
	}
}

void point_memory_ends(void)
{
	ends(write_range);
	sync_wait();
	ends(check_range);
}

/* ---- string instructions ---- */

static uint8_t from[COPY_SIZE], to[COPY_SIZE];

/* Copies without end for hold_ms; then takes the byte. */
void point_rep_movs(void)
{
	uint64_t start, turn = 0;

	sync_announce();
	start = rdtsc();
	do {
		uint64_t *word = (uint64_t *)from;

		for (size_t i = 0; i < COPY_SIZE / 8; i++)
			word[i] = (turn + 1) * (i + 1);
		memcpy(to, from, COPY_SIZE);
		if (memcmp(to, from, COPY_SIZE)) {
			sync_check("copy of turn", turn, ~turn);
			break;
		}
		turn++;
	} while (clock_tsc_ns(rdtsc() - start) < sync_hold_ns());
	sync_held();
}

/* Reads one port over and over, for hold_ms: no byte may be missing. */
void point_rep_ins(void)
{
	uint64_t start;

	sync_announce();
	outb(SCRATCH_PORT, 0xa5);
	start = rdtsc();
	do {
		void *at = to;
		uint64_t left = CHUNK;

		memset(to, 0, CHUNK);
		__asm__ volatile("rep insb"
				 : "+D"(at), "+c"(left)
				 : "d"(SCRATCH_PORT)
				 : "memory");
		sync_check("left", 0, left);
		sync_check("end", (uint64_t)to + CHUNK, (uint64_t)at);
		for (size_t i = 0; i < CHUNK; i++)
			if (to[i] != 0xa5) {
				sync_check("byte", 0xa5, to[i]);
				return;
			}
	} while (clock_tsc_ns(rdtsc() - start) < sync_hold_ns());
	sync_held();
}

void point_rep_outs(void)
{
	uint64_t start;

	sync_announce();
	for (size_t i = 0; i < CHUNK; i++)
		from[i] = (uint8_t)(i * 7 + 1);
	start = rdtsc();
	do {
		const void *at = from;
		uint64_t left = CHUNK;

		__asm__ volatile("rep outsb"
				 : "+S"(at), "+c"(left)
				 : "d"(SCRATCH_PORT)
				 : "memory");
		sync_check("left", 0, left);
		sync_check("end", (uint64_t)from + CHUNK, (uint64_t)at);
		sync_check("last byte", from[CHUNK - 1], inb(SCRATCH_PORT));
	} while (clock_tsc_ns(rdtsc() - start) < sync_hold_ns());
	sync_held();
}
