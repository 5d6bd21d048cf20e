/* SPDX-License-Identifier: MIT */
/*
 * Points about the local APIC and the IOAPIC: registers, and interrupts that
 * are on their way (pending, blocked, in service) when the guest stops. Each
 * of those must arrive exactly once.
 */
#include "sync.h"

#define IOAPIC_SELECT (*(volatile uint32_t *)0xfec00000UL)
#define IOAPIC_WINDOW (*(volatile uint32_t *)0xfec00010UL)

#define ICR_NMI	   0x400U
#define VECTOR_NMI 2

#define UART_DATA 0x3f8
#define UART_IER  0x3f9
#define UART_IIR  0x3fa
#define UART_LSR  0x3fd
#define UART_MCR  0x3fc
#define UART_GSI  4U

#define IER_RECEIVED  1
#define IER_THR_EMPTY 2
#define MCR_OUT2      0x0b /* DTR, RTS and OUT2, which gates the interrupt */

/* Long enough for an interrupt that is one too many to show itself. */
#define SETTLE_NS 2000000UL

static volatile uint64_t hits, hits2;

void ioapic_write(uint32_t reg, uint32_t value)
{
	IOAPIC_SELECT = reg;
	IOAPIC_WINDOW = value;
}

uint32_t ioapic_read(uint32_t reg)
{
	IOAPIC_SELECT = reg;
	return IOAPIC_WINDOW;
}

void ioapic_route(unsigned int pin, uint32_t low)
{
	ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
	ioapic_write(0x11 + 2 * pin, cpu_apic_id(0) << 24);
	ioapic_write(0x10 + 2 * pin, low);
}

static void on_hit(struct trap_frame *frame)
{
	(void)frame;
	hits = hits + 1;
	lapic_eoi();
}

static void on_hit2(struct trap_frame *frame)
{
	(void)frame;
	hits2 = hits2 + 1;
	lapic_eoi();
}

static bool lapic_bit(uint32_t base, unsigned int vector)
{
	return lapic_read(base + vector / 32 * 0x10) >> vector % 32 & 1;
}

static void spin_for_more(void)
{
	clock_delay(SETTLE_NS);
}

static void on_probe(struct trap_frame *frame)
{
	(void)frame;
	hits = lapic_bit(LAPIC_ISR, SYNC_VECTOR);
	lapic_eoi();
}

/*
 * Whether an interrupt in service shows in ISR. Some hosts end interrupts by
 * themselves on delivery: then ISR is always empty and a level-triggered line
 * that is still up comes once more than it should.
 */
static bool isr_works(void)
{
	hits = 0;
	trap_set(SYNC_VECTOR, on_probe);
	lapic_send(cpu_apic_id(0), SYNC_VECTOR);
	irq_set(true);
	spin_for_more();
	irq_set(false);
	return hits;
}

/* As many as expected, or, on such a host, no fewer. */
static void check_level_hits(bool exact, uint64_t expected)
{
	sync_check("delivered", expected,
		   exact || hits < expected ? hits : expected);
}

/* ---- registers ---- */

struct lapic_value {
	const char *name;
	uint32_t reg, value;
};

void point_lapic_registers(void)
{
	static const struct lapic_value list[] = {
		{ "TPR", LAPIC_TPR, 0x50 },
		{ "LDR", 0xd0, 0x5a000000 },
		{ "DFR", 0xe0, 0x0fffffff },
		{ "SVR", LAPIC_SVR, 0x1ef },
		{ "LVT thermal", 0x330, 0x10071 },
		{ "LVT counters", 0x340, 0x10472 },
		{ "LVT LINT0", LAPIC_LVT_LINT0, 0x1a073 },
		{ "LVT LINT1", LAPIC_LVT_LINT1, 0x10474 },
		{ "LVT error", LAPIC_LVT_ERROR, 0x10075 },
		{ "LVT timer", LAPIC_LVT_TIMER, 0x30076 },
		{ "divide", LAPIC_TIMER_DIVIDE, 0x9 },
		{ "ICR high", LAPIC_ICR_HIGH, 0x03000000 },
		{ "version", 0x30, 0 },
		{ "id", LAPIC_ID, 0 },
		{ "ICR", LAPIC_ICR, 0 },
	};
	uint32_t start[ARRAY_SIZE(list)], before[ARRAY_SIZE(list)];

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		start[i] = lapic_read(list[i].reg);
		if (list[i].value)
			lapic_write(list[i].reg, list[i].value);
		before[i] = lapic_read(list[i].reg);
	}
	sync_wait();
	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		sync_check(list[i].name, before[i], lapic_read(list[i].reg));
		if (list[i].value)
			lapic_write(list[i].reg, start[i]);
	}
}

void point_ioapic_registers(void)
{
	uint32_t low[IOAPIC_PINS], high[IOAPIC_PINS], id;

	ioapic_write(0, 0x05000000);
	id = ioapic_read(0);
	for (unsigned int i = 0; i < IOAPIC_PINS; i++) {
		/* Masked; kinds, polarities and triggers in all mixtures. */
		ioapic_write(0x10 + 2 * i, IOAPIC_MASKED | (i & 7) << 11 |
						   (0x50 + i) |
						   (i & 3 ? 0 : IOAPIC_LEVEL));
		ioapic_write(0x11 + 2 * i, (i + 1) << 24);
		low[i] = ioapic_read(0x10 + 2 * i);
		high[i] = ioapic_read(0x11 + 2 * i);
	}
	sync_wait();
	sync_check("IOAPIC id", id, ioapic_read(0));
	for (unsigned int i = 0; i < IOAPIC_PINS; i++) {
		sync_check("low half", low[i], ioapic_read(0x10 + 2 * i));
		sync_check("high half", high[i], ioapic_read(0x11 + 2 * i));
		ioapic_route(i, IOAPIC_MASKED);
	}
	ioapic_write(0, 0);
}

/* ---- interrupts on their way ---- */

/* Pending since IF is clear: delivered as soon as IF is set. */
void point_pending(void)
{
	hits = hits2 = 0;
	trap_set(SYNC_VECTOR, on_hit);
	trap_set(SYNC_VECTOR2, on_hit2);
	lapic_send(cpu_apic_id(0), SYNC_VECTOR);
	lapic_send(cpu_apic_id(0), SYNC_VECTOR2);
	sync_check("IRR before", 1, lapic_bit(LAPIC_IRR, SYNC_VECTOR));
	sync_wait();
	sync_check("delivered with IF clear", 0, hits + hits2);
	sync_check("IRR after", 1, lapic_bit(LAPIC_IRR, SYNC_VECTOR));
	irq_set(true);
	sync_check("delivered right after IF was set", 1, hits);
	sync_check("the second one", 1, hits2);
	spin_for_more();
	irq_set(false);
	sync_check("delivered in all", 1, hits);
	sync_check("the second one in all", 1, hits2);
	sync_check("IRR at the end", 0, lapic_bit(LAPIC_IRR, SYNC_VECTOR));
}

/* The same, blocked by TPR, with IF set. */
void point_tpr(void)
{
	hits = 0;
	trap_set(SYNC_VECTOR, on_hit);
	lapic_write(LAPIC_TPR, 0xf0);
	irq_set(true);
	lapic_send(cpu_apic_id(0), SYNC_VECTOR);
	sync_wait();
	sync_check("TPR", 0xf0, lapic_read(LAPIC_TPR));
	sync_check("delivered below TPR", 0, hits);
	lapic_write(LAPIC_TPR, 0);
	spin_for_more();
	irq_set(false);
	sync_check("delivered", 1, hits);
}

static volatile uint64_t isr_before, isr_after, ppr_before, ppr_after;

/* Waits in the handler, before EOI, another interrupt pending behind it. */
static void on_service(struct trap_frame *frame)
{
	(void)frame;
	lapic_send(cpu_apic_id(0), SYNC_VECTOR2);
	isr_before = lapic_bit(LAPIC_ISR, SYNC_VECTOR);
	ppr_before = lapic_read(LAPIC_PPR);
	sync_wait();
	isr_after = lapic_bit(LAPIC_ISR, SYNC_VECTOR);
	ppr_after = lapic_read(LAPIC_PPR);
	hits = hits + 1;
	lapic_eoi();
}

void point_in_service(void)
{
	bool shown = isr_works();

	hits = hits2 = 0;
	trap_set(SYNC_VECTOR, on_service);
	trap_set(SYNC_VECTOR2, on_hit2);
	lapic_send(cpu_apic_id(0), SYNC_VECTOR);
	irq_set(true);
	sync_until(&hits2, 1, SECOND_NS);
	spin_for_more();
	irq_set(false);
	sync_check("ISR before", shown, isr_before);
	sync_check("ISR after", shown, isr_after);
	sync_check("PPR", ppr_before, ppr_after);
	sync_check("delivered", 1, hits);
	sync_check("the one behind it", 1, hits2);
	sync_check("ISR at the end", 0, lapic_bit(LAPIC_ISR, SYNC_VECTOR));
}

/* The first one waits in the handler; the second is blocked until IRET. */
static void on_nmi(struct trap_frame *frame)
{
	(void)frame;
	hits = hits + 1;
	if (hits > 1)
		return;
	lapic_send(cpu_apic_id(0), ICR_NMI);
	sync_wait();
	hits2 = hits;
}

void point_nmi(void)
{
	hits = hits2 = 0;
	trap_set(VECTOR_NMI, on_nmi);
	lapic_send(cpu_apic_id(0), ICR_NMI);
	if (!sync_until(&hits, 1, SECOND_NS)) {
		sync_skip("no NMI comes from the local APIC");
		return;
	}
	sync_until(&hits, 2, SECOND_NS);
	spin_for_more();
	trap_set(VECTOR_NMI, NULL);
	sync_check("NMIs while one was handled", 1, hits2);
	sync_check("NMIs in all", 2, hits);
}

/* ---- the IOAPIC, with the UART's line as the source ---- */

/* Takes the request away, so that the line falls. */
static void on_uart_empty(struct trap_frame *frame)
{
	(void)frame;
	outb(UART_IER, 0);
	hits = hits + 1;
	lapic_eoi();
}

/*
 * Level-triggered and masked while the line is up. Sending is what raises the
 * line, so that announcing the point leaves it up.
 */
void point_ioapic_level(void)
{
	bool exact = isr_works();

	hits = 0;
	trap_set(UART_VECTOR, on_uart_empty);
	outb(UART_MCR, MCR_OUT2);
	ioapic_route(UART_GSI, IOAPIC_MASKED | IOAPIC_LEVEL | UART_VECTOR);
	irq_set(true);
	outb(UART_IER, IER_THR_EMPTY);
	sync_wait();
	sync_check("delivered while masked", 0, hits);
	sync_check("transmitter is empty", 0x20, inb(UART_LSR) & 0x20);
	ioapic_write(0x10 + 2 * UART_GSI, IOAPIC_LEVEL | UART_VECTOR);
	sync_until(&hits, 1, SECOND_NS);
	spin_for_more();
	irq_set(false);
	ioapic_route(UART_GSI, IOAPIC_MASKED);
	outb(UART_IER, 0);
	check_level_hits(exact, 1);
}

static volatile uint64_t remote_before, remote_after;

/* Waits before EOI, so that Remote IRR is set; polls with the line up. */
static void on_remote(struct trap_frame *frame)
{
	(void)frame;
	hits = hits + 1;
	if (hits > 1) {
		outb(UART_IER, 0);
		lapic_eoi();
		return;
	}
	remote_before = ioapic_read(0x10 + 2 * UART_GSI) & IOAPIC_REMOTE;
	sync_wait();
	remote_after = ioapic_read(0x10 + 2 * UART_GSI) & IOAPIC_REMOTE;
	lapic_eoi();
}

/* The line stays up over EOI, so it must come once more. */
void point_remote_irr(void)
{
	bool exact = isr_works();

	hits = 0;
	trap_set(UART_VECTOR, on_remote);
	outb(UART_MCR, MCR_OUT2);
	ioapic_route(UART_GSI, IOAPIC_LEVEL | UART_VECTOR);
	irq_set(true);
	outb(UART_IER, IER_THR_EMPTY);
	sync_until(&hits, 2, SECOND_NS);
	spin_for_more();
	irq_set(false);
	sync_check("Remote IRR before", IOAPIC_REMOTE, remote_before);
	sync_check("Remote IRR after", IOAPIC_REMOTE, remote_after);
	sync_check("Remote IRR at the end", 0,
		   ioapic_read(0x10 + 2 * UART_GSI) & IOAPIC_REMOTE);
	ioapic_route(UART_GSI, IOAPIC_MASKED);
	outb(UART_IER, 0);
	check_level_hits(exact, 2);
}

static volatile uint64_t received;

static void on_uart_byte(struct trap_frame *frame)
{
	(void)frame;
	(void)inb(UART_IIR);
	hits = hits + 1;
	while (inb(UART_LSR) & 1) {
		(void)inb(UART_DATA);
		received = received + 1;
	}
	lapic_eoi();
}

/* Halted, not polling: the byte's own interrupt must end it. */
void point_halted(void)
{
	if (sync_auto()) {
		sync_skip("needs someone to send a byte");
		return;
	}
	hits = received = 0;
	trap_set(UART_VECTOR, on_uart_byte);
	outb(UART_MCR, MCR_OUT2);
	outb(UART_IER, IER_RECEIVED);
	ioapic_route(UART_GSI, UART_VECTOR);
	sync_announce();
	while (!received)
		irq_wait();
	outb(UART_IER, 0);
	ioapic_route(UART_GSI, IOAPIC_MASKED);
	sync_check("interrupts", 1, hits);
	sync_check("bytes", 1, received);
}

/* ---- x2APIC ---- */

#define APIC_BASE_ENABLE (1UL << 11)
#define APIC_BASE_X2	 (1UL << 10)

/* In x2APIC mode with an interrupt pending; CPU 0 alone changes its mode. */
void point_x2apic(void)
{
	uint64_t base = rdmsr(MSR_APIC_BASE);

	hits = 0;
	trap_set(SYNC_VECTOR, on_hit);
	if (!lapic_x2_enable()) {
		sync_skip("not in CPUID");
		return;
	}
	lapic_send(cpu_apic_id(0), SYNC_VECTOR);
	sync_wait();
	sync_check("APIC_BASE", base | APIC_BASE_X2, rdmsr(MSR_APIC_BASE));
	sync_check("id", cpu_apic_id(0), lapic_read(LAPIC_ID) >> 24);
	sync_check("IRR", 1, lapic_bit(LAPIC_IRR, SYNC_VECTOR));
	irq_set(true);
	spin_for_more();
	irq_set(false);
	sync_check("delivered", 1, hits);
	/* The way back leads through "disabled". */
	wrmsr(MSR_APIC_BASE, base & ~(APIC_BASE_ENABLE | APIC_BASE_X2));
	wrmsr(MSR_APIC_BASE, base);
	lapic_enable();
}
