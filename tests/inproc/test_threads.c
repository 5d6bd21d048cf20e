// SPDX-License-Identifier: MIT
/*
 * What threads do to each other where a guest is stopped and its writes are
 * gathered, in a crowd that no move makes. Thread sanitizers look at this, too.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "migration/dirty.h"
#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"
#include "vmm/vm_internal.h"
#include "vmm/vm_state.h"

#define HOLDERS 3
#define HOLDS	100

/* ---- holding ---- */

struct holder {
	pthread_t thread;
	struct vm *vm;
	enum vm_hold why;
};

static uint32_t sum_of(const struct vm *vm)
{
	static const uint64_t start = 1 * MIB;
	uint8_t *copy = malloc(MIB);
	uint32_t sum;

	ck_assert_ptr_nonnull(copy);
	ck_assert(!memory_read(vm->mem, start, copy, MIB));
	sum = crc32c(0, copy, MIB);
	free(copy);
	return sum;
}

static void *hold_and_look(void *opaque)
{
	const struct holder *holder = opaque;

	for (int i = 0; i < HOLDS; i++) {
		uint32_t sum;

		vm_hold(holder->vm, holder->why);
		ck_assert_uint_ne(vm_holds(holder->vm) & holder->why, 0);
		sum = sum_of(holder->vm);
		sched_yield();
		ck_assert_msg(sum == sum_of(holder->vm), "the guest runs");
		vm_release(holder->vm, holder->why);
	}
	return NULL;
}

START_TEST(the_guest_stands_still_for_each_of_many_who_hold_it)
{
	static const enum vm_hold reasons[HOLDERS] = { VM_HOLD_USER,
						       VM_HOLD_MIGRATION,
						       VM_HOLD_RESET };
	struct holder holders[HOLDERS];
	struct rig_host *host = rig_host_new();

	rig_boot(host,
		 &(struct rig_guest){ .elf = "smp", .cpus = 2, .cmdline = "" });
	rig_expect(host, "ready");
	for (int i = 0; i < HOLDERS; i++) {
		holders[i].vm = host->vm;
		holders[i].why = reasons[i];
		ck_assert(!pthread_create(&holders[i].thread, NULL,
					  hold_and_look, &holders[i]));
	}
	for (int i = 0; i < HOLDERS; i++)
		pthread_join(holders[i].thread, NULL);
	ck_assert_uint_eq(vm_holds(host->vm), 0);
	rig_type(host, "q");
	rig_expect_exit(host, 0);
	rig_host_free(host);
}
END_TEST

/* ---- errands ---- */

#define CROWD	8 /* vCPUs */
#define ERRANDS 500

struct errands {
	atomic_uint begun[CROWD];
	atomic_uint ended[CROWD];
	atomic_int thread[CROWD]; /* that ran the last one */
};

static int run_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct errands *errands = opaque;
	uint32_t i = vcpu_index(vcpu);

	(void)err;
	atomic_fetch_add(&errands->begun[i], 1);
	errands->thread[i] = gettid();
	sched_yield();
	atomic_fetch_add(&errands->ended[i], 1);
	return 0;
}

static unsigned int threads(const struct errands *errands)
{
	unsigned int n = 0;

	for (int i = 0; i < CROWD; i++) {
		int before = 0;

		while (before < i &&
		       errands->thread[before] != errands->thread[i])
			before++;
		n += before == i;
	}
	return n;
}

/* A guest of many vCPUs, which stand still. */
static struct rig_host *hold_crowd(void)
{
	struct rig_guest guest = { .elf = "smp", .cpus = CROWD, .cmdline = "" };
	struct rig_host *host = rig_host_new();

	rig_boot(host, &guest);
	rig_expect(host, "ready");
	vm_hold(host->vm, VM_HOLD_USER);
	return host;
}

/* It goes on, with all of them, and ends. */
static void end_crowd(struct rig_host *host)
{
	vm_release(host->vm, VM_HOLD_USER);
	rig_type(host, "q");
	rig_expect_exit(host, 0);
	rig_host_free(host);
}

START_TEST(an_errand_is_run_once_for_each_vcpu_and_waited_for)
{
	struct rig_host *host = hold_crowd();
	struct errands errands = { 0 };
	struct error err;

	for (unsigned int n = 1; n <= ERRANDS; n++) {
		ck_assert(!(n % 2 ? crew_errand_helped : crew_errand)(
			host->vm->crew, run_errand, &errands, &err));
		for (int i = 0; i < CROWD; i++) {
			ck_assert_uint_eq(errands.begun[i], n);
			ck_assert_uint_eq(errands.ended[i], n);
		}
	}
	end_crowd(host);
}
END_TEST

#define PATIENCE (20 * NS_PER_S)

/* That of the last vCPU, which the caller does, waits for all the others'. */
static int wait_for_others(void *opaque, struct vcpu *vcpu, struct error *err)
{
	uint64_t deadline = clock_ns() + PATIENCE;
	struct errands *errands = opaque;
	unsigned int ended = 0;

	if (vcpu_index(vcpu) != CROWD - 1)
		return run_errand(opaque, vcpu, err);
	while (ended < CROWD - 1 && clock_ns() < deadline) {
		ended = 0;
		for (int i = 0; i < CROWD - 1; i++)
			ended += errands->ended[i];
		sched_yield();
	}
	return ended < CROWD - 1 ? error_set(err, -ETIMEDOUT, "%u ended", ended)
				 : 0;
}

START_TEST(an_errand_that_takes_long_holds_no_other_up)
{
	struct rig_host *host = hold_crowd();
	struct errands errands = { 0 };
	struct error err;

	ck_assert_msg(!crew_errand_helped(host->vm->crew, wait_for_others,
					  &errands, &err),
		      "%s", err.text);
	end_crowd(host);
}
END_TEST

START_TEST(no_more_threads_run_errands_than_there_are_processors)
{
	struct rig_host *host = hold_crowd();
	struct errands errands = { 0 };
	struct error err;

	for (unsigned int n = 1; n <= ERRANDS / 10; n++) {
		ck_assert(!crew_errand_helped(host->vm->crew, run_errand,
					      &errands, &err));
		ck_assert_uint_le(threads(&errands), MAX(processors(), 2U));
	}
	end_crowd(host);
}
END_TEST

START_TEST(an_errand_is_run_once_for_each_vcpu_that_runs_on)
{
	struct rig_guest guest = { .elf = "smp", .cpus = CROWD, .cmdline = "" };
	struct rig_host *host = rig_host_new();
	struct errands errands = { 0 };
	struct error err;

	rig_boot(host, &guest);
	rig_expect(host, "ready");
	for (unsigned int n = 1; n <= ERRANDS / 10; n++) {
		ck_assert(!crew_errand(host->vm->crew, run_errand, &errands,
				       &err));
		for (int i = 0; i < CROWD; i++)
			ck_assert_uint_eq(errands.ended[i], n);
	}
	/* Not one is left behind: all have to answer. */
	rig_type(host, "q");
	rig_expect_exit(host, 0);
	rig_host_free(host);
}
END_TEST

/* ---- peeking ---- */

#define PEEK_PATIENCE (20 * NS_PER_S)
#define RUNS	      3

static struct {
	atomic_int held_fd;  /* the vCPU whose reading takes long; 0: none */
	atomic_int other_fd; /* and the one that shall not care */
	atomic_uint runs;
	atomic_bool ran_on;
} peek;

int __real_ioctl(int fd, unsigned long command, void *arg);
int __wrap_ioctl(int fd, unsigned long command, void *arg);

/* Reading one ends when the other has entered the guest a few times. */
int __wrap_ioctl(int fd, unsigned long command, void *arg)
{
	uint64_t deadline = clock_ns() + PEEK_PATIENCE;
	unsigned int before = peek.runs;

	if (command == KVM_RUN && fd == peek.other_fd)
		atomic_fetch_add(&peek.runs, 1);
	if (command == KVM_GET_REGS && fd == peek.held_fd) {
		while (peek.runs < before + RUNS && clock_ns() < deadline)
			sched_yield();
		peek.ran_on = peek.runs >= before + RUNS;
	}
	return __real_ioctl(fd, command, arg);
}

START_TEST(vcpus_run_on_while_another_is_read)
{
	struct rig_guest guest = { .elf = "dirty",
				   .cpus = 2,
				   .cmdline = "mib=1 rate=10 spin=1 "
					      "beat_us=1000" };
	struct rig_host *host = rig_host_new();
	struct vm_state_times times;
	struct vm_state *state;
	struct error err;

	rig_boot(host, &guest);
	rig_expect(host, "ready");
	ck_assert(!vm_state_create(host->vm, &state, &err));
	peek.other_fd = vcpu_fd(vm_vcpu(host->vm, 0));
	peek.held_fd = vcpu_fd(vm_vcpu(host->vm, 1));
	ck_assert_msg(!vm_state_peek(state, &times, &err), "%s", err.text);
	peek.held_fd = 0;
	ck_assert_msg(peek.ran_on, "vCPU 0 waits for vCPU 1");
	ck_assert_uint_ne(times.stop_ns, 0);
	ck_assert_uint_ne(times.save_ns, 0);
	vm_state_free(state);
	rig_host_free(host);
}
END_TEST

static int fail_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	(void)opaque;
	if (vcpu_index(vcpu) < 2)
		return 0;
	return error_set(err, -EIO, "says no");
}

START_TEST(an_errand_that_fails_names_its_vcpu)
{
	struct rig_guest guest = { .elf = "hello", .cpus = 4, .cmdline = "" };
	struct rig_host *host = rig_host_new();
	struct error err;

	rig_boot(host, &guest);
	vm_hold(host->vm, VM_HOLD_USER);
	ck_assert_int_eq(
		crew_errand_helped(host->vm->crew, fail_errand, NULL, &err),
		-EIO);
	ck_assert_str_eq(err.text, "vCPU 2: says no");
	vm_release(host->vm, VM_HOLD_USER);
	rig_host_free(host);
}
END_TEST

/* ---- gathering ---- */

#define WRITERS 3
#define ROUNDS	300
#define PAGES	510 /* that are written, from FIRST on */
#define FIRST	(8 * MIB >> GUEST_PAGE_SHIFT)

/* Of each page: how many writes have begun and ended. */
struct crowd {
	struct memory *mem;
	atomic_uint begun[PAGES];
	atomic_uint ended[PAGES];
	atomic_uint entered; /* writers of this round */
	atomic_uint left;
};

/* Each page once: a later write would hide that this one was lost. */
static void *write_pages(void *opaque)
{
	struct crowd *crowd = opaque;
	unsigned int page = atomic_fetch_add(&crowd->entered, 1);

	for (; page < PAGES; page += WRITERS) {
		uint64_t gpa = memory_page_gpa(crowd->mem, FIRST + page);

		atomic_fetch_add(&crowd->begun[page], 1);
		memory_mark_dirty(crowd->mem, gpa, 1);
		atomic_fetch_add(&crowd->ended[page], 1);
	}
	atomic_fetch_add(&crowd->left, 1);
	return NULL;
}

/* Take all that is pending, as a round does; @ret_seen: writes until then. */
static void take_all(struct dirty *dirty, struct crowd *crowd,
		     unsigned int *ret_seen)
{
	uint64_t index = 0, n;
	struct error err;

	while ((n = dirty_next(dirty, &index, 64))) {
		ck_assert_msg(!dirty_take(dirty, index, n, &err), "%s",
			      err.text);
		for (uint64_t at = index; at < index + n; at++) {
			if (at >= FIRST && at < FIRST + PAGES)
				ret_seen[at - FIRST] = crowd->begun[at - FIRST];
		}
		index += n;
	}
}

static bool is_pending(const struct dirty *dirty, uint64_t page)
{
	uint64_t index = page;

	return dirty_next(dirty, &index, 1) && index == page;
}

static void write_and_gather(struct crowd *crowd, struct dirty *dirty,
			     unsigned int *seen)
{
	pthread_t writers[WRITERS];
	struct error err;

	crowd->entered = 0;
	crowd->left = 0;
	for (int i = 0; i < WRITERS; i++)
		ck_assert(
			!pthread_create(&writers[i], NULL, write_pages, crowd));
	while (crowd->left < WRITERS) {
		take_all(dirty, crowd, seen);
		ck_assert(!dirty_sync(dirty, false, &err));
	}
	for (int i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	ck_assert(!dirty_sync(dirty, false, &err));
	for (unsigned int i = 0; i < PAGES; i++)
		ck_assert_msg(crowd->ended[i] <= seen[i] ||
				      is_pending(dirty, FIRST + i),
			      "a write to page %u was lost", i);
}

START_TEST(a_page_that_was_written_after_it_was_taken_is_pending_again)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	struct rig_host *host = rig_host_new();
	unsigned int seen[PAGES] = { 0 };
	struct dirty *dirty;
	struct error err;

	ck_assert_ptr_nonnull(crowd);
	rig_boot(host, &(struct rig_guest){ .elf = "heartbeat",
					    .cmdline = "interval_us=1000" });
	crowd->mem = host->vm->mem;
	ck_assert(!dirty_create(crowd->mem, vm_fd(host->vm), &dirty, &err));
	ck_assert(!dirty_start(dirty, -1, &err));
	for (int i = 0; i < ROUNDS; i++)
		write_and_gather(crowd, dirty, seen);
	dirty_stop(dirty);
	dirty_free(dirty);
	free(crowd);
	rig_host_free(host);
}
END_TEST

UNIT_SUITE("threads", the_guest_stands_still_for_each_of_many_who_hold_it,
	   an_errand_is_run_once_for_each_vcpu_and_waited_for,
	   an_errand_that_takes_long_holds_no_other_up,
	   no_more_threads_run_errands_than_there_are_processors,
	   an_errand_is_run_once_for_each_vcpu_that_runs_on,
	   vcpus_run_on_while_another_is_read,
	   an_errand_that_fails_names_its_vcpu,
	   a_page_that_was_written_after_it_was_taken_is_pending_again)
