// SPDX-License-Identifier: MIT
/*
 * Whole moves between two hosts in this process.
 */
#include <stdio.h>

#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"

/* Fewer under sanitizers: GODWIT_MOVES. */
static int moves(void)
{
	const char *text = getenv("GODWIT_MOVES");

	return text ? atoi(text) : 1000;
}

START_TEST(a_guest_boots_and_tells_its_verdict)
{
	struct rig_host *a = rig_host_new();

	rig_boot(a, &(struct rig_guest){ .elf = "hello", .cmdline = "exit=7" });
	rig_expect_exit(a, 7);
	rig_host_free(a);
}
END_TEST

START_TEST(a_running_guest_moves_and_runs_on)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();
	struct rig_result result;

	rig_boot(a, &(struct rig_guest){ .elf = "heartbeat",
					 .cmdline = "interval_us=1000" });
	rig_expect(a, "....");
	rig_move(a, b, &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	rig_expect(b, "....");
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

START_TEST(memory_is_intact_after_many_moves_there_and_back)
{
	struct rig_host *hosts[2] = { rig_host_new(), rig_host_new() };
	struct rig_result result;
	int n = moves();

	rig_boot(hosts[0], &(struct rig_guest){ .elf = "dirty",
						.cmdline = "pages=500 rate=40 "
							   "progress=0" });
	rig_expect(hosts[0], "\n");
	for (int i = 0; i < n; i++) {
		rig_move(hosts[i % 2], hosts[(i + 1) % 2], &rig_move_default,
			 &result);
		ck_assert_msg(!result.source_rc, "move %d: %s", i,
			      result.source_error.text);
	}
	rig_type(hosts[n % 2], "q");
	rig_expect_exit(hosts[n % 2], 0);
	rig_host_free(hosts[0]);
	rig_host_free(hosts[1]);
}
END_TEST

UNIT_SUITE("moves", a_guest_boots_and_tells_its_verdict,
	   a_running_guest_moves_and_runs_on,
	   memory_is_intact_after_many_moves_there_and_back)
