// SPDX-License-Identifier: MIT
/*
 * The codec; see codec.h. Every primitive ends in one of three moves: put
 * bytes, get bytes, or print a line.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/codec.h"

#define SCOPE_MAX 128

int buffer_reserve(struct buffer *buf, size_t cap)
{
	uint8_t *data;

	if (cap <= buf->cap)
		return 0;
	cap = MAX(cap, buf->cap * 2);
	data = realloc(buf->data, cap);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->cap = cap;
	return 0;
}

int buffer_append(struct buffer *buf, const void *data, size_t len)
{
	if (buffer_reserve(buf, buf->len + len))
		return -ENOMEM;
	if (len)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return 0;
}

void buffer_free(struct buffer *buf)
{
	free(buf->data);
	*buf = (struct buffer){ 0 };
}

static void codec_init(struct codec *c, enum codec_mode mode, uint32_t version)
{
	*c = (struct codec){ .mode = mode, .version = version };
}

void codec_init_save(struct codec *c, struct buffer *out, uint32_t version)
{
	codec_init(c, CODEC_SAVE, version);
	c->out = out;
}

void codec_init_load(struct codec *c, const void *data, size_t len,
		     uint32_t version)
{
	codec_init(c, CODEC_LOAD, version);
	c->in = data;
	c->in_len = len;
}

void codec_init_describe(struct codec *c, struct buffer *out, uint32_t version)
{
	codec_init(c, CODEC_DESCRIBE, version);
	c->out = out;
}

int codec_finish(struct codec *c, struct error *err)
{
	if (!c->code && codec_loading(c) && c->in_pos != c->in_len)
		codec_fail(c, -EBADMSG, "%zu bytes left over",
			   c->in_len - c->in_pos);
	if (c->code)
		*err = c->err;
	return c->code;
}

/* The names of what encloses a field, with dots between them. */
static void scope_text(const struct codec *c, char text[SCOPE_MAX])
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < c->depth && used < SCOPE_MAX; i++)
		used += (size_t)snprintf(text + used, SCOPE_MAX - used, "%s%s",
					 i ? "." : "", c->scope[i]);
}

void codec_fail(struct codec *c, int code, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX / 2];
	char scope[SCOPE_MAX];
	va_list ap;

	if (c->code)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	scope_text(c, scope);
	c->code = error_set(&c->err, code, "%s%s%s", scope,
			    scope[0] ? ": " : "", text);
}

void codec_enter(struct codec *c, const char *name)
{
	assert(c->depth < CODEC_DEPTH_MAX);
	c->scope[c->depth++] = name;
}

void codec_leave(struct codec *c)
{
	assert(c->depth);
	c->depth--;
}

static void put(struct codec *c, const void *data, size_t len)
{
	if (!c->code && buffer_append(c->out, data, len))
		codec_fail(c, -ENOMEM, "out of memory for the encoded state");
}

/* Take @len bytes; on failure @data is zeroed and the error stays. */
static bool take(struct codec *c, const char *name, void *data, size_t len)
{
	if (!c->code && c->in_len - c->in_pos < len)
		codec_fail(c, -ENODATA, "%s: truncated", name);
	if (c->code) {
		memset(data, 0, len);
		return false;
	}
	memcpy(data, c->in + c->in_pos, len);
	c->in_pos += len;
	return true;
}

static void print_field(struct codec *c, const char *name, const char *fmt,
			size_t width)
{
	char text[64];
	char scope[SCOPE_MAX];
	char line[256];
	int n;

	/* The formats are this file's own and take one size_t or none. */
	snprintf(text, sizeof(text), "%s", fmt);
	if (width)
		snprintf(text, sizeof(text), "%s[%zu]", fmt, width);
	scope_text(c, scope);
	n = snprintf(line, sizeof(line), "%s%s%s %s\n", scope,
		     scope[0] ? "." : "", name, text);
	put(c, line, (size_t)n);
}

/* A little-endian number of @width bytes held in the low bytes of @value. */
static void number(struct codec *c, const char *name, const char *type,
		   uint64_t *value, size_t width)
{
	uint64_t wire = htole64(*value);

	switch (c->mode) {
	case CODEC_SAVE:
		put(c, &wire, width);
		break;
	case CODEC_LOAD:
		wire = 0;
		take(c, name, &wire, width);
		*value = le64toh(wire);
		break;
	case CODEC_DESCRIBE:
		print_field(c, name, type, 0);
		break;
	}
}

void codec_u8(struct codec *c, const char *name, uint8_t *value)
{
	uint64_t wide = *value;

	number(c, name, "u8", &wide, 1);
	*value = (uint8_t)wide;
}

void codec_u16(struct codec *c, const char *name, uint16_t *value)
{
	uint64_t wide = *value;

	number(c, name, "u16", &wide, 2);
	*value = (uint16_t)wide;
}

void codec_u32(struct codec *c, const char *name, uint32_t *value)
{
	uint64_t wide = *value;

	number(c, name, "u32", &wide, 4);
	*value = (uint32_t)wide;
}

void codec_u64(struct codec *c, const char *name, uint64_t *value)
{
	number(c, name, "u64", value, 8);
}

void codec_s64(struct codec *c, const char *name, int64_t *value)
{
	uint64_t wide = (uint64_t)*value;

	number(c, name, "s64", &wide, 8);
	*value = (int64_t)wide;
}

void codec_bool(struct codec *c, const char *name, bool *value)
{
	/* What is there before a load need not even be a bool. */
	uint64_t wide = codec_loading(c) ? 0 : *value;

	number(c, name, "bool", &wide, 1);
	if (wide > 1)
		codec_fail(c, -EBADMSG, "%s: %u is neither 0 nor 1", name,
			   (unsigned int)wide);
	*value = wide == 1;
}

void codec_bytes(struct codec *c, const char *name, void *data, size_t len)
{
	switch (c->mode) {
	case CODEC_SAVE:
		put(c, data, len);
		break;
	case CODEC_LOAD:
		take(c, name, data, len);
		break;
	case CODEC_DESCRIBE:
		print_field(c, name, "bytes", len);
		break;
	}
}

void codec_count(struct codec *c, const char *name, uint32_t *count,
		 uint32_t max)
{
	uint64_t wide = *count;

	if (c->mode == CODEC_DESCRIBE) {
		print_field(c, name, "count", max);
		*count = 1;
		return;
	}
	number(c, name, "count", &wide, 4);
	if (wide > max) {
		codec_fail(c, -EBADMSG, "%s: %llu, at most %u are possible",
			   name, (unsigned long long)wide, max);
		wide = 0;
	}
	*count = (uint32_t)wide;
}

static void load_string(struct codec *c, const char *name, char *data,
			size_t cap)
{
	uint64_t len = 0;

	memset(data, 0, cap);
	number(c, name, "u16", &len, 2);
	if (len >= cap) {
		codec_fail(c, -EBADMSG, "%s: %llu bytes, at most %zu", name,
			   (unsigned long long)len, cap - 1);
		return;
	}
	if (take(c, name, data, len) && memchr(data, '\0', len))
		codec_fail(c, -EBADMSG, "%s: a NUL inside", name);
}

void codec_string(struct codec *c, const char *name, char *data, size_t cap)
{
	uint64_t len;

	switch (c->mode) {
	case CODEC_SAVE:
		len = strnlen(data, cap - 1);
		number(c, name, "u16", &len, 2);
		put(c, data, len);
		break;
	case CODEC_LOAD:
		load_string(c, name, data, cap);
		break;
	case CODEC_DESCRIBE:
		print_field(c, name, "string", cap - 1);
		break;
	}
}

void codec_blob(struct codec *c, const char *name, void *data, uint32_t *len,
		uint32_t max)
{
	uint64_t wide = *len;

	if (c->mode == CODEC_DESCRIBE) {
		print_field(c, name, "blob", max);
		return;
	}
	number(c, name, "u32", &wide, 4);
	if (wide > max) {
		codec_fail(c, -EBADMSG, "%s: %llu bytes, at most %u", name,
			   (unsigned long long)wide, max);
		wide = 0;
	}
	*len = (uint32_t)wide;
	if (codec_loading(c))
		take(c, name, data, *len);
	else
		put(c, data, *len);
}
