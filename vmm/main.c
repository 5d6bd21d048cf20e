// SPDX-License-Identifier: MIT
/*
 * The program: which command was meant, and with which options.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/commands.h"
#include "vmm/help.h"
#include "vmm/log.h"
#include "vmm/run.h"

/* What parsing gave when it didn't give 0: help was asked for, or usage. */
static int not_parsed(int rc, const char *command, const struct error *err)
{
	if (rc == OPTIONS_HELP) {
		help_print(help_find(command), stdout);
		return EXIT_SUCCESS;
	}
	log_error("%s: %s", command, err->text);
	return EXIT_USAGE;
}

static void set_verbosity(unsigned int verbosity)
{
	if (verbosity)
		log_set_level(verbosity > 1 ? LOG_DEBUG : LOG_INFO);
}

static int do_run(const char *command, char *const argv[])
{
	struct run_options options;
	struct error err;
	int rc = options_run(argv, &options, &err);

	if (rc)
		return not_parsed(rc, command, &err);
	set_verbosity(options.process.verbosity);
	return run_command(&options);
}

static int do_listen(const char *command, char *const argv[])
{
	struct listen_options options;
	struct error err;
	int rc = options_listen(argv, &options, &err);

	if (rc)
		return not_parsed(rc, command, &err);
	set_verbosity(options.process.verbosity);
	return listen_command(&options);
}

static int do_migrate(const char *command, char *const argv[])
{
	struct migrate_options options;
	struct error err;
	int rc = options_migrate(argv, &options, &err);

	return rc ? not_parsed(rc, command, &err) : command_migrate(&options);
}

static int do_set(const char *command, char *const argv[])
{
	struct set_options options;
	struct error err;
	int rc = options_set(argv, &options, &err);

	return rc ? not_parsed(rc, command, &err) : command_set(&options);
}

static int do_cpu(const char *command, char *const argv[])
{
	struct cpu_options options;
	struct error err;
	int rc = options_cpu(argv, &options, &err);

	return rc ? not_parsed(rc, command, &err) : command_cpu(&options);
}

static int do_console(const char *command, char *const argv[])
{
	struct attach_options options;
	struct error err;
	int rc = options_attach(argv, &options, &err);

	return rc ? not_parsed(rc, command, &err) : command_console(&options);
}

static int do_named(const char *command, char *const argv[])
{
	struct name_options options;
	struct error err;
	int rc = options_name(command, argv, &options, &err);

	if (rc)
		return not_parsed(rc, command, &err);
	if (!strcmp(command, "status"))
		return command_status(&options);
	if (!strcmp(command, "show"))
		return command_show(&options);
	if (!strcmp(command, "list"))
		return command_list(&options);
	if (!strcmp(command, "resolve"))
		return command_resolve(&options);
	return command_simple(command, options.name);
}

static int refuse_command(const char *command)
{
	const char *near = options_nearest(command, help_commands());

	if (near)
		log_error("%s: no such command; did you mean `godwit %s`?",
			  command, near);
	else
		log_error("%s: no such command; `godwit --help` lists them",
			  *command ? command : "''");
	return EXIT_USAGE;
}

static int do_help(const char *command)
{
	if (command && !help_find(command))
		return refuse_command(command);
	help_print(command ? help_find(command) : NULL, stdout);
	return EXIT_SUCCESS;
}

static int dispatch(const char *command, char *const argv[])
{
	if (!strcmp(command, "--help") || !strcmp(command, "-h"))
		return do_help(NULL);
	if (!strcmp(command, "help"))
		return do_help(argv[0]);
	if (!strcmp(command, "--version")) {
		help_version(stdout);
		return EXIT_SUCCESS;
	}
	if (!help_find(command))
		return refuse_command(command);
	if (!strcmp(command, "run"))
		return do_run(command, argv);
	if (!strcmp(command, "listen"))
		return do_listen(command, argv);
	if (!strcmp(command, "migrate"))
		return do_migrate(command, argv);
	if (!strcmp(command, "cpu"))
		return do_cpu(command, argv);
	if (!strcmp(command, "set"))
		return do_set(command, argv);
	if (!strcmp(command, "console"))
		return do_console(command, argv);
	return do_named(command, argv);
}

/*
 * Standard input, output and error exist: or the next file that is opened
 * would be taken for one of them. What is written to an output that was closed
 * has not been said, so that one can't be written to.
 */
static void fill_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int flags = fd == STDOUT_FILENO ? O_RDONLY : O_RDWR;

		/* The lowest one that is free is this one. */
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", flags);
	}
}

/* Has everything been said? The first write that failed counts. */
static bool output_lost(void)
{
	bool lost = ferror(stdout);

	if (fflush(stdout))
		return true;
	errno = EIO;
	return lost;
}

int main(int argc, char *argv[])
{
	int status;

	fill_standard_descriptors();
	if (argc < 2) {
		help_print(NULL, stderr);
		return EXIT_USAGE;
	}
	status = dispatch(argv[1], argv + 2);
	/* An answer that could not be printed was not given. */
	if (output_lost() && !status) {
		log_error("standard output: %s", strerror(errno));
		status = EXIT_FAILURE;
	}
	log_end();
	return status;
}
