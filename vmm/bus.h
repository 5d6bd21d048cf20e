/* SPDX-License-Identifier: MIT */
/*
 * Port and MMIO dispatch: from an address to the device that answers there.
 *
 * A range belongs to one device; the bus takes that device's lock around each
 * access, so devices need not. A range without a lock belongs to a bridge,
 * which finds out itself whose lock to take. Ranges never overlap. They are
 * added before vCPUs run and removed after they have stopped, so that lookups
 * take no lock.
 *
 * Unclaimed reads give all ones, unclaimed writes are dropped, as on a PC.
 */
#ifndef GODWIT_BUS_H
#define GODWIT_BUS_H

#include <pthread.h>

#include "vmm/error.h"

#define BUS_RANGES_MAX 64

struct bus_ops {
	/*
	 * @offset is from the range's base; @size is 1, 2, 4 or 8; an access
	 * never reaches past the range's end.
	 */
	void (*read)(void *opaque, uint64_t offset, void *data,
		     unsigned int size);
	void (*write)(void *opaque, uint64_t offset, const void *data,
		      unsigned int size);
};

struct bus_range {
	uint64_t base;
	uint64_t len;
	const char *name; /* for errors; a literal */
	const struct bus_ops *ops;
	void *opaque;
	pthread_mutex_t *lock; /* NULL: the ops see to it themselves */
};

struct bus {
	const char *name; /* "port" or "mmio" */
	unsigned int nranges;
	struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by base */
};

void bus_init(struct bus *bus, const char *name);

/**
 * bus_add() - claim a range.
 *
 * Return: 0, -EEXIST when it overlaps another (named in @err), -ENOSPC.
 */
int __must_check bus_add(struct bus *bus, const struct bus_range *range,
			 struct error *err);

/**
 * bus_remove() - give back the range that starts at @base, if there is one.
 */
void bus_remove(struct bus *bus, uint64_t base);

/**
 * bus_read() / bus_write() - one access of @size bytes by a vCPU.
 *
 * Return: true when a device answered.
 */
bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int size);
bool bus_write(struct bus *bus, uint64_t addr, const void *data,
	       unsigned int size);

#endif
