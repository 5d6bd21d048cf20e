// SPDX-License-Identifier: MIT
/*
 * MSI-X: messages as the guest composes them, what masks hold back, and what
 * the table takes.
 */
#include <errno.h>

#include "devices/msix.h"
#include "tests/unit/device_rig.h"

#define ADDRESS 0xfee00000ULL

/* @n vectors, enabled, each unmasked with a message of its own. */
static struct device_rig *msix_new(struct msix *msix, unsigned int n)
{
	struct device_rig *rig = rig_new();

	msix_init(msix, &rig->irq, n);
	for (unsigned int i = 0; i < n; i++) {
		const uint64_t entry[] = { ADDRESS + i * 0x1000, 0x40 + i };

		msix_write(msix, i * 16, &entry[0], 8);
		msix_write(msix, i * 16 + 8, &entry[1], 8);
	}
	msix_set_control(msix, MSIX_CONTROL_ENABLE);
	return rig;
}

static void msix_free(struct device_rig *rig, struct msix *msix)
{
	msix_fini(msix);
	rig_free(rig);
}

static uint32_t read32(struct msix *msix, uint64_t offset)
{
	uint32_t value = 0;

	msix_read(msix, offset, &value, sizeof(value));
	return value;
}

static uint64_t read64(struct msix *msix, uint64_t offset)
{
	uint64_t value = 0;

	msix_read(msix, offset, &value, sizeof(value));
	return value;
}

static void write32(struct msix *msix, uint64_t offset, uint32_t value)
{
	msix_write(msix, offset, &value, sizeof(value));
}

static void mask(struct msix *msix, unsigned int vector, bool masked)
{
	write32(msix, vector * 16 + 12, masked);
}

START_TEST(msix_sends_the_message_that_the_guest_composed)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, DEVICE_VECTORS_MAX);

	for (unsigned int i = 0; i < DEVICE_VECTORS_MAX; i++)
		ck_assert(msix_raise(&msix, i));
	ck_assert_uint_eq(rig->nmsis, DEVICE_VECTORS_MAX);
	for (unsigned int i = 0; i < DEVICE_VECTORS_MAX; i++) {
		ck_assert_uint_eq(rig->msis[i].address, ADDRESS + i * 0x1000);
		ck_assert_uint_eq(rig->msis[i].data, 0x40 + i);
	}
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_is_disabled_and_masked_at_power_on_and_after_a_reset)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 3);

	mask(&msix, 1, true);
	msix_raise(&msix, 1);
	msix_reset(&msix);
	ck_assert_uint_eq(msix_control(&msix), 2);
	ck_assert(!msix_enabled(&msix));
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0);
	for (unsigned int i = 0; i < 3; i++) {
		ck_assert_uint_eq(read64(&msix, i * 16), 0);
		ck_assert_uint_eq(read64(&msix, i * 16 + 8), 1ULL << 32);
	}
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_that_is_disabled_leaves_it_to_the_line)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 2);

	msix_set_control(&msix, 0);
	ck_assert(!msix_raise(&msix, 0));
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0);
	msix_set_control(&msix, MSIX_CONTROL_ENABLE);
	ck_assert_uint_eq(rig->nmsis, 0);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_vector_that_is_masked_waits_and_is_sent_once)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, DEVICE_VECTORS_MAX);

	mask(&msix, 31, true);
	mask(&msix, 7, true);
	ck_assert(msix_raise(&msix, 31));
	ck_assert(msix_raise(&msix, 31));
	ck_assert(msix_raise(&msix, 7));
	ck_assert_uint_eq(rig->nmsis, 0);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0x80000080);
	mask(&msix, 31, false);
	ck_assert_uint_eq(rig->nmsis, 1);
	ck_assert_uint_eq(rig->msis[0].data, 0x40 + 31);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0x80);
	/* It is sent as it is composed when the mask goes. */
	write32(&msix, 7 * 16 + 8, 0x99);
	ck_assert_uint_eq(rig->nmsis, 1);
	mask(&msix, 7, false);
	ck_assert_uint_eq(rig->nmsis, 2);
	ck_assert_uint_eq(rig->msis[1].data, 0x99);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_function_mask_holds_every_vector_back)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 4);

	msix_set_control(&msix, MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK);
	mask(&msix, 2, true);
	for (unsigned int i = 0; i < 4; i++)
		ck_assert(msix_raise(&msix, i));
	mask(&msix, 1, true);
	mask(&msix, 1, false);
	ck_assert_uint_eq(rig->nmsis, 0);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0xf);
	msix_set_control(&msix, MSIX_CONTROL_ENABLE);
	ck_assert_uint_eq(rig->nmsis, 3);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0x4);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_forgets_what_is_pending_when_it_is_disabled)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 2);

	mask(&msix, 0, true);
	msix_raise(&msix, 0);
	msix_set_control(&msix, MSIX_CONTROL_MASK);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0);
	msix_set_control(&msix, MSIX_CONTROL_ENABLE);
	mask(&msix, 0, false);
	ck_assert_uint_eq(rig->nmsis, 0);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_vector_that_there_is_not_is_ignored)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 2);

	ck_assert(msix_raise(&msix, 2));
	ck_assert(msix_raise(&msix, 32));
	ck_assert(msix_raise(&msix, 0xffff));
	ck_assert_uint_eq(rig->nmsis, 0);
	ck_assert_uint_eq(read32(&msix, MSIX_PENDING_OFFSET), 0);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_table_keeps_what_is_written_where_there_is_an_entry)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 2);

	/* Dwords and qwords; the low two bits of an address are 0. */
	write32(&msix, 16, 0xfee01007);
	write32(&msix, 20, 0x12345678);
	ck_assert_uint_eq(read64(&msix, 16), 0x12345678fee01004);
	ck_assert_uint_eq(read32(&msix, 20), 0x12345678);
	/* Of the control word one bit is kept. */
	write32(&msix, 28, 0xffffffff);
	ck_assert_uint_eq(read32(&msix, 28), 1);
	ck_assert_uint_eq(read64(&msix, 24), 1ULL << 32 | 0x41);
	/* Past the last entry and in the pending bits nothing is. */
	for (uint64_t at = 32; at < MSIX_BAR_SIZE; at += 4) {
		write32(&msix, at, 0xffffffff);
		ck_assert_uint_eq(read32(&msix, at), 0);
	}
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_takes_only_whole_and_aligned_accesses)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, 2);
	const uint64_t ones = ~0ULL;
	uint64_t value;

	for (unsigned int size = 1; size <= 8; size++) {
		for (uint64_t at = 0; at < 16; at++) {
			if ((size == 4 || size == 8) && at % size == 0)
				continue;
			msix_write(&msix, at, &ones, size);
			value = 0;
			msix_read(&msix, at, &value, size);
			ck_assert_uint_eq(value, 0);
		}
	}
	ck_assert_uint_eq(read64(&msix, 0), ADDRESS);
	ck_assert_uint_eq(read64(&msix, 8), 0x40);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_control_has_the_table_size_and_two_bits_to_set)
{
	struct msix msix;
	struct device_rig *rig = msix_new(&msix, DEVICE_VECTORS_MAX);

	ck_assert_uint_eq(msix_control(&msix), 0x801f);
	msix_set_control(&msix, 0xffff);
	ck_assert_uint_eq(msix_control(&msix), 0xc01f);
	msix_set_control(&msix, 0);
	ck_assert_uint_eq(msix_control(&msix), 0x001f);
	msix_free(rig, &msix);
}
END_TEST

START_TEST(msix_moves_with_its_masks_and_what_waits_behind_them)
{
	struct msix msix, there;
	struct device_rig *rig = msix_new(&msix, 2);
	struct device_rig *target = rig_new();
	struct msix_state state;
	struct error err = { "" };

	mask(&msix, 1, true);
	msix_raise(&msix, 1);
	msix_snapshot(&msix, &state);
	msix_init(&there, &target->irq, 2);
	ck_assert_msg(!msix_check(&there, &state, &err), "%s", err.text);
	msix_commit(&there, &state);
	ck_assert_uint_eq(target->nmsis, 0);
	ck_assert_uint_eq(msix_control(&there), msix_control(&msix));
	mask(&there, 1, false);
	ck_assert_uint_eq(target->nmsis, 1);
	ck_assert_uint_eq(target->msis[0].address, ADDRESS + 0x1000);
	ck_assert_uint_eq(target->msis[0].data, 0x41);
	msix_fini(&there);
	rig_free(target);
	msix_free(rig, &msix);
}
END_TEST

static void refuses(const struct msix *msix, const struct msix_state *state,
		    const char *why)
{
	struct error err = { "" };

	ck_assert_int_eq(msix_check(msix, state, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, why), "%s", err.text);
}

START_TEST(msix_refuses_states_that_no_guest_can_reach)
{
	struct msix msix, none = { 0 };
	struct device_rig *rig = msix_new(&msix, 2);
	const struct msix_state good = {
		.nvectors = 2,
		.control = MSIX_CONTROL_ENABLE,
		.pending = 1,
		.entries[0].control = MSIX_ENTRY_MASKED,
	};
	struct msix_state s = good;
	struct error err;

	ck_assert_int_eq(msix_check(&msix, &good, &err), 0);
#define REFUSES(why, field, value)       \
	do {                             \
		s = good;                \
		s.field = value;         \
		refuses(&msix, &s, why); \
	} while (0)
	REFUSES("vectors 1", nvectors, 1);
	REFUSES("vectors 3", nvectors, 3);
	REFUSES("control 0xa000", control, 0xa000);
	REFUSES("control 0x8001", control, 0x8001);
	REFUSES("pending 0x4", pending, 0x4);
	REFUSES("pending 0x1, but", control, 0);
	REFUSES("pending 0x3: vector 1", pending, 0x3);
	REFUSES("vector 0: control 0x2", entries[0].control, 2);
	REFUSES("vector 1: address 0x1002", entries[1].address, 0x1002);
#undef REFUSES
	/* Held back by the function's mask, anything may wait. */
	s = good;
	s.control |= MSIX_CONTROL_MASK;
	s.pending = 3;
	ck_assert_int_eq(msix_check(&msix, &s, &err), 0);
	/* A device without vectors has only the empty state. */
	s = (struct msix_state){ 0 };
	ck_assert_int_eq(msix_check(&none, &s, &err), 0);
	s.control = MSIX_CONTROL_MASK;
	refuses(&none, &s, "control 0x4000");
	refuses(&none, &good, "vectors 2");
	msix_free(rig, &msix);
}
END_TEST

UNIT_SUITE("msix", msix_sends_the_message_that_the_guest_composed,
	   msix_is_disabled_and_masked_at_power_on_and_after_a_reset,
	   msix_that_is_disabled_leaves_it_to_the_line,
	   msix_vector_that_is_masked_waits_and_is_sent_once,
	   msix_function_mask_holds_every_vector_back,
	   msix_forgets_what_is_pending_when_it_is_disabled,
	   msix_vector_that_there_is_not_is_ignored,
	   msix_table_keeps_what_is_written_where_there_is_an_entry,
	   msix_takes_only_whole_and_aligned_accesses,
	   msix_control_has_the_table_size_and_two_bits_to_set,
	   msix_moves_with_its_masks_and_what_waits_behind_them,
	   msix_refuses_states_that_no_guest_can_reach)
