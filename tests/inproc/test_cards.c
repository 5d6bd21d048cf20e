// SPDX-License-Identifier: MIT
/*
 * A guest with a network card is moved while frames come and go, as often as
 * they can, and the connection is cut anywhere.
 *
 * Each host has a socket that speaks as a tap does; the network behind it is a
 * thread that floods: what is for the guest goes to both. Frames are numbered,
 * and the guest sends each back (guests/net), and ends when a number comes
 * twice or late. So a move may cost one run of numbers, of those that were on
 * their way: all before it came back from the one host or the other, once, in
 * order and as they were, and all after it from the other.
 */
#include <poll.h>
#include <stdio.h>

#include "tests/inproc/frames.h"
#include "tests/inproc/rig.h"
#include "tests/unit/unit.h"

#define TIMES	    10
#define RECORDS_MAX 1000

#define AWAY 16U /* frames that were sent and are not back */

/* What came back from one end in one span. */
struct heard {
	uint64_t first; /* 0: nothing */
	uint64_t last;
	unsigned int gaps; /* between the two */
};

/* Ends: of the host that has the guest, and of the other. */
enum {
	HERE,
	THERE
};

struct network {
	struct rig_host *hosts[2];
	int near[2]; /* the hosts' */
	int far[2];  /* ours */
	uint64_t sent;
	uint64_t came; /* back, of all */
	/* A span: from when the guest is asked to be moved until it stays. */
	uint64_t before; /* the last that was sent before it */
	struct heard heard[2];
	_Atomic bool ending;
	pthread_t thread;
};

/* ---- frames ---- */

/*
 * There first: a copy that comes there after the guest was stopped here must
 * not be of a frame that it had here. A copy for which there is no room is
 * lost, as in any switch.
 */
static void send_next(struct network *net)
{
	uint8_t message[FRAME_MESSAGE];
	size_t size = frame_put(message, ++net->sent, frame_to_guest);

	for (int end = THERE; end >= HERE; end--)
		(void)!send(net->far[end], message, size, MSG_DONTWAIT);
}

/* Return: false: nothing has come. */
static bool hear_one(struct network *net, int end)
{
	struct heard *heard = &net->heard[end];
	uint8_t message[FRAME_MESSAGE], wanted[FRAME_MESSAGE];
	uint64_t number;
	ssize_t n = recv(net->far[end], message, sizeof(message), MSG_DONTWAIT);

	if (n < 0)
		return false;
	/* The guest, or its card, tells the network where it is. */
	if (n < FRAME_HEADER + FRAME_MIN ||
	    memcmp(message + FRAME_HEADER, frame_to_network, FRAME_FRONT))
		return true;
	memcpy(&number, message + FRAME_HEADER + FRAME_FRONT, FRAME_NUMBER);
	ck_assert_uint_gt(number, heard->last);
	ck_assert_uint_le(number, net->sent);
	ck_assert_uint_eq((size_t)n,
			  frame_put(wanted, number, frame_to_network));
	ck_assert_mem_eq(message + FRAME_HEADER, wanted + FRAME_HEADER,
			 (size_t)n - FRAME_HEADER);
	heard->gaps += heard->first && number != heard->last + 1;
	heard->first = heard->first ? heard->first : number;
	heard->last = number;
	net->came++;
	return true;
}

static void hear_all(struct network *net)
{
	for (int end = HERE; end <= THERE; end++) {
		while (hear_one(net, end))
			;
	}
}

static uint64_t last_heard(const struct network *net)
{
	return MAX(net->before,
		   MAX(net->heard[HERE].last, net->heard[THERE].last));
}

/* ---- the network ---- */

static void *run_network(void *opaque)
{
	struct network *net = opaque;

	while (!net->ending) {
		struct pollfd fds[] = { { net->far[HERE], POLLIN, 0 },
					{ net->far[THERE], POLLIN, 0 } };

		while (net->sent - last_heard(net) < AWAY)
			send_next(net);
		poll(fds, ARRAY_SIZE(fds), 1);
		hear_all(net);
	}
	return NULL;
}

static void begin_span(struct network *net)
{
	net->before = net->sent;
	for (int end = HERE; end <= THERE; end++)
		net->heard[end] = (struct heard){ 0 };
	net->ending = false;
	ck_assert(!pthread_create(&net->thread, NULL, run_network, net));
}

static void swap_ends(struct network *net)
{
	struct rig_host *host = net->hosts[HERE];
	struct heard heard = net->heard[HERE];
	int far = net->far[HERE];

	net->hosts[HERE] = net->hosts[THERE];
	net->heard[HERE] = net->heard[THERE];
	net->far[HERE] = net->far[THERE];
	net->hosts[THERE] = host;
	net->heard[THERE] = heard;
	net->far[THERE] = far;
}

/* All that will come back is here: the frame that was sent last, too. */
static void end_span(struct network *net, bool moved)
{
	net->ending = true;
	pthread_join(net->thread, NULL);
	if (moved)
		swap_ends(net);
	send_next(net);
	while (net->heard[HERE].last != net->sent) {
		struct pollfd fd = { net->far[HERE], POLLIN, 0 };

		ck_assert_msg(!rig_ended(net->hosts[HERE]),
			      "the guest has ended: it had a frame twice");
		poll(&fd, 1, 100);
		hear_all(net);
	}
}

/* How many runs of numbers, from the first of the span on, never came back. */
static unsigned int gaps(const struct heard *first, const struct heard *second,
			 uint64_t before)
{
	uint64_t last = first->first ? first->last : before;
	unsigned int n = first->gaps + second->gaps;

	n += first->first && first->first != before + 1;
	if (second->first) {
		ck_assert_uint_gt(second->first, last);
		n += second->first != last + 1;
	}
	return n;
}

/* A move, or an attempt, with frames on their way. Return: has it moved? */
static bool move_under_way(struct network *net, const struct rig_move *move,
			   struct rig_result *result)
{
	bool moved;

	begin_span(net);
	rig_move(net->hosts[HERE], net->hosts[THERE], move, result);
	moved = !result->source_rc;
	end_span(net, moved);
	if (moved) {
		ck_assert_uint_le(gaps(&net->heard[THERE], &net->heard[HERE],
				       net->before),
				  1);
	} else {
		ck_assert_uint_eq(net->heard[THERE].first, 0);
		ck_assert_uint_eq(gaps(&net->heard[HERE], &net->heard[THERE],
				       net->before),
				  0);
	}
	return moved;
}

static struct network *network_new(void)
{
	const struct rig_guest guest = { .elf = "net", .cmdline = "" };
	struct network *net = calloc(1, sizeof(*net));

	ck_assert_ptr_nonnull(net);
	for (int end = HERE; end <= THERE; end++) {
		int pair[2];

		ck_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				      pair));
		net->near[end] = pair[0];
		net->far[end] = pair[1];
		net->hosts[end] = rig_host_new();
		rig_give_card(net->hosts[end], pair[0]);
	}
	rig_boot(net->hosts[HERE], &guest);
	rig_expect(net->hosts[HERE], "ready\n");
	return net;
}

/* Each frame that the guest has had came back. */
static void network_end(struct network *net)
{
	unsigned long long frames;
	char line[200];

	rig_type(net->hosts[HERE], "q");
	rig_expect(net->hosts[HERE], "net: ");
	rig_read_line(net->hosts[HERE], line, sizeof(line));
	ck_assert_int_eq(sscanf(line, "frames=%llu", &frames), 1);
	ck_assert_uint_eq(frames, net->came);
	rig_expect_exit(net->hosts[HERE], 0);
	for (int end = HERE; end <= THERE; end++) {
		rig_host_free(net->hosts[end]);
		close(net->near[end]);
		close(net->far[end]);
	}
	free(net);
}

/* ---- the tests ---- */

START_TEST(no_frame_is_doubled_or_spoilt_and_those_of_the_pause_alone_are_lost)
{
	struct network *net = network_new();
	struct rig_result result;

	for (int i = 0; i < TIMES; i++)
		ck_assert_msg(move_under_way(net, &rig_move_default, &result),
			      "move %d: %s", i, result.source_error.text);
	ck_assert_uint_gt(net->came, (uint64_t)TIMES * AWAY);
	network_end(net);
}
END_TEST

START_TEST(no_frame_is_lost_by_an_attempt_that_fails_wherever_it_is_cut)
{
	struct network *net = network_new();
	struct rig_move move = rig_move_default;
	struct rig_result result;
	unsigned int after, failed = 0;
	bool cut = true;

	for (after = 0; cut && after < RECORDS_MAX; after++) {
		move.cut = (struct relay_cut){ .enabled = true,
					       .after = after,
					       .torn = after % 2 * 12 };
		failed += !move_under_way(net, &move, &result);
		cut = result.from_source == after;
	}
	ck_assert_uint_gt(failed, 10);
	ck_assert_uint_lt(after, RECORDS_MAX);
	network_end(net);
}
END_TEST

UNIT_SUITE("cards",
	   no_frame_is_doubled_or_spoilt_and_those_of_the_pause_alone_are_lost,
	   no_frame_is_lost_by_an_attempt_that_fails_wherever_it_is_cut)
