# SPDX-License-Identifier: MIT
"""The emulated host, seen from outside.

Host starts QEMU with TCG and talks to the agent (agent.c, wire.h) over one
virtio console port. Host.spawn and Host.listen give channels: a command's
pipes, a unix socket there that one program calls, or one that is called.

Threads: one reader a host, which hands every frame to its channel. Anybody
may use a channel; everything in it is under the host's one condition, which
is notified whenever something arrives. Nothing here polls, and every wait has
a deadline.
"""

import collections
import itertools
import os
import socket
import struct
import subprocess
import threading
import time

HEADER = struct.Struct("<IHBBQ")
PAYLOAD = 65536
(SPAWN, LISTEN, SIGNAL, DATA, END, HELLO, LISTENS, CALLED, EXIT,
 ERROR, STARTS, CALL) = range(1, 13)
STDIN, STDOUT, STDERR = range(3)


class LabError(Exception):
    """Something in the lab did not do what it must; the text says what."""


class Timeout(LabError):
    """It did not do it in time."""


class Piece(collections.namedtuple("Piece", "time_ns data")):
    """Bytes that arrived together, and when, on the emulated host's clock."""


class Channel:
    """One command, or one socket, in the emulated host."""

    def __init__(self, host, number, what):
        self.host = host
        self.number = number
        self.what = what
        self.pieces = []        # of standard output, or of the socket
        self.errors = bytearray()
        self.status = None      # of a command: exit status, -N for signal N
        self.failure = None
        self.started_ns = None  # a command, on the emulated host's clock
        self.listens = False
        self.called = False
        self._ended = set()
        self._watchers = []

    def watch(self, function):
        """Calls function(Piece), or function(None) at the end.

        It gets what arrived before, too. It runs in the reader's thread,
        under the condition, and must not wait.
        """
        with self.host.changed:
            for piece in self.pieces:
                function(piece)
            if STDOUT in self._ended:
                function(None)
            self._watchers.append(function)

    def arrived(self, kind, stream, time_ns, data):
        """Takes one frame; only the reader calls this."""
        if kind == DATA and stream == STDERR:
            self.errors += data
        elif kind == DATA:
            self.pieces.append(Piece(time_ns, data))
            for function in self._watchers:
                function(self.pieces[-1])
        elif kind == END:
            self._ended.add(STDOUT if stream == STDIN else stream)
            if stream != STDERR:
                for function in self._watchers:
                    function(None)
        elif kind == EXIT:
            status = struct.unpack("<i", data)[0]
            self.status = os.waitstatus_to_exitcode(status)
        elif kind == ERROR:
            self.failure = data.decode(errors="replace")
        elif kind == STARTS:
            self.started_ns = time_ns
        elif kind == LISTENS:
            self.listens = True
        elif kind == CALLED:
            self.called = True

    @property
    def ended(self):
        """There is no more to come of standard output, or the socket."""
        return STDOUT in self._ended

    @property
    def over(self):
        """The command exited and all of its output is here."""
        return self.status is not None and {STDOUT, STDERR} <= self._ended

    def write(self, data):
        """Writes to standard input, or to the socket."""
        for at in range(0, len(data), PAYLOAD):
            self.host.send(DATA, self.number, data[at:at + PAYLOAD])

    def signal(self, number):
        """Sends a signal to the command and whatever it started."""
        self.host.send(SIGNAL, self.number, bytes([number]))

    def output(self):
        """All bytes of standard output until now."""
        with self.host.changed:
            return b"".join(piece.data for piece in self.pieces)

    def wait(self, seconds):
        """Waits for the command to end; its exit status."""
        self.host.wait(lambda: self.over or self.failure, seconds,
                       f"the end of {self.what}")
        if self.failure:
            raise LabError(f"{self.what}: {self.failure}")
        return self.status


class Host:
    """An emulated machine with a real kvm_amd, and the agent in it."""

    def __init__(self, boot, log, devices=(), words="", changed=None,
                 pass_fds=()):
        """Starts it; hosts whose guests move between them share a condition.

        devices: QEMU's options for more than the machine, and the files that
        they name by number; words: for /init.
        """
        self.changed = changed or threading.Condition()
        self.address = None     # on a network that it shares with others
        self._channels = {}
        self._numbers = itertools.count(1)
        self._gone = None
        self._hello = False
        self._send_lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._errors = open(f"{log}.qemu", "w+b")
        command = [
            # Ours to end, whatever becomes of us.
            "setpriv", "--pdeathsig", "KILL", "--",
            *boot.command(words),
            "-serial", f"file:{log}", "-display", "none", "-monitor", "none",
            "-device", "virtio-serial-pci,max_ports=2",
            "-chardev", f"socket,id=agent,fd={theirs.fileno()}",
            "-device", "virtserialport,chardev=agent,nr=1",
            # Behind it: the first device makes the agent's port vport0p1.
            *devices,
        ]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno(), *pass_fds], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=self._errors)
        theirs.close()
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, seconds):
        """Waits until the agent speaks."""
        self.wait(lambda: self._hello, seconds,
                  f"the emulated host to boot (its console: {self._log})")

    def _receive(self, length):
        data = bytearray()
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    def _read(self):
        try:
            while True:
                header = HEADER.unpack(self._receive(HEADER.size))
                length, number, kind, stream, time_ns = header
                data = self._receive(length)
                with self.changed:
                    if kind == HELLO:
                        self._hello = True
                    elif number in self._channels:
                        self._channels[number].arrived(kind, stream, time_ns,
                                                       data)
                    self.changed.notify_all()
        except (EOFError, OSError):
            with self.changed:
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace").strip()
                self._gone = "the emulated host is gone" + \
                    (f" ({said})" if said else "")
                self.changed.notify_all()

    def wait(self, condition, seconds, what):
        """Waits until condition() is true and returns its value."""
        end = time.monotonic() + seconds
        with self.changed:
            while not (value := condition()):
                left = end - time.monotonic()
                if self._gone:
                    raise LabError(f"{self._gone}, waiting for {what}")
                if left <= 0:
                    raise Timeout(f"waited {seconds:.0f} s for {what}")
                self.changed.wait(left)
            return value

    @property
    def gone(self):
        """It is no more, and nothing can be asked of it."""
        return self._gone is not None

    def check(self):
        """Raises when the emulated host is gone."""
        with self.changed:
            if self._gone:
                raise LabError(f"{self._gone}; its console: {self._log}")

    def send(self, kind, number, data=b""):
        """Sends one frame to the agent."""
        frame = HEADER.pack(len(data), number, kind, STDIN, 0) + data
        try:
            with self._send_lock:
                self._socket.sendall(frame)
        except OSError as error:
            raise LabError(f"the emulated host is gone: {error}") from error

    def _open(self, kind, data, what):
        channel = Channel(self, next(self._numbers), what)
        with self.changed:
            self._channels[channel.number] = channel
        self.send(kind, channel.number, data)
        return channel

    def spawn(self, words, what=None):
        """Starts a command; does not wait for anything."""
        data = b"".join(str(word).encode() + b"\0" for word in words)
        return self._open(SPAWN, data, what or str(words[0]))

    def run(self, words, seconds):
        """Runs a command to its end: (exit status, output, errors)."""
        channel = self.spawn(words)
        status = channel.wait(seconds)
        return (status, channel.output().decode(errors="replace"),
                channel.errors.decode(errors="replace"))

    def listen(self, path, seconds=30):
        """Makes a unix socket that somebody there will call."""
        return self._socket_at(LISTEN, path, "listens", seconds)

    def call(self, path, seconds=30):
        """Calls a unix socket there."""
        return self._socket_at(CALL, path, "called", seconds)

    def _socket_at(self, kind, path, is_done, seconds):
        channel = self._open(kind, str(path).encode(), f"socket {path}")
        self.wait(lambda: getattr(channel, is_done) or channel.failure,
                  seconds, channel.what)
        if channel.failure:
            raise LabError(f"{channel.what}: {channel.failure}")
        return channel

    def kill(self):
        """Ends the emulated host as a power cut does.

        What it said until then is here when this returns.
        """
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def close(self):
        """Ends the emulated host; all in it ends with it."""
        self.kill()
        self._socket.close()
        self._errors.close()


class Boot(collections.namedtuple("Boot", "qemu kernel initrd tsc_khz lacks",
                                  defaults=((),))):
    """What an emulated host boots from: the emulator, files, its TSC's rate.

    lacks: features that its processor has not.
    """

    def command(self, words=""):
        """QEMU's command line for the host, its devices not counted.

        One CPU: with two, TCG's nested paging corrupts memory now and then,
        the emulated host's own too. Who wants more cores busy starts more
        hosts.

        No XSAVE: TCG does not intercept XSETBV, so KVM would never learn a
        guest's XCR0, and load a wrong one at every entry. No ERMS: "rep
        movsb" is TCG's slowest copy.

        Guests get a stable clock only when the host believes in its TSC.
        TCG's is good, but the kernel distrusts what it cannot calibrate. On a
        busy machine it calibrates grossly wrong, so it is told the rate.
        """
        cpu = ",-".join(("max", "xsave", "erms", "fsrm", *self.lacks))
        return [
            self.qemu, "-accel", "tcg", "-cpu", cpu,
            "-machine", "q35", "-smp", "1", "-m", "2048", "-nodefaults",
            "-no-user-config", "-no-reboot", "-kernel", str(self.kernel),
            "-initrd", str(self.initrd), "-append",
            "console=ttyS0 panic=-1 quiet tsc=reliable "
            f"tsc_early_khz={self.tsc_khz} {words}".strip(),
        ]


def store_drive(store):
    """QEMU's options for a disk that holds a store, which stays as it is."""
    return ["-drive", f"file={store},if=none,id=store,format=raw,snapshot=on,"
            "cache=unsafe", "-device", "virtio-blk-pci,drive=store"]
