// SPDX-License-Identifier: MIT
/*
 * Moves that are called off, refused, or done in another way than usual; and
 * guests that end, reboot or are paused while they are moved.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch/x86_64/layout.h"
#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"
#include "vmm/vm_internal.h"

#define RECORDS_MAX 1000

/* ---- called off ---- */

/* Granted is granted, and refused is refused: from COMMIT on. */
static void expect_called_off(const struct shuttle_trouble *trouble,
			      const struct rig_result *result)
{
	if (shuttle_was_cancelled(trouble, result))
		return;
	if (!trouble->made)
		ck_assert_int_eq(result->source_rc, 0);
	else if (trouble->kind == TROUBLE_CANCEL)
		ck_assert_msg(trouble->cancel_rc == -EPERM &&
				      !result->source_rc,
			      "not cancelled at record %u: %s", trouble->at,
			      result->source_error.text);
}

static void call_off_everywhere(enum shuttle_trouble_kind kind)
{
	unsigned int refused = 0;
	unsigned int stayed = 0;
	struct shuttle s;
	bool made = true;

	shuttle_start(&s);
	for (unsigned int at = 0; made && at < RECORDS_MAX; at++) {
		struct shuttle_trouble trouble = { .at = at, .kind = kind };
		struct rig_move move = rig_move_default;
		struct rig_result result;

		move.on_record = shuttle_make_trouble;
		move.opaque = &trouble;
		shuttle_move(&s, &move, &result);
		expect_called_off(&trouble, &result);
		made = trouble.made;
		refused += trouble.cancel_rc == -EPERM;
		stayed += !!result.source_rc;
		if (result.source_rc)
			shuttle_retry(&s);
	}
	ck_assert(!made);
	ck_assert_uint_gt(stayed, 20);
	ck_assert(kind == TROUBLE_GIVE_UP || refused);
	shuttle_end(&s);
}

START_TEST(the_source_may_cancel_at_any_record_before_COMMIT)
{
	call_off_everywhere(TROUBLE_CANCEL);
}
END_TEST

START_TEST(the_target_may_give_up_at_any_record)
{
	call_off_everywhere(TROUBLE_GIVE_UP);
}
END_TEST

START_TEST(a_target_that_refuses_says_why)
{
	struct shuttle s;

	shuttle_start(&s);
	shuttle_refuse(&s, rig_move_default);
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

START_TEST(what_does_not_get_done_in_time_is_given_up)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.params.max_downtime_ns = 1;
	move.params.timeout_ns = 1;
	shuttle_start(&s);
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(result.source_rc, -ETIME);
	move.params.on_timeout = SOURCE_TIMEOUT_PAUSE;
	shuttle_move(&s, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	shuttle_end(&s);
}
END_TEST

/* ---- done in another way ---- */

START_TEST(an_offline_move_copies_memory_once)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.params.offline = true;
	shuttle_start(&s);
	for (int i = 0; i < 4; i++) {
		shuttle_move(&s, &move, &result);
		ck_assert_msg(!result.source_rc, "%s",
			      result.source_error.text);
		ck_assert_uint_eq(result.report.nrounds, 0);
	}
	shuttle_end(&s);
}
END_TEST

/* The guest answers only when it is let go. */
static void expect_paused(struct rig_host *host)
{
	ck_assert_uint_eq(vm_holds(host->vm), VM_HOLD_USER);
	rig_type(host, "s");
	vm_release(host->vm, VM_HOLD_USER);
	rig_expect(host, "errors=0\n");
}

START_TEST(a_target_may_keep_the_guest_paused)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.paused = true;
	shuttle_start(&s);
	rig_move(s.here, s.there, &move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	expect_paused(s.there);
	rig_type(s.there, "q");
	rig_expect_exit(s.there, 0);
	rig_host_free(s.here);
	rig_host_free(s.there);
}
END_TEST

START_TEST(a_guest_that_its_user_paused_stays_paused)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	shuttle_start(&s);
	vm_hold(s.here->vm, VM_HOLD_USER);
	move.refuse = "not today";
	rig_move(s.here, s.there, &move, &result);
	ck_assert_int_ne(result.source_rc, 0);
	ck_assert_uint_eq(vm_holds(s.here->vm), VM_HOLD_USER);
	rig_move(s.here, s.there, &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	expect_paused(s.there);
	rig_host_free(s.here);
	rig_host_free(s.there);
}
END_TEST

/* ---- guests that end ---- */

/* What the guest asked for is noted, and the stalled loop acts on nothing. */
static void await_note(struct rig_host *host)
{
	uint32_t what;

	do {
		sched_yield();
		pthread_mutex_lock(&host->vm->note_lock);
		what = host->vm->wanted.what;
		pthread_mutex_unlock(&host->vm->note_lock);
	} while (!what);
}

/* Boot a guest whose last wish falls into the pause; move it. */
static void move_with_note(const struct rig_guest *guest, struct rig_host *a,
			   struct rig_host *b,
			   void (*wish)(struct rig_host *host))
{
	struct rig_result result;

	rig_stall(a);
	rig_boot(a, guest);
	if (wish)
		wish(a);
	await_note(a);
	rig_move(a, b, &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	rig_unstall(a);
	ck_assert(!rig_ended(a));
}

START_TEST(a_guest_that_exits_in_the_pause_exits_at_the_target)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();

	move_with_note(
		&(struct rig_guest){ .elf = "hello", .cmdline = "exit=77" }, a,
		b, NULL);
	rig_expect_exit(b, 77);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

/*
 * Instead of the instruction that it crashed at let the guest find a loop, or
 * it would crash at the target even if its crash here had been forgotten. It
 * is what `ud2` was, two bytes long.
 */
static void mend(struct rig_host *host)
{
	static const uint8_t loop[] = { 0xeb, 0xfe };
	int fd = vcpu_fd(vm_vcpu(host->vm, 0));
	struct kvm_translation where = { 0 };
	struct kvm_regs regs;
	uint8_t ud2[2];

	await_note(host);
	ck_assert(!ioctl(fd, KVM_GET_REGS, &regs));
	where.linear_address = regs.rip;
	ck_assert(!ioctl(fd, KVM_TRANSLATE, &where) && where.valid);
	ck_assert(!memory_read(host->vm->mem, where.physical_address, ud2,
			       sizeof(ud2)));
	ck_assert_uint_eq(ud2[0], 0x0f);
	ck_assert_uint_eq(ud2[1], 0x0b);
	ck_assert(!memory_write(host->vm->mem, where.physical_address, loop,
				sizeof(loop)));
}

START_TEST(a_guest_that_crashes_in_the_pause_crashes_at_the_target)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();

	move_with_note(&(struct rig_guest){ .elf = "crash", .cmdline = "" }, a,
		       b, mend);
	rig_expect_end(b, VM_EVENT_CRASHED);
	ck_assert_ptr_nonnull(strstr(b->why, "triple fault"));
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

/* As a guest that writes SLP_EN and SLP_TYP of S5. */
static void power_off(struct rig_host *host)
{
	uint16_t sleep = 1U << 13 | 5U << 10;

	ck_assert(bus_write(&host->vm->pio, PORT_PM1A_CONTROL, &sleep,
			    sizeof(sleep)));
}

START_TEST(a_guest_that_powers_off_in_the_pause_does_so_at_the_target)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();

	move_with_note(
		&(struct rig_guest){ .elf = "hello", .cmdline = "spin=yes" }, a,
		b, power_off);
	rig_expect_end(b, VM_EVENT_POWEROFF);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

static void reset(struct rig_host *host)
{
	uint8_t hard = RESET_HARD;

	ck_assert(bus_write(&host->vm->pio, PORT_RESET, &hard, sizeof(hard)));
}

START_TEST(a_guest_that_resets_in_the_pause_boots_at_the_target)
{
	struct rig_host *a = rig_host_new();
	struct rig_host *b = rig_host_new();

	move_with_note(&(struct rig_guest){ .elf = "dirty",
					    .cmdline = "pages=60 progress=0" },
		       a, b, reset);
	rig_expect_reset(b);
	ck_assert_uint_eq(a->resets, 0);
	rig_expect(b, "ready\n");
	rig_type(b, "q");
	rig_expect_exit(b, 0);
	rig_host_free(a);
	rig_host_free(b);
}
END_TEST

/* ---- while rounds go on ---- */

static bool reset_in_rounds(struct rig_moving *moving,
			    const struct relay_record *record, void *opaque)
{
	unsigned int *resets = opaque;

	if (record->type != WIRE_ROUND_END || !*resets)
		return false;
	--*resets;
	vm_request_reset(moving->from->vm);
	rig_expect_reset(moving->from);
	return false;
}

START_TEST(a_guest_that_resets_in_the_rounds_moves_as_it_boots)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	unsigned int resets;
	struct shuttle s;

	move.on_record = reset_in_rounds;
	move.opaque = &resets;
	shuttle_start(&s);
	for (int i = 0; i < 5; i++) {
		struct rig_host *old = s.here;

		resets = 2;
		rig_move(s.here, s.there, &move, &result);
		ck_assert_msg(!result.source_rc, "%s",
			      result.source_error.text);
		s.here = s.there;
		s.there = old;
		rig_expect(s.here, "ready\n");
	}
	shuttle_end(&s);
}
END_TEST

/* ---- with a disk, and requests in flight ---- */

#define RESETS 5

static void start_writing(struct shuttle *s, char image[RIG_PATH_MAX])
{
	s->here = rig_host_new();
	s->there = rig_host_new();
	rig_image_create(image, MIB);
	rig_give_disk(s->here, image, 1);
	rig_give_disk(s->there, image, 1);
	rig_boot(s->here,
		 &(struct rig_guest){ .elf = "blk",
				      .cmdline = "depth=32 rate=5000" });
	rig_expect(s->here, "ready\n");
}

/* It has found all that it wrote before, and goes on. */
static void expect_boot(struct shuttle *s, unsigned int number)
{
	char text[32];

	snprintf(text, sizeof(text), "blk: boot=%u ", number);
	rig_expect(s->here, text);
	rig_expect(s->here, "ready\n");
}

static void end_writing(struct shuttle *s, const char *image)
{
	shuttle_end(s);
	rig_image_remove(image);
}

static void move_over(struct shuttle *s, const struct rig_move *move)
{
	struct rig_host *old = s->here;
	struct rig_result result;

	rig_move(s->here, s->there, move, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	s->here = s->there;
	s->there = old;
}

START_TEST(a_guest_with_a_busy_disk_that_resets_in_the_pause_finds_it_whole)
{
	char image[RIG_PATH_MAX];
	struct shuttle s;

	start_writing(&s, image);
	for (unsigned int i = 0; i < RESETS; i++) {
		rig_stall(s.here);
		reset(s.here);
		await_note(s.here);
		move_over(&s, &rig_move_default);
		rig_unstall(s.there);
		rig_expect_reset(s.here);
		expect_boot(&s, i + 2);
	}
	end_writing(&s, image);
}
END_TEST

START_TEST(a_guest_with_a_busy_disk_that_resets_in_the_rounds_finds_it_whole)
{
	struct rig_move move = rig_move_default;
	char image[RIG_PATH_MAX];
	unsigned int resets;
	struct shuttle s;

	move.on_record = reset_in_rounds;
	move.opaque = &resets;
	start_writing(&s, image);
	for (unsigned int i = 0; i < RESETS; i++) {
		resets = 1;
		move_over(&s, &move);
		expect_boot(&s, i + 2);
	}
	end_writing(&s, image);
}
END_TEST

static bool exit_in_rounds(struct rig_moving *moving,
			   const struct relay_record *record, void *opaque)
{
	(void)opaque;
	if (record->type != WIRE_ROUND)
		return false;
	if (!rig_ended(moving->from))
		rig_type(moving->from, "q");
	rig_expect_exit(moving->from, 0);
	return false;
}

START_TEST(a_guest_that_exits_in_the_rounds_is_not_moved)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	move.on_record = exit_in_rounds;
	shuttle_start(&s);
	rig_move(s.here, s.there, &move, &result);
	ck_assert_int_eq(result.source_rc, -ESHUTDOWN);
	ck_assert(!rig_ended(s.there));
	rig_host_free(s.here);
	rig_host_free(s.there);
}
END_TEST

UNIT_SUITE("endings", the_source_may_cancel_at_any_record_before_COMMIT,
	   the_target_may_give_up_at_any_record, a_target_that_refuses_says_why,
	   what_does_not_get_done_in_time_is_given_up,
	   an_offline_move_copies_memory_once,
	   a_target_may_keep_the_guest_paused,
	   a_guest_that_its_user_paused_stays_paused,
	   a_guest_that_exits_in_the_pause_exits_at_the_target,
	   a_guest_that_crashes_in_the_pause_crashes_at_the_target,
	   a_guest_that_powers_off_in_the_pause_does_so_at_the_target,
	   a_guest_that_resets_in_the_pause_boots_at_the_target,
	   a_guest_that_resets_in_the_rounds_moves_as_it_boots,
	   a_guest_with_a_busy_disk_that_resets_in_the_pause_finds_it_whole,
	   a_guest_with_a_busy_disk_that_resets_in_the_rounds_finds_it_whole,
	   a_guest_that_exits_in_the_rounds_is_not_moved)
