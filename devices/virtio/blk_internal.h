/* SPDX-License-Identifier: MIT */
/*
 * The inside of the block device, for blk*.c only: blk.c is what core and
 * machine call, blk_io.c the I/O thread, blk_request.c what a request means.
 */
#ifndef GODWIT_DEVICES_VIRTIO_BLK_INTERNAL_H
#define GODWIT_DEVICES_VIRTIO_BLK_INTERNAL_H

#include <stdatomic.h>

#include "devices/virtio/blk.h"

struct blk;

struct blk_request {
	struct disk_request disk;
	struct blk *blk;
	struct blk_request *next; /* of the free ones, or of those kept */
	unsigned int queue;
	bool writes;	 /* data, or nothing but status, goes to the disk */
	uint8_t *status; /* in guest memory */
	struct virtqueue_chain chain;
	/* The chain's data, where header or status share a segment with it. */
	struct iovec data[VIRTQUEUE_SEGMENTS];
};

/* A queue as its I/O thread has it. */
struct blk_queue {
	/* Orders, under the device's lock. Given both, it starts and stops. */
	bool to_start;
	bool to_stop;
	bool serving;
	bool stopping;	 /* was told to, and something is in flight */
	bool given_back; /* since the guest was interrupted last */
	unsigned int under_way;
	/* Kept ones in their turn to be tried again. */
	uint16_t again[BLK_DEPTH];
	unsigned int nagain;
	unsigned int next_again;
	/* Those that have failed since the queue was started. */
	struct blk_request *kept;
	struct blk_request **kept_end;
};

/* What the I/O thread tries to get while the guest runs; see handover(). */
enum blk_lock {
	BLK_LOCK_NONE,
	BLK_LOCK_WRITER,
	BLK_LOCK_OWNER,
};

struct blk {
	struct virtio virtio;
	struct blk_options options;
	struct disk *disk;
	const struct device_hooks *hooks;
	void *hooks_opaque;

	/* Under the device's lock. */
	uint32_t nkept;
	struct blk_kept kept[BLK_DEPTH];
	bool settled; /* a flush has ended since the VM was held last */
	bool settling;
	uint64_t settle_ns; /* what that took */

	/* Locks of the disk are asked for under this one. */
	pthread_mutex_t handover_lock;
	_Atomic enum blk_lock lock_wanted; /* changes under it */

	/* Something of this is new: orders, a flush, locks, the end. */
	atomic_bool told;
	int wake_fd;

	/* The I/O thread's. */
	bool has_thread;
	pthread_t thread;
	atomic_bool ending;
	struct disk_engine *engine;
	struct blk_queue queues[BLK_QUEUES_MAX];
	unsigned int first; /* the queue that is looked at first */
	struct blk_request *free;
	unsigned int nfree;	      /* with those that were never used */
	unsigned int nused;	      /* of requests[], ever */
	unsigned int nwaiting;	      /* to be tried again, of all queues */
	struct blk_request *requests; /* BLK_DEPTH */
	atomic_bool stop_asked;
	struct disk_request flush; /* that settles */
	bool flushing;
	atomic_bool flush_wanted;
	uint64_t flush_start_ns;
	uint64_t lock_tried_ns;
	uint64_t warned_ns; /* when the log was last told of a failure */
};

static inline struct blk *blk_of(struct virtio *v)
{
	return container_of(v, struct blk, virtio);
}

/* ---- blk_request.c ---- */

/* What is to be done with a chain. */
enum blk_verdict {
	BLK_SUBMIT, /* request->disk */
	BLK_ANSWER, /* with *@ret_status, at once */
	BLK_BROKEN, /* the driver has broken the rules */
};

/**
 * blk_request_parse() - what the chain of @request asks for; fills all but
 * done().
 */
enum blk_verdict blk_request_parse(struct blk *blk, struct blk_request *request,
				   uint8_t *ret_status);

/* ---- blk_io.c ---- */

/**
 * blk_io_create() - the thread, the engine, and room for requests.
 */
int __must_check blk_io_create(struct blk *blk, const struct device_env *env,
			       struct error *err);

/**
 * blk_io_free() - end the thread. No queue is served. What was not made is
 * left alone.
 */
void blk_io_free(struct blk *blk);

/**
 * blk_io_tell() - have the thread look at what is new; any thread.
 */
void blk_io_tell(struct blk *blk);

#endif
