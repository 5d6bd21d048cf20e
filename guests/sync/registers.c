/* SPDX-License-Identifier: MIT */
/*
 * Points about what a CPU holds in registers that have names: general,
 * flags, segments, control and debug registers, and CR2 in a page fault.
 */
#include "sync.h"

#define LSR_DATA_READY 1U

#define FLAGS_ALL  0xcd5UL /* CF PF AF ZF SF DF OF */
#define FLAGS_BASE 2UL

/* registers_wait.S knows the layout. */
struct registers {
	uint64_t rax;	    /* al is the line status */
	uint64_t value[12]; /* rbx rbp rsi rdi r8 to r15 */
	uint64_t rflags;
	uint64_t rdx;
};

void registers_wait(struct registers *registers);
uint64_t fault_at(uint64_t address);
extern const char fault_resume[];

extern uint8_t wait_table[256];
uint8_t wait_table[256];

static uint64_t pattern(uint64_t i)
{
	return 0x0123456789abcdefUL * (2 * i + 3);
}

static uint64_t wait_with_registers(uint64_t arg)
{
	registers_wait((struct registers *)arg);
	return 0;
}

static void registers(uint64_t flags, bool ring0)
{
	struct registers regs = { .rax = pattern(20) };

	for (unsigned int i = 0; i < 256; i++)
		wait_table[i] = sync_auto() || (i & LSR_DATA_READY);
	for (unsigned int i = 0; i < 12; i++)
		regs.value[i] = pattern(i);
	regs.rflags = flags | FLAGS_BASE;
	if (ring0)
		call0(wait_with_registers, (uint64_t)&regs);
	else
		registers_wait(&regs);
	sync_check("rax", pattern(20) >> 8, regs.rax >> 8);
	for (unsigned int i = 0; i < 12; i++)
		sync_check("register", pattern(i), regs.value[i]);
	sync_check("rdx", 0x3fd, regs.rdx);
	sync_check("rflags", flags, regs.rflags & FLAGS_ALL);
}

/* Waits in registers_wait(); the byte is taken afterwards. */
void point_registers_ring3(void)
{
	sync_announce();
	registers(FLAGS_ALL, false);
	serial_poll();
}

/* The same in ring 0, with the flags clear. */
void point_registers_ring0(void)
{
	sync_announce();
	registers(0, true);
	serial_poll();
}

struct tables {
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdt, idt;
	uint16_t tr, ldt;
	uint16_t ds, es, fs, gs, ss;
};

static uint64_t read_tables(uint64_t arg)
{
	struct tables *t = (struct tables *)arg;

	__asm__ volatile("sgdt %0; sidt %1" : "=m"(t->gdt), "=m"(t->idt));
	__asm__ volatile("str %w0" : "=r"(t->tr));
	__asm__ volatile("sldt %w0" : "=r"(t->ldt));
	return 0;
}

static void read_segments(struct tables *t)
{
	call0(read_tables, (uint64_t)t);
	__asm__ volatile("movw %%ds, %0" : "=r"(t->ds));
	__asm__ volatile("movw %%es, %0" : "=r"(t->es));
	__asm__ volatile("movw %%fs, %0" : "=r"(t->fs));
	__asm__ volatile("movw %%gs, %0" : "=r"(t->gs));
	__asm__ volatile("movw %%ss, %0" : "=r"(t->ss));
}

static void load_data_segments(uint16_t es, uint16_t fs, uint16_t gs)
{
	__asm__ volatile("movw %w0, %%es; movw %w1, %%fs; movw %w2, %%gs"
			 :
			 : "r"((uint32_t)es), "r"((uint32_t)fs),
			   "r"((uint32_t)gs));
}

/* Selectors that differ from those of the start, one of them null. */
void point_segments(void)
{
	struct tables before = { 0 }, after = { 0 };
	uint16_t data;

	__asm__ volatile("movw %%ds, %0" : "=r"(data));
	load_data_segments(0, data, data);
	read_segments(&before);
	sync_wait();
	read_segments(&after);
	load_data_segments(data, 0, 0);
	sync_check("gdtr.base", before.gdt.base, after.gdt.base);
	sync_check("gdtr.limit", before.gdt.limit, after.gdt.limit);
	sync_check("idtr.base", before.idt.base, after.idt.base);
	sync_check("idtr.limit", before.idt.limit, after.idt.limit);
	sync_check("tr", before.tr, after.tr);
	sync_check("ldtr", before.ldt, after.ldt);
	sync_check("ds", before.ds, after.ds);
	sync_check("es", 0, after.es);
	sync_check("fs", data, after.fs);
	sync_check("gs", data, after.gs);
	sync_check("ss", before.ss, after.ss);
}

/* ---- control registers ---- */

#define CR0_TS (1UL << 3)
#define CR0_AM (1UL << 18)

#define CR4_TRY_COUNT 4
static const uint64_t cr4_try[CR4_TRY_COUNT] = {
	1UL << 3,  /* DE */
	1UL << 7,  /* PGE */
	1UL << 6,  /* MCE */
	1UL << 16, /* FSGSBASE */
};

struct control {
	uint64_t cr0, cr2, cr3, cr4, cr8;
};

static uint64_t read_control(uint64_t arg)
{
	struct control *c = (struct control *)arg;

	c->cr0 = cr0_read0();
	c->cr2 = cr2_read0();
	c->cr3 = cr3_read0();
	c->cr4 = cr4_read0();
	c->cr8 = cr8_read0();
	return 0;
}

/* A bit that the CPU refuses stays as it was. */
static uint64_t try_cr4(uint64_t value)
{
	struct cpu *cpu = this_cpu();

	__asm__ volatile("movq $1f, %0; movq %1, %%cr4; 1: movq $0, %0"
			 : "+m"(cpu->fixup)
			 : "r"(value)
			 : "memory");
	return 0;
}

static uint64_t write_control(uint64_t arg)
{
	const struct control *c = (const struct control *)arg;

	cr0_write0(c->cr0);
	cr2_write0(c->cr2);
	cr8_write0(c->cr8);
	return 0;
}

void point_control(void)
{
	struct control start, before, after;

	call0(read_control, (uint64_t)&start);
	before = start;
	before.cr0 = start.cr0 | CR0_TS | CR0_AM;
	before.cr2 = 0x7f1234567890UL;
	before.cr8 = 5;
	call0(write_control, (uint64_t)&before);
	for (unsigned int i = 0; i < CR4_TRY_COUNT; i++) {
		call0(read_control, (uint64_t)&before);
		call0(try_cr4, before.cr4 | cr4_try[i]);
	}
	call0(read_control, (uint64_t)&before);
	sync_check("cr0 as set", start.cr0 | CR0_TS | CR0_AM, before.cr0);
	sync_check("cr8 as set", 5, before.cr8);
	sync_wait();
	call0(read_control, (uint64_t)&after);
	call0(write_control, (uint64_t)&start);
	call0(try_cr4, start.cr4);
	sync_check("cr0", before.cr0, after.cr0);
	sync_check("cr2", before.cr2, after.cr2);
	sync_check("cr3", before.cr3, after.cr3);
	sync_check("cr4", before.cr4, after.cr4);
	sync_check("cr8", before.cr8, after.cr8);
}

/* ---- debug registers ---- */

#define DR7_BASE   0x400UL
#define DR7_WRITE8 0x00090001UL /* number 0: write, eight bytes, enabled */
#define DR7_OTHERS 0x31100000UL /* kinds and lengths of the disabled ones */
#define VECTOR_DB  1
#define VECTOR_PF  14

static volatile uint64_t watched;
static volatile uint64_t debug_hits;

struct debug {
	uint64_t dr[4], dr6, dr7;
};

static uint64_t read_debug(uint64_t arg)
{
	struct debug *d = (struct debug *)arg;

	d->dr[0] = dr0_read0();
	d->dr[1] = dr1_read0();
	d->dr[2] = dr2_read0();
	d->dr[3] = dr3_read0();
	d->dr6 = dr6_read0();
	d->dr7 = dr7_read0();
	return 0;
}

static uint64_t write_debug(uint64_t arg)
{
	const struct debug *d = (const struct debug *)arg;

	dr7_write0(DR7_BASE);
	dr0_write0(d->dr[0]);
	dr1_write0(d->dr[1]);
	dr2_write0(d->dr[2]);
	dr3_write0(d->dr[3]);
	dr6_write0(d->dr6);
	dr7_write0(d->dr7);
	return 0;
}

static void on_debug(struct trap_frame *frame)
{
	(void)frame;
	debug_hits = debug_hits + 1;
}

/* Where a watchpoint works in ring 3 before, it must work afterwards. */
void point_debug(void)
{
	const struct debug off = { .dr6 = 0xffff0ff0, .dr7 = DR7_BASE };
	struct debug before = {
		.dr = { (uint64_t)&watched, 0x1111111111110UL,
			0x2222222222220UL, 0x3333333333330UL },
		.dr6 = 0xffff4ff0, /* BS */
		.dr7 = DR7_BASE | DR7_WRITE8 | DR7_OTHERS,
	};
	struct debug after = { 0 };
	uint64_t works;

	debug_hits = 0;
	trap_set(VECTOR_DB, on_debug);
	call0(write_debug, (uint64_t)&before);
	watched = watched + 1;
	works = debug_hits;
	call0(write_debug, (uint64_t)&before);
	debug_hits = 0;
	sync_wait();
	call0(read_debug, (uint64_t)&after);
	for (unsigned int i = 0; i < 4; i++)
		sync_check("dr0 to dr3", before.dr[i], after.dr[i]);
	sync_check("dr6", before.dr6, after.dr6);
	sync_check("dr7", before.dr7, after.dr7);
	sync_check("hits before the write", 0, debug_hits);
	watched = watched + 1;
	sync_check("hits after the write", works, debug_hits);
	call0(write_debug, (uint64_t)&off);
	trap_set(VECTOR_DB, NULL);
}

/* ---- a page fault that is being handled ---- */

#define NOWHERE 0x600000001234UL

static volatile uint64_t fault_cr2, fault_error;

/* Waits in the handler, in ring 0. */
static void on_page_fault(struct trap_frame *frame)
{
	sync_wait();
	fault_cr2 = cr2_read0();
	fault_error = frame->error;
	frame->rax = 0x5a;
	frame->rip = (uint64_t)fault_resume;
}

void point_page_fault(void)
{
	fault_cr2 = 0;
	trap_set(VECTOR_PF, on_page_fault);
	sync_check("rax after the fault", 0x5a, fault_at(NOWHERE));
	trap_set(VECTOR_PF, NULL);
	sync_check("cr2", NOWHERE, fault_cr2);
	sync_check("error code", 4, fault_error);
}
