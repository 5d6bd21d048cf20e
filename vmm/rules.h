/* SPDX-License-Identifier: MIT */
/*
 * Tables that say which system calls may be made, for those who make filters of
 * them: the sandbox (sandbox.c), and processes with a cage of their own. What
 * is in no table kills the process.
 */
#ifndef GODWIT_RULES_H
#define GODWIT_RULES_H

#include <seccomp.h>

#include "vmm/util.h"

struct rule {
	int call;
	unsigned int kinds; /* bits of the table's own choice: who may */
	/* With a mask: only when (argument & mask) == value. */
	unsigned int arg;
	uint64_t mask;
	uint64_t value;
};

#define RULE(name, kinds, arg, mask, value)                     \
	{                                                       \
		SCMP_SYS(name), (kinds), (arg), (mask), (value) \
	}
/* The kernel looks at 32 bits of arguments that are ints. */
#define RULE_INT(name, kinds, arg, value) \
	RULE(name, kinds, arg, UINT32_MAX, (uint32_t)(value))

/**
 * rules_compile() - a filter of the rules that have one of @kinds, and of one
 * more: abort() and kicks signal threads of this process and no other.
 *
 * Return: 0 or -errno; seccomp_release() gives *ret back.
 */
int __must_check rules_compile(const struct rule *rules, size_t n,
			       unsigned int kinds, scmp_filter_ctx *ret);

#endif
