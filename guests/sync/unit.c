/* SPDX-License-Identifier: MIT */
/*
 * Devices of several queues; see unit.h.
 */
#include "unit.h"

/* Who is at the other end may have to wait for his turn. */
#define PATIENCE_NS (30 * SECOND_NS)

bool unit_up(struct unit *unit, uint32_t id, uint64_t features,
	     unsigned int queues)
{
	if (!sync_peer()) {
		sync_skip("nobody at its other end");
		return false;
	}
	if (!virtio_find(id, 0, &unit->v)) {
		sync_skip("no such device");
		return false;
	}
	virtio_negotiate(&unit->v, features);
	for (unsigned int i = 0; i < queues; i++) {
		virtqueue_setup(&unit->queues[i], &unit->v, (uint16_t)i,
				UNIT_QUEUE_SIZE, VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&unit->queues[i], false);
	}
	return true;
}

void unit_go(struct unit *unit, unsigned int queues)
{
	virtio_status(&unit->v, VIRTIO_DRIVER_OK);
	for (unsigned int i = 0; i < queues; i++)
		unit_publish(unit, i, true);
}

unsigned int unit_give(struct unit *unit, unsigned int queue, void *at,
		       uint32_t len, bool in)
{
	struct virtqueue_buffer buf = { at, len };
	int head = virtqueue_add(&unit->queues[queue], &buf, !in, in);

	if (head < 0)
		guest_fail(VERDICT_INTERNAL, "queue %u is full\n", queue);
	return (unsigned int)head;
}

void unit_publish(struct unit *unit, unsigned int queue, bool ring)
{
	virtqueue_publish(&unit->queues[queue]);
	if (ring)
		virtqueue_ring(&unit->queues[queue]);
}

static bool is_late(uint64_t start)
{
	cpu_relax();
	return rdtsc() - start > clock_ns_tsc(PATIENCE_NS);
}

int unit_take(struct unit *unit, unsigned int queue, uint32_t *ret_len)
{
	uint64_t start = rdtsc();
	int head;

	while ((head = virtqueue_take(&unit->queues[queue], ret_len)) < 0) {
		if (!is_late(start))
			continue;
		sync_check("an answer", 1, 0);
		break;
	}
	return head;
}

void unit_settle(struct unit *unit, unsigned int queue)
{
	uint32_t len;

	while (virtqueue_in_flight(&unit->queues[queue]) &&
	       unit_take(unit, queue, &len) >= 0)
		;
}

void unit_await(const char *what, bool (*holds)(void))
{
	uint64_t start = rdtsc();

	while (!holds()) {
		if (!is_late(start))
			continue;
		sync_check(what, 1, 0);
		break;
	}
}
