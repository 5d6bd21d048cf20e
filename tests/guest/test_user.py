# SPDX-License-Identifier: MIT
"""User-mode networks between processes: what a guest has without any set-up,
what of it moves, and what becomes of a guest whose network's process dies or
stalls. Ports are those of a loopback address that each test has for itself.
"""

import os
import pathlib
import signal
import socket

from lib import BUILD, DEADLINE, Skipped, check, equal, test, wait_until
from test_moves import moved_by
from test_net import MAC, wire

PORT = 20222
LEASED = "address 10.0.2.15 gateway 10.0.2.2 dns 10.0.2.3 leased"


def here():
    """An address of this test's, which is a process."""
    pid = os.getpid()
    return f"127.{pid >> 16 & 127 | 64}.{pid >> 8 & 255}.{pid & 255}"


def forwards():
    """Ports there that lead to the guest."""
    return (f"hostfwd=tcp:{here()}:{PORT}-:80,"
            f"hostfwd=udp:{here()}:{PORT}-:7")


def need_libslirp(host):
    """Builds without it refuse, which is tested below."""
    if "no libslirp" in host.command("--version").out:
        raise Skipped("built without libslirp")


def run_host(host, *cmdline):
    """A guest that is a host of the Internet, as soon as it has an address."""
    need_libslirp(host)
    vm = host.run("inet", *cmdline,
                  options=("--net", f"user,mac={MAC},{forwards()}"))
    vm.out.wait(LEASED)
    return vm


def connect():
    """A connection to the guest, from outside, that it answers on."""
    client = socket.create_connection((here(), PORT), DEADLINE)
    echo(client, b"hello, guest")
    return client


def connect_soon():
    """The same, when the port may be bound only in a moment."""
    def attempt():
        try:
            return connect()
        except ConnectionRefusedError:
            return None
    return wait_until(attempt, "the port leads to the guest")


def echo(client, data):
    """The guest sends it back."""
    client.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = client.recv(65536)
        check(piece, f"the guest hung up after {len(got)} bytes")
        got += piece
    equal(got, data, "what came back")


def network_of(vm):
    """The process that has a VM's network."""
    for child in pathlib.Path(f"/proc/{vm.pid}/task/{vm.pid}/children") \
            .read_text().split():
        if pathlib.Path(f"/proc/{child}/comm").read_text() == "user-network\n":
            return int(child)
    raise AssertionError(f"{vm.name()} has no network's process")


def is_gone(pid):
    """Whether a process has ended, waited for or not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@test
def a_guest_has_a_network_without_any_set_up(world):
    host = world.host()
    # The guest's gateway is the host's loopback address.
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        vm = run_host(host, f"connect={server.getsockname()[1]}")
        outward = server.accept()[0]
    outward.settimeout(DEADLINE)
    equal(outward.recv(5), b"hello", "what the guest says")
    echo(outward, b"x" * 100000)
    echo(connect(), bytes(range(256)) * 400)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE)
        client.connect((here(), PORT))
        client.send(b"a datagram")
        equal(client.recv(100), b"a datagram", "what came back")
    line = host.command("show", "bird").out
    check(f"--net user,{forwards()},id=net0,mac={MAC}," in line, line)
    network = network_of(vm)
    status = pathlib.Path(f"/proc/{network}/status").read_text()
    check("Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status and
          "NoNewPrivs:\t1" in status and "Uid:\t0\t0" not in status, status)
    # Nothing of the VM is open there: its sockets, three standard ones.
    links = {os.readlink(link) for link in
             pathlib.Path(f"/proc/{network}/fd").iterdir()}
    check(all(link.startswith(("socket:", "pipe:", "/dev/null"))
              for link in links), str(links))
    vm.send(b"q")
    vm.expect_exit(0)
    # And with the VM its process and its ports are gone.
    check(is_gone(network), "the network's process is left")
    socket.create_server((here(), PORT)).close()


@test
def a_user_network_moves_and_its_connections_end(world):
    a, b = world.hosts()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        vm = run_host(a, f"connect={server.getsockname()[1]}")
        outward = server.accept()[0]
    outward.settimeout(DEADLINE)
    equal(outward.recv(5), b"hello", "what the guest says")
    inward = connect()
    # Both ends are on one host, and so the port is taken until the source ends.
    listener = b.listen("--net", f"net0=user,{forwards()}")
    report = a.migrate(listener.address, "--json").json()
    equal(report["closed_connections"], 2, "connections that the move ended")
    moved_by(vm)
    for client in (outward, inward):
        try:
            equal(client.recv(1), b"", "what comes after the end")
        except ConnectionResetError:
            pass
    listener.out.wait("announced")
    listener.send(b"t")
    listener.out.wait("said on 2")
    listener.out.wait("reset 80")
    listener.out.wait("reset 40000")
    echo(connect_soon(), b"y" * 100000)
    listener.send(b"d")
    listener.out.wait(LEASED)
    line = b.command("show", "bird").out
    check(f"--net user,{forwards()},id=net0,mac={MAC}," in line, line)
    check("queues=" not in line and "--cpu " not in line, line)
    listener.send(b"q")
    listener.expect_exit(0)


@test
def a_signal_to_all_ends_the_vm_and_not_its_network_first(world):
    a = world.host("a")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        vm = run_host(a)
        network = network_of(vm)
        # It has them first, and answers all the same.
        os.kill(network, number)
        connect().close()
        vm.signal(number)
        vm.expect_exit(125)
        check("user network is gone" not in vm.err.text(), vm.err.text())
        check(is_gone(network), "the network's process is left")


@test
def a_connection_that_is_closed_already_is_none_that_a_move_ends(world):
    a, b = world.hosts()
    vm = run_host(a)
    # The network's stack remembers it for some seconds.
    connect().close()
    vm.out.wait("closed 80")
    listener = b.listen("--net", f"net0=user,{forwards()}")
    report = a.migrate(listener.address, "--json").json()
    equal(report["closed_connections"], 0, "connections that the move ended")
    moved_by(vm)
    listener.send(b"q")
    listener.expect_exit(0)


@test
def a_user_network_moves_back_and_forth(world):
    a, b = world.hosts()
    vm = run_host(a)
    for here, there in ((a, b), (b, a)) * 2:
        client = connect_soon()
        listener = there.listen("--net", f"net0=user,{forwards()}")
        said = here.migrate(listener.address).out
        check("1 connection of the guest's went through this host, and has "
              "ended" in said, said)
        moved_by(vm)
        vm = listener
        client.close()
    connect_soon().close()
    vm.out.wait("closed 80")
    vm.send(b"q")
    vm.expect_exit(0)


@test
def a_failed_move_leaves_connections_and_ports_alone(world):
    a, b = world.hosts()
    vm = run_host(a)
    client = connect()
    listener = b.listen("--net", f"net0=user,{forwards()}")
    other, _ = wire()
    a.migrate(listener.address, "--bandwidth", "1M", "--timeout", "1ms",
              status=1)
    echo(client, b"still here")
    listener.kill()
    # A listener must say that a guest may have this host's network.
    number = other.fileno()
    for net, said in ((("--net", f"net7=fd={number}"), "--net net0=user"),
                      ((), "--net net0=user")):
        listener = b.listen(*net, pass_fds=(number,))
        err = a.migrate(listener.address, status=1).err
        check(said in err, err)
        listener.kill()
    echo(client, b"still here, too")
    # What it says may be a tap.
    listener = b.listen("--net", f"net0=fd={number}", pass_fds=(number,))
    a.migrate(listener.address)
    moved_by(vm)
    listener.send(b"q")
    listener.expect_exit(0)


@test
def a_card_of_a_tap_does_not_move_to_a_user_network(world):
    a, b = world.hosts()
    need_libslirp(a)
    end, _net = wire()
    number = end.fileno()
    vm = a.run("heartbeat", options=("--net", f"fd={number}"),
               pass_fds=(number,))
    vm.out.wait("kvmclock=")
    listener = b.listen("--net", "net0=user")
    err = a.migrate(listener.address, status=1).err
    check("only a tap can finish" in err and "--net net0=tap=NAME" in err, err)
    check(vm.running(), "the guest is gone")


@test
def a_network_that_dies_is_a_link_that_is_down(world):
    a, b = world.hosts()
    vm = run_host(a)
    os.kill(network_of(vm), signal.SIGKILL)
    vm.out.wait("link down")
    vm.err.wait("net0: user network is gone; the guest's link is down")
    vm.send(b"s")
    vm.out.wait("stats")
    # Where there is another the link is up, and the address is known there.
    listener = b.listen("--net", f"net0=user,{forwards()}")
    a.migrate(listener.address)
    moved_by(vm)
    listener.out.wait("link up")
    connect_soon().close()
    listener.send(b"q")
    listener.expect_exit(0)


@test
def a_network_that_stalls_holds_nobody_up(world):
    host = world.host()
    vm = run_host(host)
    network = network_of(vm)
    client = connect()
    os.kill(network, signal.SIGSTOP)
    vm.send(b"f")
    vm.out.wait("flood begins")
    memory = vm.resident()
    for command in ("pause", "resume", "status"):
        host.command(command, "bird")
    before = vm.out.text().count("stats")
    vm.send(b"s")
    wait_until(lambda: vm.out.text().count("stats") > before, "it answers")
    check(vm.resident() < memory + (8 << 20), "it grows")
    os.kill(network, signal.SIGCONT)
    # In the flood, too, though it is not said how fast.
    echo(client, b"in the flood")
    vm.send(b"f")
    vm.out.wait("flood ends")
    echo(client, b"after it")
    os.kill(network, signal.SIGSTOP)
    vm.send(b"q")
    vm.expect_exit(0)
    wait_until(lambda: is_gone(network), "the stopped process dies, too")


@test
def ports_that_cannot_be_had_are_refused_at_once(world):
    host = world.host()
    need_libslirp(host)
    guest = BUILD / "guests" / "hello.elf"
    with socket.create_server((here(), PORT)):
        said = host.command("run", "--kernel", guest, "--net",
                            f"user,{forwards()}", status=1).err
        check(f"--net: hostfwd=tcp:{here()}:{PORT}-:80: Address already in use: "
              "somebody has the port; give another" in said, said)
    for command in (("run", "--kernel", guest, "--net", "user"),
                    ("listen", f"unix:{world.dir}/nest", "--net",
                     "net0=user")):
        words = list(command)
        words[-1] += ",hostfwd=tcp:192.0.2.1:2222-:22"
        said = host.command(*words, status=1).err
        check("no address of this host's" in said, said)
