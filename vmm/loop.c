// SPDX-License-Identifier: MIT
/*
 * The event loop; see loop.h for the contract.
 *
 * One epoll instance; a timer is a timerfd; posts are a list and an eventfd
 * that ends the wait. Events name their source by number, never by pointer,
 * so that one which was collected before its source went away finds nothing.
 *
 * How removal is free of races. `mutex` guards every field here; the order is
 * a source's lock, then `mutex`. The loop's thread enters a handler thus:
 *
 *	take mutex; look the source up; *try* its lock; running = source;
 *	drop mutex; call the handler;
 *	take mutex; drop the source's lock; running = none; drop mutex
 *
 * 1. The loop touches a source or its lock only with `mutex` held or while
 *    the source is `running`.
 * 2. While a source is `running` the loop's thread holds its lock.
 *
 * So a remover unlinks the source under `mutex`, and waits only when it is
 * `running` on another thread: by 2 the remover does not hold the lock then,
 * and by 1 nothing refers to source or lock afterwards: both may be freed at
 * once (the lock not by the handler itself, which runs under it). Waiting for
 * the lock instead of trying would break 1, for the loop would sit on a lock
 * that a remover who holds it is about to free. The price is that a source
 * whose lock is taken has to be come back to; see back_off().
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/loop.h"

/* Number of the eventfd; sources count from 1. */
#define WAKE_ID 0

/* How often a taken lock is tried again before the loop naps, and how long. */
#define BACK_OFF_YIELDS 16
#define BACK_OFF_NS	(20 * NS_PER_US)

struct loop_fd {
	struct loop *loop;
	struct loop_fd *next;
	uint64_t id;
	int fd;
	uint32_t events;
	bool always_ready; /* epoll can't watch it: a regular file */
	loop_fd_fn *fn;
	void *opaque;
	pthread_mutex_t *lock;
};

struct loop_timer {
	struct loop_fd *source;
	int fd;
	loop_fn *fn;
	void *opaque;
};

struct loop_post {
	struct loop_post *next;
	loop_fn *fn;
	void *opaque;
};

struct loop {
	int epoll_fd;
	int wake_fd;
	pthread_mutex_t mutex;
	pthread_cond_t left; /* a handler that somebody waits for returned */
	bool stop;
	pthread_t thread; /* valid while something is running */
	struct loop_fd *running;
	struct loop_fd *sources; /* ascending by id */
	struct loop_fd **sources_end;
	uint64_t last_id;
	uint64_t last_file_id; /* the always-ready source that had its turn */
	unsigned int failed_tries; /* of locks, since the last success */
	struct loop_post *posts;   /* oldest first */
	struct loop_post **posts_end;
};

int loop_create(struct loop **ret, struct error *err)
{
	struct epoll_event wake = { .events = EPOLLIN, .data.u64 = WAKE_ID };
	struct loop *loop = calloc(1, sizeof(*loop));
	int code;

	if (!loop)
		return error_set(err, -ENOMEM, "event loop: out of memory");
	pthread_mutex_init(&loop->mutex, NULL);
	pthread_cond_init(&loop->left, NULL);
	loop->last_id = WAKE_ID;
	loop->sources_end = &loop->sources;
	loop->posts_end = &loop->posts;
	loop->wake_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		goto fail;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0)
		goto fail;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &wake) < 0)
		goto fail;
	*ret = loop;
	return 0;
fail:
	code = -errno;
	loop_free(loop);
	return error_set(err, code, "event loop: %s", strerror(-code));
}

void loop_free(struct loop *loop)
{
	struct loop_post *post, *next;

	if (!loop)
		return;
	assert(!loop->sources && !loop->running);
	for (post = loop->posts; post; post = next) {
		next = post->next;
		free(post);
	}
	close_fd(&loop->wake_fd);
	close_fd(&loop->epoll_fd);
	pthread_cond_destroy(&loop->left);
	pthread_mutex_destroy(&loop->mutex);
	free(loop);
}

/* End the wait of the loop's thread, now or the next time it begins. */
static void wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake_fd, &one, sizeof(one));

	/* EAGAIN would mean 2^64 wakes that nobody has seen. */
	assert(n == sizeof(one));
	(void)n;
}

void loop_stop(struct loop *loop)
{
	pthread_mutex_lock(&loop->mutex);
	loop->stop = true;
	pthread_mutex_unlock(&loop->mutex);
	wake(loop);
}

void loop_post(struct loop *loop, loop_fn *fn, void *opaque)
{
	struct loop_post *post = malloc(sizeof(*post));

	if (!post) {
		/* Dropping it would lose a guest's reset or a job's end. */
		log_error("out of memory for an event");
		abort();
	}
	*post = (struct loop_post){ .fn = fn, .opaque = opaque };
	pthread_mutex_lock(&loop->mutex);
	*loop->posts_end = post;
	loop->posts_end = &post->next;
	pthread_mutex_unlock(&loop->mutex);
	wake(loop);
}

/* ---- descriptors ---- */

int loop_fd_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn,
		void *opaque, pthread_mutex_t *lock, struct loop_fd **ret,
		struct error *err)
{
	struct epoll_event event = { .events = events };
	struct loop_fd *source = malloc(sizeof(*source));
	int code = 0;

	if (!source)
		return error_set(err, -ENOMEM, "event source: out of memory");
	*source = (struct loop_fd){
		.loop = loop,
		.fd = fd,
		.events = events,
		.fn = fn,
		.opaque = opaque,
		.lock = lock,
	};
	/* The handler may run before this returns, and use *ret. */
	*ret = source;
	pthread_mutex_lock(&loop->mutex);
	source->id = ++loop->last_id;
	event.data.u64 = source->id;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		code = -errno;
		source->always_ready = code == -EPERM;
	}
	if (!code || source->always_ready) {
		*loop->sources_end = source;
		loop->sources_end = &source->next;
	}
	pthread_mutex_unlock(&loop->mutex);
	if (!code)
		return 0;
	if (code == -EPERM) {
		wake(loop);
		return 0;
	}
	*ret = NULL;
	free(source);
	return error_set(err, code, "watching descriptor %d: %s", fd,
			 strerror(-code));
}

void loop_fd_set(struct loop_fd *source, uint32_t events)
{
	struct loop *loop = source->loop;
	struct epoll_event event = {
		.events = events,
		.data.u64 = source->id,
	};

	pthread_mutex_lock(&loop->mutex);
	source->events = events;
	if (source->always_ready)
		wake(loop);
	else if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event))
		assert(!"a watched descriptor was closed");
	pthread_mutex_unlock(&loop->mutex);
}

static void unlink_source(struct loop *loop, struct loop_fd *source)
{
	struct loop_fd **at = &loop->sources;

	while (*at != source)
		at = &(*at)->next;
	*at = source->next;
	if (!source->next)
		loop->sources_end = at;
}

void loop_fd_remove(struct loop_fd *source)
{
	struct loop *loop;

	if (!source)
		return;
	loop = source->loop;
	pthread_mutex_lock(&loop->mutex);
	unlink_source(loop, source);
	if (!source->always_ready)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (loop->running == source &&
	    pthread_equal(loop->thread, pthread_self()))
		loop->running = NULL; /* its own handler: nobody waits now */
	while (loop->running == source)
		pthread_cond_wait(&loop->left, &loop->mutex);
	pthread_mutex_unlock(&loop->mutex);
	free(source);
}

/* ---- timers ---- */

static void timer_ready(void *opaque, uint32_t events __maybe_unused)
{
	struct loop_timer *timer = opaque;
	uint64_t expirations;

	/* Nothing to read: it was armed anew or disarmed just before. */
	if (read(timer->fd, &expirations, sizeof(expirations)) < 0)
		return;
	/* The timer may be gone when this returns. */
	timer->fn(timer->opaque);
}

int loop_timer_add(struct loop *loop, loop_fn *fn, void *opaque,
		   pthread_mutex_t *lock, struct loop_timer **ret,
		   struct error *err)
{
	struct loop_timer *timer = malloc(sizeof(*timer));
	int code;

	if (!timer)
		return error_set(err, -ENOMEM, "timer: out of memory");
	*timer = (struct loop_timer){ .fn = fn, .opaque = opaque };
	timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer->fd < 0) {
		code = error_set(err, -errno, "timer: %s", strerror(errno));
		goto fail;
	}
	code = loop_fd_add(loop, timer->fd, EPOLLIN, timer_ready, timer, lock,
			   &timer->source, err);
	if (code)
		goto fail;
	*ret = timer;
	return 0;
fail:
	loop_timer_remove(timer);
	return code;
}

void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
	struct itimerspec when = {
		.it_value.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.it_value.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};

	if (timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		assert(!"a timer's own descriptor was closed");
}

void loop_timer_remove(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_fd_remove(timer->source);
	close_fd(&timer->fd);
	free(timer);
}

/* ---- the loop's thread ---- */

/*
 * A source is ready but somebody has its lock, most likely a vCPU in a device
 * register for a few microseconds. epoll will name the source again at once,
 * so let the holder run; and when nothing else is to be done for long, nap.
 */
static void back_off(unsigned int tries)
{
	struct timespec nap = { .tv_nsec = BACK_OFF_NS };

	if (tries <= BACK_OFF_YIELDS)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}

/*
 * Enter the handler of a source that may be gone by now. Called with the
 * mutex held, returns with it held.
 */
static void enter(struct loop *loop, struct loop_fd *source, uint32_t events)
{
	pthread_mutex_t *lock = source->lock;
	unsigned int tries;

	/* An event may be older than the last loop_fd_set(). */
	events &= source->events | EPOLLERR | EPOLLHUP;
	if (!events)
		return;
	if (lock && pthread_mutex_trylock(lock)) {
		tries = ++loop->failed_tries;
		pthread_mutex_unlock(&loop->mutex);
		back_off(tries);
		pthread_mutex_lock(&loop->mutex);
		return;
	}
	loop->failed_tries = 0;
	loop->running = source;
	loop->thread = pthread_self();
	pthread_mutex_unlock(&loop->mutex);

	/* The source may be gone when this returns. */
	source->fn(source->opaque, events);

	pthread_mutex_lock(&loop->mutex);
	if (lock)
		pthread_mutex_unlock(lock);
	loop->running = NULL;
	pthread_cond_broadcast(&loop->left);
}

static struct loop_fd *find_source(struct loop *loop, uint64_t id)
{
	struct loop_fd *source = loop->sources;

	while (source && source->id != id)
		source = source->next;
	return source;
}

/* The always-ready source whose turn it is, or NULL. */
static struct loop_fd *next_file(struct loop *loop)
{
	struct loop_fd *first = NULL, *source;

	for (source = loop->sources; source; source = source->next) {
		if (!source->always_ready ||
		    !(source->events & (EPOLLIN | EPOLLOUT)))
			continue;
		if (source->id > loop->last_file_id)
			return source;
		if (!first)
			first = source;
	}
	return first;
}

static void run_post(struct loop *loop)
{
	struct loop_post *post = loop->posts;

	if (!post)
		return;
	loop->posts = post->next;
	if (!loop->posts)
		loop->posts_end = &loop->posts;
	pthread_mutex_unlock(&loop->mutex);
	post->fn(post->opaque);
	free(post);
	pthread_mutex_lock(&loop->mutex);
}

static void run_file(struct loop *loop)
{
	struct loop_fd *file = next_file(loop);

	if (!file)
		return;
	loop->last_file_id = file->id;
	enter(loop, file, EPOLLIN | EPOLLOUT);
}

/*
 * Wait for an event and handle it. One at a time: epoll takes ready sources
 * in turn, and no event is stale because of a handler that ran before it.
 */
static void run_event(struct loop *loop)
{
	int timeout_ms = loop->posts || next_file(loop) ? 0 : -1;
	struct epoll_event event;
	struct loop_fd *source;
	uint64_t count;
	int n;

	pthread_mutex_unlock(&loop->mutex);
	n = epoll_wait(loop->epoll_fd, &event, 1, timeout_ms);
	if (n == 1 && event.data.u64 == WAKE_ID &&
	    read(loop->wake_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN);
	pthread_mutex_lock(&loop->mutex);
	if (n != 1 || event.data.u64 == WAKE_ID)
		return;
	source = find_source(loop, event.data.u64);
	if (source)
		enter(loop, source, event.events);
}

void loop_run(struct loop *loop)
{
	pthread_mutex_lock(&loop->mutex);
	while (!loop->stop) {
		run_post(loop);
		if (!loop->stop)
			run_file(loop);
		if (!loop->stop)
			run_event(loop);
	}
	loop->stop = false;
	pthread_mutex_unlock(&loop->mutex);
}
