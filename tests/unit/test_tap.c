// SPDX-License-Identifier: MIT
/*
 * Taps: real ones, in a network namespace of each test's own; and what is
 * refused, with its remedy.
 */
#include "devices/backend/tap.h"
#include "tests/unit/tap_rig.h"

static int try_open(const char *name, int fd, unsigned int queues,
		    struct tap **ret, struct error *err)
{
	const struct tap_params params = { .name = name,
					   .fd = fd,
					   .queues = queues };

	err->text[0] = '\0';
	return tap_open(&params, ret, err);
}

static struct tap *open_it(const char *name, unsigned int queues)
{
	struct error err;
	struct tap *tap;

	ck_assert_msg(!try_open(name, -1, queues, &tap, &err), "%s", err.text);
	return tap;
}

static void refuses(const char *name, int fd, unsigned int queues, int code,
		    const char *remedy)
{
	struct error err;
	struct tap *tap = NULL;

	ck_assert_int_eq(try_open(name, fd, queues, &tap, &err), code);
	ck_assert_msg(strstr(err.text, remedy), "'%s' has no '%s'", err.text,
		      remedy);
	ck_assert_ptr_null(tap);
}

START_TEST(tap_that_is_not_there_is_refused_and_not_made)
{
	if (!tap_rig_enter())
		return;
	refuses("tap9", -1, 1, -ENODEV, "ip tuntap add dev tap9 mode tap");
	ck_assert_uint_eq(if_nametoindex("tap9"), 0);
	refuses("lo", -1, 1, -EINVAL, "no tap");
}
END_TEST

START_TEST(tap_belongs_to_one_at_a_time)
{
	struct tap *tap;

	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(tap_rig_make("one", 0), 0);
	ck_assert_int_eq(tap_rig_make("many", IFF_MULTI_QUEUE), 0);
	tap = open_it("one", 1);
	refuses("one", -1, 1, -EBUSY, "in use");
	tap_close(tap);
	tap_close(open_it("one", 1));
	/* One that several could attach to as well. */
	tap = open_it("many", 2);
	refuses("many", -1, 1, -EBUSY, "in use");
	refuses("many", -1, 3, -EBUSY, "in use");
	tap_close(tap);
	tap_close(open_it("many", 15));
	tap_close(open_it("many", 1));
}
END_TEST

START_TEST(tap_of_one_queue_has_one)
{
	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(tap_rig_make("one", 0), 0);
	refuses("one", -1, 2, -EINVAL, "multi_queue");
}
END_TEST

START_TEST(tap_carries_frames_with_their_headers)
{
	uint8_t frame[12 + 64] = { 0 }, got[80];
	struct tap *tap;
	int wire;

	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(tap_rig_make("one", 0), 0);
	tap = open_it("one", 1);
	ck_assert_str_eq(tap_name(tap), "one");
	ck_assert_uint_eq(tap_mtu(tap), 1500);
	ck_assert(tap_is_interface(tap));
	wire = tap_rig_wire("one");
	tap_rig_send(wire, 7);
	ck_assert_uint_eq(tap_rig_next(tap_fd(tap, 0)), 7);
	tap_rig_fill(frame + 12, 8);
	ck_assert_int_eq(write(tap_fd(tap, 0), frame, sizeof(frame)),
			 sizeof(frame));
	ck_assert_int_eq(recv(wire, got, sizeof(got), 0), 64);
	ck_assert_uint_eq(got[63], 8);
	/* Offloads that there are, and some that make no sense alone. */
	tap_set_offloads(tap, TAP_CSUM | TAP_TSO4 | TAP_TSO6 | TAP_ECN);
	tap_set_offloads(tap, TAP_TSO4);
	tap_set_offloads(tap, 0);
	close(wire);
	tap_close(tap);
}
END_TEST

START_TEST(tap_that_is_hushed_keeps_nothing)
{
	struct error err;
	struct tap *tap, *copy;
	int wire;

	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(tap_rig_make("one", 0), 0);
	tap = open_it("one", 1);
	wire = tap_rig_wire("one");
	tap_rig_send(wire, 1);
	tap_hush(tap);
	tap_rig_send(wire, 2);
	ck_assert_int_eq(tap_dup(tap, 1, &copy, &err), 0);
	tap_rig_send(wire, 3);
	tap_hear(copy);
	tap_rig_send(wire, 4);
	ck_assert_uint_eq(tap_rig_next(tap_fd(copy, 0)), 4);
	/* An attempt that failed, and the next one. */
	tap_close(copy);
	tap_rig_send(wire, 5);
	ck_assert_int_eq(tap_dup(tap, 1, &copy, &err), 0);
	tap_hush(copy);
	tap_rig_send(wire, 6);
	tap_hear(copy);
	ck_assert_uint_eq(tap_rig_next(tap_fd(copy, 0)), 0);
	tap_rig_send(wire, 7);
	ck_assert_uint_eq(tap_rig_next(tap_fd(copy, 0)), 7);
	tap_close(copy);
	tap_close(tap);
	close(wire);
}
END_TEST

START_TEST(tap_spreads_frames_over_the_queues_that_are_on)
{
	struct tap *tap;
	int wire;

	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(tap_rig_make("many", IFF_MULTI_QUEUE), 0);
	tap = open_it("many", 4);
	wire = tap_rig_wire("many");
	ck_assert_uint_eq(tap_queues(tap), 4);
	/* All to the first, while the others are off. */
	for (uint8_t i = 1; i < 100; i++)
		tap_rig_send(wire, i);
	for (uint8_t i = 1; i < 100; i++)
		ck_assert_uint_eq(tap_rig_next(tap_fd(tap, 0)), i);
	tap_set_queues(tap, 4);
	tap_set_queues(tap, 2);
	for (uint8_t i = 1; i < 100; i++)
		tap_rig_send(wire, i);
	for (unsigned int n = 1; n < 100; n++)
		ck_assert(tap_rig_next(tap_fd(tap, 0)) ||
			  tap_rig_next(tap_fd(tap, 1)));
	tap_close(tap);
	close(wire);
}
END_TEST

START_TEST(tap_is_a_descriptor_that_was_opened_before)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	struct error err;
	struct tap *tap;
	int pair[2], fd;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	ck_assert_int_eq(try_open(NULL, pair[0], 1, &tap, &err), 0);
	ck_assert(!tap_is_interface(tap));
	ck_assert_int_eq(fcntl(pair[0], F_GETFD), FD_CLOEXEC);
	ck_assert(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
	tap_close(tap);
	close(pair[1]);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	refuses(NULL, pair[0], 1, -EINVAL, "keeps messages apart");
	refuses(NULL, 1000, 1, -EBADF, "open descriptor");
	refuses(NULL, open("/dev/null", O_RDWR), 1, -EINVAL, "neither a tap");
	close(pair[1]);
	if (!tap_rig_enter())
		return;
	fd = open("/dev/net/tun", O_RDWR);
	ck_assert_int_eq(ioctl(fd, TUNSETIFF, &ifr), 0);
	refuses(NULL, fd, 1, -EINVAL, "IFF_VNET_HDR");
	fd = open("/dev/net/tun", O_RDWR);
	ifr = (struct ifreq){ .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	ck_assert_int_eq(ioctl(fd, TUNSETIFF, &ifr), 0);
	ck_assert_int_eq(try_open(NULL, fd, 1, &tap, &err), 0);
	ck_assert_str_eq(tap_name(tap), ifr.ifr_name);
	tap_close(tap);
}
END_TEST

UNIT_SUITE("tap", tap_that_is_not_there_is_refused_and_not_made,
	   tap_belongs_to_one_at_a_time, tap_of_one_queue_has_one,
	   tap_carries_frames_with_their_headers,
	   tap_that_is_hushed_keeps_nothing,
	   tap_spreads_frames_over_the_queues_that_are_on,
	   tap_is_a_descriptor_that_was_opened_before)
