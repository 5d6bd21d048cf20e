/* SPDX-License-Identifier: MIT */
/*
 * How long random reads of 4 KiB take: each from the moment before it is put
 * into the ring to the moment after it is taken out, by the TSC, in ring 3.
 *
 * Latencies go into a histogram whose buckets are 1/64 of their octave wide,
 * so a quantile is exact to 1.6 % and no run is too long.
 */
#include "blk/blk.h"
#include "blk/plan.h"

#define READ_SIZE    4096U
#define READ_SECTORS (READ_SIZE / BLOCK_SECTOR)
#define SUB_BITS     6U
#define SUB	     (1UL << SUB_BITS)
#define BUCKETS	     (64 * SUB)
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
	uint64_t histogram[BUCKETS];
	uint64_t done, longest; /* ticks */
} bench;

static size_t bucket_of(uint64_t ticks)
{
	unsigned int top;

	if (ticks < SUB)
		return ticks;
	top = 63U - (unsigned int)__builtin_clzl(ticks);
	return (top - SUB_BITS + 1) * SUB + (ticks >> (top - SUB_BITS)) - SUB;
}

/* The middle of a bucket. */
static uint64_t bucket_ticks(size_t bucket)
{
	uint64_t shift;

	if (bucket < SUB)
		return bucket;
	shift = bucket / SUB - 1;
	return ((bucket % SUB + SUB) << shift) + (1UL << shift) / 2;
}

static uint64_t quantile_ns(uint64_t per_thousand)
{
	uint64_t rank = bench.done * per_thousand / 1000;
	uint64_t seen = 0;

	for (size_t i = 0; i < BUCKETS; i++) {
		seen += bench.histogram[i];
		if (seen > rank)
			return clock_tsc_ns(bucket_ticks(i));
	}
	return clock_tsc_ns(bench.longest);
}

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
	bench.histogram[bucket_of(ticks)]++;
	bench.done++;
	if (ticks > bench.longest)
		bench.longest = ticks;
}

/* As many reads in flight as there are; returns TSC ticks. */
static uint64_t run(unsigned int depth, uint64_t ns)
{
	uint64_t ticks = clock_ns_tsc(ns);
	uint64_t start = rdtsc();
	struct block_request *r;
	bool again = true;

	bench.done = bench.longest = 0;
	memset(bench.histogram, 0, sizeof(bench.histogram));
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
	      options->depth, bench.done, clock_tsc_ns(ticks) / 1000000,
	      mul_div(bench.done, NS_PER_S, clock_tsc_ns(ticks)),
	      quantile_ns(500), quantile_ns(990), clock_tsc_ns(bench.longest));
}
