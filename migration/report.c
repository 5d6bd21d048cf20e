// SPDX-License-Identifier: MIT
/*
 * Reports for programs and for people; see report.h.
 */
#include <string.h>

#include "migration/report.h"

static const char *const status_names[] = {
	[STATUS_NONE] = "none",		  [STATUS_SETUP] = "setup",
	[STATUS_ACTIVE] = "active",	  [STATUS_DEVICE] = "device",
	[STATUS_UNCERTAIN] = "uncertain", [STATUS_COMPLETED] = "completed",
	[STATUS_FAILED] = "failed",	  [STATUS_CANCELLED] = "cancelled",
	[STATUS_REHEARSED] = "rehearsed",
};
_Static_assert(ARRAY_SIZE(status_names) == REPORT_STATUSES,
	       "every status has a name");

static const char *const phase_names[] = {
	[PHASE_HELLO] = "hello",	 [PHASE_CONFIG] = "config",
	[PHASE_REHEARSAL] = "rehearsal", [PHASE_ROUNDS] = "rounds",
	[PHASE_STOP] = "stop",		 [PHASE_SAVE] = "save",
	[PHASE_SYNC] = "sync",		 [PHASE_FINAL] = "final",
	[PHASE_VERIFY] = "verify",	 [PHASE_LOADED] = "loaded",
	[PHASE_COMMIT] = "commit",
};
_Static_assert(ARRAY_SIZE(phase_names) == REPORT_PHASES,
	       "every phase has a name");

const char *report_status_name(enum report_status status)
{
	return status_names[status];
}

bool report_status_ended(enum report_status status)
{
	return status == STATUS_COMPLETED || status == STATUS_FAILED ||
	       status == STATUS_CANCELLED || status == STATUS_REHEARSED;
}

const char *report_phase_name(enum report_phase phase)
{
	return phase_names[phase];
}

uint64_t report_over_ns(const struct report *report)
{
	uint64_t allowed =
		report->max_downtime_ns + report->phase_ns[PHASE_VERIFY];

	if (report->offline || report->downtime_ns <= allowed)
		return 0;
	return report->downtime_ns - allowed;
}

/* Milliseconds with exactly three decimals' worth of precision. */
static json_t *json_ms(uint64_t ns)
{
	return json_real((double)((ns + 500) / 1000) / 1000.0);
}

static json_t *json_count(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *round_json(const struct report_round *round)
{
	return json_pack(
		"{s:o,s:o,s:o,s:o,s:o}", "pages", json_count(round->pages),
		"zero_pages", json_count(round->zero_pages), "bytes",
		json_count(round->bytes), "ms", json_ms(round->ns),
		"dirty_pages_per_s", json_count(round->dirty_pages_per_s));
}

static json_t *rounds_json(const struct report *report)
{
	json_t *rounds = json_array();

	for (uint32_t i = 0; i < MIN(report->nrounds, REPORT_ROUNDS_MAX); i++)
		json_array_append_new(rounds, round_json(&report->rounds[i]));
	return rounds;
}

static json_t *phases_json(const uint64_t phase_ns[REPORT_PHASES])
{
	json_t *phases = json_object();

	for (int i = 0; i < REPORT_PHASES; i++)
		json_object_set_new(phases, phase_names[i],
				    json_ms(phase_ns[i]));
	return phases;
}

/* What the move would do instead, and what could be asked for. */
static void put_remedies(json_t *json, const struct report_forecast *f)
{
	json_object_set_new(json, "forced", json_boolean(f->forced));
	if (f->enough_downtime_ns)
		json_object_set_new(json, "enough_max_downtime_ms",
				    json_ms(f->enough_downtime_ns));
	if (f->enough_downtime_ns)
		json_object_set_new(json, "enough_throttle_percent",
				    json_integer((int)f->enough_throttle));
	if (f->enough_timeout_ns)
		json_object_set_new(json, "enough_timeout_ms",
				    json_ms(f->enough_timeout_ns));
}

/* In the words of the report of a move. */
static json_t *forecast_json(const struct report *report)
{
	const struct report_forecast *f = &report->forecast;
	json_t *json = json_pack(
		"{s:b,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:i,s:o}", "converges",
		f->converges, "reason", f->reason, "total_ms",
		json_ms(f->total_ns), "downtime_ms", json_ms(f->downtime_ns),
		"max_downtime_ms", json_ms(report->max_downtime_ns), "phases",
		phases_json(f->phase_ns), "rounds", json_count(f->rounds),
		"bandwidth_bytes_per_s", json_count(report->bandwidth),
		"throttle_percent", (int)f->throttle, "dirty_pages_per_s",
		json_count(report->dirty_pages_per_s));

	if (json && !f->converges)
		put_remedies(json, f);
	return json;
}

static json_t *throttled_json(const struct report *report)
{
	json_t *list = json_array();

	for (int i = 0; i < REPORT_VCPUS_MAX; i++) {
		if (report->throttled[i])
			json_array_append_new(list,
					      json_pack("{s:i,s:i}", "vcpu", i,
							"percent",
							report->throttled[i]));
	}
	return list;
}

json_t *report_json(const struct report *report)
{
	json_t *json = json_pack(
		"{s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,"
		"s:o,s:o}",
		"status", status_names[report->status], "session",
		report->session, "total_ms", json_ms(report->total_ns),
		"downtime_ms", json_ms(report->downtime_ns),
		"predicted_downtime_ms", json_ms(report->predicted_ns),
		"max_downtime_ms", json_ms(report->max_downtime_ns), "over_ms",
		json_ms(report_over_ns(report)), "phases",
		phases_json(report->phase_ns), "rounds", rounds_json(report),
		"pages", json_count(report->pages), "zero_pages",
		json_count(report->zero_pages), "hinted_pages",
		json_count(report->hinted_pages), "bytes",
		json_count(report->bytes), "bandwidth_bytes_per_s",
		json_count(report->bandwidth), "throttled_vcpus",
		throttled_json(report), "closed_connections",
		json_count(report->closed_connections));

	if (json && report->error[0])
		json_object_set_new(json, "error", json_string(report->error));
	if (json && report->status == STATUS_REHEARSED)
		json_object_set_new(json, "forecast", forecast_json(report));
	return json;
}

static double ms(uint64_t ns)
{
	return (double)ns / (double)NS_PER_MS;
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (double)MIB;
}

static void print_phases(const struct report *report, FILE *to)
{
	fprintf(to, "  before the pause  ");
	for (int i = PHASE_HELLO; i <= PHASE_ROUNDS; i++)
		fprintf(to, " %s %.1f", phase_names[i],
			ms(report->phase_ns[i]));
	fprintf(to, " ms\n  in the pause      ");
	for (int i = PHASE_STOP; i < REPORT_PHASES; i++) {
		if (i == PHASE_VERIFY && !report->phase_ns[i])
			continue;
		fprintf(to, " %s %.3f", phase_names[i],
			ms(report->phase_ns[i]));
	}
	fprintf(to, " ms\n");
}

/* Those that were slowed, as runs of neighbours slowed by the same. */
static void print_throttled(const struct report *report, FILE *to)
{
	const uint8_t *by = report->throttled;
	bool said = false;

	for (int i = 0, end; i < REPORT_VCPUS_MAX; i = end) {
		for (end = i + 1; end < REPORT_VCPUS_MAX && by[end] == by[i];)
			end++;
		if (!by[i])
			continue;
		fprintf(to, "%s", said ? ", " : "  slowed down         ");
		if (end - i > 1)
			fprintf(to, "vCPUs %d to %d", i, end - 1);
		else
			fprintf(to, "vCPU %d", i);
		fprintf(to, " by up to %u %%", by[i]);
		said = true;
	}
	if (said)
		fprintf(to, "\n");
}

void report_print(const struct report *report, FILE *to)
{
	if (report->status != STATUS_COMPLETED) {
		bool said =
			!strcmp(report->error, status_names[report->status]);

		fprintf(to, "%s in phase %s after %.1f ms%s%s\n",
			status_names[report->status],
			phase_names[report->phase], ms(report->total_ns),
			said ? "" : ": ", said ? "" : report->error);
		return;
	}
	fprintf(to,
		"moved in %.1f ms; the guest was paused for %.3f ms "
		"(predicted %.3f ms",
		ms(report->total_ns), ms(report->downtime_ns),
		ms(report->predicted_ns));
	if (report->phase_ns[PHASE_VERIFY])
		fprintf(to, ", and %.3f ms to verify",
			ms(report->phase_ns[PHASE_VERIFY]));
	fprintf(to, ")");
	if (report_over_ns(report))
		fprintf(to, ", %.3f ms longer than the %.3f ms allowed%s",
			ms(report_over_ns(report)), ms(report->max_downtime_ns),
			report->phase_ns[PHASE_VERIFY] ? " beside that" : "");
	fprintf(to, "\n");
	fprintf(to,
		"  memory             %llu pages sent, %llu zero, %.1f MiB on "
		"the wire, %u rounds, %.0f MiB/s\n",
		(unsigned long long)report->pages,
		(unsigned long long)report->zero_pages, mib(report->bytes),
		report->nrounds,
		mib(report->bytes) / MAX(ms(report->total_ns) / 1e3, 1e-6));
	if (report->hinted_pages)
		fprintf(to,
			"  not sent           %llu pages that the guest said "
			"are free\n",
			(unsigned long long)report->hinted_pages);
	print_throttled(report, to);
	if (report->closed_connections)
		fprintf(to,
			"  left behind        %llu connection%s of the guest's "
			"by way of the host it was on\n",
			(unsigned long long)report->closed_connections,
			report->closed_connections > 1 ? "s" : "");
	print_phases(report, to);
}
