/* SPDX-License-Identifier: MIT */
/*
 * The machine as data: everything about a VM that is fixed when it is made.
 * `run` fills it from the command line, CONFIG carries it, a target builds
 * the same machine from it. No pointers, no host handles, no paths.
 */
#ifndef GODWIT_MACHINE_H
#define GODWIT_MACHINE_H

#include "arch/arch.h"
#include "devices/device.h"

#define MACHINE_NAME_MAX    64
#define MACHINE_DEVICES_MAX 32
#define MACHINE_CMDLINE_MAX 2048

struct machine {
	char name[MACHINE_NAME_MAX];
	uint64_t memory_size; /* bytes */
	uint32_t cpus;
	struct arch_cpu_model cpu_model;
	char cmdline[MACHINE_CMDLINE_MAX];
	uint32_t ndevices;
	struct device_config devices[MACHINE_DEVICES_MAX];
};

/**
 * machine_init() - a machine with the devices that are always there (serial0,
 * rtc0, power0, pci0, rng0, balloon0), without CPU model.
 */
void machine_init(struct machine *machine);

/**
 * machine_add_device() - append a device.
 *
 * Return: 0, -EEXIST when the id is taken, -ENOSPC.
 */
int __must_check machine_add_device(struct machine *machine,
				    const struct device_config *config,
				    struct error *err);

/**
 * machine_remove_device() - take a device out again; those after it move up.
 *
 * Return: was it there?
 */
bool machine_remove_device(struct machine *machine, const char *id);

/**
 * machine_find_type() - the first device of @type, or NULL.
 */
const struct device_config *machine_find_type(const struct machine *machine,
					      const char *type);

/**
 * machine_name_check() - is @name fit for a VM: 1 to 63 of [A-Za-z0-9._-], not
 * beginning with a dot or dash?
 */
int __must_check machine_name_check(const char *name, struct error *err);

/**
 * machine_id_check() - is @id fit for a device: 1 to 31 such letters?
 */
int __must_check machine_id_check(const char *id, struct error *err);

/**
 * machine_visit() - the machine in CONFIG.
 */
void machine_visit(struct codec *c, struct machine *machine);

/**
 * machine_check() - are all values in range, every device known, every vector
 * count possible, every id unique? Says nothing of what this host can do.
 */
int __must_check machine_check(const struct machine *machine,
			       struct error *err);

#endif
