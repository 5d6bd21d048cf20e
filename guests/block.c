/* SPDX-License-Identifier: MIT */
/*
 * The virtio-blk driver of the guests; see block.h.
 *
 * Interrupt handlers only count: ring 0 may be slow. Ring 3 looks at a queue
 * when its count has changed, so an interrupt that is lost leaves requests
 * untaken, where their owner notices.
 */
#include "block.h"

#define WANTED                                                             \
	(VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_RESET |    \
	 BLOCK_F_SEG_MAX | BLOCK_F_RO | BLOCK_F_BLK_SIZE | BLOCK_F_FLUSH | \
	 BLOCK_F_MQ | BLOCK_F_DISCARD | BLOCK_F_WRITE_ZEROES)

static volatile uint64_t hits[BLOCK_QUEUES];

static void on_queue(struct trap_frame *frame)
{
	volatile uint64_t *count = &hits[frame->vector - BLOCK_VECTOR];

	*count = *count + 1;
	lapic_eoi();
}

static void on_config(struct trap_frame *frame)
{
	(void)frame;
	lapic_eoi();
}

uint64_t block_hits(unsigned int queue)
{
	return hits[queue];
}

bool block_find(struct block *disk, unsigned int index)
{
	*disk = (struct block){ 0 };
	if (!virtio_find(VIRTIO_ID_BLOCK, index, &disk->v))
		return false;
	disk->config = disk->v.config;
	if (!disk->config)
		guest_fail(VERDICT_DEVICE, "disk %u has no configuration\n",
			   index);
	return true;
}

uint64_t block_capacity(const struct block *disk)
{
	volatile struct virtio_common *common = disk->v.common;
	uint8_t generation;
	uint64_t capacity;

	do {
		generation = common->config_generation;
		capacity = disk->config->capacity;
	} while (generation != common->config_generation);
	return capacity;
}

/* One vector a queue and one for the configuration. */
static void setup_interrupts(struct block *disk)
{
	unsigned int vectors = disk->nqueues + 1;

	if (!msix_open(&disk->msix, &disk->v.pci) ||
	    disk->msix.vectors < vectors)
		guest_fail(VERDICT_MACHINE, "the disk has no %u vectors\n",
			   vectors);
	msix_control(&disk->msix, MSIX_ENABLE);
	for (unsigned int i = 0; i < vectors; i++) {
		unsigned int vector =
			i < disk->nqueues ? BLOCK_VECTOR + i : BLOCK_CONFIG_VEC;

		trap_set(vector, i < disk->nqueues ? on_queue : on_config);
		msix_target(&disk->msix, i, cpu_apic_id(0), vector);
		msix_mask(&disk->msix, i, false);
	}
	disk->v.common->config_vector = (uint16_t)disk->nqueues;
}

void block_start(struct block *disk, const struct block_setup *setup)
{
	uint16_t queues = 1;

	virtio_negotiate(&disk->v, WANTED & ~setup->without);
	if (disk->v.features & BLOCK_F_MQ)
		queues = disk->config->num_queues;
	disk->nqueues = setup->queues < queues ? setup->queues : queues;
	disk->interrupts = setup->interrupts;
	if (disk->interrupts)
		setup_interrupts(disk);
	for (uint16_t i = 0; i < disk->nqueues; i++) {
		virtqueue_setup(&disk->queues[i].ring, &disk->v, i, setup->size,
				disk->interrupts ? i : VIRTIO_NO_VECTOR);
		disk->queues[i].seen = hits[i];
		virtqueue_want_interrupt(&disk->queues[i].ring,
					 disk->interrupts);
	}
	virtio_status(&disk->v, VIRTIO_DRIVER_OK);
	irq_set(disk->interrupts);
}

/* The buffers of a request; section 5.2.6. */
static unsigned int describe(struct block_request *r,
			     struct virtqueue_buffer *buf, unsigned int *ret_in)
{
	bool range = r->type == BLOCK_DISCARD || r->type == BLOCK_WRITE_ZEROES;
	bool write = r->type == BLOCK_WRITE || range;
	unsigned int n = 0;

	r->header = (struct block_header){
		.type = r->type,
		.sector = range ? 0 : r->sector,
	};
	r->status = BLOCK_NO_STATUS;
	buf[n++] = (struct virtqueue_buffer){ &r->header, sizeof(r->header) };
	if (range) {
		r->range = (struct block_range){
			.sector = r->sector,
			.sectors = r->sectors,
			.flags = r->unmap ? BLOCK_UNMAP : 0,
		};
		buf[n++] = (struct virtqueue_buffer){ &r->range,
						      sizeof(r->range) };
	}
	for (unsigned int i = 0; !range && i < r->segments; i++)
		buf[n++] = r->data[i];
	buf[n++] = (struct virtqueue_buffer){ (void *)&r->status, 1 };
	*ret_in = write ? 1 : n - 1;
	return n - *ret_in;
}

bool block_add(struct block *disk, unsigned int queue,
	       struct block_request *request)
{
	struct virtqueue_buffer buf[BLOCK_SEGMENTS + 2];
	struct block_queue *q = &disk->queues[queue];
	unsigned int in, out = describe(request, buf, &in);
	int head = virtqueue_add(&q->ring, buf, out, in);

	if (head < 0)
		return false;
	q->requests[head] = request;
	return true;
}

void block_kick(struct block *disk, unsigned int queue)
{
	virtqueue_kick(&disk->queues[queue].ring);
}

static uint32_t must_write(const struct block_request *r)
{
	uint32_t n = 1;

	if (r->type != BLOCK_READ && r->type != BLOCK_GET_ID)
		return n;
	for (unsigned int i = 0; i < r->segments; i++)
		n += r->data[i].len;
	return n;
}

static void check(const struct block_request *r)
{
	if (r->status == BLOCK_NO_STATUS ||
	    (r->status == BLOCK_OK && r->written != must_write(r)))
		guest_fail(VERDICT_DEVICE,
			   "request type=%u sector=%lu status=%u: %u bytes "
			   "were written, not %u\n",
			   r->type, r->sector, r->status, r->written,
			   must_write(r));
}

/* Nobody wants interrupts; have the disk know it for good. */
static int take_polling(struct block_queue *q, uint32_t *ret_len)
{
	int head = virtqueue_take(&q->ring, ret_len);

	if (head >= 0 && q->ring.taken % VIRTQUEUE_QUIET == 0)
		virtqueue_want_interrupt(&q->ring, false);
	return head;
}

static int take_interrupted(struct block_queue *q, uint64_t count,
			    uint32_t *ret_len)
{
	int head;

	if (count == q->seen)
		return -1;
	head = virtqueue_take(&q->ring, ret_len);
	if (head >= 0)
		return head;
	/* What is done from here on has an interrupt of its own. */
	if (virtqueue_want_interrupt(&q->ring, true))
		return virtqueue_take(&q->ring, ret_len);
	q->seen = count;
	return -1;
}

struct block_request *block_take(struct block *disk, unsigned int queue)
{
	struct block_queue *q = &disk->queues[queue];
	struct block_request *r;
	uint32_t len;
	int head;

	if (disk->interrupts)
		head = take_interrupted(q, hits[queue], &len);
	else
		head = take_polling(q, &len);
	if (head < 0)
		return NULL;
	r = q->requests[head];
	r->written = len;
	check(r);
	return r;
}

unsigned int block_run(struct block *disk, struct block_request *request)
{
	struct block_request *done;

	if (!block_add(disk, 0, request))
		guest_fail(VERDICT_INTERNAL, "the queue is full\n");
	block_kick(disk, 0);
	while (!(done = block_take(disk, 0)))
		cpu_relax();
	if (done != request)
		guest_fail(VERDICT_INTERNAL, "another request is done\n");
	return request->status;
}
