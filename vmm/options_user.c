// SPDX-License-Identifier: MIT
/*
 * hostfwd=, of a --net with a user-mode network: which port of the host leads
 * to which of the guest.
 *
 *	tcp|udp:[ADDRESS:]PORT-[ADDRESS:]PORT
 *
 * An address that is left out is the loopback one on the host's side, and the
 * first that DHCP gives on the guest's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/options_internal.h"
#include "vmm/units.h"

static int refuse(const char *value, const char *why, struct error *err)
{
	return option_refuse(err,
			     "hostfwd=%s: %s; give it like "
			     "tcp:127.0.0.1:2222-:22",
			     value, why);
}

/* [ADDRESS:]PORT. Return: what is wrong; NULL: nothing. */
static const char *parse_end(char *text, struct in_addr *ret_address,
			     uint16_t *ret_port)
{
	char *colon = strrchr(text, ':');
	const char *port = colon ? colon + 1 : text;
	struct error ignored;
	uint64_t n;

	if (colon)
		*colon = '\0';
	if (colon && *text && inet_pton(AF_INET, text, ret_address) != 1)
		return "an address is none of IPv4";
	if (units_count(port, 1, UINT16_MAX, &n, &ignored))
		return "a port is a number from 1 to 65535";
	*ret_port = (uint16_t)n;
	return NULL;
}

/* One that the guest can have; all zero stands for what DHCP gives. */
static bool is_guests(struct in_addr address)
{
	uint32_t host = ntohl(address.s_addr);

	return !host ||
	       ((host & USER_NETMASK) == USER_NETWORK && host != USER_NETWORK &&
		host != (USER_NETWORK | ~USER_NETMASK) && host != USER_HOST &&
		host != USER_NAME_SERVER);
}

static bool same_port(const struct user_forward *a,
		      const struct user_forward *b)
{
	return a->udp == b->udp && a->host_port == b->host_port &&
	       a->host_address.s_addr == b->host_address.s_addr;
}

static int keep(const char *value, const struct user_forward *forward,
		struct tap_options *net, struct error *err)
{
	for (uint32_t i = 0; i < net->nforwards; i++) {
		if (same_port(&net->forwards[i], forward))
			return option_refuse(err,
					     "hostfwd=%s: an earlier one has "
					     "this port of the host; give "
					     "another",
					     value);
	}
	if (net->nforwards == USER_FORWARDS_MAX)
		return option_refuse(err,
				     "hostfwd=%s: a card has at most %d; leave "
				     "some out",
				     value, USER_FORWARDS_MAX);
	net->forwards[net->nforwards++] = *forward;
	return 0;
}

int option_user_forward(const char *value, struct tap_options *net,
			struct error *err)
{
	struct user_forward forward = {
		.host_address.s_addr = htonl(INADDR_LOOPBACK),
	};
	char text[USER_FORWARD_TEXT];
	const char *wrong;
	char *guest;

	if (strlen(value) >= sizeof(text))
		return refuse(value, "it is too long", err);
	strcpy(text, value);
	forward.udp = !strncmp(text, "udp:", 4);
	if (!forward.udp && strncmp(text, "tcp:", 4) != 0)
		return refuse(value,
			      "it begins with neither tcp: nor udp:", err);
	guest = strchr(text, '-');
	if (!guest)
		return refuse(value, "no '-' leads to the guest's port", err);
	*guest++ = '\0';
	wrong = parse_end(text + 4, &forward.host_address, &forward.host_port);
	if (!wrong)
		wrong = parse_end(guest, &forward.guest_address,
				  &forward.guest_port);
	if (!wrong && !is_guests(forward.guest_address))
		wrong = "no guest has that address, but one of 10.0.2.0/24 "
			"beside 10.0.2.2 and 10.0.2.3";
	return wrong ? refuse(value, wrong, err)
		     : keep(value, &forward, net, err);
}
