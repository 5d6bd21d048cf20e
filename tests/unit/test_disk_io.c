// SPDX-License-Identifier: MIT
/*
 * Requests to disks, on real files in memory and on whatever /var/tmp is, by
 * every way there is: what is written is read, whatever the kernel does in
 * pieces or not at all.
 */
#include <errno.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif
#include <poll.h>
#include <sys/stat.h>

#include "tests/unit/disk_rig.h"

/* preadv() and pwritev() do at most so many bytes; 0: all. */
static size_t short_by;
static unsigned int shortened;
static bool no_fallocate;

typedef ssize_t io_call(int fd, const struct iovec *iov, int niov,
			off_t offset);

io_call __real_preadv, __wrap_preadv, __real_pwritev, __wrap_pwritev;
int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);

static ssize_t shorten(io_call *call, int fd, const struct iovec *iov, int niov,
		       off_t offset)
{
	struct iovec first = *iov;

	if (!short_by)
		return call(fd, iov, niov, offset);
	/* And a signal comes now and then. */
	if (!(++shortened % 5)) {
		errno = EINTR;
		return -1;
	}
	first.iov_len = MIN(first.iov_len, short_by);
	return call(fd, &first, 1, offset);
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int niov, off_t offset)
{
	return shorten(__real_preadv, fd, iov, niov, offset);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int niov, off_t offset)
{
	return shorten(__real_pwritev, fd, iov, niov, offset);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (!no_fallocate)
		return __real_fallocate(fd, mode, offset, len);
	errno = EOPNOTSUPP;
	return -1;
}

#define DEPTH 32

struct io {
	struct place place;
	struct disk *disk;
	struct disk_engine *engine;
	unsigned int ended;
	int result; /* of the last */
};

struct io_request {
	struct disk_request request;
	struct io *io;
};

static void on_done(struct disk_request *request, int result)
{
	struct io *io = container_of(request, struct io_request, request)->io;

	io->ended++;
	io->result = result;
}

/* Each way to get at a disk: where the file is, by what and past what. */
static const struct way {
	const char *above;
	bool uring;
	bool direct;
} ways[] = {
	{ "/dev/shm", false, false }, { "/var/tmp", true, false },
	{ "/var/tmp", false, false }, { "/var/tmp", false, true },
	{ "/var/tmp", true, true },
};

/* Return: false: not to be had on this machine. */
static bool io_init(struct io *io, const struct way *way, uint64_t size)
{
	struct disk_params params = { .id = "disk0", .direct = way->direct };
	struct error err = { "" };
	int rc;

	memset(io, 0, sizeof(*io));
	place_init(&io->place, way->above);
	ck_assert_int_eq(truncate(io->place.image, (off_t)size), 0);
	params.path = io->place.image;
	params.fd = -1;
	/* A descriptor comes without a ring. */
	if (!way->uring)
		params.fd = open(io->place.image, O_RDWR | O_CLOEXEC);
	rc = disk_open(&params, &io->disk, &err);
	if (rc && way->direct) {
		ck_says(err, ",direct");
		place_fini(&io->place);
		return false;
	}
	ck_assert_msg(!rc, "%s", err.text);
	ck_ok(disk_engine_create(io->disk, DEPTH, &io->engine, &ck_err));
	if (way->uring && strcmp(disk_engine_name(io->engine), "io_uring")) {
		disk_engine_free(io->engine);
		disk_close(io->disk);
		place_fini(&io->place);
		return false;
	}
	return true;
}

static void io_fini(struct io *io)
{
	disk_engine_free(io->engine);
	disk_close(io->disk);
	place_fini(&io->place);
}

static void io_wait(struct io *io, unsigned int ended)
{
	struct pollfd poll_fd = { .fd = disk_engine_fd(io->engine),
				  .events = POLLIN };

	disk_engine_kick(io->engine);
	while (io->ended < ended) {
		if (disk_engine_reap(io->engine))
			continue;
		ck_assert_int_ge(poll_fd.fd, 0);
		ck_assert_int_ge(poll(&poll_fd, 1, -1), 0);
	}
}

static int io_do(struct io *io, enum disk_op op, uint64_t offset,
		 const struct iovec *iov, unsigned int niov, uint64_t len)
{
	struct io_request request = { .request = { .op = op,
						   .offset = offset,
						   .len = len,
						   .iov = iov,
						   .niov = niov,
						   .done = on_done },
				      .io = io };
	unsigned int before = io->ended;

	disk_submit(io->engine, &request.request);
	io_wait(io, before + 1);
	return io->result;
}

static int io_one(struct io *io, enum disk_op op, uint64_t offset, void *buf,
		  uint64_t len)
{
	struct iovec iov = { buf, len };

	return io_do(io, op, offset, buf ? &iov : NULL, buf ? 1 : 0, len);
}

#define SECTORS 301

/* A disk and what it should hold. */
struct twin {
	struct io io;
	uint8_t should[SECTORS * DISK_SECTOR];
	uint8_t buf[2 * SECTORS * DISK_SECTOR];
	struct iovec iov[DISK_SEGMENTS_MAX];
	unsigned int niov;
};

/* Segments of any length at any address. */
static void cut(struct twin *twin, uint64_t len)
{
	uint8_t *at = twin->buf + (size_t)(random() % 64);

	twin->niov = 0;
	while (len) {
		uint64_t piece = 1 + (uint64_t)random() % len;

		if (twin->niov == 8 || !(random() % 4))
			piece = len;
		twin->iov[twin->niov++] = (struct iovec){ at, piece };
		at += piece + (size_t)(random() % 16);
		len -= piece;
	}
}

static void twin_write(struct twin *twin, uint64_t offset, uint64_t len)
{
	uint8_t *should = twin->should + offset;

	cut(twin, len);
	for (unsigned int i = 0; i < twin->niov; i++) {
		uint8_t *at = twin->iov[i].iov_base;

		for (size_t j = 0; j < twin->iov[i].iov_len; j++)
			at[j] = *should++ = (uint8_t)random();
	}
	ck_assert_int_eq(io_do(&twin->io, DISK_WRITE, offset, twin->iov,
			       twin->niov, len),
			 0);
}

static void twin_read(struct twin *twin, uint64_t offset, uint64_t len)
{
	const uint8_t *should = twin->should + offset;

	cut(twin, len);
	memset(twin->buf, 0x5a, sizeof(twin->buf));
	ck_assert_int_eq(
		io_do(&twin->io, DISK_READ, offset, twin->iov, twin->niov, len),
		0);
	for (unsigned int i = 0; i < twin->niov; i++) {
		ck_assert_mem_eq(twin->iov[i].iov_base, should,
				 twin->iov[i].iov_len);
		should += twin->iov[i].iov_len;
	}
}

static void twin_step(struct twin *twin)
{
	uint64_t offset = (uint64_t)random() % SECTORS;
	uint64_t len = 1 + (uint64_t)random() % (SECTORS - offset);
	enum disk_op op = (enum disk_op)(random() % 6);

	offset *= DISK_SECTOR;
	len *= DISK_SECTOR;
	switch (op) {
	case DISK_READ:
		twin_read(twin, offset, len);
		return;
	case DISK_WRITE:
		twin_write(twin, offset, len);
		return;
	case DISK_FLUSH:
		offset = len = 0;
		break;
	case DISK_DISCARD:
	case DISK_ZEROES:
	case DISK_UNMAP_ZEROES:
		memset(twin->should + offset, 0, len);
		break;
	}
	ck_assert_int_eq(io_one(&twin->io, op, offset, NULL, len), 0);
	/* What became of it is nobody's business, until it is written. */
	if (op == DISK_DISCARD)
		twin_write(twin, offset, len);
}

static void exercise(const struct way *way, uint32_t block)
{
	struct twin *twin = calloc(1, sizeof(*twin));
	/* The last sector is there in part, so that it needs care. */
	uint64_t size = sizeof(twin->should) - 100;

	ck_assert_ptr_nonnull(twin);
	if (!io_init(&twin->io, way, size)) {
		free(twin);
		return;
	}
	if (block) {
		/* As a disk whose blocks are larger would have it. */
		twin->io.disk->offset_align = block;
		twin->io.disk->memory_align = block;
	}
	for (unsigned int i = 0; i < 100; i++)
		twin_step(twin);
	twin_read(twin, 0, sizeof(twin->should));
	ck_ok(disk_flush(twin->io.disk, &ck_err));
	ck_ok(disk_drop_cache(twin->io.disk, &ck_err));
	twin_read(twin, 0, sizeof(twin->should));
	io_fini(&twin->io);
	free(twin);
}

START_TEST(what_is_written_is_read_back_by_every_way)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		exercise(&ways[i], 0);
}
END_TEST

START_TEST(what_covers_blocks_in_part_leaves_the_rest)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		if (ways[i].direct)
			exercise(&ways[i], 4096);
	}
}
END_TEST

START_TEST(transfers_that_end_early_go_on)
{
	short_by = 1000;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		if (!ways[i].direct)
			exercise(&ways[i], 0);
	}
	ck_assert_uint_gt(shortened, 0);
}
END_TEST

START_TEST(zeroes_are_written_where_nothing_makes_them)
{
	no_fallocate = true;
	exercise(&ways[0], 0);
}
END_TEST

START_TEST(an_error_is_told_and_not_taken_for_zeroes)
{
	uint8_t buf[DISK_SECTOR];

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct io io;

		if (!io_init(&io, &ways[i], 8 * DISK_SECTOR))
			continue;
		/* Somebody has cut it off. */
		ck_assert_int_eq(truncate(io.place.image, 2 * DISK_SECTOR), 0);
		ck_assert_int_eq(io_one(&io, DISK_READ, 0, buf, sizeof(buf)),
				 0);
		ck_assert_int_eq(io_one(&io, DISK_READ, 4 * DISK_SECTOR, buf,
					sizeof(buf)),
				 -EIO);
		io_fini(&io);
	}
}
END_TEST

START_TEST(many_requests_are_in_flight_at_a_time)
{
	static uint8_t data[DEPTH][4096], back[DEPTH][4096];

	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		struct io_request requests[DEPTH];
		struct iovec iov[DEPTH];
		struct io io;

		if (!io_init(&io, &ways[w], DEPTH * 4096))
			continue;
		for (unsigned int pass = 0; pass < 2; pass++) {
			for (unsigned int i = 0; i < DEPTH; i++) {
				if (!pass)
					memset(data[i], (int)i + 1, 4096);
				iov[i] = (struct iovec){ pass ? back[i]
							      : data[i],
							 4096 };
				requests[i] = (struct io_request){
					.request = { .op = pass ? DISK_READ
								: DISK_WRITE,
						     .offset = i * 4096,
						     .len = 4096,
						     .iov = &iov[i],
						     .niov = 1,
						     .done = on_done },
					.io = &io,
				};
				disk_submit(io.engine, &requests[i].request);
			}
			io_wait(&io, DEPTH * (pass + 1));
		}
		ck_assert_mem_eq(data, back, sizeof(data));
		memset(back, 0, sizeof(back));
		io_fini(&io);
	}
}
END_TEST

START_TEST(a_part_of_a_block_waits_for_the_whole_of_it)
{
	uint8_t *block = aligned_alloc(4096, 4096);
	uint8_t part[DISK_SECTOR];

	memset(part, 'b', sizeof(part));
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct iovec iov = { block, 4096 };
		struct io_request whole = { .request = { .op = DISK_WRITE,
							 .len = 4096,
							 .iov = &iov,
							 .niov = 1,
							 .done = on_done } };
		struct io io;

		if (!ways[i].direct || !io_init(&io, &ways[i], 8192))
			continue;
		io.disk->offset_align = 4096;
		whole.io = &io;
		memset(block, 'a', 4096);
		disk_submit(io.engine, &whole.request);
		ck_assert_int_eq(
			io_one(&io, DISK_WRITE, 1024, part, sizeof(part)), 0);
		ck_assert_uint_eq(io.ended, 2);
		ck_assert_int_eq(io_one(&io, DISK_READ, 0, block, 4096), 0);
		ck_assert_int_eq(block[0], 'a');
		ck_assert_mem_eq(block + 1024, part, sizeof(part));
		ck_assert_int_eq(block[1536], 'a');
		io_fini(&io);
	}
	free(block);
}
END_TEST

static uint64_t allocated(const struct io *io)
{
	struct stat stat;

	ck_assert_int_eq(fstat(io->disk->fd, &stat), 0);
	return (uint64_t)stat.st_blocks * 512;
}

START_TEST(a_discard_gives_space_back)
{
	uint8_t *data = malloc(MIB);

	memset(data, 1, MIB);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct io io;

		if (!io_init(&io, &ways[i], MIB))
			continue;
		for (unsigned int unmap = 0; unmap < 2; unmap++) {
			ck_assert_int_eq(io_one(&io, DISK_WRITE, 0, data, MIB),
					 0);
			ck_ok(disk_flush(io.disk, &ck_err));
			ck_assert_uint_ge(allocated(&io), MIB);
			ck_assert_int_eq(
				io_one(&io,
				       unmap ? DISK_UNMAP_ZEROES : DISK_DISCARD,
				       0, NULL, MIB / 2),
				0);
			ck_assert_uint_le(allocated(&io), MIB / 2);
		}
		ck_assert_int_eq(
			io_one(&io, DISK_ZEROES, MIB / 2, NULL, MIB / 2), 0);
		ck_ok(disk_flush(io.disk, &ck_err));
		ck_assert_uint_ge(allocated(&io), MIB / 2);
		io_fini(&io);
	}
	free(data);
}
END_TEST

START_TEST(one_engine_has_the_ring_and_the_next_has_it_after)
{
	struct disk_engine *engine;
	struct disk *again;
	struct io io;

	if (!io_init(&io, &ways[1], MIB))
		return;
	ck_ok(disk_dup(io.disk, false, &again, &ck_err));
	ck_ok(disk_engine_create(again, DEPTH, &engine, &ck_err));
	ck_assert_str_eq(disk_engine_name(engine), "preadv");
	disk_engine_free(engine);
	disk_engine_free(io.engine);
	disk_close(io.disk);
	ck_ok(disk_engine_create(again, DEPTH, &io.engine, &ck_err));
	ck_assert_str_eq(disk_engine_name(io.engine), "io_uring");
	io.disk = again;
	io_fini(&io);
}
END_TEST

#ifdef HAVE_LIBURING
START_TEST(a_ring_does_nothing_but_io_on_its_disk)
{
	struct io_uring_cqe *cqe;
	struct io_uring *ring;
	char byte;
	struct io io;

	if (!io_init(&io, &ways[1], MIB))
		return;
	/* It is the first thing in there. */
	ring = (struct io_uring *)(void *)io.disk->uring;
	for (unsigned int i = 0; i < 3; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		ck_assert_ptr_nonnull(sqe);
		if (i == 0)
			io_uring_prep_read(sqe, io.disk->fd, &byte, 1, 0);
		else if (i == 1)
			io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd",
					     O_RDONLY, 0);
		else
			io_uring_prep_read(sqe, 1, &byte, 1, 0);
		if (i == 2)
			sqe->flags |= IOSQE_FIXED_FILE;
		ck_assert_int_eq(io_uring_submit(ring), 1);
		ck_assert_int_eq(io_uring_wait_cqe(ring, &cqe), 0);
		ck_assert_int_eq(cqe->res, i == 2 ? -EBADF : -EACCES);
		io_uring_cqe_seen(ring, cqe);
	}
	ck_assert_int_lt(
		io_uring_register_files_update(ring, 0, &(int){ 0 }, 1), 0);
	io_fini(&io);
}
END_TEST
#endif

UNIT_SUITE("disk I/O",
#ifdef HAVE_LIBURING
	   a_ring_does_nothing_but_io_on_its_disk,
#endif
	   what_is_written_is_read_back_by_every_way,
	   what_covers_blocks_in_part_leaves_the_rest,
	   transfers_that_end_early_go_on,
	   zeroes_are_written_where_nothing_makes_them,
	   an_error_is_told_and_not_taken_for_zeroes,
	   many_requests_are_in_flight_at_a_time,
	   a_part_of_a_block_waits_for_the_whole_of_it,
	   a_discard_gives_space_back,
	   one_engine_has_the_ring_and_the_next_has_it_after)
