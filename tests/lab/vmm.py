# SPDX-License-Identifier: MIT
"""The VMMs under test, behind one interface.

A Vmm starts machines and moves them; a Machine is one process of it in the
emulated host, running the guest or waiting for it. Tests know nothing else,
so that godwit and QEMU are held to the same. Both get the same memory, the
same vCPUs, the same disk, a serial console on their standard input and output,
TCP, and the same pause limit. A guest moves between the Vmms of two hosts as it
does between processes of one. What a Vmm does not have yet, it says.
"""

import collections
import itertools
import json
import re

from host import LabError
from streams import Capture

# Enough for these kernels, and half of it is empty: moves are to be many.
MEMORY_MIB = 128
# Debian's userland and its work want more.
DISK_MEMORY_MIB = 256
# TCG's pages move slowly; both get the limit that QEMU has by default.
PAUSE_LIMIT_MS = 300
# A busy emulator must not be what ends a pause, nor what keeps from one: godwit
# measures what it costs and would rather not move; QEMU does not ask.
ABORT_AFTER_S = 120
# Memory and state are compared in the first of so many moves of a VMM: where
# all is emulated that takes seconds.
VERIFY_EACH = 5
# Of godwit's log, once a target has taken a guest, and when it has not.
TAKEN = b" runs here from now on"
NOT_TAKEN = b"no guest came: "
# Of hosts that share one (place.py).
NETWORK = "192.0.2.0/24"
RESIDENT = re.compile(r"VmRSS:\s+(\d+) kB")
START_S = 120
MOVE_S = 180
END_S = 120

# What can become of a move, as its source sees it.
MOVED, STAYED, UNCERTAIN = "moved", "stayed", "uncertain"
# What can happen to a move.
SOURCE_DIES, TARGET_DIES, TARGET_ENDS, CUT = (
    "the source's host dies", "the target's host dies",
    "the target's process dies", "a host is cut off")
# The records at which it can happen, which end its phases, and in the rounds.
ROUNDS = "the rounds"
RECORDS = ("PAUSED", "LOADED", "COMMIT", "RUNNING", "DONE")

# Of a guest's network card; 52:54:00:77 is the hosts'.
CARD_MAC = "52:54:00:78:00:01"
# What the initrd of a guest with a card is called besides: it has iperf3.
CARD_INITRD = "-card"

# address: of its network card, if it has one; hvc: its console is a virtio one;
# words: more for its kernel; memory: MiB, if not as others;
# rootless: it has a user-mode network; on_panic: what becomes of it where it is
# moved to next.
Spec = collections.namedtuple(
    "Spec", "series cpus disk address hvc words memory rootless on_panic",
    defaults=(None, None, False, "", None, False, None))
# A port of its host that leads to the same one of a guest that is rootless.
FORWARDED_PORT = 7001
# godwit's exit status when its guest has crashed.
CRASHED = 3
CONTROL = "/run/user/godwit/{}.sock"
# A disk in a host: its path there; past the host's cache; where locks go.
Disk = collections.namedtuple("Disk", "path direct lock_dir",
                              defaults=(False, None))
# bytes: that were sent; hinted: pages that were not, as the guest called them
# free; closed: connections that ended.
Report = collections.namedtuple("Report", "total_ms downtime_ms verify_ms "
                                "bytes hinted closed",
                                defaults=(None, None, None))
# A move of godwit's under way: the command, what captures it, or None, and
# whether memory and state are compared.
Attempt = collections.namedtuple("Attempt", "command capture verify")


def guest_files(spec):
    """Kernel, initrd and command line of a guest."""
    # The last one is /dev/console, as soon as it is there.
    words = "console=ttyS0 " + ("console=hvc0 " if spec.hvc else "")
    words += "quiet panic=-1 tsc=reliable"
    initrd = spec.series + (CARD_INITRD if spec.address else "")
    return (f"/guest/vmlinuz-{spec.series}", f"/guest/initrd-{initrd}",
            words + (" root=/dev/vda" if spec.disk else "") +
            (f" lab.address={spec.address}" if spec.address else "") +
            (f" {spec.words}" if spec.words else ""))


def memory_mib(spec):
    """How much memory a guest gets."""
    return spec.memory or (DISK_MEMORY_MIB if spec.disk else MEMORY_MIB)


class Machine:
    """One VMM process. console is its Channel."""

    def __init__(self, vmm, name, console):
        self.vmm = vmm
        self.name = name
        self.console = console
        self.prologue = 0       # bytes of the VMM's own before the console
        self.address = None     # where a waiting machine can be reached
        self.qmp = None

    def complaint(self):
        """What the VMM itself said, for a failure's message."""
        return self.console.errors.decode(errors="replace").strip()


class Qmp:
    """A QMP monitor that called us, or was called, over a channel."""

    def __init__(self, channel):
        self._channel = channel
        self.host = channel.host
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
            self.host.wait(lambda: len(self._messages) > self._taken,
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
    machine = "pc"
    devices = ("-device", "virtio-rng-pci")
    # A target of QEMU's waits for a dead source for good.
    faults = (TARGET_DIES,)
    moments = (ROUNDS,)
    captures = ()

    def __init__(self, host):
        self.host = host
        self._numbers = itertools.count(1)

    @staticmethod
    def _drive(disk):
        if disk is None:
            return []
        cache = "none" if disk.direct else "writeback"
        return ["-drive", f"file={disk.path},if=none,id=disk0,format=raw,"
                f"file.locking=on,cache={cache},discard=unmap",
                "-device", "virtio-blk-pci,drive=disk0"]

    def command(self, spec):
        """What boots the guest."""
        kernel, initrd, words = guest_files(spec)
        return [self.program, "-L", "/firmware", "-nodefaults",
                "-no-user-config", "-machine", f"{self.machine},accel=kvm",
                "-cpu", "host", "-smp", spec.cpus, "-m", memory_mib(spec),
                "-display", "none", "-serial", "stdio", *self.devices,
                "-kernel", kernel, "-initrd", initrd, "-append", words,
                *self._drive(spec.disk)]

    def _spawn(self, spec, extra=()):
        name = f"qemu-{next(self._numbers)}"
        path = f"/run/lab/{name}.qmp"
        monitor = self.host.listen(path)
        console = self.host.spawn(
            [*self.command(spec), "-qmp", f"unix:{path}", *extra], name)
        machine = Machine(self, name, console)
        self.host.wait(lambda: monitor.called or console.over, START_S,
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

    def listen(self, spec, once=True):
        """Starts a machine that waits for a guest; it can be reached."""
        del once  # QEMU does not listen again.
        address = self.host.address or "127.0.0.1"
        machine = self._spawn(spec, ["-incoming", f"tcp:{address}:0"])
        state = machine.qmp.command("query-migrate")
        machine.address = f"tcp:{address}:{state['socket-address'][0]['port']}"
        return machine

    def begin(self, source, target, captured=False):
        """Starts to move a guest; what outcome() wants."""
        del captured  # There is no specification to hold it against.
        qmp = source.qmp
        qmp.command("migrate-set-capabilities", {"capabilities": [
            {"capability": "events", "state": True}]})
        qmp.command("migrate-set-parameters", {
            "max-bandwidth": 0, "downtime-limit": PAUSE_LIMIT_MS})
        qmp.command("migrate", {"uri": target.address})
        return source

    def outcome(self, source):
        """Waits for the end of a move: (what became of it, Report or words)."""
        qmp = source.qmp
        end = qmp.event("MIGRATION", MOVE_S, lambda data: data["status"] in
                        ("completed", "failed", "cancelled"))
        result = qmp.command("query-migrate")
        if end["status"] != "completed":
            return STAYED, f"{end['status']}: {result.get('error-desc')}"
        # The event comes a moment before the sums are done, and nothing
        # comes after it.
        while not result.get("total-time"):
            result = qmp.command("query-migrate")
        qmp.command("quit")
        return MOVED, Report(result["total-time"], result["downtime"], None)

    @staticmethod
    def took(target):
        """QEMU's targets keep no log that would say."""
        raise LabError(f"{target.name} is not in doubt")

    @staticmethod
    def gave_up(target):
        """QEMU's end."""
        return target.console.over

    def resolve(self, machine, word):
        """QEMU never asks."""
        raise LabError(f"{machine.name} is not in doubt: {word}")

    def running(self):
        """What runs guests on this host: QEMU keeps no list."""
        return None

    def press_power(self, machine):
        """Presses the power button."""
        machine.qmp.command("system_powerdown")


class Microvm(Qemu):
    """QEMU's machine that is made to boot fast."""

    name = "QEMU microvm"
    machine = "microvm,x-option-roms=off"
    # With the firmware that does least.
    devices = ("-device", "virtio-rng-device", "-bios", "qboot.rom")


class Godwit:
    """godwit. What its moves send can be captured."""

    name = "godwit"
    program = "godwit"
    faults = (TARGET_DIES, SOURCE_DIES, TARGET_ENDS, CUT)
    # First those between PAUSE and the end.
    moments = (*RECORDS, ROUNDS)

    def __init__(self, host):
        self.host = host
        self.captures = []
        self.model = None       # of the guest's processor
        self._numbers = itertools.count(1)
        self._verified = itertools.cycle([True] + [False] * (VERIFY_EACH - 1))
        # Source and target have one each (card.py).
        self._taps = itertools.cycle(("card0", "card1"))

    def _card(self, spec, name="", words=""):
        if spec.rootless:
            return ["--net", f"{name}user,hostfwd=tcp:{FORWARDED_PORT}"
                    f"-:{FORWARDED_PORT}"]
        if not spec.address:
            return []
        return ["--net", f"{name}tap={next(self._taps)}{words}"]

    @staticmethod
    def _console(spec):
        return ["--console", "stdio"] if spec.hvc else []

    @staticmethod
    def _drive(disk, name=""):
        if disk is None:
            return []
        words = ",direct" if disk.direct else ""
        if not disk.lock_dir:
            return ["--disk", name + disk.path + words]
        # An NBD device has no name that both hosts know.
        return ["--disk", f"{name}{disk.path},serial=lab{words}",
                "--lock-dir", disk.lock_dir]

    def command(self, spec):
        """What boots the guest."""
        kernel, initrd, words = guest_files(spec)
        model = ["--cpu", self.model] if self.model else []
        return [self.program, "run", "--kernel", kernel, "--initrd", initrd,
                "--cmdline", words, "--cpus", spec.cpus, *model,
                "--memory", f"{memory_mib(spec)}M", *self._drive(spec.disk),
                *self._card(spec, words=f",mac={CARD_MAC}"),
                *self._console(spec)]

    def _spawn(self, words):
        name = f"godwit-{next(self._numbers)}"
        console = self.host.spawn([*words, "--name", name], name)
        return Machine(self, name, console)

    def start(self, spec):
        """Starts a machine that boots the guest."""
        return self._spawn(self.command(spec))

    def listen(self, spec, once=True):
        """Starts a machine that waits for a guest; it can be reached.

        once: for no other when that one did not come.
        """
        address = self.host.address or "127.0.0.1"
        words = ["--once"] if once else []
        if spec.on_panic:
            words += ["--on-panic", spec.on_panic]
        if self.host.address:
            words += ["--allow", NETWORK]
        machine = self._spawn([
            self.program, "listen", f"tcp:{address}:0", *words,
            *self._drive(spec.disk, "disk0="), *self._card(spec, "net0="),
            *self._console(spec)])
        console = machine.console
        self.host.wait(lambda: b"\n" in console.output() or console.over,
                       START_S, f"{machine.name} to print its port")
        port, newline, _ = console.output().partition(b"\n")
        if not newline or not port.isdigit():
            raise LabError(f"{machine.name} printed no port but {port!r}: "
                           f"{machine.complaint()}")
        # The port is godwit's word; the console begins behind it.
        machine.prologue = len(port) + 1
        machine.address = f"tcp:{address}:{port.decode()}"
        return machine

    def begin(self, source, target, captured=False):
        """Starts to move a guest; what outcome() wants."""
        address, capture = target.address, None
        verify = ["--verify"] if next(self._verified) else []
        if captured:
            capture = Capture(self.host, address.removeprefix("tcp:"))
            self.captures.append(capture)
            address = f"tcp:127.0.0.1:{capture.port}"
        command = self.host.spawn(
            [self.program, "migrate", source.name, "--to", address,
             "--max-downtime", f"{PAUSE_LIMIT_MS}ms",
             "--on-timeout", "pause", "--abort-after", f"{ABORT_AFTER_S}s",
             *verify, "--json"], "godwit migrate")
        return Attempt(command, capture, bool(verify))

    def outcome(self, attempt):
        """Waits for the end of a move: (what became of it, Report or words)."""
        command = attempt.command
        status = command.wait(MOVE_S)
        words = command.errors + command.output()
        if attempt.capture:
            attempt.capture.finish()
        if status == 0:
            result = json.loads(command.output())
            verified = result["phases"]["verify"] or None
            if attempt.verify and not verified:
                raise LabError("a move was not verified")
            return MOVED, Report(result["total_ms"], result["downtime_ms"],
                                 verified, result["bytes"],
                                 result["hinted_pages"],
                                 result["closed_connections"])
        if status in (1, 4):
            return (STAYED if status == 1 else UNCERTAIN,
                    words.decode(errors="replace").strip())
        raise LabError(f"godwit migrate exited with {status}: {words}")

    @staticmethod
    def took(target):
        """Its log says that the guest runs there: what README goes by."""
        return TAKEN in target.console.errors

    @staticmethod
    def gave_up(target):
        """Its log says that it has no guest of the one that came."""
        return NOT_TAKEN in target.console.errors

    def resolve(self, machine, word):
        """Decides, --resume or --discard, what godwit says is uncertain."""
        status, _, _ = self.host.run([self.program, "resume", machine.name],
                                     START_S)
        if status == 0:
            raise LabError(f"{machine.name} is uncertain, and was resumed")
        self._must("resolve", machine.name, word)

    def set(self, name, what, value):
        """Changes a limit of a guest's moves."""
        self._must("set", name, what, value)

    def status(self, name):
        """What godwit says of a guest."""
        return json.loads(self._must("status", name, "--json"))

    def monitor(self, machine):
        """A QMP monitor of a machine's."""
        qmp = Qmp(self.host.call(CONTROL.format(machine.name)))
        qmp.next(("QMP",), START_S, "greeting")
        qmp.command("qmp_capabilities")
        return qmp

    def resume(self, machine):
        """Has a guest that was paused run on."""
        self._must("resume", machine.name)

    def resident_mib(self, machine):
        """How much of the host's memory a machine's process has."""
        pid = self.status(machine.name)["pid"]
        _, said, _ = self.host.run(["cat", f"/proc/{pid}/status"], START_S)
        return int(RESIDENT.search(said)[1]) / 1024

    def running(self):
        """The names of the guests that run on this host."""
        listed = json.loads(self._must("list", "--json"))
        return [vm["name"] for vm in listed["vms"]
                if vm["status"] == "running"]

    def _must(self, *words):
        status, said, errors = self.host.run([self.program, *words], START_S)
        if status:
            raise LabError(f"godwit {words[0]} exited with {status}: "
                           f"{errors.strip()}")
        return said

    def press_power(self, machine):
        """Presses the power button."""
        self._must("poweroff", machine.name)
