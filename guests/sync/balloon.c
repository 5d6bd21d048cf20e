/* SPDX-License-Identifier: MIT */
/*
 * Points about a balloon. What the host wants at each is said there.
 */
#include "balloon.h"
#include "unit.h"

#define STAT_FREE 4U

#define PAGES  8U
#define WANTED 256U /* pages that the host wants */
#define WORDS  (PAGE_SIZE / sizeof(uint64_t))

enum {
	INFLATE,
	DEFLATE,
	STATS,
	HINTS,
	REPORTS,
	QUEUES
};

struct config {
	uint32_t num_pages;
	uint32_t actual;
	uint32_t hint_id;
	uint32_t poison;
};

struct stat {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

static struct {
	struct unit unit;
	volatile struct config *config;
	uint64_t (*pages)[WORDS];
	uint32_t *pfns;
	struct stat *stat;
	uint32_t *id;
} balloon;

static void fill_pages(void)
{
	for (unsigned int i = 0; i < PAGES; i++)
		balloon.pages[i][0] = balloon.pages[i][WORDS - 1] = ~0UL - i;
}

static bool balloon_up(void)
{
	uint8_t *small;

	if (!unit_up(&balloon.unit, BALLOON_ID, F_STATS | F_HINTS | F_REPORTING,
		     QUEUES))
		return false;
	balloon.config = balloon.unit.v.config;
	if (!balloon.pages) {
		balloon.pages = mem_alloc((PAGES + 1) * PAGE_SIZE, PAGE_SIZE);
		small = mem_alloc(PAGE_SIZE, PAGE_SIZE);
		balloon.pfns = (uint32_t *)small;
		balloon.stat = (struct stat *)(small + 1024);
		balloon.id = (uint32_t *)(small + 2048);
	}
	for (unsigned int i = 0; i < PAGES; i++)
		balloon.pfns[i] =
			(uint32_t)((uintptr_t)balloon.pages[i] / PAGE_SIZE);
	fill_pages();
	unit_go(&balloon.unit, QUEUES);
	return true;
}

static void balloon_down(void)
{
	virtio_reset(&balloon.unit.v);
}

/* @given: to the host, who made them anew. */
static void check_pages(bool given)
{
	for (unsigned int i = 0; i < PAGES; i++) {
		const volatile uint64_t *at = balloon.pages[i];
		uint64_t want = given ? 0 : ~0UL - i;

		sync_check("a page's first word", want, at[0]);
		sync_check("its last word", want, at[WORDS - 1]);
	}
}

static bool nothing_wanted(void)
{
	return !balloon.config->num_pages;
}

/* The host wants WANTED pages; asked: none. */
void point_balloon_wanted(void)
{
	if (!balloon_up())
		return;
	balloon.config->actual = SYNC_VECTOR;
	sync_wait();
	sync_check("wanted", WANTED, balloon.config->num_pages);
	sync_check("actual", SYNC_VECTOR, balloon.config->actual);
	sync_ask();
	unit_await("nothing is wanted", nothing_wanted);
	balloon_down();
}

/* Pages on their way into the balloon, or out of it. */
static void pages_move(unsigned int queue, bool ring)
{
	if (!balloon_up())
		return;
	unit_give(&balloon.unit, queue, balloon.pfns, PAGES * 4, false);
	unit_publish(&balloon.unit, queue, ring);
	sync_wait();
	unit_publish(&balloon.unit, queue, true);
	unit_settle(&balloon.unit, queue);
	check_pages(queue == INFLATE);
	balloon_down();
}

void point_balloon_inflating(void)
{
	pages_move(INFLATE, true);
}

void point_balloon_not_rung(void)
{
	pages_move(INFLATE, false);
}

void point_balloon_deflating(void)
{
	pages_move(DEFLATE, false);
}

static void give_stat(uint64_t value)
{
	*balloon.stat = (struct stat){ STAT_FREE, value };
	unit_give(&balloon.unit, STATS, balloon.stat, sizeof(struct stat),
		  false);
	unit_publish(&balloon.unit, STATS, true);
}

/*
 * The host keeps statistics until it wants new ones. Asked, it looks until it
 * has those, which are ~1, then until it has the next, ~2.
 */
void point_balloon_statistics(void)
{
	if (!balloon_up())
		return;
	give_stat(~1UL);
	sync_wait();
	sync_ask();
	unit_settle(&balloon.unit, STATS);
	give_stat(~2UL);
	sync_ask();
	unit_settle(&balloon.unit, STATS);
	balloon_down();
}

/* Pages that were reported as free. */
void point_balloon_reporting(void)
{
	if (!balloon_up())
		return;
	unit_give(&balloon.unit, REPORTS, balloon.pages, PAGES * PAGE_SIZE,
		  true);
	unit_publish(&balloon.unit, REPORTS, true);
	sync_wait();
	unit_settle(&balloon.unit, REPORTS);
	check_pages(true);
	balloon_down();
}

static bool hints_wanted(void)
{
	return balloon.config->hint_id > HINTS_DONE;
}

static void give_id(uint32_t id)
{
	*balloon.id = id;
	unit_give(&balloon.unit, HINTS, balloon.id, sizeof(id), false);
	unit_publish(&balloon.unit, HINTS, true);
	unit_settle(&balloon.unit, HINTS);
}

/*
 * Asked, the host wants to know what is free; it doesn't any more when the last
 * hint, at a page that is kept aside, is in the queue. Pages that were hinted
 * at, and are written to since, are not free.
 */
void point_balloon_hinting(void)
{
	if (!balloon_up())
		return;
	sync_ask();
	unit_await("hints are wanted", hints_wanted);
	give_id(balloon.config->hint_id);
	unit_give(&balloon.unit, HINTS, balloon.pages, PAGES * PAGE_SIZE, true);
	unit_publish(&balloon.unit, HINTS, true);
	unit_settle(&balloon.unit, HINTS);
	fill_pages();
	unit_give(&balloon.unit, HINTS, balloon.pages[PAGES], PAGE_SIZE, true);
	unit_publish(&balloon.unit, HINTS, false);
	sync_wait();
	unit_publish(&balloon.unit, HINTS, true);
	unit_settle(&balloon.unit, HINTS);
	give_id(HINTS_STOP);
	check_pages(false);
	balloon_down();
}
