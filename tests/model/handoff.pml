/* SPDX-License-Identifier: MIT */
/*
 * The handoff of a guest from a source to a target, with everything that can
 * go wrong around it. Both transition tables come from migration/handoff.def
 * through the C preprocessor; what is modelled here is what surrounds them:
 * the connections, the two processes, the restarted listener, the operator.
 *
 * What can happen
 *   - A connection is cut at any time; of what was in flight each way any
 *     suffix is lost, what is sent later goes nowhere. The target may be told
 *     or not (half-open); the source finds out by its timers at the latest.
 *   - Either process dies between any two steps; its connections are cut.
 *   - The listener is started again and knows nothing of the session.
 *   - Cancel and abort-after at any time before COMMIT, and a cancel that
 *     comes too late; a failure of the source at any time, of the target at
 *     any time before RUNNING; its deadline at any time in LOADED.
 *   - The operator does what the manual tells: he resumes when the process
 *     that had the session is gone or has destroyed the guest and its log
 *     does not say that it took the guest; he discards when the log does.
 *
 *   - A third VM tries to lock the disk at every moment: OWNER first, then
 *     WRITER, and lets OWNER go when WRITER is refused. Processes that die
 *     lose their locks.
 *
 * What is claimed
 *   two      two never run; and the source never runs a guest that has run
 *            at the target (its disks have moved on)
 *   lost     the guest is given up only by who knows that the other has it
 *   writers  a guest that runs at the target has WRITER; one at the source
 *            has OWNER, and nobody else who could write has WRITER
 *   third    the third VM gets both locks only when the guest had died
 *   settled  when nothing more goes wrong, both sides come to an end, and
 *            exactly one runs, or the process that held the guest had died;
 *            with NO_OPERATOR: the same, unless the target's process died
 *
 * Budgets keep it finite: CUTS cuts, one death each, one restart. At some
 * point all is calm: from there on nothing goes wrong that needs not, only
 * timers still run out, and the rest must come by itself. Macros
 * named BAD_… break one rule of behaviour each, check-model itself breaks
 * rows of the tables, and wants a counter-example for each.
 */
#include "migration/handoff.def"

#ifndef CUTS
#define CUTS 3
#endif

#define NCONN 3 /* 0 carries the move, 1 and 2 the questions */
#define ROOM  4 /* messages in flight, more than are ever sent one way */

#define S_NAME(name, x) S_##name,
#define SE_NAME(name, x) SE_##name,
#define T_NAME(name, x) T_##name,
#define TE_NAME(name, x) TE_##name,

mtype = { HANDOFF_SOURCE_STATES(S_NAME) S_NONE };
mtype = { HANDOFF_SOURCE_EVENTS(SE_NAME) SE_NONE };
mtype = { HANDOFF_TARGET_STATES(T_NAME) T_NONE };
mtype = { HANDOFF_TARGET_EVENTS(TE_NAME) TE_NONE };
mtype = { CONFIG, STATE, COMMIT, ABORT, DONE, QUERY,
	  LOADED, RUNNING, NACK, REFUSE, VRUNNING, VNEVER, VUNKNOWN };

mtype src = S_RUNS;
mtype tgt = T_EMPTY;

chan st[NCONN] = [ROOM] of { mtype }; /* source to target */
chan ts[NCONN] = [ROOM] of { mtype };

bool s_open[NCONN]; /* the end that this side still uses */
bool t_open[NCONN];
bool cut[NCONN];
bool told; /* the target sees that connection 0 was cut */
byte cuts;
byte asked; /* connection of the question, 0 for none yet */

bool s_alive = true;
bool t_alive = true;
bool s_died, t_died; /* other than by coming to its end */
bool restarted; /* a listener that knows nothing */
bool once; /* the listener leaves after a failed attempt */
bool t_said_loaded;
bool t_knows; /* ABORT or DONE came: nobody will ask */
bool t_took; /* RUNNING was stepped into: holds the guest */
bool t_logged; /* and its log says so */
bool t_ran; /* and the guest ran */
bool holder_died;
/* Who holds the two locks of the guest's disk. */
#define NOBODY 0
#define SOURCE 1
#define TARGET 2
#define THIRD  3
byte owner = SOURCE;
byte writer = SOURCE;

bool calm; /* nothing more goes wrong, except what timers do */
bool refused;

/* Never true: they name the claim in the text of a broken assertion. */
bool two, lost, settled, writers, third;

#define S_RUN(name, guest) || (guest && src == S_##name)
#define T_RUN(name, guest) || (guest && tgt == T_##name)
#define S_GUEST (s_alive && (false HANDOFF_SOURCE_STATES(S_RUN)))
#define T_GUEST (t_alive && t_ran && (false HANDOFF_TARGET_STATES(T_RUN)))

/* Nothing else is done and nobody answered until the guest is let go. */
#define T_BUSY	(tgt == T_RUNNING && !(t_logged && t_ran))

#define S_ENDED (!s_alive || src == S_MOVED || src == S_KEPT)
#define T_ENDED (!t_alive || (tgt == T_RUNNING && !T_BUSY) || tgt == T_DESTROYED)
#define ONE	((S_GUEST && !T_GUEST) || (!S_GUEST && T_GUEST))
#define SETTLED (S_ENDED && T_ENDED && (ONE || holder_died))

/* A guest of the source may wait for WRITER; its target never uses it. */
#define THIRD_WRITES (owner == THIRD && writer == THIRD)
#define WRITERS_OK ((!T_GUEST || writer == TARGET) && \
		    (!S_GUEST || (owner == SOURCE && writer != THIRD)) && \
		    (!THIRD_WRITES || (!S_GUEST && !T_GUEST)))

#define ROW_S(s, e, n) :: (src == S_##s && ev == SE_##e) -> src = S_##n;
#define ROW_T(s, e, n) :: (tgt == T_##s && ev == TE_##e) -> tgt = T_##n;

/* ---- connections ---- */

inline s_send(c, m)
{
	if
	:: !cut[c] && t_open[c] -> st[c]!m
	:: else
	fi
}

inline t_send(c, m)
{
	if
	:: !cut[c] && s_open[c] -> ts[c]!m
	:: else
	fi
}

inline drop(ch)
{
	do
	:: ch?_
	:: empty(ch) -> break
	od
}

/* Nothing unread is read after this; the peer reads on what was sent. */
inline s_close(c)
{
	s_open[c] = false;
	drop(ts[c])
}

inline t_close(c)
{
	t_open[c] = false;
	drop(st[c])
}

/* ---- the disk's locks ---- */

inline let_go(who)
{
	if
	:: writer == who -> writer = NOBODY
	:: else
	fi;
	if
	:: owner == who -> owner = NOBODY
	:: else
	fi
}

/* ---- the source ---- */

inline source_step(event)
{
	ev = event;
	refused = false;
	if
	HANDOFF_SOURCE_TABLE(ROW_S)
	:: else -> refused = true
	fi;
	if
	:: src == S_KEPT -> assert(!t_ran || two)
	:: src == S_MOVED -> assert(t_took || lost)
	:: else
	fi;
	assert(!(S_GUEST && T_GUEST) || two);
	ev = SE_NONE
}

/* Before COMMIT: say so, and be done. Afterwards: give the connection up. */
inline source_breaks(event)
{
	source_step(event);
	if
	:: !refused && s_open[0] ->
		if
		:: src == S_KEPT -> s_send(0, ABORT)
		:: else
		fi;
		s_close(0)
	:: else
	fi
}

inline source_ends(c)
{
	s_send(c, DONE);
	s_close(c)
}

inline source_reads(m)
{
	if
	:: m == LOADED -> source_step(SE_LOADED)
	:: m == RUNNING -> source_step(SE_RUNNING)
	:: m == NACK -> source_step(SE_NACK)
	:: m == REFUSE -> refused = true
	fi;
	if
	:: refused -> source_breaks(SE_FAIL)
	:: else ->
		if
		:: src == S_COMMITTED -> s_send(0, COMMIT)
		:: src == S_MOVED || src == S_KEPT -> source_ends(0)
		:: else
		fi
	fi;
	m = 0
}

inline source_hears(m)
{
	if
	:: m == VRUNNING -> source_step(SE_VERDICT_RUNNING)
	:: m == VNEVER -> source_step(SE_VERDICT_NEVER)
	:: m == VUNKNOWN -> source_step(SE_VERDICT_UNKNOWN)
	fi;
	assert(!refused);
	source_ends(asked);
	m = 0
}

/* A connection of its own for each question, as far as they go. */
inline source_asks()
{
	if
	:: asked < NCONN - 1 -> asked++
	:: else -> drop(st[asked])
	fi;
	drop(ts[asked]);
	cut[asked] = false;
	s_open[asked] = true;
	t_open[asked] = true;
	st[asked]!QUERY
}

active proctype Source()
{
	mtype m, ev;

	atomic {
		s_open[0] = true;
		t_open[0] = true;
		st[0]!CONFIG
	}
end:	do
	:: atomic { !s_alive -> break }
	:: atomic {
		s_alive && src == S_RUNS && s_open[0] ->
		source_step(SE_PAUSE);
#ifdef BAD_OWNER_IN_THE_PAUSE
		owner = NOBODY;
#endif
		writer = NOBODY;
		s_send(0, STATE)
	   }
	:: atomic {
		s_alive && src == S_KEPT && writer == NOBODY ->
		writer = SOURCE
	   }
	:: atomic {
#ifdef BAD_OWNER_AT_COMMIT
		s_alive && owner == SOURCE &&
		(src == S_COMMITTED || src == S_MOVED) ->
#else
		s_alive && owner == SOURCE && src == S_MOVED ->
#endif
		owner = NOBODY
	   }
	:: atomic { s_alive && s_open[0] && nempty(ts[0]) ->
		ts[0]?m;
		source_reads(m) }
	:: atomic { /* cancel, or abort-after */
		!calm && s_alive && (src == S_RUNS || src == S_PAUSED) ->
		source_breaks(SE_CANCEL)
	   }
	:: atomic { /* a wrong record; anything breaks here */
		!calm && s_alive && s_open[0] -> source_breaks(SE_FAIL)
	   }
	:: atomic { /* an end that is seen, or a timer */
		s_alive && s_open[0] &&
		(cut[0] || (!t_open[0] && empty(ts[0]))) ->
		source_breaks(SE_LOST)
	   }
	:: atomic { /* a user who cancels too late is refused */
		!calm && s_alive && src == S_COMMITTED ->
		source_step(SE_CANCEL);
		if
		:: refused
		:: else -> s_close(0)
		fi
	   }
	:: atomic {
		s_alive && src == S_ASKING && (!asked || !s_open[asked]) &&
		(t_alive || restarted) ->
		source_asks()
	   }
	:: atomic {
		s_alive && asked && s_open[asked] && nempty(ts[asked]) ->
		ts[asked]?m;
		source_hears(m)
	   }
	:: atomic {
		s_alive && asked && s_open[asked] &&
		(cut[asked] || (!t_open[asked] && empty(ts[asked]))) ->
		source_step(SE_LOST);
		s_close(asked)
	   }
	od
}

/* ---- the target ---- */

inline target_step(event)
{
	ev = event;
	refused = false;
	if
	HANDOFF_TARGET_TABLE(ROW_T)
	:: else -> refused = true
	fi;
	if
	:: tgt == T_RUNNING && !t_took ->
		/* nothing of its own may make the source run again */
		assert(src == S_COMMITTED || src == S_ASKING || !s_alive ||
		       two);
		t_took = true
	:: tgt == T_DESTROYED -> let_go(TARGET)
	:: else
	fi;
	ev = TE_NONE
}

/* Destroyed: say so as far as the connection goes. */
inline target_says_so()
{
	if
	:: t_said_loaded -> t_send(0, NACK)
	:: else -> t_send(0, REFUSE)
	fi
}

inline target_fails()
{
	target_step(TE_FAIL);
	if
	:: tgt == T_DESTROYED && t_open[0] -> target_says_so()
	:: else
	fi;
	t_close(0)
}

/* Destroyed after LOADED: NACK at once and close, or wait for COMMIT. */
inline target_may_say_so()
{
	if
	:: tgt == T_DESTROYED && t_said_loaded && t_open[0] ->
		target_says_so();
		t_close(0)
	:: true
	fi
}

/*
 * RUNNING was stepped into: in two steps the log says so, then the guest is
 * let go. A death between them shows in the log.
 */
inline target_lets_go()
{
	if
#ifdef BAD_LOG_AFTER
	:: !t_ran -> t_ran = true
	:: else -> t_logged = true
#else
	:: !t_logged -> t_logged = true
	:: else -> t_ran = true
#endif
	fi;
	assert(!(S_GUEST && T_GUEST) || two);
	if
	:: t_logged && t_ran -> t_send(0, RUNNING)
	:: else
	fi
}

inline target_reads(m)
{
	if
	:: m == CONFIG -> target_step(TE_CONFIG)
#ifndef BAD_WRITER_NOT_TAKEN
	:: m == STATE && tgt == T_BUILT && writer != NOBODY ->
		refused = true
	:: m == STATE && tgt == T_BUILT && writer == NOBODY ->
		writer = TARGET;
#else
	:: m == STATE && tgt == T_BUILT ->
#endif
		target_step(TE_LOADED);
		t_said_loaded = true;
		t_send(0, LOADED)
	:: m == STATE && tgt != T_BUILT -> refused = true
	:: m == COMMIT ->
		target_step(TE_COMMIT);
		if
		:: !refused && tgt == T_DESTROYED -> target_says_so()
		:: else
		fi
	:: m == ABORT -> t_knows = true; target_step(TE_ABORT)
	:: m == DONE -> t_knows = true; target_step(TE_DONE)
	fi;
	if
	:: refused -> target_fails()
	:: else
	fi;
	m = 0
}

inline target_answers(c)
{
	target_step(TE_QUERY);
	assert(!refused);
	if
	:: tgt == T_RUNNING -> t_send(c, VRUNNING)
	:: else -> t_send(c, VNEVER); target_may_say_so()
	fi;
#ifdef BAD_ANSWER_ENDS_LINGER
	t_knows = true
#endif
}

inline target_gone()
{
	t_alive = false;
	let_go(TARGET);
	t_close(0);
	t_close(1);
	t_close(2)
}

active proctype Target()
{
	mtype m, ev;
	byte c;

	if
	:: once = true
	:: skip
	fi;
end:	do
	:: atomic { !t_alive -> break }
	:: atomic {
		t_alive && !T_BUSY && t_open[0] && nempty(st[0]) ->
		st[0]?m;
		target_reads(m) }
	:: atomic { t_alive && T_BUSY -> target_lets_go() }
	:: atomic {
		t_alive && !T_BUSY && tgt == T_RUNNING && owner == NOBODY ->
		owner = TARGET
	   }
	:: atomic { /* anything breaks; a signal */
		!calm && t_alive && t_open[0] &&
		(tgt == T_EMPTY || tgt == T_BUILT || tgt == T_LOADED) ->
		target_fails()
	   }
	:: atomic { /* the end is seen, or silence before LOADED */
		t_alive && t_open[0] && empty(st[0]) &&
		((!s_open[0] && !cut[0]) || (cut[0] &&
		 (told || tgt == T_EMPTY || tgt == T_BUILT))) ->
		target_step(TE_LOST);
		t_close(0)
	   }
#ifndef BAD_NO_DEADLINE
	:: atomic {
		t_alive && tgt == T_LOADED ->
		target_step(TE_DEADLINE);
		target_may_say_so()
	   }
#endif
	:: atomic {
		t_alive && !T_BUSY &&
		t_open[1] && nempty(st[1]) ->
		st[1]?m;
		if
		:: m == QUERY -> target_answers(1)
		:: m == DONE -> t_knows = true; t_close(1)
		fi;
		m = 0
	   }
	:: atomic {
		t_alive && !T_BUSY &&
		t_open[2] && nempty(st[2]) ->
		st[2]?m;
		if
		:: m == QUERY -> target_answers(2)
		:: m == DONE -> t_knows = true; t_close(2)
		fi;
		m = 0
	   }
	/*
	 * --once leaves after a failed attempt, but not before the source knows
	 * how it ended, or could not ask any more. Giving up on that earlier
	 * (the linger limit) is to the source a death like any other.
	 */
	:: atomic {
		t_alive && once && tgt == T_DESTROYED &&
#ifndef BAD_NO_LINGER
		(!t_said_loaded || t_knows || S_ENDED) &&
#endif
		true -> target_gone()
	   }
	od
}

/* A listener that was started again: knows no session, has no guest. */
active proctype Restarted()
{
	mtype m;

end:	do
	:: atomic { !t_alive && !restarted -> restarted = true }
	:: atomic {
		restarted && t_open[1] && nempty(st[1]) ->
		st[1]?m;
		if
		:: m == QUERY -> t_send(1, VUNKNOWN)
		:: else
		fi;
		m = 0
	   }
	:: atomic {
		restarted && t_open[2] && nempty(st[2]) ->
		st[2]?m;
		if
		:: m == QUERY -> t_send(2, VUNKNOWN)
		:: else
		fi;
		m = 0
	   }
	od
}

/* ---- what goes wrong ---- */

inline net_cuts(c)
{
	cut[c] = true;
	if
	:: c != 0
	:: c == 0 -> told = true
	:: c == 0
	fi
}

active proctype Trouble()
{
end:	do
	:: atomic {
		!calm && cuts < CUTS && s_open[0] && !cut[0] ->
		cuts++;
		net_cuts(0)
	   }
	:: atomic {
		!calm && cuts < CUTS && s_open[1] && !cut[1] ->
		cuts++;
		net_cuts(1)
	   }
	:: atomic {
		!calm && cuts < CUTS && s_open[2] && !cut[2] ->
		cuts++;
		net_cuts(2)
	   }
	:: !calm -> calm = true
	/* The rest of what was in flight is lost, in one direction. */
	:: atomic { !calm && cut[0] && nempty(st[0]) -> drop(st[0]) }
	:: atomic { !calm && cut[0] && nempty(ts[0]) -> drop(ts[0]) }
	:: atomic { !calm && cut[1] && nempty(st[1]) -> drop(st[1]) }
	:: atomic { !calm && cut[1] && nempty(ts[1]) -> drop(ts[1]) }
	:: atomic { !calm && cut[2] && nempty(st[2]) -> drop(st[2]) }
	:: atomic { !calm && cut[2] && nempty(ts[2]) -> drop(ts[2]) }
	/* The source's process dies; a finished one has nothing to lose. */
	:: atomic {
		!calm && s_alive && src != S_MOVED ->
		s_alive = false;
		s_died = true;
		holder_died = holder_died || !t_took;
		let_go(SOURCE);
		s_open[0] = false; s_open[1] = false; s_open[2] = false;
		net_cuts(0); cut[1] = true; cut[2] = true;
		drop(ts[0]); drop(ts[1]); drop(ts[2])
	   }
	/* The target's process dies. */
	:: atomic {
		!calm && t_alive ->
		t_died = true;
		holder_died = holder_died || t_took;
		target_gone();
		cut[0] = true; cut[1] = true; cut[2] = true
	   }
	od
}

/* ---- a third VM ---- */

active proctype Third()
{
end:	do
	:: atomic { owner == NOBODY -> owner = THIRD }
	:: atomic { owner == THIRD && writer == NOBODY ->
		writer = THIRD;
		assert(holder_died || third)
	   }
	:: atomic { owner == THIRD && writer != NOBODY && writer != THIRD ->
		owner = NOBODY
	   }
	od
}

/* ---- the operator ---- */

#ifndef NO_OPERATOR
active proctype Operator()
{
	mtype ev;

end:	do
	:: atomic {
		s_alive && src == S_ASKING &&
#ifdef BAD_OPERATOR_TRUSTS_DEATH
		!t_alive ->
#else
		(!t_alive || tgt == T_DESTROYED) && !t_logged ->
#endif
		source_step(SE_OPERATOR_RESUME);
		s_close(asked)
	   }
	:: atomic {
		s_alive && src == S_ASKING && t_logged ->
		source_step(SE_OPERATOR_DISCARD);
		s_close(asked)
	   }
	od
}
#define CALM SETTLED
#else
#define CALM (SETTLED || t_died)
#endif

/* Nothing can happen any more: is it well? */
active proctype Monitor()
{
end:	do
	:: timeout -> assert(CALM || settled); break
	:: atomic { !WRITERS_OK -> assert(writers) }
	od
}

ltl comes_to_rest { <> [] CALM }
