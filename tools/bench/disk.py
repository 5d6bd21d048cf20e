# SPDX-License-Identifier: MIT
"""What a disk costs: 4 KiB reads by guests/blk, which drives virtio-blk itself.

The guest reads at random places with one request at a time, for latency, and
with 32, for the rate. Its image lies on a tmpfs and on a disk's filesystem,
in the page cache unless a variant reads past it. Both VMMs are run in turns,
each in all of its variants; the best of each is what is compared.
"""

import collections
import contextlib
import os
import shutil
import statistics
import tempfile

from vmm import Failed

IMAGE_MIB = 256
SECONDS = 1
DEPTHS = (1, 32)

Place = collections.namedtuple("Place", "name directory title")
PLACES = [
    Place("tmpfs", "/dev/shm", "image on a tmpfs"),
    Place("file", "build/bench", "image on a disk's filesystem"),
]

Variant = collections.namedtuple("Variant", "name arguments")
GODWIT = [
    Variant("buffered", lambda image: ["--disk", image]),
    Variant("direct", lambda image: ["--disk", f"{image},direct"]),
]


def _qemu(cache, aio):
    return Variant(f"{cache} {aio}", lambda image: [
        "-object", "iothread,id=io", "-drive",
        f"if=none,id=d,format=raw,file={image},cache={cache},aio={aio}",
        "-device", "virtio-blk-pci,drive=d,iothread=io,disable-legacy=on"])


QEMU = [_qemu("writeback", "threads"), _qemu("writeback", "io_uring"),
        _qemu("none", "native"), _qemu("none", "io_uring")]


class Runner:
    """A VMM with a disk in one variant: its runs so far."""

    def __init__(self, contender, variant, image):
        self.contender = contender
        self.label = contender.label.split()[0]
        self.variant = variant
        self.image = image
        self.found = {depth: [] for depth in DEPTHS}
        self.error = None

    def run(self, depth):
        if self.error:
            return
        try:
            self.found[depth].append(self._measure(depth))
        except Failed as failure:
            self.error = str(failure)

    def _measure(self, depth):
        guest = self.contender.start_with(
            "build/guests/blk.elf",
            f"bench=read4k depth={depth} seconds={SECONDS}", 64,
            self.variant.arguments(self.image))
        try:
            words = guest.line("bench ", 30 + SECONDS).split()
        finally:
            self.contender.end(guest)
        return {key: int(value) for key, value in
                (word.split("=") for word in words[1:])}

    def median(self, depth, key):
        values = [found[key] for found in self.found[depth]]
        return statistics.median(values) if values else None


@contextlib.contextmanager
def _image(place):
    """An image without holes or zeroes, all of it cached."""
    directory = tempfile.mkdtemp(prefix="godwit-bench-", dir=place.directory)
    path = os.path.join(directory, "disk.img")
    try:
        with open(path, "wb") as file:
            for _ in range(IMAGE_MIB):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(contenders, runs, tell):
    """Yields each place with its runners. contenders: pairs with variants."""
    for place in PLACES:
        if not os.path.isdir(place.directory):
            continue
        with _image(place) as image:
            runners = [Runner(contender, variant, image)
                       for contender, variants in contenders
                       for variant in variants]
            for turn in range(runs):
                for depth in DEPTHS:
                    for runner in runners:
                        tell(place, runner, turn)
                        runner.run(depth)
            yield place, runners


def best(runners, label, depth, key, better):
    """The best variant of a VMM: its median and its name."""
    values = [(runner.median(depth, key), runner.variant.name)
              for runner in runners
              if runner.label == label
              and runner.median(depth, key) is not None]
    return better(values) if values else (None, "")


def figures(runners):
    return [{"vmm": runner.label, "variant": runner.variant.name,
             "error": runner.error, "runs": runner.found}
            for runner in runners]


def text(place, runners):
    """The place's table, and how the best of each compare."""
    lines = [f"disk: 4 KiB reads at random, {IMAGE_MIB} MiB {place.title}",
             f"{'':<34}{'depth 1, µs':>22} {'depth 32':>16}",
             f"{'':<34}{'n':>3}{'median':>9}{'p99':>10} {'k reads/s':>16}"]
    for runner in runners:
        name = f"{runner.label}, {runner.variant.name}"
        if runner.median(DEPTHS[-1], "iops") is None:
            lines.append(f"{name:<34}  - {runner.error}")
            continue
        lines.append(
            f"{name:<34}{len(runner.found[1]):>3}"
            f"{runner.median(1, 'median_ns') / 1e3:>9.1f}"
            f"{runner.median(1, 'p99_ns') / 1e3:>10.1f} "
            f"{runner.median(32, 'iops') / 1e3:>16.1f}")
    lines += _ratios(runners)
    return "\n".join(lines) + "\n"


def _ratios(runners):
    labels = list(dict.fromkeys(r.label for r in runners))
    lines = []
    for label in labels[1:]:
        ours, our_way = best(runners, labels[0], 1, "median_ns", min)
        theirs, their_way = best(runners, label, 1, "median_ns", min)
        many, our_many = best(runners, labels[0], 32, "iops", max)
        their, their_many = best(runners, label, 32, "iops", max)
        if not (ours and theirs and many and their):
            continue
        lines.append(
            f"  ÷ {label}: latency {ours / theirs:.2f}"
            f"{' (behind)' if ours > theirs * 1.05 else ''} ({our_way} ÷ "
            f"{their_way}), rate {many / their:.2f}"
            f"{' (behind)' if many < their * 0.95 else ''} ({our_many} ÷ "
            f"{their_many})")
    return lines
