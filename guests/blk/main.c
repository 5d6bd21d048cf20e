/* SPDX-License-Identifier: MIT */
/*
 * blk: writes a disk over and over by its own driver, and verifies every byte
 * that it ever wrote.
 *
 * A pass (plan.h) writes, zeroes or discards and writes each sector of the
 * span once, by requests of random lengths in random order, many in flight;
 * between them are reads of what is known, and flushes. After a pass the disk
 * is flushed, the pass is noted in the superblock (sector 0), that is flushed,
 * and the whole span is read and verified.
 *
 * So a guest that is reset at any moment finds on the disk which pass was
 * complete, and each sector must hold that pass or the one that was broken
 * off: it begins by verifying this. A superblock of another shape (another
 * seed, say) means a fresh start.
 *
 * Options:
 *   span=KIB	      bytes of the disk to use (default 4096), cut to its end
 *   depth=N	      requests in flight on a queue (default 8)
 *   queues=N	      default 1, cut to what the disk has
 *   blocks=N	      sectors of a request, to 64; 0 (default): random
 *   reads=PERCENT    of the requests, default 30; flushes=PERCENT, default 2
 *   zero=PERCENT     of the zones that are zeroed, and as many are discarded
 *   rate=N	      requests a second, 0 (default): as fast as possible
 *   seed=N	      default 1
 *   indirect=yes|no, event=yes|no   leave the features alone
 *   wait=poll|irq    how to learn that requests are done
 *   size=N	      of a queue, default 256
 *   passes=N seconds=N ops=N   end by itself; 0 (default): only on 'q'
 *   bench=no|read4k  measure reads instead; writes nothing
 * Serial: 's' prints "stats …"; 'r' resets the machine as soon as requests are
 * in flight; 'q' verifies everything and ends.
 * Verdicts: 20 wrong data, 21 a request failed, 22 the disk's id changed, 23 an
 * interrupt is lost.
 */
#include "blk/blk.h"
#include "blk/plan.h"
#include "sector.h"

#define RESET_PORT 0xcf9
#define RESET_HARD 0x06

#define SUPER_MAGIC 0x6b6c622d74776467UL /* "gdwt-blk" */
#define SUPER	    0UL			 /* its sector */

/* An interrupt that has not come after so many turns and so long is lost. */
#define LOST_NS	 (10 * NS_PER_S)
#define TURN_NS	 1000000UL
#define POLL_NS	 1000000UL
#define MISALIGN 16UL

struct super {
	uint64_t magic;
	struct plan_shape shape;
	uint64_t pass;	/* complete, and flushed */
	uint64_t boots; /* of a guest of this shape */
	uint64_t sum;
	uint64_t unused[54];
};
_Static_assert(sizeof(struct super) == SECTOR_SIZE, "one sector");

struct job {
	struct block_request request; /* first */
	unsigned int queue;
	struct piece *piece;
	uint8_t *buffer;  /* page aligned, of BLK_SECTORS_MAX and MISALIGN */
	uint8_t *data;	  /* in it */
	struct job *next; /* free */
};

enum phase {
	WRITING,
	VERIFYING,
};

static struct {
	struct block disk;
	struct block_setup setup;
	struct blk_options options;
	struct plan plan;
	struct super *super;
	char id[BLOCK_ID_SIZE + 1];
	enum phase phase;
	size_t verified; /* pieces, in VERIFYING */
	uint64_t reads, flushes, rate;
	uint64_t passes, ops_limit;
	unsigned int queue; /* whose turn it is */
	struct job *free;
	unsigned int in_flight;
	bool stop, reset;
	uint64_t start, due; /* TSC */
	uint64_t lost_ns, last_turn;
	uint64_t ops, count[BLOCK_WRITE_ZEROES + 1], sectors;
} blk;

/* ---- words ---- */

static void show(const char *what)
{
	uint64_t ns = clock_tsc_ns(rdtsc() - blk.start);
	uint64_t interrupts = 0;

	for (unsigned int i = 0; i < blk.disk.nqueues; i++)
		interrupts += block_hits(i);
	/* A wrong sector ends the guest, so whoever reads this saw none. */
	print("%s passes=%lu ops=%lu reads=%lu writes=%lu flushes=%lu "
	      "zeroes=%lu discards=%lu mib=%lu ms=%lu interrupts=%lu "
	      "errors=0\n",
	      what, blk.super->pass, blk.ops, blk.count[BLOCK_READ],
	      blk.count[BLOCK_WRITE], blk.count[BLOCK_FLUSH],
	      blk.count[BLOCK_WRITE_ZEROES], blk.count[BLOCK_DISCARD],
	      blk.sectors >> 11, ns / 1000000, interrupts);
}

static void attend(void)
{
	static uint64_t next_poll;
	uint64_t now = rdtsc();
	int c;

	if (now < next_poll)
		return;
	next_poll = now + clock_ns_tsc(POLL_NS);
	c = serial_poll();
	if (c == 's')
		show("stats");
	if (c == 'r')
		blk.reset = true;
	if (c == 'q' ||
	    (blk.options.seconds &&
	     clock_tsc_ns(now - blk.start) >= blk.options.seconds * NS_PER_S))
		blk.stop = true;
}

/* As the disk works on what it was told a moment ago. */
static void reset_machine(void)
{
	print("reset in_flight=%u\n", blk.in_flight);
	serial_drain();
	outb(RESET_PORT, RESET_HARD);
}

/* ---- jobs ---- */

static void job_put(struct job *job)
{
	job->next = blk.free;
	blk.free = job;
}

static void make_jobs(unsigned int count)
{
	struct job *jobs = mem_alloc(count * sizeof(*jobs), 64);

	for (unsigned int i = 0; i < count; i++) {
		jobs[i].buffer = mem_alloc(
			BLK_SECTORS_MAX * SECTOR_SIZE + MISALIGN, PAGE_SIZE);
		job_put(&jobs[i]);
	}
}

/* The buffer in up to BLOCK_SEGMENTS parts, of odd lengths too. */
static void split(struct block_request *r, uint8_t *data, uint32_t len)
{
	uint32_t part;

	r->segments = 0;
	while (len) {
		part = len;
		if (r->segments + 1 < BLOCK_SEGMENTS &&
		    plan_random(&blk.plan, 2))
			part = 1 + (uint32_t)plan_random(&blk.plan, len);
		r->data[r->segments++] =
			(struct virtqueue_buffer){ data, part };
		data += part;
		len -= part;
	}
}

/* Aligned or not, in one part or more: all is allowed. */
static void aim(struct job *job, enum block_type type, struct piece *piece)
{
	struct block_request *r = &job->request;

	r->type = type;
	r->segments = 0;
	job->piece = piece;
	if (!piece)
		return;
	piece->busy = true;
	r->sector = blk.plan.shape.first + piece->first;
	r->sectors = piece->sectors;
	job->data = job->buffer;
	if (plan_random(&blk.plan, 2))
		job->data += plan_random(&blk.plan, MISALIGN);
	if (type == BLOCK_READ || type == BLOCK_WRITE)
		split(r, job->data, (uint32_t)(piece->sectors * SECTOR_SIZE));
	if (type == BLOCK_WRITE)
		plan_fill(&blk.plan, piece, job->data);
}

static bool submit(struct job *job)
{
	if (!block_add(&blk.disk, job->queue, &job->request))
		return false;
	blk.in_flight++;
	return true;
}

/* The request that does what the plan says; a discard comes in two. */
static enum block_type type_of(struct job *job, const struct piece *piece)
{
	enum plan_kind kind =
		plan_kind(&blk.plan.shape, piece->first, blk.plan.pass);

	job->request.unmap = kind == PLAN_UNMAP;
	switch (kind) {
	case PLAN_ZEROES:
	case PLAN_UNMAP:
		return BLOCK_WRITE_ZEROES;
	case PLAN_DISCARD:
		return BLOCK_DISCARD;
	case PLAN_WRITE:
		break;
	}
	return BLOCK_WRITE;
}

/* ---- what to do next ---- */

static struct piece *piece_to_read(void)
{
	struct plan *plan = &blk.plan;
	struct piece *piece = &plan->pieces[plan_random(plan, plan->count)];

	return piece->busy ? NULL : piece;
}

static bool next_write(struct job *job)
{
	uint64_t roll = plan_random(&blk.plan, 100);
	struct piece *piece;

	if (roll < blk.flushes) {
		aim(job, BLOCK_FLUSH, NULL);
		return true;
	}
	if (roll < blk.flushes + blk.reads) {
		piece = piece_to_read();
		if (piece)
			aim(job, BLOCK_READ, piece);
		return piece;
	}
	piece = plan_take(&blk.plan);
	if (piece)
		aim(job, type_of(job, piece), piece);
	return piece;
}

static bool next_verify(struct job *job)
{
	if (blk.verified == blk.plan.count)
		return false;
	aim(job, BLOCK_READ, &blk.plan.pieces[blk.verified++]);
	return true;
}

static bool all_begun(void)
{
	if (blk.phase == VERIFYING)
		return blk.verified == blk.plan.count;
	return blk.stop || plan_taken_all(&blk.plan);
}

static bool is_due(void)
{
	uint64_t now, period;

	if (!blk.rate || blk.phase == VERIFYING)
		return true;
	now = rdtsc();
	if (now < blk.due)
		return false;
	period = clock_ns_tsc(NS_PER_S) / blk.rate;
	/* After a stop nothing is caught up, so that it is no burst. */
	blk.due = now > blk.due + 10 * period ? now : blk.due + period;
	return true;
}

/* Begin one more; false: not now. */
static bool begin(void)
{
	struct job *job = blk.free;

	if (!job || all_begun() || !is_due())
		return false;
	if (blk.phase == WRITING ? !next_write(job) : !next_verify(job))
		return false;
	blk.free = job->next;
	job->queue = blk.queue++ % blk.disk.nqueues;
	if (!submit(job))
		guest_fail(VERDICT_INTERNAL, "queue %u is full\n", job->queue);
	return true;
}

/* ---- what is done ---- */

static void end(struct job *job)
{
	struct block_request *r = &job->request;

	blk.in_flight--;
	blk.ops++;
	blk.count[r->type]++;
	if (r->status != BLOCK_OK)
		guest_fail(VERDICT_STATUS,
			   "failed type=%u sector=%lu sectors=%u status=%u\n",
			   r->type, r->sector, r->sectors, r->status);
	if (blk.ops_limit && blk.ops >= blk.ops_limit)
		blk.stop = true;
	if (job->piece) {
		blk.sectors += job->piece->sectors;
		job->piece->busy = false;
	}
	if (r->type == BLOCK_READ) {
		plan_verify(&blk.plan, job->piece, job->data);
	} else if (r->type == BLOCK_DISCARD) {
		aim(job, BLOCK_WRITE, job->piece);
		if (!submit(job))
			guest_fail(VERDICT_INTERNAL, "queue %u is full\n",
				   job->queue);
		return;
	} else if (job->piece) {
		job->piece->done = true;
	}
	job_put(job);
}

/*
 * Counts turns and not only time: this guest may have stood still between the
 * disk's writing the ring and its interrupt.
 */
static void look_for_lost(bool took_any)
{
	uint64_t now = rdtsc();
	uint64_t ns = clock_tsc_ns(now - blk.last_turn);
	bool waiting = false;

	blk.last_turn = now;
	for (unsigned int i = 0; i < blk.disk.nqueues; i++)
		waiting |= virtqueue_done(&blk.disk.queues[i].ring);
	if (took_any || !waiting || !blk.disk.interrupts) {
		blk.lost_ns = 0;
		return;
	}
	blk.lost_ns += ns < TURN_NS ? ns : TURN_NS;
	if (blk.lost_ns > LOST_NS)
		guest_fail(VERDICT_INTERRUPT_LOST,
			   "requests are done and no interrupt came\n");
}

/* Until all that there is to begin has begun and ended. */
static void run_phase(enum phase phase)
{
	struct block_request *done;
	bool took, began;

	blk.phase = phase;
	blk.verified = 0;
	do {
		attend();
		took = began = false;
		for (unsigned int i = 0; i < blk.disk.nqueues; i++) {
			while ((done = block_take(&blk.disk, i))) {
				took = true;
				end((struct job *)done);
			}
		}
		while (begin())
			began = true;
		if (took || began) {
			for (unsigned int i = 0; i < blk.disk.nqueues; i++)
				block_kick(&blk.disk, i);
		}
		if (blk.reset && blk.in_flight)
			reset_machine();
		look_for_lost(took);
	} while (blk.in_flight || !all_begun());
}

/* ---- one request at a time ---- */

static void run_one(enum block_type type, uint64_t sector, void *data,
		    uint32_t len)
{
	struct block_request r = {
		.type = type,
		.sector = sector,
		.segments = len ? 1 : 0,
		.data = { { data, len } },
	};
	unsigned int status = block_run(&blk.disk, &r);

	if (status != BLOCK_OK)
		guest_fail(VERDICT_STATUS,
			   "failed type=%u sector=%lu "
			   "status=%u\n",
			   type, sector, status);
}

static void flush(void)
{
	if (blk.disk.v.features & BLOCK_F_FLUSH)
		run_one(BLOCK_FLUSH, 0, NULL, 0);
}

/* The disk's name stays the same, wherever the guest runs. */
static void check_id(void)
{
	char id[BLOCK_ID_SIZE + 1] = "";

	run_one(BLOCK_GET_ID, 0, id, BLOCK_ID_SIZE);
	if (!blk.id[0])
		memcpy(blk.id, id, sizeof(id));
	if (memcmp(blk.id, id, sizeof(id)))
		guest_fail(VERDICT_ID, "the disk was \"%s\" and is \"%s\"\n",
			   blk.id, id);
}

/* ---- the superblock ---- */

static uint64_t super_sum(const struct super *super)
{
	const uint64_t *word = (const uint64_t *)super;
	uint64_t sum = 0;

	for (size_t i = 0; i < offsetof(struct super, sum) / 8; i++)
		sum = (sum + word[i]) * 3;
	return sum;
}

static void write_super(void)
{
	blk.super->sum = super_sum(blk.super);
	flush();
	run_one(BLOCK_WRITE, SUPER, blk.super, SECTOR_SIZE);
	flush();
}

/* Takes up the work of a guest before this one, or begins anew. */
static void read_super(void)
{
	struct super *super = mem_alloc(sizeof(*super), SECTOR_SIZE);

	run_one(BLOCK_READ, SUPER, super, SECTOR_SIZE);
	if (super->magic != SUPER_MAGIC || super->sum != super_sum(super) ||
	    memcmp(&super->shape, &blk.plan.shape, sizeof(super->shape)))
		*super = (struct super){ .magic = SUPER_MAGIC,
					 .shape = blk.plan.shape };
	super->boots++;
	blk.super = super;
	write_super();
}

/* ---- the start ---- */

static const char *const yes_no[] = { "yes", "no", NULL };
static const char *const waits[] = { "poll", "irq", NULL };
static const char *const benches[] = { "no", "read4k", NULL };

static uint64_t without(void)
{
	uint64_t features = 0;

	if (option_choice("indirect", yes_no))
		features |= VIRTIO_F_INDIRECT;
	if (option_choice("event", yes_no))
		features |= VIRTIO_F_EVENT_IDX;
	return features;
}

/* Return: whether to measure. */
static bool options(void)
{
	struct plan *plan = &blk.plan;
	bool bench;

	blk.options.span = option_number("span", 4096, 1U << 20) << 10;
	blk.options.depth =
		(unsigned int)option_number("depth", 8, BLK_DEPTH_MAX);
	blk.options.seconds = option_number("seconds", 0, 1000000);
	blk.options.seed = option_number("seed", 1, UINT64_MAX);
	blk.setup.queues =
		(unsigned int)option_number("queues", 1, BLOCK_QUEUES);
	blk.setup.size =
		(uint16_t)option_number("size", VIRTQUEUE_SIZE, VIRTQUEUE_SIZE);
	blk.setup.without = without();
	blk.setup.interrupts = option_choice("wait", waits);
	plan->most = (uint16_t)option_number("blocks", 0, BLK_SECTORS_MAX);
	plan->shape.zero = option_number("zero", 10, 50);
	blk.reads = option_number("reads", 30, 99);
	blk.flushes = option_number("flushes", 2, 99);
	blk.rate = option_number("rate", 0, 1000000000);
	blk.passes = option_number("passes", 0, UINT64_MAX);
	blk.ops_limit = option_number("ops", 0, UINT64_MAX);
	bench = option_choice("bench", benches);
	option_end();
	if (!blk.options.depth || !blk.setup.queues || !blk.setup.size ||
	    blk.setup.size & (blk.setup.size - 1) ||
	    blk.reads + blk.flushes > 99)
		guest_fail(VERDICT_USAGE,
			   "depth=%u queues=%u size=%u reads=%lu "
			   "flushes=%lu: not possible\n",
			   blk.options.depth, blk.setup.queues, blk.setup.size,
			   blk.reads, blk.flushes);
	return bench;
}

/* What one queue can hold is what may be in flight there. */
static unsigned int jobs(void)
{
	unsigned int room = blk.setup.size;

	if (!(blk.disk.v.features & VIRTIO_F_INDIRECT))
		room /= BLOCK_SEGMENTS + 2;
	if (blk.options.depth < room)
		room = blk.options.depth;
	return room * blk.disk.nqueues;
}

static void open_disk(void)
{
	struct plan_shape *shape = &blk.plan.shape;
	uint64_t capacity;

	if (!block_find(&blk.disk, 0))
		guest_fail(VERDICT_MACHINE, "no virtio disk\n");
	block_start(&blk.disk, &blk.setup);
	capacity = block_capacity(&blk.disk);
	if (capacity < 2)
		guest_fail(VERDICT_MACHINE, "a disk of %lu sectors\n",
			   capacity);
	shape->first = SUPER + 1;
	shape->sectors = blk.options.span / SECTOR_SIZE;
	if (shape->sectors > capacity - shape->first)
		shape->sectors = capacity - shape->first;
	shape->seed = blk.options.seed;
	shape->can_zero = !!(blk.disk.v.features & BLOCK_F_WRITE_ZEROES);
	shape->can_discard = !!(blk.disk.v.features & BLOCK_F_DISCARD);
	check_id();
	print("blk: id=\"%s\" sectors=%lu queues=%u features=0x%lx\n", blk.id,
	      capacity, blk.disk.nqueues, blk.disk.v.features);
}

static void run_passes(void)
{
	uint64_t first = blk.super->pass + 1;

	for (uint64_t pass = first; !blk.stop; pass++) {
		plan_begin(&blk.plan, pass, pass != first);
		if (pass == first) {
			run_phase(VERIFYING);
			print("ready\n");
		}
		run_phase(WRITING);
		if (!blk.stop) {
			blk.super->pass = pass;
			write_super();
		}
		check_id();
		run_phase(VERIFYING);
		if (blk.passes && pass - first + 1 >= blk.passes)
			blk.stop = true;
	}
}

unsigned int guest_main(void)
{
	bool bench = options();

	open_disk();
	blk.start = blk.last_turn = rdtsc();
	if (bench) {
		blk_bench(&blk.disk, &blk.options);
		return VERDICT_PASS;
	}
	plan_init(&blk.plan);
	make_jobs(jobs());
	read_super();
	print("blk: boot=%lu pass=%lu span=%lu depth=%u\n", blk.super->boots,
	      blk.super->pass, blk.plan.shape.sectors, jobs());
	run_passes();
	show("verified");
	return VERDICT_PASS;
}
