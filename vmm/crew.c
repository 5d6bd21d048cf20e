// SPDX-License-Identifier: MIT
/*
 * All vCPUs together; see crew.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/crew.h"

struct crew {
	struct tally out;  /* vCPUs that are not parked */
	struct tally busy; /* errands */
	uint32_t helpers;  /* threads that work at once, beside the caller's */
	uint32_t count;
	struct vcpu *vcpus[];
};

/* From first to last, while the caller comes from the other end. */
static void help(void *opaque)
{
	struct crew *crew = opaque;

	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_errand_take(crew->vcpus[i]);
}

int crew_create(const struct vcpu_env *env, uint32_t count, struct crew **ret,
		struct error *err)
{
	struct crew *crew =
		calloc(1, sizeof(*crew) + count * sizeof(crew->vcpus[0]));
	struct vcpu_env own = *env;

	if (!crew)
		return error_set(err, -ENOMEM, "vCPUs: out of memory");
	tally_init(&crew->out);
	tally_init(&crew->busy);
	own.out = &crew->out;
	own.busy = &crew->busy;
	crew->helpers = MIN(count, MAX(processors(), 2U) - 1);
	/* Not where they would keep one another from a processor. */
	own.alert = count == 1 || count < processors();
	own.help = help;
	own.helper = crew;
	for (uint32_t i = 0; i < count; i++) {
		int rc = vcpu_create(&own, i, &crew->vcpus[i], err);

		if (rc) {
			crew_free(crew);
			return rc;
		}
		crew->count++;
	}
	crew_wait_parked(crew);
	*ret = crew;
	return 0;
}

void crew_free(struct crew *crew)
{
	if (!crew)
		return;
	crew_kick(crew);
	/* One that was summoned may look at the others long after. */
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_end(crew->vcpus[i]);
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_free(crew->vcpus[i]);
	tally_fini(&crew->busy);
	tally_fini(&crew->out);
	free(crew);
}

uint32_t crew_size(const struct crew *crew)
{
	return crew->count;
}

struct vcpu *crew_vcpu(const struct crew *crew, uint32_t index)
{
	return crew->vcpus[index];
}

void crew_kick(struct crew *crew)
{
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_kick(crew->vcpus[i]);
}

void crew_wait_parked(struct crew *crew)
{
	tally_wait(&crew->out);
}

void crew_unpark(struct crew *crew)
{
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_unpark(crew->vcpus[i]);
}

static void start_errands(struct crew *crew, vcpu_errand_fn *fn, void *opaque)
{
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_errand_start(crew->vcpus[i], fn, opaque);
}

static int end_errands(struct crew *crew, struct error *err)
{
	int ret = 0;

	tally_wait(&crew->busy);
	for (uint32_t i = 0; !ret && i < crew->count; i++) {
		ret = vcpu_errand_result(crew->vcpus[i], err);
		if (ret)
			error_prefix(err, "vCPU %u", i);
	}
	return ret;
}

int crew_errand(struct crew *crew, vcpu_errand_fn *fn, void *opaque,
		struct error *err)
{
	start_errands(crew, fn, opaque);
	return end_errands(crew, err);
}

/*
 * To wake a thread takes about as long as a tenth of what it is woken for, and
 * those that wait for one another's processor get nothing done by it: no more
 * are woken than there are processors, and they do the others' errands, too.
 * Those are all there before anybody looks for them.
 */
void crew_share(struct crew *crew, vcpu_errand_fn *fn, void *opaque)
{
	for (uint32_t i = 0; i < crew->count; i++)
		vcpu_errand_offer(crew->vcpus[i], fn, opaque);
	for (uint32_t i = 0; i < crew->helpers; i++)
		vcpu_summon(crew->vcpus[i]);
}

int crew_shared(struct crew *crew, struct error *err)
{
	for (uint32_t i = crew->count; i-- > 0;)
		vcpu_errand_take(crew->vcpus[i]);
	return end_errands(crew, err);
}

unsigned int crew_hands(const struct crew *crew)
{
	return crew->helpers + 1;
}

int crew_errand_helped(struct crew *crew, vcpu_errand_fn *fn, void *opaque,
		       struct error *err)
{
	crew_share(crew, fn, opaque);
	return crew_shared(crew, err);
}

void crew_lend(struct crew *crew, uint32_t max, vcpu_errand_fn *fn,
	       void *opaque)
{
	for (uint32_t i = 0; i < MIN(crew->count, max); i++)
		vcpu_errand_start(crew->vcpus[i], fn, opaque);
}

void crew_return(struct crew *crew)
{
	tally_wait(&crew->busy);
}
