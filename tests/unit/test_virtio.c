// SPDX-License-Identifier: MIT
/*
 * The virtio core and its transport, worked through BARs and configuration
 * space as a driver does, with a device that lets go of its queues when the
 * test says so.
 */
#include <errno.h>

#include "tests/unit/virtio_rig.h"
#include "tests/unit/virtio_toy.h"

#define TOY_VECTORS 4

#define GOOD_FEATURES                                                          \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET) |    \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | \
	 VIRTIO_BIT(TOY_FEATURE))

#define LINE (GSI_PCI + 1) /* that of slot 1 */

static struct toy *toy_of(struct virtio_rig *rig)
{
	return container_of(rig->base->dev, struct toy, virtio.dev);
}

static struct virtio_rig *toy_new(uint32_t vectors)
{
	struct virtio_rig *rig = virtio_rig_new(toy_create, vectors);

	RIG_OP(rig->base, resume);
	return rig;
}

/* A driver that is there, with queues 0 and 1. */
static struct virtio_rig *toy_ready(uint32_t vectors, struct vring rings[2])
{
	struct virtio_rig *rig = toy_new(vectors);

	negotiate(rig, GOOD_FEATURES);
	if (vectors)
		enable_msix(rig, vectors);
	set_up_queue(rig, 0, 8, &rings[0]);
	set_up_queue(rig, 1, 4, &rings[1]);
	driver_ok(rig);
	ck_assert(toy_of(rig)->served[0] && toy_of(rig)->served[1]);
	return rig;
}

static void toy_let_go(struct virtio_rig *rig, unsigned int index)
{
	pthread_mutex_lock(&rig->base->dev->lock);
	toy_stopped(toy_of(rig), index);
	pthread_mutex_unlock(&rig->base->dev->lock);
}

static void break_rules(struct virtio_rig *rig)
{
	pthread_mutex_lock(&rig->base->dev->lock);
	virtio_fail(&toy_of(rig)->virtio, "test");
	pthread_mutex_unlock(&rig->base->dev->lock);
}

static void change_config(struct virtio_rig *rig)
{
	pthread_mutex_lock(&rig->base->dev->lock);
	virtio_config_changed(&toy_of(rig)->virtio);
	pthread_mutex_unlock(&rig->base->dev->lock);
}

/* Was queue @index's doorbell rung since the last look? */
static bool was_rung(struct virtio_rig *rig, unsigned int index)
{
	uint64_t count;

	return read(toy_of(rig)->virtio.queues[index].event_fd, &count,
		    sizeof(count)) == sizeof(count);
}

static uint32_t last_msi(struct virtio_rig *rig)
{
	ck_assert_uint_gt(rig->base->nmsis, 0);
	return rig->base->msis[rig->base->nmsis - 1].data;
}

/* ---- what the guest finds ---- */

/* The virtio capability of @type; 0: none. */
static unsigned int find_cap(struct virtio_rig *rig, unsigned int type)
{
	unsigned int cap = config_read(rig, PCI_CAPABILITIES, 1);

	while (cap && (config_read(rig, cap, 1) != PCI_CAP_VENDOR ||
		       config_read(rig, cap + 3, 1) != type))
		cap = config_read(rig, cap + 1, 1);
	return cap;
}

static void has_cap(struct virtio_rig *rig, unsigned int type, uint32_t cap_len,
		    uint32_t offset, uint32_t length)
{
	unsigned int cap = find_cap(rig, type);

	ck_assert_uint_ne(cap, 0);
	ck_assert_uint_eq(config_read(rig, cap + 2, 1), cap_len);
	ck_assert_uint_eq(config_read(rig, cap + 4, 1), 0);
	ck_assert_uint_eq(config_read(rig, cap + 8, 4), offset);
	ck_assert_uint_eq(config_read(rig, cap + 12, 4), length);
}

START_TEST(virtio_is_a_modern_pci_device_with_its_capabilities)
{
	struct virtio_rig *rig = toy_new(TOY_VECTORS);

	ck_assert_uint_eq(config_read(rig, PCI_VENDOR_ID, 2), 0x1af4);
	ck_assert_uint_eq(config_read(rig, PCI_DEVICE_ID, 2), 0x1040 + 42);
	ck_assert_uint_eq(config_read(rig, PCI_REVISION, 1), 1);
	ck_assert_uint_eq(config_read(rig, PCI_SUBSYSTEM, 2), 0x1af4);
	ck_assert_uint_eq(config_read(rig, PCI_SUBSYSTEM + 2, 2), 42);
	has_cap(rig, 1, 16, 0x0000, 60);
	has_cap(rig, 2, 20, 0x3000, 4 * TOY_QUEUES);
	ck_assert_uint_eq(config_read(rig, find_cap(rig, 2) + 16, 4), 4);
	has_cap(rig, 3, 16, 0x1000, 1);
	has_cap(rig, 4, 16, 0x2000, TOY_CONFIG);
	has_cap(rig, 5, 20, 0, 0);
	config_write(rig, PCI_BAR0, 0xffffffff, 4);
	ck_assert_uint_eq(config_read(rig, PCI_BAR0, 4), 0xffffc000);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_registers_have_their_width_and_no_other)
{
	struct virtio_rig *rig = toy_new(TOY_VECTORS);

	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_NUM_QUEUES, 2), TOY_QUEUES);
	ck_assert_uint_eq(common_read(rig, COMMON_NUM_QUEUES, 1), 0);
	ck_assert_uint_eq(common_read(rig, COMMON_CONFIG_VECTOR, 4), 0);
	ck_assert_uint_eq(common_read(rig, COMMON_CONFIG_VECTOR, 2), 0xffff);
	common_write(rig, COMMON_QUEUE_SELECT, 2, 1);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SELECT, 2), 0);
	common_write(rig, COMMON_QUEUE_SELECT, 2, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_NOTIFY_OFF, 2), 2);
	/* A ring address whole, and by halves. */
	common_write(rig, COMMON_QUEUE_AVAIL, 0x1122334455667788, 8);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_AVAIL, 4), 0x55667788);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_AVAIL + 4, 4),
			  0x11223344);
	common_write(rig, COMMON_QUEUE_AVAIL + 4, 0xaabbccdd, 4);
	common_write(rig, COMMON_QUEUE_AVAIL, 0x99, 4);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_AVAIL, 8),
			  0xaabbccdd00000099);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_DESC, 8), 0);
	/* Past the end of what there is. */
	ck_assert_uint_eq(common_read(rig, 0x3c, 4), 0);
	ck_assert_uint_eq(common_read(rig, 0x38, 2), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_shows_the_device_s_configuration)
{
	struct virtio_rig *rig = toy_new(0);
	struct toy *toy = toy_of(rig);

	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	memcpy(toy->config, "abcdefghijkl", TOY_CONFIG);
	ck_assert_uint_eq(common_read(rig, BAR_DEVICE + 4, 4), 0x68676665);
	ck_assert_uint_eq(common_read(rig, BAR_DEVICE, 8), 0x6867666564636261);
	/* Nothing of it lies past its end. */
	ck_assert_uint_eq(common_read(rig, BAR_DEVICE + 8, 8), 0);
	ck_assert_uint_eq(common_read(rig, BAR_DEVICE + TOY_CONFIG, 1), 0);
	common_write(rig, BAR_DEVICE + 8, UINT64_MAX, 8);
	common_write(rig, BAR_DEVICE + 11, 'X', 1);
	ck_assert(!memcmp(toy->config, "abcdefghijkX", TOY_CONFIG));
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_window_in_configuration_space_shows_the_registers)
{
	struct virtio_rig *rig = toy_new(0);
	unsigned int cap = find_cap(rig, 5);

	/* Memory decoding is off: that is what the window is for. */
	config_write(rig, cap + 8, COMMON_NUM_QUEUES, 4);
	config_write(rig, cap + 12, 2, 4);
	ck_assert_uint_eq(config_read(rig, cap + 16, 4), TOY_QUEUES);
	config_write(rig, cap + 8, COMMON_QUEUE_SELECT, 4);
	config_write(rig, cap + 16, 1, 4);
	ck_assert_uint_eq(config_read(rig, cap + 16, 2), 1);
	config_write(rig, cap + 8, COMMON_STATUS, 4);
	config_write(rig, cap + 12, 1, 4);
	config_write(rig, cap + 16, VIRTIO_ACKNOWLEDGE, 1);
	ck_assert_uint_eq(config_read(rig, cap + 16, 1), VIRTIO_ACKNOWLEDGE);
	/* Windows that show nothing. */
	config_write(rig, cap + 12, 3, 4);
	ck_assert_uint_eq(config_read(rig, cap + 16, 4), 0);
	config_write(rig, cap + 12, 4, 4);
	config_write(rig, cap + 8, 2, 4);
	ck_assert_uint_eq(config_read(rig, cap + 16, 4), 0);
	config_write(rig, cap + 8, 0x4000, 4);
	ck_assert_uint_eq(config_read(rig, cap + 16, 4), 0);
	config_write(rig, cap + 8, 0xfffffffc, 4);
	config_write(rig, cap + 16, 0xffffffff, 4);
	config_write(rig, cap + 8, COMMON_DEVICE_FEATURE, 4);
	ck_assert_uint_ne(config_read(rig, cap + 16, 4), 0);
	config_write(rig, cap + 4, 1, 1);
	ck_assert_uint_eq(config_read(rig, cap + 16, 4), 0);
	virtio_rig_free(rig);
}
END_TEST

/* ---- status and features ---- */

START_TEST(virtio_features_are_offered_in_halves)
{
	struct virtio_rig *rig = toy_new(0);

	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_DEVICE_FEATURE, 4),
			  (uint32_t)GOOD_FEATURES);
	common_write(rig, COMMON_DEVICE_FEATURE_SELECT, 1, 4);
	ck_assert_uint_eq(common_read(rig, COMMON_DEVICE_FEATURE, 4),
			  GOOD_FEATURES >> 32);
	common_write(rig, COMMON_DEVICE_FEATURE_SELECT, 2, 4);
	ck_assert_uint_eq(common_read(rig, COMMON_DEVICE_FEATURE, 4), 0);
	common_write(rig, COMMON_DRIVER_FEATURE_SELECT, 2, 4);
	common_write(rig, COMMON_DRIVER_FEATURE, 0xffffffff, 4);
	ck_assert_uint_eq(common_read(rig, COMMON_DRIVER_FEATURE, 4), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_takes_no_bad_set_of_features)
{
	struct virtio_rig *rig = toy_new(0);

	/* Without VERSION_1; with one that isn't offered. */
	negotiate(rig, VIRTIO_BIT(TOY_FEATURE));
	ck_assert_uint_eq(status_of(rig), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	negotiate(rig, GOOD_FEATURES | VIRTIO_BIT(6));
	ck_assert_uint_eq(status_of(rig), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	negotiate(rig, GOOD_FEATURES | VIRTIO_BIT(63));
	ck_assert_uint_eq(status_of(rig), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	/* And isn't ready without. */
	driver_ok(rig);
	ck_assert_uint_eq(status_of(rig), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	negotiate(rig, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	ck_assert(status_of(rig) & VIRTIO_FEATURES_OK);
	ck_assert(virtio_negotiated(&toy_of(rig)->virtio, VIRTIO_F_VERSION_1));
	ck_assert(!virtio_negotiated(&toy_of(rig)->virtio, TOY_FEATURE));
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_features_and_status_bits_stay)
{
	struct virtio_rig *rig = toy_new(0);

	negotiate(rig, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	common_write(rig, COMMON_DRIVER_FEATURE_SELECT, 0, 4);
	common_write(rig, COMMON_DRIVER_FEATURE, 1U << TOY_FEATURE, 4);
	ck_assert_uint_eq(common_read(rig, COMMON_DRIVER_FEATURE, 4), 0);
	common_write(rig, COMMON_STATUS, VIRTIO_FAILED | VIRTIO_NEEDS_RESET, 1);
	ck_assert_uint_eq(status_of(rig), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER |
						  VIRTIO_FEATURES_OK |
						  VIRTIO_FAILED);
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(status_of(rig), 0);
	virtio_rig_free(rig);
}
END_TEST

/* ---- queues ---- */

START_TEST(virtio_queue_is_set_up_once_and_within_bounds)
{
	struct virtio_rig *rig = toy_new(TOY_VECTORS);
	struct vring ring;

	negotiate(rig, GOOD_FEATURES);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), TOY_SIZE);
	common_write(rig, COMMON_QUEUE_SIZE, 16, 2);
	common_write(rig, COMMON_QUEUE_SIZE, 6, 2);
	common_write(rig, COMMON_QUEUE_SIZE, 0, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), TOY_SIZE);
	common_write(rig, COMMON_QUEUE_ENABLE, 2, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 0);
	set_up_queue(rig, 0, 4, &ring);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), 4);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 1);
	/* From here on it stays as it is, but for its vector. */
	common_write(rig, COMMON_QUEUE_SIZE, 2, 2);
	common_write(rig, COMMON_QUEUE_DESC, 0, 8);
	common_write(rig, COMMON_QUEUE_ENABLE, 0, 2);
	common_write(rig, COMMON_QUEUE_VECTOR, 3, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), 4);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_DESC, 8), ring.desc);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 1);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_VECTOR, 2), 3);
	/* Queues that there aren't. */
	common_write(rig, COMMON_QUEUE_SELECT, TOY_QUEUES, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), 0);
	common_write(rig, COMMON_QUEUE_ENABLE, 1, 2);
	common_write(rig, COMMON_QUEUE_RESET, 1, 2);
	common_write(rig, COMMON_QUEUE_SELECT, 0xffff, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_queue_is_served_from_when_the_driver_is_ready)
{
	struct virtio_rig *rig = toy_new(0);
	struct toy *toy = toy_of(rig);
	struct vring ring;

	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 1, 4, &ring);
	ck_assert(!toy->served[1] && !was_rung(rig, 1));
	driver_ok(rig);
	ck_assert(toy->served[1] && was_rung(rig, 1));
	ck_assert(!toy->served[0] && !toy->served[2]);
	ck_assert(toy->virtio.queues[1].ring.event_idx);
	ck_assert(toy->virtio.queues[1].ring.indirect);
	/* Or later, when it is enabled then. */
	set_up_queue(rig, 2, 4, &ring);
	ck_assert(toy->served[2] && was_rung(rig, 2));
	ck_assert_uint_eq(toy->starts[1], 1);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_queue_is_not_served_while_paused)
{
	struct virtio_rig *rig = virtio_rig_new(toy_create, 0);
	struct vring ring;

	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 0, 4, &ring);
	driver_ok(rig);
	ck_assert(!toy_of(rig)->served[0]);
	RIG_OP(rig->base, resume);
	ck_assert(toy_of(rig)->served[0]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_doorbells_are_where_the_guest_finds_them)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct virtio *v = &toy_of(rig)->virtio;
	uint64_t gpa = bar(rig, 0) + BAR_NOTIFY;

	ck_assert_int_eq(virtio_rig_bell(rig, gpa), v->queues[0].event_fd);
	ck_assert_int_eq(virtio_rig_bell(rig, gpa + 4), v->queues[1].event_fd);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 2);
	/* Out of reach, then elsewhere. */
	config_write(rig, PCI_COMMAND, 0, 2);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 0);
	config_write(rig, PCI_BAR0, LAYOUT_PCI_WINDOW + 0x100000, 4);
	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	gpa = LAYOUT_PCI_WINDOW + 0x100000 + BAR_NOTIFY;
	ck_assert_int_eq(virtio_rig_bell(rig, gpa), v->queues[0].event_fd);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 2);
	/* They cost too much to take them down in a pause. */
	RIG_OP(rig->base, pause);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 2);
	RIG_OP(rig->base, resume);
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_notification_that_comes_here_rings_the_same_bell)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);

	ck_assert(was_rung(rig, 0) && was_rung(rig, 1));
	notify(rig, 1);
	ck_assert(!was_rung(rig, 0) && was_rung(rig, 1));
	notify(rig, 2); /* not enabled */
	notify(rig, 3); /* not there */
	ck_assert(!was_rung(rig, 0) && !was_rung(rig, 1) && !was_rung(rig, 2));
	virtio_rig_free(rig);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(virtio_interrupts_by_the_line_without_msix)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct virtio *v = &toy_of(rig)->virtio;

	virtio_interrupt(v, 0);
	ck_assert(rig->base->line[LINE]);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 1);
	ck_assert(!rig->base->line[LINE]);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 0);
	virtio_interrupt(v, 1);
	change_config(rig);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 3);
	ck_assert(!rig->base->line[LINE]);
	/* Vectors that there aren't. */
	common_write(rig, COMMON_CONFIG_VECTOR, 0, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_CONFIG_VECTOR, 2), 0xffff);
	ck_assert_uint_eq(rig->base->nmsis, 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_interrupts_by_the_line_while_msix_is_disabled)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_new(TOY_VECTORS);

	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 0, 8, rings);
	driver_ok(rig);
	virtio_interrupt(&toy_of(rig)->virtio, 0);
	ck_assert(rig->base->line[LINE]);
	ck_assert_uint_eq(rig->base->nmsis, 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_interrupts_by_vectors_with_msix)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings);
	struct virtio *v = &toy_of(rig)->virtio;

	virtio_interrupt(v, 1);
	ck_assert_uint_eq(rig->base->nmsis, 1);
	ck_assert_uint_eq(last_msi(rig), 1);
	ck_assert(!rig->base->line[LINE]);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 0);
	/* Any may share one; one that there isn't is none. */
	common_write(rig, COMMON_QUEUE_SELECT, 0, 2);
	common_write(rig, COMMON_QUEUE_VECTOR, 3, 2);
	virtio_interrupt(v, 0);
	ck_assert_uint_eq(last_msi(rig), 3);
	common_write(rig, COMMON_QUEUE_VECTOR, TOY_VECTORS, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_VECTOR, 2), 0xffff);
	virtio_interrupt(v, 0);
	ck_assert_uint_eq(rig->base->nmsis, 2);
	common_write(rig, COMMON_CONFIG_VECTOR, 2, 2);
	change_config(rig);
	ck_assert_uint_eq(last_msi(rig), 2);
	/* Section 4.1.4.5.1. */
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 2);
	ck_assert(!rig->base->line[LINE]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_configuration_has_generations)
{
	struct virtio_rig *rig = toy_new(0);
	uint8_t before;

	config_write(rig, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	before = (uint8_t)common_read(rig, COMMON_GENERATION, 1);
	change_config(rig);
	ck_assert_uint_eq(common_read(rig, COMMON_GENERATION, 1),
			  (uint8_t)(before + 1));
	/* No driver, no interrupt. */
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 0);
	ck_assert(!rig->base->line[LINE]);
	virtio_rig_free(rig);
}
END_TEST

/* ---- resets ---- */

START_TEST(virtio_reset_ends_when_nothing_is_in_flight)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings);
	struct toy *toy = toy_of(rig);
	uint8_t before = status_of(rig);

	common_write(rig, COMMON_CONFIG_VECTOR, 1, 2);
	toy->holds = true;
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert(toy->asked[0] && toy->asked[1]);
	ck_assert_uint_eq(status_of(rig), before);
	/* Who doesn't wait isn't heard. */
	driver_ok(rig);
	common_write(rig, COMMON_STATUS, 0, 1);
	common_write(rig, COMMON_QUEUE_SELECT, 2, 2);
	common_write(rig, COMMON_QUEUE_ENABLE, 1, 2);
	common_write(rig, BAR_DEVICE, 1, 1);
	break_rules(rig);
	toy_let_go(rig, 1);
	ck_assert_uint_eq(status_of(rig), before);
	ck_assert_uint_eq(toy->forgets, 0);
	toy_let_go(rig, 0);
	ck_assert_uint_eq(status_of(rig), 0);
	ck_assert_uint_eq(toy->forgets, 1);
	ck_assert_uint_eq(toy->config[0], 0);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 0);
	ck_assert_uint_eq(common_read(rig, COMMON_CONFIG_VECTOR, 2), 0xffff);
	ck_assert_uint_eq(common_read(rig, COMMON_DRIVER_FEATURE, 4), 0);
	for (unsigned int i = 0; i < TOY_QUEUES; i++) {
		common_write(rig, COMMON_QUEUE_SELECT, i, 2);
		ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2),
				  TOY_SIZE);
		ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 0);
		ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_DESC, 8), 0);
		ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_VECTOR, 2),
				  0xffff);
	}
	/* And again from the beginning. */
	toy->holds = false;
	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 0, 8, rings);
	driver_ok(rig);
	ck_assert(toy->served[0]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_reset_takes_interrupts_back)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);

	virtio_interrupt(&toy_of(rig)->virtio, 0);
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert(!rig->base->line[LINE]);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 0);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_queue_reset_ends_when_nothing_is_in_flight)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct toy *toy = toy_of(rig);

	toy->holds = true;
	common_write(rig, COMMON_QUEUE_SELECT, 1, 2);
	common_write(rig, COMMON_QUEUE_RESET, 1, 2);
	ck_assert(toy->asked[1] && toy->served[0]);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_RESET, 2), 1);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 1);
	common_write(rig, COMMON_QUEUE_VECTOR, 1, 2);
	toy_let_go(rig, 1);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_RESET, 2), 0);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 0);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_SIZE, 2), TOY_SIZE);
	ck_assert_uint_eq(virtio_rig_nbells(rig), 1);
	set_up_queue(rig, 1, 2, &rings[1]);
	ck_assert(toy->served[1]);
	ck_assert_uint_eq(toy->starts[0], 1);
	ck_assert_uint_eq(toy->forgets, 0);
	toy->holds = false;
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_queue_reset_has_to_be_negotiated)
{
	struct virtio_rig *rig = toy_new(0);
	struct vring ring;

	negotiate(rig, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	set_up_queue(rig, 0, 8, &ring);
	driver_ok(rig);
	common_write(rig, COMMON_QUEUE_RESET, 1, 2);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_ENABLE, 2), 1);
	ck_assert_uint_eq(common_read(rig, COMMON_QUEUE_RESET, 2), 0);
	ck_assert(toy_of(rig)->served[0]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_machine_reset_is_power_on)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings);
	struct toy *toy = toy_of(rig);
	struct toy_state *fresh = calloc(2, sizeof(*fresh));
	struct toy_state *state = fresh + 1;
	struct virtio_rig *other = virtio_rig_new(toy_create, TOY_VECTORS);

	config_write(rig, find_cap(rig, 5) + 8, 0x3000, 4);
	change_config(rig);
	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, reset);
	RIG_OP(rig->base, snapshot, state);
	RIG_OP(other->base, snapshot, fresh);
	ck_assert(!memcmp(fresh, state, sizeof(*state)));
	ck_assert_uint_eq(virtio_rig_nbells(rig), 0);
	ck_assert(!rig->base->line[LINE]);
	ck_assert_uint_eq(toy->forgets, 1);
	RIG_OP(rig->base, resume);
	ck_assert(!toy->served[0]);
	free(fresh);
	virtio_rig_free(rig);
	virtio_rig_free(other);
}
END_TEST

/* ---- faults ---- */

START_TEST(virtio_device_whose_driver_fails_needs_a_reset)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings);
	struct toy *toy = toy_of(rig);

	common_write(rig, COMMON_CONFIG_VECTOR, 3, 2);
	break_rules(rig);
	ck_assert(status_of(rig) & VIRTIO_NEEDS_RESET);
	ck_assert(!toy->served[0] && !toy->served[1]);
	ck_assert_uint_eq(last_msi(rig), 3);
	ck_assert_uint_eq(rig->base->nmsis, 1);
	break_rules(rig);
	ck_assert_uint_eq(rig->base->nmsis, 1);
	/* Nothing is served until then. */
	set_up_queue(rig, 2, 4, rings);
	ck_assert(!toy->served[2]);
	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, resume);
	ck_assert(!toy->served[0]);
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(status_of(rig), 0);
	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 0, 8, rings);
	driver_ok(rig);
	ck_assert(toy->served[0]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_queue_whose_rings_are_nowhere_needs_a_reset)
{
	struct virtio_rig *rig = toy_new(0);
	struct toy *toy = toy_of(rig);
	struct vring ring;

	negotiate(rig, GOOD_FEATURES);
	set_up_queue(rig, 0, 8, &ring);
	common_write(rig, COMMON_QUEUE_SELECT, 1, 2);
	common_write(rig, COMMON_QUEUE_DESC, VIRTIO_RIG_RAM - 16, 8);
	common_write(rig, COMMON_QUEUE_ENABLE, 1, 2);
	set_up_queue(rig, 2, 8, &ring);
	ck_assert(!(status_of(rig) & VIRTIO_NEEDS_RESET));
	driver_ok(rig);
	ck_assert(status_of(rig) & VIRTIO_NEEDS_RESET);
	ck_assert_uint_eq(common_read(rig, BAR_ISR, 1), 2);
	ck_assert(!toy->served[0] && !toy->served[1] && !toy->served[2]);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_asks_for_no_more_vectors_than_a_peer_can_hold)
{
	struct device_rig *base = rig_new();
	struct device_config config = { .id = "toy0", .vectors = 33 };
	struct error err = { "" };

	ck_assert_int_eq(toy_create(&base->env, &config, &base->dev, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "toy0: vectors=33"));
	rig_free(base);
}
END_TEST

/* ---- pauses and moves ---- */

static void *pause_thread(void *opaque)
{
	struct virtio_rig *rig = opaque;

	RIG_OP(rig->base, pause);
	return NULL;
}

START_TEST(virtio_pause_waits_for_what_is_in_flight)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct toy *toy = toy_of(rig);
	pthread_t thread;
	bool asked = false;

	toy->holds = true;
	ck_assert(!pthread_create(&thread, NULL, pause_thread, rig));
	while (!asked) {
		pthread_mutex_lock(&rig->base->dev->lock);
		asked = toy->asked[0] && toy->asked[1];
		pthread_mutex_unlock(&rig->base->dev->lock);
	}
	toy_let_go(rig, 0);
	ck_assert_int_eq(pthread_tryjoin_np(thread, NULL), EBUSY);
	toy_let_go(rig, 1);
	ck_assert(!pthread_join(thread, NULL));
	toy->holds = false;
	was_rung(rig, 0);
	was_rung(rig, 1);
	/* Each is kicked at resume, as nobody knows who was not heard. */
	RIG_OP(rig->base, resume);
	ck_assert(toy->served[0] && toy->served[1]);
	ck_assert(was_rung(rig, 0) && was_rung(rig, 1));
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_reset_under_way_ends_in_a_pause)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct toy *toy = toy_of(rig);
	struct toy_state *state = calloc(1, sizeof(*state));
	pthread_t thread;

	toy->holds = true;
	common_write(rig, COMMON_STATUS, 0, 1);
	ck_assert(!pthread_create(&thread, NULL, pause_thread, rig));
	toy_let_go(rig, 0);
	toy_let_go(rig, 1);
	ck_assert(!pthread_join(thread, NULL));
	RIG_OP(rig->base, snapshot, state);
	ck_assert_uint_eq(state->virtio.status, 0);
	ck_assert(rig_accepts(rig->base, state));
	free(state);
	virtio_rig_free(rig);
}
END_TEST

/* A machine with the same memory's contents, in the state of @rig. */
static struct virtio_rig *move(struct virtio_rig *rig)
{
	struct virtio_rig *to =
		virtio_rig_new(toy_create, toy_of(rig)->virtio.vectors);
	struct toy_state *state = calloc(2, sizeof(*state));

	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, snapshot, &state[0]);
	rig_wire(rig->base, &state[0], &state[1]);
	ck_assert(rig_accepts(to->base, &state[1]));
	memcpy(memory_hva(to->mem, 0, VIRTIO_RIG_RAM),
	       memory_hva(rig->mem, 0, VIRTIO_RIG_RAM), VIRTIO_RIG_RAM);
	RIG_OP(to->base, commit, &state[1]);
	free(state);
	return to;
}

START_TEST(virtio_moves_with_its_driver_at_work)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings), *to;
	struct virtqueue_chain *chain = calloc(1, sizeof(*chain));
	struct virtqueue *vq = &toy_of(rig)->virtio.queues[1].ring;
	uint32_t head, len;
	uint64_t gpa;

	config_write(rig, PCI_BAR0, LAYOUT_PCI_WINDOW + 0x200000, 4);
	vring_desc(&rings[1], 2, 0x100000, 4, VRING_WRITE, 0);
	vring_offer(&rings[1], 2);
	vring_offer(&rings[1], 2);
	ck_assert_int_eq(virtqueue_pop(vq, chain), 1);
	virtqueue_push(vq, chain, 3);
	to = move(rig);
	RIG_OP(to->base, resume);
	ck_assert(toy_of(to)->served[0] && toy_of(to)->served[1]);
	ck_assert(was_rung(to, 0) && was_rung(to, 1) && !was_rung(to, 2));
	gpa = LAYOUT_PCI_WINDOW + 0x200000 + BAR_NOTIFY;
	ck_assert_int_eq(virtio_rig_bell(to, gpa),
			 toy_of(to)->virtio.queues[0].event_fd);
	ck_assert_uint_eq(virtio_rig_nbells(to), 2);
	/* The chain that waited comes there, where the first ended here. */
	vq = &toy_of(to)->virtio.queues[1].ring;
	ck_assert(vq->event_idx);
	ck_assert_int_eq(virtqueue_pop(vq, chain), 1);
	ck_assert_int_eq(virtqueue_pop(vq, chain), 0);
	virtqueue_push(vq, chain, 4);
	rings[1].mem = to->mem;
	ck_assert(vring_take(&rings[1], &head, &len));
	ck_assert_uint_eq(len, 3);
	ck_assert(vring_take(&rings[1], &head, &len));
	ck_assert_uint_eq(len, 4);
	virtio_interrupt(&toy_of(to)->virtio, 1);
	ck_assert_uint_eq(last_msi(to), 1);
	free(chain);
	virtio_rig_free(rig);
	virtio_rig_free(to);
}
END_TEST

START_TEST(virtio_interrupt_that_was_not_seen_moves)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings), *to;

	virtio_interrupt(&toy_of(rig)->virtio, 0);
	to = move(rig);
	ck_assert(!to->base->line[LINE]); /* the VM isn't all there yet */
	RIG_OP(to->base, resume);
	ck_assert(to->base->line[LINE]);
	ck_assert_uint_eq(common_read(to, BAR_ISR, 1), 1);
	ck_assert(!to->base->line[LINE]);
	virtio_rig_free(rig);
	virtio_rig_free(to);
}
END_TEST

START_TEST(virtio_moves_half_configured)
{
	struct virtio_rig *rig = toy_new(TOY_VECTORS), *to;

	/* Nobody has touched it. */
	to = move(rig);
	RIG_OP(to->base, resume);
	ck_assert(!toy_of(to)->served[0]);
	virtio_rig_free(to);
	RIG_OP(rig->base, resume);
	/* Bad features, a queue with half an address. */
	negotiate(rig, ~0ULL);
	common_write(rig, COMMON_DRIVER_FEATURE_SELECT, 77, 4);
	common_write(rig, COMMON_QUEUE_SELECT, 2, 2);
	common_write(rig, COMMON_QUEUE_USED + 4, 0xdead, 4);
	common_write(rig, COMMON_QUEUE_SIZE, 2, 2);
	config_write(rig, find_cap(rig, 5) + 8, 0x12345678, 4);
	config_write(rig, find_cap(rig, 5) + 4, 0xee, 1);
	to = move(rig);
	RIG_OP(to->base, resume);
	ck_assert_uint_eq(status_of(to), VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	ck_assert_uint_eq(common_read(to, COMMON_QUEUE_USED, 8),
			  0xdeadULL << 32);
	ck_assert_uint_eq(common_read(to, COMMON_QUEUE_SIZE, 2), 2);
	ck_assert_uint_eq(common_read(to, COMMON_DRIVER_FEATURE_SELECT, 4), 77);
	ck_assert_uint_eq(config_read(to, find_cap(to, 5) + 8, 4), 0x12345678);
	ck_assert_uint_eq(config_read(to, find_cap(to, 5) + 4, 1), 0xee);
	virtio_rig_free(rig);
	virtio_rig_free(to);
}
END_TEST

START_TEST(virtio_moves_with_rings_that_are_nowhere_and_needs_a_reset_there)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings), *to;
	struct toy_state *state = calloc(1, sizeof(*state));

	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, snapshot, state);
	state->virtio.queues[1].ring.avail = UINT64_MAX;
	to = virtio_rig_new(toy_create, 0);
	ck_assert(rig_accepts(to->base, state));
	RIG_OP(to->base, commit, state);
	RIG_OP(to->base, resume);
	ck_assert(status_of(to) & VIRTIO_NEEDS_RESET);
	ck_assert(!toy_of(to)->served[0] && !toy_of(to)->served[1]);
	free(state);
	virtio_rig_free(rig);
	/* And so it moves on. */
	rig = move(to);
	RIG_OP(rig->base, resume);
	ck_assert(status_of(rig) & VIRTIO_NEEDS_RESET);
	virtio_rig_free(rig);
	virtio_rig_free(to);
}
END_TEST

START_TEST(virtio_rehearses_while_its_queues_are_served)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(0, rings);
	struct toy_state *state = calloc(1, sizeof(*state));

	/* What the serving thread writes is not for others to look at. */
	toy_of(rig)->virtio.queues[0].ring.state.next_avail = 5;
	RIG_OP(rig->base, snapshot, state);
	ck_assert_uint_eq(state->virtio.queues[0].ring.next_avail, 0);
	ck_assert(state->virtio.queues[0].ring.enabled);
	ck_assert(rig_accepts(rig->base, state));
	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, snapshot, state);
	ck_assert_uint_eq(state->virtio.queues[0].ring.next_avail, 5);
	free(state);
	virtio_rig_free(rig);
}
END_TEST

START_TEST(virtio_refuses_states_that_no_guest_can_reach)
{
	struct vring rings[2];
	struct virtio_rig *rig = toy_ready(TOY_VECTORS, rings);
	struct toy_state *good = calloc(2, sizeof(*good));
	struct virtio_state *s = &good[1].virtio;

	RIG_OP(rig->base, pause);
	RIG_OP(rig->base, snapshot, good);
	ck_assert(rig_accepts(rig->base, good));

#define REFUSES(...)                                   \
	do {                                           \
		good[1] = good[0];                     \
		__VA_ARGS__;                           \
		ck_assert(!rig_accepts(rig->base, s)); \
	} while (0)
	REFUSES(s->status |= 0x10);
	REFUSES(s->status &= (uint8_t)~VIRTIO_FEATURES_OK);
	REFUSES(s->status = VIRTIO_NEEDS_RESET);
	REFUSES(s->driver_features |= VIRTIO_BIT(7));
	REFUSES(s->driver_features &= ~VIRTIO_BIT(VIRTIO_F_VERSION_1));
	REFUSES(s->isr = 4);
	REFUSES(s->isr = 1, s->status &= (uint8_t)~VIRTIO_DRIVER_OK);
	REFUSES(s->config_vector = TOY_VECTORS);
	REFUSES(s->queues[1].vector = TOY_VECTORS);
	REFUSES(s->nqueues = TOY_QUEUES - 1);
	REFUSES(s->nqueues = TOY_QUEUES + 1);
	REFUSES(s->queues[2].ring.size = 16);
	REFUSES(s->queues[0].ring.next_avail = 9);
	REFUSES(s->queues[0].ring.next_avail = 1,
		s->status &= (uint8_t)~VIRTIO_DRIVER_OK);
	REFUSES(s->pci.command = 0xffff);
#undef REFUSES
	free(good);
	virtio_rig_free(rig);
}
END_TEST

UNIT_SUITE("virtio", virtio_is_a_modern_pci_device_with_its_capabilities,
	   virtio_registers_have_their_width_and_no_other,
	   virtio_shows_the_device_s_configuration,
	   virtio_window_in_configuration_space_shows_the_registers,
	   virtio_features_are_offered_in_halves,
	   virtio_takes_no_bad_set_of_features,
	   virtio_features_and_status_bits_stay,
	   virtio_queue_is_set_up_once_and_within_bounds,
	   virtio_queue_is_served_from_when_the_driver_is_ready,
	   virtio_queue_is_not_served_while_paused,
	   virtio_doorbells_are_where_the_guest_finds_them,
	   virtio_notification_that_comes_here_rings_the_same_bell,
	   virtio_interrupts_by_the_line_without_msix,
	   virtio_interrupts_by_the_line_while_msix_is_disabled,
	   virtio_interrupts_by_vectors_with_msix,
	   virtio_configuration_has_generations,
	   virtio_reset_ends_when_nothing_is_in_flight,
	   virtio_reset_takes_interrupts_back,
	   virtio_queue_reset_ends_when_nothing_is_in_flight,
	   virtio_queue_reset_has_to_be_negotiated,
	   virtio_machine_reset_is_power_on,
	   virtio_device_whose_driver_fails_needs_a_reset,
	   virtio_queue_whose_rings_are_nowhere_needs_a_reset,
	   virtio_asks_for_no_more_vectors_than_a_peer_can_hold,
	   virtio_pause_waits_for_what_is_in_flight,
	   virtio_reset_under_way_ends_in_a_pause,
	   virtio_moves_with_its_driver_at_work,
	   virtio_interrupt_that_was_not_seen_moves,
	   virtio_moves_half_configured,
	   virtio_moves_with_rings_that_are_nowhere_and_needs_a_reset_there,
	   virtio_rehearses_while_its_queues_are_served,
	   virtio_refuses_states_that_no_guest_can_reach)
