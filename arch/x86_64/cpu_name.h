/* SPDX-License-Identifier: MIT */
/*
 * Sets of CPU features, the levels of x86-64, and names that choose features;
 * for cpu_name.c and cpu_facts.c, and their tests. arch/cpu.h says what a name
 * is. All pure.
 */
#ifndef GODWIT_X86_64_CPU_NAME_H
#define GODWIT_X86_64_CPU_NAME_H

#include "arch/cpu.h"
#include "arch/x86_64/cpuid.h"

#define CPU_LEVELS 4

/* Bits of words, by place in cpuid_words(). */
struct cpu_set {
	uint32_t mask[CPUID_WORDS_MAX];
};

/**
 * cpu_set_name() - put a feature into a set, or take it out, at all places
 * that have its name.
 *
 * Return: is there such a feature, and may a guest have it?
 */
bool cpu_set_name(struct cpu_set *set, const char *name, bool on);

/**
 * cpu_set_has() - is it there, at any of its places?
 */
bool cpu_set_has(const struct cpu_set *set, const char *name);

/**
 * cpu_set_next() - walk through a set.
 * @at: 0 at first.
 *
 * Return: the next name (one with two places comes twice), NULL at the end.
 */
const char *cpu_set_next(const struct cpu_set *set, unsigned int *at);

void cpu_set_of_model(const struct arch_cpu_model *model, struct cpu_set *ret);

const char *cpu_level_name(unsigned int level);

/**
 * cpu_level_set() - what a level asks for, with those below it.
 */
void cpu_level_set(unsigned int level, struct cpu_set *ret);

/**
 * cpu_level_lacks() - the first feature that keeps a set from a level, or NULL.
 */
const char *cpu_level_lacks(unsigned int level, const struct cpu_set *set);

#define CPU_MISSING_MAX 512 /* bytes of text */

/**
 * cpu_list_missing() - the names of what a set lacks of another, with how many
 * more there are where there are many: "avx, avx2 and 3 more".
 *
 * Return: how many; with 0 @text is "".
 */
unsigned int cpu_list_missing(const struct cpu_set *want,
			      const struct cpu_set *have,
			      char text[CPU_MISSING_MAX]);

/**
 * cpu_level_of() - the highest level that a set has; -1 for none.
 */
int cpu_level_of(const struct cpu_set *set);

/**
 * cpu_name_of() - an exact name for a set. Allocated; NULL without memory.
 */
char *cpu_name_of(const struct cpu_set *set, uint32_t phys_bits);

/**
 * cpu_choose() - which features a name means, on a host that supports these.
 *
 * Return: as arch_cpu_model_named().
 */
int __must_check cpu_choose(const char *name,
			    const struct cpuid_table *supported,
			    bool tsc_deadline, struct cpuid_choice *ret,
			    struct error *err);

#endif
