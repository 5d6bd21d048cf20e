// SPDX-License-Identifier: MIT
/*
 * The tables of cpuid.h: leaves, and the names of feature bits.
 *
 * Names are those of Linux's /proc/cpuinfo where it has one. Sources: Intel
 * SDM volume 2A (CPUID), AMD APM volume 3 appendix E, and Linux
 * Documentation/virt/kvm/x86/cpuid.rst for the 0x40000000 range.
 *
 * Known and never offered ('-'), by reason:
 *  - no state here for what it brings: nested virtualisation (vmx, svm, and
 *    what belongs to them), AMX (its XSAVE state needs a permission and is
 *    8 KiB more to move in the pause), CET, FRED, APX, PT, protection keys
 *    for supervisors, key locker, user interrupts, SGX, enqcmd, RDT, LBR;
 *  - performance counters (pdcm, perfctr_*, arch_perfmon): leaf 0xa is zero,
 *    as counters can't be carried to another processor;
 *  - TSX: whether it is on depends on microcode and mitigations more than on
 *    the processor, so a guest that uses it finds few hosts to move to;
 *  - MPX: gone from processors and from Linux;
 *  - async page faults: tokens in flight belong to the source's host faults,
 *    and a guest whose memory is resident gains nothing;
 *  - the invariant TSC: it promises the guest that the rate never changes for
 *    as long as it lives. After a move the rate is the same only within
 *    250 ppm unless the host scales, so Linux would take a raw TSC that is
 *    off for its best clock. kvmclock, which follows the move, stays first;
 *  - OSVW: a list of one processor's errata, read once at boot.
 */
#include "arch/x86_64/cpuid.h"

#define Z CPUID_ZERO
#define I CPUID_INFO
#define X CPUID_EXACT
#define F CPUID_FEATURES

static const struct cpuid_leaf leaves[] = {
	/* function, last index, indexed, { EAX, EBX, ECX, EDX } */
	{ 0x0, 0, false, { I, X, X, X } }, /* highest leaf, vendor */
	{ 0x1, 0, false, { I, I, F, F } }, /* model, APIC id, features */
	{ 0x2, 0, false, { I, I, I, I } }, /* cache descriptors */
	{ 0x4, 7, true, { I, I, I, I } },  /* caches */
	{ 0x6, 0, false, { F, Z, Z, Z } }, /* thermal and power */
	{ 0x7, 2, true, { I, F, F, F } },  /* features; EAX of 7.1 is special */
	{ 0xb, 3, true, { I, I, I, I } },  /* topology */
	{ 0xd, 31, true, { X, X, I, Z } }, /* XSAVE; 0 and 1 are special */
	{ 0x40000000, 0, false, { I, X, X, X } }, /* "KVMKVMKVM" */
	{ 0x40000001, 0, false, { F, Z, Z, Z } }, /* KVM features */
	{ 0x80000000, 0, false, { I, X, X, X } }, /* highest, vendor */
	{ 0x80000001, 0, false, { I, I, F, F } },
	{ 0x80000002, 0, false, { I, I, I, I } }, /* brand */
	{ 0x80000003, 0, false, { I, I, I, I } },
	{ 0x80000004, 0, false, { I, I, I, I } },
	{ 0x80000005, 0, false, { I, I, I, I } }, /* L1 caches and TLBs */
	{ 0x80000006, 0, false, { I, I, I, I } }, /* L2, L3 */
	{ 0x80000007, 0, false, { Z, Z, Z, F } }, /* power, invariant TSC */
	{ 0x80000008, 0, false, { I, F, I, Z } }, /* address widths, cores */
	{ 0x8000001a, 0, false, { I, Z, Z, Z } }, /* performance hints */
	{ 0x8000001d, 7, true, { I, I, I, I } },  /* caches, AMD */
	{ 0x8000001e, 0, false, { I, I, I, Z } }, /* topology, AMD */
	{ 0x80000021, 0, false, { F, Z, F, Z } }, /* features 2, AMD */
};

/* Subleaves whose registers mean something else than their leaf's do. */
static const struct cpuid_leaf subleaves[] = {
	{ 0x7, 1, true, { F, F, F, F } },
	{ 0x7, 2, true, { Z, Z, Z, F } },
	/* EBX, sizes for the current XCR0, is KVM's to keep up to date. */
	{ 0xd, 0, true, { F, I, I, Z } },
	{ 0xd, 1, true, { F, I, Z, Z } },
};

#undef Z
#undef I
#undef X
#undef F

/* clang-format off */
static const struct cpuid_word words[] = {
	{ 0x1, 0, CPUID_ECX, {
		"pni", "pclmulqdq", "-dtes64", "-monitor",
		"-ds_cpl", "-vmx", "-smx", "-est",
		"-tm2", "ssse3", "-cid", "-sdbg",
		"fma", "cx16", "-xtpr", "-pdcm",
		NULL, "pcid", "-dca", "sse4_1",
		"sse4_2", "x2apic", "movbe", "popcnt",
		"tsc_deadline_timer", "aes", "xsave", "-osxsave",
		"avx", "f16c", "rdrand", "hypervisor" } },
	{ 0x1, 0, CPUID_EDX, {
		"fpu", "vme", "de", "pse",
		"tsc", "msr", "pae", "mce",
		"cx8", "apic", NULL, "sep",
		"mtrr", "pge", "mca", "cmov",
		"pat", "pse36", "-pn", "clflush",
		NULL, "-dts", "-acpi", "mmx",
		"fxsr", "sse", "sse2", "ss",
		"ht", "-tm", NULL, "-pbe" } },
	{ 0x6, 0, CPUID_EAX, { [1] = "-ida", [2] = "arat" } },
	{ 0x7, 0, CPUID_EBX, {
		"fsgsbase", "tsc_adjust", "-sgx", "bmi1",
		"-hle", "avx2", "fdp_excptn_only", "smep",
		"bmi2", "erms", "invpcid", "-rtm",
		"-cqm", "zero_fcs_fds", "-mpx", "-rdt_a",
		"avx512f", "avx512dq", "rdseed", "adx",
		"smap", "avx512ifma", NULL, "clflushopt",
		"clwb", "-intel_pt", "avx512pf", "avx512er",
		"avx512cd", "sha_ni", "avx512bw", "avx512vl" } },
	{ 0x7, 0, CPUID_ECX, {
		"prefetchwt1", "avx512vbmi", "umip", "pku",
		"-ospke", "waitpkg", "avx512_vbmi2", "-shstk",
		"gfni", "vaes", "vpclmulqdq", "avx512_vnni",
		"avx512_bitalg", "-tme", "avx512_vpopcntdq", NULL,
		"la57", NULL, NULL, NULL,
		NULL, NULL, "rdpid", "-keylocker",
		"bus_lock_detect", "cldemote", NULL, "movdiri",
		"movdir64b", "-enqcmd", "-sgx_lc", "-pks" } },
	{ 0x7, 0, CPUID_EDX, {
		NULL, NULL, "avx512_4vnniw", "avx512_4fmaps",
		"fsrm", "-uintr", NULL, NULL,
		"avx512_vp2intersect", "-srbds_ctrl", "md_clear",
		"-rtm_always_abort",
		NULL, "-tsx_force_abort", "serialize", "-hybrid_cpu",
		"-tsxldtrk", NULL, "-pconfig", "-arch_lbr",
		"-ibt", NULL, "-amx_bf16", "avx512_fp16",
		"-amx_tile", "-amx_int8", "spec_ctrl", "intel_stibp",
		"flush_l1d", "arch_capabilities", "-core_capabilities",
		"ssbd" } },
	{ 0x7, 1, CPUID_EAX, {
		"sha512", "sm3", "sm4", NULL,
		"avx_vnni", "avx512_bf16", "-lass", "cmpccxadd",
		"-arch_perfmon_ext", NULL, "fzrm", "fsrs",
		"fsrc", NULL, NULL, NULL,
		NULL, "-fred", "-lkgs", "wrmsrns",
		"-nmi_src", "-amx_fp16", "-hreset", "avx_ifma",
		NULL, NULL, "lam", "-msrlist" } },
	{ 0x7, 1, CPUID_EBX, { [0] = "-intel_ppin" } },
	{ 0x7, 1, CPUID_ECX, { [5] = "-msr_imm" } },
	{ 0x7, 1, CPUID_EDX, {
		[4] = "avx_vnni_int8", [5] = "avx_ne_convert",
		[8] = "-amx_complex", [10] = "avx_vnni_int16",
		[14] = "prefetchiti", [17] = "-uiret_uif",
		[18] = "-cet_sss", [19] = "-avx10", [21] = "-apx_f" } },
	{ 0x7, 2, CPUID_EDX, {
		"intel_psfd", "ipred_ctrl", "rrsba_ctrl", "ddpd_u",
		"bhi_ctrl", "mcdt_no" } },
	/* XCR0: which register files XSAVE knows. */
	{ 0xd, 0, CPUID_EAX, {
		"x87 state", "sse state", "avx state", "-bndregs state",
		"-bndcsr state", "opmask state", "zmm_hi256 state",
		"hi16_zmm state",
		NULL, "pkru state", NULL, NULL,
		NULL, NULL, NULL, NULL,
		NULL, "-xtilecfg state", "-xtiledata state",
		"-apx state" } },
	{ 0xd, 1, CPUID_EAX, {
		"xsaveopt", "xsavec", "xgetbv1", "xsaves", "-xfd" } },
	{ 0x40000001, 0, CPUID_EAX, {
		"kvmclock-old", "kvm_nopiodelay", "-kvm_mmu", "kvmclock",
		"-kvm_asyncpf", "kvm_steal_time", "kvm_pv_eoi",
		"kvm_pv_unhalt",
		NULL, "kvm_pv_tlb_flush", "-kvm_asyncpf_vmexit",
		"kvm_pv_send_ipi",
		"kvm_poll_control", "kvm_pv_sched_yield", "-kvm_asyncpf_int",
		"-kvm_msi_ext_dest_id",
		"-kvm_hc_map_gpa_range", "-kvm_migration_control",
		[24] = "kvmclock-stable" } },
	{ 0x80000001, 0, CPUID_ECX, {
		"lahf_lm", "cmp_legacy", "-svm", "-extapic",
		"cr8_legacy", "abm", "sse4a", "misalignsse",
		"3dnowprefetch", "-osvw", "-ibs", "xop",
		"-skinit", "-wdt", NULL, "-lwp",
		"fma4", "tce", NULL, "-nodeid_msr",
		NULL, "tbm", "topoext", "-perfctr_core",
		"-perfctr_nb", NULL, "-bpext", "-ptsc",
		"-perfctr_llc", "-mwaitx", "-addr_mask_ext" } },
	/* Below bit 10 and where unnamed in Intel's: copies of leaf 1. */
	{ 0x80000001, 0, CPUID_EDX, {
		"fpu", "vme", "de", "pse",
		"tsc", "msr", "pae", "mce",
		"cx8", "apic", NULL, "syscall",
		"mtrr", "pge", "mca", "cmov",
		"pat", "pse36", NULL, "-mp",
		"nx", NULL, "mmxext", "mmx",
		"fxsr", "fxsr_opt", "pdpe1gb", "rdtscp",
		NULL, "lm", "3dnowext", "3dnow" } },
	{ 0x80000007, 0, CPUID_EDX, { [8] = "-invariant_tsc" } },
	{ 0x80000008, 0, CPUID_EBX, {
		"clzero", "-irperf", "xsaveerptr", NULL,
		"-rdpru", NULL, "-mba", NULL,
		NULL, "wbnoinvd", NULL, NULL,
		"amd_ibpb", NULL, "amd_ibrs", "amd_stibp",
		NULL, "amd_stibp_always_on", NULL, "amd_ibrs_same_mode",
		NULL, NULL, NULL, "-amd_ppin",
		"amd_ssbd", "virt_ssbd", "amd_ssb_no", "-cppc",
		"amd_psfd", "btc_no", "amd_ibpb_ret", "-brs" } },
	{ 0x80000021, 0, CPUID_EAX, {
		[0] = "no_nested_data_bp", [1] = "wrmsr_xx_base_ns",
		[2] = "lfence_rdtsc", [5] = "verw_clear",
		[6] = "null_sel_clr_base", [8] = "autoibrs",
		[9] = "no_smm_ctl_msr", [10] = "amd_fsrs", [11] = "amd_fsrc",
		[20] = "prefetchi", [27] = "sbpb", [28] = "ibpb_brtype",
		[29] = "srso_no", [30] = "srso_user_kernel_no" } },
	{ 0x80000021, 0, CPUID_ECX, {
		[1] = "tsa_sq_no", [2] = "tsa_l1_no" } },
};
/* clang-format on */

_Static_assert(ARRAY_SIZE(words) <= CPUID_WORDS_MAX, "a choice holds them all");

const struct cpuid_word *cpuid_words(size_t *ret_count)
{
	*ret_count = ARRAY_SIZE(words);
	return words;
}

const struct cpuid_leaf *cpuid_leaf_find(uint32_t function, uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(subleaves); i++)
		if (subleaves[i].function == function &&
		    subleaves[i].last_index == index)
			return &subleaves[i];
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		if (leaves[i].function == function)
			return index <= leaves[i].last_index ? &leaves[i]
							     : NULL;
	return NULL;
}

const struct cpuid_word *cpuid_word_find(uint32_t function, uint32_t index,
					 enum cpuid_reg reg)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].function == function && words[i].index == index &&
		    words[i].reg == reg)
			return &words[i];
	return NULL;
}

uint32_t cpuid_word_mask(const struct cpuid_word *word)
{
	uint32_t mask = 0;

	for (unsigned int bit = 0; bit < 32; bit++)
		if (word->names[bit] && word->names[bit][0] != '-')
			mask |= 1U << bit;
	return mask;
}

uint32_t cpuid_reg_get(const struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg)
{
	switch (reg) {
	case CPUID_EAX:
		return entry->eax;
	case CPUID_EBX:
		return entry->ebx;
	case CPUID_ECX:
		return entry->ecx;
	case CPUID_EDX:
		break;
	}
	return entry->edx;
}

void cpuid_reg_set(struct kvm_cpuid_entry2 *entry, enum cpuid_reg reg,
		   uint32_t value)
{
	switch (reg) {
	case CPUID_EAX:
		entry->eax = value;
		break;
	case CPUID_EBX:
		entry->ebx = value;
		break;
	case CPUID_ECX:
		entry->ecx = value;
		break;
	case CPUID_EDX:
		entry->edx = value;
		break;
	}
}

const char *cpuid_reg_name(enum cpuid_reg reg)
{
	static const char *const names[] = { "EAX", "EBX", "ECX", "EDX" };

	return names[reg];
}
