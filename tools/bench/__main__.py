# SPDX-License-Identifier: MIT
"""make bench: what a move costs, and what it costs QEMU in the same run.

Everything that is compared is taken in one run, in turns, on the same cores,
with memory warm: see cells.py for a move, calibrate.py for the yardsticks.
Nothing is asserted. Where godwit is behind, the line says so.
"""

import argparse
import json
import os
import platform
import signal
import sys

import calibrate
import card
import cells
import disk
import goals
import host
import network
import report
from vmm import Failed, Godwit, Qemu
from watch import Gone, Observer

DEFAULT_QEMU_MS = 300
DISK = "disk"
CARD = "card"


def options():
    names = [cell.name for cell in cells.CELLS] + [DISK, CARD]
    parser = argparse.ArgumentParser(
        prog="tools/bench", description="Measures moves of tiny guests with "
        "godwit and, in turns, with QEMU.",
        epilog="Cells: " + "; ".join(f"{cell.name}: {cell.title}"
                                     for cell in cells.CELLS) +
        f"; {DISK}: 4 KiB reads from a disk, no moves; {CARD}: frames of a "
        "network card, no moves")
    parser.add_argument("--moves", type=int, default=10, metavar="N",
                        help="of each VMM in each cell (10)")
    parser.add_argument("--only", action="append", choices=names,
                        metavar="CELL", help="this cell; may be repeated")
    parser.add_argument("--quick", action="store_true",
                        help="3 moves, QEMU only with 10 ms")
    parser.add_argument("--no-qemu", action="store_true",
                        help="godwit alone")
    parser.add_argument("--no-pin", action="store_true",
                        help="leave the placing of threads to the scheduler")
    parser.add_argument("--hugepages", action="store_true",
                        help="guests' memory is huge pages that this machine "
                        "has reserved: they stay its own where it is a VM "
                        "itself, and its host takes back what is free")
    parser.add_argument("--json", metavar="FILE", help="all figures, too")
    return parser.parse_args()


def contenders(args, observer, cores):
    pages = {"hugepages": args.hugepages}
    made = [Godwit(observer, cores, "build/godwit", **pages)]
    if not args.no_qemu and Qemu.version():
        made.append(Qemu(observer, cores, 10, **pages))
        if not args.quick:
            made.append(Qemu(observer, cores, DEFAULT_QEMU_MS, **pages))
    return made


def machine(cores, observer):
    return {"cpu": host.cpu_model(), "cores": cores.count,
            "backend": host.kvm_backend(), "kernel": platform.release(),
            "pinning": str(cores), "realtime_observer": observer.realtime,
            "load_average": os.getloadavg()[0], "qemu": Qemu.version()}


def print_machine(args, facts):
    print(f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, "
          f"{facts['backend']}; load average {facts['load_average']:.1f}")
    print(facts["pinning"])
    if not facts["realtime_observer"]:
        print("the observer has no real-time priority (run as root): what is "
              "seen from outside\n  may hold time that it waited for a core")
    if args.hugepages:
        print("guests' memory is reserved huge pages")
    if args.no_qemu:
        print("QEMU is left out")
    else:
        print(facts["qemu"] or "QEMU is not installed: nothing to compare "
              "with; 'tools/setup bench' installs it")
    print()


def progress(cell, turn):
    if sys.stderr.isatty():
        print(f"\r\033[K{cell.name}: {turn.contender.label}: "
              f"{len(turn.moves)} moves", end="", file=sys.stderr)


def disk_progress(place, runner, turn):
    if sys.stderr.isatty():
        print(f"\r\033[K{place.name}: {runner.label}, {runner.variant.name}: "
              f"run {turn + 1}", end="", file=sys.stderr)


def card_progress(runner, work, turn):
    if sys.stderr.isatty():
        print(f"\r\033[K{CARD}: {runner.label}, {work.name}: run {turn + 1}",
              end="", file=sys.stderr)


def measure(args, observer, cores, made, figures):
    """Fills figures as it goes, so that an interrupted run has some."""
    figures["socket"] = calibrate.raw_socket()
    figures["scheduler"] = calibrate.scheduler(cores)
    print(report.calibration_text(figures), flush=True)
    moves = 3 if args.quick else args.moves
    for cell in cells.CELLS:
        if args.only and cell.name not in args.only:
            continue
        if cell.card and network.missing():
            print(f"{cell.name}: skipped: {network.missing()}\n")
            continue
        results = cells.run_cell(cell, made, observer, cores, moves, progress)
        figures["cells"][cell.name] = results
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(report.cell_text(cell, results, made,
                               figures["socket"]["populated_mb_s"]) +
              report.phases_text(results[made[0].label]["moves"]) +
              goals.cell_text(cell, results, made[0],
                              figures["socket"]["populated_mb_s"]), flush=True)
    if not args.only or DISK in args.only:
        measure_disks(made, max(moves // 3, 1), figures)
    if not args.only or CARD in args.only:
        measure_cards(made, max(moves // 3, 1), figures)
    if not args.only:
        figures["start"] = calibrate.start_times(made[:2], moves)
        print(report.start_text(figures["start"]))
    print(goals.across_text(cells.CELLS, figures["cells"], made[0].label))
    if figures["cells"]:
        print(report.resident_text(figures["cells"]))
        print(report.LEGEND)


def measure_disks(made, runs, figures):
    pairs = list(zip(made, (disk.GODWIT, disk.QEMU)))
    figures["disk"] = {}
    for place, runners in disk.measure(pairs, runs, disk_progress):
        figures["disk"][place.name] = disk.figures(runners)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        print(disk.text(place, runners), flush=True)


def measure_cards(made, runs, figures):
    if network.missing():
        print(f"{CARD}: skipped: {network.missing()}\n")
        return
    runners = card.measure(made[:2], runs, card_progress)
    figures["card"] = card.figures(runners)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(card.text(runners), flush=True)


def run(args):
    cores = host.Cores(pin=not args.no_pin)
    observer = Observer("build/bench/observer")
    made = contenders(args, observer, cores)
    figures = {"machine": machine(cores, observer), "cells": {}}
    print_machine(args, figures["machine"])
    try:
        measure(args, observer, cores, made, figures)
    finally:
        for contender in made:
            contender.close()
        observer.close()
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=1)


def main():
    args = options()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    if args.json:
        args.json = os.path.abspath(args.json)
    wrong = host.check_kvm()
    if wrong:
        sys.exit(f"tools/bench: {wrong}")
    host.enter_session()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(args)
    except (Failed, Gone, RuntimeError) as failure:
        sys.exit(f"tools/bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("tools/bench: interrupted")
    except BrokenPipeError:
        os._exit(1)


main()
