/* SPDX-License-Identifier: MIT */
/*
 * PCI, as much as a guest needs: the functions of bus 0, their configuration
 * space by either of the two ways (ECAM, which the ACPI table MCFG names, and
 * ports 0xcf8 and 0xcfc), BARs, capabilities and MSI-X.
 *
 * All of it is MMIO and ports, so ring 3 does it natively. Nothing here keeps
 * state beside what the caller holds, so a guest can look at the machine again
 * after it was moved and compare.
 *
 * Spec: PCI local bus 3.0, chapter 6; PCI firmware 3.2, chapter 4; PCI Express
 * base 5.0, section 7.7.2 (MSI-X).
 */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include "guest.h"

#define PCI_ADDRESS_PORT 0xcf8
#define PCI_DATA_PORT	 0xcfc

#define PCI_VENDOR_ID	   0x00
#define PCI_DEVICE_ID	   0x02
#define PCI_COMMAND	   0x04
#define PCI_STATUS	   0x06
#define PCI_CACHE_LINE	   0x0c
#define PCI_HEADER_TYPE	   0x0e
#define PCI_BAR0	   0x10
#define PCI_CAPABILITIES   0x34
#define PCI_INTERRUPT_LINE 0x3c

#define PCI_COMMAND_MEMORY	0x0002U
#define PCI_COMMAND_MASTER	0x0004U
#define PCI_COMMAND_INTX_OFF	0x0400U
#define PCI_STATUS_INTERRUPT	0x0008U
#define PCI_STATUS_CAPABILITIES 0x0010U

#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX   0x11

#define PCI_BARS 6

struct pci_device {
	uint8_t slot, function;
	uint16_t vendor, device;
};

/* How configuration space is reached. */
enum pci_way {
	PCI_ECAM,
	PCI_PORTS,
};

/**
 * pci_present - whether the machine has this way to configuration space
 */
bool pci_present(enum pci_way way);

/**
 * pci_use - the way that pci_read() and pci_write() take from now on
 *
 * At first ECAM where there is one, else ports.
 */
void pci_use(enum pci_way way);

/**
 * pci_find - the @index-th function with these ids, by slot
 * @device: first of @devices consecutive ids
 *
 * Return: false when there are no more.
 */
bool pci_find(uint16_t vendor, uint16_t device, uint16_t devices,
	      unsigned int index, struct pci_device *ret);

/**
 * pci_address - what to write to PCI_ADDRESS_PORT for register @offset
 */
uint32_t pci_address(const struct pci_device *dev, unsigned int offset);

/* pci_read, pci_write - configuration space; @size is 1, 2 or 4 */
uint32_t pci_read(const struct pci_device *dev, unsigned int offset,
		  unsigned int size);
void pci_write(const struct pci_device *dev, unsigned int offset,
	       unsigned int size, uint32_t value);

/**
 * pci_capability - the next capability of this id
 * @after: offset of the one before it; 0: the first
 *
 * Return: its offset, 0 when there are no more.
 */
unsigned int pci_capability(const struct pci_device *dev, uint8_t id,
			    unsigned int after);

/**
 * pci_command - set and clear bits of the command register
 */
void pci_command(const struct pci_device *dev, uint32_t set, uint32_t clear);

/* pci_bar - the address in a memory BAR, 32 or 64 bits; 0: none */
uint64_t pci_bar(const struct pci_device *dev, unsigned int bar);

/**
 * pci_bar_size - bytes of a memory BAR; memory decoding is off meanwhile
 */
uint64_t pci_bar_size(const struct pci_device *dev, unsigned int bar);

/**
 * pci_move_bar - give a BAR another address; memory decoding is off meanwhile
 */
void pci_move_bar(const struct pci_device *dev, unsigned int bar, uint64_t gpa);

/**
 * pci_free_address - where, above all BARs below 4 GiB, one more could go
 * @size: power of two
 */
uint64_t pci_free_address(uint64_t size);

/**
 * pci_map_bar - where ring 3 reaches a BAR, memory decoding on
 */
volatile void *pci_map_bar(const struct pci_device *dev, unsigned int bar);

/* ---- MSI-X ---- */

#define MSIX_ENABLE 0x8000U
#define MSIX_MASK   0x4000U /* of the whole function */

/* Words of a table entry. */
#define MSIX_ENTRY_ADDRESS 0
#define MSIX_ENTRY_HIGH	   1
#define MSIX_ENTRY_DATA	   2
#define MSIX_ENTRY_CONTROL 3 /* bit 0: masked */

struct msix {
	struct pci_device dev;
	unsigned int cap;
	unsigned int vectors;
	volatile uint32_t (*table)[4];
	volatile uint64_t *pending;
};

/**
 * msix_open - find and map the table
 *
 * Return: false when the function has no MSI-X.
 */
bool msix_open(struct msix *msix, const struct pci_device *dev);

/**
 * msix_control - set the function's two bits, of MSIX_ENABLE and MSIX_MASK
 */
void msix_control(const struct msix *msix, uint32_t bits);

/**
 * msix_target - where an entry's message goes: edge, fixed, physical
 * @apic_id: of the CPU, below 256
 * @vector: of the IDT
 */
void msix_target(const struct msix *msix, unsigned int entry, uint32_t apic_id,
		 unsigned int vector);

void msix_mask(const struct msix *msix, unsigned int entry, bool masked);
bool msix_masked(const struct msix *msix, unsigned int entry);
bool msix_pending(const struct msix *msix, unsigned int entry);

#endif
