// SPDX-License-Identifier: MIT
/*
 * logged: how fast a guest writes while KVM logs its writes, and nothing is
 * sent anywhere: what no migration that goes by dirty logs can be better than.
 *
 *   logged CPU VCPU_CPU MIB[,hugepages] KERNEL CMDLINE MS...
 *
 * The guest (guests/dirty.c) runs on VCPU_CPU, all else on CPU; -1: wherever.
 * Its log is read and cleared page for page, as a migration does, in one round
 * for each MS, which takes so long. Prints key=value words on one line:
 * free, logged   pages that the guest writes in a millisecond without and
 *                with logging, less what it waited for its core
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "devices/backend/line.h"
#include "migration/dirty.h"
#include "vmm/kvm.h"
#include "vmm/vm.h"

#define RUN_ALONE_MS   300
#define PIECE_PAGES    512
#define PATIENCE_MS    30000
#define LINE_MAX_BYTES 512
#define ROUNDS_MAX     64

struct bench {
	struct kvm kvm;
	struct hugepages pool;
	struct loop *loop;
	pthread_t loop_thread;
	struct line *serial;
	int in[2], out[2]; /* the guest's serial port */
	char text[8192];
	size_t len;
	struct vm *vm;
	char schedstat[64]; /* path of the vCPU thread's */
};

/* What the guest has done, and how long its vCPU has waited to do it. */
struct sample {
	double pages, ms, waited_ms;
};

static void __attribute__((noreturn)) die(const char *what, const char *why)
{
	fprintf(stderr, "logged: %s: %s\n", what, why);
	exit(1);
}

static void must(int rc, const struct error *err)
{
	if (rc)
		die("VM", err->text);
}

static void run_on(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity", strerror(errno));
}

/* ---- the guest ---- */

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

static int open_line(void *opaque, const char *id, struct line **ret,
		     struct error *err)
{
	struct bench *b = opaque;

	(void)id;
	(void)err;
	*ret = b->serial;
	return 0;
}

static void ignore_event(void *opaque, enum vm_event event, uint8_t status,
			 const char *text)
{
	(void)opaque;
	(void)status;
	if (event >= VM_EVENT_POWEROFF)
		die("the guest ended", text);
}

static void open_host(struct bench *b)
{
	struct line_end end = { .listen = -1 };
	struct error err;

	vcpu_signals_init();
	must(kvm_open(&b->kvm, &err), &err);
	must(loop_create(&b->loop, &err), &err);
	if (pipe2(b->in, O_CLOEXEC) || pipe2(b->out, O_CLOEXEC | O_NONBLOCK))
		die("pipe", strerror(errno));
	end.in = b->in[0];
	end.out = b->out[1];
	must(line_create(b->loop, &end, &b->serial, &err), &err);
	if (pthread_create(&b->loop_thread, NULL, run_loop, b->loop))
		die("pthread_create", strerror(errno));
}

static void boot(struct bench *b, const char *mib, const char *kernel,
		 const char *cmdline)
{
	struct device_lines lines = { .open_line = open_line, .opaque = b };
	struct vm_host host = { .kvm = &b->kvm,
				.loop = b->loop,
				.lines = &lines,
				.on_event = ignore_event,
				.opaque = b };
	struct machine *machine = calloc(1, sizeof(*machine));
	struct vm_image image = { .initrd_fd = -1 };
	struct error err;
	struct stat st;

	hugepages_init(&b->pool);
	if (strchr(mib, ',')) {
		must(hugepages_open(&b->pool, &err), &err);
		host.hugepages = &b->pool;
	}
	image.kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC);
	if (!machine || image.kernel_fd < 0 || fstat(image.kernel_fd, &st))
		die(kernel, strerror(errno));
	image.kernel_size = (uint64_t)st.st_size;
	machine_init(machine);
	strcpy(machine->name, "logged");
	machine->cpus = 1;
	machine->memory_size = strtoull(mib, NULL, 10) * MIB;
	snprintf(machine->cmdline, sizeof(machine->cmdline), "%s", cmdline);
	must(arch_cpu_model_host(&b->kvm, -1, 1, &machine->cpu_model, &err),
	     &err);
	must(vm_create(machine, &host, NULL, &b->vm, &err), &err);
	vm_set_image(b->vm, &image);
	must(vm_boot(b->vm, &err), &err);
	vm_release(b->vm, VM_HOLD_BIRTH);
	free(machine);
}

static void find_vcpu_thread(struct bench *b)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char path[64], name[16] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm",
			 entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strcmp(name, "vcpu0\n"))
			snprintf(b->schedstat, sizeof(b->schedstat),
				 "/proc/self/task/%.16s/schedstat",
				 entry->d_name);
		fclose(file);
	}
	if (dir)
		closedir(dir);
}

/* Reads on until the guest has said @word; returns what follows it. */
static const char *expect(struct bench *b, const char *word)
{
	struct pollfd ready = { .fd = b->out[0], .events = POLLIN };
	char *found, *end;
	ssize_t n;

	b->text[b->len] = '\0';
	while (!(found = strstr(b->text, word)) ||
	       !(end = strchr(found, '\n'))) {
		/* Beats, thousands of them: only the end may be of a word. */
		if (b->len > sizeof(b->text) / 2) {
			memmove(b->text, b->text + b->len - LINE_MAX_BYTES,
				LINE_MAX_BYTES);
			b->len = LINE_MAX_BYTES;
		}
		n = poll(&ready, 1, PATIENCE_MS);
		if (n > 0)
			n = read(b->out[0], b->text + b->len,
				 sizeof(b->text) - 1 - b->len);
		if (n <= 0)
			die("the guest does not say", word);
		b->len += (size_t)n;
		b->text[b->len] = '\0';
	}
	b->len = 0;
	return found + strlen(word);
}

static double field(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	if (!at)
		die("the guest does not tell", name);
	return strtod(at + strlen(name), NULL);
}

static double waited_ms(const struct bench *b)
{
	FILE *file = fopen(b->schedstat, "r");
	char line[96] = "";
	char *end;

	if (!file)
		return 0;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	(void)strtoull(line, &end, 10);
	return (double)strtoull(end, NULL, 10) / 1e6;
}

static struct sample sample(struct bench *b)
{
	struct sample s;
	const char *line;

	if (write(b->in[1], "s", 1) != 1)
		die("serial port", strerror(errno));
	line = expect(b, "stats ");
	s.pages = field(line, "pages_written=");
	s.ms = (double)clock_ns() / 1e6;
	s.waited_ms = waited_ms(b);
	return s;
}

/* Pages in a millisecond. */
static double speed(const struct sample *from, const struct sample *to)
{
	double ms = to->ms - from->ms - (to->waited_ms - from->waited_ms);

	return (to->pages - from->pages) / (ms > 1 ? ms : 1);
}

/* ---- the log ---- */

static void wait_until(uint64_t ns)
{
	struct timespec until = { (time_t)(ns / NS_PER_S),
				  (long)(ns % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) ==
	       EINTR)
		;
}

/* All that is pending, evenly over @ms. */
static void round_of(struct dirty *dirty, double ms)
{
	uint64_t start = clock_ns(), index = 0, run, done = 0;
	uint64_t total = dirty_pending(dirty);
	struct error err;

	while ((run = dirty_next(dirty, &index, PIECE_PAGES))) {
		must(dirty_take(dirty, index, run, &err), &err);
		index += run;
		done += run;
		wait_until(start +
			   (uint64_t)(ms * 1e6 * (double)done / (double)total));
	}
	wait_until(start + (uint64_t)(ms * 1e6));
}

static double logged_speed(struct bench *b, char **ms, int rounds)
{
	struct sample from, to;
	struct dirty *dirty;
	struct error err;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	must(dirty_create(vm_memory(b->vm), vm_fd(b->vm), &dirty, &err), &err);
	from = sample(b);
	must(dirty_start(dirty, pagemap, &err), &err);
	for (int i = 0; i < rounds; i++) {
		if (i)
			must(dirty_sync(dirty, false, &err), &err);
		round_of(dirty, strtod(ms[i], NULL));
	}
	to = sample(b);
	dirty_stop(dirty);
	dirty_free(dirty);
	if (pagemap >= 0)
		close(pagemap);
	return speed(&from, &to);
}

int main(int argc, char **argv)
{
	static struct bench bench;
	struct sample from, to;

	if (argc < 7 || argc > 6 + ROUNDS_MAX)
		die("usage",
		    "logged CPU VCPU_CPU MIB[,hugepages] KERNEL CMDLINE MS...");
	run_on(atoi(argv[1]));
	open_host(&bench);
	run_on(atoi(argv[2])); /* which the vCPU's thread inherits */
	boot(&bench, argv[3], argv[4], argv[5]);
	run_on(atoi(argv[1]));
	find_vcpu_thread(&bench);
	(void)expect(&bench, "ready");
	from = sample(&bench);
	wait_until(clock_ns() + RUN_ALONE_MS * NS_PER_MS);
	to = sample(&bench);
	printf("free=%.1f", speed(&from, &to));
	printf(" logged=%.1f\n", logged_speed(&bench, argv + 6, argc - 6));
	vm_free(bench.vm);
	hugepages_close(&bench.pool);
	return 0;
}
