/* SPDX-License-Identifier: MIT */
/*
 * What godwit says about itself: every command, its options, its version. The
 * man page has the long form; nothing here names an option that is not there.
 */
#ifndef GODWIT_HELP_H
#define GODWIT_HELP_H

#include <stdio.h>

struct help {
	const char *command;
	const char *summary; /* one line, for the list of all */
	const char *usage;   /* what follows "godwit COMMAND" */
	const char *text;    /* options and examples, "" for none */
};

/**
 * help_find() - the help of a command; NULL when there is no such command.
 */
const struct help *help_find(const char *command);

/**
 * help_commands() - the names of all commands, NULL-terminated.
 */
const char *const *help_commands(void);

/**
 * help_print() - one command's help; NULL: the overview.
 */
void help_print(const struct help *help, FILE *to);

/**
 * help_version() - what `--version` prints.
 */
void help_version(FILE *to);

#endif
