// SPDX-License-Identifier: MIT
/*
 * Who opens which image: what a listener gives to a guest that comes, and what
 * it refuses, with real files and real locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/backend/disk.h"
#include "tests/unit/unit.h"
#include "vmm/disks.h"
#include "vmm/siphash.h"

#define SIZE 65536

static const uint8_t session[WIRE_SESSION_SIZE] = "a session of ou";

/* No test needs a device to be there: a file is taken for one. */
static bool as_block_device;
static bool as_direct;

bool __wrap_disk_is_block_device(const struct disk *disk);
bool __wrap_disk_direct(const struct disk *disk);

bool __wrap_disk_is_block_device(const struct disk *disk __maybe_unused)
{
	return as_block_device;
}

bool __wrap_disk_direct(const struct disk *disk __maybe_unused)
{
	return as_direct;
}

/* A directory with an image that a source has, and a listener's disks. */
struct rig {
	char dir[32];
	char image[64];
	struct disk *source;
	struct disks_options options;
	struct disks *disks;
	struct wire_config config;
	struct error err;
};

static void make_file(const char *path, off_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static struct disk *open_image(const char *path, bool readonly)
{
	struct disk_params params = {
		.id = "disk0", .path = path, .fd = -1, .readonly = readonly
	};
	struct disk *disk;
	struct error err;

	ck_assert_msg(!disk_open(&params, &disk, &err), "%s", err.text);
	return disk;
}

/* The source: it runs, and is about to send CONFIG. */
static struct rig *setup(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	ck_assert_ptr_nonnull(rig);
	strcpy(rig->dir, "/tmp/godwit-disks-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(rig->dir));
	snprintf(rig->image, sizeof(rig->image), "%s/disk.img", rig->dir);
	make_file(rig->image, SIZE);
	rig->source = open_image(rig->image, false);
	ck_assert(!disk_lock(rig->source, &rig->err));
	ck_assert(!disk_prove(rig->source, session, &rig->err));
	return rig;
}

static void teardown(struct rig *rig)
{
	char command[64];

	disks_free(rig->disks);
	disk_close(rig->source);
	snprintf(command, sizeof(command), "rm -r %s", rig->dir);
	ck_assert_int_eq(system(command), 0);
	free(rig);
}

static void name_disk(struct rig *rig, const char *path, bool direct)
{
	struct disk_options *disk = &rig->options.disks[rig->options.count++];

	strcpy(disk->id, "disk0");
	snprintf(disk->path, sizeof(disk->path), "%s", path);
	disk->direct = direct;
}

static void listen_for(struct rig *rig)
{
	ck_assert_msg(!disks_open(&rig->options, true, &rig->disks, &rig->err),
		      "%s", rig->err.text);
	disks_offer(rig->disks, &rig->config, session);
}

static int give(struct rig *rig, const char *name, uint64_t size, bool readonly,
		struct disk **ret)
{
	const struct device_backends *backends = disks_backends(rig->disks);

	rig->err.text[0] = '\0';
	return backends->open_disk(backends->opaque, "disk0", name, size,
				   readonly, ret, &rig->err);
}

static void given(struct rig *rig, const char *name)
{
	struct disk *disk;

	ck_assert_msg(!give(rig, name, SIZE, false, &disk), "%s",
		      rig->err.text);
	ck_assert_uint_eq(disk_size(disk), SIZE);
	disk_close(disk);
}

static void refused(struct rig *rig, const char *name, uint64_t size,
		    const char *text)
{
	struct disk *disk;

	ck_assert_int_lt(give(rig, name, size, false, &disk), 0);
	ck_assert_msg(strstr(rig->err.text, text), "'%s' does not say '%s'",
		      rig->err.text, text);
}

START_TEST(a_listener_gives_the_disk_that_its_command_line_names)
{
	struct rig *rig = setup();

	name_disk(rig, rig->image, false);
	listen_for(rig);
	/* Whatever the stream calls it. */
	given(rig, "/etc/passwd");
	given(rig, "");
	teardown(rig);
}
END_TEST

START_TEST(a_disk_that_no_command_line_names_is_refused_with_the_remedy)
{
	struct rig *rig = setup();

	listen_for(rig);
	refused(rig, "root.img", SIZE, "--disk disk0=PATH");
	refused(rig, "root.img", SIZE, "'root.img'");
	refused(rig, "", SIZE, "--disk disk0=PATH");
	teardown(rig);
}
END_TEST

START_TEST(a_name_is_looked_up_below_the_roots)
{
	struct rig *rig = setup();
	char other[64];

	snprintf(other, sizeof(other), "%s/empty", rig->dir);
	ck_assert_int_eq(mkdir(other, 0700), 0);
	rig->options.nroots = 2;
	rig->options.roots[0] = other;
	rig->options.roots[1] = rig->dir;
	listen_for(rig);
	given(rig, "disk.img");
	refused(rig, "other.img", SIZE, "no file 'other.img' in --disk-root");
	refused(rig, "empty", SIZE, "directory");
	teardown(rig);
}
END_TEST

START_TEST(what_was_found_below_a_root_is_told_by_its_whole_path)
{
	struct rig *rig = setup();
	struct disks_info info;

	ck_assert_int_eq(chdir(rig->dir), 0);
	rig->options.nroots = 1;
	rig->options.roots[0] = ".";
	listen_for(rig);
	given(rig, "disk.img");
	ck_assert(disks_look(rig->disks, "disk0", &info));
	ck_assert_str_eq(info.path, rig->image);
	ck_assert_int_eq(chdir("/"), 0);
	teardown(rig);
}
END_TEST

START_TEST(no_name_leads_out_of_a_root)
{
	struct rig *rig = setup();
	char root[64], path[96], up[64];

	snprintf(root, sizeof(root), "%s/root", rig->dir);
	ck_assert_int_eq(mkdir(root, 0700), 0);
	snprintf(path, sizeof(path), "%s/link", root);
	ck_assert_int_eq(symlink(rig->image, path), 0);
	snprintf(path, sizeof(path), "%s/near", root);
	ck_assert_int_eq(symlink("link", path), 0);
	snprintf(path, sizeof(path), "%s/pipe", root);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	rig->options.nroots = 1;
	rig->options.roots[0] = root;
	listen_for(rig);
	refused(rig, "link", SIZE, "is a link");
	refused(rig, "near", SIZE, "is a link");
	refused(rig, "pipe", SIZE, "special file");
	snprintf(up, sizeof(up), "../disk.img");
	refused(rig, up, SIZE, "--disk disk0=PATH");
	refused(rig, "..", SIZE, "--disk disk0=PATH");
	refused(rig, rig->image, SIZE, "--disk disk0=PATH");
	refused(rig, "x/../../disk.img", SIZE, "--disk disk0=PATH");
	teardown(rig);
}
END_TEST

START_TEST(a_link_on_the_command_line_is_followed)
{
	struct rig *rig = setup();
	struct disks_info info;
	struct disk *disk;
	char path[64];

	snprintf(path, sizeof(path), "%s/link", rig->dir);
	ck_assert_int_eq(symlink("disk.img", path), 0);
	name_disk(rig, path, false);
	listen_for(rig);
	ck_assert(!disks_look(rig->disks, "disk0", &info));
	ck_assert(!give(rig, "x", SIZE, false, &disk));
	ck_assert(disks_look(rig->disks, "disk0", &info));
	ck_assert_str_eq(info.path, rig->image);
	ck_assert_uint_eq(info.size, SIZE);
	disk_close(disk);
	teardown(rig);
}
END_TEST

START_TEST(a_copy_is_not_the_disk)
{
	struct rig *rig = setup();
	char copy[64];

	snprintf(copy, sizeof(copy), "%s/copy.img", rig->dir);
	make_file(copy, SIZE);
	name_disk(rig, copy, false);
	listen_for(rig);
	refused(rig, "disk.img", SIZE, "it is another disk, or a copy");
	teardown(rig);
}
END_TEST

START_TEST(a_disk_of_another_session_is_refused)
{
	static const uint8_t other[WIRE_SESSION_SIZE] = "another session";
	struct rig *rig = setup();

	name_disk(rig, rig->image, false);
	listen_for(rig);
	disks_offer(rig->disks, &rig->config, other);
	refused(rig, "disk.img", SIZE, "it is another disk");
	disks_offer(rig->disks, &rig->config, session);
	given(rig, "disk.img");
	teardown(rig);
}
END_TEST

START_TEST(a_disk_that_has_grown_is_refused_with_both_sizes)
{
	struct rig *rig = setup();

	name_disk(rig, rig->image, false);
	listen_for(rig);
	given(rig, "disk.img");
	ck_assert_int_eq(truncate(rig->image, 2 * SIZE), 0);
	refused(rig, "disk.img", SIZE, "131072");
	refused(rig, "disk.img", SIZE, "65536");
	teardown(rig);
}
END_TEST

START_TEST(an_attempt_leaves_nothing_locked)
{
	struct rig *rig = setup();
	struct disk *disk;

	name_disk(rig, rig->image, false);
	listen_for(rig);
	disk_drop_writer(rig->source);
	for (int i = 0; i < 3; i++) {
		ck_assert(!give(rig, "x", SIZE, false, &disk));
		ck_assert_msg(!disk_take_writer(disk, &rig->err), "%s",
			      rig->err.text);
		ck_assert_int_eq(disk_take_writer(rig->source, &rig->err),
				 -EBUSY);
		disk_close(disk);
		ck_assert(!disk_take_writer(rig->source, &rig->err));
		disk_drop_writer(rig->source);
	}
	teardown(rig);
}
END_TEST

START_TEST(a_disk_that_can_only_be_read_is_given_to_who_only_reads)
{
	struct rig *rig = setup();
	struct disk *disk;

	disk_close(rig->source);
	rig->source = open_image(rig->image, true);
	ck_assert(!disk_lock(rig->source, &rig->err));
	ck_assert(!disk_prove(rig->source, session, &rig->err));
	name_disk(rig, rig->image, false);
	listen_for(rig);
	ck_assert_msg(!give(rig, "x", SIZE, true, &disk), "%s", rig->err.text);
	ck_assert(disk_readonly(disk));
	disk_close(disk);
	teardown(rig);
}
END_TEST

/* ---- which cache ---- */

static void describe(struct rig *rig, const uint8_t host[DEVICE_HOST_SIZE])
{
	struct wire_disk *disk = &rig->config.disks[0];

	memcpy(rig->config.host, host, sizeof(rig->config.host));
	rig->config.ndisks = 1;
	strcpy(disk->id, "disk0");
	disk_inode(rig->source, &disk->dev, &disk->ino);
	disks_offer(rig->disks, &rig->config, session);
}

/* Would taking it over drop what this host has cached? */
static bool cache_is_kept(struct rig *rig)
{
	struct disk *disk;
	bool kept;

	ck_assert_msg(!give(rig, "x", SIZE, false, &disk), "%s", rig->err.text);
	kept = disk_shares_cache(disk);
	disk_close(disk);
	return kept;
}

START_TEST(what_is_cached_is_kept_under_the_same_kernel_only)
{
	struct rig *rig = setup();
	uint8_t host[DEVICE_HOST_SIZE] = { 0 };
	const struct device_backends *backends;

	name_disk(rig, rig->image, false);
	listen_for(rig);
	ck_assert(!cache_is_kept(rig));
	describe(rig, host);
	ck_assert(!cache_is_kept(rig));
	backends = disks_backends(rig->disks);
	backends->name_host(backends->opaque, session, host);
	describe(rig, host);
	ck_assert(cache_is_kept(rig));
	host[3] ^= 1;
	describe(rig, host);
	ck_assert(!cache_is_kept(rig));
	host[3] ^= 1;
	describe(rig, host);
	ck_assert(cache_is_kept(rig));
	rig->config.disks[0].ino++;
	disks_offer(rig->disks, &rig->config, session);
	ck_assert(!cache_is_kept(rig));
	teardown(rig);
}
END_TEST

START_TEST(a_block_device_that_this_host_may_have_cached_is_refused)
{
	const struct device_backends *backends;
	uint8_t host[DEVICE_HOST_SIZE] = { 0 };
	struct rig *rig = setup();

	name_disk(rig, rig->image, false);
	listen_for(rig);
	given(rig, "x"); /* a file can be made to forget */
	as_block_device = true;
	refused(rig, "x", SIZE, "add ,direct, or --unsafe");
	as_direct = true;
	given(rig, "x");
	as_direct = false;
	rig->options.unsafe = true;
	given(rig, "x");
	rig->options.unsafe = false;
	backends = disks_backends(rig->disks);
	backends->name_host(backends->opaque, session, host);
	describe(rig, host);
	given(rig, "x");
	host[0] ^= 1;
	describe(rig, host);
	refused(rig, "x", SIZE, "add ,direct, or --unsafe");
	as_block_device = false;
	teardown(rig);
}
END_TEST

START_TEST(a_host_has_another_name_in_each_session)
{
	static const uint8_t other[WIRE_SESSION_SIZE] = "another session";
	const struct device_backends *backends;
	uint8_t a[DEVICE_HOST_SIZE], b[DEVICE_HOST_SIZE];
	struct rig *rig = setup();

	listen_for(rig);
	backends = disks_backends(rig->disks);
	backends->name_host(backends->opaque, session, a);
	backends->name_host(backends->opaque, session, b);
	ck_assert_mem_eq(a, b, sizeof(a));
	backends->name_host(backends->opaque, other, b);
	ck_assert_mem_ne(a, b, sizeof(a));
	teardown(rig);
}
END_TEST

START_TEST(siphash_gives_what_its_reference_gives)
{
	static const uint8_t wanted[SIPHASH_SIZE] = {
		0x6e, 0xe2, 0xa4, 0xca, 0x67, 0xb0, 0x54, 0xbb,
		0xfd, 0x33, 0x15, 0xbf, 0x85, 0x23, 0x05, 0x77,
	};
	uint8_t text[SIPHASH_SIZE], got[SIPHASH_SIZE];

	for (unsigned int i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)i;
	siphash(text, text, got);
	ck_assert_mem_eq(got, wanted, sizeof(wanted));
}
END_TEST

/* ---- the command line ---- */

START_TEST(run_locks_what_it_opens)
{
	struct rig *rig = setup();
	const struct device_backends *backends;
	struct disk *disk;

	name_disk(rig, rig->image, false);
	ck_assert_int_eq(
		disks_open(&rig->options, false, &rig->disks, &rig->err),
		-EBUSY);
	ck_assert_msg(strstr(rig->err.text, rig->image), "%s", rig->err.text);
	rig->disks = NULL;
	disk_close(rig->source);
	rig->source = NULL;
	ck_assert_msg(!disks_open(&rig->options, false, &rig->disks, &rig->err),
		      "%s", rig->err.text);
	rig->source = open_image(rig->image, false);
	ck_assert_int_eq(disk_lock(rig->source, &rig->err), -EBUSY);
	backends = disks_backends(rig->disks);
	ck_assert(!backends->open_disk(backends->opaque, "disk0", "", SIZE,
				       false, &disk, &rig->err));
	/* It is the device's now. */
	ck_assert_int_lt(backends->open_disk(backends->opaque, "disk0", "",
					     SIZE, false, &disk, &rig->err),
			 0);
	disk_close(disk);
	ck_assert(!disk_lock(rig->source, &rig->err));
	teardown(rig);
}
END_TEST

/* What `show` prints makes the same disk again. */
static void say_again(struct rig *rig, const char *words)
{
	struct machine machine;
	struct disk *disk;
	char *said = NULL;
	size_t size;
	FILE *to;

	machine_init(&machine);
	ck_assert_msg(!disks_add_devices(rig->disks, &machine, &rig->err), "%s",
		      rig->err.text);
	ck_assert(!give(rig, "", SIZE, false, &disk));
	to = open_memstream(&said, &size);
	ck_assert(disks_put_words(rig->disks,
				  &machine.devices[machine.ndevices - 1], to));
	fclose(to);
	ck_assert_str_eq(said, words);
	free(said);
	disk_close(disk);
}

START_TEST(a_disk_can_be_described_anew)
{
	struct rig *rig = setup();
	struct disk_options *disk = rig->options.disks;
	struct machine machine;
	char words[200];

	snprintf(rig->image, sizeof(rig->image), "%s/a,b.img", rig->dir);
	make_file(rig->image, SIZE);
	name_disk(rig, rig->image, false);
	strcpy(disk->serial, "S-1");
	disk->queues = 3;
	disk->vectors = 5;
	disk->werror_stop = true;
	ck_assert_msg(!disks_open(&rig->options, false, &rig->disks, &rig->err),
		      "%s", rig->err.text);
	machine_init(&machine);
	ck_assert(!disks_add_devices(rig->disks, &machine, &rig->err));
	/* A name that can't stand among options is left out. */
	ck_assert_str_eq(machine.devices[machine.ndevices - 1].options,
			 "size=65536,queues=3,serial=S-1,werror=stop");
	ck_assert_uint_eq(machine.devices[machine.ndevices - 1].vectors, 5);
	snprintf(words, sizeof(words),
		 "%s/a,,b.img,id=disk0,queues=3,serial=S-1,werror=stop,"
		 "vectors=5",
		 rig->dir);
	say_again(rig, words);
	teardown(rig);
}
END_TEST

START_TEST(what_travels_of_a_path_is_its_last_part)
{
	struct rig *rig = setup();
	struct machine machine;

	disk_close(rig->source);
	rig->source = NULL;
	name_disk(rig, rig->image, false);
	rig->options.disks[0].queues = 1;
	rig->options.disks[0].readonly = true;
	ck_assert(!disks_open(&rig->options, false, &rig->disks, &rig->err));
	machine_init(&machine);
	ck_assert(!disks_add_devices(rig->disks, &machine, &rig->err));
	ck_assert_str_eq(machine.devices[machine.ndevices - 1].type,
			 "virtio-blk");
	ck_assert_str_eq(machine.devices[machine.ndevices - 1].options,
			 "size=65536,queues=1,name=disk.img,readonly");
	teardown(rig);
}
END_TEST

/* A device has a name of its own on each host: both say which disk it is. */
START_TEST(a_serial_number_names_a_disk_in_the_lock_dir)
{
	struct rig *rig = setup();
	struct disks *other = NULL;
	struct error err;

	disk_close(rig->source);
	rig->source = NULL;
	rig->options.lock_dir = rig->dir;
	name_disk(rig, rig->image, false);
	strcpy(rig->options.disks[0].serial, "S1");
	ck_assert(!disks_open(&rig->options, false, &rig->disks, &rig->err));
	/* Another path, as the same disk has on another host. */
	strcat(rig->image, "2");
	make_file(rig->image, SIZE);
	strcpy(rig->options.disks[0].path, rig->image);
	ck_assert_int_eq(disks_open(&rig->options, false, &other, &err),
			 -EBUSY);
	strcpy(rig->options.disks[0].serial, "S2");
	ck_assert(!disks_open(&rig->options, false, &other, &err));
	disks_free(other);
	teardown(rig);
}
END_TEST

START_TEST(what_is_not_there_is_named)
{
	struct rig *rig = setup();

	name_disk(rig, "/nonexistent/d.img", false);
	ck_assert_int_eq(
		disks_open(&rig->options, true, &rig->disks, &rig->err),
		-ENOENT);
	ck_assert(strstr(rig->err.text, "--disk /nonexistent/d.img"));
	rig->options.count = 0;
	rig->options.nroots = 1;
	rig->options.roots[0] = rig->image;
	ck_assert_int_eq(
		disks_open(&rig->options, true, &rig->disks, &rig->err),
		-ENOTDIR);
	ck_assert(strstr(rig->err.text, "--disk-root"));
	rig->disks = NULL;
	teardown(rig);
}
END_TEST

UNIT_SUITE("disks", a_listener_gives_the_disk_that_its_command_line_names,
	   a_disk_that_no_command_line_names_is_refused_with_the_remedy,
	   a_name_is_looked_up_below_the_roots,
	   what_was_found_below_a_root_is_told_by_its_whole_path,
	   no_name_leads_out_of_a_root, a_link_on_the_command_line_is_followed,
	   a_copy_is_not_the_disk, a_disk_of_another_session_is_refused,
	   a_disk_that_has_grown_is_refused_with_both_sizes,
	   an_attempt_leaves_nothing_locked,
	   a_disk_that_can_only_be_read_is_given_to_who_only_reads,
	   a_block_device_that_this_host_may_have_cached_is_refused,
	   what_is_cached_is_kept_under_the_same_kernel_only,
	   a_host_has_another_name_in_each_session,
	   siphash_gives_what_its_reference_gives, run_locks_what_it_opens,
	   a_disk_can_be_described_anew,
	   what_travels_of_a_path_is_its_last_part,
	   a_serial_number_names_a_disk_in_the_lock_dir,
	   what_is_not_there_is_named)
