/* SPDX-License-Identifier: MIT */
/*
 * A guest that verifies its memory all the time, and two hosts between which
 * it goes to and fro, also when attempts fail.
 */
#ifndef GODWIT_TESTS_SHUTTLE_H
#define GODWIT_TESTS_SHUTTLE_H

#include "tests/inproc/rig.h"

struct shuttle {
	struct rig_host *here; /* has the guest */
	struct rig_host *there;
};

void shuttle_start(struct shuttle *s);

/*
 * Move it, or try to. Whoever has it then must show that it lives; it ends
 * itself, and with it the test, at the first byte that is wrong.
 */
void shuttle_move(struct shuttle *s, const struct rig_move *move,
		  struct rig_result *ret);

/* An attempt that must succeed; as @move wants it. */
void shuttle_retry(struct shuttle *s);
void shuttle_retry_with(struct shuttle *s, const struct rig_move *move);

/* Have the guest verify all of its memory, and end. */
void shuttle_end(struct shuttle *s);

/*
 * An on_record hook whose opaque is a bool: did COMMIT come to the relay, to be
 * passed on whole?
 */
bool shuttle_note_commit(struct rig_moving *moving,
			 const struct relay_record *record, void *opaque);

enum shuttle_trouble_kind {
	TROUBLE_CANCEL,	 /* at the source */
	TROUBLE_GIVE_UP, /* at the target */
	TROUBLE_CUT,
};

struct shuttle_trouble {
	enum shuttle_trouble_kind kind;
	unsigned int at; /* the how-manieth record of both directions */
	unsigned int seen;
	bool made;
	int cancel_rc; /* what source_cancel() said */
};

/* An on_record hook whose opaque is a struct shuttle_trouble. */
bool shuttle_make_trouble(struct rig_moving *moving,
			  const struct relay_record *record, void *opaque);

/*
 * Of the source: a cancel that was made and granted is never talked over by
 * success.
 * Return: was there one?
 */
bool shuttle_was_cancelled(const struct shuttle_trouble *trouble,
			   const struct rig_result *result);

/* An attempt, to which the target says no, with its reason. */
void shuttle_refuse(struct shuttle *s, struct rig_move move);

#endif
