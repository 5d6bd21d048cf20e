// SPDX-License-Identifier: MIT
/*
 * Which line is whose: by the command line, or for a guest that came.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/consoles.h"

static void on_leave(void *opaque __maybe_unused)
{
}

struct rig {
	struct loop *loop;
	struct consoles *consoles;
};

/* A serial port and a console, with nobody at either end. */
static struct rig rig_new(void)
{
	const struct process_options options = {
		.serial = { .kind = CONSOLE_NULL },
		.consoles = { .count = 1,
			      .consoles = { { .kind = CONSOLE_NULL } } },
	};
	struct rig rig;
	struct error err;

	ck_assert(!loop_create(&rig.loop, &err));
	ck_assert_msg(!consoles_open(&options, rig.loop, on_leave, NULL,
				     &rig.consoles, &err),
		      "%s", err.text);
	return rig;
}

static void rig_free(struct rig *rig)
{
	consoles_free(rig->consoles);
	loop_free(rig->loop);
}

static int open_line(struct rig *rig, const char *id, struct line **ret,
		     struct error *err)
{
	const struct device_lines *lines = consoles_lines(rig->consoles);

	return lines->open_line(lines->opaque, id, ret, err);
}

START_TEST(consoles_are_found_by_the_ids_of_their_devices)
{
	struct rig rig = rig_new();
	struct line *serial, *console, *other, *again;
	struct error err;

	ck_assert(!open_line(&rig, "serial0", &serial, &err));
	ck_assert(!open_line(&rig, "console0", &console, &err));
	ck_assert_ptr_ne(serial, console);
	ck_assert_ptr_eq(consoles_find(rig.consoles, "console0"), console);
	/* One that a guest brings. */
	ck_assert_ptr_null(consoles_find(rig.consoles, "console1"));
	ck_assert(!open_line(&rig, "console1", &other, &err));
	ck_assert(other != serial && other != console);
	ck_assert(!open_line(&rig, "console1", &again, &err));
	ck_assert_ptr_eq(again, other);
	rig_free(&rig);
}
END_TEST

START_TEST(guests_that_do_not_come_leave_no_consoles_behind)
{
	struct rig rig = rig_new();
	struct error err;

	for (int guest = 0; guest < 5; guest++) {
		struct line *line;
		char id[DEVICE_ID_MAX];

		consoles_expect(rig.consoles);
		for (int i = 0; i < MACHINE_DEVICES_MAX - 2; i++) {
			snprintf(id, sizeof(id), "guest%d-%d", guest, i);
			ck_assert_msg(!open_line(&rig, id, &line, &err), "%s",
				      err.text);
		}
		ck_assert_int_eq(open_line(&rig, "more", &line, &err), -ENOSPC);
		ck_assert_ptr_nonnull(consoles_find(rig.consoles, "console0"));
	}
	ck_assert_ptr_null(consoles_find(rig.consoles, "guest0-0"));
	ck_assert(consoles_served(rig.consoles));
	rig_free(&rig);
}
END_TEST

START_TEST(consoles_become_devices_in_their_order)
{
	const struct consoles_options options = { .count = 2 };
	struct machine machine;
	struct error err;

	machine_init(&machine);
	ck_assert(!consoles_add_devices(&options, &machine, &err));
	ck_assert_str_eq(machine.devices[machine.ndevices - 2].id, "console0");
	ck_assert_str_eq(machine.devices[machine.ndevices - 1].id, "console1");
	ck_assert_int_eq(consoles_add_devices(&options, &machine, &err),
			 -EEXIST);
}
END_TEST

UNIT_SUITE("consoles", consoles_are_found_by_the_ids_of_their_devices,
	   guests_that_do_not_come_leave_no_consoles_behind,
	   consoles_become_devices_in_their_order)
