/* SPDX-License-Identifier: MIT */
/*
 * Processors by name, and as text: for whoever has hosts that differ and wants
 * guests that can move between all of them.
 *
 * A name, as --cpu takes it, is
 *
 *   host | x86-64 | x86-64-v2 | x86-64-v3 | x86-64-v4
 *       [,exact][,phys-bits=N][,+FEATURE]...[,-FEATURE]...
 *
 * "host" is all that this host offers. The others are the levels of the x86-64
 * psABI (section 3.1.1): they have what their level asks for, or are refused;
 * and, of what is not in any level, what every VM should have if the host can:
 * what KVM itself provides, and defences against the processor's own faults.
 * With "exact" they have not even those, so that each host makes the very same
 * processor of such a name. Features are called as in /proc/cpuinfo. What only
 * describes (family, brand, caches) is the host's in any case.
 *
 * Facts are what `godwit cpu` prints: lines of "key: values" that another
 * host's godwit reads again.
 */
#ifndef GODWIT_ARCH_CPU_H
#define GODWIT_ARCH_CPU_H

#include "arch/arch.h"

/**
 * arch_cpu_model_named() - the processor called @name, made of what this host
 * offers.
 * @vm_fd: as for arch_cpu_model_host().
 * @cpus: 1 to ARCH_CPUS_MAX, for its topology.
 *
 * Return: 0; -EINVAL when @name is none; -ENOTSUP when this host lacks
 * features of it, which @err names.
 */
int __must_check arch_cpu_model_named(const struct kvm *kvm, int vm_fd,
				      const char *name, uint32_t cpus,
				      struct arch_cpu_model *ret,
				      struct error *err);

/**
 * arch_cpu_name_check() - is @name well formed? Asks nothing of the host.
 */
int __must_check arch_cpu_name_check(const char *name, struct error *err);

/**
 * arch_cpu_model_name() - the shortest name that makes @model again on a host
 * whose "host" is @host.
 *
 * Return: text that the caller frees, NULL without memory.
 */
char *arch_cpu_model_name(const struct arch_cpu_model *model,
			  const struct arch_cpu_model *host);

/**
 * arch_cpu_facts() - a model as text.
 * @tsc_scales: can the host give a guest a TSC of another rate?
 *
 * Return: text that the caller frees, NULL without memory.
 */
char *arch_cpu_facts(const struct arch_cpu_model *model, bool tsc_scales);

/* Facts of some host or guest, and where they are from, for messages. */
struct arch_cpu_source {
	const char *from;
	const char *facts;
};

/**
 * arch_cpu_common() - the best processor that all of some hosts can give.
 * @ret_name: its name; the caller frees it.
 * @ret_why: lines that say what kept it from being better; the caller frees.
 *
 * Return: 0; -EINVAL for facts that are none; -ENOTSUP when there is no such
 * processor; -ENOMEM.
 */
int __must_check arch_cpu_common(const struct arch_cpu_source *hosts, size_t n,
				 char **ret_name, char **ret_why,
				 struct error *err);

/**
 * arch_cpu_missing() - all that @host lacks and @guest needs.
 * @ret_lines: a line each, "" when the guest could run there; the caller frees.
 *
 * Return: 0, -EINVAL, -ENOMEM.
 */
int __must_check arch_cpu_missing(const struct arch_cpu_source *guest,
				  const struct arch_cpu_source *host,
				  char **ret_lines, struct error *err);

#endif
