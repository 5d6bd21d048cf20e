// SPDX-License-Identifier: MIT
/*
 * The codec: what goes in comes out, and what is cut, flipped or too long is
 * refused without harm.
 */
#include <errno.h>
#include <string.h>

#include "migration/codec.h"
#include "tests/unit/unit.h"

struct sample {
	uint8_t byte;
	uint16_t half;
	uint32_t word;
	uint64_t wide;
	int64_t sign;
	bool flag;
	char text[12];
	uint8_t raw[5];
	uint32_t count;
	uint16_t items[4];
	uint32_t blob_len;
	uint8_t blob[16];
};

static void sample_visit(struct codec *c, struct sample *s)
{
	codec_u8(c, "byte", &s->byte);
	codec_u16(c, "half", &s->half);
	codec_u32(c, "word", &s->word);
	codec_u64(c, "wide", &s->wide);
	codec_s64(c, "sign", &s->sign);
	codec_bool(c, "flag", &s->flag);
	codec_string(c, "text", s->text, sizeof(s->text));
	codec_bytes(c, "raw", s->raw, sizeof(s->raw));
	codec_count(c, "items", &s->count, ARRAY_SIZE(s->items));
	codec_enter(c, "item");
	for (uint32_t i = 0; i < s->count; i++)
		codec_u16(c, "value", &s->items[i]);
	codec_leave(c);
	codec_blob(c, "blob", s->blob, &s->blob_len, sizeof(s->blob));
}

static const struct sample full = {
	.byte = 0xa1,
	.half = 0xb2b1,
	.word = 0xc4c3c2c1,
	.wide = 0xd8d7d6d5d4d3d2d1,
	.sign = -5,
	.flag = true,
	.text = "eleven char",
	.raw = { 1, 2, 3, 4, 5 },
	.count = 3,
	.items = { 0x1111, 0x2222, 0x3333 },
	.blob_len = 7,
	.blob = { 9, 8, 7, 6, 5, 4, 3 },
};

static void save(struct buffer *out)
{
	struct sample copy = full;
	struct codec c;
	struct error err;

	codec_init_save(&c, out, 1);
	sample_visit(&c, &copy);
	ck_assert(!codec_finish(&c, &err));
}

static int load(const void *data, size_t len, struct sample *ret,
		struct error *err)
{
	struct codec c;

	memset(ret, 0, sizeof(*ret));
	codec_init_load(&c, data, len, 1);
	sample_visit(&c, ret);
	return codec_finish(&c, err);
}

START_TEST(every_kind_of_field_comes_back_as_it_was)
{
	struct buffer buf = { 0 };
	struct sample back;
	struct error err;

	save(&buf);
	ck_assert_msg(!load(buf.data, buf.len, &back, &err), "%s", err.text);
	ck_assert(!memcmp(&back, &full, sizeof(full)));
	buffer_free(&buf);
}
END_TEST

START_TEST(numbers_are_little_endian_and_unpadded)
{
	static const uint8_t front[] = { 0xa1, 0xb1, 0xb2, 0xc1, 0xc2,
					 0xc3, 0xc4, 0xd1, 0xd2 };
	struct buffer buf = { 0 };

	save(&buf);
	ck_assert(!memcmp(buf.data, front, sizeof(front)));
	ck_assert_uint_eq(buf.len, 1 + 2 + 4 + 8 + 8 + 1 + (2 + 11) + 5 +
					   (4 + 3 * 2) + (4 + 7));
	buffer_free(&buf);
}
END_TEST

START_TEST(a_cut_at_any_byte_is_found)
{
	struct buffer buf = { 0 };
	struct sample back;
	struct error err;

	save(&buf);
	for (size_t len = 0; len < buf.len; len++) {
		/* Exactly so much memory, so that ASan sees a read beyond. */
		uint8_t *cut = malloc(len ? len : 1);

		memcpy(cut, buf.data, len);
		ck_assert_int_eq(load(cut, len, &back, &err), -ENODATA);
		free(cut);
	}
	buffer_free(&buf);
}
END_TEST

START_TEST(bytes_left_over_are_found)
{
	struct buffer buf = { 0 };
	struct sample back;
	struct error err;

	save(&buf);
	ck_assert(!buffer_append(&buf, "", 1));
	ck_assert_int_eq(load(buf.data, buf.len, &back, &err), -EBADMSG);
	buffer_free(&buf);
}
END_TEST

START_TEST(no_flipped_bit_does_harm)
{
	struct buffer buf = { 0 };
	struct sample back;
	struct error err;

	save(&buf);
	for (size_t bit = 0; bit < buf.len * 8; bit++) {
		buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		/* Another value, or refused; and never out of bounds. */
		if (!load(buf.data, buf.len, &back, &err)) {
			ck_assert(memcmp(&back, &full, sizeof(full)));
			ck_assert_uint_le(back.count, ARRAY_SIZE(back.items));
			ck_assert_uint_le(back.blob_len, sizeof(back.blob));
			ck_assert_uint_lt(strlen(back.text), sizeof(back.text));
		}
		buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	buffer_free(&buf);
}
END_TEST

START_TEST(values_out_of_range_are_refused_by_name)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *says;
	} bad[] = {
		{ 23, 2, "flag" },  /* neither 0 nor 1 */
		{ 24, 12, "text" }, /* no room for the NUL */
		{ 26, 0, "text" },  /* a NUL inside */
		{ 42, 5, "items" }, /* four are possible */
		{ 52, 17, "blob" }, /* sixteen are */
	};
	struct buffer buf = { 0 };
	struct sample back;
	struct error err;

	save(&buf);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t good = buf.data[bad[i].at];

		buf.data[bad[i].at] = bad[i].value;
		ck_assert_int_eq(load(buf.data, buf.len, &back, &err),
				 -EBADMSG);
		ck_assert_msg(strstr(err.text, bad[i].says), "%s", err.text);
		buf.data[bad[i].at] = good;
	}
	buffer_free(&buf);
}
END_TEST

START_TEST(a_schema_names_each_field_once)
{
	static const char wanted[] = "byte u8\nhalf u16\nword u32\nwide u64\n"
				     "sign s64\nflag bool\ntext string[11]\n"
				     "raw bytes[5]\nitems count[4]\n"
				     "item.value u16\nblob blob[16]\n";
	struct sample any = { 0 };
	struct buffer buf = { 0 };
	struct error err;
	struct codec c;

	codec_init_describe(&c, &buf, 1);
	sample_visit(&c, &any);
	ck_assert(!codec_finish(&c, &err));
	ck_assert_uint_eq(buf.len, sizeof(wanted) - 1);
	ck_assert(!memcmp(buf.data, wanted, buf.len));
	buffer_free(&buf);
}
END_TEST

START_TEST(checksums_are_those_of_the_rfc)
{
	static const uint8_t zeroes[32];
	uint8_t ones[32];
	uint8_t rising[32];

	memset(ones, 0xff, sizeof(ones));
	for (uint8_t i = 0; i < sizeof(rising); i++)
		rising[i] = i;
	/* RFC 3720, B.4 */
	ck_assert_uint_eq(crc32c(0, zeroes, sizeof(zeroes)), 0x8a9136aa);
	ck_assert_uint_eq(crc32c(0, ones, sizeof(ones)), 0x62a8ab43);
	ck_assert_uint_eq(crc32c(0, rising, sizeof(rising)), 0x46dd794e);
	/* In pieces it is the same. */
	ck_assert_uint_eq(crc32c(crc32c(0, rising, 13), rising + 13, 19),
			  0x46dd794e);
}
END_TEST

UNIT_SUITE("codec", every_kind_of_field_comes_back_as_it_was,
	   numbers_are_little_endian_and_unpadded, a_cut_at_any_byte_is_found,
	   bytes_left_over_are_found, no_flipped_bit_does_harm,
	   values_out_of_range_are_refused_by_name,
	   a_schema_names_each_field_once, checksums_are_those_of_the_rfc)
