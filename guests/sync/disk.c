/* SPDX-License-Identifier: MIT */
/*
 * Points about requests to a disk. They overwrite its first sectors.
 */
#include "block.h"
#include "sector.h"
#include "sync.h"

#define REQUESTS 16U
#define SECTORS	 4U /* of each */
#define SIZE	 (SECTORS * BLOCK_SECTOR)
#define SEED	 0x73796e63U

static struct block disk;
static struct block_request requests[REQUESTS];
static uint8_t (*buffers)[SIZE];

static bool disk_up(uint64_t without)
{
	const struct block_setup setup = {
		.queues = 1,
		.size = VIRTQUEUE_SIZE,
		.without = without,
	};

	if (!disk.config && !block_find(&disk, 0)) {
		sync_skip("no virtio disk");
		return false;
	}
	block_start(&disk, &setup);
	if (disk.v.features & BLOCK_F_RO ||
	    block_capacity(&disk) < REQUESTS * SECTORS) {
		sync_skip("readonly, or too small");
		return false;
	}
	if (!buffers)
		buffers = mem_alloc(REQUESTS * SIZE, PAGE_SIZE);
	return true;
}

static struct sector_id name(unsigned int i, unsigned int sector, uint64_t pass)
{
	return (struct sector_id){
		.sector = i * SECTORS + sector,
		.pass = pass,
		.seed = SEED,
	};
}

/* All requests of a kind into the ring; in three parts, the middle one odd. */
static void add_all(enum block_type type, uint64_t pass)
{
	for (unsigned int i = 0; i < REQUESTS; i++) {
		uint8_t *at = buffers[i];
		struct sector_id id;

		for (unsigned int s = 0; s < SECTORS; s++) {
			id = name(i, s, pass);
			if (type == BLOCK_WRITE)
				sector_write(at + s * BLOCK_SECTOR, &id);
		}
		requests[i] = (struct block_request){
			.type = type,
			.sector = i * SECTORS,
			.segments = 3,
			.data = { { at, 511 },
				  { at + 511, 3 },
				  { at + 514, SIZE - 514 } },
		};
		if (!block_add(&disk, 0, &requests[i]))
			guest_fail(VERDICT_INTERNAL, "the queue is full\n");
	}
}

static void take_all(void)
{
	uint64_t start = rdtsc();
	unsigned int n = 0;

	while (n < REQUESTS && rdtsc() - start < clock_ns_tsc(5 * SECOND_NS)) {
		struct block_request *r = block_take(&disk, 0);

		if (!r)
			continue;
		sync_check("status", BLOCK_OK, r->status);
		n++;
	}
	sync_check("requests done", REQUESTS, n);
}

static void verify_all(uint64_t pass)
{
	struct sector_fault fault;
	struct sector_id id;

	memset(buffers, 0, REQUESTS * SIZE);
	add_all(BLOCK_READ, pass);
	block_kick(&disk, 0);
	take_all();
	for (unsigned int i = 0; i < REQUESTS * SECTORS; i++) {
		id = name(i / SECTORS, i % SECTORS, pass);
		if (!sector_verify(buffers[i / SECTORS] +
					   i % SECTORS * BLOCK_SECTOR,
				   &id, &fault))
			sync_check("word", fault.expected, fault.got);
	}
}

/* Writes that the disk has been told of, and that nobody has taken back. */
static void in_flight(uint64_t without, bool ring, uint64_t pass)
{
	if (!disk_up(without))
		return;
	add_all(BLOCK_WRITE, pass);
	if (virtqueue_publish(&disk.queues[0].ring) && ring)
		virtqueue_ring(&disk.queues[0].ring);
	sync_wait();
	if (!ring)
		virtqueue_ring(&disk.queues[0].ring);
	take_all();
	verify_all(pass);
	virtio_reset(&disk.v);
}

void point_disk_in_flight(void)
{
	in_flight(VIRTIO_F_INDIRECT, true, 1);
}

void point_disk_indirect(void)
{
	in_flight(0, false, 2);
}

/* The registers that belong to disks alone. */
void point_disk_config(void)
{
	uint8_t before[sizeof(struct block_config)];
	uint64_t capacity;

	if (!disk_up(0))
		return;
	capacity = block_capacity(&disk);
	for (size_t i = 0; i < sizeof(before); i++)
		before[i] = ((volatile const uint8_t *)disk.config)[i];
	sync_wait();
	sync_check("capacity", capacity, block_capacity(&disk));
	for (size_t i = 0; i < sizeof(before); i++)
		sync_check("configuration", before[i],
			   ((volatile const uint8_t *)disk.config)[i]);
	virtio_reset(&disk.v);
}
