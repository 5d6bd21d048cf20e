/* SPDX-License-Identifier: MIT */
/*
 * Points about the PIT and the two PICs.
 */
#include "sync.h"

#define PIT_0	     0x40
#define PIT_2	     0x42
#define PIT_CONTROL  0x43
#define SPEAKER	     0x61
#define PIT_STATUS_0 0xe2 /* read-back: latch the status of channel 0 */
#define PIT_STATUS_2 0xe8
#define PIT_COUNT_2  0xd8
#define STATUS_MODE  0x3f

#define PIC1	     0x20
#define PIC1_DATA    0x21
#define PIC2	     0xa0
#define PIC2_DATA    0xa1
#define PIC_READ_ISR 0x0b
#define PIC_EOI	     0x20
#define PIC_BASE     0x70U

#define COUNT_100HZ 11932
#define TICKS	    5
#define LINT_EXTINT 0x700U

static volatile uint64_t ticks;
static volatile uint64_t isr_before, isr_after;
static volatile bool waits;

static void on_tick(struct trap_frame *frame)
{
	(void)frame;
	ticks = ticks + 1;
	lapic_eoi();
}

static uint8_t pit_status(uint8_t command, uint16_t port)
{
	outb(PIT_CONTROL, command);
	return inb(port) & STATUS_MODE;
}

static void pit_start(void)
{
	outb(PIT_CONTROL, 0x34); /* channel 0, both bytes, mode 2 */
	outb(PIT_0, COUNT_100HZ & 0xff);
	outb(PIT_0, COUNT_100HZ >> 8);
}

/* Mode 0 and no count: never fires. */
static void pit_stop(void)
{
	outb(PIT_CONTROL, 0x30);
}

/* The ISA timer is on pin 0 of the IOAPIC, or moved to 2: take both. */
static void pit_route(uint32_t low)
{
	ioapic_route(0, low);
	ioapic_route(2, low);
}

void point_pit_periodic(void)
{
	uint8_t before;
	uint64_t seen;

	ticks = 0;
	trap_set(PIT_VECTOR, on_tick);
	pit_route(PIT_VECTOR);
	irq_set(true);
	pit_start();
	if (!sync_until(&ticks, TICKS, SECOND_NS)) {
		sync_skip("the PIT interrupts nobody");
		goto out;
	}
	before = pit_status(PIT_STATUS_0, PIT_0);
	sync_wait();
	sync_check("status", before, pit_status(PIT_STATUS_0, PIT_0));
	seen = ticks;
	sync_check("goes on", 1,
		   sync_until(&ticks, seen + TICKS, 5 * SECOND_NS));
out:
	irq_set(false);
	pit_stop();
	pit_route(IOAPIC_MASKED);
}

static uint32_t pit_count2(void)
{
	uint32_t low;

	outb(PIT_CONTROL, PIT_COUNT_2);
	low = inb(PIT_2);
	return low | (uint32_t)inb(PIT_2) << 8;
}

/* A square wave with the gate open: it counts, and both gates stay. */
void point_pit_channel2(void)
{
	uint8_t gate = inb(SPEAKER) & 0xfc;
	uint8_t before, speaker;
	uint32_t first;

	outb(SPEAKER, gate | 1);
	outb(PIT_CONTROL, 0xb6);
	outb(PIT_2, 0xf0);
	outb(PIT_2, 0xff);
	clock_delay(1000000);
	before = pit_status(PIT_STATUS_2, PIT_2);
	speaker = inb(SPEAKER) & 3;
	sync_wait();
	sync_check("status", before, pit_status(PIT_STATUS_2, PIT_2));
	sync_check("gate and speaker", speaker, inb(SPEAKER) & 3);
	first = pit_count2();
	clock_delay(1000000);
	sync_check("it counts", 1, pit_count2() != first);
	outb(SPEAKER, gate);
}

/* ---- the PICs ---- */

static void pic_program(uint8_t mask1, uint8_t mask2)
{
	outb(PIC1, 0x11);
	outb(PIC2, 0x11);
	outb(PIC1_DATA, PIC_BASE);
	outb(PIC2_DATA, PIC_BASE + 8);
	outb(PIC1_DATA, 4);
	outb(PIC2_DATA, 2);
	outb(PIC1_DATA, 1);
	outb(PIC2_DATA, 1);
	outb(PIC1_DATA, mask1);
	outb(PIC2_DATA, mask2);
}

static uint8_t pic_isr(void)
{
	outb(PIC1, PIC_READ_ISR);
	return inb(PIC1);
}

/* Waits in its first call, in service at the PIC. */
static void on_pic_tick(struct trap_frame *frame)
{
	(void)frame;
	ticks = ticks + 1;
	if (waits) {
		waits = false;
		isr_before = pic_isr() & 1;
		sync_wait();
		isr_after = pic_isr() & 1;
	}
	outb(PIC1, PIC_EOI);
}

/* Ticks through the PIC: its vectors, masks and LINT0 must all survive. */
static void pic_ticks(bool in_service)
{
	uint32_t lint0 = lapic_read(LAPIC_LVT_LINT0);
	uint64_t seen;

	ticks = 0;
	waits = false;
	trap_set(PIC_BASE, on_pic_tick);
	pic_program(0xfe, 0xff);
	lapic_write(LAPIC_LVT_LINT0, LINT_EXTINT);
	irq_set(true);
	pit_start();
	if (!sync_until(&ticks, TICKS, SECOND_NS)) {
		sync_skip("no interrupt comes through the PIC");
		goto out;
	}
	seen = ticks;
	if (in_service) {
		waits = true;
	} else {
		sync_wait();
		seen = ticks;
		sync_check("mask 1", 0xfe, inb(PIC1_DATA));
		sync_check("mask 2", 0xff, inb(PIC2_DATA));
	}
	sync_check("goes on", 1,
		   sync_until(&ticks, seen + TICKS, 600 * SECOND_NS));
out:
	irq_set(false);
	pit_stop();
	lapic_write(LAPIC_LVT_LINT0, lint0);
	pic_program(0xff, 0xff);
}

void point_pic_registers(void)
{
	pic_ticks(false);
}

void point_pic_in_service(void)
{
	isr_before = isr_after = 0;
	pic_ticks(true);
	sync_check("ISR before", 1, isr_before);
	sync_check("ISR after", isr_before, isr_after);
}
