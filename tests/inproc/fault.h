/* SPDX-License-Identifier: MIT */
/*
 * Failures on demand: every system call, allocation and KVM ioctl that a move
 * makes on one of its two hosts is counted, by its kind, and one of them can
 * be made to fail.
 *
 * The linker's --wrap brings the calls here (build.mk has the list). Which
 * host a thread works for is rig_thread_host, and threads hand it down to
 * those that they start; these are vCPUs, of which only the ioctls count, and
 * of them not those that are the guest's doing.
 *
 * Also counted, from the beginning of the process: what is allocated and
 * mapped and not given back.
 */
#ifndef GODWIT_TESTS_FAULT_H
#define GODWIT_TESTS_FAULT_H

#include "tests/inproc/rig.h"

#define FAULT_KINDS_MAX 160

/* A function, and for ioctl() and fcntl() its command. */
struct fault_kind {
	const char *name;
	unsigned long command;
	unsigned int count;
};

struct fault_census {
	unsigned int nkinds;
	struct fault_kind kinds[FAULT_KINDS_MAX];
};

/* Count what is done for @host from now on. */
void fault_count(const struct rig_host *host);

/*
 * Make the @nth (from 0) call of a kind fail that is made for @host.
 * @error: an errno; 0: as such a call fails when the host runs out of things.
 */
void fault_arm(const struct rig_host *host, const struct fault_kind *kind,
	       unsigned int nth, int error);

/* No more. @ret: what was counted; may be NULL. True: the call has failed. */
bool fault_disarm(struct fault_census *ret);

/* What is held now: so many allocations, so many bytes mapped. */
long fault_allocations(void);
long fault_mapped(void);

#endif
