/* SPDX-License-Identifier: MIT */
/*
 * A split virtqueue: from the guest's rings to chains of buffers and back.
 *
 * The guest is not trusted. A descriptor is copied once and then believed only
 * within bounds: chains no longer than the queue (indirect tables no longer
 * than VIRTQUEUE_SEGMENTS), no indirect in indirect, readable before writable,
 * every buffer inside RAM, no more chains in flight than descriptors. Whatever
 * breaks a rule breaks the queue: it stays broken, and serves nothing, until
 * the driver resets it or the device.
 *
 * Rings are looked up when the queue starts: each lies in one region of RAM.
 * Buffers of no bytes are skipped.
 * What we write, into rings and buffers, is marked dirty (memory.h): buffers by
 * virtqueue_push(), after they were filled and before the used index is
 * published.
 *
 * Threads: one at a time; whoever serves the queue. No locks here.
 *
 * Spec: VIRTIO 1.2, section 2.7.
 */
#ifndef GODWIT_DEVICES_VIRTIO_QUEUE_H
#define GODWIT_DEVICES_VIRTIO_QUEUE_H

#include <sys/uio.h>

#include "migration/codec.h"
#include "vmm/memory.h"

#define VIRTQUEUE_SIZE_MAX 256
/* Longest chain that we take, whatever indirect tables say. */
#define VIRTQUEUE_SEGMENTS 256

#define VIRTIO_NO_VECTOR 0xffff

/* What of a queue the guest can see, or will; see virtio.h for the vector. */
struct virtqueue_state {
	uint64_t desc;	     /* guest addresses */
	uint64_t avail;	     /* the "driver area" */
	uint64_t used;	     /* the "device area" */
	uint16_t size;	     /* a power of two up to VIRTQUEUE_SIZE_MAX */
	uint16_t next_avail; /* the next available entry to take */
	uint16_t next_used;  /* the next used entry to write */
	/* next_used when the guest was last told, if that is known; else 0. */
	uint16_t signalled_used;
	bool signalled_valid;
	bool enabled;
};

struct virtqueue {
	struct memory *mem;
	bool event_idx;
	bool indirect;
	bool broken;	 /* tell the core: virtio_fail() */
	const char *why; /* it is broken; a literal */
	struct virtqueue_state state;
	/* NULL unless started */
	const void *desc;
	const void *avail;
	void *used;
};

struct virtqueue_chain {
	uint16_t head;
	unsigned int nreadable; /* the first ones of iov */
	unsigned int nwritable; /* and those after them */
	uint64_t readable;	/* bytes */
	uint64_t writable;
	struct iovec iov[VIRTQUEUE_SEGMENTS]; /* host addresses, none empty */
	uint64_t gpa[VIRTQUEUE_SEGMENTS];     /* of the same, to mark dirty */
};

/**
 * virtqueue_start() - look up the rings that the state names.
 * @event_idx: VIRTIO_F_EVENT_IDX was negotiated; @indirect likewise.
 *
 * Return: 0, or -EINVAL: a ring is not in RAM or not aligned; the queue is
 * broken.
 */
int __must_check virtqueue_start(struct virtqueue *vq, struct memory *mem,
				 bool event_idx, bool indirect);

/**
 * virtqueue_stop() - forget where the rings are: nothing is available, nothing
 * is given back.
 */
void virtqueue_stop(struct virtqueue *vq);

/**
 * virtqueue_pop() - take the next available chain.
 *
 * At most as many chains as the queue has entries are out at a time; a driver
 * that offers more breaks the queue.
 *
 * Return: 1 with @chain filled; 0: none, or the queue is broken.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/**
 * virtqueue_fetch() - the chain that begins at @head once more, without taking
 * it from the ring: for a request that waits across a move.
 *
 * Return: as virtqueue_pop().
 */
int virtqueue_fetch(struct virtqueue *vq, uint16_t head,
		    struct virtqueue_chain *chain);

/**
 * virtqueue_unpop() - the @n chains that were taken last were not taken; they
 * come again. Of those taken since, none has been given back.
 */
void virtqueue_unpop(struct virtqueue *vq, uint16_t n);

/**
 * virtqueue_push() - give a chain back.
 * @written: bytes put into its writable buffers, from their beginning; they
 *           are marked dirty.
 */
void virtqueue_push(struct virtqueue *vq, const struct virtqueue_chain *chain,
		    uint32_t written);

/*
 * The same in three steps, for who gives several chains back that mean
 * something only together: mark what was written, fill used entries, publish
 * them at once.
 */

/**
 * virtqueue_mark() - @written bytes were put into @n segments, which are guest
 * memory at @gpa, from their beginning.
 */
void virtqueue_mark(struct virtqueue *vq, const struct iovec *iov,
		    const uint64_t *gpa, unsigned int n, uint64_t written);

/**
 * virtqueue_fill() - the used entry @ahead places behind the published ones.
 */
void virtqueue_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head,
		    uint32_t written);

/**
 * virtqueue_publish() - let the guest see @n filled entries.
 */
void virtqueue_publish(struct virtqueue *vq, uint16_t n);

/**
 * virtqueue_should_interrupt() - does the guest want to know of what was pushed
 * since the last call? Counts as told. Sections 2.7.7 and 2.7.8.
 */
bool virtqueue_should_interrupt(struct virtqueue *vq);

/**
 * virtqueue_pending() - is there an available chain?
 */
bool virtqueue_pending(struct virtqueue *vq);

/**
 * virtqueue_quiet() - ask the guest not to ring while we look anyway.
 */
void virtqueue_quiet(struct virtqueue *vq);

/**
 * virtqueue_listen() - ask the guest to ring for the next chain.
 *
 * Return: true when one has come meanwhile: look again before waiting.
 */
bool virtqueue_listen(struct virtqueue *vq);

void virtqueue_visit(struct codec *c, struct virtqueue_state *state);

/**
 * virtqueue_check() - could a queue of at most @size_max entries be in this
 * state? Rings need not be in RAM: the guest may have written anything.
 */
int __must_check virtqueue_check(const struct virtqueue_state *state,
				 uint16_t size_max, struct error *err);

/* ---- bytes of a chain ---- */

/**
 * iov_read() - copy @len bytes at @offset out of @n segments.
 *
 * Return: bytes copied: fewer when the segments end before.
 */
size_t iov_read(const struct iovec *iov, unsigned int n, size_t offset,
		void *buf, size_t len);

/**
 * iov_write() - copy @len bytes into them; as iov_read().
 */
size_t iov_write(const struct iovec *iov, unsigned int n, size_t offset,
		 const void *buf, size_t len);

#endif
