// SPDX-License-Identifier: MIT
/*
 * Whatever a client of the control socket may send: lines, each a request to a
 * backend that does nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void info(void *opaque, struct qmp_info *ret)
{
	(void)opaque;
	*ret = (struct qmp_info){ .name = "fuzz",
				  .moving_to = "unix:nowhere",
				  .status = "running",
				  .reason = "",
				  .session = "",
				  .running = true,
				  .cpus = 1,
				  .memory = GIB };
}

static int act(void *opaque, struct error *err)
{
	(void)opaque;
	return error_set(err, -EPERM, "not while fuzzing");
}

static void quit(void *opaque, pid_t by)
{
	(void)opaque;
	(void)by;
}

static int migrate(void *opaque, const struct source_params *params,
		   struct error *err)
{
	(void)opaque;
	(void)params;
	return error_set(err, -EPERM, "not while fuzzing");
}

static int resolve(void *opaque, bool resume, struct error *err)
{
	(void)opaque;
	(void)resume;
	return error_set(err, -EPERM, "not while fuzzing");
}

static const struct source_params *params(void *opaque)
{
	return opaque;
}

static void set(void *opaque, uint64_t value)
{
	(void)opaque;
	(void)value;
}

static bool report(void *opaque, struct report *ret)
{
	(void)opaque;
	memset(ret, 0, sizeof(*ret));
	return true;
}

static bool disk(void *opaque, uint32_t index, struct qmp_disk *ret)
{
	(void)opaque;
	*ret = (struct qmp_disk){ .id = "disk0", .path = "/a" };
	return !index;
}

static int find_console(void *opaque, const char *device,
			struct qmp_console *ret, struct error *err)
{
	(void)opaque;
	(void)err;
	*ret = (struct qmp_console){ device ? device : "serial0", 0, 9 };
	return 0;
}

static int resize_console(void *opaque, const char *device, uint16_t columns,
			  uint16_t rows, struct error *err)
{
	(void)device;
	(void)columns;
	(void)rows;
	return act(opaque, err);
}

static bool balloon(void *opaque, struct balloon_info *ret)
{
	(void)opaque;
	memset(ret, 0, sizeof(*ret));
	return true;
}

static int set_balloon(void *opaque, uint64_t bytes, struct error *err)
{
	(void)bytes;
	return act(opaque, err);
}

static char *show(void *opaque, bool *ret_came_along)
{
	(void)opaque;
	*ret_came_along = false;
	return strdup("godwit run");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct qmp_backend backend = {
		.info = info,
		.stop = act,
		.cont = act,
		.powerdown = act,
		.reset = act,
		.quit = quit,
		.migrate = migrate,
		.cancel = act,
		.resolve = resolve,
		.params = params,
		.set_max_downtime = set,
		.set_bandwidth = set,
		.report = report,
		.disk = disk,
		.find_console = find_console,
		.resize_console = resize_console,
		.balloon = balloon,
		.set_balloon = set_balloon,
		.show = show,
	};
	struct source_params own = source_params_default;
	struct qmp_session session;
	const char *line = (const char *)data;

	qmp_session_init(&session);
	while (size) {
		const char *end = memchr(line, '\n', size);
		size_t len = end ? (size_t)(end - line) : size;

		json_decref(qmp_handle(&session, &backend, &own, line, len));
		if (!end)
			break;
		size -= len + 1;
		line = end + 1;
	}
	qmp_session_fini(&session);
	return 0;
}
