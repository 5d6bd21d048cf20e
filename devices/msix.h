/* SPDX-License-Identifier: MIT */
/*
 * MSI-X: a device's interrupt vectors, as messages that the guest composes.
 *
 * The table and the pending bits are a page of the device's memory (one BAR);
 * the capability's control word is in its configuration space. A vector that is
 * raised while it, or the function, is masked becomes pending and is sent when
 * the mask goes. There is nothing in flight beyond what this state says.
 *
 * Any thread may raise a vector, also one that serves a queue and holds no
 * device lock; so this has a lock of its own, the innermost of all, around
 * everything.
 *
 * Spec: PCI Express base 5.0, section 6.1.4 and 7.7.2.
 */
#ifndef GODWIT_DEVICES_MSIX_H
#define GODWIT_DEVICES_MSIX_H

#include <pthread.h>

#include "devices/device.h"

/* Where table and pending bits lie in the BAR; one page in all. */
#define MSIX_TABLE_OFFSET   0x000
#define MSIX_PENDING_OFFSET 0x800
#define MSIX_BAR_SIZE	    0x1000
#define MSIX_ENTRY_SIZE	    16

/* The capability's control word; the table size field is not state. */
#define MSIX_CONTROL_ENABLE 0x8000
#define MSIX_CONTROL_MASK   0x4000 /* of the whole function */

/* As the guest sees one in the table. */
struct msix_entry {
	uint64_t address; /* a multiple of 4 */
	uint32_t data;
	uint32_t control; /* of MSIX_ENTRY_MASKED */
};

#define MSIX_ENTRY_MASKED 0x1

struct msix_state {
	uint32_t nvectors; /* as many as the device has, and entries */
	uint32_t pending;  /* a bit a vector that is raised and masked */
	uint16_t control;  /* of ENABLE and MASK */
	struct msix_entry entries[DEVICE_VECTORS_MAX];
};

struct msix {
	struct irq *irq;
	unsigned int nvectors; /* 1 to DEVICE_VECTORS_MAX; zeroed: 0 */
	pthread_mutex_t lock;
	struct msix_state state;
};

/**
 * msix_init() - power-on state: disabled, every vector masked.
 * @nvectors: 1 to DEVICE_VECTORS_MAX.
 */
void msix_init(struct msix *msix, struct irq *irq, unsigned int nvectors);

/**
 * msix_fini() - the counterpart. Fine on a zeroed one, which has no vectors.
 */
void msix_fini(struct msix *msix);

/**
 * msix_reset() - power-on state again.
 */
void msix_reset(struct msix *msix);

/**
 * msix_raise() - interrupt the guest by @vector, or remember that.
 * @vector: one that is out of range is ignored.
 *
 * Return: false when MSI-X is disabled, and an interrupt line is what the guest
 * looks at.
 */
bool msix_raise(struct msix *msix, unsigned int vector);

/**
 * msix_enabled() - does the guest use MSI-X now?
 */
bool msix_enabled(struct msix *msix);

/**
 * msix_read() / msix_write() - an access to the BAR; other sizes than 4 and 8,
 * and such as are not aligned, read as zero and write nothing.
 */
void msix_read(struct msix *msix, uint64_t offset, void *data,
	       unsigned int size);
void msix_write(struct msix *msix, uint64_t offset, const void *data,
		unsigned int size);

/**
 * msix_control() / msix_set_control() - the capability's control word, with the
 * table size in its low bits, which can't be set. What was pending is sent when
 * the function's mask goes, and forgotten when MSI-X is disabled.
 */
uint16_t msix_control(struct msix *msix);
void msix_set_control(struct msix *msix, uint16_t control);

/*
 * As device_ops has them; the state travels inside its device's. A zeroed
 * struct msix accepts the state of a device without vectors.
 */
void msix_visit(struct codec *c, struct msix_state *state);
void msix_snapshot(struct msix *msix, struct msix_state *state);
int __must_check msix_check(const struct msix *msix,
			    const struct msix_state *state, struct error *err);
void msix_commit(struct msix *msix, const struct msix_state *state);

#endif
