// SPDX-License-Identifier: MIT
/*
 * wire: two network namespaces and a link between them, of a given rate and
 * latency.
 *
 *   wire MB/s DELAY_US
 *
 * Each namespace has an interface wire0, 10.99.0.1 and 10.99.0.2. What one
 * sends arrives at the other after its share of the rate (10^6 bytes a second,
 * each way) and the delay (microseconds, each way); what would have to wait
 * longer than QUEUE_NS for its share is dropped, as a switch does. Packets of
 * TCP pass as large as the kernel makes them (virtio-net's header says how they
 * are to be cut), so that the link costs little of the cores that are measured.
 *
 * Prints "ready" when it is up; the namespaces are its descriptors NAMESPACE
 * and NAMESPACE + 1 (setns() on /proc/PID/fd/N) and are gone with it. It ends
 * when its standard input does. It needs to be root.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACE  10
#define NS_PER_S   1000000000ULL
#define QUEUE_NS   20000000ULL
#define PACKET_MAX (65536 + 64) /* with the headers around an IP packet */
#define BURST	   64 /* packets taken from one end before the other's turn */

struct packet {
	struct packet *next;
	uint64_t due;
	size_t size;
	char bytes[];
};

/* One end, and what is on the way to it. */
struct end {
	int tun;
	uint64_t
		busy; /* until then the way to it is taken by earlier packets */
	struct packet *first, **last;
};

struct wire {
	uint64_t rate; /* bytes a second */
	uint64_t delay_ns;
	struct end ends[2];
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* ---- the namespaces ---- */

static void set_address(int control, struct ifreq *request, unsigned long which,
			const char *address)
{
	struct sockaddr_in in = { .sin_family = AF_INET };

	inet_pton(AF_INET, address, &in.sin_addr);
	memcpy(&request->ifr_addr, &in, sizeof(in));
	if (ioctl(control, which, request))
		fail(address);
}

static void bring_up(const char *name, const char *address)
{
	int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	if (control < 0)
		fail("socket");
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	set_address(control, &request, SIOCSIFADDR, address);
	set_address(control, &request, SIOCSIFNETMASK, "255.255.255.0");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(control, SIOCSIFFLAGS, &request))
		fail(name);
	close(control);
}

static int open_tun(void)
{
	struct ifreq request = { .ifr_name = "wire0",
				 .ifr_flags =
					 IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (tun < 0)
		fail("/dev/net/tun");
	if (ioctl(tun, TUNSETIFF, &request))
		fail("TUNSETIFF (are you root?)");
	if (ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
		fail("TUNSETOFFLOAD");
	return tun;
}

static void make_end(struct wire *wire, int number)
{
	static const char *const addresses[] = { "10.99.0.1", "10.99.0.2" };
	struct end *end = &wire->ends[number];
	int ns;

	if (unshare(CLONE_NEWNET))
		fail("a network namespace (are you root?)");
	ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (ns < 0 || dup2(ns, NAMESPACE + number) < 0)
		fail("/proc/self/ns/net");
	close(ns);
	end->last = &end->first;
	end->tun = open_tun();
	bring_up("wire0", addresses[number]);
}

/* ---- the link ---- */

static void send_on(const struct wire *wire, struct end *to, const char *bytes,
		    size_t size, uint64_t now)
{
	uint64_t start = to->busy > now ? to->busy : now;
	struct packet *packet;

	if (start - now > QUEUE_NS)
		return;
	packet = malloc(sizeof(*packet) + size);
	if (!packet)
		return;
	to->busy = start + size * NS_PER_S / wire->rate;
	packet->next = NULL;
	packet->due = to->busy + wire->delay_ns;
	packet->size = size;
	memcpy(packet->bytes, bytes, size);
	*to->last = packet;
	to->last = &packet->next;
}

static void take(const struct wire *wire, const struct end *from,
		 struct end *to)
{
	static char bytes[PACKET_MAX];

	for (int i = 0; i < BURST; i++) {
		ssize_t size = read(from->tun, bytes, sizeof(bytes));

		if (size <= 0)
			return;
		send_on(wire, to, bytes, (size_t)size, clock_now());
	}
}

static void deliver(struct end *to)
{
	while (to->first && to->first->due <= clock_now()) {
		struct packet *packet = to->first;

		/* One that is refused is lost, as on any link. */
		if (write(to->tun, packet->bytes, packet->size) < 0 &&
		    errno != EAGAIN && errno != EINVAL && errno != EIO)
			fail("wire0");
		to->first = packet->next;
		if (!to->first)
			to->last = &to->first;
		free(packet);
	}
}

static uint64_t next_due(const struct wire *wire)
{
	uint64_t due = UINT64_MAX;

	for (int i = 0; i < 2; i++) {
		const struct packet *first = wire->ends[i].first;

		if (first && first->due < due)
			due = first->due;
	}
	return due;
}

static void carry(struct wire *wire)
{
	struct pollfd polls[] = {
		{ .fd = wire->ends[0].tun, .events = POLLIN },
		{ .fd = wire->ends[1].tun, .events = POLLIN },
		{ .fd = STDIN_FILENO },
	};

	while (!polls[2].revents) {
		uint64_t now = clock_now(), due = next_due(wire);
		uint64_t left = due > now ? due - now : 0;
		struct timespec wait = { .tv_sec = (time_t)(left / NS_PER_S),
					 .tv_nsec = (long)(left % NS_PER_S) };

		if (ppoll(polls, 3, due == UINT64_MAX ? NULL : &wait, NULL) <
			    0 &&
		    errno != EINTR)
			fail("ppoll");
		for (int i = 0; i < 2; i++)
			take(wire, &wire->ends[i], &wire->ends[!i]);
		for (int i = 0; i < 2; i++)
			deliver(&wire->ends[i]);
	}
}

int main(int argc, char **argv)
{
	struct wire wire = { 0 };

	if (argc != 3 || atoll(argv[1]) <= 0 || atoll(argv[2]) < 0) {
		fprintf(stderr, "usage: wire MB/s DELAY_US\n");
		return 2;
	}
	wire.rate = (uint64_t)atoll(argv[1]) * 1000000;
	wire.delay_ns = (uint64_t)atoll(argv[2]) * 1000;
	prctl(PR_SET_TIMERSLACK, 1UL);
	for (int i = 0; i < 2; i++)
		make_end(&wire, i);
	puts("ready");
	fflush(stdout);
	carry(&wire);
	return 0;
}
