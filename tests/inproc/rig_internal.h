/* SPDX-License-Identifier: MIT */
/*
 * The inside of the in-process rig, for rig*.c only.
 */
#ifndef GODWIT_TESTS_RIG_INTERNAL_H
#define GODWIT_TESTS_RIG_INTERNAL_H

#include "tests/inproc/rig.h"

/*
 * Open what the host's command line says of disks and taps; @listens: as
 * `listen` does, for a guest that comes, else as `run`.
 */
void rig_open_disks(struct rig_host *host, bool listens);
void rig_open_taps(struct rig_host *host, bool listens);

/* Wait on @changed, but not for good; @what does not happen otherwise. */
void rig_await(pthread_cond_t *changed, pthread_mutex_t *lock,
	       const char *what);

#endif
