/* SPDX-License-Identifier: MIT */
/*
 * The inside of the user-mode network, for user*.c only: user.c is this
 * process's side, user_child.c the life of the other process, user_net.c the
 * stack that lives there, user_cage.c what it may do.
 */
#ifndef GODWIT_DEVICES_BACKEND_USER_INTERNAL_H
#define GODWIT_DEVICES_BACKEND_USER_INTERNAL_H

#include <poll.h>
#include <stdatomic.h>

#include "devices/backend/tap.h"
#include "devices/backend/user.h"

#define USER_FRAME_MAX (14 + 4 + 65535)

/* Descriptors that it may have, and so sockets, and so connections. */
#define USER_FDS_MAX 1024

/*
 * What the process writes down, and the other only reads. @sequence is odd
 * while it writes.
 */
struct user_page {
	_Atomic uint32_t sequence;
	_Atomic uint32_t connections;
	struct user_state state;
};

/* Orders to the process. */
enum user_order {
	USER_LOAD,
	USER_BEGIN,
};

struct user_message {
	uint32_t order; /* enum user_order */
	struct user_state state;
};

/* Its one answer, when it is ready or can't be. */
struct user_answer {
	int32_t code; /* 0 or -errno */
	char text[ERROR_TEXT_MAX];
};

/* ---- user_child.c ---- */

/**
 * user_child_run() - be that process, to its end. Signals, descriptors and all
 * else are as the parent had them.
 * @frames, @orders: its ends of the sockets.
 */
_Noreturn void user_child_run(const struct user_params *params,
			      struct user_page *page, int frames, int orders);

/* ---- user_cage.c ---- */

/**
 * user_cage_enter() - give up what is not needed for sockets.
 */
int __must_check user_cage_enter(struct error *err);

/* ---- user_net.c ---- */

struct user_net;

typedef void user_net_send_fn(void *opaque, const void *frame, size_t len);

/**
 * user_net_create() - a stack that hands frames for the guest to @send.
 */
int __must_check user_net_create(user_net_send_fn *send, void *opaque,
				 struct user_net **ret, struct error *err);

/**
 * user_net_free() - with all its sockets. NULL is fine.
 */
void user_net_free(struct user_net *net);

/**
 * user_net_forward() - bind a port of the host's.
 *
 * Return: 0 or -errno.
 */
int __must_check user_net_forward(struct user_net *net,
				  const struct user_forward *forward);

/**
 * user_net_input() - a frame from the guest.
 */
void user_net_input(struct user_net *net, const uint8_t *frame, size_t len);

/**
 * user_net_fill() - what it waits for.
 * @fds: room for @max; those past it wait for another turn.
 * @timeout_ms: made shorter; -1: for ever.
 *
 * Return: how many.
 */
unsigned int user_net_fill(struct user_net *net, struct pollfd *fds,
			   unsigned int max, int *timeout_ms);

/**
 * user_net_poll() - work, after a wait.
 * @waited: whether the descriptors were looked at.
 */
void user_net_poll(struct user_net *net, bool waited);

void user_net_save(struct user_net *net, struct user_state *ret);

/**
 * user_net_load() - into a new one.
 */
int __must_check user_net_load(struct user_net *net,
			       const struct user_state *state);

unsigned int user_net_connections(const struct user_net *net);

#endif
