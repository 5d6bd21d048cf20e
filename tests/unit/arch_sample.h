/* SPDX-License-Identifier: MIT */
/*
 * A made-up host for tests of pure logic: what its KVM supports; and bytes to
 * fill state with.
 */
#ifndef GODWIT_TESTS_ARCH_SAMPLE_H
#define GODWIT_TESTS_ARCH_SAMPLE_H

#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"

static inline void sample_add(struct cpuid_table *t, uint32_t function,
			      uint32_t index, uint32_t eax, uint32_t ebx,
			      uint32_t ecx, uint32_t edx)
{
	t->entries[t->nent++] = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx,
	};
}

static inline void sample_vendor(struct cpuid_table *t, bool amd)
{
	uint32_t b = amd ? 0x68747541 : 0x756e6547;
	uint32_t c = amd ? 0x444d4163 : 0x6c65746e;
	uint32_t d = amd ? 0x69746e65 : 0x49656e69;

	sample_add(t, 0, 0, 0x1f, b, c, d);
	sample_add(t, 0x80000000, 0, 0x80000026, b, c, d);
}

/*
 * A host with all that is known and some that is hidden: every feature bit
 * set, AVX-512, PKRU, MPX and AMX in XCR0.
 */
static inline void sample_supported(struct cpuid_table *t, bool amd)
{
	memset(t, 0, sizeof(*t));
	sample_vendor(t, amd);
	sample_add(t, 1, 0, 0xa20f10, 0x05100800, ~0U, ~0U);
	if (!amd) {
		sample_add(t, 4, 0, 0xfc004121, 0x1c0003f, 63, 0);
		sample_add(t, 4, 1, 0xfc01c163, 0x3c0003f, 8191, 0);
	}
	sample_add(t, 6, 0, 7, 2, 9, 0);
	sample_add(t, 7, 0, 2, ~0U, ~0U, ~0U);
	sample_add(t, 7, 1, ~0U, ~0U, ~0U, ~0U);
	sample_add(t, 7, 2, 0, 0, 0, ~0U);
	sample_add(t, 0xa, 0, 0x7300402, 0, 0, 0x603);
	sample_add(t, 0xb, 0, 0, 0, 0, 9);
	sample_add(t, 0xd, 0, 0x602ff, 0x240, 0x2b00, 0);
	sample_add(t, 0xd, 1, 0x1f, 0x240, 0x1900, 0);
	sample_add(t, 0xd, 2, 0x100, 0x240, 0, 0);
	sample_add(t, 0xd, 3, 0x40, 0x3c0, 0, 0);
	sample_add(t, 0xd, 4, 0x40, 0x400, 0, 0);
	sample_add(t, 0xd, 5, 0x40, 0x440, 0, 0);
	sample_add(t, 0xd, 6, 0x200, 0x480, 0, 0);
	sample_add(t, 0xd, 7, 0x400, 0x680, 0, 0);
	sample_add(t, 0xd, 9, 8, 0xa80, 0, 0);
	sample_add(t, 0xd, 17, 0x40, 0xac0, 0, 0);
	sample_add(t, 0xd, 18, 0x2000, 0xb00, 0, 0);
	sample_add(t, 0x14, 0, 1, 0xf, 0, 0);
	sample_add(t, 0x1f, 0, 1, 2, 0x100, 9);
	sample_add(t, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	sample_add(t, 0x40000001, 0, ~0U, 0, 0, 1);
	sample_add(t, 0x80000001, 0, 0xa20f10, 0, ~0U, ~0U);
	sample_add(t, 0x80000007, 0, 0, 0, 0, ~0U);
	sample_add(t, 0x80000008, 0, 0x303030, ~0U, 0x7007, 0);
	sample_add(t, 0x8000000a, 0, 1, 8, 0, ~0U);
	if (amd) {
		sample_add(t, 0x8000001d, 0, 0x4121, 0x1c0003f, 63, 0);
		sample_add(t, 0x8000001d, 1, 0x1c163, 0x3c0003f, 8191, 1);
		sample_add(t, 0x8000001e, 0, 9, 0x104, 0x100, 0);
	}
	sample_add(t, 0x80000021, 0, ~0U, ~0U, ~0U, ~0U);
}

static inline void sample_model(struct arch_cpu_model *model, uint32_t cpus,
				bool amd)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, amd);
	memset(model, 0, sizeof(*model));
	if (cpuid_build(&t, NULL, true, cpus, model, &err))
		abort();
	model->tsc_khz = 2600000;
	model->xsave_size = 4096;
}

/* Each byte another value, so that a swap shows. */
static inline void poison(void *p, size_t len)
{
	uint8_t *bytes = p;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 37 + (i >> 8) + 1);
}

#endif
