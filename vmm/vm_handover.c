// SPDX-License-Identifier: MIT
/*
 * A VM's devices and what only one host may have of them: the locks of disks,
 * what lies in a host's caches, and connections. A walk over the devices at the
 * moments of a move that enum device_handover names; what is done then is
 * theirs.
 *
 * On the migration's thread. A device is asked without its lock, for storage
 * may take its time and vCPUs wait for locks; only settle() is quick.
 */
#include "vmm/vm_internal.h"

bool vm_settle(struct vm *vm, uint64_t *ret_ns)
{
	bool settled = true;

	*ret_ns = 0;
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];
		uint64_t ns = 0;

		pthread_mutex_lock(&dev->lock);
		/* Each is asked, so that all flushes are under way at once. */
		settled = dev->ops->settle(dev, &ns) && settled;
		pthread_mutex_unlock(&dev->lock);
		*ret_ns += ns;
	}
	return settled;
}

int vm_handover(struct vm *vm, enum device_handover step,
		const uint8_t *session, struct error *err)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];
		int rc = dev->ops->handover(dev, step, session, err);

		if (!rc || step == DEVICE_RECLAIM || step == DEVICE_OWN ||
		    step == DEVICE_LEAVE)
			continue;
		error_prefix(err, "device %s", dev->id);
		return rc;
	}
	return 0;
}

uint64_t vm_left_behind(struct vm *vm)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];

		pthread_mutex_lock(&dev->lock);
		n += dev->ops->left_behind(dev);
		pthread_mutex_unlock(&dev->lock);
	}
	return n;
}
