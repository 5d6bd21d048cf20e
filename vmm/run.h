/* SPDX-License-Identifier: MIT */
/*
 * The two commands that hold a VM. Each blocks until the VM is over, prints
 * what there is to say on stderr, and gives the exit status.
 */
#ifndef GODWIT_RUN_H
#define GODWIT_RUN_H

#include "vmm/options.h"

/**
 * run_command() - `godwit run`: make a VM and boot it.
 */
int run_command(const struct run_options *options);

/**
 * listen_command() - `godwit listen`: take a guest from another godwit.
 */
int listen_command(const struct listen_options *options);

#endif
