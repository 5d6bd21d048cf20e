// SPDX-License-Identifier: MIT
/*
 * The line that shows how a migration goes: what it says, and what of it is
 * left out where there is no room.
 */
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/progress.h"

static json_t *moving(void)
{
	return json_pack(
		"{s:s, s:s, s:I, s:I, s:b, s:{s:I, s:I, s:I, s:f, s:I}}",
		"status", "active", "phase", "rounds", "expected-downtime-us",
		(json_int_t)12345, "max-downtime-us", (json_int_t)10000,
		"converges", 1, "ram", "total", (json_int_t)GIB, "remaining",
		(json_int_t)(GIB / 4), "dirty-sync-count", (json_int_t)2,
		"mbps", 838.8608, "dirty-pages-rate", (json_int_t)5120);
}

static void line_is(json_t *now, size_t width, const char *want)
{
	char line[PROGRESS_MAX];

	progress_line(now, width, line, sizeof(line));
	ck_assert_str_eq(line, want);
}

START_TEST(a_wide_terminal_shows_it_all)
{
	json_t *now = moving();

	line_is(now, 200,
		"round 3, 75.0 % sent, 100 MiB/s, dirtied 20 MiB/s, "
		"pause 12 ms of 10 ms, converges");
	json_object_set_new(now, "converges", json_false());
	json_object_set_new(now, "cpu-throttle-percentage", json_integer(40));
	json_object_set_new(now, "expected-downtime-us", json_integer(2345678));
	line_is(now, 200,
		"round 3, 75.0 % sent, 100 MiB/s, dirtied 20 MiB/s, "
		"pause 2.3 s of 10 ms, does not converge, slowed by 40 %");
	json_decref(now);
}
END_TEST

START_TEST(a_narrow_one_shows_what_says_most)
{
	json_t *now = moving();
	char line[PROGRESS_MAX];

	line_is(now, 81,
		"round 3, 75.0 % sent, 100 MiB/s, pause 12 ms of 10 ms, "
		"converges");
	line_is(now, 60,
		"round 3, 75.0 % sent, pause 12 ms of 10 ms, converges");
	line_is(now, 45, "round 3, 75.0 % sent, pause 12 ms of 10 ms");
	line_is(now, 30, "round 3, pause 12 ms of 10 ms");
	line_is(now, 20, "round 3");
	line_is(now, 5, "round");
	line_is(now, 0, "");
	for (size_t width = 0; width < 200; width++) {
		progress_line(now, width, line, sizeof(line));
		ck_assert_uint_le(strlen(line), width);
	}
	json_decref(now);
}
END_TEST

START_TEST(what_is_not_known_yet_is_not_shown)
{
	json_t *now = json_pack("{s:s, s:s, s:{s:I, s:I}}", "status", "setup",
				"phase", "rehearsal", "ram", "total",
				(json_int_t)GIB, "remaining", (json_int_t)GIB);

	ck_assert(progress_is_due(now));
	line_is(now, 80, "setup: rehearsal");
	json_object_set_new(now, "status", json_string("active"));
	json_object_set_new(now, "phase", json_string("rounds"));
	line_is(now, 80, "round 1, 0.0 % sent");
	json_object_set_new(now, "expected-downtime-us",
			    json_integer(INT64_MAX / 1000));
	line_is(now, 80, "round 1, 0.0 % sent");
	/* All is sent, but it is not over. */
	json_object_set_new(json_object_get(now, "ram"), "remaining",
			    json_integer(0));
	line_is(now, 80, "round 1, 99.9 % sent");
	json_decref(now);
}
END_TEST

START_TEST(the_pause_and_what_may_follow_have_words_of_their_own)
{
	json_t *now = moving();

	json_object_set_new(now, "status", json_string("device"));
	json_object_set_new(now, "phase", json_string("final"));
	ck_assert(progress_is_due(now));
	line_is(now, 80, "pause: final");
	json_object_set_new(now, "status", json_string("uncertain"));
	line_is(now, 80, "uncertain: asking the target");
	json_object_set_new(now, "status", json_string("completed"));
	ck_assert(!progress_is_due(now));
	json_object_clear(now);
	ck_assert(!progress_is_due(now));
	line_is(now, 80, "setup: ");
	json_decref(now);
}
END_TEST

UNIT_SUITE("progress", a_wide_terminal_shows_it_all,
	   a_narrow_one_shows_what_says_most,
	   what_is_not_known_yet_is_not_shown,
	   the_pause_and_what_may_follow_have_words_of_their_own)
