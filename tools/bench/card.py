# SPDX-License-Identifier: MIT
"""What a network card costs: frames by guests/net, which drives virtio-net itself.

The card's tap is in a network namespace of ours. A program on the host asks the
guest, one question at a time, and the guest answers; or the guest sends, and a
bridge, in the kernel, sends back what comes: one frame at a time, for latency,
many small ones, for the rate, and large ones of TCP that nobody cuts, for the
bandwidth. What comes back has gone both ways. QEMU has no vhost: what is
compared are two programs that carry frames.
"""

import collections
import statistics
import subprocess

import goals
from network import Network
from vmm import MAC, Failed, in_child

SECONDS = 1
LARGE = 65535

Work = collections.namedtuple("Work", "name title key cmdline")
ANSWER = Work("answer", "latency when asked", "median_ns", "")
WORKS = [ANSWER] + [
    Work(name, title, key, f"bench=send bytes={size} depth={depth} "
         f"seconds={SECONDS}") for name, title, key, size, depth in (
             ("send", "latency when sent back", "median_ns", 64, 1),
             ("small", "rate of 64 B", "per_s", 64, 128),
             ("large", "bandwidth", "per_s", LARGE, 8))]


class Runner:
    """A VMM with a card: its runs so far, by work."""

    def __init__(self, contender):
        self.contender = contender
        self.label = contender.label.split()[0]
        self.found = {work.name: [] for work in WORKS}
        self.error = None

    def run(self, work, network):
        if self.error:
            return
        try:
            self.found[work.name].append(self._measure(work, network))
        except Failed as failure:
            self.error = f"{work.name}: {failure}"

    def _measure(self, work, network):
        place = network.taps[0] if work is ANSWER else network.mirror
        guest = self.contender.start_with("build/guests/net.elf", work.cmdline,
                                          64, [], place)
        try:
            guest.line("ready")
            line = (_asked(place) if work is ANSWER else
                    guest.line("bench ", 30 + SECONDS))
        finally:
            self.contender.end(guest)
        return {key: int(value) for key, value in
                (word.split("=") for word in line.split()[1:])}

    def median(self, name, key):
        values = [found[key] for found in self.found[name]]
        return statistics.median(values) if values else None


def _asked(place):
    done = subprocess.run(
        ["build/bench/asker", place.tap, MAC, str(SECONDS)], check=False,
        capture_output=True, text=True,
        preexec_fn=lambda: in_child(place.namespace))
    if done.returncode:
        raise Failed(done.stderr.strip())
    return done.stdout


def measure(contenders, runs, tell):
    """Returns a runner of each."""
    runners = [Runner(contender) for contender in contenders]
    with Network() as network:
        for turn in range(runs):
            for work in WORKS:
                for runner in runners:
                    tell(runner, work, turn)
                    runner.run(work, network)
    return runners


def figures(runners):
    return [{"vmm": runner.label, "error": runner.error, "runs": runner.found}
            for runner in runners]


def text(runners):
    """The table, and how they compare."""
    lines = ["card: frames by a tap; asked by a program on the host, or sent "
             "and sent back by a bridge",
             f"{'':<10}{'asked, µs':>19} {'sent, µs':>16} {'64 B':>10} "
             f"{'64 KiB':>10}",
             f"{'':<10}{'n':>3}{'median':>8}{'p99':>8} {'median':>8}{'p99':>8} "
             f"{'k/s':>10} {'MB/s':>10}"]
    for runner in runners:
        if runner.error or not runner.found[WORKS[-1].name]:
            lines.append(f"{runner.label:<10}  - {runner.error}")
            continue
        times = [runner.median(name, key) / 1e3 for name in ("answer", "send")
                 for key in ("median_ns", "p99_ns")]
        lines.append(
            f"{runner.label:<10}{len(runner.found['answer']):>3}"
            f"{times[0]:>8.1f}{times[1]:>8.1f} {times[2]:>8.1f}"
            f"{times[3]:>8.1f} {runner.median('small', 'per_s') / 1e3:>10.1f} "
            f"{runner.median('large', 'per_s') * LARGE / 1e6:>10.0f}")
    lines.append("  rates are each way, both at once")
    return "\n".join(lines + _ratios(runners)) + "\n"


def _ratios(runners):
    lines = []
    ours = runners[0]
    for theirs in runners[1:]:
        for work in WORKS:
            pair = [runner.median(work.name, work.key)
                    for runner in (ours, theirs)]
            if all(pair):
                lines.append("  goal: " + goals.card(
                    f"{work.title}, of {theirs.label}'s", pair[0] / pair[1],
                    work.key == "per_s"))
    return lines
