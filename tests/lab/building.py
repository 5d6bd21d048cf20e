# SPDX-License-Identifier: MIT
"""A guest that builds something big, and what becomes of the memory of that.

init/build is the build. At its most it has MOST of the guest's memory, half of
it as files; its end removes these, too. As the guest's kernel reports whole
blocks of that free, they go back to the host, and need not be sent when the
guest moves. Without a balloon's driver they stay, and are.

What the kernel caches is not free. For that it has to be asked.
"""

import time

from guest import ANSWER_S, WORK_S, DiskGuest
from host import LabError

MOST = 0.6
# Each job leaves an object, which is there twice at the end: as a file, and in
# the process that makes one of all of them.
JOB_MIB = 2 * 4
# Of what a build took, so much may stay away: what it kept, the file system's
# own, and what lies in blocks with pages that are in use.
STAYS = 0.5
BACK_S = 60
# Of what the guest is asked for, so much is seen to go. The host backs memory in
# huge pages: with a page that is in use, those around it come back.
GIVES = 0.25
# What is too little to be seen.
FEW_MIB = 16


class BuildingGuest(DiskGuest):
    """A guest that builds, on one host."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.resident = {}      # when -> MiB that its process had
        self.sent = {}          # with what driver -> Report of a move
        self._bound_mib = 0     # of what is left when a build has ended

    def _prove_alive(self):
        """It hears its console, and memory that it kept is as it was."""
        self._ping()
        self._ask("keep", "kept")

    def _look(self, when):
        machine = self.machine
        self.resident[when] = machine.vmm.resident_mib(machine)
        return self.resident[when]

    def _fall(self, when, bound):
        """Waits until its process has no more than so many MiB."""
        end = time.monotonic() + BACK_S
        while self._look(when) > bound:
            if time.monotonic() > end:
                raise LabError(
                    f"{when}, {self.resident[when]:.0f} MiB are in use, and "
                    f"not {bound:.0f} as they should after {BACK_S} s")

    def _build(self):
        """Builds; at its most its process has so many MiB."""
        jobs = int(MOST * self.spec.memory / JOB_MIB)
        self._ask(f"build {jobs}", "built", WORK_S)
        most = self._look("at its most")
        self._ask("clean", "cleaned", WORK_S)
        return most

    def build(self):
        """Builds; in the end the host has the memory of it again."""
        before = self._look("before a build")
        took = self._build() - before
        if took < MOST / 2 * self.spec.memory:
            raise LabError(f"a build took {took:.0f} MiB")
        self._bound_mib = before + STAYS * took
        self._fall("when it has ended", self._bound_mib)
        self._prove_alive()

    def _sent_mib(self, driver, progress):
        self.sent[driver] = self._move(1, progress)
        return self.sent[driver].bytes / (1 << 20)

    def move_what_is_left(self, progress):
        """Moves it; what went back to the host is not sent."""
        sent = self._sent_mib("a balloon", progress)
        if sent > self._bound_mib:
            raise LabError(f"{sent:.0f} MiB were sent, and not "
                           f"{self._bound_mib:.0f}")

    def move_all(self, progress):
        """Builds again, without a driver, and is moved: all of it is sent."""
        self._ask("unbind", "unbound")
        most = self._build()
        sent = self._sent_mib("no balloon", progress)
        self._ask("bind", "bound")
        if sent < self._bound_mib or self.sent["no balloon"].hinted:
            raise LabError(f"{sent:.0f} MiB of {most:.0f} were sent, and "
                           f"{self.sent['no balloon'].hinted} pages hinted")

    def resize(self):
        """Gives back half of what caches files, when asked; then it has all."""
        before = self._look("moved")
        self._ask("cache", "cached", WORK_S)
        cached = self._look("files cached")
        keeps = int(before + cached) // 2
        if cached < keeps + FEW_MIB:
            raise LabError(f"files made {cached:.0f} MiB of {before:.0f}")
        self._set_memory(keeps)
        self._fall(f"asked to keep {keeps} MiB",
                   cached - GIVES * (cached - keeps))
        self._prove_alive()
        self._set_memory(self.spec.memory)
        self._prove_alive()
        self._ask("check", "checked")

    def _set_memory(self, mib):
        vmm, name = self.machine.vmm, self.machine.name
        vmm.set(name, "memory", f"{mib}M")
        end = time.monotonic() + ANSWER_S
        while (has := vmm.status(name)["actual-memory"]) != mib << 20:
            if time.monotonic() > end:
                raise LabError(f"asked to have {mib} MiB, it has {has} bytes "
                               f"after {ANSWER_S} s")

    def report(self, say):
        """Prints what was seen."""
        say(f"A Debian guest of {self.spec.memory} MiB, and a build. MiB of "
            "the host's that are in use:")
        for when, mib in self.resident.items():
            say(f"{when:>31}{mib:>16.0f}")
        for driver, report in self.sent.items():
            verified = report.verify_ms or 0
            say(f"{'moved, with ' + driver:>31}"
                f"{report.bytes / (1 << 20):>16.0f} sent, "
                f"{report.hinted / 256:.0f} more hinted to be free, "
                f"{report.total_ms - verified:.0f} ms")
        say("")
