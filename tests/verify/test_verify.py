#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The stream verifier: what is valid passes, and every fault is found.

Streams are made here by hand, record by record. Faults come in two kinds: torn
(cut anywhere, any bit flipped outside page data), and lies, which are whole
records with right checksums that say what they must not.
"""

import importlib.machinery
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import unittest

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                    "tools", "godwit-verify-stream")


def load_tool():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("verify_stream", TOOL)
    spec = importlib.util.spec_from_loader("verify_stream", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


tool = load_tool()

MIB = 1024**2
MAGIC = b"GODWIT\r\n"
SESSION = bytes(range(16))
TYPES = {name: kind for types in (tool.SOURCE_TYPES, tool.TARGET_TYPES)
         for kind, (name, _) in types.items()}


def slow_crc32c(data):
    """Bit by bit, to check the tool's tables."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def string(text):
    return struct.pack("<H", len(text)) + text.encode()


def hello(low=1, high=1, magic=MAGIC, capabilities=0):
    return magic + struct.pack("<HHI", low, high, capabilities) + SESSION + \
        struct.pack("<II", 5000, 30000) + string("test 1")


def welcome(session=SESSION, version=1, capabilities=0):
    return MAGIC + struct.pack("<HI", version, capabilities) + session + \
        string("test 2")


def device(kind, name, vectors=0, options=""):
    return string(kind) + string(name) + struct.pack("<I", vectors) + \
        string(options)


def config(name="guest", memory=16 * MIB, cpus=1, devices=None, ranges=None,
           kernel=5, initrd=3, page=4096, disks=()):
    if devices is None:
        devices = [device("serial", "serial0")]
    if ranges is None:
        ranges = [(0, memory)]
    return string(name) + struct.pack("<QIIII", memory, cpus, 2000000, 4096, 1) \
        + bytes(28) + string("console=ttyS0") + \
        struct.pack("<I", len(devices)) + b"".join(devices) + \
        struct.pack("<II", page, len(ranges)) + \
        b"".join(struct.pack("<QQ", *r) for r in ranges) + \
        struct.pack("<QQ", kernel, initrd) + bytes(16) + \
        struct.pack("<I", len(disks)) + \
        b"".join(string(name) + struct.pack("<QQ", dev, ino)
                 for name, dev, ino in disks)


def runs(*list_of_runs, npages=None):
    if npages is None:
        npages = sum(n for _, n in list_of_runs)
    return struct.pack("<II", len(list_of_runs), npages) + \
        b"".join(struct.pack("<QII", gpa, n, 0) for gpa, n in list_of_runs)


def section(kind, name, version=1, data=b"state"):
    return string(kind) + string(name) + struct.pack("<I", version) + data


def u32(value):
    return struct.pack("<I", value)


def sections(cpus=1):
    return [("SECTION", section("vcpu", str(i))) for i in range(cpus)] + [
        ("SECTION", section("vm", "vm")),
        ("SECTION", section("run", "run")),
        ("SECTION", section("serial", "serial0")),
        ("STATE_END", u32(cpus + 3))]


def a_move():
    """Records of a valid source: (name, payload[, page data])."""
    return [
        ("HELLO", hello()),
        ("CONFIG", config()),
        ("IMAGE", struct.pack("<Q", 0) + b"kern"),
        ("IMAGE", struct.pack("<Q", 4) + b"elrd"),
        ("REHEARSE", b""), *sections(),
        ("PING", b""),
        ("ROUND", u32(0)),
        ("EXPECT", runs((0, 512), (0x400000, 512))),
        ("PAGES", runs((0x3000, 1)), b"\xaa" * 4096),
        ("ZERO", runs((0, 3), (0x4000, 4092))),
        ("ROUND_END", struct.pack("<IQ", 0, 4096)),
        ("ROUND", u32(1)),
        ("ROUND_END", struct.pack("<IQ", 1, 0)),
        ("PAUSED", b""),
        ("ZERO", runs((0x3000, 1))), *sections(),
        ("COMMIT", b""),
        ("DONE", b""),
    ]


def u32s(*values):
    return u32(len(values)) + b"".join(u32(value) for value in values)


A_PAGE = bytes(range(256)) * 16
EMPTY = tool.crc32c(bytes(2 * MIB))
FILLED = tool.crc32c(A_PAGE + bytes(2 * MIB - 4096))
STATE = tool.crc32c(b"state")


def a_verified_move(memory=16 * MIB):
    """The same with digests: page 3, which was sent, is zero in the end."""
    records = a_move()
    records[0] = ("HELLO", hello(capabilities=1))
    zero = [i for i, r in enumerate(records) if r[0] == "ZERO"][1]
    records[zero:zero + 1] = [
        ("PAGES", runs((0x2000, 1), (0x200000, 1)), A_PAGE * 2),
        ("ZERO", runs((0x3000, 1), (0x2000, 1)))]
    end = len(records) - 3
    records[end:end] = [
        ("DIGEST", u32(0) + u32s(EMPTY, FILLED)),
        ("DIGEST", u32(2) + u32s(*[EMPTY] * (memory // MIB // 2 - 2))),
        ("STATE_DIGEST", u32s(*[STATE] * 4))]
    return records


TIMES = bytes(24)


def its_target():
    return [("WELCOME", welcome()), ("ACCEPT", bytes(8)),
            ("REHEARSED", TIMES), ("PONG", b""), ("ROUND_ACK", u32(0)),
            ("ROUND_ACK", u32(1)), ("LOADED", TIMES), ("RUNNING", bytes(8))]


def reason(code=0, text="no"):
    return u32(code) + string(text)


def encode(records, first=0):
    """Bytes, and the spans in them that no checksum covers."""
    out = bytearray()
    bare = []
    for number, (name, payload, *data) in enumerate(records, first):
        data = data[0] if data else b""
        kind = TYPES.get(name, name)
        head = struct.pack("<III", kind, len(payload) + len(data), number)
        out += head + struct.pack("<I", tool.crc32c(head + payload)) + payload
        bare.append((len(out), len(out) + len(data)))
        out += data
    return bytes(out), [span for span in bare if span[0] < span[1]]


def verify(records, target=None, cut=False):
    return tool.verify(io.BytesIO(encode(records)[0]),
                       io.BytesIO(encode(target)[0]) if target else None, cut)


def at(name, nth=0):
    """Index of a record in a_move()."""
    return [i for i, r in enumerate(a_move()) if r[0] == name][nth]


def changed(name, payload, nth=0, data=None):
    records = a_move()
    records[at(name, nth)] = (name, payload) if data is None else \
        (name, payload, data)
    return records


class Valid(unittest.TestCase):
    def test_crc_is_castagnolis(self):
        self.assertEqual(tool.crc32c(b"123456789"), 0xE3069283)
        for size in *range(200), 4096, 5001:
            data = bytes(x * 37 & 0xFF for x in range(size))
            self.assertEqual(tool.crc32c(data), slow_crc32c(data))

    def test_a_move_passes(self):
        source, target = verify(a_move(), its_target())
        self.assertEqual(source.outcome, "moved")
        self.assertEqual([r.pages for r in source.rounds], [1, 0])
        self.assertEqual(source.rounds[0].zero, 4095)
        self.assertEqual(source.final.zero, 1)
        self.assertEqual(source.seen.count(0), 0)
        self.assertEqual(target.counts["ROUND_ACK"][0], 2)

    def test_without_rounds(self):
        records = [r for r in a_move() if r[0] not in ("ROUND", "ROUND_END")]
        for name in ("EXPECT", "PAGES", "ZERO"):
            del records[[r[0] for r in records].index(name)]
        source, _ = verify(records)
        self.assertEqual(source.seen.count(0), 4095)

    def test_memory_above_the_hole(self):
        big = 5 * 1024**3
        ranges = [(0, 3 * 1024**3), (4 * 1024**3, 2 * 1024**3)]
        records = changed("CONFIG", config(memory=big, ranges=ranges))
        records[at("ZERO")] = ("ZERO", runs((0, 3), (6 * 1024**3 - 4096 * 4092,
                                                     4092)))
        verify(records)

    def test_abort_may_come_anywhere_before_commit(self):
        for i in range(1, at("COMMIT") + 1):
            source, _ = verify(a_move()[:i] + [("ABORT", reason(1, "user"))])
            self.assertEqual(source.outcome, "aborted: user")

    def test_a_dry_run_ends_between_rehearsal_and_pause(self):
        first, last = at("STATE_END") + 1, at("PAUSED")
        names = [record[0] for record in a_move()]
        for i in range(1, at("COMMIT") + 1):
            records = a_move()[:i] + [("ABORT", reason(3, "dry"))]
            inside = names[first:i].count("ROUND") > \
                names[first:i].count("ROUND_END")
            if first <= i <= last and not inside:
                source, _ = verify(records)
                self.assertEqual(source.outcome, "aborted: dry")
            else:
                with self.assertRaises(tool.Fault):
                    verify(records)

    def test_ping_may_come_anywhere_before_the_last_state_end(self):
        end = at("STATE_END", 1)
        for i in range(1, end + 1):
            verify(a_move()[:i] + [("PING", b"")] + a_move()[i:])
        for i in (0, end + 1, end + 2, end + 3):
            with self.assertRaises(tool.Fault):
                verify(a_move()[:i] + [("PING", b"")] + a_move()[i:])

    def test_a_refusal_ends_it(self):
        for i in range(1, at("COMMIT")):
            source, _ = verify(a_move()[:i], [("REFUSE", reason())])
            self.assertEqual(source.outcome, "REFUSE: no")

    def test_a_nack_ends_it(self):
        source, _ = verify(a_move(), its_target()[:-1] + [("NACK", reason())])
        self.assertEqual(source.outcome, "NACK: no")

    def test_a_question(self):
        for kind, word in (1, "running"), (2, "never"), (3, "unknown"):
            source, _ = verify([("QUERY", hello()), ("DONE", b"")],
                               [("VERDICT", SESSION + u32(kind))])
            self.assertEqual(source.outcome, "verdict: " + word)

    def test_optional_records_are_skipped_and_counted(self):
        for i in range(1, len(a_move()) + 1):
            records = a_move()
            records.insert(i, (0x80000123, b"whatever"))
            verify(records)

    def test_a_cut_between_records_can_be_allowed(self):
        for i in range(len(a_move())):
            verify(a_move()[:i], cut=True)


class Verified(unittest.TestCase):
    def refuses(self, text, nth, *instead, target=None):
        """Records in the place of one of the three, from the back."""
        records = a_verified_move()
        i = len(records) - 6 + nth
        records[i:i + 1] = instead
        with self.assertRaises(tool.Fault) as caught:
            verify(records, target)
        self.assertIn(text, caught.exception.reason)

    def test_a_verified_move_passes(self):
        source, _ = verify(a_verified_move())
        self.assertEqual(source.digests, 8)
        target = its_target()
        target[0] = ("WELCOME", welcome(capabilities=1))
        verify(a_verified_move(), target)

    def test_a_target_that_cannot_is_left_alone(self):
        with self.assertRaises(tool.Fault) as caught:
            verify(a_verified_move(), its_target())
        self.assertIn("asked for", caught.exception.reason)
        verify(a_verified_move()[:1] + [("ABORT", reason(2))],
               its_target()[:1])

    def test_a_dry_run_has_no_pause(self):
        records = a_move()
        records[0] = ("HELLO", hello(capabilities=2))
        with self.assertRaises(tool.Fault) as caught:
            verify(records)
        self.assertIn("PAUSED, in a dry run", caught.exception.reason)
        records[at("PAUSED"):] = [("ABORT", reason(1))]
        for bits in 0, 2:
            verify(records, [("WELCOME", welcome(capabilities=bits))])

    def test_capabilities_that_nobody_offered(self):
        for bits, records in (1, a_move()), (2, a_verified_move()):
            with self.assertRaises(tool.Fault) as caught:
                verify(records, [("WELCOME", welcome(capabilities=bits))])
            self.assertIn("capabilities", caught.exception.reason)

    def test_digests_are_of_what_was_sent(self):
        self.refuses("digest of chunk 0", 0,
                     ("DIGEST", u32(0) + u32s(STATE, EMPTY)))
        self.refuses("digest of chunk 1", 0,
                     ("DIGEST", u32(0) + u32s(EMPTY, EMPTY)))
        self.refuses("digest of chunk 7", 1,
                     ("DIGEST", u32(2) + u32s(*[EMPTY] * 5, STATE)))
        self.refuses("other states", 2,
                     ("STATE_DIGEST", u32s(*[STATE] * 3, EMPTY)))
        self.refuses("other states", 2, ("STATE_DIGEST", u32s(*[STATE] * 3)))

    def test_without_page_data_nobody_knows(self):
        records = a_verified_move()
        records[-6] = ("DIGEST", u32(0) + u32s(STATE, EMPTY))
        data, bare = encode(records)
        for start, end in reversed(bare):
            data = data[:start] + data[end:]
        tool.verify(io.BytesIO(data), has_page_data=False)

    def test_all_of_memory_once_in_order(self):
        digests = a_verified_move()[-6:-4]
        for wrong in ("DIGEST", u32(1) + u32s(EMPTY)), \
                ("DIGEST", u32(0) + u32s()), \
                ("DIGEST", u32(0) + u32s(*[EMPTY] * 9)):
            self.refuses("are here", 0, wrong)
        self.refuses("are here", 1, digests[0])
        self.refuses("2 of 8 chunks", 1)
        self.refuses("DIGEST should come", 0, ("STATE_END", u32(4)))
        self.refuses("where STATE_END", 2, a_verified_move()[-4],
                     a_verified_move()[-4])

    def test_nobody_digests_unasked(self):
        records = a_verified_move()
        records[0] = ("HELLO", hello())
        with self.assertRaises(tool.Fault) as caught:
            verify(records)
        self.assertIn("did not speak of it", caught.exception.reason)


class Torn(unittest.TestCase):
    def setUp(self):
        self.stream, self.bare = encode(a_move())

    def bare_at(self, i):
        return any(a <= i < b for a, b in self.bare)

    def assert_fault(self, data):
        with self.assertRaises(tool.Fault) as caught:
            tool.verify(io.BytesIO(data))
        self.assertLessEqual(caught.exception.offset, len(data))

    def test_cut_at_every_byte(self):
        for i in range(len(self.stream)):
            if self.bare_at(i) and i % 101:
                continue
            self.assert_fault(self.stream[:i])

    def test_a_torn_end_can_be_allowed_and_nothing_else(self):
        for i in range(0, len(self.stream), 7):
            tool.verify(io.BytesIO(self.stream[:i]), may_be_torn=True)
        data = bytearray(self.stream[:200])
        data[40] ^= 1  # in HELLO, which is whole
        with self.assertRaises(tool.Fault):
            tool.verify(io.BytesIO(bytes(data)), may_be_torn=True)

    def test_a_bit_flipped_in_every_byte(self):
        for i in range(len(self.stream)):
            if self.bare_at(i):
                continue
            data = bytearray(self.stream)
            data[i] ^= 1 << i % 8
            self.assert_fault(bytes(data))

    def test_page_data_is_not_covered(self):
        data = bytearray(self.stream)
        data[self.bare[0][0] + 5] ^= 1
        tool.verify(io.BytesIO(bytes(data)))

    def test_a_capture_may_leave_page_data_out_and_must_say_so(self):
        start, end = self.bare[0]
        bare = self.stream[:start] + self.stream[end:]
        source, _ = tool.verify(io.BytesIO(bare), has_page_data=False)
        self.assertEqual(source.rounds[0].pages, 1)
        for data, has_page_data in (bare, True), (self.stream, False):
            with self.assertRaises(tool.Fault):
                tool.verify(io.BytesIO(data), has_page_data=has_page_data)

    def test_every_record_left_out_doubled_or_swapped(self):
        records = a_move()
        optional = ("PING", "EXPECT", "PAGES", "ZERO")
        for i, record in enumerate(records):
            if record[0] not in optional:
                with self.assertRaises(tool.Fault, msg=f"without {i}"):
                    verify(records[:i] + records[i + 1:])
            if record[0] not in optional:
                with self.assertRaises(tool.Fault, msg=f"doubled {i}"):
                    verify(records[:i] + [record] + records[i:])

    def test_a_replayed_record_has_the_wrong_number(self):
        head, _ = encode(a_move()[:3])
        again, _ = encode([a_move()[2]], 2)
        self.assert_fault(head + again)

    def test_garbage_after_the_end(self):
        self.assert_fault(self.stream + b"x")


class Lies(unittest.TestCase):
    def refuses(self, reason_text, records, target=None):
        with self.assertRaises(tool.Fault) as caught:
            verify(records, target)
        self.assertIn(reason_text, caught.exception.reason)

    def test_greeting(self):
        self.refuses("magic", changed("HELLO", hello(magic=b"GODWIT\n\r")))
        self.refuses("versions 2 to 1", changed("HELLO", hello(2, 1)))
        self.refuses("this tool knows", changed("HELLO", hello(2, 3)))
        self.refuses("after the last", changed("HELLO", hello() + b"x"))
        self.refuses("optional record", [(0x80000001, b"")] + a_move())
        self.refuses("not known", [(0x41, welcome())])

    def test_machine(self):
        for text, wrong in (
                ("is not a name", config(name="../x")),
                ("is not a name", config(name="-x")),
                ("NUL", config(name="a\0b")),
                ("at most 63", config(name="x" * 64)),
                ("memory_size", config(memory=16 * MIB + 4096)),
                ("memory_size", config(memory=8 * MIB)),
                ("cpus", config(cpus=0)), ("cpus", config(cpus=255)),
                ("twice", config(devices=[device("rtc", "a")] * 2)),
                ("vectors", config(devices=[device("rtc", "a", 33)])),
                ("at most 32", config(devices=[device("rtc", f"d{i}")
                                               for i in range(33)])),
                ("page_size", config(page=16384)),
                ("RAM at", config(ranges=[(MIB, 16 * MIB)])),
                ("RAM at", config(ranges=[(0, 8 * MIB), (8 * MIB, 8 * MIB)])),
                ("at most 2", config(ranges=[(0, 16 * MIB)] * 3)),
                ("boot image", config(kernel=2**63)),
                ("no device", config(disks=[("disk0", 1, 2)])),
                ("stands twice", config(disks=[("serial0", 1, 2)] * 2)),
                ("at most 32", config(disks=[("serial0", 1, 2)] * 33)),
                ("boot image", config(initrd=17 * MIB)),
                ("ends inside", config()[:-1])):
            self.refuses(text, changed("CONFIG", wrong))

    def test_image(self):
        for payload in (struct.pack("<Q", 1) + b"kern",
                        struct.pack("<Q", 0),
                        struct.pack("<Q", 0) + b"123456789"):
            self.refuses("IMAGE", changed("IMAGE", payload))

    def test_runs(self):
        page = bytes(4096)
        for text, wrong in (
                ("RAM", runs((16 * MIB, 1))),
                ("RAM", runs((16 * MIB - 4096, 2))),
                ("RAM", runs((2**64 - 4096, 2))),
                ("proper run", runs((1, 1))),
                ("proper run", runs((0, 0))),
                ("overlap", runs((0x2000, 2), (0x3000, 1))),
                ("don't have", runs((0, 1), npages=2))):
            self.refuses(text, changed("ZERO", wrong))
            self.refuses(text, changed("EXPECT", wrong))
            npages = struct.unpack("<I", wrong[4:8])[0]
            self.refuses(text, changed("PAGES", wrong, 0, page * npages))
        self.refuses("runs", changed("ZERO", runs()))
        self.refuses("at most", changed("PAGES", runs((0, 513)), 0,
                                        page * 513))
        self.refuses("don't make", changed("PAGES", runs((0, 1)), 0,
                                           page * 2))

    def test_rounds(self):
        self.refuses("instead of", changed("ROUND", u32(1)))
        self.refuses("ends as", changed("ROUND_END",
                                        struct.pack("<IQ", 1, 4096)))
        self.refuses("said to be", changed("ROUND_END",
                                           struct.pack("<IQ", 0, 4095)))

    def test_sections(self):
        self.refuses("no such part", changed("SECTION", section("vcpu", "1")))
        self.refuses("no such part", changed("SECTION", section("vcpu", "00")))
        self.refuses("no such part",
                     changed("SECTION", section("rtc", "serial0"), 3))
        self.refuses("twice", changed("SECTION", section("vcpu", "0"), 1))
        self.refuses("version 0", changed("SECTION", section("vm", "vm", 0),
                                          1))
        self.refuses("said to be", changed("STATE_END", u32(3)))
        self.refuses("rehearsed", changed("SECTION", section("vm", "vm", 2),
                                          5))
        records = a_move()
        del records[at("SECTION")]
        records[at("STATE_END") - 1] = ("STATE_END", u32(3))
        self.refuses("missing", records)

    def test_limits(self):
        for name, (_, limit) in ((n, (k, v)) for k, (n, v)
                                 in tool.SOURCE_TYPES.items()
                                 if n not in ("PAGES", "QUERY")):
            seldom = name in ("ABORT", "DIGEST", "STATE_DIGEST")
            wrong = a_move()[:2] + [(name, bytes(limit + 1))] if seldom else \
                changed(name, bytes(limit + 1))
            self.refuses("at most", wrong)

    def test_nothing_comes_after_commit_but_done(self):
        self.refuses("where DONE", a_move()[:-1] + [("ABORT", reason(1))])
        self.refuses("where DONE", a_move()[:-1] + [("COMMIT", b"")])

    def test_target(self):
        def other(i, record):
            return its_target()[:i] + [record] + its_target()[i + 1:]

        self.refuses("another session", a_move(),
                     other(0, ("WELCOME", welcome(bytes(16)))))
        self.refuses("version", a_move(),
                     other(0, ("WELCOME", welcome(version=2))))
        self.refuses("instead of", a_move(), other(4, ("ROUND_ACK", u32(1))))
        self.refuses("instead of", a_move(), other(6, ("RUNNING", bytes(8))))
        self.refuses("NACK before", a_move(), other(6, ("NACK", reason())))
        self.refuses("REFUSE after", a_move(), other(7, ("REFUSE", reason())))
        self.refuses("nothing more", a_move(),
                     its_target() + [("NACK", reason())])
        self.refuses("should come", a_move(), its_target()[:-1])
        self.refuses("kind", [("QUERY", hello()), ("DONE", b"")],
                     [("VERDICT", SESSION + u32(4))])


class CommandLine(unittest.TestCase):
    def run_tool(self, data, *args):
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return subprocess.run([sys.executable, TOOL, file.name, *args],
                                  capture_output=True, text=True, check=False)

    def test_exit_status_and_summary(self):
        data, _ = encode(a_move())
        good = self.run_tool(data)
        self.assertEqual(good.returncode, 0, good.stderr)
        self.assertIn("round 0: 1 pages, 4095 zero", good.stdout)
        bad = self.run_tool(data[:-1])
        self.assertEqual(bad.returncode, 1)
        self.assertIn(f"offset {len(data) - 1}: ends inside", bad.stderr)
        self.assertEqual(self.run_tool(data[:0], "--cut").returncode, 0)
        self.assertEqual(self.run_tool(data, "/no/such/file").returncode, 2)


if __name__ == "__main__":
    unittest.main()
