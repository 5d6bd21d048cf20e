# SPDX-License-Identifier: MIT
"""The observer's other end: consoles are handed to it, and what it saw is asked.

One observer watches all guests of a run. A console is the read end of a pipe
that is some VMM's standard output; each gets an ID.
"""

import collections
import fcntl
import os
import select
import socket
import subprocess
import time


class Gone(Exception):
    """A guest, or the observer, ended when something was wanted of it."""


class Observer:
    """A running observer process."""

    def __init__(self, program):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([program], stdin=theirs)
        theirs.close()
        self.socket = ours
        self.lines = collections.defaultdict(collections.deque)
        self.threads = {}
        self.closed = set()
        self.answers = collections.deque()
        self.used = set()
        self.realtime = self._answer("hello", 10) == "realtime=1"

    def close(self):
        self.socket.close()
        self.process.wait()

    def watch(self, fd):
        """Hands over a console. Returns its ID; fd may be closed then."""
        number = min(set(range(64)) - self.used)
        self.used.add(number)
        self.lines[number].clear()
        self.closed.discard(number)
        self.threads.pop(number, None)
        socket.send_fds(self.socket, [b"watch %d" % number], [fd])
        return number

    def forget(self, number):
        self._send(f"forget {number}")
        self._answer("forgotten", 10)
        self.used.discard(number)

    def find_vcpu(self, number, pid, name, cpu):
        """Has the thread called name… of pid pinned, now or when it appears."""
        word = name.replace(" ", "_")
        self._send(f"vcpu {number} {pid} {word} {-1 if cpu is None else cpu}")

    def wait_vcpu(self, number, seconds=10):
        """Waits until that thread was found. Returns its TID."""
        self._until(lambda: number in self.threads, seconds, "no vCPU thread")
        return self.threads[number]

    def begin(self):
        self._send("begin")
        self._answer("begun", 10)

    def end(self):
        """Returns what was seen since begin(): a dict of integers."""
        self._send("end")
        words = self._answer("end", 10).split()
        return {key: int(value) for key, value in
                (word.split("=") for word in words)}

    def wait_beats(self, count, seconds):
        """Waits until so many bytes have come since begin()."""
        deadline = time.monotonic() + seconds
        while True:
            self._send("beats")
            missing = count - int(self._answer("beats", 10))
            if missing <= 0:
                return
            if time.monotonic() > deadline:
                raise Gone("the guest does not beat")
            self._read(0.02)

    def line(self, number, start, seconds):
        """Waits for a line that begins with start. Returns the line."""
        def have():
            while self.lines[number]:
                self.found = self.lines[number].popleft()
                if self.found.startswith(start):
                    return True
            return False
        self._until(have, seconds, f"no line '{start}…' from the guest",
                    number)
        return self.found

    def _send(self, command):
        self.socket.send(command.encode())

    def _read(self, seconds):
        if not select.select([self.socket], [], [], seconds)[0]:
            return
        packet = self.socket.recv(4096).decode(errors="replace")
        if not packet:
            raise Gone("the observer has ended")
        kind, _, rest = packet.partition(" ")
        if kind == "text":
            number, _, line = rest.partition(" ")
            self.lines[int(number)].append(line)
        elif kind == "vcpu":
            number, tid = rest.split()
            self.threads[int(number)] = int(tid)
        elif kind == "closed":
            self.closed.add(int(rest))
        else:
            self.answers.append((kind, rest))

    def _answer(self, kind, seconds):
        self._until(lambda: self.answers, seconds, "the observer hangs")
        got, rest = self.answers.popleft()
        if got != kind:
            raise Gone(f"the observer says {got} {rest}")
        return rest

    def _until(self, condition, seconds, what, number=None):
        deadline = time.monotonic() + seconds
        while not condition():
            if number in self.closed:
                raise Gone(f"{what}: its process has ended")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Gone(f"{what} within {seconds} s")
            self._read(left)


def pipe():
    """A pipe for a console, wide enough to never make a guest wait."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, 1 << 20)  # F_SETPIPE_SZ
    return reader, writer
