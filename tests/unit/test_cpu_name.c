// SPDX-License-Identifier: MIT
/*
 * Processors by name, and facts about them: what a name means on a host, and
 * what hosts have in common.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpu_name.h"
#include "tests/unit/arch_sample.h"
#include "tests/unit/unit.h"

static struct arch_cpu_model model;

static void take_away(struct cpuid_table *t, uint32_t function,
		      enum cpuid_reg reg, uint32_t bits)
{
	for (uint32_t i = 0; i < t->nent; i++)
		if (t->entries[i].function == function && !t->entries[i].index)
			cpuid_reg_set(&t->entries[i], reg,
				      cpuid_reg_get(&t->entries[i], reg) &
					      ~bits);
}

static int build(const struct cpuid_table *t, const char *name,
		 struct error *err)
{
	struct cpuid_choice choice;
	int rc = cpu_choose(name, t, true, &choice, err);

	memset(&model, 0, sizeof(model));
	if (!rc)
		rc = cpuid_build(t, &choice, true, 2, &model, err);
	model.tsc_khz = 2600000;
	model.xsave_size = 4096;
	if (!rc)
		rc = cpuid_check_shape(&model, err);
	return rc;
}

/* On the sample host, which has everything. */
static void build_ok(const char *name)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, false);
	ck_assert_msg(!build(&t, name, &err), "%s: %s", name, err.text);
}

static bool has(const char *feature)
{
	struct cpu_set set;

	cpu_set_of_model(&model, &set);
	return cpu_set_has(&set, feature);
}

START_TEST(a_level_has_what_it_asks_for_and_not_the_next_ones)
{
	static const struct {
		const char *name;
		const char *last, *next;
		uint64_t xcr0;
	} cases[] = {
		{ "x86-64", "sse2", "pni", 3 },
		{ "x86-64-v2", "sse4_2", "avx", 3 },
		{ "x86-64-v3", "avx2", "avx512f", 7 },
		{ "x86-64-v4", "avx512vl", "avx512_vnni", 0xe7 },
		{ "host", "avx512_vnni", "vmx", 0x2e7 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		build_ok(cases[i].name);
		ck_assert_msg(has(cases[i].last), "%s", cases[i].name);
		ck_assert_msg(!has(cases[i].next), "%s", cases[i].name);
		ck_assert_uint_eq(cpuid_xcr0(&model), cases[i].xcr0);
		ck_assert_msg(!!cpuid_find(&model, 0xd, 0) == (i >= 2), "%s",
			      cases[i].name);
	}
}
END_TEST

START_TEST(a_level_keeps_defences_and_what_kvm_provides_unless_exact)
{
	static const char *const usual[] = { "spec_ctrl",	   "md_clear",
					     "kvmclock",	   "x2apic",
					     "tsc_deadline_timer", "nx" };

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		build_ok("x86-64-v2");
		ck_assert_msg(has(usual[i]), "%s", usual[i]);
		build_ok("x86-64-v2,exact");
		ck_assert_msg(!has(usual[i]), "%s", usual[i]);
	}
	ck_assert(has("hypervisor"));
}
END_TEST

START_TEST(features_are_added_and_taken_away)
{
	build_ok("x86-64-v3,+aes,-fma,-kvmclock");
	ck_assert(has("aes"));
	ck_assert(!has("fma"));
	ck_assert(!has("kvmclock"));
	build_ok("host,-avx512f");
	ck_assert(!has("avx512f"));
	ck_assert_uint_eq(cpuid_xcr0(&model), 0x207);
	build_ok("x86-64-v2,+xsave,+pku");
	ck_assert_uint_eq(cpuid_xcr0(&model), 0x203);
	/* Both places of a feature that has two. */
	build_ok("host,-mmx");
	ck_assert(!has("mmx"));
}
END_TEST

START_TEST(addresses_are_as_wide_as_most_hosts_have)
{
	build_ok("host");
	ck_assert_uint_eq(cpuid_phys_bits(&model), 48);
	build_ok("x86-64-v3");
	ck_assert_uint_eq(cpuid_phys_bits(&model), 40);
	ck_assert_uint_eq(cpuid_linear_bits(&model), 48);
	build_ok("x86-64-v3,phys-bits=45");
	ck_assert_uint_eq(cpuid_phys_bits(&model), 45);
	build_ok("host,phys-bits=52"); /* never more than the host */
	ck_assert_uint_eq(cpuid_phys_bits(&model), 48);
}
END_TEST

START_TEST(a_host_may_have_registers_without_their_feature)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, false);
	take_away(&t, 1, CPUID_ECX, 1U << 26 | 1U << 28); /* xsave, avx */
	ck_assert_msg(!build(&t, "host", &err), "%s", err.text);
	ck_assert_uint_eq(cpuid_xcr0(&model), 0x2e7);
	ck_assert_msg(!build(&t, "x86-64", &err), "%s", err.text);
	ck_assert_uint_eq(cpuid_xcr0(&model), 3);
}
END_TEST

START_TEST(what_a_host_lacks_is_named)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, false);
	take_away(&t, 1, CPUID_ECX, 1U << 23);
	ck_assert_int_eq(build(&t, "x86-64-v2", &err), -ENOTSUP);
	ck_assert_msg(strstr(err.text, "popcnt") != NULL, "%s", err.text);
	ck_assert_msg(!build(&t, "x86-64-v2,-popcnt", &err), "%s", err.text);
	ck_assert_int_eq(build(&t, "host,+popcnt", &err), -ENOTSUP);
	/* All of it, and no end of it. */
	take_away(&t, 1, CPUID_ECX, 1U << 20);
	ck_assert_int_eq(build(&t, "x86-64-v2", &err), -ENOTSUP);
	ck_assert_msg(strstr(err.text, "offer sse4_2, popcnt; ") != NULL, "%s",
		      err.text);
	take_away(&t, 1, CPUID_ECX, ~0U);
	take_away(&t, 1, CPUID_EDX, ~0U);
	take_away(&t, 7, CPUID_EBX, ~0U);
	ck_assert_int_eq(build(&t, "x86-64-v4", &err), -ENOTSUP);
	ck_assert_msg(strstr(err.text, " and ") && strstr(err.text, " more; "),
		      "%s", err.text);
}
END_TEST

START_TEST(names_that_are_none_are_refused)
{
	static const struct {
		const char *name, *says;
	} cases[] = {
		{ "", "not a processor" },
		{ "x86-64-v5", "x86-64-v4" },
		{ "host,exact", "only of a level" },
		{ "x86-64-v2,+", "'+'" },
		{ "x86-64-v2,+vmx", "'vmx'" },
		{ "x86-64-v2,+avx state,", "''" },
		{ "x86-64-v2,avx", "+FEATURE" },
		{ "x86-64-v2,phys-bits=31", "32 to 52" },
		{ "x86-64-v2,phys-bits=-40", "32 to 52" },
		{ "x86-64-v2,phys-bits=", "32 to 52" },
		{ "x86-64-v2,phys-bits=40,phys-bits=41", "given twice" },
		{ "x86-64,-lm", "-lm: every 64-bit guest has it" },
		{ "host,-sse2", "none is made without; leave it out" },
		{ "x86-64-v2,+avx2,-avx2", "avx2: both added and taken" },
		{ "host,-avx2,+aes,+avx2", "give +avx2 or -avx2" },
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ck_assert_int_eq(arch_cpu_name_check(cases[i].name, &err),
				 -EINVAL);
		ck_assert_msg(strstr(err.text, cases[i].says) != NULL, "%s: %s",
			      cases[i].name, err.text);
	}
	ck_assert_int_eq(arch_cpu_name_check("x86-64-v2,exact,+aes", &err), 0);
	ck_assert_int_eq(arch_cpu_name_check("host,+aes,+aes", &err), 0);
}
END_TEST

START_TEST(a_guest_without_what_every_guest_needs_is_refused)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, false);
	ck_assert_int_eq(build(&t, "host,-lm", &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "lm") != NULL, "%s", err.text);
}
END_TEST

START_TEST(the_name_of_a_model_makes_it_again)
{
	static const char *const names[] = { "host", "x86-64-v2", "x86-64",
					     "x86-64-v3,+aes,-fma",
					     "host,-pku,phys-bits=39" };
	static struct arch_cpu_model host;
	struct cpu_set first, second;

	build_ok("host");
	host = model;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		unsigned int bits;
		char *name;

		build_ok(names[i]);
		cpu_set_of_model(&model, &first);
		bits = cpuid_phys_bits(&model);
		name = arch_cpu_model_name(&model, &host);
		ck_assert_ptr_nonnull(name);
		ck_assert_uint_le(strlen(name), strlen(names[i]));
		build_ok(name);
		cpu_set_of_model(&model, &second);
		ck_assert_msg(!memcmp(&first, &second, sizeof(first)),
			      "%s became %s", names[i], name);
		ck_assert_uint_eq(cpuid_phys_bits(&model), bits);
		free(name);
	}
}
END_TEST

/* ---- facts ---- */

static char *facts_of(const char *name, bool amd)
{
	struct cpuid_table t;
	struct error err;
	char *facts;

	sample_supported(&t, amd);
	ck_assert_msg(!build(&t, name, &err), "%s", err.text);
	facts = arch_cpu_facts(&model, false);
	ck_assert_ptr_nonnull(facts);
	return facts;
}

START_TEST(hosts_have_in_common_what_all_have)
{
	char *a = facts_of("host,phys-bits=45", false);
	char *b = facts_of("x86-64-v3,+aes,+pku,phys-bits=39", false);
	struct arch_cpu_source hosts[] = { { "a", a }, { "b", b } };
	struct cpu_set ours, theirs;
	char *name, *why;
	struct error err;

	cpu_set_of_model(&model, &theirs);
	ck_assert_int_eq(arch_cpu_common(hosts, 2, &name, &why, &err), 0);
	ck_assert_msg(!strncmp(name, "x86-64-v3,exact,phys-bits=39,", 29), "%s",
		      name);
	ck_assert_msg(strstr(why, "x86-64-v4 is out: b has no avx512f, "
				  "avx512dq, avx512cd, avx512bw, avx512vl\n") !=
			      NULL,
		      "%s", why);
	ck_assert_msg(strstr(why, "a has more than all have:") != NULL, "%s",
		      why);
	ck_assert_ptr_null(strstr(why, "b has more"));
	build_ok(name);
	cpu_set_of_model(&model, &ours);
	ck_assert(!memcmp(&ours, &theirs, sizeof(ours)));
	free(name);
	free(why);
	free(a);
	free(b);
}
END_TEST

START_TEST(hosts_that_no_guest_can_move_between_have_nothing_in_common)
{
	char *a = facts_of("host", false), *b = facts_of("host", true);
	struct arch_cpu_source hosts[] = { { "a", a }, { "b", b } };
	char *name, *why;
	struct error err;

	ck_assert_int_eq(arch_cpu_common(hosts, 2, &name, &why, &err),
			 -ENOTSUP);
	ck_assert_msg(strstr(err.text, "AuthenticAMD") != NULL, "%s", err.text);
	ck_assert_ptr_null(name);
	free(why);
	free(a);
	free(b);
}
END_TEST

START_TEST(a_state_that_lies_elsewhere_costs_its_feature)
{
	char *a = facts_of("host", false), *b = facts_of("host", false);
	struct arch_cpu_source hosts[] = { { "a", a }, { "b", b } };
	char *place = strstr(b, "9@2688"), *name, *why;
	struct error err;

	ck_assert_ptr_nonnull(place);
	memcpy(place, "9@2432", 6);
	ck_assert_int_eq(arch_cpu_common(hosts, 2, &name, &why, &err), 0);
	ck_assert_ptr_null(strstr(name, "pku"));
	ck_assert_msg(strstr(why, "pku is out") != NULL, "%s", why);
	free(name);
	free(why);
	place = strstr(b, "2@576");
	memcpy(place, "2@640", 5);
	ck_assert_int_eq(arch_cpu_common(hosts, 2, &name, &why, &err),
			 -ENOTSUP);
	free(why);
	free(a);
	free(b);
}
END_TEST

START_TEST(all_that_a_host_lacks_for_a_guest_is_listed)
{
	char *host = facts_of("x86-64-v2", false);
	char *guest = facts_of("host", false), *lines;
	struct arch_cpu_source here = { "here", host }, it = { "it", guest };
	struct error err;

	ck_assert_int_eq(arch_cpu_missing(&it, &here, &lines, &err), 0);
	ck_assert_ptr_nonnull(strstr(lines, "feature: avx\n"));
	ck_assert_ptr_nonnull(strstr(lines, "feature: avx512f\n"));
	ck_assert_ptr_nonnull(strstr(lines, "phys-bits: 40, not 48\n"));
	free(lines);
	ck_assert_int_eq(arch_cpu_missing(&here, &it, &lines, &err), 0);
	ck_assert_str_eq(lines, "");
	free(lines);
	memcpy(strstr(host, "tsc-khz: 26"), "tsc-khz: 27", 11);
	ck_assert_int_eq(arch_cpu_missing(&here, &it, &lines, &err), 0);
	ck_assert_msg(strstr(lines, "tsc-khz: 2600000, not 2700000") != NULL,
		      "%s", lines);
	free(lines);
	it.facts = "vendor: GenuineIntel\nphys-bits: 36\nlinear-bits: 48\n"
		   "tsc-khz: 2700000\nfeatures: fpu nosuch\n";
	ck_assert_int_eq(arch_cpu_missing(&it, &here, &lines, &err), 0);
	ck_assert_str_eq(lines,
			 "features that this godwit does not know: nosuch\n");
	free(lines);
	free(host);
	free(guest);
}
END_TEST

START_TEST(what_are_no_facts_is_refused)
{
	static const char *const texts[] = {
		"",
		"hello\n",
		"vendor: GenuineIntel\n",
		"vendor: Genuine\nphys-bits: 40\nlinear-bits: 48\n"
		"tsc-khz: 1\nfeatures: fpu\n",
		"vendor: GenuineIntel\nphys-bits: -1\nlinear-bits: 48\n"
		"tsc-khz: 1\nfeatures: fpu\n",
		"vendor: GenuineIntel\nphys-bits: 40\nlinear-bits: 48\n"
		"tsc-khz: 99999999999\nfeatures: fpu\n",
		"vendor: GenuineIntel\nphys-bits: 40\nlinear-bits: 48\n"
		"tsc-khz: 1\nxsave: 77@0\nfeatures: fpu\n",
		/* cut in its list of features */
		"vendor: GenuineIntel\nphys-bits: 40\nlinear-bits: 48\n"
		"tsc-khz: 1\nfeatures: fpu vm",
	};
	char *good = facts_of("host", false), *lines;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct arch_cpu_source bad = { "x.cpu", texts[i] };
		struct arch_cpu_source here = { "here", good };

		ck_assert_int_eq(arch_cpu_missing(&bad, &here, &lines, &err),
				 -EINVAL);
		ck_assert_msg(!strncmp(err.text, "x.cpu: ", 7), "%s", err.text);
	}
	free(good);
}
END_TEST

UNIT_SUITE("cpu names", a_level_has_what_it_asks_for_and_not_the_next_ones,
	   a_level_keeps_defences_and_what_kvm_provides_unless_exact,
	   features_are_added_and_taken_away,
	   addresses_are_as_wide_as_most_hosts_have,
	   a_host_may_have_registers_without_their_feature,
	   what_a_host_lacks_is_named, names_that_are_none_are_refused,
	   a_guest_without_what_every_guest_needs_is_refused,
	   the_name_of_a_model_makes_it_again,
	   hosts_have_in_common_what_all_have,
	   hosts_that_no_guest_can_move_between_have_nothing_in_common,
	   a_state_that_lies_elsewhere_costs_its_feature,
	   all_that_a_host_lacks_for_a_guest_is_listed,
	   what_are_no_facts_is_refused)
