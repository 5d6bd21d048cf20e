// SPDX-License-Identifier: MIT
/*
 * Requests on a disk.
 *
 * The common ones go as they are to the kernel, by io_uring or by preadv() and
 * pwritev(). What the kernel does only in part, or not at all, is done here,
 * by this thread and at once:
 *
 * - a transfer that ended early is gone on with;
 * - O_DIRECT wants offsets, lengths and addresses to be multiples of something.
 *   What isn't goes by way of a buffer, and a write that covers blocks in part
 *   reads them first, when nothing else is in flight that could touch them;
 * - zeroes that the filesystem can't make are written.
 *
 * These are rare, or slow whatever one does; a disk's other requests wait.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/disk_internal.h"

#define BUFFER_SIZE  (256 * KIB)
#define BUFFER_ALIGN 4096

struct disk_engine {
	struct disk *disk;
	struct disk_uring *uring; /* NULL: preadv */
	unsigned int depth;
	unsigned int in_flight; /* in the ring */
	uint8_t *buffer;
	struct iovec rest[DISK_SEGMENTS_MAX]; /* of a transfer */
};

/* ---- pieces of memory ---- */

/* @iov from byte @skip on, into @rest; how many. */
static unsigned int iov_after(const struct iovec *iov, unsigned int n,
			      uint64_t skip, struct iovec *rest)
{
	unsigned int at = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		rest[at].iov_base = (uint8_t *)iov[i].iov_base + skip;
		rest[at++].iov_len = iov[i].iov_len - skip;
		skip = 0;
	}
	return at;
}

static void iov_zero(const struct iovec *iov, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/* Copy @len bytes between @buf and the segments, from their byte @at on. */
static void iov_copy(const struct disk_request *request, uint64_t at,
		     uint8_t *buf, size_t len, bool to_iov)
{
	for (unsigned int i = 0; i < request->niov && len; i++) {
		const struct iovec *iov = &request->iov[i];
		size_t piece;
		uint8_t *base;

		if (at >= iov->iov_len) {
			at -= iov->iov_len;
			continue;
		}
		piece = MIN(len, iov->iov_len - at);
		base = (uint8_t *)iov->iov_base + at;
		memcpy(to_iov ? base : buf, to_iov ? buf : base, piece);
		buf += piece;
		len -= piece;
		at = 0;
	}
}

/* ---- transfers ---- */

/*
 * May a file end at @at? In the last unit it may, see disk.h; anywhere else it
 * has become shorter since it was opened, and nobody shall take that for
 * zeroes.
 */
static bool may_end(const struct disk *disk, uint64_t at)
{
	return at + disk_block_size(disk) > disk->size;
}

/* Go on where the first @skip bytes are done. */
static int transfer(struct disk_engine *engine,
		    const struct disk_request *request, uint64_t skip)
{
	const struct disk *disk = engine->disk;

	while (skip < request->len) {
		uint64_t at = request->offset + skip;
		unsigned int n = iov_after(request->iov, request->niov, skip,
					   engine->rest);
		ssize_t did = 0;

		/* A part of a block was read: the file ended in it. */
		if (!(skip % disk->offset_align)) {
			did = request->op == DISK_READ
				      ? preadv(disk->fd, engine->rest, (int)n,
					       (off_t)at)
				      : pwritev(disk->fd, engine->rest, (int)n,
						(off_t)at);
		}
		if (did < 0 && errno == EINTR)
			continue;
		if (did < 0)
			return -errno;
		if (!did && request->op == DISK_READ && may_end(disk, at)) {
			iov_zero(engine->rest, n);
			return 0;
		}
		if (!did)
			return -EIO;
		skip += (uint64_t)did;
	}
	return 0;
}

/* ---- by way of the buffer ---- */

static bool aligned(const struct disk *disk, const struct disk_request *request)
{
	uint64_t blocks = request->offset | request->len;
	uintptr_t addresses = 0;

	if (!disk->direct)
		return true;
	for (unsigned int i = 0; i < request->niov; i++) {
		blocks |= request->iov[i].iov_len;
		addresses |= (uintptr_t)request->iov[i].iov_base;
	}
	return !(blocks % disk->offset_align) &&
	       !(addresses % disk->memory_align);
}

static int buffer_io(struct disk_engine *engine, enum disk_op op,
		     uint64_t offset, size_t len)
{
	struct iovec iov = { engine->buffer, len };
	struct disk_request request = {
		.op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1
	};

	return transfer(engine, &request, 0);
}

/* Whole blocks around a piece that fits into the buffer. */
struct piece {
	uint64_t start; /* of the blocks */
	size_t blocks;	/* bytes of them */
	size_t head;	/* bytes of the first that are not the piece's */
	size_t len;	/* of the piece */
};

static struct piece next_piece(const struct disk *disk, uint64_t offset,
			       uint64_t len)
{
	struct piece piece;

	piece.head = (size_t)(offset % disk->offset_align);
	piece.start = offset - piece.head;
	piece.len = (size_t)MIN(len, BUFFER_SIZE - piece.head);
	piece.blocks =
		(size_t)align_up(piece.head + piece.len, disk->offset_align);
	return piece;
}

static int read_by_buffer(struct disk_engine *engine,
			  const struct disk_request *request)
{
	uint64_t done = 0;

	while (done < request->len) {
		struct piece piece =
			next_piece(engine->disk, request->offset + done,
				   request->len - done);
		int rc =
			buffer_io(engine, DISK_READ, piece.start, piece.blocks);

		if (rc)
			return rc;
		iov_copy(request, done, engine->buffer + piece.head, piece.len,
			 true);
		done += piece.len;
	}
	return 0;
}

static void drain(struct disk_engine *engine);

/* Writes the request's bytes, or zeroes when it has none. */
static int write_by_buffer(struct disk_engine *engine,
			   const struct disk_request *request)
{
	uint64_t done = 0;

	while (done < request->len) {
		struct piece piece =
			next_piece(engine->disk, request->offset + done,
				   request->len - done);
		uint8_t *at = engine->buffer + piece.head;
		int rc = 0;

		if (piece.blocks != piece.len) {
			drain(engine);
			rc = buffer_io(engine, DISK_READ, piece.start,
				       piece.blocks);
		}
		if (rc)
			return rc;
		if (request->niov)
			iov_copy(request, done, at, piece.len, false);
		else
			memset(at, 0, piece.len);
		rc = buffer_io(engine, DISK_WRITE, piece.start, piece.blocks);
		if (rc)
			return rc;
		done += piece.len;
	}
	return 0;
}

/* ---- ranges ---- */

int disk_range_mode(enum disk_op op)
{
	return FALLOC_FL_KEEP_SIZE | (op == DISK_ZEROES ? FALLOC_FL_ZERO_RANGE
							: FALLOC_FL_PUNCH_HOLE);
}

static int range(struct disk_engine *engine, const struct disk_request *request)
{
	int mode = disk_range_mode(request->op);

	while (fallocate(engine->disk->fd, mode, (off_t)request->offset,
			 (off_t)request->len)) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* Neither filesystem nor device does it, or not in pieces of this size. */
static bool unsupported(int result)
{
	return result == -EOPNOTSUPP || result == -ENOSYS ||
	       result == -ENODEV || result == -EINVAL;
}

/* ---- ends ---- */

/* Of what the kernel was asked for it has done @result, or failed. */
static int complete(struct disk_engine *engine,
		    const struct disk_request *request, int result)
{
	bool again = result == -EINTR || result == -EAGAIN;

	switch (request->op) {
	case DISK_READ:
	case DISK_WRITE:
		if (result < 0 && !again)
			return result;
		return transfer(engine, request, again ? 0 : (uint64_t)result);
	case DISK_FLUSH:
		while (again) {
			result = fdatasync(engine->disk->fd) ? -errno : 0;
			again = result == -EINTR;
		}
		return result;
	case DISK_DISCARD:
		if (again)
			result = range(engine, request);
		return unsupported(result) ? 0 : result;
	case DISK_ZEROES:
	case DISK_UNMAP_ZEROES:
		if (again)
			result = range(engine, request);
		return unsupported(result) ? write_by_buffer(engine, request)
					   : result;
	}
	return -EINVAL;
}

static int do_now(struct disk_engine *engine,
		  const struct disk_request *request)
{
	switch (request->op) {
	case DISK_READ:
	case DISK_WRITE:
		return transfer(engine, request, 0);
	case DISK_FLUSH:
		return complete(engine, request, -EINTR);
	case DISK_DISCARD:
	case DISK_ZEROES:
	case DISK_UNMAP_ZEROES:
		break;
	}
	return complete(engine, request, range(engine, request));
}

static bool reap_one(struct disk_engine *engine, bool wait)
{
	struct disk_request *request;
	int result;

	request = disk_uring_next(engine->uring, wait, &result);
	if (!request)
		return false;
	engine->in_flight--;
	request->done(request, complete(engine, request, result));
	return true;
}

static void drain(struct disk_engine *engine)
{
	if (!engine->in_flight)
		return;
	disk_uring_kick(engine->uring);
	while (engine->in_flight && reap_one(engine, true))
		;
}

/* ---- the engine ---- */

void disk_submit(struct disk_engine *engine, struct disk_request *request)
{
	bool moves = request->op == DISK_READ || request->op == DISK_WRITE;

	assert(request->len <= engine->disk->size &&
	       request->offset <= engine->disk->size - request->len);
	assert(request->niov <= DISK_SEGMENTS_MAX);
	if (moves && !aligned(engine->disk, request)) {
		request->done(request,
			      request->op == DISK_READ
				      ? read_by_buffer(engine, request)
				      : write_by_buffer(engine, request));
		return;
	}
	if (!engine->uring) {
		request->done(request, do_now(engine, request));
		return;
	}
	engine->in_flight++;
	disk_uring_submit(engine->uring, request);
}

void disk_engine_kick(struct disk_engine *engine)
{
	if (engine->uring)
		disk_uring_kick(engine->uring);
}

unsigned int disk_engine_reap(struct disk_engine *engine)
{
	unsigned int n = 0;

	while (engine->in_flight && reap_one(engine, false))
		n++;
	return n;
}

int disk_engine_fd(const struct disk_engine *engine)
{
	return engine->uring ? disk_uring_fd(engine->uring) : -1;
}

const char *disk_engine_name(const struct disk_engine *engine)
{
	return engine->uring ? "io_uring" : "preadv";
}

int disk_engine_create(struct disk *disk, unsigned int depth,
		       struct disk_engine **ret, struct error *err)
{
	struct disk_engine *engine = calloc(1, sizeof(*engine));

	assert(depth && depth <= DISK_DEPTH_MAX);
	if (engine)
		engine->buffer = aligned_alloc(BUFFER_ALIGN, BUFFER_SIZE);
	if (!engine || !engine->buffer) {
		free(engine);
		return disk_error(disk, err, -ENOMEM, "out of memory");
	}
	engine->disk = disk;
	engine->depth = depth;
	if (disk_uring_take(disk->uring))
		engine->uring = disk->uring;
	*ret = engine;
	return 0;
}

void disk_engine_free(struct disk_engine *engine)
{
	if (!engine)
		return;
	assert(!engine->in_flight);
	if (engine->uring)
		disk_uring_release(engine->uring);
	free(engine->buffer);
	free(engine);
}
