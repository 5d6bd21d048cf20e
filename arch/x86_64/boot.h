/* SPDX-License-Identifier: MIT */
/*
 * Between the files of the boot room: boot.c decides by a file's contents,
 * boot_elf.c and boot_linux.c put images into memory, boot_pvh.c and
 * boot_linux.c tell the kernel what it got, boot.c points the vCPUs at it.
 *
 * A kernel or initrd is hostile until proven harmless: each field that gives
 * an offset, size or address is checked before it is used, and a refusal names
 * the file, the field and the value.
 */
#ifndef GODWIT_X86_64_BOOT_H
#define GODWIT_X86_64_BOOT_H

#include "arch/arch.h"

/* How the boot processor starts; the others wait for its signal. */
enum boot_mode {
	BOOT_MODE_PVH,	/* 32 bits, paging off */
	BOOT_MODE_LONG, /* 64 bits, identity-mapped */
};

struct arch_boot_entry {
	uint32_t mode; /* enum boot_mode */
	uint64_t rip;
	uint64_t rbx; /* PVH: hvm_start_info */
	uint64_t rsi; /* Linux: boot_params */
};

/* A file to boot from. */
struct boot_file {
	const char *kind; /* "kernel" or "initrd", for errors */
	int fd;
	uint64_t size; /* bytes */
};

/* Everything in memory that a kernel is told of. */
struct boot_image {
	uint64_t start; /* first byte that the kernel occupies */
	uint64_t end;	/* past the last */
	uint64_t entry;
	bool has_pvh;	 /* an ELF with a PVH note: entry is the note's */
	uint64_t initrd; /* 0 when there is none */
	uint64_t initrd_size;
	const char *cmdline;
	uint64_t rsdp;
};

/* One piece of the guest's address map. */
struct boot_range {
	uint64_t start;
	uint64_t size;
	uint32_t type; /* E820_RAM, E820_RESERVED; PVH uses the same numbers */
};

#define E820_RAM	1
#define E820_RESERVED	2
#define BOOT_RANGES_MAX 8
/* Identity-mapped for a kernel that starts in long mode. */
#define BOOT_MAPPED_END (4 * GIB)

/**
 * boot_read() - read @len bytes at @offset of a file.
 * @what: names the piece, for the error.
 *
 * Return: 0 or -errno with @err naming file, piece and offset.
 */
int __must_check boot_read(const struct boot_file *file, uint64_t offset,
			   void *buf, uint64_t len, const char *what,
			   struct error *err);

/**
 * boot_load_range() - read @filesz bytes at @offset of a file to @gpa, where
 * @memsz bytes are taken.
 * @what: names the piece, for the error.
 *
 * The bytes past @filesz are zero already. The range must lie in RAM from
 * LAYOUT_HIGH_RAM on.
 *
 * Return: 0 or -errno with @err naming file, piece, address and remedy.
 */
int __must_check boot_load_range(const struct boot_file *file,
				 struct memory *mem, const char *what,
				 uint64_t offset, uint64_t filesz, uint64_t gpa,
				 uint64_t memsz, struct error *err);

/**
 * boot_low_ram_end() - the end of RAM below the hole.
 */
uint64_t boot_low_ram_end(const struct memory *mem);

/**
 * boot_map() - the guest's address map, sorted.
 * @ret: room for BOOT_RANGES_MAX.
 *
 * Return: how many ranges there are.
 */
unsigned int boot_map(const struct memory *mem, struct boot_range *ret);

/**
 * boot_load_initrd() - put the initrd as high as it can go.
 * @limit: the address of its last byte must not be above this.
 * @image: says what is taken already; gets the initrd's place.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check boot_load_initrd(const struct boot_file *file,
				  struct memory *mem, uint64_t limit,
				  struct boot_image *image, struct error *err);

/**
 * boot_load_cmdline() - put the command line into memory.
 * @max: bytes that the kernel takes, without the NUL.
 *
 * Return: 0 or -E2BIG with @err.
 */
int __must_check boot_load_cmdline(struct memory *mem, const char *cmdline,
				   uint64_t max, struct error *err);

/**
 * boot_is_elf() - do these first bytes of a file begin an ELF?
 * @len: at least 4.
 */
bool boot_is_elf(const uint8_t *head);

/**
 * boot_load_elf() - load an ELF64's segments and find out how it starts.
 * @image: gets start, end, entry and has_pvh.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check boot_load_elf(const struct boot_file *kernel,
			       struct memory *mem, struct boot_image *image,
			       struct error *err);

/**
 * boot_is_bzimage() - is this file's first KiB that of a bzImage?
 * @head: 1024 bytes.
 */
bool boot_is_bzimage(const uint8_t *head);

/**
 * boot_linux_bzimage() - load a bzImage with all that belongs to it.
 * @initrd: fd -1 for none.
 * @image: has cmdline and rsdp.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check boot_linux_bzimage(const struct boot_file *kernel,
				    const struct boot_file *initrd,
				    struct memory *mem,
				    struct boot_image *image,
				    struct arch_boot_entry *ret_entry,
				    struct error *err);

/**
 * boot_linux_elf() - finish the boot of a loaded vmlinux.
 */
int __must_check boot_linux_elf(const struct boot_file *initrd,
				struct memory *mem, struct boot_image *image,
				struct arch_boot_entry *ret_entry,
				struct error *err);

/**
 * boot_pvh() - finish the boot of a loaded ELF with a PVH note.
 */
int __must_check boot_pvh(const struct boot_file *initrd, struct memory *mem,
			  struct boot_image *image,
			  struct arch_boot_entry *ret_entry, struct error *err);

#endif
