# SPDX-License-Identifier: MIT
"""Clients of a guest, which run on another host for as long as it moves.

Each is one command, begun when it is made; its lines are read as they come, and
nothing is judged by the time that it takes, but for the pings, of which a pause
explains the loss of so many.
"""

import collections
import math
import re
import statistics

from guest import ANSWER_S
from host import LabError

INTERVAL_MS = 10
# On either side of a pause, a ping that had just left.
EDGES = 2
SESSION_PORT, STREAM_PORT = 22, 5201
# In each direction: little, for what goes that way is emulated. With buffers
# that hold less than an interval's worth, nobody sends what nobody takes.
STREAM = ("--bidir", "--bitrate", "1M", "--window", "32K", "--time", "86400",
          "--interval", "0.5", "--format", "k", "--forceflush")
# The first of them may have begun before it was asked for.
INTERVALS = 2

ANSWER = re.compile(rb"icmp_seq=(\d+) .*time=([\d.]+) ms")
# Of iperf3: what the client sent in an interval, or received.
WAYS = ("TX-C", "RX-C")
INTERVAL = re.compile(rb"\]\[([TR]X-C)\] +[\d.]+-[\d.]+ +sec +([\d.]+) ")
Loss = collections.namedtuple("Loss", "lost explained")


class Client:
    """A command on the client's host that goes on; its lines as they come."""

    def __init__(self, host, words, what):
        self.host = host
        self.lines = 0
        self._rest = b""
        self._channel = host.spawn(words, what)
        self._channel.watch(self._arrived)

    def _arrived(self, piece):
        if piece is None:
            return
        *lines, self._rest = (self._rest + piece.data).split(b"\n")
        for line in lines:
            self.lines += 1
            self.take(line)

    def take(self, line):
        """Takes a line; in the reader's thread, under its lock."""

    @property
    def errors(self):
        """What it has complained of."""
        return self._channel.errors.decode(errors="replace")

    def save(self, path):
        """Writes what it said."""
        with self.host.changed:
            path.write_bytes(self._channel.output() + self._channel.errors)

    def wait(self, condition, what):
        """Waits for a condition; the command must not end before."""
        channel = self._channel
        self.host.wait(lambda: condition() or channel.over, ANSWER_S,
                       f"{what} ({channel.what})")
        if channel.over:
            raise LabError(f"{channel.what} has ended with {channel.status}, "
                           f"waiting for {what}: {channel.output()[-200:]!r} "
                           f"{self.errors}")

    def end(self):
        """Ends it, as Ctrl-C does."""
        self._channel.signal(2)
        self._channel.wait(ANSWER_S)


class Pings(Client):
    """Pings without a break."""

    def __init__(self, host, address):
        self._answers = {}      # number -> round trip in ms
        self._again = 0
        super().__init__(
            host, ["ping", "-i", INTERVAL_MS / 1000, address], "ping")
        self.prove_alive()

    def take(self, line):
        match = ANSWER.search(line)
        if match:
            self._again += int(match[1]) in self._answers
            self._answers[int(match[1])] = float(match[2])

    def prove_alive(self):
        """Waits until some more are answered that are sent after this."""
        with self.host.changed:
            # All but those of a round trip are answered long ago.
            number = max(self._answers, default=0)
            after = number + self._in_time(self._trip_ms()) + 1
        self.wait(lambda: max(self._answers, default=0) > after,
                  "a ping to be answered")

    def _trip_ms(self):
        return statistics.median(self._answers.values() or [0])

    @staticmethod
    def _in_time(time_ms):
        """How many are sent in a time."""
        return math.ceil(time_ms / INTERVAL_MS)

    def judge(self, pause_ms):
        """Ends them; a Loss, which a pause of that length must explain."""
        self.end()
        # They are numbered from 1. Those after the last answer may have one.
        lost = max(self._answers) - len(self._answers)
        # Answers that are on their way arrive; the pings may not.
        explained = (self._in_time(pause_ms) +
                     self._in_time(self._trip_ms() / 2) + EDGES)
        if self._again:
            raise LabError(f"{self._again} pings were answered twice")
        if lost > explained:
            raise LabError(f"{lost} pings were lost in a move whose pause "
                           f"explains {explained}")
        return Loss(lost, explained)


class Session(Client):
    """Lines that are answered, one at a time (init/session)."""

    def __init__(self, host, address):
        super().__init__(
            host, ["/lab/session", address, SESSION_PORT], "a session")

    def prove_alive(self):
        """Waits until a line that is sent after this was answered."""
        after = self.lines + 1
        self.wait(lambda: self.lines > after, "an answer")


class Stream(Client):
    """iperf3, both ways."""

    def __init__(self, host, address):
        self._moved = collections.Counter()  # way -> intervals with data
        super().__init__(host, ["iperf3", "-c", address, "-p",
                                STREAM_PORT, *STREAM], "iperf3")

    def take(self, line):
        match = INTERVAL.search(line)
        if match:
            self._moved[match[1].decode()] += float(match[2]) > 0

    def flows(self, way):
        """Data goes this way, and has since the last prove_alive()."""
        return self._moved[way] >= INTERVALS

    def prove_alive(self):
        """Waits until data goes both ways."""
        with self.host.changed:
            self._moved.clear()
        self.wait(lambda: all(map(self.flows, WAYS)), "data both ways")
