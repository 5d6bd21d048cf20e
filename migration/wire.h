/* SPDX-License-Identifier: MIT */
/*
 * The stream as bytes: record types, layouts and limits. FORMAT.md is the
 * specification; this is its C face and holds nothing live.
 *
 * Both directions of a connection are sequences of records: a header, then a
 * payload. All numbers are little-endian. Payloads other than of runs
 * are codec structs (codec.h): unpadded fields in order.
 */
#ifndef GODWIT_WIRE_H
#define GODWIT_WIRE_H

#include "devices/device.h"
#include "migration/codec.h"
#include "vmm/machine.h"

#define WIRE_MAGIC	 0x0a0d544957444f47ULL /* "GODWIT\r\n" */
#define WIRE_VERSION_MIN 1
#define WIRE_VERSION_MAX 1

#define WIRE_SESSION_SIZE 16
#define WIRE_SESSION_TEXT (2 * WIRE_SESSION_SIZE + 1)
#define WIRE_TEXT_MAX	  1000

/* A reader skips an unknown record with this bit and refuses one without. */
#define WIRE_OPTIONAL 0x80000000u

enum wire_type {
	/* source → target */
	WIRE_HELLO = 0x01,
	WIRE_CONFIG = 0x02,
	WIRE_IMAGE = 0x03,
	WIRE_REHEARSE = 0x04,
	WIRE_SECTION = 0x05,
	WIRE_STATE_END = 0x06,
	WIRE_ROUND = 0x07,
	WIRE_PAGES = 0x08,
	WIRE_ZERO = 0x09,
	WIRE_ROUND_END = 0x0a,
	WIRE_PAUSED = 0x0b,
	WIRE_COMMIT = 0x0c,
	WIRE_ABORT = 0x0d,
	WIRE_PING = 0x0e,
	WIRE_QUERY = 0x0f,
	WIRE_DONE = 0x10,
	WIRE_EXPECT = 0x11,
	WIRE_DIGEST = 0x12,
	WIRE_STATE_DIGEST = 0x13,
	/* target → source */
	WIRE_WELCOME = 0x41,
	WIRE_ACCEPT = 0x42,
	WIRE_REHEARSED = 0x43,
	WIRE_ROUND_ACK = 0x44,
	WIRE_LOADED = 0x45,
	WIRE_RUNNING = 0x46,
	WIRE_NACK = 0x47,
	WIRE_REFUSE = 0x48,
	WIRE_PONG = 0x49,
	WIRE_VERDICT = 0x4a,
};

/*
 * In front of every payload. @crc is CRC32C over the first 12 bytes of the
 * header and the payload; in a PAGES record the page data, which the guest may
 * be changing while it is sent, is left out.
 */
struct wire_header {
	uint32_t type;
	uint32_t length;   /* of the payload, bytes */
	uint32_t sequence; /* counts records in this direction from 0 */
	uint32_t crc;
};
_Static_assert(sizeof(struct wire_header) == 16, "header is 16 bytes");

/*
 * PAGES, ZERO and EXPECT begin with a count and that many runs; a run is
 * contiguous guest memory inside RAM. In PAGES the pages' bytes follow, in
 * order of runs.
 */
struct wire_run {
	uint64_t gpa;	   /* of the first page, page aligned */
	uint32_t npages;   /* at least 1 */
	uint32_t reserved; /* 0 */
};
_Static_assert(sizeof(struct wire_run) == 16, "run is 16 bytes");

struct wire_runs_header {
	uint32_t nruns;
	uint32_t npages; /* of all runs together */
};
_Static_assert(sizeof(struct wire_runs_header) == 8, "runs header is 8 bytes");

#define WIRE_RUNS_MAX	     512
#define WIRE_PAGES_PER_BATCH 512 /* pages of data in one PAGES record */

/* Largest payload of each kind of record; a longer one is refused unread. */
#define WIRE_SMALL_MAX	 (4 * KIB)
#define WIRE_CONFIG_MAX	 (128 * KIB)
#define WIRE_IMAGE_MAX	 (256 * KIB)
#define WIRE_SECTION_MAX (1 * MIB + 4 * KIB)
#define WIRE_RUNS_BYTES_MAX                \
	(sizeof(struct wire_runs_header) + \
	 WIRE_RUNS_MAX * sizeof(struct wire_run))
#define WIRE_PAGES_MAX \
	(WIRE_RUNS_BYTES_MAX + WIRE_PAGES_PER_BATCH * GUEST_PAGE_SIZE)

/* HELLO and QUERY keep this layout in every version of the format. */
struct wire_hello {
	uint64_t magic;
	uint16_t version_min;
	uint16_t version_max;
	uint32_t capabilities; /* bits: WIRE_CAP_… */
	uint8_t session[WIRE_SESSION_SIZE];
	uint32_t commit_deadline_ms;  /* LOADED to COMMIT, at the target */
	uint32_t silence_deadline_ms; /* no record for so long: peer is gone */
	char software[32];	      /* "godwit 0.1.0", for people */
};

/* Memory and state are digested at both ends before the state is loaded. */
#define WIRE_CAP_VERIFY 1u

/* The guest will not come: a dry run, that ends before PAUSED. */
#define WIRE_CAP_DRY_RUN 2u

#define WIRE_CAPS_KNOWN (WIRE_CAP_VERIFY | WIRE_CAP_DRY_RUN)

struct wire_welcome {
	uint64_t magic;
	uint16_t version;      /* the one that is spoken from here on */
	uint32_t capabilities; /* those of HELLO that will be used */
	uint8_t session[WIRE_SESSION_SIZE];
	char software[32];
};

struct wire_range {
	uint64_t gpa;
	uint64_t size;
};

/* Which file or device a disk is there: with the host, which page cache. */
struct wire_disk {
	char id[DEVICE_ID_MAX];
	uint64_t dev;
	uint64_t ino;
};

struct wire_config {
	struct machine machine;
	uint32_t page_size; /* 4096 */
	uint32_t nranges;
	struct wire_range ranges[MEMORY_REGIONS_MAX];
	uint64_t kernel_size; /* bytes of IMAGE that are the kernel */
	uint64_t initrd_size; /* and those that are the initrd, after it */
	uint8_t host[DEVICE_HOST_SIZE]; /* the source's kernel; 0: unknown */
	uint32_t ndisks;
	struct wire_disk disks[MACHINE_DEVICES_MAX];
};

/* A piece of the boot image, in order, without gaps: kernel, then initrd. */
struct wire_image {
	uint64_t offset;
	/* the rest of the payload is data */
};

struct wire_round {
	uint32_t number; /* from 0 */
};

struct wire_round_end {
	uint32_t number;
	uint64_t pages; /* sent in this round, zero ones included */
};

struct wire_accept {
	uint64_t build_ns; /* how long making the machine took */
};

/* Steps of a load, as the target measured them; nanoseconds. */
struct wire_load_times {
	uint64_t decode_ns;
	uint64_t check_ns;
	uint64_t load_ns;
};

struct wire_running {
	uint64_t resume_ns; /* COMMIT read to the last vCPU let go */
};

enum wire_abort {
	WIRE_ABORT_CANCELLED = 1,
	WIRE_ABORT_FAILED = 2,
	WIRE_ABORT_REHEARSED = 3, /* nothing more was wanted */
};

struct wire_reason {
	uint32_t code;		  /* enum wire_abort in ABORT, else 0 */
	char text[WIRE_TEXT_MAX]; /* for the user of the other side */
};

enum wire_verdict_kind {
	WIRE_VERDICT_RUNNING =
		1,		/* the guest runs, or has run, at the target */
	WIRE_VERDICT_NEVER = 2, /* it never ran there and never will */
	WIRE_VERDICT_UNKNOWN = 3, /* this listener knows no such session */
};

struct wire_verdict {
	uint8_t session[WIRE_SESSION_SIZE];
	uint32_t kind;
};

struct wire_state_end {
	uint32_t nsections;
};

#define WIRE_DIGESTS_MAX 512

/* CRC32C of chunks of memory (digest.h), or of the states of sections. */
struct wire_digest {
	uint32_t first; /* DIGEST: the number of the first chunk */
	uint32_t n;
	uint32_t crcs[WIRE_DIGESTS_MAX];
};

/* Front of a SECTION; the visited fields follow as the rest of the payload. */
struct wire_section {
	char type[DEVICE_TYPE_MAX];
	char id[DEVICE_ID_MAX];
	uint32_t version;
};

void wire_hello_visit(struct codec *c, struct wire_hello *hello);
void wire_welcome_visit(struct codec *c, struct wire_welcome *welcome);
void wire_config_visit(struct codec *c, struct wire_config *config);
void wire_image_visit(struct codec *c, struct wire_image *image);
void wire_round_visit(struct codec *c, struct wire_round *round);
void wire_round_end_visit(struct codec *c, struct wire_round_end *end);
void wire_accept_visit(struct codec *c, struct wire_accept *accept);
void wire_load_times_visit(struct codec *c, struct wire_load_times *times);
void wire_running_visit(struct codec *c, struct wire_running *running);
void wire_reason_visit(struct codec *c, struct wire_reason *reason);
void wire_verdict_visit(struct codec *c, struct wire_verdict *verdict);
void wire_state_end_visit(struct codec *c, struct wire_state_end *end);
void wire_digest_visit(struct codec *c, struct wire_digest *digest);
void wire_state_digest_visit(struct codec *c, struct wire_digest *digest);
void wire_section_visit(struct codec *c, struct wire_section *section);

/**
 * wire_type_name() - "HELLO", …; "record 0x…" is the caller's for unknown
 * ones, for which this gives NULL.
 */
const char *wire_type_name(uint32_t type);

/**
 * wire_session_text() - a session as both sides' logs name it
 * @session: it
 * @ret: gets hexadecimal digits and a NUL
 *
 * Return: @ret.
 */
const char *wire_session_text(const uint8_t session[WIRE_SESSION_SIZE],
			      char ret[WIRE_SESSION_TEXT]);

/**
 * wire_payload_max() - the largest payload of a known type; 0 for unknown
 * mandatory ones.
 */
uint32_t wire_payload_max(uint32_t type);

#endif
