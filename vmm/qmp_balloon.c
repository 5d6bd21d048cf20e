// SPDX-License-Identifier: MIT
/*
 * The QMP commands about a guest's memory; see qmp_balloon.h. Shapes are those
 * of QEMU's qapi/machine.json, and of its balloon's property guest-stats
 * (docs/interop/virtio-balloon-stats).
 */
#include <errno.h>
#include <string.h>

#include "vmm/qmp_balloon.h"

#define BALLOON_PATH "/machine/peripheral/balloon0"

static bool look(struct qmp_call *call, struct balloon_info *ret,
		 struct error *err)
{
	if (call->backend->balloon(call->opaque, ret))
		return true;
	(void)error_set(err, -ENODEV, "No balloon device has been activated");
	return false;
}

json_t *qmp_balloon(struct qmp_call *call, struct error *err)
{
	json_t *value = json_object_get(call->arguments, "value");

	if (!json_is_integer(value) || json_integer_value(value) <= 0) {
		(void)error_set(err, -EINVAL,
				"Parameter 'value' expects a size");
		return NULL;
	}
	if (call->backend->set_balloon(
		    call->opaque, (uint64_t)json_integer_value(value), err))
		return NULL;
	return qmp_nothing();
}

json_t *qmp_query_balloon(struct qmp_call *call, struct error *err)
{
	struct balloon_info info;

	if (!look(call, &info, err))
		return NULL;
	return json_pack("{s:I}", "actual", (json_int_t)info.actual);
}

/* The guest is asked anew each time; what it says then is for the next. */
static json_t *guest_stats(const struct balloon_info *info)
{
	json_t *stats = json_object();

	for (unsigned int i = 0; i < BALLOON_STATS; i++)
		json_object_set_new(stats, balloon_stat_name(i),
				    json_integer((json_int_t)info->stats[i]));
	return json_pack("{s:o,s:I}", "stats", stats, "last-update",
			 (json_int_t)info->told_s);
}

json_t *qmp_qom_get(struct qmp_call *call, struct error *err)
{
	const char *path =
		json_string_value(json_object_get(call->arguments, "path"));
	const char *property =
		json_string_value(json_object_get(call->arguments, "property"));
	struct balloon_info info;

	if (!path || !property) {
		(void)error_set(err, -EINVAL,
				"Parameters 'path' and 'property' are strings");
		return NULL;
	}
	if ((strcmp(path, BALLOON_PATH) && strcmp(path, "balloon0")) ||
	    strcmp(property, "guest-stats")) {
		(void)error_set(err, -ENOENT,
				"%.64s has no %.64s; " BALLOON_PATH
				" has guest-stats",
				path, property);
		return NULL;
	}
	return look(call, &info, err) ? guest_stats(&info) : NULL;
}

void qmp_add_balloon(struct qmp_call *call, json_t *to)
{
	struct balloon_info info;

	if (!call->backend->balloon(call->opaque, &info))
		return;
	json_object_set_new(to, "actual-memory",
			    json_integer((json_int_t)info.actual));
	json_object_set_new(to, "wanted-memory",
			    json_integer((json_int_t)info.wanted));
	json_object_set_new(to, "balloon-driver", json_boolean(info.driven));
}
