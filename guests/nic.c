/* SPDX-License-Identifier: MIT */
/*
 * The driver of a network card; see nic.h. A buffer that came is given back to
 * the device when the next is asked for.
 */
#include "nic.h"

#define NET_ID 1U

#define NET_F_MAC	     (1UL << 5)
#define NET_F_STATUS	     (1UL << 16)
#define NET_F_CTRL_VQ	     (1UL << 17)
#define NET_F_GUEST_ANNOUNCE (1UL << 21)

#define NET_S_LINK_UP  1U
#define NET_S_ANNOUNCE 2U

#define CTRL_ANNOUNCE	  3U
#define CTRL_ANNOUNCE_ACK 0U

#define HEADER 12U
#define BUFFER (HEADER + NIC_FRAME)
#define FRONT  14U /* of a frame */

enum {
	RX,
	TX,
	CONTROL
};

struct config {
	uint8_t mac[6];
	uint16_t status;
};

static uint16_t status(const struct nic *nic)
{
	return ((volatile struct config *)nic->v.config)->status;
}

/* ---- sending ---- */

static void take_sent(struct nic *nic)
{
	uint32_t len;

	while (virtqueue_take(&nic->queues[TX], &len) >= 0)
		;
}

bool nic_room(struct nic *nic)
{
	take_sent(nic);
	return virtqueue_in_flight(&nic->queues[TX]) < nic->queues[TX].size;
}

uint8_t *nic_frame(struct nic *nic)
{
	struct virtqueue *q = &nic->queues[TX];

	while (!nic_room(nic))
		;
	return nic->tx + (q->added % q->size) * BUFFER + HEADER;
}

void nic_send(struct nic *nic, uint32_t len)
{
	uint8_t *at = nic_frame(nic) - HEADER;
	struct virtqueue_buffer buf = { at, HEADER + len };

	memset(at, 0, HEADER);
	if (virtqueue_add(&nic->queues[TX], &buf, 1, 0) < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to send from\n");
	virtqueue_kick(&nic->queues[TX]);
	take_sent(nic);
}

/* ---- receiving ---- */

static void offer(struct nic *nic, uint8_t *buffer)
{
	struct virtqueue_buffer buf = { buffer, BUFFER };
	int head = virtqueue_add(&nic->queues[RX], &buf, 0, 1);

	if (head < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to receive into\n");
	nic->of[head] = buffer;
}

static void give_back(struct nic *nic)
{
	if (!nic->received)
		return;
	offer(nic, nic->received);
	virtqueue_kick(&nic->queues[RX]);
	nic->received = NULL;
}

const uint8_t *nic_receive(struct nic *nic, uint32_t *ret_len)
{
	uint16_t buffers;
	uint32_t len;
	int head;

	give_back(nic);
	head = virtqueue_take(&nic->queues[RX], &len);
	if (head < 0)
		return NULL;
	nic->received = nic->of[head];
	memcpy(&buffers, nic->received + 10, sizeof(buffers));
	if (len < HEADER + FRONT || len > BUFFER || buffers != 1)
		guest_fail(NIC_VERDICT_FRAME, "%u bytes in %u buffers\n", len,
			   buffers);
	*ret_len = len - HEADER;
	return nic->received + HEADER;
}

/* ---- the rest ---- */

bool nic_link(const struct nic *nic)
{
	return status(nic) & NET_S_LINK_UP;
}

bool nic_announce_wanted(const struct nic *nic)
{
	return status(nic) & NET_S_ANNOUNCE;
}

void nic_announced(struct nic *nic)
{
	struct virtqueue_buffer buf[2] = { { nic->command, 2 },
					   { nic->command + 2, 1 } };
	uint32_t len;

	nic->command[0] = CTRL_ANNOUNCE;
	nic->command[1] = CTRL_ANNOUNCE_ACK;
	nic->command[2] = 0xff;
	virtqueue_add(&nic->queues[CONTROL], buf, 1, 1);
	virtqueue_kick(&nic->queues[CONTROL]);
	while (virtqueue_take(&nic->queues[CONTROL], &len) < 0)
		cpu_relax();
	if (nic->command[2])
		guest_fail(NIC_VERDICT_COMMAND,
			   "announced, and the answer is %u\n",
			   nic->command[2]);
}

void nic_start(struct nic *nic, uint64_t without, uint16_t size)
{
	uint64_t wanted = NET_F_MAC | NIC_MERGE | NET_F_STATUS | NET_F_CTRL_VQ |
			  NET_F_GUEST_ANNOUNCE | VIRTIO_F_EVENT_IDX;
	volatile struct config *config;

	if (!virtio_find(NET_ID, 0, &nic->v))
		guest_fail(VERDICT_MACHINE, "there is no network card\n");
	config = nic->v.config;
	virtio_negotiate(&nic->v, wanted & ~without);
	for (uint16_t i = RX; i <= CONTROL; i++) {
		virtqueue_setup(&nic->queues[i], &nic->v, i, size,
				VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&nic->queues[i], false);
	}
	for (unsigned int i = 0; i < sizeof(nic->mac); i++)
		nic->mac[i] = config->mac[i];
	nic->rx = mem_alloc((size_t)NIC_BUFFERS * BUFFER, 4096);
	nic->tx = mem_alloc((size_t)NIC_BUFFERS * BUFFER, 4096);
	nic->command = mem_alloc(64, 64);
	for (unsigned int i = 0; i < nic->queues[RX].size; i++)
		offer(nic, nic->rx + i * BUFFER);
	virtio_status(&nic->v, VIRTIO_DRIVER_OK);
	virtqueue_kick(&nic->queues[RX]);
}
