// SPDX-License-Identifier: MIT
/*
 * A network device's options; net.h says what there is.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/net.h"

enum option {
	OPTION_MAC,
	OPTION_MTU,
	OPTION_QUEUES,
	OPTION_KIND,
	OPTION_NAME,
	OPTIONS,
};

static const char *const names[] = { "mac", "mtu", "queues", "kind", "name" };

_Static_assert(ARRAY_SIZE(names) == OPTIONS, "each option has a name");

static int digit(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	return isxdigit((unsigned char)c) ? tolower(c) - 'a' + 10 : -1;
}

bool net_mac_parse(const char *text, uint8_t ret[NET_MAC])
{
	uint8_t any = 0;

	for (unsigned int i = 0; i < NET_MAC; i++, text += 3) {
		int high = digit(text[0]);
		int low = high < 0 ? -1 : digit(text[1]);

		if (low < 0 || text[2] != (i < NET_MAC - 1 ? ':' : '\0'))
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
		any |= ret[i];
	}
	return any && !(ret[0] & 1);
}

/* Decimal digits and nothing else. */
static bool number(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
	char *end;
	unsigned long n;

	if (!isdigit((unsigned char)*text) || strlen(text) > 9)
		return false;
	n = strtoul(text, &end, 10);
	*ret = (uint32_t)n;
	return !*end && n >= min && n <= max;
}

static bool name_fits(const char *text, char *buf)
{
	size_t len = strlen(text);

	if (!len || len > NET_NAME_MAX)
		return false;
	for (const char *at = text; *at; at++) {
		if (*at <= ' ' || *at > '~')
			return false;
	}
	memcpy(buf, text, len + 1);
	return true;
}

static bool take(enum option which, const char *value, struct net_options *o)
{
	switch (which) {
	case OPTION_MAC:
		return net_mac_parse(value, o->mac);
	case OPTION_MTU:
		return number(value, NET_MTU_MIN, NET_MTU_MAX, &o->mtu);
	case OPTION_QUEUES:
		return number(value, 1, NET_PAIRS_MAX, &o->queues);
	case OPTION_KIND:
		o->user = !strcmp(value, "user");
		return o->user || !strcmp(value, "tap");
	case OPTION_NAME:
		return name_fits(value, o->name);
	case OPTIONS:
		break;
	}
	return false;
}

static bool parse_one(const char *option, struct net_options *o,
		      unsigned int *seen)
{
	size_t len = strcspn(option, "=");

	if (!option[len])
		return false;
	for (unsigned int i = 0; i < OPTIONS; i++) {
		if (strlen(names[i]) != len || strncmp(names[i], option, len))
			continue;
		if (*seen & 1U << i)
			return false;
		*seen |= 1U << i;
		return take((enum option)i, option + len + 1, o);
	}
	return false;
}

int net_options_parse(const char *text, struct net_options *ret,
		      struct error *err)
{
	char option[DEVICE_OPTIONS_MAX];
	unsigned int seen = 0;
	const char *at = text;

	*ret = (struct net_options){ .mtu = 1500, .queues = 1 };
	while (*at) {
		size_t len = MIN(strcspn(at, ","), sizeof(option) - 1);

		memcpy(option, at, len);
		option[len] = '\0';
		at += len;
		if (!parse_one(option, ret, &seen) || (*at && !*++at))
			return error_set(err, -EINVAL,
					 "the network device's option '%.80s'",
					 option);
	}
	if (!(seen & 1U << OPTION_MAC))
		return error_set(err, -EINVAL,
				 "the network device has no option mac=");
	return 0;
}
