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
 * An input: a byte of FLAG_*, then a series of struct step; see steps.h. The
 * disk fails when told to (functions that are replaced at link time).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "devices/backend/disk.h"
#include "devices/virtio/blk.h"
#include "tests/fuzz/steps.h"
#include "vmm/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLAG_READONLY 1
#define FLAG_STOP     2 /* werror=stop */
#define FLAG_PREADV   4 /* which can be made to fail */
#define FLAG_ABRUPT   8 /* freed as it runs */

#define IMAGE	(128 * KIB)
#define QUEUES	2
#define HEADERS 0x18000
#define STATUS	0x19000
#define TABLES	0x1a000
#define SLOTS	5 /* for requests, of a queue */

#define FEATURES                                                            \
	(VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_RING_RESET) | \
	 VIRTIO_BIT(VIRTIO_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC))

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
	STEP_REQUEST = STEP_OWN,
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

struct bench {
	struct driver d;
	struct device_backends backends;
	struct device_hooks hooks;
	/* Made once, likewise: with io_uring, with preadv. */
	struct disk *disks[2];
	int images[2];

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

/* ---- the images ---- */

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

static void clean_images(struct bench *b)
{
	for (int i = 0; i < 2; i++)
		demand(!ftruncate(b->images[i], 0) &&
			       !ftruncate(b->images[i], IMAGE),
		       "image");
}

static void inspect_image(const struct bench *b)
{
	static uint8_t bytes[IMAGE];
	static const uint8_t zeroes[IMAGE];
	int fd = b->images[!!(b->flags & FLAG_PREADV)];
	struct stat st;

	demand(!fstat(fd, &st) && st.st_size == IMAGE, "the image's size");
	if (!(b->flags & FLAG_READONLY))
		return;
	demand(pread(fd, bytes, IMAGE, 0) == IMAGE &&
		       !memcmp(bytes, zeroes, IMAGE),
	       "a readonly image that was written");
}

/* ---- the disk ---- */

static int open_disk(void *opaque, const char *id, const char *name,
		     uint64_t size, bool readonly, struct disk **ret,
		     struct error *err)
{
	const struct bench *b = opaque;

	return disk_dup(b->disks[!!(b->flags & FLAG_PREADV)], readonly, ret,
			err);
}

static void on_stop(void *opaque, const char *text)
{
	((struct bench *)opaque)->stop_asked = true;
}

static void make_disk(struct bench *b)
{
	struct device_config config = { .id = "disk0", .vectors = QUEUES + 1 };

	snprintf(config.options, sizeof(config.options), "queues=%d%s%s",
		 QUEUES, b->flags & FLAG_READONLY ? ",readonly" : "",
		 b->flags & FLAG_STOP ? ",werror=stop" : "");
	b->hooks.request_stop = on_stop;
	b->backends.opaque = b;
	b->backends.open_disk = open_disk;
	b->d.env.backends = &b->backends;
	b->d.env.hooks = &b->hooks;
	b->d.env.hooks_opaque = b;
	driver_make(&b->d);
	driver_add(&b->d, blk_create, &config);
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

static void hold(struct bench *b, enum step_hold how)
{
	static struct blk_state state;

	step_hold(&b->d, how, &state);
	inspect_paused(&state);
	b->stop_asked = false;
	step_go_on(&b->d);
}

static void settle(struct device *dev)
{
	uint64_t ns;

	pthread_mutex_lock(&dev->lock);
	(void)dev->ops->settle(dev, &ns);
	pthread_mutex_unlock(&dev->lock);
}

/* ---- the guest ---- */

static void lay_out(struct driver *d, const struct step *step, uint64_t head,
		    uint64_t data, uint32_t len)
{
	unsigned int queue = step->where % QUEUES;
	unsigned int slot = step->at[0] % SLOTS;
	unsigned int type = step->value[0] % 14;
	unsigned int layout = step->value[3];
	bool in = type == BLK_T_IN || type == BLK_T_GET_ID;
	uint64_t table = RINGS(queue);
	uint16_t i = (uint16_t)(3 * slot);

	if (layout & LAYOUT_INDIRECT) {
		table = TABLES + (queue * SLOTS + slot) * 64;
		put_desc_at(d, RINGS(queue) + 16 * i, table, 48, DESC_INDIRECT,
			    0);
		i = 0;
	}
	put_desc_at(d, table + 16 * i, head, layout & LAYOUT_ODD ? 17 : 16,
		    DESC_NEXT, (uint16_t)(i + (len ? 1 : 2)));
	put_desc_at(d, table + 16 * (i + 1), data, len,
		    (uint16_t)((layout & LAYOUT_OPEN ? 0 : DESC_NEXT) |
			       (in ? DESC_WRITE : 0)),
		    (uint16_t)(i + 2));
	put_desc_at(d, table + 16 * (i + 2), STATUS + slot, 1, DESC_WRITE, 0);
}

/*
 * A request that looks like one. Of @step: at, the slot and the sector; value,
 * the type, where the data is and how much, how that is laid out (LAYOUT_*), a
 * range's count (two bytes far apart) and flags.
 */
static void request(struct driver *d, const struct step *step)
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
	guest_write(d, head, header, 16);
	guest_write(d, head + 16, &sector, 8);
	guest_write(d, head + 24, range, 8);
	if (type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES) {
		data = head + 16;
		len = sizeof(sector) + sizeof(range);
	}
	lay_out(d, step, head, data, len);
	offer(d, queue, (uint16_t)(3 * slot));
}

static void take(void *opaque, const struct step *step)
{
	struct bench *b = opaque;
	unsigned int what = step->what % STEPS;
	unsigned int queue = step->where % QUEUES;

	switch (what) {
	case STEP_REQUEST:
		request(&b->d, step);
		break;
	case STEP_NOTIFY:
		notify(&b->d, queue);
		break;
	case STEP_WAIT:
		step_wait(&b->d, queue);
		break;
	case STEP_FLIP:
		step_flip(&b->d, step);
		break;
	case STEP_FAIL:
		failing = step->at[0] & 1;
		break;
	case STEP_HOLD:
		hold(b, HOLD_TWICE);
		break;
	case STEP_MOVE:
		hold(b, HOLD_ONCE);
		break;
	case STEP_RESET:
		hold(b, HOLD_RESET);
		break;
	case STEP_SETTLE:
		settle(b->d.dev);
		break;
	case STEP_READY:
		driver_ready(&b->d, FEATURES, QUEUES);
		break;
	default:
		step_touch(&b->d, step, what);
		break;
	}
	if (b->stop_asked)
		hold(b, HOLD_ONCE);
}

static void init(struct bench *b)
{
	driver_init(&b->d, DRIVER_RAM);
	for (int i = 0; i < 2; i++)
		b->images[i] = make_image(&b->disks[i], i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bench bench;
	struct bench *b = &bench;

	log_set_level(LOG_ERROR);
	if (!b->d.mem)
		init(b);
	if (!size)
		return 0;
	driver_clean(&b->d);
	clean_images(b);
	failing = false;
	b->flags = data[0];
	make_disk(b);
	hold(b, HOLD_ONCE);
	steps_walk(data + 1, size - 1, take, b);
	if (!(b->flags & FLAG_ABRUPT))
		hold(b, HOLD_ONCE);
	driver_free(&b->d);
	driver_inspect_memory(&b->d);
	inspect_image(b);
	return 0;
}
