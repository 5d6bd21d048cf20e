/* SPDX-License-Identifier: MIT */
/*
 * The inside of a VM's state, for vm_state*.c only: what is remembered of each
 * section, and what saving and loading share.
 */
#ifndef GODWIT_VM_STATE_INTERNAL_H
#define GODWIT_VM_STATE_INTERNAL_H

#include "vmm/vm_internal.h"
#include "vmm/vm_state.h"

struct glance;

/* What a section is of, and how it is handled. */
enum slot_kind {
	SLOT_VCPU,
	SLOT_VM,
	SLOT_RUN,
	SLOT_DEVICE,
};

struct slot {
	enum slot_kind kind;
	uint32_t index; /* of the vCPU or device */
	char type[DEVICE_TYPE_MAX];
	char id[DEVICE_ID_MAX];
	uint32_t version;
	void *state; /* the plain struct */
	size_t size;
	bool present; /* decoded */
	struct buffer encoded;
};

/* A VM of the same shape, without threads, devices or memory behind it. */
struct stage {
	int vm_fd; /* -1: there is none */
	struct memory *mem;
	int *vcpu_fds;
	uint32_t nvcpus;
};

struct vm_state {
	struct vm *vm;
	uint32_t nslots;
	struct slot *slots;
	struct stage stage;    /* of the rehearsal */
	uint8_t *primed_vcpus; /* what they hold, an arch state each; or NULL */
	struct glance *glances; /* at each vCPU, by the last peek … */
	uint64_t told_ns;	/* … that was told of then */
};

/* Whether the guest's user holds it, and what the guest has asked for. */
struct run_state {
	bool user_paused;
	struct vm_wanted wanted;
};

static inline struct device *vm_slot_device(const struct vm_state *state,
					    const struct slot *slot)
{
	return state->vm->devices[slot->index];
}

/**
 * vm_slot_visit() - the plain struct of @slot, for whatever @c is for.
 */
void vm_slot_visit(const struct vm_state *state, const struct slot *slot,
		   struct codec *c);

/**
 * vm_slot_encode() - the plain struct into the slot's buffer, as @version has
 * it.
 */
int __must_check vm_slot_encode(struct vm_state *state, struct slot *slot,
				uint32_t version, struct error *err);

/**
 * vm_stage_free() - throw away the VM of a rehearsal; fine when there is none.
 */
void vm_stage_free(struct stage *stage);

#endif
