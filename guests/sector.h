/* SPDX-License-Identifier: MIT */
/*
 * What the blk guest keeps on a disk, so that both the guest and a test that
 * reads the image can verify it: every sector says what it is, when it was
 * written and whether it is whole.
 *
 *   offset 0   sector number
 *          8   pass that wrote it
 *         16   seed of the guest that wrote it
 *         24   checksum: see below
 *         32   body: 60 words; word i is stamp(sector, pass, seed) + i * STEP
 *
 * All words are 64 bits, little endian, and sums are modulo 2^64. The checksum
 * is the sum of the words of the body, plus sector, pass and seed times PRIME:
 * it lets someone who does not know the pass find out whether the sector is
 * whole.
 */
#ifndef GUEST_SECTOR_H
#define GUEST_SECTOR_H

#include <stdbool.h>
#include <stdint.h>

#define SECTOR_SIZE 512UL

/* Whose sector it is. */
struct sector_id {
	uint64_t sector, pass, seed;
};

/* What is wrong with a sector. */
struct sector_fault {
	uint64_t offset; /* bytes, of the first wrong word */
	uint64_t expected, got;
};

void sector_write(void *data, const struct sector_id *id);

/**
 * sector_verify - compare every byte with what sector_write() has written
 *
 * Return: false, and what is wrong, when it differs.
 */
bool sector_verify(const void *data, const struct sector_id *id,
		   struct sector_fault *ret_fault);

bool sector_verify_zero(const void *data, struct sector_fault *ret_fault);

#endif
