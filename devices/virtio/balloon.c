// SPDX-License-Identifier: MIT
/*
 * The balloon: its configuration and its life; see balloon.h. What its queues
 * do is in balloon_serve.c. Sections are those of VIRTIO 1.2.
 *
 * Everything is on the loop's thread, but for what a driver writes into the
 * configuration, which comes from its vCPU, and a migration's request for
 * hints; all of it under the device's lock.
 *
 * A request for hints begins and ends while the guest runs here: it is never
 * part of a state that travels, only its number is, so that the next one has
 * another (5.5.6.5).
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/balloon_internal.h"

#define VIRTIO_ID_BALLOON 5
/* A device that fits no class; PCI 3.0, appendix D. */
#define PCI_CLASS_NONE 0xff0000

/* A guest can change its mind without end; who watches need not see it all. */
#define TELL_INTERVAL_NS (1 * NS_PER_S)

/* Section 5.5.4; all little-endian. */
struct config {
	uint32_t num_pages;
	uint32_t actual;
	uint32_t free_page_hint_cmd_id;
	uint32_t poison_val;
};
_Static_assert(sizeof(struct config) == 16, "as the driver sees it");

static struct balloon *to_balloon(struct virtio *v)
{
	return container_of(v, struct balloon, virtio);
}

static struct balloon *dev_to_balloon(struct device *dev)
{
	return container_of(dev, struct balloon, virtio.dev);
}

static uint32_t pages_in_all(const struct balloon *b)
{
	return (uint32_t)b->virtio.mem->npages;
}
_Static_assert(MEMORY_MAX / GUEST_PAGE_SIZE <= UINT32_MAX,
	       "a balloon can hold all of memory");

/* ---- the configuration ---- */

static uint32_t hint_command(const struct balloon *b)
{
	if (b->asking)
		return b->state.hint_id;
	return b->state.hint_id ? BALLOON_HINTS_DONE : BALLOON_HINTS_STOP;
}

static struct config config_of(const struct balloon *b)
{
	return (struct config){
		.num_pages = htole32(b->state.wanted),
		.actual = htole32(b->state.actual),
		.free_page_hint_cmd_id = htole32(hint_command(b)),
		.poison_val = htole32(b->state.poison),
	};
}

static void tell(void *opaque)
{
	struct balloon *b = opaque;

	b->told_ns = clock_ns();
	b->hooks->tell_balloon(b->hooks_opaque);
}

static void set_actual(struct balloon *b, uint32_t pages)
{
	uint64_t due_ns = b->told_ns + TELL_INTERVAL_NS;

	pages = MIN(pages, pages_in_all(b));
	if (pages == b->state.actual)
		return;
	b->state.actual = pages;
	if (!b->told_ns || clock_ns() >= due_ns)
		tell(b);
	else
		loop_timer_arm(b->tell, due_ns);
}

static void balloon_config_read(struct virtio *v, uint32_t offset, void *data,
				unsigned int size)
{
	struct config config = config_of(to_balloon(v));

	memcpy(data, (const uint8_t *)&config + offset, size);
}

/* The driver's are `actual` and `poison_val`, 5.5.4. */
static void balloon_config_write(struct virtio *v, uint32_t offset,
				 const void *data, unsigned int size)
{
	struct balloon *b = to_balloon(v);
	struct config config = config_of(b);

	memcpy((uint8_t *)&config + offset, data, size);
	set_actual(b, le32toh(config.actual));
	b->state.poison = le32toh(config.poison_val);
}

/* ---- what others ask of it ---- */

void balloon_set(struct device *dev, uint64_t bytes)
{
	struct balloon *b = dev_to_balloon(dev);
	uint64_t keep = div_round_up(bytes, GUEST_PAGE_SIZE);

	b->state.wanted =
		pages_in_all(b) - (uint32_t)MIN(keep, pages_in_all(b));
	virtio_config_changed(&b->virtio);
}

static bool is_driven(const struct virtio *v)
{
	return v->state.status & VIRTIO_DRIVER_OK &&
	       !(v->state.status & VIRTIO_NEEDS_RESET);
}

void balloon_look(struct device *dev, struct balloon_info *ret)
{
	struct balloon *b = dev_to_balloon(dev);
	uint64_t all = b->virtio.mem->npages;

	*ret = (struct balloon_info){
		.actual = (all - b->state.actual) << GUEST_PAGE_SHIFT,
		.wanted = (all - b->state.wanted) << GUEST_PAGE_SHIFT,
		.driven = is_driven(&b->virtio),
		.told_s = b->told_s,
	};
	memcpy(ret->stats, b->stats, sizeof(ret->stats));
	balloon_refresh_stats(b);
}

/*
 * What a hint is good for is not to send a page, which is then zero at the
 * target; a driver that says what it fills free pages with may rely on that.
 */
static bool can_hint(const struct virtio *v)
{
	return is_driven(v) && virtio_negotiated(v, BALLOON_F_FREE_PAGE_HINT) &&
	       !virtio_negotiated(v, BALLOON_F_PAGE_POISON);
}

bool balloon_ask_hints(struct device *dev)
{
	struct balloon *b = dev_to_balloon(dev);

	if (!can_hint(&b->virtio))
		return false;
	/* Another number than the last, and none that has a meaning. */
	b->state.hint_id++;
	if (b->state.hint_id < BALLOON_HINTS_ASK)
		b->state.hint_id = BALLOON_HINTS_ASK;
	b->asking = true;
	b->hinting = false;
	virtio_config_changed(&b->virtio);
	return true;
}

void balloon_end_hints(struct device *dev)
{
	struct balloon *b = dev_to_balloon(dev);

	if (!b->asking)
		return;
	b->asking = false;
	b->hinting = false;
	virtio_config_changed(&b->virtio);
}

/* ---- what the core asks ---- */

static void balloon_forget(struct virtio *v)
{
	struct balloon *b = to_balloon(v);

	/* All of memory is the next driver's, until it says otherwise. */
	set_actual(b, 0);
	b->state.poison = 0;
	b->hinting = false;
	balloon_forget_stats(b);
}

static const struct virtio_ops balloon_virtio_ops = {
	.id = VIRTIO_ID_BALLOON,
	.class_code = PCI_CLASS_NONE,
	.config_size = sizeof(struct config),
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.start_queue = balloon_start_queue,
	.stop_queue = balloon_stop_queue,
	.forget = balloon_forget,
};

/* ---- the device ---- */

static void balloon_visit(struct codec *c, void *state)
{
	struct balloon_state *s = state;

	virtio_visit(c, &s->virtio);
	codec_u32(c, "wanted", &s->wanted);
	codec_u32(c, "actual", &s->actual);
	codec_u32(c, "poison", &s->poison);
	codec_u32(c, "hint_id", &s->hint_id);
}

static void balloon_snapshot(struct device *dev, void *state)
{
	struct balloon *b = dev_to_balloon(dev);
	struct balloon_state *s = state;

	*s = b->state;
	virtio_snapshot(&b->virtio, &s->virtio);
}

static int balloon_check(struct device *dev, const void *state,
			 struct error *err)
{
	const struct balloon *b = dev_to_balloon(dev);
	const struct balloon_state *s = state;

	if (s->wanted > pages_in_all(b) || s->actual > pages_in_all(b))
		return error_set(
			err, -EINVAL, "%s: wanted %u, actual %u, of %u pages",
			dev->id, s->wanted, s->actual, pages_in_all(b));
	if (s->hint_id && s->hint_id < BALLOON_HINTS_ASK)
		return error_set(err, -EINVAL, "%s: hint_id %u is no request's",
				 dev->id, s->hint_id);
	return virtio_check(&b->virtio, &s->virtio, err);
}

static void balloon_commit(struct device *dev, const void *state)
{
	struct balloon *b = dev_to_balloon(dev);
	const struct balloon_state *s = state;

	b->state = *s;
	virtio_commit(&b->virtio, &s->virtio);
}

static void balloon_pause(struct device *dev)
{
	virtio_pause(&dev_to_balloon(dev)->virtio);
}

static void balloon_resume(struct device *dev)
{
	virtio_resume(&dev_to_balloon(dev)->virtio);
}

static void balloon_reset(struct device *dev)
{
	virtio_reset(&dev_to_balloon(dev)->virtio);
}

static void balloon_free(struct device *dev)
{
	struct balloon *b = dev_to_balloon(dev);

	loop_timer_remove(b->tell);
	balloon_serve_fini(b);
	virtio_fini(&b->virtio);
	free(b);
}

const struct device_ops balloon_ops = {
	.type = "virtio-balloon",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct balloon_state),
	.visit = balloon_visit,
	.snapshot = balloon_snapshot,
	.check = balloon_check,
	.commit = balloon_commit,
	.pause = balloon_pause,
	.resume = balloon_resume,
	.reset = balloon_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = balloon_free,
};

static const struct virtio_params balloon_params = {
	.device_ops = &balloon_ops,
	.ops = &balloon_virtio_ops,
	.features = VIRTIO_BIT(BALLOON_F_STATS_VQ) |
		    VIRTIO_BIT(BALLOON_F_DEFLATE_ON_OOM) |
		    VIRTIO_BIT(BALLOON_F_FREE_PAGE_HINT) |
		    VIRTIO_BIT(BALLOON_F_PAGE_POISON) |
		    VIRTIO_BIT(BALLOON_F_REPORTING),
	.nqueues = BALLOON_QUEUES,
	.queue_size_max = BALLOON_QUEUE_SIZE,
};

int balloon_create(const struct device_env *env,
		   const struct device_config *config, struct device **ret,
		   struct error *err)
{
	struct balloon *b;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: the balloon takes no options, got \"%s\"",
				 config->id, config->options);
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	b->hints = env->hints;
	b->hooks = env->hooks;
	b->hooks_opaque = env->hooks_opaque;
	balloon_forget_stats(b);
	code = virtio_init(&b->virtio, env, config, &balloon_params, err);
	if (code) {
		free(b);
		return code;
	}
	code = balloon_serve_init(b, env->loop, err);
	if (!code)
		code = loop_timer_add(env->loop, tell, b, &b->virtio.dev.lock,
				      &b->tell, err);
	if (code) {
		error_prefix(err, "%s", config->id);
		balloon_free(&b->virtio.dev);
		return code;
	}
	*ret = &b->virtio.dev;
	return 0;
}
