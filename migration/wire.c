// SPDX-License-Identifier: MIT
/*
 * Record layouts as visit functions, and the table of record types; see
 * wire.h.
 */
#include <stdio.h>

#include "migration/wire.h"

static const struct {
	uint32_t type;
	const char *name;
	uint32_t max;
} types[] = {
	{ WIRE_HELLO, "HELLO", WIRE_SMALL_MAX },
	{ WIRE_CONFIG, "CONFIG", WIRE_CONFIG_MAX },
	{ WIRE_IMAGE, "IMAGE", WIRE_IMAGE_MAX },
	{ WIRE_REHEARSE, "REHEARSE", WIRE_SMALL_MAX },
	{ WIRE_SECTION, "SECTION", WIRE_SECTION_MAX },
	{ WIRE_STATE_END, "STATE_END", WIRE_SMALL_MAX },
	{ WIRE_ROUND, "ROUND", WIRE_SMALL_MAX },
	{ WIRE_PAGES, "PAGES", WIRE_PAGES_MAX },
	{ WIRE_ZERO, "ZERO", WIRE_RUNS_BYTES_MAX },
	{ WIRE_ROUND_END, "ROUND_END", WIRE_SMALL_MAX },
	{ WIRE_PAUSED, "PAUSED", WIRE_SMALL_MAX },
	{ WIRE_COMMIT, "COMMIT", WIRE_SMALL_MAX },
	{ WIRE_ABORT, "ABORT", WIRE_SMALL_MAX },
	{ WIRE_PING, "PING", WIRE_SMALL_MAX },
	{ WIRE_QUERY, "QUERY", WIRE_SMALL_MAX },
	{ WIRE_DONE, "DONE", WIRE_SMALL_MAX },
	{ WIRE_EXPECT, "EXPECT", WIRE_RUNS_BYTES_MAX },
	{ WIRE_DIGEST, "DIGEST", WIRE_SMALL_MAX },
	{ WIRE_STATE_DIGEST, "STATE_DIGEST", WIRE_SMALL_MAX },
	{ WIRE_WELCOME, "WELCOME", WIRE_SMALL_MAX },
	{ WIRE_ACCEPT, "ACCEPT", WIRE_SMALL_MAX },
	{ WIRE_REHEARSED, "REHEARSED", WIRE_SMALL_MAX },
	{ WIRE_ROUND_ACK, "ROUND_ACK", WIRE_SMALL_MAX },
	{ WIRE_LOADED, "LOADED", WIRE_SMALL_MAX },
	{ WIRE_RUNNING, "RUNNING", WIRE_SMALL_MAX },
	{ WIRE_NACK, "NACK", WIRE_SMALL_MAX },
	{ WIRE_REFUSE, "REFUSE", WIRE_SMALL_MAX },
	{ WIRE_PONG, "PONG", WIRE_SMALL_MAX },
	{ WIRE_VERDICT, "VERDICT", WIRE_SMALL_MAX },
};

const char *wire_type_name(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (types[i].type == type)
			return types[i].name;
	}
	return NULL;
}

uint32_t wire_payload_max(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (types[i].type == type)
			return types[i].max;
	}
	return type & WIRE_OPTIONAL ? WIRE_SMALL_MAX : 0;
}

/* A text for the user of this side, which may end up on a terminal. */
static void text_visit(struct codec *c, const char *name, char *text,
		       size_t size)
{
	codec_string(c, name, text, size);
	if (codec_loading(c))
		text_make_plain(text);
}

void wire_hello_visit(struct codec *c, struct wire_hello *hello)
{
	codec_u64(c, "magic", &hello->magic);
	codec_u16(c, "version_min", &hello->version_min);
	codec_u16(c, "version_max", &hello->version_max);
	codec_u32(c, "capabilities", &hello->capabilities);
	codec_bytes(c, "session", hello->session, sizeof(hello->session));
	codec_u32(c, "commit_deadline_ms", &hello->commit_deadline_ms);
	codec_u32(c, "silence_deadline_ms", &hello->silence_deadline_ms);
	text_visit(c, "software", hello->software, sizeof(hello->software));
}

void wire_welcome_visit(struct codec *c, struct wire_welcome *welcome)
{
	codec_u64(c, "magic", &welcome->magic);
	codec_u16(c, "version", &welcome->version);
	codec_u32(c, "capabilities", &welcome->capabilities);
	codec_bytes(c, "session", welcome->session, sizeof(welcome->session));
	text_visit(c, "software", welcome->software, sizeof(welcome->software));
}

void wire_config_visit(struct codec *c, struct wire_config *config)
{
	codec_enter(c, "machine");
	machine_visit(c, &config->machine);
	codec_leave(c);
	codec_u32(c, "page_size", &config->page_size);
	codec_count(c, "ranges", &config->nranges, MEMORY_REGIONS_MAX);
	codec_enter(c, "range");
	for (uint32_t i = 0; i < config->nranges; i++) {
		codec_u64(c, "gpa", &config->ranges[i].gpa);
		codec_u64(c, "size", &config->ranges[i].size);
	}
	codec_leave(c);
	codec_u64(c, "kernel_size", &config->kernel_size);
	codec_u64(c, "initrd_size", &config->initrd_size);
	codec_bytes(c, "host", config->host, sizeof(config->host));
	codec_count(c, "disks", &config->ndisks, MACHINE_DEVICES_MAX);
	codec_enter(c, "disk");
	for (uint32_t i = 0; i < config->ndisks; i++) {
		codec_string(c, "id", config->disks[i].id,
			     sizeof(config->disks[i].id));
		codec_u64(c, "dev", &config->disks[i].dev);
		codec_u64(c, "ino", &config->disks[i].ino);
	}
	codec_leave(c);
}

void wire_image_visit(struct codec *c, struct wire_image *image)
{
	codec_u64(c, "offset", &image->offset);
}

void wire_round_visit(struct codec *c, struct wire_round *round)
{
	codec_u32(c, "number", &round->number);
}

void wire_round_end_visit(struct codec *c, struct wire_round_end *end)
{
	codec_u32(c, "number", &end->number);
	codec_u64(c, "pages", &end->pages);
}

void wire_accept_visit(struct codec *c, struct wire_accept *accept)
{
	codec_u64(c, "build_ns", &accept->build_ns);
}

void wire_load_times_visit(struct codec *c, struct wire_load_times *times)
{
	codec_u64(c, "decode_ns", &times->decode_ns);
	codec_u64(c, "check_ns", &times->check_ns);
	codec_u64(c, "load_ns", &times->load_ns);
}

void wire_running_visit(struct codec *c, struct wire_running *running)
{
	codec_u64(c, "resume_ns", &running->resume_ns);
}

void wire_reason_visit(struct codec *c, struct wire_reason *reason)
{
	codec_u32(c, "code", &reason->code);
	text_visit(c, "text", reason->text, sizeof(reason->text));
}

void wire_verdict_visit(struct codec *c, struct wire_verdict *verdict)
{
	codec_bytes(c, "session", verdict->session, sizeof(verdict->session));
	codec_u32(c, "kind", &verdict->kind);
}

void wire_state_end_visit(struct codec *c, struct wire_state_end *end)
{
	codec_u32(c, "nsections", &end->nsections);
}

void wire_state_digest_visit(struct codec *c, struct wire_digest *digest)
{
	codec_count(c, "crcs", &digest->n, WIRE_DIGESTS_MAX);
	for (uint32_t i = 0; i < digest->n; i++)
		codec_u32(c, "crc", &digest->crcs[i]);
}

void wire_digest_visit(struct codec *c, struct wire_digest *digest)
{
	codec_u32(c, "first", &digest->first);
	wire_state_digest_visit(c, digest);
}

void wire_section_visit(struct codec *c, struct wire_section *section)
{
	codec_string(c, "type", section->type, sizeof(section->type));
	codec_string(c, "id", section->id, sizeof(section->id));
	codec_u32(c, "version", &section->version);
}

const char *wire_session_text(const uint8_t session[WIRE_SESSION_SIZE],
			      char ret[WIRE_SESSION_TEXT])
{
	for (size_t i = 0; i < WIRE_SESSION_SIZE; i++)
		snprintf(ret + 2 * i, 3, "%02x", session[i]);
	return ret;
}
