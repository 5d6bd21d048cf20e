/* SPDX-License-Identifier: MIT */
/*
 * What waits to be delivered to a vCPU, or is being: exceptions, interrupts,
 * NMIs, SMIs.
 */
#ifndef GODWIT_X86_64_VCPU_EVENTS_H
#define GODWIT_X86_64_VCPU_EVENTS_H

#include "arch/x86_64/vcpu_state.h"

/**
 * vcpu_events_save() - read them.
 *
 * Return: 0; -ENOTSUP where KVM tells of some that are not known here; -errno.
 */
int __must_check vcpu_events_save(int vcpu_fd, struct x86_events *ret,
				  struct error *err);

/**
 * vcpu_events_load() - write @e, which was checked.
 */
int __must_check vcpu_events_load(const struct kvm *kvm, int vcpu_fd,
				  const struct x86_events *e,
				  struct error *err);

#endif
