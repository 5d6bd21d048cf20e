/* SPDX-License-Identifier: MIT */
/*
 * Pacing: how long would a pause take if it began now, and what to do about
 * it. Pure policy: numbers in, a decision out; no VM, no I/O, no clock.
 *
 *	predicted pause = stop + drain + save + sync + bytes ÷ bandwidth
 *			  + load + 2 round trips
 *
 * Each term is fed from measurements of this very migration. The costs that do
 * not depend on how much is dirty are noted one sample at a time
 * (pacing_note_cost()); the upper median of the last few counts, so that one
 * hiccup of a scheduler neither hides nor poisons a term. Bandwidth comes from
 * acknowledged rounds, net of one round trip, weighted by bytes; of that and
 * the last round of some size the slower counts, and while there was none of
 * any size, the one in the middle. A cap on what rounds may use
 * is none on the pause, so of a capped round only the part counts that was sent
 * as fast as the link takes it. While a guest is being
 * stopped it goes on dirtying: the dirty set that the last sync found is
 * grown by what the fastest recent dirtying would add.
 *
 * The loop of the source:
 *
 *	pacing_init();  pacing_note_cost() …;  pacing_note_state();
 *	do {
 *		send a round, wait for its ROUND_ACK, take the dirty log
 *		pacing_note_cost(PACING_SYNC), pacing_note_round()
 *		pacing_decide()
 *	} while (GO_ON or THROTTLE);
 *
 * It ends: every decision but a bounded number leads on to a smaller pause, a
 * slower guest or the end (see pacing_decide()).
 *
 * Threads: none; the caller's lock, if it has one.
 */
#ifndef GODWIT_PACING_H
#define GODWIT_PACING_H

#include "vmm/util.h"

#define PACING_SAMPLES	  5 /* of each cost that are remembered */
#define PACING_ROUNDS	  4 /* recent rounds that bandwidth is made of */
#define PACING_REASON_MAX 160

/* What a pause costs besides moving bytes. Each must be noted at least once. */
enum pacing_cost {
	PACING_STOP,  /* first kick to the last vCPU out of the guest */
	PACING_DRAIN, /* devices at rest, disks flushed */
	PACING_SAVE,  /* state into the buffer */
	PACING_SYNC,  /* dirty log of KVM and ours, read and merged */
	PACING_LOAD,  /* target: decode + check + load */
	PACING_TRIP,  /* a round trip: PING to PONG */
	PACING_COSTS,
};

enum pacing_on_timeout {
	PACING_CANCEL,
	PACING_PAUSE,
};

struct pacing_params {
	uint64_t max_downtime_ns;
	uint64_t timeout_ns; /* of all before the pause; 0: none */
	enum pacing_on_timeout on_timeout;
	bool offline; /* pause first, copy once */
};

struct pacing_round {
	uint64_t pages; /* sent, zero ones included */
	uint64_t zero_pages;
	uint64_t ns;	      /* first byte out to ROUND_ACK in */
	uint64_t link_bytes;  /* sent without regard to the cap, acknowledged */
	uint64_t link_ns;     /* first of those out to ROUND_ACK in */
	uint64_t dirty_pages; /* the whole dirty set, by the sync after it */
};

/* A predicted pause, by term; nanoseconds. */
struct pacing_prediction {
	uint64_t cost_ns[PACING_COSTS]; /* TRIP: all trips together */
	uint64_t transfer_ns;		/* pages and state over bandwidth */
	uint64_t total_ns;
	uint64_t pages; /* in the final set */
};

enum pacing_action {
	PACING_GO_ON,	 /* one more round */
	PACING_THROTTLE, /* slow the vCPUs that dirty, then one more round */
	PACING_SWITCH,	 /* pause now: within the threshold */
	PACING_FORCE,	 /* pause now, over the threshold, as the user asked */
	PACING_GIVE_UP,	 /* call the migration off */
};

struct pacing_decision {
	enum pacing_action action;
	unsigned int throttle; /* per cent of time to hold vCPUs, 0 to 99 */
	/*
	 * The end is near, or the costs stand in its way: flush disks now and
	 * measure the costs again, while the guest runs. Only with GO_ON and
	 * THROTTLE.
	 */
	bool prepare;
	/* Only a flush is waited for: the next round need not come at once. */
	bool idle;
	struct pacing_prediction prediction; /* of a pause that began now */
	char reason[PACING_REASON_MAX]; /* a whole sentence, for log and user */
};

/* How a move would go on. */
struct pacing_forecast {
	enum pacing_action action;	/* its end: SWITCH, FORCE or GIVE_UP */
	unsigned int rounds;		/* still to come before that */
	uint64_t rounds_ns;		/* which take so long */
	unsigned int throttle;		/* at their end, per cent */
	struct pacing_prediction pause; /* of one that begins then */
	char reason[PACING_REASON_MAX]; /* why it ends so: a whole sentence */
};

/* Limits with which it would go on to a SWITCH; each 0 where none was found. */
struct pacing_remedy {
	uint64_t max_downtime_ns; /* instead, all else as it is */
	unsigned int throttle;	  /* that goes with it, per cent */
	uint64_t timeout_ns;	  /* likewise */
};

/* All members are private but readable; pacing_init() makes one. */
struct pacing {
	struct pacing_params params;
	uint64_t cost[PACING_COSTS][PACING_SAMPLES];
	unsigned int ncost[PACING_COSTS]; /* noted in all */
	uint64_t state_bytes;
	uint64_t cap; /* bytes a second in rounds; 0: none */
	struct pacing_round rounds[PACING_ROUNDS]; /* ring */
	unsigned int nrounds;			   /* noted in all */
	struct pacing_round sized; /* the last of some size, or all zero */
	uint64_t most_pages;	   /* that a round had */
	uint64_t best_ns;	   /* smallest prediction at this level */
	uint64_t last_ns;	   /* the last prediction */
	unsigned int stalled;	   /* rounds since that got clearly better */
	unsigned int polished;	   /* rounds beyond the threshold */
	uint64_t polished_ns;	   /* which have taken so long */
	unsigned int hopeless;	   /* rounds with the costs alone too dear */
	unsigned int throttle;	   /* per cent */
	bool prepared;		   /* a decision has said so */
	bool unsettled;		   /* disks were not flushed yet */
};

/**
 * pacing_init() - begin, with nothing measured.
 */
void pacing_init(struct pacing *p, const struct pacing_params *params);

/**
 * pacing_set_max_downtime() - change the threshold while it runs; the same
 * one again is no change.
 */
void pacing_set_max_downtime(struct pacing *p, uint64_t ns);

/**
 * pacing_set_cap() - what rounds may use of the link, bytes a second; 0: all.
 */
void pacing_set_cap(struct pacing *p, uint64_t bytes_per_s);

/**
 * pacing_note_cost() - a cost was measured once, in nanoseconds.
 */
void pacing_note_cost(struct pacing *p, enum pacing_cost cost, uint64_t ns);

/**
 * pacing_note_settled() - have all disks been flushed once? While they have
 * not, nobody knows what is left for the pause, so there is no SWITCH.
 */
void pacing_note_settled(struct pacing *p, bool settled);

/**
 * pacing_note_state() - how many bytes the state takes on the wire.
 */
void pacing_note_state(struct pacing *p, uint64_t bytes);

/**
 * pacing_note_round() - a round was acknowledged and the dirty log taken.
 */
void pacing_note_round(struct pacing *p, const struct pacing_round *round);

/**
 * pacing_bandwidth() - bytes a second that the link takes, as predictions use
 * it; 0 before the first round that had any bytes.
 */
uint64_t pacing_bandwidth(const struct pacing *p);

/**
 * pacing_dirty_rate() - pages a second: the fastest of the recent rounds.
 */
uint64_t pacing_dirty_rate(const struct pacing *p);

/**
 * pacing_predict() - a pause that begins now, with @dirty_pages left to send.
 * total_ns is UINT64_MAX when there is no bandwidth yet.
 */
void pacing_predict(const struct pacing *p, uint64_t dirty_pages,
		    struct pacing_prediction *ret);

/**
 * pacing_converges() - would rounds, if all goes on as in the last ones, lead
 * to a pause within the threshold? One round must have been noted.
 */
bool pacing_converges(const struct pacing *p);

/**
 * pacing_decide() - what to do after the last noted round. Call once a round.
 * @elapsed_ns: since the migration began.
 *
 * SWITCH only when the prediction is within the threshold, disks have been
 * flushed, and what @prepare asks for was done in an earlier round; even then
 * up to a few more rounds as long as each is cheap and predicted to shorten the
 * pause clearly. Over the threshold: GO_ON while rounds shrink the prediction,
 * then THROTTLE in growing steps, each given rounds to show effect. At the
 * timeout, or without one when the strongest step has no effect either, or when
 * costs that do not depend on dirtying stay over the threshold by themselves:
 * what on_timeout says, GIVE_UP or FORCE.
 *
 * All costs must have been noted before.
 */
void pacing_decide(struct pacing *p, uint64_t elapsed_ns,
		   struct pacing_decision *ret);

/**
 * pacing_forecast() - what pacing_decide() would say from here on, and what the
 * rounds would cost, if link and guest stay as they were in the last rounds.
 * @elapsed_ns: since the migration began.
 *
 * The guest must not have been slowed in those rounds; for a slowed one the
 * forecast takes it that it dirties so much less. Disks count as flushed.
 */
void pacing_forecast(const struct pacing *p, uint64_t elapsed_ns,
		     struct pacing_forecast *ret);

/**
 * pacing_remedy() - what could be asked for instead, when pacing_forecast()
 * has seen no SWITCH: the shortest pause, the shortest timeout that would do,
 * with something to spare.
 * @most_ns: of both, nothing beyond that is looked at; at most 2^62.
 */
void pacing_remedy(const struct pacing *p, uint64_t elapsed_ns,
		   uint64_t most_ns, struct pacing_remedy *ret);

/**
 * pacing_advice() - the same in words, for who has just been given up on.
 */
const char *pacing_advice(const struct pacing *p, uint64_t elapsed_ns,
			  uint64_t most_ns, char text[PACING_REASON_MAX]);

/**
 * pacing_action_name() - "go on", "switch", …; never NULL.
 */
const char *pacing_action_name(enum pacing_action action);

/**
 * pacing_cost_name() - "stop", "drain", …; never NULL.
 */
const char *pacing_cost_name(enum pacing_cost cost);

#endif
