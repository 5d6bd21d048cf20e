// SPDX-License-Identifier: MIT
/*
 * What `godwit migrate` says of a move that came about, and of a dry run; see
 * move_words.h. All of it is in the report, as report_json() has it.
 */
#include <stdio.h>

#include "vmm/move_words.h"
#include "vmm/units.h"

static double real_of(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static void print_phases(json_t *phases)
{
	const char *name;
	json_t *ms;

	printf("  phases, ms:");
	json_object_foreach(phases, name, ms)
		printf(" %s %.3f", name, json_number_value(ms));
	printf("\n");
}

void move_words_moved(const char *name, json_t *report)
{
	json_t *phases = json_object_get(report, "phases");
	double verify = real_of(phases, "verify");
	double closed = real_of(report, "closed_connections");
	double over = real_of(report, "over_ms");

	printf("%s moved in %.1f ms; paused for %.3f ms (predicted %.3f", name,
	       real_of(report, "total_ms"), real_of(report, "downtime_ms"),
	       real_of(report, "predicted_downtime_ms"));
	if (verify > 0)
		printf(", and %.3f to verify", verify);
	printf(")");
	if (over > 0)
		printf(", %.3f ms longer than the %.3f ms allowed%s", over,
		       real_of(report, "max_downtime_ms"),
		       verify > 0 ? " beside that" : "");
	printf("\n");
	printf("  %.0f pages sent, %.0f zero, %.1f MiB on the wire, %zu "
	       "rounds, "
	       "%.0f MiB/s\n",
	       real_of(report, "pages"), real_of(report, "zero_pages"),
	       real_of(report, "bytes") / (double)MIB,
	       json_array_size(json_object_get(report, "rounds")),
	       real_of(report, "bytes") / (double)MIB /
		       MAX(real_of(report, "total_ms") / 1e3, 1e-6));
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

void move_words_forecast(const char *name, json_t *report)
{
	json_t *f = json_object_get(report, "forecast");
	bool converges = json_is_true(json_object_get(f, "converges"));
	double total = real_of(f, "total_ms"),
	       pause = real_of(f, "downtime_ms");
	double throttle = real_of(f, "throttle_percent");

	printf("%s was not moved, and runs on here. A move would ", name);
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
