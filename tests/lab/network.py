# SPDX-License-Identifier: MIT
"""The network of emulated hosts, and the moments at which it can be stopped.

A Switch carries Ethernet frames from emulator to emulator. Each has a stream
socket to it, on which a frame is its length and so many bytes (QEMU's "stream"
network). A host can be cut off, as if its cable were pulled.

And the switch reads along: it knows the records of a migration (FORMAT.md,
section 1) when one begins a TCP segment, as those do that end a phase, for
their sender has nothing else on its way. A Trap waits for the first of a kind
and holds it, and what its sender has to say after it in this connection. So
what breaks can be made to break exactly before, or right after, a certain
record has arrived, however fast or slow the hosts are.

Threads: one a switch, which alone touches sockets and ports; others have it do
what they want done (_do).
"""

import concurrent.futures
import queue
import selectors
import socket
import struct
import threading

from streams import verifier

LENGTH = struct.Struct(">I")
RECORD = struct.Struct("<IIII")
PORTS = struct.Struct(">HH")
# A port that takes nothing loses what is more than this, as on any switch.
BACKLOG = 8 << 20
CHUNK = 1 << 18
# Offsets and values of Ethernet, IPv4 (RFC 791) and TCP (RFC 9293).
ETHERTYPE, IPV4 = 12, b"\x08\x00"
IP, IP_LENGTH, IP_PROTOCOL, TCP = 14, 16, 23, 6
TCP_DATA_OFFSET = 12
SHORTEST = IP + 20 + 20
# Of the records that are waited for; longer ones are not looked at.
PAYLOAD_MAX = 256


def segment(frame, port):
    """The payload of a TCP segment to or from a port; None: it is none."""
    if (len(frame) < SHORTEST or frame[ETHERTYPE:IP] != IPV4
            or frame[IP_PROTOCOL] != TCP):
        return None
    tcp = IP + 4 * (frame[IP] & 15)
    if port not in PORTS.unpack_from(frame, tcp):
        return None
    end = IP + int.from_bytes(frame[IP_LENGTH:IP_LENGTH + 2], "big")
    return frame[tcp + 4 * (frame[tcp + TCP_DATA_OFFSET] >> 4):end]


def record_of(payload):
    """The type of the record that a payload begins with.

    None: there is none, or no short and whole one.
    """
    if len(payload) < RECORD.size:
        return None
    kind, length, _, crc = RECORD.unpack_from(payload)
    if length > PAYLOAD_MAX:
        return None
    # Of half a record the sum is wrong.
    summed = bytes(payload[:RECORD.size - 4] +
                   payload[RECORD.size:RECORD.size + length])
    return kind if verifier().crc32c(summed) == crc else None


def number_of(name):
    """A record's type, of its name."""
    known = verifier()
    for table in (known.SOURCE_TYPES, known.TARGET_TYPES):
        for number, (known_name, _) in table.items():
            if name == known_name:
                return number
    raise KeyError(name)


class Trap:
    """Waits for one record of one move and holds it."""

    def __init__(self, name, listener):
        self._kind = number_of(name)
        self._listener = listener
        self.port = None
        self.held = []

    @property
    def sprung(self):
        """The record is here, and goes nowhere."""
        return bool(self.held)

    def takes(self, port, frame):
        """Holds the frame if it is the one, or comes after it."""
        if self.port not in (None, port):
            return False
        payload = segment(frame, self._listener)
        if payload is None or not (self.held or
                                   record_of(payload) == self._kind):
            return False
        self.port = port
        self.held.append(frame)
        return True


class _Port:
    """A host's side of the switch."""

    def __init__(self, number, end):
        self.number = number
        self.socket = end
        self.arrived = bytearray()
        self.leaving = bytearray()


class Switch:
    """Joins hosts, which are numbers; changed: notified of a sprung trap."""

    def __init__(self, changed):
        self.changed = changed
        self._ports = {}        # number -> _Port
        self._places = {}       # MAC address -> number
        self._cut = set()       # numbers
        self._trap = None
        self._selector = selectors.DefaultSelector()
        self._calls = queue.SimpleQueue()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _do(self, function, *arguments):
        """Has the switch's thread call a function; what that returns."""
        done = concurrent.futures.Future()
        self._calls.put((done, function, arguments))
        self._wake.send(b"!")
        return done.result()

    def connect(self, number):
        """A socket for a host's emulator; its port is as it was."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._do(self._connect, _Port(number, ours))
        return theirs

    def plug(self, number, plugged):
        """Pulls a host's cable, or puts it back."""
        self._do(self._cut.discard if plugged else self._cut.add, number)

    def place_of(self, address):
        """The host behind which an Ethernet address (bytes) is, or None.

        It is known of the last frame from there. Whoever waits for a change is
        notified of it.
        """
        return self._places.get(address)

    def set_trap(self, name, listener):
        """A Trap for the first record of that name from now on.

        listener: the port at which the move's target listens, for connections
        of earlier moves may still be sending what was lost.
        """
        trap = Trap(name, listener)
        self._do(setattr, self, "_trap", trap)
        return trap

    def release(self, trap, deliver):
        """Lets go what is held; the record gets there, or is lost."""
        self._do(self._release, trap, deliver)

    def close(self):
        """Ends it; its hosts have a network no longer."""
        self._do(self._close)
        self._thread.join()

    # What follows is the switch's thread's.

    def _run(self):
        while not self._closed:
            for key, events in self._selector.select():
                if key.data is None:
                    key.fileobj.recv(CHUNK)
                    self._answer()
                elif self._ports.get(key.data.number) is key.data:
                    self._serve(key.data, events)

    def _answer(self):
        while not self._calls.empty():
            done, function, arguments = self._calls.get()
            done.set_result(function(*arguments))

    def _connect(self, port):
        if port.number in self._ports:
            self._disconnect(self._ports[port.number])
        self._ports[port.number] = port
        self._selector.register(port.socket, selectors.EVENT_READ, port)

    def _disconnect(self, port):
        if self._ports.get(port.number) is port:
            del self._ports[port.number]
            self._selector.unregister(port.socket)
            port.socket.close()

    def _watch(self, port, events):
        self._selector.modify(port.socket, events, port)

    def _close(self):
        for port in list(self._ports.values()):
            self._disconnect(port)
        self._closed = True

    def _serve(self, port, events):
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(port)
            if events & selectors.EVENT_READ:
                data = port.socket.recv(CHUNK)
                if not data:
                    raise ConnectionResetError
                port.arrived += data
                self._forward(port)
        except BlockingIOError:
            pass
        except OSError:
            # The host is dead.
            self._disconnect(port)

    def _flush(self, port):
        sent = port.socket.send(port.leaving)
        del port.leaving[:sent]
        if not port.leaving:
            self._watch(port, selectors.EVENT_READ)

    def _forward(self, port):
        """Passes on the whole frames of a port that have arrived."""
        at, arrived = 0, port.arrived
        while at + LENGTH.size <= len(arrived):
            start = at + LENGTH.size
            end = start + LENGTH.unpack_from(arrived, at)[0]
            if end > len(arrived):
                break
            frame = bytes(arrived[start:end])
            at = end
            if not self._is_held(port, frame):
                self._pass_on(port, frame)
        del arrived[:at]

    def _is_held(self, port, frame):
        trap = self._trap
        if trap is None or not trap.takes(port, frame):
            return False
        with self.changed:
            self.changed.notify_all()
        return True

    def _pass_on(self, port, frame):
        to, by = frame[:6], frame[6:12]
        self._learn(by, port.number)
        place = self._places.get(to)
        for other in self._ports.values():
            if (other is port or {port.number, other.number} & self._cut
                    or place not in (None, other.number)
                    or len(other.leaving) > BACKLOG):
                continue
            if not other.leaving:
                self._watch(other, selectors.EVENT_READ |
                            selectors.EVENT_WRITE)
            other.leaving += LENGTH.pack(len(frame)) + frame

    def _learn(self, address, number):
        if self._places.get(address) == number:
            return
        with self.changed:
            self._places[address] = number
            self.changed.notify_all()

    def _release(self, trap, deliver):
        self._trap = None
        for frame in trap.held[0 if deliver else 1:]:
            self._pass_on(trap.port, frame)
