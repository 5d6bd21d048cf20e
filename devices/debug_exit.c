// SPDX-License-Identifier: MIT
/*
 * The debug-exit port, so that CI can boot a guest and use its verdict: the
 * low byte of what the guest writes becomes godwit's exit status. It is there
 * only when it was asked for.
 *
 * It remembers nothing, so it has no state to move: the VM acts on the request
 * before anything else can happen to it. Threads: vCPUs, through the bus.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/layout.h"
#include "devices/debug_exit.h"
#include "vmm/bus.h"

struct debug_exit {
	struct device dev;
	struct bus *pio;
	const struct device_hooks *hooks;
	void *hooks_opaque;
	bool claimed; /* the port is on the bus */
};

static void debug_exit_read(void *opaque __maybe_unused,
			    uint64_t offset __maybe_unused, void *data,
			    unsigned int size)
{
	/* Not all ones: that's how a guest sees that the port is absent. */
	memset(data, 0, size);
}

static void debug_exit_write(void *opaque, uint64_t offset, const void *data,
			     unsigned int size __maybe_unused)
{
	struct debug_exit *port = opaque;

	if (!offset)
		port->hooks->request_exit(port->hooks_opaque,
					  *(const uint8_t *)data);
}

static const struct bus_ops debug_exit_bus_ops = {
	.read = debug_exit_read,
	.write = debug_exit_write,
};

static void debug_exit_visit(struct codec *c __maybe_unused,
			     void *state __maybe_unused)
{
}

static void debug_exit_snapshot(struct device *dev __maybe_unused,
				void *state __maybe_unused)
{
}

static int debug_exit_check(struct device *dev __maybe_unused,
			    const void *state __maybe_unused,
			    struct error *err __maybe_unused)
{
	return 0;
}

static void debug_exit_commit(struct device *dev __maybe_unused,
			      const void *state __maybe_unused)
{
}

static void debug_exit_nothing(struct device *dev __maybe_unused)
{
}

static void debug_exit_free(struct device *dev)
{
	struct debug_exit *port = container_of(dev, struct debug_exit, dev);

	if (port->claimed)
		bus_remove(port->pio, PORT_DEBUG_EXIT);
	device_fini(dev);
	free(port);
}

const struct device_ops debug_exit_ops = {
	.type = "debug-exit",
	.migrates = DEVICE_MIGRATES_NONE,
	.visit = debug_exit_visit,
	.snapshot = debug_exit_snapshot,
	.check = debug_exit_check,
	.commit = debug_exit_commit,
	.pause = debug_exit_nothing,
	.resume = debug_exit_nothing,
	.reset = debug_exit_nothing,
	.settle = device_settled,
	.handover = device_no_handover,
	.left_behind = device_leaves_nothing,
	.free = debug_exit_free,
};

int debug_exit_create(const struct device_env *env,
		      const struct device_config *config, struct device **ret,
		      struct error *err)
{
	struct debug_exit *port;
	int code;

	if (config->options[0])
		return error_set(err, -EINVAL,
				 "%s: a debug-exit port takes no options, "
				 "got \"%s\"",
				 config->id, config->options);
	port = calloc(1, sizeof(*port));
	if (!port)
		return error_set(err, -ENOMEM, "%s: %s", config->id,
				 strerror(ENOMEM));
	device_init(&port->dev, &debug_exit_ops, config->id);
	port->pio = env->pio;
	port->hooks = env->hooks;
	port->hooks_opaque = env->hooks_opaque;
	code = bus_add(env->pio,
		       &(struct bus_range){
			       .base = PORT_DEBUG_EXIT,
			       .len = PORT_DEBUG_EXIT_LEN,
			       .name = "debug-exit",
			       .ops = &debug_exit_bus_ops,
			       .opaque = port,
			       .lock = &port->dev.lock,
		       },
		       err);
	if (code)
		goto fail;
	port->claimed = true;
	*ret = &port->dev;
	return 0;
fail:
	debug_exit_free(&port->dev);
	return code;
}
