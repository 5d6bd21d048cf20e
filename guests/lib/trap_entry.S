/* SPDX-License-Identifier: MIT */
/*
 * Where interrupts and exceptions land: one stub a vector, all of one size,
 * which make every vector look alike (vector, error code, general registers:
 * struct trap_frame) and call trap_dispatch() in ring 0 with IF clear.
 */
#include "layout.h"

/* Vectors for which the CPU pushes an error code: 8, 10-14, 17, 21, 29, 30. */
#define HAS_ERROR_CODE 0x60227d00

	.text
	.align	STUB_SIZE
	.globl	trap_stubs
trap_stubs:
	.set	vector, 0
	.rept	256
	.align	STUB_SIZE
	.if	vector >= 32 || !((HAS_ERROR_CODE >> (vector & 31)) & 1)
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap_common
	.set	vector, vector + 1
	.endr

	.align	16
trap_common:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rbx
	pushq	%rbp
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	cld
	movq	%rsp, %rdi
	call	trap_dispatch
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rbp
	popq	%rbx
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq

/*
 * The gates from ring 3 to ring 0, known by their addresses. They are an
 * exception and not INT or SYSCALL, because hypervisors that run ring 3
 * natively may deliver no INT, and SYSCALL's registers are under test.
 */
	.globl	gate_call0
gate_call0:			/* rax = rdi(rsi) in ring 0 */
	ud2
	ret
	.globl	gate_set_if
gate_set_if:			/* IF = rdi */
	ud2
	ret

	.section .note.GNU-stack, "", @progbits
