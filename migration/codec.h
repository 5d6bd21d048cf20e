/* SPDX-License-Identifier: MIT */
/*
 * One description of a structure, three uses.
 *
 * A visit function names each field of a plain struct once, in wire order.
 * Run in SAVE mode it appends the fields to a buffer, in LOAD mode it fills
 * the struct from bytes, in DESCRIBE mode it prints each field's name and
 * width, which is the schema that the compatibility test compares.
 *
 * Numbers are little-endian and unpadded. Errors are sticky: after the first
 * one every call does nothing, loaded fields are zero, and codec_finish()
 * tells. A loader never trusts a length: counts and blobs are capped by what
 * the caller can hold. This room knows nothing of VMs.
 *
 * Threads: a codec belongs to one thread.
 */
#ifndef GODWIT_CODEC_H
#define GODWIT_CODEC_H

#include "vmm/error.h"

enum codec_mode {
	CODEC_SAVE,
	CODEC_LOAD,
	CODEC_DESCRIBE,
};

/*
 * A growing byte buffer. Zero-initialised is empty. buffer_reserve() ahead of
 * time keeps allocation out of the pause.
 */
struct buffer {
	uint8_t *data;
	size_t len;
	size_t cap;
};

/**
 * buffer_reserve() - make room for @cap bytes in all.
 *
 * Return: 0 or -ENOMEM.
 */
int __must_check buffer_reserve(struct buffer *buf, size_t cap);

/**
 * buffer_append() - add @len bytes at the end.
 *
 * Return: 0 or -ENOMEM.
 */
int __must_check buffer_append(struct buffer *buf, const void *data,
			       size_t len);

/**
 * buffer_free() - give the memory back; the buffer is then empty.
 */
void buffer_free(struct buffer *buf);

#define CODEC_DEPTH_MAX 8

struct codec {
	enum codec_mode mode;
	uint32_t version; /* of the section: visit functions may branch on it */
	struct buffer *out; /* SAVE: wire bytes; DESCRIBE: text */
	const uint8_t *in;  /* LOAD */
	size_t in_len;
	size_t in_pos;
	const char *scope[CODEC_DEPTH_MAX]; /* of the codec_enter()s */
	uint32_t depth;
	int code; /* 0, or the first error */
	struct error err;
};

/**
 * codec_init_save() - start appending to @out, at @version of the section.
 */
void codec_init_save(struct codec *c, struct buffer *out, uint32_t version);

/**
 * codec_init_load() - start reading @len bytes at @data, which must outlive
 * the codec.
 */
void codec_init_load(struct codec *c, const void *data, size_t len,
		     uint32_t version);

/**
 * codec_init_describe() - start printing the schema into @out as text, one
 * field a line: "path width".
 */
void codec_init_describe(struct codec *c, struct buffer *out, uint32_t version);

/**
 * codec_finish() - end a visit.
 *
 * In LOAD mode bytes left over are an error: a section says exactly what it
 * holds.
 *
 * Return: 0, -ENODATA (truncated), -EBADMSG (left over or out of range),
 * -ENOMEM; @err names the field.
 */
int __must_check codec_finish(struct codec *c, struct error *err);

/**
 * codec_loading() - true while a struct is being filled.
 */
static inline bool codec_loading(const struct codec *c)
{
	return c->mode == CODEC_LOAD;
}

/**
 * codec_fail() - a visit function found a value it can't take.
 */
void codec_fail(struct codec *c, int code, const char *fmt, ...) __printf(3, 4);

/**
 * codec_enter() / codec_leave() - name a nested struct or array element.
 * @name: stays there until it is left, or the codec is done with.
 */
void codec_enter(struct codec *c, const char *name);
void codec_leave(struct codec *c);

void codec_u8(struct codec *c, const char *name, uint8_t *value);
void codec_u16(struct codec *c, const char *name, uint16_t *value);
void codec_u32(struct codec *c, const char *name, uint32_t *value);
void codec_u64(struct codec *c, const char *name, uint64_t *value);
void codec_s64(struct codec *c, const char *name, int64_t *value);

/**
 * codec_bool() - one byte, 0 or 1; anything else is an error when loading.
 */
void codec_bool(struct codec *c, const char *name, bool *value);

/**
 * codec_bytes() - exactly @len bytes.
 */
void codec_bytes(struct codec *c, const char *name, void *data, size_t len);

/**
 * codec_count() - a u32 that counts array elements, at most @max.
 *
 * In DESCRIBE mode *@count is set to 1 so that the element's fields are
 * printed once.
 */
void codec_count(struct codec *c, const char *name, uint32_t *count,
		 uint32_t max);

/**
 * codec_string() - a u16 length and so many bytes, no NUL inside; @data is a
 * NUL-terminated array of @cap bytes.
 */
void codec_string(struct codec *c, const char *name, char *data, size_t cap);

/**
 * codec_blob() - a u32 length, at most @max, and so many bytes into @data,
 * which has room for @max.
 */
void codec_blob(struct codec *c, const char *name, void *data, uint32_t *len,
		uint32_t max);

/**
 * crc32c() - CRC32C (Castagnoli) of @len bytes, continuing from @crc; start
 * with 0. RFC 3720, appendix B.4.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#define CRC32C_LANES 4

/**
 * crc32c_lanes() - the bare register, without the inversions before and after,
 * of several buffers at once, which is several times as fast.
 * @crc: of each, before and after.
 * @len: of each, a multiple of 8.
 */
void crc32c_lanes(uint32_t crc[CRC32C_LANES],
		  const void *const data[CRC32C_LANES], size_t len);

#endif
