/* SPDX-License-Identifier: MIT */
/*
 * Interrupt lines; see intx.h.
 *
 * The handler reads the device's interrupt status, which lowers the line. Some
 * hosts deliver a level-triggered interrupt once more while the line is still
 * up; then the status is 0, and it does not count.
 */
#include "intx.h"

#define IOAPIC_SELECT (*(volatile uint32_t *)0xfec00000UL)
#define IOAPIC_WINDOW (*(volatile uint32_t *)0xfec00010UL)
#define ENTRY_LOW(n)  (0x10 + 2 * (n))
#define ENTRY_MASKED  0x10000U
#define ENTRY_LEVEL   0x8000U

/* Those below are ISA's: keyboard, timer, cascade, serial. */
#define PIN_FIRST 5U
#define PIN_END	  24U
#define WAIT_NS	  NS_PER_S

static const struct virtio *device;
static volatile uint64_t hits;
static volatile uint64_t last_vector;

static void on_line(struct trap_frame *frame)
{
	if (virtio_isr(device) & VIRTIO_ISR_QUEUE) {
		hits = hits + 1;
		last_vector = frame->vector;
	}
	lapic_eoi();
}

uint64_t intx_hits(void)
{
	return hits;
}

static void entry_write(uint32_t reg, uint32_t value)
{
	IOAPIC_SELECT = reg;
	IOAPIC_WINDOW = value;
}

void intx_unmask(unsigned int pin, bool on)
{
	trap_set(INTX_VECTOR + pin, on_line);
	entry_write(ENTRY_LOW(pin) + 1, cpu_apic_id(0) << 24);
	entry_write(ENTRY_LOW(pin), ENTRY_LEVEL | (INTX_VECTOR + pin) |
					    (on ? 0 : ENTRY_MASKED));
}

bool intx_find(struct prod *prod, unsigned int *ret_pin)
{
	uint64_t before = hits;
	uint64_t start;

	device = &prod->v;
	for (unsigned int pin = PIN_FIRST; pin < PIN_END; pin++)
		intx_unmask(pin, true);
	irq_set(true);
	prod_once(prod);
	start = rdtsc();
	while (hits == before && rdtsc() - start < clock_ns_tsc(WAIT_NS))
		cpu_relax();
	irq_set(false);
	for (unsigned int pin = PIN_FIRST; pin < PIN_END; pin++)
		intx_unmask(pin, false);
	*ret_pin = (unsigned int)last_vector - INTX_VECTOR;
	return hits != before;
}
