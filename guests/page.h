/* SPDX-License-Identifier: MIT */
/*
 * The content of a page that the dirty guest has written, so that both the
 * guest and a test that reads the guest's memory can verify it.
 *
 *   offset 0   page number
 *          8   pass that wrote the body
 *         16   checksum: see below
 *         24   the word that touch=word writes: stamp(page, pass)
 *         32   body: 508 words; word i is stamp(page, pass) + (i + 4) * STEP
 *
 * All words are 64 bits, little endian, and sums are modulo 2^64. The checksum
 * is the sum of the words of the body, plus page and pass times PRIME: it lets
 * someone who does not know the pass find out whether the page is whole.
 *
 * These functions use vector registers: ring 3 only.
 */
#ifndef GUEST_PAGE_H
#define GUEST_PAGE_H

#include <stdbool.h>
#include <stdint.h>

/* What is wrong with a page. */
struct page_fault {
	uint64_t page, pass;
	uint64_t offset; /* bytes, of the first wrong word */
	uint64_t expected, got;
};

/**
 * page_write - write a whole page
 * @page: where, page aligned
 * @index: its number
 * @pass: of the body
 * @word_pass: of the word at 24
 */
void page_write(void *page, uint64_t index, uint64_t pass, uint64_t word_pass);

/**
 * page_verify - compare every byte with what page_write() has written
 *
 * Return: false, and what is wrong, when it differs.
 */
bool page_verify(const void *page, uint64_t index, uint64_t pass,
		 uint64_t word_pass, struct page_fault *ret_fault);

bool page_verify_zero(const void *page, uint64_t index,
		      struct page_fault *ret_fault);

/* The word at 24 alone. */
void page_write_word(void *page, uint64_t index, uint64_t pass);
bool page_verify_word(const void *page, uint64_t index, uint64_t pass,
		      struct page_fault *ret_fault);

#endif
