// SPDX-License-Identifier: MIT
/*
 * The directory of control sockets; see rundir.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/rundir.h"

#define SUFFIX ".sock"

/* Hidden names that are tried, ".PID-N.sock". */
#define HIDDEN_MAX 64

/* ---- the directory ---- */

static int find_path(char *path, size_t size, struct error *err)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	int n;

	if (xdg && xdg[0] == '/')
		n = snprintf(path, size, "%s/godwit", xdg);
	else if (geteuid() == 0)
		n = snprintf(path, size, "/run/godwit");
	else
		n = snprintf(path, size, "/tmp/godwit-%u", geteuid());
	if (n < 0 || (size_t)n >= size)
		return error_set(err, -ENAMETOOLONG,
				 "XDG_RUNTIME_DIR=%.200s: too long for a "
				 "socket's path; set a shorter one",
				 xdg);
	return 0;
}

static int check_owner(const struct rundir *dir, struct error *err)
{
	struct stat st;

	if (fstat(dir->fd, &st))
		return error_set(err, -errno, "%s: %s", dir->path,
				 strerror(errno));
	if (st.st_uid != geteuid())
		return error_set(err, -EPERM,
				 "%s: belongs to user %u, not to you; remove "
				 "it, or set XDG_RUNTIME_DIR",
				 dir->path, st.st_uid);
	if (st.st_mode & 077)
		return error_set(err, -EPERM,
				 "%s: others may enter (mode %03o); chmod 700 "
				 "it",
				 dir->path, st.st_mode & 0777);
	return 0;
}

int rundir_open(bool create, struct rundir *ret, struct error *err)
{
	int rc;

	ret->fd = -1;
	rc = find_path(ret->path, sizeof(ret->path), err);
	if (rc)
		return rc;
	if (create && mkdir(ret->path, 0700) && errno != EEXIST)
		return error_set(err, -errno,
				 "%s: %s; the VM's control socket would be "
				 "there: set XDG_RUNTIME_DIR to a directory of "
				 "your own, or unset it",
				 ret->path, strerror(errno));
	ret->fd = open(ret->path,
		       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (ret->fd < 0)
		return error_set(err, -errno, "%s: %s", ret->path,
				 errno == ENOTDIR || errno == ELOOP
					 ? "not a directory; remove it"
					 : strerror(errno));
	rc = check_owner(ret, err);
	if (rc)
		rundir_close(ret);
	return rc;
}

void rundir_close(struct rundir *dir)
{
	close_fd(&dir->fd);
}

/* Nobody holds it for longer than a few system calls. */
static void lock(const struct rundir *dir)
{
	while (flock(dir->fd, LOCK_EX) && errno == EINTR)
		;
}

static void unlock(const struct rundir *dir)
{
	(void)flock(dir->fd, LOCK_UN);
}

/* ---- sockets ---- */

static int make_address(const struct rundir *dir, const char *file,
			struct sockaddr_un *ret, struct error *err)
{
	int n;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s", dir->path,
		     file);
	if (n < 0 || (size_t)n >= sizeof(ret->sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "%s/%s: a socket's path has at most %zu "
				 "bytes; take a shorter name or "
				 "XDG_RUNTIME_DIR",
				 dir->path, file, sizeof(ret->sun_path) - 1);
	return 0;
}

/* A connection, or -errno: -ENOENT, -ECONNREFUSED (stale), -EAGAIN (busy). */
static int try_connect(const struct sockaddr_un *address, int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
		rc = -errno;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/* Is somebody listening there? Who, if that can be told: else *ret_pid is 0. */
static bool is_alive(const struct sockaddr_un *address, pid_t *ret_pid)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	int fd = try_connect(address, SOCK_NONBLOCK);

	*ret_pid = 0;
	if (fd < 0)
		return fd == -EAGAIN;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		*ret_pid = cred.pid;
	close(fd);
	return true;
}

/* Make way for @file unless it is somebody's. The directory is locked. */
static int make_way(const struct rundir *dir, const char *file,
		    struct sockaddr_un *address, struct error *err)
{
	pid_t pid;
	int rc = make_address(dir, file, address, err);

	if (rc)
		return rc;
	if (is_alive(address, &pid))
		return error_set(err, -EADDRINUSE,
				 "taken by process %d; choose another with "
				 "--name",
				 pid);
	if (unlinkat(dir->fd, file, 0) && errno != ENOENT)
		return error_set(err, -errno, "%s/%s: %s", dir->path, file,
				 strerror(errno));
	return 0;
}

static int bind_hidden(const struct rundir *dir, struct rundir_socket *sock,
		       struct error *err)
{
	struct sockaddr_un address;
	int rc = -EADDRINUSE;

	for (int n = 0; n < HIDDEN_MAX && rc == -EADDRINUSE; n++) {
		snprintf(sock->file, sizeof(sock->file), ".%d-%d" SUFFIX,
			 getpid(), n);
		rc = make_way(dir, sock->file, &address, err);
	}
	if (rc)
		return rc;
	/* The file's mode is the socket's; no umask to change and restore. */
	if (fchmod(sock->fd, 0600) ||
	    bind(sock->fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(sock->fd, 16))
		return error_set(err, -errno, "%s: %s", address.sun_path,
				 strerror(errno));
	return 0;
}

int rundir_listen(const struct rundir *dir, struct rundir_socket *ret,
		  struct error *err)
{
	int rc;

	ret->file[0] = '\0';
	ret->fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ret->fd < 0)
		return error_set(err, -errno, "control socket: %s",
				 strerror(errno));
	lock(dir);
	rc = bind_hidden(dir, ret, err);
	unlock(dir);
	if (rc) {
		error_prefix(err, "control socket");
		ret->file[0] = '\0';
		rundir_remove(dir, ret);
	}
	return rc;
}

static int rename_to(const struct rundir *dir, struct rundir_socket *sock,
		     const char *file, struct error *err)
{
	struct sockaddr_un address;
	int rc = make_way(dir, file, &address, err);

	if (rc)
		return rc;
	if (renameat(dir->fd, sock->file, dir->fd, file))
		return error_set(err, -errno, "%s: %s", address.sun_path,
				 strerror(errno));
	snprintf(sock->file, sizeof(sock->file), "%s", file);
	return 0;
}

int rundir_claim(const struct rundir *dir, struct rundir_socket *sock,
		 const char *name, struct error *err)
{
	char file[sizeof(sock->file)];
	int rc;

	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	lock(dir);
	rc = rename_to(dir, sock, file, err);
	unlock(dir);
	if (rc)
		error_prefix(err, "name '%s'", name);
	return rc;
}

void rundir_unclaim(const struct rundir *dir, struct rundir_socket *sock)
{
	struct error ignored;
	char file[sizeof(sock->file)];
	int rc = -EADDRINUSE;

	lock(dir);
	for (int n = 0; n < HIDDEN_MAX && rc == -EADDRINUSE; n++) {
		snprintf(file, sizeof(file), ".%d-%d" SUFFIX, getpid(), n);
		rc = rename_to(dir, sock, file, &ignored);
	}
	unlock(dir);
}

void rundir_remove(const struct rundir *dir, struct rundir_socket *sock)
{
	/* Only the one who listens may take the name away, and does so first.
	 */
	if (sock->file[0])
		(void)unlinkat(dir->fd, sock->file, 0);
	sock->file[0] = '\0';
	close_fd(&sock->fd);
}

int rundir_connect(const struct rundir *dir, const char *name,
		   struct error *err)
{
	struct sockaddr_un address;
	char file[MACHINE_NAME_MAX + sizeof(SUFFIX)];
	int rc;

	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	rc = make_address(dir, file, &address, err);
	if (rc)
		return rc;
	/* One that hangs has no place in its queue, after a while. */
	rc = try_connect(&address, SOCK_NONBLOCK);
	if (rc == -EAGAIN)
		return error_set(err, rc, "the VM's process does not answer");
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return error_set(err, -ENOENT,
				 "no VM '%s' here; `godwit list` shows those "
				 "that run",
				 name);
	if (rc < 0)
		return error_set(err, rc, "%s: %s", address.sun_path,
				 strerror(-rc));
	(void)fcntl(rc, F_SETFL, fcntl(rc, F_GETFL) & ~O_NONBLOCK);
	return rc;
}

/* ---- listing ---- */

static bool is_socket_file(const char *file)
{
	size_t len = strlen(file);

	return len > strlen(SUFFIX) &&
	       !strcmp(file + len - strlen(SUFFIX), SUFFIX);
}

/* Whether @file is a VM's; a stale one is gone then. Locked. */
static bool keep(const struct rundir *dir, const char *file)
{
	struct sockaddr_un address;
	struct error ignored;
	pid_t pid;

	if (!is_socket_file(file) ||
	    make_address(dir, file, &address, &ignored))
		return false;
	if (is_alive(&address, &pid))
		return file[0] != '.';
	(void)unlinkat(dir->fd, file, 0);
	return false;
}

static int compare(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int rundir_list(const struct rundir *dir,
		void (*fn)(void *opaque, const char *name), void *opaque,
		struct error *err)
{
	struct dirent **files;
	int n = scandir(dir->path, &files, NULL, compare);

	if (n < 0)
		return error_set(err, -errno, "%s: %s", dir->path,
				 strerror(errno));
	for (int i = 0; i < n; i++) {
		char *file = files[i]->d_name;
		bool alive;

		lock(dir);
		alive = keep(dir, file);
		unlock(dir);
		if (alive) {
			file[strlen(file) - strlen(SUFFIX)] = '\0';
			fn(opaque, file);
		}
		free(files[i]);
	}
	free(files);
	return 0;
}
