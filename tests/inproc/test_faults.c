// SPDX-License-Identifier: MIT
/*
 * Each call that a migration makes fails once, on either side. Every time one
 * side has the guest (rig_move() asserts that), it moved only if COMMIT came
 * through, its memory is intact, nothing is left behind, and the next attempt
 * succeeds.
 *
 * A move makes calls of some sixty kinds (a function, or an ioctl's command),
 * many of them dozens of times. All of them fail; with GODWIT_FAULTS=N in the
 * environment N of each kind, spread evenly over the move (sanitizers).
 */
#include <dirent.h>
#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "tests/inproc/fault.h"
#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"

#define SETTLE (20 * NS_PER_S)

/* What a process holds. */
struct holdings {
	long descriptors;
	long threads;
	long allocations;
	long mapped; /* bytes */
};

static long entries(const char *path)
{
	DIR *dir = opendir(path);
	long n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void take_stock(struct holdings *ret)
{
	*ret = (struct holdings){
		.descriptors = entries("/proc/self/fd"),
		.threads = entries("/proc/self/task"),
		.allocations = fault_allocations(),
		.mapped = fault_mapped(),
	};
}

/* The loop frees what was removed from it in its own time. */
static void expect_holdings(const struct holdings *before, const char *after)
{
	uint64_t deadline = clock_ns() + SETTLE;
	struct holdings now;

	for (;;) {
		take_stock(&now);
		if (!memcmp(&now, before, sizeof(now)))
			return;
		if (clock_ns() > deadline)
			break;
		poll(NULL, 0, 1);
	}
	ck_abort_msg("after %s: %ld descriptors (%ld before), %ld threads "
		     "(%ld), %ld allocations (%ld), %ld bytes mapped (%ld)",
		     after, now.descriptors, before->descriptors, now.threads,
		     before->threads, now.allocations, before->allocations,
		     now.mapped, before->mapped);
}

static unsigned int faults_each(void)
{
	const char *text = getenv("GODWIT_FAULTS");

	return text ? (unsigned int)atoi(text) : 0;
}

/* Which side of the move is meant. */
static const struct rig_host *side(const struct shuttle *s, bool target)
{
	return target ? s->there : s->here;
}

struct outcomes {
	unsigned int failed; /* calls */
	unsigned int kept;   /* guests that stayed where they were */
	unsigned int moved;  /* or went all the same */
	unsigned int missed; /* calls that this move did not make */
};

static void fail_one(struct shuttle *s, bool target,
		     const struct fault_kind *kind, unsigned int nth,
		     const struct holdings *before, struct outcomes *tally)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	bool commit = false;
	char what[100];

	snprintf(what, sizeof(what), "%s's %s 0x%lx, no. %u of %u",
		 target ? "target" : "source", kind->name, kind->command, nth,
		 kind->count);
	if (getenv("GODWIT_FAULTS_SHOWN"))
		fprintf(stderr, "%s\n", what);
	move.on_record = shuttle_note_commit;
	move.opaque = &commit;
	fault_arm(side(s, target), kind, nth, 0);
	shuttle_move(s, &move, &result);
	if (fault_disarm(NULL))
		tally->failed++;
	else
		tally->missed++;
	ck_assert_msg(result.source_rc || commit, "%s: it moved without COMMIT",
		      what);
	if (result.source_rc)
		tally->kept++;
	else
		tally->moved++;
	expect_holdings(before, what);
	if (result.source_rc)
		shuttle_retry(s);
	expect_holdings(before, "the retry");
}

static void fail_kind(struct shuttle *s, bool target,
		      const struct fault_kind *kind,
		      const struct holdings *before, struct outcomes *tally)
{
	unsigned int each = faults_each();
	unsigned int n = kind->count;
	unsigned int tries = each && each < n ? each : n;

	for (unsigned int i = 0; i < tries; i++)
		fail_one(s, target, kind,
			 tries > 1 ? i * (n - 1) / (tries - 1) : 0, before,
			 tally);
}

static void fail_all(bool target)
{
	struct fault_census *census = calloc(1, sizeof(*census));
	struct outcomes tally = { 0 };
	struct holdings before;
	struct shuttle s;

	shuttle_start(&s);
	/* Whatever is made once and for all is made now. */
	for (int i = 0; i < 4; i++)
		shuttle_retry(&s);
	fault_count(side(&s, target));
	shuttle_retry(&s);
	fault_disarm(census);
	take_stock(&before);
	for (unsigned int i = 0; i < census->nkinds; i++)
		fail_kind(&s, target, &census->kinds[i], &before, &tally);
	printf("%s: %u calls of %u kinds failed: %u guests stayed, %u moved; "
	       "%u calls were not made again\n",
	       target ? "target" : "source", tally.failed, census->nkinds,
	       tally.kept, tally.moved, tally.missed);
	fflush(stdout);
	ck_assert_uint_gt(tally.failed, census->nkinds / 2);
	shuttle_end(&s);
	free(census);
}

START_TEST(any_call_of_the_source_may_fail)
{
	fail_all(false);
}
END_TEST

START_TEST(any_call_of_the_target_may_fail)
{
	fail_all(true);
}
END_TEST

/* ---- signals ---- */

/* Sockets don't block as they connect or accept. */
static bool may_be_interrupted(const struct fault_kind *kind)
{
	static const char *const names[] = { "sendmsg", "recv",	 "recvmsg",
					     "poll",	"ppoll", "pread",
					     "pwrite" };

	if (!strcmp(kind->name, "ioctl"))
		return kind->command != KVM_CHECK_EXTENSION;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(kind->name, names[i]))
			return true;
	}
	return false;
}

static void interrupt_all(bool target)
{
	struct fault_census *census = calloc(1, sizeof(*census));
	struct rig_result result;
	struct shuttle s;

	shuttle_start(&s);
	fault_count(side(&s, target));
	shuttle_retry(&s);
	fault_disarm(census);
	for (unsigned int i = 0; i < census->nkinds; i++) {
		const struct fault_kind *kind = &census->kinds[i];

		if (!may_be_interrupted(kind))
			continue;
		fault_arm(side(&s, target), kind, 0, EINTR);
		shuttle_move(&s, &rig_move_default, &result);
		fault_disarm(NULL);
		ck_assert_msg(!result.source_rc,
			      "%s 0x%lx was interrupted: %s; the target: %s",
			      kind->name, kind->command,
			      result.source_error.text,
			      result.target_error.text);
	}
	shuttle_end(&s);
	free(census);
}

START_TEST(a_call_that_a_signal_interrupts_is_made_again)
{
	interrupt_all(false);
	interrupt_all(true);
}
END_TEST

UNIT_SUITE("faults", any_call_of_the_source_may_fail,
	   any_call_of_the_target_may_fail,
	   a_call_that_a_signal_interrupts_is_made_again)
