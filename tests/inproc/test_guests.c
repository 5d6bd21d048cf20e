// SPDX-License-Identifier: MIT
/*
 * Kinds of guests, each moved to and fro a few times: several vCPUs, timers,
 * disks, interrupts of devices, memory above 4 GiB.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "migration/dirty.h"
#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"
#include "vmm/vm_balloon.h"

#define TIMES 10
/* Where a move takes longer: many vCPUs want the few processors. */
#define FEW_TIMES 3

/* Boot, move to and fro, have the guest judge. */
static void to_and_fro_on(struct rig_host *const hosts[2],
			  const struct rig_guest *guest, int times,
			  const struct rig_move *move)
{
	struct rig_result result;

	rig_boot(hosts[0], guest);
	rig_expect(hosts[0], "ready\n");
	for (int i = 0; i < times; i++) {
		rig_move(hosts[i % 2], hosts[(i + 1) % 2], move, &result);
		ck_assert_msg(!result.source_rc, "move %d: %s", i,
			      result.source_error.text);
		rig_type(hosts[(i + 1) % 2], "s");
		rig_expect(hosts[(i + 1) % 2], "stats ");
	}
	rig_type(hosts[times % 2], "q");
	rig_expect_exit(hosts[times % 2], 0);
}

static void to_and_fro(const struct rig_guest *guest, int times,
		       const struct rig_move *move)
{
	struct rig_host *hosts[2] = { rig_host_new(), rig_host_new() };

	to_and_fro_on(hosts, guest, times, move);
	rig_host_free(hosts[0]);
	rig_host_free(hosts[1]);
}

START_TEST(two_vcpus_that_count_together_lose_nothing)
{
	to_and_fro(
		&(struct rig_guest){ .elf = "smp", .cmdline = "", .cpus = 2 },
		TIMES, &rig_move_default);
}
END_TEST

START_TEST(two_vcpus_that_dirty_lose_nothing)
{
	to_and_fro(&(struct rig_guest){ .elf = "dirty",
					.cmdline = "pages=300 rate=20 cpus=2 "
						   "mode=random progress=0",
					.cpus = 2 },
		   TIMES, &rig_move_default);
}
END_TEST

/* Many more than the machine has processors. */
START_TEST(thirty_two_vcpus_that_count_together_lose_nothing)
{
	to_and_fro(
		&(struct rig_guest){ .elf = "smp", .cmdline = "", .cpus = 32 },
		FEW_TIMES, &rig_move_default);
}
END_TEST

START_TEST(thirty_two_vcpus_that_dirty_lose_nothing)
{
	to_and_fro(&(struct rig_guest){ .elf = "dirty",
					.cmdline = "pages=640 rate=20 cpus=32 "
						   "mode=random progress=0",
					.cpus = 32 },
		   FEW_TIMES, &rig_move_default);
}
END_TEST

START_TEST(a_periodic_timer_loses_no_ticks)
{
	to_and_fro(&(struct rig_guest){ .elf = "timer", .cmdline = "hz=200" },
		   TIMES, &rig_move_default);
}
END_TEST

START_TEST(a_deadline_timer_loses_no_ticks)
{
	to_and_fro(&(struct rig_guest){ .elf = "timer",
					.cmdline = "hz=200 mode=deadline" },
		   TIMES, &rig_move_default);
}
END_TEST

/* A guest that is too fast has to be slowed down, and is let go afterwards. */
START_TEST(a_guest_that_dirties_as_fast_as_it_can_moves)
{
	struct rig_move move = rig_move_default;

	move.params.max_downtime_ns = 2 * NS_PER_MS;
	move.params.timeout_ns = 2 * NS_PER_S;
	move.params.on_timeout = SOURCE_TIMEOUT_PAUSE;
	to_and_fro(&(struct rig_guest){ .elf = "dirty",
					.cmdline = "mib=8 progress=0",
					.memory = 32 * MIB },
		   4, &move);
}
END_TEST

/* ---- slowing down ---- */

/*
 * A guest whose first vCPU dirties more than the capped link takes, while the
 * second counts for itself. However little of a processor it has: no round ends
 * before it has written everything anew (await_pass()).
 */
static const struct rig_guest uneven = { .elf = "dirty",
					 .cmdline = "mib=160 touch=word "
						    "progress=0 spin=1",
					 .cpus = 2,
					 .memory = 224 * MIB };

static bool is_throttled(struct rig_moving *moving)
{
	struct report report;

	source_report(moving->source, &report);
	return report.throttled[0] || report.throttled[1];
}

static unsigned long passes(struct rig_host *host)
{
	char line[32];

	rig_type(host, "s");
	rig_expect(host, "stats passes=");
	rig_read_line(host, line, sizeof(line));
	return strtoul(line, NULL, 10);
}

/* Every page is written after this began. */
static void await_pass(struct rig_host *host)
{
	unsigned long end = passes(host) + 2;

	while (passes(host) < end)
		sched_yield();
}

/* Once somebody is slowed down, any pause will do. */
static bool content_when_throttled(struct rig_moving *moving,
				   const struct relay_record *record,
				   void *opaque)
{
	(void)opaque;
	if (record->type == WIRE_ROUND_END && !is_throttled(moving))
		await_pass(moving->from);
	if (record->type == WIRE_ROUND && is_throttled(moving))
		source_set_max_downtime(moving->source, 2 * NS_PER_S);
	return false;
}

static bool cancel_when_throttled(struct rig_moving *moving,
				  const struct relay_record *record,
				  void *opaque)
{
	unsigned int *slowed = opaque;

	if (record->type == WIRE_ROUND_END && !is_throttled(moving))
		await_pass(moving->from);
	if (record->type != WIRE_ROUND || !is_throttled(moving))
		return false;
	for (uint32_t i = 0; i < 2; i++)
		*slowed |= (unsigned int)vm_throttled(moving->from->vm, i) << i;
	ck_assert(!source_cancel(moving->source));
	return false;
}

static struct rig_move uneven_move(void)
{
	struct rig_move move = rig_move_default;

	/* More than a pause takes anywhere, and less than all those pages. */
	move.params.max_downtime_ns = 25 * NS_PER_MS;
	move.params.bandwidth = 600 * 1000 * 1000;
	return move;
}

START_TEST(only_the_vcpu_that_dirties_is_slowed_down)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_move move = uneven_move();
	struct rig_result result;

	rig_boot(a, &uneven);
	rig_expect(a, "ready\n");
	move.on_record = content_when_throttled;
	rig_move(a, b, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert_uint_gt(result.report.throttled[0], 0);
	ck_assert_uint_eq(result.report.throttled[1], 0);
	for (uint32_t i = 0; i < 2; i++)
		ck_assert(!vm_throttled(b->vm, i));
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

START_TEST(a_vcpu_that_was_slowed_down_is_let_go_when_the_move_is_cancelled)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_move move = uneven_move();
	struct rig_result result;
	unsigned int slowed = 0;

	rig_boot(a, &uneven);
	rig_expect(a, "ready\n");
	move.on_record = cancel_when_throttled;
	move.opaque = &slowed;
	rig_move(a, b, &move, &result);
	ck_assert_int_ne(result.source_rc, 0);
	ck_assert_uint_eq(slowed, 1);
	for (uint32_t i = 0; i < 2; i++)
		ck_assert(!vm_throttled(a->vm, i));
	rig_type(a, "q");
	rig_expect_exit(a, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

/* ---- devices ---- */

START_TEST(no_interrupt_of_a_device_is_lost_or_doubled)
{
	to_and_fro(&(struct rig_guest){ .elf = "msix", .cmdline = "" }, TIMES,
		   &rig_move_default);
}
END_TEST

START_TEST(nor_one_that_goes_from_vcpu_to_vcpu)
{
	to_and_fro(&(struct rig_guest){ .elf = "msix",
					.cmdline = "seed=2",
					.cpus = 2 },
		   TIMES, &rig_move_default);
}
END_TEST

/* Sizes that are multiples of nothing but a sector. */
#define IMAGE_SIZE (2 * MIB + 7 * 512)

/* A guest that verifies all that it ever wrote. */
static void write_to_and_fro(const char *cmdline, uint32_t queues)
{
	struct rig_host *hosts[2] = { rig_host_new(), rig_host_new() };
	struct rig_guest guest = { .elf = "blk", .cmdline = cmdline };
	char image[RIG_PATH_MAX];

	rig_image_create(image, IMAGE_SIZE);
	for (int i = 0; i < 2; i++)
		rig_give_disk(hosts[i], image, queues);
	to_and_fro_on(hosts, &guest, TIMES, &rig_move_default);
	rig_host_free(hosts[0]);
	rig_host_free(hosts[1]);
	rig_image_remove(image);
}

START_TEST(what_was_written_to_a_disk_is_there_after_every_move)
{
	write_to_and_fro("depth=16", 1);
}
END_TEST

START_TEST(a_disk_that_interrupts_loses_no_requests)
{
	write_to_and_fro("wait=irq depth=16 span=1000", 1);
}
END_TEST

START_TEST(a_disk_without_indirect_tables_and_event_indices_moves)
{
	write_to_and_fro("indirect=no event=no wait=irq depth=64 size=64", 1);
}
END_TEST

START_TEST(a_disk_with_four_queues_moves)
{
	write_to_and_fro("queues=4 wait=irq depth=32", 4);
}
END_TEST

START_TEST(a_disk_of_one_request_at_a_time_moves)
{
	write_to_and_fro("depth=1 size=4 blocks=3 flushes=20", 1);
}
END_TEST

/* ---- a virtio console ---- */

/* Lines as the guest `console` says them. */
struct script {
	uint64_t at; /* the byte that comes next */
	bool over;   /* the line that was under way has ended with '.' */
};

#define SCRIPT_LINE 16

static char byte_of_script(uint64_t at)
{
	char line[2 * SCRIPT_LINE];

	snprintf(line, sizeof(line), "%015llu\n",
		 (unsigned long long)(at / SCRIPT_LINE));
	return line[at % SCRIPT_LINE];
}

/* Read up to @most bytes of what the guest has said on the host, and judge. */
static size_t read_script(struct rig_host *host, struct script *script,
			  size_t most)
{
	char bytes[4096];
	ssize_t n = read(host->hvc_out[0], bytes, MIN(most, sizeof(bytes)));

	for (ssize_t i = 0; i < n; i++) {
		ck_assert(!script->over);
		script->over = bytes[i] == '.';
		if (script->over)
			ck_assert_uint_eq(script->at % SCRIPT_LINE, 0);
		else
			ck_assert_msg(bytes[i] == byte_of_script(script->at),
				      "byte %llu is '%c'",
				      (unsigned long long)script->at, bytes[i]);
		script->at += !script->over;
	}
	return n > 0 ? (size_t)n : 0;
}

struct reading {
	struct script script;
	unsigned int turn;
};

/*
 * While a move is under way the reader reads now nothing, so that the guest
 * waits in the middle of something, now a bit, now all that there is.
 */
static void read_meanwhile(struct rig_moving *moving, void *opaque)
{
	struct reading *reading = opaque;

	switch (reading->turn++ % 3) {
	case 0:
		break;
	case 1:
		read_script(moving->from, &reading->script, 100);
		break;
	default:
		while (read_script(moving->from, &reading->script, SIZE_MAX))
			;
	}
}

START_TEST(a_virtio_console_says_each_byte_once_whoever_stalls)
{
	struct rig_host *hosts[2] = { rig_host_new(), rig_host_new() };
	const struct rig_guest guest = {
		.elf = "console",
		.cmdline = "endless=yes bytes=1 buffer=4096",
		.console = true,
	};
	struct rig_move move = rig_move_default;
	struct reading reading = { 0 };
	struct rig_result result;

	move.meanwhile = read_meanwhile;
	move.opaque = &reading;
	rig_boot(hosts[0], &guest);
	rig_expect(hosts[0], "ready\n");
	for (int i = 0; i < TIMES; i++) {
		struct rig_host *from = hosts[i % 2];

		while (!read_script(from, &reading.script, 1000))
			sched_yield();
		rig_move(from, hosts[(i + 1) % 2], &move, &result);
		ck_assert_msg(!result.source_rc, "move %d: %s", i,
			      result.source_error.text);
		while (read_script(from, &reading.script, SIZE_MAX))
			;
	}
	ck_assert_int_eq(write(hosts[TIMES % 2]->hvc_in[1], ".", 1), 1);
	while (!reading.script.over)
		read_script(hosts[TIMES % 2], &reading.script, SIZE_MAX);
	rig_expect_exit(hosts[TIMES % 2], 0);
	ck_assert_uint_gt(reading.script.at, (uint64_t)TIMES * 64);
	rig_host_free(hosts[0]);
	rig_host_free(hosts[1]);
}
END_TEST

/* ---- a balloon ---- */

#define POOL (2048 * GUEST_PAGE_SIZE)

/* It inflates, deflates, reports and hints all the while. */
START_TEST(a_guest_that_gives_memory_back_keeps_the_rest)
{
	/* Less what the host wants of it, it is what no guest goes below. */
	uint64_t all = 16 * MIB + POOL / 8;
	struct rig_guest guest = { .elf = "balloon",
				   .cmdline = "",
				   .memory = all };
	struct rig_host *hosts[2] = { rig_host_new(), rig_host_new() };
	struct rig_result result;
	struct balloon_info info;
	struct error err;

	rig_boot(hosts[0], &guest);
	rig_expect(hosts[0], "ready\n");
	for (int i = 0; i < TIMES; i++) {
		struct rig_host *from = hosts[i % 2];
		struct rig_host *to = hosts[(i + 1) % 2];
		uint64_t keep = i % 3 ? all - POOL / 8 : all;

		ck_assert(!vm_balloon_set(from->vm, keep, &err));
		rig_move(from, to, &rig_move_default, &result);
		ck_assert_msg(!result.source_rc, "move %d: %s", i,
			      result.source_error.text);
		ck_assert(vm_balloon_look(to->vm, &info));
		ck_assert_uint_eq(info.wanted, keep);
		do {
			rig_type(to, "s");
			rig_expect(to, "stats ");
			ck_assert(vm_balloon_look(to->vm, &info));
		} while (info.actual != keep);
	}
	rig_type(hosts[TIMES % 2], "q");
	rig_expect_exit(hosts[TIMES % 2], 0);
	rig_host_free(hosts[0]);
	rig_host_free(hosts[1]);
}
END_TEST

/* The first round waits until the guest has said what is free. */
static bool await_hints(struct rig_moving *moving,
			const struct relay_record *record, void *opaque)
{
	bool *waited = opaque;

	if (record->type == WIRE_ROUND && !*waited) {
		*waited = true;
		rig_expect(moving->from, "hinted ");
	}
	return false;
}

/*
 * So that the source hasn't sent it all before the guest can say what is free,
 * the link is slow. What is left out is verified to be zero at the target.
 */
START_TEST(what_is_free_is_not_sent)
{
	struct rig_guest guest = { .elf = "balloon",
				   .cmdline = "pages=8192 free=90 busy=no "
					      "reports=no",
				   .memory = 64 * MIB };
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_move move = rig_move_default;
	struct rig_result result;
	bool waited = false;

	rig_boot(a, &guest);
	rig_expect(a, "ready\n");
	move.params.bandwidth = 4 * 1000 * 1000;
	move.on_record = await_hints;
	move.opaque = &waited;
	rig_move(a, b, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert(waited);
	ck_assert_uint_gt(result.report.hinted_pages, 4096);
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

START_TEST(a_guest_that_is_asked_and_never_answers_moves_as_others_do)
{
	struct rig_guest guest = { .elf = "balloon",
				   .cmdline = "hints=no reports=no" };
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_result result;

	rig_boot(a, &guest);
	rig_expect(a, "ready\n");
	rig_move(a, b, &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert_uint_eq(result.report.hinted_pages, 0);
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

static bool is_pending(const struct dirty *dirty, uint64_t index)
{
	uint64_t at = index;

	return dirty_next(dirty, &at, 1) == 1 && at == index;
}

/* A guest that writes to none of these pages; the VMM does. */
START_TEST(a_hint_is_good_until_the_page_is_written_to_or_forgotten)
{
	struct rig_guest guest = { .elf = "heartbeat",
				   .cmdline = "",
				   .memory = 64 * MIB };
	const uint64_t page = 48 * MIB / GUEST_PAGE_SIZE;
	struct rig_host *host = rig_host_new();
	const uint64_t *left_out;
	struct memory *mem;
	struct dirty *dirty;
	struct hints *hints;
	struct error err;

	rig_boot(host, &guest);
	mem = vm_memory(host->vm);
	hints = vm_hints(host->vm);
	ck_assert(!dirty_create(mem, vm_fd(host->vm), &dirty, &err));
	ck_assert(!dirty_start(dirty, -1, &err));
	hints_open(hints);
	hints_add(hints, memory_page_gpa(mem, page), 64 * GUEST_PAGE_SIZE);
	/* Too late: KVM has forgotten what was written before this. */
	hints_add(hints, 8 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
	ck_assert(!dirty_take(dirty, 0, 1, &err));
	dirty_heed_hints(dirty, hints);
	hints_close(hints);
	ck_assert(is_pending(dirty, 8));
	ck_assert(!is_pending(dirty, page));
	ck_assert(!is_pending(dirty, page + 63));
	ck_assert(is_pending(dirty, page + 64));
	ck_assert_uint_eq(dirty_left_out(dirty, &left_out), 64);
	ck_assert_uint_eq(left_out[page / 64], UINT64_MAX);
	ck_assert_uint_eq(dirty_pending(dirty), mem->npages - 65);
	memory_mark_dirty(mem, memory_page_gpa(mem, page + 1), 1);
	ck_assert(!dirty_sync(dirty, false, &err));
	ck_assert(is_pending(dirty, page + 1));
	ck_assert(!is_pending(dirty, page + 2));
	ck_assert_uint_eq(dirty_left_out(dirty, NULL), 63);
	/* The next attempt begins with nothing left out. */
	dirty_stop(dirty);
	ck_assert(!dirty_start(dirty, -1, &err));
	ck_assert_uint_eq(dirty_left_out(dirty, NULL), 0);
	dirty_stop(dirty);
	dirty_free(dirty);
	rig_host_free(host);
}
END_TEST

/* ---- above 4 GiB ---- */

static uint64_t resident_pages(const struct memory *mem)
{
	unsigned char *here;
	uint64_t n = 0;

	for (unsigned int i = 0; i < mem->nregions; i++) {
		uint64_t pages = mem->regions[i].size >> GUEST_PAGE_SHIFT;

		here = malloc(pages);
		ck_assert_ptr_nonnull(here);
		ck_assert(!mincore(mem->regions[i].hva, mem->regions[i].size,
				   here));
		for (uint64_t page = 0; page < pages; page++)
			n += here[page] & 1;
		free(here);
	}
	return n;
}

static bool count_zero(struct rig_moving *moving,
		       const struct relay_record *record, void *opaque)
{
	unsigned int *n = opaque;

	(void)moving;
	*n += record->type == WIRE_ZERO;
	return false;
}

struct first_round {
	bool over;
	unsigned int pings; /* in it */
};

static bool watch_first_round(struct rig_moving *moving,
			      const struct relay_record *record, void *opaque)
{
	struct first_round *first = opaque;

	(void)moving;
	if (record->type == WIRE_ROUND && !first->over)
		first->pings = 0;
	if (record->type == WIRE_ROUND_END)
		first->over = true;
	if (record->type == WIRE_PING && !first->over)
		first->pings++;
	return false;
}

/*
 * A cap that leaves seconds between two records, each of which the target may
 * take for silence; and 4 MiB at 1 MB/s can't be there in less than 3 seconds,
 * bursts included.
 */
START_TEST(a_capped_source_keeps_to_its_cap_and_shows_that_it_is_alive)
{
	struct rig_guest guest = { .elf = "dirty",
				   .cmdline = "mib=4 rate=1 progress=0" };
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct first_round first = { 0 };

	rig_boot(a, &guest);
	rig_expect(a, "ready\n");
	move.params.bandwidth = 1000 * 1000;
	move.on_record = watch_first_round;
	move.opaque = &first;
	rig_move(a, b, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert_uint_ge(result.report.rounds[0].bytes, 4 * MIB);
	ck_assert_uint_ge(result.report.rounds[0].ns, 2 * NS_PER_S);
	/* One goes before the burst. */
	ck_assert_uint_ge(first.pings, 2);
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

static bool has_memory(uint64_t bytes)
{
	struct sysinfo info;

	ck_assert(!sysinfo(&info));
	if ((uint64_t)info.totalram * info.mem_unit >= bytes)
		return true;
	printf("SKIPPED: this host has less than %llu GiB of memory\n",
	       (unsigned long long)(bytes / GIB));
	return false;
}

/* Memory of which the guest has touched little; the host has read it all. */
static void read_all(const struct memory *mem)
{
	for (unsigned int i = 0; i < mem->nregions; i++)
		ck_assert_int_eq(madvise(mem->regions[i].hva,
					 mem->regions[i].size,
					 MADV_POPULATE_READ),
				 0);
}

/*
 * A guest with memory on both sides of the hole moves; of what it never wrote
 * nothing is allocated at the target. @populate: at the source it is there, as
 * pages of zeroes.
 */
static void move_sparse(bool populate)
{
	struct rig_guest guest = { .elf = "dirty",
				   .cmdline = "pages=200 rate=4 where=high "
					      "progress=0",
				   .memory = 5 * GIB };
	struct rig_move move = rig_move_default;
	unsigned int zero_records = 0;
	struct rig_host *a, *b;
	struct rig_result result;

	if (!has_memory(guest.memory))
		return;
	a = rig_host_new();
	b = rig_host_new();
	rig_boot(a, &guest);
	rig_expect(a, "ready\n");
	if (populate)
		read_all(vm_memory(a->vm));
	move.on_record = count_zero;
	move.opaque = &zero_records;
	rig_move(a, b, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert_uint_eq(vm_memory(b->vm)->nregions, 2);
	if (populate) {
		ck_assert_uint_gt(result.report.zero_pages, 1000000);
		/* The target hears of it now and then. */
		ck_assert_uint_gt(zero_records, 16);
	} else {
		ck_assert_uint_lt(
			result.report.pages + result.report.zero_pages, 20000);
	}
	/* A few huge pages are more than enough for what it wrote. */
	ck_assert_uint_lt(resident_pages(vm_memory(b->vm)), 20000);
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}

START_TEST(memory_above_4_GiB_moves_and_stays_sparse)
{
	move_sparse(false);
}
END_TEST

START_TEST(pages_of_zeroes_are_told_and_take_no_memory)
{
	move_sparse(true);
}
END_TEST

static bool count_expect(struct rig_moving *moving,
			 const struct relay_record *record, void *opaque)
{
	unsigned int *n = opaque;

	(void)moving;
	*n += record->type == WIRE_EXPECT;
	return false;
}

START_TEST(the_target_is_told_of_full_memory_ahead_of_it)
{
	struct rig_guest guest = { .elf = "dirty",
				   .cmdline = "mib=4 fill=yes progress=0" };
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_move move = rig_move_default;
	struct rig_result result;
	unsigned int told = 0;

	rig_boot(a, &guest);
	rig_expect(a, "ready\n");
	move.on_record = count_expect;
	move.opaque = &told;
	rig_move(a, b, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	ck_assert_uint_ge(told, 1);
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

UNIT_SUITE("guests", two_vcpus_that_count_together_lose_nothing,
	   two_vcpus_that_dirty_lose_nothing,
	   thirty_two_vcpus_that_count_together_lose_nothing,
	   thirty_two_vcpus_that_dirty_lose_nothing,
	   a_periodic_timer_loses_no_ticks, a_deadline_timer_loses_no_ticks,
	   a_guest_that_dirties_as_fast_as_it_can_moves,
	   only_the_vcpu_that_dirties_is_slowed_down,
	   a_vcpu_that_was_slowed_down_is_let_go_when_the_move_is_cancelled,
	   no_interrupt_of_a_device_is_lost_or_doubled,
	   a_virtio_console_says_each_byte_once_whoever_stalls,
	   nor_one_that_goes_from_vcpu_to_vcpu,
	   what_was_written_to_a_disk_is_there_after_every_move,
	   the_target_is_told_of_full_memory_ahead_of_it,
	   a_disk_that_interrupts_loses_no_requests,
	   a_disk_without_indirect_tables_and_event_indices_moves,
	   a_disk_with_four_queues_moves, a_disk_of_one_request_at_a_time_moves,
	   a_capped_source_keeps_to_its_cap_and_shows_that_it_is_alive,
	   a_guest_that_gives_memory_back_keeps_the_rest,
	   what_is_free_is_not_sent,
	   a_guest_that_is_asked_and_never_answers_moves_as_others_do,
	   a_hint_is_good_until_the_page_is_written_to_or_forgotten,
	   memory_above_4_GiB_moves_and_stays_sparse,
	   pages_of_zeroes_are_told_and_take_no_memory)
