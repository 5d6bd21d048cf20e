/* SPDX-License-Identifier: MIT */
/*
 * Commands as the dispatcher sees them; for qmp*.c only.
 */
#ifndef GODWIT_QMP_INTERNAL_H
#define GODWIT_QMP_INTERNAL_H

#include "vmm/qmp.h"

/* A request on its way. */
struct qmp_call {
	struct qmp_session *session;
	const struct qmp_backend *backend;
	void *opaque;
	json_t *arguments; /* an object, never NULL */
};

/*
 * Return: what goes under "return", a new reference; or NULL with @err. An
 * empty object is said by qmp_nothing().
 */
typedef json_t *qmp_command_fn(struct qmp_call *call, struct error *err);

struct qmp_command {
	const char *name;
	qmp_command_fn *fn;
	/* Names of its arguments; anything else is refused. NULL-terminated */
	const char *arguments[12];
	bool before_negotiation;
};

extern const struct qmp_command qmp_commands[];
extern const size_t qmp_commands_count;

json_t *qmp_nothing(void);

/**
 * qmp_version() - godwit's version in QEMU's shape.
 */
json_t *qmp_version(void);

#endif
