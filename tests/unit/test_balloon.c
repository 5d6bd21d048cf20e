// SPDX-License-Identifier: MIT
/*
 * The balloon, as its driver, its user and a migration see it.
 */
#include <errno.h>

#include "devices/virtio/balloon.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/hints.h"

#define F_STATS	    1
#define F_HINTS	    3
#define F_POISON    4
#define F_REPORTING 5

enum queue {
	INFLATE,
	DEFLATE,
	STATS,
	HINTS,
	REPORTS,
	QUEUES
};

/* Of the configuration. */
#define NUM_PAGES 0
#define ACTUAL	  4
#define HINT_ID	  8
#define POISON	  12

#define BUFFERS 0x100000 /* what chains say */
#define PAGES	0x400000 /* what they are about, all of it filled */
#define NPAGES	512
#define FILL	0x5a

static struct hints *hints_of_rig;

/* The rig's memory comes before its devices, and hints lie between. */
static int create(const struct device_env *env,
		  const struct device_config *config, struct device **ret,
		  struct error *err)
{
	struct device_env with_hints = *env;

	ck_assert(!hints_create(env->memory, &hints_of_rig, err));
	with_hints.hints = hints_of_rig;
	return balloon_create(&with_hints, config, ret, err);
}

struct balloon_rig {
	struct virtio_rig *virtio;
	struct vring rings[QUEUES];
};

static void start_driver(struct balloon_rig *rig, uint64_t features)
{
	negotiate(rig->virtio, VIRTIO_BIT(VIRTIO_F_VERSION_1) |
				       VIRTIO_BIT(F_STATS) |
				       VIRTIO_BIT(F_REPORTING) | features);
	enable_msix(rig->virtio, BALLOON_VECTORS);
	common_write(rig->virtio, COMMON_CONFIG_VECTOR, QUEUES, 2);
	for (unsigned int i = 0; i < QUEUES; i++)
		set_up_queue(rig->virtio, i, BALLOON_QUEUE_SIZE,
			     &rig->rings[i]);
	driver_ok(rig->virtio);
}

static struct balloon_rig *balloon_new(uint64_t features)
{
	struct balloon_rig *rig = calloc(1, sizeof(*rig));

	ck_assert_ptr_nonnull(rig);
	rig->virtio = virtio_rig_new(create, BALLOON_VECTORS);
	RIG_OP(rig->virtio->base, resume);
	start_driver(rig, features);
	memset(memory_hva(rig->virtio->mem, PAGES, NPAGES * GUEST_PAGE_SIZE),
	       FILL, NPAGES * GUEST_PAGE_SIZE);
	return rig;
}

static void balloon_free(struct balloon_rig *rig)
{
	virtio_rig_free(rig->virtio);
	hints_free(hints_of_rig);
	free(rig);
}

static struct device *device_of(struct balloon_rig *rig)
{
	return rig->virtio->base->dev;
}

static void turn(struct balloon_rig *rig)
{
	rig_turn_loop(rig->virtio->base);
}

static uint32_t config_get(struct balloon_rig *rig, unsigned int at)
{
	return (uint32_t)common_read(rig->virtio, BAR_DEVICE + at, 4);
}

static void config_put(struct balloon_rig *rig, unsigned int at, uint32_t value)
{
	common_write(rig->virtio, BAR_DEVICE + at, value, 4);
}

/* Is page @index of PAGES what it was, or zero and marked? */
static bool is_full(struct balloon_rig *rig, unsigned int index)
{
	uint64_t gpa = PAGES + index * GUEST_PAGE_SIZE;
	const uint8_t *at = memory_hva(rig->virtio->mem, gpa, GUEST_PAGE_SIZE);
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;
	bool dirty = rig->virtio->mem->dirty[page / 64] >> (page % 64) & 1;

	ck_assert_uint_eq(at[0], at[GUEST_PAGE_SIZE - 1]);
	ck_assert(at[0] == (dirty ? 0 : FILL));
	return at[0] == FILL;
}

static unsigned int count_full(struct balloon_rig *rig)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < NPAGES; i++)
		n += is_full(rig, i);
	return n;
}

/* A chain of one buffer of @len bytes at BUFFERS, with what is there. */
static void offer(struct balloon_rig *rig, enum queue queue, uint64_t gpa,
		  uint32_t len, uint16_t flags)
{
	vring_desc(&rig->rings[queue], 0, gpa, len, flags, 0);
	vring_offer(&rig->rings[queue], 0);
	notify(rig->virtio, queue);
}

static void offer_pfns(struct balloon_rig *rig, enum queue queue,
		       const uint32_t *pfns, uint32_t n)
{
	memcpy(memory_hva(rig->virtio->mem, BUFFERS, n * 4ULL), pfns,
	       n * sizeof(*pfns));
	offer(rig, queue, BUFFERS, n * 4, 0);
}

static bool take(struct balloon_rig *rig, enum queue queue)
{
	uint32_t head, len;

	if (!vring_take(&rig->rings[queue], &head, &len))
		return false;
	ck_assert_uint_eq(len, 0);
	return true;
}

static bool is_broken(struct balloon_rig *rig)
{
	return status_of(rig->virtio) & VIRTIO_NEEDS_RESET;
}

/* ---- inflating and deflating ---- */

START_TEST(what_is_inflated_goes_back_to_the_host)
{
	struct balloon_rig *rig = balloon_new(0);
	const uint32_t first = PAGES >> GUEST_PAGE_SHIFT;
	/* In no order, neighbours, and one twice. */
	const uint32_t pfns[] = { first + 9,   first + 2, first + 3,
				  first + 100, first + 1, first + 9 };

	offer_pfns(rig, INFLATE, pfns, ARRAY_SIZE(pfns));
	turn(rig);
	ck_assert(take(rig, INFLATE));
	ck_assert_uint_eq(count_full(rig), NPAGES - 5);
	ck_assert(!is_full(rig, 1) && !is_full(rig, 2) && !is_full(rig, 3));
	ck_assert(!is_full(rig, 9) && !is_full(rig, 100));
	ck_assert_uint_eq(rig->virtio->base->nmsis, 1);
	/* Nobody has to ask to have them back. */
	offer_pfns(rig, DEFLATE, pfns, ARRAY_SIZE(pfns));
	turn(rig);
	ck_assert(take(rig, DEFLATE));
	ck_assert_uint_eq(count_full(rig), NPAGES - 5);
	balloon_free(rig);
}
END_TEST

START_TEST(pages_that_are_no_memory_are_passed_over)
{
	struct balloon_rig *rig = balloon_new(0);
	const uint32_t end = VIRTIO_RIG_RAM >> GUEST_PAGE_SHIFT;
	const uint32_t pfns[] = {
		UINT32_MAX, end, end + 1, 0xfee00, PAGES >> GUEST_PAGE_SHIFT,
		0xffff0
	};

	offer_pfns(rig, INFLATE, pfns, ARRAY_SIZE(pfns));
	turn(rig);
	ck_assert(take(rig, INFLATE));
	ck_assert(!is_broken(rig));
	ck_assert_uint_eq(count_full(rig), NPAGES - 1);
	/* A number that is cut off is none. */
	offer(rig, INFLATE, BUFFERS, 3, 0);
	turn(rig);
	ck_assert(take(rig, INFLATE));
	ck_assert_uint_eq(count_full(rig), NPAGES - 1);
	balloon_free(rig);
}
END_TEST

START_TEST(a_chain_without_end_is_served_in_turns)
{
	struct balloon_rig *rig = balloon_new(0);
	const uint32_t page = PAGES >> GUEST_PAGE_SHIFT;
	const uint32_t n = 4 * MIB / 4;
	uint32_t *pfns =
		memory_hva(rig->virtio->mem, 8 * MIB, n * sizeof(*pfns));
	struct balloon_state state;

	/* Two pages in turns, so that no two go together. */
	for (uint32_t i = 0; i < n; i++)
		pfns[i] = page + i % 64 * 2;
	offer(rig, INFLATE, 8 * MIB, n * 4, 0);
	/* Others have had several turns, and it is not done. */
	turn(rig);
	ck_assert(!take(rig, INFLATE));
	ck_assert(!is_full(rig, 0));
	/* In a pause it is as if it had not begun. */
	RIG_OP(rig->virtio->base, pause);
	RIG_OP(rig->virtio->base, snapshot, &state);
	ck_assert_uint_eq(state.virtio.queues[INFLATE].ring.next_avail, 0);
	RIG_OP(rig->virtio->base, resume);
	while (!take(rig, INFLATE))
		turn(rig);
	ck_assert_uint_eq(count_full(rig), NPAGES - 64);
	balloon_free(rig);
}
END_TEST

/* ---- reports ---- */

static void offer_pages(struct balloon_rig *rig, enum queue queue,
			unsigned int first, uint32_t n)
{
	offer(rig, queue, PAGES + first * GUEST_PAGE_SIZE,
	      n * (uint32_t)GUEST_PAGE_SIZE, VRING_WRITE);
}

START_TEST(what_is_reported_free_goes_back_to_the_host)
{
	struct balloon_rig *rig = balloon_new(0);
	struct vring *ring = &rig->rings[REPORTS];

	vring_desc(ring, 4, PAGES, 8 * GUEST_PAGE_SIZE,
		   VRING_WRITE | VRING_NEXT, 5);
	vring_desc(ring, 5, PAGES + 100 * GUEST_PAGE_SIZE - 1,
		   2 * GUEST_PAGE_SIZE, VRING_WRITE, 0);
	vring_offer(ring, 4);
	notify(rig->virtio, REPORTS);
	turn(rig);
	ck_assert(take(rig, REPORTS));
	ck_assert(!is_full(rig, 7) && is_full(rig, 8));
	/* Of what is not a whole page all stays. */
	ck_assert(is_full(rig, 99) && !is_full(rig, 100) && is_full(rig, 101));
	ck_assert_uint_eq(count_full(rig), NPAGES - 9);
	balloon_free(rig);
}
END_TEST

START_TEST(no_page_is_lost_between_two_pieces_of_what_is_reported)
{
	struct balloon_rig *rig = balloon_new(0);
	struct vring *ring = &rig->rings[REPORTS];

	/* A piece is 2 MiB; neither end of the buffer is a page's. */
	memset(memory_hva(rig->virtio->mem, PAGES, GUEST_PAGE_SIZE) +
		       NPAGES * GUEST_PAGE_SIZE,
	       FILL, GUEST_PAGE_SIZE);
	vring_desc(ring, 0, PAGES + 2048, (NPAGES + 1) * GUEST_PAGE_SIZE,
		   VRING_WRITE, 0);
	vring_offer(ring, 0);
	notify(rig->virtio, REPORTS);
	while (!take(rig, REPORTS))
		turn(rig);
	ck_assert_uint_eq(count_full(rig), 1);
	ck_assert(is_full(rig, 0) && !is_full(rig, NPAGES));
	balloon_free(rig);
}
END_TEST

START_TEST(pages_that_must_hold_poison_are_kept)
{
	struct balloon_rig *rig = balloon_new(VIRTIO_BIT(F_POISON));

	config_put(rig, POISON, 0xaaaaaaaa);
	ck_assert_uint_eq(config_get(rig, POISON), 0xaaaaaaaa);
	offer_pages(rig, REPORTS, 0, 8);
	turn(rig);
	ck_assert(take(rig, REPORTS));
	ck_assert_uint_eq(count_full(rig), NPAGES);
	/* Zero is a poison that pages of the host have. */
	config_put(rig, POISON, 0);
	offer_pages(rig, REPORTS, 0, 8);
	turn(rig);
	ck_assert(take(rig, REPORTS));
	ck_assert_uint_eq(count_full(rig), NPAGES - 8);
	balloon_free(rig);
}
END_TEST

START_TEST(chains_of_the_wrong_kind_break_the_device)
{
	static const struct {
		enum queue queue;
		uint16_t flags;
	} bad[] = { { INFLATE, VRING_WRITE },
		    { DEFLATE, VRING_WRITE },
		    { STATS, VRING_WRITE },
		    { REPORTS, 0 } };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct balloon_rig *rig = balloon_new(0);

		offer(rig, bad[i].queue, PAGES, 64, bad[i].flags);
		turn(rig);
		ck_assert(is_broken(rig));
		ck_assert(!take(rig, bad[i].queue));
		ck_assert_uint_eq(count_full(rig), NPAGES);
		/* And after a reset it serves again. */
		common_write(rig->virtio, COMMON_STATUS, 0, 1);
		start_driver(rig, 0);
		offer_pages(rig, REPORTS, 0, 1);
		turn(rig);
		ck_assert(take(rig, REPORTS));
		balloon_free(rig);
	}
}
END_TEST

/* ---- statistics ---- */

static void put_stats(struct balloon_rig *rig, uint64_t free, uint16_t odd)
{
	const uint16_t tags[] = { BALLOON_FREE, odd };
	uint8_t *at = memory_hva(rig->virtio->mem, BUFFERS, 20);

	for (unsigned int i = 0; i < 2; i++) {
		memcpy(at + 10ULL * i, &tags[i], 2);
		memcpy(at + 10ULL * i + 2, &free, 8);
	}
	offer(rig, STATS, BUFFERS, 20, 0);
	turn(rig);
}

static void look(struct balloon_rig *rig, struct balloon_info *ret)
{
	pthread_mutex_lock(&device_of(rig)->lock);
	balloon_look(device_of(rig), ret);
	pthread_mutex_unlock(&device_of(rig)->lock);
}

START_TEST(statistics_are_asked_for_when_somebody_looks)
{
	struct balloon_rig *rig = balloon_new(0);
	struct balloon_info info;

	look(rig, &info);
	ck_assert_uint_eq(info.told_s, 0);
	ck_assert_uint_eq(info.stats[BALLOON_FREE], BALLOON_UNKNOWN);
	put_stats(rig, 12345, UINT16_MAX);
	ck_assert(!take(rig, STATS));
	look(rig, &info);
	ck_assert_uint_gt(info.told_s, 0);
	ck_assert_uint_eq(info.stats[BALLOON_FREE], 12345);
	ck_assert_uint_eq(info.stats[BALLOON_TOTAL], BALLOON_UNKNOWN);
	/* The buffer was given back for more, which comes. */
	ck_assert(take(rig, STATS));
	put_stats(rig, 777, BALLOON_CACHES);
	look(rig, &info);
	ck_assert_uint_eq(info.stats[BALLOON_FREE], 777);
	ck_assert_uint_eq(info.stats[BALLOON_CACHES], 777);
	balloon_free(rig);
}
END_TEST

START_TEST(the_buffer_of_statistics_survives_a_pause)
{
	struct balloon_rig *rig = balloon_new(0);
	struct balloon_state state;
	struct balloon_info info;

	put_stats(rig, 12345, UINT16_MAX);
	RIG_OP(rig->virtio->base, pause);
	RIG_OP(rig->virtio->base, snapshot, &state);
	ck_assert_uint_eq(state.virtio.queues[STATS].ring.next_avail, 0);
	/* What is looked at now is what was said; nobody is asked. */
	look(rig, &info);
	ck_assert_uint_eq(info.stats[BALLOON_FREE], 12345);
	ck_assert(!take(rig, STATS));
	RIG_OP(rig->virtio->base, commit, &state);
	RIG_OP(rig->virtio->base, resume);
	turn(rig);
	ck_assert(!take(rig, STATS));
	look(rig, &info);
	ck_assert(take(rig, STATS));
	balloon_free(rig);
}
END_TEST

/* ---- hints ---- */

static void count_hints(void *opaque, uint64_t word __maybe_unused,
			uint64_t bits)
{
	*(unsigned int *)opaque += (unsigned int)__builtin_popcountll(bits);
}

static unsigned int hinted(void)
{
	unsigned int n = 0;

	hints_take(hints_of_rig, count_hints, &n);
	return n;
}

static bool ask_hints(struct balloon_rig *rig)
{
	bool asked;

	pthread_mutex_lock(&device_of(rig)->lock);
	asked = balloon_ask_hints(device_of(rig));
	pthread_mutex_unlock(&device_of(rig)->lock);
	return asked;
}

static void end_hints(struct balloon_rig *rig)
{
	pthread_mutex_lock(&device_of(rig)->lock);
	balloon_end_hints(device_of(rig));
	pthread_mutex_unlock(&device_of(rig)->lock);
}

static void say_id(struct balloon_rig *rig, uint32_t id)
{
	ck_assert(!memory_write(rig->virtio->mem, BUFFERS, &id, sizeof(id)));
	offer(rig, HINTS, BUFFERS, sizeof(id), 0);
	turn(rig);
	ck_assert(take(rig, HINTS));
}

static void hint(struct balloon_rig *rig, unsigned int first, uint32_t n)
{
	offer_pages(rig, HINTS, first, n);
	turn(rig);
	ck_assert(take(rig, HINTS));
}

START_TEST(hints_answer_the_request_that_they_name)
{
	struct balloon_rig *rig = balloon_new(VIRTIO_BIT(F_HINTS));
	unsigned int before = rig->virtio->base->nmsis;
	uint32_t id;

	hints_open(hints_of_rig);
	ck_assert_uint_eq(config_get(rig, HINT_ID), 0);
	hint(rig, 0, 8);
	ck_assert_uint_eq(hinted(), 0);
	before = rig->virtio->base->nmsis;
	ck_assert(ask_hints(rig));
	id = config_get(rig, HINT_ID);
	ck_assert_uint_gt(id, 1);
	ck_assert_uint_eq(rig->virtio->base->nmsis, before + 1);
	/* Before the driver has said what it answers, and to another. */
	hint(rig, 0, 8);
	say_id(rig, id + 1);
	hint(rig, 0, 8);
	ck_assert_uint_eq(hinted(), 0);
	say_id(rig, id);
	hint(rig, 0, 8);
	ck_assert_uint_eq(hinted(), 8);
	/* A page that is hinted at is not touched. */
	ck_assert_uint_eq(count_full(rig), NPAGES);
	/* The end: the driver need not keep them aside any more. */
	say_id(rig, 0);
	ck_assert_uint_eq(config_get(rig, HINT_ID), 1);
	hint(rig, 0, 8);
	ck_assert_uint_eq(hinted(), 0);
	/* The next request is another one. */
	ck_assert(ask_hints(rig));
	ck_assert_uint_gt(config_get(rig, HINT_ID), id);
	balloon_free(rig);
}
END_TEST

START_TEST(a_hint_that_comes_after_the_end_is_not_heard)
{
	struct balloon_rig *rig = balloon_new(VIRTIO_BIT(F_HINTS));

	hints_open(hints_of_rig);
	ck_assert(ask_hints(rig));
	say_id(rig, config_get(rig, HINT_ID));
	offer_pages(rig, HINTS, 0, 8);
	end_hints(rig);
	turn(rig);
	ck_assert(take(rig, HINTS));
	ck_assert_uint_eq(hinted(), 0);
	ck_assert_uint_eq(config_get(rig, HINT_ID), 1);
	balloon_free(rig);
}
END_TEST

START_TEST(who_cannot_hint_is_not_asked)
{
	struct balloon_rig *rig = balloon_new(0);

	ck_assert(!ask_hints(rig));
	common_write(rig->virtio, COMMON_STATUS, 0, 1);
	ck_assert(!ask_hints(rig));
	/* It may rely on what free pages hold. */
	start_driver(rig, VIRTIO_BIT(F_HINTS) | VIRTIO_BIT(F_POISON));
	ck_assert(!ask_hints(rig));
	common_write(rig->virtio, COMMON_STATUS, 0, 1);
	start_driver(rig, VIRTIO_BIT(F_HINTS));
	ck_assert(ask_hints(rig));
	say_id(rig, config_get(rig, HINT_ID));
	/* A new driver has heard of no request. */
	common_write(rig->virtio, COMMON_STATUS, 0, 1);
	start_driver(rig, VIRTIO_BIT(F_HINTS));
	hints_open(hints_of_rig);
	hint(rig, 0, 8);
	ck_assert_uint_eq(hinted(), 0);
	balloon_free(rig);
}
END_TEST

/* ---- its size ---- */

START_TEST(the_user_s_wish_is_told_and_what_the_driver_makes_of_it)
{
	struct balloon_rig *rig = balloon_new(0);
	const uint32_t all = VIRTIO_RIG_RAM >> GUEST_PAGE_SHIFT;
	unsigned int before = rig->virtio->base->nmsis;
	struct balloon_info info;

	RIG_OP(rig->virtio->base, pause);
	RIG_OP(rig->virtio->base, resume);
	pthread_mutex_lock(&device_of(rig)->lock);
	balloon_set(device_of(rig), 12 * MIB - 1);
	pthread_mutex_unlock(&device_of(rig)->lock);
	ck_assert_uint_eq(config_get(rig, NUM_PAGES), 1024);
	ck_assert_uint_eq(rig->virtio->base->nmsis, before + 1);
	/* The driver does not write to what is not its own. */
	config_put(rig, NUM_PAGES, 1);
	config_put(rig, HINT_ID, 7);
	ck_assert_uint_eq(config_get(rig, NUM_PAGES), 1024);
	ck_assert_uint_eq(config_get(rig, HINT_ID), 0);
	look(rig, &info);
	ck_assert_uint_eq(info.wanted, 12 * MIB);
	ck_assert_uint_eq(info.actual, 16 * MIB);
	config_put(rig, ACTUAL, 512);
	look(rig, &info);
	ck_assert_uint_eq(info.actual, 14 * MIB);
	ck_assert_uint_eq(rig->virtio->base->balloons, 1);
	/* Not more than there is, and not told of each time. */
	for (uint32_t i = 0; i < 1000; i++)
		config_put(rig, ACTUAL, UINT32_MAX - i);
	ck_assert_uint_eq(config_get(rig, ACTUAL), all);
	ck_assert_uint_eq(rig->virtio->base->balloons, 1);
	/* But of the last one in the end. */
	while (rig->virtio->base->balloons < 2)
		turn(rig);
	/* With the driver its balloon goes, and the wish stays. */
	common_write(rig->virtio, COMMON_STATUS, 0, 1);
	look(rig, &info);
	ck_assert_uint_eq(info.actual, 16 * MIB);
	ck_assert_uint_eq(info.wanted, 12 * MIB);
	balloon_free(rig);
}
END_TEST

START_TEST(states_that_no_balloon_reaches_are_refused)
{
	struct balloon_rig *rig = balloon_new(0);
	const uint32_t all = VIRTIO_RIG_RAM >> GUEST_PAGE_SHIFT;
	struct balloon_state good, s;

	RIG_OP(rig->virtio->base, pause);
	RIG_OP(rig->virtio->base, snapshot, &good);
	rig_wire(rig->virtio->base, &good, &s);
	ck_assert(rig_accepts(rig->virtio->base, &s));
	s.wanted = s.actual = all;
	s.poison = UINT32_MAX;
	s.hint_id = 2;
	ck_assert(rig_accepts(rig->virtio->base, &s));
	s.wanted = all + 1;
	ck_assert(!rig_accepts(rig->virtio->base, &s));
	s = good;
	s.actual = all + 1;
	ck_assert(!rig_accepts(rig->virtio->base, &s));
	s = good;
	s.hint_id = 1;
	ck_assert(!rig_accepts(rig->virtio->base, &s));
	s = good;
	s.virtio.nqueues--;
	ck_assert(!rig_accepts(rig->virtio->base, &s));
	balloon_free(rig);
}
END_TEST

START_TEST(balloons_take_no_options)
{
	struct device_rig *rig = rig_new();
	struct error err = { "" };

	ck_assert_int_eq(rig_try_create(rig, "virtio-balloon", "big", &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "takes no options"));
	rig_free(rig);
}
END_TEST

UNIT_SUITE("balloon", what_is_inflated_goes_back_to_the_host,
	   pages_that_are_no_memory_are_passed_over,
	   a_chain_without_end_is_served_in_turns,
	   what_is_reported_free_goes_back_to_the_host,
	   no_page_is_lost_between_two_pieces_of_what_is_reported,
	   pages_that_must_hold_poison_are_kept,
	   chains_of_the_wrong_kind_break_the_device,
	   statistics_are_asked_for_when_somebody_looks,
	   the_buffer_of_statistics_survives_a_pause,
	   hints_answer_the_request_that_they_name,
	   a_hint_that_comes_after_the_end_is_not_heard,
	   who_cannot_hint_is_not_asked,
	   the_user_s_wish_is_told_and_what_the_driver_makes_of_it,
	   states_that_no_balloon_reaches_are_refused, balloons_take_no_options)
