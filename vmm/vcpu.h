/* SPDX-License-Identifier: MIT */
/*
 * One vCPU, one thread.
 *
 * The thread is either parked or in its run loop. vcpu_kick() tells it to
 * park and returns at once. The thread takes errands (vcpu_errand_start()), so
 * that state is read and written on the vCPU's own thread; while it is parked,
 * also by whoever else has time for that. Waiting for either is done for all
 * vCPUs of a VM at once, by the tallies that they share: crew.h.
 *
 * The kick: immediate_exit in kvm_run, then a signal whose handler does
 * nothing. The flag closes the window between the thread's last look and
 * KVM_RUN; the signal gets it out of the guest. Before it parks, the thread
 * re-enters once with immediate_exit so that a port or MMIO access that KVM
 * has half done is complete and the registers mean something.
 */
#ifndef GODWIT_VCPU_H
#define GODWIT_VCPU_H

#include <pthread.h>

#include "arch/arch.h"
#include "vmm/bus.h"
#include "vmm/sandbox.h"
#include "vmm/tally.h"

struct vcpu;

/* Why a vCPU left the guest for good; told once, on its own thread. */
enum vcpu_exit {
	VCPU_EXIT_SHUTDOWN, /* triple fault */
	VCPU_EXIT_RESET,    /* the guest asked through KVM_SYSTEM_EVENT */
	VCPU_EXIT_ERROR,    /* KVM could not go on; the text says how */
};

typedef void vcpu_exit_fn(void *opaque, uint32_t index, enum vcpu_exit why,
			  const char *text);
typedef int vcpu_errand_fn(void *opaque, struct vcpu *vcpu, struct error *err);

struct vcpu_env {
	const struct kvm *kvm;
	int vm_fd;
	const struct arch_cpu_model *model;
	struct bus *pio;
	struct bus *mmio;
	const struct sandbox *sandbox;
	vcpu_exit_fn *on_exit; /* the vCPU parks itself after this */
	void *opaque;
	struct tally *out;  /* counts vCPUs that are not parked */
	struct tally *busy; /* and those whose errand has not ended */
	bool alert;	    /* stay awake for a moment when parked */
	/* What a summoned one does: the errands that are on offer. */
	void (*help)(void *helper);
	void *helper;
};

/**
 * vcpu_signals_init() - install the handler of the kick signal; once a
 * process, harmless when repeated.
 */
void vcpu_signals_init(void);

/**
 * vcpu_create() - make vCPU @index and its thread, which will be parked.
 */
int __must_check vcpu_create(const struct vcpu_env *env, uint32_t index,
			     struct vcpu **ret, struct error *err);

/**
 * vcpu_end() - end the thread (the vCPU is parked or gets parked). It may have
 * been helping others, which are all there until all threads have ended.
 */
void vcpu_end(struct vcpu *vcpu);

/**
 * vcpu_free() - end the thread, if it has not, and close. NULL is fine.
 */
void vcpu_free(struct vcpu *vcpu);

int vcpu_fd(const struct vcpu *vcpu);
uint32_t vcpu_index(const struct vcpu *vcpu);

/**
 * vcpu_kick() - ask the vCPU to park. Any thread; returns at once.
 */
void vcpu_kick(struct vcpu *vcpu);

/**
 * vcpu_unpark() - let it run the guest.
 */
void vcpu_unpark(struct vcpu *vcpu);

/**
 * vcpu_nap() - keep the vCPU out of the guest for @ns, from now on; 0 ends a
 * nap. A kick ends it early. Any thread; returns at once.
 */
void vcpu_nap(struct vcpu *vcpu, uint64_t ns);

/**
 * vcpu_faults() - page faults that KVM has resolved for it so far
 * (arch_faults_read()). Any thread; the vCPU may run.
 *
 * Return: 0, or -errno when the host does not tell.
 */
int __must_check vcpu_faults(const struct vcpu *vcpu, uint64_t *ret);

/**
 * vcpu_errand_start() - have the vCPU's thread call @fn, and no access of the
 * guest's be half done then; returns at once. One that runs leaves the guest
 * for only as long as it takes. One errand at a time.
 */
void vcpu_errand_start(struct vcpu *vcpu, vcpu_errand_fn *fn, void *opaque);

/**
 * vcpu_errand_offer() - the same for a parked one, whose thread is not woken:
 * somebody is going to take it.
 */
void vcpu_errand_offer(struct vcpu *vcpu, vcpu_errand_fn *fn, void *opaque);

/**
 * vcpu_summon() - have a parked one's thread do its errand, if nobody else has
 * begun it, and then help; returns at once.
 */
void vcpu_summon(struct vcpu *vcpu);

/**
 * vcpu_errand_take() - run the parked vCPU's errand here and now, on the
 * caller's thread, unless it has none, or somebody has begun it.
 */
void vcpu_errand_take(struct vcpu *vcpu);

/**
 * vcpu_errand_result() - what the errand that has ended returned, with its
 * @err.
 */
int __must_check vcpu_errand_result(const struct vcpu *vcpu, struct error *err);

#endif
