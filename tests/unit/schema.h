/* SPDX-License-Identifier: MIT */
/*
 * Sections by their schema: the text that a visit function prints in DESCRIBE
 * mode (codec.h) is enough to walk through an encoded section field by field,
 * and to make one up.
 *
 *	schema_walk(&schema, data, len, field, opaque)
 *	schema_make(&schema, &ret_encoded)
 *
 * Elements of a counted array are the lines behind the count whose path has
 * the same front as the first of them.
 */
#ifndef GODWIT_TESTS_SCHEMA_H
#define GODWIT_TESTS_SCHEMA_H

#include <check.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "migration/codec.h"

struct schema_line {
	char path[96];
	char width[16]; /* "u8", "bytes", "count", … */
	uint32_t size;	/* of bytes, blob, string: at most; of a number: its */
};

#define SCHEMA_LINES_MAX 1024

struct schema {
	unsigned int nlines;
	struct schema_line lines[SCHEMA_LINES_MAX];
};

static inline void schema_parse_line(const char *text, struct schema_line *line)
{
	static const struct {
		const char *width;
		uint32_t size;
	} numbers[] = { { "u8", 1 },  { "bool", 1 }, { "u16", 2 },
			{ "u32", 4 }, { "u64", 8 },  { "s64", 8 } };
	char width[32];

	line->size = 0;
	ck_assert_int_eq(sscanf(text, "%95s %31s", line->path, width), 2);
	sscanf(width, "%15[a-z0-9][%u]", line->width, &line->size);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (!strcmp(width, numbers[i].width))
			line->size = numbers[i].size;
	}
	ck_assert_msg(line->size, "a width that is new: %s", text);
}

/* Take the description of one section. */
static inline void schema_parse(struct schema *schema,
				const struct buffer *text)
{
	char *copy = strndup((const char *)text->data, text->len);
	char *state = NULL;

	schema->nlines = 0;
	for (char *line = strtok_r(copy, "\n", &state); line;
	     line = strtok_r(NULL, "\n", &state)) {
		ck_assert_uint_lt(schema->nlines, SCHEMA_LINES_MAX);
		schema_parse_line(line, &schema->lines[schema->nlines++]);
	}
	free(copy);
}

/* How long the path's front is: all up to the last dot. */
static inline size_t schema_front(const struct schema_line *line)
{
	const char *dot = strrchr(line->path, '.');

	return dot ? (size_t)(dot - line->path) : 0;
}

/* The lines of one element of the array that line @count counts. */
static inline unsigned int schema_element(const struct schema *schema,
					  unsigned int count)
{
	const struct schema_line *first = &schema->lines[count + 1];
	unsigned int n = 1;
	size_t front;

	ck_assert_uint_lt(count + 1, schema->nlines);
	front = schema_front(first);
	while (count + 1 + n < schema->nlines &&
	       schema_front(&first[n]) == front &&
	       !memcmp(first[n].path, first->path, front))
		n++;
	return n;
}

/* A field of a section: @at bytes from its beginning, @len long. */
typedef void schema_field_fn(void *opaque, const struct schema_line *line,
			     size_t at, size_t len);

struct schema_walk {
	const struct schema *schema;
	const uint8_t *data;
	size_t len;
	size_t at;
	schema_field_fn *field;
	void *opaque;
};

static inline uint32_t schema_number(const struct schema_walk *w, size_t size)
{
	uint32_t value = 0;

	ck_assert_uint_le(w->at + size, w->len);
	for (size_t i = 0; i < size; i++)
		value |= (uint32_t)w->data[w->at + i] << (8 * i);
	return value;
}

static inline void schema_walk_lines(struct schema_walk *w, unsigned int first,
				     unsigned int n);

/* Return: how many lines that was. */
static inline unsigned int schema_walk_line(struct schema_walk *w,
					    unsigned int index)
{
	const struct schema_line *line = &w->schema->lines[index];
	size_t start = w->at;
	size_t len = line->size;
	uint32_t count;

	if (!strcmp(line->width, "count")) {
		unsigned int n = schema_element(w->schema, index);

		count = schema_number(w, 4);
		w->at += 4;
		w->field(w->opaque, line, start, 4);
		while (count--)
			schema_walk_lines(w, index + 1, n);
		return 1 + n;
	}
	if (!strcmp(line->width, "blob"))
		len = 4 + schema_number(w, 4);
	if (!strcmp(line->width, "string"))
		len = 2 + schema_number(w, 2);
	w->at += len;
	ck_assert_uint_le(w->at, w->len);
	w->field(w->opaque, line, start, len);
	return 1;
}

static inline void schema_walk_lines(struct schema_walk *w, unsigned int first,
				     unsigned int n)
{
	for (unsigned int i = 0; i < n;)
		i += schema_walk_line(w, first + i);
}

/* Call @field for every field of an encoded section. */
static inline void schema_walk(const struct schema *schema, const void *data,
			       size_t len, schema_field_fn *field, void *opaque)
{
	struct schema_walk w = { schema, data, len, 0, field, opaque };

	schema_walk_lines(&w, 0, schema->nlines);
	ck_assert_uint_eq(w.at, w.len);
}

static inline void schema_put(struct buffer *out, uint64_t value, size_t size)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	ck_assert(!buffer_append(out, bytes, size));
}

/* Never 0 and never the same twice in a row. */
static inline void schema_put_noise(struct buffer *out, uint32_t *state,
				    size_t len)
{
	while (len--) {
		*state = *state * 1664525 + 1013904223;
		schema_put(out, 1 + (*state >> 24) % 255, 1);
	}
}

static inline void schema_make_lines(const struct schema *schema,
				     unsigned int first, unsigned int n,
				     uint32_t *state, struct buffer *out)
{
	for (unsigned int i = first; i < first + n; i++) {
		const struct schema_line *line = &schema->lines[i];

		if (!strcmp(line->width, "count")) {
			unsigned int each = schema_element(schema, i);

			schema_put(out, line->size, 4);
			for (uint32_t j = 0; j < line->size; j++)
				schema_make_lines(schema, i + 1, each, state,
						  out);
			i += each;
			continue;
		}
		if (!strcmp(line->width, "blob"))
			schema_put(out, line->size, 4);
		if (!strcmp(line->width, "string"))
			schema_put(out, line->size, 2);
		if (!strcmp(line->width, "bool"))
			schema_put(out, 1, 1);
		else
			schema_put_noise(out, state, line->size);
	}
}

/* A section with every field filled to the brim, no byte of data zero. */
static inline void schema_make(const struct schema *schema, struct buffer *out)
{
	uint32_t state = 1;

	schema_make_lines(schema, 0, schema->nlines, &state, out);
}

#endif
