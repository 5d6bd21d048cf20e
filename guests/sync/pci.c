/* SPDX-License-Identifier: MIT */
/*
 * Points about PCI: configuration space half accessed, BARs at other places,
 * decoding off, and interrupts that a device has raised and nobody has had.
 */
#include "devices.h"

/* Long enough for an interrupt that is one too many to show itself. */
#define SETTLE_NS 2000000UL

#define RESET_PORT    0xcf9 /* among the bridge's ports */
#define RESET_IS_HARD 0x02  /* says how, and not that */
#define LATCHED	      PCI_DEVICE_ID
#define HEADER_SIZE   64U
#define MASKS	      (MSIX_ENABLE | MSIX_MASK)

/* The address is written, and the data port not yet read. */
void point_pci_latch(void)
{
	struct pci_device first = { 0 };
	uint32_t id, address = pci_address(&first, PCI_VENDOR_ID);
	uint8_t reset;

	if (!pci_present(PCI_PORTS)) {
		sync_skip("no PCI by ports");
		return;
	}
	outl(PCI_ADDRESS_PORT, address);
	id = inl(PCI_DATA_PORT);
	sync_check("somebody is there", 1, (uint16_t)id != 0xffffU);
	outb(RESET_PORT, RESET_IS_HARD);
	reset = inb(RESET_PORT);
	sync_wait();
	sync_check("reset control", reset, inb(RESET_PORT));
	outb(RESET_PORT, 0);
	sync_check("data port", id, inl(PCI_DATA_PORT));
	sync_check("its upper half", id >> 16, inw(PCI_DATA_PORT + LATCHED));
	sync_check("address port", address, inl(PCI_ADDRESS_PORT));
	outl(PCI_ADDRESS_PORT, 0);
	sync_check("address port, disabled", 0, inl(PCI_ADDRESS_PORT));
}

static void read_header(const struct pci_device *pci, enum pci_way way,
			uint32_t *header)
{
	pci_use(way);
	for (unsigned int i = 0; i < HEADER_SIZE; i += 4)
		header[i / 4] = pci_read(pci, i, 4);
}

/* What the driver may write, and both ways to look at it. */
void point_pci_registers(void)
{
	uint32_t before[HEADER_SIZE / 4], after[HEADER_SIZE / 4];
	struct prod *prod = device_find();
	const struct pci_device *pci;
	uint32_t command;

	if (!prod)
		return;
	pci = &prod->v.pci;
	command = pci_read(pci, PCI_COMMAND, 2);
	pci_command(pci, PCI_COMMAND_INTX_OFF | PCI_COMMAND_MASTER, 0);
	pci_write(pci, PCI_CACHE_LINE, 1, 0x10);
	pci_write(pci, PCI_INTERRUPT_LINE, 1, 0x5a);
	for (enum pci_way way = PCI_ECAM; way <= PCI_PORTS; way++) {
		if (pci_present(way))
			read_header(pci, way, before);
	}
	sync_wait();
	for (enum pci_way way = PCI_PORTS + 1; way-- > PCI_ECAM;) {
		if (!pci_present(way))
			continue;
		read_header(pci, way, after);
		for (unsigned int i = 0; i < HEADER_SIZE / 4; i++)
			sync_check("header", before[i], after[i]);
	}
	sync_check("interrupt line", 0x5a,
		   pci_read(pci, PCI_INTERRUPT_LINE, 1));
	pci_write(pci, PCI_INTERRUPT_LINE, 1, 0);
	pci_write(pci, PCI_CACHE_LINE, 1, 0);
	pci_write(pci, PCI_COMMAND, 2, command);
}

/* Look at the device where it is now; its queue is as it was. */
static void reopen(struct prod *prod)
{
	struct pci_device pci = prod->v.pci;
	uintptr_t bell = (uintptr_t)prod->queue.doorbell - prod->v.notify;

	virtio_open(&prod->v, &pci);
	msix_open(&prod->msix, &pci);
	prod->queue.doorbell = (volatile uint16_t *)(prod->v.notify + bell);
}

static void move_bars(struct prod *prod, const uint64_t *to)
{
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		if (to[bar])
			pci_move_bar(&prod->v.pci, bar, to[bar]);
	}
	reopen(prod);
}

/* Memory BARs below 4 GiB, and where else they could go. */
static void find_places(const struct pci_device *pci, uint64_t *from,
			uint64_t *to)
{
	uint64_t largest = PAGE_SIZE;
	uint64_t at;

	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		from[bar] = pci_bar(pci, bar);
		if (from[bar] && pci_bar_size(pci, bar) > largest)
			largest = pci_bar_size(pci, bar);
		/* The upper half of an address. */
		if (pci_read(pci, PCI_BAR0 + 4 * bar, 4) & 4U)
			from[++bar] = 0;
	}
	at = pci_free_address(largest);
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		to[bar] = from[bar] ? at : 0;
		at += from[bar] ? largest : 0;
	}
}

/* In use at its new place, doorbell and interrupts too, and then back. */
void point_pci_bar_moved(void)
{
	uint64_t from[PCI_BARS], to[PCI_BARS];
	struct prod *prod = device_up(0, true);

	if (!prod)
		return;
	find_places(&prod->v.pci, from, to);
	move_bars(prod, to);
	sync_wait();
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		if (to[bar])
			sync_check("BAR", to[bar], pci_bar(&prod->v.pci, bar));
	}
	irq_set(true);
	prod_once(prod);
	sync_until(&queue_hits, 1, 5 * SECOND_NS);
	move_bars(prod, from);
	prod_once(prod);
	sync_until(&queue_hits, 2, 5 * SECOND_NS);
	irq_set(false);
	sync_check("interrupts", 2, queue_hits);
	device_down(prod);
}

/* Nothing answers where the device was; it comes back as it was. */
void point_pci_decode_off(void)
{
	struct prod *prod = device_up(0, true);
	uint8_t status;

	if (!prod)
		return;
	status = prod->v.common->status;
	pci_command(&prod->v.pci, 0, PCI_COMMAND_MEMORY);
	sync_wait();
	sync_check("decoding", 0,
		   pci_read(&prod->v.pci, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY);
	sync_check("somebody answers", 1, prod->v.common->status != status);
	pci_command(&prod->v.pci, PCI_COMMAND_MEMORY, 0);
	sync_check("status", status, prod->v.common->status);
	irq_set(true);
	prod_once(prod);
	sync_until(&queue_hits, 1, 5 * SECOND_NS);
	irq_set(false);
	sync_check("interrupts", 1, queue_hits);
	device_down(prod);
}

/* ---- interrupts ---- */

static void check_entry(const struct prod *prod, bool masked)
{
	volatile uint32_t *entry = prod->msix.table[PROD_QUEUE];

	sync_check("address", 0xfee00000U | cpu_apic_id(0) << 12,
		   entry[MSIX_ENTRY_ADDRESS]);
	sync_check("upper address", 0, entry[MSIX_ENTRY_HIGH]);
	sync_check("data", PROD_VECTOR, entry[MSIX_ENTRY_DATA]);
	sync_check("entry masked", masked, entry[MSIX_ENTRY_CONTROL] & 1U);
}

static uint32_t control(const struct prod *prod)
{
	return pci_read(&prod->v.pci, prod->msix.cap + 2, 2) & MASKS;
}

/* Raised while masked, with interrupts on: comes once, when the mask goes. */
static void pending(uint32_t bits, bool entry_masked)
{
	struct prod *prod = device_up(0, true);

	if (!prod)
		return;
	irq_set(true);
	msix_control(&prod->msix, bits);
	msix_mask(&prod->msix, PROD_QUEUE, entry_masked);
	prod_once(prod);
	sync_check("pending before", 1,
		   device_holds(prod, device_pending, true));
	sync_wait();
	sync_check("pending after", 1, device_pending(prod));
	sync_check("control", bits, control(prod));
	check_entry(prod, entry_masked);
	sync_check("delivered while masked", 0, queue_hits);
	msix_control(&prod->msix, MSIX_ENABLE);
	msix_mask(&prod->msix, PROD_QUEUE, false);
	sync_until(&queue_hits, 1, 5 * SECOND_NS);
	clock_delay(SETTLE_NS);
	irq_set(false);
	sync_check("delivered", 1, queue_hits);
	sync_check("pending at the end", 0, device_pending(prod));
	device_down(prod);
}

void point_msix_pending(void)
{
	pending(MSIX_ENABLE, true);
}

void point_msix_function_mask(void)
{
	pending(MSIX_ENABLE | MSIX_MASK, false);
}

/* The line is up and the IOAPIC masks it. */
void point_intx_asserted(void)
{
	struct prod *prod = device_up(0, false);
	volatile uint64_t hits;
	uint64_t before, start;
	unsigned int pin;

	if (!prod)
		return;
	if (!intx_find(prod, &pin)) {
		sync_skip("the device has no interrupt line");
		device_down(prod);
		return;
	}
	before = intx_hits();
	irq_set(true);
	prod_once(prod);
	sync_check("line before", 1, device_holds(prod, device_line, true));
	sync_wait();
	sync_check("line after", 1, device_line(prod));
	sync_check("delivered while masked", 0, intx_hits() - before);
	intx_unmask(pin, true);
	start = rdtsc();
	do
		hits = intx_hits() - before;
	while (!hits && rdtsc() - start < clock_ns_tsc(5 * SECOND_NS));
	clock_delay(SETTLE_NS);
	irq_set(false);
	intx_unmask(pin, false);
	sync_check("delivered", 1, intx_hits() - before);
	sync_check("line at the end", 0, device_line(prod));
	device_down(prod);
}
