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

int command_failed(const char *name, const struct error *err)
{
	log_error("%s: %s", name, err->text);
	return EXIT_FAILURE;
}

static void print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_OUT);
	putchar('\n');
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
		return command_failed(name, &err);
	answer = client_call(&client, "quit", NULL, &err);
	rc = answer ? client_wait_end(&client, &err) : -EIO;
	json_decref(answer);
	client_close(&client);
	return rc ? command_failed(name, &err) : EXIT_SUCCESS;
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

	if (!strcmp(name, "MIGRATION") && is_over(client_text(data, "status")))
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
		return command_failed(name, &err);
	client.on_event = note_end;
	client.opaque = &ended;
	migration = client_call(&client, "query-migrate", NULL, &err);
	if (migration && is_over(client_text(migration, "status")))
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
	return answer ? EXIT_SUCCESS : command_failed(name, &err);
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
			answer = client_ask(name, words[i].qmp, NULL, &err);
	}
	if (!answer)
		return command_failed(name, &err);
	json_decref(answer);
	return EXIT_SUCCESS;
}

int command_show(const struct name_options *options)
{
	struct error err;
	json_t *answer = client_ask(options->name, "x-godwit-show", NULL, &err);

	if (!answer)
		return command_failed(options->name, &err);
	puts(client_text(answer, "line"));
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
	const char *status = client_text(migration, "status");
	const char *why = client_text(migration, "error-desc");
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

	printf("%s: %s\n  process %lld", name, client_text(info, "status"),
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
		return command_failed(options->name, &err);
	info = client_call(&client, "x-godwit-info", NULL, &err);
	if (info)
		migration = client_call(&client, "query-migrate", NULL, &err);
	rc = migration ? EXIT_SUCCESS : command_failed(options->name, &err);
	if (migration && options->json) {
		json_object_set(info, "migration", migration);
		print_json(info);
	} else if (migration) {
		print_machine(options->name, info);
		print_balloon(info);
		if (client_text(info, "reason")[0])
			printf("  because %s\n", client_text(info, "reason"));
		print_migration(options->name, migration,
				client_text(info, "moving-to"));
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
		const char *to = client_text(vm, "moving-to");
		char size[UNITS_TEXT_MAX];

		printf("%-20s %-15s ", client_text(vm, "name"),
		       client_text(vm, "status"));
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
		printf("%s\n", client_text(vm, "error"));
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
		return command_failed("list", &err);
	}
	object = json_pack("{s:o}", "vms", listing.vms);
	if (options->json)
		print_json(object);
	else
		print_list(listing.vms);
	json_decref(object);
	return EXIT_SUCCESS;
}
