/* SPDX-License-Identifier: MIT */
/*
 * Small things that every room needs and no room owns: array and bit
 * arithmetic, the monotonic clock, whole reads and writes.
 */
#ifndef GODWIT_UTIL_H
#define GODWIT_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define __must_check   __attribute__((warn_unused_result))
#define __printf(f, a) __attribute__((format(printf, f, a)))
#define __maybe_unused __attribute__((unused))

#define KIB 1024ULL
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S  1000000000ULL

/* A guest page; the unit of the dirty log and of the stream. */
#define GUEST_PAGE_SHIFT 12
#define GUEST_PAGE_SIZE	 (1ULL << GUEST_PAGE_SHIFT)

static inline uint64_t align_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

static inline uint64_t div_round_up(uint64_t value, uint64_t by)
{
	return (value + by - 1) / by;
}

/**
 * clock_ns() - CLOCK_MONOTONIC, in nanoseconds.
 */
uint64_t clock_ns(void);

/**
 * time_left() - nanoseconds until @deadline_ns of clock_ns(); 0 when it has
 * passed.
 */
static inline uint64_t time_left(uint64_t deadline_ns)
{
	uint64_t now = clock_ns();

	return deadline_ns > now ? deadline_ns - now : 0;
}

/**
 * thread_clock_ns() / process_clock_ns() - how long processors have been at
 * work for the calling thread, for all threads together; in nanoseconds.
 */
uint64_t thread_clock_ns(void);
uint64_t process_clock_ns(void);

/**
 * processors() - how many the calling thread may run on; 1 when nobody tells.
 */
unsigned int processors(void);

/**
 * clock_real_ns() - CLOCK_REALTIME, in nanoseconds since 1970.
 */
uint64_t clock_real_ns(void);

/**
 * read_full() - read exactly @len bytes at the descriptor's position.
 *
 * Restarts after EINTR and short reads.
 *
 * Return: 0, -errno, or -ENODATA when the file ends before @len bytes.
 */
int __must_check read_full(int fd, void *buf, size_t len);

/**
 * pread_full() - read exactly @len bytes at @offset; as read_full().
 */
int __must_check pread_full(int fd, void *buf, size_t len, uint64_t offset);

/**
 * write_full() - write exactly @len bytes; restarts after EINTR.
 *
 * Return: 0 or -errno.
 */
int __must_check write_full(int fd, const void *buf, size_t len);

/**
 * is_shortage() - does this errno of accept() mean that the host, or this
 * process, has run out of something? What was to be accepted still waits then.
 */
bool is_shortage(int code);

/**
 * peer_pid() - the process at the other end of a unix socket, also of one that
 * is stopped; 0 when the kernel doesn't tell.
 */
pid_t peer_pid(int fd);

/**
 * text_make_plain() - put '?' for each control character of @text.
 *
 * For what a peer, a guest or a file says and a user will read: a terminal
 * obeys escapes in it, C1 ones in UTF-8 too.
 */
void text_make_plain(char *text);

/**
 * close_fd() - close *@fd when it is open (>= 0) and set it to -1.
 */
void close_fd(int *fd);

#endif
