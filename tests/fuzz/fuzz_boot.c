// SPDX-License-Identifier: MIT
/*
 * Whatever a kernel file may hold: bzImage, ELF, PVH notes, and files that are
 * none of these. A boot image also comes from a peer.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/arch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arch_boot boot = { .initrd_fd = -1, .cmdline = "console=ttyS0" };
	struct arch_boot_entry *entry = calloc(1, arch_boot_entry_size());
	struct memory *mem = NULL;
	struct error err;

	boot.kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	if (entry && boot.kernel_fd >= 0 &&
	    !write_full(boot.kernel_fd, data, size) &&
	    !memory_create(MEMORY_MIN, false, &mem, &err)) {
		/* A kernel of a few kilobytes may still ask for gigabytes. */
		if (size && data[size - 1] & 1)
			boot.initrd_fd = boot.kernel_fd;
		(void)!arch_boot_load(&boot, mem, 2, entry, &err);
	}
	memory_free(mem);
	close_fd(&boot.kernel_fd);
	free(entry);
	return 0;
}
