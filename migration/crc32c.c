// SPDX-License-Identifier: MIT
/*
 * CRC32C (RFC 3720, appendix B.4): the processor's instruction where there is
 * one, else bit by bit: records' checksums cover metadata and state, never page
 * data, so the slow path is short everywhere.
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
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_sse42(~crc, data, len);
#endif
	return ~crc_portable(~crc, data, len);
}
