// SPDX-License-Identifier: MIT
/*
 * Names of processors (arch/cpu.h): what their levels hold, and how a name
 * becomes a choice of features.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpu_name.h"

/*
 * The physical addresses of a processor of a named level: a guest must not
 * have more than any host that it may go to, and few have less.
 */
#define LEVEL_PHYS_BITS 40

/* System V ABI for x86-64, 3.1.1; each level has those before it, too. */
static const char *const level1[] = { "cmov", "cx8",  "fpu",	 "fxsr", "mmx",
				      "lm",   "msr",  "pae",	 "apic", "tsc",
				      "sse",  "sse2", "syscall", NULL };
static const char *const level2[] = { "cx16",	"lahf_lm", "popcnt", "pni",
				      "sse4_1", "sse4_2",  "ssse3",  NULL };
static const char *const level3[] = { "avx", "avx2", "bmi1",  "bmi2",  "f16c",
				      "fma", "abm",  "movbe", "xsave", NULL };
static const char *const level4[] = { "avx512f",  "avx512bw", "avx512cd",
				      "avx512dq", "avx512vl", NULL };

static const struct level {
	const char *name;
	const char *const *needs;
} levels[CPU_LEVELS] = {
	{ "x86-64", level1 },
	{ "x86-64-v2", level2 },
	{ "x86-64-v3", level3 },
	{ "x86-64-v4", level4 },
};

/* What a VM should have where the host can; no level speaks of it. */
static const char *const usual[] = {
	/* what every processor of the last twenty years has */
	"vme", "de", "pse", "mce", "mca", "sep", "mtrr", "pge", "pat", "pse36",
	"clflush", "ss", "ht", "cmp_legacy", "nx", "arat",
	/* what KVM provides, whatever the processor */
	"hypervisor", "x2apic", "tsc_deadline_timer", "tsc_adjust",
	"kvmclock-old", "kvmclock", "kvmclock-stable", "kvm_nopiodelay",
	"kvm_steal_time", "kvm_pv_eoi", "kvm_pv_unhalt", "kvm_pv_tlb_flush",
	"kvm_pv_send_ipi",
	/* defences: no name is to take them away */
	"spec_ctrl", "intel_stibp", "ssbd", "md_clear", "flush_l1d", "amd_ibpb",
	"amd_ibrs", "amd_stibp", "amd_ssbd", "virt_ssbd", "lfence_rdtsc",
	"verw_clear", "autoibrs", "sbpb", "ibpb_brtype",
	/* where what belongs to a name has its state */
	"x87 state", "sse state", "avx state", "opmask state",
	"zmm_hi256 state", "hi16_zmm state", "pkru state", NULL
};

/* ---- sets of features ---- */

bool cpu_set_name(struct cpu_set *set, const char *name, bool on)
{
	size_t count;
	const struct cpuid_word *words = cpuid_words(&count);
	bool known = false;

	for (size_t i = 0; i < count; i++) {
		uint32_t mask = cpuid_word_mask(&words[i]);

		for (unsigned int bit = 0; bit < 32; bit++) {
			if (!(mask >> bit & 1) ||
			    strcmp(words[i].names[bit], name) != 0)
				continue;
			known = true;
			if (on)
				set->mask[i] |= 1U << bit;
			else
				set->mask[i] &= ~(1U << bit);
		}
	}
	return known;
}

bool cpu_set_has(const struct cpu_set *set, const char *name)
{
	struct cpu_set one = { 0 };
	size_t count;

	(void)cpuid_words(&count);
	(void)cpu_set_name(&one, name, true);
	for (size_t i = 0; i < count; i++)
		if (one.mask[i] & set->mask[i])
			return true;
	return false;
}

const char *cpu_set_next(const struct cpu_set *set, unsigned int *at)
{
	size_t count;
	const struct cpuid_word *words = cpuid_words(&count);

	for (; *at < count * 32; ++*at) {
		const char *name = words[*at / 32].names[*at % 32];

		if (!(set->mask[*at / 32] >> *at % 32 & 1) || !name)
			continue;
		++*at;
		return name[0] == '-' ? name + 1 : name;
	}
	return NULL;
}

/* Longer lists than this are read by nobody. */
#define LISTED 16

unsigned int cpu_list_missing(const struct cpu_set *want,
			      const struct cpu_set *have,
			      char text[CPU_MISSING_MAX])
{
	struct cpu_set seen = *have;
	unsigned int at = 0, n = 0;
	const char *name;
	size_t len = 0;

	text[0] = '\0';
	while ((name = cpu_set_next(want, &at))) {
		/* Some have two places, and one name. */
		if (cpu_set_has(&seen, name))
			continue;
		(void)cpu_set_name(&seen, name, true);
		if (n++ < LISTED)
			len += (size_t)snprintf(text + len,
						CPU_MISSING_MAX - len, "%s%s",
						len ? ", " : "", name);
	}
	if (n > LISTED)
		snprintf(text + len, CPU_MISSING_MAX - len, " and %u more",
			 n - LISTED);
	return n;
}

void cpu_set_of_model(const struct arch_cpu_model *model, struct cpu_set *ret)
{
	size_t count;
	const struct cpuid_word *words = cpuid_words(&count);

	*ret = (struct cpu_set){ 0 };
	for (size_t i = 0; i < count; i++) {
		const struct kvm_cpuid_entry2 *e =
			cpuid_find(model, words[i].function, words[i].index);

		if (e)
			ret->mask[i] = cpuid_reg_get(e, words[i].reg);
	}
}

/* ---- levels ---- */

const char *cpu_level_name(unsigned int level)
{
	return levels[level].name;
}

void cpu_level_set(unsigned int level, struct cpu_set *ret)
{
	*ret = (struct cpu_set){ 0 };
	for (unsigned int i = 0; i <= level; i++)
		for (const char *const *name = levels[i].needs; *name; name++)
			(void)cpu_set_name(ret, *name, true);
}

const char *cpu_level_lacks(unsigned int level, const struct cpu_set *set)
{
	for (unsigned int i = 0; i <= level; i++)
		for (const char *const *name = levels[i].needs; *name; name++)
			if (!cpu_set_has(set, *name))
				return *name;
	return NULL;
}

int cpu_level_of(const struct cpu_set *set)
{
	int level = CPU_LEVELS - 1;

	while (level >= 0 && cpu_level_lacks((unsigned int)level, set))
		level--;
	return level;
}

/* ---- a name ---- */

struct name {
	int level; /* -1: host */
	bool exact;
	uint32_t phys_bits; /* 0: not said */
	struct cpu_set plus, minus;
};

static int parse_level(const char *word, struct name *ret, struct error *err)
{
	ret->level = -1;
	if (!strcmp(word, "host"))
		return 0;
	for (int i = 0; i < CPU_LEVELS; i++) {
		if (!strcmp(word, levels[i].name)) {
			ret->level = i;
			return 0;
		}
	}
	return error_set(err, -EINVAL,
			 "'%.40s': not a processor; give host, x86-64, "
			 "x86-64-v2, x86-64-v3 or x86-64-v4",
			 word);
}

static int parse_phys_bits(const char *number, struct name *ret,
			   struct error *err)
{
	char *end;
	unsigned long bits = strtoul(number, &end, 10);

	if (ret->phys_bits)
		return error_set(err, -EINVAL,
				 "phys-bits: given twice; give it once");
	if (number[0] < '0' || number[0] > '9' || *end || bits < 32 ||
	    bits > 52)
		return error_set(err, -EINVAL, "phys-bits=%.20s: give 32 to 52",
				 number);
	ret->phys_bits = (uint32_t)bits;
	return 0;
}

static int parse_feature(const char *word, struct name *ret, struct error *err)
{
	bool plus = word[0] == '+';

	if (cpu_set_has(plus ? &ret->minus : &ret->plus, word + 1))
		return error_set(err, -EINVAL,
				 "%.40s: both added and taken away; give "
				 "+%.40s or -%.40s",
				 word + 1, word + 1, word + 1);
	if (!plus && cpuid_is_needed(word + 1))
		return error_set(err, -EINVAL,
				 "%s: every 64-bit guest has it, and none is "
				 "made without; leave it out",
				 word);
	if (!cpu_set_name(plus ? &ret->plus : &ret->minus, word + 1, true))
		return error_set(err, -EINVAL,
				 "'%.40s': no CPU feature that a guest can "
				 "have; `godwit cpu` lists those of this host",
				 word + 1);
	return 0;
}

static int parse_word(const char *word, struct name *ret, struct error *err)
{
	if (!strcmp(word, "exact") && ret->level >= 0) {
		ret->exact = true;
		return 0;
	}
	if (!strcmp(word, "exact"))
		return error_set(
			err, -EINVAL,
			"exact: only of a level, like x86-64-v3,exact");
	if (!strncmp(word, "phys-bits=", 10))
		return parse_phys_bits(word + 10, ret, err);
	if ((word[0] == '+' || word[0] == '-') && word[1])
		return parse_feature(word, ret, err);
	return error_set(err, -EINVAL,
			 "'%.40s': give +FEATURE, -FEATURE, phys-bits=N or "
			 "exact",
			 word);
}

static int parse_name(const char *text, struct name *ret, struct error *err)
{
	char *copy = strdup(text), *rest = copy, *word;
	int rc;

	*ret = (struct name){ 0 };
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	word = strsep(&rest, ",");
	rc = parse_level(word, ret, err);
	while (!rc && (word = strsep(&rest, ",")))
		rc = parse_word(word, ret, err);
	free(copy);
	return rc;
}

int arch_cpu_name_check(const char *text, struct error *err)
{
	struct name name;

	return parse_name(text, &name, err);
}

/* ---- from a name to a choice ---- */

static void offered_by(const struct cpuid_table *supported, bool tsc_deadline,
		       struct cpu_set *ret)
{
	size_t count;
	const struct cpuid_word *words = cpuid_words(&count);

	*ret = (struct cpu_set){ 0 };
	for (size_t i = 0; i < count; i++)
		for (uint32_t k = 0; k < supported->nent; k++)
			if (supported->entries[k].function ==
				    words[i].function &&
			    supported->entries[k].index == words[i].index)
				ret->mask[i] =
					cpuid_reg_get(&supported->entries[k],
						      words[i].reg) &
					cpuid_word_mask(&words[i]);
	/* Ours or KVM's to give, whatever its table says. */
	(void)cpu_set_name(ret, "hypervisor", true);
	(void)cpu_set_name(ret, "tsc_deadline_timer", tsc_deadline);
	/* Made as the topology asks for it. */
	(void)cpu_set_name(ret, "ht", true);
	(void)cpu_set_name(ret, "cmp_legacy", true);
}

int cpu_choose(const char *text, const struct cpuid_table *supported,
	       bool tsc_deadline, struct cpuid_choice *ret, struct error *err)
{
	struct cpu_set base = { 0 }, offered;
	char lacks[CPU_MISSING_MAX];
	struct name name;
	int rc = parse_name(text, &name, err);

	if (rc)
		return rc;
	offered_by(supported, tsc_deadline, &offered);
	if (name.level >= 0)
		cpu_level_set((unsigned int)name.level, &base);
	for (size_t i = 0; i < CPUID_WORDS_MAX; i++)
		base.mask[i] = (base.mask[i] & ~name.minus.mask[i]) |
			       name.plus.mask[i];
	if (cpu_list_missing(&base, &offered, lacks))
		return error_set(err, -ENOTSUP,
				 "this host does not offer %s; `godwit cpu` "
				 "says what it offers",
				 lacks);
	for (size_t i = 0; name.level >= 0 && usual[i]; i++)
		if (!name.exact || strstr(usual[i], " state"))
			(void)cpu_set_name(&base, usual[i], true);
	for (size_t i = 0; i < CPUID_WORDS_MAX; i++) {
		if (name.level < 0)
			base.mask[i] = ~0U;
		ret->mask[i] = base.mask[i] & ~name.minus.mask[i];
	}
	ret->phys_bits = name.phys_bits	   ? name.phys_bits
			 : name.level >= 0 ? LEVEL_PHYS_BITS
					   : 0;
	return 0;
}

int arch_cpu_model_named(const struct kvm *kvm, int vm_fd, const char *name,
			 uint32_t cpus, struct arch_cpu_model *ret,
			 struct error *err)
{
	struct cpuid_table *supported = calloc(1, sizeof(*supported));
	struct cpuid_choice choice;
	bool deadline;
	int rc;

	memset(ret, 0, sizeof(*ret));
	if (!supported)
		return error_set(err, -ENOMEM, "out of memory");
	if (cpus < 1 || cpus > ARCH_CPUS_MAX)
		rc = error_set(err, -EINVAL, "%u vCPUs: 1 to %d are possible",
			       cpus, ARCH_CPUS_MAX);
	else
		rc = cpuid_supported(kvm, supported, &deadline, err);
	if (!rc)
		rc = cpu_choose(name, supported, deadline, &choice, err);
	if (!rc)
		rc = cpuid_build(supported, &choice, deadline, cpus, ret, err);
	if (!rc)
		rc = cpuid_finish(kvm, vm_fd, ret, err);
	if (!rc)
		rc = cpuid_check_shape(ret, err);
	free(supported);
	return rc;
}

/* ---- from features to a name ---- */

/* Set as every VM, or its number of vCPUs, wants it. */
static void add_everyones(struct cpu_set *set)
{
	(void)cpu_set_name(set, "hypervisor", true);
	(void)cpu_set_name(set, "ht", true);
	(void)cpu_set_name(set, "cmp_legacy", true);
}

/*
 * Those of @set that @known has not, each with @sign. Some have two places, and
 * one name; those with a space in theirs come with others.
 */
static void put_features(FILE *to, char sign, const struct cpu_set *set,
			 struct cpu_set known)
{
	unsigned int at = 0;
	const char *feature;

	add_everyones(&known);
	while ((feature = cpu_set_next(set, &at))) {
		if (cpu_set_has(&known, feature) || strchr(feature, ' '))
			continue;
		(void)cpu_set_name(&known, feature, true);
		fprintf(to, ",%c%s", sign, feature);
	}
}

/* What a name means, and with what behind it it means @set. */
struct meaning {
	const char *name;
	bool exact;
	struct cpu_set set;
	uint32_t phys_bits;
};

static char *name_by(const struct meaning *m, const struct cpu_set *set,
		     uint32_t phys_bits)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return NULL;
	fprintf(to, "%s%s", m->name, m->exact ? ",exact" : "");
	if (phys_bits != m->phys_bits)
		fprintf(to, ",phys-bits=%u", phys_bits);
	put_features(to, '+', set, m->set);
	put_features(to, '-', &m->set, *set);
	fclose(to);
	return text;
}

static struct meaning exact_level(unsigned int level)
{
	struct meaning m = { .name = levels[level].name,
			     .exact = true,
			     .phys_bits = LEVEL_PHYS_BITS };

	cpu_level_set(level, &m.set);
	return m;
}

/* With what it also has on a host that offers @all. */
static struct meaning level_on(unsigned int level, const struct cpu_set *all)
{
	struct meaning m = exact_level(level);

	m.exact = false;
	for (size_t i = 0; usual[i]; i++) {
		if (cpu_set_has(all, usual[i]))
			(void)cpu_set_name(&m.set, usual[i], true);
	}
	return m;
}

char *cpu_name_of(const struct cpu_set *set, uint32_t phys_bits)
{
	unsigned int level = (unsigned int)MAX(cpu_level_of(set), 0);
	struct meaning m = exact_level(level);

	return name_by(&m, set, phys_bits);
}

/* The shorter one; both are allocated, or NULL. */
static char *shorter(char *a, char *b)
{
	bool first = b && a && strlen(a) <= strlen(b);

	free(first ? b : a);
	return first ? a : b;
}

char *arch_cpu_model_name(const struct arch_cpu_model *model,
			  const struct arch_cpu_model *host)
{
	struct meaning all = { .name = "host",
			       .phys_bits = cpuid_phys_bits(host) };
	uint32_t bits = cpuid_phys_bits(model);
	struct cpu_set set;
	char *name;

	cpu_set_of_model(host, &all.set);
	cpu_set_of_model(model, &set);
	name = shorter(name_by(&all, &set, bits), cpu_name_of(&set, bits));
	for (unsigned int i = 0; i < CPU_LEVELS; i++) {
		struct meaning level = level_on(i, &all.set);

		name = shorter(name_by(&level, &set, bits), name);
	}
	return name;
}
