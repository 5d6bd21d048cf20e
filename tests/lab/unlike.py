# SPDX-License-Identifier: MIT
"""A guest between two hosts whose processors differ.

The second host has less (LACKS). A guest that was promised all of the first's
is refused there, before anything is sent, by the name of what is missing; one
with the processor that both have in common, as `godwit cpu` names it, moves both
ways. Facts go from host to host as README says: in files.
"""

from guest import CountingGuest
from host import LabError
from vmm import STAYED, START_S

# What QEMU's emulated processor has, and the second host's has not.
LACKS = ("aes", "pclmulqdq", "rdrand")
# What guests have that are not here to find out what both hosts have.
COMMON = ",-".join(("host", *LACKS))
FACTS = "/store/{}.cpu"


class UnlikeGuest(CountingGuest):
    """vmms: on the host that has more, and on the one that has less."""

    def _cpu(self, vmm, *words, to=None, status=0):
        """What `godwit cpu` prints there, or puts into a file."""
        command = ["godwit", "cpu", *words]
        if to:
            command = ["sh", "-c", 'to=$1; shift; "$@" >"$to"', "sh",
                       FACTS.format(to), *command]
        got, said, errors = vmm.host.run(command, START_S)
        if got != status:
            raise LabError(f"godwit cpu {' '.join(words)} exited with {got}: "
                           f"{errors}")
        return said

    def meet_refusal(self):
        """Shows that all of the first host is too much for the second."""
        more, less = self.vmms
        more.model = None
        self._follow(more.start(self.spec))
        self._booted(1)
        self._cpu(more, "--guest", self.machine.name, to="guest")
        missing = self._cpu(less, "--can-run", FACTS.format("guest"), status=1)
        if set(missing.split("\n")) != {f"feature: {name}" for name in LACKS
                                        } | {""}:
            raise LabError(f"the second host is said to lack: {missing}")
        target = less.listen(self.spec)
        outcome, words = more.outcome(more.begin(self.machine, target))
        target.console.signal(9)
        if outcome != STAYED or not any(f"CPU feature {name} " in words
                                        for name in LACKS):
            raise LabError(f"the guest {outcome}: {words}")
        self._ping()
        self.power_off()

    def move_with_what_both_have(self):
        """Boots again, with a processor of both hosts, and moves to and fro."""
        more, less = self.vmms
        self._cpu(less, to="less")
        more.model = self._cpu(more, FACTS.format("less")).strip()
        boots = len(self.transcript.boots)
        self._follow(more.start(self.spec))
        self._booted(boots + 1)
        self._say("count")
        self._prove_alive()
        self._move(2, lambda number: None)
        self._ask("enough", "counted")
        self.power_off()
        more.model = None
