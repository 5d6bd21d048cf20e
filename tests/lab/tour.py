# SPDX-License-Identifier: MIT
"""README's tours of two hosts, typed as they are printed.

The commands are read from README.md, so that it can't rot: what it says of two
hosts is pasted into the shells of two that have one disk, in a directory where
its files are; what it says of the guest, into the guest's; and of a third
machine, into that of the keeper of the disk. The network of these hosts is the
one that README uses, and one of them is called as it is there. Only how long a
pause may take has to be said before: emulated hosts are not as fast as those of
README.
"""

import pathlib

from client import Client
from guest import WORK_S, DiskGuest
from host import LabError
from vmm import MOVE_S, PAUSE_LIMIT_MS, START_S, Machine

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
DISK_SECTION = "### A server on a disk"
NETWORK_SECTION = "### A server on the network"
DIRECTORY = "/store/tour"
NAME = "nest"
# What a listener prints when it listens at the tour's port.
READY = b"7000\n"
# What is typed in the guest begins so.
IN_GUEST = ("ip addr", "ip link", "echo", "busybox")
# Of the answers that the third machine gets, after each step.
ANSWERS = 3


def commands(section, path=README):
    """All commands of a section, each as one line."""
    text = path.read_text(encoding="utf-8")
    section = text.partition(section + "\n")[2].partition("\n### ")[0]
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


def command(section, start, *words):
    """The one command of a section that begins so and has these words."""
    fitting = [command for command in commands(section)
               if command.startswith(start)
               and all(word in command for word in words)]
    if len(fitting) != 1:
        raise LabError(f"README has {len(fitting)} commands that begin "
                       f"with {start!r} and have {' and '.join(words)}")
    return fitting[0]


def prepare(keeper, image, spec):
    """Puts the tour's files where its commands are typed."""
    for words in (["mkdir", "-p", DIRECTORY],
                  ["ln", "-f", image, f"{DIRECTORY}/nest.img"],
                  ["ln", "-sf", f"/guest/vmlinuz-{spec.series}",
                   f"{DIRECTORY}/nest.img.vmlinuz"],
                  ["ln", "-sf", f"/guest/initrd-{spec.series}",
                   f"{DIRECTORY}/nest.img.initrd"],
                  ["ln", "-sfn", "/tools", f"{DIRECTORY}/tools"]):
        status, _, errors = keeper.run(words, START_S)
        if status:
            raise LabError(f"{' '.join(words)}: {errors}")


def in_directory(text):
    """The words that have a host's shell execute what is typed."""
    return ["sh", "-c", f"cd {DIRECTORY} && {text}"]


class TouringGuest(DiskGuest):
    """A guest that is run and moved as README says."""

    def _run(self, run):
        here = self.vmms[0]
        self._follow(Machine(here, NAME,
                             here.host.spawn(in_directory(run), run)))
        self._booted(1)

    def _move_on(self, listen, migrate):
        here, there = self.vmms
        source = self.machine
        target = Machine(there, f"{NAME}-there",
                         there.host.spawn(in_directory(listen), listen))
        target.prologue = len(READY)
        self._next = target
        there.host.wait(lambda: READY in target.console.output()
                        or target.console.over, START_S, listen)
        here.set(NAME, "max-downtime", f"{PAUSE_LIMIT_MS}ms")
        mover = here.host.spawn(in_directory(migrate), migrate)
        if mover.wait(MOVE_S):
            raise LabError(f"{migrate}: {mover.errors.decode()}; "
                           f"{listen}: {target.complaint()}")
        self._left(source)
        self._follow(target)

    def _prove_there(self):
        running = self.vmms[1].running()
        if running != [NAME]:
            raise LabError(f"the target's host runs {running}")

    def tour_disk(self, disk):
        """Types the commands; disk: as README's option names it."""
        self._run(command(DISK_SECTION, "godwit run --name", f"--disk {disk}"))
        self._say("work")
        self._prove_alive()
        self._move_on(
            command(DISK_SECTION, "godwit listen tcp:", f"disk0={disk}"),
            command(DISK_SECTION, "godwit migrate", "tcp:"))
        self._prove_alive()
        self._prove_there()
        self._ask("enough", "counted", WORK_S)
        self.power_off()

    def tour_network(self, third):
        """Types the commands, those of the third machine on that host."""
        up = command(NETWORK_SECTION, "sudo tools/godwit-bridge up", "--join")
        for vmm in self.vmms:
            status, said, errors = vmm.host.run(in_directory(up), START_S)
            if status:
                raise LabError(f"{up}: {said}{errors}")
        self._run(command(NETWORK_SECTION, "godwit run --name", "tap0"))
        for line in commands(NETWORK_SECTION):
            if line.startswith(IN_GUEST):
                self._ask(f"type {line}", "typed 0")
        ask = command(NETWORK_SECTION, "while sleep")
        asking = Client(third, in_directory(ask), ask)
        self._prove_answers(asking)
        self._move_on(command(NETWORK_SECTION, "godwit listen tcp:", "net0="),
                      command(NETWORK_SECTION, "godwit migrate", "tcp:"))
        self._prove_answers(asking)
        self._prove_there()
        asking.end()
        if asking.errors:
            raise LabError(f"{ask}: {asking.errors}")
        self.power_off()

    @staticmethod
    def _prove_answers(asking):
        after = asking.lines + ANSWERS
        asking.wait(lambda: asking.lines > after, "answers")
