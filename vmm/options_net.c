// SPDX-License-Identifier: MIT
/*
 * --net, as `run` and `listen` have it: a tap, or a user-mode network, and what
 * follows it, between commas. `run` describes the device, `listen` says what a
 * device that comes gets here.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio/net.h"
#include "vmm/options_internal.h"
#include "vmm/units.h"

_Static_assert(sizeof((struct tap_options){ 0 }.mac) == NET_MAC &&
		       sizeof((struct tap_options){ 0 }.name) ==
			       TAP_NAME_MAX + 1,
	       "what a device has is what can be said");

/* What one piece of the text sets; bits, so that none is given twice. */
enum net_word {
	WORD_TAP,
	WORD_FD,
	WORD_USER,
	WORD_HOSTFWD,
	WORD_ID,
	WORD_MAC,
	WORD_QUEUES,
	WORD_VECTORS,
	WORDS,
};

#define BIT(word) (1U << (word))

/* In the order of enum net_word. */
static const char *const words[] = { "tap",	"fd",	   "user",
				     "hostfwd", "id",	   "mac",
				     "queues",	"vectors", NULL };
_Static_assert(ARRAY_SIZE(words) == WORDS + 1, "each word has its name");

/* What it is on the host's side: one of these. */
#define KINDS (BIT(WORD_TAP) | BIT(WORD_FD) | BIT(WORD_USER))

#define LISTEN_WORDS (KINDS | BIT(WORD_HOSTFWD) | BIT(WORD_QUEUES))

/* Those that say all by being there, and those that may be repeated. */
#define FLAGS	 BIT(WORD_USER)
#define REPEATED BIT(WORD_HOSTFWD)

static int take_tap(const char *value, struct tap_options *net,
		    struct error *err)
{
	size_t len = strlen(value);

	for (const char *at = value; *at; at++) {
		if (*at <= ' ' || *at > '~' || *at == '/' || *at == '=')
			len = 0;
	}
	if (!len || len > TAP_NAME_MAX)
		return option_refuse(err,
				     "tap=%s: give the name of an interface, 1 "
				     "to %d letters, digits and signs",
				     value, TAP_NAME_MAX);
	memcpy(net->name, value, len + 1);
	return 0;
}

static int take_count(enum net_word word, const char *value, uint64_t min,
		      uint64_t max, uint32_t *ret, struct error *err)
{
	uint64_t n;
	int rc = units_count(value, min, max, &n, err);

	if (rc) {
		error_prefix(err, "%s=%s", words[word], value);
		return rc;
	}
	*ret = (uint32_t)n;
	return 0;
}

/* Below are standard input, output and error. */
static int take_fd(const char *value, struct tap_options *net,
		   struct error *err)
{
	uint32_t fd;
	int rc = take_count(WORD_FD, value, 3, INT32_MAX, &fd, err);

	if (!rc)
		net->fd = (int)fd;
	return rc;
}

static int take_id(const char *value, struct tap_options *net,
		   struct error *err)
{
	int rc = machine_id_check(value, err);

	if (!rc)
		strcpy(net->id, value);
	return rc;
}

static int take_mac(const char *value, struct tap_options *net,
		    struct error *err)
{
	net->has_mac = net_mac_parse(value, net->mac);
	if (net->has_mac)
		return 0;
	return option_refuse(err,
			     "mac=%s: give six bytes like 52:54:00:12:34:56, "
			     "the first one even",
			     value);
}

/* What doesn't fit into the vectors is refused for a reason of ours. */
static int take_queues(const char *value, struct tap_options *net,
		       struct error *err)
{
	int rc = take_count(WORD_QUEUES, value, 1, UINT16_MAX, &net->queues,
			    err);

	if (!rc && net->queues > NET_PAIRS_MAX)
		return option_refuse(err,
				     "queues=%s: at most %d, so that each has "
				     "two of the %d vectors that any peer can "
				     "hold",
				     value, NET_PAIRS_MAX, DEVICE_VECTORS_MAX);
	return rc;
}

static int take_vectors(const char *value, struct tap_options *net,
			struct error *err)
{
	int rc = take_count(WORD_VECTORS, value, 1, UINT16_MAX, &net->vectors,
			    err);

	if (!rc && net->vectors > DEVICE_VECTORS_MAX)
		return option_refuse(err,
				     "vectors=%s: at most %d a device, so that "
				     "any peer can hold them",
				     value, DEVICE_VECTORS_MAX);
	return rc;
}

static int take_word(enum net_word word, const char *value,
		     struct tap_options *net, struct error *err)
{
	switch (word) {
	case WORD_TAP:
		return take_tap(value, net, err);
	case WORD_FD:
		return take_fd(value, net, err);
	case WORD_USER:
		net->user = true;
		return 0;
	case WORD_HOSTFWD:
		return option_user_forward(value, net, err);
	case WORD_ID:
		return take_id(value, net, err);
	case WORD_MAC:
		return take_mac(value, net, err);
	case WORD_QUEUES:
		return take_queues(value, net, err);
	case WORD_VECTORS:
		return take_vectors(value, net, err);
	case WORDS:
		break;
	}
	return -EINVAL;
}

/* @seen: what came before, which says what may come yet. */
static const char *other_words(unsigned int seen, unsigned int allowed)
{
	bool run = allowed & BIT(WORD_ID);

	if (seen & BIT(WORD_USER))
		return run ? "id=, mac=, vectors= or hostfwd=" : "hostfwd=";
	if (seen & BIT(WORD_TAP))
		return run ? "id=, mac=, queues= or vectors=" : "queues=";
	if (seen & BIT(WORD_FD))
		return run ? "id=, mac= or vectors=" : "fd=N alone";
	return "tap=NAME or user";
}

static int refuse_word(const char *word, unsigned int seen,
		       unsigned int allowed, struct error *err)
{
	const char *near = options_nearest(word, words);

	if (near)
		return option_refuse(err,
				     "'%s': no such word; did you mean %s?",
				     word, near);
	return option_refuse(err, "'%s': no such word; give %s", word,
			     other_words(seen, allowed));
}

static int take_piece(char *piece, unsigned int allowed,
		      struct tap_options *net, unsigned int *seen,
		      struct error *err)
{
	char *value = strchr(piece, '=');
	unsigned int word = 0;

	if (value)
		*value++ = '\0';
	while (words[word] && strcmp(words[word], piece) != 0)
		word++;
	if (!words[word])
		return refuse_word(piece, *seen, allowed, err);
	if (!(allowed & BIT(word)))
		return option_refuse(err,
				     "%s: the guest brings that along; leave "
				     "it out",
				     piece);
	if (*seen & BIT(word) & ~REPEATED)
		return option_refuse(err, "%s: given twice; give it once",
				     piece);
	*seen |= BIT(word);
	if (!value && !(BIT(word) & FLAGS))
		return option_refuse(err, "%s: needs a value, like %s=…", piece,
				     piece);
	if (value && BIT(word) & FLAGS)
		return option_refuse(err, "%s=%s: give %s alone", piece, value,
				     piece);
	return take_word((enum net_word)word, value, net, err);
}

/* Words that don't go together. */
static int check_words(const struct tap_options *net, unsigned int seen,
		       struct error *err)
{
	unsigned int kind = seen & KINDS;

	if (!kind || kind & (kind - 1))
		return option_refuse(err,
				     "give one of tap=NAME, user, and fd=N, an "
				     "open tap's");
	if (seen & BIT(WORD_HOSTFWD) && !net->user)
		return option_refuse(err,
				     "hostfwd: a tap has no ports; give it "
				     "with user");
	if (net->queues > 1 && !(seen & BIT(WORD_TAP)))
		return option_refuse(err, "queues=%u: %s; give tap=NAME",
				     net->queues,
				     net->user ? "a user-mode network is one "
						 "queue"
					       : "a descriptor is one queue");
	return 0;
}

static int parse(const char *text, unsigned int allowed,
		 struct tap_options *net, struct error *err)
{
	unsigned int seen = 0;
	int rc = 0;

	while (!rc) {
		size_t len = strcspn(text, ",");
		char piece[80];

		if (len >= sizeof(piece))
			return option_refuse(err,
					     "longer than %zu bytes between "
					     "two commas",
					     sizeof(piece) - 1);
		memcpy(piece, text, len);
		piece[len] = '\0';
		rc = take_piece(piece, allowed, net, &seen, err);
		text += len;
		if (!*text++)
			break;
	}
	return rc ? rc : check_words(net, seen, err);
}

int option_net_run(const char *text, struct tap_options *ret, struct error *err)
{
	int rc;

	*ret = (struct tap_options){ .queues = 1, .fd = -1 };
	rc = parse(text, BIT(WORDS) - 1, ret, err);
	/* Two a pair, one for commands, one for the configuration. */
	if (!rc && !ret->vectors)
		ret->vectors = 2 * ret->queues + 2;
	return rc;
}

static bool is_backend(const char *text)
{
	return !strncmp(text, "tap=", 4) || !strncmp(text, "fd=", 3) ||
	       (!strncmp(text, "user", 4) && (!text[4] || text[4] == ','));
}

int option_net_listen(const char *text, struct tap_options *ret,
		      struct error *err)
{
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : 0;
	int rc;

	*ret = (struct tap_options){ .queues = 1, .fd = -1 };
	if (!equals || len >= sizeof(ret->id) || !is_backend(equals + 1))
		return option_refuse(err,
				     "give the device's id and what it gets "
				     "here, like net0=tap=tap1 or net0=user");
	memcpy(ret->id, text, len);
	rc = machine_id_check(ret->id, err);
	if (rc)
		return rc;
	return parse(equals + 1, LISTEN_WORDS, ret, err);
}
