// SPDX-License-Identifier: MIT
/*
 * The PCI host bridge: the guest's ways to the bus. Ports 0xcf8 to 0xcff hold
 * an address that the guest sets and a dword of configuration space there
 * (PCI 3.0, section 3.2.2.3.2), ECAM maps all of it into memory (PCI Express
 * 7.2.2), and the window is where BARs answer.
 *
 * The reset control register, 0xcf9, lies among the ports: byte accesses there
 * are its own, and only aligned dwords reach the address below it.
 *
 * An access goes to the device that answers it, under that device's lock. So
 * the bus takes no lock for these ranges; the bridge takes its own around the
 * address and the reset register, and lets it go before it takes another.
 *
 * There is one bus, 0, and one function in each slot. What isn't there reads as
 * all ones, which is how guests find out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci_internal.h"
#include "vmm/bus.h"

/* The generic PCI Express host bridge that guests know from QEMU. */
#define HOST_VENDOR 0x1b36
#define HOST_DEVICE 0x0008
#define HOST_CLASS  0x060000

/* The address: enable, bus, device, function, dword. */
#define ADDRESS_ENABLE 0x80000000U
#define ADDRESS_KEPT   0x80fffffcU
#define ADDRESS_DWORD  0xfcU

#define ADDRESS_SIZE 4
#define DATA_OFFSET  4 /* of the data, from the address */

/* Reset control: bits 1 (system), 2 (the CPU: a rising edge resets), 3. */
#define RESET_EDGE 0x04
#define RESET_KEPT 0x0e

/* A function's configuration space in ECAM; device and function above it. */
#define ECAM_FUNCTION_SHIFT 12
#define ECAM_FUNCTION_SIZE  (1U << ECAM_FUNCTION_SHIFT)
#define FUNCTIONS	    8 /* a slot could have */

enum pci_host_range {
	RANGE_PORTS,
	RANGE_ECAM,
	RANGE_WINDOW,
	RANGES,
};

struct pci_host {
	struct device dev;
	struct pci_function pci;
	struct pci_bus *bus;
	struct bus *pio;
	struct bus *mmio;
	const struct device_hooks *hooks;
	void *hooks_opaque;
	bool claimed[RANGES];
	uint32_t address;
	uint8_t reset_control;
};

/* ---- configuration space ---- */

/*
 * The function that has the byte at @offset of ECAM, if all of the access is
 * inside of its space; else NULL.
 */
static struct pci_function *host_find(struct pci_host *host, uint64_t offset,
				      unsigned int size)
{
	uint64_t number = offset >> ECAM_FUNCTION_SHIFT;

	if (number / FUNCTIONS >= PCI_SLOTS || number % FUNCTIONS ||
	    offset % ECAM_FUNCTION_SIZE + size > ECAM_FUNCTION_SIZE)
		return NULL;
	return host->bus->slots[number / FUNCTIONS];
}

static void host_config_read(struct pci_host *host, uint64_t offset, void *data,
			     unsigned int size)
{
	struct pci_function *fn = host_find(host, offset, size);

	memset(data, 0xff, size);
	if (!fn)
		return;
	pthread_mutex_lock(&fn->dev->lock);
	pci_config_read(fn, offset % ECAM_FUNCTION_SIZE, data, size);
	pthread_mutex_unlock(&fn->dev->lock);
}

static void host_config_write(struct pci_host *host, uint64_t offset,
			      const void *data, unsigned int size)
{
	struct pci_function *fn = host_find(host, offset, size);

	if (!fn)
		return;
	pthread_mutex_lock(&fn->dev->lock);
	pci_config_write(fn, offset % ECAM_FUNCTION_SIZE, data, size);
	pthread_mutex_unlock(&fn->dev->lock);
}

static void host_ecam_read(void *opaque, uint64_t offset, void *data,
			   unsigned int size)
{
	host_config_read(opaque, offset, data, size);
}

static void host_ecam_write(void *opaque, uint64_t offset, const void *data,
			    unsigned int size)
{
	host_config_write(opaque, offset, data, size);
}

static const struct bus_ops host_ecam_ops = {
	.read = host_ecam_read,
	.write = host_ecam_write,
};

/* ---- ports ---- */

/*
 * Where in ECAM the data port at @offset is now. The address has the same
 * order, with 8 bits for a function's space where ECAM has 12; one that isn't
 * enabled leads past the last slot.
 */
static uint64_t host_selected(struct pci_host *host, uint64_t offset)
{
	uint64_t address;

	pthread_mutex_lock(&host->dev.lock);
	address = host->address ^ ADDRESS_ENABLE;
	pthread_mutex_unlock(&host->dev.lock);
	return address >> 8 << ECAM_FUNCTION_SHIFT | (address & ADDRESS_DWORD) |
	       (offset - DATA_OFFSET);
}

static void host_write_reset(struct pci_host *host, uint8_t value)
{
	uint8_t before = host->reset_control;

	host->reset_control = value & RESET_KEPT;
	if (value & ~before & RESET_EDGE)
		host->hooks->request_reset(host->hooks_opaque);
}

/* The registers at or below 0xcfb: what isn't one of them isn't there. */
static void host_register_read(struct pci_host *host, uint64_t offset,
			       void *data, unsigned int size)
{
	memset(data, 0xff, size);
	pthread_mutex_lock(&host->dev.lock);
	if (!offset && size == ADDRESS_SIZE)
		memcpy(data, &host->address, size);
	else if (offset == PORT_RESET - PORT_PCI && size == 1)
		memcpy(data, &host->reset_control, size);
	pthread_mutex_unlock(&host->dev.lock);
}

static void host_register_write(struct pci_host *host, uint64_t offset,
				const void *data, unsigned int size)
{
	pthread_mutex_lock(&host->dev.lock);
	if (!offset && size == ADDRESS_SIZE) {
		memcpy(&host->address, data, size);
		host->address &= ADDRESS_KEPT;
	} else if (offset == PORT_RESET - PORT_PCI && size == 1) {
		host_write_reset(host, *(const uint8_t *)data);
	}
	pthread_mutex_unlock(&host->dev.lock);
}

static void host_port_read(void *opaque, uint64_t offset, void *data,
			   unsigned int size)
{
	struct pci_host *host = opaque;

	if (offset < DATA_OFFSET)
		host_register_read(host, offset, data, size);
	else
		host_config_read(host, host_selected(host, offset), data, size);
}

static void host_port_write(void *opaque, uint64_t offset, const void *data,
			    unsigned int size)
{
	struct pci_host *host = opaque;

	if (offset < DATA_OFFSET)
		host_register_write(host, offset, data, size);
	else
		host_config_write(host, host_selected(host, offset), data,
				  size);
}

static const struct bus_ops host_port_ops = {
	.read = host_port_read,
	.write = host_port_write,
};

/* ---- the window ---- */

static void host_window_read(void *opaque, uint64_t offset, void *data,
			     unsigned int size)
{
	struct pci_host *host = opaque;

	pci_bar_read(host->bus, LAYOUT_PCI_WINDOW + offset, data, size);
}

static void host_window_write(void *opaque, uint64_t offset, const void *data,
			      unsigned int size)
{
	struct pci_host *host = opaque;

	pci_bar_write(host->bus, LAYOUT_PCI_WINDOW + offset, data, size);
}

static const struct bus_ops host_window_ops = {
	.read = host_window_read,
	.write = host_window_write,
};

/* ---- the bridge as a function: no BARs, no capabilities ---- */

static void host_bar_read(struct pci_function *fn __maybe_unused,
			  unsigned int bar __maybe_unused,
			  uint64_t offset __maybe_unused, void *data,
			  unsigned int size)
{
	memset(data, 0, size);
}

static void host_bar_write(struct pci_function *fn __maybe_unused,
			   unsigned int bar __maybe_unused,
			   uint64_t offset __maybe_unused,
			   const void *data __maybe_unused,
			   unsigned int size __maybe_unused)
{
}

static void host_bar_moved(struct pci_function *fn __maybe_unused,
			   unsigned int bar __maybe_unused,
			   uint64_t gpa __maybe_unused)
{
}

static void host_capability(struct pci_function *fn __maybe_unused,
			    unsigned int cap __maybe_unused,
			    unsigned int offset __maybe_unused,
			    unsigned int size __maybe_unused)
{
}

static const struct pci_function_ops host_function_ops = {
	.bar_read = host_bar_read,
	.bar_write = host_bar_write,
	.bar_moved = host_bar_moved,
	.capability_read = host_capability,
	.capability_written = host_capability,
};

static const struct pci_identity host_identity = {
	.vendor = HOST_VENDOR,
	.device = HOST_DEVICE,
	.class_code = HOST_CLASS,
};

/* ---- the device ---- */

static struct pci_host *to_host(struct device *dev)
{
	return container_of(dev, struct pci_host, dev);
}

static void host_visit(struct codec *c, void *state)
{
	struct pci_host_state *s = state;

	codec_u32(c, "address", &s->address);
	codec_u8(c, "reset_control", &s->reset_control);
	pci_visit(c, &s->pci);
}

static void host_snapshot(struct device *dev, void *state)
{
	struct pci_host *host = to_host(dev);
	struct pci_host_state *s = state;

	pci_snapshot(&host->pci, &s->pci);
	s->address = host->address;
	s->reset_control = host->reset_control;
}

static int host_check(struct device *dev, const void *state, struct error *err)
{
	const struct pci_host_state *s = state;

	if (s->address & ~ADDRESS_KEPT)
		return error_set(err, -EINVAL,
				 "%s: address 0x%08x has bits "
				 "that aren't kept",
				 dev->id, s->address);
	if (s->reset_control & ~RESET_KEPT)
		return error_set(err, -EINVAL,
				 "%s: reset_control 0x%02x has "
				 "bits that aren't kept",
				 dev->id, s->reset_control);
	return pci_check(&to_host(dev)->pci, &s->pci, err);
}

static void host_commit(struct device *dev, const void *state)
{
	struct pci_host *host = to_host(dev);
	const struct pci_host_state *s = state;

	pci_commit(&host->pci, &s->pci);
	host->address = s->address;
	host->reset_control = s->reset_control;
}

static void host_nothing(struct device *dev __maybe_unused)
{
}

static void host_reset(struct device *dev)
{
	struct pci_host *host = to_host(dev);

	pci_function_reset(&host->pci);
	host->address = 0;
	host->reset_control = 0;
}

static const struct {
	uint64_t base;
	uint64_t len;
	const char *name;
	const struct bus_ops *ops;
} host_ranges[RANGES] = {
	[RANGE_PORTS] = { PORT_PCI, PORT_PCI_LEN, "PCI configuration",
			  &host_port_ops },
	[RANGE_ECAM] = { LAYOUT_PCI_ECAM, LAYOUT_PCI_ECAM_SIZE, "PCI ECAM",
			 &host_ecam_ops },
	[RANGE_WINDOW] = { LAYOUT_PCI_WINDOW, LAYOUT_PCI_WINDOW_SIZE,
			   "PCI window", &host_window_ops },
};

static struct bus *host_range_bus(struct pci_host *host,
				  enum pci_host_range range)
{
	return range == RANGE_PORTS ? host->pio : host->mmio;
}

static void host_free(struct device *dev)
{
	struct pci_host *host = to_host(dev);

	for (unsigned int i = 0; i < RANGES; i++) {
		if (host->claimed[i])
			bus_remove(host_range_bus(host, i),
				   host_ranges[i].base);
	}
	pci_function_fini(&host->pci);
	device_fini(dev);
	free(host);
}

const struct device_ops pci_host_ops = {
	.type = "pci",
	.migrates = DEVICE_MIGRATES_STATE,
	.version = 1,
	.state_size = sizeof(struct pci_host_state),
	.visit = host_visit,
	.snapshot = host_snapshot,
	.check = host_check,
	.commit = host_commit,
	.pause = host_nothing,
	.resume = host_nothing,
	.reset = host_reset,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = host_free,
};

static int host_claim(struct pci_host *host, enum pci_host_range range,
		      struct error *err)
{
	int code = bus_add(host_range_bus(host, range),
			   &(struct bus_range){
				   .base = host_ranges[range].base,
				   .len = host_ranges[range].len,
				   .name = host_ranges[range].name,
				   .ops = host_ranges[range].ops,
				   .opaque = host,
			   },
			   err);

	host->claimed[range] = !code;
	return code;
}

int pci_host_create(const struct device_env *env,
		    const struct device_config *config, struct device **ret,
		    struct error *err)
{
	struct pci_host *host;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: the PCI host bridge takes no options, "
				 "got \"%s\"",
				 config->id, config->options);
	host = calloc(1, sizeof(*host));
	if (!host)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	device_init(&host->dev, &pci_host_ops, config->id);
	host->bus = env->pci;
	host->pio = env->pio;
	host->mmio = env->mmio;
	host->hooks = env->hooks;
	host->hooks_opaque = env->hooks_opaque;
	code = pci_function_init(&host->pci, env->pci, &host->dev,
				 &host_function_ops, &host_identity, err);
	for (unsigned int i = 0; !code && i < RANGES; i++)
		code = host_claim(host, i, err);
	if (code)
		goto fail;
	/* It interrupts nobody. */
	host->pci.config[PCI_INTERRUPT_PIN] = 0;
	host->pci.config[PCI_INTERRUPT_LINE] = 0;
	host->pci.writable[PCI_INTERRUPT_LINE] = 0;
	*ret = &host->dev;
	return 0;
fail:
	host_free(&host->dev);
	return code;
}
