// SPDX-License-Identifier: MIT
/*
 * Consoles over QMP; see qmp_console.h. QEMU has nothing like it: there, each
 * console that somebody may want to look at later needs a socket of its own
 * from the beginning.
 */
#include <errno.h>
#include <stdio.h>

#include "vmm/qmp_console.h"

static int take_device(struct qmp_call *call, const char **ret,
		       struct error *err)
{
	json_t *device = json_object_get(call->arguments, "device");

	*ret = json_string_value(device);
	if (device && !*ret)
		return error_set(err, -EINVAL,
				 "Invalid parameter type for 'device', "
				 "expected: string");
	return 0;
}

static int take_number(struct qmp_call *call, const char *name, int64_t max,
		       int64_t fallback, int64_t *ret, struct error *err)
{
	json_t *number = json_object_get(call->arguments, name);

	*ret = number ? json_integer_value(number) : fallback;
	if (number && !json_is_integer(number))
		return error_set(err, -EINVAL,
				 "Invalid parameter type for '%s', expected: "
				 "integer",
				 name);
	if (*ret < 0 || *ret > max)
		return error_set(err, -EINVAL,
				 "Parameter '%s' expects a number from 0 to "
				 "%lld",
				 name, (long long)max);
	return 0;
}

json_t *qmp_console(struct qmp_call *call, struct error *err)
{
	struct qmp_session *session = call->session;
	struct qmp_console console;
	const char *device;
	int64_t from;

	if (take_device(call, &device, err) ||
	    take_number(call, "from", INT64_MAX, 0, &from, err) ||
	    call->backend->find_console(call->opaque, device, &console, err))
		return NULL;
	snprintf(session->watches, sizeof(session->watches), "%s",
		 console.device);
	session->watches_from =
		MAX(console.first, MIN((uint64_t)from, console.end));
	return json_pack("{s:s,s:I}", "device", session->watches, "offset",
			 (json_int_t)session->watches_from);
}

json_t *qmp_console_size(struct qmp_call *call, struct error *err)
{
	int64_t columns, rows;
	const char *device;

	if (take_device(call, &device, err) ||
	    take_number(call, "columns", UINT16_MAX, 0, &columns, err) ||
	    take_number(call, "rows", UINT16_MAX, 0, &rows, err) ||
	    call->backend->resize_console(call->opaque, device,
					  (uint16_t)columns, (uint16_t)rows,
					  err))
		return NULL;
	return qmp_nothing();
}
