# SPDX-License-Identifier: MIT
"""Guests that are moved while hosts, processes and the network break.

A Fault is what breaks, and at which moment of a move: while memory is sent, at
any time; or at the record that ends a phase, which the network (network.py)
holds until it has struck, and then delivers or loses. Whatever breaks, exactly
one place has the guest afterwards, and its disk has what the guest was told is
there. Where godwit leaves the decision to a person, the one here goes by
what README says that he should go by, and by nothing that only a test knows.
"""

import collections
import itertools
import time

from guest import WORK_S, DiskGuest
from host import LabError
from vmm import (CUT, END_S, MOVE_S, MOVED, ROUNDS, SOURCE_DIES, STAYED,
                 TARGET_DIES, TARGET_ENDS, UNCERTAIN)

# Of a network cable that is pulled: on either side of the deadline for COMMIT,
# and shorter than leases, which last 10 s.
CUT_S = (0.5, 8)
# A guest that died with whoever had it.
LOST = "lost"

Fault = collections.namedtuple("Fault", "kind moment delivered")


def plan(times, vmm, chance):
    """The faults of a run.

    The moments come in turn, and at each moment all that can happen does before
    anything does again; the rest is chance's.
    """
    left = {moment: [] for moment in vmm.moments}
    faults = []
    for _, moment in zip(range(times), itertools.cycle(vmm.moments)):
        if not left[moment]:
            left[moment] = [Fault(kind, moment, delivered)
                            for kind in vmm.faults
                            for delivered in (False, True)]
            chance.shuffle(left[moment])
        faults.append(left[moment].pop())
    return faults


class EnduringGuest(DiskGuest):
    """A disk guest whose moves between a site's two hosts are disturbed."""

    def __init__(self, vmms, spec, name, site, path):
        super().__init__(vmms, spec, name, site.keeper, path)
        self._site = site
        self._span_s = 0.0

    def endure(self, times, chance, progress, tell):
        """Moves the guest and breaks something in each move.

        chance: the random.Random that chooses; tell: is told what happened.
        """
        self._say("work")
        self._prove_alive()
        if not self.moves:
            self._move(1, progress)
        # How long one takes that nothing disturbs.
        self._span_s = self.moves[-1].total_ms / 1000
        for number, fault in enumerate(plan(times, self.vmm, chance), 1):
            fate = self._disturbed(fault, chance)
            self._prove_alive()
            self._prove_alone()
            self._prove_disk()
            fortune = ("" if fault.moment == ROUNDS else ", which arrives"
                       if fault.delivered else ", which is lost")
            tell(f"fault {number}: {fault.kind} at {fault.moment}{fortune}: "
                 f"{fate}")
        self._ask("rest", "resting", WORK_S)
        self._ask("wake", "awake")
        self._ask("check", "checked")

    def _prove_alone(self):
        """godwit says of one process on the two hosts that it runs a guest."""
        running = [vmm.running() for vmm in self.vmms]
        here = self.vmms.index(self.machine.vmm)
        if running[here] is not None and (
                len(running[here]) != 1 or running[1 - here]):
            raise LabError(f"the guest is on host {here}, but these run: "
                           f"{running}")

    def _prove_disk(self):
        """Its file system is clean and has all lines, while it stands still."""
        self._ask("rest", "resting", WORK_S)
        self.judge_disk()
        self._ask("wake", "awake")
        self._say("work")

    def _disturbed(self, fault, chance):
        """One move with a fault in it; what became of the guest, in a word."""
        source = self.machine
        here = self.vmms.index(source.vmm)
        there = 1 - here
        victim = {SOURCE_DIES: here, TARGET_DIES: there, TARGET_ENDS: there,
                  CUT: chance.randrange(2)}[fault.kind]
        target = self.vmms[there].listen(self.spec, once=False)
        attempt = self._begin(fault, source, target, chance,
                              lambda: self._break(fault, victim, target))
        if fault.kind == SOURCE_DIES:
            fate = self._source_died(target)
        elif fault.kind == CUT:
            time.sleep(chance.uniform(*CUT_S))
            self._site.network.plug(victim, True)
            fate = self._cut_off(source, target, attempt)
        else:
            fate = self._target_died(fault, source, target, attempt)
        if fault.kind in (SOURCE_DIES, TARGET_DIES):
            # The VMM there is none of those that ran there before.
            self.vmms[victim].host = self._site.back(victim)
        if fate == LOST:
            self._start_over(there if fault.kind == SOURCE_DIES else here)
        return fate

    def _begin(self, fault, source, target, chance, strike):
        """Begins a move and strikes at the moment; what outcome() wants."""
        network = self._site.network
        if fault.moment == ROUNDS:
            attempt = source.vmm.begin(source, target)
            # Nothing is waited for: this is when lightning strikes.
            time.sleep(chance.uniform(0, self._span_s))
            strike()
            return attempt
        trap = network.set_trap(fault.moment,
                                int(target.address.rpartition(":")[2]))
        attempt = source.vmm.begin(source, target)
        self.host.wait(lambda: trap.sprung or attempt.command.over, MOVE_S,
                       fault.moment)
        if not trap.sprung:
            raise LabError(f"a move ended before its {fault.moment}: "
                           f"{attempt.command.errors}")
        if fault.delivered:
            network.release(trap, deliver=True)
        strike()
        if not fault.delivered:
            network.release(trap, deliver=False)
        return attempt

    def _break(self, fault, victim, target):
        if fault.kind == CUT:
            self._site.network.plug(victim, False)
        elif fault.kind == TARGET_ENDS:
            self._end(target)
        else:
            self._site.kill(victim)
            self._site.start(victim)

    @staticmethod
    def _end(target):
        target.console.signal(9)
        target.console.wait(END_S)

    def _source_died(self, target):
        # The guest speaks, or its target knows that it will not.
        vmm = target.vmm
        self._wait_at(target, lambda: self._said(target) or vmm.gave_up(target))
        if self._said(target):
            with self.host.changed:
                self.transcript.torn()
            self._follow(target)
            return MOVED
        self._end(target)
        return LOST

    def _target_died(self, fault, source, target, attempt):
        fate, words = source.vmm.outcome(attempt)
        if fate == UNCERTAIN:
            return self._decide(source, target, fault.kind == TARGET_ENDS)
        if fate == MOVED:
            self._left(source)
            return LOST
        self._still_runs(source, words)
        return fate

    def _decide(self, source, target, whole):
        """An operator decides, by what README says; what becomes of the guest.

        whole: all that the target's process has logged can still be read.
        """
        if whole and not source.vmm.took(target):
            source.vmm.resolve(source, "--resume")
            return STAYED
        source.vmm.resolve(source, "--discard")
        self._left(source)
        return LOST

    def _cut_off(self, source, target, attempt):
        fate, words = source.vmm.outcome(attempt)
        if fate == UNCERTAIN:
            # They can talk again, so it comes to an end by itself.
            before = len(source.console.output())
            self._wait_at(target, lambda: source.console.over or
                          len(source.console.output()) > before)
            fate = MOVED if source.console.over else STAYED
        if fate == MOVED:
            self._left(source)
            self._follow(target)
            return fate
        self._still_runs(source, words)
        self._wait_at(target, lambda: source.vmm.gave_up(target))
        self._end(target)
        if self._said(target):
            raise LabError(f"two ran: the guest stayed, but the target has it "
                           f"say {target.console.output()[:200]!r}")
        return fate

    @staticmethod
    def _said(target):
        """Its guest has said something there."""
        return len(target.console.output()) > target.prologue

    @staticmethod
    def _still_runs(source, words):
        if source.console.over:
            raise LabError(f"the guest is gone: its source exited with "
                           f"{source.console.status}; the move ended: {words}")

    @staticmethod
    def _wait_at(target, condition):
        target.console.host.wait(lambda: condition() or target.console.over,
                                 MOVE_S, "what the target says of the guest")

    def _start_over(self, number):
        """The guest died with who had it: its disk must have what it had."""
        with self.host.changed:
            self.transcript.crashed()
        count = len(self.transcript.boots) + 1
        self._follow(self.vmms[number].start(self.spec))
        self._booted(count)
        self._say("work")
