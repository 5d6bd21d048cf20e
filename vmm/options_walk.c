// SPDX-License-Identifier: MIT
/*
 * Walking a command line by a table; see options_internal.h. Accepts
 * `--name VALUE`, `--name=VALUE`, `-n VALUE` and `--`, in any order with the
 * other words.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "vmm/options_internal.h"

/* Longest word that is compared; longer ones are near to nothing. */
#define WORD_MAX 32

/* A typo is this many wrong keys at most. */
#define NEAR 2

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	return MIN(MIN(a, b), c);
}

/*
 * Insertions, deletions, replacements and swaps of neighbours that make @a of
 * @b: Damerau's distance, rows of a table of prefixes.
 */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int d[WORD_MAX + 1][WORD_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > WORD_MAX || lb > WORD_MAX)
		return WORD_MAX;
	for (unsigned int i = 0; i <= la; i++) {
		for (unsigned int j = 0; j <= lb; j++) {
			if (!i || !j) {
				d[i][j] = i + j;
				continue;
			}
			d[i][j] =
				min3(d[i - 1][j] + 1, d[i][j - 1] + 1,
				     d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[la][lb];
}

const char *options_nearest(const char *text, const char *const words[])
{
	const char *best = NULL;
	unsigned int least = NEAR + 1;

	for (; *words; words++) {
		unsigned int d = distance(text, *words);

		/* A word that is all typo is no typo. */
		if (d < least && d < strlen(*words)) {
			least = d;
			best = *words;
		}
	}
	return best;
}

static int refuse_unknown(const struct option_walk *walk, const char *text,
			  size_t len, struct error *err)
{
	const char *names[33] = { NULL };
	const char *near;
	char name[WORD_MAX + 1];
	size_t n = 0;

	for (size_t i = 0; i < walk->nspecs && n < 32; i++) {
		if (!walk->specs[i].absent)
			names[n++] = walk->specs[i].name;
	}
	if (len > WORD_MAX)
		len = WORD_MAX;
	memcpy(name, text, len);
	name[len] = '\0';
	near = options_nearest(name, names);
	if (near)
		return option_refuse(err,
				     "%s: no such option; did you mean %s?",
				     name, near);
	return option_refuse(err, "%s: no such option; see --help", name);
}

static const struct option_spec *find(const struct option_walk *walk,
				      const char *text, size_t len)
{
	for (size_t i = 0; i < walk->nspecs; i++) {
		const struct option_spec *spec = &walk->specs[i];

		if (strlen(spec->name) == len &&
		    !strncmp(spec->name, text, len))
			return spec;
		if (text[0] == '-' && len == 2 && spec->short_name &&
		    text[1] == spec->short_name)
			return spec;
	}
	return NULL;
}

/* "-vv" is "-v" twice. */
static bool is_cluster(const char *text, char short_name)
{
	size_t len = strlen(text);

	return len > 2 && text[0] == '-' && short_name &&
	       strspn(text + 1, (char[]){ short_name, '\0' }) == len - 1;
}

struct walker {
	const struct option_walk *walk;
	char *const *argv;
	uint32_t seen; /* a bit a spec */
	unsigned int nwords;
	bool only_words; /* after "--" */
};

static int take_cluster(struct walker *w, const char *text, void *opts,
			bool *ret_taken, struct error *err)
{
	*ret_taken = false;
	for (size_t i = 0; i < w->walk->nspecs; i++) {
		const struct option_spec *spec = &w->walk->specs[i];
		int rc = 0;

		if (spec->takes_value || !is_cluster(text, spec->short_name))
			continue;
		*ret_taken = true;
		for (size_t k = 1; k < strlen(text) && !rc; k++)
			rc = spec->parse(opts, NULL, err);
		return rc;
	}
	return 0;
}

static int check_use(struct walker *w, const struct option_spec *spec,
		     bool has_value, struct error *err)
{
	uint32_t bit = 1U << (spec - w->walk->specs);

	if (spec->absent)
		return option_refuse(err, "%s: not in this version of godwit%s",
				     spec->name, spec->absent);
	if ((w->seen & bit) && !spec->repeats)
		return option_refuse(err, "%s: given twice; give it once",
				     spec->name);
	w->seen |= bit;
	if (has_value && !spec->takes_value)
		return option_refuse(err, "%s: takes no value", spec->name);
	return 0;
}

static int take_option(struct walker *w, void *opts, struct error *err)
{
	const char *text = *w->argv++;
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : strlen(text);
	const struct option_spec *spec = find(w->walk, text, len);
	const char *value = equals ? equals + 1 : NULL;
	bool taken;
	int rc;

	if (!spec) {
		rc = take_cluster(w, text, opts, &taken, err);
		return taken ? rc : refuse_unknown(w->walk, text, len, err);
	}
	rc = check_use(w, spec, value, err);
	if (rc)
		return rc;
	if (spec->takes_value && !value) {
		if (!*w->argv)
			return option_refuse(err,
					     "%s: needs a value; see "
					     "--help",
					     spec->name);
		value = *w->argv++;
	}
	rc = spec->parse(opts, value, err);
	if (!rc || !strncmp(err->text, spec->name, strlen(spec->name)))
		return rc;
	if (value)
		error_prefix(err, "%s %.100s", spec->name,
			     *value ? value : "''");
	else
		error_prefix(err, "%s", spec->name);
	return rc;
}

static int take_word(struct walker *w, void *opts, struct error *err)
{
	const char *text = *w->argv++;
	const char *const *words = w->walk->words;
	unsigned int count = 0;

	while (words && words[count])
		count++;
	if (w->nwords == count && !w->walk->any_words)
		return option_refuse(err,
				     "'%.100s': one word too many; see "
				     "--help",
				     text);
	return w->walk->word(opts, w->nwords++, text, err);
}

/* "-" is a file, and "-1M" a number that somebody else refuses. */
static bool is_option(const char *text)
{
	return text[0] == '-' && text[1] && !isdigit((unsigned char)text[1]);
}

int option_walk(const struct option_walk *walk, char *const argv[], void *opts,
		struct error *err)
{
	struct walker w = { .walk = walk, .argv = argv };

	while (*w.argv) {
		const char *text = *w.argv;
		int rc;

		if (!w.only_words && !strcmp(text, "--")) {
			w.only_words = true;
			w.argv++;
			continue;
		}
		if (!w.only_words &&
		    (!strcmp(text, "--help") || !strcmp(text, "-h")))
			return OPTIONS_HELP;
		if (!w.only_words && is_option(text))
			rc = take_option(&w, opts, err);
		else
			rc = take_word(&w, opts, err);
		if (rc)
			return rc;
	}
	if (walk->words && walk->words[w.nwords] &&
	    (!walk->needed || w.nwords < walk->needed))
		return option_refuse(err, "%s is missing; see --help",
				     walk->words[w.nwords]);
	return 0;
}
