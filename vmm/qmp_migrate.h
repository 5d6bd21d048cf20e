/* SPDX-License-Identifier: MIT */
/*
 * The QMP commands about migration; for qmp*.c only. Shapes are those of
 * QEMU's qapi/migration.json.
 */
#ifndef GODWIT_QMP_MIGRATE_H
#define GODWIT_QMP_MIGRATE_H

#include "vmm/qmp_internal.h"

/* QEMU's, then ours: for this migration only. Times in microseconds. */
#define QMP_MIGRATE_ARGUMENTS                                            \
	{                                                                \
		"uri", "detach", "x-godwit-max-downtime-us",             \
			"x-godwit-abort-after-us", "x-godwit-bandwidth", \
			"x-godwit-timeout-us", "x-godwit-on-timeout",    \
			"x-godwit-offline", "x-godwit-verify",           \
			"x-godwit-dry-run", NULL                         \
	}

/* QEMU's in milliseconds and bytes a second; ours is finer. */
#define QMP_PARAMETERS                                     \
	{                                                  \
		"downtime-limit", "max-bandwidth",         \
			"x-godwit-downtime-limit-us", NULL \
	}

qmp_command_fn qmp_getfd;
qmp_command_fn qmp_closefd;
qmp_command_fn qmp_migrate;
qmp_command_fn qmp_migrate_cancel;
qmp_command_fn qmp_migrate_set_parameters;
qmp_command_fn qmp_query_migrate_parameters;
qmp_command_fn qmp_query_migrate;
qmp_command_fn qmp_report;
qmp_command_fn qmp_resolve;

#endif
