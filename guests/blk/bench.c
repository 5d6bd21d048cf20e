/* SPDX-License-Identifier: MIT */
/*
 * How long random reads of 4 KiB take: each from the moment before it is put
 * into the ring to the moment after it is taken out, by the TSC, in ring 3.
 */
#include "blk/blk.h"
#include "blk/plan.h"
#include "latency.h"

#define READ_SIZE    4096U
#define READ_SECTORS (READ_SIZE / BLOCK_SECTOR)
#define WARM_NS	     (NS_PER_S / 5)

struct read {
	struct block_request request; /* first */
	uint64_t begun;		      /* TSC */
};

static struct {
	struct block *disk;
	struct read reads[BLK_DEPTH_MAX];
	uint64_t places; /* where a read can go */
	uint64_t random;
	struct latency latency;
} bench;

static void begin(struct read *read)
{
	bench.random = bench.random * 6364136223846793005UL + 1;
	read->request.sector =
		(bench.random >> 20) % bench.places * READ_SECTORS;
	read->begun = rdtsc();
	if (!block_add(bench.disk, 0, &read->request))
		guest_fail(VERDICT_INTERNAL, "the queue is full\n");
}

static void end(struct read *read)
{
	uint64_t ticks = rdtsc() - read->begun;

	if (read->request.status != BLOCK_OK)
		guest_fail(VERDICT_STATUS, "failed sector=%lu status=%u\n",
			   read->request.sector, read->request.status);
	latency_add(&bench.latency, ticks);
}

/* As many reads in flight as there are; returns TSC ticks. */
static uint64_t run(unsigned int depth, uint64_t ns)
{
	uint64_t ticks = clock_ns_tsc(ns);
	uint64_t start = rdtsc();
	struct block_request *r;
	bool again = true;

	memset(&bench.latency, 0, sizeof(bench.latency));
	for (unsigned int i = 0; i < depth; i++)
		begin(&bench.reads[i]);
	block_kick(bench.disk, 0);
	while (virtqueue_in_flight(&bench.disk->queues[0].ring)) {
		r = block_take(bench.disk, 0);
		if (!r) {
			cpu_relax();
			continue;
		}
		do {
			end((struct read *)r);
			again = again && rdtsc() - start < ticks;
			if (again)
				begin((struct read *)r);
		} while ((r = block_take(bench.disk, 0)));
		block_kick(bench.disk, 0);
	}
	return rdtsc() - start;
}

void blk_bench(struct block *disk, const struct blk_options *options)
{
	uint64_t seconds = options->seconds ? options->seconds : 3;
	uint64_t span = block_capacity(disk) * BLOCK_SECTOR;
	uint64_t ticks;

	if (span > options->span)
		span = options->span;
	bench.disk = disk;
	bench.places = span / READ_SIZE;
	bench.random = options->seed;
	if (!bench.places)
		guest_fail(VERDICT_MACHINE, "the disk is too small\n");
	for (unsigned int i = 0; i < options->depth; i++)
		bench.reads[i].request = (struct block_request){
			.type = BLOCK_READ,
			.segments = 1,
			.data = { { mem_alloc(READ_SIZE, PAGE_SIZE),
				    READ_SIZE } },
		};
	print("ready\n");
	run(options->depth, WARM_NS);
	ticks = run(options->depth, seconds * NS_PER_S);
	print("bench depth=%u reads=%lu ms=%lu iops=%lu median_ns=%lu "
	      "p99_ns=%lu max_ns=%lu\n",
	      options->depth, bench.latency.done, clock_tsc_ns(ticks) / 1000000,
	      mul_div(bench.latency.done, NS_PER_S, clock_tsc_ns(ticks)),
	      latency_quantile_ns(&bench.latency, 500),
	      latency_quantile_ns(&bench.latency, 990),
	      clock_tsc_ns(bench.latency.longest));
}
