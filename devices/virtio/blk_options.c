// SPDX-License-Identifier: MIT
/*
 * A block device's options; blk.h says what there is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/blk.h"

static int bad(const char *option, struct error *err)
{
	return error_set(err, -EINVAL, "the block device's option '%.80s'",
			 option);
}

/* Return: what follows "@name=" in @option; NULL: that is another option. */
static const char *value_of(const char *option, const char *name)
{
	size_t len = strlen(name);

	return !strncmp(option, name, len) && option[len] == '='
		       ? option + len + 1
		       : NULL;
}

/* Decimal digits and nothing else. */
static bool number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return !errno && !*end && *ret <= max;
}

static bool text_fits(const char *text, char *buf, size_t size)
{
	size_t len = strlen(text);

	if (!len || len >= size)
		return false;
	for (const char *at = text; *at; at++) {
		if (*at < ' ' || *at > '~')
			return false;
	}
	memcpy(buf, text, len + 1);
	return true;
}

static bool parse_one(const char *option, struct blk_options *o)
{
	const char *value;
	uint64_t n;

	if (!strcmp(option, "readonly")) {
		o->readonly = true;
		return true;
	}
	value = value_of(option, "size");
	if (value)
		return number(value, INT64_MAX, &o->size) && o->size &&
		       !(o->size % DISK_SECTOR);
	value = value_of(option, "queues");
	if (value) {
		if (!number(value, BLK_QUEUES_MAX, &n) || !n)
			return false;
		o->queues = (uint32_t)n;
		return true;
	}
	value = value_of(option, "name");
	if (value)
		return text_fits(value, o->name, sizeof(o->name));
	value = value_of(option, "serial");
	if (value)
		return text_fits(value, o->serial, sizeof(o->serial));
	value = value_of(option, "werror");
	o->stop_on_error = value && !strcmp(value, "stop");
	return value && (o->stop_on_error || !strcmp(value, "report"));
}

/* Is there an option of the same name in @text before @at? */
static bool is_repeated(const char *text, const char *at, const char *option)
{
	size_t len = strcspn(option, "=");

	for (; text < at; text += strcspn(text, ",") + 1) {
		if (strcspn(text, "=,") == len && !strncmp(text, option, len))
			return true;
	}
	return false;
}

int blk_options_parse(const char *text, struct blk_options *ret,
		      struct error *err)
{
	char option[DEVICE_OPTIONS_MAX];
	const char *at = text;

	*ret = (struct blk_options){ .queues = 1 };
	while (*at) {
		size_t len = strcspn(at, ",");

		if (len >= sizeof(option))
			return bad(at, err);
		memcpy(option, at, len);
		option[len] = '\0';
		if (is_repeated(text, at, option) || !parse_one(option, ret))
			return bad(option, err);
		at += len;
		if (*at && !*++at)
			return bad(",", err);
	}
	return 0;
}
