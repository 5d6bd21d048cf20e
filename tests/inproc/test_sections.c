// SPDX-License-Identifier: MIT
/*
 * The saved state of a real guest, cut at every byte and with every bit
 * flipped: decoding and checking either refuse it or find it possible, and
 * touch nothing that isn't theirs (which ASan and UBSan would tell).
 */
#include <stdio.h>
#include <string.h>

#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"
#include "vmm/vm_state.h"

#define SECTIONS_MAX 16

struct sections {
	unsigned int n;
	struct vm_section at[SECTIONS_MAX];
};

static int keep(void *opaque, const struct vm_section *section,
		struct error *err)
{
	struct sections *s = opaque;
	void *copy = malloc(section->len);

	(void)err;
	ck_assert_uint_lt(s->n, SECTIONS_MAX);
	memcpy(copy, section->data, section->len);
	s->at[s->n] = *section;
	s->at[s->n++].data = copy;
	return 0;
}

static void save(struct vm *vm, struct sections *ret)
{
	struct vm_state *state;
	struct error err;

	ret->n = 0;
	vm_hold(vm, VM_HOLD_USER);
	ck_assert(!vm_state_create(vm, &state, &err));
	ck_assert_msg(!vm_state_save(state, &err), "%s", err.text);
	ck_assert(!vm_state_emit(state, keep, ret, &err));
	vm_state_free(state);
}

static void sections_free(struct sections *s)
{
	for (unsigned int i = 0; i < s->n; i++)
		free((void *)(uintptr_t)s->at[i].data);
}

/* All sections as they are but @changed, which is @instead. */
static int try(struct vm_state *state, const struct sections *s,
	       unsigned int changed, const struct vm_section *instead)
{
	struct error err;
	int rc;

	vm_state_reset(state);
	/* The interesting one first: most are refused there. */
	rc = vm_state_decode(state, instead, &err);
	for (unsigned int i = 0; !rc && i < s->n; i++) {
		if (i != changed)
			rc = vm_state_decode(state, &s->at[i], &err);
	}
	if (!rc)
		rc = vm_state_check(state, &err);
	if (rc)
		ck_assert_msg(err.text[0], "refused without a word");
	return rc;
}

static struct rig_host *boot(void)
{
	struct rig_host *host = rig_host_new();

	rig_boot(host,
		 &(struct rig_guest){ .elf = "timer", .cmdline = "hz=100" });
	rig_expect(host, "ready\n");
	return host;
}

START_TEST(a_section_that_is_cut_anywhere_is_refused)
{
	struct rig_host *host = boot();
	struct vm_state *state;
	struct sections s;
	struct error err;

	save(host->vm, &s);
	ck_assert(!vm_state_create(host->vm, &state, &err));
	for (unsigned int i = 0; i < s.n; i++) {
		struct vm_section cut = s.at[i];

		ck_assert(!try(state, &s, i, &cut));
		for (cut.len = 0; cut.len < s.at[i].len; cut.len++) {
			/* At the end of an allocation, for ASan. */
			void *copy = malloc(cut.len);

			memcpy(copy, s.at[i].data, cut.len);
			cut.data = copy;
			ck_assert_int_ne(try(state, &s, i, &cut), 0);
			free(copy);
		}
	}
	vm_state_free(state);
	sections_free(&s);
	rig_host_free(host);
}
END_TEST

START_TEST(no_flipped_bit_of_a_section_does_harm)
{
	unsigned int refused = 0;
	struct rig_host *host = boot();
	struct vm_state *state;
	struct sections s;
	struct error err;

	save(host->vm, &s);
	ck_assert(!vm_state_create(host->vm, &state, &err));
	for (unsigned int i = 0; i < s.n; i++) {
		uint8_t *data = (uint8_t *)(uintptr_t)s.at[i].data;

		for (size_t bit = 0; bit < 8 * s.at[i].len; bit++) {
			data[bit / 8] ^= (uint8_t)(1U << bit % 8);
			refused += try(state, &s, i, &s.at[i]) != 0;
			data[bit / 8] ^= (uint8_t)(1U << bit % 8);
		}
		ck_assert(!try(state, &s, i, &s.at[i]));
	}
	/* Most bits are of registers, and may be anything. */
	ck_assert_uint_gt(refused, 1000);
	vm_state_free(state);
	sections_free(&s);
	rig_host_free(host);
}
END_TEST

UNIT_SUITE("sections", a_section_that_is_cut_anywhere_is_refused,
	   no_flipped_bit_of_a_section_does_harm)
