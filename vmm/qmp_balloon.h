/* SPDX-License-Identifier: MIT */
/*
 * The QMP commands about a guest's memory; for qmp*.c only.
 */
#ifndef GODWIT_QMP_BALLOON_H
#define GODWIT_QMP_BALLOON_H

#include "vmm/qmp_internal.h"

qmp_command_fn qmp_balloon;
qmp_command_fn qmp_query_balloon;
qmp_command_fn qmp_qom_get;

/**
 * qmp_add_balloon() - "actual-memory" and "wanted-memory" into @to, if the
 * guest has a balloon.
 */
void qmp_add_balloon(struct qmp_call *call, json_t *to);

#endif
