// SPDX-License-Identifier: MIT
/*
 * Booting: small kernels made by hand, what is in memory after they are
 * loaded, and each way in which a hostile one is refused.
 */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/layout.h"
#include "tests/unit/unit.h"

#define RAM	(64 * MIB)
#define CMDLINE "console=ttyS0 quiet"

/* ---- the rig ---- */

struct boot_rig {
	struct memory *mem;
	struct arch_boot boot;
	struct arch_boot_entry entry;
	struct error err;
};

static int file_of(const void *data, size_t len)
{
	int fd = memfd_create("boot", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write_full(fd, data, len), 0);
	return fd;
}

static void rig_init(struct boot_rig *rig, uint64_t ram, const void *kernel,
		     size_t len)
{
	memset(rig, 0, sizeof(*rig));
	ck_assert_int_eq(memory_create(ram, true, &rig->mem, &rig->err), 0);
	rig->boot = (struct arch_boot){
		.kernel_fd = file_of(kernel, len),
		.initrd_fd = -1,
		.cmdline = CMDLINE,
	};
}

static int rig_load(struct boot_rig *rig)
{
	rig->err.text[0] = '\0';
	return arch_boot_load(&rig->boot, rig->mem, 1, &rig->entry, &rig->err);
}

static void rig_fini(struct boot_rig *rig)
{
	close_fd(&rig->boot.kernel_fd);
	close_fd(&rig->boot.initrd_fd);
	memory_free(rig->mem);
}

static void *at(struct boot_rig *rig, uint64_t gpa, uint64_t len)
{
	void *hva = memory_hva(rig->mem, gpa, len);

	ck_assert_ptr_nonnull(hva);
	return hva;
}

/* Load @kernel in @ram: it must be refused with words that have all of these.
 */
static void refused_in(uint64_t ram, const void *kernel, size_t len,
		       const char *const *words)
{
	struct boot_rig rig;
	int code;

	rig_init(&rig, ram, kernel, len);
	code = rig_load(&rig);
	ck_assert_int_lt(code, 0);
	for (; *words; words++)
		ck_assert_msg(strstr(rig.err.text, *words), "no \"%s\" in: %s",
			      *words, rig.err.text);
	rig_fini(&rig);
}

#define REFUSED(kernel, len, ...) \
	refused_in(RAM, kernel, len, (const char *const[]){ __VA_ARGS__, NULL })

/* ---- a small ELF ---- */

#define ELF_LOAD 0
#define ELF_NOTE 1

struct small_elf {
	Elf64_Ehdr header;
	Elf64_Phdr segments[2];
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint32_t entry;
	} note;
	uint8_t code[64];
};

static struct small_elf small_elf(void)
{
	struct small_elf elf = {
		.header = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64,
				     ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = 0x200010,
			.e_phoff = offsetof(struct small_elf, segments),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2,
		},
		.segments = {
			[ELF_LOAD] = {
				.p_type = PT_LOAD,
				.p_offset = offsetof(struct small_elf, code),
				.p_vaddr = 0xffffffff80200000,
				.p_paddr = 0x200000,
				.p_filesz = sizeof(elf.code),
				.p_memsz = 0x10000,
			},
			[ELF_NOTE] = {
				.p_type = PT_NOTE,
				.p_offset = offsetof(struct small_elf, note),
				.p_filesz = sizeof(elf.note),
				.p_memsz = sizeof(elf.note),
				.p_align = 4,
			},
		},
		.note = {
			.header = { 4, 4, 18 },
			.name = "Xen",
			.entry = 0x200020,
		},
	};

	for (size_t i = 0; i < sizeof(elf.code); i++)
		elf.code[i] = (uint8_t)(i ^ 0x90);
	return elf;
}

START_TEST(boot_starts_an_elf_with_a_pvh_note_in_32_bits)
{
	const struct small_elf elf = small_elf();
	struct boot_rig rig;
	const uint32_t *info;
	const uint64_t *map;

	rig_init(&rig, RAM, &elf, sizeof(elf));
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	ck_assert_uint_eq(rig.entry.mode, BOOT_MODE_PVH);
	ck_assert_uint_eq(rig.entry.rip, 0x200020);
	ck_assert_mem_eq(at(&rig, 0x200000, 64), elf.code, 64);
	info = at(&rig, rig.entry.rbx, 56);
	ck_assert_uint_eq(info[0], 0x336ec578);
	ck_assert_uint_eq(info[1], 1);
	ck_assert_uint_eq(info[3], 0); /* no modules */
	ck_assert_str_eq(at(&rig, info[6], sizeof(CMDLINE)), CMDLINE);
	ck_assert_mem_eq(at(&rig, info[8], 8), "RSD PTR ", 8);
	ck_assert_uint_eq(info[12], 5);
	map = at(&rig, info[10], 5 * 24);
	ck_assert_uint_eq(map[0], 0);
	ck_assert_uint_eq(map[2], E820_RAM);
	ck_assert_uint_eq(map[9], LAYOUT_HIGH_RAM);
	ck_assert_uint_eq(map[10], RAM - LAYOUT_HIGH_RAM);
	ck_assert_uint_eq(map[12], LAYOUT_PCI_ECAM);
	ck_assert_uint_eq(map[13], LAYOUT_PCI_ECAM_SIZE);
	ck_assert_uint_eq(map[14], E820_RESERVED);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_tells_of_ram_on_both_sides_of_the_hole)
{
	const struct small_elf elf = small_elf();
	const uint64_t ram = ARCH_HOLE_START + GIB;
	struct boot_rig rig;
	const uint64_t *map;
	const uint32_t *info;

	rig_init(&rig, ram, &elf, sizeof(elf));
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	info = at(&rig, rig.entry.rbx, 56);
	ck_assert_uint_eq(info[12], 6);
	map = at(&rig, info[10], 6 * 24);
	ck_assert_uint_eq(map[10], ARCH_HOLE_START - LAYOUT_HIGH_RAM);
	ck_assert_uint_eq(map[15], ARCH_HOLE_END);
	ck_assert_uint_eq(map[16], GIB);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_map_has_no_overlaps_and_keeps_the_tables_out_of_ram)
{
	const struct small_elf elf = small_elf();
	struct boot_range ranges[BOOT_RANGES_MAX];
	unsigned int count;
	struct boot_rig rig;

	rig_init(&rig, ARCH_HOLE_START + GIB, &elf, sizeof(elf));
	count = boot_map(rig.mem, ranges);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t end = ranges[i].start + ranges[i].size;

		ck_assert_uint_gt(ranges[i].size, 0);
		if (i + 1 < count)
			ck_assert_uint_le(end, ranges[i + 1].start);
		if (ranges[i].start <= LAYOUT_ACPI && end > LAYOUT_ACPI)
			ck_assert_uint_eq(ranges[i].type, E820_RESERVED);
	}
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_finds_the_pvh_note_among_others)
{
	struct small_elf elf = small_elf();
	struct {
		struct small_elf elf;
		Elf64_Nhdr other;
		char name[8];
		uint8_t desc[8]; /* 5 used */
		Elf64_Nhdr pvh;
		char xen[4];
		uint32_t entry[2];
	} big = {
		.elf = elf,
		.other = { 6, 5, 18 },
		.name = "Linux",
		.pvh = { 4, 8, 18 },
		.xen = "Xen",
		.entry = { 0x200030, 0 },
	};
	struct boot_rig rig;

	big.elf.segments[ELF_NOTE].p_offset = sizeof(elf);
	big.elf.segments[ELF_NOTE].p_filesz = sizeof(big) - sizeof(elf);
	rig_init(&rig, RAM, &big, sizeof(big));
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	ck_assert_uint_eq(rig.entry.mode, BOOT_MODE_PVH);
	ck_assert_uint_eq(rig.entry.rip, 0x200030);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_survives_notes_that_lie_about_their_lengths)
{
	static const uint32_t lengths[] = { 0,	       1,	   5,
					    0x100,     0x7fffffff, 0xfffffffc,
					    0xffffffff };

	for (size_t i = 0; i < ARRAY_SIZE(lengths) * 2; i++) {
		struct small_elf elf = small_elf();
		struct boot_rig rig;

		if (i % 2)
			elf.note.header.n_namesz = lengths[i / 2];
		else
			elf.note.header.n_descsz = lengths[i / 2];
		rig_init(&rig, RAM, &elf, sizeof(elf));
		/* No PVH note then: a vmlinux. */
		ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
		ck_assert_uint_eq(rig.entry.mode, BOOT_MODE_LONG);
		rig_fini(&rig);
	}
}
END_TEST

START_TEST(boot_starts_a_vmlinux_without_note_in_64_bits)
{
	struct small_elf elf = small_elf();
	const struct boot_params *params;
	struct boot_rig rig;

	elf.header.e_phnum = 1;
	rig_init(&rig, RAM, &elf, sizeof(elf));
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	ck_assert_uint_eq(rig.entry.mode, BOOT_MODE_LONG);
	ck_assert_uint_eq(rig.entry.rip, 0x200010);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.header, 0x53726448);
	ck_assert_uint_eq(params->hdr.boot_flag, 0xaa55);
	ck_assert_uint_eq(params->hdr.type_of_loader, 0xff);
	ck_assert_uint_eq(params->e820_entries, 5);
	ck_assert_str_eq(at(&rig, params->hdr.cmd_line_ptr, 32), CMDLINE);
	ck_assert_mem_eq(at(&rig, params->acpi_rsdp_addr, 8), "RSD PTR ", 8);
	rig_fini(&rig);
}
END_TEST

/* Follow the page tables as the processor does. */
static uint64_t translate(struct boot_rig *rig, uint64_t address)
{
	uint64_t pt = LAYOUT_PAGE_TABLES, entry = 0;

	for (unsigned int shift = 39; shift >= 21; shift -= 9) {
		entry = *(uint64_t *)at(rig, pt + (address >> shift) % 512 * 8,
					8);
		ck_assert_uint_eq(entry & 3, 3);
		pt = entry & 0xffffffffff000;
	}
	ck_assert(entry & 0x80);
	return pt + address % (2 * MIB);
}

START_TEST(boot_maps_the_first_4_gib_onto_themselves)
{
	struct small_elf elf = small_elf();
	struct boot_rig rig;

	elf.header.e_phnum = 1;
	rig_init(&rig, RAM, &elf, sizeof(elf));
	ck_assert_int_eq(rig_load(&rig), 0);
	for (uint64_t gpa = 0; gpa < 4 * GIB; gpa += MIB + 1)
		ck_assert_uint_eq(translate(&rig, gpa), gpa);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_refuses_each_bad_field_of_an_elf_by_name)
{
	struct small_elf elf;

#define BAD(field, value, ...)                                     \
	do {                                                       \
		elf = small_elf();                                 \
		elf.field = value;                                 \
		REFUSED(&elf, sizeof(elf), "kernel", __VA_ARGS__); \
	} while (0)
	BAD(header.e_ident[EI_CLASS], ELFCLASS32, "EI_CLASS", "0x1");
	BAD(header.e_ident[EI_DATA], ELFDATA2MSB, "EI_DATA", "0x2");
	BAD(header.e_machine, EM_AARCH64, "e_machine", "0xb7");
	BAD(header.e_type, ET_DYN, "e_type", "0x3");
	BAD(header.e_phentsize, 32, "e_phentsize", "0x20");
	BAD(header.e_phnum, 0, "e_phnum", "0x0");
	BAD(header.e_phnum, 129, "e_phnum", "0x81");
	BAD(header.e_phnum, 128, "e_phoff", "past the end");
	BAD(header.e_phoff, UINT64_MAX, "e_phoff", "0xffffffffffffffff");
	BAD(header.e_phoff, sizeof(elf), "e_phoff");
	BAD(segments[ELF_LOAD].p_filesz, 0x10001, "p_filesz", "0x10001");
	BAD(segments[ELF_LOAD].p_offset, UINT64_MAX, "ELF segment",
	    "0xffffffffffffffff", "past the end");
	BAD(segments[ELF_LOAD].p_filesz, 80, "ELF segment", "truncated");
	BAD(segments[ELF_LOAD].p_paddr, 0x1000, "0x1000", "first MiB");
	BAD(segments[ELF_LOAD].p_paddr, RAM, "0x4000000", "64 MiB", "--memory");
	BAD(segments[ELF_LOAD].p_paddr, UINT64_MAX - 0xffff, "--memory");
	BAD(segments[ELF_LOAD].p_memsz, UINT64_MAX, "--memory");
	BAD(segments[ELF_LOAD].p_memsz, RAM, "0x4000000", "--memory");
	BAD(segments[ELF_LOAD].p_type, PT_NULL, "PT_LOAD");
	BAD(segments[ELF_NOTE].p_filesz, 2 * MIB, "PT_NOTE", "0x200000",
	    "1 MiB");
	BAD(segments[ELF_NOTE].p_offset, 1 << 20, "PT_NOTE", "0x100000");
	BAD(note.entry, 0x100000, "PVH", "0x100000");
	BAD(note.entry, 0xffffffff, "PVH", "0xffffffff");
#undef BAD
	elf = small_elf();
	elf.header.e_phnum = 1;
	elf.header.e_entry = 0xffffffff80200010;
	REFUSED(&elf, sizeof(elf), "e_entry", "0xffffffff80200010");
}
END_TEST

START_TEST(boot_refuses_an_elf_cut_off_anywhere)
{
	const struct small_elf elf = small_elf();

	/* The code is last, less what the compiler pads the structure with. */
	for (size_t len = 4; len < offsetof(struct small_elf, code) + 64; len++)
		REFUSED(&elf, len, "kernel");
}
END_TEST

START_TEST(boot_says_what_it_takes_when_a_file_is_something_else)
{
	static const struct {
		size_t offset;
		const char *magic;
		const char *kind;
	} cases[] = {
		{ 0, "\x1f\x8b\x08", "gzip" }, { 0x38, "ARM\x64", "AArch64" },
		{ 0, "BZh9", "bzip2" },	       { 0, "MZ", "EFI" },
		{ 0, "070701", "initrd" },     { 0, "#!/bin/sh", "no kind" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t file[4096] = { 0 };

		memcpy(file + cases[i].offset, cases[i].magic,
		       strlen(cases[i].magic));
		REFUSED(file, sizeof(file), "bzImage", "vmlinux", "PVH",
			cases[i].kind);
	}
	REFUSED("", 0, "bzImage");
	REFUSED("\x7f", 1, "bzImage");
}
END_TEST

START_TEST(boot_reads_kernels_from_files_only)
{
	const struct small_elf elf = small_elf();
	struct boot_rig rig;
	int pipes[2];

	rig_init(&rig, RAM, &elf, sizeof(elf));
	ck_assert_int_eq(pipe(pipes), 0);
	close(rig.boot.kernel_fd);
	rig.boot.kernel_fd = pipes[0];
	ck_assert_int_eq(rig_load(&rig), -EINVAL);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "regular file"));
	rig_fini(&rig);
}
END_TEST

/* ---- a small bzImage ---- */

#define BZ_SETUP_SECTS 3
#define BZ_PAYLOAD     ((BZ_SETUP_SECTS + 1) * 512)
#define BZ_SIZE	       (BZ_PAYLOAD + 0x1000)

struct small_bz {
	uint8_t bytes[BZ_SIZE];
};

static struct setup_header bz_header(void)
{
	return (struct setup_header){
		.setup_sects = BZ_SETUP_SECTS,
		.syssize = 0x100,
		.boot_flag = 0xaa55,
		.jump = 0x6aeb, /* the header ends at 0x26c */
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = 2047,
		.pref_address = 0x1000000,
		.init_size = 0x800000,
		.setup_data = 0xdead0000,
	};
}

static struct small_bz small_bz(const struct setup_header *header)
{
	struct small_bz bz;

	for (size_t i = 0; i < sizeof(bz.bytes); i++)
		bz.bytes[i] = (uint8_t)(i * 7);
	memset(bz.bytes, 0, BZ_PAYLOAD);
	memcpy(bz.bytes + 0x1f1, header, sizeof(*header));
	return bz;
}

static void load_bz(struct boot_rig *rig, uint64_t ram,
		    const struct setup_header *header)
{
	const struct small_bz bz = small_bz(header);

	rig_init(rig, ram, &bz, sizeof(bz));
	ck_assert_msg(!rig_load(rig), "%s", rig->err.text);
	ck_assert_uint_eq(rig->entry.mode, BOOT_MODE_LONG);
	ck_assert_mem_eq(at(rig, rig->entry.rip - 0x200, 0x1000),
			 bz.bytes + BZ_PAYLOAD, 0x1000);
}

START_TEST(boot_loads_a_bzimage_where_it_prefers_to_be)
{
	const struct setup_header header = bz_header();
	const struct boot_params *params;
	struct boot_rig rig;

	load_bz(&rig, RAM, &header);
	ck_assert_uint_eq(rig.entry.rip, 0x1000200);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.version, 0x020f);
	ck_assert_uint_eq(params->hdr.type_of_loader, 0xff);
	ck_assert_uint_eq(params->hdr.init_size, header.init_size);
	ck_assert_str_eq(at(&rig, params->hdr.cmd_line_ptr, 32), CMDLINE);
	/* What only the loader may say it has said. */
	ck_assert_uint_eq(params->hdr.setup_data, 0);
	ck_assert_uint_eq(params->hdr.ramdisk_size, 0);
	ck_assert_uint_eq(params->sentinel, 0);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_moves_a_bzimage_down_when_ram_is_short)
{
	struct setup_header header = bz_header();
	struct boot_rig rig;

	header.pref_address = RAM;
	load_bz(&rig, RAM, &header);
	ck_assert_uint_eq(rig.entry.rip, 0x200200);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_takes_no_more_header_than_the_file_says_it_has)
{
	struct setup_header header = bz_header();
	const struct boot_params *params;
	struct boot_rig rig;

	header.jump = 0xffeb; /* as if it went on into the code */
	header.kernel_info_offset = 0x12345678;
	load_bz(&rig, RAM, &header);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.kernel_info_offset, 0x12345678);
	for (size_t i = 0; i < sizeof(params->_pad7); i++)
		ck_assert_uint_eq(params->_pad7[i], 0);
	rig_fini(&rig);
	header.jump = 0x62eb; /* up to init_size */
	load_bz(&rig, RAM, &header);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.init_size, header.init_size);
	ck_assert_uint_eq(params->hdr.kernel_info_offset, 0);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_refuses_each_bad_field_of_a_bzimage_by_name)
{
	struct setup_header header;
	struct small_bz bz;

#define BAD(field, value, ...)                                   \
	do {                                                     \
		header = bz_header();                            \
		header.field = value;                            \
		bz = small_bz(&header);                          \
		REFUSED(&bz, sizeof(bz), "kernel", __VA_ARGS__); \
	} while (0)
	BAD(boot_flag, 0x55aa, "boot_flag", "0x55aa");
	BAD(jump, 0x10eb, "header's length");
	BAD(version, 0x020b, "version", "0x20b", "2.12");
	BAD(loadflags, 0, "loadflags");
	BAD(xloadflags, XLF_EFI_HANDOVER_64, "xloadflags", "64-bit");
	BAD(kernel_alignment, 0, "kernel_alignment", "0x0");
	BAD(kernel_alignment, 0x300000, "kernel_alignment", "0x300000");
	BAD(kernel_alignment, 0x80000000, "kernel_alignment", "0x80000000");
	BAD(cmdline_size, 0, "cmdline_size");
	BAD(cmdline_size, 5, "--cmdline", "19 bytes", "takes 5");
	BAD(setup_sects, 255, "setup_sects", "0xff");
	BAD(syssize, 0x101, "syssize", "0x101", "truncated");
	BAD(syssize, UINT32_MAX, "syssize", "0xffffffff");
	BAD(init_size, RAM, "init_size", "0x4000000", "--memory");
	BAD(init_size, UINT32_MAX, "init_size", "0xffffffff", "--memory");
#undef BAD
	header = bz_header();
	header.relocatable_kernel = 0;
	header.pref_address = UINT64_MAX;
	bz = small_bz(&header);
	REFUSED(&bz, sizeof(bz), "pref_address", "0xffffffffffffffff",
		"--memory");
	header.pref_address = 0x10000;
	bz = small_bz(&header);
	REFUSED(&bz, sizeof(bz), "pref_address", "0x10000");
}
END_TEST

START_TEST(boot_refuses_a_bzimage_cut_off_anywhere)
{
	const struct setup_header header = bz_header();
	const struct small_bz bz = small_bz(&header);

	/* Its size is counted in units of 16 bytes. */
	for (size_t len = 0x210; len < sizeof(bz) - 15; len += 13)
		REFUSED(&bz, len, "kernel");
	REFUSED(&bz, sizeof(bz) - 16, "syssize");
}
END_TEST

/* ---- initrd and command line ---- */

static void give_initrd(struct boot_rig *rig, uint64_t size)
{
	rig->boot.initrd_fd = file_of("first bytes of the initrd", 25);
	ck_assert_int_eq(ftruncate(rig->boot.initrd_fd, (off_t)size), 0);
}

START_TEST(boot_puts_the_initrd_at_the_top_of_low_ram)
{
	const struct setup_header header = bz_header();
	const struct small_bz bz = small_bz(&header);
	const struct boot_params *params;
	struct boot_rig rig;

	rig_init(&rig, RAM, &bz, sizeof(bz));
	give_initrd(&rig, 10001);
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.ramdisk_image, RAM - 3 * 4096);
	ck_assert_uint_eq(params->hdr.ramdisk_size, 10001);
	ck_assert_mem_eq(at(&rig, params->hdr.ramdisk_image, 25),
			 "first bytes of the initrd", 25);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_keeps_the_initrd_below_what_the_kernel_can_reach)
{
	struct setup_header header = bz_header();
	const struct boot_params *params;
	struct small_bz bz;
	struct boot_rig rig;

	header.initrd_addr_max = 0x2ffffff;
	bz = small_bz(&header);
	rig_init(&rig, RAM, &bz, sizeof(bz));
	give_initrd(&rig, 4096);
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	params = at(&rig, rig.entry.rsi, sizeof(*params));
	ck_assert_uint_eq(params->hdr.ramdisk_image, 0x2fff000);
	rig_fini(&rig);
	header.initrd_addr_max = 0;
	bz = small_bz(&header);
	rig_init(&rig, RAM, &bz, sizeof(bz));
	give_initrd(&rig, 4096);
	ck_assert_int_lt(rig_load(&rig), 0);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "initrd"));
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_gives_a_pvh_kernel_its_initrd_as_a_module)
{
	const struct small_elf elf = small_elf();
	struct boot_rig rig;
	const uint32_t *info;
	const uint64_t *module;

	rig_init(&rig, ARCH_HOLE_START + GIB, &elf, sizeof(elf));
	give_initrd(&rig, 5000);
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	info = at(&rig, rig.entry.rbx, 56);
	ck_assert_uint_eq(info[3], 1);
	module = at(&rig, info[4], 32);
	ck_assert_uint_eq(module[0], ARCH_HOLE_START - 8192);
	ck_assert_uint_eq(module[1], 5000);
	ck_assert_mem_eq(at(&rig, module[0], 5), "first", 5);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_refuses_an_initrd_that_would_run_into_the_kernel)
{
	const struct setup_header header = bz_header();
	const struct small_bz bz = small_bz(&header);
	const uint64_t room = RAM - header.pref_address - header.init_size;
	struct boot_rig rig;

	rig_init(&rig, RAM, &bz, sizeof(bz));
	give_initrd(&rig, room + 1);
	ck_assert_int_eq(rig_load(&rig), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(rig.err.text, "initrd"));
	ck_assert_ptr_nonnull(strstr(rig.err.text, "--memory"));
	close(rig.boot.initrd_fd);
	give_initrd(&rig, room);
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_does_it_again_from_the_same_files)
{
	const struct small_elf elf = small_elf();
	struct boot_rig rig;

	rig_init(&rig, RAM, &elf, sizeof(elf));
	for (unsigned int i = 0; i < 3; i++) {
		ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
		ck_assert_uint_eq(rig.entry.rip, 0x200020);
		ck_assert_mem_eq(at(&rig, 0x200000, 64), elf.code, 64);
		memory_zero(rig.mem);
	}
	rig_fini(&rig);
}
END_TEST

START_TEST(boot_marks_every_page_that_it_writes)
{
	struct small_elf elf = small_elf();
	struct boot_rig rig;

	elf.header.e_phnum = 1;
	rig_init(&rig, RAM, &elf, sizeof(elf));
	give_initrd(&rig, 10000);
	ck_assert_msg(!rig_load(&rig), "%s", rig.err.text);
	for (uint64_t page = 0; page < rig.mem->npages; page++) {
		const uint8_t *hva = memory_page_hva(rig.mem, page);
		bool dirty = rig.mem->dirty[page / 64] >> page % 64 & 1;
		bool zero = !hva[0] && !memcmp(hva, hva + 1, 4095);

		ck_assert_msg(zero || dirty, "page 0x%llx",
			      (unsigned long long)page);
	}
	rig_fini(&rig);
}
END_TEST

UNIT_SUITE("boot", boot_starts_an_elf_with_a_pvh_note_in_32_bits,
	   boot_tells_of_ram_on_both_sides_of_the_hole,
	   boot_map_has_no_overlaps_and_keeps_the_tables_out_of_ram,
	   boot_finds_the_pvh_note_among_others,
	   boot_survives_notes_that_lie_about_their_lengths,
	   boot_starts_a_vmlinux_without_note_in_64_bits,
	   boot_maps_the_first_4_gib_onto_themselves,
	   boot_refuses_each_bad_field_of_an_elf_by_name,
	   boot_refuses_an_elf_cut_off_anywhere,
	   boot_says_what_it_takes_when_a_file_is_something_else,
	   boot_reads_kernels_from_files_only,
	   boot_loads_a_bzimage_where_it_prefers_to_be,
	   boot_moves_a_bzimage_down_when_ram_is_short,
	   boot_takes_no_more_header_than_the_file_says_it_has,
	   boot_refuses_each_bad_field_of_a_bzimage_by_name,
	   boot_refuses_a_bzimage_cut_off_anywhere,
	   boot_puts_the_initrd_at_the_top_of_low_ram,
	   boot_keeps_the_initrd_below_what_the_kernel_can_reach,
	   boot_gives_a_pvh_kernel_its_initrd_as_a_module,
	   boot_refuses_an_initrd_that_would_run_into_the_kernel,
	   boot_does_it_again_from_the_same_files,
	   boot_marks_every_page_that_it_writes)
