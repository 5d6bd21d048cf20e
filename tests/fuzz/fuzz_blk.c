// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may do to its disk: a bus with a block device, whose rings,
 * requests and registers come from the input, and which goes on with what was
 * offered on a thread of its own while the guest writes into the same memory.
 *
 * Nothing may crash or hang. The image keeps its size, a readonly one its
 * contents; what the device wrote into memory is marked dirty; when it is
 * paused, every chain that it took was given back or is kept; and each state
 * that is reached is one that check() accepts.
 *
 * An input: a byte of FLAG_*, then a series of struct step. Memory has a hole,
 * and comes to an end. Interrupts and doorbells go nowhere, and the disk fails
 * when told to (functions that are replaced at link time).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/arch.h"
#include "arch/x86_64/layout.h"
#include "devices/backend/disk.h"
#include "devices/virtio/blk.h"
#include "vmm/bus.h"
#include "vmm/doorbell.h"
#include "vmm/irq.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_READONLY 1
#define FLAG_STOP     2 /* werror=stop */
#define FLAG_PREADV   4 /* which can be made to fail */
#define FLAG_ABRUPT   8 /* freed as it runs */

#define RAM	   (ARCH_HOLE_START + 16 * MIB)
#define IMAGE	   (128 * KIB)
#define QUEUES	   2
#define QUEUE_SIZE 16
#define STEPS_MAX  256
#define PATIENCE   100 /* yields */
#define FLIPS	   200

/* What the guest writes, and what is looked at in the end. */
#define WINDOW	    0x10000
#define WINDOW_SIZE 0x10000
#define RINGS(q)    (WINDOW + (q)*0x1000U)
#define AVAIL	    0x400
#define USED	    0x800
#define HEADERS	    0x18000
#define STATUS	    0x19000
#define TABLES	    0x1a000
#define SLOTS	    5 /* for requests, of a queue */

#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define LAYOUT_INDIRECT 1
#define LAYOUT_ODD	2 /* a byte of data with the header */
#define LAYOUT_OPEN	4 /* no status */

static const uint64_t places[] = {
	0x20000,
	HEADERS,
	ARCH_HOLE_START - 512,
	ARCH_HOLE_START,
	ARCH_HOLE_END - 512,
	ARCH_HOLE_END,
	ARCH_HOLE_END + 16 * MIB - 512,
	UINT64_MAX - 511,
};

static const uint32_t lengths[] = {
	0, 1, 511, 512, 1024, 4096, 0x8000, UINT32_MAX,
};

enum {
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_BAR_WRITE,
	STEP_BAR_READ,
	STEP_MEMORY,
	STEP_REQUEST,
	STEP_NOTIFY,
	STEP_WAIT,
	STEP_FLIP,
	STEP_FAIL,
	STEP_HOLD,
	STEP_MOVE,
	STEP_RESET,
	STEP_SETTLE,
	STEP_READY,
	STEPS,
};

struct step {
	uint8_t what;
	uint8_t where; /* queue or BAR */
	uint8_t at[2];
	uint8_t size_shift;
	uint8_t value[8];
};

/* What is made once: it is slow to make. */
struct ground {
	struct memory *mem;
	struct disk *disks[2]; /* io_uring, preadv */
	int images[2];
	uint8_t window[WINDOW_SIZE]; /* as the guest alone wrote it */
};

struct machine {
	struct ground *ground;
	struct memory *mem;
	struct bus pio;
	struct bus mmio;
	struct irq irq;
	struct doorbell doorbell;
	struct pci_bus *pci;
	struct device_hooks hooks;
	struct device_backends backends;
	struct device_env env;
	struct device *host;
	struct device *dev;
	unsigned int flags;
	atomic_bool stop_asked;
};

static atomic_bool failing;

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	if (!failing)
		return __real_pwritev(fd, iov, n, offset);
	errno = ENOSPC;
	return -1;
}

int __wrap_fdatasync(int fd)
{
	if (!failing)
		return __real_fdatasync(fd);
	errno = EIO;
	return -1;
}

void irq_set_line(struct irq *irq, uint32_t gsi, bool level)
{
}

void irq_send_msi(struct irq *irq, uint64_t address, uint32_t data)
{
}

int doorbell_attach(const struct doorbell *doorbell, uint64_t gpa,
		    unsigned int size, int event_fd, struct error *err)
{
	return 0;
}

void doorbell_detach(const struct doorbell *doorbell, uint64_t gpa,
		     unsigned int size, int event_fd)
{
}

static void demand(bool truth, const char *what)
{
	if (truth)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* ---- the ground ---- */

static int make_image(struct disk **ret, bool by_fd)
{
	char path[] = "/dev/shm/godwit-fuzz-XXXXXX";
	struct disk_params params = { .id = "disk0", .path = path, .fd = -1 };
	int fd = mkstemp(path);
	struct error err;

	demand(fd >= 0 && !ftruncate(fd, IMAGE), "image");
	if (by_fd)
		params.fd = dup(fd);
	demand(!disk_open(&params, ret, &err), "disk");
	unlink(path);
	return fd;
}

static struct ground *make_ground(void)
{
	struct ground *ground = calloc(1, sizeof(*ground));
	struct error err;

	demand(ground && !memory_create(RAM, true, &ground->mem, &err),
	       "memory");
	for (unsigned int i = 0; i < ground->mem->nregions; i++)
		madvise(ground->mem->regions[i].hva,
			ground->mem->regions[i].size, MADV_NOHUGEPAGE);
	for (int i = 0; i < 2; i++)
		ground->images[i] = make_image(&ground->disks[i], i);
	return ground;
}

static void clean_ground(struct ground *ground)
{
	struct memory *mem = ground->mem;

	for (unsigned int i = 0; i < mem->nregions; i++)
		demand(!madvise(mem->regions[i].hva, mem->regions[i].size,
				MADV_DONTNEED),
		       "memory");
	memset((void *)mem->dirty, 0, mem->npages / 8);
	memset(ground->window, 0, sizeof(ground->window));
	for (int i = 0; i < 2; i++)
		demand(!ftruncate(ground->images[i], 0) &&
			       !ftruncate(ground->images[i], IMAGE),
		       "image");
}

static bool is_dirty(const struct memory *mem, uint64_t gpa)
{
	uint64_t page = gpa >> GUEST_PAGE_SHIFT;

	return mem->dirty[page / 64] >> (page % 64) & 1;
}

static void inspect_memory(const struct ground *ground)
{
	const uint8_t *ram = memory_hva(ground->mem, WINDOW, WINDOW_SIZE);

	for (uint64_t at = 0; at < WINDOW_SIZE; at += GUEST_PAGE_SIZE)
		demand(is_dirty(ground->mem, WINDOW + at) ||
			       !memcmp(ram + at, ground->window + at,
				       GUEST_PAGE_SIZE),
		       "a page that was written and isn't marked dirty");
}

static void inspect_image(const struct ground *ground, unsigned int flags)
{
	static uint8_t bytes[IMAGE];
	static const uint8_t zeroes[IMAGE];
	int fd = ground->images[!!(flags & FLAG_PREADV)];
	struct stat st;

	demand(!fstat(fd, &st) && st.st_size == IMAGE, "the image's size");
	if (!(flags & FLAG_READONLY))
		return;
	demand(pread(fd, bytes, IMAGE, 0) == IMAGE &&
		       !memcmp(bytes, zeroes, IMAGE),
	       "a readonly image that was written");
}

/* ---- the machine ---- */

static int open_disk(void *opaque, const char *id, const char *name,
		     uint64_t size, bool readonly, struct disk **ret,
		     struct error *err)
{
	const struct machine *m = opaque;

	return disk_dup(m->ground->disks[!!(m->flags & FLAG_PREADV)], readonly,
			ret, err);
}

static void on_stop(void *opaque, const char *text)
{
	((struct machine *)opaque)->stop_asked = true;
}

static void make_machine(struct machine *m)
{
	const struct device_config host = { .id = "pci0" };
	struct device_config config = { .id = "disk0", .vectors = QUEUES + 1 };
	struct error err;

	snprintf(config.options, sizeof(config.options), "queues=%d%s%s",
		 QUEUES, m->flags & FLAG_READONLY ? ",readonly" : "",
		 m->flags & FLAG_STOP ? ",werror=stop" : "");
	bus_init(&m->pio, "port");
	bus_init(&m->mmio, "mmio");
	demand(!pci_bus_create(&m->irq, &m->pci, &err), "bus");
	m->hooks.request_stop = on_stop;
	m->backends.opaque = m;
	m->backends.open_disk = open_disk;
	m->env = (struct device_env){
		.pio = &m->pio,
		.mmio = &m->mmio,
		.pci = m->pci,
		.irq = &m->irq,
		.doorbell = &m->doorbell,
		.memory = m->mem,
		.backends = &m->backends,
		.hooks = &m->hooks,
		.hooks_opaque = m,
	};
	demand(!pci_host_create(&m->env, &host, &m->host, &err), "bridge");
	demand(!blk_create(&m->env, &config, &m->dev, &err), err.text);
}

static void free_machine(struct machine *m)
{
	m->dev->ops->free(m->dev);
	m->host->ops->free(m->host);
	pci_bus_free(m->pci);
}

/* Nothing is in flight: what was taken was given back, or is kept. */
static void inspect_paused(const struct blk_state *s)
{
	uint16_t out[QUEUES];

	if (s->virtio.status & VIRTIO_NEEDS_RESET)
		return;
	for (unsigned int i = 0; i < QUEUES; i++) {
		const struct virtqueue_state *ring = &s->virtio.queues[i].ring;

		out[i] = (uint16_t)(ring->next_avail - ring->next_used);
	}
	for (uint32_t i = 0; i < s->nkept; i++)
		out[s->kept[i].queue]--;
	for (unsigned int i = 0; i < QUEUES; i++)
		demand(!out[i], "a chain that was lost");
}

/* By way of bytes into itself; the lock is held, and it is paused. */
static void move_paused(struct machine *m)
{
	static struct blk_state state;
	const struct device_ops *ops = m->dev->ops;
	struct error err = { "" };
	struct buffer bytes = { 0 };
	struct codec c;

	ops->snapshot(m->dev, &state);
	inspect_paused(&state);
	codec_init_save(&c, &bytes, ops->version);
	ops->visit(&c, &state);
	demand(!codec_finish(&c, &err), "save");
	memset(&state, 0, sizeof(state));
	codec_init_load(&c, bytes.data, bytes.len, ops->version);
	ops->visit(&c, &state);
	demand(!codec_finish(&c, &err), "load");
	demand(!ops->check(m->dev, &state, &err), err.text);
	ops->commit(m->dev, &state);
	buffer_free(&bytes);
}

/* The lock is held over it all, so that a resume may be followed by a pause
 * that the I/O thread sees at the same time. */
static void hold(struct machine *m, unsigned int what)
{
	const struct device_ops *ops = m->dev->ops;

	pthread_mutex_lock(&m->dev->lock);
	ops->pause(m->dev);
	if (what == STEP_RESET)
		ops->reset(m->dev);
	if (what == STEP_HOLD) {
		ops->resume(m->dev);
		ops->pause(m->dev);
	}
	move_paused(m);
	m->stop_asked = false;
	ops->resume(m->dev);
	pthread_mutex_unlock(&m->dev->lock);
}

static void settle(struct machine *m)
{
	uint64_t ns;

	pthread_mutex_lock(&m->dev->lock);
	(void)m->dev->ops->settle(m->dev, &ns);
	pthread_mutex_unlock(&m->dev->lock);
}

/* ---- the guest ---- */

static void guest_write(struct machine *m, uint64_t gpa, const void *value,
			size_t size)
{
	size = MIN(size, WINDOW + WINDOW_SIZE - gpa);
	memcpy(&m->ground->window[gpa - WINDOW], value, size);
	memcpy(memory_hva(m->mem, gpa, size), value, size);
}

static uint64_t config_gpa(unsigned int offset)
{
	return LAYOUT_PCI_ECAM + 0x8000ULL + offset;
}

static uint64_t bar_gpa(struct machine *m, unsigned int bar,
			unsigned int offset)
{
	uint32_t gpa = 0;

	bus_read(&m->mmio, config_gpa(PCI_BAR0 + 4 * (bar % 2)), &gpa, 4);
	return gpa + offset % 0x4000;
}

static void put(struct machine *m, unsigned int offset, uint64_t value,
		unsigned int size)
{
	bus_write(&m->mmio, bar_gpa(m, 0, offset), &value, size);
}

/* What a driver does that works, so that inputs needn't find it out. */
static void ready(struct machine *m)
{
	uint16_t command = PCI_COMMAND_MEMORY;

	bus_write(&m->mmio, config_gpa(PCI_COMMAND), &command, 2);
	put(m, 0x14, 0, 1);
	put(m, 0x08, 1, 4);
	put(m, 0x0c, 0x101, 4);
	put(m, 0x08, 0, 4);
	put(m, 0x0c, 0x30000000, 4);
	put(m, 0x14, VIRTIO_FEATURES_OK, 1);
	for (unsigned int i = 0; i < QUEUES; i++) {
		put(m, 0x16, i, 2);
		put(m, 0x18, QUEUE_SIZE, 2);
		put(m, 0x20, RINGS(i), 8);
		put(m, 0x28, RINGS(i) + AVAIL, 8);
		put(m, 0x30, RINGS(i) + USED, 8);
		put(m, 0x1c, 1, 2);
	}
	put(m, 0x14, VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

static void put_desc(struct machine *m, uint64_t gpa, uint64_t addr,
		     uint32_t len, uint16_t flags, uint16_t next)
{
	guest_write(m, gpa, &addr, 8);
	guest_write(m, gpa + 8, &len, 4);
	guest_write(m, gpa + 12, &flags, 2);
	guest_write(m, gpa + 14, &next, 2);
}

static void offer(struct machine *m, unsigned int queue, uint16_t head)
{
	uint64_t avail = RINGS(queue) + AVAIL;
	uint16_t idx;

	memcpy(&idx, memory_hva(m->mem, avail + 2, 2), 2);
	guest_write(m, avail + 4 + 2 * (idx % QUEUE_SIZE), &head, 2);
	idx++;
	guest_write(m, avail + 2, &idx, 2);
}

static void lay_out(struct machine *m, const struct step *step, uint64_t head,
		    uint64_t data, uint32_t len)
{
	unsigned int queue = step->where % QUEUES;
	unsigned int slot = step->at[0] % SLOTS;
	unsigned int type = step->value[0] % 14;
	unsigned int layout = step->value[3];
	bool in = type == BLK_T_IN || type == BLK_T_GET_ID;
	uint64_t table = RINGS(queue);
	uint16_t d = (uint16_t)(3 * slot);

	if (layout & LAYOUT_INDIRECT) {
		table = TABLES + (queue * SLOTS + slot) * 64;
		put_desc(m, RINGS(queue) + 16 * d, table, 48, DESC_INDIRECT, 0);
		d = 0;
	}
	put_desc(m, table + 16 * d, head, layout & LAYOUT_ODD ? 17 : 16,
		 DESC_NEXT, (uint16_t)(d + (len ? 1 : 2)));
	put_desc(m, table + 16 * (d + 1), data, len,
		 (uint16_t)((layout & LAYOUT_OPEN ? 0 : DESC_NEXT) |
			    (in ? DESC_WRITE : 0)),
		 (uint16_t)(d + 2));
	put_desc(m, table + 16 * (d + 2), STATUS + slot, 1, DESC_WRITE, 0);
}

/*
 * A request that looks like one. Of @step: at, the slot and the sector; value,
 * the type, where the data is and how much, how that is laid out (LAYOUT_*), a
 * range's count (two bytes far apart) and flags.
 */
static void request(struct machine *m, const struct step *step)
{
	unsigned int queue = step->where % QUEUES;
	unsigned int slot = step->at[0] % SLOTS;
	uint8_t type = step->value[0] % 14;
	uint64_t data = places[step->value[1] % ARRAY_SIZE(places)];
	uint32_t len = lengths[step->value[2] % ARRAY_SIZE(lengths)];
	uint64_t head = HEADERS + (queue * SLOTS + slot) * 64;
	uint64_t sector = step->at[1];
	uint32_t range[2] = { step->value[4] | (uint32_t)step->value[5] << 24,
			      step->value[6] };
	uint8_t header[16] = { type };

	memcpy(header + 8, &sector, 8);
	guest_write(m, head, header, 16);
	guest_write(m, head + 16, &sector, 8);
	guest_write(m, head + 24, range, 8);
	if (type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES) {
		data = head + 16;
		len = sizeof(sector) + sizeof(range);
	}
	lay_out(m, step, head, data, len);
	offer(m, queue, (uint16_t)(3 * slot));
}

static uint16_t used_idx(struct machine *m, unsigned int queue)
{
	return *(volatile uint16_t *)memory_hva(m->mem, RINGS(queue) + USED + 2,
						2);
}

/* For something to be given back, perhaps. */
static void wait_awhile(struct machine *m, unsigned int queue)
{
	uint16_t before = used_idx(m, queue);

	for (int i = 0; i < PATIENCE && used_idx(m, queue) == before; i++)
		sched_yield();
}

/* Now this, now that, while the device looks at it. */
static void flip(struct machine *m, uint64_t gpa, const struct step *step)
{
	volatile uint8_t *at = memory_hva(m->mem, gpa, 1);

	for (int i = 0; i < FLIPS; i++)
		*at = step->value[i % 2];
	guest_write(m, gpa, &step->value[1], 1);
}

static void take(struct machine *m, const struct step *step)
{
	unsigned int at = (unsigned int)(step->at[0] | step->at[1] << 8);
	unsigned int size = 1U << step->size_shift % 4;
	unsigned int what = step->what % STEPS;
	uint8_t value[8];

	memcpy(value, step->value, sizeof(value));
	switch (what) {
	case STEP_CONFIG_WRITE:
		bus_write(&m->mmio, config_gpa(at % 0x100), value, size);
		break;
	case STEP_CONFIG_READ:
		bus_read(&m->mmio, config_gpa(at % 0x100), value, size);
		break;
	case STEP_BAR_WRITE:
		bus_write(&m->mmio, bar_gpa(m, step->where, at), value, size);
		break;
	case STEP_BAR_READ:
		bus_read(&m->mmio, bar_gpa(m, step->where, at), value, size);
		break;
	case STEP_MEMORY:
		guest_write(m, WINDOW + at, value, size);
		break;
	case STEP_REQUEST:
		request(m, step);
		break;
	case STEP_NOTIFY:
		put(m, 0x3000 + 4 * (step->where % QUEUES),
		    step->where % QUEUES, 2);
		break;
	case STEP_WAIT:
		wait_awhile(m, step->where % QUEUES);
		break;
	case STEP_FLIP:
		flip(m, WINDOW + at, step);
		break;
	case STEP_FAIL:
		failing = at & 1;
		break;
	case STEP_SETTLE:
		settle(m);
		break;
	case STEP_READY:
		ready(m);
		break;
	default:
		hold(m, what);
		break;
	}
	if (m->stop_asked)
		hold(m, STEP_MOVE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ground *ground;
	struct machine m = { 0 };
	struct step step;

	log_set_level(LOG_ERROR);
	if (!ground)
		ground = make_ground();
	if (!size)
		return 0;
	clean_ground(ground);
	failing = false;
	m.ground = ground;
	m.mem = ground->mem;
	m.flags = *data++;
	size--;
	make_machine(&m);
	hold(&m, STEP_MOVE);
	for (size_t i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		memcpy(&step, data, sizeof(step));
		take(&m, &step);
		data += sizeof(step);
		size -= sizeof(step);
	}
	if (!(m.flags & FLAG_ABRUPT))
		hold(&m, STEP_MOVE);
	free_machine(&m);
	inspect_memory(ground);
	inspect_image(ground, m.flags);
	return 0;
}
