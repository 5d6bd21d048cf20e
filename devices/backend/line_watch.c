// SPDX-License-Identifier: MIT
/*
 * The watchers of a line, and its scroll-back; see line.h.
 *
 * What is said is written into the scroll-back only; the loop's thread carries
 * it to each watcher as fast as he reads, from there. So a watcher costs
 * whoever speaks nothing but a look at how far he is.
 *
 * A watcher who has hung up stays until the guest has taken what he had typed,
 * unless another wants his place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/backend/line_internal.h"
#include "vmm/log.h"

static uint64_t first_byte(const struct line *line)
{
	return line->said > LINE_SCROLLBACK ? line->said - LINE_SCROLLBACK : 0;
}

/* ---- one watcher ---- */

static void free_watcher(struct line_watcher *watcher)
{
	struct line *line = watcher->line;
	struct line_watcher **at = &line->watchers;

	while (*at != watcher)
		at = &(*at)->next;
	*at = watcher->next;
	line->nwatchers--;
	loop_fd_remove(watcher->watch);
	close_fd(&watcher->fd);
	free(watcher->typed);
	free(watcher);
}

static bool has_heard_all(const struct line_watcher *watcher)
{
	return !watcher->watch || watcher->at == watcher->line->said;
}

static void tell_served(struct line *line)
{
	if (!line->on_served)
		return;
	for (struct line_watcher *w = line->watchers; w; w = w->next) {
		if (!has_heard_all(w))
			return;
	}
	loop_post(line->loop, line->on_served, line->served_opaque);
}

static void watch_watcher(struct line_watcher *watcher)
{
	uint32_t events = 0;

	if (!watcher->watch)
		return;
	if (watcher->line->hungry && !watcher->silent)
		events |= EPOLLIN;
	if (!has_heard_all(watcher))
		events |= EPOLLOUT;
	loop_fd_set(watcher->watch, events);
}

/* Return: false when he can't be told anything any more. */
static bool send_some(struct line_watcher *watcher)
{
	struct line *line = watcher->line;
	size_t at = watcher->at % LINE_SCROLLBACK;
	size_t len = (size_t)MIN(line->said - watcher->at,
				 (uint64_t)LINE_SCROLLBACK - at);
	ssize_t n;

	if (!len)
		return true;
	n = send(watcher->fd, line->scroll + at, len,
		 MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		watcher->at += (uint64_t)n;
	return n > 0 || errno == EAGAIN || errno == EINTR;
}

/* He hears nothing any more. What he has typed is still there. */
static void hang_up(struct line_watcher *watcher)
{
	loop_fd_remove(watcher->watch);
	watcher->watch = NULL;
	if (watcher->silent && !watcher->ntyped)
		free_watcher(watcher);
}

static void on_watcher(void *opaque, uint32_t events)
{
	struct line_watcher *watcher = opaque;
	struct line *line = watcher->line;
	bool there = true;

	if (line->hungry && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		line_set_hungry(line, false);
		line_tell(line);
	}
	if (events & EPOLLOUT)
		there = send_some(watcher);
	if (!there || events & (EPOLLHUP | EPOLLERR))
		hang_up(watcher);
	else
		watch_watcher(watcher);
	tell_served(line);
}

/* ---- what is said ---- */

static void keep(struct line *line, const uint8_t *bytes, size_t len)
{
	while (len) {
		size_t at = line->said % LINE_SCROLLBACK;
		size_t n = MIN(len, LINE_SCROLLBACK - at);

		memcpy(line->scroll + at, bytes, n);
		line->said += n;
		bytes += n;
		len -= n;
	}
}

void line_record(struct line *line, const uint8_t *bytes, size_t len)
{
	struct line_watcher *next;
	uint64_t before = line->said;

	if (!len)
		return;
	keep(line, bytes, len);
	for (struct line_watcher *w = line->watchers; w; w = next) {
		bool waits = w->watch && w->at == before;

		next = w->next;
		if (w->watch && w->at < first_byte(line)) {
			log_info("console: hung up on a watcher that does not "
				 "read");
			free_watcher(w);
		} else if (waits) {
			watch_watcher(w);
		}
	}
}

bool line_row_ends(const uint8_t *bytes, size_t len, bool before)
{
	/* Some say "\n\r". */
	while (len && bytes[len - 1] == '\r')
		len--;
	return len ? bytes[len - 1] == '\n' : before;
}

uint64_t line_midway(struct line *line)
{
	uint8_t last[2];
	uint64_t said;
	size_t n;

	pthread_mutex_lock(&line->lock);
	said = line->said;
	n = (size_t)MIN(said, sizeof(last));
	for (size_t i = 0; i < n; i++)
		last[i] = line->scroll[(said - n + i) % LINE_SCROLLBACK];
	pthread_mutex_unlock(&line->lock);
	return line_row_ends(last, n, true) ? 0 : said;
}

void line_range(struct line *line, uint64_t *ret_first, uint64_t *ret_end)
{
	pthread_mutex_lock(&line->lock);
	*ret_first = first_byte(line);
	*ret_end = line->said;
	pthread_mutex_unlock(&line->lock);
}

bool line_served(struct line *line)
{
	bool served = true;

	pthread_mutex_lock(&line->lock);
	for (struct line_watcher *w = line->watchers; w; w = w->next)
		served &= has_heard_all(w);
	pthread_mutex_unlock(&line->lock);
	return served;
}

void line_on_served(struct line *line, loop_fn *fn, void *opaque)
{
	pthread_mutex_lock(&line->lock);
	line->on_served = fn;
	line->served_opaque = opaque;
	pthread_mutex_unlock(&line->lock);
}

/* ---- what is typed ---- */

void line_set_hungry(struct line *line, bool hungry)
{
	if (line->hungry == hungry)
		return;
	line->hungry = hungry;
	for (struct line_watcher *w = line->watchers; w; w = w->next)
		watch_watcher(w);
	if (hungry)
		return;
	loop_fd_remove(line->in_watch);
	line->in_watch = NULL;
}

static size_t get_typed(struct line_watcher *watcher, uint8_t *buf, size_t len)
{
	size_t n = MIN(len, watcher->ntyped);

	if (!n)
		return 0;
	memcpy(buf, watcher->typed, n);
	watcher->ntyped -= n;
	memmove(watcher->typed, watcher->typed + n, watcher->ntyped);
	return n;
}

static size_t get_from(struct line_watcher *watcher, uint8_t *buf, size_t len)
{
	size_t n = get_typed(watcher, buf, len);
	ssize_t got;

	if (n == len || watcher->silent)
		return n;
	/* Not recv(), which vCPUs may not call; the socket doesn't block. */
	got = read(watcher->fd, buf + n, len - n);
	if (got > 0)
		return n + (size_t)got;
	watcher->silent = !got || (errno != EAGAIN && errno != EINTR);
	return n;
}

size_t line_get_from_watchers(struct line *line, uint8_t *buf, size_t len)
{
	struct line_watcher *next;
	size_t n = 0;

	for (struct line_watcher *w = line->watchers; w && n < len; w = next) {
		next = w->next;
		n += get_from(w, buf + n, len - n);
		if (!w->watch && w->silent && !w->ntyped)
			free_watcher(w);
	}
	return n;
}

/* Who has hung up is not watched any more, whatever his socket still holds. */
bool line_has_typed(const struct line *line)
{
	const struct line_watcher *w = line->watchers;

	while (w && w->watch && !w->ntyped)
		w = w->next;
	return w;
}

/* ---- coming and going ---- */

static struct line_watcher *find_gone(const struct line *line)
{
	struct line_watcher *w = line->watchers;

	while (w && w->watch)
		w = w->next;
	return w;
}

bool line_is_full(struct line *line)
{
	bool full;

	pthread_mutex_lock(&line->lock);
	full = line->nwatchers == LINE_WATCHERS_MAX && !find_gone(line);
	pthread_mutex_unlock(&line->lock);
	return full;
}

static int make_watcher(struct line *line, int fd, uint64_t from,
			const void *typed, size_t len, struct error *err)
{
	struct line_watcher *w = calloc(1, sizeof(*w));

	if (w && len)
		w->typed = malloc(len);
	if (!w || (len && !w->typed)) {
		free(w);
		return error_set(err, -ENOMEM, "console: out of memory");
	}
	if (len)
		memcpy(w->typed, typed, len);
	w->ntyped = len;
	w->line = line;
	w->fd = fd;
	w->at = MAX(first_byte(line), MIN(from, line->said));
	w->next = line->watchers;
	line->watchers = w;
	line->nwatchers++;
	if (loop_fd_add(line->loop, fd, 0, on_watcher, w, &line->lock,
			&w->watch, err)) {
		w->fd = -1;
		free_watcher(w);
		return -ENOMEM;
	}
	watch_watcher(w);
	if (len)
		line_tell(line);
	return 0;
}

int line_watch(struct line *line, int fd, uint64_t from, const void *typed,
	       size_t len, struct error *err)
{
	int rc = 0;

	pthread_mutex_lock(&line->lock);
	if (line->nwatchers == LINE_WATCHERS_MAX && find_gone(line))
		free_watcher(find_gone(line));
	if (line->nwatchers == LINE_WATCHERS_MAX)
		rc = error_set(err, -EUSERS,
			       "%d watch this console already; end one",
			       LINE_WATCHERS_MAX);
	if (!rc)
		rc = make_watcher(line, fd, from, typed, len, err);
	pthread_mutex_unlock(&line->lock);
	if (rc)
		close(fd);
	return rc;
}

void line_drop_watchers(struct line *line)
{
	struct line_watcher *next;

	for (struct line_watcher *w = line->watchers; w; w = next) {
		next = w->next;
		free_watcher(w);
	}
}
