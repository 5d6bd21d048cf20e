// SPDX-License-Identifier: MIT
/*
 * The console device, as its driver and as the host's line see it: above all
 * that no byte is lost or said twice, to a reader that stalls or to a move.
 */
#include <errno.h>
#include <fcntl.h>

#include "devices/virtio/console.h"
#include "tests/unit/virtio_rig.h"

#define BUFFERS 0x100000

static struct line *line_of_rig;

struct ends {
	int type; /* what is written here is typed */
	int show; /* what is said is read here */
	int out;  /* the line's end, to fill */
};

/*
 * The rig makes the loop that the line needs as it makes the device: so the
 * line is made by its creation.
 */
static struct ends made;

static int create(const struct device_env *env,
		  const struct device_config *config, struct device **ret,
		  struct error *err)
{
	struct device_rig *rig = env->hooks_opaque;
	int in[2], out[2];

	ck_assert(!pipe(in) && !pipe(out));
	ck_assert(!fcntl(out[0], F_SETFL, O_NONBLOCK));
	made = (struct ends){ in[1], out[0], out[1] };
	rig_give_console(rig, in[0], out[1]);
	line_of_rig = rig->console;
	return console_create(env, config, ret, err);
}

struct driver {
	struct virtio_rig *rig;
	struct ends ends;
	struct line *line;
	struct vring rx;
	struct vring tx;
};

static void start_driver(struct driver *d)
{
	negotiate(d->rig, VIRTIO_BIT(VIRTIO_F_VERSION_1) |
				  VIRTIO_BIT(VIRTIO_F_RING_RESET) |
				  VIRTIO_BIT(CONSOLE_F_SIZE));
	enable_msix(d->rig, CONSOLE_VECTORS);
	common_write(d->rig, COMMON_CONFIG_VECTOR, 2, 2);
	set_up_queue(d->rig, CONSOLE_RX, CONSOLE_QUEUE_SIZE, &d->rx);
	set_up_queue(d->rig, CONSOLE_TX, CONSOLE_QUEUE_SIZE, &d->tx);
	driver_ok(d->rig);
}

static struct driver driver_new(void)
{
	struct driver d = { .rig = virtio_rig_new(create, CONSOLE_VECTORS) };

	d.ends = made;
	d.line = line_of_rig;
	RIG_OP(d.rig->base, resume);
	start_driver(&d);
	return d;
}

static void turn(struct driver *d)
{
	rig_turn_loop(d->rig->base);
}

/* Say @len bytes at @gpa by descriptor @index. */
static void say_at(struct driver *d, uint16_t index, uint64_t gpa, uint32_t len)
{
	vring_desc(&d->tx, index, gpa, len, 0, 0);
	vring_offer(&d->tx, index);
	notify(d->rig, CONSOLE_TX);
}

static void say(struct driver *d, uint16_t index, const char *text)
{
	uint64_t gpa = BUFFERS + index * 0x1000ULL;

	memcpy(memory_hva(d->rig->mem, gpa, strlen(text)), text, strlen(text));
	say_at(d, index, gpa, (uint32_t)strlen(text));
}

static void hear_into(struct driver *d, uint16_t index, uint32_t len)
{
	vring_desc(&d->rx, index, BUFFERS + 0x80000 + index * 0x1000ULL, len,
		   VRING_WRITE, 0);
	vring_offer(&d->rx, index);
	notify(d->rig, CONSOLE_RX);
}

static void expect_heard(struct driver *d, const char *text)
{
	uint32_t head, len;

	ck_assert(vring_take(&d->rx, &head, &len));
	ck_assert_uint_eq(len, strlen(text));
	ck_assert(!memcmp(memory_hva(d->rig->mem,
				     BUFFERS + 0x80000 + head * 0x1000ULL, len),
			  text, len));
}

static void type(struct driver *d, const char *text)
{
	ck_assert_int_eq(write(d->ends.type, text, strlen(text)),
			 (ssize_t)strlen(text));
}

static void expect_said(struct driver *d, const char *text)
{
	char said[256] = "";

	ck_assert_int_eq(read(d->ends.show, said, sizeof(said)),
			 (ssize_t)strlen(text));
	ck_assert_str_eq(said, text);
}

static bool taken(struct driver *d)
{
	uint32_t head, len;
	bool was = vring_take(&d->tx, &head, &len);

	ck_assert(!was || !len);
	return was;
}

static void driver_free(struct driver *d)
{
	virtio_rig_free(d->rig);
	close(d->ends.type);
	close(d->ends.show);
}

START_TEST(console_says_what_the_guest_says_in_order)
{
	struct driver d = driver_new();

	say(&d, 0, "one ");
	say(&d, 1, "two ");
	vring_desc(&d.tx, 2, BUFFERS, 2, VRING_NEXT, 3);
	vring_desc(&d.tx, 3, BUFFERS + 0x1000, 3, 0, 0);
	vring_offer(&d.tx, 2);
	notify(d.rig, CONSOLE_TX);
	turn(&d);
	expect_said(&d, "one two ontwo");
	ck_assert(taken(&d) && taken(&d) && taken(&d) && !taken(&d));
	ck_assert_uint_gt(d.rig->base->nmsis, 0);
	driver_free(&d);
}
END_TEST

START_TEST(console_hands_on_what_is_typed_when_there_is_room_for_it)
{
	struct driver d = driver_new();

	type(&d, "abcdef");
	turn(&d);
	ck_assert_uint_eq(vring_used_idx(&d.rx), 0);
	hear_into(&d, 0, 4);
	turn(&d);
	expect_heard(&d, "abcd");
	hear_into(&d, 1, 64);
	turn(&d);
	expect_heard(&d, "ef");
	/* A buffer that is there before anything is typed. */
	hear_into(&d, 2, 64);
	turn(&d);
	ck_assert_uint_eq(vring_used_idx(&d.rx), 2);
	type(&d, "g");
	turn(&d);
	expect_heard(&d, "g");
	driver_free(&d);
}
END_TEST

/* Fill the pipe, all but @room bytes; return how much that was. */
static size_t stall(struct driver *d)
{
	int flags = fcntl(d->ends.out, F_GETFL);
	char page[4096];
	size_t n = 0;

	memset(page, '.', sizeof(page));
	fcntl(d->ends.out, F_SETFL, flags | O_NONBLOCK);
	while (write(d->ends.out, page, sizeof(page)) > 0)
		n += sizeof(page);
	fcntl(d->ends.out, F_SETFL, flags);
	return n;
}

static void drain_page(struct driver *d)
{
	char page[4096];

	ck_assert_int_eq(read(d->ends.show, page, sizeof(page)), 4096);
}

/* Half of it fits into the pipe, then. */
static void say_half(struct driver *d)
{
	uint8_t *bytes = memory_hva(d->rig->mem, BUFFERS, 8192);

	stall(d);
	drain_page(d);
	memset(bytes, 'A', 4096);
	memset(bytes + 4096, 'B', 4096);
	say_at(d, 0, BUFFERS, 8192);
	turn(d);
	ck_assert(!taken(d));
}

/* Dots, then all of the one half, then all of the other, and nothing else. */
static void expect_halves(struct driver *d)
{
	size_t a = 0, b = 0;
	char page[4096];
	ssize_t n;

	for (;;) {
		turn(d);
		n = read(d->ends.show, page, sizeof(page));
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++) {
			ck_assert(page[i] != '.' || !a);
			ck_assert(page[i] != 'A' || !b);
			a += page[i] == 'A';
			b += page[i] == 'B';
		}
	}
	ck_assert_uint_eq(a, 4096);
	ck_assert_uint_eq(b, 4096);
}

START_TEST(console_waits_for_a_reader_that_stalls_and_goes_on_where_it_was)
{
	struct driver d = driver_new();

	say_half(&d);
	/* It isn't asked for more meanwhile, and takes nothing. */
	notify(d.rig, CONSOLE_TX);
	turn(&d);
	ck_assert(!taken(&d));
	expect_halves(&d);
	ck_assert(taken(&d));
	driver_free(&d);
}
END_TEST

START_TEST(console_carries_a_half_said_buffer_across_a_move)
{
	struct driver d = driver_new();
	struct console_state here, there;

	say_half(&d);
	RIG_OP(d.rig->base, pause);
	RIG_OP(d.rig->base, snapshot, &here);
	ck_assert_uint_eq(here.said, 4096);
	ck_assert_uint_eq(here.virtio.queues[CONSOLE_TX].ring.next_avail, 0);
	rig_wire(d.rig->base, &here, &there);
	ck_assert_uint_eq(there.said, here.said);
	ck_assert(rig_accepts(d.rig->base, &there));
	RIG_OP(d.rig->base, reset);
	RIG_OP(d.rig->base, commit, &there);
	RIG_OP(d.rig->base, resume);
	expect_halves(&d);
	ck_assert(taken(&d));
	driver_free(&d);
}
END_TEST

START_TEST(console_forgets_a_half_said_buffer_with_its_queue)
{
	struct driver d = driver_new();
	struct console_state state;

	say_half(&d);
	common_write(d.rig, COMMON_QUEUE_SELECT, CONSOLE_TX, 2);
	common_write(d.rig, COMMON_QUEUE_RESET, 1, 2);
	RIG_OP(d.rig->base, pause);
	RIG_OP(d.rig->base, snapshot, &state);
	ck_assert_uint_eq(state.said, 0);
	ck_assert(rig_accepts(d.rig->base, &state));
	driver_free(&d);
}
END_TEST

START_TEST(console_forgets_a_half_said_buffer_when_it_needs_a_reset)
{
	struct driver d = driver_new();
	struct console_state state;

	say_half(&d);
	/* One that is readable, in the other queue. */
	vring_desc(&d.rx, 0, BUFFERS, 8, 0, 0);
	vring_offer(&d.rx, 0);
	notify(d.rig, CONSOLE_RX);
	turn(&d);
	ck_assert(status_of(d.rig) & VIRTIO_NEEDS_RESET);
	common_write(d.rig, COMMON_QUEUE_SELECT, CONSOLE_TX, 2);
	common_write(d.rig, COMMON_QUEUE_RESET, 1, 2);
	RIG_OP(d.rig->base, pause);
	RIG_OP(d.rig->base, snapshot, &state);
	ck_assert(rig_accepts(d.rig->base, &state));
	driver_free(&d);
}
END_TEST

START_TEST(console_refuses_states_that_it_cannot_be_in)
{
	struct driver d = driver_new();
	struct console_state state, odd;

	RIG_OP(d.rig->base, pause);
	RIG_OP(d.rig->base, snapshot, &state);
	odd = state;
	odd.said = 1;
	ck_assert(rig_accepts(d.rig->base, &odd));
	odd.virtio.queues[CONSOLE_TX].ring.enabled = false;
	odd.virtio.queues[CONSOLE_TX].ring.next_avail = 0;
	ck_assert(!rig_accepts(d.rig->base, &odd));
	RIG_OP(d.rig->base, reset);
	RIG_OP(d.rig->base, snapshot, &state);
	state.said = 1;
	ck_assert(!rig_accepts(d.rig->base, &state));
	driver_free(&d);
}
END_TEST

START_TEST(console_state_survives_the_wire)
{
	struct driver d = driver_new();
	struct console_state state, there;

	RIG_OP(d.rig->base, pause);
	RIG_OP(d.rig->base, snapshot, &state);
	state.said = 0x123456789aULL;
	state.columns = 132;
	state.rows = 43;
	rig_wire(d.rig->base, &state, &there);
	ck_assert_uint_eq(there.said, state.said);
	ck_assert_uint_eq(there.columns, 132);
	ck_assert_uint_eq(there.rows, 43);
	driver_free(&d);
}
END_TEST

START_TEST(console_tells_the_driver_of_the_size_of_the_window)
{
	struct driver d = driver_new();
	unsigned int told = d.rig->base->nmsis;
	uint64_t at = bar(d.rig, 0) + BAR_DEVICE;

	ck_assert_uint_eq(peek(d.rig, at, 4), 0);
	line_resize(d.line, (struct line_size){ 80, 25 });
	turn(&d);
	ck_assert_uint_eq(peek(d.rig, at, 2), 80);
	ck_assert_uint_eq(peek(d.rig, at + 2, 2), 25);
	ck_assert_uint_eq(d.rig->base->nmsis, told + 1);
	/* The same again is no news, nor is that nobody knows it. */
	line_resize(d.line, (struct line_size){ 80, 25 });
	turn(&d);
	line_resize(d.line, (struct line_size){ 0, 0 });
	turn(&d);
	ck_assert_uint_eq(peek(d.rig, at, 2), 80);
	ck_assert_uint_eq(d.rig->base->nmsis, told + 1);
	/* What changes while it is paused is told when it runs. */
	RIG_OP(d.rig->base, pause);
	line_resize(d.line, (struct line_size){ 100, 30 });
	turn(&d);
	ck_assert_uint_eq(d.rig->base->nmsis, told + 1);
	RIG_OP(d.rig->base, resume);
	ck_assert_uint_eq(peek(d.rig, at, 2), 100);
	ck_assert_uint_eq(d.rig->base->nmsis, told + 2);
	driver_free(&d);
}
END_TEST

START_TEST(console_leaves_what_is_typed_alone_while_it_is_paused)
{
	struct driver d = driver_new();

	hear_into(&d, 0, 64);
	turn(&d);
	RIG_OP(d.rig->base, pause);
	type(&d, "later");
	turn(&d);
	ck_assert_uint_eq(vring_used_idx(&d.rx), 0);
	RIG_OP(d.rig->base, resume);
	turn(&d);
	expect_heard(&d, "later");
	driver_free(&d);
}
END_TEST

START_TEST(console_breaks_on_buffers_of_the_wrong_direction)
{
	for (int i = 0; i < 3; i++) {
		struct driver d = driver_new();
		struct vring *ring = i ? &d.rx : &d.tx;

		vring_desc(ring, 0, BUFFERS, 8, i ? VRING_NEXT : VRING_WRITE,
			   1);
		vring_desc(ring, 1, BUFFERS, 8, i == 1 ? VRING_WRITE : 0, 0);
		vring_offer(ring, 0);
		notify(d.rig, i ? CONSOLE_RX : CONSOLE_TX);
		turn(&d);
		ck_assert(status_of(d.rig) & VIRTIO_NEEDS_RESET);
		ck_assert_uint_eq(vring_used_idx(ring), 0);
		driver_free(&d);
	}
}
END_TEST

START_TEST(console_lets_others_have_their_turn)
{
	struct driver d = driver_new();

	for (uint16_t i = 0; i < CONSOLE_QUEUE_SIZE; i++)
		say_at(&d, i, BUFFERS, 16);
	expect_turns(d.rig, &d.tx, CONSOLE_QUEUE_SIZE);
	driver_free(&d);
}
END_TEST

START_TEST(console_takes_no_more_at_once_than_a_turn_has)
{
	static char much[16 * 8 * KIB]; /* two turns */
	struct driver d = driver_new();

	ck_assert_int_ge(fcntl(d.ends.type, F_SETPIPE_SZ, sizeof(much)),
			 (int)sizeof(much));
	ck_assert_int_eq(write(d.ends.type, much, sizeof(much)),
			 (ssize_t)sizeof(much));
	for (uint16_t i = 0; i < 16; i++)
		hear_into(&d, i, 8 * KIB);
	expect_turns(d.rig, &d.rx, 16);
	driver_free(&d);
}
END_TEST

START_TEST(console_takes_no_options)
{
	struct device_rig *rig = rig_new();
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, CONSOLE_DEVICE, "fast", &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "takes no options"));
	rig_free(rig);
}
END_TEST

UNIT_SUITE("console", console_says_what_the_guest_says_in_order,
	   console_hands_on_what_is_typed_when_there_is_room_for_it,
	   console_waits_for_a_reader_that_stalls_and_goes_on_where_it_was,
	   console_carries_a_half_said_buffer_across_a_move,
	   console_forgets_a_half_said_buffer_with_its_queue,
	   console_forgets_a_half_said_buffer_when_it_needs_a_reset,
	   console_refuses_states_that_it_cannot_be_in,
	   console_state_survives_the_wire,
	   console_tells_the_driver_of_the_size_of_the_window,
	   console_leaves_what_is_typed_alone_while_it_is_paused,
	   console_breaks_on_buffers_of_the_wrong_direction,
	   console_lets_others_have_their_turn,
	   console_takes_no_more_at_once_than_a_turn_has,
	   console_takes_no_options)
