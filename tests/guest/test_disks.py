# SPDX-License-Identifier: MIT
"""Disks between processes: who opens them, who may have them, and what becomes
of them when their guest moves.
"""

import ctypes
import fcntl
import os
import re
import struct
import subprocess

from lib import BUILD, Skipped, check, equal, test, wait_until
from test_moves import moved_by

MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def image(world, name="disk.img", size=4 * MIB):
    """An empty disk."""
    path = world.dir / name
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def run_blk(host, *disks, cmdline=("rate=2000", "span=1024"), options=()):
    """The guest that writes to its disk and verifies it, as soon as it does."""
    words = [word for disk in disks for word in ("--disk", disk)]
    vm = host.run("blk", *cmdline, options=(*words, *options))
    vm.out.wait("ready")
    return vm


def verify_and_end(process):
    """It has its whole disk verified, and ends."""
    process.send(b"q")
    process.out.wait(r"verified")
    process.expect_exit(0)


def stranger(host, path, *options):
    """Another VM that would have the disk."""
    return host.command("run", "--kernel", BUILD / "guests" / "hello.elf",
                        "--memory", "16M", "--serial", "null", "--disk",
                        f"{path}", *options, status=1).err


# ---- run ----

@test
def a_second_run_on_a_used_image_names_the_holder(world):
    a = world.host("a")
    path = image(world)
    vm = run_blk(a, path)
    said = stranger(a, path)
    check(f"--disk {path}: locked by another VM" in said, said)
    check(f"pid {vm.pid}" in said, said)
    said = stranger(a, f"{path},readonly")
    check("locked by another VM" in said, said)
    verify_and_end(vm)
    verify_and_end(run_blk(a, path))


@test
def many_may_read_what_nobody_writes(world):
    a = world.host("a")
    path = image(world)
    words = ["--disk", f"{path},readonly"]
    vms = [a.run("heartbeat", name=f"bird{i}", options=words)
           for i in range(3)]
    for vm in vms:
        vm.out.wait(r"\.")
    said = stranger(a, path)
    check("it only reads: stop it, or add ,readonly" in said, said)


@test
def a_disk_that_is_not_there_or_none_is_refused_with_the_remedy(world):
    a = world.host("a")
    said = stranger(a, world.dir / "none.img")
    check("No such file" in said and "truncate" in said, said)
    said = stranger(a, world.dir)
    check("Is a directory; give a file in it" in said, said)
    said = stranger(a, image(world, "empty.img", 0))
    check("empty" in said, said)


@test
def locks_may_lie_in_a_directory_of_their_own(world):
    a = world.host("a")
    path = image(world)
    locks = world.dir / "locks"
    locks.mkdir()
    vm = run_blk(a, path, options=("--lock-dir", locks))
    said = stranger(a, path, "--lock-dir", locks)
    check(f"pid {vm.pid}" in said, said)
    verify_and_end(vm)


@test
def who_locks_otherwise_is_refused_before_and_after_a_move(world):
    a, b = world.hosts()
    path = image(world)
    locks, others = world.dir / "locks", world.dir / "others"
    locks.mkdir()
    others.mkdir()
    vm = run_blk(a, path, options=("--lock-dir", locks))
    listener = b.listen("--disk", f"disk0={path}", "--lock-dir", locks)
    for holder in vm, listener:
        for options in (), ("--lock-dir", others):
            said = stranger(a, path, *options)
            check(f"locked by another VM (pid {holder.pid})" in said, said)
            said = stranger(a, f"{path},readonly", *options)
            check(f"locked by another VM (pid {holder.pid})" in said, said)
        if holder is vm:
            a.migrate(listener.address)
            moved_by(vm)
    verify_and_end(listener)
    vm = run_blk(a, path)
    said = stranger(a, path, "--lock-dir", locks)
    check(f"locked by another VM (pid {vm.pid})" in said, said)
    verify_and_end(vm)


@test
def the_line_that_show_prints_makes_the_disk_again(world):
    a = world.host("a")
    path = image(world, "a,b.img")
    doubled = str(path).replace(",", ",,")
    vm = run_blk(a, f"{doubled},id=root,serial=S-1,werror=stop")
    line = a.command("show", "bird").out
    words = f"--disk {doubled},id=root,queues=1,serial=S-1,werror=stop," \
        "vectors=2"
    check(words in line, line)
    block, = a.qmp().execute("query-block")
    equal(block["device"], "root", "device")
    equal(block["inserted"]["file"], str(path), "file")
    equal(block["inserted"]["image"]["virtual-size"], 4 * MIB, "size")
    equal(block["inserted"]["ro"], False, "ro")
    vm.out.wait('id="S-1"')
    verify_and_end(vm)


# ---- listen ----

def move(world, listener, path, end=True):
    """A guest and its disk go to the listener."""
    a = world.host("a")
    vm = run_blk(a, path)
    a.migrate(listener.address)
    moved_by(vm)
    if end:
        verify_and_end(listener)


@test
def a_guest_finds_its_disk_where_the_listener_names_it(world):
    path = image(world)
    link = world.dir / "link.img"
    link.symlink_to(path)
    move(world, world.host("b").listen("--disk", f"disk0={link}"), path)


@test
def a_guest_finds_its_disk_by_name_in_a_root(world):
    path = image(world)
    root = world.dir / "root"
    root.mkdir()
    os.link(path, root / path.name)
    move(world, world.host("b").listen("--disk-root", root), path)


@test
def a_moved_disk_is_locked_at_its_new_place_and_moves_on(world):
    a, b = world.hosts()
    path = image(world)
    first = b.listen("--disk", f"disk0={path}")
    move(world, first, path, end=False)
    said = stranger(a, path)
    check(f"pid {first.pid}" in said, said)
    second = world.host("c").listen("--disk", f"disk0={path}")
    b.migrate(second.address)
    moved_by(first)
    line = world.host("c").command("show", "bird").out
    check(f"--disk {path},id=disk0" in line, line)
    verify_and_end(second)
    verify_and_end(run_blk(a, path))


def refused(world, listener, path, text):
    """A guest with a disk is not taken, and runs on with it."""
    a = world.host("a")
    vm = run_blk(a, path)
    said = a.migrate(listener.address, status=1).err
    check(re.search("the target refuses: .*" + text, said), said)
    said = stranger(a, path)
    check(f"pid {vm.pid}" in said, said)
    return a, vm


@test
def a_listener_that_names_no_disk_says_how_to(world):
    path = image(world)
    said = world.host("c").command("listen", "unix:/nowhere", "--disk",
                                   "disk0=none.img", status=1).err
    check("the source's image" in said and "truncate" not in said, said)
    listener = world.host("b").listen()
    _, vm = refused(world, listener, path, "--disk disk0=PATH.*'disk.img'")
    verify_and_end(vm)


@test
def a_copy_of_the_disk_is_refused_and_the_next_attempt_succeeds(world):
    path = image(world)
    copy = image(world, "copy.img")
    listener = world.host("b").listen("--disk", f"disk0={copy}")
    a, vm = refused(world, listener, path, "another disk, or a copy")
    other = world.host("c").listen("--disk", f"disk0={path}")
    a.migrate(other.address)
    moved_by(vm)
    verify_and_end(other)


@test
def an_attempt_that_fails_leaves_the_listener_s_disk_free(world):
    path = image(world)
    root = world.dir / "root"
    root.mkdir()
    (root / path.name).symlink_to(path)
    listener = world.host("b").listen("--disk-root", root)
    a, vm = refused(world, listener, path, "is a link, and those are not")
    (root / path.name).unlink()
    os.link(path, root / path.name)
    with open(path, "r+b") as file:
        file.truncate(8 * MIB)
    said = a.migrate(listener.address, status=1).err
    check("8388608 bytes here" in said and "4194304" in said, said)
    with open(path, "r+b") as file:
        file.truncate(4 * MIB)
    a.migrate(listener.address)
    moved_by(vm)
    verify_and_end(listener)


@test
def resolve_does_not_resume_a_guest_whose_disk_somebody_writes_to(world):
    a, b = world.hosts()
    path = image(world)
    listener = b.listen("--disk", f"disk0={path}")
    relay = world.relay(listener.address, faults=True)
    gate = relay.hold("COMMIT")
    vm = run_blk(a, path)
    command = a.start_migrate(relay.address)
    gate.wait()
    # It has the disk, and can't say what became of the guest.
    listener.stop()
    gate.close()
    wait_until(lambda: a.status()["status"] == "uncertain", "uncertain")
    said = a.command("resolve", "bird", "--resume", status=1).err
    check(re.search(f"device disk0: {path}: another VM has it and may write "
                    rf"to it \(pid {listener.pid}\)", said), said)
    check(not a.status()["running"], "it runs")
    listener.kill()
    a.command("resolve", "bird", "--resume")
    command.wait()
    verify_and_end(vm)


# ---- a lost lock ----

@test
def a_guest_whose_lock_was_lost_is_not_moved(world):
    a, b = world.hosts()
    path = image(world)
    vm = run_blk(a, path)
    # Descriptors of other processes can be had, by who may trace them.
    pidfd = os.pidfd_open(vm.pid)
    number = next(int(name) for name in os.listdir(f"/proc/{vm.pid}/fd")
                  if os.readlink(f"/proc/{vm.pid}/fd/{name}") == str(path))
    taken = LIBC.syscall(438, pidfd, number, 0)  # pidfd_getfd
    if taken < 0:
        raise Skipped("pidfd_getfd: " + os.strerror(ctypes.get_errno()))
    unlock = struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(taken, 37, unlock)  # F_OFD_SETLK
    os.close(taken)
    thief = a.run("heartbeat", name="thief", options=("--disk", path))
    thief.out.wait(r"\.")
    listener = b.listen("--disk", f"disk0={path}")
    said = a.migrate(listener.address, status=1).err
    check("its lock was lost" in said, said)


# ---- a host that can't write ----

def full_filesystem(world):
    """A directory of 1 MiB; only root can have one."""
    where = world.dir / "small"
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where],
        check=False, capture_output=True)
    if done.returncode:
        raise Skipped("can't mount a small tmpfs")
    return where


@test
def with_werror_stop_a_full_disk_pauses_the_guest(world):
    where = full_filesystem(world)
    try:
        a = world.host("a")
        path = where / "disk.img"
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        vm = a.run("blk", "span=4096", "passes=1",
                   options=("--disk", f"{path},werror=stop"))
        client = a.qmp()
        client.event("BLOCK_IO_ERROR", action="stop")
        wait_until(lambda: a.status()["status"] == "io-error", "io-error")
        vm.err.wait("the guest is paused: .*No space left")
        subprocess.run(["mount", "-o", "remount,size=16m", where], check=True)
        a.command("resume", "bird")
        vm.expect_exit(0)
    finally:
        subprocess.run(["umount", "-l", where], check=False)


@test
def who_stopped_it_is_known_after_a_move(world):
    where = full_filesystem(world)
    try:
        a, b = world.host("a"), world.host("b")
        path = where / "disk.img"
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        vm = a.run("blk", "span=4096", "passes=1",
                   options=("--disk", f"{path},werror=stop"))
        wait_until(lambda: a.status()["status"] == "io-error", "io-error")
        check("No space left" in a.status()["reason"], a.status())
        listener = b.listen("--disk", f"disk0={path}")
        a.migrate(listener.address)
        vm.expect_exit(124)
        listener.err.wait("the guest is paused: .*No space left")
        wait_until(lambda: b.status()["status"] == "io-error", "io-error")
        said = b.command("status", "bird").out
        check("because disk0: writing: No space left" in said, said)
        # It is still full: the same once more.
        b.command("resume", "bird")
        listener.err.wait("(?s)the guest is paused: .*the guest is paused: ")
        subprocess.run(["mount", "-o", "remount,size=16m", where], check=True)
        wait_until(lambda: b.status()["status"] == "io-error", "io-error")
        b.command("resume", "bird")
        listener.expect_exit(0)
    finally:
        subprocess.run(["umount", "-l", where], check=False)


@test
def without_it_the_guest_is_told(world):
    where = full_filesystem(world)
    try:
        a = world.host("a")
        path = where / "disk.img"
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        vm = a.run("blk", "span=4096", "passes=1",
                   options=("--disk", path))
        vm.expect_exit(21)
    finally:
        subprocess.run(["umount", "-l", where], check=False)
