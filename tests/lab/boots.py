# SPDX-License-Identifier: MIT
"""How long a stock kernel takes to its init, by VMM.

From the moment that the emulated host starts the VMM to the first line that
the guest's init prints, both on that host's clock. The VMMs boot the same
kernel and initrd with the same memory, vCPUs and serial console, in turns, and
nothing else runs meanwhile.
"""

import statistics

from host import LabError
from vmm import END_S

# What init/guest says first.
INIT = b"init\r\n"
BOOT_S = 240


def _boot_ms(vmm, spec):
    console = vmm.host.spawn(vmm.command(spec), vmm.name)
    vmm.host.wait(lambda: INIT in console.output() or console.over, BOOT_S,
                  f"{vmm.name} to boot")
    if console.over:
        raise LabError(f"{vmm.name} ended: {console.errors.decode()}")
    heard = b""
    for piece in console.pieces:
        heard += piece.data
        if INIT in heard:
            break
    console.signal(9)
    console.wait(END_S)
    return (piece.time_ns - console.started_ns) / 1e6


def measure(vmms, spec, times, tell):
    """Boots each of the VMMs so many times; prints what that took.

    The first of each is not counted: it warms the host's caches.
    """
    took = {vmm: [] for vmm in vmms}
    for number in range(times + 1):
        for vmm in vmms:
            milliseconds = _boot_ms(vmm, spec)
            if number:
                took[vmm].append(milliseconds)
    tell(f"From start to init's first line, Linux {spec.series}, "
         f"{times} boots each, in ms")
    tell(f"{'':16}{'median':>8}{'least':>8}{'most':>8}")
    for vmm in vmms:
        column = took[vmm]
        tell(f"{vmm.name:16}{statistics.median(column):8.0f}"
             f"{min(column):8.0f}{max(column):8.0f}")
    first, *others = [statistics.median(took[vmm]) for vmm in vmms]
    for vmm, median in zip(vmms[1:], others):
        tell(f"{vmms[0].name} takes {first / median:.2f} times what "
             f"{vmm.name} takes")
    tell("kvmtool is not in Debian 12 and is not compared.")
