/* SPDX-License-Identifier: MIT */
/*
 * dirty: writes a set of pages at a set rate, and verifies every byte of each
 * page before it writes it again.
 *
 * A page's whole content follows from its number and the pass that wrote it
 * (see page.h), so nothing is kept beside the pages themselves: a pass visits
 * each page once, in an order that can be computed, and so the pass that a
 * page must hold is known. In random order a pass is a permutation.
 *
 * With fill, all other free memory holds such pages too (or zeros), written
 * once at the start and verified at the end.
 *
 * Options:
 *   pages=N | mib=N    the set (default 16 MiB); cut to what there is
 *   rate=MB/s          10^6 bytes a second of pages, 4096 bytes each whatever
 *                      touch says; 0 (default): as fast as possible
 *   mode=seq|random    order within a pass
 *   touch=full|word    rewrite the page, or one 8-byte word of it
 *   where=low|high     take the set from the lowest or the highest free pages
 *   fill=no|yes        write all other free memory
 *   zero=PERCENT       of the filled pages, this share is zeros
 *   cpus=N             share the set among N CPUs (default 1)
 *   spin=N             start so many more, which write nothing (default 0)
 *   progress=SECONDS   between progress lines, default 1; 0: none
 *   seconds=N passes=N end by itself; 0 (default): only on 'q'
 *   beat_us=N          a heart (heart.h) on the first CPU, between pages;
 *                      0 (default): none
 * Serial: 's' prints "stats …"; 'g', with a heart, "gap …"; 'q' verifies
 * everything and ends.
 * Verdicts: 20 a page of the set is wrong, 21 a filled page is; 22 kvmclock
 * went back, 23 the TSC did (with a heart).
 */
#include "heart.h"
#include "lib/guest.h"
#include "page.h"

#define VERDICT_SET	      (VERDICT_OWN + 0)
#define VERDICT_FILL	      (VERDICT_OWN + 1)
#define VERDICT_KVMCLOCK_BACK (VERDICT_OWN + 2)
#define VERDICT_TSC_BACK      (VERDICT_OWN + 3)

#define WORKERS_MAX 64
/* After a stop, at most this much is caught up, so that it is no burst. */
#define BACKLOG_NS 1000000UL
#define FILL_PASS  UINT64_MAX

struct worker {
	uint64_t first, count; /* its share of the set */
	uint64_t bits;	       /* permutations are of 2^bits >= count */
	uint64_t pass;	       /* being written; the one before is verified */
	uint64_t step;	       /* of the pass, 0 to 2^bits */
	uint64_t rate;	       /* pages a second, 0: no limit */
	volatile uint64_t written;
};

static struct {
	struct mem_range set[32], rest[32];
	size_t set_count, rest_count;
	uint64_t pages;
	bool random, word, fill;
	unsigned int cpus;
	uint64_t zero, passes, seconds, progress, beat_us;
	uint64_t start; /* TSC */
	volatile bool stop;
	volatile unsigned int finished;
	struct heart heart; /* only if beat_us */
	struct worker worker[WORKERS_MAX];
} dirty;

static uint8_t *page_at(uint64_t index)
{
	const struct mem_range *range = dirty.set;

	index *= PAGE_SIZE;
	while (index >= range->size) {
		index -= range->size;
		range++;
	}
	return (uint8_t *)(range->gpa + index);
}

static _Noreturn void corrupt(unsigned int verdict, const void *page,
			      const struct page_fault *fault)
{
	guest_fail(verdict,
		   "\ncorrupt page=%lu pass=%lu gpa=0x%lx offset=%lu "
		   "expected=0x%016lx got=0x%016lx\n",
		   fault->page, fault->pass, (uint64_t)page, fault->offset,
		   fault->expected, fault->got);
}

/* Which page step number @step of @pass visits; may be past the last. */
static uint64_t order(const struct worker *w, uint64_t pass, uint64_t step)
{
	uint64_t mask = (1UL << w->bits) - 1;
	uint64_t x = step;

	if (!dirty.random)
		return x;
	/* Each line is a bijection of the numbers of that many bits. */
	x = (x * 0x9e3779b97f4a7c15UL + pass) & mask;
	x ^= x >> (w->bits / 2 + 1);
	x = (x * 0xbf58476d1ce4e5b9UL + (pass << 1)) & mask;
	x ^= x >> (w->bits / 2 + 1);
	return x;
}

static void verify(uint64_t index, uint64_t pass)
{
	uint8_t *page = page_at(index);
	struct page_fault fault;
	uint64_t body = dirty.word ? 0 : pass;

	if (!page_verify(page, index, body, pass, &fault))
		corrupt(VERDICT_SET, page, &fault);
}

static void rewrite(const struct worker *w, uint64_t index)
{
	uint8_t *page = page_at(index);
	struct page_fault fault;

	if (dirty.word) {
		if (!page_verify_word(page, index, w->pass - 1, &fault))
			corrupt(VERDICT_SET, page, &fault);
		page_write_word(page, index, w->pass);
	} else {
		verify(index, w->pass - 1);
		page_write(page, index, w->pass, w->pass);
	}
}

/* One page, unless this step of the pass has none. */
static void advance(struct worker *w)
{
	uint64_t index = order(w, w->pass, w->step);

	if (index < w->count) {
		rewrite(w, w->first + index);
		w->written++;
	}
	if (++w->step < (dirty.random ? 1UL << w->bits : w->count))
		return;
	w->step = 0;
	w->pass++;
}

static void verify_share(const struct worker *w)
{
	uint64_t end = dirty.random ? 1UL << w->bits : w->count;
	uint64_t index;

	for (uint64_t step = 0; step < end; step++) {
		index = order(w, w->pass, step);
		if (index < w->count)
			verify(w->first + index,
			       step < w->step ? w->pass : w->pass - 1);
	}
}

static void show(const char *what)
{
	uint64_t ns = clock_tsc_ns(rdtsc() - dirty.start);
	uint64_t written = 0, pass = UINT64_MAX;

	for (unsigned int i = 0; i < dirty.cpus; i++) {
		written += dirty.worker[i].written;
		if (dirty.worker[i].pass - 1 < pass)
			pass = dirty.worker[i].pass - 1;
	}
	heart_break(&dirty.heart);
	/* A wrong page ends the guest, so whoever reads this saw none. */
	print("%s passes=%lu pages_written=%lu mb_s=%lu ms=%lu errors=0\n",
	      what, pass, written,
	      ns < 1000 ? 0 : written * PAGE_SIZE / (ns / 1000), ns / 1000000);
	if (dirty.beat_us)
		heart_skip(&dirty.heart);
}

/* The first CPU's other duty, between pages. */
static void attend(void)
{
	static uint64_t next_poll, next_line;
	uint64_t now = rdtsc();
	int c;

	if (dirty.beat_us)
		heart_turn(&dirty.heart);
	if (now < next_poll)
		return;
	next_poll = now + clock_ns_tsc(1000000);
	c = serial_poll();
	if (c == 's')
		show("stats");
	if (c == 'g' && dirty.beat_us)
		heart_report(&dirty.heart);
	if (c == 'q' || (dirty.seconds && clock_tsc_ns(now - dirty.start) >=
						  dirty.seconds * NS_PER_S))
		dirty.stop = true;
	if (!dirty.progress || now < next_line)
		return;
	if (next_line)
		show("dirty");
	next_line = now + clock_ns_tsc(dirty.progress * NS_PER_S);
}

static void run(void *arg)
{
	struct worker *w = arg;
	uint64_t period = w->rate ? clock_ns_tsc(NS_PER_S) / w->rate : 0;
	uint64_t backlog = clock_ns_tsc(BACKLOG_NS);
	uint64_t due = rdtsc();
	bool first = w == dirty.worker;

	while (!dirty.stop && w->pass <= dirty.passes) {
		if (first)
			attend();
		if (period) {
			uint64_t now = rdtsc();

			if (now < due)
				continue;
			due += period;
			if (now > due + backlog)
				due = now;
		}
		advance(w);
	}
	verify_share(w);
	__atomic_fetch_add(&dirty.finished, 1, __ATOMIC_RELEASE);
}

/* ---- the rest of memory ---- */

static bool is_zero_page(uint64_t index)
{
	/* Spread evenly: a share of every hundred. */
	return index * 37 % 100 < dirty.zero;
}

static void fill_rest(bool check)
{
	const struct mem_range *range;
	struct page_fault fault;
	uint64_t index = 0;

	for (size_t i = 0; i < dirty.rest_count; i++) {
		range = &dirty.rest[i];
		for (uint64_t at = 0; at < range->size; at += PAGE_SIZE) {
			uint8_t *page = (uint8_t *)(range->gpa + at);
			bool ok = true;

			if (!check && is_zero_page(index))
				memset(page, 0, PAGE_SIZE);
			else if (!check)
				page_write(page, index, FILL_PASS, FILL_PASS);
			else if (is_zero_page(index))
				ok = page_verify_zero(page, index, &fault);
			else
				ok = page_verify(page, index, FILL_PASS,
						 FILL_PASS, &fault);
			if (!ok)
				corrupt(VERDICT_FILL, page, &fault);
			index++;
		}
	}
}

/* ---- the start ---- */

/* Cuts the free memory in two: the set, from one end, and the rest. */
static void divide(bool high)
{
	size_t count;
	const struct mem_range *free = mem_free(&count);
	uint64_t want = dirty.pages * PAGE_SIZE;
	uint64_t got = 0;

	for (size_t i = 0; i < count; i++) {
		const struct mem_range *range = &free[high ? count - 1 - i : i];
		uint64_t take = range->size;
		uint64_t left;

		if (take > want - got)
			take = want - got;
		left = range->size - take;
		if (take)
			dirty.set[dirty.set_count++] = (struct mem_range){
				range->gpa + (high ? left : 0), take
			};
		if (left)
			dirty.rest[dirty.rest_count++] = (struct mem_range){
				range->gpa + (high ? 0 : take), left
			};
		got += take;
	}
	dirty.pages = got / PAGE_SIZE;
}

static void share(uint64_t rate_mb)
{
	uint64_t rate = rate_mb * 1000000 / PAGE_SIZE;
	uint64_t first = 0;

	if (rate_mb && rate < dirty.cpus)
		rate = dirty.cpus;
	for (unsigned int i = 0; i < dirty.cpus; i++) {
		struct worker *w = &dirty.worker[i];

		w->first = first;
		first = dirty.pages * (i + 1) / dirty.cpus;
		w->count = first - w->first;
		w->rate = rate / dirty.cpus;
		w->pass = 1;
		while (1UL << w->bits < w->count)
			w->bits++;
	}
	for (uint64_t i = 0; i < dirty.pages; i++)
		page_write(page_at(i), i, 0, 0);
}

static const char *const modes[] = { "seq", "random", NULL };
static const char *const touches[] = { "full", "word", NULL };
static const char *const places[] = { "low", "high", NULL };
static const char *const no_yes[] = { "no", "yes", NULL };

static void no_work(void *arg)
{
	(void)arg;
}

/* Return: rate in MB/s. */
static uint64_t options(void)
{
	uint64_t mib = option_number("mib", 16, UINT64_MAX >> 21);
	uint64_t rate = option_number("rate", 0, 1000000);
	unsigned int spin;
	bool high;

	dirty.pages = option_number("pages", mib << 8, UINT64_MAX >> 13);
	dirty.random = option_choice("mode", modes);
	dirty.word = option_choice("touch", touches);
	dirty.fill = option_choice("fill", no_yes);
	dirty.zero = option_number("zero", 0, 100);
	dirty.cpus = (unsigned int)option_number("cpus", 1, WORKERS_MAX);
	spin = (unsigned int)option_number("spin", 0, WORKERS_MAX);
	dirty.progress = option_number("progress", 1, 3600);
	dirty.seconds = option_number("seconds", 0, 1000000);
	dirty.passes = option_number("passes", 0, UINT64_MAX);
	dirty.beat_us = option_number("beat_us", 0, 10000000);
	if (!dirty.passes)
		dirty.passes = UINT64_MAX;
	high = option_choice("where", places);
	option_end();
	if (!dirty.cpus || dirty.cpus + spin > cpu_count() || !dirty.pages)
		guest_fail(VERDICT_USAGE, "cpus=%u pages=%lu: not possible\n",
			   dirty.cpus, dirty.pages);
	for (unsigned int i = 1; i < dirty.cpus + spin; i++)
		cpu_start(i, no_work, NULL);
	divide(high);
	return rate;
}

unsigned int guest_main(void)
{
	uint64_t rate = options();

	print("dirty: pages=%lu rate=%lu mode=%s touch=%s cpus=%u first=0x%lx "
	      "last=0x%lx\n",
	      dirty.pages, rate, modes[dirty.random], touches[dirty.word],
	      dirty.cpus, (uint64_t)page_at(0),
	      (uint64_t)page_at(dirty.pages - 1));
	share(rate);
	if (dirty.fill)
		fill_rest(false);
	print("ready\n");
	if (dirty.beat_us)
		heart_start(&dirty.heart, dirty.beat_us, VERDICT_KVMCLOCK_BACK,
			    VERDICT_TSC_BACK);
	dirty.start = rdtsc();
	for (unsigned int i = 1; i < dirty.cpus; i++)
		cpu_run(i, run, &dirty.worker[i]);
	run(&dirty.worker[0]);
	while (__atomic_load_n(&dirty.finished, __ATOMIC_ACQUIRE) < dirty.cpus)
		cpu_relax();
	if (dirty.fill)
		fill_rest(true);
	show("verified");
	return VERDICT_PASS;
}
