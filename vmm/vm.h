/* SPDX-License-Identifier: MIT */
/*
 * A virtual machine: memory, vCPUs, interrupt controllers, devices, and
 * whether it runs.
 *
 * A VM runs when nobody holds it. Holds are bits, each owned by one party
 * (the user's `stop`, a migration, a reset in progress …); vm_hold() returns
 * when every vCPU is parked and every device paused, vm_release() lets go and
 * the last release lets the VM run: devices resume first, vCPUs last. A new
 * VM is born with VM_HOLD_BIRTH, so that nothing runs before its maker says
 * so.
 *
 * Threads: vm_hold(), vm_release() and the state functions from any thread
 * but a vCPU's or under a device's lock; one internal lock serialises them.
 * Events are told on the loop's thread.
 */
#ifndef GODWIT_VM_H
#define GODWIT_VM_H

#include "vmm/irq.h"
#include "vmm/loop.h"
#include "vmm/machine.h"
#include "vmm/spares.h"
#include "vmm/vcpu.h"

struct vm;

enum vm_hold {
	VM_HOLD_BIRTH = 1 << 0,	    /* made, not started */
	VM_HOLD_USER = 1 << 1,	    /* `godwit pause`, listen --paused */
	VM_HOLD_MIGRATION = 1 << 2, /* being moved away */
	VM_HOLD_RESET = 1 << 3,	    /* reset in progress */
	VM_HOLD_ENDED = 1 << 4, /* powered off, crashed or exited: for good */
};

enum vm_event {
	VM_EVENT_STOP,	 /* ran, and does no longer */
	VM_EVENT_RESUME, /* runs again */
	/* A device can't go on: STOP follows, as if the user had said so;
	 * @text. */
	VM_EVENT_IO_ERROR,
	VM_EVENT_BALLOON, /* the guest has more or less memory; vm_balloon.h */
	VM_EVENT_RESET,
	VM_EVENT_POWEROFF, /* the guest switched itself off */
	VM_EVENT_EXIT,	   /* --debug-exit; @status is the guest's byte */
	VM_EVENT_CRASHED,  /* triple fault or panic, and has ended; @text */
	VM_EVENT_PANICKED, /* the same, but STOP follows, as with IO_ERROR */
	VM_EVENT_FAILED,   /* KVM can't go on; @text */
};

typedef void vm_event_fn(void *opaque, enum vm_event event, uint8_t status,
			 const char *text);

/*
 * What a VM needs of its host. All pointers and descriptors outlive the VM
 * and stay the caller's.
 */
struct vm_host {
	const struct kvm *kvm;
	struct loop *loop;
	const struct sandbox *sandbox;		/* NULL for none */
	const struct device_backends *backends; /* NULL: no disks to be had */
	const struct device_taps *taps;		/* NULL: no taps */
	const struct device_lines *lines; /* NULL: nobody at the consoles */
	/* What guest memory is made of; NULL: what the host sees fit. */
	const struct hugepages *hugepages;
	bool pause_on_crash;   /* else a guest that crashes has ended */
	vm_event_fn *on_event; /* on the loop's thread */
	void *opaque;
};

/*
 * A boot image that can be booted again and carried to another host: read
 * only, by position. Owned by the VM once given.
 */
struct vm_image {
	int kernel_fd;
	uint64_t kernel_size; /* bytes */
	int initrd_fd;	      /* -1 for none */
	uint64_t initrd_size;
};

/**
 * vm_create() - build the whole machine, held by VM_HOLD_BIRTH.
 *
 * @spares: NULL: nothing was made ahead.
 *
 * @machine is copied. Nothing later allocates, opens or can be missing.
 *
 * Return: 0 or -errno with @err naming what can't be had.
 */
int __must_check vm_create(const struct machine *machine,
			   const struct vm_host *host, struct spares *spares,
			   struct vm **ret, struct error *err);

/**
 * vm_free() - stop, end all threads, unmap, close. NULL is fine.
 */
void vm_free(struct vm *vm);

/**
 * vm_set_image() - hand the boot image over; its descriptors are the VM's.
 */
void vm_set_image(struct vm *vm, const struct vm_image *image);

const struct vm_image *vm_image(const struct vm *vm);
const struct machine *vm_machine(const struct vm *vm);
struct memory *vm_memory(struct vm *vm);
int vm_fd(const struct vm *vm);
const struct vm_host *vm_host(const struct vm *vm);
uint32_t vm_vcpu_count(const struct vm *vm);
struct vcpu *vm_vcpu(struct vm *vm, uint32_t index);
uint32_t vm_device_count(const struct vm *vm);
struct device *vm_device(struct vm *vm, uint32_t index);

/**
 * vm_device_find() - a device by its id; NULL when there is none.
 */
struct device *vm_device_find(struct vm *vm, const char *id);

/**
 * vm_boot() - load the image into (zero) memory and set the entry registers.
 *
 * The VM is held. Return: 0 or -errno with @err naming file and fault.
 */
int __must_check vm_boot(struct vm *vm, struct error *err);

/**
 * vm_lend_vcpus() - have up to @max vCPUs' threads of a VM that was never let
 * go run @fn. They are idle, and where the guest's memory is best made.
 *
 * Nothing else may be done with the vCPUs until vm_return_vcpus().
 */
void vm_lend_vcpus(struct vm *vm, uint32_t max, vcpu_errand_fn *fn,
		   void *opaque);

/**
 * vm_return_vcpus() - wait until all that were lent are back.
 */
void vm_return_vcpus(struct vm *vm);

/**
 * vm_hold() - stop for @why; returns when nothing of the guest moves.
 */
void vm_hold(struct vm *vm, enum vm_hold why);

/**
 * vm_release() - the party @why has no objection any more.
 */
void vm_release(struct vm *vm, enum vm_hold why);

/**
 * vm_hold_quietly(), vm_release_quietly() - the same in the middle of a pause:
 * the loop is not woken, for what it would tell may cost others the processor
 * that the guest waits for. vm_tell_soon() follows, as soon as that is past.
 */
void vm_hold_quietly(struct vm *vm, enum vm_hold why);
void vm_release_quietly(struct vm *vm, enum vm_hold why);

/**
 * vm_tell_soon() - wake the loop to tell events, and to act on what the guest
 * has asked for while it was held. Any thread.
 */
void vm_tell_soon(struct vm *vm);

/**
 * vm_tell_events() - tell now what has happened, on the loop's thread: whoever
 * has just held or released the VM there wants it told before he goes on.
 */
void vm_tell_events(struct vm *vm);

/**
 * vm_settle() - have the devices write what the host still caches, while the
 * guest runs on; never blocks. See settle() in device.h.
 * @ret_ns: what the last flush of each took, one after the other.
 *
 * Return: true when each has ended one since the guest was last held.
 */
bool vm_settle(struct vm *vm, uint64_t *ret_ns);

/**
 * vm_handover() - a moment of a move: each device in turn deals with what only
 * one host may have. See enum device_handover. On a migration's thread.
 * @session: DEVICE_SESSION_SIZE bytes.
 *
 * Return: 0, or the first failure, with @err naming the device; those after it
 * were not asked then. RECLAIM and OWN don't fail.
 */
int __must_check vm_handover(struct vm *vm, enum device_handover step,
			     const uint8_t *session, struct error *err);

/**
 * vm_left_behind() - how many connections by way of this host end when the
 * guest moves away now; see left_behind() in device.h.
 */
uint64_t vm_left_behind(struct vm *vm);

/**
 * vm_throttle() - keep vCPUs out of the guest for @percent (0 to 99) of the
 * time, in slices of milliseconds; 0 lets all run freely again.
 * @which: one a vCPU; the others run freely. NULL: all.
 */
void vm_throttle(struct vm *vm, unsigned int percent, const bool *which);

/**
 * vm_throttled() - is vCPU @index being kept back?
 */
bool vm_throttled(const struct vm *vm, uint32_t index);

/**
 * vm_holds() - the holds now, a mask of enum vm_hold; 0 means it runs.
 */
unsigned int vm_holds(const struct vm *vm);

/**
 * vm_request_reset() - reset soon, on the loop's thread. From anywhere.
 */
void vm_request_reset(struct vm *vm);

/**
 * vm_press_power_button() - what `godwit poweroff` does: ask the guest.
 */
void vm_press_power_button(struct vm *vm);

/**
 * vm_never_migrates() - the reason why this VM can't move, NULL when it can.
 */
const char *vm_never_migrates(const struct vm *vm);

#endif
