// SPDX-License-Identifier: MIT
/*
 * SipHash, for one length of message; see siphash.h. Names of variables and
 * constants are those of the paper, section 2.
 */
#include <endian.h>
#include <string.h>

#include "vmm/siphash.h"

struct sip {
	uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, unsigned int by)
{
	return x << by | x >> (64 - by);
}

static void rounds(struct sip *s, unsigned int n)
{
	for (; n; n--) {
		s->v0 += s->v1;
		s->v2 += s->v3;
		s->v1 = rotate(s->v1, 13) ^ s->v0;
		s->v3 = rotate(s->v3, 16) ^ s->v2;
		s->v0 = rotate(s->v0, 32) + s->v3;
		s->v2 += s->v1;
		s->v1 = rotate(s->v1, 17) ^ s->v2;
		s->v3 = rotate(s->v3, 21) ^ s->v0;
		s->v2 = rotate(s->v2, 32);
	}
}

static void compress(struct sip *s, uint64_t m)
{
	s->v3 ^= m;
	rounds(s, 2);
	s->v0 ^= m;
}

static uint64_t word(const uint8_t *at)
{
	uint64_t w;

	memcpy(&w, at, sizeof(w));
	return le64toh(w);
}

static void put_xor(const struct sip *s, uint8_t *at)
{
	uint64_t w = htole64(s->v0 ^ s->v1 ^ s->v2 ^ s->v3);

	memcpy(at, &w, sizeof(w));
}

void siphash(const uint8_t key[SIPHASH_SIZE],
	     const uint8_t message[SIPHASH_SIZE], uint8_t ret[SIPHASH_SIZE])
{
	uint64_t k0 = word(key);
	uint64_t k1 = word(key + 8);
	struct sip s = {
		.v0 = k0 ^ 0x736f6d6570736575ULL,
		.v1 = k1 ^ 0x646f72616e646f6dULL ^ 0xee,
		.v2 = k0 ^ 0x6c7967656e657261ULL,
		.v3 = k1 ^ 0x7465646279746573ULL,
	};

	compress(&s, word(message));
	compress(&s, word(message + 8));
	/* The last word has the length in its top byte. */
	compress(&s, (uint64_t)SIPHASH_SIZE << 56);
	s.v2 ^= 0xee;
	rounds(&s, 4);
	put_xor(&s, ret);
	s.v1 ^= 0xdd;
	rounds(&s, 4);
	put_xor(&s, ret + 8);
}
