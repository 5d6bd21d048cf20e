// SPDX-License-Identifier: MIT
/*
 * The entropy device, as its driver sees it.
 */
#include <errno.h>

#include "devices/virtio/rng.h"
#include "tests/unit/virtio_rig.h"

#define BUFFERS 0x100000

static struct virtio_rig *rng_new(struct vring *ring)
{
	struct virtio_rig *rig = virtio_rig_new(rng_create, RNG_VECTORS);

	RIG_OP(rig->base, resume);
	negotiate(rig, VIRTIO_BIT(VIRTIO_F_VERSION_1) |
			       VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC));
	enable_msix(rig, RNG_VECTORS);
	set_up_queue(rig, 0, RNG_QUEUE_SIZE, ring);
	driver_ok(rig);
	return rig;
}

/* Ask for @len bytes at @gpa with descriptor @index. */
static void ask(struct vring *ring, uint16_t index, uint64_t gpa, uint32_t len)
{
	vring_desc(ring, index, gpa, len, VRING_WRITE, 0);
	vring_offer(ring, index);
}

/* How many of the bytes at @gpa aren't zero. */
static unsigned int count_set(struct virtio_rig *rig, uint64_t gpa,
			      unsigned int len)
{
	const uint8_t *bytes = memory_hva(rig->mem, gpa, len);
	unsigned int n = 0;

	for (unsigned int i = 0; i < len; i++)
		n += bytes[i] != 0;
	return n;
}

static bool is_dirty(struct virtio_rig *rig, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return rig->mem->dirty[page / 64] >> (page % 64) & 1;
}

START_TEST(rng_fills_buffers_with_random_bytes)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);
	uint32_t head, len;

	ask(&ring, 3, BUFFERS, 1024);
	ask(&ring, 4, BUFFERS + 0x2000, 1024);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert(vring_take(&ring, &head, &len));
	ck_assert_uint_eq(head, 3);
	ck_assert_uint_eq(len, 1024);
	ck_assert(vring_take(&ring, &head, &len));
	ck_assert(!vring_take(&ring, &head, &len));
	/* All zero but for a few, by chance: 4 of 1024 bytes are. */
	ck_assert_uint_gt(count_set(rig, BUFFERS, 1024), 900);
	ck_assert(memcmp(memory_hva(rig->mem, BUFFERS, 1024),
			 memory_hva(rig->mem, BUFFERS + 0x2000, 1024), 1024));
	ck_assert_uint_eq(count_set(rig, BUFFERS + 1024, 1024), 0);
	ck_assert(is_dirty(rig, BUFFERS));
	ck_assert_uint_eq(rig->base->nmsis, 1);
	ck_assert_uint_eq(rig->base->msis[0].data, 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_fills_many_small_buffers_of_a_request)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);
	uint32_t head, len;

	vring_desc(&ring, 0, BUFFERS, 100, VRING_WRITE | VRING_NEXT, 1);
	vring_desc(&ring, 1, BUFFERS + 0x1000, 100, VRING_WRITE, 0);
	vring_offer(&ring, 0);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert(vring_take(&ring, &head, &len));
	ck_assert_uint_eq(len, 200);
	ck_assert_uint_gt(count_set(rig, BUFFERS + 0x1000, 100), 50);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_gives_a_request_without_end_no_more_than_a_page)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);
	uint32_t head, len;

	ask(&ring, 0, BUFFERS, 8 << 20);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert(vring_take(&ring, &head, &len));
	ck_assert_uint_eq(len, 4096);
	ck_assert_uint_eq(count_set(rig, BUFFERS + 4096, 4096), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_lets_others_have_their_turn)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);

	for (uint16_t i = 0; i < RNG_QUEUE_SIZE; i++)
		ask(&ring, i, BUFFERS, 16);
	notify(rig, 0);
	expect_turns(rig, &ring, RNG_QUEUE_SIZE);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_breaks_on_requests_that_cannot_be_filled)
{
	for (int i = 0; i < 4; i++) {
		struct vring ring;
		struct virtio_rig *rig = rng_new(&ring);

		vring_desc(&ring, 0, BUFFERS, i ? 8 : 0,
			   i == 1 ? 0 : VRING_WRITE, 0);
		if (i == 3) { /* readable and writable */
			vring_desc(&ring, 0, BUFFERS, 8, VRING_NEXT, 1);
			vring_desc(&ring, 1, BUFFERS, 8, VRING_WRITE, 0);
		}
		vring_offer(&ring, i == 2 ? RNG_QUEUE_SIZE : 0);
		notify(rig, 0);
		rig_turn_loop(rig->base);
		ck_assert(status_of(rig) & VIRTIO_NEEDS_RESET);
		ck_assert_uint_eq(vring_used_idx(&ring), 0);
		/* And hears no bell any more. */
		notify(rig, 0);
		rig_turn_loop(rig->base);
		virtio_rig_free(rig);
	}
}
END_TEST

START_TEST(rng_serves_nothing_while_paused_and_the_rest_at_resume)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);
	uint32_t head, len;

	RIG_OP(rig->base, pause);
	ask(&ring, 0, BUFFERS, 64);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert(!vring_take(&ring, &head, &len));
	RIG_OP(rig->base, resume);
	rig_turn_loop(rig->base);
	ck_assert(vring_take(&ring, &head, &len));
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_asks_to_be_rung_again_when_it_has_served_all)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);
	uint32_t head, len;

	ask(&ring, 0, BUFFERS, 64);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert_uint_eq(vring_used_flags(&ring), 0);
	ask(&ring, 1, BUFFERS, 64);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert(vring_take(&ring, &head, &len));
	ck_assert(vring_take(&ring, &head, &len));
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_interrupts_nobody_when_there_was_nothing_to_do)
{
	struct vring ring;
	struct virtio_rig *rig = rng_new(&ring);

	/* What comes with the start of a queue, and what a driver may do. */
	rig_turn_loop(rig->base);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert_uint_eq(rig->base->nmsis, 0);
	ask(&ring, 0, BUFFERS, 16);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	notify(rig, 0);
	rig_turn_loop(rig->base);
	ck_assert_uint_eq(rig->base->nmsis, 1);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(rng_takes_no_options)
{
	struct device_rig *rig = rig_new();
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, "virtio-rng", "fast", &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "takes no options"));
	rig_free(rig);
}
END_TEST

UNIT_SUITE("rng", rng_fills_buffers_with_random_bytes,
	   rng_fills_many_small_buffers_of_a_request,
	   rng_gives_a_request_without_end_no_more_than_a_page,
	   rng_lets_others_have_their_turn,
	   rng_breaks_on_requests_that_cannot_be_filled,
	   rng_serves_nothing_while_paused_and_the_rest_at_resume,
	   rng_asks_to_be_rung_again_when_it_has_served_all,
	   rng_interrupts_nobody_when_there_was_nothing_to_do,
	   rng_takes_no_options)
