// SPDX-License-Identifier: MIT
/*
 * `godwit set`: what a VM's migrations may take and what its guest may keep;
 * changed, if there is something to change, and then shown as it is in force.
 */
#include <errno.h>
#include <stdio.h>

#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/units.h"

static uint64_t number_of(json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static json_t *make_arguments(const struct set_options *set)
{
	switch (set->parameter) {
	case SET_MAX_DOWNTIME:
		/* Rounded up: what was asked for is not to become "none". */
		return json_pack(
			"{s:I}", "x-godwit-downtime-limit-us",
			(json_int_t)div_round_up(set->value, NS_PER_US));
	case SET_BANDWIDTH:
		return json_pack("{s:I}", "max-bandwidth",
				 (json_int_t)set->value);
	case SET_MEMORY:
		return json_pack("{s:I}", "value", (json_int_t)set->value);
	}
	return NULL;
}

static int change(struct client *client, const struct set_options *set,
		  struct error *err)
{
	const char *command = set->parameter == SET_MEMORY
				      ? "balloon"
				      : "migrate-set-parameters";
	json_t *answer = client_call(client, command, make_arguments(set), err);

	json_decref(answer);
	return answer ? 0 : -EIO;
}

/* ---- what is in force now ---- */

static int print_limits(struct client *client, struct error *err)
{
	json_t *limits =
		client_call(client, "query-migrate-parameters", NULL, err);
	uint64_t us = number_of(limits, "x-godwit-downtime-limit-us");
	uint64_t bandwidth = number_of(limits, "max-bandwidth");
	char text[UNITS_TEXT_MAX];

	if (!limits)
		return -EIO;
	printf("%s: max-downtime %s, bandwidth ", client->name,
	       units_time_text(us * NS_PER_US, text));
	if (bandwidth)
		printf("%s a second\n", units_size_text(bandwidth, text));
	else
		printf("not limited\n");
	json_decref(limits);
	return 0;
}

/* A wish that nobody hears is no mistake: a driver may come yet. */
static void print_wish(const struct client *client, json_t *info)
{
	uint64_t actual = number_of(info, "actual-memory");
	uint64_t wanted = number_of(info, "wanted-memory");
	char text[UNITS_TEXT_MAX];

	if (actual != number_of(info, "memory"))
		printf(", of which the guest has %s",
		       units_size_text(actual / MIB * MIB, text));
	if (actual != wanted)
		printf(", and it is asked to have %s",
		       units_size_text(wanted, text));
	printf("\n");
	if (actual != wanted &&
	    !json_is_true(json_object_get(info, "balloon-driver")))
		log_warn("%s: the guest has no virtio-balloon driver that "
			 "answers; nothing changes until one does",
			 client->name);
}

static int print_memory(struct client *client, struct error *err)
{
	json_t *info = client_call(client, "x-godwit-info", NULL, err);
	char text[UNITS_TEXT_MAX];

	if (!info)
		return -EIO;
	printf("%s: memory %s", client->name,
	       units_size_text(number_of(info, "memory"), text));
	if (!number_of(info, "memory"))
		printf(": no guest has come yet\n");
	else if (json_object_get(info, "actual-memory"))
		print_wish(client, info);
	else
		printf(", all of which it keeps: --balloon off\n");
	json_decref(info);
	return 0;
}

int command_set(const struct set_options *set)
{
	bool all = !set->has_parameter;
	struct client client;
	struct error err;
	int rc = client_open(set->name, &client, &err);

	if (!rc && set->has_value)
		rc = change(&client, set, &err);
	if (!rc && (all || set->parameter != SET_MEMORY))
		rc = print_limits(&client, &err);
	if (!rc && (all || set->parameter == SET_MEMORY))
		rc = print_memory(&client, &err);
	client_close(&client);
	if (rc)
		log_error("%s: %s", set->name, err.text);
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
