/* SPDX-License-Identifier: MIT */
/*
 * Between the bus (pci.c) and the bridge that gives the guest access to it
 * (pci_host.c).
 */
#ifndef GODWIT_DEVICES_PCI_INTERNAL_H
#define GODWIT_DEVICES_PCI_INTERNAL_H

#include "arch/x86_64/layout.h"
#include "devices/pci.h"

struct pci_bus {
	struct irq *irq;
	/* Changes only while devices are made and unmade: no lock. */
	struct pci_function *slots[PCI_SLOTS];

	pthread_mutex_t line_lock;	/* innermost */
	uint32_t pulled[GSI_PCI_COUNT]; /* the slots that pull a line */

	pthread_mutex_t map_lock; /* innermost */
	/* Where BARs can be reached; 0: nowhere. */
	uint64_t map[PCI_SLOTS][PCI_BARS];
};

/**
 * pci_config_read() / pci_config_write() - an access to a function's
 * configuration space; the lock of its device is held.
 * @offset: 0 to 4095; past PCI_CONFIG_SIZE there is nothing but zeroes.
 * @size: any up to 8, anywhere.
 */
void pci_config_read(struct pci_function *fn, unsigned int offset, void *data,
		     unsigned int size);
void pci_config_write(struct pci_function *fn, unsigned int offset,
		      const void *data, unsigned int size);

/**
 * pci_bar_read() / pci_bar_write() - an access to the window of BARs; takes the
 * lock of the device that answers, if one does.
 * @size: up to 8; what isn't a power of two, or reaches past the end of a BAR,
 *        isn't answered.
 */
void pci_bar_read(struct pci_bus *bus, uint64_t gpa, void *data,
		  unsigned int size);
void pci_bar_write(struct pci_bus *bus, uint64_t gpa, const void *data,
		   unsigned int size);

#endif
