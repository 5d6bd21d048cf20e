/* SPDX-License-Identifier: MIT */
/*
 * balloon: gives memory back by its own driver, from ring 3, without
 * interrupts, and looks whether what it kept is what it was.
 *
 * It has a pool of pages. Each is its own, with a pattern in it; or free, and
 * it may hold anything; or given to the host, in the balloon or just now
 * reported. All the time it frees some, takes others back, and looks at those
 * that are its own. When the device asks, it inflates or deflates, and hints at
 * what is free; it goes on to take and to write to such pages meanwhile.
 *
 * Options:
 *   pages=N       of the pool, default 2048
 *   free=N        per cent of them that are free, about; default 50
 *   busy=yes|no   no: pages stay what they are, default yes
 *   hints=yes|no  no: it never answers a request for hints, default yes
 *   reports=yes|no
 * Serial: 'q' looks at all pages and ends; 's' prints what has been counted.
 * Says "hinted N" after each request that it answered, "has N" when the balloon
 * has as much as it should.
 * Verdicts: 20 a page of its own is not what it was; 21 a page that was given
 * to the host is not zero.
 */
#include "balloon.h"
#include "lib/guest.h"
#include "lib/virtio.h"

#define VERDICT_OWN_PAGE 20
#define VERDICT_NOT_ZERO 21

#define POOL_MAX 16384U
#define BATCH	 64U /* page frames in a request */
#define WORDS	 (PAGE_SIZE / sizeof(uint64_t))
/* Pages looked at between two looks at what the device wants. */
#define STEPS 64U

enum {
	INFLATE,
	DEFLATE,
	STATS,
	HINTS,
	REPORTS,
	QUEUES
};

enum {
	FREE,
	OWN,
	GIVEN
};

struct config {
	uint32_t num_pages;
	uint32_t actual;
	uint32_t hint_id;
	uint32_t poison;
};

struct page {
	uint8_t state;
	uint32_t fill; /* what is in it while it is OWN */
};

static struct {
	struct virtio v;
	volatile struct config *config;
	struct virtqueue queues[QUEUES];
	uint64_t (*memory)[WORDS];
	struct page pages[POOL_MAX];
	uint32_t npages;
	uint64_t free_percent;
	bool busy, hints, reports;
	uint32_t *pfns; /* BATCH of them */
	uint32_t *id;
	uint32_t actual;
	uint32_t answered; /* the last request for hints */
	uint64_t random;
	uint64_t inflated, deflated, hinted, reported, looked;
} b;

static uint32_t draw(uint32_t below)
{
	b.random = b.random * 6364136223846793005UL + 1442695040888963407UL;
	return (uint32_t)((b.random >> 33) % below);
}

/* ---- pages ---- */

static uint64_t pattern(uint32_t index)
{
	return (uint64_t)b.pages[index].fill << 32 | index;
}

/* Begin, middle and end are enough to see that a page is another one. */
static void fill(uint32_t index)
{
	uint64_t *at = b.memory[index];

	b.pages[index].state = OWN;
	b.pages[index].fill++;
	at[0] = at[WORDS / 2] = at[WORDS - 1] = pattern(index);
}

static void look_at(uint32_t index)
{
	const volatile uint64_t *at = b.memory[index];
	uint64_t want = pattern(index);

	if (at[0] != want || at[WORDS / 2] != want || at[WORDS - 1] != want)
		guest_fail(VERDICT_OWN_PAGE, "page %u at %lx: %lx, not %lx\n",
			   index, (uintptr_t)at, at[0], want);
	b.looked++;
}

static void look_for_zero(uint32_t index)
{
	const volatile uint64_t *at = b.memory[index];

	if (at[0] || at[WORDS / 2] || at[WORDS - 1])
		guest_fail(VERDICT_NOT_ZERO, "page %u at %lx: %lx, not zero\n",
			   index, (uintptr_t)at, at[0]);
}

/* Any page, for what it is. */
static void step(void)
{
	uint32_t index = draw(b.npages);
	bool to_free = draw(100) < b.free_percent;

	if (b.pages[index].state == OWN) {
		look_at(index);
		if (to_free)
			b.pages[index].state = FREE;
		else
			fill(index);
	} else if (b.pages[index].state == FREE && !to_free) {
		fill(index);
	}
}

static void steps(void)
{
	for (unsigned int i = 0; b.busy && i < STEPS; i++)
		step();
}

/* Free pages one after the other from @index on, @max at most. */
static uint32_t free_run(uint32_t index, uint32_t max)
{
	uint32_t n = 0;

	while (n < max && index + n < b.npages &&
	       b.pages[index + n].state == FREE)
		n++;
	return n;
}

/* ---- requests ---- */

/* One request, and other work until it is done. */
static void request(unsigned int queue, void *at, uint32_t len, bool in)
{
	struct virtqueue *q = &b.queues[queue];
	struct virtqueue_buffer buf = { at, len };
	uint32_t written;

	if (virtqueue_add(q, &buf, !in, in) < 0)
		guest_fail(VERDICT_INTERNAL, "queue %u is full\n", queue);
	virtqueue_kick(q);
	while (virtqueue_take(q, &written) < 0)
		steps();
}

/* Move pages from state @from to @to, a batch at most; return how many. */
static uint32_t batch(unsigned int from, unsigned int to, uint32_t max,
		      uint32_t *of)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b.npages && n < max && n < BATCH; i++) {
		if (b.pages[i].state != from)
			continue;
		b.pages[i].state = (uint8_t)to;
		b.pfns[n] = (uint32_t)((uintptr_t)b.memory[i] / PAGE_SIZE);
		of[n++] = i;
	}
	return n;
}

static void resize(void)
{
	uint32_t wanted = b.config->num_pages;
	uint32_t of[BATCH];
	uint32_t n;

	if (wanted == b.actual)
		return;
	if (wanted > b.actual) {
		n = batch(FREE, GIVEN, wanted - b.actual, of);
		if (!n)
			return;
		request(INFLATE, b.pfns, n * 4, false);
		for (uint32_t i = 0; i < n; i++)
			look_for_zero(of[i]);
		b.inflated += n;
		b.actual += n;
	} else {
		n = batch(GIVEN, FREE, b.actual - wanted, of);
		request(DEFLATE, b.pfns, n * 4, false);
		b.deflated += n;
		b.actual -= n;
	}
	b.config->actual = b.actual;
	if (b.actual == wanted)
		print("has %u\n", b.actual);
}

static void report(void)
{
	uint32_t index = draw(b.npages);
	uint32_t n = free_run(index, BATCH);

	if (!b.reports || !n)
		return;
	for (uint32_t i = 0; i < n; i++)
		b.pages[index + i].state = GIVEN;
	request(REPORTS, b.memory[index], n * PAGE_SIZE, true);
	for (uint32_t i = 0; i < n; i++) {
		look_for_zero(index + i);
		b.pages[index + i].state = FREE;
	}
	b.reported += n;
}

static void say_id(uint32_t id)
{
	*b.id = id;
	request(HINTS, b.id, sizeof(*b.id), false);
}

/*
 * VIRTIO 1.2, section 5.5.6.5. A page that was hinted at may be taken and
 * written to at once, also before the device has looked at the hint.
 */
static void answer(void)
{
	uint32_t id = b.config->hint_id;
	uint32_t hinted = 0;
	uint32_t n;

	if (!b.hints || id <= HINTS_DONE || id == b.answered)
		return;
	b.answered = id;
	say_id(id);
	for (uint32_t i = 0; i < b.npages; i += n ? n : 1) {
		n = free_run(i, BATCH);
		if (n)
			request(HINTS, b.memory[i], n * PAGE_SIZE, true);
		hinted += n;
	}
	say_id(HINTS_STOP);
	b.hinted += hinted;
	print("hinted %u\n", hinted);
}

/* ---- the whole ---- */

static void start(void)
{
	if (!virtio_find(BALLOON_ID, 0, &b.v))
		guest_fail(VERDICT_MACHINE, "there is no balloon\n");
	b.config = b.v.config;
	virtio_negotiate(&b.v,
			 F_STATS | F_HINTS | F_REPORTING | VIRTIO_F_EVENT_IDX);
	for (uint16_t i = 0; i < QUEUES; i++) {
		virtqueue_setup(&b.queues[i], &b.v, i, VIRTQUEUE_SIZE,
				VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&b.queues[i], false);
	}
	b.memory = mem_alloc(b.npages * PAGE_SIZE, PAGE_SIZE);
	b.pfns = mem_alloc(BATCH * sizeof(*b.pfns), PAGE_SIZE);
	b.id = mem_alloc(sizeof(*b.id), PAGE_SIZE);
	/* What is free has been used, and is worth a hint. */
	for (uint32_t i = 0; i < b.npages; i++) {
		fill(i);
		if (draw(100) < b.free_percent)
			b.pages[i].state = FREE;
	}
	virtio_status(&b.v, VIRTIO_DRIVER_OK);
}

static void show(const char *what)
{
	print("%s inflated=%lu deflated=%lu hinted=%lu reported=%lu "
	      "looked=%lu\n",
	      what, b.inflated, b.deflated, b.hinted, b.reported, b.looked);
}

unsigned int guest_main(void)
{
	static const char *const yes_no[] = { "yes", "no", NULL };
	int c;

	b.npages = (uint32_t)option_number("pages", 2048, POOL_MAX);
	b.free_percent = option_number("free", 50, 100);
	b.busy = option_choice("busy", yes_no) == 0;
	b.hints = option_choice("hints", yes_no) == 0;
	b.reports = option_choice("reports", yes_no) == 0;
	option_end();
	start();
	print("ready\n");
	while ((c = serial_poll()) != 'q') {
		if (c == 's')
			show("stats");
		steps();
		resize();
		report();
		answer();
	}
	for (uint32_t i = 0; i < b.npages; i++) {
		if (b.pages[i].state == OWN)
			look_at(i);
	}
	show("balloon:");
	return VERDICT_PASS;
}
