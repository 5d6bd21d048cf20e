// SPDX-License-Identifier: MIT
/*
 * The whole VM's state, made and saved; see vm_state.h. Loading it, and the
 * rehearsal of that, is in vm_state_load.c.
 *
 * Everything that a save or a load needs is allocated when the vm_state is
 * made: a slot a section, each with room for the plain struct and a buffer
 * for its encoding. In order: vCPUs, the KVM part of the VM, the run state,
 * then devices.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/glance.h"
#include "vmm/vm_state_internal.h"

#define RUN_STATE_VERSION 1

static void run_visit(struct codec *c, struct run_state *run)
{
	codec_bool(c, "user_paused", &run->user_paused);
	codec_u32(c, "wanted", &run->wanted.what);
	codec_u8(c, "exit_status", &run->wanted.exit_status);
	codec_string(c, "text", run->wanted.text, sizeof(run->wanted.text));
}

static void run_snapshot(struct vm *vm, struct run_state *run)
{
	run->user_paused = vm->holds & VM_HOLD_USER;
	pthread_mutex_lock(&vm->note_lock);
	run->wanted = vm->wanted;
	/* Who stopped it does so again over there, and its user is told. */
	if (vm->stopped_for && !run->wanted.text[0]) {
		run->wanted.what |= vm->stopped_for;
		strcpy(run->wanted.text, vm->stopped_by);
	}
	pthread_mutex_unlock(&vm->note_lock);
}

void vm_slot_visit(const struct vm_state *state, const struct slot *slot,
		   struct codec *c)
{
	switch (slot->kind) {
	case SLOT_VCPU:
		arch_vcpu_visit(c, slot->state);
		break;
	case SLOT_VM:
		arch_vm_visit(c, slot->state);
		break;
	case SLOT_RUN:
		run_visit(c, slot->state);
		break;
	case SLOT_DEVICE:
		vm_slot_device(state, slot)->ops->visit(c, slot->state);
		break;
	}
}

/* ---- making ---- */

static int slot_init(struct slot *slot, enum slot_kind kind, uint32_t index,
		     const char *type, const char *id, uint32_t version,
		     size_t size)
{
	slot->kind = kind;
	slot->index = index;
	snprintf(slot->type, sizeof(slot->type), "%s", type);
	snprintf(slot->id, sizeof(slot->id), "%s", id);
	slot->version = version;
	slot->size = size;
	slot->state = calloc(1, size);
	if (!slot->state)
		return -ENOMEM;
	return buffer_reserve(&slot->encoded, size + 4 * KIB);
}

static int add_slots(struct vm_state *state)
{
	struct vm *vm = state->vm;
	struct slot *slot = state->slots;
	char id[DEVICE_ID_MAX];
	int rc = 0;

	for (uint32_t i = 0; !rc && i < vm_vcpu_count(vm); i++) {
		snprintf(id, sizeof(id), "%u", i);
		rc = slot_init(slot++, SLOT_VCPU, i, "vcpu", id,
			       arch_vcpu_state_version(),
			       arch_vcpu_state_size());
	}
	if (!rc)
		rc = slot_init(slot++, SLOT_VM, 0, "vm", "vm",
			       arch_vm_state_version(), arch_vm_state_size());
	if (!rc)
		rc = slot_init(slot++, SLOT_RUN, 0, "run", "run",
			       RUN_STATE_VERSION, sizeof(struct run_state));
	for (uint32_t i = 0; !rc && i < vm->ndevices; i++) {
		const struct device_ops *ops = vm->devices[i]->ops;

		if (ops->migrates != DEVICE_MIGRATES_STATE)
			continue;
		rc = slot_init(slot++, SLOT_DEVICE, i, ops->type,
			       vm->devices[i]->id, ops->version,
			       ops->state_size);
	}
	state->nslots = (uint32_t)(slot - state->slots);
	return rc;
}

int vm_state_create(struct vm *vm, struct vm_state **ret, struct error *err)
{
	struct vm_state *state = calloc(1, sizeof(*state));

	if (!state)
		goto no_memory;
	state->vm = vm;
	state->stage.vm_fd = -1;
	state->slots = calloc(vm_vcpu_count(vm) + vm->ndevices + 2,
			      sizeof(*state->slots));
	state->glances = calloc(vm_vcpu_count(vm), sizeof(*state->glances));
	if (!state->slots || !state->glances || add_slots(state))
		goto no_memory;
	*ret = state;
	return 0;

no_memory:
	vm_state_free(state);
	return error_set(err, -ENOMEM, "VM state: out of memory");
}

void vm_state_free(struct vm_state *state)
{
	if (!state)
		return;
	for (uint32_t i = 0; i < state->nslots; i++) {
		free(state->slots[i].state);
		buffer_free(&state->slots[i].encoded);
	}
	free(state->slots);
	free(state->glances);
	free(state->primed_vcpus);
	vm_stage_free(&state->stage);
	free(state);
}

/* ---- saving ---- */

int vm_slot_encode(struct vm_state *state, struct slot *slot, uint32_t version,
		   struct error *err)
{
	struct codec c;

	slot->encoded.len = 0;
	codec_init_save(&c, &slot->encoded, version);
	vm_slot_visit(state, slot, &c);
	return codec_finish(&c, err);
}

/* Runs on the vCPU's thread: reads and encodes, so both are parallel. */
static int save_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct vm_state *state = opaque;
	struct slot *slot = &state->slots[vcpu_index(vcpu)];
	int rc = arch_vcpu_save(state->vm->host.kvm, vcpu_fd(vcpu), slot->state,
				err);

	return rc ? rc : vm_slot_encode(state, slot, slot->version, err);
}

static void snapshot_device(struct vm_state *state, struct slot *slot)
{
	struct device *dev = vm_slot_device(state, slot);

	pthread_mutex_lock(&dev->lock);
	dev->ops->snapshot(dev, slot->state);
	pthread_mutex_unlock(&dev->lock);
}

static int save_rest(struct vm_state *state, struct error *err)
{
	struct vm *vm = state->vm;
	int rc = 0;

	for (uint32_t i = vm_vcpu_count(vm); !rc && i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];

		if (slot->kind == SLOT_VM)
			rc = arch_vm_save(vm->host.kvm, vm->fd, slot->state,
					  err);
		else if (slot->kind == SLOT_RUN)
			run_snapshot(vm, slot->state);
		else
			snapshot_device(state, slot);
		if (!rc)
			rc = vm_slot_encode(state, slot, slot->version, err);
		if (rc)
			error_prefix(err, "state of %s %s", slot->type,
				     slot->id);
	}
	return rc;
}

uint32_t vm_state_count(const struct vm_state *state)
{
	return state->nslots;
}

int vm_state_emit(struct vm_state *state, vm_section_fn *emit, void *opaque,
		  struct error *err)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];
		struct vm_section section = {
			.version = slot->version,
			.data = slot->encoded.data,
			.len = slot->encoded.len,
		};

		memcpy(section.type, slot->type, sizeof(section.type));
		memcpy(section.id, slot->id, sizeof(section.id));
		rc = emit(opaque, &section, err);
	}
	return rc;
}

int vm_state_save(struct vm_state *state, struct error *err)
{
	struct vm *vm = state->vm;
	struct error vcpu_err;
	int rest, rc;

	pthread_mutex_lock(&vm->lock);
	crew_share(vm->crew, save_vcpu, state);
	rest = save_rest(state, err);
	rc = crew_shared(vm->crew, rest ? &vcpu_err : err);
	pthread_mutex_unlock(&vm->lock);
	return rest ? rest : rc;
}

/* Runs on the vCPU's thread, which is on its way back into the guest. */
static int peek_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct vm_state *state = opaque;
	struct glance *glance = &state->glances[vcpu_index(vcpu)];
	uint64_t start = thread_clock_ns();
	int rc;

	glance->out_ns = clock_ns() - state->told_ns;
	rc = save_vcpu(state, vcpu, err);
	glance->read_ns = thread_clock_ns() - start;
	glance->cpu = sched_getcpu();
	return rc;
}

int vm_state_peek(struct vm_state *state, struct vm_state_times *ret,
		  struct error *err)
{
	struct vm *vm = state->vm;
	struct glance total;
	uint64_t start;
	int rc;

	pthread_mutex_lock(&vm->lock);
	state->told_ns = clock_ns();
	rc = crew_errand(vm->crew, peek_vcpu, state, err);
	start = thread_clock_ns();
	if (!rc)
		rc = save_rest(state, err);
	total = glance_total(state->glances, vm_vcpu_count(vm),
			     thread_clock_ns() - start, crew_hands(vm->crew),
			     sched_getcpu());
	/* Those who stand still already don't have to be stopped. */
	ret->stop_ns = vm->holds ? 0 : total.out_ns;
	ret->save_ns = total.read_ns;
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

/* ---- describing ---- */

int vm_state_describe(struct vm *vm, struct buffer *out)
{
	struct vm_state *state = NULL;
	struct error err;
	int rc = vm_state_create(vm, &state, &err);

	for (uint32_t i = 0; !rc && i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];
		char name[DEVICE_TYPE_MAX + 12];
		struct codec c;

		snprintf(name, sizeof(name), "%s@%u", slot->type,
			 slot->version);
		codec_init_describe(&c, out, slot->version);
		codec_enter(&c, name);
		vm_slot_visit(state, slot, &c);
		rc = codec_finish(&c, &err);
	}
	vm_state_free(state);
	return rc;
}
