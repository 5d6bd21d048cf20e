// SPDX-License-Identifier: MIT
/*
 * The PCI bus and its functions; see pci.h. The guest's ways in, ports and
 * memory, are pci_host.c.
 *
 * A function's configuration space is kept as the guest reads it, with a mask
 * of the bits that it can write. What a write means is looked at afterwards:
 * BARs move, lines are cut off, MSI-X is enabled or masked. So the bytes are
 * always the truth, and pci_commit() is a write of another kind.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci_internal.h"
#include "vmm/irq.h"

#define COMMAND_WRITABLE \
	(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF)

#define BAR_SIZE_MIN 0x1000
#define PIN_INTA     1

/* Of the MSI-X capability, PCI Express 7.7.2; after id and next pointer. */
#define MSIX_CONTROL 2
#define MSIX_REST    10 /* control, table and pending bits */

/* ---- bytes of configuration space ---- */

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
	return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value);
	put16(at + 2, value >> 16);
}

/* Do @size bytes at @offset touch the @len at @field? */
static bool touches(unsigned int offset, unsigned int size, unsigned int field,
		    unsigned int len)
{
	return offset < field + len && field < offset + size;
}

/* ---- the bus ---- */

int pci_bus_create(struct irq *irq, struct pci_bus **ret, struct error *err)
{
	struct pci_bus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return error_set(err, -ENOMEM, "PCI bus: %s", strerror(ENOMEM));
	bus->irq = irq;
	/* Can't fail with default attributes. */
	pthread_mutex_init(&bus->line_lock, NULL);
	pthread_mutex_init(&bus->map_lock, NULL);
	*ret = bus;
	return 0;
}

void pci_bus_free(struct pci_bus *bus)
{
	if (!bus)
		return;
	pthread_mutex_destroy(&bus->line_lock);
	pthread_mutex_destroy(&bus->map_lock);
	free(bus);
}

/* ---- interrupt lines ---- */

/* Drive the line, which others may share; the lock of lines is held. */
static void pci_settle_line(struct pci_function *fn)
{
	struct pci_bus *bus = fn->bus;
	unsigned int line = fn->slot % GSI_PCI_COUNT;
	uint32_t before = bus->pulled[line];

	bus->pulled[line] &= ~(1U << fn->slot);
	if (fn->line && !fn->line_cut)
		bus->pulled[line] |= 1U << fn->slot;
	if (!before != !bus->pulled[line])
		irq_set_line(bus->irq, GSI_PCI + line, bus->pulled[line]);
}

void pci_set_line(struct pci_function *fn, bool level)
{
	pthread_mutex_lock(&fn->bus->line_lock);
	fn->line = level;
	pci_settle_line(fn);
	pthread_mutex_unlock(&fn->bus->line_lock);
}

static bool pci_line_is_pulled(struct pci_function *fn)
{
	bool line;

	pthread_mutex_lock(&fn->bus->line_lock);
	line = fn->line;
	pthread_mutex_unlock(&fn->bus->line_lock);
	return line;
}

/* Does anything in configuration space cut the line off? */
static void pci_update_line(struct pci_function *fn)
{
	bool cut = get16(&fn->config[PCI_COMMAND]) & PCI_COMMAND_INTX_OFF;

	if (fn->msix_cap)
		cut |= !!(get16(&fn->config[fn->msix_cap + MSIX_CONTROL]) &
			  MSIX_CONTROL_ENABLE);
	pthread_mutex_lock(&fn->bus->line_lock);
	fn->line_cut = cut;
	pci_settle_line(fn);
	pthread_mutex_unlock(&fn->bus->line_lock);
}

/* ---- BARs ---- */

static bool pci_is_msix_bar(const struct pci_function *fn, unsigned int bar)
{
	return fn->identity.vectors && fn->identity.msix_bar == bar;
}

/* Where the guest has put @bar, if it is where BARs can be; else 0. */
static uint64_t pci_bar_gpa(const struct pci_function *fn, unsigned int bar)
{
	uint32_t size = fn->identity.bar_sizes[bar];
	uint32_t gpa = get32(&fn->config[PCI_BAR0 + 4 * bar]);

	if (!size || !(get16(&fn->config[PCI_COMMAND]) & PCI_COMMAND_MEMORY))
		return 0;
	/* What is below the window wraps around to far above it. */
	if (gpa - LAYOUT_PCI_WINDOW > LAYOUT_PCI_WINDOW_SIZE - size)
		return 0;
	return gpa;
}

static void pci_update_bar(struct pci_function *fn, unsigned int bar)
{
	uint64_t gpa = pci_bar_gpa(fn, bar);

	if (gpa == fn->reachable[bar])
		return;
	fn->reachable[bar] = gpa;
	pthread_mutex_lock(&fn->bus->map_lock);
	fn->bus->map[fn->slot][bar] = gpa;
	pthread_mutex_unlock(&fn->bus->map_lock);
	if (!pci_is_msix_bar(fn, bar))
		fn->ops->bar_moved(fn, bar, gpa);
}

static void pci_update_bars(struct pci_function *fn)
{
	for (unsigned int bar = 0; bar < PCI_BARS; bar++)
		pci_update_bar(fn, bar);
}

uint64_t pci_function_bar(const struct pci_function *fn, unsigned int bar)
{
	return fn->reachable[bar];
}

struct pci_hit {
	struct pci_function *fn;
	unsigned int bar;
	uint64_t offset;
};

/* Is all of the access inside this BAR? */
static bool pci_bar_has(const struct pci_bus *bus, unsigned int slot,
			unsigned int bar, uint64_t gpa, unsigned int size)
{
	uint64_t start = bus->map[slot][bar];
	uint64_t len;

	if (!start || gpa < start)
		return false;
	len = bus->slots[slot]->identity.bar_sizes[bar];
	return gpa - start < len && size <= len - (gpa - start);
}

static bool pci_find_bar(struct pci_bus *bus, uint64_t gpa, unsigned int size,
			 struct pci_hit *ret)
{
	bool found = false;

	if (size > 8 || size & (size - 1))
		return false;
	pthread_mutex_lock(&bus->map_lock);
	for (unsigned int i = 0; !found && i < PCI_SLOTS * PCI_BARS; i++) {
		unsigned int slot = i / PCI_BARS, bar = i % PCI_BARS;

		found = pci_bar_has(bus, slot, bar, gpa, size);
		if (found)
			*ret = (struct pci_hit){
				.fn = bus->slots[slot],
				.bar = bar,
				.offset = gpa - bus->map[slot][bar],
			};
	}
	pthread_mutex_unlock(&bus->map_lock);
	return found;
}

void pci_bar_read(struct pci_bus *bus, uint64_t gpa, void *data,
		  unsigned int size)
{
	struct pci_hit hit;

	memset(data, 0xff, size);
	if (!pci_find_bar(bus, gpa, size, &hit))
		return;
	pthread_mutex_lock(&hit.fn->dev->lock);
	if (pci_is_msix_bar(hit.fn, hit.bar))
		msix_read(&hit.fn->msix, hit.offset, data, size);
	else
		hit.fn->ops->bar_read(hit.fn, hit.bar, hit.offset, data, size);
	pthread_mutex_unlock(&hit.fn->dev->lock);
}

void pci_bar_write(struct pci_bus *bus, uint64_t gpa, const void *data,
		   unsigned int size)
{
	struct pci_hit hit;

	if (!pci_find_bar(bus, gpa, size, &hit))
		return;
	pthread_mutex_lock(&hit.fn->dev->lock);
	if (pci_is_msix_bar(hit.fn, hit.bar))
		msix_write(&hit.fn->msix, hit.offset, data, size);
	else
		hit.fn->ops->bar_write(hit.fn, hit.bar, hit.offset, data, size);
	pthread_mutex_unlock(&hit.fn->dev->lock);
}

/* ---- configuration space ---- */

typedef void pci_capability_fn(struct pci_function *fn, unsigned int cap,
			       unsigned int offset, unsigned int size);

/* Call @call for each capability that the access touches. */
static void pci_touch(struct pci_function *fn, unsigned int offset,
		      unsigned int size, pci_capability_fn *call)
{
	unsigned int last = 0;

	for (unsigned int i = offset; i < offset + size; i++) {
		unsigned int cap = i < PCI_CONFIG_SIZE ? fn->added[i] : 0;

		if (cap && cap != last)
			call(fn, cap, offset, size);
		last = cap;
	}
}

void pci_config_read(struct pci_function *fn, unsigned int offset, void *data,
		     unsigned int size)
{
	uint8_t *bytes = data;

	pci_touch(fn, offset, size, fn->ops->capability_read);
	for (unsigned int i = 0; i < size; i++) {
		unsigned int at = offset + i;

		bytes[i] = at < PCI_CONFIG_SIZE ? fn->config[at] : 0;
		/* Any thread may have changed it meanwhile. */
		if (at == PCI_STATUS && pci_line_is_pulled(fn))
			bytes[i] |= PCI_STATUS_INTERRUPT;
	}
}

/* The bytes are another: what does that do? */
static void pci_config_changed(struct pci_function *fn, unsigned int offset,
			       unsigned int size)
{
	unsigned int control = fn->msix_cap + MSIX_CONTROL;

	if (touches(offset, size, PCI_COMMAND, 2) ||
	    touches(offset, size, PCI_BAR0, 4 * PCI_BARS))
		pci_update_bars(fn);
	if (fn->msix_cap && touches(offset, size, control, 2))
		msix_set_control(&fn->msix, get16(&fn->config[control]));
	pci_update_line(fn);
}

void pci_config_write(struct pci_function *fn, unsigned int offset,
		      const void *data, unsigned int size)
{
	const uint8_t *bytes = data;

	for (unsigned int i = 0; i < size; i++) {
		unsigned int at = offset + i;

		if (at >= PCI_CONFIG_SIZE)
			break;
		fn->config[at] &= (uint8_t)~fn->writable[at];
		fn->config[at] |= bytes[i] & fn->writable[at];
	}
	pci_config_changed(fn, offset, size);
	pci_touch(fn, offset, size, fn->ops->capability_written);
}

/* ---- making a function ---- */

/* What the guest can write, as it is at power-on. */
static void pci_power_on(struct pci_function *fn)
{
	uint32_t gpa = LAYOUT_PCI_WINDOW + fn->slot * LAYOUT_PCI_SLOT_SIZE;

	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++)
		fn->config[i] &= (uint8_t)~fn->writable[i];
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		uint32_t size = fn->identity.bar_sizes[bar];

		if (!size)
			continue;
		gpa = (uint32_t)align_up(gpa, size);
		put32(&fn->config[PCI_BAR0 + 4 * bar], gpa);
		gpa += size;
	}
	assert(gpa <=
	       LAYOUT_PCI_WINDOW + (fn->slot + 1) * LAYOUT_PCI_SLOT_SIZE);
	/* As firmware would have left it. */
	if (fn->config[PCI_INTERRUPT_PIN])
		fn->config[PCI_INTERRUPT_LINE] =
			(uint8_t)(GSI_PCI + fn->slot % GSI_PCI_COUNT);
}

static void pci_fill_header(struct pci_function *fn)
{
	const struct pci_identity *identity = &fn->identity;

	put16(&fn->config[PCI_VENDOR_ID], identity->vendor);
	put16(&fn->config[PCI_DEVICE_ID], identity->device);
	fn->config[PCI_REVISION] = identity->revision;
	fn->config[PCI_CLASS] = (uint8_t)identity->class_code;
	put16(&fn->config[PCI_CLASS + 1], identity->class_code >> 8);
	put16(&fn->config[PCI_SUBSYSTEM], identity->subsystem_vendor);
	put16(&fn->config[PCI_SUBSYSTEM + 2], identity->subsystem);
	fn->config[PCI_INTERRUPT_PIN] = PIN_INTA;
	put16(&fn->writable[PCI_COMMAND], COMMAND_WRITABLE);
	fn->writable[PCI_CACHE_LINE] = 0xff;
	fn->writable[PCI_INTERRUPT_LINE] = 0xff;
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		uint32_t size = identity->bar_sizes[bar];

		assert(!size || (size >= BAR_SIZE_MIN && !(size & (size - 1))));
		/* Section 6.2.5.1: the bits that say how large it is are 0. */
		if (size)
			put32(&fn->writable[PCI_BAR0 + 4 * bar], ~(size - 1));
	}
}

static unsigned int pci_append_capability(struct pci_function *fn, uint8_t id,
					  const void *data, unsigned int len)
{
	unsigned int cap = fn->first_free;

	assert(cap + 2 + len <= PCI_CONFIG_SIZE);
	fn->config[cap] = id;
	memcpy(&fn->config[cap + 2], data, len);
	fn->config[fn->last_cap ? fn->last_cap + 1 : PCI_CAPABILITIES] =
		(uint8_t)cap;
	fn->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	fn->last_cap = cap;
	fn->first_free = (unsigned int)align_up(cap + 2 + len, 4);
	return cap;
}

unsigned int pci_add_capability(struct pci_function *fn, uint8_t id,
				const void *data, unsigned int len)
{
	unsigned int cap = pci_append_capability(fn, id, data, len);

	memset(&fn->added[cap], (int)cap, len + 2);
	return cap;
}

static void pci_add_msix(struct pci_function *fn)
{
	struct pci_identity *identity = &fn->identity;
	uint8_t rest[MSIX_REST];

	identity->bar_sizes[identity->msix_bar] = MSIX_BAR_SIZE;
	msix_init(&fn->msix, fn->bus->irq, identity->vectors);
	put16(rest, msix_control(&fn->msix));
	put32(rest + 2, MSIX_TABLE_OFFSET | identity->msix_bar);
	put32(rest + 6, MSIX_PENDING_OFFSET | identity->msix_bar);
	fn->msix_cap =
		pci_append_capability(fn, PCI_CAP_MSIX, rest, sizeof(rest));
	put16(&fn->writable[fn->msix_cap + MSIX_CONTROL],
	      MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK);
}

int pci_function_init(struct pci_function *fn, struct pci_bus *bus,
		      struct device *dev, const struct pci_function_ops *ops,
		      const struct pci_identity *identity, struct error *err)
{
	unsigned int slot = 0;

	*fn = (struct pci_function){ 0 };
	while (slot < PCI_SLOTS && bus->slots[slot])
		slot++;
	if (slot == PCI_SLOTS)
		return error_set(err, -ENOSPC,
				 "%s: all %d slots of the PCI bus are taken",
				 dev->id, PCI_SLOTS);
	fn->ops = ops;
	fn->dev = dev;
	fn->bus = bus;
	fn->slot = slot;
	fn->identity = *identity;
	fn->first_free = PCI_FIRST_FREE;
	if (identity->vectors)
		pci_add_msix(fn);
	pci_fill_header(fn);
	pci_power_on(fn);
	bus->slots[slot] = fn;
	return 0;
}

void pci_function_fini(struct pci_function *fn)
{
	if (!fn->bus)
		return;
	pci_set_line(fn, false);
	pthread_mutex_lock(&fn->bus->map_lock);
	memset(fn->bus->map[fn->slot], 0, sizeof(fn->bus->map[fn->slot]));
	pthread_mutex_unlock(&fn->bus->map_lock);
	fn->bus->slots[fn->slot] = NULL;
	msix_fini(&fn->msix);
	fn->bus = NULL;
}

void pci_function_reset(struct pci_function *fn)
{
	pci_set_line(fn, false);
	pci_power_on(fn);
	if (fn->msix_cap)
		msix_reset(&fn->msix);
	pci_update_bars(fn);
	pci_update_line(fn);
}

/* ---- the state ---- */

void pci_visit(struct codec *c, struct pci_state *state)
{
	codec_enter(c, "pci");
	codec_u16(c, "command", &state->command);
	codec_u8(c, "cache_line", &state->cache_line);
	codec_u8(c, "interrupt_line", &state->interrupt_line);
	for (unsigned int bar = 0; bar < PCI_BARS; bar++)
		codec_u32(c, "bar", &state->bars[bar]);
	msix_visit(c, &state->msix);
	codec_leave(c);
}

void pci_snapshot(struct pci_function *fn, struct pci_state *state)
{
	*state = (struct pci_state){
		.command = get16(&fn->config[PCI_COMMAND]),
		.cache_line = fn->config[PCI_CACHE_LINE],
		.interrupt_line = fn->config[PCI_INTERRUPT_LINE],
	};
	for (unsigned int bar = 0; bar < PCI_BARS; bar++)
		state->bars[bar] = get32(&fn->config[PCI_BAR0 + 4 * bar]);
	if (fn->msix_cap)
		msix_snapshot(&fn->msix, &state->msix);
}

int pci_check(const struct pci_function *fn, const struct pci_state *state,
	      struct error *err)
{
	const char *id = fn->dev->id;
	int code;

	if (state->command & ~COMMAND_WRITABLE)
		return error_set(err, -EINVAL,
				 "%s: pci.command 0x%04x has bits "
				 "that aren't kept",
				 id, state->command);
	if (state->interrupt_line & ~fn->writable[PCI_INTERRUPT_LINE])
		return error_set(err, -EINVAL,
				 "%s: pci.interrupt_line %u, but it has none",
				 id, state->interrupt_line);
	for (unsigned int bar = 0; bar < PCI_BARS; bar++) {
		if (state->bars[bar] &
		    ~get32(&fn->writable[PCI_BAR0 + 4 * bar]))
			return error_set(err, -EINVAL,
					 "%s: pci.bar %u 0x%x isn't aligned to "
					 "its size, which is 0x%x",
					 id, bar, state->bars[bar],
					 fn->identity.bar_sizes[bar]);
	}
	code = msix_check(&fn->msix, &state->msix, err);
	if (code)
		error_prefix(err, "%s: pci", id);
	return code;
}

void pci_commit(struct pci_function *fn, const struct pci_state *state)
{
	uint8_t *control = &fn->config[fn->msix_cap + MSIX_CONTROL];

	pci_set_line(fn, false);
	put16(&fn->config[PCI_COMMAND], state->command);
	fn->config[PCI_CACHE_LINE] = state->cache_line;
	fn->config[PCI_INTERRUPT_LINE] = state->interrupt_line;
	for (unsigned int bar = 0; bar < PCI_BARS; bar++)
		put32(&fn->config[PCI_BAR0 + 4 * bar], state->bars[bar]);
	if (fn->msix_cap) {
		msix_commit(&fn->msix, &state->msix);
		put16(control, msix_control(&fn->msix));
	}
	pci_update_bars(fn);
	pci_update_line(fn);
}
