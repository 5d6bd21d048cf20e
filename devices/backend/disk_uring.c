// SPDX-License-Identifier: MIT
/*
 * A disk's io_uring. Operations of a ring pass by every seccomp filter, so a
 * ring is made before the sandbox, for one disk, and can do nothing but read,
 * write, flush and deallocate in that one file: the kernel holds us to it
 * (IORING_REGISTER_RESTRICTIONS). A kernel that can't gets no ring from us.
 *
 * A ring belongs to all disk_dup()s of a disk; one engine uses it at a time.
 *
 * Reads that the page cache can serve end within io_uring_enter(): the kernel
 * tries that first, so no preadv2(RWF_NOWAIT) before is worth its system call.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "devices/backend/disk_internal.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

struct disk_uring {
	struct io_uring ring;
	atomic_uint refs;
	atomic_bool taken;
};

/* Not all of it is in every liburing. */
static int ring_register(const struct io_uring *ring, unsigned int what,
			 const void *arg, size_t n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, what, arg, n) < 0
		       ? -errno
		       : 0;
}

static int restrict_ring(const struct io_uring *ring)
{
	static const uint8_t ops[] = { IORING_OP_READ,	IORING_OP_WRITE,
				       IORING_OP_READV, IORING_OP_WRITEV,
				       IORING_OP_FSYNC, IORING_OP_FALLOCATE };
	struct io_uring_restriction rules[ARRAY_SIZE(ops) + 1] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = ops[i];
	}
	rules[ARRAY_SIZE(ops)].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	rules[ARRAY_SIZE(ops)].sqe_flags = IOSQE_FIXED_FILE;
	return ring_register(ring, IORING_REGISTER_RESTRICTIONS, rules,
			     ARRAY_SIZE(rules));
}

static int make_ring(struct io_uring *ring, int fd)
{
	/* Completions wait until we come by instead of interrupting us. */
	int rc = io_uring_queue_init(DISK_DEPTH_MAX, ring,
				     IORING_SETUP_R_DISABLED |
					     IORING_SETUP_COOP_TASKRUN |
					     IORING_SETUP_TASKRUN_FLAG);

	if (rc == -EINVAL) /* before Linux 5.19 */
		rc = io_uring_queue_init(DISK_DEPTH_MAX, ring,
					 IORING_SETUP_R_DISABLED);
	if (rc)
		return rc;
	rc = ring_register(ring, IORING_REGISTER_FILES, &fd, 1);
	if (!rc)
		rc = restrict_ring(ring);
	if (!rc)
		rc = ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (!rc)
		rc = io_uring_ring_dontfork(ring);
	if (rc)
		io_uring_queue_exit(ring);
	return rc;
}

int disk_uring_create(int fd, struct disk_uring **ret)
{
	struct disk_uring *uring = calloc(1, sizeof(*uring));
	int rc;

	if (!uring)
		return -ENOMEM;
	rc = make_ring(&uring->ring, fd);
	if (rc) {
		free(uring);
		return rc;
	}
	uring->refs = 1;
	*ret = uring;
	return 0;
}

struct disk_uring *disk_uring_get(struct disk_uring *uring)
{
	if (uring)
		uring->refs++;
	return uring;
}

void disk_uring_put(struct disk_uring *uring)
{
	if (!uring || --uring->refs)
		return;
	io_uring_queue_exit(&uring->ring);
	free(uring);
}

bool disk_uring_take(struct disk_uring *uring)
{
	return uring && !atomic_exchange(&uring->taken, true);
}

void disk_uring_release(struct disk_uring *uring)
{
	uring->taken = false;
}

int disk_uring_fd(const struct disk_uring *uring)
{
	return uring->ring.ring_fd;
}

static void prepare(struct io_uring_sqe *sqe,
		    const struct disk_request *request)
{
	const struct iovec *iov = request->iov;

	switch (request->op) {
	case DISK_READ:
		if (request->niov == 1 && iov->iov_len <= INT32_MAX)
			io_uring_prep_read(sqe, 0, iov->iov_base,
					   (unsigned int)iov->iov_len,
					   request->offset);
		else
			io_uring_prep_readv(sqe, 0, iov, request->niov,
					    request->offset);
		break;
	case DISK_WRITE:
		if (request->niov == 1 && iov->iov_len <= INT32_MAX)
			io_uring_prep_write(sqe, 0, iov->iov_base,
					    (unsigned int)iov->iov_len,
					    request->offset);
		else
			io_uring_prep_writev(sqe, 0, iov, request->niov,
					     request->offset);
		break;
	case DISK_FLUSH:
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
		break;
	case DISK_DISCARD:
	case DISK_ZEROES:
	case DISK_UNMAP_ZEROES:
		io_uring_prep_fallocate(sqe, 0, disk_range_mode(request->op),
					(off_t)request->offset,
					(off_t)request->len);
		break;
	}
}

void disk_uring_submit(struct disk_uring *uring, struct disk_request *request)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	/* Full of what was not handed over yet. */
	while (!sqe) {
		disk_uring_kick(uring);
		sqe = io_uring_get_sqe(&uring->ring);
	}
	prepare(sqe, request);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, request);
}

void disk_uring_kick(struct disk_uring *uring)
{
	/*
	 * Interrupted, or short of memory for the moment: what was not taken
	 * stays in the ring.
	 */
	while (io_uring_sq_ready(&uring->ring)) {
		int rc = io_uring_submit(&uring->ring);

		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			break;
	}
}

struct disk_request *disk_uring_next(struct disk_uring *uring, bool wait,
				     int *ret_result)
{
	struct disk_request *request;
	struct io_uring_cqe *cqe;
	int rc;

	do {
		rc = wait ? io_uring_wait_cqe(&uring->ring, &cqe)
			  : io_uring_peek_cqe(&uring->ring, &cqe);
	} while (rc == -EINTR);
	if (rc)
		return NULL;
	request = io_uring_cqe_get_data(cqe);
	*ret_result = cqe->res;
	io_uring_cqe_seen(&uring->ring, cqe);
	return request;
}

#else /* no liburing */

int disk_uring_create(int fd __maybe_unused,
		      struct disk_uring **ret __maybe_unused)
{
	return -ENOSYS;
}

struct disk_uring *disk_uring_get(struct disk_uring *uring)
{
	return uring;
}

void disk_uring_put(struct disk_uring *uring __maybe_unused)
{
}

bool disk_uring_take(struct disk_uring *uring __maybe_unused)
{
	return false;
}

void disk_uring_release(struct disk_uring *uring __maybe_unused)
{
}

int disk_uring_fd(const struct disk_uring *uring __maybe_unused)
{
	return -1;
}

void disk_uring_submit(struct disk_uring *uring __maybe_unused,
		       struct disk_request *request)
{
	request->done(request, -ENOSYS);
}

void disk_uring_kick(struct disk_uring *uring __maybe_unused)
{
}

struct disk_request *disk_uring_next(struct disk_uring *uring __maybe_unused,
				     bool wait __maybe_unused,
				     int *ret_result __maybe_unused)
{
	return NULL;
}

#endif
