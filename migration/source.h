/* SPDX-License-Identifier: MIT */
/*
 * The source of a migration: drives one guest through the phases of FORMAT.md
 * to a target, and never loses it. Who may run the guest is decided by
 * handoff.h's table and by nothing else here.
 *
 * Threads: source_run() belongs to one migration thread. cancel, resolve, set
 * and report come from any other.
 */
#ifndef GODWIT_SOURCE_H
#define GODWIT_SOURCE_H

#include "migration/report.h"
#include "migration/transport.h"
#include "vmm/vm.h"

struct source;

enum source_on_timeout {
	SOURCE_TIMEOUT_CANCEL, /* the guest never notices */
	SOURCE_TIMEOUT_PAUSE,  /* finish as a stop-and-copy */
};

/* Bytes a second. With less, not even an idle guest's state gets anywhere. */
#define SOURCE_BANDWIDTH_MIN (64 * KIB)

/*
 * No pause is shorter than the least: stopping, saving, loading and two round
 * trips alone take more. Beyond the most, which is QEMU's, too, a guest is as
 * well paused for the whole move.
 */
#define SOURCE_DOWNTIME_MIN (100 * NS_PER_US)
#define SOURCE_DOWNTIME_MAX (2000 * NS_PER_S)

/* In less, not even the first answer comes. */
#define SOURCE_TIMEOUT_MIN (1 * NS_PER_MS)

/* Of waiting for anything. */
#define SOURCE_TIME_MAX (86400 * NS_PER_S)

struct source_params {
	struct address to;	  /* resolved */
	uint64_t max_downtime_ns; /* SOURCE_DOWNTIME_MAX or less */
	uint64_t abort_after_ns;  /* pause to LOADED; 0: 30 × max_downtime */
	uint64_t bandwidth;	  /* bytes a second in pre-copy; 0: no cap */
	uint64_t timeout_ns;	  /* from the start to the pause; 0: none */
	enum source_on_timeout on_timeout;
	bool offline; /* pause first, then copy once */
	bool verify;  /* digest memory and state at both ends in the pause */
	bool dry_run; /* not @offline: stop short of the pause, and tell */
};

/* godwit's defaults; @to is left empty. */
extern const struct source_params source_params_default;

struct source_env {
	struct vm *vm;
	/* The status changed; on the migration thread. */
	void (*on_status)(void *opaque, enum report_status status);
	/* Round @number, from 0 on, begins; on the migration thread. */
	void (*on_round)(void *opaque, uint32_t number);
	/*
	 * The target runs the guest, and hears next that we know: what it is to
	 * find free then is let go here. Once; on the migration thread. One on
	 * this host has taken it when the status becomes COMPLETED.
	 */
	void (*on_moved)(void *opaque);
	void *opaque;
};

/**
 * source_create() - a migration that has not begun.
 */
int __must_check source_create(const struct source_env *env,
			       const struct source_params *params,
			       struct source **ret, struct error *err);

void source_free(struct source *source);

/* A dry run is over and all went well: the report has its forecast. */
#define SOURCE_REHEARSED 1

/**
 * source_run() - move the guest. Blocks until it is decided who has it.
 *
 * Return: 0, the target runs it: the VM here is held for good and must be
 * freed. -errno with @err, or SOURCE_REHEARSED: it runs on here as if nothing
 * had been.
 */
int __must_check source_run(struct source *source, struct error *err);

/**
 * source_cancel() - call it off.
 *
 * Return: 0, or -EPERM: COMMIT was sent, it can't be taken back.
 */
int __must_check source_cancel(struct source *source);

/**
 * source_resolve() - the operator's word on a guest whose fate is uncertain.
 * @resume: it runs here again; else it is discarded here.
 *
 * Return: 0, or -EPERM when nothing is uncertain.
 */
int __must_check source_resolve(struct source *source, bool resume);

/**
 * source_set_max_downtime() / source_set_bandwidth() - change a limit, also
 * while it runs.
 */
void source_set_max_downtime(struct source *source, uint64_t ns);
void source_set_bandwidth(struct source *source, uint64_t bytes_per_s);

/**
 * source_report() - what is known so far; a copy.
 */
void source_report(struct source *source, struct report *ret);

#endif
