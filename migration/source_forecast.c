// SPDX-License-Identifier: MIT
/*
 * The end of a dry run: what a move would have cost. What goes before the pause
 * was measured in this very attempt, and the rounds that were left out are
 * played on by the policy itself (pacing.h).
 *
 * Runs on the migration thread; the guest runs on.
 */
#include <stdio.h>

#include "migration/source_internal.h"

/* A predicted pause, by the phases that a real one is told in. */
static void fill_pause(const struct pacing_prediction *pause,
		       uint64_t *phase_ns)
{
	const uint64_t *cost = pause->cost_ns;
	/* One of two round trips ends with LOADED, one with RUNNING. */
	uint64_t trip = cost[PACING_TRIP] / 2;

	phase_ns[PHASE_STOP] = cost[PACING_STOP] + cost[PACING_DRAIN];
	phase_ns[PHASE_SAVE] = cost[PACING_SAVE];
	phase_ns[PHASE_SYNC] = cost[PACING_SYNC];
	phase_ns[PHASE_FINAL] = pause->transfer_ns;
	phase_ns[PHASE_LOADED] = cost[PACING_LOAD] + trip;
	phase_ns[PHASE_COMMIT] = trip;
}

static void fill(const struct report *report, const struct pacing_forecast *f,
		 struct report_forecast *ret)
{
	*ret = (struct report_forecast){
		.converges = f->action == PACING_SWITCH,
		.forced = f->action == PACING_FORCE,
		.downtime_ns = f->pause.total_ns,
		.rounds = report->nrounds + f->rounds,
		.throttle = f->throttle,
	};
	for (int i = 0; i <= PHASE_ROUNDS; i++)
		ret->phase_ns[i] = report->phase_ns[i];
	ret->phase_ns[PHASE_ROUNDS] += f->rounds_ns;
	fill_pause(&f->pause, ret->phase_ns);
	for (int i = 0; i < REPORT_PHASES; i++)
		ret->total_ns += ret->phase_ns[i];
	snprintf(ret->reason, sizeof(ret->reason), "%s", f->reason);
}

void source_forecast(struct source *s)
{
	struct report *report = &s->report;
	uint64_t elapsed;
	struct pacing_remedy remedy = { 0 };
	struct pacing_forecast f;

	pacing_set_max_downtime(&s->pacing, s->max_downtime_ns);
	pacing_set_cap(&s->pacing, s->bandwidth_cap);
	elapsed = clock_ns() - report->start_ns;
	pacing_forecast(&s->pacing, elapsed, &f);
	if (f.action != PACING_SWITCH)
		pacing_remedy(&s->pacing, elapsed, SOURCE_DOWNTIME_MAX,
			      &remedy);
	/* The time of the rounds until now is the report's only then. */
	source_enter_phase(s, PHASE_ROUNDS);
	pthread_mutex_lock(&s->lock);
	fill(report, &f, &report->forecast);
	report->forecast.enough_downtime_ns = remedy.max_downtime_ns;
	report->forecast.enough_throttle = remedy.throttle;
	report->forecast.enough_timeout_ns = remedy.timeout_ns;
	report->predicted_ns = f.pause.total_ns;
	report->expected_ns = f.pause.total_ns;
	report->outlook = report->forecast.converges ? OUTLOOK_CONVERGES
						     : OUTLOOK_DIVERGES;
	pthread_mutex_unlock(&s->lock);
}
