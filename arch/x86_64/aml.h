/* SPDX-License-Identifier: MIT */
/*
 * A writer of AML, the byte code of ACPI's DSDT: as much of the language as
 * static descriptions need, no methods.
 *
 * Bytes go into a buffer of the caller's; one that is too small sets `full`,
 * after which nothing is written, so that only the end has to look. Packages
 * nest: what aml_open_*() returns goes to aml_close().
 *
 * Spec: ACPI 6.5, chapter 20 (AML) and section 6.4 (resources).
 */
#ifndef GODWIT_X86_64_AML_H
#define GODWIT_X86_64_AML_H

#include "vmm/util.h"

struct aml {
	uint8_t *data;
	size_t len;
	size_t cap; /* bytes */
	bool full;
};

/**
 * aml_init() - start writing into @cap bytes at @data.
 */
void aml_init(struct aml *aml, void *data, size_t cap);

/**
 * aml_open_scope() / aml_open_device() / aml_open_package() - begin a term
 * that has a length in front.
 * @name: up to 4 characters, padded with '_'; a '\' before them makes it a
 *        name from the root.
 * @count: of elements that follow.
 *
 * Return: what aml_close() wants.
 */
size_t aml_open_scope(struct aml *aml, const char *name);
size_t aml_open_device(struct aml *aml, const char *name);
size_t aml_open_package(struct aml *aml, uint8_t count);

/**
 * aml_close() - end the term that @start came from.
 */
void aml_close(struct aml *aml, size_t start);

/**
 * aml_name() - declare a name; its value is what is written next.
 */
void aml_name(struct aml *aml, const char *name);

/* Values. */
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);

/**
 * aml_eisa_id() - a device's id, compressed.
 * @id: three capital letters and four hex digits, "PNP0501".
 */
void aml_eisa_id(struct aml *aml, const char *id);

/*
 * Resources: write descriptors into an `struct aml` of their own, then the
 * whole as a value with aml_resources().
 */

/**
 * aml_io() - @len ports from @base; 16 bits are decoded.
 */
void aml_io(struct aml *res, uint16_t base, uint8_t len);

/**
 * aml_irq() - ISA line @line (0 to 15), edge-triggered.
 */
void aml_irq(struct aml *res, unsigned int line);

/**
 * aml_memory() - @len bytes of memory from @base, for the device itself.
 */
void aml_memory(struct aml *res, uint32_t base, uint32_t len);

/**
 * aml_memory_window() - @len bytes of memory from @base that a bridge hands out
 * to what is behind it; not cached.
 */
void aml_memory_window(struct aml *res, uint32_t base, uint32_t len);

/**
 * aml_bus_window() - bus numbers from @first to @last, behind a bridge.
 */
void aml_bus_window(struct aml *res, uint16_t first, uint16_t last);

/**
 * aml_resources() - a resource template from the descriptors in @res.
 */
void aml_resources(struct aml *aml, const struct aml *res);

#endif
