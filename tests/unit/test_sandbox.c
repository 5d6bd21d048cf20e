// SPDX-License-Identifier: MIT
/*
 * The cage, from inside: children put themselves in it and then break out on
 * purpose, which must kill them with SIGSYS, or do what their kind of thread
 * has to do, which must work.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/loop.h"
#include "vmm/sandbox.h"

/*
 * The sanitizers' runtimes make system calls of their own, which the cage does
 * not allow, so under them only what happens outside is tested.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAGEABLE 0
#else
#define CAGEABLE 1
#endif

#define LOOP	  (1U << THREAD_LOOP)
#define VCPU	  (1U << THREAD_VCPU)
#define IO	  (1U << THREAD_IO)
#define MIGRATION (1U << THREAD_MIGRATION)
#define EVERYONE  (LOOP | VCPU | IO | MIGRATION)

#define SURVIVED  0
#define SETUP_BAD 99

struct act {
	const char *name;
	void (*fn)(void);
	unsigned int killed; /* kinds for which it is the end */
	unsigned int works;  /* kinds that must survive it */
};

static struct sandbox *make_sandbox(void)
{
	struct sandbox *sandbox;
	struct error err;

	if (sandbox_create(NULL, 0, &sandbox, &err) ||
	    sandbox_drop(sandbox, &err)) {
		fprintf(stderr, "%s\n", err.text);
		_exit(SETUP_BAD);
	}
	return sandbox;
}

static void enter(const struct sandbox *sandbox, enum thread_kind kind)
{
	struct error err;

	if (sandbox_enter(sandbox, kind, &err)) {
		fprintf(stderr, "%s\n", err.text);
		_exit(SETUP_BAD);
	}
}

/* Start a child that calls @fn in the cage of @kind; its wait status. */
static int in_cage(enum thread_kind kind, void (*fn)(void))
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		enter(make_sandbox(), kind);
		fn();
		_exit(SURVIVED);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void try_act(const struct act *act)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		int status;

		if (!((act->killed | act->works) & (1U << kind)))
			continue;
		status = in_cage(kind, act->fn);
		if (act->killed & (1U << kind))
			ck_assert_msg(WIFSIGNALED(status) &&
					      WTERMSIG(status) == SIGSYS,
				      "%s, kind %u: status 0x%x, not SIGSYS",
				      act->name, kind, status);
		else
			ck_assert_msg(status == SURVIVED,
				      "%s, kind %u: status 0x%x, not 0",
				      act->name, kind, status);
	}
}

/* ---- breaking out ---- */

static void do_execve(void)
{
	char *const argv[] = { NULL };

	execve("/bin/true", argv, argv);
}

static void do_open(void)
{
	open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static void do_old_open(void)
{
	syscall(SYS_open, "/etc/passwd", O_RDONLY);
}

static void do_openat2(void)
{
	uint64_t how[3] = { 0 };

	syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", how, sizeof(how));
}

static void do_fork(void)
{
	if (!fork())
		_exit(SURVIVED);
}

static void do_clone_namespace(void)
{
	if (!syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0))
		_exit(SURVIVED);
}

static void do_ptrace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void do_kill(void)
{
	kill(getppid(), 0);
}

static void do_tgkill_other(void)
{
	syscall(SYS_tgkill, 1, 1, 0);
}

static void do_mmap_exec(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_mprotect_exec(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static void do_unlisted_ioctl(void)
{
	int on = 1;

	ioctl(STDERR_FILENO, FIONBIO, &on);
}

static void do_kvm_create_vm(void)
{
	ioctl(-1, KVM_CREATE_VM, 0UL);
}

static void do_kvm_run(void)
{
	ioctl(-1, KVM_RUN, 0UL);
}

static void do_kvm_set_irqchip(void)
{
	ioctl(-1, KVM_SET_IRQCHIP, NULL);
}

static void do_kvm_signal_msi(void)
{
	ioctl(-1, KVM_SIGNAL_MSI, NULL);
}

/* The kernel ignores the upper half of the number, so the filter has to. */
static void do_wide_ioctl(void)
{
	syscall(SYS_ioctl, -1, 1UL << 32 | KVM_SIGNAL_MSI, NULL);
}

static void do_tcsets(void)
{
	ioctl(-1, TCSETS, NULL);
}

static void do_tcp_socket(void)
{
	close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static void do_unix_socket(void)
{
	close(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static void do_netlink(void)
{
	socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static void do_accept(void)
{
	accept4(-1, NULL, NULL, SOCK_CLOEXEC);
}

static void do_bind(void)
{
	struct sockaddr sa = { .sa_family = AF_UNIX };

	bind(-1, &sa, sizeof(sa));
}

static void do_unlink(void)
{
	unlink("/nonexistent/godwit");
}

static void do_setuid(void)
{
	syscall(SYS_setuid, 0);
}

static void do_prctl(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}

static void do_io_uring(void)
{
	syscall(SYS_io_uring_setup, 1, NULL);
}

static void do_io_uring_register(void)
{
	syscall(SYS_io_uring_register, -1, 0, NULL, 0);
}

static void do_io_uring_enter(void)
{
	syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
}

static void do_x32(void)
{
	syscall(0x40000000 | SYS_getpid);
}

static void do_ofd_lock(void)
{
	struct flock lock = { .l_type = F_WRLCK };

	fcntl(-1, F_OFD_SETLK, &lock);
}

static void do_set_owner(void)
{
	fcntl(-1, F_SETOWN, 1);
}

static void do_statx(void)
{
	struct statx stat;

	statx(-1, "", AT_EMPTY_PATH, 0, &stat);
}

static void do_fdatasync(void)
{
	fdatasync(-1);
}

START_TEST(breaking_out_is_death_for_every_kind)
{
	static const struct act acts[] = {
		{ "execve", do_execve, EVERYONE, 0 },
		{ "openat", do_open, EVERYONE, 0 },
		{ "open", do_old_open, EVERYONE, 0 },
		{ "openat2", do_openat2, EVERYONE, 0 },
		{ "fork", do_fork, EVERYONE, 0 },
		{ "clone(NEWUSER)", do_clone_namespace, EVERYONE, 0 },
		{ "ptrace", do_ptrace, EVERYONE, 0 },
		{ "kill", do_kill, EVERYONE, 0 },
		{ "tgkill of others", do_tgkill_other, EVERYONE, 0 },
		{ "mmap(EXEC)", do_mmap_exec, EVERYONE, 0 },
		{ "mprotect(EXEC)", do_mprotect_exec, EVERYONE, 0 },
		{ "unlisted ioctl", do_unlisted_ioctl, EVERYONE, 0 },
		{ "netlink", do_netlink, EVERYONE, 0 },
		{ "bind", do_bind, EVERYONE, 0 },
		{ "setuid", do_setuid, EVERYONE, 0 },
		{ "prctl(DUMPABLE)", do_prctl, EVERYONE, 0 },
		{ "io_uring_setup", do_io_uring, EVERYONE, 0 },
		{ "io_uring_register", do_io_uring_register, EVERYONE, 0 },
		{ "x32", do_x32, EVERYONE, 0 },
		{ "F_SETOWN", do_set_owner, EVERYONE, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		try_act(&acts[i]);
}
END_TEST

START_TEST(each_kind_may_do_its_own_work_and_not_the_others)
{
	static const struct act acts[] = {
		{ "KVM_CREATE_VM", do_kvm_create_vm, LOOP | VCPU | IO,
		  MIGRATION },
		{ "KVM_RUN", do_kvm_run, LOOP | IO, VCPU | MIGRATION },
		{ "KVM_SET_IRQCHIP", do_kvm_set_irqchip, VCPU | IO,
		  LOOP | MIGRATION },
		{ "KVM_SIGNAL_MSI", do_kvm_signal_msi, 0, EVERYONE },
		{ "wide ioctl", do_wide_ioctl, 0, EVERYONE },
		{ "TCSETS", do_tcsets, VCPU | IO | MIGRATION, LOOP },
		{ "TCP socket", do_tcp_socket, LOOP | VCPU | IO, MIGRATION },
		{ "unix socket", do_unix_socket, LOOP | VCPU | IO, MIGRATION },
		{ "accept4", do_accept, VCPU | IO, LOOP | MIGRATION },
		{ "unlink", do_unlink, VCPU | IO | MIGRATION, LOOP },
		{ "F_OFD_SETLK", do_ofd_lock, VCPU, LOOP | IO | MIGRATION },
		{ "statx", do_statx, LOOP | VCPU | IO, MIGRATION },
		{ "fdatasync", do_fdatasync, LOOP | VCPU, IO | MIGRATION },
		{ "io_uring_enter", do_io_uring_enter, LOOP | VCPU,
		  IO | MIGRATION },
	};

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		try_act(&acts[i]);
}
END_TEST

/* ---- going on ---- */

#define CHUNKS 64

static void grow_memory(void)
{
	void *chunks[CHUNKS];

	for (unsigned int i = 0; i < CHUNKS; i++) {
		size_t size = (size_t)64 << i % 18; /* brk, and mmap */

		chunks[i] = malloc(size);
		if (!chunks[i])
			_exit(1);
		memset(chunks[i], 0x5a, size);
	}
	for (unsigned int i = 0; i < CHUNKS; i++)
		free(chunks[i]);
}

static void tell_time(void)
{
	struct timespec ts;

	if (!clock_ns() || syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts))
		_exit(1);
}

static void write_text(void)
{
	char text[64];

	snprintf(text, sizeof(text), "%d %f\n", 1, 2.5);
	if (write(STDERR_FILENO, text, 0) < 0)
		_exit(1);
	if (!strerror(ENOSPC)[0])
		_exit(1);
	/* The first use of a stream asks what its descriptor is. */
	if (printf("%s", "") < 0 || fflush(stdout))
		_exit(1);
}

static void ignore_signal(int signal __maybe_unused)
{
}

static void kick_self(void)
{
	if (signal(VCPU_KICK_SIGNAL, ignore_signal) == SIG_ERR ||
	    pthread_kill(pthread_self(), VCPU_KICK_SIGNAL))
		_exit(1);
}

START_TEST(ordinary_life_goes_on_for_every_kind)
{
	static const struct act acts[] = {
		{ "malloc", grow_memory, 0, EVERYONE },
		{ "clocks", tell_time, 0, EVERYONE },
		{ "stdio", write_text, 0, EVERYONE },
		{ "pthread_kill", kick_self, 0, EVERYONE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		try_act(&acts[i]);
}
END_TEST

static void fail_assertion(void)
{
	abort();
}

START_TEST(abort_ends_in_sigabrt_not_in_sigsys)
{
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		int status = in_cage(kind, fail_assertion);

		ck_assert(WIFSIGNALED(status));
		ck_assert_int_eq(WTERMSIG(status), SIGABRT);
	}
}
END_TEST

static void need(const char *status, const char *line)
{
	if (strstr(status, line))
		return;
	fprintf(stderr, "no \"%s\" in:\n%s", line, status);
	_exit(1);
}

START_TEST(the_kernel_confirms_filter_no_new_privs_and_no_capabilities)
{
	static const char *const sets[] = { "CapInh", "CapPrm", "CapEff",
					    "CapAmb" };
	char status[8192] = "", line[64];
	bool root = !geteuid();
	int wait_status;
	pid_t pid = fork();

	if (!pid) {
		int fd = open("/proc/self/status", O_RDONLY);

		enter(make_sandbox(), THREAD_VCPU);
		if (read(fd, status, sizeof(status) - 1) <= 0)
			_exit(1);
		need(status, "\nSeccomp:\t2\n");
		need(status, "\nNoNewPrivs:\t1\n");
		for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
			snprintf(line, sizeof(line),
				 "\n%s:\t0000000000000000\n", sets[i]);
			need(status, line);
		}
		/* Only who may change the bounding set can empty it. */
		if (root)
			need(status, "\nCapBnd:\t0000000000000000\n");
		_exit(SURVIVED);
	}
	ck_assert_int_eq(waitpid(pid, &wait_status, 0), pid);
	ck_assert_int_eq(wait_status, SURVIVED);
}
END_TEST

/* ---- directories ---- */

static long try_open(int dir, const char *path, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_CLOEXEC,
				.mode = flags & O_CREAT ? 0600 : 0 };

	return syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

static bool landlock_is_there(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0,
		       LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

/* In a child, caged with @dir: what can be opened, and what can't. */
static int open_in_cage(int dir, int kind)
{
	bool confined = landlock_is_there();
	struct sandbox *sandbox;
	struct error err;

	if (sandbox_create(&dir, 1, &sandbox, &err) ||
	    sandbox_drop(sandbox, &err))
		return SETUP_BAD;
	enter(sandbox, kind);
	if (try_open(dir, "image", O_RDWR) < 0)
		return 1;
	if (!confined)
		return SURVIVED;
	if (try_open(AT_FDCWD, "/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 2;
	if (try_open(dir, "../../etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 3;
	if (try_open(dir, "new", O_RDWR | O_CREAT) >= 0 || errno != EACCES)
		return 4;
	return SURVIVED;
}

/* The wait status of such a child. */
static int try_directory(enum thread_kind kind)
{
	char path[] = "/tmp/godwit-cage-XXXXXX";
	int dir, fd, status;
	pid_t pid;

	ck_assert_ptr_nonnull(mkdtemp(path));
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = openat(dir, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(open_in_cage(dir, kind));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	unlinkat(dir, "image", 0);
	unlinkat(dir, "new", 0);
	close(dir);
	rmdir(path);
	return status;
}

START_TEST(only_a_migration_thread_opens_and_only_below_its_directories)
{
	static const enum thread_kind others[] = { THREAD_LOOP, THREAD_VCPU,
						   THREAD_IO };

	ck_assert_int_eq(try_directory(THREAD_MIGRATION), SURVIVED);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		int status = try_directory(others[i]);

		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	}
}
END_TEST

START_TEST(a_filter_without_no_new_privs_is_refused_in_words)
{
	struct sandbox *sandbox;
	struct error err;

	ck_assert_int_eq(sandbox_create(NULL, 0, &sandbox, &err), 0);
	/* CAP_SYS_ADMIN may install filters without it. */
	if (geteuid()) {
		ck_assert_int_eq(sandbox_enter(sandbox, THREAD_LOOP, &err),
				 -EACCES);
		ck_assert_ptr_nonnull(strstr(err.text, "seccomp"));
	}
	sandbox_free(sandbox);
	sandbox_free(NULL);
}
END_TEST

/* ---- threads ---- */

struct probe {
	sigset_t mask;
	char name[16];
};

static void *probe_thread(void *arg)
{
	struct probe *probe = arg;

	pthread_sigmask(SIG_SETMASK, NULL, &probe->mask);
	prctl(PR_GET_NAME, probe->name);
	return NULL;
}

START_TEST(a_thread_has_its_name_and_takes_only_the_kick)
{
	struct probe probe = { 0 };
	pthread_t thread;
	struct error err;
	sigset_t mask;

	ck_assert_int_eq(thread_start(NULL, THREAD_VCPU, "vcpu0", probe_thread,
				      &probe, &thread, &err),
			 0);
	pthread_join(thread, NULL);
	ck_assert_str_eq(probe.name, "vcpu0");
	ck_assert_int_eq(sigismember(&probe.mask, VCPU_KICK_SIGNAL), 0);
	ck_assert_int_eq(sigismember(&probe.mask, SIGTERM), 1);
	ck_assert_int_eq(sigismember(&probe.mask, SIGINT), 1);
	ck_assert_int_eq(sigismember(&probe.mask, SIGUSR2), 1);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	ck_assert_int_eq(sigismember(&mask, SIGTERM), 0);
}
END_TEST

/* The shape of the real process: what happens in it is in these threads. */
struct town {
	struct sandbox *sandbox;
	struct loop *loop;
	struct loop_timer *timer;
	pthread_mutex_t lock;
	unsigned int visits;
	bool break_out;
};

static void *visit(void *arg)
{
	struct town *town = arg;

	grow_memory();
	pthread_mutex_lock(&town->lock);
	town->visits++;
	pthread_mutex_unlock(&town->lock);
	sched_yield();
	if (town->break_out)
		do_tcp_socket();
	return NULL;
}

static void stop_loop(void *opaque)
{
	struct town *town = opaque;

	loop_stop(town->loop);
}

static void arm(void *opaque)
{
	struct town *town = opaque;

	loop_timer_arm(town->timer, clock_ns() + NS_PER_MS);
}

/* What a listener's migration thread does: make vCPUs, disks, more of its
 * own kind, and hand work to the loop. */
static void *found_town(void *arg)
{
	static const enum thread_kind kinds[] = { THREAD_VCPU, THREAD_IO,
						  THREAD_MIGRATION };
	pthread_t threads[ARRAY_SIZE(kinds) * 4];
	struct town *town = arg;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		if (thread_start(town->sandbox, kinds[i % ARRAY_SIZE(kinds)],
				 "settler", visit, town, &threads[i], &err))
			_exit(2);
	}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	if (town->visits != ARRAY_SIZE(threads))
		_exit(3);
	do_tcp_socket();
	/* Disarmed, so made in the filter; armed by the loop. */
	if (loop_timer_add(town->loop, stop_loop, town, NULL, &town->timer,
			   &err))
		_exit(4);
	loop_post(town->loop, arm, town);
	return NULL;
}

static int live(bool break_out)
{
	const struct rlimit no_core = { 0, 0 };
	struct town town = { .break_out = break_out };
	pthread_t founder;
	struct error err;
	int status;
	pid_t pid = fork();

	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		if (loop_create(&town.loop, &err))
			_exit(SETUP_BAD);
		pthread_mutex_init(&town.lock, NULL);
		town.sandbox = make_sandbox();
		if (thread_start(town.sandbox, THREAD_MIGRATION, "founder",
				 found_town, &town, &founder, &err))
			_exit(SETUP_BAD);
		enter(town.sandbox, THREAD_LOOP);
		loop_run(town.loop);
		pthread_join(founder, NULL);
		loop_timer_remove(town.timer);
		loop_free(town.loop);
		exit(SURVIVED); /* with all that exit() does */
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

START_TEST(a_caged_migration_thread_can_populate_a_process)
{
	ck_assert_int_eq(live(false), SURVIVED);
}
END_TEST

START_TEST(a_thread_has_its_own_filter_besides_its_creator_s)
{
	int status = live(true);

	/* The creator may make sockets, the vCPU thread it made may not. */
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}
END_TEST

static void start_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, probe_thread, &(struct probe){ 0 });
}

START_TEST(only_migration_threads_create_threads)
{
	static const struct act act = { "pthread_create", start_thread,
					LOOP | VCPU | IO, 0 };

	try_act(&act);
}
END_TEST

#if CAGEABLE
UNIT_SUITE("sandbox", breaking_out_is_death_for_every_kind,
	   each_kind_may_do_its_own_work_and_not_the_others,
	   ordinary_life_goes_on_for_every_kind,
	   abort_ends_in_sigabrt_not_in_sigsys,
	   the_kernel_confirms_filter_no_new_privs_and_no_capabilities,
	   only_a_migration_thread_opens_and_only_below_its_directories,
	   a_filter_without_no_new_privs_is_refused_in_words,
	   a_caged_migration_thread_can_populate_a_process,
	   a_thread_has_its_own_filter_besides_its_creator_s,
	   only_migration_threads_create_threads,
	   a_thread_has_its_name_and_takes_only_the_kick)
#else
UNIT_SUITE("sandbox", a_filter_without_no_new_privs_is_refused_in_words,
	   a_thread_has_its_name_and_takes_only_the_kick)
#endif
