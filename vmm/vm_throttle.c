// SPDX-License-Identifier: MIT
/*
 * Slowing vCPUs down: those that are chosen take naps, all at a time, for their
 * share of each turn; see vm.h.
 *
 * Threads: the timer is the loop's; who chooses may be any, and one at a time.
 */
#include "vmm/vm_internal.h"

/* A vCPU runs for this long between two naps. */
#define THROTTLE_RUN_NS (2 * NS_PER_MS)

/* @ns: 0 ends a nap. */
static void nap(struct vm *vm, uint32_t index, uint64_t ns)
{
	vcpu_nap(vm_vcpu(vm, index), ns);
	/* Let go meanwhile: nobody shall sleep for nothing. */
	if (ns && !vm->throttled[index])
		vcpu_nap(vm_vcpu(vm, index), 0);
}

static void tick(void *opaque)
{
	struct vm *vm = opaque;
	unsigned int percent = vm->throttle;
	uint64_t nap_ns;

	if (!percent)
		return;
	nap_ns = THROTTLE_RUN_NS * percent / (100 - percent);
	for (uint32_t i = 0; i < vm_vcpu_count(vm); i++) {
		if (vm->throttled[i])
			nap(vm, i, nap_ns);
	}
	loop_timer_arm(vm->throttle_timer,
		       clock_ns() + nap_ns + THROTTLE_RUN_NS);
	/* Switched off meanwhile. */
	if (!vm->throttle)
		loop_timer_arm(vm->throttle_timer, 0);
}

void vm_throttle(struct vm *vm, unsigned int percent, const bool *which)
{
	unsigned int before;

	percent = MIN(percent, 99U);
	for (uint32_t i = 0; i < vm_vcpu_count(vm); i++) {
		bool slow = percent && (!which || which[i]);

		if (atomic_exchange(&vm->throttled[i], slow) && !slow)
			nap(vm, i, 0);
	}
	before = atomic_exchange(&vm->throttle, percent);
	/* The timer goes on as it does: begun anew, it would nap anew. */
	if (!percent != !before)
		loop_timer_arm(vm->throttle_timer, percent ? clock_ns() : 0);
}

bool vm_throttled(const struct vm *vm, uint32_t index)
{
	return vm->throttled[index];
}

int vm_throttle_init(struct vm *vm, struct error *err)
{
	return loop_timer_add(vm->host.loop, tick, vm, NULL,
			      &vm->throttle_timer, err);
}
