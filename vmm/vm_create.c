// SPDX-License-Identifier: MIT
/*
 * How a VM is made, of what its machine and its host say, and unmade; see vm.h.
 * It is held from birth, so that nothing of it runs before it is whole, and its
 * state of then is kept for resets.
 *
 * vm_free() takes what vm_create() has left half made. All on one thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "devices/pci.h"
#include "vmm/vm_internal.h"

static int create_devices(struct vm *vm, struct error *err)
{
	struct device_env env = {
		.pio = &vm->pio,
		.mmio = &vm->mmio,
		.pci = vm->pci,
		.irq = &vm->irq,
		.doorbell = &vm->doorbell,
		.loop = vm->host.loop,
		.memory = vm->mem,
		.hints = vm->hints,
		.sandbox = vm->host.sandbox,
		.backends = vm->host.backends,
		.taps = vm->host.taps,
		.lines = vm->host.lines,
		.hooks = &vm_hooks,
		.hooks_opaque = vm,
	};

	for (uint32_t i = 0; i < vm->machine.ndevices; i++) {
		const struct device_config *config = &vm->machine.devices[i];
		const struct device_type *type = device_type_find(config->type);
		int rc = type->create(&env, config, &vm->devices[i], err);

		if (rc) {
			error_prefix(err, "device %s", config->id);
			return rc;
		}
		vm->ndevices++;
	}
	return 0;
}

static int create_vcpus(struct vm *vm, struct error *err)
{
	struct vcpu_env env = {
		.kvm = vm->host.kvm,
		.vm_fd = vm->fd,
		.model = &vm->machine.cpu_model,
		.pio = &vm->pio,
		.mmio = &vm->mmio,
		.sandbox = vm->host.sandbox,
		.on_exit = vm_on_vcpu_exit,
		.opaque = vm,
	};

	return crew_create(&env, vm->machine.cpus, &vm->crew, err);
}

void *vm_power_on_state(struct vm *vm, uint32_t vcpu)
{
	return vm->power_on_vcpus + vcpu * arch_vcpu_state_size();
}

static int save_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	struct vm *vm = opaque;

	return arch_vcpu_save(vm->host.kvm, vcpu_fd(vcpu),
			      vm_power_on_state(vm, vcpu_index(vcpu)), err);
}

/* Remember what the machine is like when it is switched on, for resets. */
static int save_power_on(struct vm *vm, struct error *err)
{
	int rc;

	vm->power_on_vcpus = calloc(vm_vcpu_count(vm), arch_vcpu_state_size());
	vm->power_on_vm = calloc(1, arch_vm_state_size());
	if (!vm->power_on_vcpus || !vm->power_on_vm)
		return error_set(err, -ENOMEM, "VM state: out of memory");
	rc = crew_errand_helped(vm->crew, save_errand, vm, err);
	if (!rc)
		rc = arch_vm_save(vm->host.kvm, vm->fd, vm->power_on_vm, err);
	return rc;
}

static int create_kvm_vm(struct vm *vm, struct spares *spares,
			 struct error *err)
{
	const struct kvm *kvm = vm->host.kvm;
	int rc;

	if (vm->machine.cpus > kvm->max_vcpus)
		return error_set(err, -ENOTSUP,
				 "%u vCPUs: this host's KVM allows %u",
				 vm->machine.cpus, kvm->max_vcpus);
	rc = spares_take_vm(spares, kvm, &vm->fd, err);
	if (rc)
		return rc;
	vm->irq.vm_fd = vm->fd;
	vm->doorbell.vm_fd = vm->fd;
	if (vm->host.hugepages)
		rc = memory_create_huge(vm->machine.memory_size,
					vm->host.hugepages, &vm->mem, err);
	else
		rc = memory_create(vm->machine.memory_size, true, &vm->mem,
				   err);
	if (!rc)
		rc = hints_create(vm->mem, &vm->hints, err);
	if (!rc)
		rc = memory_attach(vm->mem, vm->fd, false, err);
	return rc;
}

static int open_wake(struct vm *vm, struct error *err)
{
	int rc;

	vm->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->wake_fd < 0)
		return error_set(err, -errno, "eventfd: %s", strerror(errno));
	rc = loop_fd_add(vm->host.loop, vm->wake_fd, EPOLLIN, vm_on_wake, vm,
			 NULL, &vm->wake, err);
	return rc ? rc : vm_throttle_init(vm, err);
}

int vm_create(const struct machine *machine, const struct vm_host *host,
	      struct spares *spares, struct vm **ret, struct error *err)
{
	struct vm *vm;
	int rc = machine_check(machine, err);

	if (rc)
		return rc;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(err, -ENOMEM, "VM: out of memory");
	vm->machine = *machine;
	vm->host = *host;
	vm->fd = -1;
	vm->wake_fd = -1;
	vm->image = (struct vm_image){ .kernel_fd = -1, .initrd_fd = -1 };
	vm->holds = VM_HOLD_BIRTH;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->note_lock, NULL);
	bus_init(&vm->pio, "port");
	bus_init(&vm->mmio, "mmio");
	rc = open_wake(vm, err);
	if (!rc)
		rc = create_kvm_vm(vm, spares, err);
	if (!rc)
		rc = pci_bus_create(&vm->irq, &vm->pci, err);
	if (!rc)
		rc = create_devices(vm, err);
	if (!rc)
		rc = create_vcpus(vm, err);
	if (!rc)
		rc = save_power_on(vm, err);
	if (rc) {
		vm_free(vm);
		return rc;
	}
	*ret = vm;
	return 0;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	/* Nobody acts on what the guest still asks for. */
	loop_fd_remove(vm->wake);
	loop_timer_remove(vm->throttle_timer);
	/* Ends the threads, so that nobody is in a device any more. */
	crew_free(vm->crew);
	for (uint32_t i = vm->ndevices; i-- > 0;)
		vm->devices[i]->ops->free(vm->devices[i]);
	pci_bus_free(vm->pci);
	close_fd(&vm->wake_fd);
	close_fd(&vm->fd);
	hints_free(vm->hints);
	memory_free(vm->mem);
	close_fd(&vm->image.kernel_fd);
	close_fd(&vm->image.initrd_fd);
	free(vm->power_on_vcpus);
	free(vm->power_on_vm);
	pthread_mutex_destroy(&vm->note_lock);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}
