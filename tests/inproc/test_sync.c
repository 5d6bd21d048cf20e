// SPDX-License-Identifier: MIT
/*
 * The sync guest stops at points that each have some state of the machine set
 * up. At every point the guest is lifted, in one of two ways, and it checks
 * itself that all is as it was:
 *
 *   reloaded  its state is saved, the VM destroyed, a fresh one made with the
 *             same memory, and the state loaded; a second save must then give
 *             the same bytes, but for what moves by itself
 *   moved     a whole migration to another host
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/inproc/peer.h"
#include "tests/unit/schema.h"
#include "tests/unit/unit.h"
#include "vmm/vm_state.h"

#define SECTIONS_MAX 32
#define DISK_SIZE    (1 * MIB)
/* What no guest goes below, and what its host wants of it at some points. */
#define MEMORY (17 * MIB)

/* A tick of the PIT, which goes on in a VM that stands still, asks for it. */
#define IRQ_0	     0x01
#define IRQ_0_VECTOR 0x40 /* 0x46, in the register that begins with 0x40 */

/*
 * Fields that differ between a save and the next one, on a VM that stands
 * still, and why; with bits, only these of them. Anything else that differs is
 * state that was lost.
 */
static const struct {
	const char *field;
	const char *why;
	uint8_t bits; /* of the first byte; 0: all of the field */
} moves_by_itself[] = {
	{ "vcpu@1.msr.value[0x10]", "the TSC runs on", 0 },
	{ "vcpu@1.lapic+0x390", "the count of a local APIC timer that runs",
	  0 },
	{ "vm@1.clock.clock_ns", "kvmclock runs on", 0 },
	{ "vm@1.clock.realtime_ns", "and so does what it is held against", 0 },
	{ "vm@1.clock.host_tsc", "likewise", 0 },
	{ "vm@1.pic0.irr", "the PIT ticks on", IRQ_0 },
	{ "vm@1.pic0.last_irr", "likewise", IRQ_0 },
	{ "vcpu@1.lapic+0x220", "likewise, by way of the IOAPIC",
	  IRQ_0_VECTOR },
	{ "power@2.timer", "the ACPI timer goes on for the time under way", 0 },
	{ "power@2.utc_ns", "when that was", 0 },
};

/* ---- saved states ---- */

struct saved {
	unsigned int n;
	struct {
		struct vm_section front; /* data, len: of bytes */
		struct buffer bytes;
	} sections[SECTIONS_MAX];
};

static int keep_section(void *opaque, const struct vm_section *section,
			struct error *err)
{
	struct saved *saved = opaque;
	struct buffer *bytes = &saved->sections[saved->n].bytes;

	(void)err;
	ck_assert_uint_lt(saved->n, SECTIONS_MAX);
	bytes->len = 0;
	ck_assert(!buffer_append(bytes, section->data, section->len));
	saved->sections[saved->n].front = *section;
	saved->sections[saved->n].front.data = bytes->data;
	saved->n++;
	return 0;
}

static void save(struct vm *vm, struct saved *ret)
{
	struct vm_state *state;
	struct error err;

	ret->n = 0;
	ck_assert(!vm_state_create(vm, &state, &err));
	ck_assert_msg(!vm_state_save(state, &err), "%s", err.text);
	ck_assert(!vm_state_emit(state, keep_section, ret, &err));
	vm_state_free(state);
}

static void load(struct vm *vm, const struct saved *saved)
{
	struct vm_state *state;
	struct error err;

	ck_assert(!vm_state_create(vm, &state, &err));
	for (unsigned int i = 0; i < saved->n; i++)
		ck_assert_msg(!vm_state_decode(state, &saved->sections[i].front,
					       &err),
			      "%s", err.text);
	ck_assert_msg(!vm_state_check(state, &err), "%s", err.text);
	ck_assert_msg(!vm_state_load(state, &err), "%s", err.text);
	vm_state_free(state);
}

static void saved_free(struct saved *saved)
{
	for (unsigned int i = 0; i < SECTIONS_MAX; i++)
		buffer_free(&saved->sections[i].bytes);
	free(saved);
}

/* ---- comparing ---- */

struct comparison {
	const char *point;
	const struct vm_section *before;
	const struct vm_section *after;
	uint32_t msr; /* the last index */
};

static void differs(const struct comparison *c, const char *field,
		    const uint8_t *before, const uint8_t *after, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(moves_by_itself); i++) {
		uint8_t bits = moves_by_itself[i].bits;

		if (!strcmp(moves_by_itself[i].field, field) &&
		    (!bits || (!((before[0] ^ after[0]) & ~bits) &&
			       !memcmp(before + 1, after + 1, len - 1))))
			return;
	}
	ck_abort_msg("%s: %s %s: %s is not what was saved", c->point,
		     c->before->type, c->before->id, field);
}

/* Arrays of registers are compared one register at a time. */
static void compare_field(void *opaque, const struct schema_line *line,
			  size_t at, size_t len)
{
	struct comparison *c = opaque;
	const uint8_t *before = (const uint8_t *)c->before->data + at;
	const uint8_t *after = (const uint8_t *)c->after->data + at;
	size_t unit = len > 16 ? 16 : len;
	char field[128];

	if (strstr(line->path, ".msr.index"))
		memcpy(&c->msr, before, sizeof(c->msr));
	for (size_t i = 0; i < len; i += unit) {
		if (!memcmp(before + i, after + i, MIN(unit, len - i)))
			continue;
		snprintf(field, sizeof(field), "%s", line->path);
		if (len > unit)
			snprintf(field, sizeof(field), "%s+0x%zx", line->path,
				 i);
		else if (strstr(line->path, ".msr.value"))
			snprintf(field, sizeof(field), "%s[0x%x]", line->path,
				 c->msr);
		differs(c, field, before + i, after + i, MIN(unit, len - i));
	}
}

/* The lines of the first section of @type in the schema of the whole VM. */
static void schema_of(const struct buffer *all, const char *type,
		      uint32_t sections, struct schema *ret)
{
	struct schema *whole = calloc(1, sizeof(*whole));
	char front[32];
	unsigned int n = 0;

	snprintf(front, sizeof(front), "%s@", type);
	schema_parse(whole, all);
	for (unsigned int i = 0; i < whole->nlines; i++) {
		if (!strncmp(whole->lines[i].path, front, strlen(front)))
			ret->lines[n++] = whole->lines[i];
	}
	ret->nlines = n / sections;
	free(whole);
}

static void compare(struct vm *vm, const char *point,
		    const struct saved *before, const struct saved *after)
{
	struct schema *schema = calloc(1, sizeof(*schema));
	struct buffer text = { 0 };

	ck_assert(!vm_state_describe(vm, &text));
	ck_assert_uint_eq(before->n, after->n);
	for (unsigned int i = 0; i < before->n; i++) {
		struct comparison c = {
			.point = point,
			.before = &before->sections[i].front,
			.after = &after->sections[i].front,
		};
		bool vcpu = !strcmp(c.before->type, "vcpu");

		ck_assert_str_eq(c.before->type, c.after->type);
		ck_assert_uint_eq(c.before->len, c.after->len);
		schema_of(&text, c.before->type, vcpu ? vm_vcpu_count(vm) : 1,
			  schema);
		schema_walk(schema, c.before->data, c.before->len,
			    compare_field, &c);
	}
	buffer_free(&text);
	free(schema);
}

/* ---- lifting ---- */

static void copy_memory(const struct memory *mem, uint8_t *copy, bool back)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct memory_region *region = &mem->regions[i];

		if (back)
			memcpy(region->hva, copy, region->size);
		else
			memcpy(copy, region->hva, region->size);
		copy += region->size;
	}
}

static void reload(struct rig_host *host, const char *point)
{
	struct machine *machine = malloc(sizeof(*machine));
	struct saved *before = calloc(1, sizeof(*before));
	struct saved *after = calloc(1, sizeof(*after));
	uint8_t *memory;

	vm_hold(host->vm, VM_HOLD_MIGRATION);
	save(host->vm, before);
	*machine = *vm_machine(host->vm);
	memory = malloc(machine->memory_size);
	copy_memory(vm_memory(host->vm), memory, false);
	rig_remake(host, machine);
	copy_memory(vm_memory(host->vm), memory, true);
	load(host->vm, before);
	save(host->vm, after);
	compare(host->vm, point, before, after);
	vm_release(host->vm, VM_HOLD_BIRTH);
	saved_free(before);
	saved_free(after);
	free(memory);
	free(machine);
}

enum way {
	RELOADED,
	MOVED,
};

static void lift(struct rig_host **hosts, const char *point, enum way way)
{
	struct rig_host *old = hosts[0];
	struct rig_result result;

	if (way == RELOADED) {
		reload(hosts[0], point);
		return;
	}
	rig_move(hosts[0], hosts[1], &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s: %s", point,
		      result.source_error.text);
	hosts[0] = hosts[1];
	hosts[1] = old;
}

/* Points that can't take a byte while they hold their state. */
static bool holds(const char *point)
{
	static const char *const names[] = { "uart-loopback", "uart-fifo",
					     "rep-movs", "rep-ins",
					     "rep-outs" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strstr(point, names[i]))
			return true;
	}
	return false;
}

struct visit {
	struct rig_host *hosts[2]; /* where the guest is, and the other */
	struct peer peer;
	bool peered; /* the guest has what a peer is for */
	enum way way;
	char image[RIG_PATH_MAX];
	char point[200]; /* "@N name" */
	unsigned int points;
	unsigned int visited;
	unsigned int skipped;
};

static void stand_at(struct visit *v)
{
	const char *name = strchr(v->point, ' ');

	ck_assert_ptr_nonnull(name);
	if (v->peered)
		peer_before(&v->peer, v->hosts[0], name + 1);
	lift(v->hosts, v->point, v->way);
	if (holds(v->point))
		rig_expect(v->hosts[0], "held ");
	rig_type(v->hosts[0], "x");
}

static void heed(struct visit *v, const char *line)
{
	if (line[0] == '@') {
		snprintf(v->point, sizeof(v->point), "%s", line);
		stand_at(v);
	} else if (!strncmp(line, "ask ", 4)) {
		peer_ask(&v->peer, v->hosts[0], line + 4);
	} else if (!strncmp(line, "ok ", 3)) {
		v->visited++;
	} else if (!strncmp(line, "skip ", 5)) {
		if (v->peered)
			printf("SKIPPED by the guest: %s\n", line);
		v->skipped++;
	} else if (!strncmp(line, "sync: ", 6)) {
		sscanf(line, "sync: points=%u", &v->points);
	} else if (!strncmp(line, "wrong ", 6) || !strncmp(line, "fail ", 5)) {
		ck_abort_msg("%s: %s", v->point, line);
	}
}

/*
 * How many CPUs there are is nothing to a card or a console: with one it has
 * them.
 */
static void visit_all(uint32_t cpus, enum way way)
{
	struct visit v = { .hosts = { rig_host_new(), rig_host_new() },
			   .peered = cpus == 1,
			   .way = way };
	struct rig_guest guest = { .elf = "sync",
				   .cmdline = v.peered ? "peer=yes" : "",
				   .console = v.peered,
				   .memory = MEMORY,
				   .cpus = cpus };
	char line[200] = "";

	rig_image_create(v.image, DISK_SIZE);
	for (int i = 0; i < 2; i++)
		rig_give_disk(v.hosts[i], v.image, 1);
	if (v.peered)
		peer_init(&v.peer, v.hosts[0], v.hosts[1]);
	rig_boot(v.hosts[0], &guest);
	while (strcmp(line, "done") != 0) {
		rig_read_line(v.hosts[0], line, sizeof(line));
		heed(&v, line);
	}
	rig_expect_exit(v.hosts[0], 0);
	ck_assert_uint_gt(v.visited, v.peered ? 70 : 50);
	ck_assert_uint_eq(v.visited + v.skipped, v.points);
	rig_host_free(v.hosts[0]);
	rig_host_free(v.hosts[1]);
	if (v.peered)
		peer_fini(&v.peer);
	rig_image_remove(v.image);
}

START_TEST(one_cpu_is_reloaded_at_every_point)
{
	visit_all(1, RELOADED);
}
END_TEST

START_TEST(two_cpus_are_reloaded_at_every_point)
{
	visit_all(2, RELOADED);
}
END_TEST

START_TEST(one_cpu_moves_at_every_point)
{
	visit_all(1, MOVED);
}
END_TEST

START_TEST(two_cpus_move_at_every_point)
{
	visit_all(2, MOVED);
}
END_TEST

UNIT_SUITE("sync", one_cpu_is_reloaded_at_every_point,
	   two_cpus_are_reloaded_at_every_point, one_cpu_moves_at_every_point,
	   two_cpus_move_at_every_point)
