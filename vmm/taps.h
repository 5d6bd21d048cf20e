/* SPDX-License-Identifier: MIT */
/*
 * Who opens which tap, or user-mode network: those that a command line names,
 * opened before the sandbox closes, and given to devices as they are made
 * (device.h, struct device_taps).
 *
 * `run` opens what its --net describe. `listen` opens what its own --net
 * ID=tap=NAME name, and keeps them silent until a guest is here: the network
 * may send them what it sends the guest where it still is. A card with offloads
 * needs a tap; one of the user kind gets what is named.
 *
 * User-mode networks are processes, and are started before all else is opened:
 * they inherit what there is.
 *
 * Threads: taps_open() and taps_free() on the main one; a listener's backends
 * on the migration's; taps_put_words() on any, once there is a VM.
 */
#ifndef GODWIT_TAPS_H
#define GODWIT_TAPS_H

#include <stdio.h>

#include "vmm/options.h"

struct taps;

/**
 * taps_open() - open what the command line names.
 * @listens: for a guest that comes; else for one that is made here.
 * @caged: whether processes that are started are confined.
 *
 * @options outlives the taps.
 *
 * Return: 0, or -errno with @err naming option, tap and remedy.
 */
int __must_check taps_open(const struct taps_options *options, bool listens,
			   bool caged, struct taps **ret, struct error *err);

/**
 * taps_free() - close what no device has. NULL is fine.
 */
void taps_free(struct taps *taps);

/**
 * taps_add_devices() - `run`: a device for each --net; one that has no mac=
 * gets an address at random.
 */
int __must_check taps_add_devices(const struct taps *taps,
				  struct machine *machine, struct error *err);

/**
 * taps_backends() - for the VM that is made; lives as long as @taps.
 */
const struct device_taps *taps_backends(const struct taps *taps);

/**
 * taps_put_words() - the value of the --net that would make device @config
 * again; false: no tap of ours.
 */
bool taps_put_words(const struct taps *taps, const struct device_config *config,
		    FILE *to);

#endif
