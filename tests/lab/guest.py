# SPDX-License-Identifier: MIT
"""A guest, whichever process it is in, and what is asked of it.

A Guest follows its console from VMM process to VMM process, on one host or
several, and feeds one Transcript. Its methods are the steps of a test: each one waits for what it
asked for, and raises LabError when the guest, the VMM or the transcript does
not do as it must.
"""

import collections
import re

from host import LabError
from transcript import Transcript, judge_lines
from vmm import END_S, MOVED

BOOT_S = 240
ANSWER_S = 90
# For a pass of fio, and one of stress-ng, on a busy emulator.
WORK_S = 240
FSCK_S = 120

RANDOM = re.compile("random [0-9a-f]{32}")
Move = collections.namedtuple("Move", "total_ms downtime_ms verify_ms "
                              "silence_ms")


class Guest:
    """One guest of one VMM; how it works and shows that it lives.

    vmms: the VMM on each host that it visits in turn, one for one host.
    """

    def __init__(self, vmms, spec, name):
        self.vmms = vmms
        self.vmm = vmms[0]
        self.spec = spec
        self.name = name
        self.transcript = Transcript()
        self.machines = []
        self.moves = []
        self.clock_lag_ms = None
        # Of guests that were here before: stories share a host.
        self._earlier = [len(vmm.captures) for vmm in vmms]
        self._next = None
        self._visited = 0
        self._pings = 0
        self._last_ns = 0
        self._silence_ns = 0

    @property
    def host(self):
        """The host that the guest is on now."""
        return self.machine.console.host if self.machines else self.vmm.host

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

    def _ask(self, line, answer, seconds=ANSWER_S):
        before = len(self.transcript.answers)
        self._say(line)
        self._wait(lambda: answer in self.transcript.answers[before:],
                   seconds, f"the answer to {line!r}")

    def _ping(self):
        self._pings += 1
        self._ask(f"ping {self._pings}", f"pong {self._pings}")

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

    def _listen(self):
        """Readies the next process that the guest is to run in."""
        self._visited += 1
        vmm = self.vmms[self._visited % len(self.vmms)]
        self._next = vmm.listen(self.spec)

    def _move(self, times, progress):
        """Moves it so often; the Report of the last one."""
        report = None
        if times and self._next is None:
            self._listen()
        for number in range(times):
            source, target = self.machine, self._next
            outcome, report = source.vmm.outcome(
                source.vmm.begin(source, target, captured=True))
            if outcome != MOVED:
                raise LabError(f"the move ended, {outcome}: {report}")
            self._left(source)
            self._follow(target)
            # The next target starts while this one proves itself.
            self._next = None
            if number + 1 < times:
                self._listen()
            self._prove_alive()
            # Two hosts have two clocks.
            silence = (self._silence_ns / 1e6 if source.vmm is target.vmm
                       else None)
            self.moves.append(Move(report.total_ms, report.downtime_ms,
                                   report.verify_ms, silence))
            progress(number + 1)
        return report

    @staticmethod
    def _left(source):
        status = source.console.wait(END_S)
        if status:
            raise LabError(f"the source exited with {status} after the move:"
                           f" {source.complaint()}")

    def _prove_alive(self):
        """Waits for what only a guest that is alive and well does."""
        raise NotImplementedError

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

    def check_streams(self):
        """Holds what its moves sent against FORMAT.md."""
        captures = [capture for vmm, earlier in zip(self.vmms, self._earlier)
                    for capture in vmm.captures[earlier:]]
        if len(captures) != len(self.moves):
            raise LabError(f"{len(captures)} captures of {len(self.moves)} "
                           "moves")
        for capture in captures:
            capture.check()

    def leave(self):
        """Ends what is left of it, whatever happened."""
        for machine in self.machines + [self._next]:
            if machine and not (machine.console.over
                                or machine.console.host.gone):
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

    def save_hosts(self, directory):
        """Writes what the kernels of the guest's hosts have to say."""
        for number, vmm in enumerate(self.vmms):
            try:
                _, said, _ = vmm.host.run(["dmesg"], ANSWER_S)
            except LabError as error:
                said = f"{error}\n"
            (directory / self.name / f"host-{number}.dmesg").write_text(said)


class CountingGuest(Guest):
    """A guest that counts, one counter a vCPU."""

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
        self._say(f"ping {self._pings}\nrandom")

        def alive():
            new = answers[answered:]
            return (pong in new
                    and any(RANDOM.fullmatch(a) for a in new)
                    and all(ticks.get(counter, 0) > before.get(counter, 0)
                            for counter in range(self.spec.cpus)))

        self._wait(alive, ANSWER_S, "console, all counters and virtio-rng")

    def count_and_move(self, times, progress):
        """Moves the guest while it counts; then the kernel is asked."""
        if self._next is None:
            self._listen()
        self._say("count")
        self._prove_alive()
        self._move(times, progress)
        self._ask("enough", "counted")
        self.clock_lag_ms = self.transcript.clock_lag_ms()
        self._ask("check", "checked")


class DiskGuest(Guest):
    """A guest with its root on a disk, which it works hard.

    keeper: the host that has the disk's image as a file of its own, at path.
    """

    def __init__(self, vmms, spec, name, keeper, path):
        super().__init__(vmms, spec, name)
        self._keeper = keeper
        self._path = path

    def _prove_alive(self):
        """It hears its console, and what it writes gets to its disk."""
        self._pings += 1
        pong = f"pong {self._pings}"
        with self.host.changed:
            written = self.transcript.written
            answered = len(self.transcript.answers)
        self._say(f"ping {self._pings}")
        self._wait(lambda: pong in self.transcript.answers[answered:]
                   and self.transcript.written > written + 1,
                   ANSWER_S, "console and writer")

    def work_and_move(self, times, progress):
        """Moves the guest while its disk and memory are written and verified."""
        self._say("work")
        self._prove_alive()
        self._move(times, progress)
        passed = self.transcript.passed
        self._wait(lambda: len(passed) == 2, WORK_S,
                   "fio and stress-ng to have verified something")
        self._ask("enough", "counted", WORK_S)
        self._ask("check", "checked")

    def judge_disk(self):
        """Looks at the disk of a guest that does not write to it now."""
        status, said, errors = self._keeper.run(
            ["fsck.ext4", "-f", "-n", self._path], FSCK_S)
        if status:
            raise LabError(f"fsck.ext4 found with status {status}: "
                           f"{(errors + said).strip()}")
        status, lines, errors = self._keeper.run(
            ["debugfs", "-R", "cat /var/lib/lines", self._path], FSCK_S)
        fault = judge_lines(lines.encode(), self.transcript.written)
        if status or fault:
            raise LabError(fault or errors)
