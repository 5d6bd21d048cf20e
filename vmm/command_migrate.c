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
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/log.h"
#include "vmm/progress.h"
#include "vmm/units.h"

#define PROGRESS_MS 200

/* How long the target of an uncertain move may take to answer after all. */
#define UNCERTAIN_PATIENCE (10 * NS_PER_S)

struct follow {
	const struct migrate_options *options;
	struct client client;
	int signal_fd; /* Ctrl-C */
	bool progress; /* on a terminal */
	unsigned int interrupts;
	bool ended;
	bool uncertain;
	uint64_t uncertain_since_ns;
	json_t *report; /* the last word */
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

static void on_event(void *opaque, const char *name, json_t *data)
{
	struct follow *follow = opaque;
	const char *status = json_string_value(json_object_get(data, "status"));
	json_t *report = json_object_get(data, "x-godwit-report");

	if (strcmp(name, "MIGRATION") || !status)
		return;
	follow->uncertain = !strcmp(status, "uncertain");
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

static double real_of(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
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

/* Ctrl-C: the first calls the move off, the second leaves. */
static int take_interrupt(struct follow *follow, struct error *err)
{
	struct signalfd_siginfo info;
	json_t *answer;

	if (read(follow->signal_fd, &info, sizeof(info)) < 0)
		return 0;
	if (follow->interrupts++)
		return error_set(err, -EINTR,
				 "not followed to its end; see `godwit "
				 "status`");
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

static void print_phases(json_t *phases)
{
	const char *name;
	json_t *ms;

	printf("  phases, ms:");
	json_object_foreach(phases, name, ms)
		printf(" %s %.3f", name, json_number_value(ms));
	printf("\n");
}

static void print_moved(const struct follow *follow)
{
	json_t *report = follow->report;
	json_t *phases = json_object_get(report, "phases");
	double verify = real_of(phases, "verify");
	double closed = real_of(report, "closed_connections");

	printf("%s moved in %.1f ms; paused for %.3f ms (predicted %.3f",
	       follow->options->name, real_of(report, "total_ms"),
	       real_of(report, "downtime_ms"),
	       real_of(report, "predicted_downtime_ms"));
	if (verify > 0)
		printf(", and %.3f to verify", verify);
	printf(")\n");
	printf("  %.0f pages sent, %.0f zero, %.1f MiB on the wire, %zu "
	       "rounds, "
	       "%.0f MiB/s\n",
	       real_of(report, "pages"), real_of(report, "zero_pages"),
	       real_of(report, "bytes") / (double)MIB,
	       json_array_size(json_object_get(report, "rounds")),
	       real_of(report, "bandwidth_bytes_per_s") / (double)MIB);
	if (closed > 0)
		printf("  %.0f connection%s of the guest's went through this "
		       "host, and ha%s ended\n",
		       closed, closed > 1 ? "s" : "", closed > 1 ? "ve" : "s");
	print_phases(phases);
}

static const char *time_of(json_t *f, const char *key, char *text)
{
	return units_time_text((uint64_t)(real_of(f, key) * 1e3) * NS_PER_US,
			       text);
}

/* What would do, all else as it is: these were tried. */
static void print_remedies(json_t *f)
{
	char downtime[UNITS_TEXT_MAX], timeout[UNITS_TEXT_MAX];
	bool has_downtime = json_object_get(f, "enough_max_downtime_ms");
	bool has_timeout = json_object_get(f, "enough_timeout_ms");
	double throttle = real_of(f, "enough_throttle_percent");

	if (has_downtime)
		printf("  --max-downtime %s would do",
		       time_of(f, "enough_max_downtime_ms", downtime));
	if (throttle > 0)
		printf(", with the vCPUs that dirty slowed by %.0f %%",
		       throttle);
	if (has_timeout)
		printf("%s--timeout %s would do", has_downtime ? ", or " : "  ",
		       time_of(f, "enough_timeout_ms", timeout));
	if (has_downtime || has_timeout)
		printf(", if link and guest stay as they are.\n");
}

/* The verdict, and what it rests on. */
static void print_forecast(const struct follow *follow)
{
	json_t *f = json_object_get(follow->report, "forecast");
	bool converges = json_is_true(json_object_get(f, "converges"));
	double total = real_of(f, "total_ms"),
	       pause = real_of(f, "downtime_ms");
	double throttle = real_of(f, "throttle_percent");

	printf("%s was not moved, and runs on here. A move would ",
	       follow->options->name);
	if (converges)
		printf("take about %.1f ms and pause it for %.3f ms of", total,
		       pause);
	else if (json_is_true(json_object_get(f, "forced")))
		printf("take about %.1f ms and, as --on-timeout says, pause it "
		       "for %.3f ms, more than",
		       total, pause);
	else
		printf("be called off after about %.1f ms: it would pause the "
		       "guest for %.3f ms, more than",
		       total - pause, pause);
	printf(" the %.3f ms allowed", real_of(f, "max_downtime_ms"));
	if (throttle > 0)
		printf(", with the vCPUs that dirty slowed by %.0f %%",
		       throttle);
	printf(".\n");
	if (!converges)
		print_remedies(f);
	printf("  %.0f rounds at %.0f MiB/s, while it dirties %.0f MiB/s; "
	       "%s\n",
	       real_of(f, "rounds"),
	       real_of(f, "bandwidth_bytes_per_s") / (double)MIB,
	       real_of(f, "dirty_pages_per_s") * (double)GUEST_PAGE_SIZE /
		       (double)MIB,
	       json_string_value(json_object_get(f, "reason")));
	print_phases(json_object_get(f, "phases"));
}

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

/* There is no last word: the guest's fate isn't known here. */
static int finish_without_report(struct follow *follow, struct error *err)
{
	const char *name = follow->options->name;

	if (patience_is_over(follow))
		error_set(err, -EAGAIN,
			  "uncertain: the guest was handed over and the "
			  "target does not answer; see `godwit resolve %s`",
			  name);
	else
		error_set(err, -ECONNRESET,
			  "uncertain: its process has ended; the guest runs at "
			  "the target if the log there says so, and else it "
			  "died with its process");
	if (follow->options->json)
		print_json(follow, "uncertain", err);
	else
		log_error("%s: %s", name, err->text);
	return EXIT_UNCERTAIN;
}

/* What became of a guest that was to move and did not. */
static void print_kept(struct follow *follow, const char *why)
{
	const char *what = follow->options->params.dry_run ? "dry run given up"
							   : "not moved";
	struct error err;
	json_t *now = client_call(&follow->client, "x-godwit-info", NULL, &err);
	const char *status = json_string_value(json_object_get(now, "status"));
	const char *name = follow->options->name;

	if (!status)
		log_error("%s: %s: %s; its process has ended", name, what, why);
	else if (!strcmp(status, "running"))
		log_error("%s: %s: %s; the guest runs on here", name, what,
			  why);
	else if (!strcmp(status, "uncertain"))
		log_error("%s: %s: %s; whether the guest is here is "
			  "uncertain: see `godwit resolve %s`",
			  name, what, why, name);
	else
		log_error("%s: %s: %s; the guest is here, %s", name, what, why,
			  status);
	json_decref(now);
}

/* It never began. */
static int finish_unstarted(struct follow *follow, const struct error *err)
{
	if (follow->options->json)
		print_json(follow, "failed", err);
	else if (follow->client.fd >= 0)
		print_kept(follow, err->text);
	else
		log_error("%s: %s", follow->options->name, err->text);
	return EXIT_FAILURE;
}

static int forecast_status(const struct follow *follow)
{
	json_t *forecast = json_object_get(follow->report, "forecast");

	return json_is_true(json_object_get(forecast, "converges"))
		       ? EXIT_SUCCESS
		       : EXIT_OVER;
}

static int finish(struct follow *follow)
{
	const char *status =
		json_string_value(json_object_get(follow->report, "status"));
	const char *why =
		json_string_value(json_object_get(follow->report, "error"));
	bool moved = status && !strcmp(status, "completed");
	bool rehearsed = status && !strcmp(status, "rehearsed");

	if (follow->options->json)
		print_json(follow, NULL, NULL);
	else if (moved)
		print_moved(follow);
	else if (rehearsed)
		print_forecast(follow);
	else
		print_kept(follow, why ? why : "no reason given");
	if (rehearsed)
		return forecast_status(follow);
	return moved ? EXIT_SUCCESS : EXIT_FAILURE;
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
