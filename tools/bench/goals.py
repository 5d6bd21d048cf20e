# SPDX-License-Identifier: MIT
"""What godwit sets itself, beside what was measured of it.

A goal that was missed is marked, and nothing more: how good a figure is depends
on the machine, too. Times are milliseconds.
"""

import os
import statistics

# Pause from outside: median, maximum.
PAUSE = {"idle": (0.6, 2), "slow": (1, 4), "fast": (3, 8), "full": (5, 10)}
# Whole move, of QEMU's.
TOTAL = {"null": 1, "idle": 0.5, "fast": 0.25}
ROUND_0 = {"filled": 0.6}  # of the raw socket
GAP_MS = 1
SPEED = 0.95
ROUND_MS = 1  # between two rounds, with 1 GiB
OFF_MS = 1
OVER = 0.01
# Beside the data: headers, and what says which pages are zero.
WIRE_SHARE = 1.01
WIRE_BYTES = 64 << 10  # a GiB of memory and round
FIXED_MS = (0.4, 0.15)  # and for each vCPU
SIZES = (("idle", "big"), ("slow", "wide"))  # 1 and 16 GiB
SIZES_APART = 0.2
# Of a network card, of QEMU's: less is better, or more.
CARD_LATENCY = 0.8
CARD_RATE = 1.2
CARDED_MS = 0.2  # what a card adds to an idle guest's pause


def beside(name, value, goal, at_least=False, digits=2):
    """'name 0.71 (goal ≤ 0.6, missed)'"""
    missed = value < goal if at_least else value > goal
    return (f"{name} {value:.{digits}f} (goal {'≥' if at_least else '≤'} "
            f"{goal:g}{', missed' if missed else ''})")


def card(name, ratio, is_rate):
    """What a network card does, of what the other VMM's does."""
    goal = CARD_RATE if is_rate else CARD_LATENCY
    return beside(name, ratio, goal, is_rate)


def median(moves, key):
    values = [move[key] for move in moves if move.get(key) is not None]
    return statistics.median(values) if values else None


def pause(cell, moves):
    if cell.name not in PAUSE:
        return []
    outside = [move["outside_ms"] for move in moves]
    goals = PAUSE[cell.name]
    return [beside("pause median", statistics.median(outside), goals[0]) +
            ", " + beside("max", max(outside), goals[1])]


def running(moves):
    """What the guest notices while it runs."""
    gaps = [move["stall_net_ms"] for move in moves]
    rest = [move["rest_net_ms"] for move in moves]
    words = [beside("gap outside the pause, less run_delay, median",
                    statistics.median(gaps), GAP_MS) + ", " +
             beside("max", max(gaps), GAP_MS) +
             f"; as long without a move: median {statistics.median(rest):.2f}"
             f", max {max(rest):.2f}"]
    speed = median(moves, "precopy_speed")
    if speed is not None:
        words.append(beside("throughput in pre-copy, net of what KVM's "
                            "logging alone takes", speed, SPEED, True))
    return words


def wire(cell, moves):
    """Bytes but for the boot image, of what may be sent."""
    image = os.path.getsize(f"build/guests/{cell.kernel}.elf")
    share = [(move["bytes"] - image) /
             (WIRE_SHARE * (move["data_pages"] << 12) +
              WIRE_BYTES * cell.memory_mib / 1024 * move["rounds"])
             for move in moves]
    return [beside("bytes without the boot image, of non-zero memory and what "
                   "is granted beside it", statistics.median(share), 1)]


def predictions(moves, limit_ms):
    off = sorted(abs(move["downtime_ms"] - move["predicted_ms"])
                 for move in moves)
    over = sum(move["downtime_ms"] > limit_ms for move in moves) / len(moves)
    return [beside("prediction off by, in 95 % of moves",
                   off[-1 - len(off) // 20], OFF_MS) + ", " +
            beside(f"share of moves over {limit_ms} ms", over, OVER)]


def cell_text(cell, results, contender, raw_mb_s):
    """The lines of one cell; none when nothing was measured."""
    moves = results[contender.label]["moves"]
    if not moves:
        return ""
    words = pause(cell, moves) + running(moves)
    words += predictions(moves, contender.downtime_ms)
    if cell.memory_mib == 1024:
        words.append(beside("between two rounds, median",
                            median(moves, "between_rounds_ms"), ROUND_MS))
    if cell.name in ("idle", "big"):
        words += wire(cell, moves)
    first = median(moves, "first_round_mb_s")
    if cell.name in ROUND_0 and first:
        words.append(beside("round 0, of the raw socket", first / raw_mb_s,
                            ROUND_0[cell.name], True))
    theirs = [result["moves"] for result in list(results.values())[1:2]]
    if cell.name in TOTAL and theirs and theirs[0]:
        words.append(beside("total, of QEMU's", median(moves, "total_ms") /
                            median(theirs[0], "total_ms"), TOTAL[cell.name]))
    return "".join(f"  goal: {word}\n" for word in words)


def across_text(cells, figures, label):
    """What only several cells together show."""
    lines = []
    ours = {name: results[label]["moves"] for name, results in figures.items()
            if results[label]["moves"]}
    for cell in cells:
        if cell.name not in ours or not cell.name.startswith("cpus"):
            continue
        goal = FIXED_MS[0] + FIXED_MS[1] * cell.cpus
        lines.append(beside(f"nothing dirty, {cell.cpus} vCPUs: pause median",
                            median(ours[cell.name], "outside_ms"), goal))
    for small, large in SIZES:
        if small in ours and large in ours:
            ratio = (median(ours[large], "outside_ms") /
                     median(ours[small], "outside_ms"))
            lines.append(beside(f"{large} ÷ {small}, 16 GiB ÷ 1 GiB: pause "
                                "median", ratio, 1 + SIZES_APART))
    if "idle" in ours and "carded" in ours:
        added = (median(ours["carded"], "outside_ms") -
                 median(ours["idle"], "outside_ms"))
        lines.append(beside("carded - idle, what a network card adds: pause "
                            "median", added, CARDED_MS))
    return "".join(f"goal: {line}\n" for line in lines)
