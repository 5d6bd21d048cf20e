// SPDX-License-Identifier: MIT
/*
 * The other end; see peer.h.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/inproc/frames.h"
#include "tests/inproc/peer.h"
#include "tests/unit/unit.h"
#include "vmm/vm_balloon.h"

/* As the guest has it. */
#define LAST	 (1ULL << 63)
#define UNWANTED (1ULL << 62)
#define SENT	 8
#define SAID	 200000U
#define WANTED	 256 /* pages */

enum {
	HERE,
	THERE
};

/* ---- the network ---- */

static void send_as(struct peer *peer, uint64_t number, const uint8_t *front)
{
	uint8_t message[FRAME_MESSAGE];
	size_t len = frame_put(message, number, front);

	ck_assert_int_eq(send(peer->seats[HERE].far, message, len, 0),
			 (ssize_t)len);
}

static void send_span(struct peer *peer, uint64_t first, uint64_t last)
{
	for (uint64_t number = first; number <= last; number++)
		send_as(peer, number, frame_to_guest);
}

/* Until the card has taken all that was sent. */
static void await_taken(struct peer *peer)
{
	int left;

	do {
		sched_yield();
		ck_assert(!ioctl(peer->seats[HERE].far, SIOCOUTQ, &left));
	} while (left);
}

static void send_three(struct peer *peer)
{
	send_span(peer, 1, 3);
}

static void send_eight(struct peer *peer)
{
	send_span(peer, 1, 8);
	await_taken(peer);
}

/* One that takes six buffers of the guest's at that point. */
static void send_large(struct peer *peer)
{
	send_as(peer, 14, frame_to_guest);
	await_taken(peer);
}

static void send_last(struct peer *peer)
{
	send_span(peer, LAST | 15, LAST | 15);
}

static void send_two(struct peer *peer)
{
	send_as(peer, 14, frame_to_guest);
	send_last(peer);
}

/*
 * In a frame with a VLAN tag that is where the number begins: in an order that
 * is none for numbers.
 */
#define TAGGED(vlan) ((uint64_t)(vlan) << 8)

static void send_to_all(struct peer *peer)
{
	static const struct {
		uint64_t number;
		uint8_t front[FRAME_FRONT];
	} frames[] = {
		{ UNWANTED,
		  { 2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ UNWANTED,
		  { 2, 0, 0, 0, 0, 6, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ UNWANTED,
		  { 3, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ UNWANTED | TAGGED(200),
		  { 2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 1, 0x81, 0 } },
		{ 1, { 2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ 2, { 2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ 3, { 0x33, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x88, 0xb5 } },
		{ TAGGED(100),
		  { 2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 1, 0x81, 0 } },
		{ LAST,
		  { 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88,
		    0xb5 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		send_as(peer, frames[i].number, frames[i].front);
}

/* With promiscuous mode off: to another, and to the guest. */
static void send_to_other(struct peer *peer)
{
	static const uint8_t other[FRAME_FRONT] = { 2, 0, 0, 0, 0, 9,	 2,
						    0, 0, 0, 0, 1, 0x88, 0xb5 };

	send_as(peer, UNWANTED, other);
	send_last(peer);
}

/* The next frame of the guest's that came to that seat; 0: none. */
static uint64_t hear_at(const struct peer_seat *seat)
{
	uint8_t message[FRAME_MESSAGE], wanted[FRAME_MESSAGE];
	uint64_t number;
	ssize_t n;

	while ((n = recv(seat->far, message, sizeof(message), MSG_DONTWAIT)) >
	       0) {
		/* The card tells the network where the guest is. */
		if (n < FRAME_HEADER + FRAME_MIN ||
		    memcmp(message + FRAME_HEADER, frame_to_network,
			   FRAME_FRONT))
			continue;
		memcpy(&number, message + FRAME_HEADER + FRAME_FRONT,
		       FRAME_NUMBER);
		ck_assert_uint_eq((size_t)n,
				  frame_put(wanted, number, frame_to_network));
		ck_assert_mem_eq(message + FRAME_HEADER, wanted + FRAME_HEADER,
				 (size_t)n - FRAME_HEADER);
		return number;
	}
	return 0;
}

/* Each once and in order, from where the guest was, then from where it is. */
static void hear_sent(struct peer *peer)
{
	for (uint64_t wanted = 1; wanted <= SENT;) {
		struct pollfd fd = { peer->seats[HERE].far, POLLIN, 0 };
		uint64_t number = hear_at(&peer->seats[THERE]);

		if (!number)
			number = hear_at(&peer->seats[HERE]);
		if (!number) {
			poll(&fd, 1, -1);
			continue;
		}
		ck_assert_uint_eq(number, wanted);
		wanted++;
	}
	ck_assert_uint_eq(hear_at(&peer->seats[HERE]), 0);
}

/* ---- the balloon ---- */

static void want_pages(struct peer *peer, uint64_t pages)
{
	struct vm *vm = peer->seats[HERE].host->vm;
	struct error err;

	ck_assert_msg(!vm_balloon_set(
			      vm, vm_memory(vm)->size - pages * GUEST_PAGE_SIZE,
			      &err),
		      "%s", err.text);
}

static void want_some(struct peer *peer)
{
	want_pages(peer, WANTED);
}

static void want_none(struct peer *peer)
{
	want_pages(peer, 0);
}

static void look_at_statistics(struct peer *peer)
{
	uint64_t wanted = ~(uint64_t)peer->asked;
	struct balloon_info info;

	do {
		sched_yield();
		ck_assert(vm_balloon_look(peer->seats[HERE].host->vm, &info));
	} while (info.stats[BALLOON_FREE] != wanted);
}

static void want_hints(struct peer *peer)
{
	ck_assert(vm_hints_begin(peer->seats[HERE].host->vm));
}

/* As a migration that has failed does; the guest doesn't know yet. */
static void end_hints(struct peer *peer)
{
	vm_hints_end(peer->seats[HERE].host->vm);
}

/* ---- the console ---- */

static uint8_t byte_of(uint32_t at)
{
	return (uint8_t)(at % 251);
}

static void resize(struct peer *peer)
{
	for (int i = 0; i < 2; i++)
		line_resize(peer->seats[i].host->hvc,
			    (struct line_size){ 80, 25 });
}

static void enlarge(struct peer *peer)
{
	line_resize(peer->seats[HERE].host->hvc, (struct line_size){ 132, 43 });
}

/*
 * What came to that seat, no further than SAID: the guest may say the next
 * thing already. The first of it is byte @at. Return: the next.
 */
static uint32_t read_at(const struct peer_seat *seat, uint32_t at)
{
	uint8_t bytes[4096];
	ssize_t n;

	while (at < SAID && (n = read(seat->host->hvc_out[0], bytes,
				      MIN(sizeof(bytes), SAID - at))) > 0) {
		for (ssize_t i = 0; i < n; i++, at++)
			ck_assert_msg(bytes[i] == byte_of(at),
				      "byte %u is 0x%x, not 0x%x", at, bytes[i],
				      byte_of(at));
	}
	return at;
}

static void read_said(struct peer *peer)
{
	uint32_t at = read_at(&peer->seats[THERE], 0);

	for (;;) {
		struct pollfd fd = { peer->seats[HERE].host->hvc_out[0], POLLIN,
				     0 };

		at = read_at(&peer->seats[HERE], at);
		if (at >= SAID)
			break;
		poll(&fd, 1, -1);
	}
}

/* At once: in bits it would take more of the guest's buffers. */
static void type(struct peer *peer, uint32_t at, uint32_t end)
{
	uint8_t bytes[64];
	uint32_t n = end - at;

	for (uint32_t i = 0; i < n; i++)
		bytes[i] = byte_of(at + i);
	ck_assert_int_eq(write(peer->seats[HERE].host->hvc_in[1], bytes, n), n);
}

static void type_all(struct peer *peer)
{
	type(peer, 0, 40);
}

/* Until the guest's buffers have them. */
static void type_some(struct peer *peer)
{
	int left;

	type(peer, 0, 24);
	do {
		sched_yield();
		ck_assert(!ioctl(peer->seats[HERE].host->hvc_in[0], FIONREAD,
				 &left));
	} while (left);
}

static void type_rest(struct peer *peer)
{
	type(peer, 24, 40);
}

/* ---- the points ---- */

static const struct {
	const char *point;
	void (*before)(struct peer *peer);
	void (*asked)(struct peer *peer);
} scenes[] = {
	{ "card-set-up", send_three, send_two },
	{ "card-receiving", send_eight, send_last },
	{ "card-half-received", send_large, send_two },
	{ "card-starved", send_three, send_last },
	{ "card-sending", NULL, hear_sent },
	{ "card-not-rung", NULL, hear_sent },
	{ "card-filtering", NULL, send_to_all },
	{ "card-commanded", NULL, send_to_other },
	{ "balloon-wanted", want_some, want_none },
	{ "balloon-statistics", NULL, look_at_statistics },
	{ "balloon-hinting", end_hints, want_hints },
	{ "console-size", resize, enlarge },
	{ "console-half-said", NULL, read_said },
	{ "console-not-rung", NULL, read_said },
	{ "console-hearing", NULL, type_all },
	{ "console-heard", type_some, type_rest },
};

/* The guest is at @here. */
static void sit_down(struct peer *peer, const struct rig_host *here)
{
	struct peer_seat other = peer->seats[THERE];

	if (other.host != here)
		return;
	peer->seats[THERE] = peer->seats[HERE];
	peer->seats[HERE] = other;
}

void peer_before(struct peer *peer, const struct rig_host *here,
		 const char *point)
{
	sit_down(peer, here);
	peer->asked = 0;
	for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
		if (!strcmp(scenes[i].point, point) && scenes[i].before)
			scenes[i].before(peer);
	}
}

void peer_ask(struct peer *peer, const struct rig_host *here, const char *point)
{
	sit_down(peer, here);
	peer->asked++;
	for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
		if (!strcmp(scenes[i].point, point) && scenes[i].asked)
			scenes[i].asked(peer);
	}
}

void peer_init(struct peer *peer, struct rig_host *here, struct rig_host *there)
{
	struct rig_host *hosts[] = { here, there };

	*peer = (struct peer){ .asked = 0 };
	for (int i = 0; i < 2; i++) {
		int pair[2];

		ck_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
				      pair));
		peer->seats[i] =
			(struct peer_seat){ hosts[i], pair[0], pair[1] };
		rig_give_card(hosts[i], pair[0]);
	}
}

void peer_fini(struct peer *peer)
{
	for (int i = 0; i < 2; i++) {
		close(peer->seats[i].near);
		close(peer->seats[i].far);
	}
}
