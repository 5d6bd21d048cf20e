/* SPDX-License-Identifier: MIT */
/*
 * The way from the PVH entry point (32-bit protected mode, no paging, EBX
 * holds the physical address of struct hvm_start_info) to guest_start() in
 * ring 3, and the same way for an application processor from real mode.
 *
 * The first four GiB are mapped by tables that are complete in the image, so
 * nothing needs to be computed here: ring 0 may be slow, so it is kept short.
 * All pages are open to ring 3.
 */
#include "layout.h"

#define PTE_FLAGS    0x87 /* present, writable, user, 2 MiB page */
#define PTE_MMIO     0x9f /* the same, uncached */
#define TABLE_FLAGS  0x07 /* present, writable, user */
#define CR0_BITS     0x80010023 /* PG, WP, NE, MP, PE */
#define CR0_EM_TS    0x0000000c
#define CR4_BITS     0x00000620 /* OSXMMEXCPT, OSFXSR, PAE */
#define MSR_EFER     0xc0000080
#define EFER_LME_NXE 0x00000900

	.section .note.pvh, "a", @note
	.align	4
	.long	4, 8, 18	/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	pvh_start

/* ---- page tables and the boot GDT ---- */

	.section .data.page, "aw"
	.align	4096
	.globl	boot_pml4
boot_pml4:
	.quad	boot_pdpt + TABLE_FLAGS
	.fill	511, 8, 0
	.globl	boot_pdpt
boot_pdpt:
	.quad	boot_pd + 0x0000 + TABLE_FLAGS
	.quad	boot_pd + 0x1000 + TABLE_FLAGS
	.quad	boot_pd + 0x2000 + TABLE_FLAGS
	.quad	boot_pd + 0x3000 + TABLE_FLAGS
	.fill	508, 8, 0
boot_pd:
	.set	gpa, 0
	.rept	1536
	.quad	gpa + PTE_FLAGS
	.set	gpa, gpa + 0x200000
	.endr
	.rept	512		/* 3 to 4 GiB: devices */
	.quad	gpa + PTE_MMIO
	.set	gpa, gpa + 0x200000
	.endr

	.section .data
	.align	8
boot_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* code, 64-bit, ring 0 */
	.quad	0x00cf93000000ffff	/* data, ring 0 */
	.quad	0x00cf9b000000ffff	/* code, 32-bit, ring 0 */
boot_gdt_end:
	.globl	boot_gdtr
boot_gdtr:
	.word	boot_gdt_end - boot_gdt - 1
	.quad	boot_gdt

	.globl	boot_info
boot_info:
	.quad	0

/* The block of the application processor that is being started. */
	.globl	ap_cpu
ap_cpu:
	.quad	0

	.section .bss.block, "aw", @nobits
	.align	CPU_BLOCK_SIZE
	.globl	boot_cpu
boot_cpu:
	.skip	CPU_BLOCK_SIZE

/* ---- into long mode: from 32-bit code, flat segments, to \target ---- */

	.macro	enter_long target
	movl	%cr4, %eax
	orl	$CR4_BITS, %eax
	movl	%eax, %cr4
	movl	$boot_pml4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME_NXE, %eax
	wrmsr
	movl	%cr0, %eax
	andl	$~CR0_EM_TS, %eax
	orl	$CR0_BITS, %eax
	movl	%eax, %cr0
	ljmp	$SEL_CODE0, $\target
	.endm

	.section .text.boot, "ax"
	.code32
	.globl	pvh_start
pvh_start:
	cli
	cld
	movl	%ebx, boot_info
	lgdt	boot_gdtr
	enter_long bsp_long

	.code64
bsp_long:
	movq	$boot_cpu, %rdi
	movq	$guest_start, %rsi
	jmp	enter_ring3

ap_long:
	movq	ap_cpu, %rdi
	movq	$ap_start, %rsi

/*
 * enter_ring3 - set this CPU up and leave ring 0.
 * @rdi: the CPU's block
 * @rsi: function to run in ring 3 with the block as its argument; it must
 *       not return
 */
enter_ring3:
	movl	$SEL_DATA0, %eax
	movl	%eax, %ss
	movl	%eax, %ds
	movl	%eax, %es
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	leaq	CPU_STACK0_TOP(%rdi), %rsp
	pushq	%rsi
	pushq	%rdi
	call	cpu_setup	/* GDT, TSS, IDT: from here on int works */
	popq	%rdi
	popq	%rsi
	movl	$SEL_DATA3, %eax
	movl	%eax, %ds
	movl	%eax, %es
	leaq	CPU_STACK3_TOP - 8(%rdi), %rcx
	pushq	%rax
	pushq	%rcx
	pushq	$RING3_FLAGS
	pushq	$SEL_CODE3
	pushq	%rsi
	iretq

/* ---- real mode, copied to TRAMPOLINE; CS is TRAMPOLINE >> 4, IP 0 ---- */

	.section .rodata
	.code16
	.globl	trampoline
trampoline:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	1f - trampoline
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$SEL_CODE32, $ap_protected
1:	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
	.globl	trampoline_end
trampoline_end:

	.section .text.boot, "ax"
	.code32
ap_protected:
	movl	$SEL_DATA0, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	enter_long ap_long

	.section .note.GNU-stack, "", @progbits
