// SPDX-License-Identifier: MIT
/*
 * From a kernel file to a boot processor that is about to run it: which
 * protocol the file speaks, what the protocols share, and the registers.
 *
 * Everything is read by position from descriptors that stay open, so that a
 * VM can reboot from the same files at any time, on any thread that holds it.
 */
#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/stat.h>

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/boot.h"
#include "arch/x86_64/layout.h"

#define BOOT_HEAD 1024 /* bytes that tell the kinds of kernels apart */

/* Documentation/arch/x86/boot.rst, 64-bit boot protocol: __BOOT_CS, _DS. */
#define GDT_CODE 2
#define GDT_DATA 3
#define GDT_TSS	 4

#define CR0_PE	 (1ULL << 0)
#define CR0_ET	 (1ULL << 4)
#define CR0_PG	 (1ULL << 31)
#define CR4_PAE	 (1ULL << 5)
#define EFER_LME (1ULL << 8)
#define EFER_LMA (1ULL << 10)

#define PTE_P  (1ULL << 0)
#define PTE_RW (1ULL << 1)
#define PTE_PS (1ULL << 7)

/* ---- files ---- */

int boot_read(const struct boot_file *file, uint64_t offset, void *buf,
	      uint64_t len, const char *what, struct error *err)
{
	int code;

	if (offset > file->size || len > file->size - offset)
		return error_set(err, -ENODATA,
				 "%s: %s: 0x%llx bytes at offset 0x%llx are "
				 "past the end of the file (0x%llx bytes); is "
				 "it truncated?",
				 file->kind, what, (unsigned long long)len,
				 (unsigned long long)offset,
				 (unsigned long long)file->size);
	code = pread_full(file->fd, buf, len, offset);
	if (code)
		return error_set(err, code, "%s: %s: read at offset 0x%llx: %s",
				 file->kind, what, (unsigned long long)offset,
				 strerror(-code));
	return 0;
}

static int boot_open(struct boot_file *file, const char *kind, int fd,
		     struct error *err)
{
	struct stat st;

	*file = (struct boot_file){ .kind = kind, .fd = fd };
	if (fd < 0)
		return 0;
	if (fstat(fd, &st))
		return error_set(err, -errno, "%s: %s", kind, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL,
				 "%s: not a regular file; copy it into one",
				 kind);
	file->size = (uint64_t)st.st_size;
	return 0;
}

int boot_load_range(const struct boot_file *file, struct memory *mem,
		    const char *what, uint64_t offset, uint64_t filesz,
		    uint64_t gpa, uint64_t memsz, struct error *err)
{
	void *hva;
	int code;

	if (gpa < LAYOUT_HIGH_RAM)
		return error_set(err, -ENOEXEC,
				 "%s: %s at 0x%llx lies in the first MiB, "
				 "which isn't free; link it at 0x%llx or above",
				 file->kind, what, (unsigned long long)gpa,
				 LAYOUT_HIGH_RAM);
	hva = memory_hva(mem, gpa, memsz);
	if (!hva)
		return error_set(err, -ENOMEM,
				 "%s: %s at 0x%llx, 0x%llx bytes, lies outside "
				 "of RAM, which has %llu MiB; give more with "
				 "--memory",
				 file->kind, what, (unsigned long long)gpa,
				 (unsigned long long)memsz,
				 (unsigned long long)(mem->size / MIB));
	if (!filesz)
		return 0;
	code = boot_read(file, offset, hva, filesz, what, err);
	if (!code)
		memory_mark_dirty(mem, gpa, filesz);
	return code;
}

/* ---- what the protocols share ---- */

uint64_t boot_low_ram_end(const struct memory *mem)
{
	return mem->regions[0].size;
}

unsigned int boot_map(const struct memory *mem, struct boot_range *ret)
{
	/* Between the two reserved ones lies what a PC has for video. */
	const struct boot_range low[] = {
		{ 0, LAYOUT_LOW_RAM_END, E820_RAM },
		{ LAYOUT_LOW_RAM_END, LAYOUT_VIDEO - LAYOUT_LOW_RAM_END,
		  E820_RESERVED },
		{ LAYOUT_BIOS, LAYOUT_HIGH_RAM - LAYOUT_BIOS, E820_RESERVED },
		{ LAYOUT_HIGH_RAM, boot_low_ram_end(mem) - LAYOUT_HIGH_RAM,
		  E820_RAM },
	};
	const struct boot_range ecam = { LAYOUT_PCI_ECAM, LAYOUT_PCI_ECAM_SIZE,
					 E820_RESERVED };
	unsigned int count = ARRAY_SIZE(low);

	static_assert(ARRAY_SIZE(low) + MEMORY_REGIONS_MAX <= BOOT_RANGES_MAX,
		      "every region has an entry, and ECAM");
	static_assert(LAYOUT_PCI_WINDOW >= ARCH_HOLE_START &&
			      LAYOUT_PCI_ECAM + LAYOUT_PCI_ECAM_SIZE <=
				      ARCH_HOLE_END,
		      "PCI lies in the hole");
	memcpy(ret, low, sizeof(low));
	/* Guests trust ECAM only where memory is reserved for it. */
	ret[count++] = ecam;
	for (unsigned int i = 1; i < mem->nregions; i++, count++) {
		ret[count].start = mem->regions[i].gpa;
		ret[count].size = mem->regions[i].size;
		ret[count].type = E820_RAM;
	}
	return count;
}

int boot_load_initrd(const struct boot_file *file, struct memory *mem,
		     uint64_t limit, struct boot_image *image,
		     struct error *err)
{
	uint64_t low = LAYOUT_HIGH_RAM;
	uint64_t high = boot_low_ram_end(mem);
	uint64_t place;

	if (file->fd < 0 || !file->size)
		return 0;
	if (high - 1 > limit)
		high = limit + 1;
	/* A kernel that lies above the low RAM leaves all of it free. */
	if (image->start < high)
		low = image->end;
	place = high >= file->size ? high - file->size : 0;
	place -= place % GUEST_PAGE_SIZE;
	if (place < low)
		return error_set(err, -ENOMEM,
				 "initrd: its %llu KiB don't fit between the "
				 "kernel's end at 0x%llx and 0x%llx; give more "
				 "with --memory, or use a smaller initrd",
				 (unsigned long long)(file->size / KIB),
				 (unsigned long long)low,
				 (unsigned long long)high);
	image->initrd = place;
	image->initrd_size = file->size;
	return boot_load_range(file, mem, "contents", 0, file->size, place,
			       file->size, err);
}

int boot_load_cmdline(struct memory *mem, const char *cmdline, uint64_t max,
		      struct error *err)
{
	size_t len = strlen(cmdline);
	int code;

	max = MIN(max, LAYOUT_CMDLINE_SIZE - 1);
	if (len > max)
		return error_set(err, -E2BIG,
				 "--cmdline: %zu bytes, this kernel takes %llu",
				 len, (unsigned long long)max);
	code = memory_write(mem, LAYOUT_CMDLINE, cmdline, len + 1);
	assert(!code);
	return 0;
}

/* ---- which protocol ---- */

/* What a file is that can't be booted, when that is easy to tell. */
static const char *boot_other_kind(const uint8_t *head)
{
	static const struct {
		size_t offset;
		size_t len;
		const char *magic;
		const char *kind;
	} kinds[] = {
		{ 0, 2, "\x1f\x8b", "gzip data; unpack it first" },
		{ 0, 6,
		  "\xfd"
		  "7zXZ",
		  "xz data; unpack it first" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "zstd data; unpack it first" },
		{ 0, 3, "BZh", "bzip2 data; unpack it first" },
		{ 0, 4, "\x04\x22\x4d\x18", "LZ4 data; unpack it first" },
		{ 0x38, 4, "ARM\x64", "an AArch64 Image" },
		{ 0x30, 4, "RISC", "a RISC-V Image" },
		{ 0, 2, "MZ", "an EFI program" },
		{ 0, 5, "07070", "a cpio archive: is it the initrd?" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!memcmp(head + kinds[i].offset, kinds[i].magic,
			    kinds[i].len))
			return kinds[i].kind;
	}
	return "of no kind known here";
}

static int boot_dispatch(const struct boot_file *kernel,
			 const struct boot_file *initrd, struct memory *mem,
			 struct boot_image *image,
			 struct arch_boot_entry *ret_entry, struct error *err)
{
	uint8_t head[BOOT_HEAD] = { 0 };
	int code;

	code = boot_read(kernel, 0, head, MIN(sizeof(head), kernel->size),
			 "first bytes", err);
	if (code)
		return code;
	if (boot_is_bzimage(head))
		return boot_linux_bzimage(kernel, initrd, mem, image, ret_entry,
					  err);
	if (!boot_is_elf(head))
		return error_set(err, -ENOEXEC,
				 "kernel: neither a bzImage, nor an ELF64 "
				 "vmlinux, nor an ELF64 with a PVH note, which "
				 "is what boots here: it is %s",
				 boot_other_kind(head));
	code = boot_load_elf(kernel, mem, image, err);
	if (code)
		return code;
	if (image->has_pvh)
		return boot_pvh(initrd, mem, image, ret_entry, err);
	return boot_linux_elf(initrd, mem, image, ret_entry, err);
}

/* ---- the processor's first tables ---- */

static void boot_write_gdt(struct memory *mem, uint32_t mode)
{
	/* Flat segments, all accessed; Intel SDM vol. 3, 3.4.5. */
	const uint64_t gdt[] = {
		[GDT_CODE] = mode == BOOT_MODE_LONG ? 0x00af9b000000ffff
						    : 0x00cf9b000000ffff,
		[GDT_DATA] = 0x00cf93000000ffff,
		[GDT_TSS] = 0x00008b0000000067,
	};
	int code = memory_write(mem, LAYOUT_GDT, gdt, sizeof(gdt));

	static_assert(sizeof(gdt) <= LAYOUT_GDT_SIZE, "the GDT has its room");
	assert(!code);
}

/* 2 MiB pages over the first 4 GiB; Intel SDM vol. 3, 4.5. */
static void boot_write_page_tables(struct memory *mem)
{
	const uint64_t flags = PTE_P | PTE_RW;
	uint64_t table[512] = { 0 };
	uint64_t at = LAYOUT_PAGE_TABLES;
	uint64_t next = at + GUEST_PAGE_SIZE;
	int code;

	table[0] = next | flags;
	code = memory_write(mem, at, table, sizeof(table));
	at = next;
	for (uint64_t i = 0; i < BOOT_MAPPED_END / GIB; i++)
		table[i] = (at + (i + 1) * GUEST_PAGE_SIZE) | flags;
	code |= memory_write(mem, at, table, sizeof(table));
	for (uint64_t gib = 0; gib < BOOT_MAPPED_END / GIB; gib++) {
		for (uint64_t i = 0; i < ARRAY_SIZE(table); i++)
			table[i] = (gib * GIB + i * 2 * MIB) | flags | PTE_PS;
		at += GUEST_PAGE_SIZE;
		code |= memory_write(mem, at, table, sizeof(table));
	}
	assert(!code);
}

size_t arch_boot_entry_size(void)
{
	return sizeof(struct arch_boot_entry);
}

int arch_boot_load(const struct arch_boot *boot, struct memory *mem,
		   uint32_t cpus, struct arch_boot_entry *ret_entry,
		   struct error *err)
{
	struct boot_image image = { .cmdline = boot->cmdline };
	struct boot_file kernel, initrd;
	int code;

	code = boot_open(&kernel, "kernel", boot->kernel_fd, err);
	if (!code)
		code = boot_open(&initrd, "initrd", boot->initrd_fd, err);
	if (!code)
		code = acpi_build(mem, cpus, &image.rsdp, err);
	if (!code)
		code = boot_dispatch(&kernel, &initrd, mem, &image, ret_entry,
				     err);
	if (code)
		return code;
	boot_write_gdt(mem, ret_entry->mode);
	if (ret_entry->mode == BOOT_MODE_LONG)
		boot_write_page_tables(mem);
	return 0;
}

/* ---- registers ---- */

static struct kvm_segment boot_segment(unsigned int index, uint8_t type,
				       bool system, bool code64)
{
	return (struct kvm_segment){
		.selector = (uint16_t)(index * 8),
		.limit = system ? 0x67 : 0xffffffff,
		.type = type,
		.present = 1,
		.s = !system,
		.db = !system && !code64,
		.l = code64,
		.g = !system,
	};
}

static void boot_fill_sregs(const struct arch_boot_entry *entry,
			    struct kvm_sregs *sregs)
{
	bool long_mode = entry->mode == BOOT_MODE_LONG;
	struct kvm_segment data = boot_segment(GDT_DATA, 0x3, false, false);

	sregs->cs = boot_segment(GDT_CODE, 0xb, false, long_mode);
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
	sregs->tr = boot_segment(GDT_TSS, 0xb, true, false);
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = (GDT_TSS + 1) * 8 - 1;
	sregs->idt.base = 0;
	sregs->idt.limit = 0;
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr3 = 0;
	sregs->cr4 = 0;
	sregs->efer = 0;
	if (long_mode) {
		sregs->cr0 |= CR0_PG;
		sregs->cr3 = LAYOUT_PAGE_TABLES;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
	}
}

static int boot_set_mp_state(int vcpu_fd, uint32_t state, struct error *err)
{
	struct kvm_mp_state mp = { .mp_state = state };

	return KVM_IOCTL(vcpu_fd, KVM_SET_MP_STATE, &mp, err);
}

int arch_vcpu_boot(int vcpu_fd, uint32_t index,
		   const struct arch_boot_entry *entry, struct error *err)
{
	struct kvm_regs regs = {
		.rip = entry->rip,
		.rbx = entry->rbx,
		.rsi = entry->rsi,
		.rsp = LAYOUT_STACK_TOP,
		.rflags = 0x2, /* bit 1 is always set */
	};
	struct kvm_sregs sregs;
	int code;

	if (index)
		return boot_set_mp_state(vcpu_fd, KVM_MP_STATE_UNINITIALIZED,
					 err);
	code = KVM_IOCTL(vcpu_fd, KVM_GET_SREGS, &sregs, err);
	if (code)
		return code;
	boot_fill_sregs(entry, &sregs);
	code = KVM_IOCTL(vcpu_fd, KVM_SET_SREGS, &sregs, err);
	if (!code)
		code = KVM_IOCTL(vcpu_fd, KVM_SET_REGS, &regs, err);
	if (!code)
		code = boot_set_mp_state(vcpu_fd, KVM_MP_STATE_RUNNABLE, err);
	return code;
}
