# SPDX-License-Identifier: MIT
"""A guest, whichever process it is in, and what is asked of it.

A Guest follows its console from VMM process to VMM process and feeds one
Transcript. Its methods are the steps of a test: each one waits for what it
asked for, and raises LabError when the guest, the VMM or the transcript does
not do as it must.
"""

import collections
import re

from host import LabError
from transcript import Transcript
from vmm import END_S

BOOT_S = 240
ANSWER_S = 90

RANDOM = re.compile("random [0-9a-f]{32}")
Move = collections.namedtuple("Move", "total_ms downtime_ms silence_ms")


class Guest:
    """One guest of one VMM."""

    def __init__(self, host, vmm, spec):
        self.host = host
        self.vmm = vmm
        self.spec = spec
        self.name = f"{vmm.name}-{spec.series}-x{spec.cpus}"
        self.transcript = Transcript()
        self.machines = []
        self.moves = []
        self.clock_lag_ms = None
        self._next = None
        self._pings = 0
        self._last_ns = 0
        self._silence_ns = 0

    @property
    def machine(self):
        """The machine that runs the guest now."""
        return self.machines[-1]

    def _follow(self, machine):
        self.machines.append(machine)
        left = machine.prologue
        first = True

        def arrived(piece):
            nonlocal left, first
            if piece is None:
                return
            data = piece.data[left:]
            left -= len(piece.data) - len(data)
            if not data:
                return
            if first:
                self._silence_ns = piece.time_ns - self._last_ns
                first = False
            self._last_ns = piece.time_ns
            self.transcript.feed(data, piece.time_ns)

        machine.console.watch(arrived)

    def _wait(self, condition, seconds, what):
        machine = self.machine
        try:
            self.host.wait(lambda: condition() or machine.console.over
                           or self.transcript.faults, seconds, what)
        except LabError as error:
            raise LabError(f"{error}; {self._tail()}") from None
        self.judge()
        if not condition():
            raise LabError(f"{machine.name} exited with "
                           f"{machine.console.status}, waiting for {what}; "
                           f"{machine.complaint()}; {self._tail()}")

    def _tail(self):
        tail = bytes(self.transcript.text[-200:])
        return f"the console ends with {tail!r}"

    def judge(self):
        """Raises what the transcript found so far."""
        with self.host.changed:
            faults = list(self.transcript.faults)
        if faults:
            more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
            raise LabError("; ".join(faults[:3]) + more)

    def _say(self, line):
        self.machine.console.write(line.encode() + b"\n")

    def _ask(self, line, answer):
        before = len(self.transcript.answers)
        self._say(line)
        self._wait(lambda: answer in self.transcript.answers[before:],
                   ANSWER_S, f"the answer to {line!r}")

    def _ping(self):
        self._pings += 1
        self._ask(f"ping {self._pings}", f"pong {self._pings}")

    def _prove_alive(self):
        """It hears its console, every counter counts, virtio-rng gives bytes.

        All at once: what is waited for was caused after this was called.
        """
        self._pings += 1
        pong = f"pong {self._pings}"
        answers, ticks = self.transcript.answers, self.transcript.ticks
        with self.host.changed:
            before, answered = dict(ticks), len(answers)
        # Without a device, the word would come alone.
        rng = self.vmm.has_rng
        self._say(f"ping {self._pings}" + ("\nrandom" if rng else ""))

        def alive():
            new = answers[answered:]
            return (pong in new
                    and (not rng or any(RANDOM.fullmatch(a) for a in new))
                    and all(ticks.get(counter, 0) > before.get(counter, 0)
                            for counter in range(self.spec.cpus)))

        self._wait(alive, ANSWER_S, "console and all counters" +
                   (" and virtio-rng" if rng else ""))

    def boot(self):
        """Starts a VMM and waits until the guest obeys."""
        self._follow(self.vmm.start(self.spec))
        self._booted(1)

    def _booted(self, count):
        boots = self.transcript.boots
        self._wait(lambda: len(boots) >= count, BOOT_S, "the guest to boot")
        release, cpus, clock, _ = boots[-1]
        if not release.startswith(self.spec.series + "."):
            raise LabError(f"it is {release} that booted")
        if int(cpus) != self.spec.cpus:
            raise LabError(f"the guest has {cpus} vCPUs")
        if clock != "kvm-clock":
            raise LabError(f"the guest's clock source is {clock}")
        self._ping()

    def count_and_move(self, times, progress):
        """Moves the guest while it counts; then the kernel is asked."""
        if self._next is None:
            self._next = self.vmm.listen(self.spec)
        self._say("count")
        self._prove_alive()
        for number in range(times):
            source, target = self.machine, self._next
            report = self.vmm.move(source, target)
            self._follow(target)
            # The next target starts while this one proves itself.
            if number + 1 < times:
                self._next = self.vmm.listen(self.spec)
            self._prove_alive()
            self.moves.append(Move(report.total_ms, report.downtime_ms,
                                   self._silence_ns / 1e6))
            progress(number + 1)
        self._ask("enough", "counted")
        self.clock_lag_ms = self.transcript.clock_lag_ms()
        self._ask("check", "checked")

    def reboot(self):
        """Reboots the guest and waits until it obeys again."""
        count = len(self.transcript.boots) + 1
        with self.host.changed:
            self.transcript.restarting()
        self._say("reboot")
        self._booted(count)
        self._ask("check", "checked")

    def power_off(self):
        """Powers the guest off; the VMM must exit with 0."""
        with self.host.changed:
            self.transcript.restarting()
        self._say("poweroff")
        self._ended()

    def press_power(self):
        """Presses the power button, at which the guest powers off."""
        self._ask("button", "listening")
        with self.host.changed:
            self.transcript.restarting()
        self.vmm.press_power(self.machine)
        self._ended()

    def _ended(self):
        machine = self.machine
        status = machine.console.wait(END_S)
        self.transcript.finish()
        self.judge()
        if status:
            raise LabError(f"{machine.name} exited with {status}: "
                           f"{machine.complaint()}")

    def leave(self):
        """Ends what is left of it, whatever happened."""
        for machine in self.machines + [self._next]:
            if machine and not machine.console.over:
                machine.console.signal(9)

    def save(self, directory):
        """Writes the console and each VMM's own words, to look at later."""
        directory /= self.name
        directory.mkdir(parents=True, exist_ok=True)
        with self.host.changed:
            (directory / "console").write_bytes(self.transcript.text)
            for machine in self.machines:
                (directory / f"{machine.name}.out").write_bytes(
                    machine.console.output())
                (directory / f"{machine.name}.err").write_bytes(
                    machine.console.errors)
