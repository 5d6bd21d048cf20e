# SPDX-License-Identifier: MIT
"""What the machine does without a migration, taken in the same run."""

import os
import statistics
import subprocess

PROBE = "build/bench/probe"
LOGGED = "build/bench/logged"


def _run(command, cores=None):
    """What a program prints on its line of key=value words."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return {key: float(value) for key, value in
            (word.split("=") for word in done.stdout.split())}


def _probe(*words, cores=None):
    return _run([PROBE, *words], cores)


def raw_socket(mib=512, times=3):
    """Loopback TCP between two processes, placed as VMMs are: the best of."""
    runs = [_probe("socket", str(mib)) for _ in range(times)]
    return {key: (min if key.endswith("_us") else max)(
        run[key] for run in runs) for key in runs[0]}


def scheduler(cores, milliseconds=1000):
    """Gaps that a thread sees which only looks at the clock."""
    cpu = -1 if cores.vcpu is None else cores.vcpu
    return _probe("spin", str(cpu), str(milliseconds))


def logged(cell, cores, round_ms, hugepages, times=3):
    """How fast a guest writes while KVM logs its writes, of what it writes else.

    round_ms: how long each round of reading and clearing the log takes.
    """
    memory = f"{cell.memory_mib}{',hugepages' if hugepages else ''}"
    places = [str(-1 if core is None else core)
              for core in (cores.rest, cores.vcpu)]
    kept = []
    for _ in range(times):
        speeds = _run([LOGGED, *places, memory,
                       f"build/guests/{cell.kernel}.elf", cell.cmdline,
                       *(f"{ms:.3f}" for ms in round_ms)])
        kept.append(speeds["logged"] / speeds["free"])
    return statistics.median(kept)


def start_times(contenders, runs):
    """Fork to the guest's first byte, in turns: label to milliseconds."""
    times = {contender.label: [] for contender in contenders}
    everywhere = set(range(os.cpu_count()))
    for _ in range(runs + 1):
        for contender in contenders:
            command = contender.command("build/guests/hello.elf", "spin=yes",
                                        64)
            times[contender.label].append(_probe(
                "start", *command, cores=everywhere)["first_byte_ms"])
    return {label: {"median": statistics.median(ms[1:]), "max": max(ms[1:]),
                    "all": ms[1:]} for label, ms in times.items()}
