/* SPDX-License-Identifier: MIT */
/*
 * Points about a virtio device on its way from reset to work and back, and
 * about its queues: full, not rung, being reset, broken. VIRTIO 1.2, sections
 * 2.1, 2.6, 2.7 and 4.1.
 */
#include "devices.h"

#define SETTLE_NS 2000000UL
#define SOME	  3U

/* ---- the device's status ---- */

/* Nobody has touched it yet: the first point that has to do with it. */
void point_virtio_not_loaded(void)
{
	struct pci_device pci;
	struct prod *prod;

	if (!pci_find(VIRTIO_VENDOR, VIRTIO_DEVICE(0), 64, 0, &pci)) {
		sync_skip("no virtio device");
		return;
	}
	sync_wait();
	prod = device_find();
	if (!prod)
		return;
	/* It either stays as the machine's firmware left it, or is as reset. */
	sync_check("it waits for a driver", 1,
		   !prod->v.common->status ||
			   prod->v.common->status & VIRTIO_DRIVER_OK);
	device_works(prod);
}

/* Reset after it was used. */
void point_virtio_reset(void)
{
	struct prod *prod = device_up(0, false);
	uint64_t offered;

	if (!prod)
		return;
	prod_once(prod);
	offered = virtio_offered(&prod->v);
	virtio_reset(&prod->v);
	sync_wait();
	sync_check("status", 0, prod->v.common->status);
	sync_check("features", offered, virtio_offered(&prod->v));
	prod->v.common->queue_select = 0;
	sync_check("queue enabled", 0, prod->v.common->queue_enable);
	device_works(prod);
}

void point_virtio_acknowledge(void)
{
	struct prod *prod = device_find();

	if (!prod)
		return;
	virtio_reset(&prod->v);
	virtio_status(&prod->v, VIRTIO_ACKNOWLEDGE);
	sync_wait();
	sync_check("status", VIRTIO_ACKNOWLEDGE, prod->v.common->status);
	device_works(prod);
}

/*
 * Features are agreed on, and of the queue's addresses the first has its lower
 * half: a pattern, since the queue is not enabled.
 */
void point_virtio_half(void)
{
	volatile struct virtio_common *common;
	struct prod *prod = device_find();
	uint64_t features;

	if (!prod)
		return;
	common = prod->v.common;
	virtio_negotiate(&prod->v, VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX);
	features = prod->v.features;
	common->config_vector = PROD_CONFIG;
	common->queue_select = 0;
	common->queue_size = 4;
	common->queue_vector = PROD_QUEUE;
	common->queue_desc[0] = 0x12345670U;
	common->device_feature_select = 1;
	common->driver_feature_select = 1;
	common->queue_select = SOME;
	sync_wait();
	sync_check("queue select", SOME, common->queue_select);
	common->queue_select = 0;
	sync_check("status",
		   VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK,
		   common->status);
	sync_check("driver features select", 1, common->driver_feature_select);
	sync_check("driver features", features >> 32, common->driver_feature);
	sync_check("device features select", 1, common->device_feature_select);
	sync_check("queue size", 4, common->queue_size);
	sync_check("queue vector", PROD_QUEUE, common->queue_vector);
	sync_check("config vector", PROD_CONFIG, common->config_vector);
	sync_check("queue descriptors", 0x12345670U, common->queue_desc[0]);
	sync_check("their upper half", 0, common->queue_desc[1]);
	sync_check("queue enabled", 0, common->queue_enable);
	common->driver_feature_select = 0;
	sync_check("lower driver features", (uint32_t)features,
		   common->driver_feature);
	virtqueue_setup(&prod->queue, &prod->v, 0, VIRTQUEUE_SIZE, PROD_QUEUE);
	sync_check("queue size once enabled", 4, prod->queue.size);
	virtio_status(&prod->v, VIRTIO_DRIVER_OK);
	prod->queue.indirect = false;
	device_works(prod);
}

/* Registers of a capability; VIRTIO 1.2, section 4.1.4. */
#define CAP_COMMON 1U
#define CAP_WINDOW 5U
#define CAP_TYPE   3U
#define CAP_BAR	   4U
#define CAP_OFFSET 8U
#define CAP_LENGTH 12U
#define CAP_DATA   16U

static unsigned int capability(const struct pci_device *pci, unsigned int type)
{
	unsigned int cap = 0;

	do
		cap = pci_capability(pci, PCI_CAP_VENDOR, cap);
	while (cap && pci_read(pci, cap + CAP_TYPE, 1) != type);
	return cap;
}

/* The window in configuration space is aimed at a register, and not used. */
void point_virtio_window(void)
{
	struct prod *prod = device_find();
	unsigned int common, window;
	const struct pci_device *pci;
	uint32_t bar, at;

	if (!prod)
		return;
	pci = &prod->v.pci;
	common = capability(pci, CAP_COMMON);
	window = capability(pci, CAP_WINDOW);
	sync_check("there is a window", 1, !!window);
	bar = pci_read(pci, common + CAP_BAR, 1);
	at = pci_read(pci, common + CAP_OFFSET, 4) +
	     (uint32_t)offsetof(struct virtio_common, num_queues);
	pci_write(pci, window + CAP_BAR, 1, bar);
	pci_write(pci, window + CAP_OFFSET, 4, at);
	pci_write(pci, window + CAP_LENGTH, 4, 2);
	sync_wait();
	sync_check("BAR", bar, pci_read(pci, window + CAP_BAR, 1));
	sync_check("offset", at, pci_read(pci, window + CAP_OFFSET, 4));
	sync_check("length", 2, pci_read(pci, window + CAP_LENGTH, 4));
	sync_check("what is there", prod->v.common->num_queues,
		   pci_read(pci, window + CAP_DATA, 2));
	pci_write(pci, window + CAP_LENGTH, 4, 0);
}

/* A chain that loops; the interrupt that tells of it is masked. */
void point_virtio_needs_reset(void)
{
	struct prod *prod = device_up(0, true);
	struct virtqueue *q;

	if (!prod)
		return;
	q = &prod->queue;
	irq_set(true);
	msix_mask(&prod->msix, PROD_CONFIG, true);
	prod_add(prod);
	q->desc[0].flags = VIRTQ_NEXT | VIRTQ_WRITE;
	q->desc[0].next = 0;
	virtqueue_publish(q);
	virtqueue_ring(q);
	sync_check("needs reset before", 1,
		   device_holds(prod, device_broken, true));
	sync_wait();
	sync_check("needs reset after", 1, device_broken(prod));
	sync_check("answers", 0, virtqueue_done(q));
	sync_check("told while masked", 0, config_hits);
	msix_mask(&prod->msix, PROD_CONFIG, false);
	sync_until(&config_hits, 1, 5 * SECOND_NS);
	irq_set(false);
	sync_check("told", 1, config_hits);
	virtio_reset(&prod->v);
	device_works(prod);
}

/* ---- queues ---- */

static unsigned int fill(struct prod *prod, unsigned int most)
{
	unsigned int n = 0;

	while (n < most && prod_add(prod))
		n++;
	virtqueue_publish(&prod->queue);
	return n;
}

/* Before DRIVER_OK: nothing may be taken, wherever the guest runs. */
void point_virtqueue_full(void)
{
	struct prod *prod = device_find();
	unsigned int n;

	if (!prod)
		return;
	virtio_negotiate(&prod->v, 0);
	virtqueue_setup(&prod->queue, &prod->v, 0, VIRTQUEUE_SIZE,
			VIRTIO_NO_VECTOR);
	n = fill(prod, UINT32_MAX);
	sync_wait();
	sync_check("answers before DRIVER_OK", 0, prod->queue.used->idx);
	virtio_status(&prod->v, VIRTIO_DRIVER_OK);
	virtqueue_ring(&prod->queue);
	sync_check("answers", n, prod_wait(prod));
	device_down(prod);
}

/* In the ring, and the device has not been told. */
void point_virtqueue_not_rung(void)
{
	struct prod *prod = device_up(0, true);

	if (!prod)
		return;
	fill(prod, SOME);
	sync_wait();
	virtqueue_ring(&prod->queue);
	sync_check("answers", SOME, prod_wait(prod));
	sync_check("answers in all", SOME, prod->queue.used->idx);
	device_down(prod);
}

/* Up, with EVENT_IDX, and one answer has interrupted. */
static struct prod *with_events(void)
{
	struct prod *prod = device_up(VIRTIO_F_EVENT_IDX, true);

	if (!prod)
		return NULL;
	if (!prod->queue.event_idx) {
		sync_skip("not offered");
		device_down(prod);
		return NULL;
	}
	irq_set(true);
	prod_once(prod);
	sync_until(&queue_hits, 1, 5 * SECOND_NS);
	return prod;
}

/* @quiet answers that interrupt nobody, and then one that does. */
static void check_events(struct prod *prod, unsigned int quiet)
{
	while (quiet--)
		prod_once(prod);
	clock_delay(SETTLE_NS);
	sync_check("too early", 1, queue_hits);
	*virtqueue_used_event(&prod->queue) = prod->queue.taken;
	prod_once(prod);
	sync_until(&queue_hits, 2, 5 * SECOND_NS);
	clock_delay(SETTLE_NS);
	irq_set(false);
	sync_check("interrupts", 2, queue_hits);
	device_down(prod);
}

/* The third answer from now is to interrupt, and no other. */
void point_virtqueue_event(void)
{
	struct prod *prod = with_events();

	if (!prod)
		return;
	*virtqueue_used_event(&prod->queue) = (uint16_t)(prod->queue.taken + 2);
	sync_wait();
	check_events(prod, 2);
}

/* The event that the device last told of: none is to come. */
void point_virtqueue_event_past(void)
{
	struct prod *prod = with_events();

	if (!prod)
		return;
	*virtqueue_used_event(&prod->queue) = (uint16_t)(prod->queue.taken - 1);
	sync_wait();
	check_events(prod, 2);
}

static struct prod *with_queue_reset(void)
{
	struct prod *prod = device_up(VIRTIO_F_RING_RESET, true);

	if (!prod || prod->v.features & VIRTIO_F_RING_RESET)
		return prod;
	sync_skip("not offered");
	device_down(prod);
	return NULL;
}

static void setup_again(struct prod *prod)
{
	sync_check("queue enabled", 0, prod->v.common->queue_enable);
	virtqueue_setup(&prod->queue, &prod->v, 0, VIRTQUEUE_SIZE, PROD_QUEUE);
	prod_once(prod);
	device_down(prod);
}

/* A queue that was reset alone. */
void point_virtqueue_reset(void)
{
	struct prod *prod = with_queue_reset();

	if (!prod)
		return;
	prod_once(prod);
	virtqueue_reset(&prod->queue);
	sync_wait();
	prod->v.common->queue_select = 0;
	setup_again(prod);
}

/* The same, with requests in flight, and not yet known to be over. */
void point_virtqueue_resetting(void)
{
	struct prod *prod = with_queue_reset();
	uint16_t answers;

	if (!prod)
		return;
	fill(prod, UINT32_MAX);
	virtqueue_ring(&prod->queue);
	prod->v.common->queue_select = 0;
	prod->v.common->queue_reset = 1;
	sync_wait();
	while (prod->v.common->queue_reset)
		cpu_relax();
	answers = prod->queue.used->idx;
	clock_delay(SETTLE_NS);
	sync_check("answers after the reset", answers, prod->queue.used->idx);
	setup_again(prod);
}
