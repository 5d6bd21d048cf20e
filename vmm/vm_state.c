// SPDX-License-Identifier: MIT
/*
 * The whole VM's state; see vm_state.h.
 *
 * Everything that a save or a load needs is allocated when the vm_state is
 * made: a slot a section, each with room for the plain struct and a buffer
 * for its encoding. In order: vCPUs, the KVM part of the VM, the run state,
 * then devices.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/glance.h"
#include "vmm/vm_internal.h"
#include "vmm/vm_state.h"

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
	struct stage stage;	/* of the last rehearsal */
	struct glance *glances; /* at each vCPU, by the last peek … */
	uint64_t told_ns;	/* … that was told of then */
};

/* Whether the guest's user holds it, and what the guest has asked for. */
struct run_state {
	bool user_paused;
	struct vm_wanted wanted;
};

#define RUN_STATE_VERSION 1

static void run_visit(struct codec *c, struct run_state *run)
{
	codec_bool(c, "user_paused", &run->user_paused);
	codec_u32(c, "wanted", &run->wanted.what);
	codec_u8(c, "exit_status", &run->wanted.exit_status);
	codec_string(c, "text", run->wanted.text, sizeof(run->wanted.text));
}

static int run_check(const struct run_state *run, struct error *err)
{
	if (run->wanted.what & ~(uint32_t)VM_WANTS_ALL)
		return error_set(err, -EINVAL, "wanted: 0x%x has unknown bits",
				 run->wanted.what);
	return 0;
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

static void run_commit(struct vm *vm, const struct run_state *run)
{
	if (run->user_paused)
		vm->holds |= VM_HOLD_USER;
	pthread_mutex_lock(&vm->note_lock);
	vm->wanted = run->wanted;
	pthread_mutex_unlock(&vm->note_lock);
}

static struct device *slot_device(const struct vm_state *state,
				  const struct slot *slot)
{
	return state->vm->devices[slot->index];
}

static void slot_visit(const struct vm_state *state, const struct slot *slot,
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
		slot_device(state, slot)->ops->visit(c, slot->state);
		break;
	}
}

static int slot_check(struct vm_state *state, const struct slot *slot,
		      struct error *err)
{
	struct vm *vm = state->vm;
	struct device *dev;

	switch (slot->kind) {
	case SLOT_VCPU:
		return arch_vcpu_check(vm->host.kvm, &vm->machine.cpu_model,
				       slot->index, slot->state, err);
	case SLOT_VM:
		return arch_vm_check(vm->host.kvm, slot->state, err);
	case SLOT_RUN:
		return run_check(slot->state, err);
	case SLOT_DEVICE:
		dev = slot_device(state, slot);
		return dev->ops->check(dev, slot->state, err);
	}
	return -EINVAL;
}

/* ---- making ---- */

static void stage_free(struct stage *stage)
{
	for (uint32_t i = 0; i < stage->nvcpus; i++)
		close_fd(&stage->vcpu_fds[i]);
	free(stage->vcpu_fds);
	close_fd(&stage->vm_fd);
	memory_free(stage->mem);
	*stage = (struct stage){ .vm_fd = -1 };
}

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
	stage_free(&state->stage);
	free(state);
}

/* ---- saving ---- */

static int slot_encode(struct vm_state *state, struct slot *slot,
		       uint32_t version, struct error *err)
{
	struct codec c;

	slot->encoded.len = 0;
	codec_init_save(&c, &slot->encoded, version);
	slot_visit(state, slot, &c);
	return codec_finish(&c, err);
}

/* Runs on the vCPU's thread: reads and encodes, so both are parallel. */
static int save_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct vm_state *state = opaque;
	struct slot *slot = &state->slots[vcpu_index(vcpu)];
	int rc = arch_vcpu_save(state->vm->host.kvm, vcpu_fd(vcpu), slot->state,
				err);

	return rc ? rc : slot_encode(state, slot, slot->version, err);
}

static void snapshot_device(struct vm_state *state, struct slot *slot)
{
	struct device *dev = slot_device(state, slot);

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
			rc = slot_encode(state, slot, slot->version, err);
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
	int rc;

	pthread_mutex_lock(&vm->lock);
	rc = crew_errand_helped(vm->crew, save_vcpu, state, err);
	if (!rc)
		rc = save_rest(state, err);
	pthread_mutex_unlock(&vm->lock);
	return rc;
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
	return rc;
}

static int peek_vcpus(struct vm_state *state, struct vm_state_times *times,
		      struct error *err)
{
	struct vm *vm = state->vm;
	struct glance total;
	int rc;

	state->told_ns = clock_ns();
	rc = crew_errand(vm->crew, peek_vcpu, state, err);
	total = glance_total(state->glances, vm_vcpu_count(vm), processors());
	/* Those who stand still already don't have to be stopped. */
	times->stop_ns = vm->holds ? 0 : total.out_ns;
	times->save_ns = total.read_ns;
	return rc;
}

int vm_state_peek(struct vm_state *state, struct vm_state_times *ret,
		  struct error *err)
{
	struct vm *vm = state->vm;
	uint64_t start;
	int rc;

	pthread_mutex_lock(&vm->lock);
	rc = peek_vcpus(state, ret, err);
	start = clock_ns();
	if (!rc)
		rc = save_rest(state, err);
	ret->save_ns += clock_ns() - start;
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

/* ---- loading ---- */

void vm_state_reset(struct vm_state *state)
{
	for (uint32_t i = 0; i < state->nslots; i++)
		state->slots[i].present = false;
}

static struct slot *find_slot(struct vm_state *state,
			      const struct vm_section *section)
{
	for (uint32_t i = 0; i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];

		if (!strcmp(slot->type, section->type) &&
		    !strcmp(slot->id, section->id))
			return slot;
	}
	return NULL;
}

int vm_state_decode(struct vm_state *state, const struct vm_section *section,
		    struct error *err)
{
	struct slot *slot = find_slot(state, section);
	struct codec c;
	int rc;

	if (!slot)
		return error_set(err, -ENOENT,
				 "state of %s %s: this machine has none",
				 section->type, section->id);
	if (slot->present)
		return error_set(err, -EEXIST, "state of %s %s: sent twice",
				 section->type, section->id);
	if (section->version == 0 || section->version > slot->version)
		return error_set(err, -ENOTSUP,
				 "state of %s %s: version %u; this godwit "
				 "knows up to %u, update it",
				 section->type, section->id, section->version,
				 slot->version);
	memset(slot->state, 0, slot->size);
	codec_init_load(&c, section->data, section->len, section->version);
	slot_visit(state, slot, &c);
	rc = codec_finish(&c, err);
	if (rc)
		error_prefix(err, "state of %s %s", section->type, section->id);
	slot->present = !rc;
	return rc;
}

int vm_state_recode(struct vm_state *state, struct vm_section *section,
		    struct error *err)
{
	struct slot *slot = find_slot(state, section);
	int rc;

	assert(slot && slot->present);
	rc = slot_encode(state, slot, section->version, err);
	section->data = slot->encoded.data;
	section->len = slot->encoded.len;
	return rc;
}

int vm_state_check(struct vm_state *state, struct error *err)
{
	for (uint32_t i = 0; i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];
		int rc;

		if (!slot->present)
			return error_set(err, -ENODATA,
					 "state of %s %s: missing", slot->type,
					 slot->id);
		rc = slot_check(state, slot, err);
		if (rc) {
			error_prefix(err, "state of %s %s", slot->type,
				     slot->id);
			return rc;
		}
	}
	return 0;
}

struct load_order {
	struct vm_state *state;
	struct arch_clock_shift shift;
};

static int load_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct load_order *order = opaque;
	struct vm_state *state = order->state;

	return arch_vcpu_load(state->vm->host.kvm, vcpu_fd(vcpu),
			      state->slots[vcpu_index(vcpu)].state,
			      &order->shift, err);
}

static const void *vm_part(const struct vm_state *state)
{
	return state->slots[vm_vcpu_count(state->vm)].state;
}

static void commit_rest(struct vm_state *state)
{
	for (uint32_t i = vm_vcpu_count(state->vm); i < state->nslots; i++) {
		struct slot *slot = &state->slots[i];
		struct device *dev;

		if (slot->kind == SLOT_RUN)
			run_commit(state->vm, slot->state);
		if (slot->kind != SLOT_DEVICE)
			continue;
		dev = slot_device(state, slot);
		pthread_mutex_lock(&dev->lock);
		dev->ops->commit(dev, slot->state);
		pthread_mutex_unlock(&dev->lock);
	}
}

int vm_state_load(struct vm_state *state, struct error *err)
{
	struct load_order order = { .state = state };
	struct vm *vm = state->vm;
	int rc;

	pthread_mutex_lock(&vm->lock);
	rc = arch_vm_load_begin(vm->host.kvm, vm->fd, vm_part(state),
				vm->machine.cpu_model.tsc_khz, &order.shift,
				err);
	if (!rc)
		rc = crew_errand_helped(vm->crew, load_vcpu, &order, err);
	if (!rc)
		rc = arch_vm_load_finish(vm->host.kvm, vm->fd, vm_part(state),
					 err);
	if (!rc)
		commit_rest(state);
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

/* ---- rehearsal ---- */

static int stage_vcpu(struct stage *stage, const struct vm *vm,
		      struct error *err)
{
	uint32_t index = stage->nvcpus;
	int fd = KVM_IOCTL_NUM(stage->vm_fd, KVM_CREATE_VCPU, index, err);

	if (fd < 0)
		return fd;
	stage->vcpu_fds[index] = fd;
	stage->nvcpus++;
	return arch_vcpu_init(vm->host.kvm, fd, index, &vm->machine.cpu_model,
			      err);
}

static int stage_init(struct stage *stage, const struct vm *vm,
		      struct spares *spares, struct error *err)
{
	int rc;

	stage_free(stage);
	stage->vcpu_fds = calloc(vm_vcpu_count(vm), sizeof(*stage->vcpu_fds));
	if (!stage->vcpu_fds)
		return error_set(err, -ENOMEM, "rehearsal: out of memory");
	rc = spares_take_vm(spares, vm->host.kvm, &stage->vm_fd, err);
	if (rc)
		return rc;
	rc = memory_create(vm->machine.memory_size, false, &stage->mem, err);
	if (!rc)
		rc = memory_attach(stage->mem, stage->vm_fd, false, err);
	for (uint32_t i = 0; !rc && i < vm_vcpu_count(vm); i++)
		rc = stage_vcpu(stage, vm, err);
	return rc;
}

struct stage_order {
	const struct vm_state *state;
	struct arch_clock_shift shift;
};

/* On the thread of the VM's own vCPU, which has nothing to do yet. */
static int stage_load_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	const struct stage_order *order = opaque;
	const struct vm_state *state = order->state;
	uint32_t i = vcpu_index(vcpu);

	return arch_vcpu_load(state->vm->host.kvm, state->stage.vcpu_fds[i],
			      state->slots[i].state, &order->shift, err);
}

/* In the order, and on the threads, of vm_state_load(). */
static int stage_load(const struct vm_state *state, struct error *err)
{
	struct stage_order order = { .state = state };
	const struct stage *stage = &state->stage;
	const struct vm *vm = state->vm;
	int rc;

	rc = arch_vm_load_begin(vm->host.kvm, stage->vm_fd, vm_part(state),
				vm->machine.cpu_model.tsc_khz, &order.shift,
				err);
	if (!rc)
		rc = crew_errand_helped(vm->crew, stage_load_vcpu, &order, err);
	if (!rc)
		rc = arch_vm_load_finish(vm->host.kvm, stage->vm_fd,
					 vm_part(state), err);
	return rc;
}

static int stage_time(const struct vm_state *state, bool crowded,
		      uint64_t *ret_ns, struct error *err)
{
	uint64_t busy = process_clock_ns();
	uint64_t start = clock_ns();
	int rc = stage_load(state, err);

	*ret_ns = clock_ns() - start;
	/* At worst one processor does all of it, and waits for nobody. */
	if (crowded)
		*ret_ns = MIN(*ret_ns, process_clock_ns() - busy);
	return rc;
}

int vm_state_rehearse(struct vm_state *state, struct spares *spares,
		      bool crowded, uint64_t *ret_load_ns, struct error *err)
{
	uint64_t a = 0, b = 0, c = 0;
	int rc = stage_init(&state->stage, state->vm, spares, err);

	if (!rc)
		rc = stage_time(state, crowded, &a, err);
	if (!rc)
		rc = stage_time(state, crowded, &b, err);
	if (!rc)
		rc = stage_time(state, crowded, &c, err);
	*ret_load_ns = MAX(MIN(a, b), MIN(MAX(a, b), c));
	if (rc)
		error_prefix(err, "rehearsal");
	return rc;
}

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
		slot_visit(state, slot, &c);
		rc = codec_finish(&c, &err);
	}
	vm_state_free(state);
	return rc;
}
