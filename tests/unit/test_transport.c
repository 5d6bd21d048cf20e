// SPDX-License-Identifier: MIT
/*
 * Addresses, who may connect, and how a connection is set up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/transport.h"
#include "tests/unit/unit.h"
#include "vmm/units.h"

START_TEST(addresses_are_taken_apart)
{
	struct address a;
	struct error err;

	ck_assert(!address_parse("tcp:example.test:4444", &a, &err));
	ck_assert_int_eq(a.kind, ADDRESS_TCP);
	ck_assert_str_eq(a.host, "example.test");
	ck_assert_uint_eq(a.port, 4444);
	ck_assert(!address_parse("tcp:[::1]:0", &a, &err));
	ck_assert_str_eq(a.host, "::1");
	ck_assert(!address_parse("unix:/run/a,b:c", &a, &err));
	ck_assert_int_eq(a.kind, ADDRESS_UNIX);
	ck_assert_str_eq(a.un.sun_path, "/run/a,b:c");
	ck_assert(!address_parse("fd:7", &a, &err));
	ck_assert_int_eq(a.kind, ADDRESS_FD);
	ck_assert_int_eq(a.fd, 7);
}
END_TEST

START_TEST(what_is_no_address_is_refused)
{
	static const char *const bad[] = {
		"",	    "tcp:",	 "tcp:host",	      "tcp::1",
		"tcp:h:",   "tcp:h:-1",	 "tcp:h:65536",	      "tcp:h:1x",
		"tcp:::1:", "tcp:::1:1", "tcp:[]:1",	      "unix:",
		"fd:",	    "fd:-1",	 "fd:99999999999999", "udp:h:1",
	};
	struct address a;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_eq(address_parse(bad[i], &a, &err), -EINVAL);
		ck_assert(strstr(err.text, bad[i]));
	}
}
END_TEST

/* Both ends of a connection to @listen_at from the same host. */
static void connect_both(const char *listen_at, int *ret_ours, int *ret_theirs)
{
	struct address a;
	struct error err;
	uint16_t port = 0;
	int listener;

	ck_assert(!address_parse(listen_at, &a, &err));
	ck_assert(!address_resolve(&a, &err));
	listener = transport_listen(&a, &port, &err);
	ck_assert_int_ge(listener, 0);
	if (a.kind == ADDRESS_TCP)
		a.in.sin_port = htons(port);
	*ret_ours = transport_connect(&a, -1, clock_ns() + NS_PER_S, &err);
	ck_assert_int_ge(*ret_ours, 0);
	*ret_theirs = accept(listener, NULL, NULL);
	ck_assert_int_ge(*ret_theirs, 0);
	close(listener);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	ck_assert(!getsockopt(fd, level, name, &value, &len));
	return value;
}

START_TEST(what_is_in_the_way_of_a_listener_is_named)
{
	char path[] = "/tmp/godwit-transport-XXXXXX";
	char text[64];
	struct address a;
	struct error err;
	uint16_t port;
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	snprintf(text, sizeof(text), "unix:%s", path);
	ck_assert(!address_parse(text, &a, &err));
	ck_assert_int_eq(transport_listen(&a, &port, &err), -EADDRINUSE);
	ck_assert(strstr(err.text, "is no socket"));
	/* And it is still there. */
	ck_assert(!unlink(path));
	close(fd);
	snprintf(text, sizeof(text), "unix:%s/x", path);
	ck_assert(!address_parse(text, &a, &err));
	ck_assert_int_eq(transport_listen(&a, &port, &err), -ENOENT);
	ck_assert(strstr(err.text, "make its directory"));
}
END_TEST

START_TEST(connections_are_tuned_to_where_the_peer_is)
{
	int fds[2];

	connect_both("tcp:127.0.0.1:0", &fds[0], &fds[1]);
	for (int i = 0; i < 2; i++) {
		transport_tune(fds[i], 1234);
		ck_assert(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
		ck_assert(option(fds[i], IPPROTO_TCP, TCP_NODELAY));
		ck_assert_int_eq(option(fds[i], IPPROTO_TCP, TCP_USER_TIMEOUT),
				 1234);
		/* What the kernel says is twice what it was asked for. */
		ck_assert_int_eq(option(fds[i], SOL_SOCKET, SO_SNDBUF),
				 256 * 1024);
		close(fds[i]);
	}
}
END_TEST

START_TEST(networks_that_may_connect)
{
	static const struct {
		const char *network;
		bool allows;
	} cases[] = {
		{ "127.0.0.0/8", true },  { "127.0.0.1", true },
		{ "127.0.0.0/31", true }, { "127.0.0.2/31", false },
		{ "0.0.0.0/0", true },	  { "::/0", false },
	};
	char peer[INET6_ADDRSTRLEN];
	struct error err;
	int fds[2];

	connect_both("tcp:127.0.0.1:0", &fds[0], &fds[1]);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct transport_allow allow = { 0 };

		ck_assert(!transport_allow_add(&allow, cases[i].network, &err));
		ck_assert(transport_allows(&allow, fds[1], peer) ==
			  cases[i].allows);
		ck_assert_str_eq(peer, "127.0.0.1");
	}
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* 10.1.2.3/24: did they mean the host, or all of its network? */
START_TEST(an_address_is_no_network)
{
	static const struct {
		const char *text, *said;
	} cases[] = {
		{ "10.1.2.3/24", "give 10.1.2.0/24, or 10.1.2.3 alone" },
		{ "10.0.0.1/31", "give 10.0.0.0/31, or 10.0.0.1 alone" },
		{ "1.2.3.4/0", "give 0.0.0.0/0, or 1.2.3.4 alone" },
		{ "fe80::1/65", "give fe80::/65, or fe80::1 alone" },
		{ "", "--allow '': not a network" },
	};
	struct transport_allow allow = { 0 };
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ck_assert_int_eq(
			transport_allow_add(&allow, cases[i].text, &err),
			-EINVAL);
		ck_assert_msg(strstr(err.text, cases[i].said), "%s", err.text);
	}
	ck_assert_uint_eq(allow.count, 0);
	ck_assert(!transport_allow_add(&allow, "10.0.0.1/32", &err));
	ck_assert(!transport_allow_add(&allow, "::1/128", &err));
	ck_assert(!transport_allow_add(&allow, "10.128.0.0/9", &err));
}
END_TEST

UNIT_SUITE("transport", addresses_are_taken_apart,
	   what_is_no_address_is_refused,
	   what_is_in_the_way_of_a_listener_is_named,
	   connections_are_tuned_to_where_the_peer_is,
	   networks_that_may_connect, an_address_is_no_network)
