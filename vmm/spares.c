// SPDX-License-Identifier: MIT
/*
 * Had ready; see spares.h.
 *
 * The lock is held to put something away and to take it, never to make it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "arch/cpu.h"
#include "vmm/log.h"
#include "vmm/spares.h"

/* For the guest, and for the rehearsal. */
#define VMS 2

struct spares {
	const struct kvm *kvm;
	pthread_mutex_t lock;
	bool dropped;		      /* nothing is put away any more */
	struct arch_cpu_model *offer; /* NULL: not known yet; then it stays */
	int vm_fds[VMS];	      /* -1: taken, or never made */
};

int spares_create(const struct kvm *kvm, struct spares **ret, struct error *err)
{
	struct spares *spares = calloc(1, sizeof(*spares));

	if (!spares)
		return error_set(err, -ENOMEM, "spares: out of memory");
	spares->kvm = kvm;
	pthread_mutex_init(&spares->lock, NULL);
	for (int i = 0; i < VMS; i++)
		spares->vm_fds[i] = -1;
	*ret = spares;
	return 0;
}

void spares_free(struct spares *spares)
{
	if (!spares)
		return;
	spares_drop(spares);
	free(spares->offer);
	pthread_mutex_destroy(&spares->lock);
	free(spares);
}

/* ---- what is put away ---- */

/* One of the VMs; -1: there is none. */
static int take_away(struct spares *spares)
{
	int fd = -1;

	pthread_mutex_lock(&spares->lock);
	for (int i = 0; fd < 0 && i < VMS; i++) {
		fd = spares->vm_fds[i];
		spares->vm_fds[i] = -1;
	}
	pthread_mutex_unlock(&spares->lock);
	return fd;
}

/* Others may have made enough meanwhile: then it is one too many. */
static void put_away(struct spares *spares, int fd)
{
	pthread_mutex_lock(&spares->lock);
	for (int i = 0; fd >= 0 && !spares->dropped && i < VMS; i++) {
		if (spares->vm_fds[i] >= 0)
			continue;
		spares->vm_fds[i] = fd;
		fd = -1;
	}
	pthread_mutex_unlock(&spares->lock);
	close_fd(&fd);
}

static bool is_full(struct spares *spares)
{
	bool full = true;

	pthread_mutex_lock(&spares->lock);
	for (int i = 0; !spares->dropped && i < VMS; i++)
		full = full && spares->vm_fds[i] >= 0;
	pthread_mutex_unlock(&spares->lock);
	return full;
}

void spares_drop(struct spares *spares)
{
	int fd;

	pthread_mutex_lock(&spares->lock);
	spares->dropped = true;
	pthread_mutex_unlock(&spares->lock);
	while ((fd = take_away(spares)) >= 0)
		close_fd(&fd);
}

/* ---- VMs ---- */

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

	for (int i = 0; !rc && i < VMS && !is_full(spares); i++) {
		int fd = -1;

		rc = make_vm(spares->kvm, &fd, &err);
		put_away(spares, fd);
	}
	if (rc)
		log_info("nothing made ahead of a move: %s", err.text);
}

int spares_take_vm(struct spares *spares, const struct kvm *kvm, int *ret_fd,
		   struct error *err)
{
	int fd = spares ? take_away(spares) : -1;

	if (fd < 0)
		return make_vm(kvm, ret_fd, err);
	*ret_fd = fd;
	return 0;
}

/* ---- the processor ---- */

int spares_cpu_model(struct spares *spares, const char *name, uint32_t cpus,
		     struct arch_cpu_model *ret, struct error *err)
{
	int fd = -1;
	int rc = spares_take_vm(spares, spares->kvm, &fd, err);

	if (rc)
		return rc;
	rc = arch_cpu_model_named(spares->kvm, fd, name, cpus, ret, err);
	put_away(spares, fd);
	return rc;
}

/* The first to know it says what it is, from then on. */
static const struct arch_cpu_model *settle_offer(struct spares *spares,
						 struct arch_cpu_model *model)
{
	const struct arch_cpu_model *settled;

	pthread_mutex_lock(&spares->lock);
	if (!spares->offer) {
		spares->offer = model;
		model = NULL;
	}
	settled = spares->offer;
	pthread_mutex_unlock(&spares->lock);
	free(model);
	return settled;
}

static const struct arch_cpu_model *known_offer(struct spares *spares)
{
	const struct arch_cpu_model *model;

	pthread_mutex_lock(&spares->lock);
	model = spares->offer;
	pthread_mutex_unlock(&spares->lock);
	return model;
}

int spares_offer(struct spares *spares, const struct arch_cpu_model **ret,
		 struct error *err)
{
	struct arch_cpu_model *model;
	int rc;

	*ret = known_offer(spares);
	if (*ret)
		return 0;
	model = calloc(1, sizeof(*model));
	if (!model)
		return error_set(err, -ENOMEM, "out of memory");
	/* For two vCPUs: with the flags of having several. */
	rc = spares_cpu_model(spares, "host", 2, model, err);
	if (rc)
		free(model);
	else
		*ret = settle_offer(spares, model);
	return rc;
}
