/* SPDX-License-Identifier: MIT */
/*
 * The driver half of virtio over PCI; see virtio.h.
 *
 * Rings are laid out with room for EVENT_IDX whether it is negotiated or not.
 * A descriptor that is free is linked to the next free one by its own next
 * field; chains are taken from there and put back.
 */
#include "virtio.h"
#include "runtime.h"

#define CAP_COMMON 1U
#define CAP_NOTIFY 2U
#define CAP_ISR	   3U
#define CAP_DEVICE 4U

/* Registers of the capability; section 4.1.4. */
#define CAP_TYPE       3U
#define CAP_BAR	       4U
#define CAP_OFFSET     8U
#define CAP_MULTIPLIER 16U

#define RESET_NS (5 * NS_PER_S)

/* An event index that nobody reaches soon: half of all there are. */
#define FAR_AWAY 0x8000U

/* In flight, and of one descriptor: no chain has so many. */
#define NOT_IN_FLIGHT 0

struct virtqueue_memory {
	struct virtq_desc desc[VIRTQUEUE_SIZE];
	struct virtq_avail avail;
	struct virtq_used used __attribute__((aligned(16)));
	struct virtq_desc tables[VIRTQUEUE_SIZE][VIRTQUEUE_SEGMENTS]
		__attribute__((aligned(16)));
};

/* ---- the device ---- */

static uintptr_t cap_map(const struct pci_device *pci, unsigned int cap)
{
	unsigned int bar = pci_read(pci, cap + CAP_BAR, 1);

	return (uintptr_t)pci_map_bar(pci, bar) +
	       pci_read(pci, cap + CAP_OFFSET, 4);
}

void virtio_open(struct virtio *v, const struct pci_device *pci)
{
	unsigned int cap = 0;

	*v = (struct virtio){ .pci = *pci, .features = v->features };
	while ((cap = pci_capability(pci, PCI_CAP_VENDOR, cap))) {
		unsigned int type = pci_read(pci, cap + CAP_TYPE, 1);

		/* The first of each kind counts; section 4.1.4. */
		if (type == CAP_COMMON && !v->common) {
			v->common = (volatile struct virtio_common *)cap_map(
				pci, cap);
		} else if (type == CAP_NOTIFY && !v->notify) {
			v->notify = cap_map(pci, cap);
			v->notify_multiplier =
				pci_read(pci, cap + CAP_MULTIPLIER, 4);
		} else if (type == CAP_ISR && !v->isr) {
			v->isr = (volatile uint8_t *)cap_map(pci, cap);
		} else if (type == CAP_DEVICE && !v->config) {
			v->config = (volatile void *)cap_map(pci, cap);
		}
	}
	if (!v->common || !v->notify || !v->isr)
		guest_fail(VERDICT_DEVICE,
			   "PCI slot %u: a virtio capability is missing\n",
			   pci->slot);
}

bool virtio_find(uint32_t id, unsigned int index, struct virtio *ret)
{
	struct pci_device pci;

	if (!pci_find(VIRTIO_VENDOR, VIRTIO_DEVICE(id), 1, index, &pci))
		return false;
	*ret = (struct virtio){ 0 };
	virtio_open(ret, &pci);
	return true;
}

void virtio_reset(struct virtio *v)
{
	uint64_t start = rdtsc();

	v->common->status = 0;
	while (v->common->status) {
		if (rdtsc() - start > clock_ns_tsc(RESET_NS))
			guest_fail(VERDICT_DEVICE,
				   "PCI slot %u: the reset does not end\n",
				   v->pci.slot);
		cpu_relax();
	}
	v->features = 0;
}

void virtio_status(struct virtio *v, unsigned int bits)
{
	v->common->status = (uint8_t)(v->common->status | bits);
}

uint64_t virtio_offered(struct virtio *v)
{
	uint64_t features;

	v->common->device_feature_select = 1;
	features = (uint64_t)v->common->device_feature << 32;
	v->common->device_feature_select = 0;
	return features | v->common->device_feature;
}

void virtio_accept(struct virtio *v, uint64_t features)
{
	v->common->driver_feature_select = 0;
	v->common->driver_feature = (uint32_t)features;
	v->common->driver_feature_select = 1;
	v->common->driver_feature = (uint32_t)(features >> 32);
}

void virtio_negotiate(struct virtio *v, uint64_t wanted)
{
	uint64_t offered;

	virtio_reset(v);
	virtio_status(v, VIRTIO_ACKNOWLEDGE);
	virtio_status(v, VIRTIO_DRIVER);
	offered = virtio_offered(v);
	if (!(offered & VIRTIO_F_VERSION_1))
		guest_fail(VERDICT_DEVICE, "PCI slot %u: not VIRTIO 1.0\n",
			   v->pci.slot);
	v->features = offered & (wanted | VIRTIO_F_VERSION_1);
	virtio_accept(v, v->features);
	virtio_status(v, VIRTIO_FEATURES_OK);
	if (!(v->common->status & VIRTIO_FEATURES_OK))
		guest_fail(VERDICT_DEVICE,
			   "PCI slot %u: features 0x%lx were offered and "
			   "refused\n",
			   v->pci.slot, v->features);
}

uint8_t virtio_isr(const struct virtio *v)
{
	return *v->isr;
}

/* ---- queues ---- */

static void write64(volatile uint32_t reg[2], volatile const void *value)
{
	reg[0] = (uint32_t)(uintptr_t)value;
	reg[1] = (uint32_t)((uintptr_t)value >> 32);
}

/* The rings as the specification wants them before a queue is enabled. */
static void clear_rings(struct virtqueue *q)
{
	if (!q->memory)
		q->memory = mem_alloc(sizeof(*q->memory), PAGE_SIZE);
	memset(q->memory, 0, offsetof(struct virtqueue_memory, tables));
	q->desc = q->memory->desc;
	q->avail = &q->memory->avail;
	q->used = &q->memory->used;
	for (uint16_t i = 0; i < q->size; i++) {
		q->desc[i].next = (uint16_t)(i + 1);
		q->chain[i] = NOT_IN_FLIGHT;
	}
	q->free = 0;
	q->free_count = q->size;
	q->added = q->published = q->taken = 0;
}

void virtqueue_setup(struct virtqueue *q, struct virtio *v, uint16_t index,
		     uint16_t size, uint16_t vector)
{
	volatile struct virtio_common *c = v->common;

	c->queue_select = index;
	q->size = c->queue_size;
	if (!q->size)
		guest_fail(VERDICT_DEVICE, "PCI slot %u: no queue %u\n",
			   v->pci.slot, index);
	if (q->size > size)
		q->size = size;
	q->v = v;
	q->index = index;
	q->event_idx = v->features & VIRTIO_F_EVENT_IDX;
	q->indirect = v->features & VIRTIO_F_INDIRECT;
	clear_rings(q);
	c->queue_size = q->size;
	c->queue_vector = vector;
	if (c->queue_vector != vector)
		guest_fail(VERDICT_DEVICE,
			   "PCI slot %u: no vector %u for queue %u\n",
			   v->pci.slot, vector, index);
	write64(c->queue_desc, q->desc);
	write64(c->queue_driver, q->avail);
	write64(c->queue_device, q->used);
	q->doorbell =
		(volatile uint16_t *)(v->notify + v->notify_multiplier *
							  c->queue_notify_off);
	c->queue_enable = 1;
}

void virtqueue_reset(struct virtqueue *q)
{
	volatile struct virtio_common *c = q->v->common;
	uint64_t start = rdtsc();

	c->queue_select = q->index;
	c->queue_reset = 1;
	while (c->queue_reset) {
		if (rdtsc() - start > clock_ns_tsc(RESET_NS))
			guest_fail(VERDICT_DEVICE,
				   "queue %u: the reset does not end\n",
				   q->index);
		cpu_relax();
	}
	if (c->queue_enable)
		guest_fail(VERDICT_DEVICE,
			   "queue %u: reset and still enabled\n", q->index);
}

volatile uint16_t *virtqueue_used_event(const struct virtqueue *q)
{
	return &q->avail->ring[q->size];
}

static volatile uint16_t *avail_event(const struct virtqueue *q)
{
	return (volatile uint16_t *)&q->used->ring[q->size];
}

static void add_indirect(struct virtqueue *q, uint16_t head,
			 const struct virtqueue_buffer *buf, unsigned int out,
			 unsigned int n)
{
	struct virtq_desc *table = q->memory->tables[head];

	for (unsigned int i = 0; i < n; i++)
		table[i] = (struct virtq_desc){
			.gpa = (uint64_t)buf[i].at,
			.len = buf[i].len,
			.flags = (uint16_t)((i < out ? 0 : VIRTQ_WRITE) |
					    (i + 1 < n ? VIRTQ_NEXT : 0)),
			.next = (uint16_t)(i + 1),
		};
	q->free = q->desc[head].next;
	q->desc[head].gpa = (uint64_t)table;
	q->desc[head].len = n * (uint32_t)sizeof(*table);
	q->desc[head].flags = VIRTQ_INDIRECT;
}

static void add_chain(struct virtqueue *q, const struct virtqueue_buffer *buf,
		      unsigned int out, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		volatile struct virtq_desc *d = &q->desc[q->free];

		d->gpa = (uint64_t)buf[i].at;
		d->len = buf[i].len;
		d->flags = (uint16_t)((i < out ? 0 : VIRTQ_WRITE) |
				      (i + 1 < n ? VIRTQ_NEXT : 0));
		q->free = d->next;
	}
}

int virtqueue_add(struct virtqueue *q, const struct virtqueue_buffer *buf,
		  unsigned int out, unsigned int in)
{
	unsigned int n = out + in;
	uint16_t needed = q->indirect ? 1 : (uint16_t)n;
	uint16_t head = q->free;

	if (!n || n > VIRTQUEUE_SEGMENTS)
		guest_fail(VERDICT_INTERNAL, "a request of %u buffers\n", n);
	if (needed > q->free_count)
		return -1;
	if (q->indirect)
		add_indirect(q, head, buf, out, n);
	else
		add_chain(q, buf, out, n);
	q->free_count = (uint16_t)(q->free_count - needed);
	q->chain[head] = needed;
	q->avail->ring[q->added % q->size] = head;
	q->added++;
	return head;
}

bool virtqueue_publish(struct virtqueue *q)
{
	uint16_t before = q->published;
	uint16_t event;

	if (q->added == before)
		return false;
	barrier(); /* x86 keeps stores in order */
	q->avail->idx = q->published = q->added;
	full_barrier();
	if (!q->event_idx)
		return !(q->used->flags & VIRTQ_NO_NOTIFY);
	/* Section 2.7.10: has the event index been passed? */
	event = *avail_event(q);
	return (uint16_t)(q->added - event - 1) < (uint16_t)(q->added - before);
}

void virtqueue_ring(struct virtqueue *q)
{
	*q->doorbell = q->index;
}

void virtqueue_kick(struct virtqueue *q)
{
	if (virtqueue_publish(q))
		virtqueue_ring(q);
}

static void put_back(struct virtqueue *q, uint16_t head)
{
	uint16_t last = head;

	for (uint16_t i = 1; i < q->chain[head]; i++)
		last = q->desc[last].next;
	q->desc[last].next = q->free;
	q->free = head;
	q->free_count = (uint16_t)(q->free_count + q->chain[head]);
	q->chain[head] = NOT_IN_FLIGHT;
}

int virtqueue_take(struct virtqueue *q, uint32_t *ret_len)
{
	volatile struct virtq_used_entry *entry;
	uint32_t id;

	if (!virtqueue_done(q))
		return -1;
	barrier(); /* x86 keeps loads in order */
	if ((uint16_t)(q->used->idx - q->taken) >
	    (uint16_t)(q->published - q->taken))
		guest_fail(VERDICT_DEVICE,
			   "queue %u: used index %u, but %u were available\n",
			   q->index, q->used->idx, q->published);
	entry = &q->used->ring[q->taken % q->size];
	id = entry->id;
	if (id >= q->size || q->chain[id] == NOT_IN_FLIGHT)
		guest_fail(VERDICT_DEVICE,
			   "queue %u: %u is done and was not in flight\n",
			   q->index, id);
	*ret_len = entry->len;
	put_back(q, (uint16_t)id);
	q->taken++;
	return (int)id;
}

bool virtqueue_want_interrupt(struct virtqueue *q, bool on)
{
	if (q->event_idx)
		*virtqueue_used_event(q) =
			(uint16_t)(on ? q->taken : q->taken + FAR_AWAY);
	else
		q->avail->flags = (uint16_t)(on ? 0 : VIRTQ_NO_INTERRUPT);
	full_barrier();
	return virtqueue_done(q);
}
