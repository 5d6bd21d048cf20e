/* SPDX-License-Identifier: MIT */
/*
 * The control socket's clients: lines in, lines out, several at a time.
 *
 * Nobody can hold the loop up. Sockets never block; a request line is at most
 * QMP_LINE_MAX (a longer one is answered with an error and skipped); answers
 * that a client doesn't read are kept up to a limit, then the client is hung
 * up on. Requests are taken from a client only while its answers drain.
 *
 * All on the loop's thread.
 */
#ifndef GODWIT_CONTROL_H
#define GODWIT_CONTROL_H

#include "vmm/loop.h"
#include "vmm/qmp.h"

/* Room for two consoles with as many watchers as each can have, and some more.
 */
#define CONTROL_CLIENTS_MAX 40
#define CONTROL_UNSENT_MAX  (1 * MIB)

struct control;

/**
 * control_create() - serve the clients of a listening socket.
 * @listen_fd: non-blocking, stays the caller's; -1 for none.
 */
int __must_check control_create(struct loop *loop, int listen_fd,
				const struct qmp_backend *backend, void *opaque,
				struct control **ret, struct error *err);

/**
 * control_free() - hang up on everyone. NULL is fine.
 */
void control_free(struct control *control);

/**
 * control_add() - serve a connected, non-blocking socket; owned from here on.
 *
 * Return: 0, or -errno with @err, the socket closed.
 */
int __must_check control_add(struct control *control, int fd,
			     struct error *err);

/**
 * control_event() - tell every client that has negotiated.
 * @data: stolen; NULL for none.
 */
void control_event(struct control *control, const char *name, json_t *data);

/**
 * control_expect_end() - a migration has ended and this process will soon:
 * from now on a client counts as served only when it has been told how.
 */
void control_expect_end(struct control *control);

/**
 * control_served() - has every client all it was sent, and, after
 * control_expect_end(), been told or hung up?
 */
bool control_served(const struct control *control);

/**
 * control_on_served() - have @fn called when control_served() turns true.
 */
void control_on_served(struct control *control, loop_fn *fn);

#endif
