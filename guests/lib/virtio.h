/* SPDX-License-Identifier: MIT */
/*
 * A driver for modern virtio-pci devices and their split queues, small enough
 * to be stopped at any step: each function is one step of the specification,
 * and the registers and rings lie open, so that a guest can also do things
 * halfway, or wrong.
 *
 * Ring 3, except virtio_isr(). A queue belongs to one CPU at a time.
 *
 * A device that breaks the specification ends the guest with VERDICT_DEVICE.
 *
 * Spec: VIRTIO 1.2: 2 (status, features, queues), 3.1 (initialisation), 4.1
 * (PCI).
 */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include "pci.h"

#define VIRTIO_VENDOR	 0x1af4U
#define VIRTIO_DEVICE(n) ((uint16_t)(0x1040U + (n))) /* modern ones */
#define VIRTIO_ID_BLOCK	 2U
#define VIRTIO_ID_RNG	 4U

#define VIRTIO_ACKNOWLEDGE 1U
#define VIRTIO_DRIVER	   2U
#define VIRTIO_DRIVER_OK   4U
#define VIRTIO_FEATURES_OK 8U
#define VIRTIO_NEEDS_RESET 64U
#define VIRTIO_FAILED	   128U

#define VIRTIO_F_INDIRECT   (1UL << 28)
#define VIRTIO_F_EVENT_IDX  (1UL << 29)
#define VIRTIO_F_VERSION_1  (1UL << 32)
#define VIRTIO_F_RING_RESET (1UL << 40)

#define VIRTIO_NO_VECTOR 0xffffU

#define VIRTIO_ISR_QUEUE  1U
#define VIRTIO_ISR_CONFIG 2U

/* Section 4.1.4.3. 64-bit registers are written in two halves. */
struct virtio_common {
	uint32_t device_feature_select;
	uint32_t device_feature;
	uint32_t driver_feature_select;
	uint32_t driver_feature;
	uint16_t config_vector;
	uint16_t num_queues;
	uint8_t status;
	uint8_t config_generation;
	uint16_t queue_select;
	uint16_t queue_size;
	uint16_t queue_vector;
	uint16_t queue_enable;
	uint16_t queue_notify_off;
	uint32_t queue_desc[2];
	uint32_t queue_driver[2];
	uint32_t queue_device[2];
	uint16_t queue_notify_data;
	uint16_t queue_reset;
};

struct virtio {
	struct pci_device pci;
	volatile struct virtio_common *common;
	volatile uint8_t *isr; /* reading it clears it */
	volatile void *config; /* of this kind of device */
	uintptr_t notify;
	uint32_t notify_multiplier;
	uint64_t features; /* negotiated */
};

/* ---- the device ---- */

/**
 * virtio_open - find a device's registers, and turn memory decoding on
 *
 * Changes nothing that virtio knows of. Once more after a BAR was moved.
 */
void virtio_open(struct virtio *v, const struct pci_device *pci);

/**
 * virtio_find - virtio_open() the @index-th device of kind @id
 *
 * Return: false when there are no more.
 */
bool virtio_find(uint32_t id, unsigned int index, struct virtio *ret);

/**
 * virtio_reset - write 0 to the status, and wait until it reads so
 */
void virtio_reset(struct virtio *v);

/* virtio_status - add bits to the status */
void virtio_status(struct virtio *v, unsigned int bits);

/* virtio_offered - the features that the device offers */
uint64_t virtio_offered(struct virtio *v);

/**
 * virtio_accept - write the driver's features; nothing is agreed on by that
 */
void virtio_accept(struct virtio *v, uint64_t features);

/**
 * virtio_negotiate - from reset to FEATURES_OK
 * @wanted: features, beside VIRTIO_F_VERSION_1, taken as far as offered
 */
void virtio_negotiate(struct virtio *v, uint64_t wanted);

/**
 * virtio_isr - read, and so clear, the interrupt status: 0 when it was not us
 */
uint8_t virtio_isr(const struct virtio *v);

/* ---- queues ---- */

#define VIRTQUEUE_SIZE	   256U /* at most */
#define VIRTQUEUE_SEGMENTS 16U	/* of one request */

#define VIRTQ_NEXT     1U
#define VIRTQ_WRITE    2U
#define VIRTQ_INDIRECT 4U

#define VIRTQ_NO_INTERRUPT 1U /* avail flags */
#define VIRTQ_NO_NOTIFY	   1U /* used flags */

struct virtq_desc {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* Behind the entries of the queue's size comes one event word each. */
struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[VIRTQUEUE_SIZE + 1];
};

struct virtq_used_entry {
	uint32_t id;
	uint32_t len;
};

struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct virtq_used_entry ring[VIRTQUEUE_SIZE + 1];
};

/* Ask for no interrupts again at least so often. */
#define VIRTQUEUE_QUIET 0x4000U

struct virtqueue_memory; /* rings and indirect tables */

struct virtqueue {
	struct virtio *v;
	uint16_t index;
	uint16_t size;
	struct virtqueue_memory *memory; /* kept over a second setup */
	volatile struct virtq_desc *desc;
	volatile struct virtq_avail *avail;
	volatile struct virtq_used *used;
	volatile uint16_t *doorbell;
	bool event_idx, indirect;
	uint16_t free; /* first free descriptor */
	uint16_t free_count;
	uint16_t added;			/* what avail->idx will be */
	uint16_t published;		/* what it is */
	uint16_t taken;			/* used entries taken */
	uint16_t chain[VIRTQUEUE_SIZE]; /* descriptors of a head in flight */
};

struct virtqueue_buffer {
	void *at;
	uint32_t len;
};

/**
 * virtqueue_setup - give the device a queue with fresh rings, and enable it
 * @q: zeroed before the first call; its memory is used again
 * @size: power of two; cut to what the device has
 * @vector: MSI-X table entry, or VIRTIO_NO_VECTOR
 *
 * Between virtio_negotiate() and DRIVER_OK, or after the queue was reset.
 * Indirect tables and EVENT_IDX are used as negotiated; the caller may turn
 * @q->indirect off afterwards.
 */
void virtqueue_setup(struct virtqueue *q, struct virtio *v, uint16_t index,
		     uint16_t size, uint16_t vector);

/**
 * virtqueue_reset - have the device forget a queue (VIRTIO_F_RING_RESET)
 */
void virtqueue_reset(struct virtqueue *q);

/**
 * virtqueue_add - queue a request; the device does not see it yet
 * @buf: @out buffers that it reads, then @in that it writes; at most
 *	VIRTQUEUE_SEGMENTS
 *
 * Return: the request's id (its head), or -1 when the queue is full.
 */
int virtqueue_add(struct virtqueue *q, const struct virtqueue_buffer *buf,
		  unsigned int out, unsigned int in);

/**
 * virtqueue_publish - let the device see what was added
 *
 * Return: whether it wants to be rung for it.
 */
bool virtqueue_publish(struct virtqueue *q);

/* virtqueue_ring - ring the doorbell, wanted or not */
void virtqueue_ring(struct virtqueue *q);

/* virtqueue_kick - publish, and ring if that is wanted */
void virtqueue_kick(struct virtqueue *q);

/**
 * virtqueue_take - take a request back
 * @ret_len: bytes that the device says it has written
 *
 * Return: its id; -1: none is done.
 */
int virtqueue_take(struct virtqueue *q, uint32_t *ret_len);

/**
 * virtqueue_done - whether there is something to take
 */
static inline bool virtqueue_done(const struct virtqueue *q)
{
	return q->used->idx != q->taken;
}

/**
 * virtqueue_in_flight - requests added and not taken back
 */
static inline unsigned int virtqueue_in_flight(const struct virtqueue *q)
{
	return (uint16_t)(q->added - q->taken);
}

/**
 * virtqueue_want_interrupt - have the next used entry interrupt, or none
 * @on: false: none of the next VIRTQUEUE_QUIET
 *
 * Return: what virtqueue_done() says after that; there may be no interrupt for
 * what was done before.
 */
bool virtqueue_want_interrupt(struct virtqueue *q, bool on);

/**
 * virtqueue_used_event - where EVENT_IDX has the driver's event word
 */
volatile uint16_t *virtqueue_used_event(const struct virtqueue *q);

#endif
