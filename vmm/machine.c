// SPDX-License-Identifier: MIT
/*
 * The machine as data; see machine.h.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/machine.h"

static const struct device_config always[] = {
	{ .type = "serial", .id = "serial0" },
	{ .type = "rtc", .id = "rtc0" },
	{ .type = "power", .id = "power0" },
	/* Slot 0 is the bridge's: before all that sits on its bus. */
	{ .type = "pci", .id = "pci0" },
	/* A vector for its queue, one for its configuration. */
	{ .type = "virtio-rng", .id = "rng0", .vectors = 2 },
	/* Likewise, with five queues. */
	{ .type = "virtio-balloon", .id = "balloon0", .vectors = 6 },
};

void machine_init(struct machine *machine)
{
	*machine = (struct machine){ .cpus = 1, .memory_size = 256 * MIB };
	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		machine->devices[machine->ndevices++] = always[i];
}

static bool id_taken(const struct machine *machine, uint32_t before,
		     const char *id)
{
	for (uint32_t i = 0; i < before; i++) {
		if (!strcmp(machine->devices[i].id, id))
			return true;
	}
	return false;
}

int machine_add_device(struct machine *machine,
		       const struct device_config *config, struct error *err)
{
	if (machine->ndevices == MACHINE_DEVICES_MAX)
		return error_set(err, -ENOSPC, "a VM has at most %d devices",
				 MACHINE_DEVICES_MAX);
	if (id_taken(machine, machine->ndevices, config->id))
		return error_set(err, -EEXIST,
				 "device id %s: taken; give another with id=",
				 config->id);
	machine->devices[machine->ndevices++] = *config;
	return 0;
}

bool machine_remove_device(struct machine *machine, const char *id)
{
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		struct device_config *at = &machine->devices[i];

		if (strcmp(at->id, id))
			continue;
		machine->ndevices--;
		memmove(at, at + 1, (machine->ndevices - i) * sizeof(*at));
		return true;
	}
	return false;
}

const struct device_config *machine_find_type(const struct machine *machine,
					      const char *type)
{
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		if (!strcmp(machine->devices[i].type, type))
			return &machine->devices[i];
	}
	return NULL;
}

/* A word that is safe in a file name, a log line and a stream. */
static bool is_word(const char *text, size_t max)
{
	size_t len = strlen(text);

	if (!len || len > max || text[0] == '.' || text[0] == '-')
		return false;
	for (; *text; text++) {
		if (!isalnum((unsigned char)*text) && !strchr("._-", *text))
			return false;
	}
	return true;
}

int machine_name_check(const char *name, struct error *err)
{
	if (is_word(name, MACHINE_NAME_MAX - 1))
		return 0;
	return error_set(err, -EINVAL,
			 "name '%.64s': use 1 to %d letters, digits, '.', '_' "
			 "or '-', and begin with a letter, digit or '_'",
			 name, MACHINE_NAME_MAX - 1);
}

int machine_id_check(const char *id, struct error *err)
{
	if (is_word(id, DEVICE_ID_MAX - 1))
		return 0;
	return error_set(err, -EINVAL,
			 "id '%.64s': use 1 to %d letters, digits, '.', '_' or "
			 "'-', and begin with a letter, digit or '_'",
			 id, DEVICE_ID_MAX - 1);
}

static void device_visit(struct codec *c, struct device_config *config)
{
	codec_string(c, "type", config->type, sizeof(config->type));
	codec_string(c, "id", config->id, sizeof(config->id));
	codec_u32(c, "vectors", &config->vectors);
	codec_string(c, "options", config->options, sizeof(config->options));
}

void machine_visit(struct codec *c, struct machine *machine)
{
	codec_string(c, "name", machine->name, sizeof(machine->name));
	codec_u64(c, "memory_size", &machine->memory_size);
	codec_u32(c, "cpus", &machine->cpus);
	arch_cpu_model_visit(c, &machine->cpu_model);
	codec_string(c, "cmdline", machine->cmdline, sizeof(machine->cmdline));
	codec_count(c, "devices", &machine->ndevices, MACHINE_DEVICES_MAX);
	codec_enter(c, "device");
	for (uint32_t i = 0; i < machine->ndevices; i++)
		device_visit(c, &machine->devices[i]);
	codec_leave(c);
}

static int device_check(const struct machine *machine, uint32_t index,
			struct error *err)
{
	const struct device_config *config = &machine->devices[index];

	int rc = machine_id_check(config->id, err);

	if (rc) {
		error_prefix(err, "device");
		return rc;
	}
	if (!device_type_find(config->type))
		return error_set(err, -ENOTSUP,
				 "device %s: this godwit has no '%s' device",
				 config->id, config->type);
	if (config->vectors > DEVICE_VECTORS_MAX)
		return error_set(err, -ENOTSUP,
				 "device %s: %u vectors; at most %d a device, "
				 "so that any peer can hold them",
				 config->id, config->vectors,
				 DEVICE_VECTORS_MAX);
	if (id_taken(machine, index, config->id))
		return error_set(err, -EINVAL, "device id %s: used twice",
				 config->id);
	return 0;
}

/* A guest can't use memory that its processor has no addresses for. */
static int check_reach(const struct machine *machine, struct error *err)
{
	uint64_t end = machine->memory_size;
	unsigned int bits = arch_cpu_address_bits(&machine->cpu_model);

	if (end > ARCH_HOLE_START)
		end += ARCH_HOLE_END - ARCH_HOLE_START;
	if (bits >= 64 || end <= 1ULL << bits)
		return 0;
	return error_set(err, -EINVAL,
			 "memory: %llu MiB reach beyond the %u bits of address "
			 "that the processor has; ask for less, or for a --cpu "
			 "with more phys-bits",
			 machine->memory_size / MIB, bits);
}

int machine_check(const struct machine *machine, struct error *err)
{
	uint64_t size = machine->memory_size;
	int rc = machine_name_check(machine->name, err);

	if (rc)
		return rc;
	if (size < MEMORY_MIN || size > MEMORY_MAX || size % MEMORY_GRANULE)
		return error_set(err, -EINVAL,
				 "memory: %llu bytes; a whole number of MiB "
				 "from %llu to %llu is possible",
				 (unsigned long long)size, MEMORY_MIN / MIB,
				 MEMORY_MAX / MIB);
	if (!machine->cpus || machine->cpus > ARCH_CPUS_MAX)
		return error_set(err, -EINVAL, "%u vCPUs; 1 to %d are possible",
				 machine->cpus, ARCH_CPUS_MAX);
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		rc = device_check(machine, i, err);
		if (rc)
			return rc;
	}
	return machine->cpu_model.nentries ? check_reach(machine, err) : 0;
}
