/* SPDX-License-Identifier: MIT */
/*
 * Addresses and sockets: how two godwits come to have a connection. What is
 * said over it is the stream's business.
 *
 * An address is tcp:HOST:PORT ([v6] in brackets), unix:PATH or fd:N. Names are
 * looked up once, by address_resolve(), before the process is sandboxed;
 * everything after works with numbers.
 */
#ifndef GODWIT_TRANSPORT_H
#define GODWIT_TRANSPORT_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmm/error.h"

#define ADDRESS_TEXT_MAX    300
#define TRANSPORT_ALLOW_MAX 32

enum address_kind {
	ADDRESS_TCP,
	ADDRESS_UNIX,
	ADDRESS_FD,
};

struct address {
	enum address_kind kind;
	char text[ADDRESS_TEXT_MAX]; /* as given, for messages */
	char host[256];		     /* TCP, without brackets */
	uint16_t port;
	int fd;	       /* FD */
	socklen_t len; /* TCP (once resolved) and UNIX */
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
};

/* Networks that may connect. */
struct transport_allow {
	unsigned int count;
	struct {
		int family; /* AF_INET or AF_INET6 */
		uint8_t bytes[16];
		unsigned int prefix; /* bits */
	} nets[TRANSPORT_ALLOW_MAX];
};

/**
 * address_parse() - take an ADDR of the command line apart.
 *
 * Return: 0, or -EINVAL with @err showing what an address looks like.
 */
int __must_check address_parse(const char *text, struct address *ret,
			       struct error *err);

/**
 * address_check() - can somebody be there to connect to? A descriptor must be a
 * stream socket; what is at a path, if anything, a socket. Not in the sandbox.
 */
int __must_check address_check(const struct address *address,
			       struct error *err);

/**
 * address_text() - as it was written, but with the port that it got.
 */
const char *address_text(const struct address *address, uint16_t port,
			 char text[ADDRESS_TEXT_MAX]);

/**
 * address_resolve() - look a TCP host up; no-op for others and for numbers.
 * Blocks; not in the sandbox unless the host is numeric.
 */
int __must_check address_resolve(struct address *address, struct error *err);

/**
 * address_is_local() - can only this host connect to it?
 */
bool address_is_local(const struct address *address);

/**
 * transport_allow_add() - add a network in CIDR notation, or an address.
 */
int __must_check transport_allow_add(struct transport_allow *allow,
				     const char *cidr, struct error *err);

/**
 * transport_allows() - may the peer of connected socket @fd talk to us?
 * @ret_peer: its address as text, for messages (INET6_ADDRSTRLEN bytes).
 *
 * Peers on unix sockets may; an empty list allows everyone.
 */
bool transport_allows(const struct transport_allow *allow, int fd,
		      char *ret_peer);

/**
 * transport_connect() - connect to a listening peer.
 * @interrupt_fd: readable: give up with -ECANCELED.
 * @deadline_ns: of clock_ns().
 *
 * Return: a non-blocking socket, or -errno. For fd:N the descriptor itself,
 * owned by the caller from then on.
 */
int __must_check transport_connect(const struct address *address,
				   int interrupt_fd, uint64_t deadline_ns,
				   struct error *err);

/**
 * transport_listen() - open a listening socket; fd:N is not listened on.
 * @ret_port: for TCP the port that was bound.
 *
 * A stale socket file, one that nobody answers at, is replaced.
 *
 * Return: a non-blocking socket, or -errno.
 */
int __must_check transport_listen(const struct address *address,
				  uint16_t *ret_port, struct error *err);

/**
 * transport_is_within_host() - is the peer of connected socket @fd on this
 * host, as far as addresses tell: do both ends have the same one?
 */
bool transport_is_within_host(int fd);

/**
 * transport_tune() - set up a connected socket for a migration: non-blocking,
 * no Nagle, dead peers noticed within @silence_ms, a buffer that suits a peer
 * on the same host.
 */
void transport_tune(int fd, unsigned int silence_ms);

#endif
