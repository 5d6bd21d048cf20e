// SPDX-License-Identifier: MIT
/*
 * Facts about processors, as text (arch/cpu.h): written, read back, and
 * compared. What is read may be anything.
 *
 *   vendor: GenuineIntel
 *   name: …                      for people
 *   levels: x86-64 x86-64-v2     for people
 *   phys-bits: 46
 *   linear-bits: 48
 *   tsc-khz: 2600000
 *   tsc-scaling: yes
 *   xsave: 2@576 9@2688          where each register file lies
 *   features: fpu vme …
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpu_name.h"

#define XSAVE_PARTS_MAX 32
#define PKRU		9

struct facts {
	char vendor[13];
	uint32_t phys_bits, linear_bits, tsc_khz;
	bool tsc_scales;
	uint32_t xsave[XSAVE_PARTS_MAX]; /* offsets; 0: not there */
	struct cpu_set features;
	char unknown[256]; /* names that this version has not, as many as fit */
};

/* ---- writing ---- */

static void put_brand(FILE *to, const struct arch_cpu_model *model)
{
	char brand[49] = "";

	for (uint32_t i = 0; i < 3; i++) {
		const struct kvm_cpuid_entry2 *e =
			cpuid_find(model, 0x80000002 + i, 0);

		if (e)
			memcpy(brand + 16 * i,
			       (uint32_t[]){ e->eax, e->ebx, e->ecx, e->edx },
			       16);
	}
	for (char *c = brand; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	fprintf(to, "name: %s\n", brand + strspn(brand, " "));
}

static void put_features(FILE *to, const struct cpu_set *set)
{
	struct cpu_set said = { 0 };
	unsigned int at = 0;
	const char *name;

	fputs("features:", to);
	while ((name = cpu_set_next(set, &at))) {
		if (strchr(name, ' ') || cpu_set_has(&said, name) ||
		    !cpu_set_name(&said, name, true))
			continue;
		fprintf(to, " %s", name);
	}
	fputc('\n', to);
}

static void put_levels(FILE *to, const struct cpu_set *set)
{
	fputs("levels:", to);
	for (int level = 0; level <= cpu_level_of(set); level++)
		fprintf(to, " %s", cpu_level_name((unsigned int)level));
	fputc('\n', to);
}

char *arch_cpu_facts(const struct arch_cpu_model *model, bool tsc_scales)
{
	const struct kvm_cpuid_entry2 *leaf0 = cpuid_find(model, 0, 0);
	struct cpu_set set;
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return NULL;
	cpu_set_of_model(model, &set);
	fprintf(to, "vendor: %.4s%.4s%.4s\n", (const char *)&leaf0->ebx,
		(const char *)&leaf0->edx, (const char *)&leaf0->ecx);
	put_brand(to, model);
	put_levels(to, &set);
	fprintf(to, "phys-bits: %u\nlinear-bits: %u\n", cpuid_phys_bits(model),
		cpuid_linear_bits(model));
	fprintf(to, "tsc-khz: %u\ntsc-scaling: %s\nxsave:", model->tsc_khz,
		tsc_scales ? "yes" : "no");
	for (uint32_t i = 2; i < XSAVE_PARTS_MAX; i++) {
		const struct kvm_cpuid_entry2 *e = cpuid_find(model, 0xd, i);

		if (e)
			fprintf(to, " %u@%u", i, e->ebx);
	}
	fputc('\n', to);
	put_features(to, &set);
	fclose(to);
	return text;
}

/* ---- reading ---- */

static int bad_facts(const struct arch_cpu_source *source, const char *what,
		     struct error *err)
{
	return error_set(err, -EINVAL,
			 "%s: %s: these are no facts of a processor; make them "
			 "with `godwit cpu`",
			 source->from, what);
}

static bool read_number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	*ret = (uint32_t)value;
	return *text >= '0' && *text <= '9' && !*end && value <= UINT32_MAX;
}

static bool read_xsave(char *words, struct facts *ret)
{
	char *word;

	while ((word = strsep(&words, " "))) {
		char *at = strchr(word, '@');
		uint32_t part, offset;

		if (!*word)
			continue;
		if (!at)
			return false;
		*at = '\0';
		if (!read_number(word, &part) || part < 2 ||
		    part >= XSAVE_PARTS_MAX || !read_number(at + 1, &offset))
			return false;
		ret->xsave[part] = offset;
	}
	return true;
}

static void note_unknown(const char *name, struct facts *ret)
{
	size_t have = strlen(ret->unknown);

	if (have + strlen(name) + 2 <= sizeof(ret->unknown))
		sprintf(ret->unknown + have, " %s", name);
}

static void read_features(char *words, struct facts *ret)
{
	char *word;

	while ((word = strsep(&words, " ")))
		if (*word && !cpu_set_name(&ret->features, word, true))
			note_unknown(word, ret);
}

static bool read_vendor(const char *text, struct facts *ret)
{
	if (strlen(text) != 12)
		return false;
	strcpy(ret->vendor, text);
	return true;
}

static bool read_scaling(const char *text, struct facts *ret)
{
	ret->tsc_scales = !strcmp(text, "yes");
	return ret->tsc_scales || !strcmp(text, "no");
}

enum {
	HAS_VENDOR = 1,
	HAS_PHYS = 2,
	HAS_LINEAR = 4,
	HAS_TSC = 8,
	HAS_FEATURES = 16,
	HAS_ALL = 31,
};

/* Return: was it well formed? Lines with other keys are for people. */
static bool read_line(char *line, struct facts *ret, unsigned int *has)
{
	char *value = strstr(line, ": ");

	if (!value)
		return line[0] && line[strlen(line) - 1] == ':';
	*value = '\0';
	value += 2;
	if (!strcmp(line, "vendor")) {
		*has |= HAS_VENDOR;
		return read_vendor(value, ret);
	}
	if (!strcmp(line, "phys-bits")) {
		*has |= HAS_PHYS;
		return read_number(value, &ret->phys_bits);
	}
	if (!strcmp(line, "linear-bits")) {
		*has |= HAS_LINEAR;
		return read_number(value, &ret->linear_bits);
	}
	if (!strcmp(line, "tsc-khz")) {
		*has |= HAS_TSC;
		return read_number(value, &ret->tsc_khz) && ret->tsc_khz;
	}
	if (!strcmp(line, "tsc-scaling"))
		return read_scaling(value, ret);
	if (!strcmp(line, "xsave"))
		return read_xsave(value, ret);
	if (!strcmp(line, "features")) {
		*has |= HAS_FEATURES;
		read_features(value, ret);
	}
	return true;
}

static int read_facts(const struct arch_cpu_source *source, struct facts *ret,
		      struct error *err)
{
	size_t len = strlen(source->facts);
	char *copy, *rest, *line;
	unsigned int has = 0;
	bool good = true;

	*ret = (struct facts){ 0 };
	if (len && source->facts[len - 1] != '\n')
		return bad_facts(source, "the end is missing", err);
	copy = rest = strdup(source->facts);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	while (good && (line = strsep(&rest, "\n")))
		good = !*line || read_line(line, ret, &has);
	free(copy);
	if (!good)
		return bad_facts(source, "a line is none of 'key: values'",
				 err);
	if (has != HAS_ALL)
		return bad_facts(source, "a line is missing", err);
	return 0;
}

/* ---- what a set of hosts has in common ---- */

static void put_lost(FILE *why, const struct arch_cpu_source *source,
		     const struct cpu_set *set, const struct cpu_set *common)
{
	struct cpu_set said = { 0 };
	unsigned int at = 0;
	const char *name;

	while ((name = cpu_set_next(set, &at))) {
		if (cpu_set_has(common, name) || cpu_set_has(&said, name))
			continue;
		if (!memcmp(&said, &(struct cpu_set){ 0 }, sizeof(said)))
			fprintf(why,
				"%s has more than all have:", source->from);
		fprintf(why, " %s", name);
		(void)cpu_set_name(&said, name, true);
	}
	if (memcmp(&said, &(struct cpu_set){ 0 }, sizeof(said)) != 0)
		fputc('\n', why);
}

static void keep_common(struct cpu_set *common, const struct cpu_set *other)
{
	for (size_t i = 0; i < CPUID_WORDS_MAX; i++)
		common->mask[i] &= other->mask[i];
}

/*
 * Register files lie where the processor has them, and a guest that saved some
 * must find them there. Only the last one's place depends on what is before it.
 */
static int compare_xsave(const struct arch_cpu_source *hosts,
			 const struct facts *facts, size_t n,
			 struct cpu_set *common, FILE *why, struct error *err)
{
	for (size_t i = 1; i < n; i++) {
		for (uint32_t part = 2; part < XSAVE_PARTS_MAX; part++) {
			uint32_t a = facts[0].xsave[part];
			uint32_t b = facts[i].xsave[part];

			if (!a || !b || a == b)
				continue;
			if (part != PKRU)
				return error_set(
					err, -ENOTSUP,
					"%s and %s lay XSAVE state %u out "
					"unlike: no guest can move between "
					"them",
					hosts[0].from, hosts[i].from, part);
			if (cpu_set_has(common, "pku"))
				fprintf(why,
					"pku is out: %s and %s keep its state "
					"at different places\n",
					hosts[0].from, hosts[i].from);
			(void)cpu_set_name(common, "pku", false);
		}
	}
	return 0;
}

static int compare_rest(const struct arch_cpu_source *hosts,
			const struct facts *facts, size_t n, FILE *why,
			struct error *err)
{
	for (size_t i = 1; i < n; i++) {
		if (strcmp(facts[0].vendor, facts[i].vendor) != 0)
			return error_set(err, -ENOTSUP,
					 "%s has a processor of %s, %s one of "
					 "%s: no guest can move between them",
					 hosts[0].from, facts[0].vendor,
					 hosts[i].from, facts[i].vendor);
		if (!tsc_khz_same(facts[0].tsc_khz, facts[i].tsc_khz) &&
		    !(facts[0].tsc_scales && facts[i].tsc_scales))
			fprintf(why,
				"the TSCs of %s and %s run at %u and %u kHz: a "
				"guest moves only to one that scales it\n",
				hosts[0].from, hosts[i].from, facts[0].tsc_khz,
				facts[i].tsc_khz);
	}
	return 0;
}

static void put_next_level(FILE *why, const struct arch_cpu_source *hosts,
			   const struct facts *facts, size_t n, int level)
{
	struct cpu_set asked;

	if (level + 1 >= CPU_LEVELS)
		return;
	cpu_level_set((unsigned int)level + 1, &asked);
	for (size_t i = 0; i < n; i++) {
		char lacks[CPU_MISSING_MAX];

		if (cpu_list_missing(&asked, &facts[i].features, lacks))
			fprintf(why, "%s is out: %s has no %s\n",
				cpu_level_name((unsigned int)level + 1),
				hosts[i].from, lacks);
	}
}

static int find_common(const struct arch_cpu_source *hosts,
		       const struct facts *facts, size_t n, FILE *why,
		       char **ret_name, struct error *err)
{
	struct cpu_set common = facts[0].features;
	uint32_t phys_bits = facts[0].phys_bits;
	int rc = compare_rest(hosts, facts, n, why, err);

	for (size_t i = 1; i < n; i++) {
		keep_common(&common, &facts[i].features);
		phys_bits = MIN(phys_bits, facts[i].phys_bits);
	}
	if (!rc)
		rc = compare_xsave(hosts, facts, n, &common, why, err);
	if (rc)
		return rc;
	put_next_level(why, hosts, facts, n, cpu_level_of(&common));
	for (size_t i = 0; i < n; i++)
		put_lost(why, &hosts[i], &facts[i].features, &common);
	*ret_name = cpu_name_of(&common, phys_bits);
	return *ret_name ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int arch_cpu_common(const struct arch_cpu_source *hosts, size_t n,
		    char **ret_name, char **ret_why, struct error *err)
{
	struct facts *facts = calloc(n, sizeof(*facts));
	size_t size;
	FILE *why;
	int rc = 0;

	*ret_name = NULL;
	*ret_why = NULL;
	why = open_memstream(ret_why, &size);
	if (!facts || !why)
		rc = error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; !rc && i < n; i++)
		rc = read_facts(&hosts[i], &facts[i], err);
	if (!rc)
		rc = find_common(hosts, facts, n, why, ret_name, err);
	if (why)
		fclose(why);
	free(facts);
	return rc;
}

/* ---- what a host lacks for a guest ---- */

static void put_missing(FILE *to, const struct facts *guest,
			const struct facts *host)
{
	struct cpu_set said = { 0 };
	unsigned int at = 0;
	const char *name;

	if (strcmp(guest->vendor, host->vendor) != 0)
		fprintf(to, "vendor: %s, not %s\n", host->vendor,
			guest->vendor);
	while ((name = cpu_set_next(&guest->features, &at))) {
		/* A host's facts are of a processor with one core, perhaps. */
		if (cpu_set_has(&host->features, name) ||
		    cpu_set_has(&said, name) || !strcmp(name, "ht") ||
		    !strcmp(name, "cmp_legacy"))
			continue;
		fprintf(to, "feature: %s\n", name);
		(void)cpu_set_name(&said, name, true);
	}
	if (guest->unknown[0])
		fprintf(to, "features that this godwit does not know:%s\n",
			guest->unknown);
	if (guest->phys_bits > host->phys_bits)
		fprintf(to, "phys-bits: %u, not %u\n", host->phys_bits,
			guest->phys_bits);
	if (guest->linear_bits > host->linear_bits)
		fprintf(to, "linear-bits: %u, not %u\n", host->linear_bits,
			guest->linear_bits);
	for (uint32_t i = 2; i < XSAVE_PARTS_MAX; i++)
		if (guest->xsave[i] && host->xsave[i] &&
		    guest->xsave[i] != host->xsave[i])
			fprintf(to, "xsave: %u@%u, not %u@%u\n", i,
				host->xsave[i], i, guest->xsave[i]);
	if (!tsc_khz_same(guest->tsc_khz, host->tsc_khz) && !host->tsc_scales)
		fprintf(to, "tsc-khz: %u, not %u, and it does not scale\n",
			host->tsc_khz, guest->tsc_khz);
}

int arch_cpu_missing(const struct arch_cpu_source *guest,
		     const struct arch_cpu_source *host, char **ret_lines,
		     struct error *err)
{
	struct facts theirs, ours;
	size_t size;
	FILE *to;
	int rc = read_facts(guest, &theirs, err);

	if (!rc)
		rc = read_facts(host, &ours, err);
	if (rc)
		return rc;
	to = open_memstream(ret_lines, &size);
	if (!to)
		return error_set(err, -ENOMEM, "out of memory");
	put_missing(to, &theirs, &ours);
	fclose(to);
	return 0;
}
