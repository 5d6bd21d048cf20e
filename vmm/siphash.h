/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF", and the 128-bit variant of its reference): whoever doesn't
 * have the key learns nothing from what it makes of messages.
 */
#ifndef GODWIT_SIPHASH_H
#define GODWIT_SIPHASH_H

#include "vmm/util.h"

#define SIPHASH_SIZE 16 /* of key, message and result, bytes */

/**
 * siphash() - of a message of exactly SIPHASH_SIZE bytes.
 */
void siphash(const uint8_t key[SIPHASH_SIZE],
	     const uint8_t message[SIPHASH_SIZE], uint8_t ret[SIPHASH_SIZE]);

#endif
