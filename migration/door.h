/* SPDX-License-Identifier: MIT */
/*
 * The door of a listener: who may connect, and what a first record asks for.
 *
 * One thread accepts, waits for first records of a few strangers at a time
 * (the silent ones are shown out after a while), and serves them: HELLO is
 * handed to whoever waits in door_wait(), one at a time, others are refused as
 * busy; QUERY is answered from the sessions that the door remembers. A session
 * is remembered while its source may have to ask (FORMAT.md).
 */
#ifndef GODWIT_DOOR_H
#define GODWIT_DOOR_H

#include "migration/target.h"
#include "migration/transport.h"

struct door;

struct door_params {
	int listen_fd; /* owned by the door */
	struct transport_allow allow;
};

/**
 * door_create() - a door that nobody serves yet.
 */
int __must_check door_create(const struct door_params *params,
			     struct door **ret, struct error *err);

/**
 * door_free() - close; sessions are forgotten. door_serve() has returned.
 */
void door_free(struct door *door);

/**
 * door_serve() - the door's thread; returns after door_close().
 */
void door_serve(struct door *door);

/**
 * door_close() - make door_serve() and door_wait() return. Any thread.
 */
void door_close(struct door *door);

/**
 * door_wait() - the next source that says a proper HELLO.
 * @ret_stream: the caller's.
 *
 * Return: 0, or -ECANCELED after door_close().
 */
int __must_check door_wait(struct door *door, struct stream **ret_stream,
			   struct wire_hello *ret_hello, struct error *err);

/**
 * door_attend() - @target is the attempt under way, so that QUERY reaches it;
 * NULL ends that. While it must answer, the door keeps asking it.
 */
void door_attend(struct door *door, struct target *target);

/**
 * door_remember_never() - an ended session that never ran and was destroyed.
 */
void door_remember_never(struct door *door,
			 const uint8_t session[WIRE_SESSION_SIZE]);

/**
 * door_refuse_guests() - from now on refuse every HELLO, with @reason.
 */
void door_refuse_guests(struct door *door, const char *reason);

#endif
