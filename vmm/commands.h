/* SPDX-License-Identifier: MIT */
/*
 * The commands that are clients of a running VM's control socket. Each gives
 * the exit status and has said on stderr what there was to say.
 */
#ifndef GODWIT_COMMANDS_H
#define GODWIT_COMMANDS_H

#include "vmm/options.h"

/* Of `migrate`, beside those that all commands have. */
#define EXIT_ENDED     3 /* not moved, and the guest has ended here */
#define EXIT_UNCERTAIN 4
#define EXIT_OVER      5 /* a dry run: not within --max-downtime */

/**
 * command_failed() - say of the VM @name what is wrong.
 *
 * Return: the exit status.
 */
int command_failed(const char *name, const struct error *err);

/**
 * command_simple() - `pause`, `resume`, `reset`, `poweroff`, `kill`, `cancel`.
 */
int command_simple(const char *command, const char *name);

int command_status(const struct name_options *options);
int command_show(const struct name_options *options);
int command_list(const struct name_options *options);
int command_resolve(const struct name_options *options);
int command_set(const struct set_options *options);

/**
 * command_cpu() - `cpu`, which mostly asks this host.
 */
int command_cpu(const struct cpu_options *options);

/**
 * command_migrate() - start a move and follow it to its end.
 */
int command_migrate(const struct migrate_options *options);

int command_console(const struct attach_options *options);

#endif
