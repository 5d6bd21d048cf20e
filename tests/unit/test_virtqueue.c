// SPDX-License-Identifier: MIT
/*
 * Split virtqueues against a driver that builds them by hand: good ones that
 * wrap around, and every kind of bad one.
 */
#include <errno.h>

#include "arch/arch.h"
#include "devices/virtio/queue.h"
#include "tests/unit/unit.h"
#include "tests/unit/vring.h"

#define RAM	 (32 * MIB)
#define RINGS	 0x10000
#define BUFFERS	 0x100000
#define INDIRECT 0x200000

struct bench {
	struct memory *mem;
	struct vring ring;
	struct virtqueue vq;
	struct virtqueue_chain chain;
};

static void bench_start(struct bench *b, bool event_idx, bool indirect)
{
	b->vq.state.size = b->ring.size;
	b->vq.state.enabled = true;
	b->vq.state.desc = b->ring.desc;
	b->vq.state.avail = b->ring.avail;
	b->vq.state.used = b->ring.used;
	ck_assert(!virtqueue_start(&b->vq, b->mem, event_idx, indirect));
}

static struct bench *bench_make(uint64_t ram, uint16_t size, bool event_idx)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct error err;

	ck_assert_ptr_nonnull(b);
	ck_assert(!memory_create(ram, false, &b->mem, &err));
	vring_init(&b->ring, b->mem, RINGS, size);
	bench_start(b, event_idx, true);
	return b;
}

static struct bench *bench_new(uint16_t size)
{
	return bench_make(RAM, size, false);
}

static void bench_free(struct bench *b)
{
	memory_free(b->mem);
	free(b);
}

/* Offer the chain at @head; it must break the queue, for a reason with @word.
 */
static void breaks(struct bench *b, uint16_t head, const char *word)
{
	vring_offer(&b->ring, head);
	ck_assert_int_eq(virtqueue_pop(&b->vq, &b->chain), 0);
	ck_assert(b->vq.broken);
	ck_assert_msg(strstr(b->vq.why, word), "'%s' lacks '%s'", b->vq.why,
		      word);
	/* For good, whatever is offered next. */
	vring_desc(&b->ring, 0, BUFFERS, 16, 0, 0);
	vring_offer(&b->ring, 0);
	ck_assert_int_eq(virtqueue_pop(&b->vq, &b->chain), 0);
	ck_assert(!virtqueue_pending(&b->vq));
	ck_assert(!virtqueue_listen(&b->vq));
	ck_assert(!virtqueue_should_interrupt(&b->vq));
}

static void breaks_once(void (*offer)(struct bench *), const char *word)
{
	struct bench *b = bench_new(8);

	offer(b);
	breaks(b, 0, word);
	bench_free(b);
}

static bool is_dirty(const struct bench *b, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return b->mem->dirty[page / 64] >> (page % 64) & 1;
}

static void forget_dirty(struct bench *b)
{
	for (uint64_t i = 0; i < b->mem->npages / 64; i++)
		b->mem->dirty[i] = 0;
}

static void pop(struct bench *b)
{
	ck_assert_msg(virtqueue_pop(&b->vq, &b->chain) == 1, "%s",
		      b->vq.broken ? b->vq.why : "nothing available");
}

/* ---- chains that are good ---- */

START_TEST(queue_gives_readable_then_writable_buffers)
{
	struct bench *b = bench_new(8);
	uint32_t head, len;

	ck_assert(!virtqueue_pending(&b->vq));
	ck_assert_int_eq(virtqueue_pop(&b->vq, &b->chain), 0);
	vring_desc(&b->ring, 5, BUFFERS, 16, VRING_NEXT, 2);
	vring_desc(&b->ring, 2, BUFFERS + 0x1000, 512, VRING_NEXT, 7);
	vring_desc(&b->ring, 7, BUFFERS + 0x2000, 4096,
		   VRING_NEXT | VRING_WRITE, 0);
	vring_desc(&b->ring, 0, BUFFERS + 0x4000, 1, VRING_WRITE, 3);
	vring_offer(&b->ring, 5);
	ck_assert(virtqueue_pending(&b->vq));
	pop(b);
	ck_assert(!virtqueue_pending(&b->vq));
	ck_assert_uint_eq(b->chain.head, 5);
	ck_assert_uint_eq(b->chain.nreadable, 2);
	ck_assert_uint_eq(b->chain.nwritable, 2);
	ck_assert_uint_eq(b->chain.readable, 528);
	ck_assert_uint_eq(b->chain.writable, 4097);
	ck_assert_ptr_eq(b->chain.iov[2].iov_base,
			 memory_hva(b->mem, BUFFERS + 0x2000, 1));
	ck_assert_uint_eq(b->chain.iov[1].iov_len, 512);
	ck_assert_uint_eq(b->chain.gpa[3], BUFFERS + 0x4000);
	ck_assert(!vring_take(&b->ring, &head, &len));
	virtqueue_push(&b->vq, &b->chain, 4097);
	ck_assert(vring_take(&b->ring, &head, &len));
	ck_assert_uint_eq(head, 5);
	ck_assert_uint_eq(len, 4097);
	bench_free(b);
}
END_TEST

START_TEST(queue_skips_buffers_of_no_bytes_wherever_they_are)
{
	struct bench *b = bench_new(8);

	vring_desc(&b->ring, 0, UINT64_MAX, 0, VRING_NEXT, 1);
	vring_desc(&b->ring, 1, BUFFERS, 8, VRING_NEXT, 2);
	vring_desc(&b->ring, 2, 0, 0, VRING_NEXT | VRING_WRITE, 3);
	vring_desc(&b->ring, 3, BUFFERS, 8, VRING_WRITE, 0);
	vring_offer(&b->ring, 0);
	pop(b);
	ck_assert_uint_eq(b->chain.nreadable, 1);
	ck_assert_uint_eq(b->chain.nwritable, 1);
	bench_free(b);
}
END_TEST

START_TEST(queue_goes_on_when_its_indices_wrap)
{
	struct bench *b = bench_new(4);
	uint32_t head, len;

	for (uint32_t i = 0; i < 70000; i++) {
		uint16_t at = (uint16_t)(i * 3 % 4);

		vring_desc(&b->ring, at, BUFFERS + at * 64ULL, 64, VRING_WRITE,
			   0);
		vring_offer(&b->ring, at);
		pop(b);
		ck_assert_uint_eq(b->chain.head, at);
		virtqueue_push(&b->vq, &b->chain, i % 65);
		ck_assert(virtqueue_should_interrupt(&b->vq));
		ck_assert(vring_take(&b->ring, &head, &len));
		ck_assert_uint_eq(head, at);
		ck_assert_uint_eq(len, i % 65);
	}
	ck_assert_uint_eq(b->vq.state.next_avail, 70000 % 65536);
	ck_assert_uint_eq(b->vq.state.next_used, 70000 % 65536);
	bench_free(b);
}
END_TEST

START_TEST(queue_takes_as_many_chains_as_it_has_entries_in_any_order_back)
{
	struct bench *b = bench_new(256);
	struct virtqueue_chain *chains = calloc(256, sizeof(*chains));
	uint32_t head, len;

	for (uint16_t i = 0; i < 256; i++) {
		vring_desc(&b->ring, i, BUFFERS, 4, 0, 0);
		vring_offer(&b->ring, i);
	}
	for (unsigned int i = 0; i < 256; i++)
		ck_assert_int_eq(virtqueue_pop(&b->vq, &chains[i]), 1);
	for (unsigned int i = 256; i-- > 0;)
		virtqueue_push(&b->vq, &chains[i], 0);
	for (unsigned int i = 256; i-- > 0;) {
		ck_assert(vring_take(&b->ring, &head, &len));
		ck_assert_uint_eq(head, i);
	}
	ck_assert(!b->vq.broken);
	free(chains);
	bench_free(b);
}
END_TEST

START_TEST(queue_gives_a_chain_that_was_not_taken_once_more)
{
	struct bench *b = bench_new(2);

	vring_desc(&b->ring, 1, BUFFERS, 4, 0, 0);
	vring_offer(&b->ring, 1);
	pop(b);
	virtqueue_unpop(&b->vq, 1);
	ck_assert(virtqueue_pending(&b->vq));
	pop(b);
	ck_assert_uint_eq(b->chain.head, 1);
	ck_assert(!virtqueue_pending(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_shows_chains_that_belong_together_at_once)
{
	struct bench *b = bench_new(4);
	uint32_t head, len;

	/* The index passes what the guest was told last, all way round. */
	b->vq.state.next_used = b->vq.state.next_avail = 65534;
	b->vq.state.signalled_used = 0;
	b->vq.state.signalled_valid = true;
	b->ring.avail_idx = b->ring.used_idx = 65534;
	vring_put16(&b->ring, b->ring.used + 2, 65534);
	for (uint16_t i = 0; i < 3; i++) {
		vring_desc(&b->ring, i, BUFFERS + i * 0x1000ULL, 64,
			   VRING_WRITE, 0);
		vring_offer(&b->ring, i);
		pop(b);
		virtqueue_fill(&b->vq, i, i, 10U + i);
	}
	ck_assert(!vring_take(&b->ring, &head, &len));
	virtqueue_publish(&b->vq, 3);
	for (uint16_t i = 0; i < 3; i++) {
		ck_assert(vring_take(&b->ring, &head, &len));
		ck_assert_uint_eq(head, i);
		ck_assert_uint_eq(len, 10U + i);
	}
	ck_assert_uint_eq(b->vq.state.next_used, 1);
	ck_assert(!b->vq.state.signalled_valid);
	bench_free(b);
}
END_TEST

START_TEST(queue_gives_all_chains_again_that_were_not_taken)
{
	struct bench *b = bench_new(4);

	for (uint16_t i = 0; i < 3; i++) {
		vring_desc(&b->ring, i, BUFFERS, 4, VRING_WRITE, 0);
		vring_offer(&b->ring, i);
		pop(b);
	}
	virtqueue_push(&b->vq, &b->chain, 0);
	virtqueue_unpop(&b->vq, 2);
	pop(b);
	ck_assert_uint_eq(b->chain.head, 1);
	pop(b);
	ck_assert_uint_eq(b->chain.head, 2);
	ck_assert(!virtqueue_pending(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_fetches_a_chain_that_waited_without_taking_another)
{
	struct bench *b = bench_new(4);

	vring_desc(&b->ring, 3, BUFFERS, 77, VRING_WRITE, 0);
	vring_offer(&b->ring, 3);
	pop(b);
	memset(&b->chain, 0xaa, sizeof(b->chain));
	ck_assert_int_eq(virtqueue_fetch(&b->vq, 3, &b->chain), 1);
	ck_assert_uint_eq(b->chain.head, 3);
	ck_assert_uint_eq(b->chain.writable, 77);
	ck_assert_uint_eq(b->vq.state.next_avail, 1);
	ck_assert_int_eq(virtqueue_fetch(&b->vq, 4, &b->chain), 0);
	ck_assert(b->vq.broken);
	bench_free(b);
}
END_TEST

/* ---- indirect tables ---- */

static void offer_indirect(struct bench *b, uint64_t table, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++)
		vring_desc_at(&b->ring, table, i, BUFFERS + i * 16ULL, 16,
			      i + 1 < n ? VRING_NEXT : 0, (uint16_t)(i + 1));
	/* WRITE means nothing here. */
	vring_desc(&b->ring, 0, table, n * 16U, VRING_INDIRECT | VRING_WRITE,
		   9);
	vring_offer(&b->ring, 0);
}

START_TEST(queue_follows_an_indirect_table_longer_than_itself)
{
	struct bench *b = bench_new(2);

	offer_indirect(b, INDIRECT + 3, VIRTQUEUE_SEGMENTS);
	pop(b);
	ck_assert_uint_eq(b->chain.head, 0);
	ck_assert_uint_eq(b->chain.nreadable, VIRTQUEUE_SEGMENTS);
	ck_assert_uint_eq(b->chain.gpa[255], BUFFERS + 255 * 16);
	ck_assert_uint_eq(b->chain.nwritable, 0);
	bench_free(b);
}
END_TEST

START_TEST(queue_follows_direct_descriptors_into_an_indirect_table)
{
	struct bench *b = bench_new(4);

	vring_desc(&b->ring, 1, BUFFERS, 5, VRING_NEXT, 2);
	vring_desc(&b->ring, 2, BUFFERS, 6, VRING_NEXT, 3);
	vring_desc(&b->ring, 3, INDIRECT, 16, VRING_INDIRECT, 0);
	vring_desc_at(&b->ring, INDIRECT, 0, BUFFERS, 7, VRING_WRITE, 0);
	vring_offer(&b->ring, 1);
	pop(b);
	ck_assert_uint_eq(b->chain.readable, 11);
	ck_assert_uint_eq(b->chain.writable, 7);
	bench_free(b);
}
END_TEST

START_TEST(queue_breaks_on_an_indirect_table_that_was_not_negotiated)
{
	struct bench *b = bench_new(8);

	bench_start(b, false, false);
	offer_indirect(b, INDIRECT, 1);
	b->ring.avail_idx--;
	breaks(b, 0, "negotiated");
	bench_free(b);
}
END_TEST

static void offer_nested(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 32, VRING_INDIRECT, 0);
	vring_desc_at(&b->ring, INDIRECT, 0, INDIRECT + 0x100, 16,
		      VRING_INDIRECT, 0);
}

static void offer_indirect_with_next(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 16, VRING_INDIRECT | VRING_NEXT, 1);
}

static void offer_indirect_of_no_bytes(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 0, VRING_INDIRECT, 0);
}

static void offer_indirect_of_24_bytes(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 24, VRING_INDIRECT, 0);
}

static void offer_indirect_past_the_end(struct bench *b)
{
	vring_desc(&b->ring, 0, RAM - 16, 32, VRING_INDIRECT, 0);
}

static void offer_indirect_that_leaves_its_table(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 32, VRING_INDIRECT, 0);
	vring_desc_at(&b->ring, INDIRECT, 0, BUFFERS, 1, VRING_NEXT, 2);
}

static void offer_indirect_that_loops(struct bench *b)
{
	vring_desc(&b->ring, 0, INDIRECT, 16 << 20, VRING_INDIRECT, 0);
	vring_desc_at(&b->ring, INDIRECT, 0, BUFFERS, 0, VRING_NEXT, 1);
	vring_desc_at(&b->ring, INDIRECT, 1, BUFFERS, 0, VRING_NEXT, 0);
}

static void offer_too_many_buffers(struct bench *b)
{
	vring_desc(&b->ring, 1, INDIRECT, VIRTQUEUE_SEGMENTS * 16,
		   VRING_INDIRECT, 0);
	vring_desc(&b->ring, 0, BUFFERS, 1, VRING_NEXT, 1);
	for (uint16_t i = 0; i < VIRTQUEUE_SEGMENTS; i++)
		vring_desc_at(&b->ring, INDIRECT, i, BUFFERS, 1, VRING_NEXT,
			      (uint16_t)(i + 1));
}

START_TEST(queue_breaks_on_bad_indirect_tables)
{
	breaks_once(offer_nested, "another");
	breaks_once(offer_indirect_with_next, "next");
	breaks_once(offer_indirect_of_no_bytes, "multiple");
	breaks_once(offer_indirect_of_24_bytes, "multiple");
	breaks_once(offer_indirect_past_the_end, "not in RAM");
	breaks_once(offer_indirect_that_leaves_its_table, "out of range");
	breaks_once(offer_indirect_that_loops, "loop");
	breaks_once(offer_too_many_buffers, "too many");
}
END_TEST

/* ---- chains that are bad ---- */

static void offer_loop(struct bench *b)
{
	for (uint16_t i = 0; i < 8; i++)
		vring_desc(&b->ring, i, BUFFERS, 1, VRING_NEXT,
			   (uint16_t)((i + 1) % 8));
}

static void offer_loop_of_nothing(struct bench *b)
{
	vring_desc(&b->ring, 0, 0, 0, VRING_NEXT, 0);
}

static void offer_next_out_of_range(struct bench *b)
{
	vring_desc(&b->ring, 0, BUFFERS, 1, VRING_NEXT, 8);
}

static void offer_readable_after_writable(struct bench *b)
{
	vring_desc(&b->ring, 0, BUFFERS, 1, VRING_NEXT | VRING_WRITE, 1);
	vring_desc(&b->ring, 1, BUFFERS, 1, 0, 0);
}

static void offer_past_the_end(struct bench *b)
{
	vring_desc(&b->ring, 0, RAM - 4, 8, 0, 0);
}

static void offer_beyond(struct bench *b)
{
	vring_desc(&b->ring, 0, RAM, 1, 0, 0);
}

static void offer_around_the_top(struct bench *b)
{
	vring_desc(&b->ring, 0, UINT64_MAX - 4, 8, VRING_WRITE, 0);
}

static void offer_too_many_bytes(struct bench *b)
{
	/* 129 times all RAM is more than 4 GiB. */
	vring_desc(&b->ring, 0, INDIRECT, 129 * 16, VRING_INDIRECT, 0);
	for (uint16_t i = 0; i < 129; i++)
		vring_desc_at(&b->ring, INDIRECT, i, 0, RAM,
			      i < 128 ? VRING_NEXT : 0, (uint16_t)(i + 1));
}

START_TEST(queue_breaks_on_bad_chains)
{
	breaks_once(offer_loop, "loop");
	breaks_once(offer_loop_of_nothing, "loop");
	breaks_once(offer_next_out_of_range, "out of range");
	breaks_once(offer_readable_after_writable, "after a writable");
	breaks_once(offer_past_the_end, "not in RAM");
	breaks_once(offer_beyond, "not in RAM");
	breaks_once(offer_around_the_top, "not in RAM");
	breaks_once(offer_too_many_bytes, "4 GiB");
}
END_TEST

START_TEST(queue_breaks_on_buffers_that_reach_from_ram_into_the_hole)
{
	struct bench *b = bench_make(ARCH_HOLE_START + 64 * MIB, 4, false);

	vring_desc(&b->ring, 0, ARCH_HOLE_START - 16, 16, VRING_NEXT, 1);
	vring_desc(&b->ring, 1, ARCH_HOLE_END, 16, 0, 0);
	vring_offer(&b->ring, 0);
	pop(b);
	vring_desc(&b->ring, 2, ARCH_HOLE_START - 16, 17, 0, 0);
	breaks(b, 2, "not in RAM");
	bench_free(b);
}
END_TEST

START_TEST(queue_breaks_on_heads_and_indices_out_of_range)
{
	struct bench *b = bench_new(8);

	breaks(b, 8, "out of range");
	bench_free(b);
	b = bench_new(8);
	b->ring.avail_idx = 8;
	breaks(b, 0, "more chains are available");
	bench_free(b);
	b = bench_new(8);
	b->ring.avail_idx = 0xfffe; /* backwards */
	breaks(b, 0, "more chains are available");
	bench_free(b);
}
END_TEST

START_TEST(queue_breaks_when_more_chains_are_in_use_than_descriptors)
{
	struct bench *b = bench_new(2);

	vring_desc(&b->ring, 0, BUFFERS, 1, 0, 0);
	for (int i = 0; i < 2; i++) {
		vring_offer(&b->ring, 0);
		pop(b);
	}
	breaks(b, 0, "in use");
	bench_free(b);
}
END_TEST

START_TEST(queue_does_not_start_on_rings_that_are_nowhere)
{
	static const struct {
		uint64_t desc, avail, used;
		uint16_t size;
	} bad[] = {
		{ RINGS + 8, RINGS + 0x2000, RINGS + 0x3000, 4 },
		{ RINGS, RINGS + 0x2001, RINGS + 0x3000, 4 },
		{ RINGS, RINGS + 0x2000, RINGS + 0x3002, 4 },
		{ RAM - 16, RINGS, RINGS, 4 },
		{ RINGS, RAM - 12, RINGS, 4 },
		{ RINGS, RINGS, RAM - 36, 4 },
		{ UINT64_MAX - 15, RINGS, RINGS, 4 },
		{ RINGS, RINGS, RINGS, 0 },
		{ RINGS, RINGS, RINGS, 6 },
		{ RINGS, RINGS, RINGS, 512 },
	};
	struct bench *b = bench_new(4);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		b->vq.state.desc = bad[i].desc;
		b->vq.state.avail = bad[i].avail;
		b->vq.state.used = bad[i].used;
		b->vq.state.size = bad[i].size;
		ck_assert_int_eq(virtqueue_start(&b->vq, b->mem, false, false),
				 -EINVAL);
		ck_assert(b->vq.broken);
		ck_assert_int_eq(virtqueue_pop(&b->vq, &b->chain), 0);
	}
	/* To the last byte of RAM is fine. */
	b->vq.state.size = 4;
	b->vq.state.desc = RAM - 64;
	b->vq.state.avail = RAM - 14;
	b->vq.state.used = RAM - 40;
	ck_assert(!virtqueue_start(&b->vq, b->mem, false, false));
	ck_assert(!b->vq.broken);
	bench_free(b);
}
END_TEST

START_TEST(queue_that_is_stopped_touches_no_ring)
{
	struct bench *b = bench_new(4);

	vring_desc(&b->ring, 0, BUFFERS, 1, VRING_WRITE, 0);
	vring_offer(&b->ring, 0);
	pop(b);
	vring_offer(&b->ring, 0);
	virtqueue_stop(&b->vq);
	ck_assert_int_eq(virtqueue_pop(&b->vq, &b->chain), 0);
	ck_assert(!virtqueue_pending(&b->vq));
	virtqueue_push(&b->vq, &b->chain, 1);
	virtqueue_quiet(&b->vq);
	ck_assert(!virtqueue_listen(&b->vq));
	ck_assert_uint_eq(vring_used_idx(&b->ring), 0);
	ck_assert_uint_eq(vring_used_flags(&b->ring), 0);
	ck_assert(!b->vq.broken);
	bench_free(b);
}
END_TEST

/* ---- who tells whom ---- */

/* Have the device use @n chains. */
static void use(struct bench *b, unsigned int n)
{
	while (n--) {
		vring_desc(&b->ring, 0, BUFFERS, 1, 0, 0);
		vring_offer(&b->ring, 0);
		pop(b);
		virtqueue_push(&b->vq, &b->chain, 0);
	}
}

START_TEST(queue_interrupts_as_the_flag_says)
{
	struct bench *b = bench_new(4);

	use(b, 1);
	ck_assert(virtqueue_should_interrupt(&b->vq));
	/* Told once. */
	ck_assert(!virtqueue_should_interrupt(&b->vq));
	vring_set_avail_flags(&b->ring, VRING_NO_INTERRUPT);
	use(b, 1);
	ck_assert(!virtqueue_should_interrupt(&b->vq));
	vring_set_avail_flags(&b->ring, 0);
	use(b, 3);
	ck_assert(virtqueue_should_interrupt(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_interrupts_as_it_passes_the_used_event)
{
	struct bench *b = bench_make(RAM, 4, true);

	/* NO_INTERRUPT means nothing with EVENT_IDX. */
	vring_set_avail_flags(&b->ring, VRING_NO_INTERRUPT);
	vring_set_used_event(&b->ring, 2);
	use(b, 1);
	ck_assert(virtqueue_should_interrupt(&b->vq)); /* never told before */
	use(b, 1);
	ck_assert(!virtqueue_should_interrupt(&b->vq));
	use(b, 1); /* used index 3 passes event 2 */
	ck_assert(virtqueue_should_interrupt(&b->vq));
	use(b, 1);
	ck_assert(!virtqueue_should_interrupt(&b->vq));
	vring_set_used_event(&b->ring, 5);
	use(b, 3); /* 5, 6, 7: in one go */
	ck_assert(virtqueue_should_interrupt(&b->vq));
	ck_assert(!virtqueue_should_interrupt(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_passes_the_used_event_where_indices_wrap)
{
	struct bench *b = bench_make(RAM, 4, true);
	unsigned int told = 0;

	vring_set_used_event(&b->ring, 0xffff);
	for (uint32_t i = 0; i < 2 * 65536; i++) {
		use(b, 1);
		told += virtqueue_should_interrupt(&b->vq);
		if (i == 0)
			ck_assert_uint_eq(told, 1);
		else if (i < 65535)
			ck_assert_uint_eq(told, 1);
		else if (i < 2 * 65536 - 1)
			ck_assert_uint_eq(told, 2);
	}
	ck_assert_uint_eq(told, 3);
	bench_free(b);
}
END_TEST

START_TEST(queue_interrupts_to_be_safe_when_all_indices_went_by)
{
	struct bench *b = bench_make(RAM, 4, true);

	use(b, 3);
	ck_assert(virtqueue_should_interrupt(&b->vq));
	ck_assert(b->vq.state.signalled_valid);
	vring_set_used_event(&b->ring, 1);
	use(b, 65536);
	ck_assert(!b->vq.state.signalled_valid);
	ck_assert(virtqueue_should_interrupt(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_asks_to_be_rung_or_not_by_the_flag)
{
	struct bench *b = bench_new(4);

	virtqueue_quiet(&b->vq);
	ck_assert_uint_eq(vring_used_flags(&b->ring), 1);
	ck_assert(!virtqueue_listen(&b->vq));
	ck_assert_uint_eq(vring_used_flags(&b->ring), 0);
	/* A chain that came meanwhile: nobody will ring for it. */
	virtqueue_quiet(&b->vq);
	vring_desc(&b->ring, 0, BUFFERS, 1, 0, 0);
	vring_offer(&b->ring, 0);
	ck_assert(virtqueue_listen(&b->vq));
	bench_free(b);
}
END_TEST

START_TEST(queue_asks_to_be_rung_at_the_next_index_with_event_idx)
{
	struct bench *b = bench_make(RAM, 4, true);

	use(b, 3);
	ck_assert(!virtqueue_listen(&b->vq));
	ck_assert_uint_eq(vring_avail_event(&b->ring), 3);
	virtqueue_quiet(&b->vq);
	ck_assert_uint_eq(vring_used_flags(&b->ring), 0);
	vring_offer(&b->ring, 0);
	ck_assert(virtqueue_listen(&b->vq));
	ck_assert_uint_eq(vring_avail_event(&b->ring), 3);
	bench_free(b);
}
END_TEST

/* ---- what the migration has to know ---- */

START_TEST(queue_marks_dirty_what_it_wrote_and_nothing_else)
{
	struct bench *b = bench_new(4);

	vring_desc(&b->ring, 0, BUFFERS, 64, VRING_NEXT, 1);
	vring_desc(&b->ring, 1, BUFFERS + 0x1000, 0x1000,
		   VRING_NEXT | VRING_WRITE, 2);
	vring_desc(&b->ring, 2, BUFFERS + 0x8000, 0x2000,
		   VRING_NEXT | VRING_WRITE, 3);
	vring_desc(&b->ring, 3, BUFFERS + 0xc000, 0x1000, VRING_WRITE, 0);
	vring_offer(&b->ring, 0);
	forget_dirty(b);
	pop(b);
	ck_assert(!is_dirty(b, b->ring.used));
	virtqueue_push(&b->vq, &b->chain, 0x1001);
	ck_assert(!is_dirty(b, BUFFERS));
	ck_assert(is_dirty(b, BUFFERS + 0x1000));
	ck_assert(is_dirty(b, BUFFERS + 0x8000));
	ck_assert(!is_dirty(b, BUFFERS + 0x9000));
	ck_assert(!is_dirty(b, BUFFERS + 0xc000));
	ck_assert(is_dirty(b, b->ring.used));
	ck_assert(!is_dirty(b, b->ring.avail));
	ck_assert(!is_dirty(b, b->ring.desc));
	bench_free(b);
}
END_TEST

START_TEST(queue_marks_dirty_what_it_wrote_when_broken_too)
{
	struct bench *b = bench_new(4);

	vring_desc(&b->ring, 0, BUFFERS, 64, VRING_WRITE, 0);
	vring_offer(&b->ring, 0);
	pop(b);
	vring_offer(&b->ring, 99);
	ck_assert(!virtqueue_pop(&b->vq, &(struct virtqueue_chain){ 0 }));
	forget_dirty(b);
	virtqueue_push(&b->vq, &b->chain, 64);
	ck_assert(is_dirty(b, BUFFERS));
	ck_assert_uint_eq(vring_used_idx(&b->ring), 0);
	bench_free(b);
}
END_TEST

START_TEST(queue_marks_dirty_where_it_asks_to_be_rung)
{
	struct bench *b = bench_make(RAM, 256, true);

	b->vq.state.used = 0x40ffc; /* avail_event is on the next page */
	ck_assert(!virtqueue_start(&b->vq, b->mem, true, false));
	forget_dirty(b);
	virtqueue_listen(&b->vq);
	ck_assert(!is_dirty(b, 0x40000));
	ck_assert(is_dirty(b, 0x41000));
	ck_assert(!virtqueue_start(&b->vq, b->mem, false, false));
	forget_dirty(b);
	virtqueue_quiet(&b->vq);
	ck_assert(is_dirty(b, 0x40000));
	ck_assert(!is_dirty(b, 0x41000));
	bench_free(b);
}
END_TEST

START_TEST(queue_state_is_refused_where_no_queue_gets)
{
	static const struct virtqueue_state good[] = {
		{ .size = 1 },
		{ .size = 64, .desc = UINT64_MAX, .avail = 1, .used = 3 },
		{ .size = 64,
		  .enabled = true,
		  .next_avail = 32,
		  .next_used = 65504 },
		{ .size = 64,
		  .enabled = true,
		  .signalled_valid = true,
		  .signalled_used = 9 },
	};
	static const struct virtqueue_state bad[] = {
		{ .size = 0 },
		{ .size = 3 },
		{ .size = 128 },
		{ .size = 64, .next_avail = 1 },
		{ .size = 64, .next_avail = 1, .next_used = 1 },
		{ .size = 64, .signalled_valid = true },
		{ .size = 64, .enabled = true, .next_avail = 65 },
		{ .size = 64, .enabled = true, .next_used = 1 },
		{ .size = 64, .enabled = true, .signalled_used = 1 },
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_msg(!virtqueue_check(&good[i], 64, &err), "%s",
			      err.text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(virtqueue_check(&bad[i], 64, &err) == -EINVAL,
			      "bad[%zu]", i);
}
END_TEST

START_TEST(iovecs_are_read_and_written_across_segments)
{
	char a[4] = "abcd", z[3] = "xyz", out[8] = { 0 };
	const struct iovec iov[] = { { a, 4 }, { z, 3 } };

	ck_assert_uint_eq(iov_read(iov, 2, 0, out, 7), 7);
	ck_assert(!memcmp(out, "abcdxyz", 7));
	ck_assert_uint_eq(iov_read(iov, 2, 3, out, 2), 2);
	ck_assert(!memcmp(out, "dx", 2));
	ck_assert_uint_eq(iov_read(iov, 2, 5, out, 8), 2);
	ck_assert_uint_eq(iov_read(iov, 2, 7, out, 8), 0);
	ck_assert_uint_eq(iov_read(iov, 0, 0, out, 8), 0);
	ck_assert_uint_eq(iov_write(iov, 2, 2, "1234", 4), 4);
	ck_assert(!memcmp(a, "ab12", 4) && !memcmp(z, "34z", 3));
	ck_assert_uint_eq(iov_write(iov, 2, 6, "56", 2), 1);
	ck_assert(!memcmp(z, "345", 3));
}
END_TEST

UNIT_SUITE("virtqueue", queue_gives_readable_then_writable_buffers,
	   queue_skips_buffers_of_no_bytes_wherever_they_are,
	   queue_goes_on_when_its_indices_wrap,
	   queue_takes_as_many_chains_as_it_has_entries_in_any_order_back,
	   queue_gives_a_chain_that_was_not_taken_once_more,
	   queue_shows_chains_that_belong_together_at_once,
	   queue_gives_all_chains_again_that_were_not_taken,
	   queue_fetches_a_chain_that_waited_without_taking_another,
	   queue_follows_an_indirect_table_longer_than_itself,
	   queue_follows_direct_descriptors_into_an_indirect_table,
	   queue_breaks_on_an_indirect_table_that_was_not_negotiated,
	   queue_breaks_on_bad_indirect_tables, queue_breaks_on_bad_chains,
	   queue_breaks_on_buffers_that_reach_from_ram_into_the_hole,
	   queue_breaks_on_heads_and_indices_out_of_range,
	   queue_breaks_when_more_chains_are_in_use_than_descriptors,
	   queue_does_not_start_on_rings_that_are_nowhere,
	   queue_that_is_stopped_touches_no_ring,
	   queue_interrupts_as_the_flag_says,
	   queue_interrupts_as_it_passes_the_used_event,
	   queue_passes_the_used_event_where_indices_wrap,
	   queue_interrupts_to_be_safe_when_all_indices_went_by,
	   queue_asks_to_be_rung_or_not_by_the_flag,
	   queue_asks_to_be_rung_at_the_next_index_with_event_idx,
	   queue_marks_dirty_what_it_wrote_and_nothing_else,
	   queue_marks_dirty_what_it_wrote_when_broken_too,
	   queue_marks_dirty_where_it_asks_to_be_rung,
	   queue_state_is_refused_where_no_queue_gets,
	   iovecs_are_read_and_written_across_segments)
