/* SPDX-License-Identifier: MIT */
/*
 * Points about MSRs: each is given a value of its own, if the machine lets
 * it, and must hold what it held before the wait. An MSR that cannot be read
 * is left out; one that cannot be written must keep its value nevertheless.
 */
#include "sync.h"

#define MSRS_MAX 40

struct msr_value {
	const char *name;
	uint32_t msr;
	uint64_t value;
};

/* Values are canonical addresses where the MSR wants one. */
static const struct msr_value general[] = {
	{ "STAR", 0xc0000081, 0x0018000800000000 },
	{ "LSTAR", 0xc0000082, 0x0000123456789abc },
	{ "CSTAR", 0xc0000083, 0x0000112233445566 },
	{ "SFMASK", 0xc0000084, 0x00000000000c4700 },
	{ "KERNEL_GS_BASE", 0xc0000102, 0x00007123456789ab },
	{ "TSC_AUX", 0xc0000103, 0x12345678 },
	{ "SYSENTER_CS", 0x174, 0x08 },
	{ "SYSENTER_ESP", 0x175, 0x0000654321abcdef },
	{ "SYSENTER_EIP", 0x176, 0x00006fedcba98765 },
	{ "PAT", 0x277, 0x0606010400070106 },
	{ "MISC_ENABLE", 0x1a0, 0x1 },
};

/* Read only here: another value would change the machine under us. */
static const struct msr_value as_they_are[] = {
	{ "EFER", 0xc0000080, 0 },	   { "APIC_BASE", 0x1b, 0 },
	{ "TSC_ADJUST", 0x3b, 0 },	   { "SPEC_CTRL", 0x48, 0 },
	{ "ARCH_CAPABILITIES", 0x10a, 0 }, { "MCG_CAP", 0x179, 0 },
	{ "MCG_STATUS", 0x17a, 0 },	   { "XSS", 0xda0, 0 },
};

static const struct msr_value mtrrs[] = {
	{ "MTRR_PHYS_BASE0", 0x200, 0x00000000c0000000 },
	{ "MTRR_PHYS_MASK0", 0x201, 0x0000000fc0000800 },
	{ "MTRR_PHYS_BASE7", 0x20e, 0x0000000100000006 },
	{ "MTRR_PHYS_MASK7", 0x20f, 0x0000000f00000800 },
	{ "MTRR_FIX_64K_00000", 0x250, 0x0606060606060606 },
	{ "MTRR_FIX_16K_80000", 0x258, 0x0606060606060606 },
	{ "MTRR_FIX_4K_C0000", 0x268, 0x0505050505050505 },
	{ "MTRR_FIX_4K_F8000", 0x26f, 0x0505050505050505 },
	{ "MTRR_DEF_TYPE", 0x2ff, 0x0000000000000c06 },
};

struct held {
	bool present;
	uint64_t start, before;
};

static void check_all(const struct msr_value *list, size_t count, bool write)
{
	struct held held[MSRS_MAX] = { 0 };
	uint64_t after = 0;
	unsigned int present = 0;

	for (size_t i = 0; i < count; i++) {
		held[i].present = rdmsr_try(list[i].msr, &held[i].start);
		if (!held[i].present)
			continue;
		if (write)
			(void)wrmsr_try(list[i].msr, list[i].value);
		(void)rdmsr_try(list[i].msr, &held[i].before);
		present++;
	}
	if (!present) {
		sync_skip("none of them is there");
		return;
	}
	sync_wait();
	for (size_t i = 0; i < count; i++) {
		if (!held[i].present)
			continue;
		if (!rdmsr_try(list[i].msr, &after))
			after = ~held[i].before;
		sync_check(list[i].name, held[i].before, after);
		if (write)
			(void)wrmsr_try(list[i].msr, held[i].start);
	}
}

/* One wait for both lists: those to be written first. */
void point_msrs(void)
{
	struct msr_value list[ARRAY_SIZE(general) + ARRAY_SIZE(as_they_are)];
	size_t n = ARRAY_SIZE(general);

	memcpy(list, general, sizeof(general));
	memcpy(list + n, as_they_are, sizeof(as_they_are));
	for (size_t i = n; i < ARRAY_SIZE(list); i++)
		(void)rdmsr_try(list[i].msr, &list[i].value);
	check_all(list, ARRAY_SIZE(list), true);
}

void point_mtrrs(void)
{
	check_all(mtrrs, ARRAY_SIZE(mtrrs), true);
}

/* ---- FS and GS, which ring 3 can see at work ---- */

#define MSR_FS_BASE 0xc0000100U
#define MSR_GS_BASE 0xc0000101U

static const uint64_t fs_word = 0xf5f5f5f512345678,
		      gs_word = 0x9595959587654321;

void point_segment_bases(void)
{
	uint64_t fs, gs;

	wrmsr(MSR_FS_BASE, (uint64_t)&fs_word);
	wrmsr(MSR_GS_BASE, (uint64_t)&gs_word);
	sync_wait();
	__asm__ volatile("movq %%fs:0, %0; movq %%gs:0, %1"
			 : "=r"(fs), "=r"(gs));
	sync_check("word at fs:0", fs_word, fs);
	sync_check("word at gs:0", gs_word, gs);
	sync_check("FS_BASE", (uint64_t)&fs_word, rdmsr(MSR_FS_BASE));
	sync_check("GS_BASE", (uint64_t)&gs_word, rdmsr(MSR_GS_BASE));
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

/*
 * ---- what KVM adds; Linux: Documentation/virt/kvm/x86/msr.rst ----
 *
 * KVM_WALL_CLOCK isn't among them: writing it is a command, and what it reads
 * as afterwards is nobody's state.
 */

static uint8_t steal_time[64] __attribute__((aligned(64)));

void point_kvm_msrs(void)
{
	const struct msr_value list[] = {
		{ "KVM_SYSTEM_TIME", 0x4b564d01,
		  (uint64_t)&this_cpu()->pvclock | 1 },
		{ "KVM_STEAL_TIME", 0x4b564d03, (uint64_t)steal_time | 1 },
		{ "KVM_POLL_CONTROL", 0x4b564d05, 0 },
	};

	if (!kvmclock_present()) {
		sync_skip("no kvmclock");
		return;
	}
	check_all(list, ARRAY_SIZE(list), true);
	kvmclock_enable();
}
