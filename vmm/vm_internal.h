/* SPDX-License-Identifier: MIT */
/*
 * The inside of a VM, for vm*.c only.
 */
#ifndef GODWIT_VM_INTERNAL_H
#define GODWIT_VM_INTERNAL_H

#include <stdatomic.h>

#include "vmm/crew.h"
#include "vmm/doorbell.h"
#include "vmm/hints.h"
#include "vmm/vm.h"

/* What the guest has asked for and nobody has done yet; travels with it. */
enum vm_wants {
	VM_WANTS_RESET = 1 << 0,
	VM_WANTS_POWEROFF = 1 << 1,
	VM_WANTS_EXIT = 1 << 2,
	VM_WANTS_CRASHED = 1 << 3,
	VM_WANTS_FAILED = 1 << 4,
	VM_WANTS_STOP = 1 << 5,
	VM_WANTS_PANICKED = 1 << 6, /* CRASHED, and paused for it */
	VM_WANTS_ALL = (1 << 7) - 1,
};

struct vm_wanted {
	uint32_t what;	     /* enum vm_wants */
	uint8_t exit_status; /* for EXIT */
	char text[160];	     /* for CRASHED, FAILED, STOP and PANICKED */
};

/* An event on its way to the loop's thread. */
struct vm_told {
	enum vm_event event;
	uint8_t status;
	char text[160];
};

struct vm {
	struct machine machine;
	struct vm_host host;
	int fd;
	struct memory *mem;
	struct hints *hints;
	struct bus pio;
	struct bus mmio;
	struct irq irq;
	struct pci_bus *pci;
	struct doorbell doorbell;
	struct crew *crew; /* the vCPUs */
	uint32_t ndevices;
	struct device *devices[MACHINE_DEVICES_MAX];
	struct vm_image image;
	uint8_t *power_on_vcpus; /* an arch state each */
	void *power_on_vm;

	pthread_mutex_t lock;	    /* whether it runs */
	_Atomic unsigned int holds; /* enum vm_hold; written under lock */

	pthread_mutex_t note_lock; /* the rest; innermost */
	struct vm_wanted wanted;
	uint32_t stopped_for; /* STOP or PANICKED; 0 when neither */
	char stopped_by[160]; /* a device, and why */
	unsigned int ntold;
	struct vm_told told[16];
	int wake_fd; /* eventfd: the loop's thread has something to do */
	struct loop_fd *wake;

	struct loop_timer *throttle_timer;
	_Atomic unsigned int throttle;	       /* per cent */
	_Atomic bool throttled[ARCH_CPUS_MAX]; /* whom it concerns */
};

/* What devices may ask of the VM that they are given as @opaque. */
extern const struct device_hooks vm_hooks;

/**
 * vm_on_vcpu_exit() - struct vcpu_env's on_exit, with the VM as @opaque.
 */
void vm_on_vcpu_exit(void *opaque, uint32_t index, enum vcpu_exit why,
		     const char *text);

/**
 * vm_on_wake() - the loop's thread acts on what was noted; @opaque is the VM.
 */
void vm_on_wake(void *opaque, uint32_t events);

/**
 * vm_throttle_init() - nobody is slowed down yet. vm_free() removes the timer.
 */
int __must_check vm_throttle_init(struct vm *vm, struct error *err);

/**
 * vm_power_on_state() - the state in which vCPU @vcpu was made.
 */
void *vm_power_on_state(struct vm *vm, uint32_t vcpu);

#endif
