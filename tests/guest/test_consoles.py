# SPDX-License-Identifier: MIT
"""Consoles: virtio ones, and `godwit console`, which shows any of them to more
than one; what comes and goes there is whole, whoever moves or stalls."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from lib import check, equal, test, wait_until
from test_boot import Terminal, peer_reads, unread

LINE = 16


def lines(count):
    """What the guest says of itself."""
    return b"".join(b"%0*d\n" % (LINE - 1, number)
                    for number in range(count))


def all_lines(data, end=b""):
    """Whole lines, numbered from 0 without a gap, and this behind them."""
    check(data.endswith(end), f"it ends with {data[-50:]!r}")
    text = data[:len(data) - len(end)]
    equal(text, lines(len(text) // LINE), "what the guest said")


# Slow enough for a watcher who gets a turn once in ten seconds.
SLOWLY = {"endless": "yes", "pause_us": 20000, "bytes": 1}


def console(host, *options, pipes=None, **words):
    """The guest."""
    said = [f"{word}={value}" for word, value in words.items()]
    return host.run("console", *said, options=options, **(pipes or {}))


def watch(host, name="bird", device=None, **pipes):
    """`godwit console`, on pipes, as soon as there is a VM to watch."""
    wait_until(host.socket_path(name).exists, f"{name} has a control socket")
    words = ["console", name] + ([device] if device else [])
    return host.start(*words, **pipes)


def stalled(host, device, name="bird"):
    """A client that has asked for a console, and does not read it."""
    client = host.qmp(name)
    client.execute("x-godwit-console", device=device)
    return client


# ---- virtio consoles ----

@test
def a_virtio_console_on_stdio_carries_all_both_ways(world):
    vm = console(world.host(), "--console", "stdio", lines=3000, bytes=6)
    vm.out.wait("0002999")
    vm.send(b"a\x00b\xffc\n")
    vm.expect_exit(0)
    # The serial port, which says other things, is not there.
    equal(vm.out.data, lines(3000) + b"a\x00b\xffc\n", "what it said")


@test
def a_guest_has_several_consoles_each_where_it_was_asked_for(world):
    host = world.host()
    path, sock = world.dir / "one.txt", world.dir / "two.sock"
    path.write_bytes(b"before\n")
    ends = ["--console", f"file:{path}", "--console", "null",
            "--console", f"unix:{sock}"]
    vm = console(host, *ends, lines=100, bytes=1, device=0)
    vm.out.wait("said 100")
    equal(path.read_bytes(), b"before\n" + lines(100), "the file")
    show = host.command("show", "bird").out
    check(" ".join(ends) in show and "--serial" not in show, show)
    vm.send(b"q")
    vm.expect_exit(0)
    vm = console(host, *ends, lines=100, bytes=3, device=2)
    vm.out.wait("said 100")
    peer = world.connect(f"unix:{sock}")
    peer.sock.sendall(b"abc")
    peer_reads(peer, b"abc")
    vm.expect_exit(0)
    check(not sock.exists(), "the socket is left over")


@test
def a_reader_that_stalls_holds_its_guest_up_and_loses_nothing(world):
    host = world.host()
    ours, theirs = os.pipe()
    vm = console(host, "--console", "stdio", lines=20000,
                 pipes={"stdout": theirs})
    os.close(theirs)
    wait_until(lambda: unread(ours) > 50000, "the pipe is full")
    # Nobody else is held up, whoever stalls.
    equal(host.qmp().execute("query-status")["running"], True, "running")
    equal(take(ours, len(lines(20000))), lines(20000), "what it said")
    check(vm.running(), "the guest has ended")


def take(pipe, size):
    """So many bytes."""
    got = b""
    while len(got) < size:
        piece = os.read(pipe, 65536)
        check(piece, f"it ended after {got[-50:]!r}")
        got += piece
    os.close(pipe)
    return got


# ---- godwit console ----

@test
def a_console_is_shown_to_several_with_what_was_said_before(world):
    host = world.host()
    vm = host.run("echo", "bytes=9")
    vm.out.wait("ready")
    vm.send(b"one")
    vm.out.wait("one")
    first = watch(host)
    first.out.wait(r"\Aready\none")
    second = watch(host, device="serial0")
    second.out.wait(r"\Aready\none")
    second.send(b"two")
    first.send(b"\x01\x02\xff")
    vm.expect_exit(0)
    for watcher in first, second:
        watcher.expect_exit(0)
        equal(watcher.out.data, vm.out.data, "what it was shown")
        watcher.err.wait("bird: ended with status 0")


@test
def a_watcher_hears_the_last_64_kib_and_all_that_follow(world):
    host = world.host()
    vm = console(host, "--console", "null", lines=10000, bytes=5000)
    vm.out.wait("said 10000")
    watcher = watch(host)
    watcher.out.wait("0009999")
    equal(watcher.out.data, lines(10000)[-65536:], "the scroll-back")
    watcher.send(b"x" * 5000)
    watcher.close_input()
    watcher.expect_exit(0)
    vm.expect_exit(0)
    equal(watcher.out.data, lines(10000)[-65536:] + b"x" * 5000, "all of it")


@test
def watchers_who_stall_hurt_neither_guest_nor_move_nor_others(world):
    host = world.host()
    vm = console(host, "--console", "stdio", lines=30000, bytes=1)
    stuck = [stalled(host, "console0") for _ in range(3)]
    vm.out.wait("0029999")
    for client in stuck:
        hear_end(client)
    for _ in range(3):
        stalled(host, "console0")
    keen = watch(host)
    keen.out.wait("0029999")
    target = host.listen("--console", "stdio")
    host.migrate(target.address)
    vm.expect_exit(124)
    keen.err.wait("bird: moved to process [0-9]+")
    keen.send(b"x")
    keen.expect_exit(0)
    target.expect_exit(0)
    all_lines(vm.out.data)
    equal(target.console(), b"x", "what it said at the target")
    equal(keen.out.data, lines(30000)[-65536:] + b"x", "what was shown")


def hear_end(client):
    """It is hung up on, after what was sent to it before."""
    while client.sock.recv(65536):
        pass


@test
def a_watcher_follows_a_guest_that_moves_and_hears_each_byte_once(world):
    host = world.host()
    parts = [console(host, "--console", "stdio", **SLOWLY)]
    host.wait_running()
    watcher = watch(host)
    watcher.out.wait(r"\A0000")
    names = ["bird"]
    for number in range(3):
        target = host.listen("--console", "stdio", "--name", f"nest{number}")
        parts.append(target)
        host.migrate(target.address, name=names[-1])
        names.append(f"nest{number}")
        watcher.err.wait(f"{names[-2]}: moved to process {target.pid}, as "
                         f"{names[-1]}")
        watcher.out.wait_more()
    watcher.send(b".")
    watcher.expect_exit(0)
    watcher.err.wait("nest2: ended with status 0")
    all_lines(watcher.out.data, b".")
    for part in parts[:-1]:
        part.expect_exit(124)
    parts[-1].expect_exit(0)
    equal(parts[0].out.data + b"".join(part.console() for part in parts[1:]),
          watcher.out.data, "what the processes showed")


@test
def a_watcher_of_a_guest_that_leaves_the_host_says_so(world):
    here, there = world.hosts()
    vm = console(here, "--console", "stdio", **SLOWLY)
    watcher = watch(here)
    watcher.out.wait(r"\A0000")
    target = there.listen("--console", "stdio")
    here.migrate(target.address)
    vm.expect_exit(124)
    watcher.expect_exit(0)
    watcher.err.wait("bird: moved away")
    equal(watcher.out.data, vm.out.data, "what it was shown")
    target.send(b".")
    target.expect_exit(0)
    all_lines(vm.out.data + target.console(), b".")


@test
def a_guest_that_waits_for_its_reader_moves_and_loses_nothing(world):
    host = world.host()
    ours, theirs = os.pipe()
    vm = console(host, "--console", "stdio", lines=20000, bytes=1,
                 pipes={"stdout": theirs})
    os.close(theirs)
    wait_until(lambda: unread(ours) > 50000, "the pipe is full")
    target = host.listen("--console", "stdio")
    host.migrate(target.address)
    vm.expect_exit(124)
    target.send(b".")
    target.expect_exit(0)
    got = take(ours, unread(ours))
    equal(got + target.console(), lines(20000) + b".", "what it said")


@test
def a_terminal_that_watches_is_raw_has_a_size_and_leaves(world):
    host = world.host()
    vm = console(host, "--console", "null")
    vm.out.wait("ready")
    term = Terminal.__new__(Terminal)
    term.master, term.slave = pty.openpty()
    resize(term, 100, 30)
    term.before = termios.tcgetattr(term.slave)
    term.data = b""
    term.vm = watch(host, stdin=term.slave, stdout=term.slave)
    vm.out.wait("size 100 30")
    check(not term.lflag() & (termios.ICANON | termios.ECHO | termios.ISIG),
          "the terminal is not raw")
    resize(term, 132, 43)
    term.vm.signal(28)  # SIGWINCH: it is not its controlling terminal
    vm.out.wait("size 132 43")
    term.type(b"\x03\x01\x01")
    term.wait(b"\x03\x01")
    term.type(b"\x01x")
    term.vm.expect_exit(0)
    term.expect_restored()
    check(vm.running(), "the guest ended with its watcher")


@test
def a_watcher_begins_rows_of_its_own_and_ends_the_guests(world):
    host = world.host()
    vm = host.run("heartbeat")
    vm.out.wait(r"\.\.\.")
    term = Terminal.__new__(Terminal)
    term.master, term.slave = pty.openpty()
    term.data = b""
    term.vm = watch(host, stdin=term.slave, stdout=term.slave)
    # What was said before comes first, and then a word of ours on stderr.
    term.wait(b".\r\n")
    term.vm.err.wait("this is serial0")
    term.wait(b"\n.")
    term.type(b"\x01x")
    term.vm.expect_exit(0)
    check(term.rest().endswith(b".\r\n"), term.data[-80:])


@test
def a_watcher_whose_reader_has_heard_enough_ends_without_a_word(world):
    host = world.host()
    vm = host.run("heartbeat")
    vm.out.wait(r"\.\.\.")
    quiet = host.run("echo", name="quiet")
    quiet.out.wait("ready")
    for name in ("bird", "quiet"):
        reads, writes = os.pipe()
        watcher = watch(host, name=name, stdout=writes)
        os.close(writes)
        os.read(reads, 1)
        os.close(reads)
        watcher.expect_exit(0)
        equal(watcher.err.text(), "", "what it said")
    check(vm.running() and quiet.running(), "a guest ended with its watcher")


def resize(term, columns, rows):
    """As a window manager does."""
    fcntl.ioctl(term.master, termios.TIOCSWINSZ,
                struct.pack("HHHH", rows, columns, 0, 0))


@test
def a_console_that_is_not_there_is_refused_with_those_that_are(world):
    host = world.host()
    vm = console(host, "--console", "null")
    vm.out.wait("ready")
    bad = host.command("console", "bird", "console1", status=1)
    check("no console 'console1'; there is serial0, console0" in bad.err,
          bad.err)
    check("no VM 'crow'" in host.command("console", "crow", status=1).err,
          "crow")


@test
def sixteen_watch_a_console_and_the_next_has_to_wait(world):
    host = world.host()
    vm = console(host, "--console", "null")
    vm.out.wait("ready")
    watchers = [watch(host, device="serial0") for _ in range(16)]
    for watcher in watchers:
        watcher.out.wait("ready")
    bad = host.command("console", "bird", "serial0", status=1)
    check("serial0: 16 watch it already; end one of them" in bad.err, bad.err)
    watchers[0].kill()
    qmp = host.qmp()
    wait_until(lambda: "return" in qmp.call("x-godwit-console",
                                            device="serial0"),
               "a place is free again")


@test
def a_watcher_of_a_vm_that_is_killed_says_so(world):
    host = world.host()
    vm = console(host, "--console", "null")
    vm.out.wait("ready")
    watcher = watch(host)
    wait_until(lambda: re.search("socket", str(watcher.descriptors())),
               "it is connected")
    vm.kill()
    watcher.expect_exit(1)
    watcher.err.wait("process has ended")
