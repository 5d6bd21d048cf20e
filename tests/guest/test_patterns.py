# SPDX-License-Identifier: MIT
"""Guests that write to disks, and what is on the images afterwards."""

import re

from lib import equal, test
from sectors import Image

SIZE = (2 << 20) + 7 * 512  # a multiple of nothing but sectors
MOVES = 6


def make_image(world, size=SIZE):
    """An empty one."""
    path = world.dir / "disk.img"
    with open(path, "wb") as image:
        image.truncate(size)
    return path


def run_blk(world, *words, disk="", host="a", **options):
    """The blk guest on a fresh image; also returns the image's path."""
    path = make_image(world)
    vm = world.host(host).run("blk", *words, options=(
        "--disk", f"{path}{disk}"), **options)
    return vm, path


def writes_well(world, *words, disk=""):
    """Three passes, verified by the guest and then by us."""
    vm, path = run_blk(world, "passes=3", *words, disk=disk)
    vm.expect_exit(0)
    image = Image(path)
    equal((image.passes, image.boots), (3, 1), "passes and boots on the disk")
    image.verify(broken_off=False)


@test
def what_a_guest_writes_is_on_its_image(world):
    writes_well(world)


@test
def a_disk_that_interrupts_and_has_many_requests_writes_well(world):
    writes_well(world, "wait=irq", "depth=64")


@test
def a_disk_without_indirect_tables_and_event_indices_writes_well(world):
    writes_well(world, "indirect=no", "event=no", "wait=irq")


@test
def a_disk_with_four_queues_writes_well(world):
    writes_well(world, "queues=4", "depth=16", "wait=irq", disk=",queues=4")


@test
def a_disk_past_the_page_cache_writes_well(world):
    writes_well(world, "depth=16", disk=",direct")


@test
def a_disk_tells_its_serial_number(world):
    vm, _ = run_blk(world, "passes=1", disk=",serial=nest-42")
    vm.out.wait(r'^blk: id="nest-42" ')
    vm.expect_exit(0)


@test
def zeroed_ranges_are_holes_or_zeros_and_nothing_else(world):
    writes_well(world, "zero=50")


def moves(world, vm, path, times=MOVES):
    """To and fro between two hosts; returns who has the guest then."""
    hosts = world.hosts()
    for i in range(times):
        there = hosts[(i + 1) % 2].listen("--disk", f"disk0={path}")
        hosts[i % 2].migrate(there.address)
        vm.expect_exit(124)
        there.send(b"s")
        there.out.wait(r"^stats .* errors=0$")
        vm = there
    return vm


@test
def a_guest_that_writes_moves_to_and_fro_and_loses_nothing(world):
    vm, path = run_blk(world, "depth=16", "rate=4000")
    vm.out.wait("^ready$")
    vm = moves(world, vm, path)
    vm.send(b"q")
    vm.expect_exit(0)
    Image(path).verify()


@test
def a_guest_whose_disk_interrupts_moves_to_and_fro(world):
    vm, path = run_blk(world, "wait=irq", "queues=2", "rate=4000",
                       disk=",queues=2")
    vm.out.wait("^ready$")
    vm = moves(world, vm, path)
    vm.send(b"q")
    vm.expect_exit(0)
    Image(path).verify()


@test
def a_guest_that_is_reset_with_requests_in_flight_finds_what_it_wrote(world):
    vm, path = run_blk(world, "depth=32", "span=512")
    for boot in range(1, 5):
        vm.out.wait(rf"^blk: boot={boot} [^@]*^ready$")
        vm.send(b"s")
        vm.out.wait(rf"boot={boot} [^@]*^stats .* errors=0$")
        vm.send(b"r")
        vm.out.wait(rf"boot={boot} [^@]*^reset in_flight=[1-9]")
    vm.out.wait(r"^blk: boot=5 [^@]*^ready$")
    vm.send(b"q")
    vm.expect_exit(0)
    image = Image(path)
    equal(image.boots, 5, "boots")
    image.verify()


@test
def a_guest_that_was_reset_and_moved_finds_what_it_wrote(world):
    vm, path = run_blk(world, "depth=32", "rate=4000")
    vm.out.wait("^ready$")
    there = world.host("b").listen("--disk", f"disk0={path}")
    vm.send(b"r")
    vm.out.wait("^reset in_flight=")
    world.host("a").migrate(there.address)
    vm.expect_exit(124)
    text = vm.out.data + there.console()
    if not re.search(rb"boot=2 [^@]*^ready$", text, re.M):
        there.out.wait("^ready$")
    there.send(b"q")
    there.expect_exit(0)
    image = Image(path)
    equal(image.boots, 2, "boots")
    image.verify()


@test
def a_guest_that_is_killed_leaves_what_it_was_told_is_flushed(world):
    vm, path = run_blk(world, "depth=32", "span=256")
    vm.out.wait("^ready$")
    vm.send(b"s")
    vm.out.wait(r"^stats passes=\d+ ")
    vm.kill()
    Image(path).verify()
    again = world.host("a").run("blk", "depth=32", "span=256",
                                options=("--disk", str(path)), name="wren")
    again.out.wait(r"^blk: boot=2 [^@]*^ready$")
    again.send(b"q")
    again.expect_exit(0)
    Image(path).verify()
