// SPDX-License-Identifier: MIT
/*
 * Consoles, opened for devices; see consoles.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "devices/virtio/console.h"
#include "vmm/consoles.h"

struct console {
	char id[DEVICE_ID_MAX];
	struct line *line;
	struct terminal *terminal; /* of stdio, if it is one */
	bool shown;		   /* on standard output, which is one, too */
	uint64_t broken_at; /* where we have ended a row of the guest's */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* unix: */
};

struct consoles {
	struct loop *loop;
	loop_fn *leave;
	void *opaque;
	struct device_lines lines;
	/*
	 * Of what follows. Lines are only added, for who has found one may have
	 * it; those behind the first ones change their names.
	 */
	pthread_mutex_t lock;
	uint32_t nnamed; /* on the command line */
	uint32_t nused;	 /* by a guest, too */
	uint32_t count;
	struct console all[MACHINE_DEVICES_MAX];
};

static const struct line_end nobody = { .in = -1, .out = -1, .listen = -1 };

/* ---- ends ---- */

static int open_unix(struct console *console, const char *path,
		     struct line_end *end, struct error *err)
{
	struct address address;
	char text[ADDRESS_TEXT_MAX];
	int rc;

	snprintf(text, sizeof(text), "unix:%s", path);
	rc = address_parse(text, &address, err);
	if (rc)
		return rc;
	rc = transport_listen(&address, NULL, err);
	if (rc < 0)
		return rc;
	end->listen = rc;
	end->owned = true;
	snprintf(console->path, sizeof(console->path), "%s", path);
	return 0;
}

/* A guest that moves within a host finds what it said before. */
static int open_file(const char *path, struct line_end *end, struct error *err)
{
	/*
	 * A FIFO that nobody reads is not waited for, and a terminal's hang-up
	 * is none of ours.
	 */
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK |
			      O_NOCTTY,
		      0644);

	if (fd < 0 && errno == ENXIO)
		return error_set(err, -ENXIO,
				 "file:%s: it is a FIFO that nobody reads; "
				 "open its other end first",
				 path);
	if (fd < 0)
		return error_set(err, -errno, "file:%s: %s", path,
				 strerror(errno));
	end->out = fd;
	end->owned = true;
	return 0;
}

/* Closed at our start: main() has put something unwritable in its place. */
static bool is_writable(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static int open_stdio(struct consoles *consoles, struct console *console,
		      struct line_end *end, struct error *err)
{
	int rc;

	end->in = STDIN_FILENO;
	if (is_writable(STDOUT_FILENO))
		end->out = STDOUT_FILENO;
	console->shown = end->out >= 0 && isatty(end->out);
	if (!isatty(STDIN_FILENO))
		return 0;
	rc = terminal_create(consoles->loop, STDIN_FILENO, consoles->leave,
			     consoles->opaque, &console->terminal, err);
	if (!rc)
		end->in = terminal_console_in(console->terminal);
	return rc;
}

static int open_end(struct consoles *consoles, struct console *console,
		    const struct console_options *options, struct line_end *end,
		    struct error *err)
{
	*end = nobody;
	switch (options->kind) {
	case CONSOLE_STDIO:
		return open_stdio(consoles, console, end, err);
	case CONSOLE_UNIX:
		return open_unix(console, options->path, end, err);
	case CONSOLE_FILE:
		return open_file(options->path, end, err);
	case CONSOLE_NULL:
		break;
	}
	return 0;
}

/* ---- lines ---- */

static int open_one(struct consoles *consoles, const char *option,
		    const char *id, const struct console_options *options,
		    struct error *err)
{
	/* There are no more options than devices. */
	struct console *console = &consoles->all[consoles->count++];
	struct line_end end;
	int rc;

	snprintf(console->id, sizeof(console->id), "%s", id);
	rc = open_end(consoles, console, options, &end, err);
	if (!rc)
		rc = line_create(consoles->loop, &end, &console->line, err);
	if (rc)
		error_prefix(err, "%s", option);
	return rc;
}

static struct console *find_console(struct consoles *consoles, const char *id)
{
	for (uint32_t i = 0; i < consoles->nused; i++) {
		if (!strcmp(consoles->all[i].id, id))
			return &consoles->all[i];
	}
	return NULL;
}

static uint32_t count_consoles(struct consoles *consoles)
{
	uint32_t count;

	pthread_mutex_lock(&consoles->lock);
	count = consoles->count;
	pthread_mutex_unlock(&consoles->lock);
	return count;
}

static int open_unnamed(struct consoles *consoles, const char *id,
			struct console **ret, struct error *err)
{
	struct console *console = &consoles->all[consoles->nused];
	int rc = 0;

	if (consoles->nused == ARRAY_SIZE(consoles->all))
		return error_set(err, -ENOSPC,
				 "the guest and --console have more consoles "
				 "than a VM has devices");
	if (!console->line)
		rc = line_create(consoles->loop, &nobody, &console->line, err);
	if (rc)
		return rc;
	snprintf(console->id, sizeof(console->id), "%s", id);
	consoles->nused++;
	consoles->count = MAX(consoles->count, consoles->nused);
	*ret = console;
	return 0;
}

void consoles_expect(struct consoles *consoles)
{
	pthread_mutex_lock(&consoles->lock);
	consoles->nused = consoles->nnamed;
	pthread_mutex_unlock(&consoles->lock);
}

static int open_line(void *opaque, const char *id, struct line **ret,
		     struct error *err)
{
	struct consoles *consoles = opaque;
	struct console *console;
	int rc = 0;

	pthread_mutex_lock(&consoles->lock);
	console = find_console(consoles, id);
	if (!console)
		rc = open_unnamed(consoles, id, &console, err);
	pthread_mutex_unlock(&consoles->lock);
	if (!rc)
		*ret = console->line;
	return rc;
}

struct line *consoles_find(struct consoles *consoles, const char *id)
{
	struct console *console;

	pthread_mutex_lock(&consoles->lock);
	console = find_console(consoles, id);
	pthread_mutex_unlock(&consoles->lock);
	return console ? console->line : NULL;
}

void consoles_look_at_size(struct consoles *consoles)
{
	for (uint32_t i = 0; i < count_consoles(consoles); i++) {
		struct console *console = &consoles->all[i];
		struct line_size size;

		if (console->terminal &&
		    !terminal_size(console->terminal, &size))
			line_resize(console->line, size);
	}
}

bool consoles_served(struct consoles *consoles)
{
	for (uint32_t i = 0; i < count_consoles(consoles); i++) {
		if (!line_served(consoles->all[i].line))
			return false;
	}
	return true;
}

void consoles_on_served(struct consoles *consoles, loop_fn *fn, void *opaque)
{
	for (uint32_t i = 0; i < count_consoles(consoles); i++)
		line_on_served(consoles->all[i].line, fn, opaque);
}

const struct device_lines *consoles_lines(const struct consoles *consoles)
{
	return &consoles->lines;
}

/* ---- devices ---- */

static void name_console(char id[DEVICE_ID_MAX], uint32_t index)
{
	snprintf(id, DEVICE_ID_MAX, "console%u", index);
}

int consoles_add_devices(const struct consoles_options *options,
			 struct machine *machine, struct error *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < options->count && !rc; i++) {
		struct device_config config = {
			.type = CONSOLE_DEVICE,
			.vectors = CONSOLE_VECTORS,
		};

		name_console(config.id, i);
		rc = machine_add_device(machine, &config, err);
	}
	if (rc)
		error_prefix(err, "--console");
	return rc;
}

/* ---- the whole ---- */

static int open_all(struct consoles *consoles,
		    const struct process_options *options, struct error *err)
{
	int rc = open_one(consoles, "--serial", "serial0", &options->serial,
			  err);

	for (uint32_t i = 0; i < options->consoles.count && !rc; i++) {
		char id[DEVICE_ID_MAX];

		name_console(id, i);
		rc = open_one(consoles, "--console", id,
			      &options->consoles.consoles[i], err);
	}
	return rc;
}

int consoles_open(const struct process_options *options, struct loop *loop,
		  loop_fn *leave, void *opaque, struct consoles **ret,
		  struct error *err)
{
	struct consoles *consoles = calloc(1, sizeof(*consoles));
	int rc;

	if (!consoles)
		return error_set(err, -ENOMEM, "--console: out of memory");
	consoles->loop = loop;
	consoles->leave = leave;
	consoles->opaque = opaque;
	consoles->lines = (struct device_lines){
		.open_line = open_line,
		.opaque = consoles,
	};
	pthread_mutex_init(&consoles->lock, NULL);
	rc = open_all(consoles, options, err);
	if (rc) {
		consoles_free(consoles);
		return rc;
	}
	consoles->nnamed = consoles->nused = consoles->count;
	consoles_look_at_size(consoles);
	*ret = consoles;
	return 0;
}

void consoles_end_row(struct consoles *consoles)
{
	for (uint32_t i = 0; consoles && i < consoles->count; i++) {
		struct console *console = &consoles->all[i];
		uint64_t at;

		if (!console->shown)
			continue;
		at = line_midway(console->line);
		/* Nothing can be done about a terminal that takes nothing. */
		if (at && at != console->broken_at)
			(void)!write(STDOUT_FILENO, "\n", 1);
		console->broken_at = at;
	}
}

void consoles_restore(struct consoles *consoles)
{
	consoles_end_row(consoles);
	for (uint32_t i = 0; consoles && i < consoles->count; i++) {
		if (consoles->all[i].terminal)
			terminal_restore(consoles->all[i].terminal);
	}
}

void consoles_free(struct consoles *consoles)
{
	if (!consoles)
		return;
	for (uint32_t i = 0; i < consoles->count; i++) {
		struct console *console = &consoles->all[i];

		line_free(console->line);
		terminal_free(console->terminal);
		if (console->path[0])
			(void)unlink(console->path);
	}
	pthread_mutex_destroy(&consoles->lock);
	free(consoles);
}
