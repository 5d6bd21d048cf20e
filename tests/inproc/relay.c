// SPDX-License-Identifier: MIT
/*
 * The relay; see relay.h.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "migration/wire.h"
#include "tests/inproc/relay.h"

/* One direction of a connection. */
struct flow {
	struct relay *told; /* NULL: nobody wants to know */
	bool from_target;
	int from;
	int to;
	int capture;		   /* -1: none */
	unsigned int records;	   /* that passed whole */
	unsigned int limit;	   /* cut after so many */
	size_t torn;		   /* and so many bytes */
	struct wire_header header; /* of the record that is passing */
	size_t header_got;
	uint64_t payload_left;
	uint32_t last; /* type of the last record that passed */

	const struct relay_spoil *spoil;   /* NULL: nothing */
	uint8_t runs[WIRE_RUNS_BYTES_MAX]; /* of the PAGES that is passing */
	unsigned int nspoiled;
	uint8_t *spoiled[64]; /* in the buffer at hand */
};

struct relay {
	struct sockaddr_un listen_addr;
	struct sockaddr_un door_addr;
	struct relay_cut cut;
	struct relay_spoil spoil;
	relay_record_fn *on_record;
	void *opaque;
	int listen_fd;
	int stop_fd;
	pthread_t thread;
	unsigned int connections;
	unsigned int passed[2];
};

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	ck_assert_uint_lt(strlen(path), sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	return addr;
}

static void passed(struct flow *flow)
{
	struct relay_record record = {
		.from_target = flow->from_target,
		.nth = flow->records++,
		.type = flow->header.type,
	};

	flow->header_got = 0;
	flow->last = flow->header.type;
	if (flow->told && flow->told->on_record(flow->told->opaque, &record)) {
		flow->limit = flow->records;
		flow->torn = 0;
	}
}

/* Where in the payload of PAGES, of which @got bytes have come, a page is. */
static uint64_t find_page(const struct flow *flow, uint64_t gpa, uint64_t got)
{
	struct wire_runs_header front;
	struct wire_run run;
	uint64_t at;

	memcpy(&front, flow->runs, sizeof(front));
	at = sizeof(front) + front.nruns * sizeof(run);
	if (got < sizeof(front) || got < at)
		return 0;
	for (uint32_t i = 0; i < front.nruns; i++) {
		uint64_t bytes;

		memcpy(&run, flow->runs + sizeof(front) + i * sizeof(run),
		       sizeof(run));
		bytes = (uint64_t)run.npages << GUEST_PAGE_SHIFT;
		if (gpa >= run.gpa && gpa - run.gpa < bytes)
			return at + gpa - run.gpa;
		at += bytes;
	}
	return 0;
}

/* @len bytes of payload, from @at of it on: note what is to be spoiled. */
static void look(struct flow *flow, uint8_t *data, size_t len, uint64_t at)
{
	uint64_t page;

	if (!flow->spoil || flow->header.type != WIRE_PAGES)
		return;
	if (at < sizeof(flow->runs))
		memcpy(flow->runs + at, data,
		       MIN(len, sizeof(flow->runs) - at));
	page = find_page(flow, flow->spoil->gpa, at + len);
	if (page && page >= at && page < at + len)
		flow->spoiled[flow->nspoiled++] = data + (page - at);
}

static void spoil(struct flow *flow)
{
	while (flow->nspoiled)
		*flow->spoiled[--flow->nspoiled] ^= 0x10;
}

/* How many of the @len bytes at @data may pass; counts records on the way. */
static size_t admit(struct flow *flow, uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at < len && flow->records < flow->limit) {
		size_t need = sizeof(flow->header) - flow->header_got;
		size_t n = MIN(need, len - at);

		memcpy((uint8_t *)&flow->header + flow->header_got, data + at,
		       n);
		flow->header_got += n;
		at += n;
		if (need && n == need)
			flow->payload_left = flow->header.length;
		if (flow->header_got < sizeof(flow->header))
			break;
		n = MIN(flow->payload_left, len - at);
		look(flow, data + at, n,
		     flow->header.length - flow->payload_left);
		flow->payload_left -= n;
		at += n;
		if (!flow->payload_left)
			passed(flow);
	}
	if (flow->records == flow->limit) {
		size_t n = MIN(flow->torn, len - at);

		flow->torn -= n;
		at += n;
	}
	return at;
}

static bool is_cut(const struct flow *flow)
{
	return flow->records == flow->limit && !flow->torn;
}

/* Forward what is there; false when the connection has to end. */
static bool pump(struct flow *flow)
{
	uint8_t data[64 * 1024];
	ssize_t n = read(flow->from, data, sizeof(data));
	size_t pass;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	pass = admit(flow, data, (size_t)n);
	if (flow->capture >= 0)
		ck_assert(!write_full(flow->capture, data, pass));
	spoil(flow);
	for (size_t done = 0; done < pass;) {
		ssize_t m =
			send(flow->to, data + done, pass - done, MSG_NOSIGNAL);

		if (m < 0)
			return false;
		done += (size_t)m;
	}
	return !is_cut(flow);
}

/* Where captures go, and what this one is called; false: nowhere. */
static bool next_capture(char *name, size_t size, const char **ret_dir)
{
	static _Atomic unsigned int number;

	*ret_dir = getenv("GODWIT_CAPTURE");
	if (*ret_dir)
		snprintf(name, size, "%d-%u", getpid(),
			 atomic_fetch_add(&number, 1));
	return *ret_dir;
}

static int open_capture(const char *dir, const char *name,
			const char *direction)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s.%s", dir, name, direction);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

/* DONE is the last that a source says, and only when nothing was cut. */
static void announce_capture(const char *dir, const char *name, bool whole)
{
	char path[512];
	char line[100];
	int fd;

	snprintf(path, sizeof(path), "%s/ended", dir);
	snprintf(line, sizeof(line), "%s %s\n", name, whole ? "whole" : "torn");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	ck_assert(!write_full(fd, line, strlen(line)));
	close(fd);
}

/*
 * What the target says next shows that it has acted on all it got. Without
 * this a source that asks at once may be there before COMMIT was read, and
 * then the answer is never.
 */
static void await_word(int target)
{
	struct pollfd word = { .fd = target, .events = POLLIN };

	ck_assert_int_eq(poll(&word, 1, 60000), 1);
}

static void connection(struct relay *relay, int source, int target)
{
	bool first = relay->connections++ == 0;
	const struct relay_cut *cut = &relay->cut;
	struct flow flows[2] = {
		{ .from = source, .to = target, .limit = UINT32_MAX },
		{ .from = target, .to = source, .limit = UINT32_MAX },
	};
	const char *dir;
	char name[32];
	bool capture = next_capture(name, sizeof(name), &dir);
	bool on = true;

	flows[1].from_target = true;
	flows[0].capture = capture ? open_capture(dir, name, "source") : -1;
	flows[1].capture = capture ? open_capture(dir, name, "target") : -1;
	for (int i = 0; i < 2 && first && relay->on_record; i++)
		flows[i].told = relay;
	if (relay->spoil.enabled)
		flows[0].spoil = &relay->spoil;
	if (first && cut->enabled) {
		flows[cut->from_target].limit = cut->after;
		flows[cut->from_target].torn = cut->torn;
	}
	on = !is_cut(&flows[0]) && !is_cut(&flows[1]);
	while (on) {
		struct pollfd fds[] = {
			{ .fd = source, .events = POLLIN },
			{ .fd = target, .events = POLLIN },
			{ .fd = relay->stop_fd, .events = POLLIN },
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		on = !fds[2].revents;
		for (int i = 0; on && i < 2; i++)
			on = !fds[i].revents || pump(&flows[i]);
	}
	if (flows[0].last == WIRE_COMMIT)
		await_word(target);
	for (int i = 0; i < 2; i++) {
		close_fd(&flows[i].capture);
		if (first)
			relay->passed[i] = flows[i].records;
	}
	if (capture)
		announce_capture(dir, name, flows[0].last == WIRE_DONE);
}

static void *serve(void *opaque)
{
	struct relay *relay = opaque;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = relay->listen_fd, .events = POLLIN },
			{ .fd = relay->stop_fd, .events = POLLIN },
		};
		int source;
		int target;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[1].revents)
			return NULL;
		source = accept4(relay->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (source < 0)
			continue;
		target = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if ((!relay->connections || !relay->cut.turn_away) &&
		    !connect(target, (struct sockaddr *)&relay->door_addr,
			     sizeof(relay->door_addr)))
			connection(relay, source, target);
		close(source);
		close(target);
	}
}

struct relay *relay_start(const char *listen_path, const char *door_path,
			  const struct relay_cut *cut,
			  const struct relay_spoil *spoil,
			  relay_record_fn *on_record, void *opaque)
{
	struct relay *relay = calloc(1, sizeof(*relay));

	ck_assert_ptr_nonnull(relay);
	relay->listen_addr = address(listen_path);
	relay->door_addr = address(door_path);
	relay->cut = *cut;
	relay->spoil = *spoil;
	relay->on_record = on_record;
	relay->opaque = opaque;
	relay->stop_fd = eventfd(0, EFD_CLOEXEC);
	relay->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(listen_path);
	ck_assert_int_eq(bind(relay->listen_fd,
			      (struct sockaddr *)&relay->listen_addr,
			      sizeof(relay->listen_addr)),
			 0);
	ck_assert_int_eq(listen(relay->listen_fd, 8), 0);
	ck_assert_int_eq(pthread_create(&relay->thread, NULL, serve, relay), 0);
	return relay;
}

void relay_stop(struct relay *relay, unsigned int *ret_from_source,
		unsigned int *ret_from_target)
{
	uint64_t one = 1;

	ck_assert_int_eq(write(relay->stop_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(relay->thread, NULL);
	*ret_from_source = relay->passed[0];
	*ret_from_target = relay->passed[1];
	unlink(relay->listen_addr.sun_path);
	close(relay->listen_fd);
	close(relay->stop_fd);
	free(relay);
}
