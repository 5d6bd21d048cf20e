/* SPDX-License-Identifier: MIT */
/*
 * One end of a connection as a sequence of records (FORMAT.md): framing,
 * sequence numbers, checksums, length caps, deadlines. Knows record types and
 * their limits, and nothing of what they mean.
 *
 * All waiting is in poll(), on the socket and on an interrupt descriptor, and
 * every wait has a deadline. After any error but a deadline that passed before
 * the first byte of a record, the stream is broken and stays so. A record that
 * went out in part is the last one: what came after it would be taken for the
 * rest of it. One that failed before its first byte was never sent.
 *
 * Page data is not copied on our side: it is sent from guest memory by one
 * gathering write and received into it by one scattering read. Only the last
 * few pages of a pause may wait in a buffer, with the state that follows.
 *
 * Threads: a stream belongs to one thread.
 */
#ifndef GODWIT_STREAM_H
#define GODWIT_STREAM_H

#include <sys/uio.h>

#include "migration/wire.h"
#include "vmm/memory.h"

/* Errors with a meaning of their own, beside plain -errno. */
#define STREAM_ENDED	 (-ECONNRESET) /* the peer closed */
#define STREAM_CANCELLED (-ECANCELED)  /* the interrupt descriptor */
#define STREAM_DEADLINE	 (-ETIMEDOUT)

#define STREAM_NO_DEADLINE UINT64_MAX

struct stream {
	int fd;		  /* owned */
	int interrupt_fd; /* borrowed, or -1 */
	bool torn;	  /* a record went out in part: nothing more is sent */
	bool gather;	  /* more follows at once: see stream_gather() */
	uint32_t send_sequence;
	uint32_t recv_sequence;
	uint64_t bytes_sent;
	uint64_t bytes_received;
	uint8_t *in; /* received and not taken yet: [in_start, in_end) */
	size_t in_start;
	size_t in_end;
	uint8_t *payload;	/* of the last record */
	size_t data_left;	/* of PAGES: page bytes still to be received */
	struct buffer scratch;	/* encoded payloads on their way out */
	struct buffer gathered; /* whole records that wait for others */
};

struct record {
	uint32_t type;
	uint32_t length; /* of @payload: for PAGES without the page data */
	const uint8_t *payload; /* valid until the next receive */
};

/**
 * stream_open() - take over a connected socket.
 * @fd: owned by the stream from here on, also on failure.
 */
int __must_check stream_open(int fd, int interrupt_fd, struct stream **ret,
			     struct error *err);

/**
 * stream_close() - shut down and free; NULL is fine.
 */
void stream_close(struct stream *s);

/**
 * stream_gather() - from here on records follow one another at once: those that
 * are small may wait for each other, and all go out in as few packets as can
 * be. Until stream_gathered(), which must come before anything is received.
 * @on: false ends it without that: what waits goes before the next record.
 */
void stream_gather(struct stream *s, bool on);

/**
 * stream_gathered() - send what still waits, now. The last record was small.
 */
int __must_check stream_gathered(struct stream *s, uint64_t deadline_ns,
				 struct error *err);

/**
 * stream_send() - send a record whose payload is @len bytes at @payload.
 * @deadline_ns: of clock_ns(), for the whole record.
 */
int __must_check stream_send(struct stream *s, enum wire_type type,
			     const void *payload, size_t len,
			     uint64_t deadline_ns, struct error *err);

/**
 * stream_send_section() - a SECTION: its front, then @len bytes of state.
 */
int __must_check stream_send_section(struct stream *s,
				     const struct wire_section *front,
				     const void *data, size_t len,
				     uint64_t deadline_ns, struct error *err);

/**
 * stream_send_image() - an IMAGE: a piece of the boot image at @offset.
 */
int __must_check stream_send_image(struct stream *s, uint64_t offset,
				   const void *data, size_t len,
				   uint64_t deadline_ns, struct error *err);

/**
 * stream_send_reason() - ABORT, REFUSE or NACK with a text for the peer.
 */
int __must_check stream_send_reason(struct stream *s, enum wire_type type,
				    uint32_t code, const char *text,
				    uint64_t deadline_ns, struct error *err);

/**
 * stream_send_runs() - a ZERO or EXPECT record, or a PAGES record with the
 * pages' bytes straight from guest memory.
 * @runs: up to WIRE_RUNS_MAX, all inside @mem; for PAGES together at most
 *        WIRE_PAGES_PER_BATCH pages.
 */
int __must_check stream_send_runs(struct stream *s, enum wire_type type,
				  const struct memory *mem,
				  const struct wire_run *runs, uint32_t nruns,
				  uint64_t deadline_ns, struct error *err);

/**
 * stream_recv() - wait for the next record that this build knows.
 *
 * Optional records of unknown type are skipped. For PAGES only the runs are
 * received; stream_recv_data() must follow, for all of the data.
 *
 * Return: 0, STREAM_ENDED, STREAM_CANCELLED, STREAM_DEADLINE, or -EBADMSG for
 * what is not a proper record.
 */
int __must_check stream_recv(struct stream *s, struct record *ret,
			     uint64_t deadline_ns, struct error *err);

/**
 * stream_try_recv() - as stream_recv(), without waiting.
 *
 * Return: also -EAGAIN: not all there yet.
 */
int __must_check stream_try_recv(struct stream *s, struct record *ret,
				 struct error *err);

/**
 * stream_recv_data() - page data, scattered to @niov pieces of memory.
 * @iov: together at most what the last PAGES record has left; changed.
 */
int __must_check stream_recv_data(struct stream *s, struct iovec *iov,
				  size_t niov, uint64_t deadline_ns,
				  struct error *err);

/**
 * stream_unexpected() - the error for a record that has no place here.
 *
 * Return: -EPROTO.
 */
int stream_unexpected(const struct record *record, const char *instead_of,
		      struct error *err);

/*
 * Encode a struct by its visit function and send it; decode a record's whole
 * payload into a struct. Type-checked by the visit function's prototype.
 */
#define stream_send_struct(s, type, visit, value, deadline_ns, err)            \
	({                                                                     \
		struct codec send_codec;                                       \
		(s)->scratch.len = 0;                                          \
		codec_init_save(&send_codec, &(s)->scratch, WIRE_VERSION_MAX); \
		visit(&send_codec, (value));                                   \
		stream_send_encoded((s), (type), &send_codec, (deadline_ns),   \
				    (err));                                    \
	})

#define stream_decode(record, visit, value, err)                     \
	({                                                           \
		struct codec recv_codec;                             \
		codec_init_load(&recv_codec, (record)->payload,      \
				(record)->length, WIRE_VERSION_MAX); \
		visit(&recv_codec, (value));                         \
		stream_decoded(&recv_codec, (record), (err));        \
	})

/* As stream_decode(), for a struct that is followed by other bytes. */
#define stream_decode_front(record, visit, value, ret_rest, ret_len, err) \
	({                                                                \
		struct codec recv_codec;                                  \
		codec_init_load(&recv_codec, (record)->payload,           \
				(record)->length, WIRE_VERSION_MAX);      \
		visit(&recv_codec, (value));                              \
		stream_decoded_front(&recv_codec, (record), (ret_rest),   \
				     (ret_len), (err));                   \
	})

int __must_check stream_send_encoded(struct stream *s, enum wire_type type,
				     struct codec *c, uint64_t deadline_ns,
				     struct error *err);
int __must_check stream_decoded(struct codec *c, const struct record *record,
				struct error *err);
int __must_check stream_decoded_front(struct codec *c,
				      const struct record *record,
				      const uint8_t **ret_rest, size_t *ret_len,
				      struct error *err);

#endif
