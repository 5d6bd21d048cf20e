// SPDX-License-Identifier: MIT
/*
 * The balloon's queues; see balloon.h. Sections are those of VIRTIO 1.2.
 *
 * All are served on the loop's thread. To give memory back takes time: a huge
 * page of small ones some 50 microseconds, and a guest may name all of its
 * memory in one chain. So it is done in pieces, and a turn ends with the first
 * piece after TURN_NS; the chain waits for the next one. Nothing else on the
 * loop, and no pause, waits longer than a turn.
 *
 * A queue that is stopped in the middle of a chain gives it back untaken. It is
 * then begun again, here or at a target: giving a page back twice hurts nobody,
 * as long as the driver has not been told that it was done.
 *
 * What pages the guest names is its own affair: those that are no RAM are
 * passed over, and those that it still uses are lost to nobody but itself.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/virtio/balloon_internal.h"

#define TURN_NS (100 * NS_PER_US)

/* What is given back at a time: page frames, and bytes of a report. */
#define PIECE_PFNS  64
#define PIECE_BYTES (2 * MIB)

/* Section 5.5.6: page frames are 4 KiB, whatever the guest's pages are. */
#define PFN_SHIFT 12

/* Section 5.5.6.4. */
struct stat {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));
_Static_assert(sizeof(struct stat) == 10, "on the wire");

/* More than there are tags; a driver has no use for more. */
#define STATS_READ 64

enum outcome {
	OUTCOME_DONE, /* give it back */
	OUTCOME_MORE, /* another piece */
	OUTCOME_KEEP, /* keep it until somebody asks */
	OUTCOME_BAD,
};

typedef enum outcome serve_fn(struct balloon *b, struct balloon_service *s);

static bool only_readable(const struct balloon_service *s)
{
	return s->chain.nreadable && !s->chain.nwritable;
}

/* ---- pages that go into the balloon and come out ---- */

static int compare_pfns(const void *a, const void *b)
{
	uint32_t one = *(const uint32_t *)a;
	uint32_t two = *(const uint32_t *)b;

	return (one > two) - (one < two);
}

/* Neighbours go together: a call to the kernel costs more than a page. */
static void discard_pfns(struct memory *mem, uint32_t *pfns, size_t n)
{
	size_t first = 0;

	qsort(pfns, n, sizeof(*pfns), compare_pfns);
	for (size_t i = 1; i <= n; i++) {
		if (i < n && pfns[i] - pfns[i - 1] <= 1)
			continue;
		memory_discard(mem, (uint64_t)pfns[first] << PFN_SHIFT,
			       (pfns[i - 1] - pfns[first] + 1ULL) << PFN_SHIFT);
		first = i;
	}
}

/* Section 5.5.6. */
static enum outcome inflate(struct balloon *b, struct balloon_service *s)
{
	uint32_t pfns[PIECE_PFNS];
	size_t n;

	if (!only_readable(s))
		return OUTCOME_BAD;
	n = iov_read(s->chain.iov, s->chain.nreadable, s->done, pfns,
		     sizeof(pfns)) /
	    sizeof(pfns[0]);
	for (size_t i = 0; i < n; i++)
		pfns[i] = le32toh(pfns[i]);
	if (n)
		discard_pfns(b->virtio.mem, pfns, n);
	s->done += sizeof(pfns);
	return s->done < s->chain.readable ? OUTCOME_MORE : OUTCOME_DONE;
}

/* Pages come back by being written to; without MUST_TELL_HOST nobody asks. */
static enum outcome deflate(struct balloon *b __maybe_unused,
			    struct balloon_service *s)
{
	return only_readable(s) ? OUTCOME_DONE : OUTCOME_BAD;
}

/* ---- statistics ---- */

void balloon_forget_stats(struct balloon *b)
{
	b->told_s = 0;
	for (unsigned int i = 0; i < BALLOON_STATS; i++)
		b->stats[i] = BALLOON_UNKNOWN;
}

/* Section 5.5.6.3: the driver's buffer is kept until new ones are wanted. */
static enum outcome take_stats(struct balloon *b, struct balloon_service *s)
{
	struct stat stats[STATS_READ];
	size_t n;

	if (!only_readable(s))
		return OUTCOME_BAD;
	n = iov_read(s->chain.iov, s->chain.nreadable, 0, stats,
		     sizeof(stats)) /
	    sizeof(stats[0]);
	balloon_forget_stats(b);
	b->told_s = clock_real_ns() / NS_PER_S;
	for (size_t i = 0; i < n; i++) {
		uint16_t tag = le16toh(stats[i].tag);

		if (tag < BALLOON_STATS)
			b->stats[tag] = le64toh(stats[i].value);
	}
	return OUTCOME_KEEP;
}

/* ---- what is free ---- */

/*
 * Section 5.5.6.5: the driver says which request it answers, hints, and says
 * that it has ended. It keeps the pages aside for as long as it is asked for
 * them; nobody here needs that, for each later write is seen.
 */
static void hear_id(struct balloon *b, const struct balloon_service *s)
{
	uint32_t id = BALLOON_HINTS_STOP;

	(void)iov_read(s->chain.iov, s->chain.nreadable, 0, &id, sizeof(id));
	if (b->hinting && le32toh(id) == BALLOON_HINTS_STOP)
		balloon_end_hints(&b->virtio.dev);
	else
		b->hinting = b->asking && le32toh(id) == b->state.hint_id;
}

/*
 * The next piece of the pages that a chain's writable buffers are. It ends
 * where pages do, for a page that lies in two pieces would be in none.
 *
 * Return: is there more behind it?
 */
static bool next_piece(struct balloon_service *s, uint64_t *ret_gpa,
		       uint64_t *ret_len)
{
	const struct iovec *iov = &s->chain.iov[s->chain.nreadable];
	uint64_t at = s->done;
	unsigned int i = 0;

	while (at >= iov[i].iov_len)
		at -= iov[i++].iov_len;
	*ret_gpa = s->chain.gpa[s->chain.nreadable + i] + at;
	*ret_len =
		MIN(iov[i].iov_len - at, PIECE_BYTES - *ret_gpa % PIECE_BYTES);
	s->done += *ret_len;
	return s->done < s->chain.writable;
}

static enum outcome take_hints(struct balloon *b, struct balloon_service *s)
{
	uint64_t gpa, len;
	bool more;

	if (s->chain.nreadable && !s->done)
		hear_id(b, s);
	if (!b->hinting || !s->chain.nwritable)
		return OUTCOME_DONE;
	more = next_piece(s, &gpa, &len);
	hints_add(b->hints, gpa, len);
	return more ? OUTCOME_MORE : OUTCOME_DONE;
}

/* Section 5.5.6.7. With poison a page that reads as zero would be wrong. */
static enum outcome take_reports(struct balloon *b, struct balloon_service *s)
{
	uint64_t gpa, len;
	bool more;

	if (s->chain.nreadable || !s->chain.nwritable)
		return OUTCOME_BAD;
	if (virtio_negotiated(&b->virtio, BALLOON_F_PAGE_POISON) &&
	    b->state.poison)
		return OUTCOME_DONE;
	more = next_piece(s, &gpa, &len);
	memory_discard(b->virtio.mem, gpa, len);
	return more ? OUTCOME_MORE : OUTCOME_DONE;
}

/* ---- the queues ---- */

static const struct {
	serve_fn *fn;
	const char *bad;
} kinds[BALLOON_QUEUES] = {
	[BALLOON_INFLATE] = { inflate, "pages to inflate aren't readable" },
	[BALLOON_DEFLATE] = { deflate, "pages to deflate aren't readable" },
	[BALLOON_STATISTICS] = { take_stats, "statistics aren't readable" },
	[BALLOON_HINTS] = { take_hints, "" },
	[BALLOON_REPORTS] = { take_reports, "reported pages aren't writable" },
};

static struct virtqueue *ring_of(struct balloon_service *s)
{
	return &s->balloon->virtio.queues[s->index].ring;
}

/* The chain that is taken, or the next one. */
static bool have_chain(struct balloon_service *s)
{
	struct virtqueue *vq = ring_of(s);

	if (s->kept)
		return false;
	if (s->busy)
		return true;
	s->busy = virtqueue_pop(vq, &s->chain);
	s->done = 0;
	if (vq->broken)
		virtio_fail(&s->balloon->virtio, vq->why);
	return s->busy;
}

static void give_back(struct balloon_service *s)
{
	virtqueue_push(ring_of(s), &s->chain, 0);
	s->busy = false;
	s->kept = false;
}

/* Return: false when there is nothing (more) to do. */
static bool serve_piece(struct balloon_service *s)
{
	if (!have_chain(s))
		return false;
	switch (kinds[s->index].fn(s->balloon, s)) {
	case OUTCOME_DONE:
		give_back(s);
		return true;
	case OUTCOME_MORE:
		return true;
	case OUTCOME_KEEP:
		s->kept = true;
		return false;
	case OUTCOME_BAD:
		break;
	}
	virtio_fail(&s->balloon->virtio, kinds[s->index].bad);
	return false;
}

static void serve_turn(struct balloon_service *s)
{
	struct virtio *v = &s->balloon->virtio;
	uint64_t end = clock_ns() + TURN_NS;
	struct virtqueue *vq = ring_of(s);
	uint16_t before = vq->state.next_used;
	bool more;

	virtqueue_quiet(vq);
	do {
		more = serve_piece(s);
	} while (more && clock_ns() < end);
	if (vq->state.next_used != before && virtqueue_should_interrupt(vq))
		virtio_interrupt(v, s->index);
	/* More has come, or was there already: another turn. */
	if (s->serving && !s->kept && (more || virtqueue_listen(vq)))
		virtio_kick(v, s->index);
}

static void on_doorbell(void *opaque, uint32_t events __maybe_unused)
{
	struct balloon_service *s = opaque;
	uint64_t count;

	/* Before the ring is looked at: who rings later is heard. */
	if (read(s->balloon->virtio.queues[s->index].event_fd, &count,
		 sizeof(count)) < 0)
		return;
	if (s->serving)
		serve_turn(s);
}

void balloon_refresh_stats(struct balloon *b)
{
	struct balloon_service *s = &b->services[BALLOON_STATISTICS];

	if (!s->kept)
		return;
	give_back(s);
	if (virtqueue_should_interrupt(ring_of(s)))
		virtio_interrupt(&b->virtio, s->index);
	/* Its next buffer may be there already. */
	virtio_kick(&b->virtio, s->index);
}

void balloon_start_queue(struct virtio *v, unsigned int index)
{
	container_of(v, struct balloon, virtio)->services[index].serving = true;
}

void balloon_stop_queue(struct virtio *v, unsigned int index)
{
	struct balloon_service *s =
		&container_of(v, struct balloon, virtio)->services[index];

	if (s->busy)
		virtqueue_unpop(ring_of(s), 1);
	s->busy = false;
	s->kept = false;
	s->serving = false;
	virtio_queue_stopped(v, index);
}

int balloon_serve_init(struct balloon *b, struct loop *loop, struct error *err)
{
	int rc = 0;

	for (unsigned int i = 0; !rc && i < BALLOON_QUEUES; i++) {
		struct balloon_service *s = &b->services[i];

		s->balloon = b;
		s->index = i;
		rc = loop_fd_add(loop, b->virtio.queues[i].event_fd, EPOLLIN,
				 on_doorbell, s, &b->virtio.dev.lock, &s->watch,
				 err);
	}
	return rc;
}

void balloon_serve_fini(struct balloon *b)
{
	for (unsigned int i = 0; i < BALLOON_QUEUES; i++)
		loop_fd_remove(b->services[i].watch);
}
