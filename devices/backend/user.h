/* SPDX-License-Identifier: MIT */
/*
 * User-mode network: a card's way out without root's rights and without
 * set-up. A small TCP/IP stack (libslirp) takes the guest's frames and talks to
 * the world by sockets of this host, as any program does. The guest has a
 * network of its own:
 *
 *   10.0.2.0/24   10.0.2.15 and up by DHCP; 10.0.2.2 is the host, and the way
 *                 out; 10.0.2.3 answers DNS as the host's own server does
 *   fec0::/64     likewise by router advertisements: fec0::2, fec0::3
 *
 * That stack parses what a guest says and opens sockets as it goes, which this
 * process may never do once it is confined (vmm/sandbox.h). So it is a process
 * of its own, forked before there is anything of a guest here, in a cage of
 * its own (user_cage.c). What joins the two:
 *
 *   frames   a socket that keeps messages apart, and speaks as a tap does: it
 *            is the card's tap (tap_params.user)
 *   orders   another one: load this state; the guest is here now. When it ends,
 *            the process does
 *   a page   where the process writes down its state as it changes, so that
 *            saving it is a copy, and waits for nobody
 *
 * When the process dies the guest's link goes down, and that is all. When it
 * stalls, frames wait in the socket and then in the guest. It may be in the
 * hands of the guest: what it writes down is looked at like a stranger's word.
 *
 * What moves is the stack's own state: who was given which address. Connections
 * are sockets of this host and stay behind; they end with this process, and the
 * guest's end of them is reset when it says something there. Ports of the host
 * are the business of each host's command line. On a target they are bound when
 * the guest is there, and tried for as long as somebody has them: where both
 * ends are on one host that is the source, for a moment still.
 *
 * Threads: user_create() and user_free() on the main one; the rest on any.
 */
#ifndef GODWIT_DEVICES_BACKEND_USER_H
#define GODWIT_DEVICES_BACKEND_USER_H

#include <netinet/in.h>

#include "vmm/error.h"

#define USER_FORWARDS_MAX 16
#define USER_STATE_MAX	  256
#define USER_MTU	  1500

/* The guest's network, as it is: addresses in host byte order. */
#define USER_NETWORK	  0x0a000200u /* 10.0.2.0 */
#define USER_NETMASK	  0xffffff00u
#define USER_HOST	  0x0a000202u /* 10.0.2.2, the host and the way out */
#define USER_NAME_SERVER  0x0a000203u
#define USER_FIRST_CLIENT 0x0a00020fu /* 10.0.2.15 and up by DHCP */

struct user;

/* A port of the host that leads to one of the guest. */
struct user_forward {
	bool udp;
	struct in_addr host_address;
	uint16_t host_port;
	struct in_addr guest_address; /* all zero: the first that DHCP gives */
	uint16_t guest_port;
};

/* What moves, in the words of libslirp; @len 0: nothing is known. */
struct user_state {
	uint32_t version; /* of its format */
	uint32_t len;
	uint8_t bytes[USER_STATE_MAX];
};

struct user_params {
	const char *id; /* of the card, in the process's words */
	const struct user_forward *forwards;
	uint32_t nforwards;
	bool waits; /* forwards are bound by user_begin(), not at once */
	bool caged;
};

/**
 * user_create() - start the process. There must be one thread, and nothing of a
 * guest in memory.
 *
 * Return: 0 or -errno with @err naming the forward and the remedy; -ENOTSUP
 * when this build has no libslirp.
 */
int __must_check user_create(const struct user_params *params,
			     struct user **ret, struct error *err);

/**
 * user_free() - end the process, and wait a moment until its ports are free.
 * Its descriptors that taps have are closed already. NULL is fine.
 */
void user_free(struct user *user);

/**
 * user_fd() - where its frames are; stays the process's own.
 */
int user_fd(const struct user *user);

/**
 * user_save() - the state as it was written down last; never waits.
 */
void user_save(const struct user *user, struct user_state *ret);

/**
 * user_state_check() - may this be loaded? Says what not.
 *
 * Return: 0 or -EINVAL.
 */
int __must_check user_state_check(const struct user_state *state,
				  struct error *err);

/**
 * user_load() - begin anew, with a checked state, before any frame of the guest
 * whose it is. Can't fail: a process that is gone, or takes nothing, is a link
 * that is down or stalls.
 */
void user_load(struct user *user, const struct user_state *state);

/**
 * user_begin() - the guest is here: bind what waits. Again: nothing.
 */
void user_begin(struct user *user);

/**
 * user_connections() - how many of TCP there are through this host now.
 */
unsigned int user_connections(const struct user *user);

/**
 * user_forward_text() - "tcp:127.0.0.1:2222-:22", as the command line has it.
 */
#define USER_FORWARD_TEXT 64
const char *user_forward_text(const struct user_forward *forward,
			      char buf[USER_FORWARD_TEXT]);

/**
 * user_library() - "libslirp VERSION", or that there is none.
 */
const char *user_library(void);

#endif
