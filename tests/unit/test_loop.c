// SPDX-License-Identifier: MIT
/*
 * The event loop: what gets called, in which order, under which lock, and
 * that nothing is called after its removal, whoever removes it and whenever.
 * The races here are meant to be run under TSan and ASan too.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/loop.h"

/* A loop, a descriptor that is ready when written to, and what was seen. */
struct rig {
	struct loop *loop;
	int fd; /* eventfd */
	struct loop_fd *source;
	struct loop_timer *timer;
	pthread_mutex_t lock;
	uint32_t events;
	uint64_t when; /* clock_ns() in the handler */
	unsigned int calls;
	char order[16];
	_Atomic bool entered;
	_Atomic bool may_leave;
	_Atomic bool left;
};

static struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;

	ck_assert_ptr_nonnull(rig);
	ck_assert_int_eq(loop_create(&rig->loop, &err), 0);
	rig->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ck_assert_int_ge(rig->fd, 0);
	pthread_mutex_init(&rig->lock, NULL);
	return rig;
}

static void rig_free(struct rig *rig)
{
	loop_fd_remove(rig->source);
	loop_timer_remove(rig->timer);
	loop_free(rig->loop);
	close(rig->fd);
	pthread_mutex_destroy(&rig->lock);
	free(rig);
}

static void make_ready(int fd)
{
	uint64_t one = 1;

	ck_assert_int_eq(write_full(fd, &one, sizeof(one)), 0);
}

static void add(struct rig *rig, int fd, uint32_t events, loop_fd_fn *fn,
		pthread_mutex_t *lock)
{
	struct error err;

	ck_assert_int_eq(loop_fd_add(rig->loop, fd, events, fn, rig, lock,
				     &rig->source, &err),
			 0);
}

static void *run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, fn, arg), 0);
	return thread;
}

static void stop_posted(void *opaque)
{
	struct rig *rig = opaque;

	loop_stop(rig->loop);
}

/* ---- descriptors ---- */

static void note_and_stop(void *opaque, uint32_t events)
{
	struct rig *rig = opaque;

	rig->calls++;
	rig->events = events;
	loop_stop(rig->loop);
}

START_TEST(a_ready_descriptor_calls_its_handler_with_the_events)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	make_ready(rig->fd);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	ck_assert_uint_eq(rig->events, EPOLLIN);
	rig_free(rig);
}
END_TEST

START_TEST(events_are_level_triggered)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	make_ready(rig->fd);
	loop_run(rig->loop);
	loop_run(rig->loop); /* nobody has read it: ready still */
	ck_assert_uint_eq(rig->calls, 2);
	rig_free(rig);
}
END_TEST

START_TEST(events_that_are_not_watched_are_not_told)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	make_ready(rig->fd);
	loop_fd_set(rig->source, 0);
	loop_post(rig->loop, stop_posted, rig);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 0);
	loop_fd_set(rig->source, EPOLLOUT);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	ck_assert_uint_eq(rig->events, EPOLLOUT);
	rig_free(rig);
}
END_TEST

START_TEST(a_hang_up_is_told_though_nothing_is_watched)
{
	struct rig *rig = rig_new();
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	add(rig, ends[0], 0, note_and_stop, NULL);
	close(ends[1]);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->events, EPOLLHUP);
	rig_free(rig);
	close(ends[0]);
}
END_TEST

START_TEST(a_descriptor_can_be_watched_once_only)
{
	struct rig *rig = rig_new();
	struct loop_fd *again;
	struct error err;

	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	ck_assert_int_eq(loop_fd_add(rig->loop, rig->fd, EPOLLIN, note_and_stop,
				     rig, NULL, &again, &err),
			 -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "File exists"));
	rig_free(rig);
}
END_TEST

static void note_file(void *opaque, uint32_t events)
{
	struct rig *rig = opaque;

	rig->events = events;
	if (++rig->calls == 3)
		make_ready(rig->fd);
}

START_TEST(a_regular_file_is_always_ready_and_starves_nobody)
{
	struct rig *rig = rig_new();
	FILE *files[2] = { tmpfile(), tmpfile() };
	struct loop_fd *sources[2], *other;
	struct error err;

	for (unsigned int i = 0; i < 2; i++) {
		ck_assert_ptr_nonnull(files[i]);
		ck_assert_int_eq(loop_fd_add(rig->loop, fileno(files[i]),
					     EPOLLIN, note_file, rig, NULL,
					     &sources[i], &err),
				 0);
	}
	loop_fd_set(sources[1], 0); /* not asked for: not ready */
	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	other = rig->source;
	loop_run(rig->loop);
	ck_assert_uint_ge(rig->calls, 4);
	loop_fd_set(sources[0], 0);
	loop_fd_remove(other);
	rig->source = NULL;
	rig->calls = 0;
	loop_post(rig->loop, stop_posted, rig);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 0);
	for (unsigned int i = 0; i < 2; i++) {
		loop_fd_remove(sources[i]);
		fclose(files[i]);
	}
	rig_free(rig);
}
END_TEST

static void expect_locked(void *opaque, uint32_t events __maybe_unused)
{
	struct rig *rig = opaque;

	ck_assert_int_eq(pthread_mutex_trylock(&rig->lock), EBUSY);
	loop_stop(rig->loop);
}

START_TEST(a_handler_runs_under_its_source_s_lock)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, expect_locked, &rig->lock);
	make_ready(rig->fd);
	loop_run(rig->loop);
	ck_assert_int_eq(pthread_mutex_trylock(&rig->lock), 0);
	pthread_mutex_unlock(&rig->lock);
	rig_free(rig);
}
END_TEST

static void fail_fd(void *opaque __maybe_unused, uint32_t events __maybe_unused)
{
	ck_abort_msg("this handler must not run");
}

static void fail_timer(void *opaque __maybe_unused)
{
	ck_abort_msg("this handler must not run");
}

START_TEST(a_source_whose_lock_is_taken_holds_up_nobody)
{
	struct rig *rig = rig_new();
	int busy = eventfd(1, EFD_CLOEXEC);
	struct loop_fd *source;
	struct error err;

	ck_assert_int_eq(loop_fd_add(rig->loop, busy, EPOLLIN, fail_fd, NULL,
				     &rig->lock, &source, &err),
			 0);
	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	make_ready(rig->fd);
	pthread_mutex_lock(&rig->lock);
	for (unsigned int i = 0; i < 100; i++)
		loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 100);
	loop_fd_remove(source);
	pthread_mutex_unlock(&rig->lock);
	close(busy);
	rig_free(rig);
}
END_TEST

/* ---- timers ---- */

static void note_time(void *opaque)
{
	struct rig *rig = opaque;

	rig->calls++;
	rig->when = clock_ns();
	loop_stop(rig->loop);
}

static void add_timer(struct rig *rig, loop_fn *fn)
{
	struct error err;

	ck_assert_int_eq(
		loop_timer_add(rig->loop, fn, rig, NULL, &rig->timer, &err), 0);
}

START_TEST(a_timer_fires_once_and_not_before_its_deadline)
{
	struct rig *rig = rig_new();
	uint64_t deadline = clock_ns() + 5 * NS_PER_MS;

	add_timer(rig, note_time);
	loop_timer_arm(rig->timer, deadline);
	loop_run(rig->loop);
	ck_assert_uint_ge(rig->when, deadline);
	loop_post(rig->loop, stop_posted, rig);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	rig_free(rig);
}
END_TEST

START_TEST(a_deadline_in_the_past_fires_at_once)
{
	struct rig *rig = rig_new();

	add_timer(rig, note_time);
	loop_timer_arm(rig->timer, 1);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	rig_free(rig);
}
END_TEST

START_TEST(timers_fire_in_the_order_of_their_deadlines)
{
	struct rig *rig = rig_new();
	struct loop_timer *never, *late;
	uint64_t deadline = clock_ns() + 2 * NS_PER_MS;
	struct error err;

	ck_assert_int_eq(
		loop_timer_add(rig->loop, fail_timer, NULL, NULL, &never, &err),
		0);
	ck_assert_int_eq(
		loop_timer_add(rig->loop, fail_timer, NULL, NULL, &late, &err),
		0);
	add_timer(rig, note_time);
	loop_timer_arm(never, deadline);
	loop_timer_arm(late, deadline);
	loop_timer_arm(rig->timer, deadline);
	loop_timer_arm(never, 0);
	loop_timer_arm(late, deadline + 1000 * NS_PER_S);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	loop_timer_remove(never);
	loop_timer_remove(late);
	rig_free(rig);
}
END_TEST

static void disarm_other(void *opaque, uint32_t events __maybe_unused)
{
	struct rig *rig = opaque;

	loop_timer_arm(rig->timer, 0);
	loop_fd_set(rig->source, 0);
	loop_post(rig->loop, stop_posted, rig);
}

START_TEST(a_timer_that_is_due_can_still_be_disarmed)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, disarm_other, NULL);
	add_timer(rig, fail_timer);
	make_ready(rig->fd); /* epoll tells of it first */
	loop_timer_arm(rig->timer, 1);
	loop_run(rig->loop);
	rig_free(rig);
}
END_TEST

static void remove_own_timer(void *opaque)
{
	struct rig *rig = opaque;

	loop_timer_remove(rig->timer);
	rig->timer = NULL;
	loop_stop(rig->loop);
}

START_TEST(a_timer_can_remove_itself)
{
	struct rig *rig = rig_new();

	add_timer(rig, remove_own_timer);
	loop_timer_arm(rig->timer, 1);
	loop_run(rig->loop);
	rig_free(rig);
}
END_TEST

/* ---- posts and stopping ---- */

static void post_a(void *opaque)
{
	strcat(((struct rig *)opaque)->order, "a");
}

static void post_b(void *opaque)
{
	strcat(((struct rig *)opaque)->order, "b");
}

static void post_more(void *opaque)
{
	struct rig *rig = opaque;

	strcat(rig->order, "m");
	loop_post(rig->loop, post_b, rig);
	loop_post(rig->loop, stop_posted, rig);
	loop_post(rig->loop, post_a, rig); /* after the stop: dropped */
}

START_TEST(posts_run_in_order_also_those_that_posts_make)
{
	struct rig *rig = rig_new();

	loop_post(rig->loop, post_a, rig);
	loop_post(rig->loop, post_more, rig);
	loop_post(rig->loop, post_a, rig);
	loop_run(rig->loop);
	ck_assert_str_eq(rig->order, "amab");
	rig_free(rig);
}
END_TEST

START_TEST(a_stop_before_the_run_is_remembered_once)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, note_and_stop, NULL);
	make_ready(rig->fd);
	loop_stop(rig->loop);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 0);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	rig_free(rig);
}
END_TEST

#define POSTS 2000

static void count_post(void *opaque)
{
	struct rig *rig = opaque;

	if (++rig->calls == 2 * POSTS)
		loop_stop(rig->loop);
}

static void *post_many(void *opaque)
{
	struct rig *rig = opaque;

	for (unsigned int i = 0; i < POSTS; i++)
		loop_post(rig->loop, count_post, rig);
	return NULL;
}

START_TEST(no_post_from_another_thread_is_lost)
{
	struct rig *rig = rig_new();
	pthread_t a = start(post_many, rig), b = start(post_many, rig);

	loop_run(rig->loop);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	ck_assert_uint_eq(rig->calls, 2 * POSTS);
	rig_free(rig);
}
END_TEST

/* ---- removal ---- */

static void remove_self(void *opaque, uint32_t events __maybe_unused)
{
	struct rig *rig = opaque;

	rig->calls++;
	loop_fd_remove(rig->source);
	rig->source = NULL;
	loop_post(rig->loop, stop_posted, rig);
}

START_TEST(a_handler_can_remove_itself)
{
	struct rig *rig = rig_new();

	add(rig, rig->fd, EPOLLIN, remove_self, &rig->lock);
	make_ready(rig->fd);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	rig_free(rig);
}
END_TEST

struct pair {
	struct rig *rig;
	struct loop_fd *sources[2];
};

static void remove_both(void *opaque, uint32_t events __maybe_unused)
{
	struct pair *pair = opaque;

	pair->rig->calls++;
	loop_fd_remove(pair->sources[0]);
	loop_fd_remove(pair->sources[1]);
	loop_post(pair->rig->loop, stop_posted, pair->rig);
}

START_TEST(a_handler_can_remove_another_source_that_is_ready)
{
	struct rig *rig = rig_new();
	struct pair pair = { .rig = rig };
	int fds[2] = { eventfd(1, EFD_CLOEXEC), eventfd(1, EFD_CLOEXEC) };
	struct error err;

	for (unsigned int i = 0; i < 2; i++)
		ck_assert_int_eq(loop_fd_add(rig->loop, fds[i], EPOLLIN,
					     remove_both, &pair, &rig->lock,
					     &pair.sources[i], &err),
				 0);
	loop_run(rig->loop);
	ck_assert_uint_eq(rig->calls, 1);
	close(fds[0]);
	close(fds[1]);
	rig_free(rig);
}
END_TEST

static void dawdle(void *opaque, uint32_t events __maybe_unused)
{
	struct rig *rig = opaque;

	atomic_store(&rig->entered, true);
	while (!atomic_load(&rig->may_leave))
		sched_yield();
	/* Time for a remove that doesn't wait to return too early. */
	for (unsigned int i = 0; i < 5000; i++)
		sched_yield();
	atomic_store(&rig->left, true);
}

static void remove_while_running(pthread_mutex_t *lock, struct rig *rig)
{
	pthread_t loop;

	add(rig, rig->fd, EPOLLIN, dawdle, lock);
	make_ready(rig->fd);
	loop = start(run, rig->loop);
	while (!atomic_load(&rig->entered))
		sched_yield();
	atomic_store(&rig->may_leave, true);
	loop_fd_remove(rig->source);
	rig->source = NULL;
	ck_assert(atomic_load(&rig->left));
	loop_stop(rig->loop);
	pthread_join(loop, NULL);
}

START_TEST(remove_returns_only_after_a_running_handler)
{
	struct rig *rig = rig_new();

	remove_while_running(NULL, rig);
	rig_free(rig);
}
END_TEST

START_TEST(remove_without_the_lock_waits_for_a_handler_that_has_it)
{
	struct rig *rig = rig_new();

	remove_while_running(&rig->lock, rig);
	rig_free(rig);
}
END_TEST

#define ROUNDS 300

/*
 * The lock is taken, the source is ready, so the loop is after that lock all
 * the time: remove must neither wait nor let the handler run, and lock and
 * opaque are freed right afterwards.
 */
START_TEST(remove_under_the_lock_never_waits_and_the_lock_can_be_freed)
{
	struct rig *rig = rig_new();
	pthread_t loop = start(run, rig->loop);

	make_ready(rig->fd);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		pthread_mutex_t *lock = malloc(sizeof(*lock));

		pthread_mutex_init(lock, NULL);
		pthread_mutex_lock(lock);
		add(rig, rig->fd, EPOLLIN, fail_fd, lock);
		for (unsigned int j = 0; j < i % 7; j++)
			sched_yield();
		loop_fd_remove(rig->source);
		pthread_mutex_unlock(lock);
		pthread_mutex_destroy(lock);
		memset(lock, 0xee, sizeof(*lock));
		free(lock);
	}
	rig->source = NULL;
	loop_stop(rig->loop);
	pthread_join(loop, NULL);
	rig_free(rig);
}
END_TEST

/* What a handler touches; freed the moment that remove returns. */
struct victim {
	pthread_mutex_t lock;
	struct loop *loop;
	struct loop_fd *source;
	struct loop_timer *timer;
	_Atomic unsigned int *total;
	unsigned int calls;
	int fd;
};

static void touch_victim(void *opaque)
{
	struct victim *victim = opaque;

	victim->calls++;
	atomic_fetch_add(victim->total, 1);
	loop_timer_arm(victim->timer, 1);
}

static void touch_victim_fd(void *opaque, uint32_t events __maybe_unused)
{
	touch_victim(opaque);
}

static void live_and_die(struct loop *loop, _Atomic unsigned int *total,
			 unsigned int round)
{
	struct victim *victim = calloc(1, sizeof(*victim));
	struct error err;

	victim->total = total;
	victim->fd = eventfd(1, EFD_CLOEXEC);
	pthread_mutex_init(&victim->lock, NULL);
	pthread_mutex_lock(&victim->lock);
	ck_assert_int_eq(loop_timer_add(loop, touch_victim, victim,
					&victim->lock, &victim->timer, &err),
			 0);
	ck_assert_int_eq(loop_fd_add(loop, victim->fd, EPOLLIN, touch_victim_fd,
				     victim, &victim->lock, &victim->source,
				     &err),
			 0);
	pthread_mutex_unlock(&victim->lock);
	for (unsigned int i = 0; i < round % 5; i++)
		sched_yield();
	/* A handler re-arms the timer, so the descriptor goes first. */
	loop_fd_remove(victim->source);
	loop_timer_remove(victim->timer);
	pthread_mutex_destroy(&victim->lock);
	close(victim->fd);
	memset(victim, 0xee, sizeof(*victim));
	free(victim);
}

struct herd {
	struct loop *loop;
	_Atomic unsigned int total;
};

static void *breed(void *opaque)
{
	struct herd *herd = opaque;

	for (unsigned int i = 0; i < ROUNDS; i++)
		live_and_die(herd->loop, &herd->total, i);
	return NULL;
}

START_TEST(sources_come_and_go_on_many_threads_without_a_stray_call)
{
	struct herd herd = { 0 };
	pthread_t loop, threads[3];
	struct error err;

	ck_assert_int_eq(loop_create(&herd.loop, &err), 0);
	loop = start(run, herd.loop);
	for (unsigned int i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start(breed, &herd);
	for (unsigned int i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	loop_stop(herd.loop);
	pthread_join(loop, NULL);
	ck_assert_uint_gt(atomic_load(&herd.total), 0);
	loop_free(herd.loop);
}
END_TEST

START_TEST(removing_or_freeing_nothing_is_fine)
{
	loop_fd_remove(NULL);
	loop_timer_remove(NULL);
	loop_free(NULL);
}
END_TEST

UNIT_SUITE("loop", a_ready_descriptor_calls_its_handler_with_the_events,
	   events_are_level_triggered, events_that_are_not_watched_are_not_told,
	   a_hang_up_is_told_though_nothing_is_watched,
	   a_descriptor_can_be_watched_once_only,
	   a_regular_file_is_always_ready_and_starves_nobody,
	   a_handler_runs_under_its_source_s_lock,
	   a_source_whose_lock_is_taken_holds_up_nobody,
	   a_timer_fires_once_and_not_before_its_deadline,
	   a_deadline_in_the_past_fires_at_once,
	   timers_fire_in_the_order_of_their_deadlines,
	   a_timer_that_is_due_can_still_be_disarmed, a_timer_can_remove_itself,
	   posts_run_in_order_also_those_that_posts_make,
	   a_stop_before_the_run_is_remembered_once,
	   no_post_from_another_thread_is_lost, a_handler_can_remove_itself,
	   a_handler_can_remove_another_source_that_is_ready,
	   remove_returns_only_after_a_running_handler,
	   remove_without_the_lock_waits_for_a_handler_that_has_it,
	   remove_under_the_lock_never_waits_and_the_lock_can_be_freed,
	   sources_come_and_go_on_many_threads_without_a_stray_call,
	   removing_or_freeing_nothing_is_fine)
