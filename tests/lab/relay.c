// SPDX-License-Identifier: MIT
/*
 * relay TARGET-HOST TARGET-PORT - stands between a source and its target, in
 * the emulated host, and tells on standard output what went by, for the stream
 * verifier outside.
 *
 * It listens on 127.0.0.1, on a port that it tells first, and connects on for
 * each connection. All that either side sends is passed on as it comes. What is
 * told are frames: the header below and so many bytes. Page data, which is most
 * of a stream and which nothing but its length is specified of, is left out; so
 * it has to know records that far (migration/FORMAT.md, section 1).
 *
 * A connection of which one end goes is closed at the other. It runs until it
 * is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS 8
#define CHUNK	    65536

#define TYPE_PAGES  0x08u
#define HEADER_SIZE 16u
#define RUNS_FRONT  8u
#define RUN_SIZE    16u
#define RUNS_MAX    512u

enum kind {
	TELL_PORT,   /* two bytes */
	TELL_SOURCE, /* what the source sent */
	TELL_TARGET, /* what the target sent */
	TELL_END,    /* nothing more of this connection */
};

struct told {
	uint32_t length;
	uint16_t connection;
	uint16_t kind;
};

/* Where in its records one direction is. */
struct parser {
	uint8_t front[HEADER_SIZE + RUNS_FRONT];
	uint32_t have;	 /* of front */
	uint64_t shown;	 /* bytes to come that are told */
	uint64_t hidden; /* and those after them that aren't */
};

struct connection {
	uint16_t number;
	int fds[2]; /* the source's and the target's end; -1: free */
	struct parser parsers[2];
};

static void die(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void write_all(int fd, const void *data, size_t len, const char *what)
{
	const uint8_t *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die(what);
		at += n;
		len -= (size_t)n;
	}
}

static void tell(uint16_t connection, enum kind kind, const void *data,
		 size_t len)
{
	struct told told = { (uint32_t)len, connection, (uint16_t)kind };

	write_all(STDOUT_FILENO, &told, sizeof(told), "standard output");
	write_all(STDOUT_FILENO, data, len, "standard output");
}

static uint32_t number_at(const uint8_t *at)
{
	uint32_t number;

	memcpy(&number, at, sizeof(number));
	return number;
}

/* How many bytes of front are needed to know what to show. */
static uint32_t wanted(const struct parser *p)
{
	bool pages = p->have >= HEADER_SIZE &&
		     number_at(p->front) == TYPE_PAGES &&
		     number_at(p->front + 4) >= RUNS_FRONT;

	return pages ? HEADER_SIZE + RUNS_FRONT : HEADER_SIZE;
}

/* The front is complete: what comes behind it? */
static void plan(struct parser *p)
{
	uint32_t length = number_at(p->front + 4);

	p->shown = length;
	p->hidden = 0;
	if (p->have > HEADER_SIZE) {
		uint32_t nruns = number_at(p->front + HEADER_SIZE);
		uint64_t runs = (uint64_t)nruns * RUN_SIZE;

		p->shown = length - RUNS_FRONT;
		if (nruns <= RUNS_MAX && runs <= p->shown) {
			p->hidden = p->shown - runs;
			p->shown = runs;
		}
	}
	p->have = 0;
}

/* Tell of @data, in pieces as records have it. */
static void parse(struct parser *p, uint16_t connection, enum kind kind,
		  const uint8_t *data, size_t len)
{
	while (len) {
		size_t n = len;

		if (p->shown) {
			n = n < p->shown ? n : p->shown;
			tell(connection, kind, data, n);
			p->shown -= n;
		} else if (p->hidden) {
			n = n < p->hidden ? n : p->hidden;
			p->hidden -= n;
		} else {
			uint32_t missing = wanted(p) - p->have;

			n = n < missing ? n : missing;
			memcpy(p->front + p->have, data, n);
			p->have += (uint32_t)n;
			tell(connection, kind, data, n);
			if (p->have == wanted(p))
				plan(p);
		}
		data += n;
		len -= n;
	}
}

static void tune(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void end(struct connection *c)
{
	tell(c->number, TELL_END, NULL, 0);
	close(c->fds[0]);
	close(c->fds[1]);
	c->fds[0] = -1;
	c->fds[1] = -1;
}

/* Return: false when the connection is over. */
static bool pass_on(struct connection *c, unsigned int from)
{
	static uint8_t chunk[CHUNK];
	ssize_t n = read(c->fds[from], chunk, sizeof(chunk));
	ssize_t done = 0;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	parse(&c->parsers[from], c->number, from ? TELL_TARGET : TELL_SOURCE,
	      chunk, (size_t)n);
	while (done < n) {
		ssize_t sent = send(c->fds[!from], chunk + done,
				    (size_t)(n - done), MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		done += sent;
	}
	return true;
}

static void accept_one(struct connection *c, uint16_t number, int listener,
		       const struct sockaddr_in *target)
{
	int source = accept(listener, NULL, NULL);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (source < 0 || fd < 0)
		die("accept");
	if (connect(fd, (const struct sockaddr *)target, sizeof(*target))) {
		close(fd);
		close(source);
		return;
	}
	tune(source);
	tune(fd);
	*c = (struct connection){ .number = number, .fds = { source, fd } };
}

static int open_listener(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	uint16_t port;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) ||
	    listen(fd, CONNECTIONS) ||
	    getsockname(fd, (struct sockaddr *)&address, &len))
		die("listening");
	port = ntohs(address.sin_port);
	tell(0, TELL_PORT, &port, sizeof(port));
	return fd;
}

/* One round of waiting; a connection is taken when there is room. */
static void serve(struct connection *all, int listener, uint16_t *next,
		  const struct sockaddr_in *target)
{
	struct pollfd fds[2 * CONNECTIONS + 1];
	struct connection *room = NULL;

	for (unsigned int i = 0; i < 2 * CONNECTIONS; i++) {
		fds[i] = (struct pollfd){ all[i / 2].fds[i % 2], POLLIN, 0 };
		if (fds[i].fd < 0)
			room = &all[i / 2];
	}
	fds[2 * CONNECTIONS] =
		(struct pollfd){ room ? listener : -1, POLLIN, 0 };
	if (poll(fds, 2 * CONNECTIONS + 1, -1) < 0 && errno != EINTR)
		die("poll");
	for (unsigned int i = 0; i < 2 * CONNECTIONS; i++) {
		struct connection *c = &all[i / 2];

		if (c->fds[0] >= 0 && fds[i].revents && !pass_on(c, i % 2))
			end(c);
	}
	if (fds[2 * CONNECTIONS].revents)
		accept_one(room, (*next)++, listener, target);
}

int main(int argc, char **argv)
{
	struct connection all[CONNECTIONS];
	struct sockaddr_in target = { .sin_family = AF_INET };
	uint16_t next = 0;
	int listener;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &target.sin_addr) != 1) {
		fprintf(stderr, "usage: relay TARGET-ADDRESS TARGET-PORT\n");
		return 2;
	}
	target.sin_port = htons((uint16_t)atoi(argv[2]));
	for (unsigned int i = 0; i < CONNECTIONS; i++)
		all[i].fds[0] = all[i].fds[1] = -1;
	listener = open_listener();
	for (;;)
		serve(all, listener, &next, &target);
}
