/* SPDX-License-Identifier: MIT */
/*
 * /dev/kvm: the handle, what it can do, and the one way to make an ioctl; and
 * the kernel's map of this process's memory, which guest memory is part of.
 *
 * KVM_IOCTL() checks at compile time that the argument has the size the
 * command encodes, and on failure names the ioctl. Commands whose argument
 * ends in a flexible array use KVM_IOCTL_VAR(), those that take a number
 * KVM_IOCTL_NUM().
 */
#ifndef GODWIT_KVM_H
#define GODWIT_KVM_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "vmm/error.h"

struct kvm {
	int fd;		 /* /dev/kvm */
	int pagemap_fd;	 /* /proc/self/pagemap, -1 when it can't be had */
	size_t run_size; /* of a vCPU's mmap */
	unsigned int max_vcpus;
	unsigned int max_memslots;
	bool has_xsave2;
	bool has_sregs2;
	bool has_exception_payload;
	bool has_triple_fault_event;
	bool has_smm;
	bool has_xcrs;			/* the processor has XSAVE */
	bool has_stats;			/* counters of what vCPUs do */
	bool has_adjust_clock_realtime; /* KVM_CLOCK_REALTIME in GET/SET */
};

#define KVM_IOCTL(fd, cmd, arg, err)                                       \
	({                                                                 \
		_Static_assert(sizeof(*(arg)) == _IOC_SIZE(cmd),           \
			       #cmd " takes an argument of another size"); \
		kvm_ioctl_named((fd), (cmd), (arg), #cmd, (err));          \
	})

#define KVM_IOCTL_VAR(fd, cmd, arg, err) \
	kvm_ioctl_named((fd), (cmd), (arg), #cmd, (err))

#define KVM_IOCTL_NUM(fd, cmd, num, err) \
	kvm_ioctl_named((fd), (cmd), (void *)(unsigned long)(num), #cmd, (err))

/**
 * kvm_ioctl_named() - make an ioctl, restarting after EINTR; use the macros.
 *
 * Return: the ioctl's result (>= 0), or -errno with @err "KVM_X: why".
 */
int kvm_ioctl_named(int fd, unsigned long cmd, void *arg, const char *name,
		    struct error *err);

/**
 * kvm_open() - open /dev/kvm, check the API version and what we can't do
 * without, and probe the rest.
 *
 * Return: 0 or -errno with @err saying what is missing and the remedy.
 */
int __must_check kvm_open(struct kvm *kvm, struct error *err);

/**
 * kvm_close() - close the handle; VMs made from it live on.
 */
void kvm_close(struct kvm *kvm);

/**
 * kvm_extension() - KVM_CHECK_EXTENSION on @fd (the system or a VM).
 *
 * Return: its value, 0 when the host doesn't know it.
 */
int kvm_extension(int fd, unsigned int extension);

#endif
