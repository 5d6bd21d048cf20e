// SPDX-License-Identifier: MIT
/*
 * No device can starve another: a driver that has the next request ready before
 * the last one is done, without end, keeps neither other queues nor other
 * devices from being served, nor its own from being paused.
 *
 * The flood comes from within: the call that serves a request offers the next
 * one (it is replaced at link time), so a device that goes on as long as there
 * is something to do never ends.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "devices/backend/disk.h"
#include "devices/serial.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/rng.h"
#include "tests/unit/virtio_rig.h"

#define DATA   0x100000ULL
#define HEADER 0x110000ULL /* and so much further for each queue */
#define STATUS 0x120000ULL
#define SIZE   (1 * MIB)

#define LSR_READY 1
/* More than a device serves in its turn. */
#define FLOOD 1000

static struct vring *_Atomic flooded;
static _Atomic unsigned int floods;

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_getrandom(void *buf, size_t len, unsigned int flags);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags);

static void flood(void)
{
	if (!flooded)
		return;
	vring_offer(flooded, 0);
	floods++;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	flood();
	return __real_pwritev(fd, iov, n, offset);
}

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned int flags)
{
	flood();
	return __real_getrandom(buf, len, flags);
}

/* ---- a machine ---- */

/* With preadv, which serves a request before the next one is looked at. */
static int open_disk(void *opaque __maybe_unused, const char *id,
		     const char *name __maybe_unused,
		     uint64_t size __maybe_unused, bool readonly,
		     struct disk **ret, struct error *err)
{
	struct disk_params params = { .id = id,
				      .path = "memory",
				      .readonly = readonly };

	params.fd = memfd_create("disk", MFD_CLOEXEC);
	ck_assert_int_ge(params.fd, 0);
	ck_assert_int_eq(ftruncate(params.fd, SIZE), 0);
	return disk_open(&params, ret, err);
}

static int create_disk(const struct device_env *env,
		       const struct device_config *config, struct device **ret,
		       struct error *err)
{
	static const struct device_backends backends = { .open_disk =
								 open_disk };
	struct device_env with_disk = *env;
	struct device_config with_queues = *config;

	with_disk.backends = &backends;
	snprintf(with_queues.options, sizeof(with_queues.options), "queues=3");
	return blk_create(&with_disk, &with_queues, ret, err);
}

struct machine {
	struct virtio_rig *rig; /* with the one that is flooded */
	struct device *disk;	/* another one, in slot 2 */
	struct device *serial;
	int console[2];
	int keyboard[2];
	struct vring rings[3];
};

static void resume(struct device *dev)
{
	pthread_mutex_lock(&dev->lock);
	dev->ops->resume(dev);
	pthread_mutex_unlock(&dev->lock);
}

static struct machine *machine_new(virtio_rig_create_fn *create)
{
	const struct device_config disk = { .id = "disk1" };
	const struct device_config serial = { .id = "serial0" };
	struct machine *m = calloc(1, sizeof(*m));
	struct device_env *env;
	struct error err;

	ck_assert_ptr_nonnull(m);
	m->rig = virtio_rig_new(create, 0);
	env = &m->rig->base->env;
	ck_assert(!pipe(m->console) && !pipe(m->keyboard));
	rig_give_console(m->rig->base, m->keyboard[0], m->console[1]);
	ck_assert(!create_disk(env, &disk, &m->disk, &err));
	ck_assert(!serial_create(env, &serial, &m->serial, &err));
	resume(m->rig->base->dev);
	resume(m->disk);
	resume(m->serial);
	rig_start_loop(m->rig->base);
	return m;
}

static void machine_free(struct machine *m)
{
	rig_stop_loop(m->rig->base);
	m->serial->ops->free(m->serial);
	m->disk->ops->free(m->disk);
	virtio_rig_free(m->rig);
	for (int i = 0; i < 2; i++) {
		close(m->console[i]);
		close(m->keyboard[i]);
	}
	free(m);
}

/* The device in @slot, with the queues @first to @last. */
static void drive(struct machine *m, unsigned int slot, unsigned int first,
		  unsigned int last)
{
	m->rig->slot = slot;
	negotiate(m->rig, VIRTIO_BIT(VIRTIO_F_VERSION_1));
	for (unsigned int i = first; i <= last; i++)
		set_up_queue(m->rig, i, 16, &m->rings[i]);
	driver_ok(m->rig);
}

static void lay_request(struct machine *m, unsigned int queue, uint32_t type)
{
	uint64_t header = HEADER + queue * 16ULL;
	bool in = type == BLK_T_IN;

	memcpy(memory_hva(m->rig->mem, header, 4), &type, 4);
	vring_desc(&m->rings[queue], 0, header, 16, VRING_NEXT, 1);
	vring_desc(&m->rings[queue], 1, DATA + queue * 512ULL, 512,
		   VRING_NEXT | (in ? VRING_WRITE : 0), 2);
	vring_desc(&m->rings[queue], 2, STATUS + queue, 1, VRING_WRITE, 0);
}

/* A sector is read by way of @queue of the device in @slot. */
static void expect_read(struct machine *m, unsigned int slot,
			unsigned int queue)
{
	uint32_t head, len;

	lay_request(m, queue, BLK_T_IN);
	vring_offer(&m->rings[queue], 0);
	m->rig->slot = slot;
	notify(m->rig, queue);
	while (!vring_take(&m->rings[queue], &head, &len))
		sched_yield();
	ck_assert_uint_eq(len, 513);
}

static void expect_console(struct machine *m)
{
	char byte = 0;

	out8(m->rig->base, PORT_SERIAL, 'o');
	ck_assert_int_eq(read(m->console[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'o');
	ck_assert_int_eq(write(m->keyboard[1], "i", 1), 1);
	while (!(in8(m->rig->base, PORT_SERIAL + 5) & LSR_READY))
		sched_yield();
	ck_assert_int_eq(in8(m->rig->base, PORT_SERIAL), 'i');
}

static void begin_flood(struct machine *m)
{
	floods = 0;
	flooded = &m->rings[0];
	m->rig->slot = 1;
	vring_offer(flooded, 0);
	notify(m->rig, 0);
	while (floods < FLOOD)
		sched_yield();
}

static void end_flood(struct machine *m)
{
	RIG_OP(m->rig->base, pause);
	flooded = NULL;
}

START_TEST(fairness_a_flooded_disk_queue_keeps_nobody_waiting)
{
	struct machine *m = machine_new(create_disk);

	drive(m, 1, 0, 1);
	drive(m, 2, 2, 2);
	lay_request(m, 0, BLK_T_OUT);
	begin_flood(m);
	expect_read(m, 1, 1);
	expect_read(m, 2, 2);
	expect_console(m);
	end_flood(m);
	machine_free(m);
}
END_TEST

START_TEST(fairness_a_flood_for_entropy_keeps_nobody_waiting)
{
	struct machine *m = machine_new(rng_create);

	drive(m, 1, 0, 0);
	drive(m, 2, 2, 2);
	vring_desc(&m->rings[0], 0, DATA, 16, VRING_WRITE, 0);
	begin_flood(m);
	expect_read(m, 2, 2);
	expect_console(m);
	end_flood(m);
	machine_free(m);
}
END_TEST

UNIT_SUITE("fairness", fairness_a_flooded_disk_queue_keeps_nobody_waiting,
	   fairness_a_flood_for_entropy_keeps_nobody_waiting)
