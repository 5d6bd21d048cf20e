// SPDX-License-Identifier: MIT
/*
 * What a listener has ready for a move: it is made once, taken once, and what
 * isn't there is made by who needs it, who is told when that fails.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/spares.h"

static atomic_uint made;  /* VMs */
static atomic_uint asked; /* times, for what the processor can do */
static bool old_kernel;	  /* KVM_GET_TSC_KHZ is no ioctl of a VM */
static int failing;	  /* what making a VM fails with; 0: it doesn't */

/* A thread that KVM makes wait for a VM. */
struct slow {
	sem_t asks;
	sem_t gets;
};

static __thread struct slow *slow; /* NULL: this one needn't wait */

int __real_ioctl(int fd, unsigned long command, ...);
int __wrap_ioctl(int fd, unsigned long command, ...);

int __wrap_ioctl(int fd, unsigned long command, ...)
{
	va_list args;
	void *arg;

	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	asked += command == KVM_GET_SUPPORTED_CPUID;
	if (command == KVM_CREATE_VM) {
		made++;
		if (slow) {
			sem_post(&slow->asks);
			sem_wait(&slow->gets);
		}
		if (failing) {
			errno = failing;
			return -1;
		}
	}
	/* The first to ask is a VM. */
	if (command == KVM_GET_TSC_KHZ && old_kernel) {
		old_kernel = false;
		errno = ENOTTY;
		return -1;
	}
	return __real_ioctl(fd, command, arg);
}

static bool open_kvm(struct kvm *ret, struct spares **ret_spares)
{
	struct error err;

	made = asked = 0;
	failing = 0;
	old_kernel = false;
	if (kvm_open(ret, &err)) {
		fprintf(stderr, "SKIP %s: %s\n", __func__, err.text);
		return false;
	}
	ck_assert(!spares_create(ret, ret_spares, &err));
	return true;
}

static void close_kvm(struct kvm *kvm, struct spares *spares)
{
	spares_free(spares);
	kvm_close(kvm);
}

/* One that is as it should be: it has its interrupt controllers. */
static void take(struct spares *spares, const struct kvm *kvm)
{
	struct error err;
	int fd = -1;

	ck_assert_msg(!spares_take_vm(spares, kvm, &fd, &err), "%s", err.text);
	ck_assert_int_eq(__real_ioctl(fd, KVM_CREATE_IRQCHIP, NULL), -1);
	ck_assert_int_eq(errno, EEXIST);
	close(fd);
}

START_TEST(what_was_made_ahead_is_not_made_again)
{
	const struct arch_cpu_model *model, *again;
	struct spares *spares;
	struct error err;
	struct kvm kvm;

	if (!open_kvm(&kvm, &spares))
		return;
	spares_fill(spares);
	spares_fill(spares);
	made = asked = 0;
	take(spares, &kvm);
	take(spares, &kvm);
	ck_assert(!spares_offer(spares, &model, &err));
	ck_assert(!spares_offer(spares, &again, &err));
	ck_assert_ptr_eq(model, again);
	ck_assert_uint_gt(model->nentries, 0);
	ck_assert_uint_eq(made + asked, 0);
	spares_fill(spares);
	ck_assert_uint_eq(made, 2);
	ck_assert_uint_eq(asked, 0);
	close_kvm(&kvm, spares);
}
END_TEST

START_TEST(what_is_not_there_is_made_when_it_is_needed)
{
	const struct arch_cpu_model *model;
	struct spares *spares;
	struct error err;
	struct kvm kvm;

	if (!open_kvm(&kvm, &spares))
		return;
	take(NULL, &kvm);
	take(spares, &kvm);
	made = 0;
	ck_assert(!spares_offer(spares, &model, &err));
	ck_assert_uint_gt(model->nentries, 0);
	take(spares, &kvm);
	/* The VM that tells of the processor is one of them. */
	ck_assert_uint_eq(made, 1);
	spares_fill(spares);
	for (int i = 0; i < 3; i++)
		take(spares, &kvm);
	close_kvm(&kvm, spares);
}
END_TEST

/* Linux before 5.18: a VM doesn't know the rate of its TSC, a vCPU does. */
START_TEST(an_older_kernel_is_asked_in_another_way)
{
	static struct arch_cpu_model model, older;
	struct spares *spares;
	struct error err;
	struct kvm kvm;

	if (!open_kvm(&kvm, &spares))
		return;
	ck_assert(!spares_cpu_model(spares, "host", 1, &model, &err));
	ck_assert_uint_gt(model.tsc_khz, 0);
	old_kernel = true;
	ck_assert(!spares_cpu_model(spares, "host", 1, &older, &err));
	ck_assert_uint_eq(older.tsc_khz, model.tsc_khz);
	close_kvm(&kvm, spares);
}
END_TEST

START_TEST(who_needs_what_cannot_be_had_is_told)
{
	struct spares *spares;
	struct error err;
	struct kvm kvm;
	int fd = -1;

	if (!open_kvm(&kvm, &spares))
		return;
	failing = EMFILE;
	spares_fill(spares);
	ck_assert_int_eq(spares_take_vm(spares, &kvm, &fd, &err), -EMFILE);
	ck_assert_str_eq(err.text, "KVM_CREATE_VM: Too many open files");
	ck_assert_int_eq(fd, -1);
	failing = 0;
	spares_fill(spares);
	failing = EMFILE;
	take(spares, &kvm);
	take(spares, &kvm);
	close_kvm(&kvm, spares);
}
END_TEST

struct filler {
	struct spares *spares;
	struct slow slow;
	pthread_t thread;
};

static void *fill(void *opaque)
{
	struct filler *filler = opaque;

	slow = &filler->slow;
	spares_fill(filler->spares);
	return NULL;
}

/* Up to where the first VM is asked for. */
static void start_filler(struct filler *filler, struct spares *spares)
{
	filler->spares = spares;
	sem_init(&filler->slow.asks, 0, 0);
	sem_init(&filler->slow.gets, 0, 0);
	ck_assert(!pthread_create(&filler->thread, NULL, fill, filler));
	sem_wait(&filler->slow.asks);
}

static void let_fill(struct filler *filler)
{
	for (int i = 0; i < 8; i++)
		sem_post(&filler->slow.gets);
	pthread_join(filler->thread, NULL);
	sem_destroy(&filler->slow.asks);
	sem_destroy(&filler->slow.gets);
}

START_TEST(who_needs_a_vm_does_not_wait_for_who_makes_one)
{
	const struct arch_cpu_model *model, *again;
	struct filler filler;
	struct spares *spares;
	struct error err;
	struct kvm kvm;

	if (!open_kvm(&kvm, &spares))
		return;
	start_filler(&filler, spares);
	ck_assert(!spares_offer(spares, &model, &err));
	take(spares, &kvm);
	let_fill(&filler);
	/* What one has found is what the other has. */
	ck_assert(!spares_offer(spares, &again, &err));
	ck_assert_ptr_eq(model, again);
	made = 0;
	take(spares, &kvm);
	take(spares, &kvm);
	ck_assert_uint_eq(made, 0);
	take(spares, &kvm);
	ck_assert_uint_eq(made, 1);
	close_kvm(&kvm, spares);
}
END_TEST

START_TEST(what_was_dropped_while_it_was_made_is_not_kept)
{
	struct filler filler;
	struct spares *spares;
	struct kvm kvm;

	if (!open_kvm(&kvm, &spares))
		return;
	spares_fill(spares);
	take(spares, &kvm);
	start_filler(&filler, spares);
	made = 0;
	spares_drop(spares);
	let_fill(&filler);
	take(spares, &kvm);
	ck_assert_uint_eq(made, 1);
	close_kvm(&kvm, spares);
}
END_TEST

UNIT_SUITE("spares", what_was_made_ahead_is_not_made_again,
	   what_is_not_there_is_made_when_it_is_needed,
	   an_older_kernel_is_asked_in_another_way,
	   who_needs_what_cannot_be_had_is_told,
	   who_needs_a_vm_does_not_wait_for_who_makes_one,
	   what_was_dropped_while_it_was_made_is_not_kept)
