// SPDX-License-Identifier: MIT
/*
 * ELF64 kernels: their segments into guest memory, and the PVH note that says
 * where a 32-bit start is welcome.
 *
 * Segments go to their physical addresses. Without a PVH note the file must be
 * a Linux vmlinux, whose e_entry is a physical address too.
 *
 * Spec: System V ABI, chapters 4 and 5 (ELF header, program header, note
 * section); Xen docs/misc/pvh.pandoc, xen/include/public/elfnote.h.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/layout.h"

#define ELF_SEGMENTS_MAX	 128
#define ELF_NOTES_MAX		 (1 * MIB)
#define XEN_ELFNOTE_PHYS32_ENTRY 18

struct elf {
	const struct boot_file *file;
	Elf64_Ehdr header;
	Elf64_Phdr segments[ELF_SEGMENTS_MAX];
};

bool boot_is_elf(const uint8_t *head)
{
	return !memcmp(head, ELFMAG, SELFMAG);
}

static int elf_refuse(struct error *err, const char *field, uint64_t value,
		      const char *want)
{
	return error_set(err, -ENOEXEC, "kernel (ELF): %s is 0x%llx, not %s",
			 field, (unsigned long long)value, want);
}

static int elf_check_header(const Elf64_Ehdr *h, struct error *err)
{
	if (h->e_ident[EI_CLASS] != ELFCLASS64)
		return elf_refuse(err, "EI_CLASS", h->e_ident[EI_CLASS],
				  "that of a 64-bit file (2)");
	if (h->e_ident[EI_DATA] != ELFDATA2LSB)
		return elf_refuse(err, "EI_DATA", h->e_ident[EI_DATA],
				  "little-endian (1)");
	if (h->e_machine != EM_X86_64)
		return elf_refuse(err, "e_machine", h->e_machine,
				  "x86-64 (0x3e)");
	if (h->e_type != ET_EXEC)
		return elf_refuse(err, "e_type", h->e_type,
				  "a fixed-address executable (2)");
	if (h->e_phentsize != sizeof(Elf64_Phdr))
		return elf_refuse(err, "e_phentsize", h->e_phentsize,
				  "that of ELF64 (0x38)");
	if (!h->e_phnum || h->e_phnum > ELF_SEGMENTS_MAX)
		return elf_refuse(err, "e_phnum", h->e_phnum,
				  "from 1 to 128 segments");
	return 0;
}

static int elf_read_headers(struct elf *elf, struct error *err)
{
	int code;

	code = boot_read(elf->file, 0, &elf->header, sizeof(elf->header),
			 "ELF header", err);
	if (!code)
		code = elf_check_header(&elf->header, err);
	if (code)
		return code;
	return boot_read(elf->file, elf->header.e_phoff, elf->segments,
			 elf->header.e_phnum * sizeof(Elf64_Phdr),
			 "ELF program headers (e_phoff)", err);
}

static int elf_load_segments(const struct elf *elf, struct memory *mem,
			     struct boot_image *image, struct error *err)
{
	int code;

	image->start = UINT64_MAX;
	image->end = 0;
	for (unsigned int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *p = &elf->segments[i];

		if (p->p_type != PT_LOAD || !p->p_memsz)
			continue;
		if (p->p_filesz > p->p_memsz)
			return elf_refuse(err, "p_filesz", p->p_filesz,
					  "within p_memsz");
		code = boot_load_range(elf->file, mem, "ELF segment",
				       p->p_offset, p->p_filesz, p->p_paddr,
				       p->p_memsz, err);
		if (code)
			return code;
		image->start = MIN(image->start, p->p_paddr);
		image->end = MAX(image->end, p->p_paddr + p->p_memsz);
	}
	if (!image->end)
		return error_set(err, -ENOEXEC,
				 "kernel (ELF): no PT_LOAD segment, so there "
				 "is nothing to run");
	return 0;
}

static bool elf_loaded(const struct elf *elf, uint64_t gpa)
{
	for (unsigned int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *p = &elf->segments[i];

		if (p->p_type == PT_LOAD && gpa >= p->p_paddr &&
		    gpa - p->p_paddr < p->p_memsz)
			return true;
	}
	return false;
}

/*
 * Look for the PVH note among @len bytes of notes, each padded to @align.
 * Ends quietly at a note that doesn't fit: notes are hints of many origins.
 */
static bool elf_find_pvh(const uint8_t *notes, uint64_t len, uint64_t align,
			 uint64_t *ret_entry)
{
	uint64_t pos = 0;

	while (len - pos >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		uint64_t name, desc;
		uint32_t entry;

		memcpy(&note, notes + pos, sizeof(note));
		name = pos + sizeof(note);
		desc = align_up(name + note.n_namesz, align);
		if (desc > len || note.n_descsz > len - desc)
			return false;
		if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY &&
		    note.n_namesz == 4 && !memcmp(notes + name, "Xen", 4) &&
		    note.n_descsz >= sizeof(entry)) {
			/* 4 or 8 bytes by who made it; the address has 32 bits.
			 */
			memcpy(&entry, notes + desc, sizeof(entry));
			*ret_entry = entry;
			return true;
		}
		pos = align_up(desc + note.n_descsz, align);
		if (pos > len)
			return false;
	}
	return false;
}

static int elf_read_notes(const struct elf *elf, const Elf64_Phdr *p,
			  struct boot_image *image, struct error *err)
{
	uint8_t *notes;
	int code;

	if (!p->p_filesz)
		return 0;
	if (p->p_filesz > ELF_NOTES_MAX)
		return elf_refuse(err, "p_filesz of PT_NOTE", p->p_filesz,
				  "within 1 MiB");
	notes = malloc(p->p_filesz);
	if (!notes)
		return error_set(err, -ENOMEM, "kernel (ELF): notes: %s",
				 strerror(ENOMEM));
	code = boot_read(elf->file, p->p_offset, notes, p->p_filesz,
			 "ELF notes (p_offset of PT_NOTE)", err);
	if (!code)
		image->has_pvh =
			elf_find_pvh(notes, p->p_filesz,
				     p->p_align == 8 ? 8 : 4, &image->entry);
	free(notes);
	return code;
}

static int elf_find_entry(const struct elf *elf, struct boot_image *image,
			  struct error *err)
{
	int code;

	image->has_pvh = false;
	for (unsigned int i = 0; i < elf->header.e_phnum; i++) {
		const Elf64_Phdr *p = &elf->segments[i];

		if (p->p_type != PT_NOTE || image->has_pvh)
			continue;
		code = elf_read_notes(elf, p, image, err);
		if (code)
			return code;
	}
	if (!image->has_pvh)
		image->entry = elf->header.e_entry;
	if (elf_loaded(elf, image->entry))
		return 0;
	if (image->has_pvh)
		return elf_refuse(err, "the PVH note's entry", image->entry,
				  "inside a PT_LOAD segment");
	return elf_refuse(err, "e_entry", image->entry,
			  "a physical address inside a PT_LOAD segment as in "
			  "a Linux vmlinux, and there is no PVH note");
}

int boot_load_elf(const struct boot_file *kernel, struct memory *mem,
		  struct boot_image *image, struct error *err)
{
	struct elf *elf;
	int code;

	elf = calloc(1, sizeof(*elf));
	if (!elf)
		return error_set(err, -ENOMEM, "kernel (ELF): %s",
				 strerror(ENOMEM));
	elf->file = kernel;
	code = elf_read_headers(elf, err);
	if (!code)
		code = elf_load_segments(elf, mem, image, err);
	if (!code)
		code = elf_find_entry(elf, image, err);
	free(elf);
	return code;
}
