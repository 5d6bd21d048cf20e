// SPDX-License-Identifier: MIT
/*
 * observer: timestamps what guests send on their serial ports, from outside.
 *
 * A process of its own, in C, so that neither the VMM that is measured nor an
 * interpreter has a hand in the time. It asks for real-time priority: waiting
 * for a core that the VMM keeps busy would be measured as the guest's pause.
 *
 * It is driven over descriptor 0, a SEQPACKET socket, one command a packet:
 *
 *   watch ID            (with a descriptor) timestamp what arrives there
 *   vcpu ID PID NAME CPU
 *                       find the thread whose name begins with NAME ('_' for
 *                       a space) in PID, as soon as it exists; pin it to CPU
 *                       (-1: don't), and read what the scheduler takes from
 *                       it. Answers "vcpu ID TID"
 *   forget ID           no longer watch; answers "forgotten ID", after which
 *                       nothing more is heard of it
 *   begin               start to look for gaps; answers "begun"
 *   end                 answers "end key=value…": see report()
 *   beats               answers "beats N": bytes since begin
 *
 * A guest beats with '.' and newlines (guests/heart.h). Every other line is
 * sent on as "text ID LINE". Every byte is a sign of life. Between two bytes
 * of the same ID it is a stall, of two IDs the handover.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONTROL STDIN_FILENO
#define IDS	64
#define LINE	512
#define POLL_MS 1	/* while a thread is yet to be found */
#define LOOK_NS 1000000 /* between two looks at the scheduler's account */
#define LOOKS	256
#define LONG_NS 500000 /* gaps from here on are looked into */

struct watched {
	int fd; /* -1: none */
	char line[LINE];
	size_t length;
	bool text; /* the line holds something else than beats */

	int pid; /* of a thread to be found; 0: none */
	char name[32];
	int cpu;
	int schedstat;		     /* -1: none */
	uint64_t delay, delay_begin; /* ns spent waiting for a core */
};

/* How long guests had waited for a core, in all, at a time. */
struct look {
	uint64_t at, delay;
};

static struct {
	struct watched id[IDS];
	struct look looks[LOOKS]; /* a ring */
	unsigned int next_look;
	bool measuring;
	bool searching; /* there is a thread yet to be found */
	int last;	/* ID of the last sign of life, -1: none yet */
	uint64_t last_ns;
	uint64_t beats;
	uint64_t handover, handover_net;
	uint64_t stall, stall_net;
	uint64_t own_delay; /* at begin */
} observer = { .last = -1 };

static uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void __attribute__((format(printf, 1, 2))) answer(const char *fmt, ...)
{
	char packet[LINE + 64];
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(packet, sizeof(packet), fmt, args);
	va_end(args);
	/* The other end reads all that it is sent, or is gone. */
	if (send(CONTROL, packet, (size_t)length, MSG_NOSIGNAL) < 0)
		exit(0);
}

/* Second number of schedstat: how long it was runnable but did not run. */
static bool read_delay(int fd, uint64_t *ret_ns)
{
	unsigned long long ran, waited;
	char text[128];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = '\0';
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return false;
	*ret_ns = waited;
	return true;
}

static struct look *look_back(unsigned int steps)
{
	return &observer.looks[(observer.next_look - 1 - steps) % LOOKS];
}

static void look_at_scheduler(void)
{
	uint64_t delay = 0;

	for (int i = 0; i < IDS; i++) {
		struct watched *w = &observer.id[i];

		/* A thread that is gone keeps what was read last. */
		if (w->schedstat >= 0)
			(void)read_delay(w->schedstat, &w->delay);
		delay += w->delay - w->delay_begin;
	}
	observer.looks[observer.next_look++ % LOOKS] =
		(struct look){ clock_now(), delay };
}

/* A gap less what the scheduler took of it, and up to one look before it. */
static uint64_t net(uint64_t gap, uint64_t start)
{
	uint64_t delay, taken;
	unsigned int steps = 1;

	if (gap < LONG_NS)
		return gap;
	look_at_scheduler();
	delay = look_back(0)->delay;
	while (steps < LOOKS - 1 && look_back(steps)->at > start)
		steps++;
	taken = delay - look_back(steps)->delay;
	return gap > taken ? gap - taken : 0;
}

static uint64_t own_delay(void)
{
	static int fd = -1;
	uint64_t ns = 0;

	if (fd < 0)
		fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)read_delay(fd, &ns);
	return ns;
}

/* ---- signs of life ---- */

static void sign_of_life(int id, uint64_t now)
{
	uint64_t start = observer.last_ns;
	uint64_t gap = now - start;
	uint64_t netto = net(gap, start);

	if (observer.last >= 0 && observer.last != id) {
		observer.handover = gap;
		observer.handover_net = netto;
	} else if (observer.last == id) {
		observer.stall = gap > observer.stall ? gap : observer.stall;
		if (netto > observer.stall_net)
			observer.stall_net = netto;
	}
	observer.last = id;
	observer.last_ns = now;
}

static void take_byte(int id, char c)
{
	struct watched *w = &observer.id[id];

	if (c == '\n') {
		if (w->text)
			answer("text %d %.*s", id, (int)w->length, w->line);
		w->length = 0;
		w->text = false;
	} else if (w->text || c != '.') {
		w->text = true;
		if (w->length < sizeof(w->line))
			w->line[w->length++] = c;
	}
}

static void take(int id)
{
	struct watched *w = &observer.id[id];
	char bytes[4096];
	ssize_t n = read(w->fd, bytes, sizeof(bytes));
	uint64_t now = clock_now();

	if (n <= 0) {
		close(w->fd);
		w->fd = -1;
		answer("closed %d", id);
		return;
	}
	if (observer.measuring) {
		sign_of_life(id, now);
		observer.beats += (uint64_t)n;
	}
	for (ssize_t i = 0; i < n; i++)
		take_byte(id, bytes[i]);
}

/* ---- threads ---- */

static bool name_matches(const char *comm, const char *name)
{
	for (; *name; comm++, name++) {
		if (*comm != (*name == '_' ? ' ' : *name))
			return false;
	}
	return true;
}

static bool thread_is(int pid, int tid, const char *name)
{
	char path[64], comm[32] = "";
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, comm, sizeof(comm) - 1);
	close(fd);
	return n > 0 && name_matches(comm, name);
}

static void found(int id, int tid)
{
	struct watched *w = &observer.id[id];
	char path[64];
	cpu_set_t set;

	if (w->cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET((size_t)w->cpu, &set);
		if (sched_setaffinity(tid, sizeof(set), &set))
			fprintf(stderr, "observer: pin %d to %d: %s\n", tid,
				w->cpu, strerror(errno));
	}
	snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", w->pid, tid);
	w->schedstat = open(path, O_RDONLY | O_CLOEXEC);
	if (w->schedstat >= 0)
		(void)read_delay(w->schedstat, &w->delay);
	w->delay_begin = w->delay;
	w->pid = 0;
	answer("vcpu %d %d", id, tid);
}

static void find_threads(void)
{
	observer.searching = false;
	for (int i = 0; i < IDS; i++) {
		struct watched *w = &observer.id[i];
		struct dirent *entry;
		char path[64];
		DIR *dir;

		if (!w->pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task", w->pid);
		dir = opendir(path);
		if (!dir) {
			w->pid = 0; /* its process is gone */
			continue;
		}
		while (w->pid && (entry = readdir(dir))) {
			int tid = atoi(entry->d_name);

			if (tid && thread_is(w->pid, tid, w->name))
				found(i, tid);
		}
		closedir(dir);
		observer.searching |= w->pid != 0;
	}
}

/* ---- commands ---- */

static void begin(void)
{
	look_at_scheduler();
	for (int i = 0; i < IDS; i++)
		observer.id[i].delay_begin = observer.id[i].delay;
	memset(observer.looks, 0, sizeof(observer.looks));
	look_at_scheduler();
	observer.measuring = true;
	observer.last = -1;
	observer.beats = 0;
	observer.handover = 0;
	observer.handover_net = 0;
	observer.stall = 0;
	observer.stall_net = 0;
	observer.own_delay = own_delay();
	answer("begun");
}

/*
 * handover_ns: last byte of one ID to the first of another; 0 if there was
 * none. stall_ns: longest time between two bytes of one ID. *_net_ns: the same
 * (of stalls, the longest) without the guest's waiting for a core.
 * *_delay_ns: what the scheduler kept guests, and this process, waiting.
 */
static void report(void)
{
	look_at_scheduler();
	observer.measuring = false;
	answer("end handover_ns=%" PRIu64 " handover_net_ns=%" PRIu64
	       " stall_ns=%" PRIu64 " "
	       "stall_net_ns=%" PRIu64 " beats=%" PRIu64
	       " vcpu_delay_ns=%" PRIu64 " "
	       "observer_delay_ns=%" PRIu64,
	       observer.handover, observer.handover_net, observer.stall,
	       observer.stall_net, observer.beats, look_back(0)->delay,
	       own_delay() - observer.own_delay);
}

static void forget(int id)
{
	struct watched *w = &observer.id[id];

	if (w->fd >= 0)
		close(w->fd);
	if (w->schedstat >= 0)
		close(w->schedstat);
	*w = (struct watched){ .fd = -1, .schedstat = -1 };
}

static void obey(const char *command, int fd)
{
	int id, pid, cpu;
	char name[32];

	if (sscanf(command, "watch %d", &id) == 1 && id >= 0 && id < IDS) {
		forget(id);
		observer.id[id].fd = fd;
	} else if (sscanf(command, "vcpu %d %d %31s %d", &id, &pid, name,
			  &cpu) == 4 &&
		   id >= 0 && id < IDS) {
		observer.id[id].pid = pid;
		observer.id[id].cpu = cpu;
		memcpy(observer.id[id].name, name, sizeof(name));
		observer.searching = true;
	} else if (sscanf(command, "forget %d", &id) == 1 && id >= 0 &&
		   id < IDS) {
		forget(id);
		answer("forgotten %d", id);
	} else if (!strcmp(command, "begin")) {
		begin();
	} else if (!strcmp(command, "end")) {
		report();
	} else if (!strcmp(command, "beats")) {
		answer("beats %llu", (unsigned long long)observer.beats);
	} else {
		answer("error unknown command '%s'", command);
	}
}

static void take_command(void)
{
	char command[128], control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { command, sizeof(command) - 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(CONTROL, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *cmsg;
	int fd = -1;

	if (n <= 0)
		exit(0); /* whoever drives it is gone, and so is the point */
	command[n] = '\0';
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	obey(command, fd);
}

static void observe(void)
{
	struct pollfd fds[IDS + 1] = { { .fd = CONTROL, .events = POLLIN } };
	bool busy = observer.searching || observer.measuring;

	for (int i = 0; i < IDS; i++)
		fds[i + 1] = (struct pollfd){ .fd = observer.id[i].fd,
					      .events = POLLIN };
	if (poll(fds, IDS + 1, busy ? POLL_MS : -1) < 0)
		return;
	for (int i = 0; i < IDS; i++) {
		if (fds[i + 1].revents)
			take(i);
	}
	if (fds[0].revents)
		take_command();
	if (observer.measuring && clock_now() - look_back(0)->at > LOOK_NS)
		look_at_scheduler();
}

int main(void)
{
	struct sched_param param = { .sched_priority = 1 };
	uint64_t searched = 0;

	for (int i = 0; i < IDS; i++) {
		observer.id[i].fd = -1;
		observer.id[i].schedstat = -1;
	}
	answer("hello realtime=%d",
	       sched_setscheduler(0, SCHED_FIFO, &param) == 0);
	for (;;) {
		observe();
		if (observer.searching &&
		    clock_now() - searched > POLL_MS * 1000000) {
			find_threads();
			searched = clock_now();
		}
	}
}
