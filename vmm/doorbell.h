/* SPDX-License-Identifier: MIT */
/*
 * How a guest rings a device: a write to a doorbell's address becomes an
 * eventfd's signal inside KVM (KVM_IOEVENTFD), and the vCPU runs on without
 * leaving the kernel.
 *
 * An address that has no doorbell (any more) goes to the bus like any other, so
 * a device that moves its doorbell handles that write too. Any thread.
 */
#ifndef GODWIT_DOORBELL_H
#define GODWIT_DOORBELL_H

#include "vmm/error.h"

struct doorbell {
	int vm_fd;
};

/**
 * doorbell_attach() - signal @event_fd at each write of @size bytes to @gpa.
 * @size: 2 or 4; 0 for any.
 *
 * Return: 0, or -errno: -EEXIST when there is one already.
 */
int __must_check doorbell_attach(const struct doorbell *doorbell, uint64_t gpa,
				 unsigned int size, int event_fd,
				 struct error *err);

/**
 * doorbell_detach() - the counterpart, with the same arguments. After it
 * returns no write signals @event_fd any more.
 */
void doorbell_detach(const struct doorbell *doorbell, uint64_t gpa,
		     unsigned int size, int event_fd);

#endif
