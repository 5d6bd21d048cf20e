/* SPDX-License-Identifier: MIT */
/*
 * Where running VMs are found: a private directory with one socket a VM,
 * NAME.sock. Having a name means listening on its socket.
 *
 * The directory is $XDG_RUNTIME_DIR/godwit, else /run/godwit for root, else
 * /tmp/godwit-UID. It belongs to its user and nobody else may look inside;
 * a directory that is not so is refused, never mended.
 *
 * A socket is made under a hidden name and gets its VM's name later, by
 * renaming: so a listener, which learns the name from its guest when it can't
 * make sockets any more, needs no more than the rename. Whoever makes, names or
 * clears away sockets holds a lock on the directory meanwhile; so a name is
 * never given twice, and a stale socket, one that nobody listens on, is never
 * mistaken for a young one.
 */
#ifndef GODWIT_RUNDIR_H
#define GODWIT_RUNDIR_H

#include <sys/un.h>

#include "vmm/machine.h"

struct rundir {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* A control socket in the directory. */
struct rundir_socket {
	int fd;				 /* listening, non-blocking */
	char file[MACHINE_NAME_MAX + 8]; /* its name there, "" for none */
};

/**
 * rundir_open() - find the directory and check whose it is.
 * @create: make it when it is not there.
 *
 * Return: 0, -ENOENT (not with @create), or -errno with @err.
 */
int __must_check rundir_open(bool create, struct rundir *ret,
			     struct error *err);

void rundir_close(struct rundir *dir);

/**
 * rundir_listen() - make a listening socket under a hidden name.
 */
int __must_check rundir_listen(const struct rundir *dir,
			       struct rundir_socket *ret, struct error *err);

/**
 * rundir_claim() - give the socket the name of its VM.
 *
 * Needs no more than connect() and rename() and runs in a migration thread's
 * sandbox.
 *
 * Return: 0, or -EADDRINUSE with @err naming the process that has the name.
 */
int __must_check rundir_claim(const struct rundir *dir,
			      struct rundir_socket *sock, const char *name,
			      struct error *err);

/**
 * rundir_unclaim() - back to a hidden name; the VM's name is free again.
 */
void rundir_unclaim(const struct rundir *dir, struct rundir_socket *sock);

/**
 * rundir_remove() - take the socket out of the directory and close it.
 */
void rundir_remove(const struct rundir *dir, struct rundir_socket *sock);

/**
 * rundir_connect() - a blocking connection to the VM @name.
 *
 * Return: the descriptor, -ENOENT when there is no such VM, or -errno; with
 * @err.
 */
int __must_check rundir_connect(const struct rundir *dir, const char *name,
				struct error *err);

/**
 * rundir_list() - call @fn with the name of each VM, in order; clears stale
 * sockets away.
 */
int __must_check rundir_list(const struct rundir *dir,
			     void (*fn)(void *opaque, const char *name),
			     void *opaque, struct error *err);

#endif
