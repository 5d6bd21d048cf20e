# SPDX-License-Identifier: MIT
"""This machine: its cores, how busy others keep it, what a process takes."""

import ctypes
import os
import re
import resource
import signal

TICK = os.sysconf("SC_CLK_TCK")


class Cores:
    """Who runs where: the guest's vCPU alone on one, all else on the other."""

    def __init__(self, pin=True, first=True):
        cores = sorted(os.sched_getaffinity(0))
        self.pinned = pin and len(cores) > 1
        self.vcpu = cores[1] if self.pinned else None
        self.rest = cores[0] if self.pinned else None
        self.count = len(cores)
        self.cores = {self.vcpu, self.rest} if self.pinned else set(cores)
        if self.pinned:
            # Whatever is started from here on inherits it.
            os.sched_setaffinity(0, {self.rest})
        self.first = first and _go_first()

    def __str__(self):
        places = (f"vCPU threads on core {self.vcpu}, all else on core "
                  f"{self.rest}" if self.pinned else "nothing pinned")
        return places + (", before other programs (nice -20)" if self.first
                         else ", at the priority of other programs")


AUTOGROUP = "/proc/self/autogroup"


def _go_first():
    """Has all that we start run before other programs, if we may.

    Where the kernel groups tasks by session, a nice value counts only within
    the session, and the session has its own: which is the user's, unless
    enter_session() was called.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        if os.path.exists(AUTOGROUP) and os.getsid(0) == os.getpid():
            with open(AUTOGROUP, "w", encoding="ascii") as file:
                file.write("-20")
        return True
    except OSError:
        return False


def enter_session():
    """Goes on in a child with a session of its own, which ends with it.

    What is done to the session's priority is then undone however we end. The
    parent hands signals on, and ends as the child does.
    """
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.setsid()
        end_with_parent(parent)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.kill(child, got))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def end_with_parent(parent):
    """Has the kernel kill this process when its parent ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def check_kvm():
    """Returns what is wrong with /dev/kvm, or None."""
    if not os.path.exists("/dev/kvm"):
        return ("there is no /dev/kvm: load the module (modprobe kvm_intel or "
                "kvm_amd), switch virtualization on in the firmware or, in a "
                "VM or container, have /dev/kvm passed through")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ("/dev/kvm is not yours to open: join its group (as root: "
                "usermod -aG kvm $USER, then log in again)")
    return None


def _core_seconds(core):
    """What went to somebody, and of it what went to another VM of the host."""
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            words = line.split()
            if words[0] == f"cpu{core}":
                user, nice, system, _, _, irq, soft, steal = map(
                    int, words[1:9])
                busy = user + nice + system + irq + soft + steal
                return busy / TICK, steal / TICK
    return 0.0, 0.0


def _seconds_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


class Load:
    """Measures what others did with our cores since it was made."""

    def __init__(self, cores, pids):
        self.cores = cores
        self.pids = set(pids)
        self.start = self._now(self.pids)

    def _now(self, pids):
        ours = resource.getrusage(resource.RUSAGE_SELF)
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = sum(u.ru_utime + u.ru_stime for u in (ours, reaped))
        seconds += sum(map(_seconds_of, pids))
        cores = [_core_seconds(core) for core in self.cores.cores]
        busy, stolen = (sum(column) for column in zip(*cores))
        return busy, seconds, os.times().elapsed, stolen

    def foreign(self, pids):
        """What others had: share of our cores, 0 to 1, and stolen seconds.

        pids: our processes that live now; those that have ended were reaped.
        Stolen is what another VM of the host had of our cores.
        """
        busy, ours, at, stolen = (now - start for now, start in
                                  zip(self._now(set(pids)), self.start))
        share = max(0.0, busy - ours) / max(at, 0.01) / len(self.cores.cores)
        return share, stolen


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown CPU"


def kvm_backend():
    """PVM, SVM or VMX: times are only comparable within one."""
    for name in ("pvm", "amd", "intel"):
        if os.path.isdir(f"/sys/module/kvm_{name}"):
            return {"pvm": "PVM", "amd": "SVM", "intel": "VMX"}[name]
    return "unknown KVM backend"


def pss_beside_guest(pid, guest_bytes):
    """PSS of a process in bytes, and the part that is not guest memory."""
    areas, guest = [], 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            words = line.split()
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if head:
                start, end = (int(part, 16) for part in head.groups())
                areas.append([start, end, 0, (words[1], words[4:])])
            elif words[0] == "Pss:":
                areas[-1][2] = int(words[1]) * 1024
    total = sum(area[2] for area in areas)
    for start, end, pss, _ in _joined(areas):
        if end - start >= guest_bytes:
            guest = max(guest, pss)
    return total, total - guest


def _joined(areas):
    """Adjoining areas of one kind, as one: advice splits guest memory."""
    runs = []
    for start, end, pss, kind in areas:
        if runs and runs[-1][1] == start and runs[-1][3] == kind:
            runs[-1][1] = end
            runs[-1][2] += pss
        else:
            runs.append([start, end, pss, kind])
    return runs
