# SPDX-License-Identifier: MIT
"""What the tests of this rung are made of: hosts, processes, QMP clients.

A test is a function with a sentence for a name, marked @test, that gets a
World. The world starts real godwit processes, each "host" with a directory of
control sockets of its own, and at the end of the test ends what it has started,
by pid, whatever became of the test. Results are waited for, with one generous
deadline; nothing sleeps in the hope that something has happened meanwhile.
"""

import ctypes
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import stream

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
GODWIT = BUILD / "godwit"
VERIFIER = ROOT / "tools" / "godwit-verify-stream"

DEADLINE = 45  # seconds, for anything; no test measures time by it
POLL = 0.01
# How long a pause may be where a test is not about that: on a machine that
# is busy with other things 10 ms can go by with nothing done.
PATIENT = ("--max-downtime", "1s")



def _load(path):
    """A program, as a module."""
    loader = importlib.machinery.SourceFileLoader("verifier", str(path))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("verifier", loader))
    loader.exec_module(module)
    return module


_VERIFIER = _load(VERIFIER)
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

TESTS = []


def patient(options):
    """Options of `migrate`. Unless they say how much patience to have: a lot,
    and the time to verify what arrives."""
    if "--max-downtime" in options:
        return options
    return *PATIENT, "--verify", *options


class Skipped(Exception):
    """This machine can't run the test; the reason is the text."""


def test(function):
    """Mark a test."""
    TESTS.append(function)
    return function


def check(condition, what):
    """A test's claim."""
    if not condition:
        raise AssertionError(what)


def equal(got, want, what):
    """A test's claim about a value."""
    check(got == want, f"{what}: {got!r}, not {want!r}")


def wait_until(condition, what, deadline=DEADLINE):
    """Until it holds; returns what it gave."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, f"not within {deadline} s: {what}")
        time.sleep(POLL)


# ---- processes ----

class Output:
    """What came out of a descriptor, and a way to wait for more."""

    def __init__(self, descriptor):
        self.data = b""
        self.ended = False
        self.changed = threading.Condition()
        self.awake = threading.Event()
        self.awake.set()
        self.thread = threading.Thread(
            target=self._read, args=(descriptor,), daemon=True)
        self.thread.start()

    def sleep(self, path):
        """Fill the pipe that is open for writing at path, and read nothing of
        it until wake()."""
        before = len(self.data)
        self.awake.clear()
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            # The reader may have been waiting for one more piece.
            os.write(pipe, b"\n")
            wait_until(lambda: len(self.data) > before, "one piece is read")
            while True:
                os.write(pipe, b"-" * 63 + b"\n")
        except BlockingIOError:
            pass
        finally:
            os.close(pipe)

    def wake(self):
        """Read on."""
        self.awake.set()

    def _read(self, descriptor):
        while True:
            self.awake.wait()
            try:
                piece = os.read(descriptor, 65536)
            except OSError:
                piece = b""
            with self.changed:
                self.data += piece
                self.ended = not piece
                self.changed.notify_all()
            if not piece:
                os.close(descriptor)
                return

    def wait(self, pattern, start=0, deadline=DEADLINE):
        """Until the pattern is there, from `start` on; returns the match."""
        wanted = re.compile(pattern.encode(), re.M)
        end = time.monotonic() + deadline
        with self.changed:
            while True:
                match = wanted.search(self.data, start)
                if match:
                    return match
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(
                        f"{pattern!r} did not come; the end of what did: "
                        f"{self.data[-300:]!r}")
                self.changed.wait(left)

    def wait_more(self, count=1):
        """Until so many more bytes came than there are now."""
        start = len(self.data)
        self.wait("(?s).{%d}" % count, start)

    def wait_end(self):
        """Until nobody can write to it any more; returns all."""
        with self.changed:
            done = self.changed.wait_for(lambda: self.ended, DEADLINE)
        check(done, "the output does not end")
        return self.data

    def text(self):
        """All so far, for searching."""
        return self.data.decode(errors="replace")


def _die_with_the_test():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A godwit process with its three pipes."""

    def __init__(self, argv, env, stdin=None, stdout=None, pass_fds=()):
        self.argv = [str(word) for word in argv]
        self.popen = subprocess.Popen(
            self.argv, env=env, pass_fds=pass_fds,
            stdin=subprocess.PIPE if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE, bufsize=0, cwd=ROOT,
            preexec_fn=_die_with_the_test)
        self.pid = self.popen.pid
        self.err = Output(os.dup(self.popen.stderr.fileno()))
        self.popen.stderr.close()
        self.out = None
        if stdout is None:
            self.out = Output(os.dup(self.popen.stdout.fileno()))
            self.popen.stdout.close()

    def send(self, data):
        """Type at the console."""
        self.popen.stdin.write(data)

    def close_input(self):
        """End of input."""
        self.popen.stdin.close()

    def wait(self):
        """Until it has ended; returns its exit status."""
        try:
            status = self.popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name()} does not end") from None
        self.err.wait_end()
        if self.out:
            self.out.wait_end()
        return status

    def expect_exit(self, status):
        """It ends, with this status."""
        got = self.wait()
        check(got == status, f"{self.name()} ended with {got}, not {status}: "
              f"{self.err.text()[-500:]}")
        return self

    def running(self):
        """It has not ended."""
        return self.popen.poll() is None

    def name(self):
        """For messages."""
        return f"`godwit {' '.join(self.argv[1:3])} …` (pid {self.pid})"

    # -- signals --

    def signal(self, number):
        """To this process."""
        self.popen.send_signal(number)

    def stop(self):
        """SIGSTOP, and until it has stopped, every thread of it."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: all(state == "T" for state in self.states()),
                   f"{self.name()} stops")

    def cont(self):
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self):
        """SIGKILL, and until it is gone."""
        self.signal(signal.SIGKILL)
        self.popen.wait(DEADLINE)

    # -- /proc --

    def tasks(self):
        """The directories of its threads."""
        return sorted(pathlib.Path(f"/proc/{self.pid}/task").iterdir())

    def states(self):
        """A letter a thread."""
        letters = []
        for task in self.tasks():
            try:
                stat = (task / "stat").read_text()
            except OSError:
                continue
            letters.append(stat.rpartition(")")[2].split()[0])
        return letters

    def descriptors(self):
        """What it has open, in words, sorted."""
        links = []
        for link in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                links.append(os.readlink(link))
            except OSError:
                continue
        return sorted(re.sub(r"\d{2,}", "N", link) for link in links)

    def mappings(self):
        """How many lines /proc/PID/maps has."""
        maps = pathlib.Path(f"/proc/{self.pid}/maps").read_text()
        return len(maps.splitlines())

    def resident(self):
        """Bytes of memory in use."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def close(self):
        """End it, whatever state it is in."""
        if self.running():
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdin:
            self.popen.stdin.close()


class Listener(Process):
    """`godwit listen`, and where it listens."""

    address = None

    def find_address(self, asked):
        """The port that it prints, or that the path is listened at."""
        if asked.startswith("unix:"):
            path = asked[len("unix:"):]
            wait_until(lambda: is_listened_at(path), f"listens at {path}")
            self.address = asked
        elif asked.startswith("tcp:"):
            port = self.out.wait(r"\A(\d+)\n")[1].decode()
            self.address = asked.rpartition(":")[0] + ":" + port
        return self

    def console(self):
        """The guest's console: without the port."""
        data = self.out.data
        if self.address and self.address.startswith("tcp:"):
            data = data.partition(b"\n")[2]
        return data


def is_listened_at(path):
    """Whether a unix socket of this path accepts connections."""
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if words[-1] == path and words[3] == "00010000":
            return True
    return False


# ---- QMP ----

class Qmp:
    """A client as QEMU's are: JSON in, JSON out, events in between."""

    def __init__(self, path, negotiate=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(path))
        self.buffer = b""
        self.events = []
        self.greeting = self.read()
        if negotiate:
            self.execute("qmp_capabilities")

    def read(self):
        """The next message; None at the end."""
        while b"\n" not in self.buffer:
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def send(self, text):
        """Raw bytes."""
        self.sock.sendall(text)

    def answer(self):
        """The next message that is no event."""
        while True:
            message = self.read()
            check(message is not None, "the control socket was closed")
            if "event" not in message:
                return message
            self.events.append(message)

    def call(self, command, **arguments):
        """The whole answer."""
        request = {"execute": command}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value
                                    for key, value in arguments.items()}
        self.send(json.dumps(request).encode() + b"\n")
        return self.answer()

    def execute(self, command, **arguments):
        """What it returns; an error is one of the test."""
        answer = self.call(command, **arguments)
        check("return" in answer, f"{command}: {answer}")
        return answer["return"]

    def error(self, command, **arguments):
        """The text of the error that must come."""
        answer = self.call(command, **arguments)
        check("error" in answer, f"{command} was not refused: {answer}")
        return answer["error"]["desc"]

    def event(self, name, **data):
        """Until this event came; it and what came before are forgotten."""
        while True:
            while self.events:
                message = self.events.pop(0)
                got = message.get("data", {})
                if message["event"] == name and all(
                        got.get(key) == value for key, value in data.items()):
                    return message
            message = self.read()
            check(message is not None, f"the end instead of the event {name}")
            check("event" in message, f"unasked: {message}")
            self.events.append(message)

    def migration(self, status):
        """Until query-migrate says so; returns the answer."""
        return wait_until(lambda: self._migration_is(status),
                          f"query-migrate says {status}")

    def _migration_is(self, status):
        answer = self.execute("query-migrate")
        return answer if answer.get("status") == status else None

    def close(self):
        """Hang up."""
        self.sock.close()


# ---- hosts ----

class Result:
    """What became of a command that ends by itself."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    def json(self):
        """Its standard output as one object."""
        return json.loads(self.out)


class Host:
    """Where processes find each other by name."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.dir = world.dir / name
        self.dir.mkdir()
        self.env = dict(os.environ, XDG_RUNTIME_DIR=str(self.dir))

    def start(self, *words, kind=Process, **options):
        """Any godwit command, left running."""
        process = kind([GODWIT, *words], self.env, **options)
        self.world.processes.append(process)
        return process

    def command(self, *words, status=0):
        """Any godwit command, to its end; `status` None: whatever it is."""
        process = self.start(*words, stdin=subprocess.DEVNULL)
        got = process.wait()
        if status is not None:
            check(got == status, f"`godwit {' '.join(map(str, words))}` ended "
                  f"with {got}, not {status}: {process.err.text()}")
        return Result(got, process.out.text(), process.err.text())

    def run(self, guest, *cmdline, options=(), memory="32M", cpus=1,
            debug_exit=True, name="bird", **pipes):
        """`godwit run` of one of our guests."""
        words = ["run", "--kernel", BUILD / "guests" / f"{guest}.elf",
                 "--cmdline", " ".join(cmdline), "--memory", memory,
                 "--cpus", cpus]
        if name:
            words += ["--name", name]
        if debug_exit:
            words.append("--debug-exit")
        return self.start(*words, *options, **pipes)

    def listen(self, *options, address="tcp:127.0.0.1:0", **pipes):
        """`godwit listen`, until it does."""
        process = self.start("listen", address, *options, kind=Listener,
                             **pipes)
        return process.find_address(address)

    def migrate(self, to, *options, name="bird", status=0):
        """`godwit migrate`, to its end."""
        return self.command("migrate", name, "--to", self.world.tapped(to),
                            *patient(options), status=status)

    def start_migrate(self, to, *options, name="bird"):
        """`godwit migrate`, left running."""
        return self.start("migrate", name, "--to", self.world.tapped(to),
                          *patient(options), stdin=subprocess.DEVNULL)

    def socket_path(self, name="bird"):
        """The control socket of a VM."""
        return self.dir / "godwit" / f"{name}.sock"

    def qmp(self, name="bird", negotiate=True):
        """A client of a VM's control socket, as soon as there is one."""
        path = self.socket_path(name)
        wait_until(path.exists, f"{name} has a control socket")
        client = Qmp(path, negotiate)
        self.world.clients.append(client)
        return client

    def list(self):
        """The VMs of this host: name to what `godwit list` knows."""
        vms = self.command("list", "--json").json()["vms"]
        return {vm["name"]: vm for vm in vms}

    def status(self, name="bird"):
        """What `godwit status` knows, or None when there is no such VM."""
        result = self.command("status", name, "--json", status=None)
        return result.json() if result.status == 0 else None

    def wait_running(self, name="bird"):
        """Until the guest runs here."""
        def runs():
            status = self.status(name)
            return status if status and status["running"] else None
        return wait_until(runs, f"{name} runs on host {self.name}")


class World:
    """All that a test has started."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="godwit-test-"))
        self.named = {}
        self.processes = []
        self.clients = []
        self.relays = []
        self.peers = []

    def host(self, name="a"):
        """The host of this name."""
        if name not in self.named:
            self.named[name] = Host(self, name)
        return self.named[name]

    def hosts(self):
        """Two of them, as most moves need."""
        return self.host("a"), self.host("b")

    def relay(self, target, faults=False):
        """Between a source and a target; its captures are verified at the end.

        faults: the connection may end at any record
        """
        relay = stream.Relay(target, DEADLINE, faults)
        self.relays.append(relay)
        return relay

    def tapped(self, address):
        """Where to go instead of to a listener's own address, so that what is
        said on the way is verified; other addresses stay what they are."""
        port = address.rpartition(":")[2]
        for process in self.processes:
            own = getattr(process, "address", None)
            if own and process.running() and (
                    own == address or own.startswith("tcp:") and
                    address.startswith("tcp:") and
                    own.rpartition(":")[2] == port):
                return self.relay(address, faults=None).address
        return address

    def relayed_pair(self):
        """Two sockets, connected by way of a relay."""
        ours, near = socket.socketpair()
        far, theirs = socket.socketpair()
        self.relay(f"unix:{self.dir}/pair", faults=None).join(near, far)
        return ours, theirs

    def connect(self, address, source=None):
        """Be a source."""
        peer = stream.Peer(stream.connect(address, source), DEADLINE)
        self.peers.append(peer)
        return peer

    def accept_one(self):
        """Be a target: an address, and a function that waits for a peer."""
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(DEADLINE)
        self.peers.append(server)

        def accept():
            peer = stream.Peer(server.accept()[0], DEADLINE)
            self.peers.append(peer)
            return peer
        return f"tcp:127.0.0.1:{server.getsockname()[1]}", accept

    def verify_streams(self):
        """What went through the relays is what FORMAT.md says."""
        for relay in self.relays:
            relay.close()
            relay.finish()
            for connection in relay.connections:
                if connection.names["source"]:
                    self._verify(relay, connection)

    @staticmethod
    def _verify(relay, connection):
        """It is as FORMAT.md says; what was changed on its way is not, or the
        target has found that out."""
        names = connection.names
        faults = relay.faults
        if faults is None:
            faults = names["source"][-1] != "DONE"
        ours, theirs = (io.BytesIO(connection.captured[side])
                        for side in ("source", "target"))
        try:
            source, _ = _VERIFIER.verify(ours, theirs, may_be_cut=faults)
        except _VERIFIER.Fault as fault:
            check(connection.changed, f"not as FORMAT.md says: {fault}; "
                  f"records: {brief(names)}")
            return
        check(not connection.changed or source.outcome.startswith("REFUSE"),
              f"nobody saw that it was changed: {brief(names)}")

    def close(self):
        """End all, in any state."""
        for relay in self.relays:
            relay.close()
        for thing in self.clients + self.peers + self.processes:
            thing.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def story(self):
        """What everybody said, for a test that failed."""
        parts = []
        for process in self.processes:
            status = process.popen.poll()
            if status == 0 and process.argv[1] in ("status", "list"):
                continue
            parts.append(f"--- {' '.join(process.argv)}\n    pid "
                         f"{process.pid}, exit status {status}")
            if process.out and process.out.data:
                parts.append(f"    out: …{process.out.data[-600:]!r}")
            for line in process.err.text().splitlines()[-30:]:
                parts.append(f"    err: {line}")
        for relay in self.relays:
            for connection in relay.connections:
                parts.append(f"--- relayed: {brief(connection.names)}")
        return "\n".join(parts)


def brief(names):
    """The records of both sides, repetitions counted."""
    sides = []
    for side, listed in names.items():
        words = []
        for name in listed:
            if words and words[-1][0] == name:
                words[-1][1] += 1
            else:
                words.append([name, 1])
        sides.append(side + ": " + " ".join(
            name + (f"×{count}" if count > 1 else "")
            for name, count in words))
    return "; ".join(sides)
