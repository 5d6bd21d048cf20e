/* SPDX-License-Identifier: MIT */
/*
 * A VM's balloon, for those who know of no devices: the user, who wants memory
 * back, and a migration, which wants to know what it need not send.
 *
 * Threads: any but a vCPU's, under no device's lock.
 */
#ifndef GODWIT_VM_BALLOON_H
#define GODWIT_VM_BALLOON_H

#include "vmm/balloon.h"
#include "vmm/hints.h"
#include "vmm/vm.h"

/**
 * vm_balloon_set() - have the guest keep @bytes of its memory and give the rest
 * back, when it finds the time, and if it can.
 *
 * Return: 0; -ENODEV: it has no balloon; -EINVAL: more than it was made with,
 * or nothing; -EBUSY: it is just being handed over.
 */
int __must_check vm_balloon_set(struct vm *vm, uint64_t bytes,
				struct error *err);

/**
 * vm_balloon_look() - see balloon_look() of the device.
 *
 * Return: false when there is no balloon.
 */
bool vm_balloon_look(struct vm *vm, struct balloon_info *ret);

/**
 * vm_hints_begin() - ask the guest what is free; it answers into vm_hints(),
 * which is open from now on, or never.
 *
 * Return: false when nobody is there to ask.
 */
bool vm_hints_begin(struct vm *vm);

/**
 * vm_hints_end() - no more hints: vm_hints() is closed. Does nothing when none
 * were asked for.
 */
void vm_hints_end(struct vm *vm);

/**
 * vm_hints() - of the VM's memory.
 */
struct hints *vm_hints(struct vm *vm);

#endif
