# SPDX-License-Identifier: MIT
"""make bench-links: moves over links that are slower than the guest.

A wire (wire.c) joins two network namespaces at a set rate and latency; a guest
is moved to and fro over it. One table goes through dirty rates from a tenth of
what the link carries to four times that, the other through latencies. QEMU has
auto-converge on and the same threshold. What a VMM does to the guest in order to
converge is the column speed: pages that the guest wrote from before the move
to after it, of what it writes otherwise.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys

import cells
import host
from vmm import Failed, Godwit, Place, Qemu, in_child
from watch import Gone, Observer

LINK_MB_S = 125  # a gigabit
TRIP_MS = 0.1
SET_MIB = 64
MEMORY_MIB = 256
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 2, 4)
LATENCY_SHARE = 0.5
# A pause holds round trips: on a long way no threshold of 10 ms can be kept.
LATENCIES = ((0.1, 10), (1, 10), (10, 50), (50, 200))

HEAD = f"""\
{'dirtied':>8}{'trip':>6}{'limit':>6}  {'':<8}{'n':>3} {'outside':>9}{'max':>9} \
{'total':>9} {'bytes':>7} {'speed':>6}"""
LEGEND = """\
dirtied  what the guest writes, of what the link carries
trip     there and back on the link; limit: the threshold asked for; ms
outside  the pause as a third process sees it, median and maximum; ms
total    the whole move, by the VMM itself; ms
bytes    sent, MB, by the VMM itself
speed    what the guest wrote in the move, of what it writes otherwise"""


class LinkTurn(cells.Turn):
    """A turn with a guest that is slow to come round."""

    settle_passes = 0


class Wire:
    """Two places, and a link between them."""

    def __init__(self, trip_ms):
        self.process = subprocess.Popen(
            ["build/bench/wire", str(LINK_MB_S), str(int(trip_ms * 500))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=in_child)
        if self.process.stdout.readline() != "ready\n":
            raise Failed("the link could not be made")
        self.places = tuple(
            Place(f"10.99.0.{1 + number}",
                  f"/proc/{self.process.pid}/fd/{10 + number}")
            for number in range(2))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def options():
    parser = argparse.ArgumentParser(
        prog="tools/bench/links.py", description="Measures moves over links "
        "of a set rate and latency, with godwit and, in turns, with QEMU.")
    parser.add_argument("--moves", type=int, default=5, metavar="N",
                        help="of each VMM in each line (5)")
    parser.add_argument("--only", choices=("rates", "latencies"),
                        help="this table")
    parser.add_argument("--no-qemu", action="store_true",
                        help="godwit alone")
    parser.add_argument("--json", metavar="FILE", help="all figures, too")
    return parser.parse_args()


def median(moves, key):
    values = [move[key] for move in moves if move[key] is not None]
    return statistics.median(values) if values else 0


def line(share, trip_ms, limit_ms, name, result):
    moves = result["moves"]
    start = f"{share:>6} × {trip_ms:>5}{limit_ms:>6}  {name:<8}"
    lines = [start + f"{len(moves):>3} " +
             (f"{median(moves, 'outside_ms'):9.2f}"
              f"{max(move['outside_ms'] for move in moves):9.2f} "
              f"{median(moves, 'total_ms'):9.0f} "
              f"{median(moves, 'bytes') / 1e6:7.0f} "
              f"{median(moves, 'speed'):6.0%}" if moves else "-")]
    lines += [f"{'':20}  {name}, failed: {error}"
              for error in result["errors"]]
    return "\n".join(lines)


def contenders(args, observer, cores, limit_ms):
    made = [Godwit(observer, cores, "build/godwit", limit_ms)]
    if not args.no_qemu and Qemu.version():
        made.append(Qemu(observer, cores, limit_ms))
        made[-1].auto_converge = True
    return made


def measure(args, observer, cores, share, trip_ms, limit_ms):
    """One line of a table for each VMM."""
    rate = share * LINK_MB_S
    cell = cells.Cell("link", "", "dirty",
                      f"mib={SET_MIB} rate={rate:.0f} {cells.DIRTY}",
                      MEMORY_MIB)
    made = contenders(args, observer, cores, limit_ms)
    wire = Wire(trip_ms)
    try:
        for contender in made:
            contender.places = wire.places
        results = cells.run_cell(cell, made, observer, cores, args.moves,
                                 lambda *_: None, LinkTurn)
    finally:
        for contender in made:
            contender.close()
        wire.close()
    for contender in made:
        print(line(share, trip_ms, limit_ms, contender.label.split()[0],
                   results[contender.label]), flush=True)
    return {"share": share, "trip_ms": trip_ms, "limit_ms": limit_ms,
            "results": results}


def run(args):
    cores = host.Cores()
    observer = Observer("build/bench/observer")
    lines = {"rates": [(share, TRIP_MS, 10) for share in SHARES],
             "latencies": [(LATENCY_SHARE, *way) for way in LATENCIES]}
    figures = {"qemu": Qemu.version(), "link_mb_s": LINK_MB_S}
    try:
        print(f"{MEMORY_MIB} MiB guest that writes {SET_MIB} MiB over and "
              f"over; the link carries {LINK_MB_S} MB/s\n{cores}\n")
        for name in lines:
            if args.only in (None, name):
                print(HEAD)
                figures[name] = [measure(args, observer, cores, *cell)
                                 for cell in lines[name]]
                print()
        print(LEGEND)
    finally:
        observer.close()
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=1)


def main():
    args = options()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    wrong = host.check_kvm()
    if wrong:
        sys.exit(f"tools/bench: {wrong}")
    if os.geteuid():
        sys.exit("tools/bench: network namespaces are root's to make: run "
                 "make bench-links as root")
    host.enter_session()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(args)
    except (Failed, Gone, RuntimeError) as failure:
        sys.exit(f"tools/bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("tools/bench: interrupted")


main()
