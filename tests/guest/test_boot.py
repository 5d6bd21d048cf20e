# SPDX-License-Identifier: MIT
"""Boots: every guest with its verdict, consoles, signals, sizes."""

import array
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios

from lib import GODWIT, POLL, check, equal, test, wait_until


def boots(world, guest, *cmdline, status=0, **options):
    """Run a guest to its end; the process."""
    vm = world.host().run(guest, *cmdline, stdin=subprocess.DEVNULL, **options)
    return vm.expect_exit(status)


# ---- verdicts ----

@test
def hello_ends_with_the_exit_status_that_the_guest_gives(world):
    vm = boots(world, "hello", "exit=7", status=7)
    check('hello: cmdline="exit=7"' in vm.out.text(), vm.out.text())
    equal(vm.err.text(), "godwit: the guest ended itself with status 7\n",
          "godwit's own words")


@test
def a_guest_that_passes_ends_with_0(world):
    boots(world, "hello", "exit=0")


@test
def a_triple_fault_ends_with_3_and_is_named(world):
    vm = boots(world, "crash", status=3)
    vm.err.wait("godwit: the guest crashed: vCPU 0: triple fault")


@test
def without_debug_exit_the_port_is_absent_and_the_guest_halts(world):
    vm = world.host().run("hello", "exit=7", debug_exit=False)
    vm.out.wait("verdict 7\n")
    vm.signal(signal.SIGTERM)
    vm.expect_exit(0)


@test
def all_sync_points_hold_when_nothing_moves(world):
    vm = world.host().run("sync", "auto=yes", cpus=2, memory="64M")
    status = vm.wait()
    failed = re.findall("^(?:wrong|fail) .*", vm.out.text(), re.M)
    equal((status, failed), (0, []), "exit status, and points that failed")
    check("\ndone\n" in vm.out.text(), "the last point was not reached")


@test
def timer_ticks_are_neither_lost_nor_doubled(world):
    for mode in ("periodic", "deadline"):
        vm = boots(world, "timer", "seconds=1", f"mode={mode}")
        check(" lost=0 doubled=0 " in vm.out.text(), vm.out.text())


@test
def heartbeat_beats_as_often_as_it_says(world):
    vm = boots(world, "heartbeat", "beats=640", "interval_us=500")
    check(" beats=640 " in vm.out.text(), vm.out.text())


@test
def smp_guests_count_right_on_1_to_8_cpus(world):
    for cpus in (1, 2, 3, 4, 8):
        vm = boots(world, "smp", "count=20000", f"cpus={cpus}", cpus=cpus)
        check("\nend total=" in vm.out.text(), vm.out.text())


# ---- memory ----

def hello_with(world, memory, mib):
    """Boot with so much memory; the guest must see it."""
    vm = boots(world, "hello", memory=memory)
    check(f"memory={mib} MiB" in vm.out.text(), vm.out.text())


@test
def guests_have_from_16_mib_to_more_than_4_gib_of_memory(world):
    for memory, mib in (("16M", 16), ("17M", 17), ("3G", 3072),
                        ("3073M", 3073), ("4G", 4096), ("5G", 5120)):
        hello_with(world, memory, mib)


@test
def memory_above_4_gib_is_written_and_verified(world):
    vm = boots(world, "dirty", "mib=8", "passes=3", "where=high", memory="5G")
    check("passes=3" in vm.out.text() and "errors=0" in vm.out.text(),
          vm.out.text())


@test
def dirty_verifies_in_the_smallest_memory(world):
    boots(world, "dirty", "mib=4", "passes=20", memory="16M")


@test
def memory_that_the_guest_does_not_touch_is_not_taken_from_the_host(world):
    vm = world.host().run("hello", "spin=yes", memory="5G")
    vm.out.wait("hello: ")
    check(vm.resident() < 256 << 20, f"{vm.resident()} bytes are resident")


# ---- the console on pipes ----

@test
def pipes_carry_16_kib_byte_for_byte_in_both_directions(world):
    data = bytes(range(256)) * 64
    vm = world.host().run("echo", f"bytes={len(data)}")
    vm.out.wait("ready\n")
    vm.send(data)
    vm.expect_exit(0)
    got = vm.out.data.partition(b"ready\n")[2][:len(data)]
    check(got == data, f"byte {mismatch(got, data)} is wrong")


def mismatch(got, want):
    """The first place where they differ."""
    for at, (left, right) in enumerate(zip(got, want)):
        if left != right:
            return at
    return min(len(got), len(want))


@test
def input_that_ends_leaves_the_guest_running(world):
    vm = world.host().run("heartbeat")
    vm.out.wait(r"\.")
    vm.close_input()
    vm.out.wait_more(100)
    vm.signal(signal.SIGTERM)
    vm.expect_exit(125)


@test
def input_from_before_the_guest_reads_is_not_lost(world):
    vm = world.host().run("heartbeat")
    vm.send(b"ggq")
    vm.close_input()
    vm.expect_exit(0)
    equal(vm.out.text().count("gap tsc_ns="), 3, "answers")


@test
def a_reader_that_closes_its_pipe_does_not_end_the_guest(world):
    host = world.host()
    read, write = os.pipe()
    vm = host.run("heartbeat", "beats=2000", stdout=write)
    os.close(write)
    equal(len(os.read(read, 1)), 1, "bytes read")
    os.close(read)
    vm.expect_exit(0)


@test
def a_reader_that_stalls_gets_every_byte_in_the_end(world):
    host = world.host()
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 8192)
    vm = host.run("echo", "bytes=12000", stdout=write)
    os.close(write)
    data = b""
    while not data.endswith(b"ready\n"):
        data += os.read(read, 6)
    vm.send(b"x" * 6000 + b"y" * 6000)
    wait_until(lambda: unread(read) >= 4096, "the pipe is full")
    check(host.status()["running"], "it does not run while nobody reads")
    data = b""
    while b"verdict 0\n" not in data:
        data += os.read(read, 65536)
    equal((data.count(b"x"), data.count(b"y")), (6000, 6001), "bytes")
    os.close(read)
    vm.expect_exit(0)


def unread(pipe):
    """Bytes in it."""
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


@test
def a_console_can_be_a_file_a_socket_or_nothing(world):
    host = world.host()
    path = world.dir / "console.txt"
    boots_with = ["--serial", f"file:{path}"]
    host.run("hello", options=boots_with).expect_exit(0)
    check("verdict 0" in path.read_text(), path.read_text())
    host.run("hello", options=["--serial", "null"]).expect_exit(0)
    unix_console(world, host)


def unix_console(world, host):
    """Echo through a unix socket."""
    path = world.dir / "console.sock"
    vm = host.run("echo", "bytes=6", options=["--serial", f"unix:{path}"])
    wait_until(path.exists, "the console's socket")
    # What is said before somebody is there is gone, but for the scroll-back.
    watcher = host.start("console", "bird", stdin=subprocess.DEVNULL)
    watcher.out.wait("ready")
    peer = world.connect(f"unix:{path}")
    peer.sock.sendall(b"abcdef")
    peer_reads(peer, b"abcdef\necho: bytes=6\nverdict 0\n")
    vm.expect_exit(0)
    watcher.wait()


def peer_reads(peer, text):
    """Until it is there, and no more than that."""
    data = b""
    while len(data) < len(text):
        piece = peer.sock.recv(len(text) - len(data))
        check(piece, f"the console ended after {data!r}")
        data += piece
    equal(data, text, "what came")


# ---- the console on a terminal ----

class Terminal:
    """A pty with godwit on it."""

    def __init__(self, host, guest, *cmdline):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.vm = host.run(guest, *cmdline, stdin=slave, stdout=slave)
        self.data = b""

    def wait(self, text):
        """Until it is on the screen."""
        while text not in self.data:
            self.data += os.read(self.master, 4096)

    def type(self, data):
        """Keys."""
        os.write(self.master, data)

    def lflag(self):
        """The terminal's local modes now."""
        return termios.tcgetattr(self.slave)[3]

    def rest(self):
        """All that is on the screen, when nobody writes there any more."""
        while select.select([self.master], [], [], 0)[0]:
            self.data += os.read(self.master, 4096)
        return self.data

    def expect_restored(self):
        """It is as it was."""
        equal(termios.tcgetattr(self.slave), self.before, "the terminal")
        os.close(self.master)
        os.close(self.slave)


@test
def a_terminal_is_raw_and_control_a_x_leaves_and_restores_it(world):
    term = Terminal(world.host(), "echo")
    term.wait(b"ready")
    check(not term.lflag() & (termios.ICANON | termios.ECHO | termios.ISIG),
          "the terminal is not raw")
    term.type(b"\x03q\x01\x01")
    term.wait(b"\x03q\x01")
    term.type(b"\x01x")
    term.vm.expect_exit(125)
    equal(term.vm.err.text(), "godwit: ended at its console, by Ctrl-A x\n",
          "what is said of it")
    term.expect_restored()


@test
def a_terminal_is_restored_when_the_guest_ends_by_itself(world):
    term = Terminal(world.host(), "hello", "exit=9")
    term.wait(b"verdict 9")
    term.vm.expect_exit(9)
    equal(term.vm.err.text(), "godwit: the guest ended itself with status 9\n",
          "what is said of it")
    term.expect_restored()


@test
def a_terminal_is_restored_when_a_signal_ends_godwit(world):
    term = Terminal(world.host(), "hello", "spin=yes")
    term.wait(b"hello: ")
    term.vm.signal(signal.SIGTERM)
    term.vm.expect_exit(125)
    term.expect_restored()


@test
def a_terminal_is_left_at_its_left_edge(world):
    host = world.host()
    term = Terminal(host, "heartbeat")
    term.wait(b"...")
    term.type(b"\x01x")
    term.vm.expect_exit(125)
    check(term.rest().endswith(b".\r\n"), term.data[-80:])
    term = Terminal(host, "hello", "exit=9")
    term.vm.expect_exit(9)
    # Once: that guest has ended its row itself.
    check(re.search(rb"verdict 9\r*\n\Z", term.rest()), term.data[-80:])


@test
def a_terminal_is_restored_when_nothing_could_be_started(world):
    term = Terminal(world.host(), "hello", "exit=0")
    term.vm.expect_exit(0)
    host = world.host("b")
    bad = host.start("run", "--kernel", "/dev/null", stdin=term.slave)
    bad.expect_exit(1)
    term.expect_restored()


# ---- signals and names ----

@test
def sigterm_sigint_and_sighup_end_the_vm_and_who_sent_them_is_named(world):
    host = world.host()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        vm = host.run("heartbeat", debug_exit=False)
        vm.out.wait(r"\.")
        check(host.socket_path().exists(), "there is no control socket")
        vm.signal(number)
        vm.expect_exit(0)
        equal(vm.err.text(), f"godwit: ended by {number.name} from process "
              f"{os.getpid()}\n", "what is said of it")
        check(not host.socket_path().exists(), "the socket is left over")


@test
def a_vm_without_a_name_is_called_by_its_pid(world):
    host = world.host()
    vm = host.run("heartbeat", name=None)
    vm.out.wait(r"\.")
    equal(list(host.list()), [f"vm-{vm.pid}"], "names")


@test
def a_name_that_is_taken_is_refused_with_who_has_it(world):
    host = world.host()
    vm = host.run("heartbeat")
    vm.out.wait(r"\.")
    other = host.run("hello", debug_exit=False)
    other.expect_exit(1)
    other.err.wait(f"name 'bird': taken by process {vm.pid}")
    other.err.wait("--name")


@test
def the_socket_of_a_vm_that_was_killed_is_no_obstacle(world):
    host = world.host()
    vm = host.run("heartbeat")
    vm.out.wait(r"\.")
    vm.kill()
    equal(host.list(), {}, "VMs")
    host.run("hello").expect_exit(0)


@test
def control_sockets_are_for_their_owner_only(world):
    host = world.host()
    host.run("heartbeat").out.wait(r"\.")
    equal(host.socket_path().stat().st_mode & 0o777, 0o600, "socket's mode")
    equal(host.socket_path().parent.stat().st_mode & 0o777, 0o700, "mode")


@test
def closed_standard_descriptors_are_no_trouble(world):
    host = world.host()
    vm = subprocess.run(
        ["sh", "-c", '"$0" run --kernel "$1" --debug-exit --name x '
         "--cmdline exit=5 <&- >&-", str(GODWIT),
         str(GODWIT.parent / "guests/hello.elf")],
        env=host.env, stderr=subprocess.PIPE, check=False)
    equal((vm.returncode, vm.stderr), (5, b"godwit: the guest ended itself "
          b"with status 5\n"), "status and words")


@test
def the_kernel_may_come_with_an_initrd(world):
    initrd = world.dir / "initrd"
    initrd.write_bytes(b"x" * 100000)
    boots(world, "hello", options=["--initrd", initrd])


# ---- commands on a VM that runs ----

@test
def pause_holds_the_guest_and_resume_lets_it_go_on(world):
    host = world.host()
    vm = host.run("heartbeat")
    vm.out.wait(r"\.")
    host.command("pause", "bird")
    equal(host.status()["status"], "paused", "status")
    size = settled(vm)
    for _ in range(20):
        host.status()
    equal(len(vm.out.data), size, "bytes while it is paused")
    host.command("resume", "bird")
    vm.out.wait_more()
    equal(host.status()["status"], "running", "status")


def settled(vm):
    """How much came, once what was in the pipe has come, too."""
    import select
    import time
    size = -1
    while size != len(vm.out.data):
        size = len(vm.out.data)
        select.select([], [], [], POLL)
        time.sleep(POLL)
    return size


@test
def reset_boots_the_guest_again(world):
    host = world.host()
    vm = host.run("hello", "spin=yes")
    first = vm.out.wait("hello: .*\n").end()
    host.command("reset", "bird")
    vm.out.wait("hello: .*\n", start=first)


@test
def kill_ends_the_vm(world):
    host = world.host()
    vm = host.run("heartbeat", debug_exit=False)
    vm.out.wait(r"\.")
    host.command("kill", "bird")
    vm.expect_exit(0)
    equal(host.list(), {}, "VMs")


@test
def show_prints_a_line_that_makes_the_vm_again(world):
    host = world.host()
    vm = host.run("hello", "spin=yes", "it's", memory="48M", cpus=2)
    vm.out.wait("hello: ")
    line = host.command("show", "bird").out
    host.command("kill", "bird")
    vm.expect_exit(125)
    again = subprocess.Popen(
        ["sh", "-c", "exec " + line.replace("godwit", str(GODWIT), 1)],
        env=host.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        said = again.stdout.readline().decode()
        equal(said, 'hello: cmdline="spin=yes it\'s" memory=48 MiB cpus=2\n',
              "the second VM's greeting")
        equal(list(host.list()), ["bird"], "names")
    finally:
        again.kill()
        again.wait()
        again.stdout.close()


@test
def list_shows_every_vm_and_nothing_else(world):
    host = world.host()
    equal(host.list(), {}, "VMs of a host where nothing has run")
    for name in ("one", "two"):
        host.run("heartbeat", name=name, cpus=1).out.wait(r"\.")
    vms = host.list()
    equal(sorted(vms), ["one", "two"], "names")
    equal(vms["one"]["memory"], 32 << 20, "memory of one")
    check("one" in host.command("list").out, "one is not in the table")
