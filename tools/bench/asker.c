// SPDX-License-Identifier: MIT
/*
 * asker: asks a guest (guests/net) over a network interface, one question at a
 * time, and measures how long it takes to answer.
 *
 *   asker INTERFACE MAC SECONDS
 *
 * A question is a frame of BYTES of Ethernet type 0x88b5 that begins with a
 * number; the answer has the same number. Times are from before a question is
 * sent to after its answer was received, as a program has them that sleeps in
 * between. Prints "bench asked=N median_ns=N p99_ns=N max_ns=N". It needs to be
 * root.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ETHER_TYPE 0x88b5 /* IEEE 802, for experiments */
#define MAC_BYTES  6
#define BYTES	   64
#define NS_PER_S   1000000000UL
#define LIMIT	   4000000U /* questions */
#define WARM	   1000U
/* An interface takes a moment to notice that a card has a driver. */
#define AGAIN_MS 100
#define GIVE_UP	 100U

struct frame {
	uint8_t to[MAC_BYTES];
	uint8_t from[MAC_BYTES];
	uint16_t type;
	uint8_t number[8]; /* little-endian */
	uint8_t rest[BYTES - 2 * MAC_BYTES - 2 - 8];
} __attribute__((packed));

_Static_assert(sizeof(struct frame) == BYTES, "a frame");

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "asker: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int open_socket(const char *interface)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETHER_TYPE) };
	int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHER_TYPE));

	if (s < 0)
		fail("a packet socket (are you root?)");
	at.sll_ifindex = (int)if_nametoindex(interface);
	if (!at.sll_ifindex || bind(s, (struct sockaddr *)&at, sizeof(at)))
		fail(interface);
	return s;
}

/* Return: false: no answer has come. */
static bool ask(int s, struct frame *question, uint64_t number)
{
	struct pollfd fd = { .fd = s, .events = POLLIN };
	struct frame answer;

	memcpy(question->number, &number, sizeof(number));
	if (send(s, question, sizeof(*question), 0) < 0 && errno != ENETDOWN &&
	    errno != ENOBUFS)
		fail("send");
	while (poll(&fd, 1, AGAIN_MS) > 0) {
		if (recv(s, &answer, sizeof(answer), 0) == sizeof(answer) &&
		    !memcmp(answer.number, question->number,
			    sizeof(answer.number)))
			return true;
	}
	return false;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void show(uint64_t *times, size_t n)
{
	qsort(times, n, sizeof(*times), compare);
	printf("bench asked=%zu median_ns=%ju p99_ns=%ju max_ns=%ju\n", n,
	       (uintmax_t)times[n / 2], (uintmax_t)times[n - 1 - n / 100],
	       (uintmax_t)times[n - 1]);
}

static void measure(int s, struct frame *question, uint64_t ns)
{
	uint64_t *times = calloc(LIMIT, sizeof(*times));
	uint64_t number = 0, start, now;
	size_t n = 0;

	if (!times)
		fail("memory");
	while (!ask(s, question, ++number)) {
		if (number == GIVE_UP) {
			errno = ETIMEDOUT;
			fail("no answer");
		}
	}
	for (unsigned int i = 0; i < WARM; i++)
		(void)ask(s, question, ++number);
	start = now = clock_now();
	while (n < LIMIT && now - start < ns) {
		uint64_t begun = now;

		if (!ask(s, question, ++number)) {
			errno = ETIMEDOUT;
			fail("a question was lost");
		}
		now = clock_now();
		times[n++] = now - begun;
	}
	show(times, n);
	free(times);
}

int main(int argc, char **argv)
{
	struct frame question = { .from = { 2, 0, 0, 0, 0, 1 },
				  .type = htons(ETHER_TYPE) };
	uint8_t *to = question.to;

	if (argc != 4 || atoi(argv[3]) <= 0 ||
	    sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &to[0], &to[1],
		   &to[2], &to[3], &to[4], &to[5]) != MAC_BYTES) {
		fprintf(stderr, "usage: asker INTERFACE MAC SECONDS\n");
		return 2;
	}
	measure(open_socket(argv[1]), &question,
		(uint64_t)atoi(argv[3]) * NS_PER_S);
	return 0;
}
