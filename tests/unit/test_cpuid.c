// SPDX-License-Identifier: MIT
/*
 * The guest's processor: what is offered, how its topology reads, and how a
 * model from elsewhere is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86_64/cpuid.h"
#include "tests/unit/arch_sample.h"
#include "tests/unit/unit.h"

static struct arch_cpu_model model, host;

static uint32_t reg(uint32_t function, uint32_t index, enum cpuid_reg r)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(&model, function, index);

	ck_assert_msg(e != NULL, "CPUID %x.%u is missing", function, index);
	return cpuid_reg_get(e, r);
}

static struct kvm_cpuid_entry2 *entry(uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < model.nentries; i++)
		if (model.entries[i].function == function &&
		    model.entries[i].index == index)
			return &model.entries[i];
	ck_abort_msg("CPUID %x.%u is missing", function, index);
}

START_TEST(what_a_host_makes_it_accepts)
{
	static const uint32_t cpus[] = { 2, 3, 64, 254 };
	struct error err = { 0 };

	for (int amd = 0; amd < 2; amd++) {
		for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
			sample_model(&model, cpus[i], amd);
			sample_model(&host, 2, amd);
			ck_assert_msg(!cpuid_check_shape(&model, &err), "%s",
				      err.text);
			ck_assert_msg(!cpuid_check_subset(&model, &host, &err),
				      "%s", err.text);
		}
		sample_model(&model, 1, amd);
		ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), 0);
	}
}
END_TEST

START_TEST(features_whose_state_cannot_move_are_hidden)
{
	static const struct {
		uint32_t function, index;
		enum cpuid_reg r;
		unsigned int bit;
	} hidden[] = {
		{ 1, 0, CPUID_ECX, 5 },	   /* vmx */
		{ 1, 0, CPUID_ECX, 3 },	   /* monitor */
		{ 1, 0, CPUID_ECX, 15 },   /* pdcm */
		{ 1, 0, CPUID_ECX, 27 },   /* osxsave: the guest's own doing */
		{ 7, 0, CPUID_EBX, 2 },	   /* sgx */
		{ 7, 0, CPUID_EBX, 11 },   /* rtm */
		{ 7, 0, CPUID_EBX, 14 },   /* mpx */
		{ 7, 0, CPUID_EBX, 25 },   /* pt */
		{ 7, 0, CPUID_ECX, 7 },	   /* shstk */
		{ 7, 0, CPUID_EDX, 24 },   /* amx_tile */
		{ 7, 1, CPUID_EAX, 17 },   /* fred */
		{ 0xd, 0, CPUID_EAX, 18 }, /* xtiledata */
		{ 0xd, 1, CPUID_EAX, 4 },  /* xfd */
		{ 0x40000001, 0, CPUID_EAX, 4 },  /* async page faults */
		{ 0x80000001, 0, CPUID_ECX, 2 },  /* svm */
		{ 0x80000001, 0, CPUID_ECX, 23 }, /* perfctr_core */
		{ 0x80000007, 0, CPUID_EDX, 8 },  /* invariant TSC */
	};
	static const uint32_t gone[] = { 0xa, 0x14, 0x1f, 0x8000000a };

	sample_model(&model, 2, false);
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
		ck_assert_msg(!cpuid_has(&model, hidden[i].function,
					 hidden[i].index, hidden[i].r,
					 hidden[i].bit),
			      "case %zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(gone); i++)
		ck_assert_ptr_null(cpuid_find(&model, gone[i], 0));
	ck_assert_uint_eq(reg(0x40000001, 0, CPUID_EDX), 0);
}
END_TEST

START_TEST(what_a_virtual_machine_must_have_is_there)
{
	struct cpuid_table t;
	struct error err;

	sample_supported(&t, false);
	for (uint32_t i = 0; i < t.nent; i++)
		if (t.entries[i].function == 1)
			t.entries[i].ecx &= ~(1U << 31 | 1U << 24);
	ck_assert_int_eq(cpuid_build(&t, NULL, true, 1, &model, &err), 0);
	ck_assert(cpuid_has(&model, 1, 0, CPUID_ECX, 31)); /* hypervisor */
	ck_assert(cpuid_has(&model, 1, 0, CPUID_ECX, 24)); /* TSC deadline */
	ck_assert_int_eq(cpuid_build(&t, NULL, false, 1, &model, &err), 0);
	ck_assert(!cpuid_has(&model, 1, 0, CPUID_ECX, 24));
	ck_assert_uint_eq(reg(0x40000000, 0, CPUID_EBX), 0x4b4d564b);
	ck_assert(cpuid_has(&model, 0x40000001, 0, CPUID_EAX, 3));
}
END_TEST

START_TEST(the_highest_leaves_are_the_last_ones_left)
{
	sample_model(&model, 2, true);
	ck_assert_uint_eq(reg(0, 0, CPUID_EAX), 0xd);
	ck_assert_uint_eq(reg(0x80000000, 0, CPUID_EAX), 0x80000021);
	ck_assert_uint_eq(reg(7, 0, CPUID_EAX), 2);
	ck_assert_uint_eq(reg(0x40000000, 0, CPUID_EAX), 0x40000001);
}
END_TEST

START_TEST(xsave_has_room_for_what_is_offered_and_no_more)
{
	sample_model(&model, 2, false);
	ck_assert_uint_eq(reg(0xd, 0, CPUID_EAX), 0x2e7);
	ck_assert_uint_eq(reg(0xd, 0, CPUID_ECX), 0xa88); /* up to PKRU */
	ck_assert_uint_eq(cpuid_xcr0(&model), 0x2e7);
	ck_assert_ptr_null(cpuid_find(&model, 0xd, 3));	 /* MPX */
	ck_assert_ptr_null(cpuid_find(&model, 0xd, 18)); /* AMX */
	ck_assert_ptr_nonnull(cpuid_find(&model, 0xd, 9));
}
END_TEST

START_TEST(one_cpu_is_no_multiprocessor)
{
	sample_model(&model, 1, true);
	ck_assert(!cpuid_has(&model, 1, 0, CPUID_EDX, 28));
	ck_assert(!cpuid_has(&model, 0x80000001, 0, CPUID_ECX, 1));
	ck_assert_uint_eq(reg(1, 0, CPUID_EBX) >> 16 & 0xff, 1);
	ck_assert_uint_eq(reg(0x80000008, 0, CPUID_ECX), 0);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_EAX), 0);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_EBX), 1);
}
END_TEST

START_TEST(intel_topology_is_one_socket_of_cores)
{
	sample_model(&model, 6, false);
	ck_assert(cpuid_has(&model, 1, 0, CPUID_EDX, 28));
	ck_assert_uint_eq(reg(1, 0, CPUID_EBX) >> 16 & 0xff, 8);
	/* L1: a core's own; L3: all share it. 8 core ids in the socket. */
	ck_assert_uint_eq(reg(4, 0, CPUID_EAX) >> 14 & 0xfff, 0);
	ck_assert_uint_eq(reg(4, 1, CPUID_EAX) >> 14 & 0xfff, 7);
	ck_assert_uint_eq(reg(4, 1, CPUID_EAX) >> 26, 7);
	ck_assert_uint_eq(reg(0xb, 0, CPUID_EAX), 0);
	ck_assert_uint_eq(reg(0xb, 0, CPUID_EBX), 1);
	ck_assert_uint_eq(reg(0xb, 0, CPUID_ECX), 0x100);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_EAX), 3);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_EBX), 6);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_ECX), 0x201);
	ck_assert_uint_eq(reg(0xb, 2, CPUID_EBX), 0);
	ck_assert(!cpuid_has(&model, 0x80000001, 0, CPUID_ECX, 1));
}
END_TEST

START_TEST(amd_topology_is_one_socket_of_cores)
{
	sample_model(&model, 6, true);
	ck_assert_uint_eq(reg(1, 0, CPUID_EBX) >> 16 & 0xff, 6);
	ck_assert(cpuid_has(&model, 0x80000001, 0, CPUID_ECX, 1));
	ck_assert_uint_eq(reg(0x80000008, 0, CPUID_ECX), 3 << 12 | 5);
	ck_assert_uint_eq(reg(0x8000001d, 0, CPUID_EAX) >> 14 & 0xfff, 0);
	ck_assert_uint_eq(reg(0x8000001d, 1, CPUID_EAX) >> 14 & 0xfff, 5);
	ck_assert_uint_eq(reg(0x8000001e, 0, CPUID_EBX) >> 8 & 0xff, 0);
	ck_assert_uint_eq(reg(0x8000001e, 0, CPUID_ECX), 0);
}
END_TEST

START_TEST(each_vcpu_has_its_own_apic_id)
{
	sample_model(&model, 254, true);
	cpuid_patch(model.entries, model.nentries, 253);
	ck_assert_uint_eq(reg(1, 0, CPUID_EBX) >> 24, 253);
	ck_assert_uint_eq(reg(1, 0, CPUID_EBX) >> 16 & 0xff, 254);
	ck_assert_uint_eq(reg(0xb, 0, CPUID_EDX), 253);
	ck_assert_uint_eq(reg(0xb, 1, CPUID_EDX), 253);
	ck_assert_uint_eq(reg(0x8000001e, 0, CPUID_EAX), 253);
	ck_assert_uint_eq(reg(0x8000001e, 0, CPUID_EBX), 253);
}
END_TEST

/* ---- refusals ---- */

START_TEST(a_missing_feature_is_named)
{
	static const struct {
		uint32_t function, index;
		enum cpuid_reg r;
		unsigned int bit;
		const char *text;
	} cases[] = {
		{ 7, 0, CPUID_EBX, 16,
		  "CPU feature avx512f (CPUID 7.0:EBX bit 16) is not offered "
		  "by this host" },
		{ 1, 0, CPUID_ECX, 25, "aes" },
		{ 1, 0, CPUID_EDX, 12, "mtrr" },
		{ 7, 0, CPUID_EDX, 26, "spec_ctrl" },
		{ 7, 1, CPUID_EAX, 4, "avx_vnni" },
		{ 7, 2, CPUID_EDX, 4, "bhi_ctrl" },
		{ 0xd, 0, CPUID_EAX, 9, "pkru state" },
		{ 0xd, 1, CPUID_EAX, 3, "xsaves" },
		{ 0x40000001, 0, CPUID_EAX, 3, "kvmclock" },
		{ 0x80000001, 0, CPUID_EDX, 26, "pdpe1gb" },
		{ 0x80000001, 0, CPUID_ECX, 6, "sse4a" },
		{ 0x80000008, 0, CPUID_EBX, 0, "clzero" },
		{ 0x80000021, 0, CPUID_EAX, 8, "autoibrs" },
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kvm_cpuid_entry2 *e;

		sample_model(&host, 2, true);
		sample_model(&model, 2, true);
		e = entry(cases[i].function, cases[i].index);
		e = &host.entries[e - model.entries];
		cpuid_reg_set(e, cases[i].r,
			      cpuid_reg_get(e, cases[i].r) &
				      ~(1U << cases[i].bit));
		ck_assert_int_eq(cpuid_check_subset(&model, &host, &err),
				 -ENOTSUP);
		ck_assert_msg(strstr(err.text, cases[i].text), "case %zu: %s",
			      i, err.text);
		/* The other way round is fine. */
		ck_assert_int_eq(cpuid_check_subset(&host, &model, &err), 0);
	}
}
END_TEST

START_TEST(hidden_and_unknown_features_are_refused)
{
	struct error err;

	sample_model(&host, 2, false);
	sample_model(&model, 2, false);
	entry(1, 0)->ecx |= 1 << 5;
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "vmx"));
	sample_model(&model, 2, false);
	entry(7, 1)->edx |= 1U << 31;
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "CPUID 7.1:EDX bit 31"));
}
END_TEST

START_TEST(another_vendor_is_refused_by_name)
{
	struct error err;

	sample_model(&model, 2, true);
	sample_model(&host, 2, false);
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "AuthenticAMD"));
	ck_assert_ptr_nonnull(strstr(err.text, "GenuineIntel"));
}
END_TEST

START_TEST(another_xsave_layout_is_refused)
{
	struct error err;

	sample_model(&host, 2, true);
	sample_model(&model, 2, true);
	entry(0xd, 9)->ebx = 0x980;
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "CPUID d.9:EBX"));
	sample_model(&model, 2, true);
	host.xsave_size = 2048;
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "XSAVE"));
}
END_TEST

START_TEST(wider_addresses_are_refused)
{
	struct error err;

	sample_model(&host, 2, true);
	sample_model(&model, 2, true);
	entry(0x80000008, 0)->eax = 0x3034;
	ck_assert_int_eq(cpuid_check_subset(&model, &host, &err), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "52 bits"));
}
END_TEST

static void break_model(unsigned int how)
{
	struct kvm_cpuid_entry2 *last = &model.entries[model.nentries - 1];

	switch (how) {
	case 0:
		model.nentries = 0;
		break;
	case 1:
		model.nentries = ARCH_CPUID_MAX + 1;
		break;
	case 2:
		model.entries[model.nentries++] = *last;
		break;
	case 3:
		last->function = 0x12345678;
		break;
	case 4: /* a subleaf where there is none */
		entry(7, 2)->index = 3;
		break;
	case 5:
		entry(1, 0)->flags = 1;
		break;
	case 6:
		entry(7, 0)->flags = 0;
		break;
	case 7:
		entry(7, 0)->flags = 2;
		break;
	case 8: /* a register that is always 0 */
		entry(0x40000001, 0)->edx = 1;
		break;
	case 9:
		entry(0x80000001, 0)->edx &= ~(1U << 29);
		break;
	case 10:
		entry(0x80000008, 0)->eax = 0x3010;
		break;
	case 11:
		entry(0x80000008, 0)->eax = 0x3030 | 0x4000;
		break;
	case 12:
		model.tsc_khz = 0;
		break;
	case 13:
		model.xsave_size = 1 << 20;
		break;
	case 14:
		entry(0, 0)->function = 2;
		break;
	default:
		ck_abort();
	}
}

START_TEST(malformed_models_are_refused)
{
	struct error err;

	for (unsigned int how = 0; how < 15; how++) {
		sample_model(&model, 2, false);
		break_model(how);
		err = (struct error){ 0 };
		ck_assert_msg(cpuid_check_shape(&model, &err) == -EINVAL,
			      "way %u", how);
		ck_assert_str_ne(err.text, "");
	}
}
END_TEST

START_TEST(every_byte_of_a_model_survives_the_wire)
{
	struct buffer buf = { 0 };
	struct error err;
	struct codec c;
	uint32_t seed = 1;

	memset(&model, 0, sizeof(model));
	memset(&host, 0, sizeof(host));
	model.nentries = ARCH_CPUID_MAX;
	model.tsc_khz = 0x01020304;
	model.xsave_size = 0x05060708;
	for (uint32_t i = 0; i < ARCH_CPUID_MAX; i++) {
		model.entries[i].function = seed++;
		model.entries[i].index = seed++;
		model.entries[i].flags = seed++;
		for (enum cpuid_reg r = CPUID_EAX; r <= CPUID_EDX; r++)
			cpuid_reg_set(&model.entries[i], r, seed++);
	}
	codec_init_save(&c, &buf, 1);
	arch_cpu_model_visit(&c, &model);
	ck_assert_int_eq(codec_finish(&c, &err), 0);
	codec_init_load(&c, buf.data, buf.len, 1);
	arch_cpu_model_visit(&c, &host);
	ck_assert_int_eq(codec_finish(&c, &err), 0);
	ck_assert_mem_eq(&model, &host, sizeof(model));
	/* One entry too many. */
	buf.data[8] = 1;
	buf.data[9] = 1;
	codec_init_load(&c, buf.data, buf.len, 1);
	arch_cpu_model_visit(&c, &host);
	ck_assert_int_eq(codec_finish(&c, &err), -EBADMSG);
	buffer_free(&buf);
}
END_TEST

START_TEST(tsc_rates_within_kvms_tolerance_are_one)
{
	ck_assert(tsc_khz_same(2600000, 2600000));
	ck_assert(tsc_khz_same(2600649, 2600000));
	ck_assert(tsc_khz_same(2599351, 2600000));
	ck_assert(!tsc_khz_same(2600651, 2600000));
	ck_assert(!tsc_khz_same(0, 2600000));
	ck_assert(!tsc_khz_same(2600000, 0));
}
END_TEST

/* ---- with KVM ---- */

START_TEST(this_host_accepts_its_own_guests)
{
	static const uint32_t cpus[] = { 1, 2, 7, ARCH_CPUS_MAX };
	struct error err = { 0 };
	struct kvm kvm;

	if (kvm_open(&kvm, &err)) {
		fprintf(stderr, "SKIP %s: %s\n", __func__, err.text);
		return;
	}
	ck_assert_msg(!arch_cpu_model_host(&kvm, -1, 2, &host, &err), "%s",
		      err.text);
	for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
		ck_assert_msg(
			!arch_cpu_model_host(&kvm, -1, cpus[i], &model, &err),
			"%s", err.text);
		ck_assert_msg(!arch_cpu_model_check(&kvm, &host, &model, &err),
			      "%s", err.text);
	}
	ck_assert_int_eq(arch_cpu_model_host(&kvm, -1, 0, &model, &err),
			 -EINVAL);
	ck_assert_int_eq(
		arch_cpu_model_host(&kvm, -1, ARCH_CPUS_MAX + 1, &model, &err),
		-EINVAL);
	kvm_close(&kvm);
}
END_TEST

UNIT_SUITE("cpuid", what_a_host_makes_it_accepts,
	   features_whose_state_cannot_move_are_hidden,
	   what_a_virtual_machine_must_have_is_there,
	   the_highest_leaves_are_the_last_ones_left,
	   xsave_has_room_for_what_is_offered_and_no_more,
	   one_cpu_is_no_multiprocessor, intel_topology_is_one_socket_of_cores,
	   amd_topology_is_one_socket_of_cores, each_vcpu_has_its_own_apic_id,
	   a_missing_feature_is_named, hidden_and_unknown_features_are_refused,
	   another_vendor_is_refused_by_name, another_xsave_layout_is_refused,
	   wider_addresses_are_refused, malformed_models_are_refused,
	   every_byte_of_a_model_survives_the_wire,
	   tsc_rates_within_kvms_tolerance_are_one,
	   this_host_accepts_its_own_guests)
