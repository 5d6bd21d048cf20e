// SPDX-License-Identifier: MIT
/*
 * Address dispatch by binary search over sorted ranges; see bus.h.
 */
#include <errno.h>
#include <string.h>

#include "vmm/bus.h"

void bus_init(struct bus *bus, const char *name)
{
	*bus = (struct bus){ .name = name };
}

/* The first range that ends after @addr, or nranges. */
static unsigned int search(const struct bus *bus, uint64_t addr)
{
	unsigned int low = 0;
	unsigned int high = bus->nranges;

	while (low < high) {
		unsigned int mid = (low + high) / 2;
		const struct bus_range *range = &bus->ranges[mid];

		if (addr - range->base < range->len || addr < range->base)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

int bus_add(struct bus *bus, const struct bus_range *range, struct error *err)
{
	unsigned int at = search(bus, range->base);

	if (at < bus->nranges &&
	    bus->ranges[at].base < range->base + range->len)
		return error_set(err, -EEXIST,
				 "%s range 0x%llx+0x%llx of %s overlaps %s",
				 bus->name, (unsigned long long)range->base,
				 (unsigned long long)range->len, range->name,
				 bus->ranges[at].name);
	if (bus->nranges == BUS_RANGES_MAX)
		return error_set(err, -ENOSPC, "no room for %s range of %s",
				 bus->name, range->name);
	memmove(&bus->ranges[at + 1], &bus->ranges[at],
		(bus->nranges - at) * sizeof(bus->ranges[0]));
	bus->ranges[at] = *range;
	bus->nranges++;
	return 0;
}

void bus_remove(struct bus *bus, uint64_t base)
{
	unsigned int at = search(bus, base);

	if (at == bus->nranges || bus->ranges[at].base != base)
		return;
	bus->nranges--;
	memmove(&bus->ranges[at], &bus->ranges[at + 1],
		(bus->nranges - at) * sizeof(bus->ranges[0]));
}

/* The range that holds all of [addr, addr + size), or NULL. */
static const struct bus_range *lookup(const struct bus *bus, uint64_t addr,
				      unsigned int size)
{
	unsigned int at = search(bus, addr);
	const struct bus_range *range = &bus->ranges[at];

	if (at == bus->nranges || addr < range->base ||
	    range->len - (addr - range->base) < size)
		return NULL;
	return range;
}

static void lock(const struct bus_range *range)
{
	if (range->lock)
		pthread_mutex_lock(range->lock);
}

static void unlock(const struct bus_range *range)
{
	if (range->lock)
		pthread_mutex_unlock(range->lock);
}

bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int size)
{
	const struct bus_range *range = lookup(bus, addr, size);

	memset(data, 0xff, size);
	if (!range)
		return false;
	lock(range);
	range->ops->read(range->opaque, addr - range->base, data, size);
	unlock(range);
	return true;
}

bool bus_write(struct bus *bus, uint64_t addr, const void *data,
	       unsigned int size)
{
	const struct bus_range *range = lookup(bus, addr, size);

	if (!range)
		return false;
	lock(range);
	range->ops->write(range->opaque, addr - range->base, data, size);
	unlock(range);
	return true;
}
