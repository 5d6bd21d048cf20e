/* SPDX-License-Identifier: MIT */
/*
 * What a move needs of this host's KVM whoever's guest it is, had ready: VMs
 * with their interrupt controllers and timers, and what KVM offers a guest's
 * processor.
 *
 * A listener fills its spares while it waits, so that no move waits for them.
 * The interval timer alone comes with a kernel thread, which on a busy host
 * waits for a processor like any other. An attempt takes two VMs, one for the
 * guest and one for the rehearsal. It is a head start and nothing else: what
 * isn't there, because nobody filled or because that failed, is made by who
 * needs it, who then says what is wrong. `run` never fills: for it they are a
 * VM that tells of the processor and then becomes the guest's.
 *
 * To make a VM can take KVM seconds where every processor is busy. So nobody
 * waits for what another is making: who finds nothing makes one for himself.
 *
 * Threads: any.
 */
#ifndef GODWIT_SPARES_H
#define GODWIT_SPARES_H

#include "arch/arch.h"

struct spares;

/**
 * spares_create() - nothing is ready yet.
 * @kvm: outlives it.
 */
int __must_check spares_create(const struct kvm *kvm, struct spares **ret,
			       struct error *err);

/**
 * spares_free() - close what nobody took. NULL is fine.
 */
void spares_free(struct spares *spares);

/**
 * spares_fill() - make what is missing, as far as it can be had.
 */
void spares_fill(struct spares *spares);

/**
 * spares_drop() - nothing will be needed: close what is there, and what is
 * being made as soon as it is. What is taken from now on is made then.
 */
void spares_drop(struct spares *spares);

/**
 * spares_take_vm() - a KVM VM after arch_vm_init(), without memory or vCPUs.
 * @spares: NULL: none are kept.
 * @ret_fd: the caller's.
 */
int __must_check spares_take_vm(struct spares *spares, const struct kvm *kvm,
				int *ret_fd, struct error *err);

/**
 * spares_cpu_model() - arch_cpu_model_named(), with the help of one of the VMs,
 * which can be taken again then.
 */
int __must_check spares_cpu_model(struct spares *spares, const char *name,
				  uint32_t cpus, struct arch_cpu_model *ret,
				  struct error *err);

/**
 * spares_offer() - what this host offers, for arch_cpu_model_check().
 * @ret: good until spares_free().
 */
int __must_check spares_offer(struct spares *spares,
			      const struct arch_cpu_model **ret,
			      struct error *err);

#endif
