/* SPDX-License-Identifier: MIT */
/*
 * The driver of a network card; see nic.h. A buffer that came is given back to
 * the device when the next is asked for.
 */
#include "nic.h"

#define NET_ID 1U

#define NET_F_CSUM	     (1UL << 0)
#define NET_F_GUEST_CSUM     (1UL << 1)
#define NET_F_MAC	     (1UL << 5)
#define NET_F_GUEST_TSO4     (1UL << 7)
#define NET_F_HOST_TSO4	     (1UL << 11)
#define NET_F_STATUS	     (1UL << 16)
#define NET_F_CTRL_VQ	     (1UL << 17)
#define NET_F_GUEST_ANNOUNCE (1UL << 21)

#define NET_S_LINK_UP  1U
#define NET_S_ANNOUNCE 2U

#define CTRL_ANNOUNCE	  3U
#define CTRL_ANNOUNCE_ACK 0U

#define FEATURES                                                \
	(NET_F_MAC | NIC_MERGE | NET_F_STATUS | NET_F_CTRL_VQ | \
	 NET_F_GUEST_ANNOUNCE | VIRTIO_F_EVENT_IDX)
#define LARGE \
	(NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_HOST_TSO4)

#define HEADER	     12U
#define LARGE_BUFFER 4096U
#define FRONT	     14U   /* of a frame */
#define FRAME_MAX    1514U /* on the wire */
#define IP_FRONT     20U
#define TCP_FRONT    20U
#define SEGMENT	     1448U

enum {
	RX,
	TX,
	CONTROL
};

/* Section 5.1.6. */
struct header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
};
_Static_assert(sizeof(struct header) == HEADER, "struct virtio_net_hdr");

#define HDR_NEEDS_CSUM 1U
#define GSO_TCPV4      1U

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
	return virtqueue_in_flight(&nic->queues[TX]) < nic->sending;
}

uint8_t *nic_frame(struct nic *nic)
{
	struct virtqueue *q = &nic->queues[TX];

	while (!nic_room(nic))
		;
	return nic->tx + (q->added % nic->sending) * nic->tx_bytes + HEADER;
}

void nic_send(struct nic *nic, uint32_t len)
{
	uint8_t *at = nic_frame(nic) - HEADER;
	struct virtqueue_buffer buf = { at, HEADER + len };
	struct header header = { 0 };

	if (len > FRAME_MAX)
		header = (struct header){
			.flags = HDR_NEEDS_CSUM,
			.gso_type = GSO_TCPV4,
			.hdr_len = FRONT + IP_FRONT + TCP_FRONT,
			.gso_size = SEGMENT,
			.csum_start = FRONT + IP_FRONT,
			.csum_offset = 16, /* in TCP's header */
		};
	memcpy(at, &header, sizeof(header));
	if (virtqueue_add(&nic->queues[TX], &buf, 1, 0) < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to send from\n");
	virtqueue_kick(&nic->queues[TX]);
	take_sent(nic);
}

/* ---- receiving ---- */

static void offer(struct nic *nic, uint8_t *buffer)
{
	struct virtqueue_buffer buf = { buffer, nic->rx_bytes };
	int head = virtqueue_add(&nic->queues[RX], &buf, 0, 1);

	if (head < 0)
		guest_fail(VERDICT_INTERNAL, "nowhere to receive into\n");
	nic->of[head] = buffer;
}

static void give_back(struct nic *nic)
{
	if (!nic->nreceived)
		return;
	for (unsigned int i = 0; i < nic->nreceived; i++)
		offer(nic, nic->received[i]);
	virtqueue_kick(&nic->queues[RX]);
	nic->nreceived = 0;
}

/* Return: the bytes in it, 0: none has come. */
static uint32_t receive_part(struct nic *nic)
{
	uint32_t len;
	int head = virtqueue_take(&nic->queues[RX], &len);

	if (head < 0)
		return 0;
	if (!len || len > nic->rx_bytes)
		guest_fail(NIC_VERDICT_FRAME, "%u bytes in a buffer of %u\n",
			   len, nic->rx_bytes);
	nic->received[nic->nreceived++] = nic->of[head];
	return len;
}

const uint8_t *nic_receive(struct nic *nic, uint32_t *ret_len)
{
	const struct header *header;
	uint32_t len, part = 0;
	unsigned int n;

	give_back(nic);
	len = receive_part(nic);
	if (!len)
		return NULL;
	header = (const struct header *)nic->received[0];
	n = header->num_buffers;
	if (len < HEADER + FRONT || !n || n > (nic->large ? NIC_PARTS : 1))
		guest_fail(NIC_VERDICT_FRAME, "%u bytes in %u buffers\n", len,
			   n);
	/* Section 5.1.6.4: they are used together. */
	for (; nic->nreceived < n; len += part) {
		part = receive_part(nic);
		if (!part)
			guest_fail(NIC_VERDICT_FRAME,
				   "%u buffers, and %u have come\n", n,
				   nic->nreceived);
	}
	*ret_len = len - HEADER;
	return nic->received[0] + HEADER;
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

static void start(struct nic *nic, uint64_t wanted, uint16_t size)
{
	volatile struct config *config;

	if (!virtio_find(NET_ID, 0, &nic->v))
		guest_fail(VERDICT_MACHINE, "there is no network card\n");
	config = nic->v.config;
	virtio_negotiate(&nic->v, wanted);
	for (uint16_t i = RX; i <= CONTROL; i++) {
		virtqueue_setup(&nic->queues[i], &nic->v, i, size,
				VIRTIO_NO_VECTOR);
		virtqueue_want_interrupt(&nic->queues[i], false);
	}
	for (unsigned int i = 0; i < sizeof(nic->mac); i++)
		nic->mac[i] = config->mac[i];
	nic->rx = mem_alloc((size_t)NIC_BUFFERS * nic->rx_bytes, 4096);
	if (nic->sending > nic->queues[TX].size)
		nic->sending = nic->queues[TX].size;
	nic->tx = mem_alloc((size_t)nic->sending * nic->tx_bytes, 4096);
	nic->command = mem_alloc(64, 64);
	for (unsigned int i = 0; i < nic->queues[RX].size; i++)
		offer(nic, nic->rx + i * nic->rx_bytes);
	virtio_status(&nic->v, VIRTIO_DRIVER_OK);
	virtqueue_kick(&nic->queues[RX]);
}

void nic_start(struct nic *nic, uint64_t without, uint16_t size)
{
	nic->rx_bytes = nic->tx_bytes = HEADER + NIC_FRAME;
	nic->sending = NIC_BUFFERS;
	start(nic, FEATURES & ~without, size);
}

void nic_start_large(struct nic *nic)
{
	nic->large = true;
	nic->rx_bytes = LARGE_BUFFER;
	nic->tx_bytes = HEADER + NIC_LARGE;
	nic->sending = NIC_LARGES;
	start(nic, FEATURES | LARGE, NIC_BUFFERS);
	if (~nic->v.features & (LARGE | NIC_MERGE))
		guest_fail(VERDICT_MACHINE,
			   "the network card has not all of 0x%lx\n",
			   LARGE | NIC_MERGE);
}
