// SPDX-License-Identifier: MIT
/*
 * The moving thread; see mover.h.
 *
 * `lock` guards what the two threads hand each other: the job on its way in,
 * statuses and the result on their way out. The source object is the loop
 * thread's; the moving thread uses it from job to result.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/mover.h"

/* A migration goes through few; none is told twice. */
#define STATUSES_MAX 16

struct mover {
	struct mover_env env;
	pthread_t thread;
	struct source *source; /* of the last move */
	bool busy;
	uint32_t passes_told;

	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool quit;
	struct source *job;
	unsigned int nstatuses;
	enum report_status statuses[STATUSES_MAX];
	enum report_status last; /* how it ended; told when it is over */
	bool over;		 /* and the thread has parked; not told yet */
	uint32_t passes;	 /* rounds that have begun */
	int rc;
	struct error err;
};

/* ---- on the loop ---- */

static void deliver_passes(struct mover *mover, uint32_t passes)
{
	while (mover->passes_told < passes)
		mover->env.on_pass(mover->env.opaque, ++mover->passes_told);
}

static void deliver_statuses(void *opaque)
{
	struct mover *mover = opaque;
	enum report_status statuses[STATUSES_MAX];
	uint32_t passes;
	unsigned int n;

	pthread_mutex_lock(&mover->lock);
	n = mover->nstatuses;
	memcpy(statuses, mover->statuses, n * sizeof(statuses[0]));
	mover->nstatuses = 0;
	passes = mover->passes;
	pthread_mutex_unlock(&mover->lock);
	for (unsigned int i = 0; i < n; i++) {
		/* All rounds are between ACTIVE and what follows it. */
		if (statuses[i] > STATUS_ACTIVE)
			deliver_passes(mover, passes);
		mover->env.on_status(mover->env.opaque, statuses[i]);
	}
	deliver_passes(mover, passes);
}

/*
 * Whoever hears of the end may begin anew at once: the thread is free by then.
 */
static void deliver_end(void *opaque)
{
	struct mover *mover = opaque;
	bool over;

	pthread_mutex_lock(&mover->lock);
	over = mover->over;
	mover->over = false;
	pthread_mutex_unlock(&mover->lock);
	if (!over)
		return;
	deliver_statuses(mover);
	mover->busy = false;
	mover->env.on_status(mover->env.opaque, mover->last);
	mover->env.on_end(mover->env.opaque, mover->rc, mover->err.text);
}

/* ---- on the moving thread ---- */

static void note_status(void *opaque, enum report_status status)
{
	struct mover *mover = opaque;

	pthread_mutex_lock(&mover->lock);
	if (report_status_ended(status))
		mover->last = status;
	else if (mover->nstatuses < STATUSES_MAX)
		mover->statuses[mover->nstatuses++] = status;
	pthread_mutex_unlock(&mover->lock);
	loop_post(mover->env.loop, deliver_statuses, mover);
}

static void note_round(void *opaque, uint32_t number)
{
	struct mover *mover = opaque;

	pthread_mutex_lock(&mover->lock);
	mover->passes = number + 1;
	pthread_mutex_unlock(&mover->lock);
	loop_post(mover->env.loop, deliver_statuses, mover);
}

static void note_moved(void *opaque)
{
	struct mover *mover = opaque;

	mover->env.on_moved(mover->env.opaque);
}

static struct source *wait_for_job(struct mover *mover)
{
	struct source *job;

	pthread_mutex_lock(&mover->lock);
	while (!mover->job && !mover->quit)
		pthread_cond_wait(&mover->wake, &mover->lock);
	job = mover->job;
	mover->job = NULL;
	pthread_mutex_unlock(&mover->lock);
	return job;
}

static void *move(void *arg)
{
	struct mover *mover = arg;
	struct source *job;

	while ((job = wait_for_job(mover))) {
		mover->err.text[0] = '\0';
		mover->rc = source_run(job, &mover->err);
		pthread_mutex_lock(&mover->lock);
		mover->over = true;
		pthread_cond_broadcast(&mover->wake);
		pthread_mutex_unlock(&mover->lock);
		loop_post(mover->env.loop, deliver_end, mover);
	}
	return NULL;
}

/* ---- for the loop ---- */

int mover_create(const struct mover_env *env, struct mover **ret,
		 struct error *err)
{
	struct mover *mover = calloc(1, sizeof(*mover));
	int rc;

	if (!mover)
		return error_set(err, -ENOMEM, "migration: out of memory");
	mover->env = *env;
	pthread_mutex_init(&mover->lock, NULL);
	pthread_cond_init(&mover->wake, NULL);
	rc = thread_start(env->sandbox, THREAD_MIGRATION, "migration", move,
			  mover, &mover->thread, err);
	if (rc) {
		pthread_cond_destroy(&mover->wake);
		pthread_mutex_destroy(&mover->lock);
		free(mover);
		return rc;
	}
	*ret = mover;
	return 0;
}

void mover_free(struct mover *mover)
{
	if (!mover)
		return;
	pthread_mutex_lock(&mover->lock);
	mover->quit = true;
	pthread_cond_signal(&mover->wake);
	pthread_mutex_unlock(&mover->lock);
	pthread_join(mover->thread, NULL);
	source_free(mover->source);
	pthread_cond_destroy(&mover->wake);
	pthread_mutex_destroy(&mover->lock);
	free(mover);
}

void mover_forget(struct mover *mover)
{
	source_free(mover->source);
	mover->source = NULL;
}

/*
 * The report says already that the last move did not come about: its thread has
 * no more to do than to park. Who has read that is not to be told "busy".
 */
static void finish_last(struct mover *mover)
{
	struct report report;

	if (!mover->busy || !mover_report(mover, &report) ||
	    !report_status_ended(report.status) ||
	    report.status == STATUS_COMPLETED)
		return;
	pthread_mutex_lock(&mover->lock);
	while (!mover->over)
		pthread_cond_wait(&mover->wake, &mover->lock);
	pthread_mutex_unlock(&mover->lock);
	deliver_end(mover);
}

static int refuse_second(struct mover *mover, struct error *err)
{
	struct report report;

	source_report(mover->source, &report);
	return error_set(err, -EBUSY,
			 "%s is under way already; let it end, or `godwit "
			 "cancel` it first",
			 report.dry_run ? "a dry run" : "a move");
}

int mover_start(struct mover *mover, struct vm *vm,
		const struct source_params *params, struct error *err)
{
	struct source_env env = {
		.vm = vm,
		.on_status = note_status,
		.on_round = note_round,
		.on_moved = note_moved,
		.opaque = mover,
	};
	struct source *source;
	int rc;

	finish_last(mover);
	if (mover->busy)
		return refuse_second(mover, err);
	rc = source_create(&env, params, &source, err);
	if (rc)
		return rc;
	mover_forget(mover);
	mover->source = source;
	mover->busy = true;
	mover->passes_told = 0;
	pthread_mutex_lock(&mover->lock);
	mover->passes = 0;
	mover->job = source;
	pthread_cond_signal(&mover->wake);
	pthread_mutex_unlock(&mover->lock);
	return 0;
}

bool mover_busy(const struct mover *mover)
{
	return mover->busy;
}

/* As the source has it now: the loop may not have been told yet. */
bool mover_uncertain(const struct mover *mover)
{
	struct report report;

	if (!mover || !mover->busy)
		return false;
	source_report(mover->source, &report);
	return report.status == STATUS_UNCERTAIN;
}

int mover_cancel(struct mover *mover, struct error *err)
{
	if (!mover->busy || !source_cancel(mover->source))
		return 0;
	return error_set(err, -EPERM,
			 "too late: the guest has been handed over");
}

int mover_resolve(struct mover *mover, bool resume, struct error *err)
{
	if (mover->busy && !source_resolve(mover->source, resume))
		return 0;
	return error_set(err, -EPERM,
			 "nothing is uncertain about this guest; there is "
			 "nothing to resolve");
}

void mover_set_max_downtime(struct mover *mover, uint64_t ns)
{
	if (mover->busy)
		source_set_max_downtime(mover->source, ns);
}

void mover_set_bandwidth(struct mover *mover, uint64_t bytes_per_s)
{
	if (mover->busy)
		source_set_bandwidth(mover->source, bytes_per_s);
}

bool mover_report(struct mover *mover, struct report *ret)
{
	if (!mover->source)
		return false;
	source_report(mover->source, ret);
	return true;
}
