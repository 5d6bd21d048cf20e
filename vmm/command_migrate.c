// SPDX-License-Identifier: MIT
/*
 * `godwit migrate`: ask a VM to move, show how it goes, say how it went. The
 * VM's own process does the moving: ending this command changes nothing, only
 * Ctrl-C, which asks for a cancel first.
 */
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/move_words.h"
#include "vmm/progress.h"
#include "vmm/units.h"

#define PROGRESS_MS 200

/* How long the target of an uncertain move may take to answer after all. */
#define UNCERTAIN_PATIENCE (10 * NS_PER_S)

struct follow {
	const struct migrate_options *options;
	struct client client;
	int signal_fd; /* Ctrl-C, and SIGTERM */
	bool progress; /* on a terminal */
	unsigned int interrupts;
	bool ended;
	bool handing_over; /* the guest is paused, or about to be */
	bool uncertain;
	uint64_t uncertain_since_ns;
	char ending[256]; /* how the guest ended here; "": it has not */
	json_t *report;	  /* the last word */
};

/* ---- the address ---- */

/* The VM can't look names up and has another working directory: do it here. */
static int numeric_tcp(struct address *to, char *uri, size_t size,
		       struct error *err)
{
	char host[256];
	int rc = address_resolve(to, err);

	if (rc)
		return rc;
	rc = getnameinfo(&to->sa, to->len, host, sizeof(host), NULL, 0,
			 NI_NUMERICHOST);
	if (rc)
		return error_set(err, -EINVAL, "%s: %s", to->text,
				 gai_strerror(rc));
	/* An interface's name would be lost on the other side too. */
	if (to->sa.sa_family == AF_INET6 && strchr(host, '%'))
		snprintf(strchr(host, '%'), 16, "%%%u", to->in6.sin6_scope_id);
	snprintf(uri, size,
		 to->sa.sa_family == AF_INET6 ? "tcp:[%s]:%u" : "tcp:%s:%u",
		 host, to->port);
	return 0;
}

static int absolute_unix(const struct address *to, char *uri, size_t size,
			 struct error *err)
{
	const char *path = to->text + strlen("unix:");
	char *cwd = NULL;

	if (path[0] != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return error_set(err, -errno, "working directory: %s",
					 strerror(errno));
	}
	snprintf(uri, size, "unix:%s%s%s", cwd ? cwd : "", cwd ? "/" : "",
		 path);
	free(cwd);
	return 0;
}

static int make_uri(struct follow *follow, char *uri, size_t size,
		    struct error *err)
{
	struct address to = follow->options->params.to;
	int rc = address_check(&to, err);

	if (rc)
		return rc;
	switch (to.kind) {
	case ADDRESS_TCP:
		return numeric_tcp(&to, uri, size, err);
	case ADDRESS_UNIX:
		return absolute_unix(&to, uri, size, err);
	case ADDRESS_FD:
		snprintf(uri, size, "fd:migration");
		return client_send_fd(&follow->client, to.fd, "migration", err);
	}
	return -EINVAL;
}

/* ---- asking ---- */

static void put_us(json_t *arguments, const char *key, uint64_t ns)
{
	if (ns)
		json_object_set_new(
			arguments, key,
			json_integer((json_int_t)div_round_up(ns, NS_PER_US)));
}

static json_t *make_arguments(const struct migrate_options *options,
			      const char *uri)
{
	const struct source_params *params = &options->params;
	json_t *arguments = json_pack("{s:s}", "uri", uri);

	/* What isn't said is left to the VM's own settings. */
	if (options->has_max_downtime)
		put_us(arguments, "x-godwit-max-downtime-us",
		       params->max_downtime_ns);
	if (options->has_bandwidth)
		json_object_set_new(
			arguments, "x-godwit-bandwidth",
			json_integer((json_int_t)params->bandwidth));
	put_us(arguments, "x-godwit-abort-after-us", params->abort_after_ns);
	put_us(arguments, "x-godwit-timeout-us", params->timeout_ns);
	if (params->on_timeout == SOURCE_TIMEOUT_PAUSE)
		json_object_set_new(arguments, "x-godwit-on-timeout",
				    json_string("pause"));
	if (params->offline)
		json_object_set_new(arguments, "x-godwit-offline", json_true());
	if (params->verify)
		json_object_set_new(arguments, "x-godwit-verify", json_true());
	if (params->dry_run)
		json_object_set_new(arguments, "x-godwit-dry-run", json_true());
	return arguments;
}

static int start(struct follow *follow, struct error *err)
{
	char uri[ADDRESS_TEXT_MAX + 4096];
	json_t *arguments, *answer;
	int rc = make_uri(follow, uri, sizeof(uri), err);

	if (rc)
		return rc;
	arguments = make_arguments(follow->options, uri);
	if (!arguments)
		return error_set(err, -EINVAL, "%s: no valid UTF-8", uri);
	answer = client_call(&follow->client, "migrate", arguments, err);
	json_decref(answer);
	return answer ? 0 : -EIO;
}

/* ---- following ---- */

static void note_ending(struct follow *follow, json_t *data)
{
	const char *why =
		json_string_value(json_object_get(data, "x-godwit-why"));

	snprintf(follow->ending, sizeof(follow->ending), "%s",
		 why ? why : "no reason given");
}

static void on_event(void *opaque, const char *name, json_t *data)
{
	struct follow *follow = opaque;
	const char *status = json_string_value(json_object_get(data, "status"));
	json_t *report = json_object_get(data, "x-godwit-report");

	if (!strcmp(name, "SHUTDOWN"))
		note_ending(follow, data);
	if (strcmp(name, "MIGRATION") || !status)
		return;
	follow->uncertain = !strcmp(status, "uncertain");
	follow->handing_over = follow->uncertain || !strcmp(status, "device");
	if (follow->uncertain)
		follow->uncertain_since_ns = clock_ns();
	if (!report)
		return;
	json_decref(follow->report);
	follow->report = json_incref(report);
	follow->ended = true;
}

static void wipe_progress(const struct follow *follow)
{
	if (follow->progress)
		fputs("\r\033[K", stderr);
}

static size_t terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col)
		return 80;
	return size.ws_col;
}

/* In one write, so that nobody sees an empty line flash up. */
static void print_progress(json_t *now)
{
	char line[PROGRESS_MAX];

	/* In the last column some terminals wrap. */
	progress_line(now, terminal_width() - 1, line, sizeof(line));
	fprintf(stderr, "\r%s\033[K", line);
}

static int show_progress(struct follow *follow, struct error *err)
{
	json_t *now = client_call(&follow->client, "query-migrate", NULL, err);

	if (!now)
		return -EIO;
	if (!follow->ended)
		print_progress(now);
	json_decref(now);
	return 0;
}

/* Ctrl-C: the first calls the move off, the second leaves; so does SIGTERM. */
static int take_interrupt(struct follow *follow, struct error *err)
{
	struct signalfd_siginfo info;
	json_t *answer;

	if (read(follow->signal_fd, &info, sizeof(info)) < 0)
		return 0;
	if (info.ssi_signo == SIGTERM || follow->interrupts++)
		return error_set(err, -EINTR, "ended by SIG%s",
				 sigabbrev_np((int)info.ssi_signo));
	answer = client_call(&follow->client, "migrate_cancel", NULL, err);
	wipe_progress(follow);
	if (!answer)
		log_warn("cancel: %s", err->text);
	json_decref(answer);
	return 0;
}

static bool patience_is_over(const struct follow *follow)
{
	return follow->uncertain &&
	       clock_ns() - follow->uncertain_since_ns > UNCERTAIN_PATIENCE;
}

/* Until it is over, or can't be known here how it goes. */
static int follow_move(struct follow *follow, struct error *err)
{
	int rc = 0;

	while (!rc && !follow->ended && !patience_is_over(follow)) {
		rc = client_wait(&follow->client, PROGRESS_MS,
				 follow->signal_fd, err);
		if (follow->ended)
			break;
		if (!rc)
			rc = take_interrupt(follow, err);
		if (!rc && follow->progress && !follow->ended)
			rc = show_progress(follow, err);
	}
	wipe_progress(follow);
	/* The last word may have come with the hang-up. */
	return follow->ended ? 0 : rc;
}

/* ---- the last word ---- */

/* @err: why there is no report. */
static void print_json(const struct follow *follow, const char *status,
		       const struct error *err)
{
	json_t *out =
		follow->report ? json_incref(follow->report) : json_object();

	if (!follow->report) {
		json_object_set_new(out, "status", json_string(status));
		json_object_set_new(out, "error", json_string(err->text));
	}
	json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
	putchar('\n');
	json_decref(out);
}

static const char *dry_or_not(const struct follow *follow)
{
	return follow->options->params.dry_run ? "dry run given up"
					       : "not moved";
}

/*
 * The VM's process has ended without a last word. That the guest is about to be
 * paused is told as that begins, and COMMIT is at least a round trip later: a
 * process that dies meanwhile has been heard, but on a host where its loop gets
 * no processor for all of that time.
 */
static int fate_of_orphan(const struct follow *follow, struct error *err)
{
	if (!follow->handing_over)
		error_set(err, -ECONNRESET,
			  "%s: its process, %d, has ended, and the guest with "
			  "it; it had not begun to hand it over",
			  dry_or_not(follow), follow->client.pid);
	else
		error_set(err, -ECONNRESET,
			  "uncertain: its process, %d, has ended in the "
			  "pause: the guest either runs at %s or has ended "
			  "with it; type `godwit list` there",
			  follow->client.pid, follow->options->params.to.text);
	return follow->handing_over ? EXIT_UNCERTAIN : EXIT_ENDED;
}

/* There is no last word: @err says why. */
static int finish_without_report(struct follow *follow, struct error *err)
{
	const char *name = follow->options->name;
	int status = EXIT_UNCERTAIN;

	if (follow->client.ended)
		status = fate_of_orphan(follow, err);
	else if (patience_is_over(follow))
		error_set(err, -EAGAIN,
			  "uncertain: the guest was handed over to %s, which "
			  "does not say whether it runs there; type `godwit "
			  "resolve %s` to see what to check",
			  follow->options->params.to.text, name);
	else
		error_prefix(err,
			     "not followed to its end; type `godwit "
			     "status %s` to see how it goes",
			     name);
	if (follow->options->json)
		print_json(follow,
			   status == EXIT_ENDED ? "failed" : "uncertain", err);
	else
		log_error("%s: %s", name, err->text);
	return status;
}

/* It has hung up; what it said before may not have been read yet. */
static void hear_last_words(struct follow *follow)
{
	struct error ignored;

	while (!client_wait(&follow->client, 0, -1, &ignored))
		;
}

/*
 * What became of a guest that was to move and did not.
 * @err: why; filled with all there is to say.
 */
static int fate_of_kept(struct follow *follow, struct error *err)
{
	const char *name = follow->options->name;
	struct error why = *err, ignored;
	json_t *now =
		client_call(&follow->client, "x-godwit-info", NULL, &ignored);
	const char *status = json_string_value(json_object_get(now, "status"));
	const char *what = dry_or_not(follow);
	int ret = EXIT_FAILURE;

	if (follow->client.ended)
		hear_last_words(follow);
	if (follow->ending[0] || follow->client.ended) {
		ret = EXIT_ENDED;
		error_set(err, -ESHUTDOWN, "%s; its VM is gone%s%s", what,
			  follow->ending[0] ? ": " : " without a word",
			  follow->ending);
	} else if (!status) {
		error_set(err, -EIO, "%s: %s; %s", what, why.text,
			  ignored.text);
	} else if (!strcmp(status, "running")) {
		error_set(err, -EIO, "%s: %s; the guest runs on here", what,
			  why.text);
	} else if (!strcmp(status, "uncertain")) {
		ret = EXIT_UNCERTAIN;
		error_set(err, -EIO,
			  "%s: whether the guest is here is uncertain: "
			  "type `godwit resolve %s` to see what to check",
			  what, name);
	} else {
		error_set(err, -EIO, "%s: %s; the guest is here, %s", what,
			  why.text, status);
	}
	json_decref(now);
	return ret;
}

/* It never began. */
static int finish_unstarted(struct follow *follow, struct error *err)
{
	struct error why = *err;
	int status = EXIT_FAILURE;

	if (follow->client.fd >= 0) {
		status = fate_of_kept(follow, err);
	} else if (follow->client.ended) {
		status = EXIT_ENDED;
		error_set(err, -ESHUTDOWN, "%s; its VM is gone without a word",
			  dry_or_not(follow));
	}
	if (follow->options->json)
		print_json(follow, "failed", &why);
	else
		log_error("%s: %s", follow->options->name, err->text);
	return status;
}

static int finish_moved(const struct follow *follow)
{
	if (follow->options->json)
		print_json(follow, NULL, NULL);
	else
		move_words_moved(follow->options->name, follow->report);
	if (fflush(stdout)) {
		log_error("%s: moved all the same, but standard output can't "
			  "be written: %s",
			  follow->options->name, strerror(errno));
		/* It has been said after all, and is no failure. */
		__fpurge(stdout);
		clearerr(stdout);
	}
	return EXIT_SUCCESS;
}

static int finish_rehearsed(const struct follow *follow)
{
	json_t *forecast = json_object_get(follow->report, "forecast");
	bool converges = json_is_true(json_object_get(forecast, "converges"));

	if (follow->options->json)
		print_json(follow, NULL, NULL);
	else
		move_words_forecast(follow->options->name, follow->report);
	return converges ? EXIT_SUCCESS : EXIT_OVER;
}

static int finish(struct follow *follow)
{
	const char *status =
		json_string_value(json_object_get(follow->report, "status"));
	const char *why =
		json_string_value(json_object_get(follow->report, "error"));
	struct error err;
	int ret;

	if (status && !strcmp(status, "completed"))
		return finish_moved(follow);
	if (status && !strcmp(status, "rehearsed"))
		return finish_rehearsed(follow);
	(void)error_set(&err, -EIO, "%s", why ? why : "no reason given");
	ret = fate_of_kept(follow, &err);
	if (follow->options->json)
		print_json(follow, NULL, NULL);
	else
		log_error("%s: %s", follow->options->name, err.text);
	return ret;
}

/* ---- the whole ---- */

/* One that can rewrite a line. */
static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

static int open_signal(struct error *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	return fd;
}

int command_migrate(const struct migrate_options *options)
{
	struct follow follow = {
		.options = options,
		.client.fd = -1,
		.progress = !options->json && is_terminal(),
	};
	struct error err;
	int status, rc;

	follow.signal_fd = open_signal(&err);
	rc = follow.signal_fd < 0 ? follow.signal_fd : 0;
	if (!rc)
		rc = client_open(options->name, &follow.client, &err);
	follow.client.on_event = on_event;
	follow.client.opaque = &follow;
	if (!rc)
		rc = start(&follow, &err);
	if (!rc)
		(void)follow_move(&follow, &err);
	if (rc)
		status = finish_unstarted(&follow, &err);
	else if (follow.ended)
		status = finish(&follow);
	else
		status = finish_without_report(&follow, &err);
	json_decref(follow.report);
	client_close(&follow.client);
	close_fd(&follow.signal_fd);
	return status;
}
