/* SPDX-License-Identifier: MIT */
/*
 * The IDT, the way from ring 3 to ring 0 and back, and what happens when an
 * exception or an interrupt comes that nobody asked for: it is printed and
 * ends the guest.
 *
 * Invariant: handlers run with interrupts off, on the ring 0 stack of their
 * CPU, in code that uses general registers only.
 */
#include "runtime.h"

#define GATE_INTERRUPT 0x8eU
#define RFLAGS_IF      0x200UL
#define VECTOR_NMI     2U
#define VECTOR_INVALID 6U
#define UD2_SIZE       2U
#define VECTOR_DOUBLE  8U

struct gate {
	uint16_t offset0;
	uint16_t selector;
	uint8_t ist;
	uint8_t type;
	uint16_t offset1;
	uint32_t offset2;
	uint32_t reserved;
};

struct descriptor_table {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static struct gate idt[256] __attribute__((aligned(16)));
static void (*volatile handlers[256])(struct trap_frame *frame);

struct cpu *this_cpu(void)
{
	uintptr_t rsp = (uintptr_t)__builtin_frame_address(0);

	return (struct cpu *)(rsp & ~(uintptr_t)(CPU_BLOCK_SIZE - 1));
}

static void set_gate(unsigned int vector)
{
	uintptr_t stub = (uintptr_t)trap_stubs + vector * STUB_SIZE;

	idt[vector] = (struct gate){
		.offset0 = (uint16_t)stub,
		.selector = SEL_CODE0,
		.ist = vector == VECTOR_NMI || vector == VECTOR_DOUBLE,
		.type = GATE_INTERRUPT,
		.offset1 = (uint16_t)(stub >> 16),
		.offset2 = (uint32_t)(stub >> 32),
	};
}

/* Ring 3 fills the IDT: there it costs nothing, and no trap can come yet. */
void trap_init(void)
{
	for (unsigned int i = 0; i < 256; i++)
		set_gate(i);
}

/* Ring 0. Loads this CPU's tables; the boot GDT has the same selectors. */
void cpu_setup(struct cpu *cpu)
{
	uint64_t block = (uint64_t)cpu;
	uint64_t tss = (uint64_t)&cpu->tss;
	struct descriptor_table gdtr = { sizeof(cpu->gdt) - 1,
					 (uint64_t)cpu->gdt };
	struct descriptor_table idtr = { sizeof(idt) - 1, (uint64_t)idt };

	cpu->gdt[SEL_CODE0 / 8] = 0x00af9b000000ffffUL;
	cpu->gdt[SEL_DATA0 / 8] = 0x00cf93000000ffffUL;
	cpu->gdt[SEL_CODE32 / 8] = 0x00cffb000000ffffUL;
	cpu->gdt[SEL_DATA3 / 8] = 0x00cff3000000ffffUL;
	cpu->gdt[SEL_CODE3 / 8] = 0x00affb000000ffffUL;
	cpu->gdt[SEL_TSS / 8] = (sizeof(cpu->tss) - 1) |
				(tss & 0xffffff) << 16 | 0x89UL << 40 |
				(tss >> 24 & 0xff) << 56;
	cpu->gdt[SEL_TSS / 8 + 1] = tss >> 32;
	cpu->tss.rsp[0] = block + CPU_STACK0_TOP;
	cpu->tss.ist[0] = block + CPU_IST_TOP;
	/* Where IRET keeps IOPL 3 this is not needed; not all emulators do. */
	cpu->tss.io_map = offsetof(struct tss, ports);
	cpu->tss.ports[TSS_PORTS / 8] = 0xff;
	__asm__ volatile("lgdt %0; lidt %1; ltr %w2"
			 :
			 : "m"(gdtr), "m"(idtr), "r"(SEL_TSS)
			 : "memory");
}

void trap_set(unsigned int vector, void (*fn)(struct trap_frame *frame))
{
	handlers[vector] = fn;
}

static _Noreturn void unexpected(const struct trap_frame *frame)
{
	bool exception = frame->vector < 32;

	print_urgent("\n%s vector=%lu rip=0x%lx error=0x%lx cr2=0x%lx\n",
		     exception ? "exception" : "interrupt", frame->vector,
		     frame->rip, frame->error, cr2_read0());
	print_urgent("cpu=%u cs=0x%lx rflags=0x%lx rsp=0x%lx rax=0x%lx\n",
		     this_cpu()->index, frame->cs, frame->rflags, frame->rsp,
		     frame->rax);
	guest_exit(exception ? VERDICT_EXCEPTION : VERDICT_INTERRUPT);
}

/* The two gates of trap_entry.S; false when it is another invalid opcode. */
static bool enter_gate(struct trap_frame *frame)
{
	uint64_t (*fn)(uint64_t) = (uint64_t(*)(uint64_t))frame->rdi;

	if (frame->rip == (uint64_t)gate_call0) {
		frame->rip += UD2_SIZE;
		frame->rax = fn(frame->rsi);
		return true;
	}
	if (frame->rip == (uint64_t)gate_set_if) {
		frame->rip += UD2_SIZE;
		frame->rflags &= ~RFLAGS_IF;
		if (frame->rdi)
			frame->rflags |= RFLAGS_IF;
		return true;
	}
	return false;
}

/* Called by trap_entry.S for every vector. */
void trap_dispatch(struct trap_frame *frame)
{
	struct cpu *cpu;

	if (frame->vector == VECTOR_INVALID && enter_gate(frame))
		return;
	if (handlers[frame->vector]) {
		handlers[frame->vector](frame);
		return;
	}
	cpu = this_cpu();
	if (frame->vector < 32 && cpu->fixup) {
		frame->rip = cpu->fixup;
		cpu->fixup = 0;
		cpu->faulted = true;
		return;
	}
	if (frame->vector != VECTOR_SPURIOUS)
		unexpected(frame);
}

uint64_t call0(uint64_t (*fn)(uint64_t arg), uint64_t arg)
{
	return current_ring() == 0 ? fn(arg) : gate_call0(fn, arg);
}

void irq_set(bool on)
{
	if (current_ring() != 0)
		gate_set_if(on);
	else if (on)
		__asm__ volatile("sti" : : : "memory");
	else
		__asm__ volatile("cli" : : : "memory");
}

static uint64_t halt0(uint64_t arg)
{
	(void)arg;
	__asm__ volatile("sti; hlt; cli" : : : "memory");
	return 0;
}

void irq_wait(void)
{
	call0(halt0, 0);
}

/* ---- instructions that only ring 0 may use, or that may fault there ---- */

struct msr_access {
	uint32_t msr;
	uint64_t value;
};

static uint64_t read_msr(uint64_t arg)
{
	struct msr_access *access = (struct msr_access *)arg;
	struct cpu *cpu = this_cpu();
	uint32_t lo, hi;

	cpu->faulted = false;
	__asm__ volatile("movq $1f, %2; rdmsr; 1: movq $0, %2"
			 : "=a"(lo), "=d"(hi), "+m"(cpu->fixup)
			 : "c"(access->msr)
			 : "memory");
	access->value = (uint64_t)hi << 32 | lo;
	return !cpu->faulted;
}

static uint64_t write_msr(uint64_t arg)
{
	struct msr_access *access = (struct msr_access *)arg;
	struct cpu *cpu = this_cpu();

	cpu->faulted = false;
	__asm__ volatile("movq $1f, %0; wrmsr; 1: movq $0, %0"
			 : "+m"(cpu->fixup)
			 : "c"(access->msr), "a"((uint32_t)access->value),
			   "d"((uint32_t)(access->value >> 32))
			 : "memory");
	return !cpu->faulted;
}

bool rdmsr_try(uint32_t msr, uint64_t *ret_value)
{
	struct msr_access access = { .msr = msr };

	if (!call0(read_msr, (uint64_t)&access))
		return false;
	*ret_value = access.value;
	return true;
}

bool wrmsr_try(uint32_t msr, uint64_t value)
{
	struct msr_access access = { .msr = msr, .value = value };

	return call0(write_msr, (uint64_t)&access);
}

uint64_t rdmsr(uint32_t msr)
{
	uint64_t value;

	if (!rdmsr_try(msr, &value))
		guest_fail(VERDICT_MACHINE, "cannot read MSR 0x%x\n", msr);
	return value;
}

void wrmsr(uint32_t msr, uint64_t value)
{
	if (!wrmsr_try(msr, value))
		guest_fail(VERDICT_MACHINE, "cannot write 0x%lx to MSR 0x%x\n",
			   value, msr);
}

struct cpuid_access {
	uint32_t leaf, sub;
	uint32_t *reg;
};

static uint64_t read_cpuid(uint64_t arg)
{
	struct cpuid_access *access = (struct cpuid_access *)arg;

	cpuid0(access->leaf, access->sub, access->reg);
	return 0;
}

void cpuid(uint32_t leaf, uint32_t sub, uint32_t reg[4])
{
	struct cpuid_access access = { leaf, sub, reg };

	call0(read_cpuid, (uint64_t)&access);
}
