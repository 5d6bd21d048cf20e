// SPDX-License-Identifier: MIT
/*
 * Virtio over PCI, modern only: BARs, capabilities and the registers in them.
 * Sections are those of VIRTIO 1.2.
 *
 * BAR 0 has a page each for common configuration, ISR status, the device's own
 * configuration and notifications; BAR 1 is MSI-X's. Each queue's doorbell is
 * an address of its own in the notification page, which KVM turns into the
 * queue's eventfd (doorbell.h) for as long as the queue is enabled. It stays in
 * place during a pause: it costs the guest time to take it down.
 *
 * Registers are accessed as the specification has drivers do it (4.1.3.1): each
 * with its own width, 64-bit ones as two halves. What is accessed otherwise
 * reads as zero and can't be written.
 */
#include <string.h>

#include "devices/virtio/pci.h"
#include "vmm/doorbell.h"
#include "vmm/log.h"

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_VIRTIO 0x1040 /* plus the device's type; 4.1.2 */
#define PCI_REVISION_1	  1

#define BAR_REGISTERS 0
#define BAR_MSIX      1
#define BAR_SIZE      0x4000

/* Pages of BAR 0. */
#define PAGE_SIZE   0x1000
#define PAGE_COMMON 0
#define PAGE_ISR    1
#define PAGE_DEVICE 2
#define PAGE_NOTIFY 3

#define NOTIFY_MULTIPLIER 4

/* cfg_type; 4.1.4. */
enum {
	CAP_COMMON = 1,
	CAP_NOTIFY = 2,
	CAP_ISR = 3,
	CAP_DEVICE = 4,
	CAP_PCI = 5,
};

/* Where fields are in a capability. */
#define CAP_BAR	      4
#define CAP_OFFSET    8
#define CAP_LENGTH    12
#define CAP_SIZE      16
#define CAP_DATA      16 /* pci_cfg_data, notify_off_multiplier */
#define CAP_DATA_SIZE 4

/* struct virtio_pci_common_cfg; 4.1.4.3. */
enum {
	COMMON_DEVICE_FEATURE_SELECT = 0x00,
	COMMON_DEVICE_FEATURE = 0x04,
	COMMON_DRIVER_FEATURE_SELECT = 0x08,
	COMMON_DRIVER_FEATURE = 0x0c,
	COMMON_CONFIG_VECTOR = 0x10,
	COMMON_NUM_QUEUES = 0x12,
	COMMON_STATUS = 0x14,
	COMMON_GENERATION = 0x15,
	COMMON_QUEUE_SELECT = 0x16,
	COMMON_QUEUE_SIZE = 0x18,
	COMMON_QUEUE_VECTOR = 0x1a,
	COMMON_QUEUE_ENABLE = 0x1c,
	COMMON_QUEUE_NOTIFY_OFF = 0x1e,
	COMMON_QUEUE_DESC = 0x20,
	COMMON_QUEUE_AVAIL = 0x28,
	COMMON_QUEUE_USED = 0x30,
	COMMON_QUEUE_NOTIFY_DATA = 0x38, /* not offered */
	COMMON_QUEUE_RESET = 0x3a,
	COMMON_SIZE = 0x3c,
};

static struct virtio *to_virtio(struct pci_function *fn)
{
	return container_of(fn, struct virtio, pci);
}

/* ---- interrupts ---- */

void virtio_pci_set_isr(struct virtio *v, uint8_t isr)
{
	pthread_mutex_lock(&v->isr_lock);
	v->state.isr = isr;
	pci_set_line(&v->pci, isr);
	pthread_mutex_unlock(&v->isr_lock);
}

/* Section 4.1.4.5.1: a configuration change shows in ISR status always. */
void virtio_pci_tell(struct virtio *v, uint16_t vector, uint8_t isr)
{
	bool sent = v->vectors && msix_raise(&v->pci.msix, vector);

	if (sent && !(isr & VIRTIO_ISR_CONFIG))
		return;
	pthread_mutex_lock(&v->isr_lock);
	v->state.isr |= isr;
	pci_set_line(&v->pci, true);
	pthread_mutex_unlock(&v->isr_lock);
}

/* Reading acknowledges. */
static uint8_t read_isr(struct virtio *v)
{
	uint8_t isr;

	pthread_mutex_lock(&v->isr_lock);
	isr = v->state.isr;
	v->state.isr = 0;
	pci_set_line(&v->pci, false);
	pthread_mutex_unlock(&v->isr_lock);
	return isr;
}

/* ---- doorbells ---- */

void virtio_pci_move_doorbell(struct virtio *v, unsigned int index)
{
	struct virtio_queue *q = &v->queues[index];
	uint64_t bar = pci_function_bar(&v->pci, BAR_REGISTERS);
	uint64_t gpa = 0;
	struct error err;

	if (bar && q->ring.state.enabled)
		gpa = bar + PAGE_NOTIFY * PAGE_SIZE +
		      (uint64_t)index * NOTIFY_MULTIPLIER;
	if (gpa == q->doorbell_gpa)
		return;
	if (q->doorbell_gpa)
		doorbell_detach(v->doorbell, q->doorbell_gpa, 0, q->event_fd);
	q->doorbell_gpa = gpa;
	/* Another BAR may lie over ours. Then the guest's writes come to us. */
	if (gpa && doorbell_attach(v->doorbell, gpa, 0, q->event_fd, &err)) {
		log_debug("%s: queue %u: %s", v->dev.id, index, err.text);
		q->doorbell_gpa = 0;
	}
}

static void bar_moved(struct pci_function *fn, unsigned int bar,
		      uint64_t gpa __maybe_unused)
{
	struct virtio *v = to_virtio(fn);

	if (bar != BAR_REGISTERS)
		return;
	for (unsigned int i = 0; i < v->nqueues; i++)
		virtio_pci_move_doorbell(v, i);
}

/* A notification that doesn't come by KVM; 4.1.4.4. */
static void write_notify(struct virtio *v, uint64_t offset)
{
	uint64_t index = offset / NOTIFY_MULTIPLIER;

	if (index < v->nqueues && v->queues[index].ring.state.enabled)
		virtio_kick(v, (unsigned int)index);
}

/* ---- common configuration ---- */

/* The queue that is selected, if there is one. */
static struct virtio_queue *selected(struct virtio *v)
{
	uint16_t index = v->state.queue_select;

	return index < v->nqueues ? &v->queues[index] : NULL;
}

/* The width of the register, or half of one, at @offset; 0: none. */
static unsigned int common_width(uint64_t offset)
{
	switch (offset) {
	case COMMON_STATUS:
	case COMMON_GENERATION:
		return 1;
	case COMMON_CONFIG_VECTOR:
	case COMMON_NUM_QUEUES:
	case COMMON_QUEUE_SELECT:
	case COMMON_QUEUE_SIZE:
	case COMMON_QUEUE_VECTOR:
	case COMMON_QUEUE_ENABLE:
	case COMMON_QUEUE_NOTIFY_OFF:
	case COMMON_QUEUE_NOTIFY_DATA:
	case COMMON_QUEUE_RESET:
		return 2;
	case COMMON_DEVICE_FEATURE_SELECT:
	case COMMON_DEVICE_FEATURE:
	case COMMON_DRIVER_FEATURE_SELECT:
	case COMMON_DRIVER_FEATURE:
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
	case COMMON_QUEUE_AVAIL:
	case COMMON_QUEUE_AVAIL + 4:
	case COMMON_QUEUE_USED:
	case COMMON_QUEUE_USED + 4:
		return 4;
	default:
		return 0;
	}
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(value >> (32 * select));
}

/* The ring address at @offset of the selected queue. */
static uint64_t *ring_address(struct virtio_queue *q, uint64_t offset)
{
	switch (offset & ~7ULL) {
	case COMMON_QUEUE_DESC:
		return &q->ring.state.desc;
	case COMMON_QUEUE_AVAIL:
		return &q->ring.state.avail;
	default:
		return &q->ring.state.used;
	}
}

/*
 * A queue that is served is another thread's, but what the driver set up: that
 * changes only when it is idle.
 */
static uint32_t read_queue(struct virtio *v, uint64_t offset)
{
	struct virtio_queue *q = selected(v);

	if (!q)
		return 0;
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		return q->ring.state.size;
	case COMMON_QUEUE_VECTOR:
		return q->vector;
	case COMMON_QUEUE_ENABLE:
		return q->ring.state.enabled;
	case COMMON_QUEUE_NOTIFY_OFF:
		return v->state.queue_select;
	case COMMON_QUEUE_NOTIFY_DATA:
		return 0;
	case COMMON_QUEUE_RESET:
		return q->resetting;
	default:
		return half(*ring_address(q, offset), offset / 4 % 2);
	}
}

static uint32_t read_common(struct virtio *v, uint64_t offset)
{
	const struct virtio_state *s = &v->state;

	switch (offset) {
	case COMMON_DEVICE_FEATURE_SELECT:
		return s->device_feature_select;
	case COMMON_DEVICE_FEATURE:
		return half(v->features, s->device_feature_select);
	case COMMON_DRIVER_FEATURE_SELECT:
		return s->driver_feature_select;
	case COMMON_DRIVER_FEATURE:
		return half(s->driver_features, s->driver_feature_select);
	case COMMON_CONFIG_VECTOR:
		return s->config_vector;
	case COMMON_NUM_QUEUES:
		return v->nqueues;
	case COMMON_STATUS:
		return s->status;
	case COMMON_GENERATION:
		return s->config_generation;
	case COMMON_QUEUE_SELECT:
		return s->queue_select;
	default:
		return read_queue(v, offset);
	}
}

/* Section 4.1.5.1.3: before the queue is enabled. */
static void set_up_queue(struct virtio *v, struct virtio_queue *q,
			 uint64_t offset, uint32_t value)
{
	uint64_t *address;

	if (q->ring.state.enabled)
		return;
	if (offset == COMMON_QUEUE_SIZE) {
		if (value && value <= v->queue_size_max &&
		    !(value & (value - 1)))
			q->ring.state.size = (uint16_t)value;
		return;
	}
	address = ring_address(q, offset);
	if (offset % 8)
		*address = (*address & 0xffffffff) | (uint64_t)value << 32;
	else
		*address = (*address & ~0xffffffffULL) | value;
}

static void write_queue(struct virtio *v, uint64_t offset, uint32_t value)
{
	struct virtio_queue *q = selected(v);

	if (!q || q->resetting)
		return;
	switch (offset) {
	case COMMON_QUEUE_VECTOR:
		q->vector = virtio_vector(v, (uint16_t)value);
		break;
	case COMMON_QUEUE_ENABLE:
		if (value == 1)
			virtio_enable_queue(v, v->state.queue_select);
		break;
	case COMMON_QUEUE_RESET:
		if (value == 1)
			virtio_reset_queue(v, v->state.queue_select);
		break;
	case COMMON_QUEUE_NOTIFY_OFF:
	case COMMON_QUEUE_NOTIFY_DATA:
		break;
	default:
		set_up_queue(v, q, offset, value);
		break;
	}
}

static void write_common(struct virtio *v, uint64_t offset, uint32_t value)
{
	struct virtio_state *s = &v->state;

	/* Until it reads status 0 a driver has nothing to say; 4.1.4.3.2. */
	if (v->resetting)
		return;
	switch (offset) {
	case COMMON_DEVICE_FEATURE_SELECT:
		s->device_feature_select = value;
		break;
	case COMMON_DRIVER_FEATURE_SELECT:
		s->driver_feature_select = value;
		break;
	case COMMON_DRIVER_FEATURE:
		virtio_write_features(v, s->driver_feature_select, value);
		break;
	case COMMON_CONFIG_VECTOR:
		s->config_vector = virtio_vector(v, (uint16_t)value);
		break;
	case COMMON_STATUS:
		virtio_write_status(v, (uint8_t)value);
		break;
	case COMMON_QUEUE_SELECT:
		s->queue_select = (uint16_t)value;
		break;
	case COMMON_DEVICE_FEATURE:
	case COMMON_NUM_QUEUES:
	case COMMON_GENERATION:
		break;
	default:
		write_queue(v, offset, value);
		break;
	}
}

/* ---- BAR 0 ---- */

static void read_page(struct virtio *v, uint64_t page, uint64_t offset,
		      void *data, unsigned int size)
{
	uint32_t value = 0;

	if (page == PAGE_COMMON && size == common_width(offset)) {
		value = read_common(v, offset);
		memcpy(data, &value, size);
	} else if (page == PAGE_ISR && !offset) {
		*(uint8_t *)data = read_isr(v);
	} else if (page == PAGE_DEVICE && offset < v->ops->config_size &&
		   size <= v->ops->config_size - offset) {
		v->ops->config_read(v, (uint32_t)offset, data, size);
	}
}

static void write_page(struct virtio *v, uint64_t page, uint64_t offset,
		       const void *data, unsigned int size)
{
	uint32_t value = 0;

	if (page == PAGE_COMMON && size == common_width(offset)) {
		memcpy(&value, data, size);
		write_common(v, offset, value);
	} else if (page == PAGE_NOTIFY && !(offset % NOTIFY_MULTIPLIER)) {
		write_notify(v, offset);
	} else if (page == PAGE_DEVICE && !v->resetting &&
		   offset < v->ops->config_size &&
		   size <= v->ops->config_size - offset) {
		v->ops->config_write(v, (uint32_t)offset, data, size);
	}
}

/* Registers of 64 bits are two of 32, whoever accesses them at once. */
static bool is_pair(uint64_t offset, unsigned int size)
{
	return offset / PAGE_SIZE == PAGE_COMMON && size == 8;
}

static void bar_read(struct pci_function *fn, unsigned int bar __maybe_unused,
		     uint64_t offset, void *data, unsigned int size)
{
	unsigned int part = is_pair(offset, size) ? size / 2 : size;

	memset(data, 0, size);
	for (unsigned int at = 0; at < size; at += part)
		read_page(to_virtio(fn), offset / PAGE_SIZE,
			  offset % PAGE_SIZE + at, (uint8_t *)data + at, part);
}

static void bar_write(struct pci_function *fn, unsigned int bar __maybe_unused,
		      uint64_t offset, const void *data, unsigned int size)
{
	unsigned int part = is_pair(offset, size) ? size / 2 : size;

	for (unsigned int at = 0; at < size; at += part)
		write_page(to_virtio(fn), offset / PAGE_SIZE,
			   offset % PAGE_SIZE + at, (const uint8_t *)data + at,
			   part);
}

/* ---- the window into BAR 0 that lies in configuration space; 4.1.4.9 ---- */

static uint32_t window_get(const struct virtio *v, unsigned int field)
{
	uint32_t value;

	memcpy(&value, &v->pci.config[v->window_cap + field], sizeof(value));
	return value;
}

static void window_put(struct virtio *v, unsigned int field, uint32_t value)
{
	memcpy(&v->pci.config[v->window_cap + field], &value, sizeof(value));
}

/* Does the access touch the window's data, and does that show BAR 0? */
static bool window_is_open(const struct virtio *v, unsigned int cap,
			   unsigned int offset, unsigned int size)
{
	unsigned int data = v->window_cap + CAP_DATA;
	uint32_t at = window_get(v, CAP_OFFSET);
	uint32_t len = window_get(v, CAP_LENGTH);

	return cap == v->window_cap && offset < data + CAP_DATA_SIZE &&
	       data < offset + size &&
	       v->pci.config[v->window_cap + CAP_BAR] == BAR_REGISTERS &&
	       (len == 1 || len == 2 || len == 4) && !(at % len) &&
	       at <= BAR_SIZE - len;
}

static void capability_read(struct pci_function *fn, unsigned int cap,
			    unsigned int offset, unsigned int size)
{
	struct virtio *v = to_virtio(fn);
	uint32_t data = 0;

	if (window_is_open(v, cap, offset, size))
		bar_read(fn, BAR_REGISTERS, window_get(v, CAP_OFFSET), &data,
			 window_get(v, CAP_LENGTH));
	if (cap == v->window_cap)
		window_put(v, CAP_DATA, data);
}

static void capability_written(struct pci_function *fn, unsigned int cap,
			       unsigned int offset, unsigned int size)
{
	struct virtio *v = to_virtio(fn);
	uint32_t data = window_get(v, CAP_DATA);

	if (window_is_open(v, cap, offset, size))
		bar_write(fn, BAR_REGISTERS, window_get(v, CAP_OFFSET), &data,
			  window_get(v, CAP_LENGTH));
}

static const struct pci_function_ops function_ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.bar_moved = bar_moved,
	.capability_read = capability_read,
	.capability_written = capability_written,
};

/* ---- making it ---- */

/* @extra: more bytes behind struct virtio_pci_cap, from @data. */
static unsigned int add_capability(struct virtio *v, uint8_t type,
				   uint32_t page, uint32_t length,
				   unsigned int extra, uint32_t data)
{
	uint8_t bytes[CAP_SIZE + CAP_DATA_SIZE] = { 0 };
	uint32_t offset = page * PAGE_SIZE;

	bytes[2] = (uint8_t)(CAP_SIZE + extra);
	bytes[3] = type;
	bytes[CAP_BAR] = BAR_REGISTERS;
	memcpy(&bytes[CAP_OFFSET], &offset, sizeof(offset));
	memcpy(&bytes[CAP_LENGTH], &length, sizeof(length));
	memcpy(&bytes[CAP_DATA], &data, sizeof(data));
	return pci_add_capability(&v->pci, PCI_CAP_VENDOR, bytes + 2,
				  CAP_SIZE + extra - 2);
}

static void add_window(struct virtio *v)
{
	unsigned int cap = add_capability(v, CAP_PCI, 0, 0, CAP_DATA_SIZE, 0);
	uint8_t *writable = &v->pci.writable[cap];

	writable[CAP_BAR] = 0xff;
	memset(&writable[CAP_OFFSET], 0xff, 4);
	memset(&writable[CAP_LENGTH], 0xff, 4);
	memset(&writable[CAP_DATA], 0xff, CAP_DATA_SIZE);
	v->window_cap = cap;
}

int virtio_pci_init(struct virtio *v, struct pci_bus *bus, struct error *err)
{
	uint16_t id = v->ops->id;
	const struct pci_identity identity = {
		.vendor = PCI_VENDOR_VIRTIO,
		.device = (uint16_t)(PCI_DEVICE_VIRTIO + id),
		.subsystem_vendor = PCI_VENDOR_VIRTIO,
		.subsystem = id,
		.revision = PCI_REVISION_1,
		.class_code = v->ops->class_code,
		.bar_sizes[BAR_REGISTERS] = BAR_SIZE,
		.vectors = v->vectors,
		.msix_bar = BAR_MSIX,
	};
	int code = pci_function_init(&v->pci, bus, &v->dev, &function_ops,
				     &identity, err);

	if (code)
		return code;
	add_capability(v, CAP_COMMON, PAGE_COMMON, COMMON_SIZE, 0, 0);
	add_capability(v, CAP_ISR, PAGE_ISR, 1, 0, 0);
	add_capability(v, CAP_NOTIFY, PAGE_NOTIFY,
		       v->nqueues * NOTIFY_MULTIPLIER, CAP_DATA_SIZE,
		       NOTIFY_MULTIPLIER);
	if (v->ops->config_size)
		add_capability(v, CAP_DEVICE, PAGE_DEVICE, v->ops->config_size,
			       0, 0);
	add_window(v);
	return 0;
}

void virtio_pci_fini(struct virtio *v)
{
	/*
	 * The doorbells go with the VM. Taking one down waits until no vCPU can
	 * be ringing it, which takes milliseconds.
	 */
	pci_function_fini(&v->pci);
}

/* ---- the state ---- */

void virtio_pci_snapshot(struct virtio *v, struct virtio_state *state)
{
	pci_snapshot(&v->pci, &state->pci);
	state->window_bar = v->pci.config[v->window_cap + CAP_BAR];
	state->window_offset = window_get(v, CAP_OFFSET);
	state->window_length = window_get(v, CAP_LENGTH);
}

void virtio_pci_commit(struct virtio *v, const struct virtio_state *state)
{
	pci_commit(&v->pci, &state->pci);
	v->pci.config[v->window_cap + CAP_BAR] = state->window_bar;
	window_put(v, CAP_OFFSET, state->window_offset);
	window_put(v, CAP_LENGTH, state->window_length);
	for (unsigned int i = 0; i < v->nqueues; i++)
		virtio_pci_move_doorbell(v, i);
}
