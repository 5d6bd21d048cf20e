/* SPDX-License-Identifier: MIT */
/*
 * A driver for virtio-blk on top of lib/virtio.h, for several guests: finds a
 * disk, brings it up with any number of queues, by polling or interrupts, and
 * carries requests whose buffers the caller chooses.
 *
 * Ring 3, one CPU.
 *
 * Spec: VIRTIO 1.2, section 5.2.
 */
#ifndef GUEST_BLOCK_H
#define GUEST_BLOCK_H

#include "lib/virtio.h"

#define BLOCK_SECTOR	 512UL
#define BLOCK_QUEUES	 16U
#define BLOCK_SEGMENTS	 4U /* data buffers of a request */
#define BLOCK_ID_SIZE	 20U
#define BLOCK_VECTOR	 0x70U /* of the IDT: queue 0; its neighbours follow */
#define BLOCK_CONFIG_VEC 0x6fU

#define BLOCK_F_SEG_MAX	     (1UL << 2)
#define BLOCK_F_RO	     (1UL << 5)
#define BLOCK_F_BLK_SIZE     (1UL << 6)
#define BLOCK_F_FLUSH	     (1UL << 9)
#define BLOCK_F_MQ	     (1UL << 12)
#define BLOCK_F_DISCARD	     (1UL << 13)
#define BLOCK_F_WRITE_ZEROES (1UL << 14)

enum block_type {
	BLOCK_READ = 0,
	BLOCK_WRITE = 1,
	BLOCK_FLUSH = 4,
	BLOCK_GET_ID = 8,
	BLOCK_DISCARD = 11,
	BLOCK_WRITE_ZEROES = 13,
};

#define BLOCK_OK	  0
#define BLOCK_IOERR	  1
#define BLOCK_UNSUPPORTED 2
#define BLOCK_NO_STATUS	  0xff /* the device has written none */

#define BLOCK_UNMAP 1U /* of a write-zeroes */

struct block_config {
	uint64_t capacity; /* sectors */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_exponent, alignment;
	uint16_t min_io;
	uint32_t opt_io;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t discard_max, discard_segments, discard_alignment;
	uint32_t zeroes_max, zeroes_segments;
	uint8_t zeroes_may_unmap, unused1[3];
} __attribute__((packed));

struct block_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

struct block_range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags; /* BLOCK_UNMAP */
};

struct block_request {
	/* the caller's */
	enum block_type type;
	uint64_t sector;
	uint32_t sectors; /* DISCARD, WRITE_ZEROES */
	bool unmap;
	unsigned int segments; /* of READ, WRITE, GET_ID */
	struct virtqueue_buffer data[BLOCK_SEGMENTS];
	/* the driver's */
	struct block_header header;
	struct block_range range;
	volatile uint8_t status;
	uint32_t written; /* as the device says */
};

struct block_queue {
	struct virtqueue ring;
	struct block_request *requests[VIRTQUEUE_SIZE]; /* by head */
	uint64_t seen;					/* interrupts */
};

struct block {
	struct virtio v;
	volatile const struct block_config *config;
	struct msix msix;
	bool interrupts;
	unsigned int nqueues;
	struct block_queue queues[BLOCK_QUEUES];
};

struct block_setup {
	unsigned int queues;
	uint16_t size;	  /* of a queue */
	uint64_t without; /* features to leave alone */
	bool interrupts;  /* by MSI-X, each queue its own vector */
};

/**
 * block_find - the @index-th disk; its status is not touched
 */
bool block_find(struct block *disk, unsigned int index);

/**
 * block_start - reset the disk and bring it up
 *
 * May be called again. @setup->queues is cut to what the disk has.
 */
void block_start(struct block *disk, const struct block_setup *setup);

/**
 * block_capacity - in sectors; waits for a configuration that stands still
 */
uint64_t block_capacity(const struct block *disk);

/**
 * block_add - queue a request; block_kick() lets the disk see it
 *
 * Return: false when the queue is full.
 */
bool block_add(struct block *disk, unsigned int queue,
	       struct block_request *request);

void block_kick(struct block *disk, unsigned int queue);

/**
 * block_take - take back a request that is done
 *
 * With interrupts: only after one has come for what is done.
 *
 * Return: NULL when there is none. A request of status OK for which the disk
 * says it has written another amount than its kind needs ends the guest.
 */
struct block_request *block_take(struct block *disk, unsigned int queue);

/**
 * block_run - one request, alone, by queue 0, to its end
 *
 * Return: its status.
 */
unsigned int block_run(struct block *disk, struct block_request *request);

/**
 * block_hits - interrupts of a queue so far, of all disks
 */
uint64_t block_hits(unsigned int queue);

#endif
