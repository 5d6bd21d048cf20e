# SPDX-License-Identifier: MIT
"""The migration stream, as much of it as the tests of this rung take in hand.

Records, read and written from migration/FORMAT.md; a relay between a source
and a target that captures both directions and can hold, change or cut at any
record; a source and a target of our own for talking to the other half.
"""

import socket
import struct
import threading

MAGIC = 0x0A0D544957444F47
HEADER = struct.Struct("<IIII")

TYPES = {
    0x01: "HELLO", 0x02: "CONFIG", 0x03: "IMAGE", 0x04: "REHEARSE",
    0x05: "SECTION", 0x06: "STATE_END", 0x07: "ROUND", 0x08: "PAGES",
    0x09: "ZERO", 0x0A: "ROUND_END", 0x0B: "PAUSED", 0x0C: "COMMIT",
    0x0D: "ABORT", 0x0E: "PING", 0x0F: "QUERY", 0x10: "DONE",
    0x11: "EXPECT", 0x12: "DIGEST", 0x13: "STATE_DIGEST",
    0x41: "WELCOME", 0x42: "ACCEPT", 0x43: "REHEARSED", 0x44: "ROUND_ACK",
    0x45: "LOADED", 0x46: "RUNNING", 0x47: "NACK", 0x48: "REFUSE",
    0x49: "PONG", 0x4A: "VERDICT",
}
NUMBERS = {name: number for number, name in TYPES.items()}
VERDICTS = {1: "running", 2: "never", 3: "unknown"}


# ---- bytes ----

def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def crc32c(data):
    """Only short records are summed here, so a byte at a time will do."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def record(name, payload=b"", sequence=0):
    """A whole record. Not for PAGES, whose sum ends before the data."""
    number = NUMBERS[name] if isinstance(name, str) else name
    head = struct.pack("<III", number, len(payload), sequence)
    return head + struct.pack("<I", crc32c(head + payload)) + payload


def string(text):
    """string[N]: a length and the bytes."""
    data = text.encode()
    return struct.pack("<H", len(data)) + data


class Fields:
    """A payload, taken from front to back."""

    def __init__(self, data):
        self.data = data
        self.pos = 0

    def take(self, fmt):
        """One number or a tuple of several."""
        values = struct.unpack_from("<" + fmt, self.data, self.pos)
        self.pos += struct.calcsize("<" + fmt)
        return values if len(values) > 1 else values[0]

    def string(self):
        """string[N]."""
        size = self.take("H")
        self.pos += size
        return self.data[self.pos - size:self.pos].decode()


def greeting(session, version=(1, 1), magic=MAGIC, commit_ms=5000):
    """The payload of HELLO and QUERY."""
    return (struct.pack("<QHHI", magic, *version, 0) + session
            + struct.pack("<II", commit_ms, 30000) + string("a test"))


def reason_of(payload):
    """The text of REFUSE, NACK or ABORT."""
    fields = Fields(payload)
    fields.take("I")
    return fields.string()


class Config:
    """CONFIG as something that can be changed."""

    def __init__(self, payload):
        fields = Fields(payload)
        self.name = fields.string()
        self.memory, self.cpus = fields.take("QI")
        self.tsc_khz, self.xsave_size = fields.take("II")
        self.cpuid = [list(fields.take("7I"))
                      for _ in range(fields.take("I"))]
        self.cmdline = fields.string()
        self.devices = []
        for _ in range(fields.take("I")):
            self.devices.append([fields.string(), fields.string(),
                                 fields.take("I"), fields.string()])
        self.page_size = fields.take("I")
        self.ranges = [fields.take("QQ") for _ in range(fields.take("I"))]
        self.kernel_size, self.initrd_size = fields.take("QQ")
        self.host = fields.take("16s")
        self.disks = [[fields.string(), *fields.take("QQ")]
                      for _ in range(fields.take("I"))]

    def leaf(self, function, index=0):
        """A CPUID leaf: function, index, flags, eax, ebx, ecx, edx."""
        return next(leaf for leaf in self.cpuid
                    if leaf[0] == function and leaf[1] == index)

    def give_memory(self, size):
        """Another size, and the ranges that go with it."""
        gib = 1 << 30
        self.memory = size
        self.ranges = [(0, min(size, 3 * gib))]
        if size > 3 * gib:
            self.ranges.append((4 * gib, size - 3 * gib))

    def pack(self):
        """The payload again."""
        out = string(self.name) + struct.pack(
            "<QIIII", self.memory, self.cpus, self.tsc_khz, self.xsave_size,
            len(self.cpuid))
        out += b"".join(struct.pack("<7I", *leaf) for leaf in self.cpuid)
        out += string(self.cmdline) + struct.pack("<I", len(self.devices))
        for kind, name, vectors, options in self.devices:
            out += string(kind) + string(name) + struct.pack("<I", vectors)
            out += string(options)
        out += struct.pack("<II", self.page_size, len(self.ranges))
        out += b"".join(struct.pack("<QQ", *pair) for pair in self.ranges)
        out += struct.pack("<QQ16sI", self.kernel_size, self.initrd_size,
                           self.host, len(self.disks))
        return out + b"".join(string(name) + struct.pack("<QQ", dev, ino)
                              for name, dev, ino in self.disks)


# ---- sockets ----

def connect(address, source=None):
    """A connection to tcp:HOST:PORT or unix:PATH."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    sock = socket.create_connection(
        (host.strip("[]"), int(port)),
        source_address=(source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listen_beside(address):
    """A socket that listens, of the kind that the address is, and where."""
    kind, _, rest = address.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(rest + ".relay")
        sock.listen()
        return sock, address + ".relay"
    host = rest.rpartition(":")[0]
    bare = host.strip("[]")
    sock = socket.create_server(
        (bare, 0), family=socket.getaddrinfo(bare, 0)[0][0])
    return sock, f"tcp:{host}:{sock.getsockname()[1]}"


def read_exactly(sock, size):
    """So many bytes, or None when the connection ends before."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            got = sock.recv_into(view)
        except ConnectionError:
            return None
        if not got:
            return None
        view = view[got:]
    return data


def read_record(sock):
    """(name, payload), or None when the connection has ended."""
    head = read_exactly(sock, HEADER.size)
    if head is None:
        return None
    number, length, _, _ = HEADER.unpack(head)
    payload = read_exactly(sock, length)
    if payload is None:
        return None
    return TYPES.get(number, hex(number)), bytes(payload)


class Peer:
    """One end of a connection, in the hands of a test."""

    def __init__(self, sock, deadline):
        self.sock = sock
        self.sequence = 0
        sock.settimeout(deadline)

    def send(self, name, payload=b""):
        """A record with the next number."""
        self.sock.sendall(record(name, payload, self.sequence))
        self.sequence += 1

    def receive(self):
        """(name, payload), or None at the end."""
        return read_record(self.sock)

    def expect(self, name):
        """The payload of the next record, which must be this one."""
        got = self.receive()
        assert got, f"the connection ended instead of {name}"
        text = got[0]
        if text in ("REFUSE", "NACK", "ABORT"):
            text += ": " + reason_of(got[1])
        assert got[0] == name, f"{text} instead of {name}"
        return got[1]

    def expect_end(self):
        """Nothing more comes."""
        got = self.receive()
        assert got is None, f"{got[0]} instead of the end"

    def close(self):
        """Hang up."""
        self.sock.close()


# ---- the relay ----

class Gate:
    """Where the relay stops before it passes a record on."""

    def __init__(self, name, deadline):
        self.name = name
        self.deadline = deadline
        self.reached = threading.Event()
        self.decided = threading.Event()
        self.cut = False

    def wait(self):
        """Until the record is here; the peers wait for it meanwhile."""
        assert self.reached.wait(self.deadline), \
            f"{self.name} did not come in {self.deadline} s"
        return self

    def release(self):
        """Pass it on, and all that follows."""
        self.decided.set()

    def close(self):
        """It never arrives: both sides see the connection end."""
        self.cut = True
        self.decided.set()


class Connection:
    """One connection through the relay: two sockets, two captures."""

    def __init__(self, relay, source, target):
        self.relay = relay
        self.source = source
        self.target = target
        self.captured = {"source": bytearray(), "target": bytearray()}
        self.names = {"source": [], "target": []}
        self.changed = False  # what arrived is not what was sent
        self.threads = [
            threading.Thread(target=self._pump, daemon=True,
                             args=("source", self.source, self.target)),
            threading.Thread(target=self._pump, daemon=True,
                             args=("target", self.target, self.source)),
        ]
        for thread in self.threads:
            thread.start()

    def _pump(self, side, come, go):
        try:
            while self._pass_one(side, come, go):
                pass
            go.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _pass_one(self, side, come, go):
        head = read_exactly(come, HEADER.size)
        if head is None:
            return False
        number, length, sequence, _ = HEADER.unpack(head)
        payload = read_exactly(come, length)
        if payload is None:
            return False
        name = TYPES.get(number, hex(number))
        self.names[side].append(name)
        change = self.relay.changes.pop(name, None)
        if change:
            # The sum of PAGES ends before the data, so that may be anything.
            whole = head + change(bytes(payload)) if name == "PAGES" else \
                record(name, change(bytes(payload)), sequence)
            self.changed |= whole != head + payload
            head, payload = whole[:HEADER.size], whole[HEADER.size:]
        if not self.relay.may_pass(name, self):
            return False
        # First: once it is sent, its answer may be captured, and all be over.
        self.captured[side] += head + payload
        go.sendall(head)
        go.sendall(payload)
        return True

    def cut(self):
        """End it, for both sides at once."""
        for sock in (self.source, self.target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Relay:
    """Stands between a source and the target that listens at an address.

    faults: the connection may end at any record; None: unless DONE was said
    """

    def __init__(self, target, deadline, faults):
        self.target = target
        self.deadline = deadline
        self.faults = faults
        self.gates = {}
        self.changes = {}
        self.connections = []
        self.listener, self.address = listen_beside(target)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.join(sock, connect(self.target))
            except OSError:
                sock.close()

    def join(self, source, target):
        """Be between two that are connected to us."""
        self.connections.append(Connection(self, source, target))

    def hold(self, name):
        """Stop before the next record of this name is passed on."""
        gate = Gate(name, self.deadline)
        self.gates[name] = gate
        return gate

    def change(self, name, function):
        """Pass the next one on with another payload."""
        self.changes[name] = function

    def may_pass(self, name, connection):
        """Wait at the gate, if there is one."""
        gate = self.gates.pop(name, None)
        if not gate:
            return True
        gate.reached.set()
        gate.decided.wait(self.deadline)
        if gate.cut or not gate.decided.is_set():
            connection.cut()
            return False
        return True

    def close(self):
        """No new connections, and no old ones."""
        # shutdown() wakes the thread in accept(); close() would not.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for gate in self.gates.values():
            gate.close()
        for connection in self.connections:
            connection.cut()

    def finish(self):
        """All that was passed on is in the captures."""
        for connection in self.connections:
            for thread in connection.threads:
                thread.join(self.deadline)
