// SPDX-License-Identifier: MIT
/*
 * probe: what this machine can do without any VMM, and how long a program
 * takes to its first byte; the yardsticks beside which moves are read.
 *
 *   probe socket MIB    that much memory through a loopback TCP connection
 *                       between two processes: into memory that is there, and
 *                       into memory that must be made; and a round trip
 *   probe spin CPU MS   how long a thread that only looks at the clock is
 *                       kept from doing so; CPU -1: wherever it is
 *   probe start COMMAND [ARGUMENT]...
 *                       from before the fork to the first byte on its
 *                       standard output; then it is killed
 *
 * Each prints key=value words on one line. Pinning is inherited.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK  (1UL << 20)
#define ROUNDS 2000

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- socket ---- */

static char *memory(size_t size)
{
	char *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		die("probe: mmap");
	/* As a VMM would; where huge pages are off this does nothing. */
	(void)madvise(base, size, MADV_HUGEPAGE);
	return base;
}

static void receive(int fd, char *to, size_t size)
{
	while (size) {
		ssize_t n = recv(fd, to, size, 0);

		if (n <= 0)
			die("probe: recv");
		to += n;
		size -= (size_t)n;
	}
}

static void transmit(int fd, const char *from, size_t size)
{
	while (size) {
		size_t chunk = size < CHUNK ? size : CHUNK;
		ssize_t n = send(fd, from, chunk, MSG_NOSIGNAL);

		if (n <= 0)
			die("probe: send");
		from += n;
		size -= (size_t)n;
	}
}

static void __attribute__((noreturn)) run_receiver(int fd, size_t size)
{
	char *warm = memory(size);
	char c = 0;

	memset(warm, 1, size);
	transmit(fd, &c, 1); /* ready */
	receive(fd, warm, size);
	transmit(fd, &c, 1);
	receive(fd, memory(size), size);
	transmit(fd, &c, 1);
	for (int i = 0; i < ROUNDS; i++) {
		receive(fd, &c, 1);
		transmit(fd, &c, 1);
	}
	exit(0);
}

static void no_delay(int fd)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("probe: TCP_NODELAY");
}

/* Two processes on loopback; the child never returns. */
static int connect_receiver(size_t size)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listener < 0 || bind(listener, (void *)&address, length) ||
	    listen(listener, 1) ||
	    getsockname(listener, (void *)&address, &length))
		die("probe: listen");
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			die("probe: accept");
		no_delay(fd);
		run_receiver(fd, size);
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&address, length))
		die("probe: connect");
	no_delay(fd);
	return fd;
}

static uint64_t timed_transmit(int fd, const char *from, size_t size)
{
	uint64_t start = clock_now();
	char c;

	transmit(fd, from, size);
	receive(fd, &c, 1);
	return clock_now() - start;
}

static int probe_socket(size_t mib)
{
	size_t size = mib << 20;
	char *from = memory(size);
	uint64_t warm, cold, start, best = UINT64_MAX;
	char c = 0;
	int fd = connect_receiver(size);

	memset(from, 2, size);
	receive(fd, &c, 1);
	warm = timed_transmit(fd, from, size);
	cold = timed_transmit(fd, from, size);
	start = clock_now();
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t ns = timed_transmit(fd, &c, 1);

		best = ns < best ? ns : best;
	}
	printf("populated_mb_s=%.0f fresh_mb_s=%.0f round_trip_us=%.1f "
	       "round_trip_best_us=%.1f\n",
	       1e3 * (double)size / (double)warm,
	       1e3 * (double)size / (double)cold,
	       (double)(clock_now() - start) / ROUNDS / 1e3,
	       (double)best / 1e3);
	wait(NULL);
	return 0;
}

/* ---- spin ---- */

static uint64_t own_delay(void)
{
	unsigned long long ran = 0, waited = 0;
	FILE *file = fopen("/proc/self/schedstat", "r");

	if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2)
		waited = 0;
	if (file)
		fclose(file);
	return waited;
}

static int probe_spin(int cpu, uint64_t ms)
{
	uint64_t start, end, last, longest = 0, stolen = 0, delay;
	cpu_set_t set;

	CPU_ZERO(&set);
	if (cpu >= 0)
		CPU_SET((size_t)cpu, &set);
	if (cpu >= 0 && sched_setaffinity(0, sizeof(set), &set))
		die("probe: sched_setaffinity");
	delay = own_delay();
	start = last = clock_now();
	end = start + ms * 1000000;
	while (last < end) {
		uint64_t now = clock_now(), gap = now - last;

		longest = gap > longest ? gap : longest;
		stolen += gap > 100000 ? gap : 0;
		last = now;
	}
	printf("longest_us=%.1f gaps_ms=%.3f run_delay_ms=%.3f\n",
	       (double)longest / 1e3, (double)stolen / 1e6,
	       (double)(own_delay() - delay) / 1e6);
	return 0;
}

/* ---- start ---- */

static int probe_start(char **command)
{
	uint64_t start;
	int fds[2];
	pid_t pid;
	char c;

	if (pipe2(fds, O_CLOEXEC))
		die("probe: pipe");
	start = clock_now();
	pid = fork();
	if (pid < 0)
		die("probe: fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		execvp(command[0], command);
		die(command[0]);
	}
	close(fds[1]);
	if (read(fds[0], &c, 1) != 1) {
		fprintf(stderr, "probe: %s ended without a byte\n", command[0]);
		return 1;
	}
	printf("first_byte_ms=%.3f\n", (double)(clock_now() - start) / 1e6);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "socket"))
		return probe_socket(strtoul(argv[2], NULL, 10));
	if (argc == 4 && !strcmp(argv[1], "spin"))
		return probe_spin(atoi(argv[2]), strtoul(argv[3], NULL, 10));
	if (argc >= 3 && !strcmp(argv[1], "start"))
		return probe_start(argv + 2);
	fprintf(stderr, "usage: probe socket MIB | spin CPU MS | start "
			"COMMAND [ARGUMENT]...\n");
	return 2;
}
