/* SPDX-License-Identifier: MIT */
/*
 * The block device: a disk image as the guest's /dev/vda.
 *
 * Its options, in any order, each at most once:
 *
 *   size=N		bytes, whole sectors; without it what the image has
 *   queues=N		1 to BLK_QUEUES_MAX, default 1
 *   name=TEXT		a hint to who looks for the image, see open_disk()
 *   serial=TEXT	up to BLK_SERIAL_MAX bytes, what VIRTIO_BLK_T_GET_ID
 *says readonly werror=report|stop	what becomes of a write that the host
 *can't do: tell the guest (the default), or keep the request, stop the VM, and
 *try again when it is resumed
 *
 * Requests are served on a thread of the disk's own: vCPUs ring a doorbell and
 * go on, and the event loop has nothing to do with them.
 *
 * Spec: VIRTIO 1.2, section 5.2.
 */
#ifndef GODWIT_DEVICES_VIRTIO_BLK_H
#define GODWIT_DEVICES_VIRTIO_BLK_H

#include "devices/backend/disk.h"
#include "devices/virtio/virtio.h"

#define BLK_QUEUES_MAX 16
#define BLK_QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define BLK_NAME_MAX   128
#define BLK_SERIAL_MAX 20

/* Requests that are under way at a time, of all queues together. */
#define BLK_DEPTH DISK_DEPTH_MAX

/* Section 5.2.3, bit numbers. */
#define BLK_F_SEG_MAX	   2
#define BLK_F_RO	   5
#define BLK_F_BLK_SIZE	   6
#define BLK_F_FLUSH	   9
#define BLK_F_TOPOLOGY	   10
#define BLK_F_MQ	   12
#define BLK_F_DISCARD	   13
#define BLK_F_WRITE_ZEROES 14

/* Section 5.2.6. */
#define BLK_T_IN	   0
#define BLK_T_OUT	   1
#define BLK_T_FLUSH	   4
#define BLK_T_GET_ID	   8
#define BLK_T_DISCARD	   11
#define BLK_T_WRITE_ZEROES 13

#define BLK_S_OK     0
#define BLK_S_IOERR  1
#define BLK_S_UNSUPP 2

/* In the device's configuration: what one request may cover. */
#define BLK_DISCARD_SECTORS_MAX (GIB / DISK_SECTOR)
#define BLK_ZEROES_SECTORS_MAX	(16 * MIB / DISK_SECTOR)
/* A chain less header and status. */
#define BLK_SEG_MAX (VIRTQUEUE_SEGMENTS - 2)

struct blk_options {
	uint64_t size; /* bytes; 0: not given */
	uint32_t queues;
	bool readonly;
	bool stop_on_error;
	char name[BLK_NAME_MAX + 1];
	char serial[BLK_SERIAL_MAX + 1];
};

/* A request that the host could not do: a chain that was not given back. */
struct blk_kept {
	uint16_t queue;
	uint16_t head;
};

struct blk_state {
	struct virtio_state virtio;
	uint32_t nkept;
	struct blk_kept kept[BLK_DEPTH]; /* in the order of failing */
};

extern const struct device_ops blk_ops;

/**
 * blk_options_parse() - from the text of a device_config.
 *
 * Return: 0, or -EINVAL with @err naming option and value.
 */
int __must_check blk_options_parse(const char *text, struct blk_options *ret,
				   struct error *err);

/**
 * blk_create() - with the disk that env->backends has for it.
 */
int __must_check blk_create(const struct device_env *env,
			    const struct device_config *config,
			    struct device **ret, struct error *err);

#endif
