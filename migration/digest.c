// SPDX-License-Identifier: MIT
/*
 * Digests of memory; see digest.h.
 *
 * A CRC is affine in what it is taken of: with r the register before a page
 * and z what it would be after a page of zeroes, the register after the page is
 * z xor the page's own remainder, which depends on nothing before it. So pages
 * are done apart, several at once to keep the processor's CRC unit busy, and
 * then put together with a table that takes a register past a page of zeroes.
 * An untouched page is only that step.
 *
 * Chunks are handed out one at a time from a counter. Who helps is counted in
 * and out under the lock; a job is over when its owner finds none left to hand
 * out and nobody in it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/codec.h"
#include "migration/digest.h"
#include "vmm/log.h"

#define CHUNK_PAGES (DIGEST_CHUNK / GUEST_PAGE_SIZE)

/* With more the memory bus is what everybody waits for. */
#define HELPERS_MAX 7

struct digest {
	const struct memory *mem;
	int pagemap_fd;
	uint64_t *touched;     /* a bit a page index */
	uint32_t past[4][256]; /* a register past a page of zeroes, by byte */
	uint32_t empty[2];     /* an untouched chunk: whole, half */
	pthread_t helpers[HELPERS_MAX];
	unsigned int nhelpers;
	_Atomic uint32_t next; /* of the job: the chunk to hand out */

	pthread_mutex_t lock;
	pthread_cond_t begun; /* a job, or the end */
	pthread_cond_t idle;
	bool open; /* there is a job */
	bool quit;
	uint64_t job; /* counts them */
	uint32_t first;
	uint32_t end;
	uint32_t *ret;
	unsigned int busy; /* helpers in the job */
};

/* ---- one chunk ---- */

/* The register after @len bytes at @data, if it was @crc before. */
static uint32_t feed(uint32_t crc, const void *data, size_t len)
{
	return ~crc32c(~crc, data, len);
}

static void fill_tables(struct digest *d)
{
	static const uint8_t zeroes[GUEST_PAGE_SIZE];

	for (unsigned int byte = 0; byte < 4; byte++) {
		for (unsigned int bit = 0; bit < 8; bit++)
			d->past[byte][1U << bit] = feed(1U << (8 * byte + bit),
							zeroes, sizeof(zeroes));
		for (unsigned int i = 1; i < 256; i++)
			d->past[byte][i] = d->past[byte][i & (i - 1)] ^
					   d->past[byte][i & -i];
	}
}

static uint32_t past_page(const struct digest *d, uint32_t crc)
{
	return d->past[0][crc & 0xff] ^ d->past[1][crc >> 8 & 0xff] ^
	       d->past[2][crc >> 16 & 0xff] ^ d->past[3][crc >> 24];
}

static uint32_t put_together(const struct digest *d, const uint32_t *pages,
			     uint64_t npages)
{
	uint32_t crc = UINT32_MAX;

	for (uint64_t i = 0; i < npages; i++)
		crc = past_page(d, crc) ^ pages[i];
	return ~crc;
}

/* The remainders of @n pages, which are those of @which. */
static void take_pages(const struct digest *d, const uint64_t *which,
		       unsigned int n, uint64_t first, uint32_t *pages)
{
	const void *at[CRC32C_LANES];
	uint32_t crc[CRC32C_LANES] = { 0 };

	/* Lanes without a page do the first one over. */
	for (unsigned int i = 0; i < CRC32C_LANES; i++)
		at[i] = memory_page_hva(d->mem, which[i < n ? i : 0]);
	crc32c_lanes(crc, at, GUEST_PAGE_SIZE);
	for (unsigned int i = 0; i < n; i++)
		pages[which[i] - first] = crc[i];
}

static uint32_t chunk_digest(const struct digest *d, uint32_t chunk)
{
	uint64_t first = (uint64_t)chunk * CHUNK_PAGES;
	uint64_t end = MIN(first + CHUNK_PAGES, d->mem->npages);
	uint32_t pages[CHUNK_PAGES] = { 0 };
	uint64_t which[CRC32C_LANES];
	unsigned int n = 0;
	bool empty = true;

	for (uint64_t base = first; base < end; base += 64) {
		uint64_t bits = d->touched[base / 64];

		empty = empty && !bits;
		for (; bits; bits &= bits - 1) {
			which[n++] = base + (uint64_t)__builtin_ctzll(bits);
			if (n == CRC32C_LANES) {
				take_pages(d, which, n, first, pages);
				n = 0;
			}
		}
	}
	if (empty)
		return d->empty[end - first < CHUNK_PAGES];
	if (n)
		take_pages(d, which, n, first, pages);
	return put_together(d, pages, end - first);
}

/* ---- helpers ---- */

static void work(struct digest *d, uint32_t first, uint32_t end, uint32_t *ret)
{
	uint32_t chunk;

	while ((chunk = atomic_fetch_add(&d->next, 1)) < end)
		ret[chunk - first] = chunk_digest(d, chunk);
}

static void *help(void *opaque)
{
	struct digest *d = opaque;
	uint64_t seen = 0;

	pthread_mutex_lock(&d->lock);
	while (!d->quit) {
		if (!d->open || d->job == seen) {
			pthread_cond_wait(&d->begun, &d->lock);
			continue;
		}
		seen = d->job;
		d->busy++;
		pthread_mutex_unlock(&d->lock);
		/* The job does not change while somebody is in it. */
		work(d, d->first, d->end, d->ret);
		pthread_mutex_lock(&d->lock);
		if (!--d->busy)
			pthread_cond_signal(&d->idle);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static void start_helpers(struct digest *d, const struct sandbox *sandbox)
{
	unsigned int wanted = MIN(processors() - 1, (unsigned int)HELPERS_MAX);
	struct error err;

	while (d->nhelpers < wanted) {
		if (thread_start(sandbox, THREAD_IO, "verify", help, d,
				 &d->helpers[d->nhelpers], &err)) {
			log_debug("%s", err.text);
			break;
		}
		d->nhelpers++;
	}
}

/* ---- for others ---- */

int digest_create(const struct memory *mem, int pagemap_fd,
		  const struct sandbox *sandbox, struct digest **ret,
		  struct error *err)
{
	static const uint32_t untouched[CHUNK_PAGES];
	struct digest *d = calloc(1, sizeof(*d));

	if (d)
		d->touched = calloc(mem->npages / 64, sizeof(*d->touched));
	if (!d || !d->touched) {
		free(d);
		return error_set(err, -ENOMEM, "--verify: out of memory");
	}
	d->mem = mem;
	d->pagemap_fd = pagemap_fd;
	fill_tables(d);
	d->empty[0] = put_together(d, untouched, CHUNK_PAGES);
	d->empty[1] = put_together(d, untouched, mem->npages % CHUNK_PAGES);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->begun, NULL);
	pthread_cond_init(&d->idle, NULL);
	start_helpers(d, sandbox);
	*ret = d;
	return 0;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	pthread_mutex_lock(&d->lock);
	d->quit = true;
	pthread_cond_broadcast(&d->begun);
	pthread_mutex_unlock(&d->lock);
	for (unsigned int i = 0; i < d->nhelpers; i++)
		pthread_join(d->helpers[i], NULL);
	pthread_cond_destroy(&d->idle);
	pthread_cond_destroy(&d->begun);
	pthread_mutex_destroy(&d->lock);
	free(d->touched);
	free(d);
}

void digest_begin(struct digest *d)
{
	int rc = memory_find_touched(d->mem, d->pagemap_fd, d->touched);

	/* Not knowing costs time and nothing else. */
	if (!rc)
		return;
	log_debug("/proc/self/pagemap: %s", strerror(-rc));
	memset(d->touched, 0xff, d->mem->npages / 64 * sizeof(*d->touched));
}

void digest_leave_out(struct digest *d, const uint64_t *pages)
{
	for (uint64_t i = 0; i < d->mem->npages / 64; i++)
		d->touched[i] &= ~pages[i];
}

uint32_t digest_chunks(const struct digest *d)
{
	return (uint32_t)div_round_up(d->mem->npages, CHUNK_PAGES);
}

void digest_take(struct digest *d, uint32_t first, uint32_t n, uint32_t *ret)
{
	pthread_mutex_lock(&d->lock);
	d->first = first;
	d->end = first + n;
	d->ret = ret;
	d->next = first;
	d->open = true;
	d->job++;
	pthread_cond_broadcast(&d->begun);
	pthread_mutex_unlock(&d->lock);
	work(d, first, first + n, ret);
	pthread_mutex_lock(&d->lock);
	d->open = false;
	while (d->busy)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

void digest_range(const struct digest *d, uint32_t chunk, uint64_t *ret_gpa,
		  uint64_t *ret_last)
{
	uint64_t first = (uint64_t)chunk * CHUNK_PAGES;
	uint64_t last = MIN(first + CHUNK_PAGES, d->mem->npages) - 1;

	*ret_gpa = memory_page_gpa(d->mem, first);
	*ret_last = memory_page_gpa(d->mem, last) + GUEST_PAGE_SIZE - 1;
}
