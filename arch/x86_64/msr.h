/* SPDX-License-Identifier: MIT */
/*
 * Model-specific registers: which of them are a vCPU's state, and how they are
 * read and written so that nothing is lost in silence.
 */
#ifndef GODWIT_X86_64_MSR_H
#define GODWIT_X86_64_MSR_H

#include "arch/x86_64/vcpu_state.h"

#define MSR_TSC		      0x10U
#define MSR_TSC_ADJUST	      0x3bU
#define MSR_ARCH_CAPABILITIES 0x10aU
#define MSR_PAT		      0x277U
#define MSR_MTRR_DEF_TYPE     0x2ffU
#define MSR_TSC_DEADLINE      0x6e0U
#define MSR_XSS		      0xda0U

/**
 * msr_name() - what the manuals call an MSR.
 *
 * Return: "MSR" for one that has no name here.
 */
const char *msr_name(uint32_t index);

/**
 * msr_is_state() - may a saved state have this MSR?
 *
 * Return: false for those that are held elsewhere in the state, are commands,
 * or belong to features that no guest is offered.
 */
bool msr_is_state(uint32_t index);

/**
 * msr_listed() - is @index among the @n of @list?
 */
bool msr_listed(const uint32_t *list, uint32_t n, uint32_t index);

/**
 * msr_value() - what @state says of an MSR; 0 when it says nothing.
 */
uint64_t msr_value(const struct x86_vcpu_state *state, uint32_t index);

/**
 * msr_list() - the MSRs that are state on this host.
 * @ret_index: room for X86_MSRS_MAX.
 * @ret_n: how many there are.
 *
 * Return: 0, or -errno with @err.
 */
int __must_check msr_list(const struct kvm *kvm, uint32_t *ret_index,
			  uint32_t *ret_n, struct error *err);

/**
 * msr_save() - read all MSRs of a vCPU into @state.
 *
 * Return: 0, or -errno with @err naming the MSR that can't be read.
 */
int __must_check msr_save(const struct kvm *kvm, int vcpu_fd,
			  struct x86_vcpu_state *state, struct error *err);

/**
 * msr_load() - write the MSRs of @state; the TSC deadline last.
 * @held: what the vCPU holds now, or NULL; what is the same isn't written.
 * @tsc: write the TSC too, @tsc_advance cycles further. Otherwise it follows
 *       from the offset.
 *
 * Return: 0, or -errno with @err naming the MSR that can't be written.
 */
int __must_check msr_load(int vcpu_fd, const struct x86_vcpu_state *state,
			  const struct x86_vcpu_state *held, bool tsc,
			  uint64_t tsc_advance, struct error *err);

/**
 * msr_check() - the MSR part of arch_vcpu_check().
 * @held: what a vCPU of this host holds, or NULL.
 */
int __must_check msr_check(const struct kvm *kvm,
			   const struct arch_cpu_model *model,
			   const struct x86_vcpu_state *state,
			   const struct x86_vcpu_state *held,
			   struct error *err);

/**
 * msr_set_one() - write one MSR.
 *
 * Return: 0, or -errno with @err naming the MSR.
 */
int __must_check msr_set_one(int vcpu_fd, uint32_t index, uint64_t value,
			     struct error *err);

#endif
