// SPDX-License-Identifier: MIT
/*
 * Failures on demand; see fault.h.
 *
 * Each wrapper asks strikes() whether this is the call, and then fails in the
 * way in which the call fails when the host runs out of something.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "tests/inproc/fault.h"

static struct {
	pthread_mutex_t lock;
	_Atomic(const struct rig_host *) host; /* NULL: nothing is counted */
	struct fault_kind kind;
	bool armed;
	unsigned int nth;
	int error; /* 0: the call's own */
	bool fired;
	struct fault_census census;
} fault = { .lock = PTHREAD_MUTEX_INITIALIZER };

/*
 * Addresses that are allocated, by linear probing. Only they count when they
 * are freed: the C library allocates things that others free.
 */
#define ADDRESSES (1U << 16)

static struct {
	pthread_mutex_t lock;
	long n;
	const void *at[ADDRESSES];
} allocated = { .lock = PTHREAD_MUTEX_INITIALIZER };

static atomic_long mapped; /* bytes */
static _Thread_local bool is_vcpu;

void fault_count(const struct rig_host *host)
{
	pthread_mutex_lock(&fault.lock);
	memset(&fault.census, 0, sizeof(fault.census));
	fault.fired = false;
	fault.armed = false;
	fault.host = host;
	pthread_mutex_unlock(&fault.lock);
}

void fault_arm(const struct rig_host *host, const struct fault_kind *kind,
	       unsigned int nth, int error)
{
	fault_count(host);
	pthread_mutex_lock(&fault.lock);
	fault.kind = *kind;
	fault.nth = nth;
	fault.error = error;
	fault.armed = true;
	pthread_mutex_unlock(&fault.lock);
}

bool fault_disarm(struct fault_census *ret)
{
	bool fired;

	pthread_mutex_lock(&fault.lock);
	fault.host = NULL;
	fired = fault.fired;
	if (ret)
		*ret = fault.census;
	pthread_mutex_unlock(&fault.lock);
	return fired;
}

long fault_allocations(void)
{
	long n;

	pthread_mutex_lock(&allocated.lock);
	n = allocated.n;
	pthread_mutex_unlock(&allocated.lock);
	return n;
}

long fault_mapped(void)
{
	return mapped;
}

static bool same(const struct fault_kind *kind, const char *name,
		 unsigned long command)
{
	return kind->command == command && !strcmp(kind->name, name);
}

/* Count the call; the lock is held. Return: how many came before it. */
static unsigned int count(const char *name, unsigned long command)
{
	struct fault_census *census = &fault.census;

	for (unsigned int i = 0; i < census->nkinds; i++) {
		if (same(&census->kinds[i], name, command))
			return census->kinds[i].count++;
	}
	if (census->nkinds == FAULT_KINDS_MAX)
		abort();
	census->kinds[census->nkinds++] =
		(struct fault_kind){ name, command, 1 };
	return 0;
}

/* What the guest does when it runs is none of the migration's calls. */
static bool is_guest_s(const char *name, unsigned long command)
{
	return strcmp(name, "ioctl") != 0 || command == KVM_RUN ||
	       command == KVM_IRQ_LINE || command == KVM_SIGNAL_MSI;
}

/* Is this the call that has to fail? Then errno is @error, or what was asked.
 */
static bool strikes(const char *name, unsigned long command, int error)
{
	bool strike = false;
	unsigned int before;

	if (!rig_thread_host || fault.host != rig_thread_host ||
	    (is_vcpu && is_guest_s(name, command)))
		return false;
	pthread_mutex_lock(&fault.lock);
	if (fault.host == rig_thread_host) {
		before = count(name, command);
		strike = fault.armed && before == fault.nth &&
			 same(&fault.kind, name, command);
		fault.fired = fault.fired || strike;
	}
	pthread_mutex_unlock(&fault.lock);
	if (strike)
		errno = fault.error ? fault.error : error;
	return strike;
}

/* ---- calls that just fail ---- */

#define WRAP(error, failed, type, name, params, args)                 \
	type __real_##name params;                                    \
	type __wrap_##name params;                                    \
	type __wrap_##name params                                     \
	{                                                             \
		return strikes(#name, 0, error) ? (failed)            \
						: __real_##name args; \
	}

WRAP(EIO, -1, ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags),
     (fd, msg, flags))
WRAP(EIO, -1, ssize_t, recv, (int fd, void *buf, size_t len, int flags),
     (fd, buf, len, flags))
WRAP(EIO, -1, ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags),
     (fd, msg, flags))
WRAP(ENOMEM, -1, int, poll, (struct pollfd * fds, nfds_t n, int timeout),
     (fds, n, timeout))
WRAP(ENOMEM, -1, int, ppoll,
     (struct pollfd * fds, nfds_t n, const struct timespec *timeout,
      const sigset_t *mask),
     (fds, n, timeout, mask))
WRAP(EIO, -1, ssize_t, read, (int fd, void *buf, size_t len), (fd, buf, len))
WRAP(EIO, -1, ssize_t, write, (int fd, const void *buf, size_t len),
     (fd, buf, len))
WRAP(EIO, -1, ssize_t, pread, (int fd, void *buf, size_t len, off_t at),
     (fd, buf, len, at))
WRAP(ENOSPC, -1, ssize_t, pwrite,
     (int fd, const void *buf, size_t len, off_t at), (fd, buf, len, at))
WRAP(ENOMEM, -1, int, madvise, (void *addr, size_t len, int advice),
     (addr, len, advice))
WRAP(EMFILE, -1, int, memfd_create, (const char *name, unsigned int flags),
     (name, flags))
WRAP(ENOSPC, -1, int, ftruncate, (int fd, off_t len), (fd, len))
WRAP(EMFILE, -1, int, eventfd, (unsigned int value, int flags), (value, flags))
WRAP(EMFILE, -1, int, socket, (int domain, int type, int protocol),
     (domain, type, protocol))
WRAP(ECONNREFUSED, -1, int, connect,
     (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
WRAP(EMFILE, -1, int, accept4,
     (int fd, struct sockaddr *addr, socklen_t *len, int flags),
     (fd, addr, len, flags))
WRAP(ENOSYS, -1, ssize_t, getrandom, (void *buf, size_t len, unsigned flags),
     (buf, len, flags))
WRAP(ENOPROTOOPT, -1, int, setsockopt,
     (int fd, int level, int name, const void *value, socklen_t len),
     (fd, level, name, value, len))
WRAP(ENOBUFS, -1, int, getsockopt,
     (int fd, int level, int name, void *value, socklen_t *len),
     (fd, level, name, value, len))
WRAP(EFAULT, -1, int, sysinfo, (struct sysinfo * info), (info))

/* Only a new watch costs anything; the others can't fail. */
int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && strikes("epoll_ctl", 0, ENOMEM))
		return -1;
	return __real_epoll_ctl(epoll, op, fd, event);
}

WRAP(EIO, -1, int, fdatasync, (int fd), (fd))
WRAP(EIO, EIO, int, posix_fadvise, (int fd, off_t at, off_t len, int advice),
     (fd, at, len, advice))

/* Variadic, with at most one word behind. Letting a lock go can't fail. */
int __real_fcntl(int fd, int command, void *arg);
int __wrap_fcntl(int fd, int command, void *arg);
int __wrap_fcntl(int fd, int command, void *arg)
{
	const struct flock *lock = arg;

	if (!(command == F_OFD_SETLK && lock->l_type == F_UNLCK) &&
	    strikes("fcntl", (unsigned long)command, ENOLCK))
		return -1;
	return __real_fcntl(fd, command, arg);
}

int __real_ioctl(int fd, unsigned long command, void *arg);
int __wrap_ioctl(int fd, unsigned long command, void *arg);
int __wrap_ioctl(int fd, unsigned long command, void *arg)
{
	if (strikes("ioctl", command, ENOMEM))
		return -1;
	return __real_ioctl(fd, command, arg);
}

/* ---- threads ---- */

struct start {
	const struct rig_host *host;
	void *(*fn)(void *arg);
	void *arg;
};

void *__real_malloc(size_t size);
void __real_free(void *at);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg);

static void *start(void *opaque)
{
	struct start start = *(struct start *)opaque;

	__real_free(opaque);
	rig_thread_host = start.host;
	is_vcpu = start.host;
	return start.fn(start.arg);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg)
{
	struct start *handed_down;

	if (strikes("pthread_create", 0, EAGAIN))
		return EAGAIN;
	handed_down = __real_malloc(sizeof(*handed_down));
	*handed_down = (struct start){ rig_thread_host, fn, arg };
	return __real_pthread_create(thread, attr, start, handed_down);
}

/* ---- memory ---- */

void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size);
void __wrap_free(void *at);
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset);
int __real_munmap(void *addr, size_t len);
int __wrap_munmap(void *addr, size_t len);

static unsigned int home(const void *at)
{
	return (unsigned int)((uintptr_t)at >> 4) % ADDRESSES;
}

static void *remember(void *at)
{
	unsigned int i = home(at);

	if (!at)
		return NULL;
	pthread_mutex_lock(&allocated.lock);
	if (++allocated.n > ADDRESSES / 2)
		abort();
	while (allocated.at[i])
		i = (i + 1) % ADDRESSES;
	allocated.at[i] = at;
	pthread_mutex_unlock(&allocated.lock);
	return at;
}

/* Take entry @hole out, and move up whoever had to give way to it. */
static void close_up(unsigned int hole)
{
	unsigned int i = hole;

	for (;;) {
		i = (i + 1) % ADDRESSES;
		if (!allocated.at[i])
			break;
		if ((i - home(allocated.at[i])) % ADDRESSES <
		    (i - hole) % ADDRESSES)
			continue;
		allocated.at[hole] = allocated.at[i];
		hole = i;
	}
	allocated.at[hole] = NULL;
	allocated.n--;
}

static void forget(const void *at)
{
	unsigned int i = home(at);

	pthread_mutex_lock(&allocated.lock);
	while (allocated.at[i] && allocated.at[i] != at)
		i = (i + 1) % ADDRESSES;
	if (at && allocated.at[i])
		close_up(i);
	pthread_mutex_unlock(&allocated.lock);
}

void *__wrap_malloc(size_t size)
{
	return strikes("malloc", 0, ENOMEM) ? NULL
					    : remember(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
	return strikes("calloc", 0, ENOMEM) ? NULL
					    : remember(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t size)
{
	if (strikes("realloc", 0, ENOMEM))
		return NULL;
	forget(old);
	return remember(__real_realloc(old, size));
}

void __wrap_free(void *at)
{
	forget(at);
	__real_free(at);
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset)
{
	void *at = strikes("mmap", 0, ENOMEM)
			   ? MAP_FAILED
			   : __real_mmap(addr, len, prot, flags, fd, offset);

	mapped += at == MAP_FAILED ? 0 : (long)len;
	return at;
}

int __wrap_munmap(void *addr, size_t len)
{
	mapped -= (long)len;
	return __real_munmap(addr, len);
}
