// SPDX-License-Identifier: MIT
/*
 * QMP's framework: greeting, negotiation, dispatch, errors, events; see qmp.h.
 * The commands themselves are in qmp_commands.c and qmp_migrate.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/qmp_internal.h"

/* Deeper than any request, shallow enough for any parser's stack. */
#define JSON_FLAGS (JSON_REJECT_DUPLICATES)

json_t *qmp_nothing(void)
{
	return json_object();
}

json_t *qmp_version(void)
{
	const char *at = GODWIT_VERSION;
	long part[3] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		char *end;

		part[i] = strtol(at, &end, 10);
		at = *end == '.' ? end + 1 : end;
	}
	return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "major", (int)part[0],
			 "minor", (int)part[1], "micro", (int)part[2],
			 "package", "godwit " GODWIT_VERSION);
}

json_t *qmp_greeting(void)
{
	return json_pack("{s:{s:o,s:[]}}", "QMP", "version", qmp_version(),
			 "capabilities");
}

json_t *qmp_error(const char *class, const char *text)
{
	/* %s would refuse a text that quotes a peer's broken UTF-8. */
	json_t *desc = json_string(text);

	if (!desc)
		desc = json_string("(a text that can't be shown)");
	return json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc",
			 desc);
}

json_t *qmp_event(const char *name, json_t *data)
{
	uint64_t now = clock_real_ns();
	json_t *event = json_pack("{s:s,s:{s:I,s:I}}", "event", name,
				  "timestamp", "seconds",
				  (json_int_t)(now / NS_PER_S), "microseconds",
				  (json_int_t)(now % NS_PER_S / NS_PER_US));

	if (event && data)
		json_object_set_new(event, "data", data);
	return event;
}

/* ---- sessions ---- */

void qmp_session_init(struct qmp_session *session)
{
	*session = (struct qmp_session){ .arrived_fd = -1 };
}

void qmp_session_fini(struct qmp_session *session)
{
	close_fd(&session->arrived_fd);
	while (session->nfds)
		close_fd(&session->fds[--session->nfds].fd);
}

void qmp_session_take_fd(struct qmp_session *session, int fd)
{
	close_fd(&session->arrived_fd);
	session->arrived_fd = fd;
}

/* ---- dispatch ---- */

static json_t *refuse(const char *class, const char *fmt, ...) __printf(2, 3);

static json_t *refuse(const char *class, const char *fmt, ...)
{
	struct error err;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err.text, sizeof(err.text), fmt, ap);
	va_end(ap);
	return qmp_error(class, err.text);
}

static const struct qmp_command *find_command(const char *name)
{
	for (size_t i = 0; i < qmp_commands_count; i++) {
		if (!strcmp(qmp_commands[i].name, name))
			return &qmp_commands[i];
	}
	return NULL;
}

static const char *unexpected_argument(const struct qmp_command *command,
				       json_t *arguments)
{
	const char *name;
	json_t *value;

	json_object_foreach(arguments, name, value)
	{
		bool known = false;

		for (size_t i = 0; command->arguments[i]; i++)
			known |= !strcmp(command->arguments[i], name);
		if (!known)
			return name;
	}
	return NULL;
}

static json_t *call_command(struct qmp_call *call,
			    const struct qmp_command *command)
{
	const char *odd = unexpected_argument(command, call->arguments);
	struct error err;
	json_t *ret;

	if (odd)
		return refuse("GenericError", "Parameter '%s' is unexpected",
			      odd);
	err.text[0] = '\0';
	ret = command->fn(call, &err);
	if (!ret)
		return qmp_error("GenericError", err.text);
	return json_pack("{s:o}", "return", ret);
}

static json_t *dispatch(struct qmp_call *call, const char *name)
{
	const struct qmp_command *command = find_command(name);

	if (!call->session->negotiated &&
	    (!command || !command->before_negotiation))
		return qmp_error("CommandNotFound",
				 "Expecting capabilities negotiation with "
				 "'qmp_capabilities'");
	if (!command)
		return refuse("CommandNotFound",
			      "The command %s has not been found", name);
	if (call->session->negotiated && command->before_negotiation)
		return qmp_error(
			"CommandNotFound",
			"Capabilities negotiation is already complete, "
			"command ignored");
	return call_command(call, command);
}

/* What a request is made of: nothing but these. */
static json_t *check_shape(json_t *request)
{
	const char *key;
	json_t *value;

	if (!json_is_object(request))
		return qmp_error("GenericError",
				 "QMP input must be a JSON object");
	json_object_foreach(request, key, value)
	{
		if (strcmp(key, "execute") && strcmp(key, "arguments") &&
		    strcmp(key, "id"))
			return refuse("GenericError",
				      "QMP input member '%s' is unexpected",
				      key);
	}
	value = json_object_get(request, "arguments");
	if (value && !json_is_object(value))
		return qmp_error("GenericError",
				 "QMP input member 'arguments' must be an "
				 "object");
	if (!json_is_string(json_object_get(request, "execute")))
		return qmp_error("GenericError",
				 "QMP input lacks member 'execute'");
	return NULL;
}

json_t *qmp_handle(struct qmp_session *session,
		   const struct qmp_backend *backend, void *opaque,
		   const char *line, size_t len)
{
	struct qmp_call call = { session, backend, opaque, NULL };
	json_t *none = json_object();
	json_error_t where;
	json_t *request = json_loadb(line, len, JSON_FLAGS, &where);
	json_t *answer, *id;

	if (!request) {
		json_decref(none);
		return refuse("GenericError", "JSON parse error, %s",
			      where.text);
	}
	answer = check_shape(request);
	if (!answer) {
		call.arguments = json_object_get(request, "arguments");
		if (!call.arguments)
			call.arguments = none;
		answer = dispatch(&call, json_string_value(json_object_get(
						 request, "execute")));
	}
	id = json_object_get(request, "id");
	if (id && answer)
		json_object_set(answer, "id", id);
	json_decref(request);
	json_decref(none);
	return answer;
}
