/* SPDX-License-Identifier: MIT */
/*
 * Digests of guest memory: what `--verify` compares (FORMAT.md, Verification).
 *
 * Memory is cut into chunks of 2 MiB, numbered through all regions; a chunk's
 * digest is the CRC32C of its bytes. Pages that were never touched are zero and
 * are not read, so that hashing populates nothing and a big empty guest costs
 * little. The rest is read by all processors that we may use: helpers are
 * started with the digest and wait, so that nothing is made in the pause.
 *
 * Threads: one, which is helped; memory must not change meanwhile.
 */
#ifndef GODWIT_DIGEST_H
#define GODWIT_DIGEST_H

#include "vmm/memory.h"
#include "vmm/sandbox.h"

#define DIGEST_CHUNK (2 * MIB)

struct digest;

/**
 * digest_create() - get ready to digest @mem.
 * @pagemap_fd: /proc/self/pagemap; -1: all of memory is read.
 * @sandbox: what helpers are confined by; NULL: nothing.
 *
 * Helpers that can't be had only make it slower.
 */
int __must_check digest_create(const struct memory *mem, int pagemap_fd,
			       const struct sandbox *sandbox,
			       struct digest **ret, struct error *err);

/**
 * digest_free() - end the helpers and free; NULL is fine.
 */
void digest_free(struct digest *digest);

/**
 * digest_begin() - memory changes no more: see which of it was ever touched.
 */
void digest_begin(struct digest *digest);

/**
 * digest_leave_out() - after digest_begin(): take pages for zero, whatever is
 * in them.
 * @pages: a bit a page index.
 */
void digest_leave_out(struct digest *digest, const uint64_t *pages);

/**
 * digest_chunks() - how many chunks memory has.
 */
uint32_t digest_chunks(const struct digest *digest);

/**
 * digest_take() - the digests of @n chunks from @first on, after
 * digest_begin().
 */
void digest_take(struct digest *digest, uint32_t first, uint32_t n,
		 uint32_t *ret);

/**
 * digest_range() - which guest memory a chunk is: @ret_gpa up to and with
 * @ret_last.
 */
void digest_range(const struct digest *digest, uint32_t chunk,
		  uint64_t *ret_gpa, uint64_t *ret_last);

#endif
