// SPDX-License-Identifier: MIT
/*
 * Had ready; see spares.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "arch/cpu.h"
#include "vmm/log.h"
#include "vmm/spares.h"

/* For the guest, and for the rehearsal. */
#define VMS 2

struct spares {
	const struct kvm *kvm;
	struct arch_cpu_model *offer; /* NULL: not asked for yet */
	int vm_fds[VMS];	      /* -1: taken, or never made */
};

int spares_create(const struct kvm *kvm, struct spares **ret, struct error *err)
{
	struct spares *spares = calloc(1, sizeof(*spares));

	if (!spares)
		return error_set(err, -ENOMEM, "spares: out of memory");
	spares->kvm = kvm;
	for (int i = 0; i < VMS; i++)
		spares->vm_fds[i] = -1;
	*ret = spares;
	return 0;
}

void spares_free(struct spares *spares)
{
	if (!spares)
		return;
	for (int i = 0; i < VMS; i++)
		close_fd(&spares->vm_fds[i]);
	free(spares->offer);
	free(spares);
}

static int make_vm(const struct kvm *kvm, int *ret_fd, struct error *err)
{
	int fd = KVM_IOCTL_NUM(kvm->fd, KVM_CREATE_VM, 0, err);
	int rc;

	if (fd < 0)
		return fd;
	rc = arch_vm_init(kvm, fd, err);
	if (rc)
		close_fd(&fd);
	*ret_fd = fd;
	return rc;
}

void spares_fill(struct spares *spares)
{
	const struct arch_cpu_model *model;
	struct error err;
	int rc = spares_offer(spares, &model, &err);

	for (int i = 0; !rc && i < VMS; i++) {
		if (spares->vm_fds[i] < 0)
			rc = make_vm(spares->kvm, &spares->vm_fds[i], &err);
	}
	if (rc)
		log_info("nothing made ahead of a move: %s", err.text);
}

int spares_take_vm(struct spares *spares, const struct kvm *kvm, int *ret_fd,
		   struct error *err)
{
	for (int i = 0; spares && i < VMS; i++) {
		if (spares->vm_fds[i] < 0)
			continue;
		*ret_fd = spares->vm_fds[i];
		spares->vm_fds[i] = -1;
		return 0;
	}
	return make_vm(kvm, ret_fd, err);
}

int spares_cpu_model(struct spares *spares, const char *name, uint32_t cpus,
		     struct arch_cpu_model *ret, struct error *err)
{
	int *fd = &spares->vm_fds[0];
	int rc = *fd < 0 ? make_vm(spares->kvm, fd, err) : 0;

	if (rc)
		return rc;
	return arch_cpu_model_named(spares->kvm, *fd, name, cpus, ret, err);
}

int spares_offer(struct spares *spares, const struct arch_cpu_model **ret,
		 struct error *err)
{
	struct arch_cpu_model *model = spares->offer;
	int rc = 0;

	if (!model) {
		model = calloc(1, sizeof(*model));
		if (!model)
			return error_set(err, -ENOMEM, "out of memory");
		/* For two vCPUs: with the flags of having several. */
		rc = spares_cpu_model(spares, "host", 2, model, err);
	}
	if (rc) {
		free(model);
		return rc;
	}
	spares->offer = model;
	*ret = model;
	return 0;
}
