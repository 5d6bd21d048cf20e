/* SPDX-License-Identifier: MIT */
/*
 * The other end of the control socket: how a command talks to a VM. Blocking,
 * with a limit on how long a VM may take to answer.
 */
#ifndef GODWIT_CLIENT_H
#define GODWIT_CLIENT_H

#include <jansson.h>

#include "vmm/machine.h"

/* Answers are larger than requests: a report has many rounds. */
#define CLIENT_LINE_MAX (1 * MIB)

struct client {
	int fd;
	pid_t pid; /* of the VM's process, also after client_close(); 0: unknown
		    */
	char name[MACHINE_NAME_MAX];
	bool ended; /* it has hung up: its process is gone */
	bool told;  /* a terminal knows what is being waited for */
	size_t len;
	char *in; /* CLIENT_LINE_MAX bytes */
	/* Called for each event that comes; may be NULL. */
	void (*on_event)(void *opaque, const char *name, json_t *data);
	void *opaque;
	uint64_t patience_ns; /* how long an answer may take */
};

/**
 * client_open() - connect to the VM @name and negotiate.
 *
 * Return: 0, -ENOENT when there is no such VM, or -errno; with @err.
 */
int __must_check client_open(const char *name, struct client *ret,
			     struct error *err);

/**
 * client_open_within() - the same, with another limit for each answer than ten
 * seconds.
 */
int __must_check client_open_within(const char *name, uint64_t patience_ns,
				    struct client *ret, struct error *err);

void client_close(struct client *client);

/**
 * client_call() - carry out one command.
 * @arguments: stolen; NULL for none.
 *
 * Return: what it returned, a new reference; NULL with @err when it, or the
 * connection, failed.
 */
json_t *client_call(struct client *client, const char *command,
		    json_t *arguments, struct error *err);

/**
 * client_ask() - one command to the VM @name, in a connection of its own.
 * @arguments, return: as client_call().
 */
json_t *client_ask(const char *name, const char *command, json_t *arguments,
		   struct error *err);

/**
 * client_text() - the string @key of an answer; "" when it has none.
 */
const char *client_text(json_t *answer, const char *key);

/**
 * client_wait() - wait for an event, or for @extra_fd.
 * @timeout_ms: -1 for none.
 * @extra_fd: returns when it is readable; -1 for none.
 *
 * Events that came are told.
 *
 * Return: 0, or -ENODATA with @err when the VM has hung up.
 */
int __must_check client_wait(struct client *client, int timeout_ms,
			     int extra_fd, struct error *err);

/**
 * client_wait_end() - wait until the VM's process hangs up.
 */
int __must_check client_wait_end(struct client *client, struct error *err);

/**
 * client_send_fd() - pass a descriptor; what getfd will name.
 */
int __must_check client_send_fd(struct client *client, int fd, const char *name,
				struct error *err);

#endif
