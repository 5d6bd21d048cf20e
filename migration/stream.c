// SPDX-License-Identifier: MIT
/*
 * Records on a socket; see stream.h.
 *
 * Receiving: bytes land in one buffer, in which a record is parsed in place
 * once it is all there. Only little more is read than the record needs, so
 * that page data, which follows the runs of a PAGES record, goes from the
 * socket to guest memory without a stop in the buffer.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/stream.h"

#define IN_SLACK 4096
#define IN_CAP	 (sizeof(struct wire_header) + WIRE_SECTION_MAX + IN_SLACK)

/* The state of a VM without many vCPUs. */
#define GATHERED_MAX (64 * KIB)

/* Bytes of the header that its checksum covers. */
#define HEADER_CHECKED offsetof(struct wire_header, crc)

int stream_open(int fd, int interrupt_fd, struct stream **ret,
		struct error *err)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (s)
		s->in = malloc(IN_CAP);
	if (!s || !s->in || buffer_reserve(&s->scratch, WIRE_CONFIG_MAX) ||
	    buffer_reserve(&s->gathered, GATHERED_MAX)) {
		close(fd);
		if (s) {
			s->fd = -1;
			stream_close(s);
		}
		return error_set(err, -ENOMEM, "stream: out of memory");
	}
	s->fd = fd;
	s->interrupt_fd = interrupt_fd;
	*ret = s;
	return 0;
}

void stream_close(struct stream *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		shutdown(s->fd, SHUT_RDWR);
	close_fd(&s->fd);
	buffer_free(&s->scratch);
	buffer_free(&s->gathered);
	free(s->in);
	free(s);
}

/* ---- waiting ---- */

static int ended(int code, struct error *err)
{
	if (code == -EPIPE || code == -ECONNRESET)
		return error_set(err, STREAM_ENDED,
				 "the peer closed the connection");
	return error_set(err, code, "connection: %s", strerror(-code));
}

/* Milliseconds for poll(), rounded up so that a deadline is never early. */
static int poll_timeout(uint64_t deadline_ns)
{
	uint64_t now = clock_ns();

	if (deadline_ns == STREAM_NO_DEADLINE)
		return -1;
	if (now >= deadline_ns)
		return 0;
	return (int)MIN(div_round_up(deadline_ns - now, NS_PER_MS), 1U << 30);
}

static int wait_ready(struct stream *s, short events, uint64_t deadline_ns,
		      struct error *err)
{
	struct pollfd fds[] = { { .fd = s->fd, .events = events },
				{ .fd = s->interrupt_fd, .events = POLLIN } };
	int n;

	do {
		n = poll(fds, ARRAY_SIZE(fds), poll_timeout(deadline_ns));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return ended(-errno, err);
	if (n == 0)
		return error_set(err, STREAM_DEADLINE,
				 "the peer does not answer in time");
	if (fds[1].revents)
		return error_set(err, STREAM_CANCELLED, "cancelled");
	return 0;
}

/* ---- sending ---- */

/* Drop the first @n bytes of what is to be sent. */
static void consume(struct msghdr *msg, size_t n)
{
	while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
		n -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen) {
		msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + n;
		msg->msg_iov->iov_len -= n;
	}
}

static int send_all(struct stream *s, struct iovec *iov, size_t niov,
		    uint64_t deadline_ns, struct error *err)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = niov };
	int flags = MSG_NOSIGNAL | (s->gather ? MSG_MORE : 0);

	consume(&msg, 0);
	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(s->fd, &msg, flags);
		int rc = 0;

		if (n >= 0) {
			s->bytes_sent += (uint64_t)n;
			consume(&msg, (size_t)n);
			continue;
		}
		if (errno == EAGAIN)
			rc = wait_ready(s, POLLOUT, deadline_ns, err);
		else if (errno != EINTR)
			rc = ended(-errno, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* Send whole records; part of them is none. */
static int send_whole(struct stream *s, struct iovec *iov, size_t niov,
		      uint64_t deadline_ns, struct error *err)
{
	uint64_t before = s->bytes_sent;
	int rc;

	if (s->torn)
		return error_set(err, STREAM_ENDED,
				 "the connection broke within a record");
	rc = send_all(s, iov, niov, deadline_ns, err);
	s->torn = rc && s->bytes_sent != before;
	return rc;
}

/* What waits comes before everything else in the sequence. */
static int send_gathered(struct stream *s, uint64_t deadline_ns,
			 struct error *err)
{
	struct iovec iov = { s->gathered.data, s->gathered.len };
	int rc = send_whole(s, &iov, 1, deadline_ns, err);

	if (!rc)
		s->gathered.len = 0;
	return rc;
}

static bool fits(const struct stream *s, const struct iovec *iov, size_t niov)
{
	size_t len = s->gathered.len;

	for (size_t i = 0; i < niov; i++)
		len += iov[i].iov_len;
	return len <= GATHERED_MAX;
}

/* There is room: nothing here is to fail in a pause. */
static int gather(struct stream *s, const struct iovec *iov, size_t niov,
		  struct error *err)
{
	for (size_t i = 0; i < niov; i++)
		if (buffer_append(&s->gathered, iov[i].iov_base,
				  iov[i].iov_len))
			return error_set(err, -ENOMEM, "stream: out of memory");
	return 0;
}

void stream_gather(struct stream *s, bool on)
{
	s->gather = on;
}

int stream_gathered(struct stream *s, uint64_t deadline_ns, struct error *err)
{
	s->gather = false;
	return send_gathered(s, deadline_ns, err);
}

/*
 * Send a record. iov[0] is left free for the header; the first @ncovered of
 * the payload's pieces are covered by the checksum.
 */
static int send_record(struct stream *s, enum wire_type type, struct iovec *iov,
		       size_t niov, size_t ncovered, uint64_t deadline_ns,
		       struct error *err)
{
	struct wire_header header = { .type = type,
				      .sequence = s->send_sequence };
	size_t length = 0;
	int rc = 0;

	for (size_t i = 1; i < niov; i++)
		length += iov[i].iov_len;
	header.length = (uint32_t)length;
	header.crc = crc32c(0, &header, HEADER_CHECKED);
	for (size_t i = 1; i <= ncovered; i++)
		header.crc =
			crc32c(header.crc, iov[i].iov_base, iov[i].iov_len);
	iov[0] = (struct iovec){ &header, sizeof(header) };
	if (s->gathered.len && !(s->gather && fits(s, iov, niov)))
		rc = send_gathered(s, deadline_ns, err);
	if (!rc && s->gather && fits(s, iov, niov))
		rc = gather(s, iov, niov, err);
	else if (!rc)
		rc = send_whole(s, iov, niov, deadline_ns, err);
	iov[0].iov_base = NULL; /* the header ends with this function */
	s->send_sequence += !rc || s->torn;
	return rc;
}

int stream_send(struct stream *s, enum wire_type type, const void *payload,
		size_t len, uint64_t deadline_ns, struct error *err)
{
	struct iovec iov[2] = { [1] = { (void *)(uintptr_t)payload, len } };

	return send_record(s, type, iov, 2, 1, deadline_ns, err);
}

/* A record that begins with the encoded struct in @c and goes on with data. */
static int send_front(struct stream *s, enum wire_type type, struct codec *c,
		      const void *data, size_t len, uint64_t deadline_ns,
		      struct error *err)
{
	struct iovec iov[3];
	int rc = codec_finish(c, err);

	if (rc)
		return rc;
	iov[1] = (struct iovec){ s->scratch.data, s->scratch.len };
	iov[2] = (struct iovec){ (void *)(uintptr_t)data, len };
	return send_record(s, type, iov, 3, 2, deadline_ns, err);
}

int stream_send_section(struct stream *s, const struct wire_section *front,
			const void *data, size_t len, uint64_t deadline_ns,
			struct error *err)
{
	struct wire_section copy = *front;
	struct codec c;

	s->scratch.len = 0;
	codec_init_save(&c, &s->scratch, WIRE_VERSION_MAX);
	wire_section_visit(&c, &copy);
	return send_front(s, WIRE_SECTION, &c, data, len, deadline_ns, err);
}

int stream_send_image(struct stream *s, uint64_t offset, const void *data,
		      size_t len, uint64_t deadline_ns, struct error *err)
{
	struct wire_image front = { .offset = offset };
	struct codec c;

	s->scratch.len = 0;
	codec_init_save(&c, &s->scratch, WIRE_VERSION_MAX);
	wire_image_visit(&c, &front);
	return send_front(s, WIRE_IMAGE, &c, data, len, deadline_ns, err);
}

int stream_send_encoded(struct stream *s, enum wire_type type, struct codec *c,
			uint64_t deadline_ns, struct error *err)
{
	int rc = codec_finish(c, err);

	if (rc)
		return rc;
	return stream_send(s, type, s->scratch.data, s->scratch.len,
			   deadline_ns, err);
}

int stream_send_reason(struct stream *s, enum wire_type type, uint32_t code,
		       const char *text, uint64_t deadline_ns,
		       struct error *err)
{
	struct wire_reason reason = { .code = code };

	snprintf(reason.text, sizeof(reason.text), "%s", text);
	return stream_send_struct(s, type, wire_reason_visit, &reason,
				  deadline_ns, err);
}

int stream_send_runs(struct stream *s, enum wire_type type,
		     const struct memory *mem, const struct wire_run *runs,
		     uint32_t nruns, uint64_t deadline_ns, struct error *err)
{
	struct wire_runs_header front = { .nruns = nruns };
	struct iovec iov[3 + WIRE_RUNS_MAX];
	size_t niov = 3;

	for (uint32_t i = 0; i < nruns; i++) {
		size_t bytes = (size_t)runs[i].npages << GUEST_PAGE_SHIFT;

		front.npages += runs[i].npages;
		if (type == WIRE_PAGES)
			iov[niov++] = (struct iovec){
				memory_hva(mem, runs[i].gpa, bytes), bytes
			};
	}
	iov[1] = (struct iovec){ &front, sizeof(front) };
	iov[2] = (struct iovec){ (void *)(uintptr_t)runs,
				 nruns * sizeof(*runs) };
	return send_record(s, type, iov, niov, 2, deadline_ns, err);
}

/* ---- receiving ---- */

static size_t buffered(const struct stream *s)
{
	return s->in_end - s->in_start;
}

static int broken(struct error *err, const char *what, uint64_t value)
{
	return error_set(err, -EBADMSG,
			 "not a proper migration stream: %s 0x%llx", what,
			 (unsigned long long)value);
}

/* How many bytes of the header and payload belong together in the buffer. */
static int parse_header(struct stream *s, struct wire_header *header,
			size_t *ret_need, struct error *err)
{
	struct wire_runs_header runs;
	uint32_t max;

	*ret_need = sizeof(*header);
	if (buffered(s) < sizeof(*header))
		return 0;
	memcpy(header, s->in + s->in_start, sizeof(*header));
	max = wire_payload_max(header->type);
	if (!max)
		return broken(err, "record type", header->type);
	if (header->length > max)
		return broken(err, "record length", header->length);
	if (header->sequence != s->recv_sequence)
		return broken(err, "sequence number", header->sequence);
	if (header->type != WIRE_PAGES) {
		*ret_need += header->length;
		return 0;
	}
	*ret_need += sizeof(runs);
	if (buffered(s) < *ret_need)
		return 0;
	memcpy(&runs, s->in + s->in_start + sizeof(*header), sizeof(runs));
	if (!runs.nruns || runs.nruns > WIRE_RUNS_MAX)
		return broken(err, "number of runs", runs.nruns);
	if (runs.npages > WIRE_PAGES_PER_BATCH)
		return broken(err, "number of pages", runs.npages);
	*ret_need += runs.nruns * sizeof(struct wire_run);
	if (header->length !=
	    *ret_need - sizeof(*header) + runs.npages * GUEST_PAGE_SIZE)
		return broken(err, "length of PAGES", header->length);
	return 0;
}

static int check_crc(const struct stream *s, const struct wire_header *header,
		     size_t need, struct error *err)
{
	const uint8_t *at = s->in + s->in_start;
	uint32_t crc = crc32c(0, at, HEADER_CHECKED);

	crc = crc32c(crc, at + sizeof(*header), need - sizeof(*header));
	if (crc != header->crc)
		return error_set(err, -EBADMSG,
				 "record %u arrived damaged: its checksum is "
				 "0x%x, and that of what came 0x%x; try again, "
				 "or look at the link",
				 header->sequence, header->crc, crc);
	return 0;
}

/* Take one record out of the buffer; -EAGAIN when it isn't all there. */
static int take_record(struct stream *s, struct record *ret, size_t *ret_need,
		       struct error *err)
{
	struct wire_header header = { 0 };
	int rc = parse_header(s, &header, ret_need, err);

	if (rc)
		return rc;
	if (buffered(s) < *ret_need || *ret_need < sizeof(header) ||
	    buffered(s) < sizeof(header))
		return -EAGAIN;
	/* A header just arrived may have asked for more than it knew before. */
	rc = check_crc(s, &header, *ret_need, err);
	if (rc)
		return rc;
	ret->type = header.type;
	ret->payload = s->in + s->in_start + sizeof(header);
	ret->length = (uint32_t)(*ret_need - sizeof(header));
	s->data_left = header.length - ret->length;
	s->in_start += *ret_need;
	s->recv_sequence++;
	return 0;
}

/* Move what is buffered to the front, so that @need bytes fit. */
static void make_room(struct stream *s, size_t need)
{
	if (s->in_start == s->in_end)
		s->in_start = s->in_end = 0;
	if (s->in_start + need + IN_SLACK <= IN_CAP)
		return;
	memmove(s->in, s->in + s->in_start, buffered(s));
	s->in_end -= s->in_start;
	s->in_start = 0;
}

/* One read towards @need buffered bytes; -EAGAIN when nothing is there. */
static int fill(struct stream *s, size_t need, struct error *err)
{
	ssize_t n;

	make_room(s, need);
	do {
		n = recv(s->fd, s->in + s->in_end,
			 need - buffered(s) + IN_SLACK, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return -EAGAIN;
	if (n < 0)
		return ended(-errno, err);
	if (n == 0)
		return ended(-EPIPE, err);
	s->in_end += (size_t)n;
	s->bytes_received += (uint64_t)n;
	return 0;
}

static bool skippable(const struct record *record)
{
	return record->type & WIRE_OPTIONAL && !wire_type_name(record->type);
}

int stream_try_recv(struct stream *s, struct record *ret, struct error *err)
{
	size_t need;
	int rc;

	for (;;) {
		rc = take_record(s, ret, &need, err);
		if (!rc && skippable(ret))
			continue;
		if (rc != -EAGAIN)
			return rc;
		rc = fill(s, need, err);
		if (rc)
			return rc;
	}
}

int stream_recv(struct stream *s, struct record *ret, uint64_t deadline_ns,
		struct error *err)
{
	for (;;) {
		int rc = stream_try_recv(s, ret, err);

		if (rc != -EAGAIN)
			return rc;
		rc = wait_ready(s, POLLIN, deadline_ns, err);
		if (rc)
			return rc;
	}
}

/* What is in the buffer already goes first. */
static void drain_buffer(struct stream *s, struct msghdr *msg)
{
	while (msg->msg_iovlen && buffered(s)) {
		size_t n = MIN(msg->msg_iov->iov_len, buffered(s));

		memcpy(msg->msg_iov->iov_base, s->in + s->in_start, n);
		s->in_start += n;
		s->data_left -= n;
		consume(msg, n);
	}
}

int stream_recv_data(struct stream *s, struct iovec *iov, size_t niov,
		     uint64_t deadline_ns, struct error *err)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = niov };

	drain_buffer(s, &msg);
	while (msg.msg_iovlen) {
		ssize_t n = recvmsg(s->fd, &msg, 0);
		int rc = 0;

		if (n > 0) {
			s->bytes_received += (uint64_t)n;
			s->data_left -= (size_t)n;
			consume(&msg, (size_t)n);
		} else if (n == 0) {
			rc = ended(-EPIPE, err);
		} else if (errno == EAGAIN) {
			rc = wait_ready(s, POLLIN, deadline_ns, err);
		} else if (errno != EINTR) {
			rc = ended(-errno, err);
		}
		if (rc)
			return rc;
	}
	return 0;
}

int stream_unexpected(const struct record *record, const char *instead_of,
		      struct error *err)
{
	const char *name = wire_type_name(record->type);

	return error_set(err, -EPROTO, "the peer sent %s instead of %s",
			 name ? name : "an unknown record", instead_of);
}

int stream_decoded(struct codec *c, const struct record *record,
		   struct error *err)
{
	int rc = codec_finish(c, err);

	if (rc)
		error_prefix(err, "record %s", wire_type_name(record->type));
	return rc;
}

int stream_decoded_front(struct codec *c, const struct record *record,
			 const uint8_t **ret_rest, size_t *ret_len,
			 struct error *err)
{
	*ret_rest = record->payload + c->in_pos;
	*ret_len = record->length - c->in_pos;
	c->in_len = c->in_pos;
	return stream_decoded(c, record, err);
}
