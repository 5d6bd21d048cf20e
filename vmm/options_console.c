// SPDX-License-Identifier: MIT
/*
 * --serial and --console, as `run` and `listen` have them: where a console of
 * the guest's goes on this host.
 */
#include <errno.h>
#include <string.h>

#include "vmm/options_internal.h"

static int take_socket_path(const char *value, const char **ret,
			    struct error *err)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (strlen(value) > max)
		return option_refuse(err,
				     "a socket's path has at most %zu bytes; "
				     "give a shorter one",
				     max);
	return option_take_path(value, ret, err);
}

int option_console(const char *value, struct console_options *ret,
		   struct error *err)
{
	if (!strcmp(value, "stdio")) {
		ret->kind = CONSOLE_STDIO;
		return 0;
	}
	if (!strcmp(value, "null")) {
		ret->kind = CONSOLE_NULL;
		return 0;
	}
	if (!strncmp(value, "unix:", 5)) {
		ret->kind = CONSOLE_UNIX;
		return take_socket_path(value + 5, &ret->path, err);
	}
	if (!strncmp(value, "file:", 5)) {
		ret->kind = CONSOLE_FILE;
		return option_take_path(value + 5, &ret->path, err);
	}
	return option_refuse(err, "not a console; give stdio, unix:PATH, "
				  "file:PATH or null");
}

/* Standard input and output are one console's. */
int option_share_stdio(struct process_options *process, struct error *err)
{
	const struct consoles_options *consoles = &process->consoles;
	int user = -1;

	for (uint32_t i = 0; i < consoles->count; i++) {
		if (consoles->consoles[i].kind != CONSOLE_STDIO)
			continue;
		if (user >= 0)
			return option_refuse(err,
					     "--console stdio: standard input "
					     "and output are console%d's "
					     "already; give unix:PATH, "
					     "file:PATH or null",
					     user);
		user = (int)i;
	}
	if (user < 0)
		return 0;
	if (process->has_serial && process->serial.kind == CONSOLE_STDIO)
		return option_refuse(err,
				     "--serial stdio: standard input and "
				     "output are console%d's; give unix:PATH, "
				     "file:PATH or null",
				     user);
	if (!process->has_serial)
		process->serial.kind = CONSOLE_NULL;
	return 0;
}
