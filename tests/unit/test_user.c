// SPDX-License-Identifier: MIT
/*
 * User-mode networks: what of a state is taken, and, where this build has them,
 * the process: who is given which address there and after a move, ports, its
 * end, and its cage, from inside.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/backend/user_internal.h"
#include "tests/unit/alone.h"
#include "tests/unit/noise.h"
#include "tests/unit/unit.h"

/* See devices/backend/user.c. */
#define STATE_SIZE    131
#define SECOND_CLIENT 11

#define REFUSES(good, change)                                        \
	do {                                                         \
		struct user_state s = (good);                        \
                                                                     \
		change;                                              \
		ck_assert_msg(user_state_check(&s, &err) == -EINVAL, \
			      "%s is taken", #change);               \
	} while (0)

START_TEST(a_state_is_what_libslirp_writes_without_programs_or_nothing)
{
	struct user_state good = { .version = 4, .len = STATE_SIZE };
	struct user_state none = { .version = 7 };
	struct error err;

	ck_assert_int_eq(user_state_check(&none, &err), 0);
	ck_assert_int_eq(user_state_check(&good, &err), 0);
	good.bytes[STATE_SIZE - 7] = 1;
	ck_assert_int_eq(user_state_check(&good, &err), 0);
	REFUSES(good, s.version = 3);
	REFUSES(good, s.version = 5);
	REFUSES(good, s.len--);
	REFUSES(good, s.len++);
	REFUSES(good, s.len = UINT32_MAX);
	/* A connection to a program: libslirp would read on. */
	REFUSES(good, s.bytes[0] = 42);
	REFUSES(good, s.bytes[3] = 1);
	REFUSES(good, s.bytes[4] = 2);
	REFUSES(good, s.bytes[STATE_SIZE - 7] = 2);
}
END_TEST

#ifdef HAVE_LIBSLIRP

/*
 * The sanitizers' runtimes make system calls of their own, which the cage does
 * not allow.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAGEABLE 0
#else
#define CAGEABLE 1
#endif

/* ---- a client of its DHCP; RFC 2131 ---- */

#define UDP_AT	   34
#define DHCP_AT	   42
#define OPTIONS_AT (DHCP_AT + 240)
#define YOURS_AT   (DHCP_AT + 16)
#define DISCOVER   1
#define REQUEST	   3

static void put_checksum(uint8_t *ip)
{
	uint32_t sum = 0;

	for (unsigned int i = 0; i < 20; i += 2)
		sum += (uint32_t)ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}

/* As the client whose Ethernet address ends in @who. */
static void ask(const struct user *user, uint8_t who, uint8_t kind,
		uint32_t wanted)
{
	static const uint8_t udp[] = { 0, 68, 0, 67, 1, 44, 0, 0 };
	static const uint8_t cookie[] = { 0x63, 0x82, 0x53, 0x63, 53, 1 };
	uint8_t message[TAP_HEADER + UDP_AT + 300] = { 0 };
	uint8_t *frame = message + TAP_HEADER;
	uint8_t *dhcp = frame + DHCP_AT;
	uint8_t *option = frame + OPTIONS_AT;

	memset(frame, 0xff, 6);
	frame[6] = 2;
	frame[11] = who;
	frame[12] = 8;
	frame[14] = 0x45;
	frame[16] = 1; /* 320 bytes */
	frame[17] = 64;
	frame[22] = 64;
	frame[23] = IPPROTO_UDP;
	memset(frame + 30, 0xff, 4);
	put_checksum(frame + 14);
	memcpy(frame + UDP_AT, udp, sizeof(udp));
	dhcp[0] = dhcp[1] = 1;
	dhcp[2] = 6;
	dhcp[28] = 2;
	dhcp[33] = who;
	memcpy(dhcp + 236, cookie, sizeof(cookie));
	option[2] = kind;
	option[3] = wanted ? 50 : 255;
	option[4] = 4;
	memcpy(option + 5, &wanted, wanted ? 4 : 0);
	option[9] = 255;
	ck_assert_int_eq(send(user_fd(user), message, sizeof(message), 0),
			 sizeof(message));
}

/* Is it the server's answer to @who? */
static bool is_answer(const uint8_t *frame, uint8_t who)
{
	static const uint8_t ports[] = { 0, 67, 0, 68 };

	return frame[12] == 8 && !frame[13] && frame[23] == IPPROTO_UDP &&
	       !memcmp(frame + UDP_AT, ports, sizeof(ports)) &&
	       frame[DHCP_AT + 33] == who;
}

/* The address in the next one. */
static uint32_t answer(const struct user *user, uint8_t who)
{
	struct pollfd ready = { user_fd(user), POLLIN, 0 };
	uint8_t message[2048];
	uint32_t yours;
	ssize_t n;

	for (;;) {
		ck_assert_int_eq(poll(&ready, 1, -1), 1);
		n = recv(user_fd(user), message, sizeof(message), 0);
		ck_assert_int_gt(n, 0);
		if (n > TAP_HEADER + OPTIONS_AT &&
		    is_answer(message + TAP_HEADER, who))
			break;
	}
	memcpy(&yours, message + TAP_HEADER + YOURS_AT, sizeof(yours));
	return yours;
}

static uint32_t lease(const struct user *user, uint8_t who)
{
	uint32_t offered;

	ask(user, who, DISCOVER, 0);
	offered = answer(user, who);
	ask(user, who, REQUEST, offered);
	ck_assert_uint_eq(answer(user, who), offered);
	return offered;
}

static struct user *start(const struct user_forward *forward, bool waits)
{
	const struct user_params params = {
		.id = "net0",
		.forwards = forward,
		.nforwards = forward ? 1 : 0,
		.waits = waits,
		.caged = CAGEABLE,
	};
	struct error err = { "" };
	struct user *user;
	int rc = user_create(&params, &user, &err);

	ck_assert_msg(!rc, "%s", err.text);
	return user;
}

START_TEST(addresses_are_given_and_stay_whose_they_are_after_a_move)
{
	struct user *source = start(NULL, false);
	struct user *target = start(NULL, true);
	struct user *another = start(NULL, true);
	struct user_state state, other;
	struct error err;

	ck_assert_uint_eq(lease(source, 1), inet_addr("10.0.2.15"));
	ck_assert_uint_eq(lease(source, 2), inet_addr("10.0.2.16"));
	/* It is written down before more is waited for. */
	do {
		user_save(source, &state);
		sched_yield();
	} while (state.bytes[SECOND_CLIENT + 1] != 1);
	ck_assert_uint_eq(state.len, STATE_SIZE);
	ck_assert_int_eq(user_state_check(&state, &err), 0);
	/* Another guest's attempt, that failed, is forgotten. */
	memset(&other, 0, sizeof(other));
	user_load(another, &state);
	user_load(another, &other);
	ck_assert_uint_eq(lease(another, 2), inet_addr("10.0.2.15"));
	user_load(target, &other);
	user_load(target, &state);
	user_begin(target);
	ck_assert_uint_eq(lease(target, 2), inet_addr("10.0.2.16"));
	ck_assert_uint_eq(lease(target, 1), inet_addr("10.0.2.15"));
	user_free(source);
	user_free(target);
	user_free(another);
}
END_TEST

/* ---- noise ---- */

#define NOISES 20000

static uint64_t draw(uint64_t *random)
{
	*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
	return *random >> 33;
}

/* What comes for the guest fits, and leaves it nothing to do. */
static void hear_all(const struct user *user)
{
	static const uint8_t plain[TAP_HEADER];
	uint8_t message[TAP_HEADER + 2048];
	ssize_t n;

	while ((n = recv(user_fd(user), message, sizeof(message), 0)) > 0) {
		ck_assert_int_ge(n, TAP_HEADER + NOISE_ETHERNET);
		ck_assert_int_le(n, TAP_HEADER + NOISE_ETHERNET + USER_MTU);
		ck_assert_mem_eq(message, plain, TAP_HEADER);
	}
	ck_assert_msg(n < 0 && errno == EAGAIN, "the process has ended");
}

static void make_noise(const struct user *user, uint64_t *random)
{
	uint8_t message[TAP_HEADER + NOISE_ETHERNET + USER_MTU] = { 0 };
	size_t room = sizeof(message) - TAP_HEADER - NOISE_MIN;
	size_t len = NOISE_MIN + draw(random) % (room + 1);
	struct pollfd ready = { user_fd(user), POLLIN | POLLOUT, 0 };

	for (size_t i = 0; i < len; i++)
		message[TAP_HEADER + i] = (uint8_t)draw(random);
	noise_dress(message + TAP_HEADER, len, draw(random) % NOISE_KINDS);
	while (send(user_fd(user), message, TAP_HEADER + len, MSG_NOSIGNAL) <
	       0) {
		ck_assert_msg(errno == EAGAIN, "%s: the process has ended",
			      strerror(errno));
		poll(&ready, 1, -1);
		hear_all(user);
	}
}

/* Wherever it says that it wants to go, nothing leaves: see alone.h. */
START_TEST(whatever_a_guest_says_the_process_goes_on)
{
	uint64_t random = 1;
	struct user_state state;
	struct error err = { "" };
	struct user *user;

	if (!alone_enter())
		return;
	user = start(NULL, false);
	for (int i = 0; i < NOISES; i++) {
		make_noise(user, &random);
		hear_all(user);
		user_save(user, &state);
		ck_assert_msg(!user_state_check(&state, &err), "%s", err.text);
		ck_assert_uint_le(user_connections(user), USER_FDS_MAX);
	}
	ck_assert_uint_ne(lease(user, 7), 0);
	ck_assert(alone_is());
	user_free(user);
}
END_TEST

/* ---- ports, and the end ---- */

/* Until somebody listens at @port of the loopback address, or nobody does. */
static void await_port(uint16_t port, bool wanted)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				  .sin_port = htons(port) };
	bool is;

	do {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		is = !connect(fd, (struct sockaddr *)&to, sizeof(to));
		close(fd);
		sched_yield();
	} while (is != wanted);
}

/* A port of the loopback address that is taken, by @ret_fd. */
static uint16_t take_port(int *ret_fd)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);

	*ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(*ret_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	ck_assert_int_eq(listen(*ret_fd, 8), 0);
	ck_assert_int_eq(getsockname(*ret_fd, (struct sockaddr *)&at, &len), 0);
	return ntohs(at.sin_port);
}

/* What recv() fails with next; 0: it does not. The tests' own, not forked. */
static int failures[2];

ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap___recv_chk(int fd, void *buf, size_t len, size_t room,
			  int flags);

ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags)
{
	int code = failures[0];

	if (!code)
		return __real_recv(fd, buf, len, flags);
	failures[0] = failures[1];
	failures[1] = 0;
	errno = code;
	return -1;
}

/* What a compiler makes of recv() that doesn't see how large @buf is. */
ssize_t __wrap___recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
	return __wrap_recv(fd, buf, MIN(len, room), flags);
}

START_TEST(a_process_that_takes_too_long_is_not_said_to_have_ended)
{
	const struct user_params params = { .id = "net0" };
	struct user *user;
	struct error err;

	failures[0] = EINTR;
	failures[1] = EAGAIN;
	ck_assert_int_eq(user_create(&params, &user, &err), -ETIMEDOUT);
	ck_assert_ptr_nonnull(strstr(err.text, "not ready after 30 s"));
	failures[0] = EINTR;
	ck_assert_int_eq(user_create(&params, &user, &err), 0);
	user_free(user);
}
END_TEST

START_TEST(a_port_is_refused_at_once_or_tried_for_when_the_guest_is_there)
{
	struct user_forward forward = {
		.host_address.s_addr = htonl(INADDR_LOOPBACK),
		.guest_port = 22,
	};
	struct user_params params = { .id = "net0",
				      .forwards = &forward,
				      .nforwards = 1 };
	struct user *user;
	struct error err;
	int fd;

	forward.host_port = take_port(&fd);
	ck_assert_int_eq(user_create(&params, &user, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.text, "hostfwd=tcp:127.0.0.1:"));
	ck_assert_ptr_nonnull(strstr(err.text, "give another"));
	user = start(&forward, true);
	user_begin(user);
	user_begin(user);
	close(fd);
	await_port(forward.host_port, true);
	user_free(user);
	await_port(forward.host_port, false);
}
END_TEST

START_TEST(the_process_ends_with_the_other_one)
{
	struct user *user;
	int lives[2];
	char byte;
	pid_t pid;

	/* Whoever of the two lives has an end of this. */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, lives), 0);
	pid = fork();
	if (!pid) {
		user = start(NULL, false);
		ck_assert_int_eq(dup2(user_fd(user), lives[1]), lives[1]);
		_exit(0);
	}
	close(lives[1]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(read(lives[0], &byte, 1), 0);
	close(lives[0]);
}
END_TEST

/* ---- the cage ---- */

#if CAGEABLE
static int in_cage(void (*fn)(void))
{
	struct error err;
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (user_cage_enter(&err)) {
			fprintf(stderr, "%s\n", err.text);
			_exit(99);
		}
		fn();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void do_fork(void)
{
	(void)!fork();
}

static void do_exec(void)
{
	char *const argv[] = { NULL };

	execve("/bin/true", argv, argv);
}

static void do_write_open(void)
{
	open("/tmp/written", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static void do_kill(void)
{
	kill(getppid(), SIGKILL);
}

static void do_unlink(void)
{
	unlink("/tmp/nothing");
}

static void do_become_root(void)
{
	(void)!setresuid(0, 0, 0);
}

START_TEST(who_breaks_out_of_the_cage_dies)
{
	static void (*const acts[])(
		void) = { do_fork, do_exec,   do_write_open,
			  do_kill, do_unlink, do_become_root };

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
		int status = in_cage(acts[i]);

		ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
			      "act %zu: status 0x%x, not SIGSYS", i, status);
	}
}
END_TEST

#define REQUIRE(what)              \
	do {                       \
		if (!(what))       \
			_exit(98); \
	} while (0)

static void do_its_work(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	REQUIRE(fd >= 0);
	close(fd);
	REQUIRE(socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EAFNOSUPPORT);
	fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0 || errno == ENOENT);
	close(fd);
	/* Others can read it, and it is not where that is. */
	REQUIRE(open("/usr/bin/env", O_RDONLY | O_CLOEXEC) < 0);
	REQUIRE(errno == EACCES);
	/* Only who was root before could. */
	REQUIRE(open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0);
}

START_TEST(its_work_is_done_in_the_cage)
{
	ck_assert_int_eq(in_cage(do_its_work), 0);
}
END_TEST
#endif

UNIT_SUITE("user", a_state_is_what_libslirp_writes_without_programs_or_nothing,
	   addresses_are_given_and_stay_whose_they_are_after_a_move,
	   whatever_a_guest_says_the_process_goes_on,
	   a_port_is_refused_at_once_or_tried_for_when_the_guest_is_there,
	   a_process_that_takes_too_long_is_not_said_to_have_ended,
#if CAGEABLE
	   who_breaks_out_of_the_cage_dies, its_work_is_done_in_the_cage,
#endif
	   the_process_ends_with_the_other_one)

#else /* no libslirp */

START_TEST(a_build_without_libslirp_says_what_to_do)
{
	const struct user_params params = { .id = "net0" };
	struct user *user;
	struct error err;

	ck_assert_int_eq(user_create(&params, &user, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "libslirp-dev"));
	ck_assert_ptr_nonnull(strstr(err.text, "tap=NAME"));
}
END_TEST

UNIT_SUITE("user", a_state_is_what_libslirp_writes_without_programs_or_nothing,
	   a_build_without_libslirp_says_what_to_do)
#endif
