// SPDX-License-Identifier: MIT
/*
 * The QMP commands about the VM itself, and the table of all; see qmp.h.
 * Shapes are those of QEMU's qapi/{control,run-state,misc}.json.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/qmp_balloon.h"
#include "vmm/qmp_console.h"
#include "vmm/qmp_migrate.h"

static json_t *done(int rc)
{
	return rc ? NULL : qmp_nothing();
}

static json_t *qmp_capabilities(struct qmp_call *call, struct error *err)
{
	json_t *enable = json_object_get(call->arguments, "enable");

	if (enable && (!json_is_array(enable) || json_array_size(enable))) {
		(void)error_set(err, -EINVAL, "no capability can be enabled");
		return NULL;
	}
	call->session->negotiated = true;
	return qmp_nothing();
}

static json_t *query_version(struct qmp_call *call __maybe_unused,
			     struct error *err __maybe_unused)
{
	return qmp_version();
}

static json_t *query_commands(struct qmp_call *call __maybe_unused,
			      struct error *err __maybe_unused)
{
	json_t *list = json_array();

	for (size_t i = 0; i < qmp_commands_count; i++)
		json_array_append_new(
			list, json_pack("{s:s}", "name", qmp_commands[i].name));
	return list;
}

static json_t *query_name(struct qmp_call *call,
			  struct error *err __maybe_unused)
{
	struct qmp_info info;

	call->backend->info(call->opaque, &info);
	if (!info.name[0])
		return qmp_nothing();
	return json_pack("{s:s}", "name", info.name);
}

static json_t *query_status(struct qmp_call *call,
			    struct error *err __maybe_unused)
{
	struct qmp_info info;

	call->backend->info(call->opaque, &info);
	return json_pack("{s:b,s:b,s:s}", "running", info.running, "singlestep",
			 0, "status", info.status);
}

/* All that `status` and `list` show, in one answer. */
static json_t *query_all(struct qmp_call *call,
			 struct error *err __maybe_unused)
{
	struct qmp_info info;
	json_t *all;

	call->backend->info(call->opaque, &info);
	all = json_pack("{s:s,s:s,s:s,s:s,s:b,s:i,s:I,s:I}", "name", info.name,
			"status", info.uncertain ? "uncertain" : info.status,
			"reason", info.reason, "session", info.session,
			"running", info.running, "pid", getpid(), "cpus",
			(json_int_t)info.cpus, "memory",
			(json_int_t)info.memory);
	if (info.moving_to[0]) {
		json_object_set_new(all, "moving-to",
				    json_string(info.moving_to));
		json_object_set_new(all, "dry-run", json_boolean(info.dry_run));
	}
	qmp_add_balloon(call, all);
	return all;
}

/* BlockDeviceInfo; what can't be had is what QEMU says when it is off. */
static json_t *inserted(const struct qmp_disk *disk)
{
	json_t *image =
		json_pack("{s:s,s:s,s:I}", "filename", disk->path, "format",
			  "raw", "virtual-size", (json_int_t)disk->size);
	json_t *cache = json_pack("{s:b,s:b,s:b}", "writeback", 1, "direct",
				  disk->direct, "no-flush", 0);
	json_t *ret = json_pack(
		"{s:s,s:s,s:b,s:s,s:i,s:b,s:s,s:i,s:o,s:o}", "file", disk->path,
		"node-name", disk->id, "ro", disk->readonly, "drv", "raw",
		"backing_file_depth", 0, "encrypted", 0, "detect_zeroes", "off",
		"write_threshold", 0, "image", image, "cache", cache);
	static const char *const limits[] = { "bps",  "bps_rd",	 "bps_wr",
					      "iops", "iops_rd", "iops_wr" };

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		json_object_set_new(ret, limits[i], json_integer(0));
	return ret;
}

static json_t *query_block(struct qmp_call *call,
			   struct error *err __maybe_unused)
{
	json_t *list = json_array();
	struct qmp_disk disk;

	for (uint32_t i = 0; call->backend->disk(call->opaque, i, &disk); i++)
		json_array_append_new(
			list, json_pack("{s:s,s:s,s:s,s:b,s:b,s:o}", "device",
					disk.id, "qdev", disk.id, "type",
					"unknown", "locked", 0, "removable", 0,
					"inserted", inserted(&disk)));
	return list;
}

static json_t *stop(struct qmp_call *call, struct error *err)
{
	return done(call->backend->stop(call->opaque, err));
}

static json_t *cont(struct qmp_call *call, struct error *err)
{
	return done(call->backend->cont(call->opaque, err));
}

static json_t *system_powerdown(struct qmp_call *call, struct error *err)
{
	return done(call->backend->powerdown(call->opaque, err));
}

static json_t *system_reset(struct qmp_call *call, struct error *err)
{
	return done(call->backend->reset(call->opaque, err));
}

static json_t *quit(struct qmp_call *call, struct error *err __maybe_unused)
{
	call->backend->quit(call->opaque, call->session->peer);
	return qmp_nothing();
}

static json_t *show(struct qmp_call *call, struct error *err)
{
	bool came_along;
	char *line = call->backend->show(call->opaque, &came_along);
	json_t *ret = NULL;

	if (line)
		ret = json_pack("{s:s,s:b}", "line", line, "image-came-along",
				came_along);
	if (!ret)
		(void)error_set(err, -ENOENT, "there is no guest yet");
	free(line);
	return ret;
}

static json_t *cpu(struct qmp_call *call, struct error *err)
{
	char *facts = call->backend->cpu(call->opaque);
	json_t *ret = NULL;

	if (facts)
		ret = json_pack("{s:s}", "facts", facts);
	if (!ret)
		(void)error_set(err, -ENOENT, "there is no guest yet");
	free(facts);
	return ret;
}

const struct qmp_command qmp_commands[] = {
	{ "qmp_capabilities", qmp_capabilities, { "enable" }, true },
	{ "query-version", query_version, { NULL }, false },
	{ "query-commands", query_commands, { NULL }, false },
	{ "query-name", query_name, { NULL }, false },
	{ "query-status", query_status, { NULL }, false },
	{ "balloon", qmp_balloon, { "value" }, false },
	{ "query-balloon", qmp_query_balloon, { NULL }, false },
	{ "qom-get", qmp_qom_get, { "path", "property" }, false },
	{ "query-block", query_block, { NULL }, false },
	{ "stop", stop, { NULL }, false },
	{ "cont", cont, { NULL }, false },
	{ "system_powerdown", system_powerdown, { NULL }, false },
	{ "system_reset", system_reset, { NULL }, false },
	{ "quit", quit, { NULL }, false },
	{ "getfd", qmp_getfd, { "fdname" }, false },
	{ "closefd", qmp_closefd, { "fdname" }, false },
	{ "migrate", qmp_migrate, QMP_MIGRATE_ARGUMENTS, false },
	{ "migrate_cancel", qmp_migrate_cancel, { NULL }, false },
	{ "migrate-set-parameters", qmp_migrate_set_parameters, QMP_PARAMETERS,
	  false },
	{ "query-migrate-parameters",
	  qmp_query_migrate_parameters,
	  { NULL },
	  false },
	{ "query-migrate", qmp_query_migrate, { NULL }, false },
	{ "x-godwit-report", qmp_report, { NULL }, false },
	{ "x-godwit-resolve", qmp_resolve, { "resume" }, false },
	{ "x-godwit-info", query_all, { NULL }, false },
	{ "x-godwit-show", show, { NULL }, false },
	{ "x-godwit-cpu", cpu, { NULL }, false },
	{ "x-godwit-console", qmp_console, { "device", "from" }, false },
	{ "x-godwit-console-size",
	  qmp_console_size,
	  { "device", "columns", "rows" },
	  false },
};
const size_t qmp_commands_count = ARRAY_SIZE(qmp_commands);
