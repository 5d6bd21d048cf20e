/* SPDX-License-Identifier: MIT */
/*
 * The QMP commands about consoles, as the table of all commands has them.
 */
#ifndef GODWIT_QMP_CONSOLE_H
#define GODWIT_QMP_CONSOLE_H

#include "vmm/qmp_internal.h"

/**
 * qmp_console() - make this connection a console's.
 *
 * The answer says which, and with which byte it begins; what follows it, both
 * ways, is the guest's.
 */
json_t *qmp_console(struct qmp_call *call, struct error *err);

/**
 * qmp_console_size() - the window of a console has another size.
 */
json_t *qmp_console_size(struct qmp_call *call, struct error *err);

#endif
