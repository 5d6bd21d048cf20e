// SPDX-License-Identifier: MIT
/*
 * --verify at the source: digests of memory and state, for the target to
 * compare with its own (FORMAT.md, Verification).
 *
 * The digests go out as they are made, a little at a time, so that both ends
 * are at work at once. Every so often the target is waited for: it is never far
 * behind, and one that says nothing for too long is found out.
 *
 * Runs on the migration thread, with the guest paused.
 */
#include <errno.h>

#include "migration/source_internal.h"

/* Chunks in a DIGEST: 64 MiB. */
#define AT_ONCE 32
/* Chunks from one PING to the next: 2 GiB. */
#define AHEAD 1024

_Static_assert(ARCH_CPUS_MAX + MACHINE_DEVICES_MAX + 2 <= WIRE_DIGESTS_MAX,
	       "the digests of all sections fit");

/* A limit that the user has set holds; ours is not meant for this. */
static uint64_t patience(const struct source *s)
{
	uint64_t silence = source_patience(s);

	return s->params.abort_after_ns ? MIN(s->abort_ns, silence) : silence;
}

/* Wait until the target has compared all that it was sent. */
static int await_target(struct source *s, struct error *err)
{
	struct record record;
	int rc = stream_send(s->stream, WIRE_PING, NULL, 0, patience(s), err);

	if (rc)
		return rc;
	return source_expect(s, WIRE_PONG, &record, patience(s), err);
}

static int send_memory(struct source *s, struct error *err)
{
	uint32_t chunks = digest_chunks(s->digest);
	struct wire_digest part = { 0 };
	int rc = 0;

	for (; !rc && part.first < chunks; part.first += part.n) {
		part.n = MIN(chunks - part.first, AT_ONCE);
		digest_take(s->digest, part.first, part.n, part.crcs);
		rc = stream_send_struct(s->stream, WIRE_DIGEST,
					wire_digest_visit, &part, patience(s),
					err);
		if (!rc && !((part.first + part.n) % AHEAD))
			rc = await_target(s, err);
	}
	return rc;
}

static int take_section(void *opaque, const struct vm_section *section,
			struct error *err)
{
	struct wire_digest *digest = opaque;

	(void)err;
	digest->crcs[digest->n++] = crc32c(0, section->data, section->len);
	return 0;
}

static int send_state_digest(struct source *s, struct error *err)
{
	struct wire_digest digest = { 0 };
	int rc = vm_state_emit(s->vm_state, take_section, &digest, err);

	if (rc)
		return rc;
	return stream_send_struct(s->stream, WIRE_STATE_DIGEST,
				  wire_state_digest_visit, &digest, patience(s),
				  err);
}

int source_verify(struct source *s, struct error *err)
{
	uint64_t start = clock_ns();
	const uint64_t *left_out;
	int rc;

	source_enter_phase(s, PHASE_VERIFY);
	digest_begin(s->digest);
	/* What the guest says is free was never sent: it is zero there. */
	(void)dirty_left_out(s->dirty, &left_out);
	digest_leave_out(s->digest, left_out);
	rc = send_memory(s, err);
	if (!rc)
		rc = send_state_digest(s, err);
	if (!rc)
		rc = await_target(s, err);
	if (rc == STREAM_DEADLINE && clock_ns() >= s->abort_ns &&
	    s->params.abort_after_ns)
		return source_abort(
			s, "the target has not compared all of memory", err);
	if (!s->params.abort_after_ns && s->abort_ns != STREAM_NO_DEADLINE)
		s->abort_ns += clock_ns() - start;
	return rc;
}
