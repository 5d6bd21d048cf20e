// SPDX-License-Identifier: MIT
/*
 * The stack behind the user-mode network: libslirp, with the addresses that
 * user.h promises. Lives in the process that user_child.c is about, in one
 * thread; all it knows of the world are frames and descriptors to wait for.
 */
#ifdef HAVE_LIBSLIRP
#include <arpa/inet.h>
#include <errno.h>
#include <glib.h>
/* We have our own. */
#undef MIN
#undef MAX
#include <libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/backend/user_internal.h"
#include "vmm/log.h"

/* It has one, for router advertisements. */
#define TIMERS 4

/* Without anything to wait for it asks to be woken as often; needlessly. */
#define IDLE_MS 1000

struct user_timer {
	SlirpTimerCb fn; /* NULL: free */
	void *opaque;
	int64_t expires_ms; /* INT64_MAX: not armed */
};

struct user_net {
	Slirp *slirp;
	user_net_send_fn *send;
	void *opaque;
	struct user_timer timers[TIMERS];

	/* Those that are waited for, in the caller's array. */
	struct pollfd *fds;
	unsigned int nfds;
	unsigned int max;
	bool waited;

	bool is_connection[USER_FDS_MAX];
	unsigned int connections;
};

/* ---- what libslirp asks of us ---- */

static ssize_t on_send(const void *frame, size_t len, void *opaque)
{
	struct user_net *net = opaque;

	net->send(net->opaque, frame, len);
	return (ssize_t)len;
}

static void on_guest_error(const char *text, void *opaque __maybe_unused)
{
	log_debug("user network: %s", text);
}

static int64_t on_clock(void *opaque __maybe_unused)
{
	return (int64_t)clock_ns();
}

static void *on_timer_new(SlirpTimerCb fn, void *timer_opaque, void *opaque)
{
	struct user_net *net = opaque;

	for (unsigned int i = 0; i < TIMERS; i++) {
		if (net->timers[i].fn)
			continue;
		net->timers[i] =
			(struct user_timer){ fn, timer_opaque, INT64_MAX };
		return &net->timers[i];
	}
	return NULL;
}

static void on_timer_free(void *timer, void *opaque __maybe_unused)
{
	if (timer)
		*(struct user_timer *)timer = (struct user_timer){ 0 };
}

static void on_timer_mod(void *timer, int64_t expires_ms,
			 void *opaque __maybe_unused)
{
	if (timer)
		((struct user_timer *)timer)->expires_ms = expires_ms;
}

/* Called for each connection of TCP, and for some that are none. */
static void on_register(int fd, void *opaque)
{
	struct user_net *net = opaque;
	socklen_t len = sizeof(int);
	int type = 0;

	if (fd < 0 || fd >= USER_FDS_MAX || net->is_connection[fd] ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    type != SOCK_STREAM)
		return;
	net->is_connection[fd] = true;
	net->connections++;
}

static void on_unregister(int fd, void *opaque)
{
	struct user_net *net = opaque;

	if (fd < 0 || fd >= USER_FDS_MAX || !net->is_connection[fd])
		return;
	net->is_connection[fd] = false;
	net->connections--;
}

static void on_notify(void *opaque __maybe_unused)
{
}

static const SlirpCb callbacks = {
	.send_packet = on_send,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
};

/* Mostly the guest's doing, who must not fill the host's log. */
static void on_complaint(const char *domain __maybe_unused,
			 GLogLevelFlags level __maybe_unused, const char *text,
			 void *opaque __maybe_unused)
{
	log_debug("user network: %s", text);
}

/* ---- making and unmaking ---- */

int user_net_create(user_net_send_fn *send, void *opaque, struct user_net **ret,
		    struct error *err)
{
	struct user_net *net = calloc(1, sizeof(*net));
	SlirpConfig config = {
		.version = 1,
		.in_enabled = true,
		.in6_enabled = true,
		.vprefix_len = 64,
		.if_mtu = USER_MTU,
		.if_mru = USER_MTU,
	};

	if (!net)
		return error_set(err, -ENOMEM, "user: out of memory");
	config.vnetwork.s_addr = htonl(USER_NETWORK);
	config.vnetmask.s_addr = htonl(USER_NETMASK);
	config.vhost.s_addr = htonl(USER_HOST);
	config.vnameserver.s_addr = htonl(USER_NAME_SERVER);
	config.vdhcp_start.s_addr = htonl(USER_FIRST_CLIENT);
	inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &config.vhost6);
	inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
	net->send = send;
	net->opaque = opaque;
	g_log_set_default_handler(on_complaint, NULL);
	net->slirp = slirp_new(&config, &callbacks, net);
	if (!net->slirp) {
		free(net);
		return error_set(err, -EINVAL,
				 "user: libslirp %s can't be set up",
				 slirp_version_string());
	}
	*ret = net;
	return 0;
}

void user_net_free(struct user_net *net)
{
	if (!net)
		return;
	slirp_cleanup(net->slirp);
	free(net);
}

int user_net_forward(struct user_net *net, const struct user_forward *forward)
{
	struct sockaddr_in host = {
		.sin_family = AF_INET,
		.sin_addr = forward->host_address,
		.sin_port = htons(forward->host_port),
	};
	struct sockaddr_in guest = {
		.sin_family = AF_INET,
		.sin_addr = forward->guest_address,
		.sin_port = htons(forward->guest_port),
	};

	if (!slirp_add_hostxfwd(net->slirp, (struct sockaddr *)&host,
				sizeof(host), (struct sockaddr *)&guest,
				sizeof(guest),
				forward->udp ? SLIRP_HOSTFWD_UDP : 0))
		return 0;
	return errno ? -errno : -EINVAL;
}

/* ---- working ---- */

void user_net_input(struct user_net *net, const uint8_t *frame, size_t len)
{
	slirp_input(net->slirp, frame, (int)len);
}

static int on_add_poll(int fd, int events, void *opaque)
{
	struct user_net *net = opaque;
	short asked = 0;

	if (net->nfds == net->max)
		return -1;
	if (events & SLIRP_POLL_IN)
		asked |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		asked |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		asked |= POLLPRI;
	net->fds[net->nfds] = (struct pollfd){ fd, asked, 0 };
	return (int)net->nfds++;
}

static int on_get_events(int index, void *opaque)
{
	const struct user_net *net = opaque;
	int events = 0;
	short seen;

	if (!net->waited || index < 0 || (unsigned int)index >= net->nfds)
		return 0;
	seen = net->fds[index].revents;
	events |= seen & POLLIN ? SLIRP_POLL_IN : 0;
	events |= seen & POLLOUT ? SLIRP_POLL_OUT : 0;
	events |= seen & POLLPRI ? SLIRP_POLL_PRI : 0;
	events |= seen & POLLERR ? SLIRP_POLL_ERR : 0;
	events |= seen & POLLHUP ? SLIRP_POLL_HUP : 0;
	return events;
}

static int64_t next_timer_ms(const struct user_net *net)
{
	int64_t next = INT64_MAX;

	for (unsigned int i = 0; i < TIMERS; i++) {
		if (net->timers[i].fn)
			next = MIN(next, net->timers[i].expires_ms);
	}
	return next;
}

static int64_t now_ms(void)
{
	return (int64_t)(clock_ns() / NS_PER_MS);
}

unsigned int user_net_fill(struct user_net *net, struct pollfd *fds,
			   unsigned int max, int *timeout_ms)
{
	uint32_t wanted = UINT32_MAX;
	int64_t left = next_timer_ms(net);

	net->fds = fds;
	net->max = max;
	net->nfds = 0;
	slirp_pollfds_fill(net->slirp, &wanted, on_add_poll, net);
	if (left != INT64_MAX)
		left = MAX(left - now_ms(), 0);
	if (net->nfds || wanted < IDLE_MS)
		left = MIN(left, (int64_t)wanted);
	if (left < INT32_MAX)
		*timeout_ms = *timeout_ms < 0 ? (int)left
					      : MIN(*timeout_ms, (int)left);
	return net->nfds;
}

void user_net_poll(struct user_net *net, bool waited)
{
	net->waited = waited;
	slirp_pollfds_poll(net->slirp, 0, on_get_events, net);
	for (unsigned int i = 0; i < TIMERS; i++) {
		struct user_timer *timer = &net->timers[i];

		if (!timer->fn || timer->expires_ms > now_ms())
			continue;
		timer->expires_ms = INT64_MAX;
		timer->fn(timer->opaque);
	}
}

/* ---- state ---- */

static ssize_t on_write(const void *data, size_t len, void *opaque)
{
	struct user_state *state = opaque;

	/* Cut off, it is no state, and is found to be none. */
	if (len > USER_STATE_MAX - state->len)
		return -1;
	memcpy(state->bytes + state->len, data, len);
	state->len += (uint32_t)len;
	return (ssize_t)len;
}

void user_net_save(struct user_net *net, struct user_state *ret)
{
	ret->version = (uint32_t)slirp_state_version();
	ret->len = 0;
	slirp_state_save(net->slirp, on_write, ret);
}

struct reading {
	const struct user_state *state;
	size_t at;
};

static ssize_t on_read(void *data, size_t len, void *opaque)
{
	struct reading *from = opaque;

	if (len > from->state->len - from->at) {
		memset(data, 0, len);
		return -1;
	}
	memcpy(data, from->state->bytes + from->at, len);
	from->at += len;
	return (ssize_t)len;
}

int user_net_load(struct user_net *net, const struct user_state *state)
{
	struct reading from = { .state = state };

	if (!state->len)
		return 0;
	return slirp_state_load(net->slirp, (int)state->version, on_read, &from)
		       ? -EINVAL
		       : 0;
}

/*
 * The stack keeps a connection for a while after both ends have closed it. Its
 * socket is hung up then, which poll() tells without being asked.
 */
unsigned int user_net_connections(const struct user_net *net)
{
	struct pollfd fds[USER_FDS_MAX];
	unsigned int n = 0, left = 0;

	for (int fd = 0; fd < USER_FDS_MAX && n < net->connections; fd++) {
		if (net->is_connection[fd])
			fds[n++] = (struct pollfd){ .fd = fd };
	}
	if (!n || poll(fds, n, 0) < 0)
		return n;
	for (unsigned int i = 0; i < n; i++)
		left += !(fds[i].revents & POLLHUP);
	return left;
}
#endif
