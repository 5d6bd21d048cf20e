// SPDX-License-Identifier: MIT
/*
 * --disk, as `run` and `listen` have it: a path and what follows it, between
 * commas. A comma that belongs to the path is doubled, as QEMU does it.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "vmm/options_internal.h"
#include "vmm/units.h"

static const char *const run_words[] = { "id",	   "readonly", "direct",
					 "serial", "queues",   "vectors",
					 "werror", NULL };
static const char *const listen_words[] = { "direct", "serial", NULL };

/* What one piece of the text sets; bits, so that none is given twice. */
enum disk_word {
	WORD_ID,
	WORD_READONLY,
	WORD_DIRECT,
	WORD_SERIAL,
	WORD_QUEUES,
	WORD_VECTORS,
	WORD_WERROR,
};

const char *option_next_piece(const char *text, char *buf, size_t size,
			      int *ret_rc, struct error *err)
{
	size_t len = 0;

	*ret_rc = 0;
	for (; *text; text++) {
		if (*text == ',' && text[1] != ',')
			break;
		if (*text == ',')
			text++;
		if (len + 1 == size) {
			*ret_rc = option_refuse(err,
						"longer than %zu bytes between "
						"two commas",
						size - 1);
			return NULL;
		}
		buf[len++] = *text;
	}
	buf[len] = '\0';
	return *text ? text + 1 : NULL;
}

static int take_serial(const char *value, struct disk_options *disk,
		       struct error *err)
{
	size_t len = strlen(value);

	for (const char *at = value; *at; at++) {
		if (*at <= ' ' || *at > '~' || *at == ',' || *at == '=')
			return option_refuse(err,
					     "serial=%s: use letters, digits "
					     "and signs other than ',' and '='",
					     value);
	}
	if (!len || len >= sizeof(disk->serial))
		return option_refuse(err, "serial=%s: use 1 to %zu bytes",
				     value, sizeof(disk->serial) - 1);
	memcpy(disk->serial, value, len + 1);
	return 0;
}

static int take_count(const char *word, const char *value, uint64_t max,
		      uint32_t *ret, struct error *err)
{
	uint64_t n;
	int rc = units_count(value, 1, max, &n, err);

	if (rc) {
		error_prefix(err, "%s=%s", word, value);
		return rc;
	}
	*ret = (uint32_t)n;
	return 0;
}

/* A number that is out of range is refused for a reason of ours. */
static int take_vectors(const char *value, struct disk_options *disk,
			struct error *err)
{
	if (!take_count("vectors", value, DEVICE_VECTORS_MAX, &disk->vectors,
			err))
		return 0;
	return option_refuse(err,
			     "vectors=%s: give 1 to %d: a disk has one, and at "
			     "most %d a device are what any peer can hold",
			     value, DEVICE_VECTORS_MAX, DEVICE_VECTORS_MAX);
}

static int take_werror(const char *value, struct disk_options *disk,
		       struct error *err)
{
	if (!strcmp(value, "stop"))
		disk->werror_stop = true;
	else if (strcmp(value, "report") != 0)
		return option_refuse(err,
				     "werror=%s: give report (the guest is "
				     "told of the error) or stop (it is "
				     "paused)",
				     value);
	return 0;
}

static int take_id(const char *value, struct disk_options *disk,
		   struct error *err)
{
	int rc = machine_id_check(value, err);

	if (!rc)
		strcpy(disk->id, value);
	return rc;
}

static int take_word(enum disk_word word, const char *value,
		     struct disk_options *disk, struct error *err)
{
	switch (word) {
	case WORD_ID:
		return take_id(value, disk, err);
	case WORD_READONLY:
		disk->readonly = true;
		return 0;
	case WORD_DIRECT:
		disk->direct = true;
		return 0;
	case WORD_SERIAL:
		return take_serial(value, disk, err);
	case WORD_QUEUES:
		return take_count("queues", value, DISK_QUEUES_MAX,
				  &disk->queues, err);
	case WORD_VECTORS:
		return take_vectors(value, disk, err);
	case WORD_WERROR:
		return take_werror(value, disk, err);
	}
	return -EINVAL;
}

static bool is_flag(enum disk_word word)
{
	return word == WORD_READONLY || word == WORD_DIRECT;
}

static int refuse_word(const char *word, const char *const words[],
		       struct error *err)
{
	const char *near = options_nearest(word, words);

	if (near)
		return option_refuse(err,
				     "'%s': no such word; did you mean "
				     "%s?",
				     word, near);
	return option_refuse(
		err, "'%s': no such word; a comma in a path is doubled", word);
}

static int take_piece(char *piece, const char *const words[],
		      struct disk_options *disk, unsigned int *seen,
		      struct error *err)
{
	char *value = strchr(piece, '=');
	enum disk_word word = WORD_ID;
	size_t i = 0;

	if (value)
		*value++ = '\0';
	while (words[i] && strcmp(words[i], piece) != 0)
		i++;
	if (!words[i])
		return refuse_word(piece, words, err);
	while (strcmp(run_words[word], piece) != 0)
		word++;
	if (*seen & 1U << word)
		return option_refuse(err, "%s: given twice; give it once",
				     piece);
	*seen |= 1U << word;
	/* So that it says which there are. */
	if (word == WORD_WERROR && !value)
		value = piece + strlen(piece);
	if (is_flag(word) && value)
		return option_refuse(err, "%s: takes no value", piece);
	if (!is_flag(word) && !value)
		return option_refuse(err, "%s: needs a value, like %s=…", piece,
				     piece);
	return take_word(word, value, disk, err);
}

static int parse(const char *text, const char *const words[],
		 struct disk_options *disk, struct error *err)
{
	unsigned int seen = 0;
	char piece[80];
	int rc;

	text = option_next_piece(text, disk->path, sizeof(disk->path), &rc,
				 err);
	if (!rc && !disk->path[0])
		return option_refuse(err, "the path is empty");
	while (!rc && text) {
		text = option_next_piece(text, piece, sizeof(piece), &rc, err);
		if (!rc)
			rc = take_piece(piece, words, disk, &seen, err);
	}
	return rc;
}

int option_disk_run(const char *text, struct disk_options *ret,
		    struct error *err)
{
	int rc;

	*ret = (struct disk_options){ .queues = 1 };
	rc = parse(text, run_words, ret, err);
	if (rc)
		return rc;
	if (ret->readonly && ret->werror_stop)
		return option_refuse(err,
				     "readonly and werror=stop: nothing is "
				     "written, so no write can fail; leave one "
				     "of them out");
	if (!ret->vectors)
		ret->vectors = ret->queues + 1;
	return 0;
}

int option_disk_listen(const char *text, struct disk_options *ret,
		       struct error *err)
{
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : 0;
	int rc;

	*ret = (struct disk_options){ .queues = 1 };
	if (!equals || len >= sizeof(ret->id))
		return option_refuse(err,
				     "give the disk's id and its path here, "
				     "like disk0=/dev/vg/guest");
	memcpy(ret->id, text, len);
	rc = machine_id_check(ret->id, err);
	if (rc)
		return rc;
	return parse(equals + 1, listen_words, ret, err);
}
