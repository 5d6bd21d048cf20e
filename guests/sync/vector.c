/* SPDX-License-Identifier: MIT */
/*
 * Points about x87, SSE, AVX and AVX-512 registers and XCR0. The registers
 * are loaded by XRSTOR from an area full of a pattern and stored by XSAVE
 * into another one, in ring 3; in between no code touches them, since all of
 * it is compiled for general registers only. Intel SDM, volume 1, chapter 13.
 */
#include "sync.h"

#define AREA_MAX       8192
#define CR4_OSXSAVE    (1UL << 18)
#define LEGACY_X87     32 /* ST0 to ST7, 16 bytes apart, 10 used */
#define LEGACY_XMM     160
#define HEADER	       512
#define MXCSR	       24
#define FIRST_EXTENDED 2U
#define COMPONENTS_MAX 8U

#define XCR0_X87_SSE 0x03U
#define XCR0_AVX     0x07U
#define XCR0_AVX512  0xe7U

static uint8_t area[2][AREA_MAX] __attribute__((aligned(64)));

static uint64_t write_xcr0(uint64_t mask)
{
	cr4_write0(cr4_read0() | CR4_OSXSAVE);
	__asm__ volatile("xsetbv" : : "a"((uint32_t)mask), "d"(0), "c"(0));
	return 0;
}

/*
 * Two witnesses for XCR0: XGETBV, which shows the host's where ring 3 runs
 * natively and shares it, and the size that CPUID reports for what XCR0
 * enables. (XGETBV in ring 0 would show the guest's, but where ring 0 is
 * emulated it may end the VM.)
 */
struct xcr0 {
	uint64_t ring3;
	uint32_t size;
};

static struct xcr0 read_xcr0(void)
{
	uint32_t lo, hi, reg[4];

	cpuid(0xd, 0, reg);
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (struct xcr0){ .ring3 = (uint64_t)hi << 32 | lo,
			      .size = reg[1] };
}

static void check_xcr0(const struct xcr0 *before)
{
	struct xcr0 after = read_xcr0();

	sync_check("xcr0 in ring 3", before->ring3, after.ring3);
	sync_check("size in CPUID", before->size, after.size);
}

static bool supported(uint32_t mask)
{
	uint32_t reg[4];

	cpuid(1, 0, reg);
	if (!(reg[2] & 1U << 26))
		return false;
	cpuid(0xd, 0, reg);
	return (reg[0] & mask) == mask && reg[2] <= AREA_MAX;
}

static void put(uint8_t *to, uint64_t value, size_t size)
{
	memcpy(to, &value, size);
}

/* A pattern in every byte, then the fields that have rules. */
static void prepare(uint8_t *at, uint32_t mask)
{
	for (size_t i = 0; i < AREA_MAX; i++)
		at[i] = (uint8_t)(i * 37 + (i >> 8) + 1);
	put(at + 0, 0x0f7f, 2);	    /* FCW: round to zero, all masked */
	put(at + 2, 0x4100, 2);	    /* FSW: C3 and C0, top is 0 */
	put(at + 4, 0xff, 2);	    /* FTW: all in use */
	put(at + MXCSR, 0x9fa1, 4); /* flush to zero, upward, IE and PE */
	memset(at + HEADER, 0, 64);
	put(at + HEADER, mask, 8);
}

static void compare(const char *what, size_t offset, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (area[0][offset + i] == area[1][offset + i])
			continue;
		print("byte %lu of ", i);
		sync_check(what, area[0][offset + i], area[1][offset + i]);
		return;
	}
}

static void compare_all(uint32_t mask)
{
	static const char *const names[COMPONENTS_MAX] = {
		"x87",	  "xmm",    "ymm",	"bndregs",
		"bndcsr", "opmask", "zmm high", "zmm16 to zmm31",
	};
	uint32_t reg[4];

	compare("fcw", 0, 2);
	compare("fsw", 2, 2);
	compare("ftw", 4, 1);
	compare("mxcsr", MXCSR, 4);
	for (size_t i = 0; i < 8; i++)
		compare("x87", LEGACY_X87 + 16 * i, 10);
	compare("xmm", LEGACY_XMM, 256);
	for (uint32_t i = FIRST_EXTENDED; i < COMPONENTS_MAX; i++) {
		if (!(mask & 1U << i))
			continue;
		cpuid(0xd, i, reg);
		compare(names[i], reg[1], reg[0]);
	}
}

static void vectors(uint32_t mask)
{
	struct xcr0 before;

	if (!supported(mask)) {
		sync_skip("not in CPUID");
		return;
	}
	call0(write_xcr0, mask);
	before = read_xcr0();
	prepare(area[0], mask);
	memset(area[1], 0, AREA_MAX);
	__asm__ volatile("xrstor64 %0" : : "m"(area[0]), "a"(mask), "d"(0));
	sync_wait();
	__asm__ volatile("xsave64 %0" : "+m"(area[1]) : "a"(mask), "d"(0));
	compare_all(mask);
	check_xcr0(&before);
}

void point_x87_sse(void)
{
	vectors(XCR0_X87_SSE);
}

void point_avx(void)
{
	vectors(XCR0_AVX);
}

void point_avx512(void)
{
	vectors(XCR0_AVX512);
}

/* As low as it goes: a VMM that sets it to all it has would show. */
void point_xcr0(void)
{
	struct xcr0 before;

	if (!supported(XCR0_X87_SSE)) {
		sync_skip("not in CPUID");
		return;
	}
	call0(write_xcr0, 1);
	before = read_xcr0();
	sync_wait();
	check_xcr0(&before);
	call0(write_xcr0, XCR0_X87_SSE);
}
