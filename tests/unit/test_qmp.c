// SPDX-License-Identifier: MIT
/*
 * The control socket: what it says in QEMU's words, and that no client, however
 * hostile, ends it, stalls it or makes it hoard. The VM behind it is a fake.
 *
 * The loop runs on a thread of its own; the test is the client, blocking. What
 * the fake notes is looked at after an answer that was given later.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/control.h"

struct fake {
	struct loop *loop;
	struct control *control;
	pthread_t thread;
	bool running;
	pid_t quit; /* who asked for it; 0: nobody */
	bool has_report;
	struct report report;
	struct source_params params;
	struct source_params migrated; /* what migrate was called with */
	unsigned int migrations;
	int resolved;	  /* -1: not, else the word */
	char watched[32]; /* the console that was asked for */
	char typed[32];	  /* what came with it */
	uint64_t from;
	uint16_t columns;
	uint16_t rows;
	uint64_t kept;	    /* of its memory; 0: there is no balloon */
	const char *refuse; /* every action fails with this text */
};

/* ---- the fake ---- */

static int act(struct fake *fake, struct error *err)
{
	return fake->refuse ? error_set(err, -EPERM, "%s", fake->refuse) : 0;
}

static void fake_info(void *opaque, struct qmp_info *ret)
{
	struct fake *fake = opaque;

	*ret = (struct qmp_info){
		.name = "fake",
		.reason = "",
		.session = "0123",
		.moving_to = fake->has_report ? "tcp:h:1" : "",
		.dry_run = fake->report.dry_run,
		.status = fake->running ? "running" : "paused",
		.running = fake->running,
		.cpus = 2,
		.memory = GIB,
	};
}

static int fake_stop(void *opaque, struct error *err)
{
	struct fake *fake = opaque;

	fake->running = false;
	return act(fake, err);
}

static int fake_cont(void *opaque, struct error *err)
{
	struct fake *fake = opaque;

	fake->running = true;
	return act(fake, err);
}

static int fake_act(void *opaque, struct error *err)
{
	return act(opaque, err);
}

static void fake_quit(void *opaque, pid_t by)
{
	((struct fake *)opaque)->quit = by;
}

static int fake_migrate(void *opaque, const struct source_params *params,
			struct error *err)
{
	struct fake *fake = opaque;

	fake->migrated = *params;
	fake->migrations++;
	return act(fake, err);
}

static int fake_resolve(void *opaque, bool resume, struct error *err)
{
	struct fake *fake = opaque;

	fake->resolved = resume;
	return act(fake, err);
}

static const struct source_params *fake_params(void *opaque)
{
	return &((struct fake *)opaque)->params;
}

static void fake_set_max_downtime(void *opaque, uint64_t ns)
{
	((struct fake *)opaque)->params.max_downtime_ns = ns;
}

static void fake_set_bandwidth(void *opaque, uint64_t bytes_per_s)
{
	((struct fake *)opaque)->params.bandwidth = bytes_per_s;
}

static bool fake_report(void *opaque, struct report *ret)
{
	struct fake *fake = opaque;

	*ret = fake->report;
	return fake->has_report;
}

static bool fake_balloon(void *opaque, struct balloon_info *ret)
{
	struct fake *fake = opaque;

	*ret = (struct balloon_info){ .actual = GIB,
				      .wanted = fake->kept,
				      .told_s = 99 };
	for (unsigned int i = 0; i < BALLOON_STATS; i++)
		ret->stats[i] = i == BALLOON_FREE ? 12345 : BALLOON_UNKNOWN;
	return fake->kept;
}

static int fake_set_balloon(void *opaque, uint64_t bytes, struct error *err)
{
	struct fake *fake = opaque;

	fake->kept = bytes;
	return act(fake, err);
}

static bool fake_disk(void *opaque __maybe_unused, uint32_t index,
		      struct qmp_disk *ret)
{
	*ret = (struct qmp_disk){ .id = index ? "disk1" : "disk0",
				  .path = "/a,b.img",
				  .size = 1048576,
				  .readonly = index,
				  .direct = !index };
	return index < 2;
}

static char *fake_show(void *opaque __maybe_unused, bool *ret_came_along)
{
	*ret_came_along = true;
	return strdup("godwit run --kernel 'a b'");
}

static char *fake_cpu(void *opaque __maybe_unused)
{
	return strdup("vendor: GenuineIntel\n");
}

static int fake_find_console(void *opaque, const char *device,
			     struct qmp_console *ret, struct error *err)
{
	if (device && !strcmp(device, "none"))
		return error_set(err, -ENOENT, "no console 'none'");
	*ret = (struct qmp_console){ device ? device : "serial0", 100, 200 };
	return act(opaque, err);
}

static int fake_resize_console(void *opaque, const char *device,
			       uint16_t columns, uint16_t rows,
			       struct error *err)
{
	struct fake *fake = opaque;

	snprintf(fake->watched, sizeof(fake->watched), "%s", device);
	fake->columns = columns;
	fake->rows = rows;
	return act(fake, err);
}

static int fake_watch_console(void *opaque, const char *device, int fd,
			      uint64_t from, const void *typed, size_t len,
			      struct error *err __maybe_unused)
{
	struct fake *fake = opaque;

	snprintf(fake->watched, sizeof(fake->watched), "%s", device);
	snprintf(fake->typed, sizeof(fake->typed), "%.*s", (int)len,
		 (const char *)typed);
	fake->from = from;
	/* He may have hung up. */
	(void)!send(fd, "raw bytes", 9, MSG_NOSIGNAL);
	close(fd);
	return 0;
}

static const struct qmp_backend backend = {
	.info = fake_info,
	.stop = fake_stop,
	.cont = fake_cont,
	.powerdown = fake_act,
	.reset = fake_act,
	.quit = fake_quit,
	.migrate = fake_migrate,
	.cancel = fake_act,
	.resolve = fake_resolve,
	.params = fake_params,
	.set_max_downtime = fake_set_max_downtime,
	.set_bandwidth = fake_set_bandwidth,
	.report = fake_report,
	.disk = fake_disk,
	.find_console = fake_find_console,
	.resize_console = fake_resize_console,
	.watch_console = fake_watch_console,
	.balloon = fake_balloon,
	.set_balloon = fake_set_balloon,
	.show = fake_show,
	.cpu = fake_cpu,
};

static void *run_loop(void *arg)
{
	loop_run(arg);
	return NULL;
}

static struct fake *fake_new(void)
{
	struct fake *fake = calloc(1, sizeof(*fake));
	struct error err;

	fake->params = source_params_default;
	fake->resolved = -1;
	ck_assert_int_eq(loop_create(&fake->loop, &err), 0);
	ck_assert_int_eq(control_create(fake->loop, -1, &backend, fake,
					&fake->control, &err),
			 0);
	return fake;
}

static void fake_start(struct fake *fake)
{
	pthread_create(&fake->thread, NULL, run_loop, fake->loop);
}

static void fake_free(struct fake *fake)
{
	loop_stop(fake->loop);
	pthread_join(fake->thread, NULL);
	control_free(fake->control);
	loop_free(fake->loop);
	free(fake);
}

/* ---- the client ---- */

struct peer {
	int fd;
	size_t len;
	char in[256 * KIB];
};

/* Before fake_start(): clients are added on the loop's thread. */
static struct peer *peer_new(struct fake *fake)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	struct error err;
	int pair[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer->fd = pair[0];
	ck_assert_int_eq(control_add(fake->control, pair[1], &err), 0);
	return peer;
}

static void peer_free(struct peer *peer)
{
	close(peer->fd);
	free(peer);
}

/* Return: false when the server hangs up first. */
static bool try_say(struct peer *peer, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(peer->fd, text, len, MSG_NOSIGNAL);

		if (n < 0)
			return false;
		text += n;
		len -= (size_t)n;
	}
	return true;
}

static void say(struct peer *peer, const char *text)
{
	ck_assert(try_say(peer, text, strlen(text)));
	ck_assert(try_say(peer, "\n", 1));
}

/* The next message; NULL when the server has hung up. */
static json_t *hear(struct peer *peer)
{
	json_t *message;
	char *end;

	while (!(end = memchr(peer->in, '\n', peer->len))) {
		ssize_t n = read(peer->fd, peer->in + peer->len,
				 sizeof(peer->in) - peer->len);

		if (n <= 0)
			return NULL;
		peer->len += (size_t)n;
	}
	message = json_loadb(peer->in, (size_t)(end - peer->in), 0, NULL);
	ck_assert_ptr_nonnull(message);
	peer->len -= (size_t)(end - peer->in) + 1;
	memmove(peer->in, end + 1, peer->len);
	return message;
}

/* Greeting and negotiation. */
static void meet(struct peer *peer)
{
	json_t *message = hear(peer);

	ck_assert_ptr_nonnull(json_object_get(message, "QMP"));
	json_decref(message);
	say(peer, "{\"execute\":\"qmp_capabilities\"}");
	message = hear(peer);
	ck_assert_ptr_nonnull(json_object_get(message, "return"));
	json_decref(message);
}

/* What a command returned; a new reference. */
static json_t *call(struct peer *peer, const char *request)
{
	json_t *message, *ret;

	say(peer, request);
	message = hear(peer);
	ret = json_incref(json_object_get(message, "return"));
	ck_assert_msg(ret, "%s: no return", request);
	json_decref(message);
	return ret;
}

static void call_ok(struct peer *peer, const char *request)
{
	json_decref(call(peer, request));
}

/* The next answer is an error of this class that says this. */
static void hear_error(struct peer *peer, const char *class, const char *part)
{
	json_t *message = hear(peer);
	json_t *error = json_object_get(message, "error");
	const char *desc = json_string_value(json_object_get(error, "desc"));

	ck_assert_ptr_nonnull(desc);
	ck_assert_str_eq(json_string_value(json_object_get(error, "class")),
			 class);
	ck_assert_msg(strstr(desc, part), "'%s' does not say '%s'", desc, part);
	json_decref(message);
}

static void refused(struct peer *peer, const char *request, const char *part)
{
	say(peer, request);
	hear_error(peer, "GenericError", part);
}

static json_int_t int_at(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	ck_assert_msg(json_is_integer(value), "%s is no integer", key);
	return json_integer_value(value);
}

static const char *text_at(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	ck_assert_msg(text, "%s is no string", key);
	return text;
}

#define ONE_PEER(fake, peer)                \
	struct fake *fake = fake_new();     \
	struct peer *peer = peer_new(fake); \
	fake_start(fake);                   \
	meet(peer)

#define ONE_PEER_GOES(fake, peer) \
	do {                      \
		peer_free(peer);  \
		fake_free(fake);  \
	} while (0)

/* ---- the language ---- */

START_TEST(nothing_is_done_before_negotiation)
{
	struct fake *fake = fake_new();
	struct peer *peer = peer_new(fake);
	json_t *greeting;

	fake_start(fake);
	greeting = hear(peer);
	int_at(json_object_get(json_object_get(json_object_get(greeting, "QMP"),
					       "version"),
			       "qemu"),
	       "major");
	json_decref(greeting);
	say(peer, "{\"execute\":\"quit\"}");
	hear_error(peer, "CommandNotFound", "qmp_capabilities");
	ck_assert(!fake->quit);
	refused(peer,
		"{\"execute\":\"qmp_capabilities\","
		"\"arguments\":{\"enable\":[\"oob\"]}}",
		"enabled");
	call_ok(peer, "{\"execute\":\"qmp_capabilities\","
		      "\"arguments\":{\"enable\":[]}}");
	say(peer, "{\"execute\":\"qmp_capabilities\"}");
	hear_error(peer, "CommandNotFound", "already complete");
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(an_id_comes_back_with_answers_and_errors)
{
	json_t *message, *id;

	ONE_PEER(fake, peer);
	say(peer, "{\"execute\":\"query-status\",\"id\":{\"a\":[1]}}");
	message = hear(peer);
	id = json_object_get(message, "id");
	ck_assert_int_eq(
		json_integer_value(json_array_get(json_object_get(id, "a"), 0)),
		1);
	json_decref(message);
	say(peer, "{\"execute\":\"nope\",\"id\":7}");
	message = hear(peer);
	ck_assert_int_eq(int_at(message, "id"), 7);
	json_decref(message);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(mistakes_are_named_and_the_connection_goes_on)
{
	ONE_PEER(fake, peer);
	say(peer, "{\"execute\":\"nope\"}");
	hear_error(peer, "CommandNotFound", "nope");
	refused(peer, "{", "JSON parse error");
	refused(peer, "hello", "JSON parse error");
	refused(peer, "{\"execute\":\"stop\"} {}", "JSON parse error");
	refused(peer, "{\"execute\":\"stop\",\"execute\":\"cont\"}",
		"JSON parse error");
	refused(peer, "\"\xff\xfe\"", "JSON parse error");
	refused(peer, "[1]", "must be a JSON object");
	refused(peer, "{\"execute\":3}", "'execute'");
	refused(peer, "{\"arguments\":{}}", "'execute'");
	refused(peer, "{\"execute\":\"stop\",\"x\":1}", "'x'");
	refused(peer, "{\"execute\":\"stop\",\"arguments\":[]}", "'arguments'");
	refused(peer, "{\"execute\":\"stop\",\"arguments\":{\"y\":1}}", "'y'");
	call_ok(peer, "{\"execute\":\"query-status\"}");
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(the_vm_is_shown_in_qemus_shapes)
{
	json_t *ret;
	bool found = false;
	size_t i;
	json_t *command, *disk;

	ONE_PEER(fake, peer);
	call_ok(peer, "{\"execute\":\"cont\"}");
	ret = call(peer, "{\"execute\":\"query-status\"}");
	ck_assert(json_is_true(json_object_get(ret, "running")));
	ck_assert_str_eq(text_at(ret, "status"), "running");
	json_decref(ret);
	call_ok(peer, "{\"execute\":\"stop\"}");
	ret = call(peer, "{\"execute\":\"query-status\"}");
	ck_assert(json_is_false(json_object_get(ret, "running")));
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"query-name\"}");
	ck_assert_str_eq(text_at(ret, "name"), "fake");
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"query-commands\"}");
	json_array_foreach(ret, i, command) found |=
		!strcmp(text_at(command, "name"), "query-migrate");
	ck_assert(found);
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"query-block\"}");
	ck_assert_uint_eq(json_array_size(ret), 2);
	disk = json_array_get(ret, 0);
	ck_assert_str_eq(json_string_value(json_object_get(disk, "device")),
			 "disk0");
	disk = json_object_get(disk, "inserted");
	ck_assert_str_eq(json_string_value(json_object_get(disk, "file")),
			 "/a,b.img");
	ck_assert(json_is_false(json_object_get(disk, "ro")));
	ck_assert(json_is_true(
		json_object_get(json_object_get(disk, "cache"), "direct")));
	ck_assert_int_eq(
		json_integer_value(json_object_get(
			json_object_get(disk, "image"), "virtual-size")),
		1048576);
	disk = json_object_get(json_array_get(ret, 1), "inserted");
	ck_assert(json_is_true(json_object_get(disk, "ro")));
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"x-godwit-show\"}");
	ck_assert_str_eq(text_at(ret, "line"), "godwit run --kernel 'a b'");
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"x-godwit-cpu\"}");
	ck_assert_str_eq(text_at(ret, "facts"), "vendor: GenuineIntel\n");
	json_decref(ret);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(a_balloon_is_set_and_shown_in_qemus_shapes)
{
	static const char get[] = "{\"execute\":\"qom-get\",\"arguments\":"
				  "{\"path\":\"/machine/peripheral/"
				  "balloon0\",\"property\":"
				  "\"guest-stats\"}}";
	json_t *ret, *stats;

	ONE_PEER(fake, peer);
	refused(peer, "{\"execute\":\"query-balloon\"}", "No balloon");
	refused(peer, get, "No balloon");
	ret = call(peer, "{\"execute\":\"x-godwit-info\"}");
	ck_assert_ptr_null(json_object_get(ret, "actual-memory"));
	json_decref(ret);
	call_ok(peer, "{\"execute\":\"balloon\",\"arguments\":"
		      "{\"value\":536870912}}");
	ck_assert_uint_eq(fake->kept, 512 * MIB);
	ret = call(peer, "{\"execute\":\"query-balloon\"}");
	ck_assert_int_eq(int_at(ret, "actual"), GIB);
	json_decref(ret);
	ret = call(peer, get);
	ck_assert_int_eq(int_at(ret, "last-update"), 99);
	stats = json_object_get(ret, "stats");
	ck_assert_int_eq(int_at(stats, "stat-free-memory"), 12345);
	ck_assert_int_eq(int_at(stats, "stat-htlb-pgfail"), -1);
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"x-godwit-info\"}");
	ck_assert_int_eq(int_at(ret, "wanted-memory"), 512 * MIB);
	ck_assert(!json_object_get(ret, "moving-to"));
	json_decref(ret);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(what_no_balloon_can_do_is_refused)
{
	static const char *const sizes[] = { "0", "-1", "\"1G\"", "null",
					     "1.5" };
	char line[128];

	ONE_PEER(fake, peer);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(line, sizeof(line),
			 "{\"execute\":\"balloon\",\"arguments\":"
			 "{\"value\":%s}}",
			 sizes[i]);
		refused(peer, line, "expects a size");
	}
	refused(peer, "{\"execute\":\"balloon\"}", "expects a size");
	ck_assert_uint_eq(fake->kept, 0);
	refused(peer,
		"{\"execute\":\"qom-get\",\"arguments\":"
		"{\"path\":\"/machine\",\"property\":\"type\"}}",
		"has no type");
	refused(peer, "{\"execute\":\"qom-get\"}", "are strings");
	fake->refuse = "handed over";
	refused(peer,
		"{\"execute\":\"balloon\",\"arguments\":"
		"{\"value\":536870912}}",
		fake->refuse);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(a_refusal_of_the_vm_is_told_in_its_words)
{
	ONE_PEER(fake, peer);
	call_ok(peer, "{\"execute\":\"system_reset\"}");
	fake->refuse = "the guest was handed over";
	refused(peer, "{\"execute\":\"stop\"}", fake->refuse);
	refused(peer, "{\"execute\":\"system_powerdown\"}", fake->refuse);
	refused(peer, "{\"execute\":\"migrate_cancel\"}", fake->refuse);
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\"}}",
		fake->refuse);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(quit_is_answered_and_the_vm_told_who_wants_it)
{
	ONE_PEER(fake, peer);
	call_ok(peer, "{\"execute\":\"quit\"}");
	ck_assert_int_eq(fake->quit, getpid());
	ONE_PEER_GOES(fake, peer);
}
END_TEST

/* ---- migration ---- */

START_TEST(migrate_takes_qemus_uris_and_our_limits)
{
	ONE_PEER(fake, peer);
	call_ok(peer, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		      "\"tcp:[::1]:4444\",\"detach\":true,"
		      "\"x-godwit-max-downtime-us\":1500,"
		      "\"x-godwit-abort-after-us\":2000000,"
		      "\"x-godwit-bandwidth\":100000,"
		      "\"x-godwit-timeout-us\":5000,"
		      "\"x-godwit-on-timeout\":\"pause\","
		      "\"x-godwit-offline\":true,"
		      "\"x-godwit-verify\":true}}");
	ck_assert_int_eq(fake->migrated.to.sa.sa_family, AF_INET6);
	ck_assert_uint_eq(fake->migrated.to.port, 4444);
	ck_assert_uint_eq(ntohs(fake->migrated.to.in6.sin6_port), 4444);
	ck_assert_uint_eq(fake->migrated.max_downtime_ns, 1500 * NS_PER_US);
	ck_assert_uint_eq(fake->migrated.abort_after_ns, 2 * NS_PER_S);
	ck_assert_uint_eq(fake->migrated.bandwidth, 100000);
	ck_assert_uint_eq(fake->migrated.timeout_ns, 5 * NS_PER_MS);
	ck_assert_int_eq(fake->migrated.on_timeout, SOURCE_TIMEOUT_PAUSE);
	ck_assert(fake->migrated.offline);
	ck_assert(fake->migrated.verify);
	ck_assert(!fake->migrated.dry_run);
	/* For that migration only. */
	ck_assert_uint_eq(fake->params.max_downtime_ns, 10 * NS_PER_MS);
	call_ok(peer, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		      "\"unix:/tmp/x\",\"x-godwit-dry-run\":true}}");
	ck_assert_int_eq(fake->migrated.to.kind, ADDRESS_UNIX);
	ck_assert(fake->migrated.dry_run);
	ck_assert_uint_eq(fake->migrated.max_downtime_ns, 10 * NS_PER_MS);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(migrate_refuses_what_it_can_not_do)
{
	ONE_PEER(fake, peer);
	refused(peer, "{\"execute\":\"migrate\"}", "'uri'");
	refused(peer, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":3}}",
		"'uri'");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:localhost:1\"}}",
		"localhost");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"exec:sh\"}}",
		"exec:sh");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"fd:gone\"}}",
		"'gone'");
	/* Not ours to give away: only what was passed. */
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"fd:0\"}}",
		"'0'");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-max-downtime-us\":99}}",
		"give 100 to 2000000000");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-abort-after-us\":0}}",
		"give 100 to");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-timeout-us\":999}}",
		"give 1000 to");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-bandwidth\":-1}}",
		"out of range");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-bandwidth\":1}}",
		"at least 65536");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-timeout-us\":"
		"9223372036854775807}}",
		"out of range");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-on-timeout\":\"die\"}}",
		"cancel or pause");
	refused(peer,
		"{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		"\"tcp:127.0.0.1:1\",\"x-godwit-dry-run\":true,"
		"\"x-godwit-offline\":true}}",
		"x-godwit-offline");
	ck_assert_uint_eq(fake->migrations, 0);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(parameters_have_qemus_units_and_a_finer_one)
{
	json_t *ret;

	ONE_PEER(fake, peer);
	call_ok(peer, "{\"execute\":\"migrate-set-parameters\","
		      "\"arguments\":{\"downtime-limit\":300,"
		      "\"max-bandwidth\":1048576}}");
	ck_assert_uint_eq(fake->params.max_downtime_ns, 300 * NS_PER_MS);
	ck_assert_uint_eq(fake->params.bandwidth, MIB);
	call_ok(peer, "{\"execute\":\"migrate-set-parameters\","
		      "\"arguments\":{\"x-godwit-downtime-limit-us\":1500}}");
	ck_assert_uint_eq(fake->params.max_downtime_ns, 1500 * NS_PER_US);
	ret = call(peer, "{\"execute\":\"query-migrate-parameters\"}");
	ck_assert_int_eq(int_at(ret, "downtime-limit"), 1);
	ck_assert_int_eq(int_at(ret, "x-godwit-downtime-limit-us"), 1500);
	ck_assert_int_eq(int_at(ret, "max-bandwidth"), MIB);
	json_decref(ret);
	/* A migration under way may have limits of its own. */
	fake->report = (struct report){ .status = STATUS_ACTIVE,
					.max_downtime_ns = 7 * NS_PER_MS,
					.bandwidth_cap = 99 };
	fake->has_report = true;
	ret = call(peer, "{\"execute\":\"query-migrate-parameters\"}");
	ck_assert_int_eq(int_at(ret, "downtime-limit"), 7);
	ck_assert_int_eq(int_at(ret, "max-bandwidth"), 99);
	json_decref(ret);
	refused(peer,
		"{\"execute\":\"migrate-set-parameters\","
		"\"arguments\":{\"downtime-limit\":0}}",
		"downtime-limit");
	refused(peer,
		"{\"execute\":\"migrate-set-parameters\","
		"\"arguments\":{\"downtime-limit\":\"10\"}}",
		"integer");
	ONE_PEER_GOES(fake, peer);
}
END_TEST

static const struct report a_report = {
	.status = STATUS_COMPLETED,
	.phase = PHASE_COMMIT,
	.phase_ns = { [PHASE_HELLO] = 2 * NS_PER_MS },
	.total_ns = 123 * NS_PER_MS,
	.downtime_ns = 1234567,
	.memory_size = GIB,
	.pages = 10,
	.zero_pages = 90,
	.bytes = 4242,
	.pause_bytes = 242,
	.sent_per_s = 125000,
	.bandwidth = 1000000,
	.max_downtime_ns = 1500000,
	.bandwidth_cap = 77,
	.throttle = 20,
	.throttled = { [3] = 60 },
	.outlook = OUTLOOK_DIVERGES,
	.nrounds = 2,
};

static void check_ram(json_t *ram)
{
	ck_assert_int_eq(int_at(ram, "precopy-bytes"), 4000);
	ck_assert_int_eq(int_at(ram, "downtime-bytes"), 242);
	ck_assert_int_eq(int_at(ram, "pages-per-second"), 30);
	ck_assert_int_eq(int_at(ram, "multifd-bytes"), 0);
	ck_assert_double_eq(json_real_value(json_object_get(ram, "mbps")), 1.0);
	ck_assert_int_eq(int_at(ram, "total"), GIB);
	ck_assert_int_eq(int_at(ram, "normal"), 10);
	ck_assert_int_eq(int_at(ram, "normal-bytes"), 40960);
	ck_assert_int_eq(int_at(ram, "duplicate"), 90);
	ck_assert_int_eq(int_at(ram, "transferred"), 4242);
	ck_assert_int_eq(int_at(ram, "page-size"), 4096);
	ck_assert_int_eq(int_at(ram, "dirty-sync-count"), 2);
}

START_TEST(query_migrate_has_qemus_shape)
{
	json_t *ret, *slowed;

	ONE_PEER(fake, peer);
	ret = call(peer, "{\"execute\":\"query-migrate\"}");
	ck_assert_uint_eq(json_object_size(ret), 0);
	json_decref(ret);
	fake->report = a_report;
	fake->has_report = true;
	ret = call(peer, "{\"execute\":\"query-migrate\"}");
	ck_assert_str_eq(text_at(ret, "status"), "completed");
	ck_assert_int_eq(int_at(ret, "total-time"), 123);
	ck_assert_int_eq(int_at(ret, "setup-time"), 2);
	ck_assert_int_eq(int_at(ret, "downtime"), 1);
	ck_assert_int_eq(int_at(ret, "downtime-us"), 1235);
	ck_assert_int_eq(int_at(ret, "max-downtime-us"), 1500);
	ck_assert_int_eq(int_at(ret, "max-bandwidth"), 77);
	ck_assert_int_eq(int_at(ret, "bandwidth"), 1000000);
	ck_assert_int_eq(int_at(ret, "cpu-throttle-percentage"), 20);
	slowed = json_object_get(ret, "throttled-vcpus");
	ck_assert_uint_eq(json_array_size(slowed), 1);
	slowed = json_array_get(slowed, 0);
	ck_assert_int_eq(int_at(slowed, "vcpu"), 3);
	ck_assert_int_eq(int_at(slowed, "percent"), 60);
	ck_assert(json_is_false(json_object_get(ret, "converges")));
	check_ram(json_object_get(ret, "ram"));
	ck_assert_uint_eq(json_array_size(json_object_get(ret, "rounds")), 2);
	ck_assert(!json_object_get(ret, "forecast"));
	ck_assert(!json_object_get(ret, "dry-run"));
	json_decref(ret);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(query_migrate_has_the_forecast_of_a_dry_run)
{
	json_t *ret, *forecast;

	ONE_PEER(fake, peer);
	fake->report = a_report;
	fake->report.status = STATUS_REHEARSED;
	fake->report.forecast = (struct report_forecast){
		.converges = true, .rounds = 7, .downtime_ns = 1234567
	};
	fake->report.dry_run = true;
	fake->has_report = true;
	ret = call(peer, "{\"execute\":\"x-godwit-info\"}");
	ck_assert_str_eq(text_at(ret, "moving-to"), "tcp:h:1");
	ck_assert(json_is_true(json_object_get(ret, "dry-run")));
	json_decref(ret);
	ret = call(peer, "{\"execute\":\"query-migrate\"}");
	ck_assert_str_eq(text_at(ret, "status"), "rehearsed");
	ck_assert(json_is_true(json_object_get(ret, "dry-run")));
	forecast = json_object_get(ret, "forecast");
	ck_assert_int_eq(int_at(forecast, "rounds"), 7);
	ck_assert(json_is_true(json_object_get(forecast, "converges")));
	ck_assert_double_eq(
		json_real_value(json_object_get(forecast, "downtime_ms")),
		1.235);
	json_decref(ret);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

static void pass_fds(struct peer *peer, const int *fds, unsigned int n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(n * sizeof(int)),
				  .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { .iov_base = (char[]){ ' ' }, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)),
	};

	memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	ck_assert_int_eq(sendmsg(peer->fd, &msg, 0), 1);
}

/* Everyone who has the other end of @fd is gone. */
static void closed_elsewhere(int fd)
{
	char byte;

	ck_assert_int_eq(read(fd, &byte, 1), 0);
}

START_TEST(a_descriptor_is_passed_named_and_given_to_migrate)
{
	int pair[2];

	ONE_PEER(fake, peer);
	refused(peer,
		"{\"execute\":\"getfd\",\"arguments\":{\"fdname\":"
		"\"m\"}}",
		"SCM_RIGHTS");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pass_fds(peer, &pair[1], 1);
	close(pair[1]);
	refused(peer,
		"{\"execute\":\"getfd\",\"arguments\":{\"fdname\":"
		"\"3\"}}",
		"digit");
	call_ok(peer, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":"
		      "\"m\"}}");
	call_ok(peer, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
		      "\"fd:m\"}}");
	ck_assert_int_eq(fake->migrated.to.kind, ADDRESS_FD);
	ck_assert_int_ge(fake->migrated.to.fd, 0);
	close(fake->migrated.to.fd);
	closed_elsewhere(pair[0]);
	/* It was taken: there is no such name any more. */
	refused(peer,
		"{\"execute\":\"closefd\",\"arguments\":{\"fdname\":"
		"\"m\"}}",
		"'m'");
	close(pair[0]);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(descriptors_that_nobody_names_are_closed)
{
	int pair[2];

	ONE_PEER(fake, peer);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (int i = 0; i < 100; i++)
		pass_fds(peer,
			 (int[]){ pair[1], pair[1], pair[1], pair[1], pair[1],
				  pair[1], pair[1], pair[1] },
			 8);
	close(pair[1]);
	call_ok(peer, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":"
		      "\"a\"}}");
	call_ok(peer, "{\"execute\":\"closefd\",\"arguments\":{\"fdname\":"
		      "\"a\"}}");
	closed_elsewhere(pair[0]);
	close(pair[0]);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

/* ---- hostile and clumsy clients ---- */

START_TEST(requests_come_in_any_pieces)
{
	static const char both[] = "{\"execute\":\"stop\",\"id\":1}\r\n\n"
				   "{\"execute\":\"cont\",\"id\":2}\n";
	json_t *message;

	ONE_PEER(fake, peer);
	for (int way = 0; way < 2; way++) {
		size_t step = way ? sizeof(both) - 1 : 1;

		for (size_t i = 0; i < sizeof(both) - 1; i += step)
			ck_assert(try_say(peer, both + i, step));
		for (int id = 1; id <= 2; id++) {
			message = hear(peer);
			ck_assert_int_eq(int_at(message, "id"), id);
			json_decref(message);
		}
	}
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(a_line_that_never_ends_is_answered_once_and_skipped)
{
	char *noise = malloc(QMP_LINE_MAX);

	memset(noise, 'x', QMP_LINE_MAX);
	ONE_PEER(fake, peer);
	for (int i = 0; i < 5; i++)
		ck_assert(try_say(peer, noise, QMP_LINE_MAX));
	say(peer, "");
	hear_error(peer, "GenericError", "longer than 65536");
	call_ok(peer, "{\"execute\":\"query-status\"}");
	free(noise);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(deep_nesting_and_odd_bytes_are_errors_and_no_more)
{
	char deep[40000];

	ONE_PEER(fake, peer);
	memset(deep, '[', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	refused(peer, deep, "JSON parse error");
	ck_assert(try_say(peer, "{\0}\n", 4));
	hear_error(peer, "GenericError", "JSON parse error");
	refused(peer, "{\"execute\":\"\\u0000\"}", "JSON parse error");
	say(peer, "{\"execute\":\"%n%s\"}");
	hear_error(peer, "CommandNotFound", "%n%s");
	call_ok(peer, "{\"execute\":\"query-status\"}");
	ONE_PEER_GOES(fake, peer);
}
END_TEST

/* As many whole requests as go without waiting. */
static unsigned int say_without_waiting(struct peer *peer, const char *text)
{
	unsigned int n = 0;

	while (send(peer->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) >
	       0)
		n++;
	return n;
}

START_TEST(a_client_that_asks_and_never_reads_is_not_listened_to)
{
	static const char ask[] = "{\"execute\":\"query-commands\"}\n";
	struct fake *fake = fake_new();
	struct peer *deaf = peer_new(fake);
	struct peer *other = peer_new(fake);
	unsigned int all = 0, idle = 0;

	fake_start(fake);
	meet(deaf);
	meet(other);
	/* Every call() of the other is at least one turn of the loop. */
	while (idle < 100) {
		unsigned int n = say_without_waiting(deaf, ask);

		all += n;
		idle = n ? 0 : idle + 1;
		ck_assert_uint_lt(all, 1000000);
		call_ok(other, "{\"execute\":\"query-status\"}");
	}
	peer_free(other);
	ONE_PEER_GOES(fake, deaf);
}
END_TEST

struct telling {
	struct fake *fake;
	unsigned int times;
	sem_t told;
};

static void tell_many(void *opaque)
{
	struct telling *telling = opaque;

	for (unsigned int i = 0; i < telling->times; i++)
		control_event(telling->fake->control, "STOP",
			      json_pack("{s:i}", "n", (int)i));
	sem_post(&telling->told);
}

START_TEST(a_client_that_does_not_read_events_is_hung_up_on)
{
	struct fake *fake = fake_new();
	struct peer *deaf = peer_new(fake);
	struct telling telling = { .fake = fake, .times = 100000 };
	json_t *message;

	sem_init(&telling.told, 0, 0);
	fake_start(fake);
	meet(deaf);
	loop_post(fake->loop, tell_many, &telling);
	sem_wait(&telling.told);
	while ((message = hear(deaf)))
		json_decref(message);
	ONE_PEER_GOES(fake, deaf);
}
END_TEST

START_TEST(events_are_for_those_who_have_negotiated)
{
	struct fake *fake = fake_new();
	struct peer *peer = peer_new(fake);
	struct peer *stranger = peer_new(fake);
	struct telling telling = { .fake = fake, .times = 1 };
	json_t *message;

	sem_init(&telling.told, 0, 0);
	fake_start(fake);
	meet(peer);
	loop_post(fake->loop, tell_many, &telling);
	message = hear(peer);
	ck_assert_str_eq(text_at(message, "event"), "STOP");
	ck_assert_int_gt(
		int_at(json_object_get(message, "timestamp"), "seconds"), 0);
	ck_assert_int_eq(int_at(json_object_get(message, "data"), "n"), 0);
	json_decref(message);
	json_decref(hear(stranger)); /* the greeting */
	say(stranger, "{\"execute\":\"qmp_capabilities\"}");
	message = hear(stranger);
	ck_assert_ptr_nonnull(json_object_get(message, "return"));
	json_decref(message);
	peer_free(stranger);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

START_TEST(clients_come_and_go_in_the_middle_of_things)
{
	struct fake *fake = fake_new();
	struct peer *peers[CONTROL_CLIENTS_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(peers); i++)
		peers[i] = peer_new(fake);
	fake_start(fake);
	for (size_t i = 1; i < ARRAY_SIZE(peers); i++) {
		ck_assert(try_say(peers[i], "{\"execute\":", i % 11));
		peer_free(peers[i]);
	}
	meet(peers[0]);
	call_ok(peers[0], "{\"execute\":\"query-status\"}");
	ONE_PEER_GOES(fake, peers[0]);
}
END_TEST

/* ---- the end ---- */

static void note_served(void *opaque)
{
	struct fake *fake = opaque;

	fake->quit = true;
	loop_stop(fake->loop);
}

START_TEST(a_client_is_served_when_it_was_told_how_it_ended)
{
	struct fake *fake = fake_new();
	struct peer *asks = peer_new(fake);
	struct peer *leaves = peer_new(fake);
	json_t *ret;

	fake->report.status = STATUS_COMPLETED;
	fake->has_report = true;
	ck_assert(control_served(fake->control));
	fake_start(fake);
	meet(asks);
	meet(leaves);
	loop_stop(fake->loop);
	pthread_join(fake->thread, NULL);
	control_expect_end(fake->control);
	control_on_served(fake->control, note_served);
	ck_assert(!control_served(fake->control));
	fake_start(fake);
	ret = call(asks, "{\"execute\":\"query-migrate\"}");
	ck_assert_str_eq(text_at(ret, "status"), "completed");
	json_decref(ret);
	peer_free(leaves);
	/* note_served() ends the loop. */
	pthread_join(fake->thread, NULL);
	ck_assert(fake->quit);
	ck_assert(control_served(fake->control));
	fake_start(fake);
	ONE_PEER_GOES(fake, asks);
}
END_TEST

/* All bytes to the end, which must come. */
static void expect_rest(struct peer *peer, const char *text)
{
	char rest[64] = "";
	ssize_t n;

	memcpy(rest, peer->in, peer->len);
	do {
		n = read(peer->fd, rest + peer->len,
			 sizeof(rest) - 1 - peer->len);
		peer->len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	ck_assert_str_eq(rest, text);
}

START_TEST(a_connection_becomes_a_consoles_behind_its_answer)
{
	static const char request[] =
		"{\"execute\":\"x-godwit-console\",\"arguments\":{"
		"\"device\":\"console1\",\"from\":150}}\nls\n";
	struct fake *fake = fake_new();
	struct peer *peer = peer_new(fake), *other = peer_new(fake);
	json_t *ret;

	fake_start(fake);
	meet(peer);
	meet(other);
	/* In one piece: what follows the request comes with it. */
	ck_assert(try_say(peer, request, strlen(request)));
	ret = hear(peer);
	ck_assert_str_eq(text_at(json_object_get(ret, "return"), "device"),
			 "console1");
	ck_assert_int_eq(json_integer_value(json_object_get(
				 json_object_get(ret, "return"), "offset")),
			 150);
	json_decref(ret);
	expect_rest(peer, "raw bytes");
	ck_assert_str_eq(fake->watched, "console1");
	ck_assert_uint_eq(fake->from, 150);
	/* What it sent behind the request is the guest's. */
	ck_assert_str_eq(fake->typed, "ls\n");
	peer_free(peer);
	ONE_PEER_GOES(fake, other);
}
END_TEST

START_TEST(a_console_begins_where_it_can)
{
	static const struct {
		const char *from;
		int offset;
	} cases[] = { { "0", 100 }, { "99", 100 }, { "201", 200 } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake *fake = fake_new();
		struct peer *peer = peer_new(fake);
		char line[128];
		json_t *ret;

		fake_start(fake);
		meet(peer);
		snprintf(line, sizeof(line),
			 "{\"execute\":\"x-godwit-console\",\"arguments\":{"
			 "\"from\":%s}}",
			 cases[i].from);
		ret = call(peer, line);
		ck_assert_str_eq(text_at(ret, "device"), "serial0");
		ck_assert_int_eq(
			json_integer_value(json_object_get(ret, "offset")),
			cases[i].offset);
		json_decref(ret);
		ONE_PEER_GOES(fake, peer);
	}
}
END_TEST

START_TEST(consoles_refuse_what_is_none)
{
	struct fake *fake = fake_new();
	struct peer *peer = peer_new(fake);

	fake_start(fake);
	meet(peer);
	refused(peer,
		"{\"execute\":\"x-godwit-console\",\"arguments\":{"
		"\"device\":\"none\"}}",
		"no console 'none'");
	refused(peer,
		"{\"execute\":\"x-godwit-console\",\"arguments\":{"
		"\"device\":7}}",
		"'device'");
	refused(peer,
		"{\"execute\":\"x-godwit-console\",\"arguments\":{"
		"\"from\":-1}}",
		"'from'");
	refused(peer,
		"{\"execute\":\"x-godwit-console-size\",\"arguments\":{"
		"\"columns\":65536}}",
		"65535");
	json_decref(call(peer, "{\"execute\":\"x-godwit-console-size\","
			       "\"arguments\":{\"device\":\"console0\","
			       "\"columns\":80,\"rows\":25}}"));
	ck_assert_str_eq(fake->watched, "console0");
	ck_assert_uint_eq(fake->columns, 80);
	ck_assert_uint_eq(fake->rows, 25);
	ONE_PEER_GOES(fake, peer);
}
END_TEST

UNIT_SUITE("qmp", nothing_is_done_before_negotiation,
	   an_id_comes_back_with_answers_and_errors,
	   mistakes_are_named_and_the_connection_goes_on,
	   the_vm_is_shown_in_qemus_shapes,
	   a_balloon_is_set_and_shown_in_qemus_shapes,
	   what_no_balloon_can_do_is_refused,
	   a_refusal_of_the_vm_is_told_in_its_words,
	   quit_is_answered_and_the_vm_told_who_wants_it,
	   migrate_takes_qemus_uris_and_our_limits,
	   migrate_refuses_what_it_can_not_do,
	   parameters_have_qemus_units_and_a_finer_one,
	   query_migrate_has_qemus_shape,
	   query_migrate_has_the_forecast_of_a_dry_run,
	   a_descriptor_is_passed_named_and_given_to_migrate,
	   descriptors_that_nobody_names_are_closed,
	   requests_come_in_any_pieces,
	   a_line_that_never_ends_is_answered_once_and_skipped,
	   deep_nesting_and_odd_bytes_are_errors_and_no_more,
	   a_client_that_asks_and_never_reads_is_not_listened_to,
	   a_client_that_does_not_read_events_is_hung_up_on,
	   events_are_for_those_who_have_negotiated,
	   clients_come_and_go_in_the_middle_of_things,
	   a_client_is_served_when_it_was_told_how_it_ended,
	   a_connection_becomes_a_consoles_behind_its_answer,
	   a_console_begins_where_it_can, consoles_refuse_what_is_none)
