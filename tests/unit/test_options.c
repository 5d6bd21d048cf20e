// SPDX-License-Identifier: MIT
/*
 * The command line: what is understood, and how each mistake is answered.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/options.h"
#include "vmm/units.h"

#define ARGS(...) ((char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })

/* The text of a refusal names all of these. */
static void names(const struct error *err, const char *const words[])
{
	for (; *words; words++)
		ck_assert_msg(strstr(err->text, *words),
			      "'%s' does not say '%s'", err->text, *words);
}

#define NAMES(err, ...) names((err), (const char *const[]){ __VA_ARGS__, NULL })

#define RUN_REFUSED(args, ...)                                        \
	do {                                                          \
		struct run_options run_;                              \
		struct error err_;                                    \
		ck_assert_int_lt(options_run(args, &run_, &err_), 0); \
		NAMES(&err_, __VA_ARGS__);                            \
	} while (0)

#define LISTEN_REFUSED(args, ...)                                      \
	do {                                                           \
		struct listen_options l_;                              \
		struct error err_;                                     \
		ck_assert_int_lt(options_listen(args, &l_, &err_), 0); \
		NAMES(&err_, __VA_ARGS__);                             \
	} while (0)

#define MIGRATE_REFUSED(args, ...)                                      \
	do {                                                            \
		struct migrate_options m_;                              \
		struct error err_;                                      \
		ck_assert_int_lt(options_migrate(args, &m_, &err_), 0); \
		NAMES(&err_, __VA_ARGS__);                              \
	} while (0)

#define SET_REFUSED(args, ...)                                        \
	do {                                                          \
		struct set_options set_;                              \
		struct error err_;                                    \
		ck_assert_int_lt(options_set(args, &set_, &err_), 0); \
		NAMES(&err_, __VA_ARGS__);                            \
	} while (0)

/* ---- units ---- */

#define UNIT_IS(fn, text, value)                                    \
	do {                                                        \
		uint64_t got_ = 0;                                  \
		struct error err_;                                  \
		ck_assert_msg(!fn(text, &got_, &err_), "%s", text); \
		ck_assert_uint_eq(got_, (value));                   \
	} while (0)

#define UNIT_REFUSED(fn, text, word)                                   \
	do {                                                           \
		uint64_t got_ = 0;                                     \
		struct error err_;                                     \
		ck_assert_msg(fn(text, &got_, &err_) < 0, "%s", text); \
		NAMES(&err_, word);                                    \
	} while (0)

START_TEST(a_size_has_a_unit_and_may_have_a_fraction)
{
	UNIT_IS(units_size, "512M", 512 * MIB);
	UNIT_IS(units_size, "512MiB", 512 * MIB);
	UNIT_IS(units_size, "1.5g", 1536 * MIB);
	UNIT_IS(units_size, "1T", 1024 * GIB);
	UNIT_IS(units_size, "4k", 4096);
	UNIT_REFUSED(units_size, "512", "unit is missing");
	UNIT_REFUSED(units_size, "512X", "'X' is unknown");
	UNIT_REFUSED(units_size, "M", "not a number");
	UNIT_REFUSED(units_size, "", "not a number");
	UNIT_REFUSED(units_size, "-1M", "negative");
	UNIT_REFUSED(units_size, " 1M", "not a number");
	UNIT_REFUSED(units_size, "1.M", "not a number");
	UNIT_REFUSED(units_size, "99999999999999999999M", "too large");
	UNIT_REFUSED(units_size, "9999999999T", "too large");
}
END_TEST

START_TEST(a_number_is_written_in_its_largest_whole_unit)
{
	char text[UNITS_TEXT_MAX];

	ck_assert_str_eq(units_size_text(512 * MIB, text), "512M");
	ck_assert_str_eq(units_size_text(1536 * MIB, text), "1536M");
	ck_assert_str_eq(units_size_text(2 * GIB, text), "2G");
	ck_assert_str_eq(units_size_text(KIB, text), "1K");
	ck_assert_str_eq(units_size_text(KIB + 1, text), "1025B");
	ck_assert_str_eq(units_size_text(0, text), "0B");
	ck_assert_str_eq(units_time_text(1500 * NS_PER_MS, text), "1500ms");
	ck_assert_str_eq(units_time_text(120 * NS_PER_S, text), "2min");
	ck_assert_str_eq(units_time_text(90 * NS_PER_S, text), "90s");
	ck_assert_str_eq(units_time_text(17, text), "17ns");
}
END_TEST

START_TEST(a_time_has_a_unit_and_is_exact)
{
	UNIT_IS(units_time, "10ms", 10 * NS_PER_MS);
	UNIT_IS(units_time, "0.001ms", 1000);
	UNIT_IS(units_time, "1.000000001s", NS_PER_S + 1);
	UNIT_IS(units_time, "2min", 120 * NS_PER_S);
	UNIT_IS(units_time, "1h", 3600 * NS_PER_S);
	UNIT_REFUSED(units_time, "10", "unit is missing");
	UNIT_REFUSED(units_time, "10 ms", "unknown");
	UNIT_REFUSED(units_time, "10MM", "unknown");
	UNIT_IS(units_seconds, "5", 5 * NS_PER_S);
	UNIT_IS(units_seconds, "0.5", NS_PER_S / 2);
	UNIT_IS(units_seconds, "20ms", 20 * NS_PER_MS);
}
END_TEST

START_TEST(a_rate_counts_bytes_a_second)
{
	UNIT_IS(units_rate, "500M", 500 * MIB);
	UNIT_IS(units_rate, "1000", 1000);
	UNIT_IS(units_rate, "0", 0);
	UNIT_REFUSED(units_rate, "500Mbit", "unknown");
}
END_TEST

/* ---- run ---- */

START_TEST(run_takes_everything_it_has)
{
	struct run_options run;
	struct error err;

	ck_assert_int_eq(
		options_run(ARGS("--kernel", "vmlinux", "--initrd=rd",
				 "--cmdline", "a b", "--cpus", "4", "--memory",
				 "1G", "--rng", "off", "--balloon", "off",
				 "--serial", "null", "--console", "unix:s",
				 "--console=file:f", "--name", "web",
				 "--debug-exit", "--migrate-to",
				 "tcp:h:5,max-downtime=3ms,after=0.5",
				 "--no-sandbox", "-vv"),
			    &run, &err),
		0);
	ck_assert_str_eq(run.kernel, "vmlinux");
	ck_assert_str_eq(run.initrd, "rd");
	ck_assert_str_eq(run.cmdline, "a b");
	ck_assert_uint_eq(run.cpus, 4);
	ck_assert_uint_eq(run.memory, GIB);
	ck_assert(!run.rng);
	ck_assert(!run.balloon);
	ck_assert_int_eq(run.process.serial.kind, CONSOLE_NULL);
	ck_assert_uint_eq(run.process.consoles.count, 2);
	ck_assert_int_eq(run.process.consoles.consoles[0].kind, CONSOLE_UNIX);
	ck_assert_str_eq(run.process.consoles.consoles[1].path, "f");
	ck_assert_str_eq(run.process.name, "web");
	ck_assert(run.debug_exit);
	ck_assert(run.migrates);
	ck_assert_str_eq(run.migrate_to.text, "tcp:h:5");
	ck_assert_uint_eq(run.migrate_after_ns, NS_PER_S / 2);
	ck_assert_uint_eq(run.migrate_downtime_ns, 3 * NS_PER_MS);
	ck_assert(!run.process.sandbox);
	ck_assert_uint_eq(run.process.verbosity, 2);
}
END_TEST

START_TEST(run_has_defaults)
{
	struct run_options run;
	struct error err;

	ck_assert_int_eq(options_run(ARGS("--kernel", "k"), &run, &err), 0);
	ck_assert_ptr_null(run.initrd);
	ck_assert_str_eq(run.cmdline, "");
	ck_assert_uint_eq(run.cpus, 1);
	ck_assert_uint_eq(run.memory, 256 * MIB);
	ck_assert(run.rng);
	ck_assert(run.balloon);
	ck_assert_int_eq(run.process.serial.kind, CONSOLE_STDIO);
	ck_assert_uint_eq(run.process.consoles.count, 0);
	ck_assert_ptr_null(run.process.name);
	ck_assert(run.process.sandbox);
	ck_assert(!run.debug_exit && !run.migrates);
}
END_TEST

START_TEST(run_refuses_what_is_missing_or_unknown)
{
	RUN_REFUSED(ARGS("--initrd", "x"), "--kernel", "missing");
	RUN_REFUSED(ARGS("--kernel"), "--kernel", "needs a value");
	RUN_REFUSED(ARGS("--kernel", ""), "--kernel", "empty");
	RUN_REFUSED(ARGS("--kernl", "x"), "--kernl", "did you mean --kernel");
	RUN_REFUSED(ARGS("--zzzzzz"), "--zzzzzz", "no such option");
	RUN_REFUSED(ARGS("-q"), "-q", "no such option");
	RUN_REFUSED(ARGS("-vq"), "no such option");
	RUN_REFUSED(ARGS("word"), "'word'", "too many");
	RUN_REFUSED(ARGS("--kernel", "a", "--kernel", "b"), "--kernel",
		    "twice");
	RUN_REFUSED(ARGS("--debug-exit=1"), "--debug-exit", "no value");
}
END_TEST

START_TEST(run_refuses_values_that_make_no_machine)
{
	RUN_REFUSED(ARGS("--cpus", "0"), "--cpus 0", "1 to 254");
	RUN_REFUSED(ARGS("--cpus", "255"), "--cpus 255", "1 to 254");
	RUN_REFUSED(ARGS("--cpus", "two"), "--cpus two", "1 to 254");
	RUN_REFUSED(ARGS("--cpus", "1.5"), "--cpus 1.5", "1 to 254");
	RUN_REFUSED(ARGS("--memory", "512"), "--memory 512", "512M");
	RUN_REFUSED(ARGS("--memory", "8M"), "--memory 8M", "16M");
	RUN_REFUSED(ARGS("--memory", "2000G"), "--memory 2000G", "1024G");
	RUN_REFUSED(ARGS("--memory", "20000K"), "--memory 20000K", "whole");
	RUN_REFUSED(ARGS("--memory", "17M,hugepages"), "17M,hugepages",
		    "2 MiB");
	RUN_REFUSED(ARGS("--memory", "1G,hugepages,x"), ",x", "unknown");
	RUN_REFUSED(ARGS("--memory", "1G,shared"), "shared",
		    "not in this version");
	RUN_REFUSED(ARGS("--memory", "1G,x"), ",x", "unknown");
	RUN_REFUSED(ARGS("--rng", "yes"), "--rng yes", "on or off");
	RUN_REFUSED(ARGS("--balloon", "yes"), "--balloon yes", "on or off");
	RUN_REFUSED(ARGS("--console", "tty"), "--console tty", "stdio");
	RUN_REFUSED(ARGS("--console", "unix:"), "--console unix:", "empty");
	RUN_REFUSED(ARGS("--serial", "tty"), "--serial tty", "stdio");
	RUN_REFUSED(ARGS("--serial", "null", "--serial", "null"), "--serial",
		    "twice");
	RUN_REFUSED(ARGS("--name", "-x"), "--name -x", "letters");
	RUN_REFUSED(ARGS("--name", "a/b"), "--name a/b", "letters");
	RUN_REFUSED(ARGS("--name", ""), "--name", "letters");
	RUN_REFUSED(ARGS("--migrate-to", "host"), "--migrate-to host",
		    "tcp:HOST:PORT");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:1,after=x"), "--migrate-to",
		    "seconds");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:1,after=1,max-downtime=7"),
		    "--migrate-to", "unit");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:0,after=1"), "port 0");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:1,max-downtime=0ms"),
		    "--migrate-to", "pause");
	RUN_REFUSED(ARGS("--migrate-to", "unix:/x,frob=1"), "'frob=1'",
		    "doubled");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:1,"), "''", "after=SECONDS");
	RUN_REFUSED(ARGS("--migrate-to", "tcp:h:1,after=1,after=2"), "after",
		    "twice");
}
END_TEST

START_TEST(a_path_to_migrate_to_has_its_commas_doubled)
{
	struct run_options run;
	struct error err;

	ck_assert_int_eq(options_run(ARGS("--kernel", "k", "--migrate-to",
					  "unix:/a,,b,,after=7,after=1"),
				     &run, &err),
			 0);
	ck_assert_str_eq(run.migrate_to.un.sun_path, "/a,b,after=7");
	ck_assert_uint_eq(run.migrate_after_ns, NS_PER_S);
}
END_TEST

START_TEST(a_console_whose_socket_can_not_be_is_refused)
{
	char path[160];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memcpy(path, "unix:", 5);
	RUN_REFUSED(ARGS("--console", path), "--console", "107 bytes");
	RUN_REFUSED(ARGS("--serial", path), "--serial", "107 bytes");
}
END_TEST

START_TEST(standard_input_and_output_are_one_consoles)
{
	struct listen_options l;
	struct run_options run;
	struct error err;

	/* The serial port's, unless somebody else asks for them. */
	ck_assert(!options_run(ARGS("--kernel", "k", "--console", "null",
				    "--console", "stdio"),
			       &run, &err));
	ck_assert_int_eq(run.process.serial.kind, CONSOLE_NULL);
	ck_assert(!options_listen(ARGS("tcp:h:1", "--console", "stdio"), &l,
				  &err));
	ck_assert_int_eq(l.process.serial.kind, CONSOLE_NULL);
	ck_assert(!options_run(ARGS("--kernel", "k", "--console", "stdio",
				    "--serial", "file:f"),
			       &run, &err));
	ck_assert_int_eq(run.process.serial.kind, CONSOLE_FILE);
	RUN_REFUSED(ARGS("--kernel", "k", "--console", "stdio", "--console",
			 "null", "--console", "stdio"),
		    "--console stdio", "console0's already");
	RUN_REFUSED(ARGS("--kernel", "k", "--console", "null", "--console",
			 "stdio", "--serial", "stdio"),
		    "--serial stdio", "console1's");
	LISTEN_REFUSED(
		ARGS("tcp:h:1", "--serial", "stdio", "--console", "stdio"),
		"--serial stdio", "console0's");
}
END_TEST

START_TEST(there_is_a_limit_of_consoles)
{
	struct run_options run;
	struct error err;
	char *argv[3 + 2 * (CONSOLES_MAX + 1)] = { "--kernel", "k" };

	for (int i = 0; i <= CONSOLES_MAX; i++) {
		argv[2 + 2 * i] = "--console";
		argv[3 + 2 * i] = "null";
	}
	ck_assert_int_eq(options_run(argv, &run, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "16 consoles"));
}
END_TEST

START_TEST(console_takes_a_vm_and_perhaps_a_device)
{
	struct attach_options attach;
	struct error err;

	ck_assert(!options_attach(ARGS("web"), &attach, &err));
	ck_assert_str_eq(attach.name, "web");
	ck_assert_ptr_null(attach.device);
	ck_assert(!options_attach(ARGS("web", "console0"), &attach, &err));
	ck_assert_str_eq(attach.device, "console0");
	ck_assert_int_eq(options_attach(ARGS("web", "a/b"), &attach, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'a/b'"));
	ck_assert_int_eq(options_attach(ARGS("web", "a", "b"), &attach, &err),
			 -EINVAL);
	ck_assert_int_eq(options_attach(ARGS(NULL), &attach, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "NAME"));
}
END_TEST

START_TEST(run_refuses_a_command_line_that_no_kernel_takes)
{
	char longer[MACHINE_CMDLINE_MAX + 1];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	RUN_REFUSED(ARGS("--cmdline", longer), "--cmdline", "2047");
}
END_TEST

START_TEST(what_comes_later_is_refused_as_such)
{
	LISTEN_REFUSED(ARGS("--tls", "d"), "--tls", "not in this version",
		       "--allow");
}
END_TEST

/* ---- disks ---- */

#define DISK_REFUSED(value, ...) \
	RUN_REFUSED(ARGS("--kernel", "k", "--disk", value), __VA_ARGS__)

START_TEST(a_disk_has_what_its_words_say)
{
	const struct disk_options *d;
	struct run_options run;
	struct error err;

	ck_assert_int_eq(
		options_run(ARGS("--kernel", "k", "--disk", "a.img", "--disk",
				 "/b=c,,d,id=root,readonly,direct,serial=S-1,"
				 "queues=4,vectors=3",
				 "--disk", "c.img,queues=16,werror=stop",
				 "--lock-dir", "/l"),
			    &run, &err),
		0);
	ck_assert_uint_eq(run.process.disks.count, 3);
	ck_assert_str_eq(run.process.disks.lock_dir, "/l");
	d = &run.process.disks.disks[0];
	ck_assert_str_eq(d->id, "disk0");
	ck_assert_str_eq(d->path, "a.img");
	ck_assert(!d->readonly && !d->direct && !d->werror_stop);
	ck_assert_str_eq(d->serial, "");
	ck_assert_uint_eq(d->queues, 1);
	ck_assert_uint_eq(d->vectors, 2);
	d = &run.process.disks.disks[1];
	ck_assert_str_eq(d->id, "root");
	ck_assert_str_eq(d->path, "/b=c,d");
	ck_assert(d->readonly && d->direct && !d->werror_stop);
	ck_assert_str_eq(d->serial, "S-1");
	ck_assert_uint_eq(d->queues, 4);
	ck_assert_uint_eq(d->vectors, 3);
	d = &run.process.disks.disks[2];
	ck_assert_str_eq(d->id, "disk2");
	ck_assert(d->werror_stop);
	ck_assert_uint_eq(d->vectors, 17);
}
END_TEST

START_TEST(a_disk_that_can_not_be_is_refused_with_the_reason)
{
	char path[PATH_MAX + 1];

	DISK_REFUSED("", "--disk", "empty");
	DISK_REFUSED(",readonly", "empty");
	DISK_REFUSED("a,b", "--disk a,b", "'b': no such word", "doubled");
	DISK_REFUSED("a,readnoly", "did you mean readonly");
	DISK_REFUSED("a,", "'': no such word");
	DISK_REFUSED("a,readonly=on", "readonly", "no value");
	DISK_REFUSED("a,serial", "serial", "needs a value");
	DISK_REFUSED("a,serial=", "serial=", "1 to 20");
	DISK_REFUSED("a,serial=123456789012345678901", "1 to 20");
	DISK_REFUSED("a,serial=a b", "serial=a b", "letters");
	DISK_REFUSED("a,direct,direct", "direct", "twice");
	DISK_REFUSED("a,queues=0", "queues=0", "1 to 16");
	DISK_REFUSED("a,queues=17", "queues=17", "1 to 16");
	DISK_REFUSED("a,vectors=0", "vectors=0", "1 to 32");
	DISK_REFUSED("a,werror", "report", "stop");
	DISK_REFUSED("a,readonly,werror=stop", "readonly", "werror=stop",
		     "leave one of them out");
	DISK_REFUSED("a,vectors=33", "vectors=33", "at most 32 a device",
		     "any peer can hold");
	DISK_REFUSED("a,vectors=many", "vectors=many");
	DISK_REFUSED("a,werror=ignore", "werror=ignore", "report", "stop");
	DISK_REFUSED("a,id=-x", "id '-x'", "letters");
	DISK_REFUSED("a,id=0123456789012345678901234567890_", "1 to 31");
	RUN_REFUSED(ARGS("--disk", "a,id=disk1", "--disk", "b"), "--disk b",
		    "id disk1: taken");
	memset(path, 'x', PATH_MAX);
	path[PATH_MAX] = '\0';
	DISK_REFUSED(path, "longer than 4095");
	RUN_REFUSED(ARGS("--lock-dir", ""), "--lock-dir", "empty");
}
END_TEST

/* @n disks, and what else a VM is asked to have. */
static int run_with_disks(size_t n, const char *word, const char *value,
			  struct error *err)
{
	static char disk[] = "--disk=x", kernel[] = "--kernel=k";
	char *argv[64] = { kernel };
	size_t at = 1;
	struct run_options run;

	if (word)
		argv[at++] = (char *)(uintptr_t)word;
	if (value)
		argv[at++] = (char *)(uintptr_t)value;
	for (size_t i = 0; i < n; i++)
		argv[at++] = disk;
	return options_run(argv, &run, err);
}

START_TEST(a_VM_has_so_many_disks)
{
	static const size_t too_many[] = { 27, 32, 33, 50 };
	struct error err;

	ck_assert_int_eq(run_with_disks(26, NULL, NULL, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(too_many); i++) {
		ck_assert_int_eq(run_with_disks(too_many[i], NULL, NULL, &err),
				 -EINVAL);
		NAMES(&err, "at most 32 devices", "6 of this one",
		      "all but 26");
	}
	ck_assert_int_eq(run_with_disks(27, "--rng", "off", &err), 0);
	ck_assert_int_eq(run_with_disks(28, "--rng", "off", &err), -EINVAL);
	NAMES(&err, "all but 27");
	ck_assert_int_eq(run_with_disks(27, "--balloon", "off", &err), 0);
	ck_assert_int_eq(run_with_disks(28, "--balloon", "off", &err), -EINVAL);
	ck_assert_int_eq(run_with_disks(25, "--net", "tap=t", &err), 0);
	ck_assert_int_eq(run_with_disks(26, "--net", "tap=t", &err), -EINVAL);
	NAMES(&err, "--disk, --net and --console", "all but 26");
	ck_assert_int_eq(run_with_disks(25, "--debug-exit", NULL, &err), 0);
	ck_assert_int_eq(run_with_disks(26, "--debug-exit", NULL, &err),
			 -EINVAL);
	NAMES(&err, "all but 25");
}
END_TEST

START_TEST(listen_names_what_it_lets_a_guest_have)
{
	const struct disk_options *d;
	struct listen_options l;
	struct error err;

	ck_assert_int_eq(
		options_listen(ARGS("unix:s", "--disk", "disk0=/a,,b,direct",
				    "--disk", "root=/x=y,serial=S1", "--unsafe",
				    "--lock-dir", "/l"),
			       &l, &err),
		0);
	ck_assert_uint_eq(l.process.disks.count, 2);
	d = l.process.disks.disks;
	ck_assert_str_eq(d[0].id, "disk0");
	ck_assert_str_eq(d[0].path, "/a,b");
	ck_assert(d[0].direct);
	ck_assert_str_eq(d[1].id, "root");
	ck_assert_str_eq(d[1].path, "/x=y");
	ck_assert_str_eq(d[1].serial, "S1");
	ck_assert(!d[1].direct);
	ck_assert(l.process.disks.unsafe);
	ck_assert_str_eq(l.process.disks.lock_dir, "/l");
	ck_assert_int_eq(options_listen(ARGS("unix:s", "--disk-root", "/a",
					     "--disk-root", "/b"),
					&l, &err),
			 0);
	ck_assert_uint_eq(l.process.disks.nroots, 2);
	ck_assert_str_eq(l.process.disks.roots[1], "/b");
	ck_assert(!l.process.disks.unsafe);
}
END_TEST

START_TEST(listen_refuses_disks_that_it_could_not_find)
{
	LISTEN_REFUSED(ARGS("unix:s", "--disk", "/a"), "--disk /a",
		       "disk0=/dev");
	LISTEN_REFUSED(ARGS("unix:s", "--disk", "=/a"), "id ''");
	LISTEN_REFUSED(ARGS("unix:s", "--disk", "disk0="), "empty");
	LISTEN_REFUSED(ARGS("unix:s", "--disk", "disk0=a,readonly"),
		       "'readonly': no such word");
	LISTEN_REFUSED(ARGS("unix:s", "--disk", "d=a", "--disk", "d=b"),
		       "id d: taken");
	LISTEN_REFUSED(ARGS("unix:s", "--disk-root", ""), "empty");
	LISTEN_REFUSED(ARGS("unix:s", "--disk-root", "1", "--disk-root", "2",
			    "--disk-root", "3", "--disk-root", "4",
			    "--disk-root", "5", "--disk-root", "6",
			    "--disk-root", "7", "--disk-root", "8",
			    "--disk-root", "9"),
		       "at most 8");
	LISTEN_REFUSED(ARGS("unix:s", "--disk-root", "/a", "--lock-dir", "/l"),
		       "--lock-dir", "--disk ID=PATH");
}
END_TEST

/* ---- networks ---- */

#define NET_REFUSED(text, ...) RUN_REFUSED(ARGS("--net", text), __VA_ARGS__)

START_TEST(a_net_is_a_tap_and_words)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
	const struct tap_options *t;
	struct run_options run;
	struct error err;

	ck_assert_int_eq(
		options_run(ARGS("--kernel", "k", "--net", "tap=tap0", "--net",
				 "queues=15,tap=br-1,mac=52:54:00:12:34:56,"
				 "id=lan",
				 "--net", "fd=7,vectors=3"),
			    &run, &err),
		0);
	ck_assert_uint_eq(run.process.taps.count, 3);
	t = run.process.taps.taps;
	ck_assert_str_eq(t[0].id, "net0");
	ck_assert_str_eq(t[0].name, "tap0");
	ck_assert(!t[0].has_mac && t[0].fd == -1);
	ck_assert_uint_eq(t[0].queues, 1);
	ck_assert_uint_eq(t[0].vectors, 4);
	ck_assert_str_eq(t[1].id, "lan");
	ck_assert(t[1].has_mac && !memcmp(t[1].mac, mac, 6));
	ck_assert_uint_eq(t[1].vectors, 32);
	ck_assert_str_eq(t[2].id, "net2");
	ck_assert_str_eq(t[2].name, "");
	ck_assert_int_eq(t[2].fd, 7);
	ck_assert_uint_eq(t[2].vectors, 3);
}
END_TEST

START_TEST(a_net_that_can_not_be_is_refused_with_the_reason)
{
	NET_REFUSED("", "'': no such word");
	NET_REFUSED("tap0", "--net tap0", "'tap0': no such word",
		    "did you mean tap");
	NET_REFUSED("tpa=tap0", "did you mean tap");
	NET_REFUSED("mac=52:54:00:12:34:56",
		    "give one of tap=NAME, user, and fd=N");
	NET_REFUSED("tap=a,fd=3", "give one of tap=NAME, user, and fd=N");
	NET_REFUSED("tap=", "tap=", "1 to 15");
	NET_REFUSED("tap=0123456789abcdef", "1 to 15");
	NET_REFUSED("tap=a/b", "tap=a/b");
	NET_REFUSED("tap", "needs a value");
	NET_REFUSED("tap=a,tap=b", "twice");
	NET_REFUSED("tap=a,", "'': no such word");
	NET_REFUSED("tap=a,mac=52:54:00:12:34", "mac=52:54:00:12:34",
		    "six bytes");
	NET_REFUSED("tap=a,mac=01:00:5e:00:00:01", "the first one even");
	NET_REFUSED("tap=a,queues=0", "queues=0");
	NET_REFUSED("tap=a,queues=16", "queues=16", "at most 15", "32 vectors");
	NET_REFUSED("tap=a,vectors=33", "vectors=33", "at most 32 a device");
	NET_REFUSED("fd=2", "fd=2");
	NET_REFUSED("fd=3,queues=2", "queues=2", "tap=NAME");
	NET_REFUSED("tap=a,id=-x", "id '-x'");
	RUN_REFUSED(ARGS("--net", "tap=a,id=net1", "--net", "tap=b"),
		    "--net tap=b", "id net1: taken");
}
END_TEST

START_TEST(listen_names_the_taps_that_a_guest_gets)
{
	const struct tap_options *t;
	struct listen_options l;
	struct error err;

	ck_assert_int_eq(
		options_listen(ARGS("unix:s", "--net", "net0=tap=tap1,queues=4",
				    "--net", "lan=fd=9"),
			       &l, &err),
		0);
	ck_assert_uint_eq(l.process.taps.count, 2);
	t = l.process.taps.taps;
	ck_assert_str_eq(t[0].id, "net0");
	ck_assert_str_eq(t[0].name, "tap1");
	ck_assert_uint_eq(t[0].queues, 4);
	ck_assert_str_eq(t[1].id, "lan");
	ck_assert_int_eq(t[1].fd, 9);
	LISTEN_REFUSED(ARGS("unix:s", "--net", "tap=tap1"), "--net tap=tap1",
		       "net0=tap=tap1");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "net0=tap1"), "net0=tap=tap1");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "=tap=tap1"), "id ''");
	LISTEN_REFUSED(
		ARGS("unix:s", "--net", "net0=tap=a,mac=52:54:00:12:34:56"),
		"mac", "brings that along");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "n=tap=a", "--net", "n=tap=b"),
		       "id n: taken");
}
END_TEST

START_TEST(a_net_may_be_a_user_network_with_ports_of_the_host)
{
	const struct user_forward *f;
	struct listen_options l;
	struct run_options run;
	const struct tap_options *t;
	char text[USER_FORWARD_TEXT];
	struct error err;

	ck_assert_int_eq(
		options_run(ARGS("--kernel", "k", "--net",
				 "user,hostfwd=tcp:2222-:22,id=lan,"
				 "hostfwd=udp:0.0.0.0:53-10.0.2.16:5353"),
			    &run, &err),
		0);
	t = run.process.taps.taps;
	ck_assert(t->user && t->nforwards == 2 && t->queues == 1);
	ck_assert_str_eq(t->id, "lan");
	f = t->forwards;
	ck_assert_str_eq(user_forward_text(&f[0], text),
			 "tcp:127.0.0.1:2222-:22");
	ck_assert_str_eq(user_forward_text(&f[1], text),
			 "udp:0.0.0.0:53-10.0.2.16:5353");
	ck_assert_int_eq(options_listen(ARGS("unix:s", "--net",
					     "lan=user,hostfwd=tcp::80-80"),
					&l, &err),
			 0);
	t = l.process.taps.taps;
	ck_assert(t->user && t->nforwards == 1);
	ck_assert_str_eq(user_forward_text(t->forwards, text),
			 "tcp:127.0.0.1:80-:80");
	NET_REFUSED("user,foo", "'foo'",
		    "give id=, mac=, vectors= or hostfwd=");
	NET_REFUSED("tap=t,foo", "'foo'",
		    "give id=, mac=, queues= or vectors=");
	NET_REFUSED("fd=7,foo", "'foo'", "give id=, mac= or vectors=");
	NET_REFUSED("foo", "'foo'", "give tap=NAME or user");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "net0=user,foo"), "'foo'",
		       "give hostfwd=");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "user"), "net0=user");
	LISTEN_REFUSED(ARGS("unix:s", "--net", "net0=users"), "net0=user");
}
END_TEST

#define FORWARD_REFUSED(text, ...)                                             \
	NET_REFUSED("user,hostfwd=" text, text, "like tcp:127.0.0.1:2222-:22", \
		    __VA_ARGS__)

START_TEST(a_user_network_that_can_not_be_is_refused_with_the_reason)
{
	FORWARD_REFUSED("2222-:22", "neither tcp: nor udp:");
	FORWARD_REFUSED("tcp:2222", "no '-'");
	FORWARD_REFUSED("tcp:-:22", "1 to 65535");
	FORWARD_REFUSED("tcp:0-:22", "1 to 65535");
	FORWARD_REFUSED("tcp:65536-:22", "1 to 65535");
	FORWARD_REFUSED("tcp:22-:", "1 to 65535");
	FORWARD_REFUSED("tcp:localhost:22-:22", "none of IPv4");
	FORWARD_REFUSED("tcp:[::1]:22-:22", "none of IPv4");
	FORWARD_REFUSED("tcp:22-guest:22", "none of IPv4");
	FORWARD_REFUSED("tcp:22-192.0.2.1:22", "no guest has that address");
	FORWARD_REFUSED("tcp:22-10.0.3.15:22", "no guest has that address");
	FORWARD_REFUSED("tcp:22-10.0.2.2:22", "no guest has that address");
	FORWARD_REFUSED("tcp:22-10.0.2.3:22", "no guest has that address");
	FORWARD_REFUSED("tcp:22-10.0.2.255:22", "no guest has that address");
	FORWARD_REFUSED("tcp:1-00000000000000000000000000000000000"
			"000000000000000000000022",
			"too long");
	NET_REFUSED("user,hostfwd=tcp:1-:2,hostfwd=tcp:127.0.0.1:1-:3",
		    "an earlier one has this port");
	NET_REFUSED("user=yes", "user=yes", "give user alone");
	NET_REFUSED("user,user", "twice");
	NET_REFUSED("user,tap=a", "give one of tap=NAME, user");
	NET_REFUSED("user,queues=2", "a user-mode network is one queue");
	NET_REFUSED("tap=a,hostfwd=tcp:1-:1", "a tap has no ports");
}
END_TEST

START_TEST(help_is_found_among_mistakes_to_its_right)
{
	struct run_options run;
	struct error err;

	ck_assert_int_eq(options_run(ARGS("--help", "--zzz"), &run, &err),
			 OPTIONS_HELP);
	ck_assert_int_eq(options_run(ARGS("--kernel", "k", "-h"), &run, &err),
			 OPTIONS_HELP);
}
END_TEST

/* ---- the others ---- */

START_TEST(listen_takes_everything_it_has)
{
	struct listen_options l;
	struct error err;

	ck_assert_int_eq(options_listen(ARGS("--name", "n", "tcp:[::1]:7",
					     "--paused", "--once", "--insecure",
					     "--allow", "10.0.0.0/8", "--allow",
					     "192.0.2.1", "--console=file:f"),
					&l, &err),
			 0);
	ck_assert_str_eq(l.address.host, "::1");
	ck_assert_uint_eq(l.address.port, 7);
	ck_assert_uint_eq(l.allow.count, 2);
	ck_assert(l.paused && l.once && l.insecure);
	ck_assert_str_eq(l.process.consoles.consoles[0].path, "f");
}
END_TEST

START_TEST(listen_refuses_bad_addresses_and_networks)
{
	LISTEN_REFUSED(ARGS("--once"), "ADDR", "missing");
	LISTEN_REFUSED(ARGS("tcp:h"), "'tcp:h'", "no port");
	LISTEN_REFUSED(ARGS("tcp:h:99999"), "65535");
	LISTEN_REFUSED(ARGS("fd:x"), "'fd:x'", "no descriptor");
	LISTEN_REFUSED(ARGS("tcp:h:1", "tcp:h:2"), "'tcp:h:2'", "too many");
	LISTEN_REFUSED(ARGS("tcp:h:1", "--allow", "10.0.0.0/33"),
		       "--allow '10.0.0.0/33'", "192.0.2.0/24");
}
END_TEST

START_TEST(migrate_takes_everything_it_has)
{
	struct migrate_options m;
	struct error err;

	ck_assert_int_eq(
		options_migrate(ARGS("web", "--to", "unix:s", "--max-downtime",
				     "5ms", "--abort-after", "1s",
				     "--bandwidth", "1G", "--timeout", "1min",
				     "--on-timeout", "pause", "--offline",
				     "--json"),
				&m, &err),
		0);
	ck_assert_str_eq(m.name, "web");
	ck_assert(m.has_to && m.has_max_downtime && m.has_bandwidth && m.json);
	ck_assert_uint_eq(m.params.max_downtime_ns, 5 * NS_PER_MS);
	ck_assert_uint_eq(m.params.abort_after_ns, NS_PER_S);
	ck_assert_uint_eq(m.params.bandwidth, GIB);
	ck_assert_uint_eq(m.params.timeout_ns, 60 * NS_PER_S);
	ck_assert_int_eq(m.params.on_timeout, SOURCE_TIMEOUT_PAUSE);
	ck_assert(m.params.offline);
	ck_assert(!m.params.dry_run);
	ck_assert_int_eq(
		options_migrate(ARGS("web", "--to", "unix:s", "--dry-run"), &m,
				&err),
		0);
	ck_assert(m.params.dry_run);
}
END_TEST

START_TEST(resolve_takes_one_decision)
{
	struct name_options n;
	struct error err;

	ck_assert_int_eq(
		options_name("resolve", ARGS("web", "--resume"), &n, &err), 0);
	ck_assert(n.resume && !n.discard);
	ck_assert_int_eq(options_name("resolve",
				      ARGS("web", "--resume", "--discard"), &n,
				      &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "contradict each other"));
}
END_TEST

START_TEST(migrate_refuses_what_can_not_be_meant)
{
	MIGRATE_REFUSED(ARGS("--to", "tcp:h:1"), "NAME", "missing");
	MIGRATE_REFUSED(ARGS("web"), "--to", "missing");
	MIGRATE_REFUSED(ARGS("web", "--to", "unix:s", "--dry-run", "--offline"),
			"--dry-run", "--offline", "leave one out");
	MIGRATE_REFUSED(ARGS("web", "--to", "tcp:h:0"), "--to tcp:h:0",
			"port 0", "godwit listen");
	MIGRATE_REFUSED(ARGS("web", "--max-downtime", "0ms"),
			"--max-downtime 0ms", "10ms");
	MIGRATE_REFUSED(ARGS("web", "--max-downtime", "99us"),
			"--max-downtime 99us", "at least 100us");
	MIGRATE_REFUSED(ARGS("web", "--max-downtime", "999999h"),
			"--max-downtime 999999h", "at most 2000s", "--offline");
	MIGRATE_REFUSED(ARGS("web", "--abort-after", "99us"),
			"--abort-after 99us", "100us to 24h");
	MIGRATE_REFUSED(ARGS("web", "--abort-after", "25h"),
			"--abort-after 25h", "100us to 24h");
	MIGRATE_REFUSED(ARGS("web", "--timeout", "1us"), "--timeout 1us",
			"less than 1ms");
	MIGRATE_REFUSED(ARGS("web", "--timeout", "25h"), "--timeout 25h",
			"longer than 24h");
	MIGRATE_REFUSED(ARGS("web", "--max-downtime", "10"), "unit");
	MIGRATE_REFUSED(ARGS("web", "--on-timeout", "die"), "--on-timeout die",
			"cancel or pause");
	MIGRATE_REFUSED(ARGS("web", "--bandwidth", "1"), "--bandwidth 1", "64K",
			"500M", "0 for no limit");
	MIGRATE_REFUSED(ARGS("web", "--bandwidth", "fast"), "--bandwidth fast",
			"500M");
	MIGRATE_REFUSED(ARGS("../x", "--to", "tcp:h:1"), "'../x'");
}
END_TEST

START_TEST(set_takes_one_of_two_limits)
{
	struct set_options set;
	struct error err;

	ck_assert_int_eq(
		options_set(ARGS("web", "max-downtime", "2ms"), &set, &err), 0);
	ck_assert_int_eq(set.parameter, SET_MAX_DOWNTIME);
	ck_assert_uint_eq(set.value, 2 * NS_PER_MS);
	ck_assert_int_eq(options_set(ARGS("web", "bandwidth", "0"), &set, &err),
			 0);
	ck_assert_int_eq(set.parameter, SET_BANDWIDTH);
	ck_assert(set.has_parameter && set.has_value);
	ck_assert_int_eq(options_set(ARGS("web"), &set, &err), 0);
	ck_assert(!set.has_parameter && !set.has_value);
	ck_assert_int_eq(options_set(ARGS("web", "memory"), &set, &err), 0);
	ck_assert(set.has_parameter && !set.has_value);
	ck_assert_int_eq(options_set(ARGS("web", "memory", "512M"), &set, &err),
			 0);
	ck_assert_int_eq(set.parameter, SET_MEMORY);
	ck_assert_uint_eq(set.value, 512 * MIB);
	SET_REFUSED(ARGS("web", "memory", "0M"), "memory 0M", "like 512M");
	SET_REFUSED(ARGS("web", "memory", "1K"), "memory 1K", "less than 16M");
	SET_REFUSED(ARGS("web", "memory", "-1M"), "memory -1M: a negative",
		    "like 512M");
	SET_REFUSED(ARGS("-1", "memory"), "'-1'");
	SET_REFUSED(ARGS("web", "memory", "much"), "memory much");
	SET_REFUSED(ARGS(NULL), "NAME", "missing");
	SET_REFUSED(ARGS("web", "bandwidth", "500"), "bandwidth 500", "64K");
	SET_REFUSED(ARGS("web", "speed", "3"), "'speed'", "bandwidth");
	SET_REFUSED(ARGS("web", "max-downtime", "0s"), "max-downtime 0s");
}
END_TEST

START_TEST(commands_that_take_a_name_take_little_else)
{
	struct name_options o;
	struct error err;

	ck_assert_int_eq(
		options_name("status", ARGS("web", "--json"), &o, &err), 0);
	ck_assert(o.json);
	ck_assert_int_eq(options_name("list", ARGS("--json"), &o, &err), 0);
	ck_assert_int_lt(options_name("list", ARGS("web"), &o, &err), 0);
	NAMES(&err, "'web'", "too many");
	ck_assert_int_lt(options_name("pause", ARGS("web", "--json"), &o, &err),
			 0);
	NAMES(&err, "--json", "no such option");
	ck_assert_int_eq(
		options_name("resolve", ARGS("web", "--discard"), &o, &err), 0);
	ck_assert(o.discard && !o.resume);
	ck_assert_int_eq(options_name("pause", ARGS("--", "web"), &o, &err), 0);
	ck_assert_str_eq(o.name, "web");
}
END_TEST

START_TEST(the_nearest_word_is_found_and_no_far_one)
{
	static const char *const words[] = { "run", "resume", "reset", NULL };

	ck_assert_str_eq(options_nearest("rn", words), "run");
	ck_assert_str_eq(options_nearest("reste", words), "reset");
	ck_assert_str_eq(options_nearest("resum", words), "resume");
	ck_assert_ptr_null(options_nearest("migrate", words));
	ck_assert_ptr_null(
		options_nearest("", (const char *const[]){ "ab", NULL }));
}
END_TEST

UNIT_SUITE("options", a_size_has_a_unit_and_may_have_a_fraction,
	   a_number_is_written_in_its_largest_whole_unit,
	   a_time_has_a_unit_and_is_exact, a_rate_counts_bytes_a_second,
	   run_takes_everything_it_has, run_has_defaults,
	   run_refuses_what_is_missing_or_unknown,
	   run_refuses_values_that_make_no_machine,
	   a_path_to_migrate_to_has_its_commas_doubled,
	   a_console_whose_socket_can_not_be_is_refused,
	   standard_input_and_output_are_one_consoles,
	   there_is_a_limit_of_consoles,
	   console_takes_a_vm_and_perhaps_a_device,
	   run_refuses_a_command_line_that_no_kernel_takes,
	   what_comes_later_is_refused_as_such, a_disk_has_what_its_words_say,
	   a_disk_that_can_not_be_is_refused_with_the_reason,
	   a_VM_has_so_many_disks, listen_names_what_it_lets_a_guest_have,
	   listen_refuses_disks_that_it_could_not_find,
	   a_net_is_a_tap_and_words,
	   a_net_that_can_not_be_is_refused_with_the_reason,
	   a_net_may_be_a_user_network_with_ports_of_the_host,
	   a_user_network_that_can_not_be_is_refused_with_the_reason,
	   listen_names_the_taps_that_a_guest_gets,
	   help_is_found_among_mistakes_to_its_right,
	   listen_takes_everything_it_has,
	   listen_refuses_bad_addresses_and_networks,
	   migrate_takes_everything_it_has, resolve_takes_one_decision,
	   migrate_refuses_what_can_not_be_meant, set_takes_one_of_two_limits,
	   commands_that_take_a_name_take_little_else,
	   the_nearest_word_is_found_and_no_far_one)
