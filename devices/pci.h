/* SPDX-License-Identifier: MIT */
/*
 * PCI: one bus with up to 32 single-function devices, its host bridge, and the
 * configuration space, BARs and interrupt lines of each function.
 *
 * A function is made of a description (ids, BARs, capabilities, which never
 * change and don't travel) and a small state: what the guest can write. Slots
 * are given out in the order in which devices are made, which is that of the
 * machine, so they are the same wherever the guest runs. There is no firmware:
 * BARs have their addresses from the start, and the guest may move them within
 * the window that ACPI describes.
 *
 * The guest gets at configuration space by ports 0xcf8 to 0xcff and by ECAM,
 * both claimed by the host bridge (type "pci"), which is in every machine and
 * has slot 0. The reset register 0xcf9 lies among those ports and is the
 * bridge's too.
 *
 * Locks: the bridge takes the lock of a function's device around each call into
 * it, holding at most its own besides. The map of BARs has its own, innermost,
 * held only to look. Interrupt lines are shared; who raises one may be any
 * thread.
 *
 * Spec: PCI local bus 3.0, chapter 6; PCI firmware 3.2, section 4.1 (ECAM).
 */
#ifndef GODWIT_DEVICES_PCI_H
#define GODWIT_DEVICES_PCI_H

#include "devices/msix.h"

#define PCI_SLOTS	32
#define PCI_BARS	6
#define PCI_CONFIG_SIZE 256

/* Layout of a type 0 header; section 6.1. */
#define PCI_VENDOR_ID	   0x00
#define PCI_DEVICE_ID	   0x02
#define PCI_COMMAND	   0x04
#define PCI_STATUS	   0x06
#define PCI_REVISION	   0x08
#define PCI_CLASS	   0x09 /* three bytes */
#define PCI_CACHE_LINE	   0x0c
#define PCI_HEADER_TYPE	   0x0e
#define PCI_BAR0	   0x10
#define PCI_SUBSYSTEM	   0x2c /* vendor, then id */
#define PCI_CAPABILITIES   0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN  0x3d
#define PCI_FIRST_FREE	   0x40 /* for capabilities */

#define PCI_COMMAND_MEMORY	0x0002
#define PCI_COMMAND_MASTER	0x0004
#define PCI_COMMAND_INTX_OFF	0x0400
#define PCI_STATUS_INTERRUPT	0x0008
#define PCI_STATUS_CAPABILITIES 0x0010

#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX   0x11

struct pci_bus;
struct pci_function;

struct pci_function_ops {
	/* An access inside BAR @bar; sizes 1, 2, 4, 8; the lock is held. */
	void (*bar_read)(struct pci_function *fn, unsigned int bar,
			 uint64_t offset, void *data, unsigned int size);
	void (*bar_write)(struct pci_function *fn, unsigned int bar,
			  uint64_t offset, const void *data, unsigned int size);
	/*
	 * The guest can reach @bar at @gpa from now on; 0: nowhere. Doorbells
	 * move now. Not called for the BAR of MSI-X. A guest that lays BARs
	 * over each other finds that of the lowest slot; the others are not
	 * told.
	 */
	void (*bar_moved)(struct pci_function *fn, unsigned int bar,
			  uint64_t gpa);
	/*
	 * An access that touches the capability at @cap, which was added with
	 * pci_add_capability(): before a read, to bring config[] up to date,
	 * and after a write. @offset and @size are those of the access.
	 */
	void (*capability_read)(struct pci_function *fn, unsigned int cap,
				unsigned int offset, unsigned int size);
	void (*capability_written)(struct pci_function *fn, unsigned int cap,
				   unsigned int offset, unsigned int size);
};

/*
 * What the guest can write in the header and the MSI-X capability. What it can
 * write in other capabilities is the state of the device that has added them.
 */
struct pci_state {
	uint16_t command;
	uint8_t cache_line;
	uint8_t interrupt_line;
	uint32_t bars[PCI_BARS]; /* addresses; 0 for those there aren't */
	struct msix_state msix;	 /* all zero without MSI-X */
};

/* What a function is, for pci_function_init(). */
struct pci_identity {
	uint16_t vendor;
	uint16_t device;
	uint16_t subsystem_vendor;
	uint16_t subsystem;
	uint8_t revision;
	uint32_t class_code; /* three bytes: class, subclass, interface */
	uint32_t bar_sizes[PCI_BARS]; /* powers of two from 4 KiB; 0: none */
	unsigned int vectors;	      /* of MSI-X; 0: only the interrupt line */
	unsigned int msix_bar;	      /* MSIX_BAR_SIZE, served by this room */
};

struct pci_function {
	const struct pci_function_ops *ops;
	struct device *dev; /* whose lock guards all of this but the line */
	struct pci_bus *bus;
	unsigned int slot;
	struct pci_identity identity;
	uint8_t config[PCI_CONFIG_SIZE];   /* as the guest reads it */
	uint8_t writable[PCI_CONFIG_SIZE]; /* a bit that it can change */
	/* The capability that was added over this byte, 0 for none. */
	uint8_t added[PCI_CONFIG_SIZE];
	unsigned int first_free;      /* for the next capability */
	unsigned int last_cap;	      /* whose next pointer grows */
	unsigned int msix_cap;	      /* with vectors only */
	struct msix msix;	      /* likewise */
	uint64_t reachable[PCI_BARS]; /* where the guest reaches them */
	/* Under the bus's lock of lines, not the device's. */
	bool line;     /* as the device drives it */
	bool line_cut; /* INTX_OFF is set, or MSI-X enabled */
};

/**
 * pci_bus_create() - an empty bus; whoever makes a VM makes one.
 * @irq: outlives the bus.
 *
 * Return: 0 or -ENOMEM with @err.
 */
int __must_check pci_bus_create(struct irq *irq, struct pci_bus **ret,
				struct error *err);

/**
 * pci_bus_free() - all functions have left. NULL is fine.
 */
void pci_bus_free(struct pci_bus *bus);

/**
 * pci_function_init() - take the next slot of @bus, with BARs at their first
 * addresses, memory decoding off.
 * @dev: initialised; its lock is held around all calls of @ops.
 * @identity: copied; BARs of one function fill at most LAYOUT_PCI_SLOT_SIZE.
 *
 * Return: 0, or -ENOSPC with @err when all slots are taken.
 */
int __must_check pci_function_init(struct pci_function *fn, struct pci_bus *bus,
				   struct device *dev,
				   const struct pci_function_ops *ops,
				   const struct pci_identity *identity,
				   struct error *err);

/**
 * pci_function_fini() - leave the bus. Nobody accesses it any more, and
 * bar_moved() isn't called: doorbells go with the VM. Fine on a zeroed
 * function, and on one whose init failed.
 */
void pci_function_fini(struct pci_function *fn);

/**
 * pci_add_capability() - append one to the list, while the device is made.
 * @data: its bytes from offset 2 on (after id and next pointer).
 * @len: of @data, so that @len + 2 is its length.
 *
 * The guest can change nothing of it; set bits in writable[] for what it can.
 * Those are 0 after a reset.
 *
 * Return: its offset in configuration space.
 */
unsigned int pci_add_capability(struct pci_function *fn, uint8_t id,
				const void *data, unsigned int len);

/**
 * pci_function_bar() - where the guest reaches @bar now; 0: nowhere.
 */
uint64_t pci_function_bar(const struct pci_function *fn, unsigned int bar);

/**
 * pci_set_line() - drive the function's interrupt line (INTA#), whatever thread
 * this is. What cuts it off is looked at here: the guest's INTX_OFF bit, and
 * MSI-X while it is enabled.
 *
 * The level isn't state: commit and reset leave it low, resume() drives it.
 */
void pci_set_line(struct pci_function *fn, bool level);

/* As device_ops has them; the state travels inside its device's. */
void pci_visit(struct codec *c, struct pci_state *state);
void pci_snapshot(struct pci_function *fn, struct pci_state *state);
int __must_check pci_check(const struct pci_function *fn,
			   const struct pci_state *state, struct error *err);
/* Moves BARs, so bar_moved() is called. */
void pci_commit(struct pci_function *fn, const struct pci_state *state);
void pci_function_reset(struct pci_function *fn);

/* ---- the host bridge ---- */

struct pci_host_state {
	uint32_t address;      /* port 0xcf8 */
	uint8_t reset_control; /* port 0xcf9 */
	struct pci_state pci;
};

extern const struct device_ops pci_host_ops;

/**
 * pci_host_create() - the bridge, which claims ports, ECAM and the window of
 * BARs; no options. The first device on the bus.
 */
int __must_check pci_host_create(const struct device_env *env,
				 const struct device_config *config,
				 struct device **ret, struct error *err);

#endif
