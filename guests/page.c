/* SPDX-License-Identifier: MIT */
/*
 * The pattern of a page: page.h says what it is. The loops work on two words
 * at a time, in a way that the compiler turns into SSE2, since the speed of
 * this file is the highest rate at which the guest can dirty memory.
 */
#include "lib/guest.h"
#include "page.h"

#define STEP   0x9e3779b97f4a7c15UL
#define PRIME  0xd6e8feb86659fd93UL
#define WORDS  512UL
#define HEADER 4UL

typedef uint64_t pair __attribute__((vector_size(16), may_alias));

static uint64_t stamp(uint64_t index, uint64_t pass)
{
	uint64_t x = index * PRIME + pass * STEP + 1;

	x ^= x >> 32;
	x *= PRIME;
	x ^= x >> 29;
	/* Odd, so that no page of ours is all zeros. */
	return x | 1;
}

/* The sum of an arithmetic series, and what identifies the page. */
static uint64_t checksum(uint64_t seed, uint64_t index, uint64_t pass)
{
	const uint64_t n = WORDS - HEADER;
	const uint64_t steps = (HEADER + WORDS - 1) * n / 2;

	return n * seed + steps * STEP + (index + pass) * PRIME;
}

void page_write(void *page, uint64_t index, uint64_t pass, uint64_t word_pass)
{
	uint64_t seed = stamp(index, pass);
	uint64_t *word = page;
	pair *out = page;
	pair value = { seed + HEADER * STEP, seed + (HEADER + 1) * STEP };
	const pair step = { 2 * STEP, 2 * STEP };

	word[0] = index;
	word[1] = pass;
	word[2] = checksum(seed, index, pass);
	word[3] = stamp(index, word_pass);
	for (size_t i = HEADER / 2; i < WORDS / 2; i += 2) {
		out[i] = value;
		value += step;
		out[i + 1] = value;
		value += step;
	}
}

static bool word_is(const uint64_t *word, size_t i, uint64_t expected,
		    struct page_fault *ret_fault)
{
	/* Once: another look might see another value. */
	uint64_t got = *(const volatile uint64_t *)&word[i];

	ret_fault->offset = i * sizeof(*word);
	ret_fault->expected = expected;
	ret_fault->got = got;
	return got == expected;
}

/* Finds the wrong word of a body that is known to have one. */
static bool find_fault(const uint64_t *word, uint64_t seed,
		       struct page_fault *ret_fault)
{
	for (size_t i = HEADER; i < WORDS; i++)
		if (!word_is(word, i, seed + i * STEP, ret_fault))
			return false;
	/* It was wrong a moment ago: no less a fault. */
	ret_fault->offset = PAGE_SIZE;
	return false;
}

bool page_verify(const void *page, uint64_t index, uint64_t pass,
		 uint64_t word_pass, struct page_fault *ret_fault)
{
	uint64_t seed = stamp(index, pass);
	const uint64_t *word = page;
	const pair *in = page;
	pair value = { seed + HEADER * STEP, seed + (HEADER + 1) * STEP };
	const pair step = { 2 * STEP, 2 * STEP };
	pair differ0 = { 0, 0 }, differ1 = { 0, 0 };

	ret_fault->page = index;
	ret_fault->pass = pass;
	if (!word_is(word, 0, index, ret_fault) ||
	    !word_is(word, 1, pass, ret_fault) ||
	    !word_is(word, 2, checksum(seed, index, pass), ret_fault) ||
	    !word_is(word, 3, stamp(index, word_pass), ret_fault))
		return false;
	for (size_t i = HEADER / 2; i < WORDS / 2; i += 2) {
		differ0 |= in[i] ^ value;
		value += step;
		differ1 |= in[i + 1] ^ value;
		value += step;
	}
	differ0 |= differ1;
	return !(differ0[0] | differ0[1]) || find_fault(word, seed, ret_fault);
}

bool page_verify_zero(const void *page, uint64_t index,
		      struct page_fault *ret_fault)
{
	const uint64_t *word = page;

	ret_fault->page = index;
	ret_fault->pass = 0;
	for (size_t i = 0; i < WORDS; i++)
		if (!word_is(word, i, 0, ret_fault))
			return false;
	return true;
}

void page_write_word(void *page, uint64_t index, uint64_t pass)
{
	((volatile uint64_t *)page)[3] = stamp(index, pass);
}

bool page_verify_word(const void *page, uint64_t index, uint64_t pass,
		      struct page_fault *ret_fault)
{
	ret_fault->page = index;
	ret_fault->pass = pass;
	return word_is(page, 3, stamp(index, pass), ret_fault);
}
