// SPDX-License-Identifier: MIT
/*
 * The line that is rewritten while a guest moves; see progress.h. It is made of
 * parts, each empty while it isn't known.
 */
#include <stdio.h>
#include <string.h>

#include "vmm/progress.h"
#include "vmm/util.h"

/* In the order of the line. */
enum part {
	PART_PHASE,
	PART_DONE,
	PART_RATE,
	PART_DIRTIED,
	PART_PAUSE,
	PART_OUTLOOK,
	PARTS,
};

/* What goes first when there is no room. The phase stays. */
static const enum part least[] = { PART_DIRTIED, PART_RATE, PART_OUTLOOK,
				   PART_DONE, PART_PAUSE };
_Static_assert(ARRAY_SIZE(least) == PARTS - 1, "all but one can go");

/* A pause of more isn't predicted, but made up: nothing is known yet. */
#define PAUSE_MAX_US 1e12

struct line {
	char parts[PARTS][64];
};

#define PUT(line, part, ...) \
	snprintf((line)->parts[part], sizeof((line)->parts[part]), __VA_ARGS__)

static double number(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static bool is(json_t *object, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value && !strcmp(value, text);
}

bool progress_is_due(json_t *now)
{
	return is(now, "status", "setup") || is(now, "status", "active") ||
	       is(now, "status", "device");
}

/* ---- the parts ---- */

static void put_phase(struct line *line, json_t *now, json_t *ram)
{
	const char *phase = json_string_value(json_object_get(now, "phase"));

	if (is(now, "status", "uncertain"))
		PUT(line, PART_PHASE, "uncertain: asking the target");
	else if (is(now, "status", "device"))
		PUT(line, PART_PHASE, "pause: %.20s", phase ? phase : "");
	else if (is(now, "phase", "rounds"))
		PUT(line, PART_PHASE, "round %.0f",
		    number(ram, "dirty-sync-count") + 1);
	else
		PUT(line, PART_PHASE, "setup: %.20s", phase ? phase : "");
}

/* Never 100 % before the end. */
static void put_done(struct line *line, json_t *ram)
{
	double total = number(ram, "total");
	double permille;

	if (total <= 0)
		return;
	permille = 1000 * (1 - number(ram, "remaining") / total);
	permille = MAX(MIN(permille, 999.), 0.);
	PUT(line, PART_DONE, "%d.%d %% sent", (int)permille / 10,
	    (int)permille % 10);
}

static void put_rates(struct line *line, json_t *ram)
{
	double bytes = number(ram, "mbps") * 1e6 / 8;
	double dirty =
		number(ram, "dirty-pages-rate") * (double)GUEST_PAGE_SIZE;

	if (bytes > 0)
		PUT(line, PART_RATE, "%.0f MiB/s", bytes / (double)MIB);
	if (number(ram, "dirty-sync-count") > 0)
		PUT(line, PART_DIRTIED, "dirtied %.0f MiB/s",
		    dirty / (double)MIB);
}

static void format_time(double us, char *ret, size_t size)
{
	if (us < 1e4)
		snprintf(ret, size, "%.1f ms", us / 1e3);
	else if (us < 1e6)
		snprintf(ret, size, "%.0f ms", us / 1e3);
	else
		snprintf(ret, size, "%.1f s", us / 1e6);
}

static void put_pause(struct line *line, json_t *now)
{
	double pause = number(now, "expected-downtime-us");
	char expected[24], allowed[24];

	if (pause <= 0 || pause > PAUSE_MAX_US)
		return;
	format_time(pause, expected, sizeof(expected));
	format_time(number(now, "max-downtime-us"), allowed, sizeof(allowed));
	PUT(line, PART_PAUSE, "pause %s of %s", expected, allowed);
}

static void put_outlook(struct line *line, json_t *now)
{
	json_t *converges = json_object_get(now, "converges");
	double slowed = number(now, "cpu-throttle-percentage");
	char how[32] = "";

	if (!converges)
		return;
	if (slowed > 0)
		snprintf(how, sizeof(how), ", slowed by %.0f %%", slowed);
	PUT(line, PART_OUTLOOK, "%s%s",
	    json_is_true(converges) ? "converges" : "does not converge", how);
}

/* ---- the line ---- */

static size_t length(const struct line *line)
{
	size_t len = 0;

	for (size_t i = 0; i < PARTS; i++) {
		size_t part = strlen(line->parts[i]);

		if (part)
			len += part + (len ? strlen(", ") : 0);
	}
	return len;
}

void progress_line(json_t *now, size_t width, char *ret, size_t size)
{
	json_t *ram = json_object_get(now, "ram");
	struct line line = { 0 };
	size_t len = 0;

	put_phase(&line, now, ram);
	if (is(now, "status", "active") && is(now, "phase", "rounds")) {
		put_done(&line, ram);
		put_rates(&line, ram);
		put_pause(&line, now);
		put_outlook(&line, now);
	}
	width = MIN(width, size - 1);
	for (size_t i = 0; i < ARRAY_SIZE(least) && length(&line) > width; i++)
		line.parts[least[i]][0] = '\0';
	line.parts[PART_PHASE][MIN(width, sizeof(line.parts[0]) - 1)] = '\0';
	ret[0] = '\0';
	for (size_t i = 0; i < PARTS; i++) {
		if (line.parts[i][0])
			len += (size_t)snprintf(ret + len, size - len, "%s%s",
						len ? ", " : "", line.parts[i]);
	}
}
