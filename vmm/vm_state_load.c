// SPDX-License-Identifier: MIT
/*
 * Loading a VM's state, in the strict steps of vm_state.h, and the rehearsal of
 * it in a VM that is thrown away.
 *
 * Runs on the thread that migrates; vCPUs' parts on the vCPUs' own.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vm_state_internal.h"

/* ---- decoding and checking ---- */

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
	vm_slot_visit(state, slot, &c);
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
	rc = vm_slot_encode(state, slot, section->version, err);
	section->data = slot->encoded.data;
	section->len = slot->encoded.len;
	return rc;
}

static int run_check(const struct run_state *run, struct error *err)
{
	if (run->wanted.what & ~(uint32_t)VM_WANTS_ALL)
		return error_set(err, -EINVAL, "wanted: 0x%x has unknown bits",
				 run->wanted.what);
	return 0;
}

static int slot_check(struct vm_state *state, const struct slot *slot,
		      struct error *err)
{
	struct vm *vm = state->vm;
	struct device *dev;

	switch (slot->kind) {
	case SLOT_VCPU:
		return arch_vcpu_check(vm->host.kvm, &vm->machine.cpu_model,
				       slot->index, slot->state,
				       vm_power_on_state(vm, slot->index), err);
	case SLOT_VM:
		return arch_vm_check(vm->host.kvm, slot->state, err);
	case SLOT_RUN:
		return run_check(slot->state, err);
	case SLOT_DEVICE:
		dev = vm_slot_device(state, slot);
		return dev->ops->check(dev, slot->state, err);
	}
	return -EINVAL;
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

/* ---- loading ---- */

struct load_order {
	struct vm_state *state;
	struct arch_clock_shift shift;
};

static void *primed_vcpu(const struct vm_state *state, uint32_t i)
{
	return state->primed_vcpus + i * arch_vcpu_state_size();
}

/* Of one that was switched on, perhaps primed, and has not run. */
static const void *held_by_vcpu(const struct vm_state *state, uint32_t i)
{
	return state->primed_vcpus ? primed_vcpu(state, i)
				   : vm_power_on_state(state->vm, i);
}

static int load_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct load_order *order = opaque;
	struct vm_state *state = order->state;
	uint32_t i = vcpu_index(vcpu);

	return arch_vcpu_load(state->vm->host.kvm, vcpu_fd(vcpu),
			      state->slots[i].state, held_by_vcpu(state, i),
			      &order->shift, err);
}

static const void *vm_part(const struct vm_state *state)
{
	return state->slots[vm_vcpu_count(state->vm)].state;
}

static void run_commit(struct vm *vm, const struct run_state *run)
{
	if (run->user_paused)
		vm->holds |= VM_HOLD_USER;
	pthread_mutex_lock(&vm->note_lock);
	vm->wanted = run->wanted;
	pthread_mutex_unlock(&vm->note_lock);
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
		dev = vm_slot_device(state, slot);
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

/* ---- priming ---- */

static int prime_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	const struct vm_state *state = opaque;
	uint32_t i = vcpu_index(vcpu);

	return arch_vcpu_prime(
		state->vm->host.kvm, vcpu_fd(vcpu), state->slots[i].state,
		vm_power_on_state(state->vm, i), primed_vcpu(state, i), err);
}

static int prime(struct vm_state *state, struct error *err)
{
	struct vm *vm = state->vm;
	int rc;

	assert(!state->primed_vcpus);
	state->primed_vcpus = calloc(vm_vcpu_count(vm), arch_vcpu_state_size());
	if (!state->primed_vcpus)
		return error_set(err, -ENOMEM, "VM state: out of memory");
	pthread_mutex_lock(&vm->lock);
	rc = crew_errand_helped(vm->crew, prime_vcpu, state, err);
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

/* ---- rehearsal ---- */

void vm_stage_free(struct stage *stage)
{
	for (uint32_t i = 0; i < stage->nvcpus; i++)
		close_fd(&stage->vcpu_fds[i]);
	free(stage->vcpu_fds);
	close_fd(&stage->vm_fd);
	memory_free(stage->mem);
	*stage = (struct stage){ .vm_fd = -1 };
}

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

	vm_stage_free(stage);
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

/*
 * On the thread of the VM's own vCPU, which has nothing to do yet. The stage's
 * was switched on as that was, and has perhaps been loaded since. Then it is
 * loaded again as if it were primed, where it will hardly have changed; and one
 * that works as if it were not.
 */
static int stage_load_vcpu(void *opaque, struct vcpu *vcpu, struct error *err)
{
	const struct stage_order *order = opaque;
	const struct vm_state *state = order->state;
	uint32_t i = vcpu_index(vcpu);
	const void *now = state->slots[i].state;
	const void *held = arch_vcpu_works(now)
				   ? vm_power_on_state(state->vm, i)
				   : held_by_vcpu(state, i);

	return arch_vcpu_load(state->vm->host.kvm, state->stage.vcpu_fds[i],
			      now, held, &order->shift, err);
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
		rc = stage_load(state, err);
	if (!rc)
		rc = prime(state, err);
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
