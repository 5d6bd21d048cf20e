/* SPDX-License-Identifier: MIT */
/*
 * The device of the points about PCI and virtio; see devices.h.
 */
#include "devices.h"

volatile uint64_t queue_hits, config_hits;

static struct prod device;

static void on_queue(struct trap_frame *frame)
{
	(void)frame;
	queue_hits = queue_hits + 1;
	lapic_eoi();
}

static void on_config(struct trap_frame *frame)
{
	(void)frame;
	config_hits = config_hits + 1;
	lapic_eoi();
}

struct prod *device_find(void)
{
	if (device.kind || prod_find(&device))
		return &device;
	sync_skip("no virtio device");
	return NULL;
}

static void aim(struct prod *prod, unsigned int entry, unsigned int vector)
{
	msix_target(&prod->msix, entry, cpu_apic_id(0), vector);
	msix_mask(&prod->msix, entry, false);
}

struct prod *device_up(uint64_t features, bool msix)
{
	struct prod *prod = device_find();

	if (!prod)
		return NULL;
	trap_set(PROD_VECTOR, on_queue);
	trap_set(PROD_CONFIG_VECTOR, on_config);
	queue_hits = config_hits = 0;
	aim(prod, PROD_QUEUE, PROD_VECTOR);
	aim(prod, PROD_CONFIG, PROD_CONFIG_VECTOR);
	msix_control(&prod->msix, msix ? MSIX_ENABLE : 0);
	prod_start(prod, features);
	return prod;
}

void device_down(struct prod *prod)
{
	virtio_reset(&prod->v);
	virtio_isr(&prod->v);
	msix_control(&prod->msix, 0);
	/* What the local APIC still has. */
	irq_set(true);
	irq_set(false);
}

void device_works(struct prod *prod)
{
	prod_start(prod, 0);
	prod_add(prod);
	virtqueue_kick(&prod->queue);
	sync_check("answers", 1, prod_wait(prod));
	device_down(prod);
}

bool device_holds(struct prod *prod, bool (*holds)(struct prod *prod),
		  bool want)
{
	uint64_t start = rdtsc();

	while (holds(prod) != want) {
		if (rdtsc() - start > clock_ns_tsc(5 * SECOND_NS))
			return false;
		cpu_relax();
	}
	return true;
}

bool device_pending(struct prod *prod)
{
	return msix_pending(&prod->msix, PROD_QUEUE);
}

bool device_line(struct prod *prod)
{
	return pci_read(&prod->v.pci, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
}

bool device_broken(struct prod *prod)
{
	return prod->v.common->status & VIRTIO_NEEDS_RESET;
}
