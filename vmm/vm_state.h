/* SPDX-License-Identifier: MIT */
/*
 * The state of a whole VM as sections: one a vCPU, one for the VM's KVM part,
 * one a device that has state. Saved in one walk; loaded in strict steps:
 *
 *   vm_state_decode()  each section into a temporary
 *   vm_state_check()   all there, each possible on this machine and host
 *   vm_state_load()    the KVM part, which may fail; then the devices'
 *                      commit(), which can't
 *
 * A failure before the end of vm_state_load() leaves a VM that must never run.
 */
#ifndef GODWIT_VM_STATE_H
#define GODWIT_VM_STATE_H

#include "vmm/vm.h"

#define VM_SECTION_MAX (1 * MIB)

/* A section as it travels: who it is for, then the visited fields. */
struct vm_section {
	char type[DEVICE_TYPE_MAX]; /* "vcpu", "vm", or a device's type */
	char id[DEVICE_ID_MAX];	    /* "0".., "vm", or a device's id */
	uint32_t version;
	const void *data;
	size_t len;
};

typedef int vm_section_fn(void *opaque, const struct vm_section *section,
			  struct error *err);

struct vm_state;

/**
 * vm_state_create() - temporaries for a VM's sections, all memory allocated.
 */
int __must_check vm_state_create(struct vm *vm, struct vm_state **ret,
				 struct error *err);

void vm_state_free(struct vm_state *state);

/* What reading the state took, in nanoseconds. */
struct vm_state_times {
	uint64_t stop_ns; /* first kick to the last vCPU out of the guest */
	uint64_t save_ns; /* all of it */
};

/**
 * vm_state_save() - read and encode the held VM's state.
 *
 * vCPUs are read on their own threads, and on the caller's, all at once; what
 * is not a vCPU's, meanwhile.
 * Allocates nothing after the first save or peek on the same @state.
 */
int __must_check vm_state_save(struct vm_state *state, struct error *err);

/**
 * vm_state_peek() - as vm_state_save() on a VM that runs on: each vCPU leaves
 * the guest for as long as it takes to read that one, whenever it gets there,
 * and devices are not stopped at all. The result is good for rehearsing a load,
 * and for nothing else.
 * @ret: what it would take to stop them all, and to save: glance.h.
 */
int __must_check vm_state_peek(struct vm_state *state,
			       struct vm_state_times *ret, struct error *err);

/**
 * vm_state_emit() - hand every section of the last save or peek to @emit.
 */
int __must_check vm_state_emit(struct vm_state *state, vm_section_fn *emit,
			       void *opaque, struct error *err);

/**
 * vm_state_count() - how many sections that are.
 */
uint32_t vm_state_count(const struct vm_state *state);

/**
 * vm_state_reset() - forget all decoded sections.
 */
void vm_state_reset(struct vm_state *state);

/**
 * vm_state_decode() - one section into its temporary.
 *
 * Return: 0, -ENOENT (no such device here), -EEXIST (twice), -ENOTSUP
 * (version), -EBADMSG and others from the codec; @err names the section.
 */
int __must_check vm_state_decode(struct vm_state *state,
				 const struct vm_section *section,
				 struct error *err);

/**
 * vm_state_recode() - encode a section again that was decoded and not loaded
 * yet: what was understood of it, as bytes.
 * @section: its type, id and version; data and len are set, and good until the
 * next time.
 */
int __must_check vm_state_recode(struct vm_state *state,
				 struct vm_section *section, struct error *err);

/**
 * vm_state_check() - is every section there and possible?
 */
int __must_check vm_state_check(struct vm_state *state, struct error *err);

/**
 * vm_state_rehearse() - load the KVM part of a checked state into a throwaway
 * VM of the same shape, on the threads that will do it in earnest. Unmaking
 * that takes KVM tens of milliseconds, so it waits for vm_state_free().
 *
 * May be called once. The VM's own vCPUs, which are held and have never run,
 * then hold what they can of it ahead of its time (arch_vcpu_prime()), and
 * vm_state_load() loads what has changed since.
 * @spares: NULL: nothing was made ahead.
 * @crowded: the guest itself still runs on this host, and takes processors that
 * it will leave to us in the pause: waiting for them doesn't count.
 * @ret_load_ns: how long the loading itself took, in nanoseconds: the median
 * of three, since nothing measures it again and one hiccup of a scheduler would
 * make every pause look too long.
 */
int __must_check vm_state_rehearse(struct vm_state *state,
				   struct spares *spares, bool crowded,
				   uint64_t *ret_load_ns, struct error *err);

/**
 * vm_state_load() - make a checked state the VM's own. The VM is held and has
 * never run.
 */
int __must_check vm_state_load(struct vm_state *state, struct error *err);

/**
 * vm_state_describe() - the schema of every section, as text.
 */
int __must_check vm_state_describe(struct vm *vm, struct buffer *out);

#endif
