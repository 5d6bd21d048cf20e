// SPDX-License-Identifier: MIT
/*
 * The VM's life, from its boot to its end; see vm.h. How it is made and unmade
 * is in vm_create.c.
 *
 * vm->lock serialises everything that changes whether the VM runs: holds,
 * reset, saving and loading. What vCPU threads and devices ask for (reset,
 * power-off, exit) is only noted, in vm->wanted, and the vCPUs are kicked; the
 * loop's thread acts on it. While a migration holds the VM nothing is acted
 * on: the notes are part of the state and travel, so a guest that reboots in
 * the very moment of a move reboots at the target.
 *
 * Lock order: vm->lock, then a device's lock, then vcpu and note locks.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/power.h"
#include "vmm/log.h"
#include "vmm/vm_internal.h"

static void wake_loop(struct vm *vm)
{
	uint64_t one = 1;

	/* An eventfd that is full is an eventfd that wakes. */
	if (write(vm->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("VM wake-up: %s", strerror(errno));
}

/* It is told when the loop is woken next. */
static void note(struct vm *vm, enum vm_event event, uint8_t status,
		 const char *text)
{
	unsigned int room = ARRAY_SIZE(vm->told);

	/* Some may be many; they never crowd out an end. */
	if (event == VM_EVENT_STOP || event == VM_EVENT_RESUME ||
	    event == VM_EVENT_BALLOON)
		room /= 2;
	pthread_mutex_lock(&vm->note_lock);
	if (vm->ntold < room) {
		struct vm_told *told = &vm->told[vm->ntold++];

		told->event = event;
		told->status = status;
		snprintf(told->text, sizeof(told->text), "%.*s",
			 (int)sizeof(told->text) - 1, text);
	}
	pthread_mutex_unlock(&vm->note_lock);
}

static void tell(struct vm *vm, enum vm_event event, uint8_t status,
		 const char *text)
{
	note(vm, event, status, text);
	wake_loop(vm);
}

/*
 * Note what the guest wants and get it out of the guest; any thread. The kick
 * comes first: a kick after the note could park vCPUs that the loop, having
 * acted on the note already, has just let go.
 */
static void want(struct vm *vm, uint32_t wanted, uint8_t status,
		 const char *text)
{
	crew_kick(vm->crew);
	pthread_mutex_lock(&vm->note_lock);
	vm->wanted.what |= wanted;
	if (wanted & VM_WANTS_EXIT)
		vm->wanted.exit_status = status;
	/* What ends the guest is not talked over by what only stops it. */
	if (text[0] &&
	    (wanted != VM_WANTS_STOP ||
	     !(vm->wanted.what & (VM_WANTS_CRASHED | VM_WANTS_FAILED))))
		snprintf(vm->wanted.text, sizeof(vm->wanted.text), "%s", text);
	pthread_mutex_unlock(&vm->note_lock);
	wake_loop(vm);
}

static void hook_poweroff(void *opaque)
{
	want(opaque, VM_WANTS_POWEROFF, 0, "");
}

static void hook_reset(void *opaque)
{
	want(opaque, VM_WANTS_RESET, 0, "");
}

static void hook_exit(void *opaque, uint8_t status)
{
	want(opaque, VM_WANTS_EXIT, status, "");
}

static void hook_crash(void *opaque, const char *text)
{
	want(opaque, VM_WANTS_CRASHED, 0, text);
}

static void hook_stop(void *opaque, const char *text)
{
	want(opaque, VM_WANTS_STOP, 0, text);
}

static void hook_balloon(void *opaque)
{
	tell(opaque, VM_EVENT_BALLOON, 0, "");
}

const struct device_hooks vm_hooks = {
	.request_poweroff = hook_poweroff,
	.request_reset = hook_reset,
	.request_exit = hook_exit,
	.request_crash = hook_crash,
	.request_stop = hook_stop,
	.tell_balloon = hook_balloon,
};

void vm_on_vcpu_exit(void *opaque, uint32_t index, enum vcpu_exit why,
		     const char *text)
{
	static const uint32_t wants[] = {
		[VCPU_EXIT_SHUTDOWN] = VM_WANTS_CRASHED,
		[VCPU_EXIT_RESET] = VM_WANTS_RESET,
		[VCPU_EXIT_ERROR] = VM_WANTS_FAILED,
	};
	char where[160];

	snprintf(where, sizeof(where), "vCPU %u: %s", index, text);
	want(opaque, wants[why], 0, where);
}

/* ---- holds ---- */

/* All signalled first, then waited for once: the stop is one round trip. */
static void stop(struct vm *vm)
{
	crew_kick(vm->crew);
	crew_wait_parked(vm->crew);
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];

		pthread_mutex_lock(&dev->lock);
		dev->ops->pause(dev);
		pthread_mutex_unlock(&dev->lock);
	}
}

static void go(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];

		pthread_mutex_lock(&dev->lock);
		dev->ops->resume(dev);
		pthread_mutex_unlock(&dev->lock);
	}
	crew_unpark(vm->crew);
}

static void hold_locked(struct vm *vm, unsigned int why)
{
	bool ran = !vm->holds;

	vm->holds |= why;
	if (!ran)
		return;
	stop(vm);
	note(vm, VM_EVENT_STOP, 0, "");
}

static void release_locked(struct vm *vm, unsigned int why)
{
	bool held = vm->holds;

	vm->holds &= ~why;
	if (!held || vm->holds)
		return;
	go(vm);
	note(vm, VM_EVENT_RESUME, 0, "");
}

void vm_hold_quietly(struct vm *vm, enum vm_hold why)
{
	pthread_mutex_lock(&vm->lock);
	hold_locked(vm, why);
	pthread_mutex_unlock(&vm->lock);
}

void vm_hold(struct vm *vm, enum vm_hold why)
{
	vm_hold_quietly(vm, why);
	wake_loop(vm);
}

static void note_stopped(struct vm *vm, uint32_t why, const char *text)
{
	pthread_mutex_lock(&vm->note_lock);
	vm->stopped_for = why;
	snprintf(vm->stopped_by, sizeof(vm->stopped_by), "%s", text);
	pthread_mutex_unlock(&vm->note_lock);
}

void vm_release_quietly(struct vm *vm, enum vm_hold why)
{
	pthread_mutex_lock(&vm->lock);
	if (why == VM_HOLD_USER)
		note_stopped(vm, 0, "");
	release_locked(vm, why);
	pthread_mutex_unlock(&vm->lock);
}

void vm_release(struct vm *vm, enum vm_hold why)
{
	vm_release_quietly(vm, why);
	wake_loop(vm);
}

void vm_tell_soon(struct vm *vm)
{
	wake_loop(vm);
}

unsigned int vm_holds(const struct vm *vm)
{
	return vm->holds;
}

void vm_request_reset(struct vm *vm)
{
	want(vm, VM_WANTS_RESET, 0, "");
}

void vm_press_power_button(struct vm *vm)
{
	struct device *dev = vm_device_find(vm, "power0");

	if (!dev)
		return;
	pthread_mutex_lock(&dev->lock);
	power_press_button(dev);
	pthread_mutex_unlock(&dev->lock);
}

/* ---- boot and reset ---- */

static int boot_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	return arch_vcpu_boot(vcpu_fd(vcpu), vcpu_index(vcpu), opaque, err);
}

void vm_lend_vcpus(struct vm *vm, uint32_t max, vcpu_errand_fn *fn,
		   void *opaque)
{
	crew_lend(vm->crew, max, fn, opaque);
}

void vm_return_vcpus(struct vm *vm)
{
	crew_return(vm->crew);
}

int vm_boot(struct vm *vm, struct error *err)
{
	struct arch_boot boot = {
		.kernel_fd = vm->image.kernel_fd,
		.initrd_fd = vm->image.initrd_fd,
		.cmdline = vm->machine.cmdline,
	};
	struct arch_boot_entry *entry = calloc(1, arch_boot_entry_size());
	int rc;

	assert(vm->holds);
	if (!entry)
		return error_set(err, -ENOMEM, "boot: out of memory");
	rc = arch_boot_load(&boot, vm->mem, vm->machine.cpus, entry, err);
	if (!rc)
		rc = crew_errand(vm->crew, boot_errand, entry, err);
	free(entry);
	return rc;
}

static int power_on_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct vm *vm = opaque;
	struct arch_clock_shift shift = { 0 };

	return arch_vcpu_load(vm->host.kvm, vcpu_fd(vcpu),
			      vm_power_on_state(vm, vcpu_index(vcpu)), NULL,
			      &shift, err);
}

/* Back to the state in which the machine was made, then boot again. */
static int reset_locked(struct vm *vm, struct error *err)
{
	int rc;

	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct device *dev = vm->devices[i];

		pthread_mutex_lock(&dev->lock);
		dev->ops->reset(dev);
		pthread_mutex_unlock(&dev->lock);
	}
	memory_zero(vm->mem);
	rc = crew_errand(vm->crew, power_on_errand, vm, err);
	if (!rc)
		rc = arch_vm_load_finish(vm->host.kvm, vm->fd, vm->power_on_vm,
					 err);
	if (!rc)
		rc = vm_boot(vm, err);
	return rc;
}

static void reset(struct vm *vm)
{
	struct error err;

	hold_locked(vm, VM_HOLD_RESET);
	if (reset_locked(vm, &err)) {
		vm->holds |= VM_HOLD_ENDED;
		tell(vm, VM_EVENT_FAILED, 0, err.text);
	} else {
		tell(vm, VM_EVENT_RESET, 0, "");
	}
	release_locked(vm, VM_HOLD_RESET);
}

static void end(struct vm *vm, enum vm_event event, uint8_t status,
		const char *text)
{
	hold_locked(vm, VM_HOLD_ENDED);
	tell(vm, event, status, text);
}

/* As the user's `pause` does, and so that the user's `resume` ends it. */
static void stop_for(struct vm *vm, uint32_t why, const char *text)
{
	note_stopped(vm, why, text);
	tell(vm, why == VM_WANTS_STOP ? VM_EVENT_IO_ERROR : VM_EVENT_PANICKED,
	     0, text);
	hold_locked(vm, VM_HOLD_USER);
}

static void crash(struct vm *vm, const char *text)
{
	if (vm->host.pause_on_crash)
		stop_for(vm, VM_WANTS_PANICKED, text);
	else
		end(vm, VM_EVENT_CRASHED, 0, text);
}

/* Act on what the guest wants, unless a migration has it in its hands. */
static void act(struct vm *vm)
{
	struct vm_wanted wanted;

	pthread_mutex_lock(&vm->lock);
	if (vm->holds & (VM_HOLD_MIGRATION | VM_HOLD_BIRTH | VM_HOLD_ENDED))
		goto out;
	pthread_mutex_lock(&vm->note_lock);
	wanted = vm->wanted;
	vm->wanted = (struct vm_wanted){ 0 };
	pthread_mutex_unlock(&vm->note_lock);
	if (wanted.what & VM_WANTS_EXIT)
		end(vm, VM_EVENT_EXIT, wanted.exit_status, "");
	else if (wanted.what & VM_WANTS_POWEROFF)
		end(vm, VM_EVENT_POWEROFF, 0, "");
	else if (wanted.what & VM_WANTS_FAILED)
		end(vm, VM_EVENT_FAILED, 0, wanted.text);
	else if (wanted.what & VM_WANTS_RESET)
		reset(vm);
	else if (wanted.what & VM_WANTS_CRASHED)
		crash(vm, wanted.text);
	else if (wanted.what & VM_WANTS_PANICKED)
		stop_for(vm, VM_WANTS_PANICKED, wanted.text);
	else if (wanted.what & VM_WANTS_STOP)
		stop_for(vm, VM_WANTS_STOP, wanted.text);
out:
	pthread_mutex_unlock(&vm->lock);
}

void vm_tell_events(struct vm *vm)
{
	struct vm_told told[ARRAY_SIZE(vm->told)];
	unsigned int n;

	pthread_mutex_lock(&vm->note_lock);
	n = vm->ntold;
	memcpy(told, vm->told, n * sizeof(told[0]));
	vm->ntold = 0;
	pthread_mutex_unlock(&vm->note_lock);
	for (unsigned int i = 0; i < n; i++)
		vm->host.on_event(vm->host.opaque, told[i].event,
				  told[i].status, told[i].text);
}

void vm_on_wake(void *opaque, uint32_t events)
{
	struct vm *vm = opaque;
	uint64_t count;

	(void)events;
	if (read(vm->wake_fd, &count, sizeof(count)) < 0)
		return;
	act(vm);
	vm_tell_events(vm);
}

/* ---- looking ---- */

void vm_set_image(struct vm *vm, const struct vm_image *image)
{
	vm->image = *image;
}

const struct vm_image *vm_image(const struct vm *vm)
{
	return &vm->image;
}

const struct machine *vm_machine(const struct vm *vm)
{
	return &vm->machine;
}

struct memory *vm_memory(struct vm *vm)
{
	return vm->mem;
}

int vm_fd(const struct vm *vm)
{
	return vm->fd;
}

const struct vm_host *vm_host(const struct vm *vm)
{
	return &vm->host;
}

uint32_t vm_vcpu_count(const struct vm *vm)
{
	return crew_size(vm->crew);
}

struct vcpu *vm_vcpu(struct vm *vm, uint32_t index)
{
	return crew_vcpu(vm->crew, index);
}

uint32_t vm_device_count(const struct vm *vm)
{
	return vm->ndevices;
}

struct device *vm_device(struct vm *vm, uint32_t index)
{
	return vm->devices[index];
}

struct device *vm_device_find(struct vm *vm, const char *id)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		if (!strcmp(vm->devices[i]->id, id))
			return vm->devices[i];
	}
	return NULL;
}

const char *vm_never_migrates(const struct vm *vm)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		const struct device_ops *ops = vm->devices[i]->ops;

		if (ops->migrates == DEVICE_MIGRATES_NEVER)
			return ops->never_reason;
	}
	return NULL;
}
