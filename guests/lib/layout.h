/* SPDX-License-Identifier: MIT */
/*
 * The numbers that assembly and C must agree on: segment selectors, the
 * shape of a CPU block, the trampoline's address and the vectors that the
 * runtime keeps for itself. Nothing but #defines, so that .S and .ld files
 * can include it.
 */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

/* Ring 3 selectors are in the order that SYSRET wants (32, data, 64). */
#define SEL_CODE0  0x08
#define SEL_DATA0  0x10
#define SEL_CODE32 0x18 /* boot GDT: ring 0; a CPU's own GDT: ring 3 */
#define SEL_DATA3  0x23
#define SEL_CODE3  0x2b
#define SEL_TSS	   0x30

/*
 * Everything that belongs to one CPU sits in one block, aligned to its size,
 * so that a CPU finds its block from its stack pointer alone and no segment
 * base is taken from the guest under test:
 *
 *   0      struct cpu
 *   ..8K   stack for NMI and double fault (IST 1), grows down
 *   ..16K  stack of ring 0 (TSS.RSP0), grows down
 *   ..32K  stack of ring 3, grows down
 */
#define CPU_BLOCK_SIZE 0x8000
#define CPU_IST_TOP    0x2000
#define CPU_STACK0_TOP 0x4000
#define CPU_STACK3_TOP 0x8000

/* An application processor starts in real mode at this page. */
#define TRAMPOLINE 0x8000

#define VECTOR_SPURIOUS 0xff

/* RFLAGS of fresh ring 3 code: IOPL 3, the reserved bit, IF clear. */
#define RING3_FLAGS 0x3002

#define STUB_SIZE 16

#endif
