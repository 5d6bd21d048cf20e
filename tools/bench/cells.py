# SPDX-License-Identifier: MIT
"""The workloads, and how one move of one of them is measured.

All contenders hold a guest of their own for the whole cell and take turns, one
move each; who is not in turn is frozen (SIGSTOP), so that it takes no core. A
move is measured from outside (the observer) and by the guest itself (its
longest gap by TSC, which a move within one host leaves alone).
"""

import collections
import contextlib
import statistics
import time

import calibrate
import host
from network import Network
from vmm import Failed
from watch import Gone

Cell = collections.namedtuple(
    "Cell", "name title kernel cmdline memory_mib disk cpus card",
    defaults=(False, 1, False))

DIRTY = "touch=word progress=0 beat_us=100"
CELLS = [
    Cell("null", "nothing to move: 32 MiB, only the heartbeat",
         "heartbeat", "", 32),
    Cell("idle", "1 GiB, only the heartbeat", "heartbeat", "", 1024),
    Cell("disked", "1 GiB, only the heartbeat, and a disk that nobody uses",
         "heartbeat", "", 1024, True),
    Cell("carded", "1 GiB, only the heartbeat, and a network card that nobody "
         "uses", "heartbeat", "", 1024, card=True),
    Cell("slow", "1 GiB, writes 64 MiB over and over at 327 MB/s",
         "dirty", f"mib=64 rate=327 {DIRTY}", 1024),
    Cell("fast", "1 GiB, writes 256 MiB over and over at 2.6 GB/s",
         "dirty", f"mib=256 rate=2600 {DIRTY}", 1024),
    Cell("full", "1 GiB, writes 512 MiB over and over as fast as it can",
         "dirty", f"mib=512 rate=0 {DIRTY}", 1024),
    Cell("filled", "1 GiB, no page of it zero, writes 1 MiB at 10 MB/s",
         "dirty", f"mib=1 rate=10 fill=yes {DIRTY}", 1024),
    Cell("big", "16 GiB, only the heartbeat", "heartbeat", "", 16384),
    Cell("wide", "16 GiB, writes 64 MiB over and over at 327 MB/s",
         "dirty", f"mib=64 rate=327 {DIRTY}", 16384),
] + [
    Cell(f"cpus{cpus}", f"32 MiB, only the heartbeat, {cpus} vCPUs, all but one "
         "halted",
         "heartbeat", "", 32, cpus=cpus) for cpus in (1, 2, 4, 8, 16, 32)
]

ROUNDS_MAX = 64  # that bench/logged takes

BEATS_PER_MS = 10
SETTLE_BEATS = 500
SETTLE_PASSES = 2
# A move is one under foreign load when, of the time that it is looked at, the
# guest had to wait for its core, which is its alone, or the host gave our cores
# to another VM, for more than this share; or, unless we go before other
# programs, when others had more than that of our cores. Shares, for a VMM that
# is slower to move is looked at for longer, and a thread that is alone on its
# core waits for it half a percent of the time, as the calibration shows. A
# single slice of the scheduler's, some 3 ms, is held against no move: a thread
# that wakes may have to wait for one, for a kernel thread on its core.
FOREIGN_DELAY = 0.01
SHORTEST_DELAY_MS = 4.0
FOREIGN_SHARE = 0.15


class Turn:
    """A contender in a cell: where its guest is now, and its moves."""

    settle_passes = SETTLE_PASSES

    def __init__(self, contender, cell, observer, cores):
        self.contender = contender
        self.cell = cell
        self.observer = observer
        self.cores = cores
        self.moves = []
        self.errors = []
        self.guest = None

    def boot(self):
        cell = self.cell
        self.guest = self.contender.start(f"build/guests/{cell.kernel}.elf",
                                          cell.cmdline, cell.memory_mib,
                                          cell.disk, cell.cpus)
        self.guest.line("ready" if cell.kernel == "dirty" else "heartbeat:")
        self.observer.wait_vcpu(self.guest.console)
        self.memory()
        self.guest.freeze()

    def memory(self):
        """PSS of the process that holds the guest, beside guest memory."""
        self.resident = host.pss_beside_guest(
            self.guest.pid, self.cell.memory_mib << 20)[1]

    def stats(self):
        if self.cell.kernel != "dirty":
            return None
        return self.guest.ask(b"s", "stats ")

    def settle(self):
        """Lets the guest run until it is at its work. Returns its speed."""
        self.observer.begin()
        self.observer.wait_beats(SETTLE_BEATS, 10)
        first = self.stats()
        if not first:
            self.observer.end()
            return None
        beats, done = SETTLE_BEATS, False
        while not done:
            beats += SETTLE_BEATS
            self.observer.wait_beats(beats, 30)
            now = self.stats()
            done = now["passes"] >= first["passes"] + self.settle_passes
        self.observer.end()
        return speed(first, now)

    def pids(self):
        return [guest.pid for guest in self.contender.guests] + [
            self.observer.process.pid]

    def move(self, counted=True):
        """One move, measured; a failed one is noted and ends the turn."""
        self.guest.thaw()
        target = self.contender.receive(self.guest)
        try:
            usual = self.settle()
            before = self.stats()
            self.guest.ask(b"g", "gap ")
            load = host.Load(self.cores, self.pids())
            start = time.monotonic()
            self.observer.begin()
            told = self.contender.move(self.guest, target)
            self.observer.wait_vcpu(target.console)
            move = self.seen(target, told)
            move["watched_ms"] = (time.monotonic() - start) * 1e3
            move["foreign"], move["stolen_s"] = load.foreign(self.pids())
            self.contender.end(self.guest)
            self.guest = target
            self.note_speeds(move, before, usual)
            move["rest_net_ms"] = self.stall_at_rest(move["watched_ms"])
        except (Failed, Gone) as failure:
            self.fail(str(failure), target)
            return
        move["quiet"] = self.was_quiet(move)
        self.guest.freeze()
        if counted:
            self.moves.append(move)

    def stall_at_rest(self, ms):
        """The guest's longest gap, less run_delay, in a time without a move:
        what this machine does to a guest anyway."""
        self.observer.begin()
        self.observer.wait_beats(int(ms * BEATS_PER_MS), 60)
        return self.observer.end()["stall_net_ns"] / 1e6

    def was_quiet(self, move):
        """Did others leave our cores alone as it moved?"""
        share = FOREIGN_DELAY * move["watched_ms"]
        # A target that populates memory on its vCPU's thread is no stranger.
        waited = 0 if self.cell.kernel == "dirty" else move["vcpu_delay_ms"]
        return (waited <= max(SHORTEST_DELAY_MS, share) and
                move["stolen_s"] * 1e3 <= share * len(self.cores.cores) and
                (self.cores.first or move["foreign"] <= FOREIGN_SHARE))

    def seen(self, target, told):
        """What guest and observer say of the move that has just ended."""
        gap = target.ask(b"g", "gap ")["tsc_ns"]
        seen = self.observer.end()
        if not seen["handover_ns"]:
            raise Failed("the guest's beats did not change hands")
        told.update({
            "outside_ms": seen["handover_ns"] / 1e6,
            "outside_net_ms": seen["handover_net_ns"] / 1e6,
            "stall_ms": seen["stall_ns"] / 1e6,
            # The kernel may keep the observer from its core: what the guest
            # itself did not see was no gap of its.
            "stall_net_ms": min(seen["stall_net_ns"], gap) / 1e6,
            "guest_ms": gap / 1e6,
            "vcpu_delay_ms": seen["vcpu_delay_ns"] / 1e6,
            "observer_delay_ms": seen["observer_delay_ns"] / 1e6,
        })
        return told

    def note_speeds(self, move, before, usual):
        """How fast the guest wrote, of what it does otherwise, over all that
        it was looked at; and what it lost in pre-copy, in milliseconds of its
        usual speed, beside what it waited for a core."""
        move["speed"] = None
        if not before or not usual:
            return
        after = self.stats()
        move["speed"] = speed(before, after) / usual
        lost = (1 - move["speed"]) * (after["ms"] - before["ms"])
        move["lost_ms"] = lost - move["outside_ms"] - move["vcpu_delay_ms"]

    def set_beside_logging(self):
        """What the guest kept of its speed in pre-copy, beside what KVM's
        logging alone takes: the same guest, with rounds as long as these."""
        moves = [move for move in self.moves if "lost_ms" in move and
                 "round_ms" in move]
        if not moves:
            return
        rounds = [statistics.median(move["round_ms"][i] for move in moves
                                    if len(move["round_ms"]) > i)
                  for i in range(int(statistics.median(
                      len(move["round_ms"]) for move in moves)))]
        kept = calibrate.logged(self.cell, self.cores, rounds[:ROUNDS_MAX],
                                self.contender.hugepages)
        for move in moves:
            precopy = move["total_ms"] - move["downtime_ms"]
            logging = (1 - kept) * max(
                sum(move["round_ms"]) - move["vcpu_delay_ms"], 0)
            move["precopy_speed"] = min(
                1 - (move["lost_ms"] - logging) / precopy, 1)

    def fail(self, what, target):
        """The guest starts anew: how much of it is left is not known."""
        self.errors.append(what)
        self.observer.end()
        self.contender.end(target)
        self.contender.end(self.guest)
        self.guest = None
        if len(self.errors) < 3:
            self.boot()

    def quiet(self):
        return sum(move["quiet"] for move in self.moves)

    def done(self, moves, attempts):
        return (self.guest is None or self.quiet() >= moves or
                len(self.moves) + len(self.errors) >= attempts)

    def end(self):
        if self.guest:
            self.contender.end(self.guest)


def speed(before, after):
    """Pages the guest wrote in a millisecond, between two of its stats."""
    return ((after["pages_written"] - before["pages_written"]) /
            max(after["ms"] - before["ms"], 1))


@contextlib.contextmanager
def card_places(cell, contenders):
    """While in it, guests are where the cell's card has taps."""
    if not cell.card:
        yield
        return
    before = [contender.places for contender in contenders]
    with contextlib.ExitStack() as stack:
        try:
            for contender in contenders:
                contender.places = stack.enter_context(Network()).taps
            yield
        finally:
            for contender, places in zip(contenders, before):
                contender.places = places


def run_cell(cell, contenders, observer, cores, moves, tell, kind=Turn):
    """Measures a cell: moves quiet ones each, or half as many again in all."""
    turns = [kind(contender, cell, observer, cores)
             for contender in contenders]
    with card_places(cell, contenders):
        take_turns(cell, turns, moves, tell)
    for turn in turns:
        turn.set_beside_logging()
    return {turn.contender.label: result(turn, moves) for turn in turns}


def take_turns(cell, turns, moves, tell):
    attempts = moves + (moves + 1) // 2
    try:
        for turn in turns:
            turn.boot()
            turn.move(counted=False)  # memory is warm from here on
        while not all(turn.done(moves, attempts) for turn in turns):
            for turn in turns:
                if not turn.done(moves, attempts):
                    turn.move()
                tell(cell, turn)
    finally:
        for turn in turns:
            turn.end()


def result(turn, wanted):
    """The quiet moves; all of them when fewer than half were quiet."""
    quiet = [move for move in turn.moves if move["quiet"]]
    enough = len(quiet) * 2 >= wanted
    return {"moves": quiet[:wanted] if enough else turn.moves,
            "discarded": len(turn.moves) - len(quiet) if enough else 0,
            "loaded": 0 if enough else len(turn.moves) - len(quiet),
            "errors": turn.errors,
            "resident_bytes": turn.resident if turn.guest else None}
