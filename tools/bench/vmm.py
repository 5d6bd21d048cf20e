# SPDX-License-Identifier: MIT
"""How to start, move and end a guest: godwit and QEMU, by the same methods.

A Guest is one process that holds, or waits for, a guest, with its console at
the observer. A contender (Godwit, Qemu) makes them and moves a guest from one
to another; what a move returns has the same keys for all.
"""

import collections
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from watch import Gone, pipe

MOVE_SECONDS = 60
DISK_MIB = 64
FIRST_ROUND_BYTES = 32 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A VMM did not do what it was asked; the text says what and why."""


def in_child(namespace=None):
    """Ends with us, however we end, and not by a Ctrl-C that is meant for us.

    It stays in our session: some kernels share cores out by session. namespace:
    the path of the network namespace to enter.
    """
    os.setpgid(0, 0)
    pr_set_pdeathsig = 1
    _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    if namespace:
        fd = os.open(namespace, os.O_RDONLY)
        clone_newnet = 0x40000000
        if _libc.setns(fd, clone_newnet):
            raise OSError(ctypes.get_errno(), f"setns: {namespace}")
        os.close(fd)


# Where a guest is: the network namespace, and the tap that its card has there.
Place = collections.namedtuple("Place", "address namespace tap",
                               defaults=(None,))
HERE = "127.0.0.1"
LOOPBACK = Place(HERE, None)
MAC = "52:54:00:00:00:07"


class Guest:
    """A VMM's process, its serial console, and what it says on stderr."""

    def __init__(self, observer, command, env=None, place=LOOPBACK):
        reader, writer = pipe()
        self.errors = tempfile.TemporaryFile()
        self.observer = observer
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=writer,
                stderr=self.errors, env=env,
                preexec_fn=lambda: in_child(place.namespace))
            self.console = observer.watch(reader)
        finally:
            os.close(reader)
            os.close(writer)
        self.pid = self.process.pid
        self.place = place

    def find_vcpu(self, name, cpu):
        self.observer.find_vcpu(self.console, self.pid, name, cpu)

    def line(self, start, seconds=30):
        """The next line of the console that begins with start."""
        try:
            return self.observer.line(self.console, start, seconds)
        except Gone as gone:
            raise Failed(f"{gone}{self.said()}") from gone

    def ask(self, letter, start, seconds=30):
        """Sends a command to the guest and returns its answer's fields."""
        self.process.stdin.write(letter)
        self.process.stdin.flush()
        words = self.line(start, seconds).split()
        return {key: int(value) for key, value in
                (word.split("=") for word in words if "=" in word)
                if value.isdigit()}

    def said(self):
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        return f"; it said: {text}" if text else ""

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        """Kills it, unless it has ended, and forgets its console."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.errors.close()
        if self.console is not None:
            self.observer.forget(self.console)
            self.console = None


class Contender:
    """What the two have in common."""

    vcpu = None  # how a vCPU's thread is called

    def __init__(self, observer, cores):
        self.observer = observer
        self.cores = cores
        self.guests = []
        self.directory = tempfile.mkdtemp(prefix="godwit-bench-")
        self.count = 0
        self.env = None
        # Where guests are, and where they are moved to, in turns.
        self.places = (LOOPBACK, LOOPBACK)

    def _made(self, command, env=None, place=None):
        guest = Guest(self.observer, command, env, place or self.places[0])
        self.guests.append(guest)
        return guest

    def _opposite(self, guest):
        """The place to move a guest to."""
        return self.places[guest.place is self.places[0]]

    def end(self, guest):
        guest.end()
        self.guests.remove(guest)

    def close(self):
        for guest in list(self.guests):
            self.end(guest)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_with(self, kernel, cmdline, memory_mib, arguments, place=None):
        """Boots a guest on a machine with PCI and what arguments add."""
        guest = self._made(
            self.command_with(kernel, cmdline, memory_mib) + arguments +
            self.card(place), self.env, place)
        guest.find_vcpu(self.vcpu, self.cores.vcpu)
        return guest

    def image(self):
        """A disk that all guests of this contender have in turns."""
        path = os.path.join(self.directory, "disk.img")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.truncate(DISK_MIB << 20)
        return path

    def _next(self):
        self.count += 1
        return f"bench-{self.count}"


class Godwit(Contender):
    """godwit, as its users call it."""

    vcpu = "vcpu0"

    def __init__(self, observer, cores, program, downtime_ms=10,
                 hugepages=False):
        super().__init__(observer, cores)
        self.program = program
        self.hugepages = hugepages
        self.downtime_ms = downtime_ms
        self.label = f"godwit {downtime_ms} ms"
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.directory)

    def command(self, kernel, cmdline, memory_mib):
        pages = ",hugepages" if self.hugepages else ""
        return [self.program, "run", "--kernel", kernel, "--cmdline", cmdline,
                "--memory", f"{memory_mib}M{pages}"]

    command_with = command

    def card(self, place):
        """The arguments for the card of a guest that is at a place."""
        return (["--net", f"tap={place.tap},mac={MAC}"]
                if place and place.tap else [])

    def start(self, kernel, cmdline, memory_mib, disk=False, cpus=1):
        """Boots a guest. Returns it, with its first vCPU pinned."""
        name = self._next()
        disks = ["--disk", self.image()] if disk else []
        guest = self._made(self.command(kernel, cmdline, memory_mib) +
                           disks + self.card(self.places[0]) +
                           ["--cpus", str(cpus), "--name", name], self.env)
        guest.name = name
        guest.disk = disk
        guest.find_vcpu(self.vcpu, self.cores.vcpu)
        return guest

    def receive(self, source):
        """Starts a process that waits for a guest."""
        name = self._next()
        place = self._opposite(source)
        disks = ["--disk", f"disk0={self.image()}"] if source.disk else []
        cards = ["--net", f"net0=tap={place.tap}"] if place.tap else []
        bare = [] if place.address == HERE else ["--insecure"]
        pages = ["--hugepages"] if self.hugepages else []
        guest = self._made([self.program, "listen", f"tcp:{place.address}:0",
                            "--name", name] + disks + cards + bare + pages,
                           self.env, place)
        guest.name = name
        guest.disk = source.disk
        guest.port = int(guest.line(""))
        # The thread comes with the guest.
        guest.find_vcpu(self.vcpu, self.cores.vcpu)
        return guest

    def move(self, source, target):
        """Moves. Returns what godwit says of it."""
        done = subprocess.run(
            [self.program, "migrate", source.name, "--to",
             f"tcp:{target.place.address}:{target.port}", "--max-downtime",
             f"{self.downtime_ms}ms", "--timeout", f"{MOVE_SECONDS}s",
             "--json"],
            env=self.env, capture_output=True, text=True, check=False)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            report = {"error": done.stderr.strip() or "it printed no JSON"}
        if done.returncode:
            raise Failed("godwit migrate: exit status "
                         f"{done.returncode}: {report.get('error')}"
                         f"{source.said()}{target.said()}")
        source.process.wait()
        rounds = report["rounds"]
        first = rounds[0]
        return {"downtime_ms": report["downtime_ms"],
                "predicted_ms": report["predicted_downtime_ms"],
                "total_ms": report["total_ms"],
                "bytes": report["bytes"],
                "phases": report["phases"],
                "rounds": len(rounds),
                "first_round_mb_s": _rate(first),
                "data_pages": first["pages"],
                "round_ms": [one["ms"] for one in rounds],
                "between_rounds_ms": (report["phases"]["rounds"] - sum(
                    one["ms"] for one in rounds)) / len(rounds)}


def _rate(one):
    """How fast a round went; None when it was too short to tell."""
    if one["bytes"] < FIRST_ROUND_BYTES:
        return None
    return one["bytes"] / one["ms"] / 1e3


class Qmp:
    """A connection to QEMU's control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self._read()
        self("qmp_capabilities")

    def _read(self):
        line = self.file.readline()
        if not line:
            raise Failed("QEMU has closed its control socket")
        return json.loads(line)

    def __call__(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._read()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise Failed(f"QEMU: {command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(self, accept, seconds):
        """Waits for an event for which accept(message) is true."""
        self.socket.settimeout(seconds)
        try:
            while True:
                while self.events:
                    message = self.events.pop(0)
                    if accept(message):
                        return message
                self.events.append(self._read())
        except TimeoutError:
            return None
        finally:
            self.socket.settimeout(None)


def _is_final(message):
    return (message["event"] == "MIGRATION" and
            message["data"]["status"] in ("completed", "failed", "cancelled"))


class Qemu(Contender):
    """QEMU with its smallest machine and no limit on the bandwidth."""

    vcpu = "CPU 0"
    program = "qemu-system-x86_64"
    auto_converge = False

    def __init__(self, observer, cores, downtime_ms=10, hugepages=False):
        super().__init__(observer, cores)
        self.hugepages = hugepages
        self.downtime_ms = downtime_ms
        self.label = f"QEMU {downtime_ms} ms"

    @classmethod
    def version(cls):
        """Returns a line, or None when it is not installed."""
        if not shutil.which(cls.program):
            return None
        done = subprocess.run([cls.program, "--version"], check=False,
                              capture_output=True, text=True)
        return done.stdout.splitlines()[0]

    def command(self, kernel, cmdline, memory_mib, machine="microvm"):
        memory = []
        if self.hugepages:
            machine += ",memory-backend=mem"
            memory = ["-object", "memory-backend-memfd,id=mem,hugetlb=on,"
                      f"size={memory_mib}M"]
        return [self.program, "-M", machine, *memory, "-accel", "kvm", "-cpu",
                "host,-arch-capabilities", "-m", f"{memory_mib}M",
                "-nodefaults", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", kernel, "-append", cmdline]

    def command_with(self, kernel, cmdline, memory_mib):
        return self.command(kernel, cmdline, memory_mib, "q35") + [
            "-name", "bench,debug-threads=on"]

    def card(self, place):
        """The arguments for the card of a guest that is at a place."""
        if not place or not place.tap:
            return []
        return ["-netdev", f"tap,id=n,ifname={place.tap},script=no,"
                "downscript=no,vhost=off", "-device",
                f"virtio-net-pci,netdev=n,mac={MAC},disable-legacy=on,romfile="]

    def _launch(self, command, place):
        path = os.path.join(self.directory, self._next())
        guest = self._made(command + self.card(place) + [
            "-name", "bench,debug-threads=on", "-qmp",
            f"unix:{path},server=on"], place=place)
        guest.find_vcpu(self.vcpu, self.cores.vcpu)
        guest.qmp = self._connect(guest, path)
        guest.started_with = command
        self.observer.wait_vcpu(guest.console)
        return guest

    def _connect(self, guest, path):
        # QEMU waits for us, but says nowhere that it has begun to.
        deadline = time.monotonic() + 10
        while True:
            try:
                return Qmp(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if guest.process.poll() is not None:
                    raise Failed(f"QEMU ended{guest.said()}") from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def start(self, kernel, cmdline, memory_mib, disk=False, cpus=1):
        # The smallest machine has no PCI to put one on without being asked.
        pci = disk or self.places[0].tap
        command = self.command(kernel, cmdline, memory_mib,
                               "microvm,pcie=on" if pci else "microvm")
        command += ["-smp", str(cpus)]
        if disk:
            command += [
                "-object", "iothread,id=io", "-drive",
                f"if=none,id=d,format=raw,file={self.image()},cache=none",
                "-device", "virtio-blk-pci,drive=d,iothread=io,"
                "disable-legacy=on"]
        return self._launch(command, self.places[0])

    def receive(self, source):
        base = source.started_with
        if "-incoming" not in base:
            base = base + ["-incoming", "defer"]
        guest = self._launch(base, self._opposite(source))
        guest.qmp("migrate-set-capabilities", capabilities=[
            {"capability": "events", "state": True}])
        guest.qmp("migrate-incoming", uri=f"tcp:{guest.place.address}:0")
        address = guest.qmp("query-migrate")["socket-address"][0]
        guest.port = address["port"]
        return guest

    def move(self, source, target):
        source.qmp("migrate-set-capabilities", capabilities=[
            {"capability": "events", "state": True},
            {"capability": "auto-converge", "state": self.auto_converge}])
        source.qmp("migrate-set-parameters",
                   **{"downtime-limit": self.downtime_ms,
                      "max-bandwidth": 10 * 1000 ** 3})
        # It may have told late how it came here.
        source.qmp.events.clear()
        source.qmp("migrate",
                   uri=f"tcp:{target.place.address}:{target.port}")
        event = source.qmp.wait_event(_is_final, MOVE_SECONDS)
        if not event:
            source.qmp("migrate_cancel")
            raise Failed(f"did not converge in {MOVE_SECONDS} s")
        if event["data"]["status"] != "completed":
            raise Failed(f"QEMU: {event['data']['status']}{target.said()}")
        target.qmp.wait_event(lambda m: m["event"] == "RESUME", 10)
        report = source.qmp("query-migrate")
        source.qmp("quit")
        source.process.wait()
        return {"downtime_ms": float(report["downtime"]),
                "predicted_ms": None,
                "total_ms": float(report["total-time"]),
                "bytes": report["ram"]["transferred"],
                "phases": None,
                "rounds": report["ram"]["dirty-sync-count"]}
