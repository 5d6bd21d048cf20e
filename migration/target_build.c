// SPDX-License-Identifier: MIT
/*
 * CONFIG at the target: the whole machine is built as the source describes it,
 * or refused with the reason, and its boot image is received, so that the guest
 * can reboot here. Nothing later allocates, opens or can be missing.
 *
 * Runs on the migration thread. Nothing the peer says is trusted: sizes are
 * bounded before anything is made of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "migration/target_internal.h"

#define KERNEL_MAX (1 * GIB)

static int check_layout(const struct wire_config *config,
			const struct memory *mem, struct error *err)
{
	if (config->page_size != GUEST_PAGE_SIZE)
		return error_set(err, -ENOTSUP,
				 "page size %u; this host has "
				 "%llu",
				 config->page_size, GUEST_PAGE_SIZE);
	for (unsigned int i = 0; i < mem->nregions; i++) {
		if (config->nranges == mem->nregions &&
		    config->ranges[i].gpa == mem->regions[i].gpa &&
		    config->ranges[i].size == mem->regions[i].size)
			continue;
		return error_set(err, -ENOTSUP,
				 "memory is laid out in "
				 "another way than this godwit does it; update "
				 "it");
	}
	return 0;
}

static int make_file(const char *name, uint64_t size, int *ret_fd,
		     struct error *err)
{
	*ret_fd = memfd_create(name, MFD_CLOEXEC);
	if (*ret_fd < 0 || ftruncate(*ret_fd, (off_t)size))
		return error_set(err, -errno, "%s of %llu bytes: %s", name,
				 (unsigned long long)size, strerror(errno));
	return 0;
}

static int make_image(struct target *t, const struct wire_config *config,
		      struct error *err)
{
	int rc;

	if (config->kernel_size > KERNEL_MAX ||
	    config->initrd_size > config->machine.memory_size)
		return error_set(err, -E2BIG,
				 "boot image of %llu + %llu "
				 "bytes",
				 (unsigned long long)config->kernel_size,
				 (unsigned long long)config->initrd_size);
	t->image.kernel_size = config->kernel_size;
	t->image.initrd_size = config->initrd_size;
	rc = make_file("kernel", config->kernel_size, &t->image.kernel_fd, err);
	if (!rc && config->initrd_size)
		rc = make_file("initrd", config->initrd_size,
			       &t->image.initrd_fd, err);
	return rc;
}

/*
 * Memory is backed as it is written, so building a machine that this host could
 * never back would succeed, and end in the OOM killer with the guest in it.
 */
static int check_memory(const struct machine *machine, struct error *err)
{
	struct sysinfo info;
	uint64_t total;

	if (sysinfo(&info))
		return error_set(err, -errno, "sysinfo: %s", strerror(errno));
	total = (uint64_t)info.totalram * info.mem_unit;
	if (machine->memory_size <= total)
		return 0;
	return error_set(err, -ENOMEM,
			 "the guest has %llu MiB of memory, this host has %llu",
			 (unsigned long long)(machine->memory_size / MIB),
			 (unsigned long long)(total / MIB));
}

static bool has_device(const struct machine *machine, const char *id)
{
	for (uint32_t i = 0; i < machine->ndevices; i++) {
		if (!strcmp(machine->devices[i].id, id))
			return true;
	}
	return false;
}

static int check_disks(const struct wire_config *config, struct error *err)
{
	for (uint32_t i = 0; i < config->ndisks; i++) {
		const char *id = config->disks[i].id;

		if (!has_device(&config->machine, id))
			return error_set(err, -EINVAL,
					 "disk '%s': no such device", id);
		for (uint32_t k = 0; k < i; k++) {
			if (!strcmp(config->disks[k].id, id))
				return error_set(err, -EINVAL,
						 "disk '%s': described twice",
						 id);
		}
	}
	return 0;
}

/* Build the whole machine, or say what can't be had here. */
static int build(struct target *t, struct wire_config *config,
		 struct error *err)
{
	const struct arch_cpu_model *cpu;
	int rc = machine_check(&config->machine, err);

	if (!rc)
		rc = check_memory(&config->machine, err);
	if (!rc)
		rc = spares_offer(t->env.spares, &cpu, err);
	if (!rc)
		rc = arch_cpu_model_check(t->env.host.kvm, cpu,
					  &config->machine.cpu_model, err);
	if (!rc)
		rc = check_disks(config, err);
	if (!rc)
		rc = t->env.on_config(t->env.opaque, config, t->hello.session,
				      err);
	if (!rc)
		rc = vm_create(&config->machine, &t->env.host, t->env.spares,
			       &t->vm, err);
	if (!rc)
		rc = check_layout(config, vm_memory(t->vm), err);
	if (!rc)
		rc = make_image(t, config, err);
	if (!rc)
		rc = vm_state_create(t->vm, &t->vm_state, err);
	if (!rc)
		rc = populate_create(vm_memory(t->vm), &t->populate, err);
	if (!rc)
		rc = page_receiver_create(vm_memory(t->vm), t->populate,
					  &t->receiver, err);
	if (!rc && t->hello.capabilities & WIRE_CAP_VERIFY)
		rc = verifier_create(t->vm, vm_state_count(t->vm_state),
				     &t->verifier, err);
	return rc;
}

int target_on_config(struct target *t, const struct record *record,
		     struct error *err)
{
	struct wire_config *config = calloc(1, sizeof(*config));
	struct wire_accept accept = { 0 };
	uint64_t start = clock_ns();
	int rc;

	if (!config)
		return error_set(err, -ENOMEM, "CONFIG: out of memory");
	rc = stream_decode(record, wire_config_visit, config, err);
	if (!rc)
		rc = build(t, config, err);
	if (!rc && !config->kernel_size && !config->initrd_size)
		t->stage = STAGE_REHEARSE;
	free(config);
	if (rc)
		return rc;
	if (target_step(t, TARGET_ON_CONFIG) != TARGET_BUILT)
		return error_set(err, STREAM_CANCELLED, "cancelled");
	accept.build_ns = clock_ns() - start;
	return stream_send_struct(t->stream, WIRE_ACCEPT, wire_accept_visit,
				  &accept, clock_ns() + TARGET_REPLY_PATIENCE,
				  err);
}

static int write_piece(int fd, uint64_t at, const uint8_t *data, size_t len,
		       struct error *err)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(err, n ? -errno : -EIO,
					 "boot image: %s", strerror(errno));
		data += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int target_on_image(struct target *t, const struct record *record,
		    struct error *err)
{
	struct wire_image image = { 0 };
	uint64_t kernel = t->image.kernel_size;
	uint64_t total = kernel + t->image.initrd_size;
	const uint8_t *data;
	size_t len;
	size_t head;
	int rc = stream_decode_front(record, wire_image_visit, &image, &data,
				     &len, err);

	if (rc)
		return rc;
	if (image.offset != t->image_got || !len || len > total - t->image_got)
		return error_set(err, -EBADMSG,
				 "boot image: a piece of %zu "
				 "bytes at %llu, %llu of %llu are here",
				 len, (unsigned long long)image.offset,
				 (unsigned long long)t->image_got,
				 (unsigned long long)total);
	head = image.offset < kernel ? MIN(len, kernel - image.offset) : 0;
	rc = write_piece(t->image.kernel_fd, image.offset, data, head, err);
	if (!rc)
		rc = write_piece(t->image.initrd_fd,
				 image.offset + head - kernel, data + head,
				 len - head, err);
	t->image_got += len;
	if (t->image_got == total)
		t->stage = STAGE_REHEARSE;
	return rc;
}
