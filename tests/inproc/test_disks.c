// SPDX-License-Identifier: MIT
/*
 * A disk goes with its guest: its locks pass from host to host without a gap,
 * whatever breaks, and a disk that can't be shared is refused.
 *
 * The disk is a holder's (holder.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/disk.h"
#include "tests/inproc/fault.h"
#include "tests/inproc/holder.h"
#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"

#define SIZE	    (1 << 20)
#define PATIENCE    (60 * NS_PER_S)
#define RECORDS_MAX 1000

/* ---- two hosts and an image ---- */

struct scene {
	struct shuttle s;
	char dir[32];
	char image[64];
};

static void make_image(const char *path, off_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static void scene_begin(struct scene *scene)
{
	struct shuttle *s = &scene->s;

	strcpy(scene->dir, "/tmp/godwit-locks-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(scene->dir));
	snprintf(scene->image, sizeof(scene->image), "%s/disk.img", scene->dir);
	make_image(scene->image, SIZE);
	s->here = rig_host_new();
	s->there = rig_host_new();
	rig_give_disk(s->here, scene->image, 1);
	rig_give_disk(s->there, scene->image, 1);
	rig_boot(s->here, &(struct rig_guest){
				  .elf = "dirty",
				  .cmdline = "pages=60 rate=4 progress=0" });
	rig_expect(s->here, "ready\n");
}

static void scene_end(struct scene *scene)
{
	char command[64];

	shuttle_end(&scene->s);
	snprintf(command, sizeof(command), "rm -r %s", scene->dir);
	ck_assert_int_eq(system(command), 0);
}

static struct disk *open_stranger(const char *path)
{
	struct disk_params params = { .id = "x", .path = path, .fd = -1 };
	struct disk *disk;
	struct error err;

	ck_assert_msg(!disk_open(&params, &disk, &err), "%s", err.text);
	return disk;
}

static bool stranger_gets_it(const char *path)
{
	struct disk *disk = open_stranger(path);
	struct error err;
	bool got = !disk_lock(disk, &err);

	disk_close(disk);
	return got;
}

/* Who has the guest comes to both locks, and nobody else to any. */
static void expect_locks(struct scene *scene)
{
	uint64_t deadline = clock_ns() + PATIENCE;
	bool owner = false, writer = false;

	ck_assert(!stranger_gets_it(scene->image));
	while (!owner || !writer) {
		ck_assert_msg(clock_ns() < deadline, "owner %d, writer %d",
			      owner, writer);
		sched_yield();
		holder_holds(scene->s.here, &owner, &writer);
	}
	ck_assert(!stranger_gets_it(scene->image));
}

static void retry(struct scene *scene)
{
	shuttle_retry(&scene->s);
	expect_locks(scene);
}

/* An attempt that fails, is explained, and leaves everything as it was. */
static void fails(struct scene *scene, const struct rig_move *move,
		  const char *text)
{
	struct rig_result result;

	shuttle_move(&scene->s, move, &result);
	ck_assert_int_ne(result.source_rc, 0);
	ck_assert_msg(strstr(result.source_error.text, text),
		      "'%s' does not say '%s'", result.source_error.text, text);
	expect_locks(scene);
}

/* ---- a third VM ---- */

struct intruder {
	const char *path;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint tries;
	atomic_uint steps; /* when OWNER was free */
	atomic_uint won;
};

static void *intrude(void *opaque)
{
	struct intruder *intruder = opaque;
	struct disk *disk = open_stranger(intruder->path);
	struct error err;

	while (!intruder->stop) {
		intruder->tries++;
		/* Of the two steps of disk_lock() the first is cheap to try. */
		if (disk_take_owner(disk, &err))
			continue;
		intruder->steps++;
		if (!disk_lock(disk, &err))
			intruder->won++;
	}
	disk_close(disk);
	return NULL;
}

static unsigned int how_many(const char *variable, unsigned int otherwise)
{
	const char *value = getenv(variable);

	return value ? (unsigned int)strtoul(value, NULL, 10) : otherwise;
}

START_TEST(a_third_vm_that_tries_at_every_moment_never_gets_a_disk)
{
	unsigned int moves = how_many("GODWIT_MOVES", 100);
	struct intruder intruder = { 0 };
	struct rig_result result;
	struct scene scene;

	scene_begin(&scene);
	intruder.path = scene.image;
	ck_assert(!pthread_create(&intruder.thread, NULL, intrude, &intruder));
	for (unsigned int i = 0; i < MIN(moves, 1000U); i++) {
		shuttle_move(&scene.s, &rig_move_default, &result);
		ck_assert_msg(!result.source_rc, "move %u: %s", i,
			      result.source_error.text);
	}
	expect_locks(&scene);
	intruder.stop = true;
	pthread_join(intruder.thread, NULL);
	ck_assert_uint_eq(intruder.won, 0);
	ck_assert_uint_ge(intruder.tries, moves);
	scene_end(&scene);
}
END_TEST

/* ---- cuts ---- */

static void cut_everywhere(bool from_target, unsigned int torn)
{
	struct scene scene;
	unsigned int after;
	bool cut = true;

	scene_begin(&scene);
	for (after = 0; cut && after < RECORDS_MAX; after++) {
		struct rig_move move = rig_move_default;
		struct rig_result result;

		move.cut = (struct relay_cut){ .enabled = true,
					       .from_target = from_target,
					       .after = after,
					       .torn = torn };
		shuttle_move(&scene.s, &move, &result);
		expect_locks(&scene);
		cut = (from_target ? result.from_target : result.from_source) ==
		      after;
		if (result.source_rc)
			retry(&scene);
	}
	ck_assert_uint_gt(after, from_target ? 6 : 20);
	ck_assert_uint_lt(after, RECORDS_MAX);
	scene_end(&scene);
}

START_TEST(locks_are_with_the_guest_after_a_cut_at_any_record_of_the_source)
{
	cut_everywhere(false, 0);
}
END_TEST

START_TEST(locks_are_with_the_guest_after_a_cut_at_any_record_of_the_target)
{
	cut_everywhere(true, 0);
}
END_TEST

/* ---- refusals ---- */

START_TEST(a_copy_that_is_not_shared_is_refused)
{
	struct scene scene;
	char copy[64];

	scene_begin(&scene);
	snprintf(copy, sizeof(copy), "%s/copy.img", scene.dir);
	make_image(copy, SIZE);
	rig_give_disk(scene.s.there, copy, 1);
	fails(&scene, &rig_move_default, "it is another disk, or a copy");
	ck_assert(stranger_gets_it(copy));
	rig_give_disk(scene.s.there, scene.image, 1);
	retry(&scene);
	scene_end(&scene);
}
END_TEST

START_TEST(a_disk_that_has_grown_is_refused_with_both_sizes)
{
	struct scene scene;

	scene_begin(&scene);
	ck_assert_int_eq(truncate(scene.image, 2 * SIZE), 0);
	fails(&scene, &rig_move_default, "2097152 bytes here");
	ck_assert_int_eq(truncate(scene.image, SIZE), 0);
	retry(&scene);
	scene_end(&scene);
}
END_TEST

START_TEST(a_disk_root_finds_a_file_and_follows_no_link)
{
	struct disks_options in_root = { .nroots = 1 };
	struct scene scene;
	char root[64], link[96];

	scene_begin(&scene);
	snprintf(root, sizeof(root), "%s/root", scene.dir);
	ck_assert_int_eq(mkdir(root, 0700), 0);
	snprintf(link, sizeof(link), "%s/disk.img", root);
	ck_assert_int_eq(symlink(scene.image, link), 0);
	in_root.roots[0] = root;
	scene.s.there->images = in_root;
	fails(&scene, &rig_move_default, "is a link");
	in_root.roots[0] = scene.dir;
	scene.s.there->images = in_root;
	retry(&scene);
	scene_end(&scene);
}
END_TEST

START_TEST(a_listener_without_the_disk_says_how_to_have_it)
{
	struct scene scene;

	scene_begin(&scene);
	strcpy(scene.s.there->images.disks[0].id, "other");
	fails(&scene, &rig_move_default, "--disk disk0=PATH");
	rig_give_disk(scene.s.there, scene.image, 1);
	retry(&scene);
	scene_end(&scene);
}
END_TEST

/* ---- faults ---- */

static void step_fails(enum device_handover step)
{
	struct scene scene;

	scene_begin(&scene);
	holder_fault.armed = true;
	holder_fault.step = step;
	fails(&scene, &rig_move_default, "a fault of this test");
	holder_fault.armed = false;
	retry(&scene);
	scene_end(&scene);
}

START_TEST(a_disk_that_can_not_be_proven_ours_is_not_moved)
{
	step_fails(DEVICE_PROVE);
}
END_TEST

START_TEST(a_disk_that_can_not_be_flushed_keeps_its_guest)
{
	step_fails(DEVICE_YIELD);
}
END_TEST

START_TEST(a_target_that_can_not_write_never_says_LOADED)
{
	step_fails(DEVICE_TAKE);
}
END_TEST

static bool is_of_disks(const struct fault_kind *kind)
{
	return !strcmp(kind->name, "fcntl") ||
	       !strcmp(kind->name, "fdatasync") ||
	       !strcmp(kind->name, "posix_fadvise");
}

/* Each lock, each flush and each drop of a cache fails once, on one side. */
static unsigned int fail_calls(struct scene *scene, bool target,
			       const struct fault_kind *kind)
{
	struct rig_result result;
	unsigned int nth = 0;
	bool fired = true;

	for (; fired; nth++) {
		struct shuttle *s = &scene->s;

		fault_arm(target ? s->there : s->here, kind, nth, 0);
		shuttle_move(s, &rig_move_default, &result);
		fired = fault_disarm(NULL);
		expect_locks(scene);
		if (result.source_rc)
			retry(scene);
	}
	return nth - 1;
}

static unsigned int fail_side(bool target)
{
	struct fault_census *census = calloc(1, sizeof(*census));
	unsigned int failed = 0;
	struct scene scene;

	scene_begin(&scene);
	fault_count(target ? scene.s.there : scene.s.here);
	retry(&scene);
	fault_disarm(census);
	for (unsigned int i = 0; i < census->nkinds; i++) {
		if (is_of_disks(&census->kinds[i]))
			failed += fail_calls(&scene, target, &census->kinds[i]);
	}
	scene_end(&scene);
	free(census);
	return failed;
}

START_TEST(any_lock_or_flush_of_the_source_may_fail)
{
	/* OWNER and WRITER again, PROOF, and the flush. */
	ck_assert_uint_ge(fail_side(false), 4);
}
END_TEST

START_TEST(any_lock_of_the_target_may_fail)
{
	/* OWNER, PROOF, what is behind it, WRITER, OWNER. */
	ck_assert_uint_ge(fail_side(true), 5);
}
END_TEST

/* Let go of all locks on the image that this process has, behind their back. */
static void lose_locks(const char *image)
{
	struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	struct stat wanted, stat;

	ck_assert(!lstat(image, &wanted));
	for (int fd = 3; fd < 1024; fd++) {
		if (!fstat(fd, &stat) && stat.st_ino == wanted.st_ino &&
		    stat.st_dev == wanted.st_dev)
			ck_assert(!fcntl(fd, F_OFD_SETLK, &all));
	}
}

START_TEST(a_guest_whose_lock_was_lost_to_another_vm_is_not_moved)
{
	struct rig_result result;
	struct scene scene;
	struct disk *thief;
	struct error err;

	scene_begin(&scene);
	lose_locks(scene.image);
	thief = open_stranger(scene.image);
	ck_assert(!disk_lock(thief, &err));
	shuttle_move(&scene.s, &rig_move_default, &result);
	ck_assert_int_ne(result.source_rc, 0);
	ck_assert_msg(strstr(result.source_error.text, "lock was lost"), "%s",
		      result.source_error.text);
	disk_close(thief);
	scene_end(&scene);
}
END_TEST

/* ---- pausing ---- */

/* Until its user holds the guest; then he lets it go on. */
static void let_go_on(struct rig_host *host)
{
	uint64_t deadline = clock_ns() + PATIENCE;

	while (!(vm_holds(host->vm) & VM_HOLD_USER)) {
		ck_assert_msg(clock_ns() < deadline, "it is not paused");
		sched_yield();
	}
	vm_release(host->vm, VM_HOLD_USER);
}

START_TEST(a_disk_that_can_not_write_may_have_the_guest_paused)
{
	struct rig_result result;
	struct scene scene;

	scene_begin(&scene);
	holder_ask_for_stop(scene.s.here);
	let_go_on(scene.s.here);
	retry(&scene);
	/* Asked for, and not heard before the guest goes. */
	rig_stall(scene.s.here);
	holder_ask_for_stop(scene.s.here);
	rig_move(scene.s.here, scene.s.there, &rig_move_default, &result);
	ck_assert_msg(!result.source_rc, "%s", result.source_error.text);
	rig_unstall(scene.s.here);
	scene.s = (struct shuttle){ .here = scene.s.there,
				    .there = scene.s.here };
	let_go_on(scene.s.here);
	retry(&scene);
	scene_end(&scene);
}
END_TEST

/* ---- flushing ahead ---- */

static void cancel_it(struct rig_moving *moving, void *opaque __maybe_unused)
{
	rig_await_status(moving, STATUS_ACTIVE);
	ck_assert(!source_cancel(moving->source));
}

START_TEST(a_flush_that_never_ends_holds_up_no_cancel)
{
	struct rig_move move = rig_move_default;
	struct scene scene;

	move.meanwhile = cancel_it;
	scene_begin(&scene);
	holder_fault.never_settles = true;
	fails(&scene, &move, "cancelled");
	holder_fault.never_settles = false;
	retry(&scene);
	scene_end(&scene);
}
END_TEST

START_TEST(a_flush_that_never_ends_is_given_up_at_the_timeout)
{
	struct rig_move move = rig_move_default;
	struct scene scene;

	move.params.timeout_ns = 100 * NS_PER_MS;
	scene_begin(&scene);
	holder_fault.never_settles = true;
	fails(&scene, &move, "timeout");
	move.params.on_timeout = SOURCE_TIMEOUT_PAUSE;
	move.params.abort_after_ns = 0;
	shuttle_retry_with(&scene.s, &move);
	expect_locks(&scene);
	move.params = rig_move_default.params;
	move.params.offline = true;
	shuttle_retry_with(&scene.s, &move);
	expect_locks(&scene);
	holder_fault.never_settles = false;
	scene_end(&scene);
}
END_TEST

UNIT_SUITE("disks", a_third_vm_that_tries_at_every_moment_never_gets_a_disk,
	   locks_are_with_the_guest_after_a_cut_at_any_record_of_the_source,
	   locks_are_with_the_guest_after_a_cut_at_any_record_of_the_target,
	   a_copy_that_is_not_shared_is_refused,
	   a_disk_that_has_grown_is_refused_with_both_sizes,
	   a_disk_root_finds_a_file_and_follows_no_link,
	   a_listener_without_the_disk_says_how_to_have_it,
	   a_disk_that_can_not_be_proven_ours_is_not_moved,
	   a_disk_that_can_not_be_flushed_keeps_its_guest,
	   a_target_that_can_not_write_never_says_LOADED,
	   any_lock_or_flush_of_the_source_may_fail,
	   any_lock_of_the_target_may_fail,
	   a_guest_whose_lock_was_lost_to_another_vm_is_not_moved,
	   a_disk_that_can_not_write_may_have_the_guest_paused,
	   a_flush_that_never_ends_holds_up_no_cancel,
	   a_flush_that_never_ends_is_given_up_at_the_timeout)
