// SPDX-License-Identifier: MIT
/*
 * Records on a socket, and the pages in them: what is cut, flipped, too long,
 * unknown or outside memory is refused; silence and interruption end a wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/pages.h"
#include "tests/unit/unit.h"

#define BYTES_MAX 65536

struct wire_end {
	int fd; /* the raw side */
	struct stream *stream;
};

static struct wire_end open_wire(int interrupt_fd)
{
	struct wire_end wire;
	struct error err;
	int fds[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	ck_assert(!fcntl(fds[0], F_SETFL, O_NONBLOCK));
	wire.fd = fds[1];
	ck_assert(!stream_open(fds[0], interrupt_fd, &wire.stream, &err));
	return wire;
}

static void close_wire(struct wire_end *wire)
{
	stream_close(wire->stream);
	close_fd(&wire->fd);
}

static uint64_t soon(void)
{
	return clock_ns() + 20 * NS_PER_MS;
}

/* Some records of several kinds, as bytes. */
static size_t sample(uint8_t *bytes)
{
	struct wire_round round = { .number = 3 };
	struct wire_section front = { .type = "t", .id = "i", .version = 1 };
	struct wire_end wire = open_wire(-1);
	struct error err;
	ssize_t n;

	ck_assert(!stream_send_struct(wire.stream, WIRE_ROUND, wire_round_visit,
				      &round, soon(), &err));
	ck_assert(!stream_send_section(wire.stream, &front, "state", 5, soon(),
				       &err));
	ck_assert(!stream_send_reason(wire.stream, WIRE_ABORT, 1, "why", soon(),
				      &err));
	ck_assert(
		!stream_send(wire.stream, WIRE_COMMIT, NULL, 0, soon(), &err));
	n = read(wire.fd, bytes, BYTES_MAX);
	ck_assert_int_gt(n, 0);
	close_wire(&wire);
	return (size_t)n;
}

/* Receive all of @bytes; how many records came, and how it ended. */
static unsigned int receive(const uint8_t *bytes, size_t len, int *ret_rc)
{
	struct wire_end wire = open_wire(-1);
	unsigned int records = 0;
	struct record record;
	struct error err;

	ck_assert(!write_full(wire.fd, bytes, len));
	close_fd(&wire.fd);
	while (!(*ret_rc = stream_recv(wire.stream, &record, soon(), &err)))
		records++;
	close_wire(&wire);
	return records;
}

START_TEST(records_come_as_they_were_sent)
{
	static uint8_t bytes[BYTES_MAX];
	size_t len = sample(bytes);
	int rc;

	ck_assert_uint_eq(receive(bytes, len, &rc), 4);
	ck_assert_int_eq(rc, STREAM_ENDED);
}
END_TEST

START_TEST(a_cut_at_any_byte_ends_the_stream_after_whole_records)
{
	static uint8_t bytes[BYTES_MAX];
	size_t len = sample(bytes);
	int rc;

	for (size_t cut = 0; cut < len; cut++) {
		ck_assert_uint_lt(receive(bytes, cut, &rc), 4);
		ck_assert_int_eq(rc, STREAM_ENDED);
	}
}
END_TEST

START_TEST(a_flipped_bit_anywhere_is_found)
{
	static uint8_t bytes[BYTES_MAX];
	size_t len = sample(bytes);
	int rc;

	for (size_t bit = 0; bit < len * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		/* Refused, or it waits for bytes that never come. */
		ck_assert_uint_lt(receive(bytes, len, &rc), 4);
		ck_assert(rc == -EBADMSG || rc == STREAM_ENDED);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}
END_TEST

/* A record with a proper checksum, whatever else it is. */
static size_t forge(uint8_t *bytes, uint32_t type, uint32_t sequence,
		    uint32_t length, const void *payload, size_t covered)
{
	struct wire_header header = { .type = type,
				      .length = length,
				      .sequence = sequence };

	header.crc = crc32c(0, &header, offsetof(struct wire_header, crc));
	header.crc = crc32c(header.crc, payload, covered);
	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), payload, covered);
	return sizeof(header) + covered;
}

START_TEST(headers_that_cannot_be_are_refused_unread)
{
	static const struct {
		uint32_t type;
		uint32_t sequence;
		uint32_t length;
	} bad[] = {
		{ 0x7777, 0, 0 },		       /* unknown, mandatory */
		{ WIRE_COMMIT, 1, 0 },		       /* out of sequence */
		{ WIRE_HELLO, 0, WIRE_SMALL_MAX + 1 }, /* too long */
		{ WIRE_SECTION, 0, UINT32_MAX },
		{ WIRE_PAGES, 0, UINT32_MAX },
		{ WIRE_ZERO, 0, WIRE_RUNS_BYTES_MAX + 1 },
		{ WIRE_EXPECT, 0, WIRE_RUNS_BYTES_MAX + 1 },
		{ 0x80000777, 0, WIRE_SMALL_MAX + 1 }, /* optional, too long */
	};
	uint8_t bytes[64];
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		size_t len = forge(bytes, bad[i].type, bad[i].sequence,
				   bad[i].length, "", 0);

		ck_assert_uint_eq(receive(bytes, len, &rc), 0);
		ck_assert_int_eq(rc, -EBADMSG);
	}
}
END_TEST

START_TEST(a_record_that_was_damaged_is_called_that)
{
	struct wire_end wire = open_wire(-1);
	struct record record;
	struct error err;
	uint8_t bytes[64];
	size_t len = forge(bytes, WIRE_COMMIT, 0, 0, "", 0);

	bytes[len - 1] ^= 1;
	ck_assert(!write_full(wire.fd, bytes, len));
	ck_assert_int_eq(stream_recv(wire.stream, &record, soon(), &err),
			 -EBADMSG);
	ck_assert_msg(strstr(err.text, "record 0 arrived damaged") != NULL,
		      "%s", err.text);
	close_wire(&wire);
}
END_TEST

START_TEST(unknown_optional_records_are_skipped)
{
	uint8_t bytes[128];
	size_t len = forge(bytes, 0x80000777, 0, 5, "hello", 5);
	int rc;

	len += forge(bytes + len, WIRE_COMMIT, 1, 0, "", 0);
	ck_assert_uint_eq(receive(bytes, len, &rc), 1);
	ck_assert_int_eq(rc, STREAM_ENDED);
}
END_TEST

START_TEST(a_peer_that_says_nothing_runs_into_the_deadline)
{
	struct wire_end wire = open_wire(-1);
	struct record record;
	struct error err;

	ck_assert_int_eq(stream_recv(wire.stream, &record, soon(), &err),
			 STREAM_DEADLINE);
	ck_assert(!write_full(wire.fd, "half a hea", 10));
	ck_assert_int_eq(stream_recv(wire.stream, &record, soon(), &err),
			 STREAM_DEADLINE);
	close_wire(&wire);
}
END_TEST

START_TEST(an_interrupt_ends_a_wait)
{
	int interrupt_fd = eventfd(1, EFD_CLOEXEC);
	struct wire_end wire = open_wire(interrupt_fd);
	struct record record;
	struct error err;

	ck_assert_int_eq(
		stream_recv(wire.stream, &record, STREAM_NO_DEADLINE, &err),
		STREAM_CANCELLED);
	close_wire(&wire);
	close(interrupt_fd);
}
END_TEST

/* The peer takes nothing until the sender has given up. */
START_TEST(a_record_that_went_out_in_part_is_the_last)
{
	static uint8_t much[WIRE_IMAGE_MAX / 2];
	struct wire_end wire = open_wire(-1);
	uint64_t whole;
	struct error err;
	int rc;

	do {
		whole = wire.stream->bytes_sent;
		rc = stream_send_image(wire.stream, 0, much, sizeof(much),
				       soon(), &err);
	} while (!rc);
	ck_assert_int_eq(rc, STREAM_DEADLINE);
	ck_assert_uint_gt(wire.stream->bytes_sent, whole);
	while (recv(wire.fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		continue;
	ck_assert_int_eq(stream_send_reason(wire.stream, WIRE_ABORT, 1, "why",
					    soon(), &err),
			 STREAM_ENDED);
	ck_assert_int_lt(recv(wire.fd, much, 1, MSG_DONTWAIT), 0);
	close_wire(&wire);
}
END_TEST

/* ---- pages ---- */

static int take(struct memory *mem, uint32_t type, const void *payload,
		size_t covered, uint32_t length, const void *data,
		size_t data_len)
{
	static uint8_t bytes[BYTES_MAX];
	struct wire_end wire = open_wire(-1);
	struct page_receiver *receiver;
	struct populate *populate;
	struct record record;
	struct error err;
	size_t len = forge(bytes, type, 0, length, payload, covered);
	int rc;

	memcpy(bytes + len, data, data_len);
	ck_assert(!write_full(wire.fd, bytes, len + data_len));
	close_fd(&wire.fd);
	ck_assert(!populate_create(mem, &populate, &err));
	ck_assert(!page_receiver_create(mem, populate, &receiver, &err));
	rc = stream_recv(wire.stream, &record, soon(), &err);
	if (!rc)
		rc = page_receiver_take(receiver, wire.stream, &record, soon(),
					&err);
	page_receiver_free(receiver);
	populate_free(populate);
	close_wire(&wire);
	return rc;
}

struct runs {
	struct wire_runs_header front;
	struct wire_run run[2];
};

/* What may wait does, in its place, and what doesn't fit goes after it. */
START_TEST(gathered_records_go_out_together_and_in_order)
{
	static uint8_t big[100 * KIB], bytes[2 * BYTES_MAX];
	struct wire_end wire = open_wire(-1);
	struct record record;
	struct stream *other;
	struct error err;
	ssize_t n;
	int fds[2];

	stream_gather(wire.stream, true);
	ck_assert(
		!stream_send(wire.stream, WIRE_PAUSED, NULL, 0, soon(), &err));
	ck_assert(!stream_send(wire.stream, WIRE_PING, NULL, 0, soon(), &err));
	ck_assert_int_eq(recv(wire.fd, bytes, sizeof(bytes), MSG_DONTWAIT), -1);
	ck_assert(!stream_send(wire.stream, WIRE_CONFIG, big, sizeof(big),
			       soon(), &err));
	ck_assert(!stream_send(wire.stream, WIRE_PONG, NULL, 0, soon(), &err));
	ck_assert(!stream_gathered(wire.stream, soon(), &err));
	ck_assert(
		!stream_send(wire.stream, WIRE_COMMIT, NULL, 0, soon(), &err));
	n = recv(wire.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	ck_assert_int_eq(n, 5 * sizeof(struct wire_header) + sizeof(big));
	ck_assert_uint_eq(wire.stream->bytes_sent, (uint64_t)n);

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	ck_assert(!fcntl(fds[0], F_SETFL, O_NONBLOCK));
	ck_assert(!stream_open(fds[0], -1, &other, &err));
	ck_assert(!write_full(fds[1], bytes, (size_t)n));
	for (size_t i = 0; i < 5; i++) {
		static const uint32_t types[] = { WIRE_PAUSED, WIRE_PING,
						  WIRE_CONFIG, WIRE_PONG,
						  WIRE_COMMIT };

		ck_assert(!stream_recv(other, &record, soon(), &err));
		ck_assert_uint_eq(record.type, types[i]);
	}
	stream_close(other);
	close_fd(&fds[1]);
	close_wire(&wire);
}
END_TEST

/* It must be the one that goes out without another to follow. */
START_TEST(a_last_record_without_room_waits_until_all_is_gathered)
{
	static uint8_t big[64 * KIB - sizeof(struct wire_header)];
	static uint8_t bytes[BYTES_MAX];
	struct wire_end wire = open_wire(-1);
	struct error err;

	stream_gather(wire.stream, true);
	ck_assert(!stream_send(wire.stream, WIRE_CONFIG, big, sizeof(big),
			       soon(), &err));
	ck_assert_uint_eq(wire.stream->bytes_sent, 0);
	ck_assert(!stream_send(wire.stream, WIRE_PONG, NULL, 0, soon(), &err));
	ck_assert_uint_eq(wire.stream->bytes_sent, 64 * KIB);
	ck_assert_int_eq(recv(wire.fd, bytes, sizeof(bytes), MSG_DONTWAIT),
			 64 * KIB);
	ck_assert(!stream_gathered(wire.stream, soon(), &err));
	ck_assert_int_eq(recv(wire.fd, bytes, sizeof(bytes), MSG_DONTWAIT),
			 sizeof(struct wire_header));
	close_wire(&wire);
}
END_TEST

START_TEST(pages_land_where_they_belong_and_nowhere_else)
{
	struct runs runs = { { 2, 2 }, { { 0x3000, 1, 0 }, { 0x8000, 1, 0 } } };
	static uint8_t data[2 * GUEST_PAGE_SIZE];
	struct memory *mem;
	struct error err;

	memset(data, 0x5a, GUEST_PAGE_SIZE);
	memset(data + GUEST_PAGE_SIZE, 0xa5, GUEST_PAGE_SIZE);
	ck_assert(!memory_create(MEMORY_MIN, true, &mem, &err));
	ck_assert(!take(mem, WIRE_PAGES, &runs, sizeof(runs),
			sizeof(runs) + sizeof(data), data, sizeof(data)));
	ck_assert(!memcmp(memory_hva(mem, 0x3000, GUEST_PAGE_SIZE), data,
			  GUEST_PAGE_SIZE));
	ck_assert(!memcmp(memory_hva(mem, 0x8000, GUEST_PAGE_SIZE),
			  data + GUEST_PAGE_SIZE, GUEST_PAGE_SIZE));
	for (uint64_t page = 0; page < mem->npages; page++) {
		const uint8_t *at = memory_page_hva(mem, page);

		ck_assert(page == 3 || page == 8 || (!at[0] && !at[4095]));
	}
	memory_free(mem);
}
END_TEST

START_TEST(runs_outside_memory_are_refused_before_anything_is_written)
{
	static const struct runs bad[] = {
		{ { 1, 1 }, { { MEMORY_MIN, 1, 0 } } },
		{ { 1, 1 }, { { 0xfffffffffffff000, 1, 0 } } },
		{ { 1, 2 }, { { MEMORY_MIN - 0x1000, 2, 0 } } },
		{ { 1, 1 }, { { ARCH_HOLE_START, 1, 0 } } },
		{ { 1, 1 }, { { 0x1001, 1, 0 } } },	     /* unaligned */
		{ { 1, 1 }, { { 0x1000, 1, 7 } } },	     /* reserved */
		{ { 1, 0 }, { { 0x1000, 0, 0 } } },	     /* empty */
		{ { 1, 1 }, { { 0x1000, UINT32_MAX, 0 } } }, /* too many */
		{ { 1, 5 }, { { 0x1000, 1, 0 } } },	     /* miscounted */
	};
	struct memory *mem;
	struct error err;

	ck_assert(!memory_create(MEMORY_MIN, true, &mem, &err));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		static const uint8_t data[5 * GUEST_PAGE_SIZE] = { 1 };
		size_t covered = sizeof(bad[i].front) + sizeof(bad[i].run[0]);
		size_t pages = bad[i].front.npages * GUEST_PAGE_SIZE;

		ck_assert_int_eq(take(mem, WIRE_PAGES, &bad[i], covered,
				      (uint32_t)(covered + pages), data, pages),
				 -EBADMSG);
		ck_assert_int_eq(take(mem, WIRE_ZERO, &bad[i], covered,
				      (uint32_t)covered, data, 0),
				 -EBADMSG);
		ck_assert_int_eq(take(mem, WIRE_EXPECT, &bad[i], covered,
				      (uint32_t)covered, data, 0),
				 -EBADMSG);
	}
	ck_assert_uint_eq(*(uint64_t *)memory_hva(mem, 0x1000, 8), 0);
	memory_free(mem);
}
END_TEST

UNIT_SUITE("stream", records_come_as_they_were_sent,
	   a_cut_at_any_byte_ends_the_stream_after_whole_records,
	   a_flipped_bit_anywhere_is_found,
	   headers_that_cannot_be_are_refused_unread,
	   a_record_that_was_damaged_is_called_that,
	   unknown_optional_records_are_skipped,
	   a_peer_that_says_nothing_runs_into_the_deadline,
	   an_interrupt_ends_a_wait, a_record_that_went_out_in_part_is_the_last,
	   gathered_records_go_out_together_and_in_order,
	   a_last_record_without_room_waits_until_all_is_gathered,
	   pages_land_where_they_belong_and_nowhere_else,
	   runs_outside_memory_are_refused_before_anything_is_written)
