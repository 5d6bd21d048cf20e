/* SPDX-License-Identifier: MIT */
/*
 * A network for those who say anything at all into one: a namespace of their
 * own that has a loopback interface and nothing else, so that nothing they say
 * can leave the host, or be heard on it by others.
 */
#ifndef GODWIT_TESTS_ALONE_H
#define GODWIT_TESTS_ALONE_H

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Is there the loopback interface and no other? */
static bool alone_is(void)
{
	struct if_nameindex *all = if_nameindex();
	bool is = all && all[0].if_name && !strcmp(all[0].if_name, "lo") &&
		  !all[1].if_name;

	if (all)
		if_freenameindex(all);
	return is;
}

static bool alone_loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &ifr);

	if (fd >= 0)
		close(fd);
	return up;
}

/*
 * Enter one, for good: with the rights that we have, or those of a user
 * namespace. Return: false, having said why: the host doesn't let us.
 */
static bool alone_enter(void)
{
	if ((!unshare(CLONE_NEWNET) ||
	     !unshare(CLONE_NEWUSER | CLONE_NEWNET)) &&
	    alone_is() && alone_loopback_up())
		return true;
	fprintf(stderr, "skipped: no network namespace of one's own: %s\n",
		strerror(errno));
	return false;
}

#endif
