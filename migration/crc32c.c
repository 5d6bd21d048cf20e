// SPDX-License-Identifier: MIT
/*
 * CRC32C (RFC 3720, appendix B.4): the processor's instruction where there is
 * one, else bit by bit: records' checksums cover metadata and state, never page
 * data. Only --verify sums much, and few processors that run guests lack the
 * instruction.
 */
#include <string.h>

#include "migration/codec.h"

#define POLY 0x82f63b78u /* Castagnoli, reflected */

static uint32_t crc_byte(uint32_t crc, uint8_t byte)
{
	crc ^= byte;
	for (int bit = 0; bit < 8; bit++)
		crc = (crc >> 1) ^ ((crc & 1) ? POLY : 0);
	return crc;
}

static uint32_t crc_portable(uint32_t crc, const uint8_t *at, size_t len)
{
	while (len--)
		crc = crc_byte(crc, *at++);
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t
crc_sse42(uint32_t crc, const uint8_t *at, size_t len)
{
	uint64_t wide = crc;
	uint64_t word;

	for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	while (len--)
		crc = __builtin_ia32_crc32qi(crc, *at++);
	return crc;
}

static uint64_t word_at(const void *data, size_t at)
{
	uint64_t word;

	memcpy(&word, (const uint8_t *)data + at, sizeof(word));
	return word;
}

/* A step waits three cycles for the one before; others' steps fit between. */
__attribute__((target("sse4.2"))) static void
lanes_sse42(uint32_t crc[CRC32C_LANES], const void *const data[CRC32C_LANES],
	    size_t len)
{
	const void *d0 = data[0], *d1 = data[1], *d2 = data[2], *d3 = data[3];
	uint64_t c0 = crc[0], c1 = crc[1], c2 = crc[2], c3 = crc[3];

	for (size_t at = 0; at < len; at += sizeof(uint64_t)) {
		c0 = __builtin_ia32_crc32di(c0, word_at(d0, at));
		c1 = __builtin_ia32_crc32di(c1, word_at(d1, at));
		c2 = __builtin_ia32_crc32di(c2, word_at(d2, at));
		c3 = __builtin_ia32_crc32di(c3, word_at(d3, at));
	}
	crc[0] = (uint32_t)c0;
	crc[1] = (uint32_t)c1;
	crc[2] = (uint32_t)c2;
	crc[3] = (uint32_t)c3;
}
#endif

void crc32c_lanes(uint32_t crc[CRC32C_LANES],
		  const void *const data[CRC32C_LANES], size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2")) {
		lanes_sse42(crc, data, len);
		return;
	}
#endif
	for (int i = 0; i < CRC32C_LANES; i++)
		crc[i] = crc_portable(crc[i], data[i], len);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_sse42(~crc, data, len);
#endif
	return ~crc_portable(~crc, data, len);
}
