/* SPDX-License-Identifier: MIT */
/*
 * What the rest of godwit needs from a processor architecture: how to make a
 * VM and its vCPUs, how to boot a kernel, and how to lift the whole KVM-held
 * state out and set it down elsewhere. One directory below implements it.
 *
 * State structs are plain (no pointers, no host handles) and opaque outside:
 * callers allocate arch_*_state_size() bytes, zeroed, and pass them around.
 *
 * Loading has a fixed order, because the pieces depend on each other:
 *   arch_vm_load_begin()   the clock, which the TSC offsets refer to
 *   arch_vcpu_load()       each vCPU, on its own thread or any, in any order
 *   arch_vm_load_finish()  interrupt controllers and timers, which may
 *                          deliver into local APICs
 * and saving has none: reading a vCPU may move its own pending events, and
 * what is around it stays as it is. All vCPUs are stopped. Every function may
 * be used on a throwaway VM of the same shape, which is how a move is
 * rehearsed.
 */
#ifndef GODWIT_ARCH_H
#define GODWIT_ARCH_H

#include "migration/codec.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"

#define ARCH_CPUS_MAX  254
#define ARCH_CPUID_MAX 256

/* Where RAM may lie and where it may not; the same for every guest. */
#define ARCH_HOLE_START (3 * GIB)
#define ARCH_HOLE_END	(4 * GIB)

/*
 * The processor as data, part of CONFIG: a template of what the guest's CPUID
 * says. Fields that differ between vCPUs (APIC ids) are patched as each vCPU
 * is made.
 */
struct arch_cpu_model {
	uint32_t nentries;
	struct kvm_cpuid_entry2 entries[ARCH_CPUID_MAX];
	uint32_t tsc_khz;
	uint32_t xsave_size; /* bytes that KVM_GET_XSAVE2 gives */
};

/**
 * arch_cpu_model_host() - what this host offers, with topology for @cpus.
 * @vm_fd: a KVM VM, which knows the rate of its TSC. -1: there is none at hand;
 * one is made and unmade, and the latter takes a busy host long.
 */
int __must_check arch_cpu_model_host(const struct kvm *kvm, int vm_fd,
				     uint32_t cpus, struct arch_cpu_model *ret,
				     struct error *err);

/**
 * arch_cpu_model_visit() - the model in CONFIG.
 */
void arch_cpu_model_visit(struct codec *c, struct arch_cpu_model *model);

/**
 * arch_cpu_model_check() - could a guest with this model run here?
 * @host: arch_cpu_model_host() for more than one vCPU.
 *
 * Return: 0, or -ENOTSUP with @err naming the first feature that this host
 * lacks ("CPU feature avx512f (CPUID 7.0:EBX bit 16) …").
 */
int __must_check arch_cpu_model_check(const struct kvm *kvm,
				      const struct arch_cpu_model *host,
				      const struct arch_cpu_model *model,
				      struct error *err);

/**
 * arch_cpu_address_bits() - how wide guest physical addresses are.
 */
unsigned int arch_cpu_address_bits(const struct arch_cpu_model *model);

/**
 * arch_vm_init() - interrupt controllers, timers and what else a fresh VM
 * needs before it has vCPUs.
 */
int __must_check arch_vm_init(const struct kvm *kvm, int vm_fd,
			      struct error *err);

/**
 * arch_vcpu_init() - give a fresh vCPU its CPUID and first MSRs.
 * @index: 0 is the boot processor.
 */
int __must_check arch_vcpu_init(const struct kvm *kvm, int vcpu_fd,
				uint32_t index,
				const struct arch_cpu_model *model,
				struct error *err);

/* ---- state ---- */

size_t arch_vcpu_state_size(void);
uint32_t arch_vcpu_state_version(void);

/**
 * arch_vcpu_save() - read a stopped vCPU, on any thread.
 * @state: zeroed; or an earlier save of this vCPU, whose list of registers is
 * used again, which spares a pause the making of it.
 *
 * KVM may write guest memory (kvmclock, steal time) as its state is read, so
 * the last dirty log is taken after this. Fails closed: state that can't be
 * read is an error that names it.
 */
int __must_check arch_vcpu_save(const struct kvm *kvm, int vcpu_fd, void *state,
				struct error *err);

void arch_vcpu_visit(struct codec *c, void *state);

/**
 * arch_vcpu_check() - could vCPU @index of @model be in this state? Also
 * whether this host can load it (MSRs, XSAVE components).
 * @held: what arch_vcpu_save() has read of such a vCPU on this host, which
 * spares a pause the asking what there is here. NULL: KVM is asked.
 */
int __must_check arch_vcpu_check(const struct kvm *kvm,
				 const struct arch_cpu_model *model,
				 uint32_t index, const void *state,
				 const void *held, struct error *err);

/*
 * What arch_vcpu_load() needs to know of the clock: how far TSC offsets shift
 * between the two hosts or, when not valid (KVM can't tell, or scales), how
 * far the TSC itself went on. Filled by arch_vm_load_begin(); all zero sets
 * the TSC to what was saved, which is what a reset wants.
 */
struct arch_clock_shift {
	bool valid;
	int64_t tsc_delta;    /* to add to each saved TSC offset */
	uint64_t tsc_advance; /* to add to each saved TSC, when not valid */
};

/**
 * arch_vcpu_load() - write the state of a stopped vCPU, on any thread.
 * @held: what arch_vcpu_save() has read of it, if it has neither run nor been
 * loaded since, and no exception waited; what is the same is not written again.
 * NULL: not known.
 */
int __must_check arch_vcpu_load(const struct kvm *kvm, int vcpu_fd,
				const void *state, const void *held,
				const struct arch_clock_shift *shift,
				struct error *err);

/**
 * arch_vcpu_prime() - write what of a state that is still to come may lie in a
 * vCPU that waits for it: nothing of which anything comes, whatever the guest's
 * memory holds by then. The load will find it there.
 * @state: checked; of a while ago.
 * @power_on: what it holds: it was made, and has not been loaded.
 * @ret_held: what it holds then, for arch_vcpu_load().
 */
int __must_check arch_vcpu_prime(const struct kvm *kvm, int vcpu_fd,
				 const void *state, const void *power_on,
				 void *ret_held, struct error *err);

/**
 * arch_vcpu_works() - does a vCPU in this state execute instructions? One that
 * waits to be started, or for an interrupt, doesn't.
 */
bool arch_vcpu_works(const void *state);

size_t arch_vm_state_size(void);
uint32_t arch_vm_state_version(void);
int __must_check arch_vm_save(const struct kvm *kvm, int vm_fd, void *state,
			      struct error *err);
void arch_vm_visit(struct codec *c, void *state);
int __must_check arch_vm_check(const struct kvm *kvm, const void *state,
			       struct error *err);
int __must_check arch_vm_load_begin(const struct kvm *kvm, int vm_fd,
				    const void *state, uint32_t tsc_khz,
				    struct arch_clock_shift *ret_shift,
				    struct error *err);
int __must_check arch_vm_load_finish(const struct kvm *kvm, int vm_fd,
				     const void *state, struct error *err);

/**
 * arch_vcpu_resumed() - tell the guest's watchdogs that it was paused
 * (KVM_KVMCLOCK_CTRL); before the vCPU runs again. Never fails.
 */
void arch_vcpu_resumed(int vcpu_fd);

/* ---- who writes ---- */

#define ARCH_FAULT_KINDS 2

/* A vCPU's counters of page faults. */
struct arch_faults {
	int fd; /* -1: not open */
	uint64_t at[ARCH_FAULT_KINDS];
};

/**
 * arch_faults_open() - find the counters of a vCPU that is not in KVM_RUN.
 *
 * Return: 0, also when this host has none (Linux before 5.14), in which case
 * they are not open; or -errno. The caller closes @ret->fd.
 */
int __must_check arch_faults_open(const struct kvm *kvm, int vcpu_fd,
				  struct arch_faults *ret, struct error *err);

/**
 * arch_faults_read() - page faults that KVM has resolved for the vCPU so far;
 * it may run. Where dirty logging protects pages against writing, that
 * grows with each page that the vCPU is the first to write.
 *
 * Return: 0 or -errno; -ENOTSUP when @faults is not open.
 */
int __must_check arch_faults_read(const struct arch_faults *faults,
				  uint64_t *ret);

/* ---- boot ---- */

/*
 * What to boot. Descriptors are read by position, so one image can boot, and
 * reboot, any number of times.
 */
struct arch_boot {
	int kernel_fd;
	int initrd_fd; /* -1 for none */
	const char *cmdline;
};

struct arch_boot_entry; /* registers of the boot processor */
size_t arch_boot_entry_size(void);

/**
 * arch_boot_load() - put kernel, initrd, command line and tables into memory.
 * @boot: bzImage, ELF vmlinux (64-bit Linux protocol) or ELF64 with a PVH
 *        note; found out from the file itself.
 * @mem: all zero.
 * @cpus: vCPUs that the tables describe.
 * @ret_entry: arch_boot_entry_size() bytes.
 *
 * Return: 0, or -errno with @err naming what is wrong with which file.
 */
int __must_check arch_boot_load(const struct arch_boot *boot,
				struct memory *mem, uint32_t cpus,
				struct arch_boot_entry *ret_entry,
				struct error *err);

/**
 * arch_vcpu_boot() - point a vCPU in its power-on state at the entry; for
 * others than vCPU 0 it makes them wait to be started.
 */
int __must_check arch_vcpu_boot(int vcpu_fd, uint32_t index,
				const struct arch_boot_entry *entry,
				struct error *err);

#endif
