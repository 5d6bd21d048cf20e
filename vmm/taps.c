// SPDX-License-Identifier: MIT
/*
 * Taps, opened for devices; see taps.h.
 *
 * A listener gives each attempt a tap of its own on the queues that it has had
 * from the beginning (tap_dup()): in the sandbox nothing can be opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "devices/backend/tap.h"
#include "devices/backend/user.h"
#include "devices/virtio/net.h"
#include "vmm/taps.h"

#define NET_DEVICE "virtio-net"

/* The words that a --net says otherwise: by tap=, or not at all. */
static const char *const unsaid[] = { "name=", "mtu=", "kind=" };

struct taps {
	const struct taps_options *options;
	struct device_taps backends;
	/* By place in options. */
	struct tap *named[MACHINE_DEVICES_MAX];
	struct user *users[MACHINE_DEVICES_MAX]; /* NULL: no such thing */
};

/* ---- a tap for a device ---- */

/* The place of --net @id on the command line; -1: it isn't there. */
static int find_named(const struct taps *taps, const char *id)
{
	for (uint32_t i = 0; i < taps->options->count; i++) {
		if (!strcmp(taps->options->taps[i].id, id))
			return (int)i;
	}
	return -1;
}

/* `run`: it is open since the command line was read. */
static int hand_out(void *opaque, const char *id,
		    const char *name __maybe_unused, unsigned int queues,
		    bool user __maybe_unused, struct tap **ret,
		    struct error *err)
{
	struct taps *taps = opaque;
	int at = find_named(taps, id);

	if (at < 0)
		return error_set(err, -ENOENT,
				 "no --net of this id on the command line");
	return tap_dup(taps->named[at], queues, ret, err);
}

static int refuse_unnamed(const char *id, const char *name, unsigned int queues,
			  bool user, struct error *err)
{
	if (user)
		return error_set(err, -ENOENT,
				 "this listener has no network for it; start "
				 "it with --net %s=user, and the ports of this "
				 "host that are to lead there",
				 id);
	return error_set(err, -ENOENT,
			 "this listener has no tap for it; start it "
			 "with --net %s=tap=NAME%s%s%s%s",
			 id, queues > 1 ? ",queues=N" : "",
			 name[0] ? " (the source has it on '" : "", name,
			 name[0] ? "')" : "");
}

/* `listen`: what the command line names, silent. */
static int receive(void *opaque, const char *id, const char *name,
		   unsigned int queues, bool user, struct tap **ret,
		   struct error *err)
{
	struct taps *taps = opaque;
	int at = find_named(taps, id);
	int rc;

	if (at < 0)
		return refuse_unnamed(id, name, queues, user, err);
	if (taps->users[at] && !user)
		return error_set(err, -EOPNOTSUPP,
				 "the guest has it on a tap, and may send what "
				 "only a tap can finish; start the listener "
				 "with --net %s=tap=NAME",
				 id);
	if (tap_queues(taps->named[at]) < queues)
		return error_set(err, -ENOSPC,
				 "the guest has %u queues; start the listener "
				 "with --net %s=tap=%s,queues=%u",
				 queues, id, tap_name(taps->named[at]), queues);
	rc = tap_dup(taps->named[at], queues, ret, err);
	/* An attempt before may have listened to it already. */
	if (!rc)
		tap_hush(*ret);
	return rc;
}

/* ---- opening ---- */

static int start_user(struct taps *taps, uint32_t at, bool listens, bool caged,
		      struct error *err)
{
	const struct tap_options *options = &taps->options->taps[at];
	const struct user_params params = {
		.id = options->id,
		.forwards = options->forwards,
		.nforwards = options->nforwards,
		.waits = listens,
		.caged = caged,
	};

	return user_create(&params, &taps->users[at], err);
}

static int open_one(struct taps *taps, uint32_t at, bool listens, bool caged,
		    struct error *err)
{
	const struct tap_options *options = &taps->options->taps[at];
	struct tap_params params = {
		.name = options->name[0] ? options->name : NULL,
		.fd = options->fd,
		.queues = options->queues,
	};
	int rc = 0;

	if (options->user) {
		rc = start_user(taps, at, listens, caged, err);
		params.user = taps->users[at];
		params.fd =
			rc ? -1
			   : fcntl(user_fd(params.user), F_DUPFD_CLOEXEC, 0);
	}
	if (!rc)
		rc = tap_open(&params, &taps->named[at], err);
	if (rc)
		error_prefix(err, "--net");
	else if (listens)
		tap_hush(taps->named[at]);
	return rc;
}

int taps_open(const struct taps_options *options, bool listens, bool caged,
	      struct taps **ret, struct error *err)
{
	struct taps *taps = calloc(1, sizeof(*taps));
	int rc = 0;

	if (!taps)
		return error_set(err, -ENOMEM, "taps: out of memory");
	taps->options = options;
	taps->backends = (struct device_taps){
		.open_tap = listens ? receive : hand_out,
		.opaque = taps,
	};
	for (uint32_t i = 0; i < options->count && !rc; i++)
		rc = open_one(taps, i, listens, caged, err);
	if (rc)
		taps_free(taps);
	else
		*ret = taps;
	return rc;
}

void taps_free(struct taps *taps)
{
	if (!taps)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(taps->named); i++)
		tap_close(taps->named[i]);
	for (size_t i = 0; i < ARRAY_SIZE(taps->users); i++)
		user_free(taps->users[i]);
	free(taps);
}

const struct device_taps *taps_backends(const struct taps *taps)
{
	return &taps->backends;
}

/* ---- devices of a machine, words of a command line ---- */

/* One that nobody else has, as far as chance goes: locally administered. */
static int make_mac(uint8_t mac[NET_MAC], struct error *err)
{
	if (getrandom(mac, NET_MAC, 0) != NET_MAC)
		return error_set(err, -errno, "a random address: %s",
				 strerror(errno));
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
	return 0;
}

static int describe(const struct tap_options *options, const struct tap *tap,
		    struct device_config *config, struct error *err)
{
	unsigned int mtu = MIN(tap_mtu(tap), NET_MTU_MAX);
	uint8_t mac[NET_MAC];
	int rc = 0;

	memcpy(mac, options->mac, sizeof(mac));
	if (!options->has_mac)
		rc = make_mac(mac, err);
	if (rc)
		return rc;
	/* A socket says nothing of it: what is usual. */
	if (!tap_is_interface(tap))
		mtu = USER_MTU;
	if (tap_user(tap)) {
		snprintf(config->options, sizeof(config->options),
			 "mac=%02x:%02x:%02x:%02x:%02x:%02x,queues=1,mtu=%u,"
			 "kind=user",
			 mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], mtu);
		return 0;
	}
	if (mtu < NET_MTU_MIN)
		return error_set(err, -EMSGSIZE,
				 "tap %s has an MTU of %u; `ip link set %s mtu "
				 "1500`",
				 tap_name(tap), mtu, tap_name(tap));
	snprintf(config->options, sizeof(config->options),
		 "mac=%02x:%02x:%02x:%02x:%02x:%02x,queues=%u,mtu=%u,name=%s",
		 mac[0], mac[1], mac[2], mac[3], mac[4], mac[5],
		 options->queues, mtu, tap_name(tap));
	return 0;
}

int taps_add_devices(const struct taps *taps, struct machine *machine,
		     struct error *err)
{
	for (uint32_t i = 0; i < taps->options->count; i++) {
		const struct tap_options *options = &taps->options->taps[i];
		struct device_config config = {
			.type = NET_DEVICE,
			.vectors = options->vectors,
		};
		int rc;

		memcpy(config.id, options->id, sizeof(config.id));
		rc = describe(options, taps->named[i], &config, err);
		if (!rc)
			rc = machine_add_device(machine, &config, err);
		if (rc) {
			error_prefix(err, "--net %s", options->id);
			return rc;
		}
	}
	return 0;
}

static bool is_unsaid(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(unsaid); i++) {
		if (!strncmp(word, unsaid[i], strlen(unsaid[i])))
			return true;
	}
	return false;
}

/* Of a user-mode network nobody says that there is one. */
static bool is_queues(const char *word)
{
	return !strncmp(word, "queues=", strlen("queues="));
}

static void put_user(const struct tap_options *options, FILE *to)
{
	char text[USER_FORWARD_TEXT];

	fprintf(to, "user");
	for (uint32_t i = 0; i < options->nforwards; i++)
		fprintf(to, ",hostfwd=%s",
			user_forward_text(&options->forwards[i], text));
}

bool taps_put_words(const struct taps *taps, const struct device_config *config,
		    FILE *to)
{
	const char *word = config->options;
	int at = find_named(taps, config->id);

	if (at < 0)
		return false;
	if (taps->users[at])
		put_user(&taps->options->taps[at], to);
	else if (tap_is_interface(taps->named[at]))
		fprintf(to, "tap=%s", tap_name(taps->named[at]));
	else
		fprintf(to, "fd=%d", taps->options->taps[at].fd);
	fprintf(to, ",id=%s", config->id);
	while (*word) {
		size_t len = strcspn(word, ",");

		if (!is_unsaid(word) && !(taps->users[at] && is_queues(word)))
			fprintf(to, ",%.*s", (int)len, word);
		word += len;
		word += *word == ',';
	}
	fprintf(to, ",vectors=%u", config->vectors);
	return true;
}
