// SPDX-License-Identifier: MIT
/*
 * Whatever a peer may send as bytes: framing, every record's payload, and
 * pages into a small guest's memory. So that inputs get past the checksum, the
 * fuzzer's records are given their sequence numbers and checksums here; one
 * bit of the input says to leave them wrong.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/pages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 65536

static void decode(const struct record *record)
{
	static struct wire_config config;
	struct wire_hello hello = { 0 };
	struct wire_welcome welcome = { 0 };
	struct wire_reason reason = { 0 };
	struct wire_verdict verdict = { 0 };
	struct wire_digest digest = { 0 };
	struct wire_section section = { 0 };
	const uint8_t *rest;
	struct error err;
	size_t len;

	switch (record->type) {
	case WIRE_HELLO:
	case WIRE_QUERY:
		(void)!stream_decode(record, wire_hello_visit, &hello, &err);
		break;
	case WIRE_WELCOME:
		(void)!stream_decode(record, wire_welcome_visit, &welcome,
				     &err);
		break;
	case WIRE_CONFIG:
		if (!stream_decode(record, wire_config_visit, &config, &err))
			(void)!machine_check(&config.machine, &err);
		break;
	case WIRE_SECTION:
		(void)!stream_decode_front(record, wire_section_visit, &section,
					   &rest, &len, &err);
		break;
	case WIRE_DIGEST:
		(void)!stream_decode(record, wire_digest_visit, &digest, &err);
		break;
	case WIRE_STATE_DIGEST:
		(void)!stream_decode(record, wire_state_digest_visit, &digest,
				     &err);
		break;
	case WIRE_VERDICT:
		(void)!stream_decode(record, wire_verdict_visit, &verdict,
				     &err);
		break;
	default:
		(void)!stream_decode(record, wire_reason_visit, &reason, &err);
		break;
	}
}

/* Make proper records of the input: sequence and checksum as they should be. */
static void seal(uint8_t *data, size_t size)
{
	struct wire_header header;
	uint32_t sequence = 0;

	while (size >= sizeof(header)) {
		size_t covered;

		memcpy(&header, data, sizeof(header));
		header.sequence = sequence++;
		header.length %= 8192;
		covered = header.length;
		if (header.type == WIRE_PAGES && header.length >= 8) {
			uint32_t nruns;

			memcpy(&nruns, data + sizeof(header),
			       size >= sizeof(header) + 4 ? 4 : 0);
			covered = 8 + (size_t)(nruns % 512) * 16;
		}
		header.crc = crc32c(0, &header, 12);
		if (covered <= size - sizeof(header))
			header.crc = crc32c(header.crc, data + sizeof(header),
					    covered);
		memcpy(data, &header, sizeof(header));
		data += sizeof(header);
		size -= sizeof(header);
		if (header.length > size)
			return;
		data += header.length;
		size -= header.length;
	}
}

static void feed(struct stream *stream, struct memory *mem)
{
	struct page_receiver *receiver = NULL;
	struct populate *populate;
	struct record record;
	struct error err;
	int rc = populate_create(mem, &populate, &err);

	if (!rc)
		rc = page_receiver_create(mem, populate, &receiver, &err);
	while (!rc) {
		rc = stream_recv(stream, &record, clock_ns() + NS_PER_S, &err);
		if (rc)
			break;
		if (record.type == WIRE_PAGES || record.type == WIRE_ZERO ||
		    record.type == WIRE_EXPECT)
			rc = page_receiver_take(receiver, stream, &record,
						clock_ns() + NS_PER_S, &err);
		else
			decode(&record);
	}
	page_receiver_free(receiver);
	populate_free(populate);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t copy[INPUT_MAX];
	struct memory *mem;
	struct stream *stream;
	struct error err;
	int fds[2];

	if (!size || size > INPUT_MAX ||
	    memory_create(MEMORY_MIN, false, &mem, &err))
		return 0;
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		seal(copy, size - 1);
	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds)) {
		(void)!write(fds[1], copy, size - 1);
		close(fds[1]);
		if (!stream_open(fds[0], -1, &stream, &err)) {
			feed(stream, mem);
			stream_close(stream);
		}
	}
	memory_free(mem);
	return 0;
}
