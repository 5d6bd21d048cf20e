// SPDX-License-Identifier: MIT
/*
 * Asking: the connection was lost after COMMIT, and only the target knows who
 * has the guest. The source keeps it paused, connects anew, and asks what
 * became of the session (QUERY), until somebody answers or the operator
 * decides.
 *
 * Runs on the migration thread; the operator's word comes from another
 * (source_resolve()) and wakes it.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "migration/source_internal.h"
#include "vmm/log.h"

#define ASK_PATIENCE	(2 * NS_PER_S)
#define ASK_INTERVAL_MS 500

void source_send_done(struct stream *stream)
{
	struct error err;

	(void)!stream_send(stream, WIRE_DONE, NULL, 0,
			   clock_ns() + SOURCE_GOODBYE_PATIENCE, &err);
}

void source_let_go(struct source *s)
{
	if (!s->let_go && s->env.on_moved)
		s->env.on_moved(s->env.opaque);
	s->let_go = true;
}

static enum source_event verdict_event(const struct wire_verdict *verdict)
{
	switch (verdict->kind) {
	case WIRE_VERDICT_RUNNING:
		return SOURCE_ON_VERDICT_RUNNING;
	case WIRE_VERDICT_NEVER:
		return SOURCE_ON_VERDICT_NEVER;
	default:
		return SOURCE_ON_VERDICT_UNKNOWN;
	}
}

/* One attempt to learn what became of the session. */
static void ask_once(struct source *s)
{
	struct wire_verdict verdict = { 0 };
	uint64_t deadline = clock_ns() + ASK_PATIENCE;
	struct stream *stream = NULL;
	struct wire_hello query;
	struct record record;
	struct error err;
	int rc;

	source_fill_hello(s, &query);
	rc = source_connect(s, deadline, &stream, &err);
	if (!rc)
		rc = stream_send_struct(stream, WIRE_QUERY, wire_hello_visit,
					&query, deadline, &err);
	if (!rc)
		rc = stream_recv(stream, &record, deadline, &err);
	if (!rc && record.type == WIRE_VERDICT)
		rc = stream_decode(&record, wire_verdict_visit, &verdict, &err);
	if (!rc && memcmp(verdict.session, s->session, sizeof(s->session)))
		rc = error_set(&err, -EPROTO, "an answer on another session");
	/* The operator may have been faster; his word stands. */
	if (!rc)
		(void)!source_step(s, verdict_event(&verdict));
	if (!rc && source_state_now(s) == SOURCE_MOVED)
		source_let_go(s);
	if (!rc && verdict.kind != WIRE_VERDICT_UNKNOWN)
		source_send_done(stream);
	stream_close(stream);
	if (rc)
		log_info("migration: asking: %s", err.text);
}

void source_ask(struct source *s)
{
	struct pollfd wake = { .fd = s->interrupt_fd, .events = POLLIN };
	char text[WIRE_SESSION_TEXT];
	uint64_t count;

	/* The target's log names the session that it took the guest of. */
	log_warn("migration: the connection was lost after COMMIT; the guest "
		 "of session %s stays paused here until %s says what became "
		 "of it; `godwit resolve` and its name say what to check",
		 wire_session_text(s->session, text), s->params.to.text);
	source_set_status(s, STATUS_UNCERTAIN);
	stream_close(s->stream);
	s->stream = NULL;
	while (source_state_now(s) == SOURCE_ASKING) {
		/* fd:N can't be connected to again: the operator decides. */
		if (s->params.to.kind != ADDRESS_FD)
			ask_once(s);
		if (source_state_now(s) != SOURCE_ASKING)
			break;
		(void)poll(&wake, 1, ASK_INTERVAL_MS);
		(void)!read(s->interrupt_fd, &count, sizeof(count));
	}
}
