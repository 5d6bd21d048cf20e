// SPDX-License-Identifier: MIT
/*
 * What a user may ask for instead, when a move as he asked for it would not
 * come to its end: found by playing the move with it, so that it is known to
 * do. See pacing.h.
 */
#include <stdio.h>

#include "migration/pacing.h"

/*
 * Of a limit that is named, so much may be used up: no two moves are alike, and
 * how long one takes differs more than how long its pause is.
 */
#define USED_DOWNTIME 80 /* per cent */
#define USED_TIMEOUT  50

static bool would_do(const struct pacing *p, uint64_t elapsed_ns,
		     uint64_t max_downtime_ns, uint64_t timeout_ns,
		     struct pacing_forecast *ret)
{
	struct pacing play = *p;

	pacing_set_max_downtime(&play, max_downtime_ns);
	play.params.timeout_ns = timeout_ns;
	pacing_forecast(&play, elapsed_ns, ret);
	return ret->action == PACING_SWITCH;
}

/* As people write them: two digits, and the second one only where it matters.
 */
static uint64_t next_round(uint64_t ns)
{
	static const unsigned int steps[] = {
		12, 15, 20, 25, 30, 40, 50, 60, 80
	};
	uint64_t scale = 1;

	while (ns / scale >= 100)
		scale *= 10;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (steps[i] * scale > ns)
			return steps[i] * scale;
	}
	return 100 * scale;
}

static uint64_t share(uint64_t ns, unsigned int percent)
{
	return ns / 100 * percent;
}

static uint64_t find_downtime(const struct pacing *p, uint64_t elapsed_ns,
			      uint64_t most_ns, unsigned int *ret_throttle)
{
	struct pacing_forecast f = { .action = PACING_GIVE_UP };
	uint64_t ns = p->params.max_downtime_ns;

	while (ns < most_ns) {
		ns = next_round(MAX(ns, 10ULL));
		if (would_do(p, elapsed_ns, share(ns, USED_DOWNTIME),
			     p->params.timeout_ns, &f))
			break;
	}
	if (f.action != PACING_SWITCH || ns > most_ns)
		return 0;
	*ret_throttle = f.throttle;
	return ns;
}

static uint64_t find_timeout(const struct pacing *p, uint64_t elapsed_ns,
			     uint64_t most_ns)
{
	struct pacing_forecast f;
	uint64_t ns;

	if (!p->params.timeout_ns ||
	    !would_do(p, elapsed_ns, p->params.max_downtime_ns, 0, &f) ||
	    elapsed_ns > most_ns || f.rounds_ns > most_ns)
		return 0;
	ns = p->params.timeout_ns;
	while (share(ns, USED_TIMEOUT) < elapsed_ns + f.rounds_ns)
		ns = next_round(ns);
	return ns <= most_ns ? ns : 0;
}

void pacing_remedy(const struct pacing *p, uint64_t elapsed_ns,
		   uint64_t most_ns, struct pacing_remedy *ret)
{
	*ret = (struct pacing_remedy){ 0 };
	ret->max_downtime_ns =
		find_downtime(p, elapsed_ns, most_ns, &ret->throttle);
	ret->timeout_ns = find_timeout(p, elapsed_ns, most_ns);
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

const char *pacing_advice(const struct pacing *p, uint64_t elapsed_ns,
			  uint64_t most_ns, char text[PACING_REASON_MAX])
{
	struct pacing_remedy remedy;

	pacing_remedy(p, elapsed_ns, most_ns, &remedy);
	if (remedy.max_downtime_ns && remedy.timeout_ns)
		snprintf(
			text, PACING_REASON_MAX,
			"--max-downtime %.15gms would do, or --timeout %.15gms",
			ms(remedy.max_downtime_ns), ms(remedy.timeout_ns));
	else if (remedy.max_downtime_ns)
		snprintf(text, PACING_REASON_MAX,
			 "--max-downtime %.15gms would do",
			 ms(remedy.max_downtime_ns));
	else if (remedy.timeout_ns)
		snprintf(text, PACING_REASON_MAX, "--timeout %.15gms would do",
			 ms(remedy.timeout_ns));
	else
		snprintf(text, PACING_REASON_MAX,
			 "give a longer --timeout, or --on-timeout pause");
	return text;
}
