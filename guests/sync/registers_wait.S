/* SPDX-License-Identifier: MIT */
/*
 * Waiting with a known value in every general register and in every flag.
 * The loop may touch rcx, rdx and al only, and no flag: so it looks the line
 * status up in a table (wait_table: not 0 means go on) and branches on rcx.
 */
	.text
	.globl	registers_wait
registers_wait:			/* rdi: struct registers, in and out */
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushfq
	pushq	%rdi

	movq	%rdi, %rax
	pushq	0x68(%rax)
	popfq
	movq	0x08(%rax), %rbx
	movq	0x10(%rax), %rbp
	movq	0x18(%rax), %rsi
	movq	0x20(%rax), %rdi
	movq	0x28(%rax), %r8
	movq	0x30(%rax), %r9
	movq	0x38(%rax), %r10
	movq	0x40(%rax), %r11
	movq	0x48(%rax), %r12
	movq	0x50(%rax), %r13
	movq	0x58(%rax), %r14
	movq	0x60(%rax), %r15
	movq	0x00(%rax), %rax

	movl	$0x3fd, %edx
1:	inb	%dx, %al
	movzbl	%al, %ecx
	movzbl	wait_table(%rcx), %ecx
	jrcxz	1b

	movq	(%rsp), %rcx
	movq	%rax, 0x00(%rcx)
	movq	%rbx, 0x08(%rcx)
	movq	%rbp, 0x10(%rcx)
	movq	%rsi, 0x18(%rcx)
	movq	%rdi, 0x20(%rcx)
	movq	%r8, 0x28(%rcx)
	movq	%r9, 0x30(%rcx)
	movq	%r10, 0x38(%rcx)
	movq	%r11, 0x40(%rcx)
	movq	%r12, 0x48(%rcx)
	movq	%r13, 0x50(%rcx)
	movq	%r14, 0x58(%rcx)
	movq	%r15, 0x60(%rcx)
	pushfq
	popq	0x68(%rcx)
	movq	%rdx, 0x70(%rcx)

	popq	%rdi
	popfq
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/*
 * fault_at - read a byte at rdi; where the exception handler sends whoever
 * faults there. Returns what was read, or what the handler put into rax.
 */
	.globl	fault_at
	.globl	fault_resume
fault_at:
	movzbl	(%rdi), %eax
fault_resume:
	ret

	.section .note.GNU-stack, "", @progbits
