// SPDX-License-Identifier: MIT
/*
 * The cage; see sandbox.h.
 *
 * One table says who may make which system call. Whatever is not in it kills
 * the process, and the kernel names the call in its audit log. The table is
 * compiled once, by libseccomp, into a BPF program a kind; entering a filter
 * is then a single system call, which any number of threads can make at once.
 *
 * Kinds nest by construction: what a vCPU or I/O thread may do, a migration
 * thread may do too, because a target's migration thread creates such threads
 * and they inherit its filter. No other kind creates threads.
 *
 * What nobody may do after start-up, and why that is enough:
 * - open a file. Images, taps, sockets, /dev/kvm and lock files are opened
 *   before; a connection comes from accept4() or, for a migration, connect().
 *   So libraries that open files lazily must have done so before (jansson's
 *   hash seed: call json_object_seed() first). The one exception is a listener
 *   with --disk-root: its migration thread looks for images that a stream
 *   names. A filter can't see what openat2() is asked for, which is in memory;
 *   so Landlock confines the process to those directories.
 * - make memory executable, start a program or process, trace one, or change
 *   who it is.
 * - userfaultfd, bpf, perf: kernel surface that we don't need. And io_uring,
 *   which would pass by all of this table: rings are made before, each for one
 *   disk, and the kernel holds it to reads, writes and flushes of that file
 *   (devices/backend/disk_uring.c). I/O threads use them.
 *
 * Two things are left alone on purpose. The process stays dumpable: guest
 * memory is kept out of core dumps by MADV_DONTDUMP, and whoever may trace us
 * has our user id and with it the control socket anyway. And the speculation
 * mitigation that old kernels force on filtered threads is waived: it is meant
 * for processes that run foreign code natively, which a VMM leaves to KVM, and
 * it would slow every guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/log.h"
#include "vmm/pagemap.h"
#include "vmm/rules.h"
#include "vmm/sandbox.h"

#define LOOP	  (1U << THREAD_LOOP)
#define VCPU	  (1U << THREAD_VCPU | MIGRATION)
#define IO	  (1U << THREAD_IO | MIGRATION)
#define MIGRATION (1U << THREAD_MIGRATION)
#define ALL	  (LOOP | VCPU | IO | MIGRATION)

/* Kills are logged without being asked for, and nothing else should be. */
#define FILTER_FLAGS SECCOMP_FILTER_FLAG_SPEC_ALLOW

/* What pthread_create() asks of clone(); musl adds CLONE_DETACHED, a no-op. */
#define THREAD_FLAGS                                                         \
	((unsigned long)(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | \
			 CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |       \
			 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID))

#define CALL(name, kinds)		   RULE(name, kinds, 0, 0, 0)
#define PIN(name, kinds, arg, mask, value) RULE(name, kinds, arg, mask, value)
#define PIN_INT(name, kinds, arg, value)   RULE_INT(name, kinds, arg, value)
#define IOCTL(request, kinds)		   RULE_INT(ioctl, kinds, 1, request)

static const struct rule rules[] = {
	/* Memory, never executable. */
	CALL(brk, ALL),
	PIN(mmap, ALL, 2, PROT_EXEC, 0),
	PIN(mprotect, ALL, 2, PROT_EXEC, 0),
	CALL(munmap, ALL),
	CALL(mremap, ALL),
	CALL(madvise, ALL),
	CALL(mincore, MIGRATION),

	/* Threads, locks, time. abort() needs the signal calls. */
	CALL(futex, ALL),
	CALL(set_robust_list, ALL),
	CALL(rseq, ALL),
	CALL(sched_yield, ALL),
	CALL(sched_getaffinity, ALL),
	CALL(sysinfo, ALL), /* qsort() asks how much memory there is */
	CALL(gettid, ALL),
	CALL(getpid, ALL),
	CALL(rt_sigaction, ALL),
	CALL(rt_sigprocmask, ALL),
	CALL(rt_sigreturn, ALL),
	CALL(restart_syscall, ALL),
	CALL(nanosleep, ALL),
	CALL(clock_nanosleep, ALL),
	CALL(clock_gettime, ALL),
	CALL(clock_getres, ALL),
	CALL(gettimeofday, ALL),
	CALL(time, ALL),
	CALL(getrandom, ALL),
	CALL(exit, ALL),
	CALL(exit_group, ALL),
	PIN(clone, MIGRATION, 0, ~0x400000UL, THREAD_FLAGS),
	PIN_INT(prctl, MIGRATION, 0, PR_SET_NAME),
	PIN_INT(seccomp, MIGRATION, 0, SECCOMP_SET_MODE_FILTER),
	CALL(getrusage, MIGRATION),

	/* Open descriptors. */
	CALL(read, ALL),
	CALL(readv, ALL),
	CALL(pread64, ALL),
	CALL(preadv, ALL),
	CALL(preadv2, ALL),
	CALL(write, ALL),
	CALL(writev, ALL),
	CALL(pwrite64, ALL),
	CALL(pwritev, ALL),
	CALL(pwritev2, ALL),
	CALL(lseek, ALL),
	CALL(close, ALL),
	CALL(fstat, ALL),
	CALL(newfstatat, ALL),	/* what fstat() is made of in newer glibc */
	CALL(statx, MIGRATION), /* what O_DIRECT wants of a target's disk */
	PIN_INT(fcntl, ALL, 1, F_GETFL),
	PIN_INT(fcntl, ALL, 1, F_SETFL),
	PIN_INT(fcntl, ALL, 1, F_DUPFD_CLOEXEC),
	PIN_INT(fcntl, MIGRATION, 1, F_GETFD),
	PIN_INT(fcntl, MIGRATION, 1, F_SETFD),
	/*
	 * A disk's locks; what the peer has still is tried for as I/O goes on,
	 * and the loop gives them back when the VM ends.
	 */
	PIN_INT(fcntl, MIGRATION, 1, F_OFD_GETLK),
	PIN_INT(fcntl, LOOP | IO, 1, F_OFD_SETLK),
	CALL(poll, ALL),
	CALL(ppoll, ALL),
	CALL(epoll_wait, LOOP | IO),
	CALL(epoll_pwait, LOOP | IO),
	CALL(epoll_ctl, ALL),
	CALL(eventfd2, ALL),
	CALL(timerfd_create, MIGRATION),
	CALL(timerfd_settime, ALL),
	CALL(timerfd_gettime, ALL),
	CALL(io_uring_enter, IO),
	CALL(fsync, IO),
	CALL(fdatasync, IO),
	CALL(fallocate, IO),
	CALL(sync_file_range, IO),
	CALL(fadvise64, IO), /* drops the cache when a disk is taken over */
	CALL(ftruncate, MIGRATION),
	CALL(memfd_create, MIGRATION), /* boot image that comes along */
	/*
	 * Names of sockets: a target's control socket takes its guest's, which
	 * is known when CONFIG comes; all are taken away at the end.
	 */
	CALL(unlink, LOOP),
	CALL(unlinkat, LOOP | MIGRATION),
	CALL(renameat, MIGRATION),
	CALL(flock, MIGRATION),

	/* Sockets: control, consoles, the migration's connection. */
	CALL(accept4, LOOP | MIGRATION),
	CALL(recvfrom, LOOP | MIGRATION),
	CALL(recvmsg, LOOP | MIGRATION),
	CALL(sendto, LOOP | MIGRATION),
	CALL(sendmsg, LOOP | MIGRATION),
	CALL(shutdown, LOOP | MIGRATION),
	CALL(getsockname, LOOP | MIGRATION),
	CALL(getpeername, LOOP | MIGRATION),
	PIN_INT(getsockopt, LOOP | MIGRATION, 1, SOL_SOCKET),
	PIN_INT(getsockopt, MIGRATION, 1, IPPROTO_TCP),
	PIN_INT(setsockopt, MIGRATION, 1, SOL_SOCKET),
	PIN_INT(setsockopt, MIGRATION, 1, IPPROTO_TCP),
	PIN_INT(socket, MIGRATION, 0, AF_INET),
	PIN_INT(socket, MIGRATION, 0, AF_INET6),
	PIN_INT(socket, MIGRATION, 0, AF_UNIX),
	CALL(connect, MIGRATION),

	/* The terminal, put right at the end. */
	IOCTL(TCGETS, LOOP),
	IOCTL(TCSETS, LOOP),
	IOCTL(TCSETSW, LOOP),
	IOCTL(TCSETSF, LOOP),
	IOCTL(TIOCGWINSZ, LOOP),

	/* Devices: interrupts, notifications, taps, block devices. */
	IOCTL(KVM_SIGNAL_MSI, ALL),
	IOCTL(KVM_IRQ_LINE, ALL),
	IOCTL(KVM_IOEVENTFD, ALL),
	IOCTL(TUNSETOFFLOAD, IO),
	IOCTL(TUNSETQUEUE, IO),
	/* A target's tap is silent until it has the guest. */
	IOCTL(TUNATTACHFILTER, MIGRATION),
	IOCTL(TUNDETACHFILTER, MIGRATION),
	IOCTL(BLKDISCARD, IO),
	IOCTL(BLKZEROOUT, IO),
	IOCTL(BLKGETSIZE64, MIGRATION),
	IOCTL(BLKSSZGET, MIGRATION),
	IOCTL(BLKPBSZGET, MIGRATION),

	/* A vCPU runs, is saved and is loaded on its own thread. */
	IOCTL(KVM_RUN, VCPU),
	IOCTL(KVM_SET_SIGNAL_MASK, VCPU),
	IOCTL(KVM_GET_REGS, VCPU),
	IOCTL(KVM_SET_REGS, VCPU),
	IOCTL(KVM_GET_SREGS, VCPU),
	IOCTL(KVM_SET_SREGS, VCPU),
	IOCTL(KVM_GET_SREGS2, VCPU),
	IOCTL(KVM_SET_SREGS2, VCPU),
	IOCTL(KVM_GET_XSAVE, VCPU),
	IOCTL(KVM_GET_XSAVE2, VCPU),
	IOCTL(KVM_SET_XSAVE, VCPU),
	IOCTL(KVM_GET_XCRS, VCPU),
	IOCTL(KVM_SET_XCRS, VCPU),
	IOCTL(KVM_GET_DEBUGREGS, VCPU),
	IOCTL(KVM_SET_DEBUGREGS, VCPU),
	IOCTL(KVM_GET_LAPIC, VCPU),
	IOCTL(KVM_SET_LAPIC, VCPU),
	/* Which MSRs there are is asked as they are saved. */
	IOCTL(KVM_GET_MSR_INDEX_LIST, VCPU),
	IOCTL(KVM_GET_MSR_FEATURE_INDEX_LIST, VCPU),
	IOCTL(KVM_GET_MSRS, VCPU),
	IOCTL(KVM_SET_MSRS, VCPU),
	IOCTL(KVM_GET_MP_STATE, VCPU),
	IOCTL(KVM_SET_MP_STATE, VCPU),
	IOCTL(KVM_GET_VCPU_EVENTS, VCPU),
	IOCTL(KVM_SET_VCPU_EVENTS, VCPU),
	IOCTL(KVM_GET_NESTED_STATE, VCPU),
	IOCTL(KVM_SET_NESTED_STATE, VCPU),
	IOCTL(KVM_GET_CPUID2, VCPU),
	IOCTL(KVM_SET_CPUID2, VCPU),
	IOCTL(KVM_GET_TSC_KHZ, VCPU),
	IOCTL(KVM_SET_TSC_KHZ, VCPU),
	IOCTL(KVM_HAS_DEVICE_ATTR, VCPU),
	IOCTL(KVM_GET_DEVICE_ATTR, VCPU),
	IOCTL(KVM_SET_DEVICE_ATTR, VCPU),
	IOCTL(KVM_KVMCLOCK_CTRL, VCPU),
	IOCTL(KVM_CHECK_EXTENSION, LOOP | VCPU),

	/* A reset, on the loop's thread, loads the VM's power-on state. */
	IOCTL(KVM_GET_IRQCHIP, LOOP | MIGRATION),
	IOCTL(KVM_SET_IRQCHIP, LOOP | MIGRATION),
	IOCTL(KVM_GET_PIT2, LOOP | MIGRATION),
	IOCTL(KVM_SET_PIT2, LOOP | MIGRATION),
	IOCTL(KVM_GET_CLOCK, LOOP | MIGRATION),
	IOCTL(KVM_SET_CLOCK, LOOP | MIGRATION),

	/* A target builds its VM, and each rehearsal a throwaway one. */
	IOCTL(KVM_GET_API_VERSION, MIGRATION),
	IOCTL(KVM_GET_VCPU_MMAP_SIZE, MIGRATION),
	IOCTL(KVM_GET_SUPPORTED_CPUID, MIGRATION),
	IOCTL(KVM_X86_GET_MCE_CAP_SUPPORTED, MIGRATION),
	IOCTL(KVM_X86_SETUP_MCE, MIGRATION),
	IOCTL(KVM_CREATE_VM, MIGRATION),
	IOCTL(KVM_CREATE_VCPU, MIGRATION),
	IOCTL(KVM_CREATE_IRQCHIP, MIGRATION),
	IOCTL(KVM_CREATE_PIT2, MIGRATION),
	IOCTL(KVM_SET_TSS_ADDR, MIGRATION),
	IOCTL(KVM_SET_IDENTITY_MAP_ADDR, MIGRATION),
	IOCTL(KVM_SET_BOOT_CPU_ID, MIGRATION),
	IOCTL(KVM_ENABLE_CAP, MIGRATION),
	IOCTL(KVM_SET_USER_MEMORY_REGION, MIGRATION),
	/* Which vCPU dirties. */
	IOCTL(KVM_GET_STATS_FD, MIGRATION),
	IOCTL(KVM_GET_DIRTY_LOG, MIGRATION),
	IOCTL(KVM_CLEAR_DIRTY_LOG, MIGRATION),
	/* Which memory was never touched. */
	IOCTL(PAGEMAP_SCAN_TOUCHED, MIGRATION),
};

struct sandbox {
	struct sock_fprog programs[THREAD_KINDS];
	const int *dirs;
	size_t ndirs;
};

/* ---- compiling ---- */

/* What a table can't say. */
static int add_exceptions(scmp_filter_ctx ctx, enum thread_kind kind,
			  bool opens)
{
	int rc = 0;

	if (kind == THREAD_MIGRATION && opens)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(openat2),
				      0);
	/* clone3()'s flags are in memory; clone()'s can be looked at. */
	if (!rc && kind == THREAD_MIGRATION)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS),
				      SCMP_SYS(clone3), 0);
	/* Every exit of a vCPU goes through ioctl(): look for it first. */
	if (!rc)
		rc = seccomp_syscall_priority(ctx, SCMP_SYS(ioctl), 255);
	return rc;
}

/* Have libseccomp write the program to a file, and take it from there. */
static int export_program(scmp_filter_ctx ctx, struct sock_fprog *ret)
{
	int fd = memfd_create("filter", MFD_CLOEXEC);
	off_t size;
	int rc;

	if (fd < 0)
		return -errno;
	rc = seccomp_export_bpf(ctx, fd);
	size = lseek(fd, 0, SEEK_CUR);
	if (!rc && size <= 0)
		rc = -EIO;
	if (rc)
		goto out;
	ret->filter = malloc((size_t)size);
	ret->len = (unsigned short)((size_t)size / sizeof(*ret->filter));
	rc = ret->filter ? pread_full(fd, ret->filter, (size_t)size, 0)
			 : -ENOMEM;
out:
	close(fd);
	return rc;
}

static int compile(enum thread_kind kind, bool opens, struct sock_fprog *ret)
{
	scmp_filter_ctx ctx;
	int rc = rules_compile(rules, ARRAY_SIZE(rules), 1U << kind, &ctx);

	if (rc)
		return rc;
	rc = add_exceptions(ctx, kind, opens);
	if (!rc)
		rc = export_program(ctx, ret);
	seccomp_release(ctx);
	return rc;
}

int sandbox_create(const int *dirs, size_t ndirs, struct sandbox **ret,
		   struct error *err)
{
	struct sandbox *sandbox = calloc(1, sizeof(*sandbox));
	int rc;

	if (!sandbox)
		return error_set(err, -ENOMEM, "sandbox: out of memory");
	sandbox->dirs = dirs;
	sandbox->ndirs = ndirs;
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++) {
		rc = compile(kind, ndirs > 0, &sandbox->programs[kind]);
		if (rc) {
			sandbox_free(sandbox);
			return error_set(err, rc,
					 "sandbox: compiling a filter: %s",
					 strerror(-rc));
		}
	}
	*ret = sandbox;
	return 0;
}

void sandbox_free(struct sandbox *sandbox)
{
	if (!sandbox)
		return;
	for (unsigned int kind = 0; kind < THREAD_KINDS; kind++)
		free(sandbox->programs[kind].filter);
	free(sandbox);
}

/* ---- entering ---- */

/*
 * Who lacks CAP_SETPCAP can't empty the bounding set, and has no need to:
 * under no_new_privs no program gives capabilities back.
 */
static int drop_bounding_set(void)
{
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
		if (cap_get_bound(cap) && cap_drop_bound(cap) && errno != EPERM)
			return -1;
	}
	return 0;
}

static int drop_capabilities(void)
{
	cap_t none = cap_init();
	int rc;

	if (!none)
		return -1;
	rc = drop_bounding_set();
	/* Old kernels have no ambient set to empty. */
	if (!rc && cap_reset_ambient() && errno != EINVAL)
		rc = -1;
	if (!rc)
		rc = cap_set_proc(none);
	cap_free(none);
	return rc;
}

/*
 * glibc's malloc gives threads arenas of their own, and to manage these opens
 * files at odd moments: the list of processors, the overcommit policy. With a
 * single arena it opens none, and nothing that is in a hurry allocates.
 */
static void share_one_arena(void)
{
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 1);
#endif
}

/*
 * Opening, and making what could be opened. Removing and renaming are left
 * alone: the control socket's name is, and only the filters know by whom.
 */
#define LANDLOCK_HANDLED                                               \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |   \
	 LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_DIR | \
	 LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |  \
	 LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_FIFO |  \
	 LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)

static int allow_below(int ruleset, int dir, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = access,
		.parent_fd = dir,
	};

	return (int)syscall(SYS_landlock_add_rule, ruleset,
			    LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/* Linux, Documentation/userspace-api/landlock.rst */
int sandbox_confine_opening(const int *dirs, size_t ndirs, bool writing,
			    struct error *err)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_HANDLED,
	};
	uint64_t access = LANDLOCK_ACCESS_FS_READ_FILE |
			  (writing ? LANDLOCK_ACCESS_FS_WRITE_FILE : 0);
	int ruleset, rc = 0;

	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr),
			       0);
	if (ruleset < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
		return error_set(err, -ENOSYS, "this kernel has no Landlock");
	if (ruleset < 0)
		rc = -1;
	for (size_t i = 0; i < ndirs && !rc; i++)
		rc = allow_below(ruleset, dirs[i], access);
	if (!rc)
		rc = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
	if (rc)
		rc = error_set(err, -errno, "sandbox: Landlock: %s",
			       strerror(errno));
	close_fd(&ruleset);
	return rc;
}

static int confine(const struct sandbox *sandbox, struct error *err)
{
	int rc = 0;

	if (sandbox->ndirs)
		rc = sandbox_confine_opening(sandbox->dirs, sandbox->ndirs,
					     true, err);
	if (rc != -ENOSYS)
		return rc;
	log_warn("%s: nothing but godwit's own care keeps it from opening "
		 "files outside of --disk-root",
		 err->text);
	return 0;
}

int sandbox_give_up(struct error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set(err, -errno, "sandbox: no_new_privs: %s",
				 strerror(errno));
	if (drop_capabilities())
		return error_set(err, -errno,
				 "sandbox: giving up capabilities: %s",
				 strerror(errno));
	return 0;
}

int sandbox_drop(struct sandbox *sandbox, struct error *err)
{
	int rc;

	share_one_arena();
	rc = sandbox_give_up(err);
	return rc ? rc : confine(sandbox, err);
}

int sandbox_enter(const struct sandbox *sandbox, enum thread_kind kind,
		  struct error *err)
{
	if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, FILTER_FLAGS,
		     &sandbox->programs[kind]))
		return 0;
	return error_set(err, -errno,
			 "sandbox: this kernel refuses the seccomp filter: %s",
			 strerror(errno));
}

/* ---- threads ---- */

struct start {
	const struct sandbox *sandbox;
	enum thread_kind kind;
	char name[16]; /* the kernel's limit */
	void *(*fn)(void *);
	void *arg;
};

/*
 * All but the kick, and but what a fault raises: a blocked fault ends the
 * process all the same, but past any debugger or sanitizer that handles it.
 */
static void thread_signals(sigset_t *blocked)
{
	static const int open[] = {
		VCPU_KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE,
		SIGILL,		  SIGTRAP, SIGSYS, SIGABRT
	};

	sigfillset(blocked);
	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		sigdelset(blocked, open[i]);
}

static void *thread_main(void *arg)
{
	struct start start = *(struct start *)arg;
	struct error err;

	free(arg);
	prctl(PR_SET_NAME, start.name);
	if (start.sandbox && sandbox_enter(start.sandbox, start.kind, &err)) {
		/* Nobody waits for this thread's verdict, and it must not run
		 * uncaged. */
		log_error("thread %s: %s", start.name, err.text);
		_exit(EXIT_FAILURE);
	}
	return start.fn(start.arg);
}

int thread_start(const struct sandbox *sandbox, enum thread_kind kind,
		 const char *name, void *(*fn)(void *), void *arg,
		 pthread_t *ret_thread, struct error *err)
{
	struct start *start = malloc(sizeof(*start));
	sigset_t blocked, old;
	int rc;

	if (!start)
		return error_set(err, -ENOMEM, "thread %s: out of memory",
				 name);
	*start = (struct start){
		.sandbox = sandbox,
		.kind = kind,
		.fn = fn,
		.arg = arg,
	};
	snprintf(start->name, sizeof(start->name), "%s", name);
	/* A thread is born with its creator's mask: no window is left. */
	thread_signals(&blocked);
	pthread_sigmask(SIG_SETMASK, &blocked, &old);
	rc = pthread_create(ret_thread, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		return 0;
	free(start);
	return error_set(err, -rc, "thread %s: %s", name, strerror(rc));
}
