/* SPDX-License-Identifier: MIT */
/*
 * The event loop: one thread, epoll, for devices, timers and the control
 * socket. Handlers never block.
 *
 * A source (descriptor or timer) may carry a lock; the loop holds it around
 * the handler, which is how devices are entered by one thread at a time.
 * Sources are added, changed and removed from any thread; after
 * loop_fd_remove() or loop_timer_remove() returns, the handler is not running
 * and will not run again, unless the caller is that handler or holds its
 * lock: then it does not run again after the caller returns.
 *
 * Remove never waits for a handler while the caller holds the source's lock.
 */
#ifndef GODWIT_LOOP_H
#define GODWIT_LOOP_H

#include <pthread.h>
#include <sys/epoll.h>

#include "vmm/error.h"

struct loop;
struct loop_fd;
struct loop_timer;

typedef void loop_fd_fn(void *opaque, uint32_t events);
typedef void loop_fn(void *opaque);

/**
 * loop_create() - make a loop; nobody runs it yet.
 */
int __must_check loop_create(struct loop **ret, struct error *err);

/**
 * loop_free() - free a loop that no thread runs and whose sources are gone.
 */
void loop_free(struct loop *loop);

/**
 * loop_run() - dispatch on the calling thread until loop_stop().
 */
void loop_run(struct loop *loop);

/**
 * loop_stop() - make loop_run() return after the handler it is in; from any
 * thread; a stop before the run is remembered.
 */
void loop_stop(struct loop *loop);

/**
 * loop_fd_add() - watch a descriptor.
 * @events: EPOLLIN, EPOLLOUT, …, level-triggered; 0 is allowed (errors and
 *          hang-ups are still told).
 * @lock: taken around @fn, or NULL.
 *
 * Descriptors that epoll can't watch (regular files) are always ready, as
 * poll() has it.
 */
int __must_check loop_fd_add(struct loop *loop, int fd, uint32_t events,
			     loop_fd_fn *fn, void *opaque,
			     pthread_mutex_t *lock, struct loop_fd **ret,
			     struct error *err);

/**
 * loop_fd_set() - change which events are watched.
 */
void loop_fd_set(struct loop_fd *source, uint32_t events);

/**
 * loop_fd_remove() - stop watching and free; the descriptor stays open. NULL
 * is fine.
 */
void loop_fd_remove(struct loop_fd *source);

/**
 * loop_timer_add() - make a disarmed timer.
 */
int __must_check loop_timer_add(struct loop *loop, loop_fn *fn, void *opaque,
				pthread_mutex_t *lock, struct loop_timer **ret,
				struct error *err);

/**
 * loop_timer_arm() - fire once at @deadline_ns of clock_ns(); 0 disarms.
 */
void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns);

/**
 * loop_timer_remove() - disarm and free. NULL is fine.
 */
void loop_timer_remove(struct loop_timer *timer);

/**
 * loop_post() - run @fn on the loop's thread, soon, in order of posting.
 *
 * Never fails: posts that are not run yet when the loop is freed are dropped.
 * A post is a small allocation; don't use it on a hot path.
 */
void loop_post(struct loop *loop, loop_fn *fn, void *opaque);

#endif
