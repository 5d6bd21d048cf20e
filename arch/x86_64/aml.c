// SPDX-License-Identifier: MIT
/*
 * The AML writer; see aml.h.
 */
#include <assert.h>
#include <string.h>

#include "arch/x86_64/aml.h"

/* Opcodes, ACPI 6.5 section 20.3. */
#define OP_ZERO	      0x00
#define OP_ONE	      0x01
#define OP_NAME	      0x08
#define OP_BYTE	      0x0a
#define OP_WORD	      0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_QWORD      0x0e
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_EXT	      0x5b
#define OP_EXT_DEVICE 0x82

/* Small resource descriptors, section 6.4.2: type and length in one byte. */
#define RES_IRQ		0x22
#define RES_IO		0x47
#define RES_END		0x79
#define RES_IO_DECODE16 0x01

/* Large ones, section 6.4.3: type in one byte, then a word of length. */
#define RES_MEMORY	    0x86
#define RES_DWORD_WINDOW    0x87
#define RES_WORD_WINDOW	    0x88
#define RES_WRITABLE	    0x01
#define RES_WINDOW_MEMORY   0
#define RES_WINDOW_BUS	    2
#define RES_WINDOW_IS_FIXED 0x0c /* both ends */

#define NAME_SEGMENT   4
#define PKG_LENGTH_MAX 4 /* bytes of an encoded length */

static void aml_bytes(struct aml *aml, const void *data, size_t len)
{
	if (aml->full || len > aml->cap - aml->len) {
		aml->full = true;
		return;
	}
	memcpy(aml->data + aml->len, data, len);
	aml->len += len;
}

static void aml_byte(struct aml *aml, uint8_t byte)
{
	aml_bytes(aml, &byte, sizeof(byte));
}

void aml_init(struct aml *aml, void *data, size_t cap)
{
	*aml = (struct aml){ .data = data, .cap = cap };
}

static void aml_name_string(struct aml *aml, const char *name)
{
	char segment[NAME_SEGMENT];
	size_t len;

	if (*name == '\\') {
		aml_byte(aml, '\\');
		name++;
	}
	len = strlen(name);
	assert(len && len <= NAME_SEGMENT);
	memset(segment, '_', sizeof(segment));
	memcpy(segment, name, len);
	aml_bytes(aml, segment, sizeof(segment));
}

size_t aml_open_scope(struct aml *aml, const char *name)
{
	size_t start;

	aml_byte(aml, OP_SCOPE);
	start = aml->len;
	aml_name_string(aml, name);
	return start;
}

size_t aml_open_device(struct aml *aml, const char *name)
{
	size_t start;

	aml_byte(aml, OP_EXT);
	aml_byte(aml, OP_EXT_DEVICE);
	start = aml->len;
	aml_name_string(aml, name);
	return start;
}

size_t aml_open_package(struct aml *aml, uint8_t count)
{
	size_t start;

	aml_byte(aml, OP_PACKAGE);
	start = aml->len;
	aml_byte(aml, count);
	return start;
}

/*
 * PkgLength, section 20.2.4: counts itself. Below 64 it is one byte; else the
 * first has the low 4 bits and how many bytes follow.
 */
static size_t aml_encode_length(uint8_t out[PKG_LENGTH_MAX], size_t body)
{
	size_t follow = 0, total;

	if (body + 1 < 1 << 6) {
		out[0] = (uint8_t)(body + 1);
		return 1;
	}
	do {
		follow++;
		total = body + 1 + follow;
	} while (total >> (4 + 8 * follow));
	assert(follow < PKG_LENGTH_MAX);
	out[0] = (uint8_t)(follow << 6 | (total & 0xf));
	for (size_t i = 0; i < follow; i++)
		out[i + 1] = (uint8_t)(total >> (4 + 8 * i));
	return follow + 1;
}

void aml_close(struct aml *aml, size_t start)
{
	uint8_t length[PKG_LENGTH_MAX];
	size_t body = aml->len - start;
	size_t n = aml_encode_length(length, body);

	/* Only now is the length known: make room for it. */
	aml_bytes(aml, length, n);
	if (aml->full)
		return;
	memmove(aml->data + start + n, aml->data + start, body);
	memcpy(aml->data + start, length, n);
}

void aml_name(struct aml *aml, const char *name)
{
	aml_byte(aml, OP_NAME);
	aml_name_string(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value)
{
	if (value <= 1) {
		aml_byte(aml, value ? OP_ONE : OP_ZERO);
	} else if (value <= UINT8_MAX) {
		aml_byte(aml, OP_BYTE);
		aml_bytes(aml, &value, 1);
	} else if (value <= UINT16_MAX) {
		aml_byte(aml, OP_WORD);
		aml_bytes(aml, &value, 2);
	} else if (value <= UINT32_MAX) {
		aml_byte(aml, OP_DWORD);
		aml_bytes(aml, &value, 4);
	} else {
		aml_byte(aml, OP_QWORD);
		aml_bytes(aml, &value, 8);
	}
}

void aml_string(struct aml *aml, const char *text)
{
	aml_byte(aml, OP_STRING);
	aml_bytes(aml, text, strlen(text) + 1);
}

static uint32_t hex_digit(char c)
{
	return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Section 19.6.37: 5 bits a letter, 4 a digit, the most significant first. */
void aml_eisa_id(struct aml *aml, const char *id)
{
	uint32_t value = 0;
	uint8_t bytes[4];

	assert(strlen(id) == 7);
	for (unsigned int i = 0; i < 3; i++)
		value = value << 5 | (uint32_t)(id[i] - '@');
	for (unsigned int i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(value >> (24 - 8 * i));
	aml_byte(aml, OP_DWORD);
	aml_bytes(aml, bytes, sizeof(bytes));
}

void aml_io(struct aml *res, uint16_t base, uint8_t len)
{
	aml_byte(res, RES_IO);
	aml_byte(res, RES_IO_DECODE16);
	aml_bytes(res, &base, sizeof(base)); /* lowest base */
	aml_bytes(res, &base, sizeof(base)); /* highest */
	aml_byte(res, 1);		     /* alignment */
	aml_byte(res, len);
}

void aml_irq(struct aml *res, unsigned int line)
{
	uint16_t mask = (uint16_t)(1U << line);

	aml_byte(res, RES_IRQ);
	aml_bytes(res, &mask, sizeof(mask));
}

static void aml_large(struct aml *res, uint8_t type, uint16_t len)
{
	aml_byte(res, type);
	aml_bytes(res, &len, sizeof(len));
}

void aml_memory(struct aml *res, uint32_t base, uint32_t len)
{
	aml_large(res, RES_MEMORY, 9);
	aml_byte(res, RES_WRITABLE);
	aml_bytes(res, &base, sizeof(base));
	aml_bytes(res, &len, sizeof(len));
}

void aml_memory_window(struct aml *res, uint32_t base, uint32_t len)
{
	const uint32_t fields[] = {
		0,			 /* granularity */
		base, base + len - 1, 0, /* translation */
		len,
	};

	aml_large(res, RES_DWORD_WINDOW, 3 + sizeof(fields));
	aml_byte(res, RES_WINDOW_MEMORY);
	aml_byte(res, RES_WINDOW_IS_FIXED);
	aml_byte(res, RES_WRITABLE);
	aml_bytes(res, fields, sizeof(fields));
}

void aml_bus_window(struct aml *res, uint16_t first, uint16_t last)
{
	const uint16_t fields[] = {
		0, /* granularity */
		first,
		last,
		0, /* translation */
		(uint16_t)(last - first + 1),
	};

	aml_large(res, RES_WORD_WINDOW, 3 + sizeof(fields));
	aml_byte(res, RES_WINDOW_BUS);
	aml_byte(res, RES_WINDOW_IS_FIXED);
	aml_byte(res, 0);
	aml_bytes(res, fields, sizeof(fields));
}

void aml_resources(struct aml *aml, const struct aml *res)
{
	size_t start;

	aml_byte(aml, OP_BUFFER);
	start = aml->len;
	aml_integer(aml, res->len + 2);
	aml_bytes(aml, res->data, res->len);
	aml_byte(aml, RES_END);
	aml_byte(aml, 0); /* a checksum of 0 stands for "not summed" */
	aml_close(aml, start);
	aml->full |= res->full;
}
