/* SPDX-License-Identifier: MIT */
/*
 * A tap on the host: where the guest's frames leave and come in. Each message
 * that is read or written is a struct virtio_net_hdr_mrg_rxbuf of TAP_HEADER
 * bytes and a frame, by readv() and writev() on the descriptor of a queue,
 * which never block.
 *
 * A tap is a network interface that its user has made, and given to a bridge
 * or an address; godwit attaches to it and makes none. Or it is a descriptor
 * that was inherited: of a tap, or of a socket that keeps messages apart
 * (SOCK_DGRAM, SOCK_SEQPACKET), whose other end speaks the same format. Such a
 * socket is the end of a user-mode network (user.h), too, which then has a
 * tap's interface and some more: tap_user().
 *
 * Whoever opens a tap does so before the process enters its sandbox; from then
 * on there is tap_dup(). An interface belongs to one VM at a time.
 *
 * Threads: opening, hushing and hearing from any one at a time; offloads and
 * queues from the one that serves it; reading and writing a queue from any.
 *
 * Source: Linux, Documentation/networking/tuntap.rst; the header is that of
 * VIRTIO 1.2, section 5.1.6.
 */
#ifndef GODWIT_DEVICES_BACKEND_TAP_H
#define GODWIT_DEVICES_BACKEND_TAP_H

#include "vmm/error.h"

struct user;

#define TAP_HEADER     12
#define TAP_QUEUES_MAX 15
#define TAP_NAME_MAX   15 /* bytes; the kernel's IFNAMSIZ less one */

/* What the reader of a tap does itself; see tap_set_offloads(). */
#define TAP_CSUM 1 /* finish checksums */
#define TAP_TSO4 2 /* take TCP segments that are larger than the MTU */
#define TAP_TSO6 4
#define TAP_ECN	 8 /* with the ECN bits set */

struct tap;

struct tap_params {
	const char *name;  /* of an interface; NULL: @fd says which */
	int fd;		   /* -1, or taken over, also on failure */
	struct user *user; /* who has the other end; outlives it; or NULL */
	unsigned int queues;
};

/**
 * tap_open() - attach to it, all queues but the first switched off, no
 * offloads.
 *
 * Return: 0, or -errno with @err naming the tap and the remedy.
 */
int __must_check tap_open(const struct tap_params *params, struct tap **ret,
			  struct error *err);

/**
 * tap_dup() - the same tap for one more owner.
 * @queues: how many of its queues are wanted.
 */
int __must_check tap_dup(const struct tap *tap, unsigned int queues,
			 struct tap **ret, struct error *err);

/**
 * tap_close() - NULL is fine.
 */
void tap_close(struct tap *tap);

/**
 * tap_name() - of the interface, or "fd:N".
 */
const char *tap_name(const struct tap *tap);

/**
 * tap_is_interface() - false: a socket.
 */
bool tap_is_interface(const struct tap *tap);

/**
 * tap_user() - the user-mode network that it is, or NULL.
 */
struct user *tap_user(const struct tap *tap);

/**
 * tap_mtu() - of the interface as it was when it was opened; a socket takes
 * anything.
 */
unsigned int tap_mtu(const struct tap *tap);

unsigned int tap_queues(const struct tap *tap);

/**
 * tap_fd() - the descriptor of queue @index; non-blocking.
 */
int tap_fd(const struct tap *tap, unsigned int index);

/**
 * tap_set_offloads() - what frames the host may hand us from now on: a mask of
 * TAP_CSUM and so on; TSO needs CSUM. Those that wait to be read stay as they
 * are. A socket's other end can't be told.
 */
void tap_set_offloads(struct tap *tap, unsigned int offloads);

/**
 * tap_set_queues() - spread what comes in over the first @count queues.
 */
void tap_set_queues(struct tap *tap, unsigned int count);

/**
 * tap_hush() - drop all that comes in, and what waits to be read: another host
 * has the guest still, and gets a copy of some of it.
 */
void tap_hush(struct tap *tap);

/**
 * tap_hear() - from now on what comes in is kept to be read.
 */
void tap_hear(struct tap *tap);

#endif
