// SPDX-License-Identifier: MIT
/*
 * Short conversations with a VM; see commands.h. The long one, a migration, is
 * in command_migrate.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/disk.h"
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/progress.h"
#include "vmm/rundir.h"
#include "vmm/units.h"

/* How long `list` waits for all VMs together, and then still for each. */
#define LIST_PATIENCE (10 * NS_PER_S)
#define LIST_LEAST    (1 * NS_PER_S)

/* How long a move may take to be over once it is called off. */
#define CANCEL_PATIENCE (10 * NS_PER_S)

#define JSON_OUT (JSON_INDENT(2) | JSON_REAL_PRECISION(12))

static int failed(const char *name, const struct error *err)
{
	log_error("%s: %s", name, err->text);
	return EXIT_FAILURE;
}

/* One command in a connection of its own; NULL when it failed. */
static json_t *ask(const char *name, const char *command, json_t *arguments,
		   struct error *err)
{
	struct client client;
	json_t *answer;

	if (client_open(name, &client, err)) {
		json_decref(arguments);
		return NULL;
	}
	answer = client_call(&client, command, arguments, err);
	client_close(&client);
	return answer;
}

static void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_OUT);
	putchar('\n');
}

static const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static long long number_of(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* Whole megabytes, as its user writes them; a balloon counts in pages. */
static const char *size_of(json_t *object, const char *key,
			   char size[UNITS_TEXT_MAX])
{
	uint64_t bytes = (uint64_t)number_of(object, key);

	return units_size_text(bytes / MIB * MIB, size);
}

/* ---- one word to the VM ---- */

static int kill_vm(const char *name)
{
	struct client client;
	struct error err;
	json_t *answer;
	int rc;

	if (client_open(name, &client, &err))
		return failed(name, &err);
	answer = client_call(&client, "quit", NULL, &err);
	rc = answer ? client_wait_end(&client, &err) : -EIO;
	json_decref(answer);
	client_close(&client);
	return rc ? failed(name, &err) : EXIT_SUCCESS;
}

/* "": there was none. */
static bool is_over(const char *status)
{
	static const char *const over[] = { "", "completed", "failed",
					    "cancelled", "rehearsed" };

	for (size_t i = 0; i < ARRAY_SIZE(over); i++) {
		if (!strcmp(status, over[i]))
			return true;
	}
	return false;
}

static void note_end(void *opaque, const char *name, json_t *data)
{
	bool *ended = opaque;

	if (!strcmp(name, "MIGRATION") && is_over(text_of(data, "status")))
		*ended = true;
}

/* Until another may begin. */
static void await_end(struct client *client, const bool *ended)
{
	uint64_t deadline = clock_ns() + CANCEL_PATIENCE;
	struct error err;
	int rc = 0;

	while (!rc && !*ended && clock_ns() < deadline)
		rc = client_wait(client,
				 (int)((deadline - clock_ns()) / NS_PER_MS) + 1,
				 -1, &err);
	if (!rc && !*ended)
		log_warn("%s: it is called off, but not over yet; see `godwit "
			 "status %s`",
			 client->name, client->name);
}

/* QMP's own word for it is content when there is nothing to call off. */
static int cancel_move(const char *name)
{
	json_t *migration, *answer = NULL;
	bool ended = false;
	struct client client;
	struct error err;

	if (client_open(name, &client, &err))
		return failed(name, &err);
	client.on_event = note_end;
	client.opaque = &ended;
	migration = client_call(&client, "query-migrate", NULL, &err);
	if (migration && is_over(text_of(migration, "status")))
		(void)error_set(&err, -ENOENT,
				"no migration is under way; there is nothing "
				"to cancel");
	else if (migration)
		answer = client_call(&client, "migrate_cancel", NULL, &err);
	if (answer)
		await_end(&client, &ended);
	json_decref(migration);
	json_decref(answer);
	client_close(&client);
	return answer ? EXIT_SUCCESS : failed(name, &err);
}

int command_simple(const char *command, const char *name)
{
	static const struct {
		const char *command;
		const char *qmp;
	} words[] = {
		{ "pause", "stop" },
		{ "resume", "cont" },
		{ "reset", "system_reset" },
		{ "poweroff", "system_powerdown" },
	};
	struct error err;
	json_t *answer = NULL;

	if (!strcmp(command, "kill"))
		return kill_vm(name);
	if (!strcmp(command, "cancel"))
		return cancel_move(name);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(words[i].command, command))
			answer = ask(name, words[i].qmp, NULL, &err);
	}
	if (!answer)
		return failed(name, &err);
	json_decref(answer);
	return EXIT_SUCCESS;
}

int command_show(const struct name_options *options)
{
	struct error err;
	json_t *answer = ask(options->name, "x-godwit-show", NULL, &err);

	if (!answer)
		return failed(options->name, &err);
	puts(text_of(answer, "line"));
	if (json_is_true(json_object_get(answer, "image-came-along")))
		log_warn("the boot image came with the guest: copy the files "
			 "under /proc before the VM ends");
	json_decref(answer);
	return EXIT_SUCCESS;
}

/* ---- status and list ---- */

/* @to: the address, while it is under way; else "". */
static void print_migration(const char *name, json_t *migration, const char *to)
{
	const char *status = text_of(migration, "status");
	const char *why = text_of(migration, "error-desc");
	char line[PROGRESS_MAX];

	bool dry_run = json_is_true(json_object_get(migration, "dry-run"));

	if (!status[0])
		return;
	if (!strcmp(status, "uncertain")) {
		printf("  migration: uncertain: the guest was handed over to "
		       "%s, which does not\n"
		       "    say whether it runs there; it is kept paused here; "
		       "type `godwit resolve %s`\n"
		       "    to see what to check\n",
		       to, name);
		return;
	}
	printf("  %s: %s", dry_run ? "dry run" : "migration", status);
	if (progress_is_due(migration)) {
		progress_line(migration, sizeof(line), line, sizeof(line));
		printf("%s%s, for %.1f s: %s", to[0] ? " to " : "", to,
		       (double)number_of(migration, "total-time") / 1e3, line);
	}
	if (why[0] && strcmp(why, status) != 0)
		printf(": %s", why);
	printf("\n");
}

static void print_machine(const char *name, json_t *info)
{
	char size[UNITS_TEXT_MAX];

	printf("%s: %s\n  process %lld", name, text_of(info, "status"),
	       number_of(info, "pid"));
	if (number_of(info, "cpus"))
		printf(", %lld vCPUs, %s\n", number_of(info, "cpus"),
		       size_of(info, "memory", size));
	else
		printf(", no guest has come yet\n");
}

/* Nothing, unless somebody has asked the guest for memory. */
static void print_balloon(json_t *info)
{
	long long all = number_of(info, "memory");
	long long actual = number_of(info, "actual-memory");
	long long wanted = number_of(info, "wanted-memory");
	char size[UNITS_TEXT_MAX];

	if (!json_object_get(info, "actual-memory") ||
	    (actual == all && wanted == all))
		return;
	printf("  the guest has %s of it",
	       size_of(info, "actual-memory", size));
	if (wanted != actual)
		printf(", and is asked to have %s%s",
		       size_of(info, "wanted-memory", size),
		       json_is_true(json_object_get(info, "balloon-driver"))
			       ? ""
			       : "; no driver of its answers");
	printf("\n");
}

int command_status(const struct name_options *options)
{
	struct client client;
	struct error err;
	json_t *info, *migration = NULL;
	int rc;

	if (client_open(options->name, &client, &err))
		return failed(options->name, &err);
	info = client_call(&client, "x-godwit-info", NULL, &err);
	if (info)
		migration = client_call(&client, "query-migrate", NULL, &err);
	rc = migration ? EXIT_SUCCESS : failed(options->name, &err);
	if (migration && options->json) {
		json_object_set(info, "migration", migration);
		print_json(info);
	} else if (migration) {
		print_machine(options->name, info);
		print_balloon(info);
		if (text_of(info, "reason")[0])
			printf("  because %s\n", text_of(info, "reason"));
		print_migration(options->name, migration,
				text_of(info, "moving-to"));
	}
	json_decref(migration);
	json_decref(info);
	client_close(&client);
	return rc;
}

struct listing {
	json_t *vms;
	uint64_t deadline_ns;
};

static void list_one(void *opaque, const char *name)
{
	struct listing *listing = opaque;
	uint64_t patience = MAX(time_left(listing->deadline_ns), LIST_LEAST);
	struct client client;
	struct error err;
	json_t *info = NULL;

	if (!client_open_within(name, patience, &client, &err)) {
		info = client_call(&client, "x-godwit-info", NULL, &err);
		client_close(&client);
	}
	/* One that ends just now, or hangs, is no reason to show no other. */
	if (!info)
		info = json_pack("{s:s,s:s}", "status", "no answer", "error",
				 err.text);
	if (client.pid)
		json_object_set_new(info, "pid", json_integer(client.pid));
	/* By the name that finds it. */
	json_object_set_new(info, "name", json_string(name));
	json_array_append_new(listing->vms, info);
}

static void print_list(json_t *vms)
{
	size_t i;
	json_t *vm;

	printf("%-20s %-15s %8s %5s %10s\n", "NAME", "STATUS", "PROCESS",
	       "VCPUS", "MEMORY");
	json_array_foreach(vms, i, vm)
	{
		const char *to = text_of(vm, "moving-to");
		char size[UNITS_TEXT_MAX];

		printf("%-20s %-15s ", text_of(vm, "name"),
		       text_of(vm, "status"));
		if (number_of(vm, "pid"))
			printf("%8lld ", number_of(vm, "pid"));
		if (number_of(vm, "cpus"))
			printf("%5lld %10s", number_of(vm, "cpus"),
			       size_of(vm, "memory", size));
		if (to[0])
			printf("  %s to %s",
			       json_is_true(json_object_get(vm, "dry-run"))
				       ? "dry run"
				       : "moves",
			       to);
		printf("%s\n", text_of(vm, "error"));
	}
}

int command_list(const struct name_options *options)
{
	struct listing listing = { .vms = json_array(),
				   .deadline_ns = clock_ns() + LIST_PATIENCE };
	struct rundir dir;
	struct error err;
	json_t *object;
	int rc = rundir_open(false, &dir, &err);

	if (!rc) {
		rc = rundir_list(&dir, list_one, &listing, &err);
		rundir_close(&dir);
	}
	/* No directory: nothing has ever run. */
	if (rc && rc != -ENOENT) {
		json_decref(listing.vms);
		return failed("list", &err);
	}
	object = json_pack("{s:o}", "vms", listing.vms);
	if (options->json)
		print_json(object);
	else
		print_list(listing.vms);
	json_decref(object);
	return EXIT_SUCCESS;
}

/* ---- resolve ---- */

static void print_what_to_check(const char *name, json_t *info)
{
	fprintf(stderr,
		"%s was handed over to %s, which did not say whether it took "
		"it. Before you\ndecide:\n"
		"  1. Can the target's host be reached again? Then wait: this "
		"settles itself.\n"
		"  2. On that host, does `godwit list` show the guest, or did "
		"its console go on?\n"
		"     Then it runs there: `godwit resolve %s --discard`.\n"
		"  3. Is that host off for good, or its godwit process gone? "
		"That alone proves\n"
		"     nothing. Look at its log: where it says that the guest "
		"of the session\n"
		"     that the log here names runs there from now on, "
		"--discard; only where\n"
		"     it does not: `godwit resolve %s --resume`.\n"
		"  4. Is that log gone, too, with the host? Then nobody can "
		"know. --discard,\n"
		"     and start the guest again from its disks: it may have "
		"written to them.\n"
		"A guest that runs on both sides damages what it shares with "
		"the world.\n",
		name, text_of(info, "moving-to"), name, name);
}

/* Who has decided is told once more what that is right for. */
static void print_what_it_means(const char *name, bool resume)
{
	if (resume)
		fprintf(stderr,
			"%s will run here again. That is right only where its "
			"process at the target is gone\nor says that it "
			"destroyed the guest, and the log there does not say "
			"that the guest of\nthis session runs there from now "
			"on; else it runs twice.\n",
			name);
	else
		fprintf(stderr,
			"%s will end here. That is right only where the log at "
			"the target says that the guest\nof this session runs "
			"there from now on, or is lost; else the guest is.\n",
			name);
}

/*
 * When somebody else may write to a disk it is the target, or whoever came
 * after: two guests would write to it. That nobody may proves nothing.
 */
static int check_disks(const char *name, struct error *err)
{
	json_t *disks = ask(name, "query-block", NULL, err);
	json_t *disk;
	int rc = 0;
	size_t i;

	if (!disks)
		return -EIO;
	json_array_foreach(disks, i, disk)
	{
		json_t *image = json_object_get(disk, "inserted");

		if (json_is_true(json_object_get(image, "ro")))
			continue;
		rc = disk_look_for_writer(text_of(image, "file"), err);
		if (rc == -EBUSY) {
			error_prefix(err, "device %s", text_of(disk, "device"));
			break;
		}
		if (rc)
			log_warn("%s: %s: nothing is known of who may write "
				 "to it",
				 name, err->text);
	}
	json_decref(disks);
	return rc == -EBUSY ? rc : 0;
}

static bool confirmed(bool resume)
{
	const char *word = resume ? "resume" : "discard";
	char line[32];

	if (!isatty(STDIN_FILENO))
		return true;
	fprintf(stderr, "Type %s to do it: ", word);
	if (!fgets(line, sizeof(line), stdin))
		return false;
	line[strcspn(line, "\n")] = '\0';
	return !strcmp(line, word);
}

/* What there is to know of one that is uncertain; NULL when nothing is. */
static json_t *look_at_uncertain(const char *name, struct error *err)
{
	json_t *info = ask(name, "x-godwit-info", NULL, err);

	if (!info || !strcmp(text_of(info, "status"), "uncertain"))
		return info;
	json_decref(info);
	error_set(err, -EPERM,
		  "nothing is uncertain about this guest; there is nothing to "
		  "resolve");
	return NULL;
}

int command_resolve(const struct name_options *options)
{
	struct error err;
	json_t *answer = look_at_uncertain(options->name, &err);
	bool decided = options->resume || options->discard;

	if (!answer)
		return failed(options->name, &err);
	if (!decided)
		print_what_to_check(options->name, answer);
	json_decref(answer);
	if (!decided) {
		log_error("resolve: give --resume or --discard");
		return EXIT_USAGE;
	}
	print_what_it_means(options->name, options->resume);
	if (options->resume && check_disks(options->name, &err)) {
		log_error("%s: %s; end that one first, or --discard",
			  options->name, err.text);
		return EXIT_FAILURE;
	}
	if (!confirmed(options->resume)) {
		log_error("resolve: nothing was changed");
		return EXIT_FAILURE;
	}
	answer = ask(options->name, "x-godwit-resolve",
		     json_pack("{s:b}", "resume", options->resume), &err);
	if (!answer)
		return failed(options->name, &err);
	json_decref(answer);
	return EXIT_SUCCESS;
}
