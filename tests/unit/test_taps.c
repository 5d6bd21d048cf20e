// SPDX-License-Identifier: MIT
/*
 * Taps of a command line: which device gets which, and what a machine and its
 * `show` line say of them. Sockets stand for most.
 */
#include "devices/backend/tap.h"
#include "devices/virtio/net.h"
#include "tests/unit/tap_rig.h"
#include "vmm/taps.h"

static int give_socket(struct tap_options *options, const char *id)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	*options = (struct tap_options){ .queues = 1,
					 .vectors = 4,
					 .fd = pair[0] };
	snprintf(options->id, sizeof(options->id), "%s", id);
	return pair[1];
}

static int ask(struct taps *taps, const char *id, unsigned int queues,
	       struct tap **ret, struct error *err)
{
	const struct device_taps *backends = taps_backends(taps);

	err->text[0] = '\0';
	return backends->open_tap(backends->opaque, id, "tap7", queues, false,
				  ret, err);
}

START_TEST(run_describes_the_devices_that_it_was_told_of)
{
	static const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
	struct taps_options options = { .count = 2 };
	struct machine machine = { 0 };
	struct net_options first, second;
	struct error err = { "" };
	struct taps *taps;
	struct tap *tap;
	char *words;
	size_t size;
	FILE *to;

	give_socket(&options.taps[0], "net0");
	give_socket(&options.taps[1], "lan");
	options.taps[1].has_mac = true;
	memcpy(options.taps[1].mac, mac, sizeof(mac));
	ck_assert_int_eq(taps_open(&options, false, false, &taps, &err), 0);
	ck_assert_int_eq(taps_add_devices(taps, &machine, &err), 0);
	ck_assert_uint_eq(machine.ndevices, 2);
	ck_assert_str_eq(machine.devices[0].type, "virtio-net");
	ck_assert_uint_eq(machine.devices[0].vectors, 4);
	ck_assert_int_eq(
		net_options_parse(machine.devices[0].options, &first, &err), 0);
	ck_assert_int_eq(
		net_options_parse(machine.devices[1].options, &second, &err),
		0);
	/* Made up: its own, and of a kind that nobody sells. */
	ck_assert_uint_eq(first.mac[0] & 3, 2);
	ck_assert(!memcmp(second.mac, options.taps[1].mac, 6));
	ck_assert_uint_eq(first.mtu, 1500);
	ck_assert_int_eq(ask(taps, "lan", 1, &tap, &err), 0);
	tap_close(tap);
	ck_assert_int_eq(ask(taps, "net7", 1, &tap, &err), -ENOENT);
	to = open_memstream(&words, &size);
	ck_assert(taps_put_words(taps, &machine.devices[1], to));
	ck_assert(!taps_put_words(taps, &(struct device_config){ .id = "x" },
				  to));
	fclose(to);
	snprintf(err.text, sizeof(err.text),
		 "fd=%d,id=lan,mac=52:54:00:12:34:56,queues=1,vectors=4",
		 options.taps[1].fd);
	ck_assert_str_eq(words, err.text);
	free(words);
	taps_free(taps);
}
END_TEST

START_TEST(listen_gives_what_it_was_told_to_and_nothing_else)
{
	struct taps_options options = { .count = 1 };
	int wire = give_socket(&options.taps[0], "net0");
	struct error err = { "" };
	struct taps *taps;
	struct tap *tap;
	char byte;

	ck_assert_int_eq(taps_open(&options, true, false, &taps, &err), 0);
	ck_assert_int_eq(ask(taps, "net1", 1, &tap, &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "--net net1=tap=NAME"));
	ck_assert_ptr_nonnull(strstr(err.text, "'tap7'"));
	ck_assert_int_eq(ask(taps, "net0", 2, &tap, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.text, "queues=2"));
	/* What came for nobody is nobody's, in each attempt. */
	for (int attempt = 0; attempt < 2; attempt++) {
		ck_assert_int_eq(send(wire, "x", 1, 0), 1);
		ck_assert_int_eq(ask(taps, "net0", 1, &tap, &err), 0);
		ck_assert_int_eq(read(tap_fd(tap, 0), &byte, 1), -1);
		tap_close(tap);
	}
	taps_free(taps);
	/* And it is closed in the end. */
	ck_assert_int_eq(read(wire, &byte, 1), 0);
	close(wire);
}
END_TEST

START_TEST(a_tap_that_is_not_there_is_named)
{
	struct taps_options options = { .count = 1,
					.taps = { { .id = "net0",
						    .name = "tap9",
						    .fd = -1,
						    .queues = 1 } } };
	struct error err = { "" };
	struct taps *taps;

	if (!tap_rig_enter())
		return;
	ck_assert_int_eq(taps_open(&options, false, false, &taps, &err),
			 -ENODEV);
	ck_assert(!strncmp(err.text, "--net: tap tap9: ", 17));
	ck_assert_int_eq(tap_rig_make("tap9", 0), 0);
	ck_assert_int_eq(taps_open(&options, false, false, &taps, &err), 0);
	taps_free(taps);
}
END_TEST

UNIT_SUITE("taps", run_describes_the_devices_that_it_was_told_of,
	   listen_gives_what_it_was_told_to_and_nothing_else,
	   a_tap_that_is_not_there_is_named)
