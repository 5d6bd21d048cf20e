// SPDX-License-Identifier: MIT
/*
 * Done aside; see chores.h. A list, a thread that takes the first of it, and
 * one condition for everything that anybody waits for.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "vmm/chores.h"
#include "vmm/sandbox.h"

struct chores {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool ends;
	struct chore *first; /* to be done; one under way is no more here */
	struct chore **end;
};

static void do_first(struct chores *chores)
{
	struct chore *chore = chores->first;

	chores->first = chore->next;
	if (!chores->first)
		chores->end = &chores->first;
	pthread_mutex_unlock(&chores->lock);
	chore->fn(chore->opaque);
	pthread_mutex_lock(&chores->lock);
	chore->pending = false;
	pthread_cond_broadcast(&chores->changed);
}

static void *serve(void *opaque)
{
	struct chores *chores = opaque;

	pthread_mutex_lock(&chores->lock);
	while (chores->first || !chores->ends) {
		if (chores->first)
			do_first(chores);
		else
			pthread_cond_wait(&chores->changed, &chores->lock);
	}
	pthread_mutex_unlock(&chores->lock);
	return NULL;
}

static void release(struct chores *chores)
{
	pthread_cond_destroy(&chores->changed);
	pthread_mutex_destroy(&chores->lock);
	free(chores);
}

int chores_create(const struct sandbox *sandbox, struct chores **ret,
		  struct error *err)
{
	struct chores *chores = calloc(1, sizeof(*chores));
	int rc;

	if (!chores)
		return error_set(err, -ENOMEM, "chores: out of memory");
	pthread_mutex_init(&chores->lock, NULL);
	pthread_cond_init(&chores->changed, NULL);
	chores->end = &chores->first;
	rc = thread_start(sandbox, THREAD_MIGRATION, "chores", serve, chores,
			  &chores->thread, err);
	if (rc)
		release(chores);
	else
		*ret = chores;
	return rc;
}

void chores_free(struct chores *chores)
{
	if (!chores)
		return;
	pthread_mutex_lock(&chores->lock);
	chores->ends = true;
	pthread_cond_broadcast(&chores->changed);
	pthread_mutex_unlock(&chores->lock);
	pthread_join(chores->thread, NULL);
	release(chores);
}

void chores_do(struct chores *chores, struct chore *chore)
{
	pthread_mutex_lock(&chores->lock);
	if (!chore->pending) {
		chore->pending = true;
		chore->next = NULL;
		*chores->end = chore;
		chores->end = &chore->next;
		pthread_cond_broadcast(&chores->changed);
	}
	pthread_mutex_unlock(&chores->lock);
}

bool chores_pending(struct chores *chores, const struct chore *chore)
{
	bool pending;

	pthread_mutex_lock(&chores->lock);
	pending = chore->pending;
	pthread_mutex_unlock(&chores->lock);
	return pending;
}

void chores_await(struct chores *chores, struct chore *chore)
{
	pthread_mutex_lock(&chores->lock);
	while (chore->pending)
		pthread_cond_wait(&chores->changed, &chores->lock);
	pthread_mutex_unlock(&chores->lock);
}
