// SPDX-License-Identifier: MIT
/*
 * The terminal backend; see terminal.h.
 *
 * Typed bytes are read as they come, whether or not the guest wants them:
 * Ctrl-A x must work on a guest that hangs. When the pipe is full of bytes that
 * the guest doesn't read, further ones are dropped, as a keyboard does.
 *
 * Threads: the loop; create and free from the thread that owns the terminal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "devices/backend/terminal.h"
#include "vmm/log.h"

#define CTRL_A 0x01

struct terminal {
	int fd;	     /* the caller's */
	int pipe[2]; /* read end for the line, write end for us */
	struct loop_fd *watch;
	struct terminal_filter filter;
	struct termios saved;
	bool raw; /* saved is to be put back */
	loop_fn *leave;
	void *opaque;
};

size_t terminal_filter(struct terminal_filter *filter, const uint8_t *in,
		       size_t len, uint8_t *out)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (!filter->escaped && in[i] == CTRL_A) {
			filter->escaped = true;
			continue;
		}
		if (!filter->escaped || in[i] == CTRL_A)
			out[n++] = in[i];
		else if (in[i] == 'x')
			filter->leave = true;
		else if (in[i] == 'h')
			filter->help = true;
		filter->escaped = false;
	}
	return n;
}

/* The terminal is gone: so is the guest's input. */
static void terminal_hang_up(struct terminal *terminal)
{
	loop_fd_remove(terminal->watch);
	terminal->watch = NULL;
	close_fd(&terminal->pipe[1]);
}

static void terminal_on_input(void *opaque, uint32_t events __maybe_unused)
{
	struct terminal *terminal = opaque;
	struct terminal_filter *filter = &terminal->filter;
	uint8_t bytes[256];
	ssize_t n = read(terminal->fd, bytes, sizeof(bytes));
	size_t kept;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		terminal_hang_up(terminal);
		return;
	}
	kept = terminal_filter(filter, bytes, (size_t)n, bytes);
	/* Non-blocking; what doesn't fit is dropped, see above. */
	if (kept && write(terminal->pipe[1], bytes, kept) < 0)
		log_debug("console: the guest doesn't read its input");
	if (filter->help)
		/* The lowest level that is shown unless asked otherwise. */
		log_warn("Ctrl-A x leaves, Ctrl-A Ctrl-A sends Ctrl-A");
	filter->help = false;
	if (filter->leave)
		terminal->leave(terminal->opaque);
	filter->leave = false;
}

static int terminal_make_raw(struct terminal *terminal, struct error *err)
{
	struct termios raw;

	if (tcgetattr(terminal->fd, &terminal->saved))
		return error_set(err, -errno, "console: terminal settings: %s",
				 strerror(errno));
	raw = terminal->saved;
	raw.c_iflag &= (tcflag_t) ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR |
				    IGNCR | ICRNL | IXON);
	raw.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cflag &= (tcflag_t) ~(CSIZE | PARENB);
	raw.c_cflag |= CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(terminal->fd, TCSANOW, &raw))
		return error_set(err, -errno, "console: raw mode: %s",
				 strerror(errno));
	terminal->raw = true;
	return 0;
}

static int terminal_open_pipe(struct terminal *terminal, struct error *err)
{
	if (pipe2(terminal->pipe, O_CLOEXEC) ||
	    fcntl(terminal->pipe[1], F_SETFL, O_NONBLOCK))
		return error_set(err, -errno, "console: pipe: %s",
				 strerror(errno));
	return 0;
}

int terminal_create(struct loop *loop, int fd, loop_fn *leave, void *opaque,
		    struct terminal **ret, struct error *err)
{
	struct terminal *terminal = calloc(1, sizeof(*terminal));
	int code;

	if (!terminal)
		return error_set(err, -ENOMEM, "console: %s", strerror(ENOMEM));
	*terminal = (struct terminal){
		.fd = fd,
		.pipe = { -1, -1 },
		.leave = leave,
		.opaque = opaque,
	};
	code = terminal_open_pipe(terminal, err);
	if (!code)
		code = terminal_make_raw(terminal, err);
	if (!code)
		code = loop_fd_add(loop, fd, EPOLLIN, terminal_on_input,
				   terminal, NULL, &terminal->watch, err);
	if (code)
		goto fail;
	*ret = terminal;
	return 0;
fail:
	terminal_free(terminal);
	return code;
}

int terminal_console_in(const struct terminal *terminal)
{
	return terminal->pipe[0];
}

int terminal_size(const struct terminal *terminal, struct line_size *ret)
{
	struct winsize size;

	if (ioctl(terminal->fd, TIOCGWINSZ, &size))
		return -errno;
	*ret = (struct line_size){ size.ws_col, size.ws_row };
	return 0;
}

void terminal_restore(const struct terminal *terminal)
{
	if (terminal->raw)
		tcsetattr(terminal->fd, TCSANOW, &terminal->saved);
}

void terminal_free(struct terminal *terminal)
{
	if (!terminal)
		return;
	loop_fd_remove(terminal->watch);
	terminal_restore(terminal);
	close_fd(&terminal->pipe[0]);
	close_fd(&terminal->pipe[1]);
	free(terminal);
}
