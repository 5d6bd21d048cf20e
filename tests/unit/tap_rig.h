/* SPDX-License-Identifier: MIT */
/*
 * Taps for tests: in a network namespace of the test's own, which nobody else
 * sees and which goes with the process. Where the host doesn't let us, a test
 * that needs one says so and ends.
 */
#ifndef GODWIT_TESTS_TAP_RIG_H
#define GODWIT_TESTS_TAP_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/util.h"

/* What a bare tap hears of nobody: for frames that tests send. */
#define TAP_RIG_ETHERTYPE 0x88b5 /* IEEE 802, for experiments */

/* A tap that stays, up. Return: 0 or -errno. */
static int __maybe_unused tap_rig_make(const char *name, int flags)
{
	struct ifreq ifr = {
		.ifr_flags =
			(short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags),
	};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, 1))
		rc = -errno;
	ifr.ifr_flags = IFF_UP;
	if (!rc && ioctl(control, SIOCSIFFLAGS, &ifr))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	close(control);
	return rc;
}

/* Return: false: there are no taps to be had here. */
static bool tap_rig_enter(void)
{
	int rc = unshare(CLONE_NEWNET) ? -errno : tap_rig_make("probe", 0);

	if (rc)
		fprintf(stderr, "skipped: no tap in a network namespace: %s\n",
			strerror(-rc));
	return !rc;
}

/* Whoever has it open is left with nothing. */
static void __maybe_unused tap_rig_delete(const char *name)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			    .nlmsg_type = RTM_DELLINK,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.link = { .ifi_index = (int)if_nametoindex(name) },
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t rest[256];
	} reply;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	ck_assert_int_eq(send(fd, &request, sizeof(request), 0),
			 sizeof(request));
	ck_assert_int_gt(recv(fd, &reply, sizeof(reply), 0), 0);
	ck_assert_int_eq(reply.error.error, 0);
	close(fd);
}

/* A socket that sends frames to who has the tap, as the network does. */
static int __maybe_unused tap_rig_wire(const char *name)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex(name),
		/* In network order. */
		.sll_protocol = (uint16_t)((TAP_RIG_ETHERTYPE & 0xff) << 8 |
					   TAP_RIG_ETHERTYPE >> 8),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)),
			 0);
	return fd;
}

/* A frame with @mark in it, of an Ethernet type that is the tests' own. */
static void __maybe_unused tap_rig_fill(uint8_t frame[64], uint8_t mark)
{
	memset(frame, mark, 64);
	memset(frame, 0xff, 6);
	frame[6] = 2;
	frame[12] = TAP_RIG_ETHERTYPE >> 8;
	frame[13] = TAP_RIG_ETHERTYPE & 0xff;
}

static void __maybe_unused tap_rig_send(int wire, uint8_t mark)
{
	uint8_t frame[64];

	tap_rig_fill(frame, mark);
	ck_assert_int_eq(send(wire, frame, sizeof(frame), 0), 64);
}

/*
 * The mark of the next frame of ours that waits in a tap; 0: none. The host's
 * own chatter is passed over.
 */
static uint8_t __maybe_unused tap_rig_next(int fd)
{
	uint8_t message[2048];
	ssize_t n;

	while ((n = read(fd, message, sizeof(message))) > 0) {
		if (n == 12 + 64 &&
		    message[12 + 12] == TAP_RIG_ETHERTYPE >> 8 &&
		    message[12 + 13] == (TAP_RIG_ETHERTYPE & 0xff))
			return message[12 + 63];
	}
	return 0;
}

#endif
