/* SPDX-License-Identifier: MIT */
/*
 * PCI configuration space, BARs and MSI-X; see pci.h.
 *
 * Firmware or the VMM has given BARs their addresses. This only moves them.
 */
#include "pci.h"
#include "runtime.h"

#define SLOTS	  32U
#define FUNCTIONS 8U
#define NO_DEVICE 0xffffU
#define MULTI	  0x80U /* of the header type */

#define BAR_IO	     1U
#define BAR_64	     4U
#define BAR_FLAGS    0xfU
#define FOUR_GIB     (1UL << 32)
#define CAPABILITIES 48U /* that fit; more is a loop */

#define MSI_ADDRESS 0xfee00000U

static uint64_t ecam;
static enum pci_way way = PCI_PORTS;

void pci_add_ecam(uint64_t base)
{
	ecam = base;
	way = PCI_ECAM;
}

/* Mechanism 1 keeps what is written; a machine without it has no port. */
static bool have_ports(void)
{
	uint32_t before = inl(PCI_ADDRESS_PORT);
	bool kept;

	outl(PCI_ADDRESS_PORT, 0x80000000U);
	kept = inl(PCI_ADDRESS_PORT) == 0x80000000U;
	outl(PCI_ADDRESS_PORT, before);
	return kept;
}

bool pci_present(enum pci_way which)
{
	return which == PCI_ECAM ? ecam : have_ports();
}

void pci_use(enum pci_way which)
{
	way = which;
}

uint32_t pci_address(const struct pci_device *dev, unsigned int offset)
{
	return 0x80000000U | (uint32_t)dev->slot << 11 |
	       (uint32_t)dev->function << 8 | (offset & 0xfcU);
}

static volatile void *ecam_at(const struct pci_device *dev, unsigned int offset)
{
	return mem_map_device(ecam + ((uint64_t)dev->slot << 15 |
				      (uint64_t)dev->function << 12 | offset),
			      4);
}

static uint16_t select_port(const struct pci_device *dev, unsigned int offset)
{
	outl(PCI_ADDRESS_PORT, pci_address(dev, offset));
	return (uint16_t)(PCI_DATA_PORT + (offset & 3U));
}

static uint32_t port_read(const struct pci_device *dev, unsigned int offset,
			  unsigned int size)
{
	uint16_t port = select_port(dev, offset);

	if (size == 1)
		return inb(port);
	return size == 2 ? inw(port) : inl(port);
}

static void port_write(const struct pci_device *dev, unsigned int offset,
		       unsigned int size, uint32_t value)
{
	uint16_t port = select_port(dev, offset);

	if (size == 1)
		outb(port, (uint8_t)value);
	else if (size == 2)
		outw(port, (uint16_t)value);
	else
		outl(port, value);
}

uint32_t pci_read(const struct pci_device *dev, unsigned int offset,
		  unsigned int size)
{
	volatile void *at;

	if (way == PCI_PORTS)
		return port_read(dev, offset, size);
	at = ecam_at(dev, offset);
	if (size == 1)
		return *(volatile uint8_t *)at;
	return size == 2 ? *(volatile uint16_t *)at : *(volatile uint32_t *)at;
}

void pci_write(const struct pci_device *dev, unsigned int offset,
	       unsigned int size, uint32_t value)
{
	volatile void *at;

	if (way == PCI_PORTS) {
		port_write(dev, offset, size, value);
		return;
	}
	at = ecam_at(dev, offset);
	if (size == 1)
		*(volatile uint8_t *)at = (uint8_t)value;
	else if (size == 2)
		*(volatile uint16_t *)at = (uint16_t)value;
	else
		*(volatile uint32_t *)at = value;
}

/* ---- functions ---- */

/* The next function from (slot, function) on; false: none. */
static bool next_function(struct pci_device *dev)
{
	struct pci_device first;

	for (; dev->slot < SLOTS; dev->slot++, dev->function = 0) {
		for (; dev->function < FUNCTIONS; dev->function++) {
			first = (struct pci_device){ .slot = dev->slot };
			if (dev->function &&
			    !(pci_read(&first, PCI_HEADER_TYPE, 1) & MULTI))
				break;
			dev->vendor = (uint16_t)pci_read(dev, PCI_VENDOR_ID, 2);
			if (dev->vendor != NO_DEVICE) {
				dev->device = (uint16_t)pci_read(
					dev, PCI_DEVICE_ID, 2);
				return true;
			}
			if (!dev->function)
				break;
		}
	}
	return false;
}

bool pci_find(uint16_t vendor, uint16_t device, uint16_t devices,
	      unsigned int index, struct pci_device *ret)
{
	struct pci_device dev = { 0 };

	if (!pci_present(way))
		return false;
	for (; next_function(&dev); dev.function++) {
		if (dev.vendor != vendor || dev.device < device ||
		    dev.device >= device + devices || index--)
			continue;
		*ret = dev;
		return true;
	}
	return false;
}

unsigned int pci_capability(const struct pci_device *dev, uint8_t id,
			    unsigned int after)
{
	unsigned int at = PCI_CAPABILITIES;
	bool behind = !after;

	if (!(pci_read(dev, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES))
		return 0;
	for (unsigned int i = 0; i < CAPABILITIES; i++) {
		at = pci_read(dev, at, 1) & 0xfcU;
		if (!at)
			return 0;
		if (behind && pci_read(dev, at, 1) == id)
			return at;
		behind = behind || at == after;
		at++;
	}
	guest_fail(VERDICT_DEVICE, "PCI slot %u: capabilities loop\n",
		   dev->slot);
}

void pci_command(const struct pci_device *dev, uint32_t set, uint32_t clear)
{
	uint32_t command = pci_read(dev, PCI_COMMAND, 2);

	pci_write(dev, PCI_COMMAND, 2, (command | set) & ~clear);
}

/* ---- BARs ---- */

static unsigned int bar_offset(unsigned int bar)
{
	return PCI_BAR0 + 4 * bar;
}

uint64_t pci_bar(const struct pci_device *dev, unsigned int bar)
{
	uint32_t low = pci_read(dev, bar_offset(bar), 4);
	uint64_t high = 0;

	if (low & BAR_IO)
		return 0;
	if (low & BAR_64)
		high = pci_read(dev, bar_offset(bar + 1), 4);
	return high << 32 | (low & ~BAR_FLAGS);
}

static void write_bar(const struct pci_device *dev, unsigned int bar,
		      uint64_t value)
{
	bool wide = pci_read(dev, bar_offset(bar), 4) & BAR_64;

	pci_write(dev, bar_offset(bar), 4, (uint32_t)value);
	if (wide)
		pci_write(dev, bar_offset(bar + 1), 4, (uint32_t)(value >> 32));
}

uint64_t pci_bar_size(const struct pci_device *dev, unsigned int bar)
{
	uint32_t command = pci_read(dev, PCI_COMMAND, 2);
	uint64_t address = pci_bar(dev, bar);
	uint64_t mask;

	if (pci_read(dev, bar_offset(bar), 4) & BAR_IO)
		return 0;
	pci_command(dev, 0, PCI_COMMAND_MEMORY);
	write_bar(dev, bar, UINT64_MAX);
	mask = pci_bar(dev, bar);
	write_bar(dev, bar, address);
	pci_write(dev, PCI_COMMAND, 2, command);
	if (mask < FOUR_GIB)
		mask = mask ? mask | ~(FOUR_GIB - 1) : 0;
	return -mask;
}

void pci_move_bar(const struct pci_device *dev, unsigned int bar, uint64_t gpa)
{
	uint32_t command = pci_read(dev, PCI_COMMAND, 2);

	pci_command(dev, 0, PCI_COMMAND_MEMORY);
	write_bar(dev, bar, gpa);
	pci_write(dev, PCI_COMMAND, 2, command);
}

uint64_t pci_free_address(uint64_t size)
{
	struct pci_device dev = { 0 };
	uint64_t end = 0;
	uint64_t at;

	for (; next_function(&dev); dev.function++) {
		if (pci_read(&dev, PCI_HEADER_TYPE, 1) & 0x7fU)
			continue;
		for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
			at = pci_bar(&dev, bar);
			if (at && at < FOUR_GIB &&
			    at + pci_bar_size(&dev, bar) > end)
				end = at + pci_bar_size(&dev, bar);
			if (pci_read(&dev, bar_offset(bar), 4) & BAR_64)
				bar++;
		}
	}
	return (end + size - 1) & ~(size - 1);
}

volatile void *pci_map_bar(const struct pci_device *dev, unsigned int bar)
{
	uint64_t gpa = pci_bar(dev, bar);

	if (!gpa)
		guest_fail(VERDICT_MACHINE, "PCI slot %u: BAR %u is nowhere\n",
			   dev->slot, bar);
	pci_command(dev, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	return mem_map_device(gpa, pci_bar_size(dev, bar));
}

/* ---- MSI-X ---- */

bool msix_open(struct msix *msix, const struct pci_device *dev)
{
	unsigned int cap = pci_capability(dev, PCI_CAP_MSIX, 0);
	uint32_t table, pending;

	if (!cap)
		return false;
	table = pci_read(dev, cap + 4, 4);
	pending = pci_read(dev, cap + 8, 4);
	*msix = (struct msix){
		.dev = *dev,
		.cap = cap,
		.vectors = (pci_read(dev, cap + 2, 2) & 0x7ffU) + 1,
		.table = (volatile uint32_t(*)[4])(
			(uintptr_t)pci_map_bar(dev, table & 7U) +
			(table & ~7U)),
		.pending = (volatile uint64_t *)((uintptr_t)pci_map_bar(
							 dev, pending & 7U) +
						 (pending & ~7U)),
	};
	return true;
}

void msix_control(const struct msix *msix, uint32_t bits)
{
	pci_write(&msix->dev, msix->cap + 2, 2, bits);
}

void msix_target(const struct msix *msix, unsigned int entry, uint32_t apic_id,
		 unsigned int vector)
{
	msix->table[entry][MSIX_ENTRY_ADDRESS] = MSI_ADDRESS | apic_id << 12;
	msix->table[entry][MSIX_ENTRY_HIGH] = 0;
	msix->table[entry][MSIX_ENTRY_DATA] = vector;
}

void msix_mask(const struct msix *msix, unsigned int entry, bool masked)
{
	msix->table[entry][MSIX_ENTRY_CONTROL] = masked;
}

bool msix_masked(const struct msix *msix, unsigned int entry)
{
	return msix->table[entry][MSIX_ENTRY_CONTROL] & 1U;
}

bool msix_pending(const struct msix *msix, unsigned int entry)
{
	return msix->pending[entry / 64] >> entry % 64 & 1U;
}
