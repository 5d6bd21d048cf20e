/* SPDX-License-Identifier: MIT */
/*
 * Who gets in at a disk: two VMs that come and go at any time, each by any of the
 * ways of devices/backend/disk.h, and a target to which the first of them moves. Each look and each lock is one step, and the others take theirs in
 * between; each process may die between any two of its own.
 *
 * What is claimed
 *   two      nobody uses the disk beside one who writes to it
 *   nobody   who is refused is so because of somebody
 *   stuck    whoever tries comes to an end: no invalid end state
 *
 * A lock is held by numbers: of processes, 0 for nobody. Macros named BAD_… break the rule.
 */
/* Processes: VMs 1 and 2, and of 1 */
#define TARGET 3
#define AGAIN  4 /* the badge of VM 1 when it comes after its move */
#define ALL    4 /* processes, and what they index from 1 on */

#define NONE 2 /* no lock file; else 0 or 1 */

/* The image's bytes and those of two lock files: index NONE, 0 and 1. */
byte owner[3];
byte writer[3];
byte proof[3];
bool reader[12]; /* OWNER, shared: by byte's file and process */
byte drawn[2]; /* what is written in the lock file */
byte badge[ALL]; /* on the image, shared */

bool idle[ALL]; /* holds nothing and tries nothing */
bool reads[ALL];
bool writes[ALL];

/* The move of VM 1, as the migration's records have it. */
#define M_NONE	    0
#define M_FAILED    1
#define M_PROVED    2
#define M_VERIFIED  3
#define M_PAUSED    4
#define M_YIELDED   5
#define M_LOADED    6
#define M_COMMITTED 7
#define M_RUNNING   8
byte move = M_NONE;

/* Never true: they name the claim in the text of a broken assertion. */
bool two, nobody;

#define R(file, who)  reader[(file) * ALL + (who)]
#define READERS(file, me) \
	((me != 1 && R(file, 1)) || (me != 2 && R(file, 2)) || \
	 (me != 3 && R(file, 3)))
#define OWNED(file, me)	   (owner[file] != 0 && owner[file] != me)
#define WRITTEN(file, me)  (writer[file] != 0 && writer[file] != me)
/* Of one process other than me; below and above one's own. */
#define IS_BELOW(i, own)   (badge[i] != 0 && badge[i] < own)
#define IS_ABOVE(i, own)   (badge[i] > own)
#define BELOW(own) (IS_BELOW(1, own) || IS_BELOW(2, own) || IS_BELOW(3, own))
#define ABOVE(own) (IS_ABOVE(1, own) || IS_ABOVE(2, own) || IS_ABOVE(3, own))
#define OTHER_IDLE(i, me) (i == me || idle[i])
#define ALONE(me) (OTHER_IDLE(1, me) && OTHER_IDLE(2, me) && OTHER_IDLE(3, me))

#define WRITERS (writes[1] + writes[2] + writes[3])
#define USERS	(WRITERS + reads[1] + reads[2] + reads[3])

inline begin(me, reading)
{
	d_step {
		reads[me] = reading;
		writes[me] = !reading;
		assert(WRITERS == 0 || USERS == 1 || two)
	}
}

inline let_go_of(file, me)
{
	writer[file] = (writer[file] == me -> 0 : writer[file]);
	owner[file] = (owner[file] == me -> 0 : owner[file]);
	proof[file] = (proof[file] == me -> 0 : proof[file]);
	R(file, me) = false
}

/* As a process that dies, too. */
inline let_go(me)
{
	d_step {
		/* What stays in a lock file is read by nobody. */
		drawn[0] = (owner[0] == me -> 0 : drawn[0]);
		drawn[1] = (owner[1] == me -> 0 : drawn[1]);
		reads[me] = false;
		writes[me] = false;
		badge[me] = 0;
		let_go_of(0, me);
		let_go_of(1, me);
		let_go_of(NONE, me);
		idle[me] = true;
		in = false;
		file = NONE;
		own = 0
	}
}

inline refuse_if(what, me)
{
	if
	:: what ->
		assert(!ALONE(me) || nobody);
		in = false
	:: else
	fi
}

/* disk_badge_check() */
inline look(me, file, reading, own)
{
	d_step {
		refuse_if(in && file != NONE && !reading &&
			  (OWNED(NONE, me) || WRITTEN(NONE, me) ||
			   READERS(NONE, me)), me);
		refuse_if(in && file != NONE && reading &&
			  WRITTEN(NONE, me), me)
	};
	d_step { refuse_if(in && BELOW(own), me) };
	d_step { refuse_if(in && ABOVE(own), me) }
}

inline share_owner(me, file)
{
	d_step {
		refuse_if(in && OWNED(file, me), me);
		R(file, me) = in
	}
}

inline lock_owner(me, file)
{
	d_step {
		refuse_if(in && (OWNED(file, me) || READERS(file, me)), me);
		owner[file] = (in -> me : owner[file])
	}
}

inline lock_writer(me, file)
{
	d_step {
		refuse_if(in && WRITTEN(file, me), me);
		writer[file] = (in -> me : writer[file])
	}
}

/* disk_badge_wear() */
inline wear(me, file, reading, own)
{
	look(me, file, reading, own);
	if
	:: reading ->
#ifndef BAD_READERS_HIDE
		share_owner(me, NONE)
#else
		skip
#endif
	:: else -> badge[me] = (in -> own : 0)
	fi;
#ifndef BAD_NO_LOOK_AFTER
	look(me, file, reading, own)
#endif
}

inline lock_bytes(me, file, reading)
{
	if
	:: reading -> share_owner(me, file);
#ifndef BAD_READERS_HEED_OWNER_ALONE
		d_step { refuse_if(in && WRITTEN(file, me), me) }
#endif
	:: else -> lock_owner(me, file); lock_writer(me, file)
	fi
}

/* Never a badge that was drawn before and may be held still. */
inline draw(me, file)
{
	d_step {
#ifndef BAD_BADGE_BY_PLACE
		own = (me == 1 && move != M_NONE -> AGAIN : me);
#else
		own = 1;
#endif
		drawn[file] = own
	}
}

/* disk_lock() */
inline lock(me, file, reading)
{
	in = true;
	if
	:: file == NONE ->
		look(me, file, reading, 0);
		lock_bytes(me, file, reading);
#ifndef BAD_PLAIN_LOOKS_ONCE
		look(me, file, reading, 0)
#endif
	:: else ->
		lock_bytes(me, file, reading);
		if
		:: in && !reading -> draw(me, file)
		:: else
		fi;
		wear(me, file, reading, own)
	fi
}

/* ---- the source: one that writes, when it wants to move ---- */

inline move_away(me, file)
{
	atomic { move = M_PROVED; proof[file] = me };
	do
	:: atomic { move == M_VERIFIED ->
		writes[me] = false; move = M_PAUSED }
	:: atomic { move == M_PAUSED ->
		writer[file] = 0; move = M_YIELDED }
	:: atomic { move == M_LOADED -> move = M_COMMITTED }
	:: move == M_RUNNING -> break
	/* Whatever it is, before COMMIT. */
	:: atomic { move < M_COMMITTED ->
		move = M_FAILED; proof[file] = 0 };
		/* Tried for as long as the target has it. */
		atomic { !WRITTEN(file, me) -> writer[file] = me };
		begin(me, false);
		break
	/* It dies, and the target will notice. */
	:: move < M_COMMITTED -> let_go(me);
		move = M_FAILED;
		break
	od
}

/* ---- the processes ---- */

/* Of two that are alike, VM 1 has one. */
inline any_file(me)
{
	if
	:: file = NONE
	:: file = 0
	:: me != 1 -> file = 1
	fi
}

proctype Vm(byte me)
{
	bool in, reading;
	byte file, own;

	do
	:: break
	:: atomic {
		idle[me] = false;
		any_file(me);
		if
		:: reading = true
		:: reading = false
		fi };
		lock(me, file, reading);
		if
		:: in -> begin(me, reading)
		:: else
		fi;
		if
		:: in && me == 1 && !reading && move == M_NONE ->
			move_away(me, file)
		:: true
		fi;
		let_go(me);
		reading = false
	od
}

/* A step of the target, unless it has failed or hears that the move has. */
#define STEP(before, after) \
	if \
	:: in -> d_step { (move == before || move == M_FAILED) -> \
		in = (move == before); \
		move = (in -> after : move) } \
	:: else \
	fi

proctype Target(byte me)
{
	bool in;
	byte file, own;

end:	atomic { move == M_PROVED -> idle[me] = false };
	any_file(me);
	/* disk_verify() */
	d_step { in = (OWNED(file, me) && proof[file] != 0) };
#ifndef BAD_TARGET_WITHOUT_BADGE
	if
	:: in && file != NONE ->
		own = drawn[file];
		wear(me, file, false, own)
	:: else
	fi;
#endif
	STEP(M_PROVED, M_VERIFIED);
	STEP(M_YIELDED, M_YIELDED);
	lock_writer(me, file);
	STEP(M_YIELDED, M_LOADED);
	STEP(M_COMMITTED, M_COMMITTED);
	if
	:: in ->
		begin(me, false);
		move = M_RUNNING;
		/* Tried for as long as the source has it. */
		atomic { !OWNED(file, me) && !READERS(file, me) ->
			 owner[file] = me }
	:: else -> move = M_FAILED
	fi;
	let_go(me)
}

init
{
	atomic {
		idle[1] = true; idle[2] = true; idle[3] = true;
		run Vm(1);
		run Vm(2);
		run Target(TARGET)
	}
}
