# SPDX-License-Identifier: MIT
"""What the guests of each VMM go through, and where: the plan of a run."""

import itertools
import re

from building import BuildingGuest
from card import GUEST_ADDRESS, CardGuest
from faults import EnduringGuest
from guest import CountingGuest, DiskGuest
from rootless import RootlessGuest
from vmm import Godwit, Qemu, Spec

SERIES = ("6.1", "6.12")
SPECS = [Spec(series, cpus) for series in SERIES for cpus in (1, 4)]
# A move's cost is the same for any kernel: these two differ most.
MOVED = (Spec("6.1", 1), Spec("6.12", 4))
# Of disk guests: two vCPUs, so that the disk is used from both.
DISK_SPEC = Spec("6.12", 2)
CARD_SPEC = Spec("6.12", 2, address=GUEST_ADDRESS, hvc=True)
ROOTLESS_SPEC = Spec("6.12", 2, words="lab.late", rootless=True)
# With init_on_alloc, Debian's default, it would write to all that it hints at.
BUILD_SPEC = Spec("6.12", 2, words="lab.late init_on_alloc=0", memory=256)
BIG_BUILD_SPEC = BUILD_SPEC._replace(memory=512)
# Where a guest is moved: its counters, or its disk, or its clients decide.
COUNTING = "counting"
DISK = "a disk on one host"
NFS = "a disk on NFS between two hosts"
NBD = "an NBD device between two hosts"
CARD = "a network card on the bridges of two hosts"
BUILD = "a build"
ROOTLESS = "a user-mode network"
# Those that are told on a site of three hosts, and on which: that of NFS has
# room for both, one after the other.
SITES = {CARD: NFS, NFS: NFS, NBD: NBD}
FEW_MOVES = 4
# Of the faults on NFS, so many on NBD.
NBD_SHARE = 2
# The places of README's tour of disks, and the disk that its commands name.
TOURS = {NFS: "nest.img", NBD: "/dev/nbd0"}
IMAGE = "/store/disk"


class Test:
    """One step of one guest's story, and what became of it."""

    def __init__(self, story, step, text):
        self.story = story
        self.step = step
        self.name = f"{story.name} {text}"
        self.outcome = None
        self.detail = ""
        self.seconds = 0.0


class Story:
    """What one guest of one VMM goes through, and where."""

    def __init__(self, vmm, spec, place, options):
        self.vmm = vmm
        self.spec = spec
        self.place = place
        self.moves = options.moves
        # What others show at length, these show again.
        if not options.move_all and (place in (NBD, CARD) or vmm is Qemu):
            self.moves = min(self.moves, FEW_MOVES)
        self.site = SITES.get(place)
        self.faults = {NFS: options.faults,
                       NBD: options.faults // NBD_SHARE}.get(place, 0)
        if place == COUNTING:
            plural = "" if spec.cpus == 1 else "s"
            self.what = f"{spec.series} with {spec.cpus} vCPU{plural}"
            steps = self._counting(options)
        elif place == CARD:
            self.what = place
            steps = self._answering()
        elif place == ROOTLESS:
            self.what = place
            steps = self._calling()
        elif place == BUILD:
            self.what = place
            steps = self._building(options)
        else:
            self.what = place
            steps = self._working()
            if vmm is Godwit and place in TOURS:
                steps.insert(0, ("tour", "runs and moves as README's tour "
                                 "says"))
        if vmm is Godwit and any(name in ("move", "work", "answer", "spare",
                                              "connect") for name, _ in steps):
            steps.append(("streams", "sent what the specification says"))
        if vmm is Godwit and place == NBD:
            steps.append(("unlike", "moves to a lesser host only with what "
                          "both have"))
        self.name = f"{vmm.name}: {self.what}"
        self.label = re.sub("[^a-z0-9.]+", "-", self.name.lower())
        self.steps = [name for name, _ in steps]
        self.tests = [Test(self, *step) for step in steps]

    def _working(self):
        steps = [("boot", "boots Debian"),
                 ("work", f"moves live {self.moves} times while fio and "
                  "stress-ng verify")]
        if self.faults:
            steps += [("endure", f"is in one place in {self.faults} moves "
                       "with faults")]
        return steps + [
            ("poweroff", "powers off, and the VMM exits with 0"),
            ("judge", "has every line and a clean file system")]

    def _answering(self):
        return [("tour", "runs, moves and answers as README's tour says"),
                ("boot", "boots, and is reached from a third host"),
                ("silent", "moves silently, and the network learns of it"),
                ("answer", f"moves live {self.moves} times while it answers "
                 "pings, a session and a stream"),
                ("reboot", "reboots where it was moved to"),
                ("poweroff", "powers off, and the VMM exits with 0")]

    def _calling(self):
        return [("boot", "boots, and gets an address by DHCP"),
                ("connect", "moves without its connections, and has new ones"),
                ("panic", "moves as it has panicked, and boots again"),
                ("die", "panics, and the VMM exits with 3")]

    def _building(self, options):
        steps = [("boot", "boots Debian"),
                 ("build", "gives memory back to the host when it has ended"),
                 ("spare", "is moved without what it gave back"),
                 ("resize", "gives back what caches files when asked to")]
        if options.move_all:
            steps += [("plain", "is moved with all of it when no driver gives "
                       "it back")]
        return steps + [("poweroff", "powers off, and the VMM exits with 0")]

    def _counting(self, options):
        steps = [("boot", "boots to busybox")]
        if self.spec in MOVED or options.move_all:
            steps += [("move", f"moves live {self.moves} times while "
                       "it counts"),
                      ("reboot", "reboots where it was moved to")]
        if self.spec in MOVED:
            steps += [("poweroff", "powers off, and the VMM exits with 0")]
        else:
            steps += [("button", "powers off when its power button is "
                       "pressed")]
        return steps

    def matches(self, pattern):
        """One of its tests is asked for."""
        return any(re.search(pattern, test.name) for test in self.tests)

    def cast(self, vmms, place):
        """Its guest, on these VMMs; place: their Host, or their Site."""
        if self.place == COUNTING:
            return CountingGuest(vmms, self.spec, self.label)
        if self.place == CARD:
            return CardGuest(vmms, self.spec, self.label, place)
        if self.place == DISK:
            return DiskGuest(vmms, self.spec, self.label, place, IMAGE)
        if self.place == ROOTLESS:
            return RootlessGuest(vmms, self.spec, self.label)
        if self.place == BUILD:
            return BuildingGuest(vmms, self.spec, self.label, place, IMAGE)
        return EnduringGuest(vmms, self.spec, self.label, place, IMAGE)


def plan(options):
    """All stories that are asked for, in the order in which they are told."""
    build_spec = BIG_BUILD_SPEC if options.move_all else BUILD_SPEC
    specs = sorted(SPECS, key=lambda spec: -spec.cpus)
    # Long ones first, so that all end together; a site, which is three hosts,
    # beside others rather than another site.
    places = [(CARD, CARD_SPEC), (NFS, DISK_SPEC), (DISK, DISK_SPEC),
              *((COUNTING, spec) for spec in specs if spec in MOVED),
              (NBD, DISK_SPEC), (BUILD, build_spec),
              (ROOTLESS, ROOTLESS_SPEC),
              *((COUNTING, spec) for spec in specs if spec not in MOVED)]
    # QEMU's show what these hosts can do, when asked.
    qemus = ()
    if options.qemu:
        qemus = (COUNTING, DISK)
    if options.move_all or options.only:
        qemus = (COUNTING, DISK, NFS, NBD)
    stories = [Story(vmm, spec, place, options)
               for place, spec in places for vmm in (Godwit, Qemu)
               if vmm is Godwit or place in qemus]
    return [story for story in stories
            if not options.only or story.matches(options.only)]


def together(stories):
    """Lists of stories that are told at one place, one after the other."""
    numbers = itertools.count()
    return [list(group) for _, group in itertools.groupby(
        stories, lambda story: (story.vmm, story.site) if story.site
        else next(numbers))]
