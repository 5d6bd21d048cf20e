// SPDX-License-Identifier: MIT
/*
 * The cage of the process that has the user-mode network: it talks to the
 * network as any program of this user may, and can do nothing else. A call that
 * is not listed ends it, and with it the guest's link.
 *
 * It reads /etc/resolv.conf as that changes, and so may open files for reading;
 * Landlock confines that to where resolv.conf is. There root would read what is
 * root's alone; so there root is nobody.
 *
 * Limits bound what a guest can make it hold: sockets, and with them buffers,
 * and whatever else it allocates. Beyond the second it dies.
 */
#ifdef HAVE_LIBSLIRP
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/user_internal.h"
#include "vmm/log.h"
#include "vmm/rules.h"
#include "vmm/sandbox.h"

#define RESOLVER "/etc/resolv.conf"
#define NOBODY	 65534

/* A connection has two buffers of 128 KiB. */
#define MEMORY_BYTES (512 * MIB)

#define CALL(name)		    RULE(name, 1, 0, 0, 0)
#define PIN(name, arg, mask, value) RULE(name, 1, arg, mask, value)
#define PIN_INT(name, arg, value)   RULE_INT(name, 1, arg, value)

static const struct rule rules[] = {
	/* Memory, never executable. */
	CALL(brk),
	PIN(mmap, 2, PROT_EXEC, 0),
	PIN(mprotect, 2, PROT_EXEC, 0),
	CALL(munmap),
	CALL(mremap),
	CALL(madvise),
	CALL(sysinfo), /* qsort() asks how much there is */

	/* Locks, time, the end. abort() needs the signal calls. */
	CALL(futex),
	CALL(clock_gettime),
	CALL(gettimeofday),
	CALL(time),
	CALL(getrandom),
	CALL(gettid),
	CALL(getpid),
	CALL(getppid), /* glib makes a seed of it, without /dev/urandom */
	CALL(rt_sigaction),
	CALL(rt_sigprocmask),
	CALL(rt_sigreturn),
	CALL(restart_syscall),
	CALL(exit),
	CALL(exit_group),

	/* resolv.conf, and words on standard error. */
	PIN(openat, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
	CALL(newfstatat),
	CALL(fstat),
	CALL(read),
	CALL(lseek),
	CALL(write),
	CALL(close),

	/* Sockets. */
	PIN_INT(socket, 0, AF_INET),
	PIN_INT(socket, 0, AF_INET6),
	CALL(bind),
	CALL(listen),
	CALL(accept),
	CALL(accept4),
	CALL(connect),
	CALL(shutdown),
	CALL(getsockname),
	CALL(getpeername),
	PIN_INT(getsockopt, 1, SOL_SOCKET),
	PIN_INT(setsockopt, 1, SOL_SOCKET),
	PIN_INT(setsockopt, 1, IPPROTO_TCP),
	PIN_INT(setsockopt, 1, IPPROTO_IP),
	PIN_INT(setsockopt, 1, IPPROTO_IPV6),
	CALL(recvfrom),
	CALL(recvmsg),
	CALL(sendto),
	CALL(sendmsg),
	CALL(writev),
	PIN_INT(fcntl, 1, F_GETFD),
	PIN_INT(fcntl, 1, F_SETFD),
	PIN_INT(fcntl, 1, F_GETFL),
	PIN_INT(fcntl, 1, F_SETFL),
	PIN_INT(ioctl, 1, FIONREAD),
	CALL(poll),
	CALL(ppoll),
};

/* libc asks for these, and does without. */
static const int absent_families[] = { AF_UNIX, AF_NETLINK };

static int refuse_families(scmp_filter_ctx ctx)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(absent_families) && !rc; i++)
		rc = seccomp_rule_add(
			ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
			SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)absent_families[i]));
	return rc;
}

static int filter(struct error *err)
{
	scmp_filter_ctx ctx;
	int rc = rules_compile(rules, ARRAY_SIZE(rules), 1, &ctx);

	if (!rc) {
		rc = refuse_families(ctx);
		if (!rc)
			rc = seccomp_load(ctx);
		seccomp_release(ctx);
	}
	if (!rc)
		return 0;
	return error_set(err, rc, "user: its seccomp filter: %s",
			 strerror(-rc));
}

static int limit(int resource, rlim_t most)
{
	struct rlimit now;

	if (getrlimit(resource, &now))
		return -errno;
	now.rlim_max = MIN(now.rlim_max, most);
	now.rlim_cur = MIN(now.rlim_cur, now.rlim_max);
	return setrlimit(resource, &now) ? -errno : 0;
}

static int set_limits(struct error *err)
{
	int rc = limit(RLIMIT_NOFILE, USER_FDS_MAX);

	if (!rc)
		rc = limit(RLIMIT_DATA, MEMORY_BYTES);
	if (!rc)
		rc = limit(RLIMIT_CORE, 0);
	if (!rc)
		return 0;
	return error_set(err, rc, "user: its limits: %s", strerror(-rc));
}

/*
 * To all files; the real user stays, so that the other process, which has no
 * capabilities, can end this one. Who may not is somebody without rights
 * already.
 */
static int become_nobody(struct error *err)
{
	if (geteuid())
		return 0;
	if ((setgroups(0, NULL) || setresgid(-1U, NOBODY, NOBODY) ||
	     setresuid(-1U, NOBODY, NOBODY)) &&
	    errno != EPERM && errno != EINVAL)
		return error_set(err, -errno, "user: to be nobody: %s",
				 strerror(errno));
	/* A change of user takes this back. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

static int confine_reading(struct error *err)
{
	char path[PATH_MAX] = RESOLVER;
	int dirs[2] = { open("/etc", O_PATH | O_DIRECTORY | O_CLOEXEC), -1 };
	size_t n = dirs[0] >= 0;
	int rc;

	if (realpath(RESOLVER, path)) {
		*strrchr(path, '/') = '\0';
		dirs[n] = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		n += dirs[n] >= 0;
	}
	rc = sandbox_confine_opening(dirs, n, false, err);
	if (rc == -ENOSYS) {
		log_info("this kernel has no Landlock: the user network's "
			 "process may read what its user may");
		rc = 0;
	}
	close_fd(&dirs[0]);
	close_fd(&dirs[1]);
	return rc;
}

int user_cage_enter(struct error *err)
{
	int rc = set_limits(err);

	if (!rc)
		rc = become_nobody(err);
	if (!rc)
		rc = sandbox_give_up(err);
	if (!rc)
		rc = confine_reading(err);
	return rc ? rc : filter(err);
}
#endif
