# SPDX-License-Identifier: MIT
"""Boots a guest and moves it, live, again and again; every pause in a table.

The guest (guests/heartbeat.c) does nothing but look at the clock. The longest
time between two looks, while it was moved, is its own word on the pause, and
does not depend on what godwit says about itself.
"""

import os
import signal
import statistics
import sys

import host
from vmm import Failed, Godwit
from watch import Gone, Observer

PAUSE = ("stop", "save", "sync", "final", "loaded", "commit")
MEMORY_MIB = 256
BUSY = 0.1
TITLE = f"""\
A guest of {MEMORY_MIB} MiB, moved live over loopback TCP, each time into a \
process of
its own. All times are milliseconds; a pause may take 10.
"""
LEGEND = """
stop    its CPUs and devices stop      final   the last pages and the state go
save    its state is read              loaded  the target has loaded them
sync    the last dirty pages are found commit  it is handed over, and runs
pause   all of these                   guest   the longest gap the guest saw
"""


def head():
    names = "".join(f"{name:>7}" for name in PAUSE)
    return f"move{names} |{'pause':>7}{'predicted':>10}{'guest':>7}{'total':>8}"


def row(first, phases, pause, predicted, gap, total):
    cells = "".join(f"{value:7.2f}" for value in phases)
    return (f"{first:>4}{cells} |{pause:7.2f}{predicted:10.2f}{gap:7.2f}"
            f"{total:8.1f}")


class Demo:
    """One guest, and all that is told about its moves."""

    def __init__(self, contender, color):
        self.contender = contender
        self.bold, self.plain = ("\033[1m", "\033[0m") if color else ("", "")
        self.rows = []

    def start(self):
        guest = self.contender.start("build/guests/heartbeat.elf", "",
                                     MEMORY_MIB)
        guest.line("heartbeat:")
        return guest

    def move(self, guest):
        """Moves once. Returns the process that holds the guest now."""
        target = self.contender.receive(guest)
        guest.ask(b"g", "gap ")
        told = self.contender.move(guest, target)
        gap = target.ask(b"g", "gap ")["tsc_ns"] / 1e6
        self.contender.end(guest)
        self.rows.append([[told["phases"][name] for name in PAUSE],
                          told["downtime_ms"], told["predicted_ms"], gap,
                          told["total_ms"]])
        print(row(len(self.rows), *self.rows[-1]), flush=True)
        return target

    def summary(self, name, pick):
        phases, *rest = zip(*self.rows)
        print(self.bold + row(name, [pick(column) for column in zip(*phases)],
                              *map(pick, rest)) + self.plain)

    def run(self, moves):
        print(TITLE)
        print(self.bold + head() + self.plain, flush=True)
        guest = self.start()
        load = host.Load(self.contender.cores, self.pids())
        for _ in range(moves):
            guest = self.move(guest)
        print("-" * len(head()))
        self.summary("med", statistics.median)
        self.summary("max", max)
        print(LEGEND.rstrip())
        foreign, _ = load.foreign(self.pids())
        if foreign > BUSY:
            print(f"\nOther programs took {foreign:.0%} of this machine "
                  "meanwhile: these pauses include waiting\nfor a core. On a "
                  "quiet machine they are shorter.")

    def pids(self):
        return ([guest.pid for guest in self.contender.guests] +
                [self.contender.observer.process.pid])


def main():
    if sys.argv[2:] or not all(word.isdigit() for word in sys.argv[1:]):
        sys.exit("usage: tools/demo [MOVES]")
    moves = int(sys.argv[1]) if sys.argv[1:] else 10
    wrong = host.check_kvm()
    if wrong:
        sys.exit(f"tools/demo: {wrong}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    observer = Observer("build/bench/observer")
    contender = Godwit(observer, host.Cores(pin=False, first=False), "build/godwit")
    try:
        Demo(contender, color).run(moves)
    except (Failed, Gone) as failure:
        sys.exit(f"tools/demo: {failure}")
    except KeyboardInterrupt:
        sys.exit("tools/demo: interrupted")
    finally:
        contender.close()
        observer.close()


main()
