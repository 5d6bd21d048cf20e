# SPDX-License-Identifier: MIT
"""What the blk guest leaves on an image, verified from outside.

guests/sector.h and guests/blk/plan.h say what that is: the superblock in sector
0 tells seed, span and how many passes are complete, and from these follows each
byte of the span. A pass that was broken off may have come to a sector or not.
"""

import struct

from lib import check

SECTOR = 512
ZONE = 128
WORD = 1 << 64
STEP = 0x9e3779b97f4a7c15
PRIME = 0xd6e8feb86659fd93
MIX = 0xbf58476d1ce4e5b9
MAGIC = 0x6b6c622d74776467
WRITTEN, ZEROED, DISCARDED = range(3)


def stamp(sector, number, seed):
    """What a sector's body begins with."""
    x = (sector * PRIME + number * STEP + seed + 1) % WORD
    x ^= x >> 32
    x = x * PRIME % WORD
    return (x ^ x >> 29) | 1


def pattern(sector, number, seed):
    """All bytes of a sector that pass @number wrote."""
    start = stamp(sector, number, seed)
    body = [(start + i * STEP) % WORD for i in range(4, 64)]
    total = (sum(body) + (sector + number + seed) * PRIME) % WORD
    return struct.pack("<64Q", sector, number, seed, total, *body)


def mixed(x):
    """The hash of the plan."""
    x ^= x >> 30
    x = x * MIX % WORD
    x ^= x >> 27
    x = x * STEP % WORD
    return x ^ x >> 31


class Image:
    """An image that a blk guest has used."""

    def __init__(self, path):
        self.data = path.read_bytes()
        (magic, self.seed, self.first, self.sectors, self.zero, self.can_zero,
         self.can_discard, self.passes, self.boots) = struct.unpack_from(
             "<9Q", self.data)
        check(magic == MAGIC, "sector 0 is no superblock")

    def kind(self, sector, number):
        """What pass @number does to a sector of the span."""
        x = mixed((sector // ZONE * STEP + number * MIX + self.seed) % WORD)
        if x % 100 < self.zero and self.can_zero:
            return ZEROED
        if x % 100 >= 100 - self.zero and self.can_discard:
            return DISCARDED
        return WRITTEN

    def holds(self, sector, number):
        """Whether a sector of the span holds what pass @number leaves."""
        at = (self.first + sector) * SECTOR
        got = self.data[at:at + SECTOR]
        if self.kind(sector, number) == ZEROED:
            return got == bytes(SECTOR)
        return got == pattern(self.first + sector, number, self.seed)

    def verify(self, broken_off=True):
        """Every sector: the last complete pass, or the one after it."""
        check(self.passes or broken_off, "no pass is complete")
        for sector in range(self.sectors):
            if not self.passes or self.holds(sector, self.passes):
                continue
            check(broken_off and self.may_hold(sector, self.passes + 1),
                  f"sector {self.first + sector} holds neither pass "
                  f"{self.passes} nor the next")

    def may_hold(self, sector, number):
        """The same of a pass under way: what was discarded may be anything."""
        return (self.kind(sector, number) == DISCARDED
                or self.holds(sector, number))
