// SPDX-License-Identifier: MIT
/*
 * To and fro; see shuttle.h.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

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

bool shuttle_make_trouble(struct rig_moving *moving,
			  const struct relay_record *record, void *opaque)
{
	struct shuttle_trouble *trouble = opaque;

	(void)record;
	if (trouble->seen++ != trouble->at)
		return false;
	trouble->made = true;
	if (trouble->kind == TROUBLE_GIVE_UP)
		rig_cancel_target(moving);
	else if (trouble->kind == TROUBLE_CANCEL)
		trouble->cancel_rc = source_cancel(moving->source);
	return trouble->kind == TROUBLE_CUT;
}

bool shuttle_was_cancelled(const struct shuttle_trouble *trouble,
			   const struct rig_result *result)
{
	if (!trouble->made || trouble->kind != TROUBLE_CANCEL ||
	    trouble->cancel_rc)
		return false;
	ck_assert_msg(result->source_rc == -ECANCELED &&
			      result->report.status == STATUS_CANCELLED,
		      "cancelled at record %u: %d, %s", trouble->at,
		      result->source_rc, result->source_error.text);
	return true;
}

void shuttle_refuse(struct shuttle *s, struct rig_move move)
{
	struct rig_result result;

	move.refuse = "no room at the inn";
	shuttle_move(s, &move, &result);
	ck_assert_int_eq(result.source_rc, -ECONNREFUSED);
	ck_assert_ptr_nonnull(strstr(result.source_error.text, move.refuse));
	ck_assert_int_eq(result.report.status, STATUS_FAILED);
}
