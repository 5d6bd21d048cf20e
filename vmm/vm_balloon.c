// SPDX-License-Identifier: MIT
/*
 * A VM's balloon; see vm_balloon.h.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/balloon.h"
#include "vmm/units.h"
#include "vmm/vm_balloon.h"
#include "vmm/vm_internal.h"

static struct device *find(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		if (vm->devices[i]->ops == &balloon_ops)
			return vm->devices[i];
	}
	return NULL;
}

/* What no guest is made with, none can do with. */
static int check_size(const struct vm *vm, uint64_t bytes, struct error *err)
{
	char size[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX], least[UNITS_TEXT_MAX];
	uint64_t all = vm->machine.memory_size;

	if (bytes >= MEMORY_MIN && bytes <= all)
		return 0;
	units_size_text(bytes, size);
	units_size_text(all, most);
	units_size_text(MEMORY_MIN, least);
	if (bytes > all)
		return error_set(err, -EINVAL,
				 "memory %s: the guest was made with %s; give "
				 "%s to %s of it",
				 size, most, least, most);
	return error_set(err, -EINVAL,
			 "memory %s: no guest is made with less than %s, and "
			 "none lives on less; give %s to %s",
			 size, least, least, most);
}

int vm_balloon_set(struct vm *vm, uint64_t bytes, struct error *err)
{
	struct device *dev = find(vm);
	int rc = 0;

	if (!dev)
		return error_set(err, -ENODEV,
				 "No balloon device has been activated: the "
				 "guest was made with --balloon off; run it "
				 "again without that to change what it has");
	rc = check_size(vm, bytes, err);
	if (rc)
		return rc;
	/* What is set in a pause would stay behind. */
	pthread_mutex_lock(&vm->lock);
	if (vm->holds & VM_HOLD_MIGRATION) {
		rc = error_set(err, -EBUSY,
			       "the guest is just being handed over; set it "
			       "where it arrives");
	} else {
		pthread_mutex_lock(&dev->lock);
		balloon_set(dev, bytes);
		pthread_mutex_unlock(&dev->lock);
	}
	pthread_mutex_unlock(&vm->lock);
	return rc;
}

bool vm_balloon_look(struct vm *vm, struct balloon_info *ret)
{
	struct device *dev = find(vm);

	if (!dev)
		return false;
	pthread_mutex_lock(&dev->lock);
	balloon_look(dev, ret);
	pthread_mutex_unlock(&dev->lock);
	return true;
}

bool vm_hints_begin(struct vm *vm)
{
	struct device *dev = find(vm);
	bool asked;

	if (!dev)
		return false;
	hints_open(vm->hints);
	pthread_mutex_lock(&dev->lock);
	asked = balloon_ask_hints(dev);
	pthread_mutex_unlock(&dev->lock);
	if (!asked)
		hints_close(vm->hints);
	return asked;
}

void vm_hints_end(struct vm *vm)
{
	struct device *dev = find(vm);

	if (!dev)
		return;
	pthread_mutex_lock(&dev->lock);
	balloon_end_hints(dev);
	pthread_mutex_unlock(&dev->lock);
	hints_close(vm->hints);
}

struct hints *vm_hints(struct vm *vm)
{
	return vm->hints;
}
