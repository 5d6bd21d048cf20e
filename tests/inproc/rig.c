// SPDX-License-Identifier: MIT
/*
 * The hosts of the in-process rig, and their guests while they stay; see rig.h.
 * Moves are in rig_move.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/inproc/rig_internal.h"

/* Nothing in the rig takes this long, unless it hangs. */
#define PATIENCE (60 * NS_PER_S)

bool rig_available(void)
{
	if (!access("/dev/kvm", R_OK | W_OK))
		return true;
	fprintf(stderr, "SKIPPED: no usable /dev/kvm on this machine\n");
	return false;
}

/* ---- hosts ---- */

static void on_event(void *opaque, enum vm_event event, uint8_t status,
		     const char *text)
{
	struct rig_host *host = opaque;

	if (event == VM_EVENT_STOP || event == VM_EVENT_RESUME ||
	    event == VM_EVENT_IO_ERROR || event == VM_EVENT_PANICKED ||
	    event == VM_EVENT_BALLOON)
		return;
	pthread_mutex_lock(&host->lock);
	if (event == VM_EVENT_RESET) {
		host->resets++;
		pthread_cond_broadcast(&host->changed);
		pthread_mutex_unlock(&host->lock);
		return;
	}
	host->ended = true;
	host->how = event;
	host->status = status;
	snprintf(host->why, sizeof(host->why), "%s", text);
	pthread_cond_broadcast(&host->changed);
	pthread_mutex_unlock(&host->lock);
}

static void *run_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int open_line(void *opaque, const char *id, struct line **ret,
		     struct error *err __maybe_unused)
{
	struct rig_host *host = opaque;

	*ret = strcmp(id, "serial0") != 0 ? host->hvc : host->serial;
	return 0;
}

static struct line *make_line(struct rig_host *host, int in[2], int out[2])
{
	struct line_end end = { .listen = -1 };
	struct line *line;
	struct error err;

	ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
	end.in = in[0];
	end.out = out[1];
	ck_assert_msg(!line_create(host->loop, &end, &line, &err), "%s",
		      err.text);
	return line;
}

static void open_consoles(struct rig_host *host)
{
	host->serial = make_line(host, host->console_in, host->console_out);
	host->hvc = make_line(host, host->hvc_in, host->hvc_out);
	host->lines = (struct device_lines){
		.open_line = open_line,
		.opaque = host,
	};
}

struct rig_host *rig_host_new(void)
{
	struct rig_host *host = calloc(1, sizeof(*host));
	struct error err;

	ck_assert_ptr_nonnull(host);
	vcpu_signals_init();
	pthread_mutex_init(&host->lock, NULL);
	pthread_cond_init(&host->changed, NULL);
	ck_assert_msg(!kvm_open(&host->kvm, &err), "%s", err.text);
	ck_assert_msg(!loop_create(&host->loop, &err), "%s", err.text);
	open_consoles(host);
	host->tap_fd = -1;
	ck_assert_int_eq(
		pthread_create(&host->loop_thread, NULL, run_loop, host->loop),
		0);
	return host;
}

void rig_host_free(struct rig_host *host)
{
	rig_discard(host);
	loop_stop(host->loop);
	pthread_join(host->loop_thread, NULL);
	line_free(host->serial);
	line_free(host->hvc);
	loop_free(host->loop);
	for (int i = 0; i < 2; i++) {
		close(host->console_in[i]);
		close(host->console_out[i]);
		close(host->hvc_in[i]);
		close(host->hvc_out[i]);
	}
	kvm_close(&host->kvm);
	pthread_cond_destroy(&host->changed);
	pthread_mutex_destroy(&host->lock);
	free(host);
}

void rig_discard(struct rig_host *host)
{
	vm_free(host->vm);
	host->vm = NULL;
	disks_free(host->disks);
	host->disks = NULL;
	taps_free(host->taps);
	host->taps = NULL;
}

void rig_open_taps(struct rig_host *host, bool listens)
{
	struct error err;

	taps_free(host->taps);
	host->taps = NULL;
	if (!host->cards.count)
		return;
	host->cards.taps[0].fd = fcntl(host->tap_fd, F_DUPFD_CLOEXEC, 0);
	ck_assert_msg(
		!taps_open(&host->cards, listens, false, &host->taps, &err),
		"%s", err.text);
}

void rig_open_disks(struct rig_host *host, bool listens)
{
	struct error err;

	disks_free(host->disks);
	host->disks = NULL;
	if (!host->images.count && !host->images.nroots)
		return;
	ck_assert_msg(!disks_open(&host->images, listens, &host->disks, &err),
		      "%s", err.text);
}

struct vm_host rig_vm_host(struct rig_host *host)
{
	return (struct vm_host){
		.kvm = &host->kvm,
		.loop = host->loop,
		.backends = host->disks ? disks_backends(host->disks) : NULL,
		.taps = host->taps ? taps_backends(host->taps) : NULL,
		.lines = &host->lines,
		.on_event = on_event,
		.opaque = host,
	};
}

void rig_machine(const struct rig_host *host, const struct rig_guest *guest,
		 struct machine *ret)
{
	static const struct device_config debug_exit = { .type = "debug-exit",
							 .id = "debug-exit0" };
	static const struct device_config console = { .type = "virtio-console",
						      .id = "console0",
						      .vectors = 3 };
	struct error err;

	machine_init(ret);
	strcpy(ret->name, "rig");
	ret->cpus = guest->cpus ? guest->cpus : 1;
	ret->memory_size = guest->memory ? guest->memory : 16 * MIB;
	snprintf(ret->cmdline, sizeof(ret->cmdline), "%s", guest->cmdline);
	ck_assert_msg(!machine_add_device(ret, &debug_exit, &err), "%s",
		      err.text);
	ck_assert_msg(!guest->console ||
			      !machine_add_device(ret, &console, &err),
		      "%s", err.text);
	ck_assert_msg(!arch_cpu_model_host(&host->kvm, -1, ret->cpus,
					   &ret->cpu_model, &err),
		      "%s", err.text);
}

void rig_image_create(char ret_path[RIG_PATH_MAX], uint64_t size)
{
	int fd;

	snprintf(ret_path, RIG_PATH_MAX, "/tmp/godwit-rig-XXXXXX");
	fd = mkostemp(ret_path, O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s: %s", ret_path, strerror(errno));
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

void rig_image_remove(const char *path)
{
	ck_assert_int_eq(unlink(path), 0);
}

void rig_give_disk(struct rig_host *host, const char *path, uint32_t queues)
{
	struct disk_options *disk = &host->images.disks[0];

	host->images = (struct disks_options){ .count = 1 };
	strcpy(disk->id, "disk0");
	disk->queues = queues;
	disk->vectors = queues + 1;
	snprintf(disk->path, sizeof(disk->path), "%s", path);
}

void rig_give_card(struct rig_host *host, int fd)
{
	host->tap_fd = fd;
	host->cards = (struct taps_options){ .count = 1 };
	host->cards.taps[0] = (struct tap_options){
		.id = "net0",
		.has_mac = true,
		.mac = RIG_MAC,
		.queues = 1,
		.vectors = 3,
	};
}

static void create(struct rig_host *host, const struct machine *machine)
{
	struct vm_host vm_host = rig_vm_host(host);
	struct error err;

	rig_thread_host = host;
	ck_assert_msg(!vm_create(machine, &vm_host, NULL, &host->vm, &err),
		      "%s", err.text);
	rig_thread_host = NULL;
}

void rig_remake(struct rig_host *host, const struct machine *machine)
{
	struct vm_image image = *vm_image(host->vm);

	image.kernel_fd = dup(image.kernel_fd);
	rig_discard(host);
	rig_open_disks(host, false);
	rig_open_taps(host, false);
	create(host, machine);
	vm_set_image(host->vm, &image);
}

void rig_boot(struct rig_host *host, const struct rig_guest *guest)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	struct vm_image image = { .initrd_fd = -1 };
	struct error err;
	struct stat st;
	char path[256];

	snprintf(path, sizeof(path), "%s/guests/%s.elf", RIG_BUILD, guest->elf);
	image.kernel_fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_msg(image.kernel_fd >= 0, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(fstat(image.kernel_fd, &st), 0);
	image.kernel_size = (uint64_t)st.st_size;
	rig_machine(host, guest, machine);
	rig_open_disks(host, false);
	rig_open_taps(host, false);
	if (host->disks)
		ck_assert_msg(!disks_add_devices(host->disks, machine, &err),
			      "%s", err.text);
	if (host->taps)
		ck_assert_msg(!taps_add_devices(host->taps, machine, &err),
			      "%s", err.text);
	create(host, machine);
	free(machine);
	vm_set_image(host->vm, &image);
	ck_assert_msg(!vm_boot(host->vm, &err), "%s", err.text);
	pthread_mutex_lock(&host->lock);
	host->ended = false;
	pthread_mutex_unlock(&host->lock);
	vm_release(host->vm, VM_HOLD_BIRTH);
}

/* ---- the console ---- */

/* False: it says nothing for a while. */
static bool read_console(struct rig_host *host, uint64_t deadline,
			 const char *wanted)
{
	struct pollfd ready = { .fd = host->console_out[0], .events = POLLIN };
	ssize_t n;

	if (poll(&ready, 1, 100) < 0 && errno != EINTR)
		ck_abort_msg("poll: %s", strerror(errno));
	n = read(host->console_out[0], host->text + host->text_len,
		 sizeof(host->text) - 1 - host->text_len);
	if (n > 0) {
		host->text_len += (size_t)n;
		host->text[host->text_len] = '\0';
	}
	if (clock_ns() > deadline || host->text_len == sizeof(host->text) - 1)
		ck_abort_msg("the guest did not say '%s'; it said: %s", wanted,
			     host->text + host->text_seen);
	return n > 0;
}

void rig_expect(struct rig_host *host, const char *text)
{
	uint64_t deadline = clock_ns() + PATIENCE;
	const char *found;

	while (!(found = strstr(host->text + host->text_seen, text))) {
		if (rig_ended(host))
			break;
		read_console(host, deadline, text);
	}
	/* What it said last may still be on its way. */
	while (!(found = strstr(host->text + host->text_seen, text))) {
		if (!read_console(host, deadline, text))
			ck_abort_msg("the guest ended (event %d, status %u, "
				     "%s) before it said '%s'; it said: %s",
				     (int)host->how, host->status, host->why,
				     text, host->text + host->text_seen);
	}
	host->text_seen = (size_t)(found - host->text) + strlen(text);
}

void rig_read_line(struct rig_host *host, char *line, size_t size)
{
	const char *start = host->text + host->text_seen;

	rig_expect(host, "\n");
	snprintf(line, size, "%.*s",
		 (int)(host->text + host->text_seen - 1 - start), start);
}

void rig_type(struct rig_host *host, const char *text)
{
	ck_assert_int_eq(write_full(host->console_in[1], text, strlen(text)),
			 0);
}

void rig_await(pthread_cond_t *changed, pthread_mutex_t *lock, const char *what)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(PATIENCE / NS_PER_S);
	if (pthread_cond_timedwait(changed, lock, &until))
		ck_abort_msg("in vain: %s", what);
}

static void await_end(struct rig_host *host)
{
	pthread_mutex_lock(&host->lock);
	while (!host->ended)
		rig_await(&host->changed, &host->lock,
			  "the guest does not end");
	pthread_mutex_unlock(&host->lock);
}

void rig_expect_end(struct rig_host *host, enum vm_event how)
{
	await_end(host);
	ck_assert_msg(host->how == how, "event %d, %s; it said: %s",
		      (int)host->how, host->why, host->text + host->text_seen);
}

void rig_expect_exit(struct rig_host *host, uint8_t status)
{
	rig_expect_end(host, VM_EVENT_EXIT);
	ck_assert_msg(host->status == status, "status %u; it said: %s",
		      host->status, host->text + host->text_seen);
}

bool rig_ended(struct rig_host *host)
{
	bool ended;

	pthread_mutex_lock(&host->lock);
	ended = host->ended;
	pthread_mutex_unlock(&host->lock);
	return ended;
}

void rig_expect_reset(struct rig_host *host)
{
	pthread_mutex_lock(&host->lock);
	while (host->resets == host->resets_seen)
		rig_await(&host->changed, &host->lock,
			  "the guest is not reset");
	host->resets_seen++;
	pthread_mutex_unlock(&host->lock);
}

/* On the loop's thread, until rig_unstall(). */
static void stall(void *opaque)
{
	struct rig_host *host = opaque;

	pthread_mutex_lock(&host->lock);
	host->in_stall = true;
	pthread_cond_broadcast(&host->changed);
	while (host->stalled)
		pthread_cond_wait(&host->changed, &host->lock);
	host->in_stall = false;
	pthread_mutex_unlock(&host->lock);
}

void rig_stall(struct rig_host *host)
{
	host->stalled = true;
	loop_post(host->loop, stall, host);
	pthread_mutex_lock(&host->lock);
	while (!host->in_stall)
		rig_await(&host->changed, &host->lock,
			  "the loop does not get there");
	pthread_mutex_unlock(&host->lock);
}

void rig_unstall(struct rig_host *host)
{
	pthread_mutex_lock(&host->lock);
	host->stalled = false;
	pthread_cond_broadcast(&host->changed);
	pthread_mutex_unlock(&host->lock);
}
