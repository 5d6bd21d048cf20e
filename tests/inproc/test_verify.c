// SPDX-License-Identifier: MIT
/*
 * --verify: what is damaged on its way is found, wherever it is, and nothing is
 * lost by that. Nearly all other moves of these tests are verified too; that
 * those which are fine pass is shown there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "migration/digest.h"
#include "tests/inproc/shuttle.h"
#include "tests/unit/unit.h"
#include "vmm/vm_state.h"

/* The guest's code: never written, so sent in round 0 and not again. */
#define GPA_CODE 0x100000
/* The set that the guest writes all the time is the highest memory. */
#define GPA_SET 0xff0000

static void start(struct shuttle *s)
{
	s->here = rig_host_new();
	s->there = rig_host_new();
	rig_boot(s->here,
		 &(struct rig_guest){ .elf = "dirty",
				      .cmdline = "pages=60 rate=4 progress=0 "
						 "where=high fill=yes" });
	rig_expect(s->here, "ready\n");
}

static void damage(struct shuttle *s, uint64_t gpa, bool offline)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	char range[64];

	snprintf(range, sizeof(range), "memory 0x%llx to 0x%llx ",
		 (unsigned long long)(gpa & ~(DIGEST_CHUNK - 1)),
		 (unsigned long long)(gpa | (DIGEST_CHUNK - 1)));
	move.spoil = (struct relay_spoil){ .enabled = true, .gpa = gpa };
	move.params.offline = offline;
	shuttle_move(s, &move, &result);
	ck_assert_int_ne(result.source_rc, 0);
	ck_assert_int_eq(result.report.status, STATUS_FAILED);
	ck_assert_int_eq(result.report.phase, PHASE_VERIFY);
	ck_assert_msg(strstr(result.source_error.text, range) &&
			      strstr(result.report.error, range),
		      "%s", result.source_error.text);
	ck_assert_msg(strstr(result.target_error.text, range), "%s",
		      result.target_error.text);
	shuttle_retry(s);
}

START_TEST(a_damaged_page_is_named_and_the_next_attempt_succeeds)
{
	static const uint64_t gpas[] = { GPA_CODE, 0x700000, GPA_SET };
	struct shuttle s;

	start(&s);
	for (size_t i = 0; i < ARRAY_SIZE(gpas); i++) {
		damage(&s, gpas[i], false);
		damage(&s, gpas[i], true);
	}
	shuttle_end(&s);
}
END_TEST

START_TEST(the_first_difference_is_the_one_that_is_named)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	start(&s);
	move.spoil = (struct relay_spoil){ .enabled = true, .gpa = GPA_CODE };
	/* The first DIGEST is refused while more is on its way: still heard. */
	for (int i = 0; i < 20; i++) {
		shuttle_move(&s, &move, &result);
		ck_assert_msg(strstr(result.source_error.text,
				     "the target refuses: --verify: memory 0x0"
				     " to 0x1fffff "),
			      "%s", result.source_error.text);
	}
	shuttle_end(&s);
}
END_TEST

/* ---- what is on the wire ---- */

struct seen {
	unsigned int digests;
	unsigned int state_digests;
};

static bool count(struct rig_moving *moving, const struct relay_record *record,
		  void *opaque)
{
	struct seen *seen = opaque;

	(void)moving;
	seen->digests += record->type == WIRE_DIGEST;
	seen->state_digests += record->type == WIRE_STATE_DIGEST;
	return false;
}

START_TEST(digests_are_sent_to_who_asked_and_nobody_else)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct seen seen = { 0 };
	struct shuttle s;

	shuttle_start(&s);
	move.on_record = count;
	move.opaque = &seen;
	move.params.verify = false;
	shuttle_move(&s, &move, &result);
	ck_assert(!result.source_rc);
	ck_assert_uint_eq(seen.digests + seen.state_digests, 0);
	ck_assert_uint_eq(result.report.phase_ns[PHASE_VERIFY], 0);
	move.params.verify = true;
	shuttle_move(&s, &move, &result);
	ck_assert(!result.source_rc);
	ck_assert_uint_eq(seen.digests, 1);
	ck_assert_uint_eq(seen.state_digests, 1);
	ck_assert_uint_gt(result.report.phase_ns[PHASE_VERIFY], 0);
	shuttle_end(&s);
}
END_TEST

static bool hold_up(struct rig_moving *moving,
		    const struct relay_record *record, void *opaque)
{
	(void)opaque;
	if (record->type == WIRE_DIGEST)
		rig_await_status(moving, STATUS_FAILED);
	return false;
}

START_TEST(a_limit_that_the_user_set_holds_for_verification_too)
{
	struct rig_move move = rig_move_default;
	struct rig_result result;
	struct shuttle s;

	shuttle_start(&s);
	move.params.abort_after_ns = 3 * NS_PER_S;
	move.on_record = hold_up;
	shuttle_move(&s, &move, &result);
	ck_assert_int_eq(result.source_rc, STREAM_DEADLINE);
	ck_assert_int_eq(result.report.phase, PHASE_VERIFY);
	ck_assert_msg(strstr(result.source_error.text, "--abort-after"), "%s",
		      result.source_error.text);
	shuttle_retry(&s);
	shuttle_end(&s);
}
END_TEST

/* ---- a source made by hand ---- */

/* A source that sends no page, and a target. */
struct peers {
	struct rig_host *from;
	struct rig_host *to;
	struct vm_state *state; /* of @from's guest */
	struct stream *stream;
	struct spares *spares;
	struct target *target;
	struct stream *targets; /* its end */
	pthread_t thread;
	int rc;
	struct error err;
};

static int welcome(void *opaque, struct wire_config *config,
		   const uint8_t session[WIRE_SESSION_SIZE], struct error *err)
{
	(void)opaque;
	(void)config;
	(void)session;
	(void)err;
	return 0;
}

static void *run_target(void *opaque)
{
	struct peers *p = opaque;

	p->rc = target_run(p->target, p->targets, &p->err);
	return NULL;
}

static uint64_t soon(void)
{
	return clock_ns() + 30 * NS_PER_S;
}

#define SAY(p, type, visit, value)                                          \
	do {                                                                \
		struct error say_err;                                       \
		ck_assert_msg(!stream_send_struct((p)->stream, type, visit, \
						  value, soon(), &say_err), \
			      "%s", say_err.text);                          \
	} while (0)

static void say(struct peers *p, enum wire_type type)
{
	struct error err;

	ck_assert(!stream_send(p->stream, type, NULL, 0, soon(), &err));
}

static void expect(struct peers *p, enum wire_type type, struct record *record)
{
	struct error err;

	ck_assert_msg(!stream_recv(p->stream, record, soon(), &err), "%s",
		      err.text);
	ck_assert_msg(record->type == type, "%s", wire_type_name(record->type));
}

static int say_section(void *opaque, const struct vm_section *section,
		       struct error *err)
{
	struct wire_section front = { .version = section->version };
	struct peers *p = opaque;

	memcpy(front.type, section->type, sizeof(front.type));
	memcpy(front.id, section->id, sizeof(front.id));
	return stream_send_section(p->stream, &front, section->data,
				   section->len, soon(), err);
}

static void say_sections(struct peers *p)
{
	struct error err;

	ck_assert_msg(!vm_state_emit(p->state, say_section, p, &err), "%s",
		      err.text);
}

static void say_state_end(struct peers *p)
{
	struct wire_state_end end = { vm_state_count(p->state) };

	SAY(p, WIRE_STATE_END, wire_state_end_visit, &end);
}

static void say_config(struct peers *p)
{
	struct wire_config *config = calloc(1, sizeof(*config));

	config->machine = *vm_machine(p->from->vm);
	config->page_size = GUEST_PAGE_SIZE;
	config->nranges = 1;
	config->ranges[0].size = config->machine.memory_size;
	SAY(p, WIRE_CONFIG, wire_config_visit, config);
	free(config);
}

/* Up to where the digests are due. */
static void meet(struct peers *p, uint32_t capabilities)
{
	struct target_env env = { .host = rig_vm_host(p->to),
				  .on_config = welcome };
	struct wire_hello hello = { .magic = WIRE_MAGIC,
				    .version_min = 1,
				    .version_max = 1,
				    .capabilities = capabilities,
				    .commit_deadline_ms = 60000,
				    .silence_deadline_ms = 60000 };
	struct record record;
	int fds[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
	ck_assert(!stream_open(fds[0], -1, &p->stream, &p->err));
	ck_assert(!stream_open(fds[1], -1, &p->targets, &p->err));
	ck_assert(!spares_create(&p->to->kvm, &p->spares, &p->err));
	env.spares = p->spares;
	ck_assert(!target_create(&env, &hello, &p->target, &p->err));
	ck_assert(!pthread_create(&p->thread, NULL, run_target, p));
	expect(p, WIRE_WELCOME, &record);
	say_config(p);
	expect(p, WIRE_ACCEPT, &record);
	say(p, WIRE_REHEARSE);
	say_sections(p);
	say_state_end(p);
	expect(p, WIRE_REHEARSED, &record);
	say(p, WIRE_PAUSED);
	say_sections(p);
}

static void part(struct peers *p)
{
	stream_close(p->stream);
	pthread_join(p->thread, NULL);
	ck_assert_int_ne(p->rc, 0);
	stream_close(p->targets);
	target_free(p->target);
	spares_free(p->spares);
}

static void expect_refusal(struct peers *p, const char *why)
{
	struct wire_reason reason = { 0 };
	struct record record;
	struct error err;

	expect(p, WIRE_REFUSE, &record);
	ck_assert(!stream_decode(&record, wire_reason_visit, &reason, &err));
	ck_assert_msg(strstr(reason.text, why), "%s", reason.text);
	part(p);
}

/* What is right: memory in which nothing is, ... */
static struct wire_digest empty(uint32_t first, uint32_t n)
{
	static const uint8_t zeroes[DIGEST_CHUNK];
	uint32_t crc = crc32c(0, zeroes, sizeof(zeroes));
	struct wire_digest digest = { .first = first, .n = n };

	for (uint32_t i = 0; i < n; i++)
		digest.crcs[i] = crc;
	return digest;
}

static int add_crc(void *opaque, const struct vm_section *section,
		   struct error *err)
{
	struct wire_digest *digest = opaque;

	(void)err;
	digest->crcs[digest->n++] = crc32c(0, section->data, section->len);
	return 0;
}

/* ... and the state that was sent. */
static struct wire_digest proper_state(struct peers *p)
{
	struct wire_digest digest = { 0 };
	struct error err;

	ck_assert(!vm_state_emit(p->state, add_crc, &digest, &err));
	return digest;
}

static void say_digest(struct peers *p, struct wire_digest digest)
{
	SAY(p, WIRE_DIGEST, wire_digest_visit, &digest);
}

static void say_state_digest(struct peers *p, struct wire_digest digest)
{
	SAY(p, WIRE_STATE_DIGEST, wire_state_digest_visit, &digest);
}

static void peers_init(struct peers *p)
{
	p->from = rig_host_new();
	p->to = rig_host_new();
	rig_boot(p->from,
		 &(struct rig_guest){ .elf = "timer", .cmdline = "hz=100" });
	rig_expect(p->from, "ready\n");
	vm_hold(p->from->vm, VM_HOLD_USER);
	ck_assert(!vm_state_create(p->from->vm, &p->state, &p->err));
	ck_assert(!vm_state_save(p->state, &p->err));
}

static void peers_fini(struct peers *p)
{
	vm_state_free(p->state);
	rig_host_free(p->from);
	rig_host_free(p->to);
}

START_TEST(digests_that_agree_are_taken_however_they_are_dealt_out)
{
	struct peers p = { 0 };
	struct record record;

	peers_init(&p);
	for (uint32_t n = 1; n <= 8; n *= 2) {
		meet(&p, WIRE_CAP_VERIFY);
		for (uint32_t i = 0; i < 8; i += n)
			say_digest(&p, empty(i, n));
		say_state_digest(&p, proper_state(&p));
		say(&p, WIRE_PING);
		expect(&p, WIRE_PONG, &record);
		say_state_end(&p);
		expect(&p, WIRE_LOADED, &record);
		part(&p);
	}
	peers_fini(&p);
}
END_TEST

START_TEST(digests_that_differ_are_refused_by_name)
{
	struct wire_digest digest = empty(0, 8);
	struct peers p = { 0 };

	peers_init(&p);
	digest.crcs[3] ^= 1;
	digest.crcs[5] ^= 1;
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, digest);
	expect_refusal(&p, "memory 0x600000 to 0x7fffff is not");

	digest = proper_state(&p);
	digest.crcs[0] ^= 0x80000000;
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 8));
	say_state_digest(&p, digest);
	expect_refusal(&p, "state of vcpu 0 is not");

	digest = proper_state(&p);
	digest.crcs[1] ^= 1;
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 8));
	say_state_digest(&p, digest);
	expect_refusal(&p, "state of vm vm is not");
	peers_fini(&p);
}
END_TEST

START_TEST(digests_of_something_else_are_refused)
{
	struct wire_digest few;
	struct peers p = { 0 };

	peers_init(&p);
	few = proper_state(&p);
	few.n--;
	meet(&p, 0);
	say_digest(&p, empty(0, 8));
	expect_refusal(&p, "DIGEST instead of STATE_END");
	meet(&p, WIRE_CAP_VERIFY);
	say_state_end(&p);
	expect_refusal(&p, "STATE_END instead of DIGEST");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(1, 7));
	expect_refusal(&p, "0 of 8 are here");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 0));
	expect_refusal(&p, "0 of 8 are here");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 5));
	say_digest(&p, empty(5, WIRE_DIGESTS_MAX));
	expect_refusal(&p, "5 of 8 are here");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 7));
	say_state_digest(&p, proper_state(&p));
	expect_refusal(&p, "7 of 8 chunks");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 8));
	say_state_digest(&p, few);
	expect_refusal(&p, "sections");
	meet(&p, WIRE_CAP_VERIFY);
	say_digest(&p, empty(0, 8));
	say_state_end(&p);
	expect_refusal(&p, "STATE_END instead of DIGEST or STATE_DIGEST");
	peers_fini(&p);
}
END_TEST

START_TEST(a_pause_is_refused_where_a_dry_run_was_spoken_of)
{
	struct peers p = { 0 };

	peers_init(&p);
	meet(&p, WIRE_CAP_DRY_RUN);
	expect_refusal(&p, "PAUSED instead of ROUND or ABORT");
	peers_fini(&p);
}
END_TEST

UNIT_SUITE("verify", a_damaged_page_is_named_and_the_next_attempt_succeeds,
	   the_first_difference_is_the_one_that_is_named,
	   digests_are_sent_to_who_asked_and_nobody_else,
	   a_limit_that_the_user_set_holds_for_verification_too,
	   digests_that_agree_are_taken_however_they_are_dealt_out,
	   digests_that_differ_are_refused_by_name,
	   digests_of_something_else_are_refused,
	   a_pause_is_refused_where_a_dry_run_was_spoken_of)
