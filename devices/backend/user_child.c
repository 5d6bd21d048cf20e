// SPDX-License-Identifier: MIT
/*
 * The life of the process that has the user-mode network; see user.h. One
 * thread, one loop: wait, let the stack work, take some frames, take an order.
 * It ends when the other end of its sockets does.
 *
 * Nothing grows by what anybody says. Frames for the guest that the socket
 * doesn't take are kept, up to PENDING; as long as there are any the host's
 * sockets are not read, so that who sends from there waits. What comes all the
 * same is dropped, as on any wire.
 */
#ifdef HAVE_LIBSLIRP
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/backend/user_internal.h"
#include "vmm/log.h"

#define ETHERNET     14
#define ETHERNET_TAG 4
#define FRAME_MAX    (ETHERNET + ETHERNET_TAG + USER_MTU)

/* Frames of one kind before it is the others' turn. */
#define BUDGET	64
#define PENDING 256 /* frames */

/* How often a port is tried for that somebody has, and when that is news. */
#define RETRY_FIRST_NS (2 * NS_PER_MS)
#define RETRY_LAST_NS  (1 * NS_PER_S)
#define RETRY_NEWS_NS  (1 * NS_PER_S)

/* poll() looks at orders after frames: they were there before these. */
enum {
	FD_FRAMES,
	FD_ORDERS,
	FD_OWN, /* and from here on the stack's */
};

struct frame {
	size_t len;
	uint8_t bytes[FRAME_MAX];
};

/* Ports that are not bound yet. */
struct wanted {
	bool left[USER_FORWARDS_MAX];
	unsigned int nleft;
	uint64_t since_ns;
	uint64_t next_ns; /* to be tried again; 0: never */
	uint64_t step_ns;
	bool said;
};

struct child {
	const struct user_params *params;
	struct user_page *page;
	int frames;
	int orders;
	struct user_net *net;
	struct wanted wanted;
	unsigned int first; /* of pending[] */
	unsigned int npending;
	struct frame pending[PENDING];
	uint8_t message[TAP_HEADER + FRAME_MAX];
	struct pollfd fds[FD_OWN + USER_FDS_MAX];
};

/* ---- frames ---- */

/* Return: false: not now. */
static bool put(const struct child *c, const void *frame, size_t len)
{
	static const uint8_t header[TAP_HEADER];
	struct iovec iov[] = {
		{ (void *)(uintptr_t)header, sizeof(header) },
		{ (void *)(uintptr_t)frame, len },
	};

	return writev(c->frames, iov, ARRAY_SIZE(iov)) >= 0 ||
	       (errno != EAGAIN && errno != EINTR && errno != ENOBUFS);
}

static void send_frame(void *opaque, const void *frame, size_t len)
{
	struct child *c = opaque;
	struct frame *place;

	if (len > FRAME_MAX || (!c->npending && put(c, frame, len)) ||
	    c->npending == PENDING)
		return;
	place = &c->pending[(c->first + c->npending) % PENDING];
	memcpy(place->bytes, frame, len);
	place->len = len;
	c->npending++;
}

static void send_pending(struct child *c)
{
	while (c->npending) {
		const struct frame *frame = &c->pending[c->first];

		if (!put(c, frame->bytes, frame->len))
			return;
		c->first = (c->first + 1) % PENDING;
		c->npending--;
	}
}

/* Return: false when nobody is there any more. */
static bool take_frames(struct child *c)
{
	for (unsigned int i = 0; i < BUDGET; i++) {
		ssize_t n = recv(c->frames, c->message, sizeof(c->message),
				 MSG_TRUNC);

		if (n <= 0)
			return n && (errno == EAGAIN || errno == EINTR);
		/* Neither unfinished checksums nor large segments were
		 * offered. */
		if (n >= TAP_HEADER + ETHERNET &&
		    n <= (ssize_t)sizeof(c->message) && !c->message[0] &&
		    !c->message[1])
			user_net_input(c->net, c->message + TAP_HEADER,
				       (size_t)n - TAP_HEADER);
	}
	return true;
}

/* ---- ports of the host ---- */

static void tell(const struct child *c, enum log_level level, unsigned int i,
		 const char *what)
{
	char text[USER_FORWARD_TEXT];

	log_line(level, "%s: hostfwd=%s: %s", c->params->id,
		 user_forward_text(&c->params->forwards[i], text), what);
}

static void try_one(struct child *c, unsigned int i)
{
	struct wanted *w = &c->wanted;
	int rc = user_net_forward(c->net, &c->params->forwards[i]);

	if (rc == -EADDRINUSE)
		return;
	if (rc)
		tell(c, LOG_WARN, i, strerror(-rc));
	else
		tell(c, w->said ? LOG_NOTICE : LOG_INFO, i,
		     "the port is this guest's now");
	w->left[i] = false;
	w->nleft--;
}

static void try_ports(struct child *c)
{
	struct wanted *w = &c->wanted;
	uint64_t now = clock_ns();
	bool news;

	if (!w->next_ns || now < w->next_ns)
		return;
	for (unsigned int i = 0; i < c->params->nforwards; i++) {
		if (w->left[i])
			try_one(c, i);
	}
	news = !w->said && now - w->since_ns >= RETRY_NEWS_NS;
	for (unsigned int i = 0; news && i < c->params->nforwards; i++) {
		if (w->left[i])
			tell(c, LOG_WARN, i,
			     "somebody has the port still; it is tried for "
			     "until it is free");
	}
	w->said = w->said || news;
	w->step_ns = MIN(2 * w->step_ns, RETRY_LAST_NS);
	w->next_ns = w->nleft ? now + w->step_ns : 0;
}

static void want_ports(struct child *c)
{
	struct wanted *w = &c->wanted;

	w->nleft = c->params->nforwards;
	for (unsigned int i = 0; i < w->nleft; i++)
		w->left[i] = true;
	w->since_ns = w->next_ns = clock_ns();
	w->step_ns = RETRY_FIRST_NS;
}

static int refuse_port(const struct user_forward *forward, int code,
		       struct error *err)
{
	const char *remedy = "give another address or port";
	char text[USER_FORWARD_TEXT];

	if (code == -EADDRINUSE)
		remedy = "somebody has the port; give another";
	else if (code == -EACCES)
		remedy = "ports this low are root's; give one from 1024 on";
	else if (code == -EADDRNOTAVAIL)
		remedy = "that is no address of this host's; give one";
	return error_set(err, code, "hostfwd=%s: %s: %s",
			 user_forward_text(forward, text), strerror(-code),
			 remedy);
}

static int bind_ports(struct child *c, struct error *err)
{
	for (unsigned int i = 0; i < c->params->nforwards; i++) {
		const struct user_forward *forward = &c->params->forwards[i];
		int rc = user_net_forward(c->net, forward);

		if (rc)
			return refuse_port(forward, rc, err);
	}
	return 0;
}

/* What will never be had is found out before there is a guest. */
static int probe_ports(const struct child *c, struct error *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < c->params->nforwards && !rc; i++) {
		const struct user_forward *forward = &c->params->forwards[i];
		struct sockaddr_in at = {
			.sin_family = AF_INET,
			.sin_addr = forward->host_address,
			.sin_port = htons(forward->host_port),
		};
		int type = forward->udp ? SOCK_DGRAM : SOCK_STREAM;
		int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

		if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)))
			rc = -errno;
		close_fd(&fd);
		if (rc == -EADDRINUSE)
			rc = 0;
		if (rc)
			return refuse_port(forward, rc, err);
	}
	return 0;
}

/* ---- orders ---- */

static void load(struct child *c, const struct user_state *state)
{
	struct user_net *net;
	struct error err;

	if (user_net_create(send_frame, c, &net, &err)) {
		log_warn("%s: %s", c->params->id, err.text);
		return;
	}
	/* The parent has checked it; this is the other side of a wall. */
	if (user_state_check(state, &err))
		log_warn("%s: %s", c->params->id, err.text);
	else if (user_net_load(net, state))
		log_warn("%s: the network's state can't be loaded; the guest "
			 "may have to ask for its address anew",
			 c->params->id);
	user_net_free(c->net);
	c->net = net;
}

/* Return: false when nobody is there any more. */
static bool take_orders(struct child *c)
{
	struct user_message message;
	ssize_t n;

	for (;;) {
		n = recv(c->orders, &message, sizeof(message), MSG_DONTWAIT);
		if (n != (ssize_t)sizeof(message))
			return n < 0 && (errno == EAGAIN || errno == EINTR);
		if (message.order == USER_LOAD)
			load(c, &message.state);
		else if (message.order == USER_BEGIN)
			want_ports(c);
	}
}

/* ---- the loop ---- */

static void write_down(struct child *c)
{
	struct user_page *page = c->page;
	struct user_state state = { 0 };
	uint32_t sequence = page->sequence;

	page->connections = user_net_connections(c->net);
	user_net_save(c->net, &state);
	if (state.version == page->state.version &&
	    state.len == page->state.len &&
	    !memcmp(state.bytes, page->state.bytes, sizeof(state.bytes)))
		return;
	atomic_store_explicit(&page->sequence, sequence + 1,
			      memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	page->state = state;
	atomic_store_explicit(&page->sequence, sequence + 2,
			      memory_order_release);
}

/* Until the next try; -1: there is none. */
static int retry_ms(const struct wanted *w)
{
	uint64_t now = clock_ns();

	if (!w->next_ns)
		return -1;
	return w->next_ns <= now ? 0
				 : (int)((w->next_ns - now) / NS_PER_MS) + 1;
}

/* Return: false when it is over. */
static bool turn(struct child *c)
{
	int timeout = retry_ms(&c->wanted);
	unsigned int n =
		user_net_fill(c->net, c->fds + FD_OWN, USER_FDS_MAX, &timeout);
	bool full = c->npending;
	short events = full ? POLLIN | POLLOUT : POLLIN;
	int rc;

	write_down(c);
	c->fds[FD_FRAMES] = (struct pollfd){ c->frames, events, 0 };
	c->fds[FD_ORDERS] = (struct pollfd){ c->orders, POLLIN, 0 };
	rc = poll(c->fds, full ? FD_OWN : FD_OWN + n, timeout);
	if (rc < 0 && errno != EINTR)
		return false;
	user_net_poll(c->net, rc > 0 && !full);
	send_pending(c);
	/* Orders first: a frame may come from a guest that one announces. */
	if (rc > 0 && c->fds[FD_ORDERS].revents && !take_orders(c))
		return false;
	if (rc > 0 && c->fds[FD_FRAMES].revents && !take_frames(c))
		return false;
	try_ports(c);
	return true;
}

/* ---- becoming it ---- */

/* All that is open but its own sockets, and where words go. */
static void close_others(int low, int high)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (low > high) {
		int other = low;

		low = high;
		high = other;
	}
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	if (low > STDERR_FILENO + 1)
		close_range(STDERR_FILENO + 1, (unsigned int)low - 1, 0);
	if (high > low + 1)
		close_range((unsigned int)low + 1, (unsigned int)high - 1, 0);
	close_range((unsigned int)high + 1, ~0U, 0);
}

static int prepare(struct child *c, struct error *err)
{
	int rc = user_net_create(send_frame, c, &c->net, err);

	/* Root's ports are for root, who is somebody else in the cage. */
	if (!rc && !c->params->waits)
		rc = bind_ports(c, err);
	if (!rc && c->params->caged)
		rc = user_cage_enter(err);
	if (!rc && c->params->waits)
		rc = probe_ports(c, err);
	return rc;
}

static void answer(const struct child *c, int code, const struct error *err)
{
	struct user_answer said = { .code = code };

	if (code)
		snprintf(said.text, sizeof(said.text), "%s", err->text);
	(void)!send(c->orders, &said, sizeof(said), MSG_NOSIGNAL);
}

/*
 * Those of a terminal, or for a whole group, are for the other process, whose
 * end is ours.
 */
static void set_up_signals(void)
{
	static const int not_ours[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT,
					SIGPIPE };
	sigset_t none;

	for (size_t i = 0; i < ARRAY_SIZE(not_ours); i++)
		signal(not_ours[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

_Noreturn void user_child_run(const struct user_params *params,
			      struct user_page *page, int frames, int orders)
{
	struct child *c = calloc(1, sizeof(*c));
	struct error err;
	int rc;

	if (!c)
		_exit(EXIT_FAILURE);
	c->params = params;
	c->page = page;
	c->frames = frames;
	c->orders = orders;
	set_up_signals();
	prctl(PR_SET_NAME, "user-network");
	close_others(frames, orders);
	rc = prepare(c, &err);
	if (!rc)
		write_down(c);
	answer(c, rc, &err);
	while (!rc && turn(c))
		;
	_exit(rc ? EXIT_FAILURE : EXIT_SUCCESS);
}
#endif
