// SPDX-License-Identifier: MIT
/*
 * The log: what is printed, in whole lines, and that nobody is held up for ever
 * by a reader who sleeps.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "vmm/log.h"

#define PIPE_SIZE 16384

/* stderr is a pipe from here on; check runs each test in its own process. */
static int open_pipe(void)
{
	int fds[2];

	ck_assert(!pipe(fds));
	ck_assert_int_ge(fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE), PIPE_SIZE);
	ck_assert(!fcntl(fds[0], F_SETFL, O_NONBLOCK));
	ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	return fds[0];
}

static void fill_pipe(void)
{
	int flags = fcntl(STDERR_FILENO, F_GETFL);

	ck_assert(!fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK));
	while (write(STDERR_FILENO, "x", 1) == 1)
		;
	ck_assert(!fcntl(STDERR_FILENO, F_SETFL, flags));
}

static const char *read_pipe(int fd)
{
	static char text[PIPE_SIZE + 1];
	ssize_t n = read(fd, text, PIPE_SIZE);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void on_alarm(int signal)
{
	(void)signal;
}

START_TEST(lines_are_whole_and_plain)
{
	char longest[4000];
	int fd = open_pipe();
	const char *text;

	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	log_info("not asked for");
	log_notice("one %d", 1);
	ck_assert(log_now(LOG_NOTICE, "two\033[2J\n%s", "lines"));
	ck_assert(log_now(LOG_DEBUG, "not asked for"));
	text = read_pipe(fd);
	ck_assert_msg(!strncmp(text, "godwit: one 1\ngodwit: two", 25), "%s",
		      text);
	ck_assert_ptr_null(strchr(text, '\033'));
	ck_assert_ptr_eq(strrchr(text, '\n'), text + strlen(text) - 1);
	log_notice("%s", longest);
	text = read_pipe(fd);
	ck_assert_uint_lt(strlen(text), 1100);
	ck_assert_int_eq(text[strlen(text) - 1], '\n');
}
END_TEST

/* Also where there seems to be room: a terminal has it for a byte. */
START_TEST(nobody_waits_for_a_terminal_that_nobody_reads)
{
	static char line[1000];
	int fd = posix_openpt(O_RDWR | O_NOCTTY);
	int tty;

	ck_assert_int_ge(fd, 0);
	ck_assert(!grantpt(fd) && !unlockpt(fd));
	tty = open(ptsname(fd), O_RDWR | O_NOCTTY);
	ck_assert_int_eq(dup2(tty, STDERR_FILENO), STDERR_FILENO);
	log_begin();
	memset(line, 'a', sizeof(line) - 1);
	for (int i = 0; i < 1000 && log_now(LOG_NOTICE, "%s", line); i++)
		;
	ck_assert(!log_now(LOG_NOTICE, "%s", line));
	/* Who has it, too, finds it as it was. */
	ck_assert(!(fcntl(tty, F_GETFL) & O_NONBLOCK));
}
END_TEST

START_TEST(a_signal_ends_the_waiting)
{
	int fd = open_pipe();
	struct itimerval soon = { .it_value.tv_usec = 50000 };
	struct sigaction nothing = { .sa_handler = on_alarm };

	fill_pipe();
	sigaction(SIGALRM, &nothing, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	log_notice("lost");
	read_pipe(fd);
	log_end();
	ck_assert_str_eq(read_pipe(fd),
			 "godwit: lines lost here, for nobody read them: 1\n");
}
END_TEST

START_TEST(nobody_waits_for_a_reader_who_sleeps)
{
	int fd = open_pipe();

	fill_pipe();
	ck_assert(!log_now(LOG_NOTICE, "this is said later"));
	log_notice("lost");
	log_notice("lost as well");
	read_pipe(fd);
	log_notice("there is room again");
	ck_assert_str_eq(read_pipe(fd),
			 "godwit: lines lost here, for nobody read them: 2\n"
			 "godwit: there is room again\n");
	log_notice("and nothing lost");
	log_end();
	ck_assert_str_eq(read_pipe(fd), "godwit: and nothing lost\n");
	fill_pipe();
	log_notice("the last one");
	log_end();
	read_pipe(fd);
	log_end();
	ck_assert_str_eq(read_pipe(fd),
			 "godwit: lines lost here, for nobody read them: 1\n");
}
END_TEST

UNIT_SUITE("log", lines_are_whole_and_plain,
	   nobody_waits_for_a_terminal_that_nobody_reads,
	   a_signal_ends_the_waiting, nobody_waits_for_a_reader_who_sleeps)
