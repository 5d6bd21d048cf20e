# SPDX-License-Identifier: MIT
"""The VMMs under test, behind one interface.

A Vmm starts machines and moves them; a Machine is one process of it in the
emulated host, running the guest or waiting for it. Tests know nothing else,
so that godwit and QEMU are held to the same. Both get the same memory, the
same vCPUs, a serial console on their standard input and output, TCP over
loopback, and the same pause limit. What a Vmm does not have yet, it says.
"""

import collections
import itertools
import json

from host import LabError

# Enough for these kernels, and half of it is empty: moves are to be many.
MEMORY_MIB = 128
# TCG's pages move slowly; both get the limit that QEMU has by default.
PAUSE_LIMIT_MS = 300
# A busy emulator must not be what ends a pause, nor what keeps from one: godwit
# measures what it costs and would rather not move; QEMU does not ask.
ABORT_AFTER_S = 120
START_S = 120
MOVE_S = 180
END_S = 120

Spec = collections.namedtuple("Spec", "series cpus")
Report = collections.namedtuple("Report", "total_ms downtime_ms")


def guest_files(spec):
    """Kernel, initrd and command line of a guest."""
    return (f"/guest/vmlinuz-{spec.series}", f"/guest/initrd-{spec.series}",
            "console=ttyS0 quiet panic=-1 tsc=reliable")


class Machine:
    """One VMM process. console is its Channel."""

    def __init__(self, name, console):
        self.name = name
        self.console = console
        self.prologue = 0       # bytes of the VMM's own before the console
        self.address = None     # where a waiting machine can be reached
        self.qmp = None

    def complaint(self):
        """What the VMM itself said, for a failure's message."""
        return self.console.errors.decode(errors="replace").strip()


class Qmp:
    """A QMP monitor that called us over a listening channel."""

    def __init__(self, channel):
        self._channel = channel
        self._host = channel.host
        self._buffer = b""
        self._messages = []
        self._taken = 0
        channel.watch(self._arrived)

    def _arrived(self, piece):
        if piece is None:
            self._messages.append({"gone": True})
            return
        *lines, self._buffer = (self._buffer + piece.data).split(b"\n")
        self._messages += [json.loads(line) for line in lines]

    def next(self, keys, seconds, what):
        """The next message that has one of these keys; others are dropped."""
        while True:
            self._host.wait(lambda: len(self._messages) > self._taken,
                            seconds, what)
            message = self._messages[self._taken]
            self._taken += 1
            if "gone" in message and "gone" not in keys:
                raise LabError(f"the monitor hung up, waiting for {what}")
            if any(key in message for key in keys):
                return message

    def command(self, name, arguments=None, seconds=START_S):
        """Executes a command; its answer. Events in between are dropped."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        self._channel.write(json.dumps(request).encode() + b"\n")
        answer = self.next(("return", "error"), seconds, f"answer to {name}")
        if "error" in answer:
            raise LabError(f"{name}: {answer['error']['desc']}")
        return answer["return"]

    def event(self, name, seconds, accept=lambda data: True):
        """Waits for an event that is accepted; its data."""
        while True:
            message = self.next(("event",), seconds, f"event {name}")
            data = message.get("data", {})
            if message["event"] == name and accept(data):
                return data


class Qemu:
    """QEMU's pc machine with KVM."""

    name = "QEMU"
    program = "qemu-system-x86_64"
    has_rng = True

    def __init__(self, host):
        self._host = host
        self._numbers = itertools.count(1)

    def _spawn(self, spec, extra=()):
        name = f"qemu-{next(self._numbers)}"
        path = f"/run/lab/{name}.qmp"
        monitor = self._host.listen(path)
        kernel, initrd, words = guest_files(spec)
        console = self._host.spawn([
            self.program, "-L", "/firmware", "-nodefaults", "-no-user-config",
            "-machine", "pc,accel=kvm", "-cpu", "host",
            "-smp", spec.cpus, "-m", MEMORY_MIB, "-display", "none",
            "-serial", "stdio", "-device", "virtio-rng-pci",
            "-kernel", kernel, "-initrd", initrd, "-append", words,
            "-qmp", f"unix:{path}", *extra], name)
        machine = Machine(name, console)
        self._host.wait(lambda: monitor.called or console.over, START_S,
                        f"{name} to start")
        if console.over:
            raise LabError(f"{name} ended: {machine.complaint()}")
        machine.qmp = Qmp(monitor)
        machine.qmp.next(("QMP",), START_S, "greeting")
        machine.qmp.command("qmp_capabilities")
        return machine

    def start(self, spec):
        """Starts a machine that boots the guest."""
        return self._spawn(spec)

    def listen(self, spec):
        """Starts a machine that waits for a guest; it can be reached."""
        machine = self._spawn(spec, ["-incoming", "tcp:127.0.0.1:0"])
        state = machine.qmp.command("query-migrate")
        machine.address = f"tcp:127.0.0.1:{state['socket-address'][0]['port']}"
        return machine

    def move(self, source, target):
        """Moves a guest; the source has exited when this returns."""
        qmp = source.qmp
        qmp.command("migrate-set-capabilities", {"capabilities": [
            {"capability": "events", "state": True}]})
        qmp.command("migrate-set-parameters", {
            "max-bandwidth": 0, "downtime-limit": PAUSE_LIMIT_MS})
        qmp.command("migrate", {"uri": target.address})
        end = qmp.event("MIGRATION", MOVE_S, lambda data: data["status"] in
                        ("completed", "failed", "cancelled"))
        result = qmp.command("query-migrate")
        if end["status"] != "completed":
            raise LabError(f"migration {end['status']}: "
                           f"{result.get('error-desc')}")
        # The event comes a moment before the sums are done, and nothing
        # comes after it.
        while not result.get("total-time"):
            result = qmp.command("query-migrate")
        qmp.command("quit")
        status = source.console.wait(END_S)
        if status:
            raise LabError(f"the source exited with {status} after the move:"
                           f" {source.complaint()}")
        return Report(result["total-time"], result["downtime"])

    def press_power(self, machine):
        """Presses the power button."""
        machine.qmp.command("system_powerdown")


class Godwit:
    """godwit."""

    name = "godwit"
    program = "godwit"
    has_rng = False     # no virtio devices yet

    def __init__(self, host):
        self._host = host
        self._numbers = itertools.count(1)

    def _spawn(self, words):
        name = f"godwit-{next(self._numbers)}"
        console = self._host.spawn([self.program, *words, "--name", name],
                                   name)
        return Machine(name, console)

    def start(self, spec):
        """Starts a machine that boots the guest."""
        kernel, initrd, words = guest_files(spec)
        return self._spawn([
            "run", "--kernel", kernel, "--initrd", initrd, "--cmdline", words,
            "--cpus", spec.cpus, "--memory", f"{MEMORY_MIB}M"])

    def listen(self, _):
        """Starts a machine that waits for a guest; it can be reached."""
        machine = self._spawn(["listen", "tcp:127.0.0.1:0"])
        console = machine.console
        self._host.wait(lambda: b"\n" in console.output() or console.over,
                        START_S, f"{machine.name} to print its port")
        port, newline, _ = console.output().partition(b"\n")
        if not newline or not port.isdigit():
            raise LabError(f"{machine.name} printed no port but {port!r}: "
                           f"{machine.complaint()}")
        # The port is godwit's word; the console begins behind it.
        machine.prologue = len(port) + 1
        machine.address = f"tcp:127.0.0.1:{port.decode()}"
        return machine

    def move(self, source, target):
        """Moves a guest; the source has exited when this returns."""
        status, output, errors = self._host.run(
            [self.program, "migrate", source.name, "--to", target.address,
             "--max-downtime", f"{PAUSE_LIMIT_MS}ms",
             "--on-timeout", "pause", "--abort-after", f"{ABORT_AFTER_S}s",
             "--json"], MOVE_S)
        if status:
            raise LabError(f"godwit migrate exited with {status}: "
                           f"{errors.strip()} {output.strip()}")
        result = json.loads(output)
        status = source.console.wait(END_S)
        if status:
            raise LabError(f"the source exited with {status} after the move:"
                           f" {source.complaint()}")
        return Report(result["total_ms"], result["downtime_ms"])

    def press_power(self, machine):
        """Presses the power button."""
        status, _, errors = self._host.run(
            [self.program, "poweroff", machine.name], START_S)
        if status:
            raise LabError(f"godwit poweroff exited with {status}: "
                           f"{errors.strip()}")
