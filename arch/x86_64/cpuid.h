/* SPDX-License-Identifier: MIT */
/*
 * What godwit knows of CPUID: which leaves a guest may see, what each of their
 * registers means, and the name of every feature bit.
 *
 * A feature is offered only when it has a name here and KVM offers it. So a
 * new kernel can't slip a guest a feature whose state this version doesn't
 * know how to move.
 */
#ifndef GODWIT_X86_64_CPUID_H
#define GODWIT_X86_64_CPUID_H

#include "arch/arch.h"

enum cpuid_reg {
	CPUID_EAX,
	CPUID_EBX,
	CPUID_ECX,
	CPUID_EDX,
};

/* What a register of a leaf holds, which decides how it is made and compared.
 */
enum cpuid_rule {
	CPUID_ZERO,  /* nothing for a guest: always 0 */
	CPUID_INFO,  /* describes; a guest reads it when it boots; not compared
		      */
	CPUID_EXACT, /* layout: must be the same on every host */
	CPUID_FEATURES, /* a feature a bit, named in cpuid_feature_word() */
};

struct cpuid_leaf {
	uint32_t function;
	uint32_t last_index;
	bool indexed;	 /* ECX selects a subleaf */
	uint8_t rule[4]; /* enum cpuid_rule, by enum cpuid_reg */
};

/* Names of the 32 bits of one register. */
struct cpuid_word {
	uint32_t function;
	uint32_t index;
	enum cpuid_reg reg;
	/* NULL: unknown. A leading '-': known, and never offered. */
	const char *names[32];
};

#define CPUID_WORDS_MAX 32

/* Which of the features that KVM offers a guest gets. */
struct cpuid_choice {
	uint32_t mask[CPUID_WORDS_MAX]; /* by place in cpuid_words() */
	uint32_t phys_bits;		/* at most; 0: as the host */
};

/* A copy of what KVM_GET_SUPPORTED_CPUID says. */
struct cpuid_table {
	uint32_t nent;
	struct kvm_cpuid_entry2 entries[ARCH_CPUID_MAX];
};

/**
 * cpuid_leaf_find() - the rule for a leaf.
 *
 * Return: NULL when a guest never sees that leaf.
 */
const struct cpuid_leaf *cpuid_leaf_find(uint32_t function, uint32_t index);

/**
 * cpuid_word_find() - the names of a CPUID_FEATURES register; never NULL for
 * one that the leaf table calls so.
 */
const struct cpuid_word *cpuid_word_find(uint32_t function, uint32_t index,
					 enum cpuid_reg reg);

/**
 * cpuid_words() - all words that have names.
 * @ret_count: at most CPUID_WORDS_MAX.
 */
const struct cpuid_word *cpuid_words(size_t *ret_count);

/**
 * cpuid_word_mask() - the bits of @word that may be offered.
 */
uint32_t cpuid_word_mask(const struct cpuid_word *word);

/**
 * cpuid_reg_get() / cpuid_reg_name() - a register of an entry, and its name.
 */
uint32_t cpuid_reg_get(const struct kvm_cpuid_entry2 *entry,
		       enum cpuid_reg reg);
void cpuid_reg_set(struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg,
		   uint32_t value);
const char *cpuid_reg_name(enum cpuid_reg reg);

/**
 * cpuid_find() - a leaf of a model.
 *
 * Return: NULL when the model hasn't got it, which reads as zeros.
 */
const struct kvm_cpuid_entry2 *cpuid_find(const struct arch_cpu_model *model,
					  uint32_t function, uint32_t index);

/**
 * cpuid_has() - is a feature bit set in the model?
 */
bool cpuid_has(const struct arch_cpu_model *model, uint32_t function,
	       uint32_t index, enum cpuid_reg reg, unsigned int bit);

/**
 * cpuid_phys_bits() / cpuid_linear_bits() - widths of guest addresses.
 */
unsigned int cpuid_phys_bits(const struct arch_cpu_model *model);
unsigned int cpuid_linear_bits(const struct arch_cpu_model *model);

/**
 * cpuid_xcr0() - the XSAVE components that the model has.
 */
uint64_t cpuid_xcr0(const struct arch_cpu_model *model);

/**
 * cpuid_build() - make a model from what KVM supports. Pure.
 * @supported: as KVM gave it.
 * @choice: NULL for all of it.
 * @tsc_deadline: KVM has the TSC-deadline timer.
 * @cpus: 1 to ARCH_CPUS_MAX.
 * @ret: nentries and entries are filled; the rest is the caller's.
 *
 * Return: 0, or -ENOTSUP with @err when too much is missing or too many
 * leaves are there.
 */
int __must_check cpuid_build(const struct cpuid_table *supported,
			     const struct cpuid_choice *choice,
			     bool tsc_deadline, uint32_t cpus,
			     struct arch_cpu_model *ret, struct error *err);

/**
 * cpuid_supported() - ask KVM for @ret and for whether it has the TSC-deadline
 * timer.
 */
int __must_check cpuid_supported(const struct kvm *kvm, struct cpuid_table *ret,
				 bool *ret_tsc_deadline, struct error *err);

/**
 * cpuid_finish() - what of a model isn't CPUID: rates and sizes of this host.
 */
int __must_check cpuid_finish(const struct kvm *kvm, int vm_fd,
			      struct arch_cpu_model *model, struct error *err);

/**
 * cpuid_patch() - give a model's entries the APIC id of vCPU @index.
 */
void cpuid_patch(struct kvm_cpuid_entry2 *entries, uint32_t nentries,
		 uint32_t index);

/**
 * cpuid_check_shape() - is @model something that cpuid_build() of some host
 * could have made? For hostile input. Pure.
 *
 * Return: 0 or -EINVAL with @err naming leaf and fault.
 */
int __must_check cpuid_check_shape(const struct arch_cpu_model *model,
				   struct error *err);

/**
 * cpuid_is_needed() - is this a feature without which cpuid_check_shape() takes
 * no model?
 */
bool cpuid_is_needed(const char *name);

/**
 * cpuid_check_subset() - does a host that offers @host have all that @model
 * needs? Pure; @model has passed cpuid_check_shape().
 *
 * Return: 0 or -ENOTSUP with @err naming the first thing that is missing.
 */
int __must_check cpuid_check_subset(const struct arch_cpu_model *model,
				    const struct arch_cpu_model *host,
				    struct error *err);

/* By how much two TSC rates may differ and still be one (KVM's tolerance). */
#define TSC_TOLERANCE_PPM 250

/**
 * tsc_khz_same() - are two TSC rates within KVM's tolerance?
 */
bool tsc_khz_same(uint32_t a, uint32_t b);

#endif
