// SPDX-License-Identifier: MIT
/*
 * To and fro; see shuttle.h.
 */
#include <check.h>

#include "tests/inproc/shuttle.h"

void shuttle_start(struct shuttle *s)
{
	s->here = rig_host_new();
	s->there = rig_host_new();
	rig_boot(s->here, &(struct rig_guest){
				  .elf = "dirty",
				  .cmdline = "pages=60 rate=4 progress=0" });
	rig_expect(s->here, "ready\n");
}

void shuttle_move(struct shuttle *s, const struct rig_move *move,
		  struct rig_result *ret)
{
	struct rig_host *old = s->here;

	rig_move(s->here, s->there, move, ret);
	if (!ret->source_rc) {
		s->here = s->there;
		s->there = old;
	}
	rig_type(s->here, "s");
	rig_expect(s->here, "errors=0\n");
}

void shuttle_retry_with(struct shuttle *s, const struct rig_move *move)
{
	struct rig_result result;

	shuttle_move(s, move, &result);
	ck_assert_msg(!result.source_rc, "the retry: %s",
		      result.source_error.text);
}

void shuttle_retry(struct shuttle *s)
{
	shuttle_retry_with(s, &rig_move_default);
}

void shuttle_end(struct shuttle *s)
{
	rig_type(s->here, "q");
	rig_expect_exit(s->here, 0);
	rig_host_free(s->here);
	rig_host_free(s->there);
}

bool shuttle_note_commit(struct rig_moving *moving,
			 const struct relay_record *record, void *opaque)
{
	bool *commit = opaque;

	(void)moving;
	*commit = *commit || record->type == WIRE_COMMIT;
	return false;
}
