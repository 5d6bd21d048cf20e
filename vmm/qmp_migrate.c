// SPDX-License-Identifier: MIT
/*
 * The QMP commands about migration; see qmp_migrate.h.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/qmp_migrate.h"

/* ---- arguments ---- */

static int bad_type(const char *name, const char *type, struct error *err)
{
	return error_set(err, -EINVAL,
			 "Invalid parameter type for '%s', expected: %s", name,
			 type);
}

/* No count that get_count() gives is as large. */
#define UNCHANGED UINT64_MAX

/* An argument that counts something; @ret is left alone without it. */
static int get_count(struct qmp_call *call, const char *name, uint64_t scale,
		     uint64_t *ret, struct error *err)
{
	json_t *value = json_object_get(call->arguments, name);
	json_int_t count = json_integer_value(value);

	if (!value)
		return 0;
	if (!json_is_integer(value))
		return bad_type(name, "integer", err);
	if (count < 0 || (uint64_t)count > INT64_MAX / scale)
		return error_set(err, -ERANGE,
				 "Parameter '%s': %lld is out of range", name,
				 (long long)count);
	*ret = (uint64_t)count * scale;
	return 0;
}

/* A time, with bounds that are the command line's, too. */
static int get_time(struct qmp_call *call, const char *name, uint64_t scale,
		    uint64_t least, uint64_t most, uint64_t *ret,
		    struct error *err)
{
	uint64_t ns = UNCHANGED;
	int rc = get_count(call, name, scale, &ns, err);

	if (rc || ns == UNCHANGED)
		return rc;
	if (ns < least || ns > most)
		return error_set(err, -ERANGE,
				 "Parameter '%s': %llu is out of range; give "
				 "%llu to %llu",
				 name, (unsigned long long)(ns / scale),
				 (unsigned long long)div_round_up(least, scale),
				 (unsigned long long)(most / scale));
	*ret = ns;
	return 0;
}

static int get_bool(struct qmp_call *call, const char *name, bool *ret,
		    struct error *err)
{
	json_t *value = json_object_get(call->arguments, name);

	if (value && !json_is_boolean(value))
		return bad_type(name, "boolean", err);
	if (value)
		*ret = json_is_true(value);
	return 0;
}

/* *@ret is NULL without it. */
static int get_string(struct qmp_call *call, const char *name, const char **ret,
		      struct error *err)
{
	json_t *value = json_object_get(call->arguments, name);

	if (value && !json_is_string(value))
		return bad_type(name, "string", err);
	*ret = json_string_value(value);
	return 0;
}

static int need_string(struct qmp_call *call, const char *name,
		       const char **ret, struct error *err)
{
	int rc = get_string(call, name, ret, err);

	if (!rc && !*ret)
		return error_set(err, -EINVAL, "Parameter '%s' is missing",
				 name);
	return rc;
}

/* ---- descriptors ---- */

/* Take a named descriptor out of the session; -1 when there is none. */
static int take_named(struct qmp_session *session, const char *name)
{
	for (unsigned int i = 0; i < session->nfds; i++) {
		int fd = session->fds[i].fd;

		if (strcmp(session->fds[i].name, name))
			continue;
		session->fds[i] = session->fds[--session->nfds];
		return fd;
	}
	return -1;
}

json_t *qmp_getfd(struct qmp_call *call, struct error *err)
{
	struct qmp_session *session = call->session;
	const char *name;
	int old;

	if (need_string(call, "fdname", &name, err))
		return NULL;
	if (isdigit((unsigned char)name[0]) ||
	    strlen(name) >= sizeof(session->fds[0].name)) {
		(void)error_set(err, -EINVAL,
				"Parameter 'fdname' expects a short name not "
				"starting with a digit");
		return NULL;
	}
	if (session->arrived_fd < 0) {
		(void)error_set(err, -EINVAL,
				"No file descriptor supplied via SCM_RIGHTS");
		return NULL;
	}
	old = take_named(session, name);
	close_fd(&old);
	if (session->nfds == QMP_FDS_MAX) {
		(void)error_set(err, -EMFILE, "too many descriptors are held");
		return NULL;
	}
	strcpy(session->fds[session->nfds].name, name);
	session->fds[session->nfds++].fd = session->arrived_fd;
	session->arrived_fd = -1;
	return qmp_nothing();
}

json_t *qmp_closefd(struct qmp_call *call, struct error *err)
{
	const char *name;
	int fd;

	if (need_string(call, "fdname", &name, err))
		return NULL;
	fd = take_named(call->session, name);
	if (fd < 0) {
		(void)error_set(err, -ENOENT,
				"File descriptor named '%.40s' not found",
				name);
		return NULL;
	}
	close_fd(&fd);
	return qmp_nothing();
}

/* ---- migrate ---- */

static int take_fd_uri(struct qmp_call *call, const char *name,
		       struct address *ret, struct error *err)
{
	*ret = (struct address){ .kind = ADDRESS_FD };
	snprintf(ret->text, sizeof(ret->text), "fd:%.40s", name);
	ret->fd = take_named(call->session, name);
	if (ret->fd < 0)
		return error_set(err, -ENOENT,
				 "File descriptor named '%.40s' not found; "
				 "pass it with getfd first",
				 name);
	return 0;
}

/*
 * The host as a number, with a number after '%' for a link-local address's
 * interface. Names would have to be looked up, which blocks and opens files:
 * that is for the client.
 */
static int resolve_number(struct address *address, struct error *err)
{
	char host[sizeof(address->host)];
	char *scope;

	if (address->kind != ADDRESS_TCP)
		return 0;
	address->in.sin_port = htons(address->port);
	if (inet_pton(AF_INET, address->host, &address->in.sin_addr) == 1) {
		address->in.sin_family = AF_INET;
		address->len = sizeof(address->in);
		return 0;
	}
	snprintf(host, sizeof(host), "%s", address->host);
	scope = strchr(host, '%');
	if (scope) {
		*scope++ = '\0';
		address->in6.sin6_scope_id = (uint32_t)strtoul(scope, NULL, 10);
	}
	if (inet_pton(AF_INET6, host, &address->in6.sin6_addr) != 1)
		return error_set(err, -EINVAL,
				 "host '%.100s': not a number; look it up "
				 "first, as `godwit migrate` does",
				 address->host);
	address->in6.sin6_family = AF_INET6;
	address->len = sizeof(address->in6);
	return 0;
}

static int take_uri(struct qmp_call *call, struct address *ret,
		    struct error *err)
{
	const char *uri;
	int rc = need_string(call, "uri", &uri, err);

	if (rc)
		return rc;
	if (!strncmp(uri, "fd:", 3))
		return take_fd_uri(call, uri + 3, ret, err);
	rc = address_parse(uri, ret, err);
	if (!rc)
		rc = resolve_number(ret, err);
	return rc;
}

static int take_on_timeout(struct qmp_call *call, struct source_params *params,
			   struct error *err)
{
	const char *word = NULL;
	int rc = get_string(call, "x-godwit-on-timeout", &word, err);

	if (rc || !word)
		return rc;
	if (!strcmp(word, "cancel"))
		params->on_timeout = SOURCE_TIMEOUT_CANCEL;
	else if (!strcmp(word, "pause"))
		params->on_timeout = SOURCE_TIMEOUT_PAUSE;
	else
		return error_set(err, -EINVAL,
				 "Parameter 'x-godwit-on-timeout' expects "
				 "cancel or pause");
	return 0;
}

/* None, or enough to get anywhere; else the unit was forgotten. */
static int get_bandwidth(struct qmp_call *call, const char *name, uint64_t *ret,
			 struct error *err)
{
	uint64_t bandwidth = *ret;
	int rc = get_count(call, name, 1, &bandwidth, err);

	if (!rc && bandwidth && bandwidth < SOURCE_BANDWIDTH_MIN)
		return error_set(err, -ERANGE,
				 "Parameter '%s': %llu bytes a second move "
				 "nothing; give at least %llu, or 0 for no "
				 "limit",
				 name, (unsigned long long)bandwidth,
				 SOURCE_BANDWIDTH_MIN);
	*ret = bandwidth;
	return rc;
}

/* Numbers and flags; the address comes last, because it may take a fd. */
static int take_limits(struct qmp_call *call, struct source_params *params,
		       struct error *err)
{
	bool detach = false;
	int rc = get_bool(call, "detach", &detach, err);

	if (!rc)
		rc = get_time(call, "x-godwit-max-downtime-us", NS_PER_US,
			      SOURCE_DOWNTIME_MIN, SOURCE_DOWNTIME_MAX,
			      &params->max_downtime_ns, err);
	if (!rc)
		rc = get_time(call, "x-godwit-abort-after-us", NS_PER_US,
			      SOURCE_DOWNTIME_MIN, SOURCE_TIME_MAX,
			      &params->abort_after_ns, err);
	if (!rc)
		rc = get_bandwidth(call, "x-godwit-bandwidth",
				   &params->bandwidth, err);
	if (!rc)
		rc = get_time(call, "x-godwit-timeout-us", NS_PER_US,
			      SOURCE_TIMEOUT_MIN, SOURCE_TIME_MAX,
			      &params->timeout_ns, err);
	if (!rc)
		rc = get_bool(call, "x-godwit-offline", &params->offline, err);
	if (!rc)
		rc = get_bool(call, "x-godwit-verify", &params->verify, err);
	if (!rc)
		rc = get_bool(call, "x-godwit-dry-run", &params->dry_run, err);
	if (!rc)
		rc = take_on_timeout(call, params, err);
	if (!rc && params->dry_run && params->offline)
		rc = error_set(err, -EINVAL,
			       "x-godwit-dry-run: with x-godwit-offline there "
			       "are no rounds to tell anything from; leave one "
			       "out");
	return rc;
}

json_t *qmp_migrate(struct qmp_call *call, struct error *err)
{
	struct source_params params = *call->backend->params(call->opaque);

	if (take_limits(call, &params, err) || take_uri(call, &params.to, err))
		return NULL;
	if (call->backend->migrate(call->opaque, &params, err))
		return NULL;
	call->session->told_end = false;
	return qmp_nothing();
}

json_t *qmp_migrate_cancel(struct qmp_call *call, struct error *err)
{
	if (call->backend->cancel(call->opaque, err))
		return NULL;
	return qmp_nothing();
}

json_t *qmp_resolve(struct qmp_call *call, struct error *err)
{
	bool resume = false;

	if (!json_object_get(call->arguments, "resume")) {
		(void)error_set(err, -EINVAL, "Parameter 'resume' is missing");
		return NULL;
	}
	if (get_bool(call, "resume", &resume, err) ||
	    call->backend->resolve(call->opaque, resume, err))
		return NULL;
	return qmp_nothing();
}

json_t *qmp_migrate_set_parameters(struct qmp_call *call, struct error *err)
{
	const struct qmp_backend *backend = call->backend;
	uint64_t downtime = UNCHANGED, bandwidth = UNCHANGED;

	if (get_time(call, "downtime-limit", NS_PER_MS, SOURCE_DOWNTIME_MIN,
		     SOURCE_DOWNTIME_MAX, &downtime, err) ||
	    get_time(call, "x-godwit-downtime-limit-us", NS_PER_US,
		     SOURCE_DOWNTIME_MIN, SOURCE_DOWNTIME_MAX, &downtime,
		     err) ||
	    get_bandwidth(call, "max-bandwidth", &bandwidth, err))
		return NULL;
	/* Only what is named: a migration may have limits of its own. */
	if (downtime != UNCHANGED)
		backend->set_max_downtime(call->opaque, downtime);
	if (bandwidth != UNCHANGED)
		backend->set_bandwidth(call->opaque, bandwidth);
	return qmp_nothing();
}

/* Those of the migration that is under way, else of the next. */
json_t *qmp_query_migrate_parameters(struct qmp_call *call,
				     struct error *err __maybe_unused)
{
	const struct source_params *params =
		call->backend->params(call->opaque);
	uint64_t downtime = params->max_downtime_ns;
	uint64_t bandwidth = params->bandwidth;
	struct report report;

	if (call->backend->report(call->opaque, &report) &&
	    !report_status_ended(report.status)) {
		downtime = report.max_downtime_ns;
		bandwidth = report.bandwidth_cap;
	}
	return json_pack("{s:I,s:I,s:I}", "downtime-limit",
			 (json_int_t)(downtime / NS_PER_MS),
			 "x-godwit-downtime-limit-us",
			 (json_int_t)(downtime / NS_PER_US), "max-bandwidth",
			 (json_int_t)bandwidth);
}

/* ---- query-migrate ---- */

/* What QEMU counts and godwit has nothing of: one connection, no post-copy. */
static void put_zeroes(json_t *ram)
{
	static const char *const names[] = {
		"skipped",	  "postcopy-requests",
		"postcopy-bytes", "dirty-sync-missed-zero-copy",
		"multifd-bytes",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		json_object_set_new(ram, names[i], json_integer(0));
}

/* QEMU's MigrationStats. */
static json_t *ram_json(const struct report *report)
{
	uint64_t normal = report->pages; /* the zero ones are apart */
	double mbps = (double)report->sent_per_s * 8 / 1e6;
	json_t *ram = json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:i,s:I,s:I,s:I,s:I}",
		"transferred", (json_int_t)report->bytes, "remaining",
		(json_int_t)(report->remaining_pages * GUEST_PAGE_SIZE),
		"total", (json_int_t)report->memory_size, "duplicate",
		(json_int_t)report->zero_pages, "normal", (json_int_t)normal,
		"normal-bytes", (json_int_t)(normal * GUEST_PAGE_SIZE),
		"dirty-pages-rate", (json_int_t)report->dirty_pages_per_s,
		"mbps", mbps, "page-size", (int)GUEST_PAGE_SIZE,
		"dirty-sync-count", (json_int_t)report->nrounds,
		"pages-per-second",
		(json_int_t)(report->sent_per_s / GUEST_PAGE_SIZE),
		"precopy-bytes",
		(json_int_t)(report->bytes - report->pause_bytes),
		"downtime-bytes", (json_int_t)report->pause_bytes);

	put_zeroes(ram);
	return ram;
}

static json_int_t to_ms(uint64_t ns)
{
	return (json_int_t)((ns + NS_PER_MS / 2) / NS_PER_MS);
}

static json_int_t to_us(uint64_t ns)
{
	return (json_int_t)((ns + NS_PER_US / 2) / NS_PER_US);
}

/* What there is at any time, in QEMU's shape and then ours. */
static json_t *progress_json(const struct report *report)
{
	const uint64_t *phase = report->phase_ns;
	uint64_t setup = phase[PHASE_HELLO] + phase[PHASE_CONFIG] +
			 phase[PHASE_REHEARSAL];

	return json_pack("{s:s,s:I,s:I,s:I,s:o,s:s,s:I,s:I,s:I,s:I,s:I}",
			 "status", report_status_name(report->status),
			 "total-time", to_ms(report->total_ns), "setup-time",
			 to_ms(setup), "expected-downtime",
			 to_ms(report->expected_ns), "ram", ram_json(report),
			 "phase", report_phase_name(report->phase),
			 "expected-downtime-us", to_us(report->expected_ns),
			 "predicted-downtime-us", to_us(report->predicted_ns),
			 "max-downtime-us", to_us(report->max_downtime_ns),
			 "max-bandwidth", (json_int_t)report->bandwidth_cap,
			 "bandwidth", (json_int_t)report->bandwidth);
}

/* What there is at some times only. */
static void put_outlook(json_t *json, const struct report *report)
{
	if (report->outlook != OUTLOOK_UNKNOWN)
		json_object_set_new(
			json, "converges",
			json_boolean(report->outlook == OUTLOOK_CONVERGES));
	if (report->throttle)
		json_object_set_new(json, "cpu-throttle-percentage",
				    json_integer(report->throttle));
}

json_t *qmp_migration_data(const struct report *report)
{
	json_t *json = progress_json(report);
	json_t *own = report_json(report);

	if (report->status == STATUS_COMPLETED) {
		json_object_set_new(json, "downtime",
				    json_integer(to_ms(report->downtime_ns)));
		json_object_set_new(json, "downtime-us",
				    json_integer(to_us(report->downtime_ns)));
	}
	put_outlook(json, report);
	if (report->dry_run)
		json_object_set_new(json, "dry-run", json_true());
	json_object_set(json, "phases", json_object_get(own, "phases"));
	json_object_set(json, "rounds", json_object_get(own, "rounds"));
	json_object_set(json, "throttled-vcpus",
			json_object_get(own, "throttled_vcpus"));
	if (report->status == STATUS_REHEARSED)
		json_object_set(json, "forecast",
				json_object_get(own, "forecast"));
	if (report->error[0])
		json_object_set_new(json, "error-desc",
				    json_string(report->error));
	json_decref(own);
	return json;
}

json_t *qmp_query_migrate(struct qmp_call *call,
			  struct error *err __maybe_unused)
{
	struct report report;

	if (!call->backend->report(call->opaque, &report))
		return qmp_nothing();
	call->session->told_end |= report_status_ended(report.status);
	return qmp_migration_data(&report);
}

json_t *qmp_report(struct qmp_call *call, struct error *err)
{
	struct report report;

	if (!call->backend->report(call->opaque, &report)) {
		(void)error_set(err, -ENOENT, "there was no migration yet");
		return NULL;
	}
	call->session->told_end |= report_status_ended(report.status);
	return report_json(&report);
}
