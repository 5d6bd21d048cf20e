// SPDX-License-Identifier: MIT
/*
 * The user-mode network as the rest of godwit has it: starting the process,
 * and what passes between the two; see user.h.
 *
 * Nothing here waits for the process once it is ready, but for its end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "devices/backend/user_internal.h"

/* Its ports are free when it is gone; nobody waits longer for one that hangs.
 */
#define END_PATIENCE_MS 1000
#define READY_PATIENCE	30 /* seconds */

/* Each try costs a copy of a page's part, and a turn of the process writes once
 */
#define SAVE_TRIES 16

/*
 * libslirp's format 4, which all its versions have had: a 0, for there are no
 * ports of the guest's network that lead to programs here; the next datagram's
 * number; and for each of CLIENTS addresses whether it is given, and to whom.
 */
#define STATE_VERSION 4
#define STATE_CLIENTS 3
#define STATE_CLIENT  8 /* bytes: a number of two, an Ethernet address */
#define CLIENTS	      16
#define STATE_SIZE    (STATE_CLIENTS + CLIENTS * STATE_CLIENT)

_Static_assert(STATE_SIZE <= USER_STATE_MAX, "a state has its place");

struct user {
	int frames;
	int orders;
	int pid_fd;	   /* -1: this kernel has none */
	atomic_bool begun; /* its ports are wanted, or bound */
	struct user_page *page;
};

/* ---- state ---- */

int user_state_check(const struct user_state *state, struct error *err)
{
	const uint8_t *client = state->bytes + STATE_CLIENTS;

	if (!state->len)
		return 0;
	if (state->version != STATE_VERSION || state->len != STATE_SIZE)
		return error_set(err, -EINVAL,
				 "the user network's state is %u bytes of "
				 "libslirp's format %u; this godwit knows %d "
				 "of format %d",
				 state->len, state->version, STATE_SIZE,
				 STATE_VERSION);
	if (state->bytes[0])
		return error_set(err, -EINVAL,
				 "the user network's state has a connection "
				 "to a program, which godwit never makes");
	for (unsigned int i = 0; i < CLIENTS; i++, client += STATE_CLIENT) {
		if (client[0] || client[1] > 1)
			return error_set(err, -EINVAL,
					 "the user network's address %u is "
					 "given to %u, not to one or none",
					 i, client[0] << 8 | client[1]);
	}
	return 0;
}

void user_save(const struct user *user, struct user_state *ret)
{
	const struct user_page *page = user->page;
	struct error ignored;

	for (unsigned int i = 0; i < SAVE_TRIES; i++) {
		uint32_t before = atomic_load_explicit(&page->sequence,
						       memory_order_acquire);

		memcpy(ret, &page->state, sizeof(*ret));
		atomic_thread_fence(memory_order_acquire);
		if (!(before & 1) && page->sequence == before)
			break;
	}
	/* It may have died while it wrote, or write what it wants. */
	if (user_state_check(ret, &ignored))
		*ret = (struct user_state){ 0 };
}

static void order(struct user *user, const struct user_message *message)
{
	/* Two at most are under way, and each has room. */
	(void)!send(user->orders, message, sizeof(*message),
		    MSG_DONTWAIT | MSG_NOSIGNAL);
}

void user_load(struct user *user, const struct user_state *state)
{
	struct user_message message = { .order = USER_LOAD, .state = *state };

	order(user, &message);
}

void user_begin(struct user *user)
{
	struct user_message message = { .order = USER_BEGIN };

	if (!atomic_exchange(&user->begun, true))
		order(user, &message);
}

unsigned int user_connections(const struct user *user)
{
	unsigned int n = user->page->connections;

	return MIN(n, USER_FDS_MAX);
}

int user_fd(const struct user *user)
{
	return user->frames;
}

const char *user_forward_text(const struct user_forward *forward,
			      char buf[USER_FORWARD_TEXT])
{
	char host[INET_ADDRSTRLEN] = "", guest[INET_ADDRSTRLEN] = "";

	inet_ntop(AF_INET, &forward->host_address, host, sizeof(host));
	if (forward->guest_address.s_addr)
		inet_ntop(AF_INET, &forward->guest_address, guest,
			  sizeof(guest));
	snprintf(buf, USER_FORWARD_TEXT, "%s:%s:%u-%s:%u",
		 forward->udp ? "udp" : "tcp", host, forward->host_port, guest,
		 forward->guest_port);
	return buf;
}

const char *user_library(void)
{
#ifdef HAVE_LIBSLIRP
	return "libslirp " HAVE_LIBSLIRP;
#else
	return "no libslirp (no --net user)";
#endif
}

/* ---- life ---- */

#ifdef HAVE_LIBSLIRP

static int await_ready(const struct user *user, struct error *err)
{
	struct timeval patience = { .tv_sec = READY_PATIENCE };
	struct user_answer answer;
	ssize_t n;

	(void)!setsockopt(user->orders, SOL_SOCKET, SO_RCVTIMEO, &patience,
			  sizeof(patience));
	do {
		n = recv(user->orders, &answer, sizeof(answer), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return error_set(err, -ETIMEDOUT,
				 "user: its process is not ready after %d s; "
				 "see what keeps this host busy, and try "
				 "again",
				 READY_PATIENCE);
	if (n != (ssize_t)sizeof(answer))
		return error_set(err, -ECHILD,
				 "user: its process has ended before it was "
				 "ready; see above, or the kernel's log");
	answer.text[sizeof(answer.text) - 1] = '\0';
	if (answer.code >= 0)
		return 0;
	return error_set(err, answer.code, "%s", answer.text);
}

static int start(struct user *user, const struct user_params *params,
		 struct error *err)
{
	int frames[2] = { -1, -1 }, orders[2] = { -1, -1 };
	int rc = 0;
	pid_t pid = -1;

	if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0, frames) &&
	    !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, orders))
		pid = fork();
	if (!pid)
		user_child_run(params, user->page, frames[1], orders[1]);
	if (pid < 0)
		rc = error_set(err, -errno, "user: a process for it: %s",
			       strerror(errno));
	else
		user->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* Another one's process is not to see it. */
	(void)!mprotect(user->page, sizeof(*user->page), PROT_READ);
	(void)!madvise(user->page, sizeof(*user->page), MADV_DONTFORK);
	user->frames = frames[0];
	user->orders = orders[0];
	close_fd(&frames[1]);
	close_fd(&orders[1]);
	return rc ? rc : await_ready(user, err);
}

int user_create(const struct user_params *params, struct user **ret,
		struct error *err)
{
	struct user *user = calloc(1, sizeof(*user));
	int rc;

	if (!user)
		return error_set(err, -ENOMEM, "user: out of memory");
	user->frames = user->orders = user->pid_fd = -1;
	user->begun = !params->waits;
	user->page = mmap(NULL, sizeof(*user->page), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (user->page == MAP_FAILED) {
		user->page = NULL;
		rc = error_set(err, -ENOMEM, "user: out of memory");
	} else {
		rc = start(user, params, err);
	}
	if (rc)
		user_free(user);
	else
		*ret = user;
	return rc;
}

#else /* no libslirp */

int user_create(const struct user_params *params __maybe_unused,
		struct user **ret __maybe_unused, struct error *err)
{
	return error_set(
		err, -ENOTSUP,
		"user: this godwit was built without libslirp; build "
		"it where libslirp-dev and libglib2.0-dev are, or give "
		"tap=NAME");
}

#endif

void user_free(struct user *user)
{
	struct pollfd end;

	if (!user)
		return;
	end = (struct pollfd){ user->pid_fd, POLLIN, 0 };
	close_fd(&user->frames);
	close_fd(&user->orders);
	/* What has ended stays a zombie: nobody here may wait for processes. */
	if (user->pid_fd >= 0)
		(void)!poll(&end, 1, END_PATIENCE_MS);
	close_fd(&user->pid_fd);
	if (user->page)
		munmap(user->page, sizeof(*user->page));
	free(user);
}
