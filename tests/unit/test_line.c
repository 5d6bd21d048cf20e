// SPDX-License-Identifier: MIT
/*
 * A line: its end, which the guest waits for, and its watchers, whom nobody
 * waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/backend/line.h"
#include "tests/unit/unit.h"

struct rig {
	struct loop *loop;
	struct line *line;
	struct loop_fd *watch;
	pthread_mutex_t lock;
	unsigned int news;
};

static void on_news(void *opaque, uint32_t events __maybe_unused)
{
	struct rig *rig = opaque;

	line_take_news(rig->line);
	rig->news++;
}

static struct rig *rig_on(const struct line_end *end)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err;

	ck_assert_ptr_nonnull(rig);
	signal(SIGPIPE, SIG_IGN);
	pthread_mutex_init(&rig->lock, NULL);
	ck_assert(!loop_create(&rig->loop, &err));
	ck_assert(!line_create(rig->loop, end, &rig->line, &err));
	ck_assert(!line_watch_news(rig->line, rig->loop, on_news, rig,
				   &rig->lock, &rig->watch, &err));
	return rig;
}

static struct rig *rig_alone(void)
{
	return rig_on(&(struct line_end){ .in = -1, .out = -1, .listen = -1 });
}

static void rig_free(struct rig *rig)
{
	loop_fd_remove(rig->watch);
	line_free(rig->line);
	loop_free(rig->loop);
	pthread_mutex_destroy(&rig->lock);
	free(rig);
}

struct marker {
	struct loop *loop;
	unsigned int rounds;
};

static void on_marker(void *opaque, uint32_t events __maybe_unused)
{
	struct marker *marker = opaque;

	if (++marker->rounds == 4)
		loop_stop(marker->loop);
}

/* Until whatever is ready has had several turns. */
static void turn(struct rig *rig)
{
	struct marker marker = { .loop = rig->loop };
	int fd = eventfd(1, EFD_CLOEXEC);
	struct loop_fd *source;
	struct error err;

	ck_assert(!loop_fd_add(rig->loop, fd, EPOLLIN, on_marker, &marker, NULL,
			       &source, &err));
	loop_run(rig->loop);
	loop_fd_remove(source);
	close(fd);
}

static size_t put(struct rig *rig, const char *text)
{
	return line_put(rig->line, (const uint8_t *)text, strlen(text));
}

static void expect_typed(struct rig *rig, const char *text)
{
	uint8_t typed[256] = { 0 };
	size_t n = line_get(rig->line, typed, sizeof(typed));

	ck_assert_uint_eq(n, strlen(text));
	ck_assert_str_eq((char *)typed, text);
}

/* One more watcher, from byte @from on; the other end of his socket. */
static int watch(struct rig *rig, uint64_t from)
{
	struct error err;
	int pair[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	ck_assert_msg(!line_watch(rig->line, pair[0], from, "", 0, &err), "%s",
		      err.text);
	return pair[1];
}

static void expect_heard(struct rig *rig, int fd, const char *text)
{
	char heard[256] = "";
	ssize_t n;

	turn(rig);
	n = read(fd, heard, sizeof(heard) - 1);
	ck_assert_int_eq(n, text[0] ? (ssize_t)strlen(text) : -1);
	ck_assert_str_eq(heard, text);
}

static void expect_hung_up(int fd)
{
	static char rest[2 * LINE_SCROLLBACK];
	ssize_t n;

	do
		n = read(fd, rest, sizeof(rest));
	while (n > 0);
	ck_assert(!n || errno == ECONNRESET);
}

/* ---- watchers ---- */

START_TEST(line_shows_a_watcher_what_was_said_and_what_is_said_then)
{
	struct rig *rig = rig_alone();
	int one, two;

	ck_assert_uint_eq(put(rig, "before "), 7);
	one = watch(rig, 0);
	expect_heard(rig, one, "before ");
	two = watch(rig, 4);
	put(rig, "after");
	expect_heard(rig, one, "after");
	expect_heard(rig, two, "re after");
	expect_heard(rig, one, "");
	ck_assert(line_served(rig->line));
	rig_free(rig);
	expect_hung_up(one);
	expect_hung_up(two);
}
END_TEST

START_TEST(line_keeps_the_last_of_what_was_said)
{
	static char text[LINE_SCROLLBACK + 1];
	struct rig *rig = rig_alone();
	uint64_t first, end;
	char heard[8];
	int fd;

	memset(text, 'a', LINE_SCROLLBACK);
	put(rig, "gone ");
	put(rig, text);
	put(rig, "end");
	line_range(rig->line, &first, &end);
	ck_assert_uint_eq(end, 5 + LINE_SCROLLBACK + 3);
	ck_assert_uint_eq(first, end - LINE_SCROLLBACK);
	fd = watch(rig, 0);
	for (uint64_t at = first; at < end - 3; at++) {
		while (read(fd, heard, 1) < 0)
			turn(rig);
		ck_assert_int_eq(heard[0], 'a');
	}
	expect_heard(rig, fd, "end");
	close(fd);
	rig_free(rig);
}
END_TEST

START_TEST(line_hangs_up_on_a_watcher_who_does_not_read_and_on_no_other)
{
	static char text[LINE_SCROLLBACK / 2 + 1];
	static char sink[LINE_SCROLLBACK];
	struct rig *rig = rig_alone();
	int lazy = watch(rig, 0), keen = watch(rig, 0);
	uint64_t heard = 0;

	memset(text, 'x', sizeof(text) - 1);
	for (int i = 0; i < 64; i++) {
		ssize_t n;

		ck_assert_uint_eq(put(rig, text), sizeof(text) - 1);
		do {
			turn(rig);
			n = read(keen, sink, sizeof(sink));
			heard += n > 0 ? (uint64_t)n : 0;
		} while (n > 0);
	}
	ck_assert_uint_eq(heard, 64 * (sizeof(text) - 1));
	expect_hung_up(lazy);
	ck_assert(line_served(rig->line));
	close(keen);
	rig_free(rig);
}
END_TEST

START_TEST(line_takes_what_watchers_type_when_it_is_wanted)
{
	struct rig *rig = rig_alone();
	int one = watch(rig, 0), two = watch(rig, 0);

	ck_assert_int_eq(write(one, "ab", 2), 2);
	turn(rig);
	/* Nobody has asked. */
	ck_assert_uint_eq(rig->news, 0);
	expect_typed(rig, "ab");
	ck_assert_int_eq(write(two, "c", 1), 1);
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	/* Told once. */
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	expect_typed(rig, "c");
	expect_typed(rig, "");
	close(one);
	close(two);
	rig_free(rig);
}
END_TEST

START_TEST(line_takes_the_last_words_of_a_watcher_who_has_hung_up)
{
	struct rig *rig = rig_alone();
	int one = watch(rig, 0), two;

	ck_assert_int_eq(write(one, "bye", 3), 3);
	close(one);
	put(rig, "to nobody");
	turn(rig);
	ck_assert(line_served(rig->line));
	expect_typed(rig, "bye");
	expect_typed(rig, "");
	/* One who says no more may listen on. */
	two = watch(rig, 0);
	ck_assert(!shutdown(two, SHUT_WR));
	expect_typed(rig, "");
	expect_heard(rig, two, "to nobody");
	put(rig, "more");
	expect_heard(rig, two, "more");
	close(two);
	rig_free(rig);
}
END_TEST

START_TEST(line_has_a_limit_of_watchers_and_the_gone_do_not_count)
{
	struct rig *rig = rig_alone();
	int fds[LINE_WATCHERS_MAX], pair[2];
	struct error err;

	for (int i = 0; i < LINE_WATCHERS_MAX; i++)
		fds[i] = watch(rig, 0);
	ck_assert(line_is_full(rig->line));
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	ck_assert_int_eq(line_watch(rig->line, pair[0], 0, "", 0, &err),
			 -EUSERS);
	ck_assert_ptr_nonnull(strstr(err.text, "16"));
	ck_assert_int_eq(write(fds[3], "unread", 6), 6);
	close(fds[3]);
	turn(rig);
	ck_assert(!line_is_full(rig->line));
	fds[3] = watch(rig, 0);
	ck_assert(line_is_full(rig->line));
	for (int i = 0; i < LINE_WATCHERS_MAX; i++)
		close(fds[i]);
	close(pair[1]);
	rig_free(rig);
}
END_TEST

START_TEST(line_takes_first_what_a_watcher_had_typed_before)
{
	struct rig *rig = rig_alone();
	struct error err;
	uint8_t two[2];
	int pair[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	ck_assert_int_eq(write(pair[1], "ef", 2), 2);
	ck_assert(!line_watch(rig->line, pair[0], 0, "abcd", 4, &err));
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	ck_assert_uint_eq(line_get(rig->line, two, 2), 2);
	ck_assert(!memcmp(two, "ab", 2));
	expect_typed(rig, "cdef");
	close(pair[1]);
	rig_free(rig);
}
END_TEST

START_TEST(line_tells_who_asks_of_what_waits_on_this_side_of_a_socket)
{
	struct rig *rig = rig_alone();
	struct error err;
	uint8_t bytes[2];
	int pair[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	ck_assert(!line_watch(rig->line, pair[0], 0, "abcd", 4, &err));
	turn(rig);
	ck_assert_uint_eq(line_get(rig->line, bytes, 2), 2);
	rig->news = 0;
	line_ask(rig->line);
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	expect_typed(rig, "cd");
	/* And what somebody typed who has hung up before it was read. */
	ck_assert_int_eq(write(pair[1], "xyz", 3), 3);
	close(pair[1]);
	turn(rig);
	ck_assert_uint_eq(line_get(rig->line, bytes, 1), 1);
	rig->news = 0;
	line_ask(rig->line);
	turn(rig);
	ck_assert_uint_ge(rig->news, 1);
	expect_typed(rig, "yz");
	expect_typed(rig, "");
	/* He is gone then, and nobody is told of nothing for ever. */
	turn(rig);
	rig->news = 0;
	line_ask(rig->line);
	turn(rig);
	ck_assert_uint_eq(rig->news, 0);
	rig_free(rig);
}
END_TEST

static void on_served(void *opaque)
{
	(*(unsigned int *)opaque)++;
}

START_TEST(line_tells_when_every_watcher_has_heard_everything)
{
	struct rig *rig = rig_alone();
	int fd = watch(rig, 0);
	unsigned int told = 0;

	line_on_served(rig->line, on_served, &told);
	put(rig, "last words");
	ck_assert(!line_served(rig->line));
	turn(rig);
	ck_assert(line_served(rig->line));
	ck_assert_uint_ge(told, 1);
	expect_heard(rig, fd, "last words");
	close(fd);
	rig_free(rig);
}
END_TEST

/* ---- the end ---- */

START_TEST(line_waits_for_its_end_and_records_what_that_took)
{
	static uint8_t much[2 << 20];
	struct rig *rig;
	uint64_t first, end;
	size_t n;
	int pipe_fds[2];

	ck_assert(!pipe(pipe_fds));
	rig = rig_on(&(struct line_end){
		.in = -1, .out = pipe_fds[1], .listen = -1 });
	n = line_put(rig->line, much, sizeof(much));
	ck_assert_uint_gt(n, 0);
	ck_assert_uint_lt(n, sizeof(much));
	line_range(rig->line, &first, &end);
	ck_assert_uint_eq(end, n);
	turn(rig);
	ck_assert_uint_eq(rig->news, 0);
	ck_assert_int_eq(read(pipe_fds[0], much, sizeof(much)), (ssize_t)n);
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	/* Whoever doesn't read any more is not waited for. */
	close(pipe_fds[0]);
	ck_assert_uint_eq(line_put(rig->line, much, sizeof(much)),
			  sizeof(much));
	close(pipe_fds[1]);
	rig_free(rig);
}
END_TEST

/* A socket to listen on that has no name but the kernel's. */
static int listen_somewhere(struct sockaddr_un *ret, socklen_t *ret_len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	ck_assert(!bind(fd, (struct sockaddr *)ret, sizeof(sa_family_t)));
	*ret_len = sizeof(*ret);
	ck_assert(!getsockname(fd, (struct sockaddr *)ret, ret_len));
	ck_assert(!listen(fd, 4));
	return fd;
}

static int connect_to(const struct sockaddr_un *to, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	ck_assert(!connect(fd, (const struct sockaddr *)to, len));
	return fd;
}

static struct rig *rig_listening(struct sockaddr_un *to, socklen_t *len)
{
	return rig_on(&(struct line_end){ .in = -1,
					  .out = -1,
					  .listen = listen_somewhere(to, len),
					  .owned = true });
}

START_TEST(line_serves_clients_of_a_socket_one_after_the_other)
{
	struct sockaddr_un to;
	socklen_t len;
	struct rig *rig;
	int one, two;

	rig = rig_listening(&to, &len);
	ck_assert_uint_eq(put(rig, "nobody hears this"), 17);
	one = connect_to(&to, len);
	two = connect_to(&to, len);
	turn(rig);
	put(rig, "first");
	expect_heard(rig, one, "first");
	expect_heard(rig, two, "");
	ck_assert_int_eq(write(one, "typed", 5), 5);
	close(one);
	turn(rig);
	/* His last words are read before the next one's first. */
	ck_assert_int_eq(write(two, "next", 4), 4);
	turn(rig);
	expect_typed(rig, "typed");
	expect_typed(rig, "");
	turn(rig);
	expect_typed(rig, "next");
	put(rig, "second");
	expect_heard(rig, two, "second");
	close(two);
	rig_free(rig);
}
END_TEST

START_TEST(line_lets_the_next_client_in_though_the_guest_reads_nothing)
{
	struct sockaddr_un to;
	socklen_t len;
	struct rig *rig;
	int one, two;

	rig = rig_listening(&to, &len);
	one = connect_to(&to, len);
	turn(rig);
	close(one);
	turn(rig);
	two = connect_to(&to, len);
	turn(rig);
	put(rig, "second");
	expect_heard(rig, two, "second");
	close(two);
	rig_free(rig);
}
END_TEST

START_TEST(line_waits_for_a_client_who_does_not_read)
{
	static uint8_t much[4 << 20];
	struct sockaddr_un to;
	socklen_t len;
	struct rig *rig;
	size_t n, heard = 0;
	ssize_t got;
	int fd;

	rig = rig_listening(&to, &len);
	fd = connect_to(&to, len);
	turn(rig);
	n = line_put(rig->line, much, sizeof(much));
	ck_assert_uint_lt(n, sizeof(much));
	rig->news = 0;
	while ((got = read(fd, much, sizeof(much))) > 0)
		heard += (size_t)got;
	ck_assert_uint_eq(heard, n);
	turn(rig);
	ck_assert_uint_ge(rig->news, 1);
	close(fd);
	rig_free(rig);
}
END_TEST

START_TEST(line_knows_the_size_that_it_was_told_last)
{
	struct rig *rig = rig_alone();
	struct line_size size = line_size(rig->line);

	ck_assert(!size.columns && !size.rows);
	line_resize(rig->line, (struct line_size){ 80, 24 });
	line_resize(rig->line, (struct line_size){ 132, 43 });
	turn(rig);
	ck_assert_uint_eq(rig->news, 1);
	size = line_size(rig->line);
	ck_assert(size.columns == 132 && size.rows == 43);
	rig_free(rig);
}
END_TEST

START_TEST(a_row_ends_with_a_newline_whatever_returns_behind_it)
{
	static const struct {
		const char *said;
		bool before, ends;
	} cases[] = {
		{ "", true, true },	  { "", false, false },
		{ "\r", true, true },	  { "\r", false, false },
		{ "x\n", false, true },	  { "x\r\n", false, true },
		{ "x\n\r", false, true }, { "\nx", true, false },
		{ "x\r", true, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_int_eq(line_row_ends((const uint8_t *)cases[i].said,
					       strlen(cases[i].said),
					       cases[i].before),
				 cases[i].ends);
}
END_TEST

UNIT_SUITE("line", line_shows_a_watcher_what_was_said_and_what_is_said_then,
	   line_keeps_the_last_of_what_was_said,
	   line_hangs_up_on_a_watcher_who_does_not_read_and_on_no_other,
	   line_takes_what_watchers_type_when_it_is_wanted,
	   line_takes_the_last_words_of_a_watcher_who_has_hung_up,
	   line_has_a_limit_of_watchers_and_the_gone_do_not_count,
	   line_takes_first_what_a_watcher_had_typed_before,
	   line_tells_who_asks_of_what_waits_on_this_side_of_a_socket,
	   line_tells_when_every_watcher_has_heard_everything,
	   line_waits_for_its_end_and_records_what_that_took,
	   line_serves_clients_of_a_socket_one_after_the_other,
	   line_lets_the_next_client_in_though_the_guest_reads_nothing,
	   line_waits_for_a_client_who_does_not_read,
	   line_knows_the_size_that_it_was_told_last,
	   a_row_ends_with_a_newline_whatever_returns_behind_it)
