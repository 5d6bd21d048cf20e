// SPDX-License-Identifier: MIT
/*
 * The handle of /dev/kvm and the ioctl wrapper; see kvm.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "vmm/kvm.h"

int kvm_ioctl_named(int fd, unsigned long cmd, void *arg, const char *name,
		    struct error *err)
{
	int ret;

	do {
		ret = ioctl(fd, cmd, arg);
	} while (ret < 0 && errno == EINTR);
	if (ret >= 0)
		return ret;
	ret = -errno;
	return error_set(err, ret, "%s: %s", name, strerror(-ret));
}

int kvm_extension(int fd, unsigned int extension)
{
	int value = ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)extension);

	return value < 0 ? 0 : value;
}

/* What godwit can't do without, by name, for the error message. */
static const struct {
	unsigned int extension;
	const char *name;
} required[] = {
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_PIT2, "KVM_CAP_PIT2" },
	{ KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2" },
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
};

static int check_required(const struct kvm *kvm, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(required); i++) {
		if (!kvm_extension(kvm->fd, required[i].extension))
			return error_set(err, -ENOTSUP,
					 "/dev/kvm: this host's KVM lacks %s; "
					 "a newer kernel is needed",
					 required[i].name);
	}
	return 0;
}

static bool has(const struct kvm *kvm, unsigned int extension)
{
	return kvm_extension(kvm->fd, extension) > 0;
}

static void probe(struct kvm *kvm)
{
	int clock = kvm_extension(kvm->fd, KVM_CAP_ADJUST_CLOCK);
	int vcpus = kvm_extension(kvm->fd, KVM_CAP_MAX_VCPUS);
	int slots = kvm_extension(kvm->fd, KVM_CAP_NR_MEMSLOTS);

	kvm->max_vcpus = (unsigned int)(vcpus ? vcpus : 1);
	kvm->max_memslots = (unsigned int)slots;
	kvm->has_xsave2 = has(kvm, KVM_CAP_XSAVE2);
	kvm->has_xcrs = has(kvm, KVM_CAP_XCRS);
	kvm->has_sregs2 = has(kvm, KVM_CAP_SREGS2);
	kvm->has_exception_payload = has(kvm, KVM_CAP_EXCEPTION_PAYLOAD);
	kvm->has_triple_fault_event = has(kvm, KVM_CAP_X86_TRIPLE_FAULT_EVENT);
	kvm->has_smm = has(kvm, KVM_CAP_X86_SMM);
	kvm->has_stats = has(kvm, KVM_CAP_BINARY_STATS_FD);
	kvm->has_adjust_clock_realtime = clock & KVM_CLOCK_REALTIME;
}

static int open_device(struct error *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	const char *remedy = "";

	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		remedy = "; load the kvm module, or enable virtualisation in "
			 "the firmware";
	else if (errno == EACCES)
		remedy = "; add this user to the group that owns it (kvm)";
	return error_set(err, -errno, "/dev/kvm: %s%s", strerror(errno),
			 remedy);
}

int kvm_open(struct kvm *kvm, struct error *err)
{
	int ret;

	*kvm = (struct kvm){ .fd = -1, .pagemap_fd = -1 };
	ret = open_device(err);
	if (ret < 0)
		return ret;
	kvm->fd = ret;
	ret = KVM_IOCTL_NUM(kvm->fd, KVM_GET_API_VERSION, 0, err);
	if (ret >= 0 && ret != KVM_API_VERSION)
		ret = error_set(err, -ENOTSUP,
				"/dev/kvm: API version %d, godwit speaks %d",
				ret, KVM_API_VERSION);
	if (ret < 0)
		goto fail;
	ret = check_required(kvm, err);
	if (ret < 0)
		goto fail;
	ret = KVM_IOCTL_NUM(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0, err);
	if (ret < 0)
		goto fail;
	kvm->run_size = (size_t)ret;
	probe(kvm);
	/* Without it a migration reads memory that was never touched. */
	kvm->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return 0;

fail:
	kvm_close(kvm);
	return ret;
}

void kvm_close(struct kvm *kvm)
{
	close_fd(&kvm->fd);
	close_fd(&kvm->pagemap_fd);
}
