# SPDX-License-Identifier: MIT
"""What a guest's console and its disk must look like: the lab's judge.

A Transcript takes the bytes of a console, those of a moved guest one VMM
after the other, and holds every line against what init/guest and init/server
say they print.
Whatever does not fit is a fault, in words. No VM is needed to judge: the
selftest feeds doctored transcripts.
"""

import re

# In the emulated host, the emulator's own doing: QEMU's guests see it too. Its
# vCPUs do not run while its own host is busy, and its TSC is not calibrated.
EXCUSED = re.compile(r"Marking TSC unstable|Marking clocksource 'tsc' as"
                     r"|hrtimer: interrupt took"
                     r"|clocksource: .*(tsc|watchdog)"
                     r"|tsc: Fast TSC calibration failed")
# While a kernel boots it warns about much that is none of the VMM's business;
# these are never fine.
ALARM = re.compile(r"WARNING:|BUG:|Oops|Call Trace|Kernel panic|lockup"
                   r"|rcu.*(stall|detected)|blocked for more than"
                   r"|general protection|unchecked MSR|nobody cared"
                   r"|ACPI (BIOS )?(Error|Warning)|Firmware Bug"
                   r"|double fault|Hardware Error|clocksource.*unstable")

TICK = re.compile(r"tick (\d+) (\d+) (\d{16}) (\d{10}) (\d+) (\d+)\.")
READY = re.compile(r"ready (\S+) cpus=(\d+) clock=(\S+) boot=([0-9a-f-]{36})")
FOUND = re.compile(r"found (\d+)")
WROTE = re.compile(r"wrote (\d+)")
PASSED = re.compile(r"passed (fio|stress-ng) (\d+)")
ANSWER = re.compile(r"(?:pong \d+|counted|checked|resting|awake|listening"
                    r"|silent|speaking|serving|heard \d+|typed \d+"
                    r"|leased [0-9.]+"
                    r"|built|cleaned|cached|kept|bound|unbound"
                    r"|random(?: [0-9a-f]{32})?)")


class Transcript:
    """One guest's console, from its first byte to its last."""

    def __init__(self):
        self.text = bytearray()
        self.faults = []
        self.boots = []         # (release, vCPUs, clock source, boot id)
        self.answers = []
        self.ticks = {}         # counter -> how many lines, ever
        self.written = 0        # the last line that the guest said is safe
        self.passed = {}        # fio, stress-ng -> verified passes, ever
        self.clock = []         # (arrival in ns, time in us) of two lines
        self._last = {}         # counter -> the last line's values
        self._line = bytearray()
        self._arrival_ns = 0
        # Some of the console's bytes never got here.
        self._torn = False
        self.panics = False     # until it has booted again
        # In these times the kernel and firmware may print what they like.
        self._free = True

    def feed(self, data, arrival_ns=0):
        """Takes the next bytes, and when they came."""
        self.text += data
        self._arrival_ns = arrival_ns
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._judge(self._line.decode(errors="backslashreplace"))
            self._line.clear()
        self._line += rest

    def restarting(self):
        """The guest was told to reboot or to power off."""
        self._free = True
        self._last.clear()

    def panicking(self):
        """The guest was told to panic, and will say what it likes of that."""
        self.panics = True
        self.restarting()

    def crashed(self):
        """The guest died with its host, in the middle of anything."""
        self._line.clear()
        self.restarting()

    def torn(self):
        """The guest lives on, but its host died: its last words are lost."""
        self._line.clear()
        self._torn = True

    def finish(self):
        """There is no more; all faults."""
        if self._line and not self._free:
            self._fault(f"half a line at the end: {bytes(self._line)!r}")
        return self.faults

    def _fault(self, text):
        self.faults.append(text)

    def _judge(self, line):
        if self._torn:
            # The rest of a line; then numbers, but not where they left off.
            match = WROTE.fullmatch(line)
            if match and int(match[1]) > self.written:
                self.written = int(match[1])
                self._torn = False
        elif line.startswith("log "):
            self._judge_log(line[4:])
        elif match := READY.fullmatch(line):
            self._judge_ready(match.groups())
        elif self._free and self.panics:
            pass
        elif self._free:
            if ALARM.search(line) and not EXCUSED.search(line):
                self._fault(f"the kernel says: {line.strip()}")
        elif match := TICK.fullmatch(line):
            self._judge_tick(*map(int, match.groups()))
        elif match := WROTE.fullmatch(line):
            self._judge_wrote(int(match[1]))
        elif match := FOUND.fullmatch(line):
            self._judge_found(int(match[1]))
        elif match := PASSED.fullmatch(line):
            self.passed[match[1]] = self.passed.get(match[1], 0) + 1
        elif line.startswith("bad "):
            self._fault(f"the guest found its disk, memory or card {line}")
        elif ANSWER.fullmatch(line):
            self.answers.append(line)
            if line == "counted":
                self._last.clear()
        elif line.startswith("back "):
            self._fault(f"the guest says that a clock stepped {line}")
        else:
            self._fault(f"not a line of the guest's: {line!r}")

    def _judge_log(self, line):
        # Booted, a guest has no reason for any warning at all.
        alarming = ALARM.search(line) if self._free else True
        if alarming and not EXCUSED.search(line):
            self._fault(f"the kernel warns: {line}")

    def _judge_ready(self, boot):
        if not self._free:
            self._fault("the guest booted again, unasked")
        if boot[3] in [earlier[3] for earlier in self.boots]:
            self._fault("two boots with one boot id")
        self.boots.append(boot)
        self._last.clear()
        self._free = self.panics = False

    def _judge_tick(self, counter, number, time, date, uptime, again):
        before, time_before, date_before, up_before = self._last.get(
            counter, (-1, 0, 0, 0))
        name = f"counter {counter}"
        if number != again:
            self._fault(f"{name}: a line begins as {number}, ends as {again}")
        if number <= before:
            self._fault(f"{name}: line {number} after {before}: doubled")
        elif number != before + 1:
            self._fault(f"{name}: line {number} after {before}: lost")
        if time < time_before:
            self._fault(f"{name}: time stepped back by "
                        f"{time_before - time} us at line {number}")
        # date may lag behind time, by what is left since a timer's tick:
        # time(2) does not read the clock source.
        if date < date_before:
            self._fault(f"{name}: date stepped back by "
                        f"{date_before - date} s at line {number}")
        if uptime < up_before:
            self._fault(f"{name}: uptime stepped back by "
                        f"{up_before - uptime}0 ms at line {number}")
        # date is read after time: the next time must not be before either.
        self._last[counter] = (number, max(time, date * 1000000), date,
                               uptime)
        self.ticks[counter] = self.ticks.get(counter, 0) + 1
        self.clock[1:] = [(self._arrival_ns, time)]

    def _judge_found(self, number):
        # What was said to be safe is; one more may have been on its way.
        if number < self.written:
            self._fault(f"{number} lines on the disk, but {self.written} were "
                        "acknowledged: lost")
        self.written = number

    def _judge_wrote(self, number):
        if number != self.written + 1:
            self._fault(f"line {number} written after {self.written}: "
                        f"{'lost' if number > self.written else 'doubled'}")
        self.written = number

    def clock_lag_ms(self):
        """By how much the guest's clock fell behind while it counted."""
        if len(self.clock) < 2:
            return 0.0
        (arrival, time), (arrival_last, time_last) = self.clock
        return (arrival_last - arrival) / 1e6 - (time_last - time) / 1e3


def judge_lines(data, written):
    """What is wrong with the file of numbered lines from a disk, or None.

    data: the file; written: the last line that the guest said is safe.
    """
    lines = data.decode(errors="backslashreplace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if line != f"{number:015d}\n":
            return f"line {number} on the disk is {line!r}"
    if len(lines) < written:
        return f"{len(lines)} lines on the disk, but {written} acknowledged"
    return None
