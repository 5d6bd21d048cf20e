// SPDX-License-Identifier: MIT
/*
 * The schema of the state: what every section's fields are called, how wide
 * they are, and in which order they travel. A change of it is a change of the
 * format, so it has to be made on purpose: raise the section's version, let
 * its visit function read the older one too, and write the golden file anew
 * (GODWIT_GOLDEN=write).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"
#include "vmm/vm_state.h"

#define GOLDEN "tests/golden/state.schema"

static void load_golden(struct buffer *golden)
{
	uint8_t piece[4096];
	FILE *file = fopen(GOLDEN, "r");
	size_t n;

	ck_assert_msg(file, "%s: run from the top of the tree", GOLDEN);
	while ((n = fread(piece, 1, sizeof(piece), file)) > 0)
		ck_assert(!buffer_append(golden, piece, n));
	fclose(file);
}

static void write_golden(const struct buffer *schema)
{
	FILE *file = fopen(GOLDEN, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(schema->data, 1, schema->len, file),
			  schema->len);
	fclose(file);
}

static size_t first_difference(const struct buffer *a, const struct buffer *b)
{
	size_t at = 0;

	while (at < a->len && at < b->len && a->data[at] == b->data[at])
		at++;
	while (at && a->data[at - 1] != '\n')
		at--;
	return at;
}

static bool is_in(const struct machine *machine, const char *type)
{
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		if (!strcmp(machine->devices[i].type, type))
			return true;
	}
	return false;
}

/* The devices that have to be asked for. */
static void describe_others(const struct machine *machine, struct buffer *out)
{
	const struct device_type *type;

	for (unsigned int i = 0; (type = device_type_at(i)); i++) {
		const struct device_ops *ops = type->ops;
		char name[DEVICE_TYPE_MAX + 12];
		struct error err;
		struct codec c;
		void *state;

		if (ops->migrates != DEVICE_MIGRATES_STATE ||
		    is_in(machine, ops->type))
			continue;
		state = calloc(1, ops->state_size);
		ck_assert_ptr_nonnull(state);
		snprintf(name, sizeof(name), "%s@%u", ops->type, ops->version);
		codec_init_describe(&c, out, ops->version);
		codec_enter(&c, name);
		ops->visit(&c, state);
		ck_assert(!codec_finish(&c, &err));
		free(state);
	}
}

START_TEST(the_state_is_written_as_the_golden_schema_says)
{
	static const struct rig_guest guest = { .elf = "hello", .cmdline = "" };
	const char *mode = getenv("GODWIT_GOLDEN");
	struct buffer schema = { 0 };
	struct buffer golden = { 0 };
	struct rig_host *host = rig_host_new();
	size_t at;

	rig_boot(host, &guest);
	ck_assert(!vm_state_describe(host->vm, &schema));
	describe_others(vm_machine(host->vm), &schema);
	if (mode && !strcmp(mode, "write"))
		write_golden(&schema);
	load_golden(&golden);
	at = first_difference(&schema, &golden);
	ck_assert_msg(at == schema.len && at == golden.len,
		      "the format changed at: %.80s", (char *)schema.data + at);
	buffer_free(&schema);
	buffer_free(&golden);
	rig_host_free(host);
}
END_TEST

UNIT_SUITE("schema", the_state_is_written_as_the_golden_schema_says)
