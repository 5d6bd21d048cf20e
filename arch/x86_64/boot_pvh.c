// SPDX-License-Identifier: MIT
/*
 * The PVH start: what an ELF with a PVH note is told. The kernel finds in EBX
 * the address of a structure that leads to its command line, its initrd (the
 * first module), the memory map and the ACPI RSDP.
 *
 * Spec: Xen docs/misc/pvh.pandoc and
 * xen/include/public/arch-x86/hvm/start_info.h, version 1 of the structure.
 */
#include <assert.h>
#include <string.h>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/layout.h"

#define PVH_MAGIC   0x336ec578
#define PVH_VERSION 1

struct pvh_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct pvh_module {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};

struct pvh_memmap_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

static_assert(sizeof(struct pvh_start_info) == 56, "as the ABI has it");
static_assert(sizeof(struct pvh_module) == 32, "as the ABI has it");
static_assert(sizeof(struct pvh_memmap_entry) == 24, "as the ABI has it");

/* All that the start structure leads to, but the command line. */
struct pvh_page {
	struct pvh_start_info info;
	struct pvh_module initrd;
	struct pvh_memmap_entry map[BOOT_RANGES_MAX];
};

static_assert(sizeof(struct pvh_page) <= LAYOUT_PVH_INFO_SIZE,
	      "the page is all there is");

static void pvh_describe(const struct memory *mem,
			 const struct boot_image *image, struct pvh_page *page)
{
	struct boot_range ranges[BOOT_RANGES_MAX];
	unsigned int count = boot_map(mem, ranges);

	*page = (struct pvh_page){
		.info = {
			.magic = PVH_MAGIC,
			.version = PVH_VERSION,
			.cmdline_paddr = LAYOUT_CMDLINE,
			.rsdp_paddr = image->rsdp,
			.memmap_paddr = LAYOUT_PVH_INFO +
					offsetof(struct pvh_page, map),
			.memmap_entries = count,
		},
	};
	if (image->initrd_size) {
		page->info.nr_modules = 1;
		page->info.modlist_paddr =
			LAYOUT_PVH_INFO + offsetof(struct pvh_page, initrd);
		page->initrd.paddr = image->initrd;
		page->initrd.size = image->initrd_size;
	}
	for (unsigned int i = 0; i < count; i++) {
		page->map[i].addr = ranges[i].start;
		page->map[i].size = ranges[i].size;
		page->map[i].type = ranges[i].type;
	}
}

int boot_pvh(const struct boot_file *initrd, struct memory *mem,
	     struct boot_image *image, struct arch_boot_entry *ret_entry,
	     struct error *err)
{
	struct pvh_page page;
	int code;

	code = boot_load_cmdline(mem, image->cmdline, LAYOUT_CMDLINE_SIZE - 1,
				 err);
	if (code)
		return code;
	/* The kernel starts without paging: nothing above 4 GiB is in reach. */
	code = boot_load_initrd(initrd, mem, UINT32_MAX, image, err);
	if (code)
		return code;
	pvh_describe(mem, image, &page);
	code = memory_write(mem, LAYOUT_PVH_INFO, &page, sizeof(page));
	assert(!code); /* memory begins with MEMORY_MIN bytes at 0 */
	*ret_entry = (struct arch_boot_entry){
		.mode = BOOT_MODE_PVH,
		.rip = image->entry,
		.rbx = LAYOUT_PVH_INFO,
	};
	return 0;
}
