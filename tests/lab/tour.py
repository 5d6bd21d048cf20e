# SPDX-License-Identifier: MIT
"""README's tour of two hosts, typed as it is printed.

The commands are read from README.md, so that it can't rot: what it says of two
hosts is pasted into the shells of two that have one disk, in a directory where
its files are. The network of these hosts is the one that README uses, and one
of them is called as it is there. Only how long a pause may take has to be said
before: emulated hosts are not as fast as README's.
"""

import pathlib

from guest import WORK_S, DiskGuest
from host import LabError
from vmm import MOVE_S, PAUSE_LIMIT_MS, START_S, Machine

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
SECTION = "### A server on a disk"
DIRECTORY = "/store/tour"
NAME = "nest"
# What a listener prints when it listens at the tour's port.
READY = b"7000\n"


def commands(path=README):
    """All commands of the section, each as one line."""
    text = path.read_text(encoding="utf-8")
    section = text.partition(SECTION + "\n")[2].partition("\n### ")[0]
    found = []
    continues = False
    for line in section.splitlines():
        if not line.startswith("    "):
            continue
        word = line.strip()
        whole = word.removesuffix("\\").strip()
        if continues:
            found[-1] += " " + whole
        else:
            found.append(whole)
        continues = word.endswith("\\")
    return found


def two_hosts(disk):
    """Those that run, receive and move a guest that has this disk."""
    def one(start, *words):
        fitting = [command for command in commands()
                   if command.startswith(start)
                   and all(word in command for word in words)]
        if len(fitting) != 1:
            raise LabError(f"README has {len(fitting)} commands that begin "
                           f"with {start!r} and have {' and '.join(words)}")
        return fitting[0]

    return (one("godwit run --name", f"--disk {disk}"),
            one("godwit listen tcp:", f"disk0={disk}"),
            one("godwit migrate", "tcp:"))


def prepare(keeper, image, spec):
    """Puts the tour's files where its commands are typed."""
    for command in (["mkdir", DIRECTORY],
                    ["ln", image, f"{DIRECTORY}/nest.img"],
                    ["ln", "-s", f"/guest/vmlinuz-{spec.series}",
                     f"{DIRECTORY}/nest.img.vmlinuz"],
                    ["ln", "-s", f"/guest/initrd-{spec.series}",
                     f"{DIRECTORY}/nest.img.initrd"]):
        status, _, errors = keeper.run(command, START_S)
        if status:
            raise LabError(f"{' '.join(command)}: {errors}")


class TouringGuest(DiskGuest):
    """A guest that is run and moved as README says."""

    def _type(self, vmm, command):
        return vmm.host.spawn(["sh", "-c", f"cd {DIRECTORY} && exec {command}"],
                              command)

    def tour(self, disk):
        """Types the commands; disk: as README's option names it."""
        run, listen, migrate = two_hosts(disk)
        here, there = self.vmms
        source = Machine(here, NAME, self._type(here, run))
        self._follow(source)
        self._booted(1)
        self._say("work")
        self._prove_alive()
        target = Machine(there, f"{NAME}-there", self._type(there, listen))
        target.prologue = len(READY)
        self._next = target
        there.host.wait(lambda: READY in target.console.output()
                        or target.console.over, START_S, listen)
        here.set(NAME, "max-downtime", f"{PAUSE_LIMIT_MS}ms")
        mover = self._type(here, migrate)
        if mover.wait(MOVE_S):
            raise LabError(f"{migrate}: {mover.errors.decode()}; "
                           f"{listen}: {target.complaint()}")
        self._left(source)
        self._follow(target)
        self._prove_alive()
        if there.running() != [NAME]:
            raise LabError(f"the target's host runs {there.running()}")
        self._ask("enough", "counted", WORK_S)
        self.power_off()
