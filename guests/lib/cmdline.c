/* SPDX-License-Identifier: MIT */
/*
 * The command line: words, separated by spaces, of the form key=value. It is
 * copied first of all, before anyone allocates memory, since the loader may
 * have put it anywhere.
 *
 * A word that was asked for is marked; option_end() refuses what is left, and
 * so no guest needs a table of its options.
 */
#include "runtime.h"

#define CMDLINE_MAX 2048
#define WORDS_MAX   64

static char text[CMDLINE_MAX];

/* The same, with words ended by NUL, and where each begins. */
static char split[CMDLINE_MAX];
static const char *words[WORDS_MAX];
static bool claimed[WORDS_MAX];
static size_t word_count;

void cmdline_init(const struct hvm_start_info *info)
{
	const char *from = (const char *)info->cmdline_gpa;
	bool in_word = false;

	if (!from)
		return;
	for (size_t i = 0; i + 1 < CMDLINE_MAX && from[i]; i++) {
		text[i] = from[i];
		split[i] = from[i] == ' ' ? '\0' : from[i];
		if (from[i] != ' ' && !in_word && word_count < WORDS_MAX)
			words[word_count++] = &split[i];
		in_word = from[i] != ' ';
	}
}

const char *cmdline(void)
{
	return text;
}

/* The text after "key=", or NULL. The last one wins. */
static const char *find(const char *key)
{
	const char *value = NULL;
	size_t n = strlen(key);

	for (size_t i = 0; i < word_count; i++) {
		if (strlen(words[i]) <= n || words[i][n] != '=' ||
		    memcmp(words[i], key, n))
			continue;
		claimed[i] = true;
		value = words[i] + n + 1;
	}
	return value;
}

/* Value of a digit in any base up to 16, or 16. */
static unsigned int digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	return 16;
}

uint64_t option_number(const char *key, uint64_t fallback, uint64_t max)
{
	const char *s = find(key);
	unsigned int base = 10;
	uint64_t value = 0;

	if (!s)
		return fallback;
	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	if (!*s)
		guest_fail(VERDICT_USAGE, "%s=: no number\n", key);
	for (; *s; s++) {
		if (digit(*s) >= base || value > max / base)
			guest_fail(VERDICT_USAGE,
				   "%s=: not a number from 0 to %lu\n", key,
				   max);
		value = value * base + digit(*s);
	}
	if (value > max)
		guest_fail(VERDICT_USAGE, "%s=%lu: at most %lu\n", key, value,
			   max);
	return value;
}

unsigned int option_choice(const char *key, const char *const *names)
{
	const char *s = find(key);

	if (!s)
		return 0;
	for (unsigned int i = 0; names[i]; i++)
		if (!strcmp(s, names[i]))
			return i;
	guest_fail(VERDICT_USAGE, "%s=%s: no such choice\n", key, s);
}

void option_end(void)
{
	for (size_t i = 0; i < word_count; i++)
		if (!claimed[i])
			guest_fail(VERDICT_USAGE, "%s: unknown option\n",
				   words[i]);
}
