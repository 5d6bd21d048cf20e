// SPDX-License-Identifier: MIT
/*
 * Addresses and sockets; see transport.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/transport.h"

/*
 * Between two processes of one host: what is written is read while it is still
 * in a core's cache. More made moves slower by a third and more.
 */
#define LOCAL_BUFFER (128 * 1024)

static int bad_address(const char *text, const char *why, struct error *err)
{
	return error_set(err, -EINVAL,
			 "address '%.200s': %s; give tcp:HOST:PORT, unix:PATH "
			 "or fd:N",
			 text, why);
}

/* A decimal number without sign or blanks, at most @max; else -1. */
static long parse_number(const char *text, long max)
{
	char *end;
	long value;

	if (*text < '0' || *text > '9')
		return -1;
	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || *end || value > max)
		return -1;
	return value;
}

static int parse_tcp(const char *text, struct address *ret, struct error *err)
{
	const char *host = ret->text + strlen("tcp:");
	const char *colon = strrchr(host, ':');
	size_t len;
	long port;

	if (!colon)
		return bad_address(text, "no port", err);
	port = parse_number(colon + 1, 65535);
	if (port < 0)
		return bad_address(
			text, "the port is no number from 0 to 65535", err);
	len = (size_t)(colon - host);
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	} else if (memchr(host, ':', len)) {
		return bad_address(text, "an IPv6 host needs [brackets]", err);
	}
	if (!len || len >= sizeof(ret->host))
		return bad_address(text, "no host", err);
	memcpy(ret->host, host, len);
	ret->port = (uint16_t)port;
	return 0;
}

static int parse_unix(const char *text, struct address *ret, struct error *err)
{
	const char *path = ret->text + strlen("unix:");
	size_t len = strlen(path);

	if (!len)
		return bad_address(text, "no path", err);
	if (len >= sizeof(ret->un.sun_path))
		return bad_address(text, "the path is longer than 107 bytes",
				   err);
	ret->un.sun_family = AF_UNIX;
	memcpy(ret->un.sun_path, path, len);
	ret->len = sizeof(ret->un);
	return 0;
}

int address_parse(const char *text, struct address *ret, struct error *err)
{
	*ret = (struct address){ .fd = -1 };
	if (strlen(text) >= sizeof(ret->text))
		return bad_address(text, "too long", err);
	strcpy(ret->text, text);
	if (!strncmp(text, "tcp:", 4)) {
		ret->kind = ADDRESS_TCP;
		return parse_tcp(text, ret, err);
	}
	if (!strncmp(text, "unix:", 5)) {
		ret->kind = ADDRESS_UNIX;
		return parse_unix(text, ret, err);
	}
	if (!strncmp(text, "fd:", 3)) {
		ret->kind = ADDRESS_FD;
		ret->fd = (int)parse_number(text + 3, 1 << 20);
		return ret->fd < 0 ? bad_address(text, "no descriptor", err)
				   : 0;
	}
	return bad_address(text, "unknown kind", err);
}

int address_resolve(struct address *address, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found;
	char port[8];
	int rc;

	if (address->kind != ADDRESS_TCP || address->len)
		return 0;
	snprintf(port, sizeof(port), "%u", address->port);
	rc = getaddrinfo(address->host, port, &hints, &found);
	if (rc)
		return error_set(err, -EHOSTUNREACH, "host '%s': %s",
				 address->host, gai_strerror(rc));
	memcpy(&address->sa, found->ai_addr, found->ai_addrlen);
	address->len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

static int check_fd(int fd, struct error *err)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return error_set(err, -errno,
				 "fd:%d: %s; pass a connected stream socket",
				 fd, strerror(errno));
	if (type != SOCK_STREAM)
		return error_set(err, -EINVAL,
				 "fd:%d: not a stream socket; pass one that "
				 "is connected",
				 fd);
	return 0;
}

int address_check(const struct address *address, struct error *err)
{
	struct stat st;

	if (address->kind == ADDRESS_FD)
		return check_fd(address->fd, err);
	if (address->kind == ADDRESS_UNIX && !stat(address->un.sun_path, &st) &&
	    !S_ISSOCK(st.st_mode))
		return error_set(err, -ENOTSOCK,
				 "%s: what is there is no socket; give the "
				 "path that `godwit listen` has",
				 address->text);
	return 0;
}

const char *address_text(const struct address *address, uint16_t port,
			 char text[ADDRESS_TEXT_MAX])
{
	size_t len = strlen(address->text);

	if (address->kind == ADDRESS_TCP)
		len = (size_t)(strrchr(address->text, ':') - address->text);
	snprintf(text, ADDRESS_TEXT_MAX, "%.*s", (int)len, address->text);
	if (address->kind == ADDRESS_TCP && len < ADDRESS_TEXT_MAX - 7)
		snprintf(text + len, ADDRESS_TEXT_MAX - len, ":%u", port);
	return text;
}

bool address_is_local(const struct address *address)
{
	if (address->kind != ADDRESS_TCP)
		return true;
	if (address->sa.sa_family == AF_INET)
		return ntohl(address->in.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
}

/* Returns whether one was set: whoever wrote that meant something else. */
static bool clear_host_bits(uint8_t *bytes, int family, unsigned int prefix)
{
	unsigned int size = family == AF_INET ? 4 : 16;
	bool any = false;

	for (unsigned int i = prefix / 8; i < size; i++) {
		unsigned int keep = i == prefix / 8 ? prefix % 8 : 0;
		uint8_t host = (uint8_t)(0xff >> keep);

		any |= bytes[i] & host;
		bytes[i] &= (uint8_t)~host;
	}
	return any;
}

int transport_allow_add(struct transport_allow *allow, const char *cidr,
			struct error *err)
{
	char host[INET6_ADDRSTRLEN + 1] = "";
	char network[INET6_ADDRSTRLEN];
	const char *slash = strchr(cidr, '/');
	size_t len = slash ? (size_t)(slash - cidr) : strlen(cidr);
	int family = memchr(cidr, ':', len) ? AF_INET6 : AF_INET;
	long bits = family == AF_INET ? 32 : 128;
	unsigned int at = allow->count;

	if (at == TRANSPORT_ALLOW_MAX)
		return error_set(err, -ENOSPC, "--allow: at most %d networks",
				 TRANSPORT_ALLOW_MAX);
	if (slash)
		bits = parse_number(slash + 1, bits);
	if (len < sizeof(host))
		memcpy(host, cidr, len);
	if (bits < 0 || inet_pton(family, host, allow->nets[at].bytes) != 1)
		return error_set(err, -EINVAL,
				 "--allow '%.100s': not a network; give "
				 "ADDRESS/BITS, like 192.0.2.0/24",
				 cidr);
	if (clear_host_bits(allow->nets[at].bytes, family, (unsigned int)bits))
		return error_set(err, -EINVAL,
				 "--allow '%s': an address and not a network; "
				 "give %s/%ld, or %s alone",
				 cidr,
				 inet_ntop(family, allow->nets[at].bytes,
					   network, sizeof(network)),
				 bits, host);
	allow->nets[at].family = family;
	allow->nets[at].prefix = (unsigned int)bits;
	allow->count++;
	return 0;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
	unsigned int bytes = bits / 8;
	unsigned int rest = bits % 8;

	if (memcmp(a, b, bytes))
		return false;
	return !rest || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0;
}

bool transport_allows(const struct transport_allow *allow, int fd,
		      char *ret_peer)
{
	struct address peer = { .len = sizeof(struct sockaddr_in6) };
	const uint8_t *bytes = (const uint8_t *)&peer.in.sin_addr;
	int family;

	strcpy(ret_peer, "local");
	if (getpeername(fd, &peer.sa, &peer.len))
		return false;
	family = peer.sa.sa_family;
	if (family != AF_INET && family != AF_INET6)
		return true;
	if (family == AF_INET6)
		bytes = peer.in6.sin6_addr.s6_addr;
	/* A v4 peer of a v6 socket is matched as what it is. */
	if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.in6.sin6_addr)) {
		bytes += 12;
		family = AF_INET;
	}
	inet_ntop(family, bytes, ret_peer, INET6_ADDRSTRLEN);
	for (unsigned int i = 0; i < allow->count; i++) {
		if (allow->nets[i].family == family &&
		    same_prefix(bytes, allow->nets[i].bytes,
				allow->nets[i].prefix))
			return true;
	}
	return !allow->count;
}

bool transport_is_within_host(int fd)
{
	struct address own = { .len = sizeof(struct sockaddr_in6) };
	struct address peer = { .len = sizeof(struct sockaddr_in6) };

	if (getsockname(fd, &own.sa, &own.len) ||
	    getpeername(fd, &peer.sa, &peer.len) ||
	    own.sa.sa_family != peer.sa.sa_family)
		return false;
	switch (own.sa.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return own.in.sin_addr.s_addr == peer.in.sin_addr.s_addr;
	case AF_INET6:
		return IN6_ARE_ADDR_EQUAL(&own.in6.sin6_addr,
					  &peer.in6.sin6_addr);
	default:
		return false;
	}
}

void transport_tune(int fd, unsigned int silence_ms)
{
	int one = 1;
	int size = LOCAL_BUFFER;

	/*
	 * All of this is advice: what a kind of socket doesn't know it doesn't
	 * need.
	 */
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms,
			 sizeof(silence_ms));
	/*
	 * On a network the kernel finds the right size by itself, and beyond
	 * what it would let us ask for: net.core.wmem_max is 208 KiB.
	 */
	if (transport_is_within_host(fd))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size,
				 sizeof(size));
}

static int wait_connected(int fd, int interrupt_fd, uint64_t deadline_ns)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLOUT },
				{ .fd = interrupt_fd, .events = POLLIN } };
	int code = 0;
	socklen_t len = sizeof(code);

	while (!fds[0].revents) {
		uint64_t now = clock_ns();
		int ms = now >= deadline_ns
				 ? 0
				 : (int)((deadline_ns - now) / NS_PER_MS) + 1;
		int n = poll(fds, ARRAY_SIZE(fds), ms);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		if (n > 0 && fds[1].revents)
			return -ECANCELED;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len))
		return -errno;
	return -code;
}

int transport_connect(const struct address *address, int interrupt_fd,
		      uint64_t deadline_ns, struct error *err)
{
	int rc = 0;
	int fd;

	if (address->kind == ADDRESS_FD)
		return address->fd;
	fd = socket(address->sa.sa_family,
		    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, -errno, "socket: %s", strerror(errno));
	if (connect(fd, &address->sa, address->len))
		rc = -errno;
	/* A full unix backlog says EAGAIN and can't be waited for. */
	if (rc == -EINPROGRESS)
		rc = wait_connected(fd, interrupt_fd, deadline_ns);
	if (!rc)
		return fd;
	close(fd);
	if (rc == -ECANCELED)
		return error_set(err, rc, "cancelled");
	return error_set(err, rc,
			 "connect to %s: %s; is `godwit listen` "
			 "running there? It listens until it has its guest",
			 address->text, strerror(-rc));
}

/* A socket file that nobody listens at is in the way of a new listener. */
static void remove_stale(const struct address *address)
{
	struct stat st;
	int fd;

	if (lstat(address->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &address->sa, address->len) && errno == ECONNREFUSED)
		unlink(address->un.sun_path);
	close(fd);
}

static uint16_t bound_port(int fd)
{
	struct address bound = { .len = sizeof(struct sockaddr_in6) };

	if (getsockname(fd, &bound.sa, &bound.len))
		return 0;
	if (bound.sa.sa_family == AF_INET)
		return ntohs(bound.in.sin_port);
	return ntohs(bound.in6.sin6_port);
}

/* What to do about an address that can't be had; "" when that is clear. */
static const char *listen_remedy(const struct address *address, int code)
{
	struct stat st;

	if (code == -ENOENT && address->kind == ADDRESS_UNIX)
		return "; make its directory first";
	if (code != -EADDRINUSE)
		return "";
	if (address->kind == ADDRESS_UNIX &&
	    !lstat(address->un.sun_path, &st) && !S_ISSOCK(st.st_mode))
		return "; what is there is no socket: take another path";
	return "; somebody listens there: take another, or end that one first";
}

int transport_listen(const struct address *address, uint16_t *ret_port,
		     struct error *err)
{
	int one = 1;
	int fd = socket(address->sa.sa_family,
			SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return error_set(err, -errno, "socket: %s", strerror(errno));
	if (address->kind == ADDRESS_UNIX)
		remove_stale(address);
	else
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one,
				 sizeof(one));
	if (bind(fd, &address->sa, address->len) || listen(fd, 16)) {
		int code = -errno;

		close(fd);
		return error_set(err, code, "listen on %s: %s%s", address->text,
				 strerror(-code), listen_remedy(address, code));
	}
	if (address->kind == ADDRESS_TCP)
		*ret_port = bound_port(fd);
	return fd;
}
