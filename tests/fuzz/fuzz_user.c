// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may say to its user-mode network: the stack of the process
 * that has it, with frames, ports of the host's, and programs of the host that
 * answer, all from the input; and states that it is given.
 *
 * Nothing may crash or hang. What comes for the guest is a frame that fits; and
 * each state that is written down is one that a target takes.
 *
 * Nothing leaves: it is in a network namespace where there is a loopback
 * interface and nothing else, or it does not begin. What the process's other
 * end makes of anything that it may do is fuzz_net's.
 *
 * An input: a series of struct step, each with its bytes behind it.
 */
#ifndef HAVE_LIBSLIRP
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return 0;
}
#else
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "devices/backend/user_internal.h"
#include "tests/unit/alone.h"
#include "tests/unit/noise.h"
#include "vmm/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
const char *__lsan_default_suppressions(void);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SKIPPED	  69 /* as tests/fuzz/run has it; 77 is libFuzzer's */
#define STEPS_MAX 64
#define FRAME_MAX (NOISE_ETHERNET + USER_MTU)
#define FDS	  128
#define PORT	  5555 /* of the host's, that leads to the guest */
#define SERVED	  7    /* of the host's, where somebody answers */
#define PEERS	  4

enum {
	STEP_FRAME,
	STEP_WORK,
	STEP_MOVE,
	STEP_LOAD,
	STEP_FORWARD,
	STEP_CONNECT,
	STEP_ANSWER,
	STEPS,
};

struct step {
	uint8_t what;
	uint8_t how; /* enum noise_kind; UDP or TCP; who */
	uint8_t len[2];
};

struct place {
	struct user_net *net;
	struct pollfd fds[FDS];
	int server;
	int peers[PEERS]; /* programs of the host's; -1: none */
};

static void demand(bool truth, const char *what)
{
	if (truth)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

static void on_frame(void *opaque, const void *frame, size_t len)
{
	demand(len >= NOISE_ETHERNET && len <= FRAME_MAX, "a frame's length");
}

static void make(struct user_net **ret)
{
	struct error err;

	demand(!user_net_create(on_frame, NULL, ret, &err), "a stack");
}

/* ---- what the process does ---- */

static void give_frame(struct place *p, const struct step *step,
		       const uint8_t *bytes, size_t len)
{
	uint8_t frame[FRAME_MAX] = { 0 };

	memcpy(frame, bytes, MIN(len, sizeof(frame)));
	len = MAX(MIN(len, sizeof(frame)), (size_t)NOISE_MIN);
	noise_dress(frame, len, step->how % NOISE_KINDS);
	user_net_input(p->net, frame, len);
}

static void work(struct place *p)
{
	int timeout_ms = 0;
	unsigned int n = user_net_fill(p->net, p->fds, FDS, &timeout_ms);

	demand(n <= FDS, "room for descriptors");
	user_net_poll(p->net, poll(p->fds, n, 0) > 0);
	demand(user_net_connections(p->net) <= USER_FDS_MAX, "connections");
}

static void load(struct place *p, const struct user_state *state)
{
	struct user_net *fresh;

	make(&fresh);
	(void)!user_net_load(fresh, state);
	user_net_free(p->net);
	p->net = fresh;
}

static void move(struct place *p)
{
	struct user_state state = { 0 };
	struct error err = { "" };

	user_net_save(p->net, &state);
	demand(!user_state_check(&state, &err), err.text);
	load(p, &state);
}

/* As it comes from a stream: what the check lets pass. */
static void load_any(struct place *p, const uint8_t *bytes, size_t len)
{
	struct user_state state = { .version = 4, .len = 131 };
	struct error err;

	memcpy(state.bytes, bytes, MIN(len, sizeof(state.bytes)));
	if (!user_state_check(&state, &err))
		load(p, &state);
}

static void forward(struct place *p, const struct step *step)
{
	const struct user_forward forward = {
		.udp = step->how & 1,
		.host_address.s_addr = htonl(INADDR_LOOPBACK),
		.host_port = PORT,
		.guest_port = 22,
	};

	(void)!user_net_forward(p->net, &forward);
}

/* ---- programs of the host ---- */

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static void connect_one(struct place *p, const struct step *step)
{
	int *peer = &p->peers[step->how % PEERS];
	int type = step->how & 8 ? SOCK_DGRAM : SOCK_STREAM;
	struct sockaddr_in to = loopback(PORT);

	close_fd(peer);
	*peer = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	(void)!connect(*peer, (struct sockaddr *)&to, sizeof(to));
}

/* Whoever waits there is taken, hears it and says so much. */
static void answer(struct place *p, const struct step *step,
		   const uint8_t *bytes, size_t len)
{
	int *peer = &p->peers[step->how % PEERS];
	uint8_t heard[4096];

	if (*peer < 0)
		*peer = accept4(p->server, NULL, NULL,
				SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*peer < 0)
		return;
	(void)!recv(*peer, heard, sizeof(heard), 0);
	(void)!send(*peer, bytes, len, MSG_NOSIGNAL);
	if (step->how & 16)
		close_fd(peer);
}

static void open_server(struct place *p)
{
	struct sockaddr_in at = loopback(SERVED);
	int yes = 1;

	p->server =
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(p->server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	demand(!bind(p->server, (struct sockaddr *)&at, sizeof(at)) &&
		       !listen(p->server, PEERS),
	       "a server");
}

/* ---- the whole ---- */

/*
 * libslirp, which alone uses it here, loses a frame now and then. What the
 * process can come to have is bounded (user_cage.c).
 */
const char *__lsan_default_suppressions(void)
{
	return "leak:g_malloc\n";
}

static void take(struct place *p, const struct step *step, const uint8_t *bytes,
		 size_t len)
{
	switch (step->what % STEPS) {
	case STEP_FRAME:
		give_frame(p, step, bytes, len);
		break;
	case STEP_MOVE:
		move(p);
		break;
	case STEP_LOAD:
		load_any(p, bytes, len);
		break;
	case STEP_FORWARD:
		forward(p, step);
		break;
	case STEP_CONNECT:
		connect_one(p, step);
		break;
	case STEP_ANSWER:
		answer(p, step, bytes, len);
		break;
	default:
		work(p);
		break;
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rlimit most = { 1024, 1024 };

	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_ERROR);
	demand(!setrlimit(RLIMIT_NOFILE, &most), "a limit");
	if (!alone_enter())
		exit(SKIPPED);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct place place;
	struct place *p = &place;
	struct step step;

	demand(alone_is(), "not alone any more");
	make(&p->net);
	open_server(p);
	for (int i = 0; i < PEERS; i++)
		p->peers[i] = -1;
	for (int i = 0; i < STEPS_MAX && size >= sizeof(step); i++) {
		size_t len;

		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		size -= sizeof(step);
		len = MIN((size_t)(step.len[0] | step.len[1] << 8), size);
		take(p, &step, data, len);
		work(p);
		data += len;
		size -= len;
	}
	move(p);
	user_net_free(p->net);
	close_fd(&p->server);
	for (int i = 0; i < PEERS; i++)
		close_fd(&p->peers[i]);
	return 0;
}
#endif
