/* SPDX-License-Identifier: MIT */
/*
 * What a migration did, in numbers: filled by the source as it goes, read by
 * the control socket while it runs, printed at its end. Times are nanoseconds
 * inside, milliseconds with three decimals outside.
 */
#ifndef GODWIT_REPORT_H
#define GODWIT_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "vmm/error.h"

/* The phases of DESIGN, each with a name in log, table and JSON. */
enum report_phase {
	PHASE_HELLO,
	PHASE_CONFIG,
	PHASE_REHEARSAL,
	PHASE_ROUNDS,
	PHASE_STOP,   /* the pause begins here: vCPUs stop, devices drain */
	PHASE_SAVE,   /* state into a buffer */
	PHASE_SYNC,   /* the last dirty log */
	PHASE_FINAL,  /* the last pages, then the state, into the socket */
	PHASE_VERIFY, /* memory and state digested at both ends, if asked */
	PHASE_LOADED, /* waiting for the target to have it all, loaded */
	PHASE_COMMIT, /* COMMIT to RUNNING; the pause ends here */
	REPORT_PHASES,
};

/* QEMU's words wherever QEMU has the thing. */
enum report_status {
	STATUS_NONE,
	STATUS_SETUP,	  /* HELLO to REHEARSAL */
	STATUS_ACTIVE,	  /* ROUNDS */
	STATUS_DEVICE,	  /* the pause */
	STATUS_UNCERTAIN, /* COMMIT sent, and no answer */
	STATUS_COMPLETED,
	STATUS_FAILED,
	STATUS_CANCELLED,
	STATUS_REHEARSED, /* a dry run that went well */
	REPORT_STATUSES,
};

/* Will a pause within the limit be had, if all goes on as in the last rounds?
 */
enum report_outlook {
	OUTLOOK_UNKNOWN, /* no round has ended yet */
	OUTLOOK_CONVERGES,
	OUTLOOK_DIVERGES,
};

#define REPORT_ROUNDS_MAX  256
#define REPORT_SESSION_MAX 33 /* hexadecimal digits and a NUL */
#define REPORT_VCPUS_MAX   254

struct report_round {
	uint64_t pages;
	uint64_t zero_pages;
	uint64_t bytes;
	uint64_t ns;
	uint64_t dirty_pages_per_s; /* found dirty at its end, over its time */
};

/* What a move would have cost, told from a dry run. */
struct report_forecast {
	bool converges;	      /* to a pause within the limit */
	uint64_t total_ns;    /* from its start to RUNNING */
	uint64_t downtime_ns; /* of that, the pause */
	uint64_t phase_ns[REPORT_PHASES];
	uint32_t rounds;
	unsigned int throttle; /* per cent, of the vCPUs that dirty */
	bool forced; /* not @converges: at the timeout, all the same */
	uint64_t enough_downtime_ns;  /* this limit would do; 0: not known */
	unsigned int enough_throttle; /* with it, per cent */
	uint64_t enough_timeout_ns;   /* likewise */
	char reason[160];	      /* why its rounds end so: a sentence */
};

struct report {
	enum report_status status;
	bool dry_run;			  /* the guest is to stay */
	bool offline;			  /* its pause has no limit */
	char session[REPORT_SESSION_MAX]; /* as both sides' logs name it */
	char error[ERROR_TEXT_MAX];	  /* FAILED and CANCELLED */
	enum report_phase phase;	  /* the one it is in, or ended in */
	uint64_t phase_ns[REPORT_PHASES];
	uint64_t start_ns; /* of clock_ns() */
	uint64_t total_ns;
	uint64_t downtime_ns;	  /* first kick to RUNNING received */
	uint64_t predicted_ns;	  /* of the pause, when it was decided */
	uint64_t expected_ns;	  /* of a pause taken now: progress */
	uint64_t max_downtime_ns; /* what is allowed now */
	uint64_t bandwidth_cap;	  /* bytes a second before the pause; 0: none */
	enum report_outlook outlook;
	unsigned int throttle; /* per cent of their time that vCPUs are held */
	uint8_t throttled[REPORT_VCPUS_MAX]; /* which, and by how much at most
					      */
	uint64_t memory_size;		     /* bytes */
	uint64_t remaining_pages;
	uint64_t pages;
	uint64_t zero_pages;
	uint64_t hinted_pages; /* free in the guest, and never sent */
	uint64_t bytes;
	uint64_t pause_bytes; /* of those, since the pause began */
	uint64_t sent_per_s;  /* bytes, lately; at the end, of the whole move */
	uint64_t bandwidth;   /* bytes a second that the link takes */
	uint64_t dirty_pages_per_s;
	uint64_t closed_connections; /* that the move has ended */
	uint32_t nrounds; /* in all; the first REPORT_ROUNDS_MAX are kept */
	struct report_round rounds[REPORT_ROUNDS_MAX];
	struct report_forecast forecast; /* REHEARSED */
};

/**
 * report_status_name() - "setup", "active", …; never NULL.
 */
const char *report_status_name(enum report_status status);

/**
 * report_status_ended() - is it one that no other follows?
 */
bool report_status_ended(enum report_status status);

/**
 * report_phase_name() - "hello", "config", …; never NULL.
 */
const char *report_phase_name(enum report_phase phase);

/**
 * report_over_ns() - by how much the pause was longer than allowed; 0: it was
 * not. What it took to verify is not counted, nor is there a limit offline.
 */
uint64_t report_over_ns(const struct report *report);

/**
 * report_json() - the object that `migrate --json` prints.
 *
 * Return: a new reference, or NULL when out of memory.
 */
json_t *report_json(const struct report *report);

/**
 * report_print() - the same for people: what it cost, phase by phase.
 */
void report_print(const struct report *report, FILE *to);

#endif
