// SPDX-License-Identifier: MIT
/*
 * Who knocks, and what for; see door.h.
 *
 * Strangers are connections whose first record has not come yet. There are
 * few places for them; the oldest makes room, and nobody may stand there for
 * long, so silent or noisy peers cost nothing but a descriptor for a moment.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/door.h"
#include "vmm/log.h"

#define STRANGERS_MAX	  8
#define STRANGER_PATIENCE (5 * NS_PER_S)
/* An attempt that has failed needs a moment to clear away. */
#define BUSY_PATIENCE  (1 * NS_PER_S)
#define REPLY_PATIENCE (1 * NS_PER_S)
/* How long nobody is let in when there is no descriptor left. */
#define BACK_OFF   (100 * NS_PER_MS)
#define SILENCE_MS 30000
#define NEVER_MAX  64

struct stranger {
	struct stream *stream; /* NULL: the place is free */
	uint64_t since_ns;
	bool greeted; /* has said HELLO, and waits for its turn */
	struct wire_hello hello;
};

struct door {
	struct door_params params;
	int wake_fd;
	struct stranger strangers[STRANGERS_MAX]; /* the door thread's own */
	uint64_t shut_until_ns;			  /* this, too; 0: open */
	bool told_shortage;			  /* and this */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool closed;
	bool idle; /* nobody was handed over since door_wait() began */
	struct stream *handed; /* a source on its way to them */
	struct wire_hello hello;
	char refusal[128]; /* why HELLO is refused; empty: it is not */
	struct target *target;
	/* Sessions that were destroyed; the oldest is overwritten. */
	uint8_t never[NEVER_MAX][WIRE_SESSION_SIZE];
	unsigned int nnever;
};

int door_create(const struct door_params *params, struct door **ret,
		struct error *err)
{
	struct door *door = calloc(1, sizeof(*door));

	if (!door)
		return error_set(err, -ENOMEM, "listener: out of memory");
	door->params = *params;
	door->idle = true;
	pthread_mutex_init(&door->lock, NULL);
	pthread_cond_init(&door->changed, NULL);
	door->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (door->wake_fd < 0) {
		int code = -errno;

		door->params.listen_fd = -1;
		door_free(door);
		return error_set(err, code, "eventfd: %s", strerror(-code));
	}
	*ret = door;
	return 0;
}

void door_free(struct door *door)
{
	if (!door)
		return;
	for (size_t i = 0; i < STRANGERS_MAX; i++)
		stream_close(door->strangers[i].stream);
	stream_close(door->handed);
	close_fd(&door->params.listen_fd);
	close_fd(&door->wake_fd);
	pthread_cond_destroy(&door->changed);
	pthread_mutex_destroy(&door->lock);
	free(door);
}

static void wake(struct door *door)
{
	uint64_t one = 1;

	if (write(door->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("listener wake-up: %s", strerror(errno));
}

void door_close(struct door *door)
{
	pthread_mutex_lock(&door->lock);
	door->closed = true;
	pthread_cond_broadcast(&door->changed);
	pthread_mutex_unlock(&door->lock);
	wake(door);
}

int door_wait(struct door *door, struct stream **ret_stream,
	      struct wire_hello *ret_hello, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&door->lock);
	door->idle = !door->handed;
	wake(door); /* somebody may be waiting for this */
	while (!door->handed && !door->closed)
		pthread_cond_wait(&door->changed, &door->lock);
	if (door->closed)
		rc = error_set(err, -ECANCELED, "the listener is closed");
	else
		*ret_hello = door->hello;
	if (!rc) {
		*ret_stream = door->handed;
		door->handed = NULL;
	}
	pthread_mutex_unlock(&door->lock);
	return rc;
}

void door_attend(struct door *door, struct target *target)
{
	pthread_mutex_lock(&door->lock);
	/* A query in progress holds the target; wait until it has its answer.
	 */
	door->target = target;
	pthread_mutex_unlock(&door->lock);
}

void door_remember_never(struct door *door,
			 const uint8_t session[WIRE_SESSION_SIZE])
{
	pthread_mutex_lock(&door->lock);
	memcpy(door->never[door->nnever % NEVER_MAX], session,
	       WIRE_SESSION_SIZE);
	door->nnever++;
	pthread_mutex_unlock(&door->lock);
}

void door_refuse_guests(struct door *door, const char *reason)
{
	pthread_mutex_lock(&door->lock);
	snprintf(door->refusal, sizeof(door->refusal), "%s", reason);
	pthread_mutex_unlock(&door->lock);
}

/* ---- answering ---- */

static void refuse(struct stream *stream, const char *why)
{
	struct error err;

	(void)!stream_send_reason(stream, WIRE_REFUSE, 0, why,
				  clock_ns() + REPLY_PATIENCE, &err);
	stream_close(stream);
}

/*
 * Hand a source that said HELLO to whoever waits for one.
 *
 * Return: false when it has to wait for its turn.
 */
static bool hand_in(struct door *door, struct stream *stream,
		    const struct wire_hello *hello)
{
	char why[sizeof(door->refusal)];
	bool handed = false;

	pthread_mutex_lock(&door->lock);
	memcpy(why, door->refusal, sizeof(why));
	if (!why[0] && door->idle) {
		door->idle = false;
		door->handed = stream;
		door->hello = *hello;
		pthread_cond_broadcast(&door->changed);
		handed = true;
	}
	pthread_mutex_unlock(&door->lock);
	if (why[0])
		refuse(stream, why);
	return handed || why[0];
}

static enum wire_verdict_kind verdict_on(struct door *door,
					 const uint8_t *session)
{
	enum wire_verdict_kind kind = WIRE_VERDICT_UNKNOWN;

	pthread_mutex_lock(&door->lock);
	for (unsigned int i = 0; i < MIN(door->nnever, NEVER_MAX); i++) {
		if (!memcmp(door->never[i], session, WIRE_SESSION_SIZE))
			kind = WIRE_VERDICT_NEVER;
	}
	if (kind == WIRE_VERDICT_UNKNOWN && door->target)
		kind = target_query(door->target, session);
	pthread_mutex_unlock(&door->lock);
	return kind;
}

/* The answer may be lost; only DONE says that the source has it. */
static void await_done(struct door *door, struct stream *stream,
		       const uint8_t *session)
{
	struct record record;
	struct error err;

	if (stream_recv(stream, &record, clock_ns() + REPLY_PATIENCE, &err) ||
	    record.type != WIRE_DONE)
		return;
	pthread_mutex_lock(&door->lock);
	if (door->target)
		target_done(door->target, session);
	pthread_mutex_unlock(&door->lock);
}

static void answer_query(struct door *door, struct stream *stream,
			 const struct wire_hello *query)
{
	struct wire_verdict verdict = { 0 };
	struct error err;

	memcpy(verdict.session, query->session, sizeof(verdict.session));
	verdict.kind = verdict_on(door, query->session);
	if (stream_send_struct(stream, WIRE_VERDICT, wire_verdict_visit,
			       &verdict, clock_ns() + REPLY_PATIENCE, &err))
		log_info("listener: answering a query: %s", err.text);
	else if (verdict.kind != WIRE_VERDICT_UNKNOWN)
		await_done(door, stream, query->session);
	stream_close(stream);
}

/* The first record of a stranger is here, or will never be. */
static void serve(struct door *door, struct stranger *stranger, int rc,
		  const struct record *record, struct error *err)
{
	struct stream *stream = stranger->stream;
	struct wire_hello *hello = &stranger->hello;

	if (!rc && record->type != WIRE_HELLO && record->type != WIRE_QUERY)
		rc = stream_unexpected(record, "HELLO", err);
	if (!rc)
		rc = stream_decode(record, wire_hello_visit, hello, err);
	if (!rc && hello->magic != WIRE_MAGIC)
		rc = error_set(err, -EBADMSG, "HELLO has the wrong magic");
	stranger->stream = NULL;
	if (rc) {
		log_info("listener: a connection was dropped: %s", err->text);
		stream_close(stream);
	} else if (record->type == WIRE_QUERY) {
		answer_query(door, stream, hello);
	} else if (!hand_in(door, stream, hello)) {
		stranger->stream = stream;
		stranger->greeted = true;
		stranger->since_ns = clock_ns();
	}
}

/* ---- strangers ---- */

static struct stranger *place_for_stranger(struct door *door)
{
	struct stranger *oldest = &door->strangers[0];

	for (size_t i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &door->strangers[i];

		if (!stranger->stream)
			return stranger;
		if (stranger->since_ns < oldest->since_ns)
			oldest = stranger;
	}
	stream_close(oldest->stream);
	oldest->stream = NULL;
	return oldest;
}

static void let_in(struct door *door)
{
	char peer[INET6_ADDRSTRLEN];
	struct stranger *stranger;
	struct error err;
	int fd = accept4(door->params.listen_fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && is_shortage(errno)) {
		if (!door->told_shortage)
			log_warn("listener: nobody can be let in: %s",
				 strerror(errno));
		door->told_shortage = true;
		door->shut_until_ns = clock_ns() + BACK_OFF;
	}
	if (fd < 0)
		return;
	door->told_shortage = false;
	if (!transport_allows(&door->params.allow, fd, peer)) {
		log_warn("listener: %s is not in --allow; turned away", peer);
		close(fd);
		return;
	}
	transport_tune(fd, SILENCE_MS);
	stranger = place_for_stranger(door);
	if (stream_open(fd, -1, &stranger->stream, &err))
		log_warn("listener: %s", err.text);
	stranger->greeted = false;
	stranger->since_ns = clock_ns();
}

static uint64_t patience(const struct stranger *stranger)
{
	return stranger->greeted ? BUSY_PATIENCE : STRANGER_PATIENCE;
}

/* It has said HELLO: is it its turn now, or has it waited for long enough? */
static void try_again(struct door *door, struct stranger *stranger)
{
	struct stream *stream = stranger->stream;

	if (hand_in(door, stream, &stranger->hello))
		stranger->stream = NULL;
	else if (clock_ns() - stranger->since_ns > BUSY_PATIENCE) {
		refuse(stream, "busy with another migration");
		stranger->stream = NULL;
	}
}

static void look_at(struct door *door, struct stranger *stranger, bool ready)
{
	struct record record = { 0 };
	struct error err;
	int rc = -EAGAIN;

	if (stranger->greeted) {
		try_again(door, stranger);
		return;
	}
	if (ready)
		rc = stream_try_recv(stranger->stream, &record, &err);
	if (rc == -EAGAIN &&
	    clock_ns() - stranger->since_ns > STRANGER_PATIENCE)
		rc = error_set(&err, -ETIMEDOUT, "it says nothing");
	if (rc != -EAGAIN)
		serve(door, stranger, rc, &record, &err);
}

/* Milliseconds until the first stranger has stood there for too long. */
static int next_timeout(const struct door *door)
{
	uint64_t now = clock_ns();
	uint64_t left = UINT64_MAX;

	if (door->shut_until_ns)
		left = door->shut_until_ns > now ? door->shut_until_ns - now
						 : 0;
	for (size_t i = 0; i < STRANGERS_MAX; i++) {
		const struct stranger *stranger = &door->strangers[i];
		uint64_t age = now - stranger->since_ns;
		uint64_t limit = patience(stranger);

		if (stranger->stream)
			left = MIN(left, age > limit ? 0 : limit - age);
	}
	return left == UINT64_MAX ? -1 : (int)(left / NS_PER_MS) + 1;
}

void door_serve(struct door *door)
{
	struct pollfd fds[2 + STRANGERS_MAX];
	bool closed = false;
	uint64_t count;

	fds[0] = (struct pollfd){ .fd = door->wake_fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .events = POLLIN };
	while (!closed) {
		for (size_t i = 0; i < STRANGERS_MAX; i++) {
			struct stream *stream = door->strangers[i].stream;

			/* Who waits for a turn has nothing to say. */
			fds[2 + i] = (struct pollfd){
				.fd = stream && !door->strangers[i].greeted
					      ? stream->fd
					      : -1,
				.events = POLLIN,
			};
		}
		if (clock_ns() >= door->shut_until_ns)
			door->shut_until_ns = 0;
		fds[1].fd = door->shut_until_ns ? -1 : door->params.listen_fd;
		if (poll(fds, ARRAY_SIZE(fds), next_timeout(door)) < 0)
			continue;
		(void)!read(door->wake_fd, &count, sizeof(count));
		for (size_t i = 0; i < STRANGERS_MAX; i++) {
			if (door->strangers[i].stream)
				look_at(door, &door->strangers[i],
					fds[2 + i].revents);
		}
		if (fds[1].revents)
			let_in(door);
		pthread_mutex_lock(&door->lock);
		closed = door->closed;
		pthread_mutex_unlock(&door->lock);
	}
}
