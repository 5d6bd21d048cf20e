/* SPDX-License-Identifier: MIT */
/*
 * The debug-exit port: a byte written to it ends the VM with that status.
 */
#ifndef GODWIT_DEVICES_DEBUG_EXIT_H
#define GODWIT_DEVICES_DEBUG_EXIT_H

#include "devices/device.h"

extern const struct device_ops debug_exit_ops;

/**
 * debug_exit_create() - make the port; it takes no options.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check debug_exit_create(const struct device_env *env,
				   const struct device_config *config,
				   struct device **ret, struct error *err);

#endif
