# SPDX-License-Identifier: MIT
"""What godwit sent in the emulated host, held against FORMAT.md.

A relay (relay.c) stands between source and target of a move and tells outside
what went by, all but page data; a Capture keeps it, connection by connection,
until the verifier has looked at it.
"""

import functools
import importlib.machinery
import importlib.util
import io
import pathlib
import struct
import sys

from host import LabError

TOOL = (pathlib.Path(__file__).resolve().parents[2] / "tools" /
        "godwit-verify-stream")
RELAY = "relay"
TOLD = struct.Struct("<IHH")
PORT, SOURCE, TARGET, END = range(4)  # enum kind of relay.c
START_S = 30
END_S = 60


@functools.lru_cache(maxsize=1)
def verifier():
    """The tool, as a module."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("verifier", str(TOOL))
    spec = importlib.util.spec_from_loader("verifier", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    # Moves of one guest send the same kernel again and again.
    module.crc32c = functools.lru_cache(maxsize=1024)(module.crc32c)
    return module


class Capture:
    """A relay in a host, and what it told."""

    def __init__(self, host, target):
        """target: ADDRESS:PORT, as the host has it."""
        address, _, port = target.rpartition(":")
        self.host = host
        self.port = None
        self._ended = False
        self._rest = bytearray()  # of output, not yet a whole frame
        self._streams = {}  # connection -> what each side sent
        self._channel = host.spawn([RELAY, address, port],
                                   f"relay to {target}")
        self._channel.watch(self._arrived)
        host.wait(lambda: self.port or self._channel.over, START_S,
                  "the relay's port")
        if not self.port:
            raise LabError(f"the relay failed: {self._channel.errors}")

    def _arrived(self, piece):
        """Takes frames apart; in the reader's thread, under its lock."""
        if piece is None:
            return
        self._rest += piece.data
        at = 0
        while at + TOLD.size <= len(self._rest):
            length, connection, kind = TOLD.unpack_from(self._rest, at)
            start, end = at + TOLD.size, at + TOLD.size + length
            if end > len(self._rest):
                break
            self._told(connection, kind, self._rest[start:end])
            at = end
        del self._rest[:at]

    def _told(self, connection, kind, data):
        if kind == PORT:
            self.port = struct.unpack("<H", data)[0]
        elif kind == END:
            self._ended = True
        else:
            sides = self._streams.setdefault(
                connection, (bytearray(), bytearray()))
            sides[kind - SOURCE].extend(data)

    def finish(self):
        """Ends the relay once the move's connection has ended."""
        try:
            self.host.wait(lambda: self._ended, END_S,
                           "the end of the connection")
        finally:
            self._channel.signal(9)

    def check(self):
        """Raises LabError at the first thing that is not as it should be."""
        if not self._streams:
            raise LabError("a move that nothing was captured of")
        known = verifier()
        for sides in self._streams.values():
            source, target = (io.BytesIO(side) for side in sides)
            try:
                known.verify(source, target, has_page_data=False)
            except known.Fault as fault:
                raise LabError(f"a stream is not as FORMAT.md says: {fault}"
                               ) from None
