// SPDX-License-Identifier: MIT
/*
 * `godwit resolve`: what becomes of a guest that was handed over to a target
 * that does not say whether it took it. Its operator decides, by what there is
 * to see elsewhere; what there is to see on this host is looked at here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/disk.h"
#include "migration/report.h"
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/rundir.h"

/* How long another VM may take to say whose guest it has. */
#define LOOK_PATIENCE (1 * NS_PER_S)

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
		name, client_text(info, "moving-to"), name, name);
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
	json_t *disks = client_ask(name, "query-block", NULL, err);
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
		rc = disk_look_for_writer(client_text(image, "file"), err);
		if (rc == -EBUSY) {
			error_prefix(err, "device %s",
				     client_text(disk, "device"));
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

struct look {
	const char *name;
	char session[REPORT_SESSION_MAX]; /* that it was handed over by */
	struct error *err;
	int found;
};

/* @info: of the VM @name. */
static int compare(const struct look *look, const char *name, json_t *info)
{
	if (strcmp(client_text(info, "session"), look->session) != 0)
		return 0;
	if (!strcmp(client_text(info, "status"), "inmigrate"))
		return error_set(look->err, -EBUSY,
				 "%s on this host may still take it; wait "
				 "until it has let go",
				 name);
	return error_set(look->err, -EBUSY,
			 "%s on this host has it; --discard is what is right",
			 name);
}

static void look_at_vm(void *opaque, const char *name)
{
	struct look *look = opaque;
	struct client client;
	struct error err;
	json_t *info = NULL;

	if (look->found || !strcmp(name, look->name))
		return;
	if (!client_open_within(name, LOOK_PATIENCE, &client, &err)) {
		info = client_call(&client, "x-godwit-info", NULL, &err);
		client_close(&client);
	}
	if (info)
		look->found = compare(look, name, info);
	else
		log_warn("%s: whether %s has it is not known: %s", look->name,
			 name, err.text);
	json_decref(info);
}

/* A target on this very host can be asked, also where it can't be reached. */
static int check_host(const char *name, struct error *err)
{
	json_t *report = client_ask(name, "x-godwit-report", NULL, err);
	struct look look = { .name = name, .err = err };
	struct rundir dir;
	int rc;

	if (!report)
		return -EIO;
	snprintf(look.session, sizeof(look.session), "%s",
		 client_text(report, "session"));
	json_decref(report);
	if (!look.session[0])
		return error_set(err, -EIO, "its move has no session");
	rc = rundir_open(false, &dir, err);
	if (rc)
		return rc;
	rc = rundir_list(&dir, look_at_vm, &look, err);
	rundir_close(&dir);
	return rc ? rc : look.found;
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
	json_t *info = client_ask(name, "x-godwit-info", NULL, err);

	if (!info || !strcmp(client_text(info, "status"), "uncertain"))
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
		return command_failed(options->name, &err);
	if (!decided)
		print_what_to_check(options->name, answer);
	json_decref(answer);
	if (!decided) {
		log_error("resolve: give --resume or --discard");
		return EXIT_USAGE;
	}
	print_what_it_means(options->name, options->resume);
	if (options->resume && check_host(options->name, &err))
		return command_failed(options->name, &err);
	if (options->resume && check_disks(options->name, &err)) {
		log_error("%s: %s; end that one first, or --discard",
			  options->name, err.text);
		return EXIT_FAILURE;
	}
	if (!confirmed(options->resume)) {
		log_error("resolve: nothing was changed");
		return EXIT_FAILURE;
	}
	answer =
		client_ask(options->name, "x-godwit-resolve",
			   json_pack("{s:b}", "resume", options->resume), &err);
	if (!answer)
		return command_failed(options->name, &err);
	json_decref(answer);
	return EXIT_SUCCESS;
}
