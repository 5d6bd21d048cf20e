# SPDX-License-Identifier: MIT
"""The figures as text. All times are milliseconds."""

import math
import statistics

HEAD = f"""\
{'':<14}{'':>3} {'outside':>14}{'net':>6} {'guest':>14} {'says':>6} {'said':>6} \
{'stall':>6} {'total':>7} {'speed':>6} {'MB/s':>5}
{'':<14}{'n':>3} {'median':>7}{'max':>7}{'max':>6} {'median':>7}{'max':>7} \
{'median':>6} {'before':>6} {'net max':>7}{'median':>7} {'median':>6} {'':>5}"""

LEGEND = """\
outside  last byte of the guest from one process to its first from the other,
         by the clock of a third; holds up to one beat (0.1 ms)
net      the same without the guest's waiting for a core
guest    the longest time that the guest saw between two looks at the clock,
         whatever made it wait, from before the move to after it
says     the pause, by the VMM itself; said before: what it had predicted
stall    the longest time between two beats in one and the same process, less
         the guest's waiting for a core, and no longer than guest says
total    the whole move, by the VMM itself
speed    pages that the guest wrote from before the move to after it, of what
         it writes otherwise; low when writing is slowed down by logging or
         on purpose, and when it stands still
n        moves that count. Discarded or marked are those under foreign load:
         over 1 % of the time, and over 4 ms, the vCPU waited for its core, or
         over 1 % of it the host gave our cores to another VM, or others had
         over 15 % of them and we go not before them; others had: the median
off      how far the pause was from what had been predicted, either way"""

TAIL_MOVES = 100  # from so many on a 99th percentile means something


def median(moves, key):
    values = [move[key] for move in moves if move[key] is not None]
    return statistics.median(values) if values else None


def worst(moves, key):
    return max(move[key] for move in moves)


def number(value, width, digits):
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def bandwidth(moves):
    rates = [move["bytes"] / move["total_ms"] / 1e3 for move in moves
             if move["total_ms"]]
    return statistics.median(rates) if rates else None


def line(label, result):
    moves = result["moves"]
    if not moves:
        return f"{label:<14}  0 {'; '.join(result['errors'])}"
    speed = median(moves, "speed")
    return "".join([
        f"{label:<14}{len(moves):>3} ",
        number(median(moves, "outside_ms"), 7, 2),
        number(worst(moves, "outside_ms"), 7, 2),
        number(worst(moves, "outside_net_ms"), 6, 1), " ",
        number(median(moves, "guest_ms"), 7, 2),
        number(worst(moves, "guest_ms"), 7, 2), " ",
        number(median(moves, "downtime_ms"), 6, 2), " ",
        number(median(moves, "predicted_ms"), 6, 2), " ",
        number(worst(moves, "stall_net_ms"), 6, 1), " ",
        number(median(moves, "total_ms"), 7, 1), " ",
        f"{'-':>6}" if speed is None else f"{speed:6.0%}", " ",
        number(bandwidth(moves), 5, 0)])


def remarks(result):
    others = median(result["moves"], "foreign") or 0
    words = [f"others had {others:.0%}"] if others > 0.02 else []
    if result["discarded"]:
        words.append(f"{result['discarded']} discarded")
    if result["loaded"]:
        words.append(f"{result['loaded']} under foreign load")
    if result["errors"]:
        words.append(f"{len(result['errors'])} failed")
    return words


def percentile(values, share):
    """The smallest value that so large a share does not exceed."""
    values = sorted(values)
    return values[max(math.ceil(len(values) * share) - 1, 0)]


def tail_text(label, moves):
    if len(moves) < TAIL_MOVES:
        return []
    words = [f"{name} {percentile([move[key] for move in moves], .99):.2f}"
             for name, key in (("outside", "outside_ms"),
                               ("net", "outside_net_ms"),
                               ("guest", "guest_ms"))]
    return [f"  {label}, p99: {', '.join(words)}"]


def engine_text(label, moves, limit_ms, raw_mb_s):
    """What only a VMM that tells its predictions and rounds can be asked."""
    moves = [move for move in moves if move["predicted_ms"] is not None]
    if not moves:
        return []
    off = percentile([abs(move["downtime_ms"] - move["predicted_ms"])
                      for move in moves], .95)
    over = sum(move["downtime_ms"] > limit_ms for move in moves)
    lines = [f"  {label}: off by {off:.2f} in 95 % of moves; {over} of "
             f"{len(moves)} over {limit_ms} ms"]
    first = median(moves, "first_round_mb_s")
    if first:
        lines[0] += (f"; round 0 {first:.0f} MB/s, {first / raw_mb_s:.2f} × "
                     "the raw socket")
    return lines


def ratios(results):
    """Lines that compare the first contender with each of the others."""
    labels = list(results)
    ours = results[labels[0]]["moves"]
    lines = []
    for label in labels[1:]:
        theirs = results[label]["moves"]
        if not ours or not theirs:
            continue
        words = []
        for name, key in (("outside", "outside_ms"), ("guest", "guest_ms"),
                          ("total", "total_ms")):
            ratio = median(ours, key) / max(median(theirs, key), 0.001)
            behind = " (behind)" if ratio > 1.05 else ""
            words.append(f"{name} {ratio:.2f}{behind}")
        lines.append(f"  ÷ {label}: " + ", ".join(words))
    return lines


def cell_text(cell, results, made, raw_mb_s):
    lines = [f"{cell.name}: {cell.title}", HEAD]
    lines += [line(label, result) for label, result in results.items()]
    lines += ratios(results)
    for contender in made:
        moves = results[contender.label]["moves"]
        lines += tail_text(contender.label, moves)
        lines += engine_text(contender.label, moves, contender.downtime_ms,
                             raw_mb_s)
    lines += [f"  {label}: {', '.join(remarks(result))}"
              for label, result in results.items() if remarks(result)]
    for label, result in results.items():
        lines += [f"  {label}, failed: {error}" for error in result["errors"]]
    return "\n".join(lines) + "\n"


def phases_text(moves):
    """Where godwit's pause went: the median of each phase."""
    moves = [move for move in moves if move["phases"]]
    if not moves:
        return ""
    names = list(moves[0]["phases"])
    return "  phases: " + " ".join(
        f"{name} {statistics.median(m['phases'][name] for m in moves):.2f}"
        for name in names) + "\n"


def calibration_text(figures):
    raw, spin = figures["socket"], figures["scheduler"]
    return (
        f"raw socket, both ends on one core: {raw['populated_mb_s']:.0f} MB/s "
        f"into memory that is there,\n  {raw['fresh_mb_s']:.0f} MB/s into "
        f"fresh memory; round trip {raw['round_trip_us']:.0f} µs\n"
        f"scheduler, a spinner alone on the vCPU's core for one second: "
        f"longest gap {spin['longest_us'] / 1e3:.2f} ms,\n"
        f"  gaps over 0.1 ms {spin['gaps_ms']:.1f} ms in all, of which it "
        f"waited {spin['run_delay_ms']:.1f} ms for its core\n")


def start_text(starts):
    lines = ["start: fork to the first byte of guest hello, 64 MiB"]
    lines += [f"{label:<15} median {ms['median']:.1f} max {ms['max']:.1f}"
              for label, ms in starts.items()]
    values = list(starts.values())
    if len(values) > 1:
        lines.append(f"  ratio {values[0]['median'] / values[1]['median']:.2f}")
    return "\n".join(lines) + "\n"


def resident_text(cells):
    """PSS beside guest memory, once the guest runs."""
    lines = ["memory: PSS beside the guest's own, MiB, right after boot"]
    for name, results in cells.items():
        sizes = [f"{label} {result['resident_bytes'] / 2**20:.1f}"
                 for label, result in results.items()
                 if result["resident_bytes"] is not None]
        lines.append(f"{name:<15} {', '.join(sizes)}")
    return "\n".join(lines) + "\n"
