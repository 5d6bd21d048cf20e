// SPDX-License-Identifier: MIT
/*
 * The 64-bit Linux boot protocol: bzImage and vmlinux start in long mode with
 * RSI at struct boot_params, which says where the command line, the initrd,
 * the memory map and the ACPI RSDP are.
 *
 * A bzImage goes where it prefers to be, or lower when it can be moved and
 * there isn't enough RAM. It must bring the 64-bit entry (protocol 2.12).
 *
 * Spec: Linux Documentation/arch/x86/boot.rst and zero-page.rst.
 */
#include <asm/bootparam.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/layout.h"

#define SECTOR		 512
#define SETUP_HEADER	 0x1f1 /* where the header begins in the file */
#define SETUP_JUMP	 0x200 /* EB, and how far the header reaches */
#define BOOT_FLAG	 0xaa55
#define HEADER_MAGIC	 0x53726448 /* "HdrS" */
#define PROTOCOL_MIN	 0x020c	    /* 2.12: xloadflags */
#define PROTOCOL_SPOKEN	 0x020f
#define LOADER_UNDEFINED 0xff
#define ENTRY_64	 0x200 /* from the start of the 64-bit kernel */
#define ALIGNMENT_MAX	 (1 * GIB)
#define VMLINUX_CMDLINE	 2047 /* COMMAND_LINE_SIZE of x86, less the NUL */

static_assert(sizeof(struct boot_params) == GUEST_PAGE_SIZE,
	      "the zero page is a page");
static_assert(BOOT_RANGES_MAX <= E820_MAX_ENTRIES_ZEROPAGE,
	      "the map fits the zero page");

static int linux_refuse(struct error *err, const char *field, uint64_t value,
			const char *want)
{
	return error_set(err, -ENOEXEC, "kernel (bzImage): %s is 0x%llx, %s",
			 field, (unsigned long long)value, want);
}

static uint32_t head_u32(const uint8_t *head, size_t offset)
{
	uint32_t value;

	memcpy(&value, head + offset, sizeof(value));
	return value;
}

bool boot_is_bzimage(const uint8_t *head)
{
	return head_u32(head, SETUP_HEADER + offsetof(struct setup_header,
						      header)) == HEADER_MAGIC;
}

/*
 * Take the header out of the file's first KiB: as much of it as the file says
 * it has, the rest stays zero.
 */
static int linux_read_header(const struct boot_file *kernel,
			     struct setup_header *ret, struct error *err)
{
	const size_t need = offsetof(struct setup_header, handover_offset);
	uint8_t head[1024];
	size_t len;
	int code;

	code = boot_read(kernel, 0, head, sizeof(head), "setup header", err);
	if (code)
		return code;
	len = SETUP_JUMP + 2 + (size_t)head[SETUP_JUMP + 1] - SETUP_HEADER;
	if (len < need)
		return linux_refuse(err, "the setup header's length", len,
				    "too short for protocol 2.12");
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, head + SETUP_HEADER, MIN(len, sizeof(*ret)));
	return 0;
}

static int linux_check_header(const struct setup_header *h, struct error *err)
{
	if (h->boot_flag != BOOT_FLAG)
		return linux_refuse(err, "boot_flag", h->boot_flag,
				    "not 0xaa55");
	if (h->version < PROTOCOL_MIN)
		return linux_refuse(err, "the boot protocol's version",
				    h->version,
				    "older than 2.12 (0x20c), the first that "
				    "tells of a 64-bit entry");
	if (!(h->loadflags & LOADED_HIGH))
		return linux_refuse(err, "loadflags", h->loadflags,
				    "a zImage's, not a bzImage's");
	if (!(h->xloadflags & XLF_KERNEL_64))
		return linux_refuse(err, "xloadflags", h->xloadflags,
				    "without the 64-bit entry; a 64-bit kernel "
				    "is needed");
	if (!h->kernel_alignment || h->kernel_alignment > ALIGNMENT_MAX ||
	    h->kernel_alignment & (h->kernel_alignment - 1))
		return linux_refuse(err, "kernel_alignment",
				    h->kernel_alignment,
				    "not a power of two up to 1 GiB");
	if (!h->cmdline_size)
		return linux_refuse(err, "cmdline_size", h->cmdline_size,
				    "so no command line is taken");
	return 0;
}

/*
 * The protected-mode part begins after the boot sector and setup_sects more.
 */
static int linux_find_payload(const struct boot_file *kernel,
			      const struct setup_header *h,
			      uint64_t *ret_offset, uint64_t *ret_size,
			      struct error *err)
{
	/* 0 stands for 4, from the days of floppies. */
	uint64_t sectors = h->setup_sects ? h->setup_sects : 4;
	uint64_t offset = (sectors + 1) * SECTOR;

	if (offset >= kernel->size)
		return linux_refuse(err, "setup_sects", h->setup_sects,
				    "and nothing follows them; is the file "
				    "truncated?");
	*ret_offset = offset;
	*ret_size = kernel->size - offset;
	if (h->syssize * 16ULL > align_up(*ret_size, 16))
		return linux_refuse(err, "syssize", h->syssize,
				    "in 16-byte units more than the file has; "
				    "is it truncated?");
	if (*ret_size <= ENTRY_64)
		return linux_refuse(err, "the 64-bit entry's offset", ENTRY_64,
				    "past the end of the file");
	return 0;
}

static int linux_place(const struct setup_header *h, uint64_t size,
		       const struct memory *mem, struct boot_image *image,
		       struct error *err)
{
	uint64_t need = MAX(h->init_size, size);
	uint64_t ram = boot_low_ram_end(mem);
	uint64_t at = h->pref_address;
	bool fits = at >= LAYOUT_HIGH_RAM && at < ram && need <= ram - at;

	if (!fits && h->relocatable_kernel) {
		at = align_up(LAYOUT_HIGH_RAM, h->kernel_alignment);
		fits = at < ram && need <= ram - at;
	}
	if (!fits)
		return error_set(err, -ENOMEM,
				 "kernel (bzImage): pref_address 0x%llx with "
				 "init_size 0x%llx lies outside of the RAM "
				 "that is free for it, 0x%llx to 0x%llx; give "
				 "more with --memory",
				 (unsigned long long)h->pref_address,
				 (unsigned long long)need, LAYOUT_HIGH_RAM,
				 (unsigned long long)ram);
	image->start = at;
	image->end = at + need;
	return 0;
}

/* What is the loader's to fill, for whatever kind of Linux. */
static void linux_write_params(struct memory *mem,
			       const struct boot_image *image,
			       const struct setup_header *header)
{
	struct boot_params params = { .acpi_rsdp_addr = image->rsdp };
	struct boot_range ranges[BOOT_RANGES_MAX];
	unsigned int count = boot_map(mem, ranges);
	int code;

	params.hdr = *header;
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	params.hdr.ramdisk_image = (uint32_t)image->initrd;
	params.hdr.ramdisk_size = (uint32_t)image->initrd_size;
	/* Pointers that only a loader may set. */
	params.hdr.setup_data = 0;
	for (unsigned int i = 0; i < count; i++)
		params.e820_table[i] = (struct boot_e820_entry){
			.addr = ranges[i].start,
			.size = ranges[i].size,
			.type = ranges[i].type,
		};
	params.e820_entries = (uint8_t)count;
	code = memory_write(mem, LAYOUT_LINUX_PARAMS, &params, sizeof(params));
	assert(!code); /* memory begins with MEMORY_MIN bytes at 0 */
}

static void linux_enter(uint64_t rip, struct arch_boot_entry *ret_entry)
{
	*ret_entry = (struct arch_boot_entry){
		.mode = BOOT_MODE_LONG,
		.rip = rip,
		.rsi = LAYOUT_LINUX_PARAMS,
	};
}

int boot_linux_bzimage(const struct boot_file *kernel,
		       const struct boot_file *initrd, struct memory *mem,
		       struct boot_image *image,
		       struct arch_boot_entry *ret_entry, struct error *err)
{
	struct setup_header header;
	uint64_t offset = 0, size = 0;
	int code;

	code = linux_read_header(kernel, &header, err);
	if (!code)
		code = linux_check_header(&header, err);
	if (!code)
		code = linux_find_payload(kernel, &header, &offset, &size, err);
	if (!code)
		code = linux_place(&header, size, mem, image, err);
	if (!code)
		code = boot_load_range(kernel, mem, "protected-mode code",
				       offset, size, image->start,
				       image->end - image->start, err);
	if (!code)
		code = boot_load_cmdline(mem, image->cmdline,
					 header.cmdline_size, err);
	if (!code)
		code = boot_load_initrd(initrd, mem, header.initrd_addr_max,
					image, err);
	if (code)
		return code;
	linux_write_params(mem, image, &header);
	linux_enter(image->start + ENTRY_64, ret_entry);
	return 0;
}

int boot_linux_elf(const struct boot_file *initrd, struct memory *mem,
		   struct boot_image *image, struct arch_boot_entry *ret_entry,
		   struct error *err)
{
	/* A vmlinux has no header of its own; this is what it looks at. */
	const struct setup_header header = {
		.boot_flag = BOOT_FLAG,
		.header = HEADER_MAGIC,
		.version = PROTOCOL_SPOKEN,
		.loadflags = LOADED_HIGH,
		.kernel_alignment = (uint32_t)(2 * MIB),
		.cmdline_size = VMLINUX_CMDLINE,
	};
	int code;

	if (image->end > BOOT_MAPPED_END)
		return error_set(err, -ENOEXEC,
				 "kernel (ELF): its end at 0x%llx is above "
				 "4 GiB, out of reach of a Linux kernel that "
				 "starts",
				 (unsigned long long)image->end);
	code = boot_load_cmdline(mem, image->cmdline, VMLINUX_CMDLINE, err);
	if (!code)
		code = boot_load_initrd(initrd, mem, UINT32_MAX, image, err);
	if (code)
		return code;
	linux_write_params(mem, image, &header);
	linux_enter(image->entry, ret_entry);
	return 0;
}
